#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Our files in a QEMU that was built here do not use each other in a circle.
#
#	circles.sh SCRIPTS QEMU
set -euo pipefail
shopt -s nullglob globstar
build=$(dirname "$(realpath "$2")")
objects=("$build"/**/backends_fph-*.c.o "$build"/**/virtio_virtio-fph*.c.o)
if [ ${#objects[@]} -eq 0 ]; then
	echo "SKIP: $2 is not where it was built"
	exit 77
fi
exec "$1/circles" "${objects[@]}"

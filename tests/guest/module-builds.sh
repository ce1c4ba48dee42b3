#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Does the guest's module build for this kernel, without warnings, and with exported
# symbols only? Does it say of itself what it should?
#
# usage: module-builds.sh KERNEL, a name of the list in kernels

set -euo pipefail
shopt -s inherit_errexit

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR
. "$here/../../scripts/common.sh"
# shellcheck source-path=SCRIPTDIR
. "$here/module.sh"
headers=$FPH_CACHE/guest.$1/headers

skip() { echo "SKIP: $*"; exit 77; }

for tool in gcc make strip objcopy; do
	command -v "$tool" > /dev/null || skip "there is no $tool"
done
[ -d "$headers/kdir" ] || skip "no headers in $headers; FPH_GUEST_KERNEL=$1 tests/guest/build-guest fetches them"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

build_module "$headers/kdir" "$tmp/module" ||
	{ cat "$tmp/module/make.log"; die "the module does not build for Linux $1"; }

# What modinfo would show; the version is the one that dkms goes by, and the tree's.
objcopy -O binary --only-section=.modinfo "$tmp/module/virtio_fph.ko" "$tmp/modinfo"
tr '\0' '\n' < "$tmp/modinfo" > "$tmp/modinfo.txt"
version=$(sed -n 's/^PACKAGE_VERSION="\(.*\)"/\1/p' "$tmp/module/src/dkms.conf")
grep -qxF "  version: '$version'," "$FPH_TOP/meson.build" ||
	die "the driver's version is '$version', not that of meson.build"
for line in license=GPL 'description=..*' 'parm=walk:..*' parmtype=walk:charp 'parm=balloon_floor:..*' parmtype=balloon_floor:uint 'alias=virtio:d0000003Fv\*' "version=$version"; do
	grep -qx "$line" "$tmp/modinfo.txt" || { cat "$tmp/modinfo.txt"; die "the module's information lacks $line"; }
done
sed -n 's/^vermagic=/built for /p' "$tmp/modinfo.txt"

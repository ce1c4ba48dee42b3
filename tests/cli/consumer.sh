#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# The library as others get it: installed, found by pkg-config, linked both
# ways. Arguments: build folder, its prefix, library folder, consumer.c, version.
set -eu
build=$1 prefix=$2 libdir=$3 source=$4 version=$5
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

meson install -C "$build" --no-rebuild --quiet --destdir "$tmp/root"
lib=$tmp/root$prefix/$libdir
export PKG_CONFIG_SYSROOT_DIR="$tmp/root" PKG_CONFIG_PATH="$lib/pkgconfig"
[ "$(pkg-config --modversion libfph)" = "$version" ]

# shellcheck disable=SC2046 # flags are words
${CC:-cc} -std=c99 -pedantic -Wall -Werror -D_DEFAULT_SOURCE -o "$tmp/shared" "$source" \
	$(pkg-config --cflags --libs libfph)
# shellcheck disable=SC2046
${CC:-cc} -std=c99 -pedantic -Wall -Werror -D_DEFAULT_SOURCE -static -o "$tmp/static" "$source" \
	$(pkg-config --cflags --libs --static libfph)
for program in shared static; do
	LD_LIBRARY_PATH=$lib "$tmp/$program" >"$tmp/out"
	cat "$tmp/out"
	grep -q "^libfph $version: anon$" "$tmp/out"
done
[ -f "$tmp/root$prefix/bin/fph-report" ]
[ -f "$tmp/root$prefix/share/man/man1/fph-report.1" ]

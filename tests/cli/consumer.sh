#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# The library as others get it: installed, found by pkg-config, linked both
# ways. Arguments: build folder, its prefix, library folder, consumer.c, the
# documented example, a program to look at, version.
set -eu
build=$1 prefix=$2 libdir=$3 source=$4 example=$5 target=$6 version=$7
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

meson install -C "$build" --no-rebuild --quiet --destdir "$tmp/root"
lib=$tmp/root$prefix/$libdir
export PKG_CONFIG_SYSROOT_DIR="$tmp/root" PKG_CONFIG_PATH="$lib/pkgconfig"
[ "$(pkg-config --modversion libfph)" = "$version" ]

# compile SOURCE NAME: $tmp/NAME.shared and $tmp/NAME.static
compile() {
	# shellcheck disable=SC2046 # flags are words
	${CC:-cc} -std=c99 -pedantic -Wall -Werror -D_DEFAULT_SOURCE -o "$tmp/$2.shared" "$1" \
		$(pkg-config --cflags --libs libfph)
	# shellcheck disable=SC2046
	${CC:-cc} -std=c99 -pedantic -Wall -Werror -D_DEFAULT_SOURCE -static -o "$tmp/$2.static" "$1" \
		$(pkg-config --cflags --libs --static libfph)
}

compile "$source" consumer
compile "$example" example
for how in shared static; do
	LD_LIBRARY_PATH=$lib "$tmp/consumer.$how" >"$tmp/out"
	cat "$tmp/out"
	grep -q "^libfph $version: anon$" "$tmp/out"
done

# 64 MiB of another process: 8 with data, 4 with zeroes, 2 of the zero page
mkfifo "$tmp/in"
: >"$tmp/ready"
"$target" shapes <"$tmp/in" >"$tmp/ready" &
pid=$!
exec 9>"$tmp/in"
tries=0
while ! grep -q ready "$tmp/ready" && [ $tries -lt 100 ]; do
	tries=$((tries + 1))
	sleep 0.1
done
read -r _ from to <"$tmp/ready"
for how in shared static; do
	LD_LIBRARY_PATH=$lib "$tmp/example.$how" $pid "$from" "$to" >"$tmp/out" 2>"$tmp/err" || :
	cat "$tmp/out" "$tmp/err"
	sum=$(awk '{ n[$3] += $2 } END { print n["zeroes"] / 1048576, n["absent"] / 1048576 }' "$tmp/out")
	[ "$sum" = '4 50' ]
done
exec 9>&-
wait $pid

for program in fph-report fph-scan; do
	[ -f "$tmp/root$prefix/bin/$program" ]
	[ -f "$tmp/root$prefix/share/man/man1/$program.1" ]
done

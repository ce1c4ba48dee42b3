#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# The library as others get it: installed, found by pkg-config, linked both
# ways. Arguments: build folder, its prefix, library folder, consumer.c, the folder of
# the examples, a program to look at, version.
set -eu
build=$1 prefix=$2 libdir=$3 source=$4 examples=$5 target=$6 version=$7
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
	${CC:-cc} -std=c99 -pedantic -Wall -Werror -D_DEFAULT_SOURCE -pthread -o "$tmp/$2.shared" "$1" \
		$(pkg-config --cflags --libs libfph)
	# shellcheck disable=SC2046
	${CC:-cc} -std=c99 -pedantic -Wall -Werror -D_DEFAULT_SOURCE -pthread -static -o "$tmp/$2.static" "$1" \
		$(pkg-config --cflags --libs --static libfph)
}

compile "$source" consumer
for example in "$examples"/*.c; do
	compile "$example" "$(basename "$example" .c)"
done
for how in shared static; do
	LD_LIBRARY_PATH=$lib "$tmp/consumer.$how" >"$tmp/out"
	cat "$tmp/out"
	grep -q "^libfph $version: anon$" "$tmp/out"
done

# 64 MiB of another process: 8 with data, 4 with zeroes, 2 of the zero page, which are
# zeroes as well where there is none
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
	LD_LIBRARY_PATH=$lib "$tmp/zero-pages.$how" $pid "$from" "$to" >"$tmp/out" 2>"$tmp/err" || :
	cat "$tmp/out" "$tmp/err"
	sum=$(awk '{ n[$3] += $2 } END { print n["zeroes"] / 1048576, n["absent"] / 1048576 }' "$tmp/out")
	[ "$sum" = "$((4 + 2 * $("$target" reads-take))) 50" ]
done
exec 9>&-
wait $pid

# example NAME ARGUMENT...: false with the reason if this kernel cannot do it
example() {
	LD_LIBRARY_PATH=$lib "$tmp/$1.$how" "$2" >"$tmp/out" 2>"$tmp/err" </dev/stdin || status=$?
	cat "$tmp/out" "$tmp/err"
	case ${status=0} in
	3) echo "SKIP: $(cat "$tmp/err")" ;;
	*) return "$status" ;;
	esac
	return 1
}
for how in shared static; do
	unset status
	if example written-pages 1 </dev/null; then
		printf 'written: offset 0x%x, %d bytes\n' 8192 4096 20480 12288 >"$tmp/want"
		[ "$(getconf PAGESIZE)" != 4096 ] || diff -u "$tmp/want" "$tmp/out"
	elif [ "$status" != 3 ]; then
		exit 1
	fi
	unset status
	if example dirty-scan '' </dev/null; then
		grep -q 'after that: equal$' "$tmp/out"
		grep -q '^[1-9][0-9]* pages left out' "$tmp/out"
	elif [ "$status" != 3 ]; then
		exit 1
	fi
	# Two runs, from page 16 and from page 4096 on; then the figures of the walk
	{
		printf '\050\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\0\0\0\0'
		printf '\3\0\020\0\0\0\0\0\0\0\0\020\0\0\0\0'
		printf '\100\0\0\0\1\0\0\0\2\0\1\0\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0'
		printf '\144\0\0\0\0\0\0\0\012\0\0\0\0\0\0\0\5\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0'
	} >"$tmp/frames"
	unset status
	example free-pages 8192 <"$tmp/frames"
	diff -u - "$tmp/out" <<-'END'
	0x10000 16384 free
	0x1000000 4096 free
	5 pages in all, as the guest says; its walk took 100 ns
	END
	# It ends with an error if something is wrong, and says what
	if LD_LIBRARY_PATH=$lib "$tmp/free-pages.$how" 1 <"$tmp/frames" >"$tmp/out" 2>"$tmp/err"; then
		exit 1
	fi
	grep -q '^free-pages: .' "$tmp/err"
	[ ! -s "$tmp/out" ]
done

for program in fph-report fph-scan; do
	[ -f "$tmp/root$prefix/bin/$program" ]
	[ -f "$tmp/root$prefix/share/man/man1/$program.1" ]
done

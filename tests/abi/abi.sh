#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Programs of yesterday and tomorrow with libraries of today and tomorrow. Arguments:
# folder of the library, that of one with larger structs, the program of 0.1, one of
# a version with larger structs.
set -eu
today=$1 tomorrow=$2 old=$3 new=$4
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

# run FOLDER PROGRAM
run() {
	LD_LIBRARY_PATH=$1 ldd "$2" | grep -q "$1/libfph.so.0" || { echo "$2 does not get $1"; exit 1; }
	echo "${2##*/} with $1"
	LD_LIBRARY_PATH=$1 "$2" >"$tmp/out"
	cat "$tmp/out"
	diff -u - "$tmp/out" <<-'END'
	absent: 56 pages, 2 ranges of 64 pages
	zeroes: 5 pages; 128 pages in both
	free: 7 pages in 2 ranges, 7 left out, 7 for that, 2 for both
	END
}
run "$today" "$old"
run "$tomorrow" "$old"
run "$today" "$new"
run "$tomorrow" "$new"

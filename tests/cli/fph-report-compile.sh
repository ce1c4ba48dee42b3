#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# fph-report with a guest that compiles: its figures, and that a wrong object and a
# compiler that gives up are failed rows. Arguments: the program, QEMU or nothing.
set -u
report=$(realpath "$1")
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
export TMPDIR="$tmp/t"
bad=0

# The real ones, in a cache where the archive with the compiler can be another.
cache=$(realpath "${FPH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/fph}")
mkdir -p "$TMPDIR" "$tmp/cache/guest" "$tmp/more/compile/host-scan"
ln -s "$cache/guest/vmlinuz" "$cache/guest/initramfs.img" "$tmp/cache/guest"
archive=$tmp/cache/guest/compiler.img
qemu=${2:-$cache/bin/qemu-system-x86_64}
export FPH_CACHE="$tmp/cache"

problem() {
	bad=1
	echo "not ok: $*"
	tail -n 20 "$tmp/out" "$tmp/err" | sed 's/^/    /'
}

# run STATUS OBJECTS MODE
run() {
	printf '[scenario]\nname=tiny\nmemory=256m\nuse=compile\nobjects=%s\n' "$2" >"$tmp/tiny"
	"$report" run --qemu "$qemu" --scenario "$tmp/tiny" --modes "$3" --json "$tmp/r.json" \
		>"$tmp/out" 2>"$tmp/err"
	got=$?
	[ $got -eq "$1" ] || problem "exit status $got, not $1"
}

# figure NAME MOST: it is there, and is neither 0 nor more than MOST
figure() {
	n=$(sed -n "/\"summary\"/q; s/.*\"$1\" : \([0-9]*\),*\$/\1/p" "$tmp/r.json")
	[ "${n:-0}" -gt 0 ] && [ "$n" -le "$2" ] || problem "$1 is '$n'"
}

# other_source SED-SCRIPT: the guest's first source is another, its object is not
other_source() {
	sed "$1" "$first" >"$tmp/more/compile/host-scan/backing.c"
	(cd "$tmp/more" && find . | cpio --quiet -o -H newc) | cat "$cache/guest/compiler.img" - >"$archive"
}

ln -s "$cache/guest/compiler.img" "$archive"
run 0 4 both
figure alone_ms 100000
figure migrated_ms 100000
figure left 4
figure checked_pages 1024
grep -q '"guest_compiler" : "[0-9a-f]\{16\}"' "$tmp/r.json" || problem 'which compiler?'
for words in 'migrated ms' 'of alone'; do
	grep -q "$words" "$tmp/out" || problem "no '$words'"
done
rm "$archive"

mkdir "$tmp/first"
(cd "$tmp/first" && cpio --quiet -id 'compile/host-scan/backing.c' <"$cache/guest/compiler.img")
first=$tmp/first/compile/host-scan/backing.c
other_source 's/"hugetlb"/"hugetbl"/'
cmp -s "$first" "$tmp/more/compile/host-scan/backing.c" && problem 'the source is the same'
run 1 1 none
grep -q 'tiny none: failed: source: guest: .* /tmp/0.o /compile/host-scan/backing.o differ' "$tmp/err" ||
	problem 'a wrong object is not told'
other_source '$s/$/ not C/'
run 1 1 none
grep -q 'failed: source: guest: .*host-scan/backing.c:[0-9:]* error: ' "$tmp/err" ||
	problem 'an error of the compiler is not told'

[ $bad -eq 0 ] && echo 'ok'
exit $bad

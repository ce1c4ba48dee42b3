#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What a program can see of the library is what it was in the last release, but for
# what may change: structs that begin with their size grow at their end, and there are
# new functions. libabigail's abidiff looks, in debug information: types of structs and
# enums, arguments, symbols and their versions.
#
# The last release is the newest tag v* in git; FPH_ABI_BASE names another revision.
#
# usage: abidiff.sh SOURCE LIBRARY LIBRARY-WITH-LARGER-STRUCTS HEADER...
set -eu
export LC_ALL=C
source=$1 today=$2 grown=$3
shift 3

skip() {
	echo "SKIP: $*"
	exit "${skipped:-77}"
}

command -v abidiff >/dev/null || skip 'no abidiff here: Debian has it in abigail-tools'
readelf -S "$today" | grep -q '\.debug_info' || skip 'the library is built without debug information'

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
mkdir "$tmp/source"

# Structs that begin with their size
sized=$(awk '/^struct [a-z_]+ \{$/ { name = $2; first = FNR + 1 }
	FNR == first && /\tsize_t sz;/ { print name }' "$@")
[ -n "$sized" ] || { echo "no struct that can grow in $*"; exit 1; }

# Nobody sees what is defined elsewhere. (--drop-private-types goes too far: it takes
# size_t for private, and hides what was size_t)
headers=$(printf '%s, ' "$@" | sed 's|[^ ,]*/||g; s/, $//')
for kind in struct union enum; do
	printf '[suppress_type]\ntype_kind = %s\nsource_location_not_in = %s\ndrop = yes\n' "$kind" "$headers"
done >"$tmp/private"

# compare LIBRARY LIBRARY: differences to $tmp/diff
compare() {
	abidiff --leaf-changes-only --no-show-locs --no-added-syms --suppressions "$tmp/private" \
		"$1" "$2" >"$tmp/diff" 2>&1 && return
	# A bit for changes; the others are errors, and what breaks all programs
	[ $? = 4 ] || { cat "$tmp/diff"; exit 1; }
}

# Whatever is not growth; a suppression of abidiff's that allows that hides members
# that change places as well
not_growth() {
	awk -v list="$sized" '
	BEGIN { n = split(list, names); for (i = 1; i <= n; i++) sized["\047struct " names[i] "\047"] = 1 }
	/^$/ || / summary: / { next }
	/ changed:$/ && /^\047/ { name = $0; sub(/ changed:$/, "", name); size = 0; next }
	name in sized && /^  type size changed from [0-9]+ to [0-9]+ \(in bits\)$/ && $7 > $5 { size = $5; next }
	size && /^  [0-9]+ data member insertions?:$/ { next }
	# In what was padding an older program can have anything
	size && /^    \047.*\047, at offset [0-9]+ \(in bits\)$/ && $(NF - 2) >= size { next }
	# Values are added, and the number of them moves
	name ~ /^\047enum / && (/^  type size hasn.t changed$/ || /^  [0-9]+ enumerator (insertion|change)s?:$/ ||
		/^    \047.*\047 value \047[0-9]+\047$/ || /^    \047.*_MAX\047 from value /) { next }
	{ print (name ? name ": " : "") $0; bad = 1 }
	END { exit bad }' "$tmp/diff"
}

# All of these are seen when they grow
compare "$today" "$grown"
for name in $sized; do
	grep -q "^'struct $name' changed:" "$tmp/diff" || { echo "abidiff does not see struct $name"; exit 1; }
done
not_growth
echo "structs may grow:" $sized

# What is skipped from here on is a part of the test
skipped=0
git -C "$source" rev-parse --git-dir >/dev/null 2>&1 || skip 'nothing to compare with: this tree is not from git'
base=${FPH_ABI_BASE:-$(git -C "$source" tag --list 'v*' --merged HEAD --sort=-version:refname | head -n 1)}
[ -n "$base" ] || skip 'nothing to compare with: there is no release in git (a tag v*)'
git -C "$source" archive "$base" >"$tmp/source.tar"
tar -x -f "$tmp/source.tar" -C "$tmp/source"
meson setup "$tmp/build" "$tmp/source" -Dtests=false -Dscan=disabled -Dreport=disabled \
	-Ddocs=disabled >"$tmp/log" 2>&1 || { cat "$tmp/log"; exit 1; }
library=$(ninja -C "$tmp/build" -t targets all | sed -n 's/^\(libfph\.so\.[0-9.]*\): c_LINKER$/\1/p')
ninja -C "$tmp/build" "$library" >"$tmp/log" 2>&1 || { cat "$tmp/log"; exit 1; }
compare "$tmp/build/$library" "$today"
not_growth
echo "goes together with $base"

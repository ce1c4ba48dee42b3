#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The public headers, the symbol map and the shared library list the same
# functions, and the newest node of the map carries the library's version.
#
# usage: check-symbols.sh VERSION MAP LIBRARY HEADER...
set -eu
export LC_ALL=C

version=$1 map=$2 lib=$3
shift 3

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

cat "$@" | grep -v '^#' | tr '\n\t' '  ' | grep -o 'FPH_API [^;(]*(' |
	sed 's/ *($//; s/.*[ *]//' | sort >"$tmp/headers"
sed -n '/^\tfph_.*;$/s/[\t;]//gp' "$map" | sort >"$tmp/map"
nm -D --defined-only "$lib" | awk '$2 != "A" { print $3 }' |
	sed 's/@.*//' | sort >"$tmp/library"

status=0
[ -s "$tmp/headers" ] || { echo "no function found in $*"; status=1; }
for list in map library; do
	diff -u "$tmp/headers" "$tmp/$list" || status=1
done

# Each node has all that was there before
sed -n 's/^FPH_\([0-9.]*\) {$/\1/p; s/^}\(.*\);$/:\1/p' "$map" | tr -d ' \n' >"$tmp/chain"
before=
for node in $(sed -n 's/^FPH_\([0-9.]*\) {$/\1/p' "$map"); do
	printf '%s:%s' "$node" "${before:+FPH_$before}"
	before=$node
done >"$tmp/wanted"
cmp -s "$tmp/chain" "$tmp/wanted" ||
	{ echo "nodes of the symbol map are not chained: $(cat "$tmp/chain")"; status=1; }

header=$(cat "$@" | sed -n 's/^#define FPH_VERSION_[A-Z]*[[:space:]]*//p' | tr '\n' .)
[ "$header" = "$version." ] ||
	{ echo "FPH_VERSION_* are $header, the library is $version"; status=1; }

node=$(sed -n 's/^FPH_\([0-9.]*\) {$/\1/p' "$map" | tail -n 1)
if [ "$node" != "${version%.*}" ]; then
	echo "symbol map ends with FPH_$node, the library is $version"
	status=1
fi
exit $status

#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# build-qemu, as far as it builds nothing, and what it would build: the series of
# QEMU beside each other. Argument: folder qemu-integration.
# shellcheck source-path=SCRIPTDIR source=cli.sh
. "$(dirname "$0")/cli.sh"
room=$1
build=$room/build-qemu
export FPH_CACHE="$tmp/cache"

# try STATUS ARGUMENT...
try() {
	status=$1
	shift
	run "$status" "$build" "$@"
}

try 0 --help
says out '--series'
try 0 --list
all=$(cat "$tmp/out")
default=${all%% *}

# Results of all series, and of both kinds, are beside each other
try 0 --print
says out "$FPH_CACHE/bin/qemu-system-x86_64"
for series in $all; do
	tag=-$series
	[ "$series" != "$default" ] || tag=
	try 0 --series "$series" --print
	says out "$FPH_CACHE/bin$tag/qemu-system-x86_64"
	try 0 --print --sanitize --series "$series"
	says out "$FPH_CACHE/bin$tag-sanitized/qemu-system-x86_64"
done

# What there is not is refused, with what there is
try 1 --series
says err "$all"
for series in 9.2 11.1 10; do
	try 1 --series "$series" --print
	says err "$series"
	says err "$all"
done

# What is only prepared is never built from a package, and from a tree only for who
# asks for it; the words say what is missing
try 1 --series 11.1
says err 'source package'
says err 'gone from the mirrors (404)'
says err 'nobody has built or tested'
says err '--source DIR --untested'
try 1 --series 11.1 --untested --print
says err '--untested needs --source'
case " $all " in
*' 11.1 '*) problem '11.1 is among those that are built' ;;
esac

# A tree of one's own tells its series
mkdir "$tmp/tree"
try 1 --source "$tmp/tree" --print
says err 'not a QEMU source tree'
for version in 9.2.4 10.1.0 10.20.1 11.1.0; do
	echo "$version" >"$tmp/tree/VERSION"
	try 1 --source "$tmp/tree" --print
	says err "QEMU $version"
	says err "$all"
done
for series in $all; do
	echo "$series.77" >"$tmp/tree/VERSION"
	try 0 --source "$tmp/tree" --print
	try 0 --source "$tmp/tree" --series "$series" --print
	try 1 --source "$tmp/tree" --series 10.1 --print
	says err "QEMU $series.77"
done
echo 11.1.0 >"$tmp/tree/VERSION"
try 1 --source "$tmp/tree"
says err 'nobody has built or tested'
says err '--untested'
try 0 --source "$tmp/tree" --untested --print
try 0 --source "$tmp/tree" --untested --series 11.1 --print
try 1 --source "$tmp/tree" --untested --series 10.2 --print
try 0 --source "$tmp/tree" --unapply --print
echo 11.2.0 >"$tmp/tree/VERSION"
try 1 --source "$tmp/tree" --untested --print
says err "$all"
[ ! -e "$FPH_CACHE" ] || problem 'something was written'

# Each series has its patches, small ones, and our files are the same for all. What mends
# a mistake of QEMU is as long as that takes: it goes when QEMU has it
: >"$tmp/out"
: >"$tmp/err"
for series in $all 11.1; do
	what="patches of $series"
	LC_ALL=C sort "$room/patches/$series/series" >"$tmp/listed"
	(cd "$room/patches/$series" && LC_ALL=C ls -- *.patch) >"$tmp/there"
	cmp -s "$tmp/listed" "$tmp/there" || problem 'the list and the files differ'
	lines=$(awk '
		FNR == 1 { in_diff = mends = 0 }
		/^Mends: QEMU$/ { mends = 1 }
		/^---$/ { in_diff = 1; next }
		!in_diff || mends || /^--- / { next }
		/^\+\+\+ / { code = /\.[ch]$/; next }
		/^\+/ && code { n++ }
		END { print n + 0 }' "$room/patches/$series"/*.patch)
	case $lines in
	[1-9] | [1-8][0-9]) ;;
	*) problem "$lines lines in .c and .h files of QEMU; 90 are too many" ;;
	esac
	# No tool has read those that cannot be applied: hunks are as long as they say
	awk '
		function hunk_ends() {
			if (old || new)
				print FILENAME ": a hunk that ends before line " FNR \
				      " is not as long as it says"
			old = new = 0
		}
		FNR == 1 { hunk_ends() }
		/^@@ / {
			hunk_ends()
			split($2, o, ",")
			split($3, n, ",")
			old = o[2]
			new = n[2]
			next
		}
		!old && !new { next }
		/^ / { old--; new-- }
		/^-/ { old-- }
		/^\+/ { new-- }
		END { hunk_ends() }' "$room/patches/$series"/*.patch >"$tmp/hunks"
	[ ! -s "$tmp/hunks" ] || problem "$(cat "$tmp/hunks")"
	untested=$(grep -L '^Untested: ' "$room/patches/$series"/*.patch | wc -l)
	case " $all " in
	*" $series "*) [ "$untested" = "$(wc -l <"$tmp/there")" ] ||
		problem 'a patch says that it is untested' ;;
	*) [ "$untested" = 0 ] || problem 'a patch does not say that it is untested' ;;
	esac
done
what='one header asks for versions'
grep -rlE 'QEMU_VERSION|FPH_QEMU_SINCE' "$room/qemu" >"$tmp/out"
[ "$(cat "$tmp/out")" = "$room/qemu/include/system/fph-compat.h" ] || problem 'others do, too'

finish

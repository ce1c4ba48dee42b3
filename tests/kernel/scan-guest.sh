#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# fph-scan in a guest that has a shell and little else: the memory of scan-target, to
# the byte. Arguments: the program, the program to look at.
set -u
scan=$1 target=$2
mib=1048576
bad=0
mkfifo /tmp/in
"$target" shapes </tmp/in >/tmp/ready &
pid=$!
exec 8>/tmp/in
# It ends its line with that, or itself
while ! grep -q ready /tmp/ready && kill -0 $pid 2>/dev/null; do
	sleep 0.1
done

# is MIB KEY VALUE: of the region of this size
is() {
	is=$(awk -v size="\"size\" : $(($1 * mib))," -v key="\"$2\" :" '
		/"region" :/ { seen = 0 }
		index($0, size) { seen = 1 }
		seen && index($0, key) { sub(/.* : /, ""); sub(/,$/, ""); print; exit }
	' /tmp/out)
	[ "$is" = "$3" ] || { bad=1; echo "region of $1 MiB: $2 is '$is', not '$3'"; }
}

for scanner in pagemap-scan pagemap; do
	echo "$scanner"
	"$scan" --pid $pid --scanner $scanner --content --json >/tmp/out || bad=1
	grep -q "\"page_size\" : $FPH_TEST_PAGE," /tmp/out || { bad=1; echo 'another page size'; }
	is 64 method "\"$scanner\""
	is 64 present $((12 * mib))
	is 64 zero_mapped $((2 * mib))
	is 64 unmapped $((50 * mib))
	is 64 zero $((4 * mib))
	is 80 method '"seek"'
	is 80 present $((4 * mib))
	is 80 unmapped $((76 * mib))
	is 80 zero $mib
	is 96 method "\"$scanner+seek\""
	is 96 present $((2 * mib))
	is 96 unmapped $((93 * mib))
done
# Whole pages, whatever these are
if [ "$FPH_TEST_PAGE" != 4096 ]; then
	start=$(sed -n 's/^ *"start" : "0x\([0-9a-f]*\)".*/\1/p' /tmp/out | head -n 1)
	"$scan" --pid $pid --region "0x$start-$(printf '0x%x' $((0x$start + 4096)))" 2>/tmp/err && bad=1
	grep -q 'does not end at a page' /tmp/err || { bad=1; cat /tmp/err; }
fi
exec 8>&-
wait $pid
[ $bad = 0 ]

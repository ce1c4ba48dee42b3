#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# A kernel without PAGEMAP_SCAN, in a guest: page tables are read in the other way
# there, whatever this machine's kernel has.
#
# usage: old-kernel.sh QEMU TEST-STATES
# shellcheck source-path=SCRIPTDIR source=guest.sh
. "$(dirname "$0")/guest.sh"

# This kernel can take memory for broken, too
guest_begin "$1" 6.1
guest_add /test "$2"
guest_run 100 -m 512M <<'EOF' | sed 's/^SKIP: /skipped there: /'
for scanner in pagemap-scan auto; do
	FPH_TEST_BREAK_MEMORY=1 /test/test-states $scanner
	echo "$scanner: $?"
done
EOF
grep -qx 'pagemap-scan: 0' "$tmp/out" && skip 'the guest has a kernel with PAGEMAP_SCAN'
# Not taken for what it is not; and what was not found is not the zero page
grep -qx 'pagemap-scan: 77' "$tmp/out"
grep -qx 'auto: 0' "$tmp/out"
grep -q 'OK \] the zero page is seen' "$tmp/out"
grep -q 'OK \] anon: broken memory' "$tmp/out"

#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# test-watch on the kernel of a test guest: what is absent counts as written to some
# kernels, and not to others.
#
# usage: watch-guest.sh QEMU TEST-WATCH KERNEL
# shellcheck source-path=SCRIPTDIR source=guest.sh
. "$(dirname "$0")/guest.sh"

guest_begin "$1" "$3"
guest_add /test "$2"
guest_run 240 -m 512M <<'EOG' | sed 's/^SKIP: /skipped there: /'
/bin/busybox mkdir /dev/shm
/bin/busybox mount -t tmpfs shm /dev/shm
/test/test-watch
echo "test-watch: $?"
EOG
grep -qx 'test-watch: 0' "$tmp/out"

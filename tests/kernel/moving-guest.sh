#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# test-moving as the only process of a guest with two nodes, memory that can be taken
# away, and swap by zram.
#
# usage: moving-guest.sh QEMU TEST-MOVING KERNEL [CASE...], KERNEL as in tests/guest/kernels
# shellcheck source-path=SCRIPTDIR source=guest.sh
. "$(dirname "$0")/guest.sh"

guest_begin "$1" "$3"
guest_add /test "$2"
seconds=${FPH_MOVING_SECONDS:-0.7}
printf 'export FPH_MOVING_ALONE=1 FPH_MOVING_SECONDS=%s\n' "$seconds" >"$root/test/env"
printf '%s\n' "${@:4}" >"$root/test/cases"

# Another clock than the TSC, whose frequency is measured, and wrongly on a busy machine.
# As long as all cases may take, and a boot
guest_append="memhp_default_state=online_movable transparent_hugepage=madvise clocksource=acpi_pm"
guest_run "$(awk -v s="$seconds" 'BEGIN { print int(700 + 130 * s) }')" -smp 2,sockets=2 -m 768M,slots=1,maxmem=2G \
	-object memory-backend-ram,id=a,size=384M -object memory-backend-ram,id=b,size=384M \
	-numa node,memdev=a,cpus=0 -numa node,memdev=b,cpus=1 \
	-object memory-backend-ram,id=c,size=512M -device pc-dimm,memdev=c,node=1 <<'EOG'
b=/bin/busybox
. /test/env
$b mkdir /dev/shm
$b mount -t debugfs debug /sys/kernel/debug
$b mount -t tmpfs -o huge=advise shm /dev/shm
echo advise >/sys/kernel/mm/transparent_hugepage/shmem_enabled
if /bin/load-module zram && echo 192M >/sys/block/zram0/disksize; then
	$b mkswap /dev/zram0 >/dev/null && $b swapon /dev/zram0
fi
IFS='
'
/test/test-moving $($b cat /test/cases)
status=$?
# No word of the kernel in the middle of this one
echo 1 >/proc/sys/kernel/printk
echo "test-moving: $status"
EOG
grep -qx 'test-moving: 0' "$tmp/out" || exit 1
# This guest has all that they need, but for what its kernel is too old for
if grep '^SKIP: ' "$tmp/out" | grep -v 'it is older than Linux'; then
	echo 'not ok: a mover did not run'
	exit 1
fi

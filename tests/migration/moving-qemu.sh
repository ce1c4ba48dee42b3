#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# A case of moving-test on a machine with two nodes: a guest with Linux 6.12, in which
# QEMU migrates a firmware guest.
#
# usage: moving-qemu.sh QEMU MOVING-TEST FIRSTTOUCH CASE
# shellcheck source-path=SCRIPTDIR source=../kernel/guest.sh
. "$(dirname "$0")/../kernel/guest.sh"

guest_begin "$1" 6.12
guest_add /test "$2" "$guest_qemu"
cp "$3" "$root/test/"
mkdir -p "$root/lib" "$root/tmp"
# Where the loader looks by itself: the harness clears LD_LIBRARY_PATH
ln -s /test/lib "$root/lib/x86_64-linux-gnu"
# A Linux guest, which the harness asks for, is not started there
mkdir -p "$root/test/cache/guest"
touch "$root"/test/cache/guest/{vmlinuz,initramfs.img}
printf 'case=%s\nexport FPH_MOVING_MIGRATIONS=%s\n' "$4" "${FPH_MOVING_MIGRATIONS:-1}" >"$root/test/env"

guest_run $((300 + 60 * ${FPH_MOVING_MIGRATIONS:-1})) -smp 2,sockets=2 -m 2G \
	-object memory-backend-ram,id=a,size=1G -object memory-backend-ram,id=b,size=1G \
	-numa node,memdev=a,cpus=0 -numa node,memdev=b,cpus=1 <<'EOG'
. /test/env
b=/bin/busybox
$b mkdir -p /dev/shm
$b mount -t tmpfs shm /dev/shm
$b ifconfig lo up
export FPH_CACHE=/test/cache FPH_TEST_QEMU=/test/qemu-system-x86_64 FPH_TEST_FIRSTTOUCH=/test/firsttouch.bin
/test/moving-test "$case"
status=$?
# No word of the kernel in the middle of this one
echo 1 >/proc/sys/kernel/printk
echo "moving-test: $status"
EOG
grep -qx 'moving-test: 0' "$tmp/out"

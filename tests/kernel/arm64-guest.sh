#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Tests that were built for arm64, on a kernel of it, whose pages need not be of 4 KiB.
#
# usage: arm64-guest.sh KERNEL TEST...
#        KERNEL as in tests/guest/kernels; a TEST is a program and its arguments, as a shell
#        has them. The environment has FPH_TEST_BUILD, the folder of the build,
#        FPH_TEST_SYSROOT, where libraries are, and FPH_TEST_PROGRAMS, which are in the
#        guest's /test.
# shellcheck source-path=SCRIPTDIR source=guest.sh
. "$(dirname "$0")/guest.sh"

kernel=$1
shift
guest_begin '' "$kernel"
for test; do
	program=${test%% *}
	in=${program%/*}
	guest_add_foreign "$FPH_TEST_SYSROOT" "/test/${in##*/}" "$program"
	printf '%s\n' "${in##*/}/${program##*/}${test#"$program"}"
done >"$tmp/list"
cp "$tmp/list" "$root/test/list"
# shellcheck disable=SC2086 # words
guest_add_foreign "$FPH_TEST_SYSROOT" /test $FPH_TEST_PROGRAMS "$FPH_TEST_SYSROOT/usr/sbin/bpftool"
mkdir "$root/test/bpf"
cp "$FPH_TEST_BUILD"/bpf/*.bpf.o "$root/test/bpf/"

# Memory for some huge pages, which are of 32 MiB where pages are of 16 KiB; and files
# of another kind than shmem
guest_append="transparent_hugepage=madvise rootfstype=ramfs"
guest_run "${FPH_TEST_SECONDS:-800}" -m 2G -smp 2 <<'EOF'
b=/bin/busybox
$b --install -s /bin
export PATH=/bin
mkdir -p /dev/shm /tmp /var/tmp
mount -t tmpfs -o huge=advise shm /dev/shm
echo advise >/sys/kernel/mm/transparent_hugepage/shmem_enabled
if load-module zram && echo 1100M >/sys/block/zram0/disksize; then
	mkswap /dev/zram0 >/dev/null && swapon /dev/zram0
fi
export FPH_TEST_PAGE=$(($(sed -n 's/^KernelPageSize: *\([0-9]*\) kB/\1/p' /proc/self/smaps | head -n 1) * 1024))
echo "pages of $FPH_TEST_PAGE"
export FPH_TEST_BPFTOOL=/test/bpftool FPH_TEST_TRACE=/test/fph-trace
export FPH_TEST_OBJECTS=/test/bpf FPH_TEST_OBJECT=fph_tracer
while read -r line; do
	echo "== $line"
	eval "/test/$line" </dev/null
	echo "${line%% *}: status $?"
done </test/list
# Types that are no kernel's own, too
mount -t bpf bpf /sys/fs/bpf
/test/bpftool prog loadall /test/bpf/fph_tracer.stored.bpf.o /sys/fs/bpf/stored
echo "stored types: $?"
# What it would hang on is not there
/test/fph-trace --load --object tp
echo "the tracer with tracepoints: $?"
echo "all of them: $(wc -l </test/list)"
EOF
grep -q "^all of them: $#\$" "$tmp/out" || { echo "the guest did not come to its end"; exit 1; }
# What a test may skip elsewhere this kernel has, but for what is newer
if grep -v '^SKIP: guard regions' "$tmp/out" | grep '^SKIP: ' >"$tmp/skipped"; then
	echo "skipped, though it is here:"
	sed 's/^SKIP: //' "$tmp/skipped"
	exit 1
fi
grep -qx 'stored types: 0' "$tmp/out" || { echo "the tracer with stored types was not loaded"; exit 1; }
grep -qx 'the tracer with tracepoints: 3' "$tmp/out" || { echo "fph-trace did not refuse"; exit 1; }
case $kernel in
*-16k) page=16384 ;;
*) page=4096 ;;
esac
grep -qx "pages of $page" "$tmp/out" || { echo "it has no pages of $page"; exit 1; }
[ "$(grep -c ': status 0$' "$tmp/out")" = $# ]

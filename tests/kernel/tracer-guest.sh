#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The complete tracer, whose programs this machine's kernel may refuse, on the
# kernel of a test guest: its verifier looks at them, and test-tracer runs.
#
# usage: tracer-guest.sh QEMU TEST-TRACER BPFTOOL FPH-TRACE FOLDER-OF-OBJECTS [KERNEL]
# shellcheck source-path=SCRIPTDIR source=guest.sh
. "$(dirname "$0")/guest.sh"

guest_begin "$1" "${6-}"
guest_add /test "$2" "$3" "$4"
guest_add /bin "$(command -v rm)" "$(command -v sleep)"
mkdir "$root/test/bpf"
cp "$5"/*.bpf.o "$root/test/bpf/"
guest_run 200 -m 1G -smp 2 <<'EOF'
export FPH_TEST_BPFTOOL=/test/bpftool FPH_TEST_TRACE=/test/fph-trace
export FPH_TEST_OBJECTS=/test/bpf FPH_TEST_OBJECT=fph_tracer
last="the complete object"
# Where unmap_page_range() is called otherwise, bpftool cannot load it
if ! /test/bpftool btf dump file /sys/kernel/btf/vmlinux | /bin/busybox grep -q "'unmap_page_range'"; then
	export FPH_TEST_BY_TRACE=1
	last=
fi
# Not what is the same with any object and takes minutes here
/test/test-tracer "private memory, page by page" "populated by madvise" \
	"huge pages" "huge pages of a file" "shared memory" "all ways to give back" "all ways, by lot" \
	"huge pages on demand" \
	"the kernel copies" "threads race for pages" \
	"two processes, and their ends" "a process that traces itself" "coarse grains" \
	"faults that take nothing" "another program" "paused by bpftool" "another user" \
	"fph-trace" "fph-trace sees what was last" "fph-trace is killed" \
	"counts that begin anew" ${last:+"$last"}
echo "test-tracer: $?"
EOF
if grep -q '^SKIP: .*\(BTF\|BPF\)' "$tmp/out"; then
	exit 77
fi
grep -qx 'test-tracer: 0' "$tmp/out"

#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The complete tracer, whose programs this machine's kernel may refuse, on the
# kernel of the test guest: its verifier looks at them, and test-tracer runs.
#
# usage: tracer-guest.sh QEMU TEST-TRACER BPFTOOL FPH-TRACE FOLDER-OF-OBJECTS
set -euo pipefail

skip() {
	echo "SKIP: $*"
	[ "${FPH_REQUIRE_KERNEL:-0}" != 0 ] && exit 1
	exit 77
}

cache=${FPH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/fph}
qemu=${1:-$cache/bin/qemu-system-x86_64} test=$2 bpftool=$3 trace=$4 objects=$5
[ -x "$qemu" ] || skip "no QEMU at $qemu; qemu-integration/build-qemu makes it"
[ -r "$cache/guest/initramfs.img" ] ||
	skip "no guest at $cache/guest; tests/guest/build-guest makes it"

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

# Behind the guest's own initramfs comes one with what is tested
root=$tmp/root/tracer
mkdir -p "$root"/{lib,bpf} "$tmp/root/lib64" "$tmp/root/bin"
cp "$test" "$root/test-tracer"
cp "$trace" "$root/fph-trace"
cp "$bpftool" "$root/bpftool"
cp "$objects"/*.bpf.o "$root/bpf/"
cp "$(command -v rm)" "$(command -v sleep)" "$tmp/root/bin/"
for file in "$test" "$trace" "$bpftool" "$(command -v rm)"; do
	ldd "$file"
done | grep -o '/[^ ]*' | LC_ALL=C sort -u | while read -r library; do
	case $library in
	*/ld-linux*) cp "$library" "$tmp/root/lib64/" ;;
	*) cp "$library" "$root/lib/" ;;
	esac
done
cat >"$root/init" <<'EOF'
#!/bin/busybox sh
b=/bin/busybox
$b mount -t devtmpfs dev /dev
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b uname -r
export LD_LIBRARY_PATH=/tracer/lib
export FPH_TEST_BPFTOOL=/tracer/bpftool FPH_TEST_TRACE=/tracer/fph-trace
export FPH_TEST_OBJECTS=/tracer/bpf FPH_TEST_OBJECT=fph_tracer
# Not what is the same with any object and takes minutes here
/tracer/test-tracer "private memory, page by page" "populated by madvise" \
	"huge pages" "shared memory" "the kernel copies" "threads race for pages" \
	"two processes, and their ends" "coarse grains" "faults that take nothing" \
	"another program" "paused by bpftool" "fph-trace" "the complete object"
echo "test-tracer: $?"
$b poweroff -f
EOF
chmod 755 "$root/init"
(cd "$tmp/root" && find . | cpio --quiet -o -H newc -R 0:0) >"$tmp/more.cpio"
cat "$cache/guest/initramfs.img" "$tmp/more.cpio" >"$tmp/initramfs.img"

# VM_APPEND of the other tests, and our own first process
timeout 200 "$qemu" -M pc -m 1G -smp 2 -accel tcg,thread=multi \
	-L /usr/share/seabios -L /usr/share/qemu \
	-nodefaults -display none -no-reboot -serial stdio \
	-kernel "$cache/guest/vmlinuz" -initrd "$tmp/initramfs.img" \
	-append "console=ttyS0 quiet panic=-1 mitigations=off nokaslr cryptomgr.notests tsc=reliable init_on_alloc=0 rdinit=/tracer/init" \
	</dev/null >"$tmp/console" 2>&1 || echo "QEMU ended with $?"
tr -d '\r' <"$tmp/console" | tee "$tmp/out"
if grep -q '^SKIP: .*\(BTF\|BPF\)' "$tmp/out"; then
	exit 77
fi
grep -qx 'test-tracer: 0' "$tmp/out"

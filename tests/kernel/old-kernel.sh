#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# A kernel without PAGEMAP_SCAN, that of the test guest: page tables are read
# in the other way there, whatever this machine's kernel has.
#
# usage: old-kernel.sh QEMU TEST-STATES
set -euo pipefail

skip() {
	echo "SKIP: $*"
	[ "${FPH_REQUIRE_KERNEL:-0}" != 0 ] && exit 1
	exit 77
}

cache=${FPH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/fph}
qemu=${1:-$cache/bin/qemu-system-x86_64} test=$2
[ -x "$qemu" ] || skip "no QEMU at $qemu; qemu-integration/build-qemu makes it"
[ -r "$cache/guest/initramfs.img" ] ||
	skip "no guest at $cache/guest; tests/guest/build-guest makes it"

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

# Behind the guest's own initramfs comes one with the test and its libraries
mkdir -p "$tmp/root/old/lib" "$tmp/root/lib64"
cp "$test" "$tmp/root/old/test"
ldd "$test" | grep -o '/[^ ]*' | while read -r library; do
	case $library in
	*/ld-linux*) cp "$library" "$tmp/root/lib64/" ;;
	*) cp "$library" "$tmp/root/old/lib/" ;;
	esac
done
cat >"$tmp/root/old/init" <<'EOF'
#!/bin/busybox sh
b=/bin/busybox
$b mount -t devtmpfs dev /dev
$b mount -t proc proc /proc
$b uname -r
for scanner in pagemap-scan auto; do
	LD_LIBRARY_PATH=/old/lib /old/test $scanner
	echo "$scanner: $?"
done
$b poweroff -f
EOF
chmod 755 "$tmp/root/old/init"
(cd "$tmp/root" && find . | cpio --quiet -o -H newc -R 0:0) >"$tmp/more.cpio"
cat "$cache/guest/initramfs.img" "$tmp/more.cpio" >"$tmp/initramfs.img"

timeout 100 "$qemu" -M pc -m 512M -accel tcg -L /usr/share/seabios -L /usr/share/qemu \
	-nodefaults -display none -no-reboot -serial stdio \
	-kernel "$cache/guest/vmlinuz" -initrd "$tmp/initramfs.img" \
	-append "console=ttyS0 quiet panic=-1 mitigations=off rdinit=/old/init" \
	</dev/null >"$tmp/console" 2>&1 || echo "QEMU ended with $?"
tr -d '\r' <"$tmp/console" | sed 's/^SKIP: /skipped there: /' | tee "$tmp/out"
grep -qx 'pagemap-scan: 0' "$tmp/out" && skip 'the guest has a kernel with PAGEMAP_SCAN'
# Not taken for what it is not; and what was not found is not the zero page
grep -qx 'pagemap-scan: 77' "$tmp/out"
grep -qx 'auto: 0' "$tmp/out"
grep -q 'OK \] the zero page is seen' "$tmp/out"

# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
#
# A test on the kernel of the test guest, whatever this machine's can do. Source
# it; the guest is a copy, with the test and its libraries in /test.
set -euo pipefail

skip() {
	echo "SKIP: $*"
	[ "${FPH_REQUIRE_KERNEL:-0}" != 0 ] && exit 1
	exit 77
}

# guest_begin QEMU [KERNEL]: skips if there is no QEMU or no guest; an empty name
# is our QEMU, or Debian's of another machine, and KERNEL one of tests/guest/kernels
# that is not the default. What is put into $root is in the guest's /.
guest_begin() {
	local cache=${FPH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/fph} make=qemu-integration/build-qemu
	guest=$cache/guest${2:+.$2}
	case ${2-} in
	arm64*)
		guest_qemu=${1:-$cache/stock/trixie-aarch64/qemu-system-aarch64}
		make='tests/guest/stock-qemu trixie aarch64'
		# A processor of which all page sizes are known, and none of what is slow here
		guest_machine=(-M virt -cpu neoverse-n1)
		guest_console=ttyAMA0
		;;
	*)
		guest_qemu=${1:-$cache/bin/qemu-system-x86_64}
		guest_machine=(-M pc -L /usr/share/seabios -L /usr/share/qemu)
		guest_console=ttyS0
		;;
	esac
	[ -x "$guest_qemu" ] || skip "no QEMU at $guest_qemu; $make makes it"
	[ -r "$guest/initramfs.img" ] ||
		skip "no guest at $guest; ${2:+FPH_GUEST_KERNEL=$2 }tests/guest/build-guest makes it"

	tmp=$(mktemp -d)
	trap 'rm -rf "$tmp"' EXIT
	trap 'exit 1' HUP INT TERM
	root=$tmp/root
	mkdir -p "$root"/{bin,lib,lib64,test/lib}
}

# guest_add FOLDER PROGRAM...: copies programs into a folder of the guest, and
# what they need
guest_add() {
	local folder=$root$1 library program
	shift
	cp "$@" "$folder/"
	for program in "$@"; do
		ldd "$program"
	done | grep -o '/[^ ]*' | LC_ALL=C sort -u | while read -r library; do
		case $library in
		*/ld-linux*) cp "$library" "$root/lib64/" ;;
		*) cp "$library" "$root/test/lib/" ;;
		esac
	done
}

# guest_add_foreign SYSROOT FOLDER PROGRAM...: the same of programs of another machine,
# whose libraries are in SYSROOT or beside what they were built with
guest_add_foreign() {
	local sysroot=$1 folder=$root$2 queue=() at
	shift 2
	mkdir -p "$folder"
	cp "$@" "$folder/"
	queue=("$@")
	while [ ${#queue[@]} -gt 0 ]; do
		while read -r library; do
			[ ! -e "$root/test/lib/$library" ] || continue
			at=$(find "$sysroot/usr/lib" "$FPH_TEST_BUILD" -maxdepth 2 -name "$library" -print -quit)
			[ -n "$at" ] || { echo "no $library, which ${queue[0]} needs"; exit 1; }
			cp -L "$at" "$root/test/lib/"
			queue+=("$at")
		done < <(readelf -d "${queue[0]}" 2>/dev/null | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
		queue=("${queue[@]:1}")
	done
	# Programs name it with its folder
	for library in "$root/test/lib"/ld-linux*; do
		[ ! -e "$library" ] || cp "$library" "$root/lib/"
	done
}

# guest_run SECONDS OPTION...: starts it, with more options for QEMU; standard
# input is a script for the guest, output goes to $tmp/out as well. $guest_append is
# for its kernel, and $guest_accel another accelerator.
guest_run() {
	local seconds=$1
	shift
	{
		cat <<-'EOF'
		#!/bin/busybox sh
		/bin/busybox mount -t devtmpfs dev /dev
		/bin/busybox mount -t proc proc /proc
		/bin/busybox mount -t sysfs sys /sys
		/bin/busybox uname -r
		export LD_LIBRARY_PATH=/test/lib
		EOF
		cat
		echo '/bin/busybox poweroff -f'
	} >"$root/test/init"
	chmod 755 "$root/test/init"
	# Behind the guest's own initramfs
	(cd "$root" && find . | cpio --quiet -o -H newc -R 0:0) >"$tmp/more.cpio"
	cat "$guest/initramfs.img" "$tmp/more.cpio" >"$tmp/initramfs.img"
	# VM_APPEND of the other tests, and our own first process
	timeout "$seconds" "$guest_qemu" "${guest_machine[@]}" -accel "${guest_accel-tcg,thread=multi}" "$@" \
		-nodefaults -display none -no-reboot -serial stdio \
		-kernel "$guest/vmlinuz" -initrd "$tmp/initramfs.img" \
		-append "console=$guest_console quiet panic=-1 mitigations=off loglevel=5 nokaslr cryptomgr.notests nowatchdog tsc=reliable no_timer_check init_on_alloc=0 rdinit=/test/init ${guest_append-}" \
		</dev/null >"$tmp/console" 2>&1 || echo "QEMU ended with $?"
	tr -d '\r' <"$tmp/console" | tee "$tmp/out"
	# What the kernel says of its own mistakes; the migration tests have the same list
	if grep -F -f "$(dirname "${BASH_SOURCE[0]}")/complaints" "$tmp/out" >"$tmp/complaints"; then
		echo "the guest's kernel complains:"
		cat "$tmp/complaints"
		exit 1
	fi
}

#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# A kernel that is locked down, as with Secure Boot: fph-trace works, or names that as
# the reason.
#
# usage: trace-lockdown.sh QEMU FPH-TRACE SCAN-TARGET
# shellcheck source-path=SCRIPTDIR source=guest.sh
. "$(dirname "$0")/guest.sh"

for lockdown in integrity confidentiality; do
	guest_begin "$1"
	guest_add /test "$2" "$3"
	guest_append=lockdown=$lockdown
	guest_run 100 -m 1G <<-'EOF'
	/bin/busybox mount -t securityfs none /sys/kernel/security
	echo "lockdown: $(/bin/busybox cat /sys/kernel/security/lockdown)"
	/bin/busybox mkfifo /in
	/test/scan-target shapes </in >/ready &
	exec 9>/in
	while ! /bin/busybox grep -q ready /ready; do /bin/busybox sleep 0.1; done
	for object in tp complete; do
		/test/fph-trace -p $! --object $object -j 0.1 1 2>&1
		echo "$object: $?"
	done
	EOF
	grep -q "^lockdown: .*\[$lockdown\]" "$tmp/out" || skip 'this kernel cannot be locked down'
	! grep -q 'no types of its own' "$tmp/out" || skip 'no BTF in this kernel'
	for object in tp complete; do
		case $lockdown in
		integrity) grep -qx "$object: 0" "$tmp/out" ;;
		*)
			grep -q "no $object tracer can be loaded: .*lockdown=confidentiality" "$tmp/out"
			grep -qx "$object: 3" "$tmp/out" ;;
		esac
	done
	rm -rf "$tmp"
done

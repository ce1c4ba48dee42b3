#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What the tracer costs in instructions, which do not depend on what else the machine
# does: a guest's clock counts them (-icount), so a nanosecond of bench-tracer is one. Of
# the complete object, too, where this machine's kernel refuses that.
#
# usage: tracer-guest.sh QEMU BENCH-TRACER FPH-TRACE [KERNEL...]
# shellcheck source-path=SCRIPTDIR/../kernel source=guest.sh
. "$(dirname "$0")/../kernel/guest.sh"
qemu=$1 bench=$2 trace=$3
shift 3
# shellcheck disable=SC2034  # for guest_run
guest_accel=tcg,thread=single

for kernel; do
	[ "$kernel" != default ] || kernel=
	guest_begin "$qemu" "$kernel"
	guest_add /test "$bench" "$trace"
	guest_run 400 -m 1G -icount shift=0,sleep=off <<-'EOF'
	export FPH_TEST_TRACE=/test/fph-trace
	for object in complete tp; do
		echo "object $object, in instructions:"
		/test/bench-tracer 0 $object 3
	done
	EOF
	rm -rf "$tmp"
done

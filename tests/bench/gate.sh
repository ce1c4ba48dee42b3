#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Does fph still pay? A few migrations with it and as QEMU is, in turns, whose ratios
# within one run must not be above bounds that noise does not reach: those of pages,
# bytes and memory hardly vary (3, 98 and 31% of memfd-512m, 16 and 16% of freed-512m),
# and the time, 14% on a machine with four times as much to do as it has cores, may be
# as long as without fph.
# Arguments: fph-report, QEMU or nothing.
# shellcheck source-path=SCRIPTDIR source=../cli/cli.sh
. "$(dirname "$0")/../cli/cli.sh"
report=$1 qemu=${2:+--qemu "$2"}
# Logs of what fails, too
export TMPDIR="$tmp"

# gate REPEAT SCENARIO MODE FIGURE=N%...
gate() {
	repeat=$1 scenario=$2 mode=$3
	shift 3
	# shellcheck disable=SC2086
	run 0 "$report" run $qemu --scenario "$scenario" --modes "none,$mode" \
		--repeat "$repeat" --json "$tmp/$scenario.json"
	[ $got -eq 0 ] || return
	limits=
	for limit; do
		limits="$limits --fail-over $limit"
	done
	# shellcheck disable=SC2086
	"$report" compare $limits "$tmp/$scenario.json" || bad=1
	echo "bounds of $scenario, mode $mode by none:$limits"
}

# What the host never gave memory for: QEMU as it is reads it, and gets it by that
gate 3 memfd-512m pagemap pages.zero=20% bytes=105% rss_kib.source.after=60% time=100%
# What the guest freed: QEMU as it is sends it
gate 1 freed-512m both bytes=60% pages.sent=60%
finish

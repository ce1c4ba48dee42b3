# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=sh
#
# Tests of programs, as their users meet them. Source it; $tmp is a folder that goes with
# the test, and `finish` is its end. Who has processes to end defines clean_up().
set -u
tmp=$(mktemp -d) || exit 1
trap 'clean_up; rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
bad=0
what=

clean_up() {
	:
}

skip() {
	echo "SKIP: $*"
	[ "${FPH_REQUIRE_KERNEL:-0}" != 0 ] && exit 1
	exit 77
}

# problem TEXT...: the test has failed, and goes on
problem() {
	bad=1
	echo "not ok: $what: $*"
	tail -n 40 "$tmp/out" "$tmp/err" | sed 's/^/    /'
}

# run STATUS PROGRAM ARGUMENT...: keeps what it says in $tmp/out and $tmp/err
run() {
	want=$1 ran=$2
	shift 2
	what="${ran##*/} $*"
	"$ran" "$@" >"$tmp/out" 2>"$tmp/err"
	got=$?
	[ $got -eq "$want" ] || problem "exit status $got, not $want"
}

# run_strictly STATUS PROGRAM ARGUMENT...: nothing that looks like a result comes from
# what failed
run_strictly() {
	run "$@"
	[ "$want" -eq 0 ] || [ ! -s "$tmp/out" ] || problem 'something on stdout'
}

# says out|err TEXT...
says() {
	file=$1
	shift
	for text; do
		grep -qF -e "$text" "$tmp/$file" || problem "no '$text' on std$file"
	done
}

# silent out|err
silent() {
	[ ! -s "$tmp/$1" ] || problem "something on std$1"
}

finish() {
	[ $bad -eq 0 ] && echo ok
	exit $bad
}

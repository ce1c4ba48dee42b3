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

# spoils QEMU <PYTHON: $tmp/spoils is that QEMU, with one difference. When a destination
# starts, which is once the guest of the source has done its part, memory of the source is
# spoiled, a RAM block of 256 MiB: where(ram) of the Python gives the places.
spoils() {
	cat >"$tmp/places.py"
	cat >"$tmp/spoil.py" <<'END'
import os, re, sys
from places import where
pid, size = int(sys.argv[1]), 256 << 20
os.closerange(3, 1024)		# QEMU's connections are not ours to keep
with open(f'/proc/{pid}/maps') as maps:
    starts = [int(m[1], 16) for m in re.finditer(r'^(\w+)-(\w+) rw', maps.read(), re.M)
              if int(m[2], 16) - int(m[1], 16) == size]
with open(f'/proc/{pid}/mem', 'r+b', buffering=0) as mem:
    for start in starts:
        mem.seek(start)
        for place in where(mem.read(size)):
            mem.seek(start + place)
            mem.write(b'spoiled')
END
	cat >"$tmp/spoils" <<END
#!/bin/sh
case "\$*" in
*"-name fph-source"*) echo \$\$ >"$tmp/pid" ;;
*"-name fph-destination"*) python3 "$tmp/spoil.py" "\$(cat "$tmp/pid")" ;;
esac
exec "$1" "\$@"
END
	chmod +x "$tmp/spoils"
}

finish() {
	[ $bad -eq 0 ] && echo ok
	exit $bad
}

#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# What docs/results/full-set asks fph-report for, and what it makes of the answers.
# Arguments: the folder of results, fph-report.
# shellcheck source-path=SCRIPTDIR source=cli.sh
. "$(dirname "$0")/cli.sh"
set=$1/full-set recorded=$(realpath "$1/two-cores-tcg") real=$(realpath "$2")

# Measures nothing: it has results that were recorded, each as if by so many channels
cat >"$tmp/report" <<'END'
#!/bin/bash
set -e
[ "$1" != compare ] || exec "$REAL" "$@"
echo "$@" >>"$LOG"
# It knows all that, and there is nowhere to write to
"$REAL" "$@" --json /nonexistent/x.json 2>&1 | grep -q /nonexistent
channels=0
while [ $# -gt 0 ]; do
	case $1 in
	--json) json=$2 ;;
	--multifd) channels=$2 ;;
	esac
	shift
done
from=$RECORDED/${json%-multifd.json}
from=${from%.json}.json
[ -e "$from" ] || from=$RECORDED/large.json
sed 's/"cores" :/"multifd" : '$channels', &/' "$from" >"$json"
END
chmod +x "$tmp/report"
export FPH_REPORT="$tmp/report" REAL="$real" RECORDED="$recorded" LOG="$tmp/log"
run 0 "$set" "$tmp/folder"

# Each by one channel and by two, and the same otherwise
sed -n 's/ --multifd 2//p' "$tmp/log" | sed 's/-multifd\.json/.json/' >"$tmp/two"
grep -v -e '--multifd' "$tmp/log" >"$tmp/one"
[ "$(wc -l <"$tmp/one")" -gt 15 ] || problem 'so little is measured'
cmp -s "$tmp/one" "$tmp/two" || {
	problem 'by two channels it is not the same'
	diff "$tmp/one" "$tmp/two"
}
for scenario in fragmented-8g longdown-8g movable-8g idle-128g; do
	grep -q "$scenario" "$tmp/one" || problem "no $scenario"
done
for scenario in idle-8g freed-8g memfd-8g; do
	grep -q "$scenario.*--link" "$tmp/one" || problem "no $scenario on the link"
done
# What takes long in mode none, once
grep 'idle-512g' "$tmp/one" >"$tmp/large"
if [ -s "$tmp/large" ]; then
	for times in 'none --repeat 1' 'both --repeat 3'; do
		grep -q -e "--modes $times " "$tmp/large" || problem "idle-512g: not $times"
	done
else
	says err 'idle-512g is left out'
fi

# The README's table has both, and so have the reports
says out '| total time | by two channels |' '| idle, anonymous memory | QEMU | 636 ms | 636 ms |'
[ "$(grep -c '^|' "$tmp/out")" -eq 10 ] || problem 'another table'
for format in text markdown html; do
	grep -q 'One channel, and several' "$tmp/folder/results.$format" || problem "no channels in $format"
done

# What fails is gone on with, and the status says so
cat >"$tmp/report" <<'END'
#!/bin/sh
[ "$1" != compare ] || exec "$REAL" "$@"
case "$*" in
*busy.json*) exit 1 ;;
esac
END
run 1 "$set" "$tmp/folder"
says out '| idle, anonymous memory |'
finish

#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# fph-report with real guests: figures that a run must have, a series that is
# interrupted and resumed, two at once, one that is killed, rows that fail.
# Arguments: the program, QEMU or nothing.
# shellcheck source-path=SCRIPTDIR source=cli.sh
. "$(dirname "$0")/cli.sh"
report=$(realpath "$1") qemu=${2:+--qemu "$2"}
export TMPDIR="$tmp/t"
mkdir "$TMPDIR"

# try STATUS OPTION...
try() {
	status=$1
	shift
	# shellcheck disable=SC2086
	run "$status" "$report" run $qemu "$@"
}

# wait_for SECONDS COMMAND...
wait_for() {
	tries=$(($1 * 10))
	shift
	while ! "$@" 2>/dev/null; do
		tries=$((tries - 1))
		[ $tries -gt 0 ] || return 1
		sleep 0.1
	done
}

# figure NAME: all values of it in the JSON, a line each
figure() {
	sed -n "/\"summary\"/q; s/.*\"$1\" : \([0-9]*\),*\$/\1/p" "$tmp/r.json"
}

gone() {
	! kill -0 "$1"
}

guest_there() {
	ls -d "$TMPDIR"/fph-source-*
}

has_child() {
	[ "$(ps -o pid= --ppid "$1")" ]
}

# figures: Python that says what it wants of the runs in $tmp/r.json
cat >"$tmp/figures.py" <<'END'
import atexit, json, os, sys
with open(sys.argv[1]) as f:
    runs = {(r['scenario'], r['mode']): r for r in json.load(f)['runs']}
def want(ok, what):
    if not ok:
        print(what, flush=True)
        atexit.register(os._exit, 1)
def growth(r, side):
    return (r['rss_kib'][side]['after'] - r['rss_kib'][side]['before']) / 1024
END
figures() {
	PYTHONPATH=$tmp PYTHONDONTWRITEBYTECODE=1 python3 - "$tmp/r.json"
}

# A series is interrupted after its first run, and gone on with.
# shellcheck disable=SC2086
"$report" run $qemu --scenario idle-256m --modes none,both --json "$tmp/r.json" \
	>"$tmp/out" 2>"$tmp/err" &
pid=$!
wait_for 60 test -s "$tmp/r.json" || problem 'no result after 60 s'
# At the next guest: a QEMU is ended with it
wait_for 60 guest_there >/dev/null || problem 'no second guest after 60 s'
wait_for 10 has_child $pid
child=$(ps -o pid= --ppid $pid | head -n 1)
kill -TERM $pid
wait $pid
got=$?
[ $got -eq 143 ] || problem "interrupted: status $got, not 143"
says err '--resume'
[ "$(ls "$TMPDIR")" = '' ] || problem "left in TMPDIR: $(ls "$TMPDIR")"
# shellcheck disable=SC2086
gone $child 2>/dev/null || problem "QEMU $child still runs"
first=$(figure floor_ns)
[ "$(echo "$first" | wc -l)" -eq 1 ] || problem 'not one run in the file'

try 0 --scenario idle-256m --modes none,both --json "$tmp/r.json" --resume \
	--html "$tmp/r.html" --text "$tmp/r.txt"
says out 1/1
grep -q '2/2 idle-256m both' "$tmp/err" || problem 'not two runs in all'
grep -q '1/2' "$tmp/err" && problem 'the first run was done again'
[ "$(figure floor_ns | head -n 1)" = "$first" ] || problem 'the first run is another'
[ "$(figure checked_pages | sort -u)" = 1024 ] || problem 'content was not checked'
for name in floor_ns bytes total_ms faults.source faults.destination; do
	[ "${name%%.*}" = faults ] || figure $name | awk '$1 == 0 { bad = 1 } END { exit bad }' ||
		problem "$name is 0"
	grep -q "\"${name%%.*}\" : " "$tmp/r.json" || problem "no $name"
done
grep -q '"accel" : "tcg"' "$tmp/r.json" || problem 'no accelerator'
# Samples end where the migration did: nothing is left, and all is sent.
sed -n 's/.*"remaining" : \[.* \([0-9]*\) \],/\1/p' "$tmp/r.json" | sort -u >"$tmp/left"
[ "$(cat "$tmp/left")" = 0 ] || problem "left at the end: $(cat "$tmp/left")"
sent=$(sed -n 's/.*"transferred" : \[.* \([0-9]*\) \]/\1/p' "$tmp/r.json")
[ "$sent" = "$(figure bytes)" ] || problem "samples end with $sent, bytes are $(figure bytes)"
grep -q '<svg' "$tmp/r.html" || problem 'no plot'
cp "$tmp/r.json" "$tmp/done.json"
try 0 --scenario idle-256m --modes none,both --json "$tmp/r.json" --resume --warmup 1
[ ! -s "$tmp/err" ] || problem 'work to do where all is done'
cmp -s "$tmp/r.json" "$tmp/done.json" || problem 'nothing to do, and another result'
try 1 --scenario idle-256m --json "$tmp/r.json" --resume --multifd 2
says err 'another --multifd'

# The balloon takes 768 MiB and gives them back, in frames of a MiB or of runs.
try 0 --scenario balloon-1g --modes none,both --json "$tmp/r.json"
frames=$(figure frames | tr '\n' ' ')
echo "$frames" | awk '{ exit !(NF == 4 && $1 == 768 && $2 == 768 && $3 > 0 && $3 < 40 &&
	$4 > 0 && $4 < 40) }' || problem "frames of none and both, inflate and deflate: $frames"
costs=$(figure interrupts | tr '\n' ' ')
echo "$costs" | awk '{ exit !(NF == 4 && $1 > 10 && $2 > 10 && $3 < $1 / 2 && $4 < $2 / 2) }' ||
	problem "interrupts of none and both, inflate and deflate: $costs"
# Each frame of a MiB costs something; what runs cost may be less than is counted. How
# much that is depends on what else the machine does.
for cost in guest_ms cpu_ms; do
	costs=$(figure $cost | tr '\n' ' ')
	echo "$costs" | awk '{ exit !(NF == 4 && $1 > 0 && $2 > 0) }' ||
		problem "$cost of none and both, inflate and deflate: $costs"
done
says out 'inflate ms'
says out 'deflate ms'

# Of a guest that has used its memory the host gets that back, by either balloon.
cat >"$tmp/used.scenario" <<'END'
[scenario]
name=used
memory=512m
use=balloon
before=freed
fill=192m
balloon=256m
append=init_on_alloc=1
END
try 0 --scenario "$tmp/used.scenario" --modes none,both --json "$tmp/r.json"
says out 'back MiB' 'as used.scenario says'
figures <<'END' || problem 'figures of a balloon that is filled'
from figures import runs, want
for (scenario, mode), r in runs.items():
    full = r['balloon']['inflate']
    want(128 << 20 < full['returned'] <= 256 << 20, f"{mode}: {full['returned']} bytes came back")
    want(full.get('peak', 0) < 128 << 20, f"{mode}: {full.get('peak')} bytes more meanwhile")
    want(full['faults'] < 32768, f"{mode}: {full['faults']} faults")
END

# A guest that clears what it frees: its zeroes are found before, and said to be that.
try 0 --scenario zeroed-512m --modes prescan --json "$tmp/r.json"
zeroes=$(figure zero_content)
[ "${zeroes:-0}" -ge $((300 << 20 >> 12)) ] || problem "zeroes found before: '$zeroes' pages"
says out 'zero content'

# By multifd where the mode says so, and while the host moves its memory.
moves='movable-256m,'
if [ "$(id -u)" != 0 ] || [ ! -w /proc/sys/vm/compact_memory ]; then
	echo 'SKIP: movable: needs root, and a kernel that compacts memory'
	moves=
fi
try 0 --scenario "${moves}idle-256m" --modes both,both-multifd --json "$tmp/r.json"
figures <<'END' || problem 'figures of both-multifd and movable'
from figures import runs, want
for (scenario, mode), r in runs.items():
    name = f'{scenario} {mode}'
    by_multifd = r.get('multifd_bytes', 0)
    want((by_multifd > 0.9 * 4096 * r['pages']['sent']) == (mode == 'both-multifd'),
         f"{name}: {by_multifd} of {r['bytes']} bytes by multifd")
    moved = r.get('host', {}).get('moved')
    want((moved or 0) > 0 if scenario.startswith('movable') else moved is None,
         f'{name}: the host moved {moved} pages')
END

# Saved to a file, and loaded from it: the same file in either mode, but to find that
# out QEMU by itself reads all memory, which it thereby gives to it.
try 0 --scenario save-memfd-256m,restore-memfd-256m --modes none,pagemap --json "$tmp/r.json"
says out 'file MiB'
figures <<'END' || problem 'figures of save and restore'
from figures import growth, runs, want
want(len(runs) == 4, f'{len(runs)} runs')
for (scenario, mode), r in runs.items():
    name = f'{scenario} {mode}'
    used = r['pages']['sent'] * 4096
    want(used * 0.95 < r['file']['bytes'] < used + (4 << 20),
         f"{name}: a file of {r['file']['bytes']} for {used} bytes")
    want(r['file']['load_ns'] > 0 and r['floor_ns'] > 0, f'{name}: no time')
    want(r['checked_pages'] == 1024, f'{name}: content was not checked')
    want(growth(r, 'source') > 100 if mode == 'none' else growth(r, 'source') < 5,
         f"{name}: the source grows by {growth(r, 'source')} MiB")
    if scenario.startswith('restore'):
        want(r['total_ms'] == r['file']['load_ns'] // 1000000, f'{name}: time of something else')
END
[ "$(ls "$TMPDIR")" = '' ] || problem "left in TMPDIR: $(ls "$TMPDIR")"

# Two at once: sums, and the time until the last one is there.
try 0 --scenario evacuate-2-256m --modes none,both --json "$tmp/r.json"
says out 'evacuate-2-idle-256m'
figures <<'END' || problem 'figures of an evacuation'
from figures import growth, runs, want
for mode in ('none', 'both'):
    r = runs['evacuate-2-idle-256m', mode]
    want(r['checked_pages'] == 2 * 1024, f"{mode}: {r['checked_pages']} pages were checked")
    want(r['rss_kib']['source']['before'] > 2 * 100 * 1024, f'{mode}: memory of one source')
    want(growth(r, 'destination') > 2 * 30, f"{mode}: they grew by {growth(r, 'destination')}")
    want(r['bytes'] > r['pages']['sent'] * 4096, f"{mode}: fewer bytes than pages")
    want(r['downtime_ms'] <= r['total_ms'], f'{mode}: a sum of downtimes')
none, both = (runs['evacuate-2-idle-256m', mode] for mode in ('none', 'both'))
want(both['pages']['skipped'] > 2 * 20000, f"{both['pages']['skipped']} pages were left out")
pages = [r['pages']['sent'] + r['pages']['zero'] + r['pages']['skipped'] for r in (none, both)]
want(min(pages) > 2 * 65536, f'{pages} pages in all')
END

# Who takes memory. In mode none the migration thread reads what nothing is mapped
# for, and shared memory gets pages by that: the kernel's own count of faults has
# them, too. In mode pagemap it reads nothing of that.
# shellcheck disable=SC2086
"$report" run $qemu --trace --scenario memfd-256m,idle-256m --modes none,pagemap \
	--json "$tmp/r.json" >"$tmp/out" 2>"$tmp/err"
got=$?
if [ $got -eq 3 ] && [ "${FPH_REQUIRE_KERNEL:-0}" != 1 ]; then
	echo "SKIP: $(cat "$tmp/err")"
elif [ $got -ne 0 ]; then
	problem "--trace: exit status $got"
else
	says out 'traced ('
	says out 'migr faults'
	says out 'tracer ms'
	figures <<'END' || problem 'figures of --trace'
from figures import growth, runs, want
for (scenario, mode), r in runs.items():
    t, name = r['tracer'], f'{scenario} {mode}'
    source, destination = t['source'], t['destination']
    want(t['lost'] == 0, f'{name}: events were lost')
    want(0 < t['ns'] < 1e6 * r['total_ms'] and t['runs'] > 0, f'{name}: no cost of the tracer')
    for side, counts in (('source', source), ('destination', destination)):
        faults = sum(c['faults'] for c in counts.values() if isinstance(c, dict))
        want(faults <= r['faults'][side], f'{name}: {faults} faults at the {side}')
    # Nothing else puts content there
    want(destination['receiving']['taken'] >= r['pages']['sent'] * 0.9,
         f'{name}: pages of receiving threads')
holes = runs['memfd-256m', 'pagemap']['pages']['unmapped']
r = runs['memfd-256m', 'none']
migration = r['tracer']['source']['migration']
want(holes > 20000 and abs(migration['taken'] - holes) < holes / 50,
     f"the migration thread took {migration['taken']} of {holes} pages")
want(migration['faults'] > r['faults']['source'] * 0.95,
     f"{migration['faults']} of {r['faults']['source']} faults are the migration thread's")
# Private memory gets the zero page, where the kernel maps one
r = runs['idle-256m', 'none']
taken = r['tracer']['source']['migration']['taken'] / 256
want(r['tracer']['source']['migration']['faults'] > 0, 'private memory was not read')
want(abs(taken - growth(r, 'source')) < 8,
     f"private memory got {taken} MiB by reading, and grew by {growth(r, 'source')}")
for scenario in ('memfd-256m', 'idle-256m'):
    r = runs[scenario, 'pagemap']['tracer']['source']['migration']
    want(r['faults'] < 100 and r['taken'] < 100, f'{scenario} pagemap: it read holes')
END
fi

# Two at once, of the other ways to migrate. Neither takes what is the other's.
# shellcheck disable=SC2086
"$report" run $qemu --scenario freed-512m --modes reporting --json "$tmp/2.json" \
	>"$tmp/2.out" 2>&1 &
pid=$!
try 0 --scenario busy-256m --modes both --multifd 2 --json "$tmp/r.json"
[ "$(figure multifd)" = 2 ] || problem 'no multifd'
work=$(figure during)
[ "${work:-0}" -gt 0 ] || problem "the guest did not work: '$work'"
wait $pid || { cat "$tmp/2.out"; problem 'the other of two failed'; }
[ "$(ls "$TMPDIR")" = '' ] || problem "left in TMPDIR: $(ls "$TMPDIR")"

# A guest that is not ready in time, and a scenario that a file describes.
printf '[scenario]\nname=mine\nmemory=256m\nuse=freed\nfill=32m\n' >"$tmp/mine.scenario"
try 1 --scenario "$tmp/mine.scenario,idle-256m" --modes none --timeout 1
says out 'mine none, run 1 failed: source: the guest was not ready after 1 s'
says out '0/1'
log=$(sed -n 's/.*logs: \(\/[^ ]*\)$/\1/p; s/^  \(\/[^ ]*fph-report-[^ ]*\)$/\1/p' "$tmp/out" | head -n 1)
[ -e "$log/source-serial.log" ] || problem "no log in '$log'"
rm -rf "$TMPDIR"/fph-report-*

# A page of the guest is spoiled once it is filled: it sees that at the destination.
spoils "${2:-${FPH_CACHE:-$HOME/.cache/fph}/bin/qemu-system-x86_64}" <<'END'
import re
def where(ram):
    pages = [m.start() for m in re.finditer(b'FPHPAGE\0', ram) if m.start() % 4096 == 0]
    return [pages[512] + 4000] if len(pages) >= 1024 else []
END
link='--link 10gbit'
if [ "$(id -u)" != 0 ] || ! command -v tc >/dev/null || ! command -v ip >/dev/null; then
	echo 'SKIP: --link: needs root, ip and tc'
	link=
fi
# shellcheck disable=SC2086
try 1 --qemu "$tmp/spoils" --scenario idle-256m --modes both $link
says err 'the guest'\''s content is wrong at the destination: ok check pages=1024 bad=1'
[ -z "$link" ] || says out 'link of 10gbit'
rm -rf "$TMPDIR"/fph-report-*

# A network that is too slow for what the guest writes: no end.
if [ -n "$link" ]; then
	try 1 --scenario busy-256m --modes both --link 80mbit --timeout 12
	says out "source: migration still 'active' after 12 s"
	rm -rf "$TMPDIR"/fph-report-*
fi

# Killed, it cannot clean up; but QEMU goes with it.
# shellcheck disable=SC2086
"$report" run $qemu --scenario idle-256m >"$tmp/out" 2>"$tmp/err" &
pid=$!
wait_for 60 guest_there >/dev/null || problem 'no guest after 60 s'
wait_for 10 has_child $pid
child=$(ps -o pid= --ppid $pid | head -n 1)
kill -KILL $pid
wait $pid 2>/dev/null
# shellcheck disable=SC2086
wait_for 10 gone $child || problem "QEMU $child still runs"

finish

#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# fph-report as its users meet it. Arguments: the program, the folder with
# recorded results, the man page.
# shellcheck source-path=SCRIPTDIR source=cli.sh
. "$(dirname "$0")/cli.sh"
report=$(realpath "$1") data=$2 man=$3
export TMPDIR="$tmp/t"
mkdir "$TMPDIR"

# try STATUS ARGUMENT...
try() {
	status=$1
	shift
	run "$status" "$report" "$@"
}

# Help and usage.
try 0 --version
says out 'fph-report '
try 0 --help
says out run compare 'Exit status'
silent err
for command in run compare attach; do
	try 0 $command --help
	says out 'Usage:' '--help'
	silent err
	[ "$(awk 'length > 80' "$tmp/out")" = '' ] || problem 'wider than 80 columns'
	try 0 $command -h
	try 2 $command --no-such-option
	says err "unknown option '--no-such-option'" "Try 'fph-report $command --help'."
	silent out
done
try 2
says err 'which command?' "Try 'fph-report --help'."
try 2 frobnicate
says err "unknown command 'frobnicate'" 'run, compare and attach'
try 2 --frobnicate
says err "unknown option '--frobnicate'"
try 2 run --json
says err "'--json' needs an argument"
try 2 run -xyz
says err "unknown option '-x'"
try 2 run --no-such-option
says err "unknown option '--no-such-option'"
try 2 run --repeat=1 --help=much
says err "unknown option '--help=much'"
try 2 run stray
says err stray
try 2 compare
for pair in 'repeat 0' 'repeat x' 'repeat 1001' 'timeout 0' 'timeout soon' \
	    'warmup 0' 'warmup x' 'multifd 0' 'multifd 256' 'accel xen' \
	    'link 0gbit' 'link fast' 'link 10' 'link 10gbit;' 'link -1gbit' \
	    'memory 0' 'memory 1x' 'memory -1' 'memory 99999999999g' 'memory 1m'; do
	try 2 run --${pair% *} "${pair#* }"
	silent out
done

# Nobody to attach to.
try 2 attach
says err --qmp
try 2 attach --qmp x --timeout 0
try 1 attach --qmp "$tmp/no.sock"
says err "$tmp/no.sock"
try 1 attach --qmp "$tmp/no.sock" --html /nonexistent/x.html
says err /nonexistent/x.html

# Names that do not exist.
for name in idle-8 pony-8g idle freed idle-8gg '' 'idle-8g,,memfd-8g' idle-1m \
	    save save- save-pony-8g restore-8gg save-save-8g saved-8g \
	    evacuate-8g evacuate-0-8g evacuate-65-8g evacuate-2-busy-8g evacuate-2-save-8g; do
	try 2 run --scenario "$name"
	silent out
done
try 2 run --scenario pony-8g
says err "'pony-8g'" idle-8g freed-8g full-8g busy-8g memfd-8g fragmented-8g longdown-8g movable-8g
try 2 run --modes pony
says err "'pony'" none, balloon, reporting, pagemap, pv, pv-balloon, both, both-balloon
try 2 run --modes ''
try 2 run --resume
says err '--json'
try 2 run --resume --json -

# A scenario in a file.
for keys in 'memory=1g' 'name=x' 'name=x memory=1' 'name=x memory=1g use=pony' \
	    'name=x memory=1g fill=much' 'name=x memory=1g rate=0' 'name=x memory=1g objects=0' \
	    'name=x memory=192m use=compile' 'name=x memory=1g way=pony' \
	    'name=x memory=1g before=freed' 'name=x memory=1g use=balloon before=busy' \
	    'name=x memory=1g use=balloon balloon=1g' 'name=x memory=1g pony=1'; do
	{ echo '[scenario]'; printf '%s\n' $keys; } >"$tmp/x.scenario"
	try 2 run --scenario "$tmp/x.scenario"
	silent out
done
says err 'pony' 'name, memory, ram, use, before, fill, balloon, rate, objects, append, way'
echo 'name=x' >"$tmp/x.scenario"
try 2 run --scenario "$tmp/x.scenario"
try 2 run --scenario "$tmp/none.scenario"
says err "$tmp/none.scenario"
# Two of one name would be one row
for size in 1g 2g; do
	printf '[scenario]\nname=same\nmemory=%s\nuse=little\n' $size >"$tmp/$size.scenario"
done
try 2 run --scenario "$tmp/1g.scenario,$tmp/2g.scenario"
says err "another scenario is called 'same'"

# What is missing names the command that makes it.
export FPH_CACHE="$tmp/cache"
mkdir -p "$tmp/cache/bin" "$tmp/cache/guest"
try 1 run
says err "$tmp/cache/bin/qemu-system-x86_64" ./demo qemu-integration/build-qemu

cat >"$tmp/cache/bin/qemu-system-x86_64" <<'END'
#!/bin/sh
case "$*" in
--version) echo 'QEMU emulator version 10.0.99 (fake)' ;;
'-object help') echo "  ${FAKE_OBJECT:-fph-source}" ;;
'-device help') echo "name \"${FAKE_DEVICE:-}\", bus PCI" ;;
*) echo 'qemu: no ponies left' >&2; exit 9 ;;
esac
END
chmod +x "$tmp/cache/bin/qemu-system-x86_64"
try 1 run
says err "$tmp/cache/guest/vmlinuz" ./demo tests/guest/build-guest
: >"$tmp/cache/guest/vmlinuz"
try 1 run
says err "$tmp/cache/guest/initramfs.img" tests/guest/build-guest
: >"$tmp/cache/guest/initramfs.img"
FAKE_OBJECT=other try 3 run
says err 'no fph-source' qemu-integration/build-qemu
unset FAKE_OBJECT
# Without the rights for BPF nothing is begun
if [ "$(id -u)" = 0 ]; then
	real=$report
	printf '#!/bin/sh\nexec setpriv --bounding-set=-all "%s" "$@"\n' "$real" >"$tmp/bare"
	chmod +x "$tmp/bare"
	report=$tmp/bare
fi
try 3 run --trace --scenario idle-1g
says err '--trace: '
silent out
[ "$(wc -l <"$tmp/err")" -eq 1 ] || problem 'something was begun'
try 3 run --link 10gbit --scenario idle-1g
says err 'needs root'
silent out
[ "$(id -u)" != 0 ] || report=$real
try 1 run --qemu /bin/true
says err '/bin/true: is no QEMU'
try 1 run --json /nonexistent/x.json
says err /nonexistent/x.json
try 1 run --json "$tmp"
says err 'is a directory'

try 1 run --scenario compile-256m
says err "$tmp/cache/guest/compiler.img" tests/guest/build-guest
try 2 run --scenario compile-128m
says err "scenario 'compile-128m': memory must be 256m or more"
try 2 run --scenario fragmented-1g
says err "scenario 'fragmented-1g': memory must be 2048m or more"

# A QEMU that dies makes a row; the others go on, and the files are whole.
try 1 run --scenario idle-1g,freed-1g --json "$tmp/r.json" --text "$tmp/r.txt"
says out failed ponies "$tmp/r.json" "$tmp/r.txt"
says err '4/4 freed-1g pagemap: failed: source: QEMU ended with status 9: qemu: no ponies left'
[ "$(grep -c '"status" : "failed"' "$tmp/r.json")" -eq 4 ] || problem 'not 4 failed runs'
log=$(sed -n 's/.*"log" : "\(.*\)".*/\1/p' "$tmp/r.json" | head -n 1)
grep -q 'no ponies left' "$log/source-stderr.log" || problem "no log in '$log'"
[ "$(ls -d "$TMPDIR"/fph-source-* 2>/dev/null)" = '' ] || problem 'a VM left its directory'
try 0 compare "$tmp/r.json"
says out '0/1' failed 10.0.99
cmp -s "$tmp/out" "$tmp/r.txt" || problem 'compare and --text differ'
try 1 run --scenario idle-1g --modes none --json -
says out '"schema" : 2'
says err '0/1'

# Only the same way to run the same guest goes on, by whatever name.
cp "$tmp/cache/guest/vmlinuz" "$tmp/kernel"
try 1 run --scenario idle-1g --modes none --json "$tmp/r.json" --resume --kernel "$tmp/kernel"
says err 'no ponies left'
try 1 run --scenario idle-1g --modes none --json "$tmp/r.json" --resume --cold
says err 'cannot go on with it: it was measured without --cold'
echo other >"$tmp/kernel"
try 1 run --scenario idle-1g --modes none --json "$tmp/r.json" --resume --kernel "$tmp/kernel"
says err 'cannot go on with it: its guest kernel is e3b0c44298fc1c14, not '
try 1 run --scenario idle-1g --modes none --json "$tmp/r.json" --resume --initrd "$tmp/kernel"
says err 'its guest initramfs is '
cp "$tmp/cache/bin/qemu-system-x86_64" "$tmp/qemu"
echo '# other' >>"$tmp/qemu"
try 1 run --scenario idle-1g --modes none --json "$tmp/r.json" --resume --qemu "$tmp/qemu"
says err 'cannot go on with it: its QEMU is '
# ... and a guest that is the same, but for its name
printf '[scenario]\nname=own\nmemory=1g\nuse=freed\n' >"$tmp/own.scenario"
try 1 run --scenario "$tmp/own.scenario" --modes none --json "$tmp/own.json"
try 1 run --scenario "$tmp/own.scenario" --modes none --json "$tmp/own.json" --resume
says err 'no ponies left'
echo fill=256m >>"$tmp/own.scenario"
try 1 run --scenario "$tmp/own.scenario" --modes none --json "$tmp/own.json" --resume
says err 'cannot go on with it: its own is another guest'
# What has failed and is not tried again is still told
try 1 run --scenario freed-1g --modes none --json "$tmp/r.json" --resume
[ "$(grep -c '"status" : "failed"' "$tmp/r.json")" -eq 4 ] || problem 'a failed run is forgotten'
try 1 run --scenario idle-1g --modes none --json "$tmp/c.json" --cold
try 1 run --scenario idle-1g --modes none --json "$tmp/c.json" --resume --cold
says err 'no ponies left'
try 1 run --scenario idle-1g --modes none --json "$tmp/c.json" --resume
says err 'it was measured with --cold'
sed 's/"cold" : true/"cold" : 1/' "$tmp/c.json" >"$tmp/bad.json"
try 1 compare "$tmp/bad.json"
says err 'machine.cold: must be true or false'
: >"$tmp/cache/guest/compiler.img"
try 1 run --scenario compile-256m,idle-1g --modes none --json "$tmp/c.json"
echo other >"$tmp/cache/guest/compiler.img"
try 1 run --scenario idle-1g --modes none --json "$tmp/c.json" --resume
says err 'no ponies left'
try 1 run --scenario compile-256m --modes none --json "$tmp/c.json" --resume
says err 'its guest'\''s compiler is e3b0c44298fc1c14, not '

# What a guest's kernel takes for so many pages, on both sides, there must be.
try 1 run --scenario idle-64t --modes none
says err 'needs 2048.0 GiB of memory'

# So does a device that one of the QEMUs does not have.
try 1 run --scenario idle-1g --modes none,balloon,pv --json "$tmp/r.json"
says err '2/3 idle-1g balloon: failed: ' "$tmp/cache/bin/qemu-system-x86_64 has no device virtio-balloon-pci" \
	'3/3 idle-1g pv: failed: ' 'has no device virtio-fph-pci; ./demo or qemu-integration/build-qemu'
[ "$(grep -c '"log"' "$tmp/r.json")" -eq 1 ] || problem 'a folder without logs is named'
cat >"$tmp/older" <<'END'
#!/bin/sh
case "$*" in
--version) echo 'QEMU emulator version 7.0.0 (fake)' ;;
esac
END
chmod +x "$tmp/older"
FAKE_DEVICE=virtio-fph-pci try 1 run --scenario idle-1g --modes both --destination-qemu "$tmp/older"
says err "$tmp/older has no device virtio-fph-pci"
FAKE_DEVICE=virtio-fph-pci try 1 run --scenario idle-1g --modes both
says err 'no ponies left'

# Ended by a signal: no QEMU, no files, no results, and that signal as status.
cat >"$tmp/hangs" <<'END'
#!/bin/sh
case "$*" in
--version) echo 'QEMU emulator version 10.0.99 (fake)' ;;
*) echo $$ >"$HANGS_PID"; exec sleep 100 ;;
esac
END
chmod +x "$tmp/hangs"
mkdir "$tmp/s"
what='run, ended by SIGTERM'
HANGS_PID="$tmp/pid" TMPDIR="$tmp/s" "$report" run --qemu "$tmp/hangs" --modes none \
	--json "$tmp/s.json" >"$tmp/out" 2>"$tmp/err" &
pid=$!
tries=0
while [ ! -s "$tmp/pid" ] && [ $tries -lt 100 ]; do
	tries=$((tries + 1))
	sleep 0.1
done
kill -TERM $pid
wait $pid
got=$?
[ $got -eq 143 ] || problem "status $got, not 143"
[ "$(ls "$tmp/s")" = '' ] || problem 'files are left'
[ ! -e "$tmp/s.json" ] || problem 'a result was written'
kill -0 "$(cat "$tmp/pid")" 2>/dev/null && problem 'QEMU still runs'

# Recorded results: medians, ratios, failed rows; hints by either device; enough
# runs for an interval; never wider than 80 columns.
for name in three-repeats all-modes six-repeats traced; do
	try 0 compare "$data/$name.json"
	silent err
	cmp -s "$tmp/out" "$data/$name.txt" || {
		problem "differs from $name.txt"
		diff "$data/$name.txt" "$tmp/out"
	}
	[ "$(awk 'length > 80' "$tmp/out")" = '' ] || problem 'wider than 80 columns'
done
try 0 compare "$data/three-repeats.json" "$data/three-repeats.json"
says out "$data/three-repeats.json"

# The other formats; a file is named as on the command line.
golden() {
	cmp -s "$tmp/out" "$data/$1" || {
		problem "differs from $1"
		diff "$data/$1" "$tmp/out"
	}
}
cd "$data" || exit 1
try 0 compare --format markdown six-repeats.json
golden six-repeats.md
try 0 compare --format csv six-repeats.json three-repeats.json
golden six-and-three-repeats.csv
try 0 compare --format json six-repeats.json
golden six-repeats.summary.json
try 0 compare --output "$tmp/file.txt" six-repeats.json
silent out
cp "$tmp/file.txt" "$tmp/out"
golden six-repeats.txt
try 1 compare --output /nonexistent/x.txt six-repeats.json
says err /nonexistent/x.txt
try 2 compare --format pony six-repeats.json
says err "'pony'"
sed 's/"scenario": "idle-8g"/"scenario": "a, \\"b\\""/' three-repeats.json >"$tmp/quoted.json"
try 0 compare --format csv "$tmp/quoted.json"
says out ',"a, ""b""",none,total_ms,3,1286,1250,1300,,'

# What others published is told apart; a mode far from its floor says where time goes.
try 0 compare six-repeats.json
says out 'times its floor: of 58 ms, set-up took 3, waiting for' 'in the kernel'
try 0 compare three-repeats.json
says out 'Published elsewhere' 'instead of 1894 ms, 22.2%' msg128743.html
[ "$(grep -c 1894 "$tmp/out")" -eq 1 ] || problem 'published figures are mixed in'
sed 's/"scenario": "busy-8g"/"scenario": "compile-128g"/' three-repeats.json >"$tmp/large.json"
try 0 compare "$tmp/large.json"
says out '8816 instead' '54201 ms, 16.3%' 'its job took' ' 510 instead of 516 s'

# A report of QEMU's guestperf, in the form that its Report.serialize() has.
cat >"$tmp/guestperf.json" <<'END'
{ "hardware": { "cpus": 1, "mem": 2 }, "scenario": { "name": "compr-off" },
  "progress_history": [
    { "status": "active", "now": 1.5, "duration": 100, "downtime": 0, "setup_time": 0,
      "ram": { "transferred_bytes": 1000000, "remaining_bytes": 9000000, "iterations": 1,
               "duplicate_pages": 5, "normal_pages": 200 } },
    { "status": "completed", "now": 2.9, "duration": 1500, "downtime": 12, "setup_time": 3,
      "ram": { "transferred_bytes": 10485760, "remaining_bytes": 0, "iterations": 4,
               "duplicate_pages": 500, "normal_pages": 2500 } } ],
  "result": { "success": true } }
END
try 0 compare "$tmp/guestperf.json" six-repeats.json
says out 'compr-off: 2 GiB' 'measured by guestperf'
grep -q '^none  *1/1  *1500  ' "$tmp/out" || problem 'no total time of guestperf'
grep -q '^none  *10.0  *100.0%  *12  *3$' "$tmp/out" || problem 'no data of guestperf'
grep -q '^none  *2500  *500$' "$tmp/out" || problem 'no pages of guestperf'
sed 's/"completed"/"cancelled"/' "$tmp/guestperf.json" >"$tmp/bad.json"
try 0 compare "$tmp/bad.json"
says out "failed: the migration ended as 'cancelled'"
sed 's/"name"/"nom"/' "$tmp/guestperf.json" >"$tmp/bad.json"
try 1 compare "$tmp/bad.json"
says err "$tmp/bad.json: guestperf: scenario.name"
# So deep that reading it would take more stack than there is
head -c 1000000 /dev/zero | tr '\0' '[' >"$tmp/bad.json"
try 1 compare "$tmp/bad.json"
says err "$tmp/bad.json: not a result" 'in each other'

cd - >/dev/null || exit 1

# Limits: of one file against mode none, of several against the first.
for bad_limit in time time=110 time=x% pony=110% time=-1% =110% time=0%; do
	try 2 compare --fail-over "$bad_limit" "$data/six-repeats.json"
	says err "'$bad_limit'"
	silent out
done
try 0 compare --fail-over time=100% --fail-over bytes=99.9% "$data/six-repeats.json"
try 4 compare --fail-over bytes=50% "$data/six-repeats.json"
says err 'idle-256m both: bytes=50%: '
says out idle-256m
try 4 compare --fail-over time=1000% "$data/three-repeats.json"
says err 'busy-8g pagemap: time=1000%: nothing to compare with'
try 0 compare --fail-over time=100% "$data/six-repeats.json" "$data/six-repeats.json"
try 4 compare --fail-over time=99% "$data/six-repeats.json" "$data/six-repeats.json"
try 4 compare --fail-over time=100% "$data/six-repeats.json" "$data/all-modes.json"
says err 'idle-256m none: time=100%: no figure'
sed 's/"cores" : 2/"cores" : 64/' "$data/six-repeats.json" >"$tmp/other.json"
try 1 compare --fail-over time=100% "$data/six-repeats.json" "$tmp/other.json"
says err 'different machines'
try 0 compare "$data/six-repeats.json" "$tmp/other.json"

# another_way NAME EXPRESSION: what sed makes of it cannot be compared
another_way() {
	sed "$2" "$data/six-repeats.json" >"$tmp/$1.json"
	try 1 compare --fail-over time=100% "$data/six-repeats.json" "$tmp/$1.json"
	says err 'another --multifd, --link, --accel, --trace or --cold'
}
another_way two 's/"cores" : 2/"cores" : 2, "multifd" : 2/'
another_way kvm 's/"accel" : "tcg"/"accel" : "kvm"/'
another_way traced 's/"cores" : 2/"cores" : 2, "tracer" : "tp"/'
sed 's/"mode" : "[^"]*"/"mode" : "none"/' "$data/three-repeats.json" >"$tmp/none.json"
try 4 compare --fail-over time=100% "$tmp/none.json"
says err 'nothing to compare'

# A run that failed may have been the slowest; another guest is another thing
fails_in() {
	python3 - "$data/six-repeats.json" "$1" <<-'EOC'
		import json, sys
		report = json.load(open(sys.argv[1], encoding="utf-8"))
		run = [r for r in report["runs"] if r["mode"] == sys.argv[2]][0]
		run["status"], run["error"] = "failed", "still active"
		json.dump(report, sys.stdout)
	EOC
}
fails_in both >"$tmp/failed.json"
try 4 compare --fail-over time=1000% "$tmp/failed.json"
says err 'idle-256m both: 1 of 6 runs failed'
try 4 compare --fail-over time=1000% "$data/six-repeats.json" "$tmp/failed.json"
says err 'idle-256m both: 1 of 6 runs failed'
try 0 compare --fail-over time=1000% "$tmp/failed.json" "$tmp/failed.json"
sed 's/"memory" : 268435456/"memory" : 536870912/' "$data/six-repeats.json" >"$tmp/larger.json"
try 4 compare --fail-over time=1000% "$data/six-repeats.json" "$tmp/larger.json"
says err 'idle-256m: another guest'

# What is no file is written to, and not replaced; a link is followed
mkfifo "$tmp/pipe"
cat "$tmp/pipe" >"$tmp/piped" &
reading=$!
try 0 compare --output "$tmp/pipe" "$data/six-repeats.json"
[ -p "$tmp/pipe" ] && wait $reading
cmp -s "$tmp/piped" "$data/six-repeats.txt" || problem 'not through a pipe'
: >"$tmp/target"
ln -s target "$tmp/link"
try 0 compare --output "$tmp/link" "$data/six-repeats.json"
[ -L "$tmp/link" ] && [ -s "$tmp/target" ] || problem 'the link was replaced'

# One channel and several side by side, and what a guest costs by its size: only of one
# machine and link, and of three sizes or more.
cd "$data" || exit 1
sed 's/"cores" : 2/"cores" : 2, "multifd" : 4/' six-repeats.json >"$tmp/four.json"
try 0 compare "$tmp/four.json" six-repeats.json "$tmp/two.json" "$tmp/other.json" six-repeats.json
sed -n '/^One channel, and several$/,$p' "$tmp/out" >"$tmp/cut" && mv "$tmp/cut" "$tmp/out"
golden channels.txt
# size N SCAN-NS SECONDS: the same guest with so many MiB
size() {
	sed 's/"idle-256m"/"idle-'"$1"'m"/; s/"memory" : .*/"memory" : '$(($1 << 20))',/
		s/"scan_ns" : [0-9]*/"scan_ns" : '"$2/" six-repeats.json >"$tmp/size-$1.json"
}
size 1024 8000000
size 2048 15000000
size 4096 32000000
try 0 compare "$tmp/size-1024.json" "$tmp/size-2048.json"
grep -q '^Cost by size' "$tmp/out" && problem 'two sizes say nothing of a line'
try 0 compare "$tmp/size-4096.json" "$tmp/size-1024.json" "$tmp/size-2048.json" "$tmp/two.json"
sed -n '/^Cost by size: idle, both$/,$p' "$tmp/out" >"$tmp/cut" && mv "$tmp/cut" "$tmp/out"
golden sizes.txt
sed -i 's/"cores" : 2/"cores" : 3/' "$tmp/size-2048.json"
try 0 compare "$tmp/size-4096.json" "$tmp/size-1024.json" "$tmp/size-2048.json"
grep -q '^Cost by size' "$tmp/out" && problem 'two machines are mixed'
try 0 compare --format markdown six-repeats.json "$tmp/two.json"
says out '# One channel, and several' '| scenario | mode | channels | total ms | of none |'
cd - >/dev/null || exit 1

# An answer that is not complete is told; what was not measured has no figure.
sed '/"mode": "pv",/,/"state": "answered"/ {
	/"latency_ns"/d
	s/"state": "answered"/"state": "failed", "reason": "it rained"/
}' "$data/all-modes.json" >"$tmp/failed.json"
try 0 compare "$tmp/failed.json"
says out 'freed-1g pv, run 1: hints of the guest: failed: it rained'
grep -q '^first answer ms  *-  *-  *[0-9.]*  *[0-9.]*$' "$tmp/out" || problem 'a latency of no answer'

# What a file says is shown, not obeyed.
sed 's/"scenario": "/&\\u001b[2J\\n/; s/"cpu": "/&\\u009b\\u0007/' \
	"$data/three-repeats.json" >"$tmp/evil.json"
for format in text markdown csv json html; do
	try 0 compare --format $format "$tmp/evil.json"
	LC_ALL=C grep -q "$(printf '[\001-\010\013-\037\177]\|\302\233')" "$tmp/out" &&
		problem 'control characters'
done
try 0 compare "$tmp/evil.json"
says out '?[2J?'

# Files that are no results say where and why; good ones beside them are shown.
# edit SCRIPT: a damaged copy
edit() {
	sed "$1" "$data/three-repeats.json" >"$tmp/bad.json"
	try 1 compare "$tmp/bad.json"
	silent out
	says err "$tmp/bad.json: "
}
edit '40,$d'
says err 'not JSON'
edit 's/"schema": 1,/"schema": 99,/'
says err 'schema: 99, this fph-report reads 1 to 2'
edit 's/"schema": 1,/"schema": "1",/'
says err 'schema: must be an integer'
edit '/"schema"/d'
says err 'schema: missing'
edit 's/"tool": "fph-report"/"tool": "lsmem"/'
says err "tool: must be 'fph-report'"
edit 's/"total_ms": 420,/"total_ms": "fast",/'
says err 'runs[1].total_ms: must be an integer'
edit 's/"total_ms": 420,/"total_ms": -420,/'
says err 'runs[1].total_ms: must be an integer that is not negative'
edit 's/"sent": 57610,/"snet": 57610,/'
says err 'runs[2].pages.sent: missing'
edit 's/"state": "ended"/"state": 3/'
says err 'runs[1].fph.state: must be a string'
edit 's/"chunks": 8,/"chunks": "8",/'
says err 'runs[1].fph.chunks: must be an integer'
edit 's/"mode": "pagemap"/"mode": null/'
says err 'runs[1].mode: must be a string'
edit '1,/completed/s/"completed"/"done"/'
says err "runs[0].status: must be 'completed' or 'failed'"
# edit_samples SCRIPT: the same, of a file with samples
edit_samples() {
	sed "$1" "$data/six-repeats.json" >"$tmp/bad.json"
	try 1 compare "$tmp/bad.json"
	silent out
	says err "$tmp/bad.json: runs[0].samples"
}
edit_samples '/"us"/s/"us" : \[ [0-9]*, /"us" : [ /'
says err 'remaining: must have as many elements as us'
edit_samples '/"remaining"/s/: \[.*/: 3,/'
says err 'remaining: must be an array'
edit_samples '/"transferred"/s/\[ [0-9]*,/[ "much",/'
says err 'transferred: must have integers'
echo '[1]' >"$tmp/bad.json"
try 1 compare "$tmp/bad.json" "$data/three-repeats.json"
says err 'no JSON object'
says out idle-8g
: >"$tmp/bad.json"
try 1 compare "$tmp/bad.json"
try 1 compare "$tmp/does-not-exist.json"
says err does-not-exist.json

# A table that nobody got is no success.
if [ -e /dev/full ]; then
	what='compare >/dev/full'
	"$report" compare "$data/three-repeats.json" >/dev/full 2>"$tmp/err" &&
		problem 'success without output'
fi

# The man page knows each option and each figure.
for command in run compare attach; do
	try 0 $command --help
	for word in $(sed -n 's/^  \(--[a-z-]*\).*/\1/p' "$tmp/out"); do
		sed 's/\\-/-/g' "$man" | grep -qF -e "$word" || problem "$word is not in the man page"
	done
done
try 0 run --help
for word in $(sed -n '/^Figures/,$s/^  \([a-z_.]*\) .*/\1/p' "$tmp/out"); do
	sed 's/\\-/-/g' "$man" | grep -qF -e "$word" || problem "$word is not in the man page"
done

finish

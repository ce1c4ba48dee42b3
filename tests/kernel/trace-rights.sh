#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# What fph-trace needs of the machine it runs on: two capabilities, and a kernel that
# has and allows it; else it says what is missing. Arguments: fph-trace, scan-target,
# trace-refuse.
# shellcheck source-path=SCRIPTDIR source=../cli/cli.sh
. "$(dirname "$0")/../cli/cli.sh"
trace=$1 target=$2 refuse=$3
pid=
clean_up() {
	exec 9>&-
}

[ "$(id -u)" = 0 ] || skip 'it takes root to give other users capabilities'
setpriv --bounding-set=-all true 2>/dev/null || skip 'no setpriv, or no capabilities to be given'
[ -r /sys/kernel/btf/vmlinux ] || skip 'no BTF in this kernel'

# Who may not enter the folder of the build, either
chmod 755 "$tmp"
for program in "$trace" "$target"; do
	cp "$program" "$tmp/"
	ldd "$program" | sed -n 's/.*=> \(.*libfph[^ ]*\) .*/\1/p'
done | sort -u | while read -r library; do cp "$library" "$tmp/"; done
export LD_LIBRARY_PATH="$tmp"
nobody() {
	setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all"$1" \
		--ambient-caps=-all"$1" "$2" ${3+"$3"} ${4+"$4"} ${5+"$5"} ${6+"$6"} ${7+"$7"} ${8+"$8"} ${9+"$9"}
}
mkfifo "$tmp/in"
: >"$tmp/ready"
setpriv --reuid 65534 --regid 65534 --clear-groups "$tmp/scan-target" shapes <"$tmp/in" >"$tmp/ready" &
pid=$!
exec 9>"$tmp/in"
while ! grep -q ready "$tmp/ready"; do
	kill -0 $pid 2>/dev/null || skip 'other users cannot run programs here'
	sleep 0.05
done

# Two capabilities are all that it takes, for the process of the same user
run_strictly 0 nobody ,+bpf,+perfmon "$tmp/fph-trace" -p $pid --object tp -j 0.1 1
grep -q '"ranges":\[{' "$tmp/out" || problem 'nothing is traced'
! bpftool link show 2>/dev/null | grep -q "pids fph-trace" || problem 'something is left of it'
for caps in '' ,+bpf ,+perfmon; do
	run_strictly 3 nobody "$caps" "$tmp/fph-trace" -p $pid
	says err 'CAP_BPF and CAP_PERFMON'
done

# The RAM of a guest that goes on from a snapshot is a private mapping of its file;
# written pages are counted, and what is large is guest RAM. Its name is UTF-8
name=$(printf 's"n\303\266w\033[1m')
mv "$tmp/scan-target" "$tmp/$name"
exec 9>&-
wait $pid
: >"$tmp/ready"
(cd "$tmp" && exec "$tmp/$name" paged) <"$tmp/in" >"$tmp/ready" &
pid=$!
exec 9>"$tmp/in"
while ! grep -q 'ready\|no pager' "$tmp/ready"; do
	kill -0 $pid 2>/dev/null || skip 'scan-target does not start'
	sleep 0.05
done
run_strictly 0 "$tmp/fph-trace" -p $pid --object tp -j 0.1 1
grep -q "\"size\":$((96 << 20)),\"shared\":false" "$tmp/out" || problem 'the snapshot is not traced'
grep -q "\"comm\":\"s\\\\\"n$(printf '\303\266')w\\\\u001b\[1m\"" "$tmp/out" || problem 'another name'

# Who was stopped tells of that time once
began=$(date +%s%N)
"$tmp/fph-trace" -p $pid --object tp -j 0.1 12 >"$tmp/out" 2>"$tmp/err" &
tracing=$!
until grep -q interval_ms "$tmp/out" || ! kill -0 $tracing 2>/dev/null; do
	sleep 0.02
done
kill -STOP $tracing
sleep 1
kill -CONT $tracing
what='fph-trace that was stopped'
wait $tracing || problem 'it has failed'
sed -n 's/.*"interval_ms":\([0-9]*\).*/\1/p' "$tmp/out" |
	awk -v most=$((($(date +%s%N) - began) / 1000000)) '{ sum += $1; n++ }
		END { exit !(n == 12 && sum >= 1000 && sum <= most) }' ||
	problem "12 intervals are not the time that went by"

# Counts that cannot be read are not none, which would count twice what comes after
for looks in 0 2; do
	run 1 env LD_PRELOAD="$refuse" FPH_TEST_LOOKS=$looks \
		"$tmp/fph-trace" -p $pid --object tp -j 0.1 5
	says err 'Cannot allocate memory'
	[ "$(grep -c interval_ms "$tmp/out")" = $((looks ? looks - 1 : 0)) ] ||
		problem "something else was told with $looks looks"
done

# Somebody else's tracer, whose folders one may enter
for action in --status --unload; do
	# shellcheck disable=SC2016 # not of this shell
	run_strictly 3 unshare --mount sh -c 'mount -t bpf none /sys/fs/bpf &&
		"$1" --load --object tp >/dev/null || exit 4
		chmod a+x /sys/fs/bpf /sys/fs/bpf/fph /sys/fs/bpf/fph/maps
		setpriv --reuid 65534 --regid 65534 --clear-groups "$@"' sh "$tmp/fph-trace" $action
	says err /sys/fs/bpf/fph
done

# A kernel without types
for object in tp complete; do
	# shellcheck disable=SC2016 # not of this shell
	run_strictly 3 unshare --mount sh -c 'mount -t tmpfs none /sys/kernel/btf && exec "$@"' sh \
		"$tmp/fph-trace" -p $pid --object $object
	says err 'CONFIG_DEBUG_INFO_BTF'
done

# One that is too old, or does not allow it
for object in tp complete; do
	run_strictly 3 env LD_PRELOAD="$refuse" FPH_TEST_NO_HELPER=181 "$tmp/fph-trace" -p $pid --object $object
	says err 'Linux 5.17'
	run_strictly 3 env LD_PRELOAD="$refuse" FPH_TEST_NO_HELPER=113 "$tmp/fph-trace" -p $pid --object $object
	says err 'lockdown=confidentiality'
done
run_strictly 3 env LD_PRELOAD="$refuse" "$tmp/fph-trace" -p $pid --object complete
says err '--object tp'
run_strictly 1 env LD_PRELOAD="$refuse" "$tmp/fph-trace" -p $pid --object tp
says err 'Invalid argument'

finish

#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Which processes fph-scan and fph-trace take for virtual machines: recorded ones of
# each VMM and of what looks like one, and a real QEMU by several names. Arguments:
# fph-scan, data/machines, QEMU or nothing, fph-trace or nothing.
# shellcheck source-path=SCRIPTDIR source=cli.sh
. "$(dirname "$0")/cli.sh"
scan=$1 data=$2 qemu=${3:-${FPH_CACHE:-$HOME/.cache/fph}/bin/qemu-system-x86_64} trace=${4:-}
vm=
clean_up() {
	[ -z "$vm" ] || kill "$vm"
}
mib=1048576

# members NAME...: of the JSON on $tmp/out, with spaces between; it has to be JSON
members() {
	python3 - "$tmp/out" "$@" <<'END'
import json, sys
def member(value, name):
    for key in name.split("."):
        value = value[int(key)] if key.isdigit() else value[key]
    return json.dumps(value, ensure_ascii=False).strip('"')
with open(sys.argv[1], encoding="utf-8") as f:
    root = json.load(f)
print(*(member(root, name) for name in sys.argv[2:]))
END
}

# A tree of them, and what is to be found: $expected has "PID VMM RAM KVM NAME"
expected=()
pid=
while IFS= read -r line; do
	case $line in
	'#'*) ;;
	'process '*)
		read -r _ pid vmm rest <<<"$line"
		mkdir -p "$tmp/host/proc/$pid/fd"
		fds=0
		[ "$vmm" = none ] || expected+=("$pid $vmm $rest") ;;
	'comm '*) echo "${line#comm }" >"$tmp/host/proc/$pid/comm" ;;
	'cmdline '*) printf '%b' "${line#cmdline }" | tr '|' '\0' >"$tmp/host/proc/$pid/cmdline" ;;
	'fd '*) ln -s "${line#fd }" "$tmp/host/proc/$pid/fd/$((fds++))" ;;
	maps) : >"$tmp/maps" ;;
	'') [ ! -e "$tmp/maps" ] || sort "$tmp/maps" >"$tmp/host/proc/$pid/maps" ;;
	*) echo "$line" >>"$tmp/maps" ;;
	esac
done < <(cat "$data"; echo)

run_strictly 0 "$scan" --sysroot "$tmp/host" --json
[ "$(grep -c '"pid" :' "$tmp/out")" = ${#expected[@]} ] || problem "not ${#expected[@]} machines"
cp "$tmp/out" "$tmp/all"
i=0
for machine in "${expected[@]}"; do
	read -r pid vmm ram kvm name <<<"$machine"
	cp "$tmp/all" "$tmp/out"
	what="process $pid"
	utf8=$(printf '%b' "$name" | python3 -c 'import sys; sys.stdout.write(sys.stdin.buffer.read().decode("utf-8", "replace"))')
	is=$(members "machines.$i."{pid,vmm,ram,kvm,name})
	[ "$is" = "$pid $vmm $((ram * mib)) $kvm $utf8" ] || problem "it is '$is'"
	i=$((i + 1))
	[ -n "$name" ] || continue
	# The name is bytes
	run_strictly 0 "$scan" --sysroot "$tmp/host" --json --name "$(printf '%b' "$name")"
	[ "$(members pid total.size)" = "$pid $((ram * mib))" ] || problem 'another one'
done
run_strictly 0 "$scan" --sysroot "$tmp/host"
[ "$(awk 'length > 80' "$tmp/out")" = '' ] || problem 'wider than 80 columns'
# What evacuating the host would move: nothing is known to be absent
run_strictly 0 "$scan" --sysroot "$tmp/host" --all --json --bandwidth 8m
sum=0
for machine in "${expected[@]}"; do
	read -r _ _ ram _ <<<"$machine"
	sum=$((sum + ram))
done
read -r all pages bytes seconds <<<"$(members total.ram estimates.0.{pages,bytes,seconds})"
[ "$all" = $((sum * mib)) ] || problem "$all in all, not $sum MiB"
[ "$pages" = $((sum * mib / 4096)) ] || problem 'not all pages'
# A byte is a microsecond
[ "${seconds%.*}" = $((bytes / 1000000)) ] || problem 'not that long'
run_strictly 1 "$scan" --sysroot "$tmp/host" --name nobody
run_strictly 2 "$scan" --sysroot "$tmp/host" --name vm1 --all

# Two of a name
cp -r "$tmp/host/proc/1001" "$tmp/host/proc/1101"
run_strictly 1 "$scan" --sysroot "$tmp/host" --name vm1
grep -q '2 virtual machines named vm1' "$tmp/err" || problem 'no reason'

# QEMU itself, whatever it is called
if [ ! -x "$qemu" ]; then
	echo "SKIP: no QEMU at $qemu; qemu-integration/build-qemu makes it"
	exit $((bad ? 1 : 77))
fi
cp "$qemu" "$tmp/qemu"
# real PROGRAM NAME OPTION...: starts it as PROGRAM; it runs until it is ended
real() {
	local name=$2
	program=$1
	shift 2
	ln "$tmp/qemu" "$tmp/$program"
	mkfifo "$tmp/qmp.in" "$tmp/qmp.out"
	exec 7<>"$tmp/qmp.in" 8<>"$tmp/qmp.out"
	# It has a libfph of its own, built as it was
	env -u LD_LIBRARY_PATH "$tmp/$program" -L /usr/share/seabios -L /usr/share/qemu \
		-name "$name" -S -nodefaults -display none -chardev pipe,id=qmp,path="$tmp/qmp" \
		-mon qmp,mode=control "$@" 2>"$tmp/qemu.err" 7>&- 8>&- &
	vm=$!
	# Its greeting comes when it has its RAM, or never, if it has ended
	greeting=
	until read -r -t 1 greeting <&8 || ! kill -0 "$vm" 2>/dev/null; do
		:
	done
	[ -n "$greeting" ]
}
end_real() {
	kill "$vm" 2>/dev/null
	wait "$vm"
	vm=
	exec 7>&- 8>&-
	rm -f "$tmp/qmp.in" "$tmp/qmp.out" "$tmp/$program"
}
name="fph test $$ $(printf 'gr\366\337e')"
for accel in tcg kvm; do
	if [ $accel = kvm ] && [ ! -w /dev/kvm ]; then
		echo 'SKIP: there is no KVM to be used'
		continue
	fi
	programs='kvm .qemu-system-x86_64-wrapped emulator'
	[ $accel = tcg ] || programs=emulator
	for program in $programs; do
		what="$program -accel $accel"
		: >"$tmp/out"
		if ! real "$program" "$name,process=web01" -m 96 -accel $accel; then
			cp "$tmp/qemu.err" "$tmp/err"
			[ $accel = kvm ] || problem 'does not start'
			echo "SKIP: $what: $(cat "$tmp/err")"
			end_real
			continue
		fi
		run_strictly 0 "$scan" --json --name "$name"
		[ "$(members pid total.size)" = "$vm $((96 * mib))" ] || problem "not process $vm and its RAM"
		run_strictly 0 "$scan" --json --all
		grep -q "\"pid\" : $vm," "$tmp/out" || problem "process $vm is missing"
		if [ -n "$trace" ]; then
			# As far as it comes before there is a tracer
			run_strictly 1 "$trace" --name "$name" --min 1t
			grep -q "process $vm has no memory in pieces of" "$tmp/err" || problem 'not found'
		fi
		# Others see that it is there, and what they need to see more
		if [ "$(id -u)" = 0 ] && setpriv --reuid 65534 true 2>/dev/null &&
			! ldd "$scan" | grep -q libasan; then
			chmod 755 "$tmp"
			# shellcheck disable=SC2046 # one word
			cp "$scan" $(ldd "$scan" | sed -n 's/.*=> \(.*libfph[^ ]*\) .*/\1/p') "$tmp/"
			run_strictly 0 env LD_LIBRARY_PATH="$tmp" setpriv --reuid 65534 --regid 65534 --clear-groups \
				"$tmp/${scan##*/}" --json
			sed -n "/\"pid\" : $vm,/,/}/p" "$tmp/out" >"$tmp/row"
			grep -q '"ram" : null' "$tmp/row" || problem 'it is not there'
			grep -q CAP_SYS_PTRACE "$tmp/row" || problem 'no reason'
		fi
		end_real
	done
done
# One without a guest
what='a QEMU without a guest'
real qemu-system-x86_64 "$name" -machine none || problem 'does not start'
run_strictly 1 "$scan" --name "$name"
end_real

finish

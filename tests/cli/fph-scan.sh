#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# fph-scan as its users meet it. Arguments: the program, the program to look at,
# the folder with recorded processes, the man page.
# shellcheck source-path=SCRIPTDIR source=cli.sh
. "$(dirname "$0")/cli.sh"
scan=$1 target=$2 data=$3 man=$4
targets=
clean_up() {
	# shellcheck disable=SC2086 # one word each
	[ -z "$targets" ] || kill $targets 2>/dev/null
}
mib=1048576
# MiB of "shapes" that are read and got memory by that: where there is no zero page
taken=$(($("$target" reads-take) * 2))

# try STATUS ARGUMENT...
try() {
	status=$1
	shift
	run_strictly "$status" "$scan" "$@"
}

narrow() {
	[ "$(awk 'length > 80' "$tmp/out")" = '' ] || problem 'wider than 80 columns'
}

# start WHAT: a process whose memory is known; its number is in $pid
start() {
	mkfifo "$tmp/in.$1"
	: >"$tmp/ready"
	"$target" "$1" <"$tmp/in.$1" >"$tmp/ready" &
	pid=$!
	targets="$targets $pid"
	# The end of what it reads is its end
	case $1 in
	shapes) exec 8>"$tmp/in.$1" ;;
	*) exec 9>"$tmp/in.$1" ;;
	esac
	tries=0
	while ! grep -q ready "$tmp/ready" && [ $tries -lt 100 ]; do
		tries=$((tries + 1))
		sleep 0.1
	done
	rm -f "$tmp/in.$1"
}

# figure MIB KEY: that of the region of this size, in JSON that is on $tmp/out
figure() {
	awk -v size="\"size\" : $(($1 * mib))," -v key="\"$2\" :" '
		/"region" :/ { seen = 0 }
		/"total" :/ { exit }
		index($0, size) { seen = 1 }
		seen && index($0, key) { sub(/.* : /, ""); sub(/,$/, ""); print; exit }
	' "$tmp/out"
}

# is MIB KEY VALUE
is() {
	is=$(figure "$1" "$2")
	[ "$is" = "$3" ] || problem "region of $1 MiB: $2 is '$is', not '$3'"
}

# Help and usage.
for version in -V --version; do
	try 0 $version
	says out 'fph-scan '
done
try 0 --help
narrow
says out 'Usage:' 'Exit status' --pid --content
[ ! -s "$tmp/err" ] || problem 'something on stderr'
try 2 --no-such-option
says err no-such-option "Try 'fph-scan --help'."
try 2 stray
says err stray
for arguments in '--pid 0' '--pid -1' '--pid x' '--pid 99999999999999' '--pid 1 stray' \
	'--pid 1 --scanner fast' '--pid 1 --bandwidth 0' '--pid 1 --bandwidth -1' \
	'--pid 1 --bandwidth 10x' '--pid 1 --bandwidth 10gg' '--pid 1 --cpu 101' \
	'--pid 1 --cpu -1' '--pid 1 --watch -2' '--pid 1 --watch 100000' '--pid 1 --record' \
	'--pid 1 --record x --watch 1' '--pid 1 --anonymize' '--pid 1 --sysroot x --content' \
	'--pid 1 --name x' '--pid 1 --all' '--region all' '--record x' \
	'--pid 1 --sysroot x --watch 1' '--pid 1 --scanner off --content' \
	'--pid 1 --region 0x' '--pid 1 --region 0x5-0x1' '--pid 1 --region 0x1000-0x1000' \
	'--pid 1 --region 0x1001-0x2000' '--pid 1 --region 0x1000-0x2001' \
	'--pid 1 --region 0x1000-2000' '--pid 1 --region 0xz' '--pid 1 --region 0x1000-0x2000x' \
	'--pid 1 --region 0xfffffffffffffffff' '--pid 1 --region 0x1000-0xfffffffffffffffff'; do
	# shellcheck disable=SC2086 # they are several
	try 2 $arguments
done
try 2 --pid 1 --region ''

# Recorded processes: from several kernels and kinds of memory.
for tree in "$data"/*/; do
	name=$(basename "$tree")
	pid=$(basename "$tree"proc/*)
	try 0 --sysroot "$tree" --pid "$pid"
	narrow
	cmp -s "$tmp/out" "$data/$name.txt" || {
		problem "differs from $name.txt"
		diff "$data/$name.txt" "$tmp/out"
	}
	try 0 --sysroot "$tree" --pid "$pid" --json
	sed -i '/"version" :/d' "$tmp/out"
	cmp -s "$tmp/out" "$data/$name.json" || {
		problem "differs from $name.json"
		diff "$data/$name.json" "$tmp/out"
	}
done
try 1 --sysroot "$tmp" --pid 1
says err "$tmp/proc/1"

# What was not recorded, and records that are damaged.
cp -r "$data/qemu-7.2" "$tmp/tree"
pages=$tmp/tree/proc/4711/fph-pages
try 1 --sysroot "$tmp/tree" --pid 4711 --region all
says err 'was not recorded'
# edit FILE SCRIPT TEXT: it must be found out, and named
edit() {
	cp "$tmp/tree/proc/4711/$1" "$tmp/saved"
	sed "$2" "$tmp/saved" >"$tmp/tree/proc/4711/$1"
	try 1 --sysroot "$tmp/tree" --pid 4711
	says err "$tmp/tree/proc/4711/$1" "$3"
	cp "$tmp/saved" "$tmp/tree/proc/4711/$1"
}
edit fph-pages 's/^fph-pages 1/fph-pages 9/' 'fph-pages 1'
edit fph-pages 's/present/absent/' absent
edit fph-pages '5s/-/+/' +
edit fph-pages '/^scanner/d' region
edit fph-pages 's/^page-size 4096/page-size 4095/' 4095
edit fph-pages 's/unmapped/unloved/' unloved
edit fph-pages '/^found/p' found
edit maps '1s/-/+/' 'no list of mappings'
edit maps '1s/r-xp/r-x/' 'no list of mappings'
edit maps '1h;1d;$G' 'no list of mappings'
rm "$pages" "$tmp/tree/proc/4711/maps"
try 1 --sysroot "$tmp/tree" --pid 4711
says err smaps
# The command line decides: 16 MiB are too small to be found without it.
cp "$data/qemu-7.2/proc/4711/maps" "$tmp/tree/proc/4711/smaps"
for memory in 16 16M size=16M,slots=2 0.015625g; do
	sed "s/-m\x00256/-m\x00$memory/" "$data/qemu-7.2/proc/4711/cmdline" \
		>"$tmp/tree/proc/4711/cmdline"
	try 0 --sysroot "$tmp/tree" --pid 4711 --json
	is 16 present null
	[ "$(grep -c '"region" :' "$tmp/out")" = 1 ] || problem 'another region was chosen as well'
done

# size is one of many members and options, and others have it in their names
size_of_backend() {
	printf 'qemu\0-object\0%s\0' "$1" >"$tmp/tree/proc/4711/cmdline"
	try 0 --sysroot "$tmp/tree" --pid 4711 --json
	is 16 present null
	[ "$(grep -c '"region" :' "$tmp/out")" = 1 ] || problem 'another region was chosen as well'
}
size_of_backend '{"qom-type":"memory-backend-memfd","id":"ram","hugetlbsize":2097152,"size":16777216}'
size_of_backend '{"qom-type":"memory-backend-memfd","size":"16M","id":"resize"}'
size_of_backend 'memory-backend-memfd,hugetlbsize=2M,id=size,size=16M'
# What is no JSON has none, and then what is large is RAM
printf 'qemu\0-object\0%s\0' '{"qom-type":"memory-backend-ram","size":16777216' >"$tmp/tree/proc/4711/cmdline"
try 0 --sysroot "$tmp/tree" --pid 4711 --json
is 256 present null
# Nor does one have that is as deep as an argument can be long
{ printf 'qemu\0-object\0{"memory-backend-ram":' && head -c 130000 /dev/zero | tr '\0' '['; } \
	>"$tmp/tree/proc/4711/cmdline"
try 0 --sysroot "$tmp/tree" --pid 4711 --json
is 256 present null

# About as many mappings in a row as a process can have, none as large as RAM is said to be
printf 'qemu\0-m\0008G\0' >"$tmp/tree/proc/4711/cmdline"
awk 'BEGIN { for (i = 0; i < 65280; i++)
	printf "7f%05x000-7f%05x000 rw-p 00000000 00:00 0\n", i, i + 1 }' >"$tmp/tree/proc/4711/smaps"
try 0 --sysroot "$tmp/tree" --pid 4711 --json
is 255 present null
cp "$data/qemu-7.2/proc/4711/maps" "$tmp/tree/proc/4711/smaps"

# Beside guest RAM may be something that looks like a part of it: a thread's stack.
sed 's/^\(7fc9bbe00000\)-7fc9cbe00000 \(.*\)/7fc9bba00000-7fc9bbe00000 \2\n\1-7fc9cbe00000 \2\n7fc9cbe00000-7fc9cbf00000 \2/' \
	"$data/qemu-7.2/proc/4711/maps" >"$tmp/tree/proc/4711/smaps"
[ "$(grep -c 7fc9cbe00000 "$tmp/tree/proc/4711/smaps")" = 2 ] || problem 'nothing was put beside it'
cp "$data/qemu-7.2/proc/4711/cmdline" "$tmp/tree/proc/4711/cmdline"
try 0 --sysroot "$tmp/tree" --pid 4711 --json
is 256 backing '"anon"'
[ "$(grep -c '"region" :' "$tmp/out")" = 1 ] || problem 'something else was chosen as well'

# What was recorded without its fd folder counts, whatever it is.
for vm in '/usr/bin/kvm|-id|1|-name|vm1,process=web01|-m|16' \
	'/nix/store/qemu-kvm|-name|guest=vm2,debug-threads=on' '/usr/bin/vmm|--id|x'; do
	mkdir -p "$tmp/vms/proc/${#vm}"
	cp "$data/qemu-7.2/proc/4711/comm" "$data/qemu-7.2/proc/4711/maps" "$tmp/vms/proc/${#vm}"
	printf %s "$vm|" | tr '|' '\0' >"$tmp/vms/proc/${#vm}/cmdline"
done
try 0 --sysroot "$tmp/vms" --json
says out '"name" : "vm1"' '"name" : "vm2"' '"name" : ""' '"program" : "/usr/bin/vmm"' \
	"\"ram\" : $((16 * mib))," "\"ram\" : $((256 * mib)),"
try 0 --sysroot "$tmp/vms"
narrow
says out '3 virtual machines' 'vm1' 'vm2' '--pid PID'
mkdir -p "$tmp/none/proc"
try 1 --sysroot "$tmp/none"
# Figures of pages, of one and of all: what QEMU has and what it would not send
rm "$tmp/vms/proc/"*/maps
for tree in qemu-7.2/proc/4711 qemu-memfd/proc/4712; do
	cp -r "$data/$tree" "$tmp/vms/proc/"
done
try 0 --sysroot "$tmp/vms" --all
narrow
while read -r figures; do
	tr -s ' ' <"$tmp/out" | grep -qxF " $figures" ||
		tr -s ' ' <"$tmp/out" | grep -qxF "$figures" || problem "no '$figures'"
done <<'END'
19 unknown - - - - -
4711 qemu 256.0 6.0 250.0 255.7 -
4712 qemu 256.0 4.3 251.7 255.7 -
all 512.0 10.3 501.7 511.4
none 1.7 150 130922 0.001 100.0% 0.6
pagemap 0.6 150 2484 0.001 35.6% 0.6
prescan 0.6 150 0 0.000 34.3% 0.6
END
says out 'smaps: No such file' 'The sum is without'

# What others recorded must not write to the terminal but text.
printf 'a\033[31m\200\233b\nc\037\n' >"$tmp/tree/proc/4711/comm"
try 0 --sysroot "$tmp/tree" --pid 4711
says out 'process 4711 (a?[31m'
grep -q '^c' "$tmp/out" && problem 'a name ended the line'
LC_ALL=C grep -q "$(printf '[\001-\010\013-\037\177]')" "$tmp/out" && problem 'control characters'
try 0 --sysroot "$tmp/tree" --pid 4711 --json
LC_ALL=C grep -q "$(printf '[\001-\010\013-\037\177]')" "$tmp/out" && problem 'control characters'
# Nor those of two bytes: U+009B begins what U+001B [ does
printf 'a\302\23331m' >"$tmp/tree/proc/4711/comm"
try 0 --sysroot "$tmp/tree" --pid 4711 --json
says out '"a\u009b31m"'
printf 'a\033[31m\200\233b\nc\037\n' >"$tmp/tree/proc/4711/comm"
try 1 --sysroot "$tmp/tree" --pid 4711 --region nowhere
says err '(a?[31m'
[ "$(wc -l <"$tmp/err")" = 1 ] || problem 'a name ended the line'

# No such process, and no right to look at it.
try 1 --pid 2147483647
says err 'there is no process 2147483647'
try 1 --pid 2147483647 --json
try 1 --pid $$
says err 'looks like guest RAM' '--region all'
try 1 --pid $$ --region no-such-name
says err no-such-name
try 1 --pid $$ --region 0x1000
says err 0x1000

start shapes
if [ "$(id -u)" = 0 ]; then
	what='fph-scan as another user'
	# Who may not enter the folder of the build, either
	chmod 755 "$tmp"
	mkdir "$tmp/others"
	cp "$scan" $(ldd "$scan" | sed -n 's/.*=> \(.*libfph[^ ]*\) .*/\1/p') "$tmp/others/"
	LD_LIBRARY_PATH=$tmp/others setpriv --reuid 65534 --regid 65534 --clear-groups \
		"$tmp/others/${scan##*/}" --pid "$pid" >"$tmp/out" 2>"$tmp/err"
	got=$?
	[ ! -s "$tmp/out" ] || problem 'something on stdout'
	! grep -q '^fph-scan:' "$tmp/err" || [ $got -eq 3 ] || problem "exit status $got, not 3"
	# A sanitizer fails before
	grep -q 'ermission denied' "$tmp/err" || problem 'no reason'
	! grep -q '^fph-scan:' "$tmp/err" || says err CAP_SYS_PTRACE
fi
shapes=$pid

# Real memory, through each scanner.
scanners='pagemap off'
if "$scan" --pid "$shapes" --scanner pagemap-scan >/dev/null 2>"$tmp/err"; then
	scanners='pagemap-scan pagemap off auto'
else
	echo "SKIP: $(cat "$tmp/err")"
fi
for scanner in $scanners; do
	try 0 --pid "$shapes" --scanner "$scanner"
	narrow
	content=--content
	[ "$scanner" != off ] || content=
	# shellcheck disable=SC2086 # none or one
	try 0 --pid "$shapes" --scanner "$scanner" $content --json
	is 64 backing '"anon"'
	is 80 backing '"shmem"'
	is 96 backing '"shmem-private"'
	is 64 swapped 0
	case $scanner in
	off)
		is 64 method '"smaps"'
		is 64 present $(((12 + taken) * mib))
		is 64 unmapped $(((52 - taken) * mib))
		is 64 zero null
		is 80 method '"none"'
		is 80 unmapped null
		continue ;;
	pagemap) ioctl=pagemap ;;
	*) ioctl=pagemap-scan ;;
	esac
	is 64 method "\"$ioctl\""
	is 80 method '"seek"'
	is 64 unmapped $((50 * mib))
	is 64 zero $(((4 + taken) * mib))
	is 80 present $((4 * mib))
	is 80 unmapped $((76 * mib))
	is 80 zero $mib
	is 96 present $((2 * mib))
	is 96 zero 0
	# A file without a descriptor is opened by root alone
	if [ "$(id -u)" = 0 ]; then
		is 96 method "\"$ioctl+seek\""
		is 96 unmapped $((93 * mib))
	fi
	# PFNs are shown to root alone
	if [ "$ioctl" = pagemap-scan ] || [ "$(id -u)" = 0 ]; then
		is 64 present $(((12 + taken) * mib))
		is 64 zero_mapped $(((2 - taken) * mib))
	fi
done

# Without capabilities less can be told, and it says so.
if [ "$(id -u)" = 0 ] && setpriv --bounding-set=-all true 2>/dev/null; then
	what='fph-scan without capabilities'
	setpriv --bounding-set=-all "$scan" --pid "$shapes" >"$tmp/out" 2>"$tmp/err" &&
		problem 'it looked at a process that has more than itself'
	[ ! -s "$tmp/out" ] || problem 'something on stdout'
	says err "/proc/$shapes/smaps" CAP_SYS_PTRACE
	mkfifo "$tmp/in.bare"
	: >"$tmp/bare"
	setpriv --bounding-set=-all "$target" shapes <"$tmp/in.bare" >"$tmp/bare" 8>&- &
	bare=$!
	targets="$targets $bare"
	exec 9>"$tmp/in.bare"
	tries=0
	while ! grep -q ready "$tmp/bare" && [ $tries -lt 100 ]; do
		tries=$((tries + 1))
		sleep 0.1
	done
	setpriv --bounding-set=-all "$scan" --pid $bare --scanner pagemap --content --json \
		>"$tmp/out" 2>"$tmp/err" || problem 'no success'
	is 96 method '"none"'
	is 96 unmapped null
	is 96 present $((2 * mib))
	says out CAP_CHECKPOINT_RESTORE
	is 80 method '"seek"'
	is 80 unmapped $((76 * mib))
	# The zero page is a page like others, and holds zeroes
	is 64 present $((14 * mib))
	is 64 zero $((6 * mib))
	is 64 unmapped $((50 * mib))
	exec 9>&-
	wait $bare
fi

# Without a number it finds those that run; what only starts others is none, nor is
# what has the options of a QEMU without its memory. Where nothing else runs, that
# can be tested.
if [ "$(id -u)" = 0 ] && unshare --pid --fork --mount-proc true 2>/dev/null; then
	cp "$target" "$tmp/guest"
	cp "$target" "$tmp/qemu-kvm"
	for vm in "$tmp/guest -machine pc -accel tcg" "$tmp/qemu-kvm" "$tmp/guest -x" \
		"$tmp/guest -machine pc -m 65" "$tmp/guest -machine pc -m 64"; do
		what="fph-scan beside $vm"
		mkfifo "$tmp/in.vm"
		: >"$tmp/vm"
		: >"$tmp/other"
		# shellcheck disable=SC2016 # not of this shell
		vm=$vm starter=$target tmp=$tmp scan=$scan unshare --pid --fork --mount-proc sh -c '
			$vm shapes <"$tmp/in.vm" >"$tmp/vm" &
			"$starter" a -machine pc -accel tcg large <"$tmp/in.vm" >"$tmp/other" &
			exec 7>"$tmp/in.vm"
			tries=0
			while ! { grep -q ready "$tmp/vm" && grep -q ready "$tmp/other"; } &&
				[ $tries -lt 100 ]; do
				tries=$((tries + 1))
				sleep 0.1
			done
			"$scan" --json
			status=$?
			exec 7>&-
			exit $status' >"$tmp/out" 2>"$tmp/err" 8>&-
		got=$?
		rm "$tmp/in.vm"
		case $vm in
		*-x | *65)
			[ $got -eq 1 ] || problem "exit status $got, not 1"
			says err 'no virtual machine runs here' ;;
		*)
			[ $got -eq 0 ] || problem "exit status $got, not 0"
			[ "$(grep -c '"pid" :' "$tmp/out")" = 1 ] || problem 'not one'
			# All of its memory, or what is as large as was asked for
			pagemap=$((50 + 2 - taken + 76 + 93))
			[ "$vm" = "${vm%64}" ] || pagemap=$((50 + 2 - taken))
			says out "\"pagemap\" : $((pagemap * mib))," ;;
		esac
	done
fi

# Looking at it changes nothing, even if it is read.
before=$(sed -n 's/^VmRSS:[^0-9]*//p' "/proc/$shapes/status")
try 0 --pid "$shapes" --content
after=$(sed -n 's/^VmRSS:[^0-9]*//p' "/proc/$shapes/status")
[ "$before" = "$after" ] || problem "resident memory was $before, is $after"

# Parts of it.
read -r _ from to <"$tmp/ready"
try 0 --pid "$shapes" --region "$from" --json
is 64 unmapped $((50 * mib))
[ "$(grep -c '"region" :' "$tmp/out")" = 1 ] || problem 'more than one region'
try 0 --pid "$shapes" --region "$from-$(printf '%#x' $((from + 16 * mib)))" --json
is 16 present $((12 * mib))
# The kernel's sums are of whole mappings
try 0 --pid "$shapes" --scanner off --region "$from-$(printf '%#x' $((from + 16 * mib)))" --json
says out '"unmapped" : null'
try 0 --pid "$shapes" --region "$(printf '%#x' $((to - 8 * mib)))-$to" --region memfd: --json
is 8 unmapped $((8 * mib))
is 80 unmapped $((76 * mib))
try 0 --pid "$shapes" --region 0x0-0xfffffffffffff000 --json
is 64 unmapped $((50 * mib))
try 0 --pid "$shapes" --region memfd: --json --bandwidth 1m
says out '"bandwidth" : 1000000,'
# A name is bytes, whatever the locale takes them for
what='fph-scan --region größe'
LC_ALL=C "$scan" --pid "$shapes" --region 'größe' >"$tmp/out" 2>"$tmp/err" &&
	problem 'there is such a region'
says err "no memory 'größe'"
try 0 --pid "$shapes" --region all --region all --json
[ "$(grep -c "\"size\" : $((64 * mib))," "$tmp/out")" = 1 ] || problem 'a region twice'

# What is recorded shows as what was seen.
try 0 --pid "$shapes" --content --json --record "$tmp/rec"
grep -v scan_ns "$tmp/out" >"$tmp/live"
try 0 --sysroot "$tmp/rec" --pid "$shapes" --json
grep -v scan_ns "$tmp/out" >"$tmp/replayed"
cmp -s "$tmp/live" "$tmp/replayed" || { problem 'differs'; diff "$tmp/live" "$tmp/replayed"; }
try 1 --pid "$shapes" --record "$tmp/rec"
says err 'is there already'
try 1 --pid "$shapes" --record "$tmp/live/rec"
says err "$tmp/live"
[ "$(stat -c %a "$tmp/rec" "$tmp/rec/proc" "$tmp/rec/proc/$shapes" | sort -u)" = 700 ] ||
	problem 'others may look into it'
# So is what others may see of it, but for where it was and what it was called
for regions in '' "--region $from-$(printf '%#x' $((from + 16 * mib)))" \
	"--region $from-$(printf '%#x' $((from + mib))) --region $(printf '%#x-%#x' $((from + 2 * mib)) $((from + 16 * mib)))"; do
	rm -rf "$tmp/rec"
	# shellcheck disable=SC2086 # none, one or two of them
	try 0 --pid "$shapes" --content --json --record "$tmp/rec" --anonymize $regions
	hide='/scan_ns\|"start"\|"end"\|"name"\|"comm"\|"command"/d'
	sed "$hide" "$tmp/out" >"$tmp/live"
	try 0 --sysroot "$tmp/rec" --pid "$shapes" --json
	sed "$hide" "$tmp/out" >"$tmp/replayed"
	cmp -s "$tmp/live" "$tmp/replayed" || { problem 'differs'; diff "$tmp/live" "$tmp/replayed"; }
	what='record --anonymize'
	sed 's/[- ].*//; s/^0*//' "/proc/$shapes/maps" | sed 's/......$//' | sort -u >"$tmp/addresses"
	! grep -rqF -f "$tmp/addresses" "$tmp/rec" || problem "an address: $(grep -rF -f "$tmp/addresses" "$tmp/rec" | head -n 1)"
	! grep -rq 'scan-target\|memfd:[^r]\|heap\|stack\|lib' "$tmp/rec" || problem 'a name'
	[ "$(cat "$tmp/rec/proc/$shapes/comm")" = vm ] || problem 'another comm'
	tr '\0' ' ' <"$tmp/rec/proc/$shapes/cmdline" >"$tmp/out"
	grep -q '^unknown \(-m [0-9]*b \)*$' "$tmp/out" || problem 'another command line'
done

# Output that nobody got is no success.
if [ -e /dev/full ]; then
	what='fph-scan >/dev/full'
	"$scan" --pid "$shapes" >/dev/full 2>"$tmp/err" && problem 'success without output'
fi

# Watched to its end: complete objects, one on each line.
what='fph-scan --watch'
"$scan" --pid "$shapes" --watch 0 --json >"$tmp/out" 2>"$tmp/err" 8>&- &
watch=$!
targets="$targets $watch"
tries=0
while [ "$(wc -l <"$tmp/out")" -lt 2 ] && [ $tries -lt 100 ]; do
	tries=$((tries + 1))
	sleep 0.1
done
exec 8>&-
wait $watch || problem 'no success'
[ "$(wc -l <"$tmp/out")" -ge 2 ] || problem 'no more than one look'
[ "$(grep -c '^{.*}$' "$tmp/out")" = "$(wc -l <"$tmp/out")" ] || problem 'an incomplete line'
says err "$shapes"

# late SIGNAL SCANNER: it comes while a scan is under way that pauses most of the time
late() {
	"$scan" --pid "$pid" --scanner "$2" --cpu 1 --json >"$tmp/out" 2>"$tmp/err" 9>&- &
	slow=$!
	targets="$targets $slow"
	# It has the page tables open when it has found what to look at
	tries=0
	while ! readlink "/proc/$slow/fd/"* 2>/dev/null | grep -q "^/proc/$pid/pagemap$" &&
		[ $tries -lt 100 ]; do
		tries=$((tries + 1))
		sleep 0.1
	done
	kill -0 $slow 2>/dev/null || problem 'it was over too soon'
	kill "-$1" "$pid"
	wait $slow
}
# What a pager still owes is not absent, whatever looks at it. Nor is what the
# snapshot of a guest has, if it is mapped privately.
start paged
if grep -q 'no pager' "$tmp/ready"; then
	echo "SKIP: $(cat "$tmp/ready")"
else
	for scanner in $scanners; do
		try 0 --pid "$pid" --scanner "$scanner"
		narrow
		[ "$(grep -c ': a pager' "$tmp/out")" = 2 ] || problem 'not two regions of a pager'
		try 0 --pid "$pid" --scanner "$scanner" --json
		for size in 64 80; do
			is $size method '"none"'
			is $size unmapped null
			is $size zero_mapped null
		done
		says out userfaultfd
		is 64 present $((32 * mib))
		# Write protection is no pager
		[ "$scanner" = off ] || is 72 unmapped $((71 * mib))
	done
	# Nothing waits for a pager that provides nothing
	try 0 --pid "$pid" --json --content
	is 64 zero 0
	is 64 present $((32 * mib))
fi
try 0 --pid "$pid" --json
is 96 backing '"file"'
is 96 method '"none"'
says out "content"
exec 9>&-
wait "$pid"

start larger
try 0 --pid "$pid" --json
is 32768 unmapped $((32768 * mib))
[ ! -s "$tmp/err" ] || problem 'something on stderr'
# What takes long is told, on a terminal
if command -v script >/dev/null; then
	what='fph-scan on a terminal'
	TERM=xterm script -qec "'$scan' --pid $pid --scanner pagemap --cpu 1" "$tmp/tty" \
		</dev/null >/dev/null 9>&- || problem 'no success'
	grep -q '% of 32.0 GiB' "$tmp/tty" || problem 'no progress'
else
	echo 'SKIP: progress: there is no script(1)'
fi
what='fph-scan, memory unmapped meanwhile'
late USR1 pagemap || problem 'no success'
is 32768 changed true
exec 9>&-
wait "$pid"

# ended WHAT SCANNER: a process that ends while it is scanned
ended() {
	what="fph-scan --scanner $2, process ended meanwhile"
	start "$1"
	late KILL "$2" && problem 'success'
	[ ! -s "$tmp/out" ] || problem 'something on stdout'
	says err "process $pid ended while it was scanned"
	exec 9>&-
}
ended larger pagemap
# Page tables that are gone hold nothing, says the ioctl
case $scanners in
pagemap-scan*) ended vast pagemap-scan ;;
esac

# The man page has each option and each column.
try 0 --help
for word in $(sed -n 's/^  \(-[a-z], \)*\(--[a-z]*\).*/\2/p; s/^  \([a-z_]*\) .*/\1/p' "$tmp/out"); do
	sed 's/\\-/-/g' "$man" | grep -qF -e "$word" || problem "$word is not in the man page"
done
grep -q '^\.SH OVERHEAD' "$man" || problem 'no OVERHEAD in the man page'

finish

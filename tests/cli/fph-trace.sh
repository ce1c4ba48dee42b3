#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# fph-trace as its users meet it, where nothing is loaded. Arguments: the
# program, the man page, a program with memory.
# shellcheck source-path=SCRIPTDIR source=cli.sh
. "$(dirname "$0")/cli.sh"
trace=$1 man=$2 target=$3

# try STATUS ARGUMENT...
try() {
	status=$1
	shift
	run "$status" "$trace" "$@"
}

for version in -V --version; do
	try 0 $version
	says out 'fph-trace '
done
try 0 --help
says out 'Usage: fph-trace'
says out 'Examples:'
[ ! -s "$tmp/err" ] || problem 'something on stderr'
[ "$(awk 'length > 80' "$tmp/out")" = '' ] || problem 'wider than 80 columns'

# The man page has each option and each column, and no others
sed -n 's/^ *\(-., \)\{0,1\}\(--[a-z]*\).*/\2/p' "$tmp/out" | sort >"$tmp/help"
sed 's/\\-/-/g' "$man" | sed -n '/^\.SH OPTIONS/,/^\.SH OUTPUT/p' |
	sed -n '/^\.BR* /s/.*\(--[a-z]*\).*/\1/p' | sort -u >"$tmp/man"
what='options in the man page'
cmp -s "$tmp/help" "$tmp/man" || problem "$(diff "$tmp/help" "$tmp/man")"
sed -n '/^Columns/,/^$/s/^  \([A-Z]*\) *\([a-z]*\) .*/\1 \2/p' "$tmp/out" >"$tmp/help"
sed -n 's/^\.BR \([A-Z]*\) " (\([a-z]*\))"$/\1 \2/p' "$man" >"$tmp/man"
what='columns in the man page'
[ -s "$tmp/help" ] || problem 'no columns in --help'
cmp -s "$tmp/help" "$tmp/man" || problem "$(diff "$tmp/help" "$tmp/man")"

for wrong in --no-such-option '-p 0' '-p 1x' '-p -1' '-d 0' '-d x' '-m 0' '-m 1q' \
	'-g 3k' '-g 2k' '-g 2g' '--capacity 1m' '--object x' '--pin relative' '0' '1 0' \
	'1 1 1' '99999999999999999999'; do
	# shellcheck disable=SC2086 # words
	try 2 $wrong
	says err "Try 'fph-trace --help'."
	[ ! -s "$tmp/out" ] || problem 'something on stdout'
done

try 0 --status --pin "$tmp/none"
says out "no tracer is loaded at $tmp/none"
try 1 --unload --pin "$tmp/none"
says err "no tracer is loaded at $tmp/none"
try 3 --load --pin "$tmp/none"
says err 'is not in a bpffs'
[ ! -e "$tmp/none" ] || problem 'it made a folder'
try 1 -p 2147483647
says err 'there is no process 2147483647'
try 1 -n "no QEMU has this name $$"
says err 'no virtual machine named'
# A shell has no piece of memory of that size
try 1 -p $$ -m 1t
says err "process $$ has no memory in pieces of"

try 1 -p $$
says err 'looks like guest RAM'

# The QEMU of that name, however -name says it: NAME ARGUMENT...
cp "$target" "$tmp/kvm"
named() {
	name=$1
	shift
	mkfifo "$tmp/end"
	: >"$tmp/there"
	"$tmp/kvm" -m 8G "$@" large <"$tmp/end" >"$tmp/there" &
	fake=$!
	exec 9>"$tmp/end"
	while ! grep -q ready "$tmp/there"; do sleep 0.05; done
	try 1 -n "$name" -m 1t
	exec 9>&-
	wait $fake
	rm "$tmp/end"
}
for arg in web1 guest=web1 debug-threads=on,guest=web1 guest=web1,debug-threads=on \
	web1,process=x process=guest=x,guest=web1; do
	named web1 -name "$arg" -S
	says err "process $fake has no memory in pieces of"
done
named web1 --name db,debug-threads=on -name guest=web1
says err "process $fake has no memory in pieces of"
named a,b -name debug-threads=on,guest=a,,b
says err "process $fake has no memory in pieces of"
for arg in web12 guest=web process=web1 debug-threads=on,web1 db,,guest=web1; do
	named web1 -name "$arg"
	says err 'no virtual machine named web1'
done
named web1 -name guest=web1 -name guest=db
says err 'no virtual machine named web1'

# Without rights it does not say what it cannot know
if [ "$(id -u)" = 0 ] && setpriv --bounding-set=-all true 2>/dev/null; then
	real=$trace
	mkdir "$tmp/closed" && chmod 0 "$tmp/closed"
	printf '#!/bin/sh\nexec setpriv --bounding-set=-all "%s" "$@"\n' "$real" >"$tmp/bare"
	chmod +x "$tmp/bare"
	trace=$tmp/bare
	for action in --status --unload; do
		try 3 $action --pin "$tmp/closed/fph"
		says err 'Permission denied'
		[ ! -s "$tmp/out" ] || problem 'something on stdout'
	done
	try 3 -p $$
	says err 'Permission denied'
	trace=$real
fi

# Nor do names of others steer the terminal, by one byte or by two; they are UTF-8
mkfifo "$tmp/in"
sh -c 'printf "\303\266\033[31m\302\233m\377" >/proc/$$/comm && echo there && read -r end' <"$tmp/in" >"$tmp/there" &
named=$!
exec 9>"$tmp/in"
until grep -q there "$tmp/there" || ! kill -0 $named 2>/dev/null; do
	sleep 0.02
done
try 1 -p $named
says err "$(printf '\303\266?[31m?m\357\277\275')"
exec 9>&-

what='a full disk'
if [ -w /dev/full ]; then
	"$trace" --help >/dev/full 2>"$tmp/err"
	got=$?
	[ $got -eq 1 ] || problem "exit status $got, not 1"
	says err 'cannot write'
fi
finish

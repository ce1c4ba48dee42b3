# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
#
# bash completion for fph-report, fph-scan and fph-trace. Options are those that the
# programs say they have.

# Options of a program or command, from its --help
_fph_options() {
	"$@" --help 2>/dev/null |
		sed -n 's/^ *\(-[A-Za-z], *\)\{0,1\}\(--[a-z][a-z-]*\).*/\2/p'
}

# Virtual machines that run here: the member of fph-scan's list
_fph_machines() {
	fph-scan --scanner off --json 2>/dev/null |
		sed -n "s/^ *\"$1\" : \"\{0,1\}\([^\",]*\)\"\{0,1\},\{0,1\}$/\1/p"
}

_fph() {
	local program=$1 word=$2 before=$3 words option
	local -a command=("$program")

	COMPREPLY=()
	# --option=value is three words for bash
	[ "$before" = = ] && before=${COMP_WORDS[COMP_CWORD - 2]}
	if [ "$word" = = ]; then
		before=${COMP_WORDS[COMP_CWORD - 1]} word=
	fi
	if [ "${program##*/}" = fph-report ]; then
		if [ "$COMP_CWORD" -eq 1 ] && [ "${word#-}" = "$word" ]; then
			mapfile -t COMPREPLY < <(compgen -W 'attach compare run' -- "$word")
			return
		fi
		[ "$COMP_CWORD" -gt 1 ] && command+=("${COMP_WORDS[1]}")
	fi
	case $before in
	--pid | -p) words=$(_fph_machines pid) ;;
	--name | -n) words=$(_fph_machines name) ;;
	--scanner) words=$'auto\npagemap-scan\npagemap\noff' ;;
	--object) words=$'tp\ncomplete' ;;
	--record | --sysroot | --pin)
		mapfile -t COMPREPLY < <(compgen -d -- "$word")
		return ;;
	*)
		[ "${word#-}" != "$word" ] && words=$(_fph_options "${command[@]}") ;;
	esac
	if [ -n "${words-}" ]; then
		# compgen -W would run what a machine of somebody else has in its name
		while IFS= read -r option; do
			[ "${option#"$word"}" = "$option" ] && [ -n "$word" ] || COMPREPLY+=("$option")
		done <<< "$words"
	else
		mapfile -t COMPREPLY < <(compgen -f -- "$word")
	fi
}

complete -o filenames -F _fph fph-report fph-scan fph-trace

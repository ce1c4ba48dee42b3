#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The specification of virtio-fph: each normative statement has a label of its own and
# a row in the table of what proves it, and the tests that are named there exist.
#
# usage: check-statements.sh SPECIFICATION BUILD-FOLDER

set -euo pipefail
shopt -s inherit_errexit

spec=$1
tests=$(meson introspect --tests "$2" | grep -oE '"name": "[^"]*"' | cut -d'"' -f4 | sort -u)
failed=0

complain() { echo "$*"; failed=1; }

labels() { grep -oE '\b(DEV|DRV)-[A-Z]+(-[A-Z]+)*' | sort; }

stated=$(grep -E '^- (DEV|DRV)-' "$spec" | sed 's/:.*//' | labels)
proved=$(grep -E '^\| (DEV|DRV)-' "$spec" | cut -d'|' -f2 | labels)
[ "$(wc -l <<< "$stated")" -gt 50 ] || complain "there are few statements: is this the specification?"
for list in "$stated" "$proved"; do
	twice=$(uniq -d <<< "$list")
	[ -z "$twice" ] || complain "twice:" $twice
done
only=$(comm -3 <(echo "$stated") <(echo "$proved"))
[ -z "$only" ] || complain "stated without a row, or a row without a statement:" $only

while IFS='|' read -r _ label names _; do
	for name in $(grep -oE '`[a-z0-9.-]+`' <<< "$names" | tr -d '`' || :); do
		grep -qxF -e "$name" <<< "$tests" || complain "$label is proved by $name, which does not exist"
	done
done < <(grep -E '^\| (DEV|DRV)-' "$spec")

# What is a must has a label.
while read -r line; do
	complain "without a label: $line"
done < <(awk '
	/^## / { stop = /What proves it/ }
	/^$/ || /^- / || /^#/ || /^\|/ { if (text ~ /MUST|SHOULD/ && text !~ /^- (DEV|DRV)-/ && !stop) print text; text = "" }
	{ text = text " " $0; sub(/^ +/, "", text) }' "$spec" | grep -v 'are meant as in RFC 2119')
exit $failed

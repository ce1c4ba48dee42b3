#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Man pages are without mistakes, and each function of libfph has one. Arguments: the
# project's folder, that of the pages of section 3.
set -u
source=$1 man3=$2
bad=0
if ! command -v man >/dev/null || ! man --warnings -l "$source/docs/fph-scan.1" >/dev/null 2>&1; then
	echo 'SKIP: there is no man(1) that shows a file'
	exit 77
fi
for page in "$source"/docs/*.1 "$man3"/libfph-*.3; do
	# As a terminal shows it, and on pages that are wide, as lintian looks
	said=$(MANWIDTH=80 man --warnings -l "$page" 2>&1 >/dev/null
		MANWIDTH=120 man --warnings -l -Tutf8 -Z "$page" 2>&1 >/dev/null)
	[ -z "$said" ] || { bad=1; echo "$page: $said"; }
done
for function in $(sed -n '/^\tfph_.*;$/s/[\t;]//gp' "$source/libfph.map"); do
	page=$(sed -n 's/^\.so man3\///p' "$man3/$function.3")
	if ! grep -q "^\.SS $function()$" "$man3/${page:-none}"; then
		bad=1
		echo "no page has $function()"
	fi
done
[ $bad -eq 0 ] && echo 'ok'
exit $bad

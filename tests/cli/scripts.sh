#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# What scripts/common.sh finds out about a Debian that is not like the one at hand: an
# archive behind a list of mirrors, no package lists at all, a tree of another user.
set -u
top=$1
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
command -v apt-get >/dev/null || { echo 'SKIP: no apt-get here'; exit 77; }
unset -v APT_CONFIG
bad=0

# with COMMAND...: in a shell of its own that has sourced the functions
with() {
	# shellcheck disable=SC2016
	env FPH_CACHE="$tmp/cache" bash -euo pipefail -c '. "$0/scripts/common.sh"; eval "$1"' \
		"${tree:-$top}" "$*" 2>"$tmp/err"
}

# gives WORDS COMMAND...
gives() {
	local want=$1 got
	shift
	got=$(with "$@")
	[ "$got" = "$want" ] || {
		bad=1
		echo "not ok: $what: $* gives '$got', not '$want'"
		sed 's/^/    /' "$tmp/err"
	}
}

# make_archive DIR ORIGIN: an archive with a package
make_archive() {
	local suite dir packages
	for suite in "$code" "$code-security"; do
		dir=$1/dists/$suite
		packages=main/binary-$(dpkg --print-architecture)/Packages
		mkdir -p "$dir/${packages%/*}"
		printf 'Package: none\nVersion: 1\nArchitecture: all\nFilename: none.deb\nSize: 1\n' >"$dir/$packages"
		cat >"$dir/Release" <<-EOC
			Origin: $2
			Codename: $suite
			Suite: $suite
			Architectures: $(dpkg --print-architecture)
			Components: main
			Date: $(LC_ALL=C date -u -R)
			SHA256:
			 $(sha256sum <"$dir/$packages" | cut -d ' ' -f 1) $(wc -c <"$dir/$packages") $packages
		EOC
	done
}
code=$(with debian_codename)
make_archive "$tmp/archive" Debian
make_archive "$tmp/other" 'Somebody else'

# apt_knows ADDRESS: apt's configuration, without lists so far; another archive, whose
# suites have Debian's names, comes first
apt_knows() {
	local suite
	rm -rf "$tmp/apt" "$tmp/cache"
	mkdir -p "$tmp/apt/lists/partial"
	for suite in "$code" "$code-security"; do
		printf 'deb [trusted=yes] %s %s main\n' "file:$tmp/other" "$suite" "$1" "$suite"
	done >"$tmp/apt/sources.list"
	cat >"$tmp/apt/conf" <<-EOC
		Dir::Etc::sourcelist "$tmp/apt/sources.list";
		Dir::Etc::sourceparts "-";
		Dir::State::lists "$tmp/apt/lists";
		Dir::Cache::pkgcache "";
		Dir::Cache::srcpkgcache "";
		APT::Sandbox::User "$(id -un)";
	EOC
	export APT_CONFIG=$tmp/apt/conf
}

printf '# mirrors\n\nfile:%s/archive\tpriority:1\nfile:/nowhere\n' "$tmp" >"$tmp/mirrors"
for address in "file:$tmp/archive" "mirror+file://$tmp/mirrors"; do
	what=$address
	apt_knows "$address"
	apt-get -qq update >"$tmp/err" 2>&1 || { echo "not ok: $what"; cat "$tmp/err"; exit 1; }
	gives "file:$tmp/archive" debian_mirror
	gives "file:$tmp/archive" debian_mirror -security
	[ ! -e "$tmp/cache/apt" ] || { bad=1; echo "not ok: $what: apt's lists were fetched"; }
	what="$address without lists"
	apt_knows "$address"
	gives "file:$tmp/archive" debian_mirror
	gives "file:$tmp/archive" debian_mirror -security
	[ -z "$(ls "$tmp/apt/lists/partial")" ] || { bad=1; echo "not ok: $what: apt's own folder is written to"; }
done
what='no archive'
apt_knows "file:$tmp/nowhere"
gives '' debian_mirror

what='a cache with a blank'
if env FPH_CACHE="$tmp/a b" bash -c '. "$0/scripts/common.sh"' "$top" 2>"$tmp/err"; then
	bad=1
	echo "not ok: $what is taken"
fi

if [ "$(id -u)" = 0 ] && command -v git >/dev/null; then
	what='a tree of another user'
	tree=$tmp/tree
	mkdir -p "$tree/scripts"
	cp "$top/scripts/common.sh" "$tree/scripts/"
	printf 'built/\n' >"$tree/.gitignore"
	mkdir "$tree/built"
	: >"$tree/built/object"
	git init -q "$tree"
	chown -R 65534:65534 "$tree"
	gives $'.gitignore\nscripts/common.sh' "pack_tree | tar -t"
fi
exit $bad

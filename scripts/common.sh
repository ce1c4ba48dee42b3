# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# Shared by the scripts of this tree; source it after `set -euo pipefail`.

FPH_TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
FPH_CACHE=${FPH_CACHE:-${XDG_CACHE_HOME:-${HOME:?is not set, and neither is FPH_CACHE}/.cache}/fph}
FPH_CACHE=$(realpath -ms "$FPH_CACHE")
export FPH_TOP FPH_CACHE

say() { printf '[%4ds] %s\n' "$SECONDS" "$*" >&2; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# Neither kbuild nor QEMU's configure takes a path with the one, no list of paths the other
case $FPH_CACHE in
*[[:space:]:]*) die "the cache cannot be in '$FPH_CACHE': set FPH_CACHE to a path without blanks and colons" ;;
esac

# quietly COMMAND...: what it says, only if it fails
quietly() {
	local said
	said=$("$@" 2>&1) || { printf '%s\n' "$said"; die "failed: $*"; }
}

can_be_root() { [ "$(id -u)" = 0 ] || command -v sudo >/dev/null; }

# as_root COMMAND...: run it with the rights to install packages; see can_be_root
as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	else
		sudo "$@"
	fi
}

# debian_codename: the release this machine runs
debian_codename() {
	# shellcheck disable=SC1091
	(. /etc/os-release && printf '%s\n' "${VERSION_CODENAME:?}")
}

# archive_of_lists SUITE [APT-OPTION...]: address of Debian's archive that suites of this
# pattern are from, by the lists that apt has; others name theirs like Debian's, too
archive_of_lists() {
	local suite=$1
	shift
	apt-get "$@" indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI) $(ORIGIN)' \
		'Created-By: Packages' |
		awk -v suite="$suite" '$1 ~ suite && $2 == "main" && $4 == "Debian" && !n++ { print $3 }'
}

# debian_mirror [-security]: address of the main archive that the machine's own
# apt configuration names for its release, without a slash at the end
debian_mirror() {
	local suite mirror lists=$FPH_CACHE/apt/own/lists
	suite="^($(debian_codename)|(old)*stable)${1-}\$"
	mirror=$(archive_of_lists "$suite")
	if [ -z "$mirror" ] && [ -z "$(archive_of_lists .)" ]; then
		# Images often come without lists, and to fetch those takes root
		mkdir -p "$lists/partial"
		local own=(-o "Dir::State::lists=$lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
			-o "APT::Sandbox::User=root")
		{
			flock 9
			[ -n "$(archive_of_lists . "${own[@]}")" ] || apt-get -qq "${own[@]}" update >&2 || :
		} 9>"$lists/../lock"
		mirror=$(archive_of_lists "$suite" "${own[@]}")
	fi
	case $mirror in
	# A file with addresses, each with options behind it
	mirror+file:*)
		mirror=${mirror#mirror+file:}
		mirror=$(awk '/^[^#[:space:]]/ { print $1; exit }' "/${mirror%/}")
		;;
	esac
	printf '%s\n' "${mirror%/}"
}

# candidate_version PACKAGE: the one that apt would install
candidate_version() {
	LC_ALL=C apt-cache policy "$1" | sed -n 's/^ *Candidate: //p'
}

# tree_version: the version, which only meson.build has
tree_version() {
	sed -n "s/^  version: '\(.*\)',\$/\1/p" "$FPH_TOP/meson.build"
}

# tree_git ARGUMENT...: git in this tree, whoever owns it: its scripts run anyway
tree_git() { git -c safe.directory='*' -C "$FPH_TOP" "$@"; }

# pack_tree [TAR-OPTION...]: the tree as it is to stdout, as a tar file: new files
# included, and nothing that was built
pack_tree() {
	if [ -e "$FPH_TOP/.git" ] && command -v git >/dev/null; then
		(cd "$FPH_TOP" && tree_git ls-files -co --exclude-standard -z |
			xargs -0 sh -c 'for f; do [ ! -e "$f" ] || printf "%s\0" "$f"; done' sh)
	else
		(cd "$FPH_TOP" && find . \( -path './build*' -o -path ./.git \) -prune -o ! -type d -printf '%P\0')
	fi | LC_ALL=C sort -z | tar -C "$FPH_TOP" "$@" --null --no-recursion -T - -cf -
}

# private_apt [--arch ARCH] NAME LINE...: apt configuration of our own under the
# cache, with the given sources and nothing else, so that /etc/apt is left alone.
# Prints the path for APT_CONFIG; the lists are fetched once and then kept. With another
# architecture than this machine's, apt knows of no package that is installed.
private_apt() {
	local arch=
	[ "$1" != --arch ] || { arch=$2; shift 2; }
	local dir=$FPH_CACHE/apt/$1
	shift
	mkdir -p "$dir/lists/partial" "$dir/archives/partial"
	printf '%s\n' "$@" >"$dir/sources.list"
	cat >"$dir/apt.conf" <<-EOC
		Dir::Etc::sourcelist "$dir/sources.list";
		Dir::Etc::sourceparts "-";
		Dir::State::lists "$dir/lists";
		Dir::Cache::archives "$dir/archives";
		Dir::Cache::pkgcache "";
		Dir::Cache::srcpkgcache "";
		APT::Sandbox::User "root";
		Acquire::Retries "3";
	EOC
	if [ -n "$arch" ] && [ "$arch" != "$(dpkg --print-architecture)" ]; then
		: >"$dir/status"
		cat >>"$dir/apt.conf" <<-EOC
			APT::Architecture "$arch";
			APT::Architectures { "$arch"; };
			Dir::State::status "$dir/status";
		EOC
	fi
	printf '%s\n' "$dir/apt.conf"
}

# unpack_packages DIR PACKAGE...: into the new folder DIR, with all that they need, as
# if nothing were installed, by the private apt that APT_CONFIG names. False if they
# cannot be had; apt's words go to stdout and stderr.
unpack_packages() {
	local dir=$1 d deb of=${APT_CONFIG%/*}
	shift
	: >"$of/none"
	apt-get -o APT::Update::Error-Mode=any update || return
	apt-get -o Dir::State::status="$of/none" -o Debug::NoLocking=1 --yes --download-only \
		--no-install-recommends install "$@" || return
	rm -rf "$dir"
	# Where /lib is a link to usr/lib
	mkdir -p "$dir"/usr/{bin,sbin,lib,lib64} || return
	for d in bin sbin lib lib64; do
		ln -s "usr/$d" "$dir/$d" || return
	done
	for deb in "$of/archives"/*.deb; do
		dpkg-deb --fsys-tarfile "$deb" | tar -C "$dir" -x --keep-directory-symlink \
			--no-same-owner --exclude='./dev/*' || return
	done
	rm -rf "$of/archives"
}

# setup_build DIR [--cross-file=FILE] OPTION...: build the tree there; configure anew
# if it takes that
setup_build() {
	local dir=$1 cross=()
	shift
	# Not to be changed later
	case ${1-} in
	--cross-file=*) cross=("$1"); shift ;;
	esac
	mkdir -p "$(dirname "$dir")"
	local lock
	exec {lock}>"$dir.lock"
	flock "$lock"
	if ! { [ -f "$dir/build.ninja" ] && meson configure "$dir" "$@"; } >"$dir.log" 2>&1; then
		rm -rf "$dir"
		meson setup "$dir" "${cross[@]}" "$@" >"$dir.log" 2>&1 ||
			{ cat "$dir.log" >&2; die "cannot configure $dir"; }
	fi
	meson compile -C "$dir" >"$dir.log" 2>&1 ||
		{ cat "$dir.log" >&2; die "$dir does not build"; }
	rm "$dir.log"
	exec {lock}>&-
}

# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# Shared by the scripts of this tree; source it after `set -euo pipefail`.

FPH_TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
FPH_CACHE=${FPH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/fph}
export FPH_TOP FPH_CACHE

say() { printf '[%4ds] %s\n' "$SECONDS" "$*" >&2; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# as_root COMMAND...: run it with the rights to install packages
as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		die "need root or sudo to run: $*"
	fi
}

# debian_codename: the release this machine runs
debian_codename() {
	# shellcheck disable=SC1091
	(. /etc/os-release && printf '%s\n' "${VERSION_CODENAME:?}")
}

# debian_mirror SUITE-PATTERN: address of the first main archive that the
# machine's own apt configuration names for such a suite
debian_mirror() {
	apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' \
		'Created-By: Packages' |
		awk -v suite="$1" '$1 ~ suite && $2 == "main" { print $3; exit }'
}

# private_apt NAME LINE...: apt configuration of our own under the cache, with
# the given sources and nothing else, so that /etc/apt is left alone. Prints
# the path for APT_CONFIG; the lists are fetched once and then kept.
private_apt() {
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
	printf '%s\n' "$dir/apt.conf"
}

#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Does the guest's module build for the next Debian's kernel too, without
# warnings, and with exported symbols only? Headers come from the release's
# backports, whose tools run here, or from the release itself, and are kept.

set -euo pipefail
shopt -s inherit_errexit nullglob

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR
. "$here/../../scripts/common.sh"
# shellcheck source-path=SCRIPTDIR
. "$here/module.sh"
cache=$FPH_CACHE/guest
meta=linux-headers-cloud-amd64
series=6.12

skip() { echo "SKIP: $*"; exit 77; }

for tool in gcc make strip objcopy dpkg-deb flock; do
	command -v "$tool" > /dev/null || skip "there is no $tool"
done
mkdir -p "$cache"
exec 9> "$cache/lock.headers"
flock 9
rm -rf "$cache"/tmp-headers.*
tmp=$(mktemp -d "$cache/tmp-headers.XXXXXX")
trap 'rm -rf "$tmp"' EXIT

# Prints version and kernel release of each $meta of $series that apt knows.
candidates()
{
	apt-cache show "$meta" 2> /dev/null | awk -v series="$series" '
		/^Version:/ { version = $2 }
		/^Depends:/ && index(version, series ".") == 1 && match($0, /linux-headers-[0-9][^ ,]*/) {
			print version, substr($0, RSTART + length("linux-headers-"), RLENGTH - length("linux-headers-")) }'
}

# Leaves a tree of headers in the cache, or says why there is none.
fetch()
{
	local mirror code suite version release lists packages=()

	command -v apt-get > /dev/null || skip "no apt-get here, and no headers in $cache"
	code=$(debian_codename)
	# shellcheck disable=SC2119
	mirror=$(debian_mirror)
	[ -n "$mirror" ] || skip "apt's configuration names no archive for $code"
	suite=$code-backports
	APT_CONFIG=$(private_apt headers "deb $mirror $suite main" "deb $mirror $code main")
	export APT_CONFIG
	chmod 755 "$tmp"
	# What the lists name may be gone from the archive: then look again.
	for lists in kept fetched; do
		if [ "$lists" = fetched ] || [ -z "$(candidates)" ]; then
			lists=fetched
			apt-get -q -o APT::Update::Error-Mode=any update > "$tmp/apt.log" 2>&1 ||
				{ tail -n 5 "$tmp/apt.log"; skip "the package lists of $suite cannot be fetched"; }
		fi
		while read -r version release; do
			rm -f "$tmp"/deb/*.deb
			mapfile -t packages < <(header_packages "$release" "$version")
			[ ${#packages[@]} -gt 0 ] || continue
			download_packages "$tmp/deb" "$version" "${packages[@]}" || continue
			unpack_headers "$release" "$tmp/headers" "$tmp"/deb/*.deb || die "the headers of $release cannot be unpacked"
			mv "$tmp/headers" "$cache/headers.$release"
			return
		done < <(candidates)
	done
	[ ! -f "$tmp/deb/apt.log" ] || tail -n 5 "$tmp/deb/apt.log"
	skip "no headers of Linux $series to be had from $suite"
}

trees=("$cache/headers.$series".*)
[ ${#trees[@]} -gt 0 ] || fetch
trees=("$cache/headers.$series".*)
kdir=${trees[-1]}/kdir
# The compiler that the kernel was built with, as its headers name it
compiler=$(sed -n 's/^CC = .*\(gcc-[0-9]*\)$/\1/p' "$kdir/.kernelvariables")
command -v "x86_64-linux-gnu-$compiler" > /dev/null || skip "there is no $compiler, which ${trees[-1]##*/headers.} is built with"
build_module "$kdir" "$tmp/module" ||
	{ cat "$tmp/module/make.log"; die "the module does not build for ${trees[-1]##*/headers.}"; }

# What modinfo would show; the version is the one that dkms goes by.
objcopy -O binary --only-section=.modinfo "$tmp/module/virtio_fph.ko" "$tmp/modinfo"
tr '\0' '\n' < "$tmp/modinfo" > "$tmp/modinfo.txt"
version=$(sed -n 's/^PACKAGE_VERSION="\(.*\)"/\1/p' "$FPH_TOP/pv-hint/guest/dkms.conf")
for line in license=GPL 'description=..*' 'parm=walk:..*' parmtype=walk:charp 'parm=balloon_floor:..*' parmtype=balloon_floor:uint 'alias=virtio:d0000003Fv\*' "version=$version"; do
	grep -qx "$line" "$tmp/modinfo.txt" || { cat "$tmp/modinfo.txt"; die "the module's information lacks $line"; }
done
echo "built for ${trees[-1]##*/headers.}"

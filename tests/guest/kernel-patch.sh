#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The guest's driver as a patch for a kernel's own tree, the one that the guest "debug"
# was built in: does it apply, can it be chosen, does it build there without a warning,
# and does the kernel's own checkpatch.pl like it?

set -euo pipefail
shopt -s inherit_errexit

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR
. "$here/../../scripts/common.sh"
linux=$FPH_CACHE/guest.debug/headers/kdir

skip() { echo "SKIP: $*"; exit 77; }

for tool in patch perl gcc make; do
	command -v "$tool" > /dev/null || skip "there is no $tool"
done
[ -f "$linux/scripts/checkpatch.pl" ] ||
	skip "no kernel's source in $linux; FPH_GUEST_KERNEL=debug tests/guest/build-guest fetches it"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

"$FPH_TOP/pv-hint/export-kernel-patch" "$linux" > "$tmp/patch"

# These names are the kernel's own; it makes them where checkpatch.pl does not see it.
(cd "$linux" && perl scripts/checkpatch.pl --strict --no-signoff --terse --show-types "$tmp/patch") > "$tmp/words" || :
if grep -v '^total: \|:CAMELCASE: Avoid CamelCase: <__\(Set\|Clear\)PageOffline>$' "$tmp/words"; then
	die "checkpatch.pl has more to say"
fi
grep '^total: 0 errors, 0 warnings, 2 checks' "$tmp/words" || { cat "$tmp/words"; die "checkpatch.pl did not get to its end"; }

# What the patch touches, and all that decides what can be chosen
mkdir "$tmp/tree"
(cd "$linux" && find . -name 'Kconfig*' -o -path ./MAINTAINERS -o -path ./drivers/virtio/Makefile -o -path './scripts/*.sh') |
	(cd "$linux" && cpio --quiet -p -d "$tmp/tree")
cd "$tmp/tree"
patch -p1 --fuzz=0 < "$tmp/patch" > "$tmp/patch.log" || { cat "$tmp/patch.log"; die "the patch does not apply"; }
cp "$linux/.config" .config
echo CONFIG_VIRTIO_FPH=m >> .config
env -i PATH="$PATH" LC_ALL=C srctree=. SRCARCH=x86 ARCH=x86 CC=gcc LD=ld NM=nm RUSTC=rustc \
	KERNELVERSION=0 KCONFIG_CONFIG=.config "$linux/scripts/kconfig/conf" --olddefconfig Kconfig > "$tmp/conf.log" 2>&1 ||
	{ cat "$tmp/conf.log"; die "the options cannot be read"; }
grep -x CONFIG_VIRTIO_FPH=m .config || die "the driver cannot be chosen"

env -i PATH="$PATH" LC_ALL=C make -C "$linux" -j"$(nproc)" M="$tmp/tree/drivers/virtio/fph" CONFIG_VIRTIO_FPH=m W=1 \
	KCFLAGS="-Werror -I$tmp/tree/include/uapi" modules > "$tmp/make.log" 2>&1 ||
	{ cat "$tmp/make.log"; die "it does not build there"; }
! grep '^WARNING' "$tmp/make.log" || die "modpost has words for it"
[ -s drivers/virtio/fph/virtio_fph.ko ] || die "there is no module"

# The header is for programs, too.
gcc -std=c99 -Wall -Wextra -pedantic -Werror -fsyntax-only -x c include/uapi/linux/virtio_fph.h ||
	die "the header is not for programs"

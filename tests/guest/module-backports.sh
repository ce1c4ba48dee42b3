#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Does the guest's module build for a kernel that has parts of newer ones, as those of
# RHEL and CentOS do? The headers are Debian's, with such parts put in. What the module
# takes for there is compared, too: by the kernel's number it would be something else.
#
# usage: module-backports.sh KERNEL, a name of the list in kernels

set -euo pipefail
shopt -s inherit_errexit

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR
. "$here/../../scripts/common.sh"
# shellcheck source-path=SCRIPTDIR
. "$here/module.sh"
headers=$FPH_CACHE/guest.$1/headers

skip() { echo "SKIP: $*"; exit 77; }

for tool in gcc make strip; do
	command -v "$tool" > /dev/null || skip "there is no $tool"
done
[ -d "$headers/kdir" ] || skip "no headers in $headers; FPH_GUEST_KERNEL=$1 tests/guest/build-guest fetches them"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# edit FILE EXPRESSION...: a header becomes another one, or that part was there before
edit()
{
	local file=$1
	shift
	sed "$@" "$file" > "$tmp/edited"
	! cmp -s "$file" "$tmp/edited" || die "$file is not what was expected, or has that already"
	rm "$file"
	mv "$tmp/edited" "$file"
}

# Stable kernels have it from some time on: 6.12.95 has not, 6.12.118 has
has_percpu() { grep -qw WQ_PERCPU "$headers"/usr/src/linux-headers-*-common/include/linux/workqueue.h; }

# What a backport brings; each is what a later kernel has.
workqueue()	# 6.17
{
	has_percpu || edit workqueue.h 's/^\tWQ_POWER_EFFICIENT.*/&\n\tWQ_PERCPU\t\t= 1 << 8,/'
}

shutdown()	# 6.16
{
	edit virtio.h 's/^\tvoid (\*config_changed)(struct virtio_device \*dev);/&\n\tvoid (*shutdown)(struct virtio_device *dev);/'
}

queues()	# 6.11
{
	edit virtio_config.h -e 's/^typedef void vq_callback_t.*/&\nstruct virtqueue_info {\n\tconst char *name;\n\tvq_callback_t *callback;\n\tbool ctx;\n};/' \
		-e '/^int virtio_find_vqs(/,/^}/c\
int virtio_find_vqs(struct virtio_device *vdev, unsigned int nvqs, struct virtqueue *vqs[],\
		    struct virtqueue_info info[], struct irq_affinity *desc)\
{\
	return vdev->config->find_vqs(vdev, nvqs, vqs, (void *)info, NULL, NULL, desc);\
}'
}

counter()	# 6.19
{
	edit mmzone.h 's/^\tNR_VM_NODE_STAT_ITEMS$/\tNR_BALLOON_PAGES,\n&/'
}

zeroed()	# of no kernel yet
{
	edit page-flags.h 's/^\t__NR_PAGEFLAGS,/\tPG_zeroed,\n&/'
}

adjust()	# 7.0, its first part
{
	edit balloon_compaction.h 's/^\tint (\*migratepage)(.*/\tbool adjust_managed_page_count;\n&/'
}

balloon()	# 7.0, all of it
{
	adjust
	edit balloon_compaction.h -e '/pages_lock/d' -e '/^static inline void balloon_page_finalize(/,/^}/d'
	mv balloon_compaction.h balloon.h
}

# links FROM TO: a folder of links to what is in another
links()
{
	mkdir "$2"
	ln -s "$1"/* "$2"
}

# builds_with EXPECTED BACKPORT...: it builds, and knows of these
builds_with()
{
	local expected=$1 got backport dir part parts
	shift
	! has_percpu || [[ $expected = *" WQ_PERCPU" ]] || expected+=" WQ_PERCPU"
	dir=$tmp/with-${*// /-}
	dir=${dir// /-}
	# Folders of its own on the way to what is edited and to where it is built from
	links "$(realpath "$headers")" "$dir"
	parts=("$headers"/usr/src/linux-headers-*-common)
	parts=(usr usr/src "$(readlink "$headers/kdir")" "${parts[@]#"$headers/"}"{,/include,/include/linux})
	for part in "${parts[@]}"; do
		rm "$dir/$part"
		links "$(realpath "$headers/$part")" "$dir/$part"
	done
	ln -sfn "$(readlink "$headers/kdir")" "$dir/kdir"
	cd "$dir"/usr/src/linux-headers-*-common*/include/linux
	for backport in "$@"; do
		$backport
	done
	cd "$tmp"
	build_module "$dir/kdir" "$dir/module" ||
		{ cat "$dir/module/make.log"; die "the module does not build with: $*"; }
	got=$(grep -o 'DFPH_HAVE_[A-Z_]*' "$dir/module/src/.driver.o.cmd" | sort -u | sed 's/DFPH_HAVE_//' | tr '\n' ' ')
	[ "$got" = "$expected " ] || die "with $* it has $got instead of $expected"
	echo "with $*: builds"
}

case $1 in
6.1)
	builds_with "BALLOON_PAGES_LOCK BALLOON_PAGE_FINALIZE VIRTIO_SHUTDOWN VIRTQUEUE_INFO" \
		queues shutdown
	builds_with "BALLOON_ADJUST BALLOON_H NR_BALLOON_PAGES PG_ZEROED VIRTIO_SHUTDOWN VIRTQUEUE_INFO WQ_PERCPU" \
		balloon counter zeroed shutdown queues workqueue
	;;
6.12)
	builds_with "BALLOON_ADJUST BALLOON_PAGES_LOCK BALLOON_PAGE_FINALIZE NR_BALLOON_PAGES VIRTQUEUE_INFO" \
		adjust counter
	builds_with "BALLOON_ADJUST BALLOON_H NR_BALLOON_PAGES PG_ZEROED VIRTIO_SHUTDOWN VIRTQUEUE_INFO WQ_PERCPU" \
		balloon counter zeroed shutdown workqueue
	;;
*) die "nobody has thought of what is backported to $1" ;;
esac

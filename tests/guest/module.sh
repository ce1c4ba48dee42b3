# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# Builds the guest's driver, pv-hint/guest, against headers from kernel packages
# that are not installed. Source it after scripts/common.sh.

# get_packages DIR PACKAGE=VERSION...: apt's words are added to DIR/apt.log
get_packages()
{
	local dir=$1
	shift
	(cd "$dir" && apt-get -q -o Acquire::Retries=2 download "$@") >> "$dir/apt.log" 2>&1
}

# download_packages DIR VERSION PACKAGE...: all of the packages in that version,
# or false; apt's words are added to DIR/apt.log
download_packages()
{
	local dir=$1 version=$2
	shift 2
	mkdir -p "$dir"
	# apt drops its rights for downloads, so let its user write here.
	if [ "$(id -u)" = 0 ] && id _apt > /dev/null 2>&1; then
		chown _apt "$dir"
	fi
	get_packages "$dir" "${@/%/=$version}" && return
	# Of any version: the lists may be older than the archive
	[ "$version" = '*' ] && apt-get -q update >> "$dir/apt.log" 2>&1 && get_packages "$dir" "${@/%/=*}"
}

# header_packages RELEASE VERSION: the packages that hold what a module for that
# kernel is built with; false if apt does not know them
header_packages()
{
	local headers=linux-headers-$1 common kbuild
	common=$(apt-cache show "$headers=$2" 2> /dev/null) || return 1
	kbuild=$(grep -o 'linux-kbuild-[^ ,]*' <<< "$common" | head -n 1)
	common=$(grep -o 'linux-headers-[^ ,]*-common\>' <<< "$common" | head -n 1)
	[ -n "$common" ] && [ -n "$kbuild" ] || return 1
	printf '%s\n' "$headers" "$common" "$kbuild"
}

# unpack_headers RELEASE TO DEB...: a tree that works wherever TO is; TO/kdir is
# what modules are built against
unpack_headers()
{
	local dir=usr/src/linux-headers-$1 to=$2 deb
	shift 2
	mkdir -p "$to"
	for deb in "$@"; do
		# Newer packages hold a kernel for BTF, which takes one more tool.
		dpkg-deb --fsys-tarfile "$deb" |
			tar -x -C "$to" --exclude=./lib --exclude=./usr/share --exclude='*/vmlinux' || return 1
	done
	sed -i 's|/usr/src/|../|' "$to/$dir/Makefile" || return 1
	ln -s "$dir" "$to/kdir"
	# What only a newer compiler can, and is done in another way without
	gcc -fmin-function-alignment=16 -E -x c /dev/null > /dev/null 2>&1 ||
		sed -i '/^CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT=/d' "$to/kdir/include/config/auto.conf"
	lend_libc "$to"
}

# lend_libc TO: tools of a newer release in a tree of headers run with the C library
# of that release, which apt's lists have as well
lend_libc()
{
	local tool libc=$1/usr/lib/x86_64-linux-gnu
	for tool in "$1"/usr/lib/linux-kbuild-*/*/*/*; do
		# To the end of it: ldd, ended early, would be taken for one without a word
		LC_ALL=C ldd "$tool" 2>&1 | grep 'version .* not found' > /dev/null || continue
		if ! [ -d "$libc" ]; then
			download_packages "$1/deb" '*' libc6 || return 1
			dpkg-deb --fsys-tarfile "$1"/deb/libc6_*.deb |
				tar -x -C "$1" --wildcards './usr/lib/x86_64-linux-gnu/*.so*' || return 1
			rm -rf "$1/deb"
		fi
		mv "$tool" "$tool.bin"
		cat > "$tool" <<-'END'
		#!/bin/sh
		libc=${0%/*}/../../../x86_64-linux-gnu
		exec "$libc/ld-linux-x86-64.so.2" --library-path "$libc" "$0.bin" "$@"
		END
		chmod 755 "$tool"
	done
}

# module_sources: the files that the module is made of
module_sources()
{
	printf '%s\n' "$FPH_TOP"/pv-hint/guest/{Kbuild,Makefile,dkms.conf,*.[ch]} "$FPH_TOP"/pv-hint/include/fph/virtio-fph.h
}

# build_module KDIR DIR: build DIR/virtio_fph.ko; a warning is an error. The
# sources are copied, so that the tree stays as it is and builds do not meet.
# What make says is in DIR/make.log.
build_module()
{
	local kdir=$1 dir=$2 cc
	mkdir -p "$dir"
	make -s -C "$FPH_TOP/pv-hint/guest" dkms-source dkms_source="$dir/src" > "$dir/make.log" 2>&1 || return 1
	# That of the kernel, if it is here
	cc=x86_64-linux-gnu-$(sed -n 's/^CC = .*\(gcc-[0-9]*\)$/\1/p' "$kdir/.kernelvariables" 2> /dev/null || :)
	command -v "$cc" > /dev/null || cc=gcc
	# Nothing that a make around this one, or the user, set for something else
	env -i PATH="$PATH" LC_ALL=C make -C "$dir/src" -j"$(nproc)" KDIR="$kdir" CC="$cc" W=1 KCFLAGS=-Werror \
		> "$dir/make.log" 2>&1 || return 1
	# modpost has words, but no failure, for some mistakes.
	! grep '^WARNING' "$dir/make.log" >&2 || return 1
	strip --strip-debug -o "$dir/virtio_fph.ko" "$dir/src/virtio_fph.ko"
}

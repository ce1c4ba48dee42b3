/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "sys.h"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

/* Callers of the library may be in the middle of handling an error. */
static int take_errno(int saved)
{
	int err = -errno;

	errno = saved;
	return err;
}

static int sys_open_pagemap(void)
{
	int saved = errno;
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	return fd < 0 ? take_errno(saved) : fd;
}

static void sys_close(int fd)
{
	int saved = errno;

	close(fd);
	errno = saved;
}

static int sys_pagemap_scan(int fd, struct fph_pm_scan *arg)
{
	int saved = errno;
	int n = ioctl(fd, FPH_PAGEMAP_SCAN, arg);

	return n < 0 ? take_errno(saved) : n;
}

static int64_t sys_seek(int fd, uint64_t offset, int whence)
{
	int saved = errno;
	off_t pos = lseek(fd, offset, whence);

	return pos < 0 ? take_errno(saved) : pos;
}

static int sys_file_size(int fd, uint64_t *ret)
{
	int saved = errno;
	struct stat st;

	if (fstat(fd, &st) < 0)
		return take_errno(saved);
	*ret = st.st_size;
	return 0;
}

static int sys_file_info(int fd, struct fph_sys_file *ret)
{
	int saved = errno;
	struct statfs fs;
	struct stat st;

	if (fstat(fd, &st) < 0)
		return take_errno(saved);
	if (fstatfs(fd, &fs) < 0)
		return take_errno(saved);
	ret->regular = S_ISREG(st.st_mode);
	ret->fs_magic = (uint32_t)fs.f_type;	/* may be a signed 32-bit type */
	return 0;
}

/*
 * Asynchronous write protection asks nobody, so that faults in the kernel need
 * not be handled by this process, and no privilege is needed.
 */
static int sys_open_userfaultfd(void)
{
	int saved = errno;
	int fd = syscall(SYS_userfaultfd,
			 O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);

	return fd < 0 ? take_errno(saved) : fd;
}

static int uffd_ioctl(int fd, unsigned long request, void *arg)
{
	int saved = errno;

	return ioctl(fd, request, arg) < 0 ? take_errno(saved) : 0;
}

static int sys_uffd_api(int fd, uint64_t features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };

	return uffd_ioctl(fd, UFFDIO_API, &api);
}

static int sys_uffd_register(int fd, uint64_t start, uint64_t len)
{
	struct uffdio_register reg = {
		.range = { .start = start, .len = len },
		.mode = UFFDIO_REGISTER_MODE_WP,
	};

	return uffd_ioctl(fd, UFFDIO_REGISTER, &reg);
}

static int sys_uffd_unregister(int fd, uint64_t start, uint64_t len)
{
	struct uffdio_range range = { .start = start, .len = len };

	return uffd_ioctl(fd, UFFDIO_UNREGISTER, &range);
}

static int sys_open_merged(void)
{
	int saved = errno;
	int fd = open("/proc/self/ksm_merging_pages", O_RDONLY | O_CLOEXEC);

	return fd < 0 ? take_errno(saved) : fd;
}

static int64_t sys_read_number(int fd)
{
	int saved = errno;
	char text[32];
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

	if (n < 0)
		return take_errno(saved);
	text[n] = '\0';
	return strtoll(text, NULL, 10);
}

static uint64_t sys_now_ns(void)
{
	struct timespec ts = { 0 };

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + ts.tv_nsec;
}

static uint64_t sys_page_size(void)
{
	return sysconf(_SC_PAGESIZE);
}

static long sys_pid(void)
{
	return getpid();
}

const struct fph_sys fph_sys_linux = {
	.open_pagemap = sys_open_pagemap,
	.close = sys_close,
	.pagemap_scan = sys_pagemap_scan,
	.seek = sys_seek,
	.file_size = sys_file_size,
	.file_info = sys_file_info,
	.open_userfaultfd = sys_open_userfaultfd,
	.uffd_api = sys_uffd_api,
	.uffd_register = sys_uffd_register,
	.uffd_unregister = sys_uffd_unregister,
	.open_merged = sys_open_merged,
	.read_number = sys_read_number,
	.now_ns = sys_now_ns,
	.page_size = sys_page_size,
	.pid = sys_pid,
};

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "cachestat-abi.h"
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

static void sys_close(int fd)
{
	int saved = errno;

	close(fd);
	errno = saved;
}

static int open_readonly(const char *path)
{
	int saved = errno;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	return fd < 0 ? take_errno(saved) : fd;
}

static int sys_open_pagemap(long pid)
{
	char path[64];

	if (!pid)
		return open_readonly("/proc/self/pagemap");
	snprintf(path, sizeof(path), "/proc/%ld/pagemap", pid);
	return open_readonly(path);
}

static int sys_open_process(long pid)
{
	int saved = errno;
	int fd = syscall(SYS_pidfd_open, pid, 0);

	return fd < 0 ? take_errno(saved) : fd;
}

static bool sys_has_ended(int process)
{
	struct pollfd fd = { .fd = process, .events = POLLIN };
	int saved = errno;
	bool ended = poll(&fd, 1, 0) > 0;

	errno = saved;
	return ended;
}

static int sys_pagemap_scan(int fd, struct fph_pm_scan *arg)
{
	int saved = errno;
	int n = ioctl(fd, FPH_PAGEMAP_SCAN, arg);

	return n < 0 ? take_errno(saved) : n;
}

static int64_t read_at(int fd, void *buf, size_t bytes, uint64_t offset)
{
	int saved = errno;
	ssize_t n = pread(fd, buf, bytes, offset);

	return n < 0 ? take_errno(saved) : n;
}

static int64_t sys_pagemap_read(int fd, uint64_t first, uint64_t *entries,
				size_t n)
{
	int64_t got = read_at(fd, entries, n * sizeof(*entries),
			      first * sizeof(*entries));

	return got < 0 ? got : got / (int64_t)sizeof(*entries);
}

/* PFN behind @p, 0 if it is hidden from this process */
static uint64_t pfn_of(const void *p, uint64_t page_size)
{
	uint64_t entry = 0;
	int fd = open_readonly("/proc/self/pagemap");

	if (fd < 0)
		return 0;
	if (sys_pagemap_read(fd, (uintptr_t)p / page_size, &entry, 1) != 1)
		entry = 0;
	sys_close(fd);
	return entry & FPH_PAGEMAP_PRESENT ? entry & FPH_PAGEMAP_PFN : 0;
}

static bool is_zero_pfn(uint64_t pfn)
{
	uint64_t flags = 0;
	int fd = open_readonly("/proc/kpageflags");
	bool is;

	if (fd < 0)
		return false;
	is = read_at(fd, &flags, sizeof(flags), pfn * sizeof(flags)) == sizeof(flags) &&
	     (flags & FPH_KPAGEFLAGS_ZERO);
	sys_close(fd);
	return is;
}

/*
 * Read a fresh page, and see what the kernel put there. On machines with
 * several zero pages the others are missed.
 */
static uint64_t sys_zero_pfn(void)
{
	size_t page = sysconf(_SC_PAGESIZE);
	int saved = errno;
	volatile char *p;
	uint64_t pfn;
	char sink;

	p = mmap(NULL, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED) {
		errno = saved;
		return 0;
	}
	sink = *p;
	(void)sink;
	pfn = pfn_of((const void *)p, page);
	munmap((void *)p, page);
	return pfn && is_zero_pfn(pfn) ? pfn : 0;
}

/* MS_ASYNC does nothing but to look */
static bool sys_is_mapped(uint64_t start, uint64_t len)
{
	int saved = errno;
	bool mapped = msync((void *)(uintptr_t)start, len, MS_ASYNC) == 0;

	errno = saved;
	return mapped;
}

static int64_t sys_read_memory(long pid, int fd, const struct iovec *v,
			       size_t n, void *buf)
{
	struct iovec local = { .iov_base = buf };
	int saved = errno;
	ssize_t got;

	if (fd >= 0)
		return read_at(fd, buf, v->iov_len, (uintptr_t)v->iov_base);
	for (size_t i = 0; i < n; i++)
		local.iov_len += v[i].iov_len;
	got = process_vm_readv(pid ? pid : getpid(), &local, 1, v, n, 0);
	return got < 0 ? take_errno(saved) : got;
}

static int64_t sys_seek(int fd, uint64_t offset, int whence)
{
	int saved = errno;
	off_t pos = lseek(fd, offset, whence);

	return pos < 0 ? take_errno(saved) : pos;
}

static int64_t sys_file_pages(int fd, uint64_t offset, uint64_t len)
{
	struct fph_cachestat_range range = { .offset = offset, .len = len };
	/* A sandbox can say that all is well, and not have asked: then there is one */
	struct fph_cachestat pages = { .cached = 1 };
	int saved = errno;

	if (syscall(FPH_NR_CACHESTAT, fd, &range, &pages, 0) < 0)
		return take_errno(saved);
	return pages.cached + pages.evicted;
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

static void sys_sleep_ns(uint64_t ns)
{
	struct timespec ts = {
		.tv_sec = ns / UINT64_C(1000000000),
		.tv_nsec = ns % UINT64_C(1000000000),
	};

	clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, NULL);
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
	.open_process = sys_open_process,
	.has_ended = sys_has_ended,
	.close = sys_close,
	.pagemap_scan = sys_pagemap_scan,
	.pagemap_read = sys_pagemap_read,
	.zero_pfn = sys_zero_pfn,
	.is_mapped = sys_is_mapped,
	.read_memory = sys_read_memory,
	.seek = sys_seek,
	.file_pages = sys_file_pages,
	.file_size = sys_file_size,
	.file_info = sys_file_info,
	.open_userfaultfd = sys_open_userfaultfd,
	.uffd_api = sys_uffd_api,
	.uffd_register = sys_uffd_register,
	.uffd_unregister = sys_uffd_unregister,
	.open_merged = sys_open_merged,
	.read_number = sys_read_number,
	.now_ns = sys_now_ns,
	.sleep_ns = sys_sleep_ns,
	.page_size = sys_page_size,
	.pid = sys_pid,
};

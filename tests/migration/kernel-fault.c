/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Preloaded into QEMU: a kernel that fails calls of libfph, or takes its time.
 * All other calls of QEMU are the kernel's own.
 *
 * FPH_TEST_FAULT is "CALL ERRNO FIRST COUNT": of libfph's calls of that kind,
 * COUNT fail, beginning with number FIRST (from 1). With an ERRNO of 0 they
 * are held up instead, until the file FPH_TEST_SEEN is gone; with one below 0
 * each takes so many milliseconds. Into that file goes a byte for each call that
 * was met, so that a test knows.
 *
 * CALL "unregister" is an ioctl() that ends a watch.
 *
 * CALL "nice" is each of libfph's calls by a thread of the lowest priority; they do
 * not fail.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "cachestat-abi.h"

static void note(const char *seen)
{
	int file = open(seen, O_WRONLY | O_APPEND | O_CLOEXEC);

	if (file < 0 || write(file, "1", 1) != 1)
		abort();
	close(file);
}

/* Does this call fail? Then errno is set. */
static bool fails(const char *call, void *caller)
{
	static atomic_ulong calls;
	const char *fault = getenv("FPH_TEST_FAULT"), *seen = getenv("FPH_TEST_SEEN");
	unsigned long first, count, n;
	char name[16];
	Dl_info info;
	int err;

	if (!fault || !seen || sscanf(fault, "%15s %d %lu %lu", name, &err, &first, &count) != 4)
		abort();
	if (!strcmp(name, "nice")) {
		if (dladdr(caller, &info) && strstr(info.dli_fname, "/libfph.so") &&
		    (getpriority(PRIO_PROCESS, 0) == 19 || sched_getscheduler(0) == SCHED_IDLE))
			note(seen);
		return false;
	}
	if (strcmp(name, call) || !dladdr(caller, &info) || !strstr(info.dli_fname, "/libfph.so"))
		return false;
	n = atomic_fetch_add(&calls, 1) + 1;
	if (n < first || n - first >= count)
		return false;
	note(seen);
	if (err < 0) {
		usleep(-err * 1000);
		return false;
	}
	if (err) {
		errno = err;
		return true;
	}
	while (access(seen, F_OK) == 0)
		usleep(1000);
	return false;
}

#define FAILS(call)	fails(call, __builtin_return_address(0))
#define REAL(name)	((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int open64(const char *path, int flags, ...)
{
	mode_t mode = 0;
	va_list ap;

	if (FAILS("open"))
		return -1;
	if (flags & (O_CREAT | O_TMPFILE)) {
		va_start(ap, flags);
		mode = va_arg(ap, mode_t);
		va_end(ap);
	}
	return REAL(open64)(path, flags, mode);
}

int ioctl(int fd, unsigned long request, ...)
{
	void *argument;
	va_list ap;

	if (FAILS("ioctl") || (request == UFFDIO_UNREGISTER && FAILS("unregister")))
		return -1;
	va_start(ap, request);
	argument = va_arg(ap, void *);
	va_end(ap);
	return ((int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl"))(fd, request, argument);
}

off64_t lseek64(int fd, off64_t offset, int whence)
{
	return FAILS("lseek") ? -1 : REAL(lseek64)(fd, offset, whence);
}

ssize_t pread64(int fd, void *buf, size_t len, off64_t offset)
{
	return FAILS("pread") ? -1 : REAL(pread64)(fd, buf, len, offset);
}

/* cachestat(); QEMU's own calls by number are many, and only passed on */
long syscall(long number, ...)
{
	static long (*_Atomic real)(long, ...);
	long a[6];
	va_list ap;

	if (number == FPH_NR_CACHESTAT && FAILS("cachestat"))
		return -1;
	if (!real)
		real = REAL(syscall);
	va_start(ap, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

int fstat64(int fd, struct stat64 *st)
{
	return FAILS("fstat") ? -1 : REAL(fstat64)(fd, st);
}

int fstatfs64(int fd, struct statfs64 *fs)
{
	return FAILS("fstatfs") ? -1 : REAL(fstatfs64)(fd, fs);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Preloaded into QEMU: a page of guest memory breaks right after it was
 * write-protected for the first time, and before it is read: whoever reads it
 * gets SIGBUS, as from memory that the hardware has given up. (It is a mapping
 * behind the end of a file; no memory of this machine is broken.) FPH_TEST_SEEN
 * names a file that gets a byte then.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pagemap-abi.h"

#define PAGE	4096u

/* In the middle of what was protected */
static void break_one(const struct fph_pm_range *range)
{
	uint64_t at = (range->start + range->end) / 2 & ~(uint64_t)(PAGE - 1);
	int empty = memfd_create("broken", MFD_CLOEXEC);
	int seen = open(getenv("FPH_TEST_SEEN"), O_WRONLY | O_APPEND | O_CLOEXEC);

	if (empty < 0 || seen < 0 ||
	    mmap((void *)at, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, empty, 0) ==
	    MAP_FAILED || write(seen, "1", 1) != 1)
		abort();
	close(empty);
	close(seen);
}

int ioctl(int fd, unsigned long request, ...)
{
	static atomic_flag done = ATOMIC_FLAG_INIT;
	struct fph_pm_scan *scan;
	va_list ap;
	int n;

	va_start(ap, request);
	scan = va_arg(ap, void *);
	va_end(ap);
	n = ((int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl"))(fd, request, scan);
	if (request == FPH_PAGEMAP_SCAN && n > 0 && scan->vec_len &&
	    (scan->flags & FPH_PM_SCAN_WP_MATCHING) && !atomic_flag_test_and_set(&done))
		break_one((struct fph_pm_range *)(uintptr_t)scan->vec);
	return n;
}

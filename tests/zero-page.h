/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FPH_TEST_ZERO_PAGE_H
#define FPH_TEST_ZERO_PAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/*
 * Does a read of private memory get the zero page? Linux lets an architecture forbid
 * that for a process (mm_forbids_zeropage()), and kernels for VMs without nested page
 * tables never do it: there a read gets a page of its own, which can be written to
 * without a fault. smaps counts those, and not the zero page.
 */
static inline bool host_has_zero_page(void)
{
	size_t len = sysconf(_SC_PAGESIZE);
	volatile char *p = mmap(NULL, len, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	FILE *f = fopen("/proc/self/smaps", "re");
	uintptr_t start, end;
	bool within = false;
	char line[256];
	long rss = -1;

	if (p == MAP_FAILED || !f)
		abort();
	madvise((void *)p, len, MADV_NOHUGEPAGE);
	(void)*p;
	while (rss < 0 && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			within = start <= (uintptr_t)p && (uintptr_t)p < end;
		else if (within)
			sscanf(line, "Rss: %ld", &rss);
	}
	fclose(f);
	munmap((void *)p, len);
	return rss == 0;
}

#endif /* FPH_TEST_ZERO_PAGE_H */

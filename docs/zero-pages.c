/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * List the pages of a process that read as zero: zero-pages PID 0xSTART 0xEND
 * cc -o zero-pages zero-pages.c $(pkg-config --cflags --libs libfph)
 */
#include <fph/scan.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int print(void *start, uint64_t offset, uint64_t len, uint32_t page)
{
	const char *why = page & FPH_PAGE_ZERO_CONTENT ? "zeroes" :
			  page & FPH_PAGE_ZERO_PAGE ? "zero page" :
			  page == 0 ? "absent" : NULL;

	if (why)
		printf("%p %llu %s\n", (void *)((char *)start + offset), (unsigned long long)len, why);
	return 0;
}

int main(int argc, char **argv)
{
	struct fph_scanner_opts opts = { .sz = sizeof(opts) };
	struct fph_region r = { .sz = sizeof(r), .fd = -1 };	/* anonymous memory */
	struct fph_scanner *s;
	const char *why;
	int err;

	opts.pid = argc == 4 ? atoi(argv[1]) : 0;
	if (opts.pid <= 0)	/* 0 would be this process */
		return 2;
	r.host = (void *)(uintptr_t)strtoull(argv[2], NULL, 16);
	r.used = r.max = strtoull(argv[3], NULL, 16) - (uintptr_t)r.host;
	r.page_size = sysconf(_SC_PAGESIZE);
	if (fph_scanner_open_with(&s, &opts) < 0)
		return 1;
	err = fph_scanner_error(s, &why);
	if (err < 0)
		fprintf(stderr, "zero-pages: %s\n", why);
	else
		err = fph_map_region(s, &r, 0, r.used, FPH_MAP_CONTENT, print, r.host, NULL);
	if (err < 0)
		fprintf(stderr, "zero-pages: %s\n", strerror(-err));
	fph_scanner_close(s);
	return err < 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A watch: which pages of this process were written in an interval. Every other page
 * of SIZE MiB is written before, and some of them again.
 * cc -o written-pages written-pages.c $(pkg-config --cflags --libs libfph)
 */
#include <fph/watch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int print(void *opaque, uint64_t start, uint64_t len, uint32_t flags)
{
	(void)opaque;
	printf("written: offset 0x%llx, %llu bytes%s\n", (unsigned long long)start,
	       (unsigned long long)len, flags & FPH_WATCH_SWAPPED ? ", swapped out since" : "");
	return 0;
}

static int nothing(void *opaque, uint64_t start, uint64_t len, uint32_t flags)
{
	(void)opaque, (void)start, (void)len, (void)flags;
	return 0;
}

int main(int argc, char **argv)
{
	uint64_t size = (argc == 2 ? strtoull(argv[1], NULL, 10) : 1) << 20;
	size_t page = sysconf(_SC_PAGESIZE);
	struct fph_region r = { .sz = sizeof(r), .used = size, .max = size, .fd = -1 };
	struct fph_watch *w;
	const char *why;
	char *p;
	int err;

	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED || fph_watch_open(&w) < 0)
		return 1;
	r.host = p;
	r.page_size = page;
	err = fph_watch_error(w, &why);
	if (err == 0)
		err = fph_watch_add(w, &r, &why);
	if (err < 0) {
		fprintf(stderr, "written-pages: %s\n", why);
		fph_watch_close(w);
		return 3;
	}
	for (uint64_t i = 0; i < size; i += 2 * page)
		p[i] = 1;
	/* From here on writes are noticed */
	err = fph_watch_protect(w, &r, 0, size, nothing, NULL);
	p[2 * page] = 2;		/* had memory before */
	memset(p + 5 * page, 3, 3 * page);	/* one of them had, two had none */
	if (err == 0)
		err = fph_watch_written(w, &r, 0, size, print, NULL);
	if (err < 0)
		fprintf(stderr, "written-pages: %s\n", strerror(-err));
	fph_watch_remove(w, &r);
	fph_watch_close(w);
	return err < 0;
}

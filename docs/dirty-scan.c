/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A scan beside somebody who writes: memory is copied page by page, but for what
 * reads as zero. What matters is the order: first arm the log of what is written,
 * then look, then leave out; and what the log has afterwards is due again. The log
 * is a watch here; a VMM has that of KVM.
 * cc -pthread -o dirty-scan dirty-scan.c $(pkg-config --cflags --libs libfph)
 */
#include <fph/scan.h>
#include <fph/skip.h>
#include <fph/watch.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define NPAGES	4096
#define BITS	(8 * sizeof(long))

static size_t page;
static char *memory, *copy;
static unsigned long dirty[NPAGES / BITS];

/* Writes to pages all over the place, also to those that have no memory yet */
static void *write_pages(void *unused)
{
	(void)unused;
	for (unsigned int i = 0; i < NPAGES / 4; i++)
		memory[i * 2654435761u % NPAGES * page] = 1 + i % 100;
	return NULL;
}

static int marked(void *opaque, uint64_t start, uint64_t len, uint32_t flags)
{
	(void)opaque, (void)start, (void)len, (void)flags;
	return 0;
}

static int is_dirty(void *opaque, uint64_t start, uint64_t len, uint32_t flags)
{
	(void)opaque, (void)flags;
	for (uint64_t n = start / page; n < (start + len) / page; n++)
		dirty[n / BITS] |= 1ul << n % BITS;
	return 0;
}

static unsigned long copy_dirty(void)
{
	unsigned long sum = 0;

	for (uint64_t n = 0; n < NPAGES; n++) {
		if (!(dirty[n / BITS] >> n % BITS & 1))
			continue;
		memcpy(copy + n * page, memory + n * page, page);
		dirty[n / BITS] &= ~(1ul << n % BITS);
		sum++;
	}
	return sum;
}

static char *map(void)
{
	char *p = mmap(NULL, NPAGES * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		       -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

int main(void)
{
	struct fph_region r = { .sz = sizeof(r), .fd = -1 };
	struct fph_skip_counts counts = { .sz = sizeof(counts) };
	struct fph_skip_sink sink = { .dirty = dirty };
	unsigned long first, second;
	struct fph_scanner *s;
	struct fph_verdict v;
	struct fph_watch *w;
	pthread_t writer;
	const char *why;

	page = sysconf(_SC_PAGESIZE);
	memory = map();
	copy = map();
	r.host = memory;
	r.used = r.max = NPAGES * page;
	r.page_size = sink.granule = sink.align = page;
	sink.limit = r.used;
	if (!memory || !copy || fph_scanner_open(&s) < 0 || fph_watch_open(&w) < 0 ||
	    fph_skip_new(&sink.skip, NPAGES) < 0 || fph_region_classify(s, &r, &v) < 0)
		return 1;
	why = v.why;
	if (v.method == FPH_METHOD_NONE || fph_watch_add(w, &r, &why) < 0) {
		fprintf(stderr, "dirty-scan: %s\n", why);
		return 3;
	}
	memset(memory, 7, NPAGES / 8 * page);
	memset(dirty, 0xff, sizeof(dirty));
	if (pthread_create(&writer, NULL, write_pages, NULL) != 0)
		return 1;

	/* Arm, then look; what is found is taken out of the dirty bitmap */
	if (fph_watch_protect(w, &r, 0, r.used, marked, NULL) < 0 ||
	    fph_scan_region(s, &r, v.method, 0, r.used, fph_skip_sink_fn, &sink, NULL) < 0)
		return 1;
	fph_skip_get_counts(sink.skip, &counts);
	first = copy_dirty();

	/* Nobody writes any more: what was written since is due, left out or not */
	pthread_join(writer, NULL);
	if (fph_watch_written(w, &r, 0, r.used, is_dirty, NULL) < 0)
		return 1;
	fph_skip_revoke(sink.skip, dirty, 0, NPAGES);
	second = copy_dirty();

	printf("%lu pages left out, %lu copied, %lu after that: %s\n",
	       (unsigned long)counts.skipped, first, second,
	       memcmp(memory, copy, NPAGES * page) == 0 ? "equal" : "different");
	fph_watch_remove(w, &r);
	fph_watch_close(w);
	fph_scanner_close(s);
	fph_skip_free(sink.skip);
	return memcmp(memory, copy, NPAGES * page) != 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A program of somebody else, built with the headers of 0.1 (FPH_0_1), or with
 * those of a version to come, in which each struct has NEWER bytes more. It says
 * what it found, which is the same with each library.
 */
#ifdef FPH_0_1
#include "fph-0.1.h"
#else
#include <fph/hint.h>
#include <fph/scan.h>
#include <fph/skip.h>
#endif

#include <fph/virtio-fph.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef NEWER
#define NEWER 0
#endif
#define GUARD	64
#define NPAGES	64

/* With what is not the library's behind it */
#define SIZED(type) struct { struct type v; unsigned char newer[NEWER], guard[GUARD]; }

#define CHECK(cond) do {						\
	if (!(cond)) {							\
		fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond); \
		exit(1);						\
	}								\
} while (0)

/* Zero, but for its size, and in @result what is only newer: that is to become zero */
#define BEGIN(s, result) do {						\
	memset(&(s), 0, sizeof(s));					\
	memset((s).newer, (result) ? 0xff : 0, sizeof((s).newer));	\
	memset((s).guard, 0xa5, sizeof((s).guard));			\
	(s).v.sz = sizeof((s).v) + NEWER;				\
} while (0)

#define END(s) do {							\
	CHECK((s).v.sz == sizeof((s).v) + NEWER);			\
	CHECK(all_are((s).newer, sizeof((s).newer), 0));		\
	CHECK(all_are((s).guard, GUARD, 0xa5));				\
} while (0)

static uint64_t bytes;

static bool all_are(const unsigned char *p, size_t n, int byte)
{
	while (n && *p == byte)
		p++, n--;
	return !n;
}

#ifdef FPH_0_1
static int sum(void *opaque, uint64_t start, uint64_t len, unsigned int why)
#else
static int sum(void *opaque, uint64_t start, uint64_t len, enum fph_reason why)
#endif
{
	(void)opaque, (void)start, (void)why;
	bytes += len;
	return 0;
}

static int sum_zeroes(void *opaque, uint64_t start, uint64_t len, uint32_t page)
{
	(void)opaque, (void)start;
	if (page & FPH_PAGE_ZERO_CONTENT)
		bytes += len;
	return 0;
}

static void scan(void)
{
	size_t page = sysconf(_SC_PAGESIZE);
	SIZED(fph_scanner_opts) opts;
	SIZED(fph_scan_stats) stats;
	SIZED(fph_region) r;
	struct fph_scanner *s;
	struct fph_verdict v;
	char *p;

	p = mmap(NULL, NPAGES * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(p != MAP_FAILED && madvise(p, NPAGES * page, MADV_NOHUGEPAGE) == 0);
	memset(p, 1, 3 * page);
	memset(p + 8 * page, 0, 5 * page);

	BEGIN(opts, false);
	opts.v.cpu_percent = 100;
	CHECK(fph_scanner_open_with(&s, (void *)&opts) == 0);
	BEGIN(r, false);
	r.v.host = p;
	r.v.used = r.v.max = NPAGES * page;
	r.v.page_size = page;
	r.v.fd = -1;
	CHECK(fph_region_classify(s, (void *)&r, &v) == 0);
	CHECK(v.method == FPH_METHOD_PAGEMAP_SCAN || v.method == FPH_METHOD_PAGEMAP);
	BEGIN(stats, false);
	CHECK(fph_scan_region(s, (void *)&r, v.method, 0, r.v.used, sum, NULL, (void *)&stats) == 0);
	printf("absent: %zu pages, %zu ranges of %zu pages\n", (size_t)bytes / page,
	       (size_t)stats.v.ranges, (size_t)stats.v.scanned / page);
	bytes = 0;
	CHECK(fph_map_region(s, (void *)&r, 0, r.v.used, FPH_MAP_CONTENT, sum_zeroes, NULL,
			     (void *)&stats) == 0);
	printf("zeroes: %zu pages; %zu pages in both\n", (size_t)bytes / page,
	       (size_t)stats.v.scanned / page);
	END(opts);
	END(r);
	END(stats);
	fph_scanner_close(s);
	munmap(p, NPAGES * page);
}

/* What a guest calls free, taken out of a bitmap, beside what the host never had */
static void hint(void)
{
	struct {
		struct virtio_fph_report head;
		uint64_t run[2];
	} frame = {
		.head = { .count = 2 },
		.run = { VIRTIO_FPH_RUN(2, 3), VIRTIO_FPH_RUN(60, 4) },
	};
	unsigned long dirty[NPAGES / (8 * sizeof(long))];
	struct fph_skip_sink sink = { .dirty = dirty, .granule = 4096, .align = 4096,
				      .limit = NPAGES * 4096 };
	SIZED(fph_skip_counts) counts;
	SIZED(fph_hint_frame) info;
	struct fph_hint *h;
	const char *why;

	memset(dirty, 0xff, sizeof(dirty));
	CHECK(fph_skip_new(&sink.skip, NPAGES) == 0 && fph_hint_new(&h, 0) == 0);
	CHECK(fph_skip_sink_fn(&sink, 61 * 4096, 2 * 4096, FPH_UNMAPPED) == 0);
	frame.head.id = fph_hint_request(h, NPAGES);
	BEGIN(info, true);
	CHECK(fph_hint_feed(h, &frame, sizeof(frame), fph_skip_sink_fn, &sink, (void *)&info,
			    &why) == 0);
	BEGIN(counts, true);
	fph_skip_get_counts(sink.skip, (void *)&counts);
	printf("free: %d pages in %d ranges, %d left out, %d for that, %d for both\n",
	       (int)info.v.pages, (int)info.v.ranges, (int)counts.v.skipped,
	       (int)counts.v.reason[FPH_FREE], (int)counts.v.both);
	CHECK(sink.cleared == counts.v.skipped);
	END(info);
	END(counts);
	fph_hint_free(h);
	fph_skip_free(sink.skip);
}

int main(void)
{
	CHECK(fph_version()[0] == '0');
	scan();
	hint();
	return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>

#include "mock-sys.h"

static struct fph_scan_stats stats;

static struct fph_region anon_region(uint64_t npages)
{
	return (struct fph_region){
		.sz = sizeof(struct fph_region),
		.host = (void *)(uintptr_t)HOST,
		.used = npages * PAGE,
		.max = npages * PAGE,
		.page_size = PAGE,
		.fd = -1,
	};
}

/* Everything runs through each way to read page tables */
static enum fph_scanner_kind kind;

static enum fph_method anon_method(void)
{
	return kind == FPH_SCANNER_PAGEMAP ? FPH_METHOD_PAGEMAP : FPH_METHOD_PAGEMAP_SCAN;
}

/* Only where it can be asked for */
static int looks_ahead(void)
{
	return kind == FPH_SCANNER_PAGEMAP_SCAN;
}

static struct fph_scanner *open_scanner(void)
{
	struct fph_scanner_opts opts = { .sz = sizeof(opts), .kind = kind };
	struct fph_scanner *s;

	memset(&stats, 0, sizeof(stats));
	stats.sz = sizeof(stats);
	check_int(fph_scanner_open_sys(&s, &opts, &mock_sys), 0);
	return s;
}

static int scan_part(const struct fph_region *r, uint64_t start, uint64_t len,
		     struct catch *c)
{
	struct fph_scanner *s = open_scanner();
	int err;

	err = fph_scan_region(s, r, anon_method(), start, len, catch_sink, c,
			      &stats);
	fph_scanner_close(s);
	return err;
}

/* What a scan must find: the states of mock.pages that read as zero */
static void check_found_all(struct catch *c)
{
	for (uint64_t i = 0; i < mock.npages; i++) {
		char is = mock.pages[i];
		char want = is == M_NONE || is == M_ZERO ? is : 0;

		if (c->pages[i] != want)
			fail_msg("page %ju: found '%c', is '%c'", (uintmax_t)i,
				 c->pages[i] ? c->pages[i] : '-', is);
	}
}

struct pattern_row {
	const char *name;
	const char *pattern;	/* repeated over the region */
	uint64_t npages;
	uint64_t ranges;
	int calls;		/* of PAGEMAP_SCAN; 0: any */
	/* of the kernel */
	int eintr_every;
	uint64_t max_walk;
	uint64_t stale_walk;
	uint64_t slow_ahead;
	int short_every;
};

static const struct pattern_row patterns[] = {
	{ "nothing but absent pages", "o", 100, 1, 1 },
	{ "nothing but data", "d", 100, 0, 1 },
	{ "swapped pages are not absent", "s", 100, 0, 1 },
	{ "addresses without a mapping are not absent", "x", 100, 0, 1 },
	{ "the zero page alone", "z", 100, 1, 1 },
	{ "absent and zero in turn come in order", "oz", 100, 100, 1 },
	{ "all states in turn", "odszx", 100, 40, 1 },
	{ "in more than one page table", "ooodd", 5000, 1000, 0 },
	{ "reads that lack a page table", "ooodddd", 50000, 7143, 0, .short_every = 3 },
	{ "exactly 512 ranges", "od", 1024, 512, 0 },
	{ "one range more than 512", "od", 1026, 513, PAGE > 16384 ? 3 : 2 },
	{ "many times 512 ranges", "odd", 30000, 10000, 0 },
	{ "many times 512 ranges of both kinds", "ozdz", 30000, 22500, 0 },
	{ "empty: one look ahead, one step", "o", OF_4K(200000), 1, 2 },
	{ "empty: steps of a GiB", "o", OF_4K(600000), 1, 6 },
	{ "empty page tables: pieces of windows are put together", "o", OF_4K(200000), 1, 14,
	  .slow_ahead = 1000000 },
	{ "in use: one look ahead, then windows", "d", OF_4K(200000), 0, 14 },
	{ "window of exactly 64 MiB", "o", OF_4K(16384), 1, 1 },
	{ "one page more than a window", "o", OF_4K(16384) + 1, 1, 2 },
	{ "a range ends where the kind changes", "oozz", 8, 4, 1 },
	{ "interrupted every other time", "odz", 50000, 33333, 0, .eintr_every = 2 },
	{ "walks that end early", "ood", 9000, 3000, 0, .max_walk = 7 },
	{ "walks of one page", "oozd", 400, 200, 400, .max_walk = 1 },
	{ "stale walk_end, tail seen once", "ooodz", 9000, 3600, 0, .stale_walk = 200 },
	{ "stale walk_end, full vector", "od", 9000, 4500, 0, .stale_walk = 1000 },
	{ "stale walk_end, absent throughout", "o", OF_4K(40000), 1, 3, .stale_walk = 1023 },
};

static void check_pattern(void **state)
{
	const struct pattern_row *row = *state;
	struct fph_region r = anon_region(row->npages);
	struct catch c = {
		.pages = calloc(1, row->npages),
		.limit = row->npages * PAGE,
	};

	mock_reset();
	mock_memory(row->pattern, row->npages);
	mock.pfns = true;
	mock.eintr_every = row->eintr_every;
	mock.max_walk = row->max_walk;
	mock.stale_walk = row->stale_walk;
	mock.slow_ahead = row->slow_ahead;
	mock.short_every = row->short_every;

	check_int(scan_part(&r, 0, UINT64_MAX, &c), 0);
	check_found_all(&c);
	check_int(c.n, row->ranges);
	if (row->calls && kind == FPH_SCANNER_PAGEMAP_SCAN)
		check_int(mock.calls, row->calls);
	check(mock.widest > 0 || kind == FPH_SCANNER_PAGEMAP);
	check_int(stats.ranges, c.n);
	check_int(stats.calls, mock.calls);
	check_int(stats.scanned, row->npages * PAGE);
	check(stats.ns >= 1000);
	check_int(stats.given_up, 0);
	free(c.pages);
	mock_free();
}

/* Empty, in use, and empty again: what is in use is found, in short steps */
static void empty_and_not(void **state)
{
	static const uint64_t edges[] = { 0, 1, 16383, 16384, 16385, 262143, 262144, 262145, 300000 };
	struct fph_region r = anon_region(400000);

	for (size_t i = 0; i < ARRAY_SIZE(edges); i++) {
		struct catch c = { .pages = calloc(1, 400000), .limit = r.used };

		mock_reset();
		mock_memory("o", 400000);
		memset(mock.pages + edges[i], M_DATA, 50000);
		mock.pages[edges[i] + 50100] = M_SWAP;
		mock.pages[edges[i] + 60000] = M_NOVMA;
		check_int(scan_part(&r, 0, r.used, &c), 0);
		check_found_all(&c);
		free(c.pages);
		mock_free();
	}
}

/* Wherever it starts, it goes on at the borders of page tables (mock-sys.c) */
static void starts_anywhere(void **state)
{
	static const uint64_t starts[] = { 1, 100, 511, 512, 513, 4095 };
	struct fph_region r = anon_region(5000);

	for (size_t i = 0; i < ARRAY_SIZE(starts); i++) {
		struct catch c = { .limit = r.used };

		mock_reset();
		mock_memory("od", 5000);
		check_int(scan_part(&r, starts[i] * PAGE, r.used, &c), 0);
		check_int(c.n, (5000 - starts[i]) / 2);
		mock_free();
	}
}

struct part_row {
	const char *name;
	uint64_t start;
	uint64_t len;
	uint64_t used;		/* of 16 absent pages */
	uint64_t first;		/* what is found */
	uint64_t bytes;		/* 0: nothing, and the kernel is not asked */
};

static const struct part_row parts[] = {
	{ "all", 0, 16 * PAGE, 16 * PAGE, 0, 16 * PAGE },
	{ "a part", 3 * PAGE, 4 * PAGE, 16 * PAGE, 3 * PAGE, 4 * PAGE },
	{ "start rounds up", 1, 4 * PAGE - 1, 16 * PAGE, PAGE, 3 * PAGE },
	{ "end rounds down", 0, 4 * PAGE - 1, 16 * PAGE, 0, 3 * PAGE },
	{ "nothing is left of parts of two pages", PAGE - 1, PAGE, 16 * PAGE, 0, 0 },
	{ "less than a page", 100, 200, 16 * PAGE, 0, 0 },
	{ "no length", PAGE, 0, 16 * PAGE, 0, 0 },
	{ "clamped to what is used", 8 * PAGE, 16 * PAGE, 10 * PAGE, 8 * PAGE, 2 * PAGE },
	{ "partly used page is left alone", 0, 16 * PAGE, 2 * PAGE + 5, 0, 2 * PAGE },
	{ "starts at the end", 10 * PAGE, PAGE, 10 * PAGE, 0, 0 },
	{ "starts behind the end", 11 * PAGE, PAGE, 10 * PAGE, 0, 0 },
	{ "start near overflow", UINT64_MAX - 5, 10, 16 * PAGE, 0, 0 },
	{ "length that overflows means the rest", 4 * PAGE, UINT64_MAX, 16 * PAGE, 4 * PAGE, 12 * PAGE },
	{ "nothing used", 0, PAGE, 0, 0, 0 },
};

static void check_part(void **state)
{
	const struct part_row *row = *state;
	struct fph_region r = anon_region(16);
	struct catch c = { 0 };

	mock_reset();
	mock_memory("o", 16);
	r.used = row->used;
	check_int(scan_part(&r, row->start, row->len, &c), 0);
	check_int(c.n, row->bytes ? 1 : 0);
	check_int(c.bytes, row->bytes);
	check_int(c.first[0].start, row->first);
	check_int(mock.calls, row->bytes ? 1 : 0);
	check_int(stats.scanned, row->bytes);
	mock_free();
}

static void kernel_error_midway(void **state)
{
	uint64_t window = kind == FPH_SCANNER_PAGEMAP ? PER_TABLE * PAGE : FPH_SCAN_WINDOW;
	struct fph_region r = anon_region(60000);
	struct catch c = { 0 };

	mock_reset();
	mock_memory("o", 60000);
	mock.slow_ahead = 1000000;
	mock.fail_at = 3 + looks_ahead();
	mock.fail_with = -EPERM;
	check_int(scan_part(&r, 0, r.used, &c), -EPERM);
	check_int(mock.calls, mock.fail_at);
	/* two windows were found, and stay true */
	check_int(c.n, 1);
	check_int(c.bytes, 2 * window);
	check_int(stats.scanned, 2 * window);
	check_int(stats.calls, mock.fail_at);
	mock_free();
}

static void sink_error_stops(void **state)
{
	struct fph_region r = anon_region(60000);
	struct catch c = { .fail_at = 5, .fail_with = -ENOSPC };

	mock_reset();
	mock_memory("od", 60000);
	check_int(scan_part(&r, 0, r.used, &c), -ENOSPC);
	check_int(c.n, 5);
	check_int(mock.calls, 1 + looks_ahead());
	mock_free();
}

static void sink_error_of_last_range(void **state)
{
	struct fph_region r = anon_region(10);
	struct catch c = { .fail_at = 1, .fail_with = -ENOSPC };

	mock_reset();
	mock_memory("o", 10);
	check_int(scan_part(&r, 0, r.used, &c), -ENOSPC);
	check_int(c.n, 1);
	mock_free();
}

static void no_progress(void **state)
{
	struct fph_region r = anon_region(10);
	struct catch c = { 0 };

	mock_reset();
	mock_memory("o", 10);
	mock.stuck = true;
	/* no entries at all: the process has ended */
	mock.ended = kind == FPH_SCANNER_PAGEMAP;
	check_int(scan_part(&r, 0, r.used, &c),
		  kind == FPH_SCANNER_PAGEMAP ? -ESRCH : -EIO);
	check_int(mock.calls, kind == FPH_SCANNER_PAGEMAP ? FPH_READ_TRIES : 1);
	check_int(c.n, 0);

	mock_reset();
	mock_memory("o", 10);
	mock.too_many = true;
	check_int(scan_part(&r, 0, r.used, &c), -EIO);
	check_int(c.n, 0);
	mock_free();
}

/* Ranges no kernel should report must not get through either */
static int odd_scan(int fd, struct fph_pm_scan *arg)
{
	struct fph_pm_range *vec = (struct fph_pm_range *)(uintptr_t)arg->vec;
	const struct fph_pm_range odd[] = {
		{ HOST - PAGE, HOST - PAGE / 2, 0 },		/* before */
		{ HOST - PAGE, HOST + PAGE, 0 },		/* partly before */
		{ HOST + 2 * PAGE, HOST + 3 * PAGE, FPH_PM_PRESENT },
		{ HOST + 3 * PAGE, HOST + 4 * PAGE, FPH_PM_SWAPPED },
		{ HOST + 4 * PAGE, HOST + 5 * PAGE, FPH_PM_SWAPPED | FPH_PM_PFNZERO },
		{ HOST + 7 * PAGE + 9, HOST + 9 * PAGE + 9, 0 },/* misaligned */
		{ HOST + 8 * PAGE, HOST + 10 * PAGE, 0 },	/* overlapping */
		{ HOST + 5 * PAGE, HOST + 6 * PAGE, 0 },	/* going back */
		{ HOST + 12 * PAGE, HOST + 12 * PAGE, 0 },	/* empty */
		{ HOST + 14 * PAGE, HOST + 99 * PAGE, 0 },	/* beyond */
	};

	if (arg->start < HOST || arg->start >= HOST + 16 * PAGE)
		return 0;	/* the probe */
	memcpy(vec, odd, sizeof(odd));
	arg->walk_end = UINT64_MAX;
	return ARRAY_SIZE(odd);
}

static void odd_ranges(void **state)
{
	struct fph_region r = anon_region(16);
	struct fph_sys sys = mock_sys;
	struct catch c = { .pages = calloc(1, 16), .limit = 16 * PAGE };
	struct fph_scanner *s;

	mock_reset();
	sys.pagemap_scan = odd_scan;
	check_int(fph_scanner_open_sys(&s, NULL, &sys), 0);
	check_int(fph_scan_region(s, &r, FPH_METHOD_PAGEMAP_SCAN, 0, r.used,
				  catch_sink, &c, NULL), 0);
	/* page 8 whole, the half of 9 that two reports share not */
	check_mem(c.pages, "\0\0\0\0\0\0\0\0o\0\0\0\0\0oo", 16);
	fph_scanner_close(s);
	free(c.pages);
	mock_free();
}

/* Each kind of region and of scanner has its methods, and no others */
static void method_must_fit(void **state)
{
	static const struct {
		int fd;
		uint32_t flags;
		enum fph_method by_ioctl, by_entries;
	} rows[] = {
		{ -1, 0, FPH_METHOD_PAGEMAP_SCAN, FPH_METHOD_PAGEMAP },
		{ -1, FPH_REGION_SHARED, FPH_METHOD_NONE, FPH_METHOD_NONE },
		{ 5, FPH_REGION_SHARED, FPH_METHOD_SEEK, FPH_METHOD_SEEK },
		{ 5, 0, FPH_METHOD_PAGEMAP_SCAN_SEEK, FPH_METHOD_PAGEMAP_SEEK },
	};
	struct fph_scan_stats small = { .sz = FPH_SCAN_STATS_LEAST - 1 };
	struct fph_region r = anon_region(16);
	struct catch none = { 0 };
	struct fph_scanner *s;

	mock_reset();
	mock_memory("o", 16);
	mock_file("o", 16);
	s = open_scanner();
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		enum fph_method fits = kind == FPH_SCANNER_PAGEMAP ? rows[i].by_entries :
								     rows[i].by_ioctl;

		r.fd = rows[i].fd;
		r.flags = rows[i].flags;
		for (int m = 0; m <= FPH_METHOD_MAX; m++) {
			struct catch c = { 0 };
			bool fit = m == (int)fits && m != FPH_METHOD_NONE;

			mock.calls = 0;
			check_int(fph_scan_region(s, &r, m, 0, PAGE, catch_sink, &c, NULL),
				  fit ? 0 : -EINVAL);
			check_int(c.n, fit);
			check_int(mock.calls > 0, fit);
		}
	}
	r = anon_region(16);
	check_int(fph_scan_region(s, &r, anon_method(), 0, PAGE, catch_sink, &none, &small), -EINVAL);
	check_int(none.n, 0);
	fph_scanner_close(s);
	mock_free();
}

/* A kernel whose lseek() may lie is not asked for holes */
static void no_seek_on_old_kernels(void **state)
{
	struct fph_region r = anon_region(16);
	struct catch c = { 0 };
	struct fph_scanner *s;

	mock_reset();
	mock_memory("o", 16);
	mock_file("o", 16);
	mock.probe_error = -ENOTTY;
	s = open_scanner();
	r.fd = 5;
	check_int(fph_scan_region(s, &r, FPH_METHOD_PAGEMAP_SEEK, 0, PAGE, catch_sink, &c, NULL), -EINVAL);
	r.flags = FPH_REGION_SHARED;
	check_int(fph_scan_region(s, &r, FPH_METHOD_SEEK, 0, PAGE, catch_sink, &c, NULL), -EINVAL);
	check_int(mock.calls, 0);
	fph_scanner_close(s);
	mock_free();
}

/* Without privileges there are no PFNs: then the zero page is a page */
static void zero_page_unknown(void **state)
{
	struct fph_region r = anon_region(64);
	struct catch c = { .pages = calloc(1, 64), .limit = 64 * PAGE };

	mock_reset();
	mock_memory("oz", 64);
	check_int(scan_part(&r, 0, r.used, &c), 0);
	check_int(c.n, 32);
	for (int i = 0; i < 64; i++)
		check_int(c.pages[i], i % 2 ? 0 : M_NONE);
	free(c.pages);
	mock_free();
}

/* Of another process it is not known what is mapped */
static void entries_of_another(void **state)
{
	struct fph_scanner_opts opts = {
		.sz = sizeof(opts), .kind = FPH_SCANNER_PAGEMAP, .pid = 4711,
	};
	struct fph_region r = anon_region(4);
	struct fph_scanner *s;
	struct catch c = { 0 };

	mock_reset();
	mock_memory("dxod", 4);
	check_int(fph_scanner_open_sys(&s, &opts, &mock_sys), 0);
	check_int(fph_scan_region(s, &r, FPH_METHOD_PAGEMAP, 0, r.used, catch_sink, &c, NULL), 0);
	check_int(c.bytes, 2 * PAGE);
	fph_scanner_close(s);
	mock_free();
}

struct both_row {
	const char *name;
	const char *memory;	/* 8 pages */
	const char *file;
	const char *found;	/* 'o' where both agree */
};

static const struct both_row both_rows[] = {
	{ "nothing anywhere", "oooooooo", "oooooooo", "oooooooo" },
	{ "content of the file that nobody mapped", "oooooooo", "oddooooo", "o--ooooo" },
	{ "private copies over a hole", "oddooooo", "oooooooo", "o--ooooo" },
	{ "copies that are swapped out", "ossooooo", "oooooooo", "o--ooooo" },
	{ "each of them somewhere", "doododoo", "odoodood", "--o---o-" },
	{ "alternating against each other", "odododod", "dodododo", "--------" },
	{ "alternating together", "odododod", "odododod", "o-o-o-o-" },
	{ "the zero page proves nothing here", "zzzzoooo", "oooooooo", "----oooo" },
	{ "the file ends", "oooooooo", "oooo", "oooo----" },
	{ "a page of the file on the move", "oooooooo", "obbodbob", "o--o--o-" },
	{ "the same beside private copies", "odoodooo", "obboooob", "o--o-oo-" },
};

static void check_both(void **state)
{
	const struct both_row *row = *state;
	struct fph_region r = anon_region(8);
	struct catch c = { .pages = calloc(1, 8), .limit = 8 * PAGE };
	struct fph_verdict v;
	struct fph_scanner *s;

	mock_reset();
	mock_memory(row->memory, 8);
	mock_file(row->file, strlen(row->file));
	mock.pfns = true;
	r.fd = 5;
	s = open_scanner();
	check_int(fph_region_classify(s, &r, &v), 0);
	check_int(fph_scan_region(s, &r, v.method, 0, r.used, catch_sink, &c, &stats), 0);
	for (int i = 0; i < 8; i++)
		if ((c.pages[i] == M_NONE) != (row->found[i] == M_NONE) || c.pages[i] == M_ZERO)
			fail_msg("page %d: found '%c', not '%c'", i,
				 c.pages[i] ? c.pages[i] : '-', row->found[i]);
	fph_scanner_close(s);
	free(c.pages);
	mock_free();
}

/* To read a hole gives it memory here, too */
static void both_never_gives_up(void **state)
{
	struct fph_region r = anon_region(60000);
	struct catch c = { 0 };
	struct fph_verdict v;
	struct fph_scanner *s;

	mock_reset();
	mock_memory("o", 60000);
	mock_file("od", 60000);
	r.fd = 5;
	s = open_scanner();
	check_int(fph_region_classify(s, &r, &v), 0);
	check_int(fph_scan_region(s, &r, v.method, 0, r.used, catch_sink, &c, &stats), 0);
	check_int(stats.given_up, 0);
	check_int(c.n, 30000);
	check_int(stats.scanned, r.used);
	fph_scanner_close(s);
	mock_free();
}

/* Work is no more than its share, and nothing sleeps without a limit */
static void cpu_limit(void **state)
{
	struct fph_scanner_opts opts = { .sz = sizeof(opts), .kind = kind };
	static const uint32_t percents[] = { 0, 100, 50, 50, 20, 20, 1, 1 };
	struct fph_region r = anon_region(200000);
	struct fph_scanner *s;

	for (size_t i = 0; i < ARRAY_SIZE(percents); i++) {
		struct catch c = { 0 };
		uint64_t t0, busy;

		mock_reset();
		mock_memory("o", 200000);
		mock.tick = 400000;
		opts.cpu_percent = percents[i];
		check_int(fph_scanner_open_sys(&s, &opts, &mock_sys), 0);
		t0 = mock.clock;
		/* in one call, or in many that are too short for a sleep each */
		for (uint64_t at = 0, step = i % 2 ? PAGE * PER_TABLE : r.used; at < r.used; at += step) {
			struct catch part = { 0 };

			check_int(fph_scan_region(s, &r, anon_method(), at, step, catch_sink,
						  &part, NULL), 0);
			c.bytes += part.bytes;
		}
		check_int(c.bytes, r.used);
		busy = mock.clock - t0 - mock.slept;
		if (percents[i] % 100 == 0) {
			check_int(mock.slept, 0);
		} else {
			uint64_t share = busy * 100 / (busy + mock.slept);

			/* the last piece of work is not slept off */
			check(share >= percents[i] && share <= percents[i] + 25);
		}
		fph_scanner_close(s);
		mock_free();
	}
}

static void unusable_scanner(void **state)
{
	struct fph_region r = anon_region(16);
	struct catch c = { 0 };
	struct fph_scanner *s;

	mock_reset();
	mock_memory("o", 16);
	mock_file("o", 16);
	mock.open_error = -EACCES;
	s = open_scanner();
	check_int(fph_scan_region(s, &r, anon_method(), 0, PAGE, catch_sink, &c, NULL), -EACCES);
	r.fd = 5;
	r.flags = FPH_REGION_SHARED;
	check_int(fph_scan_region(s, &r, FPH_METHOD_SEEK, 0, PAGE, catch_sink, &c, NULL), -EACCES);
	fph_scanner_close(s);

	mock_reset();
	mock_memory("o", 16);
	s = open_scanner();
	mock.pid++;
	r = anon_region(16);
	check_int(fph_scan_region(s, &r, anon_method(), 0, PAGE, catch_sink, &c, NULL), -ESRCH);
	check_int(mock.calls, 0);
	check_int(c.n, 0);
	fph_scanner_close(s);
	mock_free();
}

static void stats_add_up(void **state)
{
	struct fph_region r = anon_region(16);
	struct catch a = { 0 }, b = { 0 };
	struct fph_scanner *s;

	mock_reset();
	mock_memory("od", 16);
	s = open_scanner();
	check_int(fph_scan_region(s, &r, anon_method(), 0, 8 * PAGE, catch_sink, &a, &stats), 0);
	check_int(fph_scan_region(s, &r, anon_method(), 8 * PAGE, 8 * PAGE, catch_sink, &b, &stats), 0);
	check_int(stats.ranges, 8);
	check_int(stats.calls, 2);
	check_int(stats.scanned, 16 * PAGE);
	check_int(stats.ns, 2000);
	fph_scanner_close(s);
	mock_free();
}

static int run_all(enum fph_scanner_kind k)
{
	struct fph_tests t = { 0 };

	kind = k;
	fph_test_add_rows(&t, patterns, check_pattern);
	fph_test_add_rows(&t, parts, check_part);
	fph_test_add(&t, "empty and not, at every edge", empty_and_not, NULL);
	fph_test_add(&t, "starts anywhere in a page table", starts_anywhere, NULL);
	fph_test_add_rows(&t, both_rows, check_both);
	fph_test_add(&t, "both: short holes are found", both_never_gives_up, NULL);
	fph_test_add(&t, "EPERM midway", kernel_error_midway, NULL);
	fph_test_add(&t, "error of the sink stops the scan", sink_error_stops, NULL);
	fph_test_add(&t, "error of the sink at the last range", sink_error_of_last_range, NULL);
	fph_test_add(&t, "kernel without progress", no_progress, NULL);
	fph_test_add(&t, "method must fit region and scanner", method_must_fit, NULL);
	fph_test_add(&t, "scanner that cannot be used", unusable_scanner, NULL);
	fph_test_add(&t, "stats add up", stats_add_up, NULL);
	fph_test_add(&t, "limit of CPU time", cpu_limit, NULL);
	if (k == FPH_SCANNER_PAGEMAP_SCAN) {
		fph_test_add(&t, "odd ranges", odd_ranges, NULL);
	} else {
		fph_test_add(&t, "kernel whose lseek() may lie", no_seek_on_old_kernels, NULL);
		fph_test_add(&t, "the zero page cannot be told", zero_page_unknown, NULL);
		fph_test_add(&t, "entries of another process", entries_of_another, NULL);
	}
	return fph_test_run(&t, k == FPH_SCANNER_PAGEMAP ? "scan: pagemap" : "scan: pagemap-scan");
}

int main(void)
{
	int failed = run_all(FPH_SCANNER_PAGEMAP_SCAN);

	return run_all(FPH_SCANNER_PAGEMAP) || failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <linux/magic.h>

#include "mock-sys.h"

static enum fph_scanner_kind kind;

struct map_row {
	const char *name;
	const char *memory;	/* repeated over the region */
	const char *content;	/* of what is present; NULL: it is not read */
	uint64_t npages;
	uint64_t runs;		/* 0: not counted */
	int reads;		/* calls, 0: not counted */
	bool file;		/* shared memory */
	uint64_t magic;		/* of another file */
	int eintr_every;
	uint64_t max_walk;
	uint64_t stale_walk;
	int read_error;
	uint64_t unreadable;
	int err;
	uint32_t flags;		/* of the region, besides */
};

static const struct map_row rows[] = {
	{ "nothing", "o", NULL, 1000, 1 },
	{ "everything in turn", "odsz", NULL, 1000, 1000 },
	{ "addresses without a mapping", "ooxx", NULL, 1000, 250 },
	{ "windows are put together", "d", NULL, 70000, 1 },
	{ "more runs than a window has", "od", NULL, 3000, 3000 },
	{ "interrupted", "odd", NULL, 50000, 0, .eintr_every = 2 },
	{ "walks that end early", "oodsz", NULL, 5000, 0, .max_walk = 7 },
	{ "walks that do not say how far they came", "oodsdz", NULL, 5000, 0, .stale_walk = 3 },

	{ "content: what is not present is not read", "osz", "d", 1000, 1000, 0 },
	{ "content: all zero", "d", "o", OF_4K(1000), 1, 4 },
	{ "content: none zero", "d", "d", OF_4K(1000), 1, 4 },
	{ "content: in turn", "d", "od", OF_4K(1000), OF_4K(1000), 4 },
	{ "content: pieces of a MiB", "d", "o", OF_4K(2560), 1, 10 },
	{ "content: short runs share a read", "od", "o", OF_4K(256), OF_4K(256), 1 },
	{ "content: many short runs", "odoodzds", "ood", 9000, 0 },
	{ "content: of a file", "odd", "od", 900, 0, 0, .file = true },
	{ "content: of a file, large", "d", "od", OF_4K(2560), OF_4K(2560), 10, .file = true },
	{ "content: a file that could be anything is not read", "d", NULL, 100, 1, 0, .magic = 0xef53 },
	{ "content: a pager's memory is not read", "dod", NULL, 99, 0, 0, .magic = TMPFS_MAGIC,
	  .flags = FPH_REGION_PAGED },
	{ "content: a page goes away", "d", "o", 512, 0, 0, .read_error = -EFAULT, .unreadable = 100 },
	{ "content: the first page goes away", "d", "o", 512, 0, 0, .read_error = -EFAULT, .unreadable = 0 },
	{ "content: no permission", "d", "o", 512, 0, 0, .read_error = -EPERM, .unreadable = 0, .err = -EPERM },
	{ "content: the process ends", "d", "o", 512, 0, 0, .read_error = -ESRCH, .unreadable = 256, .err = -ESRCH },
};

struct caught {
	uint64_t n;
	uint64_t end;
	uint32_t last;
	uint32_t *pages;
	int fail_at;
};

static int catch_pages(void *opaque, uint64_t start, uint64_t len, uint32_t page)
{
	struct caught *c = opaque;

	check(len > 0);
	check_int(start % PAGE, 0);
	check_int(len % PAGE, 0);
	check(start >= c->end);
	check(!c->n || start > c->end || page != c->last);	/* runs are as long as can be */
	for (uint64_t i = 0; i < len / PAGE; i++)
		c->pages[start / PAGE + i] = page | 1u << 31;
	c->end = start + len;
	c->last = page;
	c->n++;
	return c->fail_at == (int)c->n ? -ENOSPC : 0;
}

static struct fph_region make_region(const struct map_row *row)
{
	return (struct fph_region){
		.sz = sizeof(struct fph_region),
		.host = (void *)(uintptr_t)HOST,
		.used = row->npages * PAGE,
		.max = row->npages * PAGE,
		.page_size = PAGE,
		.fd = row->file || row->magic ? 5 : -1,
		.flags = row->flags | (row->file || row->magic ? FPH_REGION_SHARED : 0),
	};
}

static int map(const struct map_row *row, uint32_t flags, struct caught *c)
{
	struct fph_scanner_opts opts = { .sz = sizeof(opts), .kind = kind };
	struct fph_region r = make_region(row);
	struct fph_scanner *s;
	int err;

	mock_reset();
	mock_memory(row->memory, row->npages);
	if (row->content)
		mock_content(row->content);
	mock.pfns = true;
	mock.eintr_every = row->eintr_every;
	mock.max_walk = row->max_walk;
	mock.stale_walk = row->stale_walk;
	mock.read_error = row->read_error;
	mock.unreadable = row->unreadable;
	if (row->magic)
		mock.magic = row->magic;
	check_int(fph_scanner_open_sys(&s, &opts, &mock_sys), 0);
	err = fph_map_region(s, &r, 0, UINT64_MAX,
			     flags | (row->content || row->magic ? FPH_MAP_CONTENT : 0),
			     catch_pages, c, NULL);
	fph_scanner_close(s);
	return err;
}

/* What page @i must be; with an error in reading it is at least not zero */
static uint32_t wanted(const struct map_row *row, uint64_t i, bool *either)
{
	*either = row->read_error && i >= row->unreadable;
	switch (mock.pages[i]) {
	case M_DATA:
		if (row->content && mock.content[i] != M_DATA)
			return FPH_PAGE_PRESENT | FPH_PAGE_ZERO_CONTENT;
		return FPH_PAGE_PRESENT;
	case M_SWAP:
		return FPH_PAGE_SWAPPED;
	case M_ZERO:
		return FPH_PAGE_PRESENT | FPH_PAGE_ZERO_PAGE;
	default:
		return 0;
	}
}

static void check_with(const struct map_row *row, uint32_t flags)
{
	struct caught c = { .pages = calloc(row->npages, sizeof(*c.pages)) };
	bool either;

	check_int(map(row, flags, &c), row->err);
	for (uint64_t i = 0; !row->err && i < row->npages; i++) {
		uint32_t want = wanted(row, i, &either);

		if (mock.pages[i] == M_NOVMA)
			check_int(c.pages[i], 0);
		else if (!either || c.pages[i] != (FPH_PAGE_PRESENT | 1u << 31))
			check_int(c.pages[i], want | 1u << 31);
	}
	if (row->read_error && !row->err)
		check_int(c.pages[row->unreadable], FPH_PAGE_PRESENT | 1u << 31);
	if (row->runs)
		check_int(c.n, row->runs);
	if (row->reads)
		check_int(mock.reads, row->reads);
	if (!row->content)
		check_int(mock.reads, 0);
	/* What is just present is not in the answers */
	if (flags & FPH_MAP_MAPPED && !strcmp(row->memory, "d"))
		check_int(mock.reported, 0);
	free(c.pages);
	mock_free();
}

static void check_row(void **state)
{
	const struct map_row *row = *state;

	check_with(row, 0);
	if (!strchr(row->memory, 'x'))
		check_with(row, FPH_MAP_MAPPED);
}

static void receiver_stops(void **state)
{
	static const struct map_row row = { "", "od", "o", 1000 };
	struct caught c = { .pages = calloc(1000, sizeof(*c.pages)), .fail_at = 5 };

	check_int(map(&row, 0, &c), -ENOSPC);
	check_int(c.n, 5);
	c = (struct caught){ .pages = c.pages, .fail_at = 5 };
	check_int(map(&row, FPH_MAP_MAPPED, &c), -ENOSPC);
	check_int(c.n, 5);
	free(c.pages);
	mock_free();
}

static void bad_arguments(void **state)
{
	static const struct map_row row = { "", "d", "o", 16 };
	struct fph_scan_stats small = { .sz = FPH_SCAN_STATS_LEAST - 1 };
	struct fph_region r = make_region(&row);
	struct caught c = { 0 };
	struct fph_scanner *s;

	mock_reset();
	mock_memory("d", 16);
	check_int(fph_scanner_open_sys(&s, NULL, &mock_sys), 0);
	check_int(fph_map_region(s, &r, 0, PAGE, 4, catch_pages, &c, NULL), -EINVAL);
	check_int(fph_map_region(s, &r, 0, PAGE, 0, catch_pages, &c, &small), -EINVAL);
	check_int(fph_map_region(s, &r, 16 * PAGE, PAGE, 0, catch_pages, &c, NULL), 0);
	r.page_size = 100;
	check_int(fph_map_region(s, &r, 0, PAGE, 0, catch_pages, &c, NULL), -EINVAL);
	r = make_region(&row);
	mock.pid++;
	check_int(fph_map_region(s, &r, 0, PAGE, 0, catch_pages, &c, NULL), -ESRCH);
	check_int(mock.calls, 0);
	fph_scanner_close(s);
	mock_free();
}

static int no_sink(void *opaque, uint64_t start, uint64_t len, enum fph_reason reason)
{
	check(false);
	return 0;
}

/* Its tables are empty, which says nothing, and its PID may be another one's */
static void process_ended(void **state)
{
	static const struct fph_scanner_opts opts = {
		.sz = sizeof(opts), .kind = FPH_SCANNER_PAGEMAP_SCAN, .pid = 77,
	};
	static const struct map_row row = { .npages = 16 };
	struct fph_region r = make_region(&row);
	uint32_t pages[16] = { 0 };
	struct caught c = { .pages = pages };
	struct fph_scanner *s;

	mock_reset();
	mock_memory("o", 16);
	check_int(fph_scanner_open_sys(&s, &opts, &mock_sys), 0);
	check_int(fph_map_region(s, &r, 0, 16 * PAGE, FPH_MAP_MAPPED, catch_pages, &c, NULL), 0);
	/* At first only its memory goes; what the kernel says of it then is no answer */
	mock.torn_down = true;
	c = (struct caught){ .pages = pages };
	check_int(fph_map_region(s, &r, 0, 16 * PAGE, FPH_MAP_MAPPED, catch_pages, &c, NULL),
		  -ESRCH);
	check_int(fph_scan_region(s, &r, FPH_METHOD_PAGEMAP_SCAN, 0, 16 * PAGE, no_sink, NULL, NULL),
		  -ESRCH);
	mock.ended = true;
	check_int(fph_map_region(s, &r, 0, 16 * PAGE, FPH_MAP_MAPPED, catch_pages, &c, NULL),
		  -ESRCH);
	check_int(c.n, 0);
	fph_scanner_close(s);
	mock_free();
}

/* Each byte counts, wherever it is, and none outside */
static void zeroes(void **state)
{
	static const size_t lens[] = { 0, 1, 63, 64, 65, 127, 128, 4095, 4096 };
	unsigned char buf[4096 + 2];

	for (size_t i = 0; i < ARRAY_SIZE(lens); i++) {
		memset(buf, 0, sizeof(buf));
		buf[0] = buf[lens[i] + 1] = 0xff;
		check(fph_is_zero(buf + 1, lens[i]));
		for (size_t at = 0; at < lens[i]; at++) {
			buf[1 + at] = 1;
			check(!fph_is_zero(buf + 1, lens[i]));
			buf[1 + at] = 0;
		}
	}
}

static int run_all(enum fph_scanner_kind k)
{
	struct fph_tests t = { 0 };

	kind = k;
	fph_test_add_rows(&t, rows, check_row);
	fph_test_add(&t, "error of the receiver stops it", receiver_stops, NULL);
	fph_test_add(&t, "bad arguments", bad_arguments, NULL);
	fph_test_add(&t, "a process that has ended", process_ended, NULL);
	fph_test_add(&t, "zeroes", zeroes, NULL);
	return fph_test_run(&t, k == FPH_SCANNER_PAGEMAP ? "map: pagemap" : "map: pagemap-scan");
}

int main(void)
{
	int failed = run_all(FPH_SCANNER_PAGEMAP_SCAN);

	return run_all(FPH_SCANNER_PAGEMAP) || failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

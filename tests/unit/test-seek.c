/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>

#include "mock-sys.h"

struct seek_row {
	const char *name;
	const char *pattern;	/* of the file, repeated */
	uint64_t file_pages;
	uint64_t npages;	/* of the region */
	uint64_t ranges;
	uint64_t pages;		/* found */
	uint64_t offset;	/* of the region in the file, pages */
	uint64_t file_bytes;	/* 0: file_pages */
	uint64_t start;		/* of the scan */
	uint64_t len;		/* 0: all */
	int counts;		/* of cachestat(); 0: any */
	const char *memory;	/* in page tables, repeated; NULL: data is mapped */
	int calls;		/* of lseek() and PAGEMAP_SCAN, at most; 0: any */
	int fail_at;		/* call of lseek(), from 1 */
	int fail_with;
	uint64_t shrink_to;	/* from fail_at on */
	int err;
};

static const struct seek_row rows[] = {
	{ "empty file: ENXIO is a hole to its end", "o", 16, 16, 1, 16 },
	{ "all data", "d", 16, 16, 0, 0 },
	{ "hole at the start", "oodd", 4, 4, 1, 2 },
	{ "hole at the end", "ddoo", 4, 4, 1, 2 },
	{ "hole in the middle", "dood", 4, 4, 1, 2 },
	{ "data in the middle", "oddo", 4, 4, 2, 2 },
	{ "alternating, few", "od", 100, 100, 50, 50 },

	{ "file longer than the region", "o", 64, 16, 1, 16 },
	{ "region inside the file", "ddddoodd", 8, 4, 1, 2, .offset = 3 },
	{ "hole that starts before the region", "oooodd", 6, 4, 1, 2, .offset = 2 },
	{ "hole that ends behind the region", "ddoooo", 6, 4, 1, 2 },

	{ "hole past the end of the file is no memory", "o", 8, 16, 1, 8 },
	{ "data up to the end of the file", "d", 8, 16, 0, 0 },
	{ "trailing hole, region longer than the file", "do", 8, 16, 4, 4 },
	{ "file ends in the middle of a page", "o", 8, 16, 1, 7, .file_bytes = 7 * PAGE + 1 },
	{ "region behind the end of the file", "o", 8, 16, 0, 0, .offset = 20 },
	{ "file shrinks before ENXIO", "o", 16, 16, 1, 4, .fail_at = 1, .shrink_to = 4 * PAGE },
	{ "file shrinks in the data", "ddddoooo", 16, 16, 0, 0, .fail_at = 2, .shrink_to = 2 * PAGE },

	{ "a part", "o", 16, 16, 1, 4, .start = PAGE, .len = 4 * PAGE },
	{ "a part rounds inward", "o", 16, 16, 1, 3, .start = 1, .len = 4 * PAGE },

	{ "a page of data, wherever that ends", "d", 16, 16, 0, 0, .start = PAGE, .len = PAGE,
	  .calls = 1 },
	{ "holes of one page, however many", "od", OF_4K(20000), OF_4K(20000), OF_4K(10000),
	  OF_4K(10000), .calls = 300 },
	{ "short holes behind the end of the file", "od", 1000, 20000, 500, 500, .calls = 150 },
	{ "short holes, nothing mapped", "od", 20000, 20000, 10000, 10000, .memory = "o" },
	{ "short holes, half of the data mapped", "odod", 20000, 20000, 10000, 10000, .memory = "oood" },
	{ "short holes, data in swap", "odoo", 20000, 20000, 5001, 15000, .memory = "osoo" },
	{ "short holes, then long ones", "odododododododododododododododododododododododododododododododod"
	  "oooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooood", 20000, 20000, 5164, 14836 },
	{ "short holes, pages on the move", "odobodoo", 20000, 20000, 7501, 12500 },

	/* what lseek() calls a hole, and is none; the probe counts one */
	{ "a hole is asked for once", "o", 20000, 20000, 1, 20000, .counts = 2 },
	{ "a page on the move", "b", 1, 1, 0, 0, .counts = 2 },
	{ "pages on the move in a hole", "oobooooo", 8, 8, 2, 7, .counts = 8 },
	{ "at the start of a hole", "booooooo", 8, 8, 1, 7 },
	{ "at its end", "ooooooob", 8, 8, 1, 7 },
	{ "beside data", "dboobd", 6, 6, 1, 2 },
	{ "every other one", "ob", 1000, 1000, 500, 500 },
	{ "three of seven", "ooobbbo", 7000, 7000, 1001, 4000 },
	{ "allocated, not written: asked for once", "b", 20000, 20000, 0, 0, .counts = 2 },
	{ "in a region inside the file", "bbbboboo", 8, 4, 2, 3, .offset = 4 },
	{ "behind the region", "ooobbbbb", 8, 3, 1, 3, .counts = 2 },
	{ "behind the end of the file", "oobb", 4, 16, 1, 2, .file_bytes = 2 * PAGE, .counts = 2 },

	{ "lseek() fails", "od", 16, 16, 1, 1, .fail_at = 3, .fail_with = -EIO, .err = -EIO },
	{ "lseek() is not supported", "od", 16, 16, 0, 0, .fail_at = 1, .fail_with = -EINVAL, .err = -EINVAL },
};

static struct fph_scan_stats stats;

static int seek_scan(const struct seek_row *row, struct catch *c)
{
	struct fph_region r = {
		.sz = sizeof(r),
		.host = (void *)(uintptr_t)HOST,
		.used = row->npages * PAGE,
		.max = row->npages * PAGE,
		.page_size = PAGE,
		.fd = 5,
		.fd_offset = row->offset * PAGE,
		.flags = FPH_REGION_SHARED,
	};
	struct fph_verdict v;
	struct fph_scanner *s;
	int err;

	memset(&stats, 0, sizeof(stats));
	stats.sz = sizeof(stats);
	check_int(fph_scanner_open_sys(&s, NULL, &mock_sys), 0);
	check_int(fph_region_classify(s, &r, &v), 0);
	check_int(v.method, FPH_METHOD_SEEK);
	err = fph_scan_region(s, &r, v.method, row->start,
			      row->len ? row->len : UINT64_MAX, catch_sink, c,
			      &stats);
	fph_scanner_close(s);
	return err;
}

static void check_row(void **state)
{
	const struct seek_row *row = *state;
	struct catch c = {
		.pages = calloc(1, row->npages),
		.limit = row->npages * PAGE,
	};

	mock_reset();
	mock_file(row->pattern, row->file_pages);
	mock_memory(row->memory ? row->memory : "o", row->npages);
	for (uint64_t i = 0; !row->memory && i < row->npages; i++)
		if (i + row->offset < row->file_pages && mock.file[i + row->offset] == M_DATA)
			mock.pages[i] = M_DATA;
	mock.file_bytes = row->file_bytes;
	mock.fail_at = row->fail_at;
	mock.fail_with = row->fail_with;
	mock.shrink_to = row->shrink_to;

	check_int(seek_scan(row, &c), row->err);
	check_int(c.n, row->ranges);
	check_int(c.bytes, row->pages * PAGE);
	check_int(stats.given_up, 0);
	check_int(stats.ranges, c.n);
	/* fstat(), lseek() and cachestat() */
	check(stats.calls >= (uint64_t)mock.calls + mock.counts - 1);
	if (row->counts)
		check_int(mock.counts, row->counts);
	if (row->calls)
		check(mock.calls <= row->calls);
	for (uint64_t i = 0; i < row->npages; i++)
		if (c.pages[i])
			check_int(mock.file[i + row->offset], M_NONE);
	free(c.pages);
	mock_free();
}

/*
 * Pages come and go between two looks, so that lseek() finds as much data as
 * cachestat() counts pages. Whatever the sums say, only an empty count proves.
 */
static int64_t count_fewer(int fd, uint64_t offset, uint64_t len)
{
	int64_t n = mock_sys.file_pages(fd, offset, len);

	return n > 1 ? n - 1 : n;
}

static void sums_prove_nothing(void **state)
{
	struct fph_region r = {
		.sz = sizeof(r), .host = (void *)(uintptr_t)HOST, .used = 16 * PAGE,
		.max = 16 * PAGE, .page_size = PAGE, .fd = 5, .flags = FPH_REGION_SHARED,
	};
	struct catch c = { .pages = calloc(1, 16), .limit = r.used };
	struct fph_sys sys = mock_sys;
	struct fph_scanner *s;

	mock_reset();
	mock_file("dobbobbobbbbbbbo", 16);
	sys.file_pages = count_fewer;
	check_int(fph_scanner_open_sys(&s, NULL, &sys), 0);
	check_int(fph_scan_region(s, &r, FPH_METHOD_SEEK, 0, r.used, catch_sink, &c, NULL), 0);
	for (int i = 0; i < 16; i++)
		check(!c.pages[i] || mock.file[i] == M_NONE);
	check_int(c.bytes, 4 * PAGE);
	fph_scanner_close(s);
	free(c.pages);
	mock_free();
}

/* Scan 16 pages of data with another answer to lseek() */
static int scan_with_seek(int64_t (*seek)(int, uint64_t, int), struct catch *c)
{
	struct fph_region r = {
		.sz = sizeof(r),
		.host = (void *)(uintptr_t)HOST,
		.used = 16 * PAGE,
		.max = 16 * PAGE,
		.page_size = PAGE,
		.fd = 5,
		.flags = FPH_REGION_SHARED,
	};
	struct fph_sys sys = mock_sys;
	struct fph_scanner *s;
	int err;

	mock_reset();
	mock_file("o", 16);
	sys.seek = seek;
	check_int(fph_scanner_open_sys(&s, NULL, &sys), 0);
	err = fph_scan_region(s, &r, FPH_METHOD_SEEK, 0, r.used, catch_sink, c, NULL);
	fph_scanner_close(s);
	return err;
}

/* A file punched and filled between two calls must not hold the scan forever */
static int64_t flickering_seek(int fd, uint64_t offset, int whence)
{
	mock.calls++;
	return offset;
}

static void flickering_file(void **state)
{
	struct catch c = { 0 };

	check_int(scan_with_seek(flickering_seek, &c), 0);
	check_int(c.n, 0);
	check_int(mock.calls, 31);
	mock_free();
}

/* An answer before the question would make a hole of data */
static int64_t backward_seek(int fd, uint64_t offset, int whence)
{
	return offset ? (int64_t)offset - 1 : (int64_t)PAGE;
}

static void backward_answer(void **state)
{
	struct catch c = { 0 };

	check_int(scan_with_seek(backward_seek, &c), -EIO);
	check_int(c.bytes, PAGE);
	mock_free();
}

int main(void)
{
	struct fph_tests t = { 0 };

	fph_test_add_rows(&t, rows, check_row);
	fph_test_add(&t, "sums prove nothing", sums_prove_nothing, NULL);
	fph_test_add(&t, "file that changes between calls", flickering_file, NULL);
	fph_test_add(&t, "answer before the question", backward_answer, NULL);
	return fph_test_run(&t, "seek");
}

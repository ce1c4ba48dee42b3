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
	bool given_up;
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
	{ "file ends in the middle of a page", "o", 8, 16, 1, 7, .file_bytes = 7 * 4096 + 1 },
	{ "region behind the end of the file", "o", 8, 16, 0, 0, .offset = 20 },
	{ "file shrinks before ENXIO", "o", 16, 16, 1, 4, .fail_at = 1, .shrink_to = 4 * 4096 },
	{ "file shrinks in the data", "ddddoooo", 16, 16, 0, 0, .fail_at = 2, .shrink_to = 2 * 4096 },

	{ "a part", "o", 16, 16, 1, 4, .start = 4096, .len = 4 * 4096 },
	{ "a part rounds inward", "o", 16, 16, 1, 3, .start = 1, .len = 4 * 4096 },

	{ "short holes do not pay", "od", 4096, 4096, 512, 512, .given_up = true },
	{ "holes of 3 pages do not pay", "oood", 8192, 8192, 512, 1536, .given_up = true },
	{ "holes of 4 pages do", "ooood", 8000, 8000, 1600, 6400 },
	{ "511 short holes are not enough to tell", "od", 1022, 1022, 511, 511 },

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
	mock.file_bytes = row->file_bytes;
	mock.fail_at = row->fail_at;
	mock.fail_with = row->fail_with;
	mock.shrink_to = row->shrink_to;

	check_int(seek_scan(row, &c), row->err);
	check_int(c.n, row->ranges);
	check_int(c.bytes, row->pages * PAGE);
	check_int(stats.given_up, row->given_up);
	check_int(stats.ranges, c.n);
	for (uint64_t i = 0; i < row->npages; i++)
		if (c.pages[i])
			check_int(mock.file[i + row->offset], M_NONE);
	free(c.pages);
	mock_free();
}

/* What came before does not pay for a poor batch */
static void long_hole_first(void **state)
{
	const struct seek_row row = { .npages = 20000 };
	struct catch c = { 0 };

	mock_reset();
	mock_file("od", 20000);
	memset(mock.file, M_NONE, 10000);
	check_int(seek_scan(&row, &c), 0);
	check_int(stats.given_up, 1);
	check_int(c.n, 1024);	/* one good batch, one poor */
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
	check_int(mock.calls, 32);
	mock_free();
}

/* An answer before the question would make a hole of data */
static int64_t backward_seek(int fd, uint64_t offset, int whence)
{
	return offset ? (int64_t)offset - 1 : 4096;
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
	fph_test_add(&t, "a long hole does not pay for short ones", long_hole_first, NULL);
	fph_test_add(&t, "file that changes between calls", flickering_file, NULL);
	fph_test_add(&t, "answer before the question", backward_answer, NULL);
	return fph_test_run(&t, "seek");
}

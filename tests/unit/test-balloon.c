/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <endian.h>
#include <errno.h>

#include <fph/hint.h>
#include <fph/virtio-fph.h>

#include "fph-test.h"

#define PAGE		UINT64_C(4096)
#define RUN(pfn, pages)	VIRTIO_FPH_RUN(pfn, pages)
#define RUNS_MAX	VIRTIO_FPH_RUNS_MAX
#define PAGES_MAX	VIRTIO_FPH_BALLOON_PAGES_MAX
#define INFLATE		VIRTIO_FPH_BALLOON_INFLATE
#define DEFLATE		VIRTIO_FPH_BALLOON_DEFLATE
#define LENGTH		"length does not fit the number of runs"

struct range {
	uint64_t pfn, pages;
};

struct catch {
	struct range v[RUNS_MAX];
	size_t n, calls, fail_at;
};

static int catch_sink(void *opaque, uint64_t start, uint64_t len, enum fph_reason why)
{
	struct catch *c = opaque;

	check(why == FPH_FREE);
	check(len && start % PAGE == 0 && len % PAGE == 0);
	if (++c->calls == c->fail_at)
		return -ENOSPC;
	check(c->n < RUNS_MAX);
	c->v[c->n++] = (struct range){ start / PAGE, len / PAGE };
	return 0;
}

struct row {
	const char *name;
	const char *why;	/* it is malformed */
	unsigned int op;
	unsigned int count;
	uint64_t runs[4];
	int extra;		/* bytes more, or fewer, than header and runs */
	unsigned int reserved;
	struct range want[4];
};

static const struct row rows[] = {
	{ "a page", NULL, INFLATE, 1, { RUN(5, 1) }, .want = { { 5, 1 } } },
	{ "a page comes back", NULL, DEFLATE, 1, { RUN(5, 1) }, .want = { { 5, 1 } } },
	{ "runs that touch are one range", NULL, INFLATE, 3,
	  { RUN(5, 3), RUN(8, 1), RUN(10, 2) }, .want = { { 5, 4 }, { 10, 2 } } },
	{ "as many pages as may be", NULL, INFLATE, 1, { RUN(1 << 20, PAGES_MAX) },
	  .want = { { 1 << 20, PAGES_MAX } } },
	{ "one page more", "too many pages", INFLATE, 2, { RUN(5, 1), RUN(1 << 20, PAGES_MAX) } },
	{ "the last PFN", NULL, INFLATE, 1, { RUN((UINT64_C(1) << 48) - 1, 1) },
	  .want = { { (UINT64_C(1) << 48) - 1, 1 } } },
	{ "shorter than its header", "shorter than its header", INFLATE, 0, .extra = -1 },
	{ "operation 0", "unknown operation", 0, 1, { RUN(5, 1) } },
	{ "operation 3", "unknown operation", DEFLATE + 1, 1, { RUN(5, 1) } },
	{ "operation of two bytes", "unknown operation", INFLATE | 0x100, 1, { RUN(5, 1) } },
	{ "what is reserved says nothing", NULL, INFLATE, 1, { RUN(5, 1) }, .reserved = 0xffff,
	  .want = { { 5, 1 } } },
	{ "no runs", "bad number of runs", INFLATE, 0 },
	{ "fewer runs than announced", LENGTH, INFLATE, 3, { RUN(5, 1), RUN(7, 1), RUN(9, 1) },
	  .extra = -8 },
	{ "more runs than announced", LENGTH, INFLATE, 1, { RUN(5, 1) }, .extra = 8 },
	{ "a byte short", LENGTH, INFLATE, 1, { RUN(5, 1) }, .extra = -1 },
	{ "a byte long", LENGTH, INFLATE, 1, { RUN(5, 1) }, .extra = 1 },
	{ "overlap", "overlap", INFLATE, 2, { RUN(5, 2), RUN(6, 1) } },
	{ "the same page twice", "overlap", DEFLATE, 2, { RUN(5, 1), RUN(5, 1) } },
	{ "descending", "ascend", INFLATE, 2, { RUN(5, 1), RUN(3, 1) } },
	{ "wrong at its end", "ascend", INFLATE, 4, { RUN(5, 1), RUN(7, 1), RUN(9, 1), RUN(1, 1) } },
};

/* The frame ends where the allocation does, so that a sanitizer sees a step beyond it */
static int decode(const struct row *r, struct catch *c, size_t offset, unsigned int *op,
		  uint64_t *pages, const char **why)
{
	struct virtio_fph_balloon header = {
		.op = htole16(r->op),
		.reserved = htole16(r->reserved),
		.count = htole32(r->count),
	};
	unsigned char all[sizeof(header) + sizeof(r->runs) + 8] = { 0 };
	size_t len = sizeof(header) + r->count * 8 + r->extra;
	unsigned char *buf = malloc(offset + len);
	int ret;

	check(buf);
	memcpy(all, &header, sizeof(header));
	for (size_t i = 0; i < r->count; i++) {
		uint64_t run = htole64(r->runs[i]);

		memcpy(all + sizeof(header) + i * 8, &run, sizeof(run));
	}
	memcpy(buf + offset, all, len);
	*op = 99;
	*pages = 99;
	*why = "not written";
	ret = fph_balloon_decode(buf + offset, len, catch_sink, c, op, pages, why);
	free(buf);
	return ret;
}

static struct catch c;

static void check_row(void **state)
{
	const struct row *r = *state;

	for (size_t offset = 0; offset < 8; offset++) {
		uint64_t pages, sum = 0;
		const char *why;
		unsigned int op;
		int ret;

		c.n = c.calls = c.fail_at = 0;
		ret = decode(r, &c, offset, &op, &pages, &why);
		if (r->why) {
			check_int(ret, -EBADMSG);
			check(why && strstr(why, r->why));
			check_int(c.calls, 0);
			check(op == 99 && pages == 99);
			continue;
		}
		check_int(ret, 0);
		check(!why);
		check_int(op, r->op);
		for (size_t i = 0; i < ARRAY_SIZE(r->want) && r->want[i].pages; i++) {
			check(i < c.n);
			check_mem(&c.v[i], &r->want[i], sizeof(c.v[i]));
			sum += r->want[i].pages;
		}
		check_int(pages, sum);
	}
}

static void largest_frame(void **state)
{
	static struct { struct virtio_fph_balloon header; uint64_t runs[RUNS_MAX + 1]; } f;
	const size_t header = sizeof(f.header);
	const char *why;
	unsigned int op;
	uint64_t pages;

	for (size_t i = 0; i < ARRAY_SIZE(f.runs); i++)
		f.runs[i] = htole64(RUN(i * 32, 16));
	f.header = (struct virtio_fph_balloon){ .op = htole16(INFLATE), .count = htole32(RUNS_MAX) };
	c.n = c.calls = c.fail_at = 0;
	check_int(fph_balloon_decode(&f, header + RUNS_MAX * 8, catch_sink, &c, &op, &pages, &why), 0);
	check_int(pages, PAGES_MAX);
	check_int(c.n, RUNS_MAX);

	f.header.count = htole32(RUNS_MAX + 1);
	c.calls = 0;
	check_int(fph_balloon_decode(&f, sizeof(f), catch_sink, &c, &op, &pages, &why), -EBADMSG);
	check(strstr(why, "number of runs"));
	check_int(c.calls, 0);
}

static void sink_that_fails(void **state)
{
	static const struct row r = { "", NULL, INFLATE, 2, { RUN(5, 1), RUN(9, 1) } };
	uint64_t pages;
	const char *why;
	unsigned int op;

	for (size_t i = 1; i <= 2; i++) {
		c.n = c.calls = 0;
		c.fail_at = i;
		check_int(decode(&r, &c, 0, &op, &pages, &why), -ENOSPC);
		check(!why && op == 99 && pages == 99);
		check_int(c.calls, i);
	}
}

/* Word for word what docs/virtio-fph.md shows */
static void example_of_the_specification(void **state)
{
	static const unsigned char frames[2][16] = {
		{ 1, 0, 0, 0, 1, 0, 0, 0, 0xff, 0x03, 0, 0, 8, 0, 0, 0 },
		{ 2, 0, 0, 0, 1, 0, 0, 0, 0xff, 0x01, 0, 2, 8, 0, 0, 0 },
	};
	static const struct range want[] = { { 0x80000, 1024 }, { 0x80200, 512 } };

	for (size_t i = 0; i < 2; i++) {
		const char *why;
		unsigned int op;
		uint64_t pages;

		c.n = c.calls = c.fail_at = 0;
		check_int(fph_balloon_decode(frames[i], 16, catch_sink, &c, &op, &pages, &why), 0);
		check_int(op, i + 1);
		check_int(c.n, 1);
		check_mem(&c.v[0], &want[i], sizeof(want[i]));
		check_int(pages, want[i].pages);
	}
}

/* Of what the stock balloon agreed on, all has to be known */
static void stock_features(void **state)
{
	static const struct { uint64_t features, unknown; } all[] = {
		{ 0, 0 },
		/* All that QEMU 10 and Linux 6.12 know */
		{ UINT64_C(0x1fc0300003f), 0 },
		{ UINT64_C(0x3ffff000000), 0 },
		/* One that was posted, for pages that the host made zero */
		{ UINT64_C(1) << 32 | 1 << 3 | 1 << 6, 1 << 6 },
		{ 1 << 23, 1 << 23 },
		{ UINT64_C(1) << 42, UINT64_C(1) << 42 },
		{ UINT64_C(1) << 63 | 1, UINT64_C(1) << 63 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		check_int(fph_virtio_balloon_unknown(all[i].features), all[i].unknown);
}

int main(void)
{
	struct fph_tests t = { 0 };

	fph_test_add_rows(&t, rows, check_row);
	fph_test_add(&t, "largest frame", largest_frame, NULL);
	fph_test_add(&t, "sink that fails", sink_that_fails, NULL);
	fph_test_add(&t, "example of the specification", example_of_the_specification, NULL);
	fph_test_add(&t, "features of the stock balloon", stock_features, NULL);
	return fph_test_run(&t, "balloon");
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <unistd.h>

#include "table.h"

/* One call of fph_scan_region(); offsets are bytes relative to r->host */
struct scan {
	struct fph_scanner *s;
	const struct fph_region *r;
	uint64_t start;		/* both are whole host pages */
	uint64_t end;
	uint64_t pos;		/* everything below was looked at */
	fph_sink_fn sink;
	void *opaque;
	struct fph_scan_stats *stats;

	/* A range that the next one may still extend */
	uint64_t pend_start;
	uint64_t pend_end;	/* == pend_start: none */
	enum fph_reason pend_why;

	/* SEEK only: holes of the current batch */
	uint64_t batch_holes;
	uint64_t batch_bytes;
	bool fragmented;	/* they were short */
};

static int flush(struct scan *c)
{
	uint64_t start = c->pend_start;
	uint64_t len = c->pend_end - start;
	int err;

	c->pend_start = c->pend_end;
	if (!len)
		return 0;
	c->stats->ranges++;
	err = c->sink(c->opaque, start, len, c->pend_why);
	return err < 0 ? err : 0;
}

/* Windows cut long ranges into pieces: put them together again */
static int emit(struct scan *c, uint64_t start, uint64_t end,
		enum fph_reason why)
{
	uint64_t page = c->s->page_size;
	int err;

	start += -start & (page - 1);
	end &= ~(page - 1);
	if (start >= end)
		return 0;

	if (start == c->pend_end && why == c->pend_why) {
		c->pend_end = end;
		return 0;
	}
	err = flush(c);
	if (err < 0)
		return err;
	c->pend_start = start;
	c->pend_end = end;
	c->pend_why = why;
	return 0;
}

/* What the categories of a reported page promise; false if nothing */
static bool reason_of(uint64_t categories, enum fph_reason *why)
{
	switch (categories & (FPH_PM_ANY | FPH_PM_PFNZERO)) {
	case 0:
		*why = FPH_UNMAPPED;
		return true;
	case FPH_PM_PRESENT | FPH_PM_PFNZERO:
		*why = FPH_ZERO_MAPPED;
		return true;
	default:
		return false;
	}
}

/* Nothing behind the end of the file is memory: touching it is SIGBUS */
static int clamp_to_file(struct scan *c, uint64_t *end)
{
	uint64_t size;
	int err;

	c->stats->calls++;
	err = c->s->sys->file_size(c->r->fd, &size);
	if (err < 0)
		return err;
	size = size > c->r->fd_offset ? size - c->r->fd_offset : 0;
	*end = min_u64(*end, size & ~(c->s->page_size - 1));
	return 0;
}

/* Offset of the next data or hole at or after @from, clamped to @end */
static int seek_next(struct scan *c, uint64_t from, int whence, uint64_t end,
		     uint64_t *ret)
{
	int64_t to;

	c->stats->calls++;
	from += c->r->fd_offset;
	to = c->s->sys->seek(c->r->fd, from, whence);
	if (to < 0)
		return (int)to;
	if ((uint64_t)to < from)
		return -EIO;
	*ret = min_u64(to - c->r->fd_offset, end);
	return 0;
}

/*
 * Emit what is empty of a hole that lseek() found. To lseek() a hole is also
 * what is in the page cache but not uptodate: the copy of a page that the
 * kernel is moving elsewhere, for a moment. cachestat() counts whatever has an
 * entry in the page cache, a page as well as swap, and the entry of a page with
 * content is replaced, never removed, until the content is discarded. So a
 * count of 0 alone is the proof, for each page by itself; other counts prove
 * nothing, not even the difference of two of them.
 */
static int emit_empty(struct scan *c, uint64_t start, uint64_t end)
{
	uint64_t page = c->s->page_size;
	uint64_t half;
	int64_t n;
	int err;

	start += -start & (page - 1);
	end &= ~(page - 1);
	if (start >= end)
		return 0;
	fph_pace(c->s);
	c->stats->calls++;
	n = c->s->sys->file_pages(c->r->fd, c->r->fd_offset + start, end - start);
	if (n < 0)
		return (int)n;
	if (n == 0)
		return emit(c, start, end, FPH_UNMAPPED);
	/* All of it: allocated and never written, or a single page on the move */
	if ((uint64_t)n >= (end - start) / page)
		return 0;
	half = start + (end - start) / page / 2 * page;
	err = emit_empty(c, start, half);
	return err < 0 ? err : emit_empty(c, half, end);
}

static bool short_holes(struct scan *c, uint64_t hole)
{
	bool are;

	/* Page tables do not know where the file of private copies has data */
	if (!(c->r->flags & FPH_REGION_SHARED))
		return false;
	c->batch_holes++;
	c->batch_bytes += hole;
	if (c->batch_holes < FPH_SEEK_BATCH)
		return false;
	are = c->batch_bytes < FPH_SEEK_BATCH * FPH_SEEK_MIN_PAGES * c->s->page_size;
	c->batch_holes = 0;
	c->batch_bytes = 0;
	return are;
}

/*
 * Emit the holes in [*pos, end), or in the front of that if c->fragmented is
 * true afterwards; *pos is how far that came.
 */
static int seek_holes(struct scan *c, uint64_t *pos, uint64_t end)
{
	int err = clamp_to_file(c, &end);

	if (err < 0)
		return err;

	while (*pos < end) {
		uint64_t hole = *pos;
		uint64_t data = hole;

		fph_pace(c->s);
		err = seek_next(c, *pos, SEEK_DATA, end, &data);
		if (err == -ENXIO) {
			/* No data up to the end of the file, wherever that is now */
			err = clamp_to_file(c, &end);
			data = end;
		}
		if (err < 0)
			return err;

		if (data > hole) {
			err = emit_empty(c, hole, data);
			if (err < 0)
				return err;
			*pos = data;
			c->fragmented = short_holes(c, data - hole);
			if (c->fragmented)
				return 0;
		}
		/* To find the end of data the kernel goes through all of it, far beyond ours */
		if (end - *pos <= c->s->page_size) {
			*pos = end;
			break;
		}

		err = seek_next(c, *pos, SEEK_HOLE, end, &hole);
		if (err == -ENXIO)
			break;		/* the file shrank: nothing is left */
		if (err < 0)
			return err;
		/* Punched meanwhile? Then leave that page: it has to end somewhere */
		*pos = max_u64(hole, *pos + c->s->page_size);
	}
	return 0;
}

static int run_of_anon(void *opaque, uint64_t start, uint64_t end,
		       uint64_t categories)
{
	enum fph_reason why;

	return reason_of(categories, &why) ? emit(opaque, start, end, why) : 0;
}

/*
 * A private mapping of a file: an absent entry hides content of the file, a
 * hole in the file hides private copies. Zero is only where both agree.
 */
static int run_of_copies(void *opaque, uint64_t start, uint64_t end,
			 uint64_t categories)
{
	struct scan *c = opaque;
	enum fph_reason why;

	if (!reason_of(categories, &why) || why != FPH_UNMAPPED)
		return 0;
	return seek_holes(c, &start, end);
}

/* What is mapped is no hole. Of what is not, only the file knows. */
static int run_of_file(void *opaque, uint64_t start, uint64_t end,
		       uint64_t categories)
{
	return categories & FPH_PM_ANY ? 0 : emit_empty(opaque, start, end);
}

static int scan_tables(struct scan *c, fph_run_fn run, uint64_t end)
{
	struct fph_window w = {
		.s = c->s,
		.base = (uintptr_t)c->r->host,
		.pos = c->pos,
		.end = end,
		.run = run,
		.opaque = c,
	};
	int err = 0;

	while (!err && w.pos < w.end) {
		fph_pace(c->s);
		err = fph_window_next(&w);
	}
	c->stats->calls += w.calls;
	c->pos = w.pos;
	return err;
}

/*
 * All holes are found, however short they are: one that is read gets memory,
 * even through a private mapping.
 */
static int scan_file(struct scan *c)
{
	uint64_t end;
	int err;

	do {
		c->fragmented = false;
		err = seek_holes(c, &c->pos, c->end);
		if (err < 0 || !c->fragmented)
			return err;
		end = min_u64(c->end, c->pos + FPH_SCAN_WINDOW);
		err = clamp_to_file(c, &end);
		if (!err)
			err = scan_tables(c, run_of_file, end);
	} while (!err && c->pos < c->end);
	return err;
}

static int run(struct scan *c, enum fph_method method)
{
	int err, flushed;

	switch (method) {
	case FPH_METHOD_SEEK:
		err = scan_file(c);
		break;
	case FPH_METHOD_PAGEMAP_SCAN_SEEK:
	case FPH_METHOD_PAGEMAP_SEEK:
		err = scan_tables(c, run_of_copies, c->end);
		break;
	default:
		err = scan_tables(c, run_of_anon, c->end);
		break;
	}
	/* What was found before an error is still true */
	flushed = flush(c);
	return err < 0 ? err : flushed;
}

/* Only what fph_region_classify() may have decided for such a region */
static bool method_fits(const struct fph_scanner *s, const struct fph_region *r,
			enum fph_method method)
{
	bool shared = r->flags & FPH_REGION_SHARED;
	bool by_entries = s->kind == FPH_SCANNER_PAGEMAP;

	switch (method) {
	case FPH_METHOD_PAGEMAP_SCAN:
	case FPH_METHOD_PAGEMAP:
		return r->fd < 0 && !shared &&
		       by_entries == (method == FPH_METHOD_PAGEMAP);
	case FPH_METHOD_SEEK:
		return r->fd >= 0 && shared && !s->no_seek;
	case FPH_METHOD_PAGEMAP_SCAN_SEEK:
	case FPH_METHOD_PAGEMAP_SEEK:
		return r->fd >= 0 && !shared && !s->no_seek &&
		       by_entries == (method == FPH_METHOD_PAGEMAP_SEEK);
	default:
		return false;
	}
}

int fph_scan_region(struct fph_scanner *s, const struct fph_region *r,
		    enum fph_method method, uint64_t start, uint64_t len,
		    fph_sink_fn sink, void *opaque,
		    struct fph_scan_stats *stats)
{
	struct fph_scan_stats sum = { .sz = sizeof(sum) };
	struct fph_region known;
	struct scan c = { .s = s, .r = &known, .stats = &sum, .sink = sink, .opaque = opaque };
	const char *why;
	uint64_t t0;
	int err;

	if (stats && fph_sized_in(&sum, sizeof(sum), stats, FPH_SCAN_STATS_LEAST) < 0)
		return -EINVAL;
	err = fph_region_read(s, r, &known);
	if (err < 0)
		return err;
	err = fph_scanner_error(s, &why);
	if (err < 0)
		return err;
	if (!method_fits(s, &known, method))
		return -EINVAL;

	if (!fph_clamp(s, &known, start, len, &c.start, &c.end))
		return 0;
	c.pos = c.pend_start = c.pend_end = c.start;

	t0 = s->sys->now_ns();
	fph_pace_begin(s);
	err = run(&c, method);
	fph_pace_end(s);
	sum.ns += s->sys->now_ns() - t0;
	sum.scanned += c.pos - c.start;
	if (stats)
		fph_sized_out(stats, &sum, sizeof(sum));
	return err;
}

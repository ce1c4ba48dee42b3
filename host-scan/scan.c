/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <unistd.h>

#include "scanner.h"

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

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* What the categories of a reported page promise; false if nothing */
static bool reason_of(uint64_t categories, enum fph_reason *why)
{
	switch (categories &
		(FPH_PM_PRESENT | FPH_PM_SWAPPED | FPH_PM_PFNZERO)) {
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

static int pm_window(struct scan *c)
{
	uint64_t base = (uintptr_t)c->r->host;
	uint64_t limit = min_u64(c->end, c->pos + FPH_SCAN_WINDOW);
	uint64_t seen = c->pos;
	struct fph_pm_scan arg;
	int n, err;

	fph_pm_query(&arg, base + c->pos, base + limit, c->s->vec,
		     FPH_SCAN_VEC_LEN);
	c->stats->calls++;
	n = c->s->sys->pagemap_scan(c->s->fd, &arg);
	if (n == -EINTR)
		return 0;
	if (n < 0)
		return n;
	if (n > FPH_SCAN_VEC_LEN)
		return -EIO;

	for (int i = 0; i < n; i++) {
		const struct fph_pm_range *v = &c->s->vec[i];
		enum fph_reason why;
		uint64_t start, end;

		if (v->start < base || v->end < base)
			continue;
		start = max_u64(v->start - base, seen);
		end = min_u64(v->end - base, limit);
		if (start >= end)
			continue;
		seen = end;
		if (!reason_of(v->categories, &why))
			continue;
		err = emit(c, start, end, why);
		if (err < 0)
			return err;
	}

	/* walk_end may be stale: what was reported was walked as well */
	if (arg.walk_end > base)
		seen = max_u64(seen, min_u64(arg.walk_end - base, limit));
	seen &= ~(c->s->page_size - 1);
	if (seen <= c->pos)
		return -EIO;	/* neither ranges nor progress: it would never end */
	c->pos = seen;
	return 0;
}

static int pm_scan(struct scan *c)
{
	while (c->pos < c->end) {
		int err = pm_window(c);

		if (err < 0)
			return err;
	}
	return 0;
}

/* Nothing behind the end of the file is memory: touching it is SIGBUS */
static int clamp_to_file(struct scan *c)
{
	uint64_t size;
	int err;

	c->stats->calls++;
	err = c->s->sys->file_size(c->r->fd, &size);
	if (err < 0)
		return err;
	size = size > c->r->fd_offset ? size - c->r->fd_offset : 0;
	c->end = min_u64(c->end, size & ~(c->s->page_size - 1));
	return 0;
}

/* Offset of the next data or hole at or after c->pos, clamped to c->end */
static int seek_next(struct scan *c, int whence, uint64_t *ret)
{
	uint64_t from = c->r->fd_offset + c->pos;
	int64_t to;

	c->stats->calls++;
	to = c->s->sys->seek(c->r->fd, from, whence);
	if (to < 0)
		return (int)to;
	if ((uint64_t)to < from)
		return -EIO;
	*ret = min_u64(to - c->r->fd_offset, c->end);
	return 0;
}

static bool not_worth_it(struct scan *c, uint64_t hole)
{
	bool poor;

	c->batch_holes++;
	c->batch_bytes += hole;
	if (c->batch_holes < FPH_SEEK_BATCH)
		return false;
	poor = c->batch_bytes < FPH_SEEK_BATCH * FPH_SEEK_MIN_PAGES *
					c->s->page_size;
	c->batch_holes = 0;
	c->batch_bytes = 0;
	return poor;
}

static int seek_scan(struct scan *c)
{
	int err = clamp_to_file(c);

	if (err < 0)
		return err;

	while (c->pos < c->end) {
		uint64_t hole = c->pos;
		uint64_t data = hole;

		err = seek_next(c, SEEK_DATA, &data);
		if (err == -ENXIO) {
			/* No data up to the end of the file, wherever that is now */
			err = clamp_to_file(c);
			data = c->end;
		}
		if (err < 0)
			return err;

		if (data > hole) {
			err = emit(c, hole, data, FPH_UNMAPPED);
			if (err < 0)
				return err;
			c->pos = data;
			if (not_worth_it(c, data - hole)) {
				c->stats->given_up++;
				break;
			}
		}
		if (c->pos >= c->end)
			break;

		err = seek_next(c, SEEK_HOLE, &hole);
		if (err == -ENXIO)
			break;		/* the file shrank: nothing is left */
		if (err < 0)
			return err;
		/* Punched meanwhile? Then leave that page: it has to end somewhere */
		c->pos = max_u64(hole, c->pos + c->s->page_size);
	}
	return 0;
}

static int run(struct scan *c, enum fph_method method)
{
	int err = method == FPH_METHOD_SEEK ? seek_scan(c) : pm_scan(c);
	int flushed;

	/* What was found before an error is still true */
	flushed = flush(c);
	return err < 0 ? err : flushed;
}

/* Only what fph_region_classify() may have decided for such a region */
static bool method_fits(const struct fph_region *r, enum fph_method method)
{
	bool shared = r->flags & FPH_REGION_SHARED;

	switch (method) {
	case FPH_METHOD_PAGEMAP_SCAN:
		return r->fd < 0 && !shared;
	case FPH_METHOD_SEEK:
		return r->fd >= 0 && shared;
	default:
		return false;
	}
}

int fph_scan_region(struct fph_scanner *s, const struct fph_region *r,
		    enum fph_method method, uint64_t start, uint64_t len,
		    fph_sink_fn sink, void *opaque,
		    struct fph_scan_stats *stats)
{
	struct fph_scan_stats unused = { .sz = sizeof(unused) };
	struct scan c = { .s = s, .r = r, .sink = sink, .opaque = opaque };
	const char *why;
	uint64_t t0;
	int err;

	if (stats && stats->sz < sizeof(*stats))
		return -EINVAL;
	err = fph_region_check(s, r);
	if (err < 0)
		return err;
	if (!method_fits(r, method))
		return -EINVAL;
	err = fph_scanner_error(s, &why);
	if (err < 0)
		return err;

	if (start >= r->used)
		return 0;
	c.stats = stats ? stats : &unused;
	c.end = len > r->used - start ? r->used : start + len;
	c.end &= ~(s->page_size - 1);
	c.start = start + (-start & (s->page_size - 1));
	c.pos = c.pend_start = c.pend_end = c.start;
	if (c.start >= c.end)
		return 0;

	t0 = s->sys->now_ns();
	err = run(&c, method);
	c.stats->ns += s->sys->now_ns() - t0;
	c.stats->scanned += c.pos - c.start;
	return err;
}

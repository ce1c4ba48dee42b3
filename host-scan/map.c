/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What every page of a region is, and, if asked for, whether it holds zeroes. */
#include <errno.h>
#include <stdlib.h>

#include "table.h"

/* Read at once; process_vm_readv() pins the pages meanwhile */
#define BUF_BYTES	(UINT64_C(1) << 20)
#define BATCH_RUNS	256

struct batch_run {
	uint64_t start;
	uint64_t end;
	uint32_t page;
	bool read;
};

struct map {
	struct fph_scanner *s;
	const struct fph_region *r;
	fph_page_fn fn;
	void *opaque;
	struct fph_scan_stats *stats;

	/* A run that the next one may still extend */
	uint64_t pend_start;
	uint64_t pend_end;	/* == pend_start: none */
	uint32_t pend_page;

	/* Runs in order, of which some wait to be read */
	bool content;
	bool by_file;
	char *buf;
	uint64_t batch_bytes;
	size_t nruns;
	struct batch_run runs[BATCH_RUNS];
};

static int flush(struct map *m)
{
	uint64_t start = m->pend_start;
	uint64_t len = m->pend_end - start;
	int err;

	m->pend_start = m->pend_end;
	if (!len)
		return 0;
	m->stats->ranges++;
	err = m->fn(m->opaque, start, len, m->pend_page);
	return err < 0 ? err : 0;
}

static int emit(struct map *m, uint64_t start, uint64_t end, uint32_t page)
{
	int err;

	if (start != m->pend_end || page != m->pend_page) {
		err = flush(m);
		if (err < 0)
			return err;
		m->pend_start = start;
		m->pend_page = page;
	}
	m->pend_end = end;
	return 0;
}

static uint32_t page_of(uint64_t categories)
{
	static const struct {
		uint64_t category;
		uint32_t page;
	} bits[] = {
		{ FPH_PM_PRESENT, FPH_PAGE_PRESENT },
		{ FPH_PM_SWAPPED, FPH_PAGE_SWAPPED },
		{ FPH_PM_PFNZERO, FPH_PAGE_ZERO_PAGE },
		{ FPH_PM_HUGE, FPH_PAGE_HUGE },
	};
	uint32_t page = 0;

	for (size_t i = 0; i < sizeof(bits) / sizeof(bits[0]); i++)
		if (categories & bits[i].category)
			page |= bits[i].page;
	return page;
}

/* Bytes read of @v; where it stops, a page went away or cannot be read */
static int64_t read_batch(struct map *m, const struct iovec *v, size_t n)
{
	uint64_t done = 0;
	int64_t got;

	if (!m->by_file) {
		m->stats->calls++;
		return m->s->sys->read_memory(m->s->pid_of, -1, v, n, m->buf);
	}
	for (size_t i = 0; i < n; i++, done += got) {
		struct iovec at = {
			.iov_base = (char *)((uintptr_t)v[i].iov_base -
					     (uintptr_t)m->r->host + m->r->fd_offset),
			.iov_len = v[i].iov_len,
		};

		m->stats->calls++;
		got = m->s->sys->read_memory(0, m->r->fd, &at, 1, m->buf + done);
		if (got < 0)
			return done ? (int64_t)done : got;
		if ((uint64_t)got < v[i].iov_len)
			return done + got;
	}
	return done;
}

static bool went_away(int64_t err)
{
	return err == -EFAULT || err == -EIO || err == -ENOMEM;
}

/* Split a run that was read, up to @got bytes, by what is in it */
static int emit_read(struct map *m, const struct batch_run *run, const char *buf,
		     uint64_t got)
{
	uint64_t page = m->s->page_size;
	int err = 0;

	for (uint64_t at = run->start; !err && at < run->end; at += page) {
		uint64_t offset = at - run->start;
		bool zero = offset + page <= got && fph_is_zero(buf + offset, page);

		err = emit(m, at, at + page,
			   run->page | (zero ? FPH_PAGE_ZERO_CONTENT : 0));
	}
	return err;
}

/* Then what has its PID is another one */
static bool has_ended(const struct fph_scanner *s)
{
	return s->process >= 0 && s->sys->has_ended(s->process);
}

static int flush_batch(struct map *m)
{
	struct iovec v[BATCH_RUNS];
	uint64_t offset = 0, got = 0;
	size_t n = 0;
	int err = 0;

	for (size_t i = 0; i < m->nruns; i++) {
		if (!m->runs[i].read)
			continue;
		v[n].iov_base = (char *)m->r->host + m->runs[i].start;
		v[n++].iov_len = m->runs[i].end - m->runs[i].start;
	}
	if (n) {
		int64_t ret = read_batch(m, v, n);

		if (ret < 0 && !went_away(ret))
			return (int)ret;
		if (has_ended(m->s))
			return -ESRCH;
		got = ret < 0 ? 0 : ret;
	}
	for (size_t i = 0; !err && i < m->nruns; i++) {
		const struct batch_run *run = &m->runs[i];

		if (!run->read) {
			err = emit(m, run->start, run->end, run->page);
			continue;
		}
		err = emit_read(m, run, m->buf + offset, got > offset ? got - offset : 0);
		offset += run->end - run->start;
	}
	m->nruns = 0;
	m->batch_bytes = 0;
	return err;
}

static bool to_be_read(const struct map *m, uint32_t page)
{
	return m->content && (page & FPH_PAGE_PRESENT) && !(page & FPH_PAGE_ZERO_PAGE);
}

static int run_of_table(void *opaque, uint64_t start, uint64_t end,
			uint64_t categories)
{
	struct map *m = opaque;
	uint32_t page = page_of(categories);
	bool read = to_be_read(m, page);
	int err;

	if (!m->content)
		return emit(m, start, end, page);

	while (start < end) {
		uint64_t len = end - start;

		if (read && len > BUF_BYTES - m->batch_bytes)
			len = BUF_BYTES - m->batch_bytes;
		m->runs[m->nruns++] = (struct batch_run){ start, start + len, page, read };
		m->batch_bytes += read ? len : 0;
		start += len;
		if (m->nruns == BATCH_RUNS || m->batch_bytes == BUF_BYTES) {
			err = flush_batch(m);
			if (err < 0)
				return err;
		}
	}
	return 0;
}

static int walk(struct map *m, struct fph_window *w)
{
	int err = 0;

	fph_pace_begin(m->s);
	while (!err && w->pos < w->end) {
		fph_pace(m->s);
		err = fph_window_next(w);
		/* Not later: what was present a while ago need not be any more */
		if (!err)
			err = flush_batch(m);
	}
	fph_pace_end(m->s);
	m->stats->calls += w->calls;
	return err < 0 ? err : flush(m);
}

/* Of others a read could do anything, or be a wait for a disk or a pager */
static bool readable(const struct fph_region *r, const struct fph_verdict *v)
{
	if (r->flags & FPH_REGION_PAGED)
		return false;
	switch (v->backing) {
	case FPH_BACKING_ANON:
	case FPH_BACKING_ANON_SHARED:
	case FPH_BACKING_SHMEM:
	case FPH_BACKING_SHMEM_PRIVATE:
	case FPH_BACKING_HUGETLB:
		return true;
	default:
		return false;
	}
}

int fph_map_region(struct fph_scanner *s, const struct fph_region *r,
		   uint64_t start, uint64_t len, uint32_t flags,
		   fph_page_fn fn, void *opaque, struct fph_scan_stats *stats)
{
	struct fph_scan_stats sum = { .sz = sizeof(sum) };
	struct fph_region known;
	struct fph_window w = { .s = s, .base = (uintptr_t)r->host, .all = true };
	struct fph_verdict v;
	const char *why;
	struct map *m;
	uint64_t t0, first;
	int err;

	if (stats && fph_sized_in(&sum, sizeof(sum), stats, FPH_SCAN_STATS_LEAST) < 0)
		return -EINVAL;
	if (flags & ~(FPH_MAP_CONTENT | FPH_MAP_MAPPED))
		return -EINVAL;
	err = fph_region_read(s, r, &known);
	if (err < 0)
		return err;
	r = &known;
	err = fph_region_classify(s, r, &v);
	if (err < 0)
		return err;
	err = fph_scanner_error(s, &why);
	if (err < 0)
		return err;
	if (!fph_clamp(s, r, start, len, &w.pos, &w.end))
		return 0;

	m = calloc(1, sizeof(*m));
	if (!m)
		return -ENOMEM;
	*m = (struct map){ .s = s, .r = r, .fn = fn, .opaque = opaque };
	m->stats = &sum;
	m->pend_start = m->pend_end = w.pos;
	m->content = (flags & FPH_MAP_CONTENT) && readable(r, &v);
	w.rest_present = flags & FPH_MAP_MAPPED;
	m->by_file = r->fd >= 0 && (r->flags & FPH_REGION_SHARED);
	if (m->content) {
		m->buf = malloc(BUF_BYTES);
		if (!m->buf) {
			free(m);
			return -ENOMEM;
		}
	}
	w.run = run_of_table;
	w.opaque = m;

	first = w.pos;
	t0 = s->sys->now_ns();
	err = walk(m, &w);
	sum.ns += s->sys->now_ns() - t0;
	sum.scanned += w.pos - first;
	if (stats)
		fph_sized_out(stats, &sum, sizeof(sum));
	free(m->buf);
	free(m);
	return err;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the page tables of a process say of its pages: a window at a time, by
 * the PAGEMAP_SCAN ioctl or by reading /proc/PID/pagemap.
 */
#include <errno.h>

#include "table.h"

void fph_pace_begin(struct fph_scanner *s)
{
	if (s->cpu_percent)
		s->work_began = s->sys->now_ns();
}

void fph_pace(struct fph_scanner *s)
{
	uint64_t worked;

	if (!s->cpu_percent)
		return;
	worked = s->worked_ns + s->sys->now_ns() - s->work_began;
	if (worked < FPH_PACE_NS)
		return;
	s->sys->sleep_ns(worked * (100 - s->cpu_percent) / s->cpu_percent);
	s->worked_ns = 0;
	s->work_began = s->sys->now_ns();
}

void fph_pace_end(struct fph_scanner *s)
{
	if (s->cpu_percent)
		s->worked_ns += s->sys->now_ns() - s->work_began;
}

uint64_t fph_table_entries(const struct fph_scanner *s)
{
	return s->page_size / sizeof(*s->entries);
}

bool fph_clamp(const struct fph_scanner *s, const struct fph_region *r,
	       uint64_t start, uint64_t len, uint64_t *first, uint64_t *end)
{
	if (start >= r->used)
		return false;
	*end = len > r->used - start ? r->used : start + len;
	*end &= ~(s->page_size - 1);
	*first = start + (-start & (s->page_size - 1));
	return *first < *end;
}

void fph_pm_query(struct fph_pm_scan *arg, uint64_t start, uint64_t end,
		  bool all, struct fph_pm_range *vec, uint64_t vec_len)
{
	*arg = (struct fph_pm_scan){
		.size = sizeof(*arg),
		.start = start,
		.end = end,
		.vec = (uintptr_t)vec,
		.vec_len = vec_len,
		.return_mask = FPH_PM_ANY | FPH_PM_PFNZERO,
	};
	if (all) {
		/* Not whether it is of a file: that takes a look at each page */
		arg->return_mask |= FPH_PM_HUGE;
		return;
	}
	/*
	 * One query for both kinds: not swapped, and (not present or the zero
	 * page). Absence is asked for positively; addresses without a mapping
	 * are in no category and are never reported.
	 */
	arg->category_inverted = FPH_PM_ANY;
	arg->category_mask = FPH_PM_SWAPPED;
	arg->category_anyof_mask = FPH_PM_PRESENT | FPH_PM_PFNZERO;
}

/* The query that ends at the first page of any kind */
static void query_first(struct fph_pm_scan *arg, uint64_t start, uint64_t end,
			struct fph_pm_range *vec)
{
	*arg = (struct fph_pm_scan){
		.size = sizeof(*arg),
		.start = start,
		.end = end,
		.vec = (uintptr_t)vec,
		.vec_len = 1,
		.max_pages = 1,
		.category_anyof_mask = FPH_PM_ANY,
		.return_mask = FPH_PM_ANY,
	};
}

/*
 * Where the next ioctl may end. Memory that was never touched has no page
 * tables either, so that a walk through a GiB takes no time, while each ioctl
 * does. A look ahead ends where memory is in use, so only what is empty is
 * walked in one go. Page tables that are empty take long all the same: where
 * there are any, the steps are short again.
 */
static uint64_t window_end(struct fph_window *w)
{
	struct fph_scanner *s = w->s;
	uint64_t near = min_u64(w->end, w->pos + FPH_SCAN_WINDOW);
	uint64_t far = min_u64(w->end, w->pos + FPH_SCAN_AHEAD);
	uint64_t from = w->base + w->pos;
	struct fph_pm_scan arg;
	uint64_t t0;
	int n;

	if (w->in_use || w->slow || far == near)
		return near;
	query_first(&arg, from, w->base + far, s->vec);
	w->calls++;
	t0 = s->sys->now_ns();
	n = s->sys->pagemap_scan(s->fd, &arg);
	w->slow = s->sys->now_ns() - t0 > FPH_AHEAD_NS;
	if (n < 0 || w->slow)
		return near;
	if (n > 0)
		arg.walk_end = s->vec[0].start;
	if (arg.walk_end < from)
		return near;
	return max_u64(near, min_u64(far, (arg.walk_end - w->base) & ~(s->page_size - 1)));
}

/* Whatever is more than that, or less: absent is what is not present */
static void query_all_but_present(struct fph_pm_scan *arg)
{
	arg->category_inverted = FPH_PM_PRESENT;
	arg->category_anyof_mask = FPH_PM_PRESENT | FPH_PM_SWAPPED | FPH_PM_PFNZERO | FPH_PM_HUGE;
}

/* What is between two that were reported */
static int run_of_rest(struct fph_window *w, uint64_t start, uint64_t end)
{
	return w->rest_present && start < end ? w->run(w->opaque, start, end, FPH_PM_PRESENT) : 0;
}

/*
 * A process that ends, or executes another program, loses its memory bit by bit.
 * Meanwhile PAGEMAP_SCAN of some kernels since 6.7 finds absent what is gone already,
 * while a read of pagemap has had no entries, not even of address 0, since before the
 * first page went. So if there is one after a scan, that was of memory as it was.
 */
static int still_has_memory(const struct fph_scanner *s)
{
	uint64_t entry;
	int64_t got = s->sys->pagemap_read(s->fd, 0, &entry, 1);

	return got < 0 ? (int)got : got == 1 ? 0 : -ESRCH;
}

static int by_ioctl(struct fph_window *w)
{
	struct fph_scanner *s = w->s;
	uint64_t limit = window_end(w);
	uint64_t seen = w->pos, walked;
	struct fph_pm_scan arg;
	int n, err;

	fph_pm_query(&arg, w->base + w->pos, w->base + limit, w->all, s->vec,
		     FPH_SCAN_VEC_LEN);
	if (w->rest_present)
		query_all_but_present(&arg);
	w->calls++;
	n = s->sys->pagemap_scan(s->fd, &arg);
	w->in_use = true;
	if (n == -EINTR)
		return 0;
	if (n < 0)
		return n;
	if (n > FPH_SCAN_VEC_LEN)
		return -EIO;
	if (s->pid_of) {
		err = still_has_memory(s);
		if (err < 0)
			return err == -EINTR ? 0 : err;
	}

	for (int i = 0; i < n; i++) {
		const struct fph_pm_range *v = &s->vec[i];
		uint64_t start, end;

		if (v->start < w->base || v->end < w->base)
			continue;
		start = max_u64(v->start - w->base, seen);
		end = min_u64(v->end - w->base, limit);
		if (start >= end)
			continue;
		if (start == w->pos && end == limit && !(v->categories & FPH_PM_ANY))
			w->in_use = false;
		err = run_of_rest(w, seen, start);
		if (!err)
			err = w->run(w->opaque, start, end, v->categories);
		if (err < 0)
			return err;
		seen = end;
	}

	/* walk_end may be stale: what was reported was walked as well */
	walked = seen;
	if (arg.walk_end > w->base)
		walked = max_u64(seen, min_u64(arg.walk_end - w->base, limit));
	walked &= ~(s->page_size - 1);
	err = run_of_rest(w, seen, walked);
	if (err < 0)
		return err;
	seen = walked;
	if (seen <= w->pos)
		return -EIO;	/* neither ranges nor progress: it would never end */
	w->pos = seen;
	return 0;
}

static uint64_t categories_of(const struct fph_scanner *s, uint64_t entry)
{
	if (entry & FPH_PAGEMAP_SWAPPED)
		return FPH_PM_SWAPPED;
	if (!(entry & FPH_PAGEMAP_PRESENT))
		return 0;
	if (s->zero_pfn && (entry & FPH_PAGEMAP_PFN) == s->zero_pfn)
		return FPH_PM_PRESENT | FPH_PM_PFNZERO;
	return FPH_PM_PRESENT;
}

/*
 * An entry of nothing is also what pagemap has for addresses without a
 * mapping. Where those are, is found by halves: it is hardly ever asked.
 */
static int run_if_mapped(struct fph_window *w, uint64_t start, uint64_t end)
{
	uint64_t page = w->s->page_size;
	uint64_t half;
	int err;

	if (w->mapped || w->s->pid_of ||
	    w->s->sys->is_mapped(w->base + start, end - start))
		return w->run(w->opaque, start, end, 0);
	if (end - start <= page)
		return 0;
	half = start + (end - start) / page / 2 * page;
	err = run_if_mapped(w, start, half);
	return err < 0 ? err : run_if_mapped(w, half, end);
}

static int run_of_entries(struct fph_window *w, uint64_t start, uint64_t end,
			  uint64_t categories)
{
	if (!categories)
		return run_if_mapped(w, start, end);
	if (!w->all && !(categories & FPH_PM_PFNZERO))
		return 0;
	return w->run(w->opaque, start, end, categories);
}

/*
 * A read never crosses a page table. Linux 6.4 and older leave one out that is
 * emptied while they walk (a huge page that is discarded), and move all entries
 * behind it to the front. Of a single one they go on with the next: what that
 * makes absent was, as the one that was left out was empty then.
 */
static int by_read(struct fph_window *w)
{
	struct fph_scanner *s = w->s;
	uint64_t page = s->page_size;
	uint64_t table = fph_table_entries(s);
	uint64_t first = (w->base + w->pos) / page;
	uint64_t n = min_u64((w->end - w->pos) / page, table - first % table);
	uint64_t from = w->pos, c = 0;
	int64_t got;
	int err;

	w->calls++;
	got = s->sys->pagemap_read(s->fd, first, s->entries, n);
	if (got == -EINTR)
		return 0;
	if (got < 0)
		return (int)got;
	if ((uint64_t)got > n)
		return -EIO;
	if ((uint64_t)got < n) {
		if (++w->short_reads < FPH_READ_TRIES)
			return 0;
		return got ? -EIO : -ESRCH;
	}
	w->short_reads = 0;

	w->mapped = !s->pid_of && s->sys->is_mapped(w->base + w->pos, got * page);
	c = categories_of(s, s->entries[0]);
	for (int64_t i = 1; i <= got; i++) {
		uint64_t at = w->pos + i * page;

		/* Neighbours have equal bits; only PFNs differ */
		if (i < got && categories_of(s, s->entries[i]) == c)
			continue;
		err = run_of_entries(w, from, at, c);
		if (err < 0)
			return err;
		from = at;
		if (i < got)
			c = categories_of(s, s->entries[i]);
	}
	w->pos = from;
	return 0;
}

int fph_window_next(struct fph_window *w)
{
	return w->s->kind == FPH_SCANNER_PAGEMAP ? by_read(w) : by_ioctl(w);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdlib.h>

#include <fph/watch.h>

#include "scanner.h"

struct fph_watch {
	const struct fph_sys *sys;
	struct fph_scanner *scanner;
	int uffd;		/* or -1 */
	int merged;		/* /proc/self/ksm_merging_pages, or -1 */
	int err;		/* of the probe: 0 or negative errno */
	const char *why;	/* the same for people, NULL if err is 0 */
};

static const struct fph_why open_why[] = {
	{ EPERM, "userfaultfd is not permitted (EPERM): refused by a sandbox" },
	{ EACCES, "userfaultfd is not permitted (EACCES): refused by a security module (AppArmor, SELinux) or a sandbox" },
	{ ENOSYS, "no userfaultfd (ENOSYS): refused by a sandbox, or the kernel lacks CONFIG_USERFAULTFD" },
	{ EMFILE, "cannot open userfaultfd (EMFILE): too many open files in this process" },
	{ ENFILE, "cannot open userfaultfd (ENFILE): too many open files in the system" },
	{ 0, "cannot open userfaultfd" },
};

static const struct fph_why api_why[] = {
	{ EINVAL, "userfaultfd of this kernel has no asynchronous write protection (EINVAL)" },
	{ 0, "asynchronous write protection with userfaultfd does not work here" },
};

static const struct fph_why add_why[] = {
	{ EBUSY, "userfaultfd of this memory is in use by somebody else (EBUSY)" },
	{ EINVAL, "this kind of memory cannot be write-protected with userfaultfd (EINVAL)" },
	{ EPERM, "read-only memory cannot be watched (EPERM)" },
	{ ENOMEM, "no memory, or none mapped there (ENOMEM)" },
	{ 0, "userfaultfd cannot write-protect this memory" },
};

static void fail(struct fph_watch *w, int err, const char *why)
{
	w->err = err;
	w->why = why;
}

static void probe(struct fph_watch *w)
{
	const char *why;
	int err = fph_scanner_error(w->scanner, &why);

	if (err < 0) {
		fail(w, err, why);
		return;
	}
	w->uffd = w->sys->open_userfaultfd();
	if (w->uffd < 0) {
		fail(w, w->uffd, fph_why(open_why, w->uffd));
		w->uffd = -1;
		return;
	}
	err = w->sys->uffd_api(w->uffd, FPH_UFFD_FEATURE_WP_ASYNC);
	if (err < 0)
		fail(w, err, fph_why(api_why, err));
}

int fph_watch_open_sys(struct fph_watch **ret, const struct fph_sys *sys)
{
	static const struct fph_scanner_opts opts = {
		.sz = sizeof(opts),
		.kind = FPH_SCANNER_PAGEMAP_SCAN,
	};
	struct fph_watch *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	w->sys = sys;
	w->uffd = -1;
	if (fph_scanner_open_sys(&w->scanner, &opts, sys) < 0) {
		free(w);
		return -ENOMEM;
	}
	w->merged = sys->open_merged();
	probe(w);
	*ret = w;
	return 0;
}

int fph_watch_open(struct fph_watch **ret)
{
	return fph_watch_open_sys(ret, &fph_sys_linux);
}

void fph_watch_close(struct fph_watch *w)
{
	if (!w)
		return;
	if (w->uffd >= 0)
		w->sys->close(w->uffd);
	if (w->merged >= 0)
		w->sys->close(w->merged);
	fph_scanner_close(w->scanner);
	free(w);
}

int fph_watch_error(const struct fph_watch *w, const char **why)
{
	if (w->err) {
		*why = w->why;
		return w->err;
	}
	return fph_scanner_error(w->scanner, why);
}

int fph_watch_is_exact(const struct fph_watch *w, const char **why)
{
	/* No such file: a kernel without KSM */
	if (w->merged < 0 || w->sys->read_number(w->merged) == 0)
		return 0;
	*why = "KSM merges pages of this process, which looks as if they were written";
	return -EBUSY;
}

/* Offsets relative to @base, whole host pages */
struct part {
	uint64_t base;
	uint64_t page_size;	/* of what is behind it */
	uint64_t start;
	uint64_t end;
};

static int part_of(struct fph_watch *w, const struct fph_region *r,
		   uint64_t start, uint64_t len, struct part *ret)
{
	uint64_t mask = w->scanner->page_size - 1;
	struct fph_region known;
	const char *why;
	int err;

	err = fph_region_read(w->scanner, r, &known);
	if (err < 0)
		return err;
	err = fph_watch_error(w, &why);
	if (err < 0)
		return err;
	*ret = (struct part){ .base = (uintptr_t)known.host, .page_size = known.page_size };
	if (start >= known.used)
		return 0;
	ret->end = (len > known.used - start ? known.used : start + len) & ~mask;
	ret->start = start + (-start & mask);
	return 0;
}

static uint64_t window_end(const struct part *p)
{
	return p->end - p->start > FPH_SCAN_WINDOW ? p->start + FPH_SCAN_WINDOW :
						     p->end;
}

int fph_watch_add(struct fph_watch *w, const struct fph_region *r,
		  const char **why)
{
	struct part p;
	int err;

	err = fph_watch_error(w, why);
	if (err < 0)
		return err;
	err = part_of(w, r, 0, UINT64_MAX, &p);
	if (err < 0)
		return err;
	if (p.page_size > w->scanner->page_size) {
		*why = "pages larger than the host's cannot be watched";
		return -EOPNOTSUPP;
	}
	if (p.start >= p.end)
		return 0;
	err = w->sys->uffd_register(w->uffd, p.base + p.start, p.end - p.start);
	if (err < 0)
		*why = fph_why(add_why, err);
	/* Of several mappings some may be registered already */
	if (err == -ENOMEM)
		w->sys->uffd_unregister(w->uffd, p.base + p.start, p.end - p.start);
	return err == -EINVAL ? -EOPNOTSUPP : err;
}

void fph_watch_remove(struct fph_watch *w, const struct fph_region *r)
{
	fph_watch_remove_part(w, r, 0, UINT64_MAX);
}

void fph_watch_remove_part(struct fph_watch *w, const struct fph_region *r,
			   uint64_t start, uint64_t len)
{
	struct part p, all;

	if (part_of(w, r, start, len, &p) < 0 || part_of(w, r, 0, UINT64_MAX, &all) < 0)
		return;
	/*
	 * It walks the page tables with mmap_lock held for writing, so that
	 * each page fault of the process waits.
	 */
	while (p.start < p.end) {
		uint64_t end = window_end(&p);

		/* A piece is a mapping more, for which there may be no room; the rest is none */
		if (w->sys->uffd_unregister(w->uffd, p.base + p.start, end - p.start) == -ENOMEM) {
			w->sys->uffd_unregister(w->uffd, p.base + p.start, all.end - p.start);
			return;
		}
		p.start = end;
	}
}

static uint32_t flags_of(uint64_t categories)
{
	return (categories & FPH_PM_HUGE ? FPH_WATCH_HUGE : 0) |
	       (categories & FPH_PM_SWAPPED ? FPH_WATCH_SWAPPED : 0) |
	       (categories & (FPH_PM_PRESENT | FPH_PM_SWAPPED) ? 0 : FPH_WATCH_ABSENT);
}

static bool is_marked(uint64_t categories)
{
	return categories & (FPH_PM_PRESENT | FPH_PM_SWAPPED) && !(categories & FPH_PM_WRITTEN);
}

/* One ioctl; moves @p->start behind what was walked */
static int walk_window(struct fph_watch *w, const struct fph_pm_scan *query, struct part *p,
		       fph_watch_fn fn, void *opaque)
{
	/* On the stack: threads share the watch */
	struct fph_pm_range vec[FPH_SCAN_VEC_LEN];
	uint64_t base = p->base;
	uint64_t limit = window_end(p);
	uint64_t seen = p->start;
	struct fph_pm_scan arg = *query;
	int n, err;

	arg.size = sizeof(arg);
	arg.start = base + p->start;
	arg.end = base + limit;
	arg.vec = (uintptr_t)vec;
	arg.vec_len = FPH_SCAN_VEC_LEN;
	n = w->sys->pagemap_scan(w->scanner->fd, &arg);
	if (n == -EINTR)
		return 0;
	if (n < 0)
		return n;
	if (n > FPH_SCAN_VEC_LEN || arg.walk_end > base + limit)
		return -EIO;

	for (int i = 0; i < n; i++) {
		if (vec[i].start < base + seen || vec[i].end > base + limit ||
		    vec[i].start >= vec[i].end)
			return -EIO;
		seen = vec[i].end - base;
		if (query->return_mask & FPH_PM_WRITTEN && is_marked(vec[i].categories))
			continue;
		err = fn(opaque, vec[i].start - base,
			 vec[i].end - vec[i].start, flags_of(vec[i].categories));
		if (err < 0)
			return err;
	}
	/* walk_end may be stale: what was reported was walked as well */
	if (arg.walk_end > base + seen)
		seen = arg.walk_end - base;
	if (seen <= p->start)
		return -EIO;	/* neither ranges nor progress: it would never end */
	p->start = seen;
	return 0;
}

static int walk(struct fph_watch *w, const struct fph_region *r,
		const struct fph_pm_scan *query, uint64_t start, uint64_t len,
		fph_watch_fn fn, void *opaque)
{
	struct part p;
	int err;

	err = part_of(w, r, start, len, &p);
	while (err == 0 && p.start < p.end)
		err = walk_window(w, query, &p, fn, opaque);
	return err;
}

int fph_watch_protect(struct fph_watch *w, const struct fph_region *r,
		      uint64_t start, uint64_t len, fph_watch_fn fn,
		      void *opaque)
{
	static const struct fph_pm_scan query = {
		.flags = FPH_PM_SCAN_WP_MATCHING | FPH_PM_SCAN_CHECK_WPASYNC,
		.category_anyof_mask = FPH_PM_PRESENT | FPH_PM_SWAPPED,
		.return_mask = FPH_PM_PRESENT | FPH_PM_SWAPPED | FPH_PM_HUGE,
	};

	return walk(w, r, &query, start, len, fn, opaque);
}

int fph_watch_written(struct fph_watch *w, const struct fph_region *r,
		      uint64_t start, uint64_t len, fph_watch_fn fn,
		      void *opaque)
{
	struct fph_pm_scan query = {
		.flags = FPH_PM_SCAN_CHECK_WPASYNC,
		.category_inverted = FPH_PM_PFNZERO,
		.category_mask = FPH_PM_WRITTEN | FPH_PM_PFNZERO,
		.return_mask = FPH_PM_PRESENT | FPH_PM_SWAPPED | FPH_PM_HUGE,
	};
	struct fph_region known;
	int err = fph_region_read(w->scanner, r, &known);

	if (err < 0)
		return err;
	/*
	 * Absent pages count as written for some kernels (6.18), and not for others
	 * (6.12), so they are asked for as such. That finds marks in swap, too.
	 */
	if (known.flags & FPH_REGION_SHARED) {
		query.category_inverted |= FPH_PM_PRESENT;
		query.category_mask = FPH_PM_PFNZERO;
		query.category_anyof_mask = FPH_PM_WRITTEN | FPH_PM_PRESENT;
		query.return_mask |= FPH_PM_WRITTEN;
	} else {
		query.category_anyof_mask = FPH_PM_PRESENT | FPH_PM_SWAPPED;
	}

	return walk(w, r, &query, start, len, fn, opaque);
}

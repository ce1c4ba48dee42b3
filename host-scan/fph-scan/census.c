/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "census.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "record.h"

/* fph-source scans as much at a time */
#define STEP	(UINT64_C(1) << 30)
/* Where that takes long, progress is told more often */
#define SLOW_STEP	(UINT64_C(32) << 20)

struct walk {
	struct target *t;
	const struct census_opts *opts;
	struct fph_scanner *scanner;
	struct record *record;
	struct region *region;
	bool tables_tell;	/* what is absent, of this region, without a scan */
	guint64 done, all;	/* bytes, of all regions */
};

static int on_found(void *opaque, uint64_t start, uint64_t len, enum fph_reason why)
{
	struct walk *w = opaque;

	census_add_found(w->region, len, why);
	if (w->record)
		record_found(w->record, w->region->start + start, len, why);
	return 0;
}

static int on_pages(void *opaque, uint64_t start, uint64_t len, uint32_t page)
{
	struct walk *w = opaque;

	census_add_pages(w->region, len, page);
	if (w->record)
		record_pages(w->record, w->region->start + start, len, page);
	if (!w->tables_tell)
		return 0;
	if (!page)
		return on_found(w, start, len, FPH_UNMAPPED);
	if ((page & ~FPH_PAGE_HUGE) == (FPH_PAGE_PRESENT | FPH_PAGE_ZERO_PAGE))
		return on_found(w, start, len, FPH_ZERO_MAPPED);
	return 0;
}

/* Without the file there is the name to go by, and nothing can be found */
static enum fph_backing guess_backing(const struct mapping *m)
{
	if (m->page_size != UNKNOWN && m->page_size > (guint64)sysconf(_SC_PAGESIZE))
		return FPH_BACKING_HUGETLB;
	if (strstr(m->name, "/hugepages") || g_str_has_prefix(m->name, "/anon_hugepage"))
		return FPH_BACKING_HUGETLB;
	if (!m->inode)
		return m->shared ? FPH_BACKING_ANON_SHARED : FPH_BACKING_ANON;
	if (g_str_has_prefix(m->name, "/dev/zero"))
		return FPH_BACKING_ANON_SHARED;
	if (g_str_has_prefix(m->name, "/memfd:") || g_str_has_prefix(m->name, "/dev/shm/"))
		return m->shared ? FPH_BACKING_SHMEM : FPH_BACKING_SHMEM_PRIVATE;
	return FPH_BACKING_FILE;
}

/* A file that others can open by its name may be there, and be old, next time */
static bool has_path(const struct mapping *m)
{
	return m->inode && !g_str_has_prefix(m->name, "/memfd:") &&
	       !g_str_has_suffix(m->name, " (deleted)");
}

/* What no look at the pages can tell; NULL if there is nothing */
static const char *why_not(const struct area *a)
{
	if (a->paged)
		return "a pager provides it (userfaultfd, um or ui in VmFlags): what is absent is still owed, and not zero";
	if (a->device)
		return "it is device memory (io, pf or mm in VmFlags): what is behind it are no pages to look at";
	return NULL;
}

static struct fph_region describe(const struct area *a, int fd)
{
	const struct mapping *m = a->first;

	return (struct fph_region){
		.sz = sizeof(struct fph_region),
		.host = (void *)(uintptr_t)a->start,
		.used = a->end - a->start,
		.max = a->end - a->start,
		.page_size = sysconf(_SC_PAGESIZE),
		.fd = fd,
		.fd_offset = fd < 0 ? 0 : m->offset + (a->start - m->start),
		.flags = (m->shared ? FPH_REGION_SHARED : 0) |
			 (m->writable ? 0 : FPH_REGION_READONLY) |
			 (a->paged ? FPH_REGION_PAGED : 0) |
			 (a->device ? FPH_REGION_NOT_RAM : 0) |
			 (has_path(m) ? FPH_REGION_NAMED_FILE : 0),
	};
}

static void set_method(struct region *r, enum fph_backing backing, const char *method,
		       const char *why)
{
	r->backing = backing;
	r->method = g_strdup(method);
	r->why = g_strdup(why);
}

static bool fail(GError **error, int err, const struct target *t, const char *what)
{
	if (err == -ESRCH)
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
			    "process %d ended while it was scanned", t->pid);
	else if (err == -EPERM || err == -EACCES)
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_PERMISSION_DENIED,
			    "%s of process %d: %s: it takes CAP_SYS_PTRACE", what, t->pid,
			    g_strerror(-err));
	else
		g_set_error(error, G_IO_ERROR, g_io_error_from_errno(-err), "%s of process %d: %s",
			    what, t->pid, g_strerror(-err));
	return false;
}

static bool map_pages(struct walk *w, const struct fph_region *r, guint64 start, guint64 len,
		      GError **error)
{
	/* It consists of mappings; whether it still did at the end, look_again() sees */
	guint32 flags = FPH_MAP_MAPPED | (w->opts->content ? FPH_MAP_CONTENT : 0);
	guint64 step = w->opts->content || w->opts->cpu_percent ? SLOW_STEP : STEP;

	for (guint64 at = start; at < start + len; at += step) {
		guint64 part = MIN(step, start + len - at);
		int err = fph_map_region(w->scanner, r, at, part, flags, on_pages, w, NULL);

		if (err < 0)
			return fail(error, err, w->t,
				    w->opts->content ? "memory or page tables" : "page tables");
		w->done += part;
		if (w->opts->progress)
			w->opts->progress(w->done, w->all);
	}
	return true;
}

static bool scan_steps(struct walk *w, const struct fph_region *r,
		       const struct fph_verdict *v, GError **error)
{
	/* By these methods a scan would see what the walk through all pages has seen */
	w->tables_tell = v->method == FPH_METHOD_PAGEMAP_SCAN || v->method == FPH_METHOD_PAGEMAP;
	for (guint64 at = 0; at < r->used; at += STEP) {
		guint64 len = MIN(STEP, r->used - at);
		int err = 0;

		if (!map_pages(w, r, at, len, error))
			return false;
		if (v->method != FPH_METHOD_NONE && !w->tables_tell)
			err = fph_scan_region(w->scanner, r, v->method, at, len, on_found, w,
					      NULL);
		if (err < 0)
			return fail(error, err, w->t, "absent pages");
		/* Page tables that are gone hold nothing, says the ioctl; with pauses it goes on. */
		if (w->opts->cpu_percent && target_ended(w->t))
			return fail(error, -ESRCH, w->t, NULL);
	}
	return true;
}

static bool scan_area(struct walk *w, struct census *c, const struct area *a, GError **error)
{
	struct region *region = w->region;
	g_autoptr(GError) no_file = NULL;
	struct fph_verdict v;
	struct fph_region r;
	int fd = -1, err;
	bool ok;

	if (a->first->inode)
		fd = target_open_file(w->t, a->first, &no_file);
	r = describe(a, fd);
	if (no_file)
		r.flags |= FPH_REGION_FOREIGN;
	err = fph_region_classify(w->scanner, &r, &v);
	if (err < 0) {
		if (fd >= 0)
			close(fd);
		return fail(error, err, w->t, "a mapping");
	}
	/* What is not opened has nothing to examine */
	if (why_not(a))
		set_method(region, no_file ? guess_backing(a->first) : v.backing, "none",
			   why_not(a));
	else if (no_file)
		set_method(region, guess_backing(a->first), "none", no_file->message);
	else
		set_method(region, v.backing, fph_method_name(v.method), v.why);
	census_begin(c, region);
	if (w->record)
		record_region(w->record, region);
	ok = scan_steps(w, &r, &v, error);
	if (fd >= 0)
		close(fd);
	return ok;
}

/*
 * Without page tables: the sums that the kernel keeps. A private page without
 * a file that is neither present nor swapped is absent, or the zero page.
 */
static void sum_area(struct target *t, struct region *r, const struct area *a)
{
	enum fph_backing backing = guess_backing(a->first);
	bool private = backing == FPH_BACKING_ANON && !why_not(a);
	const char *why = why_not(a);

	if (!private && !why)
		why = "the kernel's sums do not tell which pages are absent";
	set_method(r, backing, private ? "smaps" : "none", why);
	r->v[F_PRESENT] = r->v[F_SWAPPED] = r->v[F_HUGE] = 0;
	for (guint i = 0; i < t->mappings->len; i++) {
		const struct mapping *m = t->mappings->pdata[i];

		if (m->end <= r->start || m->start >= r->end)
			continue;
		/* The kernel's sums are of whole mappings */
		if (m->start < r->start || m->end > r->end) {
			r->v[F_PRESENT] = r->v[F_SWAPPED] = r->v[F_HUGE] = UNKNOWN;
			continue;
		}
		if (m->rss == UNKNOWN || r->v[F_PRESENT] == UNKNOWN)
			r->v[F_PRESENT] = UNKNOWN;
		else
			r->v[F_PRESENT] += m->rss;
		if (m->swap == UNKNOWN || r->v[F_SWAPPED] == UNKNOWN)
			r->v[F_SWAPPED] = UNKNOWN;
		else
			r->v[F_SWAPPED] += m->swap;
		if (m->huge == UNKNOWN || r->v[F_HUGE] == UNKNOWN)
			r->v[F_HUGE] = UNKNOWN;
		else
			r->v[F_HUGE] += m->huge;
	}
	if (private && r->v[F_PRESENT] != UNKNOWN && r->v[F_SWAPPED] != UNKNOWN)
		r->v[F_UNMAPPED] = r->v[F_SIZE] - MIN(r->v[F_SIZE],
						      r->v[F_PRESENT] + r->v[F_SWAPPED]);
}

/* Whoever looks at something that moves says so */
static bool look_again(struct walk *w, struct census *c, GError **error)
{
	if (!target_refresh(w->t, error))
		return false;
	for (guint i = 0; i < c->regions->len; i++) {
		struct region *r = c->regions->pdata[i];

		r->changed = !target_has(w->t, r->start, r->end);
	}
	return true;
}

static bool scan_all(struct walk *w, struct census *c, const GArray *areas, GError **error)
{
	struct fph_scanner_opts opts = {
		.sz = sizeof(opts),
		.kind = w->opts->scanner,
		.pid = w->t->pid,
		.cpu_percent = w->opts->cpu_percent,
	};
	gint64 began = g_get_monotonic_time();
	const char *why;
	bool ok = true;

	if (fph_scanner_open_with(&w->scanner, &opts) < 0)
		g_error("out of memory");
	if (fph_scanner_error(w->scanner, &why) < 0) {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_SUPPORTED, "process %d: %s",
			    w->t->pid, why);
		fph_scanner_close(w->scanner);
		return false;
	}
	c->scanner = g_strdup(fph_scanner_kind_name(fph_scanner_get_kind(w->scanner)));
	for (guint i = 0; ok && i < c->regions->len; i++) {
		w->region = c->regions->pdata[i];
		ok = scan_area(w, c, &g_array_index(areas, struct area, i), error);
	}
	c->ns = (g_get_monotonic_time() - began) * 1000;
	fph_scanner_close(w->scanner);
	return ok && look_again(w, c, error);
}

/* A record of what did not know of pagers yet */
static bool replay(struct target *t, struct census *c, const GArray *areas, GError **error)
{
	if (!record_replay(t, c, error))
		return false;
	for (guint i = 0; i < c->regions->len; i++) {
		const struct area *a = &g_array_index(areas, struct area, i);
		struct region *r = c->regions->pdata[i];

		if (!why_not(a))
			continue;
		g_free(r->method);
		g_free(r->why);
		set_method(r, r->backing, "none", why_not(a));
		r->v[F_UNMAPPED] = r->v[F_ZERO_MAPPED] = UNKNOWN;
	}
	return true;
}

static bool take(struct walk *w, struct census *c, const GArray *areas, GError **error)
{
	if (w->t->recorded && record_exists(w->t))
		return replay(w->t, c, areas, error);
	if (!w->t->recorded && w->opts->scanner != FPH_SCANNER_OFF)
		return scan_all(w, c, areas, error);

	c->scanner = g_strdup("smaps");
	c->content = false;
	for (guint i = 0; i < c->regions->len; i++)
		sum_area(w->t, c->regions->pdata[i], &g_array_index(areas, struct area, i));
	return true;
}

struct census *census_take(struct target *t, const GArray *areas,
			   const struct census_opts *opts, GError **error)
{
	g_autoptr(GString) recorded = opts->record ? g_string_new(NULL) : NULL;
	g_autoptr(GArray) starts = g_array_new(FALSE, FALSE, sizeof(guint64));
	struct census *c = census_new(t, opts->content);
	struct walk w = { .t = t, .opts = opts };
	struct record record = { .text = recorded, .starts = starts, .anonymize = opts->anonymize };
	bool ok;

	for (guint i = 0; i < areas->len; i++) {
		const struct area *a = &g_array_index(areas, struct area, i);

		census_add_region(c, a);
		w.all += a->end - a->start;
	}
	if (recorded)
		w.record = &record;
	ok = take(&w, c, areas, error);
	/* Whatever went wrong with it, or was found of it */
	if (target_ended(t)) {
		g_clear_error(error);
		ok = fail(error, -ESRCH, t, NULL);
	}
	if (ok && recorded)
		ok = record_write(&record, t, c, opts->record, error);
	if (!ok) {
		census_free(c);
		return NULL;
	}
	census_sum_up(c);
	return c;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "host.h"

/* Reads smaps if it is for its sums, or if there may be pagers to be known by it */
static struct census *census_of(const char *sysroot, gint pid, bool smaps, char **regions,
				const struct census_opts *opts, GError **error)
{
	struct target *t = target_open(sysroot, pid, smaps, error);
	g_autoptr(GArray) areas = NULL;
	struct census *c = NULL;

	if (t)
		areas = ram_find(t, regions, error);
	if (t && !areas && target_ended(t)) {
		g_clear_error(error);
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND, "process %d has ended", pid);
	}
	if (areas)
		c = census_take(t, areas, opts, error);
	target_free(t);
	return c;
}

static bool needs_smaps(const char *sysroot, const struct census_opts *opts)
{
	return !sysroot && (opts->scanner == FPH_SCANNER_OFF || target_pagers_possible());
}

struct census *process_census(const char *sysroot, gint pid, char **regions,
			      const struct census_opts *opts, GError **error)
{
	return census_of(sysroot, pid, needs_smaps(sysroot, opts), regions, opts, error);
}

static void look_free(gpointer p)
{
	struct look *l = p;

	census_free(l->census);
	g_free(l->why);
	g_free(l);
}

struct host *host_look(const char *sysroot, const struct census_opts *opts)
{
	bool smaps = needs_smaps(sysroot, opts);
	struct host *h = g_new0(struct host, 1);
	gint64 began;

	h->machines = machines_find(sysroot);
	h->looks = g_ptr_array_new_with_free_func(look_free);
	began = g_get_monotonic_time();
	for (guint i = 0; i < h->machines->len; i++) {
		struct look *l = g_new0(struct look, 1);
		g_autoptr(GError) error = NULL;

		l->machine = h->machines->pdata[i];
		l->census = census_of(sysroot, l->machine->pid, smaps, NULL, opts, &error);
		if (!l->census)
			l->why = g_strdup(error->message);
		g_ptr_array_add(h->looks, l);
	}
	h->ns = sysroot ? 0 : (g_get_monotonic_time() - began) * 1000;
	return h;
}

void host_free(struct host *h)
{
	g_ptr_array_unref(h->looks);
	g_ptr_array_unref(h->machines);
	g_free(h);
}

static void add(guint64 *to, guint64 v)
{
	*to = (*to == UNKNOWN ? 0 : *to) + v;
}

struct estimate host_estimate(const struct host *h, enum mode mode, double bandwidth)
{
	struct estimate sum = { .mode = mode_name(mode), .pages = UNKNOWN,
				.zero_pages = UNKNOWN, .bytes = UNKNOWN, .file_bytes = UNKNOWN };
	guint64 none = 0;

	for (guint i = 0; i < h->looks->len; i++) {
		const struct look *l = h->looks->pdata[i];
		struct estimate e;

		if (!l->census)
			continue;
		e = estimate(l->census, mode, bandwidth);
		if (e.bytes == UNKNOWN)
			continue;
		add(&sum.pages, e.pages);
		add(&sum.zero_pages, e.zero_pages);
		add(&sum.bytes, e.bytes);
		add(&sum.file_bytes, e.file_bytes);
		none += estimate(l->census, MODE_NONE, bandwidth).bytes;
	}
	sum.seconds = sum.bytes * 8 / bandwidth;
	sum.part = none ? (double)sum.bytes / none : 1;
	return sum;
}

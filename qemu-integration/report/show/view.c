/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "view.h"
#include "published.h"

#include <math.h>
#include <string.h>

#define FAR_FROM_FLOOR	1.5

static const struct figure times[] = {
	{ "mode", -13, K_MODE, 0, "who said which pages can be left out" },
	{ "runs", 6, K_RUNS, 0, "runs that completed, of those tried; figures are medians" },
	{ "total ms", 9, K_COUNT, V_TOTAL_MS, "total time of the migration" },
	{ "min - max", 15, K_RANGE, V_TOTAL_MS, "the fastest and the slowest run" },
	{ "95%", 15, K_INTERVAL, V_TOTAL_MS, "interval of the median; takes 6 runs" },
	{ "speed-up", 10, K_SPEED_UP, 0, "total time in mode none, by this one" },
	{ "of none", 9, K_TIME_RATIO, 0, "total time as a part of that in mode none" },
	{ NULL },
};

static const struct figure data[] = {
	{ "mode", -13, K_MODE, 0, NULL },
	{ "MiB", 9, K_MIB, V_BYTES, "data sent" },
	{ "of none", 9, K_BYTES_RATIO, 0, "data sent as a part of that in mode none" },
	{ "downtime", 10, K_COUNT, V_DOWNTIME_MS, "ms the guest stood still, until all was sent" },
	{ "setup", 7, K_COUNT, V_SETUP_MS, "milliseconds of set-up" },
	{ "floor ms", 10, K_NS_IN_MS, V_FLOOR_NS, "time of a bare loop for as many bytes" },
	{ "x floor", 9, K_FLOOR_RATIO, 0, "total time, by that" },
	{ "guest", 9, K_WORK_RATIO, V_WORK_BEFORE, "its own work meanwhile, as a part of before" },
	{ NULL },
};

static const struct figure file[] = {
	{ "mode", -13, K_MODE, 0, NULL },
	{ "file MiB", 10, K_MIB, V_FILE_BYTES, "room that the saved guest takes on its disk" },
	{ "load ms", 9, K_NS_IN_MS, V_LOAD_NS, "time until it was loaded from there" },
	{ NULL },
};

static const struct figure costs[] = {
	{ "mode", -13, K_MODE, 0, NULL },
	{ "CPU src", 9, K_COUNT, V_SRC_CPU, "milliseconds of CPU time of the source with its guest" },
	{ "CPU dst", 9, K_COUNT, V_DST_CPU, "milliseconds of CPU time of the destination" },
	{ "guest", 8, K_COUNT, V_GUEST_CPU, "the part of the source's for its virtual CPUs" },
	{ "faults src", 11, K_COUNT, V_SRC_FAULTS, "page faults of the source meanwhile" },
	{ "faults dst", 11, K_COUNT, V_DST_FAULTS, "page faults of the destination meanwhile" },
	{ "+MiB src", 9, K_KIB_GROWTH, V_SRC_BEFORE, "growth of the source's memory" },
	{ "+MiB dst", 9, K_KIB_GROWTH, V_DST_BEFORE, "growth of the destination's memory" },
	{ NULL },
};

static const struct figure pages[] = {
	{ "mode", -13, K_MODE, 0, NULL },
	{ "sent", 10, K_COUNT, V_SENT, "pages sent with their content" },
	{ "zero", 10, K_COUNT, V_ZERO, "pages read, found to be zero and sent as such" },
	{ "checked", 9, K_COUNT, V_CHECKED, "pages whose content the guest verified afterwards" },
	{ "RSS src MiB", 19, K_KIB_PAIR, V_SRC_BEFORE, "memory of the source before and after" },
	{ "RSS dst MiB", 19, K_KIB_PAIR, V_DST_BEFORE, "memory of the destination before and after" },
	{ NULL },
};

static const struct figure source_faults[] = {
	{ "mode", -13, K_MODE, 0, NULL },
	{ "migr faults", 13, K_COUNT, V_SRC_MIGR_FAULTS, "faults of migration threads, in guest memory; --trace" },
	{ "migr pages", 12, K_COUNT, V_SRC_MIGR_TAKEN, "pages that got memory by that" },
	{ "vCPU pages", 12, K_COUNT, V_SRC_VCPU_TAKEN, "pages that got memory by virtual CPUs" },
	{ "other pages", 13, K_COUNT, V_SRC_OTHER_TAKEN, "pages that got memory by other threads" },
	{ "given back", 12, K_COUNT, V_SRC_GIVEN_BACK, "pages that lost their memory" },
	{ NULL },
};

static const struct figure destination_faults[] = {
	{ "mode", -13, K_MODE, 0, NULL },
	{ "recv faults", 13, K_COUNT, V_DST_RECV_FAULTS, "faults of threads that receive, in guest memory" },
	{ "recv pages", 12, K_COUNT, V_DST_RECV_TAKEN, "pages that got memory by that" },
	{ "vCPU pages", 12, K_COUNT, V_DST_VCPU_TAKEN, NULL },
	{ "other pages", 13, K_COUNT, V_DST_OTHER_TAKEN, NULL },
	{ "given back", 12, K_COUNT, V_DST_GIVEN_BACK, NULL },
	{ NULL },
};

static const struct figure host[] = {
	{ "mode", -13, K_MODE, 0, NULL },
	{ "moved", 11, K_COUNT, V_MOVED, "pages that the host moved meanwhile, of whatever process" },
	{ NULL },
};

static const struct figure tracer[] = {
	{ "mode", -13, K_MODE, 0, NULL },
	{ "tracer ms", 11, K_NS_IN_MS, V_TRACER_NS, "time in the tracer's programs, of all CPUs" },
	{ "of total", 10, K_NS_PART, V_TRACER_NS, "that as a part of the total time" },
	{ "runs", 11, K_COUNT, V_TRACER_RUNS, "how often they ran, for whatever process" },
	{ "lost", 8, K_COUNT, V_TRACER_LOST, "events that they did not record" },
	{ NULL },
};

static const struct figure left_out[] = {
	{ "in all", 0, K_COUNT, V_SKIPPED, "pages left out at the end; some for several reasons" },
	{ "unmapped", 0, K_COUNT, V_UNMAPPED, "pages left out: the host never gave memory for them" },
	{ "zero-mapped", 0, K_COUNT, V_ZERO_MAPPED, "pages left out: the host maps its zero page there" },
	{ "zero content", 0, K_COUNT, V_ZERO_CONTENT, "pages left out: zeroes, found before the migration" },
	{ "free", 0, K_COUNT, V_FREE, "pages left out: the guest says they are free" },
	{ "known to guest only", 0, K_COUNT, V_GUEST_ONLY, "pages left out, unknown to the host" },
	{ "known to host only", 0, K_COUNT, V_HOST_ONLY, "pages left out, unknown to the guest" },
	{ "known to both", 0, K_COUNT, V_BOTH, "pages left out that both knew of" },
	{ "sent after all", 0, K_COUNT, V_RESENT, "pages left out first, then dirtied" },
	{ "scan ms", 0, K_NS_IN_MS, V_SCAN_NS, "time the host took to find its pages" },
	{ "prescan CPU ms", 0, K_NS_IN_MS, V_PRESCAN_NS, "its CPU time since the source began" },
	{ "guest answers by", 0, K_TEXT, T_TRANSPORT, "the device through which it does" },
	{ "requests", 0, K_COUNT, V_REQUESTS, "how often it was asked" },
	{ "answers", 0, K_COUNT, V_ANSWERS, "how often its answer was complete" },
	{ "first answer ms", 0, K_NS_IN_MS, V_LATENCY_NS, "time until the first was complete" },
	{ "held back ms", 0, K_NS_IN_MS, V_WAIT_NS, "time that sending waited for it" },
	{ "clear log us", 0, K_NS_IN_US, V_ARM_NS, "time to clear the dirty log before it" },
	{ "apply ms", 0, K_NS_IN_MS, V_APPLY_NS, "time to take out pages, of all answers" },
	{ "walk in guest", 0, K_TEXT, T_WALK, "how its driver looked for free pages" },
	{ "walk ms", 0, K_NS_IN_MS, V_WALK_NS, "time the guest took for its first answer" },
	{ "longest lock us", 0, K_NS_IN_US, V_LOCK_NS, "longest time its page allocator was locked" },
	{ "free runs found", 0, K_COUNT, V_GUEST_ENTRIES, "runs of free pages in that answer" },
	{ NULL },
};

static const struct figure compile[] = {
	{ "mode", -13, K_MODE, 0, NULL },
	{ "alone ms", 11, K_COUNT, V_COMPILE_ALONE, "time of the guest's job without a migration" },
	{ "migrated ms", 13, K_COUNT, V_COMPILE_MIGRATED, "the same with a migration in its middle" },
	{ "of alone", 10, K_WORK_RATIO, V_COMPILE_ALONE, "the second as a part of the first" },
	{ "left", 7, K_COUNT, V_COMPILE_LEFT, "objects to compile when the migration was over" },
	{ NULL },
};

static const struct figure inflate[] = {
	{ "mode", -13, K_MODE, 0, NULL },
	{ "inflate ms", 12, K_NS_IN_MS, V_INFLATE_NS, "time until the balloon was full" },
	{ "frames", 9, K_COUNT, V_INFLATE_FRAMES, "chains of buffers of the guest's driver" },
	{ "interrupts", 12, K_COUNT, V_INFLATE_IRQS, "interrupts that the guest got meanwhile" },
	{ "madvise", 10, K_COUNT, V_INFLATE_CALLS, "calls of madvise() by QEMU; root only" },
	{ "CPU guest", 10, K_COUNT, V_INFLATE_GUEST, "milliseconds of CPU time, by the guest's own account" },
	{ "CPU QEMU", 9, K_COUNT, V_INFLATE_CPU, "milliseconds of CPU time of QEMU with its guest" },
	{ NULL },
};

static const struct figure deflate[] = {
	{ "mode", -13, K_MODE, 0, NULL },
	{ "deflate ms", 12, K_NS_IN_MS, V_DEFLATE_NS, "time until it was empty again" },
	{ "frames", 9, K_COUNT, V_DEFLATE_FRAMES, NULL },
	{ "interrupts", 12, K_COUNT, V_DEFLATE_IRQS, NULL },
	{ "madvise", 10, K_COUNT, V_DEFLATE_CALLS, NULL },
	{ "CPU guest", 10, K_COUNT, V_DEFLATE_GUEST, NULL },
	{ "CPU QEMU", 9, K_COUNT, V_DEFLATE_CPU, NULL },
	{ NULL },
};

static const struct figure given_back[] = {
	{ "mode", -13, K_MODE, 0, NULL },
	{ "back MiB", 10, K_MIB, V_INFLATE_RETURNED, "memory that the host had back, once it was full" },
	{ "peak MiB", 10, K_MIB, V_INFLATE_PEAK, "memory that QEMU took more until then" },
	{ "faults full", 13, K_COUNT, V_INFLATE_FAULTS, "page faults of QEMU with its guest until then" },
	{ "faults empty", 14, K_COUNT, V_DEFLATE_FAULTS, "and until it was empty again" },
	{ NULL },
};

const struct figure_table figure_tables[] = {
	{ "time", times, true },
	{ "data", data, true },
	{ "file", file, true },
	{ "cost", costs, true },
	{ "pages", pages, true },
	{ "compile", compile, true },
	{ "guest memory, source", source_faults, true },
	{ "guest memory, destination", destination_faults, true },
	{ "host", host, true },
	{ "tracer", tracer, true },
	{ "balloon, filled", inflate, true },
	{ "balloon, emptied", deflate, true },
	{ "balloon, memory", given_back, true },
	{ "left out", left_out, false },
	{ NULL },
};

bool figure_has(const struct figure *f, const struct summary *s)
{
	switch (f->kind) {
	case K_COUNT:
	case K_MIB:
	case K_KIB_PAIR:
	case K_KIB_GROWTH:
	case K_NS_IN_MS:
	case K_NS_IN_US:
	case K_RANGE:
		return s->v[f->what].n;
	case K_INTERVAL:
		return !isnan(s->v[f->what].low);
	case K_TIME_RATIO:
	case K_SPEED_UP:
		return s->time_ratio >= 0;
	case K_BYTES_RATIO:
		return s->bytes_ratio >= 0;
	case K_FLOOR_RATIO:
		return s->floor_ratio >= 0;
	case K_WORK_RATIO:
		return s->v[f->what].n && s->v[f->what].median > 0;
	case K_NS_PART:
		return s->v[f->what].n && s->v[V_TOTAL_MS].median > 0;
	case K_TEXT:
		return s->text[f->what];
	case K_MODE:
	case K_RUNS:
		return true;
	}
	g_assert_not_reached();
}

bool figure_any_has(const struct figure *f, const GPtrArray *modes, guint from, guint to)
{
	for (; from < to; from++)
		if (figure_has(f, modes->pdata[from]))
			return true;
	return false;
}

double figure_number(const struct figure *f, const struct summary *s)
{
	const struct spread *v = &s->v[f->what];

	switch (f->kind) {
	case K_COUNT:
		return v->median;
	case K_KIB_GROWTH:
		return (v[1].median - v[0].median) / 1024;
	case K_NS_IN_MS:
		return v->median / 1e6;
	case K_NS_IN_US:
		return v->median / 1e3;
	default:
		g_assert_not_reached();
	}
}

char *figure_cell(const struct figure *f, const struct summary *s)
{
	const struct spread *v = &s->v[f->what];

	if (!figure_has(f, s))
		return g_strdup(f->kind == K_COUNT && f->what == V_TOTAL_MS ? "failed" : "-");
	switch (f->kind) {
	case K_MODE:
		return g_strdup(s->mode);
	case K_RUNS:
		return g_strdup_printf("%" G_GUINT64_FORMAT "/%" G_GUINT64_FORMAT,
				       s->n, s->n + s->failed);
	case K_COUNT:
		return g_strdup_printf("%.0f", figure_number(f, s));
	case K_MIB:
		return g_strdup_printf("%.1f", v->median / 1048576);
	case K_KIB_PAIR:
		return g_strdup_printf("%.0f -> %.0f", v[0].median / 1024, v[1].median / 1024);
	case K_KIB_GROWTH:
		return g_strdup_printf("%+.0f", figure_number(f, s));
	case K_NS_IN_MS:
		return g_strdup_printf("%.2f", figure_number(f, s));
	case K_NS_IN_US:
		return g_strdup_printf("%.1f", figure_number(f, s));
	case K_NS_PART:
		return g_strdup_printf("%.2f%%", v->median / 1e4 / s->v[V_TOTAL_MS].median);
	case K_RANGE:
		return g_strdup_printf("%.0f - %.0f", v->min, v->max);
	case K_INTERVAL:
		return g_strdup_printf("%.0f - %.0f", v->low, v->high);
	case K_TIME_RATIO:
		return g_strdup_printf("%.1f%%", s->time_ratio * 100);
	case K_SPEED_UP:
		return g_strdup_printf("%.2fx", 1 / s->time_ratio);
	case K_BYTES_RATIO:
		return g_strdup_printf("%.1f%%", s->bytes_ratio * 100);
	case K_FLOOR_RATIO:
		return g_strdup_printf("%.2f", s->floor_ratio);
	case K_WORK_RATIO:
		return g_strdup_printf("%.1f%%", v[1].median / v[0].median * 100);
	case K_TEXT:
		return g_strdup(s->text[f->what]);
	}
	g_assert_not_reached();
}

GPtrArray *view_modes(const struct figure_table *t, const GPtrArray *all, const char *scenario)
{
	GPtrArray *modes = g_ptr_array_new();
	const struct figure *f;
	guint i;

	for (i = 0; i < all->len; i++) {
		struct summary *s = all->pdata[i];

		if (strcmp(s->scenario, scenario) == 0 &&
		    (t->row_is_mode || s->text[T_FPH_STATE]))
			g_ptr_array_add(modes, s);
	}
	for (f = t->figures; f->head; f++)
		if (f->kind != K_MODE && figure_any_has(f, modes, 0, modes->len))
			return modes;
	g_ptr_array_set_size(modes, 0);
	return modes;
}

static const char *known(const char *s)
{
	return s ? s : "unknown";
}

char *view_machine(const struct result *r)
{
	const struct machine *m = &r->machine;
	GString *text = g_string_new(NULL);

	g_string_printf(text, "%s, %" G_GUINT64_FORMAT " CPUs, ", known(m->cpu), m->cores);
	if (m->governor)
		g_string_append_printf(text, "governor %s, ", m->governor);
	g_string_append_printf(text, "%.1f GiB, Linux %s, huge pages: %s, shared: %s; QEMU %s",
			       m->memory_kib / 1048576.0, known(m->kernel), known(m->thp),
			       known(m->thp_shmem), known(m->qemu));
	if (g_strcmp0(m->qemu, m->destination_qemu) != 0)
		g_string_append_printf(text, ", at the destination %s", known(m->destination_qemu));
	if (m->accel)
		g_string_append_printf(text, " (%s)", m->accel);
	if (m->link)
		g_string_append_printf(text, ", link of %s", m->link);
	if (m->multifd)
		g_string_append_printf(text, ", multifd with %" G_GUINT64_FORMAT, m->multifd);
	if (m->tracer)
		g_string_append_printf(text, ", traced (%s)", m->tracer);
	if (m->cold)
		g_string_append(text, ", cold");
	if (r->started)
		g_string_append_printf(text, "; %s", r->started);
	return g_string_free(text, FALSE);
}

static char *size_words(guint64 bytes)
{
	if (bytes && bytes % (UINT64_C(1) << 30) == 0)
		return g_strdup_printf("%" G_GUINT64_FORMAT " GiB", bytes >> 30);
	return g_strdup_printf("%" G_GUINT64_FORMAT " MiB", bytes >> 20);
}

char *view_scenario(const GPtrArray *all, const char *scenario)
{
	g_autofree char *size = NULL;
	guint i;

	for (i = 0; i < all->len; i++) {
		const struct summary *s = all->pdata[i];

		if (strcmp(s->scenario, scenario) != 0)
			continue;
		size = size_words(s->first->memory);
		return g_strdup_printf("%s: %s of %s", scenario, size,
				       s->first->ram ? s->first->ram : "memory");
	}
	return g_strdup(scenario);
}

/* What a reader of the tables must know about @run, or NULL. */
static char *note(const struct run *run)
{
	const char *hints = run->text[T_HINT_STATE], *why = run->text[T_HINT_REASON];

	if (!run->ok)
		return g_strdup_printf(" failed: %s%s%s", known(run->error),
				       run->log ? "; logs: " : "", run->log ? run->log : "");
	if (g_strcmp0(run->text[T_FPH_STATE], "inactive") == 0)
		return g_strdup_printf(": fph-source was inactive: %s",
				       known(run->text[T_FPH_REASON]));
	if (hints && strcmp(hints, "answered") != 0)
		return g_strdup_printf(": hints of the guest: %s%s%s", hints, why ? ": " : "",
				       why ? why : "");
	return NULL;
}

GPtrArray *view_notes(const struct result *r)
{
	GPtrArray *notes = g_ptr_array_new_with_free_func(g_free);
	guint i;

	for (i = 0; i < r->runs->len; i++) {
		const struct run *run = r->runs->pdata[i];
		g_autofree char *what = note(run);

		if (what)
			g_ptr_array_add(notes, g_strdup_printf("%s %s, run %" G_GUINT64_FORMAT "%s",
							       run->scenario, run->mode,
							       run->repeat, what));
	}
	return notes;
}

static char *floor_note(const struct summary *s)
{
	const struct spread *v = s->v;
	GString *text;

	if (s->floor_ratio <= FAR_FROM_FLOOR || !v[V_SRC_SYSTEM].n || !v[V_DST_SYSTEM].n ||
	    !v[V_GUEST_CPU].n)
		return NULL;
	text = g_string_new(NULL);
	g_string_printf(text, "%s takes %.2f times its floor: of %.0f ms, set-up took %.0f",
			s->mode, s->floor_ratio, v[V_TOTAL_MS].median, v[V_SETUP_MS].median);
	if (v[V_WAIT_NS].n)
		g_string_append_printf(text, ", waiting for the guest's answer %.0f",
				       v[V_WAIT_NS].median / 1e6);
	/* A guest does its own work on processors that may be others. */
	g_string_append_printf(text, ", the downtime %.0f; beside its guest, QEMU computed for %.0f "
			       "ms at the source (in the kernel, guest included, %.0f, with %.0f "
			       "page faults) and for %.0f at the destination (in the kernel %.0f, "
			       "with %.0f page faults)", v[V_DOWNTIME_MS].median,
			       MAX(v[V_SRC_CPU].median - v[V_GUEST_CPU].median, 0),
			       v[V_SRC_SYSTEM].median, v[V_SRC_FAULTS].median,
			       v[V_DST_CPU].median, v[V_DST_SYSTEM].median,
			       v[V_DST_FAULTS].median);
	return g_string_free(text, FALSE);
}

GPtrArray *view_scenario_notes(const GPtrArray *all, const char *scenario)
{
	GPtrArray *notes = g_ptr_array_new_with_free_func(g_free);
	g_autoptr(GPtrArray) published = published_notes(scenario);
	guint i;

	for (i = 0; i < all->len; i++) {
		const struct summary *s = all->pdata[i];
		char *note = strcmp(s->scenario, scenario) == 0 ? floor_note(s) : NULL;

		if (note)
			g_ptr_array_add(notes, note);
	}
	g_ptr_array_extend_and_steal(notes, g_steal_pointer(&published));
	return notes;
}

char *view_help(void)
{
	GString *out = g_string_new("Columns; ratios are to mode none of the same file:\n");
	const struct figure_table *t;
	const struct figure *f;

	for (t = figure_tables; t->title; t++) {
		if (!t->row_is_mode)
			g_string_append(out, "\nRows; of modes with fph-source:\n");
		for (f = t->figures; f->head; f++)
			if (f->help)
				g_string_append_printf(out, "  %-20s %s\n", f->head, f->help);
	}
	return g_string_free(out, FALSE);
}

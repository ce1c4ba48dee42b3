/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "table.h"

#include <math.h>
#include <string.h>

#define WIDTH		80
#define LABEL_WIDTH	20	/* of the rows with a column for each mode */
#define MODE_WIDTH	15

enum kind {
	K_MODE, K_RUNS, K_COUNT, K_MIB, K_KIB_PAIR, K_NS_IN_MS, K_NS_IN_US, K_TIME_RATIO,
	K_BYTES_RATIO, K_TEXT
};

/* A figure: a column of a table with a row for each mode, or a row of one with columns for them. */
struct figure {
	const char *head;
	int width;		/* of the column */
	enum kind kind;
	int what;		/* enum value, of a pair the first; enum text of K_TEXT */
	const char *help;
};

static const struct figure times[] = {
	{ "mode", -13, K_MODE, 0, "who said which pages can be left out" },
	{ "runs", 6, K_RUNS, 0, "runs that completed, of those tried; figures are medians" },
	{ "total ms", 9, K_COUNT, V_TOTAL_MS, "total time of the migration" },
	{ "of none", 9, K_TIME_RATIO, 0, "total time as a part of that in mode none" },
	{ "downtime", 9, K_COUNT, V_DOWNTIME_MS, "milliseconds the guest stood still" },
	{ "MiB", 9, K_MIB, V_BYTES, "data sent" },
	{ "of none", 9, K_BYTES_RATIO, 0, "data sent as a part of that in mode none" },
	{ "CPU src", 8, K_COUNT, V_SRC_CPU, "milliseconds of CPU time of the source, guest included" },
	{ "CPU dst", 8, K_COUNT, V_DST_CPU, "milliseconds of CPU time of the destination" },
	{ NULL },
};

static const struct figure pages[] = {
	{ "mode", -13, K_MODE, 0, NULL },
	{ "sent", 11, K_COUNT, V_SENT, "pages sent with their content" },
	{ "zero", 11, K_COUNT, V_ZERO, "pages read, found to be zero and sent as such" },
	{ "RSS src MiB", 20, K_KIB_PAIR, V_SRC_BEFORE, "memory of the source before and after" },
	{ "RSS dst MiB", 20, K_KIB_PAIR, V_DST_BEFORE, "memory of the destination before and after" },
	{ NULL },
};

/* Rows, of the modes with fph-source. */
static const struct figure left_out[] = {
	{ "in all", 0, K_COUNT, V_SKIPPED, "pages left out at the end; some for several reasons" },
	{ "unmapped", 0, K_COUNT, V_UNMAPPED, "pages left out: the host never gave memory for them" },
	{ "zero-mapped", 0, K_COUNT, V_ZERO_MAPPED, "pages left out: the host maps its zero page there" },
	{ "free", 0, K_COUNT, V_FREE, "pages left out: the guest says they are free" },
	{ "known to guest only", 0, K_COUNT, V_GUEST_ONLY, "pages left out, unknown to the host" },
	{ "known to host only", 0, K_COUNT, V_HOST_ONLY, "pages left out, unknown to the guest" },
	{ "known to both", 0, K_COUNT, V_BOTH, "pages left out that both knew of" },
	{ "sent after all", 0, K_COUNT, V_RESENT, "pages left out first, then dirtied" },
	{ "scan ms", 0, K_NS_IN_MS, V_SCAN_NS, "time the host took to find its pages" },
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

static char *percent(double ratio)
{
	if (ratio < 0)
		return g_strdup("-");
	return g_strdup_printf("%.1f%%", ratio * 100);
}

static bool has(const struct summary *s, const struct figure *f)
{
	switch (f->kind) {
	case K_COUNT:
	case K_MIB:
	case K_KIB_PAIR:
	case K_NS_IN_MS:
	case K_NS_IN_US:
		return !isnan(s->v[f->what]);
	case K_TIME_RATIO:
	case K_BYTES_RATIO:
		return s->n;
	case K_TEXT:
		return s->text[f->what];
	default:
		return true;
	}
}

static char *cell(const struct figure *f, const struct summary *s)
{
	if (!has(s, f))
		return g_strdup(f->kind == K_COUNT && f->what == V_TOTAL_MS ? "failed" : "-");
	switch (f->kind) {
	case K_MODE:
		return g_strdup(s->mode);
	case K_RUNS:
		return g_strdup_printf("%" G_GUINT64_FORMAT "/%" G_GUINT64_FORMAT,
				       s->n, s->n + s->failed);
	case K_COUNT:
		return g_strdup_printf("%.0f", s->v[f->what]);
	case K_MIB:
		return g_strdup_printf("%.1f", s->v[f->what] / 1048576);
	case K_KIB_PAIR:
		return g_strdup_printf("%.0f -> %.0f", s->v[f->what] / 1024,
				       s->v[f->what + 1] / 1024);
	case K_NS_IN_MS:
		return g_strdup_printf("%.2f", s->v[f->what] / 1e6);
	case K_NS_IN_US:
		return g_strdup_printf("%.1f", s->v[f->what] / 1e3);
	case K_TIME_RATIO:
		return percent(s->time_ratio);
	case K_BYTES_RATIO:
		return percent(s->bytes_ratio);
	case K_TEXT:
		return g_strdup(s->text[f->what]);
	}
	g_assert_not_reached();
}

static void end_line(GString *out)
{
	while (out->len && out->str[out->len - 1] == ' ')
		g_string_truncate(out, out->len - 1);
	g_string_append_c(out, '\n');
}

/* A row for each mode. */
static void add_columns(GString *out, const struct figure *figures, GPtrArray *modes)
{
	const struct figure *f;
	guint i;

	g_string_append_c(out, '\n');
	for (f = figures; f->head; f++)
		g_string_append_printf(out, "%*s", f->width, f->head);
	end_line(out);
	for (i = 0; i < modes->len; i++) {
		for (f = figures; f->head; f++) {
			g_autofree char *text = cell(f, modes->pdata[i]);

			g_string_append_printf(out, "%*s", f->width, text);
		}
		end_line(out);
	}
}

static bool any_has(GPtrArray *modes, guint from, guint to, const struct figure *f)
{
	for (; from < to; from++)
		if (has(modes->pdata[from], f))
			return true;
	return false;
}

/* A row for each figure that one of the modes has; a second table for modes that do not fit. */
static void add_rows(GString *out, const char *title, const struct figure *figures,
		     GPtrArray *modes)
{
	const guint fit = (WIDTH - LABEL_WIDTH) / MODE_WIDTH;
	const struct figure *f;
	guint i, from, to;

	for (from = 0; from < modes->len; from = to) {
		to = MIN(from + fit, modes->len);
		g_string_append_printf(out, "\n%*s", -LABEL_WIDTH, title);
		for (i = from; i < to; i++)
			g_string_append_printf(out, "%*s", MODE_WIDTH,
					       ((struct summary *)modes->pdata[i])->mode);
		end_line(out);
		for (f = figures; f->head; f++) {
			if (!any_has(modes, from, to, f))
				continue;
			g_string_append_printf(out, "%*s", -LABEL_WIDTH, f->head);
			for (i = from; i < to; i++) {
				g_autofree char *text = cell(f, modes->pdata[i]);

				g_string_append_printf(out, "%*s", MODE_WIDTH, text);
			}
			end_line(out);
		}
	}
}

/* Words of @text, lines of at most WIDTH columns, all but the first indented. */
static void add_wrapped(GString *out, const char *text, const char *indent)
{
	g_auto(GStrv) words = g_strsplit(text, " ", -1);
	size_t at = 0;
	char **w;

	for (w = words; *w; w++) {
		size_t len = g_utf8_strlen(*w, -1);

		if (at && at + 1 + len > WIDTH) {
			g_string_append_printf(out, "\n%s", indent);
			at = strlen(indent);
		} else if (w != words) {
			g_string_append_c(out, ' ');
			at++;
		}
		g_string_append(out, *w);
		at += len;
	}
	g_string_append_c(out, '\n');
}

static const char *known(const char *s)
{
	return s ? s : "unknown";
}

static void add_machine(GString *out, const struct result *r)
{
	const struct machine *m = &r->machine;
	g_autoptr(GString) text = g_string_new(NULL);

	g_string_printf(text, "%s, %" G_GUINT64_FORMAT " CPUs, %.1f GiB, Linux %s, "
			"huge pages: %s, shared: %s; QEMU %s", known(m->cpu), m->cores,
			m->memory_kib / 1048576.0, known(m->kernel), known(m->thp),
			known(m->thp_shmem), known(m->qemu));
	if (g_strcmp0(m->qemu, m->destination_qemu) != 0)
		g_string_append_printf(text, ", at the destination %s", known(m->destination_qemu));
	if (r->started)
		g_string_append_printf(text, "; %s", r->started);
	add_wrapped(out, text->str, "");
}

static char *size_words(guint64 bytes)
{
	if (bytes && bytes % (UINT64_C(1) << 30) == 0)
		return g_strdup_printf("%" G_GUINT64_FORMAT " GiB", bytes >> 30);
	return g_strdup_printf("%" G_GUINT64_FORMAT " MiB", bytes >> 20);
}

static void add_scenario(GString *out, const struct summary *s, GPtrArray *all)
{
	g_autofree char *size = size_words(s->first->memory);
	g_autoptr(GPtrArray) modes = g_ptr_array_new();
	g_autoptr(GPtrArray) with_fph = g_ptr_array_new();
	guint i;

	for (i = 0; i < all->len; i++) {
		struct summary *other = all->pdata[i];

		if (strcmp(other->scenario, s->scenario) != 0)
			continue;
		g_ptr_array_add(modes, other);
		if (other->text[T_FPH_STATE])
			g_ptr_array_add(with_fph, other);
	}
	g_string_append_printf(out, "\n%s: %s of %s\n", s->scenario, size,
			       s->first->ram ? s->first->ram : "memory");
	add_columns(out, times, modes);
	add_columns(out, pages, modes);
	add_rows(out, "left out", left_out, with_fph);
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

static void add_notes(GString *out, const struct result *r)
{
	bool first = true;
	guint i;

	for (i = 0; i < r->runs->len; i++) {
		const struct run *run = r->runs->pdata[i];
		g_autofree char *what = note(run);
		g_autofree char *text = NULL;

		if (!what)
			continue;
		text = g_strdup_printf("%s %s, run %" G_GUINT64_FORMAT "%s", run->scenario,
				       run->mode, run->repeat, what);
		if (first)
			g_string_append_c(out, '\n');
		first = false;
		add_wrapped(out, text, "  ");
	}
}

char *table_text(const struct result *r)
{
	g_autoptr(GPtrArray) all = result_summary(r);
	GString *out = g_string_new(NULL);
	guint i, j;

	add_machine(out, r);
	for (i = 0; i < all->len; i++) {
		const struct summary *s = all->pdata[i];

		for (j = 0; j < i; j++)
			if (strcmp(((struct summary *)all->pdata[j])->scenario, s->scenario) == 0)
				break;
		if (j == i)
			add_scenario(out, s, all);
	}
	if (!all->len)
		g_string_append(out, "\nno runs\n");
	add_notes(out, r);
	return g_string_free(out, FALSE);
}

static void add_help(GString *out, const struct figure *f)
{
	for (; f->head; f++)
		if (f->help)
			g_string_append_printf(out, "  %-20s %s\n", f->head, f->help);
}

char *table_help(void)
{
	GString *out = g_string_new(NULL);

	add_help(out, times);
	add_help(out, pages);
	g_string_append(out, "\nRows; of modes with fph-source:\n");
	add_help(out, left_out);
	return g_string_free(out, FALSE);
}

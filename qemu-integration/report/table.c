/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "table.h"

#include <string.h>

#define WIDTH	80

enum kind { K_MODE, K_RUNS, K_COUNT, K_MIB, K_KIB_PAIR, K_TIME_RATIO, K_BYTES_RATIO };

struct column {
	int table;		/* 0 above, 1 below */
	const char *head;
	int width;
	enum kind kind;
	enum value value;	/* of a pair the first, the next is the second */
	const char *help;
};

static const struct column columns[] = {
	{ 0, "mode", -9, K_MODE, 0, "who said which pages can be left out" },
	{ 0, "runs", 5, K_RUNS, 0, "runs that completed, of those tried; figures are medians" },
	{ 0, "total ms", 10, K_COUNT, V_TOTAL_MS, "total time of the migration" },
	{ 0, "of none", 9, K_TIME_RATIO, 0, "total time as a part of that in mode none" },
	{ 0, "downtime", 10, K_COUNT, V_DOWNTIME_MS, "milliseconds the guest stood still" },
	{ 0, "MiB", 9, K_MIB, V_BYTES, "data sent" },
	{ 0, "of none", 9, K_BYTES_RATIO, 0, "data sent as a part of that in mode none" },
	{ 0, "CPU src", 9, K_COUNT, V_SRC_CPU, "milliseconds of CPU time of the source, guest included" },
	{ 0, "CPU dst", 9, K_COUNT, V_DST_CPU, "milliseconds of CPU time of the destination" },
	{ 1, "mode", -9, K_MODE, 0, NULL },
	{ 1, "sent", 9, K_COUNT, V_SENT, "pages sent with their content" },
	{ 1, "zero", 9, K_COUNT, V_ZERO, "pages read, found to be zero and sent as such" },
	{ 1, "unmapped", 9, K_COUNT, V_UNMAPPED, "pages left out: the host never gave memory for them" },
	{ 1, "zero-mapped", 12, K_COUNT, V_ZERO_MAPPED, "pages left out: the host maps its zero page there" },
	{ 1, "RSS src MiB", 16, K_KIB_PAIR, V_SRC_BEFORE, "memory of the source before and after" },
	{ 1, "RSS dst MiB", 16, K_KIB_PAIR, V_DST_BEFORE, "memory of the destination before and after" },
};

#define TABLES 2

static char *percent(double ratio)
{
	if (ratio < 0)
		return g_strdup("-");
	return g_strdup_printf("%.1f%%", ratio * 100);
}

static char *cell(const struct column *c, const struct summary *s)
{
	if (c->kind == K_MODE)
		return g_strdup(s->mode);
	if (c->kind == K_RUNS)
		return g_strdup_printf("%" G_GUINT64_FORMAT "/%" G_GUINT64_FORMAT,
				       s->n, s->n + s->failed);
	if (!s->n)
		return g_strdup(c->kind == K_COUNT && c->value == V_TOTAL_MS ? "failed" : "-");
	switch (c->kind) {
	case K_COUNT:
		return g_strdup_printf("%.0f", s->v[c->value]);
	case K_MIB:
		return g_strdup_printf("%.1f", s->v[c->value] / 1048576);
	case K_KIB_PAIR:
		return g_strdup_printf("%.0f -> %.0f", s->v[c->value] / 1024,
				       s->v[c->value + 1] / 1024);
	case K_TIME_RATIO:
		return percent(s->time_ratio);
	case K_BYTES_RATIO:
		return percent(s->bytes_ratio);
	default:
		g_assert_not_reached();
	}
}

static void end_line(GString *out)
{
	while (out->len && out->str[out->len - 1] == ' ')
		g_string_truncate(out, out->len - 1);
	g_string_append_c(out, '\n');
}

static void add_table(GString *out, int table, GPtrArray *all, const char *scenario)
{
	size_t k;
	guint i;

	for (k = 0; k < G_N_ELEMENTS(columns); k++)
		if (columns[k].table == table)
			g_string_append_printf(out, "%*s", columns[k].width, columns[k].head);
	end_line(out);
	for (i = 0; i < all->len; i++) {
		const struct summary *s = all->pdata[i];

		if (strcmp(s->scenario, scenario) != 0)
			continue;
		for (k = 0; k < G_N_ELEMENTS(columns); k++) {
			g_autofree char *text = NULL;

			if (columns[k].table != table)
				continue;
			text = cell(&columns[k], s);
			g_string_append_printf(out, "%*s", columns[k].width, text);
		}
		end_line(out);
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
	int t;

	g_string_append_printf(out, "\n%s: %s of %s\n", s->scenario, size,
			       s->first->ram ? s->first->ram : "memory");
	for (t = 0; t < TABLES; t++) {
		g_string_append_c(out, '\n');
		add_table(out, t, all, s->scenario);
	}
}

/* What a reader of the tables must know about single runs. */
static void add_notes(GString *out, const struct result *r)
{
	bool first = true;
	guint i;

	for (i = 0; i < r->runs->len; i++) {
		const struct run *run = r->runs->pdata[i];
		g_autofree char *text = NULL;

		if (!run->ok)
			text = g_strdup_printf("%s %s, run %" G_GUINT64_FORMAT " failed: %s%s%s",
					       run->scenario, run->mode, run->repeat,
					       known(run->error), run->log ? "; logs: " : "",
					       run->log ? run->log : "");
		else if (run->fph_state && strcmp(run->fph_state, "inactive") == 0)
			text = g_strdup_printf("%s %s, run %" G_GUINT64_FORMAT
					       ": fph-source was inactive: %s", run->scenario,
					       run->mode, run->repeat, known(run->fph_reason));
		if (!text)
			continue;
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

char *table_help(void)
{
	GString *out = g_string_new(NULL);
	size_t k;

	for (k = 0; k < G_N_ELEMENTS(columns); k++)
		if (columns[k].help)
			g_string_append_printf(out, "  %-12s %s\n", columns[k].head,
					       columns[k].help);
	return g_string_free(out, FALSE);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Plain text, within 80 columns. */
#include "across.h"
#include "format.h"
#include "view.h"

#define WIDTH		80
#define LABEL_WIDTH	20	/* of the rows with a column for each mode */
#define MODE_WIDTH	15

static void end_line(GString *out)
{
	while (out->len && out->str[out->len - 1] == ' ')
		g_string_truncate(out, out->len - 1);
	g_string_append_c(out, '\n');
}

/* What fills its column, or more, is still told from the one before */
static void add_cell(GString *out, int width, const char *text)
{
	bool full = g_utf8_strlen(text, -1) >= width;

	if (full && out->len && !g_ascii_isspace(out->str[out->len - 1]))
		g_string_append_c(out, ' ');
	g_string_append_printf(out, "%*s", width, text);
}

/* A row for each mode; columns that none of them has a figure for are left away. */
static void add_columns(GString *out, const struct figure *figures, GPtrArray *modes)
{
	const struct figure *f;
	guint i;

	if (!modes->len)
		return;
	g_string_append_c(out, '\n');
	for (f = figures; f->head; f++)
		if (figure_any_has(f, modes, 0, modes->len))
			add_cell(out, f->width, f->head);
	end_line(out);
	for (i = 0; i < modes->len; i++) {
		for (f = figures; f->head; f++) {
			g_autofree char *text = figure_cell(f, modes->pdata[i]);

			if (figure_any_has(f, modes, 0, modes->len))
				add_cell(out, f->width, text);
		}
		end_line(out);
	}
}

/* A row for each figure that one of the modes has; a second table for modes that do not fit. */
static void add_rows(GString *out, const struct figure_table *t, GPtrArray *modes)
{
	const guint fit = (WIDTH - LABEL_WIDTH) / MODE_WIDTH;
	const struct figure *f;
	guint i, from, to;

	for (from = 0; from < modes->len; from = to) {
		to = MIN(from + fit, modes->len);
		g_string_append_printf(out, "\n%*s", -LABEL_WIDTH, t->title);
		for (i = from; i < to; i++)
			add_cell(out, MODE_WIDTH, ((struct summary *)modes->pdata[i])->mode);
		end_line(out);
		for (f = t->figures; f->head; f++) {
			if (!figure_any_has(f, modes, from, to))
				continue;
			g_string_append_printf(out, "%*s", -LABEL_WIDTH, f->head);
			for (i = from; i < to; i++) {
				g_autofree char *text = figure_cell(f, modes->pdata[i]);

				add_cell(out, MODE_WIDTH, text);
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

/* Takes @notes. */
static void add_notes(GString *out, GPtrArray *notes)
{
	guint i;

	for (i = 0; i < notes->len; i++) {
		if (i == 0)
			g_string_append_c(out, '\n');
		add_wrapped(out, notes->pdata[i], "  ");
	}
	g_ptr_array_unref(notes);
}

static void add_result(GString *out, const struct result *r)
{
	g_autoptr(GPtrArray) all = result_summary(r);
	g_autoptr(GPtrArray) scenarios = summary_scenarios(all);
	g_autofree char *machine = view_machine(r);
	const struct figure_table *t;
	guint i;

	add_wrapped(out, machine, "");
	for (i = 0; i < scenarios->len; i++) {
		g_autofree char *title = view_scenario(all, scenarios->pdata[i]);

		g_string_append_printf(out, "\n%s\n", title);
		for (t = figure_tables; t->title; t++) {
			g_autoptr(GPtrArray) modes = view_modes(t, all, scenarios->pdata[i]);

			if (t->row_is_mode)
				add_columns(out, t->figures, modes);
			else
				add_rows(out, t, modes);
		}
		add_notes(out, view_scenario_notes(all, scenarios->pdata[i]));
	}
	if (!all->len)
		g_string_append(out, "\nno runs\n");
	add_notes(out, view_notes(r));
}

/* As wide as its words take; columns of words to the left. */
static void add_across(GString *out, const struct across *a)
{
	g_autofree guint *widths = g_new0(guint, a->columns);
	guint i, k;

	for (i = 0; i < a->rows->len; i++)
		for (k = 0; k < a->columns; k++)
			widths[k] = MAX(widths[k], g_utf8_strlen(((char **)a->rows->pdata[i])[k], -1) + 2);
	g_string_append_printf(out, "\n%s\n\n", a->title);
	for (i = 0; i < a->rows->len; i++) {
		for (k = 0; k < a->columns; k++)
			g_string_append_printf(out, "%*s", k < a->labels ? -(int)widths[k] :
									  (int)widths[k],
					       ((char **)a->rows->pdata[i])[k]);
		end_line(out);
	}
	if (a->note) {
		g_string_append_c(out, '\n');
		add_wrapped(out, a->note, "  ");
	}
}

char *format_text(const struct source *sources, guint n)
{
	g_autoptr(GPtrArray) tables = NULL;
	GString *out = g_string_new(NULL);
	guint i;

	for (i = 0; i < n; i++) {
		if (n > 1)
			g_string_append_printf(out, "%s%s\n", i ? "\n" : "", sources[i].name);
		add_result(out, sources[i].result);
	}
	tables = across_tables(sources, n);
	for (i = 0; i < tables->len; i++)
		add_across(out, tables->pdata[i]);
	return g_string_free(out, FALSE);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "across.h"
#include "format.h"
#include "result-json.h"
#include "summary.h"
#include "view.h"

#include <math.h>
#include <string.h>

const struct format formats[] = {
	{ "text", format_text, "tables, within 80 columns" },
	{ "markdown", format_markdown, "the same tables" },
	{ "html", format_html, "one file with plots, for a browser" },
	{ "csv", format_csv, "a line for each figure of each scenario and mode" },
	{ "json", format_json, "the same, in objects" },
	{ NULL },
};

/* Markdown. A bar in a cell would end it. */

static void add_cell(GString *out, const char *text)
{
	g_auto(GStrv) parts = g_strsplit(text, "|", -1);
	g_autofree char *escaped = g_strjoinv("\\|", parts);

	g_string_append_printf(out, " %s |", escaped);
}

static void add_rule(GString *out, guint columns)
{
	g_string_append(out, "\n|---|");
	while (--columns)
		g_string_append(out, "---:|");
	g_string_append_c(out, '\n');
}

static void add_modes_down(GString *out, const struct figure_table *t, const GPtrArray *modes)
{
	const struct figure *f;
	guint i, columns = 0;

	if (!modes->len)
		return;
	g_string_append(out, "\n|");
	for (f = t->figures; f->head; f++) {
		if (!figure_any_has(f, modes, 0, modes->len))
			continue;
		add_cell(out, f->head);
		columns++;
	}
	add_rule(out, columns);
	for (i = 0; i < modes->len; i++) {
		g_string_append_c(out, '|');
		for (f = t->figures; f->head; f++) {
			g_autofree char *cell = figure_cell(f, modes->pdata[i]);

			if (figure_any_has(f, modes, 0, modes->len))
				add_cell(out, cell);
		}
		g_string_append_c(out, '\n');
	}
}

static void add_modes_across(GString *out, const struct figure_table *t, const GPtrArray *modes)
{
	const struct figure *f;
	guint i;

	if (!modes->len)
		return;
	g_string_append(out, "\n|");
	add_cell(out, t->title);
	for (i = 0; i < modes->len; i++)
		add_cell(out, ((struct summary *)modes->pdata[i])->mode);
	add_rule(out, modes->len + 1);
	for (f = t->figures; f->head; f++) {
		if (!figure_any_has(f, modes, 0, modes->len))
			continue;
		g_string_append_c(out, '|');
		add_cell(out, f->head);
		for (i = 0; i < modes->len; i++) {
			g_autofree char *cell = figure_cell(f, modes->pdata[i]);

			add_cell(out, cell);
		}
		g_string_append_c(out, '\n');
	}
}

/* Takes @notes. */
static void add_notes(GString *out, GPtrArray *notes)
{
	guint i;

	for (i = 0; i < notes->len; i++)
		g_string_append_printf(out, "%s- %s\n", i ? "" : "\n", (char *)notes->pdata[i]);
	g_ptr_array_unref(notes);
}

static void add_across(GString *out, const struct across *a)
{
	guint i, k;

	g_string_append_printf(out, "\n# %s\n", a->title);
	for (i = 0; i < a->rows->len; i++) {
		g_string_append(out, i ? "|" : "\n|");
		for (k = 0; k < a->columns; k++)
			add_cell(out, ((char **)a->rows->pdata[i])[k]);
		if (i)
			g_string_append_c(out, '\n');
		else
			add_rule(out, a->columns);
	}
	if (a->note)
		g_string_append_printf(out, "\n%s\n", a->note);
}

char *format_markdown(const struct source *sources, guint n)
{
	g_autoptr(GPtrArray) tables = NULL;
	GString *out = g_string_new("# fph-report\n");
	const struct figure_table *t;
	guint i, k;

	for (i = 0; i < n; i++) {
		const struct result *r = sources[i].result;
		g_autoptr(GPtrArray) all = result_summary(r);
		g_autoptr(GPtrArray) scenarios = summary_scenarios(all);
		g_autofree char *machine = view_machine(r);

		if (n > 1)
			g_string_append_printf(out, "\n# %s\n", sources[i].name);
		g_string_append_printf(out, "\n%s\n", machine);
		for (k = 0; k < scenarios->len; k++) {
			g_autofree char *title = view_scenario(all, scenarios->pdata[k]);

			g_string_append_printf(out, "\n## %s\n", title);
			for (t = figure_tables; t->title; t++) {
				g_autoptr(GPtrArray) modes = view_modes(t, all, scenarios->pdata[k]);

				if (t->row_is_mode)
					add_modes_down(out, t, modes);
				else
					add_modes_across(out, t, modes);
			}
			add_notes(out, view_scenario_notes(all, scenarios->pdata[k]));
		}
		add_notes(out, view_notes(r));
	}
	tables = across_tables(sources, n);
	for (i = 0; i < tables->len; i++)
		add_across(out, tables->pdata[i]);
	return g_string_free(out, FALSE);
}

/* CSV, as RFC 4180 has it, but with plain newlines. */

static void add_field(GString *out, const char *text)
{
	g_auto(GStrv) parts = NULL;
	g_autofree char *doubled = NULL;

	if (!strpbrk(text, ",\"\r\n")) {
		g_string_append_printf(out, "%s,", text);
		return;
	}
	parts = g_strsplit(text, "\"", -1);
	doubled = g_strjoinv("\"\"", parts);
	g_string_append_printf(out, "\"%s\",", doubled);
}

static void add_figure(GString *out, const char *file, const struct summary *s,
		       const char *figure, const struct spread *v)
{
	const double numbers[] = { v->median, v->min, v->max, v->low, v->high };
	char number[G_ASCII_DTOSTR_BUF_SIZE];
	size_t i;

	add_field(out, file);
	add_field(out, s->scenario);
	add_field(out, s->mode);
	g_string_append_printf(out, "%s,%u", figure, v->n);
	for (i = 0; i < G_N_ELEMENTS(numbers); i++)
		g_string_append_printf(out, ",%s", isnan(numbers[i]) ? "" :
				       g_ascii_formatd(number, sizeof(number), "%.15g", numbers[i]));
	g_string_append_c(out, '\n');
}

static void add_ratio(GString *out, const char *file, const struct summary *s,
		      const char *figure, double ratio)
{
	const struct spread v = { s->n, ratio, NAN, NAN, NAN, NAN };

	if (ratio >= 0)
		add_figure(out, file, s, figure, &v);
}

char *format_csv(const struct source *sources, guint n)
{
	GString *out = g_string_new("file,scenario,mode,figure,n,median,min,max,low,high\n");
	guint i, k;
	int v;

	for (i = 0; i < n; i++) {
		g_autoptr(GPtrArray) all = result_summary(sources[i].result);

		for (k = 0; k < all->len; k++) {
			const struct summary *s = all->pdata[k];
			const struct spread failed = { s->n + s->failed, s->failed,
						       NAN, NAN, NAN, NAN };

			add_figure(out, sources[i].name, s, "failed", &failed);
			for (v = 0; v < V_COUNT; v++)
				if (s->v[v].n)
					add_figure(out, sources[i].name, s, value_descs[v].path,
						   &s->v[v]);
			add_ratio(out, sources[i].name, s, "time_ratio", s->time_ratio);
			add_ratio(out, sources[i].name, s, "bytes_ratio", s->bytes_ratio);
			add_ratio(out, sources[i].name, s, "floor_ratio", s->floor_ratio);
		}
	}
	return g_string_free(out, FALSE);
}

/* JSON. */

char *format_json(const struct source *sources, guint n)
{
	g_autoptr(JsonNode) root = json_node_new(JSON_NODE_OBJECT);
	g_autofree char *text = NULL;
	JsonObject *o = json_object_new();
	JsonArray *results = json_array_new();
	guint i;

	json_node_take_object(root, o);
	json_object_set_int_member(o, "schema", RESULT_SCHEMA);
	json_object_set_string_member(o, "tool", RESULT_TOOL " compare");
	json_object_set_array_member(o, "results", results);
	for (i = 0; i < n; i++) {
		const struct result *r = sources[i].result;
		JsonObject *e = json_object_new();

		json_object_set_string_member(e, "file", sources[i].name);
		if (r->version)
			json_object_set_string_member(e, "version", r->version);
		if (r->started)
			json_object_set_string_member(e, "started", r->started);
		json_object_set_object_member(e, "machine", result_machine_to_json(&r->machine));
		json_object_set_array_member(e, "summary", summary_to_json(r));
		json_array_add_object_element(results, e);
	}
	text = json_to_string(root, TRUE);
	return g_strconcat(text, "\n", NULL);
}

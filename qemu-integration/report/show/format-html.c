/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One HTML file that needs nothing but itself: no script, no network. It is
 * also well-formed XML, so that any tool can take it apart. Plots are inline
 * SVG whose colours come from the style sheet, light or dark as the reader has
 * it; what colour says is said by a pattern, a dash or a word as well.
 */
#include "across.h"
#include "format.h"
#include "plot.h"
#include "view.h"

#include <math.h>
#include <string.h>

static const char style[] =
	":root{color-scheme:light dark;--fg:#1a1a1a;--bg:#fff;--soft:#595959;--line:#c8c8c8;"
	"--band:#f3f3f3;--link:#0b57a4;--mark:#b3261e;"
	"--c0:#0072b2;--c1:#b86e00;--c2:#00795a;--c3:#8a4f7d;--c4:#3b8fc4;--c5:#6b6b6b;--c6:#a0401a}\n"
	"@media(prefers-color-scheme:dark){:root{--fg:#e8e8e8;--bg:#161616;--soft:#adadad;"
	"--line:#4a4a4a;--band:#212121;--link:#8cc4ff;--mark:#ff8a80;"
	"--c0:#5bb0e8;--c1:#f0a830;--c2:#2fc39b;--c3:#dd9acb;--c4:#9ad3f5;--c5:#a8a8a8;--c6:#f08c5a}}\n"
	"*{box-sizing:border-box}\n"
	"body{margin:0 auto;padding:1.5rem 1rem 3rem;max-width:74rem;color:var(--fg);"
	"background:var(--bg);font:1rem/1.5 system-ui,sans-serif}\n"
	"h1{font-size:1.6rem;margin:0 0 .5rem}h2{font-size:1.25rem;margin:2.5rem 0 .5rem;"
	"padding-top:.75rem;border-top:1px solid var(--line)}h3{font-size:1.1rem;"
	"margin:2rem 0 .5rem}\n"
	"a{color:var(--link)}:focus-visible{outline:3px solid var(--link);outline-offset:2px}\n"
	".soft{color:var(--soft)}nav ul{display:flex;flex-wrap:wrap;gap:.25rem 1.25rem;padding:0;"
	"list-style:none}\n"
	".plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));"
	"gap:1.5rem;margin:1rem 0}\n"
	"figure{margin:0}figcaption{font-weight:600;margin-bottom:.25rem}\n"
	"svg{display:block;width:100%;height:auto}svg text{fill:var(--fg);font:13px system-ui,"
	"sans-serif}svg .soft{fill:var(--soft)}\n"
	".axis{stroke:var(--line);stroke-width:1;fill:none}.mark{stroke:var(--mark);"
	"stroke-width:3}.whisker{stroke:var(--fg);stroke-width:1.5;fill:none}\n"
	".f0{fill:var(--c0)}.f1{fill:var(--c1)}.f2{fill:var(--c2)}.f3{fill:var(--c3)}"
	".f4{fill:var(--c4)}.f5{fill:var(--c5)}.f6{fill:var(--c6)}\n"
	".s0{stroke:var(--c0)}.s1{stroke:var(--c1)}.s2{stroke:var(--c2)}.s3{stroke:var(--c3)}"
	".s4{stroke:var(--c4)}.s5{stroke:var(--c5)}.s6{stroke:var(--c6)}\n"
	".hatch{stroke:var(--bg);stroke-width:2;fill:none}.seg{stroke:var(--bg);stroke-width:1}\n"
	".curve{fill:none;stroke-width:2.25}\n"
	".tables{display:flex;flex-wrap:wrap;gap:0 2.5rem}"
	".scroll{overflow-x:auto;margin:.5rem 0}\n"
	"table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.93rem}\n"
	"caption{text-align:left;font-weight:600;padding:.25rem 0}\n"
	"th,td{padding:.2rem .7rem;text-align:right;white-space:nowrap;"
	"border-bottom:1px solid var(--line)}th:first-child{text-align:left}"
	"thead th{background:var(--band)}tbody th{font-weight:500;text-align:left}\n"
	"dt{font-weight:600}dd{margin:0 0 .35rem 1.25rem}\n"
	"@media print{.scroll{overflow:visible}}\n";

static void add_escaped(GString *out, const char *before, const char *text, const char *after)
{
	g_autofree char *escaped = g_markup_escape_text(text, -1);

	g_string_append_printf(out, "%s%s%s", before, escaped, after);
}

/* Tables. */

static void add_modes_down(GString *out, const struct figure_table *t, const GPtrArray *modes)
{
	const struct figure *f;
	guint i;

	g_string_append(out, "<thead><tr>");
	for (f = t->figures; f->head; f++)
		if (figure_any_has(f, modes, 0, modes->len))
			add_escaped(out, "<th scope=\"col\">", f->head, "</th>");
	g_string_append(out, "</tr></thead>\n<tbody>\n");
	for (i = 0; i < modes->len; i++) {
		g_string_append(out, "<tr>");
		for (f = t->figures; f->head; f++) {
			g_autofree char *cell = figure_cell(f, modes->pdata[i]);
			bool head = f == t->figures;

			if (figure_any_has(f, modes, 0, modes->len))
				add_escaped(out, head ? "<th scope=\"row\">" : "<td>", cell,
					    head ? "</th>" : "</td>");
		}
		g_string_append(out, "</tr>\n");
	}
	g_string_append(out, "</tbody>");
}

static void add_modes_across(GString *out, const struct figure_table *t, const GPtrArray *modes)
{
	const struct figure *f;
	guint i;

	g_string_append(out, "<thead><tr><th scope=\"col\">pages, times</th>");
	for (i = 0; i < modes->len; i++)
		add_escaped(out, "<th scope=\"col\">", ((struct summary *)modes->pdata[i])->mode,
			    "</th>");
	g_string_append(out, "</tr></thead>\n<tbody>\n");
	for (f = t->figures; f->head; f++) {
		if (!figure_any_has(f, modes, 0, modes->len))
			continue;
		add_escaped(out, "<tr><th scope=\"row\">", f->head, "</th>");
		for (i = 0; i < modes->len; i++) {
			g_autofree char *cell = figure_cell(f, modes->pdata[i]);

			add_escaped(out, "<td>", cell, "</td>");
		}
		g_string_append(out, "</tr>\n");
	}
	g_string_append(out, "</tbody>");
}

static void add_tables(GString *out, const GPtrArray *all, const char *scenario)
{
	const struct figure_table *t;

	g_string_append(out, "<div class=\"tables\">\n");
	for (t = figure_tables; t->title; t++) {
		g_autoptr(GPtrArray) modes = view_modes(t, all, scenario);

		if (!modes->len)
			continue;
		/* Wider than the window, it is scrolled, which keys must be able to do. */
		add_escaped(out, "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"",
			    scenario, ": ");
		add_escaped(out, "", t->title, "\">\n");
		add_escaped(out, "<table><caption>", t->title, "</caption>\n");
		if (t->row_is_mode)
			add_modes_down(out, t, modes);
		else
			add_modes_across(out, t, modes);
		g_string_append(out, "</table></div>\n");
	}
	g_string_append(out, "</div>\n");
}

/* The document. */

/* Takes @notes. */
static void add_notes(GString *out, GPtrArray *notes)
{
	guint i;

	if (notes->len)
		g_string_append(out, "<ul class=\"notes\">\n");
	for (i = 0; i < notes->len; i++)
		add_escaped(out, "<li>", notes->pdata[i], "</li>\n");
	if (notes->len)
		g_string_append(out, "</ul>\n");
	g_ptr_array_unref(notes);
}

/* @level: of its heading */
static void add_scenario(GString *out, const GPtrArray *all, const char *scenario, const char *id,
			 int level)
{
	g_autofree char *title = view_scenario(all, scenario);
	g_autoptr(GPtrArray) modes = view_modes(figure_tables, all, scenario);

	g_string_append_printf(out, "<section aria-labelledby=\"%s\">\n", id);
	g_string_append_printf(out, "<h%d id=\"%s\">", level, id);
	add_escaped(out, "", title, "");
	g_string_append_printf(out, "</h%d>\n<div class=\"plots\">\n", level);
	plot_time(out, modes, id);
	plot_pages(out, modes, id);
	plot_progress(out, modes, id);
	plot_memory(out, modes, id);
	g_string_append(out, "</div>\n");
	add_tables(out, all, scenario);
	add_notes(out, view_scenario_notes(all, scenario));
	g_string_append(out, "</section>\n");
}

static void add_result(GString *out, const struct source *source, guint number, bool named)
{
	const struct result *r = source->result;
	g_autoptr(GPtrArray) all = result_summary(r);
	g_autoptr(GPtrArray) scenarios = summary_scenarios(all);
	g_autofree char *machine = view_machine(r);
	guint i;

	if (named)
		add_escaped(out, "<h2>", source->name, "</h2>\n");
	add_escaped(out, "<p class=\"soft\">", machine, "</p>\n");
	add_escaped(out, "<nav aria-label=\"Scenarios of ", source->name, "\"><ul>\n");
	for (i = 0; i < scenarios->len; i++) {
		g_string_append_printf(out, "<li><a href=\"#r%u-%u\">", number, i);
		add_escaped(out, "", scenarios->pdata[i], "</a></li>\n");
	}
	if (!scenarios->len)
		g_string_append(out, "<li>no runs</li>\n");
	g_string_append(out, "</ul></nav>\n");
	add_notes(out, view_notes(r));
	for (i = 0; i < scenarios->len; i++) {
		g_autofree char *id = g_strdup_printf("r%u-%u", number, i);

		add_scenario(out, all, scenarios->pdata[i], id, named ? 3 : 2);
	}
}

static void add_across(GString *out, const struct across *a, guint number)
{
	g_autofree char *id = g_strdup_printf("a%u", number);
	guint i, k;

	g_string_append_printf(out, "<section aria-labelledby=\"%s\">\n<h2 id=\"%s\">", id, id);
	add_escaped(out, "", a->title, "</h2>\n");
	if (a->curves->len) {
		g_string_append(out, "<div class=\"plots\">\n");
		plot_sizes(out, a->curves, id);
		g_string_append(out, "</div>\n");
	}
	add_escaped(out, "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"", a->title,
		    "\">\n");
	add_escaped(out, "<table><caption>", a->title, "</caption>\n<thead>");
	for (i = 0; i < a->rows->len; i++) {
		char **row = a->rows->pdata[i];

		g_string_append(out, "<tr>");
		for (k = 0; k < a->columns; k++)
			add_escaped(out, !i ? "<th scope=\"col\">" : k < a->labels ? "<th scope=\"row\">" :
					 "<td>", row[k], !i || k < a->labels ? "</th>" : "</td>");
		g_string_append(out, i ? "</tr>\n" : "</tr></thead>\n<tbody>\n");
	}
	g_string_append(out, "</tbody></table></div>\n");
	if (a->note)
		add_escaped(out, "<p class=\"soft\">", a->note, "</p>\n");
	g_string_append(out, "</section>\n");
}

static void add_glossary(GString *out)
{
	const struct figure_table *t;
	const struct figure *f;
	size_t i;

	g_string_append(out, "<details><summary>What the columns and rows mean</summary>\n<dl>\n");
	for (t = figure_tables; t->title; t++) {
		for (f = t->figures; f->head; f++) {
			if (!f->help)
				continue;
			add_escaped(out, "<dt>", f->head, "</dt>");
			add_escaped(out, "<dd>", f->help, "</dd>\n");
		}
	}
	for (i = 0; across_help[i]; i += 2) {
		add_escaped(out, "<dt>", across_help[i], "</dt>");
		add_escaped(out, "<dd>", across_help[i + 1], "</dd>\n");
	}
	g_string_append(out, "</dl></details>\n");
}

char *format_html(const struct source *sources, guint n)
{
	GString *out = g_string_new("<!DOCTYPE html>\n"
		"<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\">\n<head>\n"
		"<meta charset=\"utf-8\"/>\n"
		"<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
		"<meta http-equiv=\"Content-Security-Policy\" "
		"content=\"default-src 'none'; style-src 'unsafe-inline'\"/>\n"
		"<title>fph-report</title>\n<style>\n");
	g_autoptr(GPtrArray) tables = across_tables(sources, n);
	guint i;

	g_string_append(out, style);
	g_string_append(out, "</style>\n</head>\n<body>\n");
	plot_patterns(out);
	g_string_append(out, "<header><h1>Live migration, with and without pages nobody can miss</h1>\n"
			"<p>Medians of runs in turn, each with a guest of its own; ratios are to mode "
			"<em>none</em>, which is QEMU as it is. The floor is what a bare loop takes "
			"to push as many bytes through the same kind of channel into fresh memory.</p>"
			"</header>\n<main>\n");
	for (i = 0; i < n; i++)
		add_result(out, &sources[i], i, n > 1);
	for (i = 0; i < tables->len; i++)
		add_across(out, tables->pdata[i], i);
	g_string_append(out, "</main>\n<footer>\n");
	add_glossary(out);
	g_string_append(out, "</footer>\n</body>\n</html>\n");
	return g_string_free(out, FALSE);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "plot.h"

#include <math.h>
#include <string.h>

/* All in user units of a view box; the page scales it. */
#define WIDTH		520
#define LABELS		100	/* left of the bars: names of modes */
#define VALUES		164	/* right of them */
#define BARS		(WIDTH - LABELS - VALUES)
#define ROW		30
#define BAR		18
#define AXIS		34	/* below the plot: ticks and what they count */
#define CURVE_LEFT	56
#define CURVE_TOP	24	/* above the plot: what its scale counts */
#define CURVE_HEIGHT	190
#define MIB		1048576.0

/* One for each colour class of the style sheet: f0, s0 and so on. */
#define COLOURS		7
static const char *const dashes[COLOURS] = {
	"none", "8 4", "2 3", "12 3 2 3", "5 2", "1 5", "14 5",
};

static void begin(GString *out, const char *id, const char *name, int height,
		  const char *caption, const char *description)
{
	g_string_append_printf(out, "<figure><figcaption>%s</figcaption>\n"
			       "<svg viewBox=\"0 0 %d %d\" role=\"img\" "
			       "aria-labelledby=\"%s-%s-t %s-%s-d\">\n"
			       "<title id=\"%s-%s-t\">%s</title><desc id=\"%s-%s-d\">%s</desc>\n",
			       caption, WIDTH, height, id, name, id, name, id, name, caption,
			       id, name, description);
}

static void end(GString *out)
{
	g_string_append(out, "</svg></figure>\n");
}

static void add_text(GString *out, double x, double y, const char *anchor, const char *class,
		     const char *text)
{
	g_autofree char *escaped = g_markup_escape_text(text, -1);

	g_string_append_printf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\"%s%s%s>%s</text>\n",
			       x, y, anchor, class ? " class=\"" : "", class ? class : "",
			       class ? "\"" : "", escaped);
}

static void add_bar(GString *out, double x, double y, double width, double height, int colour)
{
	g_string_append_printf(out, "<rect class=\"seg f%d\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" "
			       "height=\"%.1f\"/>", colour, x, y, width, height);
	/* The first colour is plain. */
	if (colour)
		g_string_append_printf(out, "<rect fill=\"url(#hatch%d)\" x=\"%.1f\" y=\"%.1f\" "
				       "width=\"%.1f\" height=\"%.1f\"/>", colour, x, y, width,
				       height);
	g_string_append_c(out, '\n');
}

void plot_patterns(GString *out)
{
	static const char *const paths[COLOURS] = {
		NULL, "M0 8L8 0", "M4 0V8", "M0 0L8 8", "M0 4H8", "M0 4H8M4 0V8", "M0 8L8 0M0 0L8 8",
	};
	int i;

	/* Not hidden, since what refers to a hidden pattern is not painted. */
	g_string_append(out, "<svg width=\"0\" height=\"0\" style=\"position:absolute\" "
			"aria-hidden=\"true\"><defs>\n");
	for (i = 1; i < COLOURS; i++)
		g_string_append_printf(out, "<pattern id=\"hatch%d\" width=\"8\" height=\"8\" "
				       "patternUnits=\"userSpaceOnUse\"><path class=\"hatch\" "
				       "d=\"%s\"/></pattern>\n", i, paths[i]);
	g_string_append(out, "</defs></svg>\n");
}

/* A round distance of ticks, so that there are up to @n of them below @max. */
static double tick_step(double max, int n)
{
	double raw = max / n, size, digit;

	if (!(raw > 0))
		return 1;
	size = pow(10, floor(log10(raw)));
	digit = raw / size;
	return size * (digit <= 1 ? 1 : digit <= 2 ? 2 : digit <= 5 ? 5 : 10);
}

static void add_ticks(GString *out, double max, double left, double width, double top,
		      double bottom, const char *unit)
{
	double step = tick_step(max, 5), at;
	g_autofree char *label = NULL;

	for (at = 0; at <= max; at += step) {
		double x = left + at / max * width;

		g_free(label);
		label = g_strdup_printf("%.15g", at);
		g_string_append_printf(out, "<path class=\"axis\" d=\"M%.1f %.1fV%.1f\"/>",
				       x, top, bottom);
		add_text(out, x, bottom + 14, "middle", "soft", label);
	}
	add_text(out, left + width, bottom + 29, "end", "soft", unit);
}

static void add_mode(GString *out, const struct summary *s, guint row)
{
	add_text(out, LABELS - 8, row * ROW + ROW / 2 + 4.5, "end", NULL, s->mode);
}

/* What a colour stands for, in rows of what fits. Return: the height it takes. */
static int add_legend(GString *out, const char *const *names, const bool *used, int n, int top)
{
	int i, x = LABELS, y = top + 14;

	for (i = 0; i < n; i++) {
		int width = 20 + 7 * strlen(names[i]) + 14;

		if (!used[i])
			continue;
		if (x > LABELS && x + width > WIDTH) {
			x = LABELS;
			y += 20;
		}
		add_bar(out, x, y - 11, 14, 14, i);
		add_text(out, x + 20, y, "start", NULL, names[i]);
		x += width;
	}
	return y - top + 8;
}

/* Time. */

void plot_time(GString *out, const GPtrArray *modes, const char *id)
{
	int bottom = modes->len * ROW, x_legend = LABELS + 2;
	bool floors = false;
	double max = 1;
	guint i;

	for (i = 0; i < modes->len; i++) {
		const struct summary *s = modes->pdata[i];

		floors |= s->floor_ratio >= 0;
		if (s->n)
			max = fmax(max, s->v[V_TOTAL_MS].max);
		if (s->floor_ratio > 0)
			max = fmax(max, s->v[V_TOTAL_MS].median / s->floor_ratio);
	}
	begin(out, id, "time", bottom + AXIS + 22, floors ? "Total time and its floor" : "Total time",
	      "A bar for each mode: the median of the total time, with a line from the fastest "
	      "to the slowest run, and a mark at the floor.");
	add_ticks(out, max, LABELS, BARS, 0, bottom, "ms");
	for (i = 0; i < modes->len; i++) {
		const struct summary *s = modes->pdata[i];
		const struct spread *v = &s->v[V_TOTAL_MS];
		double y = i * ROW + (ROW - BAR) / 2.0, x;
		g_autofree char *value = NULL;

		add_mode(out, s, i);
		if (!s->n) {
			add_text(out, LABELS + 6, y + 13.5, "start", "soft", "failed");
			continue;
		}
		add_bar(out, LABELS, y, v->median / max * BARS, BAR, 0);
		if (s->n > 1)
			g_string_append_printf(out, "<path class=\"whisker\" d=\"M%.1f %.1fH%.1f"
				       "M%.1f %.1fv8M%.1f %.1fv8\"/>\n",
				       LABELS + v->min / max * BARS, y + BAR / 2,
				       LABELS + v->max / max * BARS, LABELS + v->min / max * BARS,
				       y + BAR / 2 - 4, LABELS + v->max / max * BARS, y + BAR / 2 - 4);
		if (s->floor_ratio >= 0) {
			x = LABELS + v->median / s->floor_ratio / max * BARS;
			g_string_append_printf(out, "<path class=\"mark\" d=\"M%.1f %.1fv%d\"/>\n",
					       x, y - 3, BAR + 6);
			value = g_strdup_printf("%.0f ms, %.2f x floor", v->median, s->floor_ratio);
		} else {
			value = g_strdup_printf("%.0f ms", v->median);
		}
		add_text(out, WIDTH, y + 13.5, "end", NULL, value);
	}
	g_string_append_printf(out, "<path class=\"whisker\" d=\"M%d %dh24m-24 -4v8m24 -8v8\"/>\n",
			       x_legend, bottom + 43);
	add_text(out, x_legend + 32, bottom + 48, "start", NULL, "fastest to slowest run");
	if (floors) {
		x_legend += 200;
		g_string_append_printf(out, "<path class=\"mark\" d=\"M%d %dv14\"/>", x_legend,
				       bottom + 36);
		add_text(out, x_legend + 9, bottom + 48, "start", NULL, "floor");
	}
	end(out);
}

/* Pages. */

enum fate { F_SENT, F_ZERO, F_HOST, F_BOTH, F_GUEST, F_QEMU, F_COUNT };

static const char *const fate_names[F_COUNT] = {
	[F_SENT] = "sent",
	[F_ZERO] = "sent as zero",
	[F_HOST] = "left out, host knew",
	[F_BOTH] = "left out, both knew",
	[F_GUEST] = "left out, guest knew",
	[F_QEMU] = "left out by QEMU's own hints",
};

static double median_of(const struct summary *s, enum value v)
{
	return s->v[v].n ? s->v[v].median : 0;
}

static void page_fates(const struct summary *s, double *ret)
{
	double total = s->first->memory / 4096.0 * s->first->guests, known;

	ret[F_SENT] = median_of(s, V_SENT);
	ret[F_ZERO] = median_of(s, V_ZERO);
	ret[F_HOST] = s->v[V_HOST_ONLY].n ? s->v[V_HOST_ONLY].median : median_of(s, V_SKIPPED);
	ret[F_BOTH] = median_of(s, V_BOTH);
	ret[F_GUEST] = median_of(s, V_GUEST_ONLY);
	/* QEMU does not count what it leaves out: what is missing, if no fph-source is there. */
	known = ret[F_SENT] + ret[F_ZERO];
	ret[F_QEMU] = s->n && !s->text[T_FPH_STATE] && known < total * 0.99 ? total - known : 0;
}

void plot_pages(GString *out, const GPtrArray *modes, const char *id)
{
	g_autoptr(GString) rows = g_string_new(NULL);
	g_autoptr(GString) legend = g_string_new(NULL);
	bool used[F_COUNT] = { false };
	int bottom = modes->len * ROW, height, k;
	double max = 1, unit, fates[F_COUNT];
	guint i;

	for (i = 0; i < modes->len; i++) {
		double sum = 0;

		page_fates(modes->pdata[i], fates);
		for (k = 0; k < F_COUNT; k++)
			sum += fates[k];
		max = fmax(max, sum);
	}
	unit = max >= 1e6 ? 1e6 : 1e3;
	add_ticks(rows, max / unit, LABELS, BARS + VALUES - 16, 0, bottom,
		  max >= 1e6 ? "million pages" : "thousand pages");
	for (i = 0; i < modes->len; i++) {
		double x = LABELS;

		add_mode(rows, modes->pdata[i], i);
		page_fates(modes->pdata[i], fates);
		for (k = 0; k < F_COUNT; k++) {
			double width = fates[k] / max * (BARS + VALUES - 16);

			if (fates[k] <= 0)
				continue;
			used[k] = true;
			add_bar(rows, x, i * ROW + (ROW - BAR) / 2.0, fmax(width, 1), BAR, k);
			x += width;
		}
	}
	height = bottom + AXIS + add_legend(legend, fate_names, used, F_COUNT, bottom + AXIS);
	begin(out, id, "pages", height, "What became of each page",
	      "A bar for each mode, stacked: pages sent with their content, sent as zero, and left "
	      "out by who knew that nobody can miss them. The table of pages has the numbers.");
	g_string_append_len(out, rows->str, rows->len);
	g_string_append_len(out, legend->str, legend->len);
	end(out);
}

/* Progress. */

static const GArray *samples_of(const struct summary *s)
{
	return s->typical && s->typical->samples->len ? s->typical->samples : NULL;
}

static guint64 sampled(const struct sample *s, bool remaining)
{
	return remaining ? s->remaining : s->transferred;
}

static void add_curve(GString *out, const GArray *samples, bool remaining, double max_ms,
		      double max_mib, int colour)
{
	double width = WIDTH - CURVE_LEFT - 8;
	guint i;

	g_string_append_printf(out, "<polyline class=\"curve s%d\" stroke-dasharray=\"%s\" points=\"",
			       colour, dashes[colour]);
	for (i = 0; i < samples->len; i++) {
		const struct sample *s = &g_array_index(samples, struct sample, i);

		g_string_append_printf(out, "%s%.1f,%.1f", i ? " " : "",
				       CURVE_LEFT + s->us / 1e3 / max_ms * width,
				       CURVE_TOP + CURVE_HEIGHT -
				       sampled(s, remaining) / MIB / max_mib * CURVE_HEIGHT);
	}
	g_string_append(out, "\"/>\n");
}

static void add_scale(GString *out, double max)
{
	double step = tick_step(max, 4), at;

	for (at = 0; at <= max; at += step) {
		double y = CURVE_TOP + CURVE_HEIGHT - at / max * CURVE_HEIGHT;
		g_autofree char *label = g_strdup_printf("%.15g", at);

		g_string_append_printf(out, "<path class=\"axis\" d=\"M%d %.1fH%d\"/>",
				       CURVE_LEFT, y, WIDTH - 8);
		add_text(out, CURVE_LEFT - 6, y + 4.5, "end", "soft", label);
	}
}

static void add_curves(GString *out, const GPtrArray *modes, const char *id, bool remaining)
{
	double max_ms = 1, max_mib = 1;
	int x = CURVE_LEFT, y = CURVE_TOP + CURVE_HEIGHT + AXIS + 14;
	g_autoptr(GString) legend = g_string_new(NULL);
	guint i, k;

	for (i = 0; i < modes->len; i++) {
		const GArray *samples = samples_of(modes->pdata[i]);

		for (k = 0; samples && k < samples->len; k++) {
			const struct sample *s = &g_array_index(samples, struct sample, k);

			max_ms = fmax(max_ms, s->us / 1e3);
			max_mib = fmax(max_mib, sampled(s, remaining) / MIB);
		}
	}
	for (i = 0; i < modes->len; i++) {
		const struct summary *s = modes->pdata[i];
		int width = 34 + 8 * strlen(s->mode) + 16;

		if (!samples_of(s))
			continue;
		if (x > CURVE_LEFT && x + width > WIDTH) {
			x = CURVE_LEFT;
			y += 20;
		}
		g_string_append_printf(legend, "<path class=\"curve s%u\" stroke-dasharray=\"%s\" "
				       "d=\"M%d %dh28\"/>", i % COLOURS, dashes[i % COLOURS], x, y - 4);
		add_text(legend, x + 34, y, "start", NULL, s->mode);
		x += width;
	}
	begin(out, id, remaining ? "left" : "sent", y + 8,
	      remaining ? "Still to do, over time" : "Sent, over time",
	      remaining ? "A curve for each mode, of the run with the median time: guest memory "
	      "that QEMU has still to look at." : "A curve for each mode, of the run with the "
	      "median time: data sent so far.");
	add_text(out, CURVE_LEFT - 6, 12, "end", "soft", "MiB");
	add_scale(out, max_mib);
	add_ticks(out, max_ms, CURVE_LEFT, WIDTH - CURVE_LEFT - 8, CURVE_TOP + CURVE_HEIGHT,
		  CURVE_TOP + CURVE_HEIGHT + 4, "ms");
	for (i = 0; i < modes->len; i++)
		if (samples_of(modes->pdata[i]))
			add_curve(out, samples_of(modes->pdata[i]), remaining, max_ms, max_mib,
				  i % COLOURS);
	g_string_append_len(out, legend->str, legend->len);
	end(out);
}

void plot_progress(GString *out, const GPtrArray *modes, const char *id)
{
	guint i;

	for (i = 0; i < modes->len; i++) {
		if (!samples_of(modes->pdata[i]))
			continue;
		add_curves(out, modes, id, true);
		add_curves(out, modes, id, false);
		return;
	}
}

/* Sizes. */

static double x_of(double x, double max)
{
	return CURVE_LEFT + x / max * (WIDTH - CURVE_LEFT - 8);
}

static double y_of(double y, double max)
{
	return CURVE_TOP + CURVE_HEIGHT - fmax(y, 0) / max * CURVE_HEIGHT;
}

void plot_sizes(GString *out, const GPtrArray *curves, const char *id)
{
	int x = CURVE_LEFT, y = CURVE_TOP + CURVE_HEIGHT + AXIS + 14;
	double max_x = 0, max_y = 0;
	guint i, k;

	for (i = 0; i < curves->len; i++) {
		const struct curve *c = curves->pdata[i];

		for (k = 0; k < c->x->len; k++) {
			max_x = fmax(max_x, g_array_index(c->x, double, k));
			max_y = fmax(max_y, g_array_index(c->y, double, k));
		}
		max_y = fmax(max_y, c->line.at_zero);
		max_y = fmax(max_y, c->line.at_zero + c->line.slope * max_x);
	}
	max_y = max_y > 0 ? max_y : 1;
	begin(out, id, "sizes", y + 8, "Cost by size of the guest",
	      "For each cost a dot where it was measured, and the line through all of them. The "
	      "table has the numbers.");
	add_text(out, CURVE_LEFT - 6, 12, "end", "soft", "ms");
	add_scale(out, max_y);
	add_ticks(out, max_x, CURVE_LEFT, WIDTH - CURVE_LEFT - 8, CURVE_TOP + CURVE_HEIGHT,
		  CURVE_TOP + CURVE_HEIGHT + 4, "GiB");
	for (i = 0; i < curves->len; i++) {
		const struct curve *c = curves->pdata[i];
		int colour = i % COLOURS;

		g_string_append_printf(out, "<polyline class=\"curve s%d\" stroke-dasharray=\"%s\" "
				       "points=\"%.1f,%.1f %.1f,%.1f\"/>\n", colour, dashes[colour],
				       x_of(0, max_x), y_of(c->line.at_zero, max_y),
				       x_of(max_x, max_x),
				       y_of(c->line.at_zero + c->line.slope * max_x, max_y));
		for (k = 0; k < c->x->len; k++)
			g_string_append_printf(out, "<circle class=\"f%d\" cx=\"%.1f\" cy=\"%.1f\" "
					       "r=\"3.5\"/>", colour,
					       x_of(g_array_index(c->x, double, k), max_x),
					       y_of(g_array_index(c->y, double, k), max_y));
		g_string_append_printf(out, "\n<path class=\"curve s%d\" stroke-dasharray=\"%s\" "
				       "d=\"M%d %dh28\"/>", colour, dashes[colour], x, y - 4);
		add_text(out, x + 34, y, "start", NULL, c->name);
		x += 34 + 8 * strlen(c->name) + 16;
	}
	end(out);
}

/* Memory. */

static double growth_mib(const struct summary *s, enum value before)
{
	return fmax(median_of(s, before + 1) - median_of(s, before), 0) / 1024;
}

void plot_memory(GString *out, const GPtrArray *modes, const char *id)
{
	static const char *const names[] = { "source", "destination" };
	static const bool used[] = { true, true };
	int bottom = modes->len * ROW, height;
	g_autoptr(GString) legend = g_string_new(NULL);
	double max = 1;
	guint i;

	for (i = 0; i < modes->len; i++)
		max = fmax(max, fmax(growth_mib(modes->pdata[i], V_SRC_BEFORE),
				     growth_mib(modes->pdata[i], V_DST_BEFORE)));
	height = bottom + AXIS + add_legend(legend, names, used, G_N_ELEMENTS(names), bottom + AXIS);
	begin(out, id, "memory", height, "Growth of memory",
	      "Two bars for each mode: how much the resident memory of the source and of the "
	      "destination grew during the migration.");
	add_ticks(out, max, LABELS, BARS, 0, bottom, "MiB");
	for (i = 0; i < modes->len; i++) {
		const struct summary *s = modes->pdata[i];
		double src = growth_mib(s, V_SRC_BEFORE), dst = growth_mib(s, V_DST_BEFORE);
		g_autofree char *value = s->n ? g_strdup_printf("+%.0f, +%.0f MiB", src, dst) :
					 g_strdup("failed");
		double y = i * ROW + 4;

		add_mode(out, s, i);
		add_bar(out, LABELS, y, src / max * BARS, 10, 0);
		add_bar(out, LABELS, y + 11, dst / max * BARS, 10, 1);
		add_text(out, WIDTH, y + 15.5, "end", NULL, value);
	}
	g_string_append_len(out, legend->str, legend->len);
	end(out);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "across.h"
#include "view.h"

#include <math.h>
#include <string.h>

#define GIB	1073741824.0
/* A line goes through two points, whatever they are */
#define SIZES_MIN	3

const char *const across_help[] = {
	"channels", "connections that the data went by",
	"per GiB", "what a GiB more costs, by a line through all sizes (least squares)",
	"at 0 GiB", "what that line has for a guest without memory",
	"r2", "1: the line says all; 0: it says nothing",
	NULL
};

/* One scenario in one mode, of one file */
struct item {
	const struct machine *machine;
	const struct summary *s;
	char *kind;		/* of its scenario: without the size */
	char *way;		/* of the machine, and how guests are run and migrated on it */
	guint64 channels;
};

static const char *known(const char *s)
{
	return s ? s : "";
}

/* What must be the same, all but the channels. Guests that compile alone have a compiler. */
static char *way_of(const struct machine *m)
{
	GString *way = g_string_new(NULL);
	size_t i;

	for (i = 0; i < MACHINE_TEXTS; i++)
		if (strcmp(machine_descs[i].key, "guest_compiler") != 0)
			g_string_append_printf(way, "%s\n", known(*machine_text(m, i)));
	g_string_append_printf(way, "%" G_GUINT64_FORMAT " %" G_GUINT64_FORMAT " %d", m->cores,
			       m->memory_kib >> 20, m->cold);
	return g_string_free(way, FALSE);
}

static void free_item(gpointer data)
{
	struct item *i = data;

	g_free(i->kind);
	g_free(i->way);
	g_free(i);
}

static bool same_way(const struct item *a, const struct item *b)
{
	return strcmp(a->way, b->way) == 0;
}

static bool same_guest(const struct item *a, const struct item *b)
{
	return same_way(a, b) && strcmp(a->s->scenario, b->s->scenario) == 0 &&
	       strcmp(a->s->mode, b->s->mode) == 0;
}

static bool same_but_for_size(const struct item *a, const struct item *b)
{
	return same_way(a, b) && a->channels == b->channels && strcmp(a->kind, b->kind) == 0 &&
	       strcmp(a->s->mode, b->s->mode) == 0;
}

/* What a file describes has a name, and not always a size in it */
static bool has_size(const struct item *i)
{
	const char *size = strrchr(i->s->scenario, '-');

	return size && g_ascii_isdigit(size[1]);
}

/* Of one that is in several files, the first counts. @all: receives summaries, to keep */
static GPtrArray *items_of(const struct source *sources, guint n, GPtrArray *all)
{
	GPtrArray *items = g_ptr_array_new_with_free_func(free_item);
	guint i, k, j;

	for (i = 0; i < n; i++) {
		const struct machine *m = &sources[i].result->machine;
		GPtrArray *summaries = result_summary(sources[i].result);

		g_ptr_array_add(all, summaries);
		for (k = 0; k < summaries->len; k++) {
			const struct summary *s = summaries->pdata[k];
			const char *dash = strrchr(s->scenario, '-');
			struct item *item;

			if (!s->n)
				continue;
			item = g_new0(struct item, 1);
			item->machine = m;
			item->s = s;
			item->kind = dash ? g_strndup(s->scenario, dash - s->scenario) :
					    g_strdup(s->scenario);
			item->way = way_of(m);
			item->channels = m->multifd;
			for (j = 0; j < items->len; j++)
				if (same_guest(items->pdata[j], item) &&
				    same_but_for_size(items->pdata[j], item))
					break;
			if (j < items->len)
				free_item(item);
			else
				g_ptr_array_add(items, item);
		}
	}
	return items;
}

static void free_curve(gpointer data)
{
	struct curve *c = data;

	g_array_unref(c->x);
	g_array_unref(c->y);
	g_free(c->name);
	g_free(c);
}

static void free_across(gpointer data)
{
	struct across *a = data;

	g_free(a->title);
	g_free(a->note);
	g_ptr_array_unref(a->rows);
	g_ptr_array_unref(a->curves);
	g_free(a);
}

static struct across *new_across(char *title, guint labels)
{
	struct across *a = g_new0(struct across, 1);

	a->title = title;
	a->labels = labels;
	a->rows = g_ptr_array_new_with_free_func((GDestroyNotify)g_strfreev);
	a->curves = g_ptr_array_new_with_free_func(free_curve);
	return a;
}

/* Takes @cells, of strings, which end with a NULL. */
static void add_row(struct across *a, GPtrArray *cells)
{
	a->columns = cells->len;
	g_ptr_array_add(cells, NULL);
	g_ptr_array_add(a->rows, g_ptr_array_free(cells, FALSE));
}

static char *link_words(const struct item *i)
{
	return i->machine->link ? g_strdup_printf(", link of %s", i->machine->link) : g_strdup("");
}

/* Channels. */

static const struct figure by_channels[] = {
	{ "total ms", 0, K_COUNT, V_TOTAL_MS },
	{ "of none", 0, K_TIME_RATIO },
	{ "x floor", 0, K_FLOOR_RATIO },
	{ "downtime", 0, K_COUNT, V_DOWNTIME_MS },
	{ NULL },
};

static gint by_number_of_channels(gconstpointer a, gconstpointer b)
{
	const struct item *x = *(const struct item *const *)a, *y = *(const struct item *const *)b;

	return (x->channels > y->channels) - (x->channels < y->channels);
}

static void add_channels(struct across *a, const struct item *i)
{
	GPtrArray *cells = g_ptr_array_new();
	const struct figure *f;

	g_ptr_array_add(cells, g_strdup(i->s->scenario));
	g_ptr_array_add(cells, g_strdup(i->s->mode));
	g_ptr_array_add(cells, i->channels ? g_strdup_printf("%" G_GUINT64_FORMAT, i->channels) :
					     g_strdup("1"));
	for (f = by_channels; f->head; f++)
		g_ptr_array_add(cells, figure_cell(f, i->s));
	add_row(a, cells);
}

/* What goes by several because of its mode is beside modes with one, and no series of its own */
static bool has_own_channels(const struct item *i)
{
	return !i->channels && i->s->v[V_MULTIFD_BYTES].n;
}

/* All of the way that @first has */
static struct across *channels_of(const GPtrArray *items, const struct item *first)
{
	g_autofree char *link = link_words(first);
	struct across *a = new_across(g_strdup_printf("One channel, and several%s", link), 2);
	g_autoptr(GPtrArray) seen = g_ptr_array_new();
	GPtrArray *heads = g_ptr_array_new();
	const struct figure *f;
	guint i, k;

	g_ptr_array_add(heads, g_strdup("scenario"));
	g_ptr_array_add(heads, g_strdup("mode"));
	g_ptr_array_add(heads, g_strdup("channels"));
	for (f = by_channels; f->head; f++)
		g_ptr_array_add(heads, g_strdup(f->head));
	add_row(a, heads);
	for (i = 0; i < items->len; i++) {
		g_autoptr(GPtrArray) those = g_ptr_array_new();

		if (!same_way(items->pdata[i], first) || g_ptr_array_find(seen, items->pdata[i], NULL))
			continue;
		for (k = i; k < items->len; k++)
			if (same_guest(items->pdata[k], items->pdata[i]) &&
			    !has_own_channels(items->pdata[k]))
				g_ptr_array_add(those, items->pdata[k]);
		g_ptr_array_sort(those, by_number_of_channels);
		for (k = 0; k < those->len; k++) {
			g_ptr_array_add(seen, those->pdata[k]);
			if (those->len > 1)
				add_channels(a, those->pdata[k]);
		}
	}
	return a;
}

/* Sizes. */

static const struct figure by_size[] = {
	{ "total ms", 0, K_COUNT, V_TOTAL_MS },
	{ "scan ms", 0, K_NS_IN_MS, V_SCAN_NS },
	{ "arm us", 0, K_NS_IN_US, V_ARM_NS },
	{ "apply ms", 0, K_NS_IN_MS, V_APPLY_NS },
	{ "walk ms", 0, K_NS_IN_MS, V_WALK_NS },
	{ "lock us", 0, K_NS_IN_US, V_LOCK_NS },
	{ "+MiB src", 0, K_KIB_GROWTH, V_SRC_BEFORE },
	{ NULL },
};

static gint by_memory(gconstpointer a, gconstpointer b)
{
	const struct item *x = *(const struct item *const *)a, *y = *(const struct item *const *)b;

	return (x->s->first->memory > y->s->first->memory) -
	       (x->s->first->memory < y->s->first->memory);
}

static bool of_that_size(const GPtrArray *those, const struct item *item)
{
	guint i;

	for (i = 0; i < those->len; i++)
		if (by_memory(&those->pdata[i], &item) == 0)
			return true;
	return false;
}

/* Three digits, as far as to 0.0001 */
static char *digits(double x)
{
	double size = fabs(x);
	int behind = size >= 100 || size < 0.00005 ? 0 :
		     (int)fmin(2 - floor(log10(size)), 4);

	return g_strdup_printf("%.*f", behind, size < 0.00005 ? 0 : x);
}

/* Of those that have the figure. Return: false if they are too few. */
static bool fit(const GPtrArray *those, const struct figure *f, struct curve *ret)
{
	guint i, n = 0;

	for (i = 0; i < those->len; i++) {
		const struct summary *s = ((const struct item *)those->pdata[i])->s;
		double gib = s->first->memory / GIB, y;

		if (!figure_has(f, s))
			continue;
		y = figure_number(f, s);
		g_array_append_val(ret->x, gib);
		g_array_append_val(ret->y, y);
		n++;
	}
	if (n < SIZES_MIN)
		return false;
	ret->line = line_of((const double *)(void *)ret->x->data,
			    (const double *)(void *)ret->y->data, n);
	return true;
}

/* What takes time, but for the whole; all in milliseconds */
static bool is_plotted(const struct figure *f, struct curve *c)
{
	guint i;

	if (f->kind != K_NS_IN_US)
		return f->kind == K_NS_IN_MS;
	for (i = 0; i < c->y->len; i++)
		g_array_index(c->y, double, i) /= 1000;
	c->line.at_zero /= 1000;
	c->line.slope /= 1000;
	return true;
}

static void add_sizes(struct across *a, const GPtrArray *those)
{
	GPtrArray *heads = g_ptr_array_new(), *slope = g_ptr_array_new(),
		  *at_zero = g_ptr_array_new(), *r2 = g_ptr_array_new();
	g_autoptr(GPtrArray) rows = g_ptr_array_new();
	const struct figure *f;
	guint i;

	g_ptr_array_add(heads, g_strdup("size"));
	g_ptr_array_add(slope, g_strdup("per GiB"));
	g_ptr_array_add(at_zero, g_strdup("at 0 GiB"));
	g_ptr_array_add(r2, g_strdup("r2"));
	for (i = 0; i < those->len; i++) {
		const struct item *item = those->pdata[i];
		GPtrArray *cells = g_ptr_array_new();

		g_ptr_array_add(cells, g_strdup(strrchr(item->s->scenario, '-') + 1));
		g_ptr_array_add(rows, cells);
	}
	for (f = by_size; f->head; f++) {
		struct curve *c = g_new0(struct curve, 1);
		bool fits;

		c->name = g_strndup(f->head, strcspn(f->head, " "));
		c->x = g_array_new(FALSE, FALSE, sizeof(double));
		c->y = g_array_new(FALSE, FALSE, sizeof(double));
		fits = fit(those, f, c);
		if (c->x->len) {
			g_ptr_array_add(heads, g_strdup(f->head));
			for (i = 0; i < those->len; i++)
				g_ptr_array_add(rows->pdata[i],
						figure_cell(f, ((struct item *)those->pdata[i])->s));
			g_ptr_array_add(slope, fits ? digits(c->line.slope) : g_strdup("-"));
			g_ptr_array_add(at_zero, fits ? digits(c->line.at_zero) : g_strdup("-"));
			g_ptr_array_add(r2, fits ? g_strdup_printf("%.3f", c->line.r2) :
						   g_strdup("-"));
		}
		if (fits && is_plotted(f, c))
			g_ptr_array_add(a->curves, c);
		else
			free_curve(c);
	}
	add_row(a, heads);
	for (i = 0; i < those->len; i++)
		add_row(a, rows->pdata[i]);
	add_row(a, slope);
	add_row(a, at_zero);
	add_row(a, r2);
}

static struct across *sizes_of(GPtrArray *those)
{
	const struct item *first = those->pdata[0];
	g_autofree char *link = link_words(first);
	g_autofree char *channels = first->channels ?
		g_strdup_printf(", multifd with %" G_GUINT64_FORMAT, first->channels) : g_strdup("");
	struct across *a = new_across(g_strdup_printf("Cost by size: %s, %s%s%s", first->kind,
						      first->s->mode, channels, link), 1);

	g_ptr_array_sort(those, by_memory);
	add_sizes(a, those);
	a->note = g_strdup("Lines by least squares; memory of the source is what it grew by "
			   "until it was through, of its bitmaps what it still had then.");
	return a;
}

GPtrArray *across_tables(const struct source *sources, guint n)
{
	GPtrArray *tables = g_ptr_array_new_with_free_func(free_across);
	g_autoptr(GPtrArray) all = g_ptr_array_new_with_free_func((GDestroyNotify)g_ptr_array_unref);
	g_autoptr(GPtrArray) items = items_of(sources, n, all);
	g_autoptr(GPtrArray) ways = g_ptr_array_new(), seen = g_ptr_array_new();
	guint i, k;

	for (i = 0; i < items->len; i++) {
		struct across *a;

		for (k = 0; k < ways->len && !same_way(ways->pdata[k], items->pdata[i]); k++)
			;
		if (k < ways->len)
			continue;
		g_ptr_array_add(ways, items->pdata[i]);
		a = channels_of(items, items->pdata[i]);
		if (a->rows->len > 1)
			g_ptr_array_add(tables, a);
		else
			free_across(a);
	}
	for (i = 0; i < items->len; i++) {
		g_autoptr(GPtrArray) those = g_ptr_array_new();

		if (g_ptr_array_find(seen, items->pdata[i], NULL))
			continue;
		for (k = i; k < items->len; k++) {
			const struct item *item = items->pdata[k];

			if (!same_but_for_size(item, items->pdata[i]))
				continue;
			g_ptr_array_add(seen, items->pdata[k]);
			if (has_size(item) && !of_that_size(those, item))
				g_ptr_array_add(those, items->pdata[k]);
		}
		if (those->len >= SIZES_MIN)
			g_ptr_array_add(tables, sizes_of(those));
	}
	return tables;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "summary.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/*
 * Rank, from 1, of the value at the low end of the interval; 0: @n are too few.
 * Each value is below the true median with a chance of one half, so the number
 * of those is binomial, and must not leave the interval beyond 2.5% at each end.
 */
static size_t interval_rank(size_t n)
{
	double chance = pow(0.5, n), below = 0;
	size_t k;

	for (k = 0; k < n / 2 && below + chance <= 0.025; k++) {
		below += chance;
		chance *= (double)(n - k) / (k + 1);
	}
	return k;
}

struct spread spread_of(double *v, size_t n)
{
	struct spread s = { n, NAN, NAN, NAN, NAN, NAN };
	size_t k;

	if (n == 0)
		return s;
	qsort(v, n, sizeof(*v), by_size);
	s.median = n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
	s.min = v[0];
	s.max = v[n - 1];
	k = interval_rank(n);
	if (k > 0) {
		s.low = v[k - 1];
		s.high = v[n - k];
	}
	return s;
}

struct line line_of(const double *x, const double *y, size_t n)
{
	double mx = 0, my = 0, xx = 0, xy = 0, yy = 0;
	struct line l;
	size_t i;

	for (i = 0; i < n; i++) {
		mx += x[i] / n;
		my += y[i] / n;
	}
	for (i = 0; i < n; i++) {
		xx += (x[i] - mx) * (x[i] - mx);
		xy += (x[i] - mx) * (y[i] - my);
		yy += (y[i] - my) * (y[i] - my);
	}
	l.slope = xy / xx;
	l.at_zero = my - l.slope * mx;
	/* All the same, but for rounding, is a line, too */
	l.r2 = yy > my * my * n * 1e-20 ? xy * xy / (xx * yy) : 1;
	return l;
}

static bool same(const struct summary *s, const char *scenario, const char *mode)
{
	return strcmp(s->scenario, scenario) == 0 && strcmp(s->mode, mode) == 0;
}

const struct summary *summary_find(const GPtrArray *all, const char *scenario, const char *mode)
{
	guint i;

	for (i = 0; i < all->len; i++)
		if (same(all->pdata[i], scenario, mode))
			return all->pdata[i];
	return NULL;
}

GPtrArray *summary_scenarios(const GPtrArray *all)
{
	GPtrArray *names = g_ptr_array_new();
	guint i;

	for (i = 0; i < all->len; i++) {
		const struct summary *s = all->pdata[i];

		if (!g_ptr_array_find_with_equal_func(names, s->scenario, g_str_equal, NULL))
			g_ptr_array_add(names, (gpointer)s->scenario);
	}
	return names;
}

static double ratio(double x, double base)
{
	return base > 0 && x >= 0 ? x / base : -1;
}

/* A floor was measured right after its run, when the machine was as fast as then */
static double floor_ratio(const struct summary *s, const struct result *result, double *v)
{
	size_t n = 0;

	for (guint i = 0; i < result->runs->len; i++) {
		const struct run *r = result->runs->pdata[i];

		if (r->ok && same(s, r->scenario, r->mode) && r->v[V_TOTAL_MS] != NO_VALUE &&
		    r->v[V_FLOOR_NS] != NO_VALUE && r->v[V_FLOOR_NS])
			v[n++] = r->v[V_TOTAL_MS] * 1e6 / r->v[V_FLOOR_NS];
	}
	return n ? spread_of(v, n).median : -1;
}

/* @v: room for as many values as there are runs */
static void sum_up(struct summary *s, const struct result *result, double *v)
{
	double far = INFINITY;
	guint i;
	int k;

	for (k = 0; k < V_COUNT; k++) {
		size_t n = 0;

		for (i = 0; i < result->runs->len; i++) {
			const struct run *r = result->runs->pdata[i];

			if (r->ok && same(s, r->scenario, r->mode) && r->v[k] != NO_VALUE)
				v[n++] = r->v[k];
		}
		s->v[k] = spread_of(v, n);
	}
	for (i = 0; i < result->runs->len; i++) {
		const struct run *r = result->runs->pdata[i];
		double off;

		if (!same(s, r->scenario, r->mode))
			continue;
		for (k = 0; k < T_COUNT; k++)
			if (!s->text[k])
				s->text[k] = r->text[k];
		off = r->ok ? fabs(r->v[V_TOTAL_MS] - s->v[V_TOTAL_MS].median) : INFINITY;
		if (off < far) {
			far = off;
			s->typical = r;
		}
	}
	s->floor_ratio = floor_ratio(s, result, v);
}

GPtrArray *result_summary(const struct result *result)
{
	GPtrArray *all = g_ptr_array_new_with_free_func(g_free);
	double *v = g_new(double, result->runs->len + 1);
	guint i;

	for (i = 0; i < result->runs->len; i++) {
		const struct run *r = result->runs->pdata[i];
		struct summary *s = (struct summary *)summary_find(all, r->scenario, r->mode);

		if (!s) {
			s = g_new0(struct summary, 1);
			s->scenario = r->scenario;
			s->mode = r->mode;
			s->first = r;
			g_ptr_array_add(all, s);
		}
		s->n += r->ok;
		s->failed += !r->ok;
	}
	for (i = 0; i < all->len; i++)
		sum_up(all->pdata[i], result, v);
	for (i = 0; i < all->len; i++) {
		struct summary *s = all->pdata[i];
		const struct summary *none = summary_find(all, s->scenario, "none");

		s->time_ratio = s->bytes_ratio = -1;
		if (!none || !none->n || !s->n)
			continue;
		s->time_ratio = ratio(s->v[V_TOTAL_MS].median, none->v[V_TOTAL_MS].median);
		s->bytes_ratio = ratio(s->v[V_BYTES].median, none->v[V_BYTES].median);
	}
	g_free(v);
	return all;
}

/* JSON. An integer is written as one, what there is not as null. */

static void set_number(JsonObject *o, const char *key, double x)
{
	if (isnan(x))
		json_object_set_null_member(o, key);
	else if (x == floor(x) && fabs(x) < 0x1p63)
		json_object_set_int_member(o, key, (gint64)x);
	else
		json_object_set_double_member(o, key, x);
}

static JsonObject *spread_to_json(const struct spread *s)
{
	JsonObject *o = json_object_new();

	json_object_set_int_member(o, "n", s->n);
	set_number(o, "median", s->median);
	set_number(o, "min", s->min);
	set_number(o, "max", s->max);
	set_number(o, "low", s->low);
	set_number(o, "high", s->high);
	return o;
}

JsonArray *summary_to_json(const struct result *r)
{
	g_autoptr(GPtrArray) all = result_summary(r);
	JsonArray *list = json_array_new();
	guint i;
	int k;

	for (i = 0; i < all->len; i++) {
		const struct summary *s = all->pdata[i];
		JsonObject *o = json_object_new(), *figures = json_object_new();

		json_object_set_string_member(o, "scenario", s->scenario);
		json_object_set_string_member(o, "mode", s->mode);
		json_object_set_int_member(o, "n", s->n);
		json_object_set_int_member(o, "failed", s->failed);
		set_number(o, "time_ratio", s->time_ratio < 0 ? NAN : s->time_ratio);
		set_number(o, "bytes_ratio", s->bytes_ratio < 0 ? NAN : s->bytes_ratio);
		set_number(o, "floor_ratio", s->floor_ratio < 0 ? NAN : s->floor_ratio);
		for (k = 0; k < V_COUNT; k++)
			if (s->v[k].n)
				json_object_set_object_member(figures, value_descs[k].path,
							      spread_to_json(&s->v[k]));
		json_object_set_object_member(o, "figures", figures);
		json_array_add_object_element(list, o);
	}
	return list;
}

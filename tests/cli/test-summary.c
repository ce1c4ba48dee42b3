/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <math.h>

#include "fph-test.h"
#include "measure.h"
#include "summary.h"

/* Ranks of the ends of the interval, from tables of the sign test. */
static const struct interval_row {
	const char *name;
	size_t n, low, high;	/* from 1; 0: none */
} intervals[] = {
	{ "1 run has no interval", 1, 0, 0 },
	{ "5 runs have no interval: 93.75%", 5, 0, 0 },
	{ "6 runs: all of them", 6, 1, 6 },
	{ "8 runs: all of them", 8, 1, 8 },
	{ "9 runs: but the ends", 9, 2, 8 },
	{ "11 runs", 11, 2, 10 },
	{ "12 runs", 12, 3, 10 },
	{ "20 runs", 20, 6, 15 },
	{ "100 runs", 100, 40, 61 },
};

static void check_interval(void **state)
{
	const struct interval_row *r = *state;
	double v[100];
	struct spread s;
	size_t i;

	for (i = 0; i < r->n; i++)
		v[i] = r->n - i;	/* to be sorted; each value is then its rank */
	s = spread_of(v, r->n);
	check_int(s.n, r->n);
	check(s.min == 1 && s.max == r->n && s.median == (r->n + 1) / 2.0);
	if (!r->low) {
		check(isnan(s.low) && isnan(s.high));
		return;
	}
	check_int((int)s.low, r->low);
	check_int((int)s.high, r->high);
}

static const struct line_row {
	const char *name;
	double y[4];		/* of 1, 2, 4 and 9 */
	double slope, at_zero, r2;
	size_t n;		/* of these; 0: all */
} lines[] = {
	{ "points on a line", { 5, 7, 11, 21 }, 2, 3, 1 },
	{ "a line that falls", { 9, 8, 6, 1 }, -1, 10, 1 },
	{ "all the same, but for rounding", { 0.21, 0.21, 0.21 }, 0, 0.21, 1, 3 },
	{ "all nothing", { 0, 0, 0, 0 }, 0, 0, 1 },
	/* Sums of squares about the means 4 and 5: 38, 18 and 36 */
	{ "points beside it", { 2, 8, 2, 8 }, 18 / 38.0, 5 - 4 * 18 / 38.0, 18 * 18 / (38.0 * 36) },
};

static void check_line(void **state)
{
	const struct line_row *r = *state;
	const double x[] = { 1, 2, 4, 9 };
	struct line l = line_of(x, r->y, r->n ? r->n : G_N_ELEMENTS(x));

	check(fabs(l.slope - r->slope) < 1e-9);
	check(fabs(l.at_zero - r->at_zero) < 1e-9);
	check(fabs(l.r2 - r->r2) < 1e-9);
}

static void check_nothing(void **state)
{
	struct spread s = spread_of(NULL, 0);

	check_int(s.n, 0);
	check(isnan(s.median) && isnan(s.min) && isnan(s.low));
}

static void add_run(struct result *r, const char *mode, bool ok, guint64 ms, guint64 floor_ns)
{
	struct run *run = run_new("idle-1g", mode);

	run->ok = ok;
	if (ok) {
		run->v[V_TOTAL_MS] = ms;
		run->v[V_BYTES] = ms * 1000;
		run->v[V_FLOOR_NS] = floor_ns;
	}
	g_ptr_array_add(r->runs, run);
}

static void check_summary(void **state)
{
	struct result *r = result_new();
	g_autoptr(GPtrArray) all = NULL;
	const struct summary *s;

	add_run(r, "none", true, 100, NO_VALUE);
	add_run(r, "pagemap", false, 0, 0);
	add_run(r, "pagemap", true, 90, 20000000);
	add_run(r, "pagemap", true, 40, 10000000);
	add_run(r, "pagemap", true, 50, 20000000);
	add_run(r, "none", true, 100, NO_VALUE);
	all = result_summary(r);
	check_int(all->len, 2);
	s = summary_find(all, "idle-1g", "pagemap");
	check(s && s->n == 3 && s->failed == 1);
	check(s->typical == r->runs->pdata[4]);
	/* Of 4.5, 4 and 2.5; the medians' would be 2.5 */
	check(s->time_ratio == 0.5 && s->bytes_ratio == 0.5 && s->floor_ratio == 4);
	s = summary_find(all, "idle-1g", "none");
	check(s && s->time_ratio == 1 && s->floor_ratio < 0);
	check(!summary_find(all, "idle-2g", "none"));
	result_free(r);
}

/* However long it takes: few samples, evenly, from the beginning to the end. */
static void check_samples(void **state)
{
	struct run *run = run_new("idle-1g", "none");
	struct sampler sampler = { run, 0 };
	struct vm_migration m = { .status = (char *)"active", .total_ram = 1 };
	const gint64 now = g_get_monotonic_time();
	guint64 gap, least = G_MAXUINT64, most = 0;
	const struct sample *s;
	guint i;

	measure_sample(&sampler, &m);
	check_int(run->samples->len, 0);	/* it has not looked at memory yet */
	for (i = 0; i < 5000; i++) {
		m.started = now - (gint64)(i + 1) * 10000;
		m.remaining = 5000 - i;
		m.bytes = i;
		measure_sample(&sampler, &m);
	}
	/* The end counts, however soon it comes. */
	m.status = (char *)"completed";
	m.bytes = 5000;
	m.remaining = 0;
	measure_sample(&sampler, &m);
	check(run->samples->len > 40 && run->samples->len <= 100);
	s = (const struct sample *)(void *)run->samples->data;
	check(s[0].transferred == 0 && s[run->samples->len - 1].transferred == 5000);
	for (i = 1; i + 1 < run->samples->len; i++) {
		gap = s[i].us - s[i - 1].us;
		least = MIN(least, gap);
		most = MAX(most, gap);
	}
	check(most < 3 * least);
	run_free(run);
}

int main(void)
{
	struct fph_tests t = { 0 };

	fph_test_add_rows(&t, intervals, check_interval);
	fph_test_add_rows(&t, lines, check_line);
	fph_test_add(&t, "no values", check_nothing, NULL);
	fph_test_add(&t, "medians, ratios, the typical run", check_summary, NULL);
	fph_test_add(&t, "samples of a long migration", check_samples, NULL);
	return fph_test_run(&t, "summary");
}

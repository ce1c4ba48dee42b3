/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* All runs of one scenario in one mode, summed up. */
#ifndef FPH_REPORT_SUMMARY_H
#define FPH_REPORT_SUMMARY_H

#include <json-glib/json-glib.h>

#include "result.h"

/*
 * A figure over several runs. The interval is the one between two runs, in
 * their order by size, that holds the true median in 95 of 100 cases, whatever
 * the distribution; less than SPREAD_MIN runs have none.
 */
#define SPREAD_MIN	6

struct spread {
	guint n;		/* runs that have it; 0: all the rest is NAN */
	double median, min, max;
	double low, high;	/* the interval; NAN: there is none */
};

/* A line by least squares, through points of which two at least differ in x. */
struct line {
	double at_zero, slope;
	double r2;		/* part of the variance that it explains; 1: all points are on it */
};

struct summary {
	const char *scenario, *mode;	/* belong to the first run */
	const struct run *first;
	const struct run *typical;	/* that completed, with the median of total_ms; NULL: none */
	guint64 n, failed;
	const char *text[T_COUNT];	/* of the first run that has it */
	struct spread v[V_COUNT];
	/* Negative: there is none. */
	double time_ratio, bytes_ratio;	/* of medians, to those of mode none */
	double floor_ratio;		/* the median of each run's total time to its own floor */
};

/** spread_of() - of @n values, which it sorts. */
struct spread spread_of(double *v, size_t n);

/** line_of() - through @n points. */
struct line line_of(const double *x, const double *y, size_t n);

/** result_summary() - one struct summary per scenario and mode, in order of appearance. */
GPtrArray *result_summary(const struct result *r);

/** summary_find() - the one of @all; NULL: none. */
const struct summary *summary_find(const GPtrArray *all, const char *scenario, const char *mode);

/** summary_scenarios() - the names, in order of appearance; they belong to @all. */
GPtrArray *summary_scenarios(const GPtrArray *all);

/** summary_to_json() - result_summary(), with an object for each figure. */
JsonArray *summary_to_json(const struct result *r);

#endif

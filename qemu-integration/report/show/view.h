/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a report shows, whatever its form: which figures, how they are written, which words. */
#ifndef FPH_REPORT_VIEW_H
#define FPH_REPORT_VIEW_H

#include "summary.h"

enum figure_kind {
	K_MODE, K_RUNS, K_COUNT, K_MIB, K_KIB_PAIR, K_KIB_GROWTH, K_NS_IN_MS, K_NS_IN_US, K_NS_PART,
	K_RANGE, K_INTERVAL, K_TIME_RATIO, K_SPEED_UP, K_BYTES_RATIO, K_FLOOR_RATIO,
	K_WORK_RATIO, K_TEXT
};

struct figure {
	const char *head;
	int width;		/* of its column in text, negative: to the left; rows have none */
	enum figure_kind kind;
	int what;		/* enum value, of a pair the first; enum text of K_TEXT */
	const char *help;	/* NULL: said before */
};

struct figure_table {
	const char *title;
	const struct figure *figures;	/* end with a NULL head */
	bool row_is_mode;	/* else a row is a figure, of the modes with fph-source */
};

extern const struct figure_table figure_tables[];	/* end with a NULL title */

/** figure_has() - whether there is such a figure in @s. */
bool figure_has(const struct figure *f, const struct summary *s);

/** figure_any_has() - whether one of @modes, from @from to before @to, has it. */
bool figure_any_has(const struct figure *f, const GPtrArray *modes, guint from, guint to);

/** figure_number() - that of a count, a time or a growth, in the unit of its cell. */
double figure_number(const struct figure *f, const struct summary *s);

/** figure_cell() - it in words; "-" if there is none. */
char *figure_cell(const struct figure *f, const struct summary *s);

/** view_modes() - those of @all that @t has something to say of, for @scenario; belong to @all. */
GPtrArray *view_modes(const struct figure_table *t, const GPtrArray *all, const char *scenario);

char *view_machine(const struct result *r);
char *view_scenario(const GPtrArray *all, const char *scenario);

/** view_notes() - what a reader of the figures must know about single runs, in sentences. */
GPtrArray *view_notes(const struct result *r);

/**
 * view_scenario_notes() - the same about @scenario: where the time goes in modes
 * that take much more than the floor, and what others published
 */
GPtrArray *view_scenario_notes(const GPtrArray *all, const char *scenario);

/** view_help() - what columns and rows mean, one line each. */
char *view_help(void);

#endif

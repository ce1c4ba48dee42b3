/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What results say together, of one file or of several: the same guest with one channel
 * and with more, and what guests of one kind cost by their size. Only what was measured
 * on one machine and in one way is put together.
 */
#ifndef FPH_REPORT_ACROSS_H
#define FPH_REPORT_ACROSS_H

#include "format.h"
#include "summary.h"

/* A figure by the size of the guest, in milliseconds by GiB */
struct curve {
	char *name;
	GArray *x, *y;		/* double */
	struct line line;
};

struct across {
	char *title;
	GPtrArray *rows;	/* char **, the first of them heads */
	guint columns;
	guint labels;		/* columns of words, from the first on */
	char *note;		/* or NULL */
	GPtrArray *curves;	/* struct curve; empty: there is nothing to plot */
};

/** across_tables() - struct across, none if the results have nothing in common. */
GPtrArray *across_tables(const struct source *sources, guint n);

/** across_help() - what their columns mean: pairs of head and words, up to a NULL. */
extern const char *const across_help[];

#endif

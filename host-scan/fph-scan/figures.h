/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the pages of guest RAM are, as figures of its regions, wherever they are from */
#ifndef FPH_SCAN_FIGURES_H
#define FPH_SCAN_FIGURES_H

#include <fph/scan.h>

#include "ram.h"

enum figure {
	F_SIZE,
	F_PRESENT,
	F_SWAPPED,
	F_HUGE,
	F_ZERO,			/* present and all zero; UNKNOWN unless read */
	F_ZERO_MAPPED,		/* these two: what fph finds, by the method */
	F_UNMAPPED,
	F_MAX,
};

struct region {
	guint number;
	guint64 start, end;
	char *name;
	enum fph_backing backing;
	char *method;		/* "none" if nothing can be found */
	char *why;		/* nothing is found, or NULL */
	bool changed;		/* unmapped, at least in part, meanwhile */
	guint64 v[F_MAX];	/* bytes, UNKNOWN if it could not be told */
};

struct census {
	gint pid;
	char *comm;
	char *command;		/* its first word */
	char *scanner;		/* what the figures are from */
	guint64 page_size;
	guint64 ns;		/* that it took, sleeps included; 0 of a record */
	bool content;		/* pages were read */
	GPtrArray *regions;	/* of struct region */
	guint64 sum[F_MAX];
};

/** census_new() - without regions; @content: pages are read. Never NULL. */
struct census *census_new(const struct target *t, bool content);
void census_free(struct census *c);

/** census_add_region() - for @a; all but its size is UNKNOWN. */
void census_add_region(struct census *c, const struct area *a);

/* Of one whose backing, method and scanner are known: from unknown to what was found */
void census_begin(struct census *c, struct region *r);
void census_add_pages(struct region *r, guint64 len, guint32 page);
void census_add_found(struct region *r, guint64 len, enum fph_reason why);

/** census_sum_up() - at the end: of all regions whose figures are known */
void census_sum_up(struct census *c);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the pages of guest RAM are: by a scan, of a record, or by the kernel's sums */
#ifndef FPH_SCAN_CENSUS_H
#define FPH_SCAN_CENSUS_H

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

struct census_opts {
	enum fph_scanner_kind scanner;
	bool content;
	guint cpu_percent;	/* 0: no limit */
	const char *record;	/* folder for a record, or NULL */
	/* Told from time to time; may be NULL */
	void (*progress)(guint64 done, guint64 all);
};

/**
 * census_take() - look at the pages of @areas of @t
 *
 * Return: NULL with @error set, also if the process ended meanwhile. Nothing
 * is recorded then.
 */
struct census *census_take(struct target *t, const GArray *areas,
			   const struct census_opts *opts, GError **error);
void census_free(struct census *c);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A look at guest RAM: by a scan, in a record, or by the kernel's sums */
#ifndef FPH_SCAN_CENSUS_H
#define FPH_SCAN_CENSUS_H

#include <fph/scan.h>

#include "figures.h"

struct census_opts {
	enum fph_scanner_kind scanner;
	bool content;
	guint cpu_percent;	/* 0: no limit */
	const char *record;	/* folder for a record, or NULL */
	bool anonymize;		/* it */
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

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A census on file: what /proc showed of the process, and in fph-pages what
 * was found of each page. No content of memory is in it. An anonymized one has no
 * addresses of the process and no names, and nothing but the regions.
 */
#ifndef FPH_SCAN_RECORD_H
#define FPH_SCAN_RECORD_H

#include "figures.h"

struct record {
	GString *text;
	bool anonymize;
	/* The region that is recorded, and where it begins in the record */
	guint64 start, recorded_start, recorded_end;
	GArray *starts;		/* where each of them does: guint64 */
};

void record_region(struct record *rec, const struct region *r);
void record_pages(struct record *rec, guint64 start, guint64 len, guint32 page);
void record_found(struct record *rec, guint64 start, guint64 len, enum fph_reason why);

/** record_write() - make @sysroot/proc/PID, which must not be there */
bool record_write(const struct record *rec, const struct target *t, const struct census *c,
		  const char *sysroot, GError **error);

/**
 * record_anonymous() - what an anonymized record has of a file of /proc/PID
 * @name: comm, cmdline, maps or smaps
 * @text: of it
 *
 * Return: @len bytes, and a NUL behind them.
 */
char *record_anonymous(const struct record *rec, const struct target *t, const struct census *c,
		       const char *name, const char *text, gsize *len);

/** record_exists() - has the tree what was found of each page? */
bool record_exists(const struct target *t);

/** record_replay() - fill the regions of @c from it */
bool record_replay(const struct target *t, struct census *c, GError **error);

/** record_parse() - the same from its @text; @path is for the error */
bool record_parse(const char *text, const char *path, struct census *c, GError **error);

#endif

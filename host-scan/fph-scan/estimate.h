/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a migration would send, and what to do about it */
#ifndef FPH_SCAN_ESTIMATE_H
#define FPH_SCAN_ESTIMATE_H

#include "figures.h"

/* Who leaves out pages that are zero */
enum mode {
	MODE_NONE,		/* nobody: QEMU as it is */
	MODE_PAGEMAP,		/* fph-source, where the host gave no memory */
	MODE_PRESCAN,		/* fph-source, which also read the pages ahead */
	MODE_MAX,
};

struct estimate {
	const char *mode;
	guint64 pages;		/* with their content; all UNKNOWN if pages were not read */
	guint64 zero_pages;	/* read, and announced as zero */
	guint64 bytes;
	guint64 file_bytes;	/* of pages that a save with mapped-ram writes */
	double seconds;
	double part;		/* of the bytes of MODE_NONE */
};

/** estimate() - @bandwidth in bits per second */
struct estimate estimate(const struct census *c, enum mode mode, double bandwidth);

/** left_out() - bytes whose pages are neither sent nor announced; UNKNOWN as in an estimate */
guint64 left_out(const struct census *c, enum mode mode);

const char *mode_name(enum mode mode);

/** advice() - sentences for people. Return: of char *, which it frees. */
GPtrArray *advice(const struct census *c);

/** size_words() - such as "7.5 GiB" */
char *size_words(guint64 bytes);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where the results of a measurement go. */
#ifndef FPH_REPORT_WRITE_H
#define FPH_REPORT_WRITE_H

#include "result.h"

/* Files, each of which may be NULL. Tables also go to standard output. */
struct outputs {
	const char *json;	/* "-": standard output, and the tables to standard error */
	const char *text;
	const char *html;
	const char *metrics;	/* for write_whole(), by whoever has something to put there */
};

/** outputs_writable() - whether they can be written, before it took minutes to find out. */
bool outputs_writable(const struct outputs *o, GError **error);

/**
 * write_whole() - a file: whoever reads it finds all of the old text, or of the new one
 *
 * Also where @path is a link to one. What is no file, as a pipe, is written to.
 */
bool write_whole(const char *path, const char *content, GError **error);

/** outputs_save() - the JSON of what there is so far, if that is a file. */
void outputs_save(const struct outputs *o, const struct result *r);

/** write_results() - all of them. Return: X_DONE, or X_FAIL after it told why. */
int write_results(const struct outputs *o, const struct result *r);

#endif

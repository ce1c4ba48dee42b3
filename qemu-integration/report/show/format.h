/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The forms that results are shown in. */
#ifndef FPH_REPORT_FORMAT_H
#define FPH_REPORT_FORMAT_H

#include "result.h"

struct source {
	const char *name;		/* the file it came from */
	const struct result *result;
};

/* Each: all of @sources in one text, with a newline at its end. */
char *format_text(const struct source *sources, guint n);
char *format_markdown(const struct source *sources, guint n);
char *format_csv(const struct source *sources, guint n);
char *format_html(const struct source *sources, guint n);
char *format_json(const struct source *sources, guint n);

struct format {
	const char *name;
	char *(*write)(const struct source *sources, guint n);
	const char *help;
};

extern const struct format formats[];	/* end with a NULL name */

#endif

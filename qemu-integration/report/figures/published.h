/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What others published: to be shown beside our figures, never mixed with them. */
#ifndef FPH_REPORT_PUBLISHED_H
#define FPH_REPORT_PUBLISHED_H

#include <glib.h>

/**
 * published_notes() - sentences about a scenario that is like @scenario ("idle-8g")
 * Each names its figures, its ratio, the year and the source. Empty: there are none.
 */
GPtrArray *published_notes(const char *scenario);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What goes on, on standard error: one line that is kept up to date on
 * a terminal, a line per step elsewhere.
 */
#ifndef FPH_REPORT_PROGRESS_H
#define FPH_REPORT_PROGRESS_H

#include <glib.h>

void progress_begin(void);

/** progress_step() - a step begins. */
void progress_step(const char *fmt, ...) G_GNUC_PRINTF(1, 2);

/** progress_left() - seconds until the end, as far as can be told; 0: it cannot. */
void progress_left(gint64 seconds);

/** progress_note() - something that stays to be read. */
void progress_note(const char *fmt, ...) G_GNUC_PRINTF(1, 2);

/** progress_end() - leave a clean line behind. */
void progress_end(void);

#endif

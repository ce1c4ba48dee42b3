/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Figures of the HTML report, as inline SVG. @modes: of one scenario; @id: unique in the document. */
#ifndef FPH_REPORT_PLOT_H
#define FPH_REPORT_PLOT_H

#include "across.h"
#include "summary.h"

/** plot_patterns() - what the others refer to; once, before them. */
void plot_patterns(GString *out);

/** plot_time() - total time, its range, and the floor. */
void plot_time(GString *out, const GPtrArray *modes, const char *id);

/** plot_pages() - how each page went or why it did not, each counted once. */
void plot_pages(GString *out, const GPtrArray *modes, const char *id);

/** plot_progress() - what was left and what was sent, over time; nothing without samples. */
void plot_progress(GString *out, const GPtrArray *modes, const char *id);

/** plot_sizes() - struct curve: what was measured, and lines through that. */
void plot_sizes(GString *out, const GPtrArray *curves, const char *id);

/** plot_memory() - what source and destination grew by. */
void plot_memory(GString *out, const GPtrArray *modes, const char *id);

#endif

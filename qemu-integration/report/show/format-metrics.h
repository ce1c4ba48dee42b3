/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What monitoring reads: OpenMetrics text. */
#ifndef FPH_REPORT_FORMAT_METRICS_H
#define FPH_REPORT_FORMAT_METRICS_H

#include "result.h"

/**
 * format_metrics() - the figures of a migration, each as a gauge
 * @vm: the label "vm", any text; what is no UTF-8 becomes '?'
 * @status: QEMU's word for where the migration is
 * @seconds: when this was so, by the clock
 *
 * The names are those of the JSON, "pages.sent", as fph_migration_pages_sent;
 * units are seconds and bytes: "total_ms" is fph_migration_total_seconds.
 */
char *format_metrics(const struct run *r, const char *vm, const char *status, gint64 seconds);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A census as text within 80 columns, and as JSON; both from one table of columns */
#ifndef FPH_SCAN_VIEW_H
#define FPH_SCAN_VIEW_H

#include "host.h"

/** view_text() - @bandwidth in bits per second */
char *view_text(const struct census *c, double bandwidth);

/** view_json() - one object; on one line, or on many */
char *view_json(const struct census *c, double bandwidth, bool pretty);

/** view_host_text() - a row for each virtual machine; @sum: and for all of them */
char *view_host_text(const struct host *h, double bandwidth, bool sum);
char *view_host_json(const struct host *h, double bandwidth, bool sum, bool pretty);

/** view_help() - what columns and members mean, a line each */
char *view_help(void);

#endif

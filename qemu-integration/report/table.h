/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A result as text for people, within 80 columns. */
#ifndef FPH_REPORT_TABLE_H
#define FPH_REPORT_TABLE_H

#include "result.h"

/** table_text() - everything about @r: machine, tables per scenario, failures. */
char *table_text(const struct result *r);

/** table_help() - what columns and rows mean, one line each. */
char *table_help(void);

#endif

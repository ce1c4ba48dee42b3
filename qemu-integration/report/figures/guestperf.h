/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reports of guestperf, the migration benchmark of QEMU (tests/migration-stress/guestperf). */
#ifndef FPH_REPORT_GUESTPERF_H
#define FPH_REPORT_GUESTPERF_H

#include <json-glib/json-glib.h>

#include "result.h"

/** guestperf_is() - whether @root looks like one. */
bool guestperf_is(JsonObject *root);

/**
 * guestperf_parse() - as a result with one run, in mode none
 * It says nothing of the machine, of memory and of pages left out.
 * Return: false with @error set.
 */
bool guestperf_parse(JsonObject *root, struct result *r, GError **error);

#endif

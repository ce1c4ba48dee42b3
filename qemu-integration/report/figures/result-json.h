/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Results in JSON, in both directions. */
#ifndef FPH_REPORT_RESULT_JSON_H
#define FPH_REPORT_RESULT_JSON_H

#include <json-glib/json-glib.h>

#include "result.h"

#define RESULT_SCHEMA	2	/* 1 had medians only in its summary, which is not read */
#define RESULT_TOOL	"fph-report"

/** result_to_json() - the text, with a newline at its end; runs and their summary. */
char *result_to_json(const struct result *r);

/** result_machine_to_json() - the member "machine" of it. */
JsonObject *result_machine_to_json(const struct machine *m);

/**
 * result_from_json() - parse and check; a report of QEMU's guestperf as well
 * Return: NULL with @error set to words that name the place and what is wrong.
 */
struct result *result_from_json(const char *text, GError **error);

/** result_load() - result_from_json() of a file; the message begins with its name. */
struct result *result_load(const char *path, GError **error);

#endif

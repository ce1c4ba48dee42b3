/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What was measured: kept, summed up, written to and read from JSON.
 *
 * The one table of values (result.c) drives the JSON in both directions, the
 * medians and the help text; a new figure is one line there.
 */
#ifndef FPH_REPORT_RESULT_H
#define FPH_REPORT_RESULT_H

#include <glib.h>
#include <json-glib/json-glib.h>
#include <stdbool.h>
#include <stdint.h>

#define RESULT_SCHEMA	1
#define RESULT_TOOL	"fph-report"

enum value {
	V_TOTAL_MS, V_DOWNTIME_MS, V_SETUP_MS, V_WALL_MS, V_BYTES, V_SYNCS,
	V_SENT, V_ZERO, V_UNMAPPED, V_ZERO_MAPPED, V_SKIPPED, V_RESENT,
	V_SRC_BEFORE, V_SRC_AFTER, V_DST_BEFORE, V_DST_AFTER,
	V_SRC_CPU, V_DST_CPU,
	V_SCAN_NS, V_CHUNKS, V_NOT_SCANNED, V_GIVEN_UP,
	V_WARM,
	V_COUNT
};

struct value_desc {
	const char *path;	/* JSON key, of objects in objects: "pages.sent" */
	const char *help;
	bool optional;		/* counts as 0 where it is missing */
};

extern const struct value_desc value_descs[V_COUNT];

struct run {
	char *scenario;
	char *mode;
	char *ram;		/* what lies behind guest memory, in words */
	guint64 memory;		/* bytes of it */
	guint64 repeat;		/* from 1 */
	bool ok;
	char *error;		/* of a run that failed: the reason */
	char *log;		/* and the folder with its logs, or NULL */
	char *fph_state;	/* NULL without fph-source */
	char *fph_reason;	/* why it was inactive, or NULL */
	guint64 v[V_COUNT];
};

struct machine {
	char *cpu, *kernel, *thp, *thp_shmem, *qemu, *destination_qemu;
	guint64 cores, memory_kib;
};

struct result {
	char *version;		/* of the tool that measured */
	char *started;		/* ISO 8601 */
	struct machine machine;
	GPtrArray *runs;	/* struct run */
};

/* All runs of one scenario in one mode. */
struct summary {
	const char *scenario, *mode;	/* belong to the first run */
	const struct run *first;
	guint64 n, failed;
	double v[V_COUNT];	/* medians of the n that did not fail */
	double time_ratio, bytes_ratio;	/* to mode none; negative: there is none */
};

struct result *result_new(void);
void result_free(struct result *r);
struct run *run_new(const char *scenario, const char *mode);
void run_free(struct run *r);

/** result_failed() - number of runs that failed. */
guint result_failed(const struct result *r);

/** result_summary() - one struct summary per scenario and mode, in order of appearance. */
GPtrArray *result_summary(const struct result *r);

/** result_to_json() - the text, with a newline at its end. */
char *result_to_json(const struct result *r);

/**
 * result_from_json() - parse and check
 * Return: NULL with @error set to words that name the place and what is wrong.
 */
struct result *result_from_json(const char *text, GError **error);

/** result_load() - result_from_json() of a file; the message begins with its name. */
struct result *result_load(const char *path, GError **error);

/** median() - of @n values, which it sorts; 0 of none. */
double median(double *v, size_t n);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What was measured.
 *
 * The tables of values and of texts (result.c) drive the JSON in both
 * directions, the summary and the help text; a new figure is one line there.
 */
#ifndef FPH_REPORT_RESULT_H
#define FPH_REPORT_RESULT_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

enum value {
	V_TOTAL_MS, V_DOWNTIME_MS, V_SETUP_MS, V_WALL_MS, V_BYTES, V_MULTIFD_BYTES, V_SYNCS,
	V_SENT, V_ZERO, V_UNMAPPED, V_ZERO_MAPPED, V_ZERO_CONTENT, V_FREE, V_SKIPPED, V_RESENT,
	V_GUEST_ONLY, V_HOST_ONLY, V_BOTH,
	V_SRC_BEFORE, V_SRC_AFTER, V_DST_BEFORE, V_DST_AFTER,
	V_SRC_CPU, V_DST_CPU, V_GUEST_CPU, V_SRC_SYSTEM, V_DST_SYSTEM,
	V_SRC_FAULTS, V_DST_FAULTS,
	V_SRC_MIGR_FAULTS, V_SRC_MIGR_TAKEN, V_SRC_VCPU_FAULTS, V_SRC_VCPU_TAKEN,
	V_SRC_OTHER_FAULTS, V_SRC_OTHER_TAKEN, V_SRC_GIVEN_BACK,
	V_DST_RECV_FAULTS, V_DST_RECV_TAKEN, V_DST_VCPU_FAULTS, V_DST_VCPU_TAKEN,
	V_DST_OTHER_FAULTS, V_DST_OTHER_TAKEN, V_DST_GIVEN_BACK,
	V_TRACER_NS, V_TRACER_RUNS, V_TRACER_LOST,
	V_FILE_BYTES, V_LOAD_NS,
	V_FLOOR_NS, V_CHECKED, V_WORK_BEFORE, V_WORK_DURING,
	V_SCAN_NS, V_PRESCAN_NS, V_CHUNKS, V_NOT_SCANNED,
	V_REQUESTS, V_ANSWERS, V_STALE, V_HINTED,
	V_ARM_NS, V_LATENCY_NS, V_APPLY_NS, V_WAIT_NS,
	V_WALK_NS, V_LOCK_NS, V_GUEST_PAGES, V_GUEST_ENTRIES,
	V_WARM, V_MOVED,
	V_COMPILE_ALONE, V_COMPILE_MIGRATED, V_COMPILE_LEFT,
	V_INFLATE_NS, V_INFLATE_FRAMES, V_INFLATE_IRQS, V_INFLATE_CALLS, V_INFLATE_GUEST, V_INFLATE_CPU,
	V_INFLATE_FAULTS, V_INFLATE_RETURNED, V_INFLATE_PEAK,
	V_DEFLATE_NS, V_DEFLATE_FRAMES, V_DEFLATE_IRQS, V_DEFLATE_CALLS, V_DEFLATE_GUEST, V_DEFLATE_CPU,
	V_DEFLATE_FAULTS,
	V_COUNT
};

struct value_desc {
	const char *path;	/* JSON key, of objects in objects: "pages.sent" */
	const char *help;
	bool optional;		/* may be NO_VALUE, and is then not in the JSON */
};

extern const struct value_desc value_descs[V_COUNT];

/* A figure that a run does not have, as there was no fph-source for instance. */
#define NO_VALUE	G_MAXUINT64

/* What words a run has, each of them optional. */
enum text {
	T_FPH_STATE, T_FPH_REASON,
	T_HINT_STATE, T_HINT_REASON, T_TRANSPORT, T_DEVICE, T_WALK,
	T_COUNT
};

struct text_desc {
	const char *path;
	const char *help;
};

extern const struct text_desc text_descs[T_COUNT];

/* Where a migration was at some time. */
struct sample {
	guint64 us;		/* since the migrate command */
	guint64 remaining;	/* bytes, by QEMU */
	guint64 transferred;
};

struct run {
	char *scenario;
	char *mode;
	char *ram;		/* what lies behind guest memory, in words */
	guint64 memory;		/* bytes of it */
	guint64 guests;		/* with so much each; what was counted is of all of them */
	guint64 repeat;		/* from 1 */
	bool ok;
	char *error;		/* of a run that failed: the reason */
	char *log;		/* and the folder with its logs, or NULL */
	char *text[T_COUNT];	/* NULL: it has none */
	guint64 v[V_COUNT];
	GArray *samples;	/* struct sample, by time; empty: none were taken */
};

/* The machine, and how guests were run and migrated on it. */
struct machine {
	char *cpu, *kernel, *governor, *thp, *thp_shmem, *qemu, *destination_qemu, *accel, *link,
	     *tracer;
	char *qemu_digest, *destination_qemu_digest;
	char *guest_kernel, *guest_initrd, *guest_compiler;	/* by their content */
	guint64 cores, memory_kib, multifd;
	bool cold;		/* its memory was not touched before */
};

/* What it is described by in words. */
#define MACHINE_TEXTS	15

struct machine_desc {
	const char *key;	/* in JSON */
	size_t offset;		/* of a char * in struct machine */
};

extern const struct machine_desc machine_descs[MACHINE_TEXTS];

/** machine_text() - the one that machine_descs[@i] describes; it belongs to @m. */
char **machine_text(const struct machine *m, size_t i);

struct result {
	char *version;		/* of the tool that measured */
	char *started;		/* ISO 8601 */
	struct machine machine;
	GPtrArray *runs;	/* struct run */
};

struct result *result_new(void);
void result_free(struct result *r);
struct run *run_new(const char *scenario, const char *mode);
void run_free(struct run *r);

/** result_failed() - number of runs that failed. */
guint result_failed(const struct result *r);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One measured migration: boots a guest, brings it into its state, migrates it, cleans up. */
#ifndef FPH_REPORT_JOB_H
#define FPH_REPORT_JOB_H

#include "link.h"
#include "result.h"
#include "scenario.h"

#define BUILT_BY_QEMU		"./demo or qemu-integration/build-qemu builds it"
#define BUILT_BY_GUEST		"./demo or tests/guest/build-guest builds it"

/* How guests are run and migrated; the same for all of a series. */
struct setup {
	char *qemu, *destination_qemu, *kernel, *initrd;
	char *compiler;		/* archive behind the initrd, of a guest that compiles */
	char *accel;		/* as in -accel */
	guint64 timeout_s;	/* for a boot, and for a migration */
	guint64 multifd;	/* connections; 0: as the mode says */
	bool cold;		/* does not touch memory before */
	bool trace;		/* the tracer is loaded, and counts */
	struct link link;
};

/**
 * job_run() - measure @mode of @scenario
 * @label: in what progress says: "3/8 idle-8g pagemap"
 * @r: filled; a run that failed has its reason, and its logs stay
 * Return: false only if interrupted.
 */
bool job_run(const struct setup *setup, const struct scenario *scenario, const struct mode *mode,
	     const char *label, struct run *r);

#endif

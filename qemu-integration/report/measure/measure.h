/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* From what QEMU and /proc say of a migration to the figures of a run. */
#ifndef FPH_REPORT_MEASURE_H
#define FPH_REPORT_MEASURE_H

#include "result.h"
#include "vm.h"

/** measure_take() - the figures of @m; those of a side that nobody looked at stay away. */
void measure_take(struct run *r, const struct vm_migration *m);

/* Takes samples of a run, evenly and not too many. Begin with the run, and 0. */
struct sampler {
	struct run *run;
	guint64 least_us;	/* between two samples */
};

/** measure_sample() - to be called after each look at the migration; also for vm_migrate_opts. */
void measure_sample(void *sampler, const struct vm_migration *m);

#endif

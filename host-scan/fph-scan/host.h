/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Looks at processes: one of them, or every virtual machine of the host */
#ifndef FPH_SCAN_HOST_H
#define FPH_SCAN_HOST_H

#include "census.h"
#include "estimate.h"
#include "machines.h"

struct look {
	const struct machine *machine;
	struct census *census;		/* NULL: it could not be looked at */
	char *why;			/* then: why not */
};

struct host {
	GPtrArray *machines;
	GPtrArray *looks;		/* of struct look, one for each of them */
	guint64 ns;			/* that it took, once they were found; 0 of a record */
};

/**
 * process_census() - look at the RAM of process @pid
 * @sysroot: folder with a recorded proc/PID, or NULL for this machine
 * @regions: as of ram_find()
 *
 * Return: NULL with @error set; it is G_IO_ERROR_NOT_FOUND if the process ended.
 */
struct census *process_census(const char *sysroot, gint pid, char **regions,
			      const struct census_opts *opts, GError **error);

/** host_look() - at each virtual machine. Return: never NULL; perhaps of none. */
struct host *host_look(const char *sysroot, const struct census_opts *opts);
void host_free(struct host *h);

/** host_estimate() - the sum of those that could be looked at; as estimate() */
struct estimate host_estimate(const struct host *h, enum mode mode, double bandwidth);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who takes and who gives back guest memory during a migration, by the tracer
 * (fph-trace(1)), and what the tracer itself costs.
 */
#ifndef FPH_REPORT_TRACING_H
#define FPH_REPORT_TRACING_H

#include <gio/gio.h>
#include <stdbool.h>
#include <sys/types.h>

#include "result.h"

/* Two QEMUs that are traced; opaque. */
struct tracing;

/**
 * tracing_load() - load the tracer, for this process and the QEMUs it starts
 *
 * It is in a bpffs, in a mount namespace, that nobody else sees, and goes with
 * the last of them, however that ends.
 *
 * Return: the name of the object, static; NULL with @error set to why this
 * kernel, or this user, cannot have it.
 */
const char *tracing_load(GError **error);

/**
 * tracing_begin() - count from now on, in @memory bytes that each of them has for its guest
 * Return: NULL with @error set.
 */
struct tracing *tracing_begin(pid_t source, pid_t destination, guint64 memory, GError **error);

/** tracing_end() - the figures since, into @r. Both must be there still. */
bool tracing_end(struct tracing *t, struct run *r, GError **error);

/** tracing_free() - trace them no longer; NULL is fine. */
void tracing_free(struct tracing *t);

#endif

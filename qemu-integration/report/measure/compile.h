/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How long a guest takes to compile something, with a migration in its middle and without. */
#ifndef FPH_REPORT_COMPILE_H
#define FPH_REPORT_COMPILE_H

#include "result.h"
#include "vm.h"

/* These return false with @error set; an object that is not as it should be is one reason. */

/** compile_alone() - half of the job, and then the whole, and nothing else: V_COMPILE_ALONE */
bool compile_alone(struct vm *vm, guint64 objects, int timeout_ms, struct run *ret, GError **error);

/**
 * compile_begin() - the same job anew, and wait until about a quarter of it is done
 * @r: has V_COMPILE_ALONE
 * @began: monotonic microseconds
 */
bool compile_begin(struct vm *vm, guint64 objects, int timeout_ms, const struct run *r,
		   gint64 *began, GError **error);

/** compile_end() - wait for its end, where the guest is now: V_COMPILE_MIGRATED, V_COMPILE_LEFT */
bool compile_end(struct vm *vm, int timeout_ms, gint64 began, struct run *ret, GError **error);

#endif

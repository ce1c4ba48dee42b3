/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What it takes to fill a guest's balloon and to empty it again. */
#ifndef FPH_REPORT_BALLOON_H
#define FPH_REPORT_BALLOON_H

#include "result.h"
#include "scenario.h"
#include "vm.h"

/** balloon_go_to() - ask a guest to do with @size bytes, and wait until it does */
bool balloon_go_to(struct vm *vm, guint64 size, int timeout_ms, GError **error);

/**
 * balloon_measure() - take most of its memory from a guest, and give it back
 * @d: the device that is its balloon
 * @ret: V_INFLATE_* and V_DEFLATE_*; calls of madvise() only where the kernel
 *	lets us count them (root, and tracefs on /sys/kernel/tracing)
 * Return: false with @error set.
 */
bool balloon_measure(struct vm *vm, const struct device *d, const struct scenario *s,
		     int timeout_ms, struct run *ret, GError **error);

#endif

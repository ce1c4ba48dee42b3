/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "compile.h"
#include "io.h"

#include <stdio.h>

static bool start(struct vm *vm, guint64 objects, int timeout_ms, GError **error)
{
	g_autofree char *answer = vm_guest_command(vm, timeout_ms, error,
						   "compile %" G_GUINT64_FORMAT, objects);

	return answer;
}

/* @how: "" or " wait". Objects that are yet to be made. */
static bool ask(struct vm *vm, const char *how, int timeout_ms, guint64 *left, GError **error)
{
	g_autofree char *answer = vm_guest_command(vm, timeout_ms, error, "compiled%s", how);
	guint64 made, of;

	if (!answer)
		return false;
	if (sscanf(answer, "ok compiled objects=%" G_GUINT64_FORMAT " of=%" G_GUINT64_FORMAT,
		   &made, &of) == 2 && made <= of) {
		*left = of - made;
		return true;
	}
	g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
		    "the guest's answer to 'compiled%s' is '%s'", how, answer);
	return false;
}

static bool wait(struct vm *vm, int timeout_ms, gint64 began, guint64 *took_ms, GError **error)
{
	guint64 left;

	if (!ask(vm, " wait", timeout_ms, &left, error))
		return false;
	*took_ms = (g_get_monotonic_time() - began) / 1000;
	if (left == 0)
		return true;
	g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
		    "the guest stopped with %" G_GUINT64_FORMAT " objects to compile", left);
	return false;
}

bool compile_alone(struct vm *vm, guint64 objects, int timeout_ms, struct run *ret, GError **error)
{
	gint64 began = g_get_monotonic_time();
	guint64 unused;

	/*
	 * The first time, the guest gets its memory from the host, and emulation
	 * translates the compiler: that is not what a migration is compared with.
	 */
	if (!start(vm, (objects + 1) / 2, timeout_ms, error) ||
	    !wait(vm, timeout_ms, began, &unused, error))
		return false;
	began = g_get_monotonic_time();
	return start(vm, objects, timeout_ms, error) &&
	       wait(vm, timeout_ms, began, &ret->v[V_COMPILE_ALONE], error);
}

bool compile_begin(struct vm *vm, guint64 objects, int timeout_ms, const struct run *r,
		   gint64 *began, GError **error)
{
	*began = g_get_monotonic_time();
	return start(vm, objects, timeout_ms, error) && io_sleep(r->v[V_COMPILE_ALONE] / 4, error);
}

bool compile_end(struct vm *vm, int timeout_ms, gint64 began, struct run *ret, GError **error)
{
	return ask(vm, "", timeout_ms, &ret->v[V_COMPILE_LEFT], error) &&
	       wait(vm, timeout_ms, began, &ret->v[V_COMPILE_MIGRATED], error);
}

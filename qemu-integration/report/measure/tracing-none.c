/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Built without the tracer: it cannot be loaded, so the rest is not called. */
#include "tracing.h"

const char *tracing_load(GError **error)
{
	g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_NOT_SUPPORTED,
			    "--trace: built without the tracer");
	return NULL;
}

struct tracing *tracing_begin(pid_t source, pid_t destination, guint64 memory, GError **error)
{
	return NULL;
}

bool tracing_end(struct tracing *t, struct run *r, GError **error)
{
	return false;
}

void tracing_free(struct tracing *t) { }

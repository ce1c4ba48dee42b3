/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Metrics of a migration that has every figure, for metrics.py to read. */
#include "format-metrics.h"

#include <stdio.h>

int main(void)
{
	struct run *r = run_new("attached", "both");
	g_autofree char *text = NULL;
	int k;

	for (k = 0; k < V_COUNT; k++)
		r->v[k] = 1000000000u + k;
	r->v[V_DOWNTIME_MS] = 7;
	r->v[V_SETUP_MS] = NO_VALUE;
	for (k = 0; k < T_COUNT; k++)
		r->text[k] = g_strdup(text_descs[k].path);
	g_free(r->text[T_FPH_REASON]);
	r->text[T_FPH_REASON] = g_strdup("a \"quoted\"\nreason, with \\ and \xff");
	text = format_metrics(r, "vm\\1", "completed", 1700000000);
	fputs(text, stdout);
	run_free(r);
	return fflush(stdout) != 0;
}

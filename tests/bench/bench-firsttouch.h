/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What benchmarks share whose guest is the firmware firsttouch */
#ifndef BENCH_FIRSTTOUCH_H
#define BENCH_FIRSTTOUCH_H

#include <string.h>

#include "bench.h"
#include "firsttouch.h"

/* A word of the state that it publishes, FT_ST_* */
static inline uint32_t bench_ft_state(struct vm *vm, unsigned int offset)
{
	g_autofree char *command = g_strdup_printf("xp /1wx %#x", FT_STATE_ADDR + offset);
	g_autofree char *answer = NULL;
	char *value;

	ok((answer = vm_hmp(vm, E, command)));
	value = strstr(answer, ": 0x");
	return value ? strtoul(value + 2, NULL, 16) : 0;
}

#endif

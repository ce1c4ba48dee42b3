/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmstat.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fph-test.h"

uint64_t vmstat(const char *name)
{
	FILE *f = fopen("/proc/vmstat", "re");
	uint64_t value = 0, v;
	char line[64];

	check(f != NULL);
	while (fscanf(f, "%63s %" SCNu64, line, &v) == 2)
		if (!strcmp(line, name))
			value = v;
	fclose(f);
	return value;
}

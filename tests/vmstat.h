/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FPH_TEST_VMSTAT_H
#define FPH_TEST_VMSTAT_H

#include <stdint.h>

/* That counter of /proc/vmstat; 0 if this kernel has none of that name. */
uint64_t vmstat(const char *name);

#endif /* FPH_TEST_VMSTAT_H */

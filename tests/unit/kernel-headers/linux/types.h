/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Enough of the kernel's headers to compile pv-hint/guest/encode.c for a test */
#ifndef FPH_TEST_LINUX_TYPES_H
#define FPH_TEST_LINUX_TYPES_H

#include_next <linux/types.h>

#include <stdbool.h>
#include <stdint.h>

typedef uint32_t u32;
typedef uint64_t u64;

#endif /* FPH_TEST_LINUX_TYPES_H */

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FPH_TEST_LINUX_KERNEL_H
#define FPH_TEST_LINUX_KERNEL_H

#include <endian.h>

#include <linux/types.h>

#define DIV_ROUND_UP_ULL(n, d)	(((n) + (d) - 1) / (d))
#define round_down(x, y)	((x) / (y) * (y))
#define min_t(type, a, b)	((type)(a) < (type)(b) ? (type)(a) : (type)(b))
#define swap(a, b)		do { __typeof__(a) t_ = (a); (a) = (b); (b) = t_; } while (0)
#define cpu_to_le64(x)		htole64(x)
#define le64_to_cpu(x)		le64toh(x)

#endif /* FPH_TEST_LINUX_KERNEL_H */

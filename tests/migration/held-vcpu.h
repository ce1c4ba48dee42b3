/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What held-vcpu.c and its test agree on: see there. */
#ifndef FPH_HELD_VCPU_H
#define FPH_HELD_VCPU_H

#include <stdint.h>

/* A file that both map */
struct held {
	volatile uint64_t page;	/* virtual address of one */
	volatile uint64_t state;
};

#define FREE	0
#define HOLD	1
#define HELD	2

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What benchmarks share that migrate virtual machines */
#ifndef BENCH_H
#define BENCH_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "vm.h"

/* The call, which takes E for its GError **, must succeed */
#define ok(call) do {							\
	GError *error_ = NULL;						\
	if (!(call) || error_) {					\
		fprintf(stderr, "%s\n", error_ ? error_->message : #call); \
		exit(EXIT_FAILURE);					\
	}								\
} while (0)

#define E (&error_)

static inline int bench_compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Sorts them */
static inline double bench_median(uint64_t *v, unsigned int n)
{
	qsort(v, n, sizeof(*v), bench_compare);
	return (v[(n - 1) / 2] + v[n / 2]) / 2.0;
}

#endif

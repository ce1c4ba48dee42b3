/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FPH_TABLE_H
#define FPH_TABLE_H

#include "scanner.h"

/* A run of pages with equal FPH_PM_* categories; 0 or negative errno to stop */
typedef int (*fph_run_fn)(void *opaque, uint64_t start, uint64_t end,
			  uint64_t categories);

/* A walk through page tables; offsets are bytes relative to @base */
struct fph_window {
	struct fph_scanner *s;
	uint64_t base;		/* address */
	uint64_t pos;		/* everything below was looked at */
	uint64_t end;		/* both are whole host pages */
	bool all;		/* else only absent pages and the zero page */
	bool rest_present;	/* with @all: what the ioctl leaves out is mapped, and present */
	fph_run_fn run;
	void *opaque;
	uint64_t calls;		/* system calls made */
	bool mapped;		/* the window that is under way is, throughout */
	unsigned int short_reads;	/* in a row */
	bool in_use;		/* something was in the last one */
	bool slow;		/* so was a look ahead: no more of them */
};

/*
 * Look at the next window and pass on its runs, in ascending order. Memory
 * without a mapping is in no run. @pos need not move: the call was interrupted.
 */
int fph_window_next(struct fph_window *w);

/*
 * Keep work to the scanner's share of a CPU by sleeping it off. What is too
 * little for a sleep is left for the next piece of work.
 */
void fph_pace_begin(struct fph_scanner *s);
void fph_pace(struct fph_scanner *s);
void fph_pace_end(struct fph_scanner *s);

/* The whole host pages in [start, start + len) of what is used; false if none */
bool fph_clamp(const struct fph_scanner *s, const struct fph_region *r,
	       uint64_t start, uint64_t len, uint64_t *first, uint64_t *end);

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* Pages that one page table maps, 512 of 4 KiB */
uint64_t fph_table_entries(const struct fph_scanner *s);

/* The query of a window */
void fph_pm_query(struct fph_pm_scan *arg, uint64_t start, uint64_t end,
		  bool all, struct fph_pm_range *vec, uint64_t vec_len);

#endif /* FPH_TABLE_H */

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Real memory of the kinds that are scanned, what a scan finds in it, and the
 * oracles that say whether that is true.
 */
#ifndef KTEST_H
#define KTEST_H

#include <fph/scan.h>

#include "fph-test.h"
#include "pagemap-abi.h"

/* Linux 5.14 to 6.13; the C library may be older */
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

/* A huge page is what one page table maps: 512 pages of 4 KiB, 2048 of 16 KiB */
#define PER_HUGE	(page / sizeof(uint64_t))
#define HUGE		(PER_HUGE * page)

enum kind {
	K_ANON,
	K_MEMFD,
	K_TMPFS,
	K_PRIVATE,		/* private mapping of a memfd */
	K_MAX,
};

/* What a scan must say of a page */
enum {
	W_NOTHING = 0,
	W_ABSENT = 'o',
	W_ZERO = 'z',
	W_ZERO_IF_SEEN = '?',	/* zero page that older kernels do not tell */
};

struct mem {
	enum kind kind;
	char *p;
	size_t npages;
	int fd;
	struct fph_region r;
	char *want;		/* per page; W_ABSENT at first */
};

extern struct fph_scanner *scanner;
extern size_t page;		/* bytes */
extern bool sees_zero_page;	/* the scanner does */
extern bool reads_take;		/* no zero page: private memory that is read gets pages */

const char *kind_name(enum kind kind);

/*
 * Open the scanner of the kind that the program's only argument names, by
 * default the best one, or leave with a skip
 */
void ktest_init(int argc, char **argv);

/* Skips the case if this kernel's files are not scanned */
void need_method(enum kind kind);

void mem_open(struct mem *m, enum kind kind, size_t npages);
void mem_close(struct mem *m);
char *mem_page(const struct mem *m, size_t i);
void mem_fill(struct mem *m, size_t first, size_t n, char with);
void mem_want(struct mem *m, size_t first, size_t n, char want);

/* /proc/self/pagemap entries, but only whether file, swapped, present */
uint64_t *raw_pagemap(const struct mem *m);
#define RAW_PRESENT	(UINT64_C(1) << 63)
#define RAW_SWAPPED	(UINT64_C(1) << 62)

/* Scan as the library would; the result is per page, to be freed */
char *mem_scan(const struct mem *m);

/* Ask PAGEMAP_SCAN itself, whatever the kind */
char *mem_query(const struct mem *m, uint64_t inverted, uint64_t mask,
		uint64_t anyof);

/*
 * Scan and check everything: what is wanted is found, what is found reads as
 * zero, and the scan populated nothing.
 */
void mem_check(const struct mem *m);

/* swap_begin() for @huge huge pages; before ktest_init(), as a scanner survives no fork */
const char *swap_provide(size_t huge);

/* Page out a range; false if some of it stays */
bool mem_pageout(struct mem *m, size_t first, size_t n);

#endif /* KTEST_H */

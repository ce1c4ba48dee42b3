/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The ABI of /proc/PID/pagemap: its entries, and the PAGEMAP_SCAN ioctl of
 * Linux 6.7 and newer.
 *
 * Declared here because the headers of older distributions do not have it
 * and those of newer ones would clash; hence names of our own.
 */
#ifndef FPH_PAGEMAP_ABI_H
#define FPH_PAGEMAP_ABI_H

#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>

/* An entry of 64 bits per page */
#define FPH_PAGEMAP_PRESENT	(UINT64_C(1) << 63)
#define FPH_PAGEMAP_SWAPPED	(UINT64_C(1) << 62)
#define FPH_PAGEMAP_PFN		((UINT64_C(1) << 55) - 1)	/* if PRESENT; 0
							 * without CAP_SYS_ADMIN */

/* Of an entry of /proc/kpageflags */
#define FPH_KPAGEFLAGS_ZERO	(UINT64_C(1) << 24)

/* Flags of PAGEMAP_SCAN */
#define FPH_PM_SCAN_WP_MATCHING	(UINT64_C(1) << 0)	/* write-protect what is
							 * reported, page by page */
#define FPH_PM_SCAN_CHECK_WPASYNC (UINT64_C(1) << 1)	/* EPERM where userfaultfd
							 * does not track writes */

/* Categories of a page that PAGEMAP_SCAN can be asked for */
#define FPH_PM_WRITTEN	(UINT64_C(1) << 1)	/* not write-protected by userfaultfd */
#define FPH_PM_PRESENT	(UINT64_C(1) << 3)	/* a page is mapped */
#define FPH_PM_SWAPPED	(UINT64_C(1) << 4)	/* not mapped, not nothing: swap,
						 * migration, markers ... */
#define FPH_PM_PFNZERO	(UINT64_C(1) << 5)	/* the shared zero page is mapped;
						 * comes with PRESENT */
#define FPH_PM_HUGE	(UINT64_C(1) << 6)	/* of a huge page that is mapped as one */

#define FPH_PM_ANY	(FPH_PM_PRESENT | FPH_PM_SWAPPED)	/* anything at all */

/* One run of pages with equal categories: addresses [start, end) */
struct fph_pm_range {
	uint64_t start;
	uint64_t end;
	uint64_t categories;
};

/*
 * A page is reported if, with C = categories ^ category_inverted, all bits of
 * category_mask are in C and, unless category_anyof_mask is 0, one of its bits
 * is. What is reported are the categories themselves, limited to return_mask.
 */
struct fph_pm_scan {
	uint64_t size;			/* of this struct */
	uint64_t flags;
	uint64_t start;
	uint64_t end;
	uint64_t walk_end;		/* out: where the walk stopped */
	uint64_t vec;			/* out: struct fph_pm_range [vec_len] */
	uint64_t vec_len;
	uint64_t max_pages;		/* 0: no limit */
	uint64_t category_inverted;
	uint64_t category_mask;
	uint64_t category_anyof_mask;
	uint64_t return_mask;
};

_Static_assert(sizeof(struct fph_pm_range) == 24, "ABI of struct page_region");
_Static_assert(sizeof(struct fph_pm_scan) == 96, "ABI of struct pm_scan_arg");
_Static_assert(offsetof(struct fph_pm_scan, vec) == 40, "ABI of pm_scan_arg.vec");
_Static_assert(offsetof(struct fph_pm_scan, return_mask) == 88,
	       "ABI of pm_scan_arg.return_mask");

/* Returns the number of ranges filled in */
#define FPH_PAGEMAP_SCAN	_IOWR('f', 16, struct fph_pm_scan)

#endif /* FPH_PAGEMAP_ABI_H */

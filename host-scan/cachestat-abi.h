/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The ABI of cachestat(), Linux 6.5 and newer. Declared here because the
 * headers of older distributions do not have it and those of newer ones would
 * clash; hence names of our own.
 */
#ifndef FPH_CACHESTAT_ABI_H
#define FPH_CACHESTAT_ABI_H

#include <stddef.h>
#include <stdint.h>

/* long cachestat(unsigned int fd, range *, counts *, unsigned int flags); the
 * same number on all machines that libfph knows */
#define FPH_NR_CACHESTAT	451

/* Bytes of the file; a length of 0 means up to its end */
struct fph_cachestat_range {
	uint64_t offset;
	uint64_t len;
};

/* Pages within the range, parts of larger pages cut at its ends */
struct fph_cachestat {
	uint64_t cached;	/* in the page cache, uptodate or not */
	uint64_t dirty;
	uint64_t writeback;
	uint64_t evicted;	/* of tmpfs: in swap */
	uint64_t recently_evicted;
};

_Static_assert(sizeof(struct fph_cachestat_range) == 16, "ABI of struct cachestat_range");
_Static_assert(sizeof(struct fph_cachestat) == 40, "ABI of struct cachestat");
_Static_assert(offsetof(struct fph_cachestat, evicted) == 24, "ABI of cachestat.nr_evicted");

#endif /* FPH_CACHESTAT_ABI_H */

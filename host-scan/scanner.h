/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Internals shared by the files of host-scan and their tests */
#ifndef FPH_SCANNER_H
#define FPH_SCANNER_H

#include <fph/scan.h>
#include <fph/watch.h>

#include "sys.h"

/*
 * With more ranges than this in one ioctl, kernels report a stale walk_end
 * and the tail would be seen twice.
 */
#define FPH_SCAN_VEC_LEN	512

/*
 * An ioctl over one uniform mapping holds mmap_lock from end to end, and with
 * a writer waiting, page faults queue behind it: 3.4 ms at the 99th percentile
 * with 2 GiB, 0.08 ms with this.
 */
#define FPH_SCAN_WINDOW		(UINT64_C(64) << 20)

/*
 * A hole costs two system calls where pages alternate, which is more than the
 * page is worth. Looked at per batch of holes, so that a large hole at the
 * start does not pay for a thousand short ones.
 */
#define FPH_SEEK_BATCH		512
#define FPH_SEEK_MIN_PAGES	4

struct fph_scanner {
	const struct fph_sys *sys;
	uint64_t page_size;
	long pid;		/* the pagemap is that of this process */
	int fd;			/* /proc/self/pagemap, or -1 */
	int err;		/* of the probe: 0 or negative errno */
	const char *why;	/* the same for people, NULL if err is 0 */
	struct fph_pm_range vec[FPH_SCAN_VEC_LEN];
};

/* What an errno means, for people; the last row of a table has errno 0 */
struct fph_why {
	int err;
	const char *text;
};

const char *fph_why(const struct fph_why *table, int err);

int fph_scanner_open_sys(struct fph_scanner **ret, const struct fph_sys *sys);

int fph_watch_open_sys(struct fph_watch **ret, const struct fph_sys *sys);

/* The query of a scan: absent pages and the shared zero page */
void fph_pm_query(struct fph_pm_scan *arg, uint64_t start, uint64_t end,
		  struct fph_pm_range *vec, uint64_t vec_len);

/* -EINVAL if @r contradicts itself */
int fph_region_check(const struct fph_scanner *s, const struct fph_region *r);

#endif /* FPH_SCANNER_H */

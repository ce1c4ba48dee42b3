/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Internals shared by the files of host-scan and their tests */
#ifndef FPH_SCANNER_H
#define FPH_SCANNER_H

#include <fph/scan.h>
#include <fph/watch.h>

#include "sized.h"
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
 * Unless all of it is empty. Then the walk is short: half a microsecond for a
 * GiB without page tables, 0.3 ms if a look ahead meets tables without entries.
 */
#define FPH_SCAN_AHEAD		(UINT64_C(1) << 30)
#define FPH_AHEAD_NS		UINT64_C(20000)

/*
 * Where holes are short on average, over so many of them, lseek() takes longer
 * to find them than the page tables do, by which data is mapped: then these are
 * asked, for a window. For a GiB of which every other page is a hole, 25 ms
 * instead of 78.
 */
#define FPH_SEEK_BATCH		64
#define FPH_SEEK_MIN_PAGES	16

/*
 * A read of entries that comes back short is asked again: Linux 6.4 and older
 * leave out a page table that goes away beside it, which shows at the end of the
 * address space. As often as this in a row, it is not that.
 */
#define FPH_READ_TRIES		16

/* With a limit of CPU time: least work between two sleeps */
#define FPH_PACE_NS		UINT64_C(1000000)

struct fph_scanner {
	const struct fph_sys *sys;
	enum fph_scanner_kind kind;	/* never AUTO; OFF if @err */
	uint64_t page_size;
	long pid;		/* this process; another one is refused */
	long pid_of;		/* the pagemap's process if it is not @pid, or 0 */
	int fd;			/* /proc/PID/pagemap, or -1 */
	int process;		/* @pid_of, or negative if nothing tells whether it has ended */
	int err;		/* of the probe: 0 or negative errno */
	const char *why;	/* the same for people, NULL if err is 0 */
	const char *no_seek;	/* why SEEK may lie, or NULL */
	uint64_t zero_pfn;	/* if entries are read; 0: unknown */
	uint64_t *entries;	/* of a page table, the same */
	uint32_t cpu_percent;	/* 0: no limit; else: */
	uint64_t work_began;
	uint64_t worked_ns;	/* before, and not slept off */
	struct fph_pm_range vec[FPH_SCAN_VEC_LEN];
};

/* What the first version had of each struct */
#define FPH_REGION_LEAST		FPH_SIZE_TO(struct fph_region, flags)
#define FPH_SCANNER_OPTS_LEAST		FPH_SIZE_TO(struct fph_scanner_opts, cpu_percent)
#define FPH_SCAN_STATS_LEAST		FPH_SIZE_TO(struct fph_scan_stats, given_up)

/* What an errno means, for people; the last row of a table has errno 0 */
struct fph_why {
	int err;
	const char *text;
};

const char *fph_why(const struct fph_why *table, int err);

int fph_scanner_open_sys(struct fph_scanner **ret,
			 const struct fph_scanner_opts *opts,
			 const struct fph_sys *sys);

int fph_watch_open_sys(struct fph_watch **ret, const struct fph_sys *sys);

/* -EINVAL if @r contradicts itself */
/* The caller's region, as far as it is known here. -EINVAL if it contradicts itself. */
int fph_region_read(const struct fph_scanner *s, const struct fph_region *from,
		    struct fph_region *ret);

#endif /* FPH_SCANNER_H */

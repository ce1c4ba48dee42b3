/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/*
 * What the tracer's programs and everyone who reads or sets their maps share.
 *
 * Maps (names are ABI, as are the layouts below; sizes are checked by users):
 *
 *   fph_targets   hash, process (tgid) -> struct fph_target: whose memory is
 *                 traced, and where. Entries of processes that end are removed,
 *                 or lose their ranges.
 *   fph_touched   array of u64 that can be mmapped: one bit per grain of traced
 *                 memory, set when memory is taken, cleared when it is given
 *                 back. A cleared bit says nothing: events can be missed.
 *   fph_counts    hash, process and thread name -> struct fph_counts
 *   fph_settings  array of u64, enum fph_setting
 *   fph_drops     array of u64, enum fph_drop: events that were not recorded
 *   fph_faults    task storage: the fault that a thread is in
 */
#ifndef FPH_TRACER_H
#define FPH_TRACER_H

#ifndef __VMLINUX_H__
#include <assert.h>
#include <linux/types.h>
#endif

#define FPH_PAGE_SHIFT		12	/* of a page of 4 KiB */
#define FPH_MAX_SHIFT		40
#define FPH_MAX_RANGES		16	/* of one process */
#define FPH_COMM_LEN		16

/*
 * Bits of this many grains, 2 MiB at 4 KiB, are a cache line: the number of a
 * bit is that of its grain, address >> shift, modulo this.
 */
#define FPH_BITS_ALIGN		512

/*
 * Memory of the process: addresses [start, end). The grain that holds an
 * address has the bit number @bit + (address >> @shift) - (@start >> @shift).
 */
struct fph_range {
	__u64 start;
	__u64 end;
	__u64 bit;
	__u64 ino;		/* of the file behind it, if FPH_RANGE_SHARED */
	__u64 offset;		/* in that file, of start */
	__u32 dev;		/* of that file, as in the kernel: major << 20 | minor */
	__u32 shift;		/* of a grain, at least that of a page */
	__u32 flags;
	__u32 page_shift;	/* of a page; 0: FPH_PAGE_SHIFT */
};

/* Memory belongs to the file: unmapping gives none back, a hole does */
#define FPH_RANGE_SHARED	(1u << 0)

struct fph_target {
	__u32 nranges;		/* 0: the process has ended; see FPH_TARGET_KEEP */
	__u32 flags;
	__u32 owner;		/* process that has arranged for it; 0: itself */
	__u32 pad;
	struct fph_range range[FPH_MAX_RANGES];
};

/*
 * When it ends, its counts stay for whoever traces it, and so does this entry,
 * without ranges. They are the owner's to remove; if that has ended, anybody's.
 */
#define FPH_TARGET_KEEP		(1u << 0)

/* What was done to pages, and how */
enum fph_cause {
	FPH_WRITE,		/* taken: a write where no memory was */
	FPH_READ,		/* taken: a read of a hole, in shared memory as a rule */
	FPH_POPULATE,		/* taken: madvise(MADV_POPULATE_*, MADV_COLLAPSE) */
	FPH_KVM,		/* taken within an ioctl, as KVM and VFIO do */
	FPH_ZERO,		/* a read of a hole that got the zero page (tp: or may have) */
	FPH_MADVISE,		/* given back: madvise */
	FPH_PUNCH,		/* given back: fallocate */
	FPH_UNMAP,		/* given back: munmap, mmap, mremap */
	FPH_NCAUSES,
};

struct fph_counts_key {
	__u32 tgid;
	char comm[FPH_COMM_LEN];
};

struct fph_counts {
	__u64 pages[FPH_NCAUSES];
	__u64 events[FPH_NCAUSES];	/* that took or gave back any */
};

enum fph_setting {
	FPH_PAUSED,		/* not 0: events are dropped, and counted as such */
	FPH_CLEAR_MAX,		/* grains that one event clears at most; 0: 2^24 */
	FPH_NSETTINGS,
};

enum fph_drop {
	FPH_DROP_PAUSED,	/* by the setting */
	FPH_DROP_COUNTS,	/* fph_counts is full; fph_touched has it */
	FPH_DROP_FAULT,		/* no memory to remember a fault */
	FPH_DROP_CLEAR,		/* more than FPH_CLEAR_MAX: bits stay set */
	FPH_DROP_BITS,		/* a range reaches beyond fph_touched */
	FPH_NDROPS,
};

/* Defaults, for maps as they are loaded */
#define FPH_TARGETS_MAX		64
#define FPH_COUNTS_MAX		4096
#define FPH_TOUCHED_WORDS	(1u << 22)	/* 1 TiB at 4 KiB: 32 MiB */

_Static_assert(sizeof(struct fph_range) == 56, "layout of fph_range");
_Static_assert(sizeof(struct fph_target) == 16 + 56 * FPH_MAX_RANGES,
	       "layout of fph_target");
_Static_assert(sizeof(struct fph_counts_key) == 20, "layout of fph_counts_key");
_Static_assert(sizeof(struct fph_counts) == 16 * FPH_NCAUSES,
	       "layout of fph_counts");

#endif /* FPH_TRACER_H */

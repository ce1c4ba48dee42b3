/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a virtio-fph device and its driver say to each other, as its specification
 * has it (docs/virtio-fph.md of fph). All fields are little-endian. Page frame
 * numbers count guest-physical pages of 4 KiB, whatever the guest's page size.
 */
#ifndef FPH_VIRTIO_FPH_H
#define FPH_VIRTIO_FPH_H

#include <linux/types.h>

/*
 * virtio device ID: the last one that a PCI device can have (0x1040 + ID), far
 * from those that were assigned, until the device has an ID of its own
 */
#define VIRTIO_FPH_ID			63

/*
 * Feature bits, offered by the device. The driver accepts a bit if it is true
 * of its kernel, and must not drive a device that does not offer a bit that is.
 */
#define VIRTIO_FPH_F_FREE_ZERO		0	/* free pages, or some, are trusted to be zero */
#define VIRTIO_FPH_F_FREE_PATTERN	1	/* free pages hold a pattern that is checked */

/* Feature bits that both sides must want */
#define VIRTIO_FPH_F_BALLOON		2	/* a balloon: queue 2, and a configuration */
#define VIRTIO_FPH_F_BALLOON_OOM	3	/* may shrink when the guest runs out of memory */

/* Queues */
#define VIRTIO_FPH_Q_COMMAND		0	/* device-writable buffers */
#define VIRTIO_FPH_Q_REPORT		1	/* device-readable buffers */
#define VIRTIO_FPH_Q_BALLOON		2	/* device-readable buffers; with F_BALLOON */
#define VIRTIO_FPH_Q_MAX		3

#define VIRTIO_FPH_PFN_SHIFT		12

/* virtio_fph_command.op */
#define VIRTIO_FPH_OP_REPORT		1	/* walk the free pages now, and report */
#define VIRTIO_FPH_OP_STOP		2	/* nobody waits for the report @id any more */

/* virtio_fph_report.encoding, and bits of virtio_fph_command.encodings */
#define VIRTIO_FPH_ENC_RUNS		0	/* payload: @count of __le64, see below */
#define VIRTIO_FPH_ENC_BITMAP		1	/* payload: @count bits, from PFN @base on */
#define VIRTIO_FPH_ENC_STATS		2	/* payload: struct virtio_fph_stats */

/* virtio_fph_report.flags */
#define VIRTIO_FPH_REPORT_LAST		(1 << 0)	/* ends the report; STATS */
#define VIRTIO_FPH_REPORT_ABORTED	(1 << 1)	/* with LAST: not all was seen */

/* struct virtio_fph_command - written by the device */
struct virtio_fph_command {
	__le32 id;		/* never 0 */
	__le16 op;
	__le16 encodings;	/* OP_REPORT: mask of (1 << RUNS) and (1 << BITMAP) */
};

/* struct virtio_fph_report - starts each frame on the report queue */
struct virtio_fph_report {
	__le32 id;		/* of the command that is answered */
	__le16 encoding;
	__le16 flags;
	__le32 seq;		/* 0 for the first frame of a report, then 1, 2 ... */
	__le32 count;		/* runs, or bits (a multiple of 64); STATS: 0 */
	__le64 base;		/* BITMAP: PFN of bit 0, a multiple of 64; else 0 */
};

/*
 * A run: PFN in bits 16 to 63, number of pages minus one in bits 0 to 15. Runs
 * of one frame ascend and do not overlap.
 */
#define VIRTIO_FPH_RUN_PAGES_MAX	65536
#define VIRTIO_FPH_RUN(pfn, pages)	((__u64)(pfn) << 16 | ((__u64)(pages) - 1))
#define VIRTIO_FPH_RUN_PFN(run)		((__u64)(run) >> 16)
#define VIRTIO_FPH_RUN_PAGES(run)	(((__u64)(run) & 0xffff) + 1)

/*
 * Largest payload. A bitmap of that size covers 1 GiB, and is as large as the
 * runs of a GiB in which every 64th page begins one.
 */
#define VIRTIO_FPH_PAYLOAD_MAX		32768
#define VIRTIO_FPH_RUNS_MAX		(VIRTIO_FPH_PAYLOAD_MAX / 8)
#define VIRTIO_FPH_BITS_MAX		(VIRTIO_FPH_PAYLOAD_MAX * 8)

/* virtio_fph_stats.walk */
#define VIRTIO_FPH_WALK_PFN		0	/* over page frame numbers */
#define VIRTIO_FPH_WALK_LIST		1	/* over the allocator's free lists */

/* struct virtio_fph_stats - what the report cost the guest */
struct virtio_fph_stats {
	__le64 walk_ns;		/* from the command's arrival to the end of the walk */
	__le64 lock_ns;		/* longest time zone->lock was held */
	__le64 pages;		/* pages reported */
	__le64 entries;		/* runs of free pages among them */
	__le32 walk;
	__le32 reserved;	/* 0 */
};

/* struct virtio_fph_config - with F_BALLOON; all in pages, only the device writes */
struct virtio_fph_config {
	__le64 target;		/* pages that the host wants in the balloon */
	__le64 actual;		/* pages that are in it, as the device counts */
};

/* virtio_fph_balloon.op */
#define VIRTIO_FPH_BALLOON_INFLATE	1	/* these pages are of no use to the guest */
#define VIRTIO_FPH_BALLOON_DEFLATE	2	/* the guest takes them back */

/* struct virtio_fph_balloon - starts each frame on the balloon queue; runs follow */
struct virtio_fph_balloon {
	__le16 op;
	__le16 reserved;	/* 0 */
	__le32 count;		/* runs, VIRTIO_FPH_RUNS_MAX at most */
};

/* Pages in a frame: so much the host discards without a pause, 256 MiB */
#define VIRTIO_FPH_BALLOON_PAGES_MAX	65536

#endif /* FPH_VIRTIO_FPH_H */

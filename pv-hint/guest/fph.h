/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef FPH_H
#define FPH_H

#include <linux/scatterlist.h>
#include <linux/spinlock.h>
#include <linux/virtio.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include <fph/virtio-fph.h>

#include "encode.h"

#define FPH_COMMANDS	4		/* buffers the device can write commands to */
#define FPH_FRAMES	8		/* frames that can be on their way */
#define FPH_VISITS	512		/* page structs looked at while zone->lock is held */

/* A frame of a report, as the device reads it */
struct fph_frame {
	struct virtio_fph_report head;
	struct scatterlist sg[2];
	__le64 *payload;		/* VIRTIO_FPH_PAYLOAD_MAX bytes */
};

struct fph_stats {
	u64 walk_ns;
	u64 lock_ns;
	u64 pages;
	u64 entries;
	u32 frames;
	u32 walk;
};

struct fph_results {
	struct fph_stats last;		/* the last complete report */
	u64 reports;
	u64 aborted;
};

struct fph {
	struct virtio_device *vdev;
	struct virtqueue *command_vq;	/* under lock */
	struct virtqueue *report_vq;	/* used by work only */
	struct work_struct work;
	wait_queue_head_t wait;		/* work, for frames to come back */

	spinlock_t lock;		/* of what follows, up to generation */
	bool down;			/* no device to talk to */
	bool pending;			/* the request below has not been taken up */
	u32 id;				/* of the last request */
	u16 encodings;
	u64 arrived_ns;
	struct fph_results results;

	/*
	 * Changes, under lock, with each reason to give up a walk under way: a
	 * newer request, a stop, the device going away.
	 */
	unsigned int generation;

	/* The report under way: work only */
	unsigned int report_generation;
	u32 report_id;
	struct fph_stats stats;
	struct fph_encoder encoder;
	struct fph_frame *free[FPH_FRAMES];
	unsigned int nr_free;
	struct {
		unsigned long pfn;
		unsigned long pages;
	} found[FPH_VISITS];		/* while zone->lock was held */
	unsigned int nr_found;

	unsigned int nr_frames;
	struct fph_frame *frames[FPH_FRAMES];
	struct virtio_fph_command commands[FPH_COMMANDS] ____cacheline_aligned;
};

/* Is the report under way still worth going on with? */
static inline bool fph_wanted(const struct fph *fph)
{
	return READ_ONCE(fph->generation) == fph->report_generation;
}

/**
 * fph_walk() - find free pages and put them into the encoder
 * @kind: VIRTIO_FPH_WALK_PFN or _LIST; the walk that was done is in stats.walk
 *
 * Return: 0, -ECANCELED when nobody waits for the report any more, or what the
 * encoder returned.
 */
int fph_walk(struct fph *fph, unsigned int kind);

int fph_walk_init(void);
void fph_walk_exit(void);

#endif /* FPH_H */

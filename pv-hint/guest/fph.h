/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef FPH_H
#define FPH_H

#include <linux/build_bug.h>
#include <linux/cache.h>
#include <linux/log2.h>
#include <linux/mmzone.h>
#include <linux/notifier.h>
#include <linux/scatterlist.h>
#include <linux/spinlock.h>
#include <linux/sysfs.h>
#include <linux/virtio.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include <fph/virtio-fph.h>

#include "encode.h"

#define FPH_COMMANDS	4		/* buffers the device can write commands to */
#define FPH_FRAMES	8		/* frames that can be on their way */
#define FPH_VISITS	512		/* page structs looked at while zone->lock is held */

/* Of MAX_ORDER, a count once, then the largest order, then renamed, this is made. */
#define FPH_MAX_ORDER	const_ilog2(MAX_ORDER_NR_PAGES)

#ifdef ARCH_DMA_MINALIGN
#define FPH_DMA_ALIGN	ARCH_DMA_MINALIGN
#else
#define FPH_DMA_ALIGN	L1_CACHE_BYTES
#endif

#define FPH_PFN_SHIFT	(PAGE_SHIFT - VIRTIO_FPH_PFN_SHIFT)

static_assert(sizeof(struct virtio_fph_command) == 8);
static_assert(sizeof(struct virtio_fph_report) == 24);
static_assert(sizeof(struct virtio_fph_stats) == 40);
static_assert(sizeof(struct virtio_fph_config) == 16);
static_assert(sizeof(struct virtio_fph_balloon) == 8);

/* The device writes to it: a cache line that has nothing else */
struct fph_command {
	struct virtio_fph_command c __aligned(FPH_DMA_ALIGN);
} __aligned(L1_CACHE_BYTES);

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

struct fph_balloon;

struct fph {
	struct virtio_device *vdev;
	struct fph_balloon *balloon;	/* NULL: the device has none */
	struct virtqueue *command_vq;	/* under lock */
	struct virtqueue *report_vq;	/* used by work only */
	struct work_struct work;
	wait_queue_head_t wait;		/* work, for frames to come back */
#ifndef FPH_HAVE_VIRTIO_SHUTDOWN
	struct notifier_block reboot;
#endif

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
	struct fph_command commands[FPH_COMMANDS];
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

/*
 * The balloon; without the feature all this does nothing, but for _up(). The
 * caller sees to the order: new, up, start, halt, empty (or not), reset, free.
 */
int fph_balloon_new(struct fph *fph);
void fph_balloon_free(struct fph *fph);
/* The device has this queue, and nothing in its balloon. */
int fph_balloon_up(struct fph *fph, struct virtqueue *vq);
/* The device is ready. */
void fph_balloon_start(struct fph *fph);
/* The device takes no frames any more. In any context */
void fph_balloon_down(struct fph *fph);
/* It is down: whoever was at its queue has left, and nobody comes again. */
void fph_balloon_leave(struct fph *fph);
/* Nothing begins any more: nobody asks for memory, and the work is over. */
void fph_balloon_halt(struct fph *fph);
/* Takes all pages back, as the device is about to be reset. */
void fph_balloon_empty(struct fph *fph);
/* It is down, was reset, and its queues are gone: all pages are ours. */
void fph_balloon_reset(struct fph *fph);
/* There may be a new target. In any context */
void fph_balloon_config_changed(struct fph *fph);
/* Frames have come back. */
void fph_balloon_done(struct virtqueue *vq);

extern const struct attribute_group fph_balloon_group;

int fph_balloon_init(void);
void fph_balloon_exit(void);

#endif /* FPH_H */

// SPDX-License-Identifier: GPL-2.0-only
/*
 * The balloon: pages that the host wants are allocated, named to it in runs,
 * and come back when it wants less, when the guest has no memory left, or when
 * the device goes away.
 *
 * Blocks of a pageblock or more are on a list for each order. They come from
 * zones that may hold memory of the kernel, and cannot be moved: they are given
 * back when their memory is to go offline. All else is single pages that the
 * kernel's balloon core keeps, so that compaction can move them, and these may
 * come from ZONE_MOVABLE. Smaller free blocks are taken first, as those were
 * used before: there is memory of the host behind them.
 *
 * A page leaves the balloon for the frame that names it, and what becomes of it
 * is decided when the device has used that frame: only then may it be used again.
 */
#include <linux/atomic.h>
#include <linux/delay.h>
#include <linux/list.h>
#include <linux/log2.h>
#include <linux/memory.h>
#include <linux/memory_hotplug.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/nodemask.h>
#include <linux/oom.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/sort.h>
#include <linux/sysfs.h>
#include <linux/virtio_config.h>
#include <linux/vmstat.h>
#ifdef FPH_HAVE_BALLOON_H
#include <linux/balloon.h>
#else
#include <linux/balloon_compaction.h>
#endif

#include "fph.h"

#define FRAMES		4		/* that can be on their way */
#define MOVING		2		/* more of them, of a page each: there, and from here */
#define FRAME_PAGES	(VIRTIO_FPH_BALLOON_PAGES_MAX >> FPH_PFN_SHIFT)
/*
 * What is inflated at a time, in two frames of half of it. Pages that the
 * allocator clears have memory of the host until it has taken their frame.
 */
#define CLEARED_PAGES	((16UL << 20) >> PAGE_SHIFT)
#define UNTOUCHED_PAGES	((128UL << 20) >> PAGE_SHIFT)
/* What is given back at a time when there is no memory left */
#define OOM_PAGES	((64UL << 20) >> PAGE_SHIFT)
/* How often to look whether there is memory to be had again */
#define RETRY		HZ
/* How long the device may keep a frame that somebody waits for */
#define FRAME_TIMEOUT	(5 * HZ)

#define SMALL_ORDERS	(FPH_MAX_ORDER + 1)

static unsigned int balloon_floor = 64;
module_param(balloon_floor, uint, 0644);
MODULE_PARM_DESC(balloon_floor, "MiB of memory, free or easily freed, that inflating the balloon leaves to the guest (default: 64)");

struct fph_balloon_frame {
	struct virtio_fph_balloon head;
	struct scatterlist sg[2];
	__le64 *runs;			/* VIRTIO_FPH_RUNS_MAX of them; one if moving */
	unsigned int nr_blocks;
	unsigned long nr_pages;
	struct list_head blocks;	/* that it names, linked by lru */
	struct list_head free;
	bool moving;
	bool used;			/* moving: the device has used it */
};

struct fph_balloon {
	struct virtio_device *vdev;
	struct virtqueue *vq;		/* under lock, and not when it is down */
	struct delayed_work work;	/* gets to the target */
	struct notifier_block oom;
	struct notifier_block memory;
	wait_queue_head_t wait;		/* for frames to come back */
	atomic_t events;		/* reasons to look again */
	bool changed;			/* the target was not read since */
	struct mutex moving_lock;	/* of the frames for it */

	/* Work only: free blocks of each order to take before larger ones */
	unsigned long small[SMALL_ORDERS];

	/* Not taken in interrupts. All counts are of the guest's pages. */
	spinlock_t lock;
	bool down;			/* no device to talk to */
	bool stopping;			/* the work has nothing to do, now or any more */
	unsigned long target;
	unsigned long limit;		/* no more than this until the target changes */
	unsigned long size;		/* in the lists below, or being moved */
	unsigned long inflating;	/* in frames, about to be sent or under way */
	unsigned long deflating;
	struct list_head blocks[FPH_MAX_ORDER + 1];
	struct balloon_dev_info pages;	/* single ones */
	struct list_head free_frames;
	bool waiting;			/* for memory */
	bool can_move;
	u64 sent_frames;
	u64 sent_runs;
	u64 oom_pages;

	struct fph_balloon_frame frames[FRAMES + MOVING];
};

static struct workqueue_struct *balloon_wq;

/* Blocks. The order is in page_private() while a block is in a frame, or large. */

/* A guest that may get it back at any time still has that memory. */
static bool adjusts(struct fph_balloon *b)
{
	return !virtio_has_feature(b->vdev, VIRTIO_FPH_F_BALLOON_OOM);
}

static void account(struct fph_balloon *b, struct page *page, long pages)
{
	if (adjusts(b))
		adjust_managed_page_count(page, pages);
}

#ifndef FPH_HAVE_BALLOON_ADJUST
/* Where the core does not do it for single pages */
static void account_single(struct fph_balloon *b, struct page *page, long pages)
{
	account(b, page, pages);
}
#else
static void account_single(struct fph_balloon *b, struct page *page, long pages) { }
#endif

static void count_pages(struct page *page, enum vm_event_item event, long pages)
{
	count_vm_events(event, abs(pages));
#ifdef FPH_HAVE_NR_BALLOON_PAGES
	mod_node_page_state(page_pgdat(page), NR_BALLOON_PAGES, pages);
#endif
}

static void free_blocks(struct list_head *blocks)
{
	struct page *page, *next;

	list_for_each_entry_safe(page, next, blocks, lru) {
		unsigned int order = page_private(page);

		list_del(&page->lru);
		set_page_private(page, 0);
		__free_pages(page, order);
		cond_resched();
	}
}

/* Under lock: what was named to the host is in the balloon, and nobody reads it. */
static void put_blocks(struct fph_balloon *b, struct list_head *blocks)
{
	struct page *page, *next;
	LIST_HEAD(singles);
	unsigned long i;

	list_for_each_entry_safe(page, next, blocks, lru) {
		unsigned int order = page_private(page);

		if (!order) {
			account_single(b, page, -1);
			list_move(&page->lru, &singles);
			continue;
		}
		for (i = 0; i < 1UL << order; i++)
			__SetPageOffline(page + i);
		account(b, page, -(1L << order));
		count_pages(page, BALLOON_INFLATE, 1L << order);
		list_move(&page->lru, &b->blocks[order]);
	}
	balloon_page_list_enqueue(&b->pages, &singles);
}

/* Under lock */
static void take_block(struct fph_balloon *b, struct page *page)
{
	unsigned int order = page_private(page);
	unsigned long i;

	for (i = 0; i < 1UL << order; i++)
		__ClearPageOffline(page + i);
	account(b, page, 1L << order);
	count_pages(page, BALLOON_DEFLATE, -(1L << order));
	list_del(&page->lru);
}

/* Frames. */

static void frame_add(struct fph_balloon_frame *frame, struct page *page)
{
	list_add_tail(&page->lru, &frame->blocks);
	frame->nr_blocks++;
	frame->nr_pages += 1UL << page_private(page);
}

/* Under lock */
static struct fph_balloon_frame *get_frame(struct fph_balloon *b)
{
	struct fph_balloon_frame *frame;

	frame = list_first_entry_or_null(&b->free_frames, struct fph_balloon_frame, free);
	if (!frame)
		return NULL;
	list_del(&frame->free);
	frame->nr_blocks = 0;
	frame->nr_pages = 0;
	return frame;
}

/* Under lock: blocks that are not in the balloon, or not any more, come out in @unused. */
static void put_frame(struct fph_balloon *b, struct fph_balloon_frame *frame, bool into_balloon,
		      struct list_head *unused)
{
	if (into_balloon) {
		put_blocks(b, &frame->blocks);
		b->size += frame->nr_pages;
	} else {
		list_splice_tail_init(&frame->blocks, unused);
	}
	list_add(&frame->free, &b->free_frames);
}

static void look_again(struct fph_balloon *b)
{
	atomic_inc(&b->events);
	wake_up_all(&b->wait);
}

/* In any context */
static void kick(struct fph_balloon *b)
{
	if (!READ_ONCE(b->stopping))
		mod_delayed_work(balloon_wq, &b->work, 0);
}

/* Takes back the frames that the device has used. May sleep. Return: were there any? */
static bool reclaim_frames(struct fph_balloon *b)
{
	struct fph_balloon_frame *frame;
	LIST_HEAD(unused);
	unsigned int len;
	bool any = false;

	spin_lock(&b->lock);
	while (!b->down && (frame = virtqueue_get_buf(b->vq, &len))) {
		bool inflate = frame->head.op == cpu_to_le16(VIRTIO_FPH_BALLOON_INFLATE);

		any = true;
		if (frame->moving) {
			frame->used = true;
			continue;
		}
		if (inflate)
			b->inflating -= frame->nr_pages;
		else
			b->deflating -= frame->nr_pages;
		put_frame(b, frame, inflate, &unused);
	}
	spin_unlock(&b->lock);
	free_blocks(&unused);
	if (any)
		look_again(b);
	return any;
}

/*
 * Waits until something happens after @events were read. Return: false if it
 * takes longer than a frame may.
 */
static bool wait_for_events(struct fph_balloon *b, int events)
{
	return wait_event_timeout(b->wait, atomic_read(&b->events) != events, FRAME_TIMEOUT);
}

/* Waits for @done, as long as frames come back in time. Return: is it? */
static bool wait_for_frames(struct fph_balloon *b, bool (*done)(struct fph_balloon *b))
{
	for (;;) {
		int events = atomic_read(&b->events);

		/* The work may wait for these, and the queue tells once, or not at all */
		if (reclaim_frames(b))
			kick(b);
		if (done(b))
			return true;
		if (atomic_read(&b->events) == events && !wait_for_events(b, events))
			return false;
		cond_resched();
	}
}

static int compare_runs(const void *a, const void *b)
{
	u64 x = *(const u64 *)a, y = *(const u64 *)b;

	return x < y ? -1 : x > y;
}

static u64 make_run(struct page *page, unsigned int order)
{
	return VIRTIO_FPH_RUN((u64)page_to_pfn(page) << FPH_PFN_SHIFT,
			      1ULL << order << FPH_PFN_SHIFT);
}

/* Runs of the frame's blocks: they ascend, and neighbours are one. */
static unsigned int make_runs(struct fph_balloon_frame *frame)
{
	u64 *runs = (__force u64 *)frame->runs;
	unsigned int n = 0, i, last = 0;
	struct page *page;

	list_for_each_entry(page, &frame->blocks, lru)
		runs[n++] = make_run(page, page_private(page));
	sort(runs, n, sizeof(*runs), compare_runs, NULL);
	for (i = 1; i < n; i++) {
		u64 pages = VIRTIO_FPH_RUN_PAGES(runs[last]);

		/* All pages of a frame fit into a run. */
		if (VIRTIO_FPH_RUN_PFN(runs[i]) == VIRTIO_FPH_RUN_PFN(runs[last]) + pages)
			runs[last] += VIRTIO_FPH_RUN_PAGES(runs[i]);
		else
			runs[++last] = runs[i];
	}
	for (i = 0; i <= last; i++)
		frame->runs[i] = cpu_to_le64(runs[i]);
	return last + 1;
}

/* Under lock. The frame has at least one block, and is counted as under way. */
static bool send_frame(struct fph_balloon *b, struct fph_balloon_frame *frame, unsigned int op,
		       unsigned int runs)
{
	if (b->down)
		return false;
	frame->head = (struct virtio_fph_balloon) {
		.op = cpu_to_le16(op),
		.count = cpu_to_le32(runs),
	};
	sg_init_table(frame->sg, ARRAY_SIZE(frame->sg));
	sg_set_buf(&frame->sg[0], &frame->head, sizeof(frame->head));
	sg_set_buf(&frame->sg[1], frame->runs, runs * sizeof(*frame->runs));
	/* No reserves, nor reclaim: there is room for direct descriptors. */
	if (virtqueue_add_outbuf(b->vq, frame->sg, ARRAY_SIZE(frame->sg), frame,
				 GFP_NOWAIT | __GFP_NOWARN))
		return false;
	b->sent_frames++;
	b->sent_runs += runs;
	virtqueue_kick(b->vq);
	return true;
}

/* Moving: compaction, and memory that goes offline, want a page elsewhere. */

static bool moved(struct fph_balloon *b)
{
	bool moved;

	spin_lock(&b->lock);
	moved = b->down || virtqueue_is_broken(b->vq) ||
		(b->frames[FRAMES].used && b->frames[FRAMES + 1].used);
	spin_unlock(&b->lock);
	return moved;
}

static void send_moving(struct fph_balloon *b, struct fph_balloon_frame *frame, unsigned int op,
			struct page *page)
{
	frame->runs[0] = cpu_to_le64(make_run(page, 0));
	/* Nobody waits for what cannot be told: there is no device, then. */
	frame->used = !send_frame(b, frame, op, 1);
}

static int tell_of_move(struct fph_balloon *b, struct page *newpage, struct page *page)
{
	if (!mutex_trylock(&b->moving_lock))
		return -EAGAIN;
	spin_lock(&b->lock);
	if (b->down || !b->can_move) {
		spin_unlock(&b->lock);
		mutex_unlock(&b->moving_lock);
		return -EAGAIN;
	}
	send_moving(b, &b->frames[FRAMES], VIRTIO_FPH_BALLOON_INFLATE, newpage);
	send_moving(b, &b->frames[FRAMES + 1], VIRTIO_FPH_BALLOON_DEFLATE, page);
	spin_unlock(&b->lock);
	/* The page cannot be used before: there is nothing to do but wait. */
	while (!wait_for_frames(b, moved))
		;
	mutex_unlock(&b->moving_lock);
	return 0;
}

static int __maybe_unused move_page(struct balloon_dev_info *pages, struct page *newpage,
				    struct page *page, enum migrate_mode mode)
{
	struct fph_balloon *b = container_of(pages, struct fph_balloon, pages);
	int ret = tell_of_move(b, newpage, page);
#ifdef FPH_HAVE_BALLOON_PAGES_LOCK
	unsigned long flags;

	if (ret)
		return ret;
	get_page(newpage);
	if (page_zone(page) != page_zone(newpage)) {
		account_single(b, page, 1);
		account_single(b, newpage, -1);
	}
	spin_lock_irqsave(&pages->pages_lock, flags);
	balloon_page_insert(pages, newpage);
	pages->isolated_pages--;
	__count_vm_event(BALLOON_MIGRATE);
#ifdef FPH_HAVE_BALLOON_PAGE_FINALIZE
	balloon_page_finalize(page);
#else
	balloon_page_delete(page);
#endif
	spin_unlock_irqrestore(&pages->pages_lock, flags);
	put_page(page);
#endif
	/* Somebody may wait for the page to be in the balloon again. */
	look_again(b);
	return ret;
}

/* Inflating. */

/* Pages that can be taken and leave the guest its floor */
static unsigned long spare_pages(void)
{
	long available = si_mem_available();
	long floor = (long)READ_ONCE(balloon_floor) << (20 - PAGE_SHIFT);

	return available > floor ? available - floor : 0;
}

static unsigned long free_pages_of(int nid, int first, int last)
{
	unsigned long pages = 0;
	int i;

	for (i = first; i <= last; i++) {
		struct zone *zone = &NODE_DATA(nid)->node_zones[i];
		unsigned long n;

		if (!populated_zone(zone))
			continue;
		n = zone_page_state(zone, NR_FREE_PAGES);
		pages += n - min(n, high_wmark_pages(zone));
	}
	return pages;
}

/* The node that has most, and whether that is where memory can be moved */
static int richest_node(bool *movable)
{
	unsigned long most = 0;
	int nid, best = NUMA_NO_NODE;

	*movable = false;
	for_each_node_state(nid, N_MEMORY) {
		unsigned long kernel = free_pages_of(nid, 0, ZONE_MOVABLE - 1);
		unsigned long other = free_pages_of(nid, ZONE_MOVABLE, ZONE_MOVABLE);

		if (best == NUMA_NO_NODE || max(kernel, other) > most) {
			best = nid;
			most = max(kernel, other);
			*movable = other > kernel;
		}
	}
	return best;
}

/* Nobody needs to hold still for this: it decides what is tried first. */
static void count_small(struct fph_balloon *b)
{
	int nid, i, order;

	memset(b->small, 0, sizeof(b->small));
	for_each_node_state(nid, N_MEMORY) {
		for (i = 0; i < MAX_NR_ZONES; i++) {
			struct zone *zone = &NODE_DATA(nid)->node_zones[i];

			for (order = 0; populated_zone(zone) && order < pageblock_order; order++)
				b->small[order] += READ_ONCE(zone->free_area[order].nr_free);
		}
	}
}

/* Return: was there one? A small block becomes single pages. */
static bool add_block(struct fph_balloon_frame *frame, int nid, gfp_t gfp, unsigned int order)
{
	struct page *page;
	unsigned long i;

	page = alloc_pages_node(nid, gfp | __GFP_NOMEMALLOC | __GFP_NORETRY | __GFP_NOWARN, order);
	if (!page)
		return false;
	if (order >= pageblock_order) {
		set_page_private(page, order);
		frame_add(frame, page);
		return true;
	}
	if (order)
		split_page(page, order);
	for (i = 0; i < 1UL << order; i++) {
		set_page_private(page + i, 0);
		frame_add(frame, page + i);
	}
	return true;
}

static bool fits(const struct fph_balloon_frame *frame, unsigned long limit, unsigned int order)
{
	unsigned long blocks = order < pageblock_order ? 1UL << order : 1;

	return frame->nr_pages + (1UL << order) <= limit &&
	       frame->nr_blocks + blocks <= VIRTIO_FPH_RUNS_MAX;
}

/* Without reclaim or compaction, blocks of @first pages, then smaller ones */
static void add_blocks(struct fph_balloon_frame *frame, unsigned long limit, int nid, gfp_t gfp,
		       int first, int last)
{
	int order;

	for (order = first; order >= last; order--)
		while (fits(frame, limit, order))
			if (!add_block(frame, nid, gfp & ~__GFP_RECLAIM, order))
				break;
}

static void fill_frame(struct fph_balloon *b, struct fph_balloon_frame *frame, unsigned long limit)
{
	bool movable;
	int nid = richest_node(&movable);
	int order;

	for (order = 0; order < pageblock_order; order++) {
		while (b->small[order] && fits(frame, limit, order)) {
			b->small[order]--;
			if (!add_block(frame, nid, (GFP_HIGHUSER_MOVABLE | __GFP_THISNODE) &
				       ~__GFP_RECLAIM, order))
				b->small[order] = 0;
		}
		/* What does not fit now will fit into the next one. */
		if (b->small[order] && frame->nr_pages)
			return;
	}
	/* What cannot be moved is neither in ZONE_MOVABLE nor in areas for CMA. */
	if (!movable)
		add_blocks(frame, limit, nid, GFP_HIGHUSER | __GFP_THISNODE, FPH_MAX_ORDER,
			   pageblock_order);
	/* The rest of a limit, too */
	if (frame->nr_pages < limit)
		add_blocks(frame, limit, nid, GFP_HIGHUSER_MOVABLE | __GFP_THISNODE,
			   pageblock_order - 1, 0);
	/*
	 * Only single pages may come from another node, once this one has none above
	 * its watermarks, or cost the guest some of its page cache.
	 */
	while (fits(frame, limit, 0))
		if (!add_block(frame, nid, GFP_HIGHUSER_MOVABLE, 0))
			break;
}

/* What may be in a frame that inflates */
static unsigned long frame_limit(void)
{
	return (want_init_on_alloc(0) ? CLEARED_PAGES : UNTOUCHED_PAGES) / 2;
}

/* Return: was anything sent? */
static bool inflate(struct fph_balloon *b, struct fph_balloon_frame *frame, unsigned long want)
{
	LIST_HEAD(unused);
	unsigned int runs = 0;
	bool sent = false;

	fill_frame(b, frame, min3(want, frame_limit(), spare_pages()));
	if (frame->nr_blocks)
		runs = make_runs(frame);

	spin_lock(&b->lock);
	b->waiting = !runs;
	b->inflating += frame->nr_pages;
	if (runs)
		sent = send_frame(b, frame, VIRTIO_FPH_BALLOON_INFLATE, runs);
	if (!sent) {
		b->inflating -= frame->nr_pages;
		put_frame(b, frame, false, &unused);
	}
	spin_unlock(&b->lock);
	free_blocks(&unused);
	return sent;
}

/* Deflating. */

/* Under lock: moves single pages into the frame; some may be being moved. */
static void take_singles(struct fph_balloon *b, struct fph_balloon_frame *frame, unsigned long want)
{
	struct page *page, *next;
	LIST_HEAD(singles);

	balloon_page_list_dequeue(&b->pages, &singles, want);
	list_for_each_entry_safe(page, next, &singles, lru) {
		account_single(b, page, 1);
		list_del(&page->lru);
		set_page_private(page, 0);
		frame_add(frame, page);
	}
}

/* Under lock: a part of a block that is larger than what is wanted of it */
static void take_part(struct fph_balloon *b, struct fph_balloon_frame *frame, unsigned long want)
{
	struct page *page = NULL;
	LIST_HEAD(rest);
	unsigned int order;
	unsigned long i;

	for (order = pageblock_order; order <= FPH_MAX_ORDER && !page; order++)
		page = list_first_entry_or_null(&b->blocks[order], struct page, lru);
	if (!page)
		return;
	order = page_private(page);
	take_block(b, page);
	split_page(page, order);
	for (i = 0; i < 1UL << order; i++) {
		set_page_private(page + i, 0);
		if (i < want)
			frame_add(frame, page + i);
		else
			list_add_tail(&page[i].lru, &rest);
	}
	put_blocks(b, &rest);
}

/* Under lock: moves blocks of @want pages in all into the frame, at most. */
static void take_blocks(struct fph_balloon *b, struct fph_balloon_frame *frame, unsigned long want)
{
	int order;

	want = min3(want, (unsigned long)FRAME_PAGES, b->size);
	for (order = FPH_MAX_ORDER; order >= (int)pageblock_order; order--) {
		while (frame->nr_pages + (1UL << order) <= want) {
			struct page *page = list_first_entry_or_null(&b->blocks[order], struct page,
								     lru);

			if (!page)
				break;
			take_block(b, page);
			frame_add(frame, page);
		}
	}
	want = min_t(unsigned long, want - frame->nr_pages,
		     VIRTIO_FPH_RUNS_MAX - frame->nr_blocks);
	if (want) {
		unsigned int before = frame->nr_blocks;

		take_singles(b, frame, want);
		want -= frame->nr_blocks - before;
	}
	if (want && !frame->nr_pages)
		take_part(b, frame, want);
	b->size -= frame->nr_pages;
}

/* Blocks of the frame go back. Return: pages that did, or will when the frame comes back */
static unsigned long send_deflate(struct fph_balloon *b, struct fph_balloon_frame *frame)
{
	unsigned long pages = frame->nr_pages;
	unsigned int runs = 0;
	LIST_HEAD(unused);

	if (pages)
		runs = make_runs(frame);

	spin_lock(&b->lock);
	/* A device that takes no frames does not take pages either. */
	if (!pages || !send_frame(b, frame, VIRTIO_FPH_BALLOON_DEFLATE, runs)) {
		b->deflating -= pages;
		put_frame(b, frame, false, &unused);
	}
	spin_unlock(&b->lock);
	free_blocks(&unused);
	return pages;
}

static unsigned long deflate(struct fph_balloon *b, struct fph_balloon_frame *frame,
			     unsigned long want)
{
	spin_lock(&b->lock);
	take_blocks(b, frame, want);
	b->deflating += frame->nr_pages;
	b->waiting = false;
	spin_unlock(&b->lock);
	return send_deflate(b, frame);
}

/*
 * One frame towards the target. Return: is there more to do now? Otherwise a
 * frame that comes back, a new target, or time brings us here again.
 */
static bool step(struct fph_balloon *b)
{
	struct fph_balloon_frame *frame = NULL;
	unsigned long want, have;
	bool more;

	if (READ_ONCE(b->stopping))
		return false;
	if (xchg(&b->changed, false)) {
		u64 target = 0;

		virtio_cread_le(b->vdev, struct virtio_fph_config, target, &target);
		target >>= FPH_PFN_SHIFT;
		spin_lock(&b->lock);
		if (b->target != target)
			b->limit = ULONG_MAX;
		b->target = target;
		spin_unlock(&b->lock);
	}

	reclaim_frames(b);
	spin_lock(&b->lock);
	want = min(b->target, b->limit);
	have = b->size + b->inflating;
	/* One that comes back brings us here. */
	if (!b->down && (have > want || (have < want && b->inflating <= frame_limit())))
		frame = get_frame(b);
	if (have == want)
		b->waiting = false;
	more = !b->inflating;
	spin_unlock(&b->lock);
	if (!frame)
		return false;
	if (have > want) {
		if (deflate(b, frame, have - want))
			return true;
	} else {
		if (more)
			count_small(b);
		if (inflate(b, frame, want - have))
			return true;
	}
	queue_delayed_work(balloon_wq, &b->work, RETRY);
	return false;
}

static void balloon_work(struct work_struct *work)
{
	struct fph_balloon *b = container_of(work, struct fph_balloon, work.work);

	while (step(b))
		cond_resched();
}

void fph_balloon_done(struct virtqueue *vq)
{
	struct fph_balloon *b = ((struct fph *)vq->vdev->priv)->balloon;

	look_again(b);
	kick(b);
}

void fph_balloon_config_changed(struct fph *fph)
{
	struct fph_balloon *b = fph->balloon;

	if (b) {
		WRITE_ONCE(b->changed, true);
		kick(b);
	}
}

/* Running out of memory. */

static bool deflated(struct fph_balloon *b)
{
	return READ_ONCE(b->down) || !READ_ONCE(b->deflating);
}

static bool frame_free(struct fph_balloon *b)
{
	bool any;

	spin_lock(&b->lock);
	any = b->down || !list_empty(&b->free_frames);
	spin_unlock(&b->lock);
	return any;
}

static int balloon_oom(struct notifier_block *nb, unsigned long dummy, void *parm)
{
	struct fph_balloon *b = container_of(nb, struct fph_balloon, oom);
	struct fph_balloon_frame *frame;
	unsigned long *freed = parm;
	unsigned long pages;

	/* Frames are few, and come back soon. */
	wait_for_frames(b, frame_free);
	spin_lock(&b->lock);
	frame = get_frame(b);
	spin_unlock(&b->lock);
	if (!frame)
		return NOTIFY_OK;
	pages = deflate(b, frame, OOM_PAGES);

	spin_lock(&b->lock);
	if (pages)
		b->limit = min(b->limit, b->size);
	b->oom_pages += pages;
	spin_unlock(&b->lock);
	if (pages && wait_for_frames(b, deflated))
		*freed += pages;
	return NOTIFY_OK;
}

/* Memory goes offline. */

static bool inflated(struct fph_balloon *b)
{
	return READ_ONCE(b->down) || !READ_ONCE(b->inflating);
}

/* Return: was there anything of this memory in the balloon? */
static bool give_back(struct fph_balloon *b, unsigned long start, unsigned long end)
{
	struct fph_balloon_frame *frame;
	struct page *page, *next;
	int order;

	wait_for_frames(b, frame_free);
	spin_lock(&b->lock);
	frame = get_frame(b);
	for (order = pageblock_order; frame && order <= FPH_MAX_ORDER; order++) {
		list_for_each_entry_safe(page, next, &b->blocks[order], lru) {
			unsigned long pfn = page_to_pfn(page);

			if (pfn >= end || pfn + (1UL << order) <= start)
				continue;
			if (frame->nr_pages + (1UL << order) > FRAME_PAGES)
				break;
			take_block(b, page);
			frame_add(frame, page);
		}
	}
	if (frame) {
		b->size -= frame->nr_pages;
		b->deflating += frame->nr_pages;
	}
	spin_unlock(&b->lock);
	return frame && send_deflate(b, frame);
}

/*
 * The memory is isolated by now: nobody can take of it any more. The kernel
 * moves the single pages by itself.
 */
static int balloon_memory(struct notifier_block *nb, unsigned long action, void *arg)
{
	struct fph_balloon *b = container_of(nb, struct fph_balloon, memory);
	const struct memory_notify *what = arg;

	switch (action) {
	case MEM_GOING_OFFLINE:
		/* So that what was taken before is in the lists, and no more comes */
		WRITE_ONCE(b->stopping, true);
		cancel_delayed_work_sync(&b->work);
		wait_for_frames(b, inflated);
		while (give_back(b, what->start_pfn, what->start_pfn + what->nr_pages))
			cond_resched();
		wait_for_frames(b, deflated);
		WRITE_ONCE(b->stopping, false);
		fallthrough;
	case MEM_CANCEL_OFFLINE:
	case MEM_ONLINE:
		kick(b);
		break;
	}
	return NOTIFY_OK;
}

/* What it shows: attributes of the device, in the folder "balloon". */

static const char *state_name(const struct fph_balloon *b)
{
	unsigned long want = min(b->target, b->limit);
	unsigned long actual = b->size + b->deflating;

	if (b->down)
		return "down";
	if (actual != want)
		return actual > want ? "deflating" : b->waiting ? "waiting" : "inflating";
	return want < b->target ? "limited" : "reached";
}

#define BALLOON_ATTR(name, format, expr)					\
static ssize_t balloon_##name##_show(struct device *dev, struct device_attribute *attr,	\
				     char *buf)					\
{										\
	struct fph_balloon *b = ((struct fph *)dev_to_virtio(dev)->priv)->balloon;	\
	ssize_t ret;								\
										\
	spin_lock(&b->lock);							\
	ret = sysfs_emit(buf, format "\n", expr);				\
	spin_unlock(&b->lock);							\
	return ret;								\
}										\
static struct device_attribute balloon_attr_##name =				\
	__ATTR(name, 0444, balloon_##name##_show, NULL)

BALLOON_ATTR(target, "%llu", (u64)b->target << FPH_PFN_SHIFT);
BALLOON_ATTR(actual, "%llu", (u64)(b->size + b->deflating) << FPH_PFN_SHIFT);
BALLOON_ATTR(state, "%s", state_name(b));
BALLOON_ATTR(frames, "%llu", b->sent_frames);
BALLOON_ATTR(runs, "%llu", b->sent_runs);
BALLOON_ATTR(oom, "%llu", b->oom_pages << FPH_PFN_SHIFT);

static struct attribute *balloon_attrs[] = {
	&balloon_attr_target.attr,
	&balloon_attr_actual.attr,
	&balloon_attr_state.attr,
	&balloon_attr_frames.attr,
	&balloon_attr_runs.attr,
	&balloon_attr_oom.attr,
	NULL
};

static umode_t balloon_visible(struct kobject *kobj, struct attribute *attr, int n)
{
	struct fph *fph = dev_to_virtio(kobj_to_dev(kobj))->priv;

	return fph->balloon ? attr->mode : 0;
}

const struct attribute_group fph_balloon_group = {
	.name = "balloon",
	.attrs = balloon_attrs,
	.is_visible = balloon_visible,
};

/* The device comes and goes. */

int fph_balloon_up(struct fph *fph, struct virtqueue *vq)
{
	struct fph_balloon *b = fph->balloon;
	unsigned int n, i;

	n = virtqueue_get_vring_size(vq) / ARRAY_SIZE(b->frames[0].sg);
	if (!n)
		return -EINVAL;
	spin_lock(&b->lock);
	b->vq = vq;
	b->can_move = n > MOVING;
	INIT_LIST_HEAD(&b->free_frames);
	for (i = 0; i < min_t(unsigned int, b->can_move ? n - MOVING : n, FRAMES); i++)
		list_add(&b->frames[i].free, &b->free_frames);
	b->inflating = 0;
	b->deflating = 0;
	b->limit = ULONG_MAX;
	b->waiting = false;
	b->down = false;
	spin_unlock(&b->lock);
	return 0;
}

void fph_balloon_start(struct fph *fph)
{
	struct fph_balloon *b = fph->balloon;

	if (!b)
		return;
	WRITE_ONCE(b->stopping, false);
	if (virtio_has_feature(b->vdev, VIRTIO_FPH_F_BALLOON_OOM))
		register_oom_notifier(&b->oom);
	register_memory_notifier(&b->memory);
	fph_balloon_config_changed(fph);
}

void fph_balloon_down(struct fph *fph)
{
	struct fph_balloon *b = fph->balloon;

	if (b) {
		WRITE_ONCE(b->down, true);
		look_again(b);
	}
}

void fph_balloon_leave(struct fph *fph)
{
	struct fph_balloon *b = fph->balloon;

	if (!b)
		return;
	/* Who saw it up is through with it afterwards */
	spin_lock(&b->lock);
	spin_unlock(&b->lock);
}

void fph_balloon_halt(struct fph *fph)
{
	struct fph_balloon *b = fph->balloon;

	if (!b)
		return;
	/* Both wait for those who are at it. */
	if (virtio_has_feature(b->vdev, VIRTIO_FPH_F_BALLOON_OOM))
		unregister_oom_notifier(&b->oom);
	unregister_memory_notifier(&b->memory);
	WRITE_ONCE(b->stopping, true);
	cancel_delayed_work_sync(&b->work);
}

/* Return: is nothing in the balloon, nor on its way, or nobody to be told? */
static bool emptied(struct fph_balloon *b)
{
	struct fph_balloon_frame *frame;
	bool empty;

	do {
		spin_lock(&b->lock);
		empty = b->down || virtqueue_is_broken(b->vq) ||
			!(b->size || b->inflating || b->deflating);
		frame = empty ? NULL : get_frame(b);
		spin_unlock(&b->lock);
	} while (frame && deflate(b, frame, ULONG_MAX));
	return empty;
}

void fph_balloon_empty(struct fph *fph)
{
	struct fph_balloon *b = fph->balloon;

	if (!b)
		return;
	/* A reset ends it all in any case. */
	if (!wait_for_frames(b, emptied))
		dev_warn(&b->vdev->dev, "the device does not take the balloon's frames\n");
	fph_balloon_down(fph);
}

void fph_balloon_reset(struct fph *fph)
{
	struct fph_balloon *b = fph->balloon;
	struct fph_balloon_frame all = { };
	unsigned int i;

	if (!b)
		return;
	/* The last callback is over: it may have queued the work again. */
	cancel_delayed_work_sync(&b->work);
	INIT_LIST_HEAD(&all.blocks);
	spin_lock(&b->lock);
	b->vq = NULL;
	for (i = 0; i < FRAMES; i++)
		list_splice_tail_init(&b->frames[i].blocks, &all.blocks);
	spin_unlock(&b->lock);
	/* Pages that are being moved come back to the list. */
	while (b->size) {
		unsigned long before = b->size;

		spin_lock(&b->lock);
		take_blocks(b, &all, b->size);
		spin_unlock(&b->lock);
		all.nr_pages = 0;
		all.nr_blocks = 0;
		free_blocks(&all.blocks);
		if (b->size == before)
			msleep(20);
	}
	free_blocks(&all.blocks);
	b->inflating = 0;
	b->deflating = 0;
}

void fph_balloon_free(struct fph *fph)
{
	struct fph_balloon *b = fph->balloon;
	unsigned int i;

	if (!b)
		return;
	for (i = 0; i < ARRAY_SIZE(b->frames); i++)
		kfree(b->frames[i].runs);
	kfree(b);
	fph->balloon = NULL;
}

int fph_balloon_new(struct fph *fph)
{
	struct fph_balloon *b;
	unsigned int i;

	if (!virtio_has_feature(fph->vdev, VIRTIO_FPH_F_BALLOON))
		return 0;
	b = kzalloc(sizeof(*b), GFP_KERNEL);
	if (!b)
		return -ENOMEM;
	fph->balloon = b;
	b->vdev = fph->vdev;
	b->down = true;
	b->stopping = true;
	b->oom.notifier_call = balloon_oom;
	b->memory.notifier_call = balloon_memory;
	spin_lock_init(&b->lock);
	mutex_init(&b->moving_lock);
	init_waitqueue_head(&b->wait);
	INIT_DELAYED_WORK(&b->work, balloon_work);
	INIT_LIST_HEAD(&b->free_frames);
	for (i = 0; i <= FPH_MAX_ORDER; i++)
		INIT_LIST_HEAD(&b->blocks[i]);
	balloon_devinfo_init(&b->pages);
#ifdef CONFIG_BALLOON_COMPACTION
	b->pages.migratepage = move_page;
#endif
#ifdef FPH_HAVE_BALLOON_ADJUST
	b->pages.adjust_managed_page_count = adjusts(b);
#endif
	for (i = 0; i < ARRAY_SIZE(b->frames); i++) {
		struct fph_balloon_frame *frame = &b->frames[i];

		INIT_LIST_HEAD(&frame->blocks);
		frame->moving = i >= FRAMES;
		frame->runs = kmalloc(frame->moving ? sizeof(*frame->runs) :
				      VIRTIO_FPH_PAYLOAD_MAX, GFP_KERNEL);
		if (!frame->runs) {
			fph_balloon_free(fph);
			return -ENOMEM;
		}
	}
	return 0;
}

int fph_balloon_init(void)
{
	balloon_wq = alloc_workqueue(KBUILD_MODNAME "_balloon", WQ_UNBOUND | WQ_FREEZABLE, 0);
	return balloon_wq ? 0 : -ENOMEM;
}

void fph_balloon_exit(void)
{
	destroy_workqueue(balloon_wq);
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * The balloon: pages that the host wants are allocated, as large a block at a
 * time as there is, and named to it in runs; they come back when it wants
 * less, when the guest has no memory left, or when the device goes away.
 *
 * What is in the balloon is a list of blocks for each order. A block leaves its
 * list for the frame that names it, and what becomes of it is decided when the
 * device has used that frame: only then may a page be used again.
 */
#include <linux/list.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/oom.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/sort.h>
#include <linux/sysfs.h>
#include <linux/virtio_config.h>

#include "fph.h"

#define FRAMES		4		/* that can be on their way */
#define FRAME_PAGES	(VIRTIO_FPH_BALLOON_PAGES_MAX >> FPH_PFN_SHIFT)
/* What is given back at a time when there is no memory left */
#define OOM_PAGES	((64UL << 20) >> PAGE_SHIFT)
/* How often to look whether there is memory to be had again */
#define RETRY		HZ
/* How long the device may keep a frame that somebody waits for */
#define FRAME_TIMEOUT	(5 * HZ)

static unsigned int balloon_floor = 64;
module_param(balloon_floor, uint, 0644);
MODULE_PARM_DESC(balloon_floor, "MiB of memory, free or easily freed, that inflating the balloon leaves to the guest (default: 64)");

struct fph_balloon_frame {
	struct virtio_fph_balloon head;
	struct scatterlist sg[2];
	__le64 *runs;			/* VIRTIO_FPH_RUNS_MAX of them */
	unsigned int nr_blocks;
	unsigned long nr_pages;
	struct list_head blocks;	/* that it names, linked by lru */
	struct list_head free;
};

struct fph_balloon {
	struct virtio_device *vdev;
	struct virtqueue *vq;
	struct delayed_work work;	/* gets to the target */
	struct notifier_block oom;
	wait_queue_head_t wait;		/* for frames to come back */
	bool changed;			/* the target was not read since */

	/* Not taken in interrupts. All counts are of the guest's pages. */
	spinlock_t lock;
	bool down;			/* no device to talk to */
	bool stopping;			/* the work has nothing to do any more */
	unsigned long target;
	unsigned long limit;		/* no more than this until the target changes */
	unsigned long size;		/* in the lists below */
	unsigned long inflating;	/* in frames, about to be sent or under way */
	unsigned long deflating;
	struct list_head blocks[FPH_MAX_ORDER + 1];
	struct list_head free_frames;
	bool waiting;			/* for memory */
	u64 sent_frames;
	u64 sent_runs;
	u64 oom_pages;

	struct fph_balloon_frame frames[FRAMES];
};

static struct workqueue_struct *balloon_wq;

/* Blocks. The order is in page_private() as long as a block is ours. */

/* A guest that may get it back at any time still has that memory. */
static void account(struct fph_balloon *b, struct page *page, long pages)
{
	if (!virtio_has_feature(b->vdev, VIRTIO_FPH_F_BALLOON_OOM))
		adjust_managed_page_count(page, pages);
}

static struct page *alloc_block(struct fph_balloon *b, unsigned int order)
{
	gfp_t gfp = GFP_HIGHUSER | __GFP_NOMEMALLOC | __GFP_NORETRY | __GFP_NOWARN;
	struct page *page;

	/* Do not make large blocks: there are smaller ones. */
	if (order)
		gfp &= ~__GFP_RECLAIM;
	page = alloc_pages(gfp, order);
	if (page) {
		set_page_private(page, order);
		account(b, page, -(1L << order));
	}
	return page;
}

static void free_blocks(struct fph_balloon *b, struct list_head *blocks)
{
	struct page *page, *next;

	list_for_each_entry_safe(page, next, blocks, lru) {
		unsigned int order = page_private(page);

		list_del(&page->lru);
		set_page_private(page, 0);
		account(b, page, 1L << order);
		__free_pages(page, order);
	}
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
	struct page *page, *next;

	if (into_balloon) {
		list_for_each_entry_safe(page, next, &frame->blocks, lru)
			list_move(&page->lru, &b->blocks[page_private(page)]);
		b->size += frame->nr_pages;
	} else {
		list_splice_tail_init(&frame->blocks, unused);
	}
	list_add(&frame->free, &b->free_frames);
}

/* Takes back the frames that the device has used. */
static void reclaim_frames(struct fph_balloon *b)
{
	struct fph_balloon_frame *frame;
	LIST_HEAD(unused);
	unsigned int len;
	bool any = false;

	spin_lock(&b->lock);
	while (b->vq && (frame = virtqueue_get_buf(b->vq, &len))) {
		bool inflate = frame->head.op == cpu_to_le16(VIRTIO_FPH_BALLOON_INFLATE);

		if (inflate)
			b->inflating -= frame->nr_pages;
		else
			b->deflating -= frame->nr_pages;
		put_frame(b, frame, inflate, &unused);
		any = true;
	}
	spin_unlock(&b->lock);
	free_blocks(b, &unused);
	if (any)
		wake_up(&b->wait);
}

static int compare_runs(const void *a, const void *b)
{
	u64 x = *(const u64 *)a, y = *(const u64 *)b;

	return x < y ? -1 : x > y;
}

/* Runs of the frame's blocks: they ascend, and neighbours are one. */
static unsigned int make_runs(struct fph_balloon_frame *frame)
{
	u64 *runs = (__force u64 *)frame->runs;
	unsigned int n = 0, i, last = 0;
	struct page *page;

	list_for_each_entry(page, &frame->blocks, lru)
		runs[n++] = VIRTIO_FPH_RUN((u64)page_to_pfn(page) << FPH_PFN_SHIFT,
					   1ULL << page_private(page) << FPH_PFN_SHIFT);
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

/* Inflating. */

/* Pages that can be taken and leave the guest its floor */
static unsigned long spare_pages(void)
{
	long available = si_mem_available();
	long floor = (long)READ_ONCE(balloon_floor) << (20 - PAGE_SHIFT);

	return available > floor ? available - floor : 0;
}

/* Return: was anything sent? */
static bool inflate(struct fph_balloon *b, struct fph_balloon_frame *frame, unsigned long want)
{
	unsigned long limit = min3(want, (unsigned long)FRAME_PAGES, spare_pages());
	unsigned int order = FPH_MAX_ORDER;
	LIST_HEAD(unused);
	unsigned int runs = 0;
	bool sent = false;

	while (frame->nr_pages < limit && frame->nr_blocks < VIRTIO_FPH_RUNS_MAX) {
		struct page *page;

		order = min_t(unsigned int, order, ilog2(limit - frame->nr_pages));
		page = alloc_block(b, order);
		if (page)
			frame_add(frame, page);
		else if (!order--)
			break;
	}
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
	free_blocks(b, &unused);
	return sent;
}

/* Deflating. */

/* Under lock: a block larger than what is wanted of it becomes single pages. */
static void split_block(struct fph_balloon *b, unsigned int order)
{
	struct page *page = list_first_entry(&b->blocks[order], struct page, lru);
	unsigned long i;

	list_del(&page->lru);
	split_page(page, order);
	for (i = 0; i < 1UL << order; i++) {
		set_page_private(page + i, 0);
		list_add_tail(&page[i].lru, &b->blocks[0]);
	}
}

/* Under lock: moves blocks of @want pages in all into the frame, at most. */
static void take_blocks(struct fph_balloon *b, struct fph_balloon_frame *frame, unsigned long want)
{
	int order, larger;

	want = min3(want, (unsigned long)FRAME_PAGES, b->size);
	for (order = FPH_MAX_ORDER; order >= 0; order--) {
		while (want >> order && frame->nr_blocks < VIRTIO_FPH_RUNS_MAX) {
			struct page *page;

			/* At the end, only blocks that are too large may be left. */
			for (larger = order + 1; !order && list_empty(&b->blocks[0]) &&
			     larger <= FPH_MAX_ORDER; larger++)
				if (!list_empty(&b->blocks[larger]))
					split_block(b, larger);
			page = list_first_entry_or_null(&b->blocks[order], struct page, lru);
			if (!page)
				break;
			list_del(&page->lru);
			frame_add(frame, page);
			want -= 1UL << order;
		}
	}
	b->size -= frame->nr_pages;
}

/* Return: pages that will come back with the frame */
static unsigned long deflate(struct fph_balloon *b, struct fph_balloon_frame *frame,
			     unsigned long want)
{
	unsigned int runs = 0;
	unsigned long pages;
	LIST_HEAD(none);
	bool sent = false;

	spin_lock(&b->lock);
	take_blocks(b, frame, want);
	pages = frame->nr_pages;
	b->deflating += pages;
	b->waiting = false;
	spin_unlock(&b->lock);

	if (pages)
		runs = make_runs(frame);

	spin_lock(&b->lock);
	if (pages)
		sent = send_frame(b, frame, VIRTIO_FPH_BALLOON_DEFLATE, runs);
	if (!sent) {
		b->deflating -= pages;
		put_frame(b, frame, true, &none);
	}
	spin_unlock(&b->lock);
	return sent ? pages : 0;
}

/*
 * One frame towards the target. Return: is there more to do now? Otherwise a
 * frame that comes back, a new target, or time brings us here again.
 */
static bool step(struct fph_balloon *b)
{
	struct fph_balloon_frame *frame = NULL;
	unsigned long want, have;

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
	if (!b->down && have != want)
		frame = get_frame(b);
	if (have == want)
		b->waiting = false;
	spin_unlock(&b->lock);
	if (!frame)
		return false;
	if (have > want)
		return deflate(b, frame, have - want);
	if (inflate(b, frame, want - have))
		return true;
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
	struct fph *fph = vq->vdev->priv;

	wake_up(&fph->balloon->wait);
	mod_delayed_work(balloon_wq, &fph->balloon->work, 0);
}

void fph_balloon_config_changed(struct fph *fph)
{
	struct fph_balloon *b = fph->balloon;

	if (b) {
		WRITE_ONCE(b->changed, true);
		mod_delayed_work(balloon_wq, &b->work, 0);
	}
}

/* Running out of memory. */

static bool frames_returned(struct fph_balloon *b)
{
	reclaim_frames(b);
	return READ_ONCE(b->down) || !READ_ONCE(b->deflating);
}

static bool frame_free(struct fph_balloon *b)
{
	reclaim_frames(b);
	return READ_ONCE(b->down) || !list_empty(&b->free_frames);
}

/* Under lock: a device that takes no frames does not take pages either. */
static unsigned long take_without_device(struct fph_balloon *b, unsigned long want,
					 struct list_head *unused)
{
	struct fph_balloon_frame *frame = get_frame(b);

	if (!frame)
		return 0;
	take_blocks(b, frame, want);
	put_frame(b, frame, false, unused);
	return frame->nr_pages;
}

static int balloon_oom(struct notifier_block *nb, unsigned long dummy, void *parm)
{
	struct fph_balloon *b = container_of(nb, struct fph_balloon, oom);
	struct fph_balloon_frame *frame = NULL;
	unsigned long *freed = parm;
	unsigned long pages = 0;
	LIST_HEAD(unused);

	/* Frames are few, and come back soon. */
	wait_event_timeout(b->wait, frame_free(b), FRAME_TIMEOUT);
	spin_lock(&b->lock);
	if (b->down)
		pages = take_without_device(b, OOM_PAGES, &unused);
	else
		frame = get_frame(b);
	spin_unlock(&b->lock);
	if (frame)
		pages = deflate(b, frame, OOM_PAGES);
	free_blocks(b, &unused);

	spin_lock(&b->lock);
	if (pages)
		b->limit = min(b->limit, b->size);
	b->oom_pages += pages;
	spin_unlock(&b->lock);
	if (pages && wait_event_timeout(b->wait, frames_returned(b), FRAME_TIMEOUT))
		*freed += pages;
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
	INIT_LIST_HEAD(&b->free_frames);
	for (i = 0; i < min_t(unsigned int, n, FRAMES); i++)
		list_add(&b->frames[i].free, &b->free_frames);
	b->inflating = 0;
	b->deflating = 0;
	b->limit = ULONG_MAX;
	b->waiting = false;
	b->stopping = false;
	b->down = false;
	spin_unlock(&b->lock);
	return 0;
}

void fph_balloon_down(struct fph *fph)
{
	struct fph_balloon *b = fph->balloon;

	if (b) {
		WRITE_ONCE(b->down, true);
		wake_up(&b->wait);
	}
}

/* Return: is nothing in the balloon, nor on its way, or nobody to be told? */
static bool emptied(struct fph_balloon *b)
{
	struct fph_balloon_frame *frame;
	bool empty;

	do {
		reclaim_frames(b);
		spin_lock(&b->lock);
		empty = b->down || virtqueue_is_broken(b->vq) ||
			!(b->size || b->inflating || b->deflating);
		frame = empty ? NULL : get_frame(b);
		spin_unlock(&b->lock);
	} while (frame && deflate(b, frame, ULONG_MAX));
	return empty;
}

void fph_balloon_stop(struct fph *fph)
{
	struct fph_balloon *b = fph->balloon;

	if (!b)
		return;
	WRITE_ONCE(b->stopping, true);
	cancel_delayed_work_sync(&b->work);
	/* A reset ends it all in any case. */
	if (!wait_event_timeout(b->wait, emptied(b), FRAME_TIMEOUT))
		dev_warn(&b->vdev->dev, "the device does not take the balloon's frames\n");
	fph_balloon_down(fph);
}

void fph_balloon_reset(struct fph *fph)
{
	struct fph_balloon *b = fph->balloon;
	unsigned int i;

	if (!b)
		return;
	/* The last callback is over: it may have queued the work again. */
	cancel_delayed_work_sync(&b->work);
	b->vq = NULL;
	for (i = 0; i < FRAMES; i++)
		free_blocks(b, &b->frames[i].blocks);
	for (i = 0; i <= FPH_MAX_ORDER; i++)
		free_blocks(b, &b->blocks[i]);
	b->size = 0;
	b->inflating = 0;
	b->deflating = 0;
}

void fph_balloon_free(struct fph *fph)
{
	struct fph_balloon *b = fph->balloon;
	unsigned int i;

	if (!b)
		return;
	if (b->oom.notifier_call)
		unregister_oom_notifier(&b->oom);
	for (i = 0; i < FRAMES; i++)
		kfree(b->frames[i].runs);
	kfree(b);
	fph->balloon = NULL;
}

int fph_balloon_new(struct fph *fph)
{
	struct fph_balloon *b;
	unsigned int i;
	int ret = -ENOMEM;

	if (!virtio_has_feature(fph->vdev, VIRTIO_FPH_F_BALLOON))
		return 0;
	b = kzalloc(sizeof(*b), GFP_KERNEL);
	if (!b)
		return ret;
	fph->balloon = b;
	b->vdev = fph->vdev;
	b->down = true;
	spin_lock_init(&b->lock);
	init_waitqueue_head(&b->wait);
	INIT_DELAYED_WORK(&b->work, balloon_work);
	INIT_LIST_HEAD(&b->free_frames);
	for (i = 0; i <= FPH_MAX_ORDER; i++)
		INIT_LIST_HEAD(&b->blocks[i]);
	for (i = 0; i < FRAMES; i++) {
		INIT_LIST_HEAD(&b->frames[i].blocks);
		b->frames[i].runs = kmalloc(VIRTIO_FPH_PAYLOAD_MAX, GFP_KERNEL);
		if (!b->frames[i].runs)
			goto err;
	}
	if (virtio_has_feature(fph->vdev, VIRTIO_FPH_F_BALLOON_OOM)) {
		b->oom.notifier_call = balloon_oom;
		ret = register_oom_notifier(&b->oom);
		if (ret) {
			b->oom.notifier_call = NULL;
			goto err;
		}
	}
	return 0;
err:
	fph_balloon_free(fph);
	return ret;
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

// SPDX-License-Identifier: GPL-2.0-only
/*
 * Two ways to find the free pages of the guest. Both look at free pages only
 * while they hold zone->lock, so that each reported page was free at an instant
 * behind the arrival of the request. Neither keeps the pages: whoever writes to
 * one later marks it dirty for the host, like any other page.
 *
 * Free pages on per-CPU lists are not found; there is no way to tell them from
 * pages in use. A page that is missed costs only the gain.
 */
#include <linux/bitmap.h>
#include <linux/ktime.h>
#include <linux/memory.h>
#include <linux/memory_hotplug.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/nodemask.h>
#include <linux/page-isolation.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include "fph.h"

/* Pages looked at without the lock before others may run */
#define PEEK_VISITS	4096
/* So many pages in use in a row, and it is not worth holding the lock. */
#define MISSES		32
/* After this time the lock is let go of; so often the clock is looked at. */
#define HOLD_NS		100000
#define CLOCK_VISITS	32

/* Where the walk over page frame numbers is */
struct cursor {
	struct zone *zone;
	unsigned long pfn;
	unsigned long end;
	unsigned long checked;	/* up to here there are page structs, of this zone */
};

static int add(struct fph *fph, unsigned long pfn, unsigned long pages)
{
	return fph_encoder_add(&fph->encoder, (u64)pfn << FPH_PFN_SHIFT,
			       (u64)pages << FPH_PFN_SHIFT);
}

static void lock_released(struct fph *fph, u64 since_ns)
{
	u64 held_ns = ktime_get_mono_fast_ns() - since_ns;

	if (held_ns > fph->stats.lock_ns)
		fph->stats.lock_ns = held_ns;
}

/* The page at the cursor, or NULL, with the cursor behind what is none of ours. */
static struct page *look(struct cursor *c)
{
	struct page *page;
	unsigned long next;

	if (c->pfn < c->checked)
		return pfn_to_page(c->pfn);
	page = pfn_to_online_page(c->pfn);
	if (page && page_zone(page) != c->zone) {
		c->pfn = SUBSECTION_ALIGN_UP(c->pfn + 1);
		return NULL;
	}
	/* Memory comes and goes in sections, but a device may have parts of them. */
	if (online_device_section(__pfn_to_section(c->pfn)))
		next = SUBSECTION_ALIGN_UP(c->pfn + 1);
	else
		next = SECTION_ALIGN_UP(c->pfn + 1);
	if (page)
		c->checked = next;
	else
		c->pfn = next;
	return page;
}

/*
 * Passes over a page that is in use, and over all that it is the head of. What
 * that is may change meanwhile, without the lock: then this passes over too
 * little or too much, which is harmless.
 */
static void pass(struct cursor *c, struct page *page)
{
	unsigned int order = compound_order(page);

	if (order > PUD_SHIFT - PAGE_SHIFT || !IS_ALIGNED(c->pfn, 1UL << order))
		order = 0;
	c->pfn += 1UL << order;
}

/*
 * Finds what may be a free page, without the lock. Most pages that this sees
 * are in use, and neither free nor the head of others: pass over those quickly.
 */
static bool peek(struct cursor *c)
{
	unsigned long stop = min(c->end, c->pfn + PEEK_VISITS);

	while (c->pfn < stop) {
		struct page *page = look(c);
		unsigned long here;

		if (!page)
			continue;
		here = min(stop, c->checked);
		while (!PageBuddy(page) && !PageHead(page) && ++c->pfn < here)
			page++;
		if (c->pfn >= here)
			continue;
		if (PageBuddy(page))
			return true;
		pass(c, page);
	}
	return false;
}

static void found(struct fph *fph, unsigned long pfn, unsigned long pages)
{
	unsigned int n = fph->nr_found;

	if (n && fph->found[n - 1].pfn + fph->found[n - 1].pages == pfn) {
		fph->found[n - 1].pages += pages;
		return;
	}
	fph->found[n].pfn = pfn;
	fph->found[n].pages = pages;
	fph->nr_found = n + 1;
}

/* A visit is a page struct, however large the free block that it heads. */
static void collect(struct fph *fph, struct cursor *c)
{
	unsigned int visits, misses = 0;
	unsigned long flags;
	u64 since_ns;

	spin_lock_irqsave(&c->zone->lock, flags);
	since_ns = ktime_get_mono_fast_ns();
	for (visits = 0; visits < FPH_VISITS && misses < MISSES && c->pfn < c->end; visits++) {
		struct page *page = look(c);
		unsigned long order;

		/* Each visit may be a cache miss, and what that costs depends. */
		if (visits % CLOCK_VISITS == CLOCK_VISITS - 1 &&
		    ktime_get_mono_fast_ns() - since_ns > HOLD_NS)
			break;
		if (!page)
			continue;
		/* The lock of its own zone is what makes a free page stay free. */
		if (!PageBuddy(page) || page_zone(page) != c->zone) {
			pass(c, page);
			misses++;
			continue;
		}
		order = page_private(page);
		if (WARN_ON_ONCE(order > FPH_MAX_ORDER)) {
			c->pfn++;
			continue;
		}
		found(fph, c->pfn, 1UL << order);
		c->pfn += 1UL << order;
		misses = 0;
	}
	lock_released(fph, since_ns);
	spin_unlock_irqrestore(&c->zone->lock, flags);
}

static int walk_pfns(struct fph *fph, struct zone *zone)
{
	struct cursor c = {
		.zone = zone,
		.pfn = zone->zone_start_pfn,
		.end = zone_end_pfn(zone),
	};
	unsigned int i;
	int ret;

	while (c.pfn < c.end) {
		fph->nr_found = 0;
		/* Page structs that were there stay until fph_memory_notify(). */
		rcu_read_lock();
		c.checked = 0;
		if (peek(&c))
			collect(fph, &c);
		rcu_read_unlock();

		for (i = 0; i < fph->nr_found; i++) {
			ret = add(fph, fph->found[i].pfn, fph->found[i].pages);
			if (ret)
				return ret;
		}
		if (!fph_wanted(fph))
			return -ECANCELED;
		cond_resched();
	}
	return 0;
}

/*
 * The lists cannot be left and taken up again, since they change meanwhile: the
 * lock is held, with interrupts off, for as long as they are.
 */
static void collect_lists(struct fph *fph, struct zone *zone, unsigned long base,
			  unsigned long *map, unsigned long bits)
{
	unsigned int order, type;
	unsigned long flags;
	struct page *page;
	u64 since_ns;

	spin_lock_irqsave(&zone->lock, flags);
	since_ns = ktime_get_mono_fast_ns();
	for (order = 0; order <= FPH_MAX_ORDER; order++) {
		for (type = 0; type < MIGRATE_TYPES; type++) {
			/* Somebody is about to take these away. */
			if (is_migrate_isolate(type))
				continue;
			list_for_each_entry(page, &zone->free_area[order].free_list[type],
					    buddy_list) {
				unsigned long bit = page_to_pfn(page) - base;

				/* The zone may have grown. */
				if (bit < bits && bits - bit >= 1UL << order)
					bitmap_set(map, bit, 1U << order);
			}
		}
	}
	lock_released(fph, since_ns);
	spin_unlock_irqrestore(&zone->lock, flags);
}

static int walk_lists(struct fph *fph, struct zone *zone, unsigned long *map,
		      unsigned long map_bits)
{
	unsigned long base = zone->zone_start_pfn;
	unsigned long bits = min(map_bits, zone_end_pfn(zone) - base);
	unsigned long start, end;
	int ret;

	bitmap_zero(map, bits);
	collect_lists(fph, zone, base, map, bits);
	for_each_set_bitrange(start, end, map, bits) {
		ret = add(fph, base + start, end - start);
		if (ret)
			return ret;
		if (!fph_wanted(fph))
			return -ECANCELED;
		cond_resched();
	}
	return 0;
}

int fph_walk(struct fph *fph, unsigned int kind)
{
	unsigned long *map = NULL;
	unsigned long bits = 0;
	struct zone *zone;
	int nid, i;
	int ret = 0;

	if (kind == VIRTIO_FPH_WALK_LIST) {
		for_each_node_state(nid, N_MEMORY)
			for (i = 0; i < MAX_NR_ZONES; i++)
				bits = max(bits, NODE_DATA(nid)->node_zones[i].spanned_pages);
		map = kvcalloc(BITS_TO_LONGS(bits), sizeof(*map),
			       GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN);
		if (!map)
			kind = VIRTIO_FPH_WALK_PFN;
	}
	fph->stats.walk = kind;
	for_each_node_state(nid, N_MEMORY) {
		for (i = 0; i < MAX_NR_ZONES && !ret; i++) {
			zone = &NODE_DATA(nid)->node_zones[i];
			if (!populated_zone(zone))
				continue;
			if (map)
				ret = walk_lists(fph, zone, map, bits);
			else
				ret = walk_pfns(fph, zone);
		}
		if (ret)
			break;
	}
	kvfree(map);
	return ret;
}

/*
 * Memory that went offline may be pulled out next, and its page structs with
 * it. No new look finds it any more; wait for those that did.
 */
static int fph_memory_notify(struct notifier_block *nb, unsigned long action, void *arg)
{
	if (action == MEM_OFFLINE)
		synchronize_rcu();
	return NOTIFY_OK;
}

static struct notifier_block fph_memory_nb = { .notifier_call = fph_memory_notify };

int fph_walk_init(void)
{
	return register_memory_notifier(&fph_memory_nb);
}

void fph_walk_exit(void)
{
	unregister_memory_notifier(&fph_memory_nb);
}

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The tracer without its hooks: an object for each set of hooks is made of it,
 * as bpftool cannot leave out programs that a kernel refuses.
 *
 * A page is taken when a thread that is in a fault within a range allocates a
 * page that can be mapped: the allocation tells the size, and that the fault
 * did not only map what was there or the zero page. Bits are set before the
 * page is mapped, and cleared when memory was given back.
 */
#ifndef FPH_TRACER_BPF_H
#define FPH_TRACER_BPF_H

/* Kernel types come from vmlinux.h or vmlinux-min.h, by -include */
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "drift.bpf.h"
#include "fph_tracer.h"

/* The fault that a thread is in; addr 0: in none that counts */
struct pending {
	__u64 addr;
	__u64 ip;		/* where the program faulted, 0: the kernel did */
	struct fph_range range;
	__u32 cause;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, FPH_TARGETS_MAX);
	__type(key, __u32);
	__type(value, struct fph_target);
} fph_targets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, FPH_TOUCHED_WORDS);
	__type(key, __u32);
	__type(value, __u64);
} fph_touched SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, FPH_COUNTS_MAX);
	__type(key, struct fph_counts_key);
	__type(value, struct fph_counts);
} fph_counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, FPH_NSETTINGS);
	__type(key, __u32);
	__type(value, __u64);
} fph_settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, FPH_NDROPS);
	__type(key, __u32);
	__type(value, __u64);
} fph_drops SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct pending);
} fph_faults SEC(".maps");

char LICENSE[] SEC("license") = "GPL";

static __always_inline __u64 setting(__u32 which)
{
	__u64 *value = bpf_map_lookup_elem(&fph_settings, &which);

	return value ? *value : 0;
}

static __always_inline void dropped(__u32 why)
{
	__u64 *count = bpf_map_lookup_elem(&fph_drops, &why);

	if (count)
		__sync_fetch_and_add(count, 1);
}

static __always_inline struct fph_target *target_of(struct task_struct *task)
{
	__u32 tgid = task->tgid;

	return bpf_map_lookup_elem(&fph_targets, &tgid);
}

static __always_inline struct fph_target *current_target(void)
{
	return target_of(bpf_get_current_task_btf());
}

/*
 * The fault that the thread was in last, NULL if there was none. Who has no storage at
 * all pays for a look at that: these are all threads of all others.
 */
static __always_inline struct pending *pending_of(struct task_struct *task)
{
	if (!task->bpf_storage)
		return NULL;
	return bpf_task_storage_get(&fph_faults, task, NULL, 0);
}

static __always_inline bool paused(void)
{
	if (!setting(FPH_PAUSED))
		return false;
	dropped(FPH_DROP_PAUSED);
	return true;
}

/*
 * Functions that are not static are verified once, and not for each path that
 * leads to them.
 */
__noinline int fph_count(__u32 cause, __u64 pages)
{
	struct fph_counts_key key = { .tgid = bpf_get_current_pid_tgid() >> 32 };
	struct fph_counts *counts;

	if (!pages || cause >= FPH_NCAUSES)
		return 0;
	bpf_get_current_comm(key.comm, sizeof(key.comm));
	counts = bpf_map_lookup_elem(&fph_counts, &key);
	if (!counts) {
		struct fph_counts none = {};

		/* Fails too if another thread of that name was faster */
		bpf_map_update_elem(&fph_counts, &key, &none, BPF_NOEXIST);
		counts = bpf_map_lookup_elem(&fph_counts, &key);
	}
	if (!counts) {
		dropped(FPH_DROP_COUNTS);
		return 0;
	}
	__sync_fetch_and_add(&counts->pages[cause], pages);
	__sync_fetch_and_add(&counts->events[cause], 1);
	return 0;
}

/* Less than 64, as shifts want it */
static __always_inline __u32 page_shift(const struct fph_range *range)
{
	return range->page_shift ? range->page_shift & 63 : FPH_PAGE_SHIFT;
}

/* The range that holds @addr */
static __always_inline struct fph_range *
find_range(struct fph_target *target, __u64 addr)
{
	for (__u32 i = 0; i < FPH_MAX_RANGES && i < target->nranges; i++) {
		struct fph_range *range = &target->range[i];

		if (addr >= range->start && addr < range->end)
			return range;
	}
	return NULL;
}

/* Bits [first, last) are set or cleared; @changed counts those that were not */
struct bits {
	__u64 first;
	__u64 last;
	__u64 changed;
	bool set;
};

static long change_word(__u64 i, struct bits *bits)
{
	__u64 index = (bits->first >> 6) + i;
	__u64 mask = ~0ull, old;
	__u32 key = index;
	__u64 *word;

	if (index == bits->first >> 6)
		mask <<= bits->first & 63;
	if (index == bits->last >> 6)
		mask &= (1ull << (bits->last & 63)) - 1;
	word = bpf_map_lookup_elem(&fph_touched, &key);
	if (!word || key != index) {
		dropped(FPH_DROP_BITS);
		return 1;
	}
	/* Most words have nothing to change: leave their cache lines alone */
	old = *(volatile __u64 *)word;
	if (!(bits->set ? mask & ~old : mask & old))
		return 0;
	if (bits->set)
		mask &= ~__sync_fetch_and_or(word, mask);
	else
		mask &= __sync_fetch_and_and(word, ~mask);
	bits->changed += __builtin_popcountll(mask);
	return 0;
}

static __always_inline __u64 change_bits(__u64 first, __u64 last, bool set)
{
	struct bits bits = { .first = first, .last = last, .set = set };

	if (first >= last)
		return 0;
	if (first >> 6 == last >> 6)
		change_word(0, &bits);
	else
		bpf_loop(((last + 63) >> 6) - (first >> 6), change_word, &bits, 0);
	return bits.changed;
}

/*
 * Addresses [start, end) got memory. Returns how many pages that are new; with
 * grains above the page size, all of them.
 */
__noinline __u64 fph_take(struct fph_range *range, __u64 start, __u64 end)
{
	__u64 base, changed;
	__u32 shift, page;

	if (!range)
		return 0;
	shift = range->shift & 63;
	page = page_shift(range);
	base = range->bit - (range->start >> shift);
	if (start < range->start)
		start = range->start;
	if (end > range->end)
		end = range->end;
	if (start >= end)
		return 0;
	changed = change_bits(base + (start >> shift),
			      base + ((end - 1) >> shift) + 1, true);
	return shift == page ? changed : (end - start) >> page;
}

/*
 * Addresses [start, end) lost theirs. Returns how many pages had any; grains
 * above the page size are taken as whole.
 */
__noinline __u64 fph_give_back(struct fph_range *range, __u64 start, __u64 end)
{
	__u64 max = setting(FPH_CLEAR_MAX);
	__u64 base, first, last;
	__u32 shift, page;

	if (!range)
		return 0;
	shift = range->shift & 63;
	page = page_shift(range);
	base = range->bit - (range->start >> shift);
	if (start < range->start)
		start = range->start;
	if (end > range->end)
		end = range->end;
	if (start >= end)
		return 0;
	first = base + ((start + (1ull << shift) - 1) >> shift);
	last = base + (end >> shift);
	/* A loop that nothing interrupts must end soon */
	if (!max)
		max = 1ull << 24;
	if (last > first && last - first > max) {
		dropped(FPH_DROP_CLEAR);
		last = first + max;
	}
	return change_bits(first, last, false) << ((shift - page) & 63);
}

/* A read at @addr, which has never been taken, got the zero page */
static __always_inline void zero_mapped(struct fph_range *range, __u64 addr)
{
	__u32 shift = range->shift & 63;
	__u64 bit = range->bit + (addr >> shift) - (range->start >> shift), *word;
	__u32 key = bit >> 6;

	if (range->flags & FPH_RANGE_SHARED)
		return;
	word = bpf_map_lookup_elem(&fph_touched, &key);
	/* It was swapped out, or is there, for all that is known */
	if (word && *word >> (bit & 63) & 1)
		return;
	fph_count(FPH_ZERO, 1);
}

/*
 * The thread faults at @addr in @range, or elsewhere; @ip is where, or 0. What
 * it allocates is for that, and @cause is why.
 */
static __always_inline int
fault(struct fph_range *range, __u64 addr, __u64 ip, __u32 cause)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pending *pending;

	/*
	 * Whatever the thread allocates in a fault elsewhere is not for the fault
	 * it was in before. A read of private memory counts as others do: where
	 * there is no zero page, or no huge one, it gets memory.
	 */
	if (!range) {
		pending = pending_of(task);
		if (pending)
			pending->addr = 0;
		return 0;
	}
	pending = bpf_task_storage_get(&fph_faults, task, NULL,
				       BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!pending) {
		dropped(FPH_DROP_FAULT);
		return 0;
	}
	pending->addr = addr;
	pending->ip = ip;
	pending->range = *range;
	pending->cause = cause;
	return 0;
}

/* It allocated 2^@order pages for it */
static __always_inline int fault_takes(struct pending *pending, __u32 order)
{
	__u64 size = 1ull << page_shift(&pending->range) << (order & 31);
	__u64 addr = pending->addr, at = addr;

	/* It begins at a multiple of its size: in memory, or in the file */
	if (pending->range.flags & FPH_RANGE_SHARED)
		at = pending->range.offset + (addr - pending->range.start);
	addr -= at & (size - 1);
	pending->addr = 0;
	fph_count(pending->cause, fph_take(&pending->range, addr, addr + size));
	return 0;
}

enum { IN_PRIVATE = 1, IN_SHARED = 2 };

/*
 * [start, end) was discarded or populated, up to the end of the page that ends it;
 * @kinds of ranges are concerned
 */
static int change_ranges(struct fph_target *target, __u64 start, __u64 end,
			 __u32 cause, __u32 kinds)
{
	__u64 pages = 0;

	for (__u32 i = 0; i < FPH_MAX_RANGES && i < target->nranges; i++) {
		struct fph_range *range = &target->range[i];
		__u64 page = 1ull << page_shift(range);
		__u64 to = (end + page - 1) & -page;

		if (!(kinds & (range->flags & FPH_RANGE_SHARED ? IN_SHARED : IN_PRIVATE)))
			continue;
		if (cause == FPH_POPULATE)
			pages += fph_take(range, start, to);
		else
			pages += fph_give_back(range, start, to);
	}
	fph_count(cause, pages);
	return 0;
}

/* A hole of @len bytes at @offset of a file, whose inode is @ino of @dev */
static __always_inline int
punched(struct fph_target *target, __u64 ino, __u32 dev, __u64 offset, __u64 len, __u32 cause)
{
	__u64 pages = 0;

	for (__u32 i = 0; i < FPH_MAX_RANGES && i < target->nranges; i++) {
		struct fph_range *range = &target->range[i];
		__u64 start = range->start + offset - range->offset;

		if (!(range->flags & FPH_RANGE_SHARED) ||
		    range->ino != ino || range->dev != dev)
			continue;
		if (offset + len <= range->offset)
			continue;
		if (offset < range->offset)
			start = range->start;
		pages += fph_give_back(range, start,
				   range->start + offset + len - range->offset);
	}
	fph_count(cause, pages);
	return 0;
}

/*
 * madvise() has succeeded. @all: nothing else tells which private memory was unmapped,
 * and where there are holes
 */
static __always_inline int
advised(struct fph_target *target, __u64 start, __u64 end, int advice, bool all)
{
	switch (advice) {
	case ADV_DONTNEED:
	case ADV_DONTNEED_LOCKED:
		if (!all)
			return 0;
		return change_ranges(target, start, end, FPH_MADVISE, IN_PRIVATE);
	case ADV_REMOVE:
		if (!all)
			return 0;
		return change_ranges(target, start, end, FPH_MADVISE, IN_SHARED);
	case ADV_POPULATE_READ:
		return change_ranges(target, start, end, FPH_POPULATE, IN_SHARED);
	case ADV_POPULATE_WRITE:
	case ADV_COLLAPSE:
		return change_ranges(target, start, end, FPH_POPULATE,
				     IN_PRIVATE | IN_SHARED);
	}
	return 0;
}

/* Errors are the last page of all numbers, addresses are below */
static __always_inline bool failed(long ret)
{
	return (__u64)ret >= -4095ull;
}

static long forget_counts(struct bpf_map *map, struct fph_counts_key *key,
			  struct fph_counts *counts, __u32 *tgid)
{
	if (key->tgid == *tgid)
		bpf_map_delete_elem(map, key);
	return 0;
}

/* The process ends, or runs another program; its bits are left as they are */
static __always_inline int forget(__u32 tgid)
{
	struct fph_target *target = bpf_map_lookup_elem(&fph_targets, &tgid);

	if (!target)
		return 0;
	if (target->flags & FPH_TARGET_KEEP) {
		target->nranges = 0;
		return 0;
	}
	bpf_map_delete_elem(&fph_targets, &tgid);
	bpf_for_each_map_elem(&fph_counts, forget_counts, &tgid, 0);
	return 0;
}

#endif

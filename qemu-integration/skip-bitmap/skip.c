/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include <fph/skip.h>

#include "../../host-scan/sized.h"

#define WORD_BITS	(sizeof(unsigned long) * CHAR_BIT)

/* More pages than an address space of 64 bits has */
#define MAX_PAGES	(UINT64_C(1) << 52)

/*
 * One plane of bits per reason; a page is skipped if any plane has its bit.
 * Planes are written under the caller's lock only, but read at any time, as
 * are the counters: hence relaxed atomics, which cost nothing.
 */
_Static_assert(FPH_REASON_MAX <= FPH_SKIP_REASONS, "reasons fit into struct fph_skip_counts");

struct fph_skip {
	uint64_t npages;
	bool dry_run;
	uint64_t skipped;
	uint64_t resent;
	uint64_t reason[FPH_REASON_MAX];
	uint64_t both;
	unsigned long *planes[FPH_REASON_MAX];
};

static unsigned long get_word(const unsigned long *p)
{
	return __atomic_load_n(p, __ATOMIC_RELAXED);
}

/* A word that stays as it is is not written: it may have no memory yet */
static void set_word(unsigned long *p, unsigned long old, unsigned long new)
{
	if (old != new)
		__atomic_store_n(p, new, __ATOMIC_RELAXED);
}

static void add(uint64_t *counter, int64_t n)
{
	if (n)
		__atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
}

static unsigned int weight(unsigned long w)
{
	return __builtin_popcountl(w);
}

static unsigned long host_word(const struct fph_skip *k, uint64_t w)
{
	return get_word(&k->planes[FPH_UNMAPPED][w]) |
	       get_word(&k->planes[FPH_ZERO_MAPPED][w]) |
	       get_word(&k->planes[FPH_ZERO_CONTENT][w]);
}

static unsigned long guest_word(const struct fph_skip *k, uint64_t w)
{
	return get_word(&k->planes[FPH_FREE][w]);
}

static unsigned long skipped_word(const struct fph_skip *k, uint64_t w)
{
	return host_word(k, w) | guest_word(k, w);
}

static unsigned long both_word(const struct fph_skip *k, uint64_t w)
{
	return host_word(k, w) & guest_word(k, w);
}

static unsigned long guest_only_word(const struct fph_skip *k, uint64_t w)
{
	return guest_word(k, w) & ~host_word(k, w);
}

/* Bits of word @w that are pages of [start, end) */
static unsigned long word_mask(uint64_t w, uint64_t start, uint64_t end)
{
	unsigned long mask = ~0UL;

	if (w == start / WORD_BITS)
		mask &= ~0UL << start % WORD_BITS;
	if (w == end / WORD_BITS)
		mask &= ~(~0UL << end % WORD_BITS);
	return mask;
}

int fph_skip_new(struct fph_skip **ret, uint64_t npages)
{
	struct fph_skip *k;
	uint64_t words;

	if (!npages || npages > MAX_PAGES)
		return -EINVAL;
	words = (npages + WORD_BITS - 1) / WORD_BITS;
	if (words > SIZE_MAX / sizeof(unsigned long))
		return -ENOMEM;

	k = calloc(1, sizeof(*k));
	if (!k)
		return -ENOMEM;
	k->npages = npages;
	for (int i = 0; i < FPH_REASON_MAX; i++) {
		/* Fresh from the kernel when large: zero without being touched */
		k->planes[i] = calloc(words, sizeof(unsigned long));
		if (!k->planes[i]) {
			fph_skip_free(k);
			return -ENOMEM;
		}
	}
	*ret = k;
	return 0;
}

void fph_skip_set_dry_run(struct fph_skip *k)
{
	k->dry_run = true;
}

void fph_skip_free(struct fph_skip *k)
{
	if (!k)
		return;
	for (int i = 0; i < FPH_REASON_MAX; i++)
		free(k->planes[i]);
	free(k);
}

/* Take pages @hit, all of them skipped, of word @w out of all planes */
static void forget(struct fph_skip *k, uint64_t w, unsigned long hit)
{
	add(&k->both, -(int64_t)weight(both_word(k, w) & hit));
	for (int i = 0; i < FPH_REASON_MAX; i++) {
		unsigned long old = get_word(&k->planes[i][w]);

		set_word(&k->planes[i][w], old, old & ~hit);
		add(&k->reason[i], -(int64_t)weight(old & hit));
	}
	add(&k->skipped, -(int64_t)weight(hit));
	add(&k->resent, weight(hit));
}

static unsigned int skip_word(struct fph_skip *k, unsigned long *dirty,
			      uint64_t w, unsigned long mask,
			      enum fph_reason why)
{
	unsigned long *plane = &k->planes[why][w];
	unsigned long hit = dirty[w] & mask;
	unsigned long again, both, old, new;

	/* Skipped before and dirty again: what was known then is void */
	again = hit & skipped_word(k, w);
	if (k->dry_run)
		hit &= ~again;	/* dirty still, for all that is known here */
	else if (again)
		forget(k, w, again);

	both = both_word(k, w);
	old = get_word(plane);
	new = old | hit | (skipped_word(k, w) & mask);
	set_word(plane, old, new);
	add(&k->both, weight(both_word(k, w) & ~both));
	add(&k->reason[why], weight(new & ~old));
	add(&k->skipped, weight(hit));
	if (!hit || k->dry_run)
		return 0;
	dirty[w] &= ~hit;
	return weight(hit);
}

/* Dirty pages in [start, end); 0 unless this is a debug build */
static uint64_t debug_weight(const unsigned long *dirty, uint64_t start,
			     uint64_t end)
{
	uint64_t n = 0;

#ifdef FPH_DEBUG
	for (uint64_t w = start / WORD_BITS; w <= (end - 1) / WORD_BITS; w++)
		n += weight(dirty[w] & word_mask(w, start, end));
#endif
	return n;
}

static void debug_conserved(uint64_t before, uint64_t after, uint64_t cleared)
{
#ifdef FPH_DEBUG
	assert(before - after == cleared);
#endif
}

uint64_t fph_skip_range(struct fph_skip *k, unsigned long *dirty,
			uint64_t start, uint64_t n, enum fph_reason why)
{
	uint64_t cleared = 0;
	uint64_t before, end;

	if ((unsigned int)why >= FPH_REASON_MAX)
		return 0;
	if (!n || start > k->npages || n > k->npages - start)
		return 0;

	end = start + n;
	before = debug_weight(dirty, start, end);
	for (uint64_t w = start / WORD_BITS; w <= (end - 1) / WORD_BITS; w++)
		cleared += skip_word(k, dirty, w, word_mask(w, start, end), why);
	debug_conserved(before, debug_weight(dirty, start, end), cleared);
	return cleared;
}

uint64_t fph_skip_revoke(struct fph_skip *k, const unsigned long *dirty,
			 uint64_t start, uint64_t n)
{
	uint64_t revoked = 0;
	uint64_t end;

	if (!n || start >= k->npages)
		return 0;
	end = n > k->npages - start ? k->npages : start + n;

	for (uint64_t w = start / WORD_BITS; w <= (end - 1) / WORD_BITS; w++) {
		unsigned long again = dirty[w] & word_mask(w, start, end) &
				      skipped_word(k, w);

		if (again)
			forget(k, w, again);
		revoked += weight(again);
	}
	return revoked;
}

uint64_t fph_skip_restore(struct fph_skip *k, unsigned long *dirty)
{
	uint64_t restored = 0;

	fph_skip_revoke(k, dirty, 0, k->npages);
	for (uint64_t w = 0; w <= (k->npages - 1) / WORD_BITS; w++) {
		unsigned long left = skipped_word(k, w);

		if (left)
			dirty[w] |= left;
		restored += weight(left);
	}
	return restored;
}

static uint64_t get_words(const struct fph_skip *k, unsigned long *ret,
			  unsigned long (*word)(const struct fph_skip *, uint64_t))
{
	uint64_t n = 0;

	for (uint64_t w = 0; w <= (k->npages - 1) / WORD_BITS; w++) {
		unsigned long bits = word(k, w);

		set_word(&ret[w], ret[w], bits);
		n += weight(bits);
	}
	return n;
}

uint64_t fph_skip_get_host_zero(const struct fph_skip *k, unsigned long *ret)
{
	return get_words(k, ret, host_word);
}

uint64_t fph_skip_get_guest_only(const struct fph_skip *k, unsigned long *ret)
{
	return get_words(k, ret, guest_only_word);
}

unsigned int fph_skip_test(const struct fph_skip *k, uint64_t page)
{
	unsigned int reasons = 0;

	if (page >= k->npages)
		return 0;
	for (int i = 0; i < FPH_REASON_MAX; i++) {
		unsigned long w = get_word(&k->planes[i][page / WORD_BITS]);

		reasons |= (w >> page % WORD_BITS & 1) << i;
	}
	return reasons;
}

static uint64_t get_counter(const uint64_t *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

void fph_skip_get_counts(const struct fph_skip *k, struct fph_skip_counts *ret)
{
	struct fph_skip_counts c = {
		.skipped = get_counter(&k->skipped),
		.resent = get_counter(&k->resent),
		.both = get_counter(&k->both),
	};

	for (int i = 0; i < FPH_REASON_MAX; i++)
		c.reason[i] = get_counter(&k->reason[i]);

	/* Counters that only a newer caller knows read as 0 */
	fph_sized_out(ret, &c, sizeof(c));
}

int fph_skip_sink_fn(void *opaque, uint64_t start, uint64_t len,
		     enum fph_reason why)
{
	struct fph_skip_sink *sink = opaque;
	uint64_t mask = sink->align - 1;
	uint64_t end;

	if (len > UINT64_MAX - start || start > UINT64_MAX - mask)
		return 0;
	end = start + len;
	if (end > sink->limit)
		end = sink->limit;
	end &= ~mask;
	start = (start + mask) & ~mask;
	if (start >= end)
		return 0;

	sink->cleared += fph_skip_range(sink->skip, sink->dirty,
					start / sink->granule,
					(end - start) / sink->granule, why);
	return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <limits.h>

#include <fph/skip.h>

#include "fph-test.h"

#define BITS	(sizeof(unsigned long) * CHAR_BIT)

/*
 * The bitmap under test beside the same thing done page by page. Every step
 * is done on both and compares everything.
 */
struct pair {
	uint64_t npages;
	bool dry_run;
	struct fph_skip *k;
	unsigned long *dirty;
	/* reference */
	bool *ref_dirty;
	unsigned char *ref_why;
	uint64_t ref_resent;
};

static bool get_bit(const unsigned long *map, uint64_t n)
{
	return map[n / BITS] >> n % BITS & 1;
}

static void put_bit(unsigned long *map, uint64_t n, bool on)
{
	map[n / BITS] &= ~(1UL << n % BITS);
	map[n / BITS] |= (unsigned long)on << n % BITS;
}

static void pair_init(struct pair *p, uint64_t npages, bool dirty)
{
	*p = (struct pair){ .npages = npages };
	check_int(fph_skip_new(&p->k, npages), 0);
	/* no spare word: a sanitizer sees a step beyond the end */
	p->dirty = calloc((npages + BITS - 1) / BITS, sizeof(unsigned long));
	p->ref_dirty = calloc(npages, sizeof(bool));
	p->ref_why = calloc(npages, 1);
	check(p->dirty && p->ref_dirty && p->ref_why);
	memset(p->dirty, dirty ? 0xff : 0, (npages + BITS - 1) / BITS * sizeof(unsigned long));
	memset(p->ref_dirty, dirty, npages);
}

static void pair_free(struct pair *p)
{
	fph_skip_free(p->k);
	free(p->dirty);
	free(p->ref_dirty);
	free(p->ref_why);
}

static void pair_set_dirty(struct pair *p, uint64_t n, bool on)
{
	put_bit(p->dirty, n, on);
	p->ref_dirty[n] = on;
}

static void pair_check(struct pair *p)
{
	struct fph_skip_counts c = { .sz = sizeof(c) };
	uint64_t skipped = 0, both = 0, reason[FPH_REASON_MAX] = { 0 };
	uint64_t host_zero = 0;
	unsigned int guest = 1 << FPH_FREE;
	uint64_t bits = (p->npages + BITS - 1) / BITS * BITS;
	unsigned long *host = calloc(bits / BITS, sizeof(unsigned long));
	unsigned long *only = calloc(bits / BITS, sizeof(unsigned long));
	uint64_t n, got_guest_only, guest_only = 0;

	check(host && only);
	memset(host, 0x5a, bits / CHAR_BIT);
	memset(only, 0x5a, bits / CHAR_BIT);
	n = fph_skip_get_host_zero(p->k, host);
	got_guest_only = fph_skip_get_guest_only(p->k, only);
	for (uint64_t i = 0; i < p->npages; i++) {
		if (get_bit(p->dirty, i) != p->ref_dirty[i])
			fail_msg("dirty bit of page %ju", (uintmax_t)i);
		if (fph_skip_test(p->k, i) != p->ref_why[i])
			fail_msg("reasons of page %ju: %u, not %u", (uintmax_t)i,
				 fph_skip_test(p->k, i), p->ref_why[i]);
		check_int(get_bit(host, i), (p->ref_why[i] & ~guest) != 0);
		check_int(get_bit(only, i), p->ref_why[i] == guest);
		guest_only += p->ref_why[i] == guest;
		host_zero += (p->ref_why[i] & ~guest) != 0;
		skipped += p->ref_why[i] != 0;
		both += (p->ref_why[i] & guest) && (p->ref_why[i] & ~guest);
		for (int r = 0; r < FPH_REASON_MAX; r++)
			reason[r] += p->ref_why[i] >> r & 1;
	}
	check_int(n, host_zero);
	check_int(got_guest_only, guest_only);
	free(host);
	free(only);
	/* bits behind the last page belong to nobody */
	for (uint64_t i = p->npages; i < bits; i++)
		check_int(get_bit(p->dirty, i), get_bit(p->dirty, bits - 1));

	fph_skip_get_counts(p->k, &c);
	check_int(c.skipped, skipped);
	check_int(c.both, both);
	check_int(c.resent, p->ref_resent);
	for (int r = 0; r < FPH_REASON_MAX; r++)
		check_int(c.reason[r], reason[r]);
}

static void pair_skip(struct pair *p, uint64_t start, uint64_t n,
		      enum fph_reason why)
{
	uint64_t cleared = 0;
	bool inside = n && start <= p->npages && n <= p->npages - start &&
		      (unsigned int)why < FPH_REASON_MAX;

	for (uint64_t i = start; inside && i < start + n; i++) {
		if (p->dry_run) {
			if (p->ref_dirty[i] || p->ref_why[i])
				p->ref_why[i] |= 1 << why;
		} else if (p->ref_dirty[i]) {
			p->ref_resent += p->ref_why[i] != 0;
			p->ref_why[i] = 1 << why;
			p->ref_dirty[i] = false;
			cleared++;
		} else if (p->ref_why[i]) {
			p->ref_why[i] |= 1 << why;
		}
	}
	check_int(fph_skip_range(p->k, p->dirty, start, n, why), cleared);
}

static void pair_revoke(struct pair *p, uint64_t start, uint64_t n)
{
	uint64_t end = start >= p->npages ? start :
		       n > p->npages - start ? p->npages : start + n;
	uint64_t revoked = 0;

	for (uint64_t i = start; i < end; i++) {
		if (p->ref_dirty[i] && p->ref_why[i]) {
			p->ref_why[i] = 0;
			revoked++;
		}
	}
	p->ref_resent += revoked;
	check_int(fph_skip_revoke(p->k, p->dirty, start, n), revoked);
}

static void pair_restore(struct pair *p)
{
	uint64_t restored = 0;

	for (uint64_t i = 0; i < p->npages; i++) {
		if (p->ref_dirty[i]) {
			p->ref_resent += p->ref_why[i] != 0;
			p->ref_why[i] = 0;
		}
		restored += p->ref_why[i] != 0;
		p->ref_dirty[i] |= p->ref_why[i] != 0;
	}
	check_int(fph_skip_restore(p->k, p->dirty), restored);
}

struct range_row {
	const char *name;
	uint64_t npages;
	uint64_t start;
	uint64_t n;
};

static const struct range_row ranges[] = {
	{ "one page", 1, 0, 1 },
	{ "all of a short bitmap", 10, 0, 10 },
	{ "all of one word", BITS, 0, BITS },
	{ "all of two words", 2 * BITS, 0, 2 * BITS },
	{ "all of a size that is no multiple of a word", 3 * BITS + 5, 0, 3 * BITS + 5 },
	{ "last page of a word", 4 * BITS, BITS - 1, 1 },
	{ "first page of a word", 4 * BITS, BITS, 1 },
	{ "across a word's end", 4 * BITS, BITS - 1, 2 },
	{ "up to a word's end", 4 * BITS, 3, BITS - 3 },
	{ "from a word's start", 4 * BITS, BITS, BITS + 1 },
	{ "several words and parts of two", 9 * BITS, 7, 6 * BITS },
	{ "last page", 2 * BITS + 1, 2 * BITS, 1 },
	{ "last page of a whole word", 2 * BITS, 2 * BITS - 1, 1 },
	{ "no page", 10, 5, 0 },
	{ "no page at the end", 10, 10, 0 },
	{ "out of range: behind the end", 10, 10, 1 },
	{ "out of range: over the end", 10, 5, 6 },
	{ "out of range: in the last word", BITS, BITS / 2, BITS },
	{ "out of range: far away", 10, UINT64_MAX - 3, 2 },
	{ "out of range: overflows", 10, 5, UINT64_MAX - 2 },
	{ "out of range: overflows to the start", 10, UINT64_MAX, 2 },
};

static void check_range(void **state)
{
	const struct range_row *row = *state;
	struct pair p;

	pair_init(&p, row->npages, true);
	pair_check(&p);
	pair_skip(&p, row->start, row->n, FPH_UNMAPPED);
	pair_check(&p);
	/* again: nothing is counted twice */
	pair_skip(&p, row->start, row->n, FPH_UNMAPPED);
	pair_check(&p);
	pair_skip(&p, row->start, row->n, FPH_ZERO_MAPPED);
	pair_check(&p);
	pair_restore(&p);
	pair_check(&p);
	/* dirty again, all of it */
	for (uint64_t i = 0; i < p.npages; i++)
		pair_set_dirty(&p, i, true);
	pair_revoke(&p, row->start, row->n);
	pair_check(&p);
	pair_revoke(&p, 0, UINT64_MAX);
	pair_check(&p);
	pair_free(&p);
}

static void clean_pages_are_not_skipped(void **state)
{
	struct pair p;

	pair_init(&p, 200, false);
	pair_skip(&p, 0, 200, FPH_UNMAPPED);
	pair_check(&p);
	check_int(fph_skip_test(p.k, 0), 0);
	pair_set_dirty(&p, 63, true);
	pair_set_dirty(&p, 64, true);
	pair_skip(&p, 0, 200, FPH_UNMAPPED);
	pair_check(&p);
	pair_free(&p);
}

static void overlap_of_reasons(void **state)
{
	struct fph_skip_counts c = { .sz = sizeof(c) };
	struct pair p;

	pair_init(&p, 300, true);
	pair_skip(&p, 10, 100, FPH_UNMAPPED);
	pair_skip(&p, 60, 100, FPH_ZERO_MAPPED);
	pair_check(&p);
	fph_skip_get_counts(p.k, &c);
	check_int(c.skipped, 150);
	check_int(c.reason[FPH_UNMAPPED], 100);
	check_int(c.reason[FPH_ZERO_MAPPED], 100);
	check_int(fph_skip_test(p.k, 10), 1 << FPH_UNMAPPED);
	check_int(fph_skip_test(p.k, 60), 1 << FPH_UNMAPPED | 1 << FPH_ZERO_MAPPED);
	check_int(fph_skip_test(p.k, 159), 1 << FPH_ZERO_MAPPED);
	check_int(fph_skip_test(p.k, 160), 0);
	check_int(fph_skip_test(p.k, 300), 0);
	check_int(fph_skip_test(p.k, UINT64_MAX), 0);
	pair_free(&p);
}

static void dirty_again_voids_reasons(void **state)
{
	struct pair p;

	pair_init(&p, 100, true);
	pair_skip(&p, 0, 100, FPH_UNMAPPED);
	for (int i = 50; i < 70; i++)
		pair_set_dirty(&p, i, true);
	pair_skip(&p, 60, 20, FPH_ZERO_MAPPED);
	pair_check(&p);
	check_int(fph_skip_test(p.k, 65), 1 << FPH_ZERO_MAPPED);
	check_int(fph_skip_test(p.k, 75), 1 << FPH_UNMAPPED | 1 << FPH_ZERO_MAPPED);
	pair_revoke(&p, 0, 100);
	pair_check(&p);
	check_int(fph_skip_test(p.k, 55), 0);
	check_int(fph_skip_test(p.k, 65), 1 << FPH_ZERO_MAPPED);
	pair_free(&p);
}

/* Pages written since must not pass for pages that need not be read */
static void restore_forgets_dirty_pages(void **state)
{
	struct fph_skip_counts c = { .sz = sizeof(c) };
	struct pair p;

	pair_init(&p, 200, true);
	pair_skip(&p, 0, 150, FPH_FREE);
	pair_set_dirty(&p, 70, true);
	pair_restore(&p);
	pair_check(&p);
	check_int(fph_skip_test(p.k, 69), 1 << FPH_FREE);
	check_int(fph_skip_test(p.k, 70), 0);
	check_int(fph_skip_test(p.k, 150), 0);
	fph_skip_get_counts(p.k, &c);
	check_int(c.skipped, 149);
	check_int(c.resent, 1);
	for (uint64_t i = 0; i < 200; i++)
		check(get_bit(p.dirty, i));
	pair_free(&p);
}

static void unknown_reason(void **state)
{
	struct pair p;

	pair_init(&p, 100, true);
	pair_skip(&p, 0, 100, FPH_REASON_MAX);
	pair_skip(&p, 0, 100, (enum fph_reason)-1);
	pair_check(&p);
	pair_free(&p);
}

static void alternating(void **state)
{
	struct pair p;

	pair_init(&p, 5000, true);
	for (uint64_t i = 0; i < 5000; i += 2)
		pair_skip(&p, i, 1, FPH_UNMAPPED);
	pair_check(&p);
	pair_skip(&p, 0, 5000, FPH_ZERO_MAPPED);
	pair_check(&p);
	pair_free(&p);
}

/* xorshift: the same sequence everywhere */
static uint64_t rnd(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

static void random_steps(void **state)
{
	static const uint64_t sizes[] = { 1, 63, 64, 65, 127, 128, 1000, 4099 };
	uint64_t seed = UINT64_C(0x9e3779b97f4a7c15);

	for (size_t s = 0; s < ARRAY_SIZE(sizes); s++) {
		uint64_t size = sizes[s];
		struct pair p;

		pair_init(&p, size, true);
		for (int step = 0; step < 400; step++) {
			uint64_t start = rnd(&seed) % (size + 2);
			uint64_t n = rnd(&seed) % (size + 2);

			if (rnd(&seed) % 2)
				n %= 70;
			switch (rnd(&seed) % 5) {
			case 0:
			case 1:
				pair_skip(&p, start, n, rnd(&seed) % FPH_REASON_MAX);
				break;
			case 2:
				pair_revoke(&p, start, n);
				break;
			case 3:
				for (uint64_t i = start; i < size && i < start + n; i++)
					pair_set_dirty(&p, i, rnd(&seed) % 2);
				break;
			case 4:
				pair_restore(&p);
				break;
			}
			pair_check(&p);
		}
		pair_free(&p);
	}
}

/* The same, and the dirty bitmap stays as it is */
static void dry_run(void **state)
{
	uint64_t seed = 2;
	struct pair p;

	pair_init(&p, 5 * BITS + 7, true);
	fph_skip_set_dry_run(p.k);
	p.dry_run = true;

	/* Known twice in one epoch: not as if it had been dirtied in between */
	pair_skip(&p, 3, BITS, FPH_UNMAPPED);
	pair_skip(&p, BITS, BITS, FPH_FREE);
	pair_check(&p);
	check_int(p.ref_resent, 0);

	/* Sent, then dirtied: not before the next synchronization is it void */
	pair_set_dirty(&p, 3, false);
	pair_set_dirty(&p, 4, false);
	pair_set_dirty(&p, 4, true);
	pair_check(&p);
	pair_revoke(&p, 4, 1);
	pair_check(&p);
	check_int(p.ref_resent, 1);

	for (int i = 0; i < 2000; i++) {
		uint64_t start = rnd(&seed) % p.npages, n = rnd(&seed) % 100;

		switch (rnd(&seed) % 4) {
		case 0:
			pair_revoke(&p, start, n);
			break;
		case 1:
			pair_set_dirty(&p, start, rnd(&seed) % 2);
			break;
		default:
			pair_skip(&p, start, n, rnd(&seed) % FPH_REASON_MAX);
			break;
		}
		pair_check(&p);
	}
	pair_free(&p);
}

static void sizes(void **state)
{
	struct fph_skip *k = NULL;

	check_int(fph_skip_new(&k, 0), -EINVAL);
	check_int(fph_skip_new(&k, UINT64_MAX), -EINVAL);
	check_int(fph_skip_new(&k, (UINT64_C(1) << 52) + 1), -EINVAL);
	check(k == NULL);
	fph_skip_free(NULL);
}

/* Structs of older and newer callers */
static void counts_of_other_sizes(void **state)
{
	struct {
		struct fph_skip_counts c;
		uint64_t newer;
	} big = { .newer = 77 };
	struct fph_skip_counts c;
	struct pair p;

	pair_init(&p, 100, true);
	pair_skip(&p, 0, 9, FPH_UNMAPPED);

	big.c.sz = sizeof(big);
	fph_skip_get_counts(p.k, &big.c);
	check_int(big.c.sz, sizeof(big));
	check_int(big.c.skipped, 9);
	check_int(big.newer, 0);

	memset(&c, 0x55, sizeof(c));
	c.sz = offsetof(struct fph_skip_counts, resent);
	fph_skip_get_counts(p.k, &c);
	check_int(c.skipped, 9);
	check_int(c.resent, UINT64_C(0x5555555555555555));
	pair_free(&p);
}

struct sink_row {
	const char *name;
	uint64_t granule;
	uint64_t align;
	uint64_t limit;
	uint64_t start;
	uint64_t len;
	uint64_t first;		/* page, of 1024 */
	uint64_t pages;
};

static const struct sink_row sinks[] = {
	{ "as it is", 4096, 4096, 4 << 20, 8192, 12288, 2, 3 },
	{ "start rounds up", 4096, 4096, 4 << 20, 1, 8191, 1, 1 },
	{ "end rounds down", 4096, 4096, 4 << 20, 4096, 8191, 1, 1 },
	{ "too short", 4096, 4096, 4 << 20, 1, 4096, 0, 0 },
	{ "to the largest page size", 4096, 65536, 4 << 20, 4096, 262144, 16, 48 },
	{ "shorter than the largest page size", 4096, 65536, 4 << 20, 4096, 65536, 0, 0 },
	{ "to small target pages", 1024, 4096, 1 << 20, 4096, 8192, 4, 8 },
	{ "clamped to the limit", 4096, 4096, 40960, 32768, 4 << 20, 8, 2 },
	{ "limit in a page", 4096, 4096, 40959, 32768, 4 << 20, 8, 1 },
	{ "limit in a large page", 4096, 65536, 3 * 65536 - 1, 0, 4 << 20, 0, 32 },
	{ "behind the limit", 4096, 4096, 40960, 40960, 4096, 0, 0 },
	{ "limit beyond the bitmap", 4096, 4096, 8 << 20, 4190208, 8192, 0, 0 },
	{ "all", 4096, 4096, 4 << 20, 0, 4 << 20, 0, 1024 },
	{ "end overflows", 4096, 4096, UINT64_MAX, 8192, UINT64_MAX, 0, 0 },
	{ "rounding overflows", 4096, 4096, UINT64_MAX, UINT64_MAX - 10, 10, 0, 0 },
	{ "no length", 4096, 4096, 4 << 20, 4096, 0, 0, 0 },
};

static void check_sink(void **state)
{
	const struct sink_row *row = *state;
	struct fph_skip_sink sink;
	struct pair p;

	pair_init(&p, 1024, true);
	sink = (struct fph_skip_sink){
		.skip = p.k,
		.dirty = p.dirty,
		.granule = row->granule,
		.align = row->align,
		.limit = row->limit,
		.cleared = 1000,
	};
	check_int(fph_skip_sink_fn(&sink, row->start, row->len, FPH_UNMAPPED), 0);
	check_int(sink.cleared, 1000 + row->pages);
	for (uint64_t i = row->first; i < row->first + row->pages; i++) {
		p.ref_dirty[i] = false;
		p.ref_why[i] = 1 << FPH_UNMAPPED;
	}
	pair_check(&p);
	pair_free(&p);
}

int main(void)
{
	struct fph_tests t = { 0 };

	fph_test_add_rows(&t, ranges, check_range);
	fph_test_add(&t, "clean pages are not skipped", clean_pages_are_not_skipped, NULL);
	fph_test_add(&t, "overlap of reasons", overlap_of_reasons, NULL);
	fph_test_add(&t, "dirty again voids reasons", dirty_again_voids_reasons, NULL);
	fph_test_add(&t, "restore forgets dirty pages", restore_forgets_dirty_pages, NULL);
	fph_test_add(&t, "unknown reason", unknown_reason, NULL);
	fph_test_add(&t, "every other page", alternating, NULL);
	fph_test_add(&t, "random steps against the reference", random_steps, NULL);
	fph_test_add(&t, "dry run", dry_run, NULL);
	fph_test_add(&t, "sizes", sizes, NULL);
	fph_test_add(&t, "counts of other sizes", counts_of_other_sizes, NULL);
	fph_test_add_rows(&t, sinks, check_sink);
	return fph_test_run(&t, "skip");
}

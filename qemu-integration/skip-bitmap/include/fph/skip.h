/* SPDX-License-Identifier: LGPL-2.1-or-later */
/**
 * DOC: the skip bitmap of a RAM block
 *
 * Remembers which pages were taken out of a migration's dirty bitmap, and
 * why. It never holds a page that was not taken out, so counts are always the
 * weight of bits really cleared, never the length of ranges found.
 *
 * Bitmaps are arrays of unsigned long, bit (n % BITS_PER_LONG) of word
 * (n / BITS_PER_LONG) for page n, as in QEMU and Linux. The dirty bitmap is
 * the caller's, and so is the lock that protects it: hold it across each call
 * that is handed the bitmap.
 */
#ifndef FPH_SKIP_H
#define FPH_SKIP_H

#include <fph/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/** struct fph_skip - a skip bitmap, opaque. One thread at a time may change it;
 *  where a function says so, others may read it meanwhile. */
struct fph_skip;

/* Room for reasons to come, so that struct fph_skip_counts keeps its layout */
#define FPH_SKIP_REASONS	8

/**
 * struct fph_skip_counts - pages of a skip bitmap
 * @sz:      sizeof(struct fph_skip_counts)
 * @skipped: pages left out now, for any reason
 * @resent:  pages that had been left out and then were dirtied again
 * @reason:  pages left out now, by enum fph_reason; a page can have more than one
 * @both:    pages left out now for FPH_FREE and a host-zero reason as well
 */
struct fph_skip_counts {
	size_t sz;
	uint64_t skipped;
	uint64_t resent;
	uint64_t reason[FPH_SKIP_REASONS];
	uint64_t both;
};

/**
 * fph_skip_new() - make an empty skip bitmap
 * @ret:    the new bitmap, to be freed with fph_skip_free()
 * @npages: number of pages
 *
 * Memory is reserved for one bit per page and reason, and populated only
 * where pages are skipped.
 *
 * Return: 0, -EINVAL if @npages is 0 or absurd, or -ENOMEM. Since 0.1.
 */
FPH_API int fph_skip_new(struct fph_skip **ret, uint64_t npages);

/**
 * fph_skip_set_dry_run() - only remember what could be skipped
 * @k: the bitmap, still empty
 *
 * From now on fph_skip_range() changes no dirty bit and returns 0, but
 * remembers and counts pages as if it had. A page that is dirty and skipped
 * need not have been dirtied again, so a further reason voids no former one:
 * that is left to fph_skip_revoke(), after a synchronization. It also takes
 * back pages whose turn to be sent had not come by then. Since 0.1.
 */
FPH_API void fph_skip_set_dry_run(struct fph_skip *k);

/**
 * fph_skip_free() - free a skip bitmap
 * @k: the bitmap, or NULL
 *
 * Since 0.1.
 */
FPH_API void fph_skip_free(struct fph_skip *k);

/**
 * fph_skip_range() - take a range of pages out of a dirty bitmap
 * @k:     the skip bitmap
 * @dirty: dirty bitmap, at least as long as @k
 * @start: first page
 * @n:     number of pages
 * @why:   what is known of all of them
 *
 * Pages in the range whose dirty bit is clear are not skipped by this call:
 * they were sent or skipped before. A page that was skipped before gets the
 * further reason; if it is dirty again, its former reasons are void, as if
 * fph_skip_revoke() had been called.
 *
 * Return: number of dirty bits cleared, or 0 with nothing changed if the
 * range is not inside the bitmap. Since 0.1.
 */
FPH_API uint64_t fph_skip_range(struct fph_skip *k, unsigned long *dirty,
				uint64_t start, uint64_t n,
				enum fph_reason why);

/**
 * fph_skip_revoke() - forget skipped pages that are dirty again
 * @k:     the skip bitmap
 * @dirty: dirty bitmap, not changed
 * @start: first page
 * @n:     number of pages; what lies behind the bitmap is ignored
 *
 * To be called after the dirty bitmap was synchronized and before pages of
 * the range are sent.
 *
 * Return: number of pages forgotten; they are counted as resent. Since 0.1.
 */
FPH_API uint64_t fph_skip_revoke(struct fph_skip *k, const unsigned long *dirty,
				 uint64_t start, uint64_t n);

/**
 * fph_skip_restore() - make all pages due that are still left out
 * @k:     the skip bitmap
 * @dirty: dirty bitmap, at least as long as @k
 *
 * To be called after the dirty bitmap was synchronized. Pages that are dirty
 * already are forgotten first, as by fph_skip_revoke(): something was written
 * to them since. The others stay in the skip bitmap, so that fph_skip_test()
 * tells which of the pages that are due need not be read.
 *
 * Return: number of dirty bits set. Since 0.1.
 */
FPH_API uint64_t fph_skip_restore(struct fph_skip *k, unsigned long *dirty);

/**
 * fph_skip_get_host_zero() - which pages are skipped for a host-zero reason
 * @k:   the skip bitmap
 * @ret: bitmap as long as @k, overwritten; words that stay as they are, are
 *       not written
 *
 * Return: number of such pages. Since 0.1.
 */
FPH_API uint64_t fph_skip_get_host_zero(const struct fph_skip *k,
					unsigned long *ret);

/**
 * fph_skip_get_guest_only() - which pages are skipped for FPH_FREE alone
 * @k:   the skip bitmap
 * @ret: as for fph_skip_get_host_zero()
 *
 * Return: number of such pages. Since 0.1.
 */
FPH_API uint64_t fph_skip_get_guest_only(const struct fph_skip *k,
					 unsigned long *ret);

/**
 * fph_skip_test() - reasons for which a page is skipped
 * @k:    the skip bitmap
 * @page: page number
 *
 * May be called from any thread.
 *
 * Return: bit mask of (1 << enum fph_reason), 0 if the page is not skipped.
 * Since 0.1.
 */
FPH_API unsigned int fph_skip_test(const struct fph_skip *k, uint64_t page);

/**
 * fph_skip_get_counts() - read the counters
 * @k:   the skip bitmap
 * @ret: filled up to @ret->sz, which the caller sets
 *
 * May be called from any thread; each counter is exact, but they are not a
 * snapshot of one instant while another thread skips pages. Since 0.1.
 */
FPH_API void fph_skip_get_counts(const struct fph_skip *k,
				 struct fph_skip_counts *ret);

/**
 * struct fph_skip_sink - a skip bitmap as a sink, see fph_skip_sink_fn()
 * @skip:    the skip bitmap
 * @dirty:   dirty bitmap, protected by the caller's lock
 * @granule: bytes a page of both bitmaps stands for, a power of two
 * @align:   ranges are rounded inward to this, a power of two >= @granule: the
 *           largest of the page sizes of target, host and backing
 * @limit:   bytes in use; nothing at or beyond it is skipped
 * @cleared: number of dirty bits cleared so far, added to
 */
struct fph_skip_sink {
	struct fph_skip *skip;
	unsigned long *dirty;
	uint64_t granule;
	uint64_t align;
	uint64_t limit;
	uint64_t cleared;
};

/**
 * fph_skip_sink_fn() - the fph_sink_fn that feeds a struct fph_skip_sink
 * @opaque: a struct fph_skip_sink
 * @start:  first byte
 * @len:    bytes
 * @why:    what is known of them
 *
 * Rounds inward to @align, clamps to @limit, and takes what is left out of
 * the dirty bitmap. A range that overflows is ignored.
 *
 * Return: 0. Since 0.1.
 */
FPH_API int fph_skip_sink_fn(void *opaque, uint64_t start, uint64_t len,
			     enum fph_reason why);

#ifdef __cplusplus
}
#endif

#endif /* FPH_SKIP_H */

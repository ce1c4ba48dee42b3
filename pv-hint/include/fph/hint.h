/* SPDX-License-Identifier: LGPL-2.1-or-later */
/**
 * DOC: what the guest says about its free pages
 *
 * Host side of the protocol in <fph/virtio-fph.h>: hands out command ids,
 * checks each frame that comes back, and emits the free ranges in it. The
 * guest is not trusted: nothing of a frame is emitted unless all of it is
 * well-formed, and a report is finite. Whether an address is memory of the
 * guest is for the sink to say.
 */
#ifndef FPH_HINT_H
#define FPH_HINT_H

#include <fph/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/** struct fph_hint - commands to one guest and its answers, opaque. One thread
 *  at a time may use it. */
struct fph_hint;

/**
 * struct fph_hint_frame - what a frame was
 * @sz:        sizeof(struct fph_hint_frame), set by the caller
 * @id:        command id it answers
 * @pages:     free pages in it
 * @ranges:    ranges emitted, adjacent runs count as one
 * @last:      it ends the report
 * @aborted:   the guest did not look at all of its memory; only with @last
 * @walk_ns:   only with @last, like all that follows: the guest's walk, ns
 * @lock_ns:   longest time the guest held a zone lock, ns
 * @guest_pages:   pages that the guest says it reported
 * @guest_entries: runs of free pages that the guest says it found
 * @walk:      VIRTIO_FPH_WALK_*, as the guest says
 *
 * Figures from @walk_ns on are the guest's own words and may be anything.
 */
struct fph_hint_frame {
	size_t sz;
	uint32_t id;
	uint64_t pages;
	uint64_t ranges;
	bool last;
	bool aborted;
	uint64_t walk_ns;
	uint64_t lock_ns;
	uint64_t guest_pages;
	uint64_t guest_entries;
	uint32_t walk;
};

/**
 * fph_hint_new() - start without any command
 * @ret:     the new object, to be freed with fph_hint_free()
 * @last_id: id of the last command that this guest was given, 0 for none; its
 *           report is late, the next id follows it
 *
 * Return: 0 or -ENOMEM. Since 0.1.
 */
FPH_API int fph_hint_new(struct fph_hint **ret, uint32_t last_id);

/**
 * fph_hint_free() - free it
 * @h: the object, or NULL
 *
 * Since 0.1.
 */
FPH_API void fph_hint_free(struct fph_hint *h);

/**
 * fph_hint_request() - begin a new report; any former one is obsolete
 * @h:         the object
 * @max_pages: pages the guest has; a report of more, over all of its frames, is
 *             malformed
 *
 * Return: the command id, never 0. Ids ascend and wrap to 1. Since 0.1.
 */
FPH_API uint32_t fph_hint_request(struct fph_hint *h, uint64_t max_pages);

/**
 * fph_hint_stop() - nobody waits for the report any more
 * @h: the object
 *
 * Frames that still come are late, see fph_hint_feed(). Changes nothing if the
 * report has ended. Since 0.1.
 */
FPH_API void fph_hint_stop(struct fph_hint *h);

/**
 * fph_hint_last_id() - which command was the last one?
 * @h: the object
 *
 * Return: its id, 0 if there was none. Since 0.1.
 */
FPH_API uint32_t fph_hint_last_id(const struct fph_hint *h);

/**
 * fph_hint_feed() - check a frame and emit its free ranges
 * @h:      the object
 * @frame:  the frame, header and payload; of any alignment, and not changed by
 *          anybody meanwhile (a copy, not the guest's memory)
 * @len:    bytes
 * @sink:   receives the ranges: guest-physical bytes, whole pages of 4 KiB,
 *          FPH_FREE, ascending; not called unless the whole frame is well-formed
 * @opaque: passed to @sink
 * @ret:    filled up to @ret->sz when the result is 0
 * @why:    receives what is malformed, a static string for people; else NULL
 *
 * Return: 0; -ESTALE for a late frame, which answers an older command or one
 * that was stopped or has failed, and is to be ignored: it changes nothing;
 * -EBADMSG for one that no working driver sends (length, encoding, order,
 * overflow, a sequence number out of turn, more pages than there are, anything
 * after the last frame, an id that was never given out), whereupon the device
 * should be stopped; the sink's error, after which part of the frame was
 * emitted. The last two end the report: what still comes of it is late. Ids
 * wrap, so the 2^31 up to the last one pass for given out. Since 0.1.
 */
FPH_API int fph_hint_feed(struct fph_hint *h, const void *frame, size_t len,
			  fph_sink_fn sink, void *opaque,
			  struct fph_hint_frame *ret, const char **why);

/**
 * fph_balloon_decode() - check a frame of the balloon queue and emit its ranges
 * @frame:  the frame, header and runs; of any alignment, and not changed by
 *          anybody meanwhile (a copy, not the guest's memory)
 * @len:    bytes
 * @sink:   receives the ranges as fph_hint_feed() gives them; not called unless
 *          the whole frame is well-formed
 * @opaque: passed to @sink
 * @op:     receives VIRTIO_FPH_BALLOON_INFLATE or _DEFLATE when the result is 0
 * @pages:  receives how many pages are in it
 * @why:    receives what is malformed, a static string for people; else NULL
 *
 * Frames of the balloon stand alone, so nothing is kept between them.
 *
 * Return: 0; -EBADMSG for a frame that no working driver sends (length,
 * operation, number of runs, runs that overlap or descend, more than
 * VIRTIO_FPH_BALLOON_PAGES_MAX pages), whereupon the device should be stopped;
 * the sink's error, after which part of the frame was emitted. Since 0.1.
 */
FPH_API int fph_balloon_decode(const void *frame, size_t len, fph_sink_fn sink, void *opaque,
			       unsigned int *op, uint64_t *pages, const char **why);

/**
 * fph_virtio_balloon_unknown() - features of virtio-balloon that we do not know
 * @features: what device and driver agreed on, a bit each
 *
 * The stock balloon's free page hints mean what we think as long as we know all
 * that was agreed on: a feature that was made later may change what free pages
 * are trusted to hold. Known are MUST_TELL_HOST, STATS_VQ, DEFLATE_ON_OOM,
 * FREE_PAGE_HINT, PAGE_POISON and REPORTING (bits 0 to 5), and bits 24 to 41,
 * which are about rings and transports.
 *
 * Return: those of @features that are not known; 0 is well. Since 0.1.
 */
static inline uint64_t fph_virtio_balloon_unknown(uint64_t features)
{
	const uint64_t balloon = (UINT64_C(1) << 6) - 1;
	const uint64_t transport = (UINT64_C(1) << 42) - (UINT64_C(1) << 24);

	return features & ~(balloon | transport);
}

#ifdef __cplusplus
}
#endif

#endif /* FPH_HINT_H */

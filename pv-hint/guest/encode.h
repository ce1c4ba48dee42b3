/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef FPH_ENCODE_H
#define FPH_ENCODE_H

#include <linux/types.h>

#include <fph/virtio-fph.h>

/*
 * Makes frames of free pages, as few bytes of them as the encodings that the
 * device takes allow. All page frame numbers here count 4 KiB.
 */
struct fph_encoder {
	/*
	 * Sends what @payload begins with. The encoder then writes to @payload
	 * again, so this puts another buffer there. A negative errno ends it all.
	 */
	int (*send)(struct fph_encoder *e, unsigned int encoding, u32 count, u64 base);
	__le64 *payload;	/* two buffers of VIRTIO_FPH_PAYLOAD_MAX bytes */
	__le64 *spare;

	unsigned int encodings;	/* mask of (1 << VIRTIO_FPH_ENC_...) */
	u64 pages;		/* all that were added */
	u64 entries;		/* runs of them */

	/* The last run, which may grow */
	u64 run_pfn;
	u64 run_pages;

	/* The frame in the making */
	bool bitmap;
	unsigned int count;	/* runs, or words of the bitmap */
	u64 base;		/* its first page, rounded down to a word of bitmap */
	u64 end;		/* behind its last page */
};

/* Begins a report. @encodings has at least one bit that is known. */
void fph_encoder_start(struct fph_encoder *e, unsigned int encodings);

/* Adds free pages. They need not ascend, but each descent costs a frame. */
int fph_encoder_add(struct fph_encoder *e, u64 pfn, u64 pages);

/* Sends what is left. */
int fph_encoder_finish(struct fph_encoder *e);

#endif /* FPH_ENCODE_H */

// SPDX-License-Identifier: GPL-2.0-only
#include <linux/kernel.h>
#include <linux/string.h>

#include "encode.h"

#define WORD_BITS	64

void fph_encoder_start(struct fph_encoder *e, unsigned int encodings)
{
	e->encodings = encodings;
	e->pages = 0;
	e->entries = 0;
	e->run_pages = 0;
	e->count = 0;
	e->end = 0;
}

/* Words of a bitmap of the frame's pages */
static u64 bitmap_words(const struct fph_encoder *e)
{
	return DIV_ROUND_UP_ULL(e->end - e->base, WORD_BITS);
}

static void set_bits(__le64 *map, u64 first, u64 bits)
{
	while (bits) {
		unsigned int shift = first % WORD_BITS;
		unsigned int n = min_t(u64, bits, WORD_BITS - shift);

		map[first / WORD_BITS] |= cpu_to_le64((~0ULL >> (WORD_BITS - n)) << shift);
		first += n;
		bits -= n;
	}
}

/* Makes a bitmap of a frame of runs; it must fit a payload. */
static void to_bitmap(struct fph_encoder *e)
{
	unsigned int words = bitmap_words(e);
	unsigned int i;

	memset(e->spare, 0, words * sizeof(*e->spare));
	for (i = 0; i < e->count; i++) {
		u64 run = le64_to_cpu(e->payload[i]);

		set_bits(e->spare, VIRTIO_FPH_RUN_PFN(run) - e->base, VIRTIO_FPH_RUN_PAGES(run));
	}
	swap(e->payload, e->spare);
	e->bitmap = true;
	e->count = words;
}

static int send_frame(struct fph_encoder *e)
{
	int ret;

	if (!e->count)
		return 0;
	if (!e->bitmap && (e->encodings & (1 << VIRTIO_FPH_ENC_BITMAP)) &&
	    bitmap_words(e) < e->count)
		to_bitmap(e);
	if (e->bitmap)
		ret = e->send(e, VIRTIO_FPH_ENC_BITMAP, e->count * WORD_BITS, e->base);
	else
		ret = e->send(e, VIRTIO_FPH_ENC_RUNS, e->count, 0);
	e->count = 0;
	e->end = 0;
	return ret;
}

/* Puts the beginning of a run into the frame. Return: pages; 0 if it is full */
static u64 put_into_frame(struct fph_encoder *e, u64 pfn, u64 pages)
{
	unsigned int words;
	u64 n;

	if (!e->count) {
		e->bitmap = !(e->encodings & (1 << VIRTIO_FPH_ENC_RUNS));
		e->base = round_down(pfn, WORD_BITS);
	}
	if (!e->bitmap && e->count == VIRTIO_FPH_RUNS_MAX) {
		/* As a bitmap the same pages may leave room for more. */
		if (!(e->encodings & (1 << VIRTIO_FPH_ENC_BITMAP)) ||
		    bitmap_words(e) > VIRTIO_FPH_RUNS_MAX)
			return 0;
		to_bitmap(e);
	}
	if (!e->bitmap) {
		n = min_t(u64, pages, VIRTIO_FPH_RUN_PAGES_MAX);
		e->payload[e->count++] = cpu_to_le64(VIRTIO_FPH_RUN(pfn, n));
		e->end = pfn + n;
		return n;
	}
	if (pfn - e->base >= VIRTIO_FPH_BITS_MAX)
		return 0;
	n = min_t(u64, pages, e->base + VIRTIO_FPH_BITS_MAX - pfn);
	e->end = pfn + n;
	words = bitmap_words(e);
	memset(e->payload + e->count, 0, (words - e->count) * sizeof(*e->payload));
	e->count = words;
	set_bits(e->payload, pfn - e->base, n);
	return n;
}

static int put_run(struct fph_encoder *e)
{
	u64 pfn = e->run_pfn;
	u64 left = e->run_pages;
	int ret;

	if (!left)
		return 0;
	e->run_pages = 0;
	e->entries++;
	if (pfn < e->end) {
		ret = send_frame(e);
		if (ret)
			return ret;
	}
	while (left) {
		u64 n = put_into_frame(e, pfn, left);

		if (!n) {
			ret = send_frame(e);
			if (ret)
				return ret;
		}
		pfn += n;
		left -= n;
	}
	return 0;
}

int fph_encoder_add(struct fph_encoder *e, u64 pfn, u64 pages)
{
	int ret;

	e->pages += pages;
	if (e->run_pages && pfn == e->run_pfn + e->run_pages) {
		e->run_pages += pages;
		return 0;
	}
	ret = put_run(e);
	e->run_pfn = pfn;
	e->run_pages = pages;
	return ret;
}

int fph_encoder_finish(struct fph_encoder *e)
{
	int ret = put_run(e);

	if (ret)
		return ret;
	return send_frame(e);
}

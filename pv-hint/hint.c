/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../host-scan/sized.h"

#include <fph/hint.h>
#include <fph/virtio-fph.h>

_Static_assert(sizeof(struct virtio_fph_command) == 8, "command");
_Static_assert(sizeof(struct virtio_fph_report) == 24, "report");
_Static_assert(sizeof(struct virtio_fph_stats) == 40, "stats");
_Static_assert(sizeof(struct virtio_fph_config) == 16, "config");
_Static_assert(sizeof(struct virtio_fph_balloon) == 8, "balloon");

struct fph_hint {
	uint32_t last_id;
	bool open;		/* the report @last_id is wanted */
	bool complete;		/* its last frame has come */
	uint32_t next_seq;
	uint64_t pages_left;
};

/* A frame whose header makes sense, in the host's byte order */
struct frame {
	uint16_t encoding;
	uint16_t flags;
	uint32_t count;
	uint64_t base;
	const unsigned char *payload;
	size_t payload_len;
};

/* Where ranges go: the last one is kept back, it may grow */
struct emitter {
	fph_sink_fn sink;
	void *opaque;
	uint64_t start;
	uint64_t pages;
	uint64_t ranges;
};

static uint64_t get_le64(const unsigned char *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return le64toh(v);
}

int fph_hint_new(struct fph_hint **ret, uint32_t last_id)
{
	struct fph_hint *h = calloc(1, sizeof(*h));

	if (!h)
		return -ENOMEM;
	h->last_id = last_id;
	*ret = h;
	return 0;
}

void fph_hint_free(struct fph_hint *h)
{
	free(h);
}

uint32_t fph_hint_request(struct fph_hint *h, uint64_t max_pages)
{
	if (++h->last_id == 0)
		h->last_id = 1;
	h->open = true;
	h->complete = false;
	h->next_seq = 0;
	h->pages_left = max_pages;
	return h->last_id;
}

void fph_hint_stop(struct fph_hint *h)
{
	h->open = false;
}

uint32_t fph_hint_last_id(const struct fph_hint *h)
{
	return h->last_id;
}

static int emit_end(struct emitter *e)
{
	if (!e->pages)
		return 0;
	e->ranges++;
	return e->sink(e->opaque, e->start << VIRTIO_FPH_PFN_SHIFT,
		       e->pages << VIRTIO_FPH_PFN_SHIFT, FPH_FREE);
}

static int emit(struct emitter *e, uint64_t pfn, uint64_t pages)
{
	int ret;

	if (pfn == e->start + e->pages) {
		e->pages += pages;
		return 0;
	}
	ret = emit_end(e);
	if (ret)
		return ret;
	e->start = pfn;
	e->pages = pages;
	return 0;
}

/* Return: NULL, or what is wrong; *pages receives how many pages are free */
static const char *check_runs(const struct frame *f, uint64_t *pages)
{
	uint64_t end = 0, sum = 0;

	if (f->base)
		return "runs with a base";
	if (!f->count || f->count > VIRTIO_FPH_RUNS_MAX)
		return "bad number of runs";
	if (f->payload_len != f->count * sizeof(uint64_t))
		return "length does not fit the number of runs";
	for (uint32_t i = 0; i < f->count; i++) {
		uint64_t run = get_le64(f->payload + i * sizeof(uint64_t));

		if (VIRTIO_FPH_RUN_PFN(run) < end)
			return "runs overlap or do not ascend";
		end = VIRTIO_FPH_RUN_PFN(run) + VIRTIO_FPH_RUN_PAGES(run);
		sum += VIRTIO_FPH_RUN_PAGES(run);
	}
	*pages = sum;
	return NULL;
}

static int emit_runs(const struct frame *f, struct emitter *e)
{
	for (uint32_t i = 0; i < f->count; i++) {
		uint64_t run = get_le64(f->payload + i * sizeof(uint64_t));
		int ret = emit(e, VIRTIO_FPH_RUN_PFN(run), VIRTIO_FPH_RUN_PAGES(run));

		if (ret)
			return ret;
	}
	return emit_end(e);
}

static const char *check_bitmap(const struct frame *f, uint64_t *pages)
{
	uint64_t sum = 0;

	if (!f->count || f->count > VIRTIO_FPH_BITS_MAX || f->count % 64)
		return "bad number of bits";
	if (f->payload_len != f->count / 8)
		return "length does not fit the number of bits";
	if (f->base % 64)
		return "bitmap starts at an odd page";
	/* so that the range's end in bytes is a number; runs have 48 bits and cannot get there */
	if (f->base > (UINT64_MAX >> VIRTIO_FPH_PFN_SHIFT) - f->count)
		return "bitmap ends beyond all addresses";
	for (size_t i = 0; i < f->payload_len; i += sizeof(uint64_t))
		sum += __builtin_popcountll(get_le64(f->payload + i));
	if (!sum)
		return "empty bitmap";
	*pages = sum;
	return NULL;
}

static int emit_bitmap(const struct frame *f, struct emitter *e)
{
	for (size_t i = 0; i < f->payload_len; i += sizeof(uint64_t)) {
		uint64_t word = get_le64(f->payload + i);
		uint64_t pfn = f->base + i * 8;

		while (word) {
			unsigned int first = __builtin_ctzll(word);
			uint64_t rest = ~(word >> first);
			unsigned int n = rest ? __builtin_ctzll(rest) : 64;
			int ret = emit(e, pfn + first, n);

			if (ret)
				return ret;
			word = first + n < 64 ? word & (~UINT64_C(0) << (first + n)) : 0;
		}
	}
	return emit_end(e);
}

static const char *check_stats(const struct frame *f)
{
	if (!(f->flags & VIRTIO_FPH_REPORT_LAST))
		return "figures before the end of the report";
	if (f->count || f->base || f->payload_len != sizeof(struct virtio_fph_stats))
		return "malformed figures";
	return NULL;
}

static void read_stats(const struct frame *f, struct fph_hint_frame *ret)
{
	struct virtio_fph_stats stats;

	memcpy(&stats, f->payload, sizeof(stats));
	ret->last = true;
	ret->aborted = f->flags & VIRTIO_FPH_REPORT_ABORTED;
	ret->walk_ns = le64toh(stats.walk_ns);
	ret->lock_ns = le64toh(stats.lock_ns);
	ret->guest_pages = le64toh(stats.pages);
	ret->guest_entries = le64toh(stats.entries);
	ret->walk = le32toh(stats.walk);
}

static const char *check_frame(const struct frame *f, uint64_t *pages)
{
	*pages = 0;
	if (f->encoding != VIRTIO_FPH_ENC_STATS && f->flags)
		return "flag on a frame without figures";
	switch (f->encoding) {
	case VIRTIO_FPH_ENC_RUNS:
		return check_runs(f, pages);
	case VIRTIO_FPH_ENC_BITMAP:
		return check_bitmap(f, pages);
	case VIRTIO_FPH_ENC_STATS:
		return check_stats(f);
	}
	return "unknown encoding";
}

static int malformed(struct fph_hint *h, const char **why, const char *what)
{
	h->open = false;
	*why = what;
	return -EBADMSG;
}

int fph_hint_feed(struct fph_hint *h, const void *data, size_t len, fph_sink_fn sink,
		  void *opaque, struct fph_hint_frame *ret, const char **why)
{
	struct emitter e = { .sink = sink, .opaque = opaque };
	struct fph_hint_frame info = { 0 };
	struct virtio_fph_report header;
	const char *what;
	struct frame f;
	uint32_t id;
	int err = 0;

	*why = NULL;
	if (len < sizeof(header))
		return malformed(h, why, "frame is shorter than its header");
	memcpy(&header, data, sizeof(header));
	f = (struct frame){
		.encoding = le16toh(header.encoding),
		/* What is reserved says nothing. */
		.flags = le16toh(header.flags) &
			 (VIRTIO_FPH_REPORT_LAST | VIRTIO_FPH_REPORT_ABORTED),
		.count = le32toh(header.count),
		.base = le64toh(header.base),
		.payload = (const unsigned char *)data + sizeof(header),
		.payload_len = len - sizeof(header),
	};
	id = le32toh(header.id);

	/* Ids wrap: the last 2^31 of them count as given out */
	if (!id || !h->last_id || (int32_t)(h->last_id - id) < 0)
		return malformed(h, why, "id of no command");
	if (id == h->last_id && h->complete)
		return malformed(h, why, "frame behind the last one");
	if (id != h->last_id || !h->open)
		return -ESTALE;

	if (le32toh(header.seq) != h->next_seq)
		return malformed(h, why, "sequence number out of turn");
	what = check_frame(&f, &info.pages);
	if (what)
		return malformed(h, why, what);
	if (info.pages > h->pages_left)
		return malformed(h, why, "more free pages than pages");

	if (f.encoding == VIRTIO_FPH_ENC_RUNS)
		err = emit_runs(&f, &e);
	else if (f.encoding == VIRTIO_FPH_ENC_BITMAP)
		err = emit_bitmap(&f, &e);
	else
		read_stats(&f, &info);
	if (err) {
		h->open = false;
		return err;
	}
	h->next_seq++;
	h->pages_left -= info.pages;
	h->complete = info.last;
	info.id = id;
	info.ranges = e.ranges;
	fph_sized_out(ret, &info, sizeof(*ret));
	return 0;
}

static const char *check_balloon(const struct virtio_fph_balloon *header, const struct frame *f,
				 uint64_t *pages)
{
	uint16_t op = le16toh(header->op);
	const char *what;

	if (op != VIRTIO_FPH_BALLOON_INFLATE && op != VIRTIO_FPH_BALLOON_DEFLATE)
		return "unknown operation of the balloon";
	what = check_runs(f, pages);
	if (what)
		return what;
	if (*pages > VIRTIO_FPH_BALLOON_PAGES_MAX)
		return "too many pages in a frame";
	return NULL;
}

int fph_balloon_decode(const void *data, size_t len, fph_sink_fn sink, void *opaque,
		       unsigned int *op, uint64_t *pages, const char **why)
{
	struct emitter e = { .sink = sink, .opaque = opaque };
	struct virtio_fph_balloon header;
	uint64_t sum = 0;
	struct frame f;
	int ret;

	*why = "frame is shorter than its header";
	if (len < sizeof(header))
		return -EBADMSG;
	memcpy(&header, data, sizeof(header));
	f = (struct frame){
		.count = le32toh(header.count),
		.payload = (const unsigned char *)data + sizeof(header),
		.payload_len = len - sizeof(header),
	};
	*why = check_balloon(&header, &f, &sum);
	if (*why)
		return -EBADMSG;
	ret = emit_runs(&f, &e);
	if (ret)
		return ret;
	*op = le16toh(header.op);
	*pages = sum;
	return 0;
}

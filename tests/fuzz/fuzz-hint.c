/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target of the decoder of guest hints.
 *
 * An input is the id of the last command (4 bytes), then steps. The low two
 * bits of a step's first byte say which:
 *
 *	0  request; one byte: how many pages the guest has, see max_pages()
 *	1  stop
 *	2  frame; two bytes: its length; the frame
 *	3  the same, then two bytes: how often its last 8 bytes are repeated
 *
 * All numbers are little-endian. Bits 2 to 4 of a frame's first byte: which
 * call to the sink fails (0: none), bits 5 to 7: the frame's alignment. Its id
 * counts from the last command's, its sequence number from the one that is
 * due, so that few bytes lead behind these checks.
 *
 * Beside the decoder runs a model of which frames are wanted; what is emitted
 * is compared with what the frame says.
 */
#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include <fph/hint.h>
#include <fph/virtio-fph.h>

#include "fuzz.h"

#define PAGE		UINT64_C(4096)
#define STEPS_MAX	64	/* for speed: a frame may be large, where the input is not */
#define SINK_ERROR	(-ENOSPC)

struct input {
	const uint8_t *p;
	size_t len;
};

struct range {
	uint64_t pfn;
	uint64_t pages;
};

struct catch {
	struct range v[VIRTIO_FPH_BITS_MAX / 2];
	size_t n;
	size_t calls;
	size_t fail_at;
	size_t taken;		/* of v, by take() */
};

static struct catch catch;

struct model {
	struct fph_hint *h;
	uint32_t last_id;
	bool wanted;
	bool complete;
	uint32_t seq;
	uint64_t pages_left;
};

/* The next @n bytes, fewer at the end */
static struct input cut(struct input *in, size_t n)
{
	struct input ret = { in->p, n < in->len ? n : in->len };

	in->p += ret.len;
	in->len -= ret.len;
	return ret;
}

static uint64_t number(struct input in)
{
	uint64_t v = 0;

	for (size_t i = 0; i < in.len; i++)
		v |= (uint64_t)in.p[i] << 8 * i;
	return v;
}

static uint64_t max_pages(uint8_t byte)
{
	return byte & 0x80 ? UINT64_MAX >> (byte & 0x3f) : byte;
}

static int sink(void *opaque, uint64_t start, uint64_t len, enum fph_reason why)
{
	const struct range *before = catch.n ? &catch.v[catch.n - 1] : NULL;

	must(opaque == &catch);
	must(why == FPH_FREE);
	must(len && start % PAGE == 0 && len % PAGE == 0);
	must(len <= UINT64_MAX - start);
	/* ascending, apart, and as long as can be */
	must(!before || start / PAGE > before->pfn + before->pages);
	must(catch.n < sizeof(catch.v) / sizeof(catch.v[0]));
	if (++catch.calls == catch.fail_at)
		return SINK_ERROR;
	catch.v[catch.n++] = (struct range){ start / PAGE, len / PAGE };
	return 0;
}

/* Pages that the frame names, in order: they are the next that were emitted */
static void take(uint64_t pfn, uint64_t pages)
{
	struct range *r = &catch.v[catch.taken];

	must(catch.taken < catch.n && r->pfn == pfn && r->pages >= pages);
	r->pfn += pages;
	r->pages -= pages;
	catch.taken += !r->pages;
}

static void check_emitted(const struct virtio_fph_report *header, const unsigned char *payload)
{
	uint32_t count = le32toh(header->count);

	if (le16toh(header->encoding) == VIRTIO_FPH_ENC_RUNS) {
		for (uint32_t i = 0; i < count; i++) {
			uint64_t run = number((struct input){ payload + i * 8, 8 });

			take(run >> 16, (run & 0xffff) + 1);
		}
	} else if (le16toh(header->encoding) == VIRTIO_FPH_ENC_BITMAP) {
		for (uint32_t i = 0; i < count; i++)
			if (payload[i / 8] >> i % 8 & 1)
				take(le64toh(header->base) + i, 1);
	}
	must(catch.taken == catch.n);
}

static void feed(struct model *m, const unsigned char *frame, size_t len)
{
	struct fph_hint_frame info, untouched;
	struct virtio_fph_report header;
	const char *why = "not written";
	uint64_t pages = 0;
	uint32_t id = 0;
	int ret;

	memset(&untouched, 0x55, sizeof(untouched));
	untouched.sz = sizeof(untouched);
	info = untouched;
	ret = fph_hint_feed(m->h, frame, len, sink, &catch, &info, &why);

	must((ret == -EBADMSG) == (why != NULL));
	must(!ret || !memcmp(&info, &untouched, sizeof(info)));
	must(ret == 0 || ret == SINK_ERROR || !catch.calls);
	must((ret == SINK_ERROR) == (catch.fail_at && catch.calls == catch.fail_at));

	if (len >= sizeof(header)) {
		memcpy(&header, frame, sizeof(header));
		id = le32toh(header.id);
	}
	if (!id || !m->last_id || m->last_id - id >= UINT32_C(1) << 31) {
		must(ret == -EBADMSG);
		m->wanted = false;
	} else if (id != m->last_id) {
		must(ret == -ESTALE);
	} else if (m->complete) {
		must(ret == -EBADMSG);
	} else if (!m->wanted) {
		must(ret == -ESTALE);
	} else if (ret) {
		must(ret == -EBADMSG || ret == SINK_ERROR);
		m->wanted = false;
	} else {
		must(le32toh(header.seq) == m->seq);
		m->seq++;
		for (size_t i = 0; i < catch.n; i++)
			pages += catch.v[i].pages;
		must(info.sz == sizeof(info) && info.id == id);
		must(info.pages == pages && info.ranges == catch.n);
		must(pages <= m->pages_left);
		m->pages_left -= pages;
		/* a report is finite */
		must(info.last == !pages);
		must(!info.aborted || info.last);
		m->complete = info.last;
		check_emitted(&header, frame + sizeof(header));
	}
	must(fph_hint_last_id(m->h) == m->last_id);
}

static void step_frame(struct model *m, struct input *in, uint8_t step)
{
	struct input f = cut(in, number(cut(in, 2)));
	size_t repeat = (step & 3) == 3 && f.len >= 8 ? number(cut(in, 2)) : 0;
	size_t align = step >> 5, len;
	struct virtio_fph_report header;
	unsigned char *buf;

	/* just above the largest frame there may be */
	if (repeat > VIRTIO_FPH_PAYLOAD_MAX / 8)
		repeat = VIRTIO_FPH_PAYLOAD_MAX / 8;
	len = f.len + repeat * 8;
	/* no byte to spare, so that a sanitizer sees a step beyond the end */
	buf = malloc(align + len + !(align + len));
	must(buf);
	if (f.len)
		memcpy(buf + align, f.p, f.len);
	for (size_t i = 0; i < repeat; i++)
		memcpy(buf + align + f.len + i * 8, f.p + f.len - 8, 8);
	if (len >= sizeof(header)) {
		memcpy(&header, buf + align, sizeof(header));
		header.id = htole32(le32toh(header.id) + m->last_id);
		header.seq = htole32(le32toh(header.seq) + m->seq);
		memcpy(buf + align, &header, sizeof(header));
	}
	catch.n = catch.calls = catch.taken = 0;
	catch.fail_at = step >> 2 & 7;
	feed(m, buf + align, len);
	free(buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	struct model m = { .last_id = number(cut(&in, 4)) };

	must(!fph_hint_new(&m.h, m.last_id));
	for (int i = 0; i < STEPS_MAX && in.len; i++) {
		uint8_t step = number(cut(&in, 1));

		switch (step & 3) {
		case 0:
			m.pages_left = max_pages(number(cut(&in, 1)));
			m.last_id = m.last_id == UINT32_MAX ? 1 : m.last_id + 1;
			must(fph_hint_request(m.h, m.pages_left) == m.last_id);
			m.wanted = true;
			m.complete = false;
			m.seq = 0;
			break;
		case 1:
			fph_hint_stop(m.h);
			m.wanted = false;
			break;
		default:
			step_frame(&m, &in, step);
		}
	}
	fph_hint_free(m.h);
	return 0;
}

/* SPDX-License-Identifier: GPL-2.0-only */
/* The guest driver's encoder, compiled as it is, against the host's decoder. */
#include <endian.h>

#include <fph/hint.h>
#include <fph/virtio-fph.h>

#include "fph-test.h"
#include "encode.h"

#define RUNS		(1 << VIRTIO_FPH_ENC_RUNS)
#define BITMAP		(1 << VIRTIO_FPH_ENC_BITMAP)
#define GIB		UINT64_C(262144)	/* in pages */
#define PAGES		(4 * GIB)
#define PAYLOAD_WORDS	(VIRTIO_FPH_PAYLOAD_MAX / 8)

struct channel {
	struct fph_encoder encoder;
	struct fph_hint *hint;
	uint32_t id;
	uint32_t seq;
	uint32_t frames[2];			/* by encoding */
	uint64_t buffers[3][PAYLOAD_WORDS];	/* two the encoder's, one on its way */
	uint64_t *idle;
	unsigned char *seen;			/* a byte per page, from @base on */
	uint64_t base;
	bool broken;				/* sending fails */
};

static int mark(void *opaque, uint64_t start, uint64_t len, enum fph_reason why)
{
	struct channel *c = opaque;

	check(why == FPH_FREE);
	for (uint64_t pfn = start >> VIRTIO_FPH_PFN_SHIFT; len; pfn++, len -= 4096) {
		check(pfn - c->base < PAGES);
		c->seen[pfn - c->base]++;
	}
	return 0;
}

/* What the same pages would take as a bitmap, and as runs, in words */
static void sizes(const struct channel *c, unsigned int encoding, uint32_t count,
		  uint64_t *bitmap, uint64_t *runs)
{
	const uint64_t *p = (const uint64_t *)c->encoder.payload;

	*bitmap = *runs = 0;
	if (encoding == VIRTIO_FPH_ENC_RUNS) {
		uint64_t first = VIRTIO_FPH_RUN_PFN(le64toh(p[0]));
		uint64_t last = le64toh(p[count - 1]);

		last = VIRTIO_FPH_RUN_PFN(last) + VIRTIO_FPH_RUN_PAGES(last) - 1;
		*bitmap = last / 64 - first / 64 + 1;
		*runs = count;
	} else {
		bool was = false;

		*bitmap = count / 64;
		for (uint64_t i = 0; i < count; i++) {
			bool is = le64toh(p[i / 64]) >> i % 64 & 1;

			*runs += is && !was;
			was = is;
		}
	}
}

static int receive(struct fph_encoder *e, unsigned int encoding, u32 count, u64 base)
{
	struct channel *c = (struct channel *)e;
	struct fph_hint_frame info = { .sz = sizeof(info) };
	struct virtio_fph_report head = {
		.id = htole32(c->id),
		.encoding = htole16(encoding),
		.seq = htole32(c->seq),
		.count = htole32(count),
		.base = htole64(base),
	};
	size_t words = encoding == VIRTIO_FPH_ENC_RUNS ? count : count / 64;
	unsigned char frame[sizeof(head) + VIRTIO_FPH_PAYLOAD_MAX];
	uint64_t bitmap, runs, *payload;
	const char *why;

	if (c->broken)
		return -5;
	check(words <= PAYLOAD_WORDS);
	check(e->encodings & 1 << encoding);
	sizes(c, encoding, count, &bitmap, &runs);
	if (encoding == VIRTIO_FPH_ENC_RUNS)
		check(!(e->encodings & BITMAP) || runs <= bitmap);
	else
		check(!(e->encodings & RUNS) || bitmap <= runs);

	memcpy(frame, &head, sizeof(head));
	memcpy(frame + sizeof(head), e->payload, words * 8);
	check_int(fph_hint_feed(c->hint, frame, sizeof(head) + words * 8, mark, c, &info, &why), 0);
	c->seq++;
	c->frames[encoding]++;

	/* What comes back holds what was in it before, or worse. */
	payload = (uint64_t *)e->payload;
	e->payload = (__le64 *)c->idle;
	memset(e->payload, 0xa5, VIRTIO_FPH_PAYLOAD_MAX);
	c->idle = payload;
	return 0;
}

static void open_channel(struct channel *c, unsigned int encodings, uint64_t base)
{
	memset(c, 0, sizeof(*c));
	check_int(fph_hint_new(&c->hint, 0), 0);
	c->id = fph_hint_request(c->hint, PAGES);
	c->seen = calloc(PAGES, 1);
	check(c->seen);
	c->base = base;
	memset(c->buffers, 0xa5, sizeof(c->buffers));
	c->encoder.send = receive;
	c->encoder.payload = (__le64 *)c->buffers[0];
	c->encoder.spare = (__le64 *)c->buffers[1];
	c->idle = c->buffers[2];
	fph_encoder_start(&c->encoder, encodings);
}

static void close_channel(struct channel *c)
{
	fph_hint_free(c->hint);
	free(c->seen);
}

static void add(struct channel *c, uint64_t pfn, uint64_t pages)
{
	check_int(fph_encoder_add(&c->encoder, c->base + pfn, pages), 0);
}

static void finish(struct channel *c)
{
	check_int(fph_encoder_finish(&c->encoder), 0);
}

/* Every page of each of @n runs, @stride apart, and no other, was seen once. */
static void check_seen(const struct channel *c, uint64_t pfn, uint64_t pages, uint64_t stride,
		       uint64_t n)
{
	uint64_t sum = 0;

	for (uint64_t i = 0; i < PAGES; i++)
		sum += c->seen[i];
	check_int(sum, pages * n);
	for (uint64_t i = 0; i < n; i++)
		for (uint64_t j = 0; j < pages; j++)
			check_int(c->seen[pfn + i * stride + j], 1);
	check_int(c->encoder.pages, pages * n);
}

static const struct pattern {
	const char *name;
	unsigned int encodings;
	uint64_t pfn, pages, stride, n;
	unsigned int runs, bitmaps;		/* frames */
} patterns[] = {
	{ "nothing", RUNS | BITMAP, 0, 0, 0, 0, 0, 0 },
	{ "one page", RUNS | BITMAP, 77, 1, 1, 1, 1, 0 },
	{ "one page as a bitmap", BITMAP, 77, 1, 1, 1, 0, 1 },
	{ "the longest run", RUNS, 1, 65536, 1, 1, 1, 0 },
	{ "more than the longest run", RUNS | BITMAP, 1, 65537, 1, 1, 1, 0 },
	{ "3 GiB", RUNS | BITMAP, 5, 3 * GIB, 1, 1, 1, 0 },
	{ "3 GiB as bitmaps", BITMAP, 5, 3 * GIB, 1, 1, 0, 4 },
	{ "1 GiB as a bitmap", BITMAP, 64, GIB, 1, 1, 0, 1 },
	{ "as many runs as fit", RUNS, 0, 1, 100, 4096, 1, 0 },
	{ "one more", RUNS, 0, 1, 100, 4097, 2, 0 },
	{ "far apart", RUNS | BITMAP, 3, 1, 65, 16000, 4, 0 },
	{ "far apart as bitmaps", BITMAP, 3, 1, 65, 16000, 0, 4 },
	{ "every second page", RUNS | BITMAP, 1, 1, 2, GIB, 0, 2 },
	{ "every second page as runs", RUNS, 1, 1, 2, GIB, 64, 0 },
	{ "a few that are near", RUNS | BITMAP, 60, 1, 2, 20, 0, 1 },
	{ "two in a word", RUNS | BITMAP, 0, 1, 32, 4000, 0, 1 },
	{ "runs across words", RUNS | BITMAP, 0, 65, 66, 10000, 3, 0 },
	{ "runs across words, in little room", BITMAP, 0, 65, 66, 10000, 0, 3 },
};

static void check_pattern(void **state)
{
	const struct pattern *p = *state;
	struct channel c;

	open_channel(&c, p->encodings, 0);
	for (uint64_t i = 0; i < p->n; i++)
		add(&c, p->pfn + i * p->stride, p->pages);
	finish(&c);
	check_seen(&c, p->pfn, p->pages, p->stride, p->n);
	check_int(c.encoder.entries, p->n);
	check_int(c.frames[VIRTIO_FPH_ENC_RUNS], p->runs);
	check_int(c.frames[VIRTIO_FPH_ENC_BITMAP], p->bitmaps);
	close_channel(&c);
}

static void pieces_of_a_run(void **state)
{
	struct channel c;

	open_channel(&c, RUNS | BITMAP, 0);
	for (uint64_t pfn = 0; pfn < GIB; pfn += 1024)
		add(&c, pfn, 1024);
	finish(&c);
	check_seen(&c, 0, GIB, 1, 1);
	check_int(c.encoder.entries, 1);
	check_int(c.seq, 1);
	close_channel(&c);
}

/* Nodes may take turns in the address space. */
static void descending(void **state)
{
	unsigned int masks[] = { RUNS, BITMAP, RUNS | BITMAP };

	for (size_t i = 0; i < ARRAY_SIZE(masks); i++) {
		struct channel c;

		open_channel(&c, masks[i], 0);
		for (uint64_t pfn = 2 * GIB; pfn; pfn -= GIB / 2)
			add(&c, pfn, 100);
		finish(&c);
		check_seen(&c, GIB / 2, 100, GIB / 2, 4);
		check_int(c.seq, 4);
		close_channel(&c);
	}
}

/* The window of a bitmap begins with a free page, not where addresses are round. */
static void high_addresses(void **state)
{
	struct channel c;

	open_channel(&c, BITMAP, (UINT64_C(1) << 47) - PAGES);
	for (uint64_t i = 0; i < 1000; i++)
		add(&c, PAGES - 2 * (1000 - i), 1);
	finish(&c);
	check_seen(&c, PAGES - 2000, 1, 2, 1000);
	check_int(c.seq, 1);
	close_channel(&c);
}

/* An encoder whose report broke off starts the next one clean. */
static void broken_off(void **state)
{
	struct channel c;
	int ret = 0;

	open_channel(&c, RUNS, 0);
	c.broken = true;
	for (uint64_t pfn = 0; !ret && pfn < PAGES; pfn += 2)
		ret = fph_encoder_add(&c.encoder, pfn, 1);
	check_int(ret, -5);
	c.broken = false;
	fph_encoder_start(&c.encoder, RUNS);
	add(&c, 500, 3);
	finish(&c);
	check_seen(&c, 500, 3, 1, 1);
	close_channel(&c);
}

static uint64_t rnd(uint64_t *state, uint64_t n)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return (*state >> 11) % n;
}

/* Stretches of memory, each fragmented in its own way, some of it out of turn */
static void random_memory(void **state)
{
	uint64_t seed = 88172645463325252u;

	for (unsigned int round = 0; round < 60; round++) {
		unsigned char *want = calloc(PAGES, 1);
		uint64_t pages = 0, pfn = 0;
		struct channel c;

		check(want);
		open_channel(&c, 1 + rnd(&seed, 3), 0);
		while (pfn < PAGES) {
			uint64_t gap = 1ull << rnd(&seed, 18);
			uint64_t run = 1ull << rnd(&seed, 18);
			uint64_t n = 1 + rnd(&seed, 20000);

			if (!rnd(&seed, 4))
				pfn = rnd(&seed, PAGES);
			for (; n && pfn < PAGES; n--) {
				uint64_t len = 1 + rnd(&seed, run);

				if (pfn + len > PAGES)
					len = PAGES - pfn;
				/* Free pages are reported once. */
				for (uint64_t i = 0; i < len; i++)
					if (want[pfn + i])
						len = i;
				if (len) {
					memset(want + pfn, 1, len);
					add(&c, pfn, len);
					pages += len;
				}
				pfn += len + 1 + rnd(&seed, gap);
			}
		}
		finish(&c);
		check_mem(c.seen, want, PAGES);
		check_int(c.encoder.pages, pages);
		close_channel(&c);
		free(want);
	}
}

int main(void)
{
	struct fph_tests t = { 0 };

	fph_test_add_rows(&t, patterns, check_pattern);
	fph_test_add(&t, "pieces of a run", pieces_of_a_run, NULL);
	fph_test_add(&t, "descending", descending, NULL);
	fph_test_add(&t, "high addresses", high_addresses, NULL);
	fph_test_add(&t, "broken off", broken_off, NULL);
	fph_test_add(&t, "random memory", random_memory, NULL);
	return fph_test_run(&t, "encode");
}

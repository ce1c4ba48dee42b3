/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <endian.h>
#include <errno.h>

#include <fph/hint.h>
#include <fph/virtio-fph.h>

#include "fph-test.h"

#define PAGE		UINT64_C(4096)
#define WORDS_MAX	(VIRTIO_FPH_PAYLOAD_MAX / 8)
#define RUN(pfn, pages)	VIRTIO_FPH_RUN(pfn, pages)
#define RUNS		VIRTIO_FPH_ENC_RUNS
#define BITMAP		VIRTIO_FPH_ENC_BITMAP
#define STATS		VIRTIO_FPH_ENC_STATS
#define LAST		VIRTIO_FPH_REPORT_LAST
#define ABORTED		VIRTIO_FPH_REPORT_ABORTED
#define NO_BYTES	INT64_MIN	/* frame.extra: the frame is empty */

struct range {
	uint64_t pfn;
	uint64_t pages;
};

/* What the sink was given, and what it answers */
struct catch {
	struct range *v;
	size_t n;
	size_t room;
	size_t fail_at;		/* call, from 1 on; 0: never */
	int fail_with;
	size_t calls;
};

static int catch_sink(void *opaque, uint64_t start, uint64_t len, enum fph_reason why)
{
	struct catch *c = opaque;

	check(why == FPH_FREE);
	check(len && start % PAGE == 0 && len % PAGE == 0);
	check(len <= UINT64_MAX - start);
	if (++c->calls == c->fail_at)
		return c->fail_with;
	if (c->n == c->room) {
		c->room = c->room * 2 + 8;
		c->v = realloc(c->v, c->room * sizeof(*c->v));
		check(c->v);
	}
	c->v[c->n++] = (struct range){ start / PAGE, len / PAGE };
	return 0;
}

static void catch_free(struct catch *c)
{
	free(c->v);
	*c = (struct catch){ 0 };
}

/* A frame in the host's byte order */
struct frame {
	uint32_t id;
	uint16_t encoding;
	uint16_t flags;
	uint32_t seq;
	uint32_t count;
	uint64_t base;
	const uint64_t *payload;
	size_t words;
	int64_t extra;		/* bytes more, or fewer, than header and payload */
};

struct fed {
	int err;
	const char *why;
	struct fph_hint_frame info;
	bool filled;		/* info was written */
};

/*
 * The frame ends where the allocation does, so that a sanitizer sees a step
 * beyond it, and starts @offset bytes into it.
 */
static struct fed feed_at(struct fph_hint *h, const struct frame *f, struct catch *c, size_t offset)
{
	struct virtio_fph_report header = {
		.id = htole32(f->id),
		.encoding = htole16(f->encoding),
		.flags = htole16(f->flags),
		.seq = htole32(f->seq),
		.count = htole32(f->count),
		.base = htole64(f->base),
	};
	size_t whole = sizeof(header) + f->words * 8;
	size_t len = f->extra == NO_BYTES ? 0 : whole + f->extra;
	unsigned char *all = calloc(1, whole + 8);
	unsigned char *buf = malloc(offset + len);
	struct fph_hint_frame untouched;
	struct fed ret = { .why = "not written" };

	check(all && buf);
	memcpy(all, &header, sizeof(header));
	for (size_t i = 0; i < f->words; i++) {
		uint64_t word = htole64(f->payload[i]);

		memcpy(all + sizeof(header) + i * 8, &word, sizeof(word));
	}
	memcpy(buf + offset, all, len);

	memset(&untouched, 0x55, sizeof(untouched));
	untouched.sz = sizeof(untouched);
	ret.info = untouched;
	ret.err = fph_hint_feed(h, buf + offset, len, catch_sink, c, &ret.info, &ret.why);
	ret.filled = memcmp(&ret.info, &untouched, sizeof(untouched)) != 0;
	/* The contract, whatever the frame */
	check_int(ret.filled, ret.err == 0);
	check_int(ret.why != NULL, ret.err == -EBADMSG);
	if (!ret.err) {
		uint64_t pages = 0;

		for (size_t i = 0; i < c->n; i++)
			pages += c->v[i].pages;
		check_int(ret.info.sz, sizeof(ret.info));
		check_int(ret.info.id, f->id);
		check_int(ret.info.pages, pages);
		check_int(ret.info.ranges, c->n);
	} else if (!c->fail_at) {
		check_int(c->calls, 0);
	}
	free(all);
	free(buf);
	return ret;
}

static struct fed feed(struct fph_hint *h, const struct frame *f, struct catch *c)
{
	return feed_at(h, f, c, 0);
}

static struct fph_hint *hint_new(uint32_t last_id)
{
	struct fph_hint *h;

	check_int(fph_hint_new(&h, last_id), 0);
	check_int(fph_hint_last_id(h), last_id);
	return h;
}

/* A frame of one run; it is late, or taken */
static int feed_run(struct fph_hint *h, uint32_t id, uint32_t seq)
{
	const uint64_t run = RUN(1000 + seq, 1);
	const struct frame f = { id, RUNS, 0, seq, 1, 0, &run, 1 };
	struct catch c = { 0 };
	struct fed r = feed(h, &f, &c);

	catch_free(&c);
	return r.err;
}

/* One frame, the first of its report */

enum payload {
	AS_IS,
	ODD_PAGES,		/* @words runs of one page, none touches the next */
	LARGEST_RUNS,		/* @words runs of 65536 pages, each touches the next */
	ALL_ONES,
	EVERY_OTHER_BIT,
};

struct frame_row {
	const char *name;
	const char *why;	/* NULL: the frame is good */
	struct frame f;
	uint64_t word[4];
	struct range range[5];	/* if good */
	enum payload payload;
	uint64_t pages;		/* if good and not AS_IS: pages and ranges */
	uint64_t ranges;
	uint64_t max_pages;	/* 0: no limit */
};

#define BAD_RUNS	"bad number of runs"
#define LEN_RUNS	"length does not fit the number of runs"
#define ORDER		"runs overlap or do not ascend"
#define BAD_BITS	"bad number of bits"
#define LEN_BITS	"length does not fit the number of bits"
#define ODD_BASE	"bitmap starts at an odd page"
#define BEYOND		"bitmap ends beyond all addresses"
#define SHORT		"frame is shorter than its header"
#define FIGURES		"malformed figures"
#define TOO_MANY	"more free pages than pages"
#define PFN_END		(UINT64_C(1) << 52)	/* of 64 bits of address */

static const struct frame_row frame_rows[] = {
	{ "no bytes", SHORT, { .extra = NO_BYTES } },
	{ "one byte", SHORT, { .extra = -23 } },
	{ "header lacks a byte", SHORT, { .extra = -1 } },
	{ "header alone", BAD_RUNS, { 0 } },

	{ "unknown encoding", "unknown encoding", { .encoding = 3, .words = 1 }, { 1 } },
	{ "unknown encoding, largest", "unknown encoding", { .encoding = UINT16_MAX } },
	{ "reserved flags say nothing", NULL, { 0, RUNS, 0xfffc, 0, 1, 0, .words = 1 },
	  { RUN(5, 1) }, { { 5, 1 } } },
	{ "reserved flags are not LAST", "figures before the end of the report",
	  { 0, STATS, 0xfffc, .words = 5 } },
	{ "runs that are LAST", "flag on a frame without figures",
	  { 0, RUNS, LAST, 0, 1, 0, .words = 1 } },
	{ "bitmap that is ABORTED", "flag on a frame without figures",
	  { 0, BITMAP, ABORTED, 0, 64, 0, .words = 1 }, { 1 } },

	{ "runs: one page", NULL, { 0, RUNS, 0, 0, 1, 0, .words = 1 },
	  { RUN(7, 1) }, { { 7, 1 } } },
	{ "runs: page 0", NULL, { 0, RUNS, 0, 0, 1, 0, .words = 1 },
	  { RUN(0, 1) }, { { 0, 1 } } },
	{ "runs: one of 65536 pages", NULL, { 0, RUNS, 0, 0, 1, 0, .words = 1 },
	  { RUN(0, 65536) }, { { 0, 65536 } } },
	{ "runs: the last there can be", NULL, { 0, RUNS, 0, 0, 1, 0, .words = 1 },
	  { UINT64_MAX }, { { (UINT64_C(1) << 48) - 1, 65536 } } },
	{ "runs: apart", NULL, { 0, RUNS, 0, 0, 3, 0, .words = 3 },
	  { RUN(1, 2), RUN(4, 1), RUN(900, 9) }, { { 1, 2 }, { 4, 1 }, { 900, 9 } } },
	{ "runs: adjacent ones are one range", NULL, { 0, RUNS, 0, 0, 4, 0, .words = 4 },
	  { RUN(1, 2), RUN(3, 1), RUN(4, 6), RUN(11, 1) }, { { 1, 9 }, { 11, 1 } } },
	{ "runs: adjacent at the end", NULL, { 0, RUNS, 0, 0, 3, 0, .words = 3 },
	  { RUN(1, 1), RUN(3, 1), RUN(4, 1) }, { { 1, 1 }, { 3, 2 } } },
	{ "runs: most, apart", NULL, { 0, RUNS, 0, 0, VIRTIO_FPH_RUNS_MAX, 0, .words = WORDS_MAX },
	  .payload = ODD_PAGES, .pages = 4096, .ranges = 4096 },
	{ "runs: most pages, one range", NULL,
	  { 0, RUNS, 0, 0, VIRTIO_FPH_RUNS_MAX, 0, .words = WORDS_MAX },
	  .payload = LARGEST_RUNS, .pages = UINT64_C(1) << 28, .ranges = 1 },
	{ "runs: one too many", BAD_RUNS, { 0, RUNS, 0, 0, VIRTIO_FPH_RUNS_MAX + 1, 0,
	  .words = WORDS_MAX + 1 }, .payload = ODD_PAGES },
	{ "runs: none", BAD_RUNS, { 0, RUNS, 0, 0, 0, 0, .words = 1 } },
	{ "runs: count whose bytes overflow 32 bits", BAD_RUNS,
	  { 0, RUNS, 0, 0, 0x20000001, 0, .words = 1 } },
	{ "runs: largest count", BAD_RUNS, { 0, RUNS, 0, 0, UINT32_MAX, 0, .words = 1 } },
	{ "runs: no payload", LEN_RUNS, { 0, RUNS, 0, 0, 1, 0 } },
	{ "runs: a byte short", LEN_RUNS, { 0, RUNS, 0, 0, 2, 0, .words = 2, .extra = -1 },
	  { RUN(1, 1), RUN(3, 1) } },
	{ "runs: a byte long", LEN_RUNS, { 0, RUNS, 0, 0, 2, 0, .words = 2, .extra = 1 },
	  { RUN(1, 1), RUN(3, 1) } },
	{ "runs: fewer than in the payload", LEN_RUNS, { 0, RUNS, 0, 0, 1, 0, .words = 2 },
	  { RUN(1, 1), RUN(3, 1) } },
	{ "runs: more than in the payload", LEN_RUNS, { 0, RUNS, 0, 0, 3, 0, .words = 2 },
	  { RUN(1, 1), RUN(3, 1) } },
	{ "runs: with a base", "runs with a base", { 0, RUNS, 0, 0, 1, 64, .words = 1 } },
	{ "runs: descend", ORDER, { 0, RUNS, 0, 0, 2, 0, .words = 2 }, { RUN(9, 1), RUN(3, 1) } },
	{ "runs: twice the same", ORDER, { 0, RUNS, 0, 0, 2, 0, .words = 2 },
	  { RUN(9, 1), RUN(9, 1) } },
	{ "runs: overlap by a page", ORDER, { 0, RUNS, 0, 0, 2, 0, .words = 2 },
	  { RUN(3, 7), RUN(9, 1) } },
	{ "runs: the last of them descends", ORDER, { 0, RUNS, 0, 0, 4, 0, .words = 4 },
	  { RUN(1, 1), RUN(5, 1), RUN(9, 1), RUN(8, 1) } },

	{ "bitmap: first page", NULL, { 0, BITMAP, 0, 0, 64, 0, .words = 1 }, { 1 }, { { 0, 1 } } },
	{ "bitmap: last page of a word", NULL, { 0, BITMAP, 0, 0, 64, 128, .words = 1 },
	  { UINT64_C(1) << 63 }, { { 191, 1 } } },
	{ "bitmap: whole word", NULL, { 0, BITMAP, 0, 0, 64, 64, .words = 1 },
	  { UINT64_MAX }, { { 64, 64 } } },
	{ "bitmap: all but the ends of a word", NULL, { 0, BITMAP, 0, 0, 64, 0, .words = 1 },
	  { UINT64_MAX / 2 - 1 }, { { 1, 62 } } },
	{ "bitmap: several ranges in a word", NULL, { 0, BITMAP, 0, 0, 64, 64, .words = 1 },
	  { 0x8000000000f00a01 }, { { 64, 1 }, { 73, 1 }, { 75, 1 }, { 84, 4 }, { 127, 1 } } },
	{ "bitmap: range over a word's end", NULL, { 0, BITMAP, 0, 0, 128, 64, .words = 2 },
	  { UINT64_C(3) << 62, 7 }, { { 126, 5 } } },
	{ "bitmap: range over whole words", NULL, { 0, BITMAP, 0, 0, 256, 0, .words = 4 },
	  { UINT64_C(1) << 63, UINT64_MAX, UINT64_MAX, 1 }, { { 63, 130 } } },
	{ "bitmap: word's end alone does not join", NULL, { 0, BITMAP, 0, 0, 128, 0, .words = 2 },
	  { UINT64_C(1) << 63, 2 }, { { 63, 1 }, { 65, 1 } } },
	{ "bitmap: empty words between", NULL, { 0, BITMAP, 0, 0, 256, 0, .words = 4 },
	  { 1, 0, 0, 1 }, { { 0, 1 }, { 192, 1 } } },
	{ "bitmap: only the last bit", NULL, { 0, BITMAP, 0, 0, 256, 0, .words = 4 },
	  { 0, 0, 0, UINT64_C(1) << 63 }, { { 255, 1 } } },
	{ "bitmap: largest, all free", NULL,
	  { 0, BITMAP, 0, 0, VIRTIO_FPH_BITS_MAX, 0, .words = WORDS_MAX },
	  .payload = ALL_ONES, .pages = VIRTIO_FPH_BITS_MAX, .ranges = 1 },
	{ "bitmap: largest, every other page", NULL,
	  { 0, BITMAP, 0, 0, VIRTIO_FPH_BITS_MAX, 0, .words = WORDS_MAX },
	  .payload = EVERY_OTHER_BIT, .pages = VIRTIO_FPH_BITS_MAX / 2,
	  .ranges = VIRTIO_FPH_BITS_MAX / 2 },
	{ "bitmap: a word too many", BAD_BITS,
	  { 0, BITMAP, 0, 0, VIRTIO_FPH_BITS_MAX + 64, 0, .words = WORDS_MAX + 1 },
	  .payload = ALL_ONES },
	{ "bitmap: no bits", BAD_BITS, { 0, BITMAP, 0, 0, 0, 0 } },
	{ "bitmap: bits that fill no word", BAD_BITS,
	  { 0, BITMAP, 0, 0, 63, 0, .words = 1 }, { 1 } },
	{ "bitmap: whole bytes, but no word", BAD_BITS,
	  { 0, BITMAP, 0, 0, 72, 0, .words = 1, .extra = 1 }, { 1 } },
	{ "bitmap: largest count", BAD_BITS, { 0, BITMAP, 0, 0, UINT32_MAX - 63, 0, .words = 1 } },
	{ "bitmap: no payload", LEN_BITS, { 0, BITMAP, 0, 0, 64, 0 } },
	{ "bitmap: a byte short", LEN_BITS, { 0, BITMAP, 0, 0, 64, 0, .words = 1, .extra = -1 },
	  { 1 } },
	{ "bitmap: a byte long", LEN_BITS, { 0, BITMAP, 0, 0, 64, 0, .words = 1, .extra = 1 },
	  { 1 } },
	{ "bitmap: fewer bits than in the payload", LEN_BITS,
	  { 0, BITMAP, 0, 0, 64, 0, .words = 2 }, { 1, 1 } },
	{ "bitmap: more bits than in the payload", LEN_BITS,
	  { 0, BITMAP, 0, 0, 192, 0, .words = 2 }, { 1, 1 } },
	{ "bitmap: base in a word", ODD_BASE, { 0, BITMAP, 0, 0, 64, 32, .words = 1 }, { 1 } },
	{ "bitmap: base a page off", ODD_BASE, { 0, BITMAP, 0, 0, 64, 65, .words = 1 }, { 1 } },
	{ "bitmap: the last there can be", NULL,
	  { 0, BITMAP, 0, 0, 64, PFN_END - 128, .words = 1 }, { UINT64_MAX },
	  { { PFN_END - 128, 64 } } },
	{ "bitmap: its end in bytes is 2^64", BEYOND,
	  { 0, BITMAP, 0, 0, 64, PFN_END - 64, .words = 1 }, { 1 } },
	{ "bitmap: begins behind all addresses", BEYOND,
	  { 0, BITMAP, 0, 0, 64, PFN_END, .words = 1 }, { 1 } },
	{ "bitmap: its end in pages is 2^64", BEYOND,
	  { 0, BITMAP, 0, 0, 64, UINT64_MAX - 63, .words = 1 }, { 1 } },
	{ "bitmap: its end in pages overflows", BEYOND,
	  { 0, BITMAP, 0, 0, 128, UINT64_MAX - 63, .words = 2 }, { 0, 1 } },
	{ "bitmap: empty", "empty bitmap", { 0, BITMAP, 0, 0, 128, 0, .words = 2 } },

	{ "figures: not LAST", "figures before the end of the report", { 0, STATS, .words = 5 } },
	{ "figures: ABORTED, but not LAST", "figures before the end of the report",
	  { 0, STATS, ABORTED, .words = 5 } },
	{ "figures: a byte short", FIGURES, { 0, STATS, LAST, .words = 5, .extra = -1 } },
	{ "figures: a byte long", FIGURES, { 0, STATS, LAST, .words = 5, .extra = 1 } },
	{ "figures: none", FIGURES, { 0, STATS, LAST } },
	{ "figures: with a count", FIGURES, { 0, STATS, LAST, 0, 5, 0, .words = 5 } },
	{ "figures: with a base", FIGURES, { 0, STATS, LAST, 0, 0, 64, .words = 5 } },

	{ "first frame is not number 0", "sequence number out of turn",
	  { 0, RUNS, 0, 1, 1, 0, .words = 1 } },
	{ "number before 0", "sequence number out of turn",
	  { 0, RUNS, 0, UINT32_MAX, 1, 0, .words = 1 } },

	{ "all pages there are, in runs", NULL, { 0, RUNS, 0, 0, 2, 0, .words = 2 },
	  { RUN(1, 3), RUN(9, 7) }, { { 1, 3 }, { 9, 7 } }, .max_pages = 10 },
	{ "more pages than there are, in runs", TOO_MANY, { 0, RUNS, 0, 0, 2, 0, .words = 2 },
	  { RUN(1, 3), RUN(9, 7) }, .max_pages = 9 },
	{ "all pages there are, in a bitmap", NULL, { 0, BITMAP, 0, 0, 64, 0, .words = 1 },
	  { 0xf }, { { 0, 4 } }, .max_pages = 4 },
	{ "more pages than there are, in a bitmap", TOO_MANY,
	  { 0, BITMAP, 0, 0, 128, 0, .words = 2 }, { 0xf, 1 }, .max_pages = 4 },
};

static uint64_t *make_payload(const struct frame_row *row)
{
	uint64_t *p = calloc(row->f.words + 1, sizeof(*p));

	check(p);
	if (row->payload == AS_IS)
		memcpy(p, row->word, (row->f.words < 4 ? row->f.words : 4) * sizeof(*p));
	for (size_t i = 0; row->payload != AS_IS && i < row->f.words; i++)
		p[i] = row->payload == ODD_PAGES ? RUN(2 * i + 1, 1) :
		       row->payload == LARGEST_RUNS ? RUN(i * 65536, 65536) :
		       row->payload == ALL_ONES ? UINT64_MAX : UINT64_C(0x5555555555555555);
	return p;
}

static void check_frame(void **state)
{
	const struct frame_row *row = *state;
	uint64_t *payload = make_payload(row);
	struct fph_hint *h = hint_new(100);
	struct catch c = { 0 };
	struct frame f = row->f;
	struct fed r;

	f.payload = payload;
	f.id = fph_hint_request(h, row->max_pages ? row->max_pages : UINT64_MAX);
	r = feed(h, &f, &c);
	if (row->why) {
		check_int(r.err, -EBADMSG);
		check_str(r.why, row->why);
		/* The report has ended, and what was to be its start is late */
		check_int(feed_run(h, f.id, 0), -ESTALE);
	} else {
		check_int(r.err, 0);
		check(!r.info.last && !r.info.aborted);
		check_int(r.info.walk_ns | r.info.lock_ns | r.info.guest_pages |
			  r.info.guest_entries | r.info.walk, 0);
		if (row->payload == AS_IS) {
			for (size_t i = 0; i < c.n; i++) {
				check_int(c.v[i].pfn, row->range[i].pfn);
				check_int(c.v[i].pages, row->range[i].pages);
			}
			check(c.n == ARRAY_SIZE(row->range) || !row->range[c.n].pages);
		} else {
			check_int(r.info.pages, row->pages);
			check_int(r.info.ranges, row->ranges);
		}
	}
	/* A bad frame does no harm to the next report */
	check_int(feed_run(h, fph_hint_request(h, 1), 0), 0);
	catch_free(&c);
	fph_hint_free(h);
	free(payload);
}

/* Several frames */

enum op { END, REQUEST, STOP, FRAME, FIGURES_LAST, FIGURES_ABORTED };

struct step {
	enum op op;
	uint32_t seq;		/* REQUEST: max_pages */
	int err;
	const char *why;
	uint32_t age;		/* of the command that is answered: 0 is the last */
};

struct steps_row {
	const char *name;
	struct step step[12];
};

#define BAD(why)	-EBADMSG, why
#define BEHIND		"frame behind the last one"
#define TURN		"sequence number out of turn"
#define NO_COMMAND	"id of no command"

static const struct steps_row steps_rows[] = {
	{ "a report", { { REQUEST, 9 }, { FRAME, 0 }, { FRAME, 1 }, { FRAME, 2 },
			{ FIGURES_LAST, 3 } } },
	{ "a report of nothing", { { REQUEST, 9 }, { FIGURES_LAST, 0 } } },
	{ "a report of a guest without pages", { { REQUEST, 0 }, { FIGURES_LAST, 0 } } },
	{ "a report that is broken off", { { REQUEST, 9 }, { FRAME, 0 }, { FIGURES_ABORTED, 1 } } },
	{ "a report after a report", { { REQUEST, 9 }, { FRAME, 0 }, { FIGURES_LAST, 1 },
				       { REQUEST, 9 }, { FRAME, 0 }, { FIGURES_LAST, 1 } } },

	{ "frame repeated", { { REQUEST, 9 }, { FRAME, 0 }, { FRAME, 0, BAD(TURN) },
			      { FRAME, 1, -ESTALE } } },
	{ "older frame repeated", { { REQUEST, 9 }, { FRAME, 0 }, { FRAME, 1 },
				    { FRAME, 0, BAD(TURN) } } },
	{ "frame left out", { { REQUEST, 9 }, { FRAME, 0 }, { FRAME, 2, BAD(TURN) },
			      { FRAME, 1, -ESTALE } } },
	{ "numbers go on in the next report", { { REQUEST, 9 }, { FRAME, 0 }, { REQUEST, 9 },
						{ FRAME, 1, BAD(TURN) } } },
	{ "figures out of turn", { { REQUEST, 9 }, { FRAME, 0 }, { FIGURES_LAST, 2, BAD(TURN) },
				   { FIGURES_LAST, 1, -ESTALE } } },
	{ "last frame repeated", { { REQUEST, 9 }, { FIGURES_LAST, 0 },
				   { FIGURES_LAST, 0, BAD(BEHIND) } } },
	{ "second last frame", { { REQUEST, 9 }, { FIGURES_LAST, 0 },
				 { FIGURES_LAST, 1, BAD(BEHIND) } } },
	{ "frame behind the last one", { { REQUEST, 9 }, { FRAME, 0 }, { FIGURES_LAST, 1 },
					 { FRAME, 2, BAD(BEHIND) }, { FRAME, 3, BAD(BEHIND) } } },
	{ "frame behind a walk broken off", { { REQUEST, 9 }, { FIGURES_ABORTED, 0 },
					      { FRAME, 1, BAD(BEHIND) } } },
	{ "stop of a complete report excuses nothing",
	  { { REQUEST, 9 }, { FIGURES_LAST, 0 }, { STOP }, { FRAME, 1, BAD(BEHIND) } } },

	{ "stop", { { REQUEST, 9 }, { FRAME, 0 }, { STOP }, { FRAME, 1, -ESTALE },
		    { FIGURES_LAST, 2, -ESTALE }, { FRAME, 77, -ESTALE } } },
	{ "stop before the first frame", { { REQUEST, 9 }, { STOP }, { FRAME, 0, -ESTALE } } },
	{ "stop, twice", { { REQUEST, 9 }, { STOP }, { STOP }, { FRAME, 0, -ESTALE } } },
	{ "stop before any command", { { STOP }, { REQUEST, 9 }, { FRAME, 0 } } },
	{ "stopped, then asked again", { { REQUEST, 9 }, { FRAME, 0 }, { STOP }, { REQUEST, 9 },
					 { FRAME, 1, -ESTALE, .age = 1 }, { FRAME, 0 },
					 { FIGURES_LAST, 1 } } },
	{ "older report in the middle of a report",
	  { { REQUEST, 9 }, { FRAME, 0 }, { REQUEST, 9 }, { FRAME, 0 },
	    { FRAME, 1, -ESTALE, .age = 1 }, { FIGURES_LAST, 2, -ESTALE, .age = 1 }, { FRAME, 1 },
	    { FRAME, 0, -ESTALE, .age = 1 }, { FIGURES_LAST, 2 } } },
	{ "frame behind the last one of an older report is late",
	  { { REQUEST, 9 }, { FIGURES_LAST, 0 }, { REQUEST, 9 }, { FRAME, 1, -ESTALE, .age = 1 },
	    { FRAME, 0 } } },

	{ "older report behind a complete one",
	  { { REQUEST, 9 }, { REQUEST, 9 }, { FIGURES_LAST, 0 },
	    { FRAME, 0, -ESTALE, .age = 1 }, { FRAME, 1, BAD(BEHIND) } } },

	{ "frame before any command", { { FRAME, 0, BAD(NO_COMMAND) } } },
	{ "frame of the next command", { { REQUEST, 9 }, { FRAME, 0, BAD(NO_COMMAND), UINT32_MAX },
					 { FRAME, 0, -ESTALE } } },

	{ "all pages, over several frames",
	  { { REQUEST, 3 }, { FRAME, 0 }, { FRAME, 1 }, { FRAME, 2 }, { FIGURES_LAST, 3 } } },
	{ "more pages than there are, over several frames",
	  { { REQUEST, 3 }, { FRAME, 0 }, { FRAME, 1 }, { FRAME, 2 }, { FRAME, 3, BAD(TOO_MANY) },
	    { FIGURES_LAST, 3, -ESTALE } } },
	{ "a page of a guest without pages", { { REQUEST, 0 }, { FRAME, 0, BAD(TOO_MANY) } } },
	{ "the pages of one report are not those of the next",
	  { { REQUEST, 1 }, { FRAME, 0 }, { REQUEST, 2 }, { FRAME, 0 }, { FRAME, 1 },
	    { REQUEST, 1 }, { FRAME, 0 }, { FRAME, 1, BAD(TOO_MANY) } } },
	{ "pages of late frames do not count",
	  { { REQUEST, 1 }, { REQUEST, 1 }, { FRAME, 0, -ESTALE, .age = 1 }, { FRAME, 0 } } },
};

static const uint64_t figures[] = { 11, 22, 33, 44, VIRTIO_FPH_WALK_LIST };

static void check_steps(void **state)
{
	const struct steps_row *row = *state;
	struct fph_hint *h = hint_new(0);
	uint32_t before;

	for (const struct step *s = row->step; s->op != END; s++) {
		const uint64_t run = RUN(50 - s->seq, 1);	/* frames need not ascend */
		struct frame f = { fph_hint_last_id(h) - s->age, RUNS, 0, s->seq, 1, 0, &run, 1 };
		struct catch c = { 0 };
		struct fed r;

		if (s->op == REQUEST) {
			before = fph_hint_last_id(h);
			check_int(fph_hint_request(h, s->seq), before + 1);
			check_int(fph_hint_last_id(h), before + 1);
			continue;
		} else if (s->op == STOP) {
			before = fph_hint_last_id(h);
			fph_hint_stop(h);
			check_int(fph_hint_last_id(h), before);
			continue;
		} else if (s->op != FRAME) {
			f = (struct frame){ f.id, STATS, LAST, s->seq, 0, 0, figures, 5 };
			f.flags |= s->op == FIGURES_ABORTED ? ABORTED : 0;
		}
		r = feed(h, &f, &c);
		if (r.err != s->err)
			fail_msg("step %td: %d (%s), not %d", s - row->step, r.err,
				 r.why ? r.why : "", s->err);
		if (s->why)
			check_str(r.why, s->why);
		if (!s->err) {
			check_int(r.info.last, s->op != FRAME);
			check_int(r.info.aborted, s->op == FIGURES_ABORTED);
			check_int(r.info.pages, s->op == FRAME);
		}
		catch_free(&c);
	}
	fph_hint_free(h);
}

/* Ids */

struct id_row {
	const char *name;
	uint32_t last_id;	/* before the request, if there is one */
	uint32_t id;
	int err;
	bool no_request;
};

static const struct id_row id_rows[] = {
	{ "id: the first", 0, 1, 0 },
	{ "id: 0", 100, 0, -EBADMSG },
	{ "id: 0, just behind the wrap", UINT32_MAX, 0, -EBADMSG },
	{ "id: 0, no command yet", 0, 0, -EBADMSG, true },
	{ "id: 1, no command yet", 0, 1, -EBADMSG, true },
	{ "id: large, no command yet", 0, UINT32_MAX, -EBADMSG, true },
	{ "id: the last one", 100, 101, 0 },
	{ "id: one older", 100, 100, -ESTALE },
	{ "id: one too new", 100, 102, -EBADMSG },
	{ "id: the last there is", UINT32_MAX - 1, UINT32_MAX, 0 },
	{ "id: 1 follows the last there is", UINT32_MAX, 1, 0 },
	{ "id: from before the wrap", UINT32_MAX, UINT32_MAX, -ESTALE },
	{ "id: one too new, behind the wrap", UINT32_MAX, 2, -EBADMSG },
	{ "id: too new by a wrap", UINT32_MAX - 1, 1, -EBADMSG },
	{ "id: oldest that passes for given out", UINT32_C(1) << 31, 2, -ESTALE },
	{ "id: older than that", UINT32_C(1) << 31, 1, -EBADMSG },
	{ "id: oldest, across the wrap", 99, 0x80000065, -ESTALE },
	{ "id: older than that, across the wrap", 99, 0x80000064, -EBADMSG },
	{ "id: report that died with a migration", 100, 100, -ESTALE, true },
	{ "id: older report, after a migration", 100, 99, -ESTALE, true },
	{ "id: report that nobody asked for, after a migration", 100, 101, -EBADMSG, true },
};

static void check_id(void **state)
{
	const struct id_row *row = *state;
	struct fph_hint *h = hint_new(row->last_id);
	const uint64_t run = RUN(1, 1);
	const struct frame f = { row->id, RUNS, 0, 0, 1, 0, &run, 1 };
	struct catch c = { 0 };
	struct fed r;

	if (!row->no_request)
		check_int(fph_hint_request(h, 1),
			  row->last_id == UINT32_MAX ? 1 : row->last_id + 1);
	r = feed(h, &f, &c);
	check_int(r.err, row->err);
	if (row->err == -EBADMSG)
		check_str(r.why, NO_COMMAND);
	catch_free(&c);
	fph_hint_free(h);
}

/* What is late is not looked at: a driver may be told of the stop too late */
static void late_and_malformed(void **state)
{
	struct fph_hint *h = hint_new(0);
	struct frame f = { 1, 9, 0xffff, 7, UINT32_MAX, 3, .extra = 0 };
	struct catch c = { 0 };

	fph_hint_request(h, 9);
	fph_hint_stop(h);
	check_int(feed(h, &f, &c).err, -ESTALE);
	fph_hint_request(h, 9);
	check_int(feed(h, &f, &c).err, -ESTALE);
	check_int(feed_run(h, 2, 0), 0);
	/* without a whole header nobody can tell that it is late */
	f.extra = -1;
	check_int(feed(h, &f, &c).err, -EBADMSG);
	check_int(feed_run(h, 2, 1), -ESTALE);
	catch_free(&c);
	fph_hint_free(h);
}

static void figures_are_passed_on(void **state)
{
	static const uint64_t odd[] = { UINT64_MAX, UINT64_MAX - 1, UINT64_MAX - 2, UINT64_MAX - 3,
					UINT64_MAX };	/* reserved is not looked at */
	struct fph_hint *h = hint_new(0);
	struct frame f = { 1, STATS, LAST, 0, 0, 0, figures, ARRAY_SIZE(figures) };
	struct catch c = { 0 };
	struct fed r;

	fph_hint_request(h, 9);
	r = feed(h, &f, &c);
	check_int(r.err, 0);
	check(r.info.last && !r.info.aborted);
	check_int(r.info.walk_ns, 11);
	check_int(r.info.lock_ns, 22);
	check_int(r.info.guest_pages, 33);
	check_int(r.info.guest_entries, 44);
	check_int(r.info.walk, VIRTIO_FPH_WALK_LIST);

	f.id = fph_hint_request(h, 9);
	f.payload = odd;
	f.flags |= ABORTED;
	r = feed(h, &f, &c);
	check_int(r.err, 0);
	check(r.info.last && r.info.aborted);
	check_int(r.info.walk_ns, UINT64_MAX);
	check_int(r.info.guest_entries, UINT64_MAX - 3);
	check_int(r.info.walk, UINT32_MAX);
	catch_free(&c);
	fph_hint_free(h);
}

static void unaligned_frames(void **state)
{
	static const uint64_t runs[] = { RUN(0x123456789abc, 0x4321), RUN(0x123456790000, 1) };
	static const uint64_t bits[] = { 6, UINT64_C(1) << 40 };
	struct fph_hint *h = hint_new(0);
	struct catch c = { 0 };

	for (size_t offset = 0; offset < 9; offset++) {
		const uint32_t id = fph_hint_request(h, UINT64_MAX);
		const struct frame frame[] = {
			{ id, RUNS, 0, 0, 2, 0, runs, 2 },
			{ id, BITMAP, 0, 1, 128, 0x100000000, bits, 2 },
			{ id, STATS, LAST, 2, 0, 0, figures, 5 },
		};

		check_int(feed_at(h, &frame[0], &c, offset).err, 0);
		check_int(c.v[0].pfn, 0x123456789abc);
		check_int(c.v[0].pages, 0x4321);
		catch_free(&c);
		check_int(feed_at(h, &frame[1], &c, offset).err, 0);
		check_int(c.v[0].pfn, 0x100000001);
		check_int(c.v[1].pfn, 0x100000000 + 64 + 40);
		catch_free(&c);
		check_int(feed_at(h, &frame[2], &c, offset).info.walk_ns, 11);
	}
	fph_hint_free(h);
}

/* The report that docs/virtio-fph.md has as its example, byte by byte */
static void example_of_the_specification(void **state)
{
	static const unsigned char runs[] = {
		7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
		0xff, 0x01, 0x00, 0x01, 0, 0, 0, 0,
		0x00, 0x00, 0x45, 0x23, 0x01, 0, 0, 0,
	};
	static const unsigned char bitmap[] = {
		7, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0x40, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0,
		0x0d, 0, 0, 0, 0, 0, 0, 0x80,
	};
	static const unsigned char last[] = {
		7, 0, 0, 0, 2, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
		0x40, 0x42, 0x0f, 0, 0, 0, 0, 0,
		0x50, 0xc3, 0, 0, 0, 0, 0, 0,
		0x05, 0x02, 0, 0, 0, 0, 0, 0,
		0x05, 0, 0, 0, 0, 0, 0, 0,
		0, 0, 0, 0, 0, 0, 0, 0,
	};
	static const struct range ranges[] = {
		{ 0x100, 512 }, { 0x12345, 1 }, { 0x400, 1 }, { 0x402, 2 }, { 0x43f, 1 },
	};
	struct fph_hint_frame info = { .sz = sizeof(info) };
	struct fph_hint *h = hint_new(6);
	struct catch c = { 0 };
	const char *why;

	check_int(fph_hint_request(h, 517), 7);
	check_int(fph_hint_feed(h, runs, sizeof(runs), catch_sink, &c, &info, &why), 0);
	check_int(fph_hint_feed(h, bitmap, sizeof(bitmap), catch_sink, &c, &info, &why), 0);
	check_int(c.n, ARRAY_SIZE(ranges));
	check_mem(c.v, ranges, sizeof(ranges));
	check_int(fph_hint_feed(h, last, sizeof(last), catch_sink, &c, &info, &why), 0);
	check(info.last && !info.aborted);
	check_int(info.walk_ns, 1000000);
	check_int(info.lock_ns, 50000);
	check_int(info.guest_pages, 517);
	check_int(info.guest_entries, 5);
	check_int(info.walk, VIRTIO_FPH_WALK_PFN);
	catch_free(&c);
	fph_hint_free(h);
}

struct sink_row {
	const char *name;
	uint16_t encoding;
	size_t fail_at;
	int fail_with;
};

static const struct sink_row sink_rows[] = {
	{ "sink refuses the first run", RUNS, 1, -ENOSPC },
	{ "sink refuses a run", RUNS, 2, -ENOMEM },
	{ "sink refuses the last run", RUNS, 3, -ENOSPC },
	{ "sink refuses the first range of a bitmap", BITMAP, 1, -ENOSPC },
	{ "sink refuses a range of a bitmap", BITMAP, 2, -ERANGE },
	{ "sink refuses the last range of a bitmap", BITMAP, 3, -ENOSPC },
};

static void check_sink(void **state)
{
	static const uint64_t runs[] = { RUN(1, 1), RUN(3, 1), RUN(5, 1) };
	static const uint64_t bits[] = { 0x2a };
	const struct sink_row *row = *state;
	bool is_runs = row->encoding == RUNS;
	struct fph_hint *h = hint_new(0);
	const struct frame f = { 1, row->encoding, 0, 0, is_runs ? 3 : 64, 0,
				 is_runs ? runs : bits, is_runs ? 3 : 1 };
	struct catch c = { .fail_at = row->fail_at, .fail_with = row->fail_with };

	fph_hint_request(h, 9);
	check_int(feed(h, &f, &c).err, row->fail_with);
	check_int(c.calls, row->fail_at);
	check_int(c.n, row->fail_at - 1);
	/* it has ended the report */
	check_int(feed_run(h, 1, 0), -ESTALE);
	check_int(feed_run(h, 1, 1), -ESTALE);
	check_int(feed_run(h, fph_hint_request(h, 9), 0), 0);
	catch_free(&c);
	fph_hint_free(h);
}

/* The sink may well use an errno of ours; *why tells whose it is */
static void sink_with_our_errno(void **state)
{
	const uint64_t run = RUN(1, 1);
	const struct virtio_fph_report header = { .id = htole32(1), .count = htole32(1) };
	struct catch c = { .fail_at = 1, .fail_with = -EBADMSG };
	struct fph_hint_frame info = { .sz = sizeof(info) };
	struct fph_hint *h = hint_new(0);
	unsigned char buf[sizeof(header) + sizeof(run)];
	const char *why = "not written";
	uint64_t word = htole64(run);

	memcpy(buf, &header, sizeof(header));
	memcpy(buf + sizeof(header), &word, sizeof(word));
	fph_hint_request(h, 9);
	check_int(fph_hint_feed(h, buf, sizeof(buf), catch_sink, &c, &info, &why), -EBADMSG);
	check(!why);
	catch_free(&c);
	fph_hint_free(h);
}

/* Structs of older and newer callers */
static void frame_of_other_sizes(void **state)
{
	struct {
		struct fph_hint_frame info;
		uint64_t newer;
	} big = { .newer = 77 };
	struct virtio_fph_report header = {
		.id = htole32(1), .encoding = htole16(STATS), .flags = htole16(LAST),
	};
	struct virtio_fph_stats stats = { .walk_ns = htole64(5), .walk = htole32(1) };
	unsigned char buf[sizeof(header) + sizeof(stats)];
	struct fph_hint_frame info;
	struct fph_hint *h = hint_new(0);
	const char *why;

	memcpy(buf, &header, sizeof(header));
	memcpy(buf + sizeof(header), &stats, sizeof(stats));
	fph_hint_request(h, 9);
	big.info.sz = sizeof(big);
	check_int(fph_hint_feed(h, buf, sizeof(buf), catch_sink, NULL, &big.info, &why), 0);
	check_int(big.info.sz, sizeof(big));
	check_int(big.info.walk_ns, 5);
	check_int(big.info.walk, 1);
	check_int(big.newer, 0);

	header.id = htole32(fph_hint_request(h, 9));
	memcpy(buf, &header, sizeof(header));
	memset(&info, 0x55, sizeof(info));
	info.sz = offsetof(struct fph_hint_frame, walk_ns);
	check_int(fph_hint_feed(h, buf, sizeof(buf), catch_sink, NULL, &info, &why), 0);
	check_int(info.sz, offsetof(struct fph_hint_frame, walk_ns));
	check_int(info.id, 2);
	check(info.last);
	check_int(info.walk_ns, UINT64_C(0x5555555555555555));
	fph_hint_free(h);
}

static void free_of_nothing(void **state)
{
	fph_hint_free(NULL);
}

/* Random pages, said as runs and as a bitmap, must come out as they went in */

/* xorshift: the same sequence everywhere */
static uint64_t rnd(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

static void check_pages(const struct catch *c, const bool *is_free, uint64_t n, uint64_t base)
{
	size_t i = 0;

	for (uint64_t p = 0; p < n; p++) {
		uint64_t len = 0;

		while (p + len < n && is_free[p + len])
			len++;
		if (!len)
			continue;
		check(i < c->n);
		check_int(c->v[i].pfn, base + p);
		check_int(c->v[i].pages, len);
		p += len;
		i++;
	}
	check_int(i, c->n);
}

static void random_pages(void **state)
{
	enum { N = 64 * 64 };
	uint64_t seed = UINT64_C(0x9e3779b97f4a7c15);
	struct fph_hint *h = hint_new(0);
	bool *is_free = calloc(N, sizeof(*is_free));

	check(is_free);
	for (int round = 0; round < 300; round++) {
		uint64_t n = 64 * (1 + rnd(&seed) % (N / 64)), base = 64 * (rnd(&seed) >> 23);
		uint64_t longest = UINT64_C(1) << rnd(&seed) % 10;
		uint64_t bits[N / 64] = { 0 }, runs[N], nruns = 0, pages = 0;
		const uint32_t id = fph_hint_request(h, N * 2);
		struct frame as_bits = { id, BITMAP, 0, 0, n, base, bits, n / 64 };
		struct frame as_runs = { id, RUNS, 0, 1, 0, 0, runs };
		struct catch c = { 0 };

		/* stretches of free and of used pages, by turns */
		for (uint64_t p = 0, len, on = rnd(&seed) % 2; p < n; p += len, on ^= 1) {
			len = 1 + rnd(&seed) % longest;
			for (uint64_t i = p; i < n && i < p + len; i++)
				is_free[i] = on;
		}
		is_free[rnd(&seed) % n] = true;

		for (uint64_t p = 0; p < n; p++) {
			bits[p / 64] |= (uint64_t)is_free[p] << p % 64;
			pages += is_free[p];
			/* some stretches are said as several runs */
			if (is_free[p] && p && is_free[p - 1] && rnd(&seed) % 8)
				runs[nruns - 1]++;
			else if (is_free[p])
				runs[nruns++] = RUN(base + p, 1);
		}
		as_runs.count = as_runs.words = nruns;

		check_int(feed(h, &as_bits, &c).info.pages, pages);
		check_pages(&c, is_free, n, base);
		catch_free(&c);
		check_int(feed(h, &as_runs, &c).info.pages, pages);
		check_pages(&c, is_free, n, base);
		catch_free(&c);
	}
	free(is_free);
	fph_hint_free(h);
}

int main(void)
{
	struct fph_tests t = { 0 };

	fph_test_add_rows(&t, frame_rows, check_frame);
	fph_test_add_rows(&t, steps_rows, check_steps);
	fph_test_add_rows(&t, id_rows, check_id);
	fph_test_add(&t, "late and malformed", late_and_malformed, NULL);
	fph_test_add(&t, "figures are passed on", figures_are_passed_on, NULL);
	fph_test_add(&t, "unaligned frames", unaligned_frames, NULL);
	fph_test_add(&t, "example of the specification", example_of_the_specification, NULL);
	fph_test_add_rows(&t, sink_rows, check_sink);
	fph_test_add(&t, "sink with an errno of ours", sink_with_our_errno, NULL);
	fph_test_add(&t, "frame of other sizes", frame_of_other_sizes, NULL);
	fph_test_add(&t, "free of nothing", free_of_nothing, NULL);
	fph_test_add(&t, "random pages, both encodings", random_pages, NULL);
	return fph_test_run(&t, "hint");
}

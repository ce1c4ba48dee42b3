/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "estimate.h"

/* In a stream: an address with flags before each page, a byte for a zero one */
#define HEADER_BYTES	8
#define ZERO_BYTES	(HEADER_BYTES + 1)

/* Less is not worth a sentence */
#define SOME_BYTES	(UINT64_C(16) << 20)

static const char *const modes[MODE_MAX] = {
	[MODE_NONE] = "none",
	[MODE_PAGEMAP] = "pagemap",
	[MODE_PRESCAN] = "prescan",
};

const char *mode_name(enum mode mode)
{
	return modes[mode];
}

static guint64 known(guint64 v)
{
	return v == UNKNOWN ? 0 : v;
}

static guint64 absent(const guint64 *v)
{
	return known(v[F_UNMAPPED]) + known(v[F_ZERO_MAPPED]);
}

/* Bytes of a region whose pages are announced as zero */
static guint64 announced(const struct region *r, enum mode mode, guint64 gone, guint64 zero)
{
	bool scanned = r->v[F_UNMAPPED] != UNKNOWN;

	switch (mode) {
	case MODE_NONE:
		return gone + zero;
	case MODE_PAGEMAP:
		return zero;
	default:
		return scanned ? 0 : zero;
	}
}

static guint64 stream_bytes(const struct census *c, guint64 pages, guint64 zero_pages)
{
	return pages * (c->page_size + HEADER_BYTES) + zero_pages * ZERO_BYTES;
}

struct estimate estimate(const struct census *c, enum mode mode, double bandwidth)
{
	struct estimate e = { .mode = modes[mode], .pages = UNKNOWN, .zero_pages = UNKNOWN,
			      .bytes = UNKNOWN, .file_bytes = UNKNOWN };
	guint64 full = 0, as_zero = 0, as_zero_in_none = 0, none;

	if (mode == MODE_PRESCAN && !c->content)
		return e;
	for (guint i = 0; i < c->regions->len; i++) {
		const struct region *r = c->regions->pdata[i];
		guint64 size = r->v[F_SIZE];
		/* A scan of something that moves need not add up */
		guint64 gone = MIN(absent(r->v), size);
		guint64 zero = MIN(known(r->v[F_ZERO]), size - gone);

		full += size - gone - zero;
		as_zero += announced(r, mode, gone, zero);
		as_zero_in_none += announced(r, MODE_NONE, gone, zero);
	}
	e.pages = full / c->page_size;
	e.zero_pages = as_zero / c->page_size;
	e.file_bytes = full;
	e.bytes = stream_bytes(c, e.pages, e.zero_pages);
	none = stream_bytes(c, e.pages, as_zero_in_none / c->page_size);
	e.seconds = e.bytes * 8 / bandwidth;
	e.part = none ? (double)e.bytes / none : 1;
	return e;
}

guint64 left_out(const struct census *c, enum mode mode)
{
	struct estimate e = estimate(c, mode, 1);

	return e.bytes == UNKNOWN ? UNKNOWN :
	       c->sum[F_SIZE] - (e.pages + e.zero_pages) * c->page_size;
}

char *size_words(guint64 bytes)
{
	if (bytes >= UINT64_C(1) << 30)
		return g_strdup_printf("%.1f GiB", bytes / 1073741824.0);
	return g_strdup_printf("%.1f MiB", bytes / 1048576.0);
}

static void G_GNUC_PRINTF(2, 3) say(GPtrArray *out, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	g_ptr_array_add(out, g_strdup_vprintf(fmt, ap));
	va_end(ap);
}

static void about_regions(const struct census *c, GPtrArray *out)
{
	guint64 filled = 0;

	for (guint i = 0; i < c->regions->len; i++) {
		const struct region *r = c->regions->pdata[i];

		if (r->changed)
			say(out, "Region %u was unmapped, at least in part, while it was scanned: its figures are of no use.",
			    r->number);
		if (r->why)
			say(out, "Nothing can be found in region %u: %s.", r->number, r->why);
		if (r->backing == FPH_BACKING_SHMEM)
			filled += known(r->v[F_UNMAPPED]);
	}
	if (filled >= SOME_BYTES) {
		g_autofree char *words = size_words(filled);

		say(out, "QEMU as it is gives memory to %s of shared RAM that has none, when it reads them, and so does the destination; with fph-source neither does.",
		    words);
	}
}

static void about_all(const struct census *c, GPtrArray *out)
{
	guint64 all = c->sum[F_SIZE], gone = absent(c->sum), zero = known(c->sum[F_ZERO]);
	g_autofree char *gone_words = size_words(gone);
	g_autofree char *zero_words = size_words(zero);

	if (c->sum[F_UNMAPPED] == UNKNOWN)
		say(out, "What of this memory is free, only the guest knows: mode=both, with virtio-fph or the balloon's free page hints.");
	else if (gone >= all / 20 && gone)
		say(out, "fph-source,mode=pagemap leaves out %s, %.0f%% of this memory, without asking the guest.",
		    gone_words, gone * 100.0 / all);
	else
		say(out, "The host gave memory for nearly all of this; which of it is free, only the guest knows: mode=both, with virtio-fph or the balloon's free page hints.");
	if (c->content && zero >= all / 20)
		say(out, "%s are in use for the host but hold only zeroes: prescan=on leaves them out, too.",
		    zero_words);
	if (!c->content && known(c->sum[F_PRESENT]) >= SOME_BYTES)
		say(out, "Whether pages in use hold zeroes was not looked at; --content does.");
	if (known(c->sum[F_SWAPPED]) >= SOME_BYTES) {
		g_autofree char *words = size_words(c->sum[F_SWAPPED]);

		say(out, "%s are swapped out, and a migration reads them back in.", words);
	}
}

GPtrArray *advice(const struct census *c)
{
	GPtrArray *out = g_ptr_array_new_with_free_func(g_free);

	about_regions(c, out);
	about_all(c, out);
	return out;
}

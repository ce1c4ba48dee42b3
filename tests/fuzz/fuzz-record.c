/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target of records: an input is the fph-pages of a process with three
 * regions. What is read of them adds up, and can be shown.
 */
#include "fuzz-scan.h"
#include "record.h"
#include "text.h"
#include "view.h"

#define MAPS								\
	"10000000-14000000 rw-p 00000000 00:00 0 \n"			\
	"7f0000000000-7f0010000000 rw-p 00000000 00:00 0 \n"		\
	"7f0020000000-7f0020004000 rw-s 00000000 00:01 7 /memfd:ram (deleted)\n"

/* What others recorded writes to the terminal only text */
static void check_text(char *text)
{
	must(text && g_utf8_validate(text, -1, NULL));
	for (const char *c = text; *c; c = g_utf8_next_char(c))
		must(*c == '\n' || !g_unichar_iscntrl(g_utf8_get_char(c)));
	g_free(text);
}

static void check_region(const struct region *r)
{
	guint64 pages;

	must(r->method);
	for (guint f = 0; f < F_MAX; f++)
		must(r->v[f] == UNKNOWN || r->v[f] <= r->v[F_SIZE]);
	must(r->v[F_PRESENT] != UNKNOWN && r->v[F_SWAPPED] != UNKNOWN);
	pages = r->v[F_PRESENT] + r->v[F_SWAPPED];
	must(pages <= 2 * r->v[F_SIZE]);
	must(r->v[F_HUGE] == UNKNOWN || r->v[F_HUGE] <= r->v[F_PRESENT]);
	must(r->v[F_ZERO] == UNKNOWN || r->v[F_ZERO] <= r->v[F_PRESENT]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static GPtrArray *mappings;	/* kept, for speed */
	g_autofree char *text = fuzz_file(data, size);
	char *words[] = { "qemu", NULL }, *selects[] = { "all", NULL };
	struct target t = { .pid = 1, .dir = -1, .path = "", .comm = "vm", .cmdline = words };
	g_autoptr(GArray) areas = NULL;
	g_autoptr(GError) error = NULL;
	struct census *c;
	bool ok;

	fuzz_be_strict();
	if (!mappings)
		mappings = fuzz_maps(MAPS);
	t.mappings = mappings;
	areas = ram_find(&t, selects, NULL);
	c = census_new(&t, false);
	must(areas && areas->len == 3);
	for (guint i = 0; i < areas->len; i++)
		census_add_region(c, &g_array_index(areas, struct area, i));
	ok = record_parse(text, "pages", c, &error);
	must(ok == !error);
	if (ok) {
		for (guint i = 0; i < c->regions->len; i++)
			check_region(c->regions->pdata[i]);
		census_sum_up(c);
		check_text(view_text(c, 1e10));
		check_text(view_json(c, 1e10, true));
	} else {
		check_text(text_printable(error->message));
	}
	census_free(c);
	return 0;
}

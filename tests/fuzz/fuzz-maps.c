/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target of maps and smaps: of what is guest RAM in them, and of what an
 * anonymized record has of them.
 *
 * An input is a line with what is asked for, as of --region, apart by blanks, or
 * nothing; a line of the command line's words, a NUL behind each; and maps or smaps.
 */
#include "fuzz-scan.h"
#include "ram.h"
#include "record.h"

/* Above are none of a process on any machine; sums of those below cannot overflow */
#define ADDRESS_MAX	(UINT64_C(1) << 57)

/* Steps over a line; the end of it becomes a NUL */
static char *take_line(char **at, const char *end, gsize *len)
{
	char *line = *at, *nl = memchr(line, '\n', end - line);

	*len = nl ? nl - line : end - line;
	*at = nl ? nl + 1 : line + *len;
	line[*len] = '\0';
	return line;
}

/* Without one that is malformed; NULL: nothing is asked for */
static GStrv parse_selects(const char *line)
{
	g_auto(GStrv) all = g_strsplit(line, " ", -1);
	GPtrArray *good = g_ptr_array_new();

	for (char **s = all; *s; s++) {
		g_autoptr(GError) error = NULL;
		bool ok = ram_check(*s, LEAST_PAGE, &error);

		must(ok == !error);
		if (ok)
			g_ptr_array_add(good, g_strdup(*s));
	}
	if (!good->len) {
		g_ptr_array_free(good, TRUE);
		return NULL;
	}
	g_ptr_array_add(good, NULL);
	return (GStrv)g_ptr_array_free(good, FALSE);
}

/* In order, apart, and all of it mapped */
static void check_areas(const struct target *t, const GArray *areas)
{
	guint64 end = 0;

	must(areas->len);
	for (guint i = 0; i < areas->len; i++) {
		const struct area *a = &g_array_index(areas, struct area, i);

		must(a->first && a->start < a->end && a->start >= end);
		must(target_has(t, a->start, a->end));
		end = a->end;
	}
}

/* Of what a process calls its memory, a record says nothing */
static void check_name(const char *name)
{
	static const char *const known[] = {
		"", "/memfd:ram (deleted)", "/dev/shm/ram", "/dev/zero (deleted)",
		"/anon_hugepage (deleted)", "/ram", "/dev/hugepages/ram", NULL
	};

	must(g_strv_contains(known, name));
}

static struct census *census_of(const struct target *t, const GArray *areas)
{
	struct census *c = census_new(t, false);

	for (guint i = 0; i < areas->len; i++) {
		struct region *r;

		census_add_region(c, &g_array_index(areas, struct area, i));
		r = c->regions->pdata[i];
		r->backing = FPH_BACKING_ANON;
		r->method = g_strdup("none");
	}
	return c;
}

/* A record is one of the same regions at other addresses, and can be read */
static void check_record(const struct target *t, const GArray *areas, bool selected,
			 const char *maps)
{
	g_autoptr(GString) pages = g_string_new("fph-pages 1\nscanner pagemap-scan\n");
	g_autoptr(GArray) starts = g_array_new(FALSE, FALSE, sizeof(guint64));
	g_autoptr(GArray) moved = g_array_new(FALSE, FALSE, sizeof(struct area));
	struct record rec = { .text = pages, .anonymize = true, .starts = starts };
	struct census *c = census_of(t, areas), *read;
	struct target out = { .dir = -1, .path = "" };
	char *text;
	gsize len;

	for (guint i = 0; i < c->regions->len; i++)
		record_region(&rec, c->regions->pdata[i]);
	text = record_anonymous(&rec, t, c, "maps", maps, &len);
	must(strlen(text) == len);
	out.mappings = fuzz_maps(text);
	must(out.mappings);
	g_free(text);
	for (guint i = 0; i < out.mappings->len; i++)
		check_name(((struct mapping *)out.mappings->pdata[i])->name);
	for (guint i = 0; i < areas->len; i++) {
		struct area a = g_array_index(areas, struct area, i);
		guint64 size = a.end - a.start;

		a.start = g_array_index(starts, guint64, i);
		a.end = a.start + size;
		must(target_has(&out, a.start, a.end));
		g_array_append_val(moved, a);
	}
	text = record_anonymous(&rec, t, c, "cmdline", "", &len);
	out.cmdline = target_parse_cmdline(text, len);
	out.comm = "vm";
	/* What looked like RAM does so still, by its sizes */
	must(selected || ram_is_named(&out));
	g_free(text);
	read = census_new(&out, false);
	for (guint i = 0; i < moved->len; i++)
		census_add_region(read, &g_array_index(moved, struct area, i));
	must(record_parse(pages->str, "pages", read, NULL));
	census_free(read);
	census_free(c);
	g_strfreev(out.cmdline);
	g_ptr_array_unref(out.mappings);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	g_autofree char *text = fuzz_file(data, size);
	char *at = text, *selected, *line;
	g_auto(GStrv) selects = NULL;
	g_auto(GStrv) words = NULL;
	g_autoptr(GPtrArray) mappings = NULL;
	g_autoptr(GArray) areas = NULL;
	g_autoptr(GError) error = NULL;
	struct target t = { .pid = 1, .dir = -1, .path = "", .comm = "" };
	gsize len;

	fuzz_be_strict();
	selected = take_line(&at, text + size, &len);
	line = take_line(&at, text + size, &len);
	selects = parse_selects(selected);
	words = target_parse_cmdline(line, len);
	mappings = fuzz_maps(at);
	if (!mappings)
		return 0;
	t.cmdline = words;
	t.mappings = mappings;
	areas = ram_find(&t, selects, &error);
	must(!areas == !!error);
	if (!areas)
		return 0;
	check_areas(&t, areas);
	if (((struct mapping *)mappings->pdata[mappings->len - 1])->end <= ADDRESS_MAX)
		check_record(&t, areas, selects, at);
	return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ram.h"

#include <errno.h>
#include <json-glib/json-glib.h>
#include <stdint.h>
#include <string.h>

/* Smaller is no guest RAM, unless the command line says so */
#define LIKELY		(UINT64_C(64) << 20)
/* Nor is what is tiny beside the largest */
#define TINY_PART	16
#define SIZES_MAX	512
/* Objects and lists in one of QEMU's options; json-glib's stack grows with their depth */
#define JSON_PARTS_MAX	64

static bool continues(const struct mapping *a, const struct mapping *b)
{
	if (a->end != b->start || a->writable != b->writable || a->readable != b->readable ||
	    a->executable != b->executable || a->shared != b->shared ||
	    a->inode != b->inode || a->major != b->major || a->minor != b->minor)
		return false;
	return a->inode ? a->offset + (a->end - a->start) == b->offset :
			  strcmp(a->name, b->name) == 0;
}

/* Memory that a guest could run in: written, not executed, no device */
static bool could_be_ram(const struct mapping *m)
{
	static const char *const not_ram[] = { "[heap]", "[stack", "[v", "anon_inode:", "/SYSV" };

	if (!m->writable || m->executable)
		return false;
	for (guint i = 0; i < G_N_ELEMENTS(not_ram); i++)
		if (g_str_has_prefix(m->name, not_ram[i]))
			return false;
	if (g_str_has_prefix(m->name, "/dev/"))
		return g_str_has_prefix(m->name, "/dev/shm/") ||
		       g_str_has_prefix(m->name, "/dev/hugepages") ||
		       g_str_has_prefix(m->name, "/dev/zero");
	return true;
}

static struct area begin_area(const struct mapping *m)
{
	return (struct area){ m->start, m->end, m, m->paged, m->device };
}

static void extend_area(struct area *a, const struct mapping *m)
{
	a->end = m->end;
	a->paged |= m->paged;
	a->device |= m->device;
}

static GArray *all_areas(const struct target *t, bool any)
{
	GArray *areas = g_array_new(FALSE, FALSE, sizeof(struct area));

	for (guint i = 0; i < t->mappings->len; i++) {
		const struct mapping *m = t->mappings->pdata[i];
		struct area area = begin_area(m);

		while (i + 1 < t->mappings->len &&
		       continues(t->mappings->pdata[i], t->mappings->pdata[i + 1])) {
			i++;
			extend_area(&area, t->mappings->pdata[i]);
		}
		/* A page of the kernel's that each process sees */
		if (strcmp(m->name, "[vsyscall]") == 0)
			continue;
		if (any || could_be_ram(m))
			g_array_append_val(areas, area);
	}
	return areas;
}

/* "512", "8G", "1.5g": bytes, 0 if it is none; plain numbers in @unit */
static guint64 parse_size(const char *text, guint64 unit)
{
	static const char suffixes[] = "bkmgtpe";
	char *end;
	double n = g_ascii_strtod(text, &end);
	const char *s;

	if (end == text || !(n > 0))
		return 0;
	s = *end ? strchr(suffixes, g_ascii_tolower(*end)) : NULL;
	if (s && *s)
		unit = UINT64_C(1) << (s - suffixes) * 10;
	n *= unit;
	return n < 1e19 ? n : 0;
}

/* What a process calls its options is its own affair, as long as we survive it */
static bool has_many_parts(const char *json)
{
	guint n = 0;

	for (; *json && n <= JSON_PARTS_MAX; json++)
		n += *json == '{' || *json == '[';
	return n > JSON_PARTS_MAX;
}

/* Member size of {"qom-type": "memory-backend-memfd", "size": 8589934592}, or 0 */
static guint64 size_of_json(const char *text)
{
	g_autoptr(JsonParser) parser = json_parser_new();
	JsonNode *root, *size;

	if (has_many_parts(text) || !json_parser_load_from_data(parser, text, -1, NULL))
		return 0;
	root = json_parser_get_root(parser);
	if (!root || !JSON_NODE_HOLDS_OBJECT(root))
		return 0;
	size = json_object_get_member(json_node_get_object(root), "size");
	if (!size || !JSON_NODE_HOLDS_VALUE(size))
		return 0;
	return json_node_get_value_type(size) == G_TYPE_STRING ?
	       parse_size(json_node_get_string(size), 1) : (guint64)json_node_get_int(size);
}

/* That of "8G", "slots=2,size=8G", or "memory-backend-ram,id=a,size=8G", or 0 */
static guint64 size_of_options(const char *text, guint64 unit)
{
	g_auto(GStrv) options = g_strsplit(text, ",", -1);

	for (char **o = options; *o; o++)
		if (g_str_has_prefix(*o, "size="))
			return parse_size(*o + strlen("size="), unit);
	return *options ? parse_size(*options, unit) : 0;
}

/* What QEMU's command line says of sizes: -m, and size of memory backends */
static void sizes_of_word(GHashTable *sizes, const char *word, bool after_m)
{
	guint64 size = 0;

	if (after_m)
		size = size_of_options(word, 1 << 20);
	else if (strstr(word, "memory-backend-"))
		size = *word == '{' ? size_of_json(word) : size_of_options(word, 1);
	if (size)
		g_hash_table_add(sizes, g_memdup2(&size, sizeof(size)));
}

/* At most as many as QEMU has memory devices and nodes */
static GHashTable *known_sizes(const struct target *t)
{
	GHashTable *sizes = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
	char **w = t->cmdline;

	for (; *w && g_hash_table_size(sizes) < SIZES_MAX; w++)
		sizes_of_word(sizes, *w, w > t->cmdline && strcmp(w[-1], "-m") == 0);
	return sizes;
}

static guint64 size_of(const struct area *a)
{
	return a->end - a->start;
}

/* From the first byte of one mapping to the last of another */
static guint64 span(const GPtrArray *mappings, guint first, guint last)
{
	const struct mapping *a = mappings->pdata[first], *b = mappings->pdata[last];

	return b->end - a->start;
}

/*
 * Of each mapping, the last of those that have @size with it, if that is before what
 * @last says. Both ends only ascend: a process may have 65530 mappings in a row, and
 * to try each with all that follow would take minutes.
 */
static void find_last(const GPtrArray *mappings, guint64 size, guint *last)
{
	guint k = 0;

	for (guint i = 0; i < mappings->len; i++) {
		k = MAX(k, i);
		while (k < mappings->len && span(mappings, i, k) < size)
			k++;
		if (k < last[i] && span(mappings, i, k) == size)
			last[i] = k;
	}
}

/*
 * Mappings that have a known size, alone or with those that follow. Whatever
 * lies beside guest RAM, such as a thread's stack, may look like a part of it.
 */
static GArray *by_size(const struct target *t, GHashTable *sizes, guint *missing)
{
	GArray *areas = g_array_new(FALSE, FALSE, sizeof(struct area));
	g_autoptr(GHashTable) found = g_hash_table_new(g_int64_hash, g_int64_equal);
	g_autofree guint *last = g_new(guint, t->mappings->len);
	guint row_end = 0;	/* behind those that continue each other */
	GHashTableIter iter;
	gpointer size;

	for (guint i = 0; i < t->mappings->len; i++)
		last[i] = t->mappings->len;
	g_hash_table_iter_init(&iter, sizes);
	while (g_hash_table_iter_next(&iter, &size, NULL))
		find_last(t->mappings, *(guint64 *)size, last);
	for (guint i = 0; i < t->mappings->len; i++) {
		const struct mapping *m = t->mappings->pdata[i];
		struct area area = begin_area(m);
		guint64 bytes;

		for (row_end = MAX(row_end, i + 1); row_end < t->mappings->len; row_end++)
			if (!continues(t->mappings->pdata[row_end - 1],
				       t->mappings->pdata[row_end]))
				break;
		if (!could_be_ram(m) || last[i] >= row_end)
			continue;
		for (guint k = i + 1; k <= last[i]; k++)
			extend_area(&area, t->mappings->pdata[k]);
		bytes = size_of(&area);
		g_hash_table_add(found, g_hash_table_lookup(sizes, &bytes));
		g_array_append_val(areas, area);
		i = last[i];
	}
	*missing = g_hash_table_size(sizes) - g_hash_table_size(found);
	return areas;
}

bool ram_is_named(const struct target *t)
{
	g_autoptr(GHashTable) sizes = known_sizes(t);
	guint missing;
	g_autoptr(GArray) areas = by_size(t, sizes, &missing);

	return areas->len || g_hash_table_size(sizes) == 0;
}

static bool overlaps(const GArray *areas, const struct area *a)
{
	for (guint i = 0; i < areas->len; i++) {
		const struct area *b = &g_array_index(areas, struct area, i);

		if (a->start < b->end && b->start < a->end)
			return true;
	}
	return false;
}

static gint by_start(gconstpointer a, gconstpointer b)
{
	const struct area *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

/*
 * A program's own data is a private mapping of a file, too; another part of that
 * file is what it executes. Of other files it may be the RAM of a guest that
 * goes on from a snapshot.
 */
static bool is_program(const struct target *t, const struct mapping *m)
{
	if (!m->inode || m->shared)
		return false;
	for (guint i = 0; i < t->mappings->len; i++) {
		const struct mapping *other = t->mappings->pdata[i];

		if (other->executable && other->inode == m->inode &&
		    other->major == m->major && other->minor == m->minor)
			return true;
	}
	return false;
}

static GArray *likely(const struct target *t)
{
	g_autoptr(GHashTable) sizes = known_sizes(t);
	g_autoptr(GArray) all = all_areas(t, false);
	guint64 largest = 0;
	guint missing;
	GArray *areas = by_size(t, sizes, &missing);

	if (areas->len && !missing)
		return areas;
	/* What is not known by its size is known by being large */
	for (guint i = 0; i < all->len; i++)
		largest = MAX(largest, size_of(&g_array_index(all, struct area, i)));
	for (guint i = 0; i < all->len; i++) {
		struct area *a = &g_array_index(all, struct area, i);

		if (size_of(a) >= MAX(LIKELY, largest / TINY_PART) && !overlaps(areas, a) &&
		    !is_program(t, a->first))
			g_array_append_val(areas, *a);
	}
	g_array_sort(areas, by_start);
	return areas;
}

/* 0xSTART or 0xSTART-0xEND; *end is 0 without one */
static bool parse_range(const char *select, guint64 *start, guint64 *end)
{
	char *rest;

	errno = 0;
	*start = g_ascii_strtoull(select, &rest, 16);
	*end = 0;
	if (errno)
		return false;
	if (!*rest)
		return true;
	if (*rest != '-' || !g_str_has_prefix(rest + 1, "0x"))
		return false;
	*end = g_ascii_strtoull(rest + 1, &rest, 16);
	return !errno && !*rest && *end > *start;
}

bool ram_check(const char *select, guint64 page, GError **error)
{
	guint64 start, end;

	if (!*select) {
		g_set_error_literal(error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE,
				    "an empty region");
		return false;
	}
	if (!g_str_has_prefix(select, "0x"))
		return true;
	if (!parse_range(select, &start, &end)) {
		g_set_error(error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE,
			    "'%s' is no region: an address is 0x7f0000000000, a range 0x7f0000000000-0x7f0040000000",
			    select);
		return false;
	}
	if (start % page && end) {
		g_set_error(error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE,
			    "'%s' does not begin at a page", select);
		return false;
	}
	if (end % page) {
		g_set_error(error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE,
			    "'%s' does not end at a page", select);
		return false;
	}
	return true;
}

static void add_selected(const struct target *t, const char *select, GArray *out)
{
	g_autoptr(GArray) all = all_areas(t, g_str_has_prefix(select, "0x"));
	guint64 start, end;

	for (guint i = 0; i < all->len; i++) {
		struct area a = g_array_index(all, struct area, i);

		if (g_str_has_prefix(select, "0x") && parse_range(select, &start, &end)) {
			if (a.end <= start || a.start >= MAX(end, start + 1))
				continue;
			if (end) {
				a.start = MAX(a.start, start);
				a.end = MIN(a.end, end);
			}
		} else if (strcmp(select, "all") != 0 && !strstr(a.first->name, select)) {
			continue;
		}
		g_array_append_val(out, a);
	}
}

/* What two selections name is shown once */
static void sort_out(GArray *areas)
{
	g_array_sort(areas, by_start);
	for (guint i = 1; i < areas->len;) {
		struct area *a = &g_array_index(areas, struct area, i);

		if (a->start < a[-1].end) {
			a[-1].end = MAX(a[-1].end, a->end);
			a[-1].paged |= a->paged;
			a[-1].device |= a->device;
			g_array_remove_index(areas, i);
		} else {
			i++;
		}
	}
}

GArray *ram_find(const struct target *t, char **selects, GError **error)
{
	GArray *areas;

	if (!selects) {
		areas = likely(t);
		if (areas->len == 0) {
			g_array_unref(areas);
			g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
				    "nothing of process %d (%s) looks like guest RAM; fph-scan --region all shows what else there is",
				    t->pid, t->comm);
			return NULL;
		}
		return areas;
	}
	areas = g_array_new(FALSE, FALSE, sizeof(struct area));
	for (; *selects; selects++) {
		guint before = areas->len;

		add_selected(t, *selects, areas);
		if (areas->len == before) {
			g_array_unref(areas);
			g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
				    "process %d (%s) has no memory '%s'", t->pid, t->comm,
				    *selects);
			return NULL;
		}
	}
	sort_out(areas);
	return areas;
}

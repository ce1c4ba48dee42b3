/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "record.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "machines.h"

#define FILE_NAME	"fph-pages"
#define FIRST_LINE	"fph-pages 1"
#define HEX		"%" G_GINT64_MODIFIER "x"
#define RANGE		HEX "-" HEX

static const struct {
	guint32 page;
	const char *name;
} page_names[] = {
	{ FPH_PAGE_PRESENT, "present" },
	{ FPH_PAGE_SWAPPED, "swapped" },
	{ FPH_PAGE_ZERO_PAGE, "zero-page" },
	{ FPH_PAGE_HUGE, "huge" },
	{ FPH_PAGE_ZERO_CONTENT, "zero" },
};

/* Addresses that tell nothing: a GiB and more behind the region before */
#define GIB	(UINT64_C(1) << 30)
#define HIGHEST	(UINT64_C(1) << 46)

static guint64 moved(const struct record *rec, guint64 address)
{
	return address - rec->start + rec->recorded_start;
}

void record_region(struct record *rec, const struct region *r)
{
	guint64 end = rec->recorded_start ? rec->recorded_end : HIGHEST;

	rec->recorded_start = rec->start = r->start;
	if (rec->anonymize)
		rec->recorded_start = (end + 2 * GIB - 1) / GIB * GIB;
	rec->recorded_end = moved(rec, r->end);
	g_array_append_val(rec->starts, rec->recorded_start);
	g_string_append_printf(rec->text, "region " RANGE " %s %s %s\n", rec->recorded_start,
			       rec->recorded_end, fph_backing_name(r->backing), r->method,
			       r->why ? r->why : "");
}

/* Pages of which nothing is known but that they are there need no line */
void record_pages(struct record *rec, guint64 start, guint64 len, guint32 page)
{
	if (!page)
		return;
	start = moved(rec, start);
	g_string_append_printf(rec->text, "pages " RANGE " ", start, start + len);
	for (guint i = 0; i < G_N_ELEMENTS(page_names); i++)
		if (page & page_names[i].page)
			g_string_append_printf(rec->text, "%s,", page_names[i].name);
	rec->text->str[rec->text->len - 1] = '\n';
}

void record_found(struct record *rec, guint64 start, guint64 len, enum fph_reason why)
{
	start = moved(rec, start);
	g_string_append_printf(rec->text, "found " RANGE " %s\n", start, start + len,
			       fph_reason_name(why));
}

static bool write_file(const char *dir, const char *name, const char *data, gssize len,
		       GError **error)
{
	g_autofree char *path = g_build_filename(dir, name, NULL);

	return g_file_set_contents(path, data, len, error);
}

/* What is behind a mapping, without what it is called */
static const char *kind_of(const char *name)
{
	static const char *const kinds[][2] = {
		{ "/memfd:", "/memfd:ram (deleted)" },
		{ "/dev/shm/", "/dev/shm/ram" },
		{ "/dev/zero", "/dev/zero (deleted)" },
		{ "/anon_hugepage", "/anon_hugepage (deleted)" },
		{ "/", "/ram" },
	};

	if (strstr(name, "/hugepages"))
		return "/dev/hugepages/ram";
	for (guint i = 0; i < G_N_ELEMENTS(kinds); i++)
		if (g_str_has_prefix(name, kinds[i][0]))
			return kinds[i][1];
	return "";
}

/* A line for each region that the mapping of @line is in; false: it is in none */
static bool anonymous_mapping(const struct record *rec, const struct target *t,
			      const struct census *c, const char *line, GString *out)
{
	gsize before = out->len;
	guint64 start, end;

	if (sscanf(line, RANGE, &start, &end) != 2)
		return false;
	for (guint i = 0; i < c->regions->len; i++) {
		const struct region *r = c->regions->pdata[i];
		guint64 shift = g_array_index(rec->starts, guint64, i) - r->start;

		for (guint k = 0; start < r->end && end > r->start && k < t->mappings->len; k++) {
			const struct mapping *m = t->mappings->pdata[k];
			bool file = m->inode != 0;

			/* The whole mapping can be more than the region that was asked for */
			if (m->start != start)
				continue;
			g_string_append_printf(out, RANGE " %c%c%c%c %08" G_GINT64_MODIFIER "x 00:%02x %u %s\n",
					       MAX(m->start, r->start) + shift,
					       MIN(m->end, r->end) + shift,
					       m->readable ? 'r' : '-', m->writable ? 'w' : '-',
					       m->executable ? 'x' : '-', m->shared ? 's' : 'p',
					       file ? m->offset : 0, file ? 1 : 0, file ? i + 1 : 0,
					       kind_of(m->name));
		}
	}
	return out->len > before;
}

/* maps, or smaps, whose lines of figures follow that of their mapping */
static char *anonymous_maps(const struct record *rec, const struct target *t,
			    const struct census *c, const char *text)
{
	g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
	GString *out = g_string_new(NULL);
	bool in = false;

	for (char **line = lines; *line; line++) {
		if (!g_ascii_isupper(**line))
			in = anonymous_mapping(rec, t, c, *line, out);
		else if (in)
			g_string_append_printf(out, "%s\n", *line);
	}
	return g_string_free(out, FALSE);
}

/* What it is, and the sizes of memory, by which RAM is found */
static char *anonymous_cmdline(const struct target *t, const struct census *c, gsize *len)
{
	GString *out = g_string_new(machine_vmm(t->cmdline));

	g_string_append_c(out, 0);
	for (guint i = 0; i < c->regions->len; i++) {
		const struct region *r = c->regions->pdata[i];

		g_string_append_printf(out, "-m%c%" G_GUINT64_FORMAT "b", 0, r->v[F_SIZE]);
		g_string_append_c(out, 0);
	}
	*len = out->len;
	return g_string_free(out, FALSE);
}

char *record_anonymous(const struct record *rec, const struct target *t, const struct census *c,
		       const char *name, const char *text, gsize *len)
{
	char *ret;

	if (strcmp(name, "cmdline") == 0)
		return anonymous_cmdline(t, c, len);
	ret = strcmp(name, "comm") == 0 ? g_strdup("vm\n") : anonymous_maps(rec, t, c, text);
	*len = strlen(ret);
	return ret;
}

static bool write_proc(const struct record *rec, const struct target *t, const struct census *c,
		       const char *dir, const char *name, GError **error)
{
	g_autofree char *data = NULL, *text = NULL;
	gsize len;

	data = target_read(t, name, &len, error);
	if (!data)
		return false;
	if (rec->anonymize)
		text = record_anonymous(rec, t, c, name, data, &len);
	return write_file(dir, name, text ? text : data, len, error);
}

bool record_write(const struct record *rec, const struct target *t, const struct census *c,
		  const char *sysroot, GError **error)
{
	static const char *const files[] = { "comm", "cmdline", "maps", "smaps" };
	g_autofree char *dir = g_strdup_printf("%s/proc/%d", sysroot, t->pid);
	g_autofree char *pages = NULL;

	if (g_file_test(dir, G_FILE_TEST_EXISTS)) {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_EXISTS, "%s: is there already", dir);
		return false;
	}
	/* What a process has where is nobody else's business */
	if (g_mkdir_with_parents(dir, 0700) < 0) {
		g_set_error(error, G_IO_ERROR, g_io_error_from_errno(errno), "%s: %s", dir,
			    g_strerror(errno));
		return false;
	}
	for (guint i = 0; i < G_N_ELEMENTS(files); i++)
		if (!write_proc(rec, t, c, dir, files[i], error))
			return false;
	pages = g_strdup_printf(FIRST_LINE "\nscanner %s\npage-size %" G_GUINT64_FORMAT
				"\ncontent %d\n%s", c->scanner, c->page_size, c->content,
				rec->text->str);
	return write_file(dir, FILE_NAME, pages, -1, error);
}

bool record_exists(const struct target *t)
{
	return faccessat(t->dir, FILE_NAME, F_OK, 0) == 0;
}

static bool parse_page(const char *text, guint32 *ret)
{
	g_auto(GStrv) words = g_strsplit(text, ",", -1);

	*ret = 0;
	for (char **w = words; *w; w++) {
		guint i = 0;

		while (i < G_N_ELEMENTS(page_names) && strcmp(page_names[i].name, *w) != 0)
			i++;
		if (i == G_N_ELEMENTS(page_names))
			return false;
		*ret |= page_names[i].page;
	}
	return true;
}

static bool parse_reason(const char *text, enum fph_reason *ret)
{
	for (*ret = 0; *ret < FPH_REASON_MAX; (*ret)++)
		if (strcmp(text, fph_reason_name(*ret)) == 0)
			return true;
	return false;
}

static bool parse_backing(const char *text, enum fph_backing *ret)
{
	for (*ret = 0; *ret < FPH_BACKING_MAX; (*ret)++)
		if (strcmp(text, fph_backing_name(*ret)) == 0)
			return true;
	return false;
}

/* False: it is there already, and what was counted of it would be lost in part */
static bool replay_region(struct census *c, guint64 start, guint64 end, enum fph_backing backing,
			  const char *method, const char *why)
{
	for (guint i = 0; i < c->regions->len; i++) {
		struct region *r = c->regions->pdata[i];

		if (r->start < start || r->end > end)
			continue;
		if (r->method)
			return false;
		r->backing = backing;
		r->method = g_strdup(method);
		r->why = *why ? g_strdup(why) : NULL;
		census_begin(c, r);
	}
	return true;
}

/* What is being read: its lines of one kind ascend, else a page would count twice */
struct replay {
	struct census *c;
	guint64 pages_end, found_end;
};

/* One line after the header; false if it is none */
static bool replay_line(struct replay *replay, const char *line)
{
	struct census *c = replay->c;
	g_auto(GStrv) w = g_strsplit(line, " ", 5);
	guint n = g_strv_length(w);
	enum fph_backing backing;
	enum fph_reason why;
	guint64 start, end, *last;
	guint32 page;
	bool pages;
	int at = 0;

	if (n == 2 && strcmp(w[0], "scanner") == 0) {
		g_free(c->scanner);
		c->scanner = g_strdup(w[1]);
		return true;
	}
	if (n == 2 && strcmp(w[0], "page-size") == 0) {
		c->page_size = g_ascii_strtoull(w[1], NULL, 10);
		return c->page_size >= 512 && !(c->page_size & (c->page_size - 1));
	}
	if (n == 2 && strcmp(w[0], "content") == 0) {
		c->content = strcmp(w[1], "1") == 0;
		return true;
	}
	if (n < 3 || !c->scanner || sscanf(w[1], RANGE "%n", &start, &end, &at) != 2 ||
	    w[1][at] || end <= start)
		return false;
	if (strcmp(w[0], "region") == 0) {
		return n >= 4 && parse_backing(w[2], &backing) &&
		       replay_region(c, start, end, backing, w[3], n > 4 ? w[4] : "");
	}
	pages = strcmp(w[0], "pages") == 0 && n == 3 && parse_page(w[2], &page);
	if (!pages && !(strcmp(w[0], "found") == 0 && n == 3 && parse_reason(w[2], &why)))
		return false;
	last = pages ? &replay->pages_end : &replay->found_end;
	if (start < *last)
		return false;
	*last = end;
	/* Of a line, what is in a region that is looked at */
	for (guint i = 0; i < c->regions->len; i++) {
		struct region *r = c->regions->pdata[i];
		guint64 len;

		if (end <= r->start || start >= r->end || !r->method)
			continue;
		len = MIN(end, r->end) - MAX(start, r->start);
		if (pages)
			census_add_pages(r, len, page);
		else
			census_add_found(r, len, why);
	}
	return true;
}

bool record_parse(const char *text, const char *path, struct census *c, GError **error)
{
	g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
	struct replay replay = { .c = c };

	if (g_strcmp0(lines[0], FIRST_LINE) != 0) {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
			    "%s: does not begin with '" FIRST_LINE "'", path);
		return false;
	}
	for (guint i = 1; lines[i]; i++) {
		if (*lines[i] && !replay_line(&replay, lines[i])) {
			g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
				    "%s:%u: '%s'", path, i + 1, lines[i]);
			return false;
		}
	}
	for (guint i = 0; i < c->regions->len; i++) {
		struct region *r = c->regions->pdata[i];

		if (r->method)
			continue;
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
			    "%s: " RANGE " was not recorded", path, r->start, r->end);
		return false;
	}
	if (!c->scanner)
		c->scanner = g_strdup("unknown");
	return true;
}

bool record_replay(const struct target *t, struct census *c, GError **error)
{
	g_autofree char *text = target_read_record(t, FILE_NAME, error);
	g_autofree char *path = g_build_filename(t->path, FILE_NAME, NULL);

	return text && record_parse(text, path, c, error);
}

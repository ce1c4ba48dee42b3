/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "record.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

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

void record_region(struct record *rec, const struct region *r)
{
	g_string_append_printf(rec->text, "region " RANGE " %s %s %s\n", r->start, r->end,
			       fph_backing_name(r->backing), r->method, r->why ? r->why : "");
}

/* Pages of which nothing is known but that they are there need no line */
void record_pages(struct record *rec, guint64 start, guint64 len, guint32 page)
{
	if (!page)
		return;
	g_string_append_printf(rec->text, "pages " RANGE " ", start, start + len);
	for (guint i = 0; i < G_N_ELEMENTS(page_names); i++)
		if (page & page_names[i].page)
			g_string_append_printf(rec->text, "%s,", page_names[i].name);
	rec->text->str[rec->text->len - 1] = '\n';
}

void record_found(struct record *rec, guint64 start, guint64 len, enum fph_reason why)
{
	g_string_append_printf(rec->text, "found " RANGE " %s\n", start, start + len,
			       fph_reason_name(why));
}

static bool write_file(const char *dir, const char *name, const char *data, gssize len,
		       GError **error)
{
	g_autofree char *path = g_build_filename(dir, name, NULL);

	return g_file_set_contents(path, data, len, error);
}

static bool copy_file(const char *dir, const struct target *t, const char *name, GError **error)
{
	g_autofree char *data = NULL;
	gsize len;

	data = target_read(t, name, &len, error);
	return data && write_file(dir, name, data, len, error);
}

bool record_write(const struct record *rec, const struct target *t, const struct census *c,
		  const char *sysroot, GError **error)
{
	g_autofree char *dir = g_strdup_printf("%s/proc/%d", sysroot, t->pid);
	g_autofree char *pages = NULL;

	if (g_file_test(dir, G_FILE_TEST_EXISTS)) {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_EXISTS, "%s: is there already", dir);
		return false;
	}
	if (g_mkdir_with_parents(dir, 0777) < 0) {
		g_set_error(error, G_IO_ERROR, g_io_error_from_errno(errno), "%s: %s", dir,
			    g_strerror(errno));
		return false;
	}
	pages = g_strdup_printf(FIRST_LINE "\nscanner %s\npage-size %" G_GUINT64_FORMAT
				"\ncontent %d\n%s", c->scanner, c->page_size, c->content,
				rec->text->str);
	return copy_file(dir, t, "comm", error) && copy_file(dir, t, "cmdline", error) &&
	       copy_file(dir, t, "maps", error) && copy_file(dir, t, "smaps", error) &&
	       write_file(dir, FILE_NAME, pages, -1, error);
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

static void replay_region(struct census *c, guint64 start, guint64 end, enum fph_backing backing,
			  const char *method, const char *why)
{
	for (guint i = 0; i < c->regions->len; i++) {
		struct region *r = c->regions->pdata[i];

		if (r->start < start || r->end > end)
			continue;
		r->backing = backing;
		g_free(r->method);
		g_free(r->why);
		r->method = g_strdup(method);
		r->why = *why ? g_strdup(why) : NULL;
		census_begin(c, r);
	}
}

/* One line after the header; false if it is none */
static bool replay_line(struct census *c, const char *line)
{
	g_auto(GStrv) w = g_strsplit(line, " ", 5);
	guint n = g_strv_length(w);
	enum fph_backing backing;
	enum fph_reason why;
	guint64 start, end;
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
		if (n < 4 || !parse_backing(w[2], &backing))
			return false;
		replay_region(c, start, end, backing, w[3], n > 4 ? w[4] : "");
		return true;
	}
	pages = strcmp(w[0], "pages") == 0 && n == 3 && parse_page(w[2], &page);
	if (!pages && !(strcmp(w[0], "found") == 0 && n == 3 && parse_reason(w[2], &why)))
		return false;
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

bool record_replay(const struct target *t, struct census *c, GError **error)
{
	g_autofree char *text = target_read(t, FILE_NAME, NULL, error);
	g_auto(GStrv) lines = NULL;

	if (!text)
		return false;
	lines = g_strsplit(text, "\n", -1);
	if (g_strcmp0(lines[0], FIRST_LINE) != 0) {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
			    "%s/" FILE_NAME ": does not begin with '" FIRST_LINE "'", t->path);
		return false;
	}
	for (guint i = 1; lines[i]; i++) {
		if (*lines[i] && !replay_line(c, lines[i])) {
			g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
				    "%s/" FILE_NAME ":%u: '%s'", t->path, i + 1, lines[i]);
			return false;
		}
	}
	for (guint i = 0; i < c->regions->len; i++) {
		struct region *r = c->regions->pdata[i];

		if (r->method)
			continue;
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
			    "%s/" FILE_NAME ": " RANGE " was not recorded", t->path, r->start,
			    r->end);
		return false;
	}
	if (!c->scanner)
		c->scanner = g_strdup("unknown");
	return true;
}

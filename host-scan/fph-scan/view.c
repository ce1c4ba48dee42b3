/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "view.h"

#include <json-glib/json-glib.h>
#include <string.h>

#define WIDTH	80

enum kind {
	K_NUMBER,		/* of a region */
	K_START,
	K_END,
	K_BACKING,
	K_METHOD,
	K_NAME,
	K_WHY,
	K_CHANGED,
	K_BYTES,		/* figure @what; MiB in text */
	/* of an estimate */
	K_MODE,
	K_SENT_BYTES,
	K_SENT_PAGES,
	K_SENT_ZERO,
	K_SECONDS,
	K_PART,
	K_FILE_BYTES,
};

struct column {
	const char *key;	/* in JSON */
	const char *head;	/* in text; NULL: JSON only */
	int width;		/* negative: to the left; 0: the rest of the line */
	enum kind kind;
	enum figure what;
	const char *help;
};

/* Where the regions are */
static const struct column where[] = {
	{ "region", "region", -7, K_NUMBER, 0, "number of the region" },
	{ "start", "start", 15, K_START, 0, "its first address" },
	{ "end", NULL, 0, K_END, 0, "the address behind its last byte" },
	{ "size", "MiB", 10, K_BYTES, F_SIZE, "size" },
	{ "backing", "  backing", -16, K_BACKING, 0, "what is behind it: anon, shmem (memfd, tmpfs), hugetlb, file ..." },
	{ "method", "method", -18, K_METHOD, 0, "how absent pages are found; none: they cannot be" },
	{ "name", "name", 0, K_NAME, 0, "name of the mapping" },
	{ "reason", NULL, 0, K_WHY, 0, "why nothing can be found; only with method none" },
	{ "changed", NULL, 0, K_CHANGED, 0, "it was unmapped, at least in part, meanwhile" },
	{ NULL },
};

/* What is in them */
static const struct column what[] = {
	{ "region", "region", -7, K_NUMBER, 0, NULL },
	{ "present", "present", 12, K_BYTES, F_PRESENT, "pages in memory, as far as this process has mapped them" },
	{ "huge", "huge", 12, K_BYTES, F_HUGE, "part of present: in huge pages" },
	{ "zero", "zero", 12, K_BYTES, F_ZERO, "part of present: read, and all zero; with --content" },
	{ "swapped", "swapped", 12, K_BYTES, F_SWAPPED, "pages in swap" },
	{ "zero_mapped", "zero-mapped", 12, K_BYTES, F_ZERO_MAPPED, "pages for which the host maps its zero page" },
	{ "unmapped", "unmapped", 12, K_BYTES, F_UNMAPPED, "pages that the host never gave memory for" },
	{ NULL },
};

/* What a migration would send */
static const struct column sends[] = {
	{ "mode", "mode", -8, K_MODE, 0, "none: QEMU as it is; pagemap: with fph-source; prescan: it also reads pages ahead" },
	{ "bytes", "MiB", 12, K_SENT_BYTES, 0, "data sent" },
	{ "pages", "pages", 12, K_SENT_PAGES, 0, "pages sent with their content" },
	{ "zero_pages", "zero pages", 12, K_SENT_ZERO, 0, "pages read, found to be zero and sent as such" },
	{ "seconds", "seconds", 12, K_SECONDS, 0, "time for the data, at the bandwidth given" },
	{ "part", "of none", 10, K_PART, 0, "data as a part of that in mode none" },
	{ "file_bytes", "file MiB", 12, K_FILE_BYTES, 0, "pages that a save with mapped-ram writes; zero pages are read for it, too" },
	{ NULL },
};

static char *number(guint64 v)
{
	return v == UNKNOWN ? g_strdup("-") : g_strdup_printf("%" G_GUINT64_FORMAT, v);
}

static char *mib(guint64 v)
{
	return v == UNKNOWN ? g_strdup("-") : g_strdup_printf("%.1f", v / 1048576.0);
}

char *view_printable(const char *text)
{
	g_autofree char *valid = g_utf8_make_valid(text, -1);
	GString *out = g_string_new(NULL);

	for (const char *c = valid; *c; c = g_utf8_next_char(c)) {
		gunichar u = g_utf8_get_char(c);

		g_string_append_unichar(out, g_unichar_iscntrl(u) ? '?' : u);
	}
	return g_string_free(out, FALSE);
}

/* A memfd is always deleted */
static char *short_name(const char *name)
{
	const char *end = g_strrstr(name, " (deleted)");
	g_autofree char *text = end ? g_strndup(name, end - name) : g_strdup(name);

	return view_printable(text);
}

static char *region_cell(const struct column *col, const struct region *r)
{
	switch (col->kind) {
	case K_NUMBER:
		return number(r->number);
	case K_START:
		return g_strdup_printf("0x%" G_GINT64_MODIFIER "x", r->start);
	case K_BACKING:
		return g_strdup_printf("  %s", fph_backing_name(r->backing));
	case K_METHOD:
		return view_printable(r->method);
	case K_NAME:
		return short_name(r->name);
	case K_BYTES:
		return mib(r->v[col->what]);
	default:
		g_assert_not_reached();
	}
}

static char *estimate_cell(const struct column *col, const struct estimate *e)
{
	bool unknown = e->bytes == UNKNOWN;

	switch (col->kind) {
	case K_MODE:
		return g_strdup(e->mode);
	case K_SENT_BYTES:
		return mib(e->bytes);
	case K_FILE_BYTES:
		return mib(e->file_bytes);
	case K_SENT_PAGES:
		return number(e->pages);
	case K_SENT_ZERO:
		return number(e->zero_pages);
	case K_SECONDS:
		return unknown ? g_strdup("-") : g_strdup_printf("%.3f", e->seconds);
	case K_PART:
		return unknown ? g_strdup("-") : g_strdup_printf("%.1f%%", e->part * 100);
	default:
		g_assert_not_reached();
	}
}

static void end_line(GString *out)
{
	while (out->len && out->str[out->len - 1] == ' ')
		g_string_truncate(out, out->len - 1);
	g_string_append_c(out, '\n');
}

/* A name can have any length, and end the line */
static void add_cell(GString *out, const struct column *col, const char *text)
{
	gsize line = out->len;

	g_string_append_printf(out, "%*s", col->width, text);
	if (col->width)
		return;
	while (line && out->str[line - 1] != '\n')
		line--;
	if (out->len - line > WIDTH) {
		g_string_truncate(out, line + WIDTH);
		while (!g_utf8_validate(out->str, out->len, NULL) && out->len > line)
			g_string_truncate(out, out->len - 1);
	}
}

static void add_heads(GString *out, const struct column *cols)
{
	g_string_append_c(out, '\n');
	for (; cols->key; cols++)
		if (cols->head)
			add_cell(out, cols, cols->head);
	end_line(out);
}

static void add_regions(GString *out, const struct census *c, const struct column *cols)
{
	add_heads(out, cols);
	for (guint i = 0; i < c->regions->len; i++) {
		for (const struct column *col = cols; col->key; col++) {
			g_autofree char *text = NULL;

			if (!col->head)
				continue;
			text = region_cell(col, c->regions->pdata[i]);
			add_cell(out, col, text);
		}
		end_line(out);
	}
}

static void add_sum(GString *out, const struct census *c)
{
	g_string_append_printf(out, "%*s", what[0].width, "all");
	for (const struct column *col = what + 1; col->key; col++) {
		g_autofree char *text = mib(c->sum[col->what]);

		add_cell(out, col, text);
	}
	end_line(out);
}

static void add_estimates(GString *out, const struct census *c, double bandwidth)
{
	add_heads(out, sends);
	for (guint i = 0; i < MODE_MAX; i++) {
		struct estimate e = estimate(c, i, bandwidth);

		for (const struct column *col = sends; col->key; col++) {
			g_autofree char *text = estimate_cell(col, &e);

			add_cell(out, col, text);
		}
		end_line(out);
	}
}

static void add_wrapped(GString *out, const char *sentence)
{
	g_autofree char *text = view_printable(sentence);
	g_auto(GStrv) words = g_strsplit(text, " ", -1);
	gsize at = 0;

	for (char **w = words; *w; w++) {
		gsize len = g_utf8_strlen(*w, -1);

		if (at && at + 1 + len > WIDTH) {
			g_string_append_c(out, '\n');
			at = 0;
		} else if (at) {
			g_string_append_c(out, ' ');
			at++;
		}
		g_string_append(out, *w);
		at += len;
	}
	g_string_append_c(out, '\n');
}

char *view_text(const struct census *c, double bandwidth)
{
	g_autofree char *size = size_words(c->sum[F_SIZE]);
	g_autofree char *comm = view_printable(c->comm);
	g_autofree char *scanner = view_printable(c->scanner);
	g_autoptr(GPtrArray) sentences = advice(c);
	GString *out = g_string_new(NULL);

	g_string_append_printf(out, "process %d (%s): %s of guest RAM, by %s", c->pid, comm, size,
			       scanner);
	if (c->ns)
		g_string_append_printf(out, " in %.1f ms", c->ns / 1e6);
	g_string_append_c(out, '\n');
	add_regions(out, c, where);
	add_regions(out, c, what);
	if (c->regions->len > 1)
		add_sum(out, c);
	add_estimates(out, c, bandwidth);
	g_string_append_c(out, '\n');
	for (guint i = 0; i < sentences->len; i++)
		add_wrapped(out, sentences->pdata[i]);
	return g_string_free(out, FALSE);
}

static void add_member(JsonBuilder *b, const char *key, guint64 v)
{
	json_builder_set_member_name(b, key);
	if (v == UNKNOWN)
		json_builder_add_null_value(b);
	else
		json_builder_add_int_value(b, v);
}

/* Names are bytes; JSON is UTF-8, and 0x1f is what json-glib forgets to escape */
static void add_string(JsonBuilder *b, const char *bytes)
{
	g_autofree char *text = g_utf8_make_valid(bytes, -1);

	json_builder_add_string_value(b, g_strdelimit(text, "\x1f", '?'));
}

static void add_text(JsonBuilder *b, const char *key, const char *bytes)
{
	json_builder_set_member_name(b, key);
	add_string(b, bytes);
}

static void add_address(JsonBuilder *b, const char *key, guint64 address)
{
	g_autofree char *text = g_strdup_printf("0x%" G_GINT64_MODIFIER "x", address);

	add_text(b, key, text);
}

static void region_members(JsonBuilder *b, const struct column *cols, const struct region *r)
{
	for (; cols->key; cols++) {
		switch (cols->kind) {
		case K_NUMBER:
			if (cols->help)		/* the second table has it again */
				add_member(b, cols->key, r->number);
			break;
		case K_START:
			add_address(b, cols->key, r->start);
			break;
		case K_END:
			add_address(b, cols->key, r->end);
			break;
		case K_BACKING:
			add_text(b, cols->key, fph_backing_name(r->backing));
			break;
		case K_METHOD:
			add_text(b, cols->key, r->method);
			break;
		case K_NAME:
			add_text(b, cols->key, r->name);
			break;
		case K_WHY:
			if (r->why)
				add_text(b, cols->key, r->why);
			break;
		case K_CHANGED:
			json_builder_set_member_name(b, cols->key);
			json_builder_add_boolean_value(b, r->changed);
			break;
		case K_BYTES:
			add_member(b, cols->key, r->v[cols->what]);
			break;
		default:
			g_assert_not_reached();
		}
	}
}

static void estimate_members(JsonBuilder *b, const struct estimate *e)
{
	bool unknown = e->bytes == UNKNOWN;

	for (const struct column *col = sends; col->key; col++) {
		switch (col->kind) {
		case K_MODE:
			add_text(b, col->key, e->mode);
			break;
		case K_SENT_BYTES:
			add_member(b, col->key, e->bytes);
			break;
		case K_FILE_BYTES:
			add_member(b, col->key, e->file_bytes);
			break;
		case K_SENT_PAGES:
			add_member(b, col->key, e->pages);
			break;
		case K_SENT_ZERO:
			add_member(b, col->key, e->zero_pages);
			break;
		case K_SECONDS:
		case K_PART:
			json_builder_set_member_name(b, col->key);
			if (unknown)
				json_builder_add_null_value(b);
			else
				json_builder_add_double_value(b, col->kind == K_PART ? e->part :
								 e->seconds);
			break;
		default:
			g_assert_not_reached();
		}
	}
}

static void census_members(JsonBuilder *b, const struct census *c, double bandwidth)
{
	g_autoptr(GPtrArray) sentences = advice(c);

	add_member(b, "schema", 1);
	add_text(b, "tool", "fph-scan");
	add_text(b, "version", fph_version());
	add_member(b, "pid", c->pid);
	add_text(b, "comm", c->comm);
	add_text(b, "command", c->command);
	add_text(b, "scanner", c->scanner);
	add_member(b, "page_size", c->page_size);
	add_member(b, "scan_ns", c->ns);
	add_member(b, "bandwidth", bandwidth);

	json_builder_set_member_name(b, "regions");
	json_builder_begin_array(b);
	for (guint i = 0; i < c->regions->len; i++) {
		json_builder_begin_object(b);
		region_members(b, where, c->regions->pdata[i]);
		region_members(b, what, c->regions->pdata[i]);
		json_builder_end_object(b);
	}
	json_builder_end_array(b);

	json_builder_set_member_name(b, "total");
	json_builder_begin_object(b);
	add_member(b, "size", c->sum[F_SIZE]);
	for (const struct column *col = what + 1; col->key; col++)
		add_member(b, col->key, c->sum[col->what]);
	json_builder_end_object(b);

	json_builder_set_member_name(b, "estimates");
	json_builder_begin_array(b);
	for (guint i = 0; i < MODE_MAX; i++) {
		struct estimate e = estimate(c, i, bandwidth);

		json_builder_begin_object(b);
		estimate_members(b, &e);
		json_builder_end_object(b);
	}
	json_builder_end_array(b);

	json_builder_set_member_name(b, "advice");
	json_builder_begin_array(b);
	for (guint i = 0; i < sentences->len; i++)
		add_string(b, sentences->pdata[i]);
	json_builder_end_array(b);
}

char *view_json(const struct census *c, double bandwidth, bool pretty)
{
	g_autoptr(JsonBuilder) b = json_builder_new();
	g_autoptr(JsonNode) root = NULL;
	g_autofree char *text = NULL;

	json_builder_begin_object(b);
	census_members(b, c, bandwidth);
	json_builder_end_object(b);
	root = json_builder_get_root(b);
	text = json_to_string(root, pretty);
	return g_strconcat(text, "\n", NULL);
}

/* Virtual machines to choose from */
static const struct column choice[] = {
	{ "pid", "    pid", 7, K_NUMBER, 0, "of the process" },
	{ "rss", "MiB", 12, K_BYTES, 0, "memory it has" },
	{ "name", "  name", -24, K_NAME, 0, "of the guest" },
	{ "program", "program", 0, K_METHOD, 0, "that it runs in" },
	{ NULL },
};

static char *machine_cell(const struct column *col, const struct machine *m)
{
	g_autofree char *name = NULL;

	switch (col->kind) {
	case K_NUMBER:
		return number(m->pid);
	case K_BYTES:
		return mib(m->rss);
	case K_NAME:
		name = view_printable(m->name);
		return g_strdup_printf("  %s ", *name ? name : "-");
	default:
		return view_printable(m->program);
	}
}

static char *machines_json(const GPtrArray *machines)
{
	g_autoptr(JsonBuilder) b = json_builder_new();
	g_autoptr(JsonNode) root = NULL;
	g_autofree char *text = NULL;

	json_builder_begin_object(b);
	add_member(b, "schema", 1);
	add_text(b, "tool", "fph-scan");
	add_text(b, "version", fph_version());
	json_builder_set_member_name(b, "machines");
	json_builder_begin_array(b);
	for (guint i = 0; i < machines->len; i++) {
		const struct machine *m = machines->pdata[i];

		json_builder_begin_object(b);
		add_member(b, "pid", m->pid);
		add_member(b, "rss", m->rss);
		add_text(b, "name", m->name);
		add_text(b, "program", m->program);
		json_builder_end_object(b);
	}
	json_builder_end_array(b);
	json_builder_end_object(b);
	root = json_builder_get_root(b);
	text = json_to_string(root, true);
	return g_strconcat(text, "\n", NULL);
}

char *view_machines(const GPtrArray *machines, bool json)
{
	GString *out;

	if (json)
		return machines_json(machines);
	out = g_string_new("Several virtual machines; --pid PID shows one:\n");
	add_heads(out, choice);
	for (guint i = 0; i < machines->len; i++) {
		for (const struct column *col = choice; col->key; col++) {
			g_autofree char *text = machine_cell(col, machines->pdata[i]);

			add_cell(out, col, text);
		}
		end_line(out);
	}
	return g_string_free(out, FALSE);
}

static void add_help(GString *out, const struct column *cols)
{
	for (; cols->key; cols++)
		if (cols->help)
			g_string_append_printf(out, "  %-12s %s\n", cols->key, cols->help);
}

char *view_help(void)
{
	GString *out = g_string_new("Columns, by their names in JSON; MiB in text, bytes in JSON:\n");

	add_help(out, where);
	add_help(out, what);
	g_string_append(out, "\nOf virtual machines, if there are several and no --pid:\n");
	add_help(out, choice);
	g_string_append(out, "\nOf the estimates:\n");
	add_help(out, sends);
	return g_string_free(out, FALSE);
}

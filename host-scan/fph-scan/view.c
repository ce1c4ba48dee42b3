/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "view.h"
#include "text.h"

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
	/* of a virtual machine */
	K_VMM,
	K_KVM,
	K_RAM,
	K_LEFT_OUT,		/* in mode @what */
	K_PROGRAM,
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
	int what;		/* enum figure, or enum mode */
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

/* A memfd is always deleted */
static char *short_name(const char *name)
{
	const char *end = g_strrstr(name, " (deleted)");
	g_autofree char *text = end ? g_strndup(name, end - name) : g_strdup(name);

	return text_printable(text);
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
		return text_printable(r->method);
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

static void add_estimate(GString *out, const struct estimate *e)
{
	for (const struct column *col = sends; col->key; col++) {
		g_autofree char *text = estimate_cell(col, e);

		add_cell(out, col, text);
	}
	end_line(out);
}

/* The line has @indent columns already; the next ones begin there, too */
static void add_words(GString *out, const char *sentence, gsize indent)
{
	g_autofree char *text = text_printable(sentence);
	g_auto(GStrv) words = g_strsplit(text, " ", -1);
	gsize at = indent;

	for (char **w = words; *w; w++) {
		gsize len = g_utf8_strlen(*w, -1);

		if (at > indent && at + 1 + len > WIDTH) {
			g_string_append_printf(out, "\n%*s", (int)indent, "");
			at = indent;
		} else if (at > indent) {
			g_string_append_c(out, ' ');
			at++;
		}
		g_string_append(out, *w);
		at += len;
	}
	g_string_append_c(out, '\n');
}

static void add_wrapped(GString *out, const char *sentence)
{
	add_words(out, sentence, 0);
}

char *view_text(const struct census *c, double bandwidth)
{
	g_autofree char *size = size_words(c->sum[F_SIZE]);
	g_autofree char *comm = text_printable(c->comm);
	g_autofree char *scanner = text_printable(c->scanner);
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
	add_heads(out, sends);
	for (guint i = 0; i < MODE_MAX; i++) {
		struct estimate e = estimate(c, i, bandwidth);

		add_estimate(out, &e);
	}
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

/* Names are bytes; JSON is UTF-8 */
static void add_string(JsonBuilder *b, const char *bytes)
{
	g_autofree char *text = g_utf8_make_valid(bytes, -1);

	json_builder_add_string_value(b, text);
}

/* json-glib leaves 0x1f, and those of two bytes, which control a terminal, too */
static char *escape_controls(const char *json)
{
	GString *out = g_string_new(NULL);

	for (const char *c = json; *c; c = g_utf8_next_char(c)) {
		gunichar u = g_utf8_get_char(c);

		if (g_unichar_iscntrl(u) && u != '\n')
			g_string_append_printf(out, "\\u%04x", u);
		else
			g_string_append_unichar(out, u);
	}
	return g_string_free(out, FALSE);
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

static void add_object(JsonBuilder *b, const struct estimate *e)
{
	bool unknown = e->bytes == UNKNOWN;

	json_builder_begin_object(b);
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
	json_builder_end_object(b);
}

static void begin_json(JsonBuilder *b)
{
	json_builder_begin_object(b);
	add_member(b, "schema", 1);
	add_text(b, "tool", "fph-scan");
	add_text(b, "version", fph_version());
}

static char *end_json(JsonBuilder *b, bool pretty)
{
	g_autoptr(JsonNode) root = NULL;
	g_autofree char *text = NULL, *escaped = NULL;

	json_builder_end_object(b);
	root = json_builder_get_root(b);
	text = json_to_string(root, pretty);
	escaped = escape_controls(text);
	return g_strconcat(escaped, "\n", NULL);
}

static void census_members(JsonBuilder *b, const struct census *c, double bandwidth)
{
	g_autoptr(GPtrArray) sentences = advice(c);

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

		add_object(b, &e);
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

	begin_json(b);
	census_members(b, c, bandwidth);
	return end_json(b, pretty);
}

/* Virtual machines of the host */
static const struct column machines[] = {
	{ "pid", "    pid", 7, K_NUMBER, 0, "of the process" },
	{ "vmm", "  vmm", -18, K_VMM, 0, "what it is: qemu, cloud-hypervisor, crosvm, firecracker; kvm: another" },
	{ "kvm", NULL, 0, K_KVM, 0, "it runs by KVM" },
	{ "ram", "ram", 10, K_RAM, 0, "RAM of the guest" },
	{ "present", "present", 10, K_BYTES, F_PRESENT, "as above; of the RAM" },
	{ "pagemap", "pagemap", 10, K_LEFT_OUT, MODE_PAGEMAP, "left out by fph-source with mode=pagemap" },
	{ "prescan", "prescan", 10, K_LEFT_OUT, MODE_PRESCAN, "the same with prescan=on; with --content" },
	{ "name", "  name", 0, K_NAME, 0, "of the guest" },
	{ "program", NULL, 0, K_PROGRAM, 0, "that it runs in" },
	{ "error", NULL, 0, K_WHY, 0, "why it could not be looked at" },
	{ NULL },
};

static guint64 machine_figure(const struct column *col, const struct look *l)
{
	if (col->kind == K_RAM)
		return l->census ? l->census->sum[F_SIZE] : l->machine->ram;
	if (!l->census)
		return UNKNOWN;
	return col->kind == K_BYTES ? l->census->sum[col->what] : left_out(l->census, col->what);
}

static guint64 host_figure(const struct column *col, const struct host *h)
{
	guint64 sum = UNKNOWN;

	for (guint i = 0; i < h->looks->len; i++) {
		const struct look *l = h->looks->pdata[i];
		guint64 v = l->census ? machine_figure(col, l) : UNKNOWN;

		if (v != UNKNOWN)
			sum = (sum == UNKNOWN ? 0 : sum) + v;
	}
	return sum;
}

static char *machine_cell(const struct column *col, const struct look *l)
{
	g_autofree char *name = NULL;

	switch (col->kind) {
	case K_NUMBER:
		return number(l->machine->pid);
	case K_VMM:
		return g_strdup_printf("  %s", l->machine->vmm);
	case K_NAME:
		name = text_printable(l->machine->name);
		return g_strdup_printf("  %s", *name ? name : "-");
	default:
		return mib(machine_figure(col, l));
	}
}

static void add_host_sum(GString *out, const struct host *h, double bandwidth)
{
	for (const struct column *col = machines; col->key; col++) {
		g_autofree char *text = NULL;

		if (!col->head)
			continue;
		if (col->kind == K_NUMBER)
			text = g_strdup("all");
		else if (col->kind == K_VMM || col->kind == K_NAME)
			text = g_strdup("");
		else
			text = mib(host_figure(col, h));
		add_cell(out, col, text);
	}
	end_line(out);
	add_heads(out, sends);
	for (guint i = 0; i < MODE_MAX; i++) {
		struct estimate e = host_estimate(h, i, bandwidth);

		add_estimate(out, &e);
	}
}

char *view_host_text(const struct host *h, double bandwidth, bool sum)
{
	GString *out = g_string_new(NULL);
	guint failed = 0;

	g_string_append_printf(out, "%u virtual machine%s", h->looks->len,
			       h->looks->len == 1 ? "" : "s");
	if (h->ns)
		g_string_append_printf(out, " in %.1f ms", h->ns / 1e6);
	g_string_append(out, ", in MiB; --pid PID shows one in detail\n");
	add_heads(out, machines);
	for (guint i = 0; i < h->looks->len; i++) {
		const struct look *l = h->looks->pdata[i];

		for (const struct column *col = machines; col->key; col++) {
			g_autofree char *text = col->head ? machine_cell(col, l) : NULL;

			if (text)
				add_cell(out, col, text);
		}
		end_line(out);
		failed += !l->census;
	}
	if (sum)
		add_host_sum(out, h, bandwidth);
	if (failed)
		g_string_append_c(out, '\n');
	for (guint i = 0; i < h->looks->len; i++) {
		const struct look *l = h->looks->pdata[i];

		if (l->why)
			add_wrapped(out, l->why);
	}
	if (sum && failed)
		add_wrapped(out, "The sum is without what could not be looked at.");
	return g_string_free(out, FALSE);
}

static void machine_members(JsonBuilder *b, const struct look *l)
{
	for (const struct column *col = machines; col->key; col++) {
		switch (col->kind) {
		case K_NUMBER:
			add_member(b, col->key, l->machine->pid);
			break;
		case K_VMM:
			add_text(b, col->key, l->machine->vmm);
			break;
		case K_KVM:
			json_builder_set_member_name(b, col->key);
			json_builder_add_boolean_value(b, l->machine->kvm);
			break;
		case K_NAME:
			add_text(b, col->key, l->machine->name);
			break;
		case K_PROGRAM:
			add_text(b, col->key, l->machine->program);
			break;
		case K_WHY:
			if (l->why)
				add_text(b, col->key, l->why);
			break;
		default:
			add_member(b, col->key, machine_figure(col, l));
		}
	}
}

static void host_sum_members(JsonBuilder *b, const struct host *h, double bandwidth)
{
	json_builder_set_member_name(b, "total");
	json_builder_begin_object(b);
	for (const struct column *col = machines; col->key; col++)
		if (col->kind == K_RAM || col->kind == K_BYTES || col->kind == K_LEFT_OUT)
			add_member(b, col->key, host_figure(col, h));
	json_builder_end_object(b);
	json_builder_set_member_name(b, "estimates");
	json_builder_begin_array(b);
	for (guint i = 0; i < MODE_MAX; i++) {
		struct estimate e = host_estimate(h, i, bandwidth);

		add_object(b, &e);
	}
	json_builder_end_array(b);
}

char *view_host_json(const struct host *h, double bandwidth, bool sum, bool pretty)
{
	g_autoptr(JsonBuilder) b = json_builder_new();

	begin_json(b);
	add_member(b, "scan_ns", h->ns);
	add_member(b, "bandwidth", bandwidth);
	json_builder_set_member_name(b, "machines");
	json_builder_begin_array(b);
	for (guint i = 0; i < h->looks->len; i++) {
		json_builder_begin_object(b);
		machine_members(b, h->looks->pdata[i]);
		json_builder_end_object(b);
	}
	json_builder_end_array(b);
	if (sum)
		host_sum_members(b, h, bandwidth);
	return end_json(b, pretty);
}

static void add_help(GString *out, const struct column *cols)
{
	for (; cols->key; cols++) {
		gsize line = out->len;

		if (!cols->help)
			continue;
		g_string_append_printf(out, "  %-12s ", cols->key);
		add_words(out, cols->help, out->len - line);
	}
}

char *view_help(void)
{
	GString *out = g_string_new("Columns, by their names in JSON; MiB in text, bytes in JSON:\n");

	add_help(out, where);
	add_help(out, what);
	g_string_append(out, "\nOf the virtual machines of the host:\n");
	add_help(out, machines);
	g_string_append(out, "\nOf the estimates:\n");
	add_help(out, sends);
	return g_string_free(out, FALSE);
}

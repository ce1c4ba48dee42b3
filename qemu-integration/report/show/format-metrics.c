/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "format-metrics.h"

#include <string.h>

/* Units that figures have, and the base units that OpenMetrics wants instead */
static const struct unit {
	const char *suffix;
	const char *name;
	guint64 multiply;
	unsigned int digits;	/* behind the point */
} units[] = {
	{ "_ms", "seconds", 1, 3 },
	{ "_ns", "seconds", 1, 9 },
	{ "_kib", "bytes", 1024, 0 },
	{ "_bytes", "bytes", 1, 0 },
};

/* The unit of a word of a path, such as "rss_kib", "bytes" or "ns"; or NULL */
static const struct unit *unit_of(const char *word)
{
	size_t i;

	for (i = 0; i < G_N_ELEMENTS(units); i++)
		if (g_str_has_suffix(word, units[i].suffix) ||
		    (units[i].suffix[0] == '_' && !strcmp(word, units[i].suffix + 1)))
			return &units[i];
	return NULL;
}

/* A label's value: backslash, quote and newline are escaped */
static char *label(const char *text)
{
	g_autofree char *valid = g_utf8_make_valid(text, -1);
	GString *s = g_string_new(NULL);
	const char *p;

	for (p = valid; *p; p++) {
		if (*p == '\n')
			g_string_append(s, "\\n");
		else if (*p == '\\' || *p == '"')
			g_string_append_printf(s, "\\%c", *p);
		else
			g_string_append_c(s, *p);
	}
	return g_string_free(s, FALSE);
}

static void describe(GString *s, const char *name, const char *unit, const char *help)
{
	g_string_append_printf(s, "# TYPE %s gauge\n", name);
	if (unit)
		g_string_append_printf(s, "# UNIT %s %s\n", name, unit);
	g_string_append_printf(s, "# HELP %s %s\n", name, help);
}

static void value(GString *s, const struct value_desc *d, guint64 v, const char *vm)
{
	g_autoptr(GString) name = g_string_new("fph_migration");
	g_auto(GStrv) words = g_strsplit(d->path, ".", -1);
	const struct unit *u = NULL;
	guint64 scale = 1;
	unsigned int i;

	for (i = 0; words[i]; i++) {
		const struct unit *found = unit_of(words[i]);
		size_t len = strlen(words[i]);

		if (found) {
			u = found;
			len -= MIN(len, strlen(u->suffix));
		}
		if (len)
			g_string_append_printf(name, "_%.*s", (int)len, words[i]);
	}
	if (u)
		g_string_append_printf(name, "_%s", u->name);
	describe(s, name->str, u ? u->name : NULL, d->help);
	for (i = 0; u && i < u->digits; i++)
		scale *= 10;
	g_string_append_printf(s, "%s{vm=\"%s\"} %" G_GUINT64_FORMAT, name->str, vm,
			       v * (u ? u->multiply : 1) / scale);
	if (scale > 1)
		g_string_append_printf(s, ".%0*" G_GUINT64_FORMAT, u->digits, v % scale);
	g_string_append_c(s, '\n');
}

char *format_metrics(const struct run *r, const char *vm, const char *status, gint64 seconds)
{
	g_autofree char *name = label(vm), *mode = label(r->mode), *state = label(status);
	GString *s = g_string_new(NULL);
	int k;

	describe(s, "fph_migration_info", NULL, "the migration, in words");
	g_string_append_printf(s, "fph_migration_info{vm=\"%s\",mode=\"%s\",status=\"%s\"", name, mode,
			       state);
	for (k = 0; k < T_COUNT; k++) {
		g_autofree char *key = g_strdelimit(g_strdup(text_descs[k].path), ".", '_');
		g_autofree char *text = r->text[k] ? label(r->text[k]) : NULL;

		if (text)
			g_string_append_printf(s, ",%s=\"%s\"", key, text);
	}
	g_string_append(s, "} 1\n");
	describe(s, "fph_migration_seen_timestamp_seconds", "seconds", "when these figures were taken");
	g_string_append_printf(s, "fph_migration_seen_timestamp_seconds{vm=\"%s\"} %" G_GINT64_FORMAT
			       "\n", name, seconds);
	for (k = 0; k < V_COUNT; k++)
		if (r->v[k] != NO_VALUE)
			value(s, &value_descs[k], r->v[k], name);
	g_string_append(s, "# EOF\n");
	return g_string_free(s, FALSE);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "guestperf.h"
#include "text.h"

#include <gio/gio.h>
#include <math.h>
#include <string.h>

bool guestperf_is(JsonObject *root)
{
	return json_object_has_member(root, "progress_history") &&
	       json_object_has_member(root, "scenario") && !json_object_has_member(root, "tool");
}

static bool bad(GError **error, const char *what)
{
	g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, "guestperf: %s", what);
	return false;
}

static JsonObject *object(JsonObject *o, const char *name)
{
	JsonNode *n = o ? json_object_get_member(o, name) : NULL;

	return n && JSON_NODE_HOLDS_OBJECT(n) ? json_node_get_object(n) : NULL;
}

/* Its times are floating-point now and then; and what no integer holds, no migration took. */
static guint64 number(JsonObject *o, const char *name)
{
	JsonNode *n = o ? json_object_get_member(o, name) : NULL;
	double x = n && JSON_NODE_HOLDS_VALUE(n) ? json_node_get_double(n) : 0;

	return x >= 0x1p63 ? G_MAXINT64 : x > 0 ? (guint64)llround(x) : 0;
}

static const char *string(JsonObject *o, const char *name)
{
	JsonNode *n = o ? json_object_get_member(o, name) : NULL;

	return n && json_node_get_value_type(n) == G_TYPE_STRING ? json_node_get_string(n) : NULL;
}

static void take_last(struct run *r, JsonObject *last)
{
	JsonObject *ram = object(last, "ram");

	r->v[V_TOTAL_MS] = number(last, "duration");
	r->v[V_DOWNTIME_MS] = number(last, "downtime");
	r->v[V_SETUP_MS] = number(last, "setup_time");
	r->v[V_BYTES] = number(ram, "transferred_bytes");
	r->v[V_SYNCS] = number(ram, "iterations");
	r->v[V_SENT] = number(ram, "normal_pages");
	r->v[V_ZERO] = number(ram, "duplicate_pages");
	r->v[V_UNMAPPED] = r->v[V_ZERO_MAPPED] = r->v[V_SKIPPED] = r->v[V_RESENT] = 0;
}

static bool take_history(struct run *r, JsonArray *history, GError **error)
{
	guint i;

	for (i = 0; i < json_array_get_length(history); i++) {
		JsonNode *n = json_array_get_element(history, i);
		JsonObject *o = JSON_NODE_HOLDS_OBJECT(n) ? json_node_get_object(n) : NULL;
		JsonObject *ram = object(o, "ram");
		struct sample s = {
			.us = number(o, "duration") * 1000,
			.remaining = number(ram, "remaining_bytes"),
			.transferred = number(ram, "transferred_bytes"),
		};

		if (!ram)
			return bad(error, "progress_history: an element without ram");
		g_array_append_val(r->samples, s);
		if (i + 1 < json_array_get_length(history))
			continue;
		r->ok = g_strcmp0(string(o, "status"), "completed") == 0;
		if (r->ok) {
			take_last(r, o);
		} else {
			g_autofree char *status = text_printable(string(o, "status") ?
							       string(o, "status") : "unknown");

			r->error = g_strdup_printf("the migration ended as '%s'", status);
		}
	}
	return true;
}

bool guestperf_parse(JsonObject *root, struct result *r, GError **error)
{
	const char *name = string(object(root, "scenario"), "name");
	JsonNode *history = json_object_get_member(root, "progress_history");
	g_autofree char *words = NULL;
	struct run *run;

	if (!name)
		return bad(error, "scenario.name: missing");
	if (!JSON_NODE_HOLDS_ARRAY(history) ||
	    json_array_get_length(json_node_get_array(history)) == 0)
		return bad(error, "progress_history: must be an array that is not empty");
	words = text_printable(name);
	run = run_new(words, "none");
	run->repeat = 1;
	run->memory = number(object(root, "hardware"), "mem") << 30;
	run->ram = g_strdup("memory, measured by guestperf on a machine it does not describe");
	g_ptr_array_add(r->runs, run);
	return take_history(run, json_node_get_array(history), error);
}

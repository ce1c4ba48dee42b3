/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "result-json.h"
#include "guestperf.h"
#include "summary.h"
#include "text.h"

#include <gio/gio.h>
#include <string.h>

/* A result has a few of them; others' files that are read, too. */
#define DEPTH_MAX	64

/* Writing. */

static JsonObject *sub_object(JsonObject *o, const char *name)
{
	JsonObject *sub;

	if (json_object_has_member(o, name))
		return json_object_get_object_member(o, name);
	sub = json_object_new();
	json_object_set_object_member(o, name, sub);
	return sub;
}

static const char *last_key(const char *path)
{
	const char *dot = strrchr(path, '.');

	return dot ? dot + 1 : path;
}

/* The object in @o that holds the last key of @path, made if it takes that. */
static JsonObject *make_way(JsonObject *o, const char *path)
{
	g_auto(GStrv) keys = g_strsplit(path, ".", -1);
	char **k;

	for (k = keys; k[1]; k++)
		o = sub_object(o, *k);
	return o;
}

static void set_string(JsonObject *o, const char *path, const char *s)
{
	if (s)
		json_object_set_string_member(make_way(o, path), last_key(path), s);
}

/* An array for each member of struct sample: the form that takes the fewest lines. */
static JsonObject *samples_to_json(const GArray *samples)
{
	JsonArray *us = json_array_new(), *remaining = json_array_new();
	JsonArray *transferred = json_array_new();
	JsonObject *o = json_object_new();
	guint i;

	for (i = 0; i < samples->len; i++) {
		const struct sample *s = &g_array_index(samples, struct sample, i);

		json_array_add_int_element(us, s->us);
		json_array_add_int_element(remaining, s->remaining);
		json_array_add_int_element(transferred, s->transferred);
	}
	json_object_set_array_member(o, "us", us);
	json_object_set_array_member(o, "remaining", remaining);
	json_object_set_array_member(o, "transferred", transferred);
	return o;
}

static JsonObject *run_to_json(const struct run *r)
{
	JsonObject *o = json_object_new();
	int k;

	json_object_set_string_member(o, "scenario", r->scenario);
	json_object_set_string_member(o, "mode", r->mode);
	json_object_set_int_member(o, "repeat", r->repeat);
	set_string(o, "ram", r->ram);
	json_object_set_int_member(o, "memory", r->memory);
	if (r->guests > 1)
		json_object_set_int_member(o, "guests", r->guests);
	json_object_set_string_member(o, "status", r->ok ? "completed" : "failed");
	if (!r->ok) {
		set_string(o, "error", r->error);
		set_string(o, "log", r->log);
		return o;
	}
	for (k = 0; k < V_COUNT; k++)
		if (r->v[k] != NO_VALUE)
			json_object_set_int_member(make_way(o, value_descs[k].path),
						   last_key(value_descs[k].path), r->v[k]);
	for (k = 0; k < T_COUNT; k++)
		set_string(o, text_descs[k].path, r->text[k]);
	if (r->samples->len)
		json_object_set_object_member(o, "samples", samples_to_json(r->samples));
	return o;
}

JsonObject *result_machine_to_json(const struct machine *m)
{
	JsonObject *o = json_object_new();
	size_t i;

	for (i = 0; i < MACHINE_TEXTS; i++)
		set_string(o, machine_descs[i].key, *machine_text(m, i));
	json_object_set_int_member(o, "cores", m->cores);
	json_object_set_int_member(o, "memory_kib", m->memory_kib);
	if (m->multifd)
		json_object_set_int_member(o, "multifd", m->multifd);
	if (m->cold)
		json_object_set_boolean_member(o, "cold", true);
	return o;
}

/* Numbers of an array in one line; only json-glib breaks lines, strings have none. */
static char *join_numbers(const char *json)
{
	g_autoptr(GRegex) breaks = g_regex_new("(?<=[0-9],|\\[)\\n *(?=[0-9])|(?<=[0-9])\\n *(?=\\])",
					       0, 0, NULL);
	g_autofree char *joined = g_regex_replace_literal(breaks, json, -1, 0, " ", 0, NULL);

	return g_strconcat(joined, "\n", NULL);
}

char *result_to_json(const struct result *r)
{
	g_autoptr(JsonNode) root = json_node_new(JSON_NODE_OBJECT);
	g_autofree char *text = NULL;
	JsonObject *o = json_object_new();
	JsonArray *runs = json_array_new();
	guint i;

	json_node_take_object(root, o);
	json_object_set_int_member(o, "schema", RESULT_SCHEMA);
	json_object_set_string_member(o, "tool", RESULT_TOOL);
	set_string(o, "version", r->version);
	set_string(o, "started", r->started);
	json_object_set_object_member(o, "machine", result_machine_to_json(&r->machine));
	json_object_set_array_member(o, "runs", runs);
	for (i = 0; i < r->runs->len; i++)
		json_array_add_object_element(runs, run_to_json(r->runs->pdata[i]));
	json_object_set_array_member(o, "summary", summary_to_json(r));
	text = json_to_string(root, TRUE);
	return join_numbers(text);
}

/* Reading. */

static bool bad(GError **error, const char *where, const char *key, const char *what)
{
	g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, "%s%s%s: %s",
		    where, *where && *key ? "." : "", key, what);
	return false;
}

static bool get_string(JsonObject *o, const char *where, const char *key, bool optional,
		       char **ret, GError **error)
{
	JsonNode *n = json_object_get_member(o, key);

	if (!n && optional)
		return true;
	if (!n)
		return bad(error, where, key, "missing");
	if (json_node_get_value_type(n) != G_TYPE_STRING)
		return bad(error, where, key, "must be a string");
	*ret = text_printable(json_node_get_string(n));
	return true;
}

static bool get_count(JsonObject *o, const char *where, const char *key, bool optional,
		      guint64 *ret, GError **error)
{
	JsonNode *n = json_object_get_member(o, key);

	if (!n && optional)
		return true;
	if (!n)
		return bad(error, where, key, "missing");
	if (json_node_get_value_type(n) != G_TYPE_INT64 || json_node_get_int(n) < 0)
		return bad(error, where, key, "must be an integer that is not negative");
	*ret = json_node_get_int(n);
	return true;
}

static bool get_bool(JsonObject *o, const char *where, const char *key, bool *ret, GError **error)
{
	JsonNode *n = json_object_get_member(o, key);

	if (n && json_node_get_value_type(n) != G_TYPE_BOOLEAN)
		return bad(error, where, key, "must be true or false");
	*ret = n && json_node_get_boolean(n);
	return true;
}

/*
 * The object in @o that holds the last key of @path; @place grows by its name.
 * NULL in @ret if it is missing, which is an error unless @optional.
 */
static bool find_way(JsonObject *o, const char *path, bool optional, GString *place,
		     JsonObject **ret, GError **error)
{
	g_auto(GStrv) keys = g_strsplit(path, ".", -1);
	char **k;

	*ret = NULL;
	for (k = keys; k[1]; k++) {
		JsonNode *n = json_object_get_member(o, *k);

		if (!n && optional)
			return true;
		if (!n)
			return bad(error, place->str, *k, "missing");
		if (!JSON_NODE_HOLDS_OBJECT(n))
			return bad(error, place->str, *k, "must be an object");
		o = json_node_get_object(n);
		g_string_append_printf(place, ".%s", *k);
	}
	*ret = o;
	return true;
}

static bool get_value(JsonObject *o, const char *where, const struct value_desc *d,
		      guint64 *ret, GError **error)
{
	g_autoptr(GString) place = g_string_new(where);

	if (!find_way(o, d->path, d->optional, place, &o, error))
		return false;
	return !o || get_count(o, place->str, last_key(d->path), d->optional, ret, error);
}

static bool get_text(JsonObject *o, const char *where, const struct text_desc *d,
		     char **ret, GError **error)
{
	g_autoptr(GString) place = g_string_new(where);

	if (!find_way(o, d->path, true, place, &o, error))
		return false;
	return !o || get_string(o, place->str, last_key(d->path), true, ret, error);
}

/* Member @key of @o, an array of integers as long as @want; NULL with @error set. */
static JsonArray *get_counts(JsonObject *o, const char *where, const char *key, gint64 want,
			     GError **error)
{
	JsonNode *n = json_object_get_member(o, key);
	JsonArray *a = n && JSON_NODE_HOLDS_ARRAY(n) ? json_node_get_array(n) : NULL;
	guint i;

	if (!a || (want >= 0 && json_array_get_length(a) != want)) {
		bad(error, where, key, a ? "must have as many elements as us" : "must be an array");
		return NULL;
	}
	for (i = 0; i < json_array_get_length(a); i++) {
		JsonNode *e = json_array_get_element(a, i);

		if (json_node_get_value_type(e) != G_TYPE_INT64 || json_node_get_int(e) < 0) {
			bad(error, where, key, "must have integers that are not negative");
			return NULL;
		}
	}
	return a;
}

static bool get_samples(JsonObject *o, const char *where, GArray *ret, GError **error)
{
	g_autofree char *place = g_strconcat(where, ".samples", NULL);
	JsonNode *n = json_object_get_member(o, "samples");
	JsonArray *us, *remaining, *transferred;
	guint i;

	if (!n)
		return true;
	if (!JSON_NODE_HOLDS_OBJECT(n))
		return bad(error, place, "", "must be an object");
	o = json_node_get_object(n);
	us = get_counts(o, place, "us", -1, error);
	remaining = us ? get_counts(o, place, "remaining", json_array_get_length(us), error) : NULL;
	transferred = remaining ? get_counts(o, place, "transferred", json_array_get_length(us),
					     error) : NULL;
	for (i = 0; transferred && i < json_array_get_length(us); i++) {
		struct sample s = {
			.us = json_array_get_int_element(us, i),
			.remaining = json_array_get_int_element(remaining, i),
			.transferred = json_array_get_int_element(transferred, i),
		};

		g_array_append_val(ret, s);
	}
	return transferred != NULL;
}

static bool get_run(JsonNode *node, const char *where, struct run *r, GError **error)
{
	g_autofree char *status = NULL;
	JsonObject *o;
	int k;

	if (!JSON_NODE_HOLDS_OBJECT(node))
		return bad(error, where, "", "must be an object");
	o = json_node_get_object(node);
	if (!get_string(o, where, "scenario", false, &r->scenario, error) ||
	    !get_string(o, where, "mode", false, &r->mode, error) ||
	    !get_count(o, where, "repeat", false, &r->repeat, error) ||
	    !get_count(o, where, "memory", true, &r->memory, error) ||
	    !get_count(o, where, "guests", true, &r->guests, error) ||
	    !get_string(o, where, "ram", true, &r->ram, error) ||
	    !get_string(o, where, "status", false, &status, error))
		return false;
	r->ok = strcmp(status, "completed") == 0;
	if (!r->ok && strcmp(status, "failed") != 0)
		return bad(error, where, "status", "must be 'completed' or 'failed'");
	if (!r->ok)
		return get_string(o, where, "error", false, &r->error, error) &&
		       get_string(o, where, "log", true, &r->log, error);
	for (k = 0; k < V_COUNT; k++)
		if (!get_value(o, where, &value_descs[k], &r->v[k], error))
			return false;
	for (k = 0; k < T_COUNT; k++)
		if (!get_text(o, where, &text_descs[k], &r->text[k], error))
			return false;
	return get_samples(o, where, r->samples, error);
}

static bool get_result(JsonObject *o, struct result *r, GError **error)
{
	g_autofree char *tool = NULL;
	guint64 schema = 0;
	JsonObject *m;
	JsonArray *runs;
	JsonNode *n;
	guint64 i;

	if (!get_string(o, "", "tool", false, &tool, error))
		return false;
	if (strcmp(tool, RESULT_TOOL) != 0)
		return bad(error, "", "tool", "must be '" RESULT_TOOL "'");
	if (!get_count(o, "", "schema", false, &schema, error))
		return false;
	if (schema < 1 || schema > RESULT_SCHEMA) {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
			    "schema: %" G_GUINT64_FORMAT ", this fph-report reads 1 to %d",
			    schema, RESULT_SCHEMA);
		return false;
	}
	if (!get_string(o, "", "version", true, &r->version, error) ||
	    !get_string(o, "", "started", true, &r->started, error))
		return false;
	n = json_object_get_member(o, "machine");
	if (!n || !JSON_NODE_HOLDS_OBJECT(n))
		return bad(error, "", "machine", n ? "must be an object" : "missing");
	m = json_node_get_object(n);
	for (i = 0; i < MACHINE_TEXTS; i++)
		if (!get_string(m, "machine", machine_descs[i].key, true,
				machine_text(&r->machine, i), error))
			return false;
	if (!get_count(m, "machine", "cores", true, &r->machine.cores, error) ||
	    !get_count(m, "machine", "memory_kib", true, &r->machine.memory_kib, error) ||
	    !get_count(m, "machine", "multifd", true, &r->machine.multifd, error) ||
	    !get_bool(m, "machine", "cold", &r->machine.cold, error))
		return false;
	n = json_object_get_member(o, "runs");
	if (!n || !JSON_NODE_HOLDS_ARRAY(n))
		return bad(error, "", "runs", n ? "must be an array" : "missing");
	runs = json_node_get_array(n);
	for (i = 0; i < json_array_get_length(runs); i++) {
		g_autofree char *where = g_strdup_printf("runs[%" G_GUINT64_FORMAT "]", i);
		struct run *run = run_new(NULL, NULL);

		g_ptr_array_add(r->runs, run);
		if (!get_run(json_array_get_element(runs, i), where, run, error))
			return false;
	}
	return true;
}

/* json-glib's stack grows with the depth of what it reads. */
static bool is_too_deep(const char *json)
{
	bool in_string = false;
	guint depth = 0;

	for (; *json && depth <= DEPTH_MAX; json++) {
		if (in_string && *json == '\\' && json[1])
			json++;
		else if (*json == '"')
			in_string = !in_string;
		else if (!in_string && (*json == '{' || *json == '['))
			depth++;
		else if (!in_string && depth && (*json == '}' || *json == ']'))
			depth--;
	}
	return depth > DEPTH_MAX;
}

struct result *result_from_json(const char *text, GError **error)
{
	g_autoptr(JsonParser) parser = json_parser_new();
	struct result *r;
	JsonNode *root;
	GError *err = NULL;

	if (is_too_deep(text)) {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
			    "not a result: more than %d objects and lists in each other", DEPTH_MAX);
		return NULL;
	}
	if (!json_parser_load_from_data(parser, text, -1, &err)) {
		/* json-glib begins its message with "<data>:LINE:COLUMN: " */
		const char *why = g_str_has_prefix(err->message, "<data>:") ?
				  err->message + strlen("<data>:") : err->message;

		g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, "not JSON: %s", why);
		g_error_free(err);
		return NULL;
	}
	root = json_parser_get_root(parser);
	if (!root || !JSON_NODE_HOLDS_OBJECT(root)) {
		g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
				    "not a result: no JSON object");
		return NULL;
	}
	r = result_new();
	if (guestperf_is(json_node_get_object(root)) ?
	    guestperf_parse(json_node_get_object(root), r, error) :
	    get_result(json_node_get_object(root), r, error))
		return r;
	result_free(r);
	return NULL;
}

struct result *result_load(const char *path, GError **error)
{
	g_autofree char *text = NULL;
	struct result *r;

	/* Its messages name the file. */
	if (!g_file_get_contents(path, &text, NULL, error))
		return NULL;
	r = result_from_json(text, error);
	if (!r)
		g_prefix_error(error, "%s: ", path);
	return r;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "result.h"
#include "guestperf.h"
#include "summary.h"

#include <gio/gio.h>
#include <string.h>

const struct value_desc value_descs[V_COUNT] = {
	[V_TOTAL_MS] = { "total_ms", "total time of the migration, by QEMU", false },
	[V_DOWNTIME_MS] = { "downtime_ms", "time the guest stood still, by QEMU", false },
	[V_SETUP_MS] = { "setup_ms", "setup time, by QEMU", false },
	[V_WALL_MS] = { "wall_ms", "from the command until both sides were done", true },
	[V_BYTES] = { "bytes", "bytes sent", false },
	[V_SYNCS] = { "dirty_syncs", "dirty bitmap synchronizations", true },
	[V_SENT] = { "pages.sent", "pages sent with their content", false },
	[V_ZERO] = { "pages.zero", "pages read, found to be zero, sent as such", false },
	[V_UNMAPPED] = { "pages.unmapped", "pages left out: nothing was mapped there", false },
	[V_ZERO_MAPPED] = { "pages.zero_mapped", "pages left out: the zero page was mapped", false },
	[V_ZERO_CONTENT] = { "pages.zero_content", "pages left out: prescan had read zeroes there", true },
	[V_FREE] = { "pages.free", "pages left out: the guest said they are free", true },
	[V_SKIPPED] = { "pages.skipped", "pages left out at the end", false },
	[V_RESENT] = { "pages.resent", "pages left out first, then dirtied and due again", false },
	[V_GUEST_ONLY] = { "pages.guest_only", "pages left out that only the guest knew of", true },
	[V_HOST_ONLY] = { "pages.host_only", "pages left out that only the host knew of", true },
	[V_BOTH] = { "pages.both", "pages left out that both knew of", true },
	[V_SRC_BEFORE] = { "rss_kib.source.before", "resident memory of the source, idle", true },
	[V_SRC_AFTER] = { "rss_kib.source.after", "right after completion", true },
	[V_DST_BEFORE] = { "rss_kib.destination.before", "the same of the destination, waiting", true },
	[V_DST_AFTER] = { "rss_kib.destination.after", "right after completion", true },
	[V_SRC_CPU] = { "cpu_ms.source", "CPU time of the source during the migration", true },
	[V_DST_CPU] = { "cpu_ms.destination", "the same of the destination", true },
	[V_GUEST_CPU] = { "cpu_ms.guest", "the part of the source's for virtual CPUs", true },
	[V_SRC_SYSTEM] = { "system_ms.source", "the part of the source's in the kernel", true },
	[V_DST_SYSTEM] = { "system_ms.destination", "the same of the destination", true },
	[V_SRC_FAULTS] = { "faults.source", "page faults of the source meanwhile", true },
	[V_DST_FAULTS] = { "faults.destination", "the same of the destination", true },
	[V_SRC_MIGR_FAULTS] = { "tracer.source.migration.faults", "faults of migration threads, in guest memory", true },
	[V_SRC_MIGR_TAKEN] = { "tracer.source.migration.taken", "pages that got memory by that", true },
	[V_SRC_VCPU_FAULTS] = { "tracer.source.vcpu.faults", "faults of virtual CPUs", true },
	[V_SRC_VCPU_TAKEN] = { "tracer.source.vcpu.taken", "pages that got memory by that", true },
	[V_SRC_OTHER_FAULTS] = { "tracer.source.other.faults", "faults of all other threads", true },
	[V_SRC_OTHER_TAKEN] = { "tracer.source.other.taken", "pages that got memory by that", true },
	[V_SRC_GIVEN_BACK] = { "tracer.source.given_back", "pages that lost theirs", true },
	[V_DST_RECV_FAULTS] = { "tracer.destination.receiving.faults", "faults of threads that receive", true },
	[V_DST_RECV_TAKEN] = { "tracer.destination.receiving.taken", "pages that got memory by that", true },
	[V_DST_VCPU_FAULTS] = { "tracer.destination.vcpu.faults", "faults of virtual CPUs", true },
	[V_DST_VCPU_TAKEN] = { "tracer.destination.vcpu.taken", "pages that got memory by that", true },
	[V_DST_OTHER_FAULTS] = { "tracer.destination.other.faults", "faults of all other threads", true },
	[V_DST_OTHER_TAKEN] = { "tracer.destination.other.taken", "pages that got memory by that", true },
	[V_DST_GIVEN_BACK] = { "tracer.destination.given_back", "pages that lost theirs", true },
	[V_TRACER_NS] = { "tracer.ns", "time in the tracer's programs meanwhile", true },
	[V_TRACER_RUNS] = { "tracer.runs", "how often they ran, for whatever process", true },
	[V_TRACER_LOST] = { "tracer.lost", "events that they did not record", true },
	[V_FLOOR_NS] = { "floor_ns", "a bare loop sends as many bytes the same way", true },
	[V_CHECKED] = { "checked_pages", "pages the guest verified at the destination", true },
	[V_WORK_BEFORE] = { "work.before", "pages a second that the guest wrote before", true },
	[V_WORK_DURING] = { "work.during", "the same, until it ran at the destination", true },
	[V_SCAN_NS] = { "fph.scan_ns", "time spent in scans", true },
	[V_CHUNKS] = { "fph.chunks", "chunks of memory scanned", true },
	[V_NOT_SCANNED] = { "fph.chunks_not_scanned", "chunks passed over", true },
	[V_GIVEN_UP] = { "fph.given_up", "scans that stopped early", true },
	[V_REQUESTS] = { "fph.hints.requests", "requests for the guest's free pages", true },
	[V_ANSWERS] = { "fph.hints.answers", "complete answers", true },
	[V_STALE] = { "fph.hints.stale", "frames that came too late", true },
	[V_HINTED] = { "fph.hints.free", "pages the guest reported, in all answers", true },
	[V_ARM_NS] = { "fph.hints.arm_ns", "clearing the dirty log before the first request", true },
	[V_LATENCY_NS] = { "fph.hints.latency_ns", "from the first request to its answer", true },
	[V_APPLY_NS] = { "fph.hints.apply_ns", "taking pages out of the dirty bitmap", true },
	[V_WAIT_NS] = { "fph.hints.wait_ns", "sending was held back for the answer", true },
	[V_WALK_NS] = { "fph.hints.walk_ns", "the guest's time for its first answer", true },
	[V_LOCK_NS] = { "fph.hints.lock_ns", "longest lock of its page allocator", true },
	[V_GUEST_PAGES] = { "fph.hints.guest_pages", "pages in that answer, it says", true },
	[V_GUEST_ENTRIES] = { "fph.hints.guest_entries", "runs of free pages it found", true },
	[V_WARM] = { "warm_kib", "memory touched and released right before", true },
	[V_COMPILE_ALONE] = { "compile.alone_ms", "the guest compiled, and nothing else", true },
	[V_COMPILE_MIGRATED] = { "compile.migrated_ms", "the same, migrated meanwhile", true },
	[V_COMPILE_LEFT] = { "compile.left", "objects to do when the migration was over", true },
	[V_INFLATE_NS] = { "balloon.inflate.ns", "until the balloon was full", true },
	[V_INFLATE_FRAMES] = { "balloon.inflate.frames", "frames of the driver meanwhile", true },
	[V_INFLATE_IRQS] = { "balloon.inflate.interrupts", "interrupts of the guest", true },
	[V_INFLATE_CALLS] = { "balloon.inflate.madvise", "calls of madvise() by QEMU", true },
	[V_INFLATE_GUEST] = { "balloon.inflate.guest_ms", "CPU time of the guest, it says", true },
	[V_INFLATE_CPU] = { "balloon.inflate.cpu_ms", "CPU time of QEMU with its guest", true },
	[V_DEFLATE_NS] = { "balloon.deflate.ns", "until it was empty again", true },
	[V_DEFLATE_FRAMES] = { "balloon.deflate.frames", "frames of the driver meanwhile", true },
	[V_DEFLATE_IRQS] = { "balloon.deflate.interrupts", "interrupts of the guest", true },
	[V_DEFLATE_CALLS] = { "balloon.deflate.madvise", "calls of madvise() by QEMU", true },
	[V_DEFLATE_GUEST] = { "balloon.deflate.guest_ms", "CPU time of the guest, it says", true },
	[V_DEFLATE_CPU] = { "balloon.deflate.cpu_ms", "CPU time of QEMU with its guest", true },
};

const struct text_desc text_descs[T_COUNT] = {
	[T_FPH_STATE] = { "fph.state", "state of fph-source" },
	[T_FPH_REASON] = { "fph.inactive_reason", "why it left out nothing" },
	[T_HINT_STATE] = { "fph.hints.state", "what came of the first request" },
	[T_HINT_REASON] = { "fph.hints.reason", "why an answer is missing or partial" },
	[T_TRANSPORT] = { "fph.hints.transport", "how the guest answered" },
	[T_DEVICE] = { "fph.hints.device", "the device it answered through" },
	[T_WALK] = { "fph.hints.walk", "how the guest looked for its free pages" },
};

static const struct {
	const char *key;
	size_t offset;
} machine_strings[] = {
	{ "cpu", offsetof(struct machine, cpu) },
	{ "kernel", offsetof(struct machine, kernel) },
	{ "governor", offsetof(struct machine, governor) },
	{ "thp", offsetof(struct machine, thp) },
	{ "thp_shmem", offsetof(struct machine, thp_shmem) },
	{ "qemu", offsetof(struct machine, qemu) },
	{ "destination_qemu", offsetof(struct machine, destination_qemu) },
	{ "accel", offsetof(struct machine, accel) },
	{ "link", offsetof(struct machine, link) },
	{ "guest_kernel", offsetof(struct machine, guest_kernel) },
	{ "guest_initrd", offsetof(struct machine, guest_initrd) },
	{ "guest_compiler", offsetof(struct machine, guest_compiler) },
	{ "tracer", offsetof(struct machine, tracer) },
};

static char **machine_string(const struct machine *m, size_t i)
{
	return (char **)((char *)m + machine_strings[i].offset);
}

struct run *run_new(const char *scenario, const char *mode)
{
	struct run *r = g_new0(struct run, 1);
	int k;

	r->scenario = g_strdup(scenario);
	r->mode = g_strdup(mode);
	for (k = 0; k < V_COUNT; k++)
		r->v[k] = NO_VALUE;
	r->samples = g_array_new(FALSE, FALSE, sizeof(struct sample));
	return r;
}

void run_free(struct run *r)
{
	int k;

	if (!r)
		return;
	g_free(r->scenario);
	g_free(r->mode);
	g_free(r->ram);
	g_free(r->error);
	g_free(r->log);
	for (k = 0; k < T_COUNT; k++)
		g_free(r->text[k]);
	g_array_unref(r->samples);
	g_free(r);
}

struct result *result_new(void)
{
	struct result *r = g_new0(struct result, 1);

	r->runs = g_ptr_array_new_with_free_func((GDestroyNotify)run_free);
	return r;
}

void result_free(struct result *r)
{
	size_t i;

	if (!r)
		return;
	for (i = 0; i < G_N_ELEMENTS(machine_strings); i++)
		g_free(*machine_string(&r->machine, i));
	g_ptr_array_unref(r->runs);
	g_free(r->version);
	g_free(r->started);
	g_free(r);
}

guint result_failed(const struct result *r)
{
	guint i, n = 0;

	for (i = 0; i < r->runs->len; i++)
		n += !((struct run *)r->runs->pdata[i])->ok;
	return n;
}

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

	for (i = 0; i < G_N_ELEMENTS(machine_strings); i++)
		set_string(o, machine_strings[i].key, *machine_string(m, i));
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

char *result_words(const char *text)
{
	g_autofree char *valid = g_utf8_make_valid(text, -1);
	GString *out = g_string_new(NULL);

	for (const char *c = valid; *c; c = g_utf8_next_char(c)) {
		gunichar u = g_utf8_get_char(c);

		g_string_append_unichar(out, g_unichar_iscntrl(u) ? '?' : u);
	}
	return g_string_free(out, FALSE);
}

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
	*ret = result_words(json_node_get_string(n));
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
	for (i = 0; i < G_N_ELEMENTS(machine_strings); i++)
		if (!get_string(m, "machine", machine_strings[i].key, true,
				machine_string(&r->machine, i), error))
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

struct result *result_from_json(const char *text, GError **error)
{
	g_autoptr(JsonParser) parser = json_parser_new();
	struct result *r;
	JsonNode *root;
	GError *err = NULL;

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

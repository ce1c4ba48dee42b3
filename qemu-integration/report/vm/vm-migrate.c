/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vm.h"
#include "io.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define DEFAULT_BANDWIDTH	UINT64_C(100000000000)
#define DEFAULT_TIMEOUT_MS	(10 * 60 * 1000)
#define DEFAULT_POLL_MS		5u

static guint64 number(JsonObject *o, const char *name)
{
	JsonNode *n = o ? json_object_get_member(o, name) : NULL;

	if (!n || !JSON_NODE_HOLDS_VALUE(n))
		return 0;
	return json_node_get_int(n);
}

static char *text(JsonObject *o, const char *name)
{
	JsonNode *n = o ? json_object_get_member(o, name) : NULL;

	if (!n || json_node_get_value_type(n) != G_TYPE_STRING)
		return NULL;
	return g_strdup(json_node_get_string(n));
}

void vm_fph_clear(struct vm_fph *fph)
{
	g_free(fph->mode);
	g_free(fph->state);
	g_free(fph->reason);
	g_free(fph->hints.state);
	g_free(fph->hints.reason);
	g_free(fph->hints.transport);
	g_free(fph->hints.device);
	g_free(fph->hints.walk);
	g_clear_pointer(&fph->raw, json_node_unref);
	*fph = (struct vm_fph){ 0 };
}

void vm_migration_clear(struct vm_migration *m)
{
	g_free(m->status);
	vm_fph_clear(&m->fph);
	*m = (struct vm_migration){ 0 };
}

static void take_hints(struct vm_hints *h, JsonObject *o)
{
	*h = (struct vm_hints){
		.present = true,
		.state = text(o, "state"),
		.reason = text(o, "reason"),
		.transport = text(o, "transport"),
		.device = text(o, "device"),
		.requests = number(o, "requests"),
		.answers = number(o, "answers"),
		.stale = number(o, "stale"),
		.free = number(o, "free"),
		.arm_ns = number(o, "arm-ns"),
		.latency_ns = number(o, "latency-ns"),
		.apply_ns = number(o, "apply-ns"),
		.wait_ns = number(o, "wait-ns"),
		.walk = text(o, "walk"),
		.walk_ns = number(o, "walk-ns"),
		.lock_ns = number(o, "lock-ns"),
		.guest_pages = number(o, "guest-pages"),
		.guest_entries = number(o, "guest-entries"),
	};
}

void vm_fph_parse(JsonNode *node, struct vm_fph *ret)
{
	JsonArray *list;
	guint i;

	vm_fph_clear(ret);
	ret->raw = node;
	if (!JSON_NODE_HOLDS_ARRAY(node))
		return;
	list = json_node_get_array(node);
	for (i = 0; i < json_array_get_length(list); i++) {
		JsonNode *e = json_array_get_element(list, i);
		JsonNode *hints, *prescan;
		JsonObject *o;

		if (!JSON_NODE_HOLDS_OBJECT(e))
			continue;
		o = json_node_get_object(e);
		hints = json_object_get_member(o, "hints");
		if (hints && JSON_NODE_HOLDS_OBJECT(hints) && !ret->hints.present)
			take_hints(&ret->hints, json_node_get_object(hints));
		ret->present = true;
		if (!ret->mode)
			ret->mode = text(o, "mode");
		if (!ret->state)
			ret->state = text(o, "state");
		if (!ret->reason)
			ret->reason = text(o, "inactive-reason");
		ret->page_size = number(o, "page-size");
		ret->epoch = number(o, "epoch");
		ret->skipped += number(o, "skipped");
		ret->unmapped += number(o, "unmapped");
		ret->zero_mapped += number(o, "zero-mapped");
		ret->zero_content += number(o, "zero-content");
		prescan = json_object_get_member(o, "prescan");
		if (prescan && JSON_NODE_HOLDS_OBJECT(prescan)) {
			ret->prescan = true;
			ret->prescan_ns += number(json_node_get_object(prescan), "cpu-ns");
		}
		ret->free += number(o, "free");
		ret->guest_only += number(o, "guest-only");
		ret->host_only += number(o, "host-only");
		ret->both += number(o, "both");
		ret->resent += number(o, "resent");
		ret->verified += number(o, "verified");
		ret->violations += number(o, "violations");
		ret->verify_ns += number(o, "verify-ns");
		ret->chunks += number(o, "chunks");
		ret->chunks_not_scanned += number(o, "chunks-not-scanned");
		ret->scan_ns += number(o, "scan-ns");
	}
}

bool vm_query_fph(struct vm *vm, struct vm_fph *ret, GError **error)
{
	GError *err = NULL;
	JsonNode *node = vm_command(vm, &err, "query-fph", NULL);

	if (node) {
		vm_fph_parse(node, ret);
		return true;
	}
	vm_fph_clear(ret);
	if (g_error_matches(err, QMP_ERROR, QMP_ERROR_COMMAND_NOT_FOUND)) {
		g_error_free(err);
		return true;
	}
	g_propagate_error(error, err);
	return false;
}

static JsonObject *prescan_member(const struct vm_fph *f)
{
	JsonArray *list = f->raw && JSON_NODE_HOLDS_ARRAY(f->raw) ? json_node_get_array(f->raw) : NULL;
	JsonNode *n;

	if (!list || !json_array_get_length(list))
		return NULL;
	n = json_object_get_member(json_array_get_object_element(list, 0), "prescan");
	return n && JSON_NODE_HOLDS_OBJECT(n) ? json_node_get_object(n) : NULL;
}

bool vm_prescan_wait(struct vm *vm, int timeout_ms, GError **error)
{
	gint64 deadline = g_get_monotonic_time() + timeout_ms * INT64_C(1000);
	guint64 wanted = 0, looks = 0;
	bool ok;

	do {
		struct vm_fph f = { 0 };
		JsonObject *o;

		g_usleep(10000);
		ok = vm_query_fph(vm, &f, error);
		o = prescan_member(&f);
		if (ok && (!o || g_strcmp0(json_object_get_string_member(o, "state"), "aside") == 0)) {
			g_autofree char *why = text(o, "reason");

			g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "no prescan: %s",
				    why ? why : "this QEMU has none");
			ok = false;
		}
		looks = number(o, "looks");
		/* The one that is under way may have begun before */
		if (!wanted)
			wanted = looks + 2;
		vm_fph_clear(&f);
		if (ok && g_get_monotonic_time() > deadline) {
			g_set_error(error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT,
				    "prescan: memory was not looked at twice in %d s", timeout_ms / 1000);
			ok = false;
		}
	} while (ok && looks < wanted);
	return ok;
}

bool vm_migration_parse(JsonNode *node, struct vm_migration *m, char **desc, GError **error)
{
	JsonObject *o, *ram;
	JsonNode *r;

	if (!JSON_NODE_HOLDS_OBJECT(node)) {
		g_set_error(error, QMP_ERROR, QMP_ERROR_PROTOCOL,
			    "query-migrate: the answer is no object");
		return false;
	}
	o = json_node_get_object(node);
	g_free(m->status);
	m->status = text(o, "status");
	if (!m->status)
		m->status = g_strdup("none");
	m->total_ms = number(o, "total-time");
	m->downtime_ms = number(o, "downtime");
	m->setup_ms = number(o, "setup-time");
	r = json_object_get_member(o, "ram");
	if (r && JSON_NODE_HOLDS_OBJECT(r)) {
		ram = json_node_get_object(r);
		m->bytes = number(ram, "transferred");
		m->multifd_bytes = number(ram, "multifd-bytes");
		m->downtime_bytes = number(ram, "downtime-bytes");
		m->normal = number(ram, "normal");
		m->duplicate = number(ram, "duplicate");
		m->sync_count = number(ram, "dirty-sync-count");
		m->page_size = number(ram, "page-size");
		m->total_ram = number(ram, "total");
		m->remaining = number(ram, "remaining");
	}
	if (desc)
		*desc = text(o, "error-desc");
	return true;
}

/* Return: the status, or NULL with @error set; @desc receives error-desc or NULL. */
static const char *poll_migrate(struct vm *vm, struct vm_migration *m, char **desc, GError **error)
{
	g_autoptr(JsonNode) node = vm_command(vm, error, "query-migrate", NULL);

	return node && vm_migration_parse(node, m, desc, error) ? m->status : NULL;
}

bool vm_migrate_poll(struct vm *src, struct vm_migration *m, GError **error)
{
	return poll_migrate(src, m, NULL, error) && vm_query_fph(src, &m->fph, error);
}

static bool enable_events(struct vm *vm, GError **error)
{
	return vm_run(vm, error, "migrate-set-capabilities",
		      "{\"capabilities\": [{\"capability\": \"events\", \"state\": true}]}");
}

static bool set_mapped_ram(struct vm *vm, GError **error)
{
	return vm_run(vm, error, "migrate-set-capabilities",
		      "{\"capabilities\": [{\"capability\": \"mapped-ram\", \"state\": true}]}");
}

static bool set_multifd(struct vm *vm, unsigned int channels, GError **error)
{
	return vm_run(vm, error, "migrate-set-capabilities",
		      "{\"capabilities\": [{\"capability\": \"multifd\", \"state\": true}]}") &&
	       vm_run(vm, error, "migrate-set-parameters", "{\"multifd-channels\": %u}", channels);
}

/* Where @dst listens, once it does. */
static char *listen_uri(struct vm *dst, const char *address, GError **error)
{
	g_autofree char *uri = NULL;
	g_autoptr(JsonNode) node = NULL;
	JsonNode *at;

	if (!address) {
		uri = g_strdup_printf("unix:%s/migrate.sock", vm_dir(dst));
		/* sun_path is an array of 108 with the zero at its end. */
		if (strlen(uri) - strlen("unix:") > 107) {
			g_set_error(error, VM_ERROR, VM_ERROR_MIGRATION,
				    "%s: too long for a UNIX socket; choose a shorter TMPDIR", uri);
			return NULL;
		}
		return vm_run(dst, error, "migrate-incoming", "{\"uri\": \"%s\"}", uri) ?
		       g_steal_pointer(&uri) : NULL;
	}
	/* A port that is free, which it then tells. */
	if (!vm_run(dst, error, "migrate-incoming", "{\"uri\": \"tcp:%s:0\"}", address))
		return NULL;
	node = vm_command(dst, error, "query-migrate", NULL);
	if (!node)
		return NULL;
	at = json_path_query("$['socket-address'][0].port", node, NULL);
	if (at && JSON_NODE_HOLDS_ARRAY(at) && json_array_get_length(json_node_get_array(at)) == 1)
		uri = g_strdup_printf("tcp:%s:%s", address,
				      json_array_get_string_element(json_node_get_array(at), 0));
	else
		g_set_error(error, VM_ERROR, VM_ERROR_MIGRATION,
			    "%s: does not say at which port it listens", vm_name(dst));
	if (at)
		json_node_unref(at);
	return g_steal_pointer(&uri);
}

char *vm_migrate_prepare(struct vm *src, struct vm *dst, const struct vm_migrate_opts *opts,
			 struct vm_migration *m, GError **error)
{
	static const struct vm_migrate_opts none;
	g_autofree char *uri = NULL;

	if (!opts)
		opts = &none;
	vm_migration_clear(m);
	if (!enable_events(src, error) || !enable_events(dst, error))
		return NULL;
	if (!vm_run(src, error, "migrate-set-parameters", "{\"max-bandwidth\": %" G_GUINT64_FORMAT
		    "}", opts->max_bandwidth ? opts->max_bandwidth : DEFAULT_BANDWIDTH))
		return NULL;
	if (opts->downtime_limit_ms &&
	    !vm_run(src, error, "migrate-set-parameters", "{\"downtime-limit\": %u}",
		    opts->downtime_limit_ms))
		return NULL;
	if (opts->multifd && (!set_multifd(src, opts->multifd, error) ||
			      !set_multifd(dst, opts->multifd, error)))
		return NULL;
	if (opts->file && (!set_mapped_ram(src, error) || !set_mapped_ram(dst, error)))
		return NULL;
	uri = opts->file ? g_strdup_printf("file:%s", opts->file) :
			   listen_uri(dst, opts->address, error);
	if (!uri)
		return NULL;
	qmp_drop_events(vm_qmp(src));
	qmp_drop_events(vm_qmp(dst));
	if (!vm_usage(src, &m->src_before, error) || !vm_usage(dst, &m->dst_before, error))
		return NULL;
	return g_steal_pointer(&uri);
}

bool vm_migrate_begin(struct vm *src, const char *uri, struct vm_migration *m, GError **error)
{
	m->started = g_get_monotonic_time();
	return vm_run(src, error, "migrate", "{\"uri\": \"%s\"}", uri);
}

bool vm_migrate_start(struct vm *src, struct vm *dst, const struct vm_migrate_opts *opts,
		      struct vm_migration *m, GError **error)
{
	g_autofree char *uri = vm_migrate_prepare(src, dst, opts, m, error);

	return uri && vm_migrate_begin(src, uri, m, error);
}

static bool is_final(const char *status)
{
	return strcmp(status, "completed") == 0 || strcmp(status, "failed") == 0 ||
	       strcmp(status, "cancelled") == 0;
}

/*
 * Wait until the status is a final one. The event wakes us at once; asking in
 * between finds a migration that ended before events were on.
 */
static bool wait_final(struct vm *vm, struct vm *other, const struct vm_migrate_opts *opts,
		       gint64 deadline, struct vm_migration *m, GError **error)
{
	unsigned int poll_ms = opts && opts->poll_ms ? opts->poll_ms : DEFAULT_POLL_MS;
	g_autofree char *desc = NULL;
	const char *status;

	for (;;) {
		GError *err = NULL;
		JsonObject *event;

		g_clear_pointer(&desc, g_free);
		status = poll_migrate(vm, m, &desc, &err);
		/* It answers nothing while it completes, which is seconds for much memory */
		if (g_error_matches(err, QMP_ERROR, QMP_ERROR_TIMEOUT) &&
		    g_get_monotonic_time() < deadline) {
			g_error_free(err);
			continue;
		}
		if (!status) {
			g_propagate_error(error, err);
			return false;
		}
		if (opts && opts->sample)
			opts->sample(opts->opaque, m);
		if (strcmp(status, "completed") == 0)
			return true;
		if (is_final(status)) {
			GError *why = NULL;

			/* The usual cause, and the better message. */
			if (other && strcmp(status, "failed") == 0 && !vm_alive(other, &why)) {
				g_propagate_error(error, why);
				return false;
			}
			g_set_error(error, VM_ERROR, VM_ERROR_MIGRATION, "%s: migration %s%s%s",
				    vm_name(vm), status, desc ? ": " : "", desc ? desc : "");
			return false;
		}
		if (other && !vm_alive(other, error))
			return false;
		if (g_get_monotonic_time() >= deadline) {
			g_set_error(error, VM_ERROR, VM_ERROR_TIMEOUT,
				    "%s: migration still '%s' after %" G_GINT64_FORMAT " s, %"
				    G_GUINT64_FORMAT " KiB left after %" G_GUINT64_FORMAT
				    " dirty bitmap synchronizations", vm_name(vm), status,
				    (g_get_monotonic_time() - m->started) / G_USEC_PER_SEC,
				    m->remaining >> 10, m->sync_count);
			return false;
		}
		event = qmp_event(vm_qmp(vm), "MIGRATION", poll_ms, &err);
		if (event) {
			json_object_unref(event);
			continue;
		}
		if (!g_error_matches(err, QMP_ERROR, QMP_ERROR_TIMEOUT) &&
		    !g_error_matches(err, QMP_ERROR, QMP_ERROR_CLOSED)) {
			g_propagate_error(error, err);
			return false;
		}
		g_error_free(err);	/* closed: the next command says why */
	}
}

/* The file is written */
static bool load(struct vm *dst, const char *file, struct vm_migration *m, gint64 deadline,
		 GError **error)
{
	struct vm_migration at_dst = { .started = m->started };
	gint64 began;
	struct stat st;
	bool ok;

	if (stat(file, &st) < 0) {
		g_set_error(error, VM_ERROR, VM_ERROR_MIGRATION, "%s: %s", file, g_strerror(errno));
		return false;
	}
	m->file_bytes = st.st_blocks * G_GUINT64_CONSTANT(512);
	if (!vm_usage(dst, &m->dst_before, error))
		return false;
	began = g_get_monotonic_time();
	ok = vm_run(dst, error, "migrate-incoming", "{\"uri\": \"file:%s\"}", file) &&
	     wait_final(dst, NULL, NULL, deadline, &at_dst, error);
	m->load_ns = (g_get_monotonic_time() - began) * 1000;
	vm_migration_clear(&at_dst);
	return ok;
}

bool vm_migrate_wait(struct vm *src, struct vm *dst, const struct vm_migrate_opts *opts,
		     struct vm_migration *m, GError **error)
{
	int timeout_ms = opts && opts->timeout_ms ? opts->timeout_ms : DEFAULT_TIMEOUT_MS;
	gint64 deadline = m->started + (gint64)timeout_ms * 1000;
	struct vm_migration at_dst = { .started = m->started };
	bool ok;

	ok = wait_final(src, dst, opts, deadline, m, error);
	if (!ok)
		return false;
	if (opts && opts->file) {
		if (!vm_usage(src, &m->src_after, error) ||
		    !load(dst, opts->file, m, deadline, error))
			return false;
		m->wall_ms = (g_get_monotonic_time() - m->started) / 1000;
		return vm_usage(dst, &m->dst_after, error) && vm_query_fph(src, &m->fph, error);
	}
	/* The source has written its last byte; the destination may still read. */
	ok = wait_final(dst, NULL, NULL, deadline, &at_dst, error);
	vm_migration_clear(&at_dst);
	if (!ok)
		return false;
	m->wall_ms = (g_get_monotonic_time() - m->started) / 1000;
	if (!vm_usage(src, &m->src_after, error) || !vm_usage(dst, &m->dst_after, error))
		return false;
	return vm_query_fph(src, &m->fph, error);
}

bool vm_migrate(struct vm *src, struct vm *dst, const struct vm_migrate_opts *opts,
		struct vm_migration *m, GError **error)
{
	return vm_migrate_start(src, dst, opts, m, error) &&
	       vm_migrate_wait(src, dst, opts, m, error);
}

bool vm_migrate_cancel(struct vm *src, int timeout_ms, GError **error)
{
	struct vm_migration m = { .started = g_get_monotonic_time() };
	gint64 deadline = io_deadline(timeout_ms);
	GError *err = NULL;
	bool ok;

	if (!vm_run(src, error, "migrate_cancel", NULL))
		return false;
	ok = wait_final(src, NULL, NULL, deadline, &m, &err);
	if (!ok && m.status && strcmp(m.status, "cancelled") == 0) {
		g_clear_error(&err);
		ok = true;
	} else if (ok) {
		g_set_error(&err, VM_ERROR, VM_ERROR_MIGRATION,
			    "%s: the migration completed before it was cancelled", vm_name(src));
		ok = false;
	}
	vm_migration_clear(&m);
	if (err)
		g_propagate_error(error, err);
	return ok;
}

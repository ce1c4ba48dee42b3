/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fph-report attach: watches a migration that someone else starts. */
#include "commands.h"
#include "cli.h"
#include "format-metrics.h"
#include "io.h"
#include "machine.h"
#include "measure.h"
#include "text.h"
#include "write.h"

#include <getopt.h>
#include <string.h>

#define POLL_MS		20
#define LINE_US		G_USEC_PER_SEC
#define MIB		1048576.0

enum { O_QMP, O_JSON, O_TEXT, O_HTML, O_METRICS, O_TIMEOUT, O_HELP };

static const struct opt attach_opts[] = {
	[O_QMP] = { "qmp", "SOCKET", "QMP socket of the source; needed" },
	[O_JSON] = { "json", "FILE", "write all figures there; '-' is standard output" },
	[O_TEXT] = { "text", "FILE", "write the tables there as well" },
	[O_HTML] = { "html", "FILE", "write a page with plots there as well" },
	[O_METRICS] = { "metrics", "FILE", "keep the figures there as OpenMetrics text" },
	[O_TIMEOUT] = { "timeout", "SEC", "longest wait for a migration to begin [no limit]" },
	[O_HELP] = { "help", NULL, "this text" },
	{ NULL, NULL, NULL },
};

struct watch {
	struct qmp *qmp;
	pid_t pid;		/* 0: QEMU runs elsewhere, or its socket is not its own */
	GArray *vcpus;
	bool has_fph;		/* this QEMU knows query-fph */
	FILE *live;		/* where the live table goes */
	const char *metrics;	/* file, or NULL */
	char *name;		/* of the VM, in there */
	struct vm_migration m;
	struct run *run;
	struct sampler sampler;
	gint64 last_line;
	guint64 last_bytes;
	bool heading;
	bool complained;	/* that metrics cannot be written */
};

/* What the answer to "query-migrate" and "query-fph" says now. */
static bool poll(struct watch *w, GError **error)
{
	GError *err = NULL;
	g_autoptr(JsonNode) node = qmp_command(w->qmp, VM_QMP_MS, &err, "query-migrate", NULL);
	JsonNode *fph;

	/* Of a migration that completes, which can be long: all is as it was */
	if (g_error_matches(err, QMP_ERROR, QMP_ERROR_TIMEOUT) && w->m.status) {
		g_error_free(err);
		return true;
	}
	if (!node) {
		g_propagate_error(error, err);
		return false;
	}
	if (!vm_migration_parse(node, &w->m, NULL, error))
		return false;
	if (!w->has_fph)
		return true;
	fph = qmp_command(w->qmp, VM_QMP_MS, &err, "query-fph", NULL);
	if (fph) {
		vm_fph_parse(fph, &w->m.fph);
		return true;
	}
	if (g_error_matches(err, QMP_ERROR, QMP_ERROR_TIMEOUT)) {
		g_error_free(err);
		return true;
	}
	w->has_fph = false;
	if (g_error_matches(err, QMP_ERROR, QMP_ERROR_COMMAND_NOT_FOUND)) {
		g_error_free(err);
		return true;
	}
	g_propagate_error(error, err);
	return false;
}

static bool is_running(const char *status)
{
	/* With COLO it never ends */
	static const char *const over[] = {
		"none", "completed", "failed", "cancelled", "colo", NULL,
	};

	return !g_strv_contains(over, status);
}

/* A process that is not ours may be out of reach; its figures are then missing. */
static void look_at_process(struct watch *w, struct vm_usage *ret)
{
	if (w->pid && !process_usage(w->pid, w->vcpus, ret, NULL))
		w->pid = 0;
}

/* One that ended before is not the one to be watched, until another has begun. */
static bool wait_for_begin(struct watch *w, gint64 deadline, GError **error)
{
	guint64 old_total;

	if (!poll(w, error))
		return false;
	old_total = w->m.total_ms;
	if (!is_running(w->m.status)) {
		fputs("waiting for a migration to begin\n", stderr);
	} else if (strcmp(w->m.status, "setup") != 0) {
		fputs("it runs already: what its memory and CPU time were before nobody knows\n", stderr);
		w->pid = 0;
	}
	while (!is_running(w->m.status) &&
	       !(strcmp(w->m.status, "none") != 0 && w->m.total_ms != old_total)) {
		if (deadline >= 0 && g_get_monotonic_time() >= deadline) {
			g_set_error(error, VM_ERROR, VM_ERROR_TIMEOUT, "no migration has begun");
			return false;
		}
		look_at_process(w, &w->m.src_before);
		if (!io_sleep(POLL_MS, error) || !poll(w, error))
			return false;
	}
	if (!w->m.src_before.rss_kib)
		look_at_process(w, &w->m.src_before);
	/* QEMU says nothing of RAM yet, and what it said before is of another migration */
	if (strcmp(w->m.status, "setup") == 0)
		w->m.total_ram = w->m.bytes = w->m.remaining = w->m.total_ms = 0;
	w->m.started = g_get_monotonic_time() - (gint64)w->m.total_ms * 1000;
	return true;
}

static const char *mode_of(const struct watch *w)
{
	return w->m.fph.present && w->m.fph.mode ? w->m.fph.mode : "none";
}

/* What the VM is called; -name is optional */
static char *name_of(struct qmp *q, const char *socket)
{
	g_autoptr(JsonNode) node = qmp_command(q, VM_QMP_MS, NULL, "query-name", NULL);
	const char *name = NULL;

	if (node && JSON_NODE_HOLDS_OBJECT(node))
		name = json_object_get_string_member_with_default(json_node_get_object(node), "name",
								  NULL);
	return g_strdup(name ? name : socket);
}

/* A full disk is no reason to look away from a migration */
static void write_metrics(struct watch *w, const char *status)
{
	g_autoptr(GError) error = NULL;
	g_autofree char *text = NULL;
	struct run *now;

	if (!w->metrics)
		return;
	now = run_new("attached", mode_of(w));
	measure_take(now, &w->m);
	text = format_metrics(now, w->name, status, g_get_real_time() / G_USEC_PER_SEC);
	run_free(now);
	if (!write_whole(w->metrics, text, &error) && !w->complained)
		fail("%s", error->message);
	w->complained = error != NULL;
}

/* A line of the table, and new metrics: each second, and in the end */
static void show(struct watch *w, bool last)
{
	g_autofree char *status = text_printable(w->m.status);
	gint64 now = g_get_monotonic_time();
	double seconds = (now - w->last_line) / (double)G_USEC_PER_SEC;

	if (!last && w->last_line && now - w->last_line < LINE_US)
		return;
	if (!w->heading)
		fprintf(w->live, "%8s%12s%12s%10s%7s%14s  %s\n", "s", "sent MiB", "left MiB", "MiB/s",
			"syncs", "left out", "status");
	w->heading = true;
	fprintf(w->live, "%8.1f%12.1f%12.1f", (now - w->m.started) / 1e6, w->m.bytes / MIB,
		w->m.remaining / MIB);
	if (w->last_line && seconds > 0 && w->m.bytes >= w->last_bytes)
		fprintf(w->live, "%10.1f", (w->m.bytes - w->last_bytes) / MIB / seconds);
	else
		fprintf(w->live, "%10s", "-");
	fprintf(w->live, "%7" G_GUINT64_FORMAT "%14" G_GUINT64_FORMAT "  %s\n", w->m.sync_count,
		w->m.fph.skipped, status);
	fflush(w->live);
	w->last_line = now;
	w->last_bytes = w->m.bytes;
	write_metrics(w, w->m.status);
}

static bool follow(struct watch *w, GError **error)
{
	while (is_running(w->m.status)) {
		measure_sample(&w->sampler, &w->m);
		look_at_process(w, &w->m.src_after);
		show(w, false);
		if (!io_sleep(POLL_MS, error) || !poll(w, error))
			return false;
	}
	measure_sample(&w->sampler, &w->m);
	look_at_process(w, &w->m.src_after);
	show(w, true);
	if (strcmp(w->m.status, "completed") == 0)
		return true;
	g_set_error(error, VM_ERROR, VM_ERROR_MIGRATION, "the migration ended as '%s'",
		    w->m.status);
	return false;
}

static char *version_of(struct qmp *q, GError **error)
{
	g_autoptr(JsonNode) node = qmp_command(q, VM_QMP_MS, error, "query-version", NULL);
	JsonObject *v;

	if (!node || !JSON_NODE_HOLDS_OBJECT(node) ||
	    !json_object_has_member(json_node_get_object(node), "qemu"))
		return NULL;
	v = json_object_get_object_member(json_node_get_object(node), "qemu");
	return g_strdup_printf("%d.%d.%d",
			       (int)json_object_get_int_member_with_default(v, "major", 0),
			       (int)json_object_get_int_member_with_default(v, "minor", 0),
			       (int)json_object_get_int_member_with_default(v, "micro", 0));
}

static int watch(struct watch *w, const struct outputs *out, int timeout_ms)
{
	g_autoptr(GDateTime) now = g_date_time_new_now_utc();
	struct result *r = result_new();
	GError *error = NULL;
	int status;

	r->version = g_strdup(FPH_VERSION);
	r->started = g_date_time_format(now, "%Y-%m-%dT%H:%M:%SZ");
	machine_describe(&r->machine);
	r->machine.qemu = version_of(w->qmp, NULL);
	w->vcpus = qmp_vcpus(w->qmp, NULL);
	w->pid = qmp_peer(w->qmp);
	w->has_fph = true;
	if (!wait_for_begin(w, io_deadline(timeout_ms), &error)) {
		status = fail("%s", error->message);
		g_error_free(error);
		result_free(r);
		return status;
	}
	w->run = run_new("attached", mode_of(w));
	w->sampler.run = w->run;
	w->run->repeat = 1;
	w->run->ok = follow(w, &error);
	w->run->memory = w->m.total_ram;
	w->run->ram = g_strdup("guest memory");
	if (w->run->ok)
		measure_take(w->run, &w->m);
	else
		w->run->error = text_printable(error->message);
	/* Who reads metrics must not take it for one that goes on */
	if (is_running(w->m.status))
		write_metrics(w, "lost");
	g_ptr_array_add(r->runs, w->run);
	status = io_signal() ? fail("interrupted; nothing written") : write_results(out, r);
	if (error || w->complained)
		status = X_FAIL;
	g_clear_error(&error);
	result_free(r);
	return status;
}

int cmd_attach(int argc, char **argv)
{
	struct outputs out = { 0 };
	struct watch w = { 0 };
	const char *socket = NULL;
	g_autoptr(GError) error = NULL;
	guint64 timeout_s = 0;
	int o, status;

	while ((o = next_option(argc, argv, attach_opts, "attach")) != -1) {
		switch (o) {
		case O_QMP:
			socket = optarg;
			break;
		case O_JSON:
			out.json = optarg;
			break;
		case O_TEXT:
			out.text = optarg;
			break;
		case O_HTML:
			out.html = optarg;
			break;
		case O_METRICS:
			w.metrics = out.metrics = optarg;
			break;
		case O_TIMEOUT:
			if (!g_ascii_string_to_unsigned(optarg, 10, 1, G_MAXINT / 1000, &timeout_s,
							NULL))
				return usage_error("attach", "--timeout takes a number of seconds");
			break;
		case O_HELP:
			fputs("Usage: fph-report attach --qmp SOCKET [OPTION...]\n"
			      "Watch a migration of a running QEMU that someone else starts.\n\n",
			      stdout);
			print_options(stdout, attach_opts);
			fputs("\nThe socket must be one that QEMU does not use otherwise: it talks to "
			      "one client\nat a time. Nothing is changed in QEMU. There is no figure "
			      "of the destination.\n", stdout);
			return X_DONE;
		default:
			return X_USAGE;
		}
	}
	if (optind < argc)
		return usage_error("attach", "what is '%s'?", argv[optind]);
	if (!socket)
		return usage_error("attach", "--qmp SOCKET is needed");
	if (!outputs_writable(&out, &error))
		return fail("%s", error->message);
	io_catch_signals();
	w.qmp = qmp_connect(socket, VM_QMP_MS, &error);
	if (!w.qmp) {
		fail("%s", error->message);
		return g_error_matches(error, QMP_ERROR, QMP_ERROR_PERMISSION) ? X_UNSUPPORTED :
										 X_FAIL;
	}
	w.name = name_of(w.qmp, socket);
	w.live = g_strcmp0(out.json, "-") == 0 ? stderr : stdout;
	status = watch(&w, &out, timeout_s ? (int)timeout_s * 1000 : -1);
	vm_migration_clear(&w.m);
	g_free(w.name);
	if (w.vcpus)
		g_array_unref(w.vcpus);
	qmp_close(w.qmp);
	return status;
}

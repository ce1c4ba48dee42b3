/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fph-report attach, beside a migration of a real guest that this test starts.
 * Arguments: fph-report, QEMU or nothing.
 */
#include <glib/gstdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fph-test.h"
#include "result-json.h"
#include "vm.h"

#define BANDWIDTH	(UINT64_C(1) << 20)	/* does not come to an end */
#define LINES		3			/* of a table that has one each second */

static const char *report_path, *qemu_path;

struct watched {
	struct vm *src, *dst;
	char *dir, *json, *live, *metrics;
	GPid reporter;
};

static struct vm *start(const char *name, const char *socket, bool incoming)
{
	g_autofree char *kernel = vm_default_kernel();
	g_autofree char *initrd = vm_default_initrd();
	g_autofree char *qmp = g_strdup_printf("unix:%s,server=on,wait=off", socket);
	const char *const extra[] = { "-qmp", qmp, NULL };
	struct vm_config cfg = {
		.name = name, .qemu = qemu_path, .kernel = kernel, .initrd = initrd,
		.incoming = incoming, .fph_mode = incoming ? NULL : "pagemap",
		.extra = incoming ? NULL : extra,
	};
	g_autoptr(GError) error = NULL;
	struct vm *vm = vm_start(&cfg, &error);

	if (!vm)
		print_error("%s\n", error->message);
	return vm;
}

/* Both VMs */
static void start_vms(struct watched *w)
{
	g_autofree char *socket = NULL;
	g_autoptr(GError) error = NULL;

	w->dir = g_dir_make_tmp("fph-attach-XXXXXX", &error);
	check(w->dir);
	socket = g_build_filename(w->dir, "qmp.sock", NULL);
	w->json = g_build_filename(w->dir, "r.json", NULL);
	w->live = g_build_filename(w->dir, "live", NULL);
	w->metrics = g_build_filename(w->dir, "m.prom", NULL);
	w->src = start("source", socket, false);
	w->dst = start("destination", socket, true);
	check(w->src && w->dst && vm_guest_wait_ready(w->src, 60000, &error));
}

/* And fph-report, which says so */
static void watch(struct watched *w, const char *says)
{
	g_autofree char *socket = g_build_filename(w->dir, "qmp.sock", NULL);
	g_autofree char *err = g_build_filename(w->dir, "err", NULL);
	g_autofree char *command = NULL;
	g_autoptr(GError) error = NULL;
	g_autofree char *text = NULL;
	int tries;

	command = g_strdup_printf("exec '%s' attach --qmp '%s' --json '%s' --metrics '%s' >'%s' 2>'%s'",
				  report_path, socket, w->json, w->metrics, w->live, err);
	check(g_spawn_async(NULL, (char *[]){ "/bin/sh", "-c", command, NULL }, NULL,
			    G_SPAWN_DO_NOT_REAP_CHILD, NULL, NULL, &w->reporter, &error));
	for (tries = 0; tries < 200; tries++) {
		g_clear_pointer(&text, g_free);
		if (g_file_get_contents(err, &text, NULL, NULL) && strstr(text, says))
			return;
		g_usleep(50000);
	}
	fail_msg("fph-report does not say '%s': %s", says, text);
}

static void begin(struct watched *w)
{
	start_vms(w);
	watch(w, "waiting");
}

/* Return: its exit status. */
static int reported(struct watched *w)
{
	int status;

	check(waitpid(w->reporter, &status, 0) == w->reporter);
	check(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void end(struct watched *w)
{
	static const char *const names[] = { "qmp.sock", "r.json", "live", "m.prom", "err" };
	size_t i;

	vm_free(w->src);
	vm_free(w->dst);
	for (i = 0; i < ARRAY_SIZE(names); i++) {
		g_autofree char *path = g_build_filename(w->dir, names[i], NULL);

		g_unlink(path);
	}
	g_rmdir(w->dir);
	g_free(w->dir);
	g_free(w->json);
	g_free(w->live);
	g_free(w->metrics);
}

static struct result *load(const struct watched *w)
{
	g_autoptr(GError) error = NULL;
	struct result *r = result_load(w->json, &error);

	if (!r)
		fail_msg("%s", error->message);
	check_int(r->runs->len, 1);
	return r;
}

/* The file is whole, of this VM, and has that. */
static void check_metric(const struct watched *w, const char *what)
{
	g_autofree char *text = NULL;

	check(g_file_get_contents(w->metrics, &text, NULL, NULL));
	check(g_str_has_suffix(text, "# EOF\n"));
	if (!strstr(text, what))
		fail_msg("no %s in %s", what, text);
}

static void check_figure(const struct watched *w, const char *name, guint64 value)
{
	g_autofree char *line = g_strdup_printf("\nfph_migration_%s{vm=\"fph-source\"} %" G_GUINT64_FORMAT
						"\n", name, value);

	check_metric(w, line);
}

/* One that does not end until it is let go; fph-report has watched it for a while. */
static void migrate_watched(struct watched *w, const struct vm_migrate_opts *opts,
			    struct vm_migration *m)
{
	g_autoptr(GError) error = NULL;
	g_autofree char *live = NULL;
	int tries;

	check(vm_migrate_start(w->src, w->dst, opts, m, &error));
	for (tries = 0; tries < 1200; tries++) {
		g_auto(GStrv) lines = NULL;

		g_clear_pointer(&live, g_free);
		check(g_file_get_contents(w->live, &live, NULL, NULL));
		lines = g_strsplit(live, "  active\n", -1);
		if (g_strv_length(lines) > LINES)
			return;
		g_usleep(50000);
	}
	fail_msg("fph-report saw no migration: %s", live);
}

/* It ends, and so does fph-report, which is content */
static void let_through(struct watched *w, const struct vm_migrate_opts *opts,
			struct vm_migration *m)
{
	g_autoptr(GError) error = NULL;

	check(vm_run(w->src, &error, "migrate-set-parameters", "{\"max-bandwidth\":100000000000}"));
	check(vm_migrate_wait(w->src, w->dst, opts, m, &error));
	check_int(reported(w), 0);
}

static void check_completed(void **state)
{
	struct vm_migrate_opts opts = { .max_bandwidth = BANDWIDTH, .timeout_ms = 60000 };
	struct vm_migration m = { 0 };
	g_autofree char *live = NULL;
	struct watched w = { 0 };
	const struct sample *last;
	struct result *r;
	struct run *run;

	begin(&w);
	migrate_watched(&w, &opts, &m);
	let_through(&w, &opts, &m);
	r = load(&w);
	run = r->runs->pdata[0];
	check(run->ok);
	check_str(run->mode, "pagemap");
	check_int(run->v[V_BYTES], m.bytes);
	check_int(run->v[V_TOTAL_MS], m.total_ms);
	check_int(run->v[V_SENT], m.normal);
	check_int(run->v[V_SKIPPED], m.fph.skipped);
	check_int(run->memory, m.total_ram);
	/* The process is found by its socket, and the destination is not ours to see. */
	check(run->v[V_SRC_BEFORE] != NO_VALUE && run->v[V_SRC_BEFORE] > 100 << 10);
	check(run->v[V_DST_BEFORE] == NO_VALUE);
	check(run->samples->len > 10);
	last = &g_array_index(run->samples, struct sample, run->samples->len - 1);
	check(last->remaining == 0 && last->transferred == m.bytes);
	check(g_file_get_contents(w.live, &live, NULL, NULL));
	check(strstr(live, "left MiB") && strstr(live, "  active\n") && strstr(live, "  completed\n"));
	check(strstr(live, "attached: "));
	check_metric(&w, "status=\"completed\"");
	check_figure(&w, "pages_skipped", m.fph.skipped);
	check_figure(&w, "bytes", m.bytes);
	result_free(r);
	vm_migration_clear(&m);
	end(&w);
}

/* Who comes late sees how it goes on, and not what it has cost */
static void check_late(void **state)
{
	struct vm_migrate_opts opts = { .max_bandwidth = BANDWIDTH, .timeout_ms = 60000 };
	struct vm_migration m = { 0 };
	g_autoptr(GError) error = NULL;
	struct watched w = { 0 };
	struct result *r;
	struct run *run;

	start_vms(&w);
	check(vm_migrate_start(w.src, w.dst, &opts, &m, &error));
	do
		check(vm_migrate_poll(w.src, &m, &error));
	while (strcmp(m.status, "active") != 0);
	watch(&w, "it runs already");
	let_through(&w, &opts, &m);
	r = load(&w);
	run = r->runs->pdata[0];
	check(run->ok);
	check_int(run->v[V_BYTES], m.bytes);
	check(run->v[V_SRC_BEFORE] == NO_VALUE && run->v[V_SRC_CPU] == NO_VALUE);
	result_free(r);
	vm_migration_clear(&m);
	end(&w);
}

static void cancel(struct vm *vm)
{
	g_autoptr(GError) error = NULL;

	check(vm_migrate_cancel(vm, 20000, &error));
}

static void end_by_force(struct vm *vm)
{
	kill(vm_pid(vm), SIGKILL);
}

/* A migration that comes to nothing midway is a run that failed, with the reason */
static void check_broken_off(void (*break_off)(struct vm *src), const char *why,
			     const char *metric)
{
	struct vm_migrate_opts opts = { .max_bandwidth = BANDWIDTH, .timeout_ms = 60000 };
	struct vm_migration m = { 0 };
	struct watched w = { 0 };
	struct result *r;
	struct run *run;

	begin(&w);
	migrate_watched(&w, &opts, &m);
	break_off(w.src);
	check_int(reported(&w), 1);
	r = load(&w);
	run = r->runs->pdata[0];
	check(!run->ok && strstr(run->error, why));
	check_metric(&w, metric);
	result_free(r);
	vm_migration_clear(&m);
	end(&w);
}

static void check_cancelled(void **state)
{
	check_broken_off(cancel, "cancelled", "status=\"cancelled\"");
}

static void check_killed(void **state)
{
	check_broken_off(end_by_force, "closed", "status=\"lost\"");
}

/* As QEMU is while it completes, if there is much to do then */
static void check_silent(void **state)
{
	struct vm_migrate_opts opts = { .max_bandwidth = BANDWIDTH, .timeout_ms = 60000 };
	struct vm_migration m = { 0 };
	struct watched w = { 0 };

	begin(&w);
	migrate_watched(&w, &opts, &m);
	kill(vm_pid(w.src), SIGSTOP);
	g_usleep((VM_QMP_MS + 1000) * 1000);
	kill(vm_pid(w.src), SIGCONT);
	let_through(&w, &opts, &m);
	vm_migration_clear(&m);
	end(&w);
}

int main(int argc, char **argv)
{
	struct fph_tests t = { 0 };

	check(argc == 3);
	report_path = argv[1];
	qemu_path = *argv[2] ? argv[2] : NULL;
	fph_test_add(&t, "a migration that completes", check_completed, NULL);
	fph_test_add(&t, "one that runs already", check_late, NULL);
	fph_test_add(&t, "one that is cancelled", check_cancelled, NULL);
	fph_test_add(&t, "a QEMU that dies", check_killed, NULL);
	fph_test_add(&t, "a QEMU that is silent", check_silent, NULL);
	return fph_test_run(&t, "attach");
}

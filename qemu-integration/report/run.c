/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fph-report run: boots guests, migrates them, writes down what it cost. */
#include "report.h"
#include "io.h"
#include "machine.h"
#include "progress.h"
#include "floor.h"
#include "format.h"
#include "scenario.h"
#include "vm.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_SCENARIOS	"idle-8g,memfd-8g"
#define DEFAULT_MODES		"none,pagemap"
#define DEFAULT_TIMEOUT_S	300u
#define SETTLE_MS		15000
#define REPEAT_MAX		1000
#define CHECKED			"4M"	/* content of an idle guest, to be found again */
#define SAMPLES_MAX		100u
#define GIB			(G_GUINT64_CONSTANT(1) << 30)
#define BUILT_BY_QEMU		"./demo or qemu-integration/build-qemu builds it"
#define BUILT_BY_GUEST		"./demo or tests/guest/build-guest builds it"

enum {
	O_SCENARIO, O_MODES, O_REPEAT, O_JSON, O_TEXT, O_HTML, O_QEMU, O_DESTINATION_QEMU,
	O_KERNEL, O_INITRD, O_MEMORY, O_TIMEOUT, O_COLD, O_HELP
};

static const struct opt run_opts[] = {
	[O_SCENARIO] = { "scenario", "NAME[,NAME...]", "guests to migrate [" DEFAULT_SCENARIOS "]" },
	[O_MODES] = { "modes", "MODE[,MODE...]", "ways to do it [" DEFAULT_MODES "]" },
	[O_REPEAT] = { "repeat", "N", "measure each N times [1]" },
	[O_JSON] = { "json", "FILE", "write all figures there; '-' is standard output" },
	[O_TEXT] = { "text", "FILE", "write the tables there as well" },
	[O_HTML] = { "html", "FILE", "write a page with plots there as well" },
	[O_QEMU] = { "qemu", "PATH", "QEMU of the source [CACHE/bin/qemu-system-x86_64]" },
	[O_DESTINATION_QEMU] = { "destination-qemu", "PATH", "QEMU of the destination [the same]" },
	[O_KERNEL] = { "kernel", "PATH", "kernel of the guest [CACHE/guest/vmlinuz]" },
	[O_INITRD] = { "initrd", "PATH", "its initramfs [CACHE/guest/initramfs.img]" },
	[O_MEMORY] = { "memory", "SIZE", "guest memory, instead of what the names say" },
	[O_TIMEOUT] = { "timeout", "SEC", "longest boot and longest migration [300]" },
	[O_COLD] = { "cold", NULL, "do not warm up memory before each migration" },
	[O_HELP] = { "help", NULL, "this text" },
	{ NULL, NULL, NULL },
};

struct plan {
	GPtrArray *scenarios;	/* struct scenario */
	GPtrArray *modes;	/* const struct mode */
	guint64 repeat;
	guint64 memory;
	guint64 timeout_s;
	bool cold;
	char *json, *text, *html;
	char *qemu, *destination_qemu, *kernel, *initrd;
};

static void plan_clear(struct plan *p)
{
	if (p->scenarios)
		g_ptr_array_unref(p->scenarios);
	if (p->modes)
		g_ptr_array_unref(p->modes);
	g_free(p->json);
	g_free(p->text);
	g_free(p->html);
	g_free(p->qemu);
	g_free(p->destination_qemu);
	g_free(p->kernel);
	g_free(p->initrd);
}

static void help(void)
{
	g_autofree char *what = scenario_help();
	int k;

	fputs("Usage: fph-report run [OPTION...]\n"
	      "Migrate test guests live from one QEMU to another, and compare.\n\n", stdout);
	print_options(stdout, run_opts);
	printf("\nCACHE is $FPH_CACHE or ~/.cache/fph. Each figure comes from a guest of its own,\n"
	       "booted and idle; the modes take turns. Before each, as much of this machine's\n"
	       "memory is touched and released as the migration may need: a virtual machine may\n"
	       "have given it back to its host, and getting it again is not what is measured.\n\n%s", what);
	fputs("\nFigures of a run in JSON, as far as it has them:\n", stdout);
	for (k = 0; k < V_COUNT; k++)
		printf("  %-26s %s\n", value_descs[k].path, value_descs[k].help);
	fputs("\nIts words:\n", stdout);
	for (k = 0; k < T_COUNT; k++)
		printf("  %-26s %s\n", text_descs[k].path, text_descs[k].help);
}

/* Options. */

static bool parse_number(const char *text, guint64 max, guint64 *ret)
{
	return g_ascii_string_to_unsigned(text, 10, 1, max, ret, NULL);
}

static int parse_modes(struct plan *p, const char *list)
{
	g_auto(GStrv) names = g_strsplit(list, ",", -1);
	g_autoptr(GError) error = NULL;
	char **n;

	if (!*names)
		return usage_error("run", "--modes takes the name of a mode, or several");
	for (n = names; *n; n++) {
		const struct mode *m = mode_find(*n, &error);

		if (!m)
			return usage_error("run", "%s", error->message);
		if (!g_ptr_array_find(p->modes, m, NULL))
			g_ptr_array_add(p->modes, (gpointer)m);
	}
	return X_DONE;
}

static int parse_scenarios(struct plan *p, const char *list)
{
	g_auto(GStrv) names = g_strsplit(list, ",", -1);
	g_autoptr(GError) error = NULL;
	char **n;
	guint i;

	if (!*names)
		return usage_error("run", "--scenario takes the name of a scenario, or several");
	for (n = names; *n; n++) {
		struct scenario *s = scenario_parse(*n, p->memory, &error);

		if (!s)
			return usage_error("run", "%s", error->message);
		for (i = 0; i < p->scenarios->len; i++)
			if (!strcmp(((struct scenario *)p->scenarios->pdata[i])->name, s->name))
				break;
		if (i == p->scenarios->len)
			g_ptr_array_add(p->scenarios, s);
		else
			scenario_free(s);
	}
	return X_DONE;
}

static void set(char **where, const char *value)
{
	g_free(*where);
	*where = g_strdup(value);
}

/* Return: X_DONE go on, -1 help was asked for and given, else an exit status. */
static int parse(struct plan *p, int argc, char **argv)
{
	const char *scenarios = DEFAULT_SCENARIOS, *mode_list = DEFAULT_MODES;
	g_autoptr(GError) error = NULL;
	int o, status;

	while ((o = next_option(argc, argv, run_opts, "run")) != -1) {
		switch (o) {
		case O_SCENARIO:
			scenarios = optarg;
			break;
		case O_MODES:
			mode_list = optarg;
			break;
		case O_REPEAT:
			if (!parse_number(optarg, REPEAT_MAX, &p->repeat))
				return usage_error("run", "--repeat takes a number from 1 to %d",
						   REPEAT_MAX);
			break;
		case O_TIMEOUT:
			if (!parse_number(optarg, G_MAXINT / 1000, &p->timeout_s))
				return usage_error("run", "--timeout takes a number of seconds");
			break;
		case O_MEMORY:
			if (!size_parse(optarg, &p->memory, &error))
				return usage_error("run", "--memory: %s", error->message);
			break;
		case O_JSON:
			set(&p->json, optarg);
			break;
		case O_TEXT:
			set(&p->text, optarg);
			break;
		case O_HTML:
			set(&p->html, optarg);
			break;
		case O_QEMU:
			set(&p->qemu, optarg);
			break;
		case O_DESTINATION_QEMU:
			set(&p->destination_qemu, optarg);
			break;
		case O_KERNEL:
			set(&p->kernel, optarg);
			break;
		case O_INITRD:
			set(&p->initrd, optarg);
			break;
		case O_COLD:
			p->cold = true;
			break;
		case O_HELP:
			help();
			return -1;
		default:
			return X_USAGE;
		}
	}
	if (optind < argc)
		return usage_error("run", "what is '%s'?", argv[optind]);
	status = parse_modes(p, mode_list);
	return status != X_DONE ? status : parse_scenarios(p, scenarios);
}

/* Before the first guest boots: what would fail after minutes of work. */

static bool writable(const char *path, GError **error)
{
	g_autofree char *dir = g_path_get_dirname(path);

	if (g_file_test(path, G_FILE_TEST_IS_DIR))
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "%s: is a directory", path);
	else if (access(dir, W_OK | X_OK) < 0)
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "%s: cannot be written: %s",
			    path, g_strerror(errno));
	else
		return true;
	return false;
}

static bool present(const char *what, const char *path, const char *built_by, GError **error)
{
	if (access(path, R_OK) == 0)
		return true;
	g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "%s %s: %s; %s", what, path,
		    g_strerror(errno), built_by);
	return false;
}

static bool wants_fph(const struct plan *p)
{
	guint i;

	for (i = 0; i < p->modes->len; i++)
		if (((const struct mode *)p->modes->pdata[i])->fph_mode)
			return true;
	return false;
}

static int check(struct plan *p, struct machine *m)
{
	g_autoptr(GError) error = NULL;

	if (!p->qemu)
		p->qemu = vm_default_qemu();
	if (!p->destination_qemu)
		p->destination_qemu = g_strdup(p->qemu);
	if (!p->kernel)
		p->kernel = vm_default_kernel();
	if (!p->initrd)
		p->initrd = vm_default_initrd();
	if ((p->json && strcmp(p->json, "-") != 0 && !writable(p->json, &error)) ||
	    (p->text && !writable(p->text, &error)) ||
	    (p->html && !writable(p->html, &error)) ||
	    !present("QEMU", p->qemu, BUILT_BY_QEMU, &error) ||
	    !present("QEMU", p->destination_qemu, BUILT_BY_QEMU, &error) ||
	    !present("guest kernel", p->kernel, BUILT_BY_GUEST, &error) ||
	    !present("guest initramfs", p->initrd, BUILT_BY_GUEST, &error))
		return fail("%s", error->message);
	m->qemu = qemu_version(p->qemu, &error);
	if (m->qemu)
		m->destination_qemu = qemu_version(p->destination_qemu, &error);
	if (error)
		return fail("%s", error->message);
	if (wants_fph(p) && !qemu_has(p->qemu, "-object", "fph-source")) {
		fail("%s has no fph-source; " BUILT_BY_QEMU, p->qemu);
		return X_UNSUPPORTED;
	}
	return X_DONE;
}

/* One migration. */

static void take_hints(struct run *r, const struct vm_hints *h)
{
	r->text[T_HINT_STATE] = g_strdup(h->state);
	r->text[T_HINT_REASON] = g_strdup(h->reason);
	r->text[T_TRANSPORT] = g_strdup(h->transport);
	r->text[T_DEVICE] = g_strdup(h->device);
	r->v[V_REQUESTS] = h->requests;
	r->v[V_ANSWERS] = h->answers;
	r->v[V_STALE] = h->stale;
	r->v[V_HINTED] = h->free;
	r->v[V_ARM_NS] = h->arm_ns;
	/* There never was an answer, and that did not take 0 ns. */
	r->v[V_LATENCY_NS] = h->latency_ns ? h->latency_ns : NO_VALUE;
	r->v[V_APPLY_NS] = h->apply_ns;
	r->v[V_WAIT_NS] = h->wait_ns;
	if (!h->walk)
		return;
	r->text[T_WALK] = g_strdup(h->walk);
	r->v[V_WALK_NS] = h->walk_ns;
	r->v[V_LOCK_NS] = h->lock_ns;
	r->v[V_GUEST_PAGES] = h->guest_pages;
	r->v[V_GUEST_ENTRIES] = h->guest_entries;
}

static void take(struct run *r, const struct vm_migration *m)
{
	r->v[V_TOTAL_MS] = m->total_ms;
	r->v[V_DOWNTIME_MS] = m->downtime_ms;
	r->v[V_SETUP_MS] = m->setup_ms;
	r->v[V_WALL_MS] = m->wall_ms;
	r->v[V_BYTES] = m->bytes;
	r->v[V_SYNCS] = m->sync_count;
	r->v[V_SENT] = m->normal;
	r->v[V_ZERO] = m->duplicate;
	r->v[V_SRC_BEFORE] = m->src_before.rss_kib;
	r->v[V_SRC_AFTER] = m->src_after.rss_kib;
	r->v[V_DST_BEFORE] = m->dst_before.rss_kib;
	r->v[V_DST_AFTER] = m->dst_after.rss_kib;
	r->v[V_SRC_CPU] = m->src_after.cpu_ms - m->src_before.cpu_ms;
	r->v[V_DST_CPU] = m->dst_after.cpu_ms - m->dst_before.cpu_ms;
	r->v[V_GUEST_CPU] = m->src_after.guest_cpu_ms - m->src_before.guest_cpu_ms;
	r->v[V_SRC_FAULTS] = m->src_after.faults - m->src_before.faults;
	r->v[V_DST_FAULTS] = m->dst_after.faults - m->dst_before.faults;
	/* Without fph-source all of these are 0. */
	r->v[V_UNMAPPED] = m->fph.unmapped;
	r->v[V_ZERO_MAPPED] = m->fph.zero_mapped;
	r->v[V_SKIPPED] = m->fph.skipped;
	r->v[V_RESENT] = m->fph.resent;
	if (!m->fph.present)
		return;
	r->text[T_FPH_STATE] = g_strdup(m->fph.state ? m->fph.state : "unknown");
	r->text[T_FPH_REASON] = g_strdup(m->fph.reason);
	r->v[V_SCAN_NS] = m->fph.scan_ns;
	r->v[V_CHUNKS] = m->fph.chunks;
	r->v[V_NOT_SCANNED] = m->fph.chunks_not_scanned;
	r->v[V_GIVEN_UP] = m->fph.given_up;
	if (!m->fph.hints.present)
		return;
	r->v[V_FREE] = m->fph.free;
	r->v[V_GUEST_ONLY] = m->fph.guest_only;
	r->v[V_HOST_ONLY] = m->fph.host_only;
	r->v[V_BOTH] = m->fph.both;
	take_hints(r, &m->fph.hints);
}

struct job {
	const struct plan *plan;
	const struct scenario *scenario;
	const struct mode *mode;
	struct run *run;
	char *label;		/* "3/8 idle-8g pagemap" */
	char *logs;
	struct vm *src, *dst;
	struct vm_migration m;
	guint64 sample_us;	/* least time between two samples */
};

/* A machine that runs out of memory ends processes that are not ours. */
static bool enough_memory(const struct job *j, GError **error)
{
	guint64 have = machine_available_kib(), need = j->scenario->fill >> 10;

	if (j->scenario->shared && !j->mode->host_knows)
		need = j->scenario->memory >> 10;
	if (!have || have >= 2 * need)
		return true;
	g_set_error(error, G_IO_ERROR, G_IO_ERROR_NO_SPACE,
		    "needs %.1f GiB of memory, as both sides may fill theirs; "
		    "%.1f GiB are available", 2 * need / 1048576.0, have / 1048576.0);
	return false;
}

/*
 * What both QEMUs may grow by, in the mode that needs most: with shared memory
 * each side by all that is read, else the destination by what it receives.
 */
static guint64 expected_growth(const struct scenario *s)
{
	return s->shared ? 2 * s->memory : MIN(s->memory, s->fill + GIB);
}

static bool has_device(const char *qemu, const struct device *d, GError **error)
{
	if (!d || qemu_has(qemu, "-device", d->name))
		return true;
	g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_SUPPORTED,
		    "%s has no device %s; " BUILT_BY_QEMU, qemu, d->name);
	return false;
}

/*
 * At most SAMPLES_MAX, evenly: when there is no room for another, every second
 * one goes, and from then on only half as many are taken.
 */
static void take_sample(void *opaque, const struct vm_migration *m)
{
	struct job *j = opaque;
	GArray *all = j->run->samples;
	struct sample s = {
		.us = g_get_monotonic_time() - m->started,
		.remaining = m->remaining,
		.transferred = m->bytes,
	};
	guint i;

	/* Before its first dirty bitmap it does not know what is left. */
	if (!m->total_ram || (!m->remaining && !m->bytes))
		return;
	if (strcmp(m->status, "completed") != 0 && all->len &&
	    s.us - g_array_index(all, struct sample, all->len - 1).us < j->sample_us)
		return;
	if (all->len == SAMPLES_MAX) {
		for (i = 0; i < SAMPLES_MAX / 2; i++)
			g_array_index(all, struct sample, i) =
				g_array_index(all, struct sample, 2 * i);
		g_array_set_size(all, SAMPLES_MAX / 2);
		j->sample_us = 2 * s.us / SAMPLES_MAX;
	}
	g_array_append_val(all, s);
}

/* Until it waits for somebody to migrate it. */
static bool boot(struct job *j, const struct vm_config *cfg, int timeout_ms, GError **error)
{
	g_autofree char *complaint = NULL;
	g_autofree char *filled = NULL;

	progress_step("%s: boot", j->label);
	j->src = vm_start(cfg, error);
	if (!j->src || !vm_guest_wait_ready(j->src, timeout_ms, error))
		return false;
	/* In the scenarios that leave nothing else to check. */
	if (j->scenario->use == USE_LITTLE) {
		filled = vm_guest_command(j->src, timeout_ms, error, "fill " CHECKED " dense");
		if (!filled)
			return false;
	}
	progress_step("%s: settle", j->label);
	if (!vm_guest_settle(j->src, SETTLE_MS, error))
		return false;
	complaint = vm_guest_complaint(j->src);
	if (complaint)
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_SUPPORTED,
			    "the guest says: %s; " BUILT_BY_GUEST, complaint);
	return !complaint;
}

static bool fill(struct job *j, int timeout_ms, GError **error)
{
	g_autofree char *what = NULL;
	g_autofree char *filled = NULL;
	struct vm_usage before, after;
	guint64 kib;

	progress_step("%s: fill", j->label);
	if (j->scenario->use == USE_ALL)
		what = g_strdup("all dense");
	else
		what = g_strdup_printf("%" G_GUINT64_FORMAT, j->scenario->fill);
	if (!vm_usage(j->src, &before, error))
		return false;
	filled = vm_guest_command(j->src, timeout_ms, error, "fill %s", what);
	if (!filled || !vm_usage(j->src, &after, error))
		return false;
	if (sscanf(filled, "ok fill pages=%" G_GUINT64_FORMAT, &kib) != 1) {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
			    "the guest's answer to 'fill %s' is '%s'", what, filled);
		return false;
	}
	kib *= 4;
	/* Some of what the guest gets was used at boot. */
	if (after.rss_kib < kib || after.rss_kib < before.rss_kib + kib / 2) {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
			    "the guest filled %" G_GUINT64_FORMAT " MiB, but resident memory of "
			    "the source went from %" G_GUINT64_FORMAT " to %" G_GUINT64_FORMAT
			    " MiB", kib >> 10, before.rss_kib >> 10, after.rss_kib >> 10);
		return false;
	}
	return true;
}

/* Bring the guest's memory into the state that the scenario is about. */
static bool use_memory(struct job *j, int timeout_ms, GError **error)
{
	g_autofree char *freed = NULL;
	g_autofree char *filled = NULL;

	if (j->scenario->use == USE_LITTLE)
		return true;
	if (!fill(j, timeout_ms, error))
		return false;
	if (j->scenario->use == USE_FREED) {
		freed = vm_guest_command(j->src, timeout_ms, error, "free");
		filled = freed ? vm_guest_command(j->src, timeout_ms, error,
						  "fill " CHECKED " dense") : NULL;
		if (!filled)
			return false;
	}
	progress_step("%s: settle", j->label);
	return vm_guest_settle(j->src, SETTLE_MS, error);
}

/* A fast migration of a guest that lost something is worth nothing. */
static bool check_content(struct job *j, int timeout_ms, GError **error)
{
	g_autofree char *answer = NULL;
	guint64 pages, bad;

	progress_step("%s: check", j->label);
	answer = vm_guest_command(j->dst, timeout_ms, error, "check");
	if (!answer)
		return false;
	if (sscanf(answer, "ok check pages=%" G_GUINT64_FORMAT " bad=%" G_GUINT64_FORMAT,
		   &pages, &bad) == 2 && pages > 0 && bad == 0) {
		j->run->v[V_CHECKED] = pages;
		return true;
	}
	g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
		    "the guest's content is wrong at the destination: %s", answer);
	return false;
}

static bool measure(struct job *j, GError **error)
{
	const struct plan *p = j->plan;
	const struct device *device = j->mode->device;
	g_autofree char *append = device ? g_strdup_printf(VM_APPEND " fph.modules=%s",
							   device->module) : NULL;
	int timeout_ms = p->timeout_s * 1000;
	struct vm_config source = {
		.name = "source", .qemu = p->qemu, .memory = j->scenario->memory,
		.ram = j->scenario->ram, .kernel = p->kernel, .initrd = p->initrd,
		.append = append, .extra = device ? device->args : NULL,
		.fph_mode = j->mode->fph_mode, .logs = j->logs,
	};
	struct vm_config destination = source;
	struct vm_migrate_opts opts = {
		.timeout_ms = timeout_ms, .sample = take_sample, .opaque = j,
	};

	destination.name = "destination";
	destination.qemu = p->destination_qemu;
	destination.fph_mode = NULL;
	destination.incoming = true;
	if (!has_device(source.qemu, device, error) ||
	    !has_device(destination.qemu, device, error) ||
	    !enough_memory(j, error) || !boot(j, &source, timeout_ms, error))
		return false;
	if (!use_memory(j, timeout_ms, error))
		return false;
	j->dst = vm_start(&destination, error);
	if (!j->dst)
		return false;
	if (!p->cold) {
		progress_step("%s: warm up", j->label);
		j->run->v[V_WARM] = machine_warm(expected_growth(j->scenario)) >> 10;
	}
	progress_step("%s: migrate", j->label);
	if (!vm_migrate(j->src, j->dst, &opts, &j->m, error))
		return false;
	take(j->run, &j->m);
	return check_content(j, timeout_ms, error);
}

static void remove_logs(const char *dir)
{
	g_autoptr(GDir) d = g_dir_open(dir, 0, NULL);
	const char *name;

	while (d && (name = g_dir_read_name(d))) {
		g_autofree char *path = g_build_filename(dir, name, NULL);

		unlink(path);
	}
	rmdir(dir);
}

/* Right after the migration: this machine has memory at hand that the VMs had. */
static void take_floor(struct job *j)
{
	struct run *r = j->run;
	GError *error = NULL;

	progress_step("%s: floor", j->label);
	if (floor_measure(r->v[V_BYTES], j->scenario->shared, &r->v[V_FLOOR_NS], &error))
		return;
	r->v[V_FLOOR_NS] = NO_VALUE;
	progress_note("%s: no floor: %s", j->label, error->message);
	g_error_free(error);
}

/* Return: false only if interrupted. */
static bool do_job(struct job *j)
{
	g_autoptr(GError) error = NULL;
	struct run *r = j->run;

	j->logs = g_dir_make_tmp("fph-report-XXXXXX", &error);
	r->ok = j->logs && measure(j, &error);
	vm_free(j->src);
	vm_free(j->dst);
	vm_migration_clear(&j->m);
	if (r->ok)
		take_floor(j);
	if (r->ok) {
		progress_note("%s: %" G_GUINT64_FORMAT " ms, %.1f MiB", j->label,
			      r->v[V_TOTAL_MS], r->v[V_BYTES] / 1048576.0);
	} else {
		r->error = g_strdup(error->message);
		if (!io_signal()) {
			progress_note("%s: failed: %s", j->label, r->error);
			/* What failed before QEMU started has no logs. */
			if (j->logs && rmdir(j->logs) < 0)
				r->log = g_steal_pointer(&j->logs);
		}
	}
	if (j->logs)
		remove_logs(j->logs);
	g_clear_pointer(&j->logs, g_free);
	return io_signal() == 0;
}

static bool do_all(const struct plan *p, struct result *result)
{
	guint64 total = p->scenarios->len * p->modes->len * p->repeat, n = 0, repeat;
	guint s, k;

	for (s = 0; s < p->scenarios->len; s++) {
		const struct scenario *sc = p->scenarios->pdata[s];

		for (repeat = 0; repeat < p->repeat; repeat++) {
			for (k = 0; k < p->modes->len; k++) {
				/* There and back: none, pagemap, pagemap, none. */
				guint at = repeat % 2 ? p->modes->len - 1 - k : k;
				const struct mode *mode = p->modes->pdata[at];
				struct job j = { .plan = p, .scenario = sc, .mode = mode };
				bool go_on;

				j.run = run_new(sc->name, mode->name);
				j.run->repeat = repeat + 1;
				j.run->memory = sc->memory;
				j.run->ram = g_strdup(sc->ram_words);
				j.label = g_strdup_printf("%" G_GUINT64_FORMAT "/%" G_GUINT64_FORMAT
							  " %s %s", ++n, total, sc->name,
							  mode->name);
				go_on = do_job(&j);
				g_free(j.label);
				if (!go_on) {
					run_free(j.run);
					return false;
				}
				g_ptr_array_add(result->runs, j.run);
			}
		}
	}
	return true;
}

/* Results. */

/* By way of a temporary file: whoever finds one finds all of it. */
static int write_file(const char *path, const char *content, const char *name, FILE *tell)
{
	g_autoptr(GError) error = NULL;

	if (!g_file_set_contents(path, content, -1, &error))
		return fail("%s", error->message);
	fprintf(tell, "%s: %s\n", name, path);
	return X_DONE;
}

static int write_results(const struct plan *p, const struct result *r)
{
	const struct source source = { p->json ? p->json : "this run", r };
	bool json_out = g_strcmp0(p->json, "-") == 0;
	g_autofree char *json = result_to_json(r);
	g_autofree char *text = format_text(&source, 1);
	g_autofree char *html = p->html ? format_html(&source, 1) : NULL;
	FILE *tell = json_out ? stderr : stdout;
	int status = X_DONE;

	if (json_out)
		fputs(json, stdout);
	fputs(text, tell);
	if (p->text || html || (p->json && !json_out))
		fputc('\n', tell);
	if (p->text && write_file(p->text, text, "Text", tell) != X_DONE)
		status = X_FAIL;
	if (html && write_file(p->html, html, "HTML", tell) != X_DONE)
		status = X_FAIL;
	if (p->json && !json_out && write_file(p->json, json, "JSON", tell) != X_DONE)
		status = X_FAIL;
	return status;
}

static int run(struct plan *p, struct result *r)
{
	g_autoptr(GDateTime) now = g_date_time_new_now_utc();
	int status = check(p, &r->machine);
	bool complete;

	if (status != X_DONE)
		return status;
	r->version = g_strdup(FPH_VERSION);
	r->started = g_date_time_format(now, "%Y-%m-%dT%H:%M:%SZ");
	machine_describe(&r->machine);

	io_catch_signals();
	progress_begin();
	complete = do_all(p, r);
	progress_end();
	if (!complete)
		return fail("interrupted; nothing written");
	status = write_results(p, r);
	return result_failed(r) ? X_FAIL : status;
}

int cmd_run(int argc, char **argv)
{
	struct plan p = {
		.scenarios = g_ptr_array_new_with_free_func((GDestroyNotify)scenario_free),
		.modes = g_ptr_array_new(),
		.repeat = 1,
		.timeout_s = DEFAULT_TIMEOUT_S,
	};
	struct result *r = result_new();
	int status = parse(&p, argc, argv);

	if (status == X_DONE)
		status = run(&p, r);
	else if (status == -1)
		status = X_DONE;
	result_free(r);
	plan_clear(&p);
	return status;
}

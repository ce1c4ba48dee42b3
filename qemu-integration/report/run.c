/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fph-report run: boots guests, migrates them, writes down what it cost. */
#include "commands.h"
#include "cli.h"
#include "io.h"
#include "job.h"
#include "machine.h"
#include "result-json.h"
#include "progress.h"
#include "tracing.h"
#include "vm.h"
#include "write.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_SCENARIOS	"idle-8g,memfd-8g"
#define DEFAULT_MODES		"none,pagemap"
#define DEFAULT_TIMEOUT_S	300u
#define REPEAT_MAX		1000
#define MULTIFD_MAX		255

enum {
	O_SCENARIO, O_MODES, O_REPEAT, O_WARMUP, O_JSON, O_TEXT, O_HTML, O_RESUME, O_QEMU,
	O_DESTINATION_QEMU, O_KERNEL, O_INITRD, O_MEMORY, O_ACCEL, O_MULTIFD, O_LINK, O_TIMEOUT,
	O_COLD, O_TRACE, O_HELP
};

static const struct opt run_opts[] = {
	[O_SCENARIO] = { "scenario", "NAME[,NAME...]", "guests to migrate [" DEFAULT_SCENARIOS "]" },
	[O_MODES] = { "modes", "MODE[,MODE...]", "ways to do it [" DEFAULT_MODES "]" },
	[O_REPEAT] = { "repeat", "N", "measure each N times [1]" },
	[O_WARMUP] = { "warmup", "N", "measure each N times before, and forget that" },
	[O_JSON] = { "json", "FILE", "write all figures there; '-' is standard output" },
	[O_TEXT] = { "text", "FILE", "write the tables there as well" },
	[O_HTML] = { "html", "FILE", "write a page with plots there as well" },
	[O_RESUME] = { "resume", NULL, "go on with what the file of --json has already" },
	[O_QEMU] = { "qemu", "PATH", "QEMU of the source [CACHE/bin/qemu-system-x86_64]" },
	[O_DESTINATION_QEMU] = { "destination-qemu", "PATH", "QEMU of the destination [the same]" },
	[O_KERNEL] = { "kernel", "PATH", "kernel of the guest [CACHE/guest/vmlinuz]" },
	[O_INITRD] = { "initrd", "PATH", "its initramfs [CACHE/guest/initramfs.img]" },
	[O_MEMORY] = { "memory", "SIZE", "guest memory, instead of what the names say" },
	[O_ACCEL] = { "accel", "kvm|tcg|auto", "how the guests run [tcg]" },
	[O_MULTIFD] = { "multifd", "N", "migrate with N connections of multifd" },
	[O_LINK] = { "link", "RATE", "through a network of RATE, as in 10gbit; root only" },
	[O_TIMEOUT] = { "timeout", "SEC", "longest boot and longest migration [300]" },
	[O_COLD] = { "cold", NULL, "do not warm up memory before each migration" },
	[O_TRACE] = { "trace", NULL, "count who takes guest memory, with BPF; root only" },
	[O_HELP] = { "help", NULL, "this text" },
	{ NULL, NULL, NULL },
};

struct plan {
	GPtrArray *scenarios;	/* struct scenario */
	GPtrArray *modes;	/* const struct mode */
	guint64 repeat, warmup;
	guint64 memory;
	struct outputs out;
	bool resume;
	const char *link;	/* rate; NULL: a UNIX socket */
	struct setup setup;
};

static void plan_clear(struct plan *p)
{
	g_ptr_array_unref(p->scenarios);
	g_ptr_array_unref(p->modes);
	g_free(p->setup.qemu);
	g_free(p->setup.destination_qemu);
	g_free(p->setup.kernel);
	g_free(p->setup.initrd);
	g_free(p->setup.compiler);
	g_free(p->setup.accel);
	link_down(&p->setup.link);
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
	char **n, **before;
	int status = X_DONE;
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
		if (i == p->scenarios->len) {
			g_ptr_array_add(p->scenarios, s);
			continue;
		}
		for (before = names; strcmp(*before, *n) != 0; before++)
			;
		if (before == n)
			status = usage_error("run", "%s: another scenario is called '%s', too", *n,
					     s->name);
		scenario_free(s);
		if (status != X_DONE)
			return status;
	}
	return X_DONE;
}

static void set(char **where, const char *value)
{
	g_free(*where);
	*where = g_strdup(value);
}

static bool parse_accel(struct plan *p, const char *name)
{
	if (strcmp(name, "auto") == 0)
		name = machine_has_kvm() ? "kvm" : "tcg";
	else if (strcmp(name, "kvm") != 0 && strcmp(name, "tcg") != 0)
		return false;
	/* One thread for each virtual CPU, as KVM has it. */
	set(&p->setup.accel, strcmp(name, "tcg") == 0 ? "tcg,thread=multi" : name);
	return true;
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
		case O_WARMUP:
			if (!parse_number(optarg, REPEAT_MAX, &p->warmup))
				return usage_error("run", "--warmup takes a number from 1 to %d",
						   REPEAT_MAX);
			break;
		case O_RESUME:
			p->resume = true;
			break;
		case O_ACCEL:
			if (!parse_accel(p, optarg))
				return usage_error("run", "--accel takes kvm, tcg or auto");
			break;
		case O_MULTIFD:
			if (!parse_number(optarg, MULTIFD_MAX, &p->setup.multifd))
				return usage_error("run", "--multifd takes a number from 1 to %d",
						   MULTIFD_MAX);
			break;
		case O_LINK:
			if (!link_rate_valid(optarg))
				return usage_error("run", "--link takes a number with kbit, mbit or "
						   "gbit behind it, not '%s'", optarg);
			p->link = optarg;
			break;
		case O_TIMEOUT:
			if (!parse_number(optarg, G_MAXINT / 1000, &p->setup.timeout_s))
				return usage_error("run", "--timeout takes a number of seconds");
			break;
		case O_MEMORY:
			if (!size_parse(optarg, &p->memory, &error))
				return usage_error("run", "--memory: %s", error->message);
			break;
		case O_JSON:
			p->out.json = optarg;
			break;
		case O_TEXT:
			p->out.text = optarg;
			break;
		case O_HTML:
			p->out.html = optarg;
			break;
		case O_QEMU:
			set(&p->setup.qemu, optarg);
			break;
		case O_DESTINATION_QEMU:
			set(&p->setup.destination_qemu, optarg);
			break;
		case O_KERNEL:
			set(&p->setup.kernel, optarg);
			break;
		case O_INITRD:
			set(&p->setup.initrd, optarg);
			break;
		case O_COLD:
			p->setup.cold = true;
			break;
		case O_TRACE:
			p->setup.trace = true;
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
	if (p->resume && (!p->out.json || strcmp(p->out.json, "-") == 0))
		return usage_error("run", "--resume goes on with the file of --json; which?");
	status = parse_modes(p, mode_list);
	return status != X_DONE ? status : parse_scenarios(p, scenarios);
}

/* Before the first guest boots: what would fail after minutes of work. */

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

static bool compiles(const struct plan *p)
{
	guint i;

	for (i = 0; i < p->scenarios->len; i++)
		if (((const struct scenario *)p->scenarios->pdata[i])->use == USE_COMPILE)
			return true;
	return false;
}

/* What is run, whatever it is called. */
static bool identify(const struct setup *s, struct machine *m, GError **error)
{
	m->qemu = qemu_version(s->qemu, error);
	m->destination_qemu = m->qemu ? qemu_version(s->destination_qemu, error) : NULL;
	m->qemu_digest = m->destination_qemu ? file_digest(s->qemu, error) : NULL;
	m->destination_qemu_digest = m->qemu_digest ? file_digest(s->destination_qemu, error) : NULL;
	m->guest_kernel = m->destination_qemu_digest ? file_digest(s->kernel, error) : NULL;
	m->guest_initrd = m->guest_kernel ? file_digest(s->initrd, error) : NULL;
	if (m->guest_initrd && s->compiler)
		m->guest_compiler = file_digest(s->compiler, error);
	return m->guest_initrd && (m->guest_compiler || !s->compiler);
}

static int check(struct plan *p, struct machine *m)
{
	struct setup *s = &p->setup;
	g_autoptr(GError) error = NULL;

	if (!s->qemu)
		s->qemu = vm_default_qemu();
	if (!s->destination_qemu)
		s->destination_qemu = g_strdup(s->qemu);
	if (!s->kernel)
		s->kernel = vm_default_kernel();
	if (!s->initrd)
		s->initrd = vm_default_initrd();
	if (compiles(p))
		s->compiler = vm_default_compiler();
	if (!outputs_writable(&p->out, &error) ||
	    !present("QEMU", s->qemu, BUILT_BY_QEMU, &error) ||
	    !present("QEMU", s->destination_qemu, BUILT_BY_QEMU, &error) ||
	    !present("guest kernel", s->kernel, BUILT_BY_GUEST, &error) ||
	    !present("guest initramfs", s->initrd, BUILT_BY_GUEST, &error) ||
	    (s->compiler &&
	     !present("compiler for the guest", s->compiler, BUILT_BY_GUEST, &error)))
		return fail("%s", error->message);
	if (!identify(s, m, &error))
		return fail("%s", error->message);
	if (wants_fph(p) && !qemu_has(s->qemu, "-object", "fph-source")) {
		fail("%s has no fph-source; " BUILT_BY_QEMU, s->qemu);
		return X_UNSUPPORTED;
	}
	if (s->trace) {
		m->tracer = g_strdup(tracing_load(&error));
		if (!m->tracer) {
			fail("%s", error->message);
			return X_UNSUPPORTED;
		}
	}
	if (p->link && !link_up(&s->link, p->link, &error)) {
		fail("%s", error->message);
		return g_error_matches(error, G_IO_ERROR, G_IO_ERROR_PERMISSION_DENIED) ?
		       X_UNSUPPORTED : X_FAIL;
	}
	return X_DONE;
}

static bool same_string(const char *what, const char *a, const char *b, GError **error)
{
	if (g_strcmp0(a, b) == 0)
		return true;
	g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "its %s is %s, not %s", what,
		    a ? a : "unknown", b ? b : "unknown");
	return false;
}

/* Figures of another machine, or of guests run in another way, do not belong to a series. */
static bool same_circumstances(const struct machine *old, const struct machine *now, GError **error)
{
	if (old->cores != now->cores || old->memory_kib >> 20 != now->memory_kib >> 20 ||
	    old->multifd != now->multifd) {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
			    "it is of another machine, or of another --multifd");
		return false;
	}
	if (old->cold != now->cold) {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "it was measured with%s --cold",
			    old->cold ? "" : "out");
		return false;
	}
	/* Only a series that compiles has one, and older ones do not tell QEMUs apart. */
	if (old->guest_compiler && now->guest_compiler &&
	    !same_string("guest's compiler", old->guest_compiler, now->guest_compiler, error))
		return false;
	if (old->qemu_digest && old->destination_qemu_digest &&
	    (!same_string("QEMU", old->qemu_digest, now->qemu_digest, error) ||
	     !same_string("destination's QEMU", old->destination_qemu_digest,
			  now->destination_qemu_digest, error)))
		return false;
	return same_string("governor", old->governor, now->governor, error) &&
	       same_string("transparent huge pages", old->thp, now->thp, error) &&
	       same_string("huge pages of shared memory", old->thp_shmem, now->thp_shmem, error) &&
	       same_string("CPU", old->cpu, now->cpu, error) &&
	       same_string("kernel", old->kernel, now->kernel, error) &&
	       same_string("QEMU", old->qemu, now->qemu, error) &&
	       same_string("destination's QEMU", old->destination_qemu, now->destination_qemu,
			   error) &&
	       same_string("guest kernel", old->guest_kernel, now->guest_kernel, error) &&
	       same_string("guest initramfs", old->guest_initrd, now->guest_initrd, error) &&
	       same_string("accelerator", old->accel, now->accel, error) &&
	       same_string("link", old->link, now->link, error) &&
	       same_string("tracer", old->tracer, now->tracer, error);
}

static const struct scenario *planned(const struct plan *p, const char *name)
{
	for (guint i = 0; i < p->scenarios->len; i++) {
		const struct scenario *s = p->scenarios->pdata[i];

		if (strcmp(s->name, name) == 0)
			return s;
	}
	return NULL;
}

/* Will it be measured again, if it failed? */
static bool in_plan(const struct plan *p, const struct run *run)
{
	for (guint i = 0; i < p->modes->len; i++)
		if (strcmp(((const struct mode *)p->modes->pdata[i])->name, run->mode) == 0)
			return run->repeat <= p->repeat && planned(p, run->scenario);
	return false;
}

/* Take over what was measured before; of what is in the plan, what failed is tried again. */
static int resume(const struct plan *p, struct result *r)
{
	g_autoptr(GError) error = NULL;
	struct result *old;
	guint i;

	if (!g_file_test(p->out.json, G_FILE_TEST_EXISTS))
		return X_DONE;
	old = result_load(p->out.json, &error);
	if (!old)
		return fail("%s", error->message);
	if (!same_circumstances(&old->machine, &r->machine, &error)) {
		result_free(old);
		return fail("%s: cannot go on with it: %s", p->out.json, error->message);
	}
	for (i = 0; i < old->runs->len; i++) {
		struct run *run = old->runs->pdata[i];
		const struct scenario *s = planned(p, run->scenario);

		if (s && (run->memory != s->memory || g_strcmp0(run->ram, s->ram_words) != 0)) {
			fail("%s: cannot go on with it: its %s is another guest", p->out.json, s->name);
			result_free(old);
			return X_FAIL;
		}
		if (!run->ok && in_plan(p, run))
			continue;
		g_ptr_array_add(r->runs, run);
		old->runs->pdata[i] = run_new(NULL, NULL);
	}
	set(&r->started, old->started);
	if (!r->machine.guest_compiler)
		set(&r->machine.guest_compiler, old->machine.guest_compiler);
	result_free(old);
	return X_DONE;
}

/* The series. */

static bool is_done(const struct result *r, const struct scenario *s, const struct mode *m,
		    guint64 repeat)
{
	guint i;

	for (i = 0; i < r->runs->len; i++) {
		const struct run *run = r->runs->pdata[i];

		if (strcmp(run->scenario, s->name) == 0 && strcmp(run->mode, m->name) == 0 &&
		    run->repeat == repeat)
			return true;
	}
	return false;
}

static bool all_done(const struct plan *p, const struct result *r, const struct scenario *s)
{
	guint64 repeat;
	guint k;

	for (k = 0; k < p->modes->len; k++)
		for (repeat = 1; repeat <= p->repeat; repeat++)
			if (!is_done(r, s, p->modes->pdata[k], repeat))
				return false;
	return true;
}

/* One of a series: counts, and knows how long the others took. */
struct series {
	const struct plan *plan;
	struct result *result;
	guint64 jobs, number;	/* in all; the current one, from 1 */
	guint64 measured;
	gint64 began;
};

/* Return: false only if interrupted. */
static bool do_one(struct series *s, const struct scenario *sc, const struct mode *mode,
		   guint64 repeat, bool keep)
{
	struct run *r = run_new(sc->name, mode->name);
	g_autofree char *label = NULL;
	gint64 left_s = 0;
	bool go_on;

	if (s->measured)
		left_s = (g_get_monotonic_time() - s->began) / s->measured *
			 (s->jobs - s->number + 1) / G_USEC_PER_SEC;
	progress_left(left_s);
	r->repeat = repeat;
	r->memory = sc->memory;
	r->guests = sc->guests;
	r->ram = g_strdup(sc->ram_words);
	label = g_strdup_printf("%" G_GUINT64_FORMAT "/%" G_GUINT64_FORMAT " %s %s%s", s->number,
				s->jobs, sc->name, mode->name, keep ? "" : " (warm-up)");
	go_on = job_run(&s->plan->setup, sc, mode, label, r);
	s->measured++;
	if (!go_on || !keep) {
		if (r->log)
			progress_note("%s: its logs are in %s", label, r->log);
		run_free(r);
		return go_on;
	}
	g_ptr_array_add(s->result->runs, r);
	/* So that it is not lost if we are. */
	outputs_save(&s->plan->out, s->result);
	return true;
}

static bool do_all(const struct plan *p, struct result *result)
{
	guint64 rounds = p->warmup + p->repeat, round;
	struct series s = {
		.plan = p, .result = result, .began = g_get_monotonic_time(),
		.jobs = p->scenarios->len * p->modes->len * rounds,
	};
	guint i, k;

	for (i = 0; i < p->scenarios->len; i++) {
		const struct scenario *sc = p->scenarios->pdata[i];
		bool done = all_done(p, result, sc);

		for (round = 0; round < rounds; round++) {
			for (k = 0; k < p->modes->len; k++) {
				/* There and back: none, pagemap, pagemap, none. */
				guint at = (round + p->warmup) % 2 ? p->modes->len - 1 - k : k;
				const struct mode *mode = p->modes->pdata[at];
				bool keep = round >= p->warmup;
				guint64 repeat = keep ? round - p->warmup + 1 : 0;

				s.number++;
				/* Nothing to warm up for, or taken over. */
				if (done || (keep && is_done(result, sc, mode, repeat)))
					continue;
				if (!do_one(&s, sc, mode, repeat, keep))
					return false;
			}
		}
	}
	return true;
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
	r->machine.accel = g_strndup(p->setup.accel, strcspn(p->setup.accel, ","));
	r->machine.link = g_strdup(p->link);
	r->machine.multifd = p->setup.multifd;
	r->machine.cold = p->setup.cold;
	status = p->resume ? resume(p, r) : X_DONE;
	if (status != X_DONE)
		return status;

	io_catch_signals();
	progress_begin();
	complete = do_all(p, r);
	progress_end();
	if (!complete && p->out.json && strcmp(p->out.json, "-") != 0 && r->runs->len)
		return fail("interrupted; %s has what was measured, --resume goes on with it",
			    p->out.json);
	if (!complete)
		return fail("interrupted; nothing written");
	status = write_results(&p->out, r);
	return result_failed(r) ? X_FAIL : status;
}

int cmd_run(int argc, char **argv)
{
	struct plan p = {
		.scenarios = g_ptr_array_new_with_free_func((GDestroyNotify)scenario_free),
		.modes = g_ptr_array_new(),
		.repeat = 1,
		.setup = { .timeout_s = DEFAULT_TIMEOUT_S, .link = LINK_NONE },
	};
	struct result *r = result_new();
	int status;

	parse_accel(&p, "tcg");
	status = parse(&p, argc, argv);
	if (status == X_DONE)
		status = run(&p, r);
	else if (status == -1)
		status = X_DONE;
	result_free(r);
	plan_clear(&p);
	return status;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job.h"
#include "balloon.h"
#include "compile.h"
#include "floor.h"
#include "io.h"
#include "machine.h"
#include "measure.h"
#include "mover.h"
#include "progress.h"
#include "text.h"
#include "tracing.h"
#include "vm.h"

#include <glib/gstdio.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SETTLE_MS		15000
#define REPORTED_MS		60000	/* longest wait for a guest that gives back its pages */
#define REPORTED_STILL_S	5	/* it is done: this long nothing more came back */
#define WORK_MS			2000	/* how long a guest's work is watched before */
#define CHECKED			"4M"	/* content of an idle guest, to be found again */
#define GIB			(G_GUINT64_CONSTANT(1) << 30)
#define SMALL_ADDRESSES		(512 * GIB)	/* QEMU's own processor has 40 bits of them */

struct guest {
	struct vm *src, *dst;
	struct vm_migration m;
};

struct job {
	const struct setup *setup;
	const struct scenario *scenario;
	const struct mode *mode;
	const char *label;
	struct run *run;
	int timeout_ms;
	char *logs;
	char *file;		/* that the guest is saved to, or NULL */
	struct guest *guests;	/* scenario->guests of them */
	struct sampler sampler;
	struct tracing *tracing;
	struct mover *mover;
};

/* A machine that runs out of memory ends processes that are not ours. */
static bool enough_memory(const struct job *j, GError **error)
{
	/* A kernel has 64 bytes for each page, which is all of a large guest that is idle */
	guint64 have = machine_available_kib(),
		need = (j->scenario->fill + j->scenario->memory / 64) >> 10;

	if (j->scenario->shared && !j->mode->host_knows)
		need = j->scenario->memory >> 10;
	need = MIN(need, j->scenario->memory >> 10);
	need *= j->scenario->guests;
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
	/* A kernel has 64 bytes for each page, and uses some memory at boot. */
	guint64 used = MIN(s->memory, s->fill + s->memory / 64 + GIB);

	if (s->shared)
		return s->guests * 2 * s->memory;
	/* A file is in the page cache as well */
	return s->guests * (s->way == WAY_LIVE ? used : 2 * used);
}

static bool has_device(const char *qemu, const struct device *d, GError **error)
{
	if (!d || qemu_has(qemu, "-device", d->name))
		return true;
	g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_SUPPORTED,
		    "%s has no device %s; " BUILT_BY_QEMU, qemu, d->name);
	return false;
}

static bool fill(struct job *j, struct vm *vm, GError **error)
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
	if (!vm_usage(vm, &before, error))
		return false;
	filled = vm_guest_command(vm, j->timeout_ms, error, "fill %s", what);
	if (!filled || !vm_usage(vm, &after, error))
		return false;
	if (sscanf(filled, "ok fill pages=%" G_GUINT64_FORMAT, &kib) != 1) {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
			    "the guest's answer to 'fill %s' is '%s'", what, filled);
		return false;
	}
	kib *= 4;
	/* Some of what the guest gets was used at boot, or all of it was cleared then. */
	if (after.rss_kib < kib ||
	    (!j->scenario->append && after.rss_kib < before.rss_kib + kib / 2)) {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
			    "the guest filled %" G_GUINT64_FORMAT " MiB, but resident memory of "
			    "the source went from %" G_GUINT64_FORMAT " to %" G_GUINT64_FORMAT
			    " MiB", kib >> 10, before.rss_kib >> 10, after.rss_kib >> 10);
		return false;
	}
	return true;
}

/* Every second page of what it has written is free again, and goes into the balloon. */
static bool fragment(struct job *j, struct vm *vm, GError **error)
{
	const struct scenario *s = j->scenario;
	g_autofree char *done = NULL;

	progress_step("%s: fragment", j->label);
	done = vm_guest_command(vm, j->timeout_ms, error, "fragment %" G_GUINT64_FORMAT,
				s->fill);
	return done && (s->use == USE_BALLOON ||
			balloon_go_to(vm, s->memory - s->balloon, j->timeout_ms, error));
}

/*
 * A guest that reports its free pages does so little by little, with hardly any
 * work; what it reported, QEMU has given back.
 */
static bool wait_reported(struct job *j, struct vm *vm, GError **error)
{
	guint64 least = G_MAXUINT64;
	struct vm_usage now;
	int waited_ms, still_s = 0;

	progress_step("%s: wait for free page reporting", j->label);
	for (waited_ms = 0; still_s < REPORTED_STILL_S && waited_ms < REPORTED_MS;
	     waited_ms += 1000) {
		if (!vm_usage(vm, &now, error) || !io_sleep(1000, error))
			return false;
		still_s = now.rss_kib + 1024 < least ? 0 : still_s + 1;
		least = MIN(least, now.rss_kib);
	}
	return true;
}

/* Pages that the guest has written so far. */
static bool read_work(struct job *j, struct vm *vm, guint64 *ret, GError **error)
{
	g_autofree char *answer = vm_guest_command(vm, j->timeout_ms, error, "info");
	const char *writes = answer ? strstr(answer, " writes=") : NULL;

	if (writes)
		*ret = g_ascii_strtoull(writes + strlen(" writes="), NULL, 10);
	else if (answer)
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
			    "the guest's answer to 'info' is '%s'", answer);
	return writes;
}

/* The guest works from now on; how fast it does when nobody bothers it. */
static bool begin_work(struct job *j, struct vm *vm, GError **error)
{
	g_autofree char *began = NULL;
	guint64 before, after;
	gint64 since;

	progress_step("%s: work", j->label);
	began = vm_guest_command(vm, j->timeout_ms, error, "rewrite %" G_GUINT64_FORMAT,
				 j->scenario->rate);
	if (!began || !read_work(j, vm, &before, error))
		return false;
	since = g_get_monotonic_time();
	if (!io_sleep(WORK_MS, error) || !read_work(j, vm, &after, error))
		return false;
	j->run->v[V_WORK_BEFORE] = (after - before) * G_USEC_PER_SEC /
				   (g_get_monotonic_time() - since);
	return true;
}

/* Its kernel may lack a module. It says so on its console, which is slow. */
static bool can_do_all(struct vm *vm, GError **error)
{
	g_autofree char *complaint = vm_guest_complaint(vm);

	if (complaint)
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_SUPPORTED,
			    "the guest says: %s; " BUILT_BY_GUEST, complaint);
	return !complaint;
}

/* Bring the guest's memory into the state that the scenario is about. */
static bool use_memory(struct job *j, struct vm *vm, GError **error)
{
	const struct scenario *s = j->scenario;
	enum memory_use use = s->use == USE_BALLOON ? s->before : s->use;
	g_autofree char *freed = NULL;
	g_autofree char *filled = NULL;

	if (s->fill && !(use == USE_FRAGMENTED ? fragment(j, vm, error) : fill(j, vm, error)))
		return false;
	if (use == USE_FREED) {
		freed = vm_guest_command(vm, j->timeout_ms, error, "free");
		if (!freed)
			return false;
	}
	if (use == USE_COMPILE) {
		progress_step("%s: compile", j->label);
		if (!compile_alone(vm, s->objects, j->timeout_ms, j->run, error))
			return false;
	}
	/* Where nothing else is left to check. */
	if (use == USE_FREED || !s->fill) {
		filled = vm_guest_command(vm, j->timeout_ms, error, "fill " CHECKED " dense");
		if (!filled)
			return false;
	}
	progress_step("%s: settle", j->label);
	if (!vm_guest_settle(vm, SETTLE_MS, error))
		return false;
	return !j->mode->reports || wait_reported(j, vm, error);
}

/* A fast migration of a guest that lost something is worth nothing. */
static bool check_content(struct job *j, struct vm *vm, GError **error)
{
	g_autofree char *answer = NULL;
	guint64 pages, bad;

	progress_step("%s: check", j->label);
	answer = vm_guest_command(vm, j->timeout_ms, error, "check");
	if (!answer)
		return false;
	if (sscanf(answer, "ok check pages=%" G_GUINT64_FORMAT " bad=%" G_GUINT64_FORMAT,
		   &pages, &bad) == 2 && pages > 0 && bad == 0) {
		j->run->v[V_CHECKED] += pages;
		return true;
	}
	g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
		    "the guest's content is wrong at the destination: %s", answer);
	return false;
}

/* The machine's temporary files may be in memory; a guest does not belong there. */
static bool make_file(struct job *j, GError **error)
{
	const char *dir = g_getenv("TMPDIR");
	int fd;

	j->file = g_build_filename(dir ? dir : "/var/tmp", "fph-report-XXXXXX", NULL);
	fd = g_mkstemp(j->file);
	if (fd < 0) {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "%s: %s", j->file,
			    g_strerror(errno));
		g_clear_pointer(&j->file, g_free);
		return false;
	}
	close(fd);
	return true;
}

static void add_usage(struct vm_usage *sum, const struct vm_usage *u)
{
	sum->rss_kib += u->rss_kib;
	sum->rss_anon_kib += u->rss_anon_kib;
	sum->rss_file_kib += u->rss_file_kib;
	sum->rss_shmem_kib += u->rss_shmem_kib;
	sum->cpu_ms += u->cpu_ms;
	sum->system_ms += u->system_ms;
	sum->guest_cpu_ms += u->guest_cpu_ms;
	sum->faults += u->faults;
}

static void add_fph(struct vm_fph *sum, const struct vm_fph *f)
{
	sum->skipped += f->skipped;
	sum->unmapped += f->unmapped;
	sum->zero_mapped += f->zero_mapped;
	sum->zero_content += f->zero_content;
	sum->free += f->free;
	sum->resent += f->resent;
	sum->guest_only += f->guest_only;
	sum->host_only += f->host_only;
	sum->both += f->both;
	sum->chunks += f->chunks;
	sum->chunks_not_scanned += f->chunks_not_scanned;
	sum->scan_ns += f->scan_ns;
	sum->hints.requests += f->hints.requests;
	sum->hints.answers += f->hints.answers;
	sum->hints.stale += f->hints.stale;
	sum->hints.free += f->hints.free;
	sum->hints.apply_ns += f->hints.apply_ns;
	sum->hints.guest_pages += f->hints.guest_pages;
	sum->hints.guest_entries += f->hints.guest_entries;
	sum->hints.arm_ns = MAX(sum->hints.arm_ns, f->hints.arm_ns);
	sum->hints.latency_ns = MAX(sum->hints.latency_ns, f->hints.latency_ns);
	sum->hints.wait_ns = MAX(sum->hints.wait_ns, f->hints.wait_ns);
	sum->hints.walk_ns = MAX(sum->hints.walk_ns, f->hints.walk_ns);
	sum->hints.lock_ns = MAX(sum->hints.lock_ns, f->hints.lock_ns);
}

/*
 * Of all guests together: sums, but for the time until the last one was there, the
 * slowest downtime and set-up, and what is the same for all. Words and what they own
 * stay the first one's.
 */
static struct vm_migration sum_up(const struct job *j)
{
	struct vm_migration sum = j->guests[0].m;

	for (guint i = 1; i < j->scenario->guests; i++) {
		const struct vm_migration *m = &j->guests[i].m;

		sum.total_ms = MAX(sum.total_ms, (m->started - sum.started) / 1000 + m->total_ms);
		sum.wall_ms = MAX(sum.wall_ms, (m->started - sum.started) / 1000 + m->wall_ms);
		sum.downtime_ms = MAX(sum.downtime_ms, m->downtime_ms);
		sum.setup_ms = MAX(sum.setup_ms, m->setup_ms);
		sum.sync_count = MAX(sum.sync_count, m->sync_count);
		sum.bytes += m->bytes;
		sum.multifd_bytes += m->multifd_bytes;
		sum.normal += m->normal;
		sum.duplicate += m->duplicate;
		add_usage(&sum.src_before, &m->src_before);
		add_usage(&sum.src_after, &m->src_after);
		add_usage(&sum.dst_before, &m->dst_before);
		add_usage(&sum.dst_after, &m->dst_after);
		add_fph(&sum.fph, &m->fph);
	}
	return sum;
}

/* All at once */
static bool migrate_guests(struct job *j, struct vm_migrate_opts *opts, GError **error)
{
	guint n = j->scenario->guests;
	g_auto(GStrv) uris = g_new0(char *, n + 1);

	/* Samples are one migration's */
	opts->sample = n == 1 ? measure_sample : NULL;
	for (guint i = 0; i < n; i++) {
		uris[i] = vm_migrate_prepare(j->guests[i].src, j->guests[i].dst, opts,
					     &j->guests[i].m, error);
		if (!uris[i])
			return false;
	}
	for (guint i = 0; i < n; i++)
		if (!vm_migrate_begin(j->guests[i].src, uris[i], &j->guests[i].m, error))
			return false;
	for (guint i = 0; i < n; i++)
		if (!vm_migrate_wait(j->guests[i].src, j->guests[i].dst, opts, &j->guests[i].m,
				     error))
			return false;
	return true;
}

/* What else is the saving's: that of the source, and how far it was when */
static void take_restore(struct run *r)
{
	static const enum value source[] = { V_SRC_CPU, V_SRC_SYSTEM, V_SRC_FAULTS, V_GUEST_CPU };

	r->v[V_TOTAL_MS] = r->v[V_LOAD_NS] / 1000000;
	for (size_t i = 0; i < G_N_ELEMENTS(source); i++)
		r->v[source[i]] = NO_VALUE;
	g_array_set_size(r->samples, 0);
}

static bool migrate(struct job *j, GError **error)
{
	const struct setup *setup = j->setup;
	bool linked = setup->link.ns[LINK_SOURCE] >= 0;
	struct vm_migrate_opts opts = {
		.timeout_ms = j->timeout_ms,
		.multifd = setup->multifd ? setup->multifd : j->mode->multifd,
		.address = linked ? LINK_ADDRESS : NULL,
		.downtime_limit_ms = j->scenario->downtime_ms, .opaque = &j->sampler,
	};
	bool works = j->scenario->use == USE_BUSY, compiles = j->scenario->use == USE_COMPILE;
	struct vm *src = j->guests[0].src, *dst = j->guests[0].dst;
	struct vm_migration sum;
	guint64 before = 0, after = 0;
	gint64 since = 0, began = 0;

	if (works && !begin_work(j, src, error))
		return false;
	if (setup->trace) {
		j->tracing = tracing_begin(vm_pid(src), vm_pid(dst), j->scenario->memory,
					   error);
		if (!j->tracing)
			return false;
	}
	if (works && !read_work(j, src, &before, error))
		return false;
	if (compiles && !compile_begin(src, j->scenario->objects, j->timeout_ms, j->run, &began,
				       error))
		return false;
	if (j->scenario->way != WAY_LIVE && !make_file(j, error))
		return false;
	opts.file = j->file;
	if (j->scenario->moved) {
		j->mover = mover_begin(error);
		if (!j->mover)
			return false;
	}
	since = g_get_monotonic_time();
	progress_step("%s: migrate", j->label);
	if (!migrate_guests(j, &opts, error))
		return false;
	if (j->mover)
		j->run->v[V_MOVED] = mover_end(g_steal_pointer(&j->mover));
	if (j->tracing && !tracing_end(j->tracing, j->run, error))
		return false;
	if (works && !read_work(j, dst, &after, error))
		return false;
	if (works)
		j->run->v[V_WORK_DURING] = (after - before) * G_USEC_PER_SEC /
					   (g_get_monotonic_time() - since);
	sum = sum_up(j);
	if (j->file && !sum.file_bytes) {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
			    "%s: the file system does not say what room it takes", j->file);
		return false;
	}
	measure_take(j->run, &sum);
	if (j->scenario->way == WAY_RESTORE)
		take_restore(j->run);
	if (!compiles)
		return true;
	progress_step("%s: compile to the end", j->label);
	return compile_end(dst, j->timeout_ms, began, j->run, error);
}

/* Its name in messages and of its logs; there are several only if there are several guests */
static const char *side_name(const struct job *j, const char *side, guint i)
{
	g_autofree char *name = g_strdup_printf("%s-%u", side, i + 1);

	return g_intern_string(j->scenario->guests > 1 ? name : side);
}

static bool start_source(struct job *j, struct vm_config cfg, guint i, GError **error)
{
	struct guest *g = &j->guests[i];

	cfg.name = side_name(j, "source", i);
	progress_step("%s: boot", j->label);
	g->src = vm_start(&cfg, error);
	return g->src && vm_guest_wait_ready(g->src, j->timeout_ms, error) &&
	       use_memory(j, g->src, error) && can_do_all(g->src, error);
}

static bool measure(struct job *j, GError **error)
{
	const struct setup *setup = j->setup;
	const struct device *device = scenario_device(j->scenario, j->mode);
	const char *more = j->scenario->append ? j->scenario->append : "";
	g_autofree char *append = device ?
		g_strdup_printf(VM_APPEND " %s fph.modules=%s", more, device->module) :
		g_strdup_printf(VM_APPEND " %s", more);
	bool linked = setup->link.ns[LINK_SOURCE] >= 0;
	struct vm_config source = {
		.qemu = setup->qemu, .memory = j->scenario->memory,
		.ram = j->scenario->ram, .kernel = setup->kernel, .initrd = setup->initrd,
		.initrd_more = j->scenario->use == USE_COMPILE ? setup->compiler : NULL,
		.append = append, .extra = device ? device->args : NULL, .accel = setup->accel,
		.fph_mode = j->mode->fph_mode, .logs = j->logs, .thread_names = setup->trace,
		.netns = linked ? &setup->link.ns[LINK_SOURCE] : NULL,
	};
	struct vm_config destination;
	guint n = j->scenario->guests;

	if (j->scenario->memory > SMALL_ADDRESSES && g_str_has_prefix(setup->accel, "kvm"))
		source.cpu = "host";
	destination = source;
	destination.qemu = setup->destination_qemu;
	destination.fph_mode = NULL;
	destination.incoming = true;
	destination.netns = linked ? &setup->link.ns[LINK_DESTINATION] : NULL;
	if (n > 1 && setup->trace) {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_SUPPORTED,
			    "the tracer counts what one guest does");
		return false;
	}
	if (!has_device(source.qemu, device, error) ||
	    !has_device(destination.qemu, device, error) ||
	    !enough_memory(j, error))
		return false;
	for (guint i = 0; i < n; i++)
		if (!start_source(j, source, i, error))
			return false;
	if (j->scenario->use == USE_BALLOON) {
		progress_step("%s: balloon", j->label);
		if (!balloon_measure(j->guests[0].src, device, j->scenario, j->timeout_ms, j->run,
				     error))
			return false;
	}
	for (guint i = 0; j->mode->prescan && i < n; i++) {
		progress_step("%s: prescan", j->label);
		if (!vm_prescan_wait(j->guests[i].src, j->timeout_ms, error))
			return false;
	}
	for (guint i = 0; i < n; i++) {
		destination.name = side_name(j, "destination", i);
		j->guests[i].dst = vm_start(&destination, error);
		if (!j->guests[i].dst)
			return false;
	}
	if (!setup->cold) {
		progress_step("%s: warm up", j->label);
		j->run->v[V_WARM] = machine_warm(expected_growth(j->scenario)) >> 10;
	}
	if (!migrate(j, error))
		return false;
	j->run->v[V_CHECKED] = 0;
	for (guint i = 0; i < n; i++)
		if (!check_content(j, j->guests[i].dst, error))
			return false;
	return true;
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

/* Right after the migration, with memory at hand as that had. */
static void take_floor(struct job *j)
{
	struct run *r = j->run;
	GError *error = NULL;
	bool done = false;

	progress_step("%s: floor", j->label);
	if (!j->setup->cold)
		machine_warm(r->v[V_BYTES]);
	switch (j->scenario->way) {
	case WAY_LIVE:
		done = floor_measure(r->v[V_BYTES], j->scenario->shared, &j->setup->link,
				     &r->v[V_FLOOR_NS], &error);
		break;
	case WAY_SAVE:
		/* What is not on the disk yet would count against this one */
		g_unlink(j->file);
		done = floor_save(j->file, r->v[V_FILE_BYTES], &r->v[V_FLOOR_NS], &error);
		break;
	case WAY_RESTORE:
		done = floor_load(j->file, j->scenario->shared, &r->v[V_FLOOR_NS], &error);
		break;
	}
	if (done)
		return;
	r->v[V_FLOOR_NS] = NO_VALUE;
	progress_note("%s: no floor: %s", j->label, error->message);
	g_error_free(error);
}

bool job_run(const struct setup *setup, const struct scenario *scenario, const struct mode *mode,
	     const char *label, struct run *r)
{
	struct job j = {
		.setup = setup, .scenario = scenario, .mode = mode, .label = label, .run = r,
		.timeout_ms = setup->timeout_s * 1000, .sampler = { r, 0 },
	};
	g_autoptr(GError) error = NULL;

	j.guests = g_new0(struct guest, scenario->guests);
	j.logs = g_dir_make_tmp("fph-report-XXXXXX", &error);
	r->ok = j.logs && measure(&j, &error);
	tracing_free(j.tracing);
	if (j.mover)
		mover_end(j.mover);
	for (guint i = 0; i < scenario->guests; i++) {
		vm_free(j.guests[i].src);
		vm_free(j.guests[i].dst);
		vm_migration_clear(&j.guests[i].m);
	}
	g_free(j.guests);
	if (r->ok) {
		take_floor(&j);
		progress_note("%s: %" G_GUINT64_FORMAT " ms, %.1f MiB", label,
			      r->v[V_TOTAL_MS], r->v[V_BYTES] / 1048576.0);
	} else {
		r->error = text_printable(error->message);
		if (!io_signal()) {
			progress_note("%s: failed: %s", label, r->error);
			/* What failed before QEMU started has no logs. */
			if (j.logs && rmdir(j.logs) < 0)
				r->log = g_steal_pointer(&j.logs);
		}
	}
	if (j.file)
		g_unlink(j.file);
	g_free(j.file);
	if (j.logs)
		remove_logs(j.logs);
	g_free(j.logs);
	return io_signal() == 0;
}

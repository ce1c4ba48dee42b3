/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What can go wrong in a migration does: the destination dies or refuses, the
 * user cancels, the kernel fails a call. The guest must run on at the source,
 * fph-source must have let go, and the next migration must find a guest that
 * has lost nothing.
 *
 * One case per process: fault-test NAME.
 */
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "harness.h"

/* QEMU says that a migration has failed before it has cleaned up */
static bool is_cleaned_up(struct vm *vm)
{
	GError *error = NULL;
	g_autoptr(JsonNode) node = vm_command(vm, &error, "query-yank", NULL);
	JsonArray *list;

	if (!node)
		fail_msg("query-yank: %s", error->message);
	list = json_node_get_array(node);
	for (guint i = 0; i < json_array_get_length(list); i++)
		if (!strcmp(json_object_get_string_member(json_array_get_object_element(list, i),
							  "type"), "migration"))
			return false;
	return true;
}

static char *all_of_fph(struct vm *src)
{
	struct vm_fph fph = { 0 };
	char *text;

	ok(vm_query_fph(src, &fph, E));
	text = json_to_string(fph.raw, false);
	vm_fph_clear(&fph);
	return text;
}

/*
 * A migration has come to nothing. Nothing has happened to the object if that
 * was before there was a connection: @before is what it said then, or NULL.
 */
static void check_ended(struct vm *src, const char *before)
{
	g_autofree char *after = NULL;
	struct vm_fph fph = { 0 };

	until (is_cleaned_up(src))
		;
	check(is_running(src));
	after = all_of_fph(src);
	if (before && !strcmp(before, after))
		return;
	ok(vm_query_fph(src, &fph, E));
	check_str(fph.state, "ended");
	check_sums(&fph);
	if (fph.hints.present)
		check(strcmp(fph.hints.state, "requested"));
	check_end_event(src, "failed", &fph);
	vm_fph_clear(&fph);
}

static void check_over(struct vm *src, const struct vm_config *cfg)
{
	check_ended(src, NULL);
	check_busy(src, cfg);
}

/* To a new destination, with the same object */
static void check_retry(struct vm *src, struct vm_config cfg)
{
	struct vm_migrate_opts fast = { .downtime_limit_ms = 10000 };
	struct vm_migration m = { 0 };
	struct vm *dst;

	cfg.qemu = NULL;
	dst = start_destination(cfg);
	migrate(src, dst, &fast, &m);
	check_str(m.fph.state, "ended");
	check_sums(&m.fph);
	check_end_event(src, "completed", &m.fph);
	check(m.fph.skipped > 1000);
	check_int(m.fph.hints.present, cfg.append != NULL);
	check_arrived(src, dst, &cfg, &m);
	vm_migration_clear(&m);
	vm_free(dst);
}

/*
 * The destination dies
 */

enum when {
	SETUP,			/* channels are being made, nothing is armed yet */
	NO_PAGE_YET,		/* the guest was asked, and all waits for its answer */
	FIRST_ROUND,
	LATER_ROUND,
	SWITCHOVER,		/* the guest has stopped */
	DEVICE,			/* all but the end was sent */
};

struct death {
	const char *name;
	const char *mode;
	const char *ram;
	enum when when;
	const char *capability;
};

static const struct death deaths[] = {
	{ "dead-setup", "pagemap", VM_RAM_ANON, SETUP, "multifd" },
	{ "dead-no-page-yet", "both,pv-wait=60000,x-pv-delay=2000", VM_RAM_ANON, NO_PAGE_YET, NULL },
	{ "dead-first-round", "pagemap", VM_RAM_ANON, FIRST_ROUND, NULL },
	{ "dead-first-round-both", "both", VM_RAM_ANON, FIRST_ROUND, NULL },
	{ "dead-first-round-multifd", "pagemap", VM_RAM_MEMFD, FIRST_ROUND, "multifd" },
	{ "dead-later-round-both", "both", VM_RAM_MEMFD, LATER_ROUND, NULL },
	{ "dead-switchover", "pagemap", VM_RAM_ANON, SWITCHOVER, NULL },
	{ "dead-device", "pagemap", VM_RAM_ANON, DEVICE, "return-path" },
};

static bool is_time(enum when when, const struct vm_migration *m)
{
	switch (when) {
	case SETUP:
		return !strcmp(m->status, "setup");
	case NO_PAGE_YET:
		return m->fph.hints.state && !strcmp(m->fph.hints.state, "requested") &&
		       m->fph.skipped > 0;
	case FIRST_ROUND:
		return m->normal > 1000;
	case LATER_ROUND:
		return m->sync_count >= 3;
	case SWITCHOVER:
	case DEVICE:
		return !strcmp(m->status, "pre-switchover");
	}
	return false;
}

/* ... and not later */
static void check_when(enum when when, struct vm_migration *m)
{
	switch (when) {
	case SETUP:
		check_int(m->fph.epoch, 0);
		break;
	case NO_PAGE_YET:
		check_int(m->normal + m->duplicate, 0);
		break;
	case FIRST_ROUND:
		check_int(m->sync_count, 1);
		break;
	default:
		break;
	}
	if (when != SETUP) {
		check_str(m->fph.state, "active");
		check(m->fph.skipped > 0);
	}
}

static void count_socket(const char *path, const char *target, void *opaque)
{
	guint *n = opaque;

	*n += g_str_has_prefix(target, "socket:");
}

static guint sockets_of(struct vm *vm)
{
	guint n = 0;

	each_fd(vm, count_socket, &n);
	return n;
}

/* Once the source is about to wait for it, with the BQL held */
static gpointer kill_soon(gpointer dst)
{
	g_usleep(300000);
	kill(vm_pid(dst), SIGKILL);
	return NULL;
}

static void test_death(void **state)
{
	const struct death *d = *state;
	struct vm_config cfg = busy_config(d->mode, d->ram);
	struct vm_migrate_opts opts = { .max_bandwidth = 40 * MIB, .downtime_limit_ms = 1 };
	struct vm_migration m = { 0 };
	bool switchover = d->when == SWITCHOVER || d->when == DEVICE;
	struct vm *src, *dst;

	if (d->when == FIRST_ROUND)
		opts.max_bandwidth = 10 * MIB;
	if (switchover)
		opts = (struct vm_migrate_opts){ .downtime_limit_ms = 10000 };
	src = start_busy(&cfg);
	dst = start_destination(cfg);
	if (d->capability)
		capability(src, dst, d->capability);
	if (switchover)
		capability(src, dst, "pause-before-switchover");
	if (d->when == SETUP)	/* more than the destination listens for */
		ok(vm_run(src, E, "migrate-set-parameters", "{\"multifd-channels\":8}"));

	if (d->when == SETUP) {
		g_autofree char *uri = g_strdup_printf("unix:%s/migrate.sock", vm_dir(dst));
		guint sockets = sockets_of(src);

		ok(vm_run(dst, E, "migrate-incoming", "{\"uri\":\"%s\"}", uri));
		check_int(kill(vm_pid(dst), SIGSTOP), 0);
		ok(vm_run(src, E, "migrate", "{\"uri\":\"%s\"}", uri));
		/* Connected, which multifd's channels come after */
		until (sockets_of(src) >= sockets + 2)
			;
	} else {
		ok(vm_migrate_start(src, dst, &opts, &m, E));
	}
	ok(vm_migrate_poll(src, &m, E));
	until (is_time(d->when, &m)) {
		check(strcmp(m.status, "completed") != 0);
		ok(vm_migrate_poll(src, &m, E));
	}
	check_when(d->when, &m);
	if (switchover)
		check(!is_running(src));
	if (d->when == DEVICE) {
		GThread *killer;

		/* It does not get all; the source may answer only when it is dead */
		check_int(kill(vm_pid(dst), SIGSTOP), 0);
		killer = g_thread_new("killer", kill_soon, dst);
		ok(vm_run(src, E, "migrate-continue", "{\"state\":\"pre-switchover\"}"));
		g_thread_join(killer);
	} else {
		check_int(kill(vm_pid(dst), SIGKILL), 0);
	}
	/* What is left fits into the socket, which there is until then */
	until (!vm_alive(dst, NULL))
		;
	if (d->when == SWITCHOVER)
		ok(vm_run(src, E, "migrate-continue", "{\"state\":\"pre-switchover\"}"));
	wait_for_status(src, "failed", &m);
	vm_free(dst);
	check_over(src, &cfg);

	set_capability(src, "pause-before-switchover", false);
	if (d->capability)
		set_capability(src, d->capability, false);
	check_retry(src, cfg);
	vm_migration_clear(&m);
	vm_free(src);
}

/*
 * The destination has another machine than the source
 */

static const char *const one_more_device[] = {
	"-device", "virtio-fph-pci,id=pv0", "-device", "virtio-balloon-pci", NULL,
};

struct refusal {
	const char *name;
	uint64_t memory;			/* 0: as it should be */
	const char *const *extra;		/* of the source */
	const char *machine;
	const char *capability;
};

static const struct refusal refusals[] = {
	/* ... which it sees before it has taken a page */
	{ "refused-memory", 64 * MIB, NULL, NULL, NULL },
	{ "refused-machine", 0, NULL, "q35", NULL },
	/* ... or after it has taken them all, and the source must hear of it */
	{ "refused-device", 0, one_more_device, NULL, "return-path" },
};

static void test_refusal(void **state)
{
	const struct refusal *r = *state;
	struct vm_migrate_opts opts = { .downtime_limit_ms = 10000 };
	struct vm_config cfg = busy_config("pagemap", VM_RAM_ANON), other;
	struct vm_migration m = { 0 };
	struct vm *src, *dst;

	cfg.extra = r->extra;
	src = start_busy(&cfg);
	other = cfg;
	other.extra = NULL;
	if (r->memory)
		other.memory = r->memory;
	if (r->machine)
		other.machine = r->machine;
	dst = start_destination(other);
	if (r->capability)
		capability(src, dst, r->capability);
	ok(vm_migrate_start(src, dst, &opts, &m, E));
	wait_for_status(src, "failed", &m);
	vm_free(dst);
	check_over(src, &cfg);
	if (r->capability)
		set_capability(src, r->capability, false);
	check_retry(src, cfg);
	vm_migration_clear(&m);
	vm_free(src);
}

/*
 * The user cancels
 */

#define CANCELS 50

struct cancels {
	const char *name;
	const char *mode;
	const char *ram;
	const char *const *extra;
};

/* Chunks of 16 MiB are scanned one by one as their turn comes */
static const char *const small_chunks[] = {
	"-global", "migration.x-clear-bitmap-shift=12", NULL,
};

static const struct cancels cancels[] = {
	{ "cancels-pagemap", "pagemap", VM_RAM_MEMFD, small_chunks },
	{ "cancels-both", "both", VM_RAM_ANON, NULL },
};

/* Half of them soon: from 0.1 ms to 0.1 s, each magnitude as often as the next */
static gulong random_delay(GRand *rnd)
{
	if (g_rand_boolean(rnd)) {
		int base = 100 << g_rand_int_range(rnd, 0, 10);

		return g_rand_int_range(rnd, base, 2 * base);
	}
	return g_rand_double_range(rnd, 0, 0.6) * G_USEC_PER_SEC;
}

/* FPH_TEST_SEED repeats the delays of another run, as far as that can be */
static void test_cancels(void **state)
{
	static const uint64_t bandwidths[] = { 20 * MIB, 400 * MIB, 100000 * MIB };
	const struct cancels *c = *state;
	const char *seed_text = g_getenv("FPH_TEST_SEED");
	guint32 seed = seed_text ? strtoul(seed_text, NULL, 0) : g_random_int();
	unsigned int no_page = 0, first = 0, later = 0, stopped = 0;
	struct vm_config cfg = busy_config(c->mode, c->ram);
	GRand *rnd = g_rand_new_with_seed(seed);
	struct vm_migration m = { 0 };
	struct vm *src, *dst;

	print_message("FPH_TEST_SEED=%u\n", seed);
	if (c->extra)
		cfg.extra = c->extra;
	cfg.qemu = sanitized_qemu();
	src = start_busy(&cfg);
	cfg.qemu = NULL;
	/* It does not end by itself */
	set_capability(src, "pause-before-switchover", true);
	for (int i = 0; i < CANCELS; i++) {
		gulong delay = random_delay(rnd);
		struct vm_migrate_opts opts = {
			.max_bandwidth = bandwidths[g_rand_int_range(rnd, 0, ARRAY_SIZE(bandwidths))],
		};

		g_autofree char *before = all_of_fph(src);

		dst = start_destination(cfg);
		ok(vm_migrate_start(src, dst, &opts, &m, E));
		g_usleep(delay);
		ok(vm_migrate_poll(src, &m, E));
		if (!strcmp(m.status, "pre-switchover"))
			stopped++;
		else if (m.normal + m.duplicate == 0)
			no_page++;
		else if (m.sync_count <= 1)
			first++;
		else
			later++;
		ok(vm_migrate_cancel(src, 20000, E));
		vm_free(dst);
		check_ended(src, before);
	}
	print_message("%u cancelled before a page was sent, %u in the first round, %u later, "
		      "%u when the guest had stopped\n", no_page, first, later, stopped);
	check(no_page > 0 && no_page < CANCELS);
	check_busy(src, &cfg);
	set_capability(src, "pause-before-switchover", false);
	check_retry(src, cfg);

	g_rand_free(rnd);
	vm_migration_clear(&m);
	vm_free(src);
}

/*
 * What was left out, what was sent and what is left to send is all there is,
 * and a cancel changes none of it. Nothing moves: the guest is paused, and the
 * migration waits.
 */
static void test_cancel_account(void **state)
{
	struct vm_migrate_opts opts = { .downtime_limit_ms = 10000 };
	struct vm_config cfg = busy_config("pagemap", VM_RAM_ANON);
	struct vm_migration m = { 0 };
	struct vm_fph fph = { 0 };
	struct vm *src, *dst;

	src = start_busy(&cfg);
	ok(vm_stop(src, E));
	dst = start_destination(cfg);
	capability(src, dst, "pause-before-switchover");
	ok(vm_migrate_start(src, dst, &opts, &m, E));
	wait_for_status(src, "pre-switchover", &m);
	ok(vm_migrate_poll(src, &m, E));
	print_migration(&m);
	check_sums(&m.fph);
	check(m.fph.skipped > 1000);
	check_int(m.fph.resent, 0);
	check_int(m.normal + m.duplicate + m.fph.skipped + m.remaining / PAGE,
		  migrated_pages(&m.fph));

	ok(vm_migrate_cancel(src, 20000, E));
	ok(vm_query_fph(src, &fph, E));
	check_str(fph.state, "ended");
	check_sums(&fph);
	check_int(fph.skipped, m.fph.skipped);
	check_int(fph.unmapped, m.fph.unmapped);
	check_int(fph.zero_mapped, m.fph.zero_mapped);
	check_int(fph.resent, 0);
	check_int(fph.chunks + fph.chunks_not_scanned, m.fph.chunks + m.fph.chunks_not_scanned);
	vm_free(dst);

	vm_fph_clear(&fph);
	vm_migration_clear(&m);
	vm_free(src);
}

/*
 * The kernel fails a call
 */

struct fault {
	const char *name;
	const char *call;
	unsigned long first, count;
	const char *ram;
	const char *inactive;		/* part of the reason; NULL: pages are left out */
	int not_scanned;		/* chunks: 0, or 1 for some */
	bool nothing;			/* active, but all is sent */
	const char *mode;		/* NULL: pagemap */
};

#define FOREVER	1000000000ul

static const struct fault faults[] = {
	{ "kernel-open", "open", 1, FOREVER, VM_RAM_ANON, "/proc/self/pagemap" },
	{ "kernel-probe", "ioctl", 1, FOREVER, VM_RAM_MEMFD, "PAGEMAP_SCAN" },
	/* Then the entries of pagemap are read */
	{ "kernel-probe-anon", "ioctl", 1, FOREVER, VM_RAM_ANON, NULL, 0, false },
	{ "kernel-entries", "pread", 1, FOREVER, VM_RAM_ANON, NULL, 1, true,
	  "pagemap,scanner=pagemap" },
	{ "kernel-scan", "ioctl", 3, FOREVER, VM_RAM_ANON, NULL, 1, true },
	/* A look ahead, and the first window, are before */
	{ "kernel-scan-midway", "ioctl", 5, FOREVER, VM_RAM_ANON, NULL, 1, false },
	{ "kernel-seek", "lseek", 1, FOREVER, VM_RAM_MEMFD, NULL, 1, true },
	{ "kernel-seek-midway", "lseek", 6, FOREVER, VM_RAM_MEMFD, NULL, 1, false },
	{ "kernel-cachestat", "cachestat", 1, FOREVER, VM_RAM_MEMFD, "cachestat()" },
	{ "kernel-cachestat-hole", "cachestat", 2, FOREVER, VM_RAM_MEMFD, NULL, 1, true },
	{ "kernel-cachestat-midway", "cachestat", 4, FOREVER, VM_RAM_MEMFD, NULL, 1, false },
	{ "kernel-fstatfs", "fstatfs", 1, FOREVER, VM_RAM_MEMFD, "cannot be examined" },
	{ "kernel-fstat", "fstat", 1, FOREVER, VM_RAM_MEMFD, "cannot be examined" },
	{ "kernel-file-size", "fstat", 2, FOREVER, VM_RAM_MEMFD, NULL, 1, true },
};

static const int errors[] = { EPERM, ENOMEM, EFAULT, EAGAIN, EINTR };

static bool asks_again(const char *call)
{
	return !strcmp(call, "ioctl") || !strcmp(call, "pread");
}

static void migrate_with_fault(const struct fault *f, int err)
{
	struct vm_migrate_opts opts = { .downtime_limit_ms = 10000 };
	struct vm_config cfg = busy_config(f->mode ? f->mode : "pagemap", f->ram);
	g_autofree char *fault = g_strdup_printf("%s %d %lu %lu", f->call, err, f->first, f->count);
	struct vm_migration m = { 0 };
	struct vm *src, *dst;
	const char *seen;

	print_message("%s: %s\n", f->call, strerror(err));
	cfg.qemu = faulty_qemu(fault, &seen);
	src = start_busy(&cfg);
	cfg.qemu = NULL;
	dst = start_destination(cfg);
	migrate(src, dst, &opts, &m);
	check(file_size(seen) > 0);
	check_sums(&m.fph);
	if (f->inactive) {
		check_str(m.fph.state, "inactive");
		if (!strstr(m.fph.reason, f->inactive))
			fail_msg("\"%s\" does not say \"%s\"", m.fph.reason, f->inactive);
	} else {
		check_str(m.fph.state, "ended");
	}
	/* Who is only interrupted asks again */
	if (asks_again(f->call) && err == EINTR) {
		check(m.fph.skipped > 1000);
		check_int(m.fph.chunks_not_scanned, 0);
	} else {
		check_int(m.fph.chunks_not_scanned > 0, f->not_scanned);
		check_int(m.fph.skipped + m.fph.resent > 0, !f->inactive && !f->nothing);
	}
	check_ram_equal(src, dst);

	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

static void test_fault(void **state)
{
	struct fault f = *(const struct fault *)*state;

	for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
		/* No kernel interrupts a call for ever, and none does it to a probe */
		if (errors[i] == EINTR && asks_again(f.call)) {
			if (f.inactive)
				continue;
			f.count = 5;
		}
		migrate_with_fault(&f, errors[i]);
	}
}

/*
 * A call does not come back for a while. It is not made under the BQL (R10):
 * QEMU goes on answering. Then the migration is cancelled, or goes on.
 */
struct hold {
	const char *name;
	const char *mode;
	const char *ram;
	const char *call;
	unsigned long number;
	bool cancel;
};

/* The call comes back before pages are sent without it */
#define WAIT ",pv-wait=60000"

static const struct hold holds[] = {
	{ "held-scan", "pagemap" WAIT, VM_RAM_ANON, "ioctl", 3, false },
	{ "held-scan-cancel", "pagemap" WAIT, VM_RAM_ANON, "ioctl", 3, true },
	{ "held-seek", "pagemap" WAIT, VM_RAM_MEMFD, "lseek", 1, false },
	{ "held-cachestat", "pagemap" WAIT, VM_RAM_MEMFD, "cachestat", 2, true },
	{ "held-scan-both", "both" WAIT, VM_RAM_ANON, "ioctl", 3, false },
	{ "held-seek-both-cancel", "both" WAIT, VM_RAM_MEMFD, "lseek", 3, true },
};

static void test_hold(void **state)
{
	const struct hold *h = *state;
	struct vm_migrate_opts opts = { .downtime_limit_ms = 10000, .timeout_ms = MIGRATE_MS };
	struct vm_config cfg = busy_config(h->mode, h->ram);
	g_autofree char *fault = g_strdup_printf("%s 0 %lu 1", h->call, h->number);
	struct vm_migration m = { 0 };
	GError *error = NULL;
	struct vm *src, *dst;
	const char *seen;

	cfg.qemu = faulty_qemu(fault, &seen);
	src = start_busy(&cfg);
	cfg.qemu = NULL;
	dst = start_destination(cfg);
	ok(vm_migrate_start(src, dst, &opts, &m, E));
	until (file_size(seen) > 0)
		;
	/* In the call; the main loop runs, and so does the guest */
	for (int i = 0; i < 20; i++)
		ok(vm_migrate_poll(src, &m, E));
	check_str(m.status, "active");
	check_int(m.normal + m.duplicate, 0);
	g_free(vm_hmp(src, &error, "info fph"));
	check(!error);
	check(is_running(src));
	check_busy(src, &cfg);

	if (h->cancel) {
		/* Nobody waits for the call */
		ok(vm_run(src, E, "migrate_cancel", NULL));
		wait_for_status(src, "cancelled", &m);
	}
	check_int(unlink(seen), 0);
	if (h->cancel) {
		vm_free(dst);
		check_over(src, &cfg);
		check_retry(src, cfg);
	} else {
		ok(vm_migrate_wait(src, dst, &opts, &m, E));
		print_migration(&m);
		check_sums(&m.fph);
		check(m.fph.skipped > 1000);
		if (cfg.append)
			check_ram_equal_or_free(src, dst);
		else
			check_ram_equal(src, dst);
		vm_free(dst);
	}
	vm_migration_clear(&m);
	vm_free(src);
}

/*
 * A part of the guest's answer waits to be used when the migration is
 * cancelled. It dies with it (R2): the guest takes the pages into use, and the
 * next migration is in its first round, too, when the time to use it comes.
 */
static void test_cancel_late_answer(void **state)
{
	struct vm_migrate_opts slow = { .max_bandwidth = 4 * MIB, .timeout_ms = MIGRATE_MS };
	struct vm_config cfg = busy_config("pv,pv-wait=0,x-pv-delay=2000", VM_RAM_ANON);
	struct vm_migration m = { 0 };
	struct vm *src, *dst;

	src = start(cfg);
	boot(src);
	guest(src, "fill 160M dense", "ok fill");
	guest(src, "free", "ok free");
	dst = start_destination(cfg);
	ok(vm_migrate_start(src, dst, &slow, &m, E));
	until (m.fph.hints.free >= 40000)
		ok(vm_migrate_poll(src, &m, E));
	check_int(m.fph.skipped + m.fph.hints.answers, 0);
	ok(vm_migrate_cancel(src, 20000, E));
	vm_free(dst);
	guest(src, "fill 160M dense", "ok fill");

	dst = start_destination(cfg);
	ok(vm_migrate_start(src, dst, &slow, &m, E));
	/* During setup, of which query-migrate says nothing, or after */
	until (!g_strcmp0(m.fph.hints.state, "answered") && m.sync_count)
		ok(vm_migrate_poll(src, &m, E));
	check_int(m.sync_count, 1);
	ok(vm_run(src, E, "migrate-set-parameters", "{\"max-bandwidth\":1000000000}"));
	ok(vm_migrate_wait(src, dst, &slow, &m, E));
	print_migration(&m);
	check(m.fph.skipped > 1000);
	check_ram_equal_or_free(src, dst);
	ok(vm_cont(dst, E));
	guest_check(dst);
	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

/*
 * A save to a disk that gets full
 */

static char *small_disk;

static void remove_small_disk(void)
{
	umount2(small_disk, MNT_DETACH);
	rmdir(small_disk);
	g_free(small_disk);
}

/* In memory; only this process and those that it starts from now on see it */
static const char *mount_small_disk(const char *options)
{
	if (unshare(geteuid() ? CLONE_NEWUSER | CLONE_NEWNS : CLONE_NEWNS) < 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		fph_test_skip_all("a mount namespace: %s", strerror(errno));
	small_disk = g_dir_make_tmp("fph-disk-XXXXXX", NULL);
	check(small_disk != NULL);
	atexit(remove_small_disk);
	if (mount("none", small_disk, "tmpfs", 0, options) < 0)
		fph_test_skip_all("a tmpfs: %s", strerror(errno));
	return small_disk;
}

static void test_full_disk(void **state)
{
	g_autofree char *uri = g_strdup_printf("file:%s/guest", mount_small_disk("size=8M"));
	struct vm_config cfg = busy_config("pagemap", VM_RAM_MEMFD);
	struct vm_migration m = { 0 };
	struct vm *src;

	src = start_busy(&cfg);
	capability(src, src, "mapped-ram");
	ok(vm_run(src, E, "migrate", "{\"uri\":\"%s\"}", uri));
	wait_for_status(src, "failed", &m);
	check(m.fph.skipped > 1000);
	check_over(src, &cfg);
	set_capability(src, "mapped-ram", false);
	check_retry(src, cfg);
	vm_migration_clear(&m);
	vm_free(src);
}

static const struct fph_test_single singles[] = {
	{ "cancel-account", test_cancel_account },
	{ "cancel-late-answer", test_cancel_late_answer },
	{ "full-disk", test_full_disk },
};

int main(int argc, char **argv)
{
	struct fph_tests t = { 0 };

	fph_test_add_rows(&t, deaths, test_death);
	fph_test_add_rows(&t, refusals, test_refusal);
	fph_test_add_rows(&t, cancels, test_cancels);
	fph_test_add_rows(&t, faults, test_fault);
	fph_test_add_rows(&t, holds, test_hold);
	fph_test_add_singles(&t, singles);
	return harness_main(argc, argv, &t, NULL);
}

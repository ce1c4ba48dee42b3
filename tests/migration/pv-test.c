/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Migrations in which the guest says which of its pages are free. It goes on
 * taking pages into use and giving them back all the while. After each, source
 * and destination may differ in pages that the guest gave up, and has not
 * touched since; and in the guest's own eyes, nothing is lost.
 *
 * One case per process: pv-test NAME.
 */
#include <inttypes.h>
#include <unistd.h>

#include "fph/virtio-fph.h"
#include "harness.h"

static const char *const fph_runs[] = {
	"-device", "virtio-fph-pci,id=pv0,encoding=runs", NULL,
};
static const char *const fph_packed[] = {
	"-device", "virtio-fph-pci,id=pv0,packed=on,iommu_platform=on", NULL,
};
static const char *const fph_and_balloon[] = {
	"-device", "virtio-fph-pci,id=pv0",
	"-object", "iothread,id=io0",
	"-device", "virtio-balloon-pci,id=b0,free-page-hint=on,iothread=io0", NULL,
};

struct live {
	const char *name;
	const char *mode;
	const char *ram;
	const char *const *devices;
	const char *append;
	const char *transport;
	const char *walk;		/* NULL: the balloon does not walk */
	struct vm_migrate_opts opts;
	const char *capability;
	const char *parameters;
	const char *state;		/* of the first request, NULL: answered */
};

#define FAST	{ .max_bandwidth = 200 * MIB }
#define SLOW	{ .max_bandwidth = 60 * MIB }

static const struct live live[] = {
	{ "pv-pfn", "pv", VM_RAM_ANON, fph_device, FPH_APPEND " virtio_fph.walk=pfn",
	  "virtio-fph", "pfn", FAST, NULL, NULL, NULL },
	{ "pv-pfn-runs", "pv", VM_RAM_ANON, fph_runs, FPH_APPEND " virtio_fph.walk=pfn",
	  "virtio-fph", "pfn", FAST, NULL, NULL, NULL },
	{ "pv-pfn-bitmap", "pv", VM_RAM_ANON, fph_device_bitmap, FPH_APPEND " virtio_fph.walk=pfn",
	  "virtio-fph", "pfn", FAST, NULL, NULL, NULL },
	{ "pv-list", "pv", VM_RAM_ANON, fph_device, FPH_APPEND " virtio_fph.walk=list",
	  "virtio-fph", "list", FAST, NULL, NULL, NULL },
	{ "pv-list-runs", "pv", VM_RAM_ANON, fph_runs, FPH_APPEND " virtio_fph.walk=list",
	  "virtio-fph", "list", FAST, NULL, NULL, NULL },
	{ "pv-list-bitmap", "pv", VM_RAM_MEMFD, fph_device_bitmap, FPH_APPEND " virtio_fph.walk=list",
	  "virtio-fph", "list", FAST, NULL, NULL, NULL },
	{ "pv-packed", "pv", VM_RAM_ANON, fph_packed, FPH_APPEND,
	  "virtio-fph", "pfn", FAST, NULL, NULL, NULL },
	{ "pv-multifd", "pv", VM_RAM_ANON, fph_device, FPH_APPEND,
	  "virtio-fph", "pfn", FAST, "multifd", NULL, NULL },
	{ "both-anon", "both", VM_RAM_ANON, fph_device, FPH_APPEND,
	  "virtio-fph", "pfn", FAST, NULL, NULL, NULL },
	{ "both-memfd", "both", VM_RAM_MEMFD, fph_device, FPH_APPEND,
	  "virtio-fph", "pfn", FAST, NULL, NULL, NULL },
	/* The better of the two is chosen */
	{ "both-two-devices", "both", VM_RAM_ANON, fph_and_balloon,
	  VM_APPEND " fph.modules=virtio_fph,virtio_balloon",
	  "virtio-fph", "pfn", FAST, NULL, NULL, NULL },
	/* ... among those that the guest has a driver for, or that is asked for */
	{ "pv-no-driver", "pv", VM_RAM_ANON, fph_and_balloon, BALLOON_APPEND,
	  "virtio-balloon", NULL, FAST, NULL, NULL, NULL },
	{ "pv-device", "pv,pv-device=b0", VM_RAM_ANON, fph_and_balloon,
	  VM_APPEND " fph.modules=virtio_fph,virtio_balloon",
	  "virtio-balloon", NULL, FAST, NULL, NULL, NULL },
	{ "pv-balloon", "pv", VM_RAM_ANON, balloon_device, BALLOON_APPEND,
	  "virtio-balloon", NULL, FAST, NULL, NULL, NULL },
	{ "both-balloon", "both", VM_RAM_MEMFD, balloon_device, BALLOON_APPEND,
	  "virtio-balloon", NULL, FAST, NULL, NULL, NULL },
	/* Each part of the answer is late, but the wait is longer than all of them */
	{ "pv-long-wait", "pv,pv-wait=9000,x-pv-delay=1500", VM_RAM_ANON, fph_device, FPH_APPEND,
	  "virtio-fph", "pfn", FAST, NULL, NULL, NULL },
	/*
	 * Answers that are used long after they were given, while further syncs
	 * go on: what comes too late must not be used at all (R2).
	 */
	{ "pv-delay", "pv,pv-wait=0,x-pv-delay=700", VM_RAM_ANON, fph_device_bitmap, FPH_APPEND,
	  "virtio-fph", NULL, SLOW, "auto-converge",
	  "{\"cpu-throttle-initial\":50,\"throttle-trigger-threshold\":1}", "" },
};

static const char *state_of(const struct live *l)
{
	return l->state ? l->state : "answered";
}

static void check_hints(const struct live *l, const struct vm_fph *f)
{
	const struct vm_hints *h = &f->hints;

	print_message("guest %s%s%s by %s: %" PRIu64 " pages free, answer after %" PRIu64
		      " us, sending waited %" PRIu64 " us; %" PRIu64 " requests, %" PRIu64
		      " answers, %" PRIu64 " late; left out: guest %" PRIu64 ", host %" PRIu64
		      ", both %" PRIu64 "\n", h->state, h->reason ? ": " : "",
		      h->reason ? h->reason : "", h->transport, h->free, h->latency_ns / 1000,
		      h->wait_ns / 1000, h->requests, h->answers, h->stale, f->guest_only,
		      f->host_only, f->both);
	check_int(f->skipped, f->guest_only + f->host_only + f->both);
	check_int(f->free, f->guest_only + f->both);
	check_str(h->transport, l->transport);
	if (*state_of(l)) {
		check_str(h->state, state_of(l));
		check(f->free > 0);
	}
	if (l->walk) {
		check_str(h->walk, l->walk);
		check(h->guest_pages > 0);
		check(h->walk_ns > 0 && h->lock_ns > 0 && h->lock_ns <= h->walk_ns);
	}
}

static void test_live(void **state)
{
	const struct live *l = *state;
	struct vm_config cfg = linux_guest;
	struct vm_migration m = { 0 };
	struct vm *src, *dst;

	cfg.ram = l->ram;
	cfg.fph_mode = l->mode;
	cfg.extra = l->devices;
	cfg.append = l->append;
	src = start(cfg);
	dst = start_destination(cfg);
	boot(src);
	if (l->capability)
		capability(src, dst, l->capability);
	if (l->parameters)
		ok(vm_run(src, E, "migrate-set-parameters", "%s", l->parameters));

	/* Free, but not zero: only the guest can know */
	guest(src, "fill 160M dense", "ok fill");
	guest(src, "free", "ok free");
	guest(src, "fill 16M", "ok fill");
	guest(src, "touch 2000 128M", "ok touch");
	guest(src, "rewrite 2000", "ok rewrite");
	guest(src, "churn 32M", "ok churn");
	migrate(src, dst, &l->opts, &m);
	check_str(m.fph.state, "ended");
	check_hints(l, &m.fph);
	if (!strncmp(l->mode, "both", 4))
		check_int(m.fph.chunks_not_scanned, 0);

	check(check_ram_equal_or_free(src, dst) > 0);
	ok(vm_cont(dst, E));
	guest_check(dst);
	guest(dst, "stop", "ok stop");
	guest(dst, "fill 16M", "ok fill");
	guest_check(dst);

	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

/*
 * Something happens to the guest in the middle of a migration. What it said
 * before stays true, and what it writes afterwards is sent.
 */
struct midway {
	const char *name;
	const char *mode;
	const char *const *devices;
	const char *append;
	const char *command;
	const char *expect;
};

static const struct midway midway[] = {
	{ "pv-unload", "pv", fph_device, FPH_APPEND, "mod unload virtio_fph", "ok mod" },
	{ "both-unload", "both", fph_device, FPH_APPEND, "mod unload virtio_fph", "ok mod" },
	{ "pv-reboot", "pv", fph_device, FPH_APPEND, "reboot", "ok reboot" },
	{ "pv-balloon-reboot", "pv", balloon_device, BALLOON_APPEND, "reboot", "ok reboot" },
	/* The balloon's driver gives hinted pages back when memory is short */
	{ "pv-balloon-pressure", "pv", balloon_device, BALLOON_APPEND, "pressure 256M", "ok pressure" },
	{ "pv-pressure", "pv", fph_device, FPH_APPEND, "pressure 256M", "ok pressure" },
};

static void wait_for_answer(struct vm *src, struct vm_migration *m)
{
	until (m->fph.hints.state && strcmp(m->fph.hints.state, "idle") &&
	       strcmp(m->fph.hints.state, "requested"))
		ok(vm_migrate_poll(src, m, E));
}

static void test_midway(void **state)
{
	const struct midway *w = *state;
	struct vm_migrate_opts opts = {
		.max_bandwidth = MIB, .downtime_limit_ms = 1, .timeout_ms = 2 * MIGRATE_MS,
	};
	bool reboot = !strcmp(w->command, "reboot");
	struct vm_config cfg = linux_guest;
	struct vm_migration m = { 0 };
	struct vm *src, *dst;
	uint64_t differ;

	cfg.fph_mode = w->mode;
	cfg.extra = w->devices;
	cfg.append = w->append;
	src = start(cfg);
	dst = start_destination(cfg);
	boot(src);
	ok(vm_run(src, E, "set-action", "{\"reboot\":\"reset\"}"));
	guest(src, "fill 160M dense", "ok fill");
	guest(src, "free", "ok free");
	guest(src, "fill 16M", "ok fill");
	guest(src, "touch 2000 64M", "ok touch");

	ok(vm_migrate_start(src, dst, &opts, &m, E));
	wait_for_answer(src, &m);
	check_str(m.fph.hints.state, "answered");
	guest(src, w->command, w->expect);
	if (reboot) {
		vm_guest_restarts(src);
		boot(src);
	}
	/* Far more than what the guest kept back of its free pages */
	guest(src, "fill 16M dense", "ok fill");
	ok(vm_migrate_poll(src, &m, E));
	check_str(m.status, "active");	/* or it was not midway */
	let_go(src);
	ok(vm_migrate_wait(src, dst, &opts, &m, E));
	print_migration(&m);
	check_str(m.fph.hints.state, "answered");
	check(m.fph.free > 0);
	check(m.fph.resent > 0);

	/* A guest that has booted anew may have written to all that was free */
	differ = check_ram_equal_or_free(src, dst);
	check(differ > 0 || reboot);
	ok(vm_cont(dst, E));
	guest(dst, "ping", "ok ping");
	if (!reboot)
		guest_check(dst);
	guest(dst, "fill 256M dense", "ok fill");
	guest_check(dst);

	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

/* The guest's balloon driver has taken what is free, to tell of it */
static void wait_for_hints(struct vm *vm)
{
	until (guest_number(vm, "info", "memfree_kib") < 48 * 1024)
		g_usleep(10000);
}

/*
 * The balloon's iothread gets no processor for longer than a round takes, and then has all
 * before it that the guest said in that round. The guest has taken back some of the pages
 * meanwhile and written to them, which the sync saw: they are free no more, although the
 * command before them has the id of the request that is on (QEMU's own mistake).
 */
static void test_late(void **state)
{
	struct vm_migrate_opts opts = {
		.max_bandwidth = MIB, .downtime_limit_ms = 1, .timeout_ms = 2 * MIGRATE_MS,
	};
	struct vm_config cfg = linux_guest;
	struct vm_migration m = { 0 };
	struct vm *src, *dst;
	pid_t iothread;
	uint64_t round;

	cfg.fph_mode = "pv";
	cfg.extra = balloon_device;
	cfg.append = BALLOON_APPEND;
	src = start(cfg);
	dst = start_destination(cfg);
	boot(src);
	guest(src, "fill 16M", "ok fill");

	iothread = hold_iothread(src);
	hold_switchover(src);
	ok(vm_migrate_start(src, dst, &opts, &m, E));
	wait_for_hints(src);
	/* Nearly all is sent as it was before */
	set_bandwidth(src, 64 * MIB);
	until (m.sync_count > 1 || (m.remaining && m.remaining < 16 * MIB)) {
		ok(vm_migrate_poll(src, &m, E));
		if (m.remaining && m.remaining < 64 * MIB)
			set_bandwidth(src, 8 * MIB);
	}
	set_bandwidth(src, MIB / 16);
	/* The driver gives them back when memory is short */
	guest(src, "pressure 256M", "ok pressure");
	guest(src, "fill 128M dense", "ok fill");
	/* A sync that knows of it, whichever it is, and the request after that */
	ok(vm_migrate_poll(src, &m, E));
	round = m.sync_count;
	set_bandwidth(src, 64 * MIB);
	until (m.sync_count > round)
		ok(vm_migrate_poll(src, &m, E));
	set_bandwidth(src, MIB / 16);
	wait_for_hints(src);
	release_iothread(iothread);
	until (m.fph.free > 0)
		ok(vm_migrate_poll(src, &m, E));
	check_str(m.status, "active");
	let_go(src);
	ok(vm_migrate_wait(src, dst, &opts, &m, E));
	print_migration(&m);
	check_str(m.status, "completed");

	check(check_ram_equal_or_free(src, dst) > 0);
	ok(vm_cont(dst, E));
	guest_check(dst);

	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

/* Guests to which it matters what free pages hold (R4) */
struct content {
	const char *name;
	const char *mode;
	const char *const *devices;
	const char *append;
	const char *state;
	const char *why;		/* part of the reason */
};

static const struct content contents[] = {
	{ "pv-init-on-free", "pv", fph_device, FPH_APPEND " init_on_free=1", "answered", NULL },
	{ "both-init-on-free", "both", fph_device, FPH_APPEND " init_on_free=1", "answered", NULL },
	{ "pv-balloon-init-on-free", "pv", balloon_device, BALLOON_APPEND " init_on_free=1",
	  "answered", NULL },
	{ "pv-page-poison", "pv", fph_device, FPH_APPEND " page_poison=1", "failed", "page_poison" },
	{ "pv-balloon-page-poison", "pv", balloon_device, BALLOON_APPEND " page_poison=1",
	  "failed", "page_poison" },
};

static void test_content(void **state)
{
	const struct content *c = *state;
	struct vm_migrate_opts opts = { .max_bandwidth = 100 * MIB };
	struct vm_config cfg = linux_guest;
	struct vm_migration m = { 0 };
	g_autofree char *console = NULL;
	struct vm *src, *dst;

	cfg.fph_mode = c->mode;
	cfg.extra = c->devices;
	cfg.append = c->append;
	if (c->why)
		use_kernel(&cfg, "6.1");	/* cloud kernels cannot poison pages */
	src = start(cfg);
	dst = start_destination(cfg);
	boot(src);
	guest(src, "fill 160M dense", "ok fill");
	guest(src, "free", "ok free");
	guest(src, "fill 16M", "ok fill");
	guest(src, "touch 1000 64M", "ok touch");
	if (!c->why)
		guest(src, "zerochurn 48M", "ok zerochurn");
	migrate(src, dst, &opts, &m);
	check_str(m.fph.hints.state, c->state);
	if (c->why) {
		check(strstr(m.fph.hints.reason, c->why) != NULL);
		check_int(m.fph.skipped + m.fph.resent, 0);
	} else {
		check(m.fph.free > 0);
	}

	/* Free pages as well: they have a content that counts */
	check_ram_equal(src, dst);
	check_int(m.fph.hints.requests, !c->why);
	ok(vm_cont(dst, E));
	guest(dst, "fill 64M", "ok fill");
	guest_check(dst);
	console = vm_console(dst);
	check(!strstr(console, "corruption"));

	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

/* A device that does not know what free pages mean to the guest is not driven */
struct refusal {
	const char *name;
	const char *device;
	const char *append;
	const char *kernel;		/* NULL: the default */
	const char *why;
};

static const struct refusal refusals[] = {
	{ "pv-refuses-zero", "virtio-fph-pci,id=pv0,free-zero=off", FPH_APPEND " init_on_free=1", NULL,
	  "trusted to be zero, which the device cannot deal with" },
	{ "pv-refuses-pattern", "virtio-fph-pci,id=pv0,free-pattern=off",
	  FPH_APPEND " page_poison=1", "6.1", "hold a pattern, which the device cannot deal with" },
};

static void test_refuses(void **state)
{
	const struct refusal *r = *state;
	const char *const device[] = { "-device", r->device, NULL };
	struct vm_config cfg = linux_guest;
	struct vm_migration m = { 0 };
	GError *error = NULL;
	struct vm *src, *dst;
	bool said = false;

	cfg.fph_mode = "pv";
	cfg.extra = device;
	cfg.append = r->append;
	if (r->kernel)
		use_kernel(&cfg, r->kernel);
	src = start(cfg);
	dst = start_destination(cfg);
	boot(src);
	until (said) {
		g_autofree char *console = vm_console(src);

		said = strstr(console, r->why) != NULL;
	}
	check(!vm_guest_command(src, MIGRATE_MS, &error, "report"));
	check(strstr(error->message, "no device that virtio_fph drives"));
	g_error_free(error);
	migrate(src, dst, NULL, &m);
	check_int(m.fph.free, 0);
	check_ram_equal(src, dst);
	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

/*
 * The guest counts its memory from 0; RAM blocks are wherever the machine has
 * put them: two nodes, a hole below 4 GiB, and a DIMM that was plugged in.
 */
static void test_memory_map(void **state)
{
	static const char *const source[] = {
		"-device", "virtio-fph-pci,id=pv0",
		"-object", "memory-backend-ram,id=n0,size=320M",
		"-object", "memory-backend-memfd,id=n1,size=192M,share=on",
		"-numa", "node,memdev=n0", "-numa", "node,memdev=n1",
		"-m", "slots=2,maxmem=2G", NULL,
	};
	static const char *const destination[] = {
		"-device", "virtio-fph-pci,id=pv0",
		"-object", "memory-backend-ram,id=n0,size=320M",
		"-object", "memory-backend-memfd,id=n1,size=192M,share=on",
		"-numa", "node,memdev=n0", "-numa", "node,memdev=n1",
		"-m", "slots=2,maxmem=2G",
		"-object", "memory-backend-ram,id=m0,size=256M",
		"-device", "pc-dimm,id=d0,memdev=m0,node=1", NULL,
	};
	static const char *const blocks[] = { "n0", "n1", "m0" };
	struct vm_migrate_opts opts = { .max_bandwidth = 200 * MIB };
	struct vm_config cfg = linux_guest;
	struct vm_migration m = { 0 };
	struct vm *src, *dst;
	bool filled = false;
	JsonArray *rows;

	cfg.machine = "pc,max-ram-below-4g=256M";
	cfg.fph_mode = "pv";
	cfg.append = FPH_APPEND " memhp_default_state=online_movable";
	cfg.extra = source;
	src = start(cfg);
	cfg.extra = destination;
	dst = start_destination(cfg);
	boot(src);
	ok(vm_run(src, E, "object-add",
		  "{\"qom-type\":\"memory-backend-ram\",\"id\":\"m0\",\"size\":268435456}"));
	ok(vm_run(src, E, "device_add",
		  "{\"driver\":\"pc-dimm\",\"id\":\"d0\",\"memdev\":\"m0\",\"node\":1}"));
	/* More than there is without the DIMM */
	until (filled) {
		GError *error = NULL;
		g_autofree char *answer = vm_guest_command(src, 60000, &error, "fill 480M");

		filled = answer != NULL;
		g_clear_error(&error);
	}
	guest(src, "free", "ok free");
	guest(src, "fill 16M", "ok fill");
	guest(src, "touch 2000 128M", "ok touch");
	guest(src, "churn 32M", "ok churn");
	migrate(src, dst, &opts, &m);
	check_str(m.fph.hints.state, "answered");

	rows = json_object_get_array_member(fph_object(&m.fph), "blocks");
	for (size_t i = 0; i < G_N_ELEMENTS(blocks); i++) {
		bool found = false;

		for (guint k = 0; k < json_array_get_length(rows); k++) {
			JsonObject *b = json_array_get_object_element(rows, k);

			found |= g_str_has_suffix(json_object_get_string_member(b, "name"), blocks[i]) &&
				 json_object_get_int_member(b, "free") > 1000;
		}
		if (!found)
			fail_msg("no free pages in block %s", blocks[i]);
	}
	check(check_ram_equal_or_free(src, dst) > 0);
	ok(vm_cont(dst, E));
	guest_check(dst);
	guest(dst, "stop", "ok stop");
	guest(dst, "fill 256M dense", "ok fill");
	guest_check(dst);

	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

/*
 * The parts of a virtio-mem device that are not plugged in are taken out of the
 * bitmap when a migration has been set up, while our thread finds them absent.
 * Whoever counts a page twice, or not at all, keeps the migration from its end.
 */
static void test_virtio_mem(void **state)
{
	static const char *const devices[] = {
		"-m", "maxmem=80G",
		"-object", "memory-backend-ram,id=vm0,size=64G,reserve=off",
		"-device", "virtio-mem-pci,memdev=vm0,requested-size=0",
		"-device", "virtio-fph-pci", NULL,
	};
	struct vm_config cfg = tiny_guest;

	cfg.fph_mode = "both";
	cfg.extra = devices;
	for (int i = 0; i < 10; i++) {
		struct vm_migration m = { 0 };
		struct vm *src = start(cfg);
		struct vm *dst = start_destination(cfg);

		ft_wait_for(src, 10);
		ok(vm_stop(src, E));
		migrate(src, dst, NULL, &m);
		check_int(m.remaining, 0);
		check_str(m.fph.state, "ended");
		check(m.fph.skipped > 1000);
		vm_migration_clear(&m);
		vm_free(src);
		vm_free(dst);
	}
}

/*
 * A migration starts from nothing, however the last one ended, and whatever the
 * guest had not answered by then. The VM is also stopped for a while.
 */
struct cancel {
	const char *name;
	const char *mode;
	const char *const *devices;
	const char *append;
};

static const struct cancel cancel_rows[] = {
	{ "both-cancel", "both,x-pv-delay=20", fph_device, FPH_APPEND },
	{ "pv-balloon-cancel", "pv", balloon_device, BALLOON_APPEND },
};

static void test_cancel(void **state)
{
	const struct cancel *c = *state;
	struct vm_migrate_opts slow = { .max_bandwidth = 10 * MIB, .timeout_ms = MIGRATE_MS };
	struct vm_migrate_opts fast = FAST;
	struct vm_config cfg = linux_guest;
	struct vm_migration m = { 0 };
	struct vm *src, *dst;

	cfg.fph_mode = c->mode;
	cfg.extra = c->devices;
	cfg.append = c->append;
	src = start(cfg);
	boot(src);
	guest(src, "fill 160M dense", "ok fill");
	guest(src, "free", "ok free");
	guest(src, "churn 32M", "ok churn");
	guest(src, "touch 2000 128M", "ok touch");
	for (int i = 0; i < 8; i++) {
		dst = start_destination(cfg);
		ok(vm_migrate_start(src, dst, &slow, &m, E));
		g_usleep(i * 5000);
		if (i % 2) {
			ok(vm_stop(src, E));
			g_usleep(i * 5000);
			ok(vm_cont(src, E));
		}
		ok(vm_migrate_cancel(src, 20000, E));
		vm_migration_clear(&m);
		vm_free(dst);
	}

	dst = start_destination(cfg);
	migrate(src, dst, &fast, &m);
	check_str(m.fph.state, "ended");
	check(m.fph.hints.present);
	check_arrived(src, dst, &cfg, &m);

	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

/*
 * QEMU ends although the migration is stuck in a pipe that nobody reads, with
 * the bitmap mutex held, and part of an answer waits for that mutex.
 */
static void test_quit_stuck(void **state)
{
	struct vm_config cfg = linux_guest;
	struct vm_fph f = { 0 };
	GError *error = NULL;
	struct vm *src;

	/* Pages are sent before the answer is used */
	cfg.fph_mode = "pv,pv-wait=2000,x-pv-delay=3000";
	cfg.extra = fph_device;
	cfg.append = FPH_APPEND;
	src = start(cfg);
	boot(src);
	ok(vm_run(src, E, "migrate", "{\"uri\":\"exec:while kill -0 $PPID; do sleep 1; done\"}"));
	until (f.hints.free > 0)
		ok(vm_query_fph(src, &f, E));
	/* The time for which the thread holds the answer back, and more */
	g_usleep(4 * G_USEC_PER_SEC);
	ok(vm_query_fph(src, &f, E));
	check_int(f.epoch, 1);
	check_str(f.hints.state, "requested");
	vm_fph_clear(&f);

	ok(vm_run(src, E, "quit", NULL));
	until (error)
		vm_alive(src, &error);
	check(strstr(error->message, "status 0") != NULL);
	g_error_free(error);
	vm_free(src);
}

/*
 * The guest ejects the device, as it can at any time, while the device waits
 * until fph-source has room for more.
 */
static void test_eject(void **state)
{
	static const char *const device[] = {
		"-device", "virtio-fph-pci,addr=0x10,encoding=runs", NULL,
	};
	struct vm_config cfg = linux_guest;
	struct vm_migrate_opts slow = {
		.max_bandwidth = MIB, .downtime_limit_ms = 1, .timeout_ms = 2 * MIGRATE_MS,
	};
	struct vm_migration m = { 0 };
	GError *error = NULL;
	struct vm *src, *dst;
	uint64_t free = 0;

	/* What QEMU frees does not keep its content */
	check(g_setenv("MALLOC_PERTURB_", "165", true));
	cfg.memory = 1024 * MIB;
	cfg.fph_mode = "pv,pv-wait=0,x-pv-delay=8000";
	cfg.extra = device;
	cfg.append = FPH_APPEND;
	src = start(cfg);
	dst = start_destination(cfg);
	boot(src);
	guest(src, "fragment 720M", "ok fragment");

	ok(vm_migrate_start(src, dst, &slow, &m, E));
	/* Until there is no room, since none is used yet: it is single pages that are free */
	until (free > 64 * 1024 && m.fph.hints.free == free) {
		free = m.fph.hints.free;
		g_usleep(500000);
		ok(vm_migrate_poll(src, &m, E));
	}
	print_message("%" PRIu64 " pages free\n", m.fph.hints.free);
	check_str(m.fph.hints.state, "requested");

	/* Bus and slot, into the registers that the guest's ACPI code writes */
	g_free(vm_hmp(src, &error, "o /w 0xae10 0"));
	g_free(vm_hmp(src, &error, "o /w 0xae08 0x10000"));
	ok(vm_migrate_poll(src, &m, E));
	check_str(m.fph.hints.state, "partial");
	/* What came before is used, and then there is room */
	until (m.fph.guest_only > 0)
		ok(vm_migrate_poll(src, &m, E));
	g_usleep(G_USEC_PER_SEC);
	let_go(src);
	ok(vm_migrate_wait(src, dst, &slow, &m, E));
	print_migration(&m);
	check_str(m.status, "completed");

	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

/*
 * The device takes no frames for longer than the driver waits: the report fails midway,
 * and its last frame says so.
 */
static void test_aborted(void **state)
{
	static const char *const device[] = {
		"-device", "virtio-fph-pci,id=pv0,encoding=runs,event_idx=off", NULL,
	};
	struct vm_migrate_opts slow = {
		.max_bandwidth = MIB, .downtime_limit_ms = 1, .timeout_ms = 2 * MIGRATE_MS,
	};
	struct vm_config cfg = linux_guest;
	struct vm_migration m = { 0 };
	bool gave_up = false;
	struct vm *src, *dst;

	cfg.ram = VM_RAM_MEMFD;
	cfg.fph_mode = "pv,pv-wait=60000";
	cfg.extra = device;
	cfg.append = FPH_APPEND;
	src = start(cfg);
	dst = start_destination(cfg);
	boot(src);
	/* More frames than the driver has at a time: 4096 runs in each */
	guest(src, "fragment 330M", "ok fragment");
	mute_queues(src, VIRTIO_FPH_Q_BALLOON, true);
	ok(vm_migrate_start(src, dst, &slow, &m, E));
	until (gave_up) {
		g_autofree char *console = vm_console(src);

		gave_up = strstr(console, "the device does not take the report") != NULL;
	}
	ok(vm_migrate_poll(src, &m, E));
	check_str(m.fph.hints.state, "requested");
	check_int(guest_number(src, "report", "aborted"), 0);
	mute_queues(src, VIRTIO_FPH_Q_BALLOON, false);
	until (strcmp(m.fph.hints.state, "requested"))
		ok(vm_migrate_poll(src, &m, E));
	check_str(m.fph.hints.state, "partial");
	check_int(guest_number(src, "report", "aborted"), 1);
	check_int(guest_number(src, "report", "reports"), 0);
	/* What it said before counts. */
	check(m.fph.free > 0);

	let_go(src);
	ok(vm_migrate_wait(src, dst, &slow, &m, E));
	print_migration(&m);
	check_ram_equal_or_free(src, dst);
	ok(vm_cont(dst, E));
	guest_check(dst);
	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

/* A number of the statistics that the stock balloon has from the guest, or -1 */
static int64_t statistic(struct vm *vm, const char *name)
{
	JsonObject *answer;
	JsonNode *node;
	int64_t value;

	ok((node = vm_command(vm, E, "qom-get",
			      "{\"path\":\"/machine/peripheral/b0\",\"property\":\"guest-stats\"}")));
	answer = json_object_get_object_member(json_node_get_object(node), "stats");
	value = json_object_get_int_member(answer, name);
	json_node_unref(node);
	return value;
}

/*
 * The stock balloon beside virtio-fph, each with a part: size, statistics and reporting
 * are the one's, what is free in a migration says the other.
 */
static void test_side_by_side(void **state)
{
	static const char *const devices[] = {
		"-device", "virtio-fph-pci,id=pv0",
		"-device", "virtio-balloon-pci,id=b0,free-page-reporting=on,deflate-on-oom=on", NULL,
	};
	struct vm_migrate_opts opts = FAST;
	struct vm_config cfg = linux_guest;
	struct vm_migration m = { 0 };
	uint64_t full, rss = 0;
	struct vm *src, *dst;
	struct vm_usage u;

	cfg.fph_mode = "both";
	cfg.extra = devices;
	cfg.append = VM_APPEND " fph.modules=virtio_fph,virtio_balloon";
	src = start(cfg);
	dst = start_destination(cfg);
	boot(src);
	ok(vm_run(src, E, "qom-set", "{\"path\":\"/machine/peripheral/b0\","
		  "\"property\":\"guest-stats-polling-interval\",\"value\":1}"));
	guest(src, "fill 200M dense", "ok fill");
	ok(vm_usage(src, &u, E));
	full = u.rss_anon_kib;
	until (statistic(src, "stat-total-memory") > 0 &&
	       statistic(src, "stat-available-memory") < (int64_t)(280 * MIB))
		g_usleep(200000);
	guest(src, "free", "ok free");
	/*
	 * What is reported, QEMU does not keep, but Linux keeps some 100 MiB of what is free
	 * to itself; and the statistics say that it is free.
	 */
	until (rss && rss + 64 * 1024 < full) {
		g_usleep(200000);
		ok(vm_usage(src, &u, E));
		rss = u.rss_anon_kib;
	}
	print_message("RSS %" PRIu64 " KiB, then %" PRIu64 "\n", full, rss);
	until (statistic(src, "stat-available-memory") > (int64_t)(300 * MIB))
		g_usleep(200000);
	resize(src, 384 * MIB);

	guest(src, "fill 16M", "ok fill");
	guest(src, "touch 2000 64M", "ok touch");
	migrate(src, dst, &opts, &m);
	check_str(m.fph.hints.state, "answered");
	check_str(m.fph.hints.transport, "virtio-fph");
	check_ram_equal_or_free(src, dst);
	ok(vm_cont(dst, E));
	guest_check(dst);
	check_int(size_of(dst), 384 * MIB);
	resize(dst, 512 * MIB);
	guest(dst, "mod unload virtio_fph", "ok mod");
	guest(dst, "mod unload virtio_balloon", "ok mod");
	guest_check(dst);
	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

static const struct fph_test_single singles[] = {
	{ "pv-memory-map", test_memory_map },
	{ "both-side-by-side", test_side_by_side },
	{ "both-virtio-mem", test_virtio_mem },
	{ "pv-aborted", test_aborted },
	{ "pv-eject", test_eject },
	{ "pv-balloon-late", test_late },
	{ "pv-quit-stuck", test_quit_stuck },
};

static bool asks_host(const char *name)
{
	return g_str_has_prefix(name, "both");
}

int main(int argc, char **argv)
{
	struct fph_tests t = { 0 };

	fph_test_add_rows(&t, live, test_live);
	fph_test_add_rows(&t, midway, test_midway);
	fph_test_add_rows(&t, contents, test_content);
	fph_test_add_rows(&t, refusals, test_refuses);
	fph_test_add_rows(&t, cancel_rows, test_cancel);
	fph_test_add_singles(&t, singles);
	return harness_main(argc, argv, &t, asks_host);
}

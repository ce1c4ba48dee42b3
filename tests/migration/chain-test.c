/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A guest that is migrated from host to host to host. What was left out on the
 * way to the second one is memory there that was never sent: it must read as
 * zero, and be known as such, when that host becomes the source. The guest
 * checks its memory on each host; all of it is compared after the last hop.
 *
 * One case per process: chain-test NAME.
 */
#include <inttypes.h>
#include <sys/prctl.h>

#include "harness.h"

#define HOPS 3

struct chain {
	const char *name;
	const char *mode;
	const char *ram;
	const char *accel;
	bool late;		/* objects come and go while the guest runs */
};

static const struct chain chains[] = {
	{ "chain-pagemap-anon", "pagemap", VM_RAM_ANON, NULL, false },
	{ "chain-pagemap-memfd", "pagemap", VM_RAM_MEMFD, NULL, true },
	{ "chain-both-anon", "both", VM_RAM_ANON, NULL, true },
	{ "chain-both-memfd", "both", VM_RAM_MEMFD, NULL, false },
};

static const struct chain kvm_chains[] = {
	{ "kvm-chain-anon", "pagemap", VM_RAM_ANON, "kvm", false },
	{ "kvm-chain-memfd", "pagemap", VM_RAM_MEMFD, "kvm", true },
};

static void add_object(struct vm *vm, const char *mode)
{
	ok(vm_run(vm, E, "object-add", "{\"qom-type\":\"fph-source\",\"id\":\"late\",\"mode\":\"%s\"}",
		  mode));
}

/* The next host, with an object of its own from the start if @mode is not NULL */
static struct vm *start_host(struct vm_config cfg, const char *name, const char *mode)
{
	cfg.name = name;
	cfg.fph_mode = mode;
	cfg.incoming = true;
	cfg.paused = true;
	return start(cfg);
}

/* Waiting for a migration is not one; nor is having received it */
static void check_ready(struct vm *vm)
{
	struct vm_fph fph = { 0 };

	ok(vm_query_fph(vm, &fph, E));
	check(fph.present);
	check_str(fph.state, "ready");
	check_int(fph.skipped + fph.epoch + fph.chunks, 0);
	vm_fph_clear(&fph);
}

static void check_hop(int hop, const struct vm_migration *m)
{
	check_str(m->fph.state, "ended");
	check_sums(&m->fph);
	check(m->fph.skipped > 1000);
	check_int(m->fph.chunks_not_scanned, 0);
	if (m->fph.hints.present) {
		check_str(m->fph.hints.state, "answered");
		/* What is free and was left out has no memory at the next host */
		check(m->fph.both > 0);
		check(m->fph.guest_only > 0 || hop > 1);
	}
}

static void test_chain(void **state)
{
	static const char *const names[HOPS] = { "host-1", "host-2", "host-3" };
	const struct chain *c = *state;
	struct vm_migrate_opts opts = { .max_bandwidth = 100 * MIB };
	bool both = !strcmp(c->mode, "both");
	struct vm_config cfg = linux_guest;
	struct vm_migration m = { 0 };
	struct vm *host, *next;

	cfg.ram = c->ram;
	if (both) {
		cfg.extra = fph_device;
		cfg.append = FPH_APPEND;
	}
	cfg.fph_mode = c->late ? NULL : c->mode;
	cfg.name = names[0];
	host = start(cfg);
	boot(host);
	if (both) {
		guest(host, "fill 96M dense", "ok fill");
		guest(host, "free", "ok free");
		guest(host, "churn 16M", "ok churn");
	}
	guest(host, "fill 16M", "ok fill");
	guest(host, "touch 2000 192M", "ok touch");
	guest(host, "rewrite 2000", "ok rewrite");

	for (int i = 1; i < HOPS; i++) {
		next = start_host(cfg, names[i], c->late ? NULL : c->mode);
		if (c->late)
			add_object(host, c->mode);
		else
			check_ready(next);
		check_ready(host);
		migrate_until(host, next, &opts, resent_some, &m);
		check_hop(i, &m);
		/* To look at memory changes what the host knows of it */
		if (i == HOPS - 1 && both)
			check_ram_equal_or_free(host, next);
		else if (i == HOPS - 1)
			check_ram_equal(host, next);
		if (c->late)
			delete_object(host, "late");
		vm_free(host);
		host = next;
		ok(vm_cont(host, E));
		guest_check(host);
	}
	guest(host, "stop", "ok stop");
	guest(host, "fill 96M dense", "ok fill");
	guest_check(host);

	vm_migration_clear(&m);
	vm_free(host);
}

/* With a real dirty log, and 5,000 fresh pages a second */
static void test_kvm_chain(void **state)
{
	static const char *const names[HOPS] = { "host-1", "host-2", "host-3" };
	const struct chain *c = *state;
	struct vm_migrate_opts opts = { .max_bandwidth = 60 * MIB };
	struct vm_config cfg = {
		.name = names[0],
		.memory = 512 * MIB,
		.accel = c->accel,
		.ram = c->ram,
		.bios = patch_firsttouch(400000, 1),
		.fph_mode = c->late ? NULL : c->mode,
	};
	struct vm_migration m = { 0 };
	struct vm *host, *next;

	/* Or one touch would populate 2 MiB */
	check_int(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), 0);
	host = start(cfg);
	ft_wait_for(host, 5000);
	for (int i = 1; i < HOPS; i++) {
		uint32_t count;

		next = start_host(cfg, names[i], c->late ? NULL : c->mode);
		if (c->late)
			add_object(host, c->mode);
		check_ready(host);
		migrate_until(host, next, &opts, resent_some, &m);
		check_hop(i, &m);
		if (i == HOPS - 1)
			check_ram_equal(host, next);
		count = ft_state(host, FT_ST_COUNT);
		vm_free(host);
		host = next;
		ok(vm_cont(host, E));
		ft_wait_for(host, count + 1);
	}
	vm_migration_clear(&m);
	vm_free(host);
}

/*
 * A host that was left comes back as a destination is started anew, but one
 * that was not left, since its migration failed, goes on with the same object:
 * deleted and added between two migrations, and with another mode.
 */
static void test_modes(void **state)
{
	static const char *const modes[] = { "pagemap", "both", "pv" };
	struct vm_migrate_opts slow = { .max_bandwidth = 4 * MIB };
	struct vm_migrate_opts fast = { .max_bandwidth = 200 * MIB };
	struct vm_config cfg = linux_guest;
	struct vm_migration m = { 0 };
	struct vm *src, *dst;

	cfg.extra = fph_device;
	cfg.append = FPH_APPEND;
	cfg.fph_mode = NULL;
	src = start(cfg);
	boot(src);
	guest(src, "fill 64M dense", "ok fill");
	guest(src, "free", "ok free");
	guest(src, "fill 16M", "ok fill");
	guest(src, "touch 2000 64M", "ok touch");
	for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
		add_object(src, modes[i]);
		check_ready(src);
		dst = start_destination(cfg);
		ok(vm_migrate_start(src, dst, &slow, &m, E));
		until (m.fph.skipped > 0)
			ok(vm_migrate_poll(src, &m, E));
		refused(src, "in use", "object-del", "{\"id\":\"late\"}");
		ok(vm_migrate_cancel(src, 20000, E));
		vm_free(dst);
		delete_object(src, "late");
	}

	/* Without any, all is sent; with one again, it is not */
	dst = start_destination(cfg);
	ok(vm_migrate_start(src, dst, &slow, &m, E));
	g_usleep(100000);
	ok(vm_migrate_cancel(src, 20000, E));
	vm_free(dst);
	add_object(src, "both");
	dst = start_destination(cfg);
	migrate(src, dst, &fast, &m);
	check_str(m.fph.state, "ended");
	check_sums(&m.fph);
	check(m.fph.skipped > 1000);
	check_ram_equal_or_free(src, dst);
	ok(vm_cont(dst, E));
	guest_check(dst);

	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

static const struct fph_test_single singles[] = {
	{ "chain-modes", test_modes },
};

int main(int argc, char **argv)
{
	struct fph_tests t = { 0 };

	fph_test_add_rows(&t, chains, test_chain);
	fph_test_add_rows(&t, kvm_chains, test_kvm_chain);
	fph_test_add_singles(&t, singles);
	return harness_main(argc, argv, &t, NULL);
}

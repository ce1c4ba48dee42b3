/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Migrations that are switched to postcopy while pages are left out. From then
 * on the destination asks for what it has not got, and must get it: what was
 * left out as zero, what was written since as it was written.
 *
 * A destination that stays paused can be compared with its source, byte by
 * byte. One that runs faults on pages that are not there yet: a page that
 * never comes would hang its guest, and a wrong one is seen by the guest.
 *
 * One case per process: postcopy-test NAME.
 */
#include <inttypes.h>
#include <sys/prctl.h>

#include "harness.h"

enum when {
	FIRST_ROUND,		/* in the middle of it */
	LATER_ROUND,
	ANSWER_WAITS,		/* part of the guest's answer was not used yet */
};

struct live {
	const char *name;
	const char *mode;
	const char *ram;
	const char *const *devices;
	const char *append;
	enum when when;
	bool runs;		/* the destination, as soon as it can */
	const char *capability;
	const char *hints;	/* state of the first request; NULL: any, or none */
	bool interrupted;	/* the connection is lost after the switch */
	bool odd;		/* no whole number of bitmap words */
};

static const struct live live[] = {
	{ "postcopy-anon", "pagemap", VM_RAM_ANON, NULL, VM_APPEND,
	  FIRST_ROUND, false, NULL, NULL },
	{ "postcopy-anon-runs", "pagemap", VM_RAM_ANON, NULL, VM_APPEND,
	  FIRST_ROUND, true, NULL, NULL },
	{ "postcopy-memfd", "pagemap", VM_RAM_MEMFD, NULL, VM_APPEND,
	  LATER_ROUND, false, NULL, NULL },
	{ "postcopy-memfd-runs", "pagemap", VM_RAM_MEMFD, NULL, VM_APPEND,
	  LATER_ROUND, true, NULL, NULL },
	{ "postcopy-both-anon", "both", VM_RAM_ANON, fph_device, FPH_APPEND,
	  LATER_ROUND, false, NULL, "answered" },
	{ "postcopy-both-anon-runs", "both", VM_RAM_ANON, fph_device, FPH_APPEND,
	  LATER_ROUND, true, NULL, "answered" },
	{ "postcopy-both-memfd", "both", VM_RAM_MEMFD, fph_device, FPH_APPEND,
	  FIRST_ROUND, false, NULL, "answered" },
	{ "postcopy-both-memfd-runs", "both", VM_RAM_MEMFD, fph_device, FPH_APPEND,
	  FIRST_ROUND, true, NULL, "answered" },
	/* QEMU syncs such a block in another way */
	{ "postcopy-odd-size", "both", VM_RAM_ANON, fph_device, FPH_APPEND,
	  LATER_ROUND, false, NULL, "answered", false, true },
	/* Requests are answered by another thread, beside the sending of pages */
	{ "postcopy-preempt", "both", VM_RAM_ANON, fph_device, FPH_APPEND,
	  FIRST_ROUND, true, "postcopy-preempt", "answered" },
	/* The same, and pages that other channels brought before the switch */
	{ "postcopy-multifd", "both", VM_RAM_ANON, fph_device, FPH_APPEND,
	  LATER_ROUND, true, "multifd", "answered" },
	/* The source gives up its pages as they are sent */
	{ "postcopy-release-ram", "both", VM_RAM_MEMFD, fph_device, FPH_APPEND,
	  FIRST_ROUND, true, "release-ram", "answered" },
	/* The guest takes into use what it reported, and then comes the switch */
	{ "postcopy-delay", "both,pv-wait=0,x-pv-delay=700", VM_RAM_ANON, fph_device_bitmap, FPH_APPEND,
	  ANSWER_WAITS, false, NULL, NULL },
	{ "postcopy-recover", "both", VM_RAM_ANON, fph_device, FPH_APPEND,
	  FIRST_ROUND, false, NULL, "answered", true },
	/* Its device gives no hints then */
	{ "postcopy-balloon", "both", VM_RAM_ANON, balloon_device, BALLOON_APPEND,
	  FIRST_ROUND, true, NULL, "failed" },
};

static uint64_t sent_as_zero(const struct vm_fph *f)
{
	return json_object_get_int_member(fph_object(f), "postcopy-zero");
}

static bool is_time(const struct live *l, const struct vm_migration *m)
{
	switch (l->when) {
	case FIRST_ROUND:
		if (m->sync_count > 1)
			fail_msg("the first round is over already");
		return m->normal > 2000 && (!l->hints || !g_strcmp0(m->fph.hints.state, l->hints));
	case LATER_ROUND:
		break;
	case ANSWER_WAITS:
		return m->fph.hints.free > 0;
	}
	return false;
}

static bool resent_later(const struct vm_migration *m)
{
	return m->sync_count >= 4 && resent_some(m);
}

/* By then the guest has taken into use what was left out; or it will not */
static void wait_until_time(struct vm *src, const struct live *l, uint64_t max_bandwidth,
			    struct vm_migration *m)
{
	if (l->when == LATER_ROUND) {
		hold_until(src, max_bandwidth, resent_later, m);
		return;
	}
	until (is_time(l, m)) {
		ok(vm_migrate_poll(src, m, E));
		check_str(strcmp(m->status, "setup") ? m->status : "active", "active");
	}
	if (l->when == FIRST_ROUND) {
		set_bandwidth(src, 256 * 1024);
		guest(src, "fill 48M dense", "ok fill");
		ok(vm_migrate_poll(src, m, E));
		check_int(m->sync_count, 1);
	} else {
		g_usleep(300000);
	}
}

static void switch_to_postcopy(struct vm *src, struct vm_migration *m)
{
	ok(vm_run(src, E, "migrate-start-postcopy", NULL));
	until (!strcmp(m->status, "postcopy-active") || !strcmp(m->status, "completed"))
		ok(vm_migrate_poll(src, m, E));
}

static bool is_loaded(struct vm *dst)
{
	GError *error = NULL;
	g_autoptr(JsonNode) node = vm_command(dst, &error, "query-status", NULL);

	if (!node)
		fail_msg("query-status: %s", error->message);
	return strcmp(json_object_get_string_member(json_node_get_object(node), "status"),
		      "inmigrate");
}

static void interrupt(struct vm *src, struct vm *dst)
{
	g_autofree char *uri = g_strdup_printf("unix:%s/recover.sock", vm_dir(dst));
	struct vm_migration m = { 0 };

	/* Before the device state is there, QEMU cannot recover */
	until (is_loaded(dst))
		;
	g_usleep(500000);
	ok(vm_run(src, E, "migrate-pause", NULL));
	wait_for_status(src, "postcopy-paused", &m);
	wait_for_status(dst, "postcopy-paused", &m);
	vm_migration_clear(&m);
	ok(vm_run(dst, E, "migrate-recover", "{\"uri\":\"%s\"}", uri));
	ok(vm_run(src, E, "migrate", "{\"uri\":\"%s\",\"resume\":true}", uri));
}

/* All that was left out at the switch was sent, and sent as zero */
static void check_done(const struct vm_migration *m)
{
	print_migration(m);
	print_message("%" PRIu64 " pages sent as zero, unread\n", sent_as_zero(&m->fph));
	check_str(m->status, "completed");
	check_str(m->fph.state, "ended");
	check_int(m->remaining, 0);
	check(sent_as_zero(&m->fph) >= m->fph.skipped);
}

static void test_live(void **state)
{
	const struct live *l = *state;
	struct vm_migrate_opts opts = {
		.max_bandwidth = l->when == FIRST_ROUND ? 10 * MIB : 60 * MIB,
		.downtime_limit_ms = 1,		/* it does not end by itself */
		.timeout_ms = MIGRATE_MS,
	};
	struct vm_config cfg = linux_guest;
	struct vm_migration m = { 0 };
	struct vm *src, *dst;

	cfg.ram = l->ram;
	cfg.fph_mode = l->mode;
	cfg.extra = l->devices;
	cfg.append = l->append;
	if (l->odd)
		cfg.memory += 2 * PAGE;
	src = start(cfg);
	dst = start_destination(cfg);
	capability(src, dst, "postcopy-ram");
	capability_or_skip(src, l->capability);		/* QEMU 10.0 has no postcopy by multifd */
	capability_or_skip(dst, l->capability);
	boot(src);
	guest(src, "fill 96M dense", "ok fill");
	if (l->devices != NULL && l->devices != balloon_device)
		guest(src, "free", "ok free");
	guest(src, "fill 16M", "ok fill");
	guest(src, "touch 2000 64M", "ok touch");
	guest(src, "rewrite 2000", "ok rewrite");
	if (l->devices)
		guest(src, "churn 16M", "ok churn");

	/* Slow enough for the guest to be there first */
	ok(vm_run(src, E, "migrate-set-parameters", "{\"max-postcopy-bandwidth\":10485760}"));
	ok(vm_migrate_start(src, dst, &opts, &m, E));
	if (l->runs)
		ok(vm_cont(dst, E));
	wait_until_time(src, l, opts.max_bandwidth, &m);
	switch_to_postcopy(src, &m);
	if (l->interrupted)
		interrupt(src, dst);
	if (l->runs) {
		/* Until its serial line's state is there, what arrives at it is lost */
		until (is_loaded(dst))
			;
		guest_check(dst);
		guest(dst, "fill 32M dense", "ok fill");
	}
	ok(vm_run(src, E, "migrate-set-parameters", "{\"max-postcopy-bandwidth\":0}"));
	ok(vm_migrate_wait(src, dst, &opts, &m, E));
	check_done(&m);
	check_end_event(src, "postcopy", &m.fph);
	if (!l->runs) {
		if (l->devices)
			check_ram_equal_or_free(src, dst);
		else
			check_ram_equal(src, dst);
		ok(vm_cont(dst, E));
	}
	guest_check(dst);
	guest(dst, "stop", "ok stop");
	guest(dst, "fill 64M dense", "ok fill");
	guest_check(dst);

	if (!l->interrupted)	/* which loses pages that were sent */
		check_int(sent_as_zero(&m.fph), m.fph.skipped);
	check(m.fph.skipped > 1000);
	if (l->when != ANSWER_WAITS)
		check(m.fph.resent > 0);	/* or nothing was put to the test */
	if (l->hints)
		check_str(m.fph.hints.state, l->hints);

	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

/* Real dirty logs: the guest touches 20,000 fresh pages a second */
struct kvm_row {
	const char *name;
	const char *ram;
	const char *capability;
};

static const struct kvm_row kvm_rows[] = {
	{ "kvm-postcopy-anon", VM_RAM_ANON, NULL },
	{ "kvm-postcopy-memfd", VM_RAM_MEMFD, NULL },
	{ "kvm-postcopy-multifd", VM_RAM_MEMFD, "multifd" },
	{ "kvm-postcopy-preempt", VM_RAM_ANON, "postcopy-preempt" },
};

static void test_kvm(void **state)
{
	const struct kvm_row *row = *state;
	struct vm_config cfg = {
		.name = "source",
		.memory = 512 * MIB,
		.accel = "kvm",
		.ram = row->ram,
		.bios = patch_firsttouch(100000, 1),
		.fph_mode = "pagemap",
	};
	struct vm_migrate_opts opts = {
		.max_bandwidth = 4 * MIB,
		.downtime_limit_ms = 1,
		.timeout_ms = MIGRATE_MS,
	};
	struct vm_migration m = { 0 };
	struct vm *src, *dst;

	/* Or one touch would populate 2 MiB */
	check_int(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), 0);
	dst = start_destination(cfg);
	src = start(cfg);
	capability(src, dst, "postcopy-ram");
	capability_or_skip(src, row->capability);
	capability_or_skip(dst, row->capability);
	ft_wait_for(src, 10000);
	ok(vm_migrate_start(src, dst, &opts, &m, E));
	until (m.fph.skipped > 0)
		ok(vm_migrate_poll(src, &m, E));
	/* Fresh pages, all of them left out */
	ft_wait_for(src, ft_state(src, FT_ST_COUNT) + 4000);
	ok(vm_migrate_poll(src, &m, E));
	check_int(m.sync_count, 1);
	switch_to_postcopy(src, &m);
	ok(vm_migrate_wait(src, dst, &opts, &m, E));
	check_done(&m);
	check_int(sent_as_zero(&m.fph), m.fph.skipped);
	check(m.fph.resent > 100);
	check_ram_equal(src, dst);

	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

/*
 * A guest that stands still: each page is sent once, and shared memory that is
 * absent at the source stays absent.
 */
static void check_account(const char *cap)
{
	struct vm_migrate_opts opts = {
		.max_bandwidth = 4096,
		.downtime_limit_ms = 1,
		.timeout_ms = MIGRATE_MS,
	};
	struct vm_config cfg = tiny_guest;
	struct vm_migration m = { 0 };
	struct vm *src, *dst;

	cfg.ram = VM_RAM_MEMFD;
	src = start(cfg);
	dst = start_destination(cfg);
	capability(src, dst, "postcopy-ram");
	capability_or_skip(src, cap);
	capability_or_skip(dst, cap);
	/* What fits into a buffer goes before any limit is looked at */
	ft_wait_for(src, 2000);
	ok(vm_stop(src, E));
	hold_switchover(src);

	ok(vm_migrate_start(src, dst, &opts, &m, E));
	until (m.fph.skipped > 0)
		ok(vm_migrate_poll(src, &m, E));
	switch_to_postcopy(src, &m);
	ok(vm_migrate_wait(src, dst, &opts, &m, E));
	check_done(&m);
	check_int(sent_as_zero(&m.fph), m.fph.skipped);
	check_int(m.fph.resent, 0);
	check(m.fph.skipped * PAGE > 32 * MIB);
	check_int(m.normal + m.duplicate, migrated_pages(&m.fph));
	print_message("shared memory of the source: %" PRIu64 " KiB before, %" PRIu64 " after\n",
		      m.src_before.rss_shmem_kib, m.src_after.rss_shmem_kib);
	check(m.src_after.rss_shmem_kib < m.src_before.rss_shmem_kib + 4096);
	check_ram_equal(src, dst);

	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

static void test_account(void **state)
{
	check_account(NULL);
}

/*
 * Once switched, pages come by the main channel alone, and nobody there looks
 * for zeroes: this is multifd's, by default.
 */
static void test_account_multifd(void **state)
{
	check_account("multifd");
}

/*
 * What is not plugged into a virtio-mem device was taken out of the bitmap by
 * QEMU, or left out by us, whoever came first; it must not become due.
 */
static void test_virtio_mem(void **state)
{
	static const char *const devices[] = {
		"-m", "maxmem=20G",
		"-object", "memory-backend-ram,id=vm0,size=16G,reserve=off",
		"-device", "virtio-mem-pci,memdev=vm0,requested-size=0",
		"-device", "virtio-fph-pci", NULL,
	};
	struct vm_config cfg = tiny_guest;

	cfg.fph_mode = "both";
	cfg.extra = devices;
	for (int i = 0; i < 5; i++) {
		struct vm_migrate_opts opts = {
			.max_bandwidth = 4096,
			.downtime_limit_ms = 1,
			.timeout_ms = MIGRATE_MS,
		};
		struct vm_migration m = { 0 };
		struct vm *src = start(cfg);
		struct vm *dst = start_destination(cfg);

		capability(src, dst, "postcopy-ram");
		ft_wait_for(src, 10);
		ok(vm_stop(src, E));
		hold_switchover(src);
		ok(vm_migrate_start(src, dst, &opts, &m, E));
		until (m.fph.skipped > 0)
			ok(vm_migrate_poll(src, &m, E));
		switch_to_postcopy(src, &m);
		ok(vm_migrate_wait(src, dst, &opts, &m, E));
		print_migration(&m);
		check_int(m.remaining, 0);
		check(sent_as_zero(&m.fph) > 0);
		/* Less than the memory that is there: 128 MiB, and that of devices */
		check((m.normal + m.duplicate) * PAGE < 256 * MIB);
		vm_migration_clear(&m);
		vm_free(src);
		vm_free(dst);
	}
}

/* Nothing could be left out; all the same it is over when the migration is */
static void test_inactive(void **state)
{
	struct vm_migrate_opts opts = { .max_bandwidth = 4096, .timeout_ms = MIGRATE_MS };
	struct vm_config cfg = tiny_guest;
	struct vm_migration m = { 0 };
	struct vm *src, *dst;

	cfg.memory = 64 * MIB;
	cfg.ram = "memory-backend-file,share=on,mem-path=/dev/shm";
	src = start(cfg);
	dst = start_destination(cfg);
	capability(src, dst, "postcopy-ram");
	ft_wait_for(src, 10);
	ok(vm_stop(src, E));
	hold_switchover(src);
	ok(vm_migrate_start(src, dst, &opts, &m, E));
	until (m.sync_count > 0)
		ok(vm_migrate_poll(src, &m, E));
	ok(vm_run(src, E, "migrate-set-parameters", "{\"max-postcopy-bandwidth\":1048576}"));
	ok(vm_run(src, E, "migrate-start-postcopy", NULL));
	wait_for_status(src, "postcopy-active", &m);
	ok(vm_migrate_wait(src, dst, &opts, &m, E));
	print_migration(&m);
	check_str(m.status, "completed");
	check_str(m.fph.state, "inactive");
	check_ram_equal(src, dst);
	delete_object(src, "fph0");

	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

static const struct fph_test_single singles[] = {
	{ "postcopy-inactive", test_inactive },
	{ "postcopy-account", test_account },
	{ "postcopy-account-multifd", test_account_multifd },
	{ "postcopy-virtio-mem", test_virtio_mem },
};

int main(int argc, char **argv)
{
	struct fph_tests t = { 0 };

	fph_test_add_rows(&t, live, test_live);
	fph_test_add_rows(&t, kvm_rows, test_kvm);
	fph_test_add_singles(&t, singles);
	return harness_main(argc, argv, &t, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A device outside of QEMU, a disk by vhost-user, writes to memory of the guest, before
 * and during the migration, also to pages that were left out already. Neither KVM nor TCG
 * sees these writes, nor does a page table of QEMU's: the device's own dirty log has them.
 *
 * QEMU's storage daemon does not wait for requests that are under way when a queue is
 * stopped, so that any migration loses these; the guest's reading ends before the guest
 * does, and goes on at the destination.
 *
 * One case per process: vhost-user-test NAME.
 */
#include <inttypes.h>

#include "harness.h"

#define DISK_BYTES	(96 * MIB)
#define DISK_PAGES	(DISK_BYTES / PAGE)
#define READ_SOME	"disk /dev/vda 8M"
#define READ_ALL	"disk /dev/vda 96M"

static const struct disk_case {
	const char *name;
	const char *mode;
	bool cancelled;		/* once, before */
	bool prescan;
} cases[] = {
	{ "vhost-user-pagemap", "pagemap" },
	{ "vhost-user-prescan", "pagemap,verify=report,prescan=on", .prescan = true },
	{ "vhost-user-pv", "pv,verify=report" },
	{ "vhost-user-both", "both,verify=report", .cancelled = true },
};

static const struct disk_case lost = { "vhost-user-log", "pagemap,verify=report" };

/* A host, and the process that has its disk */
struct host {
	struct vm *vm;
	GSubprocess *daemon;
};

static struct vm_config host_config(struct host *h, const char *mode, const char *image,
				    const char *const *env)
{
	struct vm_config cfg = linux_guest;
	const char *socket;

	h->daemon = disk_start(image, env, &socket);
	cfg.fph_mode = mode;
	cfg.ram = VM_RAM_MEMFD;
	cfg.extra = with_disk(fph_device, socket);
	cfg.append = FPH_APPEND DISK_APPEND;
	return cfg;
}

static struct host start_source(const struct disk_case *c, const char *image,
				const char *const *env)
{
	struct host h;

	h.vm = start(host_config(&h, c->mode, image, env));
	boot(h.vm);
	guest(h.vm, "fill 48M dense", "ok fill");
	guest(h.vm, "free", "ok free");
	guest(h.vm, "fill 16M", "ok fill");
	guest(h.vm, "rewrite 4000", "ok rewrite");
	return h;
}

static struct host start_target(const char *image)
{
	struct host h;

	h.vm = start_destination(host_config(&h, NULL, image, NULL));
	return h;
}

static void end(struct host *h)
{
	vm_free(h->vm);
	disk_end(h->daemon);
}

static void wait_for_rounds(struct vm *vm, unsigned int n)
{
	uint64_t before = guest_number(vm, "info", "disk_rounds");

	until (guest_number(vm, "info", "disk_rounds") >= before + n)
		;
}

static void reads(struct vm *vm, const char *what)
{
	guest(vm, "stop disk", "ok stop");
	guest(vm, what, "ok disk");
}

/* It is migrated, at a page or two a second, and all that is absent or free has been left out */
static void begin(struct vm *src, struct vm *dst, const struct vm_migrate_opts *opts,
		  struct vm_migration *m)
{
	struct vm_migrate_opts slow = *opts;

	reads(src, READ_SOME);
	wait_for_rounds(src, 2);
	slow.max_bandwidth = 10000;
	slow.downtime_limit_ms = 1;
	ok(vm_migrate_start(src, dst, &slow, m, E));
	until (m->fph.skipped > DISK_PAGES &&
	       (!m->fph.hints.present || !g_strcmp0(m->fph.hints.state, "answered")))
		ok(vm_migrate_poll(src, m, E));
}

/*
 * The disk goes to memory that has just been left out: each page of it to two, and one of
 * them only the device writes
 */
static void read_into_left_out(struct vm *src, struct vm_migration *m)
{
	reads(src, READ_ALL);
	wait_for_rounds(src, 1);
	ok(vm_migrate_poll(src, m, E));
	check_int(m->sync_count, 1);
}

static bool resent_disk(const struct vm_migration *m)
{
	return m->fph.resent > DISK_PAGES && m->sync_count >= 3;
}

static void cancel(struct vm *src, const char *image, const struct vm_migrate_opts *opts)
{
	struct vm_migration m = { 0 };
	struct host dst = start_target(image);

	begin(src, dst.vm, opts, &m);
	ok(vm_migrate_cancel(src, MIGRATE_MS, E));
	end(&dst);
	vm_migration_clear(&m);
}

static void goes_on(struct vm *vm)
{
	reads(vm, READ_ALL);
	wait_for_rounds(vm, 1);
	guest_check(vm);
}

/* As soon as it has tried, and until it tries again after a migration */
static void wait_for_prescan_aside(struct vm *vm)
{
	struct vm_fph fph = { 0 };
	JsonObject *o;

	ok(vm_query_fph(vm, &fph, E));
	o = json_object_get_object_member(fph_object(&fph), "prescan");
	until (!strcmp(json_object_get_string_member(o, "state"), "aside")) {
		vm_fph_clear(&fph);
		ok(vm_query_fph(vm, &fph, E));
		o = json_object_get_object_member(fph_object(&fph), "prescan");
	}
	check(strstr(json_object_get_string_member(o, "reason"), "shared memory") != NULL);
	vm_fph_clear(&fph);
}

static void test_vhost_user(void **state)
{
	const struct disk_case *c = *state;
	struct vm_migrate_opts opts = { .max_bandwidth = 200 * MIB, .timeout_ms = 2 * MIGRATE_MS };
	struct vm_migration m = { 0 };
	struct host src, dst;
	const char *image;

	need_disks();
	image = disk_image(DISK_BYTES);
	src = start_source(c, image, NULL);
	if (c->prescan)
		wait_for_prescan_aside(src.vm);
	if (c->cancelled)
		cancel(src.vm, image, &opts);
	dst = start_target(image);
	begin(src.vm, dst.vm, &opts, &m);
	read_into_left_out(src.vm, &m);
	hold_until(src.vm, opts.max_bandwidth, resent_disk, &m);
	guest(src.vm, "stop disk", "ok stop");
	let_go(src.vm);
	ok(vm_migrate_wait(src.vm, dst.vm, &opts, &m, E));
	print_migration(&m);
	check_str(m.status, "completed");
	check_str(m.fph.state, "ended");
	check_sums(&m.fph);
	check_int(m.fph.violations, 0);
	check_int(m.fph.zero_content, 0);
	if (strstr(c->mode, "verify") && strcmp(c->mode, "pv,verify=report"))
		check(m.fph.verified > 0);
	if (m.fph.hints.present)
		check_ram_equal_or_free(src.vm, dst.vm);
	else
		check_ram_equal(src.vm, dst.vm);
	ok(vm_cont(dst.vm, E));
	goes_on(dst.vm);
	end(&src);
	end(&dst);
	vm_migration_clear(&m);
}

/* A log that QEMU does not see: what the device wrote to pages that were left out is found */
static void test_log(void **state)
{
	const struct disk_case *c = *state;
	struct vm_migrate_opts opts = { .max_bandwidth = 200 * MIB, .timeout_ms = 2 * MIGRATE_MS };
	const char *seen = temp_file("", 0);
	const char *const env[] = {
		g_strconcat("LD_PRELOAD=", g_getenv("FPH_TEST_LOST_LOG"), NULL),
		g_strconcat("FPH_TEST_SEEN=", seen, NULL), NULL,
	};
	struct vm_migration m = { 0 };
	struct host src, dst;
	const char *image;

	need_disks();
	image = disk_image(DISK_BYTES);
	src = start_source(c, image, env);
	dst = start_target(image);
	begin(src.vm, dst.vm, &opts, &m);
	check(file_size(seen) > 0);
	read_into_left_out(src.vm, &m);
	guest(src.vm, "stop disk", "ok stop");
	let_go(src.vm);
	ok(vm_migrate_wait(src.vm, dst.vm, &opts, &m, E));
	print_migration(&m);
	print_message("%" PRIu64 " violations\n", m.fph.violations);
	/* The page cache, as far as memory was left out for it */
	check(m.fph.violations > DISK_PAGES / 4);
	end(&src);
	end(&dst);
	vm_migration_clear(&m);
}

int main(int argc, char **argv)
{
	struct fph_tests t = { 0 };

	fph_test_add_rows(&t, cases, test_vhost_user);
	fph_test_add(&t, lost.name, test_log, &lost);
	return harness_main(argc, argv, &t, NULL);
}

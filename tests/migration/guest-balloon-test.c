/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The balloon of virtio-fph in a Linux guest: memory goes and comes back while
 * the guest works, boots anew, runs out of memory and migrates, and nothing of
 * what it wrote is lost.
 *
 * One case per process: guest-balloon-test NAME.
 */
#include <inttypes.h>

#include "harness.h"

#define MEMORY		(512 * MIB)	/* of linux_guest */
/* What Debian 13's kernel leaves of it, with all that busy() uses, and some more */
#define SMALL		(290 * MIB)

static const char *const balloon[] = {
	"-device", "virtio-fph-pci,id=pv0,addr=5,balloon=on", NULL,
};
static const char *const balloon_no_oom[] = {
	"-device", "virtio-fph-pci,id=pv0,addr=5,balloon=on,deflate-on-oom=off", NULL,
};

static uint64_t anon_rss(struct vm *vm)
{
	struct vm_usage u;

	ok(vm_usage(vm, &u, E));
	return (u.rss_anon_kib + u.rss_shmem_kib) * 1024;
}

static struct vm_config config(const char *ram, const char *const *devices, const char *append)
{
	struct vm_config cfg = linux_guest;

	cfg.fph_mode = NULL;
	cfg.ram = ram;
	cfg.extra = devices;
	cfg.append = append;
	return cfg;
}

static void busy(struct vm *vm)
{
	guest(vm, "fill 48M dense", "ok fill");
	guest(vm, "touch 2000 32M", "ok touch");
	guest(vm, "rewrite 2000", "ok rewrite");
	guest(vm, "churn 48M", "ok churn");
}

/*
 * Up and down, some of it before the last size was reached, in memory that is
 * short at times and in pieces.
 */
struct cycle_row {
	const char *name;
	const char *ram;
	const char *const *devices;
	const char *append;
	bool zero;		/* the guest trusts free pages to be zero */
};

static const char *const balloon_packed[] = {
	"-device", "virtio-fph-pci,balloon=on,packed=on,iommu_platform=on,vectors=0", NULL,
};

static const struct cycle_row cycle_rows[] = {
	{ "guest-balloon-cycles", VM_RAM_ANON, balloon, FPH_APPEND, false },
	{ "guest-balloon-cycles-memfd", VM_RAM_MEMFD, balloon_packed, FPH_APPEND " init_on_free=1",
	  true },
};

static void test_cycles(void **state)
{
	const struct cycle_row *row = *state;
	static const unsigned int sizes[] = { 300, 400, 290, 512, 320, 290 };
	struct vm *vm = start(config(row->ram, row->devices, row->append));
	uint64_t full, small;

	boot(vm);
	guest(vm, "fragment 160M", "ok fragment");
	guest(vm, "free", "ok free");
	guest(vm, "fill 320M", "ok fill");
	guest(vm, "free", "ok free");
	busy(vm);
	if (row->zero)
		guest(vm, "zerochurn 32M", "ok zerochurn");
	full = anon_rss(vm);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		resize(vm, sizes[i] * MIB);
		wait_for_balloon(vm, "reached");
		check_int(guest_number(vm, "balloon", "actual"), (MEMORY - sizes[i] * MIB) / PAGE);
	}
	/* Nothing keeps the memory of what is in the balloon */
	small = anon_rss(vm);
	print_message("%" PRIu64 " MiB, then %" PRIu64 "\n", full / MIB, small / MIB);
	check(small + 100 * MIB < full);
	guest_check(vm);
	/* It changes its mind midway */
	for (int i = 0; i < 20; i++) {
		set_size(vm, MEMORY);
		g_usleep(i * 200);
		set_size(vm, SMALL);
		g_usleep(i * 100);
	}
	wait_for_size(vm, SMALL);
	guest(vm, "pressure 60M", "ok pressure");
	guest_check(vm);
	resize(vm, MEMORY);
	wait_for_balloon(vm, "reached");
	check_int(guest_number(vm, "balloon", "actual"), 0);
	guest(vm, "fill 128M dense", "ok fill");
	guest_check(vm);
	vm_free(vm);
}

/* It takes what it can, leaves what it must, and goes on when there is more */
static void test_floor(void **state)
{
	struct vm *vm = start(config(NULL, balloon, FPH_APPEND " virtio_fph.balloon_floor=128"));
	unsigned long available_kib;
	uint64_t size;

	boot(vm);
	/* Small blocks first, then large ones, and neighbours are one run */
	resize(vm, MEMORY - 128 * MIB);
	wait_for_balloon(vm, "reached");
	print_message("%" PRIu64 " runs\n", guest_number(vm, "balloon", "runs"));
	check(guest_number(vm, "balloon", "runs") < 128 * MIB / PAGE / 16);
	/* A bit of a large one comes back */
	resize(vm, MEMORY - 8 * MIB);
	resize(vm, MEMORY - 8 * MIB + 3 * PAGE);
	resize(vm, MEMORY);

	guest(vm, "fill 64M", "ok fill");
	set_size(vm, 32 * MIB);
	wait_for_balloon(vm, "waiting");
	size = size_of(vm);
	check(size > 128 * MIB && size < 400 * MIB);
	available_kib = guest_number(vm, "info", "memavailable_kib");
	print_message("%lu KiB left\n", available_kib);
	/* What the guest itself needs goes up and down a bit */
	check(available_kib >= 124 * 1024 && available_kib < 148 * 1024);
	guest(vm, "free", "ok free");
	until (size_of(vm) <= size - 48 * MIB)
		;
	set_size(vm, MEMORY);
	wait_for_size(vm, MEMORY);
	vm_free(vm);
}

/* Before processes are ended, the balloon gives; unless it may not */
struct oom_row {
	const char *name;
	const char *const *devices;
	bool gives;
};

static const struct oom_row oom_rows[] = {
	{ "guest-balloon-oom", balloon, true },
	{ "guest-balloon-oom-off", balloon_no_oom, false },
};

static void test_oom(void **state)
{
	const struct oom_row *row = *state;
	struct vm *vm = start(config(NULL, row->devices, FPH_APPEND));
	g_autofree char *answer = NULL;
	uint64_t given;

	boot(vm);
	busy(vm);
	guest(vm, "stop", "ok stop");
	resize(vm, 256 * MIB);
	ok((answer = vm_guest_command(vm, MIGRATE_MS, E, "pressure 224M")) != NULL);
	print_message("%s\n", answer);
	given = guest_number(vm, "balloon", "oom");
	if (!row->gives) {
		check(strstr(answer, "killed=1") != NULL);
		check_int(given, 0);
		check_int(size_of(vm), 256 * MIB);
		wait_for_balloon(vm, "reached");
		guest_check(vm);
		vm_free(vm);
		return;
	}
	check(strstr(answer, "killed=0") != NULL);
	check(given > 0);
	/* ... and does not take it back by itself */
	g_usleep(1500000);
	check_int(size_of(vm), 256 * MIB + given * PAGE);
	wait_for_balloon(vm, "limited");
	guest_check(vm);
	resize(vm, 250 * MIB);
	wait_for_balloon(vm, "reached");
	guest_check(vm);
	vm_free(vm);
}

/* A guest that boots has all memory, and fills its balloon again */
static void test_reboot(void **state)
{
	struct vm *vm = start(config(NULL, balloon, FPH_APPEND));

	boot(vm);
	ok(vm_run(vm, E, "set-action", "{\"reboot\":\"reset\"}"));
	guest(vm, "fill 200M dense", "ok fill");
	guest(vm, "free", "ok free");
	resize(vm, 192 * MIB);
	qmp_drop_events(vm_qmp(vm));
	guest(vm, "reboot", "ok reboot");
	vm_guest_restarts(vm);
	boot(vm);
	for (;;) {
		JsonObject *event;
		uint64_t size;

		ok((event = qmp_event(vm_qmp(vm), "BALLOON_CHANGE", MIGRATE_MS, E)));
		size = json_object_get_int_member(json_object_get_object_member(event, "data"),
						  "actual");
		json_object_unref(event);
		/* Held back for a second, then the last one comes */
		if (size == MEMORY || size == 192 * MIB)
			break;
	}
	wait_for_size(vm, 192 * MIB);
	guest(vm, "fill 32M dense", "ok fill");
	resize(vm, MEMORY);
	guest(vm, "fill 256M dense", "ok fill");
	guest_check(vm);
	vm_free(vm);
}

static uint64_t vmstat(struct vm *vm, const char *name)
{
	g_autofree char *command = g_strdup_printf("vmstat %s", name);

	return guest_number(vm, command, name);
}

static uint64_t memory_of(struct vm *vm)
{
	struct vm_usage u;

	ok(vm_usage(vm, &u, E));
	return u.rss_shmem_kib * 1024;
}

/* A dump, or whoever reads all memory, does not bring back what is in the balloon */
static void test_kcore(void **state)
{
	struct vm *vm = start(config(VM_RAM_MEMFD, balloon, FPH_APPEND));
	uint64_t full, before, after;

	boot(vm);
	guest(vm, "fragment 160M", "ok fragment");
	guest(vm, "free", "ok free");
	guest(vm, "kcore", "ok kcore");
	full = memory_of(vm);
	check(full > 450 * MIB);
	resize(vm, SMALL);
	wait_for_balloon(vm, "reached");
	before = memory_of(vm);
	check(before + 200 * MIB < full);
	guest(vm, "kcore", "ok kcore");
	after = memory_of(vm);
	print_message("%" PRIu64 " KiB, then %" PRIu64 "; %" PRIu64 " pages moved\n", before / 1024,
		      after / 1024, vmstat(vm, "balloon_migrate"));
	check(after <= before + before / 100);
	check_int(vmstat(vm, "balloon_inflate") - vmstat(vm, "balloon_deflate"),
		  (MEMORY - SMALL) / PAGE);
	resize(vm, MEMORY);
	wait_for_balloon(vm, "reached");
	check_int(vmstat(vm, "balloon_inflate"), vmstat(vm, "balloon_deflate"));
	vm_free(vm);
}

/* Its single pages go where the kernel wants them */
static void test_compact(void **state)
{
	struct vm *vm = start(config(NULL, balloon, FPH_APPEND));
	uint64_t small;

	boot(vm);
	busy(vm);
	guest(vm, "stop", "ok stop");
	guest(vm, "fragment 120M", "ok fragment");
	resize(vm, 360 * MIB);
	wait_for_balloon(vm, "reached");
	guest(vm, "free", "ok free");
	for (int i = 0; !vmstat(vm, "balloon_migrate"); i++) {
		check(i < 20);
		guest(vm, "put /proc/sys/vm/compact_memory 1", "ok put");
	}
	print_message("%" PRIu64 " pages moved\n", vmstat(vm, "balloon_migrate"));
	check_int(size_of(vm), 360 * MIB);
	small = anon_rss(vm);
	check(small < 400 * MIB);
	busy(vm);
	guest(vm, "put /proc/sys/vm/compact_memory 1", "ok put");
	resize(vm, 300 * MIB);
	guest(vm, "put /proc/sys/vm/compact_memory 1", "ok put");
	resize(vm, MEMORY);
	wait_for_balloon(vm, "reached");
	check_int(guest_number(vm, "balloon", "actual"), 0);
	guest_check(vm);
	vm_free(vm);
}

/* Where most memory is for what can be moved, the balloon can have it */
static void test_movable(void **state)
{
	struct vm *vm = start(config(NULL, balloon, FPH_APPEND " movablecore=320M"));

	boot(vm);
	busy(vm);
	resize(vm, SMALL);
	wait_for_balloon(vm, "reached");
	guest_check(vm);
	/* Memory that goes offline is vacated; the balloon finds other */
	guest(vm, "stop", "ok stop");
	resize(vm, 330 * MIB);
	guest(vm, "put /sys/devices/system/memory/memory2/state offline", "ok put");
	wait_for_size(vm, 330 * MIB);
	guest(vm, "put /sys/devices/system/memory/memory2/state online_movable", "ok put");
	resize(vm, MEMORY);
	guest_check(vm);
	vm_free(vm);
}

/* The same of memory in large blocks, which cannot be moved */
static void test_offline(void **state)
{
	static const char *const dimm[] = {
		"-m", "slots=1,maxmem=2G",
		"-object", "memory-backend-ram,id=m1,size=256M", "-device", "pc-dimm,memdev=m1",
		"-device", "virtio-fph-pci,id=pv0,addr=5,balloon=on", NULL,
	};
	/* With the usual floor there is too little left, once half of the DIMM is gone */
	struct vm *vm = start(config(NULL, dimm, FPH_APPEND " memhp_default_state=online_kernel"
					 " virtio_fph.balloon_floor=8"));

	boot(vm);
	resize(vm, 300 * MIB);
	wait_for_balloon(vm, "reached");
	guest(vm, "put /sys/devices/system/memory/memory33/state offline", "ok put");
	wait_for_size(vm, 300 * MIB);
	guest(vm, "put /sys/devices/system/memory/memory33/state online_kernel", "ok put");
	resize(vm, 768 * MIB);
	busy(vm);
	guest_check(vm);
	vm_free(vm);
}

static void test_unload(void **state)
{
	struct vm *vm = start(config(NULL, balloon, FPH_APPEND));

	boot(vm);
	busy(vm);
	resize(vm, 256 * MIB);
	guest(vm, "mod unload virtio_fph", "ok mod");
	check_int(size_of(vm), MEMORY);
	guest(vm, "fill 200M dense", "ok fill");
	guest_check(vm);
	guest(vm, "free", "ok free");
	busy(vm);
	/* The target waits for the next driver; unloading does not wait for it */
	guest(vm, "mod load virtio_fph", "ok mod");
	guest(vm, "mod unload virtio_fph", "ok mod");
	check_int(size_of(vm), MEMORY);
	guest(vm, "mod load virtio_fph", "ok mod");
	wait_for_size(vm, 256 * MIB);
	guest_check(vm);
	vm_free(vm);
}

static void test_unplug(void **state)
{
	struct vm *vm = start(config(NULL, balloon, FPH_APPEND));

	boot(vm);
	busy(vm);
	resize(vm, 256 * MIB);
	ok(vm_run(vm, E, "device_del", "{\"id\":\"pv0\"}"));
	wait_event(vm, "DEVICE_DELETED");
	refused(vm, "No balloon device", "query-balloon", "{}");
	guest(vm, "fill 200M dense", "ok fill");
	guest_check(vm);
	guest(vm, "free", "ok free");
	ok(vm_run(vm, E, "device_add",
		  "{\"driver\":\"virtio-fph-pci\",\"id\":\"pv0\",\"addr\":\"5\",\"balloon\":true}"));
	resize(vm, 256 * MIB);
	vm_free(vm);
}

static void test_suspend(void **state)
{
	struct vm *vm = start(config(NULL, balloon, FPH_APPEND));

	boot(vm);
	busy(vm);
	guest(vm, "stop", "ok stop");
	resize(vm, 256 * MIB);
	guest_suspend(vm);
	check_int(size_of(vm), MEMORY);
	guest_wake_up(vm);
	wait_for_size(vm, 256 * MIB);
	guest_check(vm);
	vm_free(vm);
}

/* To a disk, and back in another QEMU, of which nobody has wanted memory yet; it migrates */
static void test_hibernate(void **state)
{
	g_autofree char *drive = hibernation_drive(MEMORY);
	const char *const devices[] = {
		"-no-shutdown", "-drive", drive, "-device", GUEST_DISK_DEVICE,
		"-device", "virtio-fph-pci,id=pv0,addr=5,balloon=on", NULL,
	};
	struct vm_config cfg = config(NULL, devices, FPH_APPEND DISK_APPEND);
	struct vm_migration m = { 0 };
	struct vm *vm, *woken, *dst;
	g_autoptr(GError) late = NULL;
	uint64_t writes;

	cfg.fph_mode = "pv";
	vm = start(cfg);
	boot(vm);
	busy(vm);
	resize(vm, SMALL);
	writes = guest_number(vm, "info", "writes");
	/* As after the last resume: an answer that nobody waits for any more */
	check(!vm_guest_command(vm, 0, &late, "check"));
	check(g_error_matches(late, VM_ERROR, VM_ERROR_TIMEOUT));
	guest_hibernate(vm);
	vm_free(vm);

	cfg.name = "woken";
	woken = start(cfg);
	boot(woken);
	guest_resume(woken);
	check(guest_number(woken, "info", "writes") >= writes);
	check_int(size_of(woken), MEMORY);
	guest_check(woken);
	resize(woken, SMALL);
	/* QEMU locks the disk's image for who runs */
	dst = start_destination(cfg);
	migrate(woken, dst, NULL, &m);
	check(m.fph.hints.present);
	check_arrived(woken, dst, &cfg, &m);
	vm_migration_clear(&m);
	vm_free(woken);
	vm_free(dst);
}

static void test_oom_unload(void **state)
{
	struct vm *vm = start(config(NULL, balloon, FPH_APPEND UNLOAD_APPEND));

	boot(vm);
	guest(vm, "fill 32M dense", "ok fill");
	unload_beside_oom(vm, 384 * MIB, 5);
	guest_check(vm);
	vm_free(vm);
}

/* From the node that has most, and when it has no more than the other, from both */
static void test_nodes(void **state)
{
	static const char *const nodes[] = {
		"-object", "memory-backend-ram,id=n0,size=256M",
		"-object", "memory-backend-ram,id=n1,size=768M",
		"-smp", "2,sockets=2", "-numa", "node,memdev=n0,cpus=0", "-numa", "node,memdev=n1,cpus=1",
		"-device", "virtio-fph-pci,id=pv0,addr=5,balloon=on", NULL,
	};
	struct vm_config cfg = config(NULL, nodes, FPH_APPEND);
	uint64_t small, large, given;
	struct vm *vm;

	cfg.memory = 1024 * MIB;
	vm = start(cfg);
	boot(vm);
	small = guest_number(vm, "node 0", "memfree_kib");
	large = guest_number(vm, "node 1", "memfree_kib");
	print_message("%" PRIu64 " and %" PRIu64 " KiB free\n", small, large);
	check(small > 100 * 1024 && large > small + 400 * 1024);
	resize(vm, 704 * MIB);
	given = small - MIN(small, guest_number(vm, "node 0", "memfree_kib"));
	print_message("%" PRIu64 " KiB of the small node\n", given);
	check(given < 16 * 1024);
	resize(vm, 320 * MIB);
	wait_for_balloon(vm, "reached");
	small = guest_number(vm, "node 0", "memfree_kib");
	large = guest_number(vm, "node 1", "memfree_kib");
	print_message("%" PRIu64 " and %" PRIu64 " KiB left\n", small, large);
	/* It takes up to 64 MiB at a time */
	check(MAX(small, large) - MIN(small, large) < 128 * 1024);
	resize(vm, 1024 * MIB);
	guest(vm, "fill 700M", "ok fill");
	guest_check(vm);
	vm_free(vm);
}

/* The kernel's image and initramfs, where the guest's agent has its next kernel */
static const char *next_kernel(const struct vm_config *cfg)
{
	g_autofree char *kernel = cfg->kernel ? g_strdup(cfg->kernel) : vm_default_kernel();
	g_autofree char *initrd = cfg->initrd ? g_strdup(cfg->initrd) : vm_default_initrd();
	const char *archive = temp_file("", 0);
	g_autofree char *command = g_strdup_printf(
		"set -e; d=$(mktemp -d); mkdir $d/kexec; cp -L '%s' $d/kexec/vmlinuz; "
		"cp -L '%s' $d/kexec/initramfs.img; (cd $d; find kexec | cpio --quiet -o -H newc) >'%s'; "
		"rm -r $d", kernel, initrd, archive);
	int status = system(command);

	check_int(status, 0);
	return archive;
}

/*
 * Another kernel without a driver follows, in a machine that was not reset: the device
 * was, has nothing in its balloon, and writes to no memory of that kernel.
 */
static void test_kexec(void **state)
{
	struct vm_config cfg = config(NULL, balloon, FPH_APPEND);
	struct vm *vm;

	cfg.initrd_more = next_kernel(&cfg);
	vm = start(cfg);
	boot(vm);
	guest(vm, "fill 32M dense", "ok fill");
	resize(vm, 384 * MIB);
	wait_for_balloon(vm, "reached");
	guest(vm, "kexec", "ok kexec");
	vm_guest_restarts(vm);
	boot(vm);
	check_int(size_of(vm), MEMORY);
	guest(vm, "fill 300M dense", "ok fill");
	guest_check(vm);
	guest(vm, "free", "ok free");
	guest(vm, "mod load virtio_fph", "ok mod");
	wait_for_size(vm, 384 * MIB);
	vm_free(vm);
}

/* Kernels differ in what the driver is built of; none has anything to say about it. */
struct kernel_row {
	const char *name;
	const char *kernel;
};

static const struct kernel_row kernel_rows[] = {
	{ "guest-balloon-kernel-6.1", "6.1" },
	{ "guest-balloon-kernel-6.12", "6.12" },
	{ "guest-balloon-kernel-6.12-cloud", "6.12-cloud" },
	{ "guest-balloon-kernel-6.18", "6.18" },
	{ "guest-balloon-kernel-newest", "newest" },
	{ "guest-balloon-kernel-newest-cloud", "newest-cloud" },
};

static void test_kernel(void **state)
{
	const struct kernel_row *row = *state;
	struct vm_config cfg = config(NULL, balloon, FPH_APPEND " panic_on_warn=1");
	struct vm_migrate_opts opts = { .max_bandwidth = 200 * MIB };
	struct vm_migration m = { 0 };
	struct vm *src, *dst;

	use_kernel(&cfg, row->kernel);
	cfg.fph_mode = "pv";
	src = start(cfg);
	dst = start_destination(cfg);
	boot(src);
	guest(src, "fill 64M dense", "ok fill");
	resize(src, 400 * MIB);
	wait_for_balloon(src, "reached");
	check_int(vmstat(src, "balloon_inflate") - vmstat(src, "balloon_deflate"),
		  112 * MIB / PAGE);
	migrate(src, dst, &opts, &m);
	check_str(m.fph.hints.state, "answered");
	ok(vm_cont(dst, E));
	guest_check(dst);
	resize(dst, MEMORY);
	guest(dst, "mod unload virtio_fph", "ok mod");
	guest(dst, "mod load virtio_fph", "ok mod");
	resize(dst, 400 * MIB);
	guest_suspend(dst);
	guest_wake_up(dst);
	wait_for_size(dst, 400 * MIB);
	guest(dst, "mod unload virtio_fph", "ok mod");
	guest_check(dst);
	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

/* Half of memory is in the balloon when the guest migrates, and comes back there */
struct half_row {
	const char *name;
	const char *mode;	/* of fph-source, NULL: none */
	const char *ram;
};

static const struct half_row half_rows[] = {
	{ "guest-balloon-half-none", NULL, VM_RAM_ANON },
	{ "guest-balloon-half-pagemap-memfd", "pagemap", VM_RAM_MEMFD },
	{ "guest-balloon-half-both", "both", VM_RAM_ANON },
};

static void test_half(void **state)
{
	const struct half_row *row = *state;
	struct vm_migrate_opts opts = { .max_bandwidth = 200 * MIB };
	struct vm_config cfg = config(row->ram, balloon, FPH_APPEND);
	struct vm_migration m = { 0 };
	bool host = row->mode && strcmp(row->mode, "pv");
	struct vm *src, *dst;

	cfg.fph_mode = row->mode;
	src = start(cfg);
	dst = start_destination(cfg);
	boot(src);
	guest(src, "fill 300M dense", "ok fill");
	guest(src, "free", "ok free");
	guest(src, "fill 16M dense", "ok fill");
	resize(src, 256 * MIB);
	guest(src, "touch 2000 32M", "ok touch");
	guest(src, "rewrite 2000", "ok rewrite");
	guest(src, "churn 16M", "ok churn");
	migrate(src, dst, &opts, &m);
	if (host) {
		check_int(m.fph.chunks_not_scanned, 0);
		check(m.fph.unmapped >= 256 * MIB / PAGE);
	}
	if (row->mode && strcmp(row->mode, "pagemap"))
		check_str(m.fph.hints.state, "answered");
	if (row->mode && strcmp(row->mode, "pagemap"))
		check(check_ram_equal_or_free(src, dst) > 0);
	else
		check_ram_equal(src, dst);

	check_int(size_of(dst), 256 * MIB);
	ok(vm_cont(dst, E));
	check_int(guest_number(dst, "balloon", "actual"), 256 * MIB / PAGE);
	wait_for_balloon(dst, "reached");
	guest_check(dst);
	resize(dst, 224 * MIB);
	resize(dst, MEMORY);
	guest(dst, "fill 200M dense", "ok fill");
	guest_check(dst);
	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

/* What the guest gave up after it was sent keeps its content there, and nothing else does */
static void see_difference(void *opaque, const struct vm_block *block, guint64 offset,
			   const guint8 *a, const guint8 *b)
{
	uint64_t *zero = opaque;

	if (a[0] || memcmp(a, a + 1, PAGE - 1))
		fail_msg("%s differs at page %#" PRIx64, block->name, offset / PAGE);
	++*zero;
}

/* Up and down while the guest migrates, and is asked what is free */
struct during_row {
	const char *name;
	const char *mode;
	bool compare;		/* else pages that were reported differ as well */
};

static const struct during_row during_rows[] = {
	{ "guest-balloon-during", "pagemap", true },
	{ "guest-balloon-during-both", "both", false },
};

static void test_during(void **state)
{
	const struct during_row *row = *state;
	struct vm_migrate_opts opts = {
		.max_bandwidth = 60 * MIB, .downtime_limit_ms = 1, .timeout_ms = 2 * MIGRATE_MS,
	};
	/* Or what is given up is cleared before, which is a write, and sent again as zero */
	struct vm_config cfg = config(NULL, balloon, FPH_APPEND " init_on_alloc=0");
	struct vm_migration m = { 0 };
	struct vm *src, *dst;
	uint64_t zero = 0;
	GError *error = NULL;

	cfg.fph_mode = row->mode;
	src = start(cfg);
	dst = start_destination(cfg);
	boot(src);
	guest(src, "fill 300M dense", "ok fill");
	guest(src, "free", "ok free");
	busy(src);
	resize(src, 400 * MIB);
	ok(vm_migrate_start(src, dst, &opts, &m, E));
	resize(src, 380 * MIB);
	resize(src, 400 * MIB);
	/* What is free has been sent with its old content, before it is given up */
	until (m.sync_count >= 2)
		ok(vm_migrate_poll(src, &m, E));
	for (int i = 0; i < 4; i++) {
		g_usleep(500000);
		resize(src, SMALL);
		g_usleep(300000);
		resize(src, 450 * MIB);
	}
	resize(src, SMALL);
	ok(vm_migrate_poll(src, &m, E));
	check_str(m.status, "active");	/* or it was not during it */
	set_size(src, 320 * MIB);
	let_go(src);
	ok(vm_migrate_wait(src, dst, &opts, &m, E));
	print_migration(&m);
	if (row->compare) {
		if (vm_ram_compare(src, dst, see_difference, &zero, NULL, &error) < 0)
			fail_msg("comparing RAM: %s", error->message);
		print_message("%" PRIu64 " pages were given up after they had been sent\n", zero);
		check(zero > 0);
	} else {
		check_str(m.fph.hints.state, "answered");
		check(m.fph.free > 0);
	}
	ok(vm_cont(dst, E));
	wait_for_size(dst, 320 * MIB);
	guest_check(dst);
	resize(dst, MEMORY);
	guest(dst, "fill 200M dense", "ok fill");
	guest_check(dst);
	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

static const struct fph_test_single singles[] = {
	{ "guest-balloon-compact", test_compact },
	{ "guest-balloon-floor", test_floor },
	{ "guest-balloon-hibernate", test_hibernate },
	{ "guest-balloon-kcore", test_kcore },
	{ "guest-balloon-kexec", test_kexec },
	{ "guest-balloon-movable", test_movable },
	{ "guest-balloon-nodes", test_nodes },
	{ "guest-balloon-offline", test_offline },
	{ "guest-balloon-oom-unload", test_oom_unload },
	{ "guest-balloon-reboot", test_reboot },
	{ "guest-balloon-unload", test_unload },
	{ "guest-balloon-unplug", test_unplug },
	{ "guest-balloon-suspend", test_suspend },
};

static bool asks_host(const char *name)
{
	return strstr(name, "pagemap") || strstr(name, "both") || strstr(name, "during");
}

int main(int argc, char **argv)
{
	struct fph_tests t = { 0 };

	fph_test_add_rows(&t, cycle_rows, test_cycles);
	fph_test_add_rows(&t, oom_rows, test_oom);
	fph_test_add_rows(&t, half_rows, test_half);
	fph_test_add_rows(&t, kernel_rows, test_kernel);
	fph_test_add_rows(&t, during_rows, test_during);
	fph_test_add_singles(&t, singles);
	return harness_main(argc, argv, &t, asks_host);
}

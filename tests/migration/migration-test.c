/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whole migrations: a real guest, a source with fph-source, a destination
 * without. After each the source is paused and the destination has not run
 * yet, so every byte of every RAM block must be equal.
 *
 * One case per process: migration-test NAME. Environment: FPH_TEST_QEMU and
 * FPH_TEST_FIRSTTOUCH, set by meson.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fph-test.h"
#include "firsttouch.h"
#include "fph/scan.h"
#include "io.h"
#include "vm.h"

#define MIB		(UINT64_C(1) << 20)
#define PAGE		UINT64_C(4096)

#define BOOT_MS		90000
#define GUEST_MS	60000
#define MIGRATE_MS	90000

#define GUEST_APPEND	"console=ttyS0 quiet panic=-1 mitigations=off nokaslr " \
			"cryptomgr.notests tsc=reliable init_on_alloc=0"

static char *qemu;
static char *kernel;
static char *initrd;
static const char *firsttouch;

/* The call, which takes E for its GError **, must succeed */
#define ok(call) do {							\
	GError *call_error = NULL;					\
	bool ok_ = (call);						\
	if (call_error)							\
		fail_msg("%s: %s", #call, call_error->message);		\
	check(ok_);							\
} while (0)

#define E (&call_error)

static const struct vm_config linux_guest = {
	.name = "source",
	.memory = 512 * MIB,
	.append = GUEST_APPEND,
	.fph_mode = "pagemap",
};

/* No operating system: starts at once, writes to RAM from then on */
static const struct vm_config tiny_guest = {
	.name = "source",
	.memory = 128 * MIB,
	.fph_mode = "pagemap",
};

/* Files that must not stay, however the test ends */
static GPtrArray *temp_files;

static void remove_temp_files(void)
{
	for (guint i = 0; temp_files && i < temp_files->len; i++)
		unlink(temp_files->pdata[i]);
}

/* A new file of that content; the path belongs to temp_files */
static const char *temp_file(const char *content, gssize len)
{
	GError *error = NULL;
	char *path;

	close(g_file_open_tmp("fph-test-XXXXXX", &path, &error));
	if (error)
		fail_msg("temporary file: %s", error->message);
	if (!temp_files) {
		temp_files = g_ptr_array_new_with_free_func(g_free);
		atexit(remove_temp_files);
	}
	g_ptr_array_add(temp_files, path);
	ok(g_file_set_contents(path, content, len, E));
	return path;
}

static struct vm *start(struct vm_config cfg)
{
	GError *error = NULL;
	struct vm *vm;

	if (!cfg.qemu)
		cfg.qemu = qemu;
	if (cfg.append) {
		cfg.kernel = kernel;
		cfg.initrd = initrd;
	} else if (!cfg.bios) {
		cfg.bios = firsttouch;
	}
	vm = vm_start(&cfg, &error);
	if (!vm)
		fail_msg("cannot start the %s: %s", cfg.name, error->message);
	return vm;
}

/* The other side: the same machine, without fph, and it does not run yet */
static struct vm *start_destination(struct vm_config cfg)
{
	cfg.name = "destination";
	cfg.fph_mode = NULL;
	cfg.incoming = true;
	cfg.paused = true;
	return start(cfg);
}

static void boot(struct vm *vm)
{
	ok(vm_guest_wait_ready(vm, BOOT_MS, E));
}

/* A command to the guest's agent; its answer must be the one expected */
static void guest(struct vm *vm, const char *command, const char *expect)
{
	GError *error = NULL;
	g_autofree char *answer = vm_guest_command(vm, GUEST_MS, &error, "%s", command);

	if (!answer)
		fail_msg("guest: %s: %s", command, error->message);
	if (!g_str_has_prefix(answer, expect))
		fail_msg("guest: %s: \"%s\" instead of \"%s\"", command, answer, expect);
}

/* All pages the guest ever wrote are as it wrote them */
static void guest_check(struct vm *vm)
{
	GError *error = NULL;
	g_autofree char *answer = vm_guest_command(vm, GUEST_MS, &error, "check");
	unsigned long pages, bad;

	if (!answer)
		fail_msg("guest: check: %s", error->message);
	check_int(sscanf(answer, "ok check pages=%lu bad=%lu", &pages, &bad), 2);
	print_message("guest: %s\n", answer);
	check(pages > 0);
	check_int(bad, 0);
}

/* Pages that differ, and may differ: those the guest gave up, and no others */
struct differences {
	JsonArray *skipped;	/* x-query-fph-pages, or NULL */
	uint64_t free;		/* differ, but the guest said that they are free */
	uint64_t bad;
};

/* Is the page left out now because the guest said that it is free? */
static bool is_free(JsonArray *ranges, const char *block, uint64_t page)
{
	for (guint i = 0; ranges && i < json_array_get_length(ranges); i++) {
		JsonObject *r = json_array_get_object_element(ranges, i);
		uint64_t first = json_object_get_int_member(r, "first");

		if (page >= first && page - first < (uint64_t)json_object_get_int_member(r, "count") &&
		    !strcmp(json_object_get_string_member(r, "block"), block))
			return json_object_get_boolean_member(r, "guest") &&
			       !json_object_get_boolean_member(r, "host");
	}
	return false;
}

static void see_difference(void *opaque, const struct vm_block *block, guint64 offset,
			   const guint8 *a, const guint8 *b)
{
	struct differences *d = opaque;
	size_t i = 0;

	if (is_free(d->skipped, block->name, offset / PAGE)) {
		d->free++;
		return;
	}
	if (++d->bad > 10)
		return;
	while (a[i] == b[i])
		i++;
	print_message("%s differs at %#" PRIx64 ": source %02x, destination %02x\n",
		      block->name, offset + i, a[i], b[i]);
}

static void compare_ram(struct vm *src, struct vm *dst, struct differences *d)
{
	GError *error = NULL;

	if (vm_ram_compare(src, dst, see_difference, d, NULL, &error) < 0)
		fail_msg("comparing RAM: %s", error->message);
	print_message("RAM compared: %" PRIu64 " pages differ, and %" PRIu64
		      " that are free in the guest\n", d->bad, d->free);
	check_int(d->bad, 0);
}

static void check_ram_equal(struct vm *src, struct vm *dst)
{
	struct differences d = { 0 };

	compare_ram(src, dst, &d);
}

/* But for pages that the guest said are free, and has not written since */
static void check_ram_equal_or_free(struct vm *src, struct vm *dst)
{
	GError *error = NULL;
	g_autoptr(JsonNode) pages = vm_command(src, &error, "x-query-fph-pages", NULL);
	struct differences d = { 0 };

	if (!pages)
		fail_msg("x-query-fph-pages: %s", error->message);
	d.skipped = json_node_get_array(pages);
	compare_ram(src, dst, &d);
	/* or the guest's word was put to no test */
	check(d.free > 0);
}

static void print_migration(const struct vm_migration *m)
{
	print_message("%s in %" PRIu64 " ms: %" PRIu64 " normal, %" PRIu64 " zero, %" PRIu64
		      " skipped (%" PRIu64 " unmapped, %" PRIu64 " zero-mapped), %" PRIu64
		      " resent, %" PRIu64 " syncs%s%s\n",
		      m->status, m->total_ms, m->normal, m->duplicate, m->fph.skipped,
		      m->fph.unmapped, m->fph.zero_mapped, m->fph.resent, m->fph.epoch,
		      m->fph.reason ? ", inactive: " : "", m->fph.reason ? m->fph.reason : "");
}

static void migrate(struct vm *src, struct vm *dst, const struct vm_migrate_opts *opts,
		    struct vm_migration *m)
{
	struct vm_migrate_opts limited = { 0 };

	if (opts)
		limited = *opts;
	limited.timeout_ms = MIGRATE_MS;
	ok(vm_migrate(src, dst, &limited, m, E));
	print_migration(m);
	check_str(m->status, "completed");
}

static void capability(struct vm *src, struct vm *dst, const char *name)
{
	ok(vm_run(src, E, "migrate-set-capabilities",
		  "{\"capabilities\":[{\"capability\":\"%s\",\"state\":true}]}", name));
	ok(vm_run(dst, E, "migrate-set-capabilities",
		  "{\"capabilities\":[{\"capability\":\"%s\",\"state\":true}]}", name));
}

/* A member of the object's query-fph answer */
static JsonObject *fph_object(const struct vm_fph *fph)
{
	return json_array_get_object_element(json_node_get_array(fph->raw), 0);
}

/* Pages of all blocks that fph-source knows, that is, that are migrated */
static uint64_t migrated_pages(const struct vm_fph *fph)
{
	JsonArray *blocks = json_object_get_array_member(fph_object(fph), "blocks");
	uint64_t bytes = 0;

	for (guint i = 0; i < json_array_get_length(blocks); i++)
		bytes += json_object_get_int_member(json_array_get_object_element(blocks, i), "size");
	return bytes / PAGE;
}

/*
 * A guest that keeps writing to pages it has not touched before, that is, to
 * pages that are being left out.
 */
struct live {
	const char *name;
	const char *ram;
	const char *capability;
	struct vm_migrate_opts opts;
	const char *parameters;
	const char *const *extra;
	const char *append;
	const char *mode;	/* NULL: pagemap */
};

/* Its thread takes pages out of the bitmap beside ours */
static const char *const free_page_hints[] = {
	"-object", "iothread,id=io0",
	"-device", "virtio-balloon-pci,free-page-hint=on,iothread=io0", NULL,
};

/* Guest memory in two blocks, of different kinds */
static const char *const two_nodes[] = {
	"-object", "memory-backend-ram,id=n0,size=256M",
	"-object", "memory-backend-memfd,id=n1,size=256M,share=on",
	"-numa", "node,memdev=n0", "-numa", "node,memdev=n1", NULL,
};

static const char *const small_chunks[] = {
	"-global", "migration.x-clear-bitmap-shift=12", NULL,
};

static const struct live live[] = {
	{ "live-anon", VM_RAM_ANON, NULL,
	  { .max_bandwidth = 100 * MIB }, NULL, NULL, NULL },
	{ "live-memfd", VM_RAM_MEMFD, NULL,
	  { .max_bandwidth = 100 * MIB }, NULL, NULL, NULL },
	{ "live-multifd", VM_RAM_ANON, "multifd",
	  { .max_bandwidth = 100 * MIB }, NULL, NULL, NULL },
	{ "live-xbzrle", VM_RAM_ANON, "xbzrle",
	  { .max_bandwidth = 100 * MIB }, NULL, NULL, NULL },
	/* Throttling adds syncs from the main loop, beside the sending of pages */
	{ "live-auto-converge", VM_RAM_ANON, "auto-converge",
	  { .max_bandwidth = 20 * MIB },
	  "{\"cpu-throttle-initial\":50,\"throttle-trigger-threshold\":1}", NULL, NULL },
	{ "live-numa", VM_RAM_ANON, NULL,
	  { .max_bandwidth = 100 * MIB }, NULL, two_nodes, NULL },
	{ "live-small-chunks", VM_RAM_MEMFD, NULL,
	  { .max_bandwidth = 100 * MIB }, NULL, small_chunks, NULL },
	{ "live-free-page-hint", VM_RAM_ANON, NULL,
	  { .max_bandwidth = 100 * MIB }, NULL, free_page_hints,
	  GUEST_APPEND " fph.modules=virtio_balloon", NULL },
	{ "live-balloon-pv", VM_RAM_ANON, NULL,
	  { .max_bandwidth = 100 * MIB }, NULL, free_page_hints,
	  GUEST_APPEND " fph.modules=virtio_balloon", "pv" },
	{ "live-balloon-both", VM_RAM_MEMFD, NULL,
	  { .max_bandwidth = 100 * MIB }, NULL, free_page_hints,
	  GUEST_APPEND " fph.modules=virtio_balloon", "both" },
};

static void test_live(void **state)
{
	const struct live *l = *state;
	struct vm_config cfg = linux_guest;
	struct vm_migration m = { 0 };
	struct vm *src, *dst;

	cfg.ram = l->ram;
	cfg.extra = l->extra;
	if (l->append)
		cfg.append = l->append;
	if (l->mode)
		cfg.fph_mode = l->mode;
	src = start(cfg);
	dst = start_destination(cfg);
	boot(src);
	guest(src, "fill 16M", "ok fill");
	if (l->capability)
		capability(src, dst, l->capability);
	if (l->parameters)
		ok(vm_run(src, E, "migrate-set-parameters", "%s", l->parameters));

	guest(src, "touch 2000 192M", "ok touch");
	guest(src, "rewrite 2000", "ok rewrite");
	migrate(src, dst, &l->opts, &m);
	check_str(m.fph.state, "ended");
	check(m.fph.skipped > 0);
	check(m.fph.resent > 0);	/* or nothing was put to the test */
	check_int(m.fph.chunks_not_scanned, 0);

	/* What is free in the guest may differ if the balloon said that it is */
	if (l->mode)
		check_ram_equal_or_free(src, dst);
	else if (l->extra != free_page_hints)
		check_ram_equal(src, dst);
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
 * KVM protects a page against writes when its log is cleared, not before: only
 * real KVM shows whether the scan comes too early (R1). The guest touches
 * fresh pages all over RAM, some 20,000 a second, for five seconds.
 */
#define FT_DELAY	100000
#define FT_BEFORE	10000

struct kvm_row {
	const char *name;
	const char *accel;
	const char *ram;
	const char *extra[3];
};

static const struct kvm_row kvm_rows[] = {
	{ "kvm-first-touch-anon", "kvm", VM_RAM_ANON, { NULL } },
	{ "kvm-first-touch-memfd", "kvm", VM_RAM_MEMFD, { NULL } },
	{ "kvm-first-touch-small-chunks", "kvm", VM_RAM_ANON,
	  { "-global", "migration.x-clear-bitmap-shift=12", NULL } },
};

static void need_kvm(void)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int vm;

	if (kvm < 0)
		fph_test_skip_all("/dev/kvm cannot be opened: %s", strerror(errno));
	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	if (vm < 0)
		fph_test_skip_all("KVM cannot make a VM: %s", strerror(errno));
	if (ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2) <= 0)
		fph_test_skip_all("this KVM has no manual dirty log protection");
	close(vm);
	close(kvm);
}

/* The firmware image with other settings */
static const char *patch_firsttouch(uint32_t delay, uint32_t rounds)
{
	g_autofree char *image = NULL;
	gsize size;

	ok(g_file_get_contents(firsttouch, &image, &size, E));
	check(size > FT_SET_ROUNDS + sizeof(rounds));
	memcpy(image + FT_SET_DELAY, &delay, sizeof(delay));
	memcpy(image + FT_SET_ROUNDS, &rounds, sizeof(rounds));
	return temp_file(image, size);
}

static uint32_t ft_state(struct vm *vm, unsigned int offset)
{
	GError *error = NULL;
	g_autofree char *command = g_strdup_printf("xp /1wx %#x", FT_STATE_ADDR + offset);
	g_autofree char *answer = vm_hmp(vm, &error, command);
	char *value;

	if (!answer)
		fail_msg("%s: %s", command, error->message);
	value = strstr(answer, ": 0x");
	check(value != NULL);
	return strtoul(value + 2, NULL, 16);
}

static void ft_wait_for(struct vm *vm, uint32_t count)
{
	for (int i = 0; i < 6000; i++) {
		if (ft_state(vm, FT_ST_MAGIC) == FT_MAGIC && ft_state(vm, FT_ST_COUNT) >= count)
			return;
		g_usleep(10000);
	}
	fail_msg("the guest made no progress in 60 seconds");
}

static void test_kvm(void **state)
{
	const struct kvm_row *row = *state;
	struct vm_config cfg = {
		.name = "source",
		.memory = 512 * MIB,
		.accel = row->accel,
		.ram = row->ram,
		.bios = patch_firsttouch(FT_DELAY, 1),
		.fph_mode = "pagemap",
		.extra = row->extra,
	};
	struct vm_migrate_opts opts = {
		.max_bandwidth = 150 * MIB,
		.downtime_limit_ms = 2000,
	};
	struct vm_migration m = { 0 };
	uint32_t before, after;
	struct vm *src, *dst;

	/* Or one touch would populate 2 MiB */
	check_int(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), 0);
	src = start(cfg);
	dst = start_destination(cfg);

	ft_wait_for(src, FT_BEFORE);
	before = ft_state(src, FT_ST_COUNT);
	migrate(src, dst, &opts, &m);
	after = ft_state(src, FT_ST_COUNT);
	print_message("pages touched: %u before, %u during the migration\n",
		      before, after - before);

	check_str(m.fph.state, "ended");
	check(m.fph.skipped > 1000);
	check(m.fph.resent > 100);	/* or nothing was put to the test */
	check_ram_equal(src, dst);

	if (ft_state(src, FT_ST_STATE) != FT_DONE) {
		ok(vm_cont(dst, E));
		ft_wait_for(dst, after + 1);
	}

	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

/* A guest that stands still: each page is sent once, as zero, or left out */
struct account_row {
	const char *name;
	const char *ram;
	bool fph;
	const char *extra[9];
};

static const struct account_row account_rows[] = {
	{ "account-anon", VM_RAM_ANON, true, { NULL } },
	{ "account-memfd", VM_RAM_MEMFD, true, { NULL } },
	{ "account-shared-ram", "memory-backend-ram,share=on", true, { NULL } },
	{ "account-no-object", VM_RAM_ANON, false, { NULL } },
	{ "account-numa", VM_RAM_ANON, true,
	  { "-object", "memory-backend-ram,id=n0,size=64M",
	    "-object", "memory-backend-memfd,id=n1,size=64M,share=on",
	    "-numa", "node,memdev=n0", "-numa", "node,memdev=n1" } },
	{ "account-dimm", VM_RAM_ANON, true,
	  { "-m", "slots=1,maxmem=1G",
	    "-object", "memory-backend-ram,id=d0,size=64M",
	    "-device", "pc-dimm,memdev=d0", NULL } },
};

/* Each block that is memory of the guest takes part */
static void check_all_ram_scanned(const struct vm_fph *fph, uint64_t memory)
{
	JsonArray *blocks = json_object_get_array_member(fph_object(fph), "blocks");
	uint64_t bytes = 0;

	for (guint i = 0; i < json_array_get_length(blocks); i++) {
		JsonObject *block = json_array_get_object_element(blocks, i);
		bool scanned = strcmp(json_object_get_string_member(block, "method"), "none");

		check_int(scanned, !json_object_has_member(block, "reason"));
		if (scanned)
			bytes += json_object_get_int_member(block, "size");
	}
	check_int(bytes, memory);
}

static void test_account(void **state)
{
	const struct account_row *row = *state;
	struct vm_config cfg = tiny_guest;
	struct vm_migration m = { 0 };
	struct vm *src, *dst;

	cfg.ram = row->ram;
	cfg.extra = row->extra;
	cfg.fph_mode = row->fph ? "pagemap" : NULL;
	src = start(cfg);
	dst = start_destination(cfg);
	ft_wait_for(src, 10);
	ok(vm_stop(src, E));

	migrate(src, dst, NULL, &m);
	check_int(m.fph.resent, 0);
	check_int(m.fph.skipped, m.fph.unmapped + m.fph.zero_mapped);
	if (row->fph) {
		check(m.fph.skipped > 1000);
		check_int(m.normal + m.duplicate + m.fph.skipped, migrated_pages(&m.fph));
		check_all_ram_scanned(&m.fph, cfg.memory +
				      (strcmp(row->name, "account-dimm") ? 0 : 64 * MIB));
	} else {
		check(!m.fph.present);
		check(m.normal + m.duplicate >= cfg.memory / PAGE);
	}
	check_int((m.normal + m.duplicate + m.fph.skipped) * PAGE, m.total_ram);
	check_ram_equal(src, dst);

	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

/* The memfd that is memory of the guest, from outside; there is one */
static int open_memfd(struct vm *vm)
{
	g_autofree char *fds = g_strdup_printf("/proc/%d/fd", (int)vm_pid(vm));
	GError *error = NULL;
	GDir *dir = g_dir_open(fds, 0, &error);
	const char *name;
	int fd = -1;

	check(dir != NULL);
	while (fd < 0 && (name = g_dir_read_name(dir))) {
		g_autofree char *path = g_build_filename(fds, name, NULL);
		g_autofree char *target = g_file_read_link(path, NULL);

		if (target && g_str_has_prefix(target, "/memfd:memory-backend-memfd"))
			fd = open(path, O_RDWR | O_CLOEXEC);
	}
	g_dir_close(dir);
	check(fd >= 0);
	return fd;
}

/*
 * Pages that were sent with content, written again, and then discarded on the
 * host (a balloon does that) are absent and dirty in a later round. Leaving
 * them out would leave the old content at the destination (R3).
 */
static void test_discard(void **state)
{
	struct vm_migrate_opts opts = { .max_bandwidth = 20 * MIB, .timeout_ms = MIGRATE_MS };
	struct vm_config cfg = tiny_guest;
	struct vm_migration m = { 0 };
	struct vm *src, *dst;
	int memfd;

	cfg.ram = VM_RAM_MEMFD;
	cfg.bios = patch_firsttouch(20000, 0);
	src = start(cfg);
	dst = start_destination(cfg);
	/* All pages written once and more */
	ft_wait_for(src, 40000);

	memfd = open_memfd(src);

	/* In the middle of the first round, wait until all was written again */
	ok(vm_migrate_start(src, dst, &opts, &m, E));
	for (int i = 0; m.normal < 14000; i++) {
		check(i < 3000);
		g_usleep(10000);
		ok(vm_migrate_poll(src, &m, E));
		check(m.sync_count <= 1);
	}
	ok(vm_run(src, E, "migrate-set-parameters", "{\"max-bandwidth\":4096}"));
	ft_wait_for(src, ft_state(src, FT_ST_COUNT) + 40000);
	ok(vm_stop(src, E));
	ok(vm_migrate_poll(src, &m, E));
	check_int(m.sync_count, 1);
	check_int(fallocate(memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 17 * MIB, 16 * MIB), 0);
	close(memfd);

	ok(vm_run(src, E, "migrate-set-parameters", "{\"max-bandwidth\":1000000000}"));
	ok(vm_migrate_wait(src, dst, &opts, &m, E));
	print_migration(&m);
	check_str(m.status, "completed");
	check(m.duplicate > 2000);	/* the discarded pages that were dirty */
	check_ram_equal(src, dst);

	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

/*
 * Memory that is not the guest's RAM need not be zero at the destination, even
 * where the source has nothing (R7): here a shared memory device, to which
 * somebody at the destination has written before.
 */
static void test_not_ram(void **state)
{
	static const char *const device[] = {
		"-object", "memory-backend-memfd,id=shm,size=1M,share=on",
		"-device", "ivshmem-plain,memdev=shm,master=on", NULL,
	};
	struct vm_config cfg = tiny_guest;
	struct vm_migration m = { 0 };
	struct vm *src, *dst;
	char old[PAGE];
	int memfd;

	cfg.extra = device;
	src = start(cfg);
	dst = start_destination(cfg);
	memfd = open_memfd(dst);
	memset(old, 'Z', sizeof(old));
	check_int(pwrite(memfd, old, sizeof(old), 5 * PAGE), PAGE);
	close(memfd);

	ft_wait_for(src, 10);
	migrate(src, dst, NULL, &m);
	check(m.fph.skipped > 0);
	check_ram_equal(src, dst);

	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

/* Migrations that leave out nothing, say why, and are none the worse for it */
struct inactive_row {
	const char *name;
	const char *ram;
	const char *capability;
	const char *why;
	const char *accel;
	const char *mode;	/* NULL: pagemap */
};

static const struct inactive_row inactive_rows[] = {
	{ "inactive-private-memfd", "memory-backend-memfd,share=off", NULL, "private mapping", NULL },
	{ "inactive-named-file", "memory-backend-file,mem-path=/dev/shm,share=on", NULL,
	  "named file", NULL },
	{ "inactive-pv-no-device", VM_RAM_ANON, NULL, "there is no virtio-fph device", NULL, "pv" },
	{ "inactive-postcopy", VM_RAM_ANON, "postcopy-ram", "postcopy-ram", NULL },
	{ "kvm-inactive-ring", VM_RAM_ANON, NULL, "dirty ring", "kvm,dirty-ring-size=4096" },
};

static void check_inactive(struct vm *src, struct vm *dst, const char *why)
{
	struct vm_migration m = { 0 };

	migrate(src, dst, NULL, &m);
	check_str(m.fph.state, "inactive");
	if (!strstr(m.fph.reason, why))
		fail_msg("reason \"%s\" does not say \"%s\"", m.fph.reason, why);
	check_int(m.fph.skipped + m.fph.resent, 0);
	check_int(m.fph.chunks, 0);
	check_ram_equal(src, dst);
	vm_migration_clear(&m);
}

static void test_inactive(void **state)
{
	const struct inactive_row *row = *state;
	struct vm_config cfg = tiny_guest;
	struct vm *src, *dst;

	cfg.ram = row->ram;
	cfg.accel = row->accel;
	if (row->mode)
		cfg.fph_mode = row->mode;
	src = start(cfg);
	dst = start_destination(cfg);
	ft_wait_for(src, 10);
	/* With the ring QEMU itself has been seen to lose writes */
	if (row->accel)
		ok(vm_stop(src, E));
	if (row->capability)
		capability(src, dst, row->capability);
	check_inactive(src, dst, row->why);
	vm_free(src);
	vm_free(dst);
}

/* A QEMU that sees no /proc */
static void test_no_proc(void **state)
{
	g_autofree char *text = NULL;
	struct vm_config cfg = tiny_guest;
	struct vm_fph fph = { 0 };
	struct vm *src, *dst;
	int status;

	ok(g_spawn_command_line_sync("unshare --mount true", NULL, NULL, &status, E));
	if (status != 0)
		fph_test_skip_all("hiding /proc from QEMU needs a mount namespace (unshare --mount)");
	text = g_strdup_printf("#!/bin/sh\n"
			       "exec unshare --mount sh -c 'mount -t tmpfs none /proc && exec \"$0\" \"$@\"' "
			       "'%s' \"$@\"\n", qemu);
	cfg.qemu = temp_file(text, -1);
	check_int(chmod(cfg.qemu, 0700), 0);
	src = start(cfg);
	cfg.qemu = qemu;
	dst = start_destination(cfg);
	ft_wait_for(src, 10);

	ok(vm_query_fph(src, &fph, E));
	check_str(fph.state, "inactive");
	check(strstr(fph.reason, "/proc/self/pagemap") != NULL);
	vm_fph_clear(&fph);

	check_inactive(src, dst, "/proc/self/pagemap");
	vm_free(src);
	vm_free(dst);
}

/* QEMU must refuse, and say why */
static void refused(struct vm *vm, const char *why, const char *command, const char *arguments)
{
	GError *error = NULL;
	bool done = vm_run(vm, &error, command, "%s", arguments);

	if (done)
		fail_msg("%s %s was not refused", command, arguments);
	if (!strstr(error->message, why))
		fail_msg("%s: \"%s\" does not say \"%s\"", command, error->message, why);
	g_error_free(error);
}

static void test_object(void **state)
{
	static const char add[] =
		"{\"qom-type\":\"fph-source\",\"id\":\"a\",\"mode\":\"pagemap\"}";
	struct vm_config cfg = tiny_guest;
	struct vm_migrate_opts slow = { .max_bandwidth = 2 * MIB, .timeout_ms = MIGRATE_MS };
	struct vm_migrate_opts fast = { .max_bandwidth = 1000 * MIB };
	struct vm_migration m = { 0 };
	struct vm_fph fph = { 0 };
	GError *error = NULL;
	struct vm *src, *dst;
	char *info;

	cfg.fph_mode = NULL;
	src = start(cfg);
	dst = start_destination(cfg);
	ft_wait_for(src, 4000);

	info = vm_hmp(src, &error, "info fph");
	check(info && strstr(info, "no fph-source"));
	g_free(info);

	refused(src, "xyz", "object-add",
		"{\"qom-type\":\"fph-source\",\"id\":\"a\",\"mode\":\"xyz\"}");
	info = vm_hmp(src, &error, "object_add fph-source,id=a,mode=xyz");
	check(info && strstr(info, "pv pagemap both"));
	g_free(info);
	refused(src, "mode=pagemap does not ask the guest", "object-add",
		"{\"qom-type\":\"fph-source\",\"id\":\"a\",\"mode\":\"pagemap\","
		"\"pv-device\":\"x\"}");
	refused(src, "pv-wait takes milliseconds, from 0 to 60000", "object-add",
		"{\"qom-type\":\"fph-source\",\"id\":\"a\",\"mode\":\"pv\",\"pv-wait\":60001}");
	refused(src, "mode", "object-add", "{\"qom-type\":\"fph-source\",\"id\":\"a\"}");

	ok(vm_run(src, E, "object-add", "%s", add));
	ok(vm_query_fph(src, &fph, E));
	check_str(fph.state, "ready");
	vm_fph_clear(&fph);
	refused(src, "only one fph-source", "object-add",
		"{\"qom-type\":\"fph-source\",\"id\":\"b\",\"mode\":\"pagemap\"}");
	ok(vm_run(src, E, "object-del", "{\"id\":\"a\"}"));
	ok(vm_run(src, E, "object-add", "%s", add));

	ok(vm_migrate_start(src, dst, &slow, &m, E));
	for (int i = 0; i < 1000 && (!fph.state || strcmp(fph.state, "active")); i++) {
		vm_fph_clear(&fph);
		ok(vm_query_fph(src, &fph, E));
		g_usleep(2000);
	}
	check_str(fph.state, "active");
	vm_fph_clear(&fph);
	refused(src, "in use", "object-del", "{\"id\":\"a\"}");
	info = vm_hmp(src, &error, "info fph");
	check(info && strstr(info, "mode pagemap, active"));
	g_free(info);

	/* Cancelled; the object can go, come back, and take part again */
	ok(vm_migrate_cancel(src, 20000, E));
	vm_migration_clear(&m);
	vm_free(dst);
	ok(vm_run(src, E, "object-del", "{\"id\":\"a\"}"));
	ok(vm_run(src, E, "object-add", "%s", add));

	dst = start_destination(cfg);
	migrate(src, dst, &fast, &m);
	check_str(m.fph.state, "ended");
	check(m.fph.skipped > 0);
	check_ram_equal(src, dst);
	ok(vm_run(src, E, "object-del", "{\"id\":\"a\"}"));

	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

/* Each migration starts from nothing, however the last one ended */
static void test_cancel(void **state)
{
	struct vm_migrate_opts slow = { .max_bandwidth = 10 * MIB, .timeout_ms = MIGRATE_MS };
	struct vm_migrate_opts fast = { .max_bandwidth = 200 * MIB };
	struct vm_config cfg = linux_guest;
	struct vm_migration m = { 0 };
	struct vm *src, *dst;

	src = start(cfg);
	boot(src);
	guest(src, "touch 2000 192M", "ok touch");
	for (int i = 0; i < 5; i++) {
		dst = start_destination(cfg);
		ok(vm_migrate_start(src, dst, &slow, &m, E));
		g_usleep(20000 + i * 150000);
		ok(vm_migrate_cancel(src, 20000, E));
		vm_migration_clear(&m);
		vm_free(dst);
	}

	dst = start_destination(cfg);
	migrate(src, dst, &fast, &m);
	check_str(m.fph.state, "ended");
	check(m.fph.skipped > 0);
	check_ram_equal(src, dst);
	ok(vm_cont(dst, E));
	guest_check(dst);

	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

/*
 * loadvm does not start from zeroed memory, so savevm must write every page:
 * pages that were absent at savevm and are dirty at loadvm would keep what the
 * guest wrote in between.
 */
static void test_savevm(void **state)
{
	g_autofree char *dir = g_path_get_dirname(qemu);
	g_autofree char *img = g_build_filename(dir, "qemu-img", NULL);
	g_autofree char *drive = NULL, *create = NULL, *out = NULL;
	const char *disk;
	const char *extra[] = { "-drive", NULL, NULL };
	struct vm_config cfg = linux_guest;
	struct vm_fph fph = { 0 };
	GError *error = NULL;
	struct vm *vm;
	int status;

	if (access(img, X_OK) < 0)
		fph_test_skip_all("no qemu-img beside %s", qemu);
	disk = temp_file("", 0);
	create = g_strdup_printf("'%s' create -q -f qcow2 '%s' 1G", img, disk);
	ok(g_spawn_command_line_sync(create, NULL, NULL, &status, E));
	check_int(status, 0);
	drive = g_strdup_printf("if=none,id=d0,format=qcow2,file=%s", disk);
	extra[1] = drive;
	cfg.extra = extra;

	vm = start(cfg);
	boot(vm);
	guest(vm, "fill 16M", "ok fill");

	out = vm_hmp(vm, &error, "savevm s0");
	check(out != NULL);
	check_str(out, "");
	ok(vm_query_fph(vm, &fph, E));
	check_str(fph.state, "ready");
	check_int(fph.skipped + fph.chunks + fph.epoch, 0);
	vm_fph_clear(&fph);

	/* Writes to memory that was absent, then back */
	guest(vm, "fill 128M dense", "ok fill");
	g_free(out);
	out = vm_hmp(vm, &error, "loadvm s0");
	check(out != NULL);
	check_str(out, "");
	guest_check(vm);
	/* Fresh memory is zero in the guest's eyes, or its kernel breaks */
	guest(vm, "fill 128M dense", "ok fill");
	guest_check(vm);
	vm_free(vm);
}

/* QEMU ends at any moment of a migration, and ends well */
static void test_quit(void **state)
{
	struct vm_migrate_opts opts = { .max_bandwidth = 50 * MIB, .timeout_ms = MIGRATE_MS };
	struct vm_config cfg = tiny_guest;

	cfg.extra = small_chunks;
	for (int i = 0; i < 12; i++) {
		struct vm_migration m = { 0 };
		struct vm *src = start(cfg);
		struct vm *dst = start_destination(cfg);
		GError *error = NULL;

		ft_wait_for(src, 10);
		ok(vm_migrate_start(src, dst, &opts, &m, E));
		g_usleep(i * 3000);
		ok(vm_run(src, E, "quit", NULL));
		for (int k = 0; k < 2000 && vm_alive(src, &error); k++)
			g_usleep(5000);
		check(error != NULL);
		if (!strstr(error->message, "status 0"))
			fail_msg("after quit: %s", error->message);
		g_error_free(error);
		vm_migration_clear(&m);
		vm_free(src);
		vm_free(dst);
	}
}

/* What cannot be tested where nothing can be left out */
static void need_scanner(void)
{
	struct fph_scanner *s;
	const char *why;

	if (fph_scanner_open(&s) < 0)
		fph_test_skip_all("out of memory");
	if (fph_scanner_error(s, &why) < 0)
		fph_test_skip_all("%s", why);
	fph_scanner_close(s);
}

static const struct {
	const char *name;
	fph_test_fn fn;
} singles[] = {
	{ "quit", test_quit },
	{ "object", test_object },
	{ "discard", test_discard },
	{ "not-ram", test_not_ram },
	{ "cancel", test_cancel },
	{ "savevm", test_savevm },
	{ "no-proc", test_no_proc },
};

static bool has_case(const struct fph_tests *t, const char *name)
{
	for (size_t i = 0; i < t->n; i++)
		if (!strcmp(t->v[i].name, name))
			return true;
	return false;
}

/* The build file names the cases too: each of them, and no other */
static int check_names(const struct fph_tests *t, char **names, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (!has_case(t, names[i])) {
			fprintf(stderr, "no case '%s'\n", names[i]);
			return EXIT_FAILURE;
		}
	}
	if (n != t->n) {
		fprintf(stderr, "%zu cases are named, there are %zu\n", n, t->n);
		return EXIT_FAILURE;
	}
	return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
	struct fph_tests t = { 0 };

	if (argc < 2) {
		fputs("usage: migration-test NAME | --names NAME...\n", stderr);
		return 2;
	}
	fph_test_add_rows(&t, live, test_live);
	fph_test_add_rows(&t, kvm_rows, test_kvm);
	fph_test_add_rows(&t, account_rows, test_account);
	fph_test_add_rows(&t, inactive_rows, test_inactive);
	for (size_t i = 0; i < ARRAY_SIZE(singles); i++)
		fph_test_add(&t, singles[i].name, singles[i].fn, NULL);

	if (!strcmp(argv[1], "--names"))
		return check_names(&t, argv + 2, argc - 2);
	if (!has_case(&t, argv[1])) {
		fprintf(stderr, "no case '%s'\n", argv[1]);
		return 2;
	}

	qemu = g_strdup(g_getenv("FPH_TEST_QEMU"));
	if (!qemu || !*qemu) {
		g_free(qemu);
		qemu = vm_default_qemu();
	}
	firsttouch = g_getenv("FPH_TEST_FIRSTTOUCH");
	kernel = vm_default_kernel();
	initrd = vm_default_initrd();
	if (access(qemu, X_OK) < 0)
		fph_test_skip_all("no QEMU at %s; qemu-integration/build-qemu makes it", qemu);
	if (access(kernel, R_OK) < 0 || access(initrd, R_OK) < 0)
		fph_test_skip_all("no guest at %s; tests/guest/build-guest makes it", kernel);
	if (!firsttouch)
		fph_test_skip_all("FPH_TEST_FIRSTTOUCH is not set");
	if (g_str_has_prefix(argv[1], "kvm-"))
		need_kvm();
	if (strcmp(argv[1], "savevm") && strcmp(argv[1], "no-proc") &&
	    strcmp(argv[1], "account-no-object"))
		need_scanner();
	/* A time-out ends the test through exit(), which cleans up */
	io_catch_signals();

	cmocka_set_test_filter(argv[1]);
	return fph_test_run(&t, "migration");
}

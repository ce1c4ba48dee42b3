/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Migrations that are not taken at their word: dry-run, which leaves nothing
 * out, and verify, which looks once more.
 *
 * One case per process: verify-test NAME.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "harness.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif
#define HUGE		(2 * MIB)

/*
 * What a guest is migrated as that has not run yet, but has something in its
 * RAM. QEMU does not migrate twice, and no clock may tell two of them apart.
 */
static char *stream(const char *mode, const char *content, struct vm_migration *m, gsize *len)
{
	g_autofree char *loader = g_strdup_printf("loader,file=%s,addr=0x400000,force-raw=on", content);
	const char *const extra[] = {
		"-rtc", "base=2026-01-01T00:00:00,clock=vm", "-device", loader, NULL,
	};
	struct vm_config cfg = tiny_guest;
	const char *file = temp_file("", 0);
	char *bytes;
	struct vm *vm;

	cfg.memory = 32 * MIB;
	cfg.paused = true;
	cfg.fph_mode = mode;
	cfg.extra = extra;
	vm = start(cfg);
	vm_migration_clear(m);
	ok(vm_run(vm, E, "migrate-set-parameters", "{\"max-bandwidth\":100000000000}"));
	ok(vm_run(vm, E, "migrate", "{\"uri\":\"file:%s\"}", file));
	wait_for_status(vm, "completed", m);
	print_migration(m);
	vm_free(vm);
	ok(g_file_get_contents(file, &bytes, len, E));
	check_int(truncate(file, 0), 0);
	return bytes;
}

/*
 * The stream is the same, byte for byte. Where one piece of RAM ends and the
 * next begins depends on the time it took, so that a busy machine needs more
 * than one try; a page more or less is never made up for by chance.
 */
static void test_dry_run_stream(void **state)
{
	g_autofree char *content = g_malloc(MIB);
	struct vm_migration m = { 0 };
	uint64_t sent, skipped;
	gsize len, dry_len;
	char *plain, *dry;
	const char *file;
	bool same = false;

	for (size_t i = 0; i < MIB; i++)
		content[i] = i * 31 + i / PAGE;
	file = temp_file(content, MIB);

	for (int i = 0; i < 20 && !same; i++) {
		plain = stream(NULL, file, &m, &len);
		check(!m.fph.present);
		check(m.normal >= MIB / PAGE);
		sent = m.normal + m.duplicate;

		dry = stream("pagemap,dry-run=on", file, &m, &dry_len);
		check_str(m.fph.state, "ended");
		check(json_object_get_boolean_member(fph_object(&m.fph), "dry-run"));
		check(m.fph.skipped > 1000);
		check_int(m.fph.skipped, m.fph.unmapped + m.fph.zero_mapped);
		check_int(m.fph.resent, 0);
		check(m.fph.skipped <= m.duplicate);
		check_int(m.normal + m.duplicate, sent);
		check_int(sent, migrated_pages(&m.fph));
		skipped = m.fph.skipped;

		same = len == dry_len && !memcmp(plain, dry, len);
		print_message("try %d: %zu and %zu bytes, %s\n", i, len, dry_len,
			      same ? "the same" : "not the same");
		g_free(plain);
		g_free(dry);
	}
	check(same);

	/* In earnest it is what the dry run said */
	g_free(stream("pagemap", file, &m, &dry_len));
	check(!json_object_get_boolean_member(fph_object(&m.fph), "dry-run"));
	check_int(m.fph.skipped, skipped);
	check_int(m.normal + m.duplicate, sent - skipped);
	check(dry_len < len);
	vm_migration_clear(&m);
}

/* A guest that writes all the time loses nothing, and is counted */
static void test_dry_run_live(void **state)
{
	struct vm_migrate_opts opts = { .max_bandwidth = 100 * MIB, .downtime_limit_ms = 2000 };
	struct vm_config cfg = tiny_guest;
	struct vm_migration m = { 0 };
	struct vm *src, *dst;
	GError *error = NULL;
	char *info;

	cfg.fph_mode = "pagemap,dry-run=on";
	cfg.bios = patch_firsttouch(400000, 1);
	dst = start_destination(cfg);
	src = start(cfg);
	ft_wait_for(src, 1000);

	migrate(src, dst, &opts, &m);
	check_str(m.fph.state, "ended");
	check(m.fph.skipped > 1000);
	check_int(m.fph.skipped, m.fph.unmapped + m.fph.zero_mapped);
	check(m.normal + m.duplicate >= migrated_pages(&m.fph));
	info = vm_hmp(src, &error, "info fph");
	check(info && strstr(info, "mode pagemap, dry run, ended"));
	g_free(info);
	check_ram_equal(src, dst);

	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

/*
 * Pages that were left out are written behind QEMU's back, so that no dirty log
 * knows. The guest itself stays below; there is a page in each of as many huge
 * pages, or what the host would have to say of its neighbours was not tested.
 */
#define GUEST_END	(32 * MIB)
#define VICTIMS		10
#define VICTIM(i)	(64 * MIB + (i) * 5 * MIB + (i) * 3 * PAGE)

/* A file of the QEMU process in /proc */
static int open_proc(struct vm *vm, const char *name, int flags)
{
	g_autofree char *path = g_strdup_printf("/proc/%d/%s", (int)vm_pid(vm), name);
	int fd = open(path, flags | O_CLOEXEC);

	if (fd < 0)
		fail_msg("%s: %s", path, strerror(errno));
	return fd;
}

static const char *ram_name(const char *ram)
{
	return ram ? "ram0" : "pc.ram";
}

static uint64_t ram_address(struct vm *vm, const char *ram)
{
	GError *error = NULL;
	GPtrArray *blocks = vm_ram_blocks(vm, &error);
	uint64_t hva = 0;

	if (!blocks)
		fail_msg("RAM blocks: %s", error->message);
	for (guint i = 0; i < blocks->len; i++) {
		const struct vm_block *block = blocks->pdata[i];

		if (!strcmp(block->name, ram_name(ram)))
			hva = block->hva;
	}
	check(hva != 0);
	g_ptr_array_unref(blocks);
	return hva;
}

/* @victims: offsets of pages in the block */
static void write_unnoticed_at(struct vm *vm, const char *ram, const uint64_t *victims)
{
	uint64_t hva = ram_address(vm, ram);
	int fd = open_proc(vm, "mem", O_RDWR);

	for (int k = 0; k < VICTIMS; k++) {
		/* Somewhere in the page, so that a look at its start is not enough */
		check_int(pwrite(fd, "x", 1, hva + victims[k] + k * 409), 1);
	}
	close(fd);
}

static void write_unnoticed(struct vm *vm, const char *ram)
{
	uint64_t victims[VICTIMS];

	for (int k = 0; k < VICTIMS; k++)
		victims[k] = VICTIM(k);
	write_unnoticed_at(vm, ram, victims);
}

static struct vm *start_below(const char *ram, const char *mode)
{
	struct vm_config cfg = tiny_guest;
	struct vm *vm;

	cfg.ram = ram;
	cfg.fph_mode = mode;
	cfg.bios = patch_firsttouch(20000, 0);
	patch_word(cfg.bios, FT_SET_END, GUEST_END);
	vm = start(cfg);
	ft_wait_for(vm, 1000);
	return vm;
}

static void wait_skipped(struct vm *src, struct vm_migration *m)
{
	until (m->fph.skipped >= 20000 && strcmp(m->status, "setup"))
		ok(vm_migrate_poll(src, m, E));
	check_str(m->status, "active");
	check_int(m->fph.violations, 0);
}

/* Up to where pages are left out, and have been written since */
static void start_and_write(struct vm *src, struct vm *dst, const char *ram,
			    struct vm_migration *m)
{
	struct vm_migrate_opts slow = { .max_bandwidth = MIB };

	ok(vm_migrate_start(src, dst, &slow, m, E));
	wait_skipped(src, m);
	write_unnoticed(src, ram);
	let_go(src);
}

static uint64_t sum_of_blocks(const struct vm_fph *fph, const char *name)
{
	JsonArray *blocks = json_object_get_array_member(fph_object(fph), "blocks");
	uint64_t sum = 0;

	for (guint i = 0; i < json_array_get_length(blocks); i++)
		sum += json_object_get_int_member(json_array_get_object_element(blocks, i), name);
	return sum;
}

static uint64_t watched(const struct vm_fph *fph)
{
	return json_object_get_int_member(fph_object(fph), "watched");
}

struct verify_row {
	const char *name;
	const char *ram;
	const char *mode;
	const char *capability;
	bool verify;
};

static const struct verify_row verify_rows[] = {
	{ "verify-report-anon", VM_RAM_ANON, "pagemap,verify=report", NULL, true },
	{ "verify-report-memfd", VM_RAM_MEMFD, "pagemap,verify=report", NULL, true },
	{ "verify-report-multifd", VM_RAM_ANON, "pagemap,verify=report", "multifd", true },
	{ "verify-report-xbzrle", VM_RAM_ANON, "pagemap,verify=report", "xbzrle", true },
	/* Without it they are lost, or nothing of this puts it to the test */
	{ "verify-off-anon", VM_RAM_ANON, "pagemap", NULL, false },
	{ "verify-off-memfd", VM_RAM_MEMFD, "pagemap", NULL, false },
};

static void test_verify(void **state)
{
	const struct verify_row *row = *state;
	struct vm_migrate_opts opts = { .timeout_ms = MIGRATE_MS };
	struct vm_config cfg = tiny_guest;
	struct vm_migration m = { 0 };
	struct vm *src, *dst;
	GError *error = NULL;
	char *info;

	cfg.ram = row->ram;
	src = start_below(row->ram, row->mode);
	ok(vm_stop(src, E));
	dst = start_destination(cfg);
	if (row->capability)
		capability(src, dst, row->capability);
	start_and_write(src, dst, row->ram, &m);
	ok(vm_migrate_wait(src, dst, &opts, &m, E));
	print_migration(&m);
	check_str(m.status, "completed");
	check_str(m.fph.state, "ended");
	check_int(m.fph.violations, sum_of_blocks(&m.fph, "violations"));
	check_int(m.fph.skipped, sum_of_blocks(&m.fph, "skipped"));
	/* Each page is sent once, or left out */
	check_int(m.normal + m.duplicate + m.fph.skipped, migrated_pages(&m.fph));
	check_int(m.fph.resent, m.fph.violations);

	if (row->verify) {
		print_message("%" PRIu64 " pages verified in %" PRIu64 " us\n", m.fph.verified,
			      m.fph.verify_ns / 1000);
		check_int(m.fph.violations, VICTIMS);
		check_int(m.fph.verified, m.fph.skipped + VICTIMS);
		check_ram_equal(src, dst);
		info = vm_hmp(src, &error, "info fph");
		check(info && strstr(info, "verify report: ") && strstr(info, " 10 violations"));
		g_free(info);
	} else {
		check_int(m.fph.violations + m.fph.verified, 0);
		check_int(vm_ram_compare(src, dst, NULL, NULL, NULL, &error), VICTIMS);
	}

	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

/*
 * Where data and holes alternate, a scan in a hurry gives up. This one must not,
 * or read the pages that are left: to read a hole would fill it.
 */
#define SPARSE_START	(64 * MIB)
#define SPARSE_END	(80 * MIB)

static uint64_t data_pages(int memfd, uint64_t start, uint64_t end)
{
	uint64_t n = 0;

	for (uint64_t at = start; at < end; at += PAGE)
		n += lseek(memfd, at, SEEK_DATA) == (off_t)at;
	return n;
}

static void test_sparse(void **state)
{
	struct vm_migrate_opts slow = { .max_bandwidth = MIB, .timeout_ms = MIGRATE_MS };
	struct vm_config cfg = tiny_guest;
	struct vm_migration m = { 0 };
	uint64_t pages = 0;
	struct vm *src, *dst;
	int memfd;

	cfg.ram = VM_RAM_MEMFD;
	src = start_below(cfg.ram, "pagemap,verify=report");
	ok(vm_stop(src, E));
	dst = start_destination(cfg);
	memfd = open_memfd(src);
	ok(vm_migrate_start(src, dst, &slow, &m, E));
	wait_skipped(src, &m);
	check_int(data_pages(memfd, SPARSE_START, SPARSE_END), 0);
	for (uint64_t at = SPARSE_START; at < SPARSE_END; at += 2 * PAGE, pages++)
		check_int(pwrite(memfd, "x", 1, at), 1);
	check_int(data_pages(memfd, SPARSE_START, SPARSE_END), pages);
	let_go(src);
	ok(vm_migrate_wait(src, dst, &slow, &m, E));
	print_migration(&m);
	check_str(m.status, "completed");
	check_int(m.fph.violations, pages);
	check_int(data_pages(memfd, SPARSE_START, SPARSE_END), pages);
	close(memfd);
	check_ram_equal(src, dst);

	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

static char *migration_error(struct vm *vm)
{
	GError *error = NULL;
	JsonNode *answer = vm_command(vm, &error, "query-migrate", NULL);
	char *text;

	if (!answer)
		fail_msg("query-migrate: %s", error->message);
	text = g_strdup(json_object_get_string_member(json_node_get_object(answer), "error-desc"));
	json_node_unref(answer);
	return text;
}

/* The migration fails, the guest runs on, and can be migrated again */
static void test_abort(void **state)
{
	struct vm_config cfg = tiny_guest;
	struct vm_migration m = { 0 };
	struct vm *src, *dst;
	uint32_t count;
	char *text;

	src = start_below(VM_RAM_ANON, "pagemap,verify=abort");
	dst = start_destination(cfg);
	start_and_write(src, dst, VM_RAM_ANON, &m);
	wait_for_status(src, "failed", &m);
	check_int(m.fph.violations, VICTIMS);
	text = migration_error(src);
	print_message("%s\n", text);
	check(text && strstr(text, "10 pages that were left out"));
	g_free(text);
	vm_free(dst);

	/* It runs, and not only that QEMU says so */
	count = ft_state(src, FT_ST_COUNT);
	ft_wait_for(src, count + 1000);

	/* A new migration, which is not to fail for what happened to the last one */
	vm_migration_clear(&m);
	dst = start_destination(cfg);
	migrate(src, dst, NULL, &m);
	check_int(m.fph.violations, 0);
	check(m.fph.verified > 1000);
	check(m.fph.skipped > 1000);
	check_ram_equal(src, dst);
	ok(vm_cont(dst, E));
	ft_wait_for(dst, ft_state(dst, FT_ST_COUNT) + 1000);

	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

struct live_row {
	const char *name;
	const char *ram;
	const char *mode;
	const char *const *extra;
	bool odd;		/* no whole number of bitmap words */
};

static bool some_rounds(const struct vm_migration *m)
{
	return m->sync_count >= 5;
}

static const struct live_row live[] = {
	{ "dry-run-both", VM_RAM_ANON, "both,dry-run=on", fph_device },
	{ "verify-live-anon", VM_RAM_ANON, "pagemap,verify=abort", NULL },
	{ "verify-live-memfd", VM_RAM_MEMFD, "pagemap,verify=abort", NULL },
	{ "verify-live-pv", VM_RAM_ANON, "pv,verify=abort", fph_device },
	{ "verify-live-both", VM_RAM_ANON, "both,verify=abort", fph_device },
	/* QEMU syncs such a block in another way */
	{ "verify-odd-size", VM_RAM_ANON, "both,verify=report", fph_device, true },
};

/*
 * A guest that writes to pages that were left out, or takes them into use, is
 * no violation. In a dry run it does not lose even those pages that it gave up.
 */
static void test_live(void **state)
{
	const struct live_row *row = *state;
	struct vm_migrate_opts opts = { .max_bandwidth = 100 * MIB };
	struct vm_config cfg = linux_guest;
	struct vm_migration m = { 0 };
	struct vm *src, *dst;

	cfg.ram = row->ram;
	cfg.fph_mode = row->mode;
	cfg.extra = row->extra;
	if (row->extra)
		cfg.append = FPH_APPEND;
	if (row->odd)
		cfg.memory += 2 * PAGE;
	src = start(cfg);
	dst = start_destination(cfg);
	boot(src);
	/* Free, but not zero: the guest takes these into use first */
	if (row->extra) {
		guest(src, "fill 96M dense", "ok fill");
		guest(src, "free", "ok free");
	}
	guest(src, "fill 16M", "ok fill");
	guest(src, "touch 2000 192M", "ok touch");
	guest(src, "rewrite 2000", "ok rewrite");
	/* Free, used, free again */
	if (row->extra)
		guest(src, "churn 24M", "ok churn");
	migrate_until(src, dst, &opts, row->odd ? some_rounds : resent_some, &m);
	print_message("guest %" PRIu64 ", host %" PRIu64 ", both %" PRIu64 "; %" PRIu64
		      " pages verified in %" PRIu64 " us\n", m.fph.guest_only, m.fph.host_only,
		      m.fph.both, m.fph.verified, m.fph.verify_ns / 1000);
	check_str(m.fph.state, "ended");
	check(m.fph.skipped > 1000);
	check(m.fph.resent > 0);
	check_int(m.fph.violations, 0);
	check_int(m.fph.skipped, m.fph.guest_only + m.fph.host_only + m.fph.both);
	if (row->extra)
		check(m.fph.guest_only > 1000);
	if (g_str_has_prefix(row->name, "verify-"))
		/* What the last synchronization made due was not looked at any more */
		check_int(m.fph.verified, m.fph.host_only + m.fph.both);
	else
		check(m.normal + m.duplicate >= migrated_pages(&m.fph));

	if (m.fph.guest_only && g_str_has_prefix(row->name, "verify-")) {
		print_message("%" PRIu64 " watched\n", watched(&m.fph));
		check(watched(&m.fph) > 1000);
		check(watched(&m.fph) <= m.fph.guest_only);
		check_ram_equal_or_free(src, dst);
	}
	else {
		check_ram_equal(src, dst);
	}
	ok(vm_cont(dst, E));
	guest_check(dst);

	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

/*
 * Pages that only the guest called free, so that nobody but the kernel can know
 * that they were written since.
 */
struct free_row {
	const char *name;
	const char *ram;
	const char *const *devices;
	const char *append;
	const char *mode;
	bool no_witness;	/* where userfaultfd is not permitted */
	bool gone;		/* victims leave the page table */
};

/* QEMU maps a memfd anywhere, so that it can have no huge pages */
#define ALIGNED_FILE	"memory-backend-file,share=on,mem-path=/dev/shm,align=2M"

static const struct free_row free_rows[] = {
	{ "verify-free-anon", VM_RAM_ANON, fph_device, FPH_APPEND, "both", false },
	{ "verify-free-memfd", VM_RAM_MEMFD, fph_device, FPH_APPEND, "pv", false },
	{ "verify-free-balloon", VM_RAM_ANON, balloon_device, BALLOON_APPEND, "both", false },
	{ "verify-free-no-witness", VM_RAM_ANON, fph_device, FPH_APPEND, "both", true },
	{ "verify-free-gone", ALIGNED_FILE, fph_device, FPH_APPEND, "pv", false, true },
};

#define PRESENT		(UINT64_C(1) << 63)
#define WATCHED		(UINT64_C(1) << 57 | PRESENT)

static bool page_is(int pagemap, uint64_t address, uint64_t bits)
{
	uint64_t entry;

	check_int(pread(pagemap, &entry, sizeof(entry), address / PAGE * sizeof(entry)),
		  sizeof(entry));
	return (entry & bits) == bits;
}

/*
 * Apart from each other, in the middle of much free memory, which the guest has
 * not touched for a while.
 */
static void choose_victims(struct vm *vm, const char *ram, uint64_t bits, uint64_t *victims)
{
	uint64_t hva = ram_address(vm, ram);
	int pagemap = open_proc(vm, "pagemap", O_RDONLY);
	GError *error = NULL;
	JsonNode *answer = vm_command(vm, &error, "x-query-fph-pages", NULL);
	uint64_t last = 0;
	JsonArray *list;
	int n = 0;

	if (!answer)
		fail_msg("x-query-fph-pages: %s", error->message);
	list = json_node_get_array(answer);
	for (guint i = 0; i < json_array_get_length(list) && n < VICTIMS; i++) {
		JsonObject *o = json_array_get_object_element(list, i);
		uint64_t first = json_object_get_int_member(o, "first");
		uint64_t count = json_object_get_int_member(o, "count");

		if (!g_str_has_suffix(json_object_get_string_member(o, "block"), ram_name(ram)) ||
		    !json_object_get_boolean_member(o, "guest") ||
		    json_object_get_boolean_member(o, "host"))
			continue;
		for (uint64_t p = first + 16; p + 16 < first + count && n < VICTIMS; p++) {
			if (p < last + 150 || !page_is(pagemap, hva + p * PAGE, bits) ||
			    !page_is(pagemap, hva + (p + 1) * PAGE, bits))
				continue;
			last = p;
			victims[n++] = p * PAGE;
		}
	}
	check_int(n, VICTIMS);
	json_node_unref(answer);
	close(pagemap);
}

/* The pages next to the victims are cleared, which a page that was discarded is too */
static void clear_unnoticed(struct vm *vm, const char *ram, const uint64_t *victims)
{
	static const char zeroes[PAGE];
	uint64_t hva = ram_address(vm, ram);
	int fd = open_proc(vm, "mem", O_RDWR);

	for (int k = 0; k < VICTIMS; k++)
		check_int(pwrite(fd, zeroes, PAGE, hva + victims[k] + PAGE), PAGE);
	close(fd);
}

/* Mapped as a whole, they leave the page table as a whole when a part is discarded */
static void make_huge(struct vm *vm, const struct vm_config *cfg)
{
	uint64_t hva = ram_address(vm, cfg->ram), end = hva + (cfg->memory ?: 256 * MIB);
	int pidfd = syscall(SYS_pidfd_open, vm_pid(vm), 0);
	int fd = open_proc(vm, "mem", O_RDWR);
	ssize_t done = 0;
	char byte;

	check(pidfd >= 0);
	for (uint64_t at = hva; at < end; at += HUGE) {
		struct iovec part = { (void *)(uintptr_t)at, HUGE };

		done += syscall(SYS_process_madvise, pidfd, &part, 1, MADV_COLLAPSE, 0) > 0;
		/* Brings it into the page table again */
		check_int(pread(fd, &byte, 1, at), 1);
	}
	close(fd);
	close(pidfd);
	if (!done)
		fph_test_skip("the kernel makes no huge page of tmpfs at MADV_COLLAPSE");
}

/* The victims are still there, but in no page table */
static void split_huge(struct vm *vm, const uint64_t *victims)
{
	uint64_t hva = ram_address(vm, ALIGNED_FILE);
	int pagemap = open_proc(vm, "pagemap", O_RDONLY);
	int memfd = open_memfd(vm);

	for (int k = 0; k < VICTIMS; k++) {
		check_int(fallocate(memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				    victims[k] + PAGE, PAGE), 0);
		check(!page_is(pagemap, hva + victims[k], PRESENT));
	}
	close(memfd);
	close(pagemap);
}

/* How many of the victims the destination has not got */
struct lost {
	const char *block;
	const uint64_t *victims;
	uint64_t n;
};

static void see_lost(void *opaque, const struct vm_block *block, guint64 offset,
		     const guint8 *a, const guint8 *b)
{
	struct lost *lost = opaque;

	for (int k = 0; k < VICTIMS; k++)
		lost->n += !strcmp(block->name, lost->block) && offset == lost->victims[k];
}

/* A migration with some @verify; return: how many of the victims are lost */
static uint64_t migrate_free(struct vm *src, const struct free_row *row, const char *verify,
			     struct vm_migration *m)
{
	struct vm_migrate_opts slow = { .max_bandwidth = MIB, .timeout_ms = MIGRATE_MS };
	struct vm_config cfg = linux_guest;
	uint64_t victims[VICTIMS];
	struct lost lost = { ram_name(row->ram), victims, 0 };
	GError *error = NULL;
	struct vm *dst;

	cfg.ram = row->ram;
	cfg.extra = row->devices;
	cfg.append = row->append;
	dst = start_destination(cfg);
	ok(vm_run(src, E, "object-add", "{\"qom-type\":\"fph-source\",\"id\":\"fph0\","
		  "\"mode\":\"%s\",\"verify\":\"%s\"}", row->mode, verify));
	ok(vm_migrate_start(src, dst, &slow, m, E));
	until (m->fph.hints.answers)
		ok(vm_migrate_poll(src, m, E));
	/* It is not asked again, and takes nothing into use */
	ok(vm_stop(src, E));
	choose_victims(src, row->ram, row->gone ? WATCHED : PRESENT, victims);
	write_unnoticed_at(src, row->ram, victims);
	if (row->gone)
		split_huge(src, victims);
	else
		clear_unnoticed(src, row->ram, victims);
	let_go(src);
	until (!strcmp(m->status, "completed") || !strcmp(m->status, "failed"))
		ok(vm_migrate_poll(src, m, E));
	print_migration(m);
	print_message("verify=%s: %" PRIu64 " guest only, %" PRIu64 " watched, %" PRIu64
		      " violations in %" PRIu64 " us\n", verify, m->fph.guest_only,
		      watched(&m->fph), m->fph.violations, m->fph.verify_ns / 1000);
	check_int(m->fph.violations, sum_of_blocks(&m->fph, "violations"));
	if (!strcmp(m->status, "completed") &&
	    vm_ram_compare(src, dst, see_lost, &lost, NULL, &error) < 0)
		fail_msg("comparing RAM: %s", error->message);
	ok(vm_run(src, E, "object-del", "{\"id\":\"fph0\"}"));
	ok(vm_cont(src, E));
	vm_free(dst);
	return lost.n;
}

static void test_free_pages(void **state)
{
	const struct free_row *row = *state;
	struct vm_config cfg = linux_guest;
	struct vm_migration m = { 0 };
	const char *reason;
	struct vm *src;
	char *text;

	cfg.ram = row->ram;
	cfg.fph_mode = NULL;
	cfg.extra = row->devices;
	cfg.append = row->append;
	if (row->no_witness)
		cfg.qemu = preloaded_qemu("FPH_TEST_NO_USERFAULTFD", "");
	src = start(cfg);
	boot(src);
	guest(src, "fill 160M dense", "ok fill");
	guest(src, "free", "ok free");
	guest(src, "fill 16M", "ok fill");

	if (row->no_witness) {
		check_int(migrate_free(src, row, "report", &m), VICTIMS);
		check_str(m.status, "completed");
		check_int(m.fph.violations + watched(&m.fph), 0);
		check(m.fph.verified > 1000);
		reason = json_object_get_string_member(fph_object(&m.fph), "witness-reason");
		check(strstr(reason, "not permitted") != NULL);
		vm_migration_clear(&m);
		vm_free(src);
		return;
	}

	if (row->gone) {
		make_huge(src, &cfg);
		check_int(migrate_free(src, row, "abort", &m), 0);
		check_str(m.status, "completed");
		check_int(m.fph.violations, 0);
		check(m.fph.resent >= VICTIMS);
		check(watched(&m.fph) > 1000);
		reason = json_object_get_string_member(fph_object(&m.fph), "witness-reason");
		check(strstr(reason, "split") != NULL);
		vm_migration_clear(&m);
		guest_check(src);
		vm_free(src);
		return;
	}

	/* Without it they are lost, or nothing of this puts it to the test */
	check_int(migrate_free(src, row, "off", &m), VICTIMS);
	check_str(m.status, "completed");
	check_int(m.fph.violations + watched(&m.fph), 0);
	vm_migration_clear(&m);

	migrate_free(src, row, "abort", &m);
	check_str(m.status, "failed");
	check_int(m.fph.violations, VICTIMS);
	text = migration_error(src);
	check(text && strstr(text, "10 pages that were left out"));
	g_free(text);
	vm_migration_clear(&m);
	guest(src, "rewrite 1000", "ok rewrite");
	guest(src, "stop", "ok stop");

	check_int(migrate_free(src, row, "report", &m), 0);
	check_str(m.status, "completed");
	check_int(m.fph.violations, VICTIMS);
	check(watched(&m.fph) > 1000);
	check(watched(&m.fph) <= m.fph.guest_only + VICTIMS);
	check(!json_object_has_member(fph_object(&m.fph), "witness-reason"));
	vm_migration_clear(&m);

	/* The guest has not noticed anything */
	guest_check(src);
	vm_free(src);
}

/*
 * A switch to postcopy makes all due that was left out, as zero and unread.
 * What was written unnoticed has to be found before that, and in a dry run
 * there is nothing to make due.
 */
struct postcopy_row {
	const char *name;
	const char *ram;
	const char *mode;
	uint64_t violations;
	bool dry_run;
};

static const struct postcopy_row postcopy_rows[] = {
	{ "verify-postcopy-anon", VM_RAM_ANON, "pagemap,verify=report", VICTIMS, false },
	{ "verify-postcopy-memfd", VM_RAM_MEMFD, "pagemap,verify=report", VICTIMS, false },
	{ "dry-run-postcopy", VM_RAM_ANON, "pagemap,dry-run=on", 0, true },
};

static void write_and_switch(struct vm *src, struct vm *dst, const char *ram,
			     struct vm_migration *m)
{
	struct vm_migrate_opts slow = { .max_bandwidth = MIB };

	capability(src, dst, "postcopy-ram");
	ok(vm_migrate_start(src, dst, &slow, m, E));
	wait_skipped(src, m);
	write_unnoticed(src, ram);
	ok(vm_run(src, E, "migrate-start-postcopy", NULL));
}

static void test_postcopy(void **state)
{
	const struct postcopy_row *row = *state;
	struct vm_migrate_opts opts = { .timeout_ms = MIGRATE_MS };
	struct vm_config cfg = tiny_guest;
	struct vm_migration m = { 0 };
	struct vm *src, *dst;

	cfg.ram = row->ram;
	src = start_below(row->ram, row->mode);
	dst = start_destination(cfg);
	write_and_switch(src, dst, row->ram, &m);
	ok(vm_migrate_wait(src, dst, &opts, &m, E));
	print_migration(&m);
	check_str(m.status, "completed");
	check_str(m.fph.state, "ended");
	check(m.fph.skipped > 1000);
	check_int(m.fph.violations, row->violations);
	if (row->dry_run)
		check_int(json_object_get_int_member(fph_object(&m.fph), "postcopy-zero"), 0);
	else
		check_int(m.fph.verified, m.fph.skipped + VICTIMS);
	check_ram_equal(src, dst);

	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

static void test_postcopy_abort(void **state)
{
	struct vm_migration m = { 0 };
	struct vm *src, *dst;

	src = start_below(VM_RAM_ANON, "pagemap,verify=abort");
	dst = start_destination(tiny_guest);
	write_and_switch(src, dst, VM_RAM_ANON, &m);
	wait_for_status(src, "failed", &m);
	check_int(m.fph.violations, VICTIMS);
	vm_free(dst);
	ft_wait_for(src, ft_state(src, FT_ST_COUNT) + 1000);

	vm_migration_clear(&m);
	vm_free(src);
}

/*
 * On real KVM, whose dirty log can lose writes if it is used in the
 * wrong order: a guest that touches fresh pages all over RAM.
 */
static void test_kvm(void **state)
{
	struct vm_migrate_opts opts = { .max_bandwidth = 150 * MIB };
	struct vm_config cfg = tiny_guest;
	struct vm_migration m = { 0 };
	struct vm *src, *dst;

	/* Or one touch would populate 2 MiB */
	check_int(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), 0);
	cfg.memory = 512 * MIB;
	cfg.accel = "kvm";
	cfg.ram = *state;
	cfg.bios = patch_firsttouch(100000, 1);
	cfg.fph_mode = "pagemap,verify=report";
	dst = start_destination(cfg);
	src = start(cfg);
	ft_wait_for(src, 10000);
	migrate_until(src, dst, &opts, resent_many, &m);
	print_message("%" PRIu64 " pages verified in %" PRIu64 " us, %" PRIu64 " violations\n",
		      m.fph.verified, m.fph.verify_ns / 1000, m.fph.violations);
	check_ram_equal(src, dst);
	check_int(m.fph.verified, m.fph.skipped + m.fph.violations);
	check_int(m.fph.violations, 0);

	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

static void test_properties(void **state)
{
	struct vm_config cfg = tiny_guest;
	GError *error = NULL;
	struct vm *vm;
	char *info;

	cfg.fph_mode = NULL;
	vm = start(cfg);
	refused(vm, "dry-run leaves nothing out", "object-add",
		"{\"qom-type\":\"fph-source\",\"id\":\"a\",\"mode\":\"pagemap\","
		"\"dry-run\":true,\"verify\":\"report\"}");
	info = vm_hmp(vm, &error, "object_add fph-source,id=a,mode=pagemap,verify=xyz");
	check(info && strstr(info, "off report abort"));
	g_free(info);
	ok(vm_run(vm, E, "object-add", "{\"qom-type\":\"fph-source\",\"id\":\"fph0\","
		  "\"mode\":\"pagemap\",\"verify\":\"report\"}"));
	refused(vm, "verify cannot be changed", "qom-set",
		"{\"path\":\"/objects/fph0\",\"property\":\"verify\",\"value\":\"off\"}");
	refused(vm, "dry-run cannot be changed", "qom-set",
		"{\"path\":\"/objects/fph0\",\"property\":\"dry-run\",\"value\":true}");
	vm_free(vm);
}

static bool asks_host(const char *name)
{
	return strcmp(name, "verify-live-pv") && strcmp(name, "verify-free-memfd");
}

int main(int argc, char **argv)
{
	struct fph_tests t = { 0 };

	fph_test_add(&t, "dry-run-stream", test_dry_run_stream, NULL);
	fph_test_add(&t, "dry-run-live", test_dry_run_live, NULL);
	fph_test_add_rows(&t, verify_rows, test_verify);
	fph_test_add_rows(&t, postcopy_rows, test_postcopy);
	fph_test_add(&t, "verify-postcopy-abort", test_postcopy_abort, NULL);
	fph_test_add(&t, "kvm-verify-anon", test_kvm, VM_RAM_ANON);
	fph_test_add(&t, "kvm-verify-memfd", test_kvm, VM_RAM_MEMFD);
	fph_test_add(&t, "verify-abort", test_abort, NULL);
	fph_test_add_rows(&t, live, test_live);
	fph_test_add_rows(&t, free_rows, test_free_pages);
	fph_test_add(&t, "verify-sparse-memfd", test_sparse, NULL);
	fph_test_add(&t, "verify-properties", test_properties, NULL);

	return harness_main(argc, argv, &t, asks_host);
}

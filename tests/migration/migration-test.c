/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whole migrations: a real guest, a source with fph-source, a destination
 * without. After each the source is paused and the destination has not run
 * yet, so every byte of every RAM block must be equal.
 *
 * One case per process: migration-test NAME.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness.h"
#include "held-vcpu.h"

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
	/* Less than the guest writes: these rounds end before the channels have sent all */
	{ "live-multifd", VM_RAM_ANON, "multifd",
	  { .max_bandwidth = 10 * MIB }, NULL, NULL, NULL },
	{ "live-xbzrle", VM_RAM_ANON, "xbzrle",
	  { .max_bandwidth = 100 * MIB }, NULL, NULL, NULL },
	/* Allowed, but there is no switch */
	{ "live-postcopy-ram", VM_RAM_ANON, "postcopy-ram",
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
	  VM_APPEND " fph.modules=virtio_balloon" },
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
	migrate_until(src, dst, &l->opts, resent_some, &m);
	check_str(m.fph.state, "ended");
	check(m.fph.skipped > 0);
	check_int(m.fph.chunks_not_scanned, 0);
	check_end_event(src, "completed", &m.fph);

	/* What is free in the guest may differ if the balloon said that it is */
	if (l->extra != free_page_hints)
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
 * fresh pages all over RAM, some 20,000 a second.
 */
#define FT_DELAY	100000
#define FT_BEFORE	10000

struct kvm_row {
	const char *name;
	const char *accel;
	const char *ram;
	const char *extra[3];
	const char *mode;
	const char *fault;
};

static const struct kvm_row kvm_rows[] = {
	{ "kvm-first-touch-anon", "kvm", VM_RAM_ANON, { NULL }, "pagemap" },
	{ "kvm-first-touch-memfd", "kvm", VM_RAM_MEMFD, { NULL }, "pagemap" },
	{ "kvm-first-touch-small-chunks", "kvm", VM_RAM_ANON,
	  { "-global", "migration.x-clear-bitmap-shift=12", NULL }, "pagemap" },
	/*
	 * The thread has memory watched first, which takes its time here. So the
	 * sending of pages clears the log, and scans; that takes still more. What
	 * the log does not know then is what verify finds.
	 */
	{ "kvm-first-touch-sender", "kvm", VM_RAM_ANON, { NULL },
	  "both,pv-wait=0,verify=report", "ioctl -100 1 30" },
};

static void test_kvm(void **state)
{
	const struct kvm_row *row = *state;
	struct vm_config cfg = {
		.name = "source",
		.memory = 512 * MIB,
		.accel = row->accel,
		.ram = row->ram,
		.bios = patch_firsttouch(FT_DELAY, 1),
		.fph_mode = row->mode,
		.extra = row->extra,
	};
	struct vm_migrate_opts opts = { .max_bandwidth = 150 * MIB };
	struct vm_migration m = { 0 };
	const char *seen;
	uint32_t before, after;
	struct vm *src, *dst;

	/* Or one touch would populate 2 MiB */
	check_int(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), 0);
	dst = start_destination(cfg);
	if (row->fault)
		cfg.qemu = faulty_qemu(row->fault, &seen);
	src = start(cfg);

	ft_wait_for(src, FT_BEFORE);
	before = ft_state(src, FT_ST_COUNT);
	migrate_until(src, dst, &opts, resent_many, &m);
	after = ft_state(src, FT_ST_COUNT);
	print_message("pages touched: %u before, %u during the migration\n",
		      before, after - before);

	check_str(m.fph.state, "ended");
	check(m.fph.skipped > 1000);
	check_int(m.fph.violations, 0);
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

/*
 * What fph-scan says of the QEMU process: bytes that need not be sent. Its RAM
 * must be found where QEMU says it is.
 */
static void scan_from_outside(struct vm *vm, gint64 *unmapped, gint64 *zero_mapped)
{
	const char *fph_scan = g_getenv("FPH_TEST_SCAN");
	g_autofree char *pid = g_strdup_printf("%d", vm_pid(vm));
	const char *argv[] = { fph_scan, "--json", "--pid", pid, NULL };
	g_autoptr(JsonParser) parser = json_parser_new();
	g_autoptr(GPtrArray) blocks = NULL;
	g_autofree char *out = NULL;
	JsonObject *root, *total;
	JsonArray *regions;
	guint found = 0;
	int status;

	ok(g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_DEFAULT, NULL, NULL, &out, NULL,
			&status, E));
	check_int(status, 0);
	ok(json_parser_load_from_data(parser, out, -1, E));
	root = json_node_get_object(json_parser_get_root(parser));
	regions = json_object_get_array_member(root, "regions");
	ok((blocks = vm_ram_blocks(vm, E)) != NULL);
	for (guint i = 0; i < json_array_get_length(regions); i++) {
		JsonObject *r = json_array_get_object_element(regions, i);
		guint64 start = g_ascii_strtoull(json_object_get_string_member(r, "start"), NULL, 16);

		for (guint j = 0; j < blocks->len; j++) {
			const struct vm_block *b = blocks->pdata[j];

			if (b->hva != start)
				continue;
			check_int(json_object_get_int_member(r, "size"), b->used);
			found++;
		}
	}
	check_int(found, json_array_get_length(regions));
	total = json_object_get_object_member(root, "total");
	*unmapped = json_object_get_int_member(total, "unmapped");
	*zero_mapped = json_object_get_int_member(total, "zero_mapped");
}

static void test_account(void **state)
{
	const struct account_row *row = *state;
	struct vm_config cfg = tiny_guest;
	struct vm_migration m = { 0 };
	gint64 unmapped = 0, zero_mapped = 0;
	struct vm *src, *dst;

	cfg.ram = row->ram;
	cfg.extra = row->extra;
	cfg.fph_mode = row->fph ? "pagemap" : NULL;
	src = start(cfg);
	dst = start_destination(cfg);
	ft_wait_for(src, 10);
	ok(vm_stop(src, E));
	if (g_getenv("FPH_TEST_SCAN"))
		scan_from_outside(src, &unmapped, &zero_mapped);

	migrate(src, dst, NULL, &m);
	check_int(m.fph.resent, 0);
	check_int(m.fph.skipped, m.fph.unmapped + m.fph.zero_mapped);
	if (row->fph) {
		/* From inside and from outside it is the same memory */
		if (g_getenv("FPH_TEST_SCAN")) {
			check_int(unmapped, m.fph.unmapped * PAGE);
			check_int(zero_mapped, m.fph.zero_mapped * PAGE);
		}
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

/*
 * Pages that were sent with content, written again, and then discarded on the
 * host (a balloon does that) are absent and dirty in a later round. Leaving
 * them out would leave the old content at the destination (R3).
 */
struct discard {
	const char *name;
	bool file;		/* saved to a file, and loaded from it */
};

static const struct discard discards[] = {
	{ "discard", false },
	{ "discard-file", true },
};

static void test_discard(void **state)
{
	const struct discard *d = *state;
	struct vm_migrate_opts opts = {
		.max_bandwidth = 20 * MIB, .timeout_ms = MIGRATE_MS,
		.file = d->file ? temp_file("", 0) : NULL,
	};
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
	until (m.normal >= 14000) {
		ok(vm_migrate_poll(src, &m, E));
		check(m.sync_count <= 1);
	}
	set_bandwidth(src, 4096);
	ft_wait_for(src, ft_state(src, FT_ST_COUNT) + 40000);
	ok(vm_stop(src, E));
	ok(vm_migrate_poll(src, &m, E));
	check_int(m.sync_count, 1);
	check_int(fallocate(memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 17 * MIB, 16 * MIB), 0);
	close(memfd);

	set_bandwidth(src, 1000000000);
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
 * TCG logs the first write to a page after a sync, and no further ones until
 * its TLB entry is reset. Here the only page that is written in its block is
 * due already each time the sync comes: the block is the last one, and the
 * sync comes when little is left to send.
 */
static void test_tcg_due_page(void **state)
{
	static const char *const nodes[] = {
		"-object", "memory-backend-ram,id=n0,size=64M",
		"-object", "memory-backend-ram,id=n1,size=32M",
		"-numa", "node,memdev=n0", "-numa", "node,memdev=n1", NULL,
	};
	struct vm_migrate_opts opts = { .max_bandwidth = 8 * MIB, .timeout_ms = MIGRATE_MS };
	struct vm_config cfg = tiny_guest;
	struct vm_migration m = { 0 };
	struct vm *src, *dst;

	cfg.memory = 96 * MIB;
	cfg.extra = nodes;
	cfg.bios = patch_firsttouch(20000, 0);
	patch_word(cfg.bios, FT_SET_END, 32 * MIB);
	patch_word(cfg.bios, FT_SET_HAMMER, 64 * MIB + 5 * PAGE);
	src = start(cfg);
	dst = start_destination(cfg);
	ft_wait_for(src, 5000);

	ok(vm_migrate_start(src, dst, &opts, &m, E));
	until (m.sync_count >= 4)
		ok(vm_migrate_poll(src, &m, E));
	let_go(src);
	ok(vm_migrate_wait(src, dst, &opts, &m, E));
	print_migration(&m);
	check_str(m.status, "completed");
	check_ram_equal(src, dst);

	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

/* Sets *@ret to a QEMU that holds its vCPU (held-vcpu.c); the mapping stays */
static struct held *qemu_that_holds(const char **ret)
{
	static const struct held none = { .state = FREE };
	const char *name = temp_file((const char *)&none, sizeof(none));
	g_autofree char *settings = g_strdup_printf("FPH_TEST_HELD='%s'", name);
	int fd = open(name, O_RDWR | O_CLOEXEC);
	struct held *held;

	check(fd >= 0);
	held = mmap(NULL, sizeof(*held), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	check(held != MAP_FAILED);
	close(fd);
	*ret = preloaded_qemu("FPH_TEST_HELD_VCPU", settings);
	return held;
}

static const char *const trace_writes[] = { "-trace", "memory_notdirty_set_dirty", NULL };

/*
 * A vCPU of TCG that finds a page dirty, and notes in its TLB that writes to it need
 * not be logged; in between a sync clears the page's bit, and resets the TLB. What
 * the guest writes once the page is sent, and not again, must not be lost.
 */
static bool is_over(const struct vm_migration *m)
{
	return !g_strcmp0(m->status, "completed");
}

/* Return: false if all was sent, and QEMU saw it, before the vCPU could write again */
static bool hold_vcpu(void)
{
	/* So few that the TLB keeps them all, and the first of them is sent first */
	const uint64_t base = 16 * MIB, pages = 256;
	struct vm_migrate_opts opts = { .max_bandwidth = 100000, .timeout_ms = MIGRATE_MS };
	struct vm_config cfg = tiny_guest;
	struct vm_migration m = { 0 };
	uint64_t syncs, sent, written;
	gint64 enough;
	bool done;
	struct vm *src, *dst;
	struct held *held;

	cfg.memory = 64 * MIB;
	cfg.extra = trace_writes;
	cfg.bios = patch_firsttouch(5000, 0);
	patch_word(cfg.bios, FT_SET_BASE, base);
	patch_word(cfg.bios, FT_SET_END, base + pages * PAGE);
	dst = start_destination(cfg);
	held = qemu_that_holds(&cfg.qemu);
	held->page = base;
	src = start(cfg);
	ft_wait_for(src, pages);
	hold_switchover(src);

	ok(vm_migrate_start(src, dst, &opts, &m, E));
	/* Again, if there was another sync before the page had been sent and written to */
	do {
		ok(vm_cont(src, E));
		held->state = HOLD;
		until (held->state == HELD || is_over(&m))
			ok(vm_migrate_poll(src, &m, E));
		/* The BQL, and an answer, are to be had as soon as the sync waits for the vCPU */
		syncs = m.sync_count;
		/* Or all was sent, and it is waited for to stop */
		enough = g_get_monotonic_time() + 5 * G_USEC_PER_SEC;
		until (m.sync_count > syncs || is_over(&m) || g_get_monotonic_time() > enough)
			ok(vm_migrate_poll(src, &m, E));
		syncs = m.sync_count;
		sent = m.normal;
		held->state = FREE;
		written = ft_state(src, FT_ST_COUNT);
		until (m.normal >= sent + 32 || is_over(&m))
			ok(vm_migrate_poll(src, &m, E));
		until (is_over(&m) || ft_state(src, FT_ST_COUNT) >= written + pages)
			ok(vm_migrate_poll(src, &m, E));
		ok(vm_stop(src, E));
		ok(vm_migrate_poll(src, &m, E));
		print_message("%" PRIu64 " syncs since\n", m.sync_count - syncs);
		done = !is_over(&m);
	} while (done && m.sync_count > syncs);
	let_go(src);
	ok(vm_migrate_wait(src, dst, &opts, &m, E));
	print_migration(&m);
	check_str(m.status, "completed");
	check_ram_equal(src, dst);

	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
	return done;
}

static void test_tcg_held_vcpu(void **state)
{
	for (unsigned int tries = 1; !hold_vcpu(); tries++)
		check(tries < 20);
}

/* Of the pages that the guest touched before touch @last, how many are there? */
static unsigned int have_arrived(int memfd, uint64_t base, uint32_t pages, uint32_t last)
{
	unsigned int n = 0;
	uint32_t x = 0, magic;

	for (uint32_t i = 1; i < last; i++) {
		uint64_t at = base + ft_next(&x, pages, ft_mask(pages)) * (uint64_t)PAGE;

		if (i + 100 < last)
			continue;
		check_int(pread(memfd, &magic, sizeof(magic), at + FT_PG_MAGIC), sizeof(magic));
		n += magic == FT_PAGE_MAGIC;
	}
	return n;
}

/*
 * Hold the vCPU at a page to come, and let it go once pages have arrived that it touched
 * right before: of a sync since, then, which waits for it, and beside which they are sent.
 * Return: false if they do not come: the round was over, and its sync waits, too
 */
static bool hold_in_round(struct vm *src, struct held *held, int memfd, uint64_t base,
			  uint32_t pages)
{
	const uint32_t last = ft_state(src, FT_ST_COUNT) + 3000;
	uint32_t x = 0;
	gint64 enough;
	bool arrived;

	for (uint32_t i = 0; i < last; i++)
		held->page = base + ft_next(&x, pages, ft_mask(pages)) * (uint64_t)PAGE;
	held->state = HOLD;
	until (held->state == HELD)
		g_usleep(1000);
	/* No command is answered as soon as the main loop waits for the vCPU */
	enough = g_get_monotonic_time() + 40 * G_USEC_PER_SEC;
	until ((arrived = have_arrived(memfd, base, pages, last) >= 5) ||
	       g_get_monotonic_time() > enough)
		g_usleep(10000);
	held->state = FREE;
	return arrived;
}

/*
 * Auto-converge has the main loop sync the bitmap, beside the sending of pages, which
 * goes on before that sync is over. What was left out and is due since is sent by then,
 * and must not count as left out any more: at a switch to postcopy it would be sent
 * again, as zero (R8). That of a block that QEMU syncs page by page, of which no chunk is
 * armed again.
 */
static void test_tcg_held_odd_size(void **state)
{
	const uint64_t base = 32 * MIB;
	const uint32_t pages = 160 * MIB / PAGE;
	struct vm_migrate_opts opts = { .max_bandwidth = MIB, .timeout_ms = MIGRATE_MS };
	struct vm_config cfg = tiny_guest;
	struct vm_migration m = { 0 };
	struct vm *src, *dst;
	struct held *held;
	char buf[PAGE];
	int memfd, at;

	cfg.memory = 256 * MIB + 2 * PAGE;
	cfg.ram = VM_RAM_MEMFD;
	/* Faster than is sent, so that rounds get longer */
	cfg.bios = patch_firsttouch(300000, 1);
	patch_word(cfg.bios, FT_SET_BASE, base);
	patch_word(cfg.bios, FT_SET_END, base + pages * (uint64_t)PAGE);
	dst = start_destination(cfg);
	memfd = open_memfd(dst);
	cfg.extra = trace_writes;
	held = qemu_that_holds(&cfg.qemu);
	src = start(cfg);
	capability(src, dst, "postcopy-ram");
	capability(src, dst, "auto-converge");
	hold_switchover(src);
	ft_wait_for(src, 500);

	ok(vm_migrate_start(src, dst, &opts, &m, E));
	set_bandwidth(src, 64 * 1024);
	/*
	 * A round that lasts: QEMU sends 32 pages in 100 ms whatever the limit, and from the
	 * second round on its main loop syncs what had no sync for 5 s, within 10
	 */
	until (m.sync_count >= 2 && m.remaining >= 24 * MIB)
		ok(vm_migrate_poll(src, &m, E));
	for (unsigned int tries = 1; !hold_in_round(src, held, memfd, base, pages); tries++)
		check(tries < 5);
	until (!strcmp(m.status, "postcopy-active") || !strcmp(m.status, "completed")) {
		if (!strcmp(m.status, "active"))
			ok(vm_run(src, E, "migrate-start-postcopy", NULL));
		ok(vm_migrate_poll(src, &m, E));
	}
	ok(vm_migrate_wait(src, dst, &opts, &m, E));
	print_migration(&m);
	check_str(m.status, "completed");
	check(m.fph.resent > 0);
	/*
	 * QEMU can lose by itself what the vCPU writes as soon as it is let go: the page is
	 * due, and is sent before that, as is done only beside a sync of the main loop.
	 */
	at = open_memfd(src);
	check_int(pread(at, buf, PAGE, held->page), PAGE);
	check_int(pwrite(memfd, buf, PAGE, held->page), PAGE);
	close(at);
	check_ram_equal(src, dst);

	close(memfd);
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
	const char *why;
	const char *accel;
	const char *mode;	/* NULL: pagemap */
};

static const struct inactive_row inactive_rows[] = {
	{ "inactive-scanner-off", VM_RAM_ANON, "scanner=off", NULL, "pagemap,scanner=off" },
	{ "inactive-named-file", "memory-backend-file,mem-path=/dev/shm,share=on",
	  "named file", NULL },
	{ "inactive-pv-no-device", VM_RAM_ANON, "there is no virtio-fph device", NULL, "pv" },
	{ "kvm-inactive-ring", VM_RAM_ANON, "dirty ring", "kvm,dirty-ring-size=4096" },
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
	check_no_end_event(src);
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
	check_inactive(src, dst, row->why);
	vm_free(src);
	vm_free(dst);
}

static void check_reason(struct vm *vm, const char *why)
{
	struct vm_fph fph = { 0 };

	ok(vm_query_fph(vm, &fph, E));
	check_str(fph.state, "inactive");
	if (!strstr(fph.reason, why))
		fail_msg("reason \"%s\" does not say \"%s\"", fph.reason, why);
	vm_fph_clear(&fph);
}

/* What happens is to happen again as it was recorded; QEMU itself ends if one migrates then */
static void test_replay(void **state)
{
	g_autofree char *icount = g_strdup_printf("shift=auto,rr=record,rrfile=%s", temp_file("", 0));
	const char *extra[] = { "-icount", icount, NULL };
	struct vm_config cfg = tiny_guest;
	struct vm *vm;

	cfg.accel = "tcg,thread=single";
	cfg.extra = extra;
	vm = start(cfg);
	check_reason(vm, "record");
	vm_free(vm);
}

/* Absent memory of a destination in a postcopy is memory that has not come yet */
static void test_incoming(void **state)
{
	struct vm_migrate_opts slow = { .max_bandwidth = MIB, .timeout_ms = MIGRATE_MS };
	struct vm_config cfg = tiny_guest;
	struct vm_migration m = { 0 }, at_dst = { 0 };
	struct vm_fph fph = { 0 };
	struct vm *src, *dst;

	cfg.fph_mode = NULL;
	src = start(cfg);
	dst = start_destination(cfg);
	capability(src, dst, "postcopy-ram");
	ft_wait_for(src, 2000);
	ok(vm_run(src, E, "migrate-set-parameters", "{\"max-postcopy-bandwidth\":65536}"));
	ok(vm_migrate_start(src, dst, &slow, &m, E));
	ok(vm_run(src, E, "migrate-start-postcopy", NULL));
	wait_for_status(src, "postcopy-active", &m);
	wait_for_status(dst, "postcopy-active", &at_dst);

	ok(vm_run(dst, E, "object-add",
		  "{\"qom-type\":\"fph-source\",\"id\":\"fph0\",\"mode\":\"pagemap\"}"));
	check_reason(dst, "postcopy");
	ok(vm_run(src, E, "migrate-set-parameters", "{\"max-postcopy-bandwidth\":0}"));
	ok(vm_migrate_wait(src, dst, &slow, &m, E));
	check_str(m.status, "completed");
	/* The source is done before the destination's thread that listens is */
	until (fph.state && !strcmp(fph.state, "ready")) {
		vm_fph_clear(&fph);
		ok(vm_query_fph(dst, &fph, E));
	}
	check(!fph.reason);

	vm_fph_clear(&fph);
	vm_migration_clear(&m);
	vm_migration_clear(&at_dst);
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
	const char *blind;
	int status;

	ok(g_spawn_command_line_sync("unshare --mount true", NULL, NULL, &status, E));
	if (status != 0)
		fph_test_skip_all("hiding /proc from QEMU needs a mount namespace (unshare --mount)");
	text = g_strdup_printf("#!/bin/sh\n"
			       "exec unshare --mount sh -c 'mount -t tmpfs none /proc && exec \"$0\" \"$@\"' "
			       "'%s' \"$@\"\n", qemu);
	blind = temp_file(text, -1);
	check_int(chmod(blind, 0700), 0);
	cfg.qemu = blind;
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

	/* Nor is there a guest to ask */
	cfg.qemu = blind;
	cfg.fph_mode = "both";
	src = start(cfg);
	cfg.qemu = qemu;
	dst = start_destination(cfg);
	ft_wait_for(src, 10);
	check_inactive(src, dst, "there is no virtio-fph device");
	vm_free(src);
	vm_free(dst);
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
	info = vm_hmp(src, &error, "object_add fph-source,id=a,mode=pagemap,scanner=fast");
	check(info && strstr(info, "auto pagemap-scan pagemap off"));
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
	until (fph.state && !strcmp(fph.state, "active")) {
		vm_fph_clear(&fph);
		ok(vm_query_fph(src, &fph, E));
	}
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
		/* Before it is connected there is nothing to be told of */
		wait_for_status(src, "active", &m);
		g_usleep(i * 150000);
		ok(vm_migrate_cancel(src, 20000, E));
		vm_fph_clear(&m.fph);
		ok(vm_query_fph(src, &m.fph, E));
		check_str(m.fph.state, "ended");
		check_end_event(src, "failed", &m.fph);
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
	g_autofree char *drive = snapshot_drive();
	const char *extra[] = { "-drive", drive, NULL };
	struct vm_config cfg = linux_guest;
	struct vm_fph fph = { 0 };
	struct vm *vm;

	cfg.extra = extra;
	vm = start(cfg);
	boot(vm);
	guest(vm, "fill 16M", "ok fill");

	hmp(vm, "savevm s0");
	ok(vm_query_fph(vm, &fph, E));
	check_str(fph.state, "ready");
	check_int(fph.skipped + fph.chunks + fph.epoch, 0);
	vm_fph_clear(&fph);

	/* Writes to memory that was absent, then back */
	guest(vm, "fill 128M dense", "ok fill");
	hmp(vm, "loadvm s0");
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
		until (error)
			vm_alive(src, &error);
		if (!strstr(error->message, "status 0"))
			fail_msg("after quit: %s", error->message);
		g_error_free(error);
		vm_migration_clear(&m);
		vm_free(src);
		vm_free(dst);
	}
}

/*
 * However much is left out in a row, the bitmap mutex is held for a piece of
 * it only (R10). QEMU's trace has the pieces.
 */
static void test_lock_hold(void **state)
{
	const uint64_t limit = 4096 * MIB;
	const char *log = temp_file("", 0);
	const char *extra[] = {
		/* A chunk of 8 GiB, so that all is found in one range */
		"-global", "migration.x-clear-bitmap-shift=21", "-trace", "fph_source_piece",
		"-D", log, NULL,
	};
	struct vm_config cfg = tiny_guest;
	struct vm_migration m = { 0 };
	g_autofree char *text = NULL;
	g_auto(GStrv) lines = NULL;
	uint64_t bytes, all = 0;
	struct vm *src, *dst;

	cfg.memory = 2 * limit;
	cfg.extra = extra;
	src = start(cfg);
	cfg.extra = NULL;
	dst = start_destination(cfg);
	ft_wait_for(src, 10);
	migrate(src, dst, NULL, &m);
	vm_free(src);
	vm_free(dst);

	ok(g_file_get_contents(log, &text, NULL, E));
	lines = g_strsplit(text, "\n", -1);
	for (char **line = lines; *line; line++) {
		char *value = strstr(*line, "bytes: 0x");

		if (!value)
			continue;
		bytes = strtoull(value + strlen("bytes: "), NULL, 16);
		check(bytes <= limit);
		all += bytes;
	}
	/* It took more than one */
	check(all > limit);
	check(m.fph.skipped * PAGE > limit);
	vm_migration_clear(&m);
}

static const struct fph_test_single singles[] = {
	{ "quit", test_quit },
	{ "object", test_object },
	{ "tcg-due-page", test_tcg_due_page },
	{ "tcg-held-vcpu", test_tcg_held_vcpu },
	{ "tcg-held-odd-size", test_tcg_held_odd_size },
	{ "not-ram", test_not_ram },
	{ "cancel", test_cancel },
	{ "savevm", test_savevm },
	{ "lock-hold", test_lock_hold },
	{ "no-proc", test_no_proc },
	{ "inactive-replay", test_replay },
	{ "inactive-incoming", test_incoming },
};

static bool asks_host(const char *name)
{
	return strcmp(name, "savevm") && strcmp(name, "no-proc") &&
	       strcmp(name, "account-no-object");
}

int main(int argc, char **argv)
{
	struct fph_tests t = { 0 };

	fph_test_add_rows(&t, live, test_live);
	fph_test_add_rows(&t, kvm_rows, test_kvm);
	fph_test_add_rows(&t, account_rows, test_account);
	fph_test_add_rows(&t, inactive_rows, test_inactive);
	fph_test_add_rows(&t, discards, test_discard);
	fph_test_add_singles(&t, singles);

	return harness_main(argc, argv, &t, asks_host);
}

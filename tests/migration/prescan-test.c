/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pages that hold only zeroes and were found before the migration: what is
 * written to them afterwards, or while they are looked at, is not lost.
 *
 * One case per process: prescan-test NAME.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "harness.h"

#define MODE		"pagemap,prescan=on,prescan-cpu=100"
#define RAM		(256 * MIB)
/* The firmware and its data stay below */
#define FIRST		(32 * MIB)

static JsonObject *prescan(struct vm_fph *f)
{
	return json_object_get_object_member(fph_object(f), "prescan");
}

static uint64_t number(JsonObject *o, const char *name)
{
	return json_object_get_int_member(o, name);
}

static void query(struct vm *vm, struct vm_fph *f)
{
	vm_fph_clear(f);
	ok(vm_query_fph(vm, f, E));
}

static void print_prescan(struct vm_fph *f)
{
	JsonObject *o = prescan(f);

	print_message("prescan %s: %" PRIu64 " zero, %" PRIu64 " passes, %" PRIu64
		      " checked, %" PRIu64 " written, %" PRIu64 " us of CPU time\n",
		      json_object_get_string_member(o, "state"), number(o, "zero"),
		      number(o, "passes"), number(o, "checked"), number(o, "written"),
		      number(o, "cpu-ns") / 1000);
}

/* Has the QEMU process a thread of the lowest priority? */
static bool has_thread(struct vm *vm)
{
	g_autofree char *dir = g_strdup_printf("/proc/%d/task", (int)vm_pid(vm));
	GDir *tasks = g_dir_open(dir, 0, NULL);
	bool found = false;
	const char *task;

	check(tasks != NULL);
	while (!found && (task = g_dir_read_name(tasks))) {
		found = getpriority(PRIO_PROCESS, atoi(task)) == 19;
	}
	g_dir_close(tasks);
	return found;
}

/* Where the block of that name is in QEMU, or 0 */
static uint64_t ram_address(struct vm *vm, const char *name)
{
	GError *error = NULL;
	GPtrArray *blocks = vm_ram_blocks(vm, &error);
	uint64_t hva = 0;

	if (!blocks)
		fail_msg("RAM blocks: %s", error->message);
	for (guint i = 0; i < blocks->len; i++) {
		const struct vm_block *block = blocks->pdata[i];

		if (!strcmp(block->name, name))
			hva = block->hva;
	}
	g_ptr_array_unref(blocks);
	return hva;
}

/* All bytes of [start, end), whole MiB, as a device would write them */
static void fill(struct vm *vm, const char *name, uint64_t start, uint64_t end, uint8_t byte)
{
	g_autofree char *path = g_strdup_printf("/proc/%d/mem", (int)vm_pid(vm));
	g_autofree uint8_t *bytes = g_malloc(MIB);
	uint64_t hva = ram_address(vm, name);
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	check(fd >= 0);
	check(hva != 0);
	memset(bytes, byte, MIB);
	for (uint64_t at = start; at < end; at += MIB)
		check_int(pwrite(fd, bytes, MIB, hva + at), MIB);
	close(fd);
}

/* Memory for all pages from FIRST on, and zero in it, as if it had been used */
static void give_zeroes(struct vm *vm)
{
	fill(vm, "pc.ram", FIRST, RAM, 0);
}

static void wait_for_zero(struct vm *vm, struct vm_fph *f, uint64_t pages, uint64_t passes)
{
	query(vm, f);
	until (number(prescan(f), "zero") >= pages && number(prescan(f), "passes") >= passes)
		query(vm, f);
	print_prescan(f);
}

/* The guest has written to pages that were found zero, before or since they were left out */
static bool written_some(const struct vm_migration *m)
{
	JsonObject *o = json_object_get_object_member(fph_object(&m->fph), "prescan");

	return number(o, "written") + m->fph.resent > 0;
}

struct row {
	const char *name;
	const char *accel;
	const char *mode;
	bool huge;
	uint32_t delay;		/* of the guest: how slowly it writes */
	const char *capability;
	bool sanitized;		/* the source */
};

/* TSC ticks between two writes: of huge pages there are not so many */
#define SMALL		1000000
#define HUGE		100000000

static const struct row rows[] = {
	{ "prescan-small", NULL, MODE, false, SMALL, NULL },
	{ "prescan-huge", NULL, MODE, true, HUGE, NULL },
	{ "prescan-verify", NULL, MODE ",verify=abort", true, HUGE, NULL, true },
	{ "prescan-multifd", NULL, MODE, true, HUGE, "multifd" },
	{ "kvm-prescan-small", "kvm", MODE, false, SMALL, NULL },
	{ "kvm-prescan-huge", "kvm", MODE, true, HUGE, NULL },
};

/*
 * The guest writes to one page after the other, so that some are written
 * before they are looked at, some while, and some after.
 */
static void test_prescan(void **state)
{
	const struct row *row = *state;
	struct vm_migrate_opts opts = { .max_bandwidth = 300 * MIB };
	struct vm_config cfg = tiny_guest;
	struct vm_migration m = { 0 };
	struct vm_fph f = { 0 };
	struct vm *src, *dst;

	if (!row->huge)
		check_int(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), 0);
	cfg.memory = RAM;
	cfg.accel = row->accel;
	cfg.fph_mode = row->mode;
	cfg.bios = patch_firsttouch(row->delay, 1);
	patch_word(cfg.bios, FT_SET_BASE, FIRST);
	cfg.qemu = row->sanitized ? sanitized_qemu() : NULL;
	src = start(cfg);
	cfg.qemu = NULL;
	dst = start_destination(cfg);
	give_zeroes(src);
	ft_wait_for(src, 1);
	if (row->capability)
		capability(src, dst, row->capability);
	wait_for_zero(src, &f, 5000, 2);
	migrate_until(src, dst, &opts, written_some, &m);
	print_message("%" PRIu64 " pages left out for their content, guest at %u\n",
		      number(fph_object(&m.fph), "zero-content"), ft_state(src, FT_ST_COUNT));
	check_str(m.fph.state, "ended");
	check_int(m.fph.violations, 0);
	check_ram_equal(src, dst);
	check(number(fph_object(&m.fph), "zero-content") > 1000);
	check(number(fph_object(&m.fph), "zero-content") <= m.fph.host_only);
	check_int(m.fph.host_only, m.fph.skipped);
	query(src, &f);
	print_prescan(&f);

	vm_fph_clear(&f);
	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

/*
 * A guest that clears what it frees, and trusts that it stays so. It goes on
 * using and freeing memory.
 */
static void test_linux(void **state)
{
	struct vm_migrate_opts opts = { .max_bandwidth = 200 * MIB, .downtime_limit_ms = 1000 };
	struct vm_config cfg = linux_guest;
	struct vm_migration m = { 0 };
	struct vm_fph f = { 0 };
	struct vm *src, *dst;

	cfg.fph_mode = MODE;
	cfg.append = VM_APPEND " init_on_free=1";
	src = start(cfg);
	dst = start_destination(cfg);
	boot(src);
	guest(src, "fill 160M dense", "ok fill");
	guest(src, "free", "ok free");
	guest(src, "fill 16M", "ok fill");
	query(src, &f);
	guest(src, "touch 1000 64M", "ok touch");
	guest(src, "zerochurn 48M", "ok zerochurn");
	wait_for_zero(src, &f, 20000, number(prescan(&f), "passes") + 3);
	migrate(src, dst, &opts, &m);
	print_message("%" PRIu64 " pages left out for their content\n",
		      number(fph_object(&m.fph), "zero-content"));
	check(number(fph_object(&m.fph), "zero-content") > 10000);
	check(number(prescan(&f), "written") > 0);
	check_ram_equal(src, dst);
	ok(vm_cont(dst, E));
	guest(dst, "fill 64M", "ok fill");
	guest_check(dst);
	vm_fph_clear(&f);
	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

static void wait_for_state(struct vm *vm, struct vm_fph *f, const char *wanted)
{
	query(vm, f);
	until (!strcmp(json_object_get_string_member(prescan(f), "state"), wanted))
		query(vm, f);
}

/* Is one of the pages left out? */
static bool is_skipped(struct vm *vm, int64_t first, int64_t n)
{
	GError *error = NULL;
	JsonNode *answer = vm_command(vm, &error, "x-query-fph-pages", NULL);
	bool found = false;
	JsonArray *list;

	if (!answer)
		fail_msg("x-query-fph-pages: %s", error->message);
	list = json_node_get_array(answer);
	for (guint i = 0; i < json_array_get_length(list); i++) {
		JsonObject *o = json_array_get_object_element(list, i);
		int64_t start = json_object_get_int_member(o, "first");

		found |= !strcmp(json_object_get_string_member(o, "block"), "pc.ram") &&
			 start < first + n && start + json_object_get_int_member(o, "count") > first;
	}
	json_node_unref(answer);
	return found;
}

/*
 * It begins with the object and ends with it, and lets go of userfaultfd for a
 * background snapshot, whose capability alone asks for it.
 */
static void test_life(void **state)
{
	struct vm_config cfg = tiny_guest;
	struct vm_migration m = { 0 };
	struct vm_fph f = { 0 };
	GError *error = NULL;
	const char *file = temp_file("", 0);
	struct vm *vm;
	char *info;

	cfg.memory = RAM;
	cfg.fph_mode = NULL;
	cfg.bios = patch_firsttouch(HUGE, 1);
	patch_word(cfg.bios, FT_SET_BASE, FIRST);
	vm = start(cfg);
	give_zeroes(vm);
	refused(vm, "mode=pv does not ask the host", "object-add",
		"{\"qom-type\":\"fph-source\",\"id\":\"a\",\"mode\":\"pv\",\"prescan\":true}");
	refused(vm, "percent of one CPU", "object-add", "{\"qom-type\":\"fph-source\",\"id\":\"a\","
		"\"mode\":\"pagemap\",\"prescan-cpu\":0}");
	check(!has_thread(vm));
	check(!is_registered(vm));
	ok(vm_run(vm, E, "object-add", "{\"qom-type\":\"fph-source\",\"id\":\"fph0\","
		  "\"mode\":\"pagemap\",\"prescan\":true,\"prescan-cpu\":100}"));
	wait_for_zero(vm, &f, 5000, 1);
	check(has_thread(vm));
	check(is_registered(vm));
	info = vm_hmp(vm, &error, "info fph");
	check(info && strstr(info, "  prescan: "));
	g_free(info);

	/* Whether it is possible is known of pages that are registered already */
	set_capability(vm, "background-snapshot", true);
	check(is_registered(vm));
	/* The thread makes way when there is a snapshot */
	ok(vm_run(vm, E, "migrate", "{\"uri\":\"file:%s\"}", file));
	wait_for_status(vm, "completed", &m);
	check_int(truncate(file, 0), 0);
	check_str(m.fph.reason, "a background snapshot has no dirty log");

	/* The command does not wait for the threads, which end soon */
	delete_object(vm, "fph0");
	until (!has_thread(vm) && !is_registered(vm))
		;
	ft_wait_for(vm, ft_state(vm, FT_ST_COUNT) + 1);
	vm_fph_clear(&f);
	vm_migration_clear(&m);
	vm_free(vm);
}

static void port_write(struct vm *vm, const char *size, unsigned int port, uint32_t value)
{
	g_autofree char *command = g_strdup_printf("o /%s %#x %#x", size, port, value);

	hmp(vm, command);
}

static unsigned int port_read(struct vm *vm, unsigned int port)
{
	g_autofree char *command = g_strdup_printf("i /b %#x", port);
	GError *error = NULL;
	g_autofree char *answer = vm_hmp(vm, &error, command);
	char *value = answer ? strstr(answer, "= 0x") : NULL;

	if (!value)
		fail_msg("%s: %s", command, answer ? answer : error->message);
	return strtoul(value + 2, NULL, 16);
}

#define PCI_IDE(reg)	(0x80000000 | 1 << 11 | 1 << 8 | (reg))	/* 00:01.1 */
#define BUS_MASTER	0xc000
#define PRD_TABLE	0x20000

/* What the driver of an IDE disk does to read sectors by DMA */
static void ide_read(struct vm *vm, uint32_t address, uint16_t bytes)
{
	uint32_t prd[2] = { address, 0x80000000 | bytes };
	g_autofree char *path = g_strdup_printf("/proc/%d/mem", (int)vm_pid(vm));
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	check(fd >= 0);
	check_int(pwrite(fd, prd, sizeof(prd), ram_address(vm, "pc.ram") + PRD_TABLE), sizeof(prd));
	close(fd);
	port_write(vm, "w", 0xcf8, PCI_IDE(0x20));
	port_write(vm, "w", 0xcfc, BUS_MASTER | 1);
	port_write(vm, "w", 0xcf8, PCI_IDE(0x04));
	port_write(vm, "h", 0xcfc, 0x0005);
	port_write(vm, "w", BUS_MASTER + 4, PRD_TABLE);
	port_write(vm, "b", BUS_MASTER, 0x08);
	port_write(vm, "b", 0x1f6, 0xe0);
	port_write(vm, "b", 0x1f2, bytes / 512);
	port_write(vm, "b", 0x1f3, 0);
	port_write(vm, "b", 0x1f4, 0);
	port_write(vm, "b", 0x1f5, 0);
	port_write(vm, "b", 0x1f7, 0xc8);
	port_write(vm, "b", BUS_MASTER, 0x09);
	until ((port_read(vm, BUS_MASTER + 2) & 5) == 4)
		;
}

/* A guest that touches 8 MiB, and lets us have the rest */
static struct vm_config touching_little(const char *const *extra)
{
	struct vm_config cfg = tiny_guest;

	cfg.memory = RAM;
	cfg.extra = extra;
	cfg.fph_mode = MODE;
	cfg.bios = patch_firsttouch(HUGE, 1);
	patch_word(cfg.bios, FT_SET_BASE, FIRST);
	patch_word(cfg.bios, FT_SET_END, FIRST + 8 * MIB);
	return cfg;
}

/*
 * A device may have written to memory in a way that the kernel does not notice.
 * This one says that it has, and has not: its disk leaves memory as it is.
 */
static void test_device(void **state)
{
	static const char *const disk[] = {
		"-blockdev", "driver=null-co,node-name=n0,size=16777216",
		"-device", "ide-hd,drive=n0,bus=ide.0", NULL,
	};
	struct vm_config cfg = touching_little(disk);
	struct vm_migration m = { 0 };
	struct vm_fph f = { 0 };
	struct vm *src, *dst;
	uint64_t zero;

	src = start(cfg);
	dst = start_destination(cfg);
	give_zeroes(src);
	query(src, &f);
	wait_for_zero(src, &f, 50000, number(prescan(&f), "passes") + 2);
	zero = number(prescan(&f), "zero");
	ide_read(src, 128 * MIB, 32 * 1024);
	/* What it would find again is to be found again */
	wait_for_zero(src, &f, 50000, number(prescan(&f), "passes") + 2);
	check(number(prescan(&f), "zero") <= zero - 8);
	check(number(prescan(&f), "zero") > zero - 8 - 100);
	migrate(src, dst, NULL, &m);
	check(!is_skipped(src, 128 * MIB / PAGE, 8));
	check(is_skipped(src, 128 * MIB / PAGE + 8, 1));
	check_ram_equal(src, dst);
	vm_fph_clear(&f);
	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

/* A snapshot is loaded: it can come by ways that the kernel does not notice */
static void test_loadvm(void **state)
{
	g_autofree char *drive = snapshot_drive(), *trace = NULL;
	const char *log = temp_file("", 0);
	const char *extra[] = {
		"-D", log, "-trace", "ram_watch_memory_loaded", "-drive", drive, NULL,
	};
	struct vm_fph f = { 0 };
	struct vm *vm;

	vm = start(touching_little(extra));
	give_zeroes(vm);
	hmp(vm, "savevm s0");
	query(vm, &f);
	wait_for_zero(vm, &f, 50000, number(prescan(&f), "passes") + 1);
	check(is_registered(vm));
	ok(g_file_get_contents(log, &trace, NULL, E));
	check_str(trace, "");
	g_free(trace);
	hmp(vm, "loadvm s0");
	ok(g_file_get_contents(log, &trace, NULL, E));
	check(strstr(trace, "ram_watch_memory_loaded") != NULL);
	/* It begins anew with what is there now */
	query(vm, &f);
	wait_for_zero(vm, &f, 50000, number(prescan(&f), "passes") + 1);
	vm_fph_clear(&f);
	vm_free(vm);
}

#define DIMM		(128 * MIB)
#define USED		(16 * MIB)	/* of it */
#define DIMM_TRIES	5

struct replaced {
	const char *name;
	bool there;		/* the one that comes later is at the same address */
	bool pass;		/* there is one before the migration */
};

static const struct replaced replaced[] = {
	{ "prescan-replaced", false, false },
	{ "prescan-replaced-pass", false, true },
	{ "prescan-replaced-there", true, false },
};

static void plug(struct vm *vm, const char *id, uint64_t size)
{
	ok(vm_run(vm, E, "object-add", "{\"qom-type\":\"memory-backend-ram\",\"id\":\"%s\","
		  "\"size\":%" PRIu64 "}", id, size));
	ok(vm_run(vm, E, "device_add", "{\"driver\":\"pc-dimm\",\"memdev\":\"%s\"}", id));
}

#define ACPI_DIMM	0xa00

/* What a guest does that lets go of a DIMM */
static void unplug(struct vm *vm, unsigned int slot, const char *id)
{
	g_autofree char *path = g_strdup_printf("/proc/%d/maps", (int)vm_pid(vm));
	g_autofree char *start = g_strdup_printf("%" PRIx64 "-", ram_address(vm, id));
	g_autofree char *maps = g_strdup(start);

	port_write(vm, "w", ACPI_DIMM, slot);
	port_write(vm, "b", ACPI_DIMM + 0x14, 8);
	ok(vm_run(vm, E, "object-del", "{\"id\":\"%s\"}", id));
	/* A grace period later */
	until (!strstr(maps, start)) {
		g_free(maps);
		ok(g_file_get_contents(path, &maps, NULL, E));
	}
}

/* Which RAMBlock of QEMU is m0, and where, when the prescan came to know it the last time */
struct place {
	void *rb;
	void *host;
};

static struct place place_in(const char *log)
{
	static const char event[] = "fph_prescan_block block: m0 rb: ";
	g_autofree char *text = NULL;
	struct place p = { 0 };
	char *line;

	ok(g_file_get_contents(log, &text, NULL, E));
	line = g_strrstr(text, event);
	if (line)
		check_int(sscanf(line + strlen(event), "%p host: %p", &p.rb, &p.host), 2);
	return p;
}

static void wait_for_passes(struct vm *vm, struct vm_fph *f, uint64_t n)
{
	query(vm, f);
	wait_for_zero(vm, f, 0, number(prescan(f), "passes") + n);
}

/* Return: was the block that came later in the place that was wanted? */
static bool replace(const struct replaced *row)
{
	g_autofree char *backend = g_strdup_printf("memory-backend-ram,id=m0,size=%" PRIu64, DIMM);
	const char *log = temp_file("", 0);
	const char *src_extra[] = {
		"-m", "slots=2,maxmem=1G", "-trace", "fph_prescan_block", "-D", log, NULL,
	};
	const char *dst_extra[] = {
		"-m", "slots=2,maxmem=1G", "-object", backend,
		"-device", "pc-dimm,memdev=m0", NULL,
	};
	struct vm_config cfg = tiny_guest;
	struct vm_migration m = { 0 };
	struct vm_fph f = { 0 };
	struct place before, after;
	struct vm *src, *dst;
	uint64_t passes;

	cfg.fph_mode = MODE;
	cfg.qemu = preloaded_qemu("FPH_TEST_REUSE_MEMORY", "");
	cfg.extra = src_extra;
	src = start(cfg);
	cfg.qemu = NULL;
	cfg.extra = dst_extra;
	dst = start_destination(cfg);
	/* Whatever is mapped later goes to the highest place that is free */
	if (!row->there)
		plug(src, "spare", 2 * DIMM);
	plug(src, "m0", DIMM);
	if (!row->there)
		unplug(src, 0, "spare");
	fill(src, "m0", 0, USED, 0);
	query(src, &f);
	wait_for_zero(src, &f, USED / PAGE, number(prescan(&f), "passes") + 2);
	before = place_in(log);
	check(before.rb != NULL);

	/* A pass has just ended; all this takes less time than it is to the next one */
	passes = number(prescan(&f), "passes");
	unplug(src, row->there ? 0 : 1, "m0");
	plug(src, "m0", DIMM);
	fill(src, "m0", 0, USED, 0x5a);
	if (row->pass)
		wait_for_passes(src, &f, 2);
	query(src, &f);
	passes = number(prescan(&f), "passes") - passes;
	migrate(src, dst, NULL, &m);
	check_ram_equal(src, dst);

	wait_for_passes(src, &f, 2);
	after = place_in(log);
	check(after.host == (void *)ram_address(src, "m0"));
	print_message("RAM block %p at %p, then %p at %p, %" PRIu64 " passes later\n", before.rb,
		      before.host, after.rb, after.host, passes);
	vm_fph_clear(&f);
	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
	return before.rb == after.rb && row->there == (before.host == after.host) &&
	       (row->pass || !passes);
}

/*
 * What is known of a block is known of no other, though QEMU has it in the same
 * place as the first one, which has gone meanwhile.
 */
static void test_replaced(void **state)
{
	for (int i = 0; !replace(*state); i++)
		if (i == DIMM_TRIES)
			fph_test_skip_all("malloc() and mmap() give no memory that was freed before");
}

/* Memory that others can write to is left alone, in words */
static void test_shared(void **state)
{
	struct vm_config cfg = tiny_guest;
	struct vm_fph f = { 0 };
	struct vm *vm;

	cfg.ram = VM_RAM_MEMFD;
	cfg.fph_mode = MODE;
	vm = start(cfg);
	wait_for_state(vm, &f, "aside");
	check(strstr(json_object_get_string_member(prescan(&f), "reason"), "shared memory"));
	check(!is_registered(vm));
	vm_fph_clear(&f);
	vm_free(vm);
}

/* Only accelerators are trusted that are known to leave the page tables alone */
static void test_accel(void **state)
{
	struct vm_config cfg = tiny_guest;
	struct vm_fph f = { 0 };
	struct vm *vm;

	cfg.accel = "qtest";
	cfg.fph_mode = MODE;
	vm = start(cfg);
	wait_for_state(vm, &f, "aside");
	check(strstr(json_object_get_string_member(prescan(&f), "reason"), "accelerator") != NULL);
	check(!is_registered(vm));
	vm_fph_clear(&f);
	vm_free(vm);
}

/* So is memory that an incoming migration may need userfaultfd for, until it has ended */
static void test_incoming(void **state)
{
	struct vm_config cfg = tiny_guest;
	struct vm_migration m = { 0 };
	struct vm_fph f = { 0 };
	struct vm *src, *dst;

	cfg.memory = RAM;
	cfg.fph_mode = NULL;
	src = start(cfg);
	dst = start_destination(cfg);
	ok(vm_run(dst, E, "object-add", "{\"qom-type\":\"fph-source\",\"id\":\"fph0\","
		  "\"mode\":\"pagemap\",\"prescan\":true,\"prescan-cpu\":100}"));
	wait_for_state(dst, &f, "aside");
	check(strstr(json_object_get_string_member(prescan(&f), "reason"), "incoming migration"));
	check(!is_registered(dst));
	capability(src, dst, "postcopy-ram");
	ok(vm_migrate_start(src, dst, &(struct vm_migrate_opts){ .max_bandwidth = MIB }, &m, E));
	ok(vm_run(src, E, "migrate-start-postcopy", NULL));
	ok(vm_migrate_wait(src, dst, &(struct vm_migrate_opts){ .timeout_ms = MIGRATE_MS }, &m, E));
	check_str(m.status, "completed");
	give_zeroes(dst);
	wait_for_zero(dst, &f, 5000, 1);
	check(is_registered(dst));
	vm_fph_clear(&f);
	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

/*
 * The CPU feature with which a guest can run guests of its own. QEMU ends with
 * an assertion where KVM does not know the registers that come with the other
 * vendor's. A processor need not say that it has the feature itself.
 */
static const char *nested_feature(void)
{
	static const char *const amd[] = { "AuthenticAMD", "HygonGenuine" };
	g_autofree char *cpuinfo = NULL;

	ok(g_file_get_contents("/proc/cpuinfo", &cpuinfo, NULL, E));
	for (size_t i = 0; i < ARRAY_SIZE(amd); i++)
		if (strstr(cpuinfo, amd[i]))
			return "svm";
	return "vmx";
}

/*
 * So is a guest that can run guests of its own, whose hypervisor lets the
 * processor write past our page tables. This KVM need not be able to.
 */
static void test_nested(void **state)
{
	g_autofree char *cpu = g_strdup_printf("qemu64,+%s,x-force-features=on", nested_feature());
	struct vm_config cfg = tiny_guest;
	struct vm_fph f = { 0 };
	struct vm *vm;

	print_message("%s\n", cpu);
	cfg.accel = "kvm";
	cfg.cpu = cpu;
	cfg.fph_mode = MODE;
	vm = start(cfg);
	wait_for_state(vm, &f, "aside");
	check(strstr(json_object_get_string_member(prescan(&f), "reason"), "guests of its own") != NULL);
	check(!is_registered(vm));
	vm_fph_clear(&f);
	vm_free(vm);
}

/*
 * Memory breaks between the moment in which it is protected and the one in which it
 * is read. The guest may never read that page, and lives; so QEMU has to, too.
 */
static void test_broken(void **state)
{
	const char *seen = temp_file("", 0);
	g_autofree char *settings = g_strdup_printf("FPH_TEST_SEEN='%s' ", seen);
	struct vm_config cfg = tiny_guest;
	struct vm_fph f = { 0 };
	struct vm *vm;

	cfg.memory = RAM;
	cfg.fph_mode = NULL;
	cfg.qemu = preloaded_qemu("FPH_TEST_BROKEN_MEMORY", settings);
	vm = start(cfg);
	ok(vm_stop(vm, E));
	give_zeroes(vm);
	ok(vm_run(vm, E, "object-add", "{\"qom-type\":\"fph-source\",\"id\":\"fph0\","
		  "\"mode\":\"pagemap\",\"prescan\":true,\"prescan-cpu\":100}"));
	wait_for_zero(vm, &f, 5000, 2);
	check_int(file_size(seen), 1);
	/* That page is not zero, whatever it is */
	check(number(prescan(&f), "zero") < (RAM - FIRST) / PAGE);
	ok(vm_run(vm, E, "object-del", "{\"id\":\"fph0\"}"));
	until (!has_thread(vm))
		;
	vm_fph_clear(&f);
	vm_free(vm);
}

/*
 * In the kernel a thread has locks that the monitor and vCPUs wait for. Where all
 * processors are busy, one of the lowest priority would have them for seconds.
 */
static void test_kernel(void **state)
{
	struct vm_config cfg = tiny_guest;
	struct vm_fph f = { 0 };
	const char *seen;
	struct vm *vm;

	cfg.memory = RAM;
	cfg.fph_mode = "pagemap,prescan=on,prescan-cpu=100";
	cfg.bios = patch_firsttouch(HUGE, 1);
	patch_word(cfg.bios, FT_SET_BASE, FIRST);
	cfg.qemu = faulty_qemu("nice 0 1 1", &seen);
	vm = start(cfg);
	give_zeroes(vm);
	wait_for_zero(vm, &f, 5000, 2);
	check(has_thread(vm));
	check_int(file_size(seen), 0);
	vm_fph_clear(&f);
	vm_free(vm);
}

static const struct fph_test_single singles[] = {
	{ "prescan-kernel", test_kernel },
	{ "prescan-broken", test_broken },
	{ "prescan-life", test_life },
	{ "prescan-loadvm", test_loadvm },
	{ "prescan-linux", test_linux },
	{ "prescan-device", test_device },
	{ "prescan-incoming", test_incoming },
	{ "prescan-shared", test_shared },
	{ "prescan-accel", test_accel },
	{ "kvm-prescan-nested", test_nested },
};

int main(int argc, char **argv)
{
	struct fph_tests t = { 0 };

	fph_test_add_rows(&t, rows, test_prescan);
	fph_test_add_rows(&t, replaced, test_replaced);
	fph_test_add_singles(&t, singles);
	return harness_main(argc, argv, &t, NULL);
}

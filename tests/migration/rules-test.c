/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Rules whose breach leaves no trace in the guest's memory on the machines that
 * tests run on (docs/soundness.md has all rules): the order of arming and
 * asking, and what a migration costs both hosts.
 *
 * One case per process: rules-test NAME.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "harness.h"

/*
 * A page that the guest calls free must be armed before the guest is asked
 * (R1). Only KVM's log loses a write if it is not (tests/device has that); here
 * QEMU's trace has to tell, for every kind of guest and machine.
 */
struct order {
	const char *name;
	const char *mode;
	const char *const *devices;
	const char *append;
};

static const struct order orders[] = {
	{ "order-pv", "pv", fph_device, FPH_APPEND },
	{ "order-both", "both", fph_device, FPH_APPEND },
	{ "order-pv-balloon", "pv", balloon_device, BALLOON_APPEND },
	/* What QEMU asks by itself */
	{ "order-hints", NULL, balloon_device, BALLOON_APPEND },
};

#define ARM	"migration_bitmap_clear_dirty "
#define ASK	"fph_hints_ask "
/* ... which reaches the guest so; in later rounds it may look because of the stop before */
#define LOOK	"virtio_balloon_get_config "
#define SYNC	"migration_bitmap_sync_start "
#define RAM	"rb pc.ram "

/*
 * All is armed by then, the firmware's memory as well: under the BQL nobody should
 * have to wait for the bitmap mutex to do it.
 */
static void check_order(const char *trace, bool own)
{
	unsigned int asked = 0, armed = 0, rounds = 0, size = 512 * MIB >> 24;
	g_auto(GStrv) lines = g_strsplit(trace, "\n", -1);
	bool open = false;

	for (char **l = lines; *l; l++) {
		if (strstr(*l, SYNC)) {
			rounds++;
			armed = 0;
			open = false;
		} else if (own ? strstr(*l, LOOK) && rounds == 1 && !open : !!strstr(*l, ASK)) {
			if (armed != size)
				fail_msg("asked in round %u, when %u of %u chunks were armed",
					 rounds, armed, size);
			asked++;
			open = true;
		} else if (strstr(*l, ARM)) {
			armed += !!strstr(*l, RAM);
			if (open)
				fail_msg("armed in round %u, after the guest was asked: %s",
					 rounds, *l);
		}
	}
	print_message("%u rounds, asked %u times\n", rounds, asked);
	check(asked >= (own ? 1 : 2));
}

static void test_order(void **state)
{
	const struct order *o = *state;
	struct vm_migrate_opts opts = { .max_bandwidth = 60 * MIB, .downtime_limit_ms = 1 };
	const char *log = temp_file("", 0);
	g_autoptr(GPtrArray) extra = g_ptr_array_new();
	const char *const more[] = {
		/* Chunks of 16 MiB */
		"-global", "migration.x-clear-bitmap-shift=12", "-D", log,
		"-trace", "migration_bitmap_clear_dirty", "-trace", "fph_hints_ask",
		"-trace", "migration_bitmap_sync_start", "-trace", "virtio_balloon_get_config",
		NULL,
	};
	struct vm_config cfg = linux_guest;
	struct vm_migration m = { 0 };
	g_autofree char *trace = NULL;
	struct vm *src, *dst;

	for (size_t i = 0; o->devices[i]; i++)
		g_ptr_array_add(extra, (char *)o->devices[i]);
	for (size_t i = 0; i < ARRAY_SIZE(more); i++)
		g_ptr_array_add(extra, (char *)more[i]);
	cfg.fph_mode = o->mode;
	cfg.extra = (const char *const *)extra->pdata;
	cfg.append = o->append;
	src = start(cfg);
	cfg.extra = o->devices;
	dst = start_destination(cfg);
	boot(src);
	guest(src, "fill 16M", "ok fill");
	guest(src, "rewrite 40000", "ok rewrite");
	ok(vm_migrate_start(src, dst, &opts, &m, E));
	until (m.sync_count >= 3)
		ok(vm_migrate_poll(src, &m, E));
	ok(vm_migrate_cancel(src, 20000, E));
	if (o->mode)
		check_str(m.fph.hints.state, "answered");
	vm_free(src);
	vm_free(dst);
	ok(g_file_get_contents(log, &trace, NULL, E));
	check_order(trace, !o->mode);
	vm_migration_clear(&m);
}

/*
 * Neither side gets memory for a page that was left out (R10). The guest is
 * paused, and pages are small, so each page that was sent accounts for 4 KiB
 * at most; what QEMU needs for itself is the same with and without us.
 */
struct growth {
	const char *name;
	const char *ram;
};

static const struct growth growths[] = {
	{ "growth-anon", VM_RAM_ANON },
	{ "growth-memfd", VM_RAM_MEMFD },
};

/* KiB; buffers, stacks of threads, bitmaps */
#define OF_QEMU	(8 * 1024)

static int64_t grown(const struct vm_usage *before, const struct vm_usage *after)
{
	return (int64_t)after->rss_kib - (int64_t)before->rss_kib;
}

static void measure(const struct growth *g, bool fph, struct vm_migration *m)
{
	struct vm_config cfg = tiny_guest;
	struct vm *src, *dst;

	cfg.memory = 512 * MIB;
	cfg.ram = g->ram;
	cfg.bios = patch_firsttouch(20000, 0);
	patch_word(cfg.bios, FT_SET_END, 64 * MIB);
	cfg.fph_mode = fph ? "pagemap" : NULL;
	src = start(cfg);
	dst = start_destination(cfg);
	ft_wait_for(src, 12500);
	ok(vm_stop(src, E));
	migrate(src, dst, NULL, m);
	vm_free(src);
	vm_free(dst);
	print_message("%s: source grew by %" PRId64 " KiB, destination by %" PRId64 " KiB\n",
		      fph ? "pagemap" : "none", grown(&m->src_before, &m->src_after),
		      grown(&m->dst_before, &m->dst_after));
}

static void test_growth(void **state)
{
	const struct growth *g = *state;
	struct vm_migration m = { 0 }, none = { 0 };
	int64_t sent, zero, skipped;

	check_int(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), 0);
	measure(g, true, &m);
	sent = (m.normal + m.duplicate) * PAGE / 1024;
	zero = m.duplicate * PAGE / 1024;
	skipped = m.fph.skipped * PAGE / 1024;
	check(skipped > 400 * 1024);
	/* Each page with content is there; zero pages may be read */
	check(grown(&m.src_before, &m.src_after) < zero + OF_QEMU);
	check(grown(&m.dst_before, &m.dst_after) < sent + OF_QEMU);

	/* Or this would hold for anything */
	measure(g, false, &none);
	if (g->ram) {
		check(grown(&none.src_before, &none.src_after) > skipped * 9 / 10);
		check(grown(&none.dst_before, &none.dst_after) > skipped * 9 / 10);
	}
	/* ... and not more than QEMU needs by itself, where pages take none */
	check(grown(&m.src_before, &m.src_after) <
	      grown(&none.src_before, &none.src_after) + OF_QEMU);
	check(grown(&m.dst_before, &m.dst_after) <
	      grown(&none.dst_before, &none.dst_after) + OF_QEMU);
	vm_migration_clear(&m);
	vm_migration_clear(&none);
}

/*
 * QEMU's count of bitmap syncs, where it is in the process. There is no other way
 * to have a sync that nobody announces: this QEMU has none.
 */
static uint64_t sync_count_address(struct vm *vm)
{
	g_autofree char *exe = g_strdup_printf("/proc/%d/exe", (int)vm_pid(vm));
	g_autofree char *path = g_file_read_link(exe, NULL);
	g_autofree char *maps = g_strdup_printf("/proc/%d/maps", (int)vm_pid(vm));
	g_autofree char *command = NULL, *symbols = NULL, *text = NULL;
	const char *at;
	int status;

	check(path != NULL);
	command = g_strdup_printf("nm '%s'", path);
	if (!g_spawn_command_line_sync(command, &symbols, NULL, &status, NULL) || status)
		fph_test_skip_all("nm (binutils) does not read %s", path);
	at = strstr(symbols, " B mig_stats\n");
	if (!at || at - symbols < 16)
		fph_test_skip_all("%s has no symbols", path);
	ok(g_file_get_contents(maps, &text, NULL, E));
	/* It is loaded as a whole, wherever; dirty_sync_count is the third of the numbers */
	return strtoull(text, NULL, 16) + strtoull(at - 16, NULL, 16) + 2 * sizeof(uint64_t);
}

static void count_a_sync(struct vm *vm, uint64_t expected)
{
	g_autofree char *path = g_strdup_printf("/proc/%d/mem", (int)vm_pid(vm));
	uint64_t address = sync_count_address(vm), n;
	int fd = open(path, O_RDWR | O_CLOEXEC);

	check(fd >= 0);
	check_int(pread(fd, &n, sizeof(n), address), sizeof(n));
	if (n != expected)
		fph_test_skip_all("this QEMU counts syncs elsewhere");
	n++;
	check_int(pwrite(fd, &n, sizeof(n), address), sizeof(n));
	close(fd);
}

/*
 * A bitmap sync that no notifier announces, as a later QEMU may have: what was
 * observed before it is not left out (R2). The answer waits to be used when it comes.
 */
static void test_unannounced(void **state)
{
	struct vm_migrate_opts opts = { .max_bandwidth = MIB, .timeout_ms = MIGRATE_MS };
	struct vm_config cfg = linux_guest;
	struct vm_migration m = { 0 };
	struct vm *src, *dst;

	cfg.fph_mode = "pv,pv-wait=0,x-pv-delay=4000";
	cfg.extra = fph_device;
	cfg.append = FPH_APPEND;
	src = start(cfg);
	dst = start_destination(cfg);
	boot(src);
	guest(src, "fill 160M dense", "ok fill");
	guest(src, "free", "ok free");
	ok(vm_migrate_start(src, dst, &opts, &m, E));
	/* The answer may come during setup, of which query-migrate says nothing */
	until (m.fph.hints.free > 10000 && m.sync_count)
		ok(vm_migrate_poll(src, &m, E));
	check_int(m.fph.skipped, 0);
	check_int(m.sync_count, 1);
	count_a_sync(src, m.sync_count);
	until (strcmp(m.fph.hints.state, "requested"))
		ok(vm_migrate_poll(src, &m, E));
	print_message("hints: %s\n", m.fph.hints.state);
	check_int(m.fph.skipped, 0);
	let_go(src);
	ok(vm_migrate_wait(src, dst, &opts, &m, E));
	print_migration(&m);
	check_int(m.fph.skipped + m.fph.resent, 0);
	check(json_object_get_int_member(fph_object(&m.fph), "unannounced") > 0);
	check_ram_equal(src, dst);

	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

static const struct fph_test_single singles[] = {
	{ "sync-unannounced", test_unannounced },
};

static bool asks_host(const char *name)
{
	return !g_str_has_prefix(name, "order-pv") && strcmp(name, "order-hints") &&
	       strcmp(name, "sync-unannounced");
}

int main(int argc, char **argv)
{
	struct fph_tests t = { 0 };

	fph_test_add_rows(&t, orders, test_order);
	fph_test_add_rows(&t, growths, test_growth);
	fph_test_add_singles(&t, singles);
	return harness_main(argc, argv, &t, asks_host);
}

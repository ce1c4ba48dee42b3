/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Rules whose breach leaves no trace in the guest's memory on the machines that
 * tests run on (docs/soundness.md has all rules): the order of arming and
 * asking, and what a migration costs both hosts.
 *
 * One case per process: rules-test NAME.
 */
#include <inttypes.h>
#include <sys/prctl.h>

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
};

#define ARM	"migration_bitmap_clear_dirty "
#define ASK	"fph_hints_ask "
#define SYNC	"migration_bitmap_sync_start "
#define RAM	"rb pc.ram "

static void check_order(const char *trace)
{
	unsigned int asked = 0, armed = 0, rounds = 0, size = 512 * MIB >> 24;
	g_auto(GStrv) lines = g_strsplit(trace, "\n", -1);
	bool open = false;

	for (char **l = lines; *l; l++) {
		if (strstr(*l, SYNC)) {
			rounds++;
			armed = 0;
			open = false;
		} else if (strstr(*l, ASK)) {
			if (armed != size)
				fail_msg("asked in round %u, when %u of %u chunks were armed",
					 rounds, armed, size);
			asked++;
			open = true;
		} else if (strstr(*l, ARM) && strstr(*l, RAM)) {
			armed++;
			if (open)
				fail_msg("armed in round %u, after the guest was asked: %s",
					 rounds, *l);
		}
	}
	print_message("%u rounds, asked %u times\n", rounds, asked);
	check(asked >= 2);
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
		"-trace", "migration_bitmap_sync_start", NULL,
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
	check_str(m.fph.hints.state, "answered");
	vm_free(src);
	vm_free(dst);
	ok(g_file_get_contents(log, &trace, NULL, E));
	check_order(trace);
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

static bool asks_host(const char *name)
{
	return !g_str_has_prefix(name, "order-pv");
}

int main(int argc, char **argv)
{
	struct fph_tests t = { 0 };

	fph_test_add_rows(&t, orders, test_order);
	fph_test_add_rows(&t, growths, test_growth);
	return harness_main(argc, argv, &t, asks_host);
}

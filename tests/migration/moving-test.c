/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Migrations of VMs whose memory the kernel moves meanwhile: all of it arrives.
 *
 * FPH_MOVING_MIGRATIONS: how many of them each case makes, one if it is not set.
 */
#include <inttypes.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "harness.h"
#include "vmstat.h"

#define FT_DELAY	100000
#define FT_BEFORE	2000

struct moving {
	const char *name;
	const char *ram;
	bool linux_inside;
	bool (*move)(pid_t pid, unsigned int step);	/* memory of that process */
	const char *counter;	/* of /proc/vmstat, beside that of pages moved */
};

/* What moves memory of both sides, and how often it did */
struct mover {
	const struct moving *how;
	pid_t pids[2];
	gint stop;
	gint steps;
	GThread *thread;
};

static bool compact(pid_t pid, unsigned int step)
{
	return compact_memory();
}

static bool to_other_node(pid_t pid, unsigned int step)
{
	unsigned long from = step % 2 ? 1 : 2, to = 3 ^ from;

	return syscall(SYS_migrate_pages, pid, 8 * sizeof(from), &from, &to) >= 0;
}

static const struct moving rows[] = {
	{ "compaction-memfd", VM_RAM_MEMFD, true, compact, "compact_migrate_scanned" },
	{ "nodes-anon", VM_RAM_ANON, false, to_other_node, "pgmigrate_success" },
	{ "nodes-memfd", VM_RAM_MEMFD, false, to_other_node, "pgmigrate_success" },
};

static gpointer move(gpointer opaque)
{
	struct mover *mover = opaque;

	for (unsigned int step = 0; !g_atomic_int_get(&mover->stop); step++) {
		gint64 start = g_get_monotonic_time();
		bool done = true;

		for (size_t i = 0; i < ARRAY_SIZE(mover->pids); i++)
			done &= mover->how->move(mover->pids[i], step);
		if (done)
			g_atomic_int_inc(&mover->steps);
		/* Memory on the move is of no use to anybody meanwhile */
		g_usleep(g_get_monotonic_time() - start);
	}
	return NULL;
}

static void wait_for_step(struct mover *mover)
{
	gint before = g_atomic_int_get(&mover->steps);

	for (int i = 0; i < MIGRATE_MS / 5 && g_atomic_int_get(&mover->steps) == before; i++)
		g_usleep(5000);
	check(g_atomic_int_get(&mover->steps) > before);
}

static void need_mover(const struct moving *how)
{
	if (geteuid() != 0)
		fph_test_skip_all("to move memory of others takes root");
	if (how->move == to_other_node && access("/sys/devices/system/node/node1", F_OK) < 0)
		fph_test_skip_all("one node has all memory");
}

static void migrate_once(const struct moving *how)
{
	struct vm_config cfg = how->linux_inside ? linux_guest : tiny_guest;
	struct vm_migrate_opts opts = { .max_bandwidth = 100 * MIB, .downtime_limit_ms = 2000 };
	struct mover mover = { .how = how };
	struct vm_migration m = { 0 };
	uint64_t moved, counted;
	struct vm *src, *dst;

	cfg.ram = how->ram;
	if (!how->linux_inside) {
		cfg.memory = 64 * MIB;
		cfg.bios = patch_firsttouch(FT_DELAY, 1);
		/* Or one touch would populate 2 MiB */
		check_int(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), 0);
	}
	src = start(cfg);
	dst = start_destination(cfg);
	if (how->linux_inside) {
		boot(src);
		guest(src, "fill 16M", "ok fill");
		guest(src, "touch 2000 192M", "ok touch");
		guest(src, "rewrite 2000", "ok rewrite");
	} else {
		ft_wait_for(src, FT_BEFORE);
	}

	moved = vmstat("pgmigrate_success");
	counted = vmstat(how->counter);
	mover.pids[0] = vm_pid(src);
	mover.pids[1] = vm_pid(dst);
	mover.thread = g_thread_new("mover", move, &mover);
	wait_for_step(&mover);
	migrate(src, dst, &opts, &m);
	wait_for_step(&mover);
	g_atomic_int_set(&mover.stop, 1);
	g_thread_join(mover.thread);
	moved = vmstat("pgmigrate_success") - moved;
	print_message("%" PRIu64 " pages were moved in %d steps\n", moved, mover.steps);

	check_str(m.fph.state, "ended");
	check(m.fph.skipped > 0);
	check(moved > 0);
	check(vmstat(how->counter) > counted);
	check_ram_equal(src, dst);
	if (how->linux_inside) {
		ok(vm_cont(dst, E));
		guest_check(dst);
	}
	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

static void test_moving(void **state)
{
	const char *s = g_getenv("FPH_MOVING_MIGRATIONS");
	int n = s ? atoi(s) : 1;

	need_mover(*state);
	for (int i = 0; i < n; i++)
		migrate_once(*state);
}

int main(int argc, char **argv)
{
	struct fph_tests t = { 0 };

	fph_test_add_rows(&t, rows, test_moving);
	return harness_main(argc, argv, &t, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The destination is a QEMU as Debian ships it, of this series and of the newest:
 * live, and from a file. It has what was left out as zero, and nothing else differs.
 *
 * One case per process: stock-test NAME.
 */
#include <sys/prctl.h>
#include <unistd.h>

#include "harness.h"

struct stock {
	const char *name;
	const char *suite;	/* Debian's; see tests/guest/stock-qemu */
	const char *mode;
	const char *ram;
	bool file;
	unsigned int multifd;
	bool linux_guest;	/* with mode=both it is one anyway */
};

static const struct stock stocks[] = {
	{ "stock-trixie-pagemap", "trixie", "pagemap", VM_RAM_MEMFD, false, 2 },
	{ "stock-trixie-both", "trixie", "both", VM_RAM_ANON, false, 0 },
	{ "stock-trixie-file", "trixie", "pagemap", VM_RAM_MEMFD, true, 0 },
	{ "stock-trixie-file-both", "trixie", "both", VM_RAM_ANON, true, 2 },
	{ "stock-sid-pagemap", "sid", "pagemap", VM_RAM_MEMFD, false, 2 },
	/* With a balloon whose guest drives it, 11.1 refuses what a stock 10.0 sends, too */
	{ "stock-sid-linux", "sid", "pagemap", VM_RAM_ANON, false, 0, true },
	{ "stock-sid-file", "sid", "pagemap", VM_RAM_MEMFD, true, 0 },
	{ "stock-sid-file-linux", "sid", "pagemap", VM_RAM_ANON, true, 2, true },
};

static char *stock_qemu(const char *suite)
{
	g_autofree char *cache = vm_cache_dir();
	g_autofree char *path = g_build_filename(cache, "stock", suite, "qemu-system-x86_64", NULL);

	if (access(path, X_OK) < 0)
		fph_test_skip_all("no QEMU of Debian %s; tests/guest/stock-qemu %s fetches it", suite,
				  suite);
	return g_steal_pointer(&path);
}

static void test_stock(void **state)
{
	const struct stock *s = *state;
	bool both = !strcmp(s->mode, "both");
	struct vm_config cfg = busy_config(s->mode, s->ram);
	struct vm_migrate_opts opts = {
		.downtime_limit_ms = 2000, .multifd = s->multifd, .timeout_ms = MIGRATE_MS,
		.file = s->file ? temp_file("", 0) : NULL,
	};
	g_autofree char *stock = stock_qemu(s->suite);
	struct vm_migration m = { 0 };
	struct vm *src, *dst;

	check_int(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), 0);
	if (s->linux_guest) {
		cfg = linux_guest;
		cfg.fph_mode = s->mode;
		cfg.ram = s->ram;
		cfg.append = VM_APPEND;
	}
	/* A machine and devices that all of them have */
	cfg.machine = "pc-i440fx-10.0";
	if (both) {
		cfg.extra = balloon_device;
		cfg.append = BALLOON_APPEND;
	}
	src = start_busy(&cfg);
	cfg.qemu = stock;
	dst = start_destination(cfg);
	migrate(src, dst, &opts, &m);
	check_str(m.fph.state, "ended");
	check(m.fph.skipped > 1000);
	check_int(m.fph.hints.present, both);
	check_arrived(src, dst, &cfg, &m);
	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

int main(int argc, char **argv)
{
	struct fph_tests t = { 0 };

	fph_test_add_rows(&t, stocks, test_stock);
	return harness_main(argc, argv, &t, NULL);
}

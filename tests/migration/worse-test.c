/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Nobody is worse off for fph-source (R10), where it is not as easy as with an
 * idle guest and a quiet machine: hosts that are short of memory, memory in
 * pieces, much downtime, and kernel calls that hang.
 *
 * One case per process: worse-test NAME.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness.h"
#include "qmp.h"

/*
 * A memory cgroup around QEMU: what it may have is more than the guest uses, and
 * less than the guest's size.
 */
#define CGROUP_LIMIT	"419430400"	/* 400 MiB */

static char *cgroup;

static void remove_cgroup(void)
{
	vm_free_all();
	/* A process is out of it a moment after it has ended */
	for (int i = 0; rmdir(cgroup) < 0 && errno == EBUSY && i < 1000; i++)
		g_usleep(5000);
}

static bool set_in_cgroup(const char *name, const char *value)
{
	g_autofree char *path = g_build_filename(cgroup, name, NULL);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool done = fd >= 0 && write(fd, value, strlen(value)) > 0;

	if (fd >= 0)
		close(fd);
	return done;
}

/* Where the controller of memory has this process; version 1 or 2 */
static char *own_cgroup(void)
{
	g_autofree char *text = NULL;
	g_auto(GStrv) lines = NULL;

	ok(g_file_get_contents("/proc/self/cgroup", &text, NULL, E));
	lines = g_strsplit(text, "\n", -1);
	for (char **l = lines; *l; l++) {
		const char *path = strstr(*l, ":memory:");

		if (path)
			return g_strconcat("/sys/fs/cgroup/memory", path + strlen(":memory:"), NULL);
	}
	for (char **l = lines; *l; l++)
		if (g_str_has_prefix(*l, "0::"))
			return g_strconcat("/sys/fs/cgroup", *l + strlen("0::"), NULL);
	fph_test_skip_all("this process is in no cgroup");
}

static void need_cgroup(void)
{
	g_autofree char *own = own_cgroup();

	cgroup = g_strdup_printf("%s/fph-test-%d", own, (int)getpid());
	if (mkdir(cgroup, 0700) < 0)
		fph_test_skip_all("%s: %s", cgroup, strerror(errno));
	atexit(remove_cgroup);
	if (!set_in_cgroup("memory.max", CGROUP_LIMIT) &&
	    !set_in_cgroup("memory.limit_in_bytes", CGROUP_LIMIT))
		fph_test_skip_all("no limit of memory can be set in %s", cgroup);
	set_in_cgroup("memory.swap.max", "0");
	set_in_cgroup("memory.memsw.limit_in_bytes", CGROUP_LIMIT);
}

static const char *qemu_in_cgroup(void)
{
	g_autofree char *text = g_strdup_printf("#!/bin/sh\necho $$ > '%s/cgroup.procs' || exit 1\n"
						"exec '%s' \"$@\"\n", cgroup, qemu);
	const char *script = temp_file(text, -1);

	check_int(chmod(script, 0700), 0);
	return script;
}

static struct vm *start_in_cgroup(struct vm_config *cfg, const char *mode)
{
	struct vm *src;

	cfg->fph_mode = mode;
	cfg->qemu = qemu_in_cgroup();
	src = start(*cfg);
	cfg->qemu = NULL;
	ft_wait_for(src, 12000);
	ok(vm_stop(src, E));
	return src;
}

/* A guest of shared memory that QEMU alone cannot migrate: to read a hole gives it memory */
static void test_cgroup(void **state)
{
	struct vm_migrate_opts opts = { .timeout_ms = MIGRATE_MS };
	struct vm_config cfg = tiny_guest;
	struct vm_migration m = { 0 };
	GError *error = NULL;
	struct vm *src, *dst;

	need_cgroup();
	cfg.memory = 1024 * MIB;
	cfg.ram = VM_RAM_MEMFD;
	cfg.bios = patch_firsttouch(20000, 0);
	patch_word(cfg.bios, FT_SET_END, 64 * MIB);

	src = start_in_cgroup(&cfg, NULL);
	dst = start_destination(cfg);
	ok(vm_migrate_start(src, dst, &opts, &m, E));
	check(!vm_migrate_wait(src, dst, &opts, &m, &error));
	print_message("without: %s\n", error->message);
	check(strstr(error->message, "signal 9") != NULL);
	g_error_free(error);
	vm_free(src);
	vm_free(dst);

	src = start_in_cgroup(&cfg, "pagemap");
	dst = start_destination(cfg);
	migrate(src, dst, NULL, &m);
	check_int(m.fph.chunks_not_scanned, 0);
	print_message("with: %" PRIu64 " KiB before, %" PRIu64 " after\n",
		      m.src_before.rss_kib, m.src_after.rss_kib);
	/* What is there is the guest's, and what it wrote last is what came */
	ok(vm_cont(dst, E));
	ft_wait_for(dst, ft_state(src, FT_ST_COUNT) + 12000);
	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

/*
 * Memory that is left out is memory that the destination still owes its guest.
 * With huge pages it cannot overdraw unless it is told to.
 */
static void test_hugetlb(void **state)
{
	static const char ram[] = "memory-backend-memfd,share=on,hugetlb=on,hugetlbsize=2M";
	static const char pages[] = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
	static const char more_pages[] = "/proc/sys/vm/nr_overcommit_hugepages";
	g_autofree char *text = NULL, *more = NULL, *unreserved = g_strconcat(ram, ",reserve=off", NULL);
	struct vm_config cfg = tiny_guest;
	GError *error = NULL;
	struct vm *vm;

	if (!g_file_get_contents(pages, &text, NULL, NULL))
		fph_test_skip_all("no huge pages of 2 MiB");
	if (g_file_get_contents(more_pages, &more, NULL, NULL) && atol(more))
		fph_test_skip_all("this host makes huge pages as they are asked for");
	cfg.qemu = qemu;
	cfg.bios = firsttouch;
	cfg.name = "destination";
	cfg.fph_mode = NULL;
	cfg.incoming = true;
	cfg.paused = true;
	cfg.memory = MAX(64, atol(text) + 1) * 2 * MIB;
	cfg.ram = ram;
	vm = vm_start(&cfg, &error);
	check(!vm);
	print_message("%s\n", error->message);
	check(strstr(error->message, "Cannot allocate memory") != NULL);
	g_error_free(error);

	/* Or it was something else that it did not like */
	cfg.ram = unreserved;
	vm_free(start(cfg));
}

/*
 * A kernel call of one of our threads hangs. It is not made under the BQL, and
 * nobody waits for it there: QEMU answers whatever it is told to do meanwhile,
 * with what it has to say to it. A command that waits gets no answer at all.
 */
static void answers(struct vm *vm, const char *command, const char *arguments)
{
	GError *error = NULL;

	if (vm_run(vm, &error, command, arguments ? "%s" : NULL, arguments)) {
		print_message("%s: done\n", command);
		return;
	}
	print_message("%s: %s\n", command, error->message);
	if (!g_error_matches(error, QMP_ERROR, QMP_ERROR_COMMAND))
		fail_msg("%s %s: %s", command, arguments ? arguments : "", error->message);
	g_error_free(error);
}

struct held {
	const char *name;
	const char *mode;
	unsigned long number;		/* of the call */
	bool before;			/* it is made before a migration */
};

static const struct held helds[] = {
	{ "held-commands-scan", "pagemap,pv-wait=60000", 3, false },
	{ "held-commands-hints", "both,pv-wait=60000", 3, false },
	/* By then its thread is at work */
	{ "held-commands-prescan", "pagemap,prescan=on,prescan-cpu=100", 40, true },
};

static void wait_for_hang(const char *seen)
{
	until (file_size(seen) > 0)
		;
}

/*
 * To let go of userfaultfd takes its time, and goes on when the object has gone. A
 * background snapshot is possible all the same, and waits for that when it begins.
 */
struct let_go {
	const char *name;
	const char *mode;
	bool migrates;			/* or there is nothing to let go of */
};

static const struct let_go let_gos[] = {
	{ "snapshot-after-prescan", "pagemap,prescan=on,prescan-cpu=100", false },
	{ "snapshot-after-verify", "both,verify=report", true },
};

static void test_let_go(void **state)
{
	const struct let_go *l = *state;
	struct vm_migrate_opts opts = { .max_bandwidth = MIB };
	struct vm_config cfg = l->migrates ? linux_guest : tiny_guest;
	const char *file = temp_file("", 0), *log = temp_file("", 0), *seen;
	const char *const extra[] = {
		"-D", log, "-trace", "ram_watch_userfaultfd_wanted",
		l->migrates ? fph_device[0] : NULL, l->migrates ? fph_device[1] : NULL, NULL,
	};
	struct vm_migration m = { 0 };
	struct vm *src, *dst;

	cfg.qemu = faulty_qemu("unregister 0 1 1", &seen);
	cfg.fph_mode = l->mode;
	cfg.extra = extra;
	if (l->migrates)
		cfg.append = FPH_APPEND;
	src = start(cfg);
	if (l->migrates) {
		cfg.qemu = NULL;
		cfg.extra = fph_device;
		dst = start_destination(cfg);
		boot(src);
		ok(vm_migrate_start(src, dst, &opts, &m, E));
		until (is_registered(src))
			ok(vm_migrate_poll(src, &m, E));
		ok(vm_migrate_cancel(src, MIGRATE_MS, E));
		vm_free(dst);
		wait_for_hang(seen);
		delete_object(src, "fph0");
	} else {
		until (is_registered(src))
			;
		delete_object(src, "fph0");
		wait_for_hang(seen);
	}
	check(is_registered(src));
	set_capability(src, "background-snapshot", true);
	ok(vm_run(src, E, "migrate", "{\"uri\":\"file:%s\"}", file));
	/* It waits, and nobody else does: not who asks QEMU, and not the guest */
	until (file_size(log) > 0)
		;
	check(is_running(src));
	if (l->migrates)
		guest(src, "fill 4M", "ok fill");
	else
		ft_wait_for(src, ft_state(src, FT_ST_COUNT) + 100);
	check(is_running(src));
	check_int(unlink(seen), 0);
	vm_migration_clear(&m);
	wait_for_status(src, "completed", &m);
	check(is_running(src));
	check_int(truncate(file, 0), 0);
	vm_migration_clear(&m);
	vm_free(src);
}

static void test_held(void **state)
{
	static const char snapshot[] = "{\"capabilities\":[{\"capability\":\"background-snapshot\","
				       "\"state\":%s}]}";
	const struct held *h = *state;
	g_autofree char *fault = g_strdup_printf("ioctl 0 %lu 1", h->number);
	g_autofree char *on = g_strdup_printf(snapshot, "true");
	g_autofree char *off = g_strdup_printf(snapshot, "false");
	g_autofree char *file = g_strdup_printf("{\"uri\":\"file:%s\"}", temp_file("", 0));
	struct vm_config cfg = tiny_guest;
	struct vm_migration m = { 0 };
	struct vm_fph fph = { 0 };
	struct vm *src, *dst;
	const char *seen;

	cfg.qemu = faulty_qemu(fault, &seen);
	cfg.fph_mode = h->mode;
	if (g_str_has_prefix(h->mode, "both"))
		cfg.extra = fph_device;
	src = start(cfg);
	cfg.qemu = NULL;
	dst = start_destination(cfg);
	ft_wait_for(src, 100);

	if (h->before) {
		wait_for_hang(seen);
		answers(src, "migrate-set-capabilities", on);
		answers(src, "migrate-set-capabilities", off);
		answers(src, "device_add", "{\"driver\":\"virtio-balloon-pci\",\"id\":\"b0\"}");
		answers(src, "device_del", "{\"id\":\"b0\"}");
	}
	ok(vm_migrate_start(src, dst, NULL, &m, E));
	if (!h->before)
		wait_for_hang(seen);
	ok(vm_migrate_poll(src, &m, E));
	answers(src, "migrate", file);
	answers(src, "migrate-set-capabilities", on);
	/* QEMU refuses that, and then waits for all who read guest memory under RCU */
	if (!h->before)
		answers(src, "device_add", "{\"driver\":\"virtio-balloon-pci\",\"id\":\"b1\"}");
	answers(src, "object-del", "{\"id\":\"fph0\"}");
	answers(src, "migrate_cancel", NULL);
	answers(src, "object-del", "{\"id\":\"fph0\"}");
	check(is_running(src));
	ft_wait_for(src, ft_state(src, FT_ST_COUNT) + 100);
	ok(vm_query_fph(src, &fph, E));
	check_int(file_size(seen), 1);

	check_int(unlink(seen), 0);
	until (!strcmp(m.status, "cancelled") || !strcmp(m.status, "failed"))
		ok(vm_migrate_poll(src, &m, E));
	vm_free(dst);
	ft_wait_for(src, ft_state(src, FT_ST_COUNT) + 100);
	vm_fph_clear(&fph);
	vm_migration_clear(&m);
	vm_free(src);
}

/*
 * However much downtime is allowed, and however little is left to send when the
 * migration begins: memory is looked at before it is read.
 */
struct longdown {
	const char *name;
	const char *ram;
	uint64_t memory;
	const char *const *extra;
	const char *fault;		/* of the kernel */
};

static const char *const small_chunks[] = {
	"-global", "migration.x-clear-bitmap-shift=12", NULL,
};

static const struct longdown longdowns[] = {
	{ "longdown-memfd", VM_RAM_MEMFD, 3072 * MIB, NULL },
	{ "longdown-memfd-small-chunks", VM_RAM_MEMFD, 512 * MIB, small_chunks },
	{ "longdown-anon-small-chunks", VM_RAM_ANON, 512 * MIB, small_chunks },
	/* The scan takes longer than it takes QEMU to see that it could stop the guest */
	{ "longdown-memfd-slow", VM_RAM_MEMFD, 512 * MIB, small_chunks, "lseek -20 1 1000000" },
};

/* KiB; buffers, stacks of threads, bitmaps */
#define OF_QEMU	(8 * 1024)
#define USED	(64 * MIB)

static int64_t grown(const struct vm_usage *before, const struct vm_usage *after)
{
	return (int64_t)after->rss_kib - (int64_t)before->rss_kib;
}

/* @source: by how many KiB it grew */
static void check_growth(const struct vm_migration *m, uint64_t used, int64_t source)
{
	int64_t most = used / 1024 / 20 + OF_QEMU;
	int64_t sent = (m->normal * PAGE) / 1024;

	print_message("source grew by %" PRId64 " KiB, destination by %" PRId64 " KiB for %"
		      PRId64 " KiB of content\n", source, grown(&m->dst_before, &m->dst_after),
		      sent);
	check(source <= most);
	check(grown(&m->dst_before, &m->dst_after) <= sent + most);
}

static void migrate_with_downtime(const struct longdown *l, unsigned int downtime_ms,
				  struct vm_migration *m)
{
	struct vm_migrate_opts opts = {
		.max_bandwidth = 100000000,
		.downtime_limit_ms = downtime_ms,
	};
	struct vm_config cfg = tiny_guest;
	struct vm *src, *dst;
	const char *seen;

	cfg.ram = l->ram;
	cfg.memory = l->memory;
	cfg.extra = l->extra;
	cfg.fph_mode = "pagemap,pv-wait=60000";
	cfg.bios = patch_firsttouch(20000, 0);
	patch_word(cfg.bios, FT_SET_END, USED);
	if (l->fault)
		cfg.qemu = faulty_qemu(l->fault, &seen);
	src = start(cfg);
	cfg.qemu = NULL;
	dst = start_destination(cfg);
	ft_wait_for(src, 12500);
	ok(vm_stop(src, E));
	migrate(src, dst, &opts, m);
	vm_free(src);
	vm_free(dst);
}

static void test_longdown(void **state)
{
	const struct longdown *l = *state;
	struct vm_migration usual = { 0 }, m = { 0 };

	/* Or one page would be 512 */
	check_int(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), 0);
	migrate_with_downtime(l, 300, &usual);
	migrate_with_downtime(l, 120000, &m);
	check(usual.fph.skipped > (l->memory - USED) / PAGE / 20 * 19);
	check(m.fph.skipped > usual.fph.skipped / 20 * 19);
	check_int(m.fph.chunks_not_scanned, 0);
	check_growth(&m, USED, grown(&m.src_before, &m.src_after));
	vm_migration_clear(&usual);
	vm_migration_clear(&m);
}

/* A hole of shared memory is never read, however short */
#define PIECES_START	(128 * MIB)
#define PIECES_END	(384 * MIB)

static void test_fragmented(void **state)
{
	uint64_t pieces = (PIECES_END - PIECES_START) / PAGE / 2;
	struct vm_config cfg = tiny_guest;
	struct vm_migration m = { 0 };
	struct vm *src, *dst;
	struct stat before, after;
	int memfd;

	cfg.ram = VM_RAM_MEMFD;
	cfg.memory = 512 * MIB;
	cfg.bios = patch_firsttouch(20000, 0);
	patch_word(cfg.bios, FT_SET_END, USED);
	src = start(cfg);
	dst = start_destination(cfg);
	ft_wait_for(src, 12500);
	ok(vm_stop(src, E));
	memfd = open_memfd(src);
	for (uint64_t at = PIECES_START; at < PIECES_END; at += 2 * PAGE)
		check_int(pwrite(memfd, "x", 1, at), 1);
	/* QEMU maps what it sends; it is the file that must not grow */
	check_int(fstat(memfd, &before), 0);
	migrate(src, dst, NULL, &m);
	check_int(fstat(memfd, &after), 0);
	close(memfd);
	check_int(m.fph.chunks_not_scanned, 0);
	check(m.normal >= pieces);
	check(m.fph.skipped > (cfg.memory - USED) / PAGE / 20 * 19 - pieces);
	check_growth(&m, USED + pieces * PAGE, (after.st_blocks - before.st_blocks) / 2);
	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

/*
 * The wait for the guest has an end, and so has what is done meanwhile: with a
 * kernel that takes its time for each look at memory, pages are sent before all
 * of it was looked at.
 */
static void test_gate(void **state)
{
	struct vm_migrate_opts opts = { .max_bandwidth = MIB, .timeout_ms = 2 * MIGRATE_MS };
	struct vm_config cfg = tiny_guest;
	struct vm_migration m = { 0 };
	g_autoptr(GPtrArray) extra = g_ptr_array_new();
	struct vm *src, *dst;
	const char *seen;

	for (size_t i = 0; fph_device[i]; i++)
		g_ptr_array_add(extra, (char *)fph_device[i]);
	for (size_t i = 0; small_chunks[i]; i++)
		g_ptr_array_add(extra, (char *)small_chunks[i]);
	g_ptr_array_add(extra, NULL);
	cfg.extra = (const char *const *)extra->pdata;
	cfg.fph_mode = "both,scanner=pagemap,pv-wait=500";
	/* A fifth of a second for each; there are some in each of 8 chunks */
	cfg.qemu = faulty_qemu("pread -200 1 1000", &seen);
	src = start(cfg);
	cfg.qemu = NULL;
	dst = start_destination(cfg);
	ft_wait_for(src, 100);
	ok(vm_migrate_start(src, dst, &opts, &m, E));
	until (m.normal + m.duplicate > 0)
		ok(vm_migrate_poll(src, &m, E));
	print_message("the first page after %" PRIu64 " chunks, and %" PRIu64 " us of waiting\n",
		      m.fph.chunks, m.fph.hints.wait_ns / 1000);
	check(file_size(seen) > 0);
	check(m.fph.chunks < cfg.memory / (16 * MIB));
	let_go(src);
	ok(vm_migrate_wait(src, dst, &opts, &m, E));
	check_ram_equal(src, dst);
	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

/*
 * All that is left fits into downtime-limit from the start, and is sent while the
 * guest runs all the same.
 */
static void test_downtime(void **state)
{
	struct vm_migrate_opts opts = {
		.max_bandwidth = 400 * MIB,
		.downtime_limit_ms = 120000,
		.timeout_ms = MIGRATE_MS,
	};
	struct vm_config cfg = linux_guest;
	struct vm_migration m = { 0 };
	struct vm *src, *dst;

	/* There is time for the rest: what QEMU would need to give memory to all of it */
	cfg.memory = 6144 * MIB;
	cfg.ram = VM_RAM_MEMFD;
	src = start(cfg);
	boot(src);
	guest(src, "fill 64M dense", "ok fill");
	dst = start_destination(cfg);
	migrate(src, dst, &opts, &m);
	print_message("%" PRIu64 " of %" PRIu64 " bytes were sent in the downtime\n",
		      m.downtime_bytes, m.bytes);
	check_str(m.fph.state, "ended");
	check(m.bytes > 64 * MIB);
	check(m.downtime_bytes < m.bytes / 8);
	check_ram_equal(src, dst);
	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

/* A migration that is through at once has a look at what was written meanwhile */
static void test_sync_before_end(void **state)
{
	struct vm_config cfg = tiny_guest;
	struct vm_migration m = { 0 };
	struct vm *src, *dst;

	src = start(cfg);
	dst = start_destination(cfg);
	ft_wait_for(src, 100);
	ok(vm_stop(src, E));
	migrate(src, dst, NULL, &m);
	/* In the beginning, after the first round, and with the guest stopped */
	check(m.sync_count >= 3);
	check_ram_equal(src, dst);
	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

static const struct fph_test_single singles[] = {
	{ "cgroup-memfd", test_cgroup },
	{ "downtime-memfd", test_downtime },
	{ "sync-before-end", test_sync_before_end },
	{ "fragmented-memfd", test_fragmented },
	{ "gate-deadline", test_gate },
	{ "hugetlb-refused", test_hugetlb },
};

static bool asks_host(const char *name)
{
	return strcmp(name, "hugetlb-refused");
}

int main(int argc, char **argv)
{
	struct fph_tests t = { 0 };

	fph_test_add_rows(&t, helds, test_held);
	fph_test_add_rows(&t, longdowns, test_longdown);
	fph_test_add_rows(&t, let_gos, test_let_go);
	fph_test_add_singles(&t, singles);
	return harness_main(argc, argv, &t, asks_host);
}

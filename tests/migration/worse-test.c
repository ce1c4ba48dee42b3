/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Nobody is worse off for fph-source (R10), where it is not as easy as with an
 * idle guest and a quiet machine: hosts that are short of memory.
 *
 * One case per process: worse-test NAME.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness.h"

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
	g_autofree char *text = NULL, *unreserved = g_strconcat(ram, ",reserve=off", NULL);
	struct vm_config cfg = tiny_guest;
	GError *error = NULL;
	struct vm *vm;

	if (!g_file_get_contents(pages, &text, NULL, NULL))
		fph_test_skip_all("no huge pages of 2 MiB");
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

static const struct fph_test_single singles[] = {
	{ "cgroup-memfd", test_cgroup },
	{ "hugetlb-refused", test_hugetlb },
};

static bool asks_host(const char *name)
{
	return strcmp(name, "hugetlb-refused");
}

int main(int argc, char **argv)
{
	struct fph_tests t = { 0 };

	fph_test_add_singles(&t, singles);
	return harness_main(argc, argv, &t, asks_host);
}

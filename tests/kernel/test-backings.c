/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Real mappings of each kind, and what is decided for them */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/filter.h>
#include <linux/magic.h>
#include <linux/seccomp.h>

#include "cachestat-abi.h"
#include "ktest.h"
#include "sys.h"

#ifndef MFD_HUGETLB
#define MFD_HUGETLB 4u
#endif

static int no_file(void)
{
	return -1;
}

static int memfd(void)
{
	return memfd_create("fph-test", MFD_CLOEXEC);
}

static int huge_memfd(void)
{
	int fd = memfd_create("fph-test", MFD_CLOEXEC | MFD_HUGETLB);

	if (fd < 0)
		fph_test_skip("hugetlb: %s", strerror(errno));
	return fd;
}

static int tmpfs_file(void)
{
	return open("/dev/shm", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
}

/* Somewhere that is not tmpfs */
static int disk_file(void)
{
	static const char *const dirs[] = { ".", "/var/tmp", "/tmp", "/" };
	struct statfs fs;

	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
		int fd = open(dirs[i], O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

		if (fd < 0)
			continue;
		if (fstatfs(fd, &fs) == 0 && fs.f_type != TMPFS_MAGIC)
			return fd;
		close(fd);
	}
	fph_test_skip("no writable file system but tmpfs");
	return -1;
}

static int device(void)
{
	int fd = open("/dev/zero", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		fph_test_skip("/dev/zero: %s", strerror(errno));
	return fd;
}

static int closed_fd(void)
{
	int fd = memfd();

	close(fd);
	return fd;
}

static const struct backing_row {
	const char *name;
	int (*open_fd)(void);
	bool shared;
	enum fph_backing backing;
	enum fph_method method;
} rows[] = {
	{ "anonymous, private", no_file, false, FPH_BACKING_ANON, FPH_METHOD_PAGEMAP_SCAN },
	{ "anonymous, shared", no_file, true, FPH_BACKING_ANON_SHARED, FPH_METHOD_NONE },
	{ "memfd, shared", memfd, true, FPH_BACKING_SHMEM, FPH_METHOD_SEEK },
	{ "memfd, private", memfd, false, FPH_BACKING_SHMEM_PRIVATE, FPH_METHOD_PAGEMAP_SCAN_SEEK },
	{ "tmpfs, shared", tmpfs_file, true, FPH_BACKING_SHMEM, FPH_METHOD_SEEK },
	{ "tmpfs, private", tmpfs_file, false, FPH_BACKING_SHMEM_PRIVATE, FPH_METHOD_PAGEMAP_SCAN_SEEK },
	{ "hugetlb, shared", huge_memfd, true, FPH_BACKING_HUGETLB, FPH_METHOD_NONE },
	{ "hugetlb, private", huge_memfd, false, FPH_BACKING_HUGETLB, FPH_METHOD_NONE },
	{ "file on disk, shared", disk_file, true, FPH_BACKING_FILE, FPH_METHOD_NONE },
	{ "file on disk, private", disk_file, false, FPH_BACKING_FILE, FPH_METHOD_NONE },
	{ "device, shared", device, true, FPH_BACKING_FILE, FPH_METHOD_NONE },
	{ "device, private", device, false, FPH_BACKING_FILE, FPH_METHOD_NONE },
	{ "closed descriptor", closed_fd, true, FPH_BACKING_UNKNOWN, FPH_METHOD_NONE },
};

static void check_backing(void **state)
{
	const struct backing_row *row = *state;
	struct fph_region r = {
		.sz = sizeof(r),
		.host = (void *)(uintptr_t)(64 * page),
		.used = HUGE,
		.max = HUGE,
		.page_size = page,
		.fd = row->open_fd(),
		.flags = row->shared ? FPH_REGION_SHARED : 0,
	};
	struct fph_verdict v;

	errno = 4321;
	check_int(fph_region_classify(scanner, &r, &v), 0);
	check_int(errno, 4321);
	check_int(v.backing, row->backing);
	check_int(v.method, row->method);
	check_int(v.why != NULL, v.method == FPH_METHOD_NONE);
	if (v.why)
		print_message("reason: %s\n", v.why);
	if (r.fd >= 0 && row->open_fd != closed_fd)
		close(r.fd);
}

enum { SCANNED, REFUSED, OTHER };

/* As a user who may only read the file, and has opened it so */
static int look_as_reader(int fd)
{
	struct fph_region r = {
		.sz = sizeof(r), .host = (void *)(uintptr_t)(64 * page), .used = HUGE,
		.max = HUGE, .page_size = page, .flags = FPH_REGION_SHARED,
	};
	struct fph_scanner *s;
	struct fph_verdict v;
	char path[64];

	if (fph_scanner_open(&s) < 0 || setgroups(0, NULL) < 0 || setresgid(65534, 65534, 65534) < 0 ||
	    setresuid(65534, 65534, 65534) < 0)
		return OTHER;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	r.fd = open(path, O_RDONLY | O_CLOEXEC);
	if (r.fd < 0 || fph_region_classify(s, &r, &v) < 0)
		return OTHER;
	if (v.method == FPH_METHOD_SEEK)
		return fph_sys_linux.file_pages(r.fd, 0, page) == 0 ? SCANNED : OTHER;
	if (v.method == FPH_METHOD_NONE && strstr(v.why, "(EPERM)") &&
	    fph_sys_linux.file_pages(r.fd, 0, page) == -EPERM)
		return REFUSED;
	return OTHER;
}

/*
 * Newer kernels tell what is in the page cache of a file only to those who could
 * write to it. Without that there is no second witness, and it is said so.
 */
static void not_for_readers(void **state)
{
	int status, fd = memfd();
	pid_t pid;

	if (geteuid() != 0)
		fph_test_skip("root alone can become another user");
	check(fd >= 0);
	check_int(ftruncate(fd, HUGE), 0);
	check_int(fchmod(fd, 0444), 0);
	pid = fork();
	check(pid >= 0);
	if (!pid)
		_exit(look_as_reader(fd));
	check_int(waitpid(pid, &status, 0), pid);
	check(WIFEXITED(status));
	check(WEXITSTATUS(status) == SCANNED || WEXITSTATUS(status) == REFUSED);
	print_message("this kernel %s them\n", WEXITSTATUS(status) == REFUSED ? "refuses" : "answers");
	close(fd);
}

/* All calls of cachestat() return 0 from now on, and do nothing */
static bool enter_sandbox(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, FPH_NR_CACHESTAT, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { ARRAY_SIZE(code), code };

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
	       prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/* A witness that says nothing has not said that there is nothing */
static void silent_witness(void **state)
{
	int status, fd = memfd();
	pid_t pid;

	check(fd >= 0);
	check_int(ftruncate(fd, HUGE), 0);
	pid = fork();
	check(pid >= 0);
	if (!pid)
		_exit(!enter_sandbox() ? 77 : fph_sys_linux.file_pages(fd, 0, HUGE) == 0);
	check_int(waitpid(pid, &status, 0), pid);
	close(fd);
	check(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		fph_test_skip("no seccomp");
	check_int(WEXITSTATUS(status), 0);
}

int main(int argc, char **argv)
{
	struct fph_tests t = { 0 };

	ktest_init(argc, argv);
	fph_test_add_rows(&t, rows, check_backing);
	fph_test_add(&t, "file that one may only read", not_for_readers, NULL);
	fph_test_add(&t, "a sandbox that answers for the kernel", silent_witness, NULL);
	return fph_test_run(&t, "backings");
}

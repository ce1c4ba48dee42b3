/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Each call to the kernel fails with each error, the first time, the second
 * time, and so on to the last one that a scan makes. Whatever happens, no page
 * is reported that is not absent, what was reported before stays true, and the
 * error reaches the caller: as a number, or in words.
 */
#include <errno.h>

#include "mock-sys.h"

/* The doors of struct fph_sys that can fail */
enum door { OPEN, SCAN, READ, SEEK, FILE_INFO, FILE_SIZE, FILE_PAGES, FILE_SCAN, DOORS };

static const char *const door_names[DOORS] = {
	[OPEN] = "open", [SCAN] = "PAGEMAP_SCAN",
	[READ] = "read of /proc/self/pagemap", [SEEK] = "lseek",
	[FILE_INFO] = "fstatfs", [FILE_SIZE] = "fstat", [FILE_PAGES] = "cachestat",
	[FILE_SCAN] = "PAGEMAP_SCAN beside lseek",
};

static const struct {
	const char *name;
	int err;
} errors[] = {
	{ "EPERM", -EPERM }, { "EACCES", -EACCES }, { "ENOMEM", -ENOMEM },
	{ "EFAULT", -EFAULT }, { "EAGAIN", -EAGAIN }, { "EINTR", -EINTR },
	{ "EIO", -EIO }, { "EINVAL", -EINVAL }, { "ENOTTY", -ENOTTY },
	{ "ENOSYS", -ENOSYS }, { "EBADF", -EBADF }, { "EMFILE", -EMFILE },
	{ "ENFILE", -ENFILE }, { "ENOENT", -ENOENT }, { "ESRCH", -ESRCH },
};

struct fault {
	enum door door;
	int err;
};

static struct fault fault;
static unsigned int fail_at;	/* call of that kind, from 1; 0: none */
static unsigned int calls;
static bool harmless;		/* the call that failed only looked ahead */

static bool fails(enum door door)
{
	return fault.door == door && ++calls == fail_at;
}

static int open_pagemap(long pid)
{
	return fails(OPEN) ? fault.err : mock_sys.open_pagemap(pid);
}

static int pagemap_scan(int fd, struct fph_pm_scan *arg)
{
	if (!fails(SCAN) && !fails(FILE_SCAN))
		return mock_sys.pagemap_scan(fd, arg);
	harmless = arg->max_pages > 0;
	return fault.err;
}

static int64_t pagemap_read(int fd, uint64_t first, uint64_t *entries, size_t n)
{
	return fails(READ) ? fault.err : mock_sys.pagemap_read(fd, first, entries, n);
}

static int64_t seek(int fd, uint64_t offset, int whence)
{
	return fails(SEEK) ? fault.err : mock_sys.seek(fd, offset, whence);
}

static int file_info(int fd, struct fph_sys_file *ret)
{
	return fails(FILE_INFO) ? fault.err : mock_sys.file_info(fd, ret);
}

static int file_size(int fd, uint64_t *ret)
{
	return fails(FILE_SIZE) ? fault.err : mock_sys.file_size(fd, ret);
}

static int64_t file_pages(int fd, uint64_t offset, uint64_t len)
{
	return fails(FILE_PAGES) ? fault.err : mock_sys.file_pages(fd, offset, len);
}

/* Memory of more than two windows, and a file; something of everything */
#define NPAGES	40000
#define NFILE	1000
#define MEMORY	"oozdsoodoxxoodzzddos"
#define FILE_STATES "oooooddooobbodooooodddooooo"

/* Returns the number of pages found; @err: 0, or what the caller was told */
static uint64_t scan(bool file, int *err)
{
	uint64_t npages = file ? NFILE : NPAGES;
	struct fph_region r = {
		.sz = sizeof(r),
		.host = (void *)(uintptr_t)HOST,
		.used = npages * PAGE,
		.max = npages * PAGE,
		.page_size = PAGE,
		.fd = file ? 5 : -1,
		.flags = file ? FPH_REGION_SHARED : 0,
	};
	struct fph_scanner_opts opts = {
		.sz = sizeof(opts),
		.kind = fault.door == READ ? FPH_SCANNER_PAGEMAP : FPH_SCANNER_PAGEMAP_SCAN,
	};
	struct fph_sys sys = mock_sys;
	struct catch c = { .pages = calloc(1, npages), .limit = npages * PAGE };
	struct fph_verdict v = { 0 };
	struct fph_scanner *s;
	uint64_t found;

	mock_reset();
	mock_memory(MEMORY, NPAGES);
	mock_file(FILE_STATES, NFILE);
	sys.open_pagemap = open_pagemap;
	sys.pagemap_scan = pagemap_scan;
	sys.pagemap_read = pagemap_read;
	sys.seek = seek;
	sys.file_info = file_info;
	sys.file_size = file_size;
	sys.file_pages = file_pages;
	calls = 0;
	harmless = false;

	*err = 0;
	errno = ERANGE;
	check_int(fph_scanner_open_sys(&s, &opts, &sys), 0);
	check_int(fph_region_classify(s, &r, &v), 0);
	if (v.method == FPH_METHOD_NONE) {
		check(v.why && *v.why);
		*err = fault.err;
	} else {
		*err = fph_scan_region(s, &r, v.method, 0, r.used, catch_sink, &c, NULL);
	}
	fph_scanner_close(s);
	check_int(mock.opened, mock.closed);
	check_int(errno, ERANGE);

	for (uint64_t i = 0; i < npages; i++) {
		char is = file ? mock.file[i] : mock.pages[i];

		if (c.pages[i] && is != M_NONE && is != M_ZERO)
			fail_msg("page %ju is '%c', and was reported", (uintmax_t)i, is);
	}
	found = c.bytes / PAGE;
	free(c.pages);
	mock_free();
	return found;
}

static bool asks_again(enum door door)
{
	return door == SCAN || door == READ || door == FILE_SCAN;
}

static void check_fault(void **state)
{
	bool file;
	uint64_t all;
	int err;

	fault = *(const struct fault *)*state;
	file = fault.door != SCAN && fault.door != READ && fault.door != OPEN;
	fail_at = 0;
	all = scan(file, &err);
	check_int(err, 0);
	check(all > (file ? NFILE : NPAGES) / 4);

	for (fail_at = 1; ; fail_at++) {
		uint64_t found = scan(file, &err);

		if (calls < fail_at)
			break;
		if (asks_again(fault.door) && fault.err == -EINTR)
			harmless = true;	/* who is interrupted asks again */
		if (harmless) {
			check_int(err, 0);
			check_int(found, all);
			continue;
		}
		check_int(err, fault.err);
		check(found < all);
	}
	/* A scan makes more than one of most calls */
	check(fail_at > (fault.door == SCAN || fault.door == READ || fault.door == SEEK ||
			 fault.door == FILE_PAGES ? 3 : 1));
}

int main(void)
{
	static struct fault rows[DOORS * ARRAY_SIZE(errors)];
	static char names[ARRAY_SIZE(rows)][48];
	struct fph_tests t = { 0 };
	size_t n = 0;

	for (int door = 0; door < DOORS; door++) {
		for (size_t i = 0; i < ARRAY_SIZE(errors); i++, n++) {
			rows[n] = (struct fault){ door, errors[i].err };
			snprintf(names[n], sizeof(names[n]), "%s: %s", door_names[door],
				 errors[i].name);
			fph_test_add(&t, names[n], check_fault, &rows[n]);
		}
	}
	return fph_test_run(&t, "errors");
}

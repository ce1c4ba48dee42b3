/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <unistd.h>

#include "mock-sys.h"

#ifndef HUGETLBFS_MAGIC
#define HUGETLBFS_MAGIC 0x958458f6
#endif
#define EXT4_MAGIC 0xef53
#define SZ (UINT64_C(1) << 30)

struct verdict_row {
	const char *name;
	/* the region: fd 5 with file system @magic, or none if 0 */
	uint64_t magic;
	uint32_t flags;
	enum fph_backing backing;
	enum fph_method method;
	const char *why;	/* words of the reason */
	uint64_t page_size;	/* 0: PAGE */
	uint64_t used;		/* 0: all */
	bool device;
	int info_error;
	int open_error;
	int probe_error;
	bool forked;
	enum fph_scanner_kind kind;
	int witness_error;
};

static const struct verdict_row verdicts[] = {
	/* what is found, and how */
	{ "private anonymous memory: PAGEMAP_SCAN",
	  0, 0, FPH_BACKING_ANON, FPH_METHOD_PAGEMAP_SCAN, NULL },
	{ "shared memfd or tmpfs: SEEK",
	  TMPFS_MAGIC, FPH_REGION_SHARED, FPH_BACKING_SHMEM, FPH_METHOD_SEEK, NULL },

	{ "private memfd or tmpfs: both must agree",
	  TMPFS_MAGIC, 0, FPH_BACKING_SHMEM_PRIVATE, FPH_METHOD_PAGEMAP_SCAN_SEEK, NULL },

	/* backings that prove nothing */
	{ "shared anonymous memory without a descriptor",
	  0, FPH_REGION_SHARED, FPH_BACKING_ANON_SHARED, FPH_METHOD_NONE, "without a descriptor" },
	{ "hugetlb, shared",
	  HUGETLBFS_MAGIC, FPH_REGION_SHARED, FPH_BACKING_HUGETLB, FPH_METHOD_NONE,
	  "hugetlb pages: absence in page tables proves nothing", 2 << 20 },
	{ "hugetlb, private",
	  HUGETLBFS_MAGIC, 0, FPH_BACKING_HUGETLB, FPH_METHOD_NONE, "hugetlb", 2 << 20 },
	{ "hugetlb file, whose owner believes in small pages",
	  HUGETLBFS_MAGIC, FPH_REGION_SHARED, FPH_BACKING_HUGETLB, FPH_METHOD_NONE, "hugetlb" },
	{ "hugetlb without a descriptor",
	  0, 0, FPH_BACKING_HUGETLB, FPH_METHOD_NONE, "hugetlb", 2 << 20 },
	{ "hugetlb without a descriptor, shared",
	  0, FPH_REGION_SHARED, FPH_BACKING_HUGETLB, FPH_METHOD_NONE, "hugetlb", 2 << 20 },
	{ "large pages of another kind",
	  TMPFS_MAGIC, FPH_REGION_SHARED, FPH_BACKING_SHMEM, FPH_METHOD_NONE, "pages larger", 2 * PAGE },
	{ "file of a disk file system, shared",
	  EXT4_MAGIC, FPH_REGION_SHARED, FPH_BACKING_FILE, FPH_METHOD_NONE, "outside tmpfs" },
	{ "file of a disk file system, private",
	  EXT4_MAGIC, 0, FPH_BACKING_FILE, FPH_METHOD_NONE, "outside tmpfs" },
	{ "ramfs is not tmpfs",
	  RAMFS_MAGIC, FPH_REGION_SHARED, FPH_BACKING_FILE, FPH_METHOD_NONE, "outside tmpfs" },
	{ "a device node in /dev, which is a tmpfs",
	  TMPFS_MAGIC, FPH_REGION_SHARED, FPH_BACKING_FILE, FPH_METHOD_NONE, "device", .device = true },
	{ "descriptor that cannot be examined",
	  TMPFS_MAGIC, FPH_REGION_SHARED, FPH_BACKING_UNKNOWN, FPH_METHOD_NONE, "cannot be examined",
	  .info_error = -EBADF },

	/* what the owner says */
	{ "not RAM", 0, FPH_REGION_NOT_RAM, FPH_BACKING_ANON, FPH_METHOD_NONE, "not guest RAM" },
	{ "read-only", 0, FPH_REGION_READONLY, FPH_BACKING_ANON, FPH_METHOD_NONE, "read-only" },
	{ "resizable", 0, FPH_REGION_RESIZABLE, FPH_BACKING_ANON, FPH_METHOD_NONE, "resizable" },
	{ "not all of it in use", 0, 0, FPH_BACKING_ANON, FPH_METHOD_NONE, "resizable", .used = SZ / 2 },
	{ "foreign", 0, FPH_REGION_FOREIGN, FPH_BACKING_ANON, FPH_METHOD_NONE, "handed in" },
	{ "persistent memory", 0, FPH_REGION_PMEM, FPH_BACKING_ANON, FPH_METHOD_NONE, "persistent" },
	{ "guest_memfd", 0, FPH_REGION_GUEST_MEMFD, FPH_BACKING_GUEST_MEMFD, FPH_METHOD_NONE, "guest_memfd" },
	{ "named file", TMPFS_MAGIC, FPH_REGION_SHARED | FPH_REGION_NAMED_FILE, FPH_BACKING_SHMEM,
	  FPH_METHOD_NONE, "named file" },
	{ "a pager's", 0, FPH_REGION_PAGED, FPH_BACKING_ANON, FPH_METHOD_NONE, "still owed" },
	{ "a pager's, shared", TMPFS_MAGIC, FPH_REGION_PAGED | FPH_REGION_SHARED, FPH_BACKING_SHMEM,
	  FPH_METHOD_NONE, "still owed" },
	{ "a pager's, by entries", 0, FPH_REGION_PAGED, FPH_BACKING_ANON, FPH_METHOD_NONE, "still owed",
	  .kind = FPH_SCANNER_PAGEMAP },
	{ "flag of a later version", 0, 1u << 9, FPH_BACKING_ANON, FPH_METHOD_NONE, "does not know" },
	{ "highest flag of a later version", 0, 1u << 31, FPH_BACKING_ANON, FPH_METHOD_NONE, "does not know" },
	{ "shared memfd that is not RAM", TMPFS_MAGIC, FPH_REGION_SHARED | FPH_REGION_NOT_RAM,
	  FPH_BACKING_SHMEM, FPH_METHOD_NONE, "not guest RAM" },
	{ "shared memfd, read-only", TMPFS_MAGIC, FPH_REGION_SHARED | FPH_REGION_READONLY,
	  FPH_BACKING_SHMEM, FPH_METHOD_NONE, "read-only" },
	{ "shared memfd, resizable", TMPFS_MAGIC, FPH_REGION_SHARED, FPH_BACKING_SHMEM,
	  FPH_METHOD_NONE, "resizable", .used = SZ / 2 },

	/* the kernel; SEEK is gated too, since only a kernel with PAGEMAP_SCAN
	 * is known to be without the race of shmem huge pages */
	{ "anonymous, no PAGEMAP_SCAN", 0, 0, FPH_BACKING_ANON, FPH_METHOD_PAGEMAP, NULL,
	  .probe_error = -ENOTTY },
	{ "memfd, no PAGEMAP_SCAN", TMPFS_MAGIC, FPH_REGION_SHARED, FPH_BACKING_SHMEM, FPH_METHOD_NONE,
	  "older than Linux 6.7", .probe_error = -ENOTTY },
	{ "private memfd, no PAGEMAP_SCAN", TMPFS_MAGIC, 0, FPH_BACKING_SHMEM_PRIVATE, FPH_METHOD_NONE,
	  "older than Linux 6.7", .probe_error = -ENOTTY },
	{ "memfd, unknown categories", TMPFS_MAGIC, FPH_REGION_SHARED, FPH_BACKING_SHMEM, FPH_METHOD_NONE,
	  "EINVAL", .probe_error = -EINVAL },
	{ "memfd, ioctl refused", TMPFS_MAGIC, FPH_REGION_SHARED, FPH_BACKING_SHMEM, FPH_METHOD_NONE,
	  "EPERM", .probe_error = -EPERM },
	{ "memfd, no second witness", TMPFS_MAGIC, FPH_REGION_SHARED, FPH_BACKING_SHMEM, FPH_METHOD_NONE,
	  "older than Linux 6.5", .witness_error = -ENOSYS },
	{ "private memfd, no second witness", TMPFS_MAGIC, 0, FPH_BACKING_SHMEM_PRIVATE, FPH_METHOD_NONE,
	  "could pass for holes", .witness_error = -ENOSYS },
	{ "memfd, second witness refused", TMPFS_MAGIC, FPH_REGION_SHARED, FPH_BACKING_SHMEM,
	  FPH_METHOD_NONE, "open for writing", .witness_error = -EPERM },
	{ "memfd, second witness refused otherwise", TMPFS_MAGIC, FPH_REGION_SHARED, FPH_BACKING_SHMEM,
	  FPH_METHOD_NONE, "EACCES", .witness_error = -EACCES },
	{ "memfd, second witness of no use", TMPFS_MAGIC, FPH_REGION_SHARED, FPH_BACKING_SHMEM,
	  FPH_METHOD_NONE, "EOPNOTSUPP", .witness_error = -EOPNOTSUPP },
	{ "memfd, second witness fails oddly", TMPFS_MAGIC, FPH_REGION_SHARED, FPH_BACKING_SHMEM,
	  FPH_METHOD_NONE, "does not work here", .witness_error = -EIO },
	{ "anonymous, no second witness: none is needed", 0, 0, FPH_BACKING_ANON,
	  FPH_METHOD_PAGEMAP_SCAN, NULL, .witness_error = -ENOSYS },
	{ "anonymous, ioctl refused", 0, 0, FPH_BACKING_ANON, FPH_METHOD_PAGEMAP, NULL, .probe_error = -EPERM },
	{ "ioctl interrupted once", 0, 0, FPH_BACKING_ANON, FPH_METHOD_PAGEMAP_SCAN, NULL,
	  .probe_error = -EINTR },
	{ "no permission", 0, 0, FPH_BACKING_ANON, FPH_METHOD_NONE, "security module", .open_error = -EACCES },
	{ "no /proc", 0, 0, FPH_BACKING_ANON, FPH_METHOD_NONE, "ENOENT", .open_error = -ENOENT },
	{ "no descriptor left", 0, 0, FPH_BACKING_ANON, FPH_METHOD_NONE, "EMFILE", .open_error = -EMFILE },
	{ "open fails oddly", 0, 0, FPH_BACKING_ANON, FPH_METHOD_NONE, "cannot open", .open_error = -EIO },
	{ "memfd, no /proc", TMPFS_MAGIC, FPH_REGION_SHARED, FPH_BACKING_SHMEM, FPH_METHOD_NONE, "ENOENT",
	  .open_error = -ENOENT },
	{ "in a forked child", 0, 0, FPH_BACKING_ANON, FPH_METHOD_NONE, "another process", .forked = true },
	{ "the backing's reason comes before the kernel's", HUGETLBFS_MAGIC, 0, FPH_BACKING_HUGETLB,
	  FPH_METHOD_NONE, "hugetlb pages", .probe_error = -ENOTTY },

	/* scanners that were asked for */
	{ "PAGEMAP_SCAN and nothing else", 0, 0, FPH_BACKING_ANON, FPH_METHOD_NONE, "ENOTTY",
	  .probe_error = -ENOTTY, .kind = FPH_SCANNER_PAGEMAP_SCAN },
	{ "PAGEMAP_SCAN, which fails oddly", 0, 0, FPH_BACKING_ANON, FPH_METHOD_NONE, "does not work",
	  .probe_error = -EIO, .kind = FPH_SCANNER_PAGEMAP_SCAN },
	{ "anonymous, by entries", 0, 0, FPH_BACKING_ANON, FPH_METHOD_PAGEMAP, NULL,
	  .kind = FPH_SCANNER_PAGEMAP },
	{ "private memfd, by entries", TMPFS_MAGIC, 0, FPH_BACKING_SHMEM_PRIVATE, FPH_METHOD_PAGEMAP_SEEK,
	  NULL, .kind = FPH_SCANNER_PAGEMAP },
	{ "memfd, by entries: they are not asked", TMPFS_MAGIC, FPH_REGION_SHARED, FPH_BACKING_SHMEM,
	  FPH_METHOD_SEEK, NULL, .kind = FPH_SCANNER_PAGEMAP },
	{ "memfd, by entries, old kernel", TMPFS_MAGIC, FPH_REGION_SHARED, FPH_BACKING_SHMEM,
	  FPH_METHOD_NONE, "6.7", .probe_error = -ENOTTY, .kind = FPH_SCANNER_PAGEMAP },
	{ "entries, no permission", 0, 0, FPH_BACKING_ANON, FPH_METHOD_NONE, "no permission",
	  .open_error = -EACCES, .kind = FPH_SCANNER_PAGEMAP },
	{ "anonymous, off", 0, 0, FPH_BACKING_ANON, FPH_METHOD_NONE, "scanner=off",
	  .kind = FPH_SCANNER_OFF },
	{ "memfd, off", TMPFS_MAGIC, FPH_REGION_SHARED, FPH_BACKING_SHMEM, FPH_METHOD_NONE, "scanner=off",
	  .kind = FPH_SCANNER_OFF },
};

static void check_verdict(void **state)
{
	const struct verdict_row *row = *state;
	struct fph_region r = {
		.sz = sizeof(r),
		.host = (void *)(uintptr_t)HOST,
		.used = row->used ? row->used : SZ,
		.max = SZ,
		.page_size = row->page_size ? row->page_size : PAGE,
		.fd = row->magic ? 5 : -1,
		.flags = row->flags,
	};
	struct fph_scanner_opts opts = { .sz = sizeof(opts), .kind = row->kind };
	struct fph_verdict v = { .why = "not written" };
	struct fph_scanner *s;

	mock_reset();
	mock.magic = row->magic;
	mock.regular = !row->device;
	mock.info_error = row->info_error;
	mock.open_error = row->open_error;
	mock.probe_error = row->probe_error;
	mock.witness_error = row->witness_error;

	check_int(fph_scanner_open_sys(&s, &opts, &mock_sys), 0);
	if (row->forked)
		mock.pid++;
	check_int(fph_region_classify(s, &r, &v), 0);
	check_int(v.backing, row->backing);
	check_int(v.method, row->method);
	if (row->why) {
		check(v.why != NULL);
		if (!strstr(v.why, row->why))
			fail_msg("\"%s\" does not say \"%s\"", v.why, row->why);
	} else {
		check(v.why == NULL);
	}
	fph_scanner_close(s);
	check_int(mock.opened, mock.closed);
	mock_free();
}

struct bad_row {
	const char *name;
	struct fph_region r;
};

#define GOOD .sz = sizeof(struct fph_region), .host = (void *)(uintptr_t)HOST, \
	.used = SZ, .max = SZ, .page_size = PAGE, .fd = -1

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Woverride-init"
#ifdef __clang__
#pragma GCC diagnostic ignored "-Winitializer-overrides"
#endif
static const struct bad_row bad[] = {
	{ "struct of no size", { GOOD, .sz = 0 } },
	{ "struct too small", { GOOD, .sz = FPH_REGION_LEAST - 1 } },
	{ "no page size", { GOOD, .page_size = 0 } },
	{ "page size no power of two", { GOOD, .page_size = 12288 } },
	{ "page size below the host's", { GOOD, .page_size = 2048 } },
	{ "used beyond max", { GOOD, .used = SZ + 1 } },
	{ "misaligned address", { GOOD, .host = (void *)(uintptr_t)(HOST + 8) } },
	{ "end of memory overflows", { GOOD, .used = UINT64_MAX - PAGE, .max = UINT64_MAX - PAGE } },
	{ "misaligned file offset", { GOOD, .fd = 5, .fd_offset = 100 } },
	{ "end of file offset overflows", { GOOD, .fd = 5, .fd_offset = INT64_MAX & ~(PAGE - 1) } },
};
#pragma GCC diagnostic pop

static void check_bad(void **state)
{
	const struct bad_row *row = *state;
	struct fph_verdict v = { .method = FPH_METHOD_MAX };
	struct catch c = { 0 };
	struct fph_scanner *s;

	mock_reset();
	check_int(fph_scanner_open_sys(&s, NULL, &mock_sys), 0);
	check_int(fph_region_classify(s, &row->r, &v), -EINVAL);
	check_int(v.method, FPH_METHOD_MAX);
	check_int(fph_scan_region(s, &row->r, FPH_METHOD_PAGEMAP_SCAN, 0, SZ,
				  catch_sink, &c, NULL), -EINVAL);
	check_int(c.n, 0);
	fph_scanner_close(s);
	mock_free();
}

/* As long as @least, and nothing behind its last word can be touched */
static void *oldest(const void *s, size_t least)
{
	size_t page = sysconf(_SC_PAGESIZE);
	char *p = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *old;

	check(p != MAP_FAILED);
	check_int(mprotect(p + page, page, PROT_NONE), 0);
	old = p + page - (least + -least % sizeof(uint64_t));	/* aligned */
	memcpy(old, s, least);
	memcpy(old, &least, sizeof(least));	/* all of them begin with their size */
	return old;
}

/* A program that was built when the structs were as short as they ever were */
static void oldest_program(void **state)
{
	const struct fph_scanner_opts opts = { .kind = FPH_SCANNER_PAGEMAP, .cpu_percent = 50 };
	const struct fph_region region = { GOOD };
	const struct fph_scan_stats none = { 0 };
	struct fph_scan_stats *stats = oldest(&none, FPH_SCAN_STATS_LEAST);
	struct fph_region *r = oldest(&region, FPH_REGION_LEAST);
	struct fph_verdict v;
	struct fph_scanner *s;
	struct fph_watch *w;
	struct catch c = { 0 };
	const char *why;

	mock_reset();
	mock_memory("od", SZ / PAGE);
	check_int(fph_scanner_open_sys(&s, oldest(&opts, FPH_SCANNER_OPTS_LEAST), &mock_sys), 0);
	check_int(fph_scanner_get_kind(s), FPH_SCANNER_PAGEMAP);
	check_int(fph_region_classify(s, r, &v), 0);
	check_int(v.method, FPH_METHOD_PAGEMAP);
	check_int(fph_scan_region(s, r, v.method, 0, 4 * PAGE, catch_sink, &c, stats), 0);
	check_int(c.bytes, 2 * PAGE);
	check_int(stats->ranges, 2);
	check_int(stats->sz, FPH_SCAN_STATS_LEAST);
	fph_scanner_close(s);
	mock.probed = false;
	check_int(fph_watch_open_sys(&w, &mock_sys), 0);
	check_int(fph_watch_add(w, r, &why), 0);
	fph_watch_close(w);
	mock_free();
}

/* A region of a newer header: allowed as long as it says nothing new */
static void newer_region(void **state)
{
	struct {
		struct fph_region r;
		uint64_t newer;
	} big = { .r = { GOOD, } };
	struct fph_verdict v;
	struct fph_scanner *s;

	mock_reset();
	big.r.sz = sizeof(big);
	check_int(fph_scanner_open_sys(&s, NULL, &mock_sys), 0);
	check_int(fph_region_classify(s, &big.r, &v), 0);
	check_int(v.method, FPH_METHOD_PAGEMAP_SCAN);
	big.newer = 1;
	check_int(fph_region_classify(s, &big.r, &v), 0);
	check_int(v.method, FPH_METHOD_NONE);
	check(strstr(v.why, "does not know") != NULL);
	fph_scanner_close(s);
	mock_free();
}

static void scanner_error(void **state)
{
	const char *why = "untouched";
	struct fph_scanner *s;

	mock_reset();
	check_int(fph_scanner_open_sys(&s, NULL, &mock_sys), 0);
	check_int(fph_scanner_error(s, &why), 0);
	check_str(why, "untouched");
	mock.pid++;
	check_int(fph_scanner_error(s, &why), -ESRCH);
	check(strstr(why, "another process") != NULL);
	errno = 1234;
	fph_scanner_close(s);
	check_int(errno, 1234);

	mock_reset();
	mock.open_error = -EACCES;
	check_int(fph_scanner_open_sys(&s, NULL, &mock_sys), 0);
	check_int(fph_scanner_error(s, &why), -EACCES);
	fph_scanner_close(s);
	check_int(mock.closed, 0);
	fph_scanner_close(NULL);
	mock_free();
}

struct opts_row {
	const char *name;
	struct fph_scanner_opts o;
	int err;
	enum fph_scanner_kind kind;
	int probe_error;
	const char *why;
};

#define OPTS .sz = sizeof(struct fph_scanner_opts)

static const struct opts_row opts_rows[] = {
	{ "defaults", { OPTS }, 0, FPH_SCANNER_PAGEMAP_SCAN },
	{ "the ioctl does not work: entries", { OPTS }, 0, FPH_SCANNER_PAGEMAP, -ENOTTY },
	{ "off", { OPTS, .kind = FPH_SCANNER_OFF }, 0, FPH_SCANNER_OFF, 0, "scanner=off" },
	{ "an error is off", { OPTS, .kind = FPH_SCANNER_PAGEMAP_SCAN }, 0, FPH_SCANNER_OFF, -ENOTTY, "6.7" },
	{ "another process", { OPTS, .pid = 4711 }, 0, FPH_SCANNER_PAGEMAP_SCAN },
	{ "this process, by its number", { OPTS, .pid = 42 }, 0, FPH_SCANNER_PAGEMAP_SCAN },
	{ "struct too small", { .sz = FPH_SCANNER_OPTS_LEAST - 1 }, -EINVAL },
	{ "no such kind", { OPTS, .kind = FPH_SCANNER_MAX }, -EINVAL },
	{ "negative kind", { OPTS, .kind = -1 }, -EINVAL },
	{ "negative PID", { OPTS, .pid = -1 }, -EINVAL },
	{ "more than a CPU", { OPTS, .cpu_percent = 101 }, -EINVAL },
};

static void check_opts(void **state)
{
	const struct opts_row *row = *state;
	struct fph_scanner *s = NULL;
	const char *why = NULL;

	mock_reset();
	mock.probe_error = row->probe_error;
	check_int(fph_scanner_open_sys(&s, &row->o, &mock_sys), row->err);
	if (row->err) {
		check(s == NULL);
		check_int(mock.opened, 0);
		return;
	}
	check_int(fph_scanner_get_kind(s), row->kind);
	check_int(fph_scanner_error(s, &why) < 0, row->kind == FPH_SCANNER_OFF);
	if (row->why)
		check(why && strstr(why, row->why));
	/* itself is not another one, which fork() would not matter for */
	check_int(mock.opened_pid, row->o.pid == mock.pid ? 0 : row->o.pid);
	mock.pid++;
	check_int(fph_scanner_error(s, &why) == -ESRCH,
		  row->kind != FPH_SCANNER_OFF && row->o.pid != 4711);
	fph_scanner_close(s);
	check_int(mock.opened, mock.closed);
	mock_free();
}

/* What a newer header says and this library does not know is refused */
static void newer_opts(void **state)
{
	struct {
		struct fph_scanner_opts o;
		uint64_t newer;
	} big = { .o.sz = sizeof(big) };
	struct fph_scanner *s;

	mock_reset();
	check_int(fph_scanner_open_sys(&s, &big.o, &mock_sys), 0);
	fph_scanner_close(s);
	big.newer = 1;
	check_int(fph_scanner_open_sys(&s, &big.o, &mock_sys), -EINVAL);
	mock_free();
}

static void names(void **state)
{
	for (int i = 0; i < FPH_BACKING_MAX; i++)
		check(fph_backing_name(i) != NULL);
	for (int i = 0; i < FPH_METHOD_MAX; i++)
		check(fph_method_name(i) != NULL);
	check_str(fph_backing_name(FPH_BACKING_ANON), "anon");
	check_str(fph_backing_name(FPH_BACKING_MAX), "unknown");
	check_str(fph_backing_name(-1), "unknown");
	check_str(fph_method_name(FPH_METHOD_SEEK), "seek");
	check_str(fph_method_name(FPH_METHOD_MAX), "none");
	check_str(fph_method_name(-1), "none");
	for (int i = 0; i < FPH_SCANNER_MAX; i++)
		check(fph_scanner_kind_name(i) != NULL);
	check_str(fph_scanner_kind_name(FPH_SCANNER_PAGEMAP), "pagemap");
	check_str(fph_scanner_kind_name(FPH_SCANNER_MAX), "unknown");
	check_str(fph_scanner_kind_name(-1), "unknown");
	check_str(fph_reason_name(FPH_UNMAPPED), "unmapped");
	check_str(fph_reason_name(FPH_ZERO_MAPPED), "zero-mapped");
	check_str(fph_reason_name(FPH_ZERO_CONTENT), "zero-content");
	check_str(fph_reason_name(FPH_REASON_MAX), "unknown");
	check_str(fph_version(), FPH_VERSION);
}

int main(void)
{
	struct fph_tests t = { 0 };

	fph_test_add_rows(&t, verdicts, check_verdict);
	fph_test_add_rows(&t, bad, check_bad);
	fph_test_add(&t, "program of an older header", oldest_program, NULL);
	fph_test_add(&t, "region of a newer header", newer_region, NULL);
	fph_test_add_rows(&t, opts_rows, check_opts);
	fph_test_add(&t, "options of a newer header", newer_opts, NULL);
	fph_test_add(&t, "scanner's own error", scanner_error, NULL);
	fph_test_add(&t, "names", names, NULL);
	return fph_test_run(&t, "classify");
}

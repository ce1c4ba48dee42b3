/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Each state that a page can be in without swap, in each kind of memory that
 * is scanned: the page is reported if, and only if, nobody can miss it.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ktest.h"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif

/* The pages whose state a row makes; the second huge page of two */
#define HN	PER_HUGE
#define HFIRST	HN
#define NPAGES	(2 * HN)
#define FIRST	(HFIRST + 8)
#define N	9

static volatile char sink;

static void at(struct mem *m, int advice)
{
	check_int(madvise(mem_page(m, FIRST), N * page, advice), 0);
}

static void want(struct mem *m, char w)
{
	mem_want(m, FIRST, N, w);
}

static void fill(struct mem *m)
{
	mem_fill(m, FIRST, N, 0x5a);
	want(m, W_NOTHING);
}

static void untouched(struct mem *m)
{
}

static void read_touched(struct mem *m)
{
	for (int i = 0; i < N; i++)
		sink = *mem_page(m, FIRST + i);
	want(m, m->kind == K_ANON && !reads_take ? W_ZERO : W_NOTHING);
}

static void written_zero(struct mem *m)
{
	mem_fill(m, FIRST, N, 0);
	want(m, W_NOTHING);
}

static void read_then_written(struct mem *m)
{
	read_touched(m);
	fill(m);
}

static void alternating(struct mem *m)
{
	for (size_t i = 0; i < NPAGES; i += 2) {
		mem_fill(m, i, 1, 1);
		mem_want(m, i, 1, W_NOTHING);
	}
}

static void dontneed(struct mem *m)
{
	fill(m);
	at(m, MADV_DONTNEED);
	want(m, m->kind == K_ANON ? W_ABSENT : W_NOTHING);
}

static void lazily_freed(struct mem *m)
{
	fill(m);
	at(m, MADV_FREE);
}

static void removed(struct mem *m)
{
	fill(m);
	at(m, MADV_REMOVE);
	want(m, W_ABSENT);
}

static void punched(struct mem *m)
{
	fill(m);
	check_int(fallocate(m->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			    FIRST * page, N * page), 0);
	/* copies outlive what they are copies of */
	want(m, m->kind == K_PRIVATE ? W_NOTHING : W_ABSENT);
}

static void allocated(struct mem *m)
{
	check_int(fallocate(m->fd, 0, FIRST * page, N * page), 0);
	/* like the copy of a page that is being moved: there, and not uptodate */
	want(m, W_NOTHING);
}

static void written_by_fd(struct mem *m)
{
	for (int i = 0; i < N; i++)
		check_int(pwrite(m->fd, "x", 1, (FIRST + i) * page), 1);
	want(m, W_NOTHING);
}

/* In no page table of this process */
static void alternating_by_fd(struct mem *m)
{
	for (size_t i = 0; i < NPAGES; i += 2) {
		check_int(pwrite(m->fd, "x", 1, i * page), 1);
		mem_want(m, i, 1, W_NOTHING);
	}
}

/* One in four here, one in four not */
static void alternating_by_both(struct mem *m)
{
	alternating_by_fd(m);
	for (size_t i = 0; i < NPAGES; i += 4)
		mem_fill(m, i, 1, 1);
}

static void written_by_other(struct mem *m)
{
	int status;
	pid_t pid = fork();

	check(pid >= 0);
	if (!pid) {
		char *p = mmap(NULL, NPAGES * page, PROT_READ | PROT_WRITE,
			       MAP_SHARED, m->fd, 0);

		if (p == MAP_FAILED)
			_exit(1);
		memset(p + FIRST * page, 0x5a, N * page);
		_exit(0);
	}
	check_int(waitpid(pid, &status, 0), pid);
	check_int(status, 0);
	want(m, W_NOTHING);
}

/* Both have the page; then the child has its own copy */
static void copied_on_write(struct mem *m)
{
	pid_t pid;

	fill(m);
	pid = fork();
	check(pid >= 0);
	if (!pid) {
		fill(m);
		_exit(0);
	}
	check_int(waitpid(pid, NULL, 0), pid);
}

static void locked(struct mem *m)
{
	/* the libraries of sanitizers make mlock() do nothing */
	if (syscall(SYS_mlock, mem_page(m, FIRST), N * page) < 0)
		fph_test_skip("mlock: %s", strerror(errno));
	want(m, W_NOTHING);
}

static void locked_on_fault(struct mem *m)
{
	if (mlock2(mem_page(m, FIRST), N * page, MLOCK_ONFAULT) < 0)
		fph_test_skip("mlock2: %s", strerror(errno));
}

static void populated_write(struct mem *m)
{
	at(m, MADV_POPULATE_WRITE);
	want(m, W_NOTHING);
}

static void populated_read(struct mem *m)
{
	at(m, MADV_POPULATE_READ);
	want(m, m->kind == K_ANON && !reads_take ? W_ZERO : W_NOTHING);
}

static void prot_none(struct mem *m)
{
	fill(m);
	check_int(mprotect(mem_page(m, FIRST), N * page, PROT_NONE), 0);
}

static void prot_none_untouched(struct mem *m)
{
	check_int(mprotect(mem_page(m, FIRST), N * page, PROT_NONE), 0);
}

static void unmapped(struct mem *m)
{
	check_int(munmap(mem_page(m, FIRST), N * page), 0);
	want(m, W_NOTHING);
}

static void all_unmapped(struct mem *m)
{
	check_int(munmap(m->p, NPAGES * page), 0);
	mem_want(m, 0, NPAGES, W_NOTHING);
}

static void file_too_short(struct mem *m)
{
	check_int(ftruncate(m->fd, FIRST * page), 0);
	mem_want(m, FIRST, NPAGES - FIRST, W_NOTHING);
}

static void file_ends_in_page(struct mem *m)
{
	check_int(ftruncate(m->fd, FIRST * page + 1), 0);
	mem_want(m, FIRST, NPAGES - FIRST, W_NOTHING);
}

static void guarded(struct mem *m)
{
	if (madvise(mem_page(m, FIRST), N * page, MADV_GUARD_INSTALL) < 0)
		fph_test_skip("guard regions: %s", strerror(errno));
	/* a marker is in the page table, whatever the file says */
	want(m, m->r.flags & FPH_REGION_SHARED ? W_ABSENT : W_NOTHING);
}

/* Leaves the descriptor open: closing it would take the markers away */
static void write_protect(struct mem *m)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_PAGEFAULT_FLAG_WP |
			    UFFD_FEATURE_WP_UNPOPULATED |
			    (m->kind == K_ANON ? 0 : UFFD_FEATURE_WP_HUGETLBFS_SHMEM),
	};
	struct uffdio_register reg = {
		.range = { (uintptr_t)m->p, NPAGES * page },
		.mode = UFFDIO_REGISTER_MODE_WP,
	};
	struct uffdio_writeprotect wp = {
		.range = { (uintptr_t)mem_page(m, FIRST), N * page },
		.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);

	if (fd < 0)
		fph_test_skip("userfaultfd: %s", strerror(errno));
	if (ioctl(fd, UFFDIO_API, &api) < 0)
		fph_test_skip("userfaultfd write protection of absent pages: %s",
			      strerror(errno));
	check_int(ioctl(fd, UFFDIO_REGISTER, &reg), 0);
	check_int(ioctl(fd, UFFDIO_WRITEPROTECT, &wp), 0);
}

static void wp_marker(struct mem *m)
{
	write_protect(m);
	want(m, m->r.flags & FPH_REGION_SHARED ? W_ABSENT : W_NOTHING);
}

static void wp_written(struct mem *m)
{
	fill(m);
	write_protect(m);
}

static void huge(struct mem *m)
{
	if (madvise(mem_page(m, HFIRST), HN * page, MADV_HUGEPAGE) < 0)
		fph_test_skip("no transparent huge pages: %s", strerror(errno));
}

/* Was the page that was just touched a huge one? */
static bool is_huge(const struct mem *m)
{
	uint64_t *raw = raw_pagemap(m);
	bool last = raw[HFIRST + HN - 1] & RAW_PRESENT;

	free(raw);
	return last;
}

static void huge_written(struct mem *m)
{
	huge(m);
	*mem_page(m, FIRST) = 1;
	/* where shmem's settings forbid huge pages, they can be asked for */
	if (!is_huge(m))
		madvise(mem_page(m, HFIRST), HN * page, MADV_COLLAPSE);
	if (!is_huge(m))
		fph_test_skip("the kernel gave no huge page");
	/* It stays, but what it loses khugepaged must not bring back */
	check_int(madvise(mem_page(m, HFIRST), HN * page, MADV_NOHUGEPAGE), 0);
	mem_want(m, HFIRST, HN, W_NOTHING);
}

static void huge_split(struct mem *m)
{
	huge_written(m);
	at(m, MADV_DONTNEED);
	want(m, m->kind == K_ANON ? W_ABSENT : W_NOTHING);
}

static void huge_punched(struct mem *m)
{
	huge_written(m);
	punched(m);
}

static void huge_zero(struct mem *m)
{
	huge(m);
	sink = *mem_page(m, FIRST);
	if (!is_huge(m))
		fph_test_skip("the kernel gave no huge zero page");
	mem_want(m, HFIRST, HN, W_ZERO_IF_SEEN);
}

static void huge_collapsed(struct mem *m)
{
	fill(m);
	huge(m);
	if (madvise(mem_page(m, HFIRST), HN * page, MADV_COLLAPSE) < 0)
		fph_test_skip("MADV_COLLAPSE: %s", strerror(errno));
	mem_want(m, HFIRST, HN, W_NOTHING);
}

static int see_second(void *opaque, uint64_t start, uint64_t len, uint32_t flags)
{
	uint64_t second = (FIRST + 1) * page;

	if (start <= second && second < start + len)
		*(uint32_t *)opaque = flags;
	return 0;
}

static void no_harm(int sig)
{
}

/*
 * Whoever reads it gets SIGBUS; newer kernels send one at once. Private memory
 * only, and one page: the kernel does not use that page of the machine again.
 */
static void broken(struct mem *m)
{
	sighandler_t before;
	uint32_t flags = 0;
	int err;

	fill(m);
	before = signal(SIGBUS, no_harm);
	err = madvise(mem_page(m, FIRST + 1), page, MADV_HWPOISON) < 0 ? errno : 0;
	signal(SIGBUS, before);
	if (err)
		fph_test_skip("MADV_HWPOISON: %s", strerror(err));
	check_int(fph_map_region(scanner, &m->r, 0, m->r.used, FPH_MAP_CONTENT, see_second,
				 &flags, NULL), 0);
	check_int(flags, FPH_PAGE_SWAPPED);
}

#define ANON	(1u << K_ANON)
#define FILES	(1u << K_MEMFD | 1u << K_TMPFS)
#define COPIES	(1u << K_PRIVATE)
#define ALL	(ANON | FILES | COPIES)

static const struct state_row {
	const char *name;
	unsigned int kinds;
	void (*make)(struct mem *m);
} rows[] = {
	{ "untouched", ALL, untouched },
	{ "read", ALL, read_touched },
	{ "written", ALL, fill },
	{ "written with zeros", ALL, written_zero },
	{ "read, then written", ALL, read_then_written },
	{ "every other page written", ALL, alternating },
	{ "written, then MADV_DONTNEED", ALL, dontneed },
	{ "written, then MADV_FREE", ANON, lazily_freed },
	{ "written, then MADV_REMOVE", FILES, removed },
	{ "written, then a hole punched", FILES | COPIES, punched },
	{ "allocated, untouched", FILES | COPIES, allocated },
	{ "written through the descriptor", FILES | COPIES, written_by_fd },
	{ "every other page written through the descriptor", FILES | COPIES, alternating_by_fd },
	{ "every other page written, some through the descriptor", FILES | COPIES, alternating_by_both },
	{ "written by another process", FILES | COPIES, written_by_other },
	{ "copied on write", ANON | COPIES, copied_on_write },
	{ "locked", ALL, locked },
	{ "locked on fault, untouched", ALL, locked_on_fault },
	{ "populated for writing", ALL, populated_write },
	{ "populated for reading", ALL, populated_read },
	{ "written, then PROT_NONE", ALL, prot_none },
	{ "untouched, PROT_NONE", ALL, prot_none_untouched },
	{ "no mapping", ANON, unmapped },
	{ "no mapping at all", ANON, all_unmapped },
	{ "behind the end of the file", FILES | COPIES, file_too_short },
	{ "in the page in which the file ends", FILES | COPIES, file_ends_in_page },
	{ "broken memory", ANON, broken },
	{ "guard marker", ALL, guarded },
	{ "write-protect marker", ALL, wp_marker },
	{ "written, then write-protected", ALL, wp_written },
	{ "huge page written", ANON | FILES, huge_written },
	{ "huge page written, then MADV_DONTNEED in it", ANON | FILES, huge_split },
	{ "huge page written, then a hole punched in it", FILES, huge_punched },
	{ "huge zero page", ANON, huge_zero },
	{ "collapsed into a huge page", ANON | FILES, huge_collapsed },
};

struct state_case {
	const struct state_row *row;
	enum kind kind;
};

static int note_pages(void *opaque, uint64_t start, uint64_t len, uint32_t flags)
{
	uint32_t *pages = opaque;

	/* Whether a huge page is mapped as one can change at any time */
	for (uint64_t i = start / page; i < (start + len) / page; i++)
		pages[i] = 1u << 31 | (flags & ~FPH_PAGE_HUGE);
	return 0;
}

/* Whoever says that all of it is mapped is told the same, in another way */
static void check_map(const struct mem *m)
{
	uint32_t *one = calloc(NPAGES, sizeof(*one)), *other = calloc(NPAGES, sizeof(*other));

	check(one && other);
	check_int(fph_map_region(scanner, &m->r, 0, m->r.used, 0, note_pages, one, NULL), 0);
	check_int(fph_map_region(scanner, &m->r, 0, m->r.used, FPH_MAP_MAPPED, note_pages, other,
				 NULL), 0);
	for (size_t i = 0; i < NPAGES; i++)
		if (one[i] && one[i] != other[i])	/* 0: it is not */
			fail_msg("page %zu is 0x%x, or 0x%x if all is mapped", i, one[i], other[i]);
	free(one);
	free(other);
}

static void check_state(void **state)
{
	const struct state_case *c = *state;
	struct mem m;

	need_method(c->kind);
	mem_open(&m, c->kind, NPAGES);
	c->row->make(&m);
	mem_check(&m);
	check_map(&m);
	mem_close(&m);
}

/* Rows must not pass because a zero page was never there */
static void zero_page_is_seen(void **state)
{
	struct mem m;
	char *found;

	if (!sees_zero_page)
		fph_test_skip("PFNs are hidden");
	if (reads_take)
		fph_test_skip("this kernel maps no zero page");
	mem_open(&m, K_ANON, NPAGES);
	sink = *mem_page(&m, 3);
	found = mem_scan(&m);
	check_int(found[2], W_ABSENT);
	check_int(found[3], W_ZERO);
	free(found);
	mem_close(&m);
}

struct usage {
	long rss;
	long tables;
};

static struct usage usage(void)
{
	FILE *f = fopen("/proc/self/status", "re");
	struct usage u = { -1, -1 };
	char line[256];

	check(f != NULL);
	while (fgets(line, sizeof(line), f)) {
		sscanf(line, "VmRSS: %ld", &u.rss);
		sscanf(line, "VmPTE: %ld", &u.tables);
	}
	fclose(f);
	check(u.rss >= 0 && u.tables >= 0);
	return u;
}

static int sum_absent(void *opaque, uint64_t start, uint64_t len,
		      enum fph_reason why)
{
	uint64_t *sum = opaque;

	*sum += why == FPH_UNMAPPED ? len : 0;
	return 0;
}

/* 8 GiB of nothing, scanned: neither memory nor page tables may grow */
static void large_and_empty(void **state)
{
	const enum kind *kind = *state;
	size_t npages = (UINT64_C(8) << 30) / page;
	struct usage before, after;
	struct fph_verdict v;
	uint64_t absent = 0;
	struct stat st;
	struct mem m;

	need_method(*kind);
	mem_open(&m, *kind, npages);
	usage();		/* reading it takes memory, the first time */
	before = usage();
	check_int(fph_region_classify(scanner, &m.r, &v), 0);
	check_int(fph_scan_region(scanner, &m.r, v.method, 0, UINT64_MAX,
				  sum_absent, &absent, NULL), 0);
	after = usage();
	check_int(absent, m.r.used);
	if (after.rss > before.rss + 1024)
		fail_msg("RSS grew from %ld to %ld KiB", before.rss, after.rss);
	check(after.tables <= before.tables + 64);
	if (m.fd >= 0) {
		check_int(fstat(m.fd, &st), 0);
		check_int(st.st_blocks, 0);
	}
	mem_close(&m);
}

/*
 * Pages in use, far from each other, in 8 GiB of nothing; where page tables and
 * windows end, too
 */
static const struct island {
	uint64_t mib;
	int pages;
} islands[] = {
	{ 0, 0 }, { 0, 1 }, { 2, -1 }, { 2, 0 }, { 32, -1 }, { 32, 0 }, { 64, -1 }, { 64, 0 },
	{ 78, 0 }, { 1024, -1 }, { 1024, 0 }, { 1024, 1 }, { 1172, 0 }, { 2048, 0 },
	{ 4096, -1 }, { 5860, 0 }, { 5860, 2 }, { 8192, -1 },
};

static uint64_t island(size_t i)
{
	return (islands[i].mib << 20) / page + islands[i].pages;
}

struct gaps {
	size_t next;		/* island */
	uint64_t at;		/* page from which on nothing was reported */
};

static int check_gap(void *opaque, uint64_t start, uint64_t len, enum fph_reason why)
{
	struct gaps *g = opaque;

	check_int(why, FPH_UNMAPPED);
	while (g->next < ARRAY_SIZE(islands) && island(g->next) == g->at) {
		g->next++;
		g->at++;
	}
	check_int(start / page, g->at);
	g->at += len / page;
	check(g->next == ARRAY_SIZE(islands) || g->at <= island(g->next));
	return 0;
}

static void large_with_islands(void **state)
{
	struct fph_verdict v;
	struct gaps g = { 0 };
	struct mem m;

	mem_open(&m, K_ANON, (UINT64_C(8) << 30) / page);
	for (size_t i = 0; i < ARRAY_SIZE(islands); i++)
		*mem_page(&m, island(i)) = 1;
	check_int(fph_region_classify(scanner, &m.r, &v), 0);
	check_int(fph_scan_region(scanner, &m.r, v.method, 0, UINT64_MAX, check_gap, &g,
				  NULL), 0);
	check_int(g.next, ARRAY_SIZE(islands) - 1);	/* the last one ends it */
	check_int(g.at, m.npages - 1);
	mem_close(&m);
}

/* The scanner of the parent would show the parent's memory */
static void child_is_refused(void **state)
{
	struct fph_verdict v, parent;
	const char *why;
	struct mem m;
	int status;
	pid_t pid;

	mem_open(&m, K_ANON, 16);
	check_int(fph_region_classify(scanner, &m.r, &parent), 0);
	pid = fork();
	check(pid >= 0);
	if (!pid) {
		mem_fill(&m, 0, 16, 1);
		if (fph_scanner_error(scanner, &why) != -ESRCH ||
		    fph_region_classify(scanner, &m.r, &v) < 0 ||
		    v.method != FPH_METHOD_NONE ||
		    fph_scan_region(scanner, &m.r, parent.method, 0,
				    m.r.used, NULL, NULL, NULL) != -ESRCH)
			_exit(1);
		_exit(0);
	}
	check_int(waitpid(pid, &status, 0), pid);
	check_int(status, 0);
	mem_close(&m);
}

int main(int argc, char **argv)
{
	static const enum kind kinds[] = { K_ANON, K_MEMFD, K_TMPFS, K_PRIVATE };
	static struct state_case cases[ARRAY_SIZE(rows) * K_MAX];
	static char names[ARRAY_SIZE(cases)][96];
	struct fph_tests t = { 0 };
	size_t n = 0;

	ktest_init(argc, argv);
	for (size_t k = 0; k < K_MAX; k++) {
		for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
			if (!(rows[i].kinds & 1u << k))
				continue;
			/* In a guest, whose memory comes back */
			if (rows[i].make == broken && !getenv("FPH_TEST_BREAK_MEMORY"))
				continue;
			cases[n] = (struct state_case){ &rows[i], k };
			snprintf(names[n], sizeof(names[n]), "%s: %s",
				 kind_name(k), rows[i].name);
			fph_test_add(&t, names[n], check_state, &cases[n]);
			n++;
		}
	}
	fph_test_add(&t, "the zero page is seen", zero_page_is_seen, NULL);
	fph_test_add(&t, "anon: large, with islands", large_with_islands, NULL);
	fph_test_add(&t, "anon: large and empty", large_and_empty, &kinds[K_ANON]);
	fph_test_add(&t, "memfd: large and empty", large_and_empty, &kinds[K_MEMFD]);
	fph_test_add(&t, "private memfd: large and empty", large_and_empty, &kinds[K_PRIVATE]);
	fph_test_add(&t, "a forked child is refused", child_is_refused, NULL);
	return fph_test_run(&t, "states");
}

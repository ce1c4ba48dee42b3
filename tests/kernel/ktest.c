/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/magic.h>

#include "ktest.h"
#include "scanner.h"
#include "swap.h"
#include "zero-page.h"

struct fph_scanner *scanner;
size_t page;
bool sees_zero_page;
bool reads_take;

static int pagemap = -1;

const char *kind_name(enum kind kind)
{
	static const char *const names[] = { "anon", "memfd", "tmpfs", "private memfd" };

	return names[kind];
}

void ktest_init(int argc, char **argv)
{
	struct fph_scanner_opts opts = { .sz = sizeof(opts) };
	const char *why;

	setvbuf(stdout, NULL, _IOLBF, 0);
	page = sysconf(_SC_PAGESIZE);
	while (argc > 1 && strcmp(argv[1], fph_scanner_kind_name(opts.kind)) != 0)
		if (++opts.kind == FPH_SCANNER_MAX)
			exit(EXIT_FAILURE);
	if (fph_scanner_open_with(&scanner, &opts) < 0)
		abort();
	if (fph_scanner_error(scanner, &why) < 0)
		fph_test_skip_all("%s", why);
	pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (pagemap < 0)
		fph_test_skip_all("/proc/self/pagemap: %s", strerror(errno));
	sees_zero_page = fph_scanner_get_kind(scanner) == FPH_SCANNER_PAGEMAP_SCAN ||
			 scanner->zero_pfn;
	if (!sees_zero_page)
		puts("without CAP_SYS_ADMIN the zero page cannot be told");
	reads_take = !host_has_zero_page();
	if (reads_take)
		puts("private memory that is read gets pages here, and no zero page");
}

void need_method(enum kind kind)
{
	if (kind != K_ANON && scanner->no_seek)
		fph_test_skip("%s", scanner->no_seek);
}

static int open_file(enum kind kind, size_t bytes)
{
	struct statfs fs;
	int fd;

	if (kind == K_ANON)
		return -1;
	if (kind != K_TMPFS) {
		fd = memfd_create("fph-test", MFD_CLOEXEC);
	} else {
		fd = open("/dev/shm", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
		if (fd < 0 || fstatfs(fd, &fs) < 0 || fs.f_type != TMPFS_MAGIC)
			fph_test_skip("no tmpfs in /dev/shm");
	}
	check(fd >= 0);
	check_int(ftruncate(fd, bytes), 0);
	return fd;
}

void mem_open(struct mem *m, enum kind kind, size_t npages)
{
	size_t bytes = npages * page;
	int fd = open_file(kind, bytes);
	bool shared = fd >= 0 && kind != K_PRIVATE;
	int flags = shared ? MAP_SHARED : fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_PRIVATE;
	char *all, *p;

	/* aligned for huge pages, with a guard on both sides */
	all = mmap(NULL, bytes + 2 * HUGE, PROT_NONE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	check(all != MAP_FAILED);
	p = (char *)(((uintptr_t)all + HUGE) & ~(HUGE - 1));
	check(mmap(p, bytes, PROT_READ | PROT_WRITE,
		   flags | MAP_FIXED | MAP_NORESERVE, fd, 0) == p);
	madvise(p, bytes, MADV_NOHUGEPAGE);

	*m = (struct mem){
		.kind = kind,
		.p = p,
		.npages = npages,
		.fd = fd,
		.r = {
			.sz = sizeof(m->r),
			.host = p,
			.used = bytes,
			.max = bytes,
			.page_size = page,
			.fd = fd,
			.flags = shared ? FPH_REGION_SHARED : 0,
		},
		.want = malloc(npages),
	};
	check(m->want != NULL);
	mem_want(m, 0, npages, W_ABSENT);
}

void mem_close(struct mem *m)
{
	munmap(m->p, m->npages * page);
	if (m->fd >= 0)
		close(m->fd);
	free(m->want);
}

char *mem_page(const struct mem *m, size_t i)
{
	return m->p + i * page;
}

void mem_fill(struct mem *m, size_t first, size_t n, char with)
{
	memset(mem_page(m, first), with, n * page);
}

void mem_want(struct mem *m, size_t first, size_t n, char want)
{
	memset(m->want + first, want, n);
}

uint64_t *raw_pagemap(const struct mem *m)
{
	size_t bytes = m->npages * sizeof(uint64_t);
	uint64_t *raw = malloc(bytes);

	check(raw != NULL);
	check_int(pread(pagemap, raw, bytes,
			(uintptr_t)m->p / page * sizeof(uint64_t)), bytes);
	for (size_t i = 0; i < m->npages; i++)
		raw[i] &= UINT64_C(7) << 61;
	return raw;
}

/* Which pages have memory, as far as it can be told without giving them any */
struct residence {
	uint64_t *raw;
	unsigned char *core;
	blkcnt_t blocks;
};

static struct residence residence(const struct mem *m)
{
	struct residence r = {
		.raw = raw_pagemap(m),
		.core = calloc(1, m->npages),
	};
	struct stat st;

	check(r.core != NULL);
	/* ENOMEM: parts without a mapping, which rows make on purpose */
	if (mincore(m->p, m->npages * page, r.core) < 0)
		check_int(errno, ENOMEM);
	if (m->fd >= 0) {
		check_int(fstat(m->fd, &st), 0);
		r.blocks = st.st_blocks;
	}
	return r;
}

static void check_same_residence(const struct mem *m, struct residence *a,
				 struct residence *b)
{
	check_mem(a->raw, b->raw, m->npages * sizeof(uint64_t));
	check_mem(a->core, b->core, m->npages);
	check_int(a->blocks, b->blocks);
	free(a->raw);
	free(a->core);
	free(b->raw);
	free(b->core);
}

struct found {
	char *pages;
	uint64_t npages;
	uint64_t end;
};

static int found_sink(void *opaque, uint64_t start, uint64_t len,
		      enum fph_reason why)
{
	struct found *f = opaque;

	check_int(start % page, 0);
	check_int(len % page, 0);
	check(len > 0);
	check(start >= f->end);
	check(start / page + len / page <= f->npages);
	memset(f->pages + start / page,
	       why == FPH_UNMAPPED ? W_ABSENT : W_ZERO, len / page);
	f->end = start + len;
	return 0;
}

static enum fph_method wanted_method(enum kind kind)
{
	bool by_entries = fph_scanner_get_kind(scanner) == FPH_SCANNER_PAGEMAP;

	switch (kind) {
	case K_ANON:
		return by_entries ? FPH_METHOD_PAGEMAP : FPH_METHOD_PAGEMAP_SCAN;
	case K_PRIVATE:
		return by_entries ? FPH_METHOD_PAGEMAP_SEEK : FPH_METHOD_PAGEMAP_SCAN_SEEK;
	default:
		return FPH_METHOD_SEEK;
	}
}

char *mem_scan(const struct mem *m)
{
	struct found f = { calloc(1, m->npages), m->npages, 0 };
	struct fph_verdict v;

	check(f.pages != NULL);
	check_int(fph_region_classify(scanner, &m->r, &v), 0);
	check_int(v.method, wanted_method(m->kind));
	check_int(fph_scan_region(scanner, &m->r, v.method, 0, m->r.used,
				  found_sink, &f, NULL), 0);
	return f.pages;
}

char *mem_query(const struct mem *m, uint64_t inverted, uint64_t mask,
		uint64_t anyof)
{
	uint64_t base = (uintptr_t)m->p;
	uint64_t end = base + m->npages * page;
	char *pages = calloc(1, m->npages);
	struct fph_pm_range vec[512];

	check(pages != NULL);
	for (uint64_t at = base; at < end;) {
		struct fph_pm_scan arg = {
			.size = sizeof(arg),
			.start = at,
			.end = end,
			.vec = (uintptr_t)vec,
			.vec_len = ARRAY_SIZE(vec),
			.category_inverted = inverted,
			.category_mask = mask,
			.category_anyof_mask = anyof,
			.return_mask = FPH_PM_PFNZERO,
		};
		int n = ioctl(pagemap, FPH_PAGEMAP_SCAN, &arg);

		check(n >= 0);
		for (int i = 0; i < n; i++)
			memset(pages + (vec[i].start - base) / page,
			       vec[i].categories ? W_ZERO : W_ABSENT,
			       (vec[i].end - vec[i].start) / page);
		check(arg.walk_end > at);
		at = arg.walk_end;
	}
	return pages;
}

/* One query of the library, and the two plain ones that it stands for */
static void check_against_two_queries(const struct mem *m, const char *found)
{
	uint64_t both = FPH_PM_PRESENT | FPH_PM_SWAPPED;
	char *none = mem_query(m, both, both, 0);
	char *zero = mem_query(m, 0, FPH_PM_PFNZERO, 0);

	for (size_t i = 0; i < m->npages; i++) {
		check(!none[i] || !zero[i]);
		check_int(found[i], none[i] ? W_ABSENT : zero[i] ? W_ZERO : 0);
	}
	free(none);
	free(zero);
}

/*
 * Runs in a child, whose page tables are its own. /proc/self/mem reads through
 * PROT_NONE, and says EIO where there is no memory behind a mapping. A file is
 * asked itself, past markers in the mapping; it says 0 behind its end.
 */
static int read_zero(const struct mem *m, const char *found)
{
	bool shared = m->r.flags & FPH_REGION_SHARED;
	int fd = shared ? m->fd : open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	uintptr_t base = shared ? 0 : (uintptr_t)m->p;
	char *buf = malloc(page);

	if (fd < 0 || !buf)
		return 2;
	for (size_t i = 0; i < m->npages; i++) {
		if (!found[i])
			continue;
		if (pread(fd, buf, page, base + i * page) != (ssize_t)page) {
			printf("page %zu was reported, but is no memory\n", i);
			return 1;
		}
		for (size_t b = 0; b < page; b++) {
			if (buf[b]) {
				printf("page %zu was reported, but is not zero\n", i);
				return 1;
			}
		}
	}
	return 0;
}

static void check_reads_zero(const struct mem *m, const char *found)
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	check(pid >= 0);
	if (!pid) {
		int bad = read_zero(m, found);

		fflush(stdout);
		_exit(bad);
	}
	check_int(waitpid(pid, &status, 0), pid);
	check_int(status, 0);
}

static bool as_wanted(char found, char want)
{
	if (want == W_ZERO_IF_SEEN || (want == W_ZERO && !sees_zero_page))
		return found == W_ZERO || found == W_NOTHING;
	return found == want;
}

void mem_check(const struct mem *m)
{
	struct residence before = residence(m);
	char *found = mem_scan(m);
	struct residence after = residence(m);

	check_same_residence(m, &before, &after);
	for (size_t i = 0; i < m->npages; i++)
		if (!as_wanted(found[i], m->want[i]))
			fail_msg("page %zu: found '%c', wanted '%c'", i,
				 found[i] ? found[i] : '-',
				 m->want[i] ? m->want[i] : '-');
	if (m->kind == K_ANON && fph_scanner_get_kind(scanner) == FPH_SCANNER_PAGEMAP_SCAN)
		check_against_two_queries(m, found);
	check_reads_zero(m, found);
	free(found);
}

const char *swap_provide(size_t huge)
{
	page = sysconf(_SC_PAGESIZE);
	return swap_begin(huge * HUGE);
}

/* For a shared mapping, smaps tells how much of the file is in swap */
static size_t swapped_bytes(const struct mem *m)
{
	uintptr_t end = (uintptr_t)mem_page(m, m->npages);
	FILE *f = fopen("/proc/self/smaps", "re");
	unsigned long from, to, kib;
	bool inside = false;
	char line[512];
	size_t sum = 0;

	check(f != NULL);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
			inside = from >= (uintptr_t)m->p && to <= end;
		else if (inside && sscanf(line, "Swap: %lu kB", &kib) == 1)
			sum += kib << 10;
	}
	fclose(f);
	return sum;
}

static bool is_out(const struct mem *m, size_t first, size_t n)
{
	uint64_t *raw = raw_pagemap(m);
	bool out = true;

	for (size_t i = 0; i < n && out; i++)
		out = m->r.flags & FPH_REGION_SHARED ? !(raw[first + i] & RAW_PRESENT) :
						       raw[first + i] == RAW_SWAPPED;
	free(raw);
	return out && swapped_bytes(m) >= n * page;
}

bool mem_pageout(struct mem *m, size_t first, size_t n)
{
	for (int tries = 0; tries < 100; tries++) {
		check_int(madvise(mem_page(m, first), n * page, MADV_PAGEOUT), 0);
		if (is_out(m, first, n))
			return true;
		usleep(10000);
	}
	return false;
}

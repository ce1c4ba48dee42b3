/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writes to real memory are noticed, whoever writes; what was not written is
 * not; and a scan finds the same as without a watch.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#include <fph/watch.h>

#include "ktest.h"

#define HN	PER_HUGE
#define HFIRST	HN
#define NPAGES	(2 * HN)

static struct fph_watch *watch;
static const char *no_swap;
static volatile char sink;

static int mark_sink(void *opaque, uint64_t start, uint64_t len, uint32_t flags)
{
	char *pages = opaque;

	for (uint64_t i = start / page; i < (start + len) / page; i++) {
		check_int(pages[i], 0);
		pages[i] = flags & FPH_WATCH_HUGE ? 'h' : flags & FPH_WATCH_SWAPPED ? 's' :
			   flags & FPH_WATCH_ABSENT ? 'a' : 'd';
	}
	return 0;
}

static char *new_pages(const struct mem *m)
{
	char *pages = calloc(1, m->npages);

	check(pages != NULL);
	return pages;
}

static void add(struct mem *m)
{
	const char *why;

	if (fph_watch_add(watch, &m->r, &why) < 0)
		fail_msg("fph_watch_add: %s", why);
}

static int try_protect(struct fph_watch *w, struct mem *m)
{
	char *pages = new_pages(m);
	int err = fph_watch_protect(w, &m->r, 0, m->r.used, mark_sink, pages);

	free(pages);
	return err;
}

static int try_written(const struct mem *m, size_t n)
{
	char *pages = new_pages(m);
	int err = fph_watch_written(watch, &m->r, 0, n * page, mark_sink, pages);

	free(pages);
	return err;
}

static char *protect(struct mem *m, size_t first, size_t n)
{
	char *pages = new_pages(m);

	check_int(fph_watch_protect(watch, &m->r, first * page, n * page, mark_sink, pages), 0);
	return pages;
}

static void protect_all(struct mem *m)
{
	check_int(try_protect(watch, m), 0);
}

static char *written(const struct mem *m)
{
	char *pages = new_pages(m);

	check_int(fph_watch_written(watch, &m->r, 0, m->r.used, mark_sink, pages), 0);
	return pages;
}

/*
 * Nothing but @n pages from @first on was written; of what is absent nobody knows,
 * if it is shared
 */
static void check_written(const struct mem *m, size_t first, size_t n)
{
	bool shared = m->r.flags & FPH_REGION_SHARED;
	uint64_t *raw = raw_pagemap(m);
	char *pages = written(m);

	for (size_t i = 0; i < m->npages; i++) {
		bool absent = !(raw[i] & (RAW_PRESENT | RAW_SWAPPED));
		char seen = pages[i] ? pages[i] : '-';

		if (shared && absent ? seen != 'a' : (seen != '-') != (i >= first && i < first + n))
			fail_msg("page %zu is '%c', written are %zu from %zu on", i, seen, n, first);
	}
	free(pages);
	free(raw);
}

static void with_each(void (*fn)(struct mem *m))
{
	static const enum kind kinds[] = { K_ANON, K_MEMFD, K_TMPFS };
	struct mem m;

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		mem_open(&m, kinds[i], NPAGES);
		add(&m);
		fn(&m);
		fph_watch_remove(watch, &m.r);
		mem_close(&m);
	}
}

static void written_by_program(struct mem *m)
{
	mem_fill(m, 100, 50, 1);
	protect_all(m);
	check_written(m, 0, 0);
	sink = *mem_page(m, 120);
	check_written(m, 0, 0);
	*mem_page(m, 110) = 1;	/* what was there before */
	check_written(m, 110, 1);
	protect_all(m);
	check_written(m, 0, 0);
}

static void written_first(struct mem *m)
{
	protect_all(m);
	mem_fill(m, 7, 3, 1);
	check_written(m, 7, 3);
}

static void written_by_kernel(struct mem *m)
{
	int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);

	mem_fill(m, 0, 20, 1);
	protect_all(m);
	check_int(read(fd, mem_page(m, 10), 1), 1);
	close(fd);
	check_written(m, 10, 1);
}

/* As a debugger does, and KVM for a guest: not through this page table walk */
static void written_from_outside(struct mem *m)
{
	int fd = open("/proc/self/mem", O_RDWR | O_CLOEXEC);

	mem_fill(m, 0, 20, 1);
	protect_all(m);
	check_int(pwrite(fd, "x", 1, (uintptr_t)mem_page(m, 10)), 1);
	close(fd);
	check_written(m, 10, 1);
}

/* Marks must not hide from a scan what is absent, nor populate it */
static void absent_stays_absent(struct mem *m)
{
	char *pages;

	mem_fill(m, 100, 50, 1);
	mem_want(m, 100, 50, W_NOTHING);
	mem_check(m);
	pages = protect(m, 0, m->npages);
	for (size_t i = 0; i < m->npages; i++)
		check_int(!pages[i], i < 100 || i >= 150);
	free(pages);
	mem_check(m);
	mem_fill(m, 200, 1, 1);
	mem_want(m, 200, 1, W_NOTHING);
	mem_check(m);
	check_written(m, 200, 1);
}

static void part_only(struct mem *m)
{
	mem_fill(m, 0, 100, 1);
	free(protect(m, 10, 20));
	mem_fill(m, 10, 20, 2);
	check_written(m, 0, 100);
	free(protect(m, 10, 90));
	check_written(m, 0, 10);
}

static void test_written(void **state)
{
	void (*fn)(struct mem *m) = *state;

	with_each(fn);
}

/* What was discarded reads as zero, until it is written */
static void test_discarded(void **state)
{
	struct mem m;

	mem_open(&m, K_ANON, NPAGES);
	add(&m);
	mem_fill(&m, 0, 20, 1);
	protect_all(&m);
	check_int(madvise(mem_page(&m, 0), 20 * page, MADV_DONTNEED), 0);
	check_written(&m, 0, 0);
	sink = *mem_page(&m, 5);
	/* A page that is new, and not marked: nobody sees a write to it */
	check_written(&m, 5, reads_take);
	*mem_page(&m, 5) = 1;
	check_written(&m, 5, 1);
	fph_watch_remove(watch, &m.r);
	mem_close(&m);
}

static bool make_huge(struct mem *m)
{
	if (madvise(m->p, m->npages * page, MADV_HUGEPAGE) < 0)
		return false;
	mem_fill(m, HFIRST, HN, 1);
	madvise(mem_page(m, HFIRST), HN * page, MADV_COLLAPSE);
	return true;
}

/* With one huge page, that is watched and not marked yet */
static void open_huge(struct mem *m, enum kind kind)
{
	char *pages;

	mem_open(m, kind, NPAGES);
	if (!make_huge(m))
		fph_test_skip("no huge pages");
	add(m);
	pages = written(m);
	if (pages[HFIRST] != 'h')
		fph_test_skip("the kernel made no huge page");
	free(pages);
}

/* A huge page can be marked as one; when it is written only that part is */
static void test_huge(void **state)
{
	struct mem m;
	char *pages;

	open_huge(&m, K_ANON);
	pages = protect(&m, 0, NPAGES);
	for (size_t i = HFIRST; i < HFIRST + HN; i++)
		check_int(pages[i], 'h');
	free(pages);
	check_written(&m, 0, 0);
	*mem_page(&m, HFIRST + 9) = 1;
	check_written(&m, HFIRST + 9, 1);
	fph_watch_remove(watch, &m.r);
	mem_close(&m);
}

static void test_part_of_huge(void **state)
{
	struct mem m;

	mem_open(&m, K_ANON, NPAGES);
	if (!make_huge(&m))
		fph_test_skip("no huge pages");
	add(&m);
	free(protect(&m, HFIRST, 100));
	check_written(&m, HFIRST + 100, HN - 100);
	/* khugepaged must not make one of it again, which would take the marks */
	madvise(mem_page(&m, HFIRST), HN * page, MADV_COLLAPSE);
	check_written(&m, HFIRST + 100, HN - 100);
	fph_watch_remove(watch, &m.r);
	mem_close(&m);
}

/* Page after page of a huge page that was not there */
static void test_huge_neighbours(void **state)
{
	struct mem m;
	uint64_t *raw;

	mem_open(&m, K_ANON, NPAGES);
	madvise(m.p, m.npages * page, MADV_HUGEPAGE);
	add(&m);
	protect_all(&m);
	*mem_page(&m, HFIRST + 3) = 1;
	raw = raw_pagemap(&m);
	if (!(raw[HFIRST + 4] & RAW_PRESENT))
		fph_test_skip("the kernel made no huge page");
	free(raw);
	/* They were never marked, so nothing is known of them: all are reported */
	check_written(&m, HFIRST, HN);
	fph_watch_remove(watch, &m.r);
	mem_close(&m);
}

static void test_swapped(void **state)
{
	struct mem m;
	char *pages;

	if (no_swap)
		fph_test_skip("%s", no_swap);
	mem_open(&m, K_ANON, NPAGES);
	add(&m);
	mem_fill(&m, 0, 64, 1);
	protect_all(&m);
	if (!mem_pageout(&m, 0, 64))
		fph_test_skip("the kernel did not page out");
	check_written(&m, 0, 0);
	sink = *mem_page(&m, 3);	/* back in, unchanged */
	check_written(&m, 0, 0);
	*mem_page(&m, 4) = 1;
	check_written(&m, 4, 1);

	/* What is out can be marked there */
	mem_fill(&m, 0, 64, 1);
	if (!mem_pageout(&m, 0, 64))
		fph_test_skip("the kernel did not page out");
	pages = written(&m);
	for (size_t i = 0; i < 64; i++)
		check_int(pages[i], 's');
	free(pages);
	protect_all(&m);
	check_written(&m, 0, 0);
	sink = *mem_page(&m, 5);
	check_written(&m, 0, 0);
	*mem_page(&m, 6) = 1;
	check_written(&m, 6, 1);
	fph_watch_remove(watch, &m.r);
	mem_close(&m);
}

/* A shared page that was taken out of the page table is still known */
static void test_shared_zapped(void **state)
{
	struct mem m;

	mem_open(&m, K_MEMFD, NPAGES);
	add(&m);
	mem_fill(&m, 0, 20, 1);
	protect_all(&m);
	check_int(madvise(mem_page(&m, 0), 20 * page, MADV_DONTNEED), 0);
	sink = *mem_page(&m, 5);
	check_written(&m, 20, 0);
	fph_watch_remove(watch, &m.r);
	mem_close(&m);
}

/* One that was written, and was taken out, is not taken for what it was */
static void test_shared_swapped(void **state)
{
	struct mem m;
	char *pages;

	if (no_swap)
		fph_test_skip("%s", no_swap);
	mem_open(&m, K_MEMFD, NPAGES);
	add(&m);
	mem_fill(&m, 0, 64, 1);
	protect_all(&m);
	*mem_page(&m, 4) = 2;
	check_written(&m, 4, 1);
	if (!mem_pageout(&m, 0, 64))
		fph_test_skip("the kernel did not page out");
	pages = written(&m);
	for (size_t i = 0; i < 64; i++)
		check_int(pages[i], i == 4 ? 'a' : 0);
	free(pages);
	fph_watch_remove(watch, &m.r);
	mem_close(&m);
}

/* A huge page leaves the page table as a whole when it is split */
static void test_shared_huge(void **state)
{
	struct mem m;
	char *pages;

	open_huge(&m, K_MEMFD);
	protect_all(&m);
	*mem_page(&m, HFIRST + 9) = 2;
	pages = written(&m);
	check(pages[HFIRST + 9] != 0);
	free(pages);
	check_int(madvise(mem_page(&m, NPAGES - 1), page, MADV_REMOVE), 0);
	pages = written(&m);
	check(pages[HFIRST + 9] != 0);
	free(pages);
	fph_watch_remove(watch, &m.r);
	mem_close(&m);
}

/*
 * Memory that was pinned before is written past the page tables, as a read with
 * O_DIRECT does that is under way. Who relies on marks must know of it.
 */
static void test_pinned(void **state)
{
	struct io_uring_cqe *cqe;
	struct io_uring_sqe *sqe;
	struct io_uring ring;
	struct iovec buffer;
	struct mem m;
	int fd, err;

	err = io_uring_queue_init(4, &ring, 0);
	if (err < 0)
		fph_test_skip("io_uring: %s", strerror(-err));
	mem_open(&m, K_ANON, NPAGES);
	add(&m);
	mem_fill(&m, 0, 20, 1);
	buffer = (struct iovec){ mem_page(&m, 4), 2 * page };
	check_int(io_uring_register_buffers(&ring, &buffer, 1), 0);
	protect_all(&m);
	fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	check(fd >= 0);
	sqe = io_uring_get_sqe(&ring);
	io_uring_prep_read_fixed(sqe, fd, mem_page(&m, 4), page, 0, 0);
	check_int(io_uring_submit(&ring), 1);
	check_int(io_uring_wait_cqe(&ring, &cqe), 0);
	check_int(cqe->res, page);
	check_mem(mem_page(&m, 4), "\177ELF", 4);
	check_written(&m, 0, 0);

	/* What is pinned, or copied to, from now on is noticed */
	check_int(pread(fd, mem_page(&m, 8), page, 0), page);
	check_written(&m, 8, 1);
	close(fd);
	io_uring_queue_exit(&ring);
	fph_watch_remove(watch, &m.r);
	mem_close(&m);
}

static void test_busy(void **state)
{
	struct fph_watch *other;
	struct mem m;
	const char *why = NULL;

	mem_open(&m, K_ANON, NPAGES);
	check_int(fph_watch_open(&other), 0);
	check_int(fph_watch_add(other, &m.r, &why), 0);
	check_int(fph_watch_add(watch, &m.r, &why), -EBUSY);
	check(strstr(why, "somebody else"));
	check_int(fph_watch_add(other, &m.r, &why), 0);
	fph_watch_remove(other, &m.r);
	check_int(fph_watch_add(watch, &m.r, &why), 0);
	fph_watch_close(other);
	mem_fill(&m, 0, 9, 1);
	protect_all(&m);
	check_written(&m, 0, 0);
	fph_watch_remove(watch, &m.r);
	mem_close(&m);
}

/* Closing removes what was not removed, and writes go on */
static void test_close(void **state)
{
	struct fph_watch *other;
	struct mem m;
	const char *why;

	mem_open(&m, K_ANON, NPAGES);
	mem_fill(&m, 0, 9, 1);
	check_int(fph_watch_open(&other), 0);
	check_int(fph_watch_add(other, &m.r, &why), 0);
	check_int(try_protect(other, &m), 0);
	fph_watch_close(other);
	mem_fill(&m, 0, 9, 2);
	check_int(fph_watch_add(watch, &m.r, &why), 0);
	check_written(&m, 0, 9);
	fph_watch_remove(watch, &m.r);
	mem_close(&m);
}

/* Other memory took the place of what was watched */
static void test_replaced(void **state)
{
	struct mem m;

	mem_open(&m, K_ANON, NPAGES);
	add(&m);
	mem_fill(&m, 0, 9, 1);
	protect_all(&m);
	check(mmap(mem_page(&m, 100), page, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == mem_page(&m, 100));
	check_int(try_written(&m, NPAGES), -EPERM);
	check_int(try_protect(watch, &m), -EPERM);
	check_int(try_written(&m, 100), 0);
	fph_watch_remove(watch, &m.r);
	mem_close(&m);
}

/*
 * A writer counts in its pages, and says beforehand which; whatever is written
 * after a page was marked is noticed. A write that is under way meanwhile can
 * be on either side, so only those count that began after the marking.
 */
struct race {
	struct mem m;
	atomic_uint turn;	/* writes begin in this turn */
	atomic_uint *last;	/* per page: turn of the last write that ended */
	atomic_bool stop;
};

static void *race_writer(void *opaque)
{
	struct race *r = opaque;
	unsigned int seed = 1;

	while (!atomic_load(&r->stop)) {
		size_t i = rand_r(&seed) % r->m.npages;
		unsigned int turn = atomic_load(&r->turn);

		*(volatile unsigned int *)mem_page(&r->m, i) = turn;
		atomic_store(&r->last[i], turn);
	}
	return NULL;
}

static void test_race(void **state)
{
	unsigned int turn, *last = calloc(NPAGES, sizeof(*last));
	struct race r = { .turn = 1 };
	size_t noticed = 0;
	pthread_t thread;

	mem_open(&r.m, *(const enum kind *)*state, NPAGES);
	madvise(r.m.p, r.m.npages * page, MADV_HUGEPAGE);
	r.last = calloc(NPAGES, sizeof(*r.last));
	check(last != NULL && r.last != NULL);
	add(&r.m);
	check_int(pthread_create(&thread, NULL, race_writer, &r), 0);
	for (int i = 0; i < 300; i++) {
		char *pages;

		protect_all(&r.m);
		turn = atomic_fetch_add(&r.turn, 1) + 1;
		usleep(500);
		for (size_t k = 0; k < NPAGES; k++)
			last[k] = atomic_load(&r.last[k]);
		pages = written(&r.m);
		for (size_t k = 0; k < NPAGES; k++) {
			if (last[k] < turn)
				continue;
			noticed++;
			if (!pages[k])
				fail_msg("turn %u: a write to page %zu was not noticed", turn, k);
		}
		free(pages);
	}
	atomic_store(&r.stop, true);
	pthread_join(thread, NULL);
	print_message("%zu writes noticed\n", noticed);
	check(noticed > 0);
	free(last);
	free(r.last);
	fph_watch_remove(watch, &r.m.r);
	mem_close(&r.m);
}

static const enum kind anon = K_ANON, memfd = K_MEMFD;

int main(int argc, char **argv)
{
	struct fph_tests t = { 0 };
	const char *why;

	no_swap = swap_provide(8);
	ktest_init(argc, argv);
	if (fph_watch_open(&watch) < 0)
		abort();
	if (fph_watch_error(watch, &why) < 0)
		fph_test_skip_all("%s", why);

	fph_test_add(&t, "a write is noticed", test_written, written_by_program);
	fph_test_add(&t, "a first write is noticed", test_written, written_first);
	fph_test_add(&t, "a write of the kernel is noticed", test_written, written_by_kernel);
	fph_test_add(&t, "a write from outside is noticed", test_written, written_from_outside);
	fph_test_add(&t, "absent pages are not marked", test_written, absent_stays_absent);
	fph_test_add(&t, "a part is marked", test_written, part_only);
	fph_test_add(&t, "discarded pages", test_discarded, NULL);
	fph_test_add(&t, "a huge page", test_huge, NULL);
	fph_test_add(&t, "part of a huge page", test_part_of_huge, NULL);
	fph_test_add(&t, "neighbours in a new huge page", test_huge_neighbours, NULL);
	fph_test_add(&t, "swapped pages", test_swapped, NULL);
	fph_test_add(&t, "shared pages without an entry", test_shared_zapped, NULL);
	fph_test_add(&t, "shared pages that were swapped out", test_shared_swapped, NULL);
	fph_test_add(&t, "a shared huge page that is split", test_shared_huge, NULL);
	fph_test_add(&t, "memory that was pinned before", test_pinned, NULL);
	fph_test_add(&t, "memory that somebody else watches", test_busy, NULL);
	fph_test_add(&t, "closed while it watches", test_close, NULL);
	fph_test_add(&t, "memory that was replaced", test_replaced, NULL);
	fph_test_add(&t, "a writer beside it, anon", test_race, &anon);
	fph_test_add(&t, "a writer beside it, memfd", test_race, &memfd);
	return fph_test_run(&t, "watch");
}

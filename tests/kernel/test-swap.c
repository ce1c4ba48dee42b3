/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pages that were written and then paged out: content that is nowhere in the
 * page tables of a shared mapping, and must not be taken for nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#include "ktest.h"
#include "sys.h"

#define HN	PER_HUGE
#define HFIRST	HN
#define NPAGES	(2 * HN)
#define FIRST	(HFIRST + 8)
#define N	64

static volatile char sink;

static void out(struct mem *m, size_t first, size_t n)
{
	if (!mem_pageout(m, first, n))
		fph_test_skip("the kernel did not page out");
}

static void written(struct mem *m)
{
	mem_fill(m, FIRST, N, 0x5a);
	out(m, FIRST, N);
	mem_want(m, FIRST, N, W_NOTHING);
}

static void every_other(struct mem *m)
{
	written(m);
	for (int i = 0; i < N; i += 2)
		sink = *mem_page(m, FIRST + i);
}

static void dropped(struct mem *m)
{
	written(m);
	check_int(madvise(mem_page(m, FIRST), N * page,
			  m->kind == K_ANON ? MADV_DONTNEED : MADV_REMOVE), 0);
	mem_want(m, FIRST, N, W_ABSENT);
}

static void huge_page(struct mem *m)
{
	if (madvise(mem_page(m, HFIRST), HN * page, MADV_HUGEPAGE) < 0)
		fph_test_skip("no transparent huge pages: %s", strerror(errno));
	mem_fill(m, HFIRST, HN, 0x5a);
	madvise(mem_page(m, HFIRST), HN * page, MADV_COLLAPSE);
	out(m, HFIRST, HN);
	mem_want(m, HFIRST, HN, W_NOTHING);
}

/* The copies are in swap, and behind them is a hole */
static void punched(struct mem *m)
{
	written(m);
	check_int(fallocate(m->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			    FIRST * page, N * page), 0);
}

#define ALL	((1u << K_MAX) - 1)
#define COPIES	(1u << K_PRIVATE)

static const struct swap_row {
	const char *name;
	void (*make)(struct mem *m);
	unsigned int kinds;
} rows[] = {
	{ "written, paged out", written, ALL },
	{ "written, paged out, partly back", every_other, ALL },
	{ "written, paged out, dropped", dropped, ALL & ~COPIES },
	{ "huge page written, paged out", huge_page, ALL & ~COPIES },
	{ "written, paged out, then a hole punched", punched, COPIES },
};

struct swap_case {
	const struct swap_row *row;
	enum kind kind;
};

static void check_swap(void **state)
{
	const struct swap_case *c = *state;
	struct mem m;

	need_method(c->kind);
	mem_open(&m, c->kind, NPAGES);
	c->row->make(&m);
	mem_check(&m);

	/* the content is still there, so the state was what it should be */
	for (size_t i = 0; i < NPAGES; i++)
		if (m.want[i] == W_NOTHING)
			check_int(*mem_page(&m, i), 0x5a);
	mem_close(&m);
}

/* Why shared memory is not scanned by PAGEMAP_SCAN: it would find these */
static void pagemap_would_be_wrong(void **state)
{
	uint64_t both = FPH_PM_PRESENT | FPH_PM_SWAPPED;
	size_t wrong = 0;
	struct mem m;
	char *none;

	need_method(K_MEMFD);
	mem_open(&m, K_MEMFD, NPAGES);
	written(&m);
	none = mem_query(&m, both, both, 0);
	for (int i = 0; i < N; i++)
		wrong += none[FIRST + i] == W_ABSENT;
	print_message("PAGEMAP_SCAN calls %zu of %d paged out memfd pages absent\n",
		      wrong, N);
	free(none);
	mem_close(&m);
}

/* lseek() calls them data, but when it looked they may have been on the move */
static void second_witness(void **state)
{
	struct mem m;

	need_method(K_MEMFD);
	mem_open(&m, K_MEMFD, NPAGES);
	check_int(fph_sys_linux.file_pages(m.fd, 0, NPAGES * page), 0);
	written(&m);
	check_int(fph_sys_linux.file_pages(m.fd, 0, NPAGES * page), N);
	check_int(fph_sys_linux.file_pages(m.fd, (FIRST + 1) * page, page), 1);
	check_int(fph_sys_linux.file_pages(m.fd, (FIRST + N) * page, page), 0);
	mem_close(&m);
}

int main(int argc, char **argv)
{
	static struct swap_case cases[ARRAY_SIZE(rows) * K_MAX];
	static char names[ARRAY_SIZE(cases)][96];
	struct fph_tests t = { 0 };
	const char *why;
	size_t n = 0;

	why = swap_provide(16);
	if (why)
		fph_test_skip_all("%s", why);
	ktest_init(argc, argv);
	for (size_t k = 0; k < K_MAX; k++) {
		for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
			if (!(rows[i].kinds & 1u << k))
				continue;
			cases[n] = (struct swap_case){ &rows[i], k };
			snprintf(names[n], sizeof(names[n]), "%s: %s",
				 kind_name(k), rows[i].name);
			fph_test_add(&t, names[n], check_swap, &cases[n]);
			n++;
		}
	}
	fph_test_add(&t, "memfd: what PAGEMAP_SCAN would say",
		     pagemap_would_be_wrong, NULL);
	fph_test_add(&t, "memfd: the second witness counts swap", second_witness, NULL);
	return fph_test_run(&t, "swap");
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory full of data, whose page tables other threads turn over all the time:
 * no page of it may ever be reported. FPH_STRESS_MS sets the length of a run.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <time.h>

#include "ktest.h"

#define CHUNKS	8
#define NPAGES	(CHUNKS * PER_HUGE)

static struct mem m;
static atomic_bool stop;
static atomic_ulong pageouts, collapses, touches;

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static char *chunk(unsigned int *seed)
{
	return m.p + rand_r(seed) % CHUNKS * HUGE;
}

static void *page_out(void *arg)
{
	unsigned int seed = 1;

	while (!stop)
		pageouts += madvise(chunk(&seed), HUGE, MADV_PAGEOUT) == 0;
	return NULL;
}

static void *collapse(void *arg)
{
	unsigned int seed = 2;

	while (!stop)
		collapses += madvise(chunk(&seed), HUGE, MADV_COLLAPSE) == 0;
	return NULL;
}

/* Reads and writes; a page is never zero */
static void *touch(void *arg)
{
	unsigned int seed = 3;

	while (!stop) {
		volatile char *p = mem_page(&m, rand_r(&seed) % NPAGES);

		if (*p == 0)
			abort();
		if (rand_r(&seed) % 2)
			*p = rand_r(&seed) | 1;
		touches++;
	}
	return NULL;
}

static int any_range(void *opaque, uint64_t start, uint64_t len,
		     enum fph_reason why)
{
	uint64_t *pages = opaque;

	*pages += len / page;
	return 0;
}

static unsigned int run_ms(void)
{
	const char *s = getenv("FPH_STRESS_MS");
	int ms = s ? atoi(s) : 0;

	return ms > 0 ? ms : 1400;
}

static void stress(void **state)
{
	static void *(*const churn[])(void *) = { page_out, collapse, touch };
	uint64_t both = FPH_PM_PRESENT | FPH_PM_SWAPPED;
	uint64_t scans = 0, reported = 0, pagemap_wrong = 0;
	const enum kind *kind = *state;
	pthread_t threads[ARRAY_SIZE(churn)];
	struct fph_verdict v;
	uint64_t end;
	int err = 0;

	need_method(*kind);
	mem_open(&m, *kind, NPAGES);
	madvise(m.p, NPAGES * page, MADV_HUGEPAGE);
	mem_fill(&m, 0, NPAGES, 0x5a);
	check_int(fph_region_classify(scanner, &m.r, &v), 0);

	stop = false;
	pageouts = collapses = touches = 0;
	for (size_t i = 0; i < ARRAY_SIZE(churn); i++)
		check_int(pthread_create(&threads[i], NULL, churn[i], NULL), 0);

	for (end = now_ms() + run_ms(); !err && now_ms() < end; scans++) {
		err = fph_scan_region(scanner, &m.r, v.method, 0, m.r.used,
				      any_range, &reported, NULL);
		/* for contrast: what the page tables alone would say */
		if (m.kind != K_ANON && scans % 64 == 0) {
			char *none = mem_query(&m, both, both, 0);

			for (size_t i = 0; i < NPAGES; i++)
				pagemap_wrong += none[i] == W_ABSENT;
			free(none);
		}
	}

	stop = true;
	for (size_t i = 0; i < ARRAY_SIZE(churn); i++)
		pthread_join(threads[i], NULL);
	print_message("%s: %ju scans, %ju pages reported; %lu page-outs, %lu collapses, %lu touches",
		      kind_name(*kind), (uintmax_t)scans, (uintmax_t)reported,
		      pageouts, collapses, touches);
	if (m.kind != K_ANON)
		print_message("; PAGEMAP_SCAN would have reported %ju",
			      (uintmax_t)pagemap_wrong);
	print_message("\n");
	mem_close(&m);

	check_int(err, 0);
	check(scans > 0);
	check(touches > 0);
	check_int(reported, 0);
}

int main(int argc, char **argv)
{
	static const enum kind kinds[] = { K_ANON, K_MEMFD, K_PRIVATE };
	struct fph_tests t = { 0 };
	const char *why;

	/* Without swap there is less to turn over, but still something */
	why = swap_provide(4 * CHUNKS);
	if (why)
		printf("%s\n", why);
	if (why && fph_test_skip_forbidden())
		return EXIT_FAILURE;
	ktest_init(argc, argv);
	fph_test_add(&t, "anon", stress, &kinds[0]);
	fph_test_add(&t, "memfd", stress, &kinds[1]);
	fph_test_add(&t, "private memfd", stress, &kinds[2]);
	return fph_test_run(&t, "stress");
}

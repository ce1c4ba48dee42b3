/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the tracer costs, and what it saves.
 *
 *   meson test --benchmark -C build tracer -v
 *   bench-tracer [MIB [OBJECT [ROUNDS]]]
 *
 * MIB: memory to scan, 1024 by default, 0 for none; OBJECT: tp by default; ROUNDS: 51
 * by default.
 *
 * Cost: nanoseconds for the first write to a page of 4 KiB, in memory that this
 * machine has had before, without the tracer, with it for other processes, and
 * traced; and the same for a system call. Gain: time to scan memory that is
 * populated, all of it, in pages of 4 KiB and in huge pages. Everything takes
 * turns in one run, and medians are shown.
 *
 * Needs root, and loads the tracer into a bpffs of its own.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <fph/scan.h>
#include <fph/tracer.h>

#define PATH	"/sys/fs/bpf/fph"
#define PAGE	4096ul
#define HUGE	(2ul << 20)
#define PAGES	8192ul		/* for one measurement of faults */
#define CALLS	50000ul
#define ROUNDS_MAX	51

static const char *object = "tp";
static int rounds = ROUNDS_MAX;

static void die(const char *what)
{
	fprintf(stderr, "bench-tracer: %s: %s\n", what, strerror(errno));
	exit(EXIT_FAILURE);
}

/* CPU time: others use the machine as well */
static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static void run(const char *arg)
{
	const char *tool = getenv("FPH_TEST_TRACE");
	int status;
	pid_t pid;

	if (!tool) {
		fputs("bench-tracer: FPH_TEST_TRACE is not set: run it by meson\n", stderr);
		exit(EXIT_FAILURE);
	}
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		if (!freopen("/dev/null", "w", stdout))
			_exit(127);
		execl(tool, tool, arg, "--object", object, NULL);
		_exit(127);
	}
	if (waitpid(pid, &status, 0) < 0 || status)
		die("fph-trace");
	/* For a while after one was taken out, a function is slower than with it */
	if (strcmp(object, "complete") == 0)
		sleep(3);
}

static char *map_memory(size_t size, int advice)
{
	char *p = mmap(NULL, size + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		       -1, 0);

	if (p == MAP_FAILED)
		die("mmap");
	p = (char *)(((uintptr_t)p + HUGE - 1) & -HUGE);
	if (madvise(p, size, advice) < 0)
		die("madvise");
	return p;
}

static struct fph_tracer *trace(const char *p, size_t size)
{
	struct fph_traced m = {
		.sz = sizeof(m), .start = (uintptr_t)p, .len = size, .fd = -1,
	};
	struct fph_tracer *t;
	const char *why;

	if (fph_tracer_open(&t, PATH, 0, &why) < 0 || fph_tracer_add(t, &m, &why) < 0) {
		fprintf(stderr, "bench-tracer: %s\n", why);
		exit(EXIT_FAILURE);
	}
	return t;
}

/* Nanoseconds for a fault that takes a page; the first ones after something else take more */
static double fault(char *p)
{
	double best = 0;

	for (int i = 0; i < 4; i++) {
		double ns, start;

		if (madvise(p, PAGES * PAGE, MADV_DONTNEED) < 0)
			die("madvise");
		start = now();
		for (size_t k = 0; k < PAGES; k++)
			*(volatile char *)(p + k * PAGE) = 1;
		ns = (now() - start) / PAGES;
		if (!i || ns < best)
			best = ns;
	}
	return best;
}

/* ... and for a system call */
static double call(void)
{
	double start = now();

	for (size_t i = 0; i < CALLS; i++)
		syscall(SYS_getppid);
	return (now() - start) / CALLS;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double median(double *v)
{
	qsort(v, rounds, sizeof(*v), compare);
	return v[rounds / 2];
}

static void cost(void)
{
	static const char *const names[] = { "no tracer", "other processes traced", "traced" };
	double faults[3][ROUNDS_MAX], calls[3][ROUNDS_MAX];
	char *p = map_memory(PAGES * PAGE, MADV_NOHUGEPAGE);
	double base_fault, base_call;

	for (int i = 0; i < 3; i++)
		fault(p);
	for (int i = 0; i < rounds; i++) {
		struct fph_tracer *t;

		faults[0][i] = fault(p);
		calls[0][i] = call();
		run("--load");
		faults[1][i] = fault(p);
		calls[1][i] = call();
		t = trace(p, PAGES * PAGE);
		faults[2][i] = fault(p);
		calls[2][i] = call();
		fph_tracer_close(t);
		run("--unload");
	}
	/* Differences within a round, as the machine is faster at some times */
	for (int k = 2; k > 0; k--) {
		for (int i = 0; i < rounds; i++) {
			faults[k][i] -= faults[0][i];
			calls[k][i] -= calls[0][i];
		}
	}
	base_fault = median(faults[0]);
	base_call = median(calls[0]);
	printf("%-24s %12s %8s %14s\n", "", "first write", "", "system call");
	printf("%-24s %9.0f ns %8s %11.0f ns\n", names[0], base_fault, "", base_call);
	for (int i = 1; i < 3; i++) {
		double f = median(faults[i]);

		printf("%-24s %+9.0f ns %+7.1f%% %+11.0f ns\n", names[i], f,
		       100 * f / base_fault, median(calls[i]));
	}
	munmap(p, PAGES * PAGE);
}

static int sink(void *opaque, uint64_t start, uint64_t len, enum fph_reason why)
{
	*(uint64_t *)opaque += len;
	return 0;
}

static void gain(size_t size, int advice, const char *name)
{
	double with[ROUNDS_MAX], without[ROUNDS_MAX], w, wo;
	struct fph_scanner *scanner;
	struct fph_verdict verdict;
	struct fph_region r = { .sz = sizeof(r), .used = size, .max = size, .page_size = PAGE, .fd = -1 };
	uint64_t found = 0, passed = 0;
	struct fph_tracer *t;

	r.host = map_memory(size, advice);
	t = trace(r.host, size);
	for (size_t i = 0; i < size; i += advice == MADV_HUGEPAGE ? HUGE : PAGE)
		*(volatile char *)((char *)r.host + i) = 1;
	if (fph_scanner_open(&scanner) < 0 || fph_region_classify(scanner, &r, &verdict) < 0)
		die("scanner");
	for (int i = 0; i < rounds; i++) {
		uint64_t from, to, at = (uintptr_t)r.host, end = at + size;
		double start = now();

		if (fph_scan_region(scanner, &r, verdict.method, 0, size, sink, &found, NULL) < 0)
			die("scan");
		without[i] = now() - start;
		start = now();
		while (fph_tracer_next(t, at, end, &from, &to) > 0) {
			if (fph_scan_region(scanner, &r, verdict.method, from - (uintptr_t)r.host,
					    to - from, sink, &found, NULL) < 0)
				die("scan");
			at = to;
			passed += to - from;
		}
		with[i] = now() - start;
	}
	w = median(with);
	wo = median(without);
	printf("%-24s %9.0f us %9.0f us %6.1f%%   (%llu bytes scanned, %llu found)\n", name,
	       wo / 1000, w / 1000, 100 * w / wo, (unsigned long long)passed,
	       (unsigned long long)found);
	fph_scanner_close(scanner);
	fph_tracer_close(t);
	munmap(r.host, size);
}

int main(int argc, char **argv)
{
	size_t size = (argc > 1 ? strtoul(argv[1], NULL, 10) : 1024) << 20;

	if (argc > 2)
		object = argv[2];
	if (argc > 3)
		rounds = strtol(argv[3], NULL, 10);
	if (rounds < 1 || rounds > ROUNDS_MAX) {
		fprintf(stderr, "bench-tracer: 1 to %d rounds\n", ROUNDS_MAX);
		return EXIT_FAILURE;
	}
	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("bpf", "/sys/fs/bpf", "bpf", 0, NULL) < 0)
		die("no bpffs of our own");
	cost();
	if (!size)
		return EXIT_SUCCESS;
	run("--load");
	printf("\nscan of %zu MiB, all of it populated\n%-24s %12s %12s\n", size >> 20, "",
	       "without", "with tracer");
	gain(size, MADV_NOHUGEPAGE, "pages of 4 KiB");
	gain(size, MADV_HUGEPAGE, "huge pages");
	run("--unload");
	return EXIT_SUCCESS;
}

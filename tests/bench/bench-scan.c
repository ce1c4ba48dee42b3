/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What scans cost, each beside what it is compared with, in turns: medians of
 * the times, and their ratio. Others use the machine as well, which only makes
 * things slower, so bars are for the best times. Exit status 1 if one is
 * missed.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#ifdef HAVE_LIBURING
#include <liburing.h>
#endif

/* Linux 5.14; the C library may be older */
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#include "scanner.h"
#include "table.h"

#define GIB		(UINT64_C(1) << 30)
#define MIB		(UINT64_C(1) << 20)
#define ROUNDS		15
#define BARE_ENTRIES	4096		/* of pagemap, that a loop without care reads at once */
#define POPULATED	(256 * MIB)	/* small pages take their time to populate */
#define FAULTS		8192
#define REPEATS		50		/* of a scan, where threads are to pay for themselves */

static struct fph_scanner *by_ioctl, *by_entries;
static uint64_t page;
static int pagemap = -1;
static bool missed;

static double now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1e6 + ts.tv_nsec / 1e3;
}

static void die(const char *what)
{
	perror(what);
	exit(2);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double median(double *v, size_t n)
{
	qsort(v, n, sizeof(*v), by_value);
	return v[n / 2];
}

static double best[2];	/* of each in the last race, us */

typedef void (*work_fn)(void *arg);

/* Medians in us; one run of each in turn */
static void race(work_fn a, work_fn b, void *arg, double *a_us, double *b_us)
{
	double ta[ROUNDS], tb[ROUNDS], t0;

	for (int i = 0; i < ROUNDS; i++) {
		for (int j = 0; j < 2; j++) {
			bool first = (i + j) % 2 == 0;
			work_fn fn = first ? a : b;

			if (!fn)
				continue;
			t0 = now_us();
			fn(arg);
			(first ? ta : tb)[i] = now_us() - t0;
		}
	}
	*a_us = median(ta, ROUNDS);
	best[0] = ta[0];
	if (b) {
		*b_us = median(tb, ROUNDS);
		best[1] = tb[0];
	}
}

static void judge(bool ok, const char *bar)
{
	printf("   %s: %s\n", bar, ok ? "kept" : "MISSED");
	missed |= !ok;
}

static void show(const char *what, double us, uint64_t bytes)
{
	printf("%-46s %9.3f ms %9.4f ms/GiB\n", what, us / 1e3, us / 1e3 / (bytes / (double)GIB));
}

/* Memory to look at */
struct mem {
	char *p;
	uint64_t bytes;
	int fd;
	struct fph_scanner *s;
	uint64_t found;
};

static struct mem map_memory(uint64_t bytes, bool shared)
{
	int fd = shared ? memfd_create("bench", MFD_CLOEXEC) : -1;
	struct mem m = { .bytes = bytes, .fd = fd };

	if (shared && (fd < 0 || ftruncate(fd, bytes) < 0))
		die("memfd");
	m.p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_NORESERVE |
		   (shared ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS), fd, 0);
	if (m.p == MAP_FAILED)
		die("mmap");
	madvise(m.p, bytes, MADV_NOHUGEPAGE);
	return m;
}

static void unmap_memory(struct mem *m)
{
	munmap(m->p, m->bytes);
	if (m->fd >= 0)
		close(m->fd);
}

static void populate(struct mem *m, uint64_t step)
{
	for (uint64_t i = 0; i < m->bytes; i += step)
		m->p[i] = 1;
}

static int count(void *opaque, uint64_t start, uint64_t len, enum fph_reason why)
{
	*(uint64_t *)opaque += len;
	return 0;
}

static struct fph_region region_of(const struct mem *m)
{
	return (struct fph_region){
		.sz = sizeof(struct fph_region), .host = m->p, .used = m->bytes, .max = m->bytes,
		.page_size = page, .fd = m->fd, .flags = m->fd >= 0 ? FPH_REGION_SHARED : 0,
	};
}

static void scan(void *arg)
{
	struct mem *m = arg;
	struct fph_region r = region_of(m);
	struct fph_verdict v;

	m->found = 0;
	if (fph_region_classify(m->s, &r, &v) < 0 ||
	    fph_scan_region(m->s, &r, v.method, 0, r.used, count, &m->found, NULL) < 0)
		die("scan");
}

/* As a migration does */
static void scan_steps(void *arg)
{
	struct mem *m = arg;
	struct fph_region r = region_of(m);
	struct fph_verdict v;

	m->found = 0;
	if (fph_region_classify(m->s, &r, &v) < 0)
		die("classify");
	for (uint64_t at = 0; at < r.used; at += GIB)
		if (fph_scan_region(m->s, &r, v.method, at, GIB, count, &m->found, NULL) < 0)
			die("scan");
}

/* What nobody can do without: the same questions, and no use made of the answers */
static void bare_ioctl(void *arg)
{
	static struct fph_pm_range vec[FPH_SCAN_VEC_LEN];
	struct mem *m = arg;
	uint64_t at = (uintptr_t)m->p, end = at + m->bytes;

	while (at < end) {
		uint64_t limit = end - at < FPH_SCAN_WINDOW ? end : at + FPH_SCAN_WINDOW;
		struct fph_pm_scan q;

		fph_pm_query(&q, at, limit, false, vec, FPH_SCAN_VEC_LEN);
		if (ioctl(pagemap, FPH_PAGEMAP_SCAN, &q) < 0)
			die("PAGEMAP_SCAN");
		at = q.walk_end;
	}
}

static uint64_t none_of(const uint64_t *entries, size_t n)
{
	uint64_t none = 0;

	for (size_t i = 0; i < n; i++)
		none += !(entries[i] >> 62);
	return none;
}

static void bare_pread(void *arg)
{
	static uint64_t buf[BARE_ENTRIES];
	struct mem *m = arg;
	uint64_t first = (uintptr_t)m->p / page, n = m->bytes / page;

	m->found = 0;
	for (uint64_t i = 0; i < n; i += BARE_ENTRIES) {
		if (pread(pagemap, buf, sizeof(buf), (first + i) * sizeof(*buf)) != sizeof(buf))
			die("pagemap");
		m->found += none_of(buf, BARE_ENTRIES) * page;
	}
}

#ifdef HAVE_LIBURING
#define DEPTH 4

static struct io_uring ring;
static uint64_t (*ring_buf)[BARE_ENTRIES];

/* Several reads in flight into registered buffers, decoded while others run */
static void bare_uring(void *arg)
{
	struct mem *m = arg;
	uint64_t first = (uintptr_t)m->p / page;
	uint64_t n = m->bytes / page / BARE_ENTRIES, sent = 0, done = 0;
	unsigned int free_slots = (1u << DEPTH) - 1;

	m->found = 0;
	while (done < n) {
		struct io_uring_cqe *cqe = NULL;
		unsigned int slot;

		while (sent < n && free_slots) {
			struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);

			slot = __builtin_ctz(free_slots);
			free_slots &= ~(1u << slot);
			io_uring_prep_read_fixed(sqe, pagemap, ring_buf[slot], sizeof(*ring_buf),
						 (first + sent * BARE_ENTRIES) * sizeof(uint64_t),
						 slot);
			io_uring_sqe_set_data64(sqe, slot);
			sent++;
		}
		if (io_uring_submit_and_wait(&ring, 1) < 0 || io_uring_peek_cqe(&ring, &cqe) < 0)
			die("io_uring");
		slot = cqe->user_data;
		if (cqe->res != (int)sizeof(*ring_buf))
			die("io_uring read");
		io_uring_cqe_seen(&ring, cqe);
		m->found += none_of(ring_buf[slot], BARE_ENTRIES) * page;
		free_slots |= 1u << slot;
		done++;
	}
}

static bool open_ring(void)
{
	struct iovec v[DEPTH];

	ring_buf = aligned_alloc(4096, DEPTH * sizeof(*ring_buf));
	if (!ring_buf || io_uring_queue_init(DEPTH, &ring, 0) < 0)
		return false;
	for (int i = 0; i < DEPTH; i++)
		v[i] = (struct iovec){ ring_buf[i], sizeof(*ring_buf) };
	return io_uring_register_buffers(&ring, v, DEPTH) == 0;
}
#endif

static void compare_uring(struct mem *m, const char *what)
{
#ifdef HAVE_LIBURING
	double a, b;

	race(bare_uring, bare_pread, m, &a, &b);
	printf("%s: io_uring %.3f ms, pread %.3f ms: ratio %.2f, of the best times %.2f\n",
	       what, a / 1e3, b / 1e3, a / b, best[0] / best[1]);
#else
	(void)m;
	printf("%s: built without liburing\n", what);
#endif
}

static void empty(uint64_t bytes, bool shared, double bar_ms)
{
	struct mem m = map_memory(bytes, shared);
	char what[64];
	double us, unused;

	m.s = by_ioctl;
	race(scan, NULL, &m, &us, &unused);
	snprintf(what, sizeof(what), "%s, empty, %ju GiB", shared ? "memfd" : "anonymous",
		 (uintmax_t)(bytes / GIB));
	show(what, us, bytes);
	if (m.found != bytes)
		die("not all of it was found");
	if (bar_ms > 0) {
		printf("   best %.3f ms\n", best[0] / 1e3);
		snprintf(what, sizeof(what), "bar of %.0f ms", bar_ms);
		judge(best[0] <= bar_ms * 1e3, what);
	}
	unmap_memory(&m);
}

static int ignore_pages(void *opaque, uint64_t start, uint64_t len, uint32_t state)
{
	return 0;
}

static void content(void *arg)
{
	struct mem *m = arg;
	struct fph_region r = region_of(m);

	if (fph_map_region(m->s, &r, 0, r.used, FPH_MAP_CONTENT, ignore_pages, NULL, NULL) < 0)
		die("content");
}

struct half {
	pthread_t thread;
	struct mem m;
	struct fph_scanner *s;
};

static void *scan_half(void *arg)
{
	struct half *h = arg;

	h->m.s = h->s;
	for (int i = 0; i < REPEATS; i++)
		scan(&h->m);
	return NULL;
}

static void one_thread(void *arg)
{
	for (int i = 0; i < REPEATS; i++)
		scan(arg);
}

static struct half halves[2];

static void two_threads(void *arg)
{
	struct mem *m = arg;

	for (int i = 0; i < 2; i++) {
		halves[i].m = *m;
		halves[i].m.bytes = m->bytes / 2;
		halves[i].m.p = m->p + i * (m->bytes / 2);
		if (pthread_create(&halves[i].thread, NULL, scan_half, &halves[i]))
			die("pthread_create");
	}
	for (int i = 0; i < 2; i++)
		pthread_join(halves[i].thread, NULL);
}

static void populated(void)
{
	struct mem m = map_memory(POPULATED, false);
	double a, b;

	populate(&m, page);
	m.s = by_ioctl;
	race(scan, bare_ioctl, &m, &a, &b);
	show("anonymous, 4 KiB pages, pagemap-scan", a, m.bytes);
	show("  bare PAGEMAP_SCAN", b, m.bytes);
	printf("   ratio %.2f, of the best times %.2f\n", a / b, best[0] / best[1]);
	judge(best[0] <= 1.2 * best[1], "bar of 1.2");

	race(one_thread, two_threads, &m, &a, &b);
	printf("   two threads, each a half: ratio to one %.2f\n", b / a);

	m.s = by_entries;
	race(scan, bare_pread, &m, &a, &b);
	show("anonymous, 4 KiB pages, pagemap", a, m.bytes);
	show("  bare pread", b, m.bytes);
	compare_uring(&m, "  all present");

	m.s = by_ioctl;
	race(content, NULL, &m, &a, &b);
	show("  content read (process_vm_readv)", a, m.bytes);
	unmap_memory(&m);
}

static void alternating(void)
{
	struct mem m = map_memory(POPULATED, false);
	double a, b;

	populate(&m, 2 * page);
	m.s = by_ioctl;
	race(scan, bare_ioctl, &m, &a, &b);
	show("anonymous, every other page, pagemap-scan", a, m.bytes);
	show("  bare PAGEMAP_SCAN", b, m.bytes);
	printf("   ratio %.2f\n", a / b);
	m.s = by_entries;
	race(scan, NULL, &m, &a, &b);
	show("anonymous, every other page, pagemap", a, m.bytes);
	unmap_memory(&m);
}

static void empty_entries(void)
{
	struct mem m = map_memory(4 * GIB, false);
	double a, b;

	m.s = by_entries;
	race(scan, NULL, &m, &a, &b);
	show("anonymous, empty, pagemap", a, m.bytes);
	compare_uring(&m, "  all absent");
	unmap_memory(&m);
}

static void memfd_data(void)
{
	struct mem m = map_memory(POPULATED, true);
	double a, b;

	m.s = by_ioctl;
	populate(&m, page);
	race(scan, NULL, &m, &a, &b);
	show("memfd, 4 KiB pages, seek", a, m.bytes);
	unmap_memory(&m);
}

/* As the scan does, but for the second witness */
static void bare_seek(void *arg)
{
	struct mem *m = arg;
	off_t at = 0;

	m->found = 0;
	while (at < (off_t)m->bytes) {
		off_t data = lseek(m->fd, at, SEEK_DATA);

		if (data < 0)
			data = m->bytes;
		m->found += data - at;
		if (data == (off_t)m->bytes)
			break;
		at = lseek(m->fd, data, SEEK_HOLE);
	}
}

/* Holes of one page: whoever reads one gives it memory, so all are looked for */
static void memfd_fragmented(void)
{
	struct mem m = map_memory(2 * GIB, true);
	double a, b;

	m.s = by_ioctl;
	populate(&m, 2 * page);
	race(scan, bare_seek, &m, &a, &b);
	show("memfd, every other page, seek", a, m.bytes);
	show("  lseek() alone", b, m.bytes);
	printf("   ratio %.2f, of the best times %.2f\n", a / b, best[0] / best[1]);
	if (m.found != m.bytes / 2)
		die("not all of it was found");
	unmap_memory(&m);
}

static void memfd_empty(void)
{
	struct mem m = map_memory(1024 * GIB, true);
	double a, b;

	m.s = by_ioctl;
	race(scan_steps, bare_seek, &m, &a, &b);
	show("memfd, empty, 1 TiB, a GiB at a time", a, m.bytes);
	printf("   best %.3f ms\n", best[0] / 1e3);
	judge(best[0] <= 5e3, "bar of 5 ms");
	unmap_memory(&m);
}

/*
 * A thread gets fresh pages and looks at the clock, while another one scans
 * memory of the same process over and over. It gets them like KVM does, under
 * mmap_lock, and a third thread maps and unmaps something: with that one in the
 * queue for the lock, page faults wait for whoever has it.
 */
static atomic_bool stop;

static void *scan_all_the_time(void *arg)
{
	while (!stop)
		scan(arg);
	return NULL;
}

static void *ioctl_all_the_time(void *arg)
{
	static struct fph_pm_range vec[FPH_SCAN_VEC_LEN];
	struct mem *m = arg;
	uint64_t at = (uintptr_t)m->p;
	struct fph_pm_scan q;

	while (!stop) {
		fph_pm_query(&q, at, at + m->bytes, false, vec, FPH_SCAN_VEC_LEN);
		if (ioctl(pagemap, FPH_PAGEMAP_SCAN, &q) < 0)
			die("PAGEMAP_SCAN");
	}
	return NULL;
}

static void *map_all_the_time(void *arg)
{
	while (!stop) {
		struct mem m = map_memory(16 * page, false);

		unmap_memory(&m);
		usleep(100);
	}
	return NULL;
}

static void touch(double *lat)
{
	struct mem m = map_memory(FAULTS * page, false);

	for (int i = 0; i < FAULTS; i++) {
		double t0 = now_us();

		if (madvise(m.p + i * page, page, MADV_POPULATE_WRITE) < 0)
			die("MADV_POPULATE_WRITE");
		lat[i] = now_us() - t0;
	}
	qsort(lat, FAULTS, sizeof(*lat), by_value);
	unmap_memory(&m);
}

static void faults(void)
{
	static double lat[FAULTS];
	struct fph_scanner_opts opts = { .sz = sizeof(opts), .cpu_percent = 20 };
	struct mem m = map_memory(POPULATED, false);
	struct fph_scanner *limited;
	struct {
		const char *name;
		void *(*beside)(void *);
		struct fph_scanner *s;
		double p50[3], p99[3], max[3];
	} rows[] = {
		{ "no scan" },
		{ "pagemap-scan", scan_all_the_time, by_ioctl },
		{ "pagemap", scan_all_the_time, by_entries },
		{ "pagemap-scan, 20% of a CPU", scan_all_the_time },
		{ "one ioctl for all of it", ioctl_all_the_time },
	};

	if (fph_scanner_open_with(&limited, &opts) < 0)
		die("scanner");
	rows[3].s = limited;
	populate(&m, page);
	for (int round = 0; round < 3; round++) {
		for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
			pthread_t scanner, mapper;

			stop = false;
			m.s = rows[i].s;
			if (pthread_create(&mapper, NULL, map_all_the_time, NULL))
				die("pthread_create");
			if (rows[i].beside && pthread_create(&scanner, NULL, rows[i].beside, &m))
				die("pthread_create");
			touch(lat);
			stop = true;
			if (rows[i].beside)
				pthread_join(scanner, NULL);
			pthread_join(mapper, NULL);
			rows[i].p50[round] = lat[FAULTS / 2];
			rows[i].p99[round] = lat[FAULTS * 99 / 100];
			rows[i].max[round] = lat[FAULTS - 1];
		}
	}
	printf("\nfaults beside a scan of %ju MiB, us               p50       p99       max\n",
	       (uintmax_t)(POPULATED / MIB));
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		printf("  %-40s %9.1f %9.1f %9.1f\n", rows[i].name, median(rows[i].p50, 3),
		       median(rows[i].p99, 3), median(rows[i].max, 3));
	fph_scanner_close(limited);
	unmap_memory(&m);
}

int main(void)
{
	struct fph_scanner_opts opts = { .sz = sizeof(opts), .kind = FPH_SCANNER_PAGEMAP };
	const char *why;

	setvbuf(stdout, NULL, _IOLBF, 0);
	page = sysconf(_SC_PAGESIZE);
	if (fph_scanner_open(&by_ioctl) < 0 || fph_scanner_open_with(&by_entries, &opts) < 0)
		die("scanner");
	for (int i = 0; i < 2; i++)
		if (fph_scanner_open(&halves[i].s) < 0)
			die("scanner");
	if (fph_scanner_get_kind(by_ioctl) != FPH_SCANNER_PAGEMAP_SCAN) {
		puts("SKIP: no PAGEMAP_SCAN in this kernel");
		return 77;
	}
	if (fph_scanner_error(by_entries, &why) < 0) {
		printf("SKIP: %s\n", why);
		return 77;
	}
	pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (pagemap < 0)
		die("/proc/self/pagemap");
#ifdef HAVE_LIBURING
	if (!open_ring())
		die("io_uring");
#endif
	empty(128 * GIB, false, 1);
	empty(1024 * GIB, false, 5);
	empty(128 * GIB, true, 0);
	memfd_empty();
	empty_entries();
	populated();
	alternating();
	memfd_data();
	memfd_fragmented();
	faults();
	for (int i = 0; i < 2; i++)
		fph_scanner_close(halves[i].s);
	fph_scanner_close(by_ioctl);
	fph_scanner_close(by_entries);
	return missed;
}

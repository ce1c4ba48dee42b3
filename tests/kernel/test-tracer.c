/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The tracer on the running kernel, loaded by plain bpftool into a bpffs of
 * this test's own, against what page tables, page cache and fault counts say.
 *
 * Environment, set by meson: FPH_TEST_BPFTOOL, FPH_TEST_TRACE (fph-trace),
 * FPH_TEST_OBJECTS (folder of the objects). FPH_TEST_OBJECT: the object to test
 * instead of fph_tracer_tp, where the kernel allows it. FPH_TEST_BY_TRACE: fph-trace
 * loads it.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <fph/tracer.h>

#include "fph_tracer.h"
#include "ktest.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif

#define PATH	"/sys/fs/bpf/fph"
#define MIB	(1ul << 20)

static struct fph_tracer *tracer;

static char *env(const char *name)
{
	char *value = getenv(name);

	if (!value)
		fph_test_skip_all("%s is not set: run it by meson test", name);
	return value;
}

/* Run a program; its exit status. @out: what it said on stdout and stderr */
static int run(char *out, size_t size, char *const argv[])
{
	int fds[2], status;
	size_t n = 0;
	ssize_t got;
	pid_t pid;

	check(pipe2(fds, O_CLOEXEC) == 0);
	pid = fork();
	check(pid >= 0);
	if (pid == 0) {
		dup2(fds[1], 1);
		dup2(fds[1], 2);
		execv(argv[0], argv);
		_exit(127);
	}
	close(fds[1]);
	while ((got = read(fds[0], out + n, size - 1 - n)) > 0)
		n += got;
	out[n] = '\0';
	close(fds[0]);
	check(waitpid(pid, &status, 0) == pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#define RUN(out, ...)	run(out, sizeof(out), (char *const[]){ __VA_ARGS__, NULL })

static const char *object(const char *name)
{
	static char path[512];

	snprintf(path, sizeof(path), "%s/%s.bpf.o", env("FPH_TEST_OBJECTS"), name);
	return path;
}

static void load(const char *name)
{
	char out[4096];

	/* It knows what functions of newer kernels are called */
	if (getenv("FPH_TEST_BY_TRACE")) {
		if (RUN(out, env("FPH_TEST_TRACE"), "--load", "--object",
			strcmp(name, "fph_tracer") == 0 ? "complete" : "tp") != 0)
			fail_msg("fph-trace cannot load %s: %s", name, out);
		return;
	}
	if (RUN(out, env("FPH_TEST_BPFTOOL"), "prog", "loadall", (char *)object(name), PATH,
		"pinmaps", PATH "/maps", "autoattach") != 0)
		fail_msg("bpftool cannot load %s: %s", name, out);
}

/* The object that most of the cases are about */
static const char *hooks(void)
{
	const char *name = getenv("FPH_TEST_OBJECT");

	return name ? name : "fph_tracer_tp";
}

static void unload(void)
{
	char out[4096];

	check_int(RUN(out, "/bin/rm", "-r", PATH), 0);
}

static int map(const char *name)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), PATH "/maps/%s", name);
	fd = bpf_obj_get(path);
	check(fd >= 0);
	return fd;
}

static uint64_t drops(__u32 why)
{
	int fd = map("fph_drops");
	uint64_t n;

	check(bpf_map_lookup_elem(fd, &why, &n) == 0);
	close(fd);
	return n;
}

static void set(__u32 setting, uint64_t value)
{
	int fd = map("fph_settings");

	check(bpf_map_update_elem(fd, &setting, &value, BPF_ANY) == 0);
	close(fd);
}

/* What a thread of that name has done, since the last clear_counts() */
static struct fph_counts counts_of(pid_t pid, const char *comm)
{
	struct fph_counts_key key = { .tgid = pid };
	struct fph_counts c = { 0 };
	int fd = map("fph_counts");

	strncpy(key.comm, comm, sizeof(key.comm) - 1);
	bpf_map_lookup_elem(fd, &key, &c);
	close(fd);
	return c;
}

static void clear_counts(void)
{
	struct fph_counts_key key;
	int fd = map("fph_counts");

	while (bpf_map_get_next_key(fd, NULL, &key) == 0)
		check(bpf_map_delete_elem(fd, &key) == 0);
	close(fd);
}

/* Everything else that this process did must be nothing */
static void check_counts(const uint64_t want[FPH_NCAUSES])
{
	struct fph_counts c = counts_of(getpid(), "test-tracer");

	for (int i = 0; i < FPH_NCAUSES; i++) {
		if (c.pages[i] != want[i])
			fail_msg("cause %d: %lu pages, %lu wanted", i,
				 (unsigned long)c.pages[i], (unsigned long)want[i]);
	}
}

static void add(const struct mem *m)
{
	struct fph_traced t = {
		.sz = sizeof(t),
		.start = (uintptr_t)m->p,
		.len = m->npages * page,
		.fd = m->fd,
	};
	const char *why;

	if (fph_tracer_add(tracer, &t, &why) < 0)
		fail_msg("%s", why);
	clear_counts();
}

static void drop(struct mem *m)
{
	fph_tracer_remove(tracer, (uintptr_t)m->p);
	mem_close(m);
}

static bool bit(const struct mem *m, size_t i)
{
	uintptr_t at = (uintptr_t)mem_page(m, i);

	return fph_tracer_touched(tracer, at, at + page);
}

#define KPF_ZERO_PAGE	(UINT64_C(1) << 24)

/* As mem_scan(), on a kernel that has no PAGEMAP_SCAN: from raw tables, slowly */
static char *scan_raw(const struct mem *m)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	int flags = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	char *found = calloc(1, m->npages);
	uint64_t entry, kpf;

	check(found && pagemap >= 0 && flags >= 0);
	for (size_t i = 0; i < m->npages; i++) {
		if (m->fd >= 0) {
			found[i] = lseek(m->fd, i * page, SEEK_DATA) != (off_t)(i * page);
			continue;
		}
		check(pread(pagemap, &entry, 8, (uintptr_t)mem_page(m, i) / page * 8) == 8);
		if (!(entry & RAW_PRESENT)) {
			found[i] = !(entry & RAW_SWAPPED);
			continue;
		}
		check(pread(flags, &kpf, 8, (entry & ((UINT64_C(1) << 55) - 1)) * 8) == 8);
		found[i] = !!(kpf & KPF_ZERO_PAGE);
	}
	close(pagemap);
	close(flags);
	return found;
}

/*
 * Page by page the bits say what the scan says: a page is untouched if, and
 * only if, it is absent or the zero page.
 */
static void check_bits(const struct mem *m)
{
	char *found = scanner ? mem_scan(m) : scan_raw(m);

	for (size_t i = 0; i < m->npages; i++) {
		if (bit(m, i) == (found[i] != 0))
			fail_msg("page %zu: bit %d, scan %d", i, bit(m, i), found[i]);
	}
	free(found);
}

static long faults(void)
{
	struct rusage r;

	check(getrusage(RUSAGE_THREAD, &r) == 0);
	return r.ru_minflt;
}

/* Every @step-th page of @n, in this thread */
static long touch(struct mem *m, size_t first, size_t n, size_t step, bool write)
{
	volatile char *p = mem_page(m, first);
	long before = faults();

	for (size_t i = 0; i < n; i++, p += step * page) {
		if (write)
			*p = 1;
		else
			(void)*p;
	}
	return faults() - before;
}

/* A thread whose first fault is a read */
static void *reader(void *opaque)
{
	pthread_setname_np(pthread_self(), "reader");
	touch(opaque, 8100, 43, 1, false);
	return NULL;
}

static void test_private(void **state)
{
	bool complete = strcmp(hooks(), "fph_tracer") == 0;
	/* Reads that take nothing, those that do; when a fault begins nobody knows which */
	uint64_t zero = complete && reads_take ? 0 : 503;
	uint64_t taken = reads_take ? 503 : 0;
	uint64_t later = reads_take ? 0 : 199;
	uint64_t given = 307 + (reads_take ? 307 : 194);
	pthread_t thread;
	struct mem m;

	mem_open(&m, K_ANON, 8192);
	add(&m);
	check_int(touch(&m, 0, 1009, 2, true), 1009);
	check_int(touch(&m, 1, 503, 2, false), 503);
	check_counts((uint64_t[FPH_NCAUSES]){ [FPH_WRITE] = 1009, [FPH_READ] = taken,
					      [FPH_ZERO] = zero });
	check_bits(&m);

	/* A write where the zero page was takes memory; a second one does not */
	check_int(touch(&m, 1, 199, 2, true), later);
	check_int(touch(&m, 1, 199, 2, true), 0);
	check(madvise(mem_page(&m, 10), 2 * 307 * page, MADV_DONTNEED) == 0);
	/* 307 written at first, and of the others 194 later, or all of them by reading */
	check_counts((uint64_t[FPH_NCAUSES]){ [FPH_WRITE] = 1009 + later, [FPH_READ] = taken,
					      [FPH_ZERO] = zero, [FPH_MADVISE] = given });
	check_bits(&m);

	/* Not given back: the system call fails before, or does nothing of the sort */
	check(mlock(mem_page(&m, 1000), page) == 0);
	check(madvise(mem_page(&m, 1000), page, MADV_DONTNEED) < 0);
	check(munlock(mem_page(&m, 1000), page) == 0);
	check(madvise(mem_page(&m, 1000), 100 * page, MADV_COLD) == 0);
	check(mprotect(mem_page(&m, 1000), 100 * page, PROT_READ) == 0);
	check_bits(&m);

	/* A new mapping in the place of 53 pages that were written, and 3 that were read */
	check(mmap(mem_page(&m, 1000), 106 * page, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == mem_page(&m, 1000));
	check_counts((uint64_t[FPH_NCAUSES]){ [FPH_WRITE] = 1009 + later, [FPH_READ] = taken,
					      [FPH_ZERO] = zero, [FPH_MADVISE] = given,
					      [FPH_UNMAP] = reads_take ? 56 : 53 });
	check(pthread_create(&thread, NULL, reader, &m) == 0);
	check(pthread_join(thread, NULL) == 0);
	check_int(counts_of(getpid(), "reader").pages[reads_take ? FPH_READ : FPH_ZERO], 43);
	/* Zero pages, of which only the complete object has the number; or pages of its own */
	if (complete || !reads_take) {
		check(madvise(mem_page(&m, 8000), 7 * page, MADV_POPULATE_READ) == 0);
		check_bits(&m);
	}
	drop(&m);
}

static void test_populate(void **state)
{
	struct mem m;

	mem_open(&m, K_ANON, 2048);
	add(&m);
	check(madvise(mem_page(&m, 1), 257 * page, MADV_POPULATE_WRITE) == 0);
	/* Half of it has memory already */
	check(madvise(mem_page(&m, 129), 257 * page, MADV_POPULATE_WRITE) == 0);
	check_counts((uint64_t[FPH_NCAUSES]){ [FPH_POPULATE] = 257 + 128 });
	check_bits(&m);
	drop(&m);
}

/* Whole huge pages for single writes, if the kernel has some */
static void test_huge(void **state)
{
	struct fph_counts c;
	struct mem m;
	size_t n = 0;

	mem_open(&m, K_ANON, 16 * HUGE / page);
	check(madvise(m.p, 16 * HUGE, MADV_HUGEPAGE) == 0);
	add(&m);
	for (size_t i = 1; i < 14; i += 2)
		*(volatile char *)mem_page(&m, i * HUGE / page + 37) = 1;
	/* The huge zero page, or one of its own (use_zero_page) */
	(void)*(volatile char *)mem_page(&m, 14 * HUGE / page + 5);
	check_bits(&m);
	for (size_t i = 0; i < m.npages; i++)
		n += bit(&m, i);
	c = counts_of(getpid(), "test-tracer");
	check_int(c.pages[FPH_WRITE] + c.pages[FPH_READ], n);
	check_int(c.events[FPH_WRITE], 7);
	check_int(c.events[FPH_READ], bit(&m, 14 * HUGE / page + 5));
	print_message("%zu pages by 7 writes and a read\n", n);

	check(madvise(m.p + 3 * HUGE, HUGE, MADV_DONTNEED) == 0);
	check_bits(&m);
	drop(&m);
}

/* Pages of memory by three writes to such a file, which is mapped @off from a multiple */
static size_t write_huge_file(size_t off)
{
	/* A guest has few folders */
	static const char dir[] = "/sys/fs/bpf";
	struct mem m;
	size_t n = 0;

	if (mount("tmpfs", dir, "tmpfs", 0, "huge=always") < 0)
		fph_test_skip("no tmpfs with huge pages: %s", strerror(errno));
	mem_open(&m, K_MEMFD, 8 * HUGE / page);
	close(m.fd);
	m.fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	/* The file keeps what was mounted */
	check(umount2(dir, MNT_DETACH) == 0);
	check(m.fd >= 0 && ftruncate(m.fd, m.npages * page) == 0);
	munmap(m.p, m.npages * page);
	m.p += off;
	check(mmap(m.p, m.npages * page, PROT_READ | PROT_WRITE,
		   MAP_SHARED | MAP_FIXED, m.fd, 0) == m.p);
	add(&m);
	for (size_t i = 1; i < 7; i += 2)
		*(volatile char *)mem_page(&m, i * HUGE / page) = 1;
	for (size_t i = 0; i < m.npages; i++) {
		bool there = lseek(m.fd, i * page, SEEK_DATA) == (off_t)(i * page);

		if (bit(&m, i) != there)
			fail_msg("%zu: page %zu: bit %d, file %d", off, i, bit(&m, i), there);
		n += there;
	}
	drop(&m);
	return n;
}

/*
 * Huge pages of a file begin at multiples in that, wherever it is mapped. Linux 6.11 and
 * newer has none for a mapping that does not fit.
 */
static void test_huge_file(void **state)
{
	size_t fit = write_huge_file(0), other = write_huge_file(page);

	print_message("%zu and %zu pages by 3 writes\n", fit, other);
	if (fit == 3)
		fph_test_skip("no huge pages in files");
}

static void test_shared(void **state)
{
	struct mem m;

	mem_open(&m, K_MEMFD, 4096);
	add(&m);
	touch(&m, 0, 307, 1, true);
	touch(&m, 1000, 211, 1, false);
	check_counts((uint64_t[FPH_NCAUSES]){ [FPH_WRITE] = 307, [FPH_READ] = 211 });
	check_bits(&m);

	/* Unmapping gives nothing back, and mapping again takes nothing */
	check(madvise(m.p, 1024 * page, MADV_DONTNEED) == 0);
	touch(&m, 0, 307, 1, true);
	check_counts((uint64_t[FPH_NCAUSES]){ [FPH_WRITE] = 307, [FPH_READ] = 211 });
	check_bits(&m);

	check(fallocate(m.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 11 * page,
			97 * page) == 0);
	check(madvise(mem_page(&m, 1000), 13 * page, MADV_REMOVE) == 0);
	check_counts((uint64_t[FPH_NCAUSES]){ [FPH_WRITE] = 307, [FPH_READ] = 211,
					      [FPH_PUNCH] = 97, [FPH_MADVISE] = 13 });
	check_bits(&m);
	drop(&m);
}

/* What a ring does for its process is no system call; it has to have succeeded */
static void by_ring(void (*prepare)(struct io_uring_sqe *sqe, struct mem *m), struct mem *m)
{
	struct io_uring_cqe *cqe;
	struct io_uring ring;
	int err;

	err = io_uring_queue_init(4, &ring, 0);
	if (err)
		fail_msg("io_uring: %s", strerror(-err));
	prepare(io_uring_get_sqe(&ring), m);
	check(io_uring_submit_and_wait(&ring, 1) == 1);
	check(io_uring_peek_cqe(&ring, &cqe) == 0);
	check_int(cqe->res, 0);
	io_uring_queue_exit(&ring);
}

static void prepare_punch(struct io_uring_sqe *sqe, struct mem *m)
{
	io_uring_prep_fallocate(sqe, m->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 40 * page,
				53 * page);
}

static void prepare_discard(struct io_uring_sqe *sqe, struct mem *m)
{
	io_uring_prep_madvise(sqe, mem_page(m, 40), 53 * page, MADV_DONTNEED);
}

/* Ways to give back that only the complete object sees: it hooks what all of them use */
static void test_ways(void **state)
{
	struct mem m, alias;
	char name[32];
	void *away;
	int fd;

	if (strcmp(hooks(), "fph_tracer") != 0)
		fph_test_skip("that takes the complete object");
	mem_open(&m, K_MEMFD, 512);
	add(&m);
	touch(&m, 0, 400, 1, true);
	by_ring(prepare_punch, &m);
	check_bits(&m);
	/* By another mapping of the file, and by more than there is of it */
	alias = m;
	alias.p = mmap(NULL, 512 * page, PROT_READ | PROT_WRITE, MAP_SHARED, m.fd, 0);
	check(alias.p != MAP_FAILED);
	check(madvise(mem_page(&alias, 100), 31 * page, MADV_REMOVE) == 0);
	check(fallocate(m.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 200 * page,
			10000 * page) == 0);
	check_counts((uint64_t[FPH_NCAUSES]){ [FPH_WRITE] = 400, [FPH_MADVISE] = 31,
					      [FPH_PUNCH] = 200 });
	check_bits(&m);
	/* Neither is a hole, and one fails */
	check(fallocate(m.fd, FALLOC_FL_KEEP_SIZE, 0, 10 * page) == 0);
	snprintf(name, sizeof(name), "/proc/self/fd/%d", m.fd);
	fd = open(name, O_RDONLY | O_CLOEXEC);
	check(fd >= 0);
	check(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 10 * page) < 0);
	close(fd);
	check_bits(&m);
	munmap(alias.p, 512 * page);
	drop(&m);

	mem_open(&m, K_ANON, 512);
	add(&m);
	touch(&m, 0, 400, 1, true);
	by_ring(prepare_discard, &m);
	check_bits(&m);
	/* Taken elsewhere, and something else mapped there */
	away = mremap(mem_page(&m, 100), 100 * page, 100 * page, MREMAP_MAYMOVE | MREMAP_FIXED,
		      mmap(NULL, 100 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	check(away != MAP_FAILED);
	check(mmap(mem_page(&m, 100), 100 * page, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == mem_page(&m, 100));
	check_bits(&m);
	munmap(away, 100 * page);
	drop(&m);
}

/* One that the kernel may refuse, or that takes or gives back nothing */
static void any_call(struct mem *m, char *alias, size_t at, size_t n, unsigned int lot)
{
	int flags = m->fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
	struct iovec v = { mem_page(m, at), n * page };
	char *p = v.iov_base, *to;
	int fd;

	switch (lot % 13) {
	case 0:
	case 1:
	case 2:
		touch(m, at, n, 1, true);
		break;
	case 3:
		madvise(p, n * page, MADV_DONTNEED);
		break;
	case 4:
		madvise(p, n * page, MADV_REMOVE);
		break;
	case 5:
		madvise(p, n * page, MADV_POPULATE_WRITE);
		break;
	case 6:
		madvise(p, n * page, MADV_COLLAPSE);
		break;
	case 7:
		madvise(p + 1, n * page, MADV_DONTNEED);
		break;
	case 8:
		if (m->fd >= 0)
			madvise(alias + at * page, n * page, MADV_REMOVE);
		break;
	case 9:
		fd = m->fd < 0 ? -1 : dup(m->fd);
		fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at * page + lot % page,
			  n * page);
		close(fd);
		break;
	case 10:
		check(mmap(p, n * page, PROT_READ | PROT_WRITE, flags | MAP_FIXED, m->fd,
			   m->fd < 0 ? 0 : at * page) == p);
		break;
	case 11:
		if (m->fd >= 0)
			break;
		to = mmap(NULL, n * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		mremap(p, n * page, n * page, MREMAP_MAYMOVE | MREMAP_FIXED, to);
		check(munmap(to, n * page) == 0);
		check(mmap(v.iov_base, n * page, PROT_READ | PROT_WRITE, flags | MAP_FIXED, -1,
			   0) == v.iov_base);
		break;
	case 12:
		fd = syscall(SYS_pidfd_open, getpid(), 0);
		syscall(SYS_process_madvise, fd, &v, 1, MADV_DONTNEED, 0);
		close(fd);
		break;
	}
}

/* Whatever a process does to its memory, what has a bit is there, and what was taken has one */
static void test_lot(void **state)
{
	unsigned int seed = time(NULL) ^ getpid() << 16;
	struct mem m[2];
	char *alias;

	if (strcmp(hooks(), "fph_tracer") != 0)
		fph_test_skip("that takes the complete object");
	print_message("seed %u\n", seed);
	for (int k = 0; k < 2; k++) {
		mem_open(&m[k], k ? K_MEMFD : K_ANON, 2 * HUGE / page);
		add(&m[k]);
	}
	alias = mmap(NULL, m[1].npages * page, PROT_READ | PROT_WRITE, MAP_SHARED, m[1].fd, 0);
	check(alias != MAP_FAILED);
	for (int i = 0; i < 300; i++) {
		unsigned int lot = rand_r(&seed), k = rand_r(&seed) % 2;
		size_t n = 1 + rand_r(&seed) % 64, at = rand_r(&seed) % (m[k].npages - n);

		any_call(&m[k], alias, at, n, lot);
		if (i % 10 == 9) {
			check_bits(&m[0]);
			check_bits(&m[1]);
		}
	}
	munmap(alias, m[1].npages * page);
	drop(&m[0]);
	drop(&m[1]);
}

/* A huge page that was asked for: no fault takes it */
static void test_collapse(void **state)
{
	struct fph_counts c;
	struct mem m;

	mem_open(&m, K_ANON, 2 * HUGE / page);
	check(madvise(m.p, 2 * HUGE, MADV_NOHUGEPAGE) == 0);
	add(&m);
	touch(&m, 7, 11, 1, true);
	if (madvise(m.p, 2 * HUGE, MADV_HUGEPAGE) < 0 || madvise(m.p, HUGE, MADV_COLLAPSE) < 0) {
		drop(&m);
		fph_test_skip("no huge page on demand: %s", strerror(errno));
	}
	c = counts_of(getpid(), "test-tracer");
	check_int(c.pages[FPH_WRITE], 11);
	check_int(c.pages[FPH_POPULATE], HUGE / page - 11);
	check_bits(&m);
	drop(&m);
}

/* The kernel faults for the program that asked it to copy */
static void test_copy(void **state)
{
	/* What fits into a pipe */
	size_t size = 16 * page;
	char *data = calloc(1, size);
	struct mem m;
	int fds[2];

	check(data != NULL);
	mem_open(&m, K_ANON, 1024);
	add(&m);
	check(pipe(fds) == 0);
	for (int i = 0; i < 13; i++) {
		check(write(fds[1], data, size) == (ssize_t)size);
		check(read(fds[0], mem_page(&m, i * 17), size) == (ssize_t)size);
	}
	check_counts((uint64_t[FPH_NCAUSES]){ [FPH_WRITE] = 13 * 16 });
	check_bits(&m);
	close(fds[0]);
	close(fds[1]);
	free(data);
	drop(&m);
}

/*
 * Events that no program saw: newer kernels may preempt a thread in one, and do not run
 * that for the next thread on the CPU
 */
static uint64_t missed(void)
{
	DIR *dir = opendir(PATH);
	struct dirent *e;
	uint64_t sum = 0;

	check(dir);
	while ((e = readdir(dir))) {
		struct bpf_prog_info prog = { 0 };
		struct bpf_link_info link = { 0 };
		__u32 link_len = sizeof(link), prog_len = sizeof(prog);
		char path[512];
		int fd;

		if (strncmp(e->d_name, "fph_", 4) != 0)
			continue;
		snprintf(path, sizeof(path), PATH "/%s", e->d_name);
		fd = bpf_obj_get(path);
		check(fd >= 0 && bpf_obj_get_info_by_fd(fd, &link, &link_len) == 0);
		close(fd);
		fd = bpf_prog_get_fd_by_id(link.prog_id);
		check(fd >= 0 && bpf_obj_get_info_by_fd(fd, &prog, &prog_len) == 0);
		close(fd);
		sum += prog.recursion_misses;
	}
	closedir(dir);
	return sum;
}

/* Threads that race for the same pages: each page is taken once */
static void *racer(void *opaque)
{
	struct mem *m = opaque;

	for (size_t i = 0; i < m->npages; i++)
		__atomic_fetch_add(mem_page(m, i), 1, __ATOMIC_RELAXED);
	return NULL;
}

static void test_threads(void **state)
{
	static const char *const names[] = { "CPU 0/TCG", "CPU 1/TCG", "mig/src/main" };
	pthread_t threads[3];
	uint64_t sum = 0, lost = missed();
	struct mem m;

	mem_open(&m, K_ANON, 4099);
	add(&m);
	for (int i = 0; i < 3; i++) {
		check(pthread_create(&threads[i], NULL, racer, &m) == 0);
		pthread_setname_np(threads[i], names[i]);
	}
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < 3; i++)
		sum += counts_of(getpid(), names[i]).pages[FPH_WRITE];
	/* Before it had its name */
	sum += counts_of(getpid(), "test-tracer").pages[FPH_WRITE];
	lost = missed() - lost;
	check(sum <= 4099 && sum + lost >= 4099);
	if (lost)
		printf("%d events were missed\n", (int)lost);
	else
		check_bits(&m);
	drop(&m);
}

/* Threads that take and give back, each in a part of its own */
struct part {
	struct mem *m;
	size_t first;
	unsigned int seed;
};

static void *worker(void *opaque)
{
	struct part *p = opaque;

	for (int i = 0; i < 4000; i++) {
		size_t at = p->first + rand_r(&p->seed) % 1000;

		if (rand_r(&p->seed) % 4)
			*(volatile char *)mem_page(p->m, at) = 1;
		else
			check(madvise(mem_page(p->m, at), (1 + rand_r(&p->seed) % 24) * page,
				      MADV_DONTNEED) == 0);
	}
	return NULL;
}

static void test_busy(void **state)
{
	pthread_t threads[3];
	struct part part[3];
	struct mem m;

	mem_open(&m, K_ANON, 4096);
	add(&m);
	for (int i = 0; i < 3; i++) {
		part[i] = (struct part){ &m, i * 1024, i + 1 };
		check(pthread_create(&threads[i], NULL, worker, &part[i]) == 0);
	}
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	check_bits(&m);
	drop(&m);
}

/* A process with memory of its own, which it writes to, and gives back, when told so */
struct child {
	pid_t pid;
	int fd;
	char *p;
};

static void tell(struct child *c)
{
	char byte = 0;

	check(write(c->fd, &byte, 1) == 1);
}

static void hear(struct child *c)
{
	char byte;

	check(read(c->fd, &byte, 1) == 1);
}

static struct child start_child(size_t npages, size_t writes, size_t backs)
{
	struct child c;
	int fds[2];

	check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
	c.p = mmap(NULL, npages * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		   -1, 0);
	check(c.p != MAP_FAILED);
	check(madvise(c.p, npages * page, MADV_NOHUGEPAGE) == 0);
	fflush(stdout);
	c.pid = fork();
	check(c.pid >= 0);
	if (c.pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(fds[0]);
		c.fd = fds[1];
		prctl(PR_SET_NAME, "vm");
		hear(&c);
		for (size_t i = 0; i < writes; i++)
			((volatile char *)c.p)[i * page] = 1;
		tell(&c);
		hear(&c);
		if (madvise(c.p, backs * page, MADV_DONTNEED) < 0)
			_exit(1);
		tell(&c);
		hear(&c);
		_exit(0);
	}
	close(fds[1]);
	munmap(c.p, npages * page);
	c.fd = fds[0];
	return c;
}

/* What it was made for, one after the other */
static void next_step(struct child *c)
{
	tell(c);
	hear(c);
}

static void end_child(struct child *c)
{
	int status;

	tell(c);
	check(waitpid(c->pid, &status, 0) == c->pid);
	check_int(status, 0);
	close(c->fd);
}

static size_t map_entries(const char *name)
{
	char key[64], *prev = NULL;
	int fd = map(name);
	size_t n = 0;

	while (bpf_map_get_next_key(fd, prev, key) == 0) {
		prev = key;
		n++;
	}
	close(fd);
	return n;
}

/* Processes whose memory is watched; who has ended may still have an entry */
static size_t traced(void)
{
	__u32 key, *prev = NULL;
	struct fph_target target;
	int fd = map("fph_targets");
	size_t n = 0;

	while (bpf_map_get_next_key(fd, prev, &key) == 0) {
		prev = &key;
		n += bpf_map_lookup_elem(fd, &key, &target) == 0 && target.nranges;
	}
	close(fd);
	return n;
}

static struct fph_tracer *trace_child(const struct child *c, size_t npages)
{
	struct fph_traced m = {
		.sz = sizeof(m), .start = (uintptr_t)c->p, .len = npages * page, .fd = -1,
	};
	struct fph_tracer *t;
	const char *why;

	check(fph_tracer_open(&t, PATH, c->pid, &why) == 0);
	check(fph_tracer_add(t, &m, &why) == 0);
	return t;
}

/* Not one more, and none less but for what no program saw */
static void check_count(uint64_t n, uint64_t most, uint64_t misses)
{
	if (n > most || n + misses < most)
		fail_msg("%" PRIu64 " pages instead of %" PRIu64 ", %" PRIu64 " events missed", n,
			 most, misses);
}

/* The bits of one never show up in the other, and what ends leaves nothing */
static void test_two(void **state)
{
	struct fph_tracer *t[2], *third;
	struct child c[2];
	uint64_t written[2], before = missed(), misses;
	size_t targets = traced();
	const char *why;

	clear_counts();
	c[0] = start_child(3000, 1201, 401);
	c[1] = start_child(5000, 2203, 601);
	t[0] = trace_child(&c[0], 3000);
	t[1] = trace_child(&c[1], 5000);
	tell(&c[0]);
	next_step(&c[1]);
	hear(&c[0]);
	next_step(&c[0]);
	next_step(&c[1]);
	misses = missed() - before;
	if (misses)
		print_message("%" PRIu64 " events missed\n", misses);
	for (int i = 0; i < 2; i++) {
		uintptr_t start = (uintptr_t)c[i].p;
		struct fph_counts n = counts_of(c[i].pid, "vm");
		size_t writes = i ? 2203 : 1201, backs = i ? 601 : 401;

		written[i] = n.pages[FPH_WRITE];
		check_count(written[i], writes, misses);
		/* A single event */
		if (misses && !n.pages[FPH_MADVISE])
			continue;
		check_int(n.pages[FPH_MADVISE], backs);
		check_int(fph_tracer_touched(t[i], start, start + backs * page), 0);
		check_count(fph_tracer_touched(t[i], start, start + 3000 * page), writes - backs,
			    misses);
	}
	check_int(traced(), targets + 2);
	end_child(&c[0]);
	check_int(traced(), targets + 1);
	/* What it did is there for whoever traces it, and nobody else's goes with it */
	check(fph_tracer_open(&third, PATH, c[1].pid, &why) == 0);
	fph_tracer_close(third);
	check_int(counts_of(c[0].pid, "vm").pages[FPH_WRITE], written[0]);
	fph_tracer_close(t[0]);
	check_int(counts_of(c[0].pid, "vm").pages[FPH_WRITE], 0);
	check_int(counts_of(c[1].pid, "vm").pages[FPH_WRITE], written[1]);
	end_child(&c[1]);
	check_int(traced(), targets);
	fph_tracer_close(t[1]);
	check_int(map_entries("fph_counts"), 0);
}

/* A process that has arranged for itself, as QEMU does; in order, or not, it leaves nothing */
static void test_itself(void **state)
{
	size_t targets = map_entries("fph_targets");
	int status;

	for (int in_order = 0; in_order < 2; in_order++) {
		pid_t pid;

		clear_counts();
		fflush(stdout);
		pid = fork();
		check(pid >= 0);
		if (pid == 0) {
			struct fph_traced m = { .sz = sizeof(m), .len = 64 * page, .fd = -1 };
			struct fph_tracer *t;
			const char *why;
			char *p;

			p = mmap(NULL, m.len, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
			m.start = (uintptr_t)p;
			prctl(PR_SET_NAME, "vm");
			if (p == MAP_FAILED || fph_tracer_open(&t, PATH, 0, &why) < 0 ||
			    fph_tracer_add(t, &m, &why) < 0)
				_exit(1);
			for (size_t i = 0; i < 37; i++)
				((volatile char *)p)[i * page] = 1;
			/* Until it is told to end */
			raise(SIGSTOP);
			if (in_order)
				fph_tracer_close(t);
			_exit(0);
		}
		check(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status));
		check_int(counts_of(pid, "vm").pages[FPH_WRITE], 37);
		check_int(map_entries("fph_targets"), targets + 1);
		kill(pid, SIGCONT);
		check(waitpid(pid, &status, 0) == pid);
		check_int(status, 0);
		check_int(map_entries("fph_targets"), targets);
		check_int(map_entries("fph_counts"), 0);
	}
}

/* A process that runs another program has other memory */
static void test_exec(void **state)
{
	size_t targets = traced();
	struct fph_tracer *t;
	struct child c;
	int fds[2];
	char byte;

	check(pipe(fds) == 0);
	c.p = (char *)(64 * MIB);
	c.pid = fork();
	if (c.pid == 0) {
		if (read(fds[0], &byte, 1) == 1)
			execl("/bin/sleep", "sleep", "100", NULL);
		_exit(1);
	}
	t = trace_child(&c, 1024);
	check_int(traced(), targets + 1);
	check(write(fds[1], "", 1) == 1);
	for (int i = 0; i < 500 && traced() > targets; i++)
		usleep(10000);
	check_int(traced(), targets);
	kill(c.pid, SIGKILL);
	waitpid(c.pid, NULL, 0);
	fph_tracer_close(t);
	close(fds[0]);
	close(fds[1]);
}

/* Nothing is recorded, and that is told; the bits that are missing are clear */
static void test_paused(void **state)
{
	uint64_t before = drops(FPH_DROP_PAUSED);
	char out[4096];
	struct mem m;

	mem_open(&m, K_ANON, 1024);
	add(&m);
	touch(&m, 0, 101, 1, true);
	/* Plain bpftool can do that, too */
	check_int(RUN(out, env("FPH_TEST_BPFTOOL"), "map", "update", "pinned",
		      PATH "/maps/fph_settings", "key", "0", "0", "0", "0", "value", "1", "0",
		      "0", "0", "0", "0", "0", "0"), 0);
	touch(&m, 101, 211, 1, true);
	set(FPH_PAUSED, 0);
	touch(&m, 312, 307, 1, true);
	check_counts((uint64_t[FPH_NCAUSES]){ [FPH_WRITE] = 101 + 307 });
	check_int(drops(FPH_DROP_PAUSED) - before, 211);
	for (size_t i = 0; i < m.npages; i++)
		check_int(bit(&m, i), i < 101 || (i >= 312 && i < 312 + 307));
	drop(&m);
}

/* No room for one more name: told, and the bits are right all the same */
static void test_counts_full(void **state)
{
	struct fph_counts_key key = { .tgid = 1 };
	struct fph_counts c = { 0 };
	uint64_t before;
	struct mem m;
	int fd;

	mem_open(&m, K_ANON, 1024);
	add(&m);
	fd = map("fph_counts");
	for (__u32 i = 0; i < FPH_COUNTS_MAX + 1; i++) {
		memcpy(key.comm, &i, sizeof(i));
		if (bpf_map_update_elem(fd, &key, &c, BPF_ANY) < 0)
			break;
	}
	close(fd);
	before = drops(FPH_DROP_COUNTS);
	touch(&m, 0, 101, 1, true);
	check_int(drops(FPH_DROP_COUNTS) - before, 101);
	check_bits(&m);
	clear_counts();
	drop(&m);
}

/* What is too much for one event stays set */
static void test_clear_max(void **state)
{
	uint64_t before = drops(FPH_DROP_CLEAR);
	struct mem m;

	mem_open(&m, K_ANON, 1024);
	add(&m);
	touch(&m, 0, 700, 1, true);
	set(FPH_CLEAR_MAX, 300);
	check(madvise(m.p, 700 * page, MADV_DONTNEED) == 0);
	set(FPH_CLEAR_MAX, 0);
	check_int(drops(FPH_DROP_CLEAR) - before, 1);
	check_int(fph_tracer_touched(tracer, (uintptr_t)m.p, (uintptr_t)m.p + 1024 * page), 400);
	check_int(bit(&m, 299), 0);
	check_int(bit(&m, 300), 1);
	drop(&m);
}

/* Only blocks that were touched throughout are passed over */
static void test_next(void **state)
{
	const uint64_t block = FPH_BITS_ALIGN * page;
	uint64_t start, from, to;
	struct mem m;

	mem_open(&m, K_ANON, 8 * 512);
	start = (uintptr_t)m.p;
	check_int(start % block, 0);
	add(&m);
	touch(&m, 512, 2 * 512, 1, true);		/* blocks 1 and 2 */
	touch(&m, 3 * 512, 511, 1, true);		/* 3, but for a page */
	touch(&m, 4 * 512 + 7, 3, 1, true);		/* some of 4 */
	touch(&m, 6 * 512, 2 * 512, 1, true);		/* 6 and 7, the end */

	check_int(fph_tracer_next(tracer, start, start + 8 * block, &from, &to), 1);
	check_int(from - start, 0);
	check_int(to - start, block);
	check_int(fph_tracer_next(tracer, to, start + 8 * block, &from, &to), 1);
	check_int(from - start, 3 * block);
	check_int(to - start, 6 * block);
	check_int(fph_tracer_next(tracer, to, start + 8 * block, &from, &to), 0);
	/* What is not traced is for the scan */
	check_int(fph_tracer_next(tracer, to, start + 9 * block, &from, &to), 1);
	check_int(from - start, 8 * block);
	check_int(to - start, 9 * block);
	check_int(fph_tracer_next(tracer, start - block, start + 2 * block, &from, &to), 1);
	check_int(start - from, block);
	check_int(to - start, block);
	/* Parts of blocks, all of them touched, or not */
	check_int(fph_tracer_next(tracer, start + block + 7 * page, start + 2 * block, &from, &to), 0);
	check_int(fph_tracer_next(tracer, start + 3 * block, start + 3 * block + 511 * page,
				  &from, &to), 0);
	check_int(fph_tracer_next(tracer, start + 3 * block, start + 4 * block, &from, &to), 1);

	/* Given back, it has to be looked at again */
	check(madvise(mem_page(&m, 700), page, MADV_DONTNEED) == 0);
	check_int(fph_tracer_next(tracer, start + block, start + 3 * block, &from, &to), 1);
	check_int(from - start, block);
	check_int(to - start, 2 * block);
	drop(&m);
}

/* The shift of a coarse grain */
static uint32_t sixteen_pages(void)
{
	return __builtin_ctzl(16 * page);
}

/* Bits of processes do not overlap, and those of the gone are cleared */
static void test_room(void **state)
{
	struct fph_traced t = { .sz = sizeof(t), .fd = -1 };
	struct fph_target a, b;
	struct child c[2];
	struct fph_tracer *tc[2];
	const char *why;
	int fd = map("fph_targets");

	c[0] = start_child(1000, 900, 1);
	c[1] = start_child(1000, 900, 1);
	tc[0] = trace_child(&c[0], 1000);
	tc[1] = trace_child(&c[1], 1000);
	check(bpf_map_lookup_elem(fd, &c[0].pid, &a) == 0);
	check(bpf_map_lookup_elem(fd, &c[1].pid, &b) == 0);
	check(a.range[0].bit + 1000 <= b.range[0].bit || b.range[0].bit + 1000 <= a.range[0].bit);
	next_step(&c[0]);
	next_step(&c[0]);
	end_child(&c[0]);
	fph_tracer_close(tc[0]);

	/* The same place for the next one, and nothing is left in it */
	c[0] = start_child(1000, 1, 1);
	tc[0] = trace_child(&c[0], 1000);
	check(bpf_map_lookup_elem(fd, &c[0].pid, &b) == 0);
	check_int(b.range[0].bit / 512, a.range[0].bit / 512);
	check_int(fph_tracer_touched(tc[0], (uintptr_t)c[0].p, (uintptr_t)c[0].p + 1000 * page), 0);

	t.start = 1ul << 32;
	t.len = (1ul << 29) * page;
	check_int(fph_tracer_add(tc[0], &t, &why), -ENOSPC);
	check_str(why, "the tracer's bitmap is too small");
	/* Coarser grains make room */
	t.shift = sixteen_pages();
	check_int(fph_tracer_add(tc[0], &t, &why), 0);
	t.start += page;
	check_int(fph_tracer_add(tc[0], &t, &why), -EINVAL);
	for (int i = 0; i < 2; i++) {
		next_step(&c[i]);
		next_step(&c[i]);
		end_child(&c[i]);
		fph_tracer_close(tc[i]);
	}
	close(fd);
}

/* A grain has its bit until all of it was given back at once */
static void test_grain(void **state)
{
	struct fph_traced t = { .sz = sizeof(t), .fd = -1, .shift = sixteen_pages() };
	uint64_t start, end;
	const char *why;
	struct mem m;

	mem_open(&m, K_ANON, 1024);
	t.start = start = (uintptr_t)m.p;
	t.len = 1024 * page;
	end = start + t.len;
	check_int(fph_tracer_add(tracer, &t, &why), 0);
	touch(&m, 5, 1, 1, true);
	touch(&m, 31, 2, 1, true);
	check_int(fph_tracer_touched(tracer, start, end), 3);
	check_int(bit(&m, 0), 1);
	check(madvise(mem_page(&m, 1), 46 * page, MADV_DONTNEED) == 0);
	check_int(fph_tracer_touched(tracer, start, end), 2);
	check_int(bit(&m, 0), 1);
	check_int(bit(&m, 31), 0);
	check_int(bit(&m, 32), 1);
	check(madvise(mem_page(&m, 0), 16 * page, MADV_DONTNEED) == 0);
	check_int(fph_tracer_touched(tracer, start, end), 1);
	drop(&m);
}

/* Pages that a thread takes for other things after a fault that took none */
static volatile char *volatile write_here;
static volatile int step;

static char other_data[4096];

static void *fault_and_write(void *opaque)
{
	int fd = *(int *)opaque;

	/* No system call, and no other fault: they would be the end of this one. In this order. */
	*write_here = 2;
	step = 1;
	while (step < 2)
		;
	check(pwrite(fd, other_data, sizeof(other_data), 0) == sizeof(other_data));
	return NULL;
}

/*
 * All pages are read-only then, and the next write to one takes no memory, if
 * the kernel has forgotten that it is new: it has after some 30 others
 */
static void share_and_unshare(void)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0)
		_exit(0);
	check(waitpid(pid, NULL, 0) == pid);
}

static void test_stale(void **state)
{
	int fd = memfd_create("other", 0), fds[2];
	pthread_t thread;
	struct mem m;

	check(fd >= 0);
	memset(other_data, 1, sizeof(other_data));
	check(pwrite(fd, other_data, 1, 128 * page) == 1);
	mem_open(&m, K_ANON, 64);
	add(&m);
	touch(&m, 0, 64, 1, true);
	share_and_unshare();
	step = 0;
	write_here = mem_page(&m, 3);
	check(pthread_create(&thread, NULL, fault_and_write, &fd) == 0);
	while (step < 1)
		;
	check(madvise(m.p, 64 * page, MADV_DONTNEED) == 0);
	step = 2;
	pthread_join(thread, NULL);
	check_counts((uint64_t[FPH_NCAUSES]){ [FPH_WRITE] = 64, [FPH_MADVISE] = 64 });
	check_int(bit(&m, 3), 0);

	/* The same with a fault of the kernel's, which its system call ends */
	touch(&m, 0, 64, 1, true);
	share_and_unshare();
	check(pipe(fds) == 0 && write(fds[1], "x", 1) == 1);
	check(read(fds[0], mem_page(&m, 3), 1) == 1);
	check(madvise(m.p, 64 * page, MADV_DONTNEED) == 0);
	check(pwrite(fd, "x", 1, 64 * page) == 1);
	check_counts((uint64_t[FPH_NCAUSES]){ [FPH_WRITE] = 128, [FPH_MADVISE] = 128 });
	check_bits(&m);
	close(fds[0]);
	close(fds[1]);
	close(fd);
	drop(&m);
}

/* A program whose struct is shorter or longer than the library's */
static void test_sizes(void **state)
{
	struct {
		struct fph_traced t;
		uint64_t newer;
	} big = { .t = { .sz = sizeof(big), .start = 64 * MIB, .len = MIB, .fd = -1 } };
	struct fph_traced small = { .sz = offsetof(struct fph_traced, fd) };
	const char *why;

	check_int(fph_tracer_add(tracer, &small, &why), -EINVAL);
	big.newer = 1;
	check_int(fph_tracer_add(tracer, &big.t, &why), -EINVAL);
	big.newer = 0;
	check_int(fph_tracer_add(tracer, &big.t, &why), 0);
	big.newer = 1;
	small.fd = 4711;
	for (int i = 0; small.start != 64 * MIB; i++)
		check_int(fph_tracer_get(tracer, i, &small), 1);
	check_int(small.len, MIB);
	check_int(small.fd, 4711);
	for (int i = 0; big.newer; i++)
		check_int(fph_tracer_get(tracer, i, &big.t), 1);
	check_int(big.t.sz, sizeof(big));
	fph_tracer_remove(tracer, 64 * MIB);
}

/* Processes that begin at the same moment get different bits */
static void test_same_moment(void **state)
{
	enum { N = 16, ROUNDS = 10 };
	struct fph_target target[N];
	pid_t pids[N];
	int fds[2], fd, status;

	for (int round = 0; round < ROUNDS; round++) {
		check(pipe(fds) == 0);
		fflush(stdout);
		for (int i = 0; i < N; i++) {
			pids[i] = fork();
			if (pids[i] == 0) {
				struct fph_traced m = { .sz = sizeof(m), .start = 64 * MIB,
							.len = MIB, .fd = -1 };
				struct fph_tracer *t;
				const char *why;
				char byte;

				close(fds[1]);
				if (fph_tracer_open(&t, PATH, 0, &why) < 0 ||
				    read(fds[0], &byte, 1) != 0 || fph_tracer_add(t, &m, &why) < 0)
					_exit(1);
				pause();
				_exit(1);
			}
		}
		close(fds[0]);
		close(fds[1]);
		fd = map("fph_targets");
		for (int i = 0; i < N; i++) {
			/* There, and there to stay: nobody takes back what has been seen twice */
			for (int k = 0, there = 0; k < 1000 && there < 3; k++) {
				usleep(10000);
				there = bpf_map_lookup_elem(fd, &pids[i], &target[i]) == 0 &&
					target[i].nranges == 1 ? there + 1 : 0;
			}
			check_int(target[i].nranges, 1);
		}
		for (int i = 0; i < N; i++)
			check(bpf_map_lookup_elem(fd, &pids[i], &target[i]) == 0);
		close(fd);
		for (int i = 0; i < N; i++) {
			kill(pids[i], SIGKILL);
			check(waitpid(pids[i], &status, 0) == pids[i]);
		}
		for (int i = 0; i < N; i++) {
			for (int k = 0; k < i; k++)
				check(target[i].range[0].bit / 512 != target[k].range[0].bit / 512);
		}
	}
}

/* A QEMU that does not run as root, as docs/fph-source.md has it */
static void test_other_user(void **state)
{
	static const char *const folders[] = { "/sys/fs/bpf", PATH, PATH "/maps" };
	static const char *const maps[] = { PATH "/maps/fph_targets", PATH "/maps/fph_touched" };
	struct stat st[3];
	int status;
	pid_t pid;

	for (int i = 0; i < 3; i++)
		check(stat(folders[i], &st[i]) == 0 && chmod(folders[i], 0711) == 0);
	for (int i = 0; i < 2; i++)
		check(chown(maps[i], 65534, 65534) == 0);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		struct fph_traced m = { .sz = sizeof(m), .len = 64 * page, .fd = -1 };
		struct fph_tracer *t;
		const char *why = "no other user";
		char *p;

		p = mmap(NULL, m.len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		m.start = (uintptr_t)p;
		if (p == MAP_FAILED || madvise(p, m.len, MADV_NOHUGEPAGE) < 0 ||
		    setresgid(65534, 65534, 65534) < 0 || setresuid(65534, 65534, 65534) < 0 ||
		    fph_tracer_open(&t, PATH, 0, &why) < 0 || fph_tracer_add(t, &m, &why) < 0) {
			printf("%s\n", why);
			fflush(stdout);
			_exit(1);
		}
		for (int i = 0; i < 10; i++)
			((volatile char *)p)[i * page] = 1;
		if (fph_tracer_touched(t, m.start, m.start + m.len) != 10)
			_exit(2);
		fph_tracer_close(t);
		_exit(0);
	}
	check(waitpid(pid, &status, 0) == pid);
	check_int(status, 0);
	for (int i = 0; i < 3; i++)
		check(chmod(folders[i], st[i].st_mode & 07777) == 0);
	for (int i = 0; i < 2; i++)
		check(chown(maps[i], 0, 0) == 0);
}

static void test_refused(void **state)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts);
	struct fph_traced t = { .sz = sizeof(t), .start = 64 * MIB, .len = MIB, .fd = -1 };
	struct fph_tracer *other;
	char out[4096], name[16];
	const char *why;
	struct mem m;
	int fd, status;
	pid_t pid;

	check_int(fph_tracer_open(&other, "/sys/fs/bpf/none", 0, &why), -ENOENT);
	check_str(why, "no tracer is loaded there: its maps are missing");

	check(mkdir("/sys/fs/bpf/other", 0700) == 0 && mkdir("/sys/fs/bpf/other/maps", 0700) == 0);
	fd = bpf_map_create(BPF_MAP_TYPE_HASH, "fph_targets", 4, 8, 8, &opts);
	check(fd >= 0 && bpf_obj_pin(fd, "/sys/fs/bpf/other/maps/fph_targets") == 0);
	close(fd);
	check_int(fph_tracer_open(&other, "/sys/fs/bpf/other", 0, &why), -EPROTO);
	check_str(why, "the maps there are not those of this version of the tracer");
	check(unlink("/sys/fs/bpf/other/maps/fph_targets") == 0);

	/* Somebody else has arranged for this process: meanwhile, and before */
	mem_open(&m, K_ANON, 16);
	check_int(fph_tracer_open(&other, PATH, 0, &why), 0);
	add(&m);
	check_int(fph_tracer_add(other, &t, &why), -EBUSY);
	check_str(why, "somebody else traces this process");
	fph_tracer_close(other);
	check_int(fph_tracer_check(tracer, &why), 0);
	check_int(fph_tracer_open(&other, PATH, 0, &why), 0);
	check_int(fph_tracer_add(other, &t, &why), -EBUSY);
	fph_tracer_close(other);
	check_int(fph_tracer_check(tracer, &why), 0);

	/* Nobody holds up the others by keeping a lock */
	fd = open(PATH, O_RDONLY | O_CLOEXEC);
	check(fd >= 0 && flock(fd, LOCK_EX) == 0);
	check_int(fph_tracer_add(tracer, &t, &why), 0);
	fph_tracer_remove(tracer, t.start);
	close(fd);

	/* Its name is shown, not obeyed */
	check(prctl(PR_GET_NAME, name) == 0 && prctl(PR_SET_NAME, "a\033[31mb") == 0);
	check_int(RUN(out, env("FPH_TEST_TRACE"), "--status"), 0);
	prctl(PR_SET_NAME, name);
	if (!strstr(out, " a?[31mb "))
		fail_msg("%s", out);
	drop(&m);

	/* In a PID namespace nobody knows what the kernel calls this process */
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		if (unshare(CLONE_NEWPID) < 0)
			_exit(2);
		pid = fork();
		if (pid == 0)
			_exit(fph_tracer_open(&other, PATH, 0, &why) == -EOPNOTSUPP ? 0 : 1);
		_exit(waitpid(pid, &status, 0) == pid && status == 0 ? 0 : 1);
	}
	check(waitpid(pid, &status, 0) == pid);
	check_int(status, 0);
}

/* A process more than those @targets, and a moment for the first line of the tool */
static void wait_until_traced(size_t targets)
{
	for (int i = 0; i < 300 && map_entries("fph_targets") == targets; i++)
		usleep(10000);
	usleep(200000);
}

/*
 * What the tool says of a process, whose memory it finds for itself. What was
 * written before it came counts when it is given back.
 */
static void test_tool(void **state)
{
	size_t targets = map_entries("fph_targets");
	size_t large = 16384 * page;
	char out[16384], pid[16], touched[32];
	struct child c;
	pid_t helper;
	void *code;

	clear_counts();
	/* No guest's memory */
	code = mmap(NULL, large, PROT_READ | PROT_WRITE | PROT_EXEC,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check(code != MAP_FAILED);
	c = start_child(8192, 1201, 401);
	munmap(code, large);
	next_step(&c);
	snprintf(touched, sizeof(touched), "\"touched\":%zu}", (1201 - 401) * page);
	snprintf(pid, sizeof(pid), "%d", (int)c.pid);
	fflush(stdout);
	helper = fork();
	if (helper == 0) {
		wait_until_traced(targets);
		tell(&c);
		_exit(0);
	}
	check_int(RUN(out, env("FPH_TEST_TRACE"), "-p", pid, "-m", "8m", "-j", "2", "1"), 0);
	waitpid(helper, NULL, 0);
	hear(&c);
	if (!strstr(out, "\"comm\":\"vm\",\"kind\":\"main\",\"pages\":{\"write\":0,\"read\":0,"
		    "\"populate\":0,\"kvm\":0,\"zero\":0,\"madvise\":401,\"punch\":0,\"unmap\":0}") ||
	    !strstr(out, touched))
		fail_msg("%s", out);
	for (char *at = out; (at = strstr(at, "\"size\":")); at++) {
		if (strtoull(at + strlen("\"size\":"), NULL, 10) >= large)
			fail_msg("%s", out);
	}
	/* For people: it ends by itself, and fits into 80 columns */
	check_int(RUN(out, env("FPH_TEST_TRACE"), "-p", pid, "-m", "8m", "-tTr", "-d", "0.3",
		      "0.1"), 0);
	if (!strstr(out, "Tracing vm (PID ") || !strstr(out, "THREAD ") ||
	    !strstr(out, "total  ") || !strstr(out, " MiB private, 2048 KiB a cell") ||
	    !strstr(out, "     0M |") || !strchr(out, '@'))
		fail_msg("%s", out);
	for (char *line = out; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		check(strcspn(line, "\n") <= 80);
	}

	/* It leaves nothing */
	check_int(map_entries("fph_targets"), targets);
	check_int(map_entries("fph_counts"), 0);
	end_child(&c);
}

/* A process that ends within an interval: what it did until then is shown */
static void test_tool_last(void **state)
{
	size_t targets = map_entries("fph_targets");
	struct child c = start_child(8192, 1201, 401);
	char out[16384], pid[16];
	pid_t helper;

	snprintf(pid, sizeof(pid), "%d", (int)c.pid);
	clear_counts();
	fflush(stdout);
	helper = fork();
	if (helper == 0) {
		wait_until_traced(targets);
		next_step(&c);
		next_step(&c);
		tell(&c);
		_exit(0);
	}
	check_int(RUN(out, env("FPH_TEST_TRACE"), "-p", pid, "-m", "8m", "-j", "100"), 0);
	waitpid(helper, NULL, 0);
	if (!strstr(out, "\"pages\":{\"write\":1201,\"read\":0,"
		    "\"populate\":0,\"kvm\":0,\"zero\":0,\"madvise\":401,\"punch\":0,\"unmap\":0}") ||
	    !strstr(out, " has ended"))
		fail_msg("%s", out);
	check(waitpid(c.pid, NULL, 0) == c.pid);
	close(c.fd);
	check_int(map_entries("fph_targets"), targets);
	check_int(map_entries("fph_counts"), 0);
}

static pid_t start_tool(const char *pid, int out)
{
	pid_t tool;

	fflush(stdout);
	tool = fork();
	if (tool == 0) {
		dup2(out, STDOUT_FILENO);
		dup2(out, STDERR_FILENO);
		execl(env("FPH_TEST_TRACE"), "fph-trace", "-p", pid, "-m", "8m", "0.2", NULL);
		_exit(127);
	}
	return tool;
}

static void wait_for_targets(size_t n)
{
	for (int i = 0; i < 1000 && map_entries("fph_targets") != n; i++)
		usleep(10000);
	check_int(map_entries("fph_targets"), n);
}

/* However it ends, nobody pays for it afterwards, or takes it for still there */
static void test_tool_ends(void **state)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP, 0 };
	size_t targets = map_entries("fph_targets");
	int fds[2], status, null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	struct child c = start_child(8192, 1201, 401);
	pid_t tool, second;
	char pid[16];

	snprintf(pid, sizeof(pid), "%d", (int)c.pid);
	for (size_t i = 0; signals[i]; i++) {
		tool = start_tool(pid, null);
		wait_for_targets(targets + 1);
		kill(tool, signals[i]);
		check(waitpid(tool, &status, 0) == tool);
		check_int(status, 0);
		check_int(map_entries("fph_targets"), targets);
	}

	/* Its reader has seen enough */
	check(pipe2(fds, O_CLOEXEC) == 0);
	tool = start_tool(pid, fds[1]);
	wait_for_targets(targets + 1);
	close(fds[1]);
	close(fds[0]);
	check(waitpid(tool, &status, 0) == tool);
	check(WIFEXITED(status) && WEXITSTATUS(status) == 1);
	check_int(map_entries("fph_targets"), targets);

	/* A second one has nothing to show when the first has ended */
	tool = start_tool(pid, null);
	wait_for_targets(targets + 1);
	second = start_tool(pid, null);
	usleep(500000);
	check_int(waitpid(second, &status, WNOHANG), 0);
	kill(tool, SIGTERM);
	check(waitpid(tool, &status, 0) == tool);
	check(waitpid(second, &status, 0) == second);
	check(WIFEXITED(status) && WEXITSTATUS(status) == 1);

	next_step(&c);
	next_step(&c);
	end_child(&c);
	close(null);
}

static struct fph_tracer *trace_itself(char *p, size_t npages)
{
	struct fph_traced m = {
		.sz = sizeof(m), .start = (uintptr_t)p, .len = npages * page, .fd = -1,
	};
	struct fph_tracer *t;
	const char *why;

	if (fph_tracer_open(&t, PATH, 0, &why) < 0 || fph_tracer_add(t, &m, &why) < 0)
		_exit(1);
	return t;
}

/* A process whose tracing ends and begins anew, as by object-del and object-add */
static struct child start_restarter(void)
{
	struct child c = { 0 };
	int fds[2];

	check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
	fflush(stdout);
	c.pid = fork();
	check(c.pid >= 0);
	if (c.pid == 0) {
		char *p = mmap(NULL, 4096 * page, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		struct fph_tracer *t = trace_itself(p, 4096);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		c.fd = fds[1];
		close(fds[0]);
		madvise(p, 4096 * page, MADV_NOHUGEPAGE);
		tell(&c);
		hear(&c);
		for (size_t i = 0; i < 1000; i++)
			((volatile char *)p)[i * page] = 1;
		tell(&c);
		hear(&c);
		fph_tracer_close(t);
		t = trace_itself(p, 4096);
		for (size_t i = 2000; i < 2010; i++)
			((volatile char *)p)[i * page] = 1;
		tell(&c);
		hear(&c);
		fph_tracer_close(t);
		_exit(0);
	}
	close(fds[1]);
	c.fd = fds[0];
	return c;
}

/* Counts that begin anew are no negative ones */
static void test_tool_restart(void **state)
{
	char line[4096], pid[16], *at;
	uint64_t sum = 0, n;
	int fds[2], status;
	struct child c;
	pid_t tool;
	FILE *out;

	clear_counts();
	c = start_restarter();
	hear(&c);
	check(pipe2(fds, O_CLOEXEC) == 0);
	snprintf(pid, sizeof(pid), "%d", (int)c.pid);
	fflush(stdout);
	tool = fork();
	if (tool == 0) {
		dup2(fds[1], STDOUT_FILENO);
		execl(env("FPH_TEST_TRACE"), "fph-trace", "-p", pid, "-m", "8m", "-j", "0.5", NULL);
		_exit(127);
	}
	close(fds[1]);
	out = fdopen(fds[0], "r");
	check(out);
	for (int i = 0, steps = 0; sum < 1010 && i < 100 && fgets(line, sizeof(line), out); i++) {
		/* What it does now is in a later line */
		if (steps == 0 || (steps == 1 && sum == 1000)) {
			next_step(&c);
			steps++;
		}
		at = strstr(line, "\"pages\":{\"write\":");
		n = at ? strtoull(strchr(at, 'w') + strlen("write\":"), NULL, 10) : 0;
		check(n <= 1000);
		sum += n;
	}
	check_int(sum, 1010);
	kill(tool, SIGTERM);
	check(waitpid(tool, &status, 0) == tool);
	check_int(status, 0);
	fclose(out);
	end_child(&c);
	check_int(map_entries("fph_counts"), 0);
}

/* Starts the tool, and waits until it has arranged for the process */
static pid_t trace_by_tool(const struct child *c, int out)
{
	struct fph_target target = { 0 };
	int fd = map("fph_targets");
	char pid[16];
	pid_t tool;

	snprintf(pid, sizeof(pid), "%d", (int)c->pid);
	tool = start_tool(pid, out);
	for (int i = 0; i < 1000 && target.owner != (__u32)tool; i++) {
		usleep(10000);
		if (bpf_map_lookup_elem(fd, &c->pid, &target) < 0)
			target.owner = 0;
	}
	check_int(target.owner, tool);
	close(fd);
	return tool;
}

static void end_tool(pid_t tool, int signal, int status)
{
	int is;

	kill(tool, signal);
	check(waitpid(tool, &is, 0) == tool);
	check_int(is, status);
}

/* Killed, it leaves what it had arranged for; the next one takes it over, or away */
static void test_tool_killed(void **state)
{
	size_t targets = map_entries("fph_targets");
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	struct child c, other;
	pid_t tool;

	clear_counts();
	c = start_child(8192, 1201, 401);
	other = start_child(8192, 100, 10);
	tool = trace_by_tool(&c, null);
	next_step(&c);
	end_tool(tool, SIGKILL, SIGKILL);
	check_int(counts_of(c.pid, "vm").pages[FPH_WRITE], 1201);
	end_tool(trace_by_tool(&c, null), SIGKILL, SIGKILL);
	check_int(map_entries("fph_targets"), targets + 1);

	tool = trace_by_tool(&other, null);
	check_int(map_entries("fph_targets"), targets + 1);
	check_int(counts_of(c.pid, "vm").pages[FPH_WRITE], 0);
	next_step(&other);
	end_tool(tool, SIGKILL, SIGKILL);
	/* The process itself goes, too: nobody is left who would want its counts */
	next_step(&other);
	end_child(&other);
	check_int(counts_of(other.pid, "vm").pages[FPH_WRITE], 100);

	tool = trace_by_tool(&c, null);
	check_int(map_entries("fph_targets"), targets + 1);
	check_int(counts_of(other.pid, "vm").pages[FPH_WRITE], 0);
	/* What was taken over goes with the one that took it */
	end_tool(tool, SIGINT, 0);
	check_int(map_entries("fph_targets"), targets);
	check_int(map_entries("fph_counts"), 0);
	next_step(&c);
	end_child(&c);
	close(null);
}

/* Programs and maps that were pinned at PATH; other tests load theirs at the same time */
static struct ids {
	__u32 prog[8], map[8];
	size_t progs, maps;
} seen[100];

static void see(struct ids *ret)
{
	static const char *const folders[] = { PATH, PATH "/maps" };

	for (int maps = 0; maps < 2; maps++) {
		DIR *dir = opendir(folders[maps]);
		struct dirent *e;

		check(dir);
		while ((e = readdir(dir))) {
			struct bpf_link_info link = { 0 };
			struct bpf_map_info info = { 0 };
			__u32 len = maps ? sizeof(info) : sizeof(link);
			char path[512];
			int fd;

			if (strncmp(e->d_name, "fph_", 4) != 0)
				continue;
			snprintf(path, sizeof(path), "%s/%s", folders[maps], e->d_name);
			fd = bpf_obj_get(path);
			check(fd >= 0);
			if (maps) {
				check(bpf_obj_get_info_by_fd(fd, &info, &len) == 0);
				ret->map[ret->maps++] = info.id;
			} else {
				check(bpf_obj_get_info_by_fd(fd, &link, &len) == 0);
				ret->prog[ret->progs++] = link.prog_id;
			}
			close(fd);
		}
		closedir(dir);
	}
	check(ret->progs >= 6 && ret->maps >= 6);
}

/* Those of them that the kernel still has; a link keeps its program */
static size_t left(void)
{
	size_t n = 0;
	int fd;

	for (size_t i = 0; i < sizeof(seen) / sizeof(seen[0]); i++) {
		for (size_t k = 0; k < seen[i].progs; k++) {
			fd = bpf_prog_get_fd_by_id(seen[i].prog[k]);
			n += fd >= 0;
			if (fd >= 0)
				close(fd);
		}
		for (size_t k = 0; k < seen[i].maps; k++) {
			fd = bpf_map_get_fd_by_id(seen[i].map[k]);
			n += fd >= 0;
			if (fd >= 0)
				close(fd);
		}
	}
	return n;
}

static void test_hundred(void **state)
{
	char out[4096];
	size_t n;

	fph_tracer_close(tracer);
	tracer = NULL;
	unload();
	/* What another one is about to load is not taken away */
	check(mkdir(PATH, 0700) == 0);
	check_int(RUN(out, env("FPH_TEST_TRACE"), "--load", "--capacity", "1g"), 1);
	check(rmdir(PATH) == 0);
	/* The least that there is */
	check_int(RUN(out, env("FPH_TEST_TRACE"), "--load", "--object", "tp", "--capacity", "2m",
		      "--grain", "1g"), 0);
	check_int(RUN(out, env("FPH_TEST_TRACE"), "--status"), 0);
	if (!strstr(out, "for 2 MiB at 4 KiB"))
		fail_msg("%s", out);
	check_int(RUN(out, env("FPH_TEST_TRACE"), "--unload"), 0);
	for (int i = 0; i < 50; i++) {
		check_int(RUN(out, env("FPH_TEST_TRACE"), "--load", "--object", "tp",
			      "--capacity", "1g"), 0);
		see(&seen[2 * i]);
		check_int(RUN(out, env("FPH_TEST_TRACE"), "--unload"), 0);
		load(hooks());
		see(&seen[2 * i + 1]);
		unload();
	}
	check(access(PATH, F_OK) < 0);
	/* The kernel frees in its own time */
	for (int i = 0; (n = left()) && i < 500; i++)
		usleep(10000);
	if (n)
		fail_msg("%zu programs and maps are left", n);
	load(hooks());
}

/* After it was unloaded nobody may rely on its bits */
static void test_unloaded(void **state)
{
	const char *why;
	struct mem m;

	mem_open(&m, K_ANON, 64);
	check(fph_tracer_open(&tracer, PATH, 0, &why) == 0);
	add(&m);
	check_int(fph_tracer_check(tracer, &why), 0);
	unload();
	check_int(fph_tracer_check(tracer, &why), -ESTALE);
	check_str(why, "the tracer was unloaded");
	load(hooks());
	check_int(fph_tracer_check(tracer, &why), -ESTALE);
	drop(&m);
	fph_tracer_close(tracer);
	tracer = NULL;
	unload();
}

/* Kernel types that are stored instead of those of the running kernel */
static void test_stored(void **state)
{
	char name[64];

	snprintf(name, sizeof(name), "%s.stored", hooks());
	if (access(object(name), F_OK) < 0)
		fph_test_skip("the stored types are what all objects here are built with");
	load(name);
	unload();
}

static int verbose_to(enum libbpf_print_level level, const char *fmt, va_list ap)
{
	return level == LIBBPF_WARN ? vprintf(fmt, ap) : 0;
}

/* The object with fentry: by the kernel's verifier, where that is allowed */
static void test_complete(void **state)
{
	struct bpf_object *obj = bpf_object__open_file(object("fph_tracer"), NULL);
	int err;

	check(obj);
	libbpf_set_print(verbose_to);
	err = bpf_object__load(obj);
	bpf_object__close(obj);
	if (err == -EPERM)
		fph_test_skip("this kernel refuses fentry, before its verifier looks at the program");
	check_int(err, 0);
}

static void probe(void)
{
	char out[4096];

	if (geteuid() != 0)
		fph_test_skip_all("loading BPF programs needs root");
	if (access("/sys/kernel/btf/vmlinux", R_OK) < 0)
		fph_test_skip_all("no BTF in this kernel");
	libbpf_set_print(NULL);
	if (libbpf_probe_bpf_prog_type(BPF_PROG_TYPE_RAW_TRACEPOINT, NULL) != 1 ||
	    libbpf_probe_bpf_map_type(BPF_MAP_TYPE_TASK_STORAGE, NULL) != 1)
		fph_test_skip_all("this kernel has no BPF tracing programs, or refuses them");
	if (unshare(CLONE_NEWNS) < 0 ||
	    mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("bpf", "/sys/fs/bpf", "bpf", 0, NULL) < 0)
		fph_test_skip_all("no bpffs of our own: %s", strerror(errno));
	if (RUN(out, env("FPH_TEST_BPFTOOL"), "prog", "help") != 0 || !strstr(out, "autoattach"))
		fph_test_skip_all("bpftool is too old for autoattach");
}

/* Only these cases: they are named as arguments, or it is all of them */
static void choose(struct fph_tests *t, char **names, int n)
{
	size_t kept = 0;

	for (int i = 0; i < n; i++) {
		size_t at = kept;

		while (at < t->n && strcmp(t->v[at].name, names[i]) != 0)
			at++;
		if (at == t->n) {
			fprintf(stderr, "no case '%s', or out of order\n", names[i]);
			exit(2);
		}
		t->v[kept++] = t->v[at];
	}
	if (n)
		t->n = kept;
}

int main(int argc, char **argv)
{
	struct fph_scanner_opts opts = { .sz = sizeof(opts), .kind = FPH_SCANNER_PAGEMAP_SCAN };
	struct fph_tests t = { 0 };
	const char *why;
	int ret;

	setvbuf(stdout, NULL, _IOLBF, 0);
	page = sysconf(_SC_PAGESIZE);
	probe();
	if (fph_scanner_open_with(&scanner, &opts) < 0)
		abort();
	if (fph_scanner_get_kind(scanner) == FPH_SCANNER_PAGEMAP_SCAN) {
		/* For mem_scan() */
		fph_scanner_close(scanner);
		ktest_init(1, argv);
	} else {
		puts("no PAGEMAP_SCAN: page tables are read entry by entry");
		fph_scanner_close(scanner);
		scanner = NULL;
	}
	load(hooks());
	ret = fph_tracer_open(&tracer, PATH, 0, &why);
	if (ret == -EOPNOTSUPP)
		fph_test_skip_all("%s", why);
	if (ret < 0) {
		printf("%s\n", why);
		return EXIT_FAILURE;
	}

	fph_test_add(&t, "private memory, page by page", test_private, NULL);
	fph_test_add(&t, "populated by madvise", test_populate, NULL);
	fph_test_add(&t, "huge pages", test_huge, NULL);
	fph_test_add(&t, "huge pages of a file", test_huge_file, NULL);
	fph_test_add(&t, "shared memory", test_shared, NULL);
	fph_test_add(&t, "all ways to give back", test_ways, NULL);
	fph_test_add(&t, "all ways, by lot", test_lot, NULL);
	fph_test_add(&t, "huge pages on demand", test_collapse, NULL);
	fph_test_add(&t, "the kernel copies", test_copy, NULL);
	fph_test_add(&t, "threads race for pages", test_threads, NULL);
	fph_test_add(&t, "threads take and give back", test_busy, NULL);
	fph_test_add(&t, "two processes, and their ends", test_two, NULL);
	fph_test_add(&t, "a process that traces itself", test_itself, NULL);
	fph_test_add(&t, "coarse grains", test_grain, NULL);
	fph_test_add(&t, "faults that take nothing", test_stale, NULL);
	fph_test_add(&t, "another program", test_exec, NULL);
	fph_test_add(&t, "paused by bpftool", test_paused, NULL);
	fph_test_add(&t, "no room to count", test_counts_full, NULL);
	fph_test_add(&t, "too much for one event", test_clear_max, NULL);
	fph_test_add(&t, "what need not be scanned", test_next, NULL);
	fph_test_add(&t, "room in the bitmap", test_room, NULL);
	fph_test_add(&t, "structs of other sizes", test_sizes, NULL);
	fph_test_add(&t, "bits found at the same moment", test_same_moment, NULL);
	fph_test_add(&t, "another user", test_other_user, NULL);
	fph_test_add(&t, "refused in words", test_refused, NULL);
	fph_test_add(&t, "fph-trace", test_tool, NULL);
	fph_test_add(&t, "fph-trace sees what was last", test_tool_last, NULL);
	fph_test_add(&t, "fph-trace leaves nothing", test_tool_ends, NULL);
	fph_test_add(&t, "fph-trace is killed", test_tool_killed, NULL);
	fph_test_add(&t, "counts that begin anew", test_tool_restart, NULL);
	fph_test_add(&t, "loaded a hundred times", test_hundred, NULL);
	fph_test_add(&t, "unloaded while in use", test_unloaded, NULL);
	fph_test_add(&t, "stored types", test_stored, NULL);
	fph_test_add(&t, "the complete object", test_complete, NULL);
	choose(&t, argv + 1, argc - 1);
	return fph_test_run(&t, "tracer");
}

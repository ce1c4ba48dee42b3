/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Saving a guest whose memory is full to a mapped-ram file, and loading it, by
 * QEMU's multifd file channels and by bare loops that move as many bytes to and
 * from the same disk: one with pwrite() and pread() in the pieces that a channel
 * writes, one that keeps several pieces under way by io_uring. All ways take
 * turns, through the page cache and past it (O_DIRECT).
 *
 *	bench-save [MEMORY_MIB [RUNS]]		files are made in $TMPDIR or /var/tmp
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench-firsttouch.h"

#define RUNS_MAX	50
#define WAIT_MS		600000
#define CHANNELS	2
#define PIECE		((size_t)512 << 10)	/* of a channel: 128 pages */
#define URING_PIECE	((size_t)1 << 20)
#define URING_DEPTH	8u

enum way { QEMU, BARE, URING, WAYS };
static const char *const way_names[WAYS] = { "QEMU", "bare", "io_uring" };

/* [loading][direct][way] */
static uint64_t us[2][2][WAYS][RUNS_MAX];
static char *path;

static void remove_file(void)
{
	unlink(path);
}

static void need(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(EXIT_FAILURE);
}

static char *memory(size_t size, bool full)
{
	char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	need(p != MAP_FAILED, "mmap");
	madvise(p, size, MADV_HUGEPAGE);
	if (full)
		memset(p, 0x5a, size);
	return p;
}

static int open_file(bool load, bool direct)
{
	int fd = open(path, (load ? O_RDONLY : O_WRONLY | O_CREAT | O_TRUNC) | O_CLOEXEC |
		      (direct ? O_DIRECT : 0), 0600);

	need(fd >= 0, path);
	return fd;
}

static void bare(int fd, char *p, size_t size, bool load)
{
	for (size_t at = 0; at < size; ) {
		size_t len = MIN(PIECE, size - at);
		ssize_t n = load ? pread(fd, p + at, len, at) : pwrite(fd, p + at, len, at);

		need(n > 0, path);
		at += n;
	}
}

static void uring(int fd, char *p, size_t size, bool load)
{
	size_t at = 0, done = 0;
	unsigned int under_way = 0;
	struct io_uring ring;

	errno = -io_uring_queue_init(URING_DEPTH, &ring, 0);
	need(!errno, "io_uring");
	while (done < size) {
		struct io_uring_cqe *cqe;

		for (; at < size && under_way < URING_DEPTH; under_way++) {
			struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
			size_t len = MIN(URING_PIECE, size - at);

			if (load)
				io_uring_prep_read(sqe, fd, p + at, len, at);
			else
				io_uring_prep_write(sqe, fd, p + at, len, at);
			io_uring_sqe_set_data64(sqe, len);
			at += len;
		}
		errno = -MIN(io_uring_submit_and_wait(&ring, 1), 0);
		need(!errno, "io_uring");
		while (!io_uring_peek_cqe(&ring, &cqe)) {
			errno = cqe->res < 0 ? -cqe->res : EIO;
			need((guint64)cqe->res == io_uring_cqe_get_data64(cqe), path);
			done += cqe->res;
			under_way--;
			io_uring_cqe_seen(&ring, cqe);
		}
	}
	io_uring_queue_exit(&ring);
}

static uint64_t timed(void (*move)(int, char *, size_t, bool), char *from, size_t size, bool load,
		      bool direct)
{
	int fd = open_file(load, direct);
	char *p = load ? memory(size, false) : from;
	gint64 began = g_get_monotonic_time();
	uint64_t took;

	move(fd, p, size, load);
	took = g_get_monotonic_time() - began;
	if (load)
		munmap(p, size);
	close(fd);
	return took;
}

static void set_up(struct vm *vm, bool direct)
{
	ok(vm_run(vm, E, "migrate-set-parameters", "{\"direct-io\":%s}", direct ? "true" : "false"));
}

/* Both sides; its source is not used again */
static void by_qemu(struct vm_config config, bool direct, unsigned int run)
{
	struct vm_migrate_opts opts = {
		.timeout_ms = WAIT_MS, .multifd = CHANNELS, .file = path,
	};
	struct vm_migration m = { 0 };
	struct vm *src, *dst;

	config.name = "source";
	ok((src = vm_start(&config, E)));
	while (bench_ft_state(src, FT_ST_MAGIC) != FT_MAGIC ||
	       bench_ft_state(src, FT_ST_STATE) != FT_DONE)
		g_usleep(20000);
	config.name = "destination";
	config.incoming = config.paused = true;
	ok((dst = vm_start(&config, E)));
	set_up(src, direct);
	set_up(dst, direct);
	ok(vm_migrate(src, dst, &opts, &m, E));
	us[0][direct][QEMU][run] = m.total_ms * 1000;
	us[1][direct][QEMU][run] = m.load_ns / 1000;
	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

int main(int argc, char **argv)
{
	size_t size = (argc > 1 ? g_ascii_strtoull(argv[1], NULL, 10) : 1024) << 20;
	unsigned int runs = argc > 2 ? atoi(argv[2]) : 5;
	const char *firsttouch = g_getenv("FPH_TEST_FIRSTTOUCH");
	const char *dir = g_getenv("TMPDIR");
	static const uint32_t settings[] = { 0, 1 };	/* no delay, one round */
	g_autofree char *image = NULL, *bios = NULL;
	struct vm_config config = { .memory = size, .qemu = vm_default_qemu() };
	gsize length;
	char *from;
	int fd;

	if (!size || !runs || runs > RUNS_MAX || !firsttouch) {
		fprintf(stderr, "usage: FPH_TEST_FIRSTTOUCH=IMAGE %s [MEMORY_MIB [RUNS]]\n", argv[0]);
		return EXIT_FAILURE;
	}
	ok(g_file_get_contents(firsttouch, &image, &length, E));
	memcpy(image + FT_SET_DELAY, settings, sizeof(settings));
	ok((fd = g_file_open_tmp("fph-bench-XXXXXX.bin", &bios, E)) >= 0);
	need(write(fd, image, length) == (ssize_t)length, bios);
	close(fd);
	config.bios = bios;
	path = g_build_filename(dir ? dir : "/var/tmp", "fph-bench-save-XXXXXX", NULL);
	fd = g_mkstemp(path);
	need(fd >= 0, path);
	close(fd);
	atexit(remove_file);
	atexit(vm_free_all);

	from = memory(size, true);
	for (unsigned int run = 0; run < runs; run++) {
		for (int direct = 0; direct < 2; direct++) {
			by_qemu(config, direct, run);
			/* What they load is what they have saved */
			us[0][direct][BARE][run] = timed(bare, from, size, false, direct);
			us[1][direct][BARE][run] = timed(bare, from, size, true, direct);
			us[0][direct][URING][run] = timed(uring, from, size, false, direct);
			us[1][direct][URING][run] = timed(uring, from, size, true, direct);
		}
	}
	unlink(bios);
	printf("%zu MiB, %u runs, QEMU with %d channels; medians, MiB/s\n", size >> 20, runs,
	       CHANNELS);
	for (int load = 0; load < 2; load++)
		for (int direct = 0; direct < 2; direct++) {
			printf("%-5s %-10s", load ? "load" : "save", direct ? "O_DIRECT" : "cached");
			for (int way = 0; way < WAYS; way++)
				printf("  %s %7.0f", way_names[way],
				       (size >> 20) * 1e6 /
				       bench_median(us[load][direct][way], runs));
			putchar('\n');
		}
	return EXIT_SUCCESS;
}

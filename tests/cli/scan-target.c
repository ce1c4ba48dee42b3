/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A process whose memory is known, for fph-scan to look at. It says "ready" and
 * stays until its standard input ends. With SIGUSR1 it unmaps what it has. Or it says
 * whether reading private memory takes some of it here: 0 if the zero page is mapped.
 *
 * usage: scan-target [WORD...] shapes|paged|large|larger|vast|reads-take
 */

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "zero-page.h"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

#define MIB	(UINT64_C(1) << 20)
#define GIB	(UINT64_C(1) << 30)
#define APART	(2 * MIB)		/* keeps the alignment to huge pages */

static char *memory;
static uint64_t bytes;

static char *map(uint64_t len, int flags, int fd)
{
	/* Apart from others, as QEMU does it: what adjoins memory counts as part of it */
	char *p = mmap(NULL, len + 2 * APART, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p != MAP_FAILED)
		p = mmap(p + APART, len, PROT_READ | PROT_WRITE,
			 flags | MAP_FIXED | MAP_NORESERVE, fd, 0);
	if (p == MAP_FAILED) {
		perror("mmap");
		exit(1);
	}
	madvise(p, len, MADV_NOHUGEPAGE);
	return p;
}

static int file(uint64_t len)
{
	int fd = memfd_create("ram", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, len) < 0) {
		perror("memfd");
		exit(1);
	}
	return fd;
}

/*
 * 64 MiB anonymous: 8 with data, 4 written with zeroes, 2 read, the rest absent;
 * 80 MiB of a memfd: 3 with data, 1 with zeroes; 96 MiB of another one, private:
 * 1 of the file alone, 2 of copies, and no descriptor is left
 */
static void shapes(void)
{
	int fd;
	volatile char sink;
	char *p;

	memory = p = map(64 * MIB, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	bytes = 64 * MIB;
	memset(p, 1, 8 * MIB);
	memset(p + 8 * MIB, 0, 4 * MIB);
	for (uint64_t i = 0; i < 2 * MIB; i += 4096)
		sink = p[16 * MIB + i];
	(void)sink;

	p = map(80 * MIB, MAP_SHARED, file(80 * MIB));
	memset(p, 1, 3 * MIB);
	memset(p + 3 * MIB, 0, MIB);

	fd = file(96 * MIB);
	p = map(96 * MIB, MAP_PRIVATE, fd);
	memset(p + 10 * MIB, 1, 2 * MIB);
	for (uint64_t i = 0; i < MIB; i += 4096)
		if (pwrite(fd, "x", 1, i) != 1)
			exit(1);
	close(fd);
}

/* Of this process, too: nobody will ever provide what is absent */
static int be_pager(const char *p, uint64_t len, uint64_t mode)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = mode == UFFDIO_REGISTER_MODE_MINOR ? UFFD_FEATURE_MINOR_SHMEM : 0,
	};
	struct uffdio_register reg = { .range = { (uintptr_t)p, len }, .mode = mode };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) < 0 || ioctl(fd, UFFDIO_REGISTER, &reg) < 0)
		return -1;
	return fd;
}

/*
 * 64 MiB anonymous, of which a pager provided the first half, so far; 80 MiB of a
 * memfd, whose pages it is asked for when they are mapped; 72 MiB in which it
 * only sees writes, 1 with data; and 96 MiB of a file, private to this process.
 */
static void paged(void)
{
	/* Not in /tmp, which can be a tmpfs */
	char name[] = "scan-target.XXXXXX";
	int snapshot = mkstemp(name);
	static char page[4096];
	int fd, providers[3];
	char *p;

	if (snapshot < 0 || unlink(name) < 0 || ftruncate(snapshot, 96 * MIB) < 0) {
		perror("snapshot");
		exit(1);
	}
	memset(page, 7, sizeof(page));
	*map(96 * MIB, MAP_PRIVATE, snapshot) = 1;

	bytes = 64 * MIB;
	memory = map(bytes, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	providers[0] = be_pager(memory, bytes, UFFDIO_REGISTER_MODE_MISSING);
	fd = file(80 * MIB);
	providers[1] = be_pager(map(80 * MIB, MAP_SHARED, fd), 80 * MIB,
				UFFDIO_REGISTER_MODE_MINOR);
	p = map(72 * MIB, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	memset(p, 1, MIB);
	providers[2] = be_pager(p, 72 * MIB, UFFDIO_REGISTER_MODE_WP);
	if (providers[0] < 0 || providers[1] < 0 || providers[2] < 0) {
		printf("no pager here: userfaultfd is refused, or does not know minor faults\n");
		return;
	}
	for (uint64_t i = 0; i < bytes / 2; i += sizeof(page)) {
		struct uffdio_copy copy = {
			.dst = (uintptr_t)memory + i,
			.src = (uintptr_t)page,
			.len = sizeof(page),
		};

		if (ioctl(providers[0], UFFDIO_COPY, &copy) < 0) {
			perror("UFFDIO_COPY");
			exit(1);
		}
	}
}

static void unmap(int sig)
{
	(void)sig;
	munmap(memory, bytes);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[argc - 1] : "";
	char c;

	signal(SIGUSR1, unmap);
	if (strcmp(what, "reads-take") == 0) {
		printf("%d\n", !host_has_zero_page());
		return 0;
	} else if (strcmp(what, "shapes") == 0) {
		shapes();
	} else if (strcmp(what, "paged") == 0) {
		paged();
	} else if (strcmp(what, "large") == 0) {
		bytes = 8 * GIB;
		memory = map(bytes, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	} else if (strcmp(what, "larger") == 0) {
		bytes = 32 * GIB;
		memory = map(bytes, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	} else if (strcmp(what, "vast") == 0) {
		bytes = 16384 * GIB;
		memory = map(bytes, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	} else {
		fprintf(stderr, "usage: scan-target shapes|paged|large|larger|vast|reads-take\n");
		return 2;
	}
	printf("ready %p %p\n", (void *)memory, (void *)(memory + bytes));
	fflush(stdout);
	while (read(STDIN_FILENO, &c, 1) != 0)
		;
	return 0;
}

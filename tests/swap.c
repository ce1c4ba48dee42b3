/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "swap.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/swap.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fph-test.h"

/* The header that mkswap(8) writes: version 1, last page, no bad pages */
static bool write_swap_header(int fd, size_t pages, size_t page)
{
	char *h = calloc(1, page);
	uint32_t info[3] = { 1, pages - 1, 0 };
	bool ok;

	if (!h)
		return false;
	memcpy(h + 1024, info, sizeof(info));
	memcpy(h + page - 10, "SWAPSPACE2", 10);
	ok = pwrite(fd, h, page, 0) == (ssize_t)page;
	free(h);
	return ok;
}

static bool swap_on_in(const char *dir, size_t bytes, char *path, size_t len)
{
	size_t page = sysconf(_SC_PAGESIZE);
	bool ok;
	int fd;

	snprintf(path, len, "%s/fph-test-swap.XXXXXX", dir);
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0)
		return false;
	ok = posix_fallocate(fd, 0, bytes) == 0 &&
	     write_swap_header(fd, bytes / page, page) && fsync(fd) == 0 &&
	     swapon(path, 0) == 0;
	if (!ok) {
		int saved = errno;

		unlink(path);
		errno = saved;
	}
	close(fd);
	return ok;
}

/* Does not return: waits for the child and takes the swap away */
static void swap_keeper(const char *path, pid_t child, bool forked)
{
	int status = 0;

	if (forked)
		while (waitpid(child, &status, 0) < 0 && errno == EINTR)
			;
	if (swapoff(path) < 0)
		fprintf(stderr, "swapoff %s: %s\n", path, strerror(errno));
	unlink(path);
	if (!forked || !WIFEXITED(status))
		_exit(EXIT_FAILURE);
	_exit(WEXITSTATUS(status));
}

/* As where somebody else provides it, like the first process of a guest */
static bool has_swap(size_t bytes)
{
	FILE *f = fopen("/proc/swaps", "re");
	unsigned long kib, used, sum = 0;
	char line[512];

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "%*s %*s %lu %lu", &kib, &used) == 2)
			sum += kib - used;
	if (f)
		fclose(f);
	return sum << 10 >= bytes;
}

const char *swap_begin(size_t bytes)
{
	static const int sigs[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT };
	static const char *const dirs[] = { ".", "/var/tmp" };
	static char why[128];
	struct sigaction old[ARRAY_SIZE(sigs)];
	char path[64];
	size_t d = 0;
	pid_t keeper = getpid();
	pid_t child;

	if (has_swap(bytes))
		return NULL;
	if (geteuid() != 0)
		return "no swap: swapon needs root";

	/* From here to the end the keeper must not die of a signal */
	for (size_t i = 0; i < ARRAY_SIZE(sigs); i++)
		sigaction(sigs[i], &(struct sigaction){ .sa_handler = SIG_IGN }, &old[i]);

	while (d < ARRAY_SIZE(dirs) && !swap_on_in(dirs[d], bytes, path, sizeof(path)))
		d++;
	if (d == ARRAY_SIZE(dirs)) {
		snprintf(why, sizeof(why), "no swap: %s", strerror(errno));
		for (size_t i = 0; i < ARRAY_SIZE(sigs); i++)
			sigaction(sigs[i], &old[i], NULL);
		return why;
	}

	fflush(stdout);
	child = fork();
	if (child)
		swap_keeper(path, child, child > 0);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != keeper)
		_exit(EXIT_FAILURE);
	for (size_t i = 0; i < ARRAY_SIZE(sigs); i++)
		sigaction(sigs[i], &old[i], NULL);
	return NULL;
}

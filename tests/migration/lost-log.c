/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Preloaded into a vhost-user backend: its dirty log is a copy of its own, and what
 * it notes there QEMU never sees. FPH_TEST_SEEN names a file that gets a byte for each.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int is_log(int fd)
{
	char link[64], target[64];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, target, sizeof(target) - 1);
	if (n < 0)
		return 0;
	target[n] = '\0';
	return strncmp(target, "/memfd:vhost-log", strlen("/memfd:vhost-log")) == 0;
}

void *mmap64(void *addr, size_t len, int prot, int flags, int fd, off64_t offset)
{
	void *(*real)(void *, size_t, int, int, int, off64_t) =
		(void *(*)(void *, size_t, int, int, int, off64_t))dlsym(RTLD_NEXT, "mmap64");
	int seen;

	if (fd >= 0 && (flags & MAP_TYPE) == MAP_SHARED && is_log(fd)) {
		seen = open(getenv("FPH_TEST_SEEN"), O_WRONLY | O_APPEND | O_CLOEXEC);
		if (seen < 0 || write(seen, "1", 1) != 1)
			abort();
		close(seen);
		flags = (flags & ~MAP_TYPE) | MAP_PRIVATE;
	}
	return real(addr, len, prot, flags, fd, offset);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "floor.h"
#include "io.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Sent again and again: more than any cache holds, as guest memory is. */
#define BUFFER_MAX	((size_t)256 << 20)
#define WRITE_MAX	((size_t)1 << 20)

static guint64 now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * G_GUINT64_CONSTANT(1000000000) + t.tv_nsec;
}

/* As a guest's, which nobody has touched; NULL with errno set. System calls only. */
static char *fresh_memory(size_t bytes, bool shared)
{
	int memfd = -1;
	char *p;

	if (shared) {
		memfd = memfd_create("fph-floor", MFD_CLOEXEC);
		if (memfd < 0)
			return NULL;
		if (ftruncate(memfd, bytes) < 0) {
			close(memfd);
			return NULL;
		}
	}
	p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		 shared ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, memfd, 0);
	if (memfd >= 0)
		close(memfd);
	if (p == MAP_FAILED)
		return NULL;
	madvise(p, bytes, MADV_HUGEPAGE);
	return p;
}

/* In the child of a program with threads: system calls only. */
static void read_all(int fd, size_t bytes, bool shared)
{
	char *p = fresh_memory(bytes, shared);
	size_t done = 0;
	ssize_t n;

	if (!p)
		_exit(1);
	while (done < bytes) {
		n = read(fd, p + done, bytes - done);
		if (n <= 0 && !(n < 0 && errno == EINTR))
			_exit(1);
		done += MAX(n, 0);
	}
	_exit(write(fd, "", 1) != 1);
}

static pid_t start_reader(const int pair[LINK_ENDS], size_t bytes, bool shared)
{
	pid_t parent = getpid(), pid = fork();

	if (pid != 0)
		return pid;
	/* It must not outlive us, nor catch what is meant for us. */
	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGTERM, SIG_DFL);
	/* Else it would never see the end of the connection. */
	close(pair[LINK_SOURCE]);
	if (getppid() == parent)
		read_all(pair[LINK_DESTINATION], bytes, shared);
	_exit(1);
}

static bool write_all(int fd, const char *buffer, size_t size, guint64 bytes)
{
	guint64 done = 0;
	char ack;

	while (done < bytes) {
		size_t at = done % size;
		size_t len = MIN(MIN(size - at, WRITE_MAX), bytes - done);
		ssize_t n = send(fd, buffer + at, len, MSG_NOSIGNAL);

		if (io_signal() || (n < 0 && errno != EINTR))
			return false;
		done += MAX(n, 0);
	}
	return recv(fd, &ack, 1, 0) == 1;
}

static bool make_pair(const struct link *link, int pair[LINK_ENDS], GError **error)
{
	if (link->ns[LINK_SOURCE] >= 0)
		return link_pair(link, pair, error);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0)
		return true;
	g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "socketpair: %s", g_strerror(errno));
	return false;
}

bool floor_measure(guint64 bytes, bool shared, const struct link *link, guint64 *ns,
		   GError **error)
{
	size_t size = MIN(MAX(bytes, 1), BUFFER_MAX);
	int pair[LINK_ENDS];
	char *buffer;
	guint64 began;
	pid_t reader;
	int status;
	bool ok;

	if (!make_pair(link, pair, error))
		return false;
	buffer = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (buffer == MAP_FAILED) {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "mmap: %s", g_strerror(errno));
		close(pair[LINK_SOURCE]);
		close(pair[LINK_DESTINATION]);
		return false;
	}
	memset(buffer, 0x5a, size);
	reader = start_reader(pair, bytes, shared);
	close(pair[LINK_DESTINATION]);
	began = now_ns();
	ok = reader > 0 && write_all(pair[LINK_SOURCE], buffer, size, bytes);
	*ns = now_ns() - began;
	/* A reader that still waits for bytes ends with the connection. */
	close(pair[LINK_SOURCE]);
	if (reader > 0)
		while (waitpid(reader, &status, 0) < 0 && errno == EINTR)
			;
	munmap(buffer, size);
	if (!ok)
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
			    "the bare loop did not get through");
	return ok;
}

static bool failed(const char *what, GError **error)
{
	g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "%s: %s", what, g_strerror(errno));
	return false;
}

bool floor_save(const char *path, guint64 bytes, guint64 *ns, GError **error)
{
	g_autofree char *name = g_strdup_printf("%s.floor-XXXXXX", path);
	size_t size = MIN(MAX(bytes, 1), BUFFER_MAX);
	g_autofree char *buffer = g_malloc(size);
	int fd = g_mkstemp_full(name, O_WRONLY | O_CLOEXEC, 0600);
	guint64 began, done = 0;
	ssize_t n = 0;

	if (fd < 0)
		return failed(name, error);
	memset(buffer, 0x5a, size);
	began = now_ns();
	while (done < bytes && !io_signal()) {
		size_t at = done % size;

		n = write(fd, buffer + at, MIN(MIN(size - at, WRITE_MAX), bytes - done));
		if (n < 0 && errno != EINTR)
			break;
		done += MAX(n, 0);
	}
	*ns = now_ns() - began;
	if (done < bytes)
		failed(name, error);
	close(fd);
	g_unlink(name);
	return done == bytes;
}

bool floor_load(const char *path, bool shared, guint64 *ns, GError **error)
{
	int fd = g_open(path, O_RDONLY | O_CLOEXEC, 0);
	off_t length = fd < 0 ? -1 : lseek(fd, 0, SEEK_END), at = 0, end;
	guint64 began;
	bool ok;
	char *p;

	if (length < 0) {
		failed(path, error);
		if (fd >= 0)
			close(fd);
		return false;
	}
	/* As long as the file: what is a hole of it stays without memory */
	p = fresh_memory(MAX(length, 1), shared);
	ok = p;
	began = now_ns();
	while (ok && (at = lseek(fd, at, SEEK_DATA)) >= 0) {
		end = lseek(fd, at, SEEK_HOLE);
		while (ok && at < end) {
			ssize_t n = pread(fd, p + at, MIN((size_t)(end - at), WRITE_MAX), at);

			ok = !io_signal() && (n > 0 || (n < 0 && errno == EINTR));
			at += MAX(n, 0);
		}
	}
	*ns = now_ns() - began;
	ok = ok && errno == ENXIO;	/* no more data */
	if (!ok)
		failed(path, error);
	if (p)
		munmap(p, MAX(length, 1));
	close(fd);
	return ok;
}

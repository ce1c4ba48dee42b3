/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "io.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int wake[2] = { -1, -1 };
static volatile sig_atomic_t caught;

static void on_signal(int sig)
{
	int saved = errno;
	ssize_t n;

	caught = sig;
	/* Never read again: every later wait ends at once. */
	n = write(wake[1], "", 1);
	(void)n;
	errno = saved;
}

void io_catch_signals(void)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
	struct sigaction sa = { .sa_handler = on_signal };
	struct sigaction old;
	size_t i;

	if (wake[0] >= 0)
		return;
	if (pipe2(wake, O_CLOEXEC | O_NONBLOCK) < 0)
		g_error("pipe: %s", g_strerror(errno));
	sigemptyset(&sa.sa_mask);
	for (i = 0; i < G_N_ELEMENTS(signals); i++) {
		/* nohup and friends ignore a signal for good reason. */
		if (sigaction(signals[i], NULL, &old) == 0 && old.sa_handler == SIG_IGN)
			continue;
		sigaction(signals[i], &sa, NULL);
	}
	signal(SIGPIPE, SIG_IGN);
}

int io_signal(void)
{
	return caught;
}

gint64 io_deadline(int timeout_ms)
{
	if (timeout_ms < 0)
		return -1;
	return g_get_monotonic_time() + (gint64)timeout_ms * 1000;
}

int io_wait(int fd, short events, gint64 deadline, GError **error)
{
	for (;;) {
		struct pollfd p[2] = {
			{ .fd = wake[0], .events = POLLIN },
			{ .fd = fd, .events = events },
		};
		struct timespec ts;
		gint64 left = 0;
		int n;

		if (deadline >= 0) {
			left = deadline - g_get_monotonic_time();
			left = MAX(left, 0);
			ts.tv_sec = left / G_USEC_PER_SEC;
			ts.tv_nsec = left % G_USEC_PER_SEC * 1000;
		}
		n = ppoll(p, G_N_ELEMENTS(p), deadline >= 0 ? &ts : NULL, NULL);
		if (n < 0 && errno != EINTR) {
			g_set_error(error, G_IO_ERROR, g_io_error_from_errno(errno),
				    "poll: %s", g_strerror(errno));
			return -1;
		}
		if (caught) {
			g_set_error(error, G_IO_ERROR, G_IO_ERROR_CANCELLED,
				    "interrupted by %s", strsignal(caught));
			return -1;
		}
		if (n > 0 && p[1].revents)
			return 1;
		if (n == 0)
			return 0;
	}
}

bool io_sleep(int ms, GError **error)
{
	return io_wait(-1, 0, io_deadline(ms), error) == 0;
}

void io_lines_init(struct io_lines *l, int fd, size_t max)
{
	*l = (struct io_lines){ .fd = fd, .buf = g_byte_array_new(), .max = max };
}

void io_lines_clear(struct io_lines *l)
{
	if (l->buf)
		g_byte_array_unref(l->buf);
	l->buf = NULL;
	l->fd = -1;
}

/* 1 a line, 0 none yet */
static int take_line(struct io_lines *l, char **ret)
{
	const guint8 *nl;
	size_t len, line;

	if (l->buf->len == l->scanned)
		return 0;
	nl = memchr(l->buf->data + l->scanned, '\n', l->buf->len - l->scanned);
	if (!nl) {
		l->scanned = l->buf->len;
		return 0;
	}
	len = nl - l->buf->data;
	line = len;
	while (line > 0 && l->buf->data[line - 1] == '\r')
		line--;
	*ret = g_strndup((const char *)l->buf->data, line);
	g_byte_array_remove_range(l->buf, 0, len + 1);
	l->scanned = 0;
	return 1;
}

int io_lines_next(struct io_lines *l, gint64 deadline, char **ret, GError **error)
{
	guint8 chunk[16384];
	ssize_t n;
	int r;

	for (;;) {
		if (take_line(l, ret))
			return 1;
		if (l->eof) {
			g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_CLOSED,
					    "connection closed");
			return -1;
		}
		if (l->buf->len > l->max) {
			g_set_error(error, G_IO_ERROR, G_IO_ERROR_MESSAGE_TOO_LARGE,
				    "line of more than %zu bytes", l->max);
			return -1;
		}
		r = io_wait(l->fd, POLLIN, deadline, error);
		if (r <= 0)
			return r;
		n = read(l->fd, chunk, sizeof(chunk));
		if (n > 0) {
			g_byte_array_append(l->buf, chunk, n);
		} else if (n == 0 || errno == ECONNRESET) {
			l->eof = true;
		} else if (errno != EAGAIN && errno != EINTR) {
			g_set_error(error, G_IO_ERROR, g_io_error_from_errno(errno),
				    "read: %s", g_strerror(errno));
			return -1;
		}
	}
}

bool io_write(int fd, const char *data, size_t len, gint64 deadline, GError **error)
{
	ssize_t n;
	int r;

	while (len > 0) {
		n = send(fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n >= 0) {
			data += n;
			len -= n;
			continue;
		}
		if (errno == EPIPE || errno == ECONNRESET) {
			g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_CLOSED,
					    "connection closed");
			return false;
		}
		if (errno != EAGAIN && errno != EINTR) {
			g_set_error(error, G_IO_ERROR, g_io_error_from_errno(errno),
				    "write: %s", g_strerror(errno));
			return false;
		}
		r = io_wait(fd, POLLOUT, deadline, error);
		if (r < 0)
			return false;
		if (r == 0) {
			g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT,
					    "timed out writing");
			return false;
		}
	}
	return true;
}

bool io_nonblock(int fd, GError **error)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ||
	    fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) {
		g_set_error(error, G_IO_ERROR, g_io_error_from_errno(errno),
			    "fcntl: %s", g_strerror(errno));
		return false;
	}
	return true;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Waiting with a deadline, in one place, so that each wait also ends when
 * the user interrupts the program. Whoever waits gets G_IO_ERROR_CANCELLED
 * then and unwinds like after any other error; nothing is left behind.
 */
#ifndef FPH_REPORT_IO_H
#define FPH_REPORT_IO_H

#include <gio/gio.h>
#include <stdbool.h>
#include <sys/types.h>

/**
 * io_catch_signals() - turn SIGINT, SIGTERM and SIGHUP into an interrupted wait
 *
 * Once per program. Without it these signals keep their default, and QEMU
 * processes still die with this one.
 */
void io_catch_signals(void);

/** io_signal() - the signal that came, or 0. */
int io_signal(void);

/** io_deadline() - when @timeout_ms will have passed, on the monotonic clock; negative: never. */
gint64 io_deadline(int timeout_ms);

/**
 * io_wait() - wait until @fd has one of @events, an error or a hang-up
 * @fd: -1 to only let time pass
 * @deadline: from io_deadline(), or negative for none
 *
 * Return: 1 ready, 0 the deadline has passed, -1 with @error set.
 */
int io_wait(int fd, short events, gint64 deadline, GError **error);

/** io_sleep() - let @ms pass. Return: false with @error set when interrupted. */
bool io_sleep(int ms, GError **error);

/*
 * Lines from a non-blocking descriptor, bounded, without '\r' and '\n'.
 * The owner closes @fd.
 */
struct io_lines {
	int fd;
	GByteArray *buf;
	size_t scanned;		/* no '\n' before this */
	size_t max;
	bool eof;
};

void io_lines_init(struct io_lines *l, int fd, size_t max);
void io_lines_clear(struct io_lines *l);

/**
 * io_lines_next() - fetch a line
 * @ret: the line, to be freed by the caller; written only when 1 is returned
 *
 * Return: 1 a line, 0 the deadline has passed, -1 with @error set:
 * G_IO_ERROR_CLOSED at the end of the stream (a last line without '\n' is
 * dropped), G_IO_ERROR_MESSAGE_TOO_LARGE for a line of more than max bytes.
 */
int io_lines_next(struct io_lines *l, gint64 deadline, char **ret, GError **error);

/** io_write() - write all of @data. Return: false with @error set. */
bool io_write(int fd, const char *data, size_t len, gint64 deadline, GError **error);

/** io_nonblock() - make @fd non-blocking and close-on-exec. */
bool io_nonblock(int fd, GError **error);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <inttypes.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "fph-test.h"
#include "io.h"
#include "qtest.h"

/* Answers that take longer mean that QEMU hangs */
#define ANSWER_MS	20000
#define LINE_MAX_BYTES	(4u << 20)

struct qtest {
	int listener;
	int fd;
	struct io_lines lines;
	char *chardev;
	const char *args[9];
};

struct qtest *qtest_new(void)
{
	struct qtest *q = g_new0(struct qtest, 1);
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	socklen_t len = sizeof(addr);

	q->fd = -1;
	q->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	check(q->listener >= 0);
	/* Without a path the kernel finds a free name, and there is no file to remove */
	check_int(bind(q->listener, (struct sockaddr *)&addr, sizeof(addr.sun_family)), 0);
	check_int(listen(q->listener, 1), 0);
	check_int(getsockname(q->listener, (struct sockaddr *)&addr, &len), 0);

	q->chardev = g_strdup_printf("socket,id=qtest,abstract=on,path=%.*s",
				     (int)(len - offsetof(struct sockaddr_un, sun_path) - 1),
				     addr.sun_path + 1);
	q->args[0] = "-chardev";
	q->args[1] = q->chardev;
	q->args[2] = "-qtest";
	q->args[3] = "chardev:qtest";
	q->args[4] = "-qtest-log";
	q->args[5] = "none";
	return q;
}

void qtest_free(struct qtest *q)
{
	if (q->fd >= 0) {
		io_lines_clear(&q->lines);
		close(q->fd);
	}
	close(q->listener);
	g_free(q->chardev);
	g_free(q);
}

const char *const *qtest_args(const struct qtest *q)
{
	return q->args;
}

void qtest_connect(struct qtest *q)
{
	GError *error = NULL;

	check_int(io_wait(q->listener, G_IO_IN, io_deadline(ANSWER_MS), &error), 1);
	q->fd = accept4(q->listener, NULL, NULL, SOCK_CLOEXEC);
	check(q->fd >= 0);
	check(io_nonblock(q->fd, &error));
	io_lines_init(&q->lines, q->fd, LINE_MAX_BYTES);
}

/* Return: what follows "OK" */
G_GNUC_PRINTF(2, 3)
static char *command(struct qtest *q, const char *fmt, ...)
{
	GError *error = NULL;
	g_autofree char *text = NULL, *line = NULL;
	char *answer = NULL;
	va_list ap;

	va_start(ap, fmt);
	text = g_strdup_vprintf(fmt, ap);
	va_end(ap);

	if (!io_write(q->fd, text, strlen(text), io_deadline(ANSWER_MS), &error) ||
	    io_lines_next(&q->lines, io_deadline(ANSWER_MS), &line, &error) < 0)
		fail_msg("qtest: %.60s: %s", text, error->message);
	if (!line || !g_str_has_prefix(line, "OK"))
		fail_msg("qtest: %.60s: %s", text, line ? line : "no answer");
	else
		answer = g_strdup(g_strchug(line + strlen("OK")));
	return answer;
}

static char suffix(unsigned int bytes)
{
	switch (bytes) {
	case 1:
		return 'b';
	case 2:
		return 'w';
	case 4:
		return 'l';
	}
	check_int(bytes, 8);
	return 'q';
}

void qtest_out(struct qtest *q, uint16_t port, unsigned int bytes, uint32_t value)
{
	g_free(command(q, "out%c %#x %#x\n", suffix(bytes), port, value));
}

uint32_t qtest_in(struct qtest *q, uint16_t port, unsigned int bytes)
{
	g_autofree char *answer = command(q, "in%c %#x\n", suffix(bytes), port);

	return strtoul(answer, NULL, 0);
}

void qtest_store(struct qtest *q, uint64_t addr, unsigned int bytes, uint64_t value)
{
	g_free(command(q, "write%c %#" PRIx64 " %#" PRIx64 "\n", suffix(bytes), addr, value));
}

uint64_t qtest_load(struct qtest *q, uint64_t addr, unsigned int bytes)
{
	g_autofree char *answer = command(q, "read%c %#" PRIx64 "\n", suffix(bytes), addr);

	return strtoull(answer, NULL, 0);
}

void qtest_write(struct qtest *q, uint64_t addr, const void *data, size_t len)
{
	g_autofree char *text = g_base64_encode(data, len);

	g_free(command(q, "b64write %#" PRIx64 " %#zx %s\n", addr, len, text));
}

void qtest_read(struct qtest *q, uint64_t addr, void *data, size_t len)
{
	g_autofree char *answer = command(q, "b64read %#" PRIx64 " %#zx\n", addr, len);
	g_autofree guchar *bytes = NULL;
	gsize n;

	bytes = g_base64_decode(answer, &n);
	check_int(n, len);
	memcpy(data, bytes, len);
}

void qtest_memset(struct qtest *q, uint64_t addr, uint8_t value, uint64_t len)
{
	g_free(command(q, "memset %#" PRIx64 " %#" PRIx64 " %#x\n", addr, len, value));
}

void qtest_clock_step(struct qtest *q, uint64_t ns)
{
	g_free(command(q, "clock_step %" PRIu64 "\n", ns));
}

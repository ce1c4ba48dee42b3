/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qmp.h"
#include "io.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* query-qmp-schema is the longest answer there is: below 1 MiB. */
#define QMP_LINE_MAX	(16u << 20)
/* Nobody asks for most events; a chatty QEMU must not cost memory. */
#define QMP_EVENTS_MAX	1024u

struct qmp {
	int fd;
	struct io_lines lines;
	GQueue events;		/* JsonObject, oldest first */
	guint64 next_id;
};

G_DEFINE_QUARK(fph-qmp-error, qmp_error)

/* Replaces an error of io.h by the one the caller knows. */
static void translate(GError **error, GError *io)
{
	if (g_error_matches(io, G_IO_ERROR, G_IO_ERROR_CLOSED))
		g_set_error_literal(error, QMP_ERROR, QMP_ERROR_CLOSED,
				    "QEMU closed the QMP connection");
	else if (g_error_matches(io, G_IO_ERROR, G_IO_ERROR_TIMED_OUT))
		g_set_error_literal(error, QMP_ERROR, QMP_ERROR_TIMEOUT, io->message);
	else if (g_error_matches(io, G_IO_ERROR, G_IO_ERROR_MESSAGE_TOO_LARGE))
		g_set_error(error, QMP_ERROR, QMP_ERROR_PROTOCOL, "QMP: %s", io->message);
	else {
		g_propagate_error(error, io);
		return;
	}
	g_error_free(io);
}

/* One message, or NULL with @error set. */
static JsonObject *receive(struct qmp *q, gint64 deadline, const char *what, GError **error)
{
	g_autoptr(JsonParser) parser = NULL;
	g_autofree char *line = NULL;
	GError *err = NULL;
	JsonNode *root;
	int r;

	do {
		g_clear_pointer(&line, g_free);
		r = io_lines_next(&q->lines, deadline, &line, &err);
		if (r < 0) {
			translate(error, err);
			return NULL;
		}
		if (r == 0) {
			g_set_error(error, QMP_ERROR, QMP_ERROR_TIMEOUT,
				    "%s: no answer from QEMU in time", what);
			return NULL;
		}
	} while (!*line);

	parser = json_parser_new();
	if (!json_parser_load_from_data(parser, line, -1, &err)) {
		g_set_error(error, QMP_ERROR, QMP_ERROR_PROTOCOL, "not QMP: %s", err->message);
		g_error_free(err);
		return NULL;
	}
	root = json_parser_get_root(parser);
	if (!root || !JSON_NODE_HOLDS_OBJECT(root)) {
		g_set_error_literal(error, QMP_ERROR, QMP_ERROR_PROTOCOL,
				    "not QMP: a message that is no object");
		return NULL;
	}
	return json_node_dup_object(root);
}

static const char *string_member(JsonObject *o, const char *name)
{
	JsonNode *n = o ? json_object_get_member(o, name) : NULL;

	if (!n || json_node_get_value_type(n) != G_TYPE_STRING)
		return NULL;
	return json_node_get_string(n);
}

static JsonObject *object_member(JsonObject *o, const char *name)
{
	JsonNode *n = json_object_get_member(o, name);

	return n && JSON_NODE_HOLDS_OBJECT(n) ? json_node_get_object(n) : NULL;
}

/* Takes @msg. */
static void queue_event(struct qmp *q, JsonObject *msg)
{
	g_queue_push_tail(&q->events, msg);
	if (q->events.length > QMP_EVENTS_MAX)
		json_object_unref(g_queue_pop_head(&q->events));
}

bool qmp_send_fd(struct qmp *q, int fd, GError **error)
{
	char space = ' ', control[CMSG_SPACE(sizeof(fd))] = { 0 };
	struct iovec iov = { .iov_base = &space, .iov_len = 1 };
	struct msghdr message = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	struct cmsghdr *c = CMSG_FIRSTHDR(&message);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(fd));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	if (sendmsg(q->fd, &message, MSG_NOSIGNAL) == 1)
		return true;
	g_set_error(error, QMP_ERROR, QMP_ERROR_CLOSED, "cannot send a descriptor: %s",
		    g_strerror(errno));
	return false;
}

JsonNode *qmp_command(struct qmp *q, int timeout_ms, GError **error,
		      const char *name, JsonObject *arguments)
{
	g_autoptr(JsonNode) root = json_node_new(JSON_NODE_OBJECT);
	g_autofree char *id = g_strdup_printf("fph-%" G_GUINT64_FORMAT, q->next_id++);
	g_autofree char *text = NULL;
	g_autofree char *line = NULL;
	gint64 deadline = io_deadline(timeout_ms);
	JsonObject *cmd = json_object_new();
	GError *err = NULL;

	json_object_set_string_member(cmd, "execute", name);
	if (arguments)
		json_object_set_object_member(cmd, "arguments", arguments);
	json_object_set_string_member(cmd, "id", id);
	json_node_take_object(root, cmd);
	text = json_to_string(root, FALSE);
	line = g_strconcat(text, "\n", NULL);
	if (!io_write(q->fd, line, strlen(line), deadline, &err)) {
		translate(error, err);
		return NULL;
	}

	for (;;) {
		JsonObject *msg = receive(q, deadline, name, error);
		JsonObject *failure;
		JsonNode *ret;
		const char *class, *desc, *got;

		if (!msg)
			return NULL;
		if (json_object_has_member(msg, "event")) {
			queue_event(q, msg);
			continue;
		}
		failure = object_member(msg, "error");
		got = string_member(msg, "id");
		/* A message that QEMU could not even parse is answered without an id. */
		if (got ? strcmp(got, id) != 0 : !failure) {
			json_object_unref(msg);
			continue;
		}
		if (failure) {
			class = string_member(failure, "class");
			desc = string_member(failure, "desc");
			g_set_error(error, QMP_ERROR,
				    g_strcmp0(class, "CommandNotFound") == 0 ?
				    QMP_ERROR_COMMAND_NOT_FOUND : QMP_ERROR_COMMAND,
				    "%s: %s", name, desc ? desc : "failed without a reason");
			json_object_unref(msg);
			return NULL;
		}
		ret = json_object_dup_member(msg, "return");
		json_object_unref(msg);
		if (!ret)
			g_set_error(error, QMP_ERROR, QMP_ERROR_PROTOCOL,
				    "not QMP: an answer to %s with neither 'return' nor 'error'",
				    name);
		return ret;
	}
}

static JsonObject *take_event(struct qmp *q, const char *name)
{
	GList *l;

	for (l = q->events.head; l; l = l->next) {
		JsonObject *e = l->data;

		if (name && g_strcmp0(string_member(e, "event"), name) != 0)
			continue;
		g_queue_delete_link(&q->events, l);
		return e;
	}
	return NULL;
}

JsonObject *qmp_event(struct qmp *q, const char *name, int timeout_ms, GError **error)
{
	gint64 deadline = io_deadline(timeout_ms);
	JsonObject *e;

	for (;;) {
		e = take_event(q, name);
		if (e)
			return e;
		e = receive(q, deadline, name ? name : "event", error);
		if (!e)
			return NULL;
		if (json_object_has_member(e, "event"))
			queue_event(q, e);
		else
			json_object_unref(e);	/* the answer to a command that timed out */
	}
}

void qmp_drop_events(struct qmp *q)
{
	JsonObject *e;

	while ((e = g_queue_pop_head(&q->events)))
		json_object_unref(e);
}

pid_t qmp_peer(const struct qmp *q)
{
	struct ucred peer = { 0 };
	socklen_t len = sizeof(peer);

	return getsockopt(q->fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 ? peer.pid : 0;
}

void qmp_close(struct qmp *q)
{
	if (!q)
		return;
	qmp_drop_events(q);
	io_lines_clear(&q->lines);
	close(q->fd);
	g_free(q);
}

struct qmp *qmp_new(int fd, int timeout_ms, GError **error)
{
	struct qmp *q = g_new0(struct qmp, 1);
	gint64 deadline = io_deadline(timeout_ms);
	JsonObject *greeting;
	JsonNode *ret;

	q->fd = fd;
	g_queue_init(&q->events);
	io_lines_init(&q->lines, fd, QMP_LINE_MAX);
	if (!io_nonblock(fd, error))
		goto fail;
	greeting = receive(q, deadline, "QMP greeting", error);
	if (!greeting)
		goto fail;
	if (!object_member(greeting, "QMP")) {
		json_object_unref(greeting);
		g_set_error_literal(error, QMP_ERROR, QMP_ERROR_PROTOCOL,
				    "not QMP: no greeting (a socket in human monitor mode?)");
		goto fail;
	}
	json_object_unref(greeting);
	ret = qmp_command(q, timeout_ms, error, "qmp_capabilities", NULL);
	if (!ret)
		goto fail;
	json_node_unref(ret);
	return q;
fail:
	qmp_close(q);
	return NULL;
}

struct qmp *qmp_connect(const char *path, int timeout_ms, GError **error)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd;

	if (strlen(path) >= sizeof(sa.sun_path)) {
		g_set_error(error, QMP_ERROR, QMP_ERROR_CONNECT,
			    "%s: too long for a UNIX socket", path);
		return NULL;
	}
	strcpy(sa.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
		g_set_error(error, QMP_ERROR,
			    errno == EACCES || errno == EPERM ? QMP_ERROR_PERMISSION :
								QMP_ERROR_CONNECT,
			    "%s: %s", path, g_strerror(errno));
		if (fd >= 0)
			close(fd);
		return NULL;
	}
	return qmp_new(fd, timeout_ms, error);
}

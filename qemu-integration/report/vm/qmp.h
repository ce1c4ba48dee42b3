/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A QMP client over a UNIX socket. One thread at a time; calls block until
 * the answer, the time-out or an interruption (io.h). Events that arrive in
 * between are queued until somebody asks for them.
 */
#ifndef FPH_REPORT_QMP_H
#define FPH_REPORT_QMP_H

#include <gio/gio.h>
#include <json-glib/json-glib.h>
#include <stdbool.h>

#define QMP_ERROR (qmp_error_quark())
GQuark qmp_error_quark(void);

enum qmp_error {
	QMP_ERROR_CONNECT,		/* no socket, nobody listens */
	QMP_ERROR_PERMISSION,		/* the socket is not ours to use */
	QMP_ERROR_CLOSED,		/* the connection ended: QEMU is gone */
	QMP_ERROR_TIMEOUT,		/* no answer in time; the connection can still be used */
	QMP_ERROR_PROTOCOL,		/* not QMP */
	QMP_ERROR_COMMAND,		/* QEMU refused the command; the message is its own */
	QMP_ERROR_COMMAND_NOT_FOUND,	/* this QEMU does not have the command */
};

struct qmp;

/**
 * qmp_connect() - connect to a socket that QEMU listens on, and negotiate
 * Return: the client, or NULL with @error set.
 */
struct qmp *qmp_connect(const char *path, int timeout_ms, GError **error);

/**
 * qmp_new() - take over a connected stream socket, and negotiate
 * @fd: closed in every case, also on failure
 * Return: the client, or NULL with @error set.
 */
struct qmp *qmp_new(int fd, int timeout_ms, GError **error);

/** qmp_peer() - process at the other end, who made the socket; 0: unknown. */
pid_t qmp_peer(const struct qmp *q);

/** qmp_close() - close and free; NULL is fine. */
void qmp_close(struct qmp *q);

/**
 * qmp_command() - run a command
 * @timeout_ms: for all of it; negative for no limit
 * @arguments: taken, also on failure; NULL for none
 * Return: the value of "return", to be freed with json_node_unref(), or NULL
 * with @error set. An answer that comes after its time-out is dropped.
 */
JsonNode *qmp_command(struct qmp *q, int timeout_ms, GError **error,
		      const char *name, JsonObject *arguments);

/**
 * qmp_send_fd() - send a descriptor for the command that comes next: getfd, add-fd
 * @fd: stays the caller's
 */
bool qmp_send_fd(struct qmp *q, int fd, GError **error);

/**
 * qmp_event() - take the oldest event out of the queue
 * @name: only events of this name; events before it stay queued. NULL: any
 * @timeout_ms: how long to wait for one if none is queued
 * Return: the event, to be freed with json_object_unref(), or NULL with
 * @error set; QMP_ERROR_TIMEOUT when there is none.
 */
JsonObject *qmp_event(struct qmp *q, const char *name, int timeout_ms, GError **error);

/** qmp_drop_events() - forget the events received so far. */
void qmp_drop_events(struct qmp *q);

#endif

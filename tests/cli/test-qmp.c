/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The QMP client against a thread that plays QEMU, badly at times. */
#include <sys/socket.h>
#include <unistd.h>

#include "fph-test.h"
#include "io.h"
#include "qmp.h"

#define GREETING "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n"
#define MS 5000
#define SHORT_MS 50

struct server {
	int fd;
	GThread *thread;
	const char *const *script;
	GString *heard;
};

/*
 * A script is a list of texts to send; "?" first waits for a line. "$ID" in
 * a text is the id of the last line heard.
 */
static gpointer serve(gpointer data)
{
	struct server *s = data;
	g_autofree char *id = g_strdup("");
	const char *const *step;
	struct io_lines lines;

	io_lines_init(&lines, s->fd, 65536);
	for (step = s->script; *step; step++) {
		g_autofree char *line = NULL;
		g_auto(GStrv) parts = NULL;
		g_autofree char *out = NULL;

		if (strcmp(*step, "?") == 0) {
			const char *at;

			if (io_lines_next(&lines, io_deadline(MS), &line, NULL) != 1)
				break;
			g_string_append_printf(s->heard, "%s\n", line);
			at = strstr(line, "\"id\":\"");
			if (at) {
				g_free(id);
				id = g_strndup(at + 6, strcspn(at + 6, "\""));
			}
			continue;
		}
		parts = g_strsplit(*step, "$ID", -1);
		out = g_strjoinv(id, parts);
		if (!io_write(s->fd, out, strlen(out), io_deadline(MS), NULL))
			break;
		/* Pieces must not grow together on the way. */
		g_usleep(2000);
	}
	io_lines_clear(&lines);
	shutdown(s->fd, SHUT_RDWR);
	return NULL;
}

static struct qmp *start(struct server *s, const char *const *script, GError **error)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	s->fd = pair[0];
	s->script = script;
	s->heard = g_string_new(NULL);
	s->thread = g_thread_new("qemu", serve, s);
	return qmp_new(pair[1], MS, error);
}

static void finish(struct server *s, struct qmp *q)
{
	qmp_close(q);
	g_thread_join(s->thread);
	close(s->fd);
	g_string_free(s->heard, TRUE);
}

#define HELLO GREETING, "?", "{\"return\": {}, \"id\": \"$ID\"}\n"

static void negotiates(void **state)
{
	const char *const script[] = { HELLO, NULL };
	GError *error = NULL;
	struct server s;
	struct qmp *q = start(&s, script, &error);

	assert_null(error);
	assert_non_null(q);
	assert_non_null(strstr(s.heard->str, "\"execute\":\"qmp_capabilities\""));
	finish(&s, q);
}

static void split_lines(void **state)
{
	const char *const script[] = {
		HELLO, "?", "{\"retu", "rn\": {\"sta", "tus\": \"x\"}, \"id\": \"$ID", "\"}", "\r\n",
		NULL,
	};
	GError *error = NULL;
	struct server s;
	struct qmp *q = start(&s, script, &error);
	JsonNode *n;

	assert_non_null(q);
	n = qmp_command(q, MS, &error, "query-status", NULL);
	assert_null(error);
	assert_string_equal(json_object_get_string_member(json_node_get_object(n), "status"), "x");
	json_node_unref(n);
	finish(&s, q);
}

static void passes_arguments(void **state)
{
	const char *const script[] = { HELLO, "?", "{\"return\": 7, \"id\": \"$ID\"}\n", "?", NULL };
	JsonObject *args = json_object_new();
	GError *error = NULL;
	struct server s;
	struct qmp *q = start(&s, script, &error);
	JsonNode *n;

	json_object_set_string_member(args, "uri", "unix:\"/tmp/x\"");
	n = qmp_command(q, MS, &error, "migrate", args);
	assert_null(error);
	assert_int_equal(json_node_get_int(n), 7);
	json_node_unref(n);
	assert_non_null(strstr(s.heard->str, "\"arguments\":{\"uri\":\"unix:\\\"/tmp/x\\\"\"}"));
	finish(&s, q);
}

static void events_wait_their_turn(void **state)
{
	const char *const script[] = {
		HELLO, "?",
		"{\"event\": \"STOP\"}\n{\"event\": \"MIGRATION\", \"data\": {\"status\": \"setup\"}}\n"
		"{\"return\": {}, \"id\": \"$ID\"}\n",
		"{\"event\": \"MIGRATION\", \"data\": {\"status\": \"active\"}}\n",
		"?", NULL,
	};
	GError *error = NULL;
	struct server s;
	struct qmp *q = start(&s, script, &error);
	JsonNode *n = qmp_command(q, MS, &error, "migrate", NULL);
	const char *const want[] = { "setup", "active" };
	JsonObject *e;
	size_t i;

	assert_null(error);
	json_node_unref(n);
	for (i = 0; i < 2; i++) {
		e = qmp_event(q, "MIGRATION", MS, &error);
		assert_null(error);
		assert_string_equal(json_object_get_string_member(
			json_object_get_object_member(e, "data"), "status"), want[i]);
		json_object_unref(e);
	}
	e = qmp_event(q, NULL, 0, &error);
	assert_string_equal(json_object_get_string_member(e, "event"), "STOP");
	json_object_unref(e);
	assert_null(qmp_event(q, NULL, SHORT_MS, &error));
	assert_true(g_error_matches(error, QMP_ERROR, QMP_ERROR_TIMEOUT));
	g_clear_error(&error);
	finish(&s, q);
}

static void errors_keep_their_words(void **state)
{
	const char *const script[] = {
		HELLO,
		"?", "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such pony\"}, \"id\": \"$ID\"}\n",
		"?", "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"gone\"}, \"id\": \"$ID\"}\n",
		"?", "{\"return\": {}, \"id\": \"$ID\"}\n", NULL,
	};
	GError *error = NULL;
	struct server s;
	struct qmp *q = start(&s, script, &error);
	JsonNode *n;

	assert_null(qmp_command(q, MS, &error, "a", NULL));
	assert_true(g_error_matches(error, QMP_ERROR, QMP_ERROR_COMMAND));
	assert_string_equal(error->message, "a: no such pony");
	g_clear_error(&error);
	assert_null(qmp_command(q, MS, &error, "query-fph", NULL));
	assert_true(g_error_matches(error, QMP_ERROR, QMP_ERROR_COMMAND_NOT_FOUND));
	g_clear_error(&error);
	n = qmp_command(q, MS, &error, "c", NULL);
	assert_non_null(n);
	json_node_unref(n);
	finish(&s, q);
}

static void notices_a_lost_connection(void **state)
{
	const char *const script[] = { HELLO, "?", "{\"retur", NULL };
	GError *error = NULL;
	struct server s;
	struct qmp *q = start(&s, script, &error);

	assert_null(qmp_command(q, -1, &error, "quit", NULL));
	assert_true(g_error_matches(error, QMP_ERROR, QMP_ERROR_CLOSED));
	g_clear_error(&error);
	/* And again, now at writing. */
	assert_null(qmp_command(q, -1, &error, "quit", NULL));
	assert_true(g_error_matches(error, QMP_ERROR, QMP_ERROR_CLOSED));
	g_clear_error(&error);
	finish(&s, q);
}

static void a_late_answer_is_dropped(void **state)
{
	const char *const script[] = {
		HELLO, "?", "?", "{\"return\": \"late\", \"id\": \"fph-1\"}\n",
		"{\"return\": \"now\", \"id\": \"$ID\"}\n", "?", NULL,
	};
	GError *error = NULL;
	struct server s;
	struct qmp *q = start(&s, script, &error);
	JsonNode *n;

	assert_null(qmp_command(q, SHORT_MS, &error, "slow", NULL));
	assert_true(g_error_matches(error, QMP_ERROR, QMP_ERROR_TIMEOUT));
	g_clear_error(&error);
	n = qmp_command(q, MS, &error, "fast", NULL);
	assert_null(error);
	assert_string_equal(json_node_get_string(n), "now");
	json_node_unref(n);
	finish(&s, q);
}

struct row {
	const char *name;
	const char *greeting;
	int code;
};

static const struct row strangers[] = {
	{ "a human monitor is no QMP", "QEMU 10.0.13 monitor - type 'help'\n", QMP_ERROR_PROTOCOL },
	{ "JSON without a greeting is no QMP", "{\"hello\": 1}\n", QMP_ERROR_PROTOCOL },
	{ "a greeting that is a list is no QMP", "[1]\n", QMP_ERROR_PROTOCOL },
	{ "half a greeting is a lost connection", "{\"QMP\":", QMP_ERROR_CLOSED },
};

static void refuses_strangers(void **state)
{
	const struct row *row = *state;
	const char *const script[] = { row->greeting, NULL };
	GError *error = NULL;
	struct server s;
	struct qmp *q = start(&s, script, &error);

	assert_null(q);
	assert_true(g_error_matches(error, QMP_ERROR, row->code));
	g_clear_error(&error);
	finish(&s, NULL);
}

static void nobody_listens(void **state)
{
	GError *error = NULL;

	assert_null(qmp_connect("/nonexistent/socket", MS, &error));
	assert_true(g_error_matches(error, QMP_ERROR, QMP_ERROR_CONNECT));
	g_clear_error(&error);
}

static void a_line_has_an_end(void **state)
{
	g_autofree char *flood = g_strnfill(5000, 'x');
	struct io_lines l;
	GError *error = NULL;
	char *line = NULL;
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_true(io_nonblock(pair[1], NULL));
	io_lines_init(&l, pair[1], 1000);
	assert_true(io_write(pair[0], flood, 5000, io_deadline(MS), NULL));
	assert_int_equal(io_lines_next(&l, io_deadline(MS), &line, &error), -1);
	assert_true(g_error_matches(error, G_IO_ERROR, G_IO_ERROR_MESSAGE_TOO_LARGE));
	g_clear_error(&error);
	io_lines_clear(&l);
	close(pair[0]);
	close(pair[1]);
}

static const struct {
	const char *name;
	fph_test_fn fn;
} cases[] = {
	{ "negotiates", negotiates },
	{ "split_lines", split_lines },
	{ "passes_arguments", passes_arguments },
	{ "events_wait_their_turn", events_wait_their_turn },
	{ "errors_keep_their_words", errors_keep_their_words },
	{ "notices_a_lost_connection", notices_a_lost_connection },
	{ "a_late_answer_is_dropped", a_late_answer_is_dropped },
	{ "nobody_listens", nobody_listens },
	{ "a_line_has_an_end", a_line_has_an_end },
};

int main(void)
{
	struct fph_tests t = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		fph_test_add(&t, cases[i].name, cases[i].fn, NULL);
	fph_test_add_rows(&t, strangers, refuses_strangers);
	return fph_test_run(&t, "qmp");
}

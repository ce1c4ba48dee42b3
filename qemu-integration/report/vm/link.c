/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "link.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SOURCE_ADDRESS	"192.0.2.1"
#define OWN_NS		"/proc/thread-self/ns/net"

static const char *const address[LINK_ENDS] = { SOURCE_ADDRESS, LINK_ADDRESS };
static const char *const device[LINK_ENDS] = { "fph0", "fph1" };

static bool set_errno(GError **error, const char *what)
{
	g_set_error(error, G_IO_ERROR, g_io_error_from_errno(errno), "--link: %s: %s", what,
		    g_strerror(errno));
	return false;
}

bool link_rate_valid(const char *rate)
{
	static const char *const units[] = { "kbit", "mbit", "gbit" };
	size_t digits = strspn(rate, "0123456789"), i;

	if (digits == 0 || digits > 6 || rate[0] == '0')
		return false;
	for (i = 0; i < G_N_ELEMENTS(units); i++)
		if (strcmp(rate + digits, units[i]) == 0)
			return true;
	return false;
}

/* In the namespace of the calling thread. */
static bool run(GError **error, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

static bool run(GError **error, const char *fmt, ...)
{
	g_autofree char *command = NULL;
	g_autofree char *words = NULL;
	g_auto(GStrv) argv = NULL;
	GError *err = NULL;
	int status = 0;
	va_list ap;

	va_start(ap, fmt);
	command = g_strdup_vprintf(fmt, ap);
	va_end(ap);
	argv = g_strsplit(command, " ", -1);
	if (!g_spawn_sync(NULL, argv, NULL, G_SPAWN_SEARCH_PATH | G_SPAWN_STDOUT_TO_DEV_NULL,
			  NULL, NULL, NULL, &words, &status, &err)) {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
			    "--link: %s; Debian has it in iproute2", err->message);
		g_error_free(err);
		return false;
	}
	if (status == 0)
		return true;
	g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "--link: '%s' failed: %s", command,
		    g_strchomp(words));
	return false;
}

static bool enter(int ns, GError **error)
{
	return setns(ns, CLONE_NEWNET) == 0 || set_errno(error, "entering a network namespace");
}

/* The calling thread is in the new namespace afterwards. */
static int new_namespace(GError **error)
{
	int fd;

	if (unshare(CLONE_NEWNET) < 0) {
		set_errno(error, "new network namespace (needs root)");
		return -1;
	}
	fd = open(OWN_NS, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		set_errno(error, OWN_NS);
	return fd;
}

static bool configure(const struct link *l, const char *rate, GError **error)
{
	int i;

	/* The last one made is where we are: the destination's. */
	if (!run(error, "ip link add name %s type veth peer name %s", device[LINK_SOURCE],
		 device[LINK_DESTINATION]) ||
	    !run(error, "ip link set %s netns /proc/%d/fd/%d", device[LINK_SOURCE], getpid(),
		 l->ns[LINK_SOURCE]))
		return false;
	for (i = 0; i < LINK_ENDS; i++) {
		if (!enter(l->ns[i], error) ||
		    !run(error, "ip address add %s/24 dev %s", address[i], device[i]) ||
		    !run(error, "ip link set lo up") ||
		    !run(error, "ip link set %s up", device[i]) ||
		    /* As much at once as a timer of 100 Hz has to let through. */
		    !run(error, "tc qdisc add dev %s root tbf rate %s burst 16mb latency 20ms",
			 device[i], rate))
			return false;
	}
	return true;
}

bool link_up(struct link *l, const char *rate, GError **error)
{
	int own = open(OWN_NS, O_RDONLY | O_CLOEXEC);
	bool ok = false;

	*l = LINK_NONE;
	if (own < 0)
		return set_errno(error, OWN_NS);
	l->ns[LINK_SOURCE] = new_namespace(error);
	if (l->ns[LINK_SOURCE] >= 0)
		l->ns[LINK_DESTINATION] = new_namespace(error);
	if (l->ns[LINK_DESTINATION] >= 0)
		ok = configure(l, rate, error);
	if (!enter(own, ok ? error : NULL))
		ok = false;
	close(own);
	if (!ok)
		link_down(l);
	return ok;
}

void link_down(struct link *l)
{
	int i;

	for (i = 0; i < LINK_ENDS; i++)
		if (l->ns[i] >= 0)
			close(l->ns[i]);
	*l = LINK_NONE;
}

static bool connect_pair(const struct link *l, int listener, int fds[LINK_ENDS], GError **error)
{
	struct sockaddr_in to = { .sin_family = AF_INET };
	socklen_t len = sizeof(to);

	inet_pton(AF_INET, LINK_ADDRESS, &to.sin_addr);
	if (bind(listener, (struct sockaddr *)&to, sizeof(to)) < 0 || listen(listener, 1) < 0 ||
	    getsockname(listener, (struct sockaddr *)&to, &len) < 0)
		return set_errno(error, "listening");
	if (!enter(l->ns[LINK_SOURCE], error))
		return false;
	fds[LINK_SOURCE] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fds[LINK_SOURCE] < 0 ||
	    connect(fds[LINK_SOURCE], (struct sockaddr *)&to, sizeof(to)) < 0)
		return set_errno(error, "connecting");
	fds[LINK_DESTINATION] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	return fds[LINK_DESTINATION] >= 0 || set_errno(error, "accepting");
}

bool link_pair(const struct link *l, int fds[LINK_ENDS], GError **error)
{
	int own = open(OWN_NS, O_RDONLY | O_CLOEXEC), listener = -1;
	bool ok = false;

	fds[LINK_SOURCE] = fds[LINK_DESTINATION] = -1;
	if (own < 0)
		return set_errno(error, OWN_NS);
	if (enter(l->ns[LINK_DESTINATION], error)) {
		listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		ok = listener >= 0 ? connect_pair(l, listener, fds, error) :
				     set_errno(error, "socket");
	}
	if (!enter(own, ok ? error : NULL))
		ok = false;
	close(own);
	if (listener >= 0)
		close(listener);
	for (int i = 0; !ok && i < LINK_ENDS; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
	}
	return ok;
}

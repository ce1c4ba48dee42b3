/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A network between source and destination: two network namespaces without a
 * name, a veth pair, a shaper at each end. They go with the descriptors that
 * hold them, that is, with this program and its children, however that ends.
 */
#ifndef FPH_REPORT_LINK_H
#define FPH_REPORT_LINK_H

#include <gio/gio.h>
#include <stdbool.h>

enum { LINK_SOURCE, LINK_DESTINATION, LINK_ENDS };

struct link {
	int ns[LINK_ENDS];	/* namespaces; -1: there is none */
};

#define LINK_NONE	((struct link){ { -1, -1 } })

/* The address of the destination, in the namespace of the source. */
#define LINK_ADDRESS	"192.0.2.2"	/* of a network reserved for examples */

/** link_rate_valid() - "10gbit", "800mbit": a whole number and a unit that tc knows. */
bool link_rate_valid(const char *rate);

/**
 * link_up() - make it; @rate for each direction, as tc has it
 * Needs root, ip and tc. Return: false with @error set.
 */
bool link_up(struct link *l, const char *rate, GError **error);

void link_down(struct link *l);

/**
 * link_pair() - a connection over it
 * @fds: blocking TCP sockets at the source and at the destination
 */
bool link_pair(const struct link *l, int fds[LINK_ENDS], GError **error);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which processes are virtual machines */
#ifndef FPH_SCAN_MACHINES_H
#define FPH_SCAN_MACHINES_H

#include <glib.h>

struct machine {
	gint pid;
	char *program;		/* its path or name */
	char *name;		/* of the guest; "" if it has none */
	guint64 rss;		/* bytes; UNKNOWN of a record */
};

/**
 * machines_find() - all that this user can see
 * @sysroot: folder with recorded proc/PID, each of which counts, or NULL for
 *           this machine
 *
 * Return: of struct machine, by PID, which it frees; perhaps empty.
 */
GPtrArray *machines_find(const char *sysroot);

#endif

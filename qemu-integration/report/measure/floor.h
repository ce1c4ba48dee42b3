/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The least that moving bytes to another process, or a file, costs on this machine. */
#ifndef FPH_REPORT_FLOOR_H
#define FPH_REPORT_FLOOR_H

#include <gio/gio.h>
#include <stdbool.h>

#include "link.h"

/**
 * floor_measure() - send @bytes to a process that reads them into fresh memory
 * @shared: that memory is a memfd, mapped shared; else anonymous, with huge
 *	pages where the kernel gives them, as QEMU asks for it
 * @link: send them over it, by TCP; one without namespaces: a UNIX stream socket
 * @ns: from the first write until the reader has said that it has all of them
 *
 * One connection, one system call for as much as the socket takes, no headers,
 * no look at the content, one thread on each side. Return: false with @error set.
 */
bool floor_measure(guint64 bytes, bool shared, const struct link *link, guint64 *ns,
		   GError **error);

/**
 * floor_save() - write @bytes to a new file beside @path, which is then removed
 * @ns: until the last write has returned; QEMU does not wait for the disk either
 */
bool floor_save(const char *path, guint64 bytes, guint64 *ns, GError **error);

/**
 * floor_load() - read all of @path but its holes into fresh memory
 * @shared: as above
 */
bool floor_load(const char *path, bool shared, guint64 *ns, GError **error);

#endif

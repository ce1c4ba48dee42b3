/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A host that moves its memory about: it compacts it, again and again. */
#ifndef FPH_REPORT_MOVER_H
#define FPH_REPORT_MOVER_H

#include <gio/gio.h>

struct mover;

/** mover_begin() - NULL with @error set: it takes root, and a kernel that can. */
struct mover *mover_begin(GError **error);

/** mover_end() - ends it. Return: pages that the kernel moved meanwhile, of any process. */
guint64 mover_end(struct mover *m);

#endif

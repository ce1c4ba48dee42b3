/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the fuzz targets of fph-scan have in common */
#ifndef FUZZ_SCAN_H
#define FUZZ_SCAN_H

#include <string.h>

#include "fuzz.h"
#include "target.h"

/* What GLib criticises is a finding, too */
static inline void fuzz_be_strict(void)
{
	g_log_set_always_fatal(G_LOG_LEVEL_CRITICAL | G_LOG_LEVEL_WARNING);
}

/* As a file that was read: a NUL behind it, and no byte to spare */
static inline char *fuzz_file(const uint8_t *data, size_t size)
{
	char *text = g_malloc(size + 1);

	if (size)
		memcpy(text, data, size);
	text[size] = '\0';
	return text;
}

/* Mappings as a kernel has them; NULL if @text is no list of them */
static inline GPtrArray *fuzz_maps(const char *text)
{
	g_autoptr(GError) error = NULL;
	GPtrArray *all = target_parse_maps(text, "maps", &error);
	guint64 end = 0;

	/* One or the other, and words */
	must(!all == !!error);
	must(!error || *error->message);
	for (guint i = 0; all && i < all->len; i++) {
		const struct mapping *m = all->pdata[i];

		must(m->start < m->end && m->start >= end);
		must(m->start % 4096 == 0 && m->end % 4096 == 0);
		end = m->end;
	}
	return all;
}

#endif /* FUZZ_SCAN_H */

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "text.h"

#include <glib.h>

char *text_printable(const char *bytes)
{
	g_autofree char *valid = g_utf8_make_valid(bytes, -1);
	GString *out = g_string_new(NULL);

	for (const char *c = valid; *c; c = g_utf8_next_char(c)) {
		gunichar u = g_utf8_get_char(c);

		g_string_append_unichar(out, g_unichar_iscntrl(u) ? '?' : u);
	}
	return g_string_free(out, FALSE);
}

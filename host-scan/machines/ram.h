/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which mappings of a process are guest RAM */
#ifndef FPH_RAM_H
#define FPH_RAM_H

#include "target.h"

/* One or more mappings in a row that belong together */
struct area {
	guint64 start, end;
	const struct mapping *first;	/* of the target */
	bool paged, device;		/* any of them is */
};

/**
 * ram_check() - is @select well-formed?
 * @page: bytes; ranges are of whole pages
 *
 * Return: false with @error set.
 */
bool ram_check(const char *select, guint64 page, GError **error);

/**
 * ram_find() - the areas that look like guest RAM, or that are asked for
 * @selects: NULL, or well-formed ones: all, NAME, 0xADDRESS, 0xSTART-0xEND
 *
 * Return: of struct area, ascending, which it frees; NULL with @error set if
 * there is none.
 */
GArray *ram_find(const struct target *t, char **selects, GError **error);

/** ram_is_named() - has it memory of a size that its command line names, if it names any? */
bool ram_is_named(const struct target *t);

#endif

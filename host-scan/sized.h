/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Structs of callers that begin with their size, and grow at their end. A caller
 * can be older than the library or newer: what goes in is copied, what comes out
 * is cut off, and nobody compares with sizeof. A new field begins where the struct
 * ended, padding included: that of an older caller can hold anything.
 */
#ifndef FPH_SIZED_H
#define FPH_SIZED_H

#include <errno.h>
#include <stddef.h>
#include <string.h>

/* Up to the last field of the first version, which each caller has */
#define FPH_SIZE_TO(type, field)	(offsetof(type, field) + sizeof(((type *)0)->field))

/*
 * A caller's struct, with zeroes for what it does not have. -EINVAL if it is
 * shorter than @least, 1 if it says something that is not known here.
 */
static inline int fph_sized_in(void *to, size_t size, const void *from, size_t least)
{
	const unsigned char *p = from;
	size_t sz;

	memcpy(&sz, from, sizeof(sz));
	if (sz < least)
		return -EINVAL;
	memset(to, 0, size);
	memcpy(to, from, sz < size ? sz : size);
	memcpy(to, &size, sizeof(size));
	for (size_t i = size; i < sz; i++)
		if (p[i])
			return 1;
	return 0;
}

/* A result, as much of it as the caller's struct has; what only that has is 0 */
static inline void fph_sized_out(void *to, const void *from, size_t size)
{
	size_t sz, head = sizeof(sz);

	memcpy(&sz, to, sizeof(sz));
	if (sz > size)
		memset((char *)to + size, 0, sz - size);
	if (sz > head)
		memcpy((char *)to + head, (const char *)from + head, (sz < size ? sz : size) - head);
}

#endif /* FPH_SIZED_H */

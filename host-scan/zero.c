/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <string.h>

#include <fph/scan.h>

/*
 * All is zero if the start is, and all equals itself, shifted by the length of
 * the start. memcmp() of the C library uses the widest vectors that the CPU
 * has, and most memory that is not zero ends this in its first line.
 */
bool fph_is_zero(const void *p, size_t len)
{
	static const unsigned char zero[64];

	if (len <= sizeof(zero))
		return memcmp(p, zero, len) == 0;
	return memcmp(p, zero, sizeof(zero)) == 0 &&
	       memcmp(p, (const char *)p + sizeof(zero), len - sizeof(zero)) == 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <fph/types.h>

static const char *const reason_names[] = {
	[FPH_UNMAPPED] = "unmapped",
	[FPH_ZERO_MAPPED] = "zero-mapped",
	[FPH_ZERO_CONTENT] = "zero-content",
	[FPH_FREE] = "free",
};

_Static_assert(sizeof(reason_names) / sizeof(reason_names[0]) == FPH_REASON_MAX,
	       "each reason has a name");

const char *fph_reason_name(enum fph_reason why)
{
	if ((unsigned int)why >= FPH_REASON_MAX)
		return "unknown";
	return reason_names[why];
}

const char *fph_version(void)
{
	return FPH_VERSION;
}

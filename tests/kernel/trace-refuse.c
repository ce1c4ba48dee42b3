/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * To be preloaded: a kernel that loads no object, as it lacks the helper whose number
 * is in FPH_TEST_NO_HELPER.
 */
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdlib.h>

int bpf_object__load(struct bpf_object *obj)
{
	errno = EINVAL;
	return -EINVAL;
}

int libbpf_probe_bpf_helper(enum bpf_prog_type type, enum bpf_func_id helper, const void *opts)
{
	const char *missing = getenv("FPH_TEST_NO_HELPER");

	return !missing || atoi(missing) != (int)helper;
}

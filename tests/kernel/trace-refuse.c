/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * To be preloaded: a kernel that loads no object, as it lacks the helper whose number
 * is in FPH_TEST_NO_HELPER. With FPH_TEST_LOOKS it loads them, and has no memory for
 * more looks at the counts than that.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>

int bpf_object__load(struct bpf_object *obj)
{
	int (*load)(struct bpf_object *) = dlsym(RTLD_NEXT, "bpf_object__load");

	if (getenv("FPH_TEST_LOOKS"))
		return load(obj);
	errno = EINVAL;
	return -EINVAL;
}

int bpf_map_lookup_batch(int fd, void *in_batch, void *out_batch, void *keys, void *values,
			 __u32 *count, const struct bpf_map_batch_opts *opts)
{
	int (*lookup)(int, void *, void *, void *, void *, __u32 *, const void *) =
		dlsym(RTLD_NEXT, "bpf_map_lookup_batch");
	const char *looks = getenv("FPH_TEST_LOOKS");
	static int n;

	if (!looks || n++ < atoi(looks))
		return lookup(fd, in_batch, out_batch, keys, values, count, opts);
	errno = ENOMEM;
	return -ENOMEM;
}

int libbpf_probe_bpf_helper(enum bpf_prog_type type, enum bpf_func_id helper, const void *opts)
{
	const char *missing = getenv("FPH_TEST_NO_HELPER");

	return !missing || atoi(missing) != (int)helper;
}

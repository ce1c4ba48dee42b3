/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Built without libbpf: there is no tracer to open, so the rest is not called */
#include <errno.h>

#include <fph/tracer.h>

int fph_tracer_open(struct fph_tracer **ret, const char *path, pid_t pid, const char **why)
{
	*why = "libfph was built without libbpf";
	return -EOPNOTSUPP;
}

int fph_tracer_open_maps(struct fph_tracer **ret, const struct fph_tracer_maps *maps, pid_t pid,
			 const char **why)
{
	return fph_tracer_open(ret, NULL, pid, why);
}

void fph_tracer_close(struct fph_tracer *t) { }

int fph_tracer_check(const struct fph_tracer *t, const char **why)
{
	*why = "libfph was built without libbpf";
	return -EOPNOTSUPP;
}

int fph_tracer_add(struct fph_tracer *t, const struct fph_traced *m, const char **why)
{
	*why = "libfph was built without libbpf";
	return -EOPNOTSUPP;
}

void fph_tracer_remove(struct fph_tracer *t, uint64_t start) { }

int fph_tracer_get(const struct fph_tracer *t, unsigned int index, struct fph_traced *ret)
{
	return 0;
}

int fph_tracer_next(const struct fph_tracer *t, uint64_t start, uint64_t end,
		    uint64_t *from, uint64_t *to)
{
	*from = start;
	*to = end;
	return start < end;
}

uint64_t fph_tracer_touched(const struct fph_tracer *t, uint64_t start, uint64_t end)
{
	return 0;
}

void fph_tracer_touch(struct fph_tracer *t, uint64_t start, uint64_t end) { }

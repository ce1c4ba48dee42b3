/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdlib.h>

#include "scanner.h"

static const struct fph_why open_why[] = {
	{ EACCES, "no permission to open /proc/self/pagemap (EACCES): a process that changed its user must open it before" },
	{ EPERM, "not permitted to open /proc/self/pagemap (EPERM): refused by a sandbox" },
	{ ENOENT, "no /proc/self/pagemap (ENOENT): /proc is not mounted here, or the kernel lacks CONFIG_PROC_PAGE_MONITOR" },
	{ EMFILE, "cannot open /proc/self/pagemap (EMFILE): too many open files in this process" },
	{ ENFILE, "cannot open /proc/self/pagemap (ENFILE): too many open files in the system" },
	{ 0, "cannot open /proc/self/pagemap" },
};

static const struct fph_why scan_why[] = {
	{ ENOTTY, "no PAGEMAP_SCAN in this kernel (ENOTTY): it is older than Linux 6.7" },
	{ EINVAL, "PAGEMAP_SCAN of this kernel does not know the categories asked for (EINVAL)" },
	{ EPERM, "PAGEMAP_SCAN is not permitted (EPERM): refused by a sandbox" },
	{ EACCES, "PAGEMAP_SCAN is not permitted (EACCES): refused by a sandbox" },
	{ ENOSYS, "PAGEMAP_SCAN is not permitted (ENOSYS): refused by a sandbox" },
	{ 0, "PAGEMAP_SCAN does not work here" },
};

const char *fph_why(const struct fph_why *w, int err)
{
	while (w->err && w->err != -err)
		w++;
	return w->text;
}

void fph_pm_query(struct fph_pm_scan *arg, uint64_t start, uint64_t end,
		  struct fph_pm_range *vec, uint64_t vec_len)
{
	/*
	 * One query for both kinds: not swapped, and (not present or the zero
	 * page). Absence is asked for positively; addresses without a mapping
	 * are in no category and are never reported.
	 */
	*arg = (struct fph_pm_scan){
		.size = sizeof(*arg),
		.start = start,
		.end = end,
		.vec = (uintptr_t)vec,
		.vec_len = vec_len,
		.category_inverted = FPH_PM_PRESENT | FPH_PM_SWAPPED,
		.category_mask = FPH_PM_SWAPPED,
		.category_anyof_mask = FPH_PM_PRESENT | FPH_PM_PFNZERO,
		.return_mask = FPH_PM_PRESENT | FPH_PM_SWAPPED | FPH_PM_PFNZERO,
	};
}

static void probe(struct fph_scanner *s)
{
	uintptr_t page = (uintptr_t)s & ~(uintptr_t)(s->page_size - 1);
	struct fph_pm_scan arg;
	int n;

	s->fd = s->sys->open_pagemap();
	if (s->fd < 0) {
		s->err = s->fd;
		s->fd = -1;
		s->why = fph_why(open_why, s->err);
		return;
	}

	/* The very query of the scan, so that nothing it needs is left to luck */
	do {
		fph_pm_query(&arg, page, page + s->page_size, s->vec,
			     FPH_SCAN_VEC_LEN);
		n = s->sys->pagemap_scan(s->fd, &arg);
	} while (n == -EINTR);
	if (n < 0) {
		s->err = n;
		s->why = fph_why(scan_why, n);
	}
}

int fph_scanner_open_sys(struct fph_scanner **ret, const struct fph_sys *sys)
{
	struct fph_scanner *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->sys = sys;
	s->page_size = sys->page_size();
	s->pid = sys->pid();
	probe(s);
	*ret = s;
	return 0;
}

int fph_scanner_open(struct fph_scanner **ret)
{
	return fph_scanner_open_sys(ret, &fph_sys_linux);
}

void fph_scanner_close(struct fph_scanner *s)
{
	int saved = errno;

	if (!s)
		return;
	if (s->fd >= 0)
		s->sys->close(s->fd);
	free(s);
	errno = saved;
}

int fph_scanner_error(const struct fph_scanner *s, const char **why)
{
	if (s->err) {
		*why = s->why;
		return s->err;
	}
	/* After fork() the descriptor still shows the memory of the parent */
	if (s->sys->pid() != s->pid) {
		*why = "the scanner was opened by another process and shows that one's memory";
		return -ESRCH;
	}
	return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdlib.h>

#include "table.h"

static const struct fph_why open_why[] = {
	{ EACCES, "no permission to open /proc/self/pagemap (EACCES): a process that changed its user must open it before, or a security module (AppArmor, SELinux) refuses it" },
	{ EPERM, "not permitted to open /proc/self/pagemap (EPERM): refused by a sandbox" },
	{ ENOENT, "no /proc/self/pagemap (ENOENT): /proc is not mounted here, or the kernel lacks CONFIG_PROC_PAGE_MONITOR" },
	{ EMFILE, "cannot open /proc/self/pagemap (EMFILE): too many open files in this process" },
	{ ENFILE, "cannot open /proc/self/pagemap (ENFILE): too many open files in the system" },
	{ 0, "cannot open /proc/self/pagemap" },
};

static const struct fph_why open_other_why[] = {
	{ EACCES, "no permission to look at the page tables of the process (EACCES): it belongs to another user or gained privileges, which takes CAP_SYS_PTRACE" },
	{ EPERM, "not permitted to look at the page tables of the process (EPERM): refused by a security module or a sandbox" },
	{ ENOENT, "no page tables to look at (ENOENT): no such process, /proc is not mounted here, or the kernel lacks CONFIG_PROC_PAGE_MONITOR" },
	{ ESRCH, "the process has ended (ESRCH)" },
	{ 0, "cannot open /proc/PID/pagemap" },
};

static const struct fph_why scan_why[] = {
	{ ENOTTY, "no PAGEMAP_SCAN in this kernel (ENOTTY): it is older than Linux 6.7" },
	{ EINVAL, "PAGEMAP_SCAN of this kernel does not know the categories asked for (EINVAL)" },
	{ EPERM, "PAGEMAP_SCAN is not permitted (EPERM): refused by a sandbox" },
	{ EACCES, "PAGEMAP_SCAN is not permitted (EACCES): refused by a security module (AppArmor, SELinux) or a sandbox" },
	{ ENOSYS, "PAGEMAP_SCAN is not permitted (ENOSYS): refused by a sandbox" },
	{ 0, "PAGEMAP_SCAN does not work here" },
};

const char *fph_why(const struct fph_why *w, int err)
{
	while (w->err && w->err != -err)
		w++;
	return w->text;
}

static const char *const kind_names[] = {
	[FPH_SCANNER_AUTO] = "auto",
	[FPH_SCANNER_PAGEMAP_SCAN] = "pagemap-scan",
	[FPH_SCANNER_PAGEMAP] = "pagemap",
	[FPH_SCANNER_OFF] = "off",
};

_Static_assert(sizeof(kind_names) / sizeof(kind_names[0]) == FPH_SCANNER_MAX,
	       "each scanner has a name");

const char *fph_scanner_kind_name(enum fph_scanner_kind kind)
{
	if ((unsigned int)kind >= FPH_SCANNER_MAX)
		return "unknown";
	return kind_names[kind];
}

static int set_error(struct fph_scanner *s, int err, const char *why)
{
	s->err = err;
	s->why = why;
	s->kind = FPH_SCANNER_OFF;
	return err;
}

/* 0 if PAGEMAP_SCAN works */
static int probe_scan(struct fph_scanner *s)
{
	uintptr_t page = (uintptr_t)s & ~(uintptr_t)(s->page_size - 1);
	struct fph_pm_scan arg;
	int n;

	/* The very query of the scan, so that nothing it needs is left to luck */
	do {
		fph_pm_query(&arg, page, page + s->page_size, false, s->vec,
			     FPH_SCAN_VEC_LEN);
		n = s->sys->pagemap_scan(s->fd, &arg);
	} while (n == -EINTR);
	return n < 0 ? n : 0;
}

static int use_entries(struct fph_scanner *s)
{
	s->entries = calloc(fph_table_entries(s), sizeof(*s->entries));
	if (!s->entries)
		return -ENOMEM;
	s->kind = FPH_SCANNER_PAGEMAP;
	s->zero_pfn = s->sys->zero_pfn();
	return 0;
}

/*
 * Before Linux 6.4 lseek() could call live data a hole while shmem huge pages
 * were collapsed ("mm/khugepaged: maintain page cache uptodate flag" ended
 * that). PAGEMAP_SCAN came with 6.7, so a probe that found it spares comparing
 * versions, which distributions make meaningless.
 */
static int probe(struct fph_scanner *s, enum fph_scanner_kind wanted)
{
	int err;

	if (wanted == FPH_SCANNER_OFF) {
		set_error(s, -EOPNOTSUPP, "the host is not asked: scanner=off");
		return 0;
	}
	/* Before the other: if it means another process, that one's end is no news */
	if (s->pid_of)
		s->process = s->sys->open_process(s->pid_of);
	s->fd = s->sys->open_pagemap(s->pid_of);
	if (s->fd < 0) {
		set_error(s, s->fd, fph_why(s->pid_of ? open_other_why : open_why, s->fd));
		s->fd = -1;
		return 0;
	}
	err = probe_scan(s);
	if (err < 0)
		s->no_seek = fph_why(scan_why, err);
	if (wanted == FPH_SCANNER_PAGEMAP || (wanted == FPH_SCANNER_AUTO && err < 0))
		return use_entries(s);
	s->kind = FPH_SCANNER_PAGEMAP_SCAN;
	if (err < 0)
		set_error(s, err, s->no_seek);
	return 0;
}

/* What a newer header has is refused if it is asked for */
static bool read_opts(const struct fph_scanner_opts *from, struct fph_scanner_opts *ret)
{
	return fph_sized_in(ret, sizeof(*ret), from, FPH_SCANNER_OPTS_LEAST) == 0 &&
	       (unsigned int)ret->kind < FPH_SCANNER_MAX && ret->pid >= 0 &&
	       ret->cpu_percent <= 100;
}

int fph_scanner_open_sys(struct fph_scanner **ret,
			 const struct fph_scanner_opts *opts,
			 const struct fph_sys *sys)
{
	struct fph_scanner_opts known = { .sz = sizeof(known) };
	struct fph_scanner *s;
	int err;

	if (opts && !read_opts(opts, &known))
		return -EINVAL;
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->sys = sys;
	s->fd = s->process = -1;
	s->page_size = sys->page_size();
	s->pid = sys->pid();
	s->pid_of = known.pid == s->pid ? 0 : known.pid;
	s->cpu_percent = known.cpu_percent % 100;
	err = probe(s, known.kind);
	if (err < 0) {
		fph_scanner_close(s);
		return err;
	}
	*ret = s;
	return 0;
}

int fph_scanner_open(struct fph_scanner **ret)
{
	return fph_scanner_open_sys(ret, NULL, &fph_sys_linux);
}

int fph_scanner_open_with(struct fph_scanner **ret,
			  const struct fph_scanner_opts *opts)
{
	return fph_scanner_open_sys(ret, opts, &fph_sys_linux);
}

enum fph_scanner_kind fph_scanner_get_kind(const struct fph_scanner *s)
{
	return s->kind;
}

void fph_scanner_close(struct fph_scanner *s)
{
	int saved = errno;

	if (!s)
		return;
	if (s->fd >= 0)
		s->sys->close(s->fd);
	if (s->process >= 0)
		s->sys->close(s->process);
	free(s->entries);
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
	if (!s->pid_of && s->sys->pid() != s->pid) {
		*why = "the scanner was opened by another process and shows that one's memory";
		return -ESRCH;
	}
	return 0;
}

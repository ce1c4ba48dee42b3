/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Processes: which is the QEMU, where its memory is, what its threads do */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <fph/scan.h>

#include "fph-trace.h"
#include "machines.h"
#include "ram.h"

bool process_comm(pid_t pid, char comm[FPH_COMM_LEN])
{
	char path[64], *end;
	FILE *f;
	bool ok;

	snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return false;
	ok = fgets(comm, FPH_COMM_LEN, f);
	fclose(f);
	if (!ok)
		return false;
	end = strchr(comm, '\n');
	if (end)
		*end = '\0';
	return true;
}

bool threads_are_named(pid_t pid)
{
	char path[96], comm[FPH_COMM_LEN], first[FPH_COMM_LEN] = "";
	struct dirent *e;
	bool named = false;
	int n = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	dir = opendir(path);
	while (dir && (e = readdir(dir))) {
		if (!isdigit(e->d_name[0]) || !process_comm(atoi(e->d_name), comm))
			continue;
		if (n++ && strcmp(comm, first) != 0)
			named = true;
		strcpy(first, comm);
	}
	if (dir)
		closedir(dir);
	return named || n < 2;
}

pid_t find_machine(const char *name)
{
	g_autoptr(GError) error = NULL;
	pid_t pid = machines_only(NULL, name, &error);

	if (!pid)
		complain("%s", error->message);
	return pid;
}

static bool is_on(int fd, long magic)
{
	struct statfs fs;

	return fstatfs(fd, &fs) == 0 && fs.f_type == magic;
}

/* Keep the largest ones */
static void keep(struct memory *m, const struct fph_traced *piece)
{
	unsigned int i = m->n;

	if (m->n == FPH_MAX_RANGES) {
		i = 0;
		for (unsigned int k = 1; k < m->n; k++) {
			if (m->v[k].len < m->v[i].len)
				i = k;
		}
		if (m->v[i].len >= piece->len)
			return;
		if (m->v[i].fd >= 0)
			close(m->v[i].fd);
	} else {
		m->n++;
	}
	m->v[i] = *piece;
	if (piece->fd >= 0)
		m->v[i].fd = dup(piece->fd);
}

/* Of huge pages, and of files that are on disks, the tracer sees nothing */
static void keep_area(struct memory *m, const struct target *t, const struct area *a,
		      uint32_t shift)
{
	const struct mapping *first = a->first;
	struct fph_traced piece = {
		.sz = sizeof(piece), .start = a->start, .len = a->end - a->start, .fd = -1,
		.shift = shift,
	};
	int fd = first->inode ? target_open_file(t, first, NULL) : -1;

	if (first->shared && fd >= 0 && is_on(fd, TMPFS_MAGIC)) {
		piece.fd = fd;
		piece.offset = first->offset;
		keep(m, &piece);
	} else if (!first->shared && !is_on(fd, HUGETLBFS_MAGIC) &&
		   strncmp(first->name, "/anon_hugepage", 14) != 0) {
		keep(m, &piece);
	}
	if (fd >= 0)
		close(fd);
}

/* @error is told; negative errno */
static int failed(GError *error)
{
	complain("%s", error->message);
	return g_error_matches(error, G_IO_ERROR, G_IO_ERROR_PERMISSION_DENIED) ? -EACCES : -ENOENT;
}

int find_memory(pid_t pid, uint64_t min, uint32_t shift, struct memory *ret)
{
	char *any[] = { (char *)"all", NULL };
	g_autoptr(GError) error = NULL;
	g_autoptr(GArray) areas = NULL;
	struct target *t;
	int err = 0;

	memset(ret, 0, sizeof(*ret));
	t = target_open(NULL, pid, false, &error);
	if (!t)
		return failed(error);
	areas = ram_find(t, min ? any : NULL, &error);
	for (guint i = 0; areas && i < areas->len; i++) {
		const struct area *a = &g_array_index(areas, struct area, i);

		if (a->end - a->start >= min)
			keep_area(ret, t, a, shift);
	}
	if (!areas) {
		err = failed(error);
	} else if (!ret->n) {
		complain("process %d has no memory in pieces of %" PRIu64 " KiB or more that can be traced",
			 (int)pid, min >> 10);
		err = -ENOENT;
	}
	target_free(t);
	return err;
}

void free_memory(struct memory *m)
{
	for (unsigned int i = 0; i < m->n; i++) {
		if (m->v[i].fd >= 0)
			close(m->v[i].fd);
	}
	m->n = 0;
}

static int seed_file(struct fph_tracer *t, const struct fph_traced *m)
{
	off_t end = m->offset + m->len, data = m->offset, hole;

	while (data < end) {
		data = lseek(m->fd, data, SEEK_DATA);
		if (data < 0)
			return errno == ENXIO ? 0 : -errno;
		hole = lseek(m->fd, data, SEEK_HOLE);
		if (hole < 0)
			return -errno;
		if (data >= end)
			break;
		fph_tracer_touch(t, m->start + (data - m->offset),
				 m->start + ((hole < end ? hole : end) - m->offset));
		data = hole;
	}
	return 0;
}

struct seeding {
	struct fph_tracer *t;
	uint64_t start;
};

static int seed_pages(void *opaque, uint64_t start, uint64_t len, uint32_t page)
{
	const struct seeding *s = opaque;

	if (page & (FPH_PAGE_PRESENT | FPH_PAGE_SWAPPED) && !(page & FPH_PAGE_ZERO_PAGE))
		fph_tracer_touch(s->t, s->start + start, s->start + start + len);
	return 0;
}

/* Set the bits of what has memory already */
static int seed(struct fph_tracer *t, pid_t pid, const struct fph_traced *m)
{
	struct fph_scanner_opts opts = { .sz = sizeof(opts), .pid = pid };
	struct seeding seeding = { t, m->start };
	struct fph_region r = {
		.sz = sizeof(r),
		.host = (void *)(uintptr_t)m->start,
		.used = m->len,
		.max = m->len,
		.page_size = sysconf(_SC_PAGESIZE),
		.fd = -1,
	};
	struct fph_scanner *scanner;
	int err;

	if (m->fd >= 0)
		return seed_file(t, m);
	err = fph_scanner_open_with(&scanner, &opts);
	if (err < 0)
		return err;
	err = fph_map_region(scanner, &r, 0, m->len, 0, seed_pages, &seeding, NULL);
	fph_scanner_close(scanner);
	return err;
}

int add_memory(struct fph_tracer *t, pid_t pid, const struct memory *m, bool *complete)
{
	const char *why;
	int err;

	*complete = true;
	for (unsigned int i = 0; i < m->n; i++) {
		err = fph_tracer_add(t, &m->v[i], &why);
		if (err) {
			complain("%s", why);
			return err;
		}
		if (seed(t, pid, &m->v[i]) < 0)
			*complete = false;
	}
	return 0;
}

/*
 * Names that QEMU (with -name ...,debug-threads=on) and Linux give to threads;
 * the first match counts
 */
static const struct {
	const char *prefix;
	const char *kind;
} names[] = {
	{ "CPU ", "vcpu" },
	{ "ALL CPUs/", "vcpu" },
	{ "live_migration", "migration" },
	{ "multifdsend", "migration" },
	{ "migration", "migration" },
	{ "bg_snapshot", "migration" },
	{ "mig/dst/", "incoming" },
	{ "mig/", "migration" },
	{ "multifdrecv", "incoming" },
	{ "postcopy/", "incoming" },
	{ "vhost-", "vhost" },
	{ "IO ", "iothread" },
	{ "worker", "worker" },
	{ "iou-", "worker" },
	{ "touch_pages", "prealloc" },
	{ "fph-", "fph" },
	{ "call_rcu", "rcu" },
};

const char *const thread_kinds[] = {
	"vcpu", "migration", "incoming", "vhost", "iothread", "worker", "prealloc", "fph", "rcu", "main",
	"other", NULL,
};

const char *thread_kind(const char *comm, const char *main_comm)
{
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strncmp(comm, names[i].prefix, strlen(names[i].prefix)) == 0)
			return names[i].kind;
	}
	return strcmp(comm, main_comm) == 0 ? "main" : "other";
}

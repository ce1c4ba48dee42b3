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

/* The first of QEMU's options at @arg, where ",," is a comma; returns where the next one is */
static const char *next_option(const char *arg, char *ret)
{
	while (*arg && (*arg != ',' || *++arg == ','))
		*ret++ = *arg++;
	*ret = '\0';
	return arg;
}

/* Whether the argument of -name says that the guest has this one; @before if it says nothing */
static bool is_guest(const char *arg, const char *name, bool before)
{
	char *option = malloc(strlen(arg) + 1);
	const char *next;

	for (next = arg; option && *next;) {
		bool first = next == arg;

		next = next_option(next, option);
		if (strncmp(option, "guest=", 6) == 0)
			before = strcmp(option + 6, name) == 0;
		else if (first && !strchr(option, '='))
			before = strcmp(option, name) == 0;
	}
	free(option);
	return before;
}

/* By -name, of which QEMU takes several together */
static bool has_name(pid_t pid, const char *name)
{
	char path[64], *arg = NULL;
	bool is_name = false, found = false;
	size_t size = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return false;
	while (getdelim(&arg, &size, '\0', f) > 0) {
		if (is_name)
			found = is_guest(arg, name, found);
		is_name = strcmp(arg, "-name") == 0 || strcmp(arg, "--name") == 0;
	}
	free(arg);
	fclose(f);
	return found;
}

pid_t find_qemu(const char *name)
{
	char comm[FPH_COMM_LEN];
	pid_t found = 0;
	struct dirent *e;
	int n = 0;
	DIR *proc;

	proc = opendir("/proc");
	if (!proc) {
		complain("/proc cannot be read: %s", strerror(errno));
		return 0;
	}
	while ((e = readdir(proc))) {
		pid_t pid = isdigit(e->d_name[0]) ? atoi(e->d_name) : 0;

		if (!pid || !process_comm(pid, comm) || strncmp(comm, "qemu", 4) != 0)
			continue;
		if (name && !has_name(pid, name))
			continue;
		found = pid;
		n++;
	}
	closedir(proc);
	if (n == 1)
		return found;
	if (n == 0)
		complain("no QEMU%s%s runs here; name a process with -p", name ? " named " : "",
			 name ? name : "");
	else
		complain("%d QEMUs run here; name one with -p or -n", n);
	return 0;
}

static bool is_tmpfs(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) == 0 && fs.f_type == TMPFS_MAGIC;
}

/* Keep the largest ones */
static void keep(struct memory *m, const struct fph_traced *piece, const char *name)
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
		free(m->names[i]);
	} else {
		m->n++;
	}
	m->v[i] = *piece;
	m->names[i] = strdup(name);
	if (piece->fd >= 0)
		m->v[i].fd = dup(piece->fd);
}

static void flush(struct memory *m, struct fph_traced *piece, uint64_t min)
{
	if (piece->len >= min && piece->len)
		keep(m, piece, "anonymous");
	piece->len = 0;
}

int find_memory(pid_t pid, uint64_t min, uint32_t shift, struct memory *ret)
{
	struct fph_traced anon = { .sz = sizeof(anon), .fd = -1, .shift = shift };
	char path[96], *line = NULL;
	size_t size = 0;
	FILE *f;

	memset(ret, 0, sizeof(*ret));
	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	f = fopen(path, "re");
	if (!f) {
		int err = -errno;

		complain("%s: %s", path, strerror(-err));
		return err;
	}
	while (getline(&line, &size, f) > 0) {
		uint64_t start, end, offset, inode;
		char perms[5] = "";
		int name = 0;

		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %*s %" SCNu64 " %n",
			   &start, &end, perms, &offset, &inode, &name) < 5)
			continue;
		line[strcspn(line, "\n")] = '\0';
		/* What is executed is code, such as that which TCG made of the guest's */
		if (perms[1] == 'w' && perms[2] != 'x' && perms[3] == 'p' && !inode &&
		    (!line[name] || strncmp(line + name, "[anon", 5) == 0)) {
			/* Advice splits what is one piece */
			if (anon.len && anon.start + anon.len == start) {
				anon.len += end - start;
				continue;
			}
			flush(ret, &anon, min);
			anon.start = start;
			anon.len = end - start;
			continue;
		}
		flush(ret, &anon, min);
		if (perms[1] == 'w' && perms[3] == 's' && inode && end - start >= min) {
			struct fph_traced shared = {
				.sz = sizeof(shared), .start = start, .len = end - start,
				.offset = offset, .shift = shift,
			};

			snprintf(path, sizeof(path), "/proc/%d/map_files/%" PRIx64 "-%" PRIx64,
				 (int)pid, start, end);
			shared.fd = open(path, O_RDONLY | O_CLOEXEC);
			if (shared.fd < 0)
				continue;
			if (is_tmpfs(shared.fd))
				keep(ret, &shared, line + name);
			close(shared.fd);
		}
	}
	flush(ret, &anon, min);
	free(line);
	fclose(f);
	if (ret->n)
		return 0;
	complain("process %d has no memory in pieces of %" PRIu64 " KiB or more", (int)pid,
		 min >> 10);
	return -ENOENT;
}

void free_memory(struct memory *m)
{
	for (unsigned int i = 0; i < m->n; i++) {
		if (m->v[i].fd >= 0)
			close(m->v[i].fd);
		free(m->names[i]);
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

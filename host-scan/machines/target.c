/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "target.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* Nothing in /proc/PID is larger that is of use here */
#define MAX_FILE	(64u << 20)
/* A record has a line for each run of pages */
#define MAX_RECORD	(2u << 30)
#define MAPS_TRIES	4

static void mapping_free(gpointer p)
{
	struct mapping *m = p;

	g_free(m->name);
	g_free(m);
}

static void set_errno(GError **error, int err, const char *path, const char *file)
{
	GIOErrorEnum code = g_io_error_from_errno(err);
	const char *hint = "";

	switch (err) {
	case EACCES:
	case EPERM:
		hint = ": it takes the same user, if the process has gained no privileges, or CAP_SYS_PTRACE";
		break;
	case ENOENT:
	case ESRCH:
		code = G_IO_ERROR_NOT_FOUND;
		hint = ": there is no such process, or it has ended";
		break;
	}
	g_set_error(error, G_IO_ERROR, code, "%s/%s: %s%s", path, file, g_strerror(err), hint);
}

static char *read_up_to(const struct target *t, const char *name, guint max, gsize *len,
			GError **error)
{
	g_autoptr(GByteArray) data = g_byte_array_new();
	guint8 chunk[65536];
	ssize_t n;
	int fd;

	fd = openat(t->dir, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		set_errno(error, errno, t->path, name);
		return NULL;
	}
	while ((n = read(fd, chunk, sizeof(chunk))) > 0 && data->len < max)
		g_byte_array_append(data, chunk, n);
	if (n < 0) {
		set_errno(error, errno, t->path, name);
		close(fd);
		return NULL;
	}
	close(fd);
	if (n > 0) {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_MESSAGE_TOO_LARGE,
			    "%s/%s: more than %u MiB", t->path, name, max >> 20);
		return NULL;
	}
	if (len)
		*len = data->len;
	g_byte_array_append(data, (const guint8 *)"", 1);
	return (char *)g_byte_array_free(g_steal_pointer(&data), FALSE);
}

char *target_read(const struct target *t, const char *name, gsize *len, GError **error)
{
	return read_up_to(t, name, MAX_FILE, len, error);
}

char *target_read_record(const struct target *t, const char *name, GError **error)
{
	return read_up_to(t, name, MAX_RECORD, NULL, error);
}

/* "7f0000000000-7f0000001000 rw-p 00000000 00:00 0     name" */
static struct mapping *parse_mapping(const char *line)
{
	struct mapping m = { .rss = UNKNOWN, .swap = UNKNOWN, .huge = UNKNOWN,
			     .page_size = UNKNOWN };
	char perms[5];
	int at = 0;

	if (sscanf(line, "%" G_GINT64_MODIFIER "x-%" G_GINT64_MODIFIER "x %4s %"
		   G_GINT64_MODIFIER "x %x:%x %" G_GINT64_MODIFIER "u%n", &m.start, &m.end, perms,
		   &m.offset, &m.major, &m.minor, &m.inode, &at) != 7 ||
	    strlen(perms) != 4 || m.end <= m.start || m.start % LEAST_PAGE || m.end % LEAST_PAGE)
		return NULL;
	m.readable = perms[0] == 'r';
	m.writable = perms[1] == 'w';
	m.executable = perms[2] == 'x';
	m.shared = perms[3] == 's';
	while (line[at] == ' ')
		at++;
	m.name = g_strdup(line + at);
	return g_memdup2(&m, sizeof(m));
}

/* "Rss:      4 kB"; kernels differ in which of them they have */
static void parse_field(struct mapping *m, const char *line)
{
	static const char *const huge[] = { "AnonHugePages", "ShmemPmdMapped", "FilePmdMapped",
					    "Shared_Hugetlb", "Private_Hugetlb" };
	char key[32];
	guint64 kib;

	if (sscanf(line, "%31[A-Za-z_]: %" G_GINT64_MODIFIER "u kB", key, &kib) != 2)
		return;
	if (strcmp(key, "Rss") == 0)
		m->rss = kib << 10;
	else if (strcmp(key, "Swap") == 0)
		m->swap = kib << 10;
	else if (strcmp(key, "KernelPageSize") == 0)
		m->page_size = kib << 10;
	for (guint i = 0; i < G_N_ELEMENTS(huge); i++)
		if (strcmp(key, huge[i]) == 0)
			m->huge = (m->huge == UNKNOWN ? 0 : m->huge) + (kib << 10);
}

/* "VmFlags: rd wr mr mw me um": two letters each */
static void parse_flags(struct mapping *m, const char *flags)
{
	g_auto(GStrv) words = g_strsplit(flags, " ", -1);
	const char *const *w = (const char *const *)words;

	/* userfaultfd, for missing and minor faults */
	m->paged = g_strv_contains(w, "um") || g_strv_contains(w, "ui");
	/* VM_PFNMAP, VM_IO, VM_MIXEDMAP */
	m->device = g_strv_contains(w, "pf") || g_strv_contains(w, "io") ||
		    g_strv_contains(w, "mm");
}

GPtrArray *target_parse_maps(const char *text, const char *path, GError **error)
{
	g_autoptr(GPtrArray) all = g_ptr_array_new_with_free_func(mapping_free);
	g_autofree char *lines = g_strdup(text);
	struct mapping *last = NULL;
	char *rest = lines;

	for (char *line; (line = strsep(&rest, "\n"));) {
		struct mapping *m;

		if (!*line)
			continue;
		if (g_ascii_isupper(*line)) {
			if (last && g_str_has_prefix(line, "VmFlags:"))
				parse_flags(last, line + strlen("VmFlags:"));
			else if (last)
				parse_field(last, line);
			continue;
		}
		m = parse_mapping(line);
		if (!m || (last && m->start < last->end)) {
			if (m)
				mapping_free(m);
			g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
				    "%s: no list of mappings: '%s'", path, line);
			return NULL;
		}
		g_ptr_array_add(all, m);
		last = m;
	}
	return g_steal_pointer(&all);
}

static bool read_mappings(struct target *t, const char *file, GError **error)
{
	g_autofree char *path = g_strdup_printf("%s/%s", t->path, file);
	GPtrArray *all = NULL;

	/* One that grows while it is read, a page at a time, is told twice */
	for (unsigned int tries = MAPS_TRIES; !all; tries--) {
		g_autofree char *text = target_read(t, file, NULL, error);
		GError *why = NULL;

		if (!text)
			return false;
		all = target_parse_maps(text, path, &why);
		if (!all && tries == 1) {
			g_propagate_error(error, why);
			return false;
		}
		g_clear_error(&why);
	}
	g_clear_pointer(&t->mappings, g_ptr_array_unref);
	t->mappings = all;
	return true;
}

bool target_refresh(struct target *t, GError **error)
{
	return read_mappings(t, "maps", error);
}

GStrv target_parse_cmdline(const char *text, gsize len)
{
	GPtrArray *words = g_ptr_array_new();

	for (gsize at = 0; at < len; at += strlen(text + at) + 1)
		g_ptr_array_add(words, g_strdup(text + at));
	g_ptr_array_add(words, NULL);
	return (GStrv)g_ptr_array_free(words, FALSE);
}

GStrv target_cmdline(const char *sysroot, gint pid)
{
	g_autofree char *path = g_strdup_printf("%s/proc/%d/cmdline", sysroot ? sysroot : "", pid);
	g_autofree char *text = NULL;
	gsize len;

	return g_file_get_contents(path, &text, &len, NULL) ?
	       target_parse_cmdline(text, len) : NULL;
}

/* 1, 0, or negative errno if it cannot be told */
static int has_descriptor(int proc, const char *pid, const char *what)
{
	g_autofree char *path = g_strdup_printf("%s/fd", pid);
	int fd = openat(proc, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct dirent *e;
	int found = 0;
	DIR *dir;

	if (fd < 0)
		return -errno;
	dir = fdopendir(fd);
	if (!dir) {
		close(fd);
		return -ENOMEM;
	}
	while (found <= 0 && (e = readdir(dir))) {
		char link[64];
		ssize_t n;

		if (!g_ascii_isdigit(*e->d_name))
			continue;
		n = readlinkat(fd, e->d_name, link, sizeof(link) - 1);
		if (n < 0) {
			/* It was closed meanwhile */
			if (errno != ENOENT)
				found = -errno;
			continue;
		}
		link[n] = '\0';
		if (strcmp(link, what) == 0)
			found = 1;
	}
	closedir(dir);
	return found;
}

int target_has_descriptor(const char *sysroot, gint pid, const char *what)
{
	g_autofree char *path = g_strdup_printf("%s/proc/%d", sysroot ? sysroot : "", pid);

	return has_descriptor(AT_FDCWD, path, what);
}

bool target_pagers_possible(void)
{
	/* The number of the first namespace is part of the kernel's ABI */
	static const char all_processes[] = "pid:[4026531836]";
	g_autofree char *namespace = g_file_read_link("/proc/self/ns/pid", NULL);
	DIR *proc = opendir("/proc");
	struct dirent *e;
	bool possible = g_strcmp0(namespace, all_processes) != 0 || !proc;

	while (!possible && (e = readdir(proc))) {
		int found;

		if (!g_ascii_isdigit(*e->d_name))
			continue;
		found = has_descriptor(dirfd(proc), e->d_name, "anon_inode:[userfaultfd]");
		possible = found != 0 && found != -ENOENT && found != -ESRCH;
	}
	if (proc)
		closedir(proc);
	return possible;
}

static bool read_all(struct target *t, bool smaps, GError **error)
{
	g_autofree char *cmdline = NULL;
	gsize len = 0;

	t->comm = target_read(t, "comm", NULL, error);
	if (!t->comm)
		return false;
	g_strchomp(t->comm);
	cmdline = target_read(t, "cmdline", &len, error);
	if (!cmdline)
		return false;
	t->cmdline = target_parse_cmdline(cmdline, len);
	if (t->recorded)
		smaps = faccessat(t->dir, "smaps", R_OK, 0) == 0 ||
			faccessat(t->dir, "maps", R_OK, 0) < 0;
	if (!read_mappings(t, smaps ? "smaps" : "maps", error))
		return false;
	if (t->mappings->len == 0) {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
			    "process %d (%s) has no memory: it is a kernel thread, or has ended",
			    t->pid, t->comm);
		return false;
	}
	return true;
}

struct target *target_open(const char *sysroot, gint pid, bool smaps, GError **error)
{
	struct target *t = g_new0(struct target, 1);

	t->pid = pid;
	t->recorded = sysroot != NULL;
	t->path = g_strdup_printf("%s/proc/%d", sysroot ? sysroot : "", pid);
	t->dir = open(t->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (t->dir < 0) {
		if (errno == ENOENT && !sysroot)
			g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
				    "there is no process %d%s", pid,
				    g_file_test("/proc/self", G_FILE_TEST_EXISTS) ? "" :
				    ", or rather no /proc");
		else
			set_errno(error, errno, t->path, "");
	}
	if (t->dir < 0 || !read_all(t, smaps, error)) {
		target_free(t);
		return NULL;
	}
	return t;
}

void target_free(struct target *t)
{
	if (!t)
		return;
	if (t->dir >= 0)
		close(t->dir);
	g_clear_pointer(&t->mappings, g_ptr_array_unref);
	g_strfreev(t->cmdline);
	g_free(t->comm);
	g_free(t->path);
	g_free(t);
}

bool target_ended(const struct target *t)
{
	int fd = openat(t->dir, "maps", O_RDONLY | O_CLOEXEC);
	ssize_t n;
	char c;

	if (t->recorded || (fd < 0 && errno != ENOENT && errno != ESRCH)) {
		if (fd >= 0)
			close(fd);
		return false;
	}
	if (fd < 0)
		return true;
	/* A process that ends loses its memory first */
	n = read(fd, &c, 1);
	close(fd);
	return n <= 0;
}

bool target_has(const struct target *t, guint64 start, guint64 end)
{
	for (guint i = 0; i < t->mappings->len && start < end; i++) {
		const struct mapping *m = t->mappings->pdata[i];

		if (m->start <= start && start < m->end)
			start = m->end;
	}
	return start >= end;
}

static bool is_file_of(const struct stat *st, const struct mapping *m)
{
	return st->st_ino == m->inode && major(st->st_dev) == m->major &&
	       minor(st->st_dev) == m->minor;
}

/* One of the descriptors that the process itself has; -1 with errno set */
static int open_descriptor(const struct target *t, const struct mapping *m)
{
	int dirfd = openat(t->dir, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct dirent *e;
	int fd = -1, err = ENOENT;
	DIR *dir;

	if (dirfd < 0)
		return -1;
	dir = fdopendir(dirfd);
	if (!dir) {
		close(dirfd);
		errno = ENOMEM;
		return -1;
	}
	while (fd < 0 && (e = readdir(dir))) {
		struct stat st;

		if (!g_ascii_isdigit(*e->d_name) || fstatat(dirfd, e->d_name, &st, 0) < 0 ||
		    !S_ISREG(st.st_mode) || !is_file_of(&st, m))
			continue;
		fd = openat(dirfd, e->d_name, O_RDONLY | O_CLOEXEC | O_NOCTTY);
		if (fd < 0)
			err = errno;
	}
	closedir(dir);
	errno = err;
	return fd;
}

int target_open_file(const struct target *t, const struct mapping *m, GError **error)
{
	g_autofree char *link = NULL;
	struct stat st;
	int fd, err;

	fd = open_descriptor(t, m);
	if (fd >= 0)
		return fd;
	err = errno;
	link = g_strdup_printf("map_files/%" G_GINT64_MODIFIER "x-%" G_GINT64_MODIFIER "x",
			       m->start, m->end);
	/* A device would do something when it is opened */
	if (fstatat(t->dir, link, &st, 0) == 0 && S_ISREG(st.st_mode)) {
		fd = openat(t->dir, link, O_RDONLY | O_CLOEXEC | O_NOCTTY);
		if (fd >= 0)
			return fd;
	}
	if (err == EACCES || errno == EPERM || errno == EACCES)
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_PERMISSION_DENIED,
			    "its file cannot be opened: the process keeps no descriptor of it that this user may open, which takes CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN");
	else
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "its file cannot be opened: %s",
			    g_strerror(errno));
	return -1;
}

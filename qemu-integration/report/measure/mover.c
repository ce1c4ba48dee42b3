/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "mover.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define COMPACT		"/proc/sys/vm/compact_memory"
#define MOVED		"\npgmigrate_success "

#define PIECES		(64u << 20)	/* memory of our own, half of it free */

struct mover {
	int fd;
	char *pieces;
	gint stop;
	GThread *thread;
	guint64 before;
};

static guint64 moved_so_far(void)
{
	g_autofree char *text = NULL;
	const char *at;

	if (!g_file_get_contents("/proc/vmstat", &text, NULL, NULL))
		return 0;
	at = strstr(text, MOVED);
	return at ? g_ascii_strtoull(at + strlen(MOVED), NULL, 10) : 0;
}

/* Memory that is in one piece stays where it is */
static void break_up(char *p)
{
	size_t page = sysconf(_SC_PAGESIZE);

	madvise(p, PIECES, MADV_DONTNEED);
	for (size_t at = 0; at < PIECES; at += page)
		((volatile char *)p)[at] = 1;
	for (size_t at = 0; at < PIECES; at += 2 * page)
		madvise(p + at, page, MADV_DONTNEED);
}

static gpointer compact(gpointer opaque)
{
	struct mover *m = opaque;

	do {
		break_up(m->pieces);
		if (pwrite(m->fd, "1", 1, 0) != 1)
			break;
	} while (!g_atomic_int_get(&m->stop));
	return NULL;
}

struct mover *mover_begin(GError **error)
{
	int fd = open(COMPACT, O_WRONLY | O_CLOEXEC);
	struct mover *m;

	if (fd < 0) {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_SUPPORTED,
			    "the host's memory cannot be compacted: " COMPACT ": %s",
			    g_strerror(errno));
		return NULL;
	}
	m = g_new0(struct mover, 1);
	m->fd = fd;
	m->pieces = mmap(NULL, PIECES, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (m->pieces == MAP_FAILED) {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "mmap: %s", g_strerror(errno));
		close(fd);
		g_free(m);
		return NULL;
	}
	madvise(m->pieces, PIECES, MADV_NOHUGEPAGE);
	m->before = moved_so_far();
	m->thread = g_thread_new("mover", compact, m);
	return m;
}

guint64 mover_end(struct mover *m)
{
	guint64 moved;

	g_atomic_int_set(&m->stop, 1);
	g_thread_join(m->thread);
	moved = moved_so_far() - m->before;
	munmap(m->pieces, PIECES);
	close(m->fd);
	g_free(m);
	return moved;
}

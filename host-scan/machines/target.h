/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A process, as /proc or a recorded tree shows it: who it is, what it has
 * mapped, and the files behind that.
 */
#ifndef FPH_TARGET_H
#define FPH_TARGET_H

#include <gio/gio.h>
#include <stdbool.h>

#define UNKNOWN	G_MAXUINT64

/* The smallest page that there is: what was recorded may be of another machine */
#define LEAST_PAGE	4096

struct mapping {
	guint64 start, end;
	guint64 offset;			/* in the file */
	guint64 inode;			/* 0: no file */
	guint major, minor;
	bool readable, writable, executable, shared;
	char *name;			/* path or [name]; "" if it has none */

	/* From smaps, bytes; UNKNOWN if it was not read or lacks the field */
	guint64 rss, swap, huge, page_size;
	bool paged;			/* a pager provides what is absent */
	bool device;			/* there need not be pages behind it */
};

struct target {
	gint pid;
	bool recorded;			/* a tree, not the kernel's /proc */
	int dir;			/* .../proc/PID; goes stale with the process */
	char *path;			/* the same, for people */
	char *comm;
	GStrv cmdline;			/* empty for a kernel thread */
	GPtrArray *mappings;		/* of struct mapping, ascending */
};

/**
 * target_open() - look at process @pid
 * @sysroot: folder with a recorded proc/PID, or NULL for this machine
 * @smaps: read smaps, which takes the kernel a walk through all page tables. It
 *         has sizes, and, where target_pagers_possible(), what memory a pager
 *         provides
 *
 * A record may lack smaps, and have maps. Errors say which right is missing.
 */
struct target *target_open(const char *sysroot, gint pid, bool smaps, GError **error);
void target_free(struct target *t);

/**
 * target_refresh() - read the mappings again; none if the process has ended
 *
 * Without what only smaps has.
 */
bool target_refresh(struct target *t, GError **error);

/** target_ended() - has it, or is it about to? Never of a record. */
bool target_ended(const struct target *t);

/** target_has() - is all of [start, end) still mapped? */
bool target_has(const struct target *t, guint64 start, guint64 end);

/**
 * target_open_file() - a descriptor of the file behind @m
 * Return: -1 with @error set, which says which right is missing.
 */
int target_open_file(const struct target *t, const struct mapping *m, GError **error);

/**
 * target_pagers_possible() - could any process of this machine be a pager?
 *
 * It has to have a userfaultfd, and need not be the one whose memory it provides.
 * Without all processes in sight, yes.
 */
bool target_pagers_possible(void);

/** target_cmdline() - words of a process that need not be opened; NULL if it has ended */
GStrv target_cmdline(const char *sysroot, gint pid);

/**
 * target_has_descriptor() - has such a process a descriptor of @what?
 * @what: as its link shows it, "anon_inode:kvm-vm"
 *
 * Return: 1, 0, or a negative errno if it cannot be told.
 */
int target_has_descriptor(const char *sysroot, gint pid, const char *what);

/** target_read() - all of a file in the folder of the process, and a NUL behind it */
char *target_read(const struct target *t, const char *name, gsize *len, GError **error);

/** target_read_record() - the same, of a file of ours there, which may be larger */
char *target_read_record(const struct target *t, const char *name, GError **error);

/**
 * target_parse_maps() - what the text of maps or smaps lists
 * @path: of it, for the error
 *
 * Return: of struct mapping, as in a target; NULL with @error set.
 */
GPtrArray *target_parse_maps(const char *text, const char *path, GError **error);

/** target_parse_cmdline() - the words of a cmdline of @len bytes, with a NUL behind them */
GStrv target_parse_cmdline(const char *text, gsize len);

#endif

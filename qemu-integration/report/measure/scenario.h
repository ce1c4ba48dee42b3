/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What can be measured: the guests (scenarios) and the ways to migrate them (modes). */
#ifndef FPH_REPORT_SCENARIO_H
#define FPH_REPORT_SCENARIO_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

/* What the guest does with its memory before the migration. */
enum memory_use {
	USE_LITTLE,	/* boots, and nothing else */
	USE_FREED,	/* writes to most of it and frees that */
	USE_ALL,	/* fills it with content and keeps that */
	USE_BUSY,	/* fills some of it, and rewrites that all the time */
	USE_BALLOON,	/* gives most of it to the balloon, and gets that back */
	USE_FRAGMENTED,	/* gives single pages of it to the balloon, and keeps those between */
	USE_COMPILE,	/* runs a compiler many times, before and during the migration */
};

/* Where the guest goes. */
enum way {
	WAY_LIVE,	/* to a QEMU that waits for it */
	WAY_SAVE,	/* to a file; its time is that until the file is written */
	WAY_RESTORE,	/* the same; its time is that until the file is loaded */
};

struct scenario {
	char *name;		/* "idle-8g" */
	char *ram;		/* for vm_config */
	char *ram_words;
	bool shared;		/* QEMU reads a hole of it and thereby fills it */
	guint64 memory;		/* of each guest */
	guint guests;		/* that migrate at once */
	char *append;		/* parameters of the guest's kernel, or NULL */
	enum memory_use use;
	enum memory_use before;	/* of USE_BALLOON: how it used memory before that */
	enum way way;
	guint64 fill;		/* bytes the guest writes to before the migration, at most */
	guint64 rate;		/* of USE_BUSY: pages per second */
	guint64 balloon;	/* of USE_BALLOON, USE_FRAGMENTED: bytes that go into it */
	guint64 downtime_ms;	/* longest that QEMU is allowed; 0: its own */
	bool moved;		/* the host compacts its memory during the migration */
	guint64 objects;	/* of USE_COMPILE: made by one job */
};

/* A device through which a guest can say which of its pages are free. */
struct device {
	const char *name;	/* as in -device */
	const char *module;	/* of the guest's kernel, that drives it */
	const char *const *args;	/* of both QEMUs, NULL-terminated */
	const char *virtio;	/* its name in x-query-virtio, if it is a balloon */
	int queue_inflate, queue_deflate;	/* where pages come in and go out */
};

struct mode {
	const char *name;
	const char *fph_mode;	/* for vm_config; NULL: no fph-source */
	const struct device *device;	/* NULL: none */
	bool host_knows;	/* the source does not read what it never gave memory for */
	bool reports;		/* the guest gives back its free pages all the time */
	bool prescan;		/* waits until the prescan has seen all memory */
	const char *help;
	guint64 multifd;	/* connections, unless the set-up has some; 0: without */
};

extern const struct mode modes[];	/* ends with a NULL name */

/**
 * scenario_parse() - "KIND-SIZE", for instance "memfd-8g", or a file's name, which has a '/'
 * "save-KIND-SIZE" and "restore-KIND-SIZE" are those by way of a file, "evacuate-N-KIND-SIZE"
 * so many of them at once; KIND- is idle- where it is missing.
 * @memory: replaces SIZE, in the name as well, unless it is 0
 * Return: NULL with @error set to words that name what is allowed.
 */
struct scenario *scenario_parse(const char *name, guint64 memory, GError **error);
void scenario_free(struct scenario *s);

/** scenario_device() - that of a mode, or of the scenario; NULL: none. */
const struct device *scenario_device(const struct scenario *s, const struct mode *m);

/** mode_find() - NULL with @error set to words that name what is allowed. */
const struct mode *mode_find(const char *name, GError **error);

/** size_parse() - "8g", "512m", plain bytes; false with @error set. */
bool size_parse(const char *text, guint64 *ret, GError **error);

/** scenario_help() - kinds and modes, one line each. */
char *scenario_help(void);

#endif

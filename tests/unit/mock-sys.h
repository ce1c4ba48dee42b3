/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A kernel made of arrays: the page states of one region for PAGEMAP_SCAN and
 * pagemap, what is in its pages, and those of one file for lseek() and
 * cachestat(). It asserts on each call what the library promises to ask for,
 * and misbehaves on demand.
 */
#ifndef MOCK_SYS_H
#define MOCK_SYS_H

#include "fph-test.h"
#include "scanner.h"

/* PAGE, the bytes of a page, comes from meson.build: a test is built for several */
#define PER_TABLE (PAGE / sizeof(uint64_t))
/* Where bytes matter: pages for as many as @n of 4 KiB have */
#define OF_4K(n) ((n) * UINT64_C(4096) / PAGE)
#define HOST	UINT64_C(0x7f0000000000)
#define ZERO_PFN UINT64_C(77)

/* Page states */
enum {
	M_DATA = 'd',	/* present */
	M_SWAP = 's',
	M_NOVMA = 'x',
	M_NONE = 'o',
	M_ZERO = 'z',
	M_HUGE = 'h',	/* present, part of a huge page */
	M_BUSY = 'b',	/* of a file: in the page cache, but not uptodate */
};

struct mock {
	/* memory */
	char *pages;
	uint64_t npages;
	int open_error;		/* negative errno */
	int probe_error;

	bool pfns;		/* entries have them */

	/* what is in pages that are present: M_DATA or anything else for zero */
	char *content;
	int read_error;		/* negative errno, of page number: */
	uint64_t unreadable;

	/* file, in pages from its start */
	char *file;
	uint64_t file_pages;
	uint64_t file_bytes;	/* 0: all of file_pages */
	bool regular;
	uint64_t magic;
	int info_error;
	int witness_error;	/* negative errno, of cachestat() */

	/* userfaultfd */
	char *marked;		/* per page: write-protected */
	bool shared;		/* absent pages may be asked for */
	bool absent_unwritten;	/* what is absent does not count as written */
	bool registered;
	int uffd_open_error;
	int uffd_api_error;
	int uffd_register_error;
	int uffd_unregister_error;	/* ENOMEM: of all but the rest */
	int64_t merged;		/* pages that KSM merged, or negative errno */

	long pid;

	/* misbehaviour of the scan calls after the probe, counted from 1 */
	int fail_at;		/* call number */
	int fail_with;		/* negative errno */
	int eintr_every;	/* 0: never */
	uint64_t max_walk;	/* pages per call, 0: no limit */
	int short_every;	/* a read of entries lacks the first half; 0: never */
	uint64_t stale_walk;	/* pages by which walk_end is too low */
	uint64_t slow_ahead;	/* ns that a look ahead takes */
	bool stuck;		/* no progress, no ranges */
	bool ended;		/* the process: no entries */
	bool torn_down;		/* the same, and nobody can tell yet by the process */
	bool too_many;		/* more ranges than there is room for */
	bool disorder;		/* a range in front of what was asked for */
	bool too_far;		/* walk_end behind what was asked for */
	uint64_t shrink_to;	/* bytes the file has from fail_at on */

	/* what happened */
	int opened;
	int closed;
	int calls;		/* of ioctl or lseek, without the probe */
	bool probed;
	uint64_t widest;	/* pages asked for in one ioctl */
	uint64_t reported;	/* ranges, by walks */
	long opened_pid;
	uint64_t clock;
	uint64_t unregistered;	/* bytes */
	uint64_t widest_unregister;
	uint64_t tick;		/* nanoseconds that pass when one looks */
	uint64_t slept;
	int counts;		/* calls of cachestat(), probes too */
	int reads;		/* calls */
	uint64_t pages_read;
};

extern struct mock mock;
extern const struct fph_sys mock_sys;

/* Ranges a scan emitted; the sink checks their order */
struct catch {
	uint64_t n;
	uint64_t bytes;
	uint64_t end;
	uint64_t limit;		/* nothing may end behind it, 0: not checked */
	int fail_at;		/* range number from 1 */
	int fail_with;
	char *pages;		/* M_NONE or M_ZERO per page, if not NULL */
	struct {
		uint64_t start;
		uint64_t len;
		enum fph_reason why;
	} first[8];
};

int catch_sink(void *opaque, uint64_t start, uint64_t len, enum fph_reason why);

void mock_reset(void);
void mock_free(void);
void mock_memory(const char *pattern, uint64_t npages);
void mock_file(const char *pattern, uint64_t npages);
/* Of the memory there is */
void mock_content(const char *pattern);

#endif /* MOCK_SYS_H */

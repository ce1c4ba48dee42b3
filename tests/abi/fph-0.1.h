/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libfph as programs see it that were built with the headers of 0.1: structs,
 * numbers and functions. Never changed: what does not go together with this is a
 * new library (soname), or an error.
 */
#ifndef FPH_0_1_H
#define FPH_0_1_H

#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>

enum { FPH_METHOD_NONE, FPH_METHOD_PAGEMAP_SCAN, FPH_METHOD_PAGEMAP };
enum { FPH_SCANNER_AUTO };
enum { FPH_UNMAPPED, FPH_ZERO_MAPPED, FPH_ZERO_CONTENT, FPH_FREE };
#define FPH_PAGE_PRESENT	(1u << 0)
#define FPH_PAGE_ZERO_CONTENT	(1u << 4)
#define FPH_MAP_CONTENT		(1u << 0)

struct fph_region {
	size_t sz;
	void *host;
	uint64_t used;
	uint64_t max;
	uint64_t page_size;
	int fd;
	uint64_t fd_offset;
	uint32_t flags;
};

struct fph_verdict {
	unsigned int backing;
	unsigned int method;
	const char *why;
};

struct fph_scan_stats {
	size_t sz;
	uint64_t ns;
	uint64_t scanned;
	uint64_t ranges;
	uint64_t calls;
	uint64_t given_up;
};

struct fph_scanner_opts {
	size_t sz;
	unsigned int kind;
	int32_t pid;
	uint32_t cpu_percent;
};

struct fph_hint_frame {
	size_t sz;
	uint32_t id;
	uint64_t pages;
	uint64_t ranges;
	bool last;
	bool aborted;
	uint64_t walk_ns;
	uint64_t lock_ns;
	uint64_t guest_pages;
	uint64_t guest_entries;
	uint32_t walk;
};

struct fph_skip_counts {
	size_t sz;
	uint64_t skipped;
	uint64_t resent;
	uint64_t reason[8];
	uint64_t both;
};

struct fph_skip_sink {
	struct fph_skip *skip;
	unsigned long *dirty;
	uint64_t granule;
	uint64_t align;
	uint64_t limit;
	uint64_t cleared;
};

struct fph_scanner;
struct fph_hint;
struct fph_skip;

typedef int (*fph_sink_fn)(void *opaque, uint64_t start, uint64_t len, unsigned int why);
typedef int (*fph_page_fn)(void *opaque, uint64_t start, uint64_t len, uint32_t page);

const char *fph_version(void);
int fph_scanner_open_with(struct fph_scanner **ret, const struct fph_scanner_opts *opts);
void fph_scanner_close(struct fph_scanner *s);
int fph_region_classify(struct fph_scanner *s, const struct fph_region *r,
			struct fph_verdict *ret);
int fph_scan_region(struct fph_scanner *s, const struct fph_region *r, unsigned int method,
		    uint64_t start, uint64_t len, fph_sink_fn sink, void *opaque,
		    struct fph_scan_stats *stats);
int fph_map_region(struct fph_scanner *s, const struct fph_region *r, uint64_t start,
		   uint64_t len, uint32_t flags, fph_page_fn fn, void *opaque,
		   struct fph_scan_stats *stats);
int fph_hint_new(struct fph_hint **ret, uint32_t last_id);
void fph_hint_free(struct fph_hint *h);
uint32_t fph_hint_request(struct fph_hint *h, uint64_t max_pages);
int fph_hint_feed(struct fph_hint *h, const void *frame, size_t len, fph_sink_fn sink,
		  void *opaque, struct fph_hint_frame *ret, const char **why);
int fph_skip_new(struct fph_skip **ret, uint64_t npages);
void fph_skip_free(struct fph_skip *k);
void fph_skip_get_counts(const struct fph_skip *k, struct fph_skip_counts *ret);
int fph_skip_sink_fn(void *opaque, uint64_t start, uint64_t len, unsigned int why);

#endif

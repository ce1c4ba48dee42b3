/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The edge between libfph and the kernel. sys.c is the only file that calls
 * it, so a test that replaces this table sees, and can answer, everything.
 */
#ifndef FPH_SYS_H
#define FPH_SYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "pagemap-abi.h"

/* Linux 6.7; the header may be older */
#define FPH_UFFD_FEATURE_WP_ASYNC	(UINT64_C(1) << 15)

/* What a descriptor refers to */
struct fph_sys_file {
	bool regular;		/* a regular file, not a device */
	uint64_t fs_magic;	/* f_type of its file system */
};

/* Functions return a negative errno on failure and do not touch errno. */
struct fph_sys {
	int (*open_pagemap)(long pid);	/* 0: this process */
	/* To be asked whether the process is still that one; Linux 5.3 */
	int (*open_process)(long pid);
	bool (*has_ended)(int process);
	void (*close)(int fd);
	int (*pagemap_scan)(int fd, struct fph_pm_scan *arg);
	/* Entries read, 0 if the process has ended */
	int64_t (*pagemap_read)(int fd, uint64_t first, uint64_t *entries,
				size_t n);
	/* A PFN that is the zero page for certain, or 0 */
	uint64_t (*zero_pfn)(void);
	/* Are all of these addresses of this process mapped? */
	bool (*is_mapped)(uint64_t start, uint64_t len);
	/* Bytes read, from the first on. @fd < 0: addresses of process @pid,
	 * 0 being this one; else offsets in the file, and one element. */
	int64_t (*read_memory)(long pid, int fd, const struct iovec *v,
			       size_t n, void *buf);
	int64_t (*seek)(int fd, uint64_t offset, int whence);
	/* Pages of the file there are in memory or in swap; @len is not 0 */
	int64_t (*file_pages)(int fd, uint64_t offset, uint64_t len);
	int (*file_size)(int fd, uint64_t *ret);
	int (*file_info)(int fd, struct fph_sys_file *ret);
	int (*open_userfaultfd)(void);
	int (*uffd_api)(int fd, uint64_t features);
	int (*uffd_register)(int fd, uint64_t start, uint64_t len);
	int (*uffd_unregister)(int fd, uint64_t start, uint64_t len);
	int (*open_merged)(void);	/* /proc/self/ksm_merging_pages */
	int64_t (*read_number)(int fd);	/* from the start of a text file */
	uint64_t (*now_ns)(void);	/* CLOCK_MONOTONIC */
	void (*sleep_ns)(uint64_t ns);
	uint64_t (*page_size)(void);
	long (*pid)(void);
};

extern const struct fph_sys fph_sys_linux;

#endif /* FPH_SYS_H */

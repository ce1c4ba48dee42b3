/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The edge between libfph and the kernel. sys.c is the only file that calls
 * it, so a test that replaces this table sees, and can answer, everything.
 */
#ifndef FPH_SYS_H
#define FPH_SYS_H

#include <stdbool.h>
#include <stdint.h>

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
	int (*open_pagemap)(void);
	void (*close)(int fd);
	int (*pagemap_scan)(int fd, struct fph_pm_scan *arg);
	int64_t (*seek)(int fd, uint64_t offset, int whence);
	int (*file_size)(int fd, uint64_t *ret);
	int (*file_info)(int fd, struct fph_sys_file *ret);
	int (*open_userfaultfd)(void);
	int (*uffd_api)(int fd, uint64_t features);
	int (*uffd_register)(int fd, uint64_t start, uint64_t len);
	int (*uffd_unregister)(int fd, uint64_t start, uint64_t len);
	int (*open_merged)(void);	/* /proc/self/ksm_merging_pages */
	int64_t (*read_number)(int fd);	/* from the start of a text file */
	uint64_t (*now_ns)(void);	/* CLOCK_MONOTONIC */
	uint64_t (*page_size)(void);
	long (*pid)(void);
};

extern const struct fph_sys fph_sys_linux;

#endif /* FPH_SYS_H */

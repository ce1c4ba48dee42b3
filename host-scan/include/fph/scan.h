/* SPDX-License-Identifier: LGPL-2.1-or-later */
/**
 * DOC: what the host knows of a range of guest memory
 *
 * A region is a mapping of guest memory in this process (in QEMU: a RAMBlock),
 * or in another one that the scanner was opened for. What lies behind it
 * decides how absent pages can be found, and anything unknown finds nothing:
 * fph_region_classify() picks the method, fph_scan_region() emits what the
 * method finds. fph_map_region() tells what every page is, for reports.
 *
 * The scan is a snapshot. A page that is written while the scan runs may be
 * reported or not, so a caller must have armed its dirty log before it scans.
 */
#ifndef FPH_SCAN_H
#define FPH_SCAN_H

#include <fph/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * enum fph_backing - what lies behind a region
 * @FPH_BACKING_UNKNOWN:       could not be told
 * @FPH_BACKING_ANON:          private anonymous memory
 * @FPH_BACKING_ANON_SHARED:   shared anonymous memory without a descriptor
 * @FPH_BACKING_SHMEM:         shared mapping of a memfd or a tmpfs file
 * @FPH_BACKING_SHMEM_PRIVATE: private mapping of a memfd or a tmpfs file
 * @FPH_BACKING_HUGETLB:       huge pages of hugetlbfs
 * @FPH_BACKING_FILE:          a file of another file system
 * @FPH_BACKING_GUEST_MEMFD:   memory that the host cannot read
 * @FPH_BACKING_MAX:           number of backings
 */
enum fph_backing {
	FPH_BACKING_UNKNOWN,
	FPH_BACKING_ANON,
	FPH_BACKING_ANON_SHARED,
	FPH_BACKING_SHMEM,
	FPH_BACKING_SHMEM_PRIVATE,
	FPH_BACKING_HUGETLB,
	FPH_BACKING_FILE,
	FPH_BACKING_GUEST_MEMFD,
	FPH_BACKING_MAX,
};

/**
 * enum fph_method - how absent and zero pages are found
 * @FPH_METHOD_NONE:         not at all
 * @FPH_METHOD_PAGEMAP_SCAN: the PAGEMAP_SCAN ioctl of /proc/self/pagemap
 * @FPH_METHOD_PAGEMAP:      the entries of /proc/self/pagemap
 * @FPH_METHOD_SEEK:         holes by lseek() with SEEK_DATA and SEEK_HOLE in
 *                           which cachestat() counts no page
 * @FPH_METHOD_PAGEMAP_SCAN_SEEK: absent by PAGEMAP_SCAN, and such a hole
 * @FPH_METHOD_PAGEMAP_SEEK: absent by the entries, and such a hole
 * @FPH_METHOD_MAX:          number of methods
 */
enum fph_method {
	FPH_METHOD_NONE,
	FPH_METHOD_PAGEMAP_SCAN,
	FPH_METHOD_PAGEMAP,
	FPH_METHOD_SEEK,
	FPH_METHOD_PAGEMAP_SCAN_SEEK,
	FPH_METHOD_PAGEMAP_SEEK,
	FPH_METHOD_MAX,
};

/**
 * enum fph_scanner_kind - how page tables are read
 * @FPH_SCANNER_AUTO:         the first of the following that works
 * @FPH_SCANNER_PAGEMAP_SCAN: the PAGEMAP_SCAN ioctl, Linux 6.7 and newer
 * @FPH_SCANNER_PAGEMAP:      the entries of /proc/PID/pagemap. Slower, and sees
 *                            the zero page only with CAP_SYS_ADMIN
 * @FPH_SCANNER_OFF:          not at all; nothing else is asked either
 * @FPH_SCANNER_MAX:          number of kinds
 */
enum fph_scanner_kind {
	FPH_SCANNER_AUTO,
	FPH_SCANNER_PAGEMAP_SCAN,
	FPH_SCANNER_PAGEMAP,
	FPH_SCANNER_OFF,
	FPH_SCANNER_MAX,
};

/* Properties of a region that only its owner knows (struct fph_region.flags) */
#define FPH_REGION_SHARED	(1u << 0)	/* mapped MAP_SHARED */
#define FPH_REGION_NOT_RAM	(1u << 1)	/* ROM, video memory, tables ... */
#define FPH_REGION_READONLY	(1u << 2)	/* mapped or opened read-only */
#define FPH_REGION_RESIZABLE	(1u << 3)	/* may grow up to @max */
#define FPH_REGION_FOREIGN	(1u << 4)	/* mapped by someone else, handed in */
#define FPH_REGION_PMEM		(1u << 5)	/* persistent memory */
#define FPH_REGION_NAMED_FILE	(1u << 6)	/* path given by the user */
#define FPH_REGION_GUEST_MEMFD	(1u << 7)	/* private memory in a guest_memfd */
#define FPH_REGION_PAGED	(1u << 8)	/* a pager provides it: userfaultfd */

/**
 * struct fph_region - a mapping of guest memory
 * @sz:        sizeof(struct fph_region), so that the struct can grow: a program
 *             that was built with a shorter one goes on to work
 * @host:      address of the first byte in the process that is scanned
 * @used:      bytes in use; nothing at or beyond it is ever reported
 * @max:       bytes reserved, >= @used
 * @page_size: page size of the backing in bytes
 * @fd:        descriptor, in this process, of what is behind the mapping, or -1
 * @fd_offset: offset in @fd of the first byte
 * @flags:     FPH_REGION_*
 *
 * What is absent of memory that is registered with userfaultfd for missing or
 * minor faults (VmFlags um and ui of /proc/PID/smaps) is not zero: a pager still
 * owes it. The kernel's page tables do not tell such memory from other, so
 * whoever registered it, or may find it registered, sets FPH_REGION_PAGED.
 * Write protection alone (uw) does no harm.
 *
 * What a newer header adds and this library does not know forbids a scan.
 */
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

/**
 * struct fph_verdict - what was decided for a region
 * @backing: what lies behind it
 * @method:  how to scan it
 * @why:     static string: why nothing can be found, NULL unless @method is
 *           FPH_METHOD_NONE
 */
struct fph_verdict {
	enum fph_backing backing;
	enum fph_method method;
	const char *why;
};

/**
 * struct fph_scan_stats - cost and outcome of scans, added up by each call
 * @sz:        sizeof(struct fph_scan_stats)
 * @ns:        time spent, nanoseconds of CLOCK_MONOTONIC
 * @scanned:   bytes looked at
 * @ranges:    ranges emitted
 * @calls:     system calls made
 * @given_up:  0: no scan stops early any more, since holes are cheaper to find
 *             than to read, however short they are
 */
struct fph_scan_stats {
	size_t sz;
	uint64_t ns;
	uint64_t scanned;
	uint64_t ranges;
	uint64_t calls;
	uint64_t given_up;
};

/** struct fph_scanner - handle on the kernel interfaces, opaque. One thread
 *  at a time may use it, in the process that opened it: after fork() it would
 *  show the memory of the parent, so the child is refused. */
struct fph_scanner;

/**
 * struct fph_scanner_opts - how to scan what
 * @sz:          sizeof(struct fph_scanner_opts)
 * @kind:        how page tables are read
 * @pid:         the process whose memory it is; 0 for this one
 * @cpu_percent: share of one CPU that scans take at most, 1 to 100: they sleep
 *               in between. 0 for no limit.
 *
 * All zeroes but @sz are the defaults.
 */
struct fph_scanner_opts {
	size_t sz;
	enum fph_scanner_kind kind;
	int32_t pid;
	uint32_t cpu_percent;
};

/**
 * fph_scanner_open() - open /proc/self/pagemap and probe the kernel
 * @ret: the new scanner, to be closed with fph_scanner_close()
 *
 * Opening succeeds on kernels and in sandboxes where it is of no use: such a
 * scanner classifies every region as FPH_METHOD_NONE with a reason, see
 * fph_scanner_error(). Open it before privileges are dropped, a process that
 * changed its user may not open its own pagemap any more.
 *
 * Return: 0, or -ENOMEM. Since 0.1.
 */
FPH_API int fph_scanner_open(struct fph_scanner **ret);

/**
 * fph_scanner_open_with() - the same, for another process or in another way
 * @ret:  the new scanner, to be closed with fph_scanner_close()
 * @opts: options, NULL for the defaults
 *
 * Another process's memory is scanned while it runs. The scanner goes on to
 * mean the process that had the PID when it was opened, and the program that it
 * ran; once that is about to lose its memory, as it ends or executes another one,
 * scans fail with -ESRCH. (Not so where the kernel takes the memory of a process
 * that it has chosen to kill, as memory was short: see to it that it lives on.)
 * With FPH_SCANNER_PAGEMAP addresses without a mapping are found to be absent
 * there, so ask for what is mapped.
 *
 * Return: 0, -EINVAL for options that are out of range or that this version
 * does not know, or -ENOMEM. Since 0.1.
 */
FPH_API int fph_scanner_open_with(struct fph_scanner **ret,
				  const struct fph_scanner_opts *opts);

/**
 * fph_scanner_get_kind() - how page tables are read
 * @s: the scanner
 *
 * Return: never FPH_SCANNER_AUTO; FPH_SCANNER_OFF if nothing works or that was
 * asked for. Since 0.1.
 */
FPH_API enum fph_scanner_kind fph_scanner_get_kind(const struct fph_scanner *s);

/**
 * fph_scanner_close() - close a scanner
 * @s: the scanner, or NULL
 *
 * Keeps errno. Since 0.1.
 */
FPH_API void fph_scanner_close(struct fph_scanner *s);

/**
 * fph_scanner_error() - why page tables cannot be read
 * @s:   the scanner
 * @why: static string for people, written when the result is not 0
 *
 * Return: 0 if they can, else the negative errno of the probe: of open()
 * (-EACCES, -ENOENT ...) or, if PAGEMAP_SCAN was asked for, of the ioctl
 * (-ENOTTY: kernel older than 6.7). -EOPNOTSUPP if it was asked to be off.
 * -ESRCH in a child of the process that opened @s. Since 0.1.
 */
FPH_API int fph_scanner_error(const struct fph_scanner *s, const char **why);

/**
 * fph_region_classify() - decide how a region is scanned
 * @s:   the scanner
 * @r:   the region
 * @ret: backing, method, and the reason if there is no method
 *
 * Asks the kernel for each region anew, since what it answers depends on the
 * file: cachestat() of a file takes that it is open for writing, or could be.
 *
 * Return: 0, or -EINVAL if @r contradicts itself (page size no power of two or
 * smaller than the host's, @used beyond @max, misaligned address or file
 * offset, ends that overflow, @r->sz too small). Since 0.1.
 */
FPH_API int fph_region_classify(struct fph_scanner *s,
				const struct fph_region *r,
				struct fph_verdict *ret);

/**
 * fph_scan_region() - emit the absent and zero pages of a part of a region
 * @s:      the scanner
 * @r:      the region
 * @method: what fph_region_classify() decided for it
 * @start:  first byte relative to @r->host; rounded up to a host page
 * @len:    bytes; the end is rounded down to a host page and clamped to @r->used
 * @sink:   receives the ranges
 * @opaque: passed to @sink
 * @stats:  added to, may be NULL; also when the call fails
 *
 * The kernel is asked for at most 64 MiB and 512 ranges at a time, or for a
 * GiB in which nothing is, so that page faults of other threads do not wait
 * behind the scan. Never populates a page. The methods with lseek() move the
 * file position of @r->fd, and emit nothing behind the end of the file. They do
 * not find what fallocate() gave memory and nobody wrote to, though it reads as
 * zero: to the kernel, pages that it is moving look the same.
 *
 * Return: 0, -EINVAL for a region without a method or a method that fits the
 * region or the scanner not, the error of fph_scanner_error(), the sink's
 * error, or the kernel's (-EPERM, -ENOMEM ...; -ESRCH if the process ended,
 * -EIO if its answer makes no sense); ranges emitted before an error are valid.
 * Since 0.1.
 */
FPH_API int fph_scan_region(struct fph_scanner *s, const struct fph_region *r,
			    enum fph_method method, uint64_t start,
			    uint64_t len, fph_sink_fn sink, void *opaque,
			    struct fph_scan_stats *stats);

/* What a page is (fph_page_fn). None of them: nothing is in the page table. */
#define FPH_PAGE_PRESENT	(1u << 0)	/* in memory */
#define FPH_PAGE_SWAPPED	(1u << 1)	/* in swap, or with a marker in the page table */
#define FPH_PAGE_ZERO_PAGE	(1u << 2)	/* the host's zero page; with PRESENT */
#define FPH_PAGE_HUGE		(1u << 3)	/* part of a huge page; by PAGEMAP_SCAN only */
#define FPH_PAGE_ZERO_CONTENT	(1u << 4)	/* read, and all zero; with PRESENT */

/* What else to find out (fph_map_region) */
#define FPH_MAP_CONTENT		(1u << 0)	/* read what is present */
/* How it is found out */
#define FPH_MAP_MAPPED		(1u << 1)	/* all of the region is mapped */

/**
 * typedef fph_page_fn - receiver of what pages are
 * @opaque: receiver's own data
 * @start:  first byte, relative to the start of the region
 * @len:    length in bytes, never 0, whole host pages
 * @page:   FPH_PAGE_*, the same for all of them
 *
 * Return: 0 to go on, a negative errno to stop. Since 0.1.
 */
typedef int (*fph_page_fn)(void *opaque, uint64_t start, uint64_t len,
			   uint32_t page);

/**
 * fph_map_region() - tell what each page of a part of a region is
 * @s:      the scanner
 * @r:      the region, of any backing
 * @start:  first byte relative to @r->host; rounded up to a host page
 * @len:    bytes; the end is rounded down to a host page and clamped to @r->used
 * @flags:  FPH_MAP_*
 * @fn:     receives runs of pages, in ascending order
 * @opaque: passed to @fn
 * @stats:  added to, may be NULL; also when the call fails
 *
 * What the page tables say, whatever it proves: of shared memory, pages that
 * are in the file but not mapped look like nothing. That is for
 * fph_scan_region() to tell. Addresses without a mapping are in no run. Who knows that
 * there are none says so, with FPH_MAP_MAPPED: then PAGEMAP_SCAN need not have each page
 * that is just present in its answer, which takes half of the time; an address without a
 * mapping would be called present.
 *
 * With FPH_MAP_CONTENT anonymous memory and tmpfs is read where a page is
 * present (but for FPH_REGION_PAGED: one that went away meanwhile would have to
 * be waited for), a MiB at a time, by process_vm_readv() or, if it is shared, through
 * @r->fd: nothing is populated. What cannot be read, or went away meanwhile, is
 * not of zero content.
 *
 * Return: 0, or an error as of fph_scan_region(); -EPERM also if the process's
 * memory must not be read (which takes CAP_SYS_PTRACE). Since 0.1.
 */
FPH_API int fph_map_region(struct fph_scanner *s, const struct fph_region *r,
			   uint64_t start, uint64_t len, uint32_t flags,
			   fph_page_fn fn, void *opaque,
			   struct fph_scan_stats *stats);

/**
 * fph_is_zero() - does memory hold only zeroes?
 * @p:   memory of this process
 * @len: bytes
 *
 * Return: true if it does, or @len is 0. Since 0.1.
 */
FPH_API bool fph_is_zero(const void *p, size_t len);

/**
 * fph_scanner_kind_name() - name of a kind of scanner, as in options
 * @kind: a kind
 *
 * Return: a static string, "unknown" for a value out of range. Since 0.1.
 */
FPH_API const char *fph_scanner_kind_name(enum fph_scanner_kind kind);

/**
 * fph_backing_name() - name of a backing as used in reports
 * @backing: a backing
 *
 * Return: a static string, "unknown" for a value out of range. Since 0.1.
 */
FPH_API const char *fph_backing_name(enum fph_backing backing);

/**
 * fph_method_name() - name of a method as used in reports
 * @method: a method
 *
 * Return: a static string, "none" for a value out of range. Since 0.1.
 */
FPH_API const char *fph_method_name(enum fph_method method);

#ifdef __cplusplus
}
#endif

#endif /* FPH_SCAN_H */

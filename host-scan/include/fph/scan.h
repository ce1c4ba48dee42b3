/* SPDX-License-Identifier: LGPL-2.1-or-later */
/**
 * DOC: what the host knows of a range of guest memory
 *
 * A region is a mapping of guest memory in this process (in QEMU: a RAMBlock).
 * What lies behind it decides how absent pages can be found, and anything
 * unknown finds nothing: fph_region_classify() picks the method,
 * fph_scan_region() emits what the method finds.
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
 * @FPH_METHOD_SEEK:         lseek() with SEEK_DATA and SEEK_HOLE
 * @FPH_METHOD_MAX:          number of methods
 */
enum fph_method {
	FPH_METHOD_NONE,
	FPH_METHOD_PAGEMAP_SCAN,
	FPH_METHOD_SEEK,
	FPH_METHOD_MAX,
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

/**
 * struct fph_region - a mapping of guest memory in this process
 * @sz:        sizeof(struct fph_region), so that the struct can grow
 * @host:      address of the first byte in this process
 * @used:      bytes in use; nothing at or beyond it is ever reported
 * @max:       bytes reserved, >= @used
 * @page_size: page size of the backing in bytes
 * @fd:        descriptor behind the mapping, or -1
 * @fd_offset: offset in @fd of the first byte
 * @flags:     FPH_REGION_*
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
 * @given_up:  scans that stopped early because holes were too short to pay
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
 * fph_scanner_open() - open /proc/self/pagemap and probe the kernel
 * @ret: the new scanner, to be closed with fph_scanner_close()
 *
 * Opening succeeds on kernels and in sandboxes that lack PAGEMAP_SCAN or
 * /proc: such a scanner classifies every region as FPH_METHOD_NONE with a
 * reason, see fph_scanner_error(). Open it before privileges are dropped, a
 * process that changed its user may not open its own pagemap any more.
 *
 * Return: 0, or -ENOMEM. Since 0.1.
 */
FPH_API int fph_scanner_open(struct fph_scanner **ret);

/**
 * fph_scanner_close() - close a scanner
 * @s: the scanner, or NULL
 *
 * Keeps errno. Since 0.1.
 */
FPH_API void fph_scanner_close(struct fph_scanner *s);

/**
 * fph_scanner_error() - why the kernel's scan interface cannot be used
 * @s:   the scanner
 * @why: static string for people, written when the result is not 0
 *
 * Return: 0 if PAGEMAP_SCAN works, else the negative errno of the probe: of
 * open() (-EACCES, -ENOENT ...) or of the ioctl (-ENOTTY: kernel older than
 * 6.7). -ESRCH in a child of the process that opened @s. Since 0.1.
 */
FPH_API int fph_scanner_error(const struct fph_scanner *s, const char **why);

/**
 * fph_region_classify() - decide how a region is scanned
 * @s:   the scanner
 * @r:   the region
 * @ret: backing, method, and the reason if there is no method
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
 * The kernel is asked for at most 64 MiB and 512 ranges at a time, so that
 * page faults of other threads do not wait behind the scan. Never populates a
 * page. FPH_METHOD_SEEK moves the file position of @r->fd, and emits nothing
 * behind the end of the file.
 *
 * Return: 0, -EINVAL for a region without a method or a method that does not
 * fit the region, the error of fph_scanner_error(), the sink's error, or the
 * kernel's (-EPERM, -ENOMEM ...; -EIO if its answer makes no sense); ranges
 * emitted before an error are valid. Since 0.1.
 */
FPH_API int fph_scan_region(struct fph_scanner *s, const struct fph_region *r,
			    enum fph_method method, uint64_t start,
			    uint64_t len, fph_sink_fn sink, void *opaque,
			    struct fph_scan_stats *stats);

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

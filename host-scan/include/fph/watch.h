/* SPDX-License-Identifier: LGPL-2.1-or-later */
/**
 * DOC: which pages were written since
 *
 * A watch marks pages of this process as write-protected, and tells later
 * which of them are not marked any more. The kernel takes a mark away when the
 * page is written, whoever writes through the page tables (the program, the
 * kernel on its behalf, KVM for a guest); nobody is stopped or asked. It is
 * userfaultfd's asynchronous write protection.
 *
 * Only pages that have memory are marked: a mark on an absent page would make
 * it look like a swapped one to fph_scan_region(). What is absent cannot be
 * told from what was written and discarded.
 *
 * A page of shared memory keeps its content when it leaves the page table: when
 * it is swapped out, and when a huge page that it was a part of is split. With it
 * goes the knowledge whether it was written, unless it was marked and swapped out.
 * So absent pages of shared memory are reported, with FPH_WATCH_ABSENT.
 *
 * What goes by the page tables is not seen: other mappings of shared memory,
 * and devices and the kernel that write to pages which were pinned before
 * (VFIO, reads with O_DIRECT that are under way).
 */
#ifndef FPH_WATCH_H
#define FPH_WATCH_H

#include <fph/scan.h>

#ifdef __cplusplus
extern "C" {
#endif

/** struct fph_watch - handle on the kernel interfaces, opaque. Threads may use
 *  it at the same time, but not while another opens or closes it, or adds or
 *  removes the region that they use. Not for a child after fork(). */
struct fph_watch;

/* Properties of pages that are reported */
#define FPH_WATCH_HUGE		(1u << 0)	/* parts of a huge page that is mapped whole */
#define FPH_WATCH_SWAPPED	(1u << 1)	/* in swap, so that to read it brings it in; or on the move */
#define FPH_WATCH_ABSENT	(1u << 2)	/* shared, in no page table: nobody knows */

/**
 * typedef fph_watch_fn - consumer of page ranges
 * @opaque: consumer's own data
 * @start:  first byte, relative to the start of the region
 * @len:    length in bytes, never 0, whole host pages
 * @flags:  FPH_WATCH_*
 *
 * Return: 0 to go on, a negative errno to stop. Since 0.1.
 */
typedef int (*fph_watch_fn)(void *opaque, uint64_t start, uint64_t len,
			    uint32_t flags);

/**
 * fph_watch_open() - open userfaultfd and /proc/self/pagemap, probe the kernel
 * @ret: the new watch, to be closed with fph_watch_close()
 *
 * Opening succeeds where the kernel cannot do it, see fph_watch_error(). No
 * privilege is needed; open it before privileges are dropped, though.
 *
 * Return: 0, or -ENOMEM. Since 0.1.
 */
FPH_API int fph_watch_open(struct fph_watch **ret);

/**
 * fph_watch_close() - end all watching
 * @w: the watch, or NULL
 *
 * Regions that were not removed are removed at once, during which page faults
 * of the process wait. Keeps errno. Since 0.1.
 */
FPH_API void fph_watch_close(struct fph_watch *w);

/**
 * fph_watch_error() - why pages cannot be watched
 * @w:   the watch
 * @why: static string for people, written when the result is not 0
 *
 * Return: 0 if it works, else the negative errno of the probe: of opening
 * (-EACCES, -EPERM, -ENOSYS ...), -EINVAL if the kernel's userfaultfd has no
 * asynchronous write protection, that of the scan as fph_scanner_error() has
 * it, or -ESRCH in a child of the process that opened @w. Since 0.1.
 */
FPH_API int fph_watch_error(const struct fph_watch *w, const char **why);

/**
 * fph_watch_is_exact() - has all that is reported as written been written?
 * @w:   the watch
 * @why: static string for people, written when the result is not 0
 *
 * KSM takes the marks of pages that it merges, whose content stays as it is.
 *
 * Return: 0, or -EBUSY while pages of this process are merged. Since 0.1.
 */
FPH_API int fph_watch_is_exact(const struct fph_watch *w, const char **why);

/**
 * fph_watch_add() - begin to watch a region
 * @w:   the watch
 * @r:   the region; mapped as a whole, and not of huge pages by its page size
 * @why: static string for people, written when the result is negative and not
 *       -EINVAL for a region that contradicts itself
 *
 * No page is marked yet. From now on nothing makes huge pages of small ones
 * where pages are marked or absent, and a huge page that is marked as a whole
 * is split when it is written.
 *
 * Return: 0 (also if it is watched already), the error of fph_watch_error(),
 * -EINVAL if @r contradicts itself, -EOPNOTSUPP if it is of a kind that cannot
 * be watched, -EBUSY if somebody else uses userfaultfd on it, or the kernel's
 * (-ENOMEM, -EPERM ...). Since 0.1.
 */
FPH_API int fph_watch_add(struct fph_watch *w, const struct fph_region *r,
			  const char **why);

/**
 * fph_watch_remove() - end the watching of a region
 * @w: the watch
 * @r: the region; nothing happens to parts that are not watched
 *
 * Takes all marks away, 64 MiB at a time, or at once if the process has so many
 * mappings that none can be divided any more. Since 0.1.
 */
FPH_API void fph_watch_remove(struct fph_watch *w, const struct fph_region *r);

/**
 * fph_watch_remove_part() - end the watching of a part of a region
 * @w: the watch
 * @r: the region
 * @start, @len: bytes relative to r->host; whole host pages inside of them
 *
 * The kernel takes some 13 ms for a GiB of small pages, in which no page of the
 * process can be faulted in. Who has others to think of ends a few MiB at a time,
 * and sleeps in between, from the first one on: if no mapping can be divided any
 * more, all that is behind the part is not watched any more, either. Since 0.1.
 */
FPH_API void fph_watch_remove_part(struct fph_watch *w, const struct fph_region *r,
				   uint64_t start, uint64_t len);

/**
 * fph_watch_protect() - mark the pages of a part of a region
 * @w:      the watch
 * @r:      the region
 * @start:  first byte relative to @r->host; rounded up to a host page
 * @len:    bytes; the end is rounded down to a host page and clamped to @r->used
 * @fn:     receives the ranges that are marked now, marked before or not
 * @opaque: passed to @fn
 *
 * Marks what has memory or is swapped out. A huge page of which only a part is
 * to be marked is split. Each page is marked before it is reported, and not
 * looked at again in this call: what is written from then on is noticed.
 *
 * Return: 0, -EINVAL if @r contradicts itself, the error of fph_watch_error(),
 * what @fn returned, or the kernel's: -EPERM if the memory is not watched any
 * more. Since 0.1.
 */
FPH_API int fph_watch_protect(struct fph_watch *w, const struct fph_region *r,
			      uint64_t start, uint64_t len, fph_watch_fn fn,
			      void *opaque);

/**
 * fph_watch_written() - emit the pages that are not marked
 * @w:      the watch
 * @r:      the region
 * @start:  as for fph_watch_protect()
 * @len:    as for fph_watch_protect()
 * @fn:     receives the ranges
 * @opaque: passed to @fn
 *
 * A page that was marked and is emitted was written since, or was discarded
 * and has new memory, or was merged by KSM; in shared memory also if it was part
 * of a huge page that was split. So may be one that came with FPH_WATCH_SWAPPED when
 * it was marked: a page on the move can leave its mark behind. Not emitted are
 * pages that the host maps its zero page for, and absent ones of private memory:
 * what was there reads as zero, or as the file does. Absent pages of shared memory
 * come with FPH_WATCH_ABSENT: they were discarded, which fph_scan_region() knows, or
 * may have been written.
 *
 * Return: as fph_watch_protect(). Since 0.1.
 */
FPH_API int fph_watch_written(struct fph_watch *w, const struct fph_region *r,
			      uint64_t start, uint64_t len, fph_watch_fn fn,
			      void *opaque);

#ifdef __cplusplus
}
#endif

#endif /* FPH_WATCH_H */

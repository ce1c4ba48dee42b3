/* SPDX-License-Identifier: LGPL-2.1-or-later */
/**
 * DOC: what the kernel saw happen to memory
 *
 * The tracer (BPF programs that bpftool or fph-trace loads) sets a bit for each
 * page that a process takes, and clears it when the page is given back. Whoever
 * looks for absent pages can pass over memory that was taken throughout.
 *
 * It is never an authority. Events can be missed or dropped, so memory whose
 * bits are not set has to be looked at, and a bit that is set says only that
 * looking is unlikely to pay.
 */
#ifndef FPH_TRACER_API_H
#define FPH_TRACER_API_H

#include <sys/types.h>

#include <fph/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/** struct fph_tracer - memory of one process, and the tracer's maps; opaque.
 *  Adding and removing is for one thread at a time, while nobody reads. */
struct fph_tracer;

/**
 * struct fph_traced - memory to be traced
 * @sz:     sizeof(struct fph_traced), so that the struct can grow
 * @start:  address of the first byte in the process, page-aligned
 * @len:    bytes, whole pages
 * @fd:     file behind a shared mapping, only looked at during the call; -1 for
 *          private memory
 * @offset: offset in @fd of the first byte
 * @shift:  log2 of the bytes that share a bit; 0: a page. Coarser grains fit
 *          more memory into the tracer's bitmap, and make counts less exact.
 */
struct fph_traced {
	size_t sz;
	uint64_t start;
	uint64_t len;
	int fd;
	uint64_t offset;
	uint32_t shift;
};

/**
 * fph_tracer_open() - open the maps of a tracer that is loaded
 * @ret:  the tracer, to be closed with fph_tracer_close()
 * @path: where it is pinned, such as /sys/fs/bpf/fph
 * @pid:  process whose memory it is about; 0: the calling one
 * @why:  static string for people, written on failure
 *
 * If that process is traced already, as somebody else has arranged, the result
 * shows its memory, and none can be added. If that other one has ended without
 * taking it back, all of it belongs to the result; and what others left that
 * have ended is taken away.
 *
 * Return: 0; -ENOENT if there is no tracer; -EACCES or -EPERM; -EPROTO if the
 * maps are not those of this version; -EOPNOTSUPP in a PID namespace, where the
 * kernel's number of a process is not known, or if the library was built
 * without libbpf; -ENOMEM. Since 0.1.
 */
FPH_API int fph_tracer_open(struct fph_tracer **ret, const char *path,
			    pid_t pid, const char **why);

/**
 * struct fph_tracer_maps - maps of a tracer that is loaded but not pinned
 * @sz:      sizeof(struct fph_tracer_maps)
 * @targets: descriptor of fph_targets, only looked at during the call
 * @touched: that of fph_touched
 * @counts:  that of fph_counts, or -1
 */
struct fph_tracer_maps {
	size_t sz;
	int targets;
	int touched;
	int counts;
};

/**
 * fph_tracer_open_maps() - the same, by descriptors
 * @ret:  the tracer, to be closed with fph_tracer_close()
 * @maps: those of its maps
 * @pid:  process whose memory it is about; 0: the calling one
 * @why:  static string for people, written on failure
 *
 * For who loads the programs himself: without a place to pin them it takes
 * CAP_BPF and CAP_PERFMON, and nothing is left of the tracer when he ends.
 *
 * Return: as fph_tracer_open(); -EINVAL for what this version does not know, -EBADF.
 * Since 0.1.
 */
FPH_API int fph_tracer_open_maps(struct fph_tracer **ret, const struct fph_tracer_maps *maps,
				 pid_t pid, const char **why);

/**
 * fph_tracer_close() - stop tracing what was added, and close the maps
 * @t: the tracer, or NULL
 *
 * What was counted for the process goes as well; until then it stays, even if
 * the process has ended, unless it traced itself. Keeps errno. Since 0.1.
 */
FPH_API void fph_tracer_close(struct fph_tracer *t);

/**
 * fph_tracer_check() - is it still there?
 * @t:   the tracer
 * @why: static string for people, written on failure
 *
 * Return: 0; -ESTALE if the tracer was unloaded, or replaced, or the process is
 * not traced any more: its bits are worth nothing then. Since 0.1.
 */
FPH_API int fph_tracer_check(const struct fph_tracer *t, const char **why);

/**
 * fph_tracer_add() - trace this memory from now on
 * @t:   the tracer
 * @m:   the memory, which must not overlap what was added before
 * @why: static string for people, written on failure
 *
 * All of its bits are clear at first, whatever was taken before.
 *
 * Return: 0; -EINVAL if @m is not of whole pages, overlaps, or has what this
 * version does not know; -ENOSPC if the bitmap is too small, or if too much has
 * been added; -EBUSY if somebody else has arranged for the process to be
 * traced; -EAGAIN if others look for room in the bitmap for a second;
 * -EBADF, -EPERM ... of the system. Since 0.1.
 */
FPH_API int fph_tracer_add(struct fph_tracer *t, const struct fph_traced *m,
			   const char **why);

/**
 * fph_tracer_remove() - do not trace this memory any more
 * @t:     the tracer
 * @start: the address it was added with; nothing happens if there is none such
 *
 * Since 0.1.
 */
FPH_API void fph_tracer_remove(struct fph_tracer *t, uint64_t start);

/**
 * fph_tracer_get() - memory that is traced
 * @t:     the tracer
 * @index: 0 and up
 * @ret:   filled up to @ret->sz, which the caller sets, with address, length,
 *         offset and grain; @ret->fd is 0 for shared memory and -1 for private
 *
 * Return: 1, or 0 if there are no more. Since 0.1.
 */
FPH_API int fph_tracer_get(const struct fph_tracer *t, unsigned int index,
			   struct fph_traced *ret);

/**
 * fph_tracer_next() - find memory that is worth a look
 * @t:     the tracer
 * @start: first address
 * @end:   address behind the last one
 * @from:  first address of the part found, at or behind @start
 * @to:    address behind its last one, at most @end
 *
 * Passed over are blocks of 512 grains, 2 MiB if these are of 4 KiB, of which every
 * bit is set. What is not traced is never passed over. Any thread may call it.
 *
 * Return: 1, or 0 if there is no more. Since 0.1.
 */
FPH_API int fph_tracer_next(const struct fph_tracer *t, uint64_t start,
			    uint64_t end, uint64_t *from, uint64_t *to);

/**
 * fph_tracer_touched() - how many grains have their bits set
 * @t:     the tracer
 * @start: first address
 * @end:   address behind the last one, in the same memory
 *
 * Return: grains; 0 for memory that is not traced. Since 0.1.
 */
FPH_API uint64_t fph_tracer_touched(const struct fph_tracer *t, uint64_t start,
				    uint64_t end);

/**
 * fph_tracer_touch() - set bits, for memory that was taken before it was added
 * @t:     the tracer
 * @start: first address
 * @end:   address behind the last one
 *
 * Since 0.1.
 */
FPH_API void fph_tracer_touch(struct fph_tracer *t, uint64_t start, uint64_t end);

#ifdef __cplusplus
}
#endif

#endif /* FPH_TRACER_API_H */

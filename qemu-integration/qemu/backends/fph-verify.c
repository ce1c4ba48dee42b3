/*
 * fph-source: look once more at what was left out
 *
 * The VM has stopped, the last sync is over, and pages that were written since
 * they were left out are due again.  The others are to be as they were: what
 * the host saw absent still reads as zero.  If it does not, then somebody wrote
 * to it and the dirty log does not know.
 *
 * What a page holds that the guest called free is not known, so such pages are
 * write-protected with userfaultfd before they are left out.  Whoever writes to
 * one takes that away, and goes on.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bitmap.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/rcu.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "exec/memory.h"
#include "exec/target_page.h"
#include "migration/misc.h"
#include "migration/ram-skip.h"
#include "trace.h"
#include "fph-source.h"

/* Bytes that are write-protected, or asked for, without letting go of locks */
#define FPH_WATCH_STEP (64 * MiB)

typedef struct FphCheck {
    FphBlock *block;
    RAMBlock *rb;
    unsigned long *suspects;    /* pages that nobody has vouched for yet */
    uint64_t page_size;
    uint64_t violations;
} FphCheck;

/* Still absent, or the zero page */
static int fph_check_absent(void *opaque, uint64_t start, uint64_t len,
                            enum fph_reason why)
{
    FphCheck *c = opaque;
    uint64_t first = DIV_ROUND_UP(start, c->page_size);
    uint64_t end = (start + len) / c->page_size;

    if (first < end) {
        bitmap_clear(c->suspects, first, end - first);
    }
    return 0;
}

/* Where suspects are, and nowhere else */
static void fph_check_scan(FphSource *fs, FphCheck *c, uint64_t npages)
{
    FphBlock *block = c->block;
    uint64_t page = 0;

    while ((page = find_next_bit(c->suspects, npages, page)) < npages) {
        struct fph_scan_stats stats = { .sz = sizeof(stats) };
        int ret = fph_scan_region(fs->scanner, &block->region,
                                  block->verdict.method, page * c->page_size,
                                  block->chunk, fph_check_absent, c, &stats);

        /* Where holes are short a scan gives up; here it has to go on */
        if (ret < 0 || stats.scanned < c->page_size) {
            page += block->chunk / c->page_size;
        } else {
            page += stats.scanned / c->page_size;
        }
    }
}

/*
 * A scan that failed tells nothing, and to read a hole of shared memory would
 * fill it, or be a fault if the file has been cut.
 */
static bool fph_check_is_hole(FphCheck *c, uint64_t offset)
{
    const struct fph_region *region = &c->block->region;
    off_t from = region->fd_offset + offset;
    off_t data;

    if (c->block->verdict.method != FPH_METHOD_SEEK) {
        return false;
    }
    data = lseek(region->fd, from, SEEK_DATA);
    return data < 0 ? errno == ENXIO : data - from >= c->page_size;
}

static bool fph_check_is_zero(FphCheck *c, uint64_t offset)
{
    return fph_check_is_hole(c, offset) ||
           buffer_is_zero(c->block->region.host + offset, c->page_size);
}

static void fph_check_found(FphCheck *c, uint64_t page)
{
    trace_fph_verify_violation(c->block->name, page);
    c->violations += !test_and_set_bit(page, c->rb->bmap);
}

static void fph_check_host_zero(FphSource *fs, FphCheck *c, uint64_t npages)
{
    if (c->block->verdict.method == FPH_METHOD_NONE) {
        return;
    }
    fs->verified += fph_skip_get_host_zero(c->block->skip, c->suspects);

    fph_check_scan(fs, c, npages);
    for (uint64_t page = find_first_bit(c->suspects, npages); page < npages;
         page = find_next_bit(c->suspects, npages, page + 1)) {
        if (!fph_check_is_zero(c, page * c->page_size)) {
            fph_check_found(c, page);
        }
    }
}

/*
 * What was discarded since, and got memory because a neighbour in its huge page
 * was written, was never protected there: it is zero.
 */
static int fph_check_written(void *opaque, uint64_t start, uint64_t len,
                             uint32_t flags)
{
    FphCheck *c = opaque;
    uint64_t page = start / c->page_size;
    uint64_t end = DIV_ROUND_UP(start + len, c->page_size);

    while ((page = find_next_bit(c->suspects, end, page)) < end) {
        if (!buffer_is_zero(c->block->region.host + page * c->page_size,
                            c->page_size)) {
            fph_check_found(c, page);
        }
        page++;
    }
    return 0;
}

static void fph_witness_is_absent(FphSource *fs, const char *why)
{
    qatomic_set(&fs->witness_reason, why);
    trace_fph_verify_no_witness(why);
}

static void fph_check_watched(FphSource *fs, FphCheck *c, uint64_t npages)
{
    FphBlock *block = c->block;
    uint64_t step = FPH_WATCH_STEP / c->page_size;
    const char *why;

    if (!block->watched) {
        return;
    }
    if (fph_watch_is_exact(fs->watch, &why) < 0) {
        fph_witness_is_absent(fs, why);
        return;
    }
    fph_skip_get_guest_only(block->skip, c->suspects);
    bitmap_and(c->suspects, c->suspects, block->watched, npages);
    fs->watched += bitmap_count_one(c->suspects, npages);

    for (uint64_t page = find_first_bit(c->suspects, npages); page < npages;
         page = find_next_bit(c->suspects, npages, page + step)) {
        if (fph_watch_written(fs->watch, &block->region, page * c->page_size,
                              FPH_WATCH_STEP, fph_check_written, c) < 0) {
            fph_witness_is_absent(fs, "the watch of a part of memory was lost");
        }
    }
}

/* Returns how many pages are due again for what was found */
static uint64_t fph_check_block(FphSource *fs, FphBlock *block, RAMBlock *rb)
{
    struct fph_skip_sink sink = fph_block_sink(block, rb);
    uint64_t npages = sink.limit / sink.granule;
    g_autofree unsigned long *suspects =
        bitmap_new(block->region.max / sink.granule);
    FphCheck c = {
        .block = block,
        .rb = rb,
        .suspects = suspects,
        .page_size = sink.granule,
    };
    uint64_t violations;

    fph_skip_revoke(block->skip, rb->bmap, 0, npages);
    fph_check_host_zero(fs, &c, npages);
    fph_check_watched(fs, &c, npages);
    violations = c.violations;
    if (violations) {
        fph_skip_revoke(block->skip, rb->bmap, 0, npages);
        warn_report("fph-source: %" PRIu64 " pages of %s were written after "
                    "they had been left out, but not logged as dirty",
                    violations, block->name);
    }
    block->violations += violations;
    return violations;
}

static int64_t fph_check_all(void *opaque)
{
    FphSource *fs = opaque;
    int64_t due = 0;
    RAMBlock *rb;

    RCU_READ_LOCK_GUARD();
    QEMU_LOCK_GUARD(&fph_lock);

    RAMBLOCK_FOREACH(rb) {
        FphBlock *block = fph_source_find_block(fs, rb);

        if (block && block->skip && rb->bmap) {
            due += fph_check_block(fs, block, rb);
        }
    }
    fs->violations += due;
    return -due;
}

void fph_source_verify(FphSource *fs)
{
    int64_t start = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    Error *err = NULL;

    ram_skip(fph_check_all, fs);
    fs->verify_ns += qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - start;
    trace_fph_verify(fs->verified, fs->watched, fs->violations, fs->verify_ns);

    if (fs->violations && fs->verify == FPH_VERIFY_ABORT) {
        error_setg(&err, "fph-source: %" PRIu64 " pages that were left out had "
                   "been written unnoticed, and verify=abort", fs->violations);
        migration_file_set_error(-EIO, err);
    }
}

/*
 * Watching
 */

void fph_verify_begin(FphSource *fs)
{
    const char *why = "inconsistent RAM block";

    if (fs->verify == FPH_VERIFY_OFF || !fs->watch) {
        return;
    }
    for (guint i = 0; i < fs->blocks->len; i++) {
        FphBlock *block = g_ptr_array_index(fs->blocks, i);

        if (!block->hints) {
            continue;
        }
        if (fph_watch_add(fs->watch, &block->region, &why) < 0) {
            fph_witness_is_absent(fs, why);
            continue;
        }
        block->watched = bitmap_new(block->region.max /
                                    qemu_target_page_size());
    }
}

void fph_verify_end(FphSource *fs)
{
    RCU_READ_LOCK_GUARD();
    for (guint i = 0; i < fs->blocks->len; i++) {
        FphBlock *block = g_ptr_array_index(fs->blocks, i);

        if (block->watched && fph_rb_exists(block->rb)) {
            fph_watch_remove(fs->watch, &block->region);
        }
        g_clear_pointer(&block->watched, g_free);
    }
}

typedef struct FphMark {
    RAMBlock *rb;
    GArray *marked;
} FphMark;

static int fph_mark_add(void *opaque, uint64_t start, uint64_t len,
                        uint32_t flags)
{
    FphMark *m = opaque;
    FphRamRange range = { .rb = m->rb, .start = start, .len = len };

    g_array_append_val(m->marked, range);
    return 0;
}

/* A hint can reach beyond the block; then its end may be before its start */
static uint64_t fph_range_end(const FphRamRange *r, const FphBlock *block)
{
    uint64_t used = block->region.used;

    return r->start + MIN(r->len, used) < used ? r->start + r->len : used;
}

void fph_verify_mark(FphSource *fs, const FphRamRange *range, GArray *marked)
{
    FphMark m = { .rb = range->rb, .marked = marked };
    FphBlock *block;
    uint64_t at, end;

    WITH_QEMU_LOCK_GUARD(&fph_lock) {
        block = fph_source_find_block(fs, range->rb);
    }
    if (!block || !block->watched) {
        return;
    }
    end = fph_range_end(range, block);
    for (at = range->start; at < end; at += FPH_WATCH_STEP) {
        RCU_READ_LOCK_GUARD();
        if (!fph_rb_exists(block->rb)) {
            return;
        }
        if (fph_watch_protect(fs->watch, &block->region, at,
                              MIN(FPH_WATCH_STEP, end - at),
                              fph_mark_add, &m) < 0) {
            fph_witness_is_absent(fs, "not all pages could be watched");
        }
    }
}

void fph_verify_marked(FphSource *fs, const FphRamRange *ranges, guint n,
                       GArray *marked)
{
    uint64_t page_size = qemu_target_page_size();
    FphBlock *block;

    if (fs->verify == FPH_VERIFY_OFF || !fs->watch) {
        return;
    }
    for (guint i = 0; i < n; i++) {
        const FphRamRange *r = &ranges[i];
        uint64_t first = r->start / page_size;
        uint64_t end;

        block = fph_source_find_block(fs, r->rb);
        if (block && block->watched) {
            end = DIV_ROUND_UP(fph_range_end(r, block), page_size);
            if (first < end) {
                bitmap_clear(block->watched, first, end - first);
            }
        }
    }
    for (guint i = 0; i < marked->len; i++) {
        const FphRamRange *r = &g_array_index(marked, FphRamRange, i);
        uint64_t first = DIV_ROUND_UP(r->start, page_size);
        uint64_t end = (r->start + r->len) / page_size;

        if (first < end) {
            block = fph_source_find_block(fs, r->rb);
            bitmap_set(block->watched, first, end - first);
        }
    }
}

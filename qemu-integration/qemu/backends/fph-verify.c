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
#include "exec/target_page.h"
#include "migration/misc.h"
#include "migration/ram-skip.h"
#include "system/fph-compat.h"
#include "trace.h"

#include "fph-verify.h"

/* Bytes that are write-protected, or asked for, without letting go of locks */
#define FPH_WATCH_STEP (64 * MiB)

typedef struct FphCheck {
    FphVerifier *v;
    FphBlock *block;
    RAMBlock *rb;
    unsigned long *suspects;    /* pages that nobody has vouched for yet */
    unsigned long *gone;        /* suspects that are in no page table now */
    uint64_t page_size;
    uint64_t violations;
    uint64_t due;               /* pages to be sent after all */
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
static void fph_check_scan(FphCheck *c, uint64_t npages)
{
    FphBlock *block = c->block;
    uint64_t page = 0;

    while ((page = find_next_bit(c->suspects, npages, page)) < npages) {
        struct fph_scan_stats stats = { .sz = sizeof(stats) };
        int ret = fph_scan_region(c->v->scanner, &block->region,
                                  block->verdict.method, page * c->page_size,
                                  block->chunk, fph_check_absent, c, &stats);

        if (ret < 0 || stats.scanned < c->page_size) {
            page += block->chunk / c->page_size;
        } else {
            page += stats.scanned / c->page_size;
        }
    }
}

/*
 * To read a hole of shared memory would fill it, or be a fault if the file has
 * been cut; so what the scan above could not tell is asked for once more.
 */
static bool fph_check_is_absent(FphCheck *c, uint64_t page)
{
    FphBlock *block = c->block;

    fph_scan_region(c->v->scanner, &block->region, block->verdict.method,
                    page * c->page_size, c->page_size, fph_check_absent, c,
                    NULL);
    return !test_bit(page, c->suspects);
}

static bool fph_check_is_zero(FphCheck *c, uint64_t page)
{
    return fph_check_is_absent(c, page) ||
           buffer_is_zero(c->block->region.host + page * c->page_size,
                          c->page_size);
}

static void fph_check_found(FphCheck *c, uint64_t page)
{
    trace_fph_verify_violation(c->block->name, page);
    if (!test_and_set_bit(page, c->rb->bmap)) {
        c->violations++;
        c->due++;
    }
}

static void fph_check_host_zero(FphCheck *c, uint64_t npages)
{
    if (c->block->verdict.method == FPH_METHOD_NONE) {
        return;
    }
    c->v->verified += fph_skip_get_host_zero(c->block->skip, c->suspects);

    fph_check_scan(c, npages);
    for (uint64_t page = find_first_bit(c->suspects, npages); page < npages;
         page = find_next_bit(c->suspects, npages, page + 1)) {
        if (!fph_check_is_zero(c, page)) {
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
        if (flags & FPH_WATCH_ABSENT) {
            set_bit(page, c->gone);
        } else if (!buffer_is_zero(c->block->region.host + page * c->page_size,
                            c->page_size)) {
            fph_check_found(c, page);
        }
        page++;
    }
    return 0;
}

static void fph_witness_is_absent(FphVerifier *v, const char *why)
{
    qatomic_set(&v->witness_reason, why);
    trace_fph_verify_no_witness(why);
}

/*
 * Shared memory keeps its content when it leaves the page table, where it was
 * known whether it was written.  What is a hole was discarded; the rest is
 * sent.
 */
static void fph_check_gone(FphCheck *c, uint64_t npages)
{
    bool scans = c->block->verdict.method != FPH_METHOD_NONE;
    uint64_t unknown = 0;

    bitmap_copy(c->suspects, c->gone, npages);
    if (scans) {
        fph_check_scan(c, npages);
    }
    for (uint64_t page = find_first_bit(c->suspects, npages); page < npages;
         page = find_next_bit(c->suspects, npages, page + 1)) {
        if (!scans || !fph_check_is_absent(c, page)) {
            c->due += !test_and_set_bit(page, c->rb->bmap);
            unknown++;
        }
    }
    if (unknown) {
        c->v->watched -= unknown;
        fph_witness_is_absent(c->v, "shared memory was swapped out, or huge "
                                    "pages of it were split: pages of which "
                                    "nobody knows whether they were written "
                                    "were sent");
    }
}

static void fph_check_watched(FphCheck *c, uint64_t npages)
{
    FphVerifier *v = c->v;
    FphBlock *block = c->block;
    uint64_t step = FPH_WATCH_STEP / c->page_size;
    g_autofree unsigned long *gone = NULL;
    const char *why;

    if (!block->watched) {
        return;
    }
    if (fph_watch_is_exact(v->watch, &why) < 0) {
        fph_witness_is_absent(v, why);
        return;
    }
    fph_skip_get_guest_only(block->skip, c->suspects);
    bitmap_and(c->suspects, c->suspects, block->watched, npages);
    v->watched += bitmap_count_one(c->suspects, npages);
    gone = c->gone = bitmap_new(npages);

    for (uint64_t page = find_first_bit(c->suspects, npages); page < npages;
         page = find_next_bit(c->suspects, npages, page + step)) {
        if (fph_watch_written(v->watch, &block->region, page * c->page_size,
                              FPH_WATCH_STEP, fph_check_written, c) < 0) {
            fph_witness_is_absent(v, "the watch of a part of memory was lost");
        }
    }
    fph_check_gone(c, npages);
    c->gone = NULL;
}

/* Returns how many pages are due again */
static uint64_t fph_check_block(FphVerifier *v, FphBlock *block, RAMBlock *rb)
{
    struct fph_skip_sink sink = fph_block_sink(block, rb);
    uint64_t npages = sink.limit / sink.granule;
    g_autofree unsigned long *suspects =
        bitmap_new(block->region.max / sink.granule);
    FphCheck c = {
        .v = v,
        .block = block,
        .rb = rb,
        .suspects = suspects,
        .page_size = sink.granule,
    };

    fph_skip_revoke(block->skip, rb->bmap, 0, npages);
    fph_check_host_zero(&c, npages);
    fph_check_watched(&c, npages);
    if (c.due) {
        fph_skip_revoke(block->skip, rb->bmap, 0, npages);
    }
    if (c.violations) {
        warn_report("fph-source: %" PRIu64 " pages of %s were written after "
                    "they had been left out, but not logged as dirty",
                    c.violations, block->name);
    }
    block->violations += c.violations;
    v->violations += c.violations;
    return c.due;
}

typedef struct FphCheckAll {
    FphVerifier *v;
    GPtrArray *blocks;
} FphCheckAll;

static int64_t fph_check_all(void *opaque)
{
    FphCheckAll *all = opaque;
    int64_t due = 0;
    RAMBlock *rb;

    RCU_READ_LOCK_GUARD();

    RAMBLOCK_FOREACH(rb) {
        FphBlock *block = fph_blocks_find(all->blocks, rb);

        if (block && block->skip && rb->bmap) {
            due += fph_check_block(all->v, block, rb);
        }
    }
    return -due;
}

void fph_verifier_check(FphVerifier *v, GPtrArray *blocks)
{
    FphCheckAll all = { .v = v, .blocks = blocks };
    int64_t start = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    Error *err = NULL;

    ram_skip(fph_check_all, &all);
    v->ns += qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - start;
    trace_fph_verify(v->verified, v->watched, v->violations, v->ns);

    if (v->violations && v->abort) {
        error_setg(&err, "fph-source: %" PRIu64 " pages that were left out had "
                   "been written unnoticed, and verify=abort", v->violations);
        migration_file_set_error(-EIO, err);
    }
}

/*
 * Watching
 */

void fph_verifier_begin(FphVerifier *v, GPtrArray *blocks)
{
    const char *why = "inconsistent RAM block";

    for (guint i = 0; v->watch && i < blocks->len; i++) {
        FphBlock *block = g_ptr_array_index(blocks, i);

        if (!block->hints) {
            continue;
        }
        if (fph_watch_add(v->watch, &block->region, &why) < 0) {
            fph_witness_is_absent(v, why);
            continue;
        }
        block->watched = bitmap_new(block->region.max /
                                    qemu_target_page_size());
    }
}

void fph_verifier_end(FphVerifier *v, GPtrArray *blocks)
{
    for (guint i = 0; i < blocks->len; i++) {
        FphBlock *block = g_ptr_array_index(blocks, i);

        if (block->watched) {
            fph_unwatch(v->watch, &block->region, NULL, NULL);
        }
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

    /* Or on the move, and then the mark may not arrive with the page */
    if (!(flags & FPH_WATCH_SWAPPED)) {
        g_array_append_val(m->marked, range);
    }
    return 0;
}

/* A hint can reach beyond the block; then its end may be before its start */
static uint64_t fph_range_end(const FphRamRange *r, const FphBlock *block)
{
    uint64_t used = block->region.used;

    return r->start + MIN(r->len, used) < used ? r->start + r->len : used;
}

void fph_verifier_mark(FphVerifier *v, GPtrArray *blocks,
                       const FphRamRange *range, GArray *marked)
{
    FphMark m = { .rb = range->rb, .marked = marked };
    FphBlock *block = v->watch ? fph_blocks_find(blocks, range->rb) : NULL;
    uint64_t at, end;

    if (!block || !block->watched) {
        return;
    }
    end = fph_range_end(range, block);
    for (at = range->start; at < end; at += FPH_WATCH_STEP) {
        RCU_READ_LOCK_GUARD();
        if (!fph_rb_exists(range->rb)) {
            return;
        }
        if (fph_watch_protect(v->watch, &block->region, at,
                              MIN(FPH_WATCH_STEP, end - at),
                              fph_mark_add, &m) < 0) {
            fph_witness_is_absent(v, "not all pages could be watched");
        }
    }
}

static FphBlock *fph_find_watched(GPtrArray *blocks, const FphRamRange *range)
{
    FphBlock *block = fph_blocks_find(blocks, range->rb);

    return block && block->watched ? block : NULL;
}

void fph_verifier_marked(GPtrArray *blocks, const FphRamRange *ranges, guint n,
                         GArray *marked)
{
    uint64_t page_size = qemu_target_page_size();
    FphBlock *block;

    for (guint i = 0; i < n; i++) {
        const FphRamRange *r = &ranges[i];
        uint64_t first = r->start / page_size;
        uint64_t end;

        block = fph_find_watched(blocks, r);
        if (block) {
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

        block = fph_find_watched(blocks, r);
        if (block && first < end) {
            bitmap_set(block->watched, first, end - first);
        }
    }
}

void fph_verifier_reset(FphVerifier *v)
{
    v->verified = v->watched = v->violations = v->ns = 0;
    qatomic_set(&v->witness_reason, NULL);
}

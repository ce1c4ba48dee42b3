/*
 * fph-source: look once more at what was left out
 *
 * The VM has stopped, the last sync is over, and pages that were written since
 * they were left out are due again.  The others are to be as they were: what
 * the host saw absent still reads as zero.  If it does not, then somebody wrote
 * to it and the dirty log does not know.
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
#include "exec/memory.h"
#include "exec/target_page.h"
#include "migration/misc.h"
#include "migration/ram-skip.h"
#include "trace.h"
#include "fph-source.h"

typedef struct FphCheck {
    FphBlock *block;
    unsigned long *suspects;    /* pages that nobody has vouched for yet */
    uint64_t page_size;
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

/* Returns how many pages are due again for what was found */
static uint64_t fph_check_block(FphSource *fs, FphBlock *block, RAMBlock *rb)
{
    struct fph_skip_sink sink = fph_block_sink(block, rb);
    FphCheck c = { .block = block, .page_size = sink.granule };
    uint64_t npages = sink.limit / c.page_size;
    g_autofree unsigned long *suspects = NULL;
    uint64_t violations = 0;

    fph_skip_revoke(block->skip, rb->bmap, 0, npages);
    if (block->verdict.method == FPH_METHOD_NONE) {
        return 0;
    }
    c.suspects = suspects = bitmap_new(block->region.max / c.page_size);
    fs->verified += fph_skip_get_host_zero(block->skip, suspects);

    fph_check_scan(fs, &c, npages);
    for (uint64_t page = find_first_bit(suspects, npages); page < npages;
         page = find_next_bit(suspects, npages, page + 1)) {
        if (!fph_check_is_zero(&c, page * c.page_size)) {
            trace_fph_verify_violation(block->name, page);
            violations += !test_and_set_bit(page, rb->bmap);
        }
    }
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
    trace_fph_verify(fs->verified, fs->violations, fs->verify_ns);

    if (fs->violations && fs->verify == FPH_VERIFY_ABORT) {
        error_setg(&err, "fph-source: %" PRIu64 " pages that were left out had "
                   "been written unnoticed, and verify=abort", fs->violations);
        migration_file_set_error(-EIO, err);
    }
}

/*
 * fph-source: what a RAM block is to it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BACKENDS_FPH_BLOCK_H
#define BACKENDS_FPH_BLOCK_H


#include <fph/scan.h>
#include <fph/skip.h>
#include <fph/watch.h>

#include "system/fph-compat.h"
#include "fph-config.h"

typedef struct FphBlock {
    /*
     * NULL once the migration has ended.  Not used but to compare, unless the
     * bitmap mutex is held.
     */
    RAMBlock *rb;
    char *name;
    struct fph_region region;   /* with a descriptor of its own */
    struct fph_verdict verdict;
    struct fph_skip *skip;      /* NULL if nothing can be left out */
    bool hints;                 /* ordinary guest RAM that the guest may name */
    uint64_t chunk;             /* bytes whose dirty log is cleared at once */

    /* Protected by the lock of fph-source */
    unsigned long *taken;       /* chunks that somebody scans, or has scanned */
    uint64_t violations;        /* pages */
    /*
     * Pages that were write-protected when the guest had called them free; NULL
     * if they are not watched.
     */
    unsigned long *watched;
} FphBlock;

/* A part of a block that need not be sent; bytes relative to its start */
typedef struct FphFound {
    uint64_t start;
    uint64_t len;
    enum fph_reason why;
} FphFound;

/* Is it ordinary guest RAM?  Under the BQL */
bool fph_rb_is_guest_ram(RAMBlock *rb);

/* Is @rb a block with a bitmap?  The RCU read lock is held. */
bool fph_rb_exists(RAMBlock *rb);

/* Its region, with the descriptor that QEMU has.  Under the BQL */
void fph_rb_describe(RAMBlock *rb, const FphConfig *config,
                     struct fph_region *region);

/*
 * A block of the migration that begins, whose bitmap is there.  Under the BQL,
 * with the RCU read lock.  fph_blocks_new() returns an array that frees them.
 */
FphBlock *fph_block_new(RAMBlock *rb, const FphConfig *config,
                        struct fph_scanner *scanner);
GPtrArray *fph_blocks_new(void);

/* The block that stands for @rb, or NULL.  @rb is not used but to compare. */
FphBlock *fph_blocks_find(GPtrArray *blocks, RAMBlock *rb);

/* Is the block's memory at the destination zero before anything was sent? */
bool fph_block_is_fresh(const FphBlock *block);

/* Is it a whole number of words in the dirty bitmap? */
bool fph_block_is_whole(const FphBlock *block);

uint64_t fph_block_chunks(const FphBlock *block);

/*
 * Scan [@start, @end) and add what is absent or zero to @found, of FphFound.
 * Takes no lock.  What was found before an error, a negative errno, is true.
 */
int fph_block_scan(const FphBlock *block, struct fph_scanner *scanner,
                   uint64_t start, uint64_t end, GArray *found,
                   struct fph_scan_stats *stats);

/*
 * End the watching of @region, which no page fault and no call that changes
 * the address space gets past, in steps: each with the RCU read lock, and only
 * while @exists, if there is one, says so.  Others have their turn in between.
 * From a thread that may sleep.
 */
void fph_unwatch(struct fph_watch *watch, const struct fph_region *region,
                 bool (*exists)(const void *opaque), const void *opaque);

/*
 * Where bits of @rb, which @block stands for, are cleared.  The bitmap mutex is
 * held while it is used.
 */
struct fph_skip_sink fph_block_sink(const FphBlock *block, RAMBlock *rb);

#endif

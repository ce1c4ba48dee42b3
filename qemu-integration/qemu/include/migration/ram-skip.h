/*
 * Leaving guest pages out of an outgoing migration
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_RAM_SKIP_H
#define MIGRATION_RAM_SKIP_H

#include "system/fph-compat.h"

/* What somebody who knows pages that need not be sent wants to be asked */
typedef struct RAMSkipOps {
    /*
     * The dirty log of a chunk of @rb was cleared: from now on each write is
     * seen by the next bitmap sync.  Or the last sync is over, the VM stopped,
     * and nobody clears the log any more.  May clear bits of the chunk in
     * rb->bmap, and returns how many it cleared.  @len can reach beyond the
     * used length.
     * Runs under bitmap_mutex; during setup, and before QEMU asks for free page
     * hints by itself, also under the BQL.
     */
    uint64_t (*chunk_armed)(RAMBlock *rb, uint64_t start, uint64_t len);

    /*
     * A bitmap sync has set bits of pages of @rb that were written, in this
     * hold of bitmap_mutex: none of them has been sent yet.
     */
    void (*block_synced)(RAMBlock *rb);

    /*
     * A bitmap sync is over.  Returns true if PRECOPY_NOTIFY_BITMAP_ARMED is
     * not to follow at once, but will be sent by whoever returned true, or not
     * at all.  Runs under the BQL.
     */
    bool (*defer_armed)(void);

    /*
     * Pages are about to be sent, or (@sync) a bitmap sync is about to begin,
     * and maybe the end of precopy.  Returns true, not before some time has
     * passed, to be asked again before that.  Runs without locks.
     */
    bool (*hold_back)(bool sync);

    /*
     * After a bitmap sync @pending bytes are due, which is little enough to
     * stop the guest.  Returns true if they are to be sent before that, while
     * it runs.  Runs without locks.
     */
    bool (*another_round)(uint64_t pending);

    /* Returns true if it takes care of the hint.  Runs without locks. */
    bool (*free_page_hint)(void *addr, size_t len);

    /*
     * The VM was stopped for postcopy, and the last bitmap sync is over: all
     * that is still left out becomes due, as the destination may ask for it.
     * Sets bits in rb->bmap, and returns how many it set.  Bits of discarded
     * pages are cleared again afterwards.  From then on, chunk_armed() clears
     * none.  Runs under the BQL, with the RCU read lock.
     */
    uint64_t (*postcopy)(void);

    /*
     * A page is about to be sent.  Returns true if it can be sent as zero
     * without a look at it.  Runs with or without bitmap_mutex.
     */
    bool (*is_zero)(RAMBlock *rb, uint64_t offset);
} RAMSkipOps;

/* NULL, or hooks that are all there; to be set under the BQL */
extern const RAMSkipOps *ram_skip_ops;

static inline bool ram_skip_is_zero(RAMBlock *rb, uint64_t offset)
{
    const RAMSkipOps *ops = qatomic_read(&ram_skip_ops);

    return ops && ops->is_zero(rb, offset);
}

/*
 * These call the hooks, if there are any, with a trace event each; is_zero(),
 * which is asked of each page, has none.
 */
uint64_t ram_chunk_armed(RAMBlock *rb, uint64_t start, uint64_t len);
void ram_block_synced(RAMBlock *rb);
bool ram_defer_armed(void);
bool ram_free_page_hint_taken(void *addr, size_t len);

/* In the migration thread, without locks: wait for hold_back() */
void ram_hold_back(bool sync);

/* The same for another_round(), which is not asked if a postcopy is to begin */
bool ram_another_round(uint64_t pending);

/* Adds to *@dirty_pages what postcopy() returns.  False if there is no hook */
bool ram_skip_postcopy(uint64_t *dirty_pages);

/* What who watches guest memory, also when nothing is migrated, asks */
typedef struct RAMWatchOps {
    /*
     * Memory that was mapped for a device to write to (address_space_map()) is
     * unmapped.  It can have been written by other ways than the page tables
     * of this process, as with O_DIRECT.  Called before it is marked dirty,
     * from any thread.
     */
    void (*mapping_written)(RAMBlock *rb, uint64_t offset, uint64_t len);

    /*
     * Is @rb registered for write protection by us?  Then others could
     * register it, too, once userfaultfd_wanted() has returned.  Under the BQL
     */
    bool (*userfaultfd_held)(RAMBlock *rb);

    /*
     * Somebody else needs userfaultfd for guest memory: waits until it is let
     * go.  Runs without locks.
     */
    void (*userfaultfd_wanted)(void);

    /*
     * All of guest memory is about to be loaded, maybe past the page tables:
     * waits until nobody goes by what was seen of it.  Runs under the BQL,
     * which is held until it is loaded.
     */
    void (*memory_loaded)(void);
} RAMWatchOps;

/* NULL, or hooks that are all there; to be set under the BQL */
extern const RAMWatchOps *ram_watch_ops;

static inline void ram_mapping_written(RAMBlock *rb, uint64_t offset,
                                       uint64_t len)
{
    const RAMWatchOps *ops = qatomic_read(&ram_watch_ops);

    if (ops) {
        ops->mapping_written(rb, offset, len);
    }
}

/* With a trace event each, which the transfers of a device do not have */
bool ram_userfaultfd_held(RAMBlock *rb);
void ram_userfaultfd_wanted(void);
void ram_memory_loaded(void);

/*
 * These are for the time between the first bitmap sync of a migration and
 * PRECOPY_NOTIFY_CLEANUP.
 */

/*
 * Call @func, which clears dirty bits, or sets some, and returns how many more
 * it cleared than set.  Takes bitmap_mutex, which the sending of pages can hold
 * for 50 ms, or as long as the destination does not read.
 */
void ram_skip(int64_t (*func)(void *opaque), void *opaque);

/*
 * Clear the dirty log of the chunk around @offset, unless that was done.  To be
 * called by such a @func.
 */
void ram_skip_arm(RAMBlock *rb, uint64_t offset);

/*
 * Bitmap syncs so far, whoever began them, of this migration or, if we count
 * them, of all: only the difference to what it was at its setup counts.  With
 * bitmap_mutex it is known which of them have touched the bitmap.
 */
uint64_t ram_sync_count(void);

#ifdef FPH_COUNTS_SYNCS
/* A bitmap sync begins: to be called by it, before it touches any bitmap */
void ram_sync_begins(void);
#endif

#endif

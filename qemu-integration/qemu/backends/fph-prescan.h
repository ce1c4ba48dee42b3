/*
 * fph-source: pages that hold only zeroes, found before anyone migrates
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BACKENDS_FPH_PRESCAN_H
#define BACKENDS_FPH_PRESCAN_H

#include <fph/watch.h>

#include "fph-block.h"

typedef struct FphPrescan FphPrescan;

/*
 * All of these answer at once, but for those that say so: what takes time is
 * done by a thread, which may be in the middle of something.
 *
 * After fph_prescan_retire() the thread ends, and calls @gone as the last it
 * does; fph_prescan_free(), @watch and @scanner have to wait for that.  All but
 * the last under the BQL
 */
FphPrescan *fph_prescan_new(FphConfig *config, struct fph_watch *watch,
                            struct fph_scanner *scanner,
                            void (*gone)(void *opaque), void *opaque);
void fph_prescan_retire(FphPrescan *p);
void fph_prescan_free(FphPrescan *p);

/*
 * A migration begins, and nothing more is looked for.  Without @use all is
 * forgotten, and userfaultfd let go.  Under the BQL
 */
void fph_prescan_hold(FphPrescan *p, bool use);

/*
 * Others have changed which pages are protected: what is known is void.  From
 * any thread, and waits for nothing
 */
void fph_prescan_disturb(FphPrescan *p);

/*
 * It has ended.  @disturbed: others have changed which pages are protected, so
 * this waits until userfaultfd was let go.  From any thread, not under the BQL
 */
void fph_prescan_resume(FphPrescan *p, bool disturbed);

/*
 * The dirty log of a part of @block was cleared: add what is known to be zero
 * there to @found, of FphFound.  @wait: for the thread to rest; otherwise it
 * adds nothing if it does not.  The RCU read lock is not needed.
 */
void fph_prescan_find(FphPrescan *p, const FphBlock *block, uint64_t start,
                      uint64_t end, bool wait, GArray *found);

/*
 * A device has ended what it did with memory that it was given.  From any
 * thread, often: takes no lock.
 */
void fph_prescan_device_wrote(RAMBlock *rb, uint64_t offset, uint64_t len);

/* Is @rb registered with our userfaultfd?  From any thread */
bool fph_prescan_has(RAMBlock *rb);

/*
 * Somebody else needs userfaultfd: waits until it was let go.  From any thread,
 * without locks, and not under the BQL
 */
void fph_prescan_make_way(const char *why);

FphPrescanInfo *fph_prescan_query(FphPrescan *p);

#endif

/*
 * fph-source: look once more at what was left out
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BACKENDS_FPH_VERIFY_H
#define BACKENDS_FPH_VERIFY_H

#include "system/fph.h"

#include <fph/watch.h>

#include "fph-block.h"

typedef struct FphVerifier {
    bool abort;                 /* a violation fails the migration */
    struct fph_scanner *scanner; /* of the migration thread */
    struct fph_watch *watch;    /* NULL if there is nothing to watch */

    /* Of the migration under way, or the last one; written under the BQL */
    uint64_t verified;          /* pages */
    uint64_t watched;           /* pages */
    uint64_t violations;        /* pages */
    uint64_t ns;
    const char *witness_reason; /* static; atomic, why pages are not watched */
} FphVerifier;

/* A migration begins */
void fph_verifier_reset(FphVerifier *v);

/*
 * The dirty log is on: watch, as a second witness, the blocks in which the
 * guest may call pages free; and in the end, watch them no more.  Both take a
 * while, and no lock.
 */
void fph_verifier_begin(FphVerifier *v, GPtrArray *blocks);
void fph_verifier_end(FphVerifier *v, GPtrArray *blocks);

/*
 * Pages are about to be left out because the guest calls them free: from now
 * on the watch knows if they are written.  Adds the parts of @range for which
 * that is true to @marked, of FphRamRange.  Takes no lock.  The RAM blocks of
 * ranges are not used but to compare.
 */
void fph_verifier_mark(FphVerifier *v, GPtrArray *blocks,
                       const FphRamRange *range, GArray *marked);

/* They are left out now.  Under the bitmap mutex */
void fph_verifier_marked(GPtrArray *blocks, const FphRamRange *ranges, guint n,
                         GArray *marked);

/*
 * The VM has stopped, and the last sync is over: what was left out and is not
 * as it was gets sent, or fails the migration.  Under the BQL
 */
void fph_verifier_check(FphVerifier *v, GPtrArray *blocks);

#endif

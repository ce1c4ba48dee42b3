/*
 * fph-source: asking the guest which pages are free, and its answers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BACKENDS_FPH_HINTS_H
#define BACKENDS_FPH_HINTS_H

#include "system/fph.h"

#include "fph-config.h"

typedef struct FphHints FphHints;

/*
 * A part of an answer, in the order of arrival.  The RAM blocks of its ranges
 * are not used but to compare.
 */
typedef struct FphBatch {
    uint64_t token;             /* of the request that it answers */
    bool first;                 /* request of the migration */
    bool zero_only;             /* free means zero, R4 */
    bool end;
    struct fph_hint_frame frame; /* if @end */
    guint frames;               /* that it came in */
    GArray *ranges;             /* of FphRamRange */
} FphBatch;

void fph_batch_free(FphBatch *batch);

/*
 * @wake is called, from any thread and without locks of ours, when there is
 * something to pop or fph_hints_is_settled() has changed.
 */
FphHints *fph_hints_new(FphConfig *config, void (*wake)(void));
void fph_hints_free(FphHints *h);

/*
 * A migration begins: forget the last one.  Returns NULL, or why nobody can be
 * asked.  Under the BQL
 */
const char *fph_hints_reset(FphHints *h);

/* Can somebody be asked?  Under the BQL, during a migration */
bool fph_hints_have_hinter(FphHints *h);

/* Will PRECOPY_NOTIFY_BITMAP_ARMED be sent later?  Under the BQL */
bool fph_hints_defer(FphHints *h);

/* A request with that token may come.  Under the BQL */
void fph_hints_open(FphHints *h, uint64_t token);

/* All logs were cleared: ask, unless that is closed again.  From any thread */
void fph_hints_ask(FphHints *h, uint64_t token, bool first, uint64_t arm_ns);

/* The request, and the answer to it, are too late.  Under the BQL */
void fph_hints_close(FphHints *h, const char *why);

/* No more hints in this migration.  Under the BQL */
void fph_hints_end(FphHints *h);

/* The next part of an answer, to be freed, or NULL.  From any thread */
FphBatch *fph_hints_pop(FphHints *h);

/* That part was used, or came too late (@late), in @ns.  From any thread */
void fph_hints_applied(FphHints *h, const FphBatch *batch, bool late,
                       uint64_t ns);

/* Is the answer to the first request there, or never going to be? */
bool fph_hints_is_settled(FphHints *h);

/* How long the sending of pages was held back */
void fph_hints_waited(FphHints *h, uint64_t ns);

/* A free page hint of the balloon; false if it is not for us */
bool fph_hints_free_page(void *addr, size_t len);

/* Of the last migration; before the first, what one would do.  Under the BQL */
FphHintInfo *fph_hints_query(FphHints *h);

#endif

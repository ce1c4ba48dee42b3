/*
 * fph-source: what its files share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BACKENDS_FPH_SOURCE_H
#define BACKENDS_FPH_SOURCE_H

#include "qapi/qapi-types-fph.h"
#include "qapi/qapi-types-qom.h"
#include "qemu/stats64.h"
#include "qemu/thread.h"
#include "exec/ramblock.h"
#include "qom/object.h"
#include "system/fph.h"

#include <fph/scan.h>
#include <fph/skip.h>
#include <fph/watch.h>

#define TYPE_FPH_SOURCE "fph-source"
OBJECT_DECLARE_SIMPLE_TYPE(FphSource, FPH_SOURCE)

typedef struct FphHints FphHints;
typedef struct FphPrescan FphPrescan;
typedef struct FphTracer FphTracer;

typedef struct FphBlock {
    RAMBlock *rb;               /* NULL once the migration has ended */
    char *name;
    struct fph_region region;
    struct fph_verdict verdict;
    struct fph_skip *skip;      /* NULL if nothing can be left out */
    bool hints;                 /* ordinary guest RAM that the guest may name */
    uint64_t chunk;             /* bytes whose dirty log is cleared at once */
    uint64_t chunks_seen;       /* in the first epoch */
    uint64_t violations;        /* written under the BQL and fph_lock */
    /*
     * Pages that were write-protected when the guest had called them free; NULL
     * if they are not watched.  Written under fph_lock.
     */
    unsigned long *watched;
} FphBlock;

struct FphSource {
    Object parent;

    bool mode_set;
    FphMode mode;
    FphScannerKind scanner_kind;
    char *pv_device;
    char *tracer_path;
    bool dry_run;
    uint32_t pv_wait;           /* ms */
    uint32_t pv_delay;          /* ms, for tests */
    FphVerify verify;
    bool assume_zero_destination;
    struct fph_scanner *scanner;
    struct fph_watch *watch;    /* NULL if there is nothing to watch */
    NotifierWithReturn migration_notifier;
    NotifierWithReturn precopy_notifier;

    /* Protected by the BQL */
    bool armed;                 /* an outgoing migration began, not ended */
    bool tell_end;              /* FPH_SOURCE_ENDED was not sent for it yet */
    FphState state;
    char *inactive_reason;

    /* Written under the BQL and fph_lock, so that either is enough to read */
    GPtrArray *blocks;          /* of FphBlock */
    unsigned int epoch;         /* bitmap syncs begun */
    bool scan_when_armed;       /* nobody scans ahead */
    bool postcopy;              /* all is due that was left out */
    uint64_t verified;          /* pages */
    uint64_t watched;           /* pages */
    uint64_t violations;
    uint64_t verify_ns;         /* under the BQL alone */
    const char *witness_reason; /* static; atomic, why pages are not watched */

    /* Written under fph_lock, read by all */
    Stat64 chunks;
    Stat64 chunks_not_scanned;
    Stat64 given_up;
    Stat64 scan_ns;
    Stat64 passed_over;         /* bytes not scanned: the tracer saw them taken */

    Stat64 postcopy_zero;       /* pages sent unread after the switch */

    FphHints *hints;            /* NULL with mode=pagemap */
    FphTracer *tracer;          /* NULL without the property */
    bool want_prescan;
    uint8_t prescan_cpu;        /* percent */
    FphPrescan *prescan;        /* NULL unless wanted */
};

/*
 * fph_lock is held while bits are cleared: the object, its blocks and the
 * epoch stay as they are meanwhile.  It nests inside the bitmap mutex and
 * inside the BQL, and nothing that needs either of them is called under it.
 */
extern QemuMutex fph_lock;

static inline bool fph_source_asks_host(FphSource *fs)
{
    return fs->mode != FPH_MODE_PV;
}

static inline bool fph_source_asks_guest(FphSource *fs)
{
    return fs->mode != FPH_MODE_PAGEMAP;
}

/* fph_lock or the BQL is held.  @rb is not used but to compare. */
FphBlock *fph_source_find_block(FphSource *fs, RAMBlock *rb);

/* Is @rb a block with a bitmap?  The RCU read lock is held. */
bool fph_rb_exists(RAMBlock *rb);

/* Is the block's memory at the destination zero before anything was sent? */
bool fph_block_is_fresh(const FphBlock *block);

/* Is it ordinary guest RAM?  Under the BQL */
bool fph_rb_is_guest_ram(RAMBlock *rb);
void fph_block_describe(FphSource *fs, RAMBlock *rb, struct fph_region *region);

/* Bits of @skip and the like, for the part of @block that was just looked at */
struct fph_skip_sink fph_block_sink(const FphBlock *block, RAMBlock *rb);

/* The bitmap mutex and fph_lock are held; returns the dirty bits cleared */
uint64_t fph_block_scan(FphSource *fs, FphBlock *block, RAMBlock *rb,
                        uint64_t start, uint64_t len);

/*
 * The VM has stopped, and the last sync is over: what was left out and is not
 * as it was gets sent, or fails the migration.  Under the BQL.
 */
void fph_source_verify(FphSource *fs);

/*
 * The dirty log is on: watch, as a second witness, the blocks in which the
 * guest may call pages free.  Under the BQL and fph_lock.
 */
void fph_verify_begin(FphSource *fs);
void fph_verify_end(FphSource *fs);

/*
 * Pages that hold only zeroes, found beforehand.  Under the BQL but for
 * fph_prescan_apply().
 */
FphPrescan *fph_prescan_new(FphSource *fs);
void fph_prescan_free(FphPrescan *p);

/*
 * A migration begins, and nothing more is looked for.  Without @use all is
 * forgotten, and userfaultfd let go.
 */
void fph_prescan_hold(FphPrescan *p, bool use);

/* It has ended.  @disturbed: others have changed which pages are protected */
void fph_prescan_resume(FphPrescan *p, bool disturbed);

/*
 * The dirty log of a part of @rb was cleared: leave out what is known to be
 * zero.  The bitmap mutex and fph_lock are held.
 */
void fph_prescan_apply(FphPrescan *p, RAMBlock *rb, struct fph_skip_sink *sink,
                       uint64_t start, uint64_t len);

FphPrescanInfo *fph_prescan_query(FphPrescan *p);

/*
 * Pages are about to be left out because the guest calls them free: from now
 * on the watch knows if they are written.  Adds the parts of @range for which
 * that is true to @marked.  Takes locks, but for moments.  The RAM blocks of
 * ranges are not used but to compare.
 */
void fph_verify_mark(FphSource *fs, const FphRamRange *range, GArray *marked);

/* They are left out now; under the bitmap mutex and fph_lock */
void fph_verify_marked(FphSource *fs, const FphRamRange *ranges, guint n,
                       GArray *marked);

/*
 * The guest's part of a migration.  All under the BQL but for the last two.
 */
FphHints *fph_hints_new(FphSource *fs);
void fph_hints_free(FphHints *h);

/* A migration begins: forget the last one.  NULL, or why nobody can be asked */
const char *fph_hints_reset(FphHints *h);

/* A sync has ended: clear all dirty logs, and ask for what is free then */
void fph_hints_open(FphHints *h);

/* The answer to the request, if one is open, is too late from now on */
void fph_hints_close(FphHints *h, const char *why);

/* No more hints in this migration: no thread of ours is left */
void fph_hints_end(FphHints *h);

/* Will PRECOPY_NOTIFY_BITMAP_ARMED be sent later? */
bool fph_hints_defer(FphHints *h);

FphHintInfo *fph_hints_query(FphHints *h);

/* Waits a little; false if the sending of pages can begin */
bool fph_hints_hold_back(void);

/* A free page hint of the balloon; false if it is not for us */
bool fph_hints_free_page(void *addr, size_t len);

/*
 * The tracer, if one is loaded at @path.  Under the BQL, but for
 * fph_tracer_find().
 */
FphTracer *fph_tracer_new(const char *path);
void fph_tracer_free(FphTracer *ft);

/* A migration begins: is it still there? */
void fph_tracer_reset(FphTracer *ft);

/*
 * The first part of @host's @len bytes, at or behind @start, that has to be
 * scanned; @ft may be NULL.  Returns false if there is none.  fph_lock is held.
 */
bool fph_tracer_find(FphTracer *ft, void *host, uint64_t len, uint64_t *start,
                     uint64_t *end);

FphTracerInfo *fph_tracer_query(FphTracer *ft);

/*
 * A hinter for the free page hints of @balloon, a virtio-balloon device.  NULL
 * if the device was not given that feature.
 */
FphHinter *fph_balloon_new(Object *balloon);
DeviceState *fph_balloon_device(FphHinter *h);

#endif

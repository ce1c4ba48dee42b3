/*
 * fph-source: leave out of a migration the guest pages nobody can miss
 *
 * This decides when pages may be left out, and keeps the books.  What can be
 * known of a page, and the merging of it, is libfph's.
 *
 * After each bitmap sync a thread clears the dirty logs of all memory, so that
 * each write from then on is seen by the next sync.  Then the guest is asked
 * which pages are free, and the host which are absent; what they know is taken
 * out of the dirty bitmap as long as no further sync has begun.  Whatever order
 * things happen in elsewhere, a page that is taken into use after somebody
 * looked at it gets sent.
 *
 * The thread looks without any lock, so that nobody waits for it; only the
 * sending of pages does, and not for long.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-events-fph.h"
#include "qemu/bitmap.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qemu/rcu.h"
#include "qemu/stats64.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "exec/target_page.h"
#include "migration/misc.h"
#include "migration/options.h"
#include "migration/ram-skip.h"
#include "system/arch_init.h"
#include "system/fph-compat.h"
#include "system/kvm.h"
#include "system/qtest.h"
#include "system/replay.h"
#include "system/runstate.h"
#include "system/tcg.h"
#include FPH_QDEV_H
#include "trace.h"

#include "fph-hints.h"
#include "fph-prescan.h"
#include "fph-source.h"
#include "fph-tracer.h"
#include "fph-verify.h"

/*
 * What is taken out of the bitmap in one hold of the bitmap mutex: ranges, and
 * bytes, since a guest can name all of its memory in one range.  Some 0.1 ms.
 */
#define FPH_AT_ONCE_RANGES 1024
#define FPH_AT_ONCE_BYTES (4 * GiB)

#define FPH_HOLD_BACK_POLL_MS 10

/* The guest can stand still while so much is sent: some 1 ms */
#define FPH_LAST_ROUND_BYTES (1 * MiB)
/* On a slow or busy host it may not get far; a busy guest never ends */
#define FPH_LOOKS_IN_VAIN 20
/* From one look to the next */
#define FPH_LOOK_NS (50 * SCALE_MS)
/*
 * Where nothing is left out, QEMU goes through zeroes so fast; but shared
 * memory gets pages by that, and what is free in the guest is sent, at some
 * 1 GB/s.
 */
#define FPH_ZEROES_PER_NS 10

struct FphSource {
    int refs;                   /* atomic: the object, and each thread */
    char *id;
    FphConfig *config;
    struct fph_scanner *scanner; /* of the thread */
    struct fph_scanner *other_scanner; /* of main and migration thread */
    struct fph_watch *watch;    /* NULL if there is nothing to watch */
    FphHints *hints;            /* NULL with mode=pagemap */
    FphTracer *tracer;          /* NULL without the property */
    FphPrescan *prescan;        /* NULL unless wanted */
    FphVerifier verifier;
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
    uint64_t syncs_before;      /* what ram_sync_count() was at its setup */
    bool postcopy;              /* all is due that was left out */
    /*
     * Another number after each sync, and when a migration begins or ends.
     * What was seen under one token is used under it, or not at all.
     */
    uint64_t token;

    /* Protected by fph_lock: what the thread shall do, in this order */
    GQueue ended;               /* of blocks of migrations that have ended */
    bool arm;                   /* an epoch has begun */
    bool ask;                   /* the guest, too */
    bool quit;

    bool ahead;                 /* the thread has not looked at all yet */
    int64_t deadline;           /* when sending begins all the same */
    bool gate_open;
    int64_t held_since;
    uint64_t least_pending;     /* bytes, when the guest could be stopped */
    unsigned int looks;         /* since it has become less */
    uint64_t saved_ns;          /* by what was left out, each time */
    int64_t looks_until;        /* no more of them after that; 0: not set yet */

    Stat64 chunks;
    Stat64 chunks_not_scanned;
    Stat64 scan_ns;
    Stat64 passed_over;         /* bytes not scanned: seen by the tracer */
    Stat64 unannounced;         /* pieces dropped because of a sync unnoticed */
    Stat64 postcopy_zero;       /* pages sent unread after the switch */
};

/* There is one migration, so there can be one object that acts on it */
static FphSource *fph_source;
/* Its migration was switched to postcopy; read for each page that is sent */
static bool fph_postcopy;

/*
 * Held for moments, by whoever has the BQL too: nothing that can take long is
 * done under it.  Nests inside the bitmap mutex and the BQL.
 */
static QemuMutex fph_lock;
static QemuCond fph_cond;
/* Migrations whose watch may still be there, also of objects that have gone */
static unsigned int fph_ending;

/*
 * The thread's use of the migration's bitmaps, which go when the migration
 * ends.  It waits for the bitmap mutex while it holds this, so it is taken
 * under the BQL only by who knows that nobody holds the bitmap mutex for long:
 * in the end, and at a switch to postcopy.
 */
static QemuMutex fph_bitmap_lock;

/* The thread itself clears a log */
static __thread bool fph_is_arming;

/* This one gives hints to QEMU, and has locks then that the BQL waits for */
static __thread bool fph_is_hinting;

static int64_t fph_now(void)
{
    return qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
}

static void G_GNUC_PRINTF(3, 4)
fph_source_set_state(FphSource *fs, FphState state, const char *fmt, ...)
{
    g_clear_pointer(&fs->inactive_reason, g_free);
    if (fmt) {
        va_list ap;

        va_start(ap, fmt);
        fs->inactive_reason = g_strdup_vprintf(fmt, ap);
        va_end(ap);
    }
    fs->state = state;
    trace_fph_source_state(fs->id, FphState_str(state),
                           fs->inactive_reason ?: "");
}

/* Of the objects that are used by threads as well, the last user frees them */
static void fph_source_unref(void *opaque)
{
    FphSource *fs = opaque;

    if (qatomic_fetch_dec(&fs->refs) != 1) {
        return;
    }
    fph_prescan_free(fs->prescan);
    fph_hints_free(fs->hints);
    fph_tracer_free(fs->tracer);
    g_ptr_array_unref(fs->blocks);
    fph_watch_close(fs->watch);
    fph_scanner_close(fs->scanner);
    fph_scanner_close(fs->other_scanner);
    fph_config_unref(fs->config);
    g_free(fs->inactive_reason);
    g_free(fs->id);
    g_free(fs);
}

static bool fph_source_is_current(FphSource *fs, uint64_t token)
{
    QEMU_LOCK_GUARD(&fph_lock);
    return fs->token == token;
}

/*
 * Call @func with the bitmap mutex, and the migration's blocks as they were
 * under @token; it has to ask for the token once more, under fph_lock.  Returns
 * false if they are not.
 */
static bool fph_source_use_bitmaps(FphSource *fs, uint64_t token,
                                   int64_t (*func)(void *opaque), void *opaque)
{
    QEMU_LOCK_GUARD(&fph_bitmap_lock);
    if (!fph_source_is_current(fs, token)) {
        return false;
    }
    ram_skip(func, opaque);
    return true;
}

/*
 * Bits may be cleared for what was seen under @token.  A sync that nobody
 * announced may have collected the mark of a page that was taken into use; so
 * it is counted by whoever does it, too.  The bitmap mutex, which a sync needs,
 * and fph_lock are held.
 */
static bool fph_source_may_clear(FphSource *fs, uint64_t token)
{
    if (fs->token != token) {
        return false;
    }
    if (ram_sync_count() - fs->syncs_before != fs->epoch) {
        stat64_add(&fs->unannounced, 1);
        trace_fph_source_unannounced(fs->epoch,
                                     ram_sync_count() - fs->syncs_before);
        return false;
    }
    return true;
}

/*
 * Scanning
 */

/* Returns false if somebody else has taken it before */
static bool fph_source_take_chunk(FphBlock *block, uint64_t start)
{
    QEMU_LOCK_GUARD(&fph_lock);
    return !test_and_set_bit(start / block->chunk, block->taken);
}

/*
 * What the host knows of a chunk whose dirty log was cleared.  @mine: by the
 * thread.  Returns false if it is not all that could be known.
 */
static bool fph_source_look(FphSource *fs, FphBlock *block, uint64_t start,
                            bool mine, GArray *found)
{
    struct fph_scan_stats stats = { .sz = sizeof(stats) };
    uint64_t limit = MIN(start + block->chunk, block->region.used);
    uint64_t from = start, passed_over = start, to;
    int ret = 0;

    for (; ret >= 0 && fph_tracer_find(fs->tracer, block->region.host, limit,
                                       &from, &to); from = passed_over = to) {
        stat64_add(&fs->passed_over, from - passed_over);
        ret = fph_block_scan(block, mine ? fs->scanner : fs->other_scanner,
                             from, to, found, &stats);
    }
    if (ret >= 0 && passed_over < limit) {
        stat64_add(&fs->passed_over, limit - passed_over);
    }
    if (ret < 0) {
        /* What was found before the error is true; the rest gets sent. */
        trace_fph_source_scan_failed(block->name, start, ret);
    }
    if (fs->prescan) {
        fph_prescan_find(fs->prescan, block, start, limit, mine, found);
    }
    return ret >= 0;
}

typedef struct FphPiece {
    FphSource *fs;
    uint64_t token;
    FphBlock *block;
    GArray *found;              /* of FphFound */
    guint next;
    uint64_t cleared;
    bool late;
} FphPiece;

/* The first part of what is left of a range that is not too much at once */
static uint64_t fph_cut(uint64_t *start, uint64_t *len, uint64_t *budget)
{
    uint64_t n = MIN(*len, *budget);

    *start += n;
    *len -= n;
    *budget -= n;
    return n;
}

static int64_t fph_piece_apply(void *opaque)
{
    FphPiece *p = opaque;
    uint64_t budget = FPH_AT_ONCE_BYTES;
    guint end = MIN(p->found->len, p->next + FPH_AT_ONCE_RANGES);
    struct fph_skip_sink sink;

    RCU_READ_LOCK_GUARD();
    QEMU_LOCK_GUARD(&fph_lock);
    if (!fph_source_may_clear(p->fs, p->token)) {
        p->late = true;
        return 0;
    }
    if (!fph_rb_exists(p->block->rb)) {
        p->next = p->found->len;
        return 0;
    }
    sink = fph_block_sink(p->block, p->block->rb);
    while (p->next < end && budget) {
        FphFound *f = &g_array_index(p->found, FphFound, p->next);
        uint64_t start = f->start;

        fph_skip_sink_fn(&sink, start, fph_cut(&f->start, &f->len, &budget),
                         f->why);
        p->next += !f->len;
    }
    trace_fph_source_piece(FPH_AT_ONCE_BYTES - budget);
    p->cleared += sink.cleared;
    p->fs->saved_ns += sink.cleared * qemu_target_page_size() /
                       (qemu_ram_is_shared(p->block->rb) ? 1 :
                                                           FPH_ZEROES_PER_NS);
    return sink.cleared;
}

/* @whole: all was found.  What is late counts for nobody */
static void fph_source_count_chunk(const FphPiece *p, uint64_t start,
                                   bool whole, int64_t begun)
{
    FphSource *fs = p->fs;
    int64_t ns = fph_now() - begun;

    trace_fph_source_chunk(p->block->name, start, p->block->chunk, p->cleared,
                           ns);
    QEMU_LOCK_GUARD(&fph_lock);
    if (fs->token == p->token) {
        stat64_add(whole && !p->late ? &fs->chunks : &fs->chunks_not_scanned,
                   1);
        stat64_add(&fs->scan_ns, ns);
    }
}

/* By the thread; returns false if the epoch has ended meanwhile */
static bool fph_source_scan_chunk(FphSource *fs, uint64_t token,
                                  FphBlock *block, uint64_t start,
                                  GArray *found)
{
    FphPiece p = {
        .fs = fs, .token = token, .block = block, .found = found,
    };
    int64_t begun = fph_now();
    bool whole;

    if (!fph_source_take_chunk(block, start)) {
        return true;
    }
    g_array_set_size(found, 0);
    whole = fph_source_look(fs, block, start, true, found);
    while (!p.late && p.next < found->len) {
        p.late |= !fph_source_use_bitmaps(fs, token, fph_piece_apply, &p);
    }
    fph_source_count_chunk(&p, start, whole, begun);
    return !p.late && fph_source_is_current(fs, token);
}

typedef struct FphArm {
    FphSource *fs;
    uint64_t token;
    FphBlock *block;
    uint64_t start;
} FphArm;

static int64_t fph_arm_chunk(void *opaque)
{
    FphArm *a = opaque;

    RCU_READ_LOCK_GUARD();
    WITH_QEMU_LOCK_GUARD(&fph_lock) {
        if (a->fs->token != a->token) {
            return 0;
        }
    }
    if (fph_rb_exists(a->block->rb)) {
        fph_is_arming = true;
        ram_skip_arm(a->block->rb, a->start);
        fph_is_arming = false;
    }
    return 0;
}

/*
 * Blocks of which nothing can be left out as well: who asks for free page hints
 * clears what is left, under the BQL.  Returns false if the epoch has ended
 * meanwhile.
 */
static bool fph_source_arm_all(FphSource *fs, uint64_t token,
                               GPtrArray *blocks)
{
    FphArm a = { .fs = fs, .token = token };

    for (guint i = 0; i < blocks->len; i++) {
        a.block = g_ptr_array_index(blocks, i);
        for (a.start = 0; a.start < a.block->region.used;
             a.start += a.block->chunk) {
            if (!fph_source_use_bitmaps(fs, token, fph_arm_chunk, &a)) {
                return false;
            }
        }
    }
    return true;
}

static void fph_source_scan_all(FphSource *fs, uint64_t token,
                                GPtrArray *blocks)
{
    g_autoptr(GArray) found = g_array_new(false, false, sizeof(FphFound));

    for (guint i = 0; i < blocks->len; i++) {
        FphBlock *block = g_ptr_array_index(blocks, i);

        if (!block->skip || block->verdict.method == FPH_METHOD_NONE) {
            continue;
        }
        for (uint64_t start = 0; start < block->region.used;
             start += block->chunk) {
            if (!fph_source_scan_chunk(fs, token, block, start, found)) {
                return;
            }
        }
    }
}

/*
 * A sync has ended: clear all logs, and look.  Absent pages are known to be
 * zero at the destination as well only as long as nothing was sent, so the host
 * is asked in the first epoch only.
 */
static void fph_source_work(FphSource *fs, uint64_t token, unsigned int epoch,
                            GPtrArray *blocks, bool ask)
{
    int64_t start = fph_now();

    if (epoch == 1) {
        fph_verifier_begin(&fs->verifier, blocks);
    }
    if (fph_source_arm_all(fs, token, blocks)) {
        trace_fph_source_armed(epoch, fph_now() - start);
        if (ask) {
            fph_hints_ask(fs->hints, token, epoch == 1, fph_now() - start);
        }
        /* The guest walks meanwhile */
        if (epoch == 1 && fph_config_asks_host(fs->config)) {
            fph_source_scan_all(fs, token, blocks);
        }
    }
}

/*
 * What the guest says
 */

typedef struct FphAnswer {
    FphSource *fs;
    FphBatch *batch;
    GPtrArray *blocks;
    guint next;                 /* of the ranges in @batch */
    GArray *piece;              /* of FphRamRange, what is left out at once */
    GArray *marked;             /* of FphRamRange, what of it is watched */
    bool late;
} FphAnswer;

/* Returns false if nothing is left */
static bool fph_answer_next_piece(FphAnswer *a)
{
    GArray *ranges = a->batch->ranges;
    uint64_t budget = FPH_AT_ONCE_BYTES;

    g_array_set_size(a->piece, 0);
    g_array_set_size(a->marked, 0);
    while (a->next < ranges->len && budget &&
           a->piece->len < FPH_AT_ONCE_RANGES) {
        FphRamRange *r = &g_array_index(ranges, FphRamRange, a->next);
        FphRamRange part = *r;

        part.len = fph_cut(&r->start, &r->len, &budget);
        g_array_append_val(a->piece, part);
        a->next += !r->len;
    }
    trace_fph_source_piece(FPH_AT_ONCE_BYTES - budget);
    return a->piece->len;
}

/* May @block's pages be left out because the guest says that they are free? */
static bool fph_answer_counts(const FphAnswer *a, const FphBlock *block)
{
    return block && block->hints && fph_rb_exists(block->rb) &&
           (!a->batch->zero_only || fph_block_is_fresh(block));
}

static int64_t fph_answer_apply(void *opaque)
{
    FphAnswer *a = opaque;
    const FphRamRange *ranges = (const FphRamRange *)a->piece->data;
    struct fph_skip_sink sink;
    FphBlock *block = NULL;
    uint64_t cleared = 0;
    RAMBlock *rb = NULL;

    RCU_READ_LOCK_GUARD();
    QEMU_LOCK_GUARD(&fph_lock);
    if (!fph_source_may_clear(a->fs, a->batch->token)) {
        a->late = true;
        return 0;
    }
    fph_verifier_marked(a->blocks, ranges, a->piece->len, a->marked);
    for (guint i = 0; i < a->piece->len; i++) {
        const FphRamRange *r = &ranges[i];

        if (r->rb != rb) {
            rb = r->rb;
            block = fph_blocks_find(a->blocks, rb);
            if (!fph_answer_counts(a, block)) {
                block = NULL;
                continue;
            }
            sink = fph_block_sink(block, rb);
        }
        if (block) {
            sink.cleared = 0;
            fph_skip_sink_fn(&sink, r->start, r->len, FPH_FREE);
            cleared += sink.cleared;
        }
    }
    a->fs->saved_ns += cleared * qemu_target_page_size();
    return cleared;
}

static void fph_source_answer(FphSource *fs, FphBatch *batch,
                              GPtrArray *blocks)
{
    g_autoptr(GArray) piece = g_array_new(false, false, sizeof(FphRamRange));
    g_autoptr(GArray) marked = g_array_new(false, false, sizeof(FphRamRange));
    FphAnswer a = {
        .fs = fs, .batch = batch, .blocks = blocks, .piece = piece,
        .marked = marked,
    };
    guint ranges = batch->ranges->len;
    int64_t start;

    g_usleep(fs->config->pv_delay * 1000);
    start = fph_now();
    while (!a.late && fph_answer_next_piece(&a)) {
        for (guint i = 0; i < piece->len; i++) {
            fph_verifier_mark(&fs->verifier, blocks,
                              &g_array_index(piece, FphRamRange, i), marked);
        }
        a.late |= !fph_source_use_bitmaps(fs, batch->token, fph_answer_apply,
                                          &a);
    }
    if (!a.late) {
        a.late = !fph_source_is_current(fs, batch->token);
    }
    trace_fph_source_answer(ranges, a.late, fph_now() - start);
    fph_hints_applied(fs->hints, batch, a.late, fph_now() - start);
}

/*
 * The thread
 */

static void fph_source_wake(void)
{
    QEMU_LOCK_GUARD(&fph_lock);
    qemu_cond_broadcast(&fph_cond);
}

/* fph_lock is held, but let go of meanwhile */
static void fph_source_do_end(FphSource *fs)
{
    g_autoptr(GPtrArray) blocks = g_queue_pop_head(&fs->ended);

    qemu_mutex_unlock(&fph_lock);
    fph_verifier_end(&fs->verifier, blocks);
    if (fs->prescan) {
        fph_prescan_resume(fs->prescan, fs->verifier.watch);
    }
    qemu_mutex_lock(&fph_lock);
    fph_ending--;
    qemu_cond_broadcast(&fph_cond);
}

static void fph_source_do_arm(FphSource *fs)
{
    g_autoptr(GPtrArray) blocks = g_ptr_array_ref(fs->blocks);
    unsigned int epoch = fs->epoch;
    uint64_t token = fs->token;
    bool ask = fs->ask;

    fs->arm = false;
    qemu_mutex_unlock(&fph_lock);
    fph_source_work(fs, token, epoch, blocks, ask);
    qemu_mutex_lock(&fph_lock);
    /* Or another migration's */
    if (fs->token == token) {
        fs->ahead = false;
        qemu_cond_broadcast(&fph_cond);
    }
}

static void fph_source_do_answer(FphSource *fs, FphBatch *batch)
{
    g_autoptr(GPtrArray) blocks = g_ptr_array_ref(fs->blocks);

    qemu_mutex_unlock(&fph_lock);
    fph_source_answer(fs, batch, blocks);
    fph_batch_free(batch);
    qemu_mutex_lock(&fph_lock);
}

static void *fph_source_thread(void *opaque)
{
    FphSource *fs = opaque;
    FphBatch *batch;

    rcu_register_thread();
    qemu_mutex_lock(&fph_lock);
    while (true) {
        if (!g_queue_is_empty(&fs->ended)) {
            fph_source_do_end(fs);
        } else if (fs->quit) {
            break;
        } else if (fs->arm) {
            fph_source_do_arm(fs);
        } else {
            batch = fs->hints ? fph_hints_pop(fs->hints) : NULL;
            if (batch) {
                fph_source_do_answer(fs, batch);
            } else {
                qemu_cond_wait(&fph_cond, &fph_lock);
            }
        }
    }
    qemu_mutex_unlock(&fph_lock);
    rcu_unregister_thread();
    fph_source_unref(fs);
    return NULL;
}

/*
 * What the migration asks
 */

/*
 * Pages that were left out and are dirty again are not left out any more.  To
 * be called before one of them can be sent, after each sync; under the bitmap
 * mutex.
 */
static void fph_source_revoke(FphSource *fs, FphBlock *block, RAMBlock *rb,
                              unsigned int epoch, uint64_t start, uint64_t len)
{
    uint64_t page_size = qemu_target_page_size();
    uint64_t resent;

    /* In a dry run all is dirty in the first epoch */
    if (fs->config->dry_run && epoch <= 1) {
        return;
    }
    /* Not block->rb, which goes before the last hints have come */
    resent = fph_skip_revoke(block->skip, rb->bmap, start / page_size,
                             len / page_size);
    if (resent) {
        trace_fph_source_resent(block->name, start, resent);
    }
}

/*
 * The dirty log of a chunk was cleared just now, so a write that a scan does
 * not see is seen by the next sync.  The chunk may be sent next; if the thread
 * has not got there yet, it is scanned here.  This is under the bitmap mutex,
 * which the next sync needs before it touches the bitmap.
 *
 * In later epochs chunks are visited for the books alone.
 */
static uint64_t fph_source_chunk_armed(RAMBlock *rb, uint64_t start,
                                       uint64_t len)
{
    FphSource *fs = fph_source;
    FphBlock *block = fph_blocks_find(fs->blocks, rb);
    FphPiece p = { .fs = fs, .block = block };
    g_autoptr(GArray) found = NULL;
    unsigned int epoch;
    int64_t begun;
    bool whole;

    if (!block || !block->skip || fs->postcopy) {
        return 0;
    }
    WITH_QEMU_LOCK_GUARD(&fph_lock) {
        epoch = fs->epoch;
        p.token = fs->token;
    }
    fph_source_revoke(fs, block, rb, epoch, start, len);
    if (epoch > 1 || fph_is_arming || fph_is_hinting || bql_locked() ||
        block->verdict.method == FPH_METHOD_NONE ||
        start >= block->region.used || !fph_source_take_chunk(block, start)) {
        return 0;
    }
    begun = fph_now();
    found = g_array_new(false, false, sizeof(FphFound));
    p.found = found;
    whole = fph_source_look(fs, block, start, false, found);
    while (!p.late && p.next < found->len) {
        fph_piece_apply(&p);
    }
    fph_source_count_chunk(&p, start, whole, begun);
    return p.cleared;
}

/*
 * A block that is no whole number of bitmap words is synced by QEMU page by
 * page, and no chunk of it is armed again; that takes longer than this.
 */
static void fph_source_block_synced(RAMBlock *rb)
{
    FphSource *fs = fph_source;
    FphBlock *block = fph_blocks_find(fs->blocks, rb);

    if (block && block->skip && !fs->postcopy && !fph_block_is_whole(block)) {
        fph_source_revoke(fs, block, rb, fs->epoch, 0, block->region.max);
    }
}

static bool fph_source_free_page(void *addr, size_t len)
{
    fph_is_hinting = true;
    return fph_hints_free_page(addr, len);
}

static bool fph_source_defer_armed(void)
{
    FphSource *fs = fph_source;

    return fs->state == FPH_STATE_ACTIVE && fs->hints &&
           fph_hints_defer(fs->hints);
}

/* fph_lock is held */
static bool fph_source_is_ready(FphSource *fs, int64_t now)
{
    return now >= fs->deadline ||
           (!fs->ahead && (!fs->hints || fph_hints_is_settled(fs->hints)));
}

/*
 * Pages may be sent when all is known, or pv-wait has passed.  After that, the
 * end of the first epoch, which ends the scan as well, waits for that once
 * more.  In the migration thread, without locks.
 */
static bool fph_source_hold_back(bool sync)
{
    int64_t now = fph_now();
    FphSource *fs;

    QEMU_LOCK_GUARD(&fph_lock);
    fs = fph_source;
    if (!fs || fs->epoch != 1 || (sync ? !fs->ahead : fs->gate_open)) {
        return false;
    }
    if (!fs->held_since) {
        fs->held_since = now;
        if (sync) {
            fs->deadline = now + (int64_t)fs->config->pv_wait * SCALE_MS;
        }
    }
    if (sync ? now >= fs->deadline : fph_source_is_ready(fs, now)) {
        if (fs->hints && !sync) {
            fph_hints_waited(fs->hints, now - fs->held_since);
        }
        fs->gate_open = true;
        fs->held_since = 0;
        return false;
    }
    qemu_cond_timedwait(&fph_cond, &fph_lock, FPH_HOLD_BACK_POLL_MS);
    return true;
}

/*
 * QEMU stops the guest when what is left fits into downtime-limit.  While it
 * sends zero pages it takes the bandwidth for small, and stops it late; without
 * them it would at once.  So the guest may run while that goes on shrinking, by
 * a sixteenth within 20 looks (each 50 ms), and for as long as QEMU would have
 * spent on what was left out: so the end is not later than without, also
 * where nothing is left out and the guest writes all the time.
 */
static bool fph_source_another_round(uint64_t pending)
{
    int64_t now = fph_now();
    FphSource *fs;

    QEMU_LOCK_GUARD(&fph_lock);
    fs = fph_source;
    if (!fs || fs->postcopy) {
        return false;
    }
    if (!fs->looks_until) {
        fs->looks_until = now + fs->saved_ns;
    }
    if (pending <= fs->least_pending / 16 * 15) {
        fs->least_pending = pending;
        fs->looks = 0;
    }
    return pending >= FPH_LAST_ROUND_BYTES &&
           now + FPH_LOOK_NS <= fs->looks_until &&
           fs->looks++ < FPH_LOOKS_IN_VAIN;
}

/*
 * The destination is about to run, and to ask for pages that it has not got:
 * none may be missing from the bitmap.  The VM was stopped before the last
 * sync, so what is left out now and was not written since stays as it is.
 *
 * The thread does not touch the bitmap any more.
 */
static uint64_t fph_source_postcopy(void)
{
    FphSource *fs = fph_source;
    uint64_t due = 0;

    if (fs->hints) {
        fph_hints_end(fs->hints);
    }

    QEMU_LOCK_GUARD(&fph_bitmap_lock);
    for (guint i = 0; i < fs->blocks->len; i++) {
        FphBlock *block = g_ptr_array_index(fs->blocks, i);

        /* In a dry run nothing was left out, and all was read */
        if (block->skip && !fs->config->dry_run && fph_rb_exists(block->rb)) {
            due += fph_skip_restore(block->skip, block->rb->bmap);
        }
    }
    WITH_QEMU_LOCK_GUARD(&fph_lock) {
        fs->token++;
        fs->postcopy = true;
    }
    qatomic_set(&fph_postcopy, true);
    trace_fph_source_postcopy(due);
    return due;
}

/*
 * Pages that were left out until the switch, and only these, are still in the
 * skip bitmap: they are zero, or free, and the source does not run any more.
 * To read them would give them memory, if it is shared.
 */
static bool fph_source_is_zero(RAMBlock *rb, uint64_t offset)
{
    FphBlock *block;
    FphSource *fs;

    if (!qatomic_read(&fph_postcopy)) {
        return false;
    }

    QEMU_LOCK_GUARD(&fph_lock);
    fs = fph_source;
    block = fs && fs->postcopy && !fs->config->dry_run ?
            fph_blocks_find(fs->blocks, rb) : NULL;
    if (!block || !block->skip ||
        !fph_skip_test(block->skip, offset / qemu_target_page_size())) {
        return false;
    }
    stat64_add(&fs->postcopy_zero, 1);
    return true;
}

static const RAMSkipOps fph_source_ops = {
    .chunk_armed = fph_source_chunk_armed,
    .block_synced = fph_source_block_synced,
    .defer_armed = fph_source_defer_armed,
    .hold_back = fph_source_hold_back,
    .another_round = fph_source_another_round,
    .free_page_hint = fph_source_free_page,
    .postcopy = fph_source_postcopy,
    .is_zero = fph_source_is_zero,
};

/*
 * What everybody asks who has to do with userfaultfd, or with devices
 */

/*
 * Does the kernel know already that @rb can be write-protected?  While a watch
 * ends, it may be any.
 */
static bool fph_source_userfaultfd_held(RAMBlock *rb)
{
    QEMU_LOCK_GUARD(&fph_lock);
    return fph_prescan_has(rb) || fph_ending > 0;
}

static void fph_source_userfaultfd_wanted(void)
{
    fph_prescan_make_way("userfaultfd was needed by somebody else");
    QEMU_LOCK_GUARD(&fph_lock);
    while (fph_ending > 0) {
        qemu_cond_wait(&fph_cond, &fph_lock);
    }
}

static void fph_source_memory_loaded(void)
{
    fph_prescan_make_way("a snapshot was loaded");
}

static const RAMWatchOps fph_source_watch_ops = {
    .mapping_written = fph_prescan_device_wrote,
    .userfaultfd_held = fph_source_userfaultfd_held,
    .userfaultfd_wanted = fph_source_userfaultfd_wanted,
    .memory_loaded = fph_source_memory_loaded,
};

/*
 * The course of a migration; all under the BQL
 */

/* First sync done: the bitmaps exist, the log is on. */
static void fph_source_start(FphSource *fs)
{
    GPtrArray *blocks = fph_blocks_new();
    FphBlock *block, *ram = NULL;
    bool usable = false;
    RAMBlock *rb;

    WITH_RCU_READ_LOCK_GUARD() {
        RAMBLOCK_FOREACH(rb) {
            if (!qemu_ram_is_migratable(rb)) {
                continue;
            }
            block = fph_block_new(rb, fs->config, fs->other_scanner);
            g_ptr_array_add(blocks, block);
            usable |= block->skip != NULL;
            if (!ram && !(block->region.flags & FPH_REGION_NOT_RAM)) {
                ram = block;
            }
        }
    }
    if (usable) {
        fph_source_set_state(fs, FPH_STATE_ACTIVE, NULL);
    } else {
        fph_source_set_state(fs, FPH_STATE_INACTIVE,
                             "no RAM block can be scanned%s%s%s%s",
                             ram ? "; " : "", ram ? ram->name : "",
                             ram ? ": " : "", ram ? ram->verdict.why : "");
    }
    QEMU_LOCK_GUARD(&fph_lock);
    g_ptr_array_unref(fs->blocks);
    fs->blocks = blocks;
}

/* A sync begins, and ends the epoch */
static void fph_source_next_epoch(FphSource *fs)
{
    uint64_t total = 0;

    WITH_QEMU_LOCK_GUARD(&fph_lock) {
        fs->epoch++;
        fs->token++;
        fs->arm = false;
    }
    if (fs->hints && fs->epoch > 1) {
        fph_hints_close(fs->hints, "the next bitmap synchronization came "
                                   "before the whole answer");
    }
    if (fs->epoch != 2) {
        return;
    }
    /* Chunks whose turn did not come in the first epoch are not scanned. */
    QEMU_LOCK_GUARD(&fph_lock);
    for (guint i = 0; i < fs->blocks->len; i++) {
        FphBlock *block = g_ptr_array_index(fs->blocks, i);

        if (block->skip && block->verdict.method != FPH_METHOD_NONE) {
            total += fph_block_chunks(block);
        }
    }
    stat64_set(&fs->chunks_not_scanned, total - stat64_get(&fs->chunks));
}

/* A sync has ended. */
static void fph_source_begin_epoch(FphSource *fs)
{
    bool ask;

    if (fs->epoch == 1) {
        fph_source_start(fs);
    }
    if (fs->state != FPH_STATE_ACTIVE) {
        return;
    }
    /* In the end nobody can be asked, but a paused VM has absent pages too */
    ask = fs->hints && fph_hints_have_hinter(fs->hints);
    if (fs->epoch == 1 || (ask && runstate_is_running())) {
        if (ask) {
            fph_hints_open(fs->hints, fs->token);
        }
        QEMU_LOCK_GUARD(&fph_lock);
        fs->arm = true;
        fs->ask = ask;
        if (fs->epoch == 1) {
            fs->ahead = true;
            fs->deadline = fph_now() +
                           (int64_t)fs->config->pv_wait * SCALE_MS;
        }
        qemu_cond_broadcast(&fph_cond);
    }
    /* The last one: nothing of the guest runs any more */
    if (fs->config->verify != FPH_VERIFY_OFF &&
        runstate_check(RUN_STATE_FINISH_MIGRATE)) {
        fph_verifier_check(&fs->verifier, fs->blocks);
    }
}

/* It is unplugged before any page is sent; nobody logs what it writes until then */
static int fph_match_failover(Object *obj, void *opaque)
{
    g_autofree char *id = NULL;

    if (object_dynamic_cast(obj, "pci-device")) {
        id = object_property_get_str(obj, "failover_pair_id", NULL);
    }
    return id && *id;
}

/* 10.2: that file's content is in RAM also of a destination */
static bool fph_has_igvm(void)
{
    Object *machine = qdev_get_machine();

    return object_property_find(machine, "igvm-cfg") &&
           object_property_get_link(machine, "igvm-cfg", NULL);
}

/* Why the migration that is about to start cannot do with fewer pages */
static const char *fph_source_refuse(FphSource *fs)
{
    const char *why;

    if (fs->config->mode == FPH_MODE_PAGEMAP &&
        fph_scanner_error(fs->other_scanner, &why) < 0) {
        return why;
    }
    /* With qtest nothing runs, and what the test writes is logged */
    if (!tcg_enabled() && !kvm_enabled() && !qtest_enabled()) {
        return "neither TCG nor KVM runs the guest, and of other accelerators "
               "it is not known whether they log each write";
    }
    if (!qemu_arch_available(QEMU_ARCH_I386)) {
        return "other machines than x86's can write to RAM when they are reset "
               "at the destination, where it has to be zero";
    }
    if (kvm_enabled() && kvm_dirty_ring_enabled()) {
        return "KVM's dirty ring was seen to lose writes, with or without us";
    }
    if (replay_mode != REPLAY_MODE_NONE) {
        return "execution is recorded or replayed, and looks of ours are not";
    }
    if (object_child_foreach_recursive(object_get_root(), fph_match_failover,
                                       NULL)) {
        return "a device that is unplugged first (failover_pair_id) writes to "
               "memory until then, and nobody logs that";
    }
    if (fph_has_igvm()) {
        return "an IGVM file fills memory at the destination, where it has to "
               "be zero";
    }
    if (migration_in_incoming_postcopy()) {
        return "memory still comes in by postcopy, and absent pages may be on "
               "their way";
    }
    if (migrate_background_snapshot()) {
        return "a background snapshot has no dirty log";
    }
    if (migrate_colo()) {
        return "COLO keeps a destination that has run already";
    }
    if (migrate_rdma()) {
        return "RDMA is not supported";
    }
    return NULL;
}

/* The migration begins. */
static void fph_source_arm(FphSource *fs)
{
    const char *why = fph_source_refuse(fs);
    const char *mute, *blind;

    if (fs->tracer) {
        fph_tracer_reset(fs->tracer);
    }
    if (fs->hints) {
        mute = fph_hints_reset(fs->hints);
        if (!why && (fs->config->mode == FPH_MODE_PV ||
                     fph_scanner_error(fs->other_scanner, &blind) < 0)) {
            why = mute;
        }
    }

    WITH_QEMU_LOCK_GUARD(&fph_lock) {
        g_ptr_array_unref(fs->blocks);
        fs->blocks = fph_blocks_new();
        fs->token++;
        fs->epoch = 0;
        fs->syncs_before = ram_sync_count();
        fs->postcopy = fs->gate_open = fs->ahead = false;
        fs->deadline = fs->held_since = 0;
        fs->least_pending = UINT64_MAX;
        fs->saved_ns = 0;
        fs->looks_until = 0;
        stat64_set(&fs->chunks, 0);
        stat64_set(&fs->chunks_not_scanned, 0);
        stat64_set(&fs->scan_ns, 0);
        stat64_set(&fs->passed_over, 0);
        stat64_set(&fs->unannounced, 0);
        stat64_set(&fs->postcopy_zero, 0);
    }
    fph_verifier_reset(&fs->verifier);

    if (fs->prescan) {
        fph_prescan_hold(fs->prescan, !why);
    }
    fs->armed = true;
    fs->tell_end = true;
    if (why) {
        fph_source_set_state(fs, FPH_STATE_INACTIVE, "%s", why);
        return;
    }
    fph_source_set_state(fs, FPH_STATE_READY, NULL);
    qatomic_set(&ram_skip_ops, &fph_source_ops);
}

/* The migration is over, or failed at any point. */
static void fph_source_disarm(FphSource *fs)
{
    if (!fs->armed) {
        return;
    }
    fs->armed = false;
    qatomic_set(&ram_skip_ops, NULL);
    qatomic_set(&fph_postcopy, false);
    if (fs->hints) {
        fph_hints_end(fs->hints);
    }
    /* It has protected pages anew, and another migration can begin at once */
    if (fs->prescan && fs->verifier.watch) {
        fph_prescan_disturb(fs->prescan);
    }

    /* The bitmaps go; nobody holds their mutex any more */
    WITH_QEMU_LOCK_GUARD(&fph_bitmap_lock) {
        QEMU_LOCK_GUARD(&fph_lock);
        fs->token++;
        fs->arm = false;
        for (guint i = 0; i < fs->blocks->len; i++) {
            FphBlock *block = g_ptr_array_index(fs->blocks, i);

            block->rb = NULL;
        }
        /* The rest takes its time */
        g_queue_push_tail(&fs->ended, g_ptr_array_ref(fs->blocks));
        fph_ending++;
        qemu_cond_broadcast(&fph_cond);
    }
    if (fs->state != FPH_STATE_INACTIVE) {
        fph_source_set_state(fs, FPH_STATE_ENDED, NULL);
    }
}

/* Pages were left out, and no more will be: once in each migration */
static void fph_source_tell_end(FphSource *fs, FphEnd cause)
{
    g_autoptr(FphInfo) info = NULL;

    if (fs->state == FPH_STATE_INACTIVE || !fs->tell_end) {
        return;
    }
    fs->tell_end = false;
    info = fph_source_query(fs);
    qapi_event_send_fph_source_ended(info->id, cause, info->skipped,
                                     info->resent, info->violations, info);
}

/*
 * Unlike the precopy notifiers, these events come with an outgoing migration
 * only, and not with savevm, whose loadvm does not start from zeroed memory.
 */
static int fph_source_migration_notify(NotifierWithReturn *notifier,
                                       MigrationEvent *e, Error **errp)
{
    FphSource *fs = container_of(notifier, FphSource, migration_notifier);

    if (e->type == FPH_EVENT_SETUP) {
        fph_source_arm(fs);
    } else if (e->type == FPH_EVENT_POSTCOPY && fs->postcopy) {
        /* Most pages are still to be sent; PRECOPY_NOTIFY_CLEANUP follows */
        fph_source_tell_end(fs, FPH_END_POSTCOPY);
    } else if (e->type == FPH_EVENT_DONE || e->type == FPH_EVENT_FAILED) {
        fph_source_disarm(fs);
        fph_source_tell_end(fs, e->type == FPH_EVENT_DONE ?
                                FPH_END_COMPLETED : FPH_END_FAILED);
    }
    return 0;
}

static int fph_source_precopy_notify(NotifierWithReturn *notifier,
                                     void *opaque, Error **errp)
{
    FphSource *fs = container_of(notifier, FphSource, precopy_notifier);
    PrecopyNotifyData *data = opaque;

    if (data->reason == PRECOPY_NOTIFY_CLEANUP) {
        fph_source_disarm(fs);
    }
    if (!fs->armed || fs->state == FPH_STATE_INACTIVE) {
        return 0;
    }

    switch (data->reason) {
    case PRECOPY_NOTIFY_BEFORE_BITMAP_SYNC:
        fph_source_next_epoch(fs);
        break;
    case PRECOPY_NOTIFY_AFTER_BITMAP_SYNC:
        fph_source_begin_epoch(fs);
        break;
    default:
        break;
    }
    return 0;
}

/*
 * The object's side
 */

static enum fph_scanner_kind fph_source_scanner_kind(const FphConfig *config)
{
    switch (config->scanner) {
    case FPH_SCANNER_KIND_AUTO:
        return FPH_SCANNER_AUTO;
    case FPH_SCANNER_KIND_PAGEMAP_SCAN:
        return FPH_SCANNER_PAGEMAP_SCAN;
    case FPH_SCANNER_KIND_PAGEMAP:
        return FPH_SCANNER_PAGEMAP;
    case FPH_SCANNER_KIND_OFF:
        return FPH_SCANNER_OFF;
    default:
        g_assert_not_reached();
    }
}

static bool fph_source_open(FphSource *fs)
{
    struct fph_scanner_opts opts = {
        .sz = sizeof(opts),
        .kind = fph_source_scanner_kind(fs->config),
    };
    bool witness = fs->config->verify != FPH_VERIFY_OFF &&
                   fph_config_asks_guest(fs->config);

    if (fph_scanner_open_with(&fs->scanner, &opts) < 0 ||
        fph_scanner_open_with(&fs->other_scanner, &opts) < 0 ||
        ((fs->config->prescan || witness) && fph_watch_open(&fs->watch) < 0)) {
        return false;
    }
    fs->verifier.scanner = fs->other_scanner;
    fs->verifier.watch = witness ? fs->watch : NULL;
    fs->verifier.abort = fs->config->verify == FPH_VERIFY_ABORT;
    return true;
}

FphSource *fph_source_new(const char *id, FphConfig *config, Error **errp)
{
    QemuThread thread;
    const char *why;
    FphSource *fs;

    if (fph_source) {
        error_setg(errp, "there can be only one fph-source, and '%s' is one",
                   fph_source->id);
        return NULL;
    }
    fs = g_new0(FphSource, 1);
    fs->refs = 1;
    fs->id = g_strdup(id);
    fs->config = fph_config_ref(config);
    fs->blocks = fph_blocks_new();
    g_queue_init(&fs->ended);
    /* Here and not later: privileges may be dropped after start-up. */
    if (!fph_source_open(fs)) {
        error_setg(errp, "out of memory for fph-source");
        fph_source_unref(fs);
        return NULL;
    }
    if (config->mode == FPH_MODE_PAGEMAP &&
        fph_scanner_error(fs->other_scanner, &why) < 0) {
        fph_source_set_state(fs, FPH_STATE_INACTIVE, "%s", why);
    }
    if (fph_config_asks_guest(config)) {
        fs->hints = fph_hints_new(config, fph_source_wake);
    }
    if (config->tracer) {
        fs->tracer = fph_tracer_new(config->tracer);
    }
    if (config->prescan) {
        fs->refs++;
        fs->prescan = fph_prescan_new(config, fs->watch, fs->other_scanner,
                                      fph_source_unref, fs);
    }
    if (fs->watch) {
        qatomic_set(&ram_watch_ops, &fph_source_watch_ops);
    }

    WITH_QEMU_LOCK_GUARD(&fph_lock) {
        fph_source = fs;
    }
    fs->refs++;
    qemu_thread_create(&thread, "fph-source", fph_source_thread, fs,
                       QEMU_THREAD_DETACHED);
    migration_add_notifier(&fs->migration_notifier,
                           fph_source_migration_notify);
    fs->precopy_notifier.notify = fph_source_precopy_notify;
    precopy_add_notifier(&fs->precopy_notifier);
    return fs;
}

void fph_source_retire(FphSource *fs)
{
    precopy_remove_notifier(&fs->precopy_notifier);
    migration_remove_notifier(&fs->migration_notifier);
    WITH_QEMU_LOCK_GUARD(&fph_lock) {
        fph_source = NULL;
        fs->token++;
        fs->quit = true;
        qemu_cond_broadcast(&fph_cond);
    }
    if (fs->prescan) {
        fph_prescan_retire(fs->prescan);
    }
    if (fs->tracer) {
        fph_tracer_retire(fs->tracer);
    }
    fph_source_unref(fs);
}

bool fph_source_is_busy(FphSource *fs)
{
    return fs->armed;
}

GPtrArray *fph_source_get_blocks(FphSource *fs)
{
    return fs->blocks;
}

static FphBlockInfo *fph_block_query(const FphBlock *block, FphInfo *sum)
{
    struct fph_skip_counts counts = { .sz = sizeof(counts) };
    FphBlockInfo *info = g_new0(FphBlockInfo, 1);

    if (block->skip) {
        fph_skip_get_counts(block->skip, &counts);
    }
    info->name = g_strdup(block->name);
    info->size = block->region.used;
    info->backing = g_strdup(fph_backing_name(block->verdict.backing));
    info->method = g_strdup(fph_method_name(block->verdict.method));
    info->reason = g_strdup(block->verdict.why);
    info->skipped = counts.skipped;
    info->unmapped = counts.reason[FPH_UNMAPPED];
    info->zero_mapped = counts.reason[FPH_ZERO_MAPPED];
    info->zero_content = counts.reason[FPH_ZERO_CONTENT];
    info->free = counts.reason[FPH_FREE];
    info->both = counts.both;
    info->guest_only = info->free - info->both;
    info->host_only = info->skipped - info->free;
    info->resent = counts.resent;
    info->violations = block->violations;

    sum->skipped += info->skipped;
    sum->unmapped += info->unmapped;
    sum->zero_mapped += info->zero_mapped;
    sum->zero_content += info->zero_content;
    sum->free += info->free;
    sum->guest_only += info->guest_only;
    sum->host_only += info->host_only;
    sum->both += info->both;
    sum->resent += info->resent;
    return info;
}

FphInfo *fph_source_query(FphSource *fs)
{
    FphInfo *info = g_new0(FphInfo, 1);
    FphBlockInfoList **tail = &info->blocks;
    /* As long as none has begun, what a migration would do now */
    const char *why = fs->state == FPH_STATE_READY && !fs->armed ?
                      fph_source_refuse(fs) : NULL;

    info->id = g_strdup(fs->id);
    info->mode = fs->config->mode;
    info->dry_run = fs->config->dry_run;
    info->verify = fs->config->verify;
    info->verified = fs->verifier.verified;
    info->watched = fs->verifier.watched;
    info->witness_reason =
        g_strdup(qatomic_read(&fs->verifier.witness_reason));
    info->violations = fs->verifier.violations;
    info->verify_ns = fs->verifier.ns;
    /* Whoever has seen a migration complete need not wait for its clean-up */
    info->state = fs->state == FPH_STATE_ACTIVE && !migration_is_running() ?
                  FPH_STATE_ENDED : why ? FPH_STATE_INACTIVE : fs->state;
    info->inactive_reason = g_strdup(why ?: fs->inactive_reason);
    info->page_size = qemu_target_page_size();
    info->epoch = fs->epoch;
    info->chunks = stat64_get(&fs->chunks);
    info->chunks_not_scanned = stat64_get(&fs->chunks_not_scanned);
    info->scan_ns = stat64_get(&fs->scan_ns);
    info->unannounced = stat64_get(&fs->unannounced);
    info->postcopy_zero = stat64_get(&fs->postcopy_zero);
    if (fs->hints) {
        info->hints = fph_hints_query(fs->hints);
    }
    if (fs->tracer) {
        info->tracer = fph_tracer_query(fs->tracer);
        info->tracer->passed_over = stat64_get(&fs->passed_over) /
                                    info->page_size;
    }
    if (fs->prescan) {
        info->prescan = fph_prescan_query(fs->prescan);
    }
    for (guint i = 0; i < fs->blocks->len; i++) {
        QAPI_LIST_APPEND(tail, fph_block_query(
                                   g_ptr_array_index(fs->blocks, i), info));
    }
    info->left_out_bytes = info->dry_run ? 0 : info->skipped * info->page_size;
    return info;
}

static void fph_source_init(void)
{
    qemu_mutex_init(&fph_lock);
    qemu_mutex_init(&fph_bitmap_lock);
    qemu_cond_init(&fph_cond);
}

type_init(fph_source_init);

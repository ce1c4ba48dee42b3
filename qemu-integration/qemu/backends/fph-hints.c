/*
 * fph-source: pages that the guest says are free
 *
 * After each bitmap sync a thread clears the dirty logs of all memory, so that
 * each write from then on is seen by the next sync; then the guest is asked
 * what is free; what it answers is taken out of the dirty bitmap as long as no
 * further sync has begun.  Whatever order things happen in elsewhere, a page
 * that the guest takes into use after it said that it is free gets sent.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/rcu.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "exec/address-spaces.h"
#include "exec/memory.h"
#include "exec/target_page.h"
#include "hw/qdev-core.h"
#include "hw/virtio/virtio-balloon.h"
#include "hw/virtio/virtio-fph.h"
#include "migration/misc.h"
#include "migration/ram-skip.h"
#include "system/runstate.h"
#include "trace.h"
#include "fph-source.h"

#include <fph/virtio-fph.h>

/* Ranges that may wait for the thread before the device has to */
#define FPH_HINTS_QUEUE_MAX (64 * KiB)

/* Ranges that are applied without letting go of the bitmap mutex */
#define FPH_HINTS_AT_ONCE 1024

#define FPH_HINTS_POLL_MS 10

/*
 * A part of an answer, in the order of arrival.  The RAM blocks of its ranges
 * are not used but to compare.
 */
typedef struct FphBatch {
    unsigned int epoch;
    bool zero_only;             /* free means zero, R4 */
    bool end;
    struct fph_hint_frame frame; /* if @end */
    guint frames;               /* that it came in */
    GArray *ranges;             /* of FphRamRange */
    guint next;                 /* first that was not applied yet */
} FphBatch;

struct FphHints {
    FphSource *fs;

    /* Protected by the BQL */
    FphHinter *hinter;          /* NULL between migrations */
    Object *proxy;              /* of its device */
    bool has_transport;
    FphTransport transport;
    char *device;
    QEMUBH *bh;                 /* NULL unless the thread runs */
    QemuThread thread;

    /* Protected by fph_hints_lock */
    bool quit;
    unsigned int arm_epoch;     /* the thread shall arm, or 0 */
    unsigned int ask_epoch;     /* the bottom half shall ask, or 0 */
    unsigned int open_epoch;    /* of the request that is open, or 0 */
    bool zero_only;             /* of the request that is open */
    GQueue batches;
    guint queued;               /* ranges in @batches */
    bool full;                  /* the hinter was told to wait */

    bool first_armed;           /* all memory was armed, and scanned */
    int64_t deadline;           /* for the first answer */
    bool gate_open;
    int64_t held_since;

    FphHintState state;         /* of the first request */
    char *reason;
    int64_t asked_at;
    bool has_guest_figures;
    struct fph_hint_frame guest_figures;
    uint64_t requests, answers, stale, free;
    uint64_t arm_ns, latency_ns, apply_ns, wait_ns;
};

/*
 * The innermost lock.  Static like the condition, because the migration thread
 * waits here and may outlive the object.
 */
static QemuMutex fph_hints_lock;
static QemuCond fph_hints_cond;
static FphHints *fph_hints;     /* of the migration under way */

static int64_t fph_now(void)
{
    return qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
}

static void fph_batch_free(FphBatch *batch)
{
    g_array_unref(batch->ranges);
    g_free(batch);
}

/* The first request has come to an end; fph_hints_lock is held */
static void fph_hints_settle(FphHints *h, FphHintState state, const char *why)
{
    if (h->state != FPH_HINT_STATE_IDLE &&
        h->state != FPH_HINT_STATE_REQUESTED) {
        return;
    }
    h->state = state;
    g_free(h->reason);
    h->reason = g_strdup(why);
    qemu_cond_broadcast(&fph_hints_cond);
    trace_fph_hints_settled(FphHintState_str(state), why ?: "");
}

/*
 * Arming and scanning
 */

static bool fph_hints_is_current(FphHints *h, unsigned int epoch)
{
    WITH_QEMU_LOCK_GUARD(&fph_hints_lock) {
        if (h->quit) {
            return false;
        }
    }
    QEMU_LOCK_GUARD(&fph_lock);
    return h->fs->epoch == epoch;
}

typedef struct FphChunk {
    FphHints *h;
    unsigned int epoch;
    FphBlock *block;
    uint64_t start;
} FphChunk;

static int64_t fph_chunk_scan(void *opaque)
{
    FphChunk *c = opaque;
    FphSource *fs = c->h->fs;

    QEMU_LOCK_GUARD(&fph_lock);
    if (fs->epoch != c->epoch) {
        return 0;
    }
    c->block->chunks_seen++;
    return fph_block_scan(fs, c->block, c->block->rb, c->start,
                          c->block->chunk);
}

/* Returns false if the epoch has ended meanwhile */
static bool fph_hints_all_chunks(FphHints *h, unsigned int epoch, bool scan)
{
    FphChunk c = { .h = h, .epoch = epoch };

    for (guint i = 0; i < h->fs->blocks->len; i++) {
        c.block = g_ptr_array_index(h->fs->blocks, i);
        if (!c.block->skip ||
            (scan && c.block->verdict.method == FPH_METHOD_NONE)) {
            continue;
        }
        for (c.start = 0; c.start < c.block->region.used;
             c.start += c.block->chunk) {
            RCU_READ_LOCK_GUARD();
            if (!fph_hints_is_current(h, epoch)) {
                return false;
            }
            if (!fph_rb_exists(c.block->rb)) {
                break;
            }
            if (scan) {
                ram_skip(fph_chunk_scan, &c);
            } else {
                ram_skip_arm(c.block->rb, c.start);
            }
        }
    }
    return true;
}

static void fph_hints_arm(FphHints *h, unsigned int epoch)
{
    int64_t start = fph_now();

    if (fph_hints_all_chunks(h, epoch, false)) {
        WITH_QEMU_LOCK_GUARD(&fph_hints_lock) {
            h->ask_epoch = epoch;
            if (epoch == 1) {
                h->arm_ns = fph_now() - start;
                h->deadline = fph_now() + (int64_t)h->fs->pv_wait * SCALE_MS;
            }
        }
        trace_fph_hints_armed(epoch, fph_now() - start);
        qemu_bh_schedule(h->bh);

        /* The guest walks meanwhile */
        if (epoch == 1 && fph_source_asks_host(h->fs)) {
            fph_hints_all_chunks(h, epoch, true);
        }
    }
    if (epoch == 1) {
        QEMU_LOCK_GUARD(&fph_hints_lock);
        h->first_armed = true;
        qemu_cond_broadcast(&fph_hints_cond);
    }
}

/*
 * Applying
 */

typedef struct FphSlice {
    FphHints *h;
    FphBatch *batch;
    guint end;                  /* of what is applied at once */
    GArray *marked;             /* of FphRamRange, parts that are watched */
    bool late;
} FphSlice;

static int64_t fph_slice_apply(void *opaque)
{
    FphSlice *s = opaque;
    FphSource *fs = s->h->fs;
    FphBatch *batch = s->batch;
    struct fph_skip_sink sink;
    FphBlock *block = NULL;
    RAMBlock *rb = NULL;
    uint64_t cleared = 0;

    RCU_READ_LOCK_GUARD();
    QEMU_LOCK_GUARD(&fph_lock);

    /* A sync has begun: a page may be in use again, and the log cleared */
    if (fs->epoch != batch->epoch) {
        s->late = true;
        return 0;
    }
    fph_verify_marked(fs, &g_array_index(batch->ranges, FphRamRange, batch->next),
                      s->end - batch->next, s->marked);
    for (; batch->next < s->end; batch->next++) {
        FphRamRange *r = &g_array_index(batch->ranges, FphRamRange, batch->next);

        if (r->rb != rb) {
            rb = r->rb;
            block = fph_source_find_block(fs, rb);
            if (block && (!block->hints || !fph_rb_exists(rb) ||
                          (batch->zero_only && !fph_block_is_fresh(block)))) {
                block = NULL;
            }
            if (block) {
                sink = fph_block_sink(block, rb);
            }
        }
        if (block) {
            sink.cleared = 0;
            fph_skip_sink_fn(&sink, r->start, r->len, FPH_FREE);
            cleared += sink.cleared;
        }
    }
    return cleared;
}

static void fph_hints_apply(FphHints *h, FphBatch *batch)
{
    g_autoptr(GArray) marked = g_array_new(false, false, sizeof(FphRamRange));
    FphSlice s = { .h = h, .batch = batch, .marked = marked };
    int64_t start;

    g_usleep(h->fs->pv_delay * 1000);
    start = fph_now();
    while (!s.late && batch->next < batch->ranges->len) {
        s.end = MIN(batch->ranges->len, batch->next + FPH_HINTS_AT_ONCE);
        g_array_set_size(marked, 0);
        for (guint i = batch->next; i < s.end; i++) {
            fph_verify_mark(h->fs, &g_array_index(batch->ranges, FphRamRange, i),
                            marked);
        }
        ram_skip(fph_slice_apply, &s);
    }
    if (batch->end) {
        s.late = !fph_hints_is_current(h, batch->epoch);
    }

    QEMU_LOCK_GUARD(&fph_hints_lock);
    h->apply_ns += fph_now() - start;
    if (s.late) {
        h->stale += batch->frames;
    } else if (batch->end) {
        h->answers++;
        if (batch->epoch == 1) {
            h->latency_ns = fph_now() - h->asked_at;
            h->has_guest_figures = batch->frame.walk_ns != 0;
            h->guest_figures = batch->frame;
            fph_hints_settle(h, batch->frame.aborted ?
                                FPH_HINT_STATE_PARTIAL :
                                FPH_HINT_STATE_ANSWERED,
                             batch->frame.aborted ?
                                "the guest did not look at all of its memory" :
                                NULL);
        }
    }
    trace_fph_hints_applied(batch->epoch, batch->ranges->len, s.late,
                            fph_now() - start);
}

static FphBatch *fph_hints_pop(FphHints *h)
{
    FphBatch *batch = g_queue_pop_head(&h->batches);

    if (batch) {
        h->queued -= batch->ranges->len;
        if (h->full && h->queued <= FPH_HINTS_QUEUE_MAX / 2) {
            qemu_bh_schedule(h->bh);
        }
    }
    return batch;
}

static void *fph_hints_thread(void *opaque)
{
    FphHints *h = opaque;
    unsigned int epoch;
    FphBatch *batch;

    rcu_register_thread();
    qemu_mutex_lock(&fph_hints_lock);
    while (!h->quit) {
        epoch = h->arm_epoch;
        h->arm_epoch = 0;
        batch = epoch ? NULL : fph_hints_pop(h);
        if (!epoch && !batch) {
            qemu_cond_wait(&fph_hints_cond, &fph_hints_lock);
            continue;
        }
        qemu_mutex_unlock(&fph_hints_lock);
        if (epoch) {
            fph_hints_arm(h, epoch);
        } else {
            fph_hints_apply(h, batch);
            fph_batch_free(batch);
        }
        qemu_mutex_lock(&fph_hints_lock);
    }
    qemu_mutex_unlock(&fph_hints_lock);
    rcu_unregister_thread();
    return NULL;
}

/*
 * Asking
 */

uint64_t fph_ram_pages(void)
{
    uint64_t bytes = 0;
    RAMBlock *rb;

    RCU_READ_LOCK_GUARD();
    RAMBLOCK_FOREACH(rb) {
        bytes += qemu_ram_get_used_length(rb);
    }
    return bytes >> VIRTIO_FPH_PFN_SHIFT;
}

static void fph_hints_ask(FphHints *h, unsigned int epoch)
{
    FphHinterClass *hc = FPH_HINTER_GET_CLASS(h->hinter);
    const char *why = NULL;
    uint32_t traits = 0;

    if (!runstate_is_running()) {
        why = "the VM is paused";
    } else if (hc->ready(h->hinter, &traits, &why)) {
        if (traits & FPH_GUEST_PAGE_POISON) {
            why = "the guest poisons free pages, and checks them (page_poison)";
        }
    }

    WITH_QEMU_LOCK_GUARD(&fph_hints_lock) {
        if (why) {
            fph_hints_settle(h, FPH_HINT_STATE_FAILED, why);
            return;
        }
        /* Zero is known to be at the destination as long as nothing was sent */
        h->zero_only = traits & FPH_GUEST_INIT_ON_FREE;
        if (h->zero_only && epoch != 1) {
            return;
        }
        h->open_epoch = epoch;
        h->requests++;
        if (epoch == 1) {
            h->state = FPH_HINT_STATE_REQUESTED;
            h->asked_at = fph_now();
        }
    }
    trace_fph_hints_ask(h->device, epoch);
    hc->request(h->hinter, fph_ram_pages());
}

/* In the main loop, under the BQL */
static void fph_hints_bh(void *opaque)
{
    FphHints *h = opaque;
    unsigned int epoch;
    bool resume;

    WITH_QEMU_LOCK_GUARD(&fph_hints_lock) {
        epoch = h->ask_epoch;
        h->ask_epoch = 0;
        resume = h->full && h->queued <= FPH_HINTS_QUEUE_MAX / 2;
        if (resume) {
            h->full = false;
        }
    }
    if (epoch && epoch == h->fs->epoch) {
        fph_hints_ask(h, epoch);
    }
    if (resume) {
        FPH_HINTER_GET_CLASS(h->hinter)->resume(h->hinter);
    }
}

/*
 * What hinters call
 */

bool fph_source_hints_full(void)
{
    QEMU_LOCK_GUARD(&fph_hints_lock);

    if (!fph_hints || fph_hints->queued < FPH_HINTS_QUEUE_MAX) {
        return false;
    }
    fph_hints->full = true;
    return true;
}

/* Adds the parts of guest-physical @range; false if any of it is not RAM */
static bool fph_hints_translate(GArray *ranges, const FphHintRange *range,
                                MemoryRegionSection *mrs)
{
    hwaddr addr = range->start;
    uint64_t left = range->len;

    while (left) {
        hwaddr offset = addr - mrs->offset_within_address_space;
        FphRamRange r;

        if (!mrs->mr || addr < mrs->offset_within_address_space ||
            int128_ge(int128_make64(offset), mrs->size)) {
            if (mrs->mr) {
                memory_region_unref(mrs->mr);
            }
            /* To its end, since the next range is likely to be in it as well */
            *mrs = memory_region_find(get_system_memory(), addr,
                                      UINT64_MAX - addr);
            if (!mrs->mr || mrs->offset_within_address_space != addr) {
                return false;
            }
            offset = 0;
        }
        if (!memory_region_is_ram(mrs->mr) || mrs->readonly ||
            !mrs->mr->ram_block) {
            return false;
        }
        r = (FphRamRange) {
            .rb = mrs->mr->ram_block,
            .start = mrs->offset_within_region + offset,
            .len = MIN(left, int128_get64(mrs->size) - offset),
        };
        g_array_append_val(ranges, r);
        addr += r.len;
        left -= r.len;
    }
    return true;
}

/*
 * Adds to the answer, unless it is not wanted any more; fph_hints_lock is held.
 * What the thread has not got to yet grows: it may wait long for the bitmap
 * mutex, and should do so for many ranges at once.
 */
static void fph_hints_push(FphHints *h, const FphRamRange *ranges, guint n,
                           const struct fph_hint_frame *end)
{
    FphBatch *batch = g_queue_peek_tail(&h->batches);

    if (!h->open_epoch) {
        return;
    }
    if (!batch || batch->epoch != h->open_epoch ||
        batch->zero_only != h->zero_only || batch->end || end) {
        batch = g_new0(FphBatch, 1);
        batch->epoch = h->open_epoch;
        batch->zero_only = h->zero_only;
        batch->ranges = g_array_new(false, false, sizeof(FphRamRange));
        g_queue_push_tail(&h->batches, batch);
    }
    batch->frames++;
    if (end) {
        batch->end = true;
        batch->frame = *end;
        h->open_epoch = 0;
        h->full = false;
    }
    for (guint i = 0; i < n; i++) {
        g_array_append_val(batch->ranges, ranges[i]);
        h->free += ranges[i].len / qemu_target_page_size();
    }
    h->queued += n;
    qemu_cond_broadcast(&fph_hints_cond);
}

static FphHints *fph_hints_of(FphHinter *hinter)
{
    QEMU_LOCK_GUARD(&fph_hints_lock);
    return fph_hints && fph_hints->hinter == hinter ? fph_hints : NULL;
}

GArray *fph_ram_translate(const FphHintRange *ranges, size_t n)
{
    MemoryRegionSection mrs = { .mr = NULL };
    g_autoptr(GArray) parts = NULL;
    bool ok = true;

    parts = g_array_sized_new(false, false, sizeof(FphRamRange), n);
    for (size_t i = 0; ok && i < n; i++) {
        ok = fph_hints_translate(parts, &ranges[i], &mrs);
    }
    if (mrs.mr) {
        memory_region_unref(mrs.mr);
    }
    return ok ? g_steal_pointer(&parts) : NULL;
}

bool fph_source_hint(FphHinter *hinter, const FphHintRange *ranges, size_t n)
{
    g_autoptr(GArray) parts = fph_ram_translate(ranges, n);
    FphHints *h = fph_hints_of(hinter);

    if (parts && h) {
        QEMU_LOCK_GUARD(&fph_hints_lock);
        fph_hints_push(h, (FphRamRange *)parts->data, parts->len, NULL);
    }
    return parts;
}

void fph_source_hint_end(FphHinter *hinter, const struct fph_hint_frame *frame)
{
    FphHints *h = fph_hints_of(hinter);

    if (h) {
        QEMU_LOCK_GUARD(&fph_hints_lock);
        fph_hints_push(h, NULL, 0, frame);
    }
}

void fph_source_hint_failed(FphHinter *hinter, const char *why)
{
    FphHints *h = fph_hints_of(hinter);

    if (h) {
        QEMU_LOCK_GUARD(&fph_hints_lock);
        h->open_epoch = 0;
        h->full = false;        /* nobody waits, or is there to be told */
        fph_hints_settle(h, h->free ? FPH_HINT_STATE_PARTIAL :
                                      FPH_HINT_STATE_FAILED, why);
    }
}

void fph_source_hint_stale(FphHinter *hinter)
{
    FphHints *h = fph_hints_of(hinter);

    if (h) {
        QEMU_LOCK_GUARD(&fph_hints_lock);
        h->stale++;
    }
}

/* From the balloon's iothread, which nothing else keeps from outliving h */
bool fph_hints_free_page(void *addr, size_t len)
{
    /* A buffer of a virtqueue lies in one block; the sink heeds its end */
    FphRamRange r = { .len = len };
    FphHints *h;

    WITH_RCU_READ_LOCK_GUARD() {
        r.rb = qemu_ram_block_from_host(addr, false, &r.start);
    }

    QEMU_LOCK_GUARD(&fph_hints_lock);
    h = fph_hints;
    if (!h) {
        return false;
    }
    if (h->transport != FPH_TRANSPORT_VIRTIO_BALLOON || !h->open_epoch ||
        h->queued >= FPH_HINTS_QUEUE_MAX) {
        h->stale++;
    } else if (r.rb) {
        fph_hints_push(h, &r, 1, NULL);
    }
    return true;
}

/*
 * The course of a migration
 */

/* What the user or the machine offers, best first */
typedef struct FphCandidates {
    Object *fph;
    Object *balloon;
} FphCandidates;

static int fph_find_candidate(Object *obj, void *opaque)
{
    FphCandidates *c = opaque;

    if (!c->fph && object_dynamic_cast(obj, TYPE_VIRTIO_FPH)) {
        c->fph = obj;
    } else if (!c->balloon && object_dynamic_cast(obj, TYPE_VIRTIO_BALLOON)) {
        c->balloon = obj;
    }
    return 0;
}

static bool fph_hinter_is_ready(FphHinter *hinter)
{
    const char *why;
    uint32_t traits;

    return FPH_HINTER_GET_CLASS(hinter)->ready(hinter, &traits, &why);
}

/* A new reference, or NULL with the reason */
static FphHinter *fph_hints_find_hinter(FphHints *h, const char **why)
{
    const char *name = h->fs->pv_device;
    Object *where = object_get_root();
    FphHinter *fph, *balloon;
    FphCandidates c = { };

    if (name) {
        where = object_resolve_path(name, NULL);
        if (!where) {
            *why = "there is no device of the name that pv-device gives";
            return NULL;
        }
        fph_find_candidate(where, &c);
    }
    object_child_foreach_recursive(where, fph_find_candidate, &c);

    fph = c.fph ? FPH_HINTER(object_ref(c.fph)) : NULL;
    if (fph && (!c.balloon || fph_hinter_is_ready(fph))) {
        return fph;
    }
    balloon = c.balloon ? fph_balloon_new(c.balloon) : NULL;
    if (fph && balloon && !fph_hinter_is_ready(balloon)) {
        object_unref(OBJECT(balloon));
        return fph;
    }
    if (balloon) {
        if (fph) {
            object_unref(OBJECT(fph));
        }
        return balloon;
    }
    if (!fph) {
        *why = name ? "pv-device is no virtio-fph device, and no balloon with "
                      "free-page-hint=on" :
                      "there is no virtio-fph device, and no balloon with "
                      "free-page-hint=on";
    }
    return fph;
}

/*
 * A virtio device is known by the name of its proxy, and lies inside of it:
 * only a reference to the proxy keeps the memory of both if they are unplugged
 */
static DeviceState *fph_device_proxy(DeviceState *dev)
{
    return dev->parent_bus ? dev->parent_bus->parent : dev;
}

static char *fph_device_name(DeviceState *proxy)
{
    return proxy->id ? g_strdup(proxy->id) :
                       object_get_canonical_path(OBJECT(proxy));
}

const char *fph_hints_reset(FphHints *h)
{
    const char *why = NULL;
    DeviceState *proxy;

    h->hinter = fph_hints_find_hinter(h, &why);
    g_clear_pointer(&h->device, g_free);
    h->has_transport = h->hinter;
    if (h->hinter) {
        h->transport = FPH_HINTER_GET_CLASS(h->hinter)->transport;
        proxy = fph_device_proxy(h->transport == FPH_TRANSPORT_VIRTIO_FPH ?
                                 DEVICE(h->hinter) :
                                 fph_balloon_device(h->hinter));
        h->proxy = object_ref(OBJECT(proxy));
        h->device = fph_device_name(proxy);
    }

    QEMU_LOCK_GUARD(&fph_hints_lock);
    h->quit = h->zero_only = h->full = false;
    h->first_armed = h->gate_open = h->has_guest_figures = false;
    h->arm_epoch = h->ask_epoch = h->open_epoch = 0;
    h->deadline = h->held_since = h->asked_at = 0;
    h->requests = h->answers = h->stale = h->free = 0;
    h->arm_ns = h->latency_ns = h->apply_ns = h->wait_ns = 0;
    h->state = FPH_HINT_STATE_IDLE;
    g_clear_pointer(&h->reason, g_free);
    if (why) {
        fph_hints_settle(h, FPH_HINT_STATE_FAILED, why);
    }
    return why;
}

void fph_hints_open(FphHints *h)
{
    /* In the end nobody can be asked, but a paused VM has absent pages too */
    if (!h->hinter || (h->fs->epoch != 1 && !runstate_is_running())) {
        return;
    }
    if (!h->bh) {
        h->bh = qemu_bh_new(fph_hints_bh, h);
        qemu_thread_create(&h->thread, "fph-hints", fph_hints_thread, h,
                           QEMU_THREAD_JOINABLE);
    }
    QEMU_LOCK_GUARD(&fph_hints_lock);
    fph_hints = h;
    h->arm_epoch = h->fs->epoch;
    qemu_cond_broadcast(&fph_hints_cond);
}

void fph_hints_close(FphHints *h, const char *why)
{
    bool open;

    WITH_QEMU_LOCK_GUARD(&fph_hints_lock) {
        open = h->open_epoch;
        h->arm_epoch = h->ask_epoch = h->open_epoch = 0;
        h->full = false;
        h->first_armed = true;
        fph_hints_settle(h, h->free ? FPH_HINT_STATE_PARTIAL :
                                      FPH_HINT_STATE_FAILED, why);
    }
    if (open) {
        FPH_HINTER_GET_CLASS(h->hinter)->stop(h->hinter);
    }
}

void fph_hints_end(FphHints *h)
{
    FphBatch *batch;

    fph_hints_close(h, "the migration ended before the whole answer came");
    WITH_QEMU_LOCK_GUARD(&fph_hints_lock) {
        fph_hints = NULL;
        h->quit = true;
        qemu_cond_broadcast(&fph_hints_cond);
    }
    if (h->bh) {
        qemu_thread_join(&h->thread);
        qemu_bh_delete(h->bh);
        h->bh = NULL;
    }
    while ((batch = g_queue_pop_head(&h->batches))) {
        fph_batch_free(batch);
    }
    h->queued = 0;
    if (h->hinter) {
        object_unref(OBJECT(h->hinter));
        h->hinter = NULL;
        object_unref(h->proxy);
        h->proxy = NULL;
    }
}

bool fph_hints_defer(FphHints *h)
{
    return h->hinter && runstate_is_running();
}

/* In the migration thread, which may run on when the object is gone */
bool fph_hints_hold_back(void)
{
    int64_t now = fph_now();
    FphHints *h;

    QEMU_LOCK_GUARD(&fph_hints_lock);
    h = fph_hints;
    if (!h || h->gate_open) {
        return false;
    }
    if (!h->held_since) {
        h->held_since = now;
    }
    if (h->first_armed && (now >= h->deadline ||
                           (h->state != FPH_HINT_STATE_IDLE &&
                            h->state != FPH_HINT_STATE_REQUESTED))) {
        h->gate_open = true;
        h->wait_ns = now - h->held_since;
        trace_fph_hints_wait(h->wait_ns, FphHintState_str(h->state));
        return false;
    }
    qemu_cond_timedwait(&fph_hints_cond, &fph_hints_lock, FPH_HINTS_POLL_MS);
    return true;
}

FphHintInfo *fph_hints_query(FphHints *h)
{
    FphHintInfo *info = g_new0(FphHintInfo, 1);

    QEMU_LOCK_GUARD(&fph_hints_lock);
    info->state = h->state;
    info->reason = g_strdup(h->reason);
    info->has_transport = h->has_transport;
    info->transport = h->transport;
    info->device = g_strdup(h->device);
    info->requests = h->requests;
    info->answers = h->answers;
    info->stale = h->stale;
    info->free = h->free;
    info->arm_ns = h->arm_ns;
    info->latency_ns = h->latency_ns;
    info->apply_ns = h->apply_ns;
    info->wait_ns = h->wait_ns;
    if (h->has_guest_figures) {
        info->walk = g_strdup(h->guest_figures.walk == VIRTIO_FPH_WALK_PFN ?
                              "pfn" :
                              h->guest_figures.walk == VIRTIO_FPH_WALK_LIST ?
                              "list" : "unknown");
        info->has_walk_ns = true;
        info->walk_ns = h->guest_figures.walk_ns;
        info->has_lock_ns = true;
        info->lock_ns = h->guest_figures.lock_ns;
        info->has_guest_pages = true;
        info->guest_pages = h->guest_figures.guest_pages;
        info->has_guest_entries = true;
        info->guest_entries = h->guest_figures.guest_entries;
    }
    return info;
}

FphHints *fph_hints_new(FphSource *fs)
{
    FphHints *h = g_new0(FphHints, 1);

    h->fs = fs;
    g_queue_init(&h->batches);
    return h;
}

void fph_hints_free(FphHints *h)
{
    if (h) {
        g_free(h->device);
        g_free(h->reason);
        g_free(h);
    }
}

static const TypeInfo fph_hinter_info = {
    .name = TYPE_FPH_HINTER,
    .parent = TYPE_INTERFACE,
    .class_size = sizeof(FphHinterClass),
};

static void fph_hints_register_types(void)
{
    qemu_mutex_init(&fph_hints_lock);
    qemu_cond_init(&fph_hints_cond);
    type_register_static(&fph_hinter_info);
}

type_init(fph_hints_register_types);

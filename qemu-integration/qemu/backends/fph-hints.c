/*
 * fph-source: pages that the guest says are free
 *
 * When all dirty logs were cleared after a bitmap sync, the guest is asked what
 * is free.  What it answers waits here until fph-source's thread takes it, and
 * is void when the next sync begins.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/rcu.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "exec/target_page.h"
#include "hw/virtio/virtio-fph.h"
#include "system/fph-compat.h"
#include "system/runstate.h"
#include FPH_QDEV_H
#include "trace.h"

#include "fph-hints.h"

#include <fph/virtio-fph.h>

/* Ranges that may wait for the thread before the device has to */
#define FPH_HINTS_QUEUE_MAX (64 * KiB)

struct FphHints {
    FphConfig *config;
    void (*wake)(void);

    /* Protected by the BQL */
    bool used;                  /* a migration has begun */
    FphHinter *hinter;          /* NULL between migrations */
    Object *proxy;              /* of its device */
    bool has_transport;
    FphTransport transport;
    char *device;

    /* Protected by fph_hints_lock */
    QEMUBH *bh;                 /* NULL between migrations */
    uint64_t token;             /* of the request that may come, or 0 */
    uint64_t ask_token;         /* the bottom half shall ask, or 0 */
    uint64_t open_token;        /* of the request that is open, or 0 */
    bool first;                 /* the one to be asked, or open, is the first */
    bool zero_only;             /* of the request that is open */
    GQueue batches;
    guint queued;               /* ranges in @batches */
    bool full;                  /* the hinter was told to wait */

    FphHintState state;         /* of the first request */
    char *reason;
    int64_t asked_at;
    bool has_guest_figures;
    struct fph_hint_frame guest_figures;
    uint64_t requests, answers, stale, free;
    uint64_t arm_ns, latency_ns, apply_ns, wait_ns;
};

/*
 * The innermost lock.  Static, because the balloon's iothread takes it when
 * there may be nobody to give hints to.
 */
static QemuMutex fph_hints_lock;
static FphHints *fph_hints;     /* of the migration under way */

static int64_t fph_now(void)
{
    return qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
}

void fph_batch_free(FphBatch *batch)
{
    g_array_unref(batch->ranges);
    g_free(batch);
}

/* The first request has ended; fph_hints_lock is held, wake up after */
static void fph_hints_settle(FphHints *h, FphHintState state, const char *why)
{
    if (h->state != FPH_HINT_STATE_IDLE &&
        h->state != FPH_HINT_STATE_REQUESTED) {
        return;
    }
    h->state = state;
    g_free(h->reason);
    h->reason = g_strdup(why);
    trace_fph_hints_settled(FphHintState_str(state), why ?: "");
}

/*
 * For the thread of fph-source
 */

FphBatch *fph_hints_pop(FphHints *h)
{
    FphBatch *batch;

    QEMU_LOCK_GUARD(&fph_hints_lock);
    batch = g_queue_pop_head(&h->batches);
    if (batch) {
        h->queued -= batch->ranges->len;
        if (h->full && h->queued <= FPH_HINTS_QUEUE_MAX / 2 && h->bh) {
            qemu_bh_schedule(h->bh);
        }
    }
    return batch;
}

void fph_hints_applied(FphHints *h, const FphBatch *batch, bool late,
                       uint64_t ns)
{
    WITH_QEMU_LOCK_GUARD(&fph_hints_lock) {
        h->apply_ns += ns;
        if (late) {
            h->stale += batch->frames;
        } else if (batch->end) {
            h->answers++;
        }
        if (!late && batch->end && batch->first) {
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
    h->wake();
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

/* Why @hinter would not be asked now, or NULL and the guest's traits */
static const char *fph_hinter_refuse(FphHinter *hinter, uint32_t *traits)
{
    const char *why = NULL;

    if (!runstate_is_running()) {
        return "the VM is paused";
    }
    if (!FPH_HINTER_GET_CLASS(hinter)->ready(hinter, traits, &why)) {
        return why;
    }
    if (*traits & FPH_GUEST_PAGE_POISON) {
        return "the guest poisons free pages, and checks them (page_poison)";
    }
    return NULL;
}

static void fph_hints_request(FphHints *h, uint64_t token, bool first)
{
    uint32_t traits = 0;
    const char *why = fph_hinter_refuse(h->hinter, &traits);

    if (why) {
        WITH_QEMU_LOCK_GUARD(&fph_hints_lock) {
            fph_hints_settle(h, FPH_HINT_STATE_FAILED, why);
        }
        h->wake();
        return;
    }
    WITH_QEMU_LOCK_GUARD(&fph_hints_lock) {
        /* Zero is known to be at the destination as long as nothing was sent */
        h->zero_only = traits & FPH_GUEST_INIT_ON_FREE;
        if (h->zero_only && !first) {
            return;
        }
        h->open_token = token;
        h->first = first;
        h->requests++;
        if (first) {
            h->state = FPH_HINT_STATE_REQUESTED;
            h->asked_at = fph_now();
        }
    }
    trace_fph_hints_ask(h->device, token);
    FPH_HINTER_GET_CLASS(h->hinter)->request(h->hinter, fph_ram_pages());
}

/* In the main loop, under the BQL */
static void fph_hints_bh(void *opaque)
{
    FphHints *h = opaque;
    uint64_t token;
    bool first, resume;

    WITH_QEMU_LOCK_GUARD(&fph_hints_lock) {
        token = h->ask_token;
        first = h->first;
        h->ask_token = 0;
        resume = h->full && h->queued <= FPH_HINTS_QUEUE_MAX / 2;
        if (resume) {
            h->full = false;
        }
    }
    if (token) {
        fph_hints_request(h, token, first);
    }
    if (resume) {
        FPH_HINTER_GET_CLASS(h->hinter)->resume(h->hinter);
    }
}

void fph_hints_ask(FphHints *h, uint64_t token, bool first, uint64_t arm_ns)
{
    QEMU_LOCK_GUARD(&fph_hints_lock);
    /* Closed again, and maybe open for the next sync */
    if (!h->bh || h->token != token) {
        return;
    }
    if (first) {
        h->arm_ns = arm_ns;
    }
    h->first = first;
    h->ask_token = token;
    qemu_bh_schedule(h->bh);
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

#define FPH_PFN_PAGE (UINT64_C(1) << VIRTIO_FPH_PFN_SHIFT)

/* Adds the parts of guest-physical @range; returns how much of it is not RAM */
static uint64_t fph_hints_translate(GArray *ranges, const FphHintRange *range,
                                    MemoryRegionSection *mrs)
{
    hwaddr addr = range->start;
    uint64_t left = range->len;
    uint64_t unknown = 0;

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
            if (!mrs->mr) {
                return unknown + left;
            }
            offset = 0;
            if (mrs->offset_within_address_space != addr) {
                uint64_t gap = MIN(left,
                                   mrs->offset_within_address_space - addr);

                addr += gap;
                left -= gap;
                unknown += gap;
                continue;
            }
        }
        r = (FphRamRange) {
            .rb = mrs->mr->ram_block,
            .start = mrs->offset_within_region + offset,
            .len = MIN(left, int128_get64(mrs->size) - offset),
        };
        addr += r.len;
        left -= r.len;
        if (memory_region_is_ram(mrs->mr) && !mrs->readonly && r.rb) {
            /* A page of which registers are a part (tpm-crb) is none */
            uint64_t head = -r.start & (FPH_PFN_PAGE - 1), all = r.len;

            r.start += head;
            r.len = all > head ? (all - head) & -FPH_PFN_PAGE : 0;
            unknown += all - r.len;
            if (r.len) {
                g_array_append_val(ranges, r);
            }
        } else {
            unknown += r.len;
        }
    }
    return unknown;
}

/*
 * Adds to the answer, unless it is not wanted any more; fph_hints_lock is held,
 * wake up after.  What the thread has not got to yet grows: it may wait long
 * for the bitmap mutex, and should do so for many ranges at once.
 */
static void fph_hints_push(FphHints *h, const FphRamRange *ranges, guint n,
                           const struct fph_hint_frame *end)
{
    FphBatch *batch = g_queue_peek_tail(&h->batches);

    if (!h->open_token) {
        return;
    }
    if (!batch || batch->token != h->open_token ||
        batch->zero_only != h->zero_only || batch->end || end) {
        batch = g_new0(FphBatch, 1);
        batch->token = h->open_token;
        batch->first = h->first;
        batch->zero_only = h->zero_only;
        batch->ranges = g_array_new(false, false, sizeof(FphRamRange));
        g_queue_push_tail(&h->batches, batch);
    }
    batch->frames++;
    if (end) {
        batch->end = true;
        batch->frame = *end;
        h->open_token = 0;
        h->full = false;
    }
    for (guint i = 0; i < n; i++) {
        g_array_append_val(batch->ranges, ranges[i]);
        h->free += ranges[i].len / qemu_target_page_size();
    }
    h->queued += n;
}

static FphHints *fph_hints_of(FphHinter *hinter)
{
    QEMU_LOCK_GUARD(&fph_hints_lock);
    return fph_hints && fph_hints->hinter == hinter ? fph_hints : NULL;
}

GArray *fph_ram_translate(const FphHintRange *ranges, size_t n,
                          uint64_t *unknown)
{
    MemoryRegionSection mrs = { .mr = NULL };
    GArray *parts = g_array_sized_new(false, false, sizeof(FphRamRange), n);

    for (size_t i = 0; i < n; i++) {
        *unknown += fph_hints_translate(parts, &ranges[i], &mrs) >>
                    VIRTIO_FPH_PFN_SHIFT;
    }
    if (mrs.mr) {
        memory_region_unref(mrs.mr);
    }
    return parts;
}

uint64_t fph_source_hint(FphHinter *hinter, const FphHintRange *ranges,
                         size_t n)
{
    uint64_t unknown = 0;
    g_autoptr(GArray) parts = fph_ram_translate(ranges, n, &unknown);
    FphHints *h = fph_hints_of(hinter);

    if (h) {
        WITH_QEMU_LOCK_GUARD(&fph_hints_lock) {
            fph_hints_push(h, (FphRamRange *)parts->data, parts->len, NULL);
        }
        h->wake();
    }
    return unknown;
}

void fph_source_hint_end(FphHinter *hinter, const struct fph_hint_frame *frame)
{
    FphHints *h = fph_hints_of(hinter);

    if (h) {
        WITH_QEMU_LOCK_GUARD(&fph_hints_lock) {
            fph_hints_push(h, NULL, 0, frame);
        }
        h->wake();
    }
}

void fph_source_hint_failed(FphHinter *hinter, const char *why)
{
    FphHints *h = fph_hints_of(hinter);

    if (h) {
        WITH_QEMU_LOCK_GUARD(&fph_hints_lock) {
            h->open_token = 0;
            h->full = false;    /* nobody waits, or is there to be told */
            fph_hints_settle(h, h->free ? FPH_HINT_STATE_PARTIAL :
                                          FPH_HINT_STATE_FAILED, why);
        }
        h->wake();
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
    void (*wake)(void);
    FphHints *h;

    WITH_RCU_READ_LOCK_GUARD() {
        r.rb = qemu_ram_block_from_host(addr, false, &r.start);
    }

    WITH_QEMU_LOCK_GUARD(&fph_hints_lock) {
        h = fph_hints;
        if (!h) {
            return false;
        }
        if (h->transport != FPH_TRANSPORT_VIRTIO_BALLOON || !h->open_token ||
            h->queued >= FPH_HINTS_QUEUE_MAX) {
            h->stale++;
        } else if (r.rb) {
            fph_hints_push(h, &r, 1, NULL);
        }
        wake = h->wake;
    }
    wake();
    return true;
}

/*
 * The course of a migration
 */

static struct {
    const char *type;
    FphHinter *(*adapt)(Object *device);
} fph_adapter;                  /* set while types are registered */

void fph_hinter_add_adapter(const char *type,
                            FphHinter *(*adapt)(Object *device))
{
    fph_adapter.type = type;
    fph_adapter.adapt = adapt;
}

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
    } else if (!c->balloon && fph_adapter.adapt &&
               object_dynamic_cast(obj, fph_adapter.type)) {
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
    const char *name = h->config->pv_device;
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
    balloon = c.balloon ? fph_adapter.adapt(c.balloon) : NULL;
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

    h->used = true;
    h->hinter = fph_hints_find_hinter(h, &why);
    g_clear_pointer(&h->device, g_free);
    h->has_transport = h->hinter;
    if (h->hinter) {
        FphHinterClass *hc = FPH_HINTER_GET_CLASS(h->hinter);

        h->transport = hc->transport;
        proxy = fph_device_proxy(hc->device(h->hinter));
        h->proxy = object_ref(OBJECT(proxy));
        h->device = fph_device_name(proxy);
    }

    QEMU_LOCK_GUARD(&fph_hints_lock);
    h->zero_only = h->full = h->has_guest_figures = false;
    h->token = h->ask_token = h->open_token = 0;
    h->asked_at = 0;
    h->requests = h->answers = h->stale = h->free = 0;
    h->arm_ns = h->latency_ns = h->apply_ns = h->wait_ns = 0;
    h->state = FPH_HINT_STATE_IDLE;
    g_clear_pointer(&h->reason, g_free);
    if (why) {
        fph_hints_settle(h, FPH_HINT_STATE_FAILED, why);
    } else {
        h->bh = qemu_bh_new(fph_hints_bh, h);
        fph_hints = h;
    }
    return why;
}

bool fph_hints_have_hinter(FphHints *h)
{
    return h->hinter;
}

bool fph_hints_defer(FphHints *h)
{
    return h->hinter && runstate_is_running();
}

void fph_hints_open(FphHints *h, uint64_t token)
{
    QEMU_LOCK_GUARD(&fph_hints_lock);
    h->token = token;
}

void fph_hints_close(FphHints *h, const char *why)
{
    bool open;

    WITH_QEMU_LOCK_GUARD(&fph_hints_lock) {
        open = h->open_token;
        h->token = h->ask_token = h->open_token = 0;
        h->full = false;
        fph_hints_settle(h, h->free ? FPH_HINT_STATE_PARTIAL :
                                      FPH_HINT_STATE_FAILED, why);
    }
    if (open) {
        FPH_HINTER_GET_CLASS(h->hinter)->stop(h->hinter);
    }
    h->wake();
}

void fph_hints_end(FphHints *h)
{
    FphBatch *batch;

    fph_hints_close(h, "the migration ended before the whole answer came");
    WITH_QEMU_LOCK_GUARD(&fph_hints_lock) {
        fph_hints = NULL;
        g_clear_pointer(&h->bh, qemu_bh_delete);
        while ((batch = g_queue_pop_head(&h->batches))) {
            fph_batch_free(batch);
        }
        h->queued = 0;
    }
    if (h->hinter) {
        object_unref(OBJECT(h->hinter));
        h->hinter = NULL;
        object_unref(h->proxy);
        h->proxy = NULL;
    }
}

bool fph_hints_is_settled(FphHints *h)
{
    QEMU_LOCK_GUARD(&fph_hints_lock);
    return h->state != FPH_HINT_STATE_IDLE &&
           h->state != FPH_HINT_STATE_REQUESTED;
}

void fph_hints_waited(FphHints *h, uint64_t ns)
{
    QEMU_LOCK_GUARD(&fph_hints_lock);
    h->wait_ns = ns;
    trace_fph_hints_wait(ns, FphHintState_str(h->state));
}

/* Before the first migration: what one that began now would do */
static FphHintInfo *fph_hints_foresee(FphHints *h)
{
    FphHintInfo *info = g_new0(FphHintInfo, 1);
    const char *why = NULL;
    FphHinter *hinter = fph_hints_find_hinter(h, &why);
    uint32_t traits;

    info->state = FPH_HINT_STATE_IDLE;
    if (hinter) {
        FphHinterClass *hc = FPH_HINTER_GET_CLASS(hinter);

        info->has_transport = true;
        info->transport = hc->transport;
        info->device = fph_device_name(fph_device_proxy(hc->device(hinter)));
        why = fph_hinter_refuse(hinter, &traits);
        object_unref(OBJECT(hinter));
    }
    info->reason = g_strdup(why);
    return info;
}

FphHintInfo *fph_hints_query(FphHints *h)
{
    FphHintInfo *info;

    if (!h->used) {
        return fph_hints_foresee(h);
    }

    info = g_new0(FphHintInfo, 1);
    info->has_transport = h->has_transport;
    info->transport = h->transport;
    info->device = g_strdup(h->device);

    QEMU_LOCK_GUARD(&fph_hints_lock);
    info->state = h->state;
    info->reason = g_strdup(h->reason);
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

FphHints *fph_hints_new(FphConfig *config, void (*wake)(void))
{
    FphHints *h = g_new0(FphHints, 1);

    h->config = fph_config_ref(config);
    h->wake = wake;
    g_queue_init(&h->batches);
    return h;
}

void fph_hints_free(FphHints *h)
{
    if (h) {
        fph_config_unref(h->config);
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
    type_register_static(&fph_hinter_info);
}

type_init(fph_hints_register_types);

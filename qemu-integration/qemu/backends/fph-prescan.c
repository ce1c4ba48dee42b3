/*
 * fph-source: pages that hold only zeroes, found before anyone migrates
 *
 * A thread of low priority looks for them.  A page that looks like zero is
 * write-protected with userfaultfd, in the way that stops nobody, and then
 * read: from there on it is known to be zero until it is written, which is
 * asked before anything is left out, and in each pass.  What is not zero is
 * left as it is, because protection costs the guest a fault and splits huge
 * pages; so it is looked at again in the next pass.
 *
 * A device can write to a page by another way than the page tables, if it was
 * given the page before it was protected: a read from a disk with O_DIRECT
 * that is under way.  When it has ended, QEMU unmaps the page, and tells us.
 * Devices that keep pages for longer (VFIO) rule the search out.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/resource.h>
#include "qemu/bitmap.h"
#include "qemu/cutils.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qemu/rcu.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "exec/memory.h"
#include "hw/boards.h"
#include "hw/core/cpu.h"
#include "hw/qdev-core.h"
#include "migration/misc.h"
#include "migration/ram-skip.h"
#include "system/kvm.h"
#include "system/runstate.h"
#include "system/xen.h"
#include "trace.h"
#include "fph-source.h"

/* Bytes that are looked at without a rest, or a look at who waits */
#define FPH_PRESCAN_STEP (16 * MiB)

/*
 * Small pages that are zero are worth the protection if there are so many in a
 * row: one that is protected keeps a huge page from being made.
 */
#define FPH_PRESCAN_MIN_RUN 16

/*
 * Between two passes: as long as the last one took, within limits.  The first
 * pass takes longest, and the second has nearly nothing to do.
 */
#define FPH_PRESCAN_REST_MS 1000
#define FPH_PRESCAN_REST_MAX_MS 10000

/* After somebody else wanted userfaultfd, or it was not possible */
#define FPH_PRESCAN_ASIDE_MS 3000

/* The start of a page, and its end, before all of it is read */
#define FPH_PRESCAN_GLANCE 64

typedef struct FphPrescanBlock {
    RAMBlock *rb;               /* not used but to compare */
    struct fph_region region;
    unsigned long *zero;        /* host pages; atomic */
    uint64_t npages;
} FphPrescanBlock;

struct FphPrescan {
    FphSource *fs;
    uint64_t page_size;         /* the host's */
    uint64_t huge_size;

    /* Protected by the BQL */
    QEMUTimer *timer;
    QEMUBH *bh;                 /* a pass has ended */
    DeviceListener device_listener;
    FphPrescanState state;
    const char *reason;         /* static, if @state is aside */
    bool held;                  /* a migration is under way */
    int64_t pass_began;

    QemuThread thread;

    /* Protected by fph_prescan_lock */
    bool quit;
    bool stop;                  /* the pass that is under way */
    bool busy;                  /* a pass is under way */
    uint64_t passes;
    uint64_t cpu_ns;
    /*
     * Written under the BQL, fph_lock and fph_prescan_lock, while no pass is
     * under way
     */
    GPtrArray *blocks;          /* of FphPrescanBlock */

    /* Written by the thread alone, or while it rests */
    Stat64 checked;             /* pages that were read as a whole */
    Stat64 written;             /* pages that were zero, and written */
};

/* Static, because devices may call while the object goes */
static QemuMutex fph_prescan_lock;
static QemuCond fph_prescan_cond;
static FphPrescan *fph_prescan;

static void fph_prescan_block_free(gpointer opaque)
{
    FphPrescanBlock *b = opaque;

    g_free(b->zero);
    g_free(b);
}

/* @rb exists, maybe where another block was when @b was made */
static bool fph_prescan_is_of(const FphPrescanBlock *b, RAMBlock *rb)
{
    return rb == b->rb && qemu_ram_get_host_addr(rb) == b->region.host &&
           qemu_ram_get_used_length(rb) == b->region.used;
}

static FphPrescanBlock *fph_prescan_find(FphPrescan *p, RAMBlock *rb)
{
    for (guint i = 0; i < p->blocks->len; i++) {
        FphPrescanBlock *b = g_ptr_array_index(p->blocks, i);

        if (b->rb == rb) {
            return b;
        }
    }
    return NULL;
}

/*
 * The thread
 */

typedef struct FphPrescanRun {
    uint64_t start;             /* host pages */
    uint64_t n;
} FphPrescanRun;

typedef struct FphPrescanStep {
    FphPrescan *p;
    FphPrescanBlock *b;
    GArray *runs;               /* of FphPrescanRun, that look like zero */
} FphPrescanStep;

static uint8_t *fph_prescan_page(FphPrescan *p, FphPrescanBlock *b,
                                 uint64_t page)
{
    return (uint8_t *)b->region.host + page * p->page_size;
}

static bool fph_looks_zero(FphPrescan *p, FphPrescanBlock *b, uint64_t page)
{
    uint8_t *start = fph_prescan_page(p, b, page);

    return buffer_is_zero(start, FPH_PRESCAN_GLANCE) &&
           buffer_is_zero(start + p->page_size - FPH_PRESCAN_GLANCE,
                          FPH_PRESCAN_GLANCE);
}

/* First page in [page, end) that does not look like zero, or @end */
static uint64_t fph_looks_zero_until(FphPrescan *p, FphPrescanBlock *b,
                                     uint64_t page, uint64_t end)
{
    while (page < end && fph_looks_zero(p, b, page)) {
        page++;
    }
    return page;
}

static void fph_prescan_add_run(FphPrescanStep *s, uint64_t start, uint64_t end)
{
    FphPrescanRun run = { .start = start, .n = end - start };

    g_array_append_val(s->runs, run);
}

/* Only as a whole, because it would be split */
static void fph_prescan_huge(FphPrescanStep *s, uint64_t page, uint64_t end)
{
    uint64_t n = s->p->huge_size / s->p->page_size;
    uint64_t base = (uintptr_t)s->b->region.host / s->p->page_size;

    for (page = ROUND_UP(base + page, n) - base; page + n <= end; page += n) {
        if (fph_looks_zero_until(s->p, s->b, page, page + n) == page + n) {
            fph_prescan_add_run(s, page, page + n);
        }
    }
}

static void fph_prescan_small(FphPrescanStep *s, uint64_t page, uint64_t end)
{
    while (page < end) {
        uint64_t until = fph_looks_zero_until(s->p, s->b, page, end);

        if (until - page >= FPH_PRESCAN_MIN_RUN) {
            fph_prescan_add_run(s, page, until);
        }
        page = until + 1;
    }
}

/* Pages that are known no more; returns how many were */
static uint64_t fph_prescan_forget(FphPrescanBlock *b, uint64_t page,
                                   uint64_t n)
{
    uint64_t end = page + n, known = 0;

    while ((page = find_next_bit(b->zero, end, page)) < end) {
        clear_bit_atomic(page++, b->zero);
        known++;
    }
    return known;
}

/* Not protected, so whatever was known of it is void */
static int fph_prescan_see(void *opaque, uint64_t start, uint64_t len,
                           uint32_t flags)
{
    FphPrescanStep *s = opaque;
    uint64_t page = start / s->p->page_size;
    uint64_t n = len / s->p->page_size;

    stat64_add(&s->p->written, fph_prescan_forget(s->b, page, n));
    if (!s->runs || flags & FPH_WATCH_SWAPPED) {
        return 0;
    }
    if (flags & FPH_WATCH_HUGE) {
        fph_prescan_huge(s, page, page + n);
    } else {
        fph_prescan_small(s, page, page + n);
    }
    return 0;
}

static int fph_prescan_protected(void *opaque, uint64_t start, uint64_t len,
                                 uint32_t flags)
{
    return 0;
}

/*
 * The order counts.  A write after the protection is noticed by the kernel.  A
 * device that was given the page before can write at any time: either it is
 * seen here, or the device ends later, and finds the bit that it has to clear.
 */
static int fph_prescan_check(FphPrescanStep *s, const FphPrescanRun *run)
{
    FphPrescan *p = s->p;
    int ret = fph_watch_protect(p->fs->watch, &s->b->region,
                                run->start * p->page_size,
                                run->n * p->page_size,
                                fph_prescan_protected, NULL);

    if (ret < 0) {
        return ret;
    }
    bitmap_set_atomic(s->b->zero, run->start, run->n);
    smp_mb();   /* the bits before the look, fph_prescan_device_wrote() */
    for (uint64_t i = run->start; i < run->start + run->n; i++) {
        if (!buffer_is_zero(fph_prescan_page(p, s->b, i), p->page_size)) {
            clear_bit_atomic(i, s->b->zero);
        }
    }
    stat64_add(&p->checked, run->n);
    return 0;
}

static bool fph_prescan_block_exists(const FphPrescanBlock *b)
{
    RAMBlock *rb;

    RAMBLOCK_FOREACH(rb) {
        if (rb == b->rb) {
            return fph_prescan_is_of(b, rb);
        }
    }
    return false;
}

/* Memory that is taken away meanwhile stays until the end of this */
static void fph_prescan_step(FphPrescan *p, FphPrescanBlock *b, uint64_t start,
                             GArray *runs)
{
    FphPrescanStep s = { .p = p, .b = b, .runs = runs };
    int ret;

    RCU_READ_LOCK_GUARD();
    if (!fph_prescan_block_exists(b)) {
        return;
    }
    g_array_set_size(runs, 0);
    ret = fph_watch_written(p->fs->watch, &b->region, start, FPH_PRESCAN_STEP,
                            fph_prescan_see, &s);
    for (guint i = 0; ret == 0 && i < runs->len; i++) {
        ret = fph_prescan_check(&s, &g_array_index(runs, FphPrescanRun, i));
    }
    if (ret < 0) {
        fph_prescan_forget(b, start / p->page_size,
                           MIN(FPH_PRESCAN_STEP, b->region.used - start) /
                           p->page_size);
    }
}

static uint64_t fph_thread_cpu_ns(void)
{
    struct timespec ts = { 0 };

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return ts.tv_sec * NANOSECONDS_PER_SECOND + ts.tv_nsec;
}

/*
 * Rests so long that the share of a CPU is kept; false if the pass is to end.
 * fph_prescan_lock is held.
 */
static bool fph_prescan_rest(FphPrescan *p, uint64_t *rest_ns, uint64_t cpu_ns)
{
    uint64_t share = qatomic_read(&p->fs->prescan_cpu);

    p->cpu_ns += cpu_ns;
    *rest_ns += cpu_ns * (100 - share) / share;
    while (!p->stop && *rest_ns >= SCALE_MS) {
        int64_t began = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);

        qemu_cond_timedwait(&fph_prescan_cond, &fph_prescan_lock,
                            *rest_ns / SCALE_MS);
        *rest_ns -= MIN(*rest_ns,
                        qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - began);
    }
    return !p->stop;
}

static bool fph_prescan_pass(FphPrescan *p)
{
    g_autoptr(GArray) runs = g_array_new(false, false, sizeof(FphPrescanRun));
    uint64_t rest_ns = 0;

    for (guint i = 0; i < p->blocks->len; i++) {
        FphPrescanBlock *b = g_ptr_array_index(p->blocks, i);

        for (uint64_t at = 0; at < b->region.used; at += FPH_PRESCAN_STEP) {
            uint64_t cpu_ns = fph_thread_cpu_ns();

            fph_prescan_step(p, b, at, runs);
            cpu_ns = fph_thread_cpu_ns() - cpu_ns;

            QEMU_LOCK_GUARD(&fph_prescan_lock);
            if (!fph_prescan_rest(p, &rest_ns, cpu_ns)) {
                return false;
            }
        }
    }
    return true;
}

static void *fph_prescan_thread(void *opaque)
{
    FphPrescan *p = opaque;

    /* Less is always allowed; if not, it is no harm */
    setpriority(PRIO_PROCESS, qemu_get_thread_id(), 19);
    rcu_register_thread();
    qemu_mutex_lock(&fph_prescan_lock);
    while (!p->quit) {
        bool whole;

        if (!p->busy) {
            qemu_cond_wait(&fph_prescan_cond, &fph_prescan_lock);
            continue;
        }
        qemu_mutex_unlock(&fph_prescan_lock);
        whole = fph_prescan_pass(p);
        qemu_mutex_lock(&fph_prescan_lock);
        p->passes += whole;
        p->busy = false;
        qemu_cond_broadcast(&fph_prescan_cond);
        if (whole) {
            qemu_bh_schedule(p->bh);
        }
    }
    qemu_mutex_unlock(&fph_prescan_lock);
    rcu_unregister_thread();
    return NULL;
}

/*
 * Who decides; all under the BQL
 */

/* The pass that is under way, if any, ends; for that it may finish its step */
static void fph_prescan_stop(FphPrescan *p)
{
    WITH_QEMU_LOCK_GUARD(&fph_prescan_lock) {
        p->stop = true;
        qemu_cond_broadcast(&fph_prescan_cond);
        while (p->busy) {
            qemu_cond_wait(&fph_prescan_cond, &fph_prescan_lock);
        }
    }
    /* Not before: it may have come to its end by itself */
    qemu_bh_cancel(p->bh);
    timer_del(p->timer);
}

static void fph_prescan_set_state(FphPrescan *p, FphPrescanState state,
                                  const char *reason)
{
    if (p->state != state || p->reason != reason) {
        trace_fph_prescan_state(FphPrescanState_str(state), reason ?: "");
    }
    p->state = state;
    p->reason = reason;
}

/* Forget everything, and let go of userfaultfd; no pass is under way */
static void fph_prescan_let_go(FphPrescan *p)
{
    WITH_RCU_READ_LOCK_GUARD() {
        for (guint i = 0; i < p->blocks->len; i++) {
            FphPrescanBlock *b = g_ptr_array_index(p->blocks, i);

            if (fph_prescan_block_exists(b)) {
                fph_watch_remove(p->fs->watch, &b->region);
            }
        }
    }
    QEMU_LOCK_GUARD(&fph_lock);
    QEMU_LOCK_GUARD(&fph_prescan_lock);
    g_ptr_array_set_size(p->blocks, 0);
}

static void fph_prescan_again_after(FphPrescan *p, int64_t ms)
{
    timer_mod(p->timer, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + ms);
}

static void fph_prescan_step_aside(FphPrescan *p, const char *why)
{
    fph_prescan_stop(p);
    fph_prescan_let_go(p);
    fph_prescan_set_state(p, FPH_PRESCAN_STATE_ASIDE, why);
    if (!p->held) {
        fph_prescan_again_after(p, FPH_PRESCAN_ASIDE_MS);
    }
}

static int fph_match_vhost_scsi(Object *obj, void *opaque)
{
    return object_dynamic_cast(obj, "vhost-scsi") != NULL;
}

/* One that allows memory to be discarded pins it all the same */
static int fph_match_vfio(Object *obj, void *opaque)
{
    return object_dynamic_cast(obj, "vfio-pci") ||
           object_dynamic_cast(obj, "vfio-ap") ||
           object_dynamic_cast(obj, "vfio-ccw");
}

/*
 * KVM maps some pages of a guest that runs guests of its own for the processor,
 * which writes to them past the page tables of this process.
 */
static bool fph_prescan_is_nested(void)
{
    static const char *const features[] = { "vmx", "svm" };
    Object *cpu = OBJECT(first_cpu);

    for (int i = 0; kvm_enabled() && cpu && i < ARRAY_SIZE(features); i++) {
        if (object_property_find(cpu, features[i]) &&
            object_property_get_bool(cpu, features[i], NULL)) {
            return true;
        }
    }
    return false;
}

/* Why nobody could tell that a page was written */
static const char *fph_prescan_impossible(FphPrescan *p)
{
    const char *why;

    if (fph_watch_error(p->fs->watch, &why) < 0) {
        return why;
    }
    if (xen_enabled()) {
        return "guest memory is managed by Xen";
    }
    if (MACHINE(qdev_get_machine())->cgs) {
        return "the memory of a confidential guest is encrypted";
    }
    if (ram_block_discard_is_disabled() ||
        object_child_foreach_recursive(object_get_root(), fph_match_vfio,
                                       NULL)) {
        return "a device of the host (VFIO, vDPA) writes to guest memory";
    }
    if (object_child_foreach_recursive(object_get_root(),
                                       fph_match_vhost_scsi, NULL)) {
        return "vhost-scsi writes to guest memory";
    }
    if (fph_prescan_is_nested()) {
        return "the guest can run guests of its own (CPU feature vmx or svm)";
    }
    return NULL;
}

/* Why not now */
static const char *fph_prescan_untimely(void)
{
    if (runstate_check(RUN_STATE_INMIGRATE)) {
        return "an incoming migration is waited for";
    }
    if (migration_is_running()) {
        return "a migration is under way";
    }
    return NULL;
}

/* NULL if the block was added, or why it is of no use */
static const char *fph_prescan_add_block(FphPrescan *p, RAMBlock *rb)
{
    FphPrescanBlock *b;
    struct fph_verdict verdict;
    struct fph_region region;
    const char *why = "inconsistent RAM block";

    fph_block_describe(p->fs, rb, &region);
    WITH_QEMU_LOCK_GUARD(&fph_lock) {
        if (fph_region_classify(p->fs->scanner, &region, &verdict) < 0) {
            return why;
        }
    }
    if (verdict.method == FPH_METHOD_NONE) {
        return verdict.why;
    }
    if (verdict.backing != FPH_BACKING_ANON) {
        return "shared memory: writes of other processes go unnoticed";
    }
    if (fph_watch_add(p->fs->watch, &region, &why) < 0) {
        return why;
    }
    b = g_new0(FphPrescanBlock, 1);
    b->rb = rb;
    b->region = region;
    b->npages = region.used / p->page_size;
    b->zero = bitmap_new(b->npages);
    trace_fph_prescan_block(qemu_ram_get_idstr(rb), rb, region.host,
                            region.used);
    WITH_QEMU_LOCK_GUARD(&fph_lock) {
        QEMU_LOCK_GUARD(&fph_prescan_lock);
        g_ptr_array_add(p->blocks, b);
    }
    return NULL;
}

/* Blocks that are new, and those that have gone; NULL or why there are none */
static const char *fph_prescan_refresh(FphPrescan *p)
{
    const char *why = "there is no guest RAM", *why_not;
    RAMBlock *rb;

    RCU_READ_LOCK_GUARD();
    for (guint i = p->blocks->len; i-- > 0;) {
        if (!fph_prescan_block_exists(g_ptr_array_index(p->blocks, i))) {
            QEMU_LOCK_GUARD(&fph_lock);
            QEMU_LOCK_GUARD(&fph_prescan_lock);
            g_ptr_array_remove_index(p->blocks, i);
        }
    }
    RAMBLOCK_FOREACH(rb) {
        if (!qemu_ram_is_migratable(rb) || fph_prescan_find(p, rb)) {
            continue;
        }
        why_not = fph_prescan_add_block(p, rb);
        /* What is no guest RAM says nothing */
        if (why_not && fph_rb_is_guest_ram(rb)) {
            why = why_not;
        }
    }
    return p->blocks->len ? NULL : why;
}

static void fph_prescan_tick(void *opaque)
{
    FphPrescan *p = opaque;
    const char *why = fph_prescan_impossible(p) ?: fph_prescan_untimely() ?:
                      fph_prescan_refresh(p);

    if (why) {
        fph_prescan_step_aside(p, why);
        return;
    }
    fph_prescan_set_state(p, FPH_PRESCAN_STATE_ACTIVE, NULL);
    p->pass_began = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
    QEMU_LOCK_GUARD(&fph_prescan_lock);
    p->stop = false;
    p->busy = true;
    qemu_cond_broadcast(&fph_prescan_cond);
}

static void fph_prescan_pass_ended(void *opaque)
{
    FphPrescan *p = opaque;
    int64_t took = qemu_clock_get_ms(QEMU_CLOCK_REALTIME) - p->pass_began;

    WITH_QEMU_LOCK_GUARD(&fph_prescan_lock) {
        trace_fph_prescan_pass(p->passes, stat64_get(&p->checked),
                               stat64_get(&p->written), p->cpu_ns);
    }
    fph_prescan_set_state(p, FPH_PRESCAN_STATE_RESTING, NULL);
    fph_prescan_again_after(p, MIN(MAX(took, FPH_PRESCAN_REST_MS),
                                   FPH_PRESCAN_REST_MAX_MS));
}

/*
 * A device that writes to guest memory as it likes can be plugged in and out
 * between two passes.
 */
static void fph_prescan_device_realized(DeviceListener *listener,
                                        DeviceState *dev)
{
    FphPrescan *p = container_of(listener, FphPrescan, device_listener);
    const char *why = p->blocks->len ? fph_prescan_impossible(p) : NULL;

    if (why) {
        fph_prescan_step_aside(p, why);
    }
}

void fph_prescan_hold(FphPrescan *p, bool use)
{
    const char *why = fph_prescan_impossible(p);

    fph_prescan_stop(p);
    p->held = true;
    if (!use || why) {
        fph_prescan_step_aside(p, why ?: "this migration leaves nothing out, "
                                         "or needs userfaultfd itself");
    } else if (p->blocks->len) {
        fph_prescan_set_state(p, FPH_PRESCAN_STATE_HELD, NULL);
    }
}

void fph_prescan_resume(FphPrescan *p, bool disturbed)
{
    p->held = false;
    if (disturbed) {
        fph_prescan_let_go(p);
    }
    fph_prescan_set_state(p, FPH_PRESCAN_STATE_RESTING, NULL);
    fph_prescan_again_after(p, FPH_PRESCAN_REST_MS);
}

void fph_prescan_apply(FphPrescan *p, RAMBlock *rb, struct fph_skip_sink *sink,
                       uint64_t start, uint64_t len)
{
    FphPrescanStep s = { .p = p };
    uint64_t page, next, end;

    WITH_QEMU_LOCK_GUARD(&fph_prescan_lock) {
        s.b = fph_prescan_find(p, rb);
    }
    /*
     * Nothing is written where nothing is mapped any more, says the kernel.  So
     * what was known of a block that has gone must not be taken for this one's.
     */
    if (!s.b || !fph_prescan_is_of(s.b, rb) || start >= s.b->region.used) {
        return;
    }
    len = MIN(len, s.b->region.used - start);
    page = start / p->page_size;
    end = page + len / p->page_size;

    /* What is written from here on, the dirty log knows */
    if (fph_watch_written(p->fs->watch, &s.b->region, start, len,
                          fph_prescan_see, &s) < 0) {
        fph_prescan_forget(s.b, page, end - page);
    }
    for (; (page = find_next_bit(s.b->zero, end, page)) < end; page = next) {
        next = find_next_zero_bit(s.b->zero, end, page);
        fph_skip_sink_fn(sink, page * p->page_size,
                         (next - page) * p->page_size, FPH_ZERO_CONTENT);
    }
}

/*
 * What others tell; from any thread
 */

/* A device has ended what it did with memory that it was given */
static void fph_prescan_device_wrote(RAMBlock *rb, uint64_t offset,
                                     uint64_t len)
{
    FphPrescanBlock *b;
    uint64_t page, end;

    QEMU_LOCK_GUARD(&fph_prescan_lock);
    b = fph_prescan ? fph_prescan_find(fph_prescan, rb) : NULL;
    if (!b) {
        return;
    }
    page = offset / fph_prescan->page_size;
    end = MIN(DIV_ROUND_UP(offset + len, fph_prescan->page_size), b->npages);
    if (page < end) {
        bitmap_test_and_clear_atomic(b->zero, page, end - page);
    }
}

/* In the main thread, under the BQL */
static void fph_prescan_userfaultfd_wanted(void)
{
    if (fph_prescan) {
        fph_prescan_step_aside(fph_prescan, "userfaultfd was needed by "
                                            "somebody else");
    }
}

static const RAMWatchOps fph_prescan_watch_ops = {
    .mapping_written = fph_prescan_device_wrote,
    .userfaultfd_wanted = fph_prescan_userfaultfd_wanted,
};

FphPrescanInfo *fph_prescan_query(FphPrescan *p)
{
    FphPrescanInfo *info = g_new0(FphPrescanInfo, 1);

    info->state = p->state;
    info->reason = g_strdup(p->reason);
    info->page_size = p->page_size;
    QEMU_LOCK_GUARD(&fph_prescan_lock);
    for (guint i = 0; i < p->blocks->len; i++) {
        FphPrescanBlock *b = g_ptr_array_index(p->blocks, i);

        info->zero += bitmap_count_one(b->zero, b->npages);
    }
    info->passes = p->passes;
    info->checked = stat64_get(&p->checked);
    info->written = stat64_get(&p->written);
    info->cpu_ns = p->cpu_ns;
    return info;
}

FphPrescan *fph_prescan_new(FphSource *fs)
{
    FphPrescan *p = g_new0(FphPrescan, 1);

    p->fs = fs;
    p->page_size = qemu_real_host_page_size();
    /* A page of page table entries of 8 bytes */
    p->huge_size = p->page_size * (p->page_size / 8);
    p->blocks = g_ptr_array_new_with_free_func(fph_prescan_block_free);
    p->timer = timer_new_ms(QEMU_CLOCK_REALTIME, fph_prescan_tick, p);
    p->bh = qemu_bh_new(fph_prescan_pass_ended, p);
    p->device_listener.realize = fph_prescan_device_realized;
    WITH_QEMU_LOCK_GUARD(&fph_prescan_lock) {
        fph_prescan = p;
    }
    qemu_thread_create(&p->thread, "fph-prescan", fph_prescan_thread, p,
                       QEMU_THREAD_JOINABLE);
    device_listener_register(&p->device_listener);
    qatomic_set(&ram_watch_ops, &fph_prescan_watch_ops);
    /* When the machine is complete */
    fph_prescan_set_state(p, FPH_PRESCAN_STATE_RESTING, NULL);
    fph_prescan_again_after(p, FPH_PRESCAN_REST_MS);
    return p;
}

void fph_prescan_free(FphPrescan *p)
{
    if (!p) {
        return;
    }
    qatomic_set(&ram_watch_ops, NULL);
    device_listener_unregister(&p->device_listener);
    fph_prescan_stop(p);
    WITH_QEMU_LOCK_GUARD(&fph_prescan_lock) {
        fph_prescan = NULL;
        p->quit = true;
        qemu_cond_broadcast(&fph_prescan_cond);
    }
    qemu_thread_join(&p->thread);
    fph_prescan_let_go(p);
    timer_free(p->timer);
    qemu_bh_delete(p->bh);
    g_ptr_array_unref(p->blocks);
    g_free(p);
}

static void fph_prescan_init(void)
{
    qemu_mutex_init(&fph_prescan_lock);
    qemu_cond_init(&fph_prescan_cond);
}

type_init(fph_prescan_init);

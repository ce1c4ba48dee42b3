/*
 * fph-source: pages that hold only zeroes, found before anyone migrates
 *
 * A thread of low priority looks for them.  A page that looks like zero is
 * write-protected with userfaultfd, in the way that stops nobody, and then
 * read: from there on it is known to be zero until it is written, which is
 * asked before anything is left out, and in each pass.  What is not zero is
 * left as it is, because protection costs the guest a fault and splits huge
 * pages; so it is looked at again in a later pass, and less and less often,
 * since each look makes memory look used that may be cold.
 *
 * A device can write to a page by another way than the page tables, if it was
 * given the page before it was protected: a read from a disk with O_DIRECT
 * that is under way.  When it has ended, QEMU unmaps the page, and tells us.
 * Devices that keep pages for longer (VFIO) rule the search out.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sched.h>
#include <setjmp.h>
#include <sys/resource.h>
#include "qemu/bitmap.h"
#include "qemu/cutils.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qemu/rcu.h"
#include "qemu/stats64.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "hw/core/cpu.h"
#include "migration/misc.h"
#include "system/arch_init.h"
#include "system/fph-compat.h"
#include "system/kvm.h"
#include "system/replay.h"
#include "system/runstate.h"
#include "system/tcg.h"
#include FPH_BOARDS_H
#include FPH_QDEV_H
#include "trace.h"

#include "fph-prescan.h"

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

/*
 * Passes that leave out a step in which nothing new was found: twice as many
 * each time, up to so many.
 */
#define FPH_PRESCAN_NAP_MAX 15

/* After somebody else wanted userfaultfd, or it was not possible */
#define FPH_PRESCAN_ASIDE_MS 3000

/* The start of a page, and its end, before all of it is read */
#define FPH_PRESCAN_GLANCE 64

/* A step in which nothing new is found is left alone for a while */
typedef struct FphPrescanNap {
    uint8_t left;               /* passes to leave out */
    uint8_t last;               /* as many as it were the last time */
    uint16_t pages;             /* that have memory, and are not known */
    bool looked;                /* since the last time that all had been */
} FphPrescanNap;

typedef struct FphPrescanStep FphPrescanStep;

typedef struct FphPrescanBlock {
    struct rcu_head rcu;
    FphPrescan *p;
    RAMBlock *rb;               /* not used but to compare */
    char *name;
    struct fph_region region;
    uint64_t npages;
    unsigned long *zero;        /* host pages; atomic */
    FphPrescanNap *naps;        /* of the thread alone, by step */
} FphPrescanBlock;

/* Where devices find what they have to take back; they take no lock */
typedef struct FphPrescanMap {
    struct rcu_head rcu;
    guint n;
    FphPrescanBlock *blocks[];
} FphPrescanMap;

/*
 * Reads memory for the thread, with the lowest priority.  What the kernel is
 * asked for is not its affair: it takes locks there that QEMU's other threads
 * wait for, and with all processors busy it would keep them for seconds.
 */
typedef struct FphPrescanReader {
    QemuThread thread;
    QemuSemaphore go, done;
    void (*read)(FphPrescanStep *s);    /* NULL: end */
    FphPrescanStep *step;
    uint64_t cpu_ns;
} FphPrescanReader;

/* What the thread shall do */
typedef enum FphPrescanWish {
    FPH_PRESCAN_REST,           /* keep what is known */
    FPH_PRESCAN_PASS,           /* one, and then rest */
    FPH_PRESCAN_LET_GO,         /* of all, userfaultfd too */
    FPH_PRESCAN_QUIT,           /* the same, and end */
} FphPrescanWish;

struct FphPrescan {
    struct rcu_head rcu;
    FphConfig *config;
    struct fph_watch *watch;
    struct fph_scanner *scanner;
    void (*gone)(void *opaque);
    void *gone_opaque;
    uint64_t page_size;         /* the host's */
    uint64_t huge_size;

    FphPrescanReader reader;    /* of the thread alone */

    /* Protected by the BQL */
    QEMUTimer *timer;
    QEMUBH *bh;                 /* a pass has ended */
    DeviceListener device_listener;

    /* Protected by fph_prescan_lock */
    FphPrescanWish wish;        /* atomic to the reader */
    GPtrArray *wanted;          /* of FphPrescanBlock, for the next pass */
    FphPrescanState state;
    const char *reason;         /* static, if @state is aside */
    unsigned int held;          /* migrations that have not ended */
    int64_t pass_began;
    uint64_t passes;
    uint64_t looks;             /* at all memory, in one pass or several */
    uint64_t cpu_ns;

    /*
     * Held while blocks are looked at or change.  Who takes it may wait for a
     * step, in which memory is read with the lowest priority.
     */
    QemuMutex step_lock;
    GPtrArray *blocks;          /* of FphPrescanBlock */

    /* False if nothing that is known may be used; atomic */
    bool valid;

    Stat64 zero;                /* bits in all blocks */
    Stat64 checked;             /* pages that were read as a whole */
    Stat64 written;             /* pages that were zero, and written */
};

/* Static, because devices may call while the object goes.  Held for moments */
static QemuMutex fph_prescan_lock;
static QemuCond fph_prescan_cond;
static FphPrescanMap *fph_prescan_map;  /* RCU */
static bool fph_prescan_leaves;         /* blocks are let go, and not in it */

/* Protected by fph_prescan_lock */
static FphPrescan *fph_prescan;
static bool fph_prescan_running;        /* a thread; the next one waits */
static bool fph_prescan_registered;     /* blocks may be with userfaultfd */

static void fph_prescan_block_free(FphPrescanBlock *b)
{
    g_free(b->zero);
    g_free(b->naps);
    g_free(b->name);
    g_free(b);
}

/* @rb exists, maybe where another block was when @b was made */
static bool fph_prescan_is_of(const FphPrescanBlock *b, RAMBlock *rb)
{
    return rb == b->rb && qemu_ram_get_host_addr(rb) == b->region.host &&
           qemu_ram_get_used_length(rb) == b->region.used;
}

/*
 * What is known, by page
 */

/* Pages [page, page + n) are known, all of which were not */
static void fph_prescan_know(FphPrescanBlock *b, uint64_t page, uint64_t n)
{
    bitmap_set_atomic(b->zero, page, n);
    stat64_add(&b->p->zero, n);
}

/* They are not any more; returns how many were.  From any thread */
static uint64_t fph_prescan_forget(FphPrescanBlock *b, uint64_t page,
                                   uint64_t n)
{
    uint64_t end = page + n, known = 0;

    while (page < end) {
        unsigned long *word = &b->zero[BIT_WORD(page)];
        uint64_t next = MIN(end, ROUND_UP(page + 1, BITS_PER_LONG));
        unsigned long mask = BITMAP_FIRST_WORD_MASK(page) &
                             BITMAP_LAST_WORD_MASK(next);

        if (qatomic_read(word) & mask) {
            known += ctpopl(qatomic_fetch_and(word, ~mask) & mask);
        }
        page = next;
    }
    if (known) {
        stat64_add(&b->p->zero, -known);
    }
    return known;
}

typedef struct FphPrescanRun {
    uint64_t start;             /* host pages */
    uint64_t n;
    bool huge;
} FphPrescanRun;

struct FphPrescanStep {
    FphPrescan *p;
    FphPrescanBlock *b;
    GArray *seen;               /* of FphPrescanRun, to be read, or NULL */
    GArray *runs;               /* of FphPrescanRun, that look like zero */
    uint64_t pages;             /* that have memory, and are not protected */
    uint64_t found;             /* pages that are known now, and were not */
};

/*
 * The reader
 */

static uint8_t *fph_prescan_page(FphPrescan *p, FphPrescanBlock *b,
                                 uint64_t page)
{
    return (uint8_t *)b->region.host + page * p->page_size;
}

/*
 * Memory that turns out to be broken is the guest's affair, when it reads it.
 * Where this thread comes first, it is only not zero.
 */
static struct sigaction fph_prescan_old_sigbus;
static __thread sigjmp_buf *fph_prescan_reading;

static void fph_prescan_sigbus(int number, siginfo_t *info, void *context)
{
    if (fph_prescan_reading) {
        siglongjmp(*fph_prescan_reading, 1);
    }
    if (fph_prescan_old_sigbus.sa_flags & SA_SIGINFO) {
        fph_prescan_old_sigbus.sa_sigaction(number, info, context);
    } else {
        /* Again, and then for good */
        sigaction(SIGBUS, &fph_prescan_old_sigbus, NULL);
    }
}

static void fph_prescan_catch_sigbus(void)
{
    struct sigaction action = {
        .sa_sigaction = fph_prescan_sigbus,
        .sa_flags = SA_SIGINFO,
    };
    static bool done;

    if (!done) {
        sigaction(SIGBUS, &action, &fph_prescan_old_sigbus);
        done = true;
    }
}

static void fph_prescan_unblock_sigbus(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGBUS);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

/* Where SIGBUS is not blocked */
static bool fph_prescan_is_zero(const void *start, size_t len)
{
    sigjmp_buf here;
    bool zero;

    /* To save the mask would be a system call for each page */
    if (sigsetjmp(here, 0)) {
        fph_prescan_reading = NULL;
        fph_prescan_unblock_sigbus();
        return false;
    }
    fph_prescan_reading = &here;
    barrier();
    zero = buffer_is_zero(start, len);
    barrier();
    fph_prescan_reading = NULL;
    return zero;
}

static bool fph_looks_zero(FphPrescan *p, FphPrescanBlock *b, uint64_t page)
{
    uint8_t *start = fph_prescan_page(p, b, page);

    return fph_prescan_is_zero(start, FPH_PRESCAN_GLANCE) &&
           fph_prescan_is_zero(start + p->page_size - FPH_PRESCAN_GLANCE,
                               FPH_PRESCAN_GLANCE);
}

/* Somebody waits for the end of the step, or will */
static bool fph_prescan_in_haste(const FphPrescan *p)
{
    return qatomic_read(&p->wish) != FPH_PRESCAN_PASS;
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

static uint64_t fph_thread_cpu_ns(void)
{
    struct timespec ts = { 0 };

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return ts.tv_sec * NANOSECONDS_PER_SECOND + ts.tv_nsec;
}

/* Only as a whole, because it would be split */
static void fph_prescan_huge(FphPrescanStep *s, uint64_t page, uint64_t end)
{
    uint64_t n = s->p->huge_size / s->p->page_size;
    uint64_t base = (uintptr_t)s->b->region.host / s->p->page_size;

    for (page = ROUND_UP(base + page, n) - base;
         page + n <= end && !fph_prescan_in_haste(s->p); page += n) {
        if (fph_looks_zero_until(s->p, s->b, page, page + n) == page + n) {
            fph_prescan_add_run(s, page, page + n);
        }
    }
}

static void fph_prescan_small(FphPrescanStep *s, uint64_t page, uint64_t end)
{
    while (page < end && !fph_prescan_in_haste(s->p)) {
        uint64_t until = fph_looks_zero_until(s->p, s->b, page, end);

        if (until - page >= FPH_PRESCAN_MIN_RUN) {
            fph_prescan_add_run(s, page, until);
        }
        page = until + 1;
    }
}

/* Of what was seen, that which looks like zero */
static void fph_prescan_glance(FphPrescanStep *s)
{
    for (guint i = 0; i < s->seen->len && !fph_prescan_in_haste(s->p); i++) {
        const FphPrescanRun *run = &g_array_index(s->seen, FphPrescanRun, i);

        if (run->huge) {
            fph_prescan_huge(s, run->start, run->start + run->n);
        } else {
            fph_prescan_small(s, run->start, run->start + run->n);
        }
    }
}

/* Of what is known, that which is not zero, or not read, is known no more */
static void fph_prescan_check(FphPrescanStep *s)
{
    FphPrescan *p = s->p;
    uint64_t checked = 0;

    for (guint k = 0; k < s->runs->len; k++) {
        const FphPrescanRun *run = &g_array_index(s->runs, FphPrescanRun, k);

        for (uint64_t i = run->start; i < run->start + run->n; i++) {
            bool reads = !fph_prescan_in_haste(p);

            checked += reads;
            if (reads && fph_prescan_is_zero(fph_prescan_page(p, s->b, i),
                                             p->page_size)) {
                s->found++;
            } else {
                fph_prescan_forget(s->b, i, 1);
            }
        }
    }
    stat64_add(&p->checked, checked);
}

/*
 * Lowest priority.  A sandbox that denies resource control allows SCHED_IDLE;
 * where nothing is allowed, the share of a CPU is the limit.
 */
static void fph_prescan_be_nice(void)
{
    struct sched_param none = { 0 };

    if (setpriority(PRIO_PROCESS, qemu_get_thread_id(), 19) < 0) {
        sched_setscheduler(0, SCHED_IDLE, &none);
    }
}

static void *fph_prescan_reader_thread(void *opaque)
{
    FphPrescanReader *r = opaque;

    fph_prescan_unblock_sigbus();
    fph_prescan_be_nice();
    while (qemu_sem_wait(&r->go), r->read) {
        r->read(r->step);
        r->cpu_ns = fph_thread_cpu_ns();
        qemu_sem_post(&r->done);
    }
    return NULL;
}

/*
 * The thread
 */

static void fph_prescan_read(FphPrescanStep *s, void (*read)(FphPrescanStep *))
{
    FphPrescanReader *r = &s->p->reader;

    r->read = read;
    r->step = s;
    qemu_sem_post(&r->go);
    qemu_sem_wait(&r->done);
}

static void fph_prescan_reader_start(FphPrescanReader *r)
{
    qemu_sem_init(&r->go, 0);
    qemu_sem_init(&r->done, 0);
    qemu_thread_create(&r->thread, "fph-prescan-rd", fph_prescan_reader_thread,
                       r, QEMU_THREAD_JOINABLE);
}

static void fph_prescan_reader_stop(FphPrescanReader *r)
{
    r->read = NULL;
    qemu_sem_post(&r->go);
    qemu_thread_join(&r->thread);
    qemu_sem_destroy(&r->go);
    qemu_sem_destroy(&r->done);
}

/* Not protected, so whatever was known of it is void */
static int fph_prescan_see(void *opaque, uint64_t start, uint64_t len,
                           uint32_t flags)
{
    FphPrescanStep *s = opaque;
    uint64_t page = start / s->p->page_size;
    uint64_t n = len / s->p->page_size;

    stat64_add(&s->p->written, fph_prescan_forget(s->b, page, n));
    s->pages += n;
    if (s->seen && !(flags & FPH_WATCH_SWAPPED)) {
        FphPrescanRun run = {
            .start = page, .n = n, .huge = flags & FPH_WATCH_HUGE,
        };

        g_array_append_val(s->seen, run);
    }
    return 0;
}

static int fph_prescan_protected(void *opaque, uint64_t start, uint64_t len,
                                 uint32_t flags)
{
    return 0;
}

static int fph_prescan_protect(FphPrescanStep *s, const FphPrescanRun *run)
{
    FphPrescan *p = s->p;
    int ret = fph_watch_protect(p->watch, &s->b->region,
                                run->start * p->page_size,
                                run->n * p->page_size,
                                fph_prescan_protected, NULL);

    if (ret == 0) {
        fph_prescan_know(s->b, run->start, run->n);
    }
    return ret;
}

static bool fph_prescan_block_exists(const void *opaque)
{
    const FphPrescanBlock *b = opaque;
    RAMBlock *rb;

    RAMBLOCK_FOREACH(rb) {
        if (rb == b->rb) {
            return fph_prescan_is_of(b, rb);
        }
    }
    return false;
}

/*
 * Looks for what is not protected.  step_lock and the RCU read lock are held.
 */
static int fph_prescan_walk(FphPrescanStep *s, uint64_t start)
{
    s->pages = 0;
    return fph_watch_written(s->p->watch, &s->b->region, start,
                             FPH_PRESCAN_STEP, fph_prescan_see, s);
}

/*
 * The order counts.  A write after the protection is noticed by the kernel.  A
 * device that was given the page before can write at any time: either that is
 * seen here, or the device ends later, and finds the bit that it has to clear.
 */
static int fph_prescan_look(FphPrescanStep *s, uint64_t start,
                            FphPrescanNap *nap)
{
    g_autoptr(GArray) seen = g_array_new(false, false, sizeof(FphPrescanRun));
    g_autoptr(GArray) runs = g_array_new(false, false, sizeof(FphPrescanRun));
    int ret;

    s->seen = seen;
    s->runs = runs;
    ret = fph_prescan_walk(s, start);
    if (ret == 0 && seen->len) {
        fph_prescan_read(s, fph_prescan_glance);
    }
    for (guint i = 0; ret == 0 && i < runs->len; i++) {
        ret = fph_prescan_protect(s, &g_array_index(runs, FphPrescanRun, i));
    }
    if (ret == 0 && runs->len) {
        smp_mb();   /* bits before the look, fph_prescan_device_wrote() */
        fph_prescan_read(s, fph_prescan_check);
    }
    s->seen = s->runs = NULL;
    if (fph_prescan_in_haste(s->p)) {
        return ret;
    }
    nap->looked = true;
    nap->pages = s->pages - s->found;
    /* Where nothing is, a look costs nothing */
    nap->last = !nap->pages || s->found ? 0 : MIN(nap->last * 2 + 1,
                                                  FPH_PRESCAN_NAP_MAX);
    nap->left = nap->last;
    return ret;
}

/*
 * step_lock is held.  Memory that is taken away meanwhile stays until the end
 * of this.
 */
static void fph_prescan_step(FphPrescan *p, FphPrescanBlock *b, uint64_t start)
{
    FphPrescanNap *nap = &b->naps[start / FPH_PRESCAN_STEP];
    FphPrescanStep s = { .p = p, .b = b };
    bool naps = nap->left;
    int ret = 0;

    RCU_READ_LOCK_GUARD();
    if (!fph_prescan_block_exists(b)) {
        return;
    }
    if (naps) {
        nap->left--;
        ret = fph_prescan_walk(&s, start);
    }
    /* Memory that was taken or written since is worth a look */
    if (ret == 0 && (!naps || s.pages != nap->pages)) {
        ret = fph_prescan_look(&s, start, nap);
    }
    if (ret < 0) {
        fph_prescan_forget(b, start / p->page_size,
                           MIN(FPH_PRESCAN_STEP, b->region.used - start) /
                           p->page_size);
    }
}

/* Of the thread, and of the reader for it */
static uint64_t fph_prescan_cpu_ns(const FphPrescan *p)
{
    return fph_thread_cpu_ns() + p->reader.cpu_ns;
}

static bool fph_prescan_wants_pass(FphPrescan *p)
{
    QEMU_LOCK_GUARD(&fph_prescan_lock);
    return p->wish == FPH_PRESCAN_PASS;
}

/* Rests so long that the share of a CPU is kept, unless the wish changes */
static void fph_prescan_rest(FphPrescan *p, uint64_t *rest_ns, uint64_t cpu_ns)
{
    uint64_t share = qatomic_read(&p->config->prescan_cpu);

    QEMU_LOCK_GUARD(&fph_prescan_lock);
    p->cpu_ns += cpu_ns;
    *rest_ns += cpu_ns * (100 - share) / share;
    while (p->wish == FPH_PRESCAN_PASS && *rest_ns >= SCALE_MS) {
        int64_t began = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);

        qemu_cond_timedwait(&fph_prescan_cond, &fph_prescan_lock,
                            *rest_ns / SCALE_MS);
        *rest_ns -= MIN(*rest_ns,
                        qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - began);
    }
}

/* Returns false if it was broken off */
static bool fph_prescan_pass(FphPrescan *p)
{
    uint64_t rest_ns = 0;

    for (guint i = 0; i < p->blocks->len; i++) {
        FphPrescanBlock *b = g_ptr_array_index(p->blocks, i);

        for (uint64_t at = 0; at < b->region.used; at += FPH_PRESCAN_STEP) {
            uint64_t cpu_ns = fph_prescan_cpu_ns(p);

            WITH_QEMU_LOCK_GUARD(&p->step_lock) {
                /* Asked under the lock: who has it can rely on the answer */
                if (!fph_prescan_wants_pass(p)) {
                    return false;
                }
                fph_prescan_step(p, b, at);
            }
            fph_prescan_rest(p, &rest_ns, fph_prescan_cpu_ns(p) - cpu_ns);
        }
    }
    return true;
}

/* Was all looked at since the last time that this was true? */
static bool fph_prescan_has_looked(FphPrescan *p)
{
    for (int forget = 0; forget < 2; forget++) {
        for (guint i = 0; i < p->blocks->len; i++) {
            FphPrescanBlock *b = g_ptr_array_index(p->blocks, i);

            for (uint64_t at = 0; at < b->region.used; at += FPH_PRESCAN_STEP) {
                FphPrescanNap *nap = &b->naps[at / FPH_PRESCAN_STEP];

                if (!forget && !nap->looked) {
                    return false;
                }
                nap->looked &= !forget;
            }
        }
    }
    return true;
}

/* Devices see the blocks that there are now; step_lock is held */
static void fph_prescan_publish(FphPrescan *p)
{
    FphPrescanMap *old = fph_prescan_map;
    FphPrescanMap *map = g_malloc(sizeof(*map) +
                                  p->blocks->len * sizeof(map->blocks[0]));

    map->n = p->blocks->len;
    for (guint i = 0; i < map->n; i++) {
        map->blocks[i] = g_ptr_array_index(p->blocks, i);
    }
    qatomic_rcu_set(&fph_prescan_map, map);
    if (old) {
        g_free_rcu(old, rcu);
    }
}

static FphPrescanBlock *fph_prescan_find_block(GPtrArray *blocks, RAMBlock *rb)
{
    for (guint i = 0; i < blocks->len; i++) {
        FphPrescanBlock *b = g_ptr_array_index(blocks, i);

        if (b->rb == rb) {
            return b;
        }
    }
    return NULL;
}

/* Forget everything, and let go of userfaultfd, which others may need */
static void fph_prescan_let_go(FphPrescan *p)
{
    QEMU_LOCK_GUARD(&p->step_lock);
    g_autoptr(GPtrArray) blocks = g_steal_pointer(&p->blocks);

    p->blocks = g_ptr_array_new();
    qatomic_set(&fph_prescan_leaves, true);
    fph_prescan_publish(p);
    for (guint i = 0; i < blocks->len; i++) {
        FphPrescanBlock *b = g_ptr_array_index(blocks, i);

        fph_unwatch(p->watch, &b->region, fph_prescan_block_exists, b);
        fph_prescan_forget(b, 0, b->npages);
        call_rcu(b, fph_prescan_block_free, rcu);
    }
    qatomic_store_release(&fph_prescan_leaves, false);
}

/*
 * Blocks that are new, and those that have gone.  Takes what it needs of
 * @wanted.  Returns NULL, or why there is no block.
 */
static const char *fph_prescan_refresh(FphPrescan *p, GPtrArray *wanted)
{
    const char *why = NULL;

    QEMU_LOCK_GUARD(&p->step_lock);
    RCU_READ_LOCK_GUARD();

    for (guint i = p->blocks->len; i-- > 0;) {
        FphPrescanBlock *b = g_ptr_array_index(p->blocks, i);

        if (!fph_prescan_block_exists(b)) {
            g_ptr_array_remove_index(p->blocks, i);
            fph_prescan_publish(p);
            fph_prescan_forget(b, 0, b->npages);
            call_rcu(b, fph_prescan_block_free, rcu);
        }
    }
    for (guint i = wanted->len; i-- > 0;) {
        FphPrescanBlock *b = g_ptr_array_index(wanted, i);

        if (fph_prescan_find_block(p->blocks, b->rb) ||
            !fph_prescan_block_exists(b)) {
            continue;
        }
        why = "inconsistent RAM block";
        if (fph_watch_add(p->watch, &b->region, &why) < 0) {
            continue;
        }
        g_ptr_array_steal_index(wanted, i);
        trace_fph_prescan_block(b->name, b->rb, b->region.host, b->region.used);
        g_ptr_array_add(p->blocks, b);
        fph_prescan_publish(p);
    }
    return p->blocks->len ? NULL : why ?: "there is no guest RAM";
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

static void fph_prescan_again_after(FphPrescan *p, int64_t ms)
{
    timer_mod(p->timer, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + ms);
}

/* fph_prescan_lock is held, but let go of meanwhile */
static void fph_prescan_do_pass(FphPrescan *p)
{
    g_autoptr(GPtrArray) wanted = g_steal_pointer(&p->wanted);
    const char *why;
    bool whole, looked;

    qatomic_set(&p->valid, true);
    fph_prescan_registered = true;
    qemu_mutex_unlock(&fph_prescan_lock);
    why = fph_prescan_refresh(p, wanted);
    whole = !why && fph_prescan_pass(p);
    looked = whole && fph_prescan_has_looked(p);
    g_ptr_array_set_size(wanted, 0);
    qemu_mutex_lock(&fph_prescan_lock);

    p->passes += whole;
    p->looks += looked;
    /* Or somebody has other plans by now */
    if (p->wish == FPH_PRESCAN_PASS) {
        qatomic_set(&p->wish, why ? FPH_PRESCAN_LET_GO : FPH_PRESCAN_REST);
        fph_prescan_set_state(p, why ? FPH_PRESCAN_STATE_ASIDE :
                                       FPH_PRESCAN_STATE_RESTING, why);
        qemu_bh_schedule(p->bh);
    }
}

static void *fph_prescan_thread(void *opaque)
{
    FphPrescan *p = opaque;

    fph_prescan_reader_start(&p->reader);
    rcu_register_thread();
    qemu_mutex_lock(&fph_prescan_lock);
    while (fph_prescan_running) {
        qemu_cond_wait(&fph_prescan_cond, &fph_prescan_lock);
    }
    fph_prescan_running = true;
    while (p->wish != FPH_PRESCAN_QUIT || fph_prescan_registered) {
        if (p->wish == FPH_PRESCAN_PASS) {
            fph_prescan_do_pass(p);
        } else if (p->wish != FPH_PRESCAN_REST && fph_prescan_registered) {
            qemu_mutex_unlock(&fph_prescan_lock);
            fph_prescan_let_go(p);
            qemu_mutex_lock(&fph_prescan_lock);
            fph_prescan_registered = false;
            qemu_cond_broadcast(&fph_prescan_cond);
        } else {
            qemu_cond_wait(&fph_prescan_cond, &fph_prescan_lock);
        }
    }
    fph_prescan_running = false;
    qemu_cond_broadcast(&fph_prescan_cond);
    qemu_mutex_unlock(&fph_prescan_lock);
    rcu_unregister_thread();
    fph_prescan_reader_stop(&p->reader);
    p->gone(p->gone_opaque);
    return NULL;
}

/*
 * Who decides
 */

/* The thread shall do what the state says; fph_prescan_lock is held */
static void fph_prescan_order(FphPrescan *p, FphPrescanWish wish)
{
    qatomic_set(&p->wish, wish);
    if (wish == FPH_PRESCAN_LET_GO || wish == FPH_PRESCAN_QUIT) {
        qatomic_set(&p->valid, false);
    }
    qemu_cond_broadcast(&fph_prescan_cond);
}

static void fph_prescan_step_aside(FphPrescan *p, const char *why)
{
    fph_prescan_order(p, FPH_PRESCAN_LET_GO);
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

    if (fph_watch_error(p->watch, &why) < 0) {
        return why;
    }
    if (!qemu_arch_available(QEMU_ARCH_I386)) {
        return "this QEMU is not for x86";
    }
    /* Others may write to guest memory past the page tables of this process */
    if (!tcg_enabled() && !kvm_enabled()) {
        return "neither TCG nor KVM runs the guest, and of other accelerators "
               "it is not known how they write to its memory";
    }
    if (replay_mode != REPLAY_MODE_NONE) {
        return "execution is recorded or replayed";
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
    if (migration_in_incoming_postcopy()) {
        return "memory still comes in by postcopy";
    }
    if (migration_is_running()) {
        return "a migration is under way";
    }
    return NULL;
}

/* A block to be watched, or NULL with the reason */
static FphPrescanBlock *fph_prescan_block_new(FphPrescan *p, RAMBlock *rb,
                                              const char **why)
{
    struct fph_verdict verdict;
    struct fph_region region;
    FphPrescanBlock *b;

    fph_rb_describe(rb, p->config, &region);
    if (fph_region_classify(p->scanner, &region, &verdict) < 0) {
        *why = "inconsistent RAM block";
        return NULL;
    }
    if (verdict.method == FPH_METHOD_NONE) {
        *why = verdict.why;
        return NULL;
    }
    if (verdict.backing != FPH_BACKING_ANON) {
        *why = "shared memory: writes of other processes go unnoticed";
        return NULL;
    }
    b = g_new0(FphPrescanBlock, 1);
    b->p = p;
    b->rb = rb;
    b->name = g_strdup(qemu_ram_get_idstr(rb));
    b->region = region;
    b->npages = region.used / p->page_size;
    b->zero = bitmap_new(b->npages);
    b->naps = g_new0(FphPrescanNap,
                     DIV_ROUND_UP(region.used, FPH_PRESCAN_STEP));
    return b;
}

static void fph_prescan_block_unwanted(gpointer opaque)
{
    fph_prescan_block_free(opaque);
}

/* All blocks that are of use; NULL, or why there are none */
static const char *fph_prescan_find_wanted(FphPrescan *p, GPtrArray *wanted)
{
    const char *why = "there is no guest RAM", *why_not;
    RAMBlock *rb;

    RCU_READ_LOCK_GUARD();
    RAMBLOCK_FOREACH(rb) {
        FphPrescanBlock *b;

        if (!qemu_ram_is_migratable(rb)) {
            continue;
        }
        b = fph_prescan_block_new(p, rb, &why_not);
        if (b) {
            g_ptr_array_add(wanted, b);
        } else if (fph_rb_is_guest_ram(rb)) {
            /* What is no guest RAM says nothing */
            why = why_not;
        }
    }
    return wanted->len ? NULL : why;
}

/* In the main thread, under the BQL */
static void fph_prescan_tick(void *opaque)
{
    FphPrescan *p = opaque;
    g_autoptr(GPtrArray) wanted =
        g_ptr_array_new_with_free_func(fph_prescan_block_unwanted);
    const char *why = fph_prescan_impossible(p) ?: fph_prescan_untimely() ?:
                      fph_prescan_find_wanted(p, wanted);

    QEMU_LOCK_GUARD(&fph_prescan_lock);
    if (p->held) {
        return;
    }
    if (why) {
        fph_prescan_step_aside(p, why);
        return;
    }
    if (p->wanted) {
        g_ptr_array_unref(p->wanted);
    }
    p->wanted = g_steal_pointer(&wanted);
    fph_prescan_set_state(p, FPH_PRESCAN_STATE_ACTIVE, NULL);
    p->pass_began = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
    fph_prescan_order(p, FPH_PRESCAN_PASS);
}

/* The same: the thread has no more to do */
static void fph_prescan_pass_ended(void *opaque)
{
    FphPrescan *p = opaque;
    int64_t took = qemu_clock_get_ms(QEMU_CLOCK_REALTIME) - p->pass_began;

    QEMU_LOCK_GUARD(&fph_prescan_lock);
    trace_fph_prescan_pass(p->passes, stat64_get(&p->checked),
                           stat64_get(&p->written), p->cpu_ns);
    if (p->state == FPH_PRESCAN_STATE_RESTING) {
        fph_prescan_again_after(p, MIN(MAX(took, FPH_PRESCAN_REST_MS),
                                       FPH_PRESCAN_REST_MAX_MS));
    } else if (p->state == FPH_PRESCAN_STATE_ASIDE && !p->held) {
        fph_prescan_again_after(p, FPH_PRESCAN_ASIDE_MS);
    }
}

/*
 * A device that writes to guest memory as it likes can be plugged in and out
 * between two passes.
 */
static void fph_prescan_device_realized(DeviceListener *listener,
                                        DeviceState *dev)
{
    FphPrescan *p = container_of(listener, FphPrescan, device_listener);
    const char *why = fph_prescan_impossible(p);

    QEMU_LOCK_GUARD(&fph_prescan_lock);
    if (why && (p->wish == FPH_PRESCAN_PASS || qatomic_read(&p->valid))) {
        fph_prescan_step_aside(p, why);
    }
}

void fph_prescan_hold(FphPrescan *p, bool use)
{
    const char *why = fph_prescan_impossible(p);

    timer_del(p->timer);
    QEMU_LOCK_GUARD(&fph_prescan_lock);
    p->held++;
    if (!use || why) {
        fph_prescan_step_aside(p, why ?: "this migration leaves nothing out, "
                                         "or needs userfaultfd itself");
    } else if (p->wish != FPH_PRESCAN_LET_GO) {
        fph_prescan_order(p, FPH_PRESCAN_REST);
        if (qatomic_read(&p->valid)) {
            fph_prescan_set_state(p, FPH_PRESCAN_STATE_HELD, NULL);
        }
    }
}

void fph_prescan_disturb(FphPrescan *p)
{
    QEMU_LOCK_GUARD(&fph_prescan_lock);
    if (p->wish != FPH_PRESCAN_QUIT) {
        fph_prescan_order(p, FPH_PRESCAN_LET_GO);
    }
}

void fph_prescan_resume(FphPrescan *p, bool disturbed)
{
    QEMU_LOCK_GUARD(&fph_prescan_lock);
    if (p->wish == FPH_PRESCAN_QUIT) {
        return;
    }
    if (disturbed) {
        fph_prescan_order(p, FPH_PRESCAN_LET_GO);
        while (fph_prescan_registered) {
            qemu_cond_wait(&fph_prescan_cond, &fph_prescan_lock);
        }
    }
    /* The next one may have begun */
    if (--p->held || p->wish == FPH_PRESCAN_QUIT) {
        return;
    }
    fph_prescan_set_state(p, FPH_PRESCAN_STATE_RESTING, NULL);
    fph_prescan_again_after(p, FPH_PRESCAN_REST_MS);
}

void fph_prescan_find(FphPrescan *p, const FphBlock *block, uint64_t start,
                      uint64_t end, bool wait, GArray *found)
{
    FphPrescanStep s = { .p = p };
    uint64_t page, next;

    if (!qatomic_read(&p->valid)) {
        return;
    }
    if (wait) {
        qemu_mutex_lock(&p->step_lock);
    } else if (qemu_mutex_trylock(&p->step_lock)) {
        return;
    }
    s.b = fph_prescan_find_block(p->blocks, block->rb);
    /*
     * Nothing is written where nothing is mapped any more, says the kernel.  So
     * what was known of a block that has gone must not be taken for this one's.
     */
    if (!qatomic_read(&p->valid) || !s.b ||
        s.b->region.host != block->region.host ||
        s.b->region.used != block->region.used) {
        goto out;
    }
    page = start / p->page_size;
    end = MIN(end, s.b->region.used) / p->page_size;
    if (page >= end) {
        goto out;
    }

    /* What is written from here on, the dirty log knows */
    if (fph_watch_written(p->watch, &s.b->region, page * p->page_size,
                          (end - page) * p->page_size,
                          fph_prescan_see, &s) < 0) {
        fph_prescan_forget(s.b, page, end - page);
    }
    for (; (page = find_next_bit(s.b->zero, end, page)) < end; page = next) {
        FphFound run = {
            .start = page * p->page_size, .why = FPH_ZERO_CONTENT,
        };

        next = find_next_zero_bit(s.b->zero, end, page);
        run.len = (next - page) * p->page_size;
        g_array_append_val(found, run);
    }
out:
    qemu_mutex_unlock(&p->step_lock);
}

/*
 * What others tell
 */

void fph_prescan_device_wrote(RAMBlock *rb, uint64_t offset, uint64_t len)
{
    FphPrescanMap *map;

    /* What the device wrote before blocks are looked at, fph_prescan_check() */
    smp_mb();
    RCU_READ_LOCK_GUARD();
    map = qatomic_rcu_read(&fph_prescan_map);
    for (guint i = 0; map && i < map->n; i++) {
        FphPrescanBlock *b = map->blocks[i];
        uint64_t page, end;

        if (b->rb != rb) {
            continue;
        }
        page = offset / b->p->page_size;
        end = MIN(DIV_ROUND_UP(offset + len, b->p->page_size), b->npages);
        if (page < end) {
            fph_prescan_forget(b, page, end - page);
        }
    }
}

bool fph_prescan_has(RAMBlock *rb)
{
    FphPrescanMap *map;

    RCU_READ_LOCK_GUARD();
    map = qatomic_rcu_read(&fph_prescan_map);
    for (guint i = 0; map && i < map->n; i++) {
        if (map->blocks[i]->rb == rb) {
            return true;
        }
    }
    /* Of those that are let go, it is not known which are still there */
    smp_rmb();
    return qatomic_read(&fph_prescan_leaves);
}

void fph_prescan_make_way(const char *why)
{
    QEMU_LOCK_GUARD(&fph_prescan_lock);
    if (fph_prescan) {
        fph_prescan_step_aside(fph_prescan, why);
    }
    while (fph_prescan_registered) {
        qemu_cond_wait(&fph_prescan_cond, &fph_prescan_lock);
    }
}

FphPrescanInfo *fph_prescan_query(FphPrescan *p)
{
    FphPrescanInfo *info = g_new0(FphPrescanInfo, 1);

    info->page_size = p->page_size;
    info->zero = stat64_get(&p->zero);
    info->checked = stat64_get(&p->checked);
    info->written = stat64_get(&p->written);
    QEMU_LOCK_GUARD(&fph_prescan_lock);
    info->state = p->state;
    info->reason = g_strdup(p->reason);
    info->passes = p->passes;
    info->looks = p->looks;
    info->cpu_ns = p->cpu_ns;
    return info;
}

FphPrescan *fph_prescan_new(FphConfig *config, struct fph_watch *watch,
                            struct fph_scanner *scanner,
                            void (*gone)(void *opaque), void *opaque)
{
    FphPrescan *p = g_new0(FphPrescan, 1);
    QemuThread thread;

    p->config = fph_config_ref(config);
    p->watch = watch;
    p->scanner = scanner;
    p->gone = gone;
    p->gone_opaque = opaque;
    p->page_size = qemu_real_host_page_size();
    /* A page of page table entries of 8 bytes */
    p->huge_size = p->page_size * (p->page_size / 8);
    p->blocks = g_ptr_array_new();
    qemu_mutex_init(&p->step_lock);
    fph_prescan_catch_sigbus();
    p->timer = timer_new_ms(QEMU_CLOCK_REALTIME, fph_prescan_tick, p);
    p->bh = qemu_bh_new(fph_prescan_pass_ended, p);
    p->device_listener.realize = fph_prescan_device_realized;
    WITH_QEMU_LOCK_GUARD(&fph_prescan_lock) {
        fph_prescan = p;
        /* When the machine is complete */
        fph_prescan_set_state(p, FPH_PRESCAN_STATE_RESTING, NULL);
    }
    qemu_thread_create(&thread, "fph-prescan", fph_prescan_thread, p,
                       QEMU_THREAD_DETACHED);
    device_listener_register(&p->device_listener);
    fph_prescan_again_after(p, FPH_PRESCAN_REST_MS);
    return p;
}

void fph_prescan_retire(FphPrescan *p)
{
    device_listener_unregister(&p->device_listener);
    QEMU_LOCK_GUARD(&fph_prescan_lock);
    fph_prescan = NULL;
    timer_free(p->timer);
    qemu_bh_delete(p->bh);
    fph_prescan_order(p, FPH_PRESCAN_QUIT);
}

void fph_prescan_free(FphPrescan *p)
{
    if (!p) {
        return;
    }
    if (p->wanted) {
        g_ptr_array_unref(p->wanted);
    }
    g_ptr_array_unref(p->blocks);
    qemu_mutex_destroy(&p->step_lock);
    fph_config_unref(p->config);
    /* Devices may still be in the middle of it */
    g_free_rcu(p, rcu);
}

static void fph_prescan_init(void)
{
    qemu_mutex_init(&fph_prescan_lock);
    qemu_cond_init(&fph_prescan_cond);
}

type_init(fph_prescan_init);

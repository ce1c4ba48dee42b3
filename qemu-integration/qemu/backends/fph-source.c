/*
 * fph-source: leave out of a migration the guest pages nobody can miss
 *
 * The object decides when pages may be left out and keeps the books; what can
 * be known of a page, and the merging of it, is libfph's.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-fph.h"
#include "qapi/qapi-events-fph.h"
#include "qapi/visitor.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qemu/lockable.h"
#include "qemu/rcu.h"
#include "qemu/stats64.h"
#include "qom/object_interfaces.h"
#include "exec/memory.h"
#include "exec/ramblock.h"
#include "exec/target_page.h"
#include "hw/boards.h"
#include "hw/mem/nvdimm.h"
#include "hw/mem/pc-dimm.h"
#include "hw/virtio/virtio-mem.h"
#include "migration/misc.h"
#include "migration/options.h"
#include "migration/ram-skip.h"
#include "system/hostmem.h"
#include "system/kvm.h"
#include "system/numa.h"
#include "system/runstate.h"
#include "system/xen.h"
#include "trace.h"

#include "fph-source.h"

/* Milliseconds */
#define FPH_PV_WAIT_DEFAULT 500
#define FPH_PV_WAIT_MAX 60000

/* Percent of one CPU */
#define FPH_PRESCAN_CPU_DEFAULT 10

/* There is one migration, so there can be one object that acts on it */
static FphSource *fph_source;
/* Its migration was switched to postcopy; read for each page that is sent */
static bool fph_postcopy;
QemuMutex fph_lock;

static void fph_block_free(gpointer opaque)
{
    FphBlock *block = opaque;

    fph_skip_free(block->skip);
    g_free(block->watched);
    g_free(block->name);
    g_free(block);
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
    trace_fph_source_state(object_get_canonical_path_component(OBJECT(fs)),
                           FphState_str(state), fs->inactive_reason ?: "");
}

/*
 * Is @backend the memory behind a DIMM or a virtio-mem device?  NVDIMMs are
 * DIMMs too, but keep their content.
 */
static int fph_match_memory_device(Object *obj, void *opaque)
{
    Object *memdev = NULL;

    if (object_dynamic_cast(obj, TYPE_VIRTIO_MEM)) {
        memdev = object_property_get_link(obj, VIRTIO_MEM_MEMDEV_PROP, NULL);
    } else if (object_dynamic_cast(obj, TYPE_PC_DIMM) &&
               !object_dynamic_cast(obj, TYPE_NVDIMM)) {
        memdev = object_property_get_link(obj, PC_DIMM_MEMDEV_PROP, NULL);
    }
    return memdev && memdev == opaque;
}

/*
 * Only what is known to be ordinary guest RAM, and thus zero at a fresh
 * destination, may be left out.  Everything else (ROMs, ACPI tables, video
 * memory, shared memory devices) is not.
 */
bool fph_rb_is_guest_ram(RAMBlock *rb)
{
    MachineState *ms = MACHINE(qdev_get_machine());
    Object *owner;

    if (!rb->mr || rb->mr->ram_device || rb->mr->nonvolatile) {
        return false;
    }
    owner = memory_region_owner(rb->mr);
    if (!owner || !object_dynamic_cast(owner, TYPE_MEMORY_BACKEND)) {
        return false;
    }
    if (ms->memdev && owner == OBJECT(ms->memdev)) {
        return true;
    }
    if (ms->numa_state) {
        for (int i = 0; i < ms->numa_state->num_nodes; i++) {
            HostMemoryBackend *memdev = ms->numa_state->nodes[i].node_memdev;

            if (memdev && owner == OBJECT(memdev)) {
                return true;
            }
        }
    }
    return object_child_foreach_recursive(object_get_root(),
                                          fph_match_memory_device, owner);
}

void fph_block_describe(FphSource *fs, RAMBlock *rb, struct fph_region *region)
{
    *region = (struct fph_region) {
        .sz = sizeof(*region),
        .host = qemu_ram_get_host_addr(rb),
        .used = qemu_ram_get_used_length(rb),
        .max = qemu_ram_get_max_length(rb),
        .page_size = qemu_ram_pagesize(rb),
        .fd = qemu_ram_get_fd(rb),
        .fd_offset = rb->fd_offset,
    };

    if (!fph_rb_is_guest_ram(rb)) {
        region->flags |= FPH_REGION_NOT_RAM;
    }
    if (qemu_ram_is_shared(rb)) {
        region->flags |= FPH_REGION_SHARED;
    }
    if (qemu_ram_is_named_file(rb) && !fs->assume_zero_destination) {
        region->flags |= FPH_REGION_NAMED_FILE;
    }
    if (rb->mr && (rb->mr->readonly || rb->mr->rom_device)) {
        region->flags |= FPH_REGION_READONLY;
    }
    if (rb->flags & (RAM_READONLY | RAM_READONLY_FD)) {
        region->flags |= FPH_REGION_READONLY;
    }
    if (rb->flags & RAM_RESIZEABLE) {
        region->flags |= FPH_REGION_RESIZABLE;
    }
    if (rb->flags & RAM_PREALLOC) {
        region->flags |= FPH_REGION_FOREIGN;
    }
    if (rb->flags & RAM_PMEM) {
        region->flags |= FPH_REGION_PMEM;
    }
    if (rb->guest_memfd >= 0) {
        region->flags |= FPH_REGION_GUEST_MEMFD;
    }
}

/* What the guest calls free is left out of these only, wherever they are */
static bool fph_block_takes_hints(const FphBlock *block)
{
    return !(block->region.flags &
             (FPH_REGION_NOT_RAM | FPH_REGION_READONLY | FPH_REGION_RESIZABLE |
              FPH_REGION_FOREIGN | FPH_REGION_PMEM | FPH_REGION_GUEST_MEMFD));
}

bool fph_block_is_fresh(const FphBlock *block)
{
    return !(block->region.flags & FPH_REGION_NAMED_FILE);
}

static void fph_block_classify(FphSource *fs, FphBlock *block)
{
    uint64_t npages = block->region.max / qemu_target_page_size();

    if (!block->rb->bmap) {
        block->verdict.why = "not part of this migration";
        return;
    }
    if (fph_region_classify(fs->scanner, &block->region,
                            &block->verdict) < 0) {
        block->verdict.why = "inconsistent RAM block";
        return;
    }
    if (!fph_source_asks_host(fs)) {
        block->verdict.method = FPH_METHOD_NONE;
        block->verdict.why = "mode=pv does not ask the host";
    }
    block->hints = fph_source_asks_guest(fs) && fph_block_takes_hints(block);
    if (!block->hints && block->verdict.method == FPH_METHOD_NONE) {
        return;
    }
    if (fph_skip_new(&block->skip, npages) < 0) {
        block->hints = false;
        block->verdict.method = FPH_METHOD_NONE;
        block->verdict.why = "out of memory for the skip bitmap";
        return;
    }
    if (fs->dry_run) {
        fph_skip_set_dry_run(block->skip);
    }
}

static FphBlock *fph_block_new(FphSource *fs, RAMBlock *rb)
{
    FphBlock *block = g_new0(FphBlock, 1);

    block->rb = rb;
    block->name = g_strdup(qemu_ram_get_idstr(rb));
    block->chunk = (uint64_t)qemu_target_page_size() << rb->clear_bmap_shift;
    fph_block_describe(fs, rb, &block->region);
    fph_block_classify(fs, block);
    trace_fph_source_block(block->name,
                           fph_backing_name(block->verdict.backing),
                           fph_method_name(block->verdict.method),
                           block->verdict.why ?: "");
    return block;
}

FphBlock *fph_source_find_block(FphSource *fs, RAMBlock *rb)
{
    for (guint i = 0; i < fs->blocks->len; i++) {
        FphBlock *block = g_ptr_array_index(fs->blocks, i);

        if (block->rb == rb) {
            return block;
        }
    }
    return NULL;
}

/* A new block at the same address would have no bitmap */
bool fph_rb_exists(RAMBlock *rb)
{
    RAMBlock *other;

    RAMBLOCK_FOREACH(other) {
        if (other == rb) {
            return rb->bmap;
        }
    }
    return false;
}

struct fph_skip_sink fph_block_sink(const FphBlock *block, RAMBlock *rb)
{
    return (struct fph_skip_sink) {
        .skip = block->skip,
        .dirty = rb->bmap,
        .granule = qemu_target_page_size(),
        .align = MAX(qemu_target_page_size(), block->region.page_size),
        .limit = MIN(qemu_ram_get_used_length(rb), block->region.max),
    };
}

uint64_t fph_block_scan(FphSource *fs, FphBlock *block, RAMBlock *rb,
                        uint64_t start, uint64_t len)
{
    struct fph_scan_stats stats = { .sz = sizeof(stats) };
    struct fph_skip_sink sink = fph_block_sink(block, rb);
    uint64_t limit = MIN(start + len, block->region.used);
    uint64_t from = start, passed_over = start, to;
    int64_t begun = get_clock();
    int ret = 0;

    for (; ret >= 0 && fph_tracer_find(fs->tracer, block->region.host, limit,
                                       &from, &to); from = passed_over = to) {
        stat64_add(&fs->passed_over, from - passed_over);
        ret = fph_scan_region(fs->scanner, &block->region,
                              block->verdict.method, from, to - from,
                              fph_skip_sink_fn, &sink, &stats);
    }
    if (ret >= 0 && passed_over < limit) {
        stat64_add(&fs->passed_over, limit - passed_over);
    }
    if (ret < 0) {
        /* What was found before the error is true; the rest gets sent. */
        trace_fph_source_scan_failed(block->name, start, ret);
    }
    if (fs->prescan) {
        fph_prescan_apply(fs->prescan, rb, &sink, start, len);
    }
    stats.ns = get_clock() - begun;
    stat64_add(ret < 0 ? &fs->chunks_not_scanned : &fs->chunks, 1);
    stat64_add(&fs->scan_ns, stats.ns);
    stat64_add(&fs->given_up, stats.given_up);
    trace_fph_source_chunk(block->name, start, len, sink.cleared, stats.ns);
    return sink.cleared;
}

/*
 * The dirty log of the chunk was cleared just now, so a write that the scan
 * does not see is seen by the next sync.  Everything happens under the bitmap
 * mutex, which the next sync needs before it touches the bitmap: a sync that
 * runs in another thread at the same time can only put bits back.
 *
 * Absent pages are known to be zero at the destination as well only as long
 * as nothing was sent, so the scan belongs to the first epoch.  Later chunks
 * are visited for the books alone: pages that were left out and are dirty
 * again are not left out any more.
 */
static uint64_t fph_source_chunk_armed(RAMBlock *rb, uint64_t start,
                                       uint64_t len)
{
    uint64_t page_size = qemu_target_page_size();
    FphBlock *block = NULL;
    FphSource *fs;
    uint64_t resent;

    QEMU_LOCK_GUARD(&fph_lock);

    fs = fph_source;
    if (fs) {
        block = fph_source_find_block(fs, rb);
    }
    if (!block || !block->skip || fs->postcopy) {
        return 0;
    }

    if (fs->epoch == 1) {
        if (!fs->scan_when_armed || block->verdict.method == FPH_METHOD_NONE) {
            return 0;
        }
        block->chunks_seen++;
        if (!bql_locked()) {
            return fph_block_scan(fs, block, rb, start, len);
        }
        stat64_add(&fs->chunks_not_scanned, 1);
        trace_fph_source_chunk_passed_over(block->name, start);
        return 0;
    }

    resent = fph_skip_revoke(block->skip, rb->bmap, start / page_size,
                             len / page_size);
    if (resent) {
        trace_fph_source_resent(block->name, start, resent);
    }
    return 0;
}

/* Why the migration that is about to start cannot do with fewer pages */
static const char *fph_source_refuse(FphSource *fs)
{
    const char *why;

    if (fs->mode == FPH_MODE_PAGEMAP &&
        fph_scanner_error(fs->scanner, &why) < 0) {
        return why;
    }
    if (xen_enabled()) {
        return "guest memory is managed by Xen";
    }
    if (kvm_enabled() && kvm_dirty_ring_enabled()) {
        return "KVM's dirty ring was seen to lose writes, with or without us";
    }
    if (migrate_background_snapshot()) {
        return "a background snapshot has no dirty log";
    }
    if (migrate_colo()) {
        return "COLO keeps a destination that has run already";
    }
    if (migrate_mapped_ram()) {
        return "mapped-ram files may hold older pages";
    }
    if (migrate_rdma()) {
        return "RDMA is not supported";
    }
    return NULL;
}

static bool fph_source_defer_armed(void)
{
    FphSource *fs = fph_source;

    return fs && fs->state == FPH_STATE_ACTIVE && fs->hints &&
           fph_hints_defer(fs->hints);
}

/*
 * A block that is no whole number of bitmap words is synced in another way:
 * no chunk of it is armed again.  So pages of it that were written, and sent,
 * since they were left out may still be in the skip bitmap.
 */
static bool fph_block_is_whole(const FphBlock *block)
{
    return QEMU_IS_ALIGNED(block->region.used,
                           qemu_target_page_size() * BITS_PER_LONG);
}

/*
 * The destination is about to run, and to ask for pages that it has not got:
 * none may be missing from the bitmap.  The VM was stopped before the last
 * sync, so what is left out now and was not written since stays as it is.
 *
 * The thread goes first: it takes the bitmap mutex, which the caller has not,
 * and the bitmap is the caller's alone afterwards.
 */
static uint64_t fph_source_postcopy(void)
{
    FphSource *fs = fph_source;
    uint64_t due = 0;

    if (!fs) {
        return 0;
    }
    if (fs->hints) {
        fph_hints_end(fs->hints);
    }

    QEMU_LOCK_GUARD(&fph_lock);
    for (guint i = 0; i < fs->blocks->len; i++) {
        FphBlock *block = g_ptr_array_index(fs->blocks, i);

        /* In a dry run nothing was left out, and all was read */
        if (!block->skip || fs->dry_run || !fph_rb_exists(block->rb)) {
            continue;
        }
        due += fph_skip_restore(block->skip, block->rb->bmap);
        if (!fph_block_is_whole(block)) {
            fph_skip_revoke(block->skip, block->rb->bmap, 0, UINT64_MAX);
        }
    }
    fs->postcopy = true;
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
    block = fs && fs->postcopy && !fs->dry_run ?
            fph_source_find_block(fs, rb) : NULL;
    if (!block || !block->skip ||
        !fph_skip_test(block->skip, offset / qemu_target_page_size())) {
        return false;
    }
    stat64_add(&fs->postcopy_zero, 1);
    return true;
}

static const RAMSkipOps fph_source_ops = {
    .chunk_armed = fph_source_chunk_armed,
    .defer_armed = fph_source_defer_armed,
    .hold_back = fph_hints_hold_back,
    .free_page_hint = fph_hints_free_page,
    .postcopy = fph_source_postcopy,
    .is_zero = fph_source_is_zero,
};

/* First sync done: the bitmaps exist, the log is on. */
static void fph_source_start(FphSource *fs)
{
    FphBlock *block, *ram = NULL;
    bool usable = false;
    RAMBlock *rb;

    QEMU_LOCK_GUARD(&fph_lock);

    WITH_RCU_READ_LOCK_GUARD() {
        RAMBLOCK_FOREACH(rb) {
            if (!qemu_ram_is_migratable(rb)) {
                continue;
            }
            block = fph_block_new(fs, rb);
            g_ptr_array_add(fs->blocks, block);
            usable |= block->skip != NULL;
            if (!ram && !(block->region.flags & FPH_REGION_NOT_RAM)) {
                ram = block;
            }
        }
    }

    if (!usable) {
        fph_source_set_state(fs, FPH_STATE_INACTIVE,
                             "no RAM block can be scanned%s%s%s%s",
                             ram ? "; " : "", ram ? ram->name : "",
                             ram ? ": " : "", ram ? ram->verdict.why : "");
        return;
    }
    fph_verify_begin(fs);
    fph_source_set_state(fs, FPH_STATE_ACTIVE, NULL);
}

/* A sync begins, and ends the epoch; a scan that is under way ends before. */
static void fph_source_next_epoch(FphSource *fs)
{
    WITH_QEMU_LOCK_GUARD(&fph_lock) {
        fs->epoch++;
    }
    if (fs->hints && fs->epoch > 1) {
        fph_hints_close(fs->hints, "the next bitmap synchronization came "
                                   "before the whole answer");
    }
    if (fs->epoch != 2) {
        return;
    }
    /* Chunks whose turn did not come in the first epoch are not scanned. */
    for (guint i = 0; i < fs->blocks->len; i++) {
        FphBlock *block = g_ptr_array_index(fs->blocks, i);

        if (block->verdict.method != FPH_METHOD_NONE) {
            uint64_t total = DIV_ROUND_UP(block->region.used, block->chunk);

            stat64_add(&fs->chunks_not_scanned,
                       total - MIN(total, block->chunks_seen));
        }
    }
}

/* A sync has ended. */
static void fph_source_begin_epoch(FphSource *fs)
{
    if (fs->epoch == 1) {
        fph_source_start(fs);
    }
    if (fs->hints && fs->state == FPH_STATE_ACTIVE) {
        fph_hints_open(fs->hints);
    }
    /* The last one: nothing of the guest runs any more */
    if (fs->verify != FPH_VERIFY_OFF && fs->state == FPH_STATE_ACTIVE &&
        runstate_check(RUN_STATE_FINISH_MIGRATE)) {
        fph_source_verify(fs);
    }
}

/* The migration begins. */
static void fph_source_arm(FphSource *fs)
{
    const char *why = fph_source_refuse(fs);
    const char *mute = "", *blind;

    if (fs->tracer) {
        fph_tracer_reset(fs->tracer);
    }
    if (fs->hints) {
        mute = fph_hints_reset(fs->hints);
        if (!why && (fs->mode == FPH_MODE_PV ||
                     fph_scanner_error(fs->scanner, &blind) < 0)) {
            why = mute;
        }
    }

    WITH_QEMU_LOCK_GUARD(&fph_lock) {
        g_ptr_array_set_size(fs->blocks, 0);
        fs->epoch = 0;
        fs->scan_when_armed = mute != NULL;
        fs->postcopy = false;
        fs->verified = fs->watched = fs->violations = fs->verify_ns = 0;
        fs->witness_reason = NULL;
        stat64_set(&fs->chunks, 0);
        stat64_set(&fs->chunks_not_scanned, 0);
        stat64_set(&fs->given_up, 0);
        stat64_set(&fs->scan_ns, 0);
        stat64_set(&fs->passed_over, 0);
        stat64_set(&fs->postcopy_zero, 0);
    }

    if (fs->prescan) {
        fph_prescan_hold(fs->prescan, !why);
    }
    fs->armed = true;
    fs->tell_end = true;
    object_ref(OBJECT(fs));     /* the thread of fs->hints uses it */
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

    WITH_QEMU_LOCK_GUARD(&fph_lock) {
        fph_verify_end(fs);
        for (guint i = 0; i < fs->blocks->len; i++) {
            FphBlock *block = g_ptr_array_index(fs->blocks, i);

            block->rb = NULL;
        }
    }
    if (fs->prescan) {
        fph_prescan_resume(fs->prescan,
                           fs->hints && fs->verify != FPH_VERIFY_OFF);
    }
    if (fs->state != FPH_STATE_INACTIVE) {
        fph_source_set_state(fs, FPH_STATE_ENDED, NULL);
    }
    object_unref(OBJECT(fs));
}

/* Pages were left out, and no more will be: once in each migration */
static void fph_source_tell_end(FphSource *fs, FphEnd cause)
{
    g_autoptr(FphInfoList) list = NULL;
    FphInfo *info;

    if (fs->state == FPH_STATE_INACTIVE || !fs->tell_end) {
        return;
    }
    fs->tell_end = false;
    list = qmp_query_fph(&error_abort);
    info = list->value;
    qapi_event_send_fph_source_ended(info->id, cause, info->skipped,
                                     info->resent, info->violations);
}

/*
 * Unlike the precopy notifiers, these events come with an outgoing migration
 * only, and not with savevm, whose loadvm does not start from zeroed memory.
 */
static int fph_source_migration_notify(NotifierWithReturn *notifier,
                                       MigrationEvent *e, Error **errp)
{
    FphSource *fs = container_of(notifier, FphSource, migration_notifier);

    if (e->type == MIG_EVENT_PRECOPY_SETUP) {
        fph_source_arm(fs);
    } else if (e->type == MIG_EVENT_PRECOPY_DONE && fs->postcopy) {
        /* Most pages are still to be sent; PRECOPY_NOTIFY_CLEANUP follows */
        fph_source_tell_end(fs, FPH_END_POSTCOPY);
    } else {
        fph_source_disarm(fs);
        fph_source_tell_end(fs, e->type == MIG_EVENT_PRECOPY_DONE ?
                                FPH_END_COMPLETED : FPH_END_FAILED);
    }
    return 0;
}

static int fph_source_precopy_notify(NotifierWithReturn *notifier,
                                     void *opaque, Error **errp)
{
    FphSource *fs = container_of(notifier, FphSource, precopy_notifier);
    PrecopyNotifyData *data = opaque;

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
    case PRECOPY_NOTIFY_CLEANUP:
        fph_source_disarm(fs);
        break;
    default:
        break;
    }
    return 0;
}

static bool fph_source_is_complete(FphSource *fs, const char *name,
                                   Error **errp)
{
    if (fph_source != fs) {
        return false;
    }
    error_setg(errp, "%s cannot be changed after creation", name);
    return true;
}

static int fph_source_get_mode(Object *obj, Error **errp)
{
    return FPH_SOURCE(obj)->mode;
}

static void fph_source_set_mode(Object *obj, int mode, Error **errp)
{
    FphSource *fs = FPH_SOURCE(obj);

    if (fph_source_is_complete(fs, "mode", errp)) {
        return;
    }
    fs->mode = mode;
    fs->mode_set = true;
}

static int fph_source_get_scanner(Object *obj, Error **errp)
{
    return FPH_SOURCE(obj)->scanner_kind;
}

static void fph_source_set_scanner(Object *obj, int kind, Error **errp)
{
    FphSource *fs = FPH_SOURCE(obj);

    if (!fph_source_is_complete(fs, "scanner", errp)) {
        fs->scanner_kind = kind;
    }
}

static int fph_source_get_verify(Object *obj, Error **errp)
{
    return FPH_SOURCE(obj)->verify;
}

static void fph_source_set_verify(Object *obj, int verify, Error **errp)
{
    FphSource *fs = FPH_SOURCE(obj);

    if (!fph_source_is_complete(fs, "verify", errp)) {
        fs->verify = verify;
    }
}

static char *fph_source_get_pv_device(Object *obj, Error **errp)
{
    return g_strdup(FPH_SOURCE(obj)->pv_device);
}

static void fph_source_set_pv_device(Object *obj, const char *value,
                                     Error **errp)
{
    FphSource *fs = FPH_SOURCE(obj);

    if (fph_source_is_complete(fs, "pv-device", errp)) {
        return;
    }
    g_free(fs->pv_device);
    fs->pv_device = g_strdup(value);
}

static char *fph_source_get_tracer(Object *obj, Error **errp)
{
    return g_strdup(FPH_SOURCE(obj)->tracer_path);
}

static void fph_source_set_tracer(Object *obj, const char *value, Error **errp)
{
    FphSource *fs = FPH_SOURCE(obj);

    if (fph_source_is_complete(fs, "tracer", errp)) {
        return;
    }
    g_free(fs->tracer_path);
    fs->tracer_path = g_strdup(value);
}

static void fph_source_get_ms(Object *obj, Visitor *v, const char *name,
                              void *opaque, Error **errp)
{
    visit_type_uint32(v, name, (uint32_t *)((char *)obj + (size_t)opaque),
                      errp);
}

static void fph_source_set_ms(Object *obj, Visitor *v, const char *name,
                              void *opaque, Error **errp)
{
    uint32_t value;

    if (!visit_type_uint32(v, name, &value, errp)) {
        return;
    }
    if (value > FPH_PV_WAIT_MAX) {
        error_setg(errp, "%s takes milliseconds, from 0 to %d", name,
                   FPH_PV_WAIT_MAX);
        return;
    }
    *(uint32_t *)((char *)obj + (size_t)opaque) = value;
}

static bool fph_source_get_dry_run(Object *obj, Error **errp)
{
    return FPH_SOURCE(obj)->dry_run;
}

static void fph_source_set_dry_run(Object *obj, bool value, Error **errp)
{
    FphSource *fs = FPH_SOURCE(obj);

    if (!fph_source_is_complete(fs, "dry-run", errp)) {
        fs->dry_run = value;
    }
}

static bool fph_source_get_assume_zero(Object *obj, Error **errp)
{
    return FPH_SOURCE(obj)->assume_zero_destination;
}

static void fph_source_set_assume_zero(Object *obj, bool value, Error **errp)
{
    FphSource *fs = FPH_SOURCE(obj);

    if (fph_source_is_complete(fs, "assume-zero-destination", errp)) {
        return;
    }
    fs->assume_zero_destination = value;
}

static enum fph_scanner_kind fph_source_scanner_kind(FphSource *fs)
{
    switch (fs->scanner_kind) {
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

static bool fph_source_get_prescan(Object *obj, Error **errp)
{
    return FPH_SOURCE(obj)->want_prescan;
}

static void fph_source_set_prescan(Object *obj, bool value, Error **errp)
{
    FphSource *fs = FPH_SOURCE(obj);

    if (!fph_source_is_complete(fs, "prescan", errp)) {
        fs->want_prescan = value;
    }
}

static void fph_source_get_prescan_cpu(Object *obj, Visitor *v,
                                       const char *name, void *opaque,
                                       Error **errp)
{
    visit_type_uint8(v, name, &FPH_SOURCE(obj)->prescan_cpu, errp);
}

static void fph_source_set_prescan_cpu(Object *obj, Visitor *v,
                                       const char *name, void *opaque,
                                       Error **errp)
{
    uint8_t value;

    if (!visit_type_uint8(v, name, &value, errp)) {
        return;
    }
    if (value < 1 || value > 100) {
        error_setg(errp, "%s takes percent of one CPU, from 1 to 100", name);
        return;
    }
    /* The thread reads it now and then */
    qatomic_set(&FPH_SOURCE(obj)->prescan_cpu, value);
}

static void fph_source_complete(UserCreatable *uc, Error **errp)
{
    FphSource *fs = FPH_SOURCE(uc);
    struct fph_scanner_opts opts = {
        .sz = sizeof(opts),
        .kind = fph_source_scanner_kind(fs),
    };
    const char *why;

    if (!fs->mode_set) {
        error_setg(errp, "fph-source needs the property 'mode'");
        return;
    }
    if (fs->pv_device && fs->mode == FPH_MODE_PAGEMAP) {
        error_setg(errp, "mode=pagemap does not ask the guest, so there is "
                   "nothing that pv-device could do");
        return;
    }
    if (fs->tracer_path && fs->mode == FPH_MODE_PV) {
        error_setg(errp, "mode=pv does not scan, so there is nothing that "
                   "tracer could do");
        return;
    }
    if (fs->want_prescan && fs->mode == FPH_MODE_PV) {
        error_setg(errp, "mode=pv does not ask the host, so there is nothing "
                   "that prescan could do");
        return;
    }
    if (fs->dry_run && fs->verify != FPH_VERIFY_OFF) {
        error_setg(errp, "dry-run leaves nothing out, so there is nothing "
                   "that could be verified");
        return;
    }
    if (fph_source) {
        error_setg(errp, "there can be only one fph-source, and '%s' is one",
                   object_get_canonical_path_component(OBJECT(fph_source)));
        return;
    }
    /* Here and not later: privileges may be dropped after start-up. */
    if (fph_scanner_open_with(&fs->scanner, &opts) < 0 ||
        ((fs->want_prescan ||
          (fs->verify != FPH_VERIFY_OFF && fph_source_asks_guest(fs))) &&
         fph_watch_open(&fs->watch) < 0)) {
        error_setg(errp, "out of memory for fph-source");
        return;
    }
    if (fs->mode == FPH_MODE_PAGEMAP &&
        fph_scanner_error(fs->scanner, &why) < 0) {
        fph_source_set_state(fs, FPH_STATE_INACTIVE, "%s", why);
    }
    if (fph_source_asks_guest(fs)) {
        fs->hints = fph_hints_new(fs);
    }
    if (fs->tracer_path) {
        fs->tracer = fph_tracer_new(fs->tracer_path);
    }
    if (fs->want_prescan) {
        fs->prescan = fph_prescan_new(fs);
    }

    WITH_QEMU_LOCK_GUARD(&fph_lock) {
        fph_source = fs;
    }
    migration_add_notifier(&fs->migration_notifier,
                           fph_source_migration_notify);
    fs->precopy_notifier.notify = fph_source_precopy_notify;
    precopy_add_notifier(&fs->precopy_notifier);
}

static bool fph_source_can_be_deleted(UserCreatable *uc)
{
    return !FPH_SOURCE(uc)->armed;
}

static void fph_source_init(Object *obj)
{
    FphSource *fs = FPH_SOURCE(obj);

    fs->blocks = g_ptr_array_new_with_free_func(fph_block_free);
    fs->pv_wait = FPH_PV_WAIT_DEFAULT;
    fs->prescan_cpu = FPH_PRESCAN_CPU_DEFAULT;
}

static void fph_source_finalize(Object *obj)
{
    FphSource *fs = FPH_SOURCE(obj);

    /*
     * Not in a migration, which has a reference.  If QEMU quits meanwhile, the
     * object stays: its thread cannot be waited for, because it may wait for
     * the bitmap mutex, and that for a peer that does not read.
     */
    if (fph_source == fs) {
        precopy_remove_notifier(&fs->precopy_notifier);
        migration_remove_notifier(&fs->migration_notifier);
        WITH_QEMU_LOCK_GUARD(&fph_lock) {
            fph_source = NULL;
        }
    }
    fph_prescan_free(fs->prescan);
    fph_hints_free(fs->hints);
    fph_tracer_free(fs->tracer);
    g_ptr_array_unref(fs->blocks);
    fph_watch_close(fs->watch);
    fph_scanner_close(fs->scanner);
    g_free(fs->pv_device);
    g_free(fs->tracer_path);
    g_free(fs->inactive_reason);
}

static void fph_source_class_init(ObjectClass *oc, void *data)
{
    UserCreatableClass *ucc = USER_CREATABLE_CLASS(oc);

    ucc->complete = fph_source_complete;
    ucc->can_be_deleted = fph_source_can_be_deleted;

    object_class_property_add_enum(oc, "mode", "FphMode", &FphMode_lookup,
                                   fph_source_get_mode, fph_source_set_mode);
    object_class_property_set_description(oc, "mode",
        "Which witness decides that a page can be left out");
    object_class_property_add_enum(oc, "scanner", "FphScannerKind",
                                   &FphScannerKind_lookup,
                                   fph_source_get_scanner,
                                   fph_source_set_scanner);
    object_class_property_set_description(oc, "scanner",
        "How the host's page tables are read");
    object_class_property_add_enum(oc, "verify", "FphVerify",
                                   &FphVerify_lookup, fph_source_get_verify,
                                   fph_source_set_verify);
    object_class_property_set_description(oc, "verify",
        "Whether to look once more at what was left out, at the end");
    object_class_property_add_str(oc, "pv-device", fph_source_get_pv_device,
                                  fph_source_set_pv_device);
    object_class_property_set_description(oc, "pv-device",
        "Device through which the guest reports its free pages");
    object_class_property_add_str(oc, "tracer", fph_source_get_tracer,
                                  fph_source_set_tracer);
    object_class_property_set_description(oc, "tracer",
        "Where the tracer is pinned, such as /sys/fs/bpf/fph");
    object_class_property_add(oc, "pv-wait", "uint32", fph_source_get_ms,
                              fph_source_set_ms, NULL,
                              (void *)offsetof(FphSource, pv_wait));
    object_class_property_set_description(oc, "pv-wait",
        "Longest wait for the guest before pages are sent (milliseconds)");
    object_class_property_add_bool(oc, "dry-run", fph_source_get_dry_run,
                                   fph_source_set_dry_run);
    object_class_property_set_description(oc, "dry-run",
        "Count what could be left out, and send it all the same");
    object_class_property_add_bool(oc, "assume-zero-destination",
                                   fph_source_get_assume_zero,
                                   fph_source_set_assume_zero);
    object_class_property_set_description(oc, "assume-zero-destination",
        "Each memory-backend-file of the destination is on a new file");
    object_class_property_add_bool(oc, "prescan", fph_source_get_prescan,
                                   fph_source_set_prescan);
    object_class_property_set_description(oc, "prescan",
        "Look for pages that hold only zeroes before a migration");
    object_class_property_add(oc, "prescan-cpu", "uint8",
                              fph_source_get_prescan_cpu,
                              fph_source_set_prescan_cpu, NULL, NULL);
    object_class_property_set_description(oc, "prescan-cpu",
        "Share of one CPU that prescan may use (percent)");
    object_class_property_add(oc, "x-pv-delay", "uint32", fph_source_get_ms,
                              fph_source_set_ms, NULL,
                              (void *)offsetof(FphSource, pv_delay));
    object_class_property_set_description(oc, "x-pv-delay",
        "Delay before a part of an answer is used (milliseconds), for tests");
}

static const TypeInfo fph_source_info = {
    .name = TYPE_FPH_SOURCE,
    .parent = TYPE_OBJECT,
    .instance_size = sizeof(FphSource),
    .instance_init = fph_source_init,
    .instance_finalize = fph_source_finalize,
    .class_init = fph_source_class_init,
    .interfaces = (InterfaceInfo[]) {
        { TYPE_USER_CREATABLE },
        { }
    }
};

static void fph_source_register_types(void)
{
    qemu_mutex_init(&fph_lock);
    type_register_static(&fph_source_info);
}

type_init(fph_source_register_types);

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

FphInfoList *qmp_query_fph(Error **errp)
{
    FphSource *fs = fph_source;
    FphBlockInfoList **tail;
    FphInfoList *list = NULL;
    FphInfo *info;

    if (!fs) {
        return NULL;
    }

    info = g_new0(FphInfo, 1);
    info->id = g_strdup(object_get_canonical_path_component(OBJECT(fs)));
    info->mode = fs->mode;
    info->dry_run = fs->dry_run;
    info->verify = fs->verify;
    info->verified = fs->verified;
    info->watched = fs->watched;
    info->witness_reason = g_strdup(qatomic_read(&fs->witness_reason));
    info->violations = fs->violations;
    info->verify_ns = fs->verify_ns;
    /* Whoever has seen a migration complete need not wait for its clean-up */
    info->state = fs->state == FPH_STATE_ACTIVE && !migration_is_running() ?
                  FPH_STATE_ENDED : fs->state;
    info->inactive_reason = g_strdup(fs->inactive_reason);
    info->page_size = qemu_target_page_size();
    info->epoch = fs->epoch;
    info->chunks = stat64_get(&fs->chunks);
    info->chunks_not_scanned = stat64_get(&fs->chunks_not_scanned);
    info->given_up = stat64_get(&fs->given_up);
    info->scan_ns = stat64_get(&fs->scan_ns);
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

    tail = &info->blocks;
    for (guint i = 0; i < fs->blocks->len; i++) {
        QAPI_LIST_APPEND(tail, fph_block_query(
                                   g_ptr_array_index(fs->blocks, i), info));
    }
    QAPI_LIST_PREPEND(list, info);
    return list;
}

FphPageRangeList *qmp_x_query_fph_pages(Error **errp)
{
    FphPageRangeList *list = NULL, **tail = &list;
    FphSource *fs = fph_source;

    for (guint i = 0; fs && i < fs->blocks->len; i++) {
        FphBlock *block = g_ptr_array_index(fs->blocks, i);
        uint64_t npages = block->region.used / qemu_target_page_size();
        FphPageRange *range = NULL;

        for (uint64_t page = 0; block->skip && page < npages; page++) {
            unsigned int why = fph_skip_test(block->skip, page);
            bool guest = why & (1 << FPH_FREE);
            bool host = why & ~(1 << FPH_FREE);

            if (!why) {
                range = NULL;
                continue;
            }
            if (!range || range->guest != guest || range->host != host) {
                range = g_new0(FphPageRange, 1);
                range->block = g_strdup(block->name);
                range->first = page;
                range->guest = guest;
                range->host = host;
                QAPI_LIST_APPEND(tail, range);
            }
            range->count++;
        }
    }
    return list;
}

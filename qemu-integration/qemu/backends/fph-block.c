/*
 * fph-source: what a RAM block is to it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/madvise.h"
#include "qemu/rcu.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "exec/target_page.h"
#include "hw/mem/nvdimm.h"
#include "hw/mem/pc-dimm.h"
#include "hw/virtio/virtio-mem.h"
#include "system/fph-compat.h"
#include "system/fph.h"
#include "system/hostmem.h"
#include "system/numa.h"
#include FPH_BOARDS_H
#include "trace.h"

#include "fph-block.h"

/* 0.2 ms of small pages */
#define FPH_UNWATCH_STEP (16 * MiB)

/*
 * Is @backend the memory behind a DIMM or a virtio-mem device?  NVDIMMs are
 * DIMMs too, but keep their content.
 */
static int fph_match_memory_device(Object *obj, void *backend)
{
    Object *memdev = NULL;

    if (object_dynamic_cast(obj, TYPE_VIRTIO_MEM)) {
        memdev = object_property_get_link(obj, VIRTIO_MEM_MEMDEV_PROP, NULL);
    } else if (object_dynamic_cast(obj, TYPE_PC_DIMM) &&
               !object_dynamic_cast(obj, TYPE_NVDIMM)) {
        memdev = object_property_get_link(obj, PC_DIMM_MEMDEV_PROP, NULL);
    }
    return memdev && memdev == backend;
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

/* Mapped privately of a file that others can have mapped, too */
static bool fph_rb_is_copy(RAMBlock *rb)
{
    struct stat st;

    return !qemu_ram_is_shared(rb) && qemu_ram_is_named_file(rb) &&
           (fstat(rb->fd, &st) < 0 || st.st_nlink);
}

int fph_ram_discard(FphDiscard *d, RAMBlock *rb, uint64_t start, uint64_t len)
{
    if (rb != d->rb) {
        d->rb = rb;
        d->none = !fph_rb_is_guest_ram(rb) ||
                  rb->flags & (RAM_READONLY | RAM_PREALLOC);
        d->copies = fph_rb_is_copy(rb);
    }
    if (d->none) {
        return 0;
    }
    if (!d->copies) {
        return ram_block_discard_range(rb, start, len);
    }
    return qemu_madvise(rb->host + start, len, QEMU_MADV_DONTNEED) ? -errno : 0;
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

void fph_rb_describe(RAMBlock *rb, const FphConfig *config,
                     struct fph_region *region)
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
    if (qemu_ram_is_named_file(rb) && !config->assume_zero_destination) {
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

bool fph_block_is_whole(const FphBlock *block)
{
    return QEMU_IS_ALIGNED(block->region.used,
                           qemu_target_page_size() * BITS_PER_LONG);
}

uint64_t fph_block_chunks(const FphBlock *block)
{
    return DIV_ROUND_UP(block->region.used, block->chunk);
}

/* What the host is asked in such a block, if anything */
static void fph_block_find_method(FphBlock *block, const FphConfig *config,
                                  struct fph_scanner *scanner)
{
    if (fph_region_classify(scanner, &block->region, &block->verdict) < 0) {
        block->verdict.method = FPH_METHOD_NONE;
        block->verdict.why = "inconsistent RAM block";
    }
    if (!fph_config_asks_host(config)) {
        block->verdict.method = FPH_METHOD_NONE;
        block->verdict.why = "mode=pv does not ask the host";
    }
    /* The block may go, and its descriptor be another file's, during a scan */
    if (block->verdict.method != FPH_METHOD_NONE && block->region.fd >= 0) {
        block->region.fd = fcntl(block->region.fd, F_DUPFD_CLOEXEC, 0);
        if (block->region.fd < 0) {
            block->verdict.method = FPH_METHOD_NONE;
            block->verdict.why = "the descriptor behind the memory cannot be "
                                 "duplicated";
        }
    } else {
        block->region.fd = -1;
    }
}

static void fph_block_classify(FphBlock *block, const FphConfig *config,
                               struct fph_scanner *scanner)
{
    uint64_t npages = block->region.max / qemu_target_page_size();

    fph_block_find_method(block, config, scanner);
    if (!block->rb->bmap) {
        block->verdict.method = FPH_METHOD_NONE;
        block->verdict.why = "not part of this migration";
        return;
    }
    block->hints = fph_config_asks_guest(config) &&
                   fph_block_takes_hints(block);
    if (!block->hints && block->verdict.method == FPH_METHOD_NONE) {
        return;
    }
    if (fph_skip_new(&block->skip, npages) < 0) {
        block->hints = false;
        block->verdict.method = FPH_METHOD_NONE;
        block->verdict.why = "out of memory for the skip bitmap";
        return;
    }
    if (config->dry_run) {
        fph_skip_set_dry_run(block->skip);
    }
    block->taken = bitmap_new(fph_block_chunks(block));
}

FphBlock *fph_block_new(RAMBlock *rb, const FphConfig *config,
                        struct fph_scanner *scanner)
{
    FphBlock *block = g_new0(FphBlock, 1);

    block->rb = rb;
    block->name = g_strdup(qemu_ram_get_idstr(rb));
    block->chunk = (uint64_t)qemu_target_page_size() << rb->clear_bmap_shift;
    fph_rb_describe(rb, config, &block->region);
    fph_block_classify(block, config, scanner);
    trace_fph_source_block(block->name,
                           fph_backing_name(block->verdict.backing),
                           fph_method_name(block->verdict.method),
                           block->verdict.why ?: "");
    return block;
}

static void fph_block_free(gpointer opaque)
{
    FphBlock *block = opaque;

    if (block->region.fd >= 0) {
        close(block->region.fd);
    }
    fph_skip_free(block->skip);
    g_free(block->taken);
    g_free(block->watched);
    g_free(block->name);
    g_free(block);
}

GPtrArray *fph_blocks_new(void)
{
    return g_ptr_array_new_with_free_func(fph_block_free);
}

FphBlock *fph_blocks_find(GPtrArray *blocks, RAMBlock *rb)
{
    for (guint i = 0; i < blocks->len; i++) {
        FphBlock *block = g_ptr_array_index(blocks, i);

        if (block->rb == rb) {
            return block;
        }
    }
    return NULL;
}

static int fph_found_add(void *opaque, uint64_t start, uint64_t len,
                         enum fph_reason why)
{
    FphFound found = { .start = start, .len = len, .why = why };

    g_array_append_val(opaque, found);
    return 0;
}

int fph_block_scan(const FphBlock *block, struct fph_scanner *scanner,
                   uint64_t start, uint64_t end, GArray *found,
                   struct fph_scan_stats *stats)
{
    return fph_scan_region(scanner, &block->region, block->verdict.method,
                           start, end - start, fph_found_add, found, stats);
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

void fph_unwatch(struct fph_watch *watch, const struct fph_region *region,
                 bool (*exists)(const void *opaque), const void *opaque)
{
    for (uint64_t at = 0; at < region->used; at += FPH_UNWATCH_STEP) {
        int64_t start = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);

        WITH_RCU_READ_LOCK_GUARD() {
            if (exists && !exists(opaque)) {
                return;
            }
            fph_watch_remove_part(watch, region, at, FPH_UNWATCH_STEP);
        }
        g_usleep((qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - start) / 1000);
    }
}

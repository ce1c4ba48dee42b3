/*
 * Leaving guest pages out of an outgoing migration: what needs nothing of RAM's
 * own state
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/stats64.h"
#include "migration/ram-skip.h"
#include "migration-stats.h"
#include "migration.h"
#include "qemu-file.h"
#include "trace.h"

#ifdef FPH_COUNTS_SYNCS
static Stat64 ram_syncs;

void ram_sync_begins(void)
{
    stat64_add(&ram_syncs, 1);
}

uint64_t ram_sync_count(void)
{
    return stat64_get(&ram_syncs);
}
#else
uint64_t ram_sync_count(void)
{
    return stat64_get(&mig_stats.dirty_sync_count);
}
#endif

uint64_t ram_chunk_armed(RAMBlock *rb, uint64_t start, uint64_t len)
{
    const RAMSkipOps *ops = qatomic_read(&ram_skip_ops);
    uint64_t cleared = 0;

    if (ops) {
        cleared = ops->chunk_armed(rb, start, len);
        trace_ram_skip_chunk_armed(rb->idstr, start, len, cleared);
    }
    return cleared;
}

void ram_block_synced(RAMBlock *rb)
{
    const RAMSkipOps *ops = qatomic_read(&ram_skip_ops);

    if (ops) {
        trace_ram_skip_block_synced(rb->idstr);
        ops->block_synced(rb);
    }
}

bool ram_defer_armed(void)
{
    const RAMSkipOps *ops = qatomic_read(&ram_skip_ops);
    bool deferred = false;

    if (ops) {
        deferred = ops->defer_armed();
        trace_ram_skip_defer_armed(deferred);
    }
    return deferred;
}

bool ram_free_page_hint_taken(void *addr, size_t len)
{
    const RAMSkipOps *ops = qatomic_read(&ram_skip_ops);
    bool taken = false;

    if (ops) {
        taken = ops->free_page_hint(addr, len);
        trace_ram_skip_free_page_hint(addr, len, taken);
    }
    return taken;
}

/* Not when a postcopy was asked for: its pages cannot wait */
void ram_hold_back(bool sync)
{
    const RAMSkipOps *ops = qatomic_read(&ram_skip_ops);
    MigrationState *s = migrate_get_current();
    unsigned int times = 0;

    if (!ops) {
        return;
    }
    while (!qemu_file_get_error(s->to_dst_file) &&
           !qatomic_read(&s->start_postcopy) && ops->hold_back(sync)) {
        times++;
    }
    trace_ram_skip_hold_back(sync, times);
}

bool ram_another_round(uint64_t pending)
{
    const RAMSkipOps *ops = qatomic_read(&ram_skip_ops);
    bool again;

    if (!ops || qatomic_read(&migrate_get_current()->start_postcopy)) {
        return false;
    }
    again = ops->another_round(pending);
    trace_ram_skip_another_round(pending, again);
    return again;
}

bool ram_skip_postcopy(uint64_t *dirty_pages)
{
    const RAMSkipOps *ops = qatomic_read(&ram_skip_ops);
    uint64_t due;

    if (!ops) {
        return false;
    }
    due = ops->postcopy();
    *dirty_pages += due;
    trace_ram_skip_postcopy(due);
    return true;
}

bool ram_userfaultfd_held(RAMBlock *rb)
{
    const RAMWatchOps *ops = qatomic_read(&ram_watch_ops);
    bool held = false;

    if (ops) {
        held = ops->userfaultfd_held(rb);
        trace_ram_watch_userfaultfd_held(rb->idstr, held);
    }
    return held;
}

void ram_userfaultfd_wanted(void)
{
    const RAMWatchOps *ops = qatomic_read(&ram_watch_ops);

    if (ops) {
        trace_ram_watch_userfaultfd_wanted();
        ops->userfaultfd_wanted();
    }
}

void ram_memory_loaded(void)
{
    const RAMWatchOps *ops = qatomic_read(&ram_watch_ops);

    if (ops) {
        trace_ram_watch_memory_loaded();
        ops->memory_loaded();
    }
}

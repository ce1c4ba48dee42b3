/*
 * Leaving guest pages out of an outgoing migration: what needs nothing of RAM's
 * own state
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "migration/ram-skip.h"
#include "migration-stats.h"
#include "migration.h"
#include "qemu-file.h"

uint64_t ram_sync_count(void)
{
    return stat64_get(&mig_stats.dirty_sync_count);
}

/* Not when a postcopy was asked for: its pages cannot wait */
void ram_hold_back(bool sync)
{
    const RAMSkipOps *ops = qatomic_read(&ram_skip_ops);
    MigrationState *s = migrate_get_current();

    while (ops && !qemu_file_get_error(s->to_dst_file) &&
           !qatomic_read(&s->start_postcopy)) {
        if (!ops->hold_back(sync)) {
            break;
        }
    }
}

bool ram_another_round(uint64_t pending)
{
    const RAMSkipOps *ops = qatomic_read(&ram_skip_ops);

    return ops && !qatomic_read(&migrate_get_current()->start_postcopy) &&
           ops->another_round(pending);
}

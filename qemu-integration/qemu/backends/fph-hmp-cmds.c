/*
 * HMP command of fph-source
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"
#include "qapi/qapi-commands-fph.h"

void hmp_info_fph(Monitor *mon, const QDict *qdict)
{
    g_autoptr(FphInfoList) list = qmp_query_fph(NULL);

    if (!list) {
        monitor_printf(mon, "no fph-source object\n");
    }

    for (FphInfoList *l = list; l; l = l->next) {
        FphInfo *info = l->value;
        uint64_t kib = info->page_size / 1024;

        monitor_printf(mon, "%s: mode %s, %s%s%s\n", info->id,
                       FphMode_str(info->mode), FphState_str(info->state),
                       info->inactive_reason ? ": " : "",
                       info->inactive_reason ?: "");
        monitor_printf(mon, "  skipped: %" PRIu64 " pages (%" PRIu64 " KiB)\n",
                       info->skipped, info->skipped * kib);
        monitor_printf(mon, "  unmapped: %" PRIu64 " pages\n", info->unmapped);
        monitor_printf(mon, "  zero-mapped: %" PRIu64 " pages\n",
                       info->zero_mapped);
        monitor_printf(mon, "  sent again: %" PRIu64 " pages\n", info->resent);
        monitor_printf(mon, "  chunks: %" PRIu64 " scanned in %" PRIu64 " us, %"
                       PRIu64 " not scanned, %" PRIu64 " given up\n",
                       info->chunks, info->scan_ns / 1000,
                       info->chunks_not_scanned, info->given_up);
        for (FphBlockInfoList *b = info->blocks; b; b = b->next) {
            FphBlockInfo *block = b->value;

            monitor_printf(mon, "  block %s: %" PRIu64 " KiB, %s, %s",
                           block->name, block->size / 1024, block->backing,
                           block->method);
            if (block->reason) {
                monitor_printf(mon, " (%s)\n", block->reason);
            } else {
                monitor_printf(mon, ", %" PRIu64 " pages skipped\n",
                               block->skipped);
            }
        }
    }
}

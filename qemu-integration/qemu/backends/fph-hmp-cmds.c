/*
 * HMP command of fph-source
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"
#include "qapi/qapi-commands-fph.h"

static void hmp_print_hints(Monitor *mon, FphHintInfo *hints)
{
    monitor_printf(mon, "  guest: %s%s%s%s, %s%s%s\n",
                   hints->has_transport ?
                   FphTransport_str(hints->transport) : "no device",
                   hints->device ? " (" : "", hints->device ?: "",
                   hints->device ? ")" : "", FphHintState_str(hints->state),
                   hints->reason ? ": " : "", hints->reason ?: "");
    if (!hints->requests) {
        return;
    }
    monitor_printf(mon, "  requests: %" PRIu64 ", %" PRIu64 " answered, %"
                   PRIu64 " frames came too late\n", hints->requests,
                   hints->answers, hints->stale);
    monitor_printf(mon, "  first answer: %" PRIu64 " us; sending waited %"
                   PRIu64 " us\n", hints->latency_ns / 1000,
                   hints->wait_ns / 1000);
    if (hints->walk) {
        monitor_printf(mon, "  walk (%s): %" PRIu64 " us in the guest, lock "
                       "held for %" PRIu64 " us at most\n", hints->walk,
                       hints->walk_ns / 1000, hints->lock_ns / 1000);
    }
}

static void hmp_print_prescan(Monitor *mon, FphPrescanInfo *prescan)
{
    monitor_printf(mon, "  prescan: %s%s%s, %" PRIu64 " pages are zero, "
                   "%" PRIu64 " passes, %" PRIu64 " ms of CPU time\n",
                   FphPrescanState_str(prescan->state),
                   prescan->reason ? ": " : "", prescan->reason ?: "",
                   prescan->zero, prescan->passes,
                   prescan->cpu_ns / 1000000);
}

void hmp_info_fph(Monitor *mon, const QDict *qdict)
{
    g_autoptr(FphInfoList) list = qmp_query_fph(NULL);

    if (!list) {
        monitor_printf(mon, "no fph-source object\n");
    }

    for (FphInfoList *l = list; l; l = l->next) {
        FphInfo *info = l->value;
        uint64_t kib = info->page_size / 1024;

        monitor_printf(mon, "%s: mode %s, %s%s%s%s\n", info->id,
                       FphMode_str(info->mode),
                       info->dry_run ? "dry run, " : "",
                       FphState_str(info->state),
                       info->inactive_reason ? ": " : "",
                       info->inactive_reason ?: "");
        monitor_printf(mon, "  skipped: %" PRIu64 " pages (%" PRIu64 " KiB)\n",
                       info->skipped, info->skipped * kib);
        monitor_printf(mon, "  unmapped: %" PRIu64 " pages\n", info->unmapped);
        monitor_printf(mon, "  zero-mapped: %" PRIu64 " pages\n",
                       info->zero_mapped);
        if (info->zero_content) {
            monitor_printf(mon, "  zero content: %" PRIu64 " pages\n",
                           info->zero_content);
        }
        if (info->prescan) {
            hmp_print_prescan(mon, info->prescan);
        }
        if (info->hints) {
            monitor_printf(mon, "  free: %" PRIu64 " pages (%" PRIu64
                           " known to the host too)\n", info->free,
                           info->both);
            hmp_print_hints(mon, info->hints);
        }
        monitor_printf(mon, "  sent again: %" PRIu64 " pages\n", info->resent);
        if (info->postcopy_zero) {
            monitor_printf(mon, "  sent as zero after the switch to postcopy: %"
                           PRIu64 " pages\n", info->postcopy_zero);
        }
        monitor_printf(mon, "  chunks: %" PRIu64 " scanned in %" PRIu64 " us, %"
                       PRIu64 " not scanned\n",
                       info->chunks, info->scan_ns / 1000,
                       info->chunks_not_scanned);
        if (info->tracer) {
            monitor_printf(mon, "  tracer: %s%s, %" PRIu64
                           " pages passed over\n", info->tracer->active ?
                           "active" : "inactive: ",
                           info->tracer->inactive_reason ?: "",
                           info->tracer->passed_over);
        }
        if (info->verify != FPH_VERIFY_OFF) {
            monitor_printf(mon, "  verify %s: %" PRIu64 " pages, and %" PRIu64
                           " watched, in %" PRIu64 " us, %" PRIu64
                           " violations\n", FphVerify_str(info->verify),
                           info->verified, info->watched,
                           info->verify_ns / 1000, info->violations);
            if (info->witness_reason) {
                monitor_printf(mon, "  not watched: %s\n",
                               info->witness_reason);
            }
        }
        for (FphBlockInfoList *b = info->blocks; b; b = b->next) {
            FphBlockInfo *block = b->value;

            monitor_printf(mon, "  block %s: %" PRIu64 " KiB, %s, %s",
                           block->name, block->size / 1024, block->backing,
                           block->method);
            if (block->reason) {
                monitor_printf(mon, " (%s)", block->reason);
            }
            if (!block->reason || block->skipped) {
                monitor_printf(mon, ", %" PRIu64 " pages skipped",
                               block->skipped);
            }
            monitor_printf(mon, "\n");
        }
    }
}

/*
 * fph-source: memory that the kernel saw being taken need not be scanned
 *
 * Whether the tracer is there, right, or late never decides what is sent: what
 * it does not name is scanned, and what it names is sent.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/rcu.h"
#include "qemu/units.h"
#include "exec/cpu-common.h"
#include "system/fph-compat.h"
#include FPH_RAMLIST_H
#include "trace.h"

#include "fph-tracer.h"

#include <fph/tracer.h>

/*
 * Protects which memory is traced: threads look for what to scan while memory
 * comes and goes.  The innermost lock.
 */
static QemuMutex fph_tracer_lock;

/* A scan of smaller blocks, ROMs and video memory among them, takes no time */
#define FPH_TRACER_MIN (32 * MiB)

struct FphTracer {
    RAMBlockNotifier notifier;
    char *path;
    char *why;                  /* written under the BQL, NULL if active */

    /* Written under the BQL and fph_tracer_lock */
    struct fph_tracer *tracer;  /* NULL: inactive */
    uint64_t memory;            /* bytes that are traced */
};

static void G_GNUC_PRINTF(2, 3)
fph_tracer_deactivate(FphTracer *ft, const char *fmt, ...)
{
    va_list ap;

    g_free(ft->why);
    va_start(ap, fmt);
    ft->why = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    WITH_QEMU_LOCK_GUARD(&fph_tracer_lock) {
        g_clear_pointer(&ft->tracer, fph_tracer_close);
        ft->memory = 0;
    }
    trace_fph_tracer_inactive(ft->path, ft->why);
}

/* Whole blocks or none: a tracer that has only some of them helps no one */
static void fph_tracer_block_added(RAMBlockNotifier *n, void *host, size_t size,
                                   size_t max_size)
{
    FphTracer *ft = container_of(n, FphTracer, notifier);
    struct fph_traced memory = {
        .sz = sizeof(memory),
        .start = (uintptr_t)host,
        .len = max_size,
        .fd = -1,
    };
    g_autofree char *name = NULL;
    const char *why;
    int ret;

    if (!ft->tracer || max_size < FPH_TRACER_MIN) {
        return;
    }
    WITH_RCU_READ_LOCK_GUARD() {
        ram_addr_t offset;
        RAMBlock *rb = qemu_ram_block_from_host(host, false, &offset);

        /* It gets its ID later */
        name = g_strdup(rb && rb->mr ? memory_region_name(rb->mr) : "");
        if (rb && qemu_ram_is_shared(rb)) {
            memory.fd = qemu_ram_get_fd(rb);
            memory.offset = rb->fd_offset;
        }
    }
    WITH_QEMU_LOCK_GUARD(&fph_tracer_lock) {
        ret = fph_tracer_add(ft->tracer, &memory, &why);
        ft->memory += ret < 0 ? 0 : max_size;
    }
    if (ret < 0) {
        fph_tracer_deactivate(ft, "%s (RAM block '%s', %zu MiB)", why, name,
                              (size_t)(max_size / MiB));
        return;
    }
    trace_fph_tracer_add(name, max_size);
}

static void fph_tracer_block_removed(RAMBlockNotifier *n, void *host,
                                     size_t size, size_t max_size)
{
    FphTracer *ft = container_of(n, FphTracer, notifier);

    if (!ft->tracer || max_size < FPH_TRACER_MIN) {
        return;
    }
    WITH_QEMU_LOCK_GUARD(&fph_tracer_lock) {
        fph_tracer_remove(ft->tracer, (uintptr_t)host);
        ft->memory -= max_size;
    }
}

FphTracer *fph_tracer_new(const char *path)
{
    FphTracer *ft = g_new0(FphTracer, 1);
    const char *why;

    ft->path = g_strdup(path);
    if (fph_tracer_open(&ft->tracer, path, 0, &why) < 0) {
        ft->tracer = NULL;
        fph_tracer_deactivate(ft, "%s", why);
    }
    ft->notifier.ram_block_added = fph_tracer_block_added;
    ft->notifier.ram_block_removed = fph_tracer_block_removed;
    ram_block_notifier_add(&ft->notifier);
    return ft;
}

void fph_tracer_retire(FphTracer *ft)
{
    ram_block_notifier_remove(&ft->notifier);
    WITH_QEMU_LOCK_GUARD(&fph_tracer_lock) {
        g_clear_pointer(&ft->tracer, fph_tracer_close);
    }
}

void fph_tracer_free(FphTracer *ft)
{
    if (ft) {
        g_free(ft->path);
        g_free(ft->why);
        g_free(ft);
    }
}

void fph_tracer_reset(FphTracer *ft)
{
    const char *why;

    if (ft->tracer && fph_tracer_check(ft->tracer, &why) < 0) {
        fph_tracer_deactivate(ft, "%s", why);
    }
}

bool fph_tracer_find(FphTracer *ft, void *host, uint64_t len, uint64_t *start,
                     uint64_t *end)
{
    uint64_t first = (uintptr_t)host, from, to;

    QEMU_LOCK_GUARD(&fph_tracer_lock);
    if (!ft || !ft->tracer) {
        *end = len;
        return *start < len;
    }
    if (fph_tracer_next(ft->tracer, first + *start, first + len, &from,
                        &to) == 0) {
        return false;
    }
    *start = from - first;
    *end = to - first;
    return true;
}

FphTracerInfo *fph_tracer_query(FphTracer *ft)
{
    FphTracerInfo *info = g_new0(FphTracerInfo, 1);

    info->path = g_strdup(ft->path);
    info->active = ft->tracer != NULL;
    info->inactive_reason = g_strdup(ft->why);
    info->memory = ft->memory;
    return info;
}

static void fph_tracer_init(void)
{
    qemu_mutex_init(&fph_tracer_lock);
}

type_init(fph_tracer_init);

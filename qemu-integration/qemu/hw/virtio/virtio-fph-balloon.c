/*
 * virtio-fph: the balloon
 *
 * The guest names pages that it does not use in frames of runs; their memory
 * is given back to the host, many pages at a time.  Nothing is told to the
 * migration: that such pages are absent, it sees by itself, and what was sent
 * of them nobody reads.  Everything runs under the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-events-machine.h"
#include "qemu/bitmap.h"
#include "qemu/iov.h"
#include "qemu/main-loop.h"
#include "migration/misc.h"
#include "system/balloon.h"
#include "system/fph-compat.h"
#include "system/fph.h"
#include FPH_BOARDS_H
#include "trace.h"

#include "virtio-fph-device.h"

#define BALLOON_QUEUE_SIZE 64

#define FRAME_MAX (sizeof(struct virtio_fph_balloon) + VIRTIO_FPH_PAYLOAD_MAX)

/*
 * Frames are taken up to one of these, then their pages are discarded all at
 * once: neighbours are joined, whichever frame they came in.
 */
#define BATCH_PAGES VIRTIO_FPH_BALLOON_PAGES_MAX
#define BATCH_RANGES 16384
#define FAILURES_MAX 16

#define PAGE (1 << VIRTIO_FPH_PFN_SHIFT)

/* A page of the host that is larger than those that the guest names */
typedef struct FphPartialPage {
    uint64_t addr;              /* ram_addr_t of its start */
    unsigned long *map;         /* what of it is in the balloon */
    unsigned long bits;
} FphPartialPage;

static void fph_partial_page_free(void *opaque)
{
    FphPartialPage *page = opaque;

    g_free(page->map);
    g_free(page);
}

static uint64_t fph_balloon_ram_size(void)
{
    MachineState *machine = MACHINE(qdev_get_machine());

    return machine->ram_size +
           (machine->device_memory ? machine->device_memory->dimm_size : 0);
}

static uint64_t fph_balloon_guest_size(VirtIOFph *fph)
{
    uint64_t size = fph_balloon_ram_size();

    return size - MIN(size, fph->balloon_actual << VIRTIO_FPH_PFN_SHIFT);
}

static void virtio_fph_balloon_stat(void *opaque, BalloonInfo *info)
{
    info->actual = fph_balloon_guest_size(opaque);
}

static void virtio_fph_balloon_to_target(void *opaque, ram_addr_t target)
{
    VirtIOFph *fph = opaque;
    uint64_t size = fph_balloon_ram_size();

    fph->balloon_target = (size - MIN(target, size)) >> VIRTIO_FPH_PFN_SHIFT;
    trace_virtio_fph_balloon_target(fph->balloon_target);
    virtio_notify_config(VIRTIO_DEVICE(fph));
}

void virtio_fph_balloon_get_config(VirtIOFph *fph,
                                   struct virtio_fph_config *config)
{
    config->target = cpu_to_le64(fph->balloon_target);
    config->actual = cpu_to_le64(fph->balloon_actual);
}

/*
 * Where the host's pages are larger, a page is discarded when all of it is in
 * the balloon.  What is known of it does not migrate: the destination begins
 * with none of it, so it discards too little at worst.
 */
static FphPartialPage *fph_partial_page(VirtIOFph *fph, RAMBlock *rb,
                                        uint64_t start, bool create)
{
    unsigned long bits = qemu_ram_pagesize(rb) / PAGE;
    uint64_t addr = qemu_ram_get_offset(rb) + start;
    FphPartialPage *page = g_hash_table_lookup(fph->balloon_partial, &addr);

    /* The address may have been another block's before */
    if (page && page->bits != bits) {
        g_hash_table_remove(fph->balloon_partial, &addr);
        page = NULL;
    }
    if (!page && create) {
        page = g_new(FphPartialPage, 1);
        page->addr = addr;
        page->bits = bits;
        page->map = bitmap_new(bits);
        g_hash_table_insert(fph->balloon_partial, &page->addr, page);
    }
    return page;
}

static void virtio_fph_balloon_mark(VirtIOFph *fph, const FphRamRange *r,
                                    bool inflate, GArray *discard,
                                    uint64_t *pages)
{
    uint64_t size = qemu_ram_pagesize(r->rb);
    uint64_t end = r->start + r->len;
    uint64_t addr, next;

    for (addr = r->start; addr < end; addr = next) {
        FphRamRange whole = {
            .rb = r->rb,
            .start = QEMU_ALIGN_DOWN(addr, size),
            .len = size,
        };
        long first = (addr - whole.start) / PAGE;
        FphPartialPage *page = fph_partial_page(fph, r->rb, whole.start,
                                                inflate);

        next = MIN(end, whole.start + size);
        if (inflate) {
            bitmap_set(page->map, first, (next - addr) / PAGE);
            if (bitmap_full(page->map, page->bits)) {
                g_array_append_val(discard, whole);
                *pages += page->bits;
            }
        } else if (page) {
            bitmap_clear(page->map, first, (next - addr) / PAGE);
            if (bitmap_empty(page->map, page->bits)) {
                g_hash_table_remove(fph->balloon_partial, &page->addr);
            }
        }
    }
}

static int fph_ram_range_cmp(const void *a, const void *b)
{
    const FphRamRange *x = a, *y = b;

    if (x->rb != y->rb) {
        return x->rb < y->rb ? -1 : 1;
    }
    return x->start < y->start ? -1 : x->start > y->start;
}

/* Postcopy and background snapshots cannot do with memory that vanishes */
static bool virtio_fph_balloon_inhibited(void)
{
    return ram_block_discard_is_disabled() ||
           migration_in_incoming_postcopy() || migration_in_bg_snapshot();
}

static void virtio_fph_balloon_discard(VirtIOFph *fph, GArray *discard)
{
    FphDiscard d = { 0 };
    guint next;

    if (virtio_fph_balloon_inhibited()) {
        return;
    }
    g_array_sort(discard, fph_ram_range_cmp);
    for (guint i = 0; i < discard->len; i = next) {
        FphRamRange r = g_array_index(discard, FphRamRange, i);
        int ret;

        for (next = i + 1; next < discard->len; next++) {
            FphRamRange *n = &g_array_index(discard, FphRamRange, next);

            if (n->rb != r.rb || n->start > r.start + r.len) {
                break;
            }
            r.len = MAX(r.len, n->start + n->len - r.start);
        }
        /*
         * QEMU reports errors itself, and the page only stays where it is.  The
         * guest is not to fill the log where none can be discarded.
         */
        if (fph->balloon_failures >= FAILURES_MAX) {
            break;
        }
        ret = fph_ram_discard(&d, r.rb, r.start, r.len);
        if (ret) {
            fph->balloon_failures++;
        }
        trace_virtio_fph_balloon_discard(r.rb->idstr, r.start, r.len, ret);
    }
}

/*
 * Deal with a frame, but for what it adds to @discard.  Returns what is wrong
 * with it, or NULL; @pages grows by how many pages are in it.
 */
static const char *virtio_fph_balloon_frame(VirtIOFph *fph,
                                            VirtQueueElement *elem,
                                            GArray *discard, uint64_t *pages)
{
    g_autoptr(GArray) ranges = g_array_new(false, false, sizeof(FphHintRange));
    size_t len = iov_size(elem->out_sg, elem->out_num);
    g_autoptr(GArray) parts = NULL;
    g_autofree void *frame = NULL;
    const char *why;
    uint64_t unknown = 0;
    uint64_t n;
    unsigned int op;
    bool inflate;

    if (elem->in_num) {
        return "frame of the balloon that the device should write to";
    }
    if (len > FRAME_MAX) {
        return "frame of the balloon is too large";
    }
    frame = g_malloc(len);
    iov_to_buf(elem->out_sg, elem->out_num, 0, frame, len);
    if (fph_balloon_decode(frame, len, virtio_fph_add_range, ranges, &op, &n,
                           &why) < 0) {
        return why;
    }
    inflate = op == VIRTIO_FPH_BALLOON_INFLATE;
    parts = fph_ram_translate((FphHintRange *)ranges->data, ranges->len,
                              &unknown);
    n -= unknown;
    if (inflate && n + fph->balloon_actual > fph_ram_pages()) {
        return "more pages in the balloon than the guest has";
    }
    if (!inflate && n > fph->balloon_actual) {
        return "more pages taken back than are in the balloon";
    }
    fph->unknown_pages += unknown;
    for (guint i = 0; i < parts->len; i++) {
        FphRamRange *r = &g_array_index(parts, FphRamRange, i);

        if (qemu_ram_pagesize(r->rb) > PAGE) {
            virtio_fph_balloon_mark(fph, r, inflate, discard, pages);
        } else if (inflate) {
            g_array_append_val(discard, *r);
        }
    }
    fph->balloon_actual += inflate ? n : -n;
    /* Pages that are not RAM take their time as well */
    *pages += n + unknown;
    trace_virtio_fph_balloon_frame(op, n, fph->balloon_actual);
    return NULL;
}

void virtio_fph_balloon_receive(VirtIOFph *fph)
{
    g_autoptr(GPtrArray) done = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GArray) discard = NULL;
    uint64_t actual = fph->balloon_actual;
    const char *why = NULL;
    uint64_t pages = 0;

    if (!virtio_vdev_has_feature(VIRTIO_DEVICE(fph), VIRTIO_FPH_F_BALLOON)) {
        return;
    }
    discard = g_array_new(false, false, sizeof(FphRamRange));
    while (!why && !virtio_fph_obstacle(fph)) {
        VirtQueueElement *elem;

        if (pages >= BATCH_PAGES || discard->len >= BATCH_RANGES) {
            qemu_bh_schedule(fph->bh);
            break;
        }
        elem = virtio_fph_pop(fph, fph->balloon_vq);
        if (!elem) {
            break;
        }
        why = virtio_fph_balloon_frame(fph, elem, discard, &pages);
        if (why) {
            virtqueue_detach_element(fph->balloon_vq, elem, 0);
            g_free(elem);
        } else {
            g_ptr_array_add(done, elem);
        }
    }
    virtio_fph_balloon_discard(fph, discard);
    /* Only now: the driver may use a page when its frame has come back */
    for (guint i = 0; i < done->len; i++) {
        virtqueue_push(fph->balloon_vq, g_ptr_array_index(done, i), 0);
    }
    if (done->len) {
        virtio_notify(VIRTIO_DEVICE(fph), fph->balloon_vq);
    }
    if (why) {
        virtio_fph_error(fph, why);
    }
    if (fph->balloon_actual != actual) {
        qapi_event_send_balloon_change(fph_balloon_guest_size(fph));
    }
}

void virtio_fph_balloon_reset(VirtIOFph *fph)
{
    if (!fph->balloon_partial) {
        return;
    }
    g_hash_table_remove_all(fph->balloon_partial);
    fph->balloon_failures = 0;
    if (fph->balloon_actual) {
        fph->balloon_actual = 0;
        qapi_event_send_balloon_change(fph_balloon_guest_size(fph));
    }
}

static void virtio_fph_balloon_handle_output(VirtIODevice *vdev, VirtQueue *vq)
{
    qemu_bh_schedule(VIRTIO_FPH(vdev)->bh);
}

bool virtio_fph_balloon_realize(VirtIOFph *fph, Error **errp)
{
    if (!virtio_fph_has_balloon(fph)) {
        return true;
    }
    if (qemu_add_balloon_handler(virtio_fph_balloon_to_target,
                                 virtio_fph_balloon_stat, fph) < 0) {
        error_setg(errp, "Only one balloon device is supported, and there is "
                   "one beside virtio-fph with balloon=on");
        return false;
    }
    fph->balloon_vq = virtio_add_queue(VIRTIO_DEVICE(fph), BALLOON_QUEUE_SIZE,
                                       virtio_fph_balloon_handle_output);
    fph->balloon_partial = g_hash_table_new_full(g_int64_hash, g_int64_equal,
                                                 NULL, fph_partial_page_free);
    return true;
}

void virtio_fph_balloon_unrealize(VirtIOFph *fph)
{
    if (virtio_fph_has_balloon(fph)) {
        qemu_remove_balloon_handler(fph);
        virtio_delete_queue(fph->balloon_vq);
        g_clear_pointer(&fph->balloon_partial, g_hash_table_unref);
    }
}

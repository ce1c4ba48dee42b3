/*
 * fph-source: the balloon's free page hints as a transport
 *
 * The balloon device starts its hinting on PRECOPY_NOTIFY_BITMAP_ARMED, stops
 * it before each bitmap sync, and hands hints to qemu_guest_free_page_hint()
 * from its iothread.  It tells nobody when the guest has no more of them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/timer.h"
#include "hw/virtio/virtio-balloon.h"
#include "migration/misc.h"
#include "migration/options.h"
#include "system/fph.h"
#include "system/fph-compat.h"
#include FPH_QDEV_H

#define TYPE_FPH_BALLOON "fph-balloon"
OBJECT_DECLARE_SIMPLE_TYPE(FphBalloon, FPH_BALLOON)

/* A guest that has not answered by then is in no hurry */
#define FPH_BALLOON_POLL_MS 1
#define FPH_BALLOON_HASTE_MS 2000
#define FPH_BALLOON_SLOW_POLL_MS 50

struct FphBalloon {
    Object parent;

    VirtIOBalloon *balloon;
    QEMUTimer *timer;
    int64_t asked_at;           /* ms */
};

static uint64_t fph_balloon_unknown_features(VirtIODevice *vdev)
{
    uint64_t features = 0;

    for (unsigned int bit = 0; bit < 64; bit++) {
        if (virtio_vdev_has_feature(vdev, bit)) {
            features |= UINT64_C(1) << bit;
        }
    }
    return fph_virtio_balloon_unknown(features);
}

static bool fph_balloon_ready(FphHinter *h, uint32_t *traits, const char **why)
{
    VirtIOBalloon *balloon = FPH_BALLOON(h)->balloon;
    VirtIODevice *vdev = VIRTIO_DEVICE(balloon);

    if (!DEVICE(balloon)->realized) {
        *why = "the balloon device was unplugged";
        return false;
    }
    if (!(vdev->status & VIRTIO_CONFIG_S_DRIVER_OK)) {
        *why = "the guest has no driver for the balloon";
        return false;
    }
    if (!virtio_vdev_has_feature(vdev, VIRTIO_BALLOON_F_FREE_PAGE_HINT)) {
        *why = "the guest's balloon driver knows no free page hints";
        return false;
    }
    if (fph_balloon_unknown_features(vdev)) {
        *why = "the guest's balloon driver uses a feature that fph-source does "
               "not know, so its free pages may hold what is needed";
        return false;
    }
    if (migrate_postcopy_ram()) {
        *why = "the balloon gives no free page hints with postcopy-ram";
        return false;
    }
    if (!virtio_has_feature(balloon->host_features,
                            VIRTIO_BALLOON_F_PAGE_POISON)) {
        *why = "with page-poison=off the guest cannot say what free pages hold";
        return false;
    }
    /* Accepted by guests whose free pages have a content: zero, or a pattern */
    *traits = 0;
    if (virtio_vdev_has_feature(vdev, VIRTIO_BALLOON_F_PAGE_POISON)) {
        *traits = balloon->poison_val ? FPH_GUEST_PAGE_POISON :
                                        FPH_GUEST_INIT_ON_FREE;
    }
    return true;
}

static void fph_balloon_poll(void *opaque)
{
    FphBalloon *fb = opaque;
    struct fph_hint_frame end = { .sz = sizeof(end), .last = true };
    uint32_t status = qatomic_read(&fb->balloon->free_page_hint_status);
    int64_t now = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);

    if (status == FREE_PAGE_HINT_S_REQUESTED ||
        status == FREE_PAGE_HINT_S_START) {
        timer_mod(fb->timer, now + (now - fb->asked_at < FPH_BALLOON_HASTE_MS ?
                                    FPH_BALLOON_POLL_MS :
                                    FPH_BALLOON_SLOW_POLL_MS));
        return;
    }
    fph_source_hint_end(FPH_HINTER(fb), &end);
}

static void fph_balloon_request(FphHinter *h, uint64_t max_pages)
{
    FphBalloon *fb = FPH_BALLOON(h);
    Error *err = NULL;

    if (precopy_notify(PRECOPY_NOTIFY_BITMAP_ARMED, &err)) {
        error_report_err(err);
    }
    fb->asked_at = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
    fph_balloon_poll(fb);
}

static void fph_balloon_stop(FphHinter *h)
{
    /* The device has a notifier of its own that stops the hinting */
    timer_del(FPH_BALLOON(h)->timer);
}

static void fph_balloon_resume(FphHinter *h)
{
}

static FphHinter *fph_balloon_new(Object *obj)
{
    VirtIOBalloon *balloon = VIRTIO_BALLOON(obj);
    FphBalloon *fb;

    if (!virtio_has_feature(balloon->host_features,
                            VIRTIO_BALLOON_F_FREE_PAGE_HINT)) {
        return NULL;
    }
    fb = FPH_BALLOON(object_new(TYPE_FPH_BALLOON));
    fb->balloon = VIRTIO_BALLOON(object_ref(obj));
    fb->timer = timer_new_ms(QEMU_CLOCK_REALTIME, fph_balloon_poll, fb);
    return FPH_HINTER(fb);
}

static DeviceState *fph_balloon_device(FphHinter *h)
{
    return DEVICE(FPH_BALLOON(h)->balloon);
}

static void fph_balloon_finalize(Object *obj)
{
    FphBalloon *fb = FPH_BALLOON(obj);

    timer_free(fb->timer);
    object_unref(OBJECT(fb->balloon));
}

static void fph_balloon_class_init(ObjectClass *oc, FphClassData *data)
{
    FphHinterClass *hc = FPH_HINTER_CLASS(oc);

    hc->transport = FPH_TRANSPORT_VIRTIO_BALLOON;
    hc->ready = fph_balloon_ready;
    hc->request = fph_balloon_request;
    hc->stop = fph_balloon_stop;
    hc->resume = fph_balloon_resume;
    hc->device = fph_balloon_device;
}

static const TypeInfo fph_balloon_info = {
    .name = TYPE_FPH_BALLOON,
    .parent = TYPE_OBJECT,
    .instance_size = sizeof(FphBalloon),
    .instance_finalize = fph_balloon_finalize,
    .class_init = fph_balloon_class_init,
    .interfaces = (InterfaceInfo[]) {
        { TYPE_FPH_HINTER },
        { }
    }
};

static void fph_balloon_register_types(void)
{
    type_register_static(&fph_balloon_info);
    fph_hinter_add_adapter(TYPE_VIRTIO_BALLOON, fph_balloon_new);
}

type_init(fph_balloon_register_types);

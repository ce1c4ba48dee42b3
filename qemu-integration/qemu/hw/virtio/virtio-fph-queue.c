/*
 * virtio-fph: when its queues may be touched, and what becomes of errors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "system/fph.h"
#include "trace.h"

#include "virtio-fph-device.h"

const char *virtio_fph_obstacle(VirtIOFph *fph)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(fph);

    if (!DEVICE(fph)->realized) {
        return "virtio-fph is not plugged in";
    }
    if (vdev->broken) {
        return "virtio-fph is broken after an error of its driver";
    }
    if (vdev->status & VIRTIO_CONFIG_S_FAILED) {
        return "the guest's driver for virtio-fph has failed";
    }
    if (vdev->disabled || !(vdev->status & VIRTIO_CONFIG_S_DRIVER_OK)) {
        return "the guest has no driver for virtio-fph";
    }
    if (!virtio_vdev_has_feature(vdev, VIRTIO_F_VERSION_1)) {
        return "the guest's driver for virtio-fph is not a virtio 1.0 driver";
    }
    /* Also because the rings may have been migrated already */
    if (!vdev->vm_running) {
        return "the guest is paused";
    }
    return NULL;
}

void virtio_fph_fail(VirtIOFph *fph, const char *why)
{
    fph->pending_op = 0;
    fph_hint_stop(fph->hint);
    if (fph->wanted) {
        fph->wanted = false;
        fph_source_hint_failed(FPH_HINTER(fph), why);
    }
}

void virtio_fph_error(VirtIOFph *fph, const char *why)
{
    trace_virtio_fph_bad_frame(why);
    virtio_error(VIRTIO_DEVICE(fph), "virtio-fph: %s", why);
    virtio_fph_fail(fph, why);
}

VirtQueueElement *virtio_fph_pop(VirtIOFph *fph, VirtQueue *vq)
{
    VirtQueueElement *elem = virtqueue_pop(vq, sizeof(*elem));

    /* A chain that virtio itself found to be malformed */
    if (!elem && VIRTIO_DEVICE(fph)->broken) {
        virtio_fph_fail(fph, "malformed descriptors on a virtio-fph queue");
    }
    return elem;
}

int virtio_fph_add_range(void *opaque, uint64_t start, uint64_t len,
                         enum fph_reason reason)
{
    FphHintRange range = { .start = start, .len = len };

    g_array_append_val(opaque, range);
    return 0;
}

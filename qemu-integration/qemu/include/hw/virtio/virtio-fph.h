/*
 * virtio-fph: a device through which the guest says which pages are free
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef QEMU_VIRTIO_FPH_H
#define QEMU_VIRTIO_FPH_H

#include "hw/virtio/virtio.h"
#include "qom/object.h"

struct fph_hint;

/* No ID was assigned; VIRTIO_FPH_ID in <fph/virtio-fph.h> */
#define VIRTIO_ID_FPH 63

#define TYPE_VIRTIO_FPH "virtio-fph-device"
OBJECT_DECLARE_SIMPLE_TYPE(VirtIOFph, VIRTIO_FPH)

struct VirtIOFph {
    VirtIODevice parent_obj;

    VirtQueue *command_vq;
    VirtQueue *report_vq;
    QEMUBH *bh;

    struct fph_hint *hint;
    uint32_t last_id;           /* of @hint, for migration */
    bool wanted;                /* fph-source waits for a report */
    uint16_t pending_op;        /* the driver was not told yet; 0: nothing */
    uint16_t encodings;

    /* Properties */
    char *encoding;
    uint64_t host_features;
};

#endif

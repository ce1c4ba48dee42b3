/*
 * virtio-fph: the device, and what its files share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef HW_VIRTIO_FPH_DEVICE_H
#define HW_VIRTIO_FPH_DEVICE_H

#include "hw/virtio/virtio.h"
#include "hw/virtio/virtio-fph.h"
#include "qom/object.h"

#include <fph/hint.h>
#include <fph/virtio-fph.h>

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
    uint64_t unknown_pages;     /* that the guest named, and are no RAM to us */

    /* The balloon, if host_features has one; in pages of 4 KiB */
    VirtQueue *balloon_vq;
    uint64_t balloon_target;
    uint64_t balloon_actual;
    GHashTable *balloon_partial; /* host pages that are in it in part */
    unsigned int balloon_failures; /* to discard memory, since the last reset */

    /* Properties */
    char *encoding;
    uint64_t host_features;
};

/* Everything runs under the BQL */

/* Why the guest cannot be asked, or NULL */
const char *virtio_fph_obstacle(VirtIOFph *fph);

/* The request, if there is one, ends without an answer; @why is static. */
void virtio_fph_fail(VirtIOFph *fph, const char *why);

/* The driver did what no working driver does; @why is a static string. */
void virtio_fph_error(VirtIOFph *fph, const char *why);

/* Like virtqueue_pop() */
VirtQueueElement *virtio_fph_pop(VirtIOFph *fph, VirtQueue *vq);

/* A sink for libfph: appends to a GArray of FphHintRange */
int virtio_fph_add_range(void *opaque, uint64_t start, uint64_t len,
                         enum fph_reason reason);

/* The balloon; fails if there is another one */
bool virtio_fph_balloon_realize(VirtIOFph *fph, Error **errp);
void virtio_fph_balloon_unrealize(VirtIOFph *fph);
void virtio_fph_balloon_receive(VirtIOFph *fph);
void virtio_fph_balloon_reset(VirtIOFph *fph);
void virtio_fph_balloon_get_config(VirtIOFph *fph,
                                   struct virtio_fph_config *config);

static inline bool virtio_fph_has_balloon(VirtIOFph *fph)
{
    return virtio_has_feature(fph->host_features, VIRTIO_FPH_F_BALLOON);
}

#endif

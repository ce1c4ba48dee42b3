/*
 * virtio-fph: a device through which the guest says which pages are free
 *
 * The protocol is checked by libfph; here are the device, its commands and the
 * reports.  Everything runs under the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "qemu/error-report.h"
#include "qemu/iov.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "migration/vmstate.h"
#include "system/fph-compat.h"
#include "system/fph.h"
#include FPH_QDEV_PROPERTIES_H
#include "trace.h"

#include "virtio-fph-device.h"

QEMU_BUILD_BUG_ON(VIRTIO_ID_FPH != VIRTIO_FPH_ID);

#define COMMAND_QUEUE_SIZE 16
#define REPORT_QUEUE_SIZE 64

/*
 * Work for one run of the bottom half, in ranges of free pages; a frame costs
 * as much as FRAME_COST of them.  A guest that sends frames without end slows
 * down itself, not the main loop.
 */
#define RUN_BUDGET 4096
#define FRAME_COST 64

#define FRAME_MAX (sizeof(struct virtio_fph_report) + VIRTIO_FPH_PAYLOAD_MAX)

static void virtio_fph_send_command(VirtIOFph *fph)
{
    struct virtio_fph_command command = {
        .id = cpu_to_le32(fph_hint_last_id(fph->hint)),
        .op = cpu_to_le16(fph->pending_op),
        .encodings = cpu_to_le16(fph->encodings),
    };
    VirtQueueElement *elem;
    const char *why = NULL;

    if (!fph->pending_op || virtio_fph_obstacle(fph)) {
        return;
    }
    elem = virtio_fph_pop(fph, fph->command_vq);
    if (!elem) {
        return;
    }
    if (elem->out_num) {
        why = "command buffer that the device should read";
    } else if (iov_size(elem->in_sg, elem->in_num) < sizeof(command)) {
        why = "command buffer is too small";
    }
    if (why) {
        virtqueue_detach_element(fph->command_vq, elem, 0);
        virtio_fph_error(fph, why);
    } else {
        fph->pending_op = 0;
        trace_virtio_fph_command(le32_to_cpu(command.id),
                                 le16_to_cpu(command.op));
        iov_from_buf(elem->in_sg, elem->in_num, 0, &command, sizeof(command));
        virtqueue_push(fph->command_vq, elem, sizeof(command));
        virtio_notify(VIRTIO_DEVICE(fph), fph->command_vq);
    }
    g_free(elem);
}

/*
 * Deal with a frame.  Returns what is wrong with it, or NULL; @n_ranges
 * receives how many ranges of free pages were in it.
 */
static const char *virtio_fph_frame(VirtIOFph *fph, VirtQueueElement *elem,
                                    guint *n_ranges)
{
    g_autoptr(GArray) ranges = g_array_new(false, false, sizeof(FphHintRange));
    struct fph_hint_frame info = { .sz = sizeof(info) };
    size_t len = iov_size(elem->out_sg, elem->out_num);
    g_autofree void *frame = NULL;
    const char *why;
    int ret;

    if (elem->in_num) {
        return "report that the device should write to";
    }
    if (len > FRAME_MAX) {
        return "report frame is too large";
    }
    /* What was checked must not change any more, so out of the guest's hands */
    frame = g_malloc(len);
    iov_to_buf(elem->out_sg, elem->out_num, 0, frame, len);

    ret = fph_hint_feed(fph->hint, frame, len, virtio_fph_add_range, ranges,
                        &info, &why);
    if (ret == -ESTALE) {
        trace_virtio_fph_stale_frame();
        fph_source_hint_stale(FPH_HINTER(fph));
        return NULL;
    }
    if (ret < 0) {
        return why;
    }
    trace_virtio_fph_frame(info.id, info.pages, info.ranges, info.last);
    *n_ranges = ranges->len;
    if (ranges->len) {
        fph->unknown_pages += fph_source_hint(FPH_HINTER(fph),
                                              (FphHintRange *)ranges->data,
                                              ranges->len);
    }
    if (info.last) {
        fph->wanted = false;
        fph_source_hint_end(FPH_HINTER(fph), &info);
    }
    return NULL;
}

static void virtio_fph_receive(VirtIOFph *fph)
{
    int budget = RUN_BUDGET;
    bool notify = false;

    while (!virtio_fph_obstacle(fph)) {
        VirtQueueElement *elem;
        guint n_ranges = 0;
        const char *why;

        if (fph->wanted && fph_source_hints_full()) {
            break;              /* until virtio_fph_resume() */
        }
        if (budget <= 0) {
            qemu_bh_schedule(fph->bh);
            break;
        }
        elem = virtio_fph_pop(fph, fph->report_vq);
        if (!elem) {
            break;
        }
        why = virtio_fph_frame(fph, elem, &n_ranges);
        if (why) {
            virtqueue_detach_element(fph->report_vq, elem, 0);
            virtio_fph_error(fph, why);
        } else {
            virtqueue_push(fph->report_vq, elem, 0);
            notify = true;
        }
        g_free(elem);
        budget -= FRAME_COST + n_ranges;
    }
    if (notify) {
        virtio_notify(VIRTIO_DEVICE(fph), fph->report_vq);
    }
}

/*
 * All access to the queues is from here: buffers may lie where the guest
 * likes, also in registers of this very device, and the bottom half is
 * guarded against being entered that way.
 */
static void virtio_fph_bh(void *opaque)
{
    VirtIOFph *fph = opaque;

    virtio_fph_send_command(fph);
    virtio_fph_receive(fph);
    virtio_fph_balloon_receive(fph);
}

static void virtio_fph_handle_output(VirtIODevice *vdev, VirtQueue *vq)
{
    qemu_bh_schedule(VIRTIO_FPH(vdev)->bh);
}

static bool virtio_fph_ready(FphHinter *h, uint32_t *traits, const char **why)
{
    VirtIOFph *fph = VIRTIO_FPH(h);
    VirtIODevice *vdev = VIRTIO_DEVICE(fph);

    *why = virtio_fph_obstacle(fph);
    if (*why) {
        return false;
    }
    *traits = 0;
    if (virtio_vdev_has_feature(vdev, VIRTIO_FPH_F_FREE_ZERO)) {
        *traits |= FPH_GUEST_INIT_ON_FREE;
    }
    if (virtio_vdev_has_feature(vdev, VIRTIO_FPH_F_FREE_PATTERN)) {
        *traits |= FPH_GUEST_PAGE_POISON;
    }
    return true;
}

static void virtio_fph_request(FphHinter *h, uint64_t max_pages)
{
    VirtIOFph *fph = VIRTIO_FPH(h);
    uint32_t id = fph_hint_request(fph->hint, max_pages);

    trace_virtio_fph_request(id, max_pages);
    fph->wanted = true;
    fph->pending_op = VIRTIO_FPH_OP_REPORT;
    qemu_bh_schedule(fph->bh);
}

static void virtio_fph_stop(FphHinter *h)
{
    VirtIOFph *fph = VIRTIO_FPH(h);

    if (!fph->wanted) {
        return;
    }
    fph->wanted = false;
    fph_hint_stop(fph->hint);
    /* Nothing to stop if the driver has not even seen the request */
    fph->pending_op = fph->pending_op ? 0 : VIRTIO_FPH_OP_STOP;
    /* Frames that had to wait are late now, and go back to the driver */
    qemu_bh_schedule(fph->bh);
}

static void virtio_fph_resume(FphHinter *h)
{
    qemu_bh_schedule(VIRTIO_FPH(h)->bh);
}

static DeviceState *virtio_fph_device(FphHinter *h)
{
    return DEVICE(h);
}

static uint64_t virtio_fph_get_features(VirtIODevice *vdev, uint64_t features,
                                        Error **errp)
{
    VirtIOFph *fph = VIRTIO_FPH(vdev);

    features |= fph->host_features;
    if (!virtio_fph_has_balloon(fph)) {
        virtio_clear_feature(&features, VIRTIO_FPH_F_BALLOON_OOM);
    }
    /*
     * QEMU keeps as many elements for it as a queue had in the beginning, and
     * the driver can make that larger; and it cannot have all of a queue out.
     */
    virtio_clear_feature(&features, VIRTIO_F_IN_ORDER);
    return features;
}

/* Also called when the VM stops or runs again, with an unchanged status */
static FphStatusTaken virtio_fph_set_status(VirtIODevice *vdev, uint8_t status)
{
    VirtIOFph *fph = VIRTIO_FPH(vdev);

    if (status & VIRTIO_CONFIG_S_FAILED) {
        virtio_fph_fail(fph, "the guest's driver for virtio-fph has failed");
    } else if (status & VIRTIO_CONFIG_S_DRIVER_OK) {
        qemu_bh_schedule(fph->bh);
    } else {
        virtio_fph_fail(fph, "the guest reset virtio-fph");
    }
    return FPH_STATUS_TAKEN;
}

static void virtio_fph_get_config(VirtIODevice *vdev, uint8_t *data)
{
    VirtIOFph *fph = VIRTIO_FPH(vdev);

    if (virtio_fph_has_balloon(fph)) {
        struct virtio_fph_config config;

        virtio_fph_balloon_get_config(fph, &config);
        memcpy(data, &config, sizeof(config));
    }
}

static void virtio_fph_reset(VirtIODevice *vdev)
{
    virtio_fph_balloon_reset(VIRTIO_FPH(vdev));
}

static void virtio_fph_delete(VirtIOFph *fph)
{
    virtio_delete_queue(fph->command_vq);
    virtio_delete_queue(fph->report_vq);
    virtio_cleanup(VIRTIO_DEVICE(fph));
    g_clear_pointer(&fph->hint, fph_hint_free);
}

static void virtio_fph_realize(DeviceState *dev, Error **errp)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(dev);
    VirtIOFph *fph = VIRTIO_FPH(dev);

    if (!fph->encoding || g_str_equal(fph->encoding, "auto")) {
        fph->encodings = 1 << VIRTIO_FPH_ENC_RUNS | 1 << VIRTIO_FPH_ENC_BITMAP;
    } else if (g_str_equal(fph->encoding, "runs")) {
        fph->encodings = 1 << VIRTIO_FPH_ENC_RUNS;
    } else if (g_str_equal(fph->encoding, "bitmap")) {
        fph->encodings = 1 << VIRTIO_FPH_ENC_BITMAP;
    } else {
        error_setg(errp, "property 'encoding' must be 'auto', 'runs' or "
                   "'bitmap', not '%s'", fph->encoding);
        return;
    }
    if (fph_hint_new(&fph->hint, 0) < 0) {
        error_setg(errp, "out of memory for virtio-fph");
        return;
    }

    virtio_init(vdev, VIRTIO_ID_FPH, virtio_fph_has_balloon(fph) ?
                                     sizeof(struct virtio_fph_config) : 0);
    fph->command_vq = virtio_add_queue(vdev, COMMAND_QUEUE_SIZE,
                                       virtio_fph_handle_output);
    fph->report_vq = virtio_add_queue(vdev, REPORT_QUEUE_SIZE,
                                      virtio_fph_handle_output);
    if (!virtio_fph_balloon_realize(fph, errp)) {
        virtio_fph_delete(fph);
        return;
    }
    fph->bh = virtio_bh_new_guarded(dev, virtio_fph_bh, fph);
}

static void virtio_fph_unrealize(DeviceState *dev)
{
    VirtIOFph *fph = VIRTIO_FPH(dev);

    virtio_fph_fail(fph, "virtio-fph was unplugged");
    qemu_bh_delete(fph->bh);
    fph->bh = NULL;
    virtio_fph_balloon_unrealize(fph);
    virtio_fph_delete(fph);
}

static int virtio_fph_pre_save(void *opaque)
{
    VirtIOFph *fph = opaque;

    fph->last_id = fph_hint_last_id(fph->hint);
    return 0;
}

/*
 * Ids go on where the source was, so that frames which answer its commands
 * are late ones here.
 */
static int virtio_fph_post_load(void *opaque, int version_id)
{
    VirtIOFph *fph = opaque;
    struct fph_hint *hint;
    int ret;

    ret = fph_hint_new(&hint, fph->last_id);
    if (ret < 0) {
        return ret;
    }
    fph_hint_free(fph->hint);
    fph->hint = hint;
    return 0;
}

static bool virtio_fph_balloon_needed(void *opaque)
{
    return virtio_fph_has_balloon(opaque);
}

static int virtio_fph_balloon_post_load(void *opaque, int version_id)
{
    if (!virtio_fph_has_balloon(opaque)) {
        error_report("virtio-fph has balloon=on at the source, but not here");
        return -EINVAL;
    }
    return 0;
}

static const VMStateDescription vmstate_virtio_fph_balloon = {
    .name = "virtio-fph-device/balloon",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = virtio_fph_balloon_needed,
    .post_load = virtio_fph_balloon_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT64(balloon_target, VirtIOFph),
        VMSTATE_UINT64(balloon_actual, VirtIOFph),
        VMSTATE_END_OF_LIST()
    },
};

static const VMStateDescription vmstate_virtio_fph_device = {
    .name = "virtio-fph-device",
    .version_id = 1,
    .minimum_version_id = 1,
    .pre_save = virtio_fph_pre_save,
    .post_load = virtio_fph_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(last_id, VirtIOFph),
        VMSTATE_END_OF_LIST()
    },
    .subsections = (const VMStateDescription * const []) {
        &vmstate_virtio_fph_balloon,
        NULL
    },
};

static const VMStateDescription vmstate_virtio_fph = {
    .name = "virtio-fph",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_VIRTIO_DEVICE,
        VMSTATE_END_OF_LIST()
    },
};

static const Property virtio_fph_properties[] = {
    DEFINE_PROP_STRING("encoding", VirtIOFph, encoding),
    /* Off: how a driver behaves at a device that does not know the trait */
    DEFINE_PROP_BIT64("free-zero", VirtIOFph, host_features,
                      VIRTIO_FPH_F_FREE_ZERO, true),
    DEFINE_PROP_BIT64("free-pattern", VirtIOFph, host_features,
                      VIRTIO_FPH_F_FREE_PATTERN, true),
    DEFINE_PROP_BIT64("balloon", VirtIOFph, host_features,
                      VIRTIO_FPH_F_BALLOON, false),
    /* As the balloon's property is called; it means nothing without one */
    DEFINE_PROP_BIT64("deflate-on-oom", VirtIOFph, host_features,
                      VIRTIO_FPH_F_BALLOON_OOM, true),
};

static void virtio_fph_instance_init(Object *obj)
{
    object_property_add_uint64_ptr(obj, "unknown-pages",
                                   &VIRTIO_FPH(obj)->unknown_pages,
                                   OBJ_PROP_FLAG_READ);
}

static void virtio_fph_class_init(ObjectClass *klass, FphClassData *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    VirtioDeviceClass *vdc = VIRTIO_DEVICE_CLASS(klass);
    FphHinterClass *fhc = FPH_HINTER_CLASS(klass);

    device_class_set_props(dc, virtio_fph_properties);
    dc->desc = "guest says which pages are free, for fph-source";
    dc->vmsd = &vmstate_virtio_fph;
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);

    vdc->realize = virtio_fph_realize;
    vdc->unrealize = virtio_fph_unrealize;
    vdc->get_features = virtio_fph_get_features;
    vdc->get_config = virtio_fph_get_config;
    vdc->set_status = virtio_fph_set_status;
    vdc->reset = virtio_fph_reset;
    vdc->vmsd = &vmstate_virtio_fph_device;

    fhc->transport = FPH_TRANSPORT_VIRTIO_FPH;
    fhc->ready = virtio_fph_ready;
    fhc->request = virtio_fph_request;
    fhc->stop = virtio_fph_stop;
    fhc->resume = virtio_fph_resume;
    fhc->device = virtio_fph_device;
}

static const TypeInfo virtio_fph_info = {
    .name = TYPE_VIRTIO_FPH,
    .parent = TYPE_VIRTIO_DEVICE,
    .instance_size = sizeof(VirtIOFph),
    .instance_init = virtio_fph_instance_init,
    .class_init = virtio_fph_class_init,
    .interfaces = (InterfaceInfo[]) {
        { TYPE_FPH_HINTER },
        { }
    }
};

static void virtio_fph_register_types(void)
{
    type_register_static(&virtio_fph_info);
}

type_init(virtio_fph_register_types);

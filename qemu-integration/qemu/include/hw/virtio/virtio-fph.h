/*
 * virtio-fph: a device through which the guest says which pages are free
 *
 * What is said of it in a QEMU that is built without libfph, too
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef QEMU_VIRTIO_FPH_H
#define QEMU_VIRTIO_FPH_H

/* No ID was assigned; VIRTIO_FPH_ID in <fph/virtio-fph.h> */
#define VIRTIO_ID_FPH 63

#define TYPE_VIRTIO_FPH "virtio-fph-device"

#endif

/*
 * virtio-fph on PCI, virtio 1.0 only
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/module.h"
#include "hw/virtio/virtio-pci.h"
#include "system/fph-compat.h"
#include FPH_QDEV_PROPERTIES_H

#include "virtio-fph-device.h"

#define TYPE_VIRTIO_FPH_PCI "virtio-fph-pci"
OBJECT_DECLARE_SIMPLE_TYPE(VirtIOFphPCI, VIRTIO_FPH_PCI)

struct VirtIOFphPCI {
    VirtIOPCIProxy parent_obj;
    VirtIOFph vdev;
};

static const Property virtio_fph_pci_properties[] = {
    DEFINE_PROP_BIT("ioeventfd", VirtIOPCIProxy, flags,
                    VIRTIO_PCI_FLAG_USE_IOEVENTFD_BIT, true),
    DEFINE_PROP_UINT32("vectors", VirtIOPCIProxy, nvectors,
                       DEV_NVECTORS_UNSPECIFIED),
};

static void virtio_fph_pci_realize(VirtIOPCIProxy *vpci_dev, Error **errp)
{
    DeviceState *vdev = DEVICE(&VIRTIO_FPH_PCI(vpci_dev)->vdev);

    if (vpci_dev->nvectors == DEV_NVECTORS_UNSPECIFIED) {
        /* The queues, and the configuration */
        vpci_dev->nvectors = 3 + virtio_fph_has_balloon(VIRTIO_FPH(vdev));
    }
    virtio_pci_force_virtio_1(vpci_dev);
    qdev_realize(vdev, BUS(&vpci_dev->bus), errp);
}

static void virtio_fph_pci_class_init(ObjectClass *klass, FphClassData *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    VirtioPCIClass *k = VIRTIO_PCI_CLASS(klass);
    PCIDeviceClass *pcidev_k = PCI_DEVICE_CLASS(klass);

    k->realize = virtio_fph_pci_realize;
    dc->desc = "guest says which pages are free, for fph-source";
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
    device_class_set_props(dc, virtio_fph_pci_properties);
    pcidev_k->revision = VIRTIO_PCI_ABI_VERSION;
    pcidev_k->class_id = PCI_CLASS_OTHERS;
}

static void virtio_fph_pci_instance_init(Object *obj)
{
    VirtIOFphPCI *dev = VIRTIO_FPH_PCI(obj);

    virtio_instance_init_common(obj, &dev->vdev, sizeof(dev->vdev),
                                TYPE_VIRTIO_FPH);
}

static const VirtioPCIDeviceTypeInfo virtio_fph_pci_info = {
    .generic_name = TYPE_VIRTIO_FPH_PCI,
    .instance_size = sizeof(VirtIOFphPCI),
    .instance_init = virtio_fph_pci_instance_init,
    .class_init = virtio_fph_pci_class_init,
};

static void virtio_fph_pci_register_types(void)
{
    virtio_pci_types_register(&virtio_fph_pci_info);
}

type_init(virtio_fph_pci_register_types);

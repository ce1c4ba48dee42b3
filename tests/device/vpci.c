/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <endian.h>
#include <linux/pci_regs.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>

#include "fph-test.h"
#include "vpci.h"

#define CONFIG_ADDRESS	0xcf8
#define CONFIG_DATA	0xcfc
#define VENDOR_VIRTIO	0x1af4
#define MODERN_BASE	0x1040

#define COMMON(d, field)	((d)->common + offsetof(struct virtio_pci_common_cfg, field))

static void select_config(struct vpci *d, unsigned int offset)
{
	qtest_out(d->q, CONFIG_ADDRESS, 4, 1u << 31 | d->slot << 11 | (offset & ~3u));
}

uint32_t vpci_config_read(struct vpci *d, unsigned int offset, unsigned int bytes)
{
	select_config(d, offset);
	return qtest_in(d->q, CONFIG_DATA + (offset & 3), bytes);
}

void vpci_config_write(struct vpci *d, unsigned int offset, unsigned int bytes, uint32_t value)
{
	select_config(d, offset);
	qtest_out(d->q, CONFIG_DATA + (offset & 3), bytes, value);
}

/* The BAR that holds a structure of virtio; all are in the same, of 64 bits */
static void map_bar(struct vpci *d, unsigned int bar, uint64_t addr)
{
	unsigned int offset = PCI_BASE_ADDRESS_0 + bar * 4;

	check_int(vpci_config_read(d, offset, 4) & 7, PCI_BASE_ADDRESS_MEM_TYPE_64);
	vpci_config_write(d, offset, 4, addr);
	vpci_config_write(d, offset + 4, 4, addr >> 32);
}

static void read_capabilities(struct vpci *d, uint64_t bar_addr)
{
	unsigned int cap = vpci_config_read(d, PCI_CAPABILITY_LIST, 1);
	int bar = -1;

	for (; cap; cap = vpci_config_read(d, cap + PCI_CAP_LIST_NEXT, 1)) {
		unsigned int type = vpci_config_read(d, cap + VIRTIO_PCI_CAP_CFG_TYPE, 1);
		uint64_t addr = bar_addr + vpci_config_read(d, cap + VIRTIO_PCI_CAP_OFFSET, 4);

		if (vpci_config_read(d, cap, 1) != PCI_CAP_ID_VNDR)
			continue;
		if (type == VIRTIO_PCI_CAP_COMMON_CFG) {
			d->common = addr;
		} else if (type == VIRTIO_PCI_CAP_ISR_CFG) {
			d->isr = addr;
		} else if (type == VIRTIO_PCI_CAP_NOTIFY_CFG) {
			d->notify = addr;
			d->notify_multiplier =
				vpci_config_read(d, cap + VIRTIO_PCI_NOTIFY_CAP_MULT, 4);
		} else if (type == VIRTIO_PCI_CAP_DEVICE_CFG) {
			d->device = addr;
		} else {
			continue;
		}
		if (bar < 0)
			bar = vpci_config_read(d, cap + VIRTIO_PCI_CAP_BAR, 1);
		check_int(vpci_config_read(d, cap + VIRTIO_PCI_CAP_BAR, 1), bar);
	}
	check(d->common && d->isr && d->notify);
	map_bar(d, bar, bar_addr);
}

bool vpci_find(struct vpci *d, struct qtest *q, unsigned int virtio_id, uint64_t bar)
{
	*d = (struct vpci){ .q = q };
	for (d->slot = 0; d->slot < 32; d->slot++) {
		if (vpci_config_read(d, PCI_VENDOR_ID, 2) != VENDOR_VIRTIO ||
		    vpci_config_read(d, PCI_DEVICE_ID, 2) != MODERN_BASE + virtio_id)
			continue;
		read_capabilities(d, bar);
		vpci_config_write(d, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
		return true;
	}
	return false;
}

uint8_t vpci_status(struct vpci *d)
{
	return qtest_load(d->q, COMMON(d, device_status), 1);
}

void vpci_set_status(struct vpci *d, uint8_t status)
{
	qtest_store(d->q, COMMON(d, device_status), 1, status);
}

uint64_t vpci_offered(struct vpci *d)
{
	uint64_t features = 0;

	for (unsigned int i = 0; i < 2; i++) {
		qtest_store(d->q, COMMON(d, device_feature_select), 4, i);
		features |= qtest_load(d->q, COMMON(d, device_feature), 4) << i * 32;
	}
	return features;
}

void vpci_accept(struct vpci *d, uint64_t features)
{
	for (unsigned int i = 0; i < 2; i++) {
		qtest_store(d->q, COMMON(d, guest_feature_select), 4, i);
		qtest_store(d->q, COMMON(d, guest_feature), 4, features >> i * 32 & UINT32_MAX);
	}
}

unsigned int vpci_queues(struct vpci *d)
{
	return qtest_load(d->q, COMMON(d, num_queues), 2);
}

static void store_address(struct vpci *d, uint64_t reg, uint64_t addr)
{
	qtest_store(d->q, reg, 4, addr & UINT32_MAX);
	qtest_store(d->q, reg + 4, 4, addr >> 32);
}

void vpci_ring_init(struct vpci *d, unsigned int queue, unsigned int size, uint64_t addr)
{
	struct vpci_ring *r = &d->ring[queue];

	check(queue < VPCI_RINGS && size <= VPCI_RING_MAX);
	qtest_memset(d->q, addr, 0, VPCI_RING_BYTES);
	*r = (struct vpci_ring){
		.size = size,
		.desc = addr,
		.avail = addr + 0x1000,
		.used = addr + 0x2000,
	};
	qtest_store(d->q, COMMON(d, queue_select), 2, queue);
	check(qtest_load(d->q, COMMON(d, queue_size), 2) >= size);
	qtest_store(d->q, COMMON(d, queue_size), 2, size);
	store_address(d, COMMON(d, queue_desc_lo), r->desc);
	store_address(d, COMMON(d, queue_avail_lo), r->avail);
	store_address(d, COMMON(d, queue_used_lo), r->used);
	r->notify = d->notify + qtest_load(d->q, COMMON(d, queue_notify_off), 2) *
				d->notify_multiplier;
	qtest_store(d->q, COMMON(d, queue_enable), 2, 1);
}

void vpci_desc(struct vpci *d, unsigned int queue, uint16_t index, struct vpci_buf buf,
	       uint16_t flags, uint16_t next)
{
	struct vring_desc desc = {
		.addr = htole64(buf.addr),
		.len = htole32(buf.len),
		.flags = htole16(flags | (buf.write ? VRING_DESC_F_WRITE : 0)),
		.next = htole16(next),
	};

	qtest_write(d->q, d->ring[queue].desc + index * sizeof(desc), &desc, sizeof(desc));
}

void vpci_publish(struct vpci *d, unsigned int queue, uint16_t head)
{
	struct vpci_ring *r = &d->ring[queue];

	qtest_store(d->q, r->avail + 4 + r->avail_idx % r->size * 2, 2, head);
	r->avail_idx++;
	qtest_store(d->q, r->avail + 2, 2, r->avail_idx);
}

uint16_t vpci_chain(struct vpci *d, unsigned int queue, const struct vpci_buf *bufs,
		    unsigned int n)
{
	struct vpci_ring *r = &d->ring[queue];
	uint16_t head = r->next_desc;

	for (unsigned int i = 0; i < n; i++) {
		uint16_t next = (r->next_desc + 1) % r->size;

		vpci_desc(d, queue, r->next_desc, bufs[i], i + 1 < n ? VRING_DESC_F_NEXT : 0, next);
		r->next_desc = next;
	}
	return head;
}

uint16_t vpci_post(struct vpci *d, unsigned int queue, const struct vpci_buf *bufs,
		   unsigned int n)
{
	uint16_t head = vpci_chain(d, queue, bufs, n);

	vpci_publish(d, queue, head);
	return head;
}

void vpci_kick(struct vpci *d, unsigned int queue)
{
	qtest_store(d->q, d->ring[queue].notify, 2, queue);
}

bool vpci_interrupted(struct vpci *d)
{
	return qtest_load(d->q, d->isr, 1) & 1;
}

bool vpci_config_changed(struct vpci *d)
{
	return qtest_load(d->q, d->isr, 1) & 2;
}

bool vpci_take(struct vpci *d, unsigned int queue, uint16_t *head, uint32_t *len)
{
	struct vpci_ring *r = &d->ring[queue];
	struct vring_used_elem elem;

	if ((uint16_t)qtest_load(d->q, r->used + 2, 2) == r->used_idx)
		return false;
	qtest_read(d->q, r->used + 4 + r->used_idx % r->size * sizeof(elem), &elem, sizeof(elem));
	r->used_idx++;
	*head = le32toh(elem.id);
	*len = le32toh(elem.len);
	return true;
}

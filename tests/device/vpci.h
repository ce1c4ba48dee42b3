/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A driver for virtio 1.0 devices on PCI with split rings, through qtest. It
 * can do what a good driver does, and write any descriptor there can be.
 */
#ifndef FPH_VPCI_H
#define FPH_VPCI_H

#include <stdbool.h>
#include <stdint.h>

#include "qtest.h"

#define VPCI_RINGS	4
#define VPCI_RING_MAX	256
#define VPCI_RING_BYTES	0x3000	/* memory that a ring takes */

struct vpci_ring {
	unsigned int size;
	uint64_t desc, avail, used;
	uint64_t notify;
	uint16_t next_desc;	/* the next chain begins here */
	uint16_t avail_idx, used_idx;
};

struct vpci {
	struct qtest *q;
	unsigned int slot;
	uint64_t common;
	uint64_t isr;
	uint64_t notify;
	uint32_t notify_multiplier;
	uint64_t device;	/* its own configuration */
	struct vpci_ring ring[VPCI_RINGS];
};

/* Part of a chain; @write: by the device */
struct vpci_buf {
	uint64_t addr;
	uint32_t len;
	bool write;
};

uint32_t vpci_config_read(struct vpci *d, unsigned int offset, unsigned int bytes);
void vpci_config_write(struct vpci *d, unsigned int offset, unsigned int bytes, uint32_t value);

/**
 * vpci_find() - find a device on bus 0 by its virtio ID and switch it on
 * @bar: where its registers shall be
 * Return: whether there is one.
 */
bool vpci_find(struct vpci *d, struct qtest *q, unsigned int virtio_id, uint64_t bar);

uint8_t vpci_status(struct vpci *d);
void vpci_set_status(struct vpci *d, uint8_t status);
uint64_t vpci_offered(struct vpci *d);
void vpci_accept(struct vpci *d, uint64_t features);
unsigned int vpci_queues(struct vpci *d);

/** vpci_ring_init() - a ring of @size entries in memory at @addr, enabled. */
void vpci_ring_init(struct vpci *d, unsigned int queue, unsigned int size, uint64_t addr);

/** vpci_desc() - write a descriptor; @flags: VRING_DESC_F_*. */
void vpci_desc(struct vpci *d, unsigned int queue, uint16_t index, struct vpci_buf buf,
	       uint16_t flags, uint16_t next);

/** vpci_publish() - make the chain that starts with descriptor @head available. */
void vpci_publish(struct vpci *d, unsigned int queue, uint16_t head);

/**
 * vpci_chain() - write a chain of @n buffers, which is not made available yet
 * Descriptors are used in turn: the caller has no more than the ring's size.
 * Return: the chain's head, for vpci_publish().
 */
uint16_t vpci_chain(struct vpci *d, unsigned int queue, const struct vpci_buf *bufs,
		    unsigned int n);

/**
 * vpci_post() - make a chain of @n buffers available, as of vpci_chain()
 * Return: the chain's head.
 */
uint16_t vpci_post(struct vpci *d, unsigned int queue, const struct vpci_buf *bufs,
		   unsigned int n);

void vpci_kick(struct vpci *d, unsigned int queue);

/** vpci_interrupted() - has the device interrupted the guest, because of a queue? */
bool vpci_interrupted(struct vpci *d);

/** vpci_config_changed() - the same, because of its configuration; asking forgets both. */
bool vpci_config_changed(struct vpci *d);

/**
 * vpci_take() - the next chain that the device has used
 * Return: false if there is none.
 */
bool vpci_take(struct vpci *d, unsigned int queue, uint16_t *head, uint32_t *len);

#endif

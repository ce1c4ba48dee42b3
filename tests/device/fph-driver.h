/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The guest's side of virtio-fph, played by a test through qtest. It says
 * what it is told to say, so it can lie.
 *
 * Rings and buffers take up memory from DRIVER_START to DRIVER_END.
 */
#ifndef FPH_DRIVER_H
#define FPH_DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <fph/virtio-fph.h>

#include "vpci.h"

#define DRIVER_START	UINT64_C(0x100000)
#define DRIVER_END	UINT64_C(0x200000)
#define DRIVER_BAR	UINT64_C(0xfd000000)
#define DRIVER_FRAMES	UINT64_C(0x110000)	/* where frames are */
#define DRIVER_BALLOON	UINT64_C(0x160000)	/* ... of the balloon */

/* As driver_init() makes the rings, and where their buffers for commands are */
#define DRIVER_RING_SIZE	16
#define DRIVER_COMMANDS		(DRIVER_START + 0x8000)
#define DRIVER_COMMAND_STRIDE	64

/* Frames that can be on their way, and the room for each */
#define DRIVER_SLOTS		8
#define DRIVER_SLOT_BYTES	UINT64_C(0x9000)

struct driver {
	struct vpci dev;
	unsigned int sent, returned;	/* frames, since driver_init() */
	unsigned int balloon_sent, balloon_returned;
};

/* A report frame */
struct frame {
	struct virtio_fph_report header;
	uint64_t payload[VIRTIO_FPH_PAYLOAD_MAX / 8 + 1];
	size_t len;			/* bytes of the payload */
};

/* A frame of the balloon */
struct balloon_frame {
	struct virtio_fph_balloon header;
	uint64_t runs[VIRTIO_FPH_RUNS_MAX + 1];
	size_t len;			/* bytes of the runs */
};

/** driver_find() - find the device; false if there is none. */
bool driver_find(struct driver *d, struct qtest *q);

/**
 * driver_init() - reset the device and begin to drive it
 * @features: besides those that it cannot do without
 * @buffers: for commands
 */
void driver_init(struct driver *d, uint64_t features, unsigned int buffers);

/** driver_post_command_buffers() - @n more of them. */
void driver_post_command_buffers(struct driver *d, unsigned int n);

/**
 * driver_command() - wait for a command, give its buffer back
 * Return: false if none came in time.
 */
bool driver_command(struct driver *d, int timeout_ms, struct virtio_fph_command *ret);

void frame_runs(struct frame *f, uint32_t id, uint32_t seq);
void frame_add_run(struct frame *f, uint64_t pfn, uint64_t pages);
void frame_bitmap(struct frame *f, uint32_t id, uint32_t seq, uint64_t base, uint32_t bits);
void frame_set_bit(struct frame *f, uint64_t pfn);
void frame_last(struct frame *f, uint32_t id, uint32_t seq, uint16_t flags);

/** driver_post() - make a frame available, and do not tell the device. */
void driver_post(struct driver *d, const struct frame *f);

/** driver_send() - send a frame and go on. */
void driver_send(struct driver *d, const struct frame *f);

/**
 * driver_wait_returned() - wait until all frames have come back
 * Return: false if they did not in time.
 */
bool driver_wait_returned(struct driver *d, int timeout_ms);

/** driver_deliver() - send a frame and wait until the device is done with it. */
void driver_deliver(struct driver *d, const struct frame *f);

/*
 * The same for the balloon, if the driver has accepted it.
 */
void balloon_begin(struct balloon_frame *f, uint16_t op);
void balloon_add_run(struct balloon_frame *f, uint64_t pfn, uint64_t pages);
void driver_balloon_post(struct driver *d, const struct balloon_frame *f);
bool driver_balloon_wait_returned(struct driver *d, int timeout_ms);

/** driver_balloon() - post, kick, and wait until the device is done with it. */
void driver_balloon(struct driver *d, const struct balloon_frame *f);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <endian.h>
#include <glib.h>
#include <linux/virtio_config.h>

#include "fph-driver.h"
#include "fph-test.h"

#define COMMAND_RING	(DRIVER_START)
#define REPORT_RING	(DRIVER_START + 0x4000)
#define BALLOON_RING	(DRIVER_START + 0xc000)

_Static_assert(DRIVER_FRAMES + DRIVER_SLOTS * DRIVER_SLOT_BYTES <= DRIVER_BALLOON,
	       "memory of the driver");
_Static_assert(DRIVER_BALLOON + DRIVER_SLOTS * DRIVER_SLOT_BYTES <= DRIVER_END,
	       "memory of the driver");
_Static_assert(offsetof(struct balloon_frame, runs) == sizeof(struct virtio_fph_balloon), "no gap");
_Static_assert(offsetof(struct frame, payload) == sizeof(struct virtio_fph_report), "no gap");

#define DELIVER_MS	10000

bool driver_find(struct driver *d, struct qtest *q)
{
	*d = (struct driver){ 0 };
	return vpci_find(&d->dev, q, VIRTIO_FPH_ID, DRIVER_BAR);
}

void driver_init(struct driver *d, uint64_t features, unsigned int buffers)
{
	struct vpci *dev = &d->dev;

	features |= UINT64_C(1) << VIRTIO_F_VERSION_1;
	features |= vpci_offered(dev) & UINT64_C(1) << VIRTIO_F_ACCESS_PLATFORM;
	d->sent = d->returned = d->balloon_sent = d->balloon_returned = 0;
	vpci_set_status(dev, 0);
	check_int(vpci_status(dev), 0);
	vpci_set_status(dev, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	vpci_accept(dev, features);
	vpci_set_status(dev, vpci_status(dev) | VIRTIO_CONFIG_S_FEATURES_OK);
	check(vpci_status(dev) & VIRTIO_CONFIG_S_FEATURES_OK);
	vpci_ring_init(dev, VIRTIO_FPH_Q_COMMAND, DRIVER_RING_SIZE, COMMAND_RING);
	vpci_ring_init(dev, VIRTIO_FPH_Q_REPORT, DRIVER_RING_SIZE, REPORT_RING);
	if (features & UINT64_C(1) << VIRTIO_FPH_F_BALLOON)
		vpci_ring_init(dev, VIRTIO_FPH_Q_BALLOON, DRIVER_RING_SIZE, BALLOON_RING);
	vpci_set_status(dev, vpci_status(dev) | VIRTIO_CONFIG_S_DRIVER_OK);
	driver_post_command_buffers(d, buffers);
}

static void post_command_buffer(struct driver *d)
{
	struct vpci_ring *r = &d->dev.ring[VIRTIO_FPH_Q_COMMAND];
	struct vpci_buf buf = {
		.addr = DRIVER_COMMANDS + r->next_desc * DRIVER_COMMAND_STRIDE,
		.len = sizeof(struct virtio_fph_command),
		.write = true,
	};

	vpci_post(&d->dev, VIRTIO_FPH_Q_COMMAND, &buf, 1);
}

void driver_post_command_buffers(struct driver *d, unsigned int n)
{
	if (!n)
		return;
	while (n--)
		post_command_buffer(d);
	vpci_kick(&d->dev, VIRTIO_FPH_Q_COMMAND);
}

bool driver_command(struct driver *d, int timeout_ms, struct virtio_fph_command *ret)
{
	gint64 deadline = g_get_monotonic_time() + timeout_ms * 1000;
	uint16_t head;
	uint32_t len;

	while (!vpci_take(&d->dev, VIRTIO_FPH_Q_COMMAND, &head, &len)) {
		if (g_get_monotonic_time() > deadline)
			return false;
		g_usleep(500);
	}
	check_int(len, sizeof(*ret));
	qtest_read(d->dev.q, DRIVER_COMMANDS + head * DRIVER_COMMAND_STRIDE, ret, sizeof(*ret));
	ret->id = le32toh(ret->id);
	ret->op = le16toh(ret->op);
	ret->encodings = le16toh(ret->encodings);
	driver_post_command_buffers(d, 1);
	return true;
}

static void begin(struct frame *f, uint32_t id, uint32_t seq, uint16_t encoding)
{
	memset(f, 0, sizeof(*f));
	f->header.id = htole32(id);
	f->header.seq = htole32(seq);
	f->header.encoding = htole16(encoding);
}

void frame_runs(struct frame *f, uint32_t id, uint32_t seq)
{
	begin(f, id, seq, VIRTIO_FPH_ENC_RUNS);
}

void frame_add_run(struct frame *f, uint64_t pfn, uint64_t pages)
{
	unsigned int n = f->len / 8;

	check(n < VIRTIO_FPH_RUNS_MAX);
	f->payload[n] = htole64(VIRTIO_FPH_RUN(pfn, pages));
	f->len += 8;
	f->header.count = htole32(n + 1);
}

void frame_bitmap(struct frame *f, uint32_t id, uint32_t seq, uint64_t base, uint32_t bits)
{
	check(bits <= VIRTIO_FPH_BITS_MAX);
	begin(f, id, seq, VIRTIO_FPH_ENC_BITMAP);
	f->header.base = htole64(base);
	f->header.count = htole32(bits);
	f->len = bits / 8;
}

void frame_set_bit(struct frame *f, uint64_t pfn)
{
	uint64_t bit = pfn - le64toh(f->header.base);

	check(bit < le32toh(f->header.count));
	f->payload[bit / 64] |= htole64(UINT64_C(1) << bit % 64);
}

void frame_last(struct frame *f, uint32_t id, uint32_t seq, uint16_t flags)
{
	struct virtio_fph_stats stats = {
		.walk_ns = htole64(1000),
		.lock_ns = htole64(100),
		.walk = htole32(VIRTIO_FPH_WALK_PFN),
	};

	begin(f, id, seq, VIRTIO_FPH_ENC_STATS);
	f->header.flags = htole16(VIRTIO_FPH_REPORT_LAST | flags);
	memcpy(f->payload, &stats, sizeof(stats));
	f->len = sizeof(stats);
}

void driver_post(struct driver *d, const struct frame *f)
{
	struct vpci_buf buf = {
		.addr = DRIVER_FRAMES + d->sent % DRIVER_SLOTS * DRIVER_SLOT_BYTES,
		.len = sizeof(f->header) + f->len,
	};

	check(d->sent - d->returned < DRIVER_SLOTS || driver_wait_returned(d, DELIVER_MS));
	qtest_write(d->dev.q, buf.addr, f, buf.len);
	vpci_post(&d->dev, VIRTIO_FPH_Q_REPORT, &buf, 1);
	d->sent++;
}

void driver_send(struct driver *d, const struct frame *f)
{
	driver_post(d, f);
	vpci_kick(&d->dev, VIRTIO_FPH_Q_REPORT);
}

static bool wait_returned(struct driver *d, unsigned int queue, unsigned int *returned,
			  unsigned int sent, int timeout_ms)
{
	gint64 deadline = g_get_monotonic_time() + timeout_ms * 1000;
	uint16_t head;
	uint32_t len;

	while (*returned != sent) {
		if (vpci_take(&d->dev, queue, &head, &len)) {
			check_int(len, 0);
			++*returned;
			continue;
		}
		if (g_get_monotonic_time() > deadline)
			return false;
		g_usleep(500);
	}
	return true;
}

bool driver_wait_returned(struct driver *d, int timeout_ms)
{
	return wait_returned(d, VIRTIO_FPH_Q_REPORT, &d->returned, d->sent, timeout_ms);
}

void driver_deliver(struct driver *d, const struct frame *f)
{
	driver_send(d, f);
	check(driver_wait_returned(d, DELIVER_MS));
}

void balloon_begin(struct balloon_frame *f, uint16_t op)
{
	memset(f, 0, sizeof(*f));
	f->header.op = htole16(op);
}

void balloon_add_run(struct balloon_frame *f, uint64_t pfn, uint64_t pages)
{
	unsigned int n = f->len / 8;

	check(n < VIRTIO_FPH_RUNS_MAX);
	f->runs[n] = htole64(VIRTIO_FPH_RUN(pfn, pages));
	f->len += 8;
	f->header.count = htole32(n + 1);
}

void driver_balloon_post(struct driver *d, const struct balloon_frame *f)
{
	struct vpci_buf buf = {
		.addr = DRIVER_BALLOON + d->balloon_sent % DRIVER_SLOTS * DRIVER_SLOT_BYTES,
		.len = sizeof(f->header) + f->len,
	};

	check(d->balloon_sent - d->balloon_returned < DRIVER_SLOTS);
	qtest_write(d->dev.q, buf.addr, f, buf.len);
	vpci_post(&d->dev, VIRTIO_FPH_Q_BALLOON, &buf, 1);
	d->balloon_sent++;
}

bool driver_balloon_wait_returned(struct driver *d, int timeout_ms)
{
	return wait_returned(d, VIRTIO_FPH_Q_BALLOON, &d->balloon_returned, d->balloon_sent,
			     timeout_ms);
}

void driver_balloon(struct driver *d, const struct balloon_frame *f)
{
	driver_balloon_post(d, f);
	vpci_kick(&d->dev, VIRTIO_FPH_Q_BALLOON);
	check(driver_balloon_wait_returned(d, DELIVER_MS));
}

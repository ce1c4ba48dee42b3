/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A driver of virtio-fph that does whatever comes to its mind: registers, rings,
 * descriptors and frames are written as the dice fall, half of them nearly right, or
 * they would not get far. The host migrates, gives up, stops and resets meanwhile. QEMU
 * has to live through it, and the device has to work once it is driven well.
 *
 * FPH_TEST_SEED repeats a run, as far as time does not matter; FPH_TEST_STEPS: how long;
 * FPH_TEST_LOGS: a folder for what QEMU says.
 */
#include <endian.h>
#include <inttypes.h>
#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include <signal.h>
#include <unistd.h>

#include "fph-driver.h"
#include "harness.h"
#include "qtest.h"

#define MEMORY		(64 * MIB)
#define STEPS		5000
#define COMMAND_MS	20000

static const char *const device[] = {
	"-device", "virtio-fph-pci,id=fph,addr=5,balloon=on", NULL,
};

struct play {
	GRand *rnd;
	struct vm *src, *dst;
	struct qtest *q, *dst_q;
	struct driver d;
	uint32_t id;			/* of the last command */
	uint32_t seq;
	bool migrating;
	uint64_t migrations, broken, reports;
};

static struct vm *start_side(struct qtest **q, bool destination)
{
	g_autoptr(GPtrArray) args = g_ptr_array_new();
	struct vm_config cfg = {
		.name = "source",
		.qemu = sanitized_qemu(),
		.memory = MEMORY,
		.accel = "qtest",
		.fph_mode = "both",
		.logs = g_getenv("FPH_TEST_LOGS"),
	};
	struct vm *vm;

	*q = qtest_new();
	for (const char *const *a = qtest_args(*q); *a; a++)
		g_ptr_array_add(args, (char *)*a);
	for (const char *const *a = device; *a; a++)
		g_ptr_array_add(args, (char *)*a);
	g_ptr_array_add(args, NULL);
	cfg.extra = (const char *const *)args->pdata;
	vm = destination ? start_destination(cfg) : start(cfg);
	qtest_connect(*q);
	return vm;
}

static uint32_t dice(struct play *p, uint32_t sides)
{
	return g_rand_int(p->rnd) % sides;
}

/* Of any magnitude, and now and then one at its edge */
static uint64_t number(struct play *p)
{
	uint64_t n = (uint64_t)g_rand_int(p->rnd) << 32 | g_rand_int(p->rnd);

	n >>= dice(p, 64);
	return dice(p, 4) ? n : n & (n - 1);
}

/* RAM, as a rule */
static uint64_t address(struct play *p)
{
	switch (dice(p, 8)) {
	case 0: return number(p);
	case 1: return DRIVER_BAR + dice(p, 0x4000);
	case 2: return MEMORY - dice(p, 64);
	default: return DRIVER_START + dice(p, DRIVER_END - DRIVER_START);
	}
}

/* Driven as it should be: what comes then gets far */
static void behave(struct play *p)
{
	uint64_t features = dice(p, 2) ? 1 << VIRTIO_FPH_F_BALLOON : 0;

	if (!dice(p, 4))
		features |= number(p);
	if (!driver_find(&p->d, p->q))
		fail_msg("the device has gone");
	features &= vpci_offered(&p->d.dev) & UINT64_C(0xffffff);
	driver_init(&p->d, features, dice(p, 5));
}

static void registers(struct play *p)
{
	static const unsigned int sizes[] = { 1, 2, 4 };
	unsigned int bytes = sizes[dice(p, 3)];
	uint64_t base = dice(p, 3) ? p->d.dev.common : p->d.dev.device;

	qtest_store(p->q, base + dice(p, 64), bytes, number(p));
	qtest_load(p->q, base + dice(p, 64), bytes);
}

static void status(struct play *p)
{
	vpci_set_status(&p->d.dev, dice(p, 256));
}

static void bus_master(struct play *p)
{
	vpci_config_write(&p->d.dev, PCI_COMMAND, 2,
			  PCI_COMMAND_MEMORY | (dice(p, 2) ? PCI_COMMAND_MASTER : 0));
}

static void kick(struct play *p)
{
	qtest_store(p->q, p->d.dev.notify + dice(p, 4) * p->d.dev.notify_multiplier, 2, dice(p, 5));
}

static unsigned int some_queue(struct play *p)
{
	unsigned int queue = dice(p, VPCI_RINGS);

	return p->d.dev.ring[queue].size ? queue : VIRTIO_FPH_Q_REPORT;
}

static void descriptors(struct play *p)
{
	unsigned int queue = some_queue(p);

	if (!p->d.dev.ring[queue].size)
		return;
	for (unsigned int i = dice(p, 6); i > 0; i--) {
		struct vpci_buf buf = {
			.addr = address(p),
			.len = dice(p, 3) ? dice(p, 0x8100) : number(p),
			.write = dice(p, 4) == 0,
		};

		vpci_desc(&p->d.dev, queue, dice(p, DRIVER_RING_SIZE), buf,
			  dice(p, 8) ? dice(p, 2) : number(p), dice(p, DRIVER_RING_SIZE + 1));
	}
	vpci_publish(&p->d.dev, queue, dice(p, DRIVER_RING_SIZE + 1));
	kick(p);
}

/* The ring's own words */
static void rings(struct play *p)
{
	const struct vpci_ring *r = &p->d.dev.ring[some_queue(p)];

	if (!r->size)
		return;
	qtest_store(p->q, (dice(p, 2) ? r->avail : r->used) + 2 * dice(p, DRIVER_RING_SIZE + 3), 2,
		    dice(p, 2) ? dice(p, DRIVER_RING_SIZE * 2) : number(p));
}

static void commands(struct play *p)
{
	struct virtio_fph_command c;
	uint16_t head;
	uint32_t len;

	while (p->d.dev.ring[VIRTIO_FPH_Q_COMMAND].size &&
	       vpci_take(&p->d.dev, VIRTIO_FPH_Q_COMMAND, &head, &len)) {
		if (head >= DRIVER_RING_SIZE || len != sizeof(c))
			return;
		/* Where driver_init() has them; one that dice have moved is lost */
		qtest_read(p->q, DRIVER_COMMANDS + head * DRIVER_COMMAND_STRIDE, &c, sizeof(c));
		if (le16toh(c.op) != VIRTIO_FPH_OP_REPORT)
			continue;
		p->id = le32toh(c.id);
		p->seq = 0;
	}
	if (dice(p, 2))
		driver_post_command_buffers(&p->d, 1);
}

static void post(struct play *p, unsigned int queue, uint64_t at, void *data, size_t len)
{
	unsigned int parts = 1 + (dice(p, 4) == 0);
	struct vpci_buf bufs[2];
	size_t cut = parts > 1 ? dice(p, len + 1) : len;

	/* One byte of it is another */
	if (!dice(p, 8))
		((uint8_t *)data)[dice(p, MIN(len, 64))] ^= 1 << dice(p, 8);
	at += dice(p, DRIVER_SLOTS) * DRIVER_SLOT_BYTES;
	qtest_write(p->q, at, data, len);
	bufs[0] = (struct vpci_buf){ .addr = at, .len = cut };
	bufs[1] = (struct vpci_buf){ .addr = at + cut, .len = len - cut };
	vpci_post(&p->d.dev, queue, bufs, parts);
	vpci_kick(&p->d.dev, queue);
}

static void frame(struct play *p)
{
	static struct frame f;
	uint64_t pfn = dice(p, MEMORY / PAGE);

	/* Without a command, each one breaks the device */
	if (!p->id || !p->d.dev.ring[VIRTIO_FPH_Q_REPORT].size)
		return;
	switch (dice(p, 5)) {
	case 0:
		frame_bitmap(&f, p->id, p->seq, pfn & ~63, 64 << dice(p, 4));
		frame_set_bit(&f, (pfn & ~63) + dice(p, 64));
		break;
	case 1:
		frame_last(&f, p->id, p->seq, dice(p, 2));
		break;
	default:
		frame_runs(&f, p->id, p->seq);
		for (unsigned int i = dice(p, 8); i > 0 || !f.len; i -= i > 0) {
			frame_add_run(&f, pfn, 1 + dice(p, 64));
			pfn += 64 + dice(p, 64);
		}
	}
	p->seq++;
	post(p, VIRTIO_FPH_Q_REPORT, DRIVER_FRAMES, &f, sizeof(f.header) + f.len);
}

static void balloon_frame(struct play *p)
{
	static struct balloon_frame f;
	uint64_t pfn = (DRIVER_END + dice(p, MEMORY - DRIVER_END)) / PAGE;

	if (!p->d.dev.ring[VIRTIO_FPH_Q_BALLOON].size)
		return;
	balloon_begin(&f, dice(p, 4));
	for (unsigned int i = dice(p, 6); i > 0; i--) {
		balloon_add_run(&f, pfn, 1 + dice(p, 32));
		pfn += 32 + dice(p, 32);
	}
	post(p, VIRTIO_FPH_Q_BALLOON, DRIVER_BALLOON, &f, sizeof(f.header) + f.len);
}

/*
 * What the host does
 */

static void give_up(struct play *p)
{
	if (!p->migrating)
		return;
	ok(vm_migrate_cancel(p->src, COMMAND_MS, E));
	p->migrating = false;
}

/* What comes next is in the middle of one that was taken */
static void begin_report(struct play *p)
{
	struct vm_fph fph = { 0 };
	static struct frame f;

	frame_runs(&f, p->id, p->seq++);
	frame_add_run(&f, 16 * MIB / PAGE, 64);
	driver_deliver(&p->d, &f);
	until (fph.hints.free >= 64)
		ok(vm_query_fph(p->src, &fph, E));
	vm_fph_clear(&fph);
	p->reports++;
}

/* One that never ends, to nobody. The driver, good for once, hears that it is wanted. */
static void migrate_or_give_up(struct play *p)
{
	struct virtio_fph_command c;

	if (p->migrating) {
		give_up(p);
		return;
	}
	check(driver_find(&p->d, p->q));
	driver_init(&p->d, (1 << VIRTIO_FPH_F_BALLOON | dice(p, 2) << VIRTIO_FPH_F_FREE_ZERO), 4);
	ok(vm_run(p->src, E, "migrate-set-parameters",
		  "{\"max-bandwidth\":4096,\"downtime-limit\":1}"));
	ok(vm_run(p->src, E, "migrate", "{\"uri\":\"exec:cat > /dev/null\"}"));
	p->migrating = true;
	p->migrations++;
	do
		check(driver_command(&p->d, COMMAND_MS, &c));
	while (c.op != VIRTIO_FPH_OP_REPORT);
	p->id = c.id;
	p->seq = 0;
	begin_report(p);
}

static void host(struct play *p)
{
	struct vm_fph fph = { 0 };

	switch (dice(p, 32)) {
	case 0:
		migrate_or_give_up(p);
		break;
	case 1:
		ok(vm_stop(p->src, E));
		ok(vm_cont(p->src, E));
		break;
	case 2:
		ok(vm_run(p->src, E, "system_reset", NULL));
		/* Its BAR is where it was before the first driver */
		behave(p);
		break;
	case 3:
		set_size(p->src, (1 + dice(p, 64)) * MIB);
		break;
	default:
		ok(vm_query_fph(p->src, &fph, E));
		check_sums(&fph);
		vm_fph_clear(&fph);
	}
}

static const struct {
	void (*step)(struct play *p);
	unsigned int weight;
} steps[] = {
	{ behave, 4 }, { registers, 8 }, { status, 1 }, { bus_master, 1 }, { kick, 4 },
	{ descriptors, 6 }, { rings, 3 }, { commands, 6 }, { frame, 16 }, { balloon_frame, 8 },
	{ host, 3 },
};

static void step(struct play *p)
{
	unsigned int weights = 0, i;

	for (i = 0; i < ARRAY_SIZE(steps); i++)
		weights += steps[i].weight;
	weights = dice(p, weights);
	for (i = 0; weights >= steps[i].weight; i++)
		weights -= steps[i].weight;
	steps[i].step(p);
	if (i == 0)
		return;
	if (vpci_status(&p->d.dev) & VIRTIO_CONFIG_S_NEEDS_RESET) {
		p->broken++;
		if (dice(p, 4))
			behave(p);
	}
}

/* A good driver in a migration that ends */
static void check_mended(struct play *p)
{
	struct vm_migrate_opts opts = { .timeout_ms = MIGRATE_MS };
	struct vm_migration m = { 0 };
	struct virtio_fph_command c;
	struct frame f;

	give_up(p);
	ok(vm_run(p->src, E, "system_reset", NULL));
	wait_event(p->src, "RESET");
	check(driver_find(&p->d, p->q));
	driver_init(&p->d, 0, 4);
	/* What the dice have posted, and the device has not looked at, is not there any more */
	qtest_memset(p->q, 2 * MIB, 0x5a, 32 * MIB);
	p->dst = start_side(&p->dst_q, true);
	ok(vm_run(p->src, E, "object-del", "{\"id\":\"fph0\"}"));
	ok(vm_run(p->src, E, "object-add",
		  "{\"qom-type\":\"fph-source\",\"id\":\"fph0\",\"mode\":\"pv\",\"pv-wait\":30000}"));
	ok(vm_migrate_start(p->src, p->dst, &opts, &m, E));
	do
		check(driver_command(&p->d, COMMAND_MS, &c));
	while (c.op != VIRTIO_FPH_OP_REPORT);
	frame_runs(&f, c.id, 0);
	frame_add_run(&f, 16 * MIB / PAGE, 1000);
	driver_deliver(&p->d, &f);
	frame_last(&f, c.id, 1, 0);
	driver_deliver(&p->d, &f);
	ok(vm_migrate_wait(p->src, p->dst, &opts, &m, E));
	print_migration(&m);
	check_str(m.fph.hints.state, "answered");
	check_int(m.fph.skipped, 1000);
	check_int(check_ram_equal_or_free(p->src, p->dst), 1000);
	vm_migration_clear(&m);
}

static void test_random(void **state)
{
	const char *seed_text = g_getenv("FPH_TEST_SEED"), *steps_text = g_getenv("FPH_TEST_STEPS");
	guint32 seed = seed_text ? (guint32)g_ascii_strtoull(seed_text, NULL, 10) : g_random_int();
	uint64_t n = steps_text ? g_ascii_strtoull(steps_text, NULL, 10) : STEPS;
	struct play p = { .rnd = g_rand_new_with_seed(seed) };

	print_message("FPH_TEST_SEED=%u, %" PRIu64 " steps\n", seed, n);
	p.src = start_side(&p.q, false);
	ok(vm_run(p.src, E, "set-action", "{\"reboot\":\"reset\"}"));
	migrate_or_give_up(&p);
	for (uint64_t i = 0; i < n; i++)
		step(&p);
	print_message("%" PRIu64 " migrations, %" PRIu64 " reports begun; found broken %" PRIu64
		      " times\n", p.migrations, p.reports, p.broken);
	check(p.reports > 0 && p.broken > 0);
	check_mended(&p);
	vm_free(p.src);
	vm_free(p.dst);
	qtest_free(p.q);
	qtest_free(p.dst_q);
	g_rand_free(p.rnd);
}

static const struct fph_test_single singles[] = {
	{ "random-driver", test_random },
};

int main(int argc, char **argv)
{
	struct fph_tests t = { 0 };

	fph_test_add_singles(&t, singles);
	return harness_main(argc, argv, &t, NULL);
}

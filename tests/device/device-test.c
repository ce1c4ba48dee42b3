/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * virtio-fph and what fph-source makes of its reports. The test is the guest:
 * no processor runs (-accel qtest), so each step happens when the test says so.
 * What only shows when a processor writes meanwhile is in the kvm-* cases.
 *
 * One case per process: device-test NAME.
 */
#include <endian.h>
#include <inttypes.h>
#include <linux/pci_regs.h>
#include <linux/virtio_balloon.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "fph-driver.h"
#include "harness.h"
#include "qtest.h"

#define GIB		(UINT64_C(1) << 30)

/*
 * Memory of the guest: half of it below a hole that ends at 4 GiB, half above.
 * Some of it is filled, the rest of what is not the driver's was never touched.
 */
#define MEMORY		(128 * MIB)
#define LOW		(64 * MIB)
#define HIGH		(4 * GIB)
#define FILLED		(2 * MIB)		/* from here */
#define FILLED_END	(34 * MIB)
#define HIGH_FILLED_END	(HIGH + 16 * MIB)

#define PFN(addr)	((addr) / PAGE)
#define PAGES(bytes)	((bytes) / PAGE)

/* The guest's first report is waited for longer than any step of a test takes */
#define PATIENT		",pv-wait=30000"
#define COMMAND_MS	10000

static const char *const one_device[] = { "-device", "virtio-fph-pci,id=fph,addr=5", NULL };
static const char *const no_device[] = { NULL };

struct setup {
	const char *fph;		/* mode and more, NULL for no object */
	const char *const *device;	/* NULL: one_device */
	const char *const *extra;
	const char *ram;
	bool two_nodes;
	bool little;			/* content, so that slow migrations are not too slow */
};

struct machines {
	struct setup setup;
	struct vm *src, *dst;
	struct qtest *q, *dst_q;
	struct driver driver;
	struct vm_migration m;
};

/* Wait until @cond, but not for ever */
#define wait_until(cond) do {						\
	for (int tries_ = 0; !(cond); tries_++) {			\
		if (tries_ > 10000)					\
			fail_msg("time-out: %s", #cond);		\
		g_usleep(1000);						\
	}								\
} while (0)

static const char *const two_nodes[] = {
	"-object", "memory-backend-ram,id=n0,size=48M",
	"-object", "memory-backend-memfd,id=n1,size=80M,share=on",
	"-numa", "node,memdev=n0", "-numa", "node,memdev=n1", NULL,
};

static void append(GPtrArray *args, const char *const *more)
{
	for (; more && *more; more++)
		g_ptr_array_add(args, (char *)*more);
}

static struct vm *start_side(const struct setup *s, struct qtest **q, bool destination)
{
	g_autoptr(GPtrArray) args = g_ptr_array_new();
	struct vm_config cfg = {
		.name = "source",
		.memory = MEMORY,
		.machine = "pc,max-ram-below-4g=64M",
		.accel = "qtest",
		.ram = s->ram,
		.fph_mode = s->fph,
	};
	struct vm *vm;

	*q = qtest_new();
	append(args, qtest_args(*q));
	append(args, s->device ? s->device : one_device);
	append(args, s->two_nodes ? two_nodes : NULL);
	append(args, s->extra);
	g_ptr_array_add(args, NULL);
	cfg.extra = (const char *const *)args->pdata;
	vm = destination ? start_destination(cfg) : start(cfg);
	qtest_connect(*q);
	return vm;
}

/* What is known of each page, by its number in the guest's memory */
static bool filled[PAGES(MEMORY)];
static bool reported[PAGES(MEMORY)];

static uint64_t page_number(uint64_t addr)
{
	return PFN(addr < LOW ? addr : addr - HIGH + LOW);
}

static void fill(struct qtest *q, uint64_t start_addr, uint64_t end_addr, uint8_t value)
{
	qtest_memset(q, start_addr, value, end_addr - start_addr);
	memset(filled + page_number(start_addr), value != 0, PAGES(end_addr - start_addr));
}

static void fill_all(struct qtest *q, bool little)
{
	if (little) {
		fill(q, FILLED, FILLED + 4 * MIB, 0x5a);
	} else {
		fill(q, FILLED, FILLED_END, 0x5a);
		fill(q, HIGH, HIGH_FILLED_END, 0xa5);
	}
}

/* A source that has content, and its destination */
static void begin(struct machines *x, const struct setup *s)
{
	*x = (struct machines){ .setup = *s };
	/* Or one touch would populate 2 MiB */
	check_int(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), 0);
	x->src = start_side(s, &x->q, false);
	x->dst = start_side(s, &x->dst_q, true);
	fill(x->q, DRIVER_START, DRIVER_END, 0);
	fill_all(x->q, s->little);
	if (driver_find(&x->driver, x->q))
		check(s->device != no_device);
	else
		check(s->device == no_device);
}

static void end(struct machines *x)
{
	vm_migration_clear(&x->m);
	vm_free(x->src);
	vm_free(x->dst);
	qtest_free(x->q);
	qtest_free(x->dst_q);
}

/* Another migration of the same source, to a new destination */
static void again(struct machines *x)
{
	vm_free(x->dst);
	qtest_free(x->dst_q);
	x->dst = start_side(&x->setup, &x->dst_q, true);
}

static void migrate_start(struct machines *x, const struct vm_migrate_opts *opts)
{
	ok(vm_migrate_start(x->src, x->dst, opts, &x->m, E));
}

static void print_hints(const struct vm_fph *f)
{
	print_message("hints %s%s%s: %" PRIu64 " free in %" PRIu64 " answers to %" PRIu64
		      " requests, %" PRIu64 " stale; guest only %" PRIu64 ", host only %" PRIu64
		      ", both %" PRIu64 "\n", f->hints.state, f->hints.reason ? ", " : "",
		      f->hints.reason ? f->hints.reason : "", f->hints.free, f->hints.answers,
		      f->hints.requests, f->hints.stale, f->guest_only, f->host_only, f->both);
}

static void migrate_wait(struct machines *x)
{
	static const struct vm_migrate_opts opts = { .timeout_ms = MIGRATE_MS };

	ok(vm_migrate_wait(x->src, x->dst, &opts, &x->m, E));
	print_migration(&x->m);
	print_hints(&x->m.fph);
	check_str(x->m.status, "completed");
}

static void check_hints(struct machines *x, const char *state, const char *reason)
{
	const struct vm_hints *h = &x->m.fph.hints;

	check_str(x->m.fph.state, "ended");
	check_str(h->state, state);
	if (reason && !(h->reason && strstr(h->reason, reason)))
		fail_msg("reason \"%s\" does not say \"%s\"", h->reason ? h->reason : "", reason);
	check(reason || !strcmp(state, "answered") == !h->reason);
}

static bool hints_are(struct machines *x, const char *state)
{
	struct vm_fph fph = { 0 };
	bool equal;

	ok(vm_query_fph(x->src, &fph, E));
	equal = !strcmp(fph.hints.state, state);
	vm_fph_clear(&fph);
	return equal;
}

/* Before the first migration the query says what one would do */
static void check_foreseen(struct machines *x, const char *reason)
{
	struct vm_fph fph = { 0 };

	ok(vm_query_fph(x->src, &fph, E));
	check_str(fph.hints.state, "idle");
	check_str(fph.hints.transport, "virtio-fph");
	check(fph.hints.device != NULL);
	if (reason && !(fph.hints.reason && strstr(fph.hints.reason, reason)))
		fail_msg("reason \"%s\" does not say \"%s\"",
			 fph.hints.reason ? fph.hints.reason : "", reason);
	check(reason || !fph.hints.reason);
	vm_fph_clear(&fph);
}

/* Nothing was left out on the guest's word */
static void check_nothing_free(struct machines *x)
{
	check_int(x->m.fph.hints.free, 0);
	check_int(x->m.fph.skipped, 0);
	check_ram_equal(x->src, x->dst);
}

/* The next command must be a request for a report. Return: its ID */
static uint32_t wait_request(struct machines *x)
{
	struct virtio_fph_command c;

	check(driver_command(&x->driver, COMMAND_MS, &c));
	check_int(c.op, VIRTIO_FPH_OP_REPORT);
	check(c.id != 0);
	return c.id;
}

static bool needs_reset(struct machines *x)
{
	return vpci_status(&x->driver.dev) & VIRTIO_CONFIG_S_NEEDS_RESET;
}

/* Pages that the guest named, and that are no RAM */
static uint64_t unknown_pages(struct vm *vm)
{
	JsonNode *node;
	uint64_t pages;

	ok((node = vm_command(vm, E, "qom-get",
			      "{\"path\":\"/machine/peripheral/fph/virtio-backend\","
			      "\"property\":\"unknown-pages\"}")));
	pages = json_node_get_int(node);
	json_node_unref(node);
	return pages;
}

static void report(uint64_t pfn, uint64_t pages)
{
	memset(reported + page_number(pfn * PAGE), 1, pages);
}

/* How many pages were reported that have content, or that have none */
static uint64_t count_reported(bool content)
{
	uint64_t n = 0;

	for (uint64_t i = 0; i < G_N_ELEMENTS(reported); i++)
		n += reported[i] && filled[i] == content;
	return n;
}

static void check_difference(void *opaque, const struct vm_block *block, guint64 offset,
			     const guint8 *a, const guint8 *b)
{
	uint64_t page = PFN(offset) + (strcmp(block->name, "n1") ? 0 : PAGES(48 * MIB));
	uint64_t *pages = opaque;

	if (strcmp(block->name, "pc.ram") && strcmp(block->name, "ram0") &&
	    strcmp(block->name, "n0") && strcmp(block->name, "n1"))
		fail_msg("block %s differs", block->name);
	if (!reported[page])
		fail_msg("%s differs at %#" PRIx64 ", a page that was not reported", block->name,
			 offset);
	++*pages;
}

/* The pages with content that are missing at the destination are those reported */
static void check_missing(struct machines *x)
{
	GError *error = NULL;
	uint64_t pages = 0;

	if (vm_ram_compare(x->src, x->dst, check_difference, &pages, NULL, &error) < 0)
		fail_msg("comparing RAM: %s", error->message);
	check_int(pages, count_reported(true));
}

/*
 * Without a migration.
 */

static JsonNode *query_status(struct vm *vm)
{
	JsonNode *ret = NULL;

	ok(ret = vm_command(vm, E, "x-query-virtio-status",
			    "{\"path\":\"/machine/peripheral/fph/virtio-backend\"}"));
	return ret;
}

static void test_features(void **state)
{
	static const char *const without[] = {
		"-device", "virtio-fph-pci,free-zero=off,free-pattern=off,ioeventfd=off,vectors=0,"
			   "in_order=on",
		NULL,
	};
	const uint64_t traits = 1 << VIRTIO_FPH_F_FREE_ZERO | 1 << VIRTIO_FPH_F_FREE_PATTERN;
	struct setup s = { .fph = "pv" };
	struct driver d;
	struct qtest *q;
	struct vm *vm;
	JsonNode *status;

	vm = start_side(&s, &q, false);
	check(driver_find(&d, q));
	check_int(vpci_queues(&d.dev), VIRTIO_FPH_Q_BALLOON);
	check_int(vpci_offered(&d.dev) & 0xffffff, traits);
	check(vpci_offered(&d.dev) & UINT64_C(1) << VIRTIO_F_VERSION_1);
	json_node_unref(query_status(vm));
	driver_init(&d, traits, 4);
	status = query_status(vm);
	check_str(json_object_get_string_member(json_node_get_object(status), "name"),
		  "virtio-fph");
	json_node_unref(status);
	vm_free(vm);
	qtest_free(q);

	s.device = without;
	vm = start_side(&s, &q, false);
	check(driver_find(&d, q));
	check_int(vpci_offered(&d.dev) & 0xffffff, 0);
	check(!(vpci_offered(&d.dev) & UINT64_C(1) << VIRTIO_F_IN_ORDER));
	/* Accepts what was not offered */
	driver_init(&d, traits, 4);
	vm_free(vm);
	qtest_free(q);
}

static void test_properties(void **state)
{
	struct setup s = { .fph = "pv", .device = no_device };
	struct qtest *q;
	struct vm *vm = start_side(&s, &q, false);

	refused(vm, "'auto', 'runs' or 'bitmap', not 'x'", "device_add",
		"{\"driver\":\"virtio-fph-pci\",\"encoding\":\"x\"}");
	/* Nothing is left of it */
	ok(vm_run(vm, E, "device_add", "{\"driver\":\"virtio-fph-pci\",\"encoding\":\"runs\"}"));
	vm_free(vm);
	qtest_free(q);
}

/*
 * Good reports.
 */

struct good_row {
	const char *name;
	const char *mode;
	bool bitmap;
	bool two_nodes;
	const char *ram;
	const char *device;
	uint16_t encodings;	/* that the device asks for; 0: all */
};

#define RUNS_ONLY	1 << VIRTIO_FPH_ENC_RUNS
#define BITMAP_ONLY	1 << VIRTIO_FPH_ENC_BITMAP

static const struct good_row good_rows[] = {
	{ "good-pv-runs", "pv", false, .device = "encoding=runs", .encodings = RUNS_ONLY },
	{ "good-pv-bitmap", "pv", true, .device = "encoding=bitmap", .encodings = BITMAP_ONLY },
	/* It was not asked for, but can be told */
	{ "good-unasked", "pv", true, .device = "encoding=runs", .encodings = RUNS_ONLY },
	{ "good-both-runs", "both", false, .device = "encoding=auto" },
	{ "good-both-bitmap", "both", true },
	{ "good-both-memfd", "both", true, .ram = VM_RAM_MEMFD },
	{ "good-both-nodes", "both", false, true },
	{ "good-pv-nodes", "pv", true, true },
	{ "good-no-ioeventfd", "both", false, .device = "ioeventfd=off,vectors=0" },
	{ "good-iommu-platform", "both", false, .device = "iommu_platform=on" },
};

struct range {
	uint64_t start, end;
};

/* With content and without, across the boundary of the nodes, below and above the hole */
static const struct range free_ranges[] = {
	{ 3 * MIB, 3 * MIB + 3 * PAGE },
	{ 5 * MIB, 5 * MIB + PAGE },
	{ 33 * MIB, 36 * MIB },
	{ 47 * MIB, 49 * MIB },
	{ 63 * MIB, LOW },
	{ HIGH, HIGH + 5 * PAGE },
	{ HIGH + 15 * MIB, HIGH + 17 * MIB },
	{ HIGH + 63 * MIB, HIGH + 64 * MIB },
};

static void send_runs(struct machines *x, uint32_t id, uint32_t *seq)
{
	struct frame f;

	for (size_t i = 0; i < G_N_ELEMENTS(free_ranges); i++) {
		const struct range *r = &free_ranges[i];

		/* Some in a frame of their own, some in two runs that touch */
		if (i % 3 == 0)
			frame_runs(&f, id, (*seq)++);
		if (r->end - r->start > MIB) {
			frame_add_run(&f, PFN(r->start), 7);
			frame_add_run(&f, PFN(r->start) + 7, PAGES(r->end - r->start) - 7);
		} else {
			frame_add_run(&f, PFN(r->start), PAGES(r->end - r->start));
		}
		if (i % 3 == 2 || i + 1 == G_N_ELEMENTS(free_ranges))
			driver_deliver(&x->driver, &f);
	}
}

static void send_bitmaps(struct machines *x, uint32_t id, uint32_t *seq, uint64_t start,
			 uint64_t end_addr)
{
	struct frame f;

	frame_bitmap(&f, id, (*seq)++, PFN(start), PAGES(end_addr - start));
	for (size_t i = 0; i < G_N_ELEMENTS(free_ranges); i++)
		for (uint64_t a = free_ranges[i].start; a < free_ranges[i].end; a += PAGE)
			if (a >= start && a < end_addr)
				frame_set_bit(&f, PFN(a));
	driver_deliver(&x->driver, &f);
}

static void report_ranges(struct machines *x, uint32_t id, bool bitmap)
{
	uint32_t seq = 0;
	struct frame f;

	for (size_t i = 0; i < G_N_ELEMENTS(free_ranges); i++)
		report(PFN(free_ranges[i].start), PAGES(free_ranges[i].end - free_ranges[i].start));
	if (bitmap) {
		send_bitmaps(x, id, &seq, 0, 40 * MIB);
		send_bitmaps(x, id, &seq, 40 * MIB, LOW);
		send_bitmaps(x, id, &seq, HIGH, HIGH + LOW);
	} else {
		send_runs(x, id, &seq);
	}
	frame_last(&f, id, seq, 0);
	driver_deliver(&x->driver, &f);
}

/* Pages of the guest that nobody has touched; what firmware would see is not RAM here */
static uint64_t untouched(void)
{
	const uint64_t touched = FILLED_END - FILLED + HIGH_FILLED_END - HIGH;

	return PAGES(MEMORY - touched - (DRIVER_END - DRIVER_START));
}

static void check_good(struct machines *x, const char *mode)
{
	bool both = !strcmp(mode, "both");
	uint64_t all = count_reported(true) + count_reported(false);
	uint64_t sum;

	check_hints(x, "answered", NULL);
	check_int(x->m.fph.hints.free, all);
	check_int(x->m.fph.free, all);
	check_int(x->m.fph.guest_only, both ? count_reported(true) : all);
	check_int(x->m.fph.both, both ? count_reported(false) : 0);
	check_int(x->m.fph.host_only, both ? untouched() - count_reported(false) : 0);
	check_int(x->m.fph.skipped, x->m.fph.guest_only + x->m.fph.host_only +
				    x->m.fph.both);
	/* Each page once, but for what the driver wrote meanwhile */
	sum = (x->m.normal + x->m.duplicate + x->m.fph.skipped) * PAGE;
	check(sum >= x->m.total_ram);
	check(sum - x->m.total_ram <= DRIVER_END - DRIVER_START);
	check_missing(x);
}

static void test_good(void **state)
{
	const struct good_row *row = *state;
	g_autofree char *mode = g_strconcat(row->mode, PATIENT, NULL);
	g_autofree char *device = g_strdup_printf("virtio-fph-pci,id=fph,%s",
						  row->device ? row->device : "addr=5");
	const char *const devices[] = { "-device", device, NULL };
	struct setup s = {
		.fph = mode,
		.device = devices,
		.ram = row->ram,
		.two_nodes = row->two_nodes,
	};
	struct virtio_fph_command c;
	struct machines x;
	uint32_t answered;

	begin(&x, &s);
	driver_init(&x.driver, 0, 4);
	check(!vpci_interrupted(&x.driver.dev));
	check_foreseen(&x, NULL);
	migrate_start(&x, NULL);
	check(driver_command(&x.driver, COMMAND_MS, &c));
	check_int(c.op, VIRTIO_FPH_OP_REPORT);
	check_int(c.encodings, row->encodings ? row->encodings : RUNS_ONLY | BITMAP_ONLY);
	check(vpci_interrupted(&x.driver.dev));
	report_ranges(&x, c.id, row->bitmap);
	check(vpci_interrupted(&x.driver.dev));
	migrate_wait(&x);
	check_good(&x, row->mode);
	/* The answer was complete: there is nothing to stop; a later round asks anew */
	answered = c.id;
	check_int(x.m.fph.hints.answers, 1);
	while (driver_command(&x.driver, 0, &c))
		check(c.op == VIRTIO_FPH_OP_REPORT || c.id != answered);
	end(&x);
}

/*
 * What no working driver sends. The device breaks, changes nothing, and says
 * why; the migration goes on.
 */

#define RUNS(n)		.encoding = VIRTIO_FPH_ENC_RUNS, .count = (n), .len = (n) * 8
#define BITS(n)		.encoding = VIRTIO_FPH_ENC_BITMAP, .count = (n), .len = (n) / 8
#define GOOD_RUN	VIRTIO_FPH_RUN(PFN(3 * MIB), 1)
#define RUN_AT(addr, n)	RUNS(1), .payload = { VIRTIO_FPH_RUN(PFN(addr), n) }
#define NO_ID		INT32_MIN

struct bad_row {
	const char *name;
	const char *why;
	int32_t id_delta;
	uint16_t encoding, flags;
	uint32_t seq, count;
	uint64_t base;
	uint64_t payload[5];
	size_t len;		/* bytes of the payload */
	size_t cut;		/* bytes that are missing at the end */
};

static const struct bad_row bad_rows[] = {
	{ "bad-short", "shorter than its header", .cut = 1 },
	{ "bad-id-none", "id of no command", .id_delta = NO_ID, RUNS(1), .payload = { GOOD_RUN } },
	{ "bad-id-future", "id of no command", .id_delta = 1, RUNS(1), .payload = { GOOD_RUN } },
	{ "bad-sequence", "sequence number", .seq = 1, RUNS(1), .payload = { GOOD_RUN } },
	{ "bad-encoding", "unknown encoding", .encoding = 3 },
	{ "bad-last-runs", "without figures", .flags = VIRTIO_FPH_REPORT_LAST, RUNS(1),
	  .payload = { GOOD_RUN } },
	{ "bad-no-runs", "number of runs", RUNS(0) },
	{ "bad-too-many-runs", "number of runs", RUNS(VIRTIO_FPH_RUNS_MAX + 1), .cut = 8,
	  .payload = { GOOD_RUN } },
	{ "bad-runs-length", "number of runs", RUNS(2), .cut = 8, .payload = { GOOD_RUN } },
	{ "bad-runs-base", "base", RUNS(1), .base = 64, .payload = { GOOD_RUN } },
	/* A good run before the bad one does not count either */
	{ "bad-runs-overlap", "overlap", RUNS(2), .payload = { GOOD_RUN, GOOD_RUN } },
	{ "bad-runs-descend", "ascend", RUNS(2),
	  .payload = { GOOD_RUN, VIRTIO_FPH_RUN(PFN(2 * MIB), 1) } },
	{ "bad-no-bits", "empty bitmap", BITS(64) },
	{ "bad-odd-bits", "number of bits", .encoding = VIRTIO_FPH_ENC_BITMAP, .count = 63,
	  .len = 8, .payload = { 1 } },
	{ "bad-bits-length", "number of bits", BITS(128), .cut = 8, .payload = { 1 } },
	{ "bad-bits-base", "odd page", BITS(64), .base = 1024 + 1, .payload = { 1 } },
	{ "bad-bits-end", "beyond all addresses", BITS(64), .base = UINT64_C(1) << 52,
	  .payload = { 1 } },
	{ "bad-bits-wrap", "beyond all addresses", BITS(64), .base = ~UINT64_C(63),
	  .payload = { 1 } },
	{ "bad-stats-early", "before the end", .encoding = VIRTIO_FPH_ENC_STATS, .len = 40 },
	{ "bad-stats", "malformed figures", .encoding = VIRTIO_FPH_ENC_STATS,
	  .flags = VIRTIO_FPH_REPORT_LAST, .len = 32 },
};

static void migrate_broken(struct machines *x, const char *why)
{
	wait_until(needs_reset(x));
	json_node_unref(query_status(x->src));
	migrate_wait(x);
	check_hints(x, "failed", why);
	check_nothing_free(x);
}

static void test_bad(void **state)
{
	const struct bad_row *row = *state;
	struct setup s = { .fph = "pv" PATIENT };
	struct machines x;
	struct frame f = { 0 };
	uint32_t id;

	begin(&x, &s);
	driver_init(&x.driver, 0, 4);
	migrate_start(&x, NULL);
	id = wait_request(&x);
	f.header.id = htole32(row->id_delta == NO_ID ? 0 : id + row->id_delta);
	f.header.encoding = htole16(row->encoding);
	f.header.flags = htole16(row->flags);
	f.header.seq = htole32(row->seq);
	f.header.count = htole32(row->count);
	f.header.base = htole64(row->base);
	for (size_t i = 0; i < G_N_ELEMENTS(row->payload); i++)
		f.payload[i] = htole64(row->payload[i]);
	f.len = row->len - row->cut;
	driver_send(&x.driver, &f);
	migrate_broken(&x, row->why);
	end(&x);
}

/*
 * What is RAM to the guest may not be to QEMU: memory of a device, or a DIMM that
 * is about to go. Such pages are dropped and counted, and nothing else is.
 */
struct unknown_row {
	const char *name;
	uint64_t known, unknown;	/* pages */
	uint16_t encoding;
	uint32_t count;
	uint64_t base;
	uint64_t payload[2];
	size_t len;
};

static const struct unknown_row unknown_rows[] = {
	{ "unknown-hole", 0, 1, RUN_AT(LOW, 1) },
	{ "unknown-above-ram", 1, 1, RUN_AT(LOW - PAGE, 2) },
	{ "unknown-below-ram", 1, 1, RUN_AT(HIGH - PAGE, 2) },
	{ "unknown-into-hole", 1, 9999, RUN_AT(LOW - PAGE, 10000) },
	{ "unknown-end", 0, 1, RUN_AT(HIGH + LOW, 1) },
	{ "unknown-across-end", 1, 1, RUN_AT(HIGH + LOW - PAGE, 2) },
	{ "unknown-far", 0, 1, RUN_AT(UINT64_C(1) << 46, 1) },
	{ "unknown-last", 0, 16, RUNS(1),
	  .payload = { VIRTIO_FPH_RUN((UINT64_C(1) << 48) - 1, 16) } },
	{ "unknown-registers", 0, 1, RUN_AT(DRIVER_BAR, 1) },
	{ "unknown-apic", 0, 1, RUN_AT(0xfee00000, 1) },
	{ "unknown-rom", 0, 1, RUN_AT(0xf0000, 1) },
	{ "unknown-firmware", 0, 1, RUN_AT(0xffff0000, 1) },
	/* Room for 128 KiB of option ROM and 64 KiB of firmware; the rest is RAM */
	{ "unknown-across-rom", 256 - 48, 48, RUN_AT(0x90000, 256) },
	{ "unknown-second-run", 1, 1, RUNS(2),
	  .payload = { GOOD_RUN, VIRTIO_FPH_RUN(PFN(LOW), 1) } },
	{ "unknown-bit", 64, 1, BITS(128), .base = PFN(LOW) - 64, .payload = { ~0, 1 } },
};

static void test_unknown(void **state)
{
	const struct unknown_row *row = *state;
	struct setup s = { .fph = "pv" PATIENT };
	struct frame f = { 0 };
	struct machines x;
	uint32_t id;

	begin(&x, &s);
	driver_init(&x.driver, 0, 4);
	migrate_start(&x, NULL);
	id = wait_request(&x);
	f.header.id = htole32(id);
	f.header.encoding = htole16(row->encoding);
	f.header.count = htole32(row->count);
	f.header.base = htole64(row->base);
	for (size_t i = 0; i < G_N_ELEMENTS(row->payload); i++)
		f.payload[i] = htole64(row->payload[i]);
	f.len = row->len;
	driver_deliver(&x.driver, &f);
	frame_last(&f, id, 1, 0);
	driver_deliver(&x.driver, &f);
	check(!needs_reset(&x));
	migrate_wait(&x);
	check_hints(&x, "answered", NULL);
	check_int(x.m.fph.hints.free, row->known);
	check_int(unknown_pages(x.src), row->unknown);
	end(&x);
}

/* Malformed as buffers. What is NULL may be anything, but must not be fatal */
struct bad_chain_row {
	const char *name;
	const char *why;
	void (*post)(struct vpci *dev);
	bool command;		/* it is for commands, and there is no other */
};

static void post_report(struct vpci *dev, uint64_t addr, uint32_t len, bool write)
{
	struct vpci_buf buf = { addr, len, write };

	vpci_post(dev, VIRTIO_FPH_Q_REPORT, &buf, 1);
}

static void post_large(struct vpci *dev)
{
	static const struct vpci_buf bufs[] = {
		{ DRIVER_FRAMES, sizeof(struct virtio_fph_report) + VIRTIO_FPH_PAYLOAD_MAX, false },
		{ DRIVER_FRAMES, 1, false },
	};

	vpci_post(dev, VIRTIO_FPH_Q_REPORT, bufs, 2);
}

static void post_writable(struct vpci *dev)
{
	post_report(dev, DRIVER_FRAMES, 64, true);
}

static void post_partly_writable(struct vpci *dev)
{
	static const struct vpci_buf bufs[] = {
		{ DRIVER_FRAMES, 64, false },
		{ DRIVER_FRAMES + 64, 64, true },
	};

	vpci_post(dev, VIRTIO_FPH_Q_REPORT, bufs, 2);
}

static void post_empty(struct vpci *dev)
{
	post_report(dev, DRIVER_FRAMES, 0, false);
}

static void post_loop(struct vpci *dev)
{
	struct vpci_buf buf = { DRIVER_FRAMES, 64, false };

	vpci_desc(dev, VIRTIO_FPH_Q_REPORT, 0, buf, VRING_DESC_F_NEXT, 0);
	vpci_publish(dev, VIRTIO_FPH_Q_REPORT, 0);
}

static void post_bad_next(struct vpci *dev)
{
	struct vpci_buf buf = { DRIVER_FRAMES, 64, false };

	vpci_desc(dev, VIRTIO_FPH_Q_REPORT, 0, buf, VRING_DESC_F_NEXT, 1000);
	vpci_publish(dev, VIRTIO_FPH_Q_REPORT, 0);
}

static void post_bad_head(struct vpci *dev)
{
	vpci_publish(dev, VIRTIO_FPH_Q_REPORT, 1000);
}

static void post_bad_index(struct vpci *dev)
{
	dev->ring[VIRTIO_FPH_Q_REPORT].avail_idx += 1000;
	vpci_publish(dev, VIRTIO_FPH_Q_REPORT, 0);
}

static void post_hole(struct vpci *dev)
{
	post_report(dev, LOW + MIB, 64, false);
}

static void post_registers(struct vpci *dev)
{
	post_report(dev, DRIVER_BAR, 64, false);
}

static void post_command(struct vpci *dev, uint64_t addr, uint32_t len, bool write)
{
	struct vpci_buf buf = { addr, len, write };

	vpci_post(dev, VIRTIO_FPH_Q_COMMAND, &buf, 1);
}

static void post_command_readable(struct vpci *dev)
{
	post_command(dev, DRIVER_FRAMES, 8, false);
}

static void post_command_small(struct vpci *dev)
{
	post_command(dev, DRIVER_FRAMES, 7, true);
}

static void post_command_empty(struct vpci *dev)
{
	post_command(dev, DRIVER_FRAMES, 0, true);
}

/* The command lands in the register that resets the device */
static void post_command_status(struct vpci *dev)
{
	post_command(dev, DRIVER_BAR + 20, 8, true);
}

#define VIRTIO_FOUND_IT	"malformed descriptors"

static const struct bad_chain_row bad_chain_rows[] = {
	{ "bad-large", "too large", post_large },
	{ "bad-writable", "write to", post_writable },
	{ "bad-partly-writable", "write to", post_partly_writable },
	{ "bad-empty", VIRTIO_FOUND_IT, post_empty },
	{ "bad-loop", VIRTIO_FOUND_IT, post_loop },
	{ "bad-next", VIRTIO_FOUND_IT, post_bad_next },
	{ "bad-head", VIRTIO_FOUND_IT, post_bad_head },
	{ "bad-index", VIRTIO_FOUND_IT, post_bad_index },
	{ "bad-hole", NULL, post_hole },
	{ "bad-registers", NULL, post_registers },
	{ "bad-command-readable", "should read", post_command_readable, true },
	{ "bad-command-small", "too small", post_command_small, true },
	{ "bad-command-empty", VIRTIO_FOUND_IT, post_command_empty, true },
	{ "bad-command-status", NULL, post_command_status, true },
};

static void test_bad_chain(void **state)
{
	const struct bad_chain_row *row = *state;
	struct setup s = { .fph = row->why ? "pv" PATIENT : "pv,pv-wait=500" };
	struct machines x;

	begin(&x, &s);
	driver_init(&x.driver, 0, row->command ? 0 : 4);
	if (row->command)
		row->post(&x.driver.dev);
	migrate_start(&x, NULL);
	if (!row->command) {
		wait_request(&x);
		row->post(&x.driver.dev);
		vpci_kick(&x.driver.dev, VIRTIO_FPH_Q_REPORT);
	}
	if (row->why) {
		migrate_broken(&x, row->why);
	} else {
		migrate_wait(&x);
		check_nothing_free(&x);
		check(vpci_status(&x.driver.dev) & VIRTIO_CONFIG_S_DRIVER_OK);
	}
	end(&x);
}

/* A driver that was told to reset the device does so, and all is well */
static void test_mend(void **state)
{
	struct setup s = { .fph = "pv" PATIENT };
	struct machines x;
	struct frame f;
	uint32_t id;

	begin(&x, &s);
	driver_init(&x.driver, 0, 4);
	migrate_start(&x, NULL);
	id = wait_request(&x);
	frame_runs(&f, id, 1);
	driver_send(&x.driver, &f);
	migrate_broken(&x, "sequence number");

	again(&x);
	ok(vm_cont(x.src, E));
	driver_init(&x.driver, 0, 4);
	check(!needs_reset(&x));
	migrate_start(&x, NULL);
	check_int(wait_request(&x), id + 1);
	report_ranges(&x, id + 1, false);
	migrate_wait(&x);
	check_good(&x, "pv");
	end(&x);
}

/*
 * Guests that cannot be asked.
 */

struct mute_row {
	const char *name;
	const char *why;
	void (*prepare)(struct machines *x);
};

static void no_driver(struct machines *x)
{
}

static void half_a_driver(struct machines *x)
{
	vpci_set_status(&x->driver.dev, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
}

static void failed_driver(struct machines *x)
{
	driver_init(&x->driver, 0, 4);
	vpci_set_status(&x->driver.dev, vpci_status(&x->driver.dev) | VIRTIO_CONFIG_S_FAILED);
}

static void old_driver(struct machines *x)
{
	struct vpci *dev = &x->driver.dev;

	vpci_set_status(dev, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	vpci_accept(dev, 0);
	vpci_set_status(dev, vpci_status(dev) | VIRTIO_CONFIG_S_FEATURES_OK);
	vpci_ring_init(dev, VIRTIO_FPH_Q_COMMAND, 4, DRIVER_START);
	vpci_ring_init(dev, VIRTIO_FPH_Q_REPORT, 4, DRIVER_START + VPCI_RING_BYTES);
	vpci_set_status(dev, vpci_status(dev) | VIRTIO_CONFIG_S_DRIVER_OK);
}

/* What virtio-pci makes of it: the driver is not there any more */
static void no_bus_master(struct machines *x)
{
	driver_init(&x->driver, 0, 4);
	vpci_config_write(&x->driver.dev, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
}

static void broken_before(struct machines *x)
{
	struct frame f;

	driver_init(&x->driver, 0, 4);
	frame_last(&f, 1, 0, 0);
	driver_send(&x->driver, &f);
	wait_until(needs_reset(x));
}

static void paused(struct machines *x)
{
	driver_init(&x->driver, 0, 4);
	ok(vm_stop(x->src, E));
}

static void poisons(struct machines *x)
{
	driver_init(&x->driver, 1 << VIRTIO_FPH_F_FREE_PATTERN, 4);
}

static void poisons_and_zeroes(struct machines *x)
{
	driver_init(&x->driver, 1 << VIRTIO_FPH_F_FREE_PATTERN | 1 << VIRTIO_FPH_F_FREE_ZERO, 4);
}

static const struct mute_row mute_rows[] = {
	{ "mute-no-driver", "no driver for virtio-fph", no_driver },
	{ "mute-half-a-driver", "no driver for virtio-fph", half_a_driver },
	{ "mute-failed-driver", "driver for virtio-fph has failed", failed_driver },
	{ "mute-old-driver", "not a virtio 1.0 driver", old_driver },
	{ "mute-no-bus-master", "no driver for virtio-fph", no_bus_master },
	{ "mute-broken", "broken after an error of its driver", broken_before },
	{ "mute-paused", "paused", paused },
	{ "mute-poison", "page_poison", poisons },
	{ "mute-poison-and-init", "page_poison", poisons_and_zeroes },
};

static void test_mute(void **state)
{
	const struct mute_row *row = *state;
	struct setup s = { .fph = "pv" PATIENT };
	struct machines x;

	begin(&x, &s);
	row->prepare(&x);
	check_foreseen(&x, row->why);
	migrate_start(&x, NULL);
	migrate_wait(&x);
	/* Nobody waited for what cannot come */
	check(x.m.wall_ms < 10000);
	check_hints(&x, "failed", row->why);
	check_int(x.m.fph.hints.requests, 0);
	check_nothing_free(&x);
	end(&x);
}

/* Guests that do not answer cost pv-wait */
static void test_no_answer(void **state)
{
	const bool *buffers = *state;
	struct setup s = { .fph = "pv,pv-wait=400" };
	struct machines x;

	begin(&x, &s);
	driver_init(&x.driver, 0, *buffers ? 4 : 0);
	migrate_start(&x, NULL);
	if (*buffers)
		wait_request(&x);
	migrate_wait(&x);
	check(x.m.wall_ms >= 400 && x.m.wall_ms < 10000);
	check_hints(&x, "failed", NULL);
	check_nothing_free(&x);
	end(&x);
}

static void test_no_last(void **state)
{
	struct setup s = { .fph = "pv,pv-wait=4500" };
	struct machines x;
	struct frame f;

	begin(&x, &s);
	driver_init(&x.driver, 0, 4);
	migrate_start(&x, NULL);
	frame_runs(&f, wait_request(&x), 0);
	frame_add_run(&f, PFN(8 * MIB), 100);
	report(PFN(8 * MIB), 100);
	driver_deliver(&x.driver, &f);
	migrate_wait(&x);
	check(x.m.wall_ms >= 4500 && x.m.wall_ms < 15000);
	check_hints(&x, "partial", NULL);
	check_int(x.m.fph.skipped, 100);
	check_missing(&x);
	end(&x);
}

/*
 * Order of events.
 */

/* Buffers for commands come late, but in time */
static void test_late_buffers(void **state)
{
	struct setup s = { .fph = "pv" PATIENT };
	struct machines x;

	begin(&x, &s);
	driver_init(&x.driver, 0, 0);
	migrate_start(&x, NULL);
	wait_until(hints_are(&x, "requested"));
	driver_post_command_buffers(&x.driver, 2);
	report_ranges(&x, wait_request(&x), false);
	migrate_wait(&x);
	check_good(&x, "pv");
	end(&x);
}

static void cancel(struct machines *x)
{
	ok(vm_migrate_cancel(x->src, MIGRATE_MS, E));
	again(x);
}

/* Who had no buffer hears of the last request only, and only while it is open */
static void test_last_command(void **state)
{
	struct setup s = { .fph = "pv" PATIENT };
	struct virtio_fph_command c;
	struct machines x;

	begin(&x, &s);
	driver_init(&x.driver, 0, 0);
	for (int i = 0; i < 2; i++) {
		migrate_start(&x, NULL);
		wait_until(hints_are(&x, "requested"));
		cancel(&x);
	}
	driver_post_command_buffers(&x.driver, 2);
	check(!driver_command(&x.driver, 300, &c));
	migrate_start(&x, NULL);
	check_int(wait_request(&x), 3);
	report_ranges(&x, 3, false);
	migrate_wait(&x);
	check_good(&x, "pv");
	end(&x);
}

/* A migration that is cancelled stops the report; its frames are late for the next */
static void test_stale(void **state)
{
	struct setup s = { .fph = "pv" PATIENT };
	struct virtio_fph_command c;
	struct machines x;
	struct frame f;
	uint32_t id;

	begin(&x, &s);
	driver_init(&x.driver, 0, 4);
	migrate_start(&x, NULL);
	id = wait_request(&x);
	frame_runs(&f, id, 0);
	frame_add_run(&f, PFN(20 * MIB), 10);
	driver_deliver(&x.driver, &f);
	cancel(&x);
	check(driver_command(&x.driver, COMMAND_MS, &c));
	check_int(c.op, VIRTIO_FPH_OP_STOP);
	check_int(c.id, id);
	/* Late, and between two migrations */
	frame_runs(&f, id, 1);
	frame_add_run(&f, PFN(21 * MIB), 10);
	driver_deliver(&x.driver, &f);

	migrate_start(&x, NULL);
	check_int(wait_request(&x), id + 1);
	/* Whatever is in them, and however many there are */
	for (int i = 0; i < 300; i++) {
		f.header.seq = i;
		driver_send(&x.driver, &f);
	}
	check(driver_wait_returned(&x.driver, COMMAND_MS));
	frame_last(&f, id, 2, 0);
	driver_deliver(&x.driver, &f);
	check(hints_are(&x, "requested"));
	report_ranges(&x, id + 1, true);
	migrate_wait(&x);
	check_int(x.m.fph.hints.stale, 301);
	check_good(&x, "pv");
	check(!needs_reset(&x));
	end(&x);
}

/* What was taken stays taken; the rest is sent */
static void test_replay(void **state)
{
	struct setup s = { .fph = "pv" PATIENT };
	struct machines x;
	struct frame f;

	begin(&x, &s);
	driver_init(&x.driver, 0, 4);
	migrate_start(&x, NULL);
	frame_runs(&f, wait_request(&x), 0);
	frame_add_run(&f, PFN(8 * MIB), 100);
	report(PFN(8 * MIB), 100);
	driver_deliver(&x.driver, &f);
	driver_send(&x.driver, &f);
	wait_until(needs_reset(&x));
	migrate_wait(&x);
	check_hints(&x, "partial", "sequence number");
	check_int(x.m.fph.skipped, 100);
	check_missing(&x);
	end(&x);
}

static void test_too_many_pages(void **state)
{
	struct setup s = { .fph = "pv" PATIENT };
	struct machines x;
	struct frame f;
	uint32_t id;

	begin(&x, &s);
	driver_init(&x.driver, 0, 4);
	migrate_start(&x, NULL);
	id = wait_request(&x);
	for (uint32_t seq = 0; seq < 5; seq++) {
		frame_runs(&f, id, seq);
		frame_add_run(&f, PFN(2 * MIB), PAGES(32 * MIB));
		driver_send(&x.driver, &f);
	}
	report(PFN(2 * MIB), PAGES(32 * MIB));
	wait_until(needs_reset(&x));
	migrate_wait(&x);
	check_hints(&x, "partial", "more free pages than pages");
	check_int(x.m.fph.skipped, PAGES(32 * MIB));
	check_missing(&x);
	end(&x);
}

/* The report is good; the driver is not */
static void test_after_last(void **state)
{
	struct setup s = { .fph = "pv" PATIENT };
	struct machines x;
	struct frame f;
	uint32_t id;

	begin(&x, &s);
	driver_init(&x.driver, 0, 4);
	migrate_start(&x, NULL);
	id = wait_request(&x);
	frame_runs(&f, id, 0);
	frame_add_run(&f, PFN(8 * MIB), 100);
	report(PFN(8 * MIB), 100);
	driver_post(&x.driver, &f);
	frame_last(&f, id, 1, 0);
	driver_post(&x.driver, &f);
	/* At once, or the VM may have been stopped for the end of the migration */
	frame_last(&f, id, 2, 0);
	driver_send(&x.driver, &f);
	wait_until(needs_reset(&x));
	migrate_wait(&x);
	check_hints(&x, "answered", NULL);
	check_int(x.m.fph.skipped, 100);
	check_missing(&x);
	end(&x);
}

static void test_aborted(void **state)
{
	struct setup s = { .fph = "pv" PATIENT };
	struct machines x;
	struct frame f;

	begin(&x, &s);
	driver_init(&x.driver, 0, 4);
	migrate_start(&x, NULL);
	frame_last(&f, wait_request(&x), 0, VIRTIO_FPH_REPORT_ABORTED);
	driver_deliver(&x.driver, &f);
	migrate_wait(&x);
	check_hints(&x, "partial", NULL);
	check_nothing_free(&x);
	end(&x);
}

/* The guest reboots in the middle of its report */
static void test_reset(void **state)
{
	const bool *machine = *state;
	struct setup s = { .fph = "pv" PATIENT };
	struct virtio_fph_command c;
	struct machines x;
	struct frame f;
	uint32_t id;

	begin(&x, &s);
	driver_init(&x.driver, 0, 4);
	migrate_start(&x, NULL);
	id = wait_request(&x);
	frame_runs(&f, id, 0);
	frame_add_run(&f, PFN(8 * MIB), 100);
	report(PFN(8 * MIB), 100);
	driver_deliver(&x.driver, &f);
	if (*machine) {
		ok(vm_run(x.src, E, "set-action", "{\"reboot\":\"reset\"}"));
		ok(vm_run(x.src, E, "system_reset", NULL));
		wait_until(!hints_are(&x, "requested"));
	} else {
		driver_init(&x.driver, 0, 4);
	}
	migrate_wait(&x);
	check_hints(&x, "partial", "the guest reset virtio-fph");
	check_int(x.m.fph.skipped, 100);
	check_missing(&x);
	if (*machine) {
		end(&x);
		return;
	}

	again(&x);
	ok(vm_cont(x.src, E));
	memset(reported, 0, sizeof(reported));
	/* It may have been asked once more, in a later round, and not have looked */
	id += x.m.fph.hints.requests;
	migrate_start(&x, NULL);
	do
		check(driver_command(&x.driver, COMMAND_MS, &c));
	while (c.id != id || c.op != VIRTIO_FPH_OP_REPORT);
	report_ranges(&x, id, false);
	migrate_wait(&x);
	check_good(&x, "pv");
	end(&x);
}

/* The driver gives up in the middle of its report */
static void test_fail(void **state)
{
	struct setup s = { .fph = "pv" PATIENT };
	struct machines x;

	begin(&x, &s);
	driver_init(&x.driver, 0, 4);
	migrate_start(&x, NULL);
	wait_request(&x);
	vpci_set_status(&x.driver.dev, vpci_status(&x.driver.dev) | VIRTIO_CONFIG_S_FAILED);
	migrate_wait(&x);
	check_hints(&x, "failed", "has failed");
	check_nothing_free(&x);
	end(&x);
}

/*
 * While the VM is stopped its memory stays as it is; then everything goes on.
 * (With ioeventfd virtio itself would look into the queues then.)
 */
static void test_stop_cont(void **state)
{
	static const char *const device[] = { "-device", "virtio-fph-pci,ioeventfd=off", NULL };
	struct setup s = { .fph = "pv" PATIENT, .device = device };
	struct machines x;
	struct frame f;
	uint32_t id;

	begin(&x, &s);
	driver_init(&x.driver, 0, 0);
	migrate_start(&x, NULL);
	wait_until(hints_are(&x, "requested"));
	ok(vm_stop(x.src, E));
	driver_post_command_buffers(&x.driver, 4);
	check(!driver_command(&x.driver, 300, &(struct virtio_fph_command){ 0 }));
	ok(vm_cont(x.src, E));
	id = wait_request(&x);

	ok(vm_stop(x.src, E));
	frame_runs(&f, id, 0);
	frame_add_run(&f, PFN(8 * MIB), 100);
	report(PFN(8 * MIB), 100);
	driver_send(&x.driver, &f);
	check(!driver_wait_returned(&x.driver, 300));
	ok(vm_cont(x.src, E));
	check(driver_wait_returned(&x.driver, COMMAND_MS));
	frame_last(&f, id, 1, 0);
	driver_deliver(&x.driver, &f);
	migrate_wait(&x);
	check_hints(&x, "answered", NULL);
	check_int(x.m.fph.skipped, 100);
	check_missing(&x);
	end(&x);
}

/*
 * A frame of more ranges than are dealt with at once, and than fph-source will
 * keep: the next frame waits, and is not forgotten.
 */
static void test_back_pressure(void **state)
{
	static const char *const memory[] = { "-m", "1G", "-M", "max-ram-below-4g=2G", NULL };
	struct setup s = { .fph = "pv,x-pv-delay=500" PATIENT, .extra = memory };
	struct machines x;
	struct frame f;
	uint64_t n = 0;
	uint32_t id;

	begin(&x, &s);
	driver_init(&x.driver, 0, 4);
	migrate_start(&x, NULL);
	id = wait_request(&x);
	for (uint32_t seq = 0; seq < 2; seq++) {
		frame_bitmap(&f, id, seq, 0, PFN(GIB));
		for (uint64_t pfn = PFN(64 * MIB) + seq; pfn < PFN(GIB); pfn += 2, n++)
			frame_set_bit(&f, pfn);
		driver_post(&x.driver, &f);
	}
	frame_last(&f, id, 2, 0);
	driver_send(&x.driver, &f);
	check(!driver_wait_returned(&x.driver, 300));
	check(driver_wait_returned(&x.driver, COMMAND_MS));
	migrate_wait(&x);
	check_hints(&x, "answered", NULL);
	check_int(x.m.fph.hints.free, n);
	check_int(x.m.fph.skipped, n);
	check_int(n, PFN(GIB - 64 * MIB));
	check_ram_equal(x.src, x.dst);
	end(&x);
}

/*
 * The memory map decides what is RAM, and which.
 */

struct map_row {
	const char *name;
	uint64_t addr;
	int pam;		/* register of the host bridge; 0: none */
	uint8_t pam_value;
	bool ram;
	const char *const extra[9];
	bool kept;			/* but not the guest's to give up */
};

#define PAM_C8000	0x5b	/* 0xc8000 to 0xcbfff, and to 0xcffff */
#define PAM_RW		0x33
#define PAM_RO		0x11

static const struct map_row map_rows[] = {
	{ "map-shadow", 0xc8000, PAM_C8000, PAM_RW, true },
	{ "map-shadow-locked", 0xc8000, PAM_C8000, PAM_RO, false },
	/* Without a video card there is RAM */
	{ "map-no-vga", 0xa0000, 0, 0, true },
	{ "map-vga", 0xa0000, 0, 0, false, { "-device", "VGA,romfile=", NULL } },
	/* Memory that keeps its content, where the first memory device goes (R7) */
	{ "map-nvdimm", UINT64_C(5) << 30, 0, 0, true,
	  { "-M", "nvdimm=on", "-m", "slots=1,maxmem=2G",
	    "-object", "memory-backend-ram,id=nv0,size=16M", "-device", "nvdimm,memdev=nv0", NULL },
	  true },
};

static void set_pam(struct qtest *q, unsigned int reg, uint8_t value)
{
	struct vpci bridge = { .q = q };

	vpci_config_write(&bridge, reg, 1, value);
}

static void test_map(void **state)
{
	const struct map_row *row = *state;
	struct setup s = { .fph = "pv" PATIENT, .extra = row->extra };
	struct machines x;
	struct frame f;
	uint32_t id;

	begin(&x, &s);
	if (row->pam) {
		set_pam(x.q, row->pam, PAM_RW);
		fill(x.q, row->addr, row->addr + 2 * PAGE, 0x5a);
		set_pam(x.q, row->pam, row->pam_value);
	} else if (row->kept) {
		qtest_memset(x.q, row->addr, 0x5a, 2 * PAGE);
	} else if (row->ram) {
		fill(x.q, row->addr, row->addr + 2 * PAGE, 0x5a);
	}
	driver_init(&x.driver, 0, 4);
	migrate_start(&x, NULL);
	id = wait_request(&x);
	frame_runs(&f, id, 0);
	frame_add_run(&f, PFN(row->addr), 2);
	driver_deliver(&x.driver, &f);
	if (row->ram && !row->kept)
		report(PFN(row->addr), 2);
	frame_last(&f, id, 1, 0);
	driver_deliver(&x.driver, &f);
	migrate_wait(&x);
	check_hints(&x, "answered", NULL);
	check_int(x.m.fph.skipped, row->kept || !row->ram ? 0 : 2);
	check_int(unknown_pages(x.src), row->ram ? 0 : 2);
	check_missing(&x);
	end(&x);
}

/*
 * Later epochs. The migration is so slow that there is time for all steps
 * before the next sync. What the guest writes after the request is due again.
 */

#define AGAIN		(FILLED + 3 * MIB)	/* the last of the content to be sent */
#define AGAIN_END	(FILLED + 4 * MIB)
#define ZERO		(20 * MIB)

static const struct vm_migrate_opts slow = {
	.max_bandwidth = 3 * MIB,
	.downtime_limit_ms = 1,
};

static uint32_t first_epoch(struct machines *x)
{
	uint32_t id = wait_request(x);
	struct frame f;

	fill(x->q, FILLED, AGAIN_END, 0x77);
	frame_runs(&f, id, 0);
	frame_add_run(&f, PFN(AGAIN), PAGES(AGAIN_END - AGAIN));
	frame_add_run(&f, PFN(ZERO), 100);
	driver_deliver(&x->driver, &f);
	frame_last(&f, id, 1, 0);
	driver_deliver(&x->driver, &f);
	return id;
}

static void test_epochs(void **state)
{
	struct setup s = { .fph = "pv" PATIENT, .little = true };
	uint64_t half = PAGES(AGAIN_END - AGAIN) / 2;
	struct machines x;
	struct frame f;
	uint32_t id;

	begin(&x, &s);
	driver_init(&x.driver, 0, 4);
	migrate_start(&x, &slow);
	id = first_epoch(&x);
	check_int(wait_request(&x), id + 1);
	/* An answer to the first request is late now */
	frame_runs(&f, id, 2);
	frame_add_run(&f, PFN(AGAIN), 2 * half);
	driver_deliver(&x.driver, &f);
	frame_runs(&f, id + 1, 0);
	frame_add_run(&f, PFN(AGAIN), half);
	report(PFN(AGAIN), half);
	driver_deliver(&x.driver, &f);
	frame_last(&f, id + 1, 1, 0);
	driver_deliver(&x.driver, &f);
	migrate_wait(&x);
	check(x.m.fph.epoch >= 3);
	check_hints(&x, "answered", NULL);
	check_int(x.m.fph.hints.stale, 1);
	check(x.m.fph.hints.answers >= 2);
	check_int(x.m.fph.resent, 2 * half);
	check_int(x.m.fph.skipped, half + 100);
	check_missing(&x);
	end(&x);
}

/* Free pages that are trusted to be zero may be left out only as long as none was sent */
static void test_init_on_free(void **state)
{
	struct setup s = { .fph = "pv" PATIENT, .little = true };
	struct virtio_fph_command c;
	struct machines x;

	begin(&x, &s);
	driver_init(&x.driver, 1 << VIRTIO_FPH_F_FREE_ZERO, 4);
	migrate_start(&x, &slow);
	first_epoch(&x);
	migrate_wait(&x);
	check(x.m.fph.epoch >= 3);
	check(!driver_command(&x.driver, 0, &c));
	check_int(x.m.fph.hints.requests, 1);
	check_hints(&x, "answered", NULL);
	check_int(x.m.fph.resent, PAGES(AGAIN_END - AGAIN));
	check_int(x.m.fph.skipped, 100);
	check_ram_equal(x.src, x.dst);
	end(&x);
}

/*
 * An answer that came in time, but would be used after the next sync, is not
 * used: by then the log of what the guest wrote after its answer is cleared.
 */
static void test_late_use(void **state)
{
	static const struct vm_migrate_opts slower = {
		.max_bandwidth = 2 * MIB,
		.downtime_limit_ms = 1,
	};
	struct setup s = { .fph = "pv,pv-wait=100,x-pv-delay=2300", .little = true };
	struct machines x;

	begin(&x, &s);
	driver_init(&x.driver, 0, 4);
	migrate_start(&x, &slower);
	first_epoch(&x);
	migrate_wait(&x);
	check(x.m.fph.epoch >= 3);
	check(x.m.total_ms > 2700);	/* or nothing was put to the test */
	check_int(x.m.fph.hints.free, PAGES(AGAIN_END - AGAIN) + 100);
	check_int(x.m.fph.skipped + x.m.fph.resent, 0);
	check_ram_equal(x.src, x.dst);
	end(&x);
}

/*
 * The device itself migrates.
 */

static void test_hops(void **state)
{
	struct setup s = { .fph = "pv" PATIENT };
	struct virtio_fph_command c;
	struct machines x, y;
	struct frame f;
	uint32_t id, next;

	begin(&x, &s);
	driver_init(&x.driver, 0, 4);
	migrate_start(&x, NULL);
	id = wait_request(&x);
	report_ranges(&x, id, false);
	migrate_wait(&x);
	check_good(&x, "pv");

	y = (struct machines){
		.setup = s,
		.src = x.dst,
		.q = x.dst_q,
		.driver = x.driver,
	};
	y.driver.dev.q = y.q;
	vm_free(x.src);
	qtest_free(x.q);
	vm_migration_clear(&x.m);
	ok(vm_cont(y.src, E));
	/* Ids of the source are known here, and late */
	frame_runs(&f, id, 0);
	frame_add_run(&f, PFN(8 * MIB), 100);
	driver_deliver(&y.driver, &f);
	check(!needs_reset(&y));
	/* So are those of later rounds, which asked anew */
	while (driver_command(&y.driver, 0, &c))
		id = c.id;

	ok(vm_run(y.src, E, "object-add", "{\"qom-type\":\"fph-source\",\"id\":\"fph0\","
		  "\"mode\":\"pv\",\"pv-wait\":30000}"));
	fill_all(y.q, false);
	y.dst = start_side(&s, &y.dst_q, true);
	migrate_start(&y, NULL);
	next = wait_request(&y);
	check(next > id);
	report_ranges(&y, next, true);
	migrate_wait(&y);
	check_good(&y, "pv");
	end(&y);
}

/* A frame that the source did not get round to is seen by the destination, and late */
static void test_in_flight(void **state)
{
	struct setup s = { .fph = "pv" PATIENT };
	struct machines x;
	struct frame f;
	uint32_t id;

	begin(&x, &s);
	driver_init(&x.driver, 0, 4);
	migrate_start(&x, NULL);
	id = wait_request(&x);
	cancel(&x);
	ok(vm_stop(x.src, E));
	frame_runs(&f, id, 0);
	frame_add_run(&f, PFN(8 * MIB), 100);
	driver_send(&x.driver, &f);
	migrate_start(&x, NULL);
	migrate_wait(&x);
	check_nothing_free(&x);

	check(!driver_wait_returned(&x.driver, 0));
	x.driver.dev.q = x.dst_q;
	ok(vm_cont(x.dst, E));
	check(driver_wait_returned(&x.driver, COMMAND_MS));
	check(!needs_reset(&x));
	end(&x);
}

/*
 * Hot-unplugging. The guest agrees, or does so by itself, through the ACPI
 * registers of the PC.
 */
#define PCI_EJECT	0xae08
#define PCI_SELECT	0xae10
#define SLOT		5

static void eject(struct machines *x)
{
	struct driver d;

	qtest_out(x->q, PCI_SELECT, 4, 0);
	qtest_out(x->q, PCI_EJECT, 4, 1 << SLOT);
	check(!driver_find(&d, x->q));
}

/* In the middle of a report, and of a migration that asks again in each epoch */
static void test_eject(void **state)
{
	struct setup s = { .fph = "pv" PATIENT, .little = true };
	struct machines x;
	struct frame f;

	begin(&x, &s);
	driver_init(&x.driver, 0, 4);
	migrate_start(&x, &slow);
	frame_runs(&f, wait_request(&x), 0);
	frame_add_run(&f, PFN(FILLED), 100);
	report(PFN(FILLED), 100);
	driver_deliver(&x.driver, &f);
	/* So that there are later epochs */
	fill(x.q, FILLED + MIB, FILLED + 4 * MIB, 0x77);
	refused(x.src, "migrating", "device_del", "{\"id\":\"fph\"}");
	eject(&x);
	migrate_wait(&x);
	check(x.m.fph.epoch >= 3);
	check_hints(&x, "partial", "virtio-fph was unplugged");
	check_int(x.m.fph.hints.requests, 1);
	check_int(x.m.fph.skipped, 100);
	check_missing(&x);
	end(&x);
}

static void test_replug(void **state)
{
	struct setup s = { .fph = "pv" PATIENT };
	struct machines x;
	JsonObject *event = NULL;

	begin(&x, &s);
	driver_init(&x.driver, 0, 4);
	migrate_start(&x, NULL);
	report_ranges(&x, wait_request(&x), false);
	migrate_wait(&x);
	check_good(&x, "pv");

	ok(vm_cont(x.src, E));
	ok(vm_run(x.src, E, "device_del", "{\"id\":\"fph\"}"));
	eject(&x);
	ok(event = qmp_event(vm_qmp(x.src), "DEVICE_DELETED", COMMAND_MS, E));
	json_object_unref(event);
	x.setup.device = no_device;
	again(&x);
	migrate_start(&x, NULL);
	migrate_wait(&x);
	check_str(x.m.fph.state, "inactive");

	x.setup.device = NULL;
	again(&x);
	ok(vm_cont(x.src, E));
	ok(vm_run(x.src, E, "device_add",
		  "{\"driver\":\"virtio-fph-pci\",\"id\":\"fph\",\"addr\":\"5\"}"));
	check(driver_find(&x.driver, x.q));
	driver_init(&x.driver, 0, 4);
	migrate_start(&x, NULL);
	report_ranges(&x, wait_request(&x), true);
	migrate_wait(&x);
	check_good(&x, "pv");
	end(&x);
}

/*
 * The firmware of tests/guest touches fresh pages all over RAM at a steady
 * rate; those that it has not touched yet are free. Only real KVM shows
 * whether the request comes too early (R1): it protects a page against writes
 * when its log is cleared, and a write before leaves no trace.
 */
#define FT_DELAY	100000	/* some 20,000 pages a second */
#define FT_BEFORE	10000
#define FT_IN_FLIGHT	16	/* pages that may be half written */
#define FT_PAUSE_MS	50

struct kvm_row {
	const char *name;
	const char *mode;
	const char *ram;
	const char *const extra[3];
};

static const struct kvm_row kvm_rows[] = {
	{ "kvm-pv-first-touch", "pv", VM_RAM_ANON, { NULL } },
	{ "kvm-pv-first-touch-memfd", "pv", VM_RAM_MEMFD, { NULL } },
	{ "kvm-pv-first-touch-small-chunks", "pv", VM_RAM_ANON,
	  { "-global", "migration.x-clear-bitmap-shift=12", NULL } },
	{ "kvm-both-first-touch", "both", VM_RAM_ANON, { NULL } },
};

static uint32_t firmware_state(struct machines *x, unsigned int offset)
{
	return qtest_load(x->q, FT_STATE_ADDR + offset, 4);
}

static void wait_touched(struct machines *x, uint32_t count)
{
	wait_until(firmware_state(x, FT_ST_MAGIC) == FT_MAGIC &&
		   firmware_state(x, FT_ST_COUNT) >= count);
}

/*
 * Only after the command has arrived: what is free now may not be a moment
 * later. The VM may have been stopped meanwhile: then nobody takes the frames.
 */
static void report_untouched(struct machines *x, uint32_t id)
{
	uint32_t touched = firmware_state(x, FT_ST_COUNT) + FT_IN_FLIGHT;
	uint32_t pages = firmware_state(x, FT_ST_PAGES);
	uint64_t base = PFN(firmware_state(x, FT_ST_BASE));
	uint32_t position = 0;
	struct frame f;

	if (touched >= pages) {
		frame_last(&f, id, 0, 0);
		driver_send(&x->driver, &f);
		return;
	}
	frame_bitmap(&f, id, 0, base, pages);
	memset(f.payload, 0xff, f.len);
	while (touched--) {
		uint32_t page = ft_next(&position, pages, ft_mask(pages));

		f.payload[page / 64] &= ~htole64(UINT64_C(1) << page % 64);
	}
	driver_send(&x->driver, &f);
	/* Pages are touched meanwhile, and nothing is sent: all would be lost */
	g_usleep(FT_PAUSE_MS * 1000);
	frame_last(&f, id, 1, 0);
	driver_send(&x->driver, &f);
}

/*
 * The test goes on driving the device until it sees that the VM has stopped.
 * What it wrote after that is no guest's write, and not at the destination.
 */
static bool is_driver_memory(const struct vm_block *block, guint64 offset)
{
	return offset >= DRIVER_START && offset < DRIVER_END && strcmp(block->name, "pc.bios");
}

static void check_guest_difference(void *opaque, const struct vm_block *block, guint64 offset,
				   const guint8 *a, const guint8 *b)
{
	uint64_t *pages = opaque;

	if (is_driver_memory(block, offset))
		return;
	if (++*pages <= 10)
		print_message("%s differs at %#" PRIx64 "\n", block->name, offset);
}

static void check_guest_equal(struct machines *x)
{
	GError *error = NULL;
	uint64_t pages = 0;

	if (vm_ram_compare(x->src, x->dst, check_guest_difference, &pages, NULL, &error) < 0)
		fail_msg("comparing RAM: %s", error->message);
	check_int(pages, 0);
}

/* Both sides, of which the test drives a device of the source while its processor runs */
static void start_firmware(struct machines *x, struct vm_config cfg, const char *const *device,
			   const char *const *extra)
{
	g_autoptr(GPtrArray) args = g_ptr_array_new();

	/* Or one touch would populate 2 MiB */
	check_int(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), 0);
	x->q = qtest_new();
	append(args, extra);
	append(args, device);
	g_ptr_array_add(args, NULL);
	cfg.extra = (const char *const *)args->pdata;
	x->dst = start_destination(cfg);
	g_ptr_array_set_size(args, args->len - 1);
	append(args, qtest_args(x->q));
	g_ptr_array_add(args, NULL);
	cfg.extra = (const char *const *)args->pdata;
	x->src = start(cfg);
	qtest_connect(x->q);
}

static void test_kvm(void **state)
{
	const struct kvm_row *row = *state;
	struct vm_migrate_opts opts = {
		.max_bandwidth = 150 * MIB,
		.downtime_limit_ms = 2000,
		.timeout_ms = MIGRATE_MS,
	};
	g_autofree char *mode = g_strconcat(row->mode, ",pv-wait=5000", NULL);
	struct vm_config cfg = {
		.name = "source",
		.memory = 512 * MIB,
		.accel = "kvm",
		.ram = row->ram,
		.bios = patch_firsttouch(FT_DELAY, 1),
		.fph_mode = mode,
	};
	struct machines x = { 0 };
	struct virtio_fph_command c;
	unsigned int answers = 0;
	uint32_t before;

	start_firmware(&x, cfg, one_device, row->extra);
	check(driver_find(&x.driver, x.q));
	driver_init(&x.driver, 0, 4);

	wait_touched(&x, FT_BEFORE);
	before = firmware_state(&x, FT_ST_COUNT);
	ok(vm_migrate_start(x.src, x.dst, &opts, &x.m, E));
	for (int i = 0; !x.m.status || strcmp(x.m.status, "completed"); i++) {
		check(i < 10000);
		if (driver_command(&x.driver, 10, &c) && c.op == VIRTIO_FPH_OP_REPORT) {
			report_untouched(&x, c.id);
			answers++;
		}
		ok(vm_migrate_poll(x.src, &x.m, E));
	}
	migrate_wait(&x);
	print_message("pages touched: %u before, %u during the migration; %u answers\n", before,
		      firmware_state(&x, FT_ST_COUNT) - before, answers);
	check_hints(&x, "answered", NULL);
	check(x.m.fph.skipped > 1000);
	check(x.m.fph.resent > 100);	/* or nothing was put to the test */
	check_guest_equal(&x);

	vm_migration_clear(&x.m);
	vm_free(x.src);
	vm_free(x.dst);
	qtest_free(x.q);
}

/*
 * Free page hints of virtio-balloon. The guest takes hinted pages back and writes
 * to them before the iothread, which is held, has the hints. On KVM that leaves
 * no trace unless QEMU has cleared the logs before it asked.
 */
#define HINT_DELAY	300000	/* some 7,000 pages a second */
#define HINT_STANDSTILL	100000000	/* some 20 pages a second */
#define HINT_MEMORY	(512 * MIB)
#define HINT_BEFORE	1000	/* pages touched when the migration begins */
#define HINT_AHEAD	1000	/* and more, when those are that were called free */
#define HINT_PAGES	100
#define HINT_QUEUE	3
#define HINT_RING_SIZE	256
#define HINT_COMMAND	(DRIVER_START + VPCI_RING_BYTES)
#define HINT_CONFIG_ID	8	/* struct virtio_balloon_config */

static const char *const hinting_balloon[] = {
	"-object", "iothread,id=io",
	"-device", "virtio-balloon-pci,disable-legacy=on,free-page-hint=on,iothread=io",
	"-global", "migration.x-clear-bitmap-shift=12", NULL,
};

static const struct kvm_row late_rows[] = {
	/* From Linux 5.7 on, where no page is protected when the first round begins */
	{ "kvm-late-hints", NULL, VM_RAM_ANON, { NULL } },
	/* TCG protects pages in the sync: controls, which lose nothing whenever QEMU asks */
	{ "tcg-late-hints", NULL, VM_RAM_ANON, { NULL } },
	{ "tcg-late-hints-pv", "pv,pv-wait=60000", VM_RAM_ANON, { NULL } },
};

static void hinting_init(struct vpci *dev, struct qtest *q)
{
	check(vpci_find(dev, q, VIRTIO_ID_BALLOON, DRIVER_BAR));
	vpci_set_status(dev, 0);
	vpci_set_status(dev, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	vpci_accept(dev, UINT64_C(1) << VIRTIO_F_VERSION_1 |
			 UINT64_C(1) << VIRTIO_BALLOON_F_FREE_PAGE_HINT);
	vpci_set_status(dev, vpci_status(dev) | VIRTIO_CONFIG_S_FEATURES_OK);
	check(vpci_status(dev) & VIRTIO_CONFIG_S_FEATURES_OK);
	vpci_ring_init(dev, HINT_QUEUE, HINT_RING_SIZE, DRIVER_START);
	vpci_set_status(dev, vpci_status(dev) | VIRTIO_CONFIG_S_DRIVER_OK);
}

static uint32_t hinting_id(struct vpci *dev)
{
	return qtest_load(dev->q, dev->device + HINT_CONFIG_ID, 4);
}

/*
 * Pages in the upper half of memory, which is sent late, as they are touched from
 * the @first on. Return: the last one's place in that order.
 */
static uint32_t choose_pages(struct machines *x, uint32_t first, struct vpci_buf *bufs)
{
	uint32_t pages = firmware_state(x, FT_ST_PAGES), position = 0, seq = 0;
	uint64_t base = firmware_state(x, FT_ST_BASE);

	for (unsigned int n = 0; n < HINT_PAGES; seq++) {
		uint64_t addr = base + ft_next(&position, pages, ft_mask(pages)) * PAGE;

		if (seq >= first && addr >= HINT_MEMORY / 2)
			bufs[n++] = (struct vpci_buf){ addr, PAGE, true };
	}
	return seq;
}

struct hinted {
	const struct vpci_buf *unused;	/* free, and not taken back */
	unsigned int differ;
};

/* What is free need not arrive, all else has to */
static void check_hinted(void *opaque, const struct vm_block *block, guint64 offset,
			 const guint8 *a, const guint8 *b)
{
	struct hinted *h = opaque;

	if (is_driver_memory(block, offset))
		return;
	for (unsigned int i = 0; i < HINT_PAGES; i++) {
		if (h->unused[i].addr == offset && block->used == HINT_MEMORY) {
			h->differ++;
			return;
		}
	}
	fail_msg("%s differs at %#" PRIx64, block->name, offset);
}

static void test_late_hints(void **state)
{
	const struct kvm_row *row = *state;
	struct vm_migrate_opts opts = {
		/* Next to nothing: what is sent is no question of time */
		.max_bandwidth = 10, .downtime_limit_ms = 1, .timeout_ms = 2 * MIGRATE_MS,
	};
	/* Id, pages with content, pages that have none yet, and the end */
	struct vpci_buf id = { HINT_COMMAND, 4, false }, stop = { HINT_COMMAND + 4, 4, false };
	struct vpci_buf unused[HINT_PAGES], fresh[HINT_PAGES];
	struct hinted hinted = { .unused = unused };
	struct vm_config cfg = {
		.name = "source",
		.memory = HINT_MEMORY,
		.accel = g_str_has_prefix(row->name, "kvm-") ? "kvm" : "tcg",
		.ram = row->ram,
		.bios = patch_firsttouch(HINT_DELAY, 1),
		.fph_mode = row->mode,
	};
	struct machines x = { 0 };
	GError *error = NULL;
	uint16_t chains[4], head;
	unsigned int taken = 0;
	struct vpci dev;
	pid_t iothread;
	uint32_t first, last, len;

	start_firmware(&x, cfg, hinting_balloon, NULL);
	qtest_memset(x.q, DRIVER_START, 0, DRIVER_END - DRIVER_START);
	hinting_init(&dev, x.q);

	wait_touched(&x, HINT_BEFORE);
	qtest_store(x.q, FT_RUN_ADDR + FT_SET_DELAY, 4, HINT_STANDSTILL);
	check(choose_pages(&x, 0, unused) < HINT_BEFORE);
	first = firmware_state(&x, FT_ST_COUNT) + HINT_AHEAD;
	last = choose_pages(&x, first, fresh);
	chains[0] = vpci_chain(&dev, HINT_QUEUE, &id, 1);
	chains[1] = vpci_chain(&dev, HINT_QUEUE, unused, HINT_PAGES);
	chains[2] = vpci_chain(&dev, HINT_QUEUE, fresh, HINT_PAGES);
	chains[3] = vpci_chain(&dev, HINT_QUEUE, &stop, 1);
	iothread = hold_iothread(x.src);
	hold_switchover(x.src);
	ok(vm_migrate_start(x.src, x.dst, &opts, &x.m, E));
	wait_until(hinting_id(&dev) > VIRTIO_BALLOON_CMD_ID_DONE);
	qtest_store(x.q, id.addr, 4, hinting_id(&dev));
	for (unsigned int i = 0; i < G_N_ELEMENTS(chains); i++)
		vpci_publish(&dev, HINT_QUEUE, chains[i]);
	vpci_kick(&dev, HINT_QUEUE);
	/* So they were free when the guest said so */
	check(firmware_state(&x, FT_ST_COUNT) + FT_IN_FLIGHT < first);

	qtest_store(x.q, FT_RUN_ADDR + FT_SET_DELAY, 4, HINT_DELAY);
	wait_touched(&x, last + FT_IN_FLIGHT);
	/* Not because their turn has come are their logs cleared */
	ok(vm_migrate_poll(x.src, &x.m, E));
	check_int(x.m.sync_count, 1);
	check(x.m.normal + x.m.duplicate < PAGES(HINT_MEMORY / 4));
	release_iothread(iothread);
	wait_until((taken += vpci_take(&dev, HINT_QUEUE, &head, &len)) == G_N_ELEMENTS(chains));
	let_go(x.src);
	ok(vm_migrate_wait(x.src, x.dst, &opts, &x.m, E));
	print_migration(&x.m);
	check_str(x.m.status, "completed");

	if (vm_ram_compare(x.src, x.dst, check_hinted, &hinted, NULL, &error) < 0)
		fail_msg("comparing RAM: %s", error->message);
	check_int(hinted.differ, HINT_PAGES);

	vm_migration_clear(&x.m);
	vm_free(x.src);
	vm_free(x.dst);
	qtest_free(x.q);
}

static bool asks_host(const char *name)
{
	for (size_t i = 0; i < G_N_ELEMENTS(good_rows); i++)
		if (!strcmp(good_rows[i].name, name))
			return !strcmp(good_rows[i].mode, "both");
	return g_str_has_prefix(name, "kvm-both");
}

static const struct fph_test_single singles[] = {
	{ "features", test_features },
	{ "properties", test_properties },
	{ "mend", test_mend },
	{ "no-last", test_no_last },
	{ "late-buffers", test_late_buffers },
	{ "last-command", test_last_command },
	{ "stale", test_stale },
	{ "replay", test_replay },
	{ "too-many-pages", test_too_many_pages },
	{ "after-last", test_after_last },
	{ "aborted", test_aborted },
	{ "fail", test_fail },
	{ "stop-cont", test_stop_cont },
	{ "back-pressure", test_back_pressure },
	{ "epochs", test_epochs },
	{ "init-on-free", test_init_on_free },
	{ "late-use", test_late_use },
	{ "hops", test_hops },
	{ "in-flight", test_in_flight },
	{ "eject", test_eject },
	{ "replug", test_replug },
};

int main(int argc, char **argv)
{
	static const bool yes = true, no = false;
	struct fph_tests t = { 0 };

	fph_test_add_rows(&t, good_rows, test_good);
	fph_test_add_rows(&t, bad_rows, test_bad);
	fph_test_add_rows(&t, unknown_rows, test_unknown);
	fph_test_add_rows(&t, bad_chain_rows, test_bad_chain);
	fph_test_add_rows(&t, mute_rows, test_mute);
	fph_test_add_rows(&t, map_rows, test_map);
	fph_test_add_rows(&t, kvm_rows, test_kvm);
	fph_test_add_rows(&t, late_rows, test_late_hints);
	fph_test_add_singles(&t, singles);
	fph_test_add(&t, "no-answer", test_no_answer, &yes);
	fph_test_add(&t, "no-buffers", test_no_answer, &no);
	fph_test_add(&t, "reset", test_reset, &no);
	fph_test_add(&t, "system-reset", test_reset, &yes);
	return harness_main(argc, argv, &t, asks_host);
}

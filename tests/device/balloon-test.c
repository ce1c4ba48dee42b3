/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The balloon of virtio-fph. The test is the guest: no processor runs (-accel
 * qtest), so that each step happens when the test says so.
 *
 * One case per process: balloon-test NAME.
 */
#include <endian.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/virtio_config.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fph-driver.h"
#include "harness.h"
#include "qtest.h"

#define GIB		(UINT64_C(1) << 30)

/* Half of it below a hole that ends at 4 GiB, half above */
#define MEMORY		(128 * MIB)
#define LOW		(64 * MIB)
#define HIGH		(4 * GIB)
/* What has content; the rest was never touched */
#define FILLED		(2 * MIB)
#define FILLED_END	(34 * MIB)
#define HIGH_END	(HIGH + 16 * MIB)
#define CONTENT		0x5a

#define PFN(addr)	((addr) / PAGE)
#define INFLATE		VIRTIO_FPH_BALLOON_INFLATE
#define DEFLATE		VIRTIO_FPH_BALLOON_DEFLATE
#define BALLOON		(UINT64_C(1) << VIRTIO_FPH_F_BALLOON)
#define BALLOON_OOM	(UINT64_C(1) << VIRTIO_FPH_F_BALLOON_OOM)
#define WAIT_MS		10000

#define DEVICE		"virtio-fph-pci,id=fph,addr=5,balloon=on"

struct side {
	const char *device;	/* NULL: DEVICE */
	const char *ram;
	const char *const *extra;
	bool destination;
};

/* A QEMU, and what it told of the ranges that it discarded */
struct machine {
	struct vm *vm;
	struct qtest *q;
	const char *log;
	uint64_t hva;		/* of its memory */
	struct driver driver;
};

static uint64_t find_memory(struct vm *vm)
{
	GPtrArray *blocks;
	uint64_t hva = 0;

	ok((blocks = vm_ram_blocks(vm, E)));
	for (guint i = 0; i < blocks->len; i++) {
		const struct vm_block *b = blocks->pdata[i];

		if (b->used == MEMORY)
			hva = b->hva;
	}
	g_ptr_array_unref(blocks);
	check(hva);
	return hva;
}

static void start_side(struct machine *m, const struct side *s)
{
	g_autoptr(GPtrArray) args = g_ptr_array_new();
	struct vm_config cfg = {
		.name = "source",
		.memory = MEMORY,
		.machine = "pc,max-ram-below-4g=64M",
		.accel = "qtest",
		.ram = s->ram,
	};

	/* Or one touch would populate 2 MiB */
	check_int(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), 0);
	m->q = qtest_new();
	m->log = temp_file("", 0);
	for (const char *const *a = qtest_args(m->q); *a; a++)
		g_ptr_array_add(args, (char *)*a);
	g_ptr_array_add(args, (char *)"-device");
	g_ptr_array_add(args, (char *)(s->device ? s->device : DEVICE));
	g_ptr_array_add(args, (char *)"-trace");
	g_ptr_array_add(args, (char *)"virtio_fph_balloon_discard");
	g_ptr_array_add(args, (char *)"-D");
	g_ptr_array_add(args, (char *)m->log);
	for (const char *const *a = s->extra; a && *a; a++)
		g_ptr_array_add(args, (char *)*a);
	g_ptr_array_add(args, NULL);
	cfg.extra = (const char *const *)args->pdata;
	m->vm = s->destination ? start_destination(cfg) : start(cfg);
	qtest_connect(m->q);
	m->hva = find_memory(m->vm);
}

static void begin(struct machine *m, const struct side *s)
{
	start_side(m, s);
	qtest_memset(m->q, DRIVER_START, 0, DRIVER_END - DRIVER_START);
	qtest_memset(m->q, FILLED, CONTENT, FILLED_END - FILLED);
	qtest_memset(m->q, HIGH, CONTENT, HIGH_END - HIGH);
	check(driver_find(&m->driver, m->q));
	driver_init(&m->driver, BALLOON | BALLOON_OOM, 4);
}

static void end(struct machine *m)
{
	vm_free(m->vm);
	qtest_free(m->q);
}

/* How often memory was given back to the host */
static unsigned int discards(struct machine *m)
{
	g_autofree char *log = NULL;
	unsigned int n = 0;

	ok(g_file_get_contents(m->log, &log, NULL, E));
	for (const char *p = log; (p = strchr(p, '\n')); p++)
		n++;
	return n;
}

static uint64_t config_target(struct machine *m)
{
	return qtest_load(m->q, m->driver.dev.device, 8);
}

static uint64_t config_actual(struct machine *m)
{
	return qtest_load(m->q, m->driver.dev.device + 8, 8);
}

static void check_actual(struct machine *m, uint64_t pages)
{
	check_int(config_actual(m), pages);
	check_int(size_of(m->vm), MEMORY - pages * PAGE);
}

static void check_event(struct machine *m, uint64_t pages)
{
	JsonObject *event, *data;

	ok((event = qmp_event(vm_qmp(m->vm), "BALLOON_CHANGE", WAIT_MS, E)));
	data = json_object_get_object_member(event, "data");
	check_int(json_object_get_int_member(data, "actual"), MEMORY - pages * PAGE);
	json_object_unref(event);
}

static bool is_filled_with(struct machine *m, uint64_t start, uint64_t end, uint8_t value)
{
	g_autofree uint8_t *buf = g_malloc(end - start);

	start -= start < LOW ? 0 : HIGH - LOW;
	end -= end <= LOW ? 0 : HIGH - LOW;
	ok(vm_ram_read(m->vm, m->hva + start, buf, end - start, E));
	return buf[0] == value && !memcmp(buf, buf + 1, end - start - 1);
}

/* Nobody has touched what has content */
static void check_content(struct machine *m)
{
	check(is_filled_with(m, FILLED, FILLED_END, CONTENT));
	check(is_filled_with(m, HIGH, HIGH_END, CONTENT));
}

static void one_run(struct machine *m, uint16_t op, uint64_t addr, uint64_t pages)
{
	struct balloon_frame f;

	balloon_begin(&f, op);
	balloon_add_run(&f, PFN(addr), pages);
	driver_balloon(&m->driver, &f);
}

static bool needs_reset(struct machine *m)
{
	return vpci_status(&m->driver.dev) & VIRTIO_CONFIG_S_NEEDS_RESET;
}

/* What the host's user does, and sees */
static void test_target(void **state)
{
	struct machine m;
	g_autofree char *text = NULL;

	begin(&m, &(struct side){ 0 });
	check_int(vpci_queues(&m.driver.dev), 3);
	check_int(vpci_offered(&m.driver.dev) & (BALLOON | BALLOON_OOM), BALLOON | BALLOON_OOM);
	check_int(config_target(&m), 0);
	check_actual(&m, 0);
	vpci_config_changed(&m.driver.dev);
	ok(vm_run(m.vm, E, "balloon", "{\"value\":100663296}"));
	check(vpci_config_changed(&m.driver.dev));
	check_int(config_target(&m), PFN(32 * MIB));
	check_actual(&m, 0);
	one_run(&m, INFLATE, 4 * MIB, PFN(12 * MIB));
	check_event(&m, PFN(12 * MIB));
	check_actual(&m, PFN(12 * MIB));
	ok((text = vm_hmp(m.vm, E, "info balloon")));
	check(strstr(text, "actual=116") != NULL);
	/* It may change its mind at any time */
	ok(vm_run(m.vm, E, "balloon", "{\"value\":130023424}"));
	check(vpci_config_changed(&m.driver.dev));
	check_int(config_target(&m), PFN(4 * MIB));
	one_run(&m, DEFLATE, 8 * MIB, PFN(8 * MIB));
	check_actual(&m, PFN(4 * MIB));
	/* More than all memory is all of it; the driver cannot write there */
	ok(vm_run(m.vm, E, "balloon", "{\"value\":1073741824}"));
	check_int(config_target(&m), 0);
	qtest_store(m.q, m.driver.dev.device, 8, 77);
	qtest_store(m.q, m.driver.dev.device + 8, 8, 77);
	check_int(config_target(&m), 0);
	check_actual(&m, PFN(4 * MIB));
	end(&m);
}

/* Without the feature, or the property, there is no balloon */
static void test_off(void **state)
{
	struct side s = { .device = "virtio-fph-pci,id=fph,addr=5" };
	struct balloon_frame f;
	struct machine m;

	start_side(&m, &s);
	check(driver_find(&m.driver, m.q));
	check_int(vpci_queues(&m.driver.dev), 2);
	check_int(vpci_offered(&m.driver.dev) & (BALLOON | BALLOON_OOM), 0);
	refused(m.vm, "No balloon device", "query-balloon", "{}");
	end(&m);

	begin(&m, &(struct side){ 0 });
	driver_init(&m.driver, 0, 4);
	vpci_ring_init(&m.driver.dev, VIRTIO_FPH_Q_BALLOON, 16, DRIVER_START + 0xc000);
	balloon_begin(&f, INFLATE);
	balloon_add_run(&f, PFN(4 * MIB), 100);
	driver_balloon_post(&m.driver, &f);
	vpci_kick(&m.driver.dev, VIRTIO_FPH_Q_BALLOON);
	check(!driver_balloon_wait_returned(&m.driver, 100));
	check_actual(&m, 0);
	check_content(&m);
	end(&m);
}

/* Exactly what is inflated goes, wherever it is and whatever it is made of */
struct discard_row {
	const char *name;
	const char *ram;
};

static const struct discard_row discard_rows[] = {
	{ "balloon-anon", VM_RAM_ANON },
	{ "balloon-memfd", VM_RAM_MEMFD },
};

static const struct { uint64_t start, end; } inflated[] = {
	{ FILLED + 3 * PAGE, FILLED + 4 * PAGE },
	{ FILLED + 5 * PAGE, FILLED + 6 * PAGE },
	{ 8 * MIB + PAGE, 20 * MIB - PAGE },
	{ HIGH, HIGH + MIB },
};

static void test_discard(void **state)
{
	const struct discard_row *row = *state;
	struct side s = { .ram = row->ram };
	struct vm_usage before, after;
	uint64_t pages = 0, at = FILLED;
	struct balloon_frame f;
	struct machine m;
	struct stat st;

	begin(&m, &s);
	ok(vm_usage(m.vm, &before, E));
	balloon_begin(&f, INFLATE);
	for (size_t i = 0; i < G_N_ELEMENTS(inflated); i++) {
		balloon_add_run(&f, PFN(inflated[i].start), PFN(inflated[i].end - inflated[i].start));
		pages += PFN(inflated[i].end - inflated[i].start);
	}
	driver_balloon(&m.driver, &f);
	check_actual(&m, pages);
	check_int(discards(&m), G_N_ELEMENTS(inflated));
	ok(vm_usage(m.vm, &after, E));
	check(after.rss_kib + pages * 4 < before.rss_kib + 1024);
	if (row->ram) {
		/* A hole, not only an unmapped page */
		int fd = open_memfd(m.vm);

		check_int(fstat(fd, &st), 0);
		close(fd);
		check((uint64_t)st.st_blocks * 512 <
		      FILLED_END - FILLED + HIGH_END - HIGH + 2 * MIB - pages * PAGE);
	}
	for (size_t i = 0; i < G_N_ELEMENTS(inflated); i++) {
		if (inflated[i].start < FILLED_END) {
			check(is_filled_with(&m, at, inflated[i].start, CONTENT));
			at = inflated[i].end;
		}
		check(is_filled_with(&m, inflated[i].start, inflated[i].end, 0));
	}
	check(is_filled_with(&m, at, FILLED_END, CONTENT));
	check(is_filled_with(&m, HIGH + MIB, HIGH_END, CONTENT));

	/* Taking back touches nothing, and does not have to */
	qtest_memset(m.q, HIGH, 0x77, PAGE);
	balloon_begin(&f, DEFLATE);
	balloon_add_run(&f, PFN(HIGH), 2);
	driver_balloon(&m.driver, &f);
	check_actual(&m, pages - 2);
	check_int(discards(&m), G_N_ELEMENTS(inflated));
	check(is_filled_with(&m, HIGH, HIGH + PAGE, 0x77));
	end(&m);
}

/*
 * A file that is mapped privately, as VMs share a template, is not the guest's to make
 * holes in; its own copies are
 */
static void test_private_file(void **state)
{
	const char *path = temp_file("", 0);
	g_autofree char *ram = g_strdup_printf("memory-backend-file,share=off,mem-path=%s", path);
	g_autofree char *template = g_malloc(MIB), *now = g_malloc(MIB);
	struct side s = { .ram = ram };
	struct machine m;
	int fd;

	memset(template, 'T', MIB);
	fd = open(path, O_RDWR | O_CLOEXEC);
	check(fd >= 0);
	check_int(ftruncate(fd, MEMORY), 0);
	check_int(pwrite(fd, template, MIB, 8 * MIB), MIB);
	begin(&m, &s);
	one_run(&m, INFLATE, 8 * MIB, PFN(MIB));
	check_actual(&m, PFN(MIB));
	check_int(pread(fd, now, MIB, 8 * MIB), MIB);
	check(!memcmp(now, template, MIB));
	check(is_filled_with(&m, 8 * MIB, 9 * MIB, 'T'));
	check(is_filled_with(&m, FILLED, 8 * MIB, CONTENT));
	check(is_filled_with(&m, 9 * MIB, FILLED_END, CONTENT));
	end(&m);
	close(fd);
}

/* Neighbours are discarded in one piece, whichever frame they came in */
static void test_join(void **state)
{
	static const unsigned int order[] = { 3, 0, 5, 2, 1, 4 };
	struct balloon_frame f;
	struct machine m;

	begin(&m, &(struct side){ 0 });
	ok(vm_stop(m.vm, E));
	for (size_t i = 0; i < G_N_ELEMENTS(order); i++) {
		balloon_begin(&f, INFLATE);
		balloon_add_run(&f, PFN(8 * MIB + order[i] * MIB), PFN(MIB));
		if (order[i] == 2)
			balloon_add_run(&f, PFN(HIGH), 1);
		driver_balloon_post(&m.driver, &f);
	}
	vpci_kick(&m.driver.dev, VIRTIO_FPH_Q_BALLOON);
	check(!driver_balloon_wait_returned(&m.driver, 100));
	check_int(discards(&m), 0);
	ok(vm_cont(m.vm, E));
	check(driver_balloon_wait_returned(&m.driver, WAIT_MS));
	check_int(discards(&m), 2);
	check_actual(&m, PFN(6 * MIB) + 1);
	check(is_filled_with(&m, 8 * MIB, 14 * MIB, 0));
	check(is_filled_with(&m, FILLED, 8 * MIB, CONTENT));
	check(is_filled_with(&m, 14 * MIB, FILLED_END, CONTENT));
	end(&m);
}

/*
 * Malformed frames. Nothing in them is used, what came before is.
 */
struct bad_row {
	const char *name;
	uint16_t op;
	uint32_t count;
	uint64_t runs[2];
	int extra;
	bool writable;
};

#define RUN(addr, pages)	VIRTIO_FPH_RUN(PFN(addr), pages)

static const struct bad_row bad_rows[] = {
	{ "balloon-bad-op", 3, 1, { RUN(8 * MIB, 1) } },
	{ "balloon-bad-count", INFLATE, 2, { RUN(8 * MIB, 1) }, .extra = -8 },
	{ "balloon-bad-short", INFLATE, 0, .extra = -1 },
	{ "balloon-bad-overlap", INFLATE, 2, { RUN(8 * MIB, 4), RUN(8 * MIB, 1) } },
	{ "balloon-bad-pages", INFLATE, 2, { RUN(2 * MIB, 1), RUN(4 * MIB, 65536) } },
	{ "balloon-bad-deflate-more", DEFLATE, 1, { RUN(8 * MIB, 101) } },
	{ "balloon-bad-writable", INFLATE, 1, { RUN(8 * MIB, 1) }, .writable = true },
};

static void test_bad(void **state)
{
	const struct bad_row *row = *state;
	struct balloon_frame f;
	struct machine m;

	begin(&m, &(struct side){ 0 });
	/* All in one batch: the device cannot tell them apart by time */
	ok(vm_stop(m.vm, E));
	balloon_begin(&f, INFLATE);
	balloon_add_run(&f, PFN(HIGH_END), 100);
	driver_balloon_post(&m.driver, &f);

	balloon_begin(&f, row->op);
	f.header.count = htole32(row->count);
	for (size_t i = 0; i < G_N_ELEMENTS(row->runs); i++)
		f.runs[i] = htole64(row->runs[i]);
	f.len = row->count * 8 + row->extra;
	if (row->writable) {
		/* All of it is there, and a bit more */
		const struct vpci_buf bufs[] = {
			{ DRIVER_BALLOON + 0x8000, sizeof(f.header) + f.len, false },
			{ DRIVER_BALLOON, 16, true },
		};

		qtest_write(m.q, bufs[0].addr, &f, bufs[0].len);
		vpci_post(&m.driver.dev, VIRTIO_FPH_Q_BALLOON, bufs, 2);
	} else {
		driver_balloon_post(&m.driver, &f);
	}
	balloon_begin(&f, INFLATE);
	balloon_add_run(&f, PFN(4 * MIB), 100);
	driver_balloon_post(&m.driver, &f);
	vpci_kick(&m.driver.dev, VIRTIO_FPH_Q_BALLOON);
	ok(vm_cont(m.vm, E));

	check(!driver_balloon_wait_returned(&m.driver, 100));
	check_int(m.driver.balloon_returned, 1);
	check(needs_reset(&m));
	check_actual(&m, 100);
	check_int(discards(&m), 1);
	check_content(&m);

	/* A new driver begins with nothing in it */
	driver_init(&m.driver, BALLOON, 4);
	check(!needs_reset(&m));
	check_actual(&m, 0);
	one_run(&m, INFLATE, 8 * MIB, 50);
	check_actual(&m, 50);
	end(&m);
}

/* What is no RAM to QEMU is neither in the balloon nor harm */
struct unknown_row {
	const char *name;
	unsigned int count;
	uint64_t runs[2];
	uint64_t known, unknown;
};

static const struct unknown_row unknown_rows[] = {
	{ "balloon-unknown-hole", 2, { RUN(8 * MIB, 16), RUN(LOW, 1) }, 16, 1 },
	{ "balloon-unknown-into-hole", 2, { RUN(8 * MIB, 16), RUN(LOW - PAGE, 2) }, 17, 1 },
	{ "balloon-unknown-end", 2, { RUN(8 * MIB, 16), RUN(HIGH + LOW, 1) }, 16, 1 },
	{ "balloon-unknown-far", 2, { RUN(8 * MIB, 16), RUN(UINT64_C(1) << 59, 1) }, 16, 1 },
	{ "balloon-unknown-rom", 2, { RUN(0xf0000, 1), RUN(8 * MIB, 16) }, 16, 1 },
	{ "balloon-unknown-registers", 2, { RUN(8 * MIB, 16), RUN(DRIVER_BAR, 1) }, 16, 1 },
	{ "balloon-unknown-all", 1, { RUN(LOW, 5) }, 0, 5 },
};

static void test_unknown(void **state)
{
	const struct unknown_row *row = *state;
	struct balloon_frame f;
	struct machine m;
	JsonNode *node;

	begin(&m, &(struct side){ 0 });
	for (unsigned int i = 1; i <= 2; i++) {
		balloon_begin(&f, i == 1 ? INFLATE : DEFLATE);
		f.header.count = htole32(row->count);
		for (size_t k = 0; k < row->count; k++)
			f.runs[k] = htole64(row->runs[k]);
		f.len = row->count * 8;
		driver_balloon(&m.driver, &f);
		check(!needs_reset(&m));
		check_actual(&m, i == 1 ? row->known : 0);
		check_int(discards(&m), row->known > 16 ? 2 : row->known / 16);
		ok((node = vm_command(m.vm, E, "qom-get",
				      "{\"path\":\"/machine/peripheral/fph/virtio-backend\","
				      "\"property\":\"unknown-pages\"}")));
		check_int(json_node_get_int(node), i * row->unknown);
		json_node_unref(node);
	}
	end(&m);
}

/* The same pages again and again are more than there are at some time */
static void test_more(void **state)
{
	struct balloon_frame f;
	struct machine m;

	begin(&m, &(struct side){ 0 });
	one_run(&m, INFLATE, HIGH, PFN(LOW));
	one_run(&m, INFLATE, HIGH, PFN(LOW));
	check_actual(&m, PFN(MEMORY));
	balloon_begin(&f, INFLATE);
	balloon_add_run(&f, PFN(8 * MIB), PFN(16 * MIB));
	driver_balloon_post(&m.driver, &f);
	vpci_kick(&m.driver.dev, VIRTIO_FPH_Q_BALLOON);
	check(!driver_balloon_wait_returned(&m.driver, 100));
	check(needs_reset(&m));
	check_actual(&m, PFN(MEMORY));
	check(is_filled_with(&m, FILLED, FILLED_END, CONTENT));
	end(&m);
}

/* One balloon is enough, whose ever it is */
static void test_second(void **state)
{
	struct side other = { .device = "virtio-balloon-pci" };
	struct machine m;

	start_side(&m, &(struct side){ 0 });
	refused(m.vm, "Only one balloon device", "device_add", "{\"driver\":\"virtio-balloon-pci\"}");
	refused(m.vm, "Only one balloon device", "device_add",
		"{\"driver\":\"virtio-fph-pci\",\"balloon\":true}");
	/* Nothing is left of them, and without a balloon there may be more */
	ok(vm_run(m.vm, E, "device_add", "{\"driver\":\"virtio-fph-pci\"}"));
	end(&m);

	start_side(&m, &other);
	refused(m.vm, "Only one balloon device", "device_add",
		"{\"driver\":\"virtio-fph-pci\",\"balloon\":true}");
	check_int(size_of(m.vm), MEMORY);
	end(&m);
}

/* All memory is the guest's again; the target is the host's, and stays */
static void test_reset(void **state)
{
	const bool *machine = *state;
	struct machine m;

	begin(&m, &(struct side){ 0 });
	ok(vm_run(m.vm, E, "balloon", "{\"value\":100663296}"));
	one_run(&m, INFLATE, 8 * MIB, 1000);
	check_event(&m, 1000);
	/* QEMU holds back what comes within a second of the last one */
	qtest_clock_step(m.q, UINT64_C(2000000000));
	if (*machine) {
		ok(vm_run(m.vm, E, "set-action", "{\"reboot\":\"reset\"}"));
		ok(vm_run(m.vm, E, "system_reset", NULL));
	} else {
		vpci_set_status(&m.driver.dev, 0);
	}
	check_event(&m, 0);
	check_int(size_of(m.vm), MEMORY);
	check(driver_find(&m.driver, m.q));
	driver_init(&m.driver, BALLOON, 4);
	check_int(config_target(&m), PFN(32 * MIB));
	check_actual(&m, 0);
	qtest_memset(m.q, 8 * MIB, 0x77, 1000 * PAGE);
	check(is_filled_with(&m, 8 * MIB, 8 * MIB + 1000 * PAGE, 0x77));
	one_run(&m, INFLATE, 8 * MIB, 1000);
	check_actual(&m, 1000);
	end(&m);
}

#define PCI_EJECT	0xae08
#define PCI_SELECT	0xae10
#define SLOT		5

static void test_unplug(void **state)
{
	JsonObject *event;
	struct machine m;
	struct driver d;

	begin(&m, &(struct side){ 0 });
	one_run(&m, INFLATE, 8 * MIB, 1000);
	ok(vm_run(m.vm, E, "device_del", "{\"id\":\"fph\"}"));
	qtest_out(m.q, PCI_SELECT, 4, 0);
	qtest_out(m.q, PCI_EJECT, 4, 1 << SLOT);
	check(!driver_find(&d, m.q));
	ok((event = qmp_event(vm_qmp(m.vm), "DEVICE_DELETED", WAIT_MS, E)));
	json_object_unref(event);
	refused(m.vm, "No balloon device", "query-balloon", "{}");
	qtest_memset(m.q, 8 * MIB, 0x77, 1000 * PAGE);
	ok(vm_run(m.vm, E, "device_add",
		  "{\"driver\":\"virtio-fph-pci\",\"addr\":\"5\",\"balloon\":true}"));
	check(driver_find(&m.driver, m.q));
	driver_init(&m.driver, BALLOON, 4);
	check_actual(&m, 0);
	check(is_filled_with(&m, 8 * MIB, 8 * MIB + 1000 * PAGE, 0x77));
	one_run(&m, INFLATE, 8 * MIB, 1000);
	check_actual(&m, 1000);
	end(&m);
}

/* A frame is under way while the device migrates: the destination takes it */
static void test_migrate(void **state)
{
	struct vm_migration mig = { 0 };
	struct machine m, dst;
	struct balloon_frame f;

	begin(&m, &(struct side){ 0 });
	start_side(&dst, &(struct side){ .destination = true });
	ok(vm_run(m.vm, E, "balloon", "{\"value\":100663296}"));
	one_run(&m, INFLATE, 8 * MIB, 1000);
	ok(vm_stop(m.vm, E));
	balloon_begin(&f, INFLATE);
	balloon_add_run(&f, PFN(HIGH), 10);
	driver_balloon_post(&m.driver, &f);
	vpci_kick(&m.driver.dev, VIRTIO_FPH_Q_BALLOON);
	migrate(m.vm, dst.vm, &(struct vm_migrate_opts){ .timeout_ms = MIGRATE_MS }, &mig);
	check_ram_equal(m.vm, dst.vm);

	dst.driver = m.driver;
	dst.driver.dev.q = dst.q;
	check_int(size_of(dst.vm), MEMORY - 1000 * PAGE);
	ok(vm_cont(dst.vm, E));
	check(driver_balloon_wait_returned(&dst.driver, WAIT_MS));
	check_int(config_target(&dst), PFN(32 * MIB));
	check_actual(&dst, 1010);
	check(is_filled_with(&dst, HIGH, HIGH + 10 * PAGE, 0));
	check(is_filled_with(&dst, HIGH + 10 * PAGE, HIGH_END, CONTENT));
	one_run(&dst, DEFLATE, 8 * MIB, 1000);
	check_actual(&dst, 10);
	vm_migration_clear(&mig);
	end(&m);
	end(&dst);
}

/* What each side has, and whether the state of one fits the other */
struct version_row {
	const char *name;
	const char *src, *dst;
	bool fits;
};

#define NO_BALLOON	"virtio-fph-pci,id=fph,addr=5,vectors=4"
#define WITH_BALLOON	NO_BALLOON ",balloon=on"

static const struct version_row version_rows[] = {
	{ "balloon-migrate-from-none", NO_BALLOON, WITH_BALLOON, true },
	{ "balloon-migrate-to-none", WITH_BALLOON, NO_BALLOON, false },
};

static void test_version(void **state)
{
	const struct version_row *row = *state;
	struct vm_migrate_opts opts = { .timeout_ms = MIGRATE_MS };
	struct vm_migration mig = { 0 };
	GError *error = NULL;
	struct machine m, dst;

	start_side(&m, &(struct side){ .device = row->src });
	start_side(&dst, &(struct side){ .device = row->dst, .destination = true });
	check(driver_find(&m.driver, m.q));
	/* Its features alone would fit */
	driver_init(&m.driver, 0, 4);
	if (row->fits) {
		migrate(m.vm, dst.vm, &opts, &mig);
		ok(vm_cont(dst.vm, E));
		check_int(size_of(dst.vm), MEMORY);
	} else {
		check(!vm_migrate(m.vm, dst.vm, &opts, &mig, &error));
		print_message("%s\n", error->message);
		g_error_free(error);
	}
	vm_migration_clear(&mig);
	end(&m);
	end(&dst);
}

/* A background snapshot must find all memory where it is */
static void test_snapshot(void **state)
{
	struct vm_migration mig = { 0 };
	GError *error = NULL;
	struct machine m;

	begin(&m, &(struct side){ 0 });
	if (!vm_run(m.vm, &error, "migrate-set-capabilities",
		    "{\"capabilities\":[{\"capability\":\"background-snapshot\",\"state\":true}]}"))
		fph_test_skip_all("no background snapshots here: %s", error->message);
	ok(vm_run(m.vm, E, "migrate-set-parameters", "{\"max-bandwidth\":1000000}"));
	ok(vm_run(m.vm, E, "migrate", "{\"uri\":\"exec:cat >/dev/null\"}"));
	for (int i = 0; !mig.status || strcmp(mig.status, "active"); i++) {
		check(i < 5000);
		g_usleep(1000);
		ok(vm_migrate_poll(m.vm, &mig, E));
	}
	one_run(&m, INFLATE, 8 * MIB, 1000);
	check_actual(&m, 1000);
	check_int(discards(&m), 0);
	ok(vm_migrate_poll(m.vm, &mig, E));
	check_str(mig.status, "active");
	ok(vm_migrate_cancel(m.vm, 20000, E));
	check_content(&m);

	one_run(&m, INFLATE, 20 * MIB, 1000);
	check_int(discards(&m), 1);
	check(is_filled_with(&m, 8 * MIB, 20 * MIB, CONTENT));
	check(is_filled_with(&m, 20 * MIB, 20 * MIB + 1000 * PAGE, 0));
	vm_migration_clear(&mig);
	end(&m);
}

/* What has not come yet would be taken for discarded */
static void test_postcopy(void **state)
{
	struct vm_migrate_opts opts = { .max_bandwidth = MIB, .timeout_ms = MIGRATE_MS };
	struct vm_migration mig = { 0 };
	GError *error = NULL;
	struct machine m, dst;

	begin(&m, &(struct side){ 0 });
	start_side(&dst, &(struct side){ .destination = true });
	if (!vm_run(dst.vm, &error, "migrate-set-capabilities",
		    "{\"capabilities\":[{\"capability\":\"postcopy-ram\",\"state\":true}]}"))
		fph_test_skip_all("no postcopy here: %s", error->message);
	capability(m.vm, dst.vm, "postcopy-ram");
	ok(vm_run(m.vm, E, "migrate-set-parameters", "{\"max-postcopy-bandwidth\":1000000}"));
	ok(vm_migrate_start(m.vm, dst.vm, &opts, &mig, E));
	for (int i = 0; !mig.status || strcmp(mig.status, "active") || mig.bytes < MIB; i++) {
		check(i < 5000);
		g_usleep(1000);
		ok(vm_migrate_poll(m.vm, &mig, E));
	}
	ok(vm_run(m.vm, E, "migrate-start-postcopy", NULL));
	for (int i = 0; strcmp(mig.status, "postcopy-active"); i++) {
		check(i < 5000);
		g_usleep(1000);
		ok(vm_migrate_poll(m.vm, &mig, E));
	}
	dst.driver = m.driver;
	dst.driver.dev.q = dst.q;
	ok(vm_cont(dst.vm, E));
	one_run(&dst, INFLATE, 20 * MIB, 1000);
	check_int(discards(&dst), 0);
	ok(vm_migrate_poll(m.vm, &mig, E));
	check_str(mig.status, "postcopy-active");
	ok(vm_run(m.vm, E, "migrate-set-parameters", "{\"max-postcopy-bandwidth\":0}"));
	ok(vm_migrate_wait(m.vm, dst.vm, &opts, &mig, E));
	check_content(&dst);
	check_actual(&dst, 1000);
	one_run(&dst, INFLATE, 30 * MIB, 100);
	check_int(discards(&dst), 1);
	vm_migration_clear(&mig);
	end(&m);
	end(&dst);
}

/* Host pages of 2 MiB go as a whole, and only when all of it is inflated */
static void test_hugetlb(void **state)
{
	static const char ram[] = "memory-backend-memfd,share=on,hugetlb=on,hugetlbsize=2M";
	struct balloon_frame f;
	struct machine m;

	need_hugepages(MEMORY);
	begin(&m, &(struct side){ .ram = ram });
	/* In part, in whole, in part */
	one_run(&m, INFLATE, 5 * MIB, PFN(6 * MIB));
	check_int(discards(&m), 1);
	check(is_filled_with(&m, 4 * MIB, 6 * MIB, CONTENT));
	check(is_filled_with(&m, 6 * MIB, 10 * MIB, 0));
	check(is_filled_with(&m, 10 * MIB, FILLED_END, CONTENT));
	/* The rest of the first, but a page */
	one_run(&m, INFLATE, 4 * MIB, PFN(MIB) - 1);
	check_int(discards(&m), 1);
	/* One comes back, the last one goes: it is in use */
	one_run(&m, DEFLATE, 4 * MIB + 7 * PAGE, 1);
	one_run(&m, INFLATE, 5 * MIB - PAGE, 1);
	check_int(discards(&m), 1);
	check(is_filled_with(&m, 4 * MIB, 6 * MIB, CONTENT));
	one_run(&m, INFLATE, 4 * MIB + 7 * PAGE, 1);
	check_int(discards(&m), 2);
	check(is_filled_with(&m, 4 * MIB, 6 * MIB, 0));
	check_actual(&m, PFN(7 * MIB));
	/* One page of each of two that are gone, and back */
	balloon_begin(&f, DEFLATE);
	balloon_add_run(&f, PFN(6 * MIB), 1);
	balloon_add_run(&f, PFN(8 * MIB), 1);
	driver_balloon(&m.driver, &f);
	qtest_memset(m.q, 6 * MIB, 0x77, PAGE);
	one_run(&m, INFLATE, 8 * MIB, 1);
	check_int(discards(&m), 3);
	check(is_filled_with(&m, 6 * MIB, 6 * MIB + PAGE, 0x77));
	/* Reset forgets: all of it is in use */
	driver_init(&m.driver, BALLOON, 4);
	one_run(&m, INFLATE, 10 * MIB + PAGE, PFN(MIB) - 1);
	driver_init(&m.driver, BALLOON, 4);
	one_run(&m, INFLATE, 10 * MIB, 1);
	one_run(&m, INFLATE, 11 * MIB, PFN(MIB));
	check_int(discards(&m), 3);
	check(is_filled_with(&m, 10 * MIB, 12 * MIB, CONTENT));
	end(&m);
}

static bool asks_host(const char *name)
{
	return false;
}

static const struct fph_test_single singles[] = {
	{ "balloon-target", test_target },
	{ "balloon-off", test_off },
	{ "balloon-join", test_join },
	{ "balloon-more", test_more },
	{ "balloon-private-file", test_private_file },
	{ "balloon-second", test_second },
	{ "balloon-unplug", test_unplug },
	{ "balloon-migrate", test_migrate },
	{ "balloon-snapshot", test_snapshot },
	{ "balloon-postcopy", test_postcopy },
	{ "balloon-hugetlb", test_hugetlb },
};

int main(int argc, char **argv)
{
	static const bool yes = true, no = false;
	struct fph_tests t = { 0 };

	fph_test_add_rows(&t, discard_rows, test_discard);
	fph_test_add_rows(&t, bad_rows, test_bad);
	fph_test_add_rows(&t, unknown_rows, test_unknown);
	fph_test_add_rows(&t, version_rows, test_version);
	fph_test_add_singles(&t, singles);
	fph_test_add(&t, "balloon-reset", test_reset, &no);
	fph_test_add(&t, "balloon-system-reset", test_reset, &yes);
	return harness_main(argc, argv, &t, asks_host);
}

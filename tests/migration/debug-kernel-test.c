/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * virtio_fph in a kernel that finds mistakes of drivers (KASAN, lockdep, DMA_API_DEBUG,
 * KMEMLEAK): what may go wrong between device and driver, again and again. What the
 * kernel finds is on its console, and fails the test.
 *
 * One case per process: debug-kernel-test NAME. FPH_DEBUG_ROUNDS: rounds of its loop.
 */
#include <endian.h>
#include <inttypes.h>
#include <linux/virtio_ring.h>
#include <unistd.h>

#include "fph/virtio-fph.h"
#include "harness.h"

#define MEMORY		(640 * MIB)
/* With so much the guest goes on, and so does whoever looks for mistakes. */
#define SMALL		(MEMORY - 64 * MIB)

#define ROUNDS		3
/* Of the driver: how long it waits for a device that does not answer */
#define FRAME_TIMEOUT_S	5

struct row {
	const char *name;
	void (*loop)(struct vm *vm, unsigned int rounds);
	const char *machine;		/* NULL: pc */
	const char *iommu;		/* NULL: none */
	const char *device;
	const char *append;
};

static unsigned int rounds(void)
{
	const char *text = g_getenv("FPH_DEBUG_ROUNDS");

	return text && *text ? strtoul(text, NULL, 10) : ROUNDS;
}

static void loop_load(struct vm *vm, unsigned int n)
{
	guest(vm, "fill 4M", "ok fill");
	unload_beside_oom(vm, MEMORY - 128 * MIB, n);
	resize(vm, SMALL);
	guest_check(vm);
}

static void loop_balloon(struct vm *vm, unsigned int n)
{
	guest(vm, "fragment 32M", "ok fragment");
	for (unsigned int i = 0; i < n; i++) {
		resize(vm, SMALL);
		/* Midway, it is another size. */
		set_size(vm, MEMORY);
		resize(vm, SMALL + 8 * MIB);
		resize(vm, MEMORY);
	}
	wait_for_balloon(vm, "reached");
	guest_check(vm);
}

static void begin_report(struct vm *vm)
{
	ok(vm_run(vm, E, "migrate", "{\"uri\":\"exec:cat >/dev/null\"}"));
}

static void wait_for_report(struct vm *vm, const char *state)
{
	struct vm_migration m = { 0 };

	until (m.fph.hints.state && !strcmp(m.fph.hints.state, state))
		ok(vm_migrate_poll(vm, &m, E));
	vm_migration_clear(&m);
}

/* Until the guest's answer is there, or is not, then no more is waited for. */
static void end_report(struct vm *vm, const char *state)
{
	wait_for_report(vm, state);
	ok(vm_migrate_cancel(vm, MIGRATE_MS, E));
}

/* Who asks for it looks into all queues, muted or not; nothing is in them yet. */
static void begin_muted_report(struct vm *vm)
{
	mute_queues(vm, VIRTIO_FPH_Q_MAX, true);
	begin_report(vm);
	wait_for_report(vm, "requested");
}

static void loop_report(struct vm *vm, unsigned int n)
{
	uint64_t before = guest_number(vm, "report", "reports");

	guest(vm, "fragment 32M", "ok fragment");
	set_bandwidth(vm, MIB);
	for (unsigned int i = 0; i < n; i++) {
		guest(vm, i % 2 ? "put /sys/module/virtio_fph/parameters/walk list" :
				  "put /sys/module/virtio_fph/parameters/walk pfn", "ok put");
		begin_report(vm);
		end_report(vm, "answered");
	}
	check(guest_number(vm, "report", "reports") >= before + n);
	guest_check(vm);
}

static void loop_suspend(struct vm *vm, unsigned int n)
{
	guest(vm, "fill 16M", "ok fill");
	set_bandwidth(vm, MIB);
	for (unsigned int i = 0; i < n; i++) {
		resize(vm, SMALL);
		guest_suspend(vm);
		check_int(size_of(vm), MEMORY);
		guest_wake_up(vm);
		begin_report(vm);
		end_report(vm, "answered");
	}
	guest_check(vm);
}

#define PV0	"\"id\":\"pv0\""

static void loop_unplug(struct vm *vm, unsigned int n)
{
	bool added;

	guest(vm, "fill 16M", "ok fill");
	set_bandwidth(vm, MIB);
	for (unsigned int i = 0; i < n; i++) {
		resize(vm, SMALL);
		/* With a report under way, or done, or none */
		if (i % 3)
			begin_report(vm);
		if (i % 3 == 1)
			end_report(vm, "answered");
		if (i % 3 == 2)
			ok(vm_migrate_cancel(vm, MIGRATE_MS, E));
		ok(vm_run(vm, E, "device_del", "{" PV0 "}"));
		wait_event(vm, "DEVICE_DELETED");
		/* Parts of it are deleted before its name is free again. */
		added = false;
		until (added) {
			GError *error = NULL;

			added = vm_run(vm, &error, "device_add", "{\"driver\":\"virtio-fph-pci\","
				       PV0 ",\"addr\":\"5\",\"balloon\":true}");
			g_clear_error(&error);
		}
	}
	resize(vm, SMALL);
	guest_check(vm);
}

/* What a device does wrong is done to a queue from outside, while the guest stands still. */

static uint16_t read_u16(int fd, uint64_t at)
{
	uint16_t v;

	check_int(pread(fd, &v, sizeof(v), at), sizeof(v));
	return le16toh(v);
}

static void write_u16(int fd, uint64_t at, uint16_t value)
{
	uint16_t v = htole16(value);

	check_int(pwrite(fd, &v, sizeof(v), at), sizeof(v));
}

/* The last buffer that the device gave back, it gives back once more. */
static void answer_twice(struct vm *vm, unsigned int queue)
{
	struct ring r = find_ring(vm, queue);
	int fd = open_memfd(vm);
	struct vring_used_elem last;
	uint16_t idx;

	ok(vm_stop(vm, E));
	idx = read_u16(fd, r.used + offsetof(struct vring_used, idx));
	check_int(pread(fd, &last, sizeof(last), r.used + offsetof(struct vring_used, ring) +
			(uint16_t)(idx - 1) % r.num * sizeof(last)), sizeof(last));
	check_int(pwrite(fd, &last, sizeof(last), r.used + offsetof(struct vring_used, ring) +
			 idx % r.num * sizeof(last)), sizeof(last));
	write_u16(fd, r.used + offsetof(struct vring_used, idx), idx + 1);
	ok(vm_cont(vm, E));
	close(fd);
}

static void load_again(struct vm *vm)
{
	guest(vm, "mod unload virtio_fph", "ok mod");
	check_int(size_of(vm), MEMORY);
	guest(vm, "mod load virtio_fph", "ok mod");
}

/* So many runs that a report takes more frames than there are at a time */
#define MANY_RUNS	"fragment 330M"

/* Answers that take their time, but come */
static void loop_late(struct vm *vm, unsigned int n)
{
	guest(vm, MANY_RUNS, "ok fragment");
	set_bandwidth(vm, MIB);
	for (unsigned int i = 0; i < n; i++) {
		begin_muted_report(vm);
		set_size(vm, MEMORY - 8 * MIB);
		g_usleep(G_USEC_PER_SEC);
		check_int(size_of(vm), MEMORY);
		mute_queues(vm, VIRTIO_FPH_Q_MAX, false);
		end_report(vm, "answered");
		check_int(guest_number(vm, "report", "aborted"), 0);
		wait_for_size(vm, MEMORY - 8 * MIB);
		/* Given up by then, and unloaded */
		mute_queues(vm, VIRTIO_FPH_Q_MAX, true);
		set_size(vm, MEMORY);
		begin_report(vm);
		g_usleep(i % 20 * 10000);
		ok(vm_migrate_cancel(vm, MIGRATE_MS, E));
		mute_queues(vm, VIRTIO_FPH_Q_MAX, false);
		load_again(vm);
	}
	guest_check(vm);
}

/* ... and that never come */
static void loop_never(struct vm *vm, unsigned int n)
{
	guest(vm, MANY_RUNS, "ok fragment");
	set_bandwidth(vm, MIB);
	for (unsigned int i = 0; i < n; i++) {
		gint64 before;

		resize(vm, MEMORY - 8 * MIB);
		begin_muted_report(vm);
		set_size(vm, MEMORY - 16 * MIB);
		if (i % 2) {
			until (guest_number(vm, "report", "aborted") > 0)
				;
		} else {
			/* It waits for the balloon, not for the report. */
			g_usleep(FRAME_TIMEOUT_S * G_USEC_PER_SEC / 5);
		}
		before = g_get_monotonic_time();
		guest(vm, "mod unload virtio_fph", "ok mod");
		check(g_get_monotonic_time() - before >=
		      (FRAME_TIMEOUT_S - 1) * G_USEC_PER_SEC);
		check_int(size_of(vm), MEMORY);
		ok(vm_migrate_cancel(vm, MIGRATE_MS, E));
		guest(vm, "mod load virtio_fph", "ok mod");
	}
	guest_check(vm);
}

/* A report is given up, or the device has answered it. Return: it is given up */
static bool report_ends(struct vm *vm)
{
	struct vm_migration m = { 0 };
	bool aborted = false, answered = false;

	begin_report(vm);
	until (aborted || answered) {
		ok(vm_migrate_poll(vm, &m, E));
		answered = m.fph.hints.state && !strcmp(m.fph.hints.state, "answered");
		aborted = guest_number(vm, "report", "aborted") > 0;
	}
	vm_migration_clear(&m);
	ok(vm_migrate_cancel(vm, MIGRATE_MS, E));
	return aborted;
}

/*
 * Its memory is the guest's again: the device takes the frames, or nobody does because
 * driver or device have given up. Return: is it so?
 */
static bool balloon_ends(struct vm *vm)
{
	bool reached = false, down = false;

	until (reached || down) {
		g_autofree char *state = guest_word(vm, "balloon", "state");

		reached = !strcmp(state, "reached");
		down = !strcmp(state, "down");
	}
	return down || size_of(vm) == MEMORY - 8 * MIB;
}

static void loop_twice(struct vm *vm, unsigned int n)
{
	static const unsigned int queues[] = { VIRTIO_FPH_Q_REPORT, VIRTIO_FPH_Q_BALLOON };
	unsigned int seen = 0;

	guest(vm, "fill 16M", "ok fill");
	set_bandwidth(vm, MIB);
	for (unsigned int i = 0; i < n; i++) {
		unsigned int queue = queues[i % ARRAY_SIZE(queues)];

		resize(vm, MEMORY - 8 * MIB);
		begin_report(vm);
		end_report(vm, "answered");
		answer_twice(vm, queue);
		/* What the device gives back next comes in the same place, if nobody looked yet */
		if (queue == VIRTIO_FPH_Q_REPORT) {
			seen += report_ends(vm);
		} else {
			set_size(vm, MEMORY);
			seen += balloon_ends(vm);
		}
		load_again(vm);
		set_size(vm, MEMORY);
	}
	print_message("answered twice, and seen: %u\n", seen);
	check(seen >= n / 2);
	guest_check(vm);
}

#define DEVICE	"virtio-fph-pci,id=pv0,addr=5,balloon=on"
/* Split rings without event indexes, where a flag says that no news are wanted */
#define PLAIN	DEVICE ",event_idx=off,encoding=runs"
#define PACKED	DEVICE ",packed=on"
#define IOMMU	DEVICE ",packed=on,iommu_platform=on"
#define INTEL	"q35", "intel-iommu,intremap=off"

static const struct row rows[] = {
	{ "debug-balloon", loop_balloon, NULL, NULL, DEVICE, "" },
	{ "debug-balloon-iommu", loop_balloon, INTEL, IOMMU, " intel_iommu=on" },
	{ "debug-late", loop_late, NULL, NULL, PLAIN, "" },
	{ "debug-load", loop_load, NULL, NULL, DEVICE, UNLOAD_APPEND },
	{ "debug-load-iommu", loop_load, INTEL, IOMMU, " intel_iommu=on" UNLOAD_APPEND },
	{ "debug-load-packed", loop_load, NULL, NULL, PACKED, UNLOAD_APPEND },
	{ "debug-never", loop_never, NULL, NULL, PLAIN, "" },
	{ "debug-report", loop_report, NULL, NULL, DEVICE, "" },
	{ "debug-report-iommu", loop_report, INTEL, IOMMU, " intel_iommu=on" },
	{ "debug-suspend", loop_suspend, NULL, NULL, PACKED, "" },
	{ "debug-twice", loop_twice, NULL, NULL, PLAIN, "" },
	{ "debug-unplug", loop_unplug, NULL, NULL, DEVICE, "" },
};

/* Without, a leak is told below the level of the console */
#define LEAKS_APPEND	" fph.debugfs=1 kmemleak.verbose=1"

static void look_for_leaks(struct vm *vm)
{
	guest(vm, "mod unload virtio_fph", "ok mod");
	/* What is younger than 5 seconds is not looked at, nor what was seen once. */
	g_usleep(6 * G_USEC_PER_SEC);
	guest(vm, "put /sys/kernel/debug/kmemleak scan", "ok put");
	guest(vm, "put /sys/kernel/debug/kmemleak scan", "ok put");
}

static struct vm_config debug_config(const char *const *extra, const char *append)
{
	struct vm_config cfg = linux_guest;

	cfg.memory = MEMORY;
	cfg.ram = VM_RAM_MEMFD;
	cfg.smp = 2;
	cfg.fph_mode = "pv";
	cfg.extra = extra;
	cfg.append = append;
	use_kernel(&cfg, "debug");
	return cfg;
}

static void print_rounds(unsigned int n, gint64 before)
{
	print_message("%u rounds, %" PRId64 " ms each\n", n,
		      (g_get_monotonic_time() - before) / 1000 / MAX(n, 1));
}

/* To a disk, and back in another QEMU. A round takes minutes, so there are fewer. */
static void test_hibernate(void **state)
{
	g_autofree char *drive = hibernation_drive(MEMORY);
	const char *const extra[] = {
		"-no-shutdown", "-drive", drive, "-device", GUEST_DISK_DEVICE,
		"-device", PACKED, NULL,
	};
	struct vm_config cfg = debug_config(extra, FPH_APPEND DISK_APPEND LEAKS_APPEND);
	const unsigned int n = MAX(rounds() / 20, 1);
	struct vm *vm;
	gint64 before;

	vm = start(cfg);
	boot(vm);
	guest(vm, "fill 16M", "ok fill");
	before = g_get_monotonic_time();
	for (unsigned int i = 0; i < n; i++) {
		resize(vm, SMALL);
		guest_hibernate(vm);
		vm_free(vm);
		vm = start(cfg);
		boot(vm);
		guest_resume(vm);
		check_int(size_of(vm), MEMORY);
		set_bandwidth(vm, MIB);
		begin_report(vm);
		end_report(vm, "answered");
	}
	print_rounds(n, before);
	guest_check(vm);
	vm_free(vm);
}

static void test_row(void **state)
{
	const struct row *row = *state;
	const char *extra[] = { "-device", row->device, NULL, NULL, NULL };
	g_autofree char *append = g_strconcat(FPH_APPEND, LEAKS_APPEND, row->append, NULL);
	struct vm_config cfg = debug_config(extra, append);
	struct vm *vm;
	gint64 before;

	cfg.machine = row->machine;
	if (row->iommu) {
		extra[1] = row->iommu;
		extra[2] = "-device";
		extra[3] = row->device;
	}
	vm = start(cfg);
	boot(vm);
	/* Its driver gives out addresses from 4 GiB downwards. */
	check(!row->iommu || find_ring(vm, VIRTIO_FPH_Q_REPORT).used >= MEMORY);
	before = g_get_monotonic_time();
	row->loop(vm, rounds());
	print_rounds(rounds(), before);
	/* It takes a minute. */
	if (rounds() > ROUNDS || row->loop == loop_load)
		look_for_leaks(vm);
	vm_free(vm);
}

static const struct fph_test_single singles[] = {
	{ "debug-hibernate", test_hibernate },
};

int main(int argc, char **argv)
{
	struct fph_tests t = { 0 };

	fph_test_add_rows(&t, rows, test_row);
	fph_test_add_singles(&t, singles);
	return harness_main(argc, argv, &t, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A guest that wanders from host to host, as often as is wanted. What it does on the way,
 * how it travels, by which modes pages are left out, what goes wrong and what the host
 * does with its memory meanwhile is drawn by lot, the same for the same seed. After each
 * hop all memory is compared, outside the pages that the guest calls free, and the guest
 * looks at each page that it ever wrote. After some hops another guest, with other
 * devices, takes its turn.
 *
 * What is drawn never depends on time, so a failure can be sought with the same lots; it
 * prints how. What came later, as disks and swap, has lots of its own or none, so a seed
 * gives the hops that it always gave. tests/soak builds what this needs.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <linux/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "harness.h"
#include "swap.h"
#include "vmstat.h"

#define LIFE	5		/* hops of one guest */
#define SWAP	(1536 * MIB)	/* for all memory of both sides */

/*
 * Lots
 */

/* What a guest keeps, as its devices cannot change on the way */
struct machine {
	const char *name;
	const char *const *devices;
	const char *append;		/* NULL: the firmware guest, on KVM */
	bool asked;			/* the guest can say what is free */
	bool hints_itself;		/* QEMU's own hints leave out pages, if we do not take them */
	bool balloon;			/* or reporting: pages are discarded on the way */
	bool more_memory;		/* blocks of its own, private ones */
};

static const char *const fph_packed[] = {
	"-device", "virtio-fph-pci,id=pv0,packed=on,iommu_platform=on", NULL,
};
static const char *const fph_balloon[] = {
	"-device", "virtio-fph-pci,id=pv0,balloon=on", NULL,
};
static const char *const stock_balloon[] = {
	"-object", "iothread,id=io0",
	"-device", "virtio-balloon-pci,id=b0,free-page-hint=on,free-page-reporting=on,"
		   "deflate-on-oom=on,iothread=io0", NULL,
};
static const char *const both_devices[] = {
	"-device", "virtio-fph-pci,id=pv0",
	"-device", "virtio-balloon-pci,id=b0,free-page-reporting=on,deflate-on-oom=on", NULL,
};
static const char *const virtio_mem[] = {
	"-m", "slots=1,maxmem=1G",
	"-object", "memory-backend-ram,id=vm0,size=256M,reserve=off",
	"-device", "virtio-mem-pci,memdev=vm0,requested-size=0",
	"-device", "virtio-fph-pci,id=pv0", NULL,
};

/*
 * A DIMM is plugged on the way, and taken into use; from then on each host has it. QEMU
 * refuses that while it migrates.
 */
#define DIMM_BLOCK	"d0"
#define DIMM_BYTES	(128 * MIB)
#define DIMM_APPEND	" memhp_default_state=offline"
/* The first one above 4 GiB, for a guest that has no memory there */
#define DIMM_ONLINE	"put /sys/devices/system/memory/memory32/state online_movable"
#define DIMM_USED	(32 * MIB)

static const char *const slots[] = {
	"-m", "slots=2,maxmem=1G", "-device", "virtio-fph-pci,id=pv0", NULL,
};
static const char *const slots_dimm[] = {
	"-m", "slots=2,maxmem=1G", "-device", "virtio-fph-pci,id=pv0",
	"-object", "memory-backend-ram,id=d0,size=128M",
	"-device", "pc-dimm,id=dimm0,memdev=d0", NULL,
};

#define BOTH_APPEND	VM_APPEND " fph.modules=virtio_fph,virtio_balloon"

static const struct machine machines[] = {
	{ "no device", NULL, VM_APPEND },
	{ "virtio-fph", fph_device, FPH_APPEND, .asked = true },
	{ "virtio-fph by bitmaps", fph_device_bitmap, FPH_APPEND, .asked = true },
	{ "virtio-fph, packed ring", fph_packed, FPH_APPEND, .asked = true },
	{ "virtio-fph with balloon", fph_balloon, FPH_APPEND, .asked = true, .balloon = true },
	{ "virtio-balloon", stock_balloon, BALLOON_APPEND, .asked = true, .balloon = true,
	  .hints_itself = true },
	{ "virtio-fph and virtio-balloon", both_devices, BOTH_APPEND, .asked = true,
	  .balloon = true },
	{ "virtio-mem", virtio_mem, FPH_APPEND, .asked = true, .more_memory = true },
	{ "DIMM", slots, FPH_APPEND DIMM_APPEND, .asked = true, .more_memory = true },
	{ "firmware, KVM", NULL, NULL },
};

static const char *const kernel_words[] = { "", " init_on_free=1", " init_on_alloc=1" };

/* The new host's memory. What is absent in a named file is zero, as QEMU makes it anew. */
static const char *const backings[] = {
	"memory-backend-ram",
	"memory-backend-ram,share=on",
	"memory-backend-ram,prealloc=on",
	"memory-backend-memfd,share=on",
	"memory-backend-memfd,share=on",
	"memory-backend-memfd,share=off",
	"memory-backend-file,share=on,mem-path=/dev/shm",
};

static const char *const modes[] = { "pagemap", "both", "both", "pv" };

static const char *const switches[] = {
	"", "", "", ",verify=report", ",prescan=on", ",prescan=on,verify=report",
	",scanner=pagemap", ",pv-wait=0", ",dry-run=on",
};

/* What it does until it has arrived; each begins with nothing under way */
static const char *const work[] = {
	"fill 24M dense|rewrite 3000",
	"fill 8M|touch 2000 48M",
	"fill 8M|churn 24M",
	"fill 8M|zerochurn 24M|rewrite 1000",
	"fill 8M|fragment 48M|rewrite 2000",
	"free|fill 16M|rewrite 2000",
	"fill 96M dense|free|fill 16M|touch 3000 32M|churn 16M",
	"fill 16M|pressure 96M|rewrite 2000",
	"fill 16M",
};

enum way { TO_SOCKET, TO_TCP, TO_MULTIFD, TO_FILE, TO_MULTIFD_FILE, POSTCOPY, WAYS };

static const char *const ways[] = {
	"unix", "tcp", "multifd", "mapped-ram", "mapped-ram by multifd", "postcopy",
};

static const char *const zero_detection[] = { "none", "legacy", "multifd" };

static const uint64_t bandwidths[] = { 20 * MIB, 60 * MIB, 200 * MIB, 100000 * MIB };

enum accident { NO_ACCIDENT, CANCELLED, DESTINATION_DIES, ACCIDENTS };

static const char *const accidents[] = { "", ", cancelled before", ", its destination died before" };

enum host_does { NOTHING, COMPACTS, COLD, PAGES_OUT, COLLAPSES, HOST_DOES };

static const char *const host_doing[] = {
	"", ", compaction", ", MADV_COLD", ", MADV_PAGEOUT", ", MADV_COLLAPSE",
};

struct hop {
	const char *mode, *switches;
	bool early;			/* the object is there from the start of QEMU */
	const char *backing;		/* of the next host */
	bool sanitized;			/* the next host's QEMU */
	const char *work;
	unsigned int balloon;		/* MiB that the guest is to have in the end */
	bool plug;
	enum way way;
	unsigned int channels;
	const char *zero;
	bool xbzrle, throttle, return_path;
	uint64_t bandwidth;
	unsigned int rounds;		/* that are waited for */
	enum accident accident;
	unsigned int accident_after;	/* pages sent, or ms */
	enum host_does host;
};

struct life {
	unsigned int seed, number;
	GRand *rnd;
	const struct machine *machine;
	const char *logs;
	struct vm_config cfg;
	const char *image;		/* of a disk by vhost-user, or NULL */
	bool plugged;
	struct vm *host;
	const char *backing;		/* of the host */
	struct hop hop, next;
};

/* In the end: what was put to the test */
static struct {
	unsigned int lives, hops, ways[WAYS], accidents[ACCIDENTS], sanitized, dry, inactive,
		     disks, dimms;
	uint64_t swapped_out, swapped_in;
	uint64_t compared, uncompared, discarded, skipped, resent, zero_content, free_differ, verified;
} sum;

#define ONE_OF(rnd, array)	((array)[g_rand_int_range(rnd, 0, ARRAY_SIZE(array))])

static bool once_in(GRand *rnd, int n)
{
	return g_rand_int_range(rnd, 0, n) == 0;
}

/* All lots in the same order, whether they count or not */
static struct hop draw_hop(const struct life *l)
{
	struct hop h = {
		.mode = ONE_OF(l->rnd, modes),
		.switches = ONE_OF(l->rnd, switches),
		.early = g_rand_boolean(l->rnd),
		.backing = ONE_OF(l->rnd, backings),
		.sanitized = once_in(l->rnd, 3),
		.work = ONE_OF(l->rnd, work),
		.balloon = g_rand_int_range(l->rnd, 3, 5) * 128,
		.plug = once_in(l->rnd, 3),
		.way = g_rand_int_range(l->rnd, 0, WAYS),
		.channels = g_rand_int_range(l->rnd, 1, 5),
		.zero = ONE_OF(l->rnd, zero_detection),
		.xbzrle = once_in(l->rnd, 5),
		.throttle = once_in(l->rnd, 5),
		.return_path = g_rand_boolean(l->rnd),
		.bandwidth = ONE_OF(l->rnd, bandwidths),
		.rounds = g_rand_int_range(l->rnd, 1, 6),
		.accident = once_in(l->rnd, 3) ? g_rand_int_range(l->rnd, 1, ACCIDENTS) : NO_ACCIDENT,
		.accident_after = g_rand_int_range(l->rnd, 0, 500),
		.host = once_in(l->rnd, 2) ? g_rand_int_range(l->rnd, 1, HOST_DOES) : NOTHING,
	};

	/* What does not ask the host has no prescan */
	if (!strcmp(h.mode, "pv") && strstr(h.switches, "prescan"))
		h.mode = "both";
	if (!l->machine->asked)
		h.mode = "pagemap";
	/* QEMU takes no userfaultfd for private mappings of a file */
	if (h.way == POSTCOPY && strstr(h.backing, "share=off"))
		h.backing = "memory-backend-memfd,share=on";
	/* Its daemon writes to the guest's memory, all of it */
	if (l->image && !strstr(h.backing, "share=on"))
		h.backing = VM_RAM_MEMFD;
	if (h.way != TO_MULTIFD && h.way != TO_MULTIFD_FILE && !strcmp(h.zero, "multifd"))
		h.zero = "legacy";
	h.xbzrle &= h.way == TO_SOCKET || h.way == TO_TCP;
	return h;
}

/*
 * Hosts
 */

static char *object_options(const struct hop *h, const char *backing)
{
	return g_strdup_printf("%s%s%s", h->mode, h->switches, strstr(backing, "mem-path") ?
			       ",assume-zero-destination=on" : "");
}

#define DISK_BYTES	(32 * MIB)
#define READ_DISK	"disk /dev/vda 32M"

static GHashTable *daemons;		/* that have the disk of a host: GSubprocess by struct vm */

static struct vm *start_host(struct life *l, const char *name, const char *backing,
			     const struct hop *as_source, bool sanitized, bool incoming)
{
	g_autofree char *options = object_options(as_source, backing);
	struct vm_config cfg = l->cfg;
	GSubprocess *daemon = NULL;
	const char *socket;
	struct vm *vm;

	cfg.name = name;
	cfg.ram = backing;
	cfg.fph_mode = as_source->early ? options : NULL;
	cfg.incoming = incoming;
	cfg.paused = incoming;
	cfg.qemu = sanitized ? sanitized_qemu() : NULL;
	if (l->image) {
		daemon = disk_start(l->image, NULL, &socket);
		cfg.extra = with_disk(cfg.extra, socket);
	}
	vm = start(cfg);
	if (daemon)
		g_hash_table_insert(daemons, vm, daemon);
	return vm;
}

/* It ends, and what it said on stderr is no finding of a sanitizer */
static void end_host(struct life *l, struct vm *vm)
{
	g_autofree char *file = g_strdup_printf("%s/%s-stderr.log", l->logs, vm_name(vm));
	g_autofree char *said = NULL;

	vm_free(vm);
	g_hash_table_remove(daemons, vm);
	ok(g_file_get_contents(file, &said, NULL, E));
	if (strstr(said, "runtime error") || strstr(said, "Sanitizer"))
		fail_msg("%s: %s", file, said);
}

static void add_object(struct life *l)
{
	g_autofree char *options = object_options(&l->hop, l->backing);
	g_autofree char *command = g_strdup_printf("object_add fph-source,id=fph0,mode=%s", options);

	hmp(l->host, command);
}

/* Both have been, or may be, the other side of another migration */
static void set_up(struct vm *vm, const struct hop *h)
{
	bool multifd = h->way == TO_MULTIFD || h->way == TO_MULTIFD_FILE;
	const struct {
		const char *name;
		bool on;
	} capabilities[] = {
		/* What excludes others comes first, to be turned off */
		{ "postcopy-ram", h->way == POSTCOPY },
		{ "xbzrle", h->xbzrle },
		{ "multifd", multifd },
		{ "mapped-ram", h->way == TO_FILE || h->way == TO_MULTIFD_FILE },
		{ "auto-converge", h->throttle },
		{ "return-path", h->return_path && h->way != TO_FILE && h->way != TO_MULTIFD_FILE },
	};

	for (size_t i = 0; i < ARRAY_SIZE(capabilities); i++)
		set_capability(vm, capabilities[i].name, false);
	for (size_t i = 0; i < ARRAY_SIZE(capabilities); i++)
		set_capability(vm, capabilities[i].name, capabilities[i].on);
	ok(vm_run(vm, E, "migrate-set-parameters",
		  "{\"zero-page-detection\":\"%s\",\"downtime-limit\":1,"
		  "\"avail-switchover-bandwidth\":0,\"multifd-channels\":%u}",
		  h->zero, h->channels));
}

/*
 * What the guest does
 */

static void guest_works(struct life *l)
{
	g_auto(GStrv) commands = g_strsplit(l->hop.work, "|", -1);

	if (!l->machine->append)
		return;
	guest(l->host, "stop", "ok stop");
	if (guest_number(l->host, "info", "memavailable_kib") < 160 * 1024)
		guest(l->host, "free", "ok free");
	for (char **c = commands; *c; c++)
		guest(l->host, *c, "ok");
	if (l->image)
		guest(l->host, READ_DISK, "ok disk");
	/* It takes its time; so the balloon may be on its way when the guest travels */
	if (l->machine->balloon)
		set_size(l->host, l->hop.balloon * MIB);
}

/* Pages of a private block that the host has content for, in memory or in swap */
static uint64_t pages_of(struct vm *vm, const char *name)
{
	const uint64_t present_or_swapped = UINT64_C(3) << 62;
	g_autofree char *path = g_strdup_printf("/proc/%d/pagemap", (int)vm_pid(vm));
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	g_autoptr(GPtrArray) blocks = NULL;
	uint64_t entries[512], n = 0;

	check(fd >= 0);
	ok((blocks = vm_ram_blocks(vm, E)) != NULL);
	for (guint i = 0; i < blocks->len; i++) {
		const struct vm_block *b = blocks->pdata[i];

		for (uint64_t at = 0; !strcmp(b->name, name) && at < b->used;
		     at += ARRAY_SIZE(entries) * PAGE) {
			check_int(pread(fd, entries, sizeof(entries), (b->hva + at) / PAGE * 8),
				  sizeof(entries));
			for (size_t k = 0; k < ARRAY_SIZE(entries); k++)
				n += (entries[k] & present_or_swapped) != 0;
		}
	}
	close(fd);
	return n;
}

static bool plugs_dimm(const struct life *l)
{
	return l->machine->devices == slots && !l->plugged && l->hop.plug;
}

static void plug_dimm(struct life *l)
{
	bool online = false;

	if (!plugs_dimm(l))
		return;
	ok(vm_run(l->host, E, "object-add",
		  "{\"qom-type\":\"memory-backend-ram\",\"id\":\"" DIMM_BLOCK "\",\"size\":%" PRIu64 "}",
		  DIMM_BYTES));
	ok(vm_run(l->host, E, "device_add",
		  "{\"driver\":\"pc-dimm\",\"id\":\"dimm0\",\"memdev\":\"" DIMM_BLOCK "\"}"));
	/* The guest's kernel has to come to know it first */
	until (online) {
		GError *error = NULL;
		g_autofree char *answer = vm_guest_command(l->host, MIGRATE_MS, &error, DIMM_ONLINE);

		online = answer != NULL;
		g_clear_error(&error);
	}
	guest(l->host, "fill 32M", "ok fill");
	/* What can be moved goes there first */
	check(pages_of(l->host, DIMM_BLOCK) >= DIMM_USED / 2 / PAGE);
	l->plugged = true;
	l->cfg.extra = slots_dimm;
	sum.dimms++;
}

/*
 * What the host does with the memory of both
 */

/* Why memory cannot be paged out, unless it is a file's; NULL: it can */
static const char *no_swap;

/*
 * Pages that the kernel wrote to swap so far, for whatever process, and that it read.
 * Those of zeroes are counted by themselves, and only by newer kernels.
 */
static void swapped_so_far(uint64_t *out, uint64_t *in)
{
	*out = vmstat("pswpout") + vmstat("swpout_zero");
	*in = vmstat("pswpin") + vmstat("swpin_zero");
}

struct meddler {
	enum host_does what;
	uint64_t out, in;		/* pages swapped, when it began */
	unsigned int rounds;
	GArray *memory[2];		/* of struct iovec */
	int pidfds[2];
	gint stop;
	GThread *thread;
};

static bool meddle_once(struct meddler *m)
{
	static const int advices[] = {
		[COLD] = MADV_COLD, [PAGES_OUT] = MADV_PAGEOUT, [COLLAPSES] = MADV_COLLAPSE,
	};
	int advice = advices[m->what];

	if (m->what == COMPACTS)
		return compact_memory();
	/* Out, and in again */
	if (m->what == PAGES_OUT && m->rounds++ % 2)
		advice = MADV_WILLNEED;
	for (int i = 0; i < 2; i++)
		for (guint k = 0; k < m->memory[i]->len; k++)
			/* Some kinds of memory it is refused for, and one side may have ended */
			syscall(SYS_process_madvise, m->pidfds[i],
				&g_array_index(m->memory[i], struct iovec, k), 1, advice, 0);
	return true;
}

static gpointer meddle(gpointer opaque)
{
	struct meddler *m = opaque;

	/* Once at least, however fast the guest travels */
	while (meddle_once(m) && !g_atomic_int_get(&m->stop))
		g_usleep(20000);
	return NULL;
}

static void start_meddler(struct meddler *m, enum host_does what, struct vm *src, struct vm *dst)
{
	struct vm *const sides[] = { src, dst };

	*m = (struct meddler){ .what = what };
	if (what == NOTHING)
		return;
	swapped_so_far(&m->out, &m->in);
	for (int i = 0; i < 2; i++) {
		g_autoptr(GPtrArray) blocks = NULL;

		ok((blocks = vm_ram_blocks(sides[i], E)) != NULL);
		m->memory[i] = g_array_new(false, false, sizeof(struct iovec));
		for (guint k = 0; k < blocks->len; k++) {
			const struct vm_block *b = blocks->pdata[k];
			struct iovec memory = { (void *)(uintptr_t)b->hva, b->used };

			g_array_append_val(m->memory[i], memory);
		}
		m->pidfds[i] = syscall(SYS_pidfd_open, vm_pid(sides[i]), 0);
		check(m->pidfds[i] >= 0);
	}
	m->thread = g_thread_new("meddler", meddle, m);
}

static void stop_meddler(const struct life *l, struct meddler *m)
{
	uint64_t out, in;

	if (m->what == NOTHING)
		return;
	g_atomic_int_set(&m->stop, 1);
	g_thread_join(m->thread);
	if (m->what == PAGES_OUT) {
		swapped_so_far(&out, &in);
		printf("      swapped out %" PRIu64 " pages, in %" PRIu64 "\n", out - m->out, in - m->in);
		/* Memory that a daemon maps as well stays where it is */
		if (!no_swap && !l->image)
			check(out > m->out);
		sum.swapped_out += out - m->out;
		sum.swapped_in += in - m->in;
	}
	for (int i = 0; i < 2; i++) {
		g_array_unref(m->memory[i]);
		close(m->pidfds[i]);
	}
}

/*
 * One hop
 */

static void have_accident(struct life *l, const char *name)
{
	struct vm_migrate_opts slow = { .max_bandwidth = 4 * MIB, .downtime_limit_ms = 1 };
	struct hop *h = &l->hop;
	struct vm_migration m = { 0 };
	struct vm *dst;

	if (h->accident == NO_ACCIDENT)
		return;
	dst = start_host(l, name, h->backing, &l->next, h->sanitized, true);
	set_up(l->host, h);
	set_up(dst, h);
	if (h->way == TO_TCP)
		slow.address = "127.0.0.1";
	else if (h->way == TO_FILE || h->way == TO_MULTIFD_FILE)
		slow.file = temp_file("", 0);
	ok(vm_migrate_start(l->host, dst, &slow, &m, E));
	if (h->accident == CANCELLED || slow.file) {
		g_usleep(h->accident_after * 1000);
		ok(vm_migrate_cancel(l->host, VM_QMP_MS, E));
	} else {
		until (m.normal >= h->accident_after)
			ok(vm_migrate_poll(l->host, &m, E));
		check_int(kill(vm_pid(dst), SIGKILL), 0);
		wait_for_status(l->host, "failed", &m);
	}
	end_host(l, dst);
	until (is_running(l->host))
		;
	if (slow.file)
		unlink(slow.file);
	vm_migration_clear(&m);
}

static void check_hop(const struct life *l, const struct vm_migration *m)
{
	bool dry = strstr(l->hop.switches, "dry-run");

	check_str(m->status, "completed");
	check(m->fph.present);
	check_sums(&m->fph);
	check_int(m->fph.violations, 0);
	if (strcmp(m->fph.state, "inactive")) {
		check_str(m->fph.state, "ended");
	} else {
		check_int(m->fph.skipped, 0);
		sum.inactive++;
	}
	if (dry) {
		sum.dry++;
		return;
	}
	sum.skipped += m->fph.skipped;
	sum.resent += m->fph.resent;
	sum.verified += m->fph.verified;
	sum.zero_content += m->fph.zero_content;
}

/* Return: pages that differ, and are free */
static uint64_t compare(const struct life *l, struct vm *dst, const struct vm_migration *m)
{
	bool asked = m->fph.hints.present && !strstr(l->hop.switches, "dry-run");
	uint64_t pages = migrated_pages(&m->fph), differ, discarded;

	/* What the balloon tells QEMU itself, QEMU does not tell us: the guest has to look */
	if (l->machine->hints_itself && !m->fph.hints.present) {
		sum.uncompared += pages;
		return 0;
	}
	sum.compared += pages;
	if (l->machine->balloon) {
		differ = check_ram_equal_or_discarded(l->host, dst, asked, &discarded);
		sum.discarded += discarded;
		return differ;
	}
	if (asked)
		return check_ram_equal_or_free(l->host, dst);
	check_ram_equal(l->host, dst);
	return 0;
}

static unsigned int rounds_wanted;

static bool enough_rounds(const struct vm_migration *m)
{
	return m->sync_count >= rounds_wanted;
}

/* What is under way when the guest stops, its disk's daemon forgets: vhost-user-test.c */
static void let_disk_go(struct life *l, struct vm_migration *m)
{
	rounds_wanted = l->hop.rounds;
	hold_until(l->host, l->hop.bandwidth, enough_rounds, m);
	guest(l->host, "stop disk", "ok stop");
}

static void travel(struct life *l, struct vm *dst, struct vm_migration *m)
{
	const struct hop *h = &l->hop;
	struct vm_migrate_opts opts = {
		.max_bandwidth = l->image ? MIB : h->bandwidth,
		.downtime_limit_ms = 1,
		.multifd = h->way == TO_MULTIFD || h->way == TO_MULTIFD_FILE ? h->channels : 0,
		.address = h->way == TO_TCP ? "127.0.0.1" : NULL,
		.file = h->way == TO_FILE || h->way == TO_MULTIFD_FILE ? temp_file("", 0) : NULL,
		.timeout_ms = 4 * MIGRATE_MS,
	};
	struct meddler meddler;

	set_up(l->host, h);
	set_up(dst, h);
	start_meddler(&meddler, h->host, l->host, dst);
	ok(vm_migrate_start(l->host, dst, &opts, m, E));
	if (l->image)
		let_disk_go(l, m);
	/* A guest that does nothing is there before */
	until (m->status && (!strcmp(m->status, "completed") || m->sync_count >= h->rounds))
		ok(vm_migrate_poll(l->host, m, E));
	if (strcmp(m->status, "completed")) {
		if (h->way == POSTCOPY)
			ok(vm_run(l->host, E, "migrate-start-postcopy", NULL));
		let_go(l->host);
	}
	ok(vm_migrate_wait(l->host, dst, &opts, m, E));
	stop_meddler(l, &meddler);
	if (opts.file)
		unlink(opts.file);
}

static void take_hop(struct life *l, unsigned int n)
{
	g_autofree char *name = g_strdup_printf("hop-%u", n + 1);
	g_autofree char *lost = g_strdup_printf("hop-%u-lost", n + 1);
	gint64 began = g_get_monotonic_time();
	struct vm_migration m = { 0 };
	struct hop *h = &l->hop;
	uint64_t differ;
	struct vm *dst;

	l->next = draw_hop(l);
	printf("%4u  life %u hop %u, %s%s%s: %s%s, %s to %s by %s%s%s%s; %s\n", sum.hops + 1, l->number,
	       n + 1, l->machine->name, plugs_dimm(l) ? " plugged in" : "",
	       l->image ? " and a disk by vhost-user" : "", h->mode,
	       h->switches, l->backing, h->backing,
	       ways[h->way], h->sanitized ? ", sanitized" : "", accidents[h->accident],
	       host_doing[h->host], h->work);
	fflush(stdout);
	if (!h->early)
		add_object(l);
	guest_works(l);
	have_accident(l, lost);
	plug_dimm(l);
	dst = start_host(l, name, h->backing, &l->next, h->sanitized, true);
	travel(l, dst, &m);
	check_hop(l, &m);
	differ = compare(l, dst, &m);
	if (!h->early)
		delete_object(l->host, "fph0");
	end_host(l, l->host);
	l->host = dst;
	ok(vm_cont(dst, E));
	if (l->machine->append)
		guest_check(dst);
	else
		ft_wait_for(dst, ft_state(dst, FT_ST_COUNT) + 100);

	sum.hops++;
	sum.disks += l->image != NULL;
	sum.ways[h->way]++;
	sum.accidents[h->accident]++;
	sum.sanitized += h->sanitized;
	sum.free_differ += differ;
	printf("      %" PRIu64 " skipped, %" PRIu64 " resent, %" PRIu64 " syncs, %" PRIu64
	       " free ones differ, %.1f s\n", m.fph.skipped, m.fph.resent, m.sync_count, differ,
	       (g_get_monotonic_time() - began) / 1e6);
	fflush(stdout);
	l->backing = h->backing;
	l->hop = l->next;
	vm_migration_clear(&m);
}

/*
 * Lives
 */

static guint seed, first_life, hops = 10;
static double hours;
static char *folder;
static struct life life;

static bool kvm_works(void)
{
	return access("/dev/kvm", R_OK | W_OK) == 0;
}

/* Lots of its own, so that guests without are what they were before there were disks */
static bool draw_disk(const struct life *l)
{
	const guint32 seeds[] = { l->seed, l->number, 1 };
	GRand *rnd = g_rand_new_with_seed_array(seeds, ARRAY_SIZE(seeds));
	bool disk = once_in(rnd, 3);

	g_rand_free(rnd);
	return disk && l->machine->append && !l->machine->more_memory && have_disks();
}

static void begin_life(struct life *l)
{
	const guint32 seeds[] = { l->seed, l->number };
	const char *append;

	l->rnd = g_rand_new_with_seed_array(seeds, ARRAY_SIZE(seeds));
	l->machine = &machines[(l->number + l->seed) % ARRAY_SIZE(machines)];
	if (!l->machine->append && !kvm_works())
		l->machine = &machines[0];
	l->logs = g_intern_string(g_strdup_printf("%s/soak-%u-%u", folder, l->seed, l->number));
	check_int(g_mkdir_with_parents(l->logs, 0700), 0);
	append = ONE_OF(l->rnd, kernel_words);
	/* With and without memory that comes by 2 MiB */
	check_int(prctl(PR_SET_THP_DISABLE, g_rand_boolean(l->rnd), 0, 0, 0), 0);
	l->cfg = (struct vm_config){
		.memory = 512 * MIB,
		.smp = g_rand_int_range(l->rnd, 1, 3),
		.extra = l->machine->devices,
		.logs = l->logs,
	};
	l->image = draw_disk(l) ? disk_image(DISK_BYTES) : NULL;
	if (l->machine->append) {
		l->cfg.append = g_intern_string(g_strconcat(l->machine->append,
				l->image ? DISK_APPEND : "", append, NULL));
	} else {
		l->cfg.accel = "kvm";
		l->cfg.smp = 1;
		l->cfg.bios = patch_firsttouch(400000, 0);
	}
	l->plugged = false;
	l->backing = ONE_OF(l->rnd, backings);
	if (l->image && !strstr(l->backing, "share=on"))
		l->backing = VM_RAM_MEMFD;
	l->hop = draw_hop(l);
	l->host = start_host(l, "hop-0", l->backing, &l->hop, false, false);
	if (l->machine->append) {
		boot(l->host);
		guest(l->host, "fill 16M dense", "ok fill");
	} else {
		ft_wait_for(l->host, 5000);
	}
}

static void remove_logs(const char *logs)
{
	GDir *dir = g_dir_open(logs, 0, NULL);
	const char *name;

	while (dir && (name = g_dir_read_name(dir))) {
		g_autofree char *path = g_build_filename(logs, name, NULL);

		unlink(path);
	}
	if (dir)
		g_dir_close(dir);
	rmdir(logs);
}

static void end_life(struct life *l)
{
	end_host(l, l->host);
	if (l->image)
		unlink(l->image);
	g_rand_free(l->rnd);
	remove_logs(l->logs);
	*l = (struct life){ .seed = l->seed, .number = l->number + 1 };
	sum.lives++;
}

static void print_sum(void)
{
	printf("seed %u: %u hops of %u guests; %u with a disk by vhost-user, %u DIMMs plugged in, "
	       "%u to a sanitized QEMU, %u dry runs, %u inactive; pages swapped: %" PRIu64 " out, %"
	       PRIu64 " in\n", seed, sum.hops, sum.lives, sum.disks, sum.dimms, sum.sanitized,
	       sum.dry, sum.inactive, sum.swapped_out, sum.swapped_in);
	for (int i = 0; i < WAYS; i++)
		printf("%s %u%s", ways[i], sum.ways[i], i < WAYS - 1 ? ", " : "; ");
	printf("cancelled %u, dead destinations %u\n", sum.accidents[CANCELLED],
	       sum.accidents[DESTINATION_DIES]);
	printf("pages: %" PRIu64 " compared, 0 differ but for %" PRIu64 " that were free and %" PRIu64
	       " that were discarded after they were sent; %" PRIu64 " only by the guest itself; %"
	       PRIu64 " left out, %" PRIu64 " resent, %" PRIu64 " zero by content, %" PRIu64 " verified, 0 violations\n", sum.compared,
	       sum.free_differ, sum.discarded, sum.uncompared, sum.skipped, sum.resent, sum.zero_content,
	       sum.verified);
}

static void test_soak(void **state)
{
	gint64 end = hours ? g_get_monotonic_time() + (gint64)(hours * 3600 * G_USEC_PER_SEC) :
			     G_MAXINT64;
	bool more = true;

	daemons = g_hash_table_new_full(NULL, NULL, NULL, (GDestroyNotify)disk_end);
	life = (struct life){ .seed = seed, .number = first_life };
	while (more) {
		begin_life(&life);
		for (unsigned int n = 0; n < LIFE && more; n++) {
			take_hop(&life, n);
			more = sum.hops < hops && g_get_monotonic_time() < end;
		}
		end_life(&life);
	}
	print_sum();
	/* A source that does nothing loses nothing */
	check(sum.skipped > 0 || sum.hops == sum.dry);
	check(sum.inactive <= sum.hops / 2);
}

static void say_how(void)
{
	if (life.logs)
		fprintf(stderr, "failed in life %u, after %u hops; logs: %s\nto repeat it: "
			"tests/soak %u --seed %u --life %u\n", life.number, sum.hops, life.logs,
			LIFE, seed, life.number);
}

int main(int argc, char **argv)
{
	int seed_wanted = -1, hops_wanted = hops, life_wanted = 0;
	const GOptionEntry options[] = {
		{ "seed", 's', 0, G_OPTION_ARG_INT, &seed_wanted, "the lots; default: others each time", "N" },
		{ "life", 'l', 0, G_OPTION_ARG_INT, &life_wanted, "begin with this guest", "N" },
		{ "hours", 't', 0, G_OPTION_ARG_DOUBLE, &hours, "no hop begins later", "H" },
		{ "logs", 'o', 0, G_OPTION_ARG_FILENAME, &folder, "keep those of a failure here", "DIR" },
		{ NULL },
	};
	g_autoptr(GOptionContext) context = g_option_context_new("[HOPS]");
	char *const soak[] = { argv[0], "soak", NULL };
	struct fph_tests t = { 0 };
	GError *error = NULL;
	int status;

	g_option_context_add_main_entries(context, options, NULL);
	if (!g_option_context_parse(context, &argc, &argv, &error)) {
		fprintf(stderr, "soak: %s\n", error->message);
		return 2;
	}
	if (argc > 1)
		hops_wanted = atoi(argv[1]);
	if (argc > 2 || hops_wanted < 1 || life_wanted < 0 || hours < 0) {
		fprintf(stderr, "soak: HOPS is a number above 0; try --help\n");
		return 2;
	}
	hops = hops_wanted;
	first_life = life_wanted;
	seed = seed_wanted >= 0 ? (guint)seed_wanted : g_random_int() & 0xffff;
	if (!folder)
		folder = g_strdup(g_get_tmp_dir());
	no_swap = swap_begin(SWAP);
	if (no_swap) {
		fprintf(stderr, "soak: nothing of guests is paged out, but of files: %s\n", no_swap);
		if (fph_test_skip_forbidden())
			return EXIT_FAILURE;
	}
	fph_test_add(&t, "soak", test_soak, NULL);
	status = harness_main(2, (char **)soak, &t, NULL);
	if (status == EXIT_FAILURE)
		say_how();
	return status;
}

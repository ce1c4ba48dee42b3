/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "harness.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <linux/virtio_ring.h>
#include <gio/gunixsocketaddress.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fph/scan.h"
#include "io.h"
#include "qmp.h"

#define BOOT_MS		180000
#define GUEST_MS	120000
/* A kernel that looks for mistakes takes minutes, beside other work */
#define HIBERNATE_MS	300000

const char *qemu;
static char *kernel;
static char *initrd;
const char *firsttouch;

const char *const fph_device[] = { "-device", "virtio-fph-pci,id=pv0", NULL };

const char *const fph_device_bitmap[] = {
	"-device", "virtio-fph-pci,id=pv0,encoding=bitmap", NULL,
};

const char *const balloon_device[] = {
	"-object", "iothread,id=io0",
	"-device", "virtio-balloon-pci,id=b0,free-page-hint=on,iothread=io0", NULL,
};

const struct vm_config linux_guest = {
	.name = "source",
	.memory = 512 * MIB,
	.append = VM_APPEND,
	.fph_mode = "pagemap",
};

const struct vm_config tiny_guest = {
	.name = "source",
	.memory = 128 * MIB,
	.fph_mode = "pagemap",
};

/* Files that must not stay, however the test ends */
static GPtrArray *temp_files;

static void remove_temp_files(void)
{
	for (guint i = 0; temp_files && i < temp_files->len; i++)
		unlink(temp_files->pdata[i]);
}

const char *temp_file(const char *content, gssize len)
{
	GError *error = NULL;
	char *path;

	close(g_file_open_tmp("fph-test-XXXXXX", &path, &error));
	if (error)
		fail_msg("temporary file: %s", error->message);
	if (!temp_files) {
		temp_files = g_ptr_array_new_with_free_func(g_free);
		atexit(remove_temp_files);
	}
	g_ptr_array_add(temp_files, path);
	ok(g_file_set_contents(path, content, len, E));
	return path;
}

void until_pause(gint64 deadline, const char *condition, const char *file, int line)
{
	if (g_get_monotonic_time() > deadline) {
		print_message("not so in time:\n");
		_assert_true(0, condition, file, line);
	}
	g_usleep(5000);
}

/* What a kernel says of its own mistakes, made of tests/kernel/complaints */
static const char *const kernel_complaints[] = {
#include "kernel-complaints.h"
	NULL,
};

static bool complained;

/* A complaint is followed by where it came from. */
#define COMPLAINT_LINES	40

static void read_console(struct vm *vm, const char *console)
{
	g_auto(GStrv) lines = g_strsplit_set(console, "\r\n", -1);
	unsigned int more = 0;

	for (char **l = lines; *l; l++) {
		if (more && **l) {
			fprintf(stderr, "  %s\n", *l);
			more--;
		}
		/* A process that is being ended finds no page, and that is no mistake. */
		if (strstr(*l, "fph-guest: page allocation failure"))
			continue;
		for (const char *const *word = kernel_complaints; *word; word++) {
			if (!strstr(*l, *word))
				continue;
			fprintf(stderr, "%s: the guest's kernel says: %s\n", vm_name(vm), *l);
			if (!complained)
				more = COMPLAINT_LINES;
			complained = true;
		}
	}
}

struct vm *start(struct vm_config cfg)
{
	GError *error = NULL;
	struct vm *vm;

	if (!cfg.qemu)
		cfg.qemu = qemu;
	vm_at_end = read_console;
	/* Its warnings are on the console, too */
	if (cfg.append) {
		g_autofree char *louder = g_strconcat(cfg.append, " loglevel=5", NULL);

		cfg.append = g_intern_string(louder);
	}
	if (cfg.append && !cfg.kernel) {
		cfg.kernel = kernel;
		cfg.initrd = initrd;
	} else if (!cfg.append && !cfg.bios) {
		cfg.bios = firsttouch;
	}
	vm = vm_start(&cfg, &error);
	if (!vm)
		fail_msg("cannot start the %s: %s", cfg.name, error->message);
	return vm;
}

struct vm *start_destination(struct vm_config cfg)
{
	cfg.name = "destination";
	cfg.fph_mode = NULL;
	cfg.incoming = true;
	cfg.paused = true;
	return start(cfg);
}

void boot(struct vm *vm)
{
	ok(vm_guest_wait_ready(vm, BOOT_MS, E));
}

void guest(struct vm *vm, const char *command, const char *expect)
{
	GError *error = NULL;
	g_autofree char *answer = vm_guest_command(vm, GUEST_MS, &error, "%s", command);

	if (!answer)
		fail_msg("guest: %s: %s", command, error->message);
	if (!g_str_has_prefix(answer, expect))
		fail_msg("guest: %s: \"%s\" instead of \"%s\"", command, answer, expect);
}

void guest_check(struct vm *vm)
{
	GError *error = NULL;
	g_autofree char *answer = vm_guest_command(vm, GUEST_MS, &error, "check");
	unsigned long pages, bad;

	if (!answer)
		fail_msg("guest: check: %s", error->message);
	check_int(sscanf(answer, "ok check pages=%lu bad=%lu", &pages, &bad), 2);
	print_message("guest: %s\n", answer);
	check(pages > 0);
	check_int(bad, 0);
}

char *guest_word(struct vm *vm, const char *command, const char *name)
{
	g_autofree char *pattern = g_strdup_printf(" %s=", name);
	g_autofree char *answer = NULL;
	const char *p;

	ok((answer = vm_guest_command(vm, GUEST_MS, E, "%s", command)) != NULL);
	p = strstr(answer, pattern);
	if (!p)
		fail_msg("guest: %s: \"%s\" has no %s", command, answer, name);
	p += strlen(pattern);
	return g_strndup(p, strcspn(p, " "));
}

uint64_t guest_number(struct vm *vm, const char *command, const char *name)
{
	g_autofree char *text = guest_word(vm, command, name);

	return g_ascii_strtoull(text, NULL, 10);
}

void delete_object(struct vm *vm, const char *id)
{
	GError *error = NULL;

	until (vm_run(vm, &error, "object-del", "{\"id\":\"%s\"}", id)) {
		if (!strstr(error->message, "in use"))
			fail_msg("object-del: %s", error->message);
		g_clear_error(&error);
	}
}

static void wait_event_within(struct vm *vm, const char *name, int ms)
{
	JsonObject *event;

	ok((event = qmp_event(vm_qmp(vm), name, ms, E)));
	json_object_unref(event);
}

void wait_event(struct vm *vm, const char *name)
{
	wait_event_within(vm, name, MIGRATE_MS);
}

void guest_suspend(struct vm *vm)
{
	guest(vm, "suspend", "ok suspend");
	wait_event(vm, "SUSPEND");
}

void guest_wake_up(struct vm *vm)
{
	g_autofree char *answer = NULL;
	GError *error = NULL;

	ok(vm_run(vm, E, "system_wakeup", NULL));
	wait_event(vm, "WAKEUP");
	/* The serial line is awake after all devices are, and forgets what came before */
	until (answer) {
		answer = vm_guest_command(vm, 1000, &error, "ping");
		g_clear_error(&error);
	}
}

char *hibernation_drive(uint64_t bytes)
{
	const char *path = temp_file("", 0);

	check_int(truncate(path, bytes), 0);
	return g_strdup_printf("if=none,id=disk0,format=raw,file=%s", path);
}

char *snapshot_drive(void)
{
	g_autofree char *dir = g_path_get_dirname(qemu);
	g_autofree char *img = g_build_filename(dir, "qemu-img", NULL);
	const char *path = temp_file("", 0);
	g_autofree char *create = NULL;
	int status;

	if (access(img, X_OK) < 0)
		fph_test_skip_all("no qemu-img beside %s", qemu);
	create = g_strdup_printf("'%s' create -q -f qcow2 '%s' 1G", img, path);
	ok(g_spawn_command_line_sync(create, NULL, NULL, &status, E));
	check_int(status, 0);
	return g_strdup_printf("if=none,id=d0,format=qcow2,file=%s", path);
}

void hmp(struct vm *vm, const char *command)
{
	GError *error = NULL;
	g_autofree char *answer = vm_hmp(vm, &error, command);

	if (!answer || *answer)
		fail_msg("%s: %s", command, answer ? answer : error->message);
}

void guest_hibernate(struct vm *vm)
{
	guest(vm, "suspend " GUEST_DISK, "ok suspend");
	wait_event_within(vm, "SHUTDOWN", HIBERNATE_MS);
}

void guest_resume(struct vm *vm)
{
	g_autofree char *answer = NULL;
	GError *error = NULL;

	guest(vm, "resume " GUEST_DISK, "ok resume");
	/* Whoever answers in this kernel has nothing to check */
	until_within (HIBERNATE_MS, answer && !g_str_has_prefix(answer, "ok check pages=0 ")) {
		g_free(answer);
		answer = vm_guest_command(vm, 1000, &error, "check");
		g_clear_error(&error);
	}
}

void set_size(struct vm *vm, uint64_t size)
{
	ok(vm_run(vm, E, "balloon", "{\"value\":%" PRIu64 "}", size));
}

uint64_t size_of(struct vm *vm)
{
	JsonNode *node;
	uint64_t bytes;

	ok((node = vm_command(vm, E, "query-balloon", NULL)));
	bytes = json_object_get_int_member(json_node_get_object(node), "actual");
	json_node_unref(node);
	return bytes;
}

void wait_for_size(struct vm *vm, uint64_t size)
{
	until (size_of(vm) == size)
		;
}

void resize(struct vm *vm, uint64_t size)
{
	set_size(vm, size);
	wait_for_size(vm, size);
}

void wait_for_balloon(struct vm *vm, const char *state)
{
	g_autofree char *text = guest_word(vm, "balloon", "state");

	until (!strcmp(text, state)) {
		g_free(text);
		text = guest_word(vm, "balloon", "state");
	}
}

void unload_beside_oom(struct vm *vm, uint64_t size, unsigned int rounds)
{
	uint64_t full = size_of(vm);
	g_autofree char *hunger = NULL;

	/* Some of it comes and goes, and the balloon takes it as soon as it is there */
	hunger = g_strdup_printf("hunger %" PRIu64 "K",
				 guest_number(vm, "info", "memavailable_kib") - 40 * 1024);
	set_size(vm, size);
	guest(vm, hunger, "ok hunger");
	for (unsigned int i = 0; i < rounds; i++) {
		/*
		 * The balloon gives memory back, and then all of it. Before that, whoever
		 * was ended takes memory again, page by page, in minutes if the kernel
		 * checks each and the machine is busy.
		 */
		until_within (10 * MIGRATE_MS, guest_number(vm, "balloon", "oom") > 0)
			;
		guest(vm, "mod unload virtio_fph", "ok mod");
		check_int(size_of(vm), full);
		guest(vm, "mod load virtio_fph", "ok mod");
	}
	guest(vm, "stop", "ok stop");
	print_message("%" PRIu64 " that wanted memory were ended\n",
		      guest_number(vm, "info", "hunger_killed"));
}

struct ring find_ring(struct vm *vm, unsigned int queue)
{
	struct ring r;
	JsonObject *status;
	JsonNode *node;

	ok((node = vm_command(vm, E, "x-query-virtio-queue-status",
			      "{\"path\":\"/machine/peripheral/pv0/virtio-backend\",\"queue\":%u}",
			      queue)));
	status = json_node_get_object(node);
	r.used = json_object_get_int_member(status, "vring-used");
	r.num = json_object_get_int_member(status, "vring-num");
	json_node_unref(node);
	check(r.used > 0 && r.num > 0);
	return r;
}

void mute_queues(struct vm *vm, unsigned int queues, bool mute)
{
	uint16_t flags = htole16(mute ? VRING_USED_F_NO_NOTIFY : 0);
	int fd = open_memfd(vm);

	ok(vm_stop(vm, E));
	for (unsigned int queue = 0; queue < queues; queue++)
		check_int(pwrite(fd, &flags, sizeof(flags), find_ring(vm, queue).used +
				 offsetof(struct vring_used, flags)), sizeof(flags));
	ok(vm_cont(vm, E));
	close(fd);
}

/* Pages that are left out, as x-query-fph-pages has them */
struct page_range {
	const char *block;
	uint64_t first, count;
	bool guest_only;
};

/* Pages that differ, and may differ: those the guest gave up, and no others */
struct differences {
	JsonNode *answer;	/* owns the names below */
	GArray *skipped;	/* of struct page_range, sorted; NULL: none may differ */
	uint64_t free;		/* differ, but the guest said that they are free */
	struct vm *discarding;	/* NULL: no page that it has not got may differ */
	struct fph_scanner *scanner;	/* of its memory */
	uint64_t discarded;	/* differ, but the source has nothing there */
	uint64_t bad;
};

static gint by_place(gconstpointer x, gconstpointer y)
{
	const struct page_range *a = x, *b = y;
	int order = strcmp(a->block, b->block);

	return order ? order : a->first < b->first ? -1 : a->first > b->first;
}

static void read_page_ranges(struct vm *vm, struct differences *d)
{
	GError *error = NULL;
	JsonArray *list;

	d->answer = vm_command(vm, &error, "x-query-fph-pages", NULL);
	if (!d->answer)
		fail_msg("x-query-fph-pages: %s", error->message);
	d->skipped = g_array_new(false, false, sizeof(struct page_range));
	list = json_node_get_array(d->answer);
	for (guint i = 0; i < json_array_get_length(list); i++) {
		JsonObject *o = json_array_get_object_element(list, i);
		struct page_range r = {
			.block = json_object_get_string_member(o, "block"),
			.first = json_object_get_int_member(o, "first"),
			.count = json_object_get_int_member(o, "count"),
			.guest_only = json_object_get_boolean_member(o, "guest") &&
				      !json_object_get_boolean_member(o, "host"),
		};

		g_array_append_val(d->skipped, r);
	}
	g_array_sort(d->skipped, by_place);
}

/* Is the page left out now because the guest, and nobody else, gave it up? */
static bool is_free(GArray *ranges, const char *block, uint64_t page)
{
	struct page_range wanted = { .block = block, .first = page };
	guint low = 0, high = ranges ? ranges->len : 0;

	/* The last range that does not begin behind the page */
	while (low < high) {
		guint middle = low + (high - low) / 2;

		if (by_place(&g_array_index(ranges, struct page_range, middle), &wanted) <= 0)
			low = middle + 1;
		else
			high = middle;
	}
	if (!low)
		return false;
	wanted = g_array_index(ranges, struct page_range, low - 1);
	return wanted.guest_only && !strcmp(wanted.block, block) &&
	       page - wanted.first < wanted.count;
}

static int note_page(void *opaque, uint64_t start, uint64_t len, uint32_t page)
{
	uint32_t *pages = opaque;

	*pages |= page;
	return 0;
}

/*
 * Has the host content for it? That it was read gave private memory the zero page, or
 * a page of the file that it maps; shared memory is read through the file.
 */
static bool has_page(struct differences *d, const struct vm_block *block, uint64_t offset)
{
	const uint64_t of_file = UINT64_C(1) << 61;
	struct fph_region r = {
		.sz = sizeof(r), .host = (void *)(uintptr_t)block->hva, .used = block->used,
		.max = block->used, .page_size = PAGE, .fd = -1,
	};
	g_autofree char *path = NULL;
	uint64_t begin, entry;
	uint32_t pages = 0;
	int fd = vm_ram_open_shared(d->discarding, block, &begin);

	if (fd >= 0) {
		bool has = lseek(fd, begin + offset, SEEK_DATA) == (off_t)(begin + offset);

		close(fd);
		return has;
	}
	path = g_strdup_printf("/proc/%d/pagemap", (int)vm_pid(d->discarding));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	check(fd >= 0);
	check_int(pread(fd, &entry, sizeof(entry), (block->hva + offset) / PAGE * sizeof(entry)),
		  sizeof(entry));
	close(fd);
	check_int(fph_map_region(d->scanner, &r, offset, PAGE, 0, note_page, &pages, NULL), 0);
	return !(entry & of_file) && pages && !(pages & FPH_PAGE_ZERO_PAGE);
}

static void see_difference(void *opaque, const struct vm_block *block, guint64 offset,
			   const guint8 *a, const guint8 *b)
{
	struct differences *d = opaque;
	size_t first = PAGE, last = 0, n = 0;

	if (is_free(d->skipped, block->name, offset / PAGE)) {
		d->free++;
		return;
	}
	if (d->discarding && !a[0] && !memcmp(a, a + 1, PAGE - 1) &&
	    !has_page(d, block, offset)) {
		d->discarded++;
		return;
	}
	if (++d->bad > 10)
		return;
	for (size_t i = 0; i < PAGE; i++) {
		if (a[i] == b[i])
			continue;
		first = MIN(first, i);
		last = i;
		n++;
	}
	print_message("%s differs at %#" PRIx64 ": source %02x, destination %02x; %zu bytes of "
		      "this page do, the last at %#zx\n", block->name, offset + first, a[first],
		      b[first], n, last);
}

static void compare_ram(struct vm *src, struct vm *dst, struct differences *d)
{
	GError *error = NULL;

	if (vm_ram_compare(src, dst, see_difference, d, NULL, &error) < 0)
		fail_msg("comparing RAM: %s", error->message);
	print_message("RAM compared: %" PRIu64 " pages differ, and %" PRIu64
		      " that are free in the guest\n", d->bad, d->free);
	check_int(d->bad, 0);
}

void check_ram_equal(struct vm *src, struct vm *dst)
{
	struct differences d = { 0 };

	compare_ram(src, dst, &d);
}

static uint64_t check_or_free(struct vm *src, struct vm *dst, struct differences *d)
{
	read_page_ranges(src, d);
	compare_ram(src, dst, d);
	g_array_unref(d->skipped);
	json_node_unref(d->answer);
	return d->free;
}

uint64_t check_ram_equal_or_free(struct vm *src, struct vm *dst)
{
	struct differences d = { 0 };

	return check_or_free(src, dst, &d);
}

uint64_t check_ram_equal_or_discarded(struct vm *src, struct vm *dst, bool or_free,
				      uint64_t *discarded)
{
	struct fph_scanner_opts opts = { .sz = sizeof(opts), .pid = vm_pid(src) };
	struct differences d = { .discarding = src };

	check_int(fph_scanner_open_with(&d.scanner, &opts), 0);
	if (or_free)
		check_or_free(src, dst, &d);
	else
		compare_ram(src, dst, &d);
	fph_scanner_close(d.scanner);
	*discarded = d.discarded;
	return d.free;
}

struct vm_config busy_config(const char *mode, const char *ram)
{
	bool asked = !g_str_has_prefix(mode, "pagemap");
	struct vm_config cfg = asked ? linux_guest : tiny_guest;

	cfg.fph_mode = mode;
	cfg.ram = ram;
	if (asked) {
		cfg.extra = fph_device;
		cfg.append = FPH_APPEND;
	} else {
		cfg.bios = patch_firsttouch(20000, 0);
	}
	return cfg;
}

struct vm *start_busy(const struct vm_config *cfg)
{
	struct vm *vm = start(*cfg);

	if (!cfg->append) {
		ft_wait_for(vm, 5000);
		return vm;
	}
	boot(vm);
	guest(vm, "fill 128M dense", "ok fill");
	guest(vm, "free", "ok free");
	guest(vm, "fill 16M", "ok fill");
	guest(vm, "touch 2000 64M", "ok touch");
	guest(vm, "rewrite 4000", "ok rewrite");
	guest(vm, "churn 16M", "ok churn");
	return vm;
}

void check_busy(struct vm *vm, const struct vm_config *cfg)
{
	if (cfg->append)
		guest_check(vm);
	else
		ft_wait_for(vm, ft_state(vm, FT_ST_COUNT) + 1000);
}

void check_arrived(struct vm *src, struct vm *dst, const struct vm_config *cfg,
		   const struct vm_migration *m)
{
	if (m->fph.hints.present) {
		check_str(m->fph.hints.state, "answered");
		check_ram_equal_or_free(src, dst);
	} else {
		check_ram_equal(src, dst);
	}
	ok(vm_cont(dst, E));
	check_busy(dst, cfg);
}

void print_migration(const struct vm_migration *m)
{
	print_message("%s in %" PRIu64 " ms: %" PRIu64 " normal, %" PRIu64 " zero, %" PRIu64
		      " skipped (%" PRIu64 " unmapped, %" PRIu64 " zero-mapped), %" PRIu64
		      " resent, %" PRIu64 " syncs%s%s\n",
		      m->status, m->total_ms, m->normal, m->duplicate, m->fph.skipped,
		      m->fph.unmapped, m->fph.zero_mapped, m->fph.resent, m->fph.epoch,
		      m->fph.reason ? ", inactive: " : "", m->fph.reason ? m->fph.reason : "");
}

void migrate(struct vm *src, struct vm *dst, const struct vm_migrate_opts *opts,
		    struct vm_migration *m)
{
	struct vm_migrate_opts limited = { 0 };

	if (opts)
		limited = *opts;
	limited.timeout_ms = MIGRATE_MS;
	ok(vm_migrate(src, dst, &limited, m, E));
	print_migration(m);
	check_str(m->status, "completed");
}

bool resent_some(const struct vm_migration *m)
{
	return m->fph.resent > 0;
}

bool resent_many(const struct vm_migration *m)
{
	return m->fph.resent > 100;
}

void set_bandwidth(struct vm *src, uint64_t bytes_per_second)
{
	ok(vm_run(src, E, "migrate-set-parameters", "{\"max-bandwidth\":%" PRIu64 "}",
		  bytes_per_second));
}

void let_go(struct vm *src)
{
	ok(vm_run(src, E, "migrate-set-parameters",
		  "{\"max-bandwidth\":100000000000,\"downtime-limit\":10000,"
		  "\"avail-switchover-bandwidth\":0}"));
}

/* Pages that the guest has written so far, as it counts them; more if it writes no more */
static uint64_t guest_writes(struct vm *vm)
{
	if (ft_state(vm, FT_ST_MAGIC) == FT_MAGIC)
		return ft_state(vm, FT_ST_STATE) == FT_DONE ? UINT64_MAX :
							      ft_state(vm, FT_ST_COUNT);
	return guest_number(vm, "info", "writes");
}

/*
 * Without a channel for the end QEMU only ends when no page is left to send. So each
 * round stands still, at a page in 100 ms, until the guest has written some,
 * which are the next round's then. After that a part of what is left is sent each
 * moment: slower and slower, or the next round would be over before we look.
 */
#define STILL		10
#define SLOWEST		(64 * 1024)
#define PART_OF_SECOND	5
#define WRITES		100

void hold_switchover(struct vm *src)
{
	ok(vm_run(src, E, "migrate-set-parameters",
		  "{\"downtime-limit\":1,\"avail-switchover-bandwidth\":1}"));
}

void hold_until(struct vm *src, uint64_t max_bandwidth, enough_fn enough, struct vm_migration *m)
{
	uint64_t round = 0, writes = 0;
	bool written = false;

	hold_switchover(src);
	until (m->status && enough(m)) {
		ok(vm_migrate_poll(src, m, E));
		if (!strcmp(m->status, "completed") || !strcmp(m->status, "failed"))
			fail_msg("the migration has %s in round %" PRIu64
				 ", before what was waited for", m->status, m->sync_count);
		if (m->sync_count != round) {
			set_bandwidth(src, STILL);
			round = m->sync_count;
			writes = guest_writes(src);
			written = false;
		}
		written = written || guest_writes(src) - writes >= WRITES ||
			  writes == UINT64_MAX;
		if (written && m->remaining)
			set_bandwidth(src, CLAMP(m->remaining * PART_OF_SECOND, SLOWEST,
						 max_bandwidth));
	}
}

void migrate_until(struct vm *src, struct vm *dst, const struct vm_migrate_opts *opts,
		   enough_fn enough, struct vm_migration *m)
{
	struct vm_migrate_opts slow = *opts;

	slow.downtime_limit_ms = 1;
	slow.timeout_ms = 2 * MIGRATE_MS;
	ok(vm_migrate_start(src, dst, &slow, m, E));
	hold_until(src, opts->max_bandwidth, enough, m);
	let_go(src);
	ok(vm_migrate_wait(src, dst, &slow, m, E));
	print_migration(m);
	check_str(m->status, "completed");
}

void each_fd(struct vm *vm, fd_fn func, void *opaque)
{
	g_autofree char *fds = g_strdup_printf("/proc/%d/fd", (int)vm_pid(vm));
	GError *error = NULL;
	GDir *dir = g_dir_open(fds, 0, &error);
	const char *name;

	check(dir != NULL);
	while ((name = g_dir_read_name(dir))) {
		g_autofree char *path = g_build_filename(fds, name, NULL);
		g_autofree char *target = g_file_read_link(path, NULL);

		if (target)
			func(path, target, opaque);
	}
	g_dir_close(dir);
}

static void open_if_memory(const char *path, const char *target, void *opaque)
{
	int *fd = opaque;

	if (*fd < 0 && (g_str_has_prefix(target, "/memfd:memory-backend-memfd") ||
			g_str_has_prefix(target, "/dev/shm/qemu_back_mem.")))
		*fd = open(path, O_RDWR | O_CLOEXEC);
}

int open_memfd(struct vm *vm)
{
	int fd = -1;

	each_fd(vm, open_if_memory, &fd);
	check(fd >= 0);
	return fd;
}

pid_t hold_iothread(struct vm *vm)
{
	JsonNode *node;
	pid_t tid;
	int status;

	ok((node = vm_command(vm, E, "query-iothreads", NULL)));
	tid = json_object_get_int_member(
		json_array_get_object_element(json_node_get_array(node), 0), "thread-id");
	json_node_unref(node);
	check(ptrace(PTRACE_SEIZE, tid, NULL, NULL) == 0);
	check(ptrace(PTRACE_INTERRUPT, tid, NULL, NULL) == 0);
	check(waitpid(tid, &status, __WALL) == tid && WIFSTOPPED(status));
	return tid;
}

void release_iothread(pid_t tid)
{
	check(ptrace(PTRACE_DETACH, tid, NULL, NULL) == 0);
}

void set_capability(struct vm *vm, const char *name, bool on)
{
	ok(vm_run(vm, E, "migrate-set-capabilities",
		  "{\"capabilities\":[{\"capability\":\"%s\",\"state\":%s}]}", name,
		  on ? "true" : "false"));
}

void capability(struct vm *src, struct vm *dst, const char *name)
{
	set_capability(src, name, true);
	set_capability(dst, name, true);
}

void capability_or_skip(struct vm *vm, const char *name)
{
	GError *error = NULL;

	if (name && !vm_run(vm, &error, "migrate-set-capabilities",
			    "{\"capabilities\":[{\"capability\":\"%s\",\"state\":true}]}", name))
		fph_test_skip_all("%s", error->message);
}

JsonObject *fph_object(const struct vm_fph *fph)
{
	return json_array_get_object_element(json_node_get_array(fph->raw), 0);
}

void check_end_event(struct vm *src, const char *cause, const struct vm_fph *fph)
{
	GError *error = NULL;
	JsonObject *event = qmp_event(vm_qmp(src), "FPH_SOURCE_ENDED", MIGRATE_MS, &error);
	JsonObject *data, *info;

	if (!event)
		fail_msg("FPH_SOURCE_ENDED: %s", error->message);
	data = json_object_get_object_member(event, "data");
	check_str(json_object_get_string_member(data, "cause"), cause);
	check_int(json_object_get_int_member(data, "skipped"), fph->skipped);
	check_int(json_object_get_int_member(data, "resent"), fph->resent);
	check_int(json_object_get_int_member(data, "violations"),
		  json_object_get_int_member(fph_object(fph), "violations"));
	/* And all that query-fph knows, for those who cannot ask any more */
	info = json_object_get_object_member(data, "info");
	check_int(json_object_get_int_member(info, "skipped"), fph->skipped);
	check_int(json_object_get_int_member(info, "left-out-bytes"),
		  json_object_get_int_member(fph_object(fph), "left-out-bytes"));
	check_int(json_array_get_length(json_object_get_array_member(info, "blocks")),
		  json_array_get_length(json_object_get_array_member(fph_object(fph), "blocks")));
	json_object_unref(event);
	check_no_end_event(src);
}

void check_no_end_event(struct vm *src)
{
	GError *error = NULL;

	check(!qmp_event(vm_qmp(src), "FPH_SOURCE_ENDED", 0, &error));
	check(g_error_matches(error, QMP_ERROR, QMP_ERROR_TIMEOUT));
	g_error_free(error);
}

uint64_t migrated_pages(const struct vm_fph *fph)
{
	JsonArray *blocks = json_object_get_array_member(fph_object(fph), "blocks");
	uint64_t bytes = 0;

	for (guint i = 0; i < json_array_get_length(blocks); i++)
		bytes += json_object_get_int_member(json_array_get_object_element(blocks, i), "size");
	return bytes / PAGE;
}

void refused(struct vm *vm, const char *why, const char *command, const char *arguments)
{
	GError *error = NULL;
	bool done = vm_run(vm, &error, command, "%s", arguments);

	if (done)
		fail_msg("%s %s was not refused", command, arguments);
	if (!strstr(error->message, why))
		fail_msg("%s: \"%s\" does not say \"%s\"", command, error->message, why);
	g_error_free(error);
}

static uint64_t number(JsonObject *o, const char *name)
{
	check(json_object_has_member(o, name));
	return json_object_get_int_member(o, name);
}

void check_sums(const struct vm_fph *fph)
{
	static const char *const names[] = {
		"skipped", "resent", "unmapped", "zero-mapped", "zero-content", "free",
		"guest-only", "host-only", "both", "violations",
	};
	JsonObject *all = fph_object(fph);
	JsonArray *blocks = json_object_get_array_member(all, "blocks");
	uint64_t sum[ARRAY_SIZE(names)] = { 0 };

	for (guint i = 0; i < json_array_get_length(blocks); i++) {
		JsonObject *b = json_array_get_object_element(blocks, i);
		uint64_t host = number(b, "host-only") + number(b, "both");

		for (size_t k = 0; k < ARRAY_SIZE(names); k++)
			sum[k] += number(b, names[k]);
		check_int(number(b, "skipped"), number(b, "guest-only") + host);
		check_int(number(b, "free"), number(b, "guest-only") + number(b, "both"));
		/* A page may have been seen absent, and later as the zero page */
		check(host <= number(b, "unmapped") + number(b, "zero-mapped") +
			      number(b, "zero-content"));
		check(host >= number(b, "unmapped") && host >= number(b, "zero-mapped"));
		check(number(b, "skipped") <= number(b, "size") / PAGE);
	}
	for (size_t k = 0; k < ARRAY_SIZE(names); k++)
		check_int(sum[k], number(all, names[k]));
	if (!json_object_get_boolean_member(all, "dry-run"))
		check_int(number(all, "left-out-bytes"), number(all, "skipped") * PAGE);
}

void wait_for_status(struct vm *vm, const char *status, struct vm_migration *m)
{
	ok(vm_migrate_poll(vm, m, E));
	until (!strcmp(m->status, status)) {
		if (!strcmp(m->status, "failed") || !strcmp(m->status, "completed"))
			fail_msg("%s: the migration has %s instead of %s; query-migrate tells why",
				 vm_name(vm), m->status, status);
		ok(vm_migrate_poll(vm, m, E));
	}
}

bool is_running(struct vm *vm)
{
	GError *error = NULL;
	g_autoptr(JsonNode) node = vm_command(vm, &error, "query-status", NULL);

	if (!node)
		fail_msg("query-status: %s", error->message);
	return json_object_get_boolean_member(json_node_get_object(node), "running");
}

bool is_registered(struct vm *vm)
{
	g_autofree char *path = g_strdup_printf("/proc/%d/smaps", (int)vm_pid(vm));
	g_autofree char *smaps = NULL;
	bool found = false;
	char **lines;

	ok(g_file_get_contents(path, &smaps, NULL, E));
	lines = g_strsplit(smaps, "\n", -1);
	for (char **l = lines; *l; l++)
		found |= g_str_has_prefix(*l, "VmFlags:") && strstr(*l, " uw");
	g_strfreev(lines);
	return found;
}

const char *preloaded_qemu(const char *variable, const char *settings)
{
	const char *library = g_getenv(variable);
	g_autofree char *text = NULL;
	const char *script;

	if (!library)
		fph_test_skip_all("%s is not set", variable);
	text = g_strdup_printf("#!/bin/sh\nexec env LD_PRELOAD='%s' %s '%s' \"$@\"\n", library,
			       settings, qemu);
	script = temp_file(text, -1);
	check_int(chmod(script, 0700), 0);
	return script;
}

const char *faulty_qemu(const char *fault, const char **seen)
{
	g_autofree char *settings = NULL;

	*seen = temp_file("", 0);
	settings = g_strdup_printf("FPH_TEST_FAULT='%s' FPH_TEST_SEEN='%s'", fault, *seen);
	return preloaded_qemu("FPH_TEST_KERNEL_FAULT", settings);
}

const char *sanitized_qemu(void)
{
	const char *sanitized = g_getenv("FPH_TEST_SANITIZED_QEMU");

	if (!sanitized || !*sanitized)
		return NULL;
	print_message("with %s\n", sanitized);
	/* Whose libraries leak is not the question here */
	check(g_setenv("ASAN_OPTIONS", "detect_leaks=0", true));
	check(g_setenv("UBSAN_OPTIONS", "halt_on_error=1:print_stacktrace=1", true));
	return sanitized;
}

uint64_t file_size(const char *path)
{
	struct stat st;

	check_int(stat(path, &st), 0);
	return st.st_size;
}

#define SECTOR		512u

const char *disk_image(uint64_t bytes)
{
	g_autofree char *content = g_malloc0(bytes);

	for (uint64_t n = 0; n < bytes / SECTOR; n++)
		memcpy(content + n * SECTOR, &n, sizeof(n));
	return temp_file(content, bytes);
}

/* Beside QEMU's own binary */
static char *storage_daemon(void)
{
	g_autofree char *dir = g_path_get_dirname(qemu);

	return g_build_filename(dir, "qemu-storage-daemon", NULL);
}

bool have_disks(void)
{
	const char *const argv[] = { qemu, "-device", "help", NULL };
	g_autofree char *daemon = storage_daemon();
	g_autofree char *devices = NULL;

	if (access(daemon, X_OK) < 0)
		return false;
	ok(g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_DEFAULT, NULL, NULL, &devices, NULL,
			NULL, E));
	return strstr(devices, "vhost-user-blk-pci");
}

void need_disks(void)
{
	g_autofree char *daemon = storage_daemon();

	if (!have_disks())
		fph_test_skip_all("there is no %s, or QEMU has no vhost-user-blk-pci", daemon);
}

static void end_with_us(gpointer data)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
}

/* QEMU may connect, and waits, before the daemon is there */
static int listen_at(const char *path)
{
	g_autoptr(GSocket) socket = NULL;
	g_autoptr(GSocketAddress) address = g_unix_socket_address_new(path);

	ok((socket = g_socket_new(G_SOCKET_FAMILY_UNIX, G_SOCKET_TYPE_STREAM, 0, E)));
	ok(g_socket_bind(socket, address, false, E));
	ok(g_socket_listen(socket, E));
	return dup(g_socket_get_fd(socket));
}

GSubprocess *disk_start(const char *image, const char *const *env, const char **socket)
{
	g_autoptr(GSubprocessLauncher) launcher = g_subprocess_launcher_new(0);
	g_autofree char *blockdev = g_strdup_printf("driver=file,node-name=disk,locking=off,"
						    "filename=%s", image);
	g_autofree char *daemon = storage_daemon();
	GSubprocess *process;

	*socket = temp_file("", 0);
	unlink(*socket);
	g_subprocess_launcher_take_fd(launcher, listen_at(*socket), 3);
	g_subprocess_launcher_set_child_setup(launcher, end_with_us, NULL, NULL);
	for (; env && *env; env++) {
		g_auto(GStrv) pair = g_strsplit(*env, "=", 2);

		g_subprocess_launcher_setenv(launcher, pair[0], pair[1], true);
	}
	ok((process = g_subprocess_launcher_spawn(launcher, E, daemon, "--blockdev", blockdev,
			"--export", "type=vhost-user-blk,id=export,node-name=disk,writable=on,"
			"addr.type=fd,addr.str=3", NULL)));
	return process;
}

void disk_end(GSubprocess *daemon)
{
	g_subprocess_force_exit(daemon);
	g_subprocess_wait(daemon, NULL, NULL);
	g_object_unref(daemon);
}

const char *const *with_disk(const char *const *extra, const char *socket)
{
	g_autofree char *chardev = g_strdup_printf("socket,id=disk,path=%s", socket);
	GPtrArray *all = g_ptr_array_new();

	for (; extra && *extra; extra++)
		g_ptr_array_add(all, (char *)*extra);
	g_ptr_array_add(all, "-chardev");
	g_ptr_array_add(all, (char *)g_intern_string(chardev));
	g_ptr_array_add(all, "-device");
	g_ptr_array_add(all, "vhost-user-blk-pci,chardev=disk,num-queues=1");
	g_ptr_array_add(all, NULL);
	return (const char *const *)g_ptr_array_free(all, false);
}

bool compact_memory(void)
{
	int fd = open("/proc/sys/vm/compact_memory", O_WRONLY | O_CLOEXEC);
	bool done = fd >= 0 && write(fd, "1", 1) == 1;

	if (fd >= 0)
		close(fd);
	return done;
}

const char *patch_firsttouch(uint32_t delay, uint32_t rounds)
{
	g_autofree char *image = NULL;
	gsize size;

	ok(g_file_get_contents(firsttouch, &image, &size, E));
	check(size > FT_SET_ROUNDS + sizeof(rounds));
	memcpy(image + FT_SET_DELAY, &delay, sizeof(delay));
	memcpy(image + FT_SET_ROUNDS, &rounds, sizeof(rounds));
	return temp_file(image, size);
}

void patch_word(const char *path, unsigned int offset, uint32_t value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	check(fd >= 0);
	check_int(pwrite(fd, &value, sizeof(value), offset), sizeof(value));
	close(fd);
}

uint32_t ft_state(struct vm *vm, unsigned int offset)
{
	GError *error = NULL;
	g_autofree char *command = g_strdup_printf("xp /1wx %#x", FT_STATE_ADDR + offset);
	g_autofree char *answer = vm_hmp(vm, &error, command);
	char *value;

	if (!answer)
		fail_msg("%s: %s", command, error->message);
	value = strstr(answer, ": 0x");
	check(value != NULL);
	return strtoul(value + 2, NULL, 16);
}

void ft_wait_for(struct vm *vm, uint32_t count)
{
	until (ft_state(vm, FT_ST_MAGIC) == FT_MAGIC && ft_state(vm, FT_ST_COUNT) >= count)
		;
}

#define HUGE_PAGE	(2 * MIB)
#define HUGE_PAGES	"/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"

static long hugepages_before;

static bool set_hugepages(long n)
{
	g_autofree char *text = NULL;
	FILE *f = fopen(HUGE_PAGES, "w");
	bool done;

	if (!f)
		return false;
	done = fprintf(f, "%ld", n) > 0;
	done &= fclose(f) == 0;
	return done && g_file_get_contents(HUGE_PAGES, &text, NULL, NULL) && atol(text) >= n;
}

/* QEMU has ended when this runs */
static void give_hugepages_back(void)
{
	vm_free_all();
	set_hugepages(hugepages_before);
}

void need_hugepages(uint64_t bytes)
{
	long n = bytes / HUGE_PAGE;
	g_autofree char *text = NULL;

	if (!g_file_get_contents(HUGE_PAGES, &text, NULL, NULL))
		fph_test_skip_all("no huge pages of 2 MiB");
	hugepages_before = atol(text);
	atexit(give_hugepages_back);
	if (!set_hugepages(hugepages_before + n))
		fph_test_skip_all("the host cannot reserve %ld huge pages", n);
}

void use_kernel(struct vm_config *cfg, const char *name)
{
	g_autofree char *cache = vm_cache_dir();
	g_autofree char *folder = g_strdup_printf("guest.%s", name);

	cfg->kernel = g_build_filename(cache, folder, "vmlinuz", NULL);
	cfg->initrd = g_build_filename(cache, folder, "initramfs.img", NULL);
	if (access(cfg->kernel, R_OK) < 0 || access(cfg->initrd, R_OK) < 0)
		fph_test_skip_all("no guest with the kernel %s; FPH_GUEST_KERNEL=%s "
				  "tests/guest/build-guest makes it", name, name);
}

void need_kvm(void)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int vm;

	if (kvm < 0)
		fph_test_skip_all("/dev/kvm cannot be opened: %s", strerror(errno));
	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	if (vm < 0)
		fph_test_skip_all("KVM cannot make a VM: %s", strerror(errno));
	if (ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2) <= 0)
		fph_test_skip_all("this KVM has no manual dirty log protection");
	close(vm);
	close(kvm);
}

void need_scanner(void)
{
	struct fph_scanner *s;
	const char *why;

	if (fph_scanner_open(&s) < 0)
		fph_test_skip_all("out of memory");
	if (fph_scanner_error(s, &why) < 0)
		fph_test_skip_all("%s", why);
	fph_scanner_close(s);
}

static bool has_case(const struct fph_tests *t, const char *name)
{
	for (size_t i = 0; i < t->n; i++)
		if (!strcmp(t->v[i].name, name))
			return true;
	return false;
}

/* The build file names the cases too: each of them, and no other */
static int check_names(const struct fph_tests *t, char **names, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (!has_case(t, names[i])) {
			fprintf(stderr, "no case '%s'\n", names[i]);
			return EXIT_FAILURE;
		}
	}
	if (n != t->n) {
		fprintf(stderr, "%zu cases are named, there are %zu\n", n, t->n);
		return EXIT_FAILURE;
	}
	return EXIT_SUCCESS;
}

int harness_main(int argc, char **argv, struct fph_tests *t, bool (*host)(const char *name))
{
	const char *built = g_getenv("FPH_TEST_QEMU");
	int status;

	if (argc < 2) {
		fprintf(stderr, "usage: %s NAME | --names NAME...\n", g_get_prgname());
		return 2;
	}
	if (!strcmp(argv[1], "--names"))
		return check_names(t, argv + 2, argc - 2);
	if (!has_case(t, argv[1])) {
		fprintf(stderr, "no case '%s'\n", argv[1]);
		return 2;
	}

	qemu = built && *built ? g_strdup(built) : vm_default_qemu();
	firsttouch = g_getenv("FPH_TEST_FIRSTTOUCH");
	kernel = vm_default_kernel();
	initrd = vm_default_initrd();
	if (access(qemu, X_OK) < 0)
		fph_test_skip_all("no QEMU at %s; qemu-integration/build-qemu makes it", qemu);
	if (access(kernel, R_OK) < 0 || access(initrd, R_OK) < 0)
		fph_test_skip_all("no guest at %s; tests/guest/build-guest makes it", kernel);
	if (!firsttouch)
		fph_test_skip_all("FPH_TEST_FIRSTTOUCH is not set");
	if (g_str_has_prefix(argv[1], "kvm-"))
		need_kvm();
	if (!host || host(argv[1]))
		need_scanner();
	/* Set for us by meson; QEMU has a libfph of its own, built as it was */
	g_unsetenv("LD_LIBRARY_PATH");
	/* A time-out ends the test through exit(), which cleans up */
	io_catch_signals();

	cmocka_set_test_filter(argv[1]);
	status = fph_test_run(t, "migration");
	vm_free_all();
	return status == EXIT_SUCCESS && complained ? EXIT_FAILURE : status;
}

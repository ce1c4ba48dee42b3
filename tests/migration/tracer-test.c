/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fph-source with the tracer: it saves scanning, and never a page that the
 * scan would not have saved.
 *
 * The tracer is in a bpffs of each test's own. Environment, by meson:
 * FPH_TEST_TRACE (fph-trace).
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fph/tracer.h>

#include "fph_tracer.h"
#include "harness.h"
#include "pagemap-abi.h"
#include "vmstat.h"

#define PATH	"/sys/fs/bpf/fph"
#define TRACED	"pagemap,tracer=" PATH

static const char *const debug_threads[] = { "-name", "traced,debug-threads=on", NULL };

/* Output of fph-trace, to be freed */
static char *run_trace(int *status, const char *const *args)
{
	GPtrArray *argv = g_ptr_array_new();
	GError *error = NULL;
	char *out;

	g_ptr_array_add(argv, (char *)g_getenv("FPH_TEST_TRACE"));
	for (; *args; args++)
		g_ptr_array_add(argv, (char *)*args);
	g_ptr_array_add(argv, NULL);
	if (!g_spawn_sync(NULL, (char **)argv->pdata, NULL, G_SPAWN_DEFAULT, NULL, NULL, &out,
			  NULL, status, &error))
		fail_msg("fph-trace: %s", error->message);
	g_ptr_array_unref(argv);
	return out;
}

#define trace(status, ...) run_trace(status, (const char *const []){ __VA_ARGS__, NULL })

static void own_bpffs(void)
{
	if (geteuid() != 0)
		fph_test_skip_all("loading BPF programs needs root");
	libbpf_set_print(NULL);
	if (access("/sys/kernel/btf/vmlinux", R_OK) < 0 ||
	    libbpf_probe_bpf_prog_type(BPF_PROG_TYPE_RAW_TRACEPOINT, NULL) != 1 ||
	    libbpf_probe_bpf_map_type(BPF_MAP_TYPE_TASK_STORAGE, NULL) != 1)
		fph_test_skip_all("this kernel has no BPF tracing programs, or refuses them");
	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("bpf", "/sys/fs/bpf", "bpf", 0, NULL) < 0)
		fph_test_skip_all("no bpffs of our own: %s", strerror(errno));
}

static void load(const char *capacity)
{
	int status;

	own_bpffs();
	g_free(trace(&status, "--load", "--object", "tp", "--capacity", capacity));
	check_int(status, 0);
}

static int map(const char *name)
{
	g_autofree char *path = g_build_filename(PATH, "maps", name, NULL);
	int fd = bpf_obj_get(path);

	check(fd >= 0);
	return fd;
}

static uint64_t element(const char *name, __u32 key)
{
	uint64_t value = 0;
	int fd = map(name);

	check_int(bpf_map_lookup_elem(fd, &key, &value), 0);
	close(fd);
	return value;
}

static void set_paused(bool paused)
{
	__u32 key = FPH_PAUSED;
	__u64 value = paused;
	int fd = map("fph_settings");

	check_int(bpf_map_update_elem(fd, &key, &value, BPF_ANY), 0);
	close(fd);
}

static JsonObject *tracer_of(const struct vm_fph *fph)
{
	return json_object_get_object_member(fph_object(fph), "tracer");
}

static void check_tracer(const struct vm_fph *fph, const char *inactive)
{
	JsonObject *t = tracer_of(fph);

	check(t != NULL);
	check_int(json_object_get_boolean_member(t, "active"), !inactive);
	check_int(json_object_has_member(t, "inactive-reason"), inactive != NULL);
	if (inactive)
		check_str(json_object_get_string_member(t, "inactive-reason"), inactive);
}

static uint64_t passed_over(const struct vm_fph *fph)
{
	return json_object_get_int_member(tracer_of(fph), "passed-over");
}

static struct fph_tracer *open_tracer(struct vm *vm)
{
	struct fph_tracer *t;
	const char *why;

	if (fph_tracer_open(&t, PATH, vm_pid(vm), &why) < 0)
		fail_msg("%s", why);
	return t;
}

struct pages {
	uint64_t all;
	uint64_t populated;
	uint64_t touched;
	uint64_t missed;	/* populated, and not touched */
	uint64_t stale;		/* touched, and not populated */
	uint64_t worth;		/* not populated, and where a scan will look */
};

/* Huge pages that khugepaged has made of small ones, on this machine so far */
static uint64_t collapsed(void)
{
	return vmstat("thp_collapse_alloc");
}

/* Is there a page, by the page tables; absent is the zero page as well */
static bool is_mapped(int pagemap, uint64_t at)
{
	struct fph_pm_range range;
	struct fph_pm_scan arg = {
		.size = sizeof(arg), .start = at, .end = at + PAGE,
		.vec = (uintptr_t)&range, .vec_len = 1,
		.category_inverted = FPH_PM_PFNZERO,
		.category_mask = FPH_PM_PFNZERO,
		.category_anyof_mask = FPH_PM_PRESENT | FPH_PM_SWAPPED,
		.return_mask = FPH_PM_PRESENT,
	};
	int n = ioctl(pagemap, FPH_PAGEMAP_SCAN, &arg);

	check(n >= 0);
	return n;
}

/*
 * What page tables, or the page cache, of a VM that stands still have, page by
 * page, and what the tracer's bits say
 */
static struct pages compare(struct vm *vm, const struct fph_tracer *t, const char *ram)
{
	g_autofree char *path = g_strdup_printf("/proc/%d/pagemap", (int)vm_pid(vm));
	struct fph_traced m = { .sz = sizeof(m) };
	struct pages n = { 0 };
	int fd = ram ? open_memfd(vm) : open(path, O_RDONLY | O_CLOEXEC);

	check(fd >= 0);
	check_int(fph_tracer_get(t, 0, &m), 1);
	check_int(fph_tracer_get(t, 1, &m), 0);
	check_int(m.fd < 0, !ram);
	for (uint64_t at = m.start; at < m.start + m.len; at += PAGE) {
		bool touched = fph_tracer_touched(t, at, at + PAGE);
		uint64_t from, to, block = at & ~(2 * MIB - 1);
		off_t offset = at - m.start;
		bool populated = ram ? lseek(fd, offset, SEEK_DATA) == offset :
				 is_mapped(fd, at);

		n.all++;
		n.populated += populated;
		n.touched += touched;
		n.missed += populated && !touched;
		n.stale += touched && !populated;
		n.worth += !populated &&
			   fph_tracer_next(t, MAX(block, m.start),
					   MIN(block + 2 * MIB, m.start + m.len), &from, &to);
	}
	close(fd);
	print_message("%" PRIu64 " pages: %" PRIu64 " populated, %" PRIu64 " touched, %" PRIu64
		      " missed\n", n.all, n.populated, n.touched, n.missed);
	return n;
}

/*
 * A real guest under TCG: all of its memory was seen being taken, and what is
 * left out is exactly what the page tables do not have where the scan looks.
 */
static void test_superset(void **state)
{
	const char *ram = *state;
	struct vm_config cfg = linux_guest;
	struct vm_migration m = { 0 };
	struct fph_tracer *t;
	struct vm *src, *dst;
	struct pages n;
	uint64_t before = collapsed();

	load("1g");
	cfg.fph_mode = TRACED;
	cfg.ram = ram;
	src = start(cfg);
	dst = start_destination(cfg);
	boot(src);
	guest(src, "fill 100M", "ok fill");
	ok(vm_stop(src, E));
	t = open_tracer(src);
	n = compare(src, t, ram);
	check_int(n.all, cfg.memory / PAGE);
	check(n.populated > 25600);
	/* There is no disk and no KVM: of what tracepoints miss only khugepaged is left */
	check(n.missed <= 512 * (collapsed() - before));
	check_int(n.stale, 0);

	migrate(src, dst, NULL, &m);
	check_tracer(&m.fph, NULL);
	check_int(json_object_get_int_member(tracer_of(&m.fph), "memory"), cfg.memory);
	check(passed_over(&m.fph) > 25600);
	check(passed_over(&m.fph) <= n.touched);
	check_int(m.fph.skipped, n.worth);
	check_int(m.normal + m.duplicate + m.fph.skipped, migrated_pages(&m.fph));
	check_ram_equal(src, dst);

	fph_tracer_close(t);
	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

/* The guest writes, and memory goes back to the host, while it migrates */
static const struct live {
	const char *name;
	const char *ram;
	bool drop;
} live[] = {
	{ "tracer-live-memfd", VM_RAM_MEMFD, false },
	/* Events are dropped: those pages are scanned, and sent */
	{ "tracer-dropped-anon", VM_RAM_ANON, true },
	{ "tracer-dropped-memfd", VM_RAM_MEMFD, true },
};

static void test_live(void **state)
{
	const struct live *l = *state;
	struct vm_migrate_opts opts = { .max_bandwidth = 100 * MIB };
	struct vm_config cfg = linux_guest;
	struct vm_migration m = { 0 };
	struct fph_tracer *t;
	struct vm *src, *dst;
	uint64_t touched;

	load("1g");
	cfg.fph_mode = TRACED;
	cfg.ram = l->ram;
	src = start(cfg);
	dst = start_destination(cfg);
	boot(src);
	t = open_tracer(src);
	guest(src, "fill 16M", "ok fill");
	if (l->drop) {
		struct fph_traced mem = { .sz = sizeof(mem) };

		check_int(fph_tracer_get(t, 0, &mem), 1);
		set_paused(true);
		touched = fph_tracer_touched(t, mem.start, mem.start + mem.len);
		guest(src, "fill 64M", "ok fill");
		/* Nothing was recorded of 64 MiB, and that is told */
		check_int(fph_tracer_touched(t, mem.start, mem.start + mem.len), touched);
		check(element("fph_drops", FPH_DROP_PAUSED) > 0);
		set_paused(false);
		guest(src, "fill 16M", "ok fill");
		check(fph_tracer_touched(t, mem.start, mem.start + mem.len) > touched);
		set_paused(true);
	}
	guest(src, "touch 2000 192M", "ok touch");
	guest(src, "rewrite 2000", "ok rewrite");
	migrate_until(src, dst, &opts, resent_some, &m);
	check_tracer(&m.fph, NULL);
	check(passed_over(&m.fph) > 0);
	check(m.fph.skipped > 0);
	check_ram_equal(src, dst);
	ok(vm_cont(dst, E));
	guest_check(dst);

	fph_tracer_close(t);
	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

/* Without a tracer that can be used all is scanned, and query-fph says why */
static void not_used(const char *mode, const char *why)
{
	struct vm_config cfg = tiny_guest;
	struct vm_migration m = { 0 };
	struct vm *src, *dst;

	cfg.fph_mode = mode;
	src = start(cfg);
	dst = start_destination(cfg);
	ft_wait_for(src, 10);
	ok(vm_stop(src, E));
	migrate(src, dst, NULL, &m);
	check_str(m.fph.state, "ended");
	check_tracer(&m.fph, why);
	check_int(passed_over(&m.fph), 0);
	check(m.fph.skipped > 1000);
	check_ram_equal(src, dst);
	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

static void test_inactive(void **state)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts);
	GError *error = NULL;
	struct vm *vm;
	char *text;
	int fd;

	load("64m");
	not_used("pagemap,tracer=/sys/fs/bpf/none",
		 "no tracer is loaded there: its maps are missing");
	not_used(TRACED, "the tracer's bitmap is too small (RAM block 'pc.ram', 128 MiB)");

	check(mkdir("/sys/fs/bpf/other", 0700) == 0 && mkdir("/sys/fs/bpf/other/maps", 0700) == 0);
	fd = bpf_map_create(BPF_MAP_TYPE_HASH, "fph_targets", 4, 8, 8, &opts);
	check(fd >= 0 && bpf_obj_pin(fd, "/sys/fs/bpf/other/maps/fph_targets") == 0);
	close(fd);
	not_used("pagemap,tracer=/sys/fs/bpf/other",
		 "the maps there are not those of this version of the tracer");

	vm = start((struct vm_config){ .name = "source", .memory = 128 * MIB });
	refused(vm, "mode=pv does not scan", "object-add",
		"{\"qom-type\":\"fph-source\",\"id\":\"a\",\"mode\":\"pv\",\"tracer\":\"" PATH "\"}");
	ok(vm_run(vm, E, "object-add", "{\"qom-type\":\"fph-source\",\"id\":\"fph0\","
		  "\"mode\":\"pagemap\",\"tracer\":\"/sys/fs/bpf/none\"}"));
	refused(vm, "tracer cannot be changed", "qom-set",
		"{\"path\":\"/objects/fph0\",\"property\":\"tracer\",\"value\":\"" PATH "\"}");
	text = vm_hmp(vm, &error, "info fph");
	check(text && strstr(text, "tracer: inactive: no tracer is loaded there"));
	g_free(text);
	vm_free(vm);
}

/*
 * Unloaded while the VM runs: bits stay as they were, though nobody sees what
 * happens to memory from then on. They must not be used.
 */
static void test_unloaded(void **state)
{
	struct vm_config cfg = linux_guest;
	struct vm_migration m = { 0 };
	struct vm *src, *dst;
	int status;

	load("1g");
	cfg.fph_mode = TRACED;
	src = start(cfg);
	dst = start_destination(cfg);
	boot(src);
	g_free(trace(&status, "--unload"));
	check_int(status, 0);
	guest(src, "fill 16M", "ok fill");
	g_free(trace(&status, "--load", "--object", "tp", "--capacity", "1g"));
	check_int(status, 0);
	ok(vm_stop(src, E));
	migrate(src, dst, NULL, &m);
	check_tracer(&m.fph, "the tracer was unloaded");
	check_int(passed_over(&m.fph), 0);
	check(m.fph.skipped > 0);
	check_ram_equal(src, dst);
	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

static size_t targets(void)
{
	__u32 key, *prev = NULL;
	int fd = map("fph_targets");
	size_t n = 0;

	while (bpf_map_get_next_key(fd, prev, &key) == 0) {
		prev = &key;
		n++;
	}
	close(fd);
	return n;
}

/* Two of them, and each has its own bits; objects and processes come and go */
static void test_two(void **state)
{
	struct vm_config cfg = tiny_guest;
	struct fph_tracer *t[2];
	struct vm *vm[2];
	struct pages n;
	uint64_t before = collapsed();

	load("1g");
	cfg.fph_mode = TRACED;
	for (int i = 0; i < 2; i++) {
		vm[i] = start(cfg);
		ft_wait_for(vm[i], 1000);
	}
	check_int(targets(), 2);
	for (int i = 0; i < 2; i++) {
		ok(vm_stop(vm[i], E));
		t[i] = open_tracer(vm[i]);
		n = compare(vm[i], t[i], NULL);
		check(n.populated > 1000);
		check(n.missed <= 512 * (collapsed() - before));
	}
	ok(vm_run(vm[1], E, "object-del", "{\"id\":\"fph0\"}"));
	check_int(targets(), 1);
	ok(vm_run(vm[1], E, "object-add", "{\"qom-type\":\"fph-source\",\"id\":\"fph0\","
		  "\"mode\":\"pagemap\",\"tracer\":\"" PATH "\"}"));
	check_int(targets(), 2);
	vm_free(vm[0]);
	check_int(targets(), 1);
	vm_free(vm[1]);
	check_int(targets(), 0);
	fph_tracer_close(t[0]);
	fph_tracer_close(t[1]);
}

/*
 * KVM may take pages for the guest without a fault that tracepoints show (not
 * each KVM does): how many is known then, but not which. They are scanned, and
 * sent.
 */
static void test_kvm(void **state)
{
	struct fph_counts_key key = { .comm = "CPU 0/KVM" };
	uint64_t before = collapsed();
	struct vm_config cfg = tiny_guest;
	struct vm_migration m = { 0 };
	struct fph_counts counts = { 0 };
	struct fph_tracer *t;
	struct vm *src, *dst;
	struct pages n;
	int fd;

	load("1g");
	/* Or a page that was taken would be 512 */
	check_int(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), 0);
	cfg.accel = "kvm";
	cfg.fph_mode = TRACED;
	cfg.extra = debug_threads;
	/* Where it writes, nothing is left to scan */
	cfg.bios = patch_firsttouch(0, 0);
	patch_word(cfg.bios, FT_SET_BASE, 32 * MIB);
	patch_word(cfg.bios, FT_SET_END, 40 * MIB);
	src = start(cfg);
	dst = start_destination(cfg);
	ft_wait_for(src, 8 * MIB / PAGE);
	ok(vm_stop(src, E));
	t = open_tracer(src);
	n = compare(src, t, NULL);
	key.tgid = vm_pid(src);
	fd = map("fph_counts");
	bpf_map_lookup_elem(fd, &key, &counts);
	close(fd);
	print_message("by the vCPU: %" PRIu64 " pages, and %" PRIu64 " within KVM\n",
		      (uint64_t)counts.pages[FPH_WRITE], (uint64_t)counts.pages[FPH_KVM]);
	check(counts.pages[FPH_WRITE] + counts.pages[FPH_KVM] > 1000);
	check(n.missed <= counts.pages[FPH_KVM] + 512 * (collapsed() - before));
	check_int(n.stale, 0);

	migrate(src, dst, NULL, &m);
	check_tracer(&m.fph, NULL);
	if (!counts.pages[FPH_KVM])
		check(passed_over(&m.fph) >= 8 * MIB / PAGE);
	check(passed_over(&m.fph) <= n.touched);
	check_int(m.fph.skipped, n.worth);
	check_ram_equal(src, dst);
	fph_tracer_close(t);
	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

/* Pages of a kind of thread and a cause, in all intervals of fph-trace --json */
static uint64_t sum_of(const char *json, const char *kind, const char *cause)
{
	g_auto(GStrv) lines = g_strsplit(json, "\n", -1);
	uint64_t sum = 0;

	for (char **line = lines; *line && **line; line++) {
		JsonNode *node = json_from_string(*line, NULL);
		JsonArray *threads;

		check(node != NULL);
		threads = json_object_get_array_member(json_node_get_object(node), "threads");
		for (guint i = 0; i < json_array_get_length(threads); i++) {
			JsonObject *t = json_array_get_object_element(threads, i);
			JsonObject *p = json_object_get_object_member(t, "pages");

			if (!strcmp(json_object_get_string_member(t, "kind"), kind))
				sum += json_object_get_int_member(p, cause);
		}
		json_node_unref(node);
	}
	return sum;
}

/*
 * What the tool is for: in a migration of QEMU as it is, the migration thread
 * takes shared memory for pages that the guest never had, only to read zeros.
 */
static void test_kinds(void **state)
{
	static const char *const modes[] = { NULL, "pagemap" };

	own_bpffs();
	for (int i = 0; i < 2; i++) {
		struct vm_config cfg = tiny_guest;
		struct vm_migration m = { 0 };
		g_autofree char *pid = NULL;
		GError *error = NULL;
		const char *argv[] = { g_getenv("FPH_TEST_TRACE"), "-p", NULL, "-m", "32m", "-j",
				       "1", NULL };
		GSubprocess *tool;
		char byte = 0;
		struct vm *src, *dst;
		uint64_t writes, reads;
		char *out;

		cfg.ram = VM_RAM_MEMFD;
		cfg.extra = debug_threads;
		cfg.fph_mode = modes[i];
		/* Slowly, so that there are fresh pages left when the tool looks */
		cfg.bios = patch_firsttouch(4000000, 0);
		src = start(cfg);
		dst = start_destination(cfg);
		ft_wait_for(src, 10);
		pid = g_strdup_printf("%d", (int)vm_pid(src));
		argv[2] = pid;
		tool = g_subprocess_newv(argv, G_SUBPROCESS_FLAGS_STDOUT_PIPE, &error);
		check(tool != NULL);
		/* A line for the time before this, and it counts what comes from now on */
		while (byte != '\n')
			check(g_input_stream_read(g_subprocess_get_stdout_pipe(tool), &byte, 1,
						  NULL, &error) == 1);
		ft_wait_for(src, ft_state(src, FT_ST_COUNT) + 1000);
		ok(vm_stop(src, E));
		migrate(src, dst, NULL, &m);
		g_subprocess_send_signal(tool, SIGTERM);
		check(g_subprocess_communicate_utf8(tool, NULL, NULL, &out, NULL, &error));
		check(g_subprocess_get_successful(tool));
		writes = sum_of(out, "vcpu", "write");
		reads = sum_of(out, "migration", "read");
		print_message("vcpu wrote %" PRIu64 " pages, migration took %" PRIu64 "\n",
			      writes, reads);
		check(writes > 500);
		if (modes[i])
			check(reads < 100);
		else
			check(reads > 10000);
		g_free(out);
		g_object_unref(tool);
		vm_migration_clear(&m);
		vm_free(src);
		vm_free(dst);
	}
}

int main(int argc, char **argv)
{
	struct fph_tests t = { 0 };

	fph_test_add(&t, "tracer-superset-anon", test_superset, VM_RAM_ANON);
	fph_test_add(&t, "tracer-superset-memfd", test_superset, VM_RAM_MEMFD);
	fph_test_add_rows(&t, live, test_live);
	fph_test_add(&t, "tracer-inactive", test_inactive, NULL);
	fph_test_add(&t, "tracer-unloaded", test_unloaded, NULL);
	fph_test_add(&t, "kvm-tracer", test_kvm, NULL);
	fph_test_add(&t, "tracer-two", test_two, NULL);
	fph_test_add(&t, "tracer-kinds", test_kinds, NULL);

	return harness_main(argc, argv, &t, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How long fph-source makes others wait: the monitor, a virtual CPU and the I/O
 * of an iothread, in each of its modes, at each moment at which something is
 * asked of it, and without it. All modes by turns, in one run; with --busy three
 * loops beside it take the processors.
 *
 *	bench-stalls [--size MIB] [--rounds N] [--busy]
 *	bench-stalls --io [--size MIB] [--rounds N]
 *	bench-stalls --cancel [--size MIB] [--rounds N] [--busy]
 *
 * The guest is the firmware that counts (firsttouch), under KVM; its memory is
 * there from the start, in small pages, and mostly zero, which is what a
 * prescan and userfaultfd cost most for. The iothread serves a null-co disk by
 * NBD, and is asked for a block all the time. With --io only that is measured: how many
 * requests it answers in a second, without an object and while one with prescan, as it
 * is by default, looks at memory for the first time; by turns, in one QEMU. With --cancel
 * only the monitor's wait for a cancel is, in one QEMU as well.
 *
 * An object that is inactive does nothing: where it waits longer than none, that much is
 * chance.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"
#include "firsttouch.h"
#include "qmp.h"

#define WAIT_MS		120000
#define PRESCAN_MS	300000
#define ROUNDS_MAX	50
#define LOOPS		3
#define IO_SECONDS	3
/* Where the state of the firmware is read, and how often */
#define LOOK_US		200
#define LATE_US		1000

enum who { MONITOR, VCPU, IOTHREAD, WATCHED, DOWNTIME = WATCHED, WHOS };

/* Nobody watches the last one, QEMU says it */
static const char *const who_names[WHOS] = { "monitor", "vCPU", "iothread", "downtime" };

static const struct mode {
	const char *name;
	const char *properties;		/* NULL: no object */
} modes[] = {
	{ "none", NULL },
	{ "inactive", "\"mode\":\"pagemap\",\"scanner\":\"off\"" },
	{ "pagemap", "\"mode\":\"pagemap\"" },
	{ "both", "\"mode\":\"both\"" },
	{ "both+prescan", "\"mode\":\"both\",\"prescan\":true,\"prescan-cpu\":100" },
	{ "both+verify", "\"mode\":\"both\",\"verify\":\"report\"" },
};

enum moment { CAPABILITY, HOT_PLUG, MIGRATE, CANCEL, OBJECT_DEL, COMPLETION, MOMENTS };

static const char *const moment_names[MOMENTS] = {
	"background-snapshot", "hot-plug", "migrate", "cancel", "object-del", "completion",
};

/* Longest wait in microseconds */
static uint64_t results[MOMENTS][WHOS][G_N_ELEMENTS(modes)][ROUNDS_MAX];
/* Requests that the iothread answers in a second, right after the object came */
static uint64_t requests[G_N_ELEMENTS(modes)][ROUNDS_MAX];

/* One that is kept waiting, in a thread of its own */
struct watcher {
	GThread *thread;
	gint *end;			/* of all of them */
	uint64_t longest;		/* atomic: since it was last taken */
	int fd;				/* vCPU: memory of QEMU; iothread: NBD */
	gint hurry;			/* iothread: no pause between two requests */
	uint64_t done;			/* atomic; iothread: requests */
	uint64_t address;
	struct qmp *qmp;
};

static void waited(struct watcher *w, uint64_t us)
{
	uint64_t before = __atomic_load_n(&w->longest, __ATOMIC_RELAXED);

	while (us > before &&
	       !__atomic_compare_exchange_n(&w->longest, &before, us, false, __ATOMIC_RELAXED,
					    __ATOMIC_RELAXED))
		;
}

static gpointer watch_monitor(gpointer opaque)
{
	struct watcher *w = opaque;

	while (!g_atomic_int_get(w->end)) {
		gint64 start = g_get_monotonic_time();
		JsonNode *answer = qmp_command(w->qmp, WAIT_MS, NULL, "query-status", NULL);

		if (!answer)
			break;
		json_node_unref(answer);
		waited(w, g_get_monotonic_time() - start);
		g_usleep(500);
	}
	return NULL;
}

/* That we were late ourselves is not the guest's wait */
static gpointer watch_vcpu(gpointer opaque)
{
	struct watcher *w = opaque;
	gint64 last = g_get_monotonic_time(), now;
	uint32_t count = 0, seen = 0;
	uint64_t still = 0;

	while (!g_atomic_int_get(w->end)) {
		g_usleep(LOOK_US);
		if (pread(w->fd, &count, sizeof(count), w->address) != sizeof(count))
			break;
		now = g_get_monotonic_time();
		still = count == seen ? still + MIN(now - last, LATE_US) : 0;
		waited(w, still);
		seen = count;
		last = now;
	}
	return NULL;
}

struct nbd_request {
	uint32_t magic;
	uint16_t flags, type;
	uint64_t cookie, offset;
	uint32_t len;
} __attribute__((packed));

#define NBD_BLOCK	4096u

static bool receive(int fd, void *buf, size_t len)
{
	return recv(fd, buf, len, MSG_WAITALL) == (ssize_t)len;
}

static gpointer watch_iothread(gpointer opaque)
{
	struct nbd_request request = {
		.magic = GUINT32_TO_BE(0x25609513), .len = GUINT32_TO_BE(NBD_BLOCK),
	};
	char reply[16 + NBD_BLOCK];
	struct watcher *w = opaque;

	while (!g_atomic_int_get(w->end)) {
		gint64 start = g_get_monotonic_time();

		if (send(w->fd, &request, sizeof(request), MSG_NOSIGNAL) != sizeof(request) ||
		    !receive(w->fd, reply, sizeof(reply)))
			break;
		waited(w, g_get_monotonic_time() - start);
		__atomic_fetch_add(&w->done, 1, __ATOMIC_RELAXED);
		if (!g_atomic_int_get(&w->hurry))
			g_usleep(500);
	}
	return NULL;
}

/* The old way to choose an export, which needs no answer */
static int connect_nbd(const char *path)
{
	static const char option[] = "\0\0\0\3IHAVEOPT\0\0\0\1\0\0\0\2n0";
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char greeting[18], size[10];

	g_strlcpy(address.sun_path, path, sizeof(address.sun_path));
	if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 &&
	    receive(fd, greeting, sizeof(greeting)) &&
	    send(fd, option, sizeof(option) - 1, 0) == sizeof(option) - 1 &&
	    receive(fd, size, sizeof(size)))
		return fd;
	fprintf(stderr, "no NBD at %s\n", path);
	exit(EXIT_FAILURE);
}

struct bench {
	uint64_t memory;
	const char *bios;
	char *dir;			/* for sockets */
	struct vm *vm;
	gint end;
	struct watcher w[WATCHED];
};

static struct vm *start(const struct bench *b, bool source)
{
	g_autofree char *monitor = g_strdup_printf("socket,id=q2,path=%s/qmp,server=on,wait=off",
						   b->dir);
	const char *const extra[] = {
		"-device", "virtio-fph-pci,id=pv0", "-object", "iothread,id=io0",
		"-blockdev", "null-co,node-name=n0,size=1073741824,read-zeroes=on",
		"-chardev", monitor, "-mon", "chardev=q2,mode=control", NULL,
	};
	struct vm_config cfg = {
		.name = source ? "source" : "destination",
		.qemu = vm_default_qemu(),
		.memory = b->memory,
		.accel = "kvm",
		.bios = (char *)b->bios,
		.ram = source ? "memory-backend-ram,prealloc=on" : "memory-backend-ram",
		.incoming = !source,
		.paused = !source,
	};
	const char *const fewer[] = { extra[0], extra[1], NULL };
	struct vm *vm;

	cfg.extra = source ? extra : fewer;
	ok((vm = vm_start(&cfg, E)));
	return vm;
}

static void watch(struct bench *b)
{
	GThreadFunc watchers[WATCHED] = { watch_monitor, watch_vcpu, watch_iothread };
	g_autofree char *memory = g_strdup_printf("/proc/%d/mem", (int)vm_pid(b->vm));
	g_autofree char *qmp = g_build_filename(b->dir, "qmp", NULL);
	g_autofree char *nbd = g_build_filename(b->dir, "nbd", NULL);
	g_autoptr(GPtrArray) blocks = NULL;

	ok((blocks = vm_ram_blocks(b->vm, E)));
	for (guint i = 0; i < blocks->len; i++) {
		const struct vm_block *block = blocks->pdata[i];

		if (strcmp(block->name, "ram0") == 0)
			b->w[VCPU].address = block->hva + FT_STATE_ADDR + FT_ST_COUNT;
	}
	b->w[VCPU].fd = open(memory, O_RDONLY | O_CLOEXEC);
	ok((b->w[MONITOR].qmp = qmp_connect(qmp, WAIT_MS, E)));
	ok(vm_run(b->vm, E, "nbd-server-start",
		  "{\"addr\":{\"type\":\"unix\",\"data\":{\"path\":\"%s\"}}}", nbd));
	ok(vm_run(b->vm, E, "block-export-add", "{\"type\":\"nbd\",\"id\":\"e0\","
		  "\"node-name\":\"n0\",\"name\":\"n0\",\"iothread\":\"io0\"}"));
	b->w[IOTHREAD].fd = connect_nbd(nbd);
	b->end = 0;
	for (int i = 0; i < WATCHED; i++) {
		b->w[i].end = &b->end;
		b->w[i].thread = g_thread_new(who_names[i], watchers[i], &b->w[i]);
	}
}

static void unwatch(struct bench *b)
{
	g_atomic_int_set(&b->end, 1);
	for (int i = 0; i < WATCHED; i++)
		g_thread_join(b->w[i].thread);
	qmp_close(b->w[MONITOR].qmp);
	close(b->w[VCPU].fd);
	close(b->w[IOTHREAD].fd);
}

/* From here to take(), which also waits a moment for what comes of it */
static void begin(struct bench *b)
{
	for (int i = 0; i < WATCHED; i++)
		__atomic_store_n(&b->w[i].longest, 0, __ATOMIC_RELAXED);
}

static void take(struct bench *b, enum moment moment, size_t mode, unsigned int round)
{
	g_usleep(200000);
	for (int i = 0; i < WATCHED; i++)
		results[moment][i][mode][round] = __atomic_load_n(&b->w[i].longest,
								  __ATOMIC_RELAXED);
}

static pid_t loops[LOOPS];

static void signal_loops(int signal)
{
	for (int i = 0; i < LOOPS; i++)
		if (loops[i] > 0)
			kill(loops[i], signal);
}

static void end_loops(void)
{
	for (int i = 0; i < LOOPS; i++) {
		if (loops[i] > 0) {
			kill(loops[i], SIGKILL);
			waitpid(loops[i], NULL, 0);
		}
	}
}

static void add_object(struct bench *b, const struct mode *mode)
{
	if (mode->properties)
		ok(vm_run(b->vm, E, "object-add",
			  "{\"qom-type\":\"fph-source\",\"id\":\"fph0\",%s}", mode->properties));
}

static uint64_t requests_per_second(struct bench *b)
{
	struct watcher *w = &b->w[IOTHREAD];
	uint64_t before, after;

	g_atomic_int_set(&w->hurry, 1);
	before = __atomic_load_n(&w->done, __ATOMIC_RELAXED);
	g_usleep(IO_SECONDS * G_USEC_PER_SEC);
	after = __atomic_load_n(&w->done, __ATOMIC_RELAXED);
	g_atomic_int_set(&w->hurry, 0);
	return (after - before) / IO_SECONDS;
}

static void wait_for_prescan(struct bench *b, const struct mode *mode)
{
	if (!mode->properties || !strstr(mode->properties, "prescan"))
		return;
	/* Its thread would have to wait for ever */
	signal_loops(SIGSTOP);
	ok(vm_prescan_wait(b->vm, PRESCAN_MS, E));
	signal_loops(SIGCONT);
}

static void snapshot(struct bench *b, bool on)
{
	ok(vm_run(b->vm, E, "migrate-set-capabilities", "{\"capabilities\":[{\"capability\":"
		  "\"background-snapshot\",\"state\":%s}]}", on ? "true" : "false"));
}

static const struct vm_migrate_opts slowly = { .max_bandwidth = 1 << 20, .timeout_ms = WAIT_MS };

static void migrate_and_cancel(struct bench *b, size_t mode, unsigned int round)
{
	struct vm_migration m = { 0 };
	struct vm *dst = start(b, false);

	begin(b);
	ok(vm_migrate_start(b->vm, dst, &slowly, &m, E));
	g_usleep(300000);
	take(b, MIGRATE, mode, round);
	begin(b);
	ok(vm_migrate_cancel(b->vm, WAIT_MS, E));
	take(b, CANCEL, mode, round);
	vm_free(dst);
	vm_migration_clear(&m);
}

static void delete_object(struct bench *b, const struct mode *mode)
{
	if (mode->properties)
		ok(vm_run(b->vm, E, "object-del", "{\"id\":\"fph0\"}"));
}

static void measure(struct bench *b, size_t mode, unsigned int round)
{
	struct vm_migrate_opts fast = { .timeout_ms = WAIT_MS };
	struct vm_migration m = { 0 };
	struct vm *dst;

	b->vm = start(b, true);
	watch(b);
	add_object(b, &modes[mode]);
	requests[mode][round] = requests_per_second(b);
	wait_for_prescan(b, &modes[mode]);

	begin(b);
	snapshot(b, true);
	take(b, CAPABILITY, mode, round);
	snapshot(b, false);

	begin(b);
	ok(vm_run(b->vm, E, "device_add", "{\"driver\":\"virtio-balloon-pci\",\"id\":\"b0\"}"));
	take(b, HOT_PLUG, mode, round);

	migrate_and_cancel(b, mode, round);

	begin(b);
	delete_object(b, &modes[mode]);
	take(b, OBJECT_DEL, mode, round);

	/* The destination has what came by hot-plug from the start */
	unwatch(b);
	vm_free(b->vm);
	b->vm = start(b, true);
	watch(b);
	add_object(b, &modes[mode]);
	wait_for_prescan(b, &modes[mode]);
	dst = start(b, false);
	begin(b);
	ok(vm_migrate(b->vm, dst, &fast, &m, E));
	unwatch(b);	/* to the guest the downtime is a wait as well */
	for (int i = 0; i < WATCHED; i++)
		results[COMPLETION][i][mode][round] = b->w[i].longest;
	results[COMPLETION][DOWNTIME][mode][round] = m.downtime_ms * 1000;
	vm_free(dst);
	vm_free(b->vm);
	vm_migration_clear(&m);
}

static void measure_io(struct bench *b, unsigned int rounds)
{
	static const struct mode prescan = { "prescan", "\"mode\":\"both\",\"prescan\":true" };
	uint64_t without[ROUNDS_MAX], with[ROUNDS_MAX];

	b->vm = start(b, true);
	watch(b);
	for (unsigned int i = 0; i < rounds; i++) {
		without[i] = requests_per_second(b);
		add_object(b, &prescan);
		with[i] = requests_per_second(b);
		ok(vm_run(b->vm, E, "object-del", "{\"id\":\"fph0\"}"));
		printf("%" PRIu64 " %" PRIu64 "\n", without[i], with[i]);
		fflush(stdout);
	}
	unwatch(b);
	vm_free(b->vm);
	qsort(without, rounds, sizeof(*without), bench_compare);
	qsort(with, rounds, sizeof(*with), bench_compare);
	printf("requests per second, medians of %u: %" PRIu64 " without, %" PRIu64
	       " with prescan: %.1f%%\n", rounds, without[rounds / 2], with[rounds / 2],
	       100.0 * with[rounds / 2] / without[rounds / 2]);
}

static void measure_cancels(struct bench *b, unsigned int rounds)
{
	b->vm = start(b, true);
	watch(b);
	for (unsigned int round = 0; round < rounds; round++) {
		for (size_t k = 0; k < G_N_ELEMENTS(modes); k++) {
			size_t mode = (k + round) % G_N_ELEMENTS(modes);

			add_object(b, &modes[mode]);
			wait_for_prescan(b, &modes[mode]);
			migrate_and_cancel(b, mode, round);
			delete_object(b, &modes[mode]);
			printf("%s: %.1f\n", modes[mode].name,
			       results[CANCEL][MONITOR][mode][round] / 1000.0);
			fflush(stdout);
		}
	}
	unwatch(b);
	vm_free(b->vm);
}

static void measure_stalls(struct bench *b, unsigned int rounds)
{
	for (unsigned int round = 0; round < rounds; round++) {
		for (size_t k = 0; k < G_N_ELEMENTS(modes); k++) {
			/* Nobody is always first */
			size_t mode = (k + round) % G_N_ELEMENTS(modes);
			gint64 start_us = g_get_monotonic_time();

			measure(b, mode, round);
			printf("round %u, %s: %.1f s\n", round + 1, modes[mode].name,
			       (g_get_monotonic_time() - start_us) / 1e6);
			fflush(stdout);
		}
	}
}

static void print_waits(enum moment first, enum moment last, unsigned int rounds)
{
	printf("\nmedian/longest wait in ms, of %u rounds\n%-20s %-9s", rounds, "", "");
	for (size_t k = 0; k < G_N_ELEMENTS(modes); k++)
		printf(" %15s", modes[k].name);
	putchar('\n');
	for (unsigned int i = first; i <= last; i++) {
		for (int w = 0; w < (i == COMPLETION ? WHOS : WATCHED); w++) {
			printf("%-20s %-9s", w ? "" : moment_names[i], who_names[w]);
			for (size_t k = 0; k < G_N_ELEMENTS(modes); k++) {
				uint64_t *v = results[i][w][k];

				qsort(v, rounds, sizeof(*v), bench_compare);
				printf(" %7.1f/%7.1f", v[rounds / 2] / 1000.0,
				       v[rounds - 1] / 1000.0);
			}
			putchar('\n');
		}
	}
}

static void print_requests(unsigned int rounds)
{
	printf("requests per second, median/least\n%-30s", "");
	for (size_t k = 0; k < G_N_ELEMENTS(modes); k++) {
		qsort(requests[k], rounds, sizeof(requests[k][0]), bench_compare);
		printf(" %7" PRIu64 "/%7" PRIu64, requests[k][rounds / 2], requests[k][0]);
	}
	putchar('\n');
}

static void start_loops(void)
{
	atexit(end_loops);
	for (int i = 0; i < LOOPS; i++) {
		loops[i] = fork();
		if (loops[i] == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			for (;;)
				__asm__ volatile("");
		}
	}
}

/* It writes to 16 MiB all the time, a page in some 10 us, which is what it counts */
static char *make_bios(const char *dir)
{
	static const uint32_t settings[][2] = {
		{ FT_SET_END, 32 << 20 }, { FT_SET_DELAY, 20000 },
	};
	char *path = g_build_filename(dir, "bios", NULL);
	g_autofree char *image = NULL;
	gsize size;

	ok(g_file_get_contents(g_getenv("FPH_TEST_FIRSTTOUCH"), &image, &size, E));
	for (size_t i = 0; i < G_N_ELEMENTS(settings); i++)
		memcpy(image + settings[i][0], &settings[i][1], sizeof(uint32_t));
	ok(g_file_set_contents(path, image, size, E));
	return path;
}

int main(int argc, char **argv)
{
	gint size = 4096, rounds = 3;
	gboolean busy = FALSE, io = FALSE, cancel = FALSE;
	const GOptionEntry entries[] = {
		{ "size", 0, 0, G_OPTION_ARG_INT, &size, "MiB of the guest", "MIB" },
		{ "rounds", 0, 0, G_OPTION_ARG_INT, &rounds, "how often each mode", "N" },
		{ "busy", 0, 0, G_OPTION_ARG_NONE, &busy, "three loops beside it", NULL },
		{ "io", 0, 0, G_OPTION_ARG_NONE, &io, "only requests to the iothread", NULL },
		{ "cancel", 0, 0, G_OPTION_ARG_NONE, &cancel, "only cancels", NULL },
		{ NULL },
	};
	g_autoptr(GOptionContext) context = g_option_context_new(NULL);
	struct bench b = { 0 };

	g_option_context_add_main_entries(context, entries, NULL);
	ok(g_option_context_parse(context, &argc, &argv, E));
	if (size < 64 || rounds < 1 || rounds > ROUNDS_MAX) {
		fputs("--size takes MiB from 64, --rounds from 1 to 50\n", stderr);
		return EXIT_FAILURE;
	}
	if (access("/dev/kvm", R_OK | W_OK) < 0 || !g_getenv("FPH_TEST_FIRSTTOUCH")) {
		puts("SKIP: needs /dev/kvm, and FPH_TEST_FIRSTTOUCH");
		return 77;
	}
	atexit(vm_free_all);
	/* Small pages, of the QEMUs too */
	prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
	b.memory = (uint64_t)size << 20;
	ok((b.dir = g_dir_make_tmp("fph-stalls-XXXXXX", E)));
	b.bios = make_bios(b.dir);
	if (busy)
		start_loops();
	printf("%d MiB in small pages%s\n", size, busy ? ", three loops beside it" : "");
	if (io) {
		measure_io(&b, rounds);
	} else if (cancel) {
		measure_cancels(&b, rounds);
		print_waits(MIGRATE, CANCEL, rounds);
	} else {
		measure_stalls(&b, rounds);
		print_waits(0, MOMENTS - 1, rounds);
		print_requests(rounds);
	}
	for (int i = 0; i < 3; i++) {
		static const char *const names[] = { "bios", "qmp", "nbd" };
		g_autofree char *path = g_build_filename(b.dir, names[i], NULL);

		unlink(path);
	}
	rmdir(b.dir);
	return EXIT_SUCCESS;
}

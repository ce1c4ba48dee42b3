/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How long it takes to inflate and deflate a balloon, QEMU's own against that
 * of virtio-fph, and what it costs. The two take turns, so that what else the
 * machine does hits both; the table has medians.
 *
 *	balloon-bench [-r RUNS] [-m MEMORY_MIB] [-b BALLOON_MIB] [-t] [-a APPEND]
 *
 * -t: the guest has used all that goes into the balloon, so that the host has
 * memory to discard. -a: for the guest's kernel. Calls of madvise() are counted
 * where the kernel lets us (root, and tracefs on /sys/kernel/tracing).
 */
#include <dirent.h>
#include <inttypes.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vm.h"

#define MIB		(UINT64_C(1) << 20)
#define RUNS_MAX	31
#define WAIT_MS		600000

enum { STOCK, FPH, KINDS };
enum { INFLATE, DEFLATE, PHASES };

static const struct kind {
	const char *name;
	const char *device;
	const char *module;
	const char *virtio;	/* its name in x-query-virtio */
	unsigned int queue[PHASES];
} kinds[KINDS] = {
	[STOCK] = { "virtio-balloon", "virtio-balloon-pci", "virtio_balloon", "virtio-balloon", { 0, 1 } },
	[FPH] = { "virtio-fph", "virtio-fph-pci,balloon=on", "virtio_fph", "virtio-fph", { 2, 2 } },
};

enum { TIME, FRAMES, IRQS, MADVISE, GUEST_CPU, HOST_CPU, FIGURES };

static const char *const figure_names[FIGURES] = {
	"time, ms", "frames", "interrupts", "madvise() calls", "guest CPU, ms", "QEMU CPU, ms",
};

static double results[KINDS][PHASES][FIGURES][RUNS_MAX];

static uint64_t memory = 8192 * MIB, balloon = 6144 * MIB;
static unsigned int runs = 3;
static bool touch;
static const char *append = "";

G_GNUC_NORETURN G_GNUC_PRINTF(1, 2)
static void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(EXIT_FAILURE);
}

#define ok(call) do {							\
	GError *error_ = NULL;						\
	if (!(call) || error_)						\
		die("%s", error_ ? error_->message : #call);		\
} while (0)

#define E (&error_)

/* Counters of madvise(), one for each thread of QEMU */

static GArray *open_counters(struct vm *vm)
{
	static const char id_path[] = "/sys/kernel/tracing/events/syscalls/sys_enter_madvise/id";
	g_autofree char *tasks = g_strdup_printf("/proc/%d/task", (int)vm_pid(vm));
	g_autofree char *id = NULL;
	struct perf_event_attr attr = { .type = PERF_TYPE_TRACEPOINT, .size = sizeof(attr) };
	GArray *fds = g_array_new(FALSE, FALSE, sizeof(int));
	const struct dirent *d;
	DIR *dir;

	if (!g_file_get_contents(id_path, &id, NULL, NULL))
		return fds;
	attr.config = g_ascii_strtoull(id, NULL, 10);
	dir = opendir(tasks);
	while (dir && (d = readdir(dir))) {
		int fd = atoi(d->d_name) ?
			 (int)syscall(SYS_perf_event_open, &attr, atoi(d->d_name), -1, -1, 0) : -1;

		if (fd >= 0)
			g_array_append_val(fds, fd);
	}
	if (dir)
		closedir(dir);
	return fds;
}

static double read_counters(GArray *fds)
{
	double sum = fds->len ? 0 : -1;

	for (guint i = 0; i < fds->len; i++) {
		uint64_t n = 0;

		if (read(g_array_index(fds, int, i), &n, sizeof(n)) == sizeof(n))
			sum += n;
	}
	return sum;
}

static void close_counters(GArray *fds)
{
	for (guint i = 0; i < fds->len; i++)
		close(g_array_index(fds, int, i));
	g_array_unref(fds);
}

/* Chains that the driver has put on the queue; the counter has 16 bits */
static unsigned int frames(struct vm *vm, const struct kind *k, unsigned int queue)
{
	g_autofree char *path = NULL;
	JsonNode *node;
	unsigned int n;

	ok((node = vm_command(vm, E, "x-query-virtio", NULL)));
	for (guint i = 0; i < json_array_get_length(json_node_get_array(node)); i++) {
		JsonObject *o = json_array_get_object_element(json_node_get_array(node), i);

		if (!strcmp(json_object_get_string_member(o, "name"), k->virtio))
			path = g_strdup(json_object_get_string_member(o, "path"));
	}
	json_node_unref(node);
	if (!path)
		die("x-query-virtio knows no %s", k->virtio);
	ok((node = vm_command(vm, E, "x-query-virtio-queue-status", "{\"path\":\"%s\",\"queue\":%u}",
			      path, queue)));
	n = json_object_get_int_member(json_node_get_object(node), "last-avail-idx");
	json_node_unref(node);
	return n;
}

static void guest_usage(struct vm *vm, double *irqs, double *busy_ms)
{
	g_autofree char *answer = NULL;
	unsigned long long i, b;

	ok((answer = vm_guest_command(vm, WAIT_MS, E, "usage")));
	if (sscanf(answer, "ok usage irqs=%llu busy_ms=%llu", &i, &b) != 2)
		die("guest: %s", answer);
	*irqs = i;
	*busy_ms = b;
}

static void wait_for_size(struct vm *vm, uint64_t size)
{
	uint64_t actual = 0;

	for (gint64 end = g_get_monotonic_time() + WAIT_MS * 1000; g_get_monotonic_time() < end; ) {
		JsonNode *node;

		ok((node = vm_command(vm, E, "query-balloon", NULL)));
		actual = json_object_get_int_member(json_node_get_object(node), "actual");
		json_node_unref(node);
		if (actual == size)
			return;
		g_usleep(1000);
	}
	die("%s: %" PRIu64 " bytes instead of %" PRIu64, vm_name(vm), actual, size);
}

static void phase(struct vm *vm, const struct kind *k, unsigned int what, double *ret[FIGURES])
{
	uint64_t size = what == INFLATE ? memory - balloon : memory;
	struct vm_usage before, after;
	double irqs, busy, irqs_after, busy_after, calls;
	unsigned int n = frames(vm, k, k->queue[what]);
	GArray *counters = open_counters(vm);
	gint64 start;

	guest_usage(vm, &irqs, &busy);
	ok(vm_usage(vm, &before, E));
	calls = read_counters(counters);
	start = g_get_monotonic_time();
	ok(vm_run(vm, E, "balloon", "{\"value\":%" PRIu64 "}", size));
	wait_for_size(vm, size);
	*ret[TIME] = (g_get_monotonic_time() - start) / 1000.0;
	*ret[MADVISE] = calls < 0 ? -1 : read_counters(counters) - calls;
	ok(vm_usage(vm, &after, E));
	guest_usage(vm, &irqs_after, &busy_after);
	*ret[FRAMES] = (uint16_t)(frames(vm, k, k->queue[what]) - n);
	*ret[IRQS] = irqs_after - irqs;
	*ret[GUEST_CPU] = busy_after - busy;
	*ret[HOST_CPU] = after.cpu_ms - before.cpu_ms;
	close_counters(counters);
	fprintf(stderr, "%s, %s: %.1f ms, RSS %" PRIu64 " -> %" PRIu64 " MiB\n", k->name,
		what == INFLATE ? "inflate" : "deflate", *ret[TIME], before.rss_kib / 1024,
		after.rss_kib / 1024);
}

static void run(unsigned int kind, unsigned int i)
{
	const struct kind *k = &kinds[kind];
	const char *const extra[] = { "-device", k->device, NULL };
	g_autofree char *qemu = vm_default_qemu();
	g_autofree char *kernel = vm_default_kernel();
	g_autofree char *initrd = vm_default_initrd();
	g_autofree char *line = g_strdup_printf(VM_APPEND " fph.modules=%s %s", k->module, append);
	struct vm_config cfg = {
		.name = k->name, .qemu = qemu, .memory = memory, .smp = 2,
		.kernel = kernel, .initrd = initrd, .append = line, .extra = extra,
	};
	struct vm *vm;

	ok((vm = vm_start(&cfg, E)));
	ok(vm_guest_wait_ready(vm, WAIT_MS, E));
	if (touch) {
		g_autofree char *answer = NULL;

		ok((answer = vm_guest_command(vm, WAIT_MS, E, "fill %" PRIu64 "M",
					      (balloon + (memory - balloon) / 2) / MIB)));
		g_free(answer);
		ok((answer = vm_guest_command(vm, WAIT_MS, E, "free")));
	}
	ok(vm_guest_settle(vm, 20000, E));
	for (unsigned int what = 0; what < PHASES; what++) {
		double *ret[FIGURES];

		for (unsigned int f = 0; f < FIGURES; f++)
			ret[f] = &results[kind][what][f][i];
		phase(vm, k, what, ret);
		ok(vm_guest_settle(vm, 20000, E));
	}
	vm_free(vm);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double median(const double *values)
{
	double v[RUNS_MAX];

	memcpy(v, values, runs * sizeof(*v));
	qsort(v, runs, sizeof(*v), compare);
	return runs % 2 ? v[runs / 2] : (v[runs / 2 - 1] + v[runs / 2]) / 2;
}

static void print_figure(double v)
{
	if (v < 0)
		printf(" %12s", "?");
	else
		printf(" %12.*f", v < 100 && v != (uint64_t)v ? 1 : 0, v);
}

static void print_table(void)
{
	static const char *const phases[] = { "inflate", "deflate" };

	printf("%" PRIu64 " of %" PRIu64 " MiB, %s; medians of %u runs by turns\n\n", balloon / MIB,
	       memory / MIB, touch ? "which the guest had used" : "never touched", runs);
	printf("%-26s %12s %12s %8s\n", "", kinds[STOCK].name, kinds[FPH].name, "ratio");
	for (unsigned int p = 0; p < PHASES; p++) {
		for (unsigned int f = 0; f < FIGURES; f++) {
			double stock = median(results[STOCK][p][f]), fph = median(results[FPH][p][f]);

			printf("%s: %-17s", phases[p], figure_names[f]);
			print_figure(stock);
			print_figure(fph);
			if (stock > 0 && fph >= 0)
				printf(" %7.2f%%", 100 * fph / stock);
			putchar('\n');
		}
	}
}

int main(int argc, char **argv)
{
	int c;

	while ((c = getopt(argc, argv, "r:m:b:ta:")) != -1) {
		switch (c) {
		case 'r': runs = atoi(optarg); break;
		case 'm': memory = g_ascii_strtoull(optarg, NULL, 10) * MIB; break;
		case 'b': balloon = g_ascii_strtoull(optarg, NULL, 10) * MIB; break;
		case 't': touch = true; break;
		case 'a': append = optarg; break;
		default: die("usage: %s [-r RUNS] [-m MIB] [-b MIB] [-t] [-a APPEND]", argv[0]);
		}
	}
	if (optind < argc || !runs || runs > RUNS_MAX || !balloon || balloon >= memory)
		die("1 to %d runs, and a balloon smaller than memory", RUNS_MAX);
	atexit(vm_free_all);
	for (unsigned int i = 0; i < runs; i++) {
		run(i % 2 ? FPH : STOCK, i);
		run(i % 2 ? STOCK : FPH, i);
	}
	print_table();
	return EXIT_SUCCESS;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "balloon.h"
#include "io.h"

#include <dirent.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SETTLE_MS	15000
#define POLL_US		1000
#define MADVISE_ID	"/sys/kernel/tracing/events/syscalls/sys_enter_madvise/id"

/* Counters of madvise(), one for each thread of QEMU; none if that is not possible. */
static GArray *open_counters(struct vm *vm)
{
	g_autofree char *tasks = g_strdup_printf("/proc/%d/task", (int)vm_pid(vm));
	struct perf_event_attr attr = { .type = PERF_TYPE_TRACEPOINT, .size = sizeof(attr) };
	GArray *fds = g_array_new(FALSE, FALSE, sizeof(int));
	g_autoptr(GDir) dir = NULL;
	g_autofree char *id = NULL;
	const char *task;

	if (!g_file_get_contents(MADVISE_ID, &id, NULL, NULL))
		return fds;
	attr.config = g_ascii_strtoull(id, NULL, 10);
	dir = g_dir_open(tasks, 0, NULL);
	while (dir && (task = g_dir_read_name(dir))) {
		int fd = syscall(SYS_perf_event_open, &attr, atoi(task), -1, -1, 0);

		if (fd >= 0)
			g_array_append_val(fds, fd);
	}
	return fds;
}

static guint64 read_counters(const GArray *fds)
{
	guint64 sum = 0;
	guint i;

	for (i = 0; i < fds->len; i++) {
		guint64 n;

		if (read(g_array_index(fds, int, i), &n, sizeof(n)) == sizeof(n))
			sum += n;
	}
	return sum;
}

static void close_counters(GArray *fds)
{
	guint i;

	for (i = 0; i < fds->len; i++)
		close(g_array_index(fds, int, i));
	g_array_unref(fds);
}

/* Chains of buffers that the driver has put on a queue so far, modulo 2^16. */
static bool read_frames(struct vm *vm, const char *virtio, int queue, guint16 *ret, GError **error)
{
	g_autoptr(JsonNode) devices = vm_command(vm, error, "x-query-virtio", NULL);
	g_autoptr(JsonNode) status = NULL;
	const char *path = NULL;
	JsonArray *list;
	guint i;

	if (!devices)
		return false;
	list = json_node_get_array(devices);
	for (i = 0; i < json_array_get_length(list); i++) {
		JsonObject *o = json_array_get_object_element(list, i);

		if (strcmp(json_object_get_string_member(o, "name"), virtio) == 0)
			path = json_object_get_string_member(o, "path");
	}
	if (!path) {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND, "QEMU has no %s", virtio);
		return false;
	}
	status = vm_command(vm, error, "x-query-virtio-queue-status",
			    "{\"path\":\"%s\",\"queue\":%d}", path, queue);
	if (!status)
		return false;
	*ret = json_object_get_int_member(json_node_get_object(status), "last-avail-idx");
	return true;
}

struct cost {
	guint16 frames;
	guint64 irqs, calls, guest_ms, cpu_ms, faults;
	guint64 rss_kib, peak_kib;
};

static bool read_cost(struct vm *vm, const struct device *d, int queue, const GArray *counters,
		      int timeout_ms, struct cost *ret, GError **error)
{
	g_autofree char *answer = NULL;
	struct vm_usage usage;

	answer = vm_guest_command(vm, timeout_ms, error, "usage");
	if (!answer)
		return false;
	if (sscanf(answer, "ok usage irqs=%" G_GUINT64_FORMAT " busy_ms=%" G_GUINT64_FORMAT,
		   &ret->irqs, &ret->guest_ms) != 2) {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
			    "the guest's answer to 'usage' is '%s'", answer);
		return false;
	}
	if (!read_frames(vm, d->virtio, queue, &ret->frames, error) || !vm_usage(vm, &usage, error))
		return false;
	ret->cpu_ms = usage.cpu_ms;
	ret->faults = usage.faults;
	ret->rss_kib = usage.rss_kib;
	ret->peak_kib = usage.rss_peak_kib;
	ret->calls = read_counters(counters);
	return true;
}

bool balloon_go_to(struct vm *vm, guint64 size, int timeout_ms, GError **error)
{
	gint64 deadline = g_get_monotonic_time() + timeout_ms * INT64_C(1000);
	gint64 actual;

	if (!vm_run(vm, error, "balloon", "{\"value\":%" G_GUINT64_FORMAT "}", size))
		return false;
	do {
		g_autoptr(JsonNode) node = vm_command(vm, error, "query-balloon", NULL);

		if (!node)
			return false;
		actual = json_object_get_int_member(json_node_get_object(node), "actual");
		if ((guint64)actual == size)
			return true;
		g_usleep(POLL_US);
	} while (g_get_monotonic_time() < deadline);
	g_set_error(error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT,
		    "the balloon is at %" G_GINT64_FORMAT " MiB instead of %" G_GUINT64_FORMAT,
		    actual >> 20, size >> 20);
	return false;
}

/* VmHWM counts from now on; proc_pid_clear_refs(5) */
static bool reset_peak(pid_t pid)
{
	g_autofree char *path = g_strdup_printf("/proc/%d/clear_refs", (int)pid);
	FILE *f = fopen(path, "we");
	bool done = f && fputs("5", f) >= 0;

	return f && fclose(f) == 0 && done;
}

static guint64 more(guint64 a, guint64 than)
{
	return a > than ? a - than : 0;
}

/*
 * @size: to be reached, by @bytes that change hands; @v: V_INFLATE_NS, V_DEFLATE_NS and
 * what follows them in both; @c: before and after
 */
static bool measure(struct vm *vm, const struct device *d, int queue, guint64 size,
		    guint64 bytes, int timeout_ms, guint64 *v, struct cost c[2], GError **error)
{
	GArray *counters = open_counters(vm);
	gint64 start, end;
	bool ok;

	ok = read_cost(vm, d, queue, counters, timeout_ms, &c[0], error);
	start = g_get_monotonic_time();
	ok = ok && balloon_go_to(vm, size, timeout_ms, error);
	end = g_get_monotonic_time();
	ok = ok && read_cost(vm, d, queue, counters, timeout_ms, &c[1], error);
	if (ok) {
		v[0] = (end - start) * 1000;
		/* A chain names 256 pages or more, and this counts 2^16 of them */
		v[1] = bytes >> 20 < 65536 ? (guint16)(c[1].frames - c[0].frames) : NO_VALUE;
		v[2] = c[1].irqs - c[0].irqs;
		v[3] = counters->len ? c[1].calls - c[0].calls : NO_VALUE;
		v[4] = c[1].guest_ms - c[0].guest_ms;
		v[5] = c[1].cpu_ms - c[0].cpu_ms;
		v[6] = c[1].faults - c[0].faults;
	}
	close_counters(counters);
	return ok && vm_guest_settle(vm, SETTLE_MS, error);
}

bool balloon_measure(struct vm *vm, const struct device *d, const struct scenario *s,
		     int timeout_ms, struct run *ret, GError **error)
{
	bool peak_known = reset_peak(vm_pid(vm));
	struct cost c[2];

	if (!measure(vm, d, d->queue_inflate, s->memory - s->balloon, s->balloon,
		     timeout_ms, &ret->v[V_INFLATE_NS], c, error))
		return false;
	ret->v[V_INFLATE_RETURNED] = more(c[0].rss_kib, c[1].rss_kib) << 10;
	if (peak_known)
		ret->v[V_INFLATE_PEAK] = more(c[1].peak_kib, c[0].rss_kib) << 10;
	return measure(vm, d, d->queue_deflate, s->memory, s->balloon, timeout_ms,
		       &ret->v[V_DEFLATE_NS], c, error);
}

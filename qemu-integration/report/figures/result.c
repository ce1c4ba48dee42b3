/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "result.h"

#include <gio/gio.h>
#include <string.h>

const struct value_desc value_descs[V_COUNT] = {
	[V_TOTAL_MS] = { "total_ms", "total time of the migration, by QEMU", false },
	[V_DOWNTIME_MS] = { "downtime_ms", "guest stopped, until all was sent, by QEMU", false },
	[V_SETUP_MS] = { "setup_ms", "setup time, by QEMU", false },
	[V_WALL_MS] = { "wall_ms", "from the command until both sides were done", true },
	[V_BYTES] = { "bytes", "bytes sent", false },
	[V_MULTIFD_BYTES] = { "multifd_bytes", "those that connections of multifd took", true },
	[V_SYNCS] = { "dirty_syncs", "dirty bitmap synchronizations", true },
	[V_SENT] = { "pages.sent", "pages sent with their content", false },
	[V_ZERO] = { "pages.zero", "pages read, found to be zero, sent as such", false },
	[V_UNMAPPED] = { "pages.unmapped", "pages left out: nothing was mapped there", false },
	[V_ZERO_MAPPED] = { "pages.zero_mapped", "pages left out: the zero page was mapped", false },
	[V_ZERO_CONTENT] = { "pages.zero_content", "pages left out: prescan had read zeroes there", true },
	[V_FREE] = { "pages.free", "pages left out: the guest said they are free", true },
	[V_SKIPPED] = { "pages.skipped", "pages left out at the end", false },
	[V_RESENT] = { "pages.resent", "pages left out first, then dirtied and due again", false },
	[V_GUEST_ONLY] = { "pages.guest_only", "pages left out that only the guest knew of", true },
	[V_HOST_ONLY] = { "pages.host_only", "pages left out that only the host knew of", true },
	[V_BOTH] = { "pages.both", "pages left out that both knew of", true },
	[V_SRC_BEFORE] = { "rss_kib.source.before", "resident memory of the source, idle", true },
	[V_SRC_AFTER] = { "rss_kib.source.after", "right after completion", true },
	[V_DST_BEFORE] = { "rss_kib.destination.before", "the same of the destination, waiting", true },
	[V_DST_AFTER] = { "rss_kib.destination.after", "right after completion", true },
	[V_SRC_CPU] = { "cpu_ms.source", "CPU time of the source during the migration", true },
	[V_DST_CPU] = { "cpu_ms.destination", "the same of the destination", true },
	[V_GUEST_CPU] = { "cpu_ms.guest", "the part of the source's for virtual CPUs", true },
	[V_SRC_SYSTEM] = { "system_ms.source", "the part of the source's in the kernel", true },
	[V_DST_SYSTEM] = { "system_ms.destination", "the same of the destination", true },
	[V_SRC_FAULTS] = { "faults.source", "page faults of the source meanwhile", true },
	[V_DST_FAULTS] = { "faults.destination", "the same of the destination", true },
	[V_SRC_MIGR_FAULTS] = { "tracer.source.migration.faults", "faults of migration threads, in guest memory", true },
	[V_SRC_MIGR_TAKEN] = { "tracer.source.migration.taken", "pages that got memory by that", true },
	[V_SRC_VCPU_FAULTS] = { "tracer.source.vcpu.faults", "faults of virtual CPUs", true },
	[V_SRC_VCPU_TAKEN] = { "tracer.source.vcpu.taken", "pages that got memory by that", true },
	[V_SRC_OTHER_FAULTS] = { "tracer.source.other.faults", "faults of all other threads", true },
	[V_SRC_OTHER_TAKEN] = { "tracer.source.other.taken", "pages that got memory by that", true },
	[V_SRC_GIVEN_BACK] = { "tracer.source.given_back", "pages that lost theirs", true },
	[V_DST_RECV_FAULTS] = { "tracer.destination.receiving.faults", "faults of threads that receive", true },
	[V_DST_RECV_TAKEN] = { "tracer.destination.receiving.taken", "pages that got memory by that", true },
	[V_DST_VCPU_FAULTS] = { "tracer.destination.vcpu.faults", "faults of virtual CPUs", true },
	[V_DST_VCPU_TAKEN] = { "tracer.destination.vcpu.taken", "pages that got memory by that", true },
	[V_DST_OTHER_FAULTS] = { "tracer.destination.other.faults", "faults of all other threads", true },
	[V_DST_OTHER_TAKEN] = { "tracer.destination.other.taken", "pages that got memory by that", true },
	[V_DST_GIVEN_BACK] = { "tracer.destination.given_back", "pages that lost theirs", true },
	[V_TRACER_NS] = { "tracer.ns", "time in the tracer's programs meanwhile", true },
	[V_TRACER_RUNS] = { "tracer.runs", "how often they ran, for whatever process", true },
	[V_TRACER_LOST] = { "tracer.lost", "events that they did not record", true },
	[V_FILE_BYTES] = { "file.bytes", "room that the file takes on its disk", true },
	[V_LOAD_NS] = { "file.load_ns", "until it was loaded", true },
	[V_FLOOR_NS] = { "floor_ns", "a bare loop sends as many bytes the same way", true },
	[V_CHECKED] = { "checked_pages", "pages the guest verified at the destination", true },
	[V_WORK_BEFORE] = { "work.before", "pages a second that the guest wrote before", true },
	[V_WORK_DURING] = { "work.during", "the same, until it ran at the destination", true },
	[V_SCAN_NS] = { "fph.scan_ns", "time spent in scans", true },
	[V_PRESCAN_NS] = { "fph.prescan_ns", "CPU time of the prescan, since the source began", true },
	[V_CHUNKS] = { "fph.chunks", "chunks of memory scanned", true },
	[V_NOT_SCANNED] = { "fph.chunks_not_scanned", "chunks passed over", true },
	[V_REQUESTS] = { "fph.hints.requests", "requests for the guest's free pages", true },
	[V_ANSWERS] = { "fph.hints.answers", "complete answers", true },
	[V_STALE] = { "fph.hints.stale", "frames that came too late", true },
	[V_HINTED] = { "fph.hints.free", "pages the guest reported, in all answers", true },
	[V_ARM_NS] = { "fph.hints.arm_ns", "clearing the dirty log before the first request", true },
	[V_LATENCY_NS] = { "fph.hints.latency_ns", "from the first request to its answer", true },
	[V_APPLY_NS] = { "fph.hints.apply_ns", "taking pages out of the dirty bitmap", true },
	[V_WAIT_NS] = { "fph.hints.wait_ns", "sending was held back for the answer", true },
	[V_WALK_NS] = { "fph.hints.walk_ns", "the guest's time for its first answer", true },
	[V_LOCK_NS] = { "fph.hints.lock_ns", "longest lock of its page allocator", true },
	[V_GUEST_PAGES] = { "fph.hints.guest_pages", "pages in that answer, it says", true },
	[V_GUEST_ENTRIES] = { "fph.hints.guest_entries", "runs of free pages it found", true },
	[V_WARM] = { "warm_kib", "memory touched and released right before", true },
	[V_MOVED] = { "host.moved", "pages that the host moved meanwhile", true },
	[V_COMPILE_ALONE] = { "compile.alone_ms", "the guest compiled, and nothing else", true },
	[V_COMPILE_MIGRATED] = { "compile.migrated_ms", "the same, migrated meanwhile", true },
	[V_COMPILE_LEFT] = { "compile.left", "objects to do when the migration was over", true },
	[V_INFLATE_NS] = { "balloon.inflate.ns", "until the balloon was full", true },
	[V_INFLATE_FRAMES] = { "balloon.inflate.frames", "frames of the driver meanwhile", true },
	[V_INFLATE_IRQS] = { "balloon.inflate.interrupts", "interrupts of the guest", true },
	[V_INFLATE_CALLS] = { "balloon.inflate.madvise", "calls of madvise() by QEMU", true },
	[V_INFLATE_GUEST] = { "balloon.inflate.guest_ms", "CPU time of the guest, it says", true },
	[V_INFLATE_CPU] = { "balloon.inflate.cpu_ms", "CPU time of QEMU with its guest", true },
	[V_INFLATE_FAULTS] = { "balloon.inflate.faults", "page faults of QEMU with its guest", true },
	[V_INFLATE_RETURNED] = { "balloon.inflate.returned", "bytes that the host had back then", true },
	[V_INFLATE_PEAK] = { "balloon.inflate.peak", "bytes that QEMU took more meanwhile", true },
	[V_DEFLATE_NS] = { "balloon.deflate.ns", "until it was empty again", true },
	[V_DEFLATE_FRAMES] = { "balloon.deflate.frames", "frames of the driver meanwhile", true },
	[V_DEFLATE_IRQS] = { "balloon.deflate.interrupts", "interrupts of the guest", true },
	[V_DEFLATE_CALLS] = { "balloon.deflate.madvise", "calls of madvise() by QEMU", true },
	[V_DEFLATE_GUEST] = { "balloon.deflate.guest_ms", "CPU time of the guest, it says", true },
	[V_DEFLATE_CPU] = { "balloon.deflate.cpu_ms", "CPU time of QEMU with its guest", true },
	[V_DEFLATE_FAULTS] = { "balloon.deflate.faults", "page faults of QEMU with its guest", true },
};

const struct text_desc text_descs[T_COUNT] = {
	[T_FPH_STATE] = { "fph.state", "state of fph-source" },
	[T_FPH_REASON] = { "fph.inactive_reason", "why it left out nothing" },
	[T_HINT_STATE] = { "fph.hints.state", "what came of the first request" },
	[T_HINT_REASON] = { "fph.hints.reason", "why an answer is missing or partial" },
	[T_TRANSPORT] = { "fph.hints.transport", "how the guest answered" },
	[T_DEVICE] = { "fph.hints.device", "the device it answered through" },
	[T_WALK] = { "fph.hints.walk", "how the guest looked for its free pages" },
};

const struct machine_desc machine_descs[MACHINE_TEXTS] = {
	{ "cpu", offsetof(struct machine, cpu) },
	{ "kernel", offsetof(struct machine, kernel) },
	{ "governor", offsetof(struct machine, governor) },
	{ "thp", offsetof(struct machine, thp) },
	{ "thp_shmem", offsetof(struct machine, thp_shmem) },
	{ "qemu", offsetof(struct machine, qemu) },
	{ "destination_qemu", offsetof(struct machine, destination_qemu) },
	{ "qemu_digest", offsetof(struct machine, qemu_digest) },
	{ "destination_qemu_digest", offsetof(struct machine, destination_qemu_digest) },
	{ "accel", offsetof(struct machine, accel) },
	{ "link", offsetof(struct machine, link) },
	{ "guest_kernel", offsetof(struct machine, guest_kernel) },
	{ "guest_initrd", offsetof(struct machine, guest_initrd) },
	{ "guest_compiler", offsetof(struct machine, guest_compiler) },
	{ "tracer", offsetof(struct machine, tracer) },
};

char **machine_text(const struct machine *m, size_t i)
{
	return (char **)((char *)m + machine_descs[i].offset);
}

struct run *run_new(const char *scenario, const char *mode)
{
	struct run *r = g_new0(struct run, 1);
	int k;

	r->scenario = g_strdup(scenario);
	r->mode = g_strdup(mode);
	r->guests = 1;
	for (k = 0; k < V_COUNT; k++)
		r->v[k] = NO_VALUE;
	r->samples = g_array_new(FALSE, FALSE, sizeof(struct sample));
	return r;
}

void run_free(struct run *r)
{
	int k;

	if (!r)
		return;
	g_free(r->scenario);
	g_free(r->mode);
	g_free(r->ram);
	g_free(r->error);
	g_free(r->log);
	for (k = 0; k < T_COUNT; k++)
		g_free(r->text[k]);
	g_array_unref(r->samples);
	g_free(r);
}

struct result *result_new(void)
{
	struct result *r = g_new0(struct result, 1);

	r->runs = g_ptr_array_new_with_free_func((GDestroyNotify)run_free);
	return r;
}

void result_free(struct result *r)
{
	size_t i;

	if (!r)
		return;
	for (i = 0; i < MACHINE_TEXTS; i++)
		g_free(*machine_text(&r->machine, i));
	g_ptr_array_unref(r->runs);
	g_free(r->version);
	g_free(r->started);
	g_free(r);
}

guint result_failed(const struct result *r)
{
	guint i, n = 0;

	for (i = 0; i < r->runs->len; i++)
		n += !((struct run *)r->runs->pdata[i])->ok;
	return n;
}

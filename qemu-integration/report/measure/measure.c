/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "measure.h"

#include <string.h>

#define SAMPLES_MAX	100u

static void take_hints(struct run *r, const struct vm_hints *h)
{
	r->text[T_HINT_STATE] = g_strdup(h->state);
	r->text[T_HINT_REASON] = g_strdup(h->reason);
	r->text[T_TRANSPORT] = g_strdup(h->transport);
	r->text[T_DEVICE] = g_strdup(h->device);
	r->v[V_REQUESTS] = h->requests;
	r->v[V_ANSWERS] = h->answers;
	r->v[V_STALE] = h->stale;
	r->v[V_HINTED] = h->free;
	r->v[V_ARM_NS] = h->arm_ns;
	/* There never was an answer, and that did not take 0 ns. */
	r->v[V_LATENCY_NS] = h->latency_ns ? h->latency_ns : NO_VALUE;
	r->v[V_APPLY_NS] = h->apply_ns;
	r->v[V_WAIT_NS] = h->wait_ns;
	if (!h->walk)
		return;
	r->text[T_WALK] = g_strdup(h->walk);
	r->v[V_WALK_NS] = h->walk_ns;
	r->v[V_LOCK_NS] = h->lock_ns;
	r->v[V_GUEST_PAGES] = h->guest_pages;
	r->v[V_GUEST_ENTRIES] = h->guest_entries;
}

struct side {
	enum value rss_before, rss_after, cpu, system, faults;
};

static void take_side(struct run *r, const struct vm_usage *before, const struct vm_usage *after,
		      const struct side *to)
{
	if (!after->rss_kib)
		return;
	r->v[to->rss_before] = before->rss_kib;
	r->v[to->rss_after] = after->rss_kib;
	r->v[to->cpu] = after->cpu_ms - before->cpu_ms;
	r->v[to->system] = after->system_ms - before->system_ms;
	r->v[to->faults] = after->faults - before->faults;
}

void measure_take(struct run *r, const struct vm_migration *m)
{
	static const struct side source = { V_SRC_BEFORE, V_SRC_AFTER, V_SRC_CPU,
					    V_SRC_SYSTEM, V_SRC_FAULTS };
	static const struct side destination = { V_DST_BEFORE, V_DST_AFTER, V_DST_CPU,
						 V_DST_SYSTEM, V_DST_FAULTS };

	r->v[V_TOTAL_MS] = m->total_ms;
	r->v[V_DOWNTIME_MS] = m->downtime_ms;
	r->v[V_SETUP_MS] = m->setup_ms;
	r->v[V_WALL_MS] = m->wall_ms ? m->wall_ms : NO_VALUE;
	r->v[V_BYTES] = m->bytes;
	r->v[V_MULTIFD_BYTES] = m->multifd_bytes ? m->multifd_bytes : NO_VALUE;
	r->v[V_SYNCS] = m->sync_count;
	r->v[V_SENT] = m->normal;
	r->v[V_ZERO] = m->duplicate;
	if (m->file_bytes) {
		r->v[V_FILE_BYTES] = m->file_bytes;
		r->v[V_LOAD_NS] = m->load_ns;
	}
	take_side(r, &m->src_before, &m->src_after, &source);
	take_side(r, &m->dst_before, &m->dst_after, &destination);
	if (m->src_after.rss_kib)
		r->v[V_GUEST_CPU] = m->src_after.guest_cpu_ms - m->src_before.guest_cpu_ms;
	/* Without fph-source all of these are 0. */
	r->v[V_UNMAPPED] = m->fph.unmapped;
	r->v[V_ZERO_MAPPED] = m->fph.zero_mapped;
	r->v[V_SKIPPED] = m->fph.skipped;
	r->v[V_RESENT] = m->fph.resent;
	if (!m->fph.present)
		return;
	r->text[T_FPH_STATE] = g_strdup(m->fph.state ? m->fph.state : "unknown");
	r->text[T_FPH_REASON] = g_strdup(m->fph.reason);
	if (m->fph.prescan) {
		r->v[V_ZERO_CONTENT] = m->fph.zero_content;
		r->v[V_PRESCAN_NS] = m->fph.prescan_ns;
	}
	r->v[V_SCAN_NS] = m->fph.scan_ns;
	r->v[V_CHUNKS] = m->fph.chunks;
	r->v[V_NOT_SCANNED] = m->fph.chunks_not_scanned;
	if (!m->fph.hints.present)
		return;
	r->v[V_FREE] = m->fph.free;
	r->v[V_GUEST_ONLY] = m->fph.guest_only;
	r->v[V_HOST_ONLY] = m->fph.host_only;
	r->v[V_BOTH] = m->fph.both;
	take_hints(r, &m->fph.hints);
}

/*
 * At most SAMPLES_MAX, evenly: when there is no room for another, every second
 * one goes, and from then on only half as many are taken.
 */
void measure_sample(void *sampler, const struct vm_migration *m)
{
	struct sampler *taker = sampler;
	GArray *all = taker->run->samples;
	struct sample s = {
		.us = g_get_monotonic_time() - m->started,
		.remaining = m->remaining,
		.transferred = m->bytes,
	};
	guint i;

	/* Before its first dirty bitmap it does not know what is left. */
	if (!m->total_ram || (!m->remaining && !m->bytes))
		return;
	if (strcmp(m->status, "completed") != 0 && all->len &&
	    s.us - g_array_index(all, struct sample, all->len - 1).us < taker->least_us)
		return;
	if (all->len == SAMPLES_MAX) {
		for (i = 0; i < SAMPLES_MAX / 2; i++)
			g_array_index(all, struct sample, i) =
				g_array_index(all, struct sample, 2 * i);
		g_array_set_size(all, SAMPLES_MAX / 2);
		taker->least_us = 2 * s.us / SAMPLES_MAX;
	}
	g_array_append_val(all, s);
}

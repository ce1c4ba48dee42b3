/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tracing.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "fph-trace.h"

/* Threads, by what they have to do with a migration */
enum group { G_MIGRATION, G_VCPU, G_OTHER, G_COUNT };

struct sum {
	guint64 faults[G_COUNT], taken[G_COUNT], given_back;
};

struct side {
	pid_t pid;
	bool incoming;
	char comm[FPH_COMM_LEN];
	struct fph_tracer *tracer;
	struct sum before;
};

struct tracing {
	struct side side[2];		/* source, destination */
	int counts, drops, stats;	/* descriptors */
	struct trace_cost cost;
	guint64 lost;
};

/* What the files of fph-trace have to say, for the next GError */
static char *complaint;

void complain(const char *fmt, ...)
{
	va_list ap;

	g_free(complaint);
	va_start(ap, fmt);
	complaint = g_strdup_vprintf(fmt, ap);
	va_end(ap);
}

static bool set_error(GError **error, const char *what)
{
	g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_SUPPORTED, "--trace: %s", what);
	return false;
}

static bool complained(GError **error)
{
	return set_error(error, complaint ? complaint : "failed");
}

static int enable_stats(GError **error)
{
	int fd = bpf_enable_stats(BPF_STATS_RUN_TIME);

	if (fd < 0) {
		complain("the kernel does not count the time of BPF programs: %s",
			 g_strerror(errno));
		complained(error);
	}
	return fd;
}

const char *tracing_load(GError **error)
{
	struct fph_tracer *tracer;
	const char *why;
	int stats;

	if (trace_load_own(NULL, 0, false) < 0) {
		complained(error);
		return NULL;
	}
	/* What would fail at each migration is to be told now */
	if (trace_open(&tracer, NULL, 0, &why) < 0) {
		set_error(error, why);
		return NULL;
	}
	fph_tracer_close(tracer);
	stats = enable_stats(error);
	if (stats < 0)
		return NULL;
	close(stats);
	return trace_object(NULL);
}

/* A destination receives in its main thread, or in those of multifd */
static enum group group_of(const struct side *s, const char *comm)
{
	const char *kind = thread_kind(comm, s->comm);

	if (strcmp(kind, "vcpu") == 0)
		return G_VCPU;
	if (strcmp(kind, s->incoming ? "incoming" : "migration") == 0 ||
	    (s->incoming && strcmp(kind, "main") == 0))
		return G_MIGRATION;
	return G_OTHER;
}

struct summing {
	const struct side *side;
	struct sum *sum;
};

static void add(void *opaque, const char *comm, const struct fph_counts *c)
{
	static const enum fph_cause faults[] = { FPH_WRITE, FPH_READ, FPH_KVM, FPH_ZERO };
	static const enum fph_cause taken[] = { FPH_WRITE, FPH_READ, FPH_KVM, FPH_POPULATE };
	static const enum fph_cause back[] = { FPH_MADVISE, FPH_PUNCH, FPH_UNMAP };
	const struct summing *s = opaque;
	enum group g = group_of(s->side, comm);
	size_t i;

	for (i = 0; i < G_N_ELEMENTS(faults); i++)
		s->sum->faults[g] += c->events[faults[i]];
	for (i = 0; i < G_N_ELEMENTS(taken); i++)
		s->sum->taken[g] += c->pages[taken[i]];
	for (i = 0; i < G_N_ELEMENTS(back); i++)
		s->sum->given_back += c->pages[back[i]];
}

static struct sum sum_up(const struct tracing *t, const struct side *side)
{
	struct sum sum = { 0 };
	struct summing s = { side, &sum };

	trace_counts(t->counts, side->pid, add, &s);
	return sum;
}

static guint64 all_drops(const struct tracing *t)
{
	guint64 drops[FPH_NDROPS], sum = 0;
	int i;

	trace_drops(t->drops, drops);
	for (i = 0; i < FPH_NDROPS; i++)
		sum += drops[i];
	return sum;
}

static bool begin_side(struct side *s, guint64 memory, GError **error)
{
	struct memory m;
	const char *why;
	bool complete;
	int err;

	if (!process_comm(s->pid, s->comm))
		return set_error(error, "a QEMU has ended");
	/* Its RAM block is one piece; others are smaller */
	if (find_memory(s->pid, memory, 0, &m) < 0)
		return complained(error);
	err = trace_open(&s->tracer, NULL, s->pid, &why);
	if (err < 0)
		complain("%s", why);
	else
		err = add_memory(s->tracer, s->pid, &m, &complete);
	free_memory(&m);
	if (err < 0)
		return complained(error);
	return complete || set_error(error, "what has memory already cannot be seen");
}

struct tracing *tracing_begin(pid_t source, pid_t destination, guint64 memory, GError **error)
{
	struct tracing *t = g_new0(struct tracing, 1);
	int i;

	t->side[0].pid = source;
	t->side[1].pid = destination;
	t->side[1].incoming = true;
	t->stats = -1;
	t->counts = trace_map(NULL, "fph_counts");
	t->drops = trace_map(NULL, "fph_drops");
	if (t->counts < 0 || t->drops < 0) {
		set_error(error, "the tracer's maps cannot be opened");
		goto fail;
	}
	for (i = 0; i < 2; i++) {
		if (!begin_side(&t->side[i], memory, error))
			goto fail;
		/* A process of the same number may have been traced before */
		t->side[i].before = sum_up(t, &t->side[i]);
	}
	t->stats = enable_stats(error);
	if (t->stats < 0)
		goto fail;
	t->lost = all_drops(t);
	if (trace_cost(NULL, &t->cost) == 0)
		return t;
	set_error(error, "the tracer's programs cannot be looked at");
fail:
	tracing_free(t);
	return NULL;
}

static bool end_side(const struct tracing *t, const struct side *s, const enum value first[G_COUNT],
		     enum value given_back, struct run *r, GError **error)
{
	struct sum now = sum_up(t, s);
	const char *why;
	int g;

	/* A process that ended takes its counts along */
	if (fph_tracer_check(s->tracer, &why) < 0)
		return set_error(error, why);
	for (g = 0; g < G_COUNT; g++) {
		r->v[first[g]] = now.faults[g] - s->before.faults[g];
		r->v[first[g] + 1] = now.taken[g] - s->before.taken[g];
	}
	r->v[given_back] = now.given_back - s->before.given_back;
	return true;
}

bool tracing_end(struct tracing *t, struct run *r, GError **error)
{
	/* The number of pages is behind that of faults */
	static const enum value source[] = {
		V_SRC_MIGR_FAULTS, V_SRC_VCPU_FAULTS, V_SRC_OTHER_FAULTS,
	};
	static const enum value destination[] = {
		V_DST_RECV_FAULTS, V_DST_VCPU_FAULTS, V_DST_OTHER_FAULTS,
	};
	struct trace_cost cost;

	if (trace_cost(NULL, &cost) < 0)
		return set_error(error, "the tracer's programs cannot be looked at");
	if (!end_side(t, &t->side[0], source, V_SRC_GIVEN_BACK, r, error) ||
	    !end_side(t, &t->side[1], destination, V_DST_GIVEN_BACK, r, error))
		return false;
	r->v[V_TRACER_NS] = cost.ns - t->cost.ns;
	r->v[V_TRACER_RUNS] = cost.runs - t->cost.runs;
	r->v[V_TRACER_LOST] = all_drops(t) - t->lost + cost.missed - t->cost.missed;
	return true;
}

void tracing_free(struct tracing *t)
{
	if (!t)
		return;
	fph_tracer_close(t->side[0].tracer);
	fph_tracer_close(t->side[1].tracer);
	if (t->counts >= 0)
		close(t->counts);
	if (t->drops >= 0)
		close(t->drops);
	if (t->stats >= 0)
		close(t->stats);
	g_free(t);
}

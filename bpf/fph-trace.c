/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fph-trace: who takes, and who gives back, the memory of a virtual machine */
#include <bpf/bpf.h>
#include <errno.h>
#include <getopt.h>
#include <glib.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "fph-trace.h"
#include "text.h"

#define PATH	"/sys/fs/bpf/fph"

/* Columns and JSON members: one for each cause */
static const struct column {
	const char *title;
	const char *member;
	const char *text;
} columns[FPH_NCAUSES] = {
	[FPH_WRITE] = { "WRITE", "write", "taken: first write, where no memory was" },
	[FPH_READ] = { "READ", "read", "taken: read of a hole in shared memory" },
	[FPH_POPULATE] = { "POPUL", "populate", "taken: madvise(MADV_POPULATE_*, MADV_COLLAPSE)" },
	[FPH_KVM] = { "KVM", "kvm", "taken: by an ioctl (KVM, VFIO), address unknown" },
	[FPH_ZERO] = { "ZERO", "zero", "read of a hole that got the zero page, or no new one" },
	[FPH_MADVISE] = { "MADVISE", "madvise", "given back: madvise (balloon, free page reporting)" },
	[FPH_PUNCH] = { "PUNCH", "punch", "given back: hole punched into the file" },
	[FPH_UNMAP] = { "UNMAP", "unmap", "given back: unmapped, or mapped anew" },
};

/* What was not recorded; the last one the kernel counts, not the programs */
#define MISSED	FPH_NDROPS
#define NDROPS	(FPH_NDROPS + 1)

static const char *const drop_members[NDROPS] = {
	[FPH_DROP_PAUSED] = "paused",
	[FPH_DROP_COUNTS] = "counts",
	[FPH_DROP_FAULT] = "fault",
	[FPH_DROP_CLEAR] = "clear",
	[FPH_DROP_BITS] = "bits",
	[MISSED] = "missed",
};

static struct {
	pid_t pid;
	const char *name;
	const char *path;
	const char *object;
	uint64_t capacity;	/* bytes of memory */
	uint64_t min;
	uint32_t shift;
	double interval;	/* seconds */
	double duration;
	unsigned long count;
	bool timestamp, json, top, ranges, verbose;
} opt = {
	.path = PATH, .capacity = UINT64_C(1) << 40, .interval = 1,
};

static unsigned int page_kib(void)
{
	return sysconf(_SC_PAGESIZE) >> 10;
}

/* Names are other people's: what steers a terminal is not printed */
void complain(const char *fmt, ...)
{
	g_autofree char *printable = NULL;
	char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		text = NULL;
	va_end(ap);
	printable = text_printable(text ? text : strerror(ENOMEM));
	fprintf(stderr, "fph-trace: %s\n", printable);
	free(text);
}

static void usage(FILE *f)
{
	fprintf(f,
	      "Usage: fph-trace [-p PID | -n NAME] [OPTION]... [INTERVAL [COUNT]]\n"
	      "       fph-trace --load | --unload | --status [OPTION]...\n"
	      "Show who takes and who gives back the memory of a virtual machine.\n"
	      "Without -p and -n it is the only one that runs here.\n\n"
	      "  -p, --pid PID        a process, virtual machine or not\n"
	      "  -n, --name NAME      the virtual machine of that name\n"
	      "  -d, --duration SEC   stop after so many seconds\n"
	      "  -T, --timestamp      show the time with each interval\n"
	      "  -t, --top            by thread instead of by kind of thread\n"
	      "  -r, --ranges         also a map of the memory\n"
	      "  -j, --json           one JSON object for each interval\n"
	      "  -m, --min SIZE       all memory in pieces of SIZE or more; default: guest RAM\n"
	      "  -g, --grain SIZE     memory that shares a bit; %uk\n"
	      "      --pin PATH       where the tracer is; " PATH "\n"
	      "      --load           load the tracer and leave it there\n"
	      "      --unload         take it away\n"
	      "      --status         what is loaded, and for whom\n"
	      "      --object NAME    tp or complete; complete if the kernel allows it\n"
	      "      --capacity SIZE  with --load: memory that can be traced; 1t\n"
	      "  -v, --verbose        what libbpf has to say\n"
	      "  -h, --help           this text\n"
	      "  -V, --version        the version\n\n"
	      "Columns, in pages of %u KiB:\n", page_kib(), page_kib());
	for (int i = 0; i < FPH_NCAUSES; i++)
		fprintf(f, "  %-8s %-9s %s\n", columns[i].title, columns[i].member,
			columns[i].text);
	fputs("\nExamples:\n"
	      "  fph-trace                     the only virtual machine, each second\n"
	      "  fph-trace -n web1 5 12        one minute of the VM web1\n"
	      "  fph-trace -p 1234 -tT         threads of that process, with times\n"
	      "  fph-trace -d 10 -r 10         a map after 10 seconds\n"
	      "  fph-trace --load --capacity 64g\n", f);
}

static bool parse_number(const char *s, uint64_t max, uint64_t *ret)
{
	char *end;

	errno = 0;
	*ret = strtoull(s, &end, 10);
	return !errno && end != s && !*end && *s != '-' && *ret && *ret <= max;
}

static bool parse_size(const char *s, uint64_t *ret)
{
	static const char units[] = "bkmgt";
	const char *unit;
	uint64_t value;
	char *end;

	errno = 0;
	value = strtoull(s, &end, 10);
	if (errno || end == s || *s == '-')
		return false;
	unit = *end ? strchr(units, *end | 0x20) : units;
	if (!unit || (*end && end[1]) || value > UINT64_MAX >> 10 * (unit - units))
		return false;
	*ret = value << 10 * (unit - units);
	return *ret > 0;
}

static bool parse_seconds(const char *s, double *ret)
{
	char *end;

	*ret = strtod(s, &end);
	/* poll() has an int of milliseconds */
	return end != s && !*end && *ret > 0 && *ret <= INT_MAX / 1000 - 1;
}

struct row {
	char comm[FPH_COMM_LEN];
	struct fph_counts c;
};

struct table {
	struct row *v;
	size_t n;
};

static void add_counts(struct fph_counts *to, const struct fph_counts *c)
{
	for (int i = 0; i < FPH_NCAUSES; i++) {
		to->pages[i] += c->pages[i];
		to->events[i] += c->events[i];
	}
}

static struct row *find_row(struct table *t, const char *comm)
{
	for (size_t i = 0; i < t->n; i++) {
		if (strncmp(t->v[i].comm, comm, FPH_COMM_LEN) == 0)
			return &t->v[i];
	}
	t->v = realloc(t->v, (t->n + 1) * sizeof(*t->v));
	if (!t->v)
		abort();
	memset(&t->v[t->n], 0, sizeof(*t->v));
	strncpy(t->v[t->n].comm, comm, FPH_COMM_LEN - 1);
	return &t->v[t->n++];
}

static void add_row(void *table, const char *comm, const struct fph_counts *c)
{
	add_counts(&find_row(table, comm)->c, c);
}

static int read_counts(int fd, pid_t pid, struct table *ret)
{
	int err;

	ret->n = 0;
	err = trace_counts(fd, pid, add_row, ret);
	if (err)
		complain("what was counted cannot be read: %s", strerror(-err));
	return err;
}

static void read_drops(int fd, uint64_t ret[NDROPS])
{
	struct trace_cost cost;

	trace_drops(fd, ret);
	ret[MISSED] = trace_cost(opt.path, &cost) == 0 ? cost.missed : 0;
}

/* What has come since @old, which becomes @new */
static void subtract(struct table *new, struct table *old, struct table *ret)
{
	struct table swap;

	ret->n = 0;
	for (size_t i = 0; i < new->n; i++) {
		struct row *was = find_row(old, new->v[i].comm);
		struct row *row = find_row(ret, new->v[i].comm);

		/* Less than before: it was counted anew, since somebody began again */
		for (int k = 0; k < FPH_NCAUSES; k++) {
			if (new->v[i].c.pages[k] < was->c.pages[k] ||
			    new->v[i].c.events[k] < was->c.events[k])
				was->c = (struct fph_counts){ 0 };
		}
		for (int k = 0; k < FPH_NCAUSES; k++) {
			row->c.pages[k] = new->v[i].c.pages[k] - was->c.pages[k];
			row->c.events[k] = new->v[i].c.events[k] - was->c.events[k];
		}
	}
	swap = *old;
	*old = *new;
	*new = swap;
}

static void print_cell(uint64_t n)
{
	if (n < 10000000)
		printf(" %7" PRIu64, n);
	else
		printf(" %6.1fM", n / 1e6);
}

/* A thread can have any name, of at most 15 bytes */
static void print_name(const char *comm)
{
	g_autofree char *text = text_printable(comm);

	printf("%s%*s", text, 15 - (int)g_utf8_strlen(text, -1), "");
}

static void print_row(const char *title, const struct fph_counts *c)
{
	print_name(title);
	for (int i = 0; i < FPH_NCAUSES; i++)
		print_cell(c->pages[i]);
	putchar('\n');
}

static uint64_t busy(const struct fph_counts *c)
{
	uint64_t sum = 0;

	for (int i = 0; i < FPH_NCAUSES; i++)
		sum += c->pages[i];
	return sum;
}

static int by_pages(const void *a, const void *b)
{
	uint64_t x = busy(&((const struct row *)a)->c), y = busy(&((const struct row *)b)->c);

	return x < y ? 1 : x > y ? -1 : 0;
}

static void print_text(struct table *t, const char *comm)
{
	struct fph_counts total = { 0 };

	printf("%-15s", opt.top ? "THREAD" : "KIND");
	for (int i = 0; i < FPH_NCAUSES; i++)
		printf(" %7s", columns[i].title);
	putchar('\n');
	if (opt.top && t->n) {
		qsort(t->v, t->n, sizeof(*t->v), by_pages);
		for (size_t i = 0; i < t->n && i < 20; i++) {
			if (busy(&t->v[i].c))
				print_row(t->v[i].comm, &t->v[i].c);
		}
	}
	for (size_t k = 0; thread_kinds[k]; k++) {
		struct fph_counts sum = { 0 };

		for (size_t i = 0; i < t->n; i++) {
			if (strcmp(thread_kind(t->v[i].comm, comm), thread_kinds[k]) == 0)
				add_counts(&sum, &t->v[i].c);
		}
		if (!opt.top && busy(&sum))
			print_row(thread_kinds[k], &sum);
		add_counts(&total, &sum);
	}
	print_row("total", &total);
}

/* At most 16 lines of 64 cells, each with the part of it that has memory */
static void print_map(const struct fph_tracer *tracer, const struct fph_traced *m)
{
	static const char shades[] = " .:-=+*#%@";
	uint64_t cell = 2 << 20, grains, touched;

	while (m->len / cell > 16 * 64)
		cell *= 2;
	printf("%016" PRIx64 " %" PRIu64 " MiB %s, %" PRIu64 " KiB a cell\n", m->start,
	       m->len >> 20, m->fd < 0 ? "private" : "shared", cell >> 10);
	for (uint64_t at = 0; at < m->len; at += cell) {
		uint64_t end = at + cell < m->len ? at + cell : m->len;

		/* Also those that it has a part of */
		grains = ((m->start + end - 1) >> m->shift) - ((m->start + at) >> m->shift) + 1;
		if (at / cell % 64 == 0)
			printf("%s%6" PRIu64 "M |", at ? "|\n" : "", at >> 20);
		touched = fph_tracer_touched(tracer, m->start + at, m->start + end);
		putchar(shades[touched == grains ? 9 : (8 * touched + grains - 1) / grains]);
	}
	puts("|");
}

/* A name is bytes, and JSON UTF-8 */
static void print_string(const char *bytes)
{
	g_autofree char *valid = g_utf8_make_valid(bytes, -1);

	putchar('"');
	for (const char *c = valid; *c; c = g_utf8_next_char(c)) {
		gunichar u = g_utf8_get_char(c);

		if (g_unichar_iscntrl(u))
			printf("\\u%04x", u);
		else
			printf("%s%.*s", u == '"' || u == '\\' ? "\\" : "",
			       (int)(g_utf8_next_char(c) - c), c);
	}
	putchar('"');
}

static void print_members(const char *name, const __u64 *values)
{
	printf(",\"%s\":{", name);
	for (int i = 0; i < FPH_NCAUSES; i++)
		printf("%s\"%s\":%" PRIu64, i ? "," : "", columns[i].member, (uint64_t)values[i]);
	putchar('}');
}

static void print_json(const struct table *t, const char *comm, const char *when,
		       double seconds, const struct fph_tracer *tracer, const uint64_t *drops)
{
	struct fph_traced m = { .sz = sizeof(m) };

	printf("{\"schema\":1,\"time\":\"%s\",\"pid\":%d,\"comm\":", when, (int)opt.pid);
	print_string(comm);
	printf(",\"interval_ms\":%.0f,\"threads\":[", seconds * 1000);
	for (size_t i = 0, n = 0; i < t->n; i++) {
		if (!busy(&t->v[i].c))
			continue;
		printf("%s{\"comm\":", n++ ? "," : "");
		print_string(t->v[i].comm);
		printf(",\"kind\":\"%s\"", thread_kind(t->v[i].comm, comm));
		print_members("pages", t->v[i].c.pages);
		print_members("events", t->v[i].c.events);
		putchar('}');
	}
	printf("],\"ranges\":[");
	for (unsigned int i = 0; fph_tracer_get(tracer, i, &m); i++)
		printf("%s{\"start\":\"0x%" PRIx64 "\",\"size\":%" PRIu64
		       ",\"shared\":%s,\"grain\":%" PRIu64 ",\"touched\":%" PRIu64 "}",
		       i ? "," : "", m.start, m.len, m.fd < 0 ? "false" : "true",
		       UINT64_C(1) << m.shift,
		       fph_tracer_touched(tracer, m.start, m.start + m.len) << m.shift);
	printf("],\"drops\":{");
	for (int i = 0; i < NDROPS; i++)
		printf("%s\"%s\":%" PRIu64, i ? "," : "", drop_members[i], drops[i]);
	puts("}}");
}

static int finish(int status)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return status;
	/* Whoever read it has seen enough, and knows */
	if (errno != EPIPE)
		complain("cannot write: %s", strerror(errno));
	return X_FAIL;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* Signals that end this, once what was begun is undone */
static const int ending[] = { SIGINT, SIGTERM, SIGHUP };

static void hold_signals(sigset_t *set)
{
	sigemptyset(set);
	for (size_t i = 0; i < sizeof(ending) / sizeof(ending[0]); i++)
		sigaddset(set, ending[i]);
	sigprocmask(SIG_BLOCK, set, NULL);
}

/* Ends when the process does, by signal, or when all was shown; frees what was counted @last */
static int show(struct fph_tracer *tracer, const char *comm, struct table last,
		const sigset_t *set)
{
	struct table counts = { 0 }, diff = { 0 };
	int counts_fd = trace_map(opt.path, "fph_counts");
	int drops_fd = trace_map(opt.path, "fph_drops");
	struct pollfd fds[2] = {
		{ .fd = syscall(SYS_pidfd_open, opt.pid, 0), .events = POLLIN },
		{ .fd = -1, .events = POLLIN },
	};
	double start = now(), shown = start, next, end = opt.duration ? start + opt.duration : 0;
	double looked, last_looked = start;
	uint64_t drops[NDROPS], first_drops[NDROPS];
	int status = X_DONE;
	const char *why;
	bool over = false;

	fds[1].fd = signalfd(-1, set, SFD_CLOEXEC);
	if (counts_fd < 0 || drops_fd < 0 || fds[0].fd < 0 || fds[1].fd < 0) {
		complain("cannot watch process %d: %s", (int)opt.pid, strerror(errno));
		status = X_FAIL;
		over = true;
	} else {
		read_drops(drops_fd, first_drops);
	}
	for (unsigned long n = 1; !over; n++) {
		char when[32];
		time_t t;
		int ready;

		next = shown + opt.interval;
		if (end && next > end)
			next = end;
		ready = poll(fds, 2, next > now() ? (int)((next - now()) * 1000) + 1 : 0);
		if (ready < 0 && errno != EINTR) {
			complain("poll: %s", strerror(errno));
			status = X_FAIL;
			break;
		}
		over = ready > 0 || (opt.count && n >= opt.count) || (end && now() >= end);
		/* It is not counted any more if whoever had arranged for it has ended */
		if (!fds[0].revents && fph_tracer_check(tracer, &why) < 0 && poll(fds, 1, 100) == 0) {
			complain("%s", why);
			status = X_FAIL;
			break;
		}
		looked = now();
		if (read_counts(counts_fd, opt.pid, &counts)) {
			status = X_FAIL;
			break;
		}
		/* What it did last went with the process, if that had arranged for itself */
		if (fds[0].revents) {
			over = true;
			if (!counts.n)
				break;
		}
		read_drops(drops_fd, drops);
		for (int i = 0; i < NDROPS; i++)
			drops[i] -= first_drops[i];
		subtract(&counts, &last, &diff);
		t = time(NULL);
		if (opt.json)
			strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", gmtime(&t));
		else
			strftime(when, sizeof(when), "%H:%M:%S", localtime(&t));
		if (opt.json) {
			print_json(&diff, comm, when, looked - last_looked, tracer, drops);
		} else {
			struct fph_traced m = { .sz = sizeof(m) };

			if (opt.timestamp)
				puts(when);
			print_text(&diff, comm);
			for (unsigned int i = 0; opt.ranges && fph_tracer_get(tracer, i, &m); i++)
				print_map(tracer, &m);
		}
		last_looked = looked;
		/* Not once for each interval for which this process was stopped */
		shown = next > looked - opt.interval ? next : looked;
		if (fflush(stdout) != 0)
			break;
	}
	if (fds[0].revents)
		complain("process %d has ended", (int)opt.pid);
	for (int i = 0; status == X_DONE && i < NDROPS; i++) {
		if (!opt.json && shown > start && drops[i])
			complain("%" PRIu64 " events were dropped (%s)", drops[i], drop_members[i]);
	}
	free(counts.v);
	free(last.v);
	free(diff.v);
	for (int i = 0; i < 2; i++) {
		if (fds[i].fd >= 0)
			close(fds[i].fd);
	}
	if (counts_fd >= 0)
		close(counts_fd);
	if (drops_fd >= 0)
		close(drops_fd);
	return finish(status);
}

static int refused(int err)
{
	return err == -EPERM || err == -EACCES ? X_UNSUPPORTED : X_FAIL;
}

static int unsupported(int err)
{
	return err == -EOPNOTSUPP || err == -ENOENT ? X_UNSUPPORTED : refused(err);
}

static uint64_t words_for(const struct memory *m)
{
	uint64_t blocks = 0;

	for (unsigned int i = 0; i < m->n; i++)
		blocks += (m->v[i].len >> opt.shift) / FPH_BITS_ALIGN + 2;
	return blocks * FPH_BITS_ALIGN / 64;
}

static int trace(void)
{
	struct fph_tracer *tracer = NULL;
	struct fph_traced known = { .sz = sizeof(known) };
	g_autofree char *name = NULL;
	char comm[FPH_COMM_LEN];
	struct memory memory;
	bool complete = true;
	const char *why;
	struct table before = { 0 };
	uint64_t sum = 0;
	int err, status, counts;
	sigset_t set;

	if (!opt.pid)
		opt.pid = find_machine(opt.name);
	if (!opt.pid)
		return X_FAIL;
	if (!process_comm(opt.pid, comm)) {
		complain("there is no process %d", (int)opt.pid);
		return X_FAIL;
	}
	err = find_memory(opt.pid, opt.min, opt.shift, &memory);
	if (err)
		return refused(err);
	if (!trace_loaded(opt.path)) {
		err = trace_load_own(opt.object, words_for(&memory), opt.verbose);
		opt.path = NULL;
		if (err) {
			free_memory(&memory);
			return unsupported(err);
		}
	}
	err = trace_open(&tracer, opt.path, opt.pid, &why);
	if (err) {
		complain("%s", why);
		free_memory(&memory);
		return unsupported(err);
	}
	hold_signals(&set);
	/* Before it is traced: what it does meanwhile is for the first interval */
	counts = trace_map(opt.path, "fph_counts");
	if (counts >= 0) {
		err = read_counts(counts, opt.pid, &before);
		close(counts);
	}
	/* Somebody, QEMU itself perhaps, has arranged for it already */
	if (!err && !fph_tracer_get(tracer, 0, &known))
		err = add_memory(tracer, opt.pid, &memory, &complete);
	if (!complete)
		complain("what has memory already cannot be seen: "
			 "giving that back is not counted");
	if (!threads_are_named(opt.pid))
		complain("all threads of %s have its name; start QEMU with "
			 "-name NAME,debug-threads=on to tell them apart", comm);
	for (unsigned int i = 0; fph_tracer_get(tracer, i, &known); i++)
		sum += known.len;
	status = X_FAIL;
	if (!err) {
		name = text_printable(comm);
		if (!opt.json)
			printf("Tracing %s (PID %d), %" PRIu64 " MiB, with %s... Hit Ctrl-C to end.\n",
			       name, (int)opt.pid, sum >> 20,
			       strcmp(trace_object(opt.path), "tp") == 0 ? "tracepoints" : "fentry");
		status = show(tracer, comm, before, &set);
	} else {
		free(before.v);
	}
	fph_tracer_close(tracer);
	free_memory(&memory);
	return status;
}

static int load(void)
{
	uint64_t blocks = (opt.capacity >> opt.shift) / FPH_BITS_ALIGN;
	sigset_t set;
	int err;

	/* Half of it would be of no use, and in the way of the next one */
	hold_signals(&set);
	err = trace_load(opt.path, opt.object, (blocks ? blocks : 1) * FPH_BITS_ALIGN / 64,
			 opt.verbose);
	if (err)
		return err == -EEXIST ? X_FAIL : unsupported(err);
	printf("loaded the %s tracer at %s\n", trace_object(opt.path), opt.path);
	return finish(X_DONE);
}

static int forbidden(void)
{
	complain("%s: %s", opt.path, strerror(EACCES));
	return X_UNSUPPORTED;
}

static int unload(void)
{
	int err;

	if (!trace_loaded(opt.path)) {
		if (errno == EACCES)
			return forbidden();
		complain("no tracer is loaded at %s", opt.path);
		return X_FAIL;
	}
	err = trace_unload(opt.path);
	if (err) {
		complain("%s cannot be removed: %s", opt.path, strerror(-err));
		return refused(err);
	}
	return X_DONE;
}

static int print_status(void)
{
	struct bpf_map_info info = { 0 };
	__u32 len = sizeof(info), key, *prev = NULL;
	uint64_t drops[FPH_NDROPS], paused = 0;
	struct fph_target target;
	int fd;

	if (!trace_loaded(opt.path)) {
		if (errno == EACCES)
			return forbidden();
		printf("no tracer is loaded at %s\n", opt.path);
		return finish(X_DONE);
	}
	fd = trace_map(opt.path, "fph_touched");
	if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &len) < 0) {
		int err = fd < 0 ? fd : -errno;

		complain("%s: %s", opt.path, strerror(-err));
		return refused(err);
	}
	close(fd);
	fd = trace_map(opt.path, "fph_settings");
	key = FPH_PAUSED;
	if (fd >= 0) {
		bpf_map_lookup_elem(fd, &key, &paused);
		close(fd);
	}
	printf("%s: the %s tracer, for %" PRIu64 " MiB at %u KiB%s\n", opt.path,
	       trace_object(opt.path), ((uint64_t)info.max_entries * 64 * page_kib()) >> 10,
	       page_kib(), paused ? ", paused" : "");
	fd = trace_map(opt.path, "fph_targets");
	while (fd >= 0 && bpf_map_get_next_key(fd, prev, &key) == 0) {
		char comm[FPH_COMM_LEN] = "?";
		uint64_t sum = 0;

		prev = &key;
		if (bpf_map_lookup_elem(fd, &key, &target) < 0)
			continue;
		for (__u32 i = 0; i < target.nranges && i < FPH_MAX_RANGES; i++)
			sum += target.range[i].end - target.range[i].start;
		process_comm(key, comm);
		printf("%7u ", key);
		print_name(comm);
		printf(" %u ranges, %" PRIu64 " MiB\n", target.nranges, sum >> 20);
	}
	if (fd >= 0)
		close(fd);
	fd = trace_map(opt.path, "fph_drops");
	if (fd >= 0) {
		trace_drops(fd, drops);
		close(fd);
		for (int i = 0; i < FPH_NDROPS; i++) {
			if (drops[i])
				printf("%" PRIu64 " events dropped (%s)\n", drops[i],
				       drop_members[i]);
		}
	}
	return finish(X_DONE);
}

static int wrong(const char *what, const char *value)
{
	complain("%s: '%s'", what, value);
	fputs("Try 'fph-trace --help'.\n", stderr);
	return X_USAGE;
}

int main(int argc, char **argv)
{
	enum { PIN = 256, LOAD, UNLOAD, STATUS, OBJECT, CAPACITY };
	static const struct option options[] = {
		{ "pid", required_argument, NULL, 'p' },
		{ "name", required_argument, NULL, 'n' },
		{ "duration", required_argument, NULL, 'd' },
		{ "timestamp", no_argument, NULL, 'T' },
		{ "top", no_argument, NULL, 't' },
		{ "ranges", no_argument, NULL, 'r' },
		{ "json", no_argument, NULL, 'j' },
		{ "min", required_argument, NULL, 'm' },
		{ "grain", required_argument, NULL, 'g' },
		{ "pin", required_argument, NULL, PIN },
		{ "load", no_argument, NULL, LOAD },
		{ "unload", no_argument, NULL, UNLOAD },
		{ "status", no_argument, NULL, STATUS },
		{ "object", required_argument, NULL, OBJECT },
		{ "capacity", required_argument, NULL, CAPACITY },
		{ "verbose", no_argument, NULL, 'v' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ NULL, 0, NULL, 0 },
	};
	int (*action)(void) = trace;
	uint64_t number;
	int c;

	signal(SIGPIPE, SIG_IGN);
	opt.shift = __builtin_ctz(page_kib() << 10);
	while ((c = getopt_long(argc, argv, "p:n:d:Ttrjm:g:vhV", options, NULL)) != -1) {
		switch (c) {
		case 'p':
			if (!parse_number(optarg, INT_MAX, &number))
				return wrong("not a process", optarg);
			opt.pid = number;
			break;
		case 'n': opt.name = optarg; break;
		case 'd':
			if (!parse_seconds(optarg, &opt.duration))
				return wrong("not a number of seconds", optarg);
			break;
		case 'T': opt.timestamp = true; break;
		case 't': opt.top = true; break;
		case 'r': opt.ranges = true; break;
		case 'j': opt.json = true; break;
		case 'm':
			if (!parse_size(optarg, &opt.min))
				return wrong("not a size", optarg);
			break;
		case 'g':
			if (!parse_size(optarg, &number) || number < page_kib() << 10 ||
			    number > UINT64_C(1) << 30 || number & (number - 1))
				return wrong("a grain is a power of two, from a page to 1g, not", optarg);
			opt.shift = __builtin_ctzll(number);
			break;
		case PIN: opt.path = optarg; break;
		case LOAD: action = load; break;
		case UNLOAD: action = unload; break;
		case STATUS: action = print_status; break;
		case OBJECT:
			if (strcmp(optarg, "tp") != 0 && strcmp(optarg, "complete") != 0)
				return wrong("there are the objects tp and complete, not", optarg);
			opt.object = optarg;
			break;
		case CAPACITY:
			if (!parse_size(optarg, &opt.capacity) || opt.capacity < 2 << 20 ||
			    opt.capacity > UINT64_C(1) << 48)
				return wrong("a capacity is 2m to 256t, not", optarg);
			break;
		case 'v': opt.verbose = true; break;
		case 'h': usage(stdout); return finish(X_DONE);
		case 'V': puts("fph-trace " FPH_VERSION); return finish(X_DONE);
		default:
			fputs("Try 'fph-trace --help'.\n", stderr);
			return X_USAGE;
		}
	}
	if (optind < argc && !parse_seconds(argv[optind], &opt.interval))
		return wrong("not an interval in seconds", argv[optind]);
	if (optind + 1 < argc) {
		if (!parse_number(argv[optind + 1], LONG_MAX, &number))
			return wrong("not a number of intervals", argv[optind + 1]);
		opt.count = number;
	}
	if (optind + 2 < argc)
		return wrong("one argument too many", argv[optind + 2]);
	if (opt.path[0] != '/')
		return wrong("not an absolute path", opt.path);
	return action();
}

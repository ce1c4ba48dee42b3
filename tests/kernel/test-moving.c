/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory that the kernel moves while it is looked at: a page with data is never
 * called absent, a real hole is found, and the mover is seen to have moved.
 *
 * A case is a mover on a kind of memory; all who look take turns beside it.
 * FPH_MOVING_SECONDS is how long each runs; FPH_MOVING_ALONE=1 says that this
 * process is the only one of its machine, which most movers need. Arguments choose
 * cases by parts of their names. moving-guest.sh runs it in guests.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <fph/watch.h>

#include "ktest.h"
#include "scanner.h"
#include "vmstat.h"

#ifndef MADV_COLD
#define MADV_COLD 20
#endif
#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE 101
#endif
#define MOVE_PAGES_MOVE	2	/* MPOL_MF_MOVE */
#define PREFERRED	1	/* MPOL_PREFERRED */
#define BALANCED	(2 | 1 << 13)	/* MPOL_BIND | MPOL_F_NUMA_BALANCING, Linux 5.12 */

#define PER_BLOCK	512u
#define BLOCKS		32u
#define BUSY		24u	/* blocks before that one may be collapsed */
#define NPAGES		(BLOCKS * PER_BLOCK)
#define GAP		20u	/* small: one page of so many has data */
#define ZEROES		25u	/* pages of zeroes that are written now and then */
#define ZERO_AT(i)	(14u * PER_BLOCK + (i) * GAP)
#define DATA		0x5a
/* For a mover to move something; where time runs too fast, so many looks */
#define PATIENCE_MS	60000
#define PATIENCE	50

enum {
	W_DATA = 'd',		/* must never be called absent */
	W_ANY = 'a',		/* W_ABSENT are real holes */
};

struct backing {
	const char *name;
	enum kind kind;
	bool huge;
};

static const struct backing backings[] = {
	{ "anon", K_ANON, false },
	{ "anon, huge", K_ANON, true },
	{ "memfd", K_MEMFD, false },
	{ "memfd, huge", K_MEMFD, true },
	{ "private memfd", K_PRIVATE, false },
	{ "tmpfs file", K_TMPFS, false },
};

enum {
	DISCARDS = 1 << 0,	/* blocks of its own are filled and emptied */
	COLLAPSES = 1 << 1,	/* holes of busy blocks become memory, and back */
	RELOCATES = 1 << 2,	/* data is somewhere else afterwards */
	ALONE = 1 << 3,		/* changes the machine for everybody */
	NUMA = 1 << 4,
	ANON = 1 << 5,		/* only private copies of pages can be moved so */
	FOLIOS = 1 << 6,	/* of a kind that private memfds are not made of */
	SMALL = 1 << 7,		/* leaves huge pages where they are */
	SWAPS = 1 << 8,
};

struct mover {
	const char *name;
	unsigned int flags;
	unsigned int threads;
	const char *(*setup)(void);	/* why it cannot run, or NULL */
	bool (*step)(unsigned int thread);	/* did it do something? */
	void (*end)(void);
	const char *counters[2];	/* of /proc/vmstat; each has to grow */
};

struct moving_case {
	const struct mover *mover;
	const struct backing *backing;
};

/* The memory of the case that runs, and where the movers find its data */
static struct mem m;
static const struct moving_case *now;
static char *alias;		/* shared mapping of what a private one has not copied */
static void *data[NPAGES];
static size_t ndata;

static struct fph_scanner *scanners[2];
static struct fph_watch *watch;
static atomic_bool stop;
static atomic_ulong steps;
static volatile char sink;

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/*
 * The kernel's files
 */

static bool put(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	size_t len = strlen(value);
	bool done = fd >= 0 && write(fd, value, len) == (ssize_t)len;

	if (fd >= 0)
		close(fd);
	return done;
}

static bool get(const char *path, char *line, size_t len)
{
	FILE *f = fopen(path, "re");
	bool done = f && fgets(line, len, f);

	if (f)
		fclose(f);
	return done;
}

/*
 * Memory to move
 */

static bool is_copy(size_t i)
{
	return now->backing->kind == K_ANON ||
	       (now->backing->kind == K_PRIVATE && i / GAP % 2);
}

static bool has_data(size_t i)
{
	size_t block = i / PER_BLOCK;

	if (block % 4 == 1)
		return false;
	if (now->backing->huge)
		return block % 2 == 0 && i % PER_BLOCK != PER_BLOCK - 1;
	return i % GAP == 0;
}

/* What is there beside the data, and what a mover does to it */
static char beside(size_t i)
{
	unsigned int flags = now->mover->flags;
	size_t block = i / PER_BLOCK;

	if ((flags & DISCARDS) && block % 4 == 1)
		return W_ANY;
	if ((flags & COLLAPSES) && block < BUSY)
		return W_ANY;
	/* The rest of a huge page that has data */
	return now->backing->huge && block % 2 == 0 ? W_ANY : W_ABSENT;
}

static void add_data(size_t i)
{
	static const char bytes[1] = { DATA };

	if (m.kind != K_PRIVATE || is_copy(i)) {
		*mem_page(&m, i) = DATA;
		data[ndata] = mem_page(&m, i);
	} else {
		check_int(pwrite(m.fd, bytes, 1, i * page), 1);
		data[ndata] = alias + i * page;
		sink = *(char *)data[ndata];
	}
	/* Of a huge page its first page stands for all */
	ndata += !now->backing->huge || i % PER_BLOCK == 0;
}

static void fill(void)
{
	const char *counter = now->backing->kind == K_ANON ? "thp_fault_alloc" : "thp_file_alloc";
	uint64_t before = vmstat(counter);

	mem_open(&m, now->backing->kind, NPAGES);
	alias = NULL;
	if (m.kind == K_PRIVATE) {
		alias = mmap(NULL, NPAGES * page, PROT_READ | PROT_WRITE, MAP_SHARED, m.fd, 0);
		check(alias != MAP_FAILED);
	}
	if (now->backing->huge)
		check_int(madvise(m.p, NPAGES * page, MADV_HUGEPAGE), 0);
	ndata = 0;
	for (size_t i = 0; i < NPAGES; i++) {
		m.want[i] = has_data(i) ? W_DATA : beside(i);
		if (m.want[i] == W_DATA)
			add_data(i);
	}
	for (size_t i = 0; i < ZEROES; i++) {
		*mem_page(&m, ZERO_AT(i)) = 0;
		m.want[ZERO_AT(i)] = W_ANY;
	}
	if (now->backing->huge && vmstat(counter) == before) {
		mem_close(&m);
		fph_test_skip("no huge pages here: %s does not grow", counter);
	}
	if (now->mover->flags & COLLAPSES)
		check_int(madvise(m.p, BUSY * HUGE, MADV_HUGEPAGE), 0);
}

static void empty(void)
{
	if (alias)
		munmap(alias, NPAGES * page);
	mem_close(&m);
}

static void discard(size_t first, size_t n)
{
	madvise(mem_page(&m, first), n * page,
		m.r.flags & FPH_REGION_SHARED ? MADV_REMOVE : MADV_DONTNEED);
}

static char *some_block(void)
{
	static unsigned int next;

	return m.p + next++ % BLOCKS * HUGE;
}

static void touch_data(void)
{
	for (size_t i = 0; i < ndata; i++)
		sink = *(volatile char *)data[i];
}

static void frames(uint64_t *pfn)
{
	static const uint64_t is_pfn = (UINT64_C(1) << 55) - 1;
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	check(fd >= 0);
	for (size_t i = 0; i < ndata; i++) {
		uint64_t entry = 0;

		check_int(pread(fd, &entry, sizeof(entry),
				(uintptr_t)data[i] / page * sizeof(entry)), sizeof(entry));
		pfn[i] = entry & RAW_PRESENT ? entry & is_pfn : 0;
	}
	close(fd);
}

static bool relocated(const uint64_t *before)
{
	uint64_t *after = calloc(ndata, sizeof(*after));
	bool any = false;

	check(after != NULL);
	frames(after);
	for (size_t i = 0; i < ndata; i++)
		any |= before[i] && after[i] && before[i] != after[i];
	free(after);
	return any;
}

/*
 * Movers
 */

static bool move_to(int node)
{
	static int nodes[NPAGES], status[NPAGES];

	for (size_t i = 0; i < ndata; i++)
		nodes[i] = node;
	return syscall(SYS_move_pages, 0, ndata, data, nodes, status, MOVE_PAGES_MOVE) >= 0;
}

static bool move_pages_step(unsigned int thread)
{
	return move_to(steps % 2);
}

static bool migrate_pages_step(unsigned int thread)
{
	unsigned long from = steps % 2 ? 1 : 2, to = 3 ^ from;

	return syscall(SYS_migrate_pages, 0, 8 * sizeof(from), &from, &to) >= 0;
}

/*
 * Compacted memory stays where it is, so it goes elsewhere before, if it can. What was
 * freed last is taken first, and that is where it was before it went: so others take that
 * meanwhile, more or less of them each time, and leave room behind.
 */
static bool compact_step(unsigned int thread)
{
	static uint64_t before[NPAGES];
	static unsigned int n;
	unsigned long node = 1ul << n % 2;
	size_t len = (size_t)(n / 2 % 8 + 3) << 20;
	char *others;

	others = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check(others != MAP_FAILED);
	/* Refused where there is one node */
	syscall(SYS_mbind, others, len, PREFERRED, &node, 8 * sizeof(node), 0);
	for (size_t i = 0; i < len; i += page)
		others[i] = 1;
	move_to(n++ % 2);
	munmap(others, len);
	frames(before);
	return put("/proc/sys/vm/compact_memory", "1") && relocated(before);
}

static const char *balance_setup(void)
{
	static const char *const debug = "/sys/kernel/debug/sched/numa_balancing/";
	static const struct { const char *name, *value; } knobs[] = {
		{ "scan_delay_ms", "0" }, { "scan_period_min_ms", "10" },
		{ "scan_period_max_ms", "20" }, { "scan_size_mb", "256" },
	};
	unsigned long nodes = 3;
	char path[128];

	/*
	 * Balancing makes no room: a huge page stays where it is as long as the other
	 * node has none free. So all begin on that which has less.
	 */
	put("/proc/sys/vm/compact_memory", "1");
	move_to(0);
	/* Older kernels balance shared memory only where it has a policy */
	if (syscall(SYS_mbind, m.p, NPAGES * page, BALANCED, &nodes, 8 * sizeof(nodes), 0) < 0)
		return "mbind() refuses MPOL_F_NUMA_BALANCING";
	if (!put("/proc/sys/kernel/numa_balancing", "1"))
		return "this kernel balances no memory between nodes";
	for (size_t i = 0; i < ARRAY_SIZE(knobs); i++) {
		snprintf(path, sizeof(path), "%s%s", debug, knobs[i].name);
		if (!put(path, knobs[i].value))
			return "no debugfs with sched/numa_balancing";
	}
	return NULL;
}

static void run_on_node(unsigned int node)
{
	char path[64], cpus[64];
	cpu_set_t set;

	snprintf(path, sizeof(path), "/sys/devices/system/node/node%u/cpulist", node);
	CPU_ZERO(&set);
	if (get(path, cpus, sizeof(cpus)))
		CPU_SET(atoi(cpus), &set);
	check_int(sched_setaffinity(0, sizeof(set), &set), 0);
}

/* A page moves when it was used from the other node twice */
static bool balance_step(unsigned int thread)
{
	static unsigned int node, touches;
	static uint64_t since;

	/* However little of its time the machine gives to us */
	if (++touches >= 200 && now_ms() - since >= 500) {
		run_on_node(node ^= 1);
		touches = 0;
		since = now_ms();
	}
	touch_data();
	return true;
}

static void balance_end(void)
{
	put("/proc/sys/kernel/numa_balancing", "0");
}

/* Blocks of memory that can be taken away, and are taken away in turn */
static bool next_movable(char *path, size_t len)
{
	static unsigned int at;
	char zone[64];

	for (unsigned int tries = 0; tries < 1024; tries++) {
		at = (at + 1) % 1024;
		snprintf(path, len, "/sys/devices/system/memory/memory%u/valid_zones", at);
		if (get(path, zone, sizeof(zone)) && !strncmp(zone, "Movable", 7)) {
			snprintf(path, len, "/sys/devices/system/memory/memory%u/state", at);
			return true;
		}
	}
	return false;
}

static const char *offline_setup(void)
{
	char path[64];

	return next_movable(path, sizeof(path)) ? NULL : "no memory block is movable";
}

static bool offline_step(unsigned int thread)
{
	char path[64];
	bool done;

	move_to(1);
	check(next_movable(path, sizeof(path)));
	done = put(path, "offline");
	put(path, "online_movable");
	return done;
}

static bool soft_offline_step(unsigned int thread)
{
	usleep(3000);
	return madvise(data[steps % ndata], page, MADV_SOFT_OFFLINE) == 0;
}

/* Leaves a block as it was before it was collapsed */
static void take_apart(size_t block)
{
	size_t end = (block + 1) * PER_BLOCK, first, i;

	for (i = block * PER_BLOCK; i < end; i++) {
		for (first = i; i < end && m.want[i] != W_DATA; i++)
			;
		if (i > first)
			discard(first, i - first);
	}
}

static const char *collapse_setup(void)
{
	if (madvise(m.p, HUGE, MADV_COLLAPSE) < 0 && errno == EINVAL)
		return "no MADV_COLLAPSE for this memory";
	return NULL;
}

static bool collapse_step(unsigned int thread)
{
	size_t block = steps % (BUSY / 2) * 2;

	take_apart(block);
	return madvise(m.p + block * HUGE, HUGE, MADV_COLLAPSE) == 0;
}

#define KHUGEPAGED	"/sys/kernel/mm/transparent_hugepage/khugepaged/"

static const char *khugepaged_setup(void)
{
	if (!put(KHUGEPAGED "scan_sleep_millisecs", "1") ||
	    !put(KHUGEPAGED "alloc_sleep_millisecs", "1") ||
	    !put(KHUGEPAGED "max_ptes_none", "511") || !put(KHUGEPAGED "pages_to_scan", "65536"))
		return "no khugepaged";
	return NULL;
}

static bool khugepaged_step(unsigned int thread)
{
	usleep(50000);
	for (size_t block = 0; block < BUSY; block += 2)
		take_apart(block);
	return true;
}

static void khugepaged_end(void)
{
	put(KHUGEPAGED "scan_sleep_millisecs", "100000");
}

static bool pageout_step(unsigned int thread)
{
	bool done = madvise(some_block(), HUGE, MADV_PAGEOUT) == 0;

	if (steps % 16 == 0)
		touch_data();
	return done;
}

static bool has_swap(void)
{
	FILE *f = fopen("/proc/swaps", "re");
	char line[256];
	bool has = f && fgets(line, sizeof(line), f) && fgets(line, sizeof(line), f);

	if (f)
		fclose(f);
	return has;
}

#define ZRAM	"/dev/zram0"

static const char *zram_setup(void)
{
	return access(ZRAM, F_OK) < 0 ? "no zram" : NULL;
}

/* All that is out has to come in, wherever it is mapped, or is not */
static bool zram_step(unsigned int thread)
{
	bool done;

	for (unsigned int i = 0; i < BLOCKS; i++)
		madvise(m.p + i * HUGE, HUGE, MADV_PAGEOUT);
	if (steps % 2)
		touch_data();
	done = swapoff(ZRAM) == 0;
	swapon(ZRAM, 0);
	return done;
}

/* Only small pages have been active before: now and then a huge one is split */
static bool cold_step(unsigned int thread)
{
	size_t but = steps % 8 == 7 ? page : 0;

	touch_data();
	return madvise(some_block() + but, HUGE - but, MADV_COLD) == 0;
}

static char *own_block(unsigned int thread)
{
	static unsigned int next[2];

	return m.p + ((next[thread]++ * 2 + thread) % (BLOCKS / 4) * 4 + 1) * HUGE;
}

/* QEMU frees no memory of guests so; what was not freed must not be taken for it */
static bool free_step(unsigned int thread)
{
	char *block = own_block(0);

	memset(block, 1, HUGE);
	return madvise(block, HUGE, MADV_FREE) == 0 && madvise(block, HUGE, MADV_PAGEOUT) == 0;
}

static bool dontneed_step(unsigned int thread)
{
	char *block = own_block(thread);

	*block = 1;
	discard((block - m.p) / page, PER_BLOCK);
	return true;
}

#define KSM	"/sys/kernel/mm/ksm/"

static const char *ksm_setup(void)
{
	if (!put(KSM "pages_to_scan", "20000") || !put(KSM "sleep_millisecs", "1") ||
	    !put(KSM "run", "1"))
		return "no KSM";
	if (madvise(m.p, NPAGES * page, MADV_MERGEABLE) < 0)
		return "KSM does not take this memory";
	return NULL;
}

/* By a write that changes nothing, and all at once */
static bool ksm_step(unsigned int thread)
{
	char shared[32];
	bool merged;

	usleep(100000);
	merged = get(KSM "pages_sharing", shared, sizeof(shared)) && atol(shared) > 0;
	if (steps % 4 == 3) {
		put(KSM "run", "2");
		put(KSM "run", "1");
		return merged;
	}
	for (size_t i = 0; i < NPAGES; i++)
		if (m.want[i] == W_DATA && is_copy(i))
			*(volatile char *)mem_page(&m, i) = DATA;
	return merged;
}

static void ksm_end(void)
{
	put(KSM "run", "2");
	put(KSM "run", "0");
}

static const struct mover movers[] = {
	{ "move_pages", NUMA | RELOCATES, 1, NULL, move_pages_step, NULL,
	  { "pgmigrate_success" } },
	{ "migrate_pages", NUMA | RELOCATES, 1, NULL, migrate_pages_step, NULL,
	  { "pgmigrate_success" } },
	{ "compaction", SMALL | ALONE, 1, NULL, compact_step, NULL,
	  { "compact_migrate_scanned", "pgmigrate_success" } },
	{ "NUMA balancing", NUMA | ALONE | RELOCATES, 1, balance_setup, balance_step, balance_end,
	  { "numa_pages_migrated", "numa_hint_faults" } },
	{ "offline and online", NUMA | ALONE | RELOCATES, 1, offline_setup, offline_step, NULL,
	  { "pgmigrate_success" } },
	{ "soft offline", ALONE | RELOCATES, 1, NULL, soft_offline_step, NULL,
	  { "pgmigrate_success" } },
	{ "MADV_COLLAPSE", COLLAPSES | FOLIOS, 1, collapse_setup, collapse_step, NULL,
	  { "thp_collapse_alloc" } },
	{ "khugepaged", COLLAPSES | FOLIOS | ALONE, 1, khugepaged_setup, khugepaged_step,
	  khugepaged_end, { "thp_collapse_alloc" } },
	/* Swap of this machine is that of other tests, and may go at any time */
	{ "MADV_PAGEOUT", SWAPS | ALONE, 1, NULL, pageout_step, NULL, { "pswpout", "pswpin" } },
	{ "swap by zram", SWAPS | ALONE, 1, zram_setup, zram_step, NULL, { "pswpout", "pswpin" } },
	/* pgdeactivate counts what was active, and that is not for us to say */
	{ "MADV_COLD", 0, 1, NULL, cold_step },
	{ "MADV_FREE beside", ANON | FOLIOS | DISCARDS, 1, NULL, free_step, NULL,
	  { "pglazyfree", "pglazyfreed" } },
	{ "KSM", ANON | ALONE, 1, ksm_setup, ksm_step, ksm_end, { "cow_ksm" } },
	{ "MADV_DONTNEED beside", DISCARDS, 2, NULL, dontneed_step, NULL, { "pgfault" } },
};

/*
 * Who looks
 */

/* Scans cost little and have the most to lose */
#define SCANS	8

struct look {
	const char *name;
	bool (*round)(struct look *l, struct fph_scanner *s);	/* false: not this memory */
	unsigned int scanner;
	uint64_t rounds, right, lost;
	size_t first;
};

static void lose(struct look *l, size_t i)
{
	if (!l->lost++)
		l->first = i;
}

static int scan_sink(void *opaque, uint64_t start, uint64_t len, enum fph_reason why)
{
	struct look *l = opaque;

	for (size_t i = start / page; i < (start + len) / page; i++) {
		if (m.want[i] == W_DATA)
			lose(l, i);
		l->right += m.want[i] == W_ABSENT;
	}
	return 0;
}

static bool method_of(struct fph_scanner *s, enum fph_method *method, const char **why)
{
	struct fph_verdict v;

	check_int(fph_region_classify(s, &m.r, &v), 0);
	*method = v.method;
	*why = v.why;
	return v.method != FPH_METHOD_NONE;
}

static bool scan_part(struct look *l, struct fph_scanner *s, size_t first, size_t n)
{
	enum fph_method method;
	const char *why;

	if (!method_of(s, &method, &why))
		return false;
	check_int(fph_scan_region(s, &m.r, method, first * page, n * page, scan_sink, l, NULL), 0);
	return true;
}

static bool scan_all(struct look *l, struct fph_scanner *s)
{
	bool can = true;

	for (int n = 0; can && n < SCANS; n++)
		can = scan_part(l, s, 0, NPAGES);
	return can;
}

/* As verify asks again for what was left out */
static bool scan_pages(struct look *l, struct fph_scanner *s)
{
	for (unsigned int n = 0; n < 50; n++)
		if (!scan_part(l, s, (l->rounds * 50 + n) * 613 % NPAGES, 1))
			return false;
	return true;
}

static int map_fn(void *opaque, uint64_t start, uint64_t len, uint32_t flags)
{
	struct look *l = opaque;

	for (size_t i = start / page; i < (start + len) / page; i++) {
		bool gone = !flags && is_copy(i);

		if (m.want[i] == W_DATA &&
		    (gone || (flags & (FPH_PAGE_ZERO_PAGE | FPH_PAGE_ZERO_CONTENT))))
			lose(l, i);
		l->right += m.want[i] == W_ABSENT && !flags;
	}
	return 0;
}

static bool map_all(struct look *l, struct fph_scanner *s)
{
	check_int(fph_map_region(s, &m.r, 0, m.r.used, FPH_MAP_CONTENT, map_fn, l, NULL), 0);
	return true;
}

static int watch_fn(void *opaque, uint64_t start, uint64_t len, uint32_t flags)
{
	memset((char *)opaque + start / page, flags & FPH_WATCH_ABSENT ? W_ABSENT : W_DATA,
	       len / page);
	return 0;
}

/* What the kernel answered last, should the library make nothing of it */
static struct {
	struct fph_pm_scan arg;
	struct fph_pm_range vec[FPH_SCAN_VEC_LEN];
	int n;
} answer;
static struct fph_sys sys;

static int keep_answer(int fd, struct fph_pm_scan *arg)
{
	answer.n = fph_sys_linux.pagemap_scan(fd, arg);
	answer.arg = *arg;
	if (answer.n > 0 && answer.n <= FPH_SCAN_VEC_LEN)
		memcpy(answer.vec, (const void *)(uintptr_t)arg->vec,
		       answer.n * sizeof(answer.vec[0]));
	return answer.n;
}

static void check_watched(int err)
{
	if (!err)
		return;
	print_message("memory at %p, %#" PRIx64 " to %#" PRIx64 ": %d ranges, up to %#" PRIx64 "\n",
		      (void *)m.r.host, (uint64_t)answer.arg.start, (uint64_t)answer.arg.end,
		      answer.n, (uint64_t)answer.arg.walk_end);
	for (int i = 0; i < answer.n && i < FPH_SCAN_VEC_LEN; i++)
		print_message("%#" PRIx64 " to %#" PRIx64 ": %#" PRIx64 "\n",
			      (uint64_t)answer.vec[i].start, (uint64_t)answer.vec[i].end,
			      (uint64_t)answer.vec[i].categories);
	check_int(err, 0);
}

/* As prescan does: protected, seen to be zero, written; now somebody has to know */
static bool watch_zeroes(struct look *l, struct fph_scanner *s)
{
	static char marked[NPAGES], seen[NPAGES];
	const char *why;

	/* Where a mover takes them away */
	for (size_t i = 0; i < ZEROES; i++)
		*mem_page(&m, ZERO_AT(i)) = 0;
	if (fph_watch_add(watch, &m.r, &why) < 0)
		return false;
	memset(marked, 0, sizeof(marked));
	memset(seen, 0, sizeof(seen));
	check_watched(fph_watch_protect(watch, &m.r, 0, m.r.used, watch_fn, marked));
	for (size_t i = 0; i < ZEROES; i += 2)
		*mem_page(&m, ZERO_AT(i)) = 1;
	check_watched(fph_watch_written(watch, &m.r, 0, m.r.used, watch_fn, seen));
	for (size_t i = 0; i < ZEROES; i += 2) {
		size_t at = ZERO_AT(i);

		/* Unless it is gone again, which a mover may see to */
		if (marked[at] && !seen[at] && *mem_page(&m, at))
			lose(l, at);
		l->right += marked[at] && seen[at] == W_DATA;
	}
	fph_watch_remove(watch, &m.r);
	return true;
}

static struct look looks[] = {
	{ "scan", scan_all, 0 },
	{ "scan by entries", scan_all, 1 },
	{ "page by page", scan_pages, 0 },
	{ "page by page, by entries", scan_pages, 1 },
	{ "map", map_all, 0 },
	{ "map by entries", map_all, 1 },
	{ "watch", watch_zeroes, 0 },
};

static bool look(struct look *l)
{
	struct fph_scanner *s = scanners[l->scanner];
	const char *why;

	if (l->round == watch_zeroes ? fph_watch_error(watch, &why) < 0 :
				       fph_scanner_error(s, &why) < 0)
		return false;
	if (!l->round(l, s))
		return false;
	l->rounds++;
	return true;
}

/*
 * Cases
 */

static void *move(void *arg)
{
	unsigned int thread = (uintptr_t)arg;

	while (!stop)
		steps += now->mover->step(thread) ? 1 : 0;
	return NULL;
}

static bool all_grew(const uint64_t *before)
{
	for (size_t i = 0; i < ARRAY_SIZE(now->mover->counters); i++)
		if (now->mover->counters[i] && vmstat(now->mover->counters[i]) <= before[i])
			return false;
	return true;
}

/* The first of those who look and have found nothing that is there, or NULL */
static const struct look *in_vain(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(looks); i++)
		if (looks[i].rounds && !looks[i].right)
			return &looks[i];
	return NULL;
}

static uint64_t run_ms(void)
{
	const char *s = getenv("FPH_MOVING_SECONDS");
	double seconds = s ? atof(s) : 0;

	return (seconds > 0 ? seconds : 0.7) * 1000;
}

/* With the mover at rest each hole is found, or its edges were never looked at */
static void check_at_rest(void)
{
	for (size_t k = 0; k < ARRAY_SIZE(scanners); k++) {
		struct look l = { .name = "scan at rest", .round = scan_all, .scanner = k };
		size_t holes = 0;

		for (size_t i = 0; i < NPAGES; i++)
			holes += m.want[i] == W_ABSENT;
		if (!look(&l))
			continue;
		check_int(l.lost, 0);
		check_int(l.right, SCANS * holes);
	}
	for (size_t i = 0; i < NPAGES; i++)
		if (m.want[i] == W_DATA)
			check_int(*mem_page(&m, i), DATA);
}

/* Why nothing is asked of such memory here, or NULL */
static const char *no_method(const struct backing *backing)
{
	const char *why = NULL;
	enum fph_method method;
	bool any = false;

	mem_open(&m, backing->kind, 1);
	for (size_t k = 0; k < ARRAY_SIZE(scanners); k++)
		any |= fph_scanner_error(scanners[k], &why) == 0 &&
		       method_of(scanners[k], &method, &why);
	mem_close(&m);
	return any ? NULL : why;
}

static const char *no_mover(const struct mover *mover)
{
	if ((mover->flags & ALONE) && !getenv("FPH_MOVING_ALONE"))
		return "changes the whole machine";
	if ((mover->flags & NUMA) && access("/sys/devices/system/node/node1", F_OK) < 0)
		return "one node has all memory";
	if ((mover->flags & SWAPS) && !has_swap())
		return "no swap";
	return NULL;
}

static void moving(void **state)
{
	static uint64_t pfn[NPAGES];
	uint64_t counters[2] = { 0 }, end, patience;
	const struct mover *mover;
	pthread_t threads[2];
	const char *why = NULL;
	bool moved = false;
	uint64_t lost = 0;

	now = *state;
	mover = now->mover;
	fill();
	why = mover->setup ? mover->setup() : NULL;
	if (why) {
		empty();
		fph_test_skip("%s", why);
	}

	frames(pfn);
	for (size_t i = 0; i < ARRAY_SIZE(mover->counters); i++)
		counters[i] = mover->counters[i] ? vmstat(mover->counters[i]) : 0;
	stop = false;
	steps = 0;
	for (size_t i = 0; i < ARRAY_SIZE(looks); i++)
		looks[i].rounds = looks[i].right = looks[i].lost = 0;
	for (uintptr_t i = 0; i < mover->threads; i++)
		check_int(pthread_create(&threads[i], NULL, move, (void *)i), 0);

	end = now_ms() + run_ms();
	patience = end + PATIENCE_MS;
	for (int n = 0; now_ms() < end || ((!moved || in_vain()) &&
					   (now_ms() < patience || n < PATIENCE)); n++) {
		for (size_t i = 0; i < ARRAY_SIZE(looks); i++)
			look(&looks[i]);
		moved = moved || (steps > 0 && all_grew(counters) &&
				  (!(mover->flags & RELOCATES) || relocated(pfn)));
	}
	stop = true;
	for (size_t i = 0; i < mover->threads; i++)
		pthread_join(threads[i], NULL);
	if (mover->end)
		mover->end();

	print_message("%lu steps", steps);
	for (size_t i = 0; i < ARRAY_SIZE(looks); i++) {
		struct look *l = &looks[i];

		if (l->rounds)
			print_message("; %s %" PRIu64, l->name, l->rounds);
		if (l->lost)
			print_message(", LOST %" PRIu64 " PAGES, the first is %zu", l->lost, l->first);
		lost += l->lost;
	}
	print_message("\n");
	check_int(lost, 0);
	if (!moved)
		fail_msg("the mover has moved nothing: %s", !steps ? "no step succeeded" :
			 !all_grew(counters) ? "a counter stands still" : "data is where it was");
	if (in_vain())
		fail_msg("%s has found nothing", in_vain()->name);
	check_at_rest();
	empty();
}

/*
 * What a process discards that does not look itself, nobody has to tell the CPU of
 * who looks: it goes much faster, and what is wrong with it is seen more often. The
 * zero page, as to clear huge pages takes long. Linux 6.4 and older left entries out.
 */
#define FAR_BLOCKS	6u	/* data and discarded in turn, and the last one a hole */
#define FAR_TIMES	6

static void discard_forever(char *p, atomic_ulong *discards)
{
	for (size_t i = 0; i < FAR_BLOCKS * PER_BLOCK; i++)
		if (i / PER_BLOCK % 2 == 0)
			p[i * page] = DATA;
	for (unsigned int i = 0;; i++) {
		char *block = p + (i % 2 * 2 + 1) * HUGE;

		sink = *block;
		madvise(block, HUGE, MADV_DONTNEED);
		(*discards)++;
	}
}

static int far_sink(void *opaque, uint64_t start, uint64_t len, enum fph_reason why)
{
	struct look *l = opaque;

	for (size_t i = start / page; i < (start + len) / page; i++) {
		if (i / PER_BLOCK % 2 == 0)
			lose(l, i);
		l->right += i / PER_BLOCK == FAR_BLOCKS - 1;
	}
	return 0;
}

static void other_discards(void **state)
{
	const enum fph_scanner_kind *kind = *state;
	struct fph_scanner_opts opts = { .sz = sizeof(opts), .kind = *kind };
	struct look l = { 0 };
	struct fph_scanner *s;
	enum fph_method method;
	atomic_ulong *discards;
	uint64_t end, first;
	const char *why;

	discards = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check(discards != MAP_FAILED);
	mem_open(&m, K_ANON, FAR_BLOCKS * PER_BLOCK);
	check_int(madvise(m.p, FAR_BLOCKS * HUGE, MADV_HUGEPAGE), 0);
	fflush(stdout);
	opts.pid = fork();
	check(opts.pid >= 0);
	if (!opts.pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		discard_forever(m.p, discards);
	}
	check_int(fph_scanner_open_with(&s, &opts), 0);
	if (fph_scanner_error(s, &why) < 0) {
		kill(opts.pid, SIGKILL);
		fph_test_skip("%s", why);
	}
	check(method_of(s, &method, &why));
	while (!*discards)
		usleep(1000);
	first = *discards;
	for (end = now_ms() + FAR_TIMES * run_ms(); now_ms() < end || *discards == first; l.rounds++)
		check_int(fph_scan_region(s, &m.r, method, 0, m.r.used, far_sink, &l, NULL), 0);
	print_message("%" PRIu64 " scans beside %lu discards, %" PRIu64 " PAGES LOST\n", l.rounds,
		      *discards, l.lost);
	kill(opts.pid, SIGKILL);
	waitpid(opts.pid, NULL, 0);
	fph_scanner_close(s);
	munmap(discards, page);
	mem_close(&m);
	check_int(l.lost, 0);
	check(l.right > 0);
}

static bool makes_sense(const struct mover *mover, const struct backing *backing)
{
	if ((mover->flags & SMALL) && backing->huge)
		return false;
	if ((mover->flags & ANON) && backing->kind != K_ANON && backing->kind != K_PRIVATE)
		return false;
	return !(mover->flags & FOLIOS) || backing->kind != K_PRIVATE;
}

static bool wanted(int argc, char **argv, const char *name)
{
	for (int i = 1; i < argc; i++)
		if (strstr(name, argv[i]))
			return true;
	return argc < 2;
}

static bool skipped(const char *name, const char *why)
{
	if (why)
		printf("SKIP: %s: %s\n", name, why);
	return why != NULL;
}

int main(int argc, char **argv)
{
	static const enum fph_scanner_kind kinds[] = { FPH_SCANNER_PAGEMAP_SCAN, FPH_SCANNER_PAGEMAP };
	static struct moving_case cases[ARRAY_SIZE(movers) * ARRAY_SIZE(backings)];
	static char names[ARRAY_SIZE(cases)][64];
	bool no_backing[ARRAY_SIZE(backings)];
	struct fph_tests t = { 0 };
	size_t n = 0;

	if (geteuid() != 0)
		fph_test_skip_all("only root sees whether pages move");
	ktest_init(0, argv);
	if (PER_HUGE != PER_BLOCK)
		fph_test_skip_all("blocks are to be huge pages, and these are of %lu MiB here", HUGE >> 20);
	for (size_t k = 0; k < ARRAY_SIZE(scanners); k++) {
		struct fph_scanner_opts opts = { .sz = sizeof(opts), .kind = kinds[k] };

		if (fph_scanner_open_with(&scanners[k], &opts) < 0)
			abort();
	}
	sys = fph_sys_linux;
	sys.pagemap_scan = keep_answer;
	if (fph_watch_open_sys(&watch, &sys) < 0)
		abort();
	for (size_t k = 0; k < ARRAY_SIZE(backings); k++)
		no_backing[k] = skipped(backings[k].name, no_method(&backings[k]));
	for (size_t i = 0; i < ARRAY_SIZE(movers); i++) {
		if (skipped(movers[i].name, no_mover(&movers[i])))
			continue;
		for (size_t k = 0; k < ARRAY_SIZE(backings); k++) {
			if (no_backing[k] || !makes_sense(&movers[i], &backings[k]))
				continue;
			cases[n] = (struct moving_case){ &movers[i], &backings[k] };
			snprintf(names[n], sizeof(names[n]), "%s: %s", movers[i].name,
				 backings[k].name);
			if (wanted(argc, argv, names[n]))
				fph_test_add(&t, names[n], moving, &cases[n]);
			n++;
		}
	}
	for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
		static char other[ARRAY_SIZE(kinds)][64];

		snprintf(other[k], sizeof(other[k]), "another process discards: %s",
			 fph_scanner_kind_name(kinds[k]));
		if (wanted(argc, argv, other[k]))
			fph_test_add(&t, other[k], other_discards, &kinds[k]);
	}
	return fph_test_run(&t, "moving");
}

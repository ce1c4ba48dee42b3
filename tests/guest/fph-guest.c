/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fph-guest: the workload inside a test guest, told what to do over a serial
 * line (README.md has the protocol).
 *
 * Every page it owns says which page it is and how often it has been written,
 * and a record kept apart from the pages says the same. A page that
 * a migration lost, left stale, tore or swapped for another then disagrees
 * with the record; a lost page of the record itself shows up in a count that
 * lives in a third place.
 */
#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/types.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define PAGE_BYTES	4096u
#define PAGE_WORDS	(PAGE_BYTES / sizeof(uint64_t))
#define HUGE_BYTES	(UINT64_C(2) << 20)
#define PAGE_MAGIC	UINT64_C(0x0045474150485046)	/* "FPHPAGE" */
#define LINE_WORDS	64u		/* a sparse page has one word of pattern in each 512 bytes */
#define RATE_MAX	10000000u
#define BATCH_NS	INT64_C(10000000)
#define REPLY_NS	INT64_C(5000000000)
#define HEADROOM	(UINT64_C(48) << 20)
#define PRESSURE_STEP	(UINT64_C(4) << 20)
#define PRESSURE_S	60u
#define HUNGER_BYTES	(UINT64_C(32) << 20)	/* that come and go */
#define HUNGER_NS	INT64_C(1200000000)	/* so long they are away */
#define VIRTIO_FPH	"/sys/bus/virtio/drivers/virtio_fph"
#define COMPILE		"/compile"	/* of the archive that build-guest makes */
#define SOURCES_MAX	64u
#define COMPILE_CPUS	64u

enum { H_MAGIC, H_INDEX, H_SEQ, H_SUM, H_WORDS };

/* Memory with a record of what each page of it must hold. */
struct region {
	struct region *next;
	uint64_t *pages;
	uint32_t *seq;		/* expected sequence number, 0: never written */
	uint64_t count;		/* pages */
	uint64_t written;	/* pages with a sequence number, kept apart from @seq */
	uint64_t first;		/* index of the first page; indexes are never used twice */
	size_t map_bytes;
	size_t seq_bytes;
	bool dense;
	bool filled;		/* whole and free for "rewrite" to write to */
	bool churn;		/* comes and goes */
};

enum writer_kind { W_TOUCH, W_REWRITE, W_CHURN, W_ZERO, W_HUNGER, W_DISK, W_KINDS };

struct writer {
	pthread_t thread;
	bool running;
	enum writer_kind kind;
	uint32_t rate;
	uint64_t bytes;
	struct region *region;	/* touch: its own */
	uint64_t rnd;
};

/*
 * Held by a writer for one batch and by a command for as long as it looks at
 * the regions. A command says that it waits, so that a writer without pauses
 * cannot take the lock again before it.
 */
static pthread_mutex_t world = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t world_free = PTHREAD_COND_INITIALIZER;
static atomic_uint world_wanted;

static struct region *regions;			/* under world */
static uint64_t next_index = 1;			/* under world */
static struct writer writers[W_KINDS];		/* threads are started and joined by commands */
static atomic_bool stopping;
static atomic_uint_fast64_t writes;
static atomic_uint_fast64_t churn_rounds;
static atomic_uint_fast64_t churn_bad;
static atomic_bool churn_starved;
static atomic_uint_fast64_t zero_rounds;
static atomic_uint_fast64_t zero_bad;
static atomic_uint_fast64_t zero_used;		/* pages it has now */
static atomic_uint_fast64_t hunger_killed;
static atomic_uint_fast64_t disk_rounds, disk_bad;
static int hunger_pipe[2];		/* closed at our end, the process is to end */
static bool rebooting;
static bool next_kernel;		/* loaded, and to be booted by that */
static const char *suspend_to;		/* "mem" or "disk"; NULL: goes on */
static char resume_from[32];		/* device, if this kernel is to make way for what is there */
static const char *self;			/* how to run this program */

static void command_begin(void)
{
	atomic_fetch_add(&world_wanted, 1);
	pthread_mutex_lock(&world);
}

static void command_end(void)
{
	atomic_fetch_sub(&world_wanted, 1);
	pthread_cond_broadcast(&world_free);
	pthread_mutex_unlock(&world);
}

static void batch_begin(void)
{
	pthread_mutex_lock(&world);
	while (atomic_load(&world_wanted))
		pthread_cond_wait(&world_free, &world);
}

static void batch_end(void)
{
	pthread_mutex_unlock(&world);
}

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* Pages. */

static uint64_t mix(uint64_t x)
{
	x ^= x >> 32;
	x *= UINT64_C(0xd6e8feb86659fd93);
	x ^= x >> 32;
	x *= UINT64_C(0xd6e8feb86659fd93);
	return x ^ x >> 32;
}

static uint64_t page_sum(uint64_t index, uint64_t seq)
{
	/* Odd, thus never the zero of a page that was lost. */
	return mix(index * UINT64_C(0x9e3779b97f4a7c15) + seq) | 1;
}

static void page_write(uint64_t *p, uint64_t index, uint64_t seq, bool dense)
{
	uint64_t sum = page_sum(index, seq);
	unsigned int i;

	p[H_MAGIC] = PAGE_MAGIC;
	p[H_INDEX] = index;
	p[H_SEQ] = seq;
	p[H_SUM] = sum;
	if (dense) {
		for (i = H_WORDS; i < PAGE_WORDS; i++)
			p[i] = sum + i;
		return;
	}
	for (i = LINE_WORDS - 1; i < PAGE_WORDS; i += LINE_WORDS)
		p[i] = sum + i;
}

/* Every byte counts: words without a pattern must still be the kernel's zero. */
static bool page_is(const uint64_t *p, uint64_t index, uint64_t seq, bool dense)
{
	uint64_t sum = page_sum(index, seq);
	uint64_t diff;
	unsigned int i, j;

	diff = (p[H_MAGIC] ^ PAGE_MAGIC) | (p[H_INDEX] ^ index) | (p[H_SEQ] ^ seq) | (p[H_SUM] ^ sum);
	if (dense) {
		for (i = H_WORDS; i < PAGE_WORDS; i++)
			diff |= p[i] ^ (sum + i);
		return !diff;
	}
	for (j = H_WORDS; j < LINE_WORDS - 1; j++)
		diff |= p[j];
	diff |= p[j] ^ (sum + j);
	for (i = LINE_WORDS; i < PAGE_WORDS; i += LINE_WORDS) {
		for (j = 0; j < LINE_WORDS - 1; j++)
			diff |= p[i + j];
		diff |= p[i + j] ^ (sum + i + j);
	}
	return !diff;
}

/* Regions. */

static void region_free(struct region *r)
{
	if (!r)
		return;
	if (r->pages)
		munmap(r->pages, r->map_bytes);
	if (r->seq)
		munmap(r->seq, r->seq_bytes);
	free(r);
}

static void *map(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* NULL if memory is short; @bytes is rounded up to pages. */
static struct region *region_new(uint64_t bytes, bool huge)
{
	struct region *r = calloc(1, sizeof(*r));
	uint64_t off;

	if (!r)
		return NULL;
	r->count = (bytes + PAGE_BYTES - 1) / PAGE_BYTES;
	/* Start on a huge page, or the first and the last of them are small ones. */
	r->map_bytes = r->count * PAGE_BYTES + (huge ? HUGE_BYTES : 0);
	r->seq_bytes = r->count * sizeof(*r->seq);
	r->pages = map(r->map_bytes);
	r->seq = map(r->seq_bytes);
	if (!r->pages || !r->seq) {
		region_free(r);
		return NULL;
	}
	if (huge) {
		off = -(uintptr_t)r->pages & (HUGE_BYTES - 1);
		if (off)
			munmap(r->pages, off);
		r->pages += off / sizeof(*r->pages);
		r->map_bytes -= off;
	}
	madvise(r->pages, r->map_bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	return r;
}

static void region_link(struct region *r)
{
	r->first = next_index;
	next_index += r->count;
	r->next = regions;
	regions = r;
}

static void region_unlink(struct region *r)
{
	struct region **at;

	for (at = &regions; *at; at = &(*at)->next) {
		if (*at == r) {
			*at = r->next;
			return;
		}
	}
}

static void region_write(struct region *r, uint64_t i)
{
	uint32_t seq = r->seq[i] + 1;

	if (seq == 1)
		r->written++;
	/* After four thousand million writes: begin anew, but not at "never". */
	if (!seq)
		seq = 1;
	page_write(r->pages + i * PAGE_WORDS, r->first + i, seq, r->dense);
	r->seq[i] = seq;
	atomic_fetch_add_explicit(&writes, 1, memory_order_relaxed);
}

/* Pages that are not what the record says. Adds the pages looked at to @pages. */
static uint64_t region_check(const struct region *r, uint64_t from, uint64_t to, uint64_t *pages)
{
	uint64_t bad = 0;
	uint64_t i;

	for (i = from; i < to; i++) {
		if (!r->seq[i])
			continue;
		++*pages;
		if (!page_is(r->pages + i * PAGE_WORDS, r->first + i, r->seq[i], r->dense))
			bad++;
	}
	return bad;
}

/* Under world. */
static void check_all(uint64_t *pages, uint64_t *bad)
{
	const struct region *r;

	*pages = 0;
	*bad = atomic_load(&churn_bad) + atomic_load(&zero_bad) + atomic_load(&disk_bad);
	for (r = regions; r; r = r->next) {
		uint64_t seen = 0;

		*bad += region_check(r, 0, r->count, &seen);
		/* A record that was lost: pages we wrote and know nothing of. */
		*bad += seen > r->written ? seen - r->written : r->written - seen;
		*pages += seen;
	}
}

/* Writers. */

static uint64_t rnd_below(struct writer *w, uint64_t n)
{
	w->rnd ^= w->rnd << 13;
	w->rnd ^= w->rnd >> 7;
	w->rnd ^= w->rnd << 17;
	return (w->rnd >> 11) % n;
}

static void touch_one(struct writer *w)
{
	struct region *r = w->region;

	region_write(r, r->written < r->count ? r->written : rnd_below(w, r->count));
}

static void rewrite_one(struct writer *w)
{
	struct region *r;
	uint64_t total = 0;
	uint64_t at;

	for (r = regions; r; r = r->next)
		total += r->filled ? r->count : 0;
	if (!total)
		return;
	at = rnd_below(w, total);
	for (r = regions; r; r = r->next) {
		if (!r->filled)
			continue;
		if (at < r->count)
			break;
		at -= r->count;
	}
	region_write(r, at);
}

/*
 * Batches of 10 ms. A batch that comes late, because the guest stood still or
 * because the rate is too high, is not made up for: no bursts after a pause.
 */
static void *paced_main(void *arg)
{
	struct writer *w = arg;
	int64_t period = BATCH_NS;
	int64_t due = now_ns();
	int64_t late;
	uint64_t debt = 0;
	struct timespec t;

	while (!atomic_load(&stopping)) {
		debt += (uint64_t)w->rate * BATCH_NS;
		batch_begin();
		for (; debt >= 1000000000 && !atomic_load(&world_wanted); debt -= 1000000000) {
			if (w->kind == W_TOUCH)
				touch_one(w);
			else
				rewrite_one(w);
		}
		batch_end();
		debt %= 1000000000;
		due += period;
		late = now_ns() - due;
		if (late > period)
			due += late;
		t.tv_sec = due / 1000000000;
		t.tv_nsec = due % 1000000000;
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
	}
	return NULL;
}

#define CHURN_BATCH 64u

static void *churn_main(void *arg)
{
	struct writer *w = arg;
	struct timespec nap = { .tv_nsec = BATCH_NS };
	struct region *r;
	uint64_t i, n, seen;

	while (!atomic_load(&stopping)) {
		r = region_new(w->bytes, true);
		atomic_store(&churn_starved, !r);
		if (!r) {
			nanosleep(&nap, NULL);
			continue;
		}
		r->churn = true;
		batch_begin();
		region_link(r);
		batch_end();
		for (i = 0; i < r->count && !atomic_load(&stopping); i += CHURN_BATCH) {
			batch_begin();
			for (n = i; n < r->count && n < i + CHURN_BATCH; n++)
				region_write(r, n);
			batch_end();
		}
		for (i = 0; i < r->count && !atomic_load(&stopping); i += CHURN_BATCH) {
			batch_begin();
			n = i + CHURN_BATCH < r->count ? i + CHURN_BATCH : r->count;
			seen = 0;
			atomic_fetch_add(&churn_bad, region_check(r, i, n, &seen));
			if (seen != n - i)
				atomic_fetch_add(&churn_bad, n - i - seen);
			batch_end();
		}
		/* Or it would be neither the region's nor available */
		batch_begin();
		region_unlink(r);
		region_free(r);
		batch_end();
		if (!atomic_load(&stopping))
			atomic_fetch_add(&churn_rounds, 1);
	}
	return NULL;
}

static bool page_is_zero(const uint64_t *p)
{
	uint64_t diff = 0;
	unsigned int i;

	for (i = 0; i < PAGE_WORDS; i++)
		diff |= p[i];
	return !diff;
}

/*
 * A kernel with init_on_free does not clear a page that it takes for a process:
 * free pages are zero. Small pages, since large ones are cleared all the same.
 * They are filled with what a page must not show when it comes back.
 */
static void *zero_main(void *arg)
{
	struct writer *w = arg;
	struct timespec nap = { .tv_nsec = BATCH_NS };
	uint64_t count = (w->bytes + PAGE_BYTES - 1) / PAGE_BYTES;
	uint64_t seq = 0, i, n;
	uint64_t *pages, *p;

	while (!atomic_load(&stopping)) {
		pages = map(count * PAGE_BYTES);
		if (!pages) {
			nanosleep(&nap, NULL);
			continue;
		}
		madvise(pages, count * PAGE_BYTES, MADV_NOHUGEPAGE);
		seq++;
		for (i = 0; i < count && !atomic_load(&stopping); i = n) {
			batch_begin();
			for (n = i; n < count && n < i + CHURN_BATCH; n++) {
				p = pages + n * PAGE_WORDS;
				/* To read it would only map the kernel's zero page. */
				*(volatile uint64_t *)p = 0;
				if (!page_is_zero(p))
					atomic_fetch_add(&zero_bad, 1);
				page_write(p, n, seq, true);
			}
			atomic_store(&zero_used, n);
			batch_end();
		}
		batch_begin();
		munmap(pages, count * PAGE_BYTES);
		atomic_store(&zero_used, 0);
		batch_end();
		if (!atomic_load(&stopping))
			atomic_fetch_add(&zero_rounds, 1);
	}
	return NULL;
}

static int run_program(const char *command, char *line, size_t size);

/* Memory is short again and again; when the kernel ends who uses it, another begins. */
static void *hunger_main(void *arg)
{
	struct writer *w = arg;
	char command[300], line[40];

	snprintf(command, sizeof(command), "exec %s --pressure %llu %d", self,
		 (unsigned long long)w->bytes, hunger_pipe[0]);
	while (!atomic_load(&stopping)) {
		if (run_program(command, line, sizeof(line)))
			atomic_fetch_add(&hunger_killed, 1);
	}
	close(hunger_pipe[0]);
	return NULL;
}

#define SECTOR		512u
#define PIECE		(64u << 10)	/* of the disk: what one request is about */
#define DISK_PIECES	4096u

static int disk_direct = -1, disk_cached = -1;
static atomic_bool disk_stopping;
static uint64_t disk_seq[DISK_PIECES];	/* how often we have written each */

/* A sector begins with its number, and how often its piece was written */
static void piece_check(const char *buf, uint64_t piece)
{
	const uint64_t *sector;
	unsigned int i;

	for (i = 0; i < PIECE / SECTOR; i++) {
		sector = (const uint64_t *)(buf + i * SECTOR);
		if (sector[0] != piece * (PIECE / SECTOR) + i || sector[1] != disk_seq[piece])
			atomic_fetch_add(&disk_bad, 1);
	}
}

static void piece_read(int fd, char *buf, uint64_t piece)
{
	if (pread(fd, buf, PIECE, (off_t)(piece * PIECE)) != PIECE)
		atomic_fetch_add(&disk_bad, 1);
	atomic_fetch_add_explicit(&writes, PIECE / PAGE_BYTES, memory_order_relaxed);
}

static void piece_write(char *buf, uint64_t piece)
{
	unsigned int i;

	disk_seq[piece]++;
	for (i = 0; i < PIECE / SECTOR; i++)
		((uint64_t *)(buf + i * SECTOR))[1] = disk_seq[piece];
	if (pwrite(disk_direct, buf, PIECE, (off_t)(piece * PIECE)) != PIECE)
		atomic_fetch_add(&disk_bad, 1);
}

/*
 * Memory of the page cache nobody writes to but the device; what it wrote stays until the
 * next round, and has to be there then. Memory that a process reads into, past the page
 * cache, the kernel has cleared before. One piece in so many is written.
 */
#define PIECE_WRITTEN	16u

static void *disk_main(void *arg)
{
	struct writer *w = arg;
	uint64_t pieces = w->bytes / PIECE, round, i;
	char *fresh, *copy = map(PIECE);

	for (round = 0; copy && !atomic_load(&disk_stopping); round++) {
		fresh = map(w->bytes);
		if (!fresh)
			break;
		for (i = 0; i < pieces && !atomic_load(&disk_stopping); i++) {
			piece_read(disk_cached, copy, i);
			piece_check(copy, i);
			posix_fadvise(disk_cached, (off_t)(i * PIECE), PIECE, POSIX_FADV_DONTNEED);
			piece_read(disk_cached, copy, i);
			piece_check(copy, i);
			piece_read(disk_direct, fresh + i * PIECE, i);
		}
		while (i--) {
			piece_check(fresh + i * PIECE, i);
			if (i % PIECE_WRITTEN == round % PIECE_WRITTEN)
				piece_write(fresh + i * PIECE, i);
		}
		munmap(fresh, w->bytes);
		if (!atomic_load(&disk_stopping))
			atomic_fetch_add(&disk_rounds, 1);
	}
	if (copy)
		munmap(copy, PIECE);
	return NULL;
}

static void disk_stop(void)
{
	if (!writers[W_DISK].running)
		return;
	atomic_store(&disk_stopping, true);
	pthread_join(writers[W_DISK].thread, NULL);
	writers[W_DISK].running = false;
	atomic_store(&disk_stopping, false);
}

static void writers_stop(void)
{
	unsigned int i;

	atomic_store(&stopping, true);
	disk_stop();
	if (writers[W_HUNGER].running)
		close(hunger_pipe[1]);
	for (i = 0; i < W_KINDS; i++) {
		if (!writers[i].running)
			continue;
		pthread_join(writers[i].thread, NULL);
		writers[i].running = false;
	}
	atomic_store(&stopping, false);
}

static void *(*const writer_main[W_KINDS])(void *) = {
	[W_TOUCH] = paced_main,
	[W_REWRITE] = paced_main,
	[W_CHURN] = churn_main,
	[W_ZERO] = zero_main,
	[W_HUNGER] = hunger_main,
	[W_DISK] = disk_main,
};

static int writer_start(enum writer_kind kind, uint32_t rate, uint64_t bytes, struct region *r)
{
	struct writer *w = &writers[kind];
	int err;

	w->kind = kind;
	w->rate = rate;
	w->bytes = bytes;
	w->region = r;
	w->rnd = UINT64_C(0x2545f4914f6cdd1d) + kind;
	err = pthread_create(&w->thread, NULL, writer_main[kind], w);
	if (err)
		return -err;
	w->running = true;
	return 0;
}

/* Commands. */

#define MAX_ARGS 6

struct reply {
	char text[256];
	bool err;
};

static void __attribute__((format(printf, 2, 3))) ok(struct reply *re, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(re->text, sizeof(re->text), fmt, ap);
	va_end(ap);
}

static void __attribute__((format(printf, 2, 3))) fail(struct reply *re, const char *fmt, ...)
{
	va_list ap;

	re->err = true;
	va_start(ap, fmt);
	vsnprintf(re->text, sizeof(re->text), fmt, ap);
	va_end(ap);
}

/* A positive decimal number that may end in one of @suffixes (each 1024 times the one before). */
static bool parse_number(const char *s, const char *suffixes, uint64_t max, uint64_t *ret)
{
	const char *suffix;
	uint64_t v = 0;

	if (*s < '0' || *s > '9')
		return false;
	for (; *s >= '0' && *s <= '9'; s++) {
		if (v > (UINT64_MAX - 9) / 10)
			return false;
		v = v * 10 + (uint64_t)(*s - '0');
	}
	if (*s) {
		suffix = strchr(suffixes, *s);
		if (!suffix || s[1])
			return false;
		for (; suffix >= suffixes; suffix--) {
			if (v > UINT64_MAX / 1024)
				return false;
			v *= 1024;
		}
	}
	if (!v || v > max)
		return false;
	*ret = v;
	return true;
}

static bool arg_bytes(struct reply *re, const char *s, uint64_t *ret)
{
	if (parse_number(s, "KMG", UINT64_C(1) << 46, ret))
		return true;
	fail(re, "'%.40s' is not a size: a number of bytes above 0, with K, M or G behind it if wanted", s);
	return false;
}

static bool arg_rate(struct reply *re, const char *s, uint32_t *ret)
{
	uint64_t v;

	if (parse_number(s, "", RATE_MAX, &v)) {
		*ret = (uint32_t)v;
		return true;
	}
	fail(re, "'%.40s' is not a rate: pages per second, 1 to %u", s, RATE_MAX);
	return false;
}

/* A field of /proc/meminfo, or 0. */
static uint64_t meminfo_kib(const char *name)
{
	unsigned long long v;
	size_t len = strlen(name);
	uint64_t ret = 0;
	char line[128];
	FILE *f = fopen("/proc/meminfo", "re");

	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f)) {
		if (strncmp(line, name, len) || line[len] != ':')
			continue;
		if (sscanf(line + len + 1, "%llu", &v) == 1)
			ret = v;
		break;
	}
	fclose(f);
	return ret;
}

/*
 * What writers have yet to touch of the memory they were given; and what is available,
 * at the same moment.
 */
static uint64_t spoken_for(uint64_t *avail)
{
	const struct region *r;
	uint64_t churn = writers[W_CHURN].running ? writers[W_CHURN].bytes : 0;
	uint64_t ret = 0;

	command_begin();
	*avail = meminfo_kib("MemAvailable") * 1024;
	for (r = regions; r; r = r->next) {
		if (r->churn)
			churn -= r->written * PAGE_BYTES < churn ? r->written * PAGE_BYTES : churn;
		else
			ret += (r->count - r->written) * PAGE_BYTES;
	}
	ret += churn;
	if (writers[W_ZERO].running)
		ret += writers[W_ZERO].bytes - atomic_load(&zero_used) * PAGE_BYTES;
	command_end();
	if (writers[W_DISK].running)
		ret += writers[W_DISK].bytes;
	return ret;
}

/* Asking for more than there is would bring the kernel to end us. */
static bool fits(struct reply *re, uint64_t bytes)
{
	uint64_t avail;
	uint64_t need = bytes + bytes / 1024 + HEADROOM + spoken_for(&avail);

	if (need <= avail)
		return true;
	fail(re, "not enough memory: %llu MiB needed with the record and what is spoken for, %llu MiB available",
	     (unsigned long long)(need >> 20), (unsigned long long)(avail >> 20));
	return false;
}

/* The most that fits(), in huge pages; 0: nothing does. */
static uint64_t all_that_fits(void)
{
	uint64_t avail;
	uint64_t kept = HEADROOM + spoken_for(&avail);

	if (avail <= kept)
		return 0;
	/* A little may go until fits() looks. */
	return (avail - kept) / 1024 * 1020 / HUGE_BYTES * HUGE_BYTES;
}

static void cmd_ping(struct reply *re, char **args)
{
	ok(re, "ping");
}

static void cmd_fill(struct reply *re, char **args)
{
	struct region *r;
	uint64_t bytes, i;
	bool dense = false;

	if (!strcmp(args[0], "all"))
		bytes = all_that_fits();
	else if (!arg_bytes(re, args[0], &bytes))
		return;
	if (!bytes) {
		fail(re, "not enough memory for anything");
		return;
	}
	if (args[1]) {
		if (strcmp(args[1], "dense")) {
			fail(re, "'%.40s' is not a kind of fill: nothing or 'dense'", args[1]);
			return;
		}
		dense = true;
	}
	if (!fits(re, bytes))
		return;
	r = region_new(bytes, true);
	if (!r) {
		fail(re, "no memory");
		return;
	}
	r->dense = dense;
	/* Indexes first: pages carry them. The region joins the others when it is whole. */
	command_begin();
	r->first = next_index;
	next_index += r->count;
	command_end();
	for (i = 0; i < r->count; i++)
		region_write(r, i);
	r->filled = true;
	command_begin();
	r->next = regions;
	regions = r;
	command_end();
	ok(re, "fill pages=%llu", (unsigned long long)r->count);
}

static void cmd_free(struct reply *re, char **args)
{
	struct region *r;
	uint64_t pages = 0;

	writers_stop();
	while (regions) {
		r = regions;
		regions = r->next;
		pages += r->written;
		region_free(r);
	}
	ok(re, "free pages=%llu", (unsigned long long)pages);
}

static bool idle(struct reply *re, enum writer_kind kind, const char *name)
{
	if (!writers[kind].running)
		return true;
	fail(re, "%s is running: 'stop' first", name);
	return false;
}

static void cmd_touch(struct reply *re, char **args)
{
	struct region *r;
	uint64_t bytes;
	uint32_t rate;
	int err;

	if (!idle(re, W_TOUCH, "touch") || !arg_rate(re, args[0], &rate) ||
	    !arg_bytes(re, args[1], &bytes) || !fits(re, bytes))
		return;
	/* Small pages, or one touch would be 512 of the host's. */
	r = region_new(bytes, false);
	if (!r) {
		fail(re, "no memory");
		return;
	}
	command_begin();
	region_link(r);
	command_end();
	err = writer_start(W_TOUCH, rate, bytes, r);
	if (err) {
		command_begin();
		region_unlink(r);
		command_end();
		region_free(r);
		fail(re, "no thread: %s", strerror(-err));
		return;
	}
	ok(re, "touch pages=%llu", (unsigned long long)r->count);
}

static void cmd_rewrite(struct reply *re, char **args)
{
	const struct region *r;
	uint32_t rate;
	int err;

	if (!idle(re, W_REWRITE, "rewrite") || !arg_rate(re, args[0], &rate))
		return;
	command_begin();
	for (r = regions; r && !r->filled; r = r->next)
		;
	command_end();
	if (!r) {
		fail(re, "nothing to rewrite: 'fill' first");
		return;
	}
	err = writer_start(W_REWRITE, rate, 0, NULL);
	if (err)
		fail(re, "no thread: %s", strerror(-err));
	else
		ok(re, "rewrite");
}

static void start_churn(struct reply *re, char **args, enum writer_kind kind, const char *name)
{
	uint64_t bytes;
	int err;

	if (!idle(re, kind, name) || !arg_bytes(re, args[0], &bytes) || !fits(re, bytes))
		return;
	err = writer_start(kind, 0, bytes, NULL);
	if (err)
		fail(re, "no thread: %s", strerror(-err));
	else
		ok(re, "%s", name);
}

static void cmd_churn(struct reply *re, char **args)
{
	start_churn(re, args, W_CHURN, "churn");
}

static void cmd_zerochurn(struct reply *re, char **args)
{
	start_churn(re, args, W_ZERO, "zerochurn");
}

static void cmd_hunger(struct reply *re, char **args)
{
	uint64_t bytes;
	int err;

	if (!idle(re, W_HUNGER, "hunger") || !arg_bytes(re, args[0], &bytes))
		return;
	/* The process has the end to read from. */
	if (pipe2(hunger_pipe, O_CLOEXEC) || fcntl(hunger_pipe[0], F_SETFD, 0)) {
		fail(re, "no pipe: %s", strerror(errno));
		return;
	}
	err = writer_start(W_HUNGER, 0, bytes, NULL);
	if (err)
		fail(re, "no thread: %s", strerror(-err));
	else
		ok(re, "hunger");
}

/* What was written before stays known, as long as it is the same disk */
static bool open_disk(struct reply *re, const char *path, uint64_t bytes)
{
	off_t size;

	if (disk_direct < 0)
		disk_direct = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	if (disk_direct >= 0 && disk_cached < 0)
		disk_cached = open(path, O_RDONLY | O_CLOEXEC);
	if (disk_cached < 0) {
		fail(re, "%s: %s", path, strerror(errno));
		return false;
	}
	size = lseek(disk_direct, 0, SEEK_END);
	if (!bytes || bytes % PIECE || bytes > (uint64_t)size || bytes / PIECE > DISK_PIECES) {
		fail(re, "%s has %lld bytes, and %u pieces of %u are the most", path,
		     (long long)size, DISK_PIECES, PIECE);
		return false;
	}
	return true;
}

static void cmd_disk(struct reply *re, char **args)
{
	uint64_t bytes;
	int err;

	if (!idle(re, W_DISK, "disk") || !arg_bytes(re, args[1], &bytes) || !fits(re, bytes) ||
	    !open_disk(re, args[0], bytes))
		return;
	err = writer_start(W_DISK, 0, bytes, NULL);
	if (err)
		fail(re, "no thread: %s", strerror(-err));
	else
		ok(re, "disk");
}

/* A page of a region, and where it is in memory, in pages */
struct place {
	uint64_t frame, page;
};

static int by_frame(const void *a, const void *b)
{
	const struct place *p = a, *q = b;

	return (p->frame > q->frame) - (p->frame < q->frame);
}

/* The pages of @r as they lie in memory, or here where that is not told; NULL: no memory. */
static struct place *places_of(const struct region *r)
{
	struct place *places = calloc(r->count, sizeof(*places));
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t i, at, entry;

	for (i = 0; places && i < r->count; i++) {
		at = (uintptr_t)(r->pages + i * PAGE_WORDS) / PAGE_BYTES;
		if (pread(pagemap, &entry, sizeof(entry), at * sizeof(entry)) != sizeof(entry))
			entry = 0;
		entry &= (UINT64_C(1) << 55) - 1;
		places[i] = (struct place){ .frame = entry ? entry : at, .page = i };
	}
	if (pagemap >= 0)
		close(pagemap);
	if (places)
		qsort(places, r->count, sizeof(*places), by_frame);
	return places;
}

/*
 * Pages of which every second one is given back, in the order in which they lie in
 * memory: what is free is single pages.
 */
static void cmd_fragment(struct reply *re, char **args)
{
	struct place *places;
	struct region *r;
	uint64_t bytes, i, at, freed = 0;

	if (!arg_bytes(re, args[0], &bytes) || !fits(re, bytes))
		return;
	r = region_new(bytes, false);
	if (!r) {
		fail(re, "no memory");
		return;
	}
	command_begin();
	region_link(r);
	command_end();
	for (i = 0; i < r->count; i++)
		region_write(r, i);
	places = places_of(r);
	if (!places) {
		fail(re, "no memory");
		return;
	}
	for (i = 1; i < r->count; i += 2) {
		at = places[i].page;
		/* A kernel of few parts has no madvise(). */
		if (madvise(r->pages + at * PAGE_WORDS, PAGE_BYTES, MADV_DONTNEED)) {
			fail(re, "madvise: %s", strerror(errno));
			break;
		}
		r->seq[at] = 0;
		r->written--;
		freed++;
	}
	free(places);
	if (i >= r->count)
		ok(re, "fragment pages=%llu freed=%llu", (unsigned long long)r->written,
		   (unsigned long long)freed);
}

/*
 * Runs a command of the shell and keeps the last line that it says. Return: what
 * waitpid() gave, or -1.
 */
static int run_program(const char *command, char *line, size_t size)
{
	FILE *f = popen(command, "re");

	line[0] = '\0';
	if (!f)
		return -1;
	/* What is left of @line at the end of the file is the last line. */
	while (fgets(line, (int)size, f))
		;
	line[strcspn(line, "\n")] = '\0';
	return pclose(f);
}

static bool arg_word(struct reply *re, const char *s)
{
	const char *allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_=,.:";

	if (!s[strspn(s, allowed)])
		return true;
	fail(re, "'%.40s' is not the name of a module, nor a parameter", s);
	return false;
}

static void cmd_mod(struct reply *re, char **args)
{
	const char *program = "/bin/load-module";
	char command[300], line[120];
	int len, i, status;

	if (!strcmp(args[0], "unload") && !args[2]) {
		program = "/bin/busybox rmmod";
	} else if (strcmp(args[0], "load")) {
		fail(re, "usage: mod load NAME [PARAMETER=VALUE...], mod unload NAME");
		return;
	}
	len = snprintf(command, sizeof(command), "%s", program);
	for (i = 1; args[i]; i++) {
		if (!arg_word(re, args[i]))
			return;
		len += snprintf(command + len, sizeof(command) - len, " %s", args[i]);
	}
	snprintf(command + len, sizeof(command) - len, " 2>&1");
	status = run_program(command, line, sizeof(line));
	if (status)
		fail(re, "mod %.10s: %s", args[0], line[0] ? line : "failed");
	else
		ok(re, "mod");
}

/*
 * A real job: processes that come and go, files that are read and written, memory
 * that is used and freed. One thread for each processor takes the next object; a
 * source may come up many times.
 */
static struct {
	pthread_t threads[COMPILE_CPUS];
	unsigned int running;		/* threads that were not joined yet */
	char *sources[SOURCES_MAX];
	unsigned int n_sources;
	uint64_t of;			/* objects to make */
	atomic_uint_fast64_t next, made;
	pthread_mutex_t lock;
	char problem[160];		/* under lock; the first one ends the job */
	atomic_bool failed;
} compile = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* Names without what a shell takes for more than a name. */
static bool read_sources(void)
{
	FILE *f = compile.n_sources ? NULL : fopen(COMPILE "/sources", "re");
	char name[80];

	while (f && compile.n_sources < SOURCES_MAX && fscanf(f, "%79s", name) == 1)
		compile.sources[compile.n_sources++] = strdup(name);
	if (f)
		fclose(f);
	return compile.n_sources;
}

/* What the same compiler made of the same source elsewhere is what it must make here. */
static void compile_one(uint64_t i)
{
	const char *source = compile.sources[i % compile.n_sources];
	int stem = (int)strlen(source) - 2;
	char command[400], line[120];
	int status;

	snprintf(command, sizeof(command), "b=/bin/busybox o=/tmp/%llu.o; "
		 "if " COMPILE "/compile %s $o >$o.log 2>&1; "
		 "then $b cmp $o " COMPILE "/%.*s.o 2>&1 && $b rm $o $o.log; "
		 "else $b grep -m 1 error: $o.log; false; fi",
		 (unsigned long long)i, source, stem, source);
	status = run_program(command, line, sizeof(line));
	if (!status) {
		atomic_fetch_add(&compile.made, 1);
		return;
	}
	pthread_mutex_lock(&compile.lock);
	if (!atomic_load(&compile.failed))
		snprintf(compile.problem, sizeof(compile.problem), "%s",
			 line[0] ? line : "the compiler failed without a word");
	atomic_store(&compile.failed, true);
	pthread_mutex_unlock(&compile.lock);
}

static void *compile_main(void *arg)
{
	uint64_t i;

	while (!atomic_load(&compile.failed)) {
		i = atomic_fetch_add(&compile.next, 1);
		if (i >= compile.of)
			break;
		compile_one(i);
	}
	return arg;
}

static void compile_join(void)
{
	while (compile.running)
		pthread_join(compile.threads[--compile.running], NULL);
}

static void cmd_compile(struct reply *re, char **args)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	uint64_t objects;

	if (compile.running) {
		fail(re, "compile is running: 'compiled wait' first");
		return;
	}
	if (!parse_number(args[0], "", 1000000, &objects)) {
		fail(re, "'%.40s' is not a number of objects, 1 to 1000000", args[0]);
		return;
	}
	if (!read_sources()) {
		fail(re, "no compiler here: the guest was booted without the archive that has it");
		return;
	}
	compile.of = objects;
	atomic_store(&compile.next, 0);
	atomic_store(&compile.made, 0);
	atomic_store(&compile.failed, false);
	while (compile.running < COMPILE_CPUS && (long)compile.running < cpus &&
	       !pthread_create(&compile.threads[compile.running], NULL, compile_main, NULL))
		compile.running++;
	if (compile.running)
		ok(re, "compile jobs=%u sources=%u", compile.running, compile.n_sources);
	else
		fail(re, "no thread");
}

static void cmd_compiled(struct reply *re, char **args)
{
	if (args[0] && strcmp(args[0], "wait")) {
		fail(re, "'%.40s' is neither nothing nor 'wait'", args[0]);
		return;
	}
	if (args[0])
		compile_join();
	pthread_mutex_lock(&compile.lock);
	if (atomic_load(&compile.failed))
		fail(re, "compile: %s", compile.problem);
	else
		ok(re, "compiled objects=%llu of=%llu", (unsigned long long)atomic_load(&compile.made),
		   (unsigned long long)compile.of);
	pthread_mutex_unlock(&compile.lock);
}

/* Attributes of the device that virtio_fph drives, in one of its folders */
static void show_attributes(struct reply *re, const char *folder, const char *const *names)
{
	char path[300], value[40], text[240] = "";
	const struct dirent *d = NULL;
	size_t len = 0, i;
	DIR *dir;
	FILE *f;

	dir = opendir(VIRTIO_FPH);
	while (dir && (d = readdir(dir)) && strncmp(d->d_name, "virtio", 6))
		;
	for (i = 0; d && names[i]; i++) {
		snprintf(path, sizeof(path), VIRTIO_FPH "/%.64s/%s/%s", d->d_name, folder, names[i]);
		f = fopen(path, "re");
		if (!f)
			break;
		if (fscanf(f, "%39s", value) == 1)
			len += snprintf(text + len, sizeof(text) - len, " %s=%s", names[i], value);
		fclose(f);
	}
	if (dir)
		closedir(dir);
	if (len)
		ok(re, "%s%s", folder, text);
	else
		fail(re, "no device that virtio_fph drives, or it has no %s", folder);
}

/* What the last report of free pages cost, as the module tells it. */
static void cmd_report(struct reply *re, char **args)
{
	static const char *const names[] = {
		"reports", "aborted", "walk", "walk_ns", "lock_ns", "pages", "entries", "frames", NULL,
	};

	show_attributes(re, "report", names);
}

static void cmd_balloon(struct reply *re, char **args)
{
	static const char *const names[] = {
		"target", "actual", "state", "frames", "runs", "oom", NULL,
	};

	show_attributes(re, "balloon", names);
}

/* Interrupts of virtio devices since boot, and time that processors had work to do */
static void cmd_usage(struct reply *re, char **args)
{
	unsigned long long irqs = 0, user, nice, system, idle, wait, irq, softirq;
	char line[400];
	FILE *f;

	f = fopen("/proc/interrupts", "re");
	while (f && fgets(line, sizeof(line), f)) {
		char *p = strstr(line, "virtio") ? strchr(line, ':') : NULL;

		for (p = p ? p + 1 : NULL; p && *p; ) {
			char *end;
			unsigned long long n = strtoull(p, &end, 10);

			if (end == p)
				break;
			irqs += n;
			p = end;
		}
	}
	if (f)
		fclose(f);
	f = fopen("/proc/stat", "re");
	if (!f || fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &system, &idle,
			 &wait, &irq, &softirq) != 7)
		fail(re, "no /proc/stat");
	else
		ok(re, "usage irqs=%llu busy_ms=%llu", irqs,
		   (user + nice + system + irq + softirq) * 1000 / sysconf(_SC_CLK_TCK));
	if (f)
		fclose(f);
}

/*
 * Memory gets short, which calls those who keep some in reserve. A process of its
 * own does it, the first that the kernel ends when there is none left.
 */
static void cmd_pressure(struct reply *re, char **args)
{
	char command[300], line[40];
	uint64_t bytes;
	int status;

	if (!arg_bytes(re, args[0], &bytes))
		return;
	snprintf(command, sizeof(command), "exec %s --pressure %llu", self, (unsigned long long)bytes);
	status = run_program(command, line, sizeof(line));
	if (status < 0 || !line[0])
		fail(re, "cannot run %.40s", self);
	else
		ok(re, "pressure pages=%s killed=%d", line, status != 0);
}

/* With @until, it wants the last of it again and again, until nobody holds the other end */
static int pressure(const char *arg, const char *until)
{
	struct timespec away = { .tv_sec = HUNGER_NS / 1000000000, .tv_nsec = HUNGER_NS % 1000000000 };
	struct pollfd p_until = { .fd = until ? atoi(until) : -1 };
	uint64_t bytes = strtoull(arg, NULL, 10);
	uint64_t last = bytes < HUNGER_BYTES ? bytes : HUNGER_BYTES;
	uint64_t i, used;
	char *p;
	FILE *f;

	f = fopen("/proc/self/oom_score_adj", "we");
	if (f) {
		fputs("1000", f);
		fclose(f);
	}
	if (!until)
		alarm(PRESSURE_S);
	/* Address space that is not spoken for, or a careful kernel refuses it. */
	p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return EXIT_FAILURE;
	for (used = 0; used < bytes;) {
		for (i = 0; i < PRESSURE_STEP && used < bytes; i += PAGE_BYTES, used += PAGE_BYTES)
			p[used] = 1;
		/* The last word counts, even if it was not the last deed. */
		printf("%llu\n", (unsigned long long)used / PAGE_BYTES);
		fflush(stdout);
	}
	while (until && !ppoll(&p_until, 1, &away, NULL)) {
		for (i = bytes - last; i < bytes; i += PAGE_BYTES)
			p[i] = 1;
		if (madvise(p + bytes - last, last, MADV_DONTNEED))
			return EXIT_FAILURE;
	}
	return EXIT_SUCCESS;
}

static void cmd_reboot(struct reply *re, char **args)
{
	rebooting = true;
	ok(re, "reboot");
}

/* The kernel of the folder /kexec comes next, without a machine that starts anew. */
static void cmd_kexec(struct reply *re, char **args)
{
	int image = open("/kexec/vmlinuz", O_RDONLY | O_CLOEXEC);
	int initrd = open("/kexec/initramfs.img", O_RDONLY | O_CLOEXEC);
	FILE *f = fopen("/proc/cmdline", "re");
	char line[1024] = "", *drop;

	if (f) {
		if (!fgets(line, sizeof(line), f))
			line[0] = '\0';
		fclose(f);
	}
	line[strcspn(line, "\n")] = '\0';
	/* Without modules: whatever a device does then, its driver was another kernel's. */
	drop = strstr(line, "fph.modules=");
	if (drop)
		memcpy(drop, "not", 3);
	next_kernel = !syscall(SYS_kexec_file_load, image, initrd, strlen(line) + 1, line, 0UL);
	if (next_kernel)
		ok(re, "kexec");
	else
		fail(re, "kexec: %s", strerror(errno));
	rebooting = next_kernel;
	if (image >= 0)
		close(image);
	if (initrd >= 0)
		close(initrd);
}

/* Return: 0 or an errno, which @re has, too, unless it is NULL */
static int put_word(struct reply *re, const char *path, const char *word)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t len = (ssize_t)strlen(word), n = -1;
	int err = 0;

	if (fd >= 0)
		n = write(fd, word, (size_t)len);
	if (n != len)
		err = n < 0 ? errno : EIO;
	if (err && re)
		fail(re, "%.80s: %s", path, strerror(err));
	if (fd >= 0)
		close(fd);
	return err;
}

/* MAJOR:MINOR of a disk */
static bool device_number(struct reply *re, const char *path, char *ret, size_t size)
{
	struct stat st;

	if (stat(path, &st) || !S_ISBLK(st.st_mode)) {
		fail(re, "%.80s: no disk", path);
		return false;
	}
	snprintf(ret, size, "%u:%u", major(st.st_rdev), minor(st.st_rdev));
	return true;
}

/* As mkswap(8) does: swap space of one page size, version 1, without bad pages */
static bool make_swap(const char *path)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	uint32_t head[3] = { 1 };
	char *buf = calloc(1, page);
	bool done = false;

	if (fd >= 0 && buf) {
		head[1] = (uint32_t)((size_t)lseek(fd, 0, SEEK_END) / page - 1);
		memcpy(buf + 1024, head, sizeof(head));
		memcpy(buf + page - 10, "SWAPSPACE2", 10);
		done = pwrite(fd, buf, page, 0) == (ssize_t)page && !fsync(fd);
	}
	free(buf);
	if (fd >= 0)
		close(fd);
	return done;
}

/* To RAM, or to a disk that is there for nothing else; the answer comes before */
static void cmd_suspend(struct reply *re, char **args)
{
	char device[32];

	suspend_to = NULL;
	if (!args[0]) {
		suspend_to = "mem";
	} else if (device_number(re, args[0], device, sizeof(device))) {
		if (swapon(args[0], 0) && errno != EBUSY &&
		    (!make_swap(args[0]) || swapon(args[0], 0)))
			fail(re, "swap on %.80s: %s", args[0], strerror(errno));
		/* Which also looks for what to go on with, and there is nothing */
		else if (!put_word(re, "/sys/power/resume", device) &&
			 !put_word(re, "/sys/power/disk", "shutdown"))
			suspend_to = "disk";
	}
	if (suspend_to)
		ok(re, "suspend");
}

/* Go on with what was suspended to the disk; again after the answer */
static void cmd_resume(struct reply *re, char **args)
{
	if (device_number(re, args[0], resume_from, sizeof(resume_from)))
		ok(re, "resume");
}

static void cmd_stop(struct reply *re, char **args)
{
	if (args[0] && strcmp(args[0], "disk")) {
		fail(re, "'%.40s' cannot be stopped alone: nothing or 'disk'", args[0]);
		return;
	}
	if (args[0])
		disk_stop();
	else
		writers_stop();
	ok(re, "stop");
}

static void cmd_check(struct reply *re, char **args)
{
	uint64_t pages, bad;

	command_begin();
	check_all(&pages, &bad);
	command_end();
	ok(re, "check pages=%llu bad=%llu", (unsigned long long)pages, (unsigned long long)bad);
}

static void cmd_info(struct reply *re, char **args)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	ok(re, "info memfree_kib=%llu uptime_ms=%llu writes=%llu churn_rounds=%llu churn_starved=%d zero_rounds=%llu memavailable_kib=%llu hunger_killed=%llu disk_rounds=%llu",
	   (unsigned long long)meminfo_kib("MemFree"),
	   (unsigned long long)t.tv_sec * 1000 + (unsigned long long)t.tv_nsec / 1000000,
	   (unsigned long long)atomic_load(&writes), (unsigned long long)atomic_load(&churn_rounds),
	   atomic_load(&churn_starved), (unsigned long long)atomic_load(&zero_rounds),
	   (unsigned long long)meminfo_kib("MemAvailable"),
	   (unsigned long long)atomic_load(&hunger_killed),
	   (unsigned long long)atomic_load(&disk_rounds));
}

/* All memory that the kernel lets one read, as a crash dump would */
static void cmd_kcore(struct reply *re, char **args)
{
	int fd = open("/proc/kcore", O_RDONLY | O_CLOEXEC);
	unsigned long long bytes = 0;
	size_t size = 1 << 20;
	char *buf = malloc(size);
	Elf64_Phdr ph;
	Elf64_Ehdr eh;

	if (fd < 0 || !buf || pread(fd, &eh, sizeof(eh), 0) != sizeof(eh)) {
		fail(re, "kcore: %s", strerror(errno));
		goto out;
	}
	for (unsigned int i = 0; i < eh.e_phnum; i++) {
		if (pread(fd, &ph, sizeof(ph), (off_t)(eh.e_phoff + i * sizeof(ph))) != sizeof(ph))
			break;
		/*
		 * Memory has an address; what is mapped elsewhere has none. Nor the
		 * kernel's own image: that it gave parts of it back is not seen there.
		 */
		if (ph.p_type != PT_LOAD || ph.p_paddr == UINT64_MAX ||
		    ph.p_vaddr >= 0xffffffff80000000)
			continue;
		for (uint64_t at = 0; at < ph.p_filesz; at += size) {
			size_t n = ph.p_filesz - at < size ? ph.p_filesz - at : size;
			ssize_t got = pread(fd, buf, n, (off_t)(ph.p_offset + at));

			bytes += got > 0 ? (unsigned long long)got : 0;
		}
	}
	ok(re, "kcore bytes=%llu", bytes);
out:
	free(buf);
	if (fd >= 0)
		close(fd);
}

/* A line of /proc/vmstat */
static void cmd_vmstat(struct reply *re, char **args)
{
	unsigned long long value;
	FILE *f = fopen("/proc/vmstat", "re");
	char name[64];

	while (f && fscanf(f, "%63s %llu", name, &value) == 2) {
		if (strcmp(name, args[0]))
			continue;
		ok(re, "vmstat %s=%llu", name, value);
		fclose(f);
		return;
	}
	if (f)
		fclose(f);
	fail(re, "no '%.40s' in /proc/vmstat", args[0]);
}

/* Free memory of a node */
static void cmd_node(struct reply *re, char **args)
{
	unsigned long long free_kib;
	char path[80], line[128];
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "/sys/devices/system/node/node%.8s/meminfo", args[0]);
	f = fopen(path, "re");
	while (f && !found && fgets(line, sizeof(line), f))
		found = sscanf(line, "Node %*u MemFree: %llu", &free_kib) == 1;
	if (f)
		fclose(f);
	if (found)
		ok(re, "node memfree_kib=%llu", free_kib);
	else
		fail(re, "no node '%.8s'", args[0]);
}

/* Words for a file of /proc or /sys */
static void cmd_put(struct reply *re, char **args)
{
	if (!put_word(re, args[0], args[1]))
		ok(re, "put");
}

static const struct command {
	const char *name;
	const char *usage;
	int min_args, max_args;
	void (*run)(struct reply *re, char **args);
} commands[] = {
	{ "ping", "", 0, 0, cmd_ping },
	{ "fill", " BYTES|all [dense]", 1, 2, cmd_fill },
	{ "free", "", 0, 0, cmd_free },
	{ "touch", " PAGES_PER_SECOND BYTES", 2, 2, cmd_touch },
	{ "rewrite", " PAGES_PER_SECOND", 1, 1, cmd_rewrite },
	{ "churn", " BYTES", 1, 1, cmd_churn },
	{ "zerochurn", " BYTES", 1, 1, cmd_zerochurn },
	{ "fragment", " BYTES", 1, 1, cmd_fragment },
	{ "pressure", " BYTES", 1, 1, cmd_pressure },
	{ "hunger", " BYTES", 1, 1, cmd_hunger },
	{ "disk", " DEVICE BYTES", 2, 2, cmd_disk },
	{ "compile", " OBJECTS", 1, 1, cmd_compile },
	{ "compiled", " [wait]", 0, 1, cmd_compiled },
	{ "stop", " [disk]", 0, 1, cmd_stop },
	{ "check", "", 0, 0, cmd_check },
	{ "info", "", 0, 0, cmd_info },
	{ "mod", " load NAME [PARAMETER=VALUE...] | mod unload NAME", 2, MAX_ARGS - 1, cmd_mod },
	{ "report", "", 0, 0, cmd_report },
	{ "balloon", "", 0, 0, cmd_balloon },
	{ "kcore", "", 0, 0, cmd_kcore },
	{ "vmstat", " NAME", 1, 1, cmd_vmstat },
	{ "node", " NUMBER", 1, 1, cmd_node },
	{ "put", " PATH WORD", 2, 2, cmd_put },
	{ "usage", "", 0, 0, cmd_usage },
	{ "suspend", " [DISK]", 0, 1, cmd_suspend },
	{ "resume", " DISK", 1, 1, cmd_resume },
	{ "reboot", "", 0, 0, cmd_reboot },
	{ "kexec", "", 0, 0, cmd_kexec },
};

#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

/* Runs one line, which is cut up, and writes the whole answer with its newline. */
static void run_line(char *line, char *out, size_t size)
{
	char *args[MAX_ARGS + 1] = { NULL };
	const struct command *c = NULL;
	struct reply re = { .err = false };
	char *save = NULL;
	char *word;
	size_t i;
	int n = 0;

	for (word = strtok_r(line, " \t\r", &save); word; word = strtok_r(NULL, " \t\r", &save)) {
		if (n == MAX_ARGS) {
			snprintf(out, size, "err too many words\n");
			return;
		}
		args[n++] = word;
	}
	if (!n) {
		snprintf(out, size, "err an empty line\n");
		return;
	}
	for (i = 0; i < COMMANDS; i++) {
		if (!strcmp(commands[i].name, args[0]))
			c = &commands[i];
	}
	if (!c)
		fail(&re, "unknown command '%.40s': README.md of tests/guest has them", args[0]);
	else if (n - 1 < c->min_args || n - 1 > c->max_args)
		fail(&re, "usage: %s%s", c->name, c->usage);
	else
		c->run(&re, args + 1);
	/* Bytes of the line that are quoted must not make two lines of one. */
	for (i = 0; re.text[i]; i++) {
		if (re.text[i] < ' ' || re.text[i] > '~')
			re.text[i] = '?';
	}
	snprintf(out, size, "%s %s\n", re.err ? "err" : "ok", re.text);
}

/* The line. */

static bool out_broken;

/*
 * Nobody may be listening, and the far end may be a migration that takes its
 * time. Wait a bounded time, then drop the rest; the next answer starts with a
 * newline, so that only the dropped one is lost. Until something gets through
 * again, nothing is waited for.
 */
static void put(int fd, const char *s)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	int64_t end = now_ns() + (out_broken ? 0 : REPLY_NS);
	size_t len;
	ssize_t n;
	char buf[300];

	snprintf(buf, sizeof(buf), "%s%s", out_broken ? "\n" : "", s);
	s = buf;
	len = strlen(s);
	out_broken = false;
	while (len) {
		n = write(fd, s, len);
		if (n > 0) {
			s += n;
			len -= (size_t)n;
			continue;
		}
		if (n < 0 && errno == EINTR)
			continue;
		if ((n < 0 && errno != EAGAIN) || now_ns() >= end) {
			out_broken = true;
			return;
		}
		poll(&p, 1, 100);
	}
}

static void serve(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	bool too_long = false;
	char line[128];
	char out[300];
	size_t len = 0;
	ssize_t n;
	char c;

	put(fd, "fph-guest ready\n");
	for (;;) {
		n = read(fd, &c, 1);
		if (n <= 0) {
			if (n < 0 && errno != EAGAIN && errno != EINTR)
				sleep(1);
			/* A line without a reader hangs up and comes back: look again now and then. */
			if (poll(&p, 1, 1000) > 0 && (p.revents & (POLLERR | POLLHUP)))
				usleep(100000);
			continue;
		}
		if (c == '\r')
			continue;
		if (c != '\n') {
			if (len < sizeof(line) - 1)
				line[len++] = c ? c : '?';
			else
				too_long = true;
			continue;
		}
		line[len] = '\0';
		if (too_long)
			snprintf(out, sizeof(out), "err line too long: %zu bytes at most\n", sizeof(line) - 1);
		else
			run_line(line, out, sizeof(out));
		len = 0;
		too_long = false;
		put(fd, out);
		if (suspend_to) {
			tcdrain(fd);
			put_word(NULL, "/sys/power/state", suspend_to);
			suspend_to = NULL;
		}
		if (*resume_from) {
			tcdrain(fd);
			put_word(NULL, "/sys/power/resume", resume_from);
			*resume_from = '\0';
		}
		if (rebooting) {
			tcdrain(fd);
			reboot(next_kernel ? RB_KEXEC : RB_AUTOBOOT);
		}
	}
}

static int open_line(const char *path)
{
	struct termios t;
	int fd = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (!tcgetattr(fd, &t)) {
		cfmakeraw(&t);
		t.c_cflag |= CLOCAL | CREAD;
		t.c_cflag &= ~(tcflag_t)CRTSCTS;
		cfsetspeed(&t, B115200);
		tcsetattr(fd, TCSANOW, &t);
	}
	return fd;
}

/* Can the check fail? Run on the build machine. */

static unsigned int st_failed;

static void st(bool good, const char *what)
{
	printf("%s %s\n", good ? "ok  " : "FAIL", what);
	if (!good)
		st_failed++;
}

static void st_run(const char *line, const char *want)
{
	char buf[160], out[300], what[200];

	snprintf(buf, sizeof(buf), "%s", line);
	run_line(buf, out, sizeof(out));
	out[strcspn(out, "\n")] = '\0';
	snprintf(what, sizeof(what), "'%.60s' -> '%.100s'", line, out);
	st(!strncmp(out, want, strlen(want)), what);
}

static uint64_t st_bad(void)
{
	uint64_t pages, bad;

	command_begin();
	check_all(&pages, &bad);
	command_end();
	return bad;
}

static void st_corrupt(bool dense)
{
	struct region *r = regions;
	unsigned char *bytes = (unsigned char *)(r->pages + 5 * PAGE_WORDS);
	uint64_t keep[PAGE_WORDS], other[PAGE_WORDS];
	unsigned int i, seen = 0;

	for (i = 0; i < PAGE_BYTES; i++) {
		bytes[i] ^= 1u << (i % 8);
		seen += st_bad() == 1;
		bytes[i] ^= 1u << (i % 8);
	}
	st(seen == PAGE_BYTES, dense ? "any byte of a dense page" : "any byte of a sparse page");

	memcpy(keep, bytes, PAGE_BYTES);
	memset(bytes, 0, PAGE_BYTES);
	st(st_bad() == 1, "a page that became zero");
	memcpy(bytes, keep, PAGE_BYTES);

	region_write(r, 5);
	st(st_bad() == 0, "a page written again");
	memcpy(other, bytes, PAGE_BYTES);
	memcpy(bytes, keep, PAGE_BYTES);
	st(st_bad() == 1, "a page with its content of before");
	memcpy(bytes, other, PAGE_BYTES);
	memcpy(bytes + PAGE_BYTES / 2, (unsigned char *)keep + PAGE_BYTES / 2, PAGE_BYTES / 2);
	st(st_bad() == 1, "a page that is half old");
	memcpy(bytes, r->pages + 6 * PAGE_WORDS, PAGE_BYTES);
	memcpy(r->pages + 6 * PAGE_WORDS, other, PAGE_BYTES);
	st(st_bad() == 2, "two pages in each other's place");
	memcpy(r->pages + 6 * PAGE_WORDS, bytes, PAGE_BYTES);
	memcpy(bytes, other, PAGE_BYTES);

	i = r->seq[7];
	r->seq[7] = 0;
	st(st_bad() == 1, "a record that became zero");
	r->seq[7] = i + 1;
	st(st_bad() == 1, "a record that is wrong");
	r->seq[7] = i;
	st(st_bad() == 0, "everything put back");
}

/* A file for a disk, where the file system can do without a page cache */
static void st_disk(void)
{
	char path[] = "/tmp/fph-guest-XXXXXX", command[64];
	int fd = mkstemp(path);
	uint64_t sector, at, written = 0;

	st_run("disk /dev/null 64K", "err /dev/null");
	for (sector = 0; sector < 32 * PIECE / SECTOR; sector++)
		written += pwrite(fd, &sector, sizeof(sector), (off_t)(sector * SECTOR)) ==
			   sizeof(sector);
	st(written == sector && ftruncate(fd, 32 * PIECE) == 0, "a file of sectors");
	snprintf(command, sizeof(command), "disk %s 64M", path);
	st_run(command, "err ");
	snprintf(command, sizeof(command), "disk %s 2M", path);
	if (disk_direct >= 0) {
		st_run(command, "ok disk");
		st_run(command, "err disk is running");
		for (at = 0; at < 500 && atomic_load(&disk_rounds) < 2; at++)
			usleep(10000);
		st(atomic_load(&disk_rounds) > 1, "disk goes round");
		st_run("stop disks", "err 'disks' cannot be stopped alone");
		st_run("stop disk", "ok stop");
		st_run("stop disk", "ok stop");
		st(disk_seq[0] == 1 && disk_seq[1] == 1, "disk writes");
		st(st_bad() == 0, "a disk as it was written");
		/* A sector of another place, and one of before */
		st(pwrite(fd, &at, sizeof(at), 40 * SECTOR) == sizeof(at), "a bad sector");
		atomic_store(&disk_rounds, 0);
		st_run(command, "ok disk");
		while (!atomic_load(&disk_rounds))
			usleep(10000);
		st_run("stop", "ok stop");
		st(st_bad() > 0, "a bad sector is seen");
		atomic_store(&disk_bad, 0);
	}
	close(fd);
	unlink(path);
}

static int self_test(void)
{
	struct timespec wait = { .tv_nsec = 200000000 };
	uint64_t before, *given;
	uint64_t v;

	st_run("ping", "ok ping");
	st_run(" ping \r", "ok ping");
	st_run("check", "ok check pages=0 bad=0");
	st_run("", "err");
	st_run("pong", "err unknown command 'pong'");
	st_run("ping x", "err usage: ping");
	st_run("ping a b c d e f", "err too many words");
	st_run("fill", "err usage: fill BYTES|all [dense]");
	st_run("fill 0", "err '0' is not a size");
	st_run("fill -1", "err '-1' is not a size");
	st_run("fill 1T", "err '1T' is not a size");
	st_run("fill 1KK", "err '1KK' is not a size");
	st_run("fill 99999999999999999999", "err '99999999999999999999' is not a size");
	st_run("fill 64000G", "err not enough memory");
	st_run("fill 1M thick", "err 'thick' is not a kind");
	st_run("touch 0 1M", "err '0' is not a rate");
	st_run("touch 1K 1M", "err '1K' is not a rate");
	st_run("rewrite 10", "err nothing to rewrite");
	st(parse_number("3K", "KMG", UINT64_MAX, &v) && v == 3072, "3K");
	st(parse_number("3M", "KMG", UINT64_MAX, &v) && v == 3u << 20, "3M");
	st(parse_number("3G", "KMG", UINT64_MAX, &v) && v == UINT64_C(3) << 30, "3G");

	st_run("fill 60K", "ok fill pages=15");
	st_corrupt(false);
	st_run("fill 40001 dense", "ok fill pages=10");
	st_corrupt(true);
	st_run("check", "ok check pages=25 bad=0");

	st_run("touch 100000 1M", "ok touch pages=256");
	st_run("touch 1 1M", "err touch is running");
	st_run("rewrite 100000", "ok rewrite");
	st_run("churn 4M", "ok churn");
	before = atomic_load(&writes);
	nanosleep(&wait, NULL);
	st(atomic_load(&writes) > before, "writers write");
	st(st_bad() == 0, "a check while they do");
	/* Touch starts anew at random pages once all of its own are used. */
	for (v = 0; v < 50 && writers[W_TOUCH].region->written < 256; v++)
		nanosleep(&wait, NULL);
	st(writers[W_TOUCH].region->written == 256, "touch has used all its pages");
	for (v = 0; v < 50 && !atomic_load(&churn_rounds); v++)
		nanosleep(&wait, NULL);
	st(atomic_load(&churn_rounds) > 0, "churn goes round");
	st_run("zerochurn 1M", "ok zerochurn");
	for (v = 0; v < 50 && atomic_load(&zero_rounds) < 2; v++)
		nanosleep(&wait, NULL);
	st(atomic_load(&zero_rounds) > 1, "zerochurn goes round");
	st_run("stop", "ok stop");
	before = atomic_load(&writes);
	nanosleep(&wait, NULL);
	st(atomic_load(&writes) == before, "stopped writers do not");
	st_run("check", "ok check pages=281 bad=0");
	st_run("fragment 64K", "ok fragment pages=8 freed=8");
	st_run("check", "ok check pages=289 bad=0");
	for (v = 0; v < regions->count - 1 && regions->seq[v]; v++)
		;
	given = regions->pages + v * PAGE_WORDS;
	st(page_is_zero(given), "a page given back");
	given[PAGE_WORDS - 1] = 1;
	st(!page_is_zero(given), "a page that is not zero");
	st_run("pressure 8M", "ok pressure pages=2048 killed=0");
	st_disk();
	st_run("hunger 8M", "ok hunger");
	st_run("hunger 8M", "err hunger is running");
	nanosleep(&wait, NULL);
	st_run("stop", "ok stop");
	st(!atomic_load(&hunger_killed), "hunger ends by itself");
	st_run("node x", "err no node 'x'");
	st_run("compile 0", "err '0' is not a number of objects");
	st_run("compile 3", "err no compiler here");
	st_run("compiled soon", "err 'soon' is neither nothing nor 'wait'");
	st_run("compiled wait", "ok compiled objects=0 of=0");
	st_run("mod", "err usage: mod load NAME");
	st_run("mod eat x", "err usage: mod load NAME");
	st_run("mod load x;y", "err 'x;y' is not the name");
	st_run("mod load fph_no_such_module", "err mod load: ");
	st_run("info", "ok info memfree_kib=");
	st_run("usage", "ok usage irqs=");
	st_run("free", "ok free pages=289");
	st_run("check", "ok check pages=0 bad=0");
	printf("%u failed\n", st_failed);
	return st_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
	int fd;

	self = argv[0];
	if (argc >= 3 && argc <= 4 && !strcmp(argv[1], "--pressure"))
		return pressure(argv[2], argv[3]);
	if (argc == 2 && !strcmp(argv[1], "--self-test"))
		return self_test();
	if (argc != 2 || argv[1][0] == '-') {
		fputs("Usage: fph-guest TTY | --self-test\n", stderr);
		return 2;
	}
	fd = open_line(argv[1]);
	if (fd < 0) {
		fprintf(stderr, "fph-guest: %s: %s\n", argv[1], strerror(-fd));
		return EXIT_FAILURE;
	}
	serve(fd);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <fph/tracer.h>

#include "../host-scan/sized.h"
#include "fph_tracer.h"

/* What the first version had of it */
#define FPH_TRACED_LEAST	FPH_SIZE_TO(struct fph_traced, shift)
#define FPH_TRACER_MAPS_LEAST	FPH_SIZE_TO(struct fph_tracer_maps, counts)

/* The first PID namespace, the one that BPF programs see numbers of */
#define INIT_PID_NS	"pid:[4026531836]"

/* Others look for room, too: a second, altogether */
#define ROOM_TRIES	100
#define ROOM_WAIT_US	20000	/* at most */

struct fph_tracer {
	char *path;		/* NULL: its maps are not pinned */
	int targets;		/* map descriptors */
	int touched;
	int counts;		/* -1: to be left alone */
	__u32 touched_id;
	__u64 words;		/* in fph_touched */
	__u32 tgid;
	bool ours;		/* the entry in fph_targets, if there is one */
	struct fph_target target;
	struct view {
		__u64 *bits;	/* of a range: the part of fph_touched that it uses */
		__u64 first;	/* word */
		size_t len;	/* bytes */
	} view[FPH_MAX_RANGES];
};

/* @fd if it is that map; else it is closed */
static int check_map(int fd, const char *name, __u32 type, __u32 key, __u32 value,
		     struct bpf_map_info *info, const char **why)
{
	__u32 len = sizeof(*info);

	memset(info, 0, sizeof(*info));
	if (bpf_obj_get_info_by_fd(fd, info, &len) == 0 && info->type == type &&
	    info->key_size == key && info->value_size == value && strcmp(info->name, name) == 0)
		return fd;
	close(fd);
	*why = "the maps there are not those of this version of the tracer";
	return -EPROTO;
}

static int open_pinned(const char *path, const char *name, __u32 type, __u32 key,
		       __u32 value, struct bpf_map_info *info, const char **why)
{
	char file[PATH_MAX];
	int fd, ret;

	if (snprintf(file, sizeof(file), "%s/maps/%s", path, name) >= (int)sizeof(file)) {
		*why = "the path of the tracer is too long";
		return -ENAMETOOLONG;
	}
	fd = bpf_obj_get(file);
	if (fd < 0) {
		ret = -errno;
		*why = ret == -ENOENT || ret == -ENOTDIR ?
			"no tracer is loaded there: its maps are missing" :
		       ret == -EACCES || ret == -EPERM ?
			"no permission to use the tracer's maps" :
			"the tracer's maps cannot be opened";
		return ret == -ENOTDIR ? -ENOENT : ret;
	}
	return check_map(fd, name, type, key, value, info, why);
}

static int check_namespace(const char **why)
{
	char ns[64];
	ssize_t n = readlink("/proc/self/ns/pid", ns, sizeof(ns) - 1);

	ns[n < 0 ? 0 : n] = '\0';
	if (strcmp(ns, INIT_PID_NS) == 0)
		return 0;
	*why = n < 0 ? "no /proc, so it is unknown what number the kernel has for this process" :
	       "in a PID namespace the kernel's number of this process is not known";
	return -EOPNOTSUPP;
}

/* A map of @maps, or one that is pinned */
static int open_map(const struct fph_tracer *t, int given, const char *name, __u32 type,
		    __u32 key, __u32 value, struct bpf_map_info *info, const char **why)
{
	int fd;

	if (t->path)
		return open_pinned(t->path, name, type, key, value, info, why);
	*why = "a map of the tracer cannot be used";
	fd = fcntl(given, F_DUPFD_CLOEXEC, 0);
	return fd < 0 ? -errno : check_map(fd, name, type, key, value, info, why);
}

static int open_maps(struct fph_tracer *t, const struct fph_tracer_maps *maps, const char **why)
{
	struct bpf_map_info info;

	t->targets = open_map(t, maps->targets, "fph_targets", BPF_MAP_TYPE_HASH, sizeof(__u32),
			      sizeof(struct fph_target), &info, why);
	if (t->targets < 0)
		return t->targets;
	t->touched = open_map(t, maps->touched, "fph_touched", BPF_MAP_TYPE_ARRAY, sizeof(__u32),
			      sizeof(__u64), &info, why);
	if (t->touched < 0)
		return t->touched;
	t->touched_id = info.id;
	t->words = info.max_entries;
	t->counts = open_map(t, maps->counts, "fph_counts", BPF_MAP_TYPE_HASH,
			     sizeof(struct fph_counts_key), sizeof(struct fph_counts), &info, why);
	return 0;
}

/* Bits that a range has for itself: whole blocks around those it uses */
static __u64 first_block(const struct fph_range *r)
{
	return r->bit / FPH_BITS_ALIGN;
}

static __u64 last_bit(const struct fph_range *r)
{
	return r->bit + ((r->end - 1) >> r->shift) - (r->start >> r->shift);
}

static __u64 end_block(const struct fph_range *r)
{
	return last_bit(r) / FPH_BITS_ALIGN + 1;
}

/* What is in the maps comes from other processes */
static bool is_sane(const struct fph_range *r)
{
	return r->end > r->start &&
	       r->shift >= FPH_PAGE_SHIFT && r->shift <= FPH_MAX_SHIFT &&
	       (r->bit - (r->start >> r->shift)) % FPH_BITS_ALIGN == 0;
}

/* Not the whole bitmap: what is mapped counts as memory of this process */
static int map_bits(struct fph_tracer *t, const struct fph_range *r, struct view *ret)
{
	size_t block = FPH_BITS_ALIGN / 8, page = sysconf(_SC_PAGESIZE);
	__u64 start = first_block(r) * block / page * page;
	__u64 end = end_block(r) * block;
	void *bits;

	if (end > t->words * sizeof(__u64))
		return -EINVAL;
	bits = mmap(NULL, end - start, PROT_READ | PROT_WRITE, MAP_SHARED, t->touched, start);
	if (bits == MAP_FAILED)
		return -errno;
	*ret = (struct view){ .bits = bits, .first = start / sizeof(__u64), .len = end - start };
	return 0;
}

static bool has_ended(__u32 pid)
{
	return kill(pid, 0) < 0 && errno == ESRCH;
}

/* Nobody is left who could take it away */
static bool is_orphan(__u32 key, const struct fph_target *target)
{
	return has_ended(target->owner ? target->owner : key);
}

/* What was counted for @tgid; NULL: for all that are not traced */
static void forget_counts(const struct fph_tracer *t, const __u32 *tgid)
{
	struct fph_counts_key key, *prev = NULL;
	struct fph_target target;

	if (t->counts < 0)
		return;
	while (bpf_map_get_next_key(t->counts, prev, &key) == 0) {
		bool forget = tgid ? key.tgid == *tgid :
			      bpf_map_lookup_elem(t->targets, &key.tgid, &target) < 0;

		/* Without what was removed, the next one is the first */
		prev = forget && bpf_map_delete_elem(t->counts, &key) == 0 ? NULL : &key;
	}
}

/* What others left who were killed */
static void sweep(const struct fph_tracer *t)
{
	struct fph_target target;
	__u32 key, *prev = NULL;

	while (bpf_map_get_next_key(t->targets, prev, &key) == 0) {
		bool orphan = bpf_map_lookup_elem(t->targets, &key, &target) == 0 &&
			      key != t->tgid && is_orphan(key, &target);

		prev = orphan && bpf_map_delete_elem(t->targets, &key) == 0 ? NULL : &key;
	}
	forget_counts(t, NULL);
}

/* The entry of the process, if it has one: ours, if its owner has ended */
static int find_target(struct fph_tracer *t)
{
	int err = 0;

	t->ours = true;
	if (bpf_map_lookup_elem(t->targets, &t->tgid, &t->target) < 0)
		return 0;
	t->ours = is_orphan(t->tgid, &t->target);
	if (t->target.nranges > FPH_MAX_RANGES)
		t->target.nranges = FPH_MAX_RANGES;
	if (t->ours) {
		t->target.owner = getpid();
		if (bpf_map_update_elem(t->targets, &t->tgid, &t->target, BPF_EXIST) < 0)
			return -errno;
	}
	for (__u32 i = 0; i < t->target.nranges && !err; i++)
		err = is_sane(&t->target.range[i]) ?
		      map_bits(t, &t->target.range[i], &t->view[i]) : -EINVAL;
	return err;
}

static int open_tracer(struct fph_tracer **ret, const char *path,
		       const struct fph_tracer_maps *maps, pid_t pid, const char **why)
{
	struct fph_tracer *t;
	int err;

	*why = "out of memory for the tracer";
	t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	t->targets = t->touched = t->counts = -1;
	t->tgid = pid ? pid : getpid();
	t->path = path ? strdup(path) : NULL;
	err = path && !t->path ? -ENOMEM : check_namespace(why);
	if (err == 0)
		err = open_maps(t, maps, why);
	if (err == 0) {
		*why = "the tracer's bitmap cannot be mapped";
		sweep(t);
		err = find_target(t);
	}
	if (err < 0) {
		fph_tracer_close(t);
		return err;
	}
	*ret = t;
	return 0;
}

int fph_tracer_open(struct fph_tracer **ret, const char *path, pid_t pid, const char **why)
{
	static const struct fph_tracer_maps none = { .targets = -1, .touched = -1, .counts = -1 };

	return open_tracer(ret, path, &none, pid, why);
}

int fph_tracer_open_maps(struct fph_tracer **ret, const struct fph_tracer_maps *maps, pid_t pid,
			 const char **why)
{
	struct fph_tracer_maps known;

	*why = "such maps cannot be used";
	if (fph_sized_in(&known, sizeof(known), maps, FPH_TRACER_MAPS_LEAST) != 0)
		return -EINVAL;
	return open_tracer(ret, NULL, &known, pid, why);
}

void fph_tracer_close(struct fph_tracer *t)
{
	int saved = errno;

	if (!t)
		return;
	if (t->ours && (t->target.nranges || t->target.owner)) {
		bpf_map_delete_elem(t->targets, &t->tgid);
		forget_counts(t, &t->tgid);
	}
	for (int i = 0; i < FPH_MAX_RANGES; i++) {
		if (t->view[i].bits)
			munmap(t->view[i].bits, t->view[i].len);
	}
	if (t->counts >= 0)
		close(t->counts);
	if (t->touched >= 0)
		close(t->touched);
	if (t->targets >= 0)
		close(t->targets);
	free(t->path);
	free(t);
	errno = saved;
}

int fph_tracer_check(const struct fph_tracer *t, const char **why)
{
	struct fph_target target;
	struct bpf_map_info info;
	int fd;

	if (t->path) {
		fd = open_pinned(t->path, "fph_touched", BPF_MAP_TYPE_ARRAY, sizeof(__u32),
				 sizeof(__u64), &info, why);
		if (fd >= 0)
			close(fd);
		if (fd < 0 || info.id != t->touched_id) {
			*why = "the tracer was unloaded";
			return -ESTALE;
		}
	}
	if (t->target.nranges && (bpf_map_lookup_elem(t->targets, &t->tgid, &target) < 0 ||
				  !target.nranges)) {
		*why = "this process is not traced any more";
		return -ESTALE;
	}
	return 0;
}

/* Where @blocks are not used by any of @n ranges; the lowest such place */
static int find_room(const struct fph_range *used, size_t n, __u64 blocks, __u64 limit,
		     __u64 *ret)
{
	__u64 at = 0;

	for (size_t i = 0; i < n; i++) {
		__u64 from = first_block(&used[i]);
		__u64 to = end_block(&used[i]);

		if (from < at + blocks && at < to) {
			at = to;
			i = SIZE_MAX;	/* those seen before may be in the way there */
		}
	}
	if (blocks > limit || at > limit - blocks)
		return -ENOSPC;
	*ret = at;
	return 0;
}

/* The ranges of all processes: with @others, but of this one */
static size_t all_ranges(const struct fph_tracer *t, bool others, struct fph_range *ret, size_t max)
{
	struct fph_target target;
	__u32 key, *prev = NULL;
	size_t n = 0;

	while (bpf_map_get_next_key(t->targets, prev, &key) == 0) {
		prev = &key;
		if ((others && key == t->tgid) ||
		    bpf_map_lookup_elem(t->targets, &key, &target) < 0)
			continue;
		for (__u32 i = 0; i < target.nranges && i < FPH_MAX_RANGES && n < max; i++) {
			if (is_sane(&target.range[i]))
				ret[n++] = target.range[i];
		}
	}
	return n;
}

static bool is_shared(const struct fph_range *r, const struct fph_range *others, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (first_block(&others[i]) < end_block(r) && first_block(r) < end_block(&others[i]))
			return true;
	}
	return false;
}

/* What this process has traced, with @r; -EEXIST if somebody else was faster */
static int put_target(struct fph_tracer *t, const struct fph_range *r, struct fph_target *ret)
{
	bool there = t->target.nranges || t->target.owner;

	*ret = t->target;
	ret->owner = getpid();
	/* Whoever traces another one outlives it, and wants to know what it did last */
	ret->flags = t->tgid != ret->owner ? FPH_TARGET_KEEP : 0;
	ret->range[ret->nranges++] = *r;
	return bpf_map_update_elem(t->targets, &t->tgid, ret, there ? BPF_ANY : BPF_NOEXIST) < 0 ?
	       -errno : 0;
}

static void undo_target(struct fph_tracer *t)
{
	if (t->target.nranges || t->target.owner)
		bpf_map_update_elem(t->targets, &t->tgid, &t->target, BPF_EXIST);
	else
		bpf_map_delete_elem(t->targets, &t->tgid);
}

/*
 * One look for room: -EAGAIN if another process had the same idea. A lock would be
 * for those only who may open it, and anybody could keep it: instead a range is put
 * into the map, and taken back if then there is another one in its place. Of two, the
 * one that comes later sees the other.
 */
static int try_room(struct fph_tracer *t, struct fph_range *r, struct fph_range *used, size_t max,
		    const char **why)
{
	__u64 grains = ((r->end - 1) >> r->shift) - (r->start >> r->shift) + 1;
	__u64 lead = (r->start >> r->shift) % FPH_BITS_ALIGN, block;
	__u64 blocks = (lead + grains + FPH_BITS_ALIGN - 1) / FPH_BITS_ALIGN;
	struct fph_target target;
	struct view view = { 0 };
	int err;

	err = find_room(used, all_ranges(t, false, used, max), blocks,
			t->words * 64 / FPH_BITS_ALIGN, &block);
	if (err < 0) {
		*why = "the tracer's bitmap is too small";
		return err;
	}
	r->bit = block * FPH_BITS_ALIGN + lead;
	err = map_bits(t, r, &view);
	if (err < 0) {
		*why = "the tracer's bitmap cannot be mapped";
		return err;
	}
	/* Whoever had them before is gone */
	memset(view.bits + block * FPH_BITS_ALIGN / 64 - view.first, 0,
	       blocks * FPH_BITS_ALIGN / 8);
	err = put_target(t, r, &target);
	if (err == 0 && is_shared(r, used, all_ranges(t, true, used, max))) {
		undo_target(t);
		err = -EAGAIN;
	}
	if (err < 0) {
		munmap(view.bits, view.len);
		*why = err == -EAGAIN ? "too many others look for room in the tracer's bitmap" :
		       err == -EEXIST ? "somebody else traces this process" :
		       err == -E2BIG || err == -ENOMEM ? "the tracer has too many processes" :
		       "the tracer's maps cannot be changed";
		return err == -EEXIST ? -EBUSY : err == -E2BIG ? -ENOSPC : err;
	}
	t->view[t->target.nranges] = view;
	t->target = target;
	return 0;
}

static int find_place(struct fph_tracer *t, struct fph_range *r, const char **why)
{
	size_t max = (size_t)FPH_TARGETS_MAX * 4 * FPH_MAX_RANGES;
	struct fph_range *used = calloc(max, sizeof(*used));
	unsigned int seed = getpid();
	int err;

	if (!used) {
		*why = "out of memory for the tracer";
		return -ENOMEM;
	}
	sweep(t);
	for (int i = 0; i < ROOM_TRIES; i++) {
		err = try_room(t, r, used, max, why);
		if (err != -EAGAIN)
			break;
		usleep(rand_r(&seed) % ROOM_WAIT_US);
	}
	free(used);
	return err;
}

static int add(struct fph_tracer *t, const struct fph_traced *m, const char **why)
{
	__u64 page = sysconf(_SC_PAGESIZE);
	__u32 page_shift = __builtin_ctzll(page);
	struct fph_range r = {
		.start = m->start,
		.end = m->start + m->len,
		.offset = m->offset,
		.shift = m->shift ? m->shift : page_shift,
		.page_shift = page_shift,
	};
	struct stat st;

	*why = "such memory cannot be traced";
	if (!m->len || r.end <= r.start ||
	    (m->start | m->len | m->offset) % page ||
	    r.shift < page_shift || r.shift > FPH_MAX_SHIFT)
		return -EINVAL;
	for (__u32 i = 0; i < t->target.nranges; i++) {
		if (r.start < t->target.range[i].end && t->target.range[i].start < r.end)
			return -EINVAL;
	}
	if (!t->ours) {
		*why = "somebody else traces this process";
		return -EBUSY;
	}
	if (t->target.nranges == FPH_MAX_RANGES) {
		*why = "the process has too many pieces of memory for the tracer";
		return -ENOSPC;
	}
	if (m->fd >= 0) {
		if (fstat(m->fd, &st) < 0)
			return -errno;
		r.flags = FPH_RANGE_SHARED;
		r.ino = st.st_ino;
		r.dev = major(st.st_dev) << 20 | minor(st.st_dev);
	}
	return find_place(t, &r, why);
}

int fph_tracer_add(struct fph_tracer *t, const struct fph_traced *m, const char **why)
{
	struct fph_traced known;

	*why = "such memory cannot be traced";
	if (fph_sized_in(&known, sizeof(known), m, FPH_TRACED_LEAST) != 0)
		return -EINVAL;
	return add(t, &known, why);
}

void fph_tracer_remove(struct fph_tracer *t, uint64_t start)
{
	struct fph_target *target = &t->target;

	for (__u32 i = 0; t->ours && i < target->nranges; i++) {
		if (target->range[i].start != start)
			continue;
		munmap(t->view[i].bits, t->view[i].len);
		target->range[i] = target->range[--target->nranges];
		t->view[i] = t->view[target->nranges];
		t->view[target->nranges].bits = NULL;
		if (target->nranges) {
			bpf_map_update_elem(t->targets, &t->tgid, target, BPF_EXIST);
			return;
		}
		bpf_map_delete_elem(t->targets, &t->tgid);
		target->owner = 0;
		return;
	}
}

int fph_tracer_get(const struct fph_tracer *t, unsigned int index, struct fph_traced *ret)
{
	const struct fph_range *r;
	struct fph_traced known;

	if (index >= t->target.nranges)
		return 0;
	r = &t->target.range[index];
	known = (struct fph_traced){
		.start = r->start,
		.len = r->end - r->start,
		.fd = r->flags & FPH_RANGE_SHARED ? 0 : -1,
		.offset = r->offset,
		.shift = r->shift,
	};
	fph_sized_out(ret, &known, sizeof(known));
	return 1;
}

/* The range that holds @addr, or the next one behind it */
static const struct fph_range *range_at(const struct fph_tracer *t, uint64_t addr)
{
	const struct fph_range *best = NULL;

	for (__u32 i = 0; i < t->target.nranges; i++) {
		const struct fph_range *r = &t->target.range[i];

		if (r->end > addr && (!best || r->start < best->start))
			best = r;
	}
	return best;
}

/* The word that holds bit @bit of range @r */
static __u64 *word_at(const struct fph_tracer *t, const struct fph_range *r, __u64 bit)
{
	const struct view *v = &t->view[r - t->target.range];

	return v->bits + (bit / 64 - v->first);
}

static __u64 bit_at(const struct fph_range *r, uint64_t addr)
{
	return r->bit + (addr >> r->shift) - (r->start >> r->shift);
}

static __u64 load(const __u64 *word)
{
	return __atomic_load_n(word, __ATOMIC_RELAXED);
}

/* Calls @fn for each word with bits of addresses [start, end) of @r */
static __u64 for_words(const struct fph_tracer *t, const struct fph_range *r, __u64 start,
		       __u64 end, __u64 (*fn)(__u64 *word, __u64 mask))
{
	__u64 first = bit_at(r, start), last = bit_at(r, end - 1), sum = 0;
	__u64 *word = word_at(t, r, first), *last_word = word_at(t, r, last);

	for (__u64 mask = ~0ull << first % 64; word <= last_word; word++, mask = ~0ull)
		sum += fn(word, word < last_word ? mask : mask & ~0ull >> (63 - last % 64));
	return sum;
}

static __u64 count_clear(__u64 *word, __u64 mask)
{
	return __builtin_popcountll(~load(word) & mask);
}

static __u64 count_set(__u64 *word, __u64 mask)
{
	return __builtin_popcountll(load(word) & mask);
}

static __u64 set(__u64 *word, __u64 mask)
{
	__atomic_fetch_or(word, mask, __ATOMIC_RELAXED);
	return 0;
}

/*
 * The block, or what is not traced, that begins at @addr: where it ends, and
 * whether all of it was touched
 */
static bool block_at(const struct fph_tracer *t, uint64_t addr, uint64_t end, uint64_t *ret)
{
	const struct fph_range *r = range_at(t, addr);
	uint64_t next;

	if (!r || r->start > addr) {
		*ret = r && r->start < end ? r->start : end;
		return false;
	}
	next = ((addr >> r->shift) / FPH_BITS_ALIGN + 1) * FPH_BITS_ALIGN << r->shift;
	if (next > r->end)
		next = r->end;
	if (next > end)
		next = end;
	*ret = next;
	return for_words(t, r, addr, next, count_clear) == 0;
}

/*
 * Most of what is passed over comes in long stretches: the end of the whole
 * blocks from @addr on that were touched throughout
 */
static uint64_t skip_blocks(const struct fph_tracer *t, uint64_t addr, uint64_t end)
{
	const struct fph_range *r = range_at(t, addr);
	uint64_t block;
	__u64 *word;

	if (!r || r->start > addr)
		return addr;
	block = (uint64_t)FPH_BITS_ALIGN << r->shift;
	if (addr % block)
		return addr;
	if (end > r->end)
		end = r->end;
	word = word_at(t, r, bit_at(r, addr));
	for (; addr + block <= end; addr += block) {
		__u64 all = ~0ull;

		/* A block is a cache line, which another CPU has written */
		__builtin_prefetch(word + 16 * (FPH_BITS_ALIGN / 64));
		for (int i = 0; i < FPH_BITS_ALIGN / 64; i++)
			all &= load(word++);
		if (~all)
			break;
	}
	return addr;
}

int fph_tracer_next(const struct fph_tracer *t, uint64_t start, uint64_t end,
		    uint64_t *from, uint64_t *to)
{
	uint64_t next;

	while (start < end && block_at(t, start, end, &next))
		start = skip_blocks(t, next, end);
	if (start >= end)
		return 0;
	*from = start;
	do {
		start = next;
	} while (start < end && !block_at(t, start, end, &next));
	*to = start;
	return 1;
}

static __u64 for_range(const struct fph_tracer *t, uint64_t start, uint64_t end,
		       __u64 (*fn)(__u64 *word, __u64 mask))
{
	const struct fph_range *r = range_at(t, start);

	if (!r || r->start >= end || start >= end)
		return 0;
	if (start < r->start)
		start = r->start;
	if (end > r->end)
		end = r->end;
	return for_words(t, r, start, end, fn);
}

uint64_t fph_tracer_touched(const struct fph_tracer *t, uint64_t start, uint64_t end)
{
	return for_range(t, start, end, count_set);
}

void fph_tracer_touch(struct fph_tracer *t, uint64_t start, uint64_t end)
{
	for_range(t, start, end, set);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>

#include "mock-sys.h"

static struct fph_region region(uint64_t npages)
{
	return (struct fph_region){
		.sz = sizeof(struct fph_region),
		.host = (void *)(uintptr_t)HOST,
		.used = npages * PAGE,
		.max = npages * PAGE,
		.page_size = PAGE,
		.fd = -1,
	};
}

/* A watch of all of mock.pages */
static struct fph_watch *open_watch(struct fph_region *r)
{
	struct fph_watch *w;
	const char *why;

	check_int(fph_watch_open_sys(&w, &mock_sys), 0);
	check_int(fph_watch_error(w, &why), 0);
	*r = region(mock.npages);
	check_int(fph_watch_add(w, r, &why), 0);
	return w;
}

struct seen {
	uint64_t n;
	uint64_t bytes;
	uint64_t end;
	uint64_t huge, swapped, absent;	/* bytes */
	char *pages;		/* set to 1, if not NULL */
	uint64_t fail_at;	/* range number from 1 */
};

static int see(void *opaque, uint64_t start, uint64_t len, uint32_t flags)
{
	struct seen *s = opaque;

	check(len > 0);
	check_int(start % PAGE, 0);
	check_int(len % PAGE, 0);
	check(start >= s->end);
	check(!(flags & ~(FPH_WATCH_HUGE | FPH_WATCH_SWAPPED | FPH_WATCH_ABSENT)));
	s->end = start + len;
	s->bytes += len;
	s->n++;
	if (flags & FPH_WATCH_HUGE)
		s->huge += len;
	if (flags & FPH_WATCH_SWAPPED)
		s->swapped += len;
	if (flags & FPH_WATCH_ABSENT)
		s->absent += len;
	if (s->pages)
		memset(s->pages + start / PAGE, 1, len / PAGE);
	return s->n == s->fail_at ? -ECANCELED : 0;
}

struct pattern_row {
	const char *name;
	const char *pattern;
	uint64_t npages;
	uint64_t max_walk;
	uint64_t stale_walk;
	int eintr_every;
	int calls;		/* 0: any */
};

static const struct pattern_row patterns[] = {
	{ "nothing but absent pages", "o", 100, .calls = 1 },
	{ "nothing but data", "d", 100, .calls = 1 },
	{ "all states in turn", "odszxh", 100, .calls = 1 },
	{ "exactly 512 ranges", "od", 1024 },
	{ "one range more than 512", "od", 1026, .calls = 2 },
	{ "many times 512 ranges", "odzs", 30000 },
	{ "huge pages", "h", OF_4K(20000), .calls = 2 },
	{ "more than one window", "d", OF_4K(40000), .calls = 3 },
	{ "short walks", "ddo", 5000, .max_walk = 100 },
	{ "stale ends of walks", "do", 4000, .stale_walk = 100 },
	{ "interrupted", "do", 4000, .eintr_every = 2 },
};

static bool has_memory(char state)
{
	return state != M_NONE && state != M_NOVMA;
}

/* What has memory is marked, and reported; nothing else is */
static void check_protect(const struct pattern_row *row)
{
	struct seen s = { .pages = calloc(1, row->npages) };
	struct fph_region r;
	struct fph_watch *w;

	mock_reset();
	mock_memory(row->pattern, row->npages);
	w = open_watch(&r);
	mock.max_walk = row->max_walk;
	mock.stale_walk = row->stale_walk;
	mock.eintr_every = row->eintr_every;
	check_int(fph_watch_protect(w, &r, 0, r.used, see, &s), 0);
	if (row->calls)
		check_int(mock.calls, row->calls);
	for (uint64_t i = 0; i < row->npages; i++) {
		check_int(s.pages[i], has_memory(mock.pages[i]));
		check_int(mock.marked[i], has_memory(mock.pages[i]));
	}
	fph_watch_close(w);
	free(s.pages);
	mock_free();
}

/* What is not marked, and may hold something, is reported */
static void check_written(const struct pattern_row *row)
{
	struct seen s = { .pages = calloc(1, row->npages) };
	struct fph_region r;
	struct fph_watch *w;

	mock_reset();
	mock_memory(row->pattern, row->npages);
	for (uint64_t i = 0; i < row->npages; i += 3)
		mock.marked[i] = has_memory(mock.pages[i]);
	w = open_watch(&r);
	mock.max_walk = row->max_walk;
	mock.stale_walk = row->stale_walk;
	mock.eintr_every = row->eintr_every;
	check_int(fph_watch_written(w, &r, 0, r.used, see, &s), 0);
	for (uint64_t i = 0; i < row->npages; i++) {
		bool want = has_memory(mock.pages[i]) &&
			    mock.pages[i] != M_ZERO && i % 3;

		check_int(s.pages[i], want);
		check_int(mock.marked[i], i % 3 == 0 && has_memory(mock.pages[i]));
	}
	check(s.swapped + s.huge <= s.bytes);
	fph_watch_close(w);
	free(s.pages);
	mock_free();
}

static void test_pattern(void **state)
{
	check_protect(*state);
	check_written(*state);
}

static void test_flags(void **state)
{
	struct seen s = { 0 };
	struct fph_region r;
	struct fph_watch *w;

	mock_reset();
	mock_memory("ddsshhhzo", 9);
	w = open_watch(&r);
	check_int(fph_watch_written(w, &r, 0, r.used, see, &s), 0);
	check_int(s.bytes, 7 * PAGE);
	check_int(s.swapped, 2 * PAGE);
	check_int(s.huge, 3 * PAGE);
	check_int(s.absent, 0);
	fph_watch_close(w);
	mock_free();
}

/* Shared memory may have been written where nothing is mapped */
static void test_shared(void **state)
{
	struct seen s = { 0 };
	struct fph_region r;
	struct fph_watch *w;

	mock_reset();
	mock_memory("dodssohzo", 9);
	w = open_watch(&r);
	r.flags |= FPH_REGION_SHARED;
	mock.shared = true;
	mock.absent_unwritten = *state;
	mock.marked[2] = mock.marked[3] = true;
	check_int(fph_watch_written(w, &r, 0, r.used, see, &s), 0);
	check_int(s.bytes, 6 * PAGE);
	check_int(s.absent, 3 * PAGE);
	check_int(s.swapped, PAGE);
	check_int(s.huge, PAGE);
	memset(&s, 0, sizeof(s));
	check_int(fph_watch_protect(w, &r, 0, r.used, see, &s), 0);
	check_int(s.bytes, 6 * PAGE);
	check_int(s.absent, 0);
	fph_watch_close(w);
	mock_free();
}

struct part_row {
	const char *name;
	uint64_t start, len;	/* bytes */
	uint64_t first, n;	/* pages that are seen */
};

static const struct part_row parts[] = {
	{ "whole pages", 4 * PAGE, 2 * PAGE, 4, 2 },
	{ "rounded inward", 4 * PAGE + 1, 3 * PAGE, 5, 2 },
	{ "less than a page", 4 * PAGE + 1, PAGE, 0, 0 },
	{ "clamped to what is used", 90 * PAGE, UINT64_MAX, 90, 10 },
	{ "behind what is used", 100 * PAGE, PAGE, 0, 0 },
	{ "nothing", 4 * PAGE, 0, 0, 0 },
};

static void test_part(void **state)
{
	const struct part_row *row = *state;
	char pages[100] = { 0 };
	struct seen s = { .pages = pages };
	struct fph_region r;
	struct fph_watch *w;

	mock_reset();
	mock_memory("d", 100);
	w = open_watch(&r);
	check_int(fph_watch_protect(w, &r, row->start, row->len, see, &s), 0);
	for (uint64_t i = 0; i < 100; i++)
		check_int(pages[i], i >= row->first && i < row->first + row->n);
	fph_watch_close(w);
	mock_free();
}

struct error_row {
	const char *name;
	int error;
	const char *why;
};

#define BROKEN(row) do {						\
	const char *why = NULL;						\
	struct fph_region r = region(10);				\
	struct fph_watch *w;						\
									\
	check_int(fph_watch_open_sys(&w, &mock_sys), 0);		\
	check_int(fph_watch_error(w, &why), (row)->error);		\
	check(strstr(why, (row)->why));					\
	why = NULL;							\
	check_int(fph_watch_add(w, &r, &why), (row)->error);		\
	check(strstr(why, (row)->why));					\
	check_int(fph_watch_protect(w, &r, 0, PAGE, see, NULL), (row)->error); \
	check_int(fph_watch_written(w, &r, 0, PAGE, see, NULL), (row)->error); \
	fph_watch_remove(w, &r);					\
	check_int(mock.unregistered, 0);				\
	fph_watch_close(w);						\
	check_int(mock.opened, mock.closed);				\
} while (0)

static const struct error_row open_errors[] = {
	{ "userfaultfd: EPERM", -EPERM, "not permitted (EPERM)" },
	{ "userfaultfd: EACCES", -EACCES, "not permitted (EACCES)" },
	{ "userfaultfd: ENOSYS", -ENOSYS, "CONFIG_USERFAULTFD" },
	{ "userfaultfd: EMFILE", -EMFILE, "this process" },
	{ "userfaultfd: ENFILE", -ENFILE, "the system" },
	{ "userfaultfd: ENOMEM", -ENOMEM, "cannot open userfaultfd" },
};

static void test_open_error(void **state)
{
	const struct error_row *row = *state;

	mock_reset();
	mock_memory("d", 10);
	mock.uffd_open_error = row->error;
	BROKEN(row);
	mock_free();
}

static const struct error_row api_errors[] = {
	{ "handshake: EINVAL", -EINVAL, "no asynchronous write protection" },
	{ "handshake: EPERM", -EPERM, "does not work here" },
};

static void test_api_error(void **state)
{
	const struct error_row *row = *state;

	mock_reset();
	mock_memory("d", 10);
	mock.uffd_api_error = row->error;
	BROKEN(row);
	mock_free();
}

static const struct error_row scan_errors[] = {
	{ "scan: ENOTTY", -ENOTTY, "older than Linux 6.7" },
	{ "scan: EACCES", -EACCES, "not permitted" },
};

static void test_scan_error(void **state)
{
	const struct error_row *row = *state;

	mock_reset();
	mock_memory("d", 10);
	mock.probe_error = row->error;
	BROKEN(row);
	mock_free();
}

static const struct error_row add_errors[] = {
	{ "register: EBUSY", -EBUSY, "somebody else" },
	{ "register: EINVAL", -EINVAL, "this kind of memory" },
	{ "register: EPERM", -EPERM, "read-only" },
	{ "register: ENOMEM", -ENOMEM, "no memory" },
	{ "register: EFAULT", -EFAULT, "cannot write-protect this memory" },
};

static void test_add_error(void **state)
{
	const struct error_row *row = *state;
	struct fph_region r = region(10);
	const char *why = NULL;
	struct fph_watch *w;

	mock_reset();
	mock_memory("d", 10);
	check_int(fph_watch_open_sys(&w, &mock_sys), 0);
	mock.uffd_register_error = row->error;
	/* EINVAL is for callers that make no sense */
	check_int(fph_watch_add(w, &r, &why),
		  row->error == -EINVAL ? -EOPNOTSUPP : row->error);
	check(strstr(why, row->why));
	/* Of several mappings some may be registered; another one's are not ours to end */
	check_int(mock.unregistered, row->error == -ENOMEM ? r.used : 0);
	mock.unregistered = 0;
	/* Not watched: nothing may be marked, and nothing is known */
	check_int(fph_watch_protect(w, &r, 0, r.used, see, NULL), -EPERM);
	check_int(fph_watch_written(w, &r, 0, r.used, see, NULL), -EPERM);
	fph_watch_close(w);
	check_int(mock.opened, mock.closed);
	mock_free();
}

struct walk_row {
	const char *name;
	int fail_with;
	bool stuck, too_many, disorder, too_far;
	int error;
};

static const struct walk_row walk_errors[] = {
	{ "walk: EPERM", .fail_with = -EPERM, .error = -EPERM },
	{ "walk: ENOMEM", .fail_with = -ENOMEM, .error = -ENOMEM },
	{ "no progress", .stuck = true, .error = -EIO },
	{ "more ranges than there is room for", .too_many = true, .error = -EIO },
	{ "a range that was not asked for", .disorder = true, .error = -EIO },
	{ "a walk that went too far", .too_far = true, .error = -EIO },
};

static void test_walk_error(void **state)
{
	const struct walk_row *row = *state;
	struct seen s = { 0 };
	struct fph_region r;
	struct fph_watch *w;

	mock_reset();
	mock_memory("do", 40000);
	w = open_watch(&r);
	mock.fail_at = row->fail_with ? 3 : 0;
	mock.fail_with = row->fail_with;
	mock.stuck = row->stuck;
	mock.too_many = row->too_many;
	mock.disorder = row->disorder;
	mock.too_far = row->too_far;
	check_int(fph_watch_protect(w, &r, 0, r.used, see, &s), row->error);
	check_int(s.n, row->fail_with ? 1024 : 0);
	fph_watch_close(w);
	mock_free();
}

static void test_consumer_error(void **state)
{
	struct seen s = { .fail_at = 600 };
	struct fph_region r;
	struct fph_watch *w;

	mock_reset();
	mock_memory("do", 4000);
	w = open_watch(&r);
	check_int(fph_watch_written(w, &r, 0, r.used, see, &s), -ECANCELED);
	check_int(s.n, 600);
	fph_watch_close(w);
	mock_free();
}

static void test_regions(void **state)
{
	const char *why = "as it was";
	struct fph_region r;
	struct fph_watch *w;

	mock_reset();
	mock_memory("d", 1024);
	w = open_watch(&r);
	r.page_size = 2 << 20;
	check_int(fph_watch_add(w, &r, &why), -EOPNOTSUPP);
	check(strstr(why, "larger than the host's"));
	why = "as it was";
	r.page_size = 3;
	check_int(fph_watch_add(w, &r, &why), -EINVAL);
	check_int(fph_watch_protect(w, &r, 0, PAGE, see, NULL), -EINVAL);
	check_int(fph_watch_written(w, &r, 0, PAGE, see, NULL), -EINVAL);
	check_str(why, "as it was");
	r.page_size = PAGE;
	r.used = 0;
	check_int(fph_watch_add(w, &r, &why), 0);
	fph_watch_close(w);
	mock_free();
}

/* Faults wait for it: in pieces, and whatever the kernel says, to the end */
static void test_remove(void **state)
{
	struct fph_region r;
	struct fph_watch *w;

	mock_reset();
	mock_memory("d", 40000);
	w = open_watch(&r);
	mock.uffd_unregister_error = -EINVAL;
	fph_watch_remove(w, &r);
	check_int(mock.unregistered, r.used);
	check_int(mock.widest_unregister, 64 << 20);
	fph_watch_close(w);
	check_int(mock.opened, mock.closed);
	fph_watch_close(NULL);
	mock_free();

	/* Without room for one more mapping: the rest at once */
	mock_reset();
	mock_memory("d", 40000);
	w = open_watch(&r);
	fph_watch_remove_part(w, &r, 0, 4 << 20);
	mock.uffd_unregister_error = -ENOMEM;
	fph_watch_remove_part(w, &r, 4 << 20, 4 << 20);
	check_int(mock.unregistered, r.used);
	fph_watch_close(w);
	mock_free();
}

static void test_merged(void **state)
{
	const char *why = NULL;
	struct fph_region r;
	struct fph_watch *w;

	mock_reset();
	mock_memory("d", 10);
	w = open_watch(&r);
	check_int(fph_watch_is_exact(w, &why), 0);
	mock.merged = 3;
	check_int(fph_watch_is_exact(w, &why), -EBUSY);
	check(strstr(why, "KSM"));
	/* It cannot be told any more */
	mock.merged = -EIO;
	check_int(fph_watch_is_exact(w, &why), -EBUSY);
	mock.merged = 0;
	fph_watch_close(w);

	/* A kernel without KSM */
	mock_reset();
	mock_memory("d", 10);
	mock.merged = -ENOENT;
	w = open_watch(&r);
	check_int(fph_watch_is_exact(w, &why), 0);
	fph_watch_close(w);
	check_int(mock.opened, mock.closed);
	mock_free();
}

static void test_fork(void **state)
{
	const char *why = NULL;
	struct fph_region r;
	struct fph_watch *w;

	mock_reset();
	mock_memory("d", 10);
	w = open_watch(&r);
	mock.pid++;
	check_int(fph_watch_error(w, &why), -ESRCH);
	check_int(fph_watch_protect(w, &r, 0, r.used, see, NULL), -ESRCH);
	fph_watch_close(w);
	mock_free();
}

int main(void)
{
	struct fph_tests t = { 0 };

	fph_test_add_rows(&t, patterns, test_pattern);
	fph_test_add(&t, "huge and swapped pages are told", test_flags, NULL);
	fph_test_add(&t, "absent pages of shared memory are told", test_shared, NULL);
	fph_test_add(&t, "absent pages that do not count as written are told", test_shared, "");
	fph_test_add_rows(&t, parts, test_part);
	fph_test_add_rows(&t, open_errors, test_open_error);
	fph_test_add_rows(&t, api_errors, test_api_error);
	fph_test_add_rows(&t, scan_errors, test_scan_error);
	fph_test_add_rows(&t, add_errors, test_add_error);
	fph_test_add_rows(&t, walk_errors, test_walk_error);
	fph_test_add(&t, "the consumer can stop it", test_consumer_error, NULL);
	fph_test_add(&t, "regions that cannot be watched", test_regions, NULL);
	fph_test_add(&t, "removed in pieces", test_remove, NULL);
	fph_test_add(&t, "merged pages", test_merged, NULL);
	fph_test_add(&t, "a child cannot use it", test_fork, NULL);
	return fph_test_run(&t, "watch");
}

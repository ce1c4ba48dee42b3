/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <unistd.h>

#include <linux/magic.h>

#include "mock-sys.h"

struct mock mock;

static int mock_open_pagemap(long pid)
{
	mock.opened_pid = pid;
	if (mock.open_error)
		return mock.open_error;
	mock.opened++;
	return 1000;
}

static int mock_open_process(long pid)
{
	check(pid != 0);
	return 1001;
}

static bool mock_has_ended(int process)
{
	check_int(process, 1001);
	return mock.ended;
}

static void mock_close(int fd)
{
	if (fd == 1001)
		return;
	check_int(fd, 1000);
	mock.closed++;
}

static uint64_t state_categories(char state)
{
	switch (state) {
	case M_DATA:
		return FPH_PM_PRESENT;
	case M_HUGE:
		return FPH_PM_PRESENT | FPH_PM_HUGE;
	case M_SWAP:
		return FPH_PM_SWAPPED;
	case M_ZERO:
		return FPH_PM_PRESENT | FPH_PM_PFNZERO;
	default:
		return 0;
	}
}

/* What is absent counts as written, to some kernels */
static uint64_t categories(uint64_t i)
{
	uint64_t c = state_categories(mock.pages[i]);

	if (!c && mock.absent_unwritten)
		return 0;
	return mock.marked && mock.marked[i] ? c : c | FPH_PM_WRITTEN;
}

static bool interesting(const struct fph_pm_scan *arg, uint64_t c)
{
	c ^= arg->category_inverted;
	if ((c & arg->category_mask) != arg->category_mask)
		return false;
	return !arg->category_anyof_mask || (c & arg->category_anyof_mask);
}

static int walk(struct fph_pm_scan *arg)
{
	struct fph_pm_range *vec = (struct fph_pm_range *)(uintptr_t)arg->vec;
	uint64_t first = (arg->start - HOST) / PAGE;
	uint64_t last = (arg->end - HOST) / PAGE;
	uint64_t i, pages = arg->max_pages ? 0 : UINT64_MAX;
	int n = 0;

	check(last <= mock.npages);
	if (mock.max_walk && last - first > mock.max_walk)
		last = first + mock.max_walk;

	for (i = first; i < last; i++) {
		uint64_t c = categories(i) & arg->return_mask;
		uint64_t addr = HOST + i * PAGE;
		bool same;

		if (mock.pages[i] == M_NOVMA ||
		    !interesting(arg, categories(i)))
			continue;
		/* the query is right by itself, not by what is made of it */
		if (arg->flags & FPH_PM_SCAN_WP_MATCHING || (arg->flags && !mock.shared))
			check(mock.pages[i] != M_NONE);
		else if (!arg->flags)
			check(arg->category_mask == 0 || mock.pages[i] == M_NONE ||
			      mock.pages[i] == M_ZERO);
		same = n && vec[n - 1].end == addr && vec[n - 1].categories == c;
		if (pages == arg->max_pages || (!same && (uint64_t)n == arg->vec_len))
			break;
		pages += arg->max_pages > 0;
		if (same)
			vec[n - 1].end += PAGE;
		else
			vec[n++] = (struct fph_pm_range){ addr, addr + PAGE, c };
		if (arg->flags & FPH_PM_SCAN_WP_MATCHING)
			mock.marked[i] = 1;
	}
	arg->walk_end = HOST + i * PAGE;
	if (mock.stale_walk && i > first + mock.stale_walk)
		arg->walk_end -= mock.stale_walk * PAGE;
	mock.reported += arg->max_pages ? 0 : n;	/* not of a look ahead */
	return n;
}

/* Page faults wait while it walks: more than 64 MiB only where nothing is */
static void check_width(const struct fph_pm_scan *arg)
{
	uint64_t first = (arg->start - HOST) / PAGE;
	uint64_t last = (arg->end - HOST) / PAGE;

	if (last - first > mock.widest)
		mock.widest = last - first;
	check(last - first <= FPH_SCAN_AHEAD / PAGE);
	for (; last - first > FPH_SCAN_WINDOW / PAGE; first++)
		check(mock.pages[first] == M_NONE || mock.pages[first] == M_NOVMA);
}

static int mock_pagemap_scan(int fd, struct fph_pm_scan *arg)
{
	check_int(fd, 1000);
	check_int(arg->size, sizeof(*arg));
	/* Nothing is marked but what is watched */
	if (arg->flags)
		check(arg->flags & FPH_PM_SCAN_CHECK_WPASYNC);
	check(arg->start < arg->end);
	check_int(arg->start % PAGE, 0);
	check_int(arg->end % PAGE, 0);
	check(arg->vec_len > 0 && arg->vec_len <= 512);

	if (!mock.probed) {
		mock.probed = true;
		if (mock.probe_error == -EINTR) {
			mock.probed = false;
			mock.probe_error = 0;
			return -EINTR;
		}
		return mock.probe_error;
	}

	mock.calls++;
	if (arg->max_pages)
		mock.clock += mock.slow_ahead;
	else
		check_width(arg);
	if (mock.eintr_every && mock.calls % mock.eintr_every == 0)
		return -EINTR;
	if (mock.fail_at == mock.calls)
		return mock.fail_with;
	if (arg->flags && !mock.registered)
		return -EPERM;
	if (mock.too_many)
		return arg->vec_len + 1;
	if (mock.disorder) {
		struct fph_pm_range *vec = (struct fph_pm_range *)(uintptr_t)arg->vec;

		vec[0] = (struct fph_pm_range){ arg->start - PAGE, arg->end, 0 };
		arg->walk_end = arg->end;
		return 1;
	}
	if (mock.too_far) {
		arg->walk_end = arg->end + PAGE;
		return 0;
	}
	if (mock.stuck) {
		arg->walk_end = arg->start;
		return 0;
	}
	return walk(arg);
}

static uint64_t entry_of(uint64_t i)
{
	switch (mock.pages[i]) {
	case M_DATA:
		/* neighbours have their own PFN */
		return FPH_PAGEMAP_PRESENT | (mock.pfns ? 1000 + i : 0);
	case M_ZERO:
		return FPH_PAGEMAP_PRESENT | (mock.pfns ? ZERO_PFN : 0);
	case M_SWAP:
		/* a swap type and offset, where PFNs are otherwise */
		return FPH_PAGEMAP_SWAPPED | ZERO_PFN;
	default:
		/* soft-dirty; not a word about whether there is a mapping */
		return UINT64_C(1) << 55;
	}
}

static int64_t mock_pagemap_read(int fd, uint64_t first, uint64_t *entries,
				 size_t n)
{
	check_int(fd, 1000);
	if (!first && n == 1) {
		entries[0] = 0;
		return mock.torn_down || mock.ended ? 0 : 1;
	}
	check(first >= HOST / PAGE);
	first -= HOST / PAGE;
	check(n > 0 && first + n <= mock.npages);
	/* what is left out of one page table must not shift another */
	check((HOST / PAGE + first) % PER_TABLE + n <= PER_TABLE);

	mock.calls++;
	if (mock.eintr_every && mock.calls % mock.eintr_every == 0)
		return -EINTR;
	if (mock.fail_at == mock.calls)
		return mock.fail_with;
	if (mock.too_many)
		return n + 1;
	if (mock.torn_down || mock.ended)
		return 0;
	if (mock.short_every && mock.calls % mock.short_every == 0) {
		first += n - n / 2;
		n /= 2;
	}
	for (size_t i = 0; i < n; i++)
		entries[i] = entry_of(first + i);
	return n;
}

static uint64_t mock_zero_pfn(void)
{
	return mock.pfns ? ZERO_PFN : 0;
}

static bool mock_is_mapped(uint64_t start, uint64_t len)
{
	check(start >= HOST && len > 0 && len % PAGE == 0);
	for (uint64_t i = (start - HOST) / PAGE; len; i++, len -= PAGE)
		if (mock.pages[i] == M_NOVMA)
			return false;
	return true;
}

/* Page i holds zeroes if mock.zeroes has a bit there */
static int64_t mock_read_memory(long pid, int fd, const struct iovec *v,
				size_t n, void *buf)
{
	uint64_t base = fd < 0 ? HOST : 0;
	char *to = buf;

	check(fd < 0 || (fd == 5 && n == 1 && pid == 0));
	mock.reads++;
	for (size_t i = 0; i < n; i++) {
		uint64_t first = ((uintptr_t)v[i].iov_base - base) / PAGE;

		check_int(v[i].iov_len % PAGE, 0);
		for (uint64_t j = first; j < first + v[i].iov_len / PAGE; j++) {
			/* nothing may be populated, or be read for nothing */
			check(mock.pages[j] == M_DATA);
			if (mock.read_error && j == mock.unreadable)
				return to > (char *)buf ? to - (char *)buf : mock.read_error;
			memset(to, 0, PAGE);
			to[mock.content[j] == M_DATA ? PAGE - 1 : 0] =
				mock.content[j] == M_DATA;
			to += PAGE;
			mock.pages_read++;
		}
	}
	return to - (char *)buf;
}

static uint64_t file_bytes(void)
{
	if (mock.shrink_to && mock.calls >= mock.fail_at)
		return mock.shrink_to;
	return mock.file_bytes ? mock.file_bytes : mock.file_pages * PAGE;
}

static int64_t mock_seek(int fd, uint64_t offset, int whence)
{
	uint64_t size;
	uint64_t i;

	check_int(fd, 5);
	mock.calls++;
	if (mock.fail_at == mock.calls && mock.fail_with)
		return mock.fail_with;

	size = file_bytes();
	if (offset >= size)
		return -ENXIO;
	for (i = offset / PAGE; i * PAGE < size; i++)
		if ((mock.file[i] == M_DATA) == (whence == SEEK_DATA))
			return i * PAGE > offset ? i * PAGE : offset;
	return whence == SEEK_DATA ? -ENXIO : (int64_t)size;
}

static int64_t mock_file_pages(int fd, uint64_t offset, uint64_t len)
{
	int64_t n = 0;

	check_int(fd, 5);
	check(len > 0);
	check_int(offset % PAGE, 0);
	check_int(len % PAGE, 0);
	mock.counts++;
	if (mock.witness_error)
		return mock.witness_error;
	for (uint64_t i = offset / PAGE; i < (offset + len) / PAGE && i < mock.file_pages; i++)
		n += mock.file[i] != M_NONE;
	return n;
}

static int mock_file_size(int fd, uint64_t *ret)
{
	check_int(fd, 5);
	*ret = file_bytes();
	return 0;
}

static int mock_file_info(int fd, struct fph_sys_file *ret)
{
	check_int(fd, 5);
	if (mock.info_error)
		return mock.info_error;
	ret->regular = mock.regular;
	ret->fs_magic = mock.magic;
	return 0;
}

static int mock_open_userfaultfd(void)
{
	if (mock.uffd_open_error)
		return mock.uffd_open_error;
	mock.opened++;
	return 1000;
}

static int mock_uffd_api(int fd, uint64_t features)
{
	check_int(fd, 1000);
	check_int(features, UINT64_C(1) << 15);
	return mock.uffd_api_error;
}

static int mock_uffd_register(int fd, uint64_t start, uint64_t len)
{
	check_int(fd, 1000);
	check_int(start, HOST);
	check_int(len, mock.npages * PAGE);
	if (mock.uffd_register_error)
		return mock.uffd_register_error;
	mock.registered = true;
	return 0;
}

static int mock_uffd_unregister(int fd, uint64_t start, uint64_t len)
{
	check_int(fd, 1000);
	check_int(start, HOST + mock.unregistered);
	check(len > 0 && mock.unregistered + len <= mock.npages * PAGE);
	if (mock.uffd_unregister_error == -ENOMEM && mock.unregistered + len < mock.npages * PAGE)
		return -ENOMEM;
	mock.unregistered += len;
	if (len > mock.widest_unregister)
		mock.widest_unregister = len;
	return mock.uffd_unregister_error;
}

static int mock_open_merged(void)
{
	if (mock.merged < 0)
		return mock.merged;
	mock.opened++;
	return 1000;
}

static int64_t mock_read_number(int fd)
{
	check_int(fd, 1000);
	return mock.merged;
}

static uint64_t mock_now_ns(void)
{
	return mock.clock += mock.tick;
}

static void mock_sleep_ns(uint64_t ns)
{
	mock.slept += ns;
	mock.clock += ns;
}

static uint64_t mock_page_size(void)
{
	return PAGE;
}

static long mock_pid(void)
{
	return mock.pid;
}

const struct fph_sys mock_sys = {
	.open_pagemap = mock_open_pagemap,
	.open_process = mock_open_process,
	.has_ended = mock_has_ended,
	.close = mock_close,
	.pagemap_scan = mock_pagemap_scan,
	.pagemap_read = mock_pagemap_read,
	.zero_pfn = mock_zero_pfn,
	.is_mapped = mock_is_mapped,
	.read_memory = mock_read_memory,
	.seek = mock_seek,
	.file_pages = mock_file_pages,
	.file_size = mock_file_size,
	.file_info = mock_file_info,
	.open_userfaultfd = mock_open_userfaultfd,
	.uffd_api = mock_uffd_api,
	.uffd_register = mock_uffd_register,
	.uffd_unregister = mock_uffd_unregister,
	.open_merged = mock_open_merged,
	.read_number = mock_read_number,
	.now_ns = mock_now_ns,
	.sleep_ns = mock_sleep_ns,
	.page_size = mock_page_size,
	.pid = mock_pid,
};

static char *fill(const char *pattern, uint64_t n)
{
	size_t len = strlen(pattern);
	char *p = malloc(n);

	check(p != NULL);
	for (uint64_t i = 0; i < n; i++)
		p[i] = pattern[i % len];
	return p;
}

void mock_reset(void)
{
	mock_free();
	mock.regular = true;
	mock.magic = TMPFS_MAGIC;
	mock.pid = 42;
	mock.tick = 1000;
}

void mock_free(void)
{
	free(mock.pages);
	free(mock.file);
	free(mock.marked);
	free(mock.content);
	memset(&mock, 0, sizeof(mock));
}

void mock_memory(const char *pattern, uint64_t npages)
{
	free(mock.pages);
	mock.pages = fill(pattern, npages);
	mock.npages = npages;
	free(mock.marked);
	mock.marked = calloc(1, npages);
	check(mock.marked != NULL);
}

void mock_file(const char *pattern, uint64_t npages)
{
	free(mock.file);
	mock.file = fill(pattern, npages);
	mock.file_pages = npages;
}

void mock_content(const char *pattern)
{
	free(mock.content);
	mock.content = fill(pattern, mock.npages);
}

int catch_sink(void *opaque, uint64_t start, uint64_t len, enum fph_reason why)
{
	struct catch *c = opaque;

	check(len > 0);
	check_int(start % PAGE, 0);
	check_int(len % PAGE, 0);
	check(start >= c->end);
	if (c->limit)
		check(start < c->limit && len <= c->limit - start);
	check(why < FPH_REASON_MAX);
	if (c->n < ARRAY_SIZE(c->first)) {
		c->first[c->n].start = start;
		c->first[c->n].len = len;
		c->first[c->n].why = why;
	}
	if (c->pages)
		memset(c->pages + start / PAGE,
		       why == FPH_UNMAPPED ? M_NONE : M_ZERO, len / PAGE);
	c->n++;
	c->bytes += len;
	c->end = start + len;
	return (uint64_t)c->fail_at == c->n ? c->fail_with : 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Counts are told once each, while those of other processes come and go. */
#include <bpf/bpf.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>

#include "fph-test.h"
#include "fph-trace.h"

#define NAMES	64
#define OTHERS	4000
#define ROUNDS	2000

static int fd;
static volatile bool over;
static unsigned int told[NAMES];

void complain(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
}

static struct fph_counts_key key_of(__u32 tgid, unsigned int i)
{
	struct fph_counts_key key = { .tgid = tgid };

	snprintf(key.comm, sizeof(key.comm), "thread %u", i);
	return key;
}

static void *come_and_go(void *unused)
{
	static const struct fph_counts counts;
	struct fph_counts_key key;

	for (unsigned int i = 0; !over; i++) {
		key = key_of(2, i % OTHERS);
		if (i / OTHERS % 2)
			bpf_map_delete_elem(fd, &key);
		else
			bpf_map_update_elem(fd, &key, &counts, BPF_ANY);
	}
	return NULL;
}

static void tell(void *opaque, const char *comm, const struct fph_counts *c)
{
	unsigned int i;

	check(sscanf(comm, "thread %u", &i) == 1 && i < NAMES);
	check_int(c->pages[FPH_WRITE], i);
	told[i]++;
}

static void each_once(void **state)
{
	struct fph_counts counts = { { 0 } };
	struct fph_counts_key key;
	pthread_t thread;

	for (unsigned int i = 0; i < NAMES; i++) {
		key = key_of(1, i);
		counts.pages[FPH_WRITE] = i;
		check(bpf_map_update_elem(fd, &key, &counts, BPF_NOEXIST) == 0);
	}
	check(pthread_create(&thread, NULL, come_and_go, NULL) == 0);
	for (int round = 0; round < ROUNDS; round++) {
		memset(told, 0, sizeof(told));
		check_int(trace_counts(fd, 1, tell, NULL), 0);
		for (unsigned int i = 0; i < NAMES; i++)
			check_int(told[i], 1);
	}
	over = true;
	pthread_join(thread, NULL);
}

int main(void)
{
	struct fph_tests t = { 0 };

	fd = bpf_map_create(BPF_MAP_TYPE_HASH, "fph_counts", sizeof(struct fph_counts_key),
			    sizeof(struct fph_counts), FPH_COUNTS_MAX, NULL);
	if (fd < 0)
		fph_test_skip_all("no BPF map can be made: %s", strerror(errno));
	fph_test_add(&t, "each once", each_once, NULL);
	return fph_test_run(&t, "counts");
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What fph-source costs a guest that has nothing to leave out: its memory is
 * full, and it is migrated from QEMU to QEMU, with fph-source (mode=both) on
 * every other hop. One guest, so that nothing but the mode differs.
 *
 *	bench-hops [MEMORY_MIB [PAIRS]]
 */
#include "bench.h"

#define PAIRS_MAX	100
#define WAIT_MS		600000

static const char *const device[] = { "-device", "virtio-fph-pci,id=pv0", NULL };

static struct vm_config config = {
	.append = VM_APPEND " fph.modules=virtio_fph",
	.extra = device,
};

static uint64_t results[2][PAIRS_MAX];

static struct vm *hop(struct vm *src, bool with, uint64_t *ms)
{
	struct vm_migrate_opts opts = { .timeout_ms = WAIT_MS };
	struct vm_migration m = { 0 };
	struct vm *dst;

	config.name = "next";
	config.incoming = config.paused = true;
	ok((dst = vm_start(&config, E)));
	if (with)
		ok(vm_run(src, E, "object-add",
			  "{\"qom-type\":\"fph-source\",\"id\":\"fph0\",\"mode\":\"both\"}"));
	ok(vm_migrate(src, dst, &opts, &m, E));
	*ms = m.total_ms;
	printf("%-5s %6" PRIu64 " ms, %7" PRIu64 " pages sent, %5" PRIu64 " left out\n",
	       with ? "both" : "none", m.total_ms, m.normal + m.duplicate, m.fph.skipped);
	fflush(stdout);
	vm_migration_clear(&m);
	vm_free(src);
	ok(vm_cont(dst, E));
	ok(vm_guest_settle(dst, 20000, E));
	return dst;
}

int main(int argc, char **argv)
{
	uint64_t memory = (argc > 1 ? g_ascii_strtoull(argv[1], NULL, 10) : 8192) << 20;
	unsigned int pairs = argc > 2 ? atoi(argv[2]) : 10;
	g_autofree char *answer = NULL;
	double none, both;
	struct vm *vm;

	if (!memory || !pairs || pairs > PAIRS_MAX) {
		fprintf(stderr, "usage: %s [MEMORY_MIB [PAIRS]]\n", argv[0]);
		return EXIT_FAILURE;
	}
	atexit(vm_free_all);
	config.name = "first";
	config.memory = memory;
	config.qemu = vm_default_qemu();
	config.kernel = vm_default_kernel();
	config.initrd = vm_default_initrd();
	ok((vm = vm_start(&config, E)));
	ok(vm_guest_wait_ready(vm, WAIT_MS, E));
	ok((answer = vm_guest_command(vm, WAIT_MS, E, "fill all dense")));
	ok(vm_guest_settle(vm, 20000, E));
	for (unsigned int i = 0; i < pairs; i++) {
		bool first = i % 2;

		vm = hop(vm, first, &results[first][i]);
		vm = hop(vm, !first, &results[!first][i]);
	}
	vm_free(vm);
	none = bench_median(results[0], pairs);
	both = bench_median(results[1], pairs);
	printf("medians of %u pairs: none %.1f ms, both %.1f ms, %.2f%%\n", pairs, none, both,
	       100 * both / none);
	return EXIT_SUCCESS;
}

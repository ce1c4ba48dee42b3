/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Migrations in which the guest says which of its pages are free. It goes on
 * taking pages into use and giving them back all the while. After each, source
 * and destination may differ in pages that the guest gave up, and has not
 * touched since; and in the guest's own eyes, nothing is lost.
 *
 * One case per process: pv-test NAME.
 */
#include <inttypes.h>

#include "harness.h"

#define FPH_APPEND	GUEST_APPEND " fph.modules=virtio_fph"
#define BALLOON_APPEND	GUEST_APPEND " fph.modules=virtio_balloon"

static const char *const fph[] = { "-device", "virtio-fph-pci,id=pv0", NULL };
static const char *const fph_runs[] = {
	"-device", "virtio-fph-pci,id=pv0,encoding=runs", NULL,
};
static const char *const fph_bitmap[] = {
	"-device", "virtio-fph-pci,id=pv0,encoding=bitmap", NULL,
};
static const char *const fph_packed[] = {
	"-device", "virtio-fph-pci,id=pv0,packed=on,iommu_platform=on", NULL,
};
static const char *const balloon[] = {
	"-object", "iothread,id=io0",
	"-device", "virtio-balloon-pci,id=b0,free-page-hint=on,iothread=io0", NULL,
};
static const char *const fph_and_balloon[] = {
	"-device", "virtio-fph-pci,id=pv0",
	"-object", "iothread,id=io0",
	"-device", "virtio-balloon-pci,id=b0,free-page-hint=on,iothread=io0", NULL,
};

struct live {
	const char *name;
	const char *mode;
	const char *ram;
	const char *const *devices;
	const char *append;
	const char *transport;
	const char *walk;		/* NULL: the balloon does not walk */
	struct vm_migrate_opts opts;
	const char *capability;
	const char *parameters;
	const char *state;		/* of the first request, NULL: answered */
};

#define FAST	{ .max_bandwidth = 200 * MIB }
#define SLOW	{ .max_bandwidth = 60 * MIB }

static const struct live live[] = {
	{ "pv-pfn", "pv", VM_RAM_ANON, fph, FPH_APPEND " virtio_fph.walk=pfn",
	  "virtio-fph", "pfn", FAST, NULL, NULL, NULL },
	{ "pv-pfn-runs", "pv", VM_RAM_ANON, fph_runs, FPH_APPEND " virtio_fph.walk=pfn",
	  "virtio-fph", "pfn", FAST, NULL, NULL, NULL },
	{ "pv-pfn-bitmap", "pv", VM_RAM_ANON, fph_bitmap, FPH_APPEND " virtio_fph.walk=pfn",
	  "virtio-fph", "pfn", FAST, NULL, NULL, NULL },
	{ "pv-list", "pv", VM_RAM_ANON, fph, FPH_APPEND " virtio_fph.walk=list",
	  "virtio-fph", "list", FAST, NULL, NULL, NULL },
	{ "pv-list-runs", "pv", VM_RAM_ANON, fph_runs, FPH_APPEND " virtio_fph.walk=list",
	  "virtio-fph", "list", FAST, NULL, NULL, NULL },
	{ "pv-list-bitmap", "pv", VM_RAM_MEMFD, fph_bitmap, FPH_APPEND " virtio_fph.walk=list",
	  "virtio-fph", "list", FAST, NULL, NULL, NULL },
	{ "pv-packed", "pv", VM_RAM_ANON, fph_packed, FPH_APPEND,
	  "virtio-fph", "pfn", FAST, NULL, NULL, NULL },
	{ "pv-multifd", "pv", VM_RAM_ANON, fph, FPH_APPEND,
	  "virtio-fph", "pfn", FAST, "multifd", NULL, NULL },
	{ "both-anon", "both", VM_RAM_ANON, fph, FPH_APPEND,
	  "virtio-fph", "pfn", FAST, NULL, NULL, NULL },
	{ "both-memfd", "both", VM_RAM_MEMFD, fph, FPH_APPEND,
	  "virtio-fph", "pfn", FAST, NULL, NULL, NULL },
	/* The better of the two is chosen */
	{ "both-two-devices", "both", VM_RAM_ANON, fph_and_balloon,
	  GUEST_APPEND " fph.modules=virtio_fph,virtio_balloon",
	  "virtio-fph", "pfn", FAST, NULL, NULL, NULL },
	/* ... among those that the guest has a driver for, or that is asked for */
	{ "pv-no-driver", "pv", VM_RAM_ANON, fph_and_balloon, BALLOON_APPEND,
	  "virtio-balloon", NULL, FAST, NULL, NULL, NULL },
	{ "pv-device", "pv,pv-device=b0", VM_RAM_ANON, fph_and_balloon,
	  GUEST_APPEND " fph.modules=virtio_fph,virtio_balloon",
	  "virtio-balloon", NULL, FAST, NULL, NULL, NULL },
	{ "pv-balloon", "pv", VM_RAM_ANON, balloon, BALLOON_APPEND,
	  "virtio-balloon", NULL, FAST, NULL, NULL, NULL },
	{ "both-balloon", "both", VM_RAM_MEMFD, balloon, BALLOON_APPEND,
	  "virtio-balloon", NULL, FAST, NULL, NULL, NULL },
	/*
	 * Answers that are used long after they were given, while further syncs
	 * go on: what comes too late must not be used at all (R2).
	 */
	{ "pv-delay", "pv,pv-wait=0,x-pv-delay=700", VM_RAM_ANON, fph_bitmap, FPH_APPEND,
	  "virtio-fph", NULL, SLOW, "auto-converge",
	  "{\"cpu-throttle-initial\":50,\"throttle-trigger-threshold\":1}", "" },
};

static const char *state_of(const struct live *l)
{
	return l->state ? l->state : "answered";
}

static void check_hints(const struct live *l, const struct vm_fph *f)
{
	const struct vm_hints *h = &f->hints;

	print_message("guest %s%s%s by %s: %" PRIu64 " pages free, answer after %" PRIu64
		      " us, sending waited %" PRIu64 " us; %" PRIu64 " requests, %" PRIu64
		      " answers, %" PRIu64 " late; left out: guest %" PRIu64 ", host %" PRIu64
		      ", both %" PRIu64 "\n", h->state, h->reason ? ": " : "",
		      h->reason ? h->reason : "", h->transport, h->free, h->latency_ns / 1000,
		      h->wait_ns / 1000, h->requests, h->answers, h->stale, f->guest_only,
		      f->host_only, f->both);
	check_int(f->skipped, f->guest_only + f->host_only + f->both);
	check_int(f->free, f->guest_only + f->both);
	check_str(h->transport, l->transport);
	if (*state_of(l)) {
		check_str(h->state, state_of(l));
		check(f->free > 0);
	}
	if (l->walk) {
		check_str(h->walk, l->walk);
		check(h->guest_pages > 0);
		check(h->walk_ns > 0 && h->lock_ns > 0 && h->lock_ns <= h->walk_ns);
	}
}

static void test_live(void **state)
{
	const struct live *l = *state;
	struct vm_config cfg = linux_guest;
	struct vm_migration m = { 0 };
	struct vm *src, *dst;

	cfg.ram = l->ram;
	cfg.fph_mode = l->mode;
	cfg.extra = l->devices;
	cfg.append = l->append;
	src = start(cfg);
	dst = start_destination(cfg);
	boot(src);
	if (l->capability)
		capability(src, dst, l->capability);
	if (l->parameters)
		ok(vm_run(src, E, "migrate-set-parameters", "%s", l->parameters));

	/* Free, but not zero: only the guest can know */
	guest(src, "fill 160M dense", "ok fill");
	guest(src, "free", "ok free");
	guest(src, "fill 16M", "ok fill");
	guest(src, "touch 2000 128M", "ok touch");
	guest(src, "rewrite 2000", "ok rewrite");
	guest(src, "churn 32M", "ok churn");
	migrate(src, dst, &l->opts, &m);
	check_str(m.fph.state, "ended");
	check_hints(l, &m.fph);
	if (!strncmp(l->mode, "both", 4))
		check_int(m.fph.chunks_not_scanned, 0);

	check_ram_equal_or_free(src, dst);
	ok(vm_cont(dst, E));
	guest_check(dst);
	guest(dst, "stop", "ok stop");
	guest(dst, "fill 16M", "ok fill");
	guest_check(dst);

	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

static bool asks_host(const char *name)
{
	return g_str_has_prefix(name, "both");
}

int main(int argc, char **argv)
{
	struct fph_tests t = { 0 };

	fph_test_add_rows(&t, live, test_live);
	return harness_main(argc, argv, &t, asks_host);
}

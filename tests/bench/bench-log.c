/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What it costs a guest that writes all the time to have all its dirty logs
 * cleared at once after a bitmap sync, instead of piece by piece as its memory
 * is sent: each page that is written in between is sent twice, and faults. On
 * KVM, whose log is the one that matters. The guest's memory is in use, so
 * that nothing else differs.
 *
 *	none     QEMU clears as it goes
 *	pagemap  all at once in the first round, as it goes later
 *	both     all at once in each round (a device is there to be asked, but the
 *	         guest has no driver for it)
 *
 *	bench-log [MEMORY_MIB [RUNS [PAGES_PER_SECOND]]]
 */
#include <string.h>
#include <unistd.h>

#include "bench-firsttouch.h"

#define RUNS_MAX	50
#define WAIT_MS		600000
#define BANDWIDTH	(UINT64_C(200) << 20)

static const char *const modes[] = { NULL, "pagemap", "both,pv-wait=0" };
#define MODES (sizeof(modes) / sizeof(modes[0]))

static const char *const device[] = { "-device", "virtio-fph-pci", NULL };

struct figures {
	uint64_t ms[RUNS_MAX], sent[RUNS_MAX], syncs[RUNS_MAX], faults[RUNS_MAX];
	uint64_t touches[RUNS_MAX];
};

static struct figures figures[MODES];
static char image[FT_IMAGE_SIZE];
static gsize image_size;

static void set_word(unsigned int at, uint32_t value)
{
	memcpy(image + at, &value, sizeof(value));
}

/* Sum of some of KVM's counters, 0 where it has none */
static uint64_t kvm_faults(struct vm *vm)
{
	g_autoptr(JsonNode) node = NULL;
	GError *error = NULL;
	JsonArray *vcpus;
	uint64_t sum = 0;

	node = vm_command(vm, &error, "query-stats",
			  "{\"target\":\"vcpu\",\"providers\":[{\"provider\":\"kvm\","
			  "\"names\":[\"pf_fixed\",\"pf_fast\"]}]}");
	if (!node) {
		g_clear_error(&error);
		return 0;
	}
	vcpus = json_node_get_array(node);
	for (guint i = 0; i < json_array_get_length(vcpus); i++) {
		JsonObject *vcpu = json_array_get_object_element(vcpus, i);
		JsonArray *stats = json_object_get_array_member(vcpu, "stats");

		for (guint k = 0; k < json_array_get_length(stats); k++)
			sum += json_object_get_int_member(
				json_array_get_object_element(stats, k), "value");
	}
	return sum;
}

static void run(const char *bios, uint64_t memory, unsigned int mode, unsigned int n)
{
	struct vm_migrate_opts opts = { .max_bandwidth = BANDWIDTH, .timeout_ms = WAIT_MS };
	struct vm_config config = {
		.name = "source",
		.memory = memory,
		.accel = "kvm",
		.bios = bios,
		.fph_mode = modes[mode],
		.qemu = vm_default_qemu(),
		.extra = device,
	};
	struct figures *f = &figures[mode];
	struct vm_migration m = { 0 };
	struct vm *src, *dst;
	uint64_t faults, touches;

	ok((src = vm_start(&config, E)));
	config.name = "destination";
	config.fph_mode = NULL;
	config.incoming = config.paused = true;
	ok((dst = vm_start(&config, E)));
	while (bench_ft_state(src, FT_ST_MAGIC) != FT_MAGIC ||
	       bench_ft_state(src, FT_ST_STATE) == FT_TOUCHING)
		g_usleep(20000);
	faults = kvm_faults(src);
	touches = bench_ft_state(src, FT_ST_COUNT);
	ok(vm_migrate(src, dst, &opts, &m, E));
	f->ms[n] = m.total_ms;
	f->sent[n] = m.normal;
	f->syncs[n] = m.sync_count;
	f->faults[n] = kvm_faults(src) - faults;
	f->touches[n] = (bench_ft_state(src, FT_ST_COUNT) - touches) * UINT64_C(1000) / m.total_ms;
	printf("%-8s %6" PRIu64 " ms, %7" PRIu64 " pages sent in %" PRIu64 " rounds, %7" PRIu64
	       " faults, %6" PRIu64 " writes a second\n", modes[mode] ? m.fph.mode : "none",
	       f->ms[n], f->sent[n], f->syncs[n], f->faults[n], f->touches[n]);
	fflush(stdout);
	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

int main(int argc, char **argv)
{
	uint64_t memory = (argc > 1 ? g_ascii_strtoull(argv[1], NULL, 10) : 512) << 20;
	unsigned int runs = argc > 2 ? atoi(argv[2]) : 5;
	unsigned int rate = argc > 3 ? atoi(argv[3]) : 10000;
	const char *firsttouch = g_getenv("FPH_TEST_FIRSTTOUCH");
	g_autofree char *bios = NULL, *content = NULL;
	int fd;

	if (!memory || !runs || runs > RUNS_MAX || !rate || !firsttouch) {
		fprintf(stderr, "usage: FPH_TEST_FIRSTTOUCH=IMAGE %s [MEMORY_MIB [RUNS "
			"[PAGES_PER_SECOND]]]\n", argv[0]);
		return EXIT_FAILURE;
	}
	if (access("/dev/kvm", R_OK | W_OK) < 0) {
		puts("SKIP: no KVM");
		return 77;
	}
	atexit(vm_free_all);
	ok(g_file_get_contents(firsttouch, &content, &image_size, E));
	memcpy(image, content, MIN(image_size, sizeof(image)));
	/* Some 2 GHz: the rate is reported as it was */
	set_word(FT_SET_DELAY, 2000000000u / rate);
	set_word(FT_SET_ROUNDS, 0);
	ok((fd = g_file_open_tmp("fph-bench-XXXXXX", &bios, E)) >= 0);
	close(fd);
	ok(g_file_set_contents(bios, image, image_size, E));

	for (unsigned int n = 0; n < runs; n++)
		for (unsigned int mode = 0; mode < MODES; mode++)
			run(bios, memory, (n + mode) % MODES, n);
	puts("medians:");
	for (unsigned int mode = 0; mode < MODES; mode++) {
		struct figures *f = &figures[mode];

		printf("%-8s %8.0f ms, %8.0f pages sent, %3.0f rounds, %8.0f faults, "
		       "%7.0f writes a second\n", modes[mode] ? modes[mode] : "none",
		       bench_median(f->ms, runs), bench_median(f->sent, runs),
		       bench_median(f->syncs, runs), bench_median(f->faults, runs),
		       bench_median(f->touches, runs));
	}
	unlink(bios);
	return EXIT_SUCCESS;
}

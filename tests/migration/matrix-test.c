/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Each kind of migration that QEMU has: with a gain, or inactive with a reason,
 * and every byte of RAM arrives. docs/fph-source.md has the same table in
 * words, and must name each row.
 *
 * One case per process: matrix-test NAME.
 */
#include <inttypes.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "harness.h"

enum outcome {
	GAIN,			/* pages are left out */
	NOTHING,		/* could be, but there are none */
	INACTIVE,		/* none is, and query-fph says why */
	UNTOUCHED,		/* no migration to fph-source: it stays as it was */
	REFUSED,		/* this QEMU cannot do it, and says so */
};

/* How the stream travels */
enum way {
	BY_UNIX,
	BY_TCP,
	BY_FILE,		/* file: at both ends, one after the other */
	BY_EXEC,		/* a plain file written and read by cat */
};

struct row {
	const char *name;
	enum outcome outcome;
	const char *why;	/* part of the reason; with GAIN: why @alone is left alone */
	const char *alone;	/* this block has no part in it */
	const char *gain[2];	/* these blocks have, beside what the others have */
	const char *method;	/* the host is asked in this way, and in no other */

	const char *caps;	/* of both sides, separated by spaces */
	const char *src_caps;	/* of the source */
	const char *params;	/* of both sides */
	enum way way;

	const char *mode;	/* NULL: pagemap */
	const char *ram;
	const char *accel;
	const char *const *extra;
	const char *const *dst_extra;	/* NULL: the same */
	uint64_t memory;
	bool old_file;		/* the destination's RAM is a file that has content */
	bool hugepages;		/* RAM of both sides is to be reserved first */
	bool paused;		/* the guest does not run */
	bool storm;		/* it writes to fresh pages 20,000 times a second */
	bool no_manual_protect;	/* KVM without manual dirty log protection */

	void (*prepare)(struct vm *src);
	bool slow;		/* pages get so small that the rate has to be */
	void (*midway)(struct vm *src);	/* NULL, with GAIN: until there were some rounds */

	const char *command, *arguments;	/* REFUSED: by this */
};

/*
 * RAM in several blocks, and devices
 */

static const char *const two_nodes[] = {
	"-object", "memory-backend-ram,id=n0,size=64M",
	"-object", "memory-backend-memfd,id=n1,size=64M,share=on",
	"-numa", "node,memdev=n0", "-numa", "node,memdev=n1", NULL,
};

/* Whoever is asked first has no driver */
static const char *const mute_device[] = { "-device", "virtio-fph-pci", NULL };

static const char *const virtio_mem[] = {
	"-m", "slots=1,maxmem=1G",
	"-object", "memory-backend-ram,id=vm0,size=256M,reserve=off",
	"-device", "virtio-mem-pci,memdev=vm0,requested-size=0", NULL,
};

static const char *const dimm[] = {
	"-m", "slots=2,maxmem=1G",
	"-object", "memory-backend-ram,id=d0,size=64M",
	"-device", "pc-dimm,id=dimm0,memdev=d0", NULL,
};

static const char *const slots[] = { "-m", "slots=2,maxmem=1G", NULL };

static const char *const nvdimm[] = {
	"-M", "nvdimm=on", "-m", "slots=2,maxmem=1G",
	"-object", "memory-backend-ram,id=nv0,size=64M",
	"-device", "nvdimm,memdev=nv0", NULL,
};

/* Its standby is of no interest: it is not QEMU's until somebody plugs it */
static const char *const primary[] = {
	"-M", "q35", "-device", "pcie-root-port,id=root0",
	"-device", "e1000e,id=primary,bus=root0,failover_pair_id=standby,romfile=", NULL,
};

static const char *const same_uuid[] = {
	"-uuid", "5c1c6d3e-0a52-4f0c-8a5e-6d7e1a2b3c4d", NULL,
};

static void plug_dimm(struct vm *src)
{
	ok(vm_run(src, E, "object-add",
		  "{\"qom-type\":\"memory-backend-ram\",\"id\":\"d0\",\"size\":67108864}"));
	ok(vm_run(src, E, "device_add",
		  "{\"driver\":\"pc-dimm\",\"id\":\"dimm0\",\"memdev\":\"d0\"}"));
}

static JsonObject *query_migrate(struct vm *src, JsonNode **answer)
{
	GError *error = NULL;

	*answer = vm_command(src, &error, "query-migrate", NULL);
	if (!*answer)
		fail_msg("query-migrate: %s", error->message);
	return json_node_get_object(*answer);
}

/*
 * The guest writes all the time, so there is always something left to send;
 * unless a busy host did not let it run. It then says so, and goes on.
 */
static void some_rounds(struct vm *src)
{
	struct vm_migration m = { 0 };

	until (m.sync_count >= 3) {
		ok(vm_migrate_poll(src, &m, E));
		if (!strcmp(m.status, "completed")) {
			print_message("ended in its round %" PRIu64 " already\n", m.sync_count);
			break;
		}
	}
	vm_migration_clear(&m);
}

/*
 * A block that comes when the bitmaps are there already would have none. Not
 * while they are made: QEMU 10.0 with TCG then waits for ever, since the
 * migration lets go of the BQL, but not of the lock of the list of blocks.
 */
static void plug_dimm_too_late(struct vm *src)
{
	struct vm_migration m = { 0 };

	wait_for_status(src, "active", &m);
	vm_migration_clear(&m);
	ok(vm_run(src, E, "object-add",
		  "{\"qom-type\":\"memory-backend-ram\",\"id\":\"d0\",\"size\":67108864}"));
	refused(src, "not allowed while migrating", "device_add",
		"{\"driver\":\"pc-dimm\",\"id\":\"dimm0\",\"memdev\":\"d0\"}");
	ok(vm_run(src, E, "object-del", "{\"id\":\"d0\"}"));
}

/* Until @member of a migration that does not end (hold_switchover()) is above @n */
static void until_above(struct vm *src, const char *object, const char *member, int64_t n)
{
	int64_t seen = 0;

	until (seen > n) {
		JsonNode *answer;
		JsonObject *o = query_migrate(src, &answer);

		if (object && json_object_has_member(o, object))
			o = json_object_get_object_member(o, object);
		if (json_object_has_member(o, member))
			seen = json_object_get_int_member(o, member);
		json_node_unref(answer);
	}
	print_message("%s: %" PRId64 "\n", member, seen);
	let_go(src);
}

static void until_xbzrle(struct vm *src)
{
	until_above(src, "xbzrle-cache", "pages", 1);
}

static void until_throttled(struct vm *src)
{
	until_above(src, NULL, "cpu-throttle-percentage", 0);
}

static void switch_over(struct vm *src)
{
	struct vm_migration m = { 0 };

	wait_for_status(src, "pre-switchover", &m);
	vm_migration_clear(&m);
	ok(vm_run(src, E, "migrate-continue", "{\"state\":\"pre-switchover\"}"));
}

#define CAPABILITY(name) \
	"migrate-set-capabilities", "{\"capabilities\":[{\"capability\":\"" name "\",\"state\":true}]}"

#define MEMFD_PRIVATE	"memory-backend-memfd,share=off"
#define NAMED_FILE	"memory-backend-file,share=on,mem-path=/dev/shm"

static const struct row rows[] = {
	/* The stream */
	{ .name = "unix-socket" },
	{ .name = "tcp", .way = BY_TCP },
	{ .name = "exec", .way = BY_EXEC },
	{ .name = "file", .way = BY_FILE },
	{ .name = "mapped-ram", .caps = "mapped-ram", .way = BY_FILE },
	{ .name = "mapped-ram-multifd", .caps = "mapped-ram multifd", .way = BY_FILE },
	{ .name = "rdma", .outcome = REFUSED, .why = "expects a valid migration protocol",
	  .command = "migrate", .arguments = "{\"uri\":\"rdma:127.0.0.1:1\"}" },
	{ .name = "tls", .outcome = REFUSED, .why = "requires GNUTLS",
	  .command = "object-add",
	  .arguments = "{\"qom-type\":\"tls-creds-anon\",\"id\":\"t0\",\"endpoint\":\"client\"}" },

	/* How pages are sent */
	{ .name = "zero-page-detection-none", .params = "{\"zero-page-detection\":\"none\"}" },
	{ .name = "zero-page-detection-legacy", .params = "{\"zero-page-detection\":\"legacy\"}" },
	{ .name = "multifd-zero-none", .caps = "multifd",
	  .params = "{\"zero-page-detection\":\"none\"}" },
	{ .name = "multifd-zero-legacy", .caps = "multifd",
	  .params = "{\"zero-page-detection\":\"legacy\"}" },
	{ .name = "multifd-zero-multifd", .caps = "multifd",
	  .params = "{\"zero-page-detection\":\"multifd\",\"multifd-channels\":4}" },
	{ .name = "multifd-zlib", .caps = "multifd", .slow = true,
	  .params = "{\"multifd-compression\":\"zlib\"}" },
	{ .name = "multifd-zstd", .caps = "multifd", .slow = true,
	  .params = "{\"multifd-compression\":\"zstd\"}" },
	{ .name = "multifd-qpl", .outcome = REFUSED, .why = "does not accept value 'qpl'",
	  .command = "migrate-set-parameters", .arguments = "{\"multifd-compression\":\"qpl\"}" },
	{ .name = "multifd-uadk", .outcome = REFUSED, .why = "does not accept value 'uadk'",
	  .command = "migrate-set-parameters", .arguments = "{\"multifd-compression\":\"uadk\"}" },
	{ .name = "multifd-qatzip", .outcome = REFUSED, .why = "does not accept value 'qatzip'",
	  .command = "migrate-set-parameters", .arguments = "{\"multifd-compression\":\"qatzip\"}" },
	{ .name = "zero-copy-send", .caps = "multifd zero-copy-send", .way = BY_TCP },
	{ .name = "xbzrle", .caps = "xbzrle", .prepare = hold_switchover,
	  .midway = until_xbzrle },
	{ .name = "release-ram", .caps = "release-ram" },

	/* How the source and the destination agree */
	{ .name = "return-path", .caps = "return-path" },
	{ .name = "switchover-ack", .caps = "return-path switchover-ack" },
	{ .name = "pause-before-switchover", .caps = "pause-before-switchover",
	  .midway = switch_over },
	{ .name = "late-block-activate", .caps = "late-block-activate" },
	{ .name = "dirty-bitmaps", .caps = "dirty-bitmaps" },
	{ .name = "validate-uuid", .caps = "validate-uuid", .extra = same_uuid },

	/* How the guest is slowed down */
	{ .name = "auto-converge", .caps = "auto-converge",
	  .params = "{\"cpu-throttle-initial\":50,\"throttle-trigger-threshold\":1}",
	  .prepare = hold_switchover, .midway = until_throttled },
	{ .name = "dirty-limit", .outcome = REFUSED, .why = "dirty-ring-size",
	  .command = CAPABILITY("dirty-limit") },

	/* What knows that a page was written */
	{ .name = "kvm-manual-protect", .accel = "kvm", .storm = true },
	{ .name = "kvm-no-manual-protect", .accel = "kvm", .storm = true,
	  .no_manual_protect = true },
	{ .name = "kvm-scanner-pagemap", .accel = "kvm", .storm = true,
	  .mode = "pagemap,scanner=pagemap", .method = "pagemap" },
	{ .name = "kvm-dirty-ring", .outcome = INACTIVE, .why = "dirty ring",
	  .accel = "kvm,dirty-ring-size=4096", .paused = true },
	{ .name = "kvm-dirty-limit", .outcome = INACTIVE, .why = "dirty ring",
	  .accel = "kvm,dirty-ring-size=4096", .src_caps = "dirty-limit", .paused = true },

	/* QEMU relies on it that no page is looked at before it is gone */
	{ .name = "failover", .outcome = INACTIVE, .why = "failover_pair_id", .extra = primary,
	  .paused = true },

	/* What is no migration, or one that does not start from zeroed memory */
	{ .name = "background-snapshot", .outcome = INACTIVE, .why = "has no dirty log",
	  .src_caps = "background-snapshot", .way = BY_EXEC, .paused = true },
	{ .name = "cpr-reboot", .outcome = UNTOUCHED, .params = "{\"mode\":\"cpr-reboot\"}",
	  .way = BY_FILE },
	{ .name = "colo", .outcome = REFUSED, .why = "without replication module",
	  .command = CAPABILITY("x-colo") },

	/* Page tables read without PAGEMAP_SCAN */
	{ .name = "scanner-pagemap", .mode = "pagemap,scanner=pagemap", .method = "pagemap" },
	{ .name = "scanner-pagemap-memfd", .mode = "pagemap,scanner=pagemap",
	  .ram = VM_RAM_MEMFD, .method = "seek" },
	{ .name = "scanner-pagemap-memfd-private", .mode = "pagemap,scanner=pagemap",
	  .ram = MEMFD_PRIVATE, .method = "pagemap+seek" },

	/* RAM */
	{ .name = "ram-memfd", .ram = VM_RAM_MEMFD },
	{ .name = "ram-memfd-private", .ram = MEMFD_PRIVATE, .method = "pagemap-scan+seek" },
	{ .name = "ram-prealloc", .outcome = NOTHING, .ram = "memory-backend-ram,prealloc=on",
	  .memory = 64 * MIB },
	{ .name = "ram-named-file", .outcome = INACTIVE, .why = "named file", .ram = NAMED_FILE },
	{ .name = "ram-named-file-old", .outcome = INACTIVE, .why = "named file",
	  .ram = NAMED_FILE, .old_file = true },
	{ .name = "ram-named-file-assumed", .ram = NAMED_FILE,
	  .mode = "pagemap,assume-zero-destination=on" },
	{ .name = "ram-named-file-private-assumed",
	  .ram = "memory-backend-file,share=off,mem-path=/dev/shm",
	  .mode = "pagemap,assume-zero-destination=on", .method = "pagemap-scan+seek" },
	{ .name = "ram-file-assumed", .outcome = INACTIVE, .why = "outside tmpfs",
	  .ram = "memory-backend-file,share=on,mem-path=/var/tmp",
	  .mode = "pagemap,assume-zero-destination=on", .memory = 64 * MIB },
	{ .name = "ram-hugetlb", .outcome = INACTIVE, .why = "hugetlb", .hugepages = true,
	  .ram = "memory-backend-memfd,share=on,hugetlb=on,hugetlbsize=2M", .memory = 64 * MIB },
	{ .name = "ram-blocks", .extra = two_nodes, .gain = { "n0", "n1" } },
	{ .name = "ram-dimm", .extra = dimm, .gain = { "d0" } },
	{ .name = "ram-hot-plug", .extra = slots, .dst_extra = dimm, .prepare = plug_dimm,
	  .gain = { "d0" } },
	{ .name = "ram-hot-plug-midway", .extra = slots, .midway = plug_dimm_too_late },
	{ .name = "ram-nvdimm", .extra = nvdimm, .alone = "nv0", .why = "not guest RAM" },
	{ .name = "ram-virtio-mem", .extra = virtio_mem },

	/* The guest is to be asked as well, but has no driver */
	{ .name = "both-mute", .mode = "both", .extra = mute_device },
	{ .name = "both-mute-multifd", .mode = "both", .extra = mute_device, .caps = "multifd" },
	{ .name = "both-mute-mapped-ram", .mode = "both", .extra = mute_device,
	  .caps = "mapped-ram", .way = BY_FILE },
};

static void set_capabilities(struct vm *vm, const char *names)
{
	g_auto(GStrv) words = g_strsplit(names ? names : "", " ", -1);

	for (char **w = words; *w; w++)
		set_capability(vm, *w, true);
}

#define UNLIMITED	UINT64_C(100000000000)

static void set_limits(struct vm *vm, uint64_t bandwidth, unsigned int downtime_ms)
{
	ok(vm_run(vm, E, "migrate-set-parameters",
		  "{\"max-bandwidth\":%" PRIu64 ",\"downtime-limit\":%u}", bandwidth, downtime_ms));
}

/* Where the destination listens; it chose the port */
static char *tcp_uri(struct vm *dst)
{
	JsonNode *answer;
	JsonObject *o = query_migrate(dst, &answer), *address;
	JsonArray *list;
	char *uri;

	list = json_object_get_array_member(o, "socket-address");
	check(list != NULL);
	address = json_array_get_object_element(list, 0);
	uri = g_strdup_printf("tcp:127.0.0.1:%s", json_object_get_string_member(address, "port"));
	json_node_unref(answer);
	return uri;
}

/* From the command to when both sides are through */
static void run(const struct row *r, struct vm *src, struct vm *dst, struct vm_migration *m)
{
	void (*midway)(struct vm *src) = r->midway;
	struct vm_migration at_dst = { 0 };
	g_autofree char *out = NULL, *in = NULL;
	const char *file;

	if (r->outcome == GAIN && !r->storm && !midway)
		midway = some_rounds;
	switch (r->way) {
	case BY_UNIX:
		in = g_strdup_printf("unix:%s/migrate.sock", vm_dir(dst));
		out = g_strdup(in);
		break;
	case BY_TCP:
		in = g_strdup("tcp:127.0.0.1:0");
		break;
	case BY_FILE:
		in = g_strdup_printf("file:%s", temp_file("", 0));
		out = g_strdup(in);
		break;
	case BY_EXEC:
		file = temp_file("", 0);
		in = g_strdup_printf("exec:cat %s", file);
		out = g_strdup_printf("exec:cat > %s", file);
		break;
	}
	if (r->way == BY_UNIX || r->way == BY_TCP)
		ok(vm_run(dst, E, "migrate-incoming", "{\"uri\":\"%s\"}", in));
	if (!out)
		out = tcp_uri(dst);
	/*
	 * With a guest that writes, and hardly any downtime, it does not end;
	 * unless all was sent before QEMU has measured for 100 ms how fast it
	 * is, or while a busy host did not let the guest run.
	 */
	if (r->storm)
		set_limits(src, 150 * MIB, 1);
	else if (midway && midway != switch_over)
		set_limits(src, r->slow ? MIB / 8 : 8 * MIB, 1);
	else
		set_limits(src, UNLIMITED, 300);
	ok(vm_run(src, E, "migrate", "{\"uri\":\"%s\"}", out));
	if (r->storm) {
		hold_until(src, 150 * MIB, resent_many, m);
		let_go(src);
	} else if (midway) {
		midway(src);
		set_limits(src, UNLIMITED, 300);
	}
	wait_for_status(src, "completed", m);
	if (r->way == BY_FILE || r->way == BY_EXEC)
		ok(vm_run(dst, E, "migrate-incoming", "{\"uri\":\"%s\"}", in));
	wait_for_status(dst, "completed", &at_dst);
	vm_migration_clear(&at_dst);
	ok(vm_migrate_poll(src, m, E));
	print_migration(m);
}

static JsonObject *block_of(const struct vm_fph *fph, const char *name)
{
	JsonArray *blocks = json_object_get_array_member(fph_object(fph), "blocks");

	for (guint i = 0; i < json_array_get_length(blocks); i++) {
		JsonObject *block = json_array_get_object_element(blocks, i);

		if (g_str_has_suffix(json_object_get_string_member(block, "name"), name))
			return block;
	}
	fail_msg("query-fph knows no block %s", name);
	abort();
}

static void says(const char *text, const char *why)
{
	if (!text || !strstr(text, why))
		fail_msg("\"%s\" does not say \"%s\"", text ? text : "(nothing)", why);
}

static void check_method(const struct vm_fph *fph, const char *method)
{
	JsonArray *blocks = json_object_get_array_member(fph_object(fph), "blocks");
	guint n = 0;

	for (guint i = 0; i < json_array_get_length(blocks); i++) {
		const char *by = json_object_get_string_member(
			json_array_get_object_element(blocks, i), "method");

		if (strcmp(by, "none") == 0)
			continue;
		check_str(by, method);
		n++;
	}
	check(n > 0);
}

static void check_outcome(const struct row *r, const struct vm_fph *fph)
{
	JsonObject *block;

	check_int(fph->skipped, fph->unmapped + fph->zero_mapped);
	switch (r->outcome) {
	case GAIN:
		check_str(fph->state, "ended");
		check(fph->reason == NULL);
		check(fph->skipped > 1000);
		check_int(fph->chunks_not_scanned, 0);
		if (r->method)
			check_method(fph, r->method);
		for (size_t i = 0; i < ARRAY_SIZE(r->gain) && r->gain[i]; i++) {
			block = block_of(fph, r->gain[i]);
			check(json_object_get_int_member(block, "skipped") > 1000);
		}
		if (r->alone) {
			block = block_of(fph, r->alone);
			check_int(json_object_get_int_member(block, "skipped"), 0);
			check_str(json_object_get_string_member(block, "method"), "none");
			says(json_object_get_string_member(block, "reason"), r->why);
		}
		break;
	case NOTHING:
		check_str(fph->state, "ended");
		check(fph->chunks > 0);
		check_int(fph->skipped + fph->resent, 0);
		break;
	case INACTIVE:
		check_str(fph->state, "inactive");
		says(fph->reason, r->why);
		check_int(fph->skipped + fph->resent + fph->chunks, 0);
		break;
	case UNTOUCHED:
		check_str(fph->state, "ready");
		check(fph->reason == NULL);
		check_int(fph->skipped + fph->resent + fph->chunks, 0);
		break;
	case REFUSED:
		fail_msg("nothing was migrated");
	}
}

static void test_refused(const struct row *r)
{
	struct vm *src = start(tiny_guest);
	GError *error = NULL;

	if (vm_run(src, &error, r->command, "%s", r->arguments))
		fph_test_skip_all("this QEMU was built with %s, which has no test here", r->name);
	says(error->message, r->why);
	print_message("refused: %s\n", error->message);
	g_error_free(error);
	vm_free(src);
}

/* KVM without manual dirty log protection; *@seen has content once QEMU asked for it */
static const char *without_manual_protect(const char **seen)
{
	g_autofree char *settings = NULL;

	*seen = temp_file("", 0);
	settings = g_strdup_printf("FPH_TEST_SEEN='%s'", *seen);
	return preloaded_qemu("FPH_TEST_NO_MANUAL_PROTECT", settings);
}

static const char *old_file(uint64_t size)
{
	g_autofree char *content = g_malloc(size);

	memset(content, 'Z', size);
	return temp_file(content, size);
}

static void test_row(void **state)
{
	const struct row *r = *state;
	struct vm_config cfg = tiny_guest;
	struct vm_migration m = { 0 };
	g_autofree char *old = NULL;
	const char *seen = NULL;
	struct vm *src, *dst;

	if (r->outcome == REFUSED) {
		test_refused(r);
		return;
	}

	/* Or one touch would populate 2 MiB */
	check_int(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), 0);
	cfg.ram = r->ram;
	cfg.accel = r->accel;
	if (r->mode)
		cfg.fph_mode = r->mode;
	if (r->memory)
		cfg.memory = r->memory;
	if (r->storm) {
		cfg.memory = 512 * MIB;
		cfg.bios = patch_firsttouch(100000, 1);
	}
	if (r->hugepages)
		need_hugepages(2 * cfg.memory);
	cfg.extra = r->extra;
	if (r->no_manual_protect)
		cfg.qemu = without_manual_protect(&seen);
	src = start(cfg);
	cfg.qemu = NULL;
	if (seen)
		check(file_size(seen) > 0);
	if (r->old_file) {
		old = g_strdup_printf("memory-backend-file,share=on,mem-path=%s",
				      old_file(cfg.memory));
		cfg.ram = old;
	}
	if (r->dst_extra)
		cfg.extra = r->dst_extra;
	dst = start_destination(cfg);
	if (r->prepare)
		r->prepare(src);
	/* Also compressed, that must be more than goes through at once */
	ft_wait_for(src, r->storm ? 10000 : r->slow ? 4000 : r->outcome == GAIN ? 1000 : 10);
	if (r->paused)
		ok(vm_stop(src, E));
	capability_or_skip(src, r->src_caps);
	set_capabilities(src, r->caps);
	set_capabilities(dst, r->caps);
	if (r->params) {
		ok(vm_run(src, E, "migrate-set-parameters", "%s", r->params));
		ok(vm_run(dst, E, "migrate-set-parameters", "%s", r->params));
	}

	run(r, src, dst, &m);
	check_outcome(r, &m.fph);
	check_ram_equal(src, dst);

	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

/*
 * With x-ignore-shared a block whose file both sides map has no dirty bitmap.
 * A guest that reports free pages in it made QEMU crash, without fph-source.
 */
struct ignored {
	const char *name;
	const char *mode;
};

static const struct ignored ignored[] = {
	{ "ignore-shared-balloon", NULL },
	{ "ignore-shared-pagemap", "pagemap" },
	{ "ignore-shared-pv", "pv" },
	{ "ignore-shared-both", "both" },
};

static void test_ignored(void **state)
{
	const struct ignored *row = *state;
	g_autofree char *file = NULL;
	const char *extra[] = {
		"-object", "iothread,id=io0",
		"-device", "virtio-balloon-pci,free-page-hint=on,iothread=io0",
		"-object", NULL,
		"-object", "memory-backend-ram,id=n1,size=256M",
		"-numa", "node,memdev=n0", "-numa", "node,memdev=n1", NULL,
	};
	struct vm_config cfg = linux_guest;
	struct vm_migration m = { 0 }, at_dst = { 0 };
	g_autofree char *uri = NULL;
	struct vm *src, *dst;
	JsonObject *block;

	/* A file in memory */
	g_setenv("TMPDIR", "/dev/shm", true);
	file = g_strdup_printf("memory-backend-file,id=n0,size=256M,share=on,mem-path=%s",
			       temp_file("", 0));
	extra[5] = file;
	cfg.fph_mode = row->mode;
	cfg.extra = extra;
	cfg.append = VM_APPEND " fph.modules=virtio_balloon";
	src = start(cfg);
	boot(src);
	dst = start_destination(cfg);
	guest(src, "fill 160M dense", "ok fill");
	guest(src, "free", "ok free");
	guest(src, "fill 16M", "ok fill");
	capability(src, dst, "x-ignore-shared");

	/* So slow that the guest has reported all before the end comes */
	uri = g_strdup_printf("unix:%s/migrate.sock", vm_dir(dst));
	set_limits(src, 20000, 1);
	ok(vm_run(dst, E, "migrate-incoming", "{\"uri\":\"%s\"}", uri));
	ok(vm_run(src, E, "migrate", "{\"uri\":\"%s\"}", uri));
	wait_for_status(src, "active", &m);
	/* What the balloon tells QEMU itself, nobody can ask for */
	g_usleep(2 * G_USEC_PER_SEC);
	until (!m.fph.hints.present || !strcmp(m.fph.hints.state, "answered"))
		ok(vm_migrate_poll(src, &m, E));
	check_str(m.status, "active");
	set_limits(src, UNLIMITED, 300);
	wait_for_status(src, "completed", &m);
	wait_for_status(dst, "completed", &at_dst);
	ok(vm_migrate_poll(src, &m, E));
	print_migration(&m);

	if (row->mode) {
		check_str(m.fph.state, "ended");
		block = block_of(&m.fph, "n0");
		says(json_object_get_string_member(block, "reason"), "not part of this migration");
		check_int(json_object_get_int_member(block, "skipped"), 0);
		/* What we leave out, or what the balloon has told QEMU before we came to it */
		block = block_of(&m.fph, "n1");
		check(m.fph.hints.present ? json_object_get_int_member(block, "skipped") > 1000 :
					    !json_object_has_member(block, "reason") &&
					    m.normal + m.duplicate < 256 * MIB / PAGE / 2);
	}
	/* What the balloon tells QEMU itself, QEMU does not tell us */
	if (m.fph.hints.present) {
		check_str(m.fph.hints.state, "answered");
		check_ram_equal_or_free(src, dst);
	}
	ok(vm_cont(dst, E));
	guest_check(dst);
	guest(dst, "fill 160M dense", "ok fill");
	guest_check(dst);

	vm_migration_clear(&m);
	vm_migration_clear(&at_dst);
	vm_free(src);
	vm_free(dst);
}

/*
 * A guest with init_on_free trusts its free pages to be zero (R4), so what it
 * says counts in a named file only if the destination's is known to be new.
 */
struct trusted {
	const char *name;
	const char *mode;
	bool gain;
};

static const struct trusted trusted[] = {
	{ "pv-named-file", "pv", false },
	{ "pv-named-file-assumed", "pv,assume-zero-destination=on", true },
};

static void test_trusted(void **state)
{
	static const char *const device[] = { "-device", "virtio-fph-pci", NULL };
	const struct trusted *row = *state;
	struct vm_migrate_opts opts = { .max_bandwidth = 200 * MIB };
	struct vm_config cfg = linux_guest;
	struct vm_migration m = { 0 };
	struct vm *src, *dst;

	cfg.ram = NAMED_FILE;
	cfg.fph_mode = row->mode;
	cfg.extra = device;
	cfg.append = VM_APPEND " fph.modules=virtio_fph init_on_free=1";
	src = start(cfg);
	dst = start_destination(cfg);
	boot(src);
	guest(src, "fill 160M dense", "ok fill");
	guest(src, "free", "ok free");
	guest(src, "fill 16M", "ok fill");
	guest(src, "touch 1000 64M", "ok touch");
	guest(src, "zerochurn 48M", "ok zerochurn");
	migrate(src, dst, &opts, &m);
	check_str(m.fph.hints.state, "answered");
	check(m.fph.hints.free > 1000);
	check(row->gain ? m.fph.free > 1000 : m.fph.skipped == 0);

	/* Free pages as well */
	check_ram_equal(src, dst);
	ok(vm_cont(dst, E));
	guest(dst, "fill 64M", "ok fill");
	guest_check(dst);

	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

/* The table in the documentation has each case */
static int check_document(const struct fph_tests *t, const char *path)
{
	g_autofree char *text = NULL;
	int ret = EXIT_SUCCESS;
	GError *error = NULL;

	if (!g_file_get_contents(path, &text, NULL, &error)) {
		fprintf(stderr, "%s\n", error->message);
		return EXIT_FAILURE;
	}
	for (size_t i = 0; i < t->n; i++) {
		g_autofree char *quoted = g_strdup_printf("`%s`", t->v[i].name);

		if (!strstr(text, quoted)) {
			fprintf(stderr, "%s says nothing of %s\n", path, quoted);
			ret = EXIT_FAILURE;
		}
	}
	return ret;
}

static bool asks_host(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (!strcmp(rows[i].name, name))
			return rows[i].outcome != UNTOUCHED && rows[i].outcome != REFUSED;
	return !strcmp(name, "ignore-shared-pagemap") || !strcmp(name, "ignore-shared-both");
}

int main(int argc, char **argv)
{
	struct fph_tests t = { 0 };

	fph_test_add_rows(&t, rows, test_row);
	fph_test_add_rows(&t, ignored, test_ignored);
	fph_test_add_rows(&t, trusted, test_trusted);
	if (argc == 3 && !strcmp(argv[1], "--document"))
		return check_document(&t, argv[2]);
	return harness_main(argc, argv, &t, asks_host);
}

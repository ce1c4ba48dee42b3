/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Migrations that are not taken at their word: dry-run, which leaves nothing
 * out.
 *
 * One case per process: verify-test NAME.
 */
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"

/*
 * What a guest is migrated as that has not run yet, but has something in its
 * RAM. QEMU does not migrate twice, and no clock may tell two of them apart.
 */
static char *stream(const char *mode, const char *content, struct vm_migration *m, gsize *len)
{
	g_autofree char *loader = g_strdup_printf("loader,file=%s,addr=0x400000,force-raw=on", content);
	const char *const extra[] = {
		"-rtc", "base=2026-01-01T00:00:00,clock=vm", "-device", loader, NULL,
	};
	struct vm_config cfg = tiny_guest;
	const char *file = temp_file("", 0);
	char *bytes;
	struct vm *vm;

	cfg.memory = 32 * MIB;
	cfg.paused = true;
	cfg.fph_mode = mode;
	cfg.extra = extra;
	vm = start(cfg);
	vm_migration_clear(m);
	ok(vm_run(vm, E, "migrate-set-parameters", "{\"max-bandwidth\":100000000000}"));
	ok(vm_run(vm, E, "migrate", "{\"uri\":\"file:%s\"}", file));
	for (int i = 0; ; i++) {
		ok(vm_migrate_poll(vm, m, E));
		if (!strcmp(m->status, "completed"))
			break;
		if (!strcmp(m->status, "failed") || i == 9000)
			fail_msg("migration to a file: %s", m->status);
		g_usleep(10000);
	}
	print_migration(m);
	vm_free(vm);
	ok(g_file_get_contents(file, &bytes, len, E));
	check_int(truncate(file, 0), 0);
	return bytes;
}

/*
 * The stream is the same, byte for byte. Where one piece of RAM ends and the
 * next begins depends on the time it took, so that a busy machine needs more
 * than one try; a page more or less is never made up for by chance.
 */
static void test_dry_run_stream(void **state)
{
	g_autofree char *content = g_malloc(MIB);
	struct vm_migration m = { 0 };
	uint64_t sent, skipped;
	gsize len, dry_len;
	char *plain, *dry;
	const char *file;
	bool same = false;

	for (size_t i = 0; i < MIB; i++)
		content[i] = i * 31 + i / PAGE;
	file = temp_file(content, MIB);

	for (int i = 0; i < 20 && !same; i++) {
		plain = stream(NULL, file, &m, &len);
		check(!m.fph.present);
		check(m.normal >= MIB / PAGE);
		sent = m.normal + m.duplicate;

		dry = stream("pagemap,dry-run=on", file, &m, &dry_len);
		check_str(m.fph.state, "ended");
		check(json_object_get_boolean_member(fph_object(&m.fph), "dry-run"));
		check(m.fph.skipped > 1000);
		check_int(m.fph.skipped, m.fph.unmapped + m.fph.zero_mapped);
		check_int(m.fph.resent, 0);
		check(m.fph.skipped <= m.duplicate);
		check_int(m.normal + m.duplicate, sent);
		check_int(sent, migrated_pages(&m.fph));
		skipped = m.fph.skipped;

		same = len == dry_len && !memcmp(plain, dry, len);
		print_message("try %d: %zu and %zu bytes, %s\n", i, len, dry_len,
			      same ? "the same" : "not the same");
		g_free(plain);
		g_free(dry);
	}
	check(same);

	/* In earnest it is what the dry run said */
	g_free(stream("pagemap", file, &m, &dry_len));
	check(!json_object_get_boolean_member(fph_object(&m.fph), "dry-run"));
	check_int(m.fph.skipped, skipped);
	check_int(m.normal + m.duplicate, sent - skipped);
	check(dry_len < len);
	vm_migration_clear(&m);
}

/* A guest that writes all the time loses nothing, and is counted */
static void test_dry_run_live(void **state)
{
	struct vm_migrate_opts opts = { .max_bandwidth = 100 * MIB, .downtime_limit_ms = 2000 };
	struct vm_config cfg = tiny_guest;
	struct vm_migration m = { 0 };
	struct vm *src, *dst;
	GError *error = NULL;
	char *info;

	cfg.fph_mode = "pagemap,dry-run=on";
	cfg.bios = patch_firsttouch(100000, 1);
	src = start(cfg);
	dst = start_destination(cfg);
	ft_wait_for(src, 1000);

	migrate(src, dst, &opts, &m);
	check_str(m.fph.state, "ended");
	check(m.fph.skipped > 1000);
	check_int(m.fph.skipped, m.fph.unmapped + m.fph.zero_mapped);
	check(m.normal + m.duplicate >= migrated_pages(&m.fph));
	info = vm_hmp(src, &error, "info fph");
	check(info && strstr(info, "mode pagemap, dry run, ended"));
	g_free(info);
	check_ram_equal(src, dst);

	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

static bool asks_host(const char *name)
{
	return true;
}

int main(int argc, char **argv)
{
	struct fph_tests t = { 0 };

	fph_test_add(&t, "dry-run-stream", test_dry_run_stream, NULL);
	fph_test_add(&t, "dry-run-live", test_dry_run_live, NULL);

	return harness_main(argc, argv, &t, asks_host);
}

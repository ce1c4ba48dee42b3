/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Guests saved to mapped-ram files. A page that was left out is a hole of the
 * file and clear in its bitmap, all others are in it as they were in the end;
 * and the file, loaded by a QEMU without fph-source, gives the same memory.
 *
 * One case per process: file-test NAME.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness.h"

struct save {
	const char *name;
	const char *mode;
	const char *ram;
	const char *caps;	/* beside mapped-ram, separated by spaces */
	const char *params;
	const char *append;	/* free pages of the guest are to be zero, by its command line */
	const char *accel;
	uint64_t offset;	/* in the file */
	uint64_t old;		/* so many bytes of content has the file before */
	bool fdset;		/* QEMU is given descriptors, as libvirt does */
	bool stream;		/* without mapped-ram, as a stream */
	bool fd;		/* to a descriptor that QEMU is given, as virsh save does */
	bool paused;		/* the guest does not run */
};

#define OLD (256 * MIB)	/* more than is saved */

static const struct save saves[] = {
	{ "save-anon", "pagemap", VM_RAM_ANON },
	{ "save-memfd", "pagemap", VM_RAM_MEMFD },
	{ "save-memfd-private", "pagemap", "memory-backend-memfd,share=off" },
	{ "save-multifd", "pagemap", VM_RAM_ANON, "multifd" },
	{ "save-direct-io", "pagemap", VM_RAM_MEMFD, "multifd", "{\"direct-io\":true}" },
	{ "save-zero-none", "pagemap", VM_RAM_MEMFD, NULL, "{\"zero-page-detection\":\"none\"}" },
	{ "save-offset", "pagemap", VM_RAM_ANON, .offset = 3 * MIB + 4096, .old = OLD },
	{ "save-fdset", "pagemap", VM_RAM_ANON, .fdset = true, .old = OLD },
	{ "save-fdset-multifd", "pagemap", VM_RAM_MEMFD, "multifd", .fdset = true, .old = OLD },
	{ "save-fdset-direct-io", "pagemap", VM_RAM_ANON, "multifd", "{\"direct-io\":true}",
	  .fdset = true, .old = OLD },
	{ "save-old-file", "pagemap", VM_RAM_MEMFD, .old = OLD },
	{ "save-old-file-multifd", "pagemap", VM_RAM_ANON, "multifd", .old = OLD },
	{ "save-paused-anon", "pagemap", VM_RAM_ANON, .paused = true },
	{ "save-paused-memfd", "pagemap", VM_RAM_MEMFD, "multifd", .paused = true, .old = OLD },
	{ "save-prescan", "pagemap,prescan=on", VM_RAM_ANON, .paused = true },
	{ "save-verify", "pagemap,verify=report", VM_RAM_MEMFD },
	{ "save-pv", "pv", VM_RAM_ANON },
	{ "save-both", "both", VM_RAM_MEMFD, .old = OLD },
	{ "save-both-multifd", "both", VM_RAM_ANON, "multifd", .old = OLD },
	{ "save-pv-init-on-free", "pv", VM_RAM_ANON, .append = FPH_APPEND " init_on_free=1", .old = OLD },
	{ "save-stream", "both", VM_RAM_MEMFD, .stream = true, .old = OLD },
	{ "save-stream-fd", "pagemap", VM_RAM_MEMFD, .stream = true, .fd = true },
	{ "kvm-save-anon", "pagemap", VM_RAM_ANON, .accel = "kvm" },
	{ "kvm-save-memfd-multifd", "pagemap", VM_RAM_MEMFD, "multifd", .accel = "kvm", .old = OLD },
};

static struct vm_config guest_of(const struct save *s)
{
	struct vm_config cfg = busy_config(s->mode, s->ram);

	/* Seconds for all of its memory: it has to have fresh pages when it is saved */
	if (cfg.bios)
		cfg.bios = patch_firsttouch(400000, 0);
	cfg.accel = s->accel;
	if (s->append)
		cfg.append = s->append;
	return cfg;
}

/*
 * The file, as QEMU's docs/devel/migration/mapped-ram.rst has it
 */

struct mapped_block {
	uint64_t bitmap;		/* of the pages that are in the file; offset */
	uint64_t pages;			/* of all pages */
};

static uint64_t big_endian(const guint8 *at)
{
	uint64_t n;

	memcpy(&n, at, sizeof(n));
	return GUINT64_FROM_BE(n);
}

/* The header behind the block's name and length, in what comes before all pages */
static struct mapped_block find_block(int fd, uint64_t offset, const struct vm_block *b)
{
	static guint8 head[64 * 1024];
	g_autofree guint8 *key = g_malloc(strlen(b->name) + 2);
	ssize_t size = pread(fd, head, sizeof(head), offset);
	size_t key_len = g_snprintf((char *)key, strlen(b->name) + 2, "%c%s",
				    (int)strlen(b->name), b->name);
	const guint8 *at;

	check(size > 0);
	at = memmem(head, size, key, key_len);
	if (!at)
		fail_msg("the file has no block %s", b->name);
	at += key_len;
	check(at + 36 <= head + size);
	check_int(big_endian(at), b->used);
	/* 4 bytes of version */
	check_int(big_endian(at + 12), PAGE);
	return (struct mapped_block){ big_endian(at + 20), big_endian(at + 28) };
}

static bool is_zero(const guint8 *p)
{
	return p[0] == 0 && !memcmp(p, p + 1, PAGE - 1);
}

static uint64_t data_pages(int fd, uint64_t from, uint64_t length)
{
	off_t at = from, end = from + length, data;
	uint64_t bytes = 0;

	while (at < end && (data = lseek(fd, at, SEEK_DATA)) >= 0 && data < end) {
		at = lseek(fd, data, SEEK_HOLE);
		bytes += MIN(at, end) - data;
	}
	return bytes / PAGE;
}

struct in_file {
	uint64_t pages;			/* of the block */
	uint64_t set;			/* in the bitmap: read when the file is loaded */
	uint64_t data;			/* not in a hole */
};

/*
 * The guest's memory in the file. @all: what the bitmap has is as it is at the source,
 * which has stopped, and what it does not have reads as zero there; not so for pages
 * that the guest calls free.
 */
static struct in_file check_file(struct vm *src, const char *path, uint64_t offset, bool all)
{
	g_autoptr(GPtrArray) blocks = NULL;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	static guint8 ram[2 * MIB], in_file[2 * MIB];
	struct in_file ret = { 0 };
	struct mapped_block at;
	GError *error = NULL;

	check(fd >= 0);
	blocks = vm_ram_blocks(src, &error);
	if (!blocks)
		fail_msg("%s", error->message);
	for (guint i = 0; i < blocks->len; i++) {
		const struct vm_block *b = blocks->pdata[i];
		g_autofree guint64 *bitmap = NULL;

		if (strcmp(b->name, "pc.ram") && strcmp(b->name, "ram0"))
			continue;
		at = find_block(fd, offset, b);
		bitmap = g_malloc(b->used / PAGE / 8);
		check_int(pread(fd, bitmap, b->used / PAGE / 8, at.bitmap), b->used / PAGE / 8);
		for (uint64_t n = 0; n < b->used / PAGE; n++) {
			uint64_t in = n * PAGE % sizeof(ram);
			const guint8 *p = ram + in;

			if (in == 0) {
				ok(vm_ram_read(src, b->hva + n * PAGE, ram, sizeof(ram), E));
				memset(in_file, 0, sizeof(in_file));
				check(pread(fd, in_file, sizeof(in_file),
					    at.pages + n * PAGE) >= 0);
			}
			if (bitmap[n / 64] >> n % 64 & 1) {
				ret.set++;
				if (all && memcmp(p, in_file + in, PAGE))
					fail_msg("page %" PRIu64 " of %s is another in the file",
						 n, b->name);
			} else if (all && !is_zero(p)) {
				fail_msg("page %" PRIu64 " of %s is not in the file", n, b->name);
			}
		}
		ret.pages += b->used / PAGE;
		ret.data += data_pages(fd, at.pages, b->used);
	}
	close(fd);
	check(ret.pages > 0);
	print_message("in the file: %" PRIu64 " of %" PRIu64 " pages, %" PRIu64 " have room\n",
		      ret.set, ret.pages, ret.data);
	return ret;
}

/*
 * Saving and loading
 */

static void set_capabilities(struct vm *vm, const char *names)
{
	g_auto(GStrv) words = g_strsplit(names ? names : "", " ", -1);

	set_capability(vm, "mapped-ram", true);
	for (char **w = words; *w; w++)
		set_capability(vm, *w, true);
}

static void set_up(struct vm *vm, const struct save *s)
{
	if (!s->stream)
		set_capabilities(vm, s->caps);
	if (s->params)
		ok(vm_run(vm, E, "migrate-set-parameters", "%s", s->params));
}

static char *uri_of(const char *path, uint64_t offset)
{
	return offset ? g_strdup_printf("file:%s,offset=0x%" PRIx64, path, offset) :
			g_strdup_printf("file:%s", path);
}

/* Where direct I/O can be, too: not in memory */
static const char *new_file(uint64_t old)
{
	g_autofree char *content = g_malloc(old);

	check(g_setenv("TMPDIR", "/var/tmp", true));
	memset(content, 'Z', old);
	return temp_file(content, old);
}

static void pass_file(struct vm *vm, const char *path, int flags, const char *command,
		      const char *arguments)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC | flags);

	check(fd >= 0);
	ok(qmp_send_fd(vm_qmp(vm), fd, E));
	ok(vm_run(vm, E, command, "%s", arguments));
	close(fd);
}

/* The file's URI, for which QEMU was given what it needs */
static char *destination_of(struct vm *src, const struct save *s, const char *path)
{
	if (s->fd) {
		pass_file(src, path, 0, "getfd", "{\"fdname\":\"save\"}");
		return g_strdup("fd:save");
	}
	if (!s->fdset)
		return uri_of(path, s->offset);
	pass_file(src, path, 0, "add-fd", "{\"fdset-id\":1}");
	if (s->params)		/* direct I/O takes one of its own */
		pass_file(src, path, O_DIRECT, "add-fd", "{\"fdset-id\":1}");
	return g_strdup("file:/dev/fdset/1");
}

/* The guest was asked several times, if it can be */
static bool some_rounds(const struct vm_migration *m)
{
	return resent_some(m) && (!m->fph.hints.present || m->sync_count >= 6);
}

/* A guest without an operating system waits until it is saved, so that it has fresh pages */
static void hold(struct vm *vm, const struct vm_config *cfg)
{
	if (cfg->bios)
		ok(vm_stop(vm, E));
}

/*
 * In several rounds, of a guest that writes to fresh pages, or as fast as it goes. Who
 * was held goes on when the log is on.
 */
static void save(struct vm *src, const char *uri, bool rounds, struct vm_migration *m)
{
	vm_migration_clear(m);
	if (rounds)
		set_bandwidth(src, 64 * 1024);
	else
		let_go(src);
	ok(vm_run(src, E, "migrate", "{\"uri\":\"%s\"}", uri));
	if (rounds) {
		until (m->sync_count > 0)
			ok(vm_migrate_poll(src, m, E));
		ok(vm_cont(src, E));
		/*
		 * The firmware writes 15 MB a second: saved faster, each round is shorter
		 * than the one before, and all is over if we are held up for half a second
		 */
		hold_until(src, ft_state(src, FT_ST_MAGIC) == FT_MAGIC ? 5 * MIB : 50 * MIB,
			   some_rounds, m);
		let_go(src);
	}
	wait_for_status(src, "completed", m);
	ok(vm_migrate_poll(src, m, E));
	print_migration(m);
}

static void load(struct vm *dst, const char *path, uint64_t offset)
{
	g_autofree char *uri = uri_of(path, offset);
	struct vm_migration m = { 0 };

	ok(vm_run(dst, E, "migrate-incoming", "{\"uri\":\"%s\",\"exit-on-error\":false}", uri));
	wait_for_status(dst, "completed", &m);
	vm_migration_clear(&m);
}

static void check_same(struct vm *src, struct vm *dst, bool guest_asked, bool all)
{
	if (guest_asked && !all)
		check_ram_equal_or_free(src, dst);
	else
		check_ram_equal(src, dst);
}

/*
 * What was left out was never written to the file; but for what the guest called free
 * in a later round.
 */
static void check_holes(struct vm *src, const char *path, const struct save *s,
			const struct vm_migration *m)
{
	bool asked = !g_str_has_prefix(s->mode, "pagemap");
	struct in_file in_file = check_file(src, path, s->offset, !asked || s->append);

	check(in_file.data <= in_file.pages - (asked ? m->fph.unmapped : m->fph.skipped));
	check(in_file.set <= in_file.data);
	check(in_file.data <= m->normal);
	if (s->paused)
		check_int(in_file.data, in_file.set);
}

static void test_save(void **state)
{
	const struct save *s = *state;
	bool asked = !g_str_has_prefix(s->mode, "pagemap");
	const char *path = new_file(s->old);
	struct vm_config cfg = guest_of(s);
	struct vm_migration m = { 0 };
	g_autofree char *uri = NULL;
	struct vm *src, *dst;

	/* Or one touch would populate 2 MiB */
	check_int(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), 0);
	src = start_busy(&cfg);
	if (s->append)
		guest(src, "zerochurn 48M", "ok zerochurn");
	hold(src, &cfg);
	if (s->paused)
		ok(vm_stop(src, E));
	set_up(src, s);
	if (strstr(s->mode, "prescan=on"))
		ok(vm_prescan_wait(src, MIGRATE_MS, E));
	uri = destination_of(src, s, path);
	save(src, uri, !s->paused, &m);

	check_str(m.fph.state, "ended");
	check_sums(&m.fph);
	check_end_event(src, "completed", &m.fph);
	check_int(m.fph.violations, 0);
	check(m.fph.skipped > 1000);
	if (asked) {
		check_str(m.fph.hints.state, "answered");
		check(m.fph.free > 1000);
	}

	if (!s->stream)
		check_holes(src, path, s, &m);

	/* A QEMU that knows nothing of it */
	dst = start_destination(cfg);
	set_up(dst, s);
	load(dst, path, s->offset);
	check_same(src, dst, asked, s->append);
	ok(vm_cont(dst, E));
	check_busy(dst, &cfg);

	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

/*
 * Saved, loaded, saved again, loaded elsewhere. What was not in the first file
 * has no memory at the second host, and is left out there again.
 */
static void test_again(void **state)
{
	const struct save *s = *state;
	bool asked = !g_str_has_prefix(s->mode, "pagemap");
	struct vm_config cfg = guest_of(s);
	struct vm_migration m = { 0 };
	struct vm *host, *next;

	check_int(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), 0);
	host = start_busy(&cfg);
	hold(host, &cfg);
	cfg.incoming = true;
	cfg.paused = true;
	for (int i = 0; i < 2; i++) {
		const char *path = new_file(s->old);
		g_autofree char *uri = uri_of(path, s->offset);

		set_up(host, s);
		save(host, uri, true, &m);
		check_str(m.fph.state, "ended");
		check(m.fph.skipped > 1000);
		cfg.name = i ? "third" : "second";
		next = start(cfg);
		set_up(next, s);
		load(next, path, s->offset);
		/* To look at memory changes what the host knows of it */
		if (i == 1)
			check_same(host, next, asked, false);
		vm_free(host);
		host = next;
		/* Fresh pages last for seconds: who was held goes on when it is saved again */
		if (cfg.append || i == 1) {
			ok(vm_cont(host, E));
			check_busy(host, &cfg);
		}
	}
	vm_migration_clear(&m);
	vm_free(host);
}

static const struct save again[] = {
	{ "save-again-pagemap", "pagemap", VM_RAM_MEMFD },
	{ "save-again-both", "both", VM_RAM_ANON, "multifd", .old = OLD },
};

/* It is under way, and pages are in the file */
static void save_in_part(struct vm *src, const struct save *s, const char *uri,
			 struct vm_migration *m)
{
	set_up(src, s);
	set_bandwidth(src, 4 * MIB);
	ok(vm_run(src, E, "migrate", "{\"uri\":\"%s\"}", uri));
	until (m->normal > 1000)
		ok(vm_migrate_poll(src, m, E));
	check_str(m->status, "active");
}

/* Cancelled, and then saved over what is in the file by now */
static void test_cancelled(void **state)
{
	const struct save *s = *state;
	const char *path = new_file(s->old);
	g_autofree char *uri = uri_of(path, s->offset);
	struct vm_config cfg = guest_of(s);
	struct vm_migration m = { 0 };
	struct vm *src, *dst;

	check_int(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), 0);
	src = start_busy(&cfg);
	save_in_part(src, s, uri, &m);
	check(m.fph.skipped > 1000);
	ok(vm_migrate_cancel(src, MIGRATE_MS, E));
	check_busy(src, &cfg);

	save(src, uri, false, &m);
	check(m.fph.skipped > 1000);
	check_file(src, path, s->offset, true);
	dst = start_destination(cfg);
	set_up(dst, s);
	load(dst, path, s->offset);
	check_ram_equal(src, dst);
	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

static const struct save cancelled[] = {
	{ "save-cancelled", "pagemap", VM_RAM_MEMFD, .old = OLD },
};

/* QEMU is gone in the middle: nobody takes what is there for a guest */
static void test_killed(void **state)
{
	const struct save *s = *state;
	const char *path = new_file(s->old);
	g_autofree char *uri = uri_of(path, s->offset);
	struct vm_config cfg = guest_of(s);
	struct vm_migration m = { 0 };
	struct vm *src, *dst;

	src = start_busy(&cfg);
	save_in_part(src, s, uri, &m);
	check_int(kill(vm_pid(src), SIGKILL), 0);

	dst = start_destination(cfg);
	set_up(dst, s);
	ok(vm_run(dst, E, "migrate-incoming", "{\"uri\":\"%s\",\"exit-on-error\":false}", uri));
	wait_for_status(dst, "failed", &m);
	vm_migration_clear(&m);
	vm_free(src);
	vm_free(dst);
}

static const struct save killed[] = {
	{ "save-killed", "pagemap", VM_RAM_ANON },
};

int main(int argc, char **argv)
{
	struct fph_tests t = { 0 };

	fph_test_add_rows(&t, saves, test_save);
	fph_test_add_rows(&t, again, test_again);
	fph_test_add_rows(&t, cancelled, test_cancelled);
	fph_test_add_rows(&t, killed, test_killed);
	return harness_main(argc, argv, &t, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A QEMU process under our control: started, driven by QMP, asked through the
 * agent inside the guest, migrated to another one, compared with it, ended.
 *
 * A VM lives in a private temporary directory, which goes with it; QEMU dies
 * with the thread that started it, however that ends. Time-outs are in
 * milliseconds, sizes in bytes. Calls that return bool or a pointer return
 * false or NULL with @error set on failure.
 *
 * Call io_catch_signals() first: a signal then makes them fail with
 * G_IO_ERROR_CANCELLED, and the caller unwinds. Without, SIGTERM (a test that
 * took too long) still ends QEMU, but leaves its directory behind.
 */
#ifndef FPH_REPORT_VM_H
#define FPH_REPORT_VM_H

#include <gio/gio.h>
#include <json-glib/json-glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "qmp.h"

#define VM_ERROR (vm_error_quark())
GQuark vm_error_quark(void);

enum vm_error {
	VM_ERROR_START,		/* QEMU could not be started */
	VM_ERROR_DIED,		/* QEMU ended by itself */
	VM_ERROR_TIMEOUT,	/* the guest or the migration did not come to an end */
	VM_ERROR_GUEST,		/* the guest's agent answered "err" */
	VM_ERROR_MIGRATION,	/* the migration failed or was cancelled */
	VM_ERROR_MEMORY,	/* RAM blocks cannot be read or do not match */
};

/* Answers of QEMU that take longer mean that it hangs. */
#define VM_QMP_MS	20000

struct vm;

/* Where vm_config.ram puts guest memory. */
#define VM_RAM_ANON	NULL	/* the machine's own: anonymous private memory, block "pc.ram" */
#define VM_RAM_MEMFD	"memory-backend-memfd,share=on"	/* block "ram0" */

/* Zero means the default, except where a comment says otherwise. */
struct vm_config {
	const char *name;	/* in messages and file names: "source", "destination" */
	const char *qemu;	/* path; default: vm_default_qemu() */
	guint64 memory;		/* default: 256 MiB */
	const char *ram;	/* type and options of a memory backend, without id and size */
	const char *machine;	/* default: "pc" */
	const char *accel;	/* default: "tcg,thread=multi" */
	const char *cpu;	/* default: QEMU's */
	unsigned int smp;	/* default: 1 */
	const char *kernel;	/* NULL: no kernel; see vm_default_kernel() */
	const char *initrd;
	const char *initrd_more;	/* an archive that is put behind it, or NULL */
	const char *append;	/* default, if there is a kernel: VM_APPEND */
	const char *bios;	/* -bios, for a guest without a kernel */
	bool thread_names;	/* threads have names of their own: debug-threads=on */
	bool incoming;		/* waits for a migration: -incoming defer */
	bool paused;		/* -S: does not run until vm_cont(), or after the migration */
	const char *fph_mode;	/* adds -object fph-source,id=fph0,mode=... */
	const int *netns;	/* network namespace to run in; NULL: ours */
	const char *logs;	/* existing directory for NAME-serial.log and NAME-stderr.log, which
				 * stay there; default: in the VM's own directory */
	const char *const *extra;	/* more arguments, NULL-terminated */
};

/* tests/guest/README.md has the reasons; whoever adds a parameter puts it behind this. */
#define VM_APPEND "console=ttyS0 quiet panic=-1 mitigations=off nokaslr " \
		  "cryptomgr.notests nowatchdog tsc=reliable no_timer_check init_on_alloc=0"

/* $FPH_CACHE or the user's cache directory + "/fph". */
char *vm_cache_dir(void);
char *vm_default_qemu(void);	/* bin/qemu-system-x86_64 below it */
char *vm_default_kernel(void);	/* guest/vmlinuz */
char *vm_default_initrd(void);	/* guest/initramfs.img */
char *vm_default_compiler(void);	/* guest/compiler.img, for initrd_more */

/**
 * vm_start() - start QEMU and connect to its monitor and the guest's agent
 *
 * The guest runs when this returns, unless @cfg says paused or incoming; not
 * one byte of what the agent says is lost.
 */
struct vm *vm_start(const struct vm_config *cfg, GError **error);

/** vm_free() - end QEMU, remove its directory; NULL is fine. */
void vm_free(struct vm *vm);

/* Called by vm_free() when QEMU has ended, with all that was on the console, or NULL */
extern void (*vm_at_end)(struct vm *vm, const char *console);

/**
 * vm_free_all() - what vm_free() does, for each VM there is
 * Registered with atexit(), so that exit() from anywhere leaves nothing.
 */
void vm_free_all(void);

const char *vm_name(const struct vm *vm);
const char *vm_dir(const struct vm *vm);
GPid vm_pid(const struct vm *vm);
struct qmp *vm_qmp(struct vm *vm);

/**
 * vm_command() - qmp_command() that knows when QEMU has died, and why
 * @arguments: JSON text of the arguments object, printf-like, or NULL.
 * Strings among them must not need escapes.
 * Return: the value of "return", for json_node_unref().
 */
JsonNode *vm_command(struct vm *vm, GError **error, const char *name,
		     const char *arguments, ...) G_GNUC_PRINTF(4, 5);

/** vm_run() - vm_command() for commands whose answer says nothing. */
bool vm_run(struct vm *vm, GError **error, const char *name,
	    const char *arguments, ...) G_GNUC_PRINTF(4, 5);

/** vm_hmp() - a command of the human monitor. Return: its output. */
char *vm_hmp(struct vm *vm, GError **error, const char *command);

bool vm_stop(struct vm *vm, GError **error);
bool vm_cont(struct vm *vm, GError **error);

/** vm_alive() - false when QEMU has ended; @error then says how. */
bool vm_alive(struct vm *vm, GError **error);

/* The guest's agent, on the second serial port. */

/** vm_guest_wait_ready() - wait until the guest has booted and its agent listens. */
bool vm_guest_wait_ready(struct vm *vm, int timeout_ms, GError **error);

/** vm_guest_restarts() - the guest was told to boot anew: wait for that the next time. */
void vm_guest_restarts(struct vm *vm);

/**
 * vm_guest_command() - one command line to the agent
 * Return: its answer, a line that starts with "ok" and the command's name. An "err"
 * answer is VM_ERROR_GUEST with the guest's own words.
 */
char *vm_guest_command(struct vm *vm, int timeout_ms, GError **error,
		       const char *fmt, ...) G_GNUC_PRINTF(4, 5);

/** vm_console() - what the guest wrote to its console so far. */
char *vm_console(struct vm *vm);

/**
 * vm_guest_complaint() - what the guest's init could not do, such as loading a module
 * It says so on its console, some time around when the guest is ready.
 * Return: its words, or NULL for none.
 */
char *vm_guest_complaint(struct vm *vm);

/**
 * vm_guest_settle() - wait until the guest is idle
 *
 * That is, until QEMU used less than a tenth of one CPU for a second, but not
 * longer than @timeout_ms: a guest that never rests is no error.
 */
bool vm_guest_settle(struct vm *vm, int timeout_ms, GError **error);

/* What /proc says about the process. */
struct vm_usage {
	guint64 rss_kib;	/* VmRSS: the sum of the next three */
	guint64 rss_anon_kib;
	guint64 rss_file_kib;
	guint64 rss_shmem_kib;
	guint64 rss_peak_kib;	/* VmHWM: the most it ever was, or since that was reset */
	guint64 cpu_ms;		/* user and system, of all threads */
	guint64 system_ms;	/* the part of it in the kernel */
	guint64 guest_cpu_ms;	/* user and system, of the threads that are its virtual CPUs */
	guint64 faults;		/* page faults, minor and major */
};

bool vm_usage(struct vm *vm, struct vm_usage *ret, GError **error);

/** process_usage() - the same of any process; @vcpus: thread ids of pid_t, or NULL */
bool process_usage(pid_t pid, const GArray *vcpus, struct vm_usage *ret, GError **error);

/** qmp_vcpus() - thread ids of pid_t by query-cpus-fast; NULL with @error set. */
GArray *qmp_vcpus(struct qmp *q, GError **error);

/* Migration. */

struct vm_migration;

struct vm_migrate_opts {
	guint64 max_bandwidth;		/* bytes per second; 0: 100 GB/s, no limit in practice */
	unsigned int downtime_limit_ms;	/* 0: QEMU's own */
	unsigned int multifd;		/* connections of multifd; 0: none */
	const char *address;		/* where @dst listens for TCP; NULL: a UNIX socket */
	const char *file;		/* saved to this mapped-ram file, and loaded from it; or NULL */
	int timeout_ms;			/* for the whole migration; 0: 10 minutes */
	unsigned int poll_ms;		/* between two query-migrate; 0: 5 */
	void (*sample)(void *opaque, const struct vm_migration *m);	/* after each; or NULL */
	void *opaque;
};

/* What the guest said about its free pages: "hints" of query-fph. */
struct vm_hints {
	bool present;			/* this mode asks the guest */
	char *state;
	char *reason;			/* NULL: all went well */
	char *transport, *device;	/* NULL: the guest cannot report */
	guint64 requests, answers, stale, free;
	guint64 arm_ns, latency_ns, apply_ns, wait_ns;
	char *walk;			/* NULL: the guest's driver did not say what it did, */
	guint64 walk_ns, lock_ns, guest_pages, guest_entries;	/* and these are 0 */
};

/* Sum over the fph-source objects, of which there is one. */
struct vm_fph {
	bool present;			/* there is such an object */
	char *mode;
	char *state;
	char *reason;			/* inactive-reason, or NULL */
	bool prescan;			/* zero_content can be more than 0 */
	guint64 prescan_ns;		/* its CPU time, from the beginning */
	guint64 skipped, unmapped, zero_mapped, zero_content, free, resent;
	guint64 guest_only, host_only, both;
	guint64 verified, violations, verify_ns;
	guint64 epoch, chunks, chunks_not_scanned, scan_ns, page_size;
	struct vm_hints hints;
	JsonNode *raw;			/* the answer to query-fph */
};

/* What a migration did. Begin with all zero; vm_migration_clear() at the end. */
struct vm_migration {
	char *status;			/* of the source: "completed", "failed", ... */
	guint64 total_ms, downtime_ms, setup_ms;	/* by QEMU's clock */
	guint64 downtime_bytes;	/* of RAM, sent while the guest stood still */
	guint64 wall_ms;		/* by ours: from "migrate" until both sides are done */
	guint64 bytes;			/* ram.transferred */
	guint64 multifd_bytes;		/* of these, what connections of multifd took */
	guint64 normal, duplicate;	/* pages sent whole, pages sent as zero */
	guint64 sync_count, page_size, total_ram;
	guint64 remaining;		/* bytes */
	guint64 file_bytes;		/* of vm_migrate_opts.file: room that it takes */
	guint64 load_ns;		/* from the command until the destination had it */
	struct vm_fph fph;
	struct vm_usage src_before, src_after, dst_before, dst_after;

	gint64 started;			/* monotonic microseconds */
};

/**
 * vm_migrate() - migrate @src to @dst and wait until both sides are done
 * @m: filled as far as things are known, also on failure
 *
 * Through a UNIX socket in @dst's directory unless @opts say otherwise; @dst
 * was started with incoming.
 * RSS and CPU "before" are taken right before the migrate command, "after"
 * right after both sides completed; with a file, after and before each side's
 * own part.
 */
bool vm_migrate(struct vm *src, struct vm *dst, const struct vm_migrate_opts *opts,
		struct vm_migration *m, GError **error);

/*
 * vm_migrate_prepare() - all that is done before the migrate command
 *
 * Return: the address for vm_migrate_begin(), to be freed; NULL with @error set.
 */
char *vm_migrate_prepare(struct vm *src, struct vm *dst, const struct vm_migrate_opts *opts,
			 struct vm_migration *m, GError **error);
bool vm_migrate_begin(struct vm *src, const char *uri, struct vm_migration *m, GError **error);

/* The halves of vm_migrate(), for those who do something in between. */
bool vm_migrate_start(struct vm *src, struct vm *dst, const struct vm_migrate_opts *opts,
		      struct vm_migration *m, GError **error);
bool vm_migrate_wait(struct vm *src, struct vm *dst, const struct vm_migrate_opts *opts,
		     struct vm_migration *m, GError **error);

/** vm_migrate_cancel() - cancel, and wait until @src says that it is cancelled. */
bool vm_migrate_cancel(struct vm *src, int timeout_ms, GError **error);

/** vm_migrate_poll() - the numbers of query-migrate and query-fph into @m, now. */
bool vm_migrate_poll(struct vm *src, struct vm_migration *m, GError **error);

void vm_migration_clear(struct vm_migration *m);

/**
 * vm_migration_parse() - the numbers of an answer to query-migrate
 * @desc: receives error-desc or NULL; may be NULL
 * Return: false with @error set if it is no such answer.
 */
bool vm_migration_parse(JsonNode *node, struct vm_migration *m, char **desc, GError **error);

/** vm_fph_parse() - the numbers of an answer to query-fph, which it takes. */
void vm_fph_parse(JsonNode *node, struct vm_fph *ret);

/** vm_query_fph() - ask query-fph; a QEMU without it has no object, which is no error. */
bool vm_query_fph(struct vm *vm, struct vm_fph *ret, GError **error);
void vm_fph_clear(struct vm_fph *fph);

/**
 * vm_prescan_wait() - wait until the prescan has looked at all memory as it is now
 * That it steps aside is an error, with its reason.
 */
bool vm_prescan_wait(struct vm *vm, int timeout_ms, GError **error);

/* Guest memory, seen from outside. */

struct vm_block {
	char *name;
	guint64 used;		/* bytes in use */
	guint64 hva;		/* address in the QEMU process */
	bool readonly;
	guint64 pages;		/* by vm_ram_compare(): compared, of 4 KiB */
	guint64 differing;
};

/** vm_ram_blocks() - the RAM blocks by "info ramblock", of struct vm_block, which it frees. */
GPtrArray *vm_ram_blocks(struct vm *vm, GError **error);

/**
 * vm_ram_read() - read memory of the QEMU process through /proc/PID/mem
 *
 * This faults pages in: where nothing was mapped, the process has the zero
 * page, or for shared memory a page of its own, afterwards. Measure before.
 */
bool vm_ram_read(struct vm *vm, guint64 hva, void *buf, size_t len, GError **error);

/**
 * vm_ram_open_shared() - open what a block of shared memory maps
 * @offset: receives where the block begins in it, in bytes
 *
 * A hole that is read there stays one.
 *
 * Return: a descriptor, to be closed; -1 if the memory is private, or we may not
 * (CAP_SYS_ADMIN).
 */
int vm_ram_open_shared(struct vm *vm, const struct vm_block *b, guint64 *offset);

/* @offset: in the block; @a, @b: the page's 4 KiB in both */
typedef void (*vm_diff_fn)(void *opaque, const struct vm_block *block, guint64 offset,
			   const guint8 *a, const guint8 *b);

/**
 * vm_ram_compare() - compare every byte of every RAM block, by the block's name
 * @fn: called for each page that differs, or NULL
 * @blocks: receives the blocks with their counts, or NULL
 *
 * Both must be paused. Blocks that only one side has, or of another size, are
 * VM_ERROR_MEMORY. Shared memory gets no page by it if we may open what it
 * maps; private memory as by vm_ram_read().
 *
 * Return: the number of pages that differ, or -1 with @error set.
 */
gint64 vm_ram_compare(struct vm *a, struct vm *b, vm_diff_fn fn, void *opaque,
		      GPtrArray **blocks, GError **error);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files of fph-trace share, and fph-report uses. Errors are told where they occur. */
#ifndef FPH_TRACE_H
#define FPH_TRACE_H

#include <fph/tracer.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "fph_tracer.h"

/* Exit statuses; unistd.h has an X_OK */
enum { X_DONE, X_FAIL, X_USAGE, X_UNSUPPORTED };

/* How: the program's own */
__attribute__((format(printf, 1, 2))) void complain(const char *fmt, ...);

/*
 * trace-load.c: all take the folder where the tracer is, or shall be, pinned; NULL for
 * the one of trace_load_own()
 */

/* @object: "tp", "complete", or NULL for the latter where the kernel allows it */
int trace_load(const char *path, const char *object, uint64_t words, bool verbose);
int trace_unload(const char *path);
/* False with errno set if it is not, or cannot be seen */
bool trace_loaded(const char *path);
/* The same for this process alone: nothing is pinned, and it is gone when the process is */
int trace_load_own(const char *object, uint64_t words, bool verbose);
/* As fph_tracer_open() */
int trace_open(struct fph_tracer **ret, const char *path, pid_t pid, const char **why);
/* Which hooks: "tp", "complete" */
const char *trace_object(const char *path);
/* Descriptor of a map, or negative errno */
int trace_map(const char *path, const char *name);

/* Of a thread's name, since it began to be traced */
typedef void (*trace_counts_fn)(void *opaque, const char *comm, const struct fph_counts *c);

/*
 * For each name of a thread of @pid; @fd: fph_counts. Returns 0 or negative errno: then
 * nothing was told, which does not mean that nothing was counted.
 */
int trace_counts(int fd, pid_t pid, trace_counts_fn fn, void *opaque);
/* @fd: fph_drops */
void trace_drops(int fd, uint64_t drops[FPH_NDROPS]);

/* What its programs cost, whoever they ran for. The kernel looks at the clock only while asked to. */
struct trace_cost {
	uint64_t ns;
	uint64_t runs;
	uint64_t missed;	/* did not run, as another one did on that CPU */
};
int trace_cost(const char *path, struct trace_cost *ret);

/* trace-proc.c */

/* The one virtual machine that has this name (NULL: any), or 0; complains */
pid_t find_machine(const char *name);
bool process_comm(pid_t pid, char comm[FPH_COMM_LEN]);

/* False if its threads cannot be told apart */
bool threads_are_named(pid_t pid);

struct memory {
	struct fph_traced v[FPH_MAX_RANGES];
	unsigned int n;
};

/*
 * Guest RAM of @pid; with @min all that could be, in pieces of so many bytes and more.
 * @shift is that of a grain, 0: a page.
 */
int find_memory(pid_t pid, uint64_t min, uint32_t shift, struct memory *ret);
void free_memory(struct memory *m);
/* Trace it; negative errno. @complete: receives whether what was taken before is known. */
int add_memory(struct fph_tracer *t, pid_t pid, const struct memory *m, bool *complete);

/* What a thread of that name does in QEMU */
const char *thread_kind(const char *comm, const char *main_comm);
extern const char *const thread_kinds[];

#endif

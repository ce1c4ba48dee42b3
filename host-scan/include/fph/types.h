/* SPDX-License-Identifier: LGPL-2.1-or-later */
/**
 * DOC: libfph common types
 *
 * libfph tells which guest pages a live migration may leave out. Producers of
 * that knowledge (the host's page tables, the guest's free lists) emit byte
 * ranges into a sink; consumers (the skip bitmap, an estimator) are sinks.
 *
 * Every function returns 0 or a positive result on success and a negative
 * errno on failure. Outputs are written only on success. The library never
 * prints, never exits, starts no thread and handles no signal.
 *
 * Units are bytes, nanoseconds and pages, as each function says; ranges begin
 * with @start and have @len bytes, or end before @end. Strings that functions
 * return are static.
 *
 * Threads: functions without an object, such as fph_version() and those that give
 * names, are for any thread at any time. Of an object its struct says who may use
 * it; different objects have nothing in common.
 *
 * Growth: structs that begin with @sz get new fields at their end. Set @sz to
 * sizeof of the struct, and all else that is not meant to zero: then a program
 * works with a library that is older than the header it was built with, as long as
 * it asks for nothing new, and with a newer one. Results are cut off at @sz, and
 * zero behind what the library knows. Structs without @sz (struct fph_verdict,
 * struct fph_skip_sink) stay as they are; so do the values of enums, to which more
 * are added, so that the last one, *_MAX, moves.
 */
#ifndef FPH_TYPES_H
#define FPH_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Of this header; fph_version() is that of the library */
#define FPH_VERSION_MAJOR	0
#define FPH_VERSION_MINOR	1
#define FPH_VERSION_PATCH	0

#define FPH_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

/**
 * enum fph_reason - why nobody can miss a page
 * @FPH_UNMAPPED:    the host has nothing behind the page, so it reads as zero
 * @FPH_ZERO_MAPPED: the host maps its shared zero page there
 * @FPH_ZERO_CONTENT: the page has memory of its own, which holds only zeroes
 * @FPH_FREE:        the guest says that the page is free: whatever it holds,
 *                   nobody will read it
 * @FPH_REASON_MAX:  number of reasons
 *
 * Host-zero reasons (all but FPH_FREE) promise a content (zero), which holds
 * only for pages whose copy at the destination is still zero too. Since 0.1.
 */
enum fph_reason {
	FPH_UNMAPPED,
	FPH_ZERO_MAPPED,
	FPH_ZERO_CONTENT,
	FPH_FREE,
	FPH_REASON_MAX,
};

/**
 * typedef fph_sink_fn - consumer of ranges
 * @opaque: consumer's own data
 * @start:  first byte, relative to the start of the region that is scanned
 * @len:    length in bytes, never 0
 * @why:    what is known of every byte in the range
 *
 * Ranges of one call to a producer arrive in ascending order and do not
 * overlap. They are whole host pages, but not more: rounding to the page size
 * of the consumer is the consumer's work.
 *
 * Return: 0 to go on, a negative errno to stop the producer, which passes it
 * on to its caller. Since 0.1.
 */
typedef int (*fph_sink_fn)(void *opaque, uint64_t start, uint64_t len,
			   enum fph_reason why);

/**
 * fph_reason_name() - name of a reason as used in reports
 * @why: a reason
 *
 * Return: a static string, "unknown" for a value out of range. Since 0.1.
 */
FPH_API const char *fph_reason_name(enum fph_reason why);

/**
 * fph_version() - version of the library in use
 *
 * Return: a static string such as "0.1.0". Since 0.1.
 */
FPH_API const char *fph_version(void);

#ifdef __cplusplus
}
#endif

#endif /* FPH_TYPES_H */

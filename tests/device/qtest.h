/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A client of QEMU's qtest socket: the test is the guest's processor. It works
 * beside any accelerator, so a guest can run at the same time. Whatever goes
 * wrong fails the test.
 *
 * Accesses to memory are those of a processor: through the memory map, also to
 * device registers, and seen by the dirty log.
 */
#ifndef FPH_QTEST_H
#define FPH_QTEST_H

#include <stddef.h>
#include <stdint.h>

struct qtest;

/** qtest_new() - listen; QEMU is started with qtest_args() and connects. */
struct qtest *qtest_new(void);
void qtest_free(struct qtest *q);

/** qtest_args() - arguments for QEMU, NULL-terminated. */
const char *const *qtest_args(const struct qtest *q);

/** qtest_connect() - after QEMU was started, before anything else. */
void qtest_connect(struct qtest *q);

void qtest_out(struct qtest *q, uint16_t port, unsigned int bytes, uint32_t value);
uint32_t qtest_in(struct qtest *q, uint16_t port, unsigned int bytes);

/** qtest_clock_step() - the guest's clock stands still with -accel qtest, but for this. */
void qtest_clock_step(struct qtest *q, uint64_t ns);

/* One access of 1, 2, 4 or 8 bytes */
void qtest_store(struct qtest *q, uint64_t addr, unsigned int bytes, uint64_t value);
uint64_t qtest_load(struct qtest *q, uint64_t addr, unsigned int bytes);

/* Memory */
void qtest_write(struct qtest *q, uint64_t addr, const void *data, size_t len);
void qtest_read(struct qtest *q, uint64_t addr, void *data, size_t len);
void qtest_memset(struct qtest *q, uint64_t addr, uint8_t value, uint64_t len);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The machine that measures, and the QEMU that is measured. */
#ifndef FPH_REPORT_MACHINE_H
#define FPH_REPORT_MACHINE_H

#include <stdbool.h>

#include "result.h"

/** machine_describe() - fill what @m says of the machine, not of QEMU and how it is run. */
void machine_describe(struct machine *m);

/** machine_available_kib() - memory that can be had without swapping; 0: unknown. */
guint64 machine_available_kib(void);

/**
 * machine_warm() - populate @bytes of memory, up to three quarters of what is
 * available, and release them
 *
 * A virtual machine's free memory has often been given back to its host, and
 * then the first touch of a page waits for the host, which can take longer
 * than all else in a migration. What was touched a moment ago is there.
 *
 * Return: bytes populated.
 */
guint64 machine_warm(guint64 bytes);

/** machine_has_kvm() - KVM can be used, with the processor's own support for it. */
bool machine_has_kvm(void);

/** file_digest() - 16 hexadecimal digits that tell files apart; NULL with @error set. */
char *file_digest(const char *path, GError **error);

/** qemu_version() - "10.0.13"; NULL with @error set if @path is no QEMU that runs. */
char *qemu_version(const char *path, GError **error);

/** qemu_has() - whether "@path @option help" names @what: "-device", "virtio-balloon-pci". */
bool qemu_has(const char *path, const char *option, const char *what);

#endif

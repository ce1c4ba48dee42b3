/*
 * Between fph-source and whoever asks the guest for its free pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef SYSTEM_FPH_H
#define SYSTEM_FPH_H

#include "exec/hwaddr.h"
#include "qapi/qapi-types-fph.h"
#include "qom/object.h"

#include <fph/hint.h>

/* What free pages mean in this guest */
#define FPH_GUEST_INIT_ON_FREE  (1 << 0)    /* zero, or some, and trusted */
#define FPH_GUEST_PAGE_POISON   (1 << 1)    /* a pattern that will be checked */

#define TYPE_FPH_HINTER "fph-hinter"
typedef struct FphHinter FphHinter;
typedef struct FphHinterClass FphHinterClass;
DECLARE_CLASS_CHECKERS(FphHinterClass, FPH_HINTER, TYPE_FPH_HINTER)
#define FPH_HINTER(obj) INTERFACE_CHECK(FphHinter, (obj), TYPE_FPH_HINTER)

/*
 * A transport for hints: an interface that devices implement.  Everything here
 * is called under the BQL.
 */
struct FphHinterClass {
    InterfaceClass parent_class;

    FphTransport transport;

    /*
     * Is there a guest that can be asked now?  Fills @traits (FPH_GUEST_*) if
     * so; otherwise @why, a static string.
     */
    bool (*ready)(FphHinter *h, uint32_t *traits, const char **why);

    /*
     * Ask for a report of the pages that are free from now on, @max_pages at
     * most.  Answers to former requests are void.
     */
    void (*request)(FphHinter *h, uint64_t max_pages);

    /* The answer does not matter any more, and must not be passed on. */
    void (*stop)(FphHinter *h);

    /* fph_source_hints_full() is not true any more. */
    void (*resume)(FphHinter *h);

    /* The device that it asks through, which may be itself */
    DeviceState *(*device)(FphHinter *h);
};

/*
 * A device that is no hinter, but can be asked by an adapter for it: @adapt
 * returns a new one, or NULL if @device was not given what that takes.  There
 * is one @type of such devices, and none in a QEMU without it.
 */
void fph_hinter_add_adapter(const char *type,
                            FphHinter *(*adapt)(Object *device));

/* Guest-physical memory, page-aligned */
typedef struct FphHintRange {
    hwaddr start;
    uint64_t len;
} FphHintRange;

/* A part of a RAM block */
typedef struct FphRamRange {
    RAMBlock *rb;
    uint64_t start;
    uint64_t len;
} FphRamRange;

/* What was found of the last block; all zero at first */
typedef struct FphDiscard {
    RAMBlock *rb;
    bool none;
    bool copies;                /* but not what is in the file */
} FphDiscard;

/*
 * Give memory of ordinary guest RAM back, whole pages of what is behind it; of a
 * private mapping not the file's, which others can have mapped while it has a
 * name.  Of other memory nothing.  @d is good as long as the BQL is held.
 *
 * Returns 0 or a negative errno.
 */
int fph_ram_discard(FphDiscard *d, RAMBlock *rb, uint64_t start, uint64_t len);

/*
 * Where these ranges are: an array of FphRamRange in their order.  What is not
 * writable RAM is left out: memory may be RAM to the guest and not to QEMU, or
 * not any more.  @unknown grows by how many pages of 4 KiB that are.  The BQL
 * keeps it all true.
 */
GArray *fph_ram_translate(const FphHintRange *ranges, size_t n,
                          uint64_t *unknown);

/* Pages of 4 KiB in all RAM blocks: no guest has more */
uint64_t fph_ram_pages(void);

/*
 * What a hinter tells fph-source, under the BQL.  Hints, and what ends them,
 * come between request() and stop() only; frames can be late at any time.
 */

/* True while fph-source has more hints than it wants to keep: wait */
bool fph_source_hints_full(void);

/*
 * These pages were free at some time since the request.  Returns how many of
 * them, in pages of 4 KiB, were dropped because they are no RAM.
 */
uint64_t fph_source_hint(FphHinter *h, const FphHintRange *ranges, size_t n);

/* The report is complete, or as complete as it gets (@frame->aborted) */
void fph_source_hint_end(FphHinter *h, const struct fph_hint_frame *frame);

/*
 * There will be no answer; @why is a static string (the guest reset the
 * device, the device is going away, a malformed frame)
 */
void fph_source_hint_failed(FphHinter *h, const char *why);

/* A frame came too late and was dropped */
void fph_source_hint_stale(FphHinter *h);

#endif

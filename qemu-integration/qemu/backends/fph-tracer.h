/*
 * fph-source: memory that the kernel saw being taken
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BACKENDS_FPH_TRACER_H
#define BACKENDS_FPH_TRACER_H

#include "qapi/qapi-types-fph.h"

typedef struct FphTracer FphTracer;

/*
 * The tracer, if one is loaded at @path.  Under the BQL, but for
 * fph_tracer_find() and fph_tracer_free(); what was retired finds all memory.
 */
FphTracer *fph_tracer_new(const char *path);
void fph_tracer_retire(FphTracer *ft);
void fph_tracer_free(FphTracer *ft);

/* A migration begins: is it still there? */
void fph_tracer_reset(FphTracer *ft);

/*
 * The first part of @host's @len bytes, at or behind @start, that has to be
 * scanned; @ft may be NULL.  Returns false if there is none.  From any thread
 */
bool fph_tracer_find(FphTracer *ft, void *host, uint64_t len, uint64_t *start,
                     uint64_t *end);

FphTracerInfo *fph_tracer_query(FphTracer *ft);

#endif

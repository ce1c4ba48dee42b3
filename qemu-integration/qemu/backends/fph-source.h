/*
 * fph-source: the course of a migration
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BACKENDS_FPH_SOURCE_H
#define BACKENDS_FPH_SOURCE_H

#include "fph-block.h"

typedef struct FphSource FphSource;

/*
 * What an fph-source object stands for.  @id is copied.  There can be one.
 * All of these are called under the BQL, and answer at once.
 */
FphSource *fph_source_new(const char *id, FphConfig *config, Error **errp);

/* The object goes; threads may take a while to end.  Not during a migration */
void fph_source_retire(FphSource *fs);

/* Is a migration under way? */
bool fph_source_is_busy(FphSource *fs);

FphInfo *fph_source_query(FphSource *fs);

/* The blocks of the migration under way, or of the last one */
GPtrArray *fph_source_get_blocks(FphSource *fs);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FPH_TEST_SWAP_H
#define FPH_TEST_SWAP_H

#include <stddef.h>

/*
 * Provide so much swap, if there is not as much already, until the process ends,
 * however it ends: the rest of the program runs in a child, the parent takes the swap
 * away. Call it before there are threads. Returns NULL, or why there is none.
 */
const char *swap_begin(size_t bytes);

#endif /* FPH_TEST_SWAP_H */

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Preloaded into QEMU: memory that one thread frees is what any thread gets that
 * asks for as much next. Each malloc() may do that, this one does it always.
 */
#include <malloc.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The C library's own */
void __libc_free(void *p);
void *__libc_calloc(size_t n, size_t size);

#define GRAIN	16
#define SIZES	128

/* What was freed last, by usable size; NULL: it is in use again */
static _Atomic(void *) freed[SIZES];

void free(void *p)
{
	size_t i = p ? malloc_usable_size(p) / GRAIN : SIZES;

	__libc_free(i < SIZES ? atomic_exchange(&freed[i], p) : p);
}

void *calloc(size_t n, size_t size)
{
	size_t bytes, i;
	void *p = NULL;

	if (__builtin_mul_overflow(n, size, &bytes))
		bytes = SIZE_MAX;
	/* Usable is a multiple of the grain, without the 8 bytes of the header */
	i = bytes < SIZES * GRAIN ? (bytes + sizeof(size_t) - 1) / GRAIN : SIZES;
	if (i < SIZES)
		p = atomic_exchange(&freed[i], NULL);
	return p ? memset(p, 0, bytes) : __libc_calloc(n, size);
}

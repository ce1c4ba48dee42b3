/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * firsttouch: what the firmware and its harness agree on.
 *
 * Everything is a little-endian 32-bit word. The firmware reads its settings
 * from the image (a harness may patch a copy of it) and publishes its state in
 * guest RAM. Shared with assembly, so only macros may be seen there.
 */
#ifndef FPH_FIRSTTOUCH_H
#define FPH_FIRSTTOUCH_H

/* The image is mapped below 4 GiB and again below 1 MiB. */
#define FT_IMAGE_SIZE		0x10000
#define FT_IMAGE_LOW		0xf0000

/* Settings, from byte 0 of the image. */
#define FT_SET_MAGIC		0	/* FT_MAGIC */
#define FT_SET_BASE		4	/* first byte that may be touched, 4 KiB aligned */
#define FT_SET_END		8	/* first byte that may not; 0: end of RAM below 4 GiB, from CMOS */
#define FT_SET_DELAY		12	/* TSC ticks per touch, below 2^31; 0: as fast as it goes */
#define FT_SET_ROUNDS		16	/* stop writing after this many rounds; 0: never */
#define FT_SET_HAMMER		20	/* word that counts touches too, in a page of its own; 0: none */

/* A copy of the image in guest RAM: the loop runs there, and heeds its settings from DELAY on. */
#define FT_RUN_ADDR		0x20000

/* State, in guest RAM. */
#define FT_STATE_ADDR		0x10000
#define FT_ST_MAGIC		0	/* FT_MAGIC once everything below is valid */
#define FT_ST_STATE		4	/* FT_TOUCHING, FT_REWRITING, FT_DONE */
#define FT_ST_COUNT		8	/* pages written so far; the last one has this sequence number */
#define FT_ST_PAGES		12	/* pages in one round */
#define FT_ST_BASE		16	/* as used */
#define FT_ST_ROUND		20	/* rounds completed */
#define FT_ST_POS		24	/* generator, after the last page */
#define FT_ST_MASK		28	/* generator modulus - 1 */
#define FT_ST_LATE		32	/* touches that came later than their time */

#define FT_TOUCHING		1
#define FT_REWRITING		2
#define FT_DONE			3

/* In each page touched: */
#define FT_PG_PAGE		0	/* page number, counted from base */
#define FT_PG_SEQ		4	/* sequence number of the write, from 1 */
#define FT_PG_NOTSEQ		8	/* its complement */
#define FT_PG_MAGIC		12	/* FT_PAGE_MAGIC */

#define FT_MAGIC		0x54485046	/* "FPHT" */
#define FT_PAGE_MAGIC		0x45474150	/* "PAGE" */

/*
 * Order of the pages: x = (x * FT_MUL + FT_ADD) & mask, from x = 0, where
 * mask + 1 is the smallest power of two not below the number of pages and
 * values that are no page are passed over. The period is full (mask + 1), so a
 * round visits each page once.
 */
#define FT_MUL			0x0019660d
#define FT_ADD			0x3c6ef35f

#ifndef __ASSEMBLER__
#include <stdint.h>

/* The generator's modulus - 1 for @pages pages, @pages > 0. */
static inline uint32_t ft_mask(uint32_t pages)
{
	uint32_t m = 1;

	while (m < pages)
		m <<= 1;
	return m - 1;
}

/* Next page number; @x is the generator's state, 0 at the start. */
static inline uint32_t ft_next(uint32_t *x, uint32_t pages, uint32_t mask)
{
	do
		*x = (*x * FT_MUL + FT_ADD) & mask;
	while (*x >= pages);
	return *x;
}
#endif
#endif

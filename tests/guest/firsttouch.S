/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * firsttouch: a firmware image that does nothing but write to fresh RAM pages,
 * at a steady rate and spread over all of RAM, and later to all of them again.
 *
 * Given to QEMU with -bios it starts at the reset vector, so no other firmware
 * and no device takes part. It stays in 32-bit mode without paging and without
 * interrupts. Settings, state and page layout: firsttouch.h.
 */
#include "firsttouch.h"

#define CODE_SEL	0x08
#define DATA_SEL	0x10
#define CMOS_HIGH_LO	0x34		/* RAM above 16 MiB in 64 KiB units, as PC firmware expects it */
#define CMOS_HIGH_HI	0x35

	.text
	.globl	_start
image:
	.long	FT_MAGIC
	.long	16 << 20	/* FT_SET_BASE */
	.long	0		/* FT_SET_END */
	.long	600000		/* FT_SET_DELAY: 3,800 pages a second at 2.3 GHz */
	.long	0		/* FT_SET_ROUNDS */
	.long	0		/* FT_SET_HAMMER */

	/* Real mode, through the image's copy below 1 MiB. */
	.org	0x100
	.code16
real:
	cli
	cld
	mov	%cs, %ax
	mov	%ax, %ds
	lgdtl	gdtr - image
	mov	%cr0, %eax
	or	$1, %al
	mov	%eax, %cr0
	ljmpl	$CODE_SEL, $(FT_IMAGE_LOW + flat - image)

	.balign	8
gdt:
	.quad	0
	.quad	0x00cf9b000000ffff	/* flat code, accessed bit set: the ROM cannot take it */
	.quad	0x00cf93000000ffff	/* flat data */
gdtr:
	.word	gdtr - gdt - 1
	.long	FT_IMAGE_LOW + gdt - image

	.code32
flat:
	mov	$DATA_SEL, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	%eax, %fs
	mov	%eax, %gs

	mov	$(FT_IMAGE_LOW), %esi
	mov	$FT_RUN_ADDR, %edi
	mov	$((image_end - image + 3) / 4), %ecx
	rep movsl
	mov	$(FT_RUN_ADDR + main - image), %eax
	jmp	*%eax

/* The data word @off of the image's copy in RAM. */
#define SETTING(off)	(FT_RUN_ADDR + (off))
#define STATE(off)	(FT_STATE_ADDR + (off))

main:
	/* End of RAM: asked for, or what CMOS says. */
	mov	SETTING(FT_SET_END), %edx
	test	%edx, %edx
	jnz	1f
	mov	$CMOS_HIGH_HI, %al
	out	%al, $0x70
	in	$0x71, %al
	movzbl	%al, %edx
	shl	$8, %edx
	mov	$CMOS_HIGH_LO, %al
	out	%al, $0x70
	in	$0x71, %al
	mov	%al, %dl
	shl	$16, %edx
	add	$(16 << 20), %edx
1:
	mov	SETTING(FT_SET_BASE), %ebp
	sub	%ebp, %edx
	jbe	stop
	shr	$12, %edx		/* edx: pages */
	jz	stop
	mov	$1, %eax
2:	cmp	%edx, %eax
	jae	3f
	shl	$1, %eax
	jmp	2b
3:	dec	%eax
	mov	%eax, %edi		/* edi: modulus - 1 */

	xor	%ebx, %ebx		/* ebx: generator */
	xor	%esi, %esi		/* esi: sequence number */
	mov	%edx, STATE(FT_ST_PAGES)
	mov	%ebp, STATE(FT_ST_BASE)
	mov	%edi, STATE(FT_ST_MASK)
	mov	%ebx, STATE(FT_ST_POS)
	mov	%esi, STATE(FT_ST_COUNT)
	mov	%esi, STATE(FT_ST_ROUND)
	mov	%esi, STATE(FT_ST_LATE)
	movl	$FT_TOUCHING, STATE(FT_ST_STATE)
	movl	$FT_MAGIC, STATE(FT_ST_MAGIC)

	mov	%edx, left - image + FT_RUN_ADDR
	rdtsc
	mov	%eax, due - image + FT_RUN_ADDR

touch:
	/* Next page of the round. */
	imul	$FT_MUL, %ebx, %ebx
	add	$FT_ADD, %ebx
	and	%edi, %ebx
	cmp	STATE(FT_ST_PAGES), %ebx
	jae	touch

	inc	%esi
	mov	%ebx, %ecx
	shl	$12, %ecx
	add	%ebp, %ecx
	mov	%esi, %eax
	not	%eax
	mov	%ebx, FT_PG_PAGE(%ecx)
	mov	%esi, FT_PG_SEQ(%ecx)
	mov	%eax, FT_PG_NOTSEQ(%ecx)
	movl	$FT_PAGE_MAGIC, FT_PG_MAGIC(%ecx)
	mov	%ebx, STATE(FT_ST_POS)
	mov	%esi, STATE(FT_ST_COUNT)
	mov	SETTING(FT_SET_HAMMER), %eax
	test	%eax, %eax
	jz	1f
	mov	%esi, (%eax)
1:
	decl	left - image + FT_RUN_ADDR
	jnz	pace
	mov	STATE(FT_ST_PAGES), %eax
	mov	%eax, left - image + FT_RUN_ADDR
	incl	STATE(FT_ST_ROUND)
	movl	$FT_REWRITING, STATE(FT_ST_STATE)
	mov	SETTING(FT_SET_ROUNDS), %eax
	test	%eax, %eax
	jz	pace
	cmp	%eax, STATE(FT_ST_ROUND)
	jae	stop

pace:
	/*
	 * Wait until a fixed time after the touch before, so that the rate does
	 * not depend on how fast the loop runs. Who is late starts anew instead
	 * of catching up with a burst.
	 */
	mov	SETTING(FT_SET_DELAY), %ecx
	test	%ecx, %ecx
	jz	touch
	add	%ecx, due - image + FT_RUN_ADDR
	rdtsc
	mov	%eax, %ecx
	sub	due - image + FT_RUN_ADDR, %ecx
	jns	late
1:	pause
	rdtsc
	sub	due - image + FT_RUN_ADDR, %eax
	js	1b
	jmp	touch
late:
	mov	%eax, due - image + FT_RUN_ADDR
	incl	STATE(FT_ST_LATE)
	jmp	touch

stop:
	movl	$FT_DONE, STATE(FT_ST_STATE)
1:	cli
	hlt
	jmp	1b

	.balign	4
due:	.long	0
left:	.long	0
image_end:

	/* Reset vector: the last 16 bytes below 4 GiB. */
	.org	FT_IMAGE_SIZE - 16
	.code16
_start:
	ljmpw	$(FT_IMAGE_LOW >> 4), $(real - image)
	.org	FT_IMAGE_SIZE

	.section .note.GNU-stack, "", @progbits

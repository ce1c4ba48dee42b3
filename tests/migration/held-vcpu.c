/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Preloaded into QEMU, which traces memory_notdirty_set_dirty: holds a vCPU of TCG
 * between its look whether a page is dirty and the note in its TLB that it is.
 * FPH_TEST_HELD names a file with a struct held: HOLD becomes HELD once the vCPU is
 * there, and it is let go by FREE.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "held-vcpu.h"

static struct held *shared;

static void __attribute__((constructor)) look(void)
{
	const char *name = getenv("FPH_TEST_HELD");
	int fd = name ? open(name, O_RDWR | O_CLOEXEC) : -1;
	void *p = fd < 0 ? MAP_FAILED :
		  mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (p == MAP_FAILED)
		abort();
	close(fd);
	shared = p;
}

/* Is that the event? It is printed nowhere: there are too many. */
static int held(const char *format, va_list args)
{
	va_list copy;
	uint64_t at;

	if (strncmp(format, "memory_notdirty_set_dirty ", strlen("memory_notdirty_set_dirty ")) != 0)
		return 0;
	va_copy(copy, args);
	at = va_arg(copy, uint64_t);
	va_end(copy);
	if (shared->state == HOLD && at / 4096 == shared->page / 4096) {
		shared->state = HELD;
		while (shared->state == HELD)
			usleep(1000);
	}
	return 1;
}

int __vfprintf_chk(FILE *f, int flag, const char *format, va_list args);

int __vfprintf_chk(FILE *f, int flag, const char *format, va_list args)
{
	int (*real)(FILE *, int, const char *, va_list) =
		(int (*)(FILE *, int, const char *, va_list))dlsym(RTLD_NEXT, "__vfprintf_chk");

	return held(format, args) ? 0 : real(f, flag, format, args);
}

int vfprintf(FILE *f, const char *format, va_list args)
{
	int (*real)(FILE *, const char *, va_list) =
		(int (*)(FILE *, const char *, va_list))dlsym(RTLD_NEXT, "vfprintf");

	return held(format, args) ? 0 : real(f, format, args);
}

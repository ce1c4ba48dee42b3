/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Preloaded into QEMU: a KVM without manual dirty log protection, as it was
 * before Linux 5.0. QEMU uses it if it is there, and has no switch for it.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

int ioctl(int fd, unsigned long request, ...)
{
	static int (*real)(int fd, unsigned long request, ...);
	void *argument;
	va_list ap;

	va_start(ap, request);
	argument = va_arg(ap, void *);
	va_end(ap);
	if (!real)
		real = (int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl");
	if (request == KVM_CHECK_EXTENSION &&
	    (unsigned long)argument == KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2) {
		const char *seen = getenv("FPH_TEST_SEEN");
		int file = open(seen ? seen : "", O_WRONLY | O_CLOEXEC);

		/* The test must know that QEMU asked us */
		if (file < 0 || write(file, "1", 1) != 1)
			abort();
		close(file);
		return 0;
	}
	/* Nobody may use what is not there */
	if (request == KVM_CLEAR_DIRTY_LOG)
		abort();
	return real(fd, request, argument);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A program of somebody else: lists the pages of a mapping that hold nothing. */
#include <fph/scan.h>
#include <fph/skip.h>

#include <stdio.h>
#include <sys/mman.h>

#define LEN (1 << 20)

static int print(void *opaque, uint64_t start, uint64_t len, enum fph_reason why)
{
	printf("%#llx %llu %s\n", (unsigned long long)start, (unsigned long long)len,
	       fph_reason_name(why));
	return 0;
}

int main(void)
{
	char *p = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct fph_region r = {
		.sz = sizeof(r), .host = p, .used = LEN, .max = LEN, .page_size = 4096, .fd = -1,
	};
	struct fph_scanner *s;
	struct fph_verdict v;
	int err = 0;

	if (p == MAP_FAILED || fph_scanner_open(&s) < 0)
		return 1;
	p[2 * 4096] = 1;
	if (fph_region_classify(s, &r, &v) < 0)
		return 1;
	printf("libfph %s: %s\n", fph_version(), fph_backing_name(v.backing));
	if (v.method == FPH_METHOD_NONE)
		printf("%s\n", v.why);
	else
		err = fph_scan_region(s, &r, v.method, 0, LEN, print, NULL, NULL);
	fph_scanner_close(s);
	return err < 0;
}

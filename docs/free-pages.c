/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Decode what a virtio-fph driver reports: frames on standard input, each behind its
 * length (32 bits, of the host's byte order), for a guest of PAGES pages. They answer
 * the first command that is given out, so their id is 1.
 * cc -o free-pages free-pages.c $(pkg-config --cflags --libs libfph)
 */
#include <errno.h>
#include <fph/hint.h>
#include <fph/virtio-fph.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int print(void *opaque, uint64_t start, uint64_t len, enum fph_reason why)
{
	(void)opaque;
	printf("0x%llx %llu %s\n", (unsigned long long)start, (unsigned long long)len,
	       fph_reason_name(why));
	return 0;
}

int main(int argc, char **argv)
{
	static unsigned char frame[sizeof(struct virtio_fph_report) + VIRTIO_FPH_PAYLOAD_MAX];
	struct fph_hint_frame info = { .sz = sizeof(info) };
	struct fph_hint *h;
	const char *why;
	uint32_t len;
	int err = 0;

	if (argc != 2 || fph_hint_new(&h, 0) < 0)
		return 2;
	/* A device would send the command, with this id */
	fph_hint_request(h, strtoull(argv[1], NULL, 10));
	while (!info.last && fread(&len, sizeof(len), 1, stdin) == 1) {
		if (len > sizeof(frame) || fread(frame, 1, len, stdin) != len)
			break;
		err = fph_hint_feed(h, frame, len, print, NULL, &info, &why);
		if (err == -ESTALE)		/* for an older command: not an error */
			continue;
		if (err < 0) {
			fprintf(stderr, "free-pages: %s\n", why ? why : strerror(-err));
			break;
		}
	}
	if (err == 0 && info.last)
		printf("%llu pages in all, as the guest says; its walk took %llu ns%s\n",
		       (unsigned long long)info.guest_pages, (unsigned long long)info.walk_ns,
		       info.aborted ? ", and did not see all" : "");
	fph_hint_free(h);
	return err < 0 || !info.last;
}

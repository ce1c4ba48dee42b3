/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target of the decoder of the balloon's frames. An input is the call to
 * the sink that fails (1 byte, 0: none), then a frame. What is emitted must be
 * what the runs say, all of it or, of a malformed frame, nothing.
 */
#include <endian.h>
#include <errno.h>
#include <string.h>

#include <fph/hint.h>
#include <fph/virtio-fph.h>

#include "fuzz.h"

#define PAGE	UINT64_C(4096)

static struct {
	uint64_t end;		/* in bytes, of the last range */
	uint64_t pages;
	size_t calls, fail_at;
} seen;

static int sink(void *opaque, uint64_t start, uint64_t len, enum fph_reason why)
{
	must(opaque == &seen && why == FPH_FREE);
	must(len && start % PAGE == 0 && len % PAGE == 0 && len <= UINT64_MAX - start);
	/* ascending, apart, and as long as can be */
	must(!seen.calls || start > seen.end);
	seen.end = start + len;
	seen.pages += len / PAGE;
	return ++seen.calls == seen.fail_at ? -ENOSPC : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *why = "not written";
	struct virtio_fph_balloon header;
	unsigned int op = 0;
	uint64_t pages = 0, sum = 0;
	size_t len;
	unsigned char *frame;
	int ret;

	if (!size)
		return 0;
	/* no byte to spare, so that a sanitizer sees a step beyond the end */
	len = size - 1;
	frame = malloc(len + !len);
	must(frame);
	memcpy(frame, data + 1, len);
	memset(&seen, 0, sizeof(seen));
	seen.fail_at = data[0];
	ret = fph_balloon_decode(frame, len, sink, &seen, &op, &pages, &why);

	must((ret == -EBADMSG) == (why != NULL));
	must((ret == -ENOSPC) == (seen.fail_at && seen.calls == seen.fail_at));
	if (ret == -EBADMSG) {
		must(!seen.calls && !op && !pages);
	} else {
		must(!ret || ret == -ENOSPC);
		memcpy(&header, frame, sizeof(header));
		for (uint32_t i = 0; i < le32toh(header.count); i++) {
			uint64_t run;

			memcpy(&run, frame + sizeof(header) + i * 8, sizeof(run));
			sum += VIRTIO_FPH_RUN_PAGES(le64toh(run));
		}
		must(len == sizeof(header) + le32toh(header.count) * 8);
		must(sum && sum <= VIRTIO_FPH_BALLOON_PAGES_MAX);
		must(ret || (seen.pages == sum && pages == sum && op == le16toh(header.op)));
		must(ret || op == VIRTIO_FPH_BALLOON_INFLATE || op == VIRTIO_FPH_BALLOON_DEFLATE);
	}
	free(frame);
	return 0;
}

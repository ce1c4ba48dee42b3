/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target of what is read from a command line: which VMM it is of, what the
 * guest is called, and the sizes of its memory. An input is a /proc/PID/cmdline.
 */
#include "fuzz-scan.h"
#include "machines.h"
#include "ram.h"

/* Two of them are large enough to be RAM without being named */
#define MAPS								\
	"10000000-11000000 rw-p 00000000 00:00 0 \n"			\
	"7f0000000000-7f0010000000 rw-p 00000000 00:00 0 \n"		\
	"7f0010000000-7f0010001000 rw-p 00000000 00:00 0 \n"		\
	"7f0020000000-7f0040000000 rw-s 00000000 00:01 7 /memfd:ram (deleted)\n"

static void check_words(const GStrv words, const char *text, size_t len)
{
	size_t at = 0;

	for (char **w = words; *w; w++) {
		must(at < len && strcmp(*w, text + at) == 0);
		at += strlen(*w) + 1;
	}
	must(at >= len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static GPtrArray *mappings;	/* kept, for speed */
	g_autofree char *text = fuzz_file(data, size), *name = NULL;
	g_auto(GStrv) words = target_parse_cmdline(text, size);
	struct target t = { .pid = 1, .dir = -1, .path = "", .comm = "", .cmdline = words };
	g_autoptr(GArray) areas = NULL;

	fuzz_be_strict();
	if (!mappings)
		mappings = fuzz_maps(MAPS);
	t.mappings = mappings;
	check_words(words, text, size);
	must(*machine_vmm(words));
	name = machine_guest_name(words);
	/* A part of a word */
	must(strlen(name) <= size);
	areas = ram_find(&t, NULL, NULL);
	must(areas && areas->len);
	must(ram_is_named(&t) || areas->len == 2);
	return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target of fph-report's results: a file in JSON, of ours or of QEMU's guestperf.
 * What is read, written, and read again stays the same, and can be shown in each form.
 */
#include "format.h"
#include "fuzz.h"
#include "result-json.h"

static struct result *parse(const char *text)
{
	GError *error = NULL;
	struct result *r = result_from_json(text, &error);

	/* One or the other, and words */
	must(!r == !!error);
	must(!error || *error->message);
	g_clear_error(&error);
	return r;
}

static void show(const struct result *r)
{
	const struct source s = { "a <file> & \"more\"", r };

	for (const struct format *f = formats; f->name; f++) {
		char *text = f->write(&s, 1);

		must(text && g_utf8_validate(text, -1, NULL));
		/* Words of the file are no tags */
		must(!g_str_equal(f->name, "html") || !strstr(text, "<file>"));
		g_free(text);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = g_strndup((const char *)data, size), *again;
	struct result *r = parse(text);

	g_free(text);
	if (!r)
		return 0;
	text = result_to_json(r);
	show(r);
	result_free(r);
	r = parse(text);
	must(r);
	again = result_to_json(r);
	must(g_str_equal(text, again));
	g_free(again);
	g_free(text);
	result_free(r);
	return 0;
}

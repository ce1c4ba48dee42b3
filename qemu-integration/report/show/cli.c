/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli.h"

#include <getopt.h>
#include <glib.h>
#include <stdarg.h>
#include <string.h>

int next_option(int argc, char **argv, const struct opt *opts, const char *command)
{
	struct option longopts[32] = { 0 };
	int n, index = -1, c;

	for (n = 0; opts[n].name; n++) {
		g_assert(n < (int)G_N_ELEMENTS(longopts) - 1);
		longopts[n].name = opts[n].name;
		longopts[n].has_arg = opts[n].arg ? required_argument : no_argument;
		longopts[n].val = 1;
	}
	opterr = 0;
	c = getopt_long(argc, argv, ":h", longopts, &index);
	switch (c) {
	case -1:
		return -1;
	case 1:
		return index;
	case 'h':
		for (n = 0; opts[n].name; n++)
			if (strcmp(opts[n].name, "help") == 0)
				return n;
		break;
	case ':':
		usage_error(command, "option '%s' needs an argument", argv[optind - 1]);
		return -2;
	}
	/* Of several letters in a word, the word is not done with */
	if (optopt > 1)
		usage_error(command, "unknown option '-%c'", optopt);
	else
		usage_error(command, "unknown option '%s'", argv[optind - 1]);
	return -2;
}

void print_options(FILE *f, const struct opt *opts)
{
	fputs("Options:\n", f);
	for (; opts->name; opts++) {
		g_autofree char *left = g_strdup_printf("--%s%s%s", opts->name,
							opts->arg ? " " : "",
							opts->arg ? opts->arg : "");

		fprintf(f, "  %-26s %s\n", left, opts->help);
	}
}

static void tell(const char *fmt, va_list ap)
{
	fputs("fph-report: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
}

int usage_error(const char *command, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	tell(fmt, ap);
	va_end(ap);
	fprintf(stderr, "Try 'fph-report%s%s --help'.\n", command ? " " : "",
		command ? command : "");
	return X_USAGE;
}

int fail(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	tell(fmt, ap);
	va_end(ap);
	return X_FAIL;
}

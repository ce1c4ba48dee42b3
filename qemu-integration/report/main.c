/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fph-report: what leaving out pages saves, measured. */
#include "commands.h"
#include "cli.h"
#include "io.h"

#include <errno.h>
#include <glib.h>
#include <signal.h>
#include <string.h>

static const struct {
	const char *name;
	int (*main)(int argc, char **argv);
	const char *help;
} commands[] = {
	{ "run", cmd_run, "measure migrations of test guests" },
	{ "compare", cmd_compare, "show results, and whether they got worse" },
	{ "attach", cmd_attach, "watch a migration that someone else starts" },
};

/* A table that did not reach its reader is no success. */
static int finish(int status)
{
	if (ferror(stdout) || fflush(stdout) != 0) {
		/* Whoever read it has seen enough, and knows */
		if (errno != EPIPE)
			fail("standard output: write error");
		return status == X_DONE ? X_FAIL : status;
	}
	return status;
}

static void usage(void)
{
	size_t i;

	fputs("Usage: fph-report COMMAND [OPTION...]\n"
	      "Measure what leaving out guest pages saves in a live migration.\n\n"
	      "Commands:\n", stdout);
	for (i = 0; i < G_N_ELEMENTS(commands); i++)
		printf("  %-10s %s\n", commands[i].name, commands[i].help);
	fputs("\nOptions:\n"
	      "  -h, --help     this text; 'fph-report COMMAND --help' for a command\n"
	      "  -V, --version  the version\n\n"
	      "Exit status: 0 done, 1 something failed, 2 wrong usage, 3 not supported here,\n"
	      "4 a figure is over a limit that was set.\n",
	      stdout);
}

int main(int argc, char **argv)
{
	int status;
	size_t i;

	signal(SIGPIPE, SIG_IGN);
	if (argc < 2)
		return usage_error(NULL, "which command? There are run, compare and attach");
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
		usage();
		return finish(X_DONE);
	}
	if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
		puts("fph-report " FPH_VERSION);
		return finish(X_DONE);
	}
	if (argv[1][0] == '-')
		return usage_error(NULL, "unknown option '%s'", argv[1]);
	for (i = 0; i < G_N_ELEMENTS(commands); i++)
		if (strcmp(argv[1], commands[i].name) == 0)
			break;
	if (i == G_N_ELEMENTS(commands))
		return usage_error(NULL, "unknown command '%s'; there are run, compare and attach", argv[1]);
	status = finish(commands[i].main(argc - 1, argv + 1));
	if (io_signal()) {
		/* Everything is cleaned up; let our parent see what ended us. */
		signal(io_signal(), SIG_DFL);
		raise(io_signal());
	}
	return status;
}

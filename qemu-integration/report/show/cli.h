/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The command line: options, exit statuses, and what is told of failures. */
#ifndef FPH_REPORT_CLI_H
#define FPH_REPORT_CLI_H

#include <stdbool.h>
#include <stdio.h>

enum { X_DONE, X_FAIL, X_USAGE, X_UNSUPPORTED, X_OVER };	/* exit statuses; unistd.h has an X_OK */

/* An option: drives getopt_long() and --help. */
struct opt {
	const char *name;
	const char *arg;	/* NULL: takes none */
	const char *help;
};

/**
 * next_option() - getopt_long() over @opts, which end with a NULL name
 * Return: index of the option, with optarg set; -1 at the end; -2 after
 * an error that has been told, hint included.
 */
int next_option(int argc, char **argv, const struct opt *opts, const char *command);

void print_options(FILE *f, const struct opt *opts);

/** usage_error() - tell it, and where help is. Return: X_USAGE. */
int usage_error(const char *command, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/** fail() - tell it. Return: X_FAIL. */
int fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif

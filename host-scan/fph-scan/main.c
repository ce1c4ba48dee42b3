/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fph-scan: what a migration of a running virtual machine would send. */
#include "text.h"
#include "view.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { X_DONE, X_FAIL, X_USAGE, X_UNSUPPORTED };	/* exit statuses */

#define ERASE	"\r\033[K"
#define NO_PID	G_MININT

static struct {
	gint pid;
	char *name;
	gboolean all;
	char **regions;
	gboolean content;
	char *scanner;
	gint cpu;
	char *bandwidth;
	gboolean json;
	gint watch;
	char *sysroot;
	char *record;
	gboolean anonymize;
	gboolean help, version;
} opt = { .watch = -1, .pid = NO_PID };

static const GOptionEntry entries[] = {
	{ "pid", 'p', 0, G_OPTION_ARG_INT, &opt.pid, "a process, in detail", "PID" },
	{ "name", 'n', 0, G_OPTION_ARG_FILENAME, &opt.name, "the virtual machine of that name, in detail", "NAME" },
	{ "all", 'a', 0, G_OPTION_ARG_NONE, &opt.all, "every virtual machine of the host, with a sum", NULL },
	{ "region", 'r', 0, G_OPTION_ARG_FILENAME_ARRAY, &opt.regions,
	  "all, NAME, 0xADDRESS or 0xSTART-0xEND; repeatable", "SELECT" },
	{ "content", 'c', 0, G_OPTION_ARG_NONE, &opt.content, "read pages in use: do they hold zeroes?", NULL },
	{ "scanner", 0, 0, G_OPTION_ARG_STRING, &opt.scanner, "auto, pagemap-scan, pagemap or off", "HOW" },
	{ "cpu", 0, 0, G_OPTION_ARG_INT, &opt.cpu, "take at most this share of one CPU", "PERCENT" },
	{ "bandwidth", 'b', 0, G_OPTION_ARG_STRING, &opt.bandwidth, "bits per second, such as 25g; default 10g", "RATE" },
	{ "json", 'j', 0, G_OPTION_ARG_NONE, &opt.json, "print JSON", NULL },
	{ "watch", 'w', 0, G_OPTION_ARG_INT, &opt.watch, "again and again, with a pause", "SEC" },
	{ "record", 0, 0, G_OPTION_ARG_FILENAME, &opt.record, "keep what was found in this folder", "DIR" },
	{ "anonymize", 0, 0, G_OPTION_ARG_NONE, &opt.anonymize, "with --record: no addresses and no names", NULL },
	{ "sysroot", 0, 0, G_OPTION_ARG_FILENAME, &opt.sysroot, "show what --record kept there", "DIR" },
	{ "help", 'h', 0, G_OPTION_ARG_NONE, &opt.help, "this text", NULL },
	{ "version", 'V', 0, G_OPTION_ARG_NONE, &opt.version, "the version", NULL },
	{ NULL },
};

static int fail(const char *message)
{
	g_autofree char *text = text_printable(message);

	fprintf(stderr, "fph-scan: %s\n", text);
	return X_FAIL;
}

/* What is not permitted or supported here is told from what went wrong */
static int fail_with(const GError *error)
{
	fail(error->message);
	return g_error_matches(error, G_IO_ERROR, G_IO_ERROR_PERMISSION_DENIED) ||
	       g_error_matches(error, G_IO_ERROR, G_IO_ERROR_NOT_SUPPORTED) ?
	       X_UNSUPPORTED : X_FAIL;
}

static int usage_error(const char *message)
{
	fail(message);
	fputs("Try 'fph-scan --help'.\n", stderr);
	return X_USAGE;
}

/* Bits per second; 0 if it is none */
static double parse_rate(const char *text)
{
	static const char suffixes[] = "kmgt";
	char *end;
	double n = g_ascii_strtod(text, &end);
	const char *s = *end ? strchr(suffixes, g_ascii_tolower(*end)) : NULL;

	if (end == text || !(n > 0) || (*end && (!s || end[1])))
		return 0;
	for (; s && s >= suffixes; s--)
		n *= 1000;
	return n <= 1e15 ? n : 0;
}

static bool parse_scanner(const char *text, enum fph_scanner_kind *ret)
{
	for (*ret = 0; *ret < FPH_SCANNER_MAX; (*ret)++)
		if (strcmp(text, fph_scanner_kind_name(*ret)) == 0)
			return true;
	return false;
}

/* From the second second on, on a terminal */
static gint64 progress_began;
static bool progress_shown;

static void show_progress(guint64 done, guint64 all)
{
	gint64 now = g_get_monotonic_time();

	if (now - progress_began < G_USEC_PER_SEC)
		return;
	progress_shown = true;
	fprintf(stderr, ERASE "[%4d s] %.0f%% of %.1f GiB",
		(int)((now - progress_began) / G_USEC_PER_SEC), done * 100.0 / all,
		all / 1073741824.0);
	fflush(stderr);
}

static void end_progress(void)
{
	if (progress_shown)
		fputs(ERASE, stderr);
	progress_shown = false;
}

/* A table that did not reach its reader is no success. */
static int print(const char *text)
{
	if (fputs(text, stdout) != EOF && fflush(stdout) == 0)
		return X_DONE;
	/* Whoever read it has seen enough, and knows */
	return errno == EPIPE ? X_FAIL : fail("standard output: write error");
}

static char *scan_process(const struct census_opts *opts, double bandwidth, GError **error)
{
	struct census *c;
	char *text = NULL;

	progress_began = g_get_monotonic_time();
	c = process_census(opt.sysroot, opt.pid, opt.regions, opts, error);
	end_progress();
	if (c)
		text = opt.json ? view_json(c, bandwidth, opt.watch < 0) : view_text(c, bandwidth);
	census_free(c);
	return text;
}

static char *scan_host(const struct census_opts *opts, double bandwidth, GError **error)
{
	struct host *h;
	char *text = NULL;

	progress_began = g_get_monotonic_time();
	h = host_look(opt.sysroot, opts);
	end_progress();
	if (!h->machines->len)
		g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND, opt.sysroot ?
			"there is no virtual machine in that record" :
			"no virtual machine runs here that this user can see; --pid PID names a process");
	else if (opt.json)
		text = view_host_json(h, bandwidth, opt.all, opt.watch < 0);
	else
		text = view_host_text(h, bandwidth, opt.all);
	host_free(h);
	return text;
}

static int scan(const struct census_opts *opts, double bandwidth)
{
	g_autoptr(GError) error = NULL;
	bool first = true;
	int status;

	for (;; first = false) {
		g_autofree char *text = opt.pid == NO_PID ? scan_host(opts, bandwidth, &error) :
							    scan_process(opts, bandwidth, &error);

		if (!text && !first && g_error_matches(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND)) {
			fail(error->message);
			return X_DONE;		/* it was watched to its end */
		}
		if (!text)
			return fail_with(error);
		if (!first && !opt.json)
			putchar('\n');
		status = print(text);
		if (status != X_DONE || opt.watch < 0)
			return status;
		g_usleep(opt.watch * (gulong)G_USEC_PER_SEC);
	}
}

static int check_options(struct census_opts *opts, double *bandwidth, GError **error)
{
	if (opt.pid <= 0 && opt.pid != NO_PID)
		return usage_error("--pid is the number of a process");
	if ((opt.pid != NO_PID) + (opt.name != NULL) + opt.all > 1)
		return usage_error("one of --pid, --name and --all, not several");
	if (opt.pid == NO_PID && !opt.name && (opt.regions || opt.record))
		return usage_error("--region and --record take a process: --pid or --name");
	for (char **r = opt.regions; r && *r; r++)
		if (!ram_check(*r, opt.sysroot ? LEAST_PAGE : (guint64)sysconf(_SC_PAGESIZE), error))
			return usage_error((*error)->message);
	if (opt.scanner && !parse_scanner(opt.scanner, &opts->scanner))
		return usage_error("--scanner is auto, pagemap-scan, pagemap or off");
	if (opt.cpu < 0 || opt.cpu > 100)
		return usage_error("--cpu is a percentage, 1 to 100");
	if (opt.watch < -1 || opt.watch > 86400)
		return usage_error("--watch is seconds, 0 to 86400");
	*bandwidth = parse_rate(opt.bandwidth ? opt.bandwidth : "10g");
	if (*bandwidth == 0)
		return usage_error("--bandwidth is bits per second, such as 25g or 2.5g");
	if (opt.sysroot && (opt.record || opt.watch >= 0 || opt.content || opt.scanner || opt.cpu))
		return usage_error("--sysroot shows what was recorded; there is nothing to scan");
	if (opt.anonymize && !opt.record)
		return usage_error("--anonymize is for --record");
	if (opt.record && opt.watch >= 0)
		return usage_error("--record keeps one scan, not those of --watch");
	if (opts->scanner == FPH_SCANNER_OFF && (opt.record || opt.content))
		return usage_error("--scanner off looks at no page");
	opts->content = opt.content;
	opts->cpu_percent = opt.cpu;
	opts->record = opt.record;
	opts->anonymize = opt.anonymize;
	return X_DONE;
}

static GOptionContext *make_context(void)
{
	GOptionContext *ctx = g_option_context_new(NULL);
	g_autofree char *columns = view_help();
	g_autofree char *text = g_strdup_printf(
		"%s\nExit status: 0 done, 1 it could not be scanned, 2 wrong usage, 3 not permitted\n"
		"or not supported here.", columns);

	/* Its own would not see whether anybody gets it */
	g_option_context_set_help_enabled(ctx, FALSE);
	g_option_context_add_main_entries(ctx, entries, NULL);
	g_option_context_set_summary(ctx, "Show what the pages of a running virtual machine are, and what a live\n"
				     "migration of it would send.");
	g_option_context_set_description(ctx, text);
	return ctx;
}

int main(int argc, char **argv)
{
	g_autoptr(GOptionContext) ctx = make_context();
	struct census_opts opts = { .scanner = FPH_SCANNER_AUTO };
	g_autoptr(GError) error = NULL;
	const char *term = g_getenv("TERM");
	double bandwidth = 0;
	int status;

	g_set_prgname("fph-scan");
	signal(SIGPIPE, SIG_IGN);
	if (!g_option_context_parse(ctx, &argc, &argv, &error))
		return usage_error(error->message);
	if (argc > 1) {
		g_autofree char *text = g_strdup_printf("what is '%s'? A process is --pid PID",
							argv[1]);

		return usage_error(text);
	}
	if (opt.help) {
		g_autofree char *text = g_option_context_get_help(ctx, TRUE, NULL);

		return print(text);
	}
	if (opt.version)
		return print("fph-scan " FPH_VERSION "\n");
	status = check_options(&opts, &bandwidth, &error);
	if (status != X_DONE)
		return status;
	if (isatty(STDERR_FILENO) && term && strcmp(term, "dumb") != 0)
		opts.progress = show_progress;
	if (opt.name) {
		opt.pid = machines_only(opt.sysroot, opt.name, &error);
		if (!opt.pid)
			return fail(error->message);
	}
	return scan(&opts, bandwidth);
}

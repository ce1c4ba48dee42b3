/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fph-report compare: shows what was measured, and says whether it got worse. */
#include "commands.h"
#include "cli.h"
#include "format.h"
#include "result-json.h"
#include "summary.h"
#include "view.h"
#include "write.h"

#include <getopt.h>
#include <string.h>

enum { O_FORMAT, O_OUTPUT, O_FAIL_OVER, O_HELP };

static const struct opt compare_opts[] = {
	[O_FORMAT] = { "format", "FORMAT", "how to show them [text]" },
	[O_OUTPUT] = { "output", "FILE", "write there instead of standard output" },
	[O_FAIL_OVER] = { "fail-over", "FIGURE=N%", "exit status 4 if it is more; may be repeated" },
	[O_HELP] = { "help", NULL, "this text" },
	{ NULL, NULL, NULL },
};

struct limit {
	const char *name;
	enum value what;
	double percent;
};

static const struct {
	const char *name;
	enum value what;
} short_names[] = {
	{ "time", V_TOTAL_MS }, { "downtime", V_DOWNTIME_MS }, { "setup", V_SETUP_MS },
};

static bool find_value(const char *name, enum value *ret)
{
	size_t i;

	for (i = 0; i < G_N_ELEMENTS(short_names); i++) {
		if (strcmp(short_names[i].name, name) == 0) {
			*ret = short_names[i].what;
			return true;
		}
	}
	for (i = 0; i < V_COUNT; i++) {
		if (strcmp(value_descs[i].path, name) == 0) {
			*ret = i;
			return true;
		}
	}
	return false;
}

/* "time=110%" */
static bool parse_limit(const char *text, struct limit *ret)
{
	const char *equals = strchr(text, '=');
	g_autofree char *name = equals ? g_strndup(text, equals - text) : NULL;
	char *end;

	if (!name || !find_value(name, &ret->what) || !g_ascii_isdigit(equals[1]))
		return false;
	ret->name = text;
	ret->percent = g_ascii_strtod(equals + 1, &end);
	return strcmp(end, "%") == 0 && ret->percent > 0;
}

/* Whether @s, of the file @name, is above a limit, or cannot be compared with @base. */
static bool is_over(const char *name, const struct summary *s, const struct summary *base,
		    const struct limit *l)
{
	double now, before;

	if (!s || !s->v[l->what].n) {
		fail("%s: %s %s: %s: no figure", name, (s ? s : base)->scenario,
		     (s ? s : base)->mode, l->name);
		return true;
	}
	if (!base || !base->v[l->what].n) {
		fail("%s: %s %s: %s: nothing to compare with", name, s->scenario, s->mode, l->name);
		return true;
	}
	now = s->v[l->what].median;
	before = base->v[l->what].median;
	if (now * 100 <= before * l->percent)
		return false;
	fail("%s: %s %s: %s: %.15g is more than that of %.15g", name, s->scenario, s->mode,
	     l->name, now, before);
	return true;
}

/* What fails has no figures: the slowest runs may be missing. */
static bool has_failed(const char *name, const struct summary *s, guint64 allowed)
{
	if (s->failed <= allowed)
		return false;
	fail("%s: %s %s: %" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT " runs failed", name,
	     s->scenario, s->mode, s->failed, s->failed + s->n);
	return true;
}

static bool same_guest(const struct run *a, const struct run *b)
{
	return a->memory == b->memory && a->guests == b->guests && g_strcmp0(a->ram, b->ram) == 0;
}

/* One file: all modes with mode none. */
static bool over_none(const struct source *file, const struct limit *l)
{
	g_autoptr(GPtrArray) all = result_summary(file->result);
	guint i, compared = 0;
	bool over = false;

	for (i = 0; i < all->len; i++) {
		const struct summary *s = all->pdata[i];

		if (strcmp(s->mode, "none") == 0)
			continue;
		over |= has_failed(file->name, s, 0);
		over |= is_over(file->name, s, summary_find(all, s->scenario, "none"), l);
		compared++;
	}
	if (!compared)
		fail("%s: %s: nothing to compare", file->name, l->name);
	return over || !compared;
}

/* Several: what the first has with the same of each other. */
static bool over_first(const struct source *first, const struct source *file,
		       const struct limit *l)
{
	g_autoptr(GPtrArray) before = result_summary(first->result);
	g_autoptr(GPtrArray) now = result_summary(file->result);
	bool over = before->len == 0;
	guint i;

	for (i = 0; i < before->len; i++) {
		const struct summary *base = before->pdata[i];
		const struct summary *s = summary_find(now, base->scenario, base->mode);

		over |= is_over(file->name, s, base, l);
		if (!s)
			continue;
		over |= has_failed(file->name, s, base->failed);
		if (same_guest(s->first, base->first))
			continue;
		fail("%s: %s: another guest than that of %s", file->name, s->scenario, first->name);
		over = true;
	}
	return over;
}

/* And in the same way: two channels are not one that got better. */
static bool same_machine(const struct machine *a, const struct machine *b)
{
	return g_strcmp0(a->cpu, b->cpu) == 0 && a->cores == b->cores &&
	       a->memory_kib >> 20 == b->memory_kib >> 20 && a->multifd == b->multifd &&
	       a->cold == b->cold && g_strcmp0(a->link, b->link) == 0 &&
	       g_strcmp0(a->tracer, b->tracer) == 0 &&
	       (!a->accel || !b->accel || strcmp(a->accel, b->accel) == 0);
}

static int check_limits(const struct source *sources, guint n, const GArray *limits)
{
	bool over = false;
	guint i, k;

	if (limits->len)
		for (i = 1; i < n; i++)
			if (!same_machine(&sources[0].result->machine, &sources[i].result->machine))
				return fail("%s and %s were measured on different machines, or "
					    "with another --multifd, --link, --accel, --trace or --cold",
					    sources[0].name, sources[i].name);
	for (k = 0; k < limits->len; k++) {
		const struct limit *l = &g_array_index(limits, struct limit, k);

		if (n == 1)
			over |= over_none(&sources[0], l);
		for (i = 1; i < n; i++)
			over |= over_first(&sources[0], &sources[i], l);
	}
	return over ? X_OVER : X_DONE;
}

static const struct format *find_format(const char *name)
{
	const struct format *f;

	for (f = formats; f->name; f++)
		if (strcmp(f->name, name) == 0)
			return f;
	return NULL;
}

static void help(void)
{
	g_autofree char *columns = view_help();
	const struct format *f;

	fputs("Usage: fph-report compare [OPTION...] FILE...\n"
	      "Show what 'fph-report run --json FILE' measured.\n\n", stdout);
	print_options(stdout, compare_opts);
	fputs("\nFormats:\n", stdout);
	for (f = formats; f->name; f++)
		printf("  %-26s %s\n", f->name, f->help);
	fputs("\nA FIGURE is time, downtime, setup or one of 'fph-report run --help'. Of one\n"
	      "FILE, each mode is compared with mode none; of several, each with the first.\n\n",
	      stdout);
	fputs(columns, stdout);
}

static void clear_source(gpointer data)
{
	result_free((struct result *)((struct source *)data)->result);
}

static int show(const struct format *format, const char *output, const GArray *sources)
{
	g_autofree char *text = format->write((const struct source *)sources->data, sources->len);
	g_autoptr(GError) error = NULL;

	if (!output)
		fputs(text, stdout);
	else if (!write_whole(output, text, &error))
		return fail("%s", error->message);
	return X_DONE;
}

static int compare(const struct format *format, const char *output, const GArray *limits,
		   char **files, int n)
{
	g_autoptr(GArray) sources = g_array_new(FALSE, FALSE, sizeof(struct source));
	int i, status = X_DONE;

	g_array_set_clear_func(sources, clear_source);
	for (i = 0; i < n; i++) {
		g_autoptr(GError) error = NULL;
		struct source s = { files[i], result_load(files[i], &error) };

		if (s.result)
			g_array_append_val(sources, s);
		else
			status = fail("%s", error->message);
	}
	if (!sources->len)
		return status;
	if (show(format, output, sources) != X_DONE)
		status = X_FAIL;
	/* With a file missing, they would be compared with something else. */
	if (status != X_DONE)
		return status;
	return check_limits((const struct source *)sources->data, sources->len, limits);
}

int cmd_compare(int argc, char **argv)
{
	g_autoptr(GArray) limits = g_array_new(FALSE, FALSE, sizeof(struct limit));
	const struct format *format = formats;
	const char *output = NULL;
	struct limit limit;
	int o;

	while ((o = next_option(argc, argv, compare_opts, "compare")) != -1) {
		switch (o) {
		case O_FORMAT:
			format = find_format(optarg);
			if (!format)
				return usage_error("compare", "unknown format '%s'", optarg);
			break;
		case O_OUTPUT:
			output = optarg;
			break;
		case O_FAIL_OVER:
			if (!parse_limit(optarg, &limit))
				return usage_error("compare", "--fail-over takes a figure and a "
						   "part in percent, as in time=110%%, not '%s'",
						   optarg);
			g_array_append_val(limits, limit);
			break;
		case O_HELP:
			help();
			return X_DONE;
		default:
			return X_USAGE;
		}
	}
	if (optind == argc)
		return usage_error("compare", "which FILE?");
	return compare(format, output, limits, argv + optind, argc - optind);
}

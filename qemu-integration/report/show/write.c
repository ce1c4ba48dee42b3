/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "write.h"
#include "cli.h"
#include "format.h"
#include "result-json.h"

#include <errno.h>
#include <gio/gio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_stdout(const char *path)
{
	return g_strcmp0(path, "-") == 0;
}

static bool writable(const char *path, GError **error)
{
	g_autofree char *dir = NULL;

	if (!path)
		return true;
	dir = g_path_get_dirname(path);
	if (g_file_test(path, G_FILE_TEST_IS_DIR))
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "%s: is a directory", path);
	else if (access(dir, W_OK | X_OK) < 0)
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "%s: cannot be written: %s",
			    path, g_strerror(errno));
	else
		return true;
	return false;
}

bool outputs_writable(const struct outputs *o, GError **error)
{
	return (is_stdout(o->json) || writable(o->json, error)) && writable(o->text, error) &&
	       writable(o->html, error) && writable(o->metrics, error);
}

/* A pipe, a device, what somebody else may read */
static bool write_into(const char *path, const char *content, GError **error)
{
	FILE *f = fopen(path, "w");
	bool done = f && fputs(content, f) >= 0;

	done = (!f || fclose(f) == 0) && done;
	if (!done)
		g_set_error(error, G_IO_ERROR, g_io_error_from_errno(errno),
			    "%s: cannot be written: %s", path, g_strerror(errno));
	return done;
}

/* By way of a temporary file, FILE.XXXXXX, which takes the place of a file, and of none else */
bool write_whole(const char *path, const char *content, GError **error)
{
	g_autofree char *file = realpath(path, NULL);
	struct stat st;

	if (lstat(path, &st) == 0 && (!file || stat(file, &st) < 0 || !S_ISREG(st.st_mode)))
		return write_into(path, content, error);
	return g_file_set_contents(file ? file : path, content, -1, error);
}

static bool save(const char *path, const char *content)
{
	g_autoptr(GError) error = NULL;

	if (write_whole(path, content, &error))
		return true;
	fail("%s", error->message);
	return false;
}

void outputs_save(const struct outputs *o, const struct result *r)
{
	g_autofree char *json = NULL;

	if (!o->json || is_stdout(o->json))
		return;
	json = result_to_json(r);
	save(o->json, json);
}

static bool write_file(const char *path, const char *content, const char *name, FILE *tell)
{
	if (!path)
		return true;
	if (!save(path, content))
		return false;
	fprintf(tell, "%s: %s\n", name, path);
	return true;
}

int write_results(const struct outputs *o, const struct result *r)
{
	const char *json_file = is_stdout(o->json) ? NULL : o->json;
	const struct source source = { json_file ? json_file : "this run", r };
	FILE *tell = is_stdout(o->json) ? stderr : stdout;
	g_autofree char *json = result_to_json(r);
	g_autofree char *text = format_text(&source, 1);
	g_autofree char *html = o->html ? format_html(&source, 1) : NULL;
	bool ok;

	if (is_stdout(o->json))
		fputs(json, stdout);
	fputs(text, tell);
	if (o->text || o->html || json_file)
		fputc('\n', tell);
	ok = write_file(o->text, text, "Text", tell);
	ok &= write_file(o->html, html, "HTML", tell);
	ok &= write_file(json_file, json, "JSON", tell);
	return ok ? X_DONE : X_FAIL;
}

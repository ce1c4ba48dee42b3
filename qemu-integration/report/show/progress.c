/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "progress.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define ERASE	"\r\033[K"

static GMutex lock;
static GCond changed;
static GThread *clock_thread;	/* only on a terminal */
static bool ending;		/* under lock, like all below */
static bool on_tty;
static char *step;
static gint64 began, step_began;
static gint64 end_expected;	/* 0: unknown */

static int seconds(gint64 since)
{
	return (g_get_monotonic_time() - since) / G_USEC_PER_SEC;
}

/* ", 3 min left", or nothing. */
static char *left(void)
{
	gint64 s = (end_expected - g_get_monotonic_time()) / G_USEC_PER_SEC;

	if (!end_expected || s <= 0)
		return g_strdup("");
	return s < 90 ? g_strdup_printf(", %" G_GINT64_FORMAT " s left", s) :
			g_strdup_printf(", %" G_GINT64_FORMAT " min left", (s + 30) / 60);
}

static void draw(void)
{
	g_autofree char *still = left();
	struct winsize ws = { 0 };
	g_autofree char *line = NULL;
	int columns;

	if (!step)
		return;
	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &ws) < 0 || ws.ws_col < 20)
		ws.ws_col = 80;
	columns = ws.ws_col - 1;
	line = g_strdup_printf("[%4d s%s] %s, %d s", seconds(began), still, step,
			       seconds(step_began));
	if (g_utf8_validate(line, -1, NULL) && g_utf8_strlen(line, -1) > columns)
		*g_utf8_offset_to_pointer(line, columns) = '\0';
	fprintf(stderr, ERASE "%s", line);
	fflush(stderr);
}

static gpointer tick(gpointer unused)
{
	g_mutex_lock(&lock);
	while (!ending) {
		draw();
		g_cond_wait_until(&changed, &lock, g_get_monotonic_time() + G_USEC_PER_SEC);
	}
	g_mutex_unlock(&lock);
	return NULL;
}

void progress_begin(void)
{
	const char *term = g_getenv("TERM");

	began = g_get_monotonic_time();
	on_tty = isatty(STDERR_FILENO) && term && strcmp(term, "dumb") != 0;
	if (on_tty)
		clock_thread = g_thread_new("progress", tick, NULL);
}

void progress_left(gint64 s)
{
	g_mutex_lock(&lock);
	end_expected = s > 0 ? g_get_monotonic_time() + s * G_USEC_PER_SEC : 0;
	g_mutex_unlock(&lock);
}

void progress_step(const char *fmt, ...)
{
	g_autofree char *still = NULL;
	va_list ap;

	g_mutex_lock(&lock);
	still = left();
	va_start(ap, fmt);
	g_free(step);
	step = g_strdup_vprintf(fmt, ap);
	va_end(ap);
	step_began = g_get_monotonic_time();
	if (on_tty)
		draw();
	else
		fprintf(stderr, "[%4d s%s] %s\n", seconds(began), still, step);
	g_mutex_unlock(&lock);
}

void progress_note(const char *fmt, ...)
{
	g_autofree char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	text = g_strdup_vprintf(fmt, ap);
	va_end(ap);
	g_mutex_lock(&lock);
	fprintf(stderr, "%s[%4d s] %s\n", on_tty ? ERASE : "", seconds(began), text);
	if (on_tty)
		draw();
	g_mutex_unlock(&lock);
}

void progress_end(void)
{
	g_mutex_lock(&lock);
	ending = true;
	g_cond_signal(&changed);
	g_mutex_unlock(&lock);
	if (clock_thread)
		g_thread_join(clock_thread);
	clock_thread = NULL;
	if (on_tty)
		fputs(ERASE, stderr);
	g_clear_pointer(&step, g_free);
}

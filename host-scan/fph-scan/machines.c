/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "machines.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "target.h"

static void machine_free(gpointer p)
{
	struct machine *m = p;

	g_free(m->program);
	g_free(m->name);
	g_free(m);
}

static GStrv read_cmdline(const char *proc, const char *pid)
{
	g_autofree char *path = g_build_filename(proc, pid, "cmdline", NULL);
	g_autofree char *text = NULL;
	gsize len = 0;

	if (!g_file_get_contents(path, &text, &len, NULL) || !len)
		return NULL;
	return target_split_cmdline(text, len);
}

/* Whatever it is called: the kernel's virtual machine is open in it */
static bool has_kvm(const char *proc, const char *pid)
{
	g_autofree char *path = g_build_filename(proc, pid, "fd", NULL);
	g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
	const char *fd;
	bool found = false;

	while (dir && !found && (fd = g_dir_read_name(dir))) {
		g_autofree char *link = g_build_filename(path, fd, NULL);
		g_autofree char *to = g_file_read_link(link, NULL);

		found = g_strcmp0(to, "anon_inode:kvm-vm") == 0;
	}
	return found;
}

/*
 * By its name, or by options that only QEMU has. Programs that start others have
 * these, too, but behind a word that is none.
 */
static bool is_qemu(const GStrv cmdline)
{
	static const char *const names[] = { "qemu-system", "qemu-kvm", "kvm" };
	static const char *const options[] = { "-machine", "-M", "-accel", "-nodefaults", "-incoming" };
	g_autofree char *base = g_path_get_basename(cmdline[0]);
	guint n = 0;

	for (guint i = 0; i < G_N_ELEMENTS(names); i++)
		if (g_str_has_prefix(base, names[i]))
			return true;
	for (guint i = 0; cmdline[1] && *cmdline[1] == '-' && i < G_N_ELEMENTS(options); i++)
		n += g_strv_contains((const char *const *)cmdline + 1, options[i]);
	return n >= 2;
}

/* "-name vm1,process=web" or "-name guest=vm1,debug-threads=on" */
static char *guest_name(const GStrv cmdline)
{
	for (char **w = cmdline + 1; w[-1] && *w; w++) {
		g_auto(GStrv) options = NULL;

		if (!w[1] || (strcmp(*w, "-name") != 0 && strcmp(*w, "--name") != 0))
			continue;
		options = g_strsplit(w[1], ",", -1);
		for (char **o = options; *o; o++)
			if (g_str_has_prefix(*o, "guest="))
				return g_strdup(*o + strlen("guest="));
		return g_strdup(*options && !strchr(*options, '=') ? *options : "");
	}
	return g_strdup("");
}

static guint64 resident(const char *proc, const char *pid)
{
	g_autofree char *path = g_build_filename(proc, pid, "statm", NULL);
	g_autofree char *text = NULL;
	guint64 pages;

	if (!g_file_get_contents(path, &text, NULL, NULL) ||
	    sscanf(text, "%*u %" G_GINT64_MODIFIER "u", &pages) != 1)
		return UNKNOWN;
	return pages * sysconf(_SC_PAGESIZE);
}

static gint by_pid(gconstpointer a, gconstpointer b)
{
	const struct machine *x = *(struct machine *const *)a, *y = *(struct machine *const *)b;

	return x->pid < y->pid ? -1 : x->pid > y->pid;
}

GPtrArray *machines_find(const char *sysroot)
{
	GPtrArray *all = g_ptr_array_new_with_free_func(machine_free);
	g_autofree char *proc = g_strconcat(sysroot ? sysroot : "", "/proc", NULL);
	g_autoptr(GDir) dir = g_dir_open(proc, 0, NULL);
	const char *pid;

	while (dir && (pid = g_dir_read_name(dir))) {
		g_auto(GStrv) cmdline = NULL;
		struct machine *m;

		if (!g_ascii_isdigit(*pid))
			continue;
		cmdline = read_cmdline(proc, pid);
		if (!cmdline || (!sysroot && !is_qemu(cmdline) && !has_kvm(proc, pid)))
			continue;
		m = g_new0(struct machine, 1);
		m->pid = g_ascii_strtoll(pid, NULL, 10);
		m->program = g_strdup(cmdline[0]);
		m->name = guest_name(cmdline);
		m->rss = sysroot ? UNKNOWN : resident(proc, pid);
		g_ptr_array_add(all, m);
	}
	g_ptr_array_sort(all, by_pid);
	return all;
}

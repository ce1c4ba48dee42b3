/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "machines.h"

#include <errno.h>
#include <string.h>

#include "ram.h"

static const struct vmm {
	const char *name;
	const char *program;	/* prefix of its name */
	const char *option;	/* that has the guest's name */
} vmms[] = {
	{ "qemu", "qemu-system-", NULL },
	{ "qemu", "qemu-kvm", NULL },
	{ "cloud-hypervisor", "cloud-hypervisor", NULL },
	{ "crosvm", "crosvm", "--name" },
	{ "firecracker", "firecracker", "--id" },
};

static void machine_free(gpointer p)
{
	struct machine *m = p;

	g_free(m->program);
	g_free(m->name);
	g_free(m);
}

/* NixOS wraps programs: /nix/store/.../.qemu-system-x86_64-wrapped */
static const struct vmm *vmm_of_program(const char *path)
{
	g_autofree char *base = g_path_get_basename(path);
	const char *name = base + (*base == '.');

	for (guint i = 0; i < G_N_ELEMENTS(vmms); i++)
		if (g_str_has_prefix(name, vmms[i].program))
			return &vmms[i];
	/* Proxmox and others have QEMU as kvm, but there is kvm_stat, too */
	return strcmp(name, "kvm") == 0 || strcmp(name, "kvm-wrapped") == 0 ||
	       strcmp(name, "qemu") == 0 ? vmms : NULL;
}

/*
 * By options that QEMU has. Programs that start others have these, too: behind a
 * word that is none, or without the memory that the options name.
 */
static bool has_options_of_qemu(const GStrv cmdline)
{
	static const char *const options[] = {
		"-machine", "-M", "-accel", "-nodefaults", "-incoming", "-name", "-smp",
	};
	guint n = 0;

	if (!cmdline[1] || *cmdline[1] != '-')
		return false;
	for (guint i = 0; i < G_N_ELEMENTS(options); i++)
		n += g_strv_contains((const char *const *)cmdline + 1, options[i]);
	/* Others have modules and the like behind it */
	for (char **w = cmdline + 1; w[1]; w++)
		n += strcmp(*w, "-m") == 0 && (g_ascii_isdigit(*w[1]) || strstr(w[1], "size="));
	return n >= 2;
}

/* By its program or, if that is not known, by its options; NULL if neither tells */
static const struct vmm *vmm_of_cmdline(const GStrv cmdline)
{
	const struct vmm *vmm = *cmdline ? vmm_of_program(cmdline[0]) : NULL;

	return vmm || !*cmdline || !has_options_of_qemu(cmdline) ? vmm : vmms;
}

const char *machine_vmm(const GStrv cmdline)
{
	const struct vmm *vmm = vmm_of_cmdline(cmdline);

	return vmm ? vmm->name : "unknown";
}

/* The first of QEMU's options at @arg, where ",," is a comma; returns where the next one is */
static const char *next_option(const char *arg, GString *ret)
{
	g_string_truncate(ret, 0);
	while (*arg && (*arg != ',' || *++arg == ','))
		g_string_append_c(ret, *arg++);
	return arg;
}

/* "vm1,process=web" or "debug-threads=on,guest=vm1"; @ret as it is if it says nothing */
static void read_name(const char *arg, GString *ret)
{
	g_autoptr(GString) option = g_string_new(NULL);
	const char *next;

	for (next = arg; *next;) {
		bool first = next == arg;

		next = next_option(next, option);
		if (g_str_has_prefix(option->str, "guest="))
			g_string_assign(ret, option->str + strlen("guest="));
		else if (first && !strchr(option->str, '='))
			g_string_assign(ret, option->str);
	}
}

/* QEMU takes several -name together */
static char *name_of_qemu(const GStrv cmdline)
{
	GString *name = g_string_new(NULL);

	for (char **w = cmdline + 1; w[-1] && *w && w[1]; w++)
		if (strcmp(*w, "-name") == 0 || strcmp(*w, "--name") == 0)
			read_name(w[1], name);
	return g_string_free(name, FALSE);
}

/* "--id vm1" or "--id=vm1" */
static char *name_by_option(const GStrv cmdline, const char *option)
{
	gsize len = strlen(option);

	for (char **w = cmdline; *w; w++) {
		if (!g_str_has_prefix(*w, option))
			continue;
		if ((*w)[len] == '=')
			return g_strdup(*w + len + 1);
		if (!(*w)[len] && w[1])
			return g_strdup(w[1]);
	}
	return g_strdup("");
}

char *machine_guest_name(const GStrv cmdline)
{
	const struct vmm *vmm = vmm_of_cmdline(cmdline);

	if (vmm && strcmp(vmm->name, "qemu") == 0)
		return name_of_qemu(cmdline);
	return vmm && vmm->option ? name_by_option(cmdline, vmm->option) : g_strdup("");
}

/* Bytes of what looks like guest RAM; with @named, of what the command line names */
static guint64 ram_size(const struct target *t, bool named)
{
	g_autoptr(GArray) areas = NULL;
	guint64 sum = 0;

	if (named && !ram_is_named(t))
		return 0;
	areas = ram_find(t, NULL, NULL);
	for (guint i = 0; areas && i < areas->len; i++) {
		const struct area *a = &g_array_index(areas, struct area, i);

		sum += a->end - a->start;
	}
	return sum;
}

/* NULL if it is none, or has ended */
static struct machine *look_at(const char *sysroot, gint pid)
{
	g_auto(GStrv) cmdline = target_cmdline(sysroot, pid);
	const struct vmm *vmm;
	struct machine *m;
	struct target *t;
	bool by_options;
	int kvm;

	if (!cmdline || !*cmdline)
		return NULL;
	kvm = target_has_descriptor(sysroot, pid, "anon_inode:kvm-vm");
	vmm = vmm_of_cmdline(cmdline);
	by_options = vmm && !vmm_of_program(cmdline[0]);
	/* Only QEMU does without KVM */
	if (kvm == 0 && (!vmm || strcmp(vmm->name, "qemu") != 0))
		return NULL;
	if (kvm < 0 && !sysroot && (kvm != -EACCES || !vmm))
		return NULL;
	m = g_new0(struct machine, 1);
	m->pid = pid;
	m->kvm = kvm > 0;
	m->vmm = vmm ? vmm->name : m->kvm ? "kvm" : "unknown";
	m->program = g_strdup(cmdline[0]);
	m->name = machine_guest_name(cmdline);
	m->ram = UNKNOWN;
	t = target_open(sysroot, pid, false, NULL);
	if (t)
		m->ram = ram_size(t, by_options && !m->kvm);
	target_free(t);
	if (kvm >= 0 && (m->ram == UNKNOWN || !m->ram))
		g_clear_pointer(&m, machine_free);
	return m;
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
	const char *name;

	while (dir && (name = g_dir_read_name(dir))) {
		struct machine *m;

		if (!g_ascii_isdigit(*name))
			continue;
		m = look_at(sysroot, g_ascii_strtoll(name, NULL, 10));
		if (m)
			g_ptr_array_add(all, m);
	}
	g_ptr_array_sort(all, by_pid);
	return all;
}

gint machines_only(const char *sysroot, const char *name, GError **error)
{
	g_autoptr(GPtrArray) all = machines_find(sysroot);
	gint pid = 0;
	guint n = 0;

	for (guint i = 0; i < all->len; i++) {
		const struct machine *m = all->pdata[i];

		if (name && strcmp(m->name, name) != 0)
			continue;
		pid = m->pid;
		n++;
	}
	if (n == 1)
		return pid;
	if (n)
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
			    "%u virtual machines%s%s run here; --pid names one", n,
			    name ? " named " : "", name ? name : "");
	else
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
			    "no virtual machine%s%s runs here that this user can see; --pid names a process",
			    name ? " named " : "", name ? name : "");
	return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "machine.h"
#include "io.h"

#include <gio/gio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <unistd.h>

/* Value of the first line of @path that starts with @key and a colon. */
static char *proc_field(const char *path, const char *key)
{
	g_autofree char *text = NULL;
	g_auto(GStrv) lines = NULL;
	char **l;

	if (!g_file_get_contents(path, &text, NULL, NULL))
		return NULL;
	lines = g_strsplit(text, "\n", -1);
	for (l = lines; *l; l++) {
		const char *colon = strchr(*l, ':');

		if (colon && g_str_has_prefix(*l, key))
			return g_strstrip(g_strdup(colon + 1));
	}
	return NULL;
}

/* "always [madvise] never": the word in brackets. */
static char *chosen(const char *path)
{
	g_autofree char *text = NULL;
	const char *open, *close;

	if (!g_file_get_contents(path, &text, NULL, NULL))
		return NULL;
	open = strchr(text, '[');
	close = open ? strchr(open, ']') : NULL;
	return close ? g_strndup(open + 1, close - open - 1) : NULL;
}

static guint64 meminfo_kib(const char *key)
{
	g_autofree char *s = proc_field("/proc/meminfo", key);

	return s ? g_ascii_strtoull(s, NULL, 10) : 0;
}

guint64 machine_available_kib(void)
{
	return meminfo_kib("MemAvailable");
}

void machine_describe(struct machine *m)
{
	struct utsname u;

	m->cpu = proc_field("/proc/cpuinfo", "model name");
	if (uname(&u) == 0)
		m->kernel = g_strdup(u.release);
	if (g_file_get_contents("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
				&m->governor, NULL, NULL))
		g_strchomp(m->governor);
	m->thp = chosen("/sys/kernel/mm/transparent_hugepage/enabled");
	m->thp_shmem = chosen("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
	m->cores = MAX(sysconf(_SC_NPROCESSORS_ONLN), 0);
	m->memory_kib = meminfo_kib("MemTotal");
}

bool machine_has_kvm(void)
{
	g_autofree char *flags = proc_field("/proc/cpuinfo", "flags");
	g_auto(GStrv) words = g_strsplit(flags ? flags : "", " ", -1);

	/* Without, as inside a virtual machine, it may be there and too slow to boot Linux. */
	return access("/dev/kvm", R_OK | W_OK) == 0 &&
	       (g_strv_contains((const char *const *)words, "vmx") ||
		g_strv_contains((const char *const *)words, "svm"));
}

guint64 machine_warm(guint64 bytes)
{
	guint64 most = machine_available_kib() * 768;
	size_t len = MIN(bytes, most);
	void *p;

	if (!len)
		return 0;
	p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		 -1, 0);
	if (p == MAP_FAILED)
		return 0;
	madvise(p, len, MADV_HUGEPAGE);
	for (size_t at = 0; at < len && !io_signal(); at += 4096)
		((volatile char *)p)[at] = 1;
	munmap(p, len);
	return len;
}

char *file_digest(const char *path, GError **error)
{
	g_autoptr(GMappedFile) file = g_mapped_file_new(path, FALSE, error);
	g_autofree char *sum = NULL;

	if (!file)
		return NULL;
	sum = g_compute_checksum_for_data(G_CHECKSUM_SHA256,
					  (const guchar *)g_mapped_file_get_contents(file),
					  g_mapped_file_get_length(file));
	return g_strndup(sum, 16);
}

static char *output_of(const char *path, const char *const *args, GError **error)
{
	g_autoptr(GPtrArray) argv = g_ptr_array_new();
	g_autofree char *out = NULL;
	GError *err = NULL;

	g_ptr_array_add(argv, (gpointer)path);
	for (; *args; args++)
		g_ptr_array_add(argv, (gpointer)*args);
	g_ptr_array_add(argv, NULL);
	if (!g_spawn_sync(NULL, (char **)argv->pdata, NULL, G_SPAWN_STDERR_TO_DEV_NULL, NULL, NULL,
			  &out, NULL, NULL, &err)) {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "%s", err->message);
		g_error_free(err);
		return NULL;
	}
	return g_steal_pointer(&out);
}

char *qemu_version(const char *path, GError **error)
{
	static const char *const args[] = { "--version", NULL };
	static const char before[] = "QEMU emulator version ";
	g_autofree char *out = output_of(path, args, error);

	if (!out)
		return NULL;
	if (!g_str_has_prefix(out, before)) {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "%s: is no QEMU", path);
		return NULL;
	}
	/* Up to the package's version in parentheses, or the copyright line. */
	return g_strndup(out + strlen(before), strcspn(out + strlen(before), " \n"));
}

bool qemu_has(const char *path, const char *option, const char *what)
{
	const char *const args[] = { option, "help", NULL };
	g_autofree char *out = output_of(path, args, NULL);

	return out && strstr(out, what);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Loading, pinning and removing the tracer: the same layout as by bpftool */
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "fph-trace.h"
#include "fph_tracer.skel.h"
/* What it hangs on is there on no other machine */
#ifdef __x86_64__
#define HAVE_TP true
#include "fph_tracer_tp.skel.h"
#else
#define HAVE_TP false
#endif

static const struct object {
	const char *name;
	const void *(*bytes)(size_t *size);
} objects[] = {
	{ "complete", fph_tracer__elf_bytes },
#ifdef __x86_64__
	{ "tp", fph_tracer_tp__elf_bytes },
#endif
};

/* A tracer of our own, that nobody else sees: gone when this process is */
static struct {
	struct bpf_object *obj;
	const char *name;
	struct bpf_link *links[16];
	size_t nlinks;
} own;

static bool tell_all;

static int print(enum libbpf_print_level level, const char *fmt, va_list ap)
{
	return tell_all ? vfprintf(stderr, fmt, ap) : 0;
}

static bool join(char file[PATH_MAX], const char *path, const char *name)
{
	return snprintf(file, PATH_MAX, "%s/%s", path, name) < PATH_MAX;
}

static bool is_bpffs(const char *path)
{
	struct statfs fs;

	return statfs(path, &fs) == 0 && fs.f_type == BPF_FS_MAGIC;
}

bool trace_loaded(const char *path)
{
	char file[PATH_MAX];

	return join(file, path, "maps/fph_touched") && access(file, F_OK) == 0;
}

int trace_map(const char *path, const char *name)
{
	char file[PATH_MAX];
	int fd;

	if (!path) {
		fd = fcntl(bpf_object__find_map_fd_by_name(own.obj, name), F_DUPFD_CLOEXEC, 0);
		return fd < 0 ? -errno : fd;
	}
	if (snprintf(file, sizeof(file), "%s/maps/%s", path, name) >= (int)sizeof(file))
		return -ENAMETOOLONG;
	fd = bpf_obj_get(file);
	return fd < 0 ? -errno : fd;
}

const char *trace_object(const char *path)
{
	char file[PATH_MAX];

	if (!path)
		return own.name;
	return join(file, path, "fph_zap") && access(file, F_OK) == 0 ? "complete" : "tp";
}

int trace_open(struct fph_tracer **ret, const char *path, pid_t pid, const char **why)
{
	struct fph_tracer_maps maps = { .sz = sizeof(maps) };

	if (path)
		return fph_tracer_open(ret, path, pid, why);
	maps.targets = bpf_object__find_map_fd_by_name(own.obj, "fph_targets");
	maps.touched = bpf_object__find_map_fd_by_name(own.obj, "fph_touched");
	maps.counts = bpf_object__find_map_fd_by_name(own.obj, "fph_counts");
	return fph_tracer_open_maps(ret, &maps, pid, why);
}

/* All names of our own: what else lies there is not ours. Negative errno of the last that failed. */
static int for_each_pin(const char *path, int (*fn)(const char *file, void *opaque), void *opaque)
{
	struct dirent *e;
	char file[PATH_MAX];
	int ret = 0, err;
	DIR *dir;

	dir = opendir(path);
	if (!dir)
		return -errno;
	while ((e = readdir(dir))) {
		if (strncmp(e->d_name, "fph_", 4) != 0)
			continue;
		err = join(file, path, e->d_name) ? fn(file, opaque) : -ENAMETOOLONG;
		if (err)
			ret = err;
	}
	closedir(dir);
	return ret;
}

static int remove_pin(const char *file, void *opaque)
{
	return unlink(file) < 0 ? -errno : 0;
}

static int remove_pins(const char *path)
{
	int err = for_each_pin(path, remove_pin, NULL);

	if (rmdir(path) < 0 && !err)
		err = -errno;
	return err;
}

int trace_unload(const char *path)
{
	char maps[PATH_MAX];
	int err;

	if (!join(maps, path, "maps"))
		return -ENAMETOOLONG;
	err = remove_pins(maps);
	return err && err != -ENOENT ? err : remove_pins(path);
}

/*
 * At once, and not from one key to the next: where a process ends meanwhile, and its
 * counts go, that begins anew, and tells others twice.
 */
int trace_counts(int fd, pid_t pid, trace_counts_fn fn, void *opaque)
{
	struct bpf_map_info info = { 0 };
	__u32 len = sizeof(info), n, cursor;
	struct fph_counts_key *keys = NULL;
	struct fph_counts *counts = NULL;
	int err = -ENOMEM;

	if (bpf_obj_get_info_by_fd(fd, &info, &len) < 0)
		return -errno;
	n = info.max_entries;
	keys = calloc(n, sizeof(*keys));
	counts = calloc(n, sizeof(*counts));
	if (keys && counts) {
		err = bpf_map_lookup_batch(fd, NULL, &cursor, keys, counts, &n, NULL);
		/* It ends with ENOENT when it has all */
		if (err)
			err = errno == ENOENT ? 0 : -errno;
		for (__u32 i = 0; !err && i < n; i++) {
			if (keys[i].tgid == (__u32)pid)
				fn(opaque, keys[i].comm, &counts[i]);
		}
	}
	free(keys);
	free(counts);
	return err;
}

void trace_drops(int fd, uint64_t drops[FPH_NDROPS])
{
	for (__u32 i = 0; i < FPH_NDROPS; i++) {
		if (bpf_map_lookup_elem(fd, &i, &drops[i]) < 0)
			drops[i] = 0;
	}
}

static int add_program(int fd, struct trace_cost *ret)
{
	struct bpf_prog_info prog = { 0 };
	__u32 len = sizeof(prog);

	if (bpf_obj_get_info_by_fd(fd, &prog, &len) < 0)
		return -errno;
	ret->ns += prog.run_time_ns;
	ret->runs += prog.run_cnt;
	ret->missed += prog.recursion_misses;
	return 0;
}

/* What lies there with a program's name is its link */
static int add_cost(const char *file, void *opaque)
{
	struct bpf_link_info link = { 0 };
	__u32 len = sizeof(link);
	int fd, err = 0;

	fd = bpf_obj_get(file);
	if (fd < 0)
		return -errno;
	if (bpf_obj_get_info_by_fd(fd, &link, &len) < 0)
		err = -errno;
	close(fd);
	if (err)
		return err;
	fd = bpf_prog_get_fd_by_id(link.prog_id);
	if (fd < 0)
		return -errno;
	err = add_program(fd, opaque);
	close(fd);
	return err;
}

int trace_cost(const char *path, struct trace_cost *ret)
{
	struct bpf_program *prog;
	int err = 0;

	*ret = (struct trace_cost){ 0 };
	if (path)
		return for_each_pin(path, add_cost, ret);
	bpf_object__for_each_program(prog, own.obj) {
		if (!err)
			err = add_program(bpf_program__fd(prog), ret);
	}
	return err;
}

static int pin(struct bpf_object *obj, const char *path)
{
	struct bpf_program *prog;
	char file[PATH_MAX];
	int err;

	if (!join(file, path, "maps"))
		return -ENAMETOOLONG;
	err = bpf_object__pin_maps(obj, file);
	if (err < 0)
		return err;
	bpf_object__for_each_program(prog, obj) {
		struct bpf_link *link = bpf_program__attach(prog);

		if (!link)
			return -errno;
		err = join(file, path, bpf_program__name(prog)) ?
		      bpf_link__pin(link, file) : -ENAMETOOLONG;
		bpf_link__destroy(link);	/* the pinned one stays */
		if (err < 0)
			return err;
	}
	return 0;
}

static int attach(struct bpf_object *obj)
{
	struct bpf_program *prog;

	bpf_object__for_each_program(prog, obj) {
		struct bpf_link *link = bpf_program__attach(prog);

		if (!link)
			return -errno;
		if (own.nlinks == sizeof(own.links) / sizeof(own.links[0])) {
			bpf_link__destroy(link);
			return -E2BIG;
		}
		own.links[own.nlinks++] = link;
	}
	return 0;
}

static void detach(void)
{
	while (own.nlinks)
		bpf_link__destroy(own.links[--own.nlinks]);
}

static int pin_at(struct bpf_object *obj, const char *path)
{
	int err;

	/* Of two that load at once, one makes the folder; the other leaves it alone */
	if (mkdir(path, 0700) < 0)
		return -errno;
	err = pin(obj, path);
	if (err)
		trace_unload(path);
	return err;
}

/* Does the kernel have that function? False also if it has no types of its own */
static bool has_function(const char *name)
{
	struct btf *btf = btf__load_vmlinux_btf();
	bool found = btf && btf__find_by_name_kind(btf, name, BTF_KIND_FUNC) > 0;

	btf__free(btf);
	return found;
}

/* On newer kernels (7.3) unmap_page_range() is called __zap_vma_range(), and is the same */
static void choose_hooks(struct bpf_object *obj)
{
	struct bpf_program *zap = bpf_object__find_program_by_name(obj, "fph_zap");

	if (zap && !has_function("unmap_page_range") && has_function("__zap_vma_range"))
		bpf_program__set_attach_target(zap, 0, "__zap_vma_range");
}

/* @path: NULL for one of our own */
static int load_object(const struct object *object, const char *path, uint64_t words)
{
	LIBBPF_OPTS(bpf_object_open_opts, opts, .object_name = object->name);
	struct bpf_object *obj;
	struct bpf_map *map;
	const void *bytes;
	size_t size;
	int err;

	bytes = object->bytes(&size);
	obj = bpf_object__open_mem(bytes, size, &opts);
	if (!obj)
		return -errno;
	map = bpf_object__find_map_by_name(obj, "fph_touched");
	err = !map ? -ENOENT : words ? bpf_map__set_max_entries(map, words) : 0;
	if (!err) {
		choose_hooks(obj);
		err = bpf_object__load(obj);
	}
	if (!err)
		err = path ? pin_at(obj, path) : attach(obj);
	if (!err && !path) {
		own.obj = obj;
		own.name = object->name;
		return 0;
	}
	detach();
	bpf_object__close(obj);
	return err;
}

static bool has_capability(unsigned int cap)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { 0 };

	return syscall(SYS_capget, &head, data) == 0 && data[cap / 32].effective >> cap % 32 & 1;
}

/* Why no object can be loaded, by what they need; NULL if that is not known */
static const char *why_refused(void)
{
	if (!has_capability(CAP_SYS_ADMIN) &&
	    !(has_capability(CAP_BPF) && has_capability(CAP_PERFMON)))
		return "it takes CAP_BPF and CAP_PERFMON";
	if (!has_function("schedule"))
		return "this kernel has no types of its own (CONFIG_DEBUG_INFO_BTF)";
	if (libbpf_probe_bpf_helper(BPF_PROG_TYPE_TRACEPOINT, BPF_FUNC_loop, NULL) == 0)
		return "this kernel has no bpf_loop(): it is older than Linux 5.17";
	if (libbpf_probe_bpf_helper(BPF_PROG_TYPE_TRACEPOINT, BPF_FUNC_probe_read_kernel,
				    NULL) == 0)
		return "BPF programs must not read the kernel's memory: it is locked down (lockdown=confidentiality)";
	return NULL;
}

static int load_any(const char *path, const char *object, uint64_t words, bool verbose)
{
	const char *why;
	int err = -ENODEV;

	libbpf_set_print(print);
	tell_all = verbose;
	for (size_t i = 0; i < sizeof(objects) / sizeof(objects[0]); i++) {
		if (object && strcmp(object, objects[i].name) != 0)
			continue;
		err = load_object(&objects[i], path, words);
		if (!err)
			return 0;
		if (err == -EEXIST) {
			complain("%s is there already", path);
			return err;
		}
		if (verbose)
			complain("the %s tracer cannot be loaded: %s", objects[i].name,
				 strerror(-err));
	}
	tell_all = false;
	why = err == -ENODEV ? "page faults are tracepoints on x86 only" : why_refused();
	if (!why && object && strcmp(object, "complete") == 0 && err != -ENOMEM)
		why = HAVE_TP ? "this kernel refuses its hooks (fentry), but may take those of --object tp" :
				"this kernel refuses its hooks (fentry)";
	complain("no %s%scan be loaded: %s%s", object ? object : "", object ? " tracer " : "tracer ",
		 why ? why : strerror(-err),
		 why || verbose ? "" : "; 'fph-trace --load --verbose' tells more");
	return why ? -EOPNOTSUPP : err;
}

int trace_load(const char *path, const char *object, uint64_t words, bool verbose)
{
	char parent[PATH_MAX];

	if (trace_loaded(path)) {
		complain("a tracer is loaded at %s already", path);
		return -EEXIST;
	}
	snprintf(parent, sizeof(parent), "%s", path);
	*strrchr(parent, '/') = '\0';
	if (!is_bpffs(parent)) {
		complain("%s is not in a bpffs; try: mount -t bpf bpf /sys/fs/bpf", path);
		return -ENOENT;
	}
	return load_any(path, object, words, verbose);
}

int trace_load_own(const char *object, uint64_t words, bool verbose)
{
	return load_any(NULL, object, words, verbose);
}

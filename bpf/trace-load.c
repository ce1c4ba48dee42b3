/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Loading, pinning and removing the tracer: the same layout as by bpftool */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "fph-trace.h"
#include "fph_tracer.skel.h"
#include "fph_tracer_tp.skel.h"

static const struct object {
	const char *name;
	const void *(*bytes)(size_t *size);
} objects[] = {
	{ "complete", fph_tracer__elf_bytes },
	{ "tp", fph_tracer_tp__elf_bytes },
};

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

	if (snprintf(file, sizeof(file), "%s/maps/%s", path, name) >= (int)sizeof(file))
		return -ENAMETOOLONG;
	fd = bpf_obj_get(file);
	return fd < 0 ? -errno : fd;
}

const char *trace_object(const char *path)
{
	char file[PATH_MAX];

	return join(file, path, "fph_zap") && access(file, F_OK) == 0 ? "complete" : "tp";
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

void trace_counts(int fd, pid_t pid, trace_counts_fn fn, void *opaque)
{
	struct fph_counts_key key, *prev = NULL;
	struct fph_counts c;

	while (bpf_map_get_next_key(fd, prev, &key) == 0) {
		prev = &key;
		if (key.tgid == (__u32)pid && bpf_map_lookup_elem(fd, &key, &c) == 0)
			fn(opaque, key.comm, &c);
	}
}

void trace_drops(int fd, uint64_t drops[FPH_NDROPS])
{
	for (__u32 i = 0; i < FPH_NDROPS; i++) {
		if (bpf_map_lookup_elem(fd, &i, &drops[i]) < 0)
			drops[i] = 0;
	}
}

/* What lies there with a program's name is its link */
static int add_cost(const char *file, void *opaque)
{
	struct trace_cost *ret = opaque;
	struct bpf_link_info link = { 0 };
	struct bpf_prog_info prog = { 0 };
	__u32 link_len = sizeof(link), prog_len = sizeof(prog);
	int fd, err = 0;

	fd = bpf_obj_get(file);
	if (fd < 0)
		return -errno;
	if (bpf_link_get_info_by_fd(fd, &link, &link_len) < 0)
		err = -errno;
	close(fd);
	if (err)
		return err;
	fd = bpf_prog_get_fd_by_id(link.prog_id);
	if (fd < 0)
		return -errno;
	if (bpf_prog_get_info_by_fd(fd, &prog, &prog_len) < 0)
		err = -errno;
	close(fd);
	ret->ns += prog.run_time_ns;
	ret->runs += prog.run_cnt;
	ret->missed += prog.recursion_misses;
	return err;
}

int trace_cost(const char *path, struct trace_cost *ret)
{
	*ret = (struct trace_cost){ 0 };
	return for_each_pin(path, add_cost, ret);
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
	if (!err)
		err = bpf_object__load(obj);
	/* Of two that load at once, one makes the folder; the other leaves it alone */
	if (!err && mkdir(path, 0700) < 0) {
		err = -errno;
	} else if (!err) {
		err = pin(obj, path);
		if (err)
			trace_unload(path);
	}
	bpf_object__close(obj);
	return err;
}

int trace_load(const char *path, const char *object, uint64_t words, bool verbose)
{
	char parent[PATH_MAX];
	int err = -EINVAL;

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
		if (object || verbose)
			complain("the %s tracer cannot be loaded: %s", objects[i].name,
				 strerror(-err));
	}
	if (!object)
		complain("no tracer can be loaded: %s%s", strerror(-err),
			 verbose ? "" : "; 'fph-trace --load --verbose' tells more");
	return err;
}

int trace_load_private(const char *mnt, const char *path, const char *object,
		       uint64_t words, bool verbose)
{
	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("bpf", mnt, "bpf", 0, "mode=0700") < 0) {
		int err = -errno;

		complain("no bpffs of our own at %s: %s", mnt, strerror(errno));
		return err;
	}
	return trace_load(path, object, words, verbose);
}

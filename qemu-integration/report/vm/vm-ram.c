/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vm.h"
#include "io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PIECE	(1u << 20)
#define PAGE	4096u

static void block_free(gpointer data)
{
	struct vm_block *b = data;

	g_free(b->name);
	g_free(b);
}

/*
 * "                  pc.ram    4 KiB  0x... 0x... 0x... 0x...  rw": offset,
 * used, total, host address. The name may hold spaces, so from the right.
 */
static struct vm_block *parse_block(const char *line)
{
	g_auto(GStrv) words = g_strsplit_set(line, " \r", -1);
	unsigned long long number[4];
	struct vm_block *b;
	const char *ro = NULL, *hex[4] = { NULL };
	g_autofree char *name = NULL;
	int i, have = 0, n = g_strv_length(words);
	char *end, *first;

	for (i = n - 1; i >= 0 && have < 4; i--) {
		if (!*words[i])
			continue;
		if (!ro)
			ro = words[i];
		else
			hex[3 - have++] = words[i];
	}
	if (have < 4 || (strcmp(ro, "ro") != 0 && strcmp(ro, "rw") != 0))
		return NULL;
	for (i = 0; i < 4; i++) {
		number[i] = g_ascii_strtoull(hex[i], &end, 16);
		if (strncmp(hex[i], "0x", 2) != 0 || *end)
			return NULL;
	}
	/* What is left is name and page size: "NAME    4 KiB". */
	first = strstr(line, hex[0]);
	name = g_strstrip(g_strndup(line, first - line));
	for (i = 0; i < 2; i++) {
		end = strrchr(name, ' ');
		if (!end)
			return NULL;
		*end = '\0';
		g_strchomp(name);
	}
	b = g_new0(struct vm_block, 1);
	b->name = g_steal_pointer(&name);
	b->used = number[1];
	b->hva = number[3];
	b->readonly = strcmp(ro, "ro") == 0;
	return b;
}

GPtrArray *vm_ram_blocks(struct vm *vm, GError **error)
{
	g_autoptr(GPtrArray) ret = g_ptr_array_new_with_free_func(block_free);
	g_autofree char *text = vm_hmp(vm, error, "info ramblock");
	g_auto(GStrv) lines = NULL;
	char **l;

	if (!text)
		return NULL;
	lines = g_strsplit(text, "\n", -1);
	for (l = lines; *l; l++) {
		struct vm_block *b = parse_block(*l);

		if (b)
			g_ptr_array_add(ret, b);
		else if (l != lines && *g_strstrip(*l)) {
			g_set_error(error, VM_ERROR, VM_ERROR_MEMORY,
				    "%s: a line of 'info ramblock' not understood: %s",
				    vm_name(vm), *l);
			return NULL;
		}
	}
	if (ret->len == 0) {
		g_set_error(error, VM_ERROR, VM_ERROR_MEMORY, "%s: no RAM blocks", vm_name(vm));
		return NULL;
	}
	return g_steal_pointer(&ret);
}

static int open_mem(struct vm *vm, GError **error)
{
	g_autofree char *path = g_strdup_printf("/proc/%d/mem", vm_pid(vm));
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		g_set_error(error, VM_ERROR, VM_ERROR_MEMORY, "%s: %s", path, g_strerror(errno));
	return fd;
}

int vm_ram_open_shared(struct vm *vm, const struct vm_block *b, guint64 *offset)
{
	g_autofree char *path = g_strdup_printf("/proc/%d/maps", vm_pid(vm));
	g_autofree char *text = NULL;
	g_auto(GStrv) lines = NULL;

	if (!g_file_get_contents(path, &text, NULL, NULL))
		return -1;
	lines = g_strsplit(text, "\n", -1);
	for (char **l = lines; *l; l++) {
		g_autofree char *file = NULL;
		guint64 start, end, at;
		char perms[5];

		if (sscanf(*l, "%" G_GINT64_MODIFIER "x-%" G_GINT64_MODIFIER "x %4s %"
			   G_GINT64_MODIFIER "x", &start, &end, perms, &at) != 4 ||
		    b->hva < start || b->hva >= end)
			continue;
		if (perms[3] != 's')
			return -1;
		*offset = at + (b->hva - start);
		file = g_strdup_printf("/proc/%d/map_files/%" G_GINT64_MODIFIER "x-%"
				       G_GINT64_MODIFIER "x", vm_pid(vm), start, end);
		return open(file, O_RDONLY | O_CLOEXEC);
	}
	return -1;
}

static bool read_mem(struct vm *vm, int fd, guint64 at, void *buf, size_t len, GError **error)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pread(fd, (char *)buf + done, len - done, at + done);

		if (n > 0) {
			done += n;
			continue;
		}
		if (n < 0 && errno == EINTR)
			continue;
		g_set_error(error, VM_ERROR, VM_ERROR_MEMORY, "%s: memory at 0x%" G_GINT64_MODIFIER
			    "x: %s", vm_name(vm), at + done,
			    n < 0 ? g_strerror(errno) : "QEMU has ended");
		return false;
	}
	return true;
}

bool vm_ram_read(struct vm *vm, guint64 hva, void *buf, size_t len, GError **error)
{
	int fd = open_mem(vm, error);
	bool ok;

	if (fd < 0)
		return false;
	ok = read_mem(vm, fd, hva, buf, len, error);
	close(fd);
	return ok;
}

static struct vm_block *find_block(GPtrArray *blocks, const char *name)
{
	guint i;

	for (i = 0; i < blocks->len; i++) {
		struct vm_block *b = blocks->pdata[i];

		if (strcmp(b->name, name) == 0)
			return b;
	}
	return NULL;
}

static bool same_blocks(struct vm *a, struct vm *b, GPtrArray *in_a, GPtrArray *in_b,
			GError **error)
{
	guint i;

	for (i = 0; i < in_a->len; i++) {
		struct vm_block *x = in_a->pdata[i];
		struct vm_block *y = find_block(in_b, x->name);

		if (!y) {
			g_set_error(error, VM_ERROR, VM_ERROR_MEMORY,
				    "RAM block '%s' of the %s is missing in the %s",
				    x->name, vm_name(a), vm_name(b));
			return false;
		}
		if (x->used != y->used) {
			g_set_error(error, VM_ERROR, VM_ERROR_MEMORY,
				    "RAM block '%s' has %" G_GUINT64_FORMAT " bytes in the %s, %"
				    G_GUINT64_FORMAT " in the %s", x->name, x->used, vm_name(a),
				    y->used, vm_name(b));
			return false;
		}
	}
	return true;
}

struct side {
	struct vm *vm;
	int mem;		/* all of its memory */
	guint8 *buf;

	int fd;			/* what a block is read from, */
	guint64 offset;		/* from there on */
};

struct compare {
	struct side a, b;
	vm_diff_fn fn;
	void *opaque;
};

static void open_block(struct side *s, const struct vm_block *b)
{
	s->fd = vm_ram_open_shared(s->vm, b, &s->offset);
	if (s->fd < 0) {
		s->fd = s->mem;
		s->offset = b->hva;
	}
}

static void close_block(struct side *s)
{
	if (s->fd != s->mem)
		close(s->fd);
}

static bool compare_pieces(struct compare *c, struct vm_block *x, GError **error)
{
	struct side *a = &c->a, *b = &c->b;
	guint64 at;

	for (at = 0; at < x->used; at += PIECE) {
		size_t len = MIN(PIECE, x->used - at);
		size_t i;

		/* Nothing to wait for, but an interruption still ends it. */
		if (io_wait(-1, 0, 0, error) < 0)
			return false;
		if (!read_mem(a->vm, a->fd, a->offset + at, a->buf, len, error) ||
		    !read_mem(b->vm, b->fd, b->offset + at, b->buf, len, error))
			return false;
		x->pages += (len + PAGE - 1) / PAGE;
		if (memcmp(a->buf, b->buf, len) == 0)
			continue;
		for (i = 0; i < len; i += PAGE) {
			if (memcmp(a->buf + i, b->buf + i, MIN(PAGE, len - i)) == 0)
				continue;
			x->differing++;
			if (c->fn)
				c->fn(c->opaque, x, at + i, a->buf + i, b->buf + i);
		}
	}
	return true;
}

static bool compare_block(struct compare *c, struct vm_block *x, const struct vm_block *y,
			  GError **error)
{
	bool done;

	open_block(&c->a, x);
	open_block(&c->b, y);
	done = compare_pieces(c, x, error);
	close_block(&c->a);
	close_block(&c->b);
	return done;
}

gint64 vm_ram_compare(struct vm *a, struct vm *b, vm_diff_fn fn, void *opaque,
		      GPtrArray **blocks, GError **error)
{
	struct compare c = {
		.a = { .vm = a, .mem = -1 }, .b = { .vm = b, .mem = -1 },
		.fn = fn, .opaque = opaque,
	};
	g_autoptr(GPtrArray) in_a = vm_ram_blocks(a, error);
	g_autoptr(GPtrArray) in_b = in_a ? vm_ram_blocks(b, error) : NULL;
	gint64 differing = 0;
	guint i;

	if (!in_a || !in_b)
		return -1;
	if (!same_blocks(a, b, in_a, in_b, error) || !same_blocks(b, a, in_b, in_a, error))
		return -1;
	c.a.mem = open_mem(a, error);
	c.b.mem = c.a.mem >= 0 ? open_mem(b, error) : -1;
	c.a.buf = g_malloc(PIECE);
	c.b.buf = g_malloc(PIECE);
	if (c.b.mem < 0)
		differing = -1;
	for (i = 0; i < in_a->len && differing >= 0; i++) {
		struct vm_block *x = in_a->pdata[i];

		if (compare_block(&c, x, find_block(in_b, x->name), error))
			differing += x->differing;
		else
			differing = -1;
	}
	g_free(c.a.buf);
	g_free(c.b.buf);
	if (c.a.mem >= 0)
		close(c.a.mem);
	if (c.b.mem >= 0)
		close(c.b.mem);
	if (differing >= 0 && blocks)
		*blocks = g_steal_pointer(&in_a);
	return differing;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vm.h"
#include "io.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define AGENT_LINE_MAX	65536u
#define DEFAULT_MEMORY	(UINT64_C(256) << 20)
#define START_MS	60000
#define TERM_MS		5000

struct vm {
	char *name;
	char *dir;
	char *serial_log;
	char *stderr_log;
	GPid pid;		/* 0: not started, or ended and reaped */
	int pidfd;		/* -1 on kernels without */
	int wait_status;	/* once reaped */
	bool reaped;
	bool agent_ready;
	struct qmp *qmp;
	GArray *vcpus;		/* thread ids; NULL: not asked for yet */
	int agent_fd;
	struct io_lines agent;
};

G_DEFINE_QUARK(fph-vm-error, vm_error)

static GSList *all_vms;

char *vm_cache_dir(void)
{
	const char *dir = g_getenv("FPH_CACHE");

	if (dir && *dir)
		return g_strdup(dir);
	return g_build_filename(g_get_user_cache_dir(), "fph", NULL);
}

static char *in_cache(const char *a, const char *b)
{
	g_autofree char *dir = vm_cache_dir();

	return g_build_filename(dir, a, b, NULL);
}

char *vm_default_qemu(void)
{
	return in_cache("bin", "qemu-system-x86_64");
}

char *vm_default_kernel(void)
{
	return in_cache("guest", "vmlinuz");
}

char *vm_default_initrd(void)
{
	return in_cache("guest", "initramfs.img");
}

char *vm_default_compiler(void)
{
	return in_cache("guest", "compiler.img");
}

const char *vm_name(const struct vm *vm)
{
	return vm->name;
}

const char *vm_dir(const struct vm *vm)
{
	return vm->dir;
}

GPid vm_pid(const struct vm *vm)
{
	return vm->pid;
}

struct qmp *vm_qmp(struct vm *vm)
{
	return vm->qmp;
}

/* Starting. */

struct child {
	GPid parent;
	int netns;		/* -1: as it is */
};

static void in_child(gpointer data)
{
	const struct child *c = data;

	/*
	 * A group of its own: Ctrl-C reaches us only, and we end the VM in
	 * order. Whatever happens to us, it goes as well.
	 */
	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != c->parent || (c->netns >= 0 && setns(c->netns, CLONE_NEWNET) < 0))
		_exit(1);
}

/* Takes @value. */
static void arg(GPtrArray *argv, const char *option, char *value)
{
	g_ptr_array_add(argv, g_strdup(option));
	if (value)
		g_ptr_array_add(argv, value);
}

static char *joined_initrd(const struct vm *vm)
{
	return g_build_filename(vm->dir, "initrd", NULL);
}

static bool append_file(int to, const char *path, GError **error)
{
	int from = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;
	int err;

	/* An archive begins at a multiple of four. */
	lseek(to, -lseek(to, 0, SEEK_CUR) & 3, SEEK_CUR);
	do {
		n = from < 0 ? -1 : sendfile(to, from, NULL, G_MAXINT);
	} while (n > 0);
	err = errno;
	if (from >= 0)
		close(from);
	if (n == 0)
		return true;
	g_set_error(error, VM_ERROR, VM_ERROR_START, "%s: %s", path, g_strerror(err));
	return false;
}

/* The kernel unpacks archives one after the other, but QEMU takes one file. */
static bool join_initrd(const struct vm *vm, const struct vm_config *cfg, GError **error)
{
	g_autofree char *path = joined_initrd(vm);
	int fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
	bool ok;

	if (fd < 0) {
		g_set_error(error, VM_ERROR, VM_ERROR_START, "%s: %s", path, g_strerror(errno));
		return false;
	}
	ok = append_file(fd, cfg->initrd, error) && append_file(fd, cfg->initrd_more, error);
	close(fd);
	return ok;
}

static GPtrArray *build_argv(const struct vm_config *cfg, struct vm *vm, int qmp_fd, int agent_fd)
{
	static const char *const firmware[] = {
		"/usr/share/seabios", "/usr/share/qemu", "/usr/lib/ipxe/qemu",
	};
	GPtrArray *argv = g_ptr_array_new_with_free_func(g_free);
	guint64 memory = cfg->memory ? cfg->memory : DEFAULT_MEMORY;
	const char *machine = cfg->machine ? cfg->machine : "pc";
	const char *const *x;
	size_t i;

	g_ptr_array_add(argv, cfg->qemu ? g_strdup(cfg->qemu) : vm_default_qemu());
	arg(argv, "-nodefaults", NULL);
	arg(argv, "-no-user-config", NULL);
	arg(argv, "-no-reboot", NULL);
	arg(argv, "-display", g_strdup("none"));
	arg(argv, "-name", g_strdup_printf("fph-%s%s", vm->name,
					     cfg->thread_names ? ",debug-threads=on" : ""));
	/* Run from its build tree, QEMU has no firmware folder of its own. */
	for (i = 0; i < G_N_ELEMENTS(firmware); i++)
		if (g_file_test(firmware[i], G_FILE_TEST_IS_DIR))
			arg(argv, "-L", g_strdup(firmware[i]));
	arg(argv, "-accel", g_strdup(cfg->accel ? cfg->accel : "tcg,thread=multi"));
	if (cfg->cpu)
		arg(argv, "-cpu", g_strdup(cfg->cpu));
	arg(argv, "-smp", g_strdup_printf("%u", cfg->smp ? cfg->smp : 1));
	arg(argv, "-m", g_strdup_printf("size=%" G_GUINT64_FORMAT "B", memory));
	if (cfg->ram) {
		arg(argv, "-object", g_strdup_printf("%s,id=ram0,size=%" G_GUINT64_FORMAT,
						     cfg->ram, memory));
		arg(argv, "-M", g_strdup_printf("%s,memory-backend=ram0", machine));
	} else {
		arg(argv, "-M", g_strdup(machine));
	}
	if (cfg->kernel) {
		arg(argv, "-kernel", g_strdup(cfg->kernel));
		arg(argv, "-append", g_strdup(cfg->append ? cfg->append : VM_APPEND));
	}
	if (cfg->initrd)
		arg(argv, "-initrd", cfg->initrd_more ? joined_initrd(vm) : g_strdup(cfg->initrd));
	if (cfg->bios)
		arg(argv, "-bios", g_strdup(cfg->bios));
	arg(argv, "-chardev", g_strdup_printf("file,id=console,path=%s", vm->serial_log));
	arg(argv, "-serial", g_strdup("chardev:console"));
	arg(argv, "-chardev", g_strdup_printf("socket,id=agent,fd=%d", agent_fd));
	arg(argv, "-serial", g_strdup("chardev:agent"));
	arg(argv, "-chardev", g_strdup_printf("socket,id=qmp,fd=%d", qmp_fd));
	arg(argv, "-mon", g_strdup("chardev=qmp,mode=control"));
	if (cfg->fph_mode)
		arg(argv, "-object", g_strdup_printf("fph-source,id=fph0,mode=%s", cfg->fph_mode));
	if (cfg->incoming)
		arg(argv, "-incoming", g_strdup("defer"));
	/* A guest without anything to wait for starts when we listen to it. */
	if (cfg->paused || !cfg->incoming)
		arg(argv, "-S", NULL);
	for (x = cfg->extra; x && *x; x++)
		g_ptr_array_add(argv, g_strdup(*x));
	g_ptr_array_add(argv, NULL);
	return argv;
}

static bool spawn(struct vm *vm, const struct vm_config *cfg, int qmp_fd, int agent_fd,
		  GError **error)
{
	g_autoptr(GPtrArray) argv = build_argv(cfg, vm, qmp_fd, agent_fd);
	const int fds[] = { qmp_fd, agent_fd };	/* same number in the child */
	struct child child = { getpid(), cfg->netns ? *cfg->netns : -1 };
	g_autoptr(GError) err = NULL;
	GSpawnFlags flags = G_SPAWN_DO_NOT_REAP_CHILD;
	bool ok;
	int log;

	log = open(vm->stderr_log, O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
	if (log < 0) {
		g_set_error(error, VM_ERROR, VM_ERROR_START, "%s: %s", vm->stderr_log,
			    g_strerror(errno));
		return false;
	}
	/* Neither found by a name without '/'; the caller says where it is. */
	if (!strchr(argv->pdata[0], '/'))
		flags |= G_SPAWN_SEARCH_PATH;
	ok = g_spawn_async_with_pipes_and_fds(NULL, (const char *const *)argv->pdata, NULL, flags,
					      in_child, &child,
					      -1, log, log, fds, fds, G_N_ELEMENTS(fds),
					      &vm->pid,
					      NULL, NULL, NULL, &err);
	close(log);
	if (!ok) {
		vm->pid = 0;
		g_set_error(error, VM_ERROR, VM_ERROR_START, "%s: %s", vm->name, err->message);
		return false;
	}
	vm->pidfd = syscall(SYS_pidfd_open, vm->pid, 0);
	return true;
}

/* Last line of a log, or NULL. */
static char *last_line(const char *path)
{
	g_autofree char *text = NULL;
	char *nl;

	if (!g_file_get_contents(path, &text, NULL, NULL))
		return NULL;
	g_strchomp(text);
	nl = strrchr(text, '\n');
	nl = nl ? nl + 1 : text;
	return *nl ? g_utf8_make_valid(nl, -1) : NULL;
}

/* What the guest's console says about its end: a panic, or the last line. */
static char *console_words(struct vm *vm)
{
	g_autofree char *text = NULL;
	const char *panic;

	if (!g_file_get_contents(vm->serial_log, &text, NULL, NULL))
		return NULL;
	panic = strstr(text, "Kernel panic");
	if (!panic)
		return last_line(vm->serial_log);
	text[panic - text + strcspn(panic, "\r\n")] = '\0';
	return g_utf8_make_valid(panic, -1);
}

static bool reap(struct vm *vm, int timeout_ms)
{
	gint64 deadline = io_deadline(timeout_ms);
	struct pollfd p = { .fd = vm->pidfd, .events = POLLIN };
	gint64 left;

	while (vm->pid && !vm->reaped) {
		pid_t r = waitpid(vm->pid, &vm->wait_status, WNOHANG);

		if (r == vm->pid || (r < 0 && errno == ECHILD)) {
			vm->reaped = true;
			break;
		}
		left = (deadline - g_get_monotonic_time()) / 1000;
		if (left <= 0)
			return false;
		/* Not io_wait(): cleaning up goes on after a signal. */
		if (vm->pidfd >= 0)
			poll(&p, 1, left);
		else
			g_usleep(10000);
	}
	return true;
}

static void set_died(struct vm *vm, GError **error)
{
	g_autofree char *words = last_line(vm->stderr_log);
	g_autofree char *how = NULL;

	if (WIFSIGNALED(vm->wait_status))
		how = g_strdup_printf("was ended by signal %d (%s)", WTERMSIG(vm->wait_status),
				      strsignal(WTERMSIG(vm->wait_status)));
	else
		how = g_strdup_printf("ended with status %d", WEXITSTATUS(vm->wait_status));
	/* A guest that panics ends QEMU in good order; why is on its console. */
	if (!words && vm->wait_status == 0)
		words = console_words(vm);
	g_set_error(error, VM_ERROR, VM_ERROR_DIED, "%s: QEMU %s%s%s", vm->name, how,
		    words ? ": " : "", words ? words : "");
}

bool vm_alive(struct vm *vm, GError **error)
{
	if (vm->pid && !reap(vm, 0))
		return true;
	set_died(vm, error);
	return false;
}

/* The connection is lost: QEMU has ended or is about to. */
static void explain_loss(struct vm *vm, GError **error)
{
	if (reap(vm, 2000))
		set_died(vm, error);
	else
		g_set_error(error, VM_ERROR, VM_ERROR_DIED,
			    "%s: QEMU closed its connections but still runs", vm->name);
}

static void remove_dir(const char *dir)
{
	const char *name;
	GDir *d;

	d = g_dir_open(dir, 0, NULL);
	if (!d)
		return;
	while ((name = g_dir_read_name(d))) {
		g_autofree char *path = g_build_filename(dir, name, NULL);

		g_unlink(path);
	}
	g_dir_close(d);
	g_rmdir(dir);
}

void (*vm_at_end)(struct vm *vm, const char *console);

void vm_free(struct vm *vm)
{
	if (!vm)
		return;
	all_vms = g_slist_remove(all_vms, vm);
	if (vm->pid && !reap(vm, 0)) {
		kill(vm->pid, SIGTERM);
		if (!reap(vm, TERM_MS)) {
			kill(vm->pid, SIGKILL);
			reap(vm, TERM_MS);
		}
	}
	if (vm_at_end && vm->serial_log) {
		g_autofree char *console = vm_console(vm);

		vm_at_end(vm, console);
	}
	if (vm->pidfd >= 0)
		close(vm->pidfd);
	qmp_close(vm->qmp);
	if (vm->vcpus)
		g_array_unref(vm->vcpus);
	io_lines_clear(&vm->agent);
	if (vm->agent_fd >= 0)
		close(vm->agent_fd);
	if (vm->dir)
		remove_dir(vm->dir);
	g_free(vm->dir);
	g_free(vm->serial_log);
	g_free(vm->stderr_log);
	g_free(vm->name);
	g_free(vm);
}

void vm_free_all(void)
{
	while (all_vms)
		vm_free(all_vms->data);
}

struct vm *vm_start(const struct vm_config *cfg, GError **error)
{
	static bool registered;
	int qmp_pair[2] = { -1, -1 }, agent_pair[2] = { -1, -1 };
	struct vm *vm = g_new0(struct vm, 1);
	g_autofree char *template = NULL;
	GError *err = NULL;

	vm->name = g_strdup(cfg->name ? cfg->name : "vm");
	vm->pidfd = -1;
	vm->agent_fd = -1;
	all_vms = g_slist_prepend(all_vms, vm);
	if (!registered)
		atexit(vm_free_all);
	registered = true;

	template = g_strdup_printf("fph-%s-XXXXXX", vm->name);
	vm->dir = g_dir_make_tmp(template, &err);
	if (!vm->dir) {
		g_set_error(error, VM_ERROR, VM_ERROR_START, "temporary directory: %s",
			    err->message);
		g_error_free(err);
		goto fail;
	}
	vm->serial_log = g_strdup_printf("%s/%s-serial.log", cfg->logs ? cfg->logs : vm->dir,
					 vm->name);
	vm->stderr_log = g_strdup_printf("%s/%s-stderr.log", cfg->logs ? cfg->logs : vm->dir,
					 vm->name);

	if (cfg->initrd_more && !join_initrd(vm, cfg, error))
		goto fail;

	/* Connected before QEMU exists: no path, no time to wait for, nothing lost. */
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, qmp_pair) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, agent_pair) < 0) {
		g_set_error(error, VM_ERROR, VM_ERROR_START, "socketpair: %s", g_strerror(errno));
		goto fail;
	}
	if (!spawn(vm, cfg, qmp_pair[1], agent_pair[1], error))
		goto fail;
	close(qmp_pair[1]);
	close(agent_pair[1]);
	qmp_pair[1] = agent_pair[1] = -1;
	vm->agent_fd = agent_pair[0];
	agent_pair[0] = -1;
	if (!io_nonblock(vm->agent_fd, error))
		goto fail;
	io_lines_init(&vm->agent, vm->agent_fd, AGENT_LINE_MAX);

	vm->qmp = qmp_new(qmp_pair[0], START_MS, &err);
	qmp_pair[0] = -1;
	if (!vm->qmp) {
		if (g_error_matches(err, QMP_ERROR, QMP_ERROR_CLOSED)) {
			g_clear_error(&err);
			explain_loss(vm, &err);
		}
		g_propagate_error(error, err);
		goto fail;
	}
	if (!cfg->paused && !cfg->incoming && !vm_cont(vm, error))
		goto fail;
	return vm;
fail:
	if (qmp_pair[0] >= 0)
		close(qmp_pair[0]);
	if (qmp_pair[1] >= 0)
		close(qmp_pair[1]);
	if (agent_pair[0] >= 0)
		close(agent_pair[0]);
	if (agent_pair[1] >= 0)
		close(agent_pair[1]);
	vm_free(vm);
	return NULL;
}

/* The monitor. */

static JsonNode *command_va(struct vm *vm, GError **error, const char *name,
			    const char *arguments, va_list ap)
{
	g_autofree char *text = arguments ? g_strdup_vprintf(arguments, ap) : NULL;
	g_autoptr(JsonNode) node = NULL;
	GError *err = NULL;
	JsonNode *ret;

	if (text) {
		node = json_from_string(text, &err);
		if (!node || !JSON_NODE_HOLDS_OBJECT(node)) {
			g_set_error(error, QMP_ERROR, QMP_ERROR_PROTOCOL,
				    "%s: arguments are no JSON object: %s", name, text);
			g_clear_error(&err);
			return NULL;
		}
	}
	ret = qmp_command(vm->qmp, VM_QMP_MS, &err, name, node ? json_node_dup_object(node) : NULL);
	if (ret)
		return ret;
	if (g_error_matches(err, QMP_ERROR, QMP_ERROR_CLOSED)) {
		g_clear_error(&err);
		explain_loss(vm, &err);
	} else {
		g_prefix_error(&err, "%s: ", vm->name);
	}
	g_propagate_error(error, err);
	return NULL;
}

JsonNode *vm_command(struct vm *vm, GError **error, const char *name, const char *arguments, ...)
{
	JsonNode *ret;
	va_list ap;

	va_start(ap, arguments);
	ret = command_va(vm, error, name, arguments, ap);
	va_end(ap);
	return ret;
}

bool vm_run(struct vm *vm, GError **error, const char *name, const char *arguments, ...)
{
	JsonNode *ret;
	va_list ap;

	va_start(ap, arguments);
	ret = command_va(vm, error, name, arguments, ap);
	va_end(ap);
	if (!ret)
		return false;
	json_node_unref(ret);
	return true;
}

char *vm_hmp(struct vm *vm, GError **error, const char *command)
{
	g_autofree char *escaped = g_strescape(command, NULL);
	JsonNode *node;
	char *ret;

	node = vm_command(vm, error, "human-monitor-command", "{\"command-line\": \"%s\"}", escaped);
	if (!node)
		return NULL;
	ret = g_strdup(json_node_get_string(node));
	json_node_unref(node);
	return ret ? ret : g_strdup("");
}

bool vm_stop(struct vm *vm, GError **error)
{
	return vm_run(vm, error, "stop", NULL);
}

bool vm_cont(struct vm *vm, GError **error)
{
	return vm_run(vm, error, "cont", NULL);
}

/* The guest's agent. */

/* 1 a line, 0 too late, -1 error */
static int agent_line(struct vm *vm, gint64 deadline, char **ret, GError **error)
{
	GError *err = NULL;
	int r;

	r = io_lines_next(&vm->agent, deadline, ret, &err);
	if (r >= 0)
		return r;
	if (g_error_matches(err, G_IO_ERROR, G_IO_ERROR_CLOSED)) {
		g_clear_error(&err);
		explain_loss(vm, &err);
	} else {
		g_prefix_error(&err, "%s: agent: ", vm->name);
	}
	g_propagate_error(error, err);
	return -1;
}

void vm_guest_restarts(struct vm *vm)
{
	vm->agent_ready = false;
}

bool vm_guest_wait_ready(struct vm *vm, int timeout_ms, GError **error)
{
	gint64 deadline = io_deadline(timeout_ms);
	g_autofree char *last = NULL;
	int r;

	while (!vm->agent_ready) {
		g_autofree char *line = NULL;

		r = agent_line(vm, deadline, &line, error);
		if (r < 0)
			return false;
		if (r == 0) {
			last = console_words(vm);
			g_set_error(error, VM_ERROR, VM_ERROR_TIMEOUT,
				    "%s: the guest was not ready after %d s%s%s", vm->name,
				    timeout_ms / 1000, last ? ", its console ends with: " : "",
				    last ? last : "");
			return false;
		}
		if (g_str_has_prefix(line, "err")) {
			g_set_error(error, VM_ERROR, VM_ERROR_GUEST, "%s: guest: %s", vm->name,
				    line);
			return false;
		}
		vm->agent_ready = strcmp(line, "fph-guest ready") == 0;
	}
	return true;
}

static bool is_word(const char *line, const char *word)
{
	size_t n = strlen(word);

	return strncmp(line, word, n) == 0 && (line[n] == '\0' || line[n] == ' ');
}

/* That of another command came after its time-out */
static bool is_answer(const char *line, const char *command)
{
	g_autofree char *word = g_strndup(command, strcspn(command, " "));

	return g_str_has_prefix(line, "ok ") && is_word(line + 3, word);
}

char *vm_guest_command(struct vm *vm, int timeout_ms, GError **error, const char *fmt, ...)
{
	gint64 deadline = io_deadline(timeout_ms);
	g_autofree char *cmd = NULL;
	g_autofree char *text = NULL;
	g_autofree char *stale = NULL;
	GError *err = NULL;
	va_list ap;
	int r;

	va_start(ap, fmt);
	cmd = g_strdup_vprintf(fmt, ap);
	va_end(ap);

	/* Answers that came after their time-out. */
	while ((r = agent_line(vm, io_deadline(0), &stale, error)) > 0)
		g_clear_pointer(&stale, g_free);
	if (r < 0)
		return NULL;

	text = g_strconcat(cmd, "\n", NULL);
	if (!io_write(vm->agent_fd, text, strlen(text), deadline, &err)) {
		if (g_error_matches(err, G_IO_ERROR, G_IO_ERROR_CLOSED)) {
			g_clear_error(&err);
			explain_loss(vm, &err);
		}
		g_propagate_error(error, err);
		return NULL;
	}
	for (;;) {
		char *line;

		r = agent_line(vm, deadline, &line, error);
		if (r < 0)
			return NULL;
		if (r == 0) {
			g_set_error(error, VM_ERROR, VM_ERROR_TIMEOUT,
				    "%s: guest: no answer to '%s' after %d ms", vm->name, cmd,
				    timeout_ms);
			return NULL;
		}
		if (is_answer(line, cmd))
			return line;
		if (is_word(line, "err")) {
			g_set_error(error, VM_ERROR, VM_ERROR_GUEST, "%s: guest: %s: %s",
				    vm->name, cmd, line);
			g_free(line);
			return NULL;
		}
		g_free(line);
	}
}

char *vm_console(struct vm *vm)
{
	char *text;

	if (!g_file_get_contents(vm->serial_log, &text, NULL, NULL))
		return g_strdup("");
	return text;
}

char *vm_guest_complaint(struct vm *vm)
{
	static const char before[] = "fph-guest: ";
	g_autofree char *text = vm_console(vm);
	g_auto(GStrv) lines = NULL;
	char **l;

	lines = g_strsplit_set(text, "\r\n", -1);
	for (l = lines; *l; l++)
		if (g_str_has_prefix(*l, before))
			return g_utf8_make_valid(*l + strlen(before), -1);
	return NULL;
}

bool vm_guest_settle(struct vm *vm, int timeout_ms, GError **error)
{
	gint64 deadline = io_deadline(timeout_ms);
	struct vm_usage before, now;

	if (!vm_usage(vm, &before, error))
		return false;
	while (g_get_monotonic_time() < deadline) {
		if (!io_sleep(1000, error) || !vm_usage(vm, &now, error))
			return false;
		if (now.cpu_ms - before.cpu_ms < 100)
			break;
		before = now;
	}
	return true;
}

/* What /proc says. */

static guint64 status_field(const char *text, const char *name)
{
	const char *p = strstr(text, name);

	return p ? g_ascii_strtoull(p + strlen(name), NULL, 10) : 0;
}

/* What /proc/.../stat says of a process or a thread. */
struct stat_line {
	unsigned long long minor, major, utime, stime;
};

static bool read_stat(const char *path, struct stat_line *ret, GError **error)
{
	g_autofree char *text = NULL;
	const char *p;

	if (!g_file_get_contents(path, &text, NULL, error))
		return false;
	/* After the name, which may hold anything. */
	p = strrchr(text, ')');
	if (p && sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %*u %llu %*u %llu %*u %llu %llu",
			&ret->minor, &ret->major, &ret->utime, &ret->stime) == 4)
		return true;
	g_set_error(error, VM_ERROR, VM_ERROR_MEMORY, "%s: not understood", path);
	return false;
}

static guint64 stat_cpu_ms(const struct stat_line *s)
{
	return (s->utime + s->stime) * 1000 / sysconf(_SC_CLK_TCK);
}

GArray *qmp_vcpus(struct qmp *q, GError **error)
{
	g_autoptr(JsonNode) node = qmp_command(q, VM_QMP_MS, error, "query-cpus-fast", NULL);
	GArray *ret;
	JsonArray *list;
	guint i;

	if (!node)
		return NULL;
	ret = g_array_new(FALSE, FALSE, sizeof(pid_t));
	list = JSON_NODE_HOLDS_ARRAY(node) ? json_node_get_array(node) : NULL;
	for (i = 0; list && i < json_array_get_length(list); i++) {
		JsonNode *e = json_array_get_element(list, i);
		pid_t tid;

		if (!JSON_NODE_HOLDS_OBJECT(e))
			continue;
		tid = json_object_get_int_member_with_default(json_node_get_object(e),
							      "thread-id", 0);
		if (tid)
			g_array_append_val(ret, tid);
	}
	return ret;
}

bool process_usage(pid_t pid, const GArray *vcpus, struct vm_usage *ret, GError **error)
{
	g_autofree char *status_path = g_strdup_printf("/proc/%d/status", pid);
	g_autofree char *stat_path = g_strdup_printf("/proc/%d/stat", pid);
	g_autofree char *status = NULL;
	struct stat_line all, one;
	guint64 guest_cpu_ms = 0;
	guint i;

	if (!g_file_get_contents(status_path, &status, NULL, error) ||
	    !read_stat(stat_path, &all, error))
		return false;
	for (i = 0; vcpus && i < vcpus->len; i++) {
		g_autofree char *path = g_strdup_printf("/proc/%d/task/%d/stat", pid,
							g_array_index(vcpus, pid_t, i));

		if (!read_stat(path, &one, error))
			return false;
		guest_cpu_ms += stat_cpu_ms(&one);
	}
	*ret = (struct vm_usage){
		/* Its huge pages of hugetlbfs are told apart */
		.rss_kib = status_field(status, "\nVmRSS:") +
			   status_field(status, "\nHugetlbPages:"),
		.rss_anon_kib = status_field(status, "\nRssAnon:"),
		.rss_file_kib = status_field(status, "\nRssFile:"),
		.rss_shmem_kib = status_field(status, "\nRssShmem:"),
		.rss_peak_kib = status_field(status, "\nVmHWM:"),
		.cpu_ms = stat_cpu_ms(&all),
		.system_ms = all.stime * 1000 / sysconf(_SC_CLK_TCK),
		.guest_cpu_ms = guest_cpu_ms,
		.faults = all.minor + all.major,
	};
	return true;
}

bool vm_usage(struct vm *vm, struct vm_usage *ret, GError **error)
{
	if (!vm_alive(vm, error))
		return false;
	/* They live as long as the process. */
	if (!vm->vcpus)
		vm->vcpus = qmp_vcpus(vm->qmp, error);
	return vm->vcpus && process_usage(vm->pid, vm->vcpus, ret, error);
}

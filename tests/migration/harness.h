/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the migration tests share: guests to migrate, and ways to tell whether
 * they got through whole. A failure ends the test in words.
 *
 * Environment: FPH_TEST_QEMU and the like, set by meson.
 */
#ifndef FPH_TEST_HARNESS_H
#define FPH_TEST_HARNESS_H

#include "fph-test.h"
#include "firsttouch.h"
#include "io.h"
#include "vm.h"

#define MIB		(UINT64_C(1) << 20)
#define PAGE		UINT64_C(4096)

#define MIGRATE_MS	90000

/*
 * "until (CONDITION) STATEMENT": the statement, which finds out how things are,
 * is run every few milliseconds until the condition holds. A machine that is
 * slow or busy takes its time; after MIGRATE_MS the test fails in words.
 */
#define until(condition)	until_within(MIGRATE_MS, condition)
#define until_within(ms, condition)					\
	for (gint64 until_ = io_deadline(ms); !(condition);		\
	     until_pause(until_, #condition, __FILE__, __LINE__))

void until_pause(gint64 deadline, const char *condition, const char *file, int line);

/* The call, which takes E for its GError **, must succeed */
#define ok(call) do {							\
	GError *call_error = NULL;					\
	bool ok_ = (call);						\
	if (call_error)							\
		fail_msg("%s: %s", #call, call_error->message);		\
	check(ok_);							\
} while (0)

#define E (&call_error)

extern const char *qemu;
extern const char *firsttouch;

/* Devices through which a guest can say what is free, and their drivers */
#define FPH_APPEND	VM_APPEND " fph.modules=virtio_fph"
#define BALLOON_APPEND	VM_APPEND " fph.modules=virtio_balloon"

extern const char *const fph_device[];
extern const char *const fph_device_bitmap[];	/* the driver has to use that encoding */
extern const char *const balloon_device[];

/* 512 MiB, Debian's kernel and the agent */
extern const struct vm_config linux_guest;
/* 128 MiB, no operating system: starts at once, writes to RAM from then on */
extern const struct vm_config tiny_guest;

/* A new file of that content, removed at the end; the path stays valid */
const char *temp_file(const char *content, gssize len);

struct vm *start(struct vm_config cfg);
/* The other side: the same machine, without fph, and it does not run yet */
struct vm *start_destination(struct vm_config cfg);

/* What its kernel says of its own mistakes fails the test, whenever it was said. */
void boot(struct vm *vm);
/* A command to the guest's agent; its answer must begin as expected */
void guest(struct vm *vm, const char *command, const char *expect);
/* "NAME=" of its answer; to be freed */
char *guest_word(struct vm *vm, const char *command, const char *name);
uint64_t guest_number(struct vm *vm, const char *command, const char *name);
/* All pages the guest ever wrote are as it wrote them */
void guest_check(struct vm *vm);

/* An fph-source: it is in use until QEMU has cleaned up, a moment after the migration */
void delete_object(struct vm *vm, const char *id);
/* Is guest memory registered with userfaultfd? VmFlags "uw": write-protect tracking */
bool is_registered(struct vm *vm);

void wait_event(struct vm *vm, const char *name);
/* To RAM, and back */
void guest_suspend(struct vm *vm);
void guest_wake_up(struct vm *vm);
/*
 * To its disk, which is there for that alone, and back in another VM with that disk, whose
 * kernel has booted and then makes way. QEMU must not end with the guest (-no-shutdown).
 */
#define GUEST_DISK	"/dev/vda"
/*
 * Memory is full while an image is written or read: what the disk's requests would need
 * for their descriptors fails, and of that the kernel complains, though it goes on.
 */
#define GUEST_DISK_DEVICE	"virtio-blk-pci,drive=disk0,indirect_desc=off"
/* Of that disk, "disk0", for -drive; a string to be freed */
char *hibernation_drive(uint64_t bytes);
/* One that takes snapshots, "d0"; without qemu-img the test is skipped */
char *snapshot_drive(void);
/* A command of the human monitor that has nothing to say */
void hmp(struct vm *vm, const char *command);
void guest_hibernate(struct vm *vm);
void guest_resume(struct vm *vm);

/* The balloon, whichever it is: what the host wants of the guest's memory, and has */
void set_size(struct vm *vm, uint64_t size);
uint64_t size_of(struct vm *vm);
void wait_for_size(struct vm *vm, uint64_t size);
void resize(struct vm *vm, uint64_t size);
/* virtio_fph in the guest says so, which is told of what the host has done a moment later */
void wait_for_balloon(struct vm *vm, const char *state);

/*
 * Again and again: the guest is short of memory, with processes that are ended, the
 * balloon, which is to leave it @size, gives some back, and the driver is unloaded. The
 * balloon has no floor: UNLOAD_APPEND.
 */
#define UNLOAD_APPEND	" virtio_fph.balloon_floor=0"
void unload_beside_oom(struct vm *vm, uint64_t size, unsigned int rounds);

/* Where the device pv0 writes to a split queue, as it addresses it itself */
struct ring {
	uint64_t used;			/* struct vring_used */
	unsigned int num;
};

struct ring find_ring(struct vm *vm, unsigned int queue);
/*
 * So many queues of it, from the first on: QEMU is not told of what is in them until it
 * looks by itself, as when the guest runs again after a pause. Done from outside in the
 * guest's memory, a memfd; the device has event_idx=off.
 */
void mute_queues(struct vm *vm, unsigned int queues, bool mute);

/*
 * A guest that writes all the time: one whose driver says what is free, or, with
 * mode=pagemap, the firmware that writes to fresh pages. It has begun to.
 */
struct vm_config busy_config(const char *mode, const char *ram);
struct vm *start_busy(const struct vm_config *cfg);
/* It does something, and has lost nothing */
void check_busy(struct vm *vm, const struct vm_config *cfg);
/* It was migrated: its memory is there, and it goes on */
void check_arrived(struct vm *src, struct vm *dst, const struct vm_config *cfg,
		   const struct vm_migration *m);

void migrate(struct vm *src, struct vm *dst, const struct vm_migrate_opts *opts,
	     struct vm_migration *m);
void print_migration(const struct vm_migration *m);

/*
 * A migration that cannot end before the test has what it needs of it: no round
 * does before the guest has written something, however fast or slow the machine
 * is, until @enough says so.
 */
typedef bool (*enough_fn)(const struct vm_migration *m);

/* Pages that were left out were written since, and became due: one, and so many that it is no chance */
bool resent_some(const struct vm_migration *m);
bool resent_many(const struct vm_migration *m);

/* All of it; opts->max_bandwidth is the most, and has to be given */
void migrate_until(struct vm *src, struct vm *dst, const struct vm_migrate_opts *opts,
		   enough_fn enough, struct vm_migration *m);
/* Precopy does not end: as fast as QEMU may find the channel to be, nothing is little enough */
void hold_switchover(struct vm *src);
/* The first part, of a migration that has begun, and what is to follow */
void hold_until(struct vm *src, uint64_t max_bandwidth, enough_fn enough, struct vm_migration *m);
void let_go(struct vm *src);

void set_bandwidth(struct vm *src, uint64_t bytes_per_second);
void set_capability(struct vm *vm, const char *name, bool on);
/* On both sides */
void capability(struct vm *src, struct vm *dst, const char *name);
/* One that kernel or QEMU may lack: the test is skipped in QEMU's words. @name: or NULL */
void capability_or_skip(struct vm *vm, const char *name);
/* What QEMU has open: the path in /proc, and what it is */
typedef void (*fd_fn)(const char *path, const char *target, void *opaque);
void each_fd(struct vm *vm, fd_fn func, void *opaque);
/* The memfd, or file in /dev/shm, that is memory of the guest, from outside; there is one */
int open_memfd(struct vm *vm);

/* The first iothread stands still until it is let go of, or the test ends */
pid_t hold_iothread(struct vm *vm);
void release_iothread(pid_t tid);
/* QEMU must refuse, and say why */
void refused(struct vm *vm, const char *why, const char *command, const char *arguments);

/* Source and destination are paused: every byte of every RAM block is equal */
void check_ram_equal(struct vm *src, struct vm *dst);
/*
 * The same, but for pages that the guest said are free and has not written
 * since. Return: how many of those differ; if none, its word was put to no test.
 */
uint64_t check_ram_equal_or_free(struct vm *src, struct vm *dst);
/*
 * Either, of a guest that gives back memory while it travels, to a balloon or by reporting
 * it free: a page that was discarded after it was sent is absent at the source, and has
 * its old content at the destination, where nobody looks at it. A page of zeroes that
 * the source does have is another matter.
 * Return: how many free ones differ; @discarded: how many of those.
 */
uint64_t check_ram_equal_or_discarded(struct vm *src, struct vm *dst, bool or_free,
				      uint64_t *discarded);

/* A member of the object's query-fph answer */
JsonObject *fph_object(const struct vm_fph *fph);
/* QEMU said once, since the migration began, that skipping ended, why, and with which counts */
void check_end_event(struct vm *src, const char *cause, const struct vm_fph *fph);
/* It did not say so, or has done already */
void check_no_end_event(struct vm *src);
/* Pages of all blocks that fph-source knows, that is, that are migrated */
uint64_t migrated_pages(const struct vm_fph *fph);

/*
 * The numbers of query-fph agree with each other, in sum and by block. At any
 * time: of a migration under way, too, as long as no page of it moves.
 */
void check_sums(const struct vm_fph *fph);

/* Polls, until the status is that one */
void wait_for_status(struct vm *vm, const char *status, struct vm_migration *m);
bool is_running(struct vm *vm);

/*
 * A script that runs QEMU with a library of ours before all others, for
 * vm_config.qemu. @variable: of the environment, names the library.
 * @settings: more of the environment, as in a shell.
 */
const char *preloaded_qemu(const char *variable, const char *settings);
/* For vm_config.qemu: one that sees wrong uses of memory, or NULL if there is none */
const char *sanitized_qemu(void);
/*
 * A script that runs QEMU on a kernel that fails calls of libfph, for
 * vm_config.qemu. The words are FPH_TEST_FAULT's, see kernel-fault.c.
 * @seen: receives the name of a file that has a byte for each failed call.
 */
const char *faulty_qemu(const char *fault, const char **seen);
uint64_t file_size(const char *path);

/*
 * A disk by vhost-user: qemu-storage-daemon, a process beside QEMU, writes to the
 * guest's memory, which has to be shared, by itself. Each host has a daemon of its own,
 * for the same image, and only the one where the guest runs uses it.
 */
#define DISK_APPEND	",virtio_blk"	/* one module more */

/* Each sector begins with its number, as the agent's "disk" wants it */
const char *disk_image(uint64_t bytes);
/* There is such a daemon, and QEMU has such a device; or the test is skipped */
bool have_disks(void);
void need_disks(void);
/*
 * Starts one, which ends with us or by disk_end(). @socket: receives the path that QEMU is
 * to use. @env: NULL, or NAME=VALUE... of more environment, NULL-terminated.
 */
GSubprocess *disk_start(const char *image, const char *const *env, const char **socket);
void disk_end(GSubprocess *daemon);
/* More arguments for QEMU: these, and the device at that socket */
const char *const *with_disk(const char *const *extra, const char *socket);

/* The kernel moves what it can of all memory; false if it may not be told to */
bool compact_memory(void);

/* The firmware image with other settings */
const char *patch_firsttouch(uint32_t delay, uint32_t rounds);
/* One more setting of that image, FT_SET_* */
void patch_word(const char *path, unsigned int offset, uint32_t value);
uint32_t ft_state(struct vm *vm, unsigned int offset);
void ft_wait_for(struct vm *vm, uint32_t count);

/* These skip the test, in words */
/* One of tests/guest/kernels that is not the default */
void use_kernel(struct vm_config *cfg, const char *name);
void need_kvm(void);
void need_scanner(void);
/* So much in huge pages of 2 MiB, reserved until the test ends */
void need_hugepages(uint64_t bytes);

/*
 * main() of a test program: runs the one case that is named; "--names NAME..."
 * fails unless these are all cases. @host: the case asks the host for pages; NULL: each does.
 */
int harness_main(int argc, char **argv, struct fph_tests *t, bool (*host)(const char *name));

#endif

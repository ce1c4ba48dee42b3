/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which processes are virtual machines */
#ifndef FPH_MACHINES_H
#define FPH_MACHINES_H

#include <gio/gio.h>
#include <stdbool.h>

struct machine {
	gint pid;
	const char *vmm;	/* qemu, firecracker ...; kvm: another one, with KVM */
	bool kvm;		/* a virtual machine of KVM is open in it */
	char *program;		/* its path or name */
	char *name;		/* of the guest; "" if it has none */
	guint64 ram;		/* bytes; UNKNOWN without the right to see it */
};

/**
 * machines_find() - all that this user can see
 * @sysroot: folder with recorded proc/PID, or NULL for this machine
 *
 * A virtual machine is a process with something that looks like guest RAM, and
 * either a virtual machine of KVM open, whatever it is called, or a command line
 * of QEMU, which does without KVM. What starts or probes a VMM, serves its disks
 * or its devices is none. Where the user may not see what a process has, it is
 * known by its command line alone. So is what was recorded without its fd folder:
 * each such process counts.
 *
 * Return: of struct machine, by PID, which it frees; perhaps empty.
 */
GPtrArray *machines_find(const char *sysroot);

/** machine_vmm() - what runs by that command line; "unknown" if it does not tell */
const char *machine_vmm(const GStrv cmdline);

/** machine_guest_name() - what its command line calls the guest; "" if it does not tell */
char *machine_guest_name(const GStrv cmdline);

/**
 * machines_only() - the one virtual machine that is called @name
 * @sysroot: as machines_find()
 * @name: bytes, of any encoding; NULL: however it is called
 *
 * Return: its PID; 0 with @error set if there is none, or more than one.
 */
gint machines_only(const char *sysroot, const char *name, GError **error);

#endif

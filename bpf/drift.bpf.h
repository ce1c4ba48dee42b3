/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * All that the tracer takes from the kernel and that differs between kernels
 * and architectures, or that no BTF has.
 */
#ifndef FPH_DRIFT_BPF_H
#define FPH_DRIFT_BPF_H

#if !defined(__TARGET_ARCH_x86) && !defined(__TARGET_ARCH_arm64)
#error "the registers and the system call numbers are those of x86-64 and arm64"
#endif

/* Error code of a page fault, on x86-64: the page was there; it was a write */
#define PF_PROT			(1ul << 0)
#define PF_WRITE		(1ul << 1)

/* fault flags of handle_mm_fault(): the same bit since 2.6 */
#define FAULT_WRITE		(1u << 0)

/* What it returns: VM_FAULT_RETRY or an error */
#define FAULT_NOT_DONE		0xc73u

/*
 * gfp flags: for a page that is mapped to a process; for a page of a file that
 * is about to be written. These bits have not moved since 4.18, but their
 * numbers are in BTF only since 6.10, in an enum without a name.
 */
#define GFP_MOVABLE		0x08u
#define GFP_WRITE		0x1000u

/* System calls, their functions, and what they are asked for */
#ifdef __TARGET_ARCH_x86
#define SYSCALL_PREFIX		"__x64_sys_"
#define NR_MMAP			9
#define NR_MUNMAP		11
#define NR_IOCTL		16
#define NR_MADVISE		28
#define NR_FALLOCATE		285
#else
#define SYSCALL_PREFIX		"__arm64_sys_"
#define NR_IOCTL		29
#define NR_FALLOCATE		47
#define NR_MUNMAP		215
#define NR_MMAP			222
#define NR_MADVISE		233
#endif

#define ADV_DONTNEED		4
#define ADV_REMOVE		9
#define ADV_POPULATE_READ	22
#define ADV_POPULATE_WRITE	23
#define ADV_DONTNEED_LOCKED	24
#define ADV_COLLAPSE		25

#define FL_PUNCH_HOLE		0x02

/* The registers with which @task entered the kernel */
static __always_inline struct pt_regs *entry_regs(struct task_struct *task)
{
	return (struct pt_regs *)bpf_task_pt_regs(task);
}

/* The system call that they belong to; -1 if it was a fault or an interrupt */
static __always_inline long syscall_nr(struct pt_regs *regs)
{
#ifdef __TARGET_ARCH_x86
	return (long)regs->orig_ax;
#else
	return regs->syscallno;
#endif
}

/* What it is asked for; the first one of arm64 makes room for the result */
#ifdef __TARGET_ARCH_x86
#define SYSCALL_ARG0(regs)	((regs)->di)
#define SYSCALL_ARG1(regs)	((regs)->si)
#define SYSCALL_ARG2(regs)	((regs)->dx)
#define SYSCALL_ARG3(regs)	((regs)->r10)
#else
#define SYSCALL_ARG0(regs)	((regs)->orig_x0)
#define SYSCALL_ARG1(regs)	((regs)->regs[1])
#define SYSCALL_ARG2(regs)	((regs)->regs[2])
#define SYSCALL_ARG3(regs)	((regs)->regs[3])
#endif

static __always_inline long entry_syscall(struct task_struct *task)
{
	return syscall_nr(entry_regs(task));
}

/*
 * No thread of the process is left. The tracepoint tells since 6.16 ("exit:
 * move and extend sched_process_exit() tracepoint"); the count is there always.
 */
static __always_inline bool is_last_thread(struct task_struct *task)
{
	return BPF_CORE_READ(task, signal, live.counter) == 0;
}

#endif

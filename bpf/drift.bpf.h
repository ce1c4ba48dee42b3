/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * All that the tracer takes from the kernel and that differs between kernels
 * and architectures, or that no BTF has.
 */
#ifndef FPH_DRIFT_BPF_H
#define FPH_DRIFT_BPF_H

#ifndef __TARGET_ARCH_x86
#error "the page fault tracepoints and the system call numbers are those of x86-64"
#endif

/* Error code of a page fault: the page was there; it was a write */
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

/* System calls, and what they are asked for */
#define NR_MMAP			9
#define NR_MUNMAP		11
#define NR_IOCTL		16
#define NR_MREMAP		25
#define NR_MADVISE		28
#define NR_FALLOCATE		285

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

/* -1 if it entered by a fault or an interrupt */
static __always_inline long entry_syscall(struct task_struct *task)
{
	return (long)entry_regs(task)->orig_ax;
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

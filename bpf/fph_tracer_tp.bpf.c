// SPDX-License-Identifier: GPL-2.0-only
/*
 * The tracer with tracepoints only, for kernels that refuse fentry. They tell
 * when a fault begins, not when it ends, and nothing of faults that the kernel
 * takes for itself (KVM, O_DIRECT, vhost in a kernel thread of its own).
 *
 *   bpftool prog loadall fph_tracer_tp.bpf.o /sys/fs/bpf/fph \
 *       pinmaps /sys/fs/bpf/fph/maps autoattach
 */
#include "tracer.bpf.h"

static __always_inline int
page_fault(unsigned long addr, __u64 ip, unsigned long error)
{
	struct fph_target *target = current_target();
	bool write = error & PF_WRITE;
	struct fph_range *range;

	if (!target)
		return 0;
	range = find_range(target, addr);
	if (range && paused())
		return 0;
	if (range && !write && !(error & PF_PROT))
		zero_mapped(range, addr);
	return fault(range, addr, ip, write ? FPH_WRITE : FPH_READ);
}

SEC("tp_btf/page_fault_user")
int BPF_PROG(fph_fault_user, unsigned long addr, struct pt_regs *regs,
	     unsigned long error)
{
	return page_fault(addr, regs->ip, error);
}

SEC("tp_btf/page_fault_kernel")
int BPF_PROG(fph_fault_kernel, unsigned long addr, struct pt_regs *regs,
	     unsigned long error)
{
	return page_fault(addr, 0, error);
}

/*
 * Is the thread still in that fault? A program can fault at one instruction
 * again and again, but not without a new event. The kernel's own faults end
 * with the system call at the latest.
 */
static __always_inline bool
still_in(struct pending *pending, struct task_struct *task)
{
	long nr = entry_syscall(task);

	if (!pending->ip)
		return nr != -1;
	return nr == -1 && entry_regs(task)->ip == pending->ip;
}

SEC("tp_btf/mm_page_alloc")
int BPF_PROG(fph_page_alloc, struct page *page, unsigned int order, gfp_t gfp)
{
	struct task_struct *task;
	struct pending *pending;

	if (!page || !(gfp & GFP_MOVABLE) || gfp & GFP_WRITE)
		return 0;
	task = bpf_get_current_task_btf();
	pending = pending_of(task);
	if (pending && pending->addr && still_in(pending, task))
		return fault_takes(pending, order);
	/* Nobody told the address: the scan has to find the page */
	if (entry_syscall(task) == NR_IOCTL && current_target() && !paused())
		fph_count(FPH_KVM, 1ull << (order & 31));
	return 0;
}

/* The file that is @fd here */
static __always_inline int
punched_fd(struct fph_target *target, __u32 fd, __u64 offset, __u64 len)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct fdtable *fdt = BPF_CORE_READ(task, files, fdt);
	struct file **files = BPF_CORE_READ(fdt, fd), *file = NULL;

	if (fd >= BPF_CORE_READ(fdt, max_fds))
		return 0;
	bpf_probe_read_kernel(&file, sizeof(file), files + fd);
	return punched(target, BPF_CORE_READ(file, f_inode, i_ino),
		       BPF_CORE_READ(file, f_inode, i_sb, s_dev), offset, len, FPH_PUNCH);
}

static __always_inline int syscall_done(struct pt_regs *regs, long ret)
{
	long nr = syscall_nr(regs);
	struct fph_target *target;
	__u64 start, len;

	if (nr != NR_MADVISE && nr != NR_FALLOCATE && nr != NR_MUNMAP &&
	    nr != NR_MMAP)
		return 0;
	if (failed(ret))
		return 0;
	target = current_target();
	if (!target || paused())
		return 0;
	if (nr == NR_FALLOCATE)
		return SYSCALL_ARG1(regs) & FL_PUNCH_HOLE ?
		       punched_fd(target, SYSCALL_ARG0(regs), SYSCALL_ARG2(regs),
				  SYSCALL_ARG3(regs)) : 0;
	start = nr == NR_MMAP ? ret : SYSCALL_ARG0(regs);
	len = SYSCALL_ARG1(regs);
	if (nr == NR_MADVISE)
		return advised(target, start, start + len, SYSCALL_ARG2(regs), true);
	return change_ranges(target, start, start + len, FPH_UNMAP, IN_PRIVATE);
}

SEC("tp_btf/sys_exit")
int BPF_PROG(fph_sys_exit, struct pt_regs *regs, long ret)
{
	struct pending *pending = pending_of(bpf_get_current_task_btf());

	if (pending)
		pending->addr = 0;
	return syscall_done(regs, ret);
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(fph_exit, struct task_struct *task)
{
	return is_last_thread(task) ? forget(task->tgid) : 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(fph_exec, struct task_struct *task)
{
	return forget(task->tgid);
}

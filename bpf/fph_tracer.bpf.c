// SPDX-License-Identifier: GPL-2.0-only
/*
 * The complete tracer: each fault, whoever takes it, and each unmapping.
 *
 *   bpftool prog loadall fph_tracer.bpf.o /sys/fs/bpf/fph \
 *       pinmaps /sys/fs/bpf/fph/maps autoattach
 */
#include "tracer.bpf.h"

/* Faults in the memory of others (ptrace) are not those of their threads */
static __always_inline struct fph_target *own_target(struct vm_area_struct *vma)
{
	struct task_struct *task = bpf_get_current_task_btf();

	return vma->vm_mm == task->mm ? target_of(task) : NULL;
}

/* Who asks for the page, if it is not the program */
static __always_inline __u32 fault_cause(bool write)
{
	switch (entry_syscall(bpf_get_current_task_btf())) {
	case NR_IOCTL:
		return FPH_KVM;
	case NR_MADVISE:
		return FPH_POPULATE;
	}
	return write ? FPH_WRITE : FPH_READ;
}

SEC("fentry/handle_mm_fault")
int BPF_PROG(fph_fault, struct vm_area_struct *vma, unsigned long addr,
	     unsigned int flags)
{
	struct fph_target *target = own_target(vma);
	bool write = flags & FAULT_WRITE;
	struct fph_range *range;

	if (!target)
		return 0;
	range = find_range(target, addr);
	if (range && paused())
		return 0;
	return fault(range, addr, 0, fault_cause(write));
}

SEC("fexit/handle_mm_fault")
int BPF_PROG(fph_fault_done, struct vm_area_struct *vma, unsigned long addr,
	     unsigned int flags, struct pt_regs *regs, unsigned int ret)
{
	struct pending *pending = pending_of(bpf_get_current_task_btf());
	struct fph_target *target;
	struct fph_range *range;

	/* It was in no range yet: neither is this fault */
	if (!pending)
		return 0;
	target = own_target(vma);
	if (!target)
		return 0;
	pending->addr = 0;
	range = find_range(target, addr);
	if (range && !(flags & FAULT_WRITE) && !(ret & FAULT_NOT_DONE) && !paused())
		zero_mapped(range, addr);
	return 0;
}

SEC("tp_btf/mm_page_alloc")
int BPF_PROG(fph_page_alloc, struct page *page, unsigned int order, gfp_t gfp)
{
	struct pending *pending;

	if (!page || !(gfp & GFP_MOVABLE))
		return 0;
	pending = pending_of(bpf_get_current_task_btf());
	return pending && pending->addr ? fault_takes(pending, order) : 0;
}

SEC("fentry/unmap_page_range")
int BPF_PROG(fph_zap, struct mmu_gather *tlb, struct vm_area_struct *vma,
	     unsigned long addr, unsigned long end)
{
	struct fph_target *target = own_target(vma);
	long nr;

	if (!target || paused())
		return 0;
	nr = entry_syscall(bpf_get_current_task_btf());
	return change_ranges(target, addr, end,
			     nr == NR_MADVISE ? FPH_MADVISE : FPH_UNMAP, IN_PRIVATE);
}

/*
 * Holes: fallocate() makes them by this function, madvise(MADV_REMOVE) and io_uring as
 * well. Unlike a hook on the end of each system call it costs no other one.
 */
SEC("fexit/vfs_fallocate")
int BPF_PROG(fph_punch, struct file *file, int mode, loff_t offset, loff_t len, int ret)
{
	struct fph_target *target;

	if (ret || !(mode & FL_PUNCH_HOLE))
		return 0;
	target = current_target();
	if (!target || paused())
		return 0;
	return punched(target, file->f_inode->i_ino, file->f_inode->i_sb->s_dev, offset, len,
		       entry_syscall(bpf_get_current_task_btf()) == NR_MADVISE ?
		       FPH_MADVISE : FPH_PUNCH);
}

/*
 * What takes memory without a fault, as for a huge page that was asked for. This is the
 * system call itself: the kernel reaches it by its number, so nothing is missed.
 */
SEC("fexit/" SYSCALL_PREFIX "madvise")
int BPF_PROG(fph_advised, struct pt_regs *regs, long ret)
{
	struct fph_target *target;
	__u64 start;

	if (failed(ret))
		return 0;
	target = current_target();
	if (!target || paused())
		return 0;
	start = SYSCALL_ARG0(regs);
	return advised(target, start, start + SYSCALL_ARG1(regs), SYSCALL_ARG2(regs), false);
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

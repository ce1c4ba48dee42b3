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

	return vma->vm_mm == task->mm ? current_target() : NULL;
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
	return fault(range, addr, 0, write, fault_cause(write));
}

SEC("fexit/handle_mm_fault")
int BPF_PROG(fph_fault_done, struct vm_area_struct *vma, unsigned long addr,
	     unsigned int flags, struct pt_regs *regs, unsigned int ret)
{
	struct fph_target *target = own_target(vma);
	struct fph_range *range;
	struct pending *pending;

	if (!target)
		return 0;
	pending = bpf_task_storage_get(&fph_faults, bpf_get_current_task_btf(),
				       NULL, 0);
	if (pending)
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
	pending = bpf_task_storage_get(&fph_faults, bpf_get_current_task_btf(),
				       NULL, 0);
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

SEC("tp_btf/sys_exit")
int BPF_PROG(fph_sys_exit, struct pt_regs *regs, long ret)
{
	return syscall_done(regs, ret, false);
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

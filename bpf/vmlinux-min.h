/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The few kernel types that the tracer reads, for machines whose kernel has no
 * BTF to make vmlinux.h of. Fields are found by name when the object is loaded
 * (CO-RE), so their places here do not matter.
 */
#ifndef __VMLINUX_H__
#define __VMLINUX_H__

#include <linux/bpf.h>
#include <stdbool.h>
#include <stddef.h>

typedef unsigned int gfp_t;
typedef long long loff_t;

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	int counter;
} atomic_t;

struct bpf_local_storage;
struct bpf_map;
struct mm_struct;
struct mmu_gather;
struct page;

#ifdef __TARGET_ARCH_x86
struct pt_regs {
	unsigned long r10;
	unsigned long ax;
	unsigned long dx;
	unsigned long si;
	unsigned long di;
	unsigned long orig_ax;
	unsigned long ip;
};
#else
struct pt_regs {
	__u64 regs[31];
	__u64 orig_x0;
	__s32 syscallno;
};
#endif

struct super_block {
	__u32 s_dev;
};

struct inode {
	struct super_block *i_sb;
	unsigned long i_ino;
};

struct file {
	struct inode *f_inode;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct signal_struct {
	atomic_t live;
};

struct task_struct {
	struct mm_struct *mm;
	int tgid;
	struct files_struct *files;
	struct signal_struct *signal;
	struct bpf_local_storage *bpf_storage;
};

struct vm_area_struct {
	struct mm_struct *vm_mm;
};

#pragma clang attribute pop

#endif

/*
 * What differs between the versions of QEMU that fph is made for
 *
 * Each entry names the version that brought the difference, and why it matters
 * here.  No other file of ours asks for a version.  An entry goes when the last
 * series before its version does (docs/porting.md).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef SYSTEM_FPH_COMPAT_H
#define SYSTEM_FPH_COMPAT_H

#define FPH_QEMU_SINCE(major, minor) \
    (QEMU_VERSION_MAJOR > (major) || \
     (QEMU_VERSION_MAJOR == (major) && QEMU_VERSION_MINOR >= (minor)))

/* 10.1: what user-mode emulation has no use for moved from exec/ to system/ */
#if FPH_QEMU_SINCE(10, 1)
#include "system/address-spaces.h"
#include "system/memory.h"
#include "system/ramblock.h"
#else
#include "exec/address-spaces.h"
#include "exec/memory.h"
#include "exec/ramblock.h"
#endif

/* 10.1: a class cannot change what its type was registered with */
#if FPH_QEMU_SINCE(10, 1)
typedef const void FphClassData;
#else
typedef void FphClassData;
#endif

/* 10.1: a device can refuse a status; ours does not */
#if FPH_QEMU_SINCE(10, 1)
typedef int FphStatusTaken;
#define FPH_STATUS_TAKEN 0
#else
typedef void FphStatusTaken;
#define FPH_STATUS_TAKEN
#endif

#endif

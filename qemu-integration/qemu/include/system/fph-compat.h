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

/* 11.0: headers moved, which not all of our files need */
#if FPH_QEMU_SINCE(11, 0)
#define FPH_BOARDS_H "hw/core/boards.h"
#define FPH_QDEV_H "hw/core/qdev.h"
#define FPH_QDEV_PROPERTIES_H "hw/core/qdev-properties.h"
#define FPH_RAMLIST_H "system/ramlist.h"
#else
#define FPH_BOARDS_H "hw/boards.h"
#define FPH_QDEV_H "hw/qdev-core.h"
#define FPH_QDEV_PROPERTIES_H "hw/qdev-properties.h"
#define FPH_RAMLIST_H "exec/ramlist.h"
#endif

/*
 * 11.0: the switch to postcopy is an event of its own.  Before, it was DONE,
 * which came again at the end; and the names spoke of precopy.
 */
#if FPH_QEMU_SINCE(11, 0)
#define FPH_EVENT_SETUP MIG_EVENT_SETUP
#define FPH_EVENT_POSTCOPY MIG_EVENT_POSTCOPY_START
#define FPH_EVENT_DONE MIG_EVENT_DONE
#define FPH_EVENT_FAILED MIG_EVENT_FAILED
#else
#define FPH_EVENT_SETUP MIG_EVENT_PRECOPY_SETUP
#define FPH_EVENT_POSTCOPY MIG_EVENT_PRECOPY_DONE
#define FPH_EVENT_DONE MIG_EVENT_PRECOPY_DONE
#define FPH_EVENT_FAILED MIG_EVENT_PRECOPY_FAILED
#endif

/*
 * 11.1: dirty_sync_count is raised once an iteration, after its sync; neither
 * the last sync nor those of auto-converge raise it.  So a hook in
 * migration_bitmap_sync() counts (ram_sync_begins()).
 */
#if FPH_QEMU_SINCE(11, 1)
#define FPH_COUNTS_SYNCS
#endif

/* 11.1: an object that cannot be deleted says so itself */
#if FPH_QEMU_SINCE(11, 1)
#define fph_can_be_deleted prepare_delete
#define FPH_DELETE_ERRP , Error **errp
#define FPH_REFUSE_DELETE(obj) \
    error_setg(errp, "object '%s' is in use, can not be deleted", \
               object_get_canonical_path_component(obj))
#else
#define fph_can_be_deleted can_be_deleted
#define FPH_DELETE_ERRP
#define FPH_REFUSE_DELETE(obj) do { } while (0)
#endif

#endif

/*
 * fph-source: what the user asked for
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BACKENDS_FPH_CONFIG_H
#define BACKENDS_FPH_CONFIG_H

#include "qapi/qapi-types-fph.h"
#include "qapi/qapi-types-qom.h"

/*
 * The properties of an fph-source object.  Nothing but @prescan_cpu changes
 * after its creation; threads use them when it is gone, so they are counted.
 */
typedef struct FphConfig {
    FphMode mode;
    FphScannerKind scanner;
    char *pv_device;
    char *tracer;
    bool dry_run;
    FphVerify verify;
    bool assume_zero_destination;
    bool prescan;
    uint8_t prescan_cpu;        /* percent of one CPU; atomic */
    uint32_t pv_wait;           /* ms */
    uint32_t pv_delay;          /* ms, for tests */
} FphConfig;

static inline FphConfig *fph_config_new(void)
{
    return g_atomic_rc_box_new0(FphConfig);
}

static inline FphConfig *fph_config_ref(FphConfig *config)
{
    return g_atomic_rc_box_acquire(config);
}

static inline void fph_config_clear(gpointer opaque)
{
    FphConfig *config = opaque;

    g_free(config->pv_device);
    g_free(config->tracer);
}

static inline void fph_config_unref(FphConfig *config)
{
    g_atomic_rc_box_release_full(config, fph_config_clear);
}

static inline bool fph_config_asks_host(const FphConfig *config)
{
    return config->mode != FPH_MODE_PV;
}

static inline bool fph_config_asks_guest(const FphConfig *config)
{
    return config->mode != FPH_MODE_PAGEMAP;
}

#endif

/*
 * fph-source: a QEMU without a balloon device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "fph-balloon.h"

FphHinter *fph_balloon_new(Object *balloon)
{
    return NULL;
}

DeviceState *fph_balloon_device(FphHinter *h)
{
    g_assert_not_reached();
}

/*
 * fph-source: the balloon's free page hints as a transport
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BACKENDS_FPH_BALLOON_H
#define BACKENDS_FPH_BALLOON_H

#include "system/fph.h"

/*
 * A hinter for the free page hints of @balloon, a virtio-balloon device.  NULL
 * if the device was not given that feature.
 */
FphHinter *fph_balloon_new(Object *balloon);
DeviceState *fph_balloon_device(FphHinter *h);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What held-vcpu.c and its test agree on: see there. */
#ifndef FPH_HELD_VCPU_H
#define FPH_HELD_VCPU_H

#define HOLD	'1'
#define HELD	'2'
#define FREE	'0'

#endif

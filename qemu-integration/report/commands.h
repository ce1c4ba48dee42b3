/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The subcommands of fph-report. Return: an exit status of cli.h. */
#ifndef FPH_REPORT_COMMANDS_H
#define FPH_REPORT_COMMANDS_H

int cmd_run(int argc, char **argv);
int cmd_compare(int argc, char **argv);
int cmd_attach(int argc, char **argv);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Other people's bytes, for a terminal */
#ifndef FPH_TEXT_H
#define FPH_TEXT_H

/**
 * text_printable() - @bytes as one line of UTF-8 that may go to a terminal
 *
 * Names of processes, mappings and files, answers of a QEMU, and what others
 * recorded can hold anything. What is no text becomes U+FFFD, and what would
 * control the terminal, also by one of U+0080 to U+009F, a '?'.
 */
char *text_printable(const char *bytes);

#endif

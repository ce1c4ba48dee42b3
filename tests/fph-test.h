/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the tests share: the only file that knows cmocka.
 *
 * A suite adds its cases and ends with fph_test_run(), which maps the number
 * of failures to 0 or 1: as an exit status 77 failures would read as a skip,
 * and 256 as success.
 */
#ifndef FPH_TEST_H
#define FPH_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

/* abort() is never reached; it tells compilers and analyzers that cond holds */
#define check(cond) do {						\
	if (!(cond)) {							\
		_assert_true(0, #cond, __FILE__, __LINE__);		\
		abort();						\
	}								\
} while (0)
#define check_int(a, b)		assert_int_equal(a, b)
#define check_str(a, b)		assert_string_equal(a, b)
#define check_mem(a, b, n)	assert_memory_equal(a, b, n)

typedef void (*fph_test_fn)(void **state);

struct fph_tests {
	struct CMUnitTest *v;
	size_t n;
};

/* Add a case; @row is what the function finds in *state */
static inline void fph_test_add(struct fph_tests *t, const char *name,
				fph_test_fn fn, const void *row)
{
	t->v = realloc(t->v, (t->n + 1) * sizeof(*t->v));
	if (!t->v)
		abort();
	t->v[t->n++] = (struct CMUnitTest){
		.name = name,
		.test_func = fn,
		.initial_state = (void *)(uintptr_t)row,
	};
}

/* Add each row of a table whose first member is the name of the case */
#define fph_test_add_rows(t, rows, fn) do {				\
	for (size_t i_ = 0; i_ < ARRAY_SIZE(rows); i_++)		\
		fph_test_add(t, (rows)[i_].name, fn, &(rows)[i_]);	\
} while (0)

/* A case that is the only one of its kind, and a table of such */
struct fph_test_single {
	const char *name;
	fph_test_fn fn;
};

#define fph_test_add_singles(t, rows) do {				\
	for (size_t i_ = 0; i_ < ARRAY_SIZE(rows); i_++)		\
		fph_test_add(t, (rows)[i_].name, (rows)[i_].fn, NULL);	\
} while (0)

static inline int fph_test_run(struct fph_tests *t, const char *suite)
{
	int failed = _cmocka_run_group_tests(suite, t->v, t->n, NULL, NULL);

	free(t->v);
	t->v = NULL;
	t->n = 0;
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* Set where the kernel is known to have everything: then a skip is a failure */
static inline bool fph_test_skip_forbidden(void)
{
	const char *s = getenv("FPH_REQUIRE_KERNEL");

	return s && *s && strcmp(s, "0") != 0;
}

/* The whole binary cannot run here */
__attribute__((noreturn, format(printf, 1, 2)))
static inline void fph_test_skip_all(const char *fmt, ...)
{
	va_list ap;

	fputs("SKIP: ", stdout);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
	exit(fph_test_skip_forbidden() ? EXIT_FAILURE : 77);
}

/* One case cannot run here */
#define fph_test_skip(...) do {						\
	print_message("SKIP: " __VA_ARGS__);				\
	print_message("\n");						\
	if (fph_test_skip_forbidden())					\
		fail();							\
	skip();								\
} while (0)

#endif /* FPH_TEST_H */

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Feeds the files of a folder to a fuzz target, once each: what a fuzzer has
 * found stays a test where there is none. It ends at the first that fails.
 */
#include <dirent.h>
#include <limits.h>

#include "fuzz.h"

static void run_file(const char *path)
{
	static unsigned char buf[1 << 20];
	FILE *f = fopen(path, "rb");
	unsigned char *exact;
	size_t len;

	/* not to stdout, whose buffer a crash would lose */
	fprintf(stderr, "%s\n", path);
	must(f);
	len = fread(buf, 1, sizeof(buf), f);
	must(!ferror(f) && len < sizeof(buf));
	fclose(f);
	/* so that a sanitizer sees a step beyond it */
	exact = malloc(len);
	must(exact || !len);
	for (size_t i = 0; i < len; i++)
		exact[i] = buf[i];
	LLVMFuzzerTestOneInput(exact, len);
	free(exact);
}

int main(int argc, char **argv)
{
	struct dirent **names;
	char path[PATH_MAX];
	int n, files = 0;

	if (argc != 2) {
		fprintf(stderr, "Usage: %s FOLDER\n", argv[0]);
		return EXIT_FAILURE;
	}
	n = scandir(argv[1], &names, NULL, alphasort);
	if (n < 0) {
		perror(argv[1]);
		return EXIT_FAILURE;
	}
	for (int i = 0; i < n; i++) {
		if (names[i]->d_name[0] != '.') {
			snprintf(path, sizeof(path), "%s/%s", argv[1], names[i]->d_name);
			run_file(path);
			files++;
		}
		free(names[i]);
	}
	free(names);
	printf("%d files\n", files);
	return files ? EXIT_SUCCESS : EXIT_FAILURE;
}

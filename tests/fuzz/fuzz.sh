#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Build a fuzz target with clang's libFuzzer and run it for some seconds on a
# copy of its corpus. Skips (77) where there is no libFuzzer.
#
# usage: fuzz.sh FOLDER CORPUS [COMPILER ARGUMENT...]
#
# FPH_FUZZ_SECONDS: how long, 5 unless told. An input that fails is left in
# FOLDER; put it into CORPUS when it is mended. To keep what a long run found:
#	FOLDER/target -merge=1 CORPUS FOLDER/corpus
set -eu
folder=$1 corpus=$2
shift 2
cc=${FPH_CLANG:-clang}

skip() {
	echo "SKIP: $*"
	# as in tests/fph-test.h
	case ${FPH_REQUIRE_KERNEL:-0} in
	0) exit 77 ;;
	*) exit 1 ;;
	esac
}

rm -rf "$folder/corpus"
mkdir -p "$folder"
sanitizers=-fsanitize=fuzzer,address,undefined
command -v "$cc" >/dev/null || skip "no $cc, hence no libFuzzer"
echo 'int LLVMFuzzerTestOneInput(void *p, unsigned long n) { return p && n > 99; }' |
	"$cc" $sanitizers -o "$folder/probe" -x c - ||
	skip "$cc cannot link with libFuzzer (Debian: libclang-rt-dev)"

"$cc" -std=gnu11 -D_GNU_SOURCE -g -O1 $sanitizers -fno-sanitize-recover=all \
	-Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers -Werror -o "$folder/target" "$@"
cp -R "$corpus" "$folder/corpus"
# Left alone, libFuzzer ends with 77 when something fails. The seed is fixed, but
# the clock ends it: a slow machine tries less.
exec "$folder/target" -seed=1 -max_total_time="${FPH_FUZZ_SECONDS:-5}" -timeout=20 \
	-error_exitcode=1 -timeout_exitcode=1 -artifact_prefix="$folder/" "$folder/corpus"

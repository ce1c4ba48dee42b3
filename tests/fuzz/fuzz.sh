#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Build a fuzz target with clang's libFuzzer and run it on a copy of its corpus:
# for some seconds, or, the long form, as many times as is asked for, with figures
# at the end. Skips (77) where there is no libFuzzer.
#
# usage: fuzz.sh FOLDER CORPUS [COMPILER ARGUMENT...]
#
# FPH_FUZZ_SECONDS: how long, 5 unless told
# FPH_FUZZ_RUNS: so many executions instead, however long they take; through meson:
#	FPH_FUZZ_RUNS=10000000 meson test -C BUILD -t 0 -v fuzz-maps
# FPH_FUZZ_SANITIZERS: address,undefined unless told; without address it is faster
# FPH_FUZZ_OPTIONS: more words for libFuzzer, as in -max_len=128
#
# An input that fails is left in FOLDER; put it into CORPUS when it is mended. To
# keep what a long run found:
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

# compile OUTPUT ARGUMENT...
compile() {
	output=$1
	shift
	"$cc" -std=gnu11 -D_GNU_SOURCE -g -Wall -Wextra -Wno-unused-parameter \
		-Wno-missing-field-initializers -Werror -o "$output" "$@"
}

# What the corpus reaches by now of each function that it reaches, by a build of its own
coverage() {
	cov=$("$cc" -print-prog-name=llvm-cov) profdata=$("$cc" -print-prog-name=llvm-profdata)
	command -v "$cov" "$profdata" >/dev/null || return 0
	compile "$folder/covered" -O1 -fprofile-instr-generate -fcoverage-mapping \
		"$(dirname "$0")/run-corpus.c" "$@"
	LLVM_PROFILE_FILE=$folder/profraw "$folder/covered" "$folder/corpus" 2>/dev/null
	"$profdata" merge -o "$folder/profdata" "$folder/profraw"
	sources=
	for arg; do
		case $arg in
		*.c) sources="$sources $arg" ;;
		esac
	done
	# shellcheck disable=SC2086 # words
	"$cov" report -show-functions -instr-profile="$folder/profdata" "$folder/covered" $sources |
		awk 'NF > 6 && $5 ~ /^[0-9]/ && $1 != "TOTAL" && $5 != $6 { print $1, $5, $6, $7 }'
}

rm -rf "$folder/corpus"
mkdir -p "$folder"
sanitizers=-fsanitize=fuzzer,${FPH_FUZZ_SANITIZERS:-address,undefined}
command -v "$cc" >/dev/null || skip "no $cc, hence no libFuzzer"
echo 'int LLVMFuzzerTestOneInput(void *p, unsigned long n) { return p && n > 99; }' |
	"$cc" "$sanitizers" -o "$folder/probe" -x c - ||
	skip "$cc cannot link with libFuzzer (Debian: libclang-rt-dev)"

compile "$folder/target" -O1 "$sanitizers" -fno-sanitize-recover=all "$@"
cp -R "$corpus" "$folder/corpus"
if [ -n "${FPH_FUZZ_RUNS-}" ]; then
	limit="-runs=$FPH_FUZZ_RUNS -print_final_stats=1"
else
	# The seed is fixed, but the clock ends it: a slow machine tries less
	limit=-max_total_time=${FPH_FUZZ_SECONDS:-5}
fi
# Left alone, libFuzzer ends with 77 when something fails
# shellcheck disable=SC2086 # words
"$folder/target" -seed=1 $limit -timeout=20 ${FPH_FUZZ_OPTIONS-} \
	-error_exitcode=1 -timeout_exitcode=1 -artifact_prefix="$folder/" "$folder/corpus"
[ -z "${FPH_FUZZ_RUNS-}" ] || coverage "$@"

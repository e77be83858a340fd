#!/usr/bin/env bash
# Build and run all tests: as released, with the address and undefined-behaviour sanitizers, with the
# thread sanitizer; then fuzz each reader for a minute. --fast: only as released.
set -euo pipefail

cd "$(realpath -m "${BASH_SOURCE[0]}/../..")"
# shellcheck disable=SC1091  # checked by itself
source scripts/packages.sh

case $* in
'') presets=(test asan tsan) fuzz_seconds=60 ;;
--fast) presets=(test) fuzz_seconds=0 ;;
*) echo "Usage: test.sh [--fast]    (--fast: without the sanitizers' builds and fuzzing)" >&2; exit 2 ;;
esac

need_packages "${BUILD_PACKAGES[@]}" "${DOWNLOAD_PACKAGES[@]}" "${TEST_PACKAGES[@]}"
((fuzz_seconds == 0)) || need_clang

# A failure in one build does not keep the others from running.
failed=()
for preset in "${presets[@]}"; do
    echo "== $preset"
    start=()
    if [[ $preset == tsan ]]; then
        # It cannot work with every layout of memory that a kernel may draw, nor may all ask for one.
        ! setarch -R true 2>/dev/null || start=(setarch -R)
        mkdir -p build
        echo 'int main(void) { return 0; }' | clang -fsanitize=thread -x c -o build/tsan_probe -
        if ! "${start[@]}" build/tsan_probe; then
            echo 'SKIPPED: the thread sanitizer does not run here'
            continue
        fi
    fi
    cmake --preset "$preset" &&
        cmake --build --preset "$preset" &&
        "${start[@]}" ctest --preset "$preset" --output-on-failure --no-tests=error ||
        failed+=("$preset")
done

# What cuDNN's engines would do on a GPU: the table that one of the tests prints.
sed -n '/^| layer/,/^[^|]/p' build/test/Testing/Temporary/LastTest.log | grep '^|' || true

if ((fuzz_seconds > 0)); then
    echo '== fuzz'
    scripts/fuzz.sh "$fuzz_seconds" || failed+=(fuzz)
fi

if ((${#failed[@]})); then
    echo "test.sh: failed: ${failed[*]}" >&2
    exit 1
fi

#!/usr/bin/env bash
# Build and run the tests, on two cores in about 6 minutes, with --all in 20.
#
#     ./scripts/test.sh [--all]
#
# All tests run as released, and under the sanitizers for addresses and undefined behaviour those of files,
# options and ops. --all adds those that take long (Valgrind, hundreds of crashes), the other tests under
# these sanitizers, the thread sanitizer, and a minute of fuzzing each reader.
set -euo pipefail

cd "$(realpath -m "${BASH_SOURCE[0]}/../..")"
# shellcheck disable=SC1091  # checked by itself
source scripts/packages.sh

all=false
case $* in
'') ;;
--all) all=true ;;
*) echo "Usage: test.sh [--all]    (--all: also what takes long, all under each sanitizer, and fuzzing)" >&2; exit 2 ;;
esac

presets=(test asan) packages=("${BUILD_PACKAGES[@]}" "${DOWNLOAD_PACKAGES[@]}" "${TEST_PACKAGES[@]}")
declare -A chosen=([test]='-LE long' [asan]='-LE long -L files|options|ops') # labels: tests/CMakeLists.txt
if $all; then
    presets+=(tsan) packages+=("${CHECK_PACKAGES[@]}" "${CLANG_PACKAGES[@]}") chosen=()
fi
need_packages "${packages[@]}"
! $all || need_clang_runtime

# A failure in one build does not keep the others from running.
failed=()
for preset in "${presets[@]}"; do
    echo "== $preset"
    start=()
    if [[ $preset == tsan ]]; then
        # It cannot work with every layout of memory that a kernel may draw, nor may all ask for one.
        ! setarch -R true 2>/dev/null || start=(setarch -R)
        echo 'int main(void) { return 0; }' | clang -fsanitize=thread -x c -o build/tsan_probe -
        if ! "${start[@]}" build/tsan_probe; then
            echo 'SKIPPED: the thread sanitizer does not run here'
            continue
        fi
    fi
    read -ra labels <<<"${chosen[$preset]-}"
    cmake --preset "$preset" &&
        cmake --build --preset "$preset" &&
        "${start[@]}" ctest --preset "$preset" --parallel "$(nproc)" --no-tests=error "${labels[@]}" ||
        failed+=("$preset")
done

# What cuDNN's engines would do on a GPU: the table that one of the tests prints.
sed -n '/^| layer/,/^[^|]/p' build/test/Testing/Temporary/LastTest.log | grep '^|' || true

if $all; then
    echo '== fuzz'
    scripts/fuzz.sh 60 || failed+=(fuzz)
fi

if ((${#failed[@]})); then
    echo "test.sh: failed: ${failed[*]}" >&2
    exit 1
fi

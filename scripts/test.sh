#!/usr/bin/env bash
# Build and run all tests, twice: as released, and with the address and undefined-behaviour
# sanitizers. --fast: only as released.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck disable=SC1091  # checked by itself
source scripts/packages.sh

case $* in
'') presets=(test asan) ;;
--fast) presets=(test) ;;
*) echo "Usage: test.sh [--fast]    (--fast: without the sanitizers' build)" >&2; exit 2 ;;
esac

need_packages "${BUILD_PACKAGES[@]}" "${DOWNLOAD_PACKAGES[@]}" "${TEST_PACKAGES[@]}"

# A failure in one build does not keep the other from running.
failed=()
for preset in "${presets[@]}"; do
    echo "== $preset"
    cmake --preset "$preset" &&
        cmake --build --preset "$preset" &&
        ctest --preset "$preset" --output-on-failure --no-tests=error ||
        failed+=("$preset")
done

# What cuDNN's engines would do on a GPU: the table that one of the tests prints.
sed -n '/^| layer/,/^[^|]/p' build/test/Testing/Temporary/LastTest.log | grep '^|' || true

if ((${#failed[@]})); then
    echo "test.sh: failed: ${failed[*]}" >&2
    exit 1
fi

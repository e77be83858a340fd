#!/usr/bin/env bash
# style_test.sh c|shell|python: .clang-format as version 14 reads it, which is Debian 12's; shellcheck; and that
# each Python file compiles. Status 77: the tool is not here.
set -euo pipefail
cd "$(realpath -m "${BASH_SOURCE[0]}/../..")"

skip() { echo "SKIPPED: $*"; exit 77; }
files() { find src include tests scripts .ci -type f \( "$@" \) | LC_ALL=C sort; }

c() {
    local tool
    for tool in clang-format-14 clang-format ''; do
        [[ -n $tool ]] || skip 'there is no clang-format 14 here'
        ! "$tool" --version 2>/dev/null | grep -q 'version 14\.' || break
    done
    files -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' | xargs "$tool" --dry-run --Werror
}

shell() {
    command -v shellcheck >/dev/null || skip 'there is no shellcheck here'
    files -name '*.sh' -o -path .ci/run | xargs shellcheck --external-sources
}

python() {
    command -v python3 >/dev/null || skip 'there is no python3 here'
    files -name '*.py' | xargs python3 -c 'import sys; [compile(open(path).read(), path, "exec") for path in sys.argv[1:]]'
}

"$1"
echo "the files are as $1 wants them"

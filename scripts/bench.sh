#!/usr/bin/env bash
# Measure this program against PyTorch on this machine, then each op against the peak of the processor,
# and print tables in Markdown, ready for BENCHMARKS.md. Needs a Python with torch and numpy from PyPI,
# named by $PYTHON.
#
#     PYTHON=~/venv/bin/python ./scripts/bench.sh [--data DIR] [options of scripts/pytorch/bench.py]
set -euo pipefail

root=$(realpath -m "${BASH_SOURCE[0]}/../..")
# shellcheck disable=SC1091  # checked by itself
source "$root/scripts/packages.sh"
python=${PYTHON:-python3}
data=${CIFAR10_DIR:-$root/data/cifar-10-batches-bin}
if [[ ${1-} == --data ]]; then
    data=${2:?--data: a folder is expected behind it}
    shift 2
fi
[[ -f $data/data_batch_1.bin ]] || {
    echo "bench: $data: no data_batch_1.bin there; name the folder of the batches with --data" >&2
    echo "(./scripts/get_data.sh gets them)" >&2
    exit 3
}
need_packages "${BUILD_PACKAGES[@]}" "${TEST_PACKAGES[@]}" python3-venv
"$python" -c 'import torch, numpy' 2>/dev/null || {
    echo "bench: $python has no torch and numpy; make an environment that has them:" >&2
    echo "    python3 -m venv ~/venv && ~/venv/bin/pip install torch numpy" >&2
    echo "and run this again with PYTHON=~/venv/bin/python" >&2
    exit 1
}
(cd "$root" && cmake --preset test && cmake --build --preset test) >&2
"$python" "$root/scripts/pytorch/bench.py" "$root/build/test/cifar" "$data" "$@"
export GOMP_SPINCOUNT=1000 # as the program sets it for itself
for batch in 10 128; do
    for threads in $(printf '%s\n' 1 "$(nproc)" | uniq); do
        echo
        "$root/build/test/tests/op_bench" cpu "$batch" "$threads" 5
    done
done

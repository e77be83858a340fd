#!/usr/bin/env bash
# OpenBLAS is loaded where it computes and nowhere else, and starts no thread there. Takes the programs from
# $BIN.
set -euo pipefail

# shellcheck source=tests/checks.sh
source "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
loads_it() { LD_DEBUG=files "$@" 2>&1 >/dev/null | grep 'calling init: .*libopenblas'; }
loads_none() { ! loads_it "$@"; }
threads_of() { # DEVICE: of a training with one
    start OPENBLAS_NUM_THREADS=4 cifar-train --data data --device "$1" --threads 1 --epochs 1000000 --quiet \
        --model "$1/best.ckpt"
    await test -e "$1/last.ckpt"
    find "/proc/$started/task" -mindepth 1 -maxdepth 1 | wc -l
    kill -9 "$started"
}

check 'cifar-synth' loads_none cifar-synth data --train 20 --test 10
check '--version' loads_none cifar --version
check '--device cpu' loads_none cifar-train --data data --epochs 1 --quiet --device cpu
check '--device openblas' loads_it cifar-test --data data --grid '' --device openblas
cifar-test --data data --grid '' --device openblas --threads 1000 >"$out"
check 'it says what computes' has "$out" '^device  openblas: OpenBLAS [0-9.]+, kernels for \w+, 64 threads$'
mkdir cpu openblas
cpu=$(threads_of cpu) openblas=$(threads_of openblas)
check 'no thread of its own' test "$openblas" = "$cpu"

mkdir none && echo 'no library' >none/libopenblas.so.0
fails 5 '^cifar-test: --device openblas: OpenBLAS cannot be loaded \(.*libopenblas.so.0: .*\); install it' \
    LD_LIBRARY_PATH=none cifar-test --data data --grid '' --device openblas
check 'the others do without' env LD_LIBRARY_PATH=none cifar-test --data data --grid ''

end_checks

#!/usr/bin/env bash
# A short life of a run under Valgrind: trained, stopped, gone on with, tested, reported on, diverged, on
# both CPU backends. No error, and nothing lost. Takes the programs from $BIN.
set -euo pipefail

# shellcheck source=tests/checks.sh
source "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
command -v valgrind >/dev/null || { echo 'SKIPPED: there is no valgrind here'; exit 77; }

# STATUS COMMAND...; the stacks of OpenMP's threads, which live to the end, count as "possibly lost".
finds_nothing() {
    status_of valgrind -q --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite,indirect \
        --show-leak-kinds=definite,indirect "${@:2}"
    ((status == $1)) || failed "${*:2}: status $status instead of $1" "$out" "$err"
    check "${*:2}: no word of Valgrind's" lacks "$err" '^==[0-9]+=='
}

# Two steps of a whole batch and one of a smaller one; rows that are no multiple of a vector.
finds_nothing 0 cifar-synth data --train 5 --test 3
finds_nothing 0 cifar-train --data data --epochs 1 --batch 2 --save-every 1 --log-every 1 --log run.jsonl
finds_nothing 0 cifar-train --resume last.ckpt --epochs 2
finds_nothing 0 cifar-train --resume last.ckpt
finds_nothing 2 cifar-train --resume last.ckpt --seed 3
finds_nothing 2 cifar-train --data data
finds_nothing 4 cifar-train --resume best.ckpt
finds_nothing 0 cifar-test --data data
finds_nothing 0 cifar-classes --data data --confusion --json
finds_nothing 0 cifar-predict predictions.png --grid seen.png
finds_nothing 3 cifar-predict . nowhere.png --json
[[ $ONNX == OFF ]] || finds_nothing 0 cifar-export
[[ $ONNX == OFF ]] || finds_nothing 0 cifar-export --keep-batchnorm --pixels --bgr --softmax
mkdir -p own/a own/b && for i in {1..9}; do cp predictions.png "own/a/$i.png" && cp seen.png "own/b/$i.png"; done
finds_nothing 0 cifar-import own made
finds_nothing 6 cifar-train --data data --overwrite --batch 2 --lr 1e30
finds_nothing 0 cifar-train --data data --overwrite --epochs 1 --batch 2 --device openblas --quiet
finds_nothing 4 cifar-test --data data --model run.jsonl
finds_nothing 3 cifar-test --data nowhere

end_checks

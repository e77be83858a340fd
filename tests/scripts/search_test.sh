#!/usr/bin/env bash
# search.py: two recipes with two seeds each; the table, and that no run is taken twice.
# shellcheck disable=SC2016  # the table's own quotes
set -euo pipefail

search=$(realpath -m "${BASH_SOURCE[0]}/../../../scripts/search.py")
# shellcheck source=tests/checks.sh
source "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"

cifar-synth data --train 60 --test 20 >/dev/null
printf '%s\n' '--epochs 1 --batch 20' '# no recipe' '--recipe best --epochs 2 --batch 20' >lines
searches() { python3 "$search" "$BIN/cifar" runs --data data --seeds 0,1 "$@" <lines >table; } # OPTION...
# WHAT of accuracy: a row for each of the recipes, each of two runs
rows() {
    check "the accuracy is of $1 images" has table "\\| train loss \\| $1 accuracy \\|"
    check 'the first recipe' has table '^\| `--epochs 1 --batch 20` \| 1 \| [0-9.]+ \| [0-9.]+ \| [0-9.]+ \| [0-9.]+ \| 2 \|$'
    check 'the second recipe' has table '^\| `--recipe best --epochs 2 --batch 20` \| 2 \| .* \| 2 \|$'
    check 'no other' test "$(wc -l <table)" = 4
}

check 'a search' searches --validation 10
rows validation
cp table first
cat runs/*.jsonl >logs
check 'images are held out' test "$(grep -c '"train_images":50,.*"validation_images":10' logs)" = 4
check 'the last epoch is judged' test "$(grep -c '"selection":"the last epoch"' logs)" = 4
check 'once more' searches --validation 10
check 'no run is taken twice' diff logs <(cat runs/*.jsonl)
check 'nor told otherwise' diff first table
check 'on the test images' searches --test
rows test
check 'these are other runs' test "$(find runs -name '*.jsonl' | wc -l)" = 8

echo '--epochs many' >lines
! searches --test 2>said || failed 'a recipe that cannot be is no error' said
check 'it is told which' has said '^--epochs many, seed 0: cifar-train: --epochs many: a whole number'

end_checks

#!/usr/bin/env bash
# train.sh in a copy of the repository where the build, the download and the programs are stand-ins that
# write down how they were called.
# shellcheck disable=SC2016  # the stand-ins' words are for the stand-ins to expand
set -euo pipefail

scripts=$(realpath -m "${BASH_SOURCE[0]}/../../../scripts")
# shellcheck source=tests/checks.sh
source "$(realpath -m "${BASH_SOURCE[0]}/../../checks.sh")"
export CALLS=$work/calls GET_DATA=0 CMAKE=0

stand_in() { # FILE BODY
    printf '#!/bin/sh\n%s\n' "$2" >"$1"
    chmod +x "$1"
}
mkdir -p root/scripts root/build/release tools
cp "$scripts/train.sh" root/scripts
echo 'BUILD_PACKAGES=(one two); need_packages() { echo "packages $*" >>"$CALLS"; }' >root/scripts/packages.sh
stand_in root/scripts/get_data.sh 'echo "get_data $*" >>"$CALLS"; exit "$GET_DATA"'
stand_in tools/cmake 'echo "cmake $*" >>"$CALLS"; echo "words of the build"; exit "$CMAKE"'
for name in train test classes; do
    stand_in "root/build/release/cifar-$name" "echo \"$name \$*\" >>\"\$CALLS\"; exit \"\${${name^^}-0}\""
done
stand_in root/build/release/cifar-synth 'echo "synth $*" >>"$CALLS"; mkdir "$1" && touch "$1/test_batch.bin"'

# STATUS 'CALL; CALL; ...' ARGUMENT...: how train.sh must end, and what it must call after the packages and
# the build, with ROOT for the copy's folder.
trains() {
    local expected=$1 calls=$2 status=0
    : >calls
    PATH=$work/tools:$PATH root/scripts/train.sh "${@:3}" >out 2>&1 || status=$?
    sed -i "s|$work/root|ROOT|g" calls
    check "status $status of train.sh ${*:3}" test "$status" = "$expected"
    check "train.sh ${*:3}" test "$(tail -n +4 calls | paste -sd ';' | sed 's/;/; /g')" = "$calls"
}

real='--data ROOT/data'
trains 0 "get_data ; train $real; test $real; classes $real"
check 'packages first, then the build' test "$(head -n 3 calls)" = $'packages one two\ncmake --preset release\ncmake --build --preset release'
check 'real data is not called a stand-in' test "$(grep -c stand-in out)" = 0

shared='--model m --device cpu --threads=2'
trains 0 "get_data ; train $real --epochs 1 $shared --quiet; test $real $shared; classes $real $shared" \
    --epochs 1 --model m --device cpu --threads=2 --quiet
trains 0 "get_data ; train $real --model=m --device=cpu --threads 2; test $real --model=m --device=cpu --threads 2; classes $real --model=m --device=cpu --threads 2" \
    --model=m --device=cpu --threads 2

# Data that is there is not fetched again; what is not there, is.
mkdir -p "own data" parent/cifar-10-batches-bin empty
touch 'own data/data_batch_1.bin' parent/cifar-10-batches-bin/test_batch.bin
own='--data own data'
trains 0 "train $own --seed 1; test $own; classes $own" --data 'own data' --seed 1
CIFAR10_DIR=parent trains 0 "train $own; test $own; classes $own" '--data=own data'
trains 0 'train --data parent; test --data parent; classes --data parent' --data parent
CIFAR10_DIR=parent trains 0 'train --data parent; test --data parent; classes --data parent'
CIFAR10_DIR=parent trains 0 "train $own; test $own; classes $own" --data 'own data'
trains 0 "get_data ; train $real; test $real; classes $real" --data empty
check 'data that is not there is told of' grep -q 'empty holds no CIFAR-10 batches' out

# Without a network: the stand-in, drawn once.
made='--data ROOT/data/synthetic'
mkdir -p root/data/synthetic.part # of a run that was broken off
GET_DATA=1 trains 0 "get_data ; synth ROOT/data/synthetic.part; train $made; test $made; classes $made"
check 'the stand-in is told of before and after' test "$(grep -c stand-in out)" = 2
check 'it has its name when it is whole' test -e root/data/synthetic/test_batch.bin -a ! -e root/data/synthetic.part
GET_DATA=1 trains 0 "get_data ; train $made; test $made; classes $made"

# What goes wrong ends it.
GET_DATA=3 trains 3 'get_data '
TRAIN=6 trains 6 "get_data ; train $real"
TEST=4 trains 4 "get_data ; train $real; test $real"
CLASSES=4 trains 4 "get_data ; train $real; test $real; classes $real"
trains 2 '' --data
check 'a forgotten value is told of' grep -q -- '--data: a folder is expected' out
CMAKE=1 trains 1 ''
check "a failed build shows the compiler's words" grep -q 'words of the build' out
trains 0 'train --version' --epochs 1 --version
trains 0 '' --help
check 'help builds nothing' test "$(cat calls)" = 'train --help'
check 'help' grep -q '^Usage: train.sh' out

end_checks

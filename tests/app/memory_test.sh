#!/usr/bin/env bash
# Memory that is not there: allocations that fail, one a run; limits on the address space and on the stack.
# Each run must end, in time and with one message, and leave files that load and that go on to the bytes of
# an undisturbed run. Takes the programs from $BIN, and from $FAILING_MEMORY the library that makes
# allocations fail (fakes/failing_memory.c).
set -euo pipefail

# shellcheck source=tests/checks.sh
source "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"

data=$work/data
cifar-synth "$data" --train 5 --test 5 >/dev/null
train=(cifar-train --data "$data" --quiet --batch 3 --seed 2 --save-every 1 --log-every 1 --log run.jsonl)

enter() { rm -rf "$work/own" "$work/runs" && mkdir "$work/own" "$work/runs" && cd "$work/own"; }
for epochs in 1 2; do
    mkdir "$work/$epochs" && cd "$work/$epochs"
    "${train[@]}" --threads 1 --epochs "$epochs"
done

# --- Allocations that fail.

same() { # EPOCHS: both checkpoints, and the figures of the log, are those of the undisturbed run
    cmp best.ckpt "../$1/best.ckpt" && cmp last.ckpt "../$1/last.ckpt" && diff <(figures "../$1/run.jsonl") <(figures run.jsonl)
}
goes_on() { # WHAT FOLDER EPOCHS: the files there load, and the run comes to its end
    local command=(cifar-train --quiet --resume last.ckpt --epochs "$3") file
    enter
    cp "$2"/* .
    for file in best.ckpt last.ckpt; do [[ ! -e $file ]] || check "$1: $file loads" loads "$data" "$file"; done
    [[ -e last.ckpt ]] || command=("${train[@]}" --epochs "$3" --overwrite)
    check "$1: ${command[*]}" "${command[@]}"
    check "$1: as undisturbed" same "$3"
}

# EPOCHS FROM COMMAND...: in a folder that holds what FROM does; 0 epochs: it is no training.
each_allocation_fails() {
    local epochs=$1 from=$2 states state
    shift 2
    enter
    cp "$from"/* .
    status_of env "LD_PRELOAD=$FAILING_MEMORY" FAULT_RUNS="$work/runs" "$@"
    ((status == 0)) || failed "$*, undisturbed" "$err"
    cd "$work"
    python3 "$tests/app/memory_runs.py" runs own "$out" >judged 2>"$err" || failed "$*: runs that ended badly" "$err"
    mapfile -t states <judged
    echo "${*//$work\//}: ${states[0]}"
    ((epochs > 0)) || return 0
    mv runs kept
    for state in "${states[@]:1}"; do goes_on "$*, allocation $state" "$work/kept/$state" "$epochs"; done
    rm -r "$work/kept"
}

each_allocation_fails 1 "$data" "${train[@]}" --threads 1 --epochs 1
each_allocation_fails 2 "$work/1" cifar-train --quiet --threads 1 --resume last.ckpt --epochs 2
recipe=(--recipe best --batch 3 --average ema --validation 2)
each_allocation_fails 0 "$work/1" cifar-train --data "$data" --quiet --threads 1 --epochs 1 "${recipe[@]}" --init best.ckpt \
    --model new.ckpt --last new-last.ckpt
each_allocation_fails 0 "$work/1" cifar-test --data "$data" --threads 1 --json
# OpenBLAS's small kernels for AVX-512 write to memory that they did not get; those for AVX2 take none.
core=${OPENBLAS_CORETYPE-}
! grep -qw avx512f /proc/cpuinfo || export OPENBLAS_CORETYPE=${core:-Haswell}
each_allocation_fails 0 "$work/1" cifar-test --data "$data" --threads 1 --device openblas
[[ -n $core ]] || unset OPENBLAS_CORETYPE
each_allocation_fails 0 "$work/1" cifar-classes --data "$data" --threads 1 --confusion --json
(cd "$work/1" && cifar-test --data "$data" --grid picture.png >/dev/null)
each_allocation_fails 0 "$work/1" cifar-predict --threads 1 picture.png
[[ $ONNX == OFF ]] || each_allocation_fails 0 "$work/1" cifar-export
# A folder is not a child's own, so this is a run for each.
mkdir "$work/synth" && cd "$work/synth"
for ((n = 1; n <= 40; n++)); do
    status_of env "LD_PRELOAD=$FAILING_MEMORY" FAULT_AT="$n" cifar-synth drawn --train 5 --test 5
    case $status in
    0) check "synth, allocation $n" diff -r "$data" drawn ;;
    1) check "synth, allocation $n: the message" has "$err" '^(cifar(-synth)?|libgomp): .*(memory|allocat|Out of)' ;;
    *) failed "synth, allocation $n: status $status" "$err" ;;
    esac
    [[ ! -e drawn ]] || check "synth, allocation $n: whole" diff -r "$data" drawn
    check "synth, allocation $n: nothing else" test "$(find . -maxdepth 1 -name 'drawn*')" = "$([[ ! -e drawn ]] || echo ./drawn)"
    rm -rf drawn
done

# --- A limit on the address space.

# KILOBYTES COMMAND...: with no more it must end in time, well or with a message: status 5 where OpenBLAS cannot
# be loaded, else 1.
ends_with() {
    status_of prlimit --as=$(($1 * 1024)) timeout -s KILL 10 "${@:2}"
    ends+=$status
    [[ $status == 0 && ! -s $err ]] ||
        { [[ $status == 1 ]] && grep -qE '^(cifar(-train)?: .*out of memory: |libgomp: Thread creation failed)' "$err"; } ||
        { [[ $status == 5 ]] && grep -q 'OpenBLAS cannot be loaded' "$err"; } ||
        failed "at most $1 KB: ${*:2}: status $status" "$err"
}
enter
ends=''
for ((kilobytes = 40000; kilobytes <= 480000; kilobytes += 20000)); do
    for how in '1 --device cpu' '2 --device cpu' '1 --device openblas' '2 --device openblas'; do
        # shellcheck disable=SC2086  # several words
        ends_with $kilobytes cifar-train --data "$data" --quiet --epochs 1 --overwrite --threads $how
    done
done
check 'some had too little, some enough' has <(echo "$ends") '1.*0'

# --- A small stack, of which each of OpenMP's threads gets one, too.

small() { check "a stack of 256 KiB, $*" prlimit --stack=$((256 * 1024)) "$@"; }
enter
small cifar-synth again --train 20 --test 20
for how in '1 --device cpu' '2 --device cpu' '1 --device openblas' '2 --device openblas'; do
    # shellcheck disable=SC2206
    how=(--threads $how)
    small "${train[@]}" --epochs 1 --overwrite "${how[@]}"
    small "${train[@]}" --epochs 1 --model new.ckpt --last new.last "${how[@]}" --log new.jsonl --limit 4
    small cifar-train --quiet --resume last.ckpt --epochs 2 "${how[@]}"
    small cifar-train --quiet --data "$data" --epochs 1 --model new.ckpt --last new.last --overwrite "${recipe[@]}" "${how[@]}"
    small cifar-test --data "$data" "${how[@]}"
    small cifar-classes --data "$data" --json "${how[@]}"
    small cifar-predict predictions.png "${how[@]}"
    rm new.*
done

end_checks

#!/usr/bin/env bash
# Fuzz the readers of files and of the command line (tests/fuzz/): build them by clang with libFuzzer and
# the sanitizers, make the seeds, run the inputs of earlier findings, then each target for a while.
#
#     ./scripts/fuzz.sh [SECONDS [TARGET...]]    60 seconds each of checkpoint, batches, settings, log, picture
#
# As many run at once as there are cores. A target that is named twice runs twice, with one corpus.
# What is found on the way stays in build/fuzz/corpus and is where the next run begins. Exit status 1: there
# is a finding; its input lies in build/fuzz/findings.
set -euo pipefail

cd "$(realpath -m "${BASH_SOURCE[0]}/../..")"
# shellcheck disable=SC1091  # checked by itself
source scripts/packages.sh

shopt -s nullglob # a target need not have had findings

seconds=${1:-60}
targets=("${@:2}")
((${#targets[@]})) || targets=(checkpoint batches settings log picture)
for target in "${targets[@]}"; do
    [[ $seconds =~ ^[1-9][0-9]{0,6}$ && -e tests/fuzz/${target}_fuzz.c ]] || {
        echo "Usage: fuzz.sh [SECONDS [TARGET...]]    (targets: checkpoint, batches, settings, log, picture)" >&2
        exit 2
    }
done

need_packages "${BUILD_PACKAGES[@]}" "${CLANG_PACKAGES[@]}" python3
need_clang_runtime

cmake --preset fuzz
cmake --build --preset fuzz
build=build/fuzz
rm -rf "$build/seeds" # a seed that is no more
python3 tests/fuzz/make_seeds.py "$build/seeds"
mkdir -p "$build/findings"

# One input may take 10 seconds, one allocation 16 MB and the whole process 1 GB, sanitizers and all.
limits=(-timeout=10 -malloc_limit_mb=16 -rss_limit_mb=1024 -print_final_stats=1)

# One target; its line of the report, and 1 if it has a finding.
fuzz() { # TARGET NUMBER
    local target=$1 log=$build/$1.$2.log options=("${limits[@]}" "-artifact_prefix=$build/findings/$1-") known
    local corpus=$build/corpus/$1 binary=$build/tests/fuzz/${1}_fuzz
    mkdir -p "$corpus"
    known=("$build/seeds/$target"/* tests/fuzz/regressions/"$target"/*)
    if ! "$binary" "${options[@]}" "${known[@]}" >"$log" 2>&1; then
        tail -n 40 "$log" >&2
        echo "$target: a seed or an earlier finding fails: $(sed -n 's/^Running: //p' "$log" | tail -n 1)"
        return 1
    fi
    options+=(-max_len=20000 "-max_total_time=$seconds" "-dict=$build/seeds/$target.dict")
    if ! "$binary" "${options[@]}" "$corpus" "$build/seeds/$target" >"$log" 2>&1; then
        grep -vE '^#[0-9]+\s+(NEW|REDUCE|pulse)' "$log" | tail -n 60 >&2
        echo "$target: a finding: $(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)"
        return 1
    fi
    awk -v target="$target" '
        /DONE / { for (i = 1; i < NF; i++) value[$i] = $(i + 1) }
        /^stat::/ { value[$1] = $2 }
        END {
            printf "%-10s  %9d executions  %6d/s  coverage %d edges  corpus %s\n", target,
                value["stat::number_of_executed_units:"], value["stat::average_exec_per_sec:"],
                value["cov:"], value["corp:"]
        }' "$log"
}

failed=0 running=0 number=0
for target in "${targets[@]}"; do
    if ((running == $(nproc))); then
        wait -n || failed=1
        running=$((running - 1))
    fi
    number=$((number + 1)) running=$((running + 1))
    fuzz "$target" "$number" &
done
while ((running--)); do
    wait -n || failed=1
done
exit "$failed"

#!/usr/bin/env bash
# Check the backend `cudnn` on a machine that has an NVIDIA GPU, and measure it beside PyTorch: one
# command of less than 9 minutes, which changes no setting of the GPU.
#
#     ./scripts/gpu_check.sh [--build DIR] [--data DIR] [--out DIR] [--python PYTHON] [--seconds N]
#
# --build   a build folder of the preset `test`, made elsewhere with CUDA; else it is built here
# --data    the folder of CIFAR-10, for the accuracy alone; else $CIFAR10_DIR, else data
# --out     where the logs of all stages, the measurements and report.md go: a new or empty folder, or
#           that of an earlier run, whose files are then replaced; else gpu_check.out
# --python  a Python, for the comparison one with torch; else python3
# --seconds that all may take, 30 at least; else 530
#
# Each stage prints "pass|FAIL name seconds detail". None ends the script or keeps another from
# running, each has a limit, and no group of stages takes the time of the next. Exit status: 1 if
# one failed, 2 if nothing was tried since the command line is wrong.
set -euo pipefail

root=$(realpath -m "${BASH_SOURCE[0]}/../..")
command="$0 $*"
# shellcheck disable=SC1091  # checked by itself
source "$root/scripts/packages.sh"
build='' data=${CIFAR10_DIR:-$root/data} out=gpu_check.out python=python3 seconds=530
wrong() {
    echo "gpu_check: $*" >&2
    exit 2
}
while (($#)); do
    case $1 in
    --build | --data | --out | --python | --seconds)
        (($# > 1)) || wrong "$1: a value is expected behind it"
        declare "${1#--}=$2"
        shift 2
        ;;
    --help)
        sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
        exit 0
        ;;
    *) wrong "unknown argument '$1'; see --help" ;;
    esac
done
[[ $seconds =~ ^([3-9][0-9]|[1-9][0-9]{2,5})$ ]] ||
    wrong "--seconds $seconds: a whole number of at least 30 is expected"
[[ -n $build ]] || need_packages "${BUILD_PACKAGES[@]}" "${TEST_PACKAGES[@]}"
"$python" -c '' || wrong "--python $python: does not work"
# Nobody's files but those of an earlier run, which has stages.tsv from the start on, are deleted.
mkdir -p "$out" || wrong "--out $out: cannot be made"
[[ -e $out/stages.tsv || -z $(ls -A "$out") ]] ||
    wrong "--out $out: holds files, but not those of an earlier run; name a new or an empty folder"
rm -f "$out"/{*.log,*.jsonl,*.dot,stages.tsv,facts.txt,report.md}
: >"$out/stages.tsv"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bin=${build:-$root/build/test}
report=$root/scripts/pytorch/gpu_report.py

# Where the system has no cuDNN or cuBLAS, those that came with PyTorch.
libraries=$("$python" - <<'PYTHON'
import glob, os, sys
names = ("libcudnn.so.9", "libcublas.so.1*", "libnvrtc.so.1*")
found = {os.path.dirname(file) for path in sys.path for name in names
         for file in glob.glob(f"{path}/nvidia/*/lib/{name}")}
given = os.environ.get("LD_LIBRARY_PATH")
print(":".join(([given] if given else []) + sorted(found)))
PYTHON
)
export root command build data out python work bin report libraries

# ---- stages ----

number=0   # of stages so far
until=0    # when those that run now must have ended, in seconds since the start
together=1 # how many may run at once where no time is measured
(($(nproc) < 8)) || together=4

# What a log comes to: its last line "detail: ", else the last exception of Python or the first other
# complaint, else the last line.
detail_of() { # LOG STATUS
    local text
    text=$(sed -n 's/^detail: //p' "$1" | tail -n 1)
    if [[ -z $text && $2 != 0 ]]; then
        text=$(grep -aE '^[A-Za-z_.]+(Error|Exception|Late): ' "$1" | tail -n 1 || true)
        [[ -n $text ]] ||
            text=$(grep -m 1 -aiE 'error|fail|cannot|not found|no such|skipped|abort' "$1" || true)
    fi
    [[ -n $text ]] || text=$(grep -a . "$1" | tail -n 1 || true)
    case $2 in 124 | 137) text="took longer than its time; ${text:-nothing was printed}" ;; esac
    tr '\t|' '  ' <<<"${text:0:160}"
}

run_stage() { # NUMBER NAME SECONDS COMMAND...
    local number=$1 name=$2 limit=$3 began=$SECONDS status=0 verdict=pass detail
    local log=$out/${name//[^a-zA-Z0-9_.-]/_}.log
    shift 3
    limit=$((limit < until - SECONDS ? limit : until - SECONDS))
    if ((limit < 2)); then
        status=1 detail='no time was left for it'
    else
        # A shell of its own, so that -e holds in a function too and all of it ends at the limit.
        timeout -k 5 "$limit" bash -c 'set -euo pipefail; "$@"' stage "$@" \
            >"$log" 2>&1 </dev/null || status=$?
        detail=$(detail_of "$log" "$status")
    fi
    ((status == 0)) || verdict=FAIL
    printf '%s\t%s\t%s\t%s\t%s\n' \
        "$number" "$verdict" "$name" $((SECONDS - began)) "$detail" >>"$out/stages.tsv"
    printf '%s  %-34s %4d s  %s\n' "$verdict" "$name" $((SECONDS - began)) "$detail"
}

stage() { # NAME SECONDS COMMAND...
    number=$((number + 1))
    run_stage "$number" "$@"
}

# The same without waiting for its end.
beside() { # NAME SECONDS COMMAND...
    number=$((number + 1))
    while (($(jobs -rp | wc -l) >= together)); do
        wait -n || true
    done
    run_stage "$number" "$@" &
}

# ---- what the stages do; each is run by a shell of its own ----

# One of our programs, with their libraries, which PyTorch must not take. The spin is set here since
# the program would start itself again to set it, which the sanitizers could lose track of.
ours() {
    GOMP_SPINCOUNT=1000 LD_LIBRARY_PATH=$libraries "$@"
}

# Where a tool of CUDA is: in the toolkit that built the program, else in PATH, in one that a variable
# names, or in the usual place. Asked for when it is needed, since the build comes first.
cuda_tool() { # NAME
    local built
    built=$(sed -nE 's#^CUDAToolkit_(BIN_DIR:[A-Z]+=(/.*)|NVCC_EXECUTABLE:[A-Z]+=(/.*)/[^/]*)$#\2\3#p' \
        "$bin/CMakeCache.txt" 2>/dev/null | paste -sd:) || true
    PATH=${built:+$built:}$PATH:${CUDA_HOME-}/bin:${CUDA_PATH-}/bin:/usr/local/cuda/bin type -P "$1"
}

nvcc_release() {
    "$(cuda_tool nvcc)" --version | grep release
}

fact() { # NAME COMMAND...
    local text
    text=$("${@:2}" 2>/dev/null | tr '\n' ';' | sed 's/;*$//; s/;/; /g') || true
    echo "$1: ${text:-unknown}" | tee -a "$out/facts.txt"
}

facts() {
    fact date date -u '+%Y-%m-%d %H:%M UTC'
    fact commit git -C "$root" describe --always --dirty
    fact command echo "$command"
    fact processor sed -n 's/^model name[^:]*: //p;T;q' /proc/cpuinfo
    fact GPU nvidia-smi --query-gpu=name,memory.total,power.limit --format=csv,noheader
    fact driver nvidia-smi --query-gpu=driver_version --format=csv,noheader
    fact 'clocks of SM and memory, and their maxima' nvidia-smi \
        --query-gpu=clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem --format=csv,noheader
    fact nvcc nvcc_release
    ours "$bin/cifar" --version || true
    echo "libraries: $libraries"
    nvidia-smi
    echo "detail: $(sed -n 's/^\(GPU\|driver\): //p' "$out/facts.txt" | paste -sd,)"
}

torch_facts() {
    "$python" - <<'PYTHON' | tee -a "$out/facts.txt"
import torch
print("torch:", torch.__version__, "with CUDA", torch.version.cuda, "and cuDNN",
      torch.backends.cudnn.version(), "on", torch.cuda.get_device_name())
PYTHON
}

builds() {
    local program missing
    if [[ -z $build ]]; then
        cd "$root"
        cmake --preset test -DCIFAR_CUDA=ON
        cmake --build --preset test
        cd - >/dev/null
    fi
    missing=$(
        for program in cifar{,-train,-synth} tests/{step_bench,net_backends_test} \
            tests/device_{layers,pass,step,optimizers,memory,reference,threads,device,cudnn_plan}_test
        do
            [[ -x $bin/$program ]] || echo "$program"
        done
        { ours ldd "$bin/cifar" "$bin"/tests/*_test || true; } 2>&1 | sed -n 's/^\t\(.*\) => not found/\1/p' | sort -u
    )
    if [[ -n $missing ]]; then
        echo "detail: missing: $(paste -sd' ' <<<"$missing")"
        return 1
    fi
    echo "detail: all programs are there"
}

# For three steps of the largest batch; for an evaluation of several steps, the last one smaller; and
# for the sanitizers.
images() {
    "$bin/cifar-synth" "$work/steps" --train 6144 --test 20
    "$bin/cifar-synth" "$work/images" --train 2000 --test 1020
    "$bin/cifar-synth" "$work/few" --train 40 --test 20
}

unit_test() { # PROGRAM [NAME=VALUE...]
    ours env BACKEND=cudnn "${@:2}" "$bin/tests/$1"
}

# The tutorial's training, or by a recipe with all that it can have.
recipe() { # tutorial|best
    echo "--recipe $1"
    [[ $1 == tutorial ]] || echo '--average ema --average-decay 0.9'
}

trains() { # MODEL PRECISION BATCH RECIPE EPOCHS [WORD...]: epochs of 2000 images; words for env
    # shellcheck disable=SC2046  # words
    ours env "${@:6}" "$bin/cifar-train" --quiet --device cudnn --data "$work/images" --limit 2000 \
        --precision "$2" --batch "$3" $(recipe "$4") --epochs "$5" --model "$1" --last "$1.last"
}

equal() { # MODEL MODEL
    cmp "$1" "$2"
    echo "detail: $(($(wc -c <"$1"))) bytes, all equal"
}

# Two trainings that must end in the same bits.
same() { # PRECISION BATCH RECIPE NAME=VALUE NAME=VALUE
    local model
    model=$(mktemp -u "$work/same.XXXXXX")
    trains "$model.1" "$1" "$2" "$3" 1 "$4"
    trains "$model.2" "$1" "$2" "$3" 1 "$5"
    equal "$model.1" "$model.2"
}

# So must one that is stopped as soon as there is a state to go on from, and goes on.
resumes() { # RECIPE
    local model run status=0
    model=$(mktemp -u "$work/resumes.XXXXXX")
    trains "$model.1" float32 64 "$1" 10
    # shellcheck disable=SC2016  # for sh, which becomes the program: its number is needed to stop it
    trains "$model.2" float32 64 "$1" 10 sh -c 'echo $$ >"$0"; exec "$@"' "$model.pid" &
    run=$!
    until [[ -e $model.2.last ]]; do
        kill -0 "$run"
        sleep 0.01
    done
    kill "$(<"$model.pid")"
    wait "$run" || status=$?
    [[ $status == 143 ]] || {
        echo "detail: status $status of a stopped run"
        return 1
    }
    ours "$bin/cifar-train" --quiet --resume "$model.2.last"
    equal "$model.1" "$model.2"
}

kernels() { # PRECISION BATCH
    local dot=$out/step.$1.$2.dot
    ours env CIFAR_CUDA_DOT="$dot" "$bin/cifar-train" --quiet --device cudnn --data "$work/steps" \
        --epochs 1 --limit $((3 * $2)) --precision "$1" --batch "$2" \
        --model "$work/kernels.$1.$2" --last "$work/kernels.$1.$2.last"
    "$python" "$report" kernels "$dot"
}

speed() { # PRECISION BATCH
    ours "$bin/tests/step_bench" cudnn "$1" "$2" | tee -a "$out/step_bench.jsonl"
    "$python" "$report" speed "$out"
}

accuracy() {
    local seed
    for seed in 0 1 2; do
        ours "$bin/cifar-train" --device cudnn --data "$data" --epochs 5 --seed "$seed" \
            --log "$out/seed$seed.jsonl" --overwrite --model "$work/seed$seed" --last "$work/seed$seed.last"
    done
    "$python" "$report" accuracy "$out"
}

pytorch() { # SECONDS
    "$python" "$root/scripts/pytorch/gpu_bench.py" --json "$out/gpu_bench.jsonl" --seconds "$1" ||
        echo "gpu_bench.py ended with status $?"
    grep -q '"measured"' "$out/gpu_bench.jsonl" && "$python" "$report" pytorch "$out"
}

# What a step takes by a recipe with everything, and by the tutorial's, in turn.
recipe_speed() {
    local try recipe
    for try in 1 2 3; do
        for recipe in tutorial best; do
            echo "try $try, $recipe" >&2
            ours "$bin/tests/step_bench" cudnn float32 64 0.5 "$recipe" >>"$out/recipe.$recipe.jsonl"
        done
    done
    "$python" "$report" recipe "$out"
}

sanitize() { # TOOL RECIPE NAME=VALUE
    local text status try tool model limit=16
    [[ "$1 $2" != 'racecheck best' ]] || limit=4 # Muon's kernel takes long there: a step must do
    model=$(mktemp -u "$work/sanitize.XXXXXX")
    local options=(--tool "$1" --error-exitcode 99 --print-limit 20)
    local program=("$bin/cifar-train" --quiet --device cudnn --data "$work/few" --epochs 1 --batch 4
        --limit "$limit" --overwrite --model "$model" --last "$model.last")
    # shellcheck disable=SC2207  # words
    program+=($(recipe "$2"))
    [[ $1 != memcheck ]] || options+=(--leak-check full)
    tool=$(cuda_tool compute-sanitizer) || {
        echo "detail: compute-sanitizer is not there"
        return 1
    }
    text=$(mktemp "$work/text.XXXXXX")
    # Twice: several that start at once could stand in each other's way, and then have no summary.
    for try in 1 2; do
        status=0
        ours env "$3" "$tool" "${options[@]}" "${program[@]}" 2>&1 | tee "$text" || status=$?
        ! grep -q SUMMARY "$text" || break
        echo "try $try: status $status, no summary"
    done
    echo "detail: status $status; $(sed -n 's/^=* *\(.*SUMMARY\)/\1/p' "$text" | paste -sd' ')"
    return "$status"
}

export -f ours cuda_tool nvcc_release fact facts torch_facts builds images unit_test recipe trains \
    equal same resumes kernels speed recipe_speed accuracy pytorch sanitize

# ---- all stages ----

until=$((seconds * 45 / 100))
stage build 200 builds
stage facts 30 facts
stage images 30 images
beside torch 90 torch_facts
beside plans 60 unit_test device_cudnn_plan_test
for test in layers pass step optimizers memory reference threads device; do
    beside "parity $test" 60 unit_test "device_${test}_test"
done
beside 'parity 20 steps' 60 unit_test net_backends_test
beside 'parity layers, more batches' 150 \
    unit_test device_layers_test 'LAYERS_BATCHES=1 2 10 80 128 513'
for batch in 10 128; do
    beside "graph or not, batch $batch" 60 \
        same float32 "$batch" tutorial CIFAR_CUDA_GRAPH=1 CIFAR_CUDA_GRAPH=0
done
beside 'repeatable, float32' 60 same float32 10 tutorial RUN=1 RUN=2
beside 'repeatable, tf32' 60 same tf32 10 tutorial RUN=1 RUN=2
beside 'float32 has no TF32' 60 same float32 10 tutorial RUN=1 NVIDIA_TF32_OVERRIDE=0
for precision in float32 tf32; do
    for batch in 10 32 128 512 2048; do
        beside "kernels $precision $batch" 30 kernels "$precision" "$batch"
    done
done
beside 'graph or not, recipe' 60 same float32 64 best CIFAR_CUDA_GRAPH=1 CIFAR_CUDA_GRAPH=0
beside 'repeatable, recipe, tf32' 60 same tf32 64 best RUN=1 RUN=2
for recipe in tutorial best; do
    beside "resumed, $recipe" 60 resumes "$recipe"
done
wait

# Alone, since they measure time.
until=$((seconds * 65 / 100))
for batch in 10 128 32 512 2048; do
    for precision in float32 tf32; do
        stage "speed $precision $batch" 30 speed "$precision" "$batch"
    done
done
stage 'speed of a recipe' 60 recipe_speed
stage accuracy 90 accuracy
until=$((seconds - 90))
stage pytorch 600 pytorch $((until - SECONDS - 10))

until=$((seconds - 5))
for tool in racecheck memcheck initcheck synccheck; do # what takes longest first
    for recipe in best tutorial; do
        beside "$tool, $recipe" 90 sanitize "$tool" "$recipe" CIFAR_CUDA_GRAPH=0
    done
done
beside 'memcheck with graphs, best' 90 sanitize memcheck best CIFAR_CUDA_GRAPH=1
wait

until=$((seconds + 5)) # they take no time
stage 'required: epoch' 5 "$python" "$report" epoch "$out"
stage 'required: beside PyTorch' 5 "$python" "$report" ratio "$out"

echo
"$python" "$report" report "$out"

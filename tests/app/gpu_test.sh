#!/usr/bin/env bash
# The GPU backend as a user meets it, on the fake libraries in $FAKES: what is said where the GPU cannot
# be used, whole commands on the device, and which calls make up a step. Takes the programs from $BIN.
set -euo pipefail

# shellcheck source=tests/checks.sh
source "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
unset LD_LIBRARY_PATH

differ() { ! cmp "$@"; }
runs() { # WHAT COMMAND...: checks it, and what it prints is kept in the file `shown`
    check "$@"
    cp check.out shown
}

cifar-synth data --train 40 --test 20 >/dev/null
train=(cifar-train --data data --epochs 1 --batch 10 --log-every 1 --overwrite)
fake=(LD_LIBRARY_PATH="$FAKES")

# --- No GPU: --device cudnn is an error, 5, that names the reason; --device auto goes on and says it.

# what PATTERN [NAME=VALUE...]
unusable() {
    local pattern=$1
    shift
    fails 5 "^cifar-train: --device cudnn: $pattern" "$@" "${train[@]}" --device cudnn --model none.ckpt
    check "no model without a device" test ! -e none.ckpt
    runs "auto goes on without it" env "$@" "${train[@]}" --limit 10 --model auto.ckpt
    check "auto says why" has shown "^  GPU       not used: $pattern"
    check "auto says it once" test "$(grep -c 'not used' shown)" = 1
    check "auto computes on the CPU" has shown '^  device    cpu: '
    runs "version tells the reason" env "$@" cifar --version
    check "version tells the reason" has shown \
        "^device cudnn: built with CUDA [0-9.]+ and cuDNN 9[0-9.]+; cannot be used here: $pattern"
}

if ldconfig -p | grep -q 'libcuda\.so\.1'; then
    echo "skipped: no driver, since this machine has one"
else
    unusable 'there is no NVIDIA driver here \(libcuda.so.1: .*\); install it if'
fi
unusable 'the NVIDIA driver finds no GPU; check nvidia-smi and CUDA_VISIBLE_DEVICES' \
    "${fake[@]}" FAKE_GPU_FAIL=cuInit:100
unusable 'the NVIDIA driver cannot be used: CUDA_ERROR_UNKNOWN, number 999: .*check that nvidia-smi works' \
    "${fake[@]}" FAKE_GPU_FAIL=cuInit:999
unusable 'the NVIDIA driver cannot be used: an error, number 4321: unknown to this driver' \
    "${fake[@]}" FAKE_GPU_FAIL=cuDeviceGetCount:4321
unusable 'the NVIDIA driver is too old: it knows CUDA 11.8, and this program was built with CUDA' \
    "${fake[@]}" FAKE_GPU_DRIVER=11080
unusable 'Fake GPU failed, with 0 MB in use here: cuDevicePrimaryCtxRetain: CUDA_ERROR_OUT_OF_MEMORY.*try a smaller' \
    "${fake[@]}" FAKE_GPU_FAIL=cuDevicePrimaryCtxRetain:2
unusable 'Fake GPU failed, .*cuModuleLoadData: CUDA_ERROR_NO_BINARY_FOR_GPU.*; this GPU is older than' \
    "${fake[@]}" FAKE_GPU_CAPABILITY=70
unusable 'Fake GPU failed, .*cuModuleLoadData: CUDA_ERROR_UNSUPPORTED_PTX_VERSION.* install a newer driver' \
    "${fake[@]}" FAKE_GPU_FAIL=cuModuleLoadData:222
unusable 'cuDNN cannot be used on Fake GPU: CUDNN_STATUS_NOT_INITIALIZED' "${fake[@]}" FAKE_GPU_FAIL=cudnnCreate:1001
unusable 'Fake GPU failed: cublasCreate: CUBLAS_STATUS_NOT_INITIALIZED, number 1; try a smaller' \
    "${fake[@]}" FAKE_GPU_FAIL=cublasCreate:1
unusable 'cuDNN is version 9.7.1; this program needs 9.8 or later; install it' \
    "${fake[@]}" FAKE_CUDNN_VERSION=90701

# Libraries that are not what their name says.
blas=$(cd "$FAKES" && echo libcublas.so.*)
for case in "$blas cuBLAS" 'libcudnn.so.9 cuDNN'; do
    read -r file name <<<"$case"
    mkdir wrong
    cp "$FAKES"/lib*.so.* wrong
    echo 'not a library at all, though it has its name' >"wrong/$file"
    unusable "$name cannot be loaded \(.*$file.*\); install it, or name its folder in LD_LIBRARY_PATH" \
        LD_LIBRARY_PATH=wrong
    cp "$FAKES/libcuda.so.1" "wrong/$file"
    unusable "$file has no function [a-zA-Z_0-9]+, so it is not what its name says" LD_LIBRARY_PATH=wrong
    rm -r wrong
done

# --- A GPU that fails in the middle: 5, and nothing half-written.

fails 5 'Fake GPU failed, with [0-9]+ MB in use here: cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY.*smaller --batch' \
    "${fake[@]}" FAKE_GPU_MEMORY=40000000 "${train[@]}" --device cudnn --model none.ckpt
fails 5 'Fake GPU failed, .*: cuEventSynchronize: CUDA_ERROR_ILLEGAL_ADDRESS' \
    "${fake[@]}" FAKE_GPU_FAIL=cuEventSynchronize:700:4 "${train[@]}" --device cudnn --model none.ckpt
fails 5 'Fake GPU failed, .*: cuGraphInstantiate.*: CUDA_ERROR_' \
    "${fake[@]}" FAKE_GPU_FAIL=cuGraphInstantiateWithFlags:1 "${train[@]}" --device cudnn --model none.ckpt
fails 5 'Fake GPU failed: cublasSgemm: ' \
    "${fake[@]}" FAKE_GPU_FAIL=cublasSgemm:13:2 "${train[@]}" --device cudnn --model none.ckpt
fails 5 'Fake GPU failed: cublasSgemm: CUBLAS_STATUS_EXECUTION_FAILED' \
    "${fake[@]}" FAKE_GPU_FAIL=cublasSgemm:13:5 "${train[@]}" --device cudnn --model none.ckpt # recorded
fails 5 'cuDNN: a convolution: CUDNN_STATUS_EXECUTION_FAILED: because FAKE_GPU_FAIL says so' \
    "${fake[@]}" FAKE_GPU_FAIL=cudnnBackendExecute:5000:3 "${train[@]}" --device cudnn --model none.ckpt
fails 5 'cuDNN has no engine for a convolution \(forward, 3 > 12 channels, kernel 5, batch 10\) that computes in float32, gives' \
    "${fake[@]}" FAKE_CUDNN_ENGINES=4 "${train[@]}" --device cudnn --model none.ckpt
fails 1 'CIFAR_CUDA_DOT=none/step.dot: cannot be written: No such file' \
    "${fake[@]}" CIFAR_CUDA_DOT=none/step.dot "${train[@]}" --device cudnn --model none.ckpt
check 'nothing is left of them' test ! -e none.ckpt

# --- The commands. 34 images in batches of 10: the last batch is smaller.

on_gpu() { env "${fake[@]}" "$@"; }
run=(cifar-train --data data --epochs 3 --batch 10 --limit 34 --log-every 1 --overwrite)
check 'train on the CPU' "${run[@]}" --device openblas --model cpu.ckpt --log cpu.jsonl
runs 'train on the GPU' on_gpu "${run[@]}" --model gpu.ckpt --log gpu.jsonl
check 'auto takes the GPU' has shown '^  device    cudnn: Fake GPU, driver for CUDA [0-9.]+, cuDNN 9[0-9.]+, built with CUDA [0-9.]+, float32$'
check 'auto has no complaint' lacks shown 'not used'
losses_agree() { # LOG LOG STEPS: so many, each to 5e-3, the first five to 1e-5
    python3 - "$@" <<'PYTHON'
import json, sys
a, b = [[(r["step"], r["loss"]) for r in map(json.loads, open(log)) if r["event"] == "step"] for log in sys.argv[1:3]]
assert [step for step, _ in a] == [step for step, _ in b] == json.loads(sys.argv[3]), (a, b)
for i, ((_, ours), (_, theirs)) in enumerate(zip(a, b)):
    assert abs(ours - theirs) <= (1e-5 if i < 5 else 5e-3) * ours, (i, ours, theirs)
PYTHON
}
check 'the first losses are the same' losses_agree cpu.jsonl gpu.jsonl '[1,2,3,4,1,2,3,4,1,2,3,4]'
for device in openblas cudnn; do # runs of several steps, which end where a loss is to be logged
    check "log every 7 on $device" on_gpu "${run[@]}" --epochs 1 --batch 2 --log-every 7 --device $device \
        --model seven.ckpt --log $device.jsonl
done
check 'a log of several steps is the same' losses_agree openblas.jsonl cudnn.jsonl '[7,14]'
check 'the log names the precision' has gpu.jsonl '"precision":"float32"'
runs 'test on the GPU' on_gpu cifar-test --data data --model gpu.ckpt --grid '' --json
cp shown gpu.json
runs 'test on the CPU' cifar-test --data data --model gpu.ckpt --grid '' --json --device openblas
check 'the same accuracy' test "$(grep -oE '"accuracy": [0-9.]+' shown | head -1)" = \
    "$(grep -oE '"accuracy": [0-9.]+' gpu.json | head -1)"
cifar-test --data data --model gpu.ckpt --grid picture.png --device cpu >/dev/null
runs 'predictions on the GPU' on_gpu cifar-predict picture.png picture.png --model gpu.ckpt --device cudnn
cp shown gpu.txt
runs 'predictions on the CPU' on_gpu cifar-predict picture.png picture.png --model gpu.ckpt --device openblas
check 'are the same' cmp shown gpu.txt
check 'classes on the GPU' on_gpu cifar-classes --data data --model gpu.ckpt --batch 7
runs 'TF32 where it is allowed' on_gpu FAKE_GPU_LOG=tf32 "${run[@]}" --precision tf32 --model tf32.ckpt
check 'TF32 is named' has shown 'float32 and TF32$'
check 'TF32 in convolutions' has tf32 '^cudnnBackendExecute forward .* engine 0 '
check 'TF32 in the Linear layer' has tf32 '^cublasSetMathMode 3'
check 'TF32 changes bits' differ gpu.ckpt tf32.ckpt

# Not a bit depends on recording the step, on how often it is run, or on what the GPU does when.
check 'train without graphs' on_gpu CIFAR_CUDA_GRAPH=0 "${run[@]}" --model plain.ckpt
check 'graphs change no bit' cmp gpu.ckpt plain.ckpt
check 'train in another order' on_gpu FAKE_GPU_ORDER=random "${run[@]}" --model random.ckpt
check 'the order of threads changes no bit' cmp gpu.ckpt random.ckpt
check 'a graph as a picture' on_gpu CIFAR_CUDA_DOT=step.dot "${run[@]}" --model dot.ckpt
check 'a graph as a picture' has step.dot '^digraph'
check 'one step in the picture' test "$(grep -c 'kernel load_batch' step.dot)" = 1

# Nor on stopping: steps are queued ahead of those whose state is saved, and Adam and the pass over the
# data go on in the middle.
run+=(--model go.ckpt --last go.last)
check 'train without a stop' on_gpu "${run[@]}" --epochs 6
mv go.ckpt whole.ckpt && mv go.last whole.last
check 'train and save at every step' on_gpu "${run[@]}" --epochs 3 --save-every 1
check 'go on' on_gpu cifar-train --resume go.last --epochs 6
check 'going on changes no bit' cmp whole.ckpt go.ckpt
rm go.ckpt
start "${fake[@]}" "${run[@]}" --epochs 6
await test -s go.ckpt
stop
check 'a signal ends it' test "$status" = 143
check 'go on from there' on_gpu cifar-train --resume go.last
check 'a signal changes no bit of the checkpoint' cmp whole.ckpt go.ckpt
check 'a signal changes no bit of the state' cmp whole.last go.last

# The same by a recipe with all that it can have: what decides on its views and rates, on Muon's momentum and
# the average goes on, and the network that learns comes back after each epoch from where the average, with
# statistics found anew, was judged.
run=(cifar-train --data data --recipe best --average ema --average-decay 0.5 --validation 6 --epochs 2 --batch 3
    --limit 26 --log-every 1 --overwrite --quiet)
check 'train by a recipe on the CPU' "${run[@]}" --device openblas --model cpu.ckpt --last cpu.last --log cpu.jsonl
run+=(--model go.ckpt --last go.last --log go.jsonl)
check 'train by a recipe on the GPU' on_gpu "${run[@]}"
check 'the first losses are the same' losses_agree cpu.jsonl go.jsonl '[1,2,3,4,5,6,7,1,2,3,4,5,6,7]'
mv go.ckpt whole.ckpt && mv go.last whole.last && mv go.jsonl whole.jsonl
start "${fake[@]}" "${run[@]}"
await grep -qs '"step":2' go.jsonl
stop
check 'a signal ends it' test "$status" = 143
check 'go on from there' on_gpu cifar-train --resume go.last
check 'going on changes no bit of the checkpoint' cmp whole.ckpt go.ckpt
check 'going on changes no bit of the state' cmp whole.last go.last
check 'nor of the figures' diff <(figures whole.jsonl) <(figures go.jsonl)

# --- The calls of one recorded step, and of a whole epoch.

on_gpu CIFAR_CUDA_GRAPH=0 FAKE_GPU_LOG=plain "${train[@]}" --model calls.ckpt >/dev/null
check 'no graph, no recording' lacks plain 'Capture|cuGraph'

on_gpu FAKE_GPU_LOG=calls "${train[@]}" --model calls.ckpt >/dev/null
# the first recording is that of the training step; cuDNN's descriptors are no work for the device
awk '/^cuStreamBeginCapture/ && !seen { inside = seen = 1 } inside { print }
     /^cuStreamEndCapture/ { inside = 0 }' calls >all
grep -vE '^cudnnBackend(CreateDescriptor|SetAttribute|Finalize|DestroyDescriptor) ' all >step
check 'a step is the sequence of calls in tests/golden/step_calls.txt' diff "$GOLDEN/step_calls.txt" step
check 'a graph is uploaded before it is launched' has calls '^cuGraphUpload'
# of the golden file itself:
check 'a step has its calls' test "$(wc -l <step)" -gt 30
check 'nothing but work for the device in a step' lacks step \
    'Alloc|Free|Synchronize|cuEvent|cuModule|cuMemcpy|Create|cuStream(Create|Destroy)'
check 'one stream in a step' test "$(grep -oE 'stream [0-9]+' step | sort -u | wc -l)" = 1
# between the script's upload and the download of 20 images' logits, the host waits for losses alone
awk '/^cuGraphLaunch/ { launched = 1 } launched { print } /^cuMemcpyDtoHAsync 800 / { exit }' calls >epoch
check 'no memory is taken in an epoch' lacks epoch 'Alloc'
# an event is waited for when a newer one has been recorded, but for the last one
waits=$(awk '/^cuEventRecord/ { newest = $3 } /^cuEventSynchronize/ && $3 == newest { n++ } END { print n + 0 }' epoch)
check 'the device has work while the host waits' test "$waits" -le 2
check 'the host waits for events alone in an epoch' lacks epoch 'cuStreamSynchronize'

# --- Without memory for the workspace, which is taken when a step's plans have been chosen, nothing of the
# step is computed: no convolution, no weight gradient.

before=$(sed '/^cudnnBackendFinalize/q' calls | grep -c '^cuMemAlloc ')
fails 5 'Fake GPU failed, .*: cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY' "${fake[@]}" FAKE_GPU_LOG=full \
    FAKE_GPU_FAIL=cuMemAlloc:2:$((before + 1)) "${train[@]}" --device cudnn --model none.ckpt
check 'the plans are there' has full '^cudnnBackendFinalize'
check 'nothing is computed without a workspace' lacks full '^(cudnnBackendExecute|cublasSgemm|cuLaunchKernel)'

end_checks

#!/usr/bin/env bash
# gpu_report.py on small files, wrong usage of gpu_check.sh, and a short run of it on the fake libraries
# in $FAKES. Takes the programs from $BIN; those that fakes are too slow or too simple for are stand-ins.
# shellcheck disable=SC2016  # the stand-ins' words are for the stand-ins to expand, others for nobody
set -euo pipefail

scripts=$(realpath -m "${BASH_SOURCE[0]}/../../../scripts")
# shellcheck source=tests/checks.sh
source "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
unset LD_LIBRARY_PATH

# A Python that has no torch, whatever is installed.
stand_in python "exec '$(python3 -c 'import sys; print(sys.executable)')' -I -S \"\$@\""
python=$work/python

# --- What gpu_report.py makes of a folder's files.

tells() { # STATUS PATTERN WHAT [PATH]: ends so, and says one line that matches
    status_of "$python" "$scripts/pytorch/gpu_report.py" "$3" "${4-folder}"
    check "status $status of $3" test "$status" = "$1" -a ! -s err
    check "one line of $3" test "$(wc -l <out)" = 1
    check "words of $3" has out "^detail: $2\$"
}
runs() { # ACCURACY...: a file for each seed, with this accuracy after the last of five epochs
    local seed=0 last epoch
    rm -f folder/seed*
    for last; do
        for epoch in 50 60 65 66 "$last"; do
            echo "{\"event\":\"epoch\",\"test_accuracy\":$epoch,\"train_seconds\":0.5}"
        done >folder/seed$seed.jsonl
        seed=$((seed + 1))
    done
}
bench() { # BATCH PRECISION MEDIAN EPOCH: a line of step_bench
    echo "{\"device\":\"cudnn\",\"precision\":\"$2\",\"batch\":$1,\"us_median\":$3,\"us_p95\":60.5,\"runs\":60," \
        "\"steps_a_run\":32,\"epoch_seconds\":$4,\"images_per_second\":100000.5,\"memory_bytes\":170000000," \
        "\"description\":\"NVIDIA H100, driver for CUDA 13.0, cuDNN 9.19.0, built with CUDA 13.1, float32\"}"
}
measured() { # VARIANT BATCH MEDIAN: a line of gpu_bench.py
    echo "{\"event\":\"measured\",\"variant\":\"$1\",\"batch\":$2,\"precision\":\"float32\",\"us_median\":$3," \
        "\"us_p95\":700,\"epoch_seconds\":3.5,\"images_per_second\":14000}"
}
cut_off() { # FILE: its last line, in the middle
    truncate -s -30 "$1"
}

mkdir folder
tells 1 '0 runs instead of 3' accuracy
runs 69 70 71.5
tells 0 '69\.00 70\.00 71\.50, mean 70\.17 .*; cifar-train took 0\.500 s an epoch' accuracy
runs 72 71 71
tells 1 '.*, mean 71\.33 .*1\.0 allowed.*' accuracy
runs 69 69 69.5
tells 1 '.*, mean 69\.17 .*' accuracy
runs 70 70
tells 1 '2 runs instead of 3' accuracy
runs 70 70 70
cut_off folder/seed1.jsonl
tells 1 'seed1\.jsonl: 4 epochs instead of 5' accuracy

tells 1 'no measurement at batch 10' epoch
tells 1 'no measurement' speed
tells 1 '0 measured, 0 failed' pytorch
bench 10 float32 150 1.2 >folder/step_bench.jsonl
tells 1 '1\.200 s an epoch at batch 10, at most 1\.0 s' epoch
bench 10 float32 50 0.3 >>folder/step_bench.jsonl # the last one counts
tells 0 '0\.300 s an epoch .*' epoch
tells 0 '50\.0 us/step, p95 60\.5, 0\.300 s/epoch, 10000[01] images/s, 170 MB' speed
{
    bench 10 tf32 40 0.2
    bench 128 float32 90 0.1
    bench 10 float32 9000 9
} >>folder/step_bench.jsonl
cut_off folder/step_bench.jsonl
tells 0 '0\.300 s an epoch .*' epoch

tells 1 'no measurement of PyTorch eager at batch 10' ratio
measured eager 10 600 >folder/gpu_bench.jsonl
tells 0 '50\.0 us a step, PyTorch eager 600\.0 us: 12\.0 times as fast, at least 10' ratio
measured eager 10 500 >folder/gpu_bench.jsonl
tells 0 '.*: 10\.0 times .*' ratio
measured eager 10 499 >folder/gpu_bench.jsonl
tells 1 '.*: 10\.0 times .*' ratio
mv folder/step_bench.jsonl .
tells 1 'no measurement of this program at batch 10' ratio
mv step_bench.jsonl folder

tells 1 'no measurement' recipe
for median in 400 380 390; do
    bench 64 float32 "$median" 0.3 >>folder/recipe.tutorial.jsonl
done
tells 1 'no measurement' recipe
bench 64 float32 429 0.3 >folder/recipe.best.jsonl
tells 0 "429\.0 us a step at batch 64 with everything, 390\.0 us of the tutorial's: 1\.100" recipe

# A graph as the driver draws it: kernels are octagons, a label has several lines.
cat >drawn.dot <<'DOT'
digraph dot {
subgraph cluster_1 {
label="graph_1" graph[style="dashed"];
"graph_1_node_0"[style="bold" shape="octagon" label="0
load_batch
"];
"graph_1_node_1"[style="solid" shape="rectangle" label="1
MEMSET
(0,4096)
"];
"graph_1_node_2"[style="bold" shape="octagon" label="2\n_Z12memcpy_bytes[]\n"];
"graph_1_node_3"[style="solid" shape="rectangle" label="3\nMEMCPY\n(DtoD,40)\n"];
"graph_1_node_4"[style="solid" shape="ellipse" label="4\nEMPTY\n"];
"graph_1_node_0" -> "graph_1_node_1";
"graph_1_node_1" -> "graph_1_node_2" [headlabel=0];
}
}
DOT
tells 0 '2 kernels of 5 nodes in a step' kernels drawn.dot
cat >folder/step.float32.10.dot <<'DOT'
digraph dot {
"graph_1_node_0"[label="kernel load_batch 10x3"];
"graph_1_node_1"[label="cuMemsetD8Async 16"];
"graph_1_node_0" -> "graph_1_node_1";
"graph_1_node_2"[label="convolution forward n=10 3>12"];
"graph_1_node_1" -> "graph_1_node_2";
}
DOT
tells 0 '2 kernels of 3 nodes in a step' kernels folder/step.float32.10.dot
tells 1 'no graph was written' kernels none.dot
echo 'digraph dot { }' >empty.dot
tells 1 'no graph was written' kernels empty.dot

# The report, whose table says where it comes from.
{
    echo '{"event":"start","torch":"2.9.0","cuda":"12.8","cudnn":91002,"gpu":"NVIDIA H100",' \
        '"default_tf32_convolutions":true,"default_tf32_products":false}'
    measured eager 10 600
    measured graph 10 200
    echo '{"event":"failed","variant":"fused","batch":10,"precision":"float32","error":"Late: too long"}'
} >folder/gpu_bench.jsonl
tells 0 '2 measured, 1 failed' pytorch
cat >folder/facts.txt <<'FACTS'
date: 2030-01-02 03:04 UTC
commit: abc1234
command: ./gpu_check.sh --out x: y
GPU: NVIDIA H100, 81559 MiB, 700.00 W; NVIDIA T4, 15360 MiB, 70.00 W
driver: 580.1; 580.1
FACTS
reports() { # STATUS
    status_of "$python" "$scripts/pytorch/gpu_report.py" report folder
    check "status $status of report" test "$status" = "$1" -a ! -s err
    check 'the report is printed and kept' diff out folder/report.md
}
reports 1 # no stage
check 'nothing is counted' has out '^0 passed, 0 failed$'
printf '%s\tpass\t%s\t3\twell\n' 2 two 10 ten 1 one >folder/stages.tsv
reports 0
check 'all are counted' has out '^3 passed, 0 failed$'
check 'in their order' test "$(sed -n 's/^| pass | \([a-z]*\) .*/\1/p' out | paste -sd' ')" = 'one two ten'
printf '3\tFAIL\tthree\t4\tbad\n4\tFAIL\tcut o' >>folder/stages.tsv
reports 1
check 'failed ones are named' has out '^3 passed, 1 failed: three$'
check 'a failed stage' has out '^\| FAIL \| three \| 4 \| bad \|$'
caption='2030-01-02 03:04 UTC, GPU NVIDIA H100, driver 580.1 for CUDA 13.0; this program at commit abc1234, built with CUDA 13.1, cuDNN 9.19.0; PyTorch 2.9.0 with CUDA 12.8, cuDNN 9.10.2; `./gpu_check.sh --out x: y`'
header='^\| batch \| program \| precision \| us/step median \| p95 \| s/epoch \| images/s \| kernels/step \|'
check 'the caption is above the table' test "$(grep -B 2 -E "$header" out | head -n 1)" = "$caption"
check 'a row of ours' has out '^\| 10 \| this program \| float32 \| 50\.0 \| 60\.5 \| 0\.300 \| 10000[01] \| 2 \| 12\.00 \| 4\.00 \|$'
check 'a row of PyTorch' has out '^\| 10 \| PyTorch graph \(best\) \| float32 \| 200\.0 \|.*\|  \| 3\.00 \| 1\.00 \|$'
check 'a row without PyTorch' has out '^\| 128 \| this program \| float32 \| 90\.0 \|.*\|  \|  \|  \|$'
check 'what was not measured' has out '^- PyTorch fused, batch 10, float32: not measured: Late: too long$'
check 'what PyTorch takes for granted' has out 'TF32 is on in convolutions and off in products$'
rm folder/facts.txt folder/*bench.jsonl
reports 1
check 'unknown is what is missing' has out '^unknown, GPU unknown, driver unknown .* PyTorch unknown .*`unknown`$'

# --- Wrong usage: said in a line, and nothing is touched.

mkdir foreign
touch foreign/{my.log,my.jsonl,report.md}
refuses() { # PATTERN ARGUMENT...
    status_of "$scripts/gpu_check.sh" "${@:2}"
    check "status $status of ${*:2}" test "$status" = 2 -a ! -s out
    check "words of ${*:2}" has err "^gpu_check: $1\$"
    check 'no folder is made' test ! -e new
}
refuses "unknown argument '--wrong'; see --help" --out new --wrong
refuses '--seconds: a value is expected behind it' --out new --seconds
for seconds in abc '' 29 030 -40 40.5 '40 s' 'a[$(touch new)]'; do
    refuses '--seconds .*: a whole number of at least 30 is expected' --out new --seconds "$seconds"
done
refuses '--python none: does not work' --out new --python none
refuses '--out foreign: holds files, but not those of an earlier run; .*' --python "$python" --out foreign
check 'the files of others are left' test "$(cd foreign && echo *)" = 'my.jsonl my.log report.md'
refuses '--out python: cannot be made' --python "$python" --out python
"$scripts/gpu_check.sh" --help >out
check 'help tells the options' has out '^--seconds '

# --- A run, on links to the programs. It knows the two toolkits of their build from CMakeCache.txt alone.

mkdir -p bin/tests tools toolkit/{1,2}
ln -s "$BIN"/cifar{,-synth} bin
ln -s "$BIN"/tests/*_test bin/tests
for program in device_{layers,optimizers,threads,device,cudnn_plan}_test net_backends_test; do
    rm -f "bin/tests/$program"
    stand_in "bin/tests/$program" 'echo "on $BACKEND"'
done
# The real one, which trains on little, whatever it is told.
stand_in bin/cifar-train "exec '$BIN/cifar-train' \"\$@\" --data '$work/data' --batch 2 --limit 6"
stand_in bin/tests/step_bench "test \$# = 3 -a \$1 = cudnn -o \$# = 5 -a \$3 = 64
    sed \"s/float32/\$2/; s/:10,/:\$3,/\" <<'LINE'
$(bench 10 float32 50 0.3)
LINE"
stand_in tools/nvidia-smi 'case $* in *name*) echo Fake GPU, 8 MiB ;; *driver*) echo 999.99 ;; *) echo fake ;; esac'
stand_in toolkit/1/nvcc 'echo Fake compilation tools, release 99.9'
stand_in toolkit/2/compute-sanitizer 'echo "========= ERROR SUMMARY: 0 errors"'
cat >bin/CMakeCache.txt <<CACHE
CUDAToolkit_NVCC_EXECUTABLE:FILEPATH=$work/toolkit/1/nvcc
CUDAToolkit_BIN_DIR:PATH=$work/toolkit/2
CACHE
bin/cifar-synth data --train 40 --test 4 >/dev/null
mkdir check
touch check/{stages.tsv,old.log} # of an earlier run

status_of env PATH="$work/tools:$PATH" LD_LIBRARY_PATH="$FAKES" \
    "$scripts/gpu_check.sh" --build bin --data data --out check --python "$python" --seconds 50
check 'status 1' test "$status" = 1
check 'the files of the earlier run are gone' test ! -e check/old.log
check 'the last line counts' test "$(tail -n 1 out | grep -cE '^[0-9]+ passed, [0-9]+ failed: ')" = 1
check 'the report is kept' test "$(tail -n 1 out)" = "$(tail -n 1 check/report.md)"
check 'the header of the table' has check/report.md "$header"
check 'a caption' has check/report.md '^20.* UTC, GPU .*, driver 999\.99 for CUDA .*--seconds 50`$'

bad_lines() { ! grep -vP "$1" "$2"; } # PATTERN FILE: shows the lines that do not match
check 'all stages are well-formed' bad_lines '^\d+\t(pass|FAIL)\t[^\t|]+\t\d+\t[^\t|]+$' check/stages.tsv
check 'all stages are printed' test "$(grep -cE '^(pass|FAIL)  .{34} +[0-9]+ s  .' out)" = "$(wc -l <check/stages.tsv)"
check 'each stage is there once' test "$(cut -f 3 check/stages.tsv | sort -u | wc -l)" = "$(wc -l <check/stages.tsv)"
check 'no shell is lost' bad_lines '^(?!.*(unbound variable|syntax error|line \d+: .*: command not found))' \
    <(cat err check/*.log)

# A stage's verdict and detail; or it was late and says so, as it may be on a slow machine.
late='took longer than its time|no time was left for it'
passes() { # NAME [DETAIL]
    check "stage $1" grep -qP "^\d+\t(pass\t$1\t\d+\t.*${2-}|FAIL\t$1\t\d+\t($late))" check/stages.tsv
}
fails() { # NAME DETAIL
    check "stage $1" grep -qP "^\d+\tFAIL\t$1\t\d+\t($2|$late)" check/stages.tsv
}
passed() { # NAME
    grep -qP "^\d+\tpass\t$1\t" check/stages.tsv
}
passes build 'all programs are there'
passes facts 'Fake GPU, 8 MiB,999\.99'
passes images
fails torch 'ModuleNotFoundError: '
passes plans 'on cudnn'
for test in layers pass step optimizers memory reference threads device '20 steps' 'layers, more batches'; do
    passes "parity $test"
done
for test in 'graph or not, batch 128' 'repeatable, float32' 'repeatable, tf32' 'float32 has no TF32'; do
    passes "$test" 'bytes, all equal'
done
for test in 'graph or not, recipe' 'repeatable, recipe, tf32' 'resumed, tutorial' 'resumed, best'; do
    passes "$test" 'bytes, all equal'
done
passes 'kernels tf32 2048' '[1-9][0-9] kernels of'
passes 'speed float32 128' '50\.0 us/step'
passes 'speed of a recipe' '50\.0 us a step .*: 1\.000'
passes 'memcheck, tutorial' 'SUMMARY: 0 errors'
passes 'racecheck, best' 'SUMMARY: 0 errors'
fails accuracy '.*, mean '
fails pytorch 'no time'
! passed 'speed float32 10' || passes 'required: epoch' '0\.300 s an epoch'
fails 'required: beside PyTorch' 'no measurement of '
! passed facts || check "the build's toolkit" has check/facts.txt '^nvcc: Fake compilation tools, release 99\.9$'
late=$(grep -cP "\t($late)" check/stages.tsv || true)
echo "$late stages of the run had no time"

end_checks

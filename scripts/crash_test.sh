#!/usr/bin/env bash
# Kill training at random instants, and see that nothing is ever lost.
#
#     ./scripts/crash_test.sh [RUNS] [SEED]
#
# RUNS  runs to kill; else 200
# SEED  draws the instants; else one that is printed
#
# One run is left in peace. Then RUNS others are killed (SIGKILL) at instants spread over the whole
# length of a run, every other one while a file is being written. After each kill the checkpoints that
# are there must load; the run is resumed, with another number of threads, and killed again as often as
# not. All the while others come by at random instants: somebody who starts another run in the same place
# and must be refused, somebody who reads the checkpoints, and a second resume, which is refused or, where
# the run has just been killed, goes on in its place. In the end the checkpoints must be those of the
# undisturbed run, byte for byte, its log must hold the same figures, and nothing else has been touched.
# Takes the programs from $BIN, else from build/release or build/test.
# Exit status: 1 if a run differed; its folder is kept then. 2 if the command line is wrong.
set -euo pipefail

root=$(realpath -m "${BASH_SOURCE[0]}/../..")
die() { echo "crash_test: ${*:2}" >&2; exit "$1"; }

if [[ ${1-} == --help ]]; then
    sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
fi
runs=${1:-200} seed=${2:-$RANDOM}
[[ $runs =~ ^[1-9][0-9]{0,5}$ ]] || die 2 "RUNS $runs: a whole number from 1 is expected"
[[ $seed =~ ^[0-9]{1,9}$ ]] || die 2 "SEED $seed: a whole number is expected"
if [[ -z ${BIN-} ]]; then
    for BIN in "$root"/build/{release,test}; do [[ ! -x $BIN/cifar-train ]] || break; done
fi
[[ -x $BIN/cifar-train ]] || die 1 "$BIN: no cifar-train there; build it first, as ./scripts/train.sh --version does"
BIN=$(realpath "$BIN")

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
unset CIFAR10_DIR
RANDOM=$seed
export CUDA_VISIBLE_DEVICES='' # where saving is a large part of the time
train=("$BIN/cifar-train" --quiet)
# the names of the files are kept in the checkpoints: the same ones in each folder
settings=(--data ../data --recipe best --batch 10 --limit 150 --validation 50 --epochs 3 --save-every 2
    --log run.jsonl --log-every 3)

now() { echo "${EPOCHREALTIME/[.,]/}"; } # microseconds
exec {never}<> <(:)                      # nothing will ever be read from it
wait_for() { # MICROSECONDS; starting a process for it would take longer than some waits
    local seconds
    printf -v seconds '%d.%06d' $(($1 / 1000000)) $(($1 % 1000000))
    read -rt "$seconds" -u "$never" _ || true
}
figures() { grep -E '"event":"(step|epoch)"' run.jsonl | sed -E 's/"(train|test|validation|images_per)_seconds?":[^,]+,//g'; }

# The run went wrong: says where, and keeps its folder.
lost() {
    local kept
    kept=$(mktemp -d "${TMPDIR:-/tmp}/crash_test.XXXXXX")
    cp -r "$work/data" "$work/undisturbed" "$PWD" "$kept"
    [[ ! -s errors ]] || sed 's/^/    /' errors >&2
    die 1 "run $run, seed $seed: $*; see $kept"
}

# Whether the checkpoints that are there load.
check_files() {
    local file
    for file in best.ckpt last.ckpt; do
        [[ ! -e $file ]] || "$BIN/cifar-test" --data ../data --model "$file" --grid '' --json >/dev/null 2>errors ||
            lost "$file does not load"
    done
}

"$BIN/cifar-synth" data --train 150 --test 50 >/dev/null
mkdir undisturbed
cd undisturbed
began=$(now)
"${train[@]}" "${settings[@]}" --threads 1
length=$(($(now) - began))
figures >../figures
cd ..
echo "seed $seed; a run takes $((length / 1000)) ms"

# One who comes by at a random instant; says what was wrong. Only where a state is there: before, whoever
# starts a run may have one.
come_by() { # NUMBER
    local status=0 allowed out=../actor.$1
    wait_for $((length * RANDOM / 32768))
    [[ -e last.ckpt ]] || return 0
    case $((RANDOM % 3)) in
    0) # held, or a run's files
        allowed='1|2'
        "${train[@]}" "${settings[@]}" --seed 1 >"$out" 2>&1 || status=$?
        ;;
    1)
        allowed=0
        "$BIN/cifar-test" --data ../data --model last.ckpt --grid '' --json >"$out" 2>&1 || status=$?
        ;;
    2)
        allowed='0|1'
        "${train[@]}" --resume last.ckpt --threads $((1 + RANDOM % 3)) >"$out" 2>&1 || status=$?
        [[ $status != 1 ]] || grep -q 'is being written by another run' "$out" || allowed=0
        ;;
    esac
    [[ $status =~ ^($allowed)$ ]] || { echo "status $status of: $(head -c 500 "$out")"; return 1; }
    echo "$status" >>../came_by
}

kills=0 hits=0 early=0
# COMMAND...: starts it and kills it at a random instant, if it lives that long. Status 0: killed.
kill_once() {
    local pid status=0 temporary=() actors=() actor latest
    "$@" 2>errors &
    pid=$!
    for ((actor = RANDOM % 3; actor > 0; actor--)); do
        RANDOM=$RANDOM come_by "$actor" 2>>errors >>../wrong &
        actors+=($!)
    done
    wait_for $((length * RANDOM / 32768))
    if ((RANDOM % 2)); then # while a file is being written
        latest=$((${EPOCHREALTIME/[.,]/} + 5000000)) # it may be over without the shell having noticed
        until temporary=(*.tmp) && ((${#temporary[@]})) || ! kill -0 "$pid" 2>/dev/null ||
            ((${EPOCHREALTIME/[.,]/} > latest)); do :; done
        ((RANDOM % 2)) || wait_for $((RANDOM % 2000))
    fi
    kill -9 "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || status=$?
    for actor in "${actors[@]}"; do wait "$actor" || lost "somebody came by: $(cat ../wrong)"; done
    ((status != 0)) || return 1 # it had ended before
    # one who came by was faster, and has brought the run to its end
    ((status != 1)) || ! grep -q 'is being written by another run' errors || return 1
    ((status == 137)) || lost "ended with status $status instead of being killed"
    kills=$((kills + 1))
    temporary=(*.tmp)
    ((${#temporary[@]} == 0)) || hits=$((hits + 1))
    [[ -e last.ckpt ]] || early=$((early + 1))
    check_files
}

# Somebody's own files, with names like those of the run's.
foreign=(best.ckpt.20240101.tmp2 last.ckpt.cifar-.tmp2 last.1.ckpt notes)
shopt -s nullglob
for ((run = 1; run <= runs; run++)); do
    begin=(--threads $((1 + RANDOM % 3)))
    until
        rm -rf disturbed && mkdir disturbed && cd disturbed
        for file in "${foreign[@]}"; do echo "$file" >"$file"; done
        kill_once "${train[@]}" "${settings[@]}" "${begin[@]}"
    do cd ..; done # the instant was too late: this was no crash
    for (( ; ; )); do
        again=("${train[@]}" --threads $((1 + RANDOM % 3)))
        # killed before its first save, all that a run has is the beginning of a log
        if [[ -e last.ckpt ]]; then again+=(--resume last.ckpt); else again+=("${settings[@]}" --overwrite); fi
        if ((RANDOM % 2)); then
            kill_once "${again[@]}" || break
        else
            timeout 60 "${again[@]}" 2>errors || lost 'cannot be resumed, or does not end'
            break
        fi
    done
    check_files
    for file in best.ckpt last.ckpt; do
        cmp "$file" "../undisturbed/$file" >errors 2>&1 || lost "$file is not that of the undisturbed run"
    done
    figures | diff ../figures - >errors || lost 'the log has other figures than that of the undisturbed run'
    for file in "${foreign[@]}"; do [[ $(cat "$file") == "$file" ]] || lost "$file was touched"; done
    rm "${foreign[@]}"
    leftovers=(*.tmp *.lock)
    ((${#leftovers[@]} == 0)) || lost "left behind: ${leftovers[*]}"
    cd ..
done
touch came_by
came=$(sort came_by | uniq -c | awk '{ printf "%s%d with status %d", n++ ? ", " : "", $1, $2 }')
echo "$runs runs, $kills kills: $hits of them during a save, $early before the first; all files identical"
echo "others came by: $came"

#!/usr/bin/env bash
# Training that is stopped: by a signal, by a crash at any instant of a save, by writes that fail. Each time
# the files that are there must load, and what is resumed must end with the bytes of an undisturbed run.
# Takes the programs from $BIN, and from $FAILING_IO the library that makes writes fail (fakes/failing_io.c).
set -euo pipefail

# shellcheck disable=SC2034  # checks.sh reads it
NEEDS_MOUNTS=yes
[[ ! -w /dev/shm ]] || export TMPDIR=/dev/shm # thousands of files are synced
# shellcheck source=tests/checks.sh
source "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"

cifar-synth data --train 20 --test 50 >/dev/null
nameless=(cifar-train --data ../data --quiet --threads 1 --epochs 2 --seed 2 --save-every 1 --log-every 1)
train=("${nameless[@]}" --log run.jsonl)

enter() { rm -rf "$work/run" && mkdir "$work/run" && cd "$work/run"; }
check_files() { # WHAT: the files that are there load
    local file
    for file in best.ckpt last.ckpt; do [[ ! -e $file ]] || check "$1: $file loads" loads ../data "$file"; done
}
same() { # FOLDER: both checkpoints, and the figures of the log, are those there; no temporary file is left
    cmp best.ckpt "$1/best.ckpt" && cmp last.ckpt "$1/last.ckpt" && [[ -z $(find . -name '*.tmp') ]] &&
        { [[ ! -e $1/run.jsonl ]] || diff <(figures "$1/run.jsonl") <(figures run.jsonl); }
}
says() { # WHAT STATUS [PATTERN]: how the last command ended, and a line that it said; else it said nothing
    if ((status != $2)) || if (($# > 2)); then ! grep -qE -- "$3" "$err"; else [[ -s $err ]]; fi; then
        failed "$1: status $status instead of $2, or no message matches '${3-}':" "$err"
    fi
}
# WHAT [further]: goes on, if need be from the start, and must end like the undisturbed run. With `further` the
# state could not be written for so long that its run's other files are further: they are not given up unasked.
resume() {
    local command=(cifar-train --quiet --resume last.ckpt)
    [[ -e last.ckpt ]] || command=("${train[@]}" --overwrite)
    if (($# > 1)) && [[ -e last.ckpt ]]; then
        cp -a . ../before
        status_of "${command[@]}"
        if ((status != 0)); then
            says "$1: resumed" 2 '^cifar-train: last.ckpt: is in epoch [12] after step [01], but its run has been further: .* --overwrite goes back'
            check "$1: the refusal changes nothing" diff -r . ../before
            command+=(--overwrite)
        fi
        rm -r ../before
    fi
    check "$1: ${command[*]}" "${command[@]}"
    check "$1: as undisturbed" same ../undisturbed
}

mkdir undisturbed && cd undisturbed
"${train[@]}"
check 'both epochs were the best: two saves of best.ckpt' test "$(grep -c '"best":true' run.jsonl)" = 2

# --- Signals.

# Wherever the run is: the resume does not depend on where that was.
many=("${train[@]}" --epochs 150 --save-every 1000) # which no epoch reaches
enter && "${many[@]}" && mv "$work/run" "$work/undisturbed_many"
for signal in INT:130 TERM:143 HUP:129; do
    number=${signal#*:} name=${signal%:*}
    enter
    start "${many[@]}"
    await grep -qs '"epoch":9,' run.jsonl
    kill -"$name" "$started" && ended
    says "SIG$name" "$number" '^cifar-train: interrupted in epoch [0-9]+ after step [0-9] of 2, and saved; go on with --resume last\.ckpt$'
    check "SIG$name: one message" test "$(wc -l <"$err")" = 1
    check "SIG$name: the log tells" has run.jsonl '"event":"end","finished":false,.*"error":"interrupted in epoch'
    check_files "SIG$name"
    check "SIG$name: resumed" cifar-train --quiet --resume last.ckpt --threads 2
    check "SIG$name: as undisturbed" same ../undisturbed_many
done

# So does a run by a recipe, of which more is kept: an average, flips that alternate, images held out, rates.
recipe=("${train[@]}" --recipe best --epochs 3 --batch 5 --average ema --average-decay 0.5 --label-smoothing 0.1
    --validation 8)
enter && "${recipe[@]}" && mv "$work/run" "$work/undisturbed_recipe"
for call in 14 22 30 38 46; do # the saves after the first steps, and between the epochs
    enter
    hold "$call" "${recipe[@]}"
    kill -9 "$started" && ended
    check_files "a recipe, killed at call $call"
    check "a recipe, killed at call $call: resumed" cifar-train --quiet --resume last.ckpt --threads 2
    check "a recipe, killed at call $call: as undisturbed" same ../undisturbed_recipe
done

# In the save after the first step, whose first calls are 13 and 14.
# Whether the program has noted a signal: from then on it does not catch SIGTERM any more.
noted() { (((0x$(sed -n 's/^SigCgt:\t//p' "/proc/$started/status") >> 14 & 1) == 0)); }
for signal in INT:130 TERM:143 HUP:129; do
    number=${signal#*:} name=${signal%:*}
    enter
    hold 14 "${train[@]}"
    kill -"$name" "$started"
    await noted
    release
    says "SIG$name in a save" "$number" 'interrupted in epoch 1 after step 1 of 2, and saved; go on with --resume last\.ckpt$'
    check_files "SIG$name in a save"
    resume "SIG$name in a save"

    enter
    hold 14 "${train[@]}"
    kill -"$name" "$started"
    await noted
    kill -"$name" "$started" # it waits still
    ended
    check "a second SIG$name ends it at once" test "$status" = "$number" -a ! -s "$err"
    check_files "a second SIG$name"
    resume "a second SIG$name"
done
enter
hold 1 FAULT_FILES='*/test_batch.bin' "${train[@]}"
kill "$started"
await noted
release
says 'SIGTERM before the training' 143 'interrupted in epoch 1 after step 0 of 2, and saved; go on with --resume last\.ckpt$'
resume 'SIGTERM before the training'

enter
hold 14 nohup "${train[@]}"
kill -HUP "$started"
release
says 'nohup' 0
check 'nohup: nothing has happened' same ../undisturbed
enter
start "$preload" FAULT=fail FAULT_AT=13 FAULT_FOR=1000000 FAULT_ERRNO=ENOSPC "${many[@]}"
await grep -qs '"epoch":3' run.jsonl # a log may be an epoch ahead of its state
stop
says 'interrupted, but unable to save' 1 \
    '^cifar-train: interrupted in epoch [0-9]+ after step [0-9]+, and the training state could not be saved: last.ckpt: .*No space'
check_files 'interrupted, but unable to save'
status_of cifar-train --quiet --resume last.ckpt
says 'interrupted, but unable to save: the log is further' 2 'its run has been further: run.jsonl has records up to epoch'
check 'interrupted, but unable to save: resumed from before' cifar-train --quiet --resume last.ckpt --overwrite
check 'interrupted, but unable to save: as undisturbed' same ../undisturbed_many

# --- Every call of every save.

enter
FAULT_TRACE=../trace env "$preload" "${train[@]}"
mapfile -t calls <../trace # "NUMBER CALL PATH"
calls=('' "${calls[@]}")
# A save is 8 calls; before the first, 4 find out whether the files can be written.
check 'the calls of the saves' test "$(cut -d ' ' -f 2 ../trace | xargs)" = "open close open close$(
    for ((i = 0; i < 7; i++)); do printf ' %s' open write fsync close rename open fsync close; done)"
last_call=$((${#calls[@]} - 1))
reasons=(ENOSPC 'No space left on device' EIO 'Input/output error' EROFS 'Read-only file system' EDQUOT 'Disk quota exceeded')
file_of() { [[ ${calls[4 + (($1 - 5) / 8) * 8 + 1]} =~ (best|last)\.ckpt ]] && echo "${BASH_REMATCH[0]}"; } # CALL
# What is said where the call fails, and nothing where that changes nothing.
message_of() { # CALL FILE REASON
    case $((($1 - 5) % 8)) in
    0) echo "$2: cannot be written: creating (/.*/)?$2\.cifar-[0-9]+\.tmp beside it failed: $3" ;;
    [1-4]) echo "$2: could not be written \([0-9]+ bytes\): $3; nothing has been changed" ;;
    5 | 6) echo "$2: was written, but its folder could not be synced: $3" ;;
    esac
}

killed() { # FAULT CALL
    local what="killed $1 call ${calls[$2]//$work\//}"
    enter
    status_of env "$preload" FAULT="$1" FAULT_AT="$2" "${train[@]}"
    says "$what" 137
    check_files "$what"
    resume "$what"
}
for ((n = 1; n <= last_call; n++)); do
    killed before "$n"
    # after it the files are as before the next call, except that a record of the log may come between
    ((n < 4 || (n - 4) % 8)) || killed after "$n"
done

for ((n = 1; n <= last_call; n++)); do
    pair=$((n % 4 * 2)) kinds=(fail)
    [[ ${calls[n]} != *write* ]] || kinds+=(full short)
    ((n < 28 || n > 36)) || kinds+=(full)
    for kind in "${kinds[@]}"; do # this call, all from it on, and this one after half of the bytes
        what="$kind at call ${calls[n]//$work\//}, ${reasons[pair]}"
        fault=(FAULT="${kind/full/fail}" FAULT_AT="$n" FAULT_ERRNO="${reasons[pair]}")
        [[ $kind != full ]] || fault+=(FAULT_FOR=1000000)
        [[ $kind != short ]] || fault+=(FAULT_FOR=2)
        enter
        status_of env "$preload" "${fault[@]}" "${train[@]}"
        if ((n <= 4)); then # found out before the training
            if [[ ${calls[n]} == *open* || $kind == full ]]; then
                says "$what" 1 "^cifar-train: (best|last)\.ckpt: cannot be written: creating .* failed: ${reasons[pair + 1]}$"
                check "$what: no training" test ! -e run.jsonl
            else
                says "$what" 0
                check "$what: as undisturbed" same ../undisturbed
            fi
            continue
        fi
        file=$(file_of "$n")
        message=$(message_of "$n" "$file" "${reasons[pair + 1]}")
        check "$what: no temporary file" test -z "$(find . -name '*.tmp')"
        if [[ -z $message && ($kind == fail || $n == "$last_call") ]]; then
            says "$what" 0
            check "$what: as undisturbed" same ../undisturbed
            continue
        fi
        [[ -z $message ]] || says "$what" 1 "^cifar-train: warning: $message; training goes on, and the next save tries again$"
        if [[ $kind == full ]]; then
            says "$what" 1 '^cifar-train: training is finished, but (best|last)\.ckpt does not hold its end: '
        else
            says "$what" 1 "^cifar-train: training is finished and its files are complete, but 1 of the writes on the way failed; the last one: $message$"
            check "$what: the files are complete" same ../undisturbed
        fi
        check "$what: the log holds the warnings" test "$(grep -c '"event":"warning"' run.jsonl)" = "$(grep -c warning: "$err")"
        if ! same ../undisturbed >/dev/null 2>&1; then
            check_files "$what"
            resume "$what" further
        fi
    done
done
for call in 14 15 19; do # a write and the two syncs
    enter
    status_of env "$preload" FAULT=fail FAULT_AT="$call" FAULT_ERRNO=EINTR "${train[@]}"
    says "interrupted call $call" 0
    check "interrupted call $call: as undisturbed" same ../undisturbed
done
enter
status_of env "$preload" FAULT=short FAULT_AT=14 "${train[@]}"
says 'a short write is gone on with' 0
check 'a short write is gone on with' same ../undisturbed

# --- The log.

enter
FAULT_TRACE=../trace_log env "$preload" FAULT_FILES='*.jsonl' "${train[@]}"
mapfile -t writes < <(sed -n 's/ write .*jsonl$//p' ../trace_log)
check 'each record is a write' test "${#writes[@]}" = "$(wc -l <run.jsonl)"

# Ctrl-C ends the reader of a pipe, too; before it saves, the run has an epoch to print.
enter
mkfifo pipe && exec {reader}<>pipe
env --default-signal=INT "$preload" FAULT=hold FAULT_AT="${writes[2]}" FAULT_HOLD="$held" FAULT_FILES='*.jsonl' \
    "${train[@]/--quiet/--overwrite}" >pipe 2>"$err" {reader}<&- &
started=$!
await test -e "$held"
exec {reader}<&-
kill -INT "$started"
await noted
release
says 'SIGINT with a broken pipe' 130 'interrupted in epoch 2 after step 0 of 2, and saved; go on with --resume last\.ckpt$'
resume 'SIGINT with a broken pipe'

for n in "${writes[@]}"; do
    for kind in fail short full; do
        fault=(FAULT="${kind/full/fail}" FAULT_AT="$n" FAULT_ERRNO=ENOSPC FAULT_FILES='*.jsonl')
        [[ $kind != full ]] || fault+=(FAULT_FOR=1000000)
        [[ $kind != short ]] || fault+=(FAULT_FOR=2)
        what="$kind at write $n of the log"
        enter
        status_of env "$preload" "${fault[@]}" "${train[@]}"
        if [[ $n == "${writes[0]}" ]]; then
            says "$what" 1 '^cifar-train: run.jsonl: the log cannot be written: No space left on device$'
            check "$what: found out before the training" test ! -e last.ckpt
            continue
        fi
        says "$what" 1 '^cifar-train: warning: run.jsonl: the log cannot be written: No space left on device$'
        check "$what: one warning" test "$(grep -c warning: "$err")" = 1
        if [[ $kind == full ]]; then
            says "$what" 1 '^cifar-train: run.jsonl: the log cannot be written: No space left on device$'
            check "$what: best.ckpt" cmp best.ckpt ../undisturbed/best.ckpt
            check "$what: last.ckpt" cmp last.ckpt ../undisturbed/last.ckpt
            check "$what: no torn line" test -z "$(tail -c 1 run.jsonl)"
        else
            says "$what" 1 '^cifar-train: run.jsonl: the log is complete, but 1 of its writes failed on the way$'
            check "$what: as undisturbed" same ../undisturbed
        fi
    done
done

# --- File systems that are full or read-only.

enter
limited() ( # no file may grow beyond 700 KiB, as last.ckpt does once it holds the best network
    ulimit -f 700
    "$@"
)
status_of limited "${train[@]}"
says 'a file size limit' 1 '^cifar-train: warning: last.ckpt: could not be written .*File too large; nothing has been changed; training goes on'
says 'a file size limit' 1 '^cifar-train: training is finished, but last.ckpt does not hold its end'
check 'a file size limit: best.ckpt is there' cmp best.ckpt ../undisturbed/best.ckpt
check_files 'a file size limit'
resume 'a file size limit' further

if [[ $MOUNTS == yes ]]; then
    enter
    mount -t tmpfs -o size=1500k none "$work/run" && cd "$work/run" # no room for last.ckpt twice beside best.ckpt
    status_of "${train[@]}"
    mount -o remount,size=10m none "$work/run"
    says 'a full disk' 1 '^cifar-train: warning: last.ckpt: could not be written .*: No space left on device; nothing has been changed; training goes on'
    says 'a full disk' 1 '^cifar-train: training is finished, but last.ckpt does not hold its end: .*No space left'
    check_files 'a full disk'
    resume 'a full disk' further
    cd "$work" && umount run

    enter
    "${nameless[@]}" && mv "$work/run" "$work/undisturbed_nameless"
    enter
    mount -t tmpfs none "$work/run" && cd "$work/run"
    # between the rename and the folder's sync no file is open, if there are no locks
    hold 18 FAULT_FLOCK=ENOLCK "${nameless[@]}"
    mount -o remount,ro none "$work/run"
    release
    mount -o remount,rw none "$work/run"
    says 'read-only' 1 '^cifar-train: warning: last.ckpt: cannot be written: creating .* failed: Read-only file system; training goes on'
    says 'read-only' 1 '^cifar-train: training is finished, but best.ckpt does not hold its end: .*Read-only file system$'
    check_files 'read-only'
    check 'read-only: resumed' cifar-train --quiet --resume last.ckpt
    check 'read-only: as undisturbed' same ../undisturbed_nameless
    cd "$work" && umount run

    enter
    logged=("${nameless[@]}" --epochs 30 --log log/run.jsonl) # some 7 KB of it
    mkdir log && "${logged[@]}" && mv "$work/run" "$work/undisturbed_logged"
    enter
    mkdir log && mount -t tmpfs -o size=8k none log # a page of it is the lock's
    status_of "${logged[@]}"
    says 'a log on a full disk' 1 '^cifar-train: warning: log/run.jsonl: the log cannot be written: No space left on device$'
    says 'a log on a full disk' 1 '^cifar-train: log/run.jsonl: the log cannot be written: No space left on device$'
    check 'a log on a full disk: two messages' test "$(wc -l <"$err")" = 2
    check 'a log on a full disk: the files' same ../undisturbed_logged
    check 'a log on a full disk: no torn line' test -z "$(tail -c 1 log/run.jsonl)"
    umount log
else
    echo 'skipped: a full and a read-only file system (nothing may be mounted here)'
fi

end_checks

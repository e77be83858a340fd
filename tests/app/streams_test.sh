#!/usr/bin/env bash
# What a training writes to and hears of: logs that are long, no files or standard output itself; readers that
# go; signals at any time; names that would act on a terminal. Takes the programs from $BIN.
set -euo pipefail

[[ ! -w /dev/shm ]] || export TMPDIR=/dev/shm # hundreds of files are synced
# shellcheck source=tests/checks.sh
source "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
cifar-synth data --train 20 --test 10 >/dev/null
train=(cifar-train --data data --epochs 2 --log-every 1 --threads 1 --device cpu --overwrite)
records='"event":"(start|step|epoch|end)"'

# --- A log that is there.

"${train[@]}" --quiet --log run.jsonl
cp run.jsonl plain.jsonl
check 'a finished run has eight records' test "$(wc -l <run.jsonl)" = 8
long=$(printf '%.0s\001' {1..250}) long=$long/$long/$long/$long/$long/$long # each byte takes six in the log
mkdir -p "$long"
"${train[@]}" --quiet --model "$long/best.ckpt" --log long.jsonl
check 'a first record is long' test "$(head -n 1 long.jsonl | wc -c)" -gt 8192
fails 2 "--log long.jsonl: is there already \(a run's log\)" cifar-train --data data --model x --last y --log long.jsonl

# --- Standard output as the log.

echo before >both
cifar-train --data data --epochs 2 --log-every 1 --device cpu --model a.ckpt --last a.last --log /dev/stdout >>both
check 'what was there stays' test "$(head -n 1 both)" = before
grep '^{' both >both.jsonl
check 'each record is a line of its own' test "$(grep -c '"event"' both) $(wc -l <both.jsonl)" = '8 8'
check 'the records are whole' python3 -c 'import json, sys; [json.loads(line) for line in open(sys.argv[1])]' both.jsonl
check 'so are the lines of text' test "$(grep -cE '^(cifar-train|  [a-z]+ |\[[12],|Epoch [12]: |Finished)' both)" = 18
check 'the figures are the same' cmp <(figures plain.jsonl) <(figures both)
check 'text and records are in order' test "$(grep -nE '^Epoch 1' both | cut -d: -f1)" -lt "$(grep -n '"event":"epoch","epoch":1' both | cut -d: -f1)"
# shellcheck disable=SC2094  # that is the point
"${train[@]}" --log both >both
check 'by its name, too, and without >>' test "$(grep -cE "^\{$records" both) $(wc -l <both)" = "8 26"
"${train[@]}" --log /dev/stderr 2>both >/dev/null
check 'so it is with standard error' test "$(grep -cE "^\{$records" both)" = 8
cifar-train --resume last.ckpt --epochs 3 --log /dev/stderr 2>>both >/dev/null
check 'a run goes on there' test "$(grep -cE '^\{"event":"(start|resume|step|epoch|end)"' both) $(wc -l <both)" = '13 13'
"${train[@]}" --quiet --log /dev/null
status_of cifar-train --resume last.ckpt --epochs 3 --quiet
check 'it is not asked for when the run goes on' empty "$err"
status_of cifar-train --resume last.ckpt --epochs 4 --quiet --log /dev/null
check 'a device is no log that lacks records' empty "$err"

# --- Pipes and links.

mkfifo pipe
fails 1 '^cifar-train: pipe: is a pipe that nobody reads; start its reader first$' timeout 10 "${train[@]}" --model x --last y --log pipe
check 'it is found out before the training' test ! -e x -a ! -e y
cat pipe >piped & reader=$!
"${train[@]}" --quiet --log pipe
wait "$reader"
check 'with its reader, a pipe takes all' cmp <(figures plain.jsonl) <(figures piped)
# Readers that live, but do not read: the runs go on, are saved and can be stopped.
mkfifo another && exec {unread}<>pipe {unread_too}<>another
slow=(cifar-train --data data --quiet --epochs 1000000 --batch 1 --log-every 1)
"${slow[@]}" --model slow0.ckpt --last slow0.last --log pipe 2>slow0 & processes=($!)
"${slow[@]}" --model slow1.ckpt --last slow1.last --log /dev/stdout 2>slow1 >another & processes+=($!)
for i in 0 1; do
    started=${processes[i]}
    await grep -q warning "slow$i"
done
kill "${processes[@]}"
for case in '0 pipe' '1 /dev/stdout'; do
    read -r i log <<<"$case"
    ended "${processes[i]}"
    check "$log: a log that nobody reads is told of" has "slow$i" \
        "warning: $log: the log cannot be written: its reader does not read"
    check "$log: and the run can be stopped" test "$status" = 143
    check "$log: with its state saved" has "slow$i" \
        "interrupted in epoch [0-9]+ .* and saved; go on with --resume slow$i.last --log $log$"
done
exec {unread}<&- {unread_too}<&-
ln -s nowhere dangling
fails 1 '^cifar-train: dangling: is a link that leads to no file: No such file or directory; remove it or make its file$' \
    "${train[@]}" --model x --last y --log dangling
check 'no file is made there' test ! -e nowhere

# --- Readers that go, and signals.

exec {reader}<>pipe # a pipe that nobody will ever read
exec {gone}>pipe {reader}<&-
to_nobody() { "$@" >&"$gone"; }
cp best.ckpt undisturbed.ckpt
fails 1 '^cifar-train: standard output cannot be written: Broken pipe$' to_nobody "${train[@]}" --log gone.jsonl
check 'a run goes on without its reader' cmp <(figures plain.jsonl) <(figures gone.jsonl)
check 'and has its files' cmp best.ckpt undisturbed.ckpt
exec {gone}>&-

many=("${train[@]}" --epochs 100 --quiet)
"${many[@]}" --log many.jsonl
mv best.ckpt undisturbed.ckpt
head -n 1 pipe >/dev/null & reader=$!
status_of "${many[@]}" --log pipe
wait "$reader"
check 'so it does without the reader of its log' test "$status $(grep -c 'pipe: the log cannot be written: Broken pipe$' "$err")" = '1 2'
check 'and says so twice' test "$(sort -u "$err" | wc -l) $(grep -c warning "$err")" = '2 1'
check 'and has its files' cmp best.ckpt undisturbed.ckpt

for signal in USR1:138 USR2:140 XCPU:152; do # which say that the end is near, as often as they like
    name=${signal%:*}
    start "${train[@]}" --epochs 1000000 --log stopped.jsonl
    await grep -qs '"epoch":9,' stopped.jsonl
    while kill -"$name" "$started" 2>/dev/null; do :; done
    ended
    check "SIG$name" test "$status" = "${signal#*:}"
    check "SIG$name" has "$err" '^cifar-train: interrupted in epoch [0-9]+ after step [01] of 2, and saved; go on with --resume last\.ckpt$'
    rm stopped.jsonl
done
check 'the state is that of a run' cifar-test --data data --model last.ckpt --grid ''

# --- Names that would act on a terminal, if they were printed as they are.

plain() { ! LC_ALL=C grep -nP '[\x00-\x09\x0b-\x1f\x7f]|\xc2[\x80-\x9f]' "$@"; } # FILE...
rude=$'r\e[31m\n\x7f\xc2\x9b1m\xc3\xa9' shown=$'r\\?\\[31m\\?\\?\\?\\?1m\xc3\xa9'
mkdir "$rude"
cifar-synth "$rude/data" --train 20 --test 10 >out
check 'synth' has out "^$shown/data: 20 training"
cifar-train --data "$rude/data" --epochs 1 --model "$rude/best.ckpt" --log "$rude/log" --save-every 1 >>out 2>err
for epochs in 1 2; do
    cifar-train --resume "$rude/last.ckpt" --data "$rude/data" --model "$rude/best.ckpt" --log "$rude/log" --epochs $epochs >>out 2>>err
done
for line in "  data +$shown/data: 20" "  model +$shown/best.ckpt$" "  state +$shown/last.ckpt, after each epoch and every 1 steps$" \
    "  log +$shown/log, every" "Epoch 1: .*; best so far: $shown/best.ckpt$" "Finished Training .*, in $shown/best.ckpt$" \
    "$shown/last.ckpt: this run is finished" "Going on with $shown/last.ckpt" "Best test accuracy so far .*, in $shown/best.ckpt$"; do
    check 'train' has out "^$line"
done
cifar-test --data "$rude/data" --model "$rude/best.ckpt" --grid "$rude/grid.png" >>out 2>>err
check 'test' has out "^data +$shown/data: 10" && check 'test' has out "images are in $shown/grid.png:"
cifar-classes --data "$rude/data" --model "$rude/best.ckpt" >>out 2>>err
check 'classes' test "$(grep -cE "^model +$shown/best.ckpt: epoch [12] of a training" out)" = 2
check 'no control characters' plain out err

end_checks

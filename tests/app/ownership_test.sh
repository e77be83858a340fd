#!/usr/bin/env bash
# Who may write what: two runs at once, older copies of a state, states of somebody else's, files that are
# something else, other users' files, kept states. The rule is written down in src/app/outputs.h. Takes
# the programs from $BIN, and from $FAILING_IO the library that makes calls fail (fakes/failing_io.c).
set -euo pipefail

# shellcheck source=tests/checks.sh
source "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"

cifar-synth D --train 50 --test 20 >/dev/null
cifar-synth E --train 50 --test 30 >/dev/null # more test images, the same training images
cp -r D F
cifar-synth other --train 5 --test 20 --seed 1 >/dev/null
mv other/test_batch.bin F # other test images
cp -r D G
cifar-synth other --train 50 --test 20 --seed 1 >/dev/null
mv other/data_batch_3.bin G # some other training images
train=(cifar-train --data ../D --quiet --threads 1)
enter() { # [ARGUMENT...]: an empty folder; with arguments, one where a run of these has ended
    rm -rf "$work/run" && mkdir "$work/run" && cd "$work/run"
    (($# == 0)) || "${train[@]}" "$@"
}
sums() { find . -type f -print0 | sort -z | xargs -0 md5sum; }
# STATUS PATTERN COMMAND...: fails() as in checks.sh, and no file is touched
refused() {
    local before
    before=$(sums)
    fails "$@"
    check "untouched by: ${*:3}" test "$before" = "$(sums)"
}
change() { python3 "$tests/checkpoints.py" change "$@"; } # FILE KEY VALUE
# CALL [NAME=VALUE...] COMMAND...: runs it; the call fails, as on a full disk
full_at() { status_of env "$preload" FAULT=fail FAULT_AT="$1" FAULT_ERRNO=ENOSPC "${@:2}"; }
ends_well() { release_of "${1-$held}" "${2-$started}" && check 'the run that was held ends' test "$status" = 0; } # [HELD PROCESS]
is() { [[ $(about "$1" "$2" 2>/dev/null) == "$3" ]]; } # FILE KEY VALUE
differs() { # PATTERN [ARGUMENT...]: cifar-verify is not content, and prints this
    fails 4 'do not belong together' cifar-verify "${@:2}"
    check "verify tells" has "$out" "$1"
}
verified() { check "$1" cifar-verify "${@:2}"; } # WHAT [ARGUMENT...]

# --- Default names: the command that the program recommends is the one that works.

enter --epochs 1
start "${train[@]}" --overwrite --seed 2 --batch 1 --epochs 1000 --save-every 1
await is last.ckpt seed 2
stop
check 'stopped in its first epoch, or soon after' has "$err" '^cifar-train: interrupted in epoch [0-9]+ .* go on with --resume last.ckpt$'
cp -a . ../stopped
verified 'a model that is given up belongs to the run'
start cifar-train --quiet --resume last.ckpt
await is best.ckpt seed 2
stop
check 'a new run goes on over the model that it was to replace' test "$(about best.ckpt seed)" = 2
check 'what it has replaced is forgotten' test -z "$(about last.ckpt given_up)"
verified 'and all is of one run'

# Only those very bytes were given up.
rm -rf ../run && mv ../stopped ../run && cd ../run
"${train[@]}" --seed 3 --epochs 1 --model best.ckpt --last other.ckpt --overwrite
refused 2 "--model best.ckpt: is there already \(a run's checkpoint: epoch 1, seed 3, .* no file of the run in last.ckpt; .*--overwrite" \
    cifar-train --resume last.ckpt

# That it did is no harm, if it cannot be written that it does no more.
enter --epochs 1
FAULT_TRACE=../trace env "$preload" "${train[@]}" --epochs 1 --seed 2 --overwrite --keep 3
at=$(grep -n ' rename .*best' ../trace | tail -n 1 | cut -d: -f1) # the state is written once more behind it
rm -f ./*.ckpt && "${train[@]}" --epochs 1
full_at $((at + 4)) "${train[@]}" --epochs 1 --seed 2 --overwrite --keep 3
check 'which is told' has "$err" 'training is finished and its files are complete, but 1 of the writes on the way failed'
check 'with the status of a failed write' test "$status" = 1
check 'its state holds the end' cifar-train --quiet --resume last.ckpt
verified 'and all is of one run'

# Once it is replaced, nothing is given up any more: put back, it is another run's file.
enter
"${train[@]}" --epochs 1 && cp best.ckpt of_before.ckpt
"${train[@]}" --epochs 1 --seed 2 --overwrite
check 'the state forgets what has been replaced' test -z "$(about last.ckpt given_up)"
mv of_before.ckpt best.ckpt
refused 2 '--model best.ckpt: is there already .* no file of the run in last.ckpt' cifar-train --resume last.ckpt
fails 4 'do not belong together' cifar-verify

# --- A state beside another run's model.

enter
mkdir other && cd other
start "${train[@]/..\//../../}" --seed 4 --batch 1 --epochs 1000 --model m.ckpt --last m.last
await test -s m.last
stop
cd ..
"${train[@]}" --epochs 1 --model m.ckpt --last own.last
mkdir beside && cp other/m.last m.ckpt beside && cd beside
refused 2 '--model m.ckpt: is there already .*, but is no file of the run in m.last' cifar-train --resume m.last --data ../../D
differs '^model  m.ckpt: whole, but of another run' m.last

# --- Two at once.

enter
hold 14 "${train[@]}" --seed 1 --log run.jsonl --save-every 1
busy="is being written by another run \(host [^,]+, process [0-9]+, start 20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9:]{8}Z, run [0-9a-f]{8}\)"
refused 1 "^cifar-train: last.ckpt: $busy: wait for its end, stop it, or name" "${train[@]}" --seed 2
refused 1 "last.ckpt: $busy" "${train[@]}" --seed 1
refused 1 "last.ckpt: $busy" "${train[@]}" --overwrite
refused 1 "last.ckpt: $busy" cifar-train --resume last.ckpt
refused 1 "last.ckpt: $busy" cifar-train --resume last.ckpt --overwrite
refused 1 "best.ckpt: $busy" "${train[@]}" --last other.ckpt
refused 1 "best.ckpt: $busy" "${train[@]}" --last other.ckpt --overwrite
refused 1 "run.jsonl: $busy" "${train[@]}" --last other.ckpt --model model.ckpt --log run.jsonl
ln -s last.ckpt link.ckpt
refused 1 "link.ckpt: $busy" "${train[@]}" --last link.ckpt --overwrite
rm link.ckpt
cp last.ckpt copy.ckpt
refused 1 "best.ckpt: $busy" cifar-train --resume copy.ckpt
rm copy.ckpt
check 'the process that is named is the one that lives' test "$(sed -n 's/^process //p' last.ckpt.lock)" = "$started"
temporary=(*.tmp)
check 'it has a temporary file' test -e "${temporary[0]}"
check 'which is locked while it is written' test "$(flock -n "${temporary[0]}" echo free)" != free
# from another name space, where its process number means nothing
if unshare -rpf --mount-proc true 2>/dev/null; then
    refused 1 "last.ckpt: $busy" unshare -rpf --mount-proc cifar-train --data ../D --seed 2
else
    echo 'skipped: another name space (none may be made here)'
fi
touch best.ckpt.20240101.tmp last.ckpt.20240101.tmp
ends_well
check 'no lock is left' test -z "$(find . -name '*.lock')"
check "a user's own file stays" test -e best.ckpt.20240101.tmp -a -e last.ckpt.20240101.tmp
cifar-train --quiet --resume last.ckpt --epochs 6
check "also when somebody looks for leftovers" test -e best.ckpt.20240101.tmp -a -e last.ckpt.20240101.tmp
verified 'all is of one run'

# Who holds the lock is told from its first moment on, while the data is still being read.
enter
hold 1 FAULT_FILES='*/test_batch.bin' "${train[@]}" --epochs 1
refused 1 "last.ckpt: is being written by another run \(host [^,]+, process $started, start [^,]+\): wait" "${train[@]}"
ends_well

# It is read once more by who came between: here, when it was still empty.
enter
hold 2 FAULT_FILES='*.lock' "${train[@]}" --epochs 1
second=("$held" "$started")
hold 1 FAULT_FILES='*/test_batch.bin' "${train[@]}" --epochs 1
first=("$held" "$started")
release_of "${second[@]}"
check 'who holds it is told' has "$err" "is being written by another run \(host [^,]+, process ${first[1]}, start "
ends_well "${first[@]}"

# The states that a run keeps are its own, too, and no output has the name of a lock.
enter
hold 10 "${train[@]}" --keep 3
refused 1 "last.2.ckpt: $busy" "${train[@]}" --last last.2.ckpt --model m.ckpt
refused 1 "last.1.ckpt: $busy" "${train[@]}" --model last.1.ckpt --last l.ckpt
refused 2 '--model last.ckpt.lock: names with this ending are those of locks' "${train[@]}" --model last.ckpt.lock --last l.ckpt
refused 2 '--log x.lock: names with this ending' "${train[@]}" --model m.ckpt --last l.ckpt --log x.lock
rm best.ckpt.lock && echo mine >best.ckpt.lock
ends_well
check 'what is not its lock any more stays' has best.ckpt.lock '^mine$'
long=$(printf '%0252d' 1)
enter
"${train[@]}" --epochs 1 --log "$long" 2>"$err"
check 'a log whose lock would have too long a name is told of' has "$err" "warning: $long: cannot be locked here .File name too long"

# Leftovers are cleared by whoever may write, not by who is refused.
enter --epochs 1
touch best.ckpt.cifar-7.tmp
refused 2 '--model best.ckpt: is there already' "${train[@]}"
cifar-train --quiet --resume last.ckpt
check 'leftovers are cleared' test ! -e best.ckpt.cifar-7.tmp

# What the program recommends works, wherever the files are.
enter
mkdir a b c
start "${train[@]}" --epochs 1000000 --model a/m.ckpt --last b/s.ckpt --log c/l.jsonl
await test -s a/m.ckpt
stop
command=$(sed -n 's/.* go on with --resume //p' "$err")
check 'the recommendation names what is elsewhere' test "$command" = 'b/s.ckpt --model a/m.ckpt --log c/l.jsonl'
# shellcheck disable=SC2086  # several words
start cifar-train --quiet --resume $command
await grep -qs '"event":"resume"' c/l.jsonl
stop
check 'and works' has "$err" 'interrupted in epoch'

# An epoch that no number can follow.
enter --epochs 1
change best.ckpt epoch 9223372036854775807
refused 2 'its run has been further: best.ckpt holds epoch' cifar-train --resume last.ckpt

# One state resumed twice at once: one of the two goes on.
enter --epochs 1 --log run.jsonl
statuses=$(for ((i = 0; i < 4; i++)); do
    { cifar-train --quiet --resume last.ckpt --epochs 3 2>/dev/null && echo 0 || echo $?; } &
done | sort | uniq -c | xargs)
check "resumed four times at once: $statuses" has <(echo "$statuses") '^([1-4] 0 ?)?([0-3] 1)?$'
check 'at least one went on' has <(echo "$statuses") '^[1-4] 0'
check 'each record is in the log once' test "$(epochs_in run.jsonl)" = 3
verified 'all is of one run'

# What a dead one leaves is no hindrance, also another user's or an empty one.
enter
start "${train[@]}" --epochs 1000000
await test -s last.ckpt
kill -9 "$started" && { wait "$started" || true; } 2>/dev/null
check 'its lock is there' has last.ckpt.lock '^cifar lock$'
check 'and hinders nobody' "${train[@]}" --epochs 1 --overwrite
rm -f ./*.ckpt
: >best.ckpt.lock
check 'nor does an empty one' "${train[@]}" --epochs 1
check 'both are gone' test -z "$(find . -name '*.lock')"
rm ./*.ckpt
echo 'my notes' >best.ckpt.lock
refused 1 'best.ckpt.lock: is no lock of this program' "${train[@]}"
printf '\0 precious' >best.ckpt.lock
refused 1 'best.ckpt.lock: is no lock of this program' "${train[@]}"
rm best.ckpt.lock
ln -s ../precious best.ckpt.lock
refused 1 'best.ckpt.lock: is no lock of this program' "${train[@]}"
check 'a link in its place is not followed' test ! -e ../precious -a -L best.ckpt.lock

rm best.ckpt.lock && mkdir last.ckpt.lock
refused 1 'last.ckpt.lock: is no lock of this program' "${train[@]}"

# A lock that its holder removes just before it can be had is nobody's any more.
enter
hold 14 "${train[@]}" --epochs 1
holder=("$held" "$started")
hold 2 FAULT_FILES='*.lock' "${train[@]}" --overwrite --epochs 1000000
waits=$held
ends_well "${holder[@]}"
check 'and takes its lock away' test ! -e last.ckpt.lock
rm "$waits"
await grep -qs '^run ' last.ckpt.lock # who starts tells it as soon as its data is read
check 'the next one has one of its own' has last.ckpt.lock "^process $started$"
fails 1 "last.ckpt: $busy" "${train[@]}"
stop

# A file system that cannot lock.
enter
check 'without locks it goes on' env "$preload" FAULT_FLOCK=ENOLCK "${train[@]}" --epochs 1
env "$preload" FAULT_FLOCK=EOPNOTSUPP cifar-train --quiet --resume last.ckpt --epochs 2 2>"$err"
check 'no lock is left that was none' test -z "$(find . -name '*.lock')"
check 'and says so' has "$err" 'warning: last.ckpt: cannot be locked here \(Operation not supported\): nothing but care'
check 'once' test "$(wc -l <"$err")" = 1
printf 'cifar lock\nhost elsewhere\n' >last.ckpt.lock
env "$preload" FAULT_FLOCK=ENOLCK cifar-train --quiet --resume last.ckpt --epochs 3 2>"$err"
check "another one's lock stays" has last.ckpt.lock '^host elsewhere$'

# --- Going back.

enter --epochs 2 --log run.jsonl --seed 5
cp last.ckpt b.ckpt
cifar-train --quiet --resume last.ckpt --epochs 12
cp best.ckpt keep.ckpt
further='is in epoch 3 after step 0, but its run has been further: best.ckpt holds epoch [0-9]+, run.jsonl has records up to epoch 13, step 0; that would be lost, until it comes again: --overwrite'
[[ $(about best.ckpt epoch) -gt 2 ]] || further='is in epoch 3 after step 0, but its run has been further: run.jsonl has records'
refused 2 "b.ckpt: $further" cifar-train --resume b.ckpt --epochs 12
refused 2 "b.ckpt: $further" cifar-train --resume b.ckpt
refused 2 'b.ckpt: is in epoch 3 .* last.ckpt is in epoch 13, step 0' cifar-train --resume b.ckpt --last last.ckpt --model m.ckpt --log l.jsonl
differs '^log    run.jsonl: whole; further than the state: epoch 13 after step 0$' b.ckpt
check 'other names are fine' cifar-train --quiet --resume b.ckpt --model m.ckpt --last l.ckpt --log l.jsonl --epochs 3
check 'with --overwrite it goes back' cifar-train --quiet --resume b.ckpt --epochs 12 --overwrite
check 'and comes to the same' cmp best.ckpt keep.ckpt
check 'in the log, too' test "$(epochs_in run.jsonl)" = 12

# Also by one epoch, or by a step.
enter
for ((seed = 1; seed < 30; seed++)); do # until an epoch after the first is the best
    "${train[@]}" --epochs 1 --seed "$seed" --overwrite && cp last.ckpt b.ckpt
    cifar-train --quiet --resume last.ckpt --epochs 2
    ! is best.ckpt epoch 2 || break
done
refused 2 'b.ckpt: is in epoch 2 after step 0, .* further: best.ckpt holds epoch 2; that would' cifar-train --resume b.ckpt --epochs 2 --log new.jsonl
enter
hold 46 "${train[@]}" --batch 1 --save-every 1
cp last.ckpt b.ckpt
kill "$started"
release
refused 2 'b.ckpt: is in epoch 1 after step 4, .* further: last.ckpt is in epoch 1, step [56]; that would' cifar-train --resume b.ckpt --last last.ckpt
check 'what is as far is not further' cifar-train --quiet --resume last.ckpt --last ./last.ckpt --epochs 5
cp last.ckpt c.ckpt
check 'what is as far is not further' cifar-train --quiet --resume c.ckpt --last last.ckpt

# A run of the same settings over its own files, stopped before it is as far.
start "${train[@]}" --epochs 100000 --seed 5 --overwrite --log run.jsonl
await is last.ckpt epochs 100000
stop
start cifar-train --quiet --resume last.ckpt
await grep -qs '"event":"resume"' run.jsonl
stop
check 'it goes on over its own model of before' has "$err" 'interrupted in epoch'

# --- A run that differs in one thing only is another run.

enter --epochs 1 --log run.jsonl
for other in '--seed 1' '--lr 0.002' '--weight-decay 0' '--batch 20' '--limit 40' '--device openblas' '--data ../E' '--data ../F' '--data ../G'; do
    mkdir other
    # shellcheck disable=SC2086  # two words
    "${train[@]}" --epochs 1 $other --model other/best.ckpt --last other/last.ckpt --log other/run.jsonl
    refused 2 "--model best.ckpt: is there already .* no file of the run in other/last.ckpt" \
        cifar-train --resume other/last.ckpt --model best.ckpt --epochs 2
    refused 2 "--last last.ckpt: is there already .* no file of the run in other/last.ckpt" \
        cifar-train --resume other/last.ckpt --last last.ckpt --epochs 2
    refused 2 "--log run.jsonl: is there already .* no file of the run in other/last.ckpt" \
        cifar-train --resume other/last.ckpt --log run.jsonl --epochs 2
    rm -r other
done
for data in E F G; do
    refused 3 "../$data: is not the data of the run in last.ckpt" cifar-train --resume last.ckpt --epochs 2 --data "../$data"
done
mkdir other
"${train[@]}" --epochs 1 --model other/best.ckpt --last other/last.ckpt --log other/run.jsonl
check 'runs that differ in their names only are the same' cifar-train --quiet --resume other/last.ckpt --model best.ckpt --log run.jsonl --epochs 2
check 'so is one that is longer' "${train[@]}" --epochs 3 --model other/best.ckpt --last other/last.ckpt --log other/run.jsonl --overwrite
check 'a log of the same run is gone on with' test "$(epochs_in run.jsonl)" = 2
"${train[@]}" --epochs 1 --seed 8 --overwrite --log run.jsonl
cifar-train --quiet --resume other/last.ckpt --epochs 4 --log run.jsonl --overwrite
check "another run's log is never appended to" lacks run.jsonl '"seed":8'

# --- Names that a state must be able to keep.

enter
odd=$'\xff'
refused 2 'must find its files again when it goes on' "${train[@]}" --model "$odd.ckpt"
refused 2 'must find its files again when it goes on' "${train[@]}" --log "$odd"
refused 2 'must find its files again .* without control characters' "${train[@]}" --model $'m\tx'
refused 2 'must find its files again .* without control characters' "${train[@]}" --log $'\xc2\x9b1m'
deep=$(printf '%0200d/' {1..6})
mkdir -p "$deep"
refused 2 '--model 0+.*: a run must find its files again' "${train[@]}" --model "${deep}best.ckpt" --last last.ckpt
check 'deep down with its state it can' "${train[@]}" --model "${deep}best.ckpt" --epochs 1
refused 4 "its metadata's model is too long a name here; name the file with --model" cifar-train --resume "${deep}last.ckpt" --data ../D
mkdir größer-日本
check 'names in UTF-8 are kept' "${train[@]}" --model größer-日本/bést.ckpt --log größer-日本/lög.jsonl --epochs 1
check 'and found' cifar-train --quiet --resume größer-日本/last.ckpt --epochs 2
check 'and found' test "$(epochs_in größer-日本/lög.jsonl)" = 2

# --- A log goes over logs only, by whatever name; a picture over pictures.

enter --epochs 1 --log run.jsonl
judge=(cifar-test --data ../D)
cp ../D/test_batch.bin renamed
echo notes >notes
echo mine >other.ckpt
another=("${train[@]}" --epochs 1 --model other.ckpt --last other.last --overwrite)
refused 2 '--log /proc/self/cwd/../run/best.ckpt: is something else already' "${another[@]}" --log /proc/self/cwd/../run/best.ckpt
refused 2 '--log /dev/fd/7: is a file of a data set' "${another[@]}" --log /dev/fd/7 7>>renamed
refused 2 '--log /dev/fd/7: is there already' "${another[@]/--overwrite/--quiet}" --log /dev/fd/7 --model x 7>>notes
refused 2 '--log and --last are the same file' cifar-train --resume last.ckpt --epochs 2 --log /proc/self/cwd/last.ckpt
# shellcheck disable=SC2094  # that is the point
for name in /dev/fd/7 /proc/self/fd/7 /dev/stdin; do
    check 'a log by such a name' "${another[@]}" --log $name 7>>by_number.jsonl <by_number.jsonl
    check 'is one' test "$(epochs_in by_number.jsonl)" = 1
    check 'which the state does not name' test -z "$(about other.last log)"
done
start "${another[@]}" --epochs 1000000 --log /dev/fd/7 7>>by_number.jsonl
await is other.last epochs 1000000
stop
check 'but the recommendation does' has "$err" 'go on with --resume other.last --log /dev/fd/7$'
check 'a new name' "${judge[@]}" --grid g.png
check 'a grid over a grid' "${judge[@]}" --grid g.png --batch 5
head -c -1 g.png >photo.png
fails 2 '--grid photo.png: is there already and is no grid that this version of the program drew' "${judge[@]}" --grid photo.png
fails 2 '--grid photo.png: is there already' cifar-predict g.png --model "${judge[-1]}" --grid photo.png
: >empty
check 'an empty file' "${judge[@]}" --grid empty

# --- Kept states.

enter --epochs 5 --keep 3 --seed 6
states() { for file in last.ckpt last.[0-9].ckpt; do [[ ! -e $file ]] || printf '%s ' "$(about "$file" epoch)"; done; }
check 'the last three states' test "$(states)" = '5 4 3 ' -a ! -e last.3.ckpt
cifar-train --quiet --resume last.ckpt
check 'a resume that does nothing keeps nothing more' test "$(states)" = '5 4 3 '
check 'each is a state' cifar-train --quiet --resume last.1.ckpt --model a.ckpt --last a.last --keep 1
check 'and comes to the same' cmp a.ckpt best.ckpt
"${train[@]}" --epochs 1 --keep 3 --seed 7 --overwrite
check 'an overwrite is not final' test "$(about last.2.ckpt seed) $(about last.2.ckpt epoch)" = '6 5'
check 'what was overwritten goes on' cifar-train --quiet --resume last.2.ckpt --model b.ckpt --last b.last --keep 1 --epochs 6
check 'the run that overwrote goes on, too' cifar-train --quiet --resume last.ckpt --epochs 2
check 'over what it gave up' test "$(states)" = '2 1 0 '
rm last.1.ckpt
cifar-train --quiet --resume last.ckpt --epochs 3
check 'a gap is filled first' test "$(states)" = '3 2 0 '
cp last.2.ckpt old.ckpt
cifar-train --quiet --resume old.ckpt --last last.ckpt --keep 3 --overwrite --epochs 1
check 'what is gone back from is kept' test "$(states)" = '1 0 3 '
cp last.2.ckpt last.ckpt
"${train[@]}" --epochs 1 --seed 9 --model c.ckpt --last last.3.ckpt
refused 2 '--last (.*/)?last.3.ckpt: is there already .* no file of the run in last.ckpt' cifar-train --resume last.ckpt --epochs 4 --keep 4
cp last.ckpt new.1.ckpt
refused 2 '--last (.*/)?new.1.ckpt: is there already' "${train[@]}" --model d.ckpt --last new.ckpt --keep 2
check 'without keeping it is none of its files' "${train[@]}" --model d.ckpt --last new.ckpt --epochs 1
mkdir links && "${train[@]}" --epochs 3 --keep 2 --seed 6 --last links/state --model links/best
check 'a name without an ending' test -e links/state.1

# A write that fails after the keeping: the next one does not keep the same once more.
enter
keeping=("${train[@]}" --epochs 5 --keep 3)
FAULT_TRACE=trace env "$preload" "${keeping[@]}"
write=$(sed -n 's/ write .*last.ckpt.cifar.*//p' trace | sed -n 5p) # of epoch 4
enter
full_at "$write" "${keeping[@]}"
check 'one write failed' test "$status" = 1
check 'each version is kept once' test "$(states)" = '5 3 2 '

# Nor where the state cannot be written once more behind the model.
giving_up=("${train[@]}" --seed 2 --epochs 2 --keep 3 --overwrite)
enter --epochs 1
cp -a . ../before
rm -f ../trace
FAULT_TRACE=../trace FAULT_FILES='*/last.ckpt.*.tmp' env "$preload" "${giving_up[@]}"
write=$(sed -n 's/ write .*//p' ../trace | sed -n 3p)
rm -rf ../run && mv ../before ../run && cd ../run
full_at "$write" FAULT_FILES='*/last.ckpt.*.tmp' "${giving_up[@]}"
check 'one write failed' test "$status" = 1
check 'each version is kept once' test "$(states)" = '2 1 0 '

# A model that could not be written is given up until it can.
enter --epochs 1
full_at 3 FAULT_FOR=1000000 FAULT_FILES='*/best.ckpt.*.tmp' "${giving_up[@]}"
check 'the model could not be written' test "$status $(about best.ckpt seed)" = '1 0'
check 'a resume may' cifar-train --quiet --resume last.ckpt
check 'and does' test "$(about best.ckpt seed)" = 2

# --- Other users' files.

if ((EUID == 0)); then
    enter --epochs 1
    chown 1234:4321 best.ckpt last.ckpt && chmod 640 best.ckpt && chmod 600 last.ckpt
    ! python3 -c 'import os; os.setxattr("best.ckpt", "user.note", b"kept")' 2>/dev/null || noted=yes
    umask 022
    "${train[@]}" --epochs 2 --seed 1 --overwrite
    check "what root writes over a user's stays the user's" test "$(stat -c '%u:%g %a' best.ckpt last.ckpt | xargs)" = '1234:4321 640 1234:4321 600'
    if [[ -v noted ]]; then
        check 'with its attributes' test "$(python3 -c 'import os; print(os.getxattr("best.ckpt", "user.note"))')" = "b'kept'"
    else
        echo 'skipped: extended attributes (the file system has none)'
    fi

    # a folder's default ACL is for files that are new
    if mkdir acl && python3 -c "import os, struct
entry = lambda tag, bits, who=0xffffffff: struct.pack('<HHI', tag, bits, who)
os.setxattr('acl', 'system.posix_acl_default', struct.pack('<I', 2) + entry(1, 6) + entry(2, 4, 1234) + entry(4, 4) + entry(16, 4) + entry(32, 0))" 2>/dev/null; then
        "${train[@]}" --epochs 1 --model acl/best.ckpt --last acl/last.ckpt
        python3 -c "import os; os.removexattr('acl/best.ckpt', 'system.posix_acl_access')" && chmod 640 acl/best.ckpt
        "${train[@]}" --epochs 1 --seed 2 --overwrite --model acl/best.ckpt --last acl/last.ckpt
        check 'no list gives more than the file had' test "$(python3 -c 'import os; print(os.listxattr("acl/best.ckpt"))') $(stat -c %a acl/best.ckpt)" = '[] 640'
    else
        echo 'skipped: access control lists (the file system has none)'
    fi

    # Held in a save: the temporary file is no more open than its target.
    hold 6 "${train[@]}" --overwrite --epochs 1
    check 'a temporary file is as closed as its target' test "$(stat -c '%u:%g %a' last.ckpt.cifar-*.tmp)" = '1234:4321 600'
    release
    # from its first moment on
    status_of env "$preload" FAULT=after FAULT_AT=5 "${train[@]}" --overwrite --epochs 1
    check 'a temporary file is never more open than its target' test "$(stat -c %a last.ckpt.cifar-*.tmp)" = 600

    # A sticky folder, where one may make files, but not replace somebody else's.
    chmod 711 "$work"
    mkdir sticky && chmod 1777 sticky
    "${train[@]}" --epochs 1 --model sticky/best.ckpt --last sticky/last.ckpt
    chmod 666 sticky/*
    nobody=(setpriv --reuid 65534 --regid 65534 --clear-groups)
    refused 1 "sticky/(best|last).ckpt: cannot be replaced: it is somebody else's, in a folder where files are replaced by their owners only \(sticky\)" \
        "${nobody[@]}" "$BIN/cifar-train" --data ../D --overwrite --model sticky/best.ckpt --last sticky/last.ckpt --seed 3
    check "one's own may be replaced there" "${nobody[@]}" "$BIN/cifar-train" --data ../D --quiet --model sticky/n.ckpt --last sticky/n.last --seed 3 --epochs 1
    check "one's own may be replaced there" "${nobody[@]}" "$BIN/cifar-train" --quiet --resume sticky/n.last --epochs 2
    # what cannot stay another user's gives his group no more than all
    mkdir open && chmod 777 open
    "${train[@]}" --epochs 1 --model open/best.ckpt --last open/last.ckpt
    chown 1234:4321 open/* && chmod 674 open/*
    "${nobody[@]}" "$BIN/cifar-train" --data ../D --quiet --overwrite --model open/best.ckpt --last open/last.ckpt --seed 3 --epochs 1
    check "what cannot stay another user's" test "$(stat -c '%u:%g %a' open/best.ckpt)" = '65534:65534 644'
    # another user's lock, whose process is dead
    printf 'cifar lock\nhost here\n' >sticky/n.last.lock && chmod 644 sticky/n.last.lock
    "${nobody[@]}" "$BIN/cifar-train" --quiet --resume sticky/n.last --epochs 3 2>"$err"
    check "a dead lock of another user's hinders nobody, and locks" empty "$err"
    exec {lock}<>sticky/n.last.lock && flock "$lock" # as long as somebody has it
    fails 1 'sticky/n.last: is being written by another run' "${nobody[@]}" "$BIN/cifar-train" --quiet --resume sticky/n.last --epochs 4
    exec {lock}>&-
else
    echo "skipped: other users' files (only root can make them)"
fi

# --- A run that is not saved.

enter
full_at 13 FAULT_FOR=1000000 "${train[@]}" --epochs 6
check 'it trains to its end' test "$status" = 1
check 'and says loudly that it is not saved' has "$err" '^cifar-train: warning: THIS RUN IS NOT BEING SAVED: the last 3 times that last.ckpt was to be written it could not be'
full_at 13 FAULT_FOR=1000000 "${train[@]}" --epochs 100000 --stop-if-unsaved --overwrite
check 'or it ends' test "$status" = 1
check 'with the same words' has "$err" '^cifar-train: THIS RUN IS NOT BEING SAVED: '

# --- A start without memory destroys nothing.

if ! ldd "$BIN/cifar" | grep -q libasan; then
    enter --epochs 1 --log run.jsonl
    before=$(sums)
    for limit in 30000 32000 34000 40000 45000 50000 55000; do
        (ulimit -v "$limit"; "${train[@]}" --epochs 1 --log run.jsonl --overwrite --batch 5000 >/dev/null 2>&1) || {
            rm -f ./*.lock
            check "a start in $limit KB" test "$(sums)" = "$before"
        }
        before=$(sums)
    done
fi

# --- verify.

enter --epochs 2 --log run.jsonl
cifar-verify >"$out"
check 'three lines' test "$(wc -l <"$out")" = 3
check 'the state' has "$out" '^state  last.ckpt: whole; run [0-9a-f]{8}, finished after 2 epochs$'
check 'the model' has "$out" '^model  best.ckpt: whole; epoch [12], test accuracy [0-9.]+ %$'
check 'the log' has "$out" '^log    run.jsonl: whole; [0-9]+ records, to epoch 3 after step 0$'
check 'by word' cmp "$out" <(cifar verify last.ckpt)
mkdir away && mv last.ckpt best.ckpt run.jsonl away
(cd / && cifar-verify "$work/run/away/last.ckpt" >/dev/null) || failed 'from elsewhere' /dev/null
fails 4 'there is no|cannot be opened' cifar-verify
cd away
mv best.ckpt x && differs '^model  best.ckpt: is missing; a resume writes it: epoch [12]$' # a model that is missing
head -c 1000 x >best.ckpt
differs '^model  best.ckpt: .*cut short' # a model that is cut
mv x best.ckpt
printf '{"event":' >>run.jsonl
verified 'a torn record is no harm'
sed -i '/"epoch":2/,$d' run.jsonl
differs '^log    run.jsonl: records are missing: it ends in epoch 2 after step 0$' # a log that lost records
rm run.jsonl
fails 4 'do not belong together' cifar-verify
cd .. && rm -r away && "${train[@]}" --epochs 3 --log-every 2 --log run.jsonl
verified 'a log with all its records'
sed -i '/"event":"epoch","epoch":1/p' run.jsonl
differs '^log    run.jsonl: the record of epoch 2, step 2 is not where it belongs$' # a log with a record twice
sed -i '0,/"event":"epoch","epoch":1/{/"event":"epoch","epoch":1/d}' run.jsonl
verified 'and once'
cp run.jsonl whole.jsonl && sed -i '/"event":"epoch","epoch":1/d' run.jsonl
differs '^log    run.jsonl: the record of the end of epoch 1 is not where it belongs$' # a log without an epoch's end
mv whole.jsonl run.jsonl
sed -i '/"epoch":2,"step":2,/d' run.jsonl
differs '^log    run.jsonl: the record of epoch 2, step 2 is not where it belongs$' # a log with a hole
fails 4 'as is said above$' flock -s last.ckpt.lock cifar-verify # nor is it at work for one who only looks
fails 4 'as is said above$' "$preload" FAULT_FLOCK=ENOLCK cifar-verify
rm -f ./*.ckpt ./*.lock run.jsonl && mkdir away
hold 14 "${train[@]}" --log run.jsonl
sed -i '/"start"/d' run.jsonl
fails 4 'but the run is at work, and they change one by one: verify again$' cifar-verify
release
rm -f best.ckpt last.ckpt run.jsonl
"${train[@]}" --epochs 2 && mv best.ckpt last.ckpt away
cd away
fails 4 'holds no training state' cifar-verify best.ckpt
for key in train_images batch epochs; do
    cp last.ckpt large.ckpt && change large.ckpt $key 9223372036854775807
    fails 4 'large.ckpt: its metadata does not tell of its run' cifar-verify large.ckpt
done
cp last.ckpt flipped.ckpt && printf x | dd of=flipped.ckpt bs=1 seek=300000 conv=notrunc status=none
fails 4 'flipped.ckpt: the crc32 of its' cifar-verify flipped.ckpt

# --- --state: the model and the data of a run.

cd ..
rm -r away
mkdir r && "${train[@]}" --epochs 1 --seed 4 --model r/best.ckpt
"${train[@]}" --epochs 1 --seed 5
cifar-test --state r/last.ckpt --grid '' >"$out"
check 'the model of the run' has "$out" '^model   r/best.ckpt: epoch 1'
check 'its data' has "$out" '^data    (../)*D: 20 test images'
check 'what computes is another matter' cifar-test --state r/last.ckpt --grid '' --device openblas
cifar-classes --state r/last.ckpt --model best.ckpt --data ../E >"$out"
check 'what is named wins' has "$out" '^model   best.ckpt'
check 'what is named wins' has "$out" '^data    ../E: 30 test'
"${train[@]}" --epochs 1 --seed 6 --model r/best.ckpt --last r/other.ckpt --overwrite
refused 4 'r/best.ckpt: is not of the run in r/last.ckpt: another run has taken its place' cifar-test --state r/last.ckpt --grid ''
refused 2 '--model r/best.ckpt: is there already [^;]*; --overwrite begins' "${train[@]}" --model r/best.ckpt
cp r/last.ckpt r/best.ckpt
differs '^model  r/best.ckpt: is no network alone' r/last.ckpt # a state is no model

end_checks

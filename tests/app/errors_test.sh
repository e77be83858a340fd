#!/usr/bin/env bash
# What goes wrong at the hands of a user: each case must end with the right exit status and one message
# that says what was wrong. What a command line and files can do is in the table wrong_calls.txt; what
# needs a redirection, a limit or a second look stands below it here. Takes the programs from $BIN.
set -euo pipefail

# shellcheck source=tests/checks.sh
source "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"

# --- The files that the rows name.

cifar-synth good --train 20 --test 10 >/dev/null
cifar-train --data good --epochs 2 --device cpu --log run.jsonl --quiet # makes best.ckpt and last.ckpt
cifar-train --data good --recipe best --epochs 1 --average ema --device cpu --model best-model.ckpt --last best-state.ckpt --quiet
cifar-train --data good --epochs 1 --validation 5 --device cpu --model held-model.ckpt --last held-state.ckpt --quiet
copy() { rm -rf "$1" && cp -r good "$1"; }

# shellcheck disable=SC2034  # rows use it
long=$(printf 'x%.0s' {1..300}) endless=$(printf 'x%.0s' {1..5000}) # more than a name, and than a path, may have
ln -s "$BIN/cifar" other-train # a name that only ends like one of the program's
ln -s "$BIN/cifar" cifar-frobnicate
ln -s nowhere/x dangling
ln -s circle circle
ln -s best.ckpt link.ckpt
ln -s / out-link
mkdir sub sub2
ln -s /proc/version out-file
mkfifo pipe
mkdir 'an empty folder' größer-日本 python
touch python/data_batch_1 python/batches.meta
echo 'no checkpoint' >'with a space.ckpt'
python3 "$tests/app/wrong_files.py" # the damaged checkpoints and training states

cifar-synth other --seed 1 --train 20 --test 10 >/dev/null
cp other/test_batch.bin renamed.bin
head -c 3073 /dev/zero | tr "\0" x >as-long-as-a-batch
cifar-test --data good --grid picture.png >/dev/null
mkdir -p kinds/one kinds/inner/a kinds/eleven/{a..k} kinds/odd/$'a\e[31m' kinds/odd/b kinds/none/{a,b} kinds/{few,loop,twice}/{a,b}
ln -s .. kinds/loop/c
ln -s a kinds/twice/c
cp picture.png kinds/one/loose.png
for folder in none/a few/a few/b; do cp picture.png "kinds/$folder/"; done
printf '\010\004\072\000\102\000' >model.onnx # a version, and an empty graph and list of opsets: a model, of a kind
cifar-synth larger --train 25 --test 10 >/dev/null
cifar-synth smaller --train 5 --test 10 >/dev/null
copy renamed && printf '%s\n' disc ring {c..j} >renamed/batches.meta.txt
copy official && rm official/batches.meta.txt
mkdir root && cp -r official root/cifar-10-batches-bin
copy batch-missing && rm batch-missing/data_batch_3.bin
copy test-missing && rm test-missing/test_batch.bin
copy label && printf '\012' | dd of=label/test_batch.bin bs=1 seek=$((3 * 3073)) conv=notrunc status=none
copy names-escape && printf 'a\033[31m\n' >names-escape/batches.meta.txt

# --- The table.

# All that is there but the output of the checks. Whatever changes a file changes the last of its times;
# a folder's may change, since the program tries out whether it can write there.
listing() {
    find . ! -path ./out ! -path ./err ! -path ./check.out \
        \( -type d -printf '%p %m\n' -o -printf '%p %m %i %s %T@ %C@\n' \) | LC_ALL=C sort
}

row() { # STATUS PATTERN WORD...
    local began=$SECONDS name lines
    fails "$1" "$2" timeout -k 1 10 env "${@:3}"
    mapfile -t lines <err
    name=${lines[0]-} name=${name%%: *}
    [[ ! -s out ]] || failed 'nothing is printed but the message' out
    [[ $1 != 2 || ${lines[1]-} == "$name: '$name --help' shows what is possible" ]] || failed 'the hint' err
    [[ ! ${lines[*]} =~ [[:cntrl:]] ]] || failed 'no control characters' err
    ((SECONDS - began < 10)) || failed "it takes $((SECONDS - began)) s" err
    after=$(listing)
    [[ $after == "$before" ]] || check 'no file is made or changed' diff <(echo "$before") <(echo "$after")
    before=$after
}

before=$(listing)
number=0 rows=0 words=() values=()
while IFS= read -r line; do
    number=$((number + 1)) earlier=$failures
    [[ $line == [!#]* ]] || continue
    mapfile -t columns <<<"${line// | /$'\n'}"
    [[ ${#columns[@]} == [34] && ${columns[0]} =~ ^[0-9]+$ ]] || failed 'no row of three or four columns' /dev/null
    eval "values=(${columns[3]-''})" # so that a row can quote, and name $long
    for value in "${values[@]}"; do
        eval "words=(${columns[1]//'{}'/"${value@Q}"})"
        row "${columns[0]}" "${columns[2]//'{}'/"$value"}" "${words[@]}"
        rows=$((rows + 1))
    done
    ((failures == earlier)) || echo "    (wrong_calls.txt, line $number)"
done <"$tests/app/wrong_calls.txt"
check 'all rows are read' test "$rows" -ge 100
echo "$rows wrong calls"

# --- A model's classes, and the data's.

cifar-test --data good --grid '' >good.out 2>err
check 'names that agree are no word worth' empty err
cifar-test --data renamed --grid '' >out 2>err
check 'names that differ are told of, in one line' test "$(cat err)" = "cifar-test: warning: best.ckpt: its class 2 is 'square', but that of renamed is 'c'"
check 'predictions have the names of the model' cmp <(grep ^Pred good.out | tr -s " ") <(grep ^Pred out | tr -s " ")
check 'the images have those of the data' has out '^Real labels:( +(disc|ring|[c-j])){10}$'
cifar-test --data renamed --grid '' --json >out 2>err
check 'in JSON, too' python3 -c "import json; t = json.load(open('out')); print(t)
assert all(len(x) == 1 or x in ('disc', 'ring') for x in t['real']) and all(len(x) > 1 for x in t['predicted'])"
cifar-classes --data renamed --confusion >out 2>err
check 'so does the matrix' has out '^ +disc +ring +square'
check "its rows have the data's" has out '^c +0 '
check 'one line of warning' test "$(cat err)" = "cifar-classes: warning: best.ckpt: its class 2 is 'square', but that of renamed is 'c'"
cifar-test --data official --model no-classes.ckpt --grid '' >out 2>err
check 'without names those of CIFAR-10 are assumed, aloud' test "$(cat err)" = "cifar-test: warning: no-classes.ckpt: does not name its classes; CIFAR-10's names are assumed"
check 'and predictions have them' has out '^Predicted: ( +(airplane|automobile|bird|cat|deer|dog|frog|horse|ship|truck)){10}$'
cifar-train --resume state-no-classes.ckpt --data renamed --model no.ckpt --last no.last --log no.jsonl --quiet >out 2>err ||
    failed 'a state without names goes on with any data of its run' err
check 'and it is said' grep -qE '^cifar-train: warning: state-no-classes.ckpt: does not name its classes; those of the data are taken$' err
check 'and takes its names' grep -qE '"classes":"\[..disc..,..ring..,..c..,' no.last

# --- A device that is not built in: 5.

if cifar --version | grep -q '^device cudnn: not built in'; then # else gpu_test.sh has its errors
    fails 5 '--device cudnn: this backend is not built in: build the program where the CUDA toolkit' \
        cifar-train --data good --device cudnn
fi

# --- A loss that is no longer finite: 6.

fails 6 'epoch 1: the loss of step [0-9]+ is (NaN|infinite): no longer a finite number \(first to go wrong: [a-z0-9. ]+.*smaller --lr' \
    cifar-train --data good --epochs 3 --lr 1e30 --model diverged.ckpt --last diverged-last.ckpt --log diverged.jsonl
check 'a diverged run saves no checkpoint' test ! -e diverged.ckpt
check 'what it has saved is from before' cifar-test --data good --model diverged-last.ckpt --grid ''
check 'the log tells how a diverged run ended' grep -q '"event":"end","finished":false,.*"error":"epoch 1: the loss of step' diverged.jsonl

# --- Output that cannot be written: 1.

fails 1 '/dev/full: the log cannot be written: No space left' cifar-train --data good --model x --last y --log /dev/full
check 'no training without a log' test ! -e x -a ! -e y
check 'devices stay devices' test -c /dev/full -a -c /dev/null
to_full_disk() { "$@" >/dev/full; }
for command in 'cifar-train --epochs 1 --overwrite' 'cifar-test --json' cifar-classes 'cifar-classes --json'; do
    # shellcheck disable=SC2086  # the command is several words
    fails 1 'standard output cannot be written: No space left' to_full_disk $command --data good
done
fails 1 'standard output cannot be written: No space left' to_full_disk cifar --help
to_nowhere() { "$@" >&-; }
fails 1 'standard output cannot be written: Bad file' to_nowhere cifar-train --data good --epochs 1 --overwrite --log closed.jsonl
check 'nothing but records is in the log' test "$(head -c 16 closed.jsonl)" = '{"event":"start"'
# --- After all this.

check 'nothing is destroyed' cifar-test --data good --grid ''
check 'the run goes on' cifar-train --resume last.ckpt --epochs 3 --quiet

end_checks

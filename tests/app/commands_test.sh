#!/usr/bin/env bash
# The commands as a user runs them, on a small synthetic data set. Takes the programs from $BIN.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export PATH=$BIN:$PATH
unset CIFAR10_DIR

failures=0
check() { # WHAT COMMAND...: the command must succeed
    local what=$1
    shift
    if ! "$@" >check.out 2>&1; then
        echo "FAILED $what: $*"
        sed 's/^/    /' check.out
        failures=$((failures + 1))
    fi
}
has() { grep -qE -- "$2" "$1" || { cat "$1"; false; }; }      # FILE PATTERN
lacks() { ! grep -qE -- "$2" "$1" || { cat "$1"; false; }; }  # FILE PATTERN
empty() { [[ ! -s $1 ]] || { cat "$1"; false; }; }            # FILE
json() { python3 -c "import json, math; $2" <"$1"; }          # FILE PYTHON, which reads j()
py='import sys; j = lambda: json.load(sys.stdin); jl = lambda: [json.loads(l) for l in sys.stdin];'

# --- Names: one executable, called by its name or by its first word.

for command in train test classes synth; do
    "cifar-$command" --help >by_name
    cifar "$command" --help >by_word
    check "cifar-$command is cifar $command" cmp by_name by_word
    check "help of $command" has by_name "^Usage: cifar-$command"
    "cifar-$command" --version >version
    check "version of $command" has version '^cifar [0-9]+\.[0-9]+\.[0-9]+$'
    check "version of $command names OpenBLAS and its core" has version '^device openblas: OpenBLAS [0-9.]+, kernels for \w+'
    check "version of $command names the devices" has version '^device cuda: not built in'
done
cifar --help >help
check 'help of all' has help 'train .*' && check 'help of all' has help 'synth '
cifar-train --help >help
check 'no line of help is longer than 80' lacks help '.{81}'
tr -s ' \n' ' ' <help >words
for default in 'epochs N.*default: 5' 'batch N.*default: 10' 'lr X.*default: 0.001' 'weight-decay X.*default: 0.0001' \
    'seed S.*default: 0' 'device NAME.*default: auto' 'model FILE.*default: best.ckpt' 'log-every N.*default: 1000' \
    'data DIR.*CIFAR10_DIR' 'threads N.*all cores' 'limit N.*default: all' 'log FILE' 'quiet'; do
    check "help of train" has words "--$default"
done

# --- Synthetic data.

cifar-synth data --train 1000 --test 200 --seed 3 >out
check 'synth says what it drew' has out '1000 training and 200 test images, synthetic.*not CIFAR-10'
check 'sizes' test "$(cat data/data_batch_?.bin | wc -c) $(wc -c <data/test_batch.bin)" = "$((1000 * 3073)) $((200 * 3073))"
cifar-synth again --train 1000 --test 200 --seed 3 >/dev/null
check 'same seed, same data' diff -r data again
cifar-synth again --train 1000 --test 200 --seed 4 >/dev/null
check 'other seed, other data, over the old one' test "$(cmp -s data/test_batch.bin again/test_batch.bin; echo $?)" = 1

# --- Training.

cifar-train --epochs 2 --log-every 50 --log run.jsonl >out # the data is in ./data, the default
check 'settings: device' has out 'device +openblas: OpenBLAS .*threads?$'
check 'settings: data, and that it is synthetic' has out 'data +data: 1000 training and 200 test images \(synthetic.*not CIFAR-10\)'
check 'settings: network' has out '14 layers, 50326 parameters'
check 'settings: training' has out 'epochs 2, steps in each 100, batch 10, Adam lr 0.001, weight decay 0.0001, seed 0'
check 'settings: memory' has out 'memory +[0-9.]+ MB images, [0-9.]+ MB network'
check 'running loss, as the tutorial prints it' has out '^\[1,    50\] loss: [0-9]\.[0-9]{3}$'
check 'running loss of epoch 2' has out '^\[2,   100\] loss: '
check 'epoch' has out '^Epoch 1: test accuracy [0-9]+\.[0-9]{2} %, test loss .*s, [0-9]+ images/s; best so far, saved to best.ckpt$'
check 'end' has out '^Finished Training .* best test accuracy [0-9.]+ % \(epoch [12]\), in best.ckpt$'
check 'no control characters in a pipe' lacks out $'[\x01-\x08\x0b-\x1f]'
check 'log' json run.jsonl "$py r = jl()
assert [x['event'] for x in r] == ['start', 'step', 'step', 'epoch', 'step', 'step', 'epoch', 'end'], r
s = r[0]
assert (s['epochs'], s['batch'], s['lr'], s['weight_decay'], s['seed'], s['log_every']) == (2, 10, 0.001, 0.0001, 0, 50)
assert s['limit'] is None and s['synthetic'] and s['train_images'] == 1000 and s['threads'] >= 1 and s['device'] == 'openblas'
assert (r[2]['epoch'], r[2]['step']) == (1, 100)
e = r[3]
assert set(e) == {'event', 'epoch', 'train_loss', 'test_loss', 'test_accuracy', 'train_seconds', 'images_per_second', 'best'}
assert e['best'] is True and abs(e['train_loss'] - (r[1]['loss'] + r[2]['loss']) / 2) < 1e-6
assert r[-1]['finished'] and r[-1]['best_accuracy'] == max(r[3]['test_accuracy'], r[6]['test_accuracy'])"

for threads in 1 2 3; do
    cifar-train --epochs 1 --limit 200 --threads "$threads" --model "t$threads.ckpt" --quiet --log-every 1 --log "t$threads.jsonl" >out
    check '--quiet' empty out
    grep '"step"' "t$threads.jsonl" >"t$threads.steps"
done
check 'threads change no bit of the checkpoint' cmp t1.ckpt t2.ckpt
check 'threads change no bit of the checkpoint' cmp t1.ckpt t3.ckpt
check 'threads change no loss' cmp t1.steps t3.steps
check '--limit and --log-every 1' test "$(wc -l <t1.steps)" = 20
cifar-train --seed 1 --epochs 1 --limit 200 --model other.ckpt --quiet
check '--seed changes the run' test "$(cmp -s t1.ckpt other.ckpt; echo $?)" = 1

if script -qec true /dev/null 2>/dev/null; then # script(1) gives the program a terminal
    script -qec "cifar-train --epochs 1 --limit 500 --model tty.ckpt" terminal >/dev/null
    check 'live line on a terminal' has terminal 'Epoch 1/1 \[#*\.*\] +[0-9]+ %  loss [0-9.]+  [0-9]+ images/s  0:[0-9]{2} left'
    script -qec "cifar-classes --model best.ckpt" terminal >/dev/null
    check 'bars on a terminal' has terminal '%  (█|#)+'
else
    echo 'skipped: the live line and the bars (script(1) cannot make a terminal here)'
fi

odd=$'\xff.ckpt' # a name that is no UTF-8
cifar-train --epochs 1 --limit 20 --batch 100 --quiet --model "$odd" --log odd.jsonl
check 'a name that is no UTF-8 in a log; the batch as it is used' json odd.jsonl "$py s = jl()[0]
assert s['model'] == '?.ckpt' and s['limit'] == 20 and s['batch'] == 20"
cifar-test --model "$odd" --grid '' --json >odd.json
check 'a name that is no UTF-8 in JSON' json odd.json "$py assert j()['model'] == '?.ckpt'"

# --- Testing.

cifar-test >out # best.ckpt is the default
check 'test: model and data' has out 'model +best.ckpt: epoch [12] of a training on synthetic images'
check 'test: data' has out 'data +data: 200 test images \(synthetic'
check 'test: accuracy' has out '^Test accuracy [0-9]+\.[0-9]{2} % \([0-9]+ of 200 images\), loss [0-9.]+$'
check 'test: real labels' has out '^Real labels:( +[a-z]+){10}$'
check 'test: predicted' has out '^Predicted:  ( +[a-z]+){10}$'
check 'test: grid' has out 'predictions.png'
check 'grid is a PNG' test "$(head -c 8 predictions.png | od -An -tx1 | tr -d ' ')" = 89504e470d0a1a0a

rm predictions.png
cifar-test --json --batch 4 --grid four.png >test.json 2>err
check 'test --json: nothing on standard error' empty err
check 'test --json agrees with the training log' json test.json "$py t = j()
r = [json.loads(l) for l in open('run.jsonl')]
assert t['accuracy'] == r[-1]['best_accuracy'] == 100 * t['correct'] / t['images'], t
best = [x for x in r if x['event'] == 'epoch' and x['best']][-1]
assert abs(t['loss'] - best['test_loss']) < 1e-6
assert len(t['real']) == len(t['predicted']) == len(t['logits']) == 4 and len(t['logits'][0]) == 10
assert t['grid'] == 'four.png' and t['synthetic'] is True"
check 'test --grid' test -s four.png -a ! -e predictions.png
cifar-test --json --grid '' >test2.json
check "test --grid '' writes none" test ! -e predictions.png
check 'the batch size changes no accuracy' json test2.json "$py t = j(); u = json.load(open('test.json'))
assert t['correct'] == u['correct'] and abs(t['loss'] - u['loss']) < 1e-6 and 'grid' not in t"
cifar-test --batch 100000 --grid big.png >out
check 'a batch larger than the data set' has out 'first 200 images'
check 'a batch of one' cifar-test --batch 1 --grid ''
CIFAR10_DIR='' cifar-test --grid '' >out
check 'an empty CIFAR10_DIR is none' has out 'data +data: 200'
CIFAR10_DIR=$PWD/data/ cifar-test --grid '' >out
check 'CIFAR10_DIR' has out "data +$PWD/data: 200"
mkdir -p root && ln -s ../data root/cifar-10-batches-bin
check 'the parent folder, as torchvision takes it' cifar-test --data root --grid ''

# --- Classes.

cifar-classes --confusion >out
check 'classes: ten rows' test "$(grep -cE '^[a-z]+ +[0-9.]+ % +([0-9.]+ %|-) +20$' out)" = 10
check 'classes: matrix' has out '^Real class \(row\)'
check 'no control characters in a pipe' lacks out $'[\x01-\x08\x0b-\x1f]'
cifar-classes --confusion --json >classes.json
check 'classes --json' json classes.json "$py c = j(); t = json.load(open('test.json'))
assert len(c['classes']) == 10 and abs(c['mean_class_accuracy'] - c['accuracy']) < 1e-5 and c['accuracy'] == t['accuracy']
m = c['confusion']
for i, k in enumerate(c['classes']):
    column = sum(r[i] for r in m)
    assert sum(m[i]) == k['images'] == 20 and k['correct'] == m[i][i] and k['predicted'] == column
    assert abs(k['accuracy'] - 100 * m[i][i] / 20) < 1e-5
    assert k['precision'] is None if column == 0 else abs(k['precision'] - 100 * m[i][i] / column) < 1e-5"
cifar-classes --json >classes.json
check 'classes --json without the matrix' json classes.json "$py assert 'confusion' not in j()"

# --- PyTorch's file.

check "a checkpoint that PyTorch saved" cifar-test --model "$GOLDEN/after3.safetensors" --grid ''

((failures == 0)) || { echo "$failures checks failed"; exit 1; }
echo 'all checks passed'

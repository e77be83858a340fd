#!/usr/bin/env bash
# The commands as a user runs them, on a small synthetic data set. Takes the programs from $BIN.
set -euo pipefail

# shellcheck source=tests/checks.sh
source "$(realpath -m "${BASH_SOURCE[0]}/../../checks.sh")"
export PATH=$BIN:$PATH
json() { python3 -c "import json, math; $2" <"$1"; } # FILE PYTHON, which reads j()
py='import sys; j = lambda: json.load(sys.stdin); jl = lambda: [json.loads(l) for l in sys.stdin];'

# --- Names: one executable, called by its name or by its first word.

for command in train test classes synth verify; do
    "cifar-$command" --help >by_name
    cifar "$command" --help >by_word
    check "cifar-$command is cifar $command" cmp by_name by_word
    check "help of $command" has by_name "^Usage: cifar-$command"
    "cifar-$command" --version >version
    check "version of $command" has version '^cifar [0-9]+\.[0-9]+\.[0-9]+$'
    check "version of $command names OpenBLAS" has version '^device openblas: built with OpenBLAS [0-9.]+$'
    check "version of $command names the instruction set" has version '^device cpu: kernels for (AVX|any processor)'
    check "version of $command names the devices" has version '^device cuda: not built in'
    check "version of $command names the libraries" has version '^libpng [0-9.]+, jansson [0-9.]+$'
    check "-h of $command" test "$("cifar-$command" -h)" = "$(cat by_name)"
    check "exit statuses in the help of $command" has by_name '^Exit status: 0 done.* 5 device,$'
    check "exit statuses in the help of $command" has by_name ', 128 \+ N interrupted by signal N\.$'
done
check '--help wins over what stands behind it' cifar-train --help --epochs 0
check 'version without a command' test "$(cifar --version)" = "$(cat version)"
check 'help without a command' test "$(cifar -h)" = "$(cifar --help)"
cifar-synth --help >help
check 'defaults of synth' test "$(grep -cE -- '--(train N .*default: 50000|test N .*default: 10000|seed S .*default: 0)\)$' help)" = 3
cifar --help >help
check 'help of all' has help 'train .*' && check 'help of all' has help 'synth '
cifar-train --help >help
check 'no line of help is longer than 80' lacks help '.{81}'
tr -s ' \n' ' ' <help >words
for default in 'epochs N.*default: 5' 'last FILE.*default: last.ckpt beside the model' 'save-every N.*default: each epoch' 'resume FILE' 'overwrite' 'batch N.*default: 10' 'lr X.*default: 0.001' 'weight-decay X.*default: 0.0001' \
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
check 'other seed, other training data' test "$(cmp -s data/data_batch_1.bin again/data_batch_1.bin; echo $?)" = 1
check 'synth says the seed' has out 'with seed 3, not CIFAR-10$'

# --- Training.

cifar-train --epochs 2 --log-every 50 --log run.jsonl >out # the data is in ./data, the default
check 'settings: device' has out 'device +cpu: kernels for .*threads?$'
check 'settings: data, and that it is synthetic' has out 'data +data: 1000 training and 200 test images \(synthetic.*not CIFAR-10\)'
check 'settings: network' has out '14 layers, 50326 parameters'
check 'settings: training' has out 'epochs 2, steps in each 100, batch 10, Adam lr 0.001, weight decay 0.0001, seed 0'
check 'settings: memory' has out 'memory +3.7 MB images, [0-9.]+ MB on the device'
check 'settings: model' has out 'model +best.ckpt$'
check 'settings: state' has out 'state +last.ckpt, after each epoch$'
check 'settings: log' has out 'log +run.jsonl, every 50 steps$'
check 'running loss, as the tutorial prints it' has out '^\[1,    50\] loss: [0-9]\.[0-9]{3}$'
check 'running loss of epoch 2' has out '^\[2,   100\] loss: '
check 'epoch' has out '^Epoch 1: test accuracy [0-9]+\.[0-9]{2} %, test loss .*s, [0-9]+ images/s; best so far: best.ckpt$'
check 'end' has out '^Finished Training .* best test accuracy [0-9.]+ % \(epoch [12]\), in best.ckpt$'
check 'no control characters in a pipe' lacks out $'[\x01-\x08\x0b-\x1f]'
check 'log' json run.jsonl "$py r = jl()
assert [x['event'] for x in r] == ['start', 'step', 'step', 'epoch', 'step', 'step', 'epoch', 'end'], r
s = r[0]
assert (s['epochs'], s['batch'], s['lr'], s['weight_decay'], s['seed'], s['log_every']) == (2, 10, 0.001, 0.0001, 0, 50)
assert s['limit'] is None and s['synthetic'] and s['train_images'] == 1000 and s['threads'] >= 1 and s['device'] == 'cpu'
assert (r[2]['epoch'], r[2]['step']) == (1, 100)
e = r[3]
assert set(e) == {'event', 'epoch', 'train_loss', 'test_loss', 'test_accuracy', 'train_seconds', 'images_per_second', 'test_seconds', 'best'}
assert e['best'] is True and abs(e['train_loss'] - (r[1]['loss'] + r[2]['loss']) / 2) < 1e-6
assert r[-1]['finished'] and r[-1]['best_accuracy'] == max(r[3]['test_accuracy'], r[6]['test_accuracy'])
assert (s['test_images'], s['parameters'], s['data'], s['model']) == (200, 50326, 'data', 'best.ckpt')
assert s['threads'] == $(nproc), s
assert r[6]['best'] is (r[6]['test_accuracy'] > e['test_accuracy']) and r[-1]['best_epoch'] == (2 if r[6]['best'] else 1)
assert all(x['test_seconds'] > 0 for x in (e, r[6]))
assert r[-1]['seconds'] >= sum(x['train_seconds'] + x['test_seconds'] for x in (e, r[6])) - 0.002 and 'error' not in r[-1]
assert all(abs(x['images_per_second'] * x['train_seconds'] / 1000 - 1) < 0.05 for x in (e, r[6])), (e, r[6])
text = [l for l in open('out') if l[0] in '[EF']
steps, epochs = [x for x in r if x['event'] == 'step'], [e, r[6]]
assert [l for l in text if l[0] == '['] == ['[%d, %5d] loss: %.3f\\n' % (x['epoch'], x['step'], x['loss']) for x in steps], text
assert [l.split(' s, ')[0].rsplit(', ', 1)[0] for l in text if l[0] == 'E'] == [
    'Epoch %d: test accuracy %.2f %%, test loss %.4f, train loss %.4f' % (x['epoch'], x['test_accuracy'], x['test_loss'], x['train_loss']) for x in epochs], text
assert [l.rstrip().endswith('; best so far: best.ckpt') for l in text if l[0] == 'E'] == [x['best'] for x in epochs]
assert text[-1].endswith('best test accuracy %.2f %% (epoch %d), in best.ckpt\\n' % (r[-1]['best_accuracy'], r[-1]['best_epoch'])), text"
about() { # FILE PYTHON: the checkpoint's text about itself is m
    python3 -c "import json, struct, sys
b = open(sys.argv[1], 'rb').read()
m = json.loads(b[8:8 + struct.unpack('<Q', b[:8])[0]])['__metadata__']
$2" "$1"
}
check 'what a checkpoint says of itself' about best.ckpt "
assert (m['format'], m['format_version'], m['device'], m['seed']) == ('pt', '1', 'cpu', '0'), m
assert m['program'] == '$(head -n 1 version)' and m['trained_on'].startswith('synthetic images'), m"

# --- Going on.

cifar-train --epochs 1 --save-every 40 --log-every 50 --log on/on.jsonl --model on/best.ckpt --quiet 2>err && failed 'no folder' err
mkdir on
cifar-train --epochs 1 --save-every 40 --log-every 50 --log on/on.jsonl --model on/best.ckpt --quiet
check 'the state is beside the model' test -s on/last.ckpt
cp on/on.jsonl short.jsonl
cifar-train --resume on/last.ckpt >out
check 'a finished run says so' has out '^on/last.ckpt: this run is finished; a larger --epochs than 1 goes on with it$'
check 'a finished run trains nothing' lacks out '^(\[|Epoch|Finished)'
check 'a finished run changes no figure' cmp <(grep -v '"end"' short.jsonl) <(grep -v '"end"\|"resume"' on/on.jsonl)
rm on/best.ckpt
cifar-train --resume on/last.ckpt --quiet >out
check '--quiet' empty out
check 'the best network is in the state, too' cifar-test --model on/best.ckpt --grid ''
cifar-train --resume on/last.ckpt --epochs 2 --threads 1 --device auto >out
check 'a resume says where it goes on' has out '^Going on with on/last.ckpt: epoch 2 of 2, after step 0 of 100$'
check 'and what the best was' has out '^Best test accuracy so far [0-9.]+ % \(epoch 1\), in on/best.ckpt$'
check 'the settings are those of the run' has out 'epochs 2, steps in each 100, batch 10, Adam lr 0.001'
check 'also where its files are, and when' has out 'state +on/last.ckpt, after each epoch and every 40 steps$'
check 'its log goes on' has out 'log +on/on.jsonl, every 50 steps$'
check 'a run that went on has the checkpoint of one that never stopped' cmp best.ckpt on/best.ckpt
check 'and its figures' cmp <(figures run.jsonl) <(figures on/on.jsonl)
check 'a log that went on' json on/on.jsonl "$py r = jl()
assert [x['event'] for x in r] == ['start', 'step', 'step', 'epoch', 'resume', 'resume', 'resume', 'step', 'step', 'epoch', 'end'], r
assert (r[6]['from'], r[6]['epoch'], r[6]['step'], r[6]['threads'], r[6]['epochs']) == ('on/last.ckpt', 2, 0, 1, 2), r[6]
assert r[-1]['finished'] and 0 < r[-1]['save_seconds'] < r[-1]['seconds']
assert (r[0]['last'], r[0]['save_every']) == ('on/last.ckpt', 40), r[0]"
check 'a training state is a checkpoint, too' cifar-test --model on/last.ckpt --grid ''
cifar-test --model on/last.ckpt --grid '' >out
check 'of an epoch' has out 'model +on/last.ckpt: epoch 2 of a training on synthetic images'
mkdir elsewhere && cp best.ckpt kept.ckpt && cp best.ckpt elsewhere # another run's, as it were
(cd elsewhere && cifar-train --resume ../on/last.ckpt --epochs 3 --quiet)
check 'the files of a run are where its state is, not where it is called from' cmp elsewhere/best.ckpt kept.ckpt
check 'its log, too' grep -q '"event":"epoch","epoch":3' on/on.jsonl
sed -i '/"epoch":3/d' on/on.jsonl && cp on/on.jsonl short.jsonl
cifar-train --resume on/last.ckpt --quiet 2>err
check 'a log that lost records is told of' has err '^cifar-train: warning: on/on.jsonl: the log ends in epoch 3 at step 0, but the run goes on in epoch 4 after step 0: records are missing$'
mkdir moved && mv data moved/data
cifar-train --resume on/last.ckpt --data moved/data --model new.ckpt --last new.last --log new.jsonl --epochs 4 >out
check 'files may be elsewhere' test -s new.ckpt -a -s new.last -a -s new.jsonl
mv moved/data data && rmdir moved
check 'the state before is left alone' has <(head -c 4000 on/last.ckpt) '"epochs":"3"'

CIFAR_CPU=portable cifar-train --resume on/last.ckpt --quiet 2>err
check 'another instruction set is told of' has err '^cifar-train: warning: the run in on/last.ckpt was computed by: kernels for [^;,]+; it goes on with: kernels for any processor; results may differ'
check 'in the log, too' grep -q '"event":"warning","text":"the run in on/last.ckpt was computed by' on/on.jsonl

# Begun where another run's model is, and stopped before it has one itself.
cp best.ckpt stale.ckpt
cifar-train --overwrite --seed 9 --batch 1 --epochs 1 --model stale.ckpt --last stale.last --quiet 2>err &
trainer=$!
while [[ ! -s stale.last ]]; do sleep 0.01; done
kill "$trainer"
wait "$trainer" || true
check 'it is stopped in time' has err 'interrupted in epoch 1 after step'
check 'a new run goes on over the model that it was to replace' cifar-train --resume stale.last
check 'and replaces it' about stale.ckpt "assert m['seed'] == '9', m"

# Settings that PyTorch'''s users give in other digits are the same ones.
cifar-train --epochs 1 --limit 50 --lr 0.0012345678901234567 --weight-decay 1e-3 --model real.ckpt --last real.last --quiet
check 'the same numbers in other digits' cifar-train --resume real.last --lr 1.2345678901234567e-3 --weight-decay 0.001 --quiet

# With one test image and the weights as they were drawn, not every epoch can be the best.
cp -r data one && head -c 3073 data/test_batch.bin >one/test_batch.bin
cifar-train --data one --last one.last --epochs 4 --lr 0 --limit 20 --model one.ckpt --log one.jsonl >out
check 'only what is better than all before is best' json one.jsonl "$py r = jl()
e, end = [x for x in r if x['event'] == 'epoch'], r[-1]
a = [x['test_accuracy'] for x in e]
best = [i == 0 or x > max(a[:i]) for i, x in enumerate(a)]
assert len(e) == 4 and not all(best) and [x['best'] for x in e] == best, a
assert (end['best_epoch'], end['best_accuracy']) == (a.index(max(a)) + 1, max(a)), end
text = open('out').read().split('\\n')
assert ['; best so far' in l for l in text if l.startswith('Epoch')] == best, text
assert text[-2].endswith('best test accuracy %.2f %% (epoch %d), in one.ckpt' % (max(a), end['best_epoch'])), text"

# The first record and the first lines are there long before a buffer of 4096 bytes is full.
cifar-train --epochs 1000 --log-every 100000 --last now.last --model now.ckpt --log now.jsonl >now.out &
trainer=$!
for ((i = 0; i < 200; i++)); do
    [[ ! -s now.jsonl || ! -s now.out ]] || break
    sleep 0.05
done
check 'the log is written at once' test "$(head -n 1 now.jsonl | wc -l)" = 1 -a "$(wc -c <now.jsonl)" -lt 4000
check 'so is each line of text' test "$(wc -l <now.out)" -gt 5 -a "$(wc -c <now.out)" -lt 4000
check 'the name of the process' test "$(cat /proc/$trainer/comm)" = cifar-train
check 'threads that wait do not spin for long' test "$(tr '\0' '\n' </proc/$trainer/environ | grep -c '^GOMP_SPINCOUNT=1000$')" = 1
kill "$trainer"
wait "$trainer" || true # interrupted

for threads in 1 2 3; do
    cifar-train --epochs 1 --limit 200 --threads "$threads" --model "t$threads.ckpt" --last "t$threads.last" --quiet --log-every 1 --log "t$threads.jsonl" >out
    check '--quiet' empty out
    check '--threads' json "t$threads.jsonl" "$py assert jl()[0]['threads'] == $threads"
    grep '"step"' "t$threads.jsonl" >"t$threads.steps"
done
check 'threads change no bit of the checkpoint' cmp t1.ckpt t2.ckpt
check 'threads change no bit of the checkpoint' cmp t1.ckpt t3.ckpt
check 'threads change no loss' cmp t1.steps t3.steps
check '--limit and --log-every 1' test "$(wc -l <t1.steps)" = 20
check 'the loss of a step in full precision; the limit in the log' json t1.jsonl "$py import struct; r = jl()
assert r[0]['limit'] == 200 and r[0]['train_images'] == 200, r[0]
single = lambda x: struct.unpack('f', struct.pack('f', x))[0]
assert all(x['loss'] == float('%.9g' % single(x['loss'])) for x in r if x['event'] == 'step')"
cp -r data large && truncate -s $((350000 * 3073)) large/data_batch_5.bin # 1 GiB, sparse
check 'no memory for images beyond --limit' python3 -c "import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 500000" \
    cifar-train --data large --epochs 1 --limit 200 --threads 1 --model large.ckpt --last large.last --quiet --log-every 1
check 'they are not looked at, either: the same data, the same run' cmp t1.ckpt large.ckpt
cp t1.jsonl twice.jsonl
cifar-train --seed 1 --lr 0.002 --weight-decay 0.03 --epochs 1 --limit 200 --model other.ckpt --last other.last --log twice.jsonl --overwrite >out
check 'a log is begun anew; the seed is in it' json twice.jsonl "$py r = jl(); assert len(r) == 3 and r[0]['seed'] == 1"
check 'settings: not the defaults' has out 'Adam lr 0.002, weight decay 0.03, seed 1$'
check 'they are in the checkpoint' about other.ckpt "
assert (m['seed'], m['lr'], m['weight_decay'], m['epochs'], m['train_images']) == ('1', '0.002', '0.03', '1', '200'), m"
cifar-train --seed 1 --epochs 1 --limit 200 --model other.ckpt --last other.last --overwrite --quiet
check '--seed changes the run' test "$(cmp -s t1.ckpt other.ckpt; echo $?)" = 1

if script -qec true /dev/null 2>/dev/null; then # script(1) gives the program a terminal
    export TERM=xterm
    script -qec "stty cols 100; cifar-train --epochs 2 --limit 500 --log-every 10 --overwrite --model tty.ckpt --log tty.jsonl" terminal >/dev/null
    check 'live line on a terminal' has terminal 'Epoch 1/2 \[#*\.*\] +[0-9]+ %  loss [0-9.]+  [0-9]+ images/s  [0-9]+:[0-9]{2} left'
    check 'the live line is of the whole run, and is taken away' json terminal "import re, sys; t = sys.stdin.read()
live = [(int(e), int(p), float(l), float(s)) for e, p, l, s in re.findall(r'Epoch (\d)/2 \[[#.]*\] +(\d+) %  loss ([0-9.]+)  (\d+) images/s', t)]
assert all(p <= 50 if e == 1 else 50 <= p <= 100 for e, p, l, s in live) and live[-1][1] > 50, live
assert all(0.5 < l < 5 for e, p, l, s in live), live
speed = json.loads(open('tty.jsonl').readlines()[-2])['images_per_second']
assert all(speed / 10 < s < speed * 10 for e, p, l, s in live), (speed, live)
assert all(l == '' or l[0] == '\r' for l in re.findall(r'left\x1b\[K(.?)', t, re.S)), t"
    script -qec 'cifar-train --epochs 1 --limit 500 --quiet --overwrite --model tty.ckpt' terminal >/dev/null
    check '--quiet on a terminal' test "$(grep -c left terminal)" = 0
    script -qec 'TERM=dumb cifar-train --epochs 1 --limit 500 --overwrite --model tty.ckpt' terminal >/dev/null
    check 'a terminal that knows no escape sequences' lacks <(grep -v '^Script' terminal) $'\e'
    script -qec 'cifar-classes --model best.ckpt' terminal >/dev/null
    check 'bars on a terminal' has terminal '%  (█|#)+'
    check 'bars are as long as the accuracy' json terminal "import re, sys
for p, bar in re.findall(r'^[a-z]+ +([0-9.]+) %  ((?:█|#)*)', sys.stdin.read(), re.M): assert abs(float(p) / 4 - len(bar)) <= 0.5, (p, bar)"
    LC_ALL=C.UTF-8 script -qec 'cifar-classes --model best.ckpt' terminal >/dev/null
    check 'bars in UTF-8' has terminal '%  █'
else
    echo 'skipped: the live line and the bars (script(1) cannot make a terminal here)'
fi

odd=$'\xff.ckpt' # a name that is no UTF-8
cifar-train --epochs 1 --limit 20 --batch 100 --quiet --overwrite --model odd.ckpt --last "$odd" --log odd.jsonl
cp odd.ckpt "$odd"
check 'a name that is no UTF-8 in a log; the batch as it is used' json odd.jsonl "$py s = jl()[0]
assert s['last'] == '?.ckpt' and s['limit'] == 20 and s['batch'] == 20"
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

cp predictions.png ten.png && rm predictions.png
cifar-test --json --batch 10 --grid '' >ten.json
check 'test: text and JSON agree; labels are those of the file' json ten.json "$py import zlib, struct
t = j(); text = open('out').read(); w = lambda start: [l for l in text.split('\\n') if l.startswith(start)][0].split()
assert w('Real labels:')[2:] == t['real'] and w('Predicted:')[1:] == t['predicted'], (text, t)
assert '\\nTest accuracy %.2f %% (%d of 200 images), loss %.4f\\n' % (t['accuracy'], t['correct'], t['loss']) in text
names, batch = open('data/batches.meta.txt').read().split(), open('data/test_batch.bin', 'rb').read()
assert t['real'] == [names[x] for x in batch[:10 * 3073:3073]]
d = open('ten.png', 'rb').read(); width, height = struct.unpack('>II', d[16:24]); z = b''; at = 8
while at < len(d):
    n, kind = struct.unpack('>I4s', d[at:at + 8]); z += d[at + 8:at + 8 + n] if kind == b'IDAT' else b''; at += 12 + n
z = zlib.decompress(z); rows = [bytearray(3 * width)]
for y in range(height): # undo PNG's filters
    f, line, up = z[y * (3 * width + 1)], bytearray(z[y * (3 * width + 1) + 1:(y + 1) * (3 * width + 1)]), rows[-1]
    for x in range(3 * width):
        a, c = (line[x - 3], up[x - 3]) if x > 2 else (0, 0); b = up[x]; p = a + b - c
        line[x] = (line[x] + [0, a, b, (a + b) // 2, min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]][f]) & 255
    rows.append(line)
for i in range(10): # a pixel of the frame's inner part, left of image i
    red, green, blue = rows[1 + 8 + i // 8 * 152 + 76][3 * (8 + i % 8 * 152 + 7):][:3]
    assert (green > red) == (t['real'][i] == t['predicted'][i]), (i, red, green)"

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
cifar-test --json --grid '' --batch 7 >seven.json
check 'a batch that does not divide the images' json seven.json "$py t = j(); u = json.load(open('test.json'))
assert t['correct'] == u['correct'] and abs(t['loss'] - u['loss']) < 1e-6, (t, u)
names = open('data/batches.meta.txt').read().split()
assert t['predicted'] == [names[l.index(max(l))] for l in t['logits']], t
assert all(abs(a - b) < 1e-4 for x, y in zip(t['logits'], u['logits']) for a, b in zip(x, y))"
check 'JSON ends in a line feed' test "$(tail -c 1 seven.json | od -An -c | tr -d ' ')" = '\n'
cifar-test --batch 100000 --grid big.png >out
check 'a batch larger than the data set' has out 'first 200 images'
check 'a batch of one' cifar-test --batch 1 --grid ''
CIFAR10_DIR='' cifar-test --grid '' >out
check 'an empty CIFAR10_DIR is none' has out 'data +data: 200'
CIFAR10_DIR=$PWD/data/ cifar-test --grid '' >out
check 'CIFAR10_DIR' has out "data +$PWD/data: 200"
check '--data wins over CIFAR10_DIR' env CIFAR10_DIR=nowhere cifar-test --data data --grid ''
mkdir official
python3 - <<'END'
b = open('data/test_batch.bin', 'rb').read(); r = [b[i:i + 3073] for i in range(0, len(b), 3073)]
open('official/test_batch.bin', 'wb').write(b''.join(sorted(r, key=lambda x: x[1:]))) # in no order of cifar-synth's
END
cifar-test --data official --grid '' >out
check 'without names the data is CIFAR-10; a test needs no training images' has out 'data +official: 200 test images \(CIFAR-10\)$'
check 'the official names' has out '^Real labels:( +(airplane|automobile|bird|cat|deer|dog|frog|horse|ship|truck)){10}$'
cifar-test --data official --grid '' --json >out
check 'CIFAR-10 in JSON' json out "$py t = j(); assert t['synthetic'] is False and t['data'] == 'official' and t['device'] == 'cpu'"
cp -r data nameless && rm nameless/batches.meta.txt
cifar-test --data nameless --grid '' --json >out
check 'without names synthetic images stay synthetic' json out "$py assert j()['synthetic'] is True"
printf '%s\n' {a..j} >nameless/batches.meta.txt
cifar-train --data nameless --epochs 1 --limit 25 --model named.ckpt --last named.last >out
check 'with other names, too' has out 'data +nameless: 25 training and 200 test images \(synthetic images, drawn by cifar-synth: not CIFAR-10\)'
check 'so says the checkpoint' about named.ckpt "assert m['trained_on'].startswith('synthetic images'), m"
cp official/test_batch.bin nameless
cifar-train --data nameless --epochs 1 --limit 25 --model named.ckpt --last named.last --overwrite >out
check 'beside other test images, too' has out 'data +nameless: 25 training .*\(synthetic'
python3 - <<'END'
import json, struct
b = open('best.ckpt', 'rb').read(); n = struct.unpack('<Q', b[:8])[0]
h = json.loads(b[8:8 + n]); h['__metadata__']['trained_on'] = 'a\x1b[31mb'; [h['__metadata__'].pop(k) for k in ('crc32', 'xxh3_128', 'program')]
t = json.dumps(h).encode(); open('rude.ckpt', 'wb').write(struct.pack('<Q', len(t)) + t + b[8 + n:])
END
cifar-test --model rude.ckpt --grid '' >out
check 'what a checkpoint says cannot act on a terminal' has out 'of a training on a\?\[31mb$'
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
cifar-test --json --batch 200 --grid '' >all.json
check 'classes: text, JSON and the predictions themselves agree' json classes.json "$py c = j(); t = json.load(open('all.json'))
names, lines = open('data/batches.meta.txt').read().split(), open('out').read().split('\\n')
assert [k['class'] for k in c['classes']] == names
pairs = list(zip(t['real'], t['predicted']))
assert c['confusion'] == [[pairs.count((a, b)) for b in names] for a in names]
assert abs(c['loss'] - t['loss']) < 1e-6
for k in ('synthetic', 'device', 'data', 'images', 'model'): assert c[k] == t[k], k
at = [i for i, l in enumerate(lines) if l.startswith('class ')][0] + 1
for l, k in zip(lines[at:], c['classes']):
    part = lambda x: '-' if x is None else '%.2f %%' % x
    assert l.split() == ('%s %s %s %d' % (k['class'], part(k['accuracy']), part(k['precision']), k['images'])).split(), l
assert lines[at + 10] == 'Mean of the classes %.2f %%; test accuracy %.2f %% (%d of 200 images), loss %.4f' % (
    c['mean_class_accuracy'], c['accuracy'], t['correct'], c['loss']), lines
assert lines[at + 13].split() == [n[:7] for n in names]
assert [l.split() for l in lines[at + 14:at + 24]] == [[n] + [str(x) for x in r] for n, r in zip(names, c['confusion'])], lines"
cifar-classes --json >classes.json
check 'classes --json without the matrix' json classes.json "$py assert 'confusion' not in j()"
cifar-classes >out
check 'classes without the matrix' lacks out 'Real class'
mkdir few # one image that is right, two of another class that are not
python3 - <<'END'
import json
t, b = json.load(open('all.json')), open('data/test_batch.bin', 'rb').read()
pairs = list(zip(t['real'], t['predicted']))
good = next(i for i, (real, found) in enumerate(pairs) if real == found)
bad = [i for i, (real, found) in enumerate(pairs) if real != found and real != pairs[good][0]]
bad = [i for i in bad if pairs[i][0] == pairs[bad[0]][0]][:2]
open('few/test_batch.bin', 'wb').write(b''.join(b[i * 3073:(i + 1) * 3073] for i in [good] + bad))
END
cifar-classes --data few --json >few.json
check 'a class without images has no accuracy and no part in the mean' json few.json "$py t = j()
assert sorted((k['images'], k['accuracy']) for k in t['classes'] if k['images'] > 0) == [(1, 100), (2, 0)], t
assert all(k['accuracy'] is None for k in t['classes'] if k['images'] == 0)
assert t['mean_class_accuracy'] == 50 and abs(t['accuracy'] - 100 / 3) < 1e-5, t"
cifar-classes --data few >out
check 'the mean of the classes in text' has out '^Mean of the classes 50.00 %; test accuracy 33.33 % '
check 'a class without images in text' has out '^[a-z]+ +- +([0-9.]+ %|-) +0$'

# --- PyTorch's file.

check "a checkpoint that PyTorch saved" cifar-test --model "$GOLDEN/after3.safetensors" --grid ''
python3 -c "import struct, sys
b = bytearray(open(sys.argv[1], 'rb').read())
b[-96000:] = struct.pack('<f', 3e38) * 24000 # the Linear layer's weights: finite, but too large
open('huge.ckpt', 'wb').write(b)" "$GOLDEN/after3.safetensors"
for command in 'cifar-test --grid=' cifar-classes; do
    # shellcheck disable=SC2086  # the command is several words
    $command --model huge.ckpt --json >huge.json
    check "$command --json where the loss is not finite" json huge.json "$py assert j()['loss'] is None"
done

end_checks

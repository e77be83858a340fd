#!/usr/bin/env bash
# What goes wrong at the hands of a user: each case must end with the right exit status and one message
# that says what was wrong. Takes the programs from $BIN.
set -euo pipefail

# shellcheck source=tests/checks.sh
source "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
export PATH=$BIN:$PATH

cifar-synth good --train 20 --test 10 >/dev/null
cifar-train --data good --epochs 1 --quiet # makes best.ckpt
copy() { rm -rf "$1" && cp -r good "$1"; }

# --- Usage: 2.

fails 2 'a command is expected' cifar
fails 2 "'trian' is no command; train, test, classes or synth" cifar trian
fails 2 "'-x' is no command" cifar -x
ln -s "$BIN/cifar" other-train # a name that only ends like one of the program's
fails 2 'a command is expected' ./other-train
for bad in 0 -1 abc 1e99 '' 5x 1.5 ' ' 99999999999999999999 nan 0x 0x10 1000001; do
    fails 2 "--epochs $bad: a whole number from 1 to 1000000 is" cifar-train --epochs "$bad"
    fails 2 "--batch $bad: a whole number from 1 to" cifar-test --batch "$bad"
done
for bad in -1 abc nan inf 1e99 '' 1,5 '0.1 '; do
    fails 2 "--lr $bad: a number from 0 to 1e\+30" cifar-train --lr "$bad"
    fails 2 "--weight-decay $bad: a number from 0" cifar-train "--weight-decay=$bad"
done
fails 2 '--seed -1: a whole number from 0 to 9223372036854775807' cifar-train --seed -1
fails 2 '--seed 9223372036854775808: ' cifar-train --seed 9223372036854775808
fails 2 '--threads 0: a whole number from 1 to 1024 is' cifar-train --threads 0
fails 2 '--threads 1025: ' cifar-train --threads 1025
fails 2 '--limit 0: ' cifar-train --limit 0
fails 2 '--log-every 0: ' cifar-train --log-every 0
fails 2 '--train 4: a whole number from 5' cifar-synth made --train 4
fails 2 '--test 0: ' cifar-synth made --test 0
fails 2 '--precision half: float32 or tf32 is expected' cifar-train --precision half
fails 2 "--precision '': a name is expected" cifar-test --precision ''
fails 2 '--epochz: there is no such option' cifar-train --epochz 5
fails 2 '--epoch: there is no such option; --epochs, in full' cifar-train --epoch 5
fails 2 '--l: there is no such option' cifar-train --l 5
fails 2 '--lo=5: there is no such option' cifar-train --lo=5
fails 2 '--qui: there is no such option' cifar-train --qui
fails 2 '-x: there is no such option' cifar-train -xh
for option in data device model log; do
    fails 2 "--$option '': a name is expected" cifar-train "--$option" ''
done
fails 2 '--grid: there is no such option' cifar-train --grid x
fails 2 '--epochs: there is no such option' cifar-test --epochs 5
fails 2 '-q: there is no such option' cifar-train -q
fails 2 '--epochs: a value is expected' cifar-train --epochs
fails 2 '--quiet=1: this option takes no value' cifar-train --quiet=1
fails 2 "'word': no such word" cifar-train word
fails 2 "'word': no such word" cifar-classes --json word
fails 2 "'second': no such word" cifar-synth made second
fails 2 'the folder to draw the data set into' cifar-synth
fails 2 'the folder to draw the data set into' cifar-synth ''
fails 2 "cifar-train --help" cifar-train --nonsense
check 'wrong usage makes no folder' test ! -e made

# --- Data: 3. Every command finds it out.

for command in train test classes; do
    fails 3 'nowhere: the data folder cannot be found.*get_data.sh' "cifar-$command" --data nowhere
done
fails 3 'data: the data folder cannot be found' cifar-train # the default is not there
mkdir empty
fails 3 'empty: holds no CIFAR-10 batches' cifar-train --data empty
fails 3 'best.ckpt: is not a folder' cifar-train --data best.ckpt
copy bad && rm bad/data_batch_3.bin
fails 3 'bad/data_batch_3.bin: this batch is missing' cifar-train --data bad
copy bad && rm bad/test_batch.bin
fails 3 'bad/test_batch.bin: this batch is missing' cifar-test --data bad
copy bad && truncate -s -1 bad/data_batch_2.bin
fails 3 'data_batch_2.bin: has 12291 bytes.*no multiple.*3073.*byte 9219' cifar-train --data bad
copy bad && : >bad/data_batch_2.bin
fails 3 'data_batch_2.bin: is empty' cifar-train --data bad
copy bad && printf '\012' | dd of=bad/test_batch.bin bs=1 seek=$((3 * 3073)) conv=notrunc status=none
fails 3 'test_batch.bin: byte 9219, the label of image 3, is 10; a label from 0 to 9' cifar-test --data bad
copy bad && rm bad/data_batch_1.bin && mkdir bad/data_batch_1.bin
fails 3 'data_batch_1.bin: is a folder; a regular file' cifar-train --data bad
copy bad && rm bad/data_batch_1.bin && mkfifo bad/data_batch_1.bin
fails 3 'data_batch_1.bin: is a pipe' cifar-train --data bad
copy bad && printf 'a\033[31m\n' >bad/batches.meta.txt
fails 3 'batches.meta.txt: byte 1 is 0x1b' cifar-test --data bad
copy bad && echo one >bad/batches.meta.txt
fails 3 'batches.meta.txt: ends at byte 4 after 1 class names; ten' cifar-train --data bad
if ((EUID != 0)); then
    copy bad && chmod 0 bad/data_batch_1.bin
    fails 3 'data_batch_1.bin: cannot be opened: Permission denied' cifar-train --data bad
else
    echo 'skipped: an unreadable batch (root reads everything)'
fi
mkdir python && touch python/data_batch_1 python/batches.meta
fails 3 'python: holds the Python version of CIFAR-10.*binary version is needed' cifar-train --data python
mkdir matlab && touch matlab/data_batch_1.mat
fails 3 'matlab: holds the MATLAB version' cifar-train --data matlab
mkdir packed && touch packed/cifar-10-binary.tar.gz
fails 3 'packed: holds the binary version, but still packed' cifar-train --data packed

# --- Checkpoints: 4.

for command in test classes; do
    fails 4 'nowhere.ckpt: there is no such checkpoint; train one with cifar-train' "cifar-$command" --data good --model nowhere.ckpt
done
fails 4 'best.ckpt/x: cannot be opened: Not a directory' cifar-test --data good --model best.ckpt/x
fails 4 'good: is a folder; a regular file' cifar-test --data good --model good
head -c 1000 best.ckpt >bad.ckpt
fails 4 'bad.ckpt: bytes 0 to 7 give a header of .*cut short' cifar-test --data good --model bad.ckpt
head -c 100000 best.ckpt >bad.ckpt
fails 4 'bad.ckpt: tensor .*cut short' cifar-classes --data good --model bad.ckpt
printf 'PK\003\004 as torch.save writes it' >bad.ckpt
fails 4 'bad.ckpt: .*a safetensors checkpoint' cifar-test --data good --model bad.ckpt
: >bad.ckpt
fails 4 'bad.ckpt: has 0 bytes' cifar-test --data good --model bad.ckpt
cp good/test_batch.bin bad.ckpt
fails 4 'bad.ckpt: ' cifar-test --data good --model bad.ckpt
check 'nothing is printed before the error' test ! -s out

# --- Devices: 5.

fails 5 '--device cuda: this backend is not built in' cifar-train --data good --device cuda
if cifar --version | grep -q '^device cudnn: not built in'; then # else gpu_test.sh has its errors
    fails 5 '--device cudnn: this backend is not built in: build the program where the CUDA toolkit' \
        cifar-train --data good --device cudnn
fi
fails 2 '--device cpu: CIFAR_CPU=mmx: there is no such instruction set here; choose one of .*portable' \
    CIFAR_CPU=mmx cifar-train --data good --device cpu
fails 2 'cifar-train: CIFAR_CPU=AVX2: there is no such instruction set here' CIFAR_CPU=AVX2 cifar-train --data good
fails 5 '--device gpu: there is no such device; choose one of auto, .*openblas' cifar-train --data good --device gpu

# --- A loss that is no longer finite: 6.

fails 6 'epoch 1: the loss of step [0-9]+ is (NaN|infinite): no longer a finite number.*smaller --lr' cifar-train --data good --epochs 3 --lr 1e30 --model diverged.ckpt --log diverged.jsonl
check 'a diverged run saves no checkpoint' test ! -e diverged.ckpt
check 'the log tells how a diverged run ended' grep -q '"event":"end","finished":false,.*"error":"epoch 1: the loss of step' diverged.jsonl

# --- Outputs that would destroy something: 2.

fails 2 '--log and --model are the same file, best.ckpt' cifar-train --data good --log ./best.ckpt
fails 2 '--log and --model are the same file, new.ckpt' cifar-train --data good --log ./new.ckpt --model new.ckpt
fails 2 '--grid and --model are the same file' cifar-test --data good --grid ./best.ckpt
fails 2 '--model good/data_batch_2.bin: is a file of the data set' cifar-train --data good --model good/data_batch_2.bin
fails 2 '--log ./good/test_batch.bin: is a file of the data set' cifar-train --data good --log ./good/test_batch.bin
fails 2 '--model good/batches.meta.txt: is a file of the data set' cifar-train --data good --model good/batches.meta.txt
fails 2 '--grid good/test_batch.bin: is a file of the data set' cifar-test --data good --grid good/test_batch.bin
check 'nothing is destroyed' cifar-test --data good --grid ''

# --- Output that cannot be written: 1, and before any training.

for command in 'cifar-train --data good' 'cifar-test --data good'; do
    option=--model && [[ $command != *test* ]] || option=--grid
    # shellcheck disable=SC2086  # the command is several words
    {
    fails 1 'nowhere/x: cannot be written: .*No such file' $command $option nowhere/x
    check 'it is found out before anything else' test ! -s out
    fails 1 'good: is a folder and will not be replaced' $command $option good
    fails 1 '/dev/null: is a device and will not be replaced' $command $option /dev/null
    fails 1 '/proc/x: cannot be written' $command $option /proc/x
    }
done
fails 1 'nowhere/x: cannot be written' cifar-test --data good --model missing.ckpt --grid nowhere/x
fails 1 'nowhere/log: the log cannot be opened for writing: No such file' cifar-train --data good --log nowhere/log
fails 1 '/dev/full: the log cannot be written: No space left' cifar-train --data good --log /dev/full
check 'devices stay devices' test -c /dev/full -a -c /dev/null
to_full_disk() { "$@" >/dev/full; }
for command in 'cifar-train --epochs 1' 'cifar-test --json' cifar-classes 'cifar-classes --json'; do
    # shellcheck disable=SC2086
    fails 1 'standard output cannot be written: No space left' to_full_disk $command --data good
done
fails 1 'standard output cannot be written: No space left' to_full_disk cifar --help
to_nowhere() { "$@" >&-; }
fails 1 'standard output cannot be written: Bad file' to_nowhere cifar-train --data good --epochs 1 --log closed.jsonl
check 'nothing but records is in the log' test "$(head -c 16 closed.jsonl)" = '{"event":"start"'
full_file_system() ( # no file may grow beyond 64 KiB: what a full disk does in the middle of a write
    trap '' XFSZ
    ulimit -f 64
    "$@"
)
before=$(md5sum <best.ckpt)
fails 1 'best.ckpt: could not be written .*nothing has been changed' full_file_system cifar-train --data good --epochs 1
check 'a failed write leaves the checkpoint as it was' test "$(md5sum <best.ckpt)" = "$before"
check 'no temporary files are left' test -z "$(find . -name '*.tmp')"
fails 1 'nowhere/made: the folder cannot be made: No such file' cifar-synth nowhere/made
fails 1 'part/data_batch_2.bin: could not be written' full_file_system cifar-synth part --train 109 --test 10
check 'a data set that broke off may be drawn again' cifar-synth part --train 20 --test 10 >/dev/null
copy official && rm official/batches.meta.txt
fails 1 'official: holds a data set that this program did not draw' cifar-synth official
touch file
fails 1 'file' cifar-synth file --train 5 --test 1

end_checks

#!/usr/bin/env bash
# train.sh in a copy of the repository, with the programs of $BIN and get_data.sh as they are. Nothing is
# compiled, installed or fetched from afar: a stand-in for cmake puts the programs where a build would, one
# for dpkg-query knows every package, and the mirror is a folder.
# shellcheck disable=SC2016  # the stand-ins' words are for the stand-ins to expand
set -euo pipefail

scripts=$(realpath -m "${BASH_SOURCE[0]}/../../../scripts")
# shellcheck source=tests/checks.sh
source "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
unset CDPATH
export PROGRAMS=$BIN SYNTH=$work/little/cifar-synth CMAKE_FAILS='' CIFAR_MIRRORS=''

mkdir -p root tools no_tools
cp -r "$scripts" root
root=$work/root built=$work/root/build/release
stand_in tools/dpkg-query 'echo installed'
stand_in tools/cmake 'test "$1" != "$CMAKE_FAILS" || { echo words of the compiler; exit 1; }
mkdir -p build/release && ln -sf "$PROGRAMS"/cifar* build/release && ln -sf "$SYNTH" build/release'
mkdir little # instead of the 60,000 images of the stand-in
stand_in little/cifar-synth 'exec "$PROGRAMS/cifar-synth" "$@" --train 50 --test 10'
for tool in dpkg-query apt-get sudo; do stand_in "no_tools/$tool" 'exit 1'; done
export PATH=$work/tools:$PATH

# STATUS ARGUMENT...: how train.sh must end, in the folder `here`. What it says goes to `out`.
trains() {
    local status=0
    (cd here && "$root/scripts/train.sh" "${@:2}") >out 2>&1 </dev/null || status=$?
    ((status == $1)) || failed "status $status instead of $1 of train.sh ${*:2}" out
}
# MODEL DATA: what cifar-test and then cifar-classes have said that they judged.
judged() {
    sed -nE 's/^(model|data) +(.*): (epoch|[0-9]+ test images).*/\2/p; s/^(Test accuracy|Mean of the classes) .*/\1/p' out >said
    check "judged are $1 on $2" diff said <(printf '%s\n' "$1" "$2" 'Test accuracy' "$1" "$2" 'Mean of the classes')
}
anew() { rm -rf here && mkdir here; }
nothing_trained() {
    check 'nothing is trained' test ! -e here/last.ckpt
    check 'nothing is judged' lacks out '^model '
    anew
}
anew

# --- Help, before there is a build and after; packages; the build.

trains 0 --epochs 1 --help
check 'help' has out '^Usage: train.sh'
check 'help says when it can say more' has out 'once it is built'
PATH=$work/no_tools:$PATH trains 1
check 'missing packages are named' has out 'build-essential cmake ninja-build'
check 'neither help nor a missing package lets it build' test ! -e root/build

trains 0 --epochs 1 --version
check 'version' diff out <(echo "train: building in $built" && "$BIN/cifar-train" --version)
trains 0 -h
check 'help of cifar-train' grep -qF -- "$("$BIN/cifar-train" --help | head -n 2)" out

# Now there are programs, which must not be taken for those that could not be built.
"$BIN/cifar-synth" own --train 50 --test 10 --seed 1 >/dev/null
for CMAKE_FAILS in --preset --build; do
    trains 1 --data "$work/own"
    check 'the words of the compiler' has out '^words of the compiler$'
    check 'where all of them are' has out "the build failed.*$root/build/release.log"
    nothing_trained
done
CMAKE_FAILS=''
for log in 'mkdir' 'ln -s nowhere/release.log'; do
    for CMAKE_FAILS in '' --build; do
        rm -rf root/build/release.log
        $log root/build/release.log
        trains 1 --data "$work/own"
        check 'a log that cannot be written' has out "release.log cannot be written"
        nothing_trained
    done
done
rm -r root/build
touch root/build
CMAKE_FAILS='' trains 1 --data "$work/own"
nothing_trained
rm root/build
CMAKE_FAILS=''

# --- Data that is there.

mkdir -p parent empty
mv own 'own data'
"$BIN/cifar-synth" parent/cifar-10-batches-bin --train 50 --test 10 --seed 2 >/dev/null
own="$work/own data" parent=$work/parent
trains 0 --data "$own" --epochs 2 --seed 1
judged best.ckpt "$own"
check 'options reach cifar-train' has out 'epochs 2, .*, seed 1$'
check 'the picture' test -s here/predictions.png
trains 2 --data "$own"
check 'the files of the other run are told of' has out 'best.ckpt: is there already'
check 'nothing is judged after an error' lacks out '^model '
CIFAR10_DIR=$parent trains 0 "--data=$own" --model=m --last l --device cpu --threads=1 --quiet
judged m "$own"
check 'options reach all three' test "$(grep -cE '^device +cpu: .*, 1 thread$' out)" = 2
check '--quiet' lacks out '^ |^Epoch'
CIFAR10_DIR=$parent trains 0 --overwrite
judged best.ckpt "$parent/cifar-10-batches-bin"
trains 0 --overwrite --data "$parent" --device=cpu --threads 1 --model m2 --last l2
judged m2 "$parent/cifar-10-batches-bin"
check 'own data was enough' test ! -e root/data

# --- CIFAR-10, from a mirror: other names than those of synthetic images, and other labels.

real=$root/data/cifar-10-batches-bin
cp -r parent/cifar-10-batches-bin .
tee cifar-10-batches-bin/data_batch_{2..5}.bin <cifar-10-batches-bin/data_batch_1.bin >/dev/null
printf '%s\n' airplane automobile bird cat deer dog frog horse ship truck >cifar-10-batches-bin/batches.meta.txt
mkdir mirror
tar -czf mirror/cifar-10-binary.tar.gz cifar-10-batches-bin
export CIFAR_BATCH_SIZE=$((10 * 3073)) CIFAR_ARCHIVE_SIZE CIFAR_ARCHIVE_MD5 CIFAR_ARCHIVE_SHA256
CIFAR_ARCHIVE_SIZE=$(stat -c %s mirror/*)
CIFAR_ARCHIVE_MD5=$(md5sum mirror/* | cut -d ' ' -f 1)
CIFAR_ARCHIVE_SHA256=$(sha256sum mirror/* | cut -d ' ' -f 1)
anew
CIFAR_ARCHIVE_MD5=0 CIFAR_MIRRORS=file://$work/mirror/ trains 3
check 'it ends with a download that is wrong' lacks out '^cifar-train'
nothing_trained
CIFAR_MIRRORS=file://$work/mirror/ trains 0
judged best.ckpt "$real"
check 'it is CIFAR-10' test "$(grep -cE '^ *data .*\(CIFAR-10\)$' out)" = 3
check 'it is not called a stand-in' lacks out 'stand-in|synthetic'
trains 0 --data "$work/empty" --overwrite # and no mirror any more
judged best.ckpt "$real"
check 'a folder without data is told of' has out "$work/empty holds no CIFAR-10 batches"

# --- Without a network: the stand-in, drawn once.

rm -r root/data
mkdir -p root/data/synthetic.part/left # of a run that was broken off
anew
trains 0
judged best.ckpt "$root/data/synthetic"
check 'the stand-in is told of before and after' test "$(grep -c '^train: .*stand-in' out)" = 2
check 'nothing is left' test "$(ls root/data)" = synthetic -a ! -e root/data/synthetic/left
touch root/data/synthetic/mark
trains 0 --overwrite
judged best.ckpt "$root/data/synthetic"
check 'it is not drawn again' test -e root/data/synthetic/mark

# --- A run that goes on is the one that is judged, on its own data, with nothing fetched.

rm -r root/data
mkdir here/out
trains 0 --data "$own" --epochs 1 --seed 7 --model out/best.ckpt
judged out/best.ckpt "$own"
cp here/best.ckpt other.ckpt # of another run, where one without --model is
CIFAR10_DIR=$parent trains 0 --resume out/last.ckpt --epochs 2
judged out/best.ckpt "$own"
trains 0 --resume=out/last.ckpt # which is finished
judged out/best.ckpt "$own"
mv 'own data' moved
trains 3 --resume out/last.ckpt --epochs 3
trains 3 --resume out/last.ckpt --data "$parent"
trains 0 --resume out/last.ckpt --epochs 3 --data "$work/moved" --last out/later.ckpt
judged out/best.ckpt "$work/moved"
trains 0 --last=out/latest.ckpt --resume out/later.ckpt --model out/new.ckpt
judged out/new.ckpt "$work/moved"
check 'the other run has its model still' cmp here/best.ckpt other.ckpt
check 'nothing was fetched or drawn' test ! -e root/data

# --- What goes wrong ends it, with the program's status.

CIFAR10_DIR=$work/moved
export CIFAR10_DIR
for option in --data --resume --last --model; do
    trains 2 "$option"
    check 'a forgotten value is told of' has out "$option: a value is expected"
done
anew
trains 2 --epochs 0
trains 4 --resume none.ckpt
trains 5 --device cudnn
nothing_trained
trains 6 --lr 1e30
check 'no model, nothing to judge' lacks out '^model '
mkdir here/predictions.png
trains 1 --overwrite
check 'what cifar-test could not do is said' has out '^cifar-test: .*predictions.png'
check 'there are no classes after that' lacks out '^Mean of the classes'
truncate -s -1 here/last.ckpt
trains 4 --resume last.ckpt
truncate -s -1 moved/test_batch.bin
trains 3 --overwrite
check 'nothing is judged after an error' lacks out '^model '

# --- Each script finds its repository through a link and whatever CDPATH is.

unset CIFAR10_DIR
mkdir -p elsewhere/{scripts,links} links
ln -s ../root/scripts/{train,get_data,test,fuzz,bench,crash_test}.sh links
called() { # STATUS PATTERN SCRIPT ARGUMENT...
    local folder status
    for folder in root/scripts ./links; do
        status=0
        (cd "${folder%/*}" && CDPATH=$work/elsewhere "${folder##*/}/$3" "${@:4}") >out 2>&1 </dev/null || status=$?
        ((status == $1)) || failed "status $status instead of $1 of $folder/$3" out
        check "words of $folder/$3" has out "$2"
    done
}
rm -rf root/build
BIN='' called 1 "^crash_test: $root/build/test: no cifar-train there" crash_test.sh
called 0 "building in $built" train.sh --version
called 3 "^bench: $real: no data_batch_1.bin there" bench.sh
called 0 "CIFAR-10 is (already )?in $real" get_data.sh --archive "$work/mirror/cifar-10-binary.tar.gz"
called 2 '^Usage: test.sh' test.sh --wrong
called 2 '^Usage: fuzz.sh' fuzz.sh 0

end_checks

#!/usr/bin/env bash
# cifar-synth replaces a data set whole or not at all, wherever it is killed and whatever fails, and only what
# it drew itself. Takes the programs from $BIN, and from $FAILING_IO the library that makes calls fail
# (fakes/failing_io.c).
set -euo pipefail

# shellcheck disable=SC2034  # checks.sh reads it
NEEDS_MOUNTS=yes
[[ ! -w /dev/shm ]] || export TMPDIR=/dev/shm # thousands of files are synced
# shellcheck source=tests/checks.sh
source "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
umask 022
export FAULT_FILES='*/sets*'

cifar-synth old --seed 1 --train 12 --test 3 >/dev/null
cifar-synth new --seed 2 --train 20 --test 4 >/dev/null
set=$work/sets/data
draw=(cifar-synth "$set" --seed 2 --train 20 --test 4) # the new one

# What is there before: the old set, an empty folder, nothing.
begin() { # [old | empty | nothing]
    rm -rf sets && mkdir sets
    case ${1-old} in
    old) cp -r old sets/data && chmod 750 sets/data ;;
    empty) mkdir -m 750 sets/data ;;
    esac
}
is() { diff -r "$1" sets/data; } # FOLDER: the data set is that one
is_still() { # old | empty | nothing
    case $1 in
    old) is old ;;
    empty) [[ -d sets/data && -z $(ls sets/data) ]] ;;
    nothing) [[ ! -e sets/data ]] ;;
    esac
}
alone() { # nothing is beside the data set
    local there
    there=$(ls -A sets)
    [[ -z $there || $there == data ]] || { ls -A sets && false; }
}
is_whole() { is_still "$1" >/dev/null || is new; } # old | empty | nothing, or the new one
draws() { # WHAT [old | empty]: the next call draws the new set, and removes what others left
    check "$1: drawn again" "${draw[@]}"
    check "$1: the new set" is new
    check "$1: nothing is left beside it" alone
    [[ ! -v 2 ]] || check "$1: the permissions" test "$(stat -c %a sets/data)" = 750
}

# --- Killed before each call that makes, fills, exchanges or removes a folder, and each made to fail.

for case in old: empty: nothing: old:FAULT_NO_EXCHANGE=1; do
    before=${case%:*} with=(env "$preload")
    [[ $case == *: ]] || with+=("${case#*:}")
    begin "$before"
    rm -f trace
    FAULT_TRACE=trace "${with[@]}" "${draw[@]}" >/dev/null
    mapfile -t calls < <(sed -E "s|^[0-9]+ ||; s|$work/||; s|-[0-9]+\.|-PID.|" trace)
    calls=('' "${calls[@]}")
    check "$case: the new set" is new
    check "$case: nothing is left beside it" alone
    names=$(cut -d ' ' -f 2 trace | xargs)
    [[ $case != old: ]] || check 'in one step' has <(echo "$names") ' rename exchange open fsync close '
    [[ $case != old:F* ]] || check 'in two steps' has <(echo "$names") ' rename open rename rename open fsync close '
    check "$case: every file is synced" test "$(grep -c 'fsync .*txt\|fsync .*bin' trace)" = 7
    first=1 last=$(awk '/ rename .*\/data\.cifar-[0-9]*\.tmp$/ { print $1; exit }' trace) # where the new one is whole
    [[ $case == old: ]] || first=$last # how it is filled is the same each time
    [[ $case != old: ]] || { whole=$last && cp trace locks; }
    for ((n = first; n < ${#calls[@]}; n++)); do
        what="$case killed before call $n, ${calls[n]}"
        begin "$before"
        status_of "${with[@]}" FAULT=before FAULT_AT="$n" "${draw[@]}"
        check "$what" test "$status" = 137
        if [[ $case == old:F* && ! -e sets/data ]]; then # between the two renames
            check "$what" test "${calls[n]}" = 'rename sets/data.cifar-PID.tmp'
            check "$what: the old set is beside it" diff -r old sets/data.cifar-*.old
            check "$what: the new one, too" diff -r new sets/data.cifar-*.tmp
        else
            check "$what: a whole set" is_whole "$before"
        fi
        [[ $case != empty: && $case != old: ]] || draws "$what" "$before"
        [[ $case != nothing: && $case != old:F* ]] || draws "$what"

        what="$case call $n failed, ${calls[n]}"
        begin "$before"
        status_of "${with[@]}" FAULT=fail FAULT_AT="$n" FAULT_ERRNO=EIO "${draw[@]}"
        if ((status != 0)); then
            check "$what: a message" has "$err" "^cifar-synth: $set: "
            check "$what: the status" test "$status" = 1
        fi
        if ((status == 0)) || grep -q '/data: was written, but' "$err"; then
            check "$what: the new set" is new
        else
            check "$what: as before" is_still "$before"
        fi
        if grep -q 'could not be removed' "$err"; then draws "$what"; else check "$what: nothing is left beside it" alone; fi
    done
done
check 'the calls are many' test "${#calls[@]}" -gt 80

# --- Several at once: each ends well, and one of their sets is there, whole.

seeds=(1 2 3 4)
for seed in "${seeds[@]}"; do cifar-synth "set$seed" --seed "$seed" --train 20 --test 4 >/dev/null; done
is_one() { local seed; for seed in "${seeds[@]}"; do diff -r "set$seed" sets/data >/dev/null && return; done; false; }
for case in old:A=B nothing:A=B old:FAULT_NO_EXCHANGE=1; do
    for ((i = 0; i < 10; i++)); do
        begin "${case%:*}"
        processes=()
        for seed in "${seeds[@]}"; do
            env "${case#*:}" "$preload" cifar-synth "$set" --seed "$seed" --train 20 --test 4 >/dev/null 2>"err$seed" &
            processes+=($!)
        done
        for process in "${processes[@]}"; do wait "$process" || failed "$case: one of several at once" err?; done
        check "$case: one of the sets" is_one
        check "$case: nothing is left beside it" alone
    done
done

# While one is at work, another leaves its folder alone.
begin
hold 30 "${draw[@]}"
check 'beside one at work' cifar-synth "$set" --seed 1 --train 12 --test 3
check 'its set is there' is old
check 'the other folder, too' test -d "sets/data.cifar-$started.tmp"
release
check 'the one at work ends well' test "$status" = 0 -a ! -s "$err"
check 'its set is there' is new
check 'nothing is left' alone

# Before it has locked its folder, another takes it for abandoned: then it makes it anew.
for call in 4 5 10 11; do
    begin
    check 'the call is before the lock' has <(sed -n "${call}p" locks) ' (open|flock) .*/data\.cifar-[0-9]+\.tmp$'
    hold "$call" "${draw[@]}"
    check "removed before call $call" cifar-synth "$set" --seed 1 --train 12 --test 3
    check "removed before call $call" alone
    release
    check "removed before call $call" test "$status" = 0 -a ! -s "$err"
    check "removed before call $call" is new
    check "removed before call $call" alone
done

# One sees the folder of another, who puts it in its place before the first can lock it: it is not removed.
begin
hold "$whole" "${draw[@]}"
first=("$held" "$started")
hold 4 prlimit --fsize=1024 "${draw[@]}" # of its files none has room
second=("$held" "$started")
release_of "${first[@]}"
check 'the folder is in its place' is new
release_of "${second[@]}"
check 'the other one fails' test "$status" = 1
check 'what it took for abandoned is there' is new
check 'nothing is left' alone

# --- What is beside and is none of its own stays.

begin
others=(data.cifar-12x.tmp data.cifar-.tmp data.cifar-012.tmp data.cifar-12.tmp.d data.cifar-12.bak data.12.tmp
    data.cifar--1.tmp mydata.cifar-12.tmp data2.cifar-12.tmp)
others+=(data.cifar-16.tmp) # of its form, but with a file that is none of a set
(cd sets && mkdir "${others[@]}" data.cifar-13.tmp data.cifar-14.tmp && touch data.cifar-12.tmp data.cifar-1{4,6}.tmp/x &&
    touch data.cifar-13.tmp/{test_batch.bin,data_batch_1.bin.cifar-13.tmp})
ln -s ../old sets/data.cifar-15.tmp
exec {locked}<sets/data.cifar-14.tmp && flock -s "$locked"
check 'beside others' "${draw[@]}"
exec {locked}<&-
check 'names that are not its own, a file, a link and a folder in use stay' diff <(ls sets) \
    <(printf '%s\n' data "${others[@]}" data.cifar-1{2,4,5}.tmp | LC_ALL=C.UTF-8 sort)
check 'what is in use is not emptied' test -e sets/data.cifar-14.tmp/x -a -e old/test_batch.bin

# --- Links and permissions.

begin
chmod 2750 sets/data && ln -s data sets/link
check 'through a link' cifar-synth sets/link --seed 2 --train 20 --test 4
check 'the folder is replaced' is new
check 'the link stays' test "$(readlink sets/link)" = data
check 'so do the permissions' test "$(stat -c %a sets/data)" = 2750
check 'slashes behind' cifar-synth "$set//" --seed 1 --train 12 --test 3
check 'slashes behind' is old
begin nothing
check 'a new folder' cifar-synth sets/data/ --seed 2 --train 20 --test 4
check 'has the usual permissions' test "$(stat -c %a sets/data)" = 755
check 'a set that is not whole is its own, too' rm sets/data/data_batch_2.bin
draws 'a set that is not whole'

# --- What is refused.

listing() { find sets \( -type d -printf '%p %i %m\n' -o -printf '%p %i %m %s %T@ %l\n' \); }
refused() { # PATTERN COMMAND...: with status 1, and nothing changes
    local before
    before=$(listing)
    fails 1 "$@"
    check "$1: nothing has changed" diff <(echo "$before") <(listing)
}
for other in notes.txt .hidden data_batch_6.bin test_batch.bin.12.tmp; do
    begin && touch "sets/data/$other"
    refused "sets/data: holds $other, which is no file of a synthetic data set and would be lost; name another folder$" "${draw[@]}"
done
begin && mkdir sets/data/more
refused 'sets/data: holds more, which' "${draw[@]}"
begin && mv sets/data/test_batch.bin sets && ln -s ../test_batch.bin sets/data
refused 'sets/data: holds test_batch.bin, which' "${draw[@]}"
begin empty && touch sets/data/notes.txt
refused 'sets/data: holds notes.txt, which' "${draw[@]}"
begin empty && printf '%s\n' {a..j} >sets/data/batches.meta.txt
refused 'sets/data: holds batches.meta.txt, which' "${draw[@]}"
begin && printf '%s\n' {a..j} >sets/data/batches.meta.txt
refused 'sets/data: holds a data set that this program did not draw' "${draw[@]}"
begin && rm sets/data/batches.meta.txt # its labels would tell; to be overwritten it must say so
refused 'sets/data: holds a data set that this program did not draw' "${draw[@]}"
begin empty && cp -r old sets/data/cifar-10-batches-bin
refused 'sets/data: holds cifar-10-batches-bin, which' "${draw[@]}"

begin # what comes while it draws
hold 30 "${draw[@]}"
touch sets/data/notes.txt
release
check 'a file that came meanwhile' test "$status" = 1 -a -e sets/data/notes.txt
check 'a file that came meanwhile' has "$err" 'sets/data: holds notes.txt, which'
check 'a file that came meanwhile' alone

begin
inside() { (cd sets/data && "$@"); }
for folder in . ../data "$set"; do
    refused ': is the working folder and cannot be replaced; name another folder$' inside cifar-synth "$folder"
done
check 'the working folder' alone
if [[ -z $asan ]]; then
    little_memory() { (ulimit -v 1000000 && "$@"); }
    refused 'out of memory|no memory' little_memory cifar-synth "$set" --train 1750000
    check 'without memory' alone
fi

if [[ $MOUNTS == yes ]]; then
    begin empty
    mount -t tmpfs -o size=200k none sets/data
    refused 'sets/data: is a mount point and cannot be replaced; name another folder' "${draw[@]}"
    cp old/* sets/data
    mkdir sets/data/set
    refused 'sets/data/set: the data set could not be written: .*test_batch.bin: could not be written .*: No space left on device' \
        cifar-synth sets/data/set --train 5 --test 60
    mount -o remount,ro none sets/data
    refused 'sets/data/set: the folder cannot be replaced: Read-only file system' cifar-synth sets/data/set
    refused 'sets/data/two: cannot be written: creating .*/two.cifar-[0-9]+.tmp beside it failed: Read-only' cifar-synth sets/data/two
    umount sets/data
    mkdir sets/bound && mount --bind sets/data sets/bound
    refused 'sets/bound: is a mount point' cifar-synth sets/bound
    umount sets/bound
else
    echo 'skipped: mount points, a full and a read-only file system (nothing may be mounted here)'
fi

end_checks

#!/usr/bin/env bash
# The floors of the house: an include goes down only, and siblings never include each other. Every
# file is where its floor says, and no backend is named outside its own folder and the list.
set -euo pipefail
cd "$(realpath -m "${BASH_SOURCE[0]}/../..")"

declare -A below=(
    [base]=''
    [data]='base'
    [device]='base'
    [net]='base device'
    [train]='base device data net'
    [app]='base device data net train'
)
faults=0
fault() {
    echo "$*" >&2
    faults=$((faults + 1))
}

while IFS=: read -r file line include; do
    floor=${file#*/} && floor=${floor%%/*}
    target=${include#*\"} && target=${target%\"*}
    [[ $target == */* && $target != ../* ]] || continue # a backend's own header, or what they share
    other=${target%%/*}
    if [[ -z ${below[$floor]+known} ]]; then
        fault "$file: '$floor' is no floor"
    elif [[ $other != "$floor" && " ${below[$floor]} " != *" $other "* ]]; then
        fault "$file:$line: floor '$floor' includes \"$target\", which is not below it"
    elif [[ $other != "$floor" && ! -e include/$target ]]; then
        fault "$file:$line: floor '$floor' includes \"$target\", which is floor '$other''s own"
    fi
done < <(grep -rn '^ *# *include "' src include)

# Only the app floor prints, knows argv and decides how the program ends; memory and faults of the
# program itself end it at once.
while IFS=: read -r file line _; do
    case $file in
    src/app/* | src/base/error.c | src/base/memory.c) ;;
    *) fault "$file:$line: only the app floor prints" ;;
    esac
done < <(grep -rnE '\b(printf|fprintf|puts|putchar|fputs|exit) *\(' src include |
    grep -vE '\b(sn|vsn|s)printf')

while IFS=: read -r file line _; do
    fault "$file:$line: a backend is named outside src/device"
done < <(grep -rniE 'cblas|openblas|cuda|cudnn|nvidia' src include |
    grep -vE '^(src/device/|include/device/device.h)|--device openblas')

# No two parts of src/device, a header with its sources, need each other; what GPU backends share knows
# none of them, and neither backend the other.
device_includes() {
    while IFS=: read -r file include; do
        target=$(realpath --relative-to=. -m "${file%/*}/$(cut -d'"' -f2 <<<"$include")")
        [[ ! -f $target || ${target%.*} == "${file%.*}" ]] || echo "${file%.*} ${target%.*}"
    done < <(grep -rE '^ *# *include "' src/device)
}
loop=$(device_includes | tsort 2>&1 >/dev/null) || fault "src/device: files include each other in a circle: $loop"
while read -r from to; do
    [[ ${to%/*} == "${from%/*}" || $to =~ ^src/device/(host$|optimizers$|gpu/) ]] ||
        fault "$from: includes $to, which is another backend's"
done < <(device_includes)

((faults == 0)) || exit 1
echo "the floors are in order"

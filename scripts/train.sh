#!/usr/bin/env bash
# From a fresh checkout to a trained and tested network. See --help.
set -euo pipefail

root=$(realpath -m "${BASH_SOURCE[0]}/../..")
bin=$root/build/release
# shellcheck disable=SC1091  # checked by itself
source "$root/scripts/packages.sh"

usage() {
    cat <<END
Usage: train.sh [OPTION OF cifar-train]...

Installs what the build needs, builds, gets CIFAR-10, trains, then tests the model and
shows its results by class. The data is that of --data or of \$CIFAR10_DIR if it holds the
batches, else that of the repository's data/, downloaded first if need be. Without a
network it trains on a made-up stand-in, data/synthetic, and says so. For a mirror or an
archive of your own, run scripts/get_data.sh first.

END
    if [[ -x $bin/cifar-train ]]; then
        "$bin/cifar-train" --help
    else
        echo "The options of cifar-train are shown here once it is built."
    fi
}

say() { printf 'train: %s\n' "$*" >&2; }

# Whether cifar-train will find batches in folder $1; whether they are right it judges itself.
holds_batches() {
    local found
    found=$(compgen -G "$1/*_batch*.bin" || compgen -G "$1/cifar-10-batches-bin/*_batch*.bin") &&
        [[ -n $found ]]
}

# --data is dealt with here; the other options that the three programs must agree on go to all.
args=() shared=() data=${CIFAR10_DIR-}
while (($#)); do
    case $1 in
    -h | --help) usage; exit 0 ;;
    --data=*) data=${1#*=} ;;
    --data)
        (($# > 1)) || { say '--data: a folder is expected behind it' && exit 2; }
        data=$2 && shift
        ;;
    --model=* | --device=* | --threads=*) args+=("$1") shared+=("$1") ;;
    --model | --device | --threads) args+=("${@:1:2}") shared+=("${@:1:2}") && shift $(($# > 1)) ;;
    *) args+=("$1") ;;
    esac
    shift
done

need_packages "${BUILD_PACKAGES[@]}"

log=$root/build/release.log
say "building in $bin"
mkdir -p "$root/build"
: >"$log" || { say "$log cannot be written, for the reason above" && exit 1; }
(cd "$root" && cmake --preset release && cmake --build --preset release) >"$log" 2>&1 || {
    tail -n 30 "$log" >&2
    say "the build failed; above is the end of $log"
    exit 1
}

if [[ " ${args[*]} " == *' --version '* ]]; then
    exec "$bin/cifar-train" --version
fi

stand_in=false
if [[ -z $data ]] || ! holds_batches "$data"; then
    [[ -z $data ]] || say "$data holds no CIFAR-10 batches: getting them into $root/data instead"
    data=$root/data
    status=0
    "$root/scripts/get_data.sh" || status=$?
    if ((status == 1)); then
        stand_in=true
        data=$root/data/synthetic
        say "CIFAR-10 could not be had (see above): training on a made-up stand-in, $data"
        # Under another name until it is whole, since a later run takes it as it is.
        if [[ ! -d $data ]]; then
            rm -rf "$data.part"
            "$bin/cifar-synth" "$data.part" >/dev/null
            mv -T "$data.part" "$data"
        fi
    elif ((status != 0)); then
        exit "$status"
    fi
fi

"$bin/cifar-train" --data "$data" "${args[@]}"
"$bin/cifar-test" --data "$data" "${shared[@]}"
"$bin/cifar-classes" --data "$data" "${shared[@]}"
! $stand_in || say "remember: the data was the stand-in, so these figures are not CIFAR-10's"

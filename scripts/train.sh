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
archive of your own, run scripts/get_data.sh first. With --resume it goes on with a run, on
that run's data, and tests that run's model.

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

# --data is seen to here, --resume and --last tell which run is to be tested, and on the other options named
# here the three programs must agree. The rest is for cifar-train alone.
args=() shared=() data='' resume='' last=''
while (($#)); do
    case $1 in
    -h | --help) usage; exit 0 ;;
    --data=* | --resume=* | --last=* | --model=* | --device=* | --threads=*)
        set -- "${1%%=*}" "${1#*=}" "${@:2}"
        continue
        ;;
    --data | --resume | --last | --model | --device | --threads)
        [[ -n ${2-} ]] || { say "$1: a value is expected behind it" && exit 2; }
        ;;& # on to the option itself
    --data) data=$2 ;;
    --resume) resume=$2 && args+=("$1" "$2") ;;
    --last) last=$2 && args+=("$1" "$2") ;;
    --model | --device | --threads) shared+=("$1" "$2") ;;
    *) args+=("$1") && shift && continue ;;
    esac
    shift 2
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

stand_in=false judged=()
[[ -n $data || -n $resume ]] || data=${CIFAR10_DIR-}
if [[ -n $resume ]]; then
    judged=(--state "${last:-$resume}") # which knows its run's data and model
elif [[ -z $data ]] || ! holds_batches "$data"; then
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

[[ -z $data ]] || shared+=(--data "$data")
"$bin/cifar-train" "${shared[@]}" "${args[@]}"
"$bin/cifar-test" "${judged[@]}" "${shared[@]}"
"$bin/cifar-classes" "${judged[@]}" "${shared[@]}"
! $stand_in || say "remember: the data was the stand-in, so these figures are not CIFAR-10's"

#!/usr/bin/env bash
# From a fresh checkout to a trained and tested network. See --help.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bin=$root/build/release
# shellcheck disable=SC1091  # checked by itself
source "$root/scripts/packages.sh"

usage() {
    cat <<END
Usage: train.sh [OPTION OF cifar-train]...

Installs what the build needs, builds, gets CIFAR-10, trains, then tests the model and
shows its results by class. The data is that of --data or of \$CIFAR10_DIR, else the
repository's data/, downloaded first if need be. Without a network it trains on a made-up
stand-in, data/synthetic, and says so. For a mirror or an archive of your own, run
scripts/get_data.sh first.

END
    if [[ -x $bin/cifar-train ]]; then
        "$bin/cifar-train" --help
    else
        echo "The options of cifar-train are shown here once it is built."
    fi
}

say() { printf 'train: %s\n' "$*" >&2; }

# What the three programs must agree on, --opt X or --opt=X, is passed on to the other two.
args=("$@") shared=() data_given=false
for i in "${!args[@]}"; do
    case ${args[i]} in
    -h | --help) usage; exit 0 ;;
    --data | --data=*) data_given=true ;;&
    --data | --model | --device | --threads) shared+=("${args[@]:i:2}") ;;
    --data=* | --model=* | --device=* | --threads=*) shared+=("${args[i]}") ;;
    esac
done

need_packages "${BUILD_PACKAGES[@]}"

log=$root/build/release.log
mkdir -p "$root/build"
say "building in $bin"
if ! (cd "$root" && cmake --preset release && cmake --build --preset release) >"$log" 2>&1; then
    tail -n 30 "$log" >&2
    say "the build failed; above is the end of $log"
    exit 1
fi

stand_in=false
if ! $data_given; then
    data=$root/data/cifar-10-batches-bin
    status=0
    if [[ -n ${CIFAR10_DIR-} ]]; then
        data=$CIFAR10_DIR
    else
        "$root/scripts/get_data.sh" || status=$?
    fi
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
    args=(--data "$data" "${args[@]}")
    shared=(--data "$data" "${shared[@]}")
fi

"$bin/cifar-train" "${args[@]}"
"$bin/cifar-test" "${shared[@]}"
"$bin/cifar-classes" "${shared[@]}"
! $stand_in || say "remember: the data was the stand-in, so these figures are not CIFAR-10's"

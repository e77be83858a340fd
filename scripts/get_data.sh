#!/usr/bin/env bash
# Fetch CIFAR-10 (binary version), check it and unpack it. See --help.
set -euo pipefail

root=$(realpath -m "${BASH_SOURCE[0]}/../..")
# shellcheck disable=SC1091  # checked by itself
source "$root/scripts/packages.sh"

# The CIFAR_ARCHIVE_* and CIFAR_BATCH_SIZE variables are for the tests, which serve a small stand-in.
archive_size=${CIFAR_ARCHIVE_SIZE:-170052171}
archive_md5=${CIFAR_ARCHIVE_MD5:-c32a1d4ab5d03f1284b67883e8d87530}
archive_sha256=${CIFAR_ARCHIVE_SHA256:-c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd}
batch_size=${CIFAR_BATCH_SIZE:-30730000}
archive_name=cifar-10-binary.tar.gz
folder_name=cifar-10-batches-bin
read -ra built_in_mirrors <<<"${CIFAR_MIRRORS-https://www.cs.toronto.edu/~kriz/$archive_name}"

usage() {
    cat <<END
Usage: get_data.sh [--mirror URL]... [--archive FILE] [--dest DIR]

Puts CIFAR-10 into DIR/$folder_name (DIR: the repository's data/ unless given).
Nothing is done if it is there already; a download that broke is gone on with. One that
is at work in DIR is waited for.

  --mirror URL    try this address first: the archive's, or that of its folder, ending
                  in '/'; https, http or file; may be given several times
  --archive FILE  unpack this $archive_name, download nothing
  --dest DIR      where to put the data

  CIFAR_MIRRORS   (environment) replaces the built-in list of mirrors: addresses with
                  spaces between; empty for no mirror but those of --mirror

Exit status: 0 the data is there, 2 usage, 3 the data is wrong, 1 no network or anything else.
END
}

say() { printf 'get_data: %s\n' "$*" >&2; }
die() { say "${@:2}"; exit "$1"; }

size_of() { stat -Lc %s "$1" 2>/dev/null || echo 0; }

begins_like_html() { [[ $(head -c 64 "$1" 2>/dev/null | tr -d '\0[:space:]') == '<'* ]]; }

# Print what keeps folder $1 from being the data; print nothing if all is well.
fault_in() {
    local file bytes
    for file in data_batch_{1..5}.bin test_batch.bin; do
        bytes=$(size_of "$1/$file")
        if ((bytes != batch_size)); then
            echo "$file has $bytes bytes instead of $batch_size"
            return
        fi
    done
    [[ -s $1/batches.meta.txt ]] || echo "batches.meta.txt is missing or empty"
}

# Has file $1 the sum ($2: md5, sha256) $3? If not, say so.
has_sum() {
    local sum
    sum=$("$2sum" <"$1")
    [[ ${sum%% *} == "$3" ]] || { say "$1: the $2 check failed: ${sum%% *} instead of $3" && return 1; }
}

# Does archive $1 hold nothing but files and folders, all of them to lie below where it is unpacked?
holds_plain_files() {
    local list strange
    list=$(tar -tvz --numeric-owner <"$1") ||
        { say "$1: cannot be unpacked (see tar's words above)" && return 1; }
    strange=$(grep -m 1 -E '^[^-d]| /|[ /]\.\.(/|$)' <<<"$list") || return 0
    say "$1: holds what CIFAR-10 does not: $strange"
    return 1
}

# Is file $1 the archive? If not, say which check failed.
check_archive() {
    local bytes
    bytes=$(size_of "$1")
    if ((bytes != archive_size)); then
        say "$1: the size check failed: $bytes bytes instead of $archive_size"
    elif has_sum "$1" md5 "$archive_md5" && has_sum "$1" sha256 "$archive_sha256" &&
        holds_plain_files "$1"; then
        return 0
    fi
    if begins_like_html "$1"; then
        say "it is a web page (a login page, or a proxy's or server's 'not found'), not the archive"
    fi
    return 1
}

# After a failed check: keep only what the next run can go on from.
drop_unless_resumable() {
    local bytes
    bytes=$(size_of "$part")
    if ((bytes > 0 && bytes < archive_size)) && ! begins_like_html "$part"; then
        say "$part is kept: run this again to go on from there"
    else
        rm -f "$part"
        say "$part is removed: the next try begins anew"
    fi
}

# Fetch address $1 into $part, going on from what is there. True if there is something to check.
# The tries are not left to curl's --retry, which throws away what the failed try has brought.
download() {
    local url=$1 try before code status served=false redirects=https
    (($(size_of "$part") != archive_size)) || return 0
    [[ $url == https:* ]] || redirects=http,https
    say "downloading $url"
    for try in {1..5}; do
        ((try == 1)) || sleep 1
        before=$(size_of "$part")
        status=0
        # An answer need not tell its length, nor have an end: the limit on the file cuts it off.
        code=$(
            trap '' XFSZ
            prlimit --fsize=$((archive_size + 1)) \
                curl "$progress" --show-error --fail --location --globoff \
                --proto-redir "=$redirects" --connect-timeout 15 --speed-limit 1000 --speed-time 30 \
                --continue-at - --output "$part" --write-out '%{http_code}' "$url"
        ) || status=$?
        [[ $code == 000 ]] || answered=true
        [[ $code != 2?? ]] || served=true

        if ((before > 0)) && [[ $status == 33 || $code == 416 ]]; then
            say "$url: the server cannot go on from byte $before; beginning anew"
            rm -f "$part"
        elif ((status == 0 || $(size_of "$part") >= archive_size)); then
            return 0
        # Try again where the line broke on the way or the server is busy; nothing else gets better.
        elif (($(size_of "$part") <= before)) && [[ $code != 5?? && $code != 429 ]]; then
            break
        fi
    done
    $served
}

# Unpack archive $1 beside the target, so that the checked folder gets its name in one step.
unpack() {
    local fault
    unpacking=$dest/.unpacking
    rm -rf "$unpacking" # of a run that was killed
    mkdir "$unpacking"
    trap 'rm -rf "$unpacking"' EXIT
    # without anybody's ownership, and the permissions of a new file: no setuid, no setgid
    tar -xz -C "$unpacking" --no-same-owner --no-same-permissions <"$1" ||
        die 3 "$1: cannot be unpacked (see tar's words above); is the disk of $dest full?"
    fault=$(fault_in "$unpacking/$folder_name")
    [[ -z $fault ]] || die 3 "$1: not the CIFAR-10 archive: in its $folder_name, $fault"
    mv -T --backup=numbered "$unpacking/$folder_name" "$target"
    rm -f "$dest/.get_data.lock" # who waits for it, or comes later, finds the data
    say "CIFAR-10 is in $target"
}

mirrors=() archive='' dest=$root/data
while (($#)); do
    case $1 in
    -h | --help) usage; exit 0 ;;
    --mirror=* | --archive=* | --dest=*) set -- "${1%%=*}" "${1#*=}" "${@:2}"; continue ;;
    --mirror | --archive | --dest)
        [[ -n ${2-} ]] || die 2 "$1: a value is missing; see --help"
        ;;& # on to the option itself
    --mirror) mirrors+=("$2") ;;
    --archive) archive=$2 ;;
    --dest) dest=$2 ;;
    *) die 2 "unknown argument '$1'; see --help" ;;
    esac
    shift 2
done

mirrors+=("${built_in_mirrors[@]}")
for i in "${!mirrors[@]}"; do
    [[ ${mirrors[i]} =~ ^(https?|file):// ]] ||
        die 2 "mirror '${mirrors[i]}': an address must begin with https://, http:// or file://"
    [[ ${mirrors[i]} != */ ]] || mirrors[i]+=$archive_name
done

target=$dest/$folder_name
part=$dest/$archive_name.part

end_if_there() {
    fault=$(fault_in "$target")
    [[ -n $fault ]] || { say "CIFAR-10 is already in $target" && exit 0; }
}
end_if_there
mkdir -p "$dest"
exec {lock}>>"$dest/.get_data.lock"
flock -n "$lock" || {
    say "waiting for another get_data.sh that is at work in $dest"
    flock "$lock"
}
end_if_there
[[ ! -e $target ]] ||
    say "$target is there, but $fault; getting it anew (the old one stays as $folder_name.~N~)"

if [[ -n $archive ]]; then
    [[ -f $archive ]] || die 3 "$archive: no such file; --archive expects the $archive_name"
    check_archive "$archive" || die 3 "get the archive again, or leave --archive out to download it"
    unpack "$archive"
    exit 0
fi

((${#mirrors[@]})) || die 1 "no mirror to try: CIFAR_MIRRORS is empty, and no --mirror is given"
need_packages "${DOWNLOAD_PACKAGES[@]}"
progress=--silent
[[ ! -t 2 ]] || progress=--progress-bar
answered=false checks_failed=false

# A whole .part, of a run that was stopped before it could unpack it, is used if it is right.
if (($(size_of "$part") >= archive_size)) && ! check_archive "$part"; then
    drop_unless_resumable
fi

for url in "${mirrors[@]}"; do
    download "$url" || continue
    if check_archive "$part"; then
        unpack "$part"
        rm -f "$part"
        exit 0
    fi
    checks_failed=true
    drop_unless_resumable
done

hint=$'\n    Give another address with --mirror, or the archive with --archive (see --help).'
if $checks_failed; then
    die 3 "no mirror gave the right archive; what was wrong is said above.$hint"
elif $answered; then
    die 1 "the mirrors answered, but none has the archive.$hint"
fi
die 1 "no mirror could be reached; is there a network?$hint"

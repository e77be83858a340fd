# shellcheck shell=bash
# Sourced by the tests that are scripts: an empty folder to work in, which goes with the script, the programs of
# $BIN on the PATH, and the checks. A check that fails says so and the script goes on; its last line is end_checks.
# What a command prints is in the files $out and $err of the folder.

# A script that sets NEEDS_MOUNTS is run where file systems may be mounted, which go with it, if there can be such a
# place; $MOUNTS tells.
if [[ -v NEEDS_MOUNTS && ! -v MOUNTS ]]; then
    if unshare -rm mount -t tmpfs none "${TMPDIR:-/tmp}" 2>/dev/null; then MOUNTS=yes exec unshare -rm "$0"; fi
    MOUNTS=no
fi

tests=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit
unset CIFAR10_DIR CIFAR_CUDA_GRAPH CIFAR_CUDA_DOT OMP_WAIT_POLICY
export GOMP_SPINCOUNT=1000 PATH=$BIN:$PATH # without the first the program starts itself a second time
out=$work/out err=$work/err status=0 started='' held='' holds=0 failures=0

# ---- checks ----

failed() { # WHAT FILE...: counts it, and shows what the files hold
    echo "FAILED $1"
    sed 's/^/    /' "${@:2}"
    failures=$((failures + 1))
}

check() { # WHAT COMMAND...: the command must succeed
    "${@:2}" >"$work/check.out" 2>&1 || failed "$1: ${*:2}" "$work/check.out"
}

# STATUS PATTERN [NAME=VALUE...] COMMAND...: one of the program's commands must end with STATUS; its message
# must match PATTERN, begin with the program's name and be one line; wrong usage gets a second one, the hint.
fails() {
    local expected=$1 pattern=$2
    shift 2
    [[ $1 != *=* ]] || set -- env "$@"
    status_of "$@"
    if ((status != expected)) || ! grep -qE -- "$pattern" "$err" || ! grep -qE '^cifar(-[a-z]+)?: ' "$err" ||
        (($(wc -l <"$err") != (expected == 2 ? 2 : 1))); then
        failed "$*: status $status instead of $expected, or the message does not match '$pattern':" "$err"
    fi
}

has() { grep -qE -- "$2" "$1" || { cat "$1"; false; }; }     # FILE PATTERN
lacks() { ! grep -qE -- "$2" "$1" || { cat "$1"; false; }; } # FILE PATTERN
empty() { [[ ! -s $1 ]] || { cat "$1"; false; }; }           # FILE

# LOG: what it says of steps and epochs, but for how long they took.
figures() { grep -E '"event":"(step|epoch)"' "$1" | sed -E 's/"(train|test|validation|images_per)_seconds?":[^,]+,//g'; }
epochs_in() { grep -c '"event":"epoch"' "$1"; }                # LOG
about() { python3 "$tests/checkpoints.py" about "$@"; }        # FILE KEY: a value of a checkpoint's metadata
loads() { cifar-test --data "$1" --model "$2" --grid '' --json; } # DATA FILE

end_checks() {
    ((failures == 0)) || { echo "$failures checks failed"; exit 1; }
    echo 'all checks passed'
}

# ---- processes ----

# COMMAND...: runs it, with the result in $status; without the shell's own word on a kill.
status_of() { status=0 && { "$@" >"$out" 2>"$err" </dev/null || status=$?; } 2>/dev/null; }
# [NAME=VALUE...] COMMAND...: starts it as process $started. In the background a shell has it ignore SIGINT.
start() { env --default-signal=INT,HUP "$@" >"$out" 2>"$err" </dev/null & started=$!; }
# COMMAND...: waits until it succeeds, or what was started last has ended.
await() { until "$@"; do kill -0 "$started" 2>/dev/null && sleep 0.01 || return 0; done; }
ended() { status=0 && { wait "${1-$started}" || status=$?; } 2>/dev/null; } # [PROCESS]: with the result in $status
stop() { kill "$started" 2>/dev/null || true; ended; }

# ---- faults, by the library $FAILING_IO (fakes/failing_io.c) ----

asan=$(ldd "$BIN/cifar" | awk '/libasan/ { print $3 ":" }')
preload=LD_PRELOAD=$asan${FAILING_IO-} # the sanitizer insists on being the first
# CALL [NAME=VALUE...] COMMAND...: starts it, and waits until it waits, before the call, for the file $held to go.
hold() {
    held=$work/held.$((++holds))
    start "$preload" FAULT=hold FAULT_AT="$1" FAULT_HOLD="$held" "${@:2}"
    await test -e "$held"
}
release_of() { rm "$1" && ended "$2"; } # HELD PROCESS
release() { release_of "$held" "$started"; }

# ---- stand-ins for programs ----

stand_in() { # FILE BODY
    printf '#!/bin/sh\n%s\n' "$2" >"$1"
    chmod +x "$1"
}

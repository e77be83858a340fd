# shellcheck shell=bash
# Sourced by the tests that are scripts: an empty folder to work in, which goes with the script, and the
# checks. A check that fails says so and the script goes on; its last line is end_checks.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit
unset CIFAR10_DIR CIFAR_CUDA_GRAPH CIFAR_CUDA_DOT GOMP_SPINCOUNT OMP_WAIT_POLICY
failures=0

failed() { # WHAT FILE...: counts it, and shows what the files hold
    echo "FAILED $1"
    sed 's/^/    /' "${@:2}"
    failures=$((failures + 1))
}

check() { # WHAT COMMAND...: the command must succeed
    "${@:2}" >check.out 2>&1 || failed "$1: ${*:2}" check.out
}

# STATUS PATTERN [NAME=VALUE...] COMMAND...: one of the program's commands must end with STATUS; its message
# must match PATTERN, begin with the program's name and be one line; wrong usage gets a second one, the hint.
fails() {
    local expected=$1 pattern=$2 status=0
    shift 2
    [[ $1 != *=* ]] || set -- env "$@"
    "$@" >out 2>err </dev/null || status=$?
    if ((status != expected)) || ! grep -qE -- "$pattern" err || ! grep -qE '^cifar(-[a-z]+)?: ' err ||
        (($(wc -l <err) != (expected == 2 ? 2 : 1))); then
        failed "$*: status $status instead of $expected, or the message does not match '$pattern':" err
    fi
}

has() { grep -qE -- "$2" "$1" || { cat "$1"; false; }; }     # FILE PATTERN
lacks() { ! grep -qE -- "$2" "$1" || { cat "$1"; false; }; } # FILE PATTERN
empty() { [[ ! -s $1 ]] || { cat "$1"; false; }; }           # FILE

# LOG: what it says of steps and epochs, but for how long they took.
figures() { grep -E '"event":"(step|epoch)"' "$1" | sed -E 's/"(train|test|images_per)_seconds?":[^,]+,//g'; }

end_checks() {
    ((failures == 0)) || { echo "$failures checks failed"; exit 1; }
    echo 'all checks passed'
}

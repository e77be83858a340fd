# shellcheck shell=bash
# Sourced by the other scripts: which Debian packages each step needs, and how they get there.

# shellcheck disable=SC2034  # the lists are for the scripts that source this file
{
    BUILD_PACKAGES=(build-essential cmake ninja-build pkg-config
        libopenblas-dev libpng-dev libturbojpeg0-dev libjansson-dev libxxhash-dev zlib1g-dev
        libprotobuf-c-dev protobuf-c-compiler libonnx-dev) # the last three: ONNX
    DOWNLOAD_PACKAGES=(curl ca-certificates)
    TEST_PACKAGES=(libcmocka-dev python3 python3-pil) # python3: the tests that are scripts
    CLANG_PACKAGES=(clang libomp-dev)              # for the thread sanitizer and for fuzzing
    CHECK_PACKAGES=(valgrind clang-format shellcheck python3-venv) # tests that are skipped without them
}

# need_packages PACKAGE...: install those that are missing; silent when none is.
need_packages() {
    local package missing=() as_root=()

    if ! command -v dpkg-query >/dev/null; then
        echo "No dpkg here, so nothing is installed for you; needed, by Debian's names: $*" >&2
        return 0
    fi

    for package; do
        # A star at the end: a package installed for two architectures answers twice.
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed* ]] ||
            missing+=("$package")
    done
    ((${#missing[@]})) || return 0

    if ((EUID != 0)); then
        if ! sudo -n true 2>/dev/null; then
            echo "These packages are missing, and only root may install them: ${missing[*]}" >&2
            echo "Install them, then run this again:" >&2
            echo "    sudo apt-get update && sudo apt-get install ${missing[*]}" >&2
            return 1
        fi
        as_root=(sudo -n)
    fi

    # A new machine may still be busy with its own updates, hence the patience with dpkg's lock.
    as_root+=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
    echo "Installing Debian packages: ${missing[*]}" >&2
    "${as_root[@]}" update ||
        echo "apt-get update failed (see above); trying with the package lists of before" >&2
    if ! "${as_root[@]}" install -y --no-install-recommends "${missing[@]}" \
        </dev/null >/dev/null; then
        echo "apt-get could not install ${missing[*]} (see above);" \
            "is there a network, and does /etc/apt name a mirror?" >&2
        return 1
    fi
}

# need_clang_runtime: with clang there, the runtime of its sanitizers and of libFuzzer, which on some systems is
# a package that has clang's version in its name.
need_clang_runtime() {
    echo 'int LLVMFuzzerTestOneInput(void); int LLVMFuzzerTestOneInput(void) { return 0; }' |
        clang -fsanitize=fuzzer,address -x c -o /dev/null - 2>/dev/null ||
        need_packages "libclang-rt-$(clang -dumpversion | cut -d. -f1)-dev"
}

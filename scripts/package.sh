#!/usr/bin/env bash
# Builds packages of llm-stream-bench and tries each: `scripts/package.sh binary wheel crates`.
#
#   binary   a static binary, run in an empty root          musl-gcc (Debian: musl-tools), `rustup target add TARGET`, root
#   wheel    a wheel with it, installed into a new venv     maturin
#   crates   the packages of `cargo publish`, not compiled
#
# Packages are written to target/packages. TARGET is by default x86_64-unknown-linux-musl.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${TARGET:-x86_64-unknown-linux-musl}
folder=target/packages
# Larger binaries are an error.
most_bytes=12000000
mkdir -p "$folder"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# The job that each package has to do: a run of a simulated model.
config() {
    printf '%s\n' 'runs: 2' 'prompts: [{ name: hello, text: "Say hello." }]' \
        'models: { m: { simulate: { ttft: 20ms, itl: 5ms, tokens: 8 } } }'
}

# Fails unless the output of a run says that its two trials passed.
passed() {
    tee "$scratch/log" | grep -E '^(test result|passed|FAILED)'
    grep -q '^passed: 2 trials succeeded' "$scratch/log"
}

seconds() { awk "BEGIN { printf \"%.1f s\", ($(date +%s%N) - $1) / 1e9 }"; }

binary() {
    cargo build --locked --profile dist --target "$target" --package llm-stream-bench --bin llm-stream-bench
    local built=target/$target/dist/llm-stream-bench size
    size=$(stat -c %s "$built")
    echo "$built: $size bytes"
    if ((size > most_bytes)); then
        echo "the binary has more than $most_bytes bytes" >&2
        return 1
    fi
    if readelf --program-headers "$built" | grep -q INTERP; then
        echo "the binary is not static" >&2
        return 1
    fi
    # Nothing but the binary and a config: no /tmp, /proc, /dev or certificates.
    mkdir -p "$scratch/root/bin"
    cp "$built" "$scratch/root/bin/"
    config >"$scratch/root/configs.yaml"
    env -i PATH="$PATH" chroot "$scratch/root" /bin/llm-stream-bench run </dev/null 2>&1 | passed
    local version name
    version=$(env -i PATH="$PATH" chroot "$scratch/root" /bin/llm-stream-bench --version | cut -d ' ' -f 2)
    name=llm-stream-bench-$version-$target
    # In `bin`, because runs are stored in a folder `llm-stream-bench` of the current folder.
    mkdir -p "$scratch/$name/bin"
    cp "$built" "$scratch/$name/bin/"
    cp LICENSE-APACHE LICENSE-MIT README.md "$scratch/$name/"
    tar -czf "$folder/$name.tar.gz" --owner=0 --group=0 -C "$scratch" "$name"
}

wheel() {
    # The binary is static, so that one wheel is for systems with glibc and with musl.
    maturin build --target "$target" --compatibility linux --out "$scratch/wheels"
    local built=("$scratch"/wheels/*.whl)
    python3 -m venv "$scratch/tagger"
    "$scratch/tagger/bin/pip" install --quiet wheel
    "$scratch/tagger/bin/wheel" tags --remove \
        --platform-tag "manylinux_2_17_${target%%-*}.musllinux_1_1_${target%%-*}" "${built[0]}"
    cp "$scratch"/wheels/*.whl "$folder/"
    local start
    start=$(date +%s%N)
    python3 -m venv "$scratch/venv"
    "$scratch/venv/bin/pip" install --quiet --no-index "$scratch"/wheels/*.whl
    mkdir "$scratch/run"
    config >"$scratch/run/configs.yaml"
    (cd "$scratch/run" && "$scratch/venv/bin/llm-stream-bench" run </dev/null 2>&1) | passed
    echo "new venv, installation and first result: $(seconds "$start")"
}

crates() {
    # Tests check that no crate includes a file outside its folder: compiling each package takes minutes.
    cargo package --locked --allow-dirty --workspace --exclude llm-stream-tests --no-verify
}

for part in "${@:-binary}"; do
    case $part in
    binary | wheel | crates) "$part" ;;
    *)
        echo "unknown package \`$part\`: expected binary, wheel or crates" >&2
        exit 2
        ;;
    esac
done

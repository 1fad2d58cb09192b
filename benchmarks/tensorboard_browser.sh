#!/usr/bin/env bash
# Open the training log of OUT in a real browser and take pictures: all cards, the scalars, the figure of decisions.
#
#   benchmarks/tensorboard_browser.sh OUT [FOLDER]     needs `tensorboard` and `chromium` on the PATH; writes into FOLDER (default .)
set -euo pipefail

out=${1:?usage: tensorboard_browser.sh OUT [FOLDER]}
folder=${2:-.}
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome) || {
    echo "no chromium on the PATH (Debian: apt-get install chromium)" >&2
    exit 2
}
[ -d "$out/tensorboard" ] || { echo "$out holds no tensorboard/; train.py --out writes one" >&2; exit 2; }
mkdir -p "$folder"
profile=$(mktemp -d)
log=$(mktemp)
port=$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
tensorboard --logdir "$out/tensorboard" --host 127.0.0.1 --port "$port" --load_fast=false >"$log" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null || true; rm -rf "$profile" "$log"' EXIT

for _ in $(seq 120); do # it takes some seconds to import TensorFlow's stand-ins, longer on a busy machine
    curl --silent --fail "http://127.0.0.1:$port/data/runs" | grep -q '"' && break
    kill -0 "$server" 2>/dev/null || { cat "$log" >&2; exit 1; }
    sleep 0.5
done

shoot() { # name, fragment of the address
    "$browser" --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars \
        --disable-background-networking --disable-component-update --disable-sync --user-data-dir="$profile" \
        --window-size=1500,"$3" --virtual-time-budget=20000 --screenshot="$folder/$1.png" \
        "http://127.0.0.1:$port/?darkMode=false#$2" >>"$log" 2>&1
    [ -s "$folder/$1.png" ] || { cat "$log" >&2; exit 1; }
    echo "$folder/$1.png"
}
shoot tensorboard_overview timeseries 1400
shoot tensorboard_scalars scalars 1400
shoot tensorboard_figure images 1000

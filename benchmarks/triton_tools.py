"""Triton's own tools against our server, unmodified: python benchmarks/triton_tools.py --tools FOLDER

Into FOLDER go tritonclient (PyPI), perf_analyzer (a wheel of PyPI), and the newer C libraries that the latter needs
(Debian; apt-get is asked once, with a state of its own). They are kept for the next run. Then a server answers:

- tritonclient: readiness, metadata, configuration, statistics, index, an answer, classes as text, a refused batch;
- perf_analyzer: one picture over and over, with 1, 2 and 4 requests under way. Its own figures are in the JSON.
"""

from __future__ import annotations

import argparse
import base64
import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tidesplit.benchmarks.processes import served
from tidesplit.benchmarks.results import write_json
from tidesplit.compression.codec.image_codec import encode_image
from tidesplit.compression.codec.pixels import natural_picture
from tidesplit.profiling.measuring.clock import machine_facts
from tidesplit.runtime.export import cached_server, say

CLIENT, ANALYZER = "tritonclient[grpc]==2.73.0", "perf-analyzer==2.60.0"
SUITE = "trixie"
PACKAGES = ("libc6", "libstdc++6", "libgcc-s1", "libssl3t64", "zlib1g", "libzstd1")
LIBRARIES = "newer/usr/lib/x86_64-linux-gnu"
APT = """Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::State "{folder}";
Dir::State::Lists "{folder}/lists";
Dir::Cache "{folder}/cache";
Dir::State::status "{folder}/status";
"""
SOURCE = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian {suite} main\n"
ASK = """
import json, sys
import numpy as np
import tritonclient.grpc as triton

address, model, file = sys.argv[1:]
client = triton.InferenceServerClient(address)
payload = np.fromfile(file, dtype=np.uint8)

def tensor(data):
    made = triton.InferInput("payload", list(data.shape), "UINT8")
    made.set_data_from_numpy(data)
    return [made]

answer = client.infer(model, tensor(payload), outputs=[triton.InferRequestedOutput("logits")], request_id="1")
classes = client.infer(model, tensor(payload), outputs=[triton.InferRequestedOutput("logits", class_count=3)])
try:
    client.infer(model, tensor(np.stack([payload, payload])))
    batch = "answered"
except triton.InferenceServerException as error:
    batch = str(error)
statistics = client.get_inference_statistics(model, as_json=True)["model_stats"][0]
logits = answer.as_numpy("logits")
print(json.dumps({
    "live": client.is_server_live(), "ready": client.is_server_ready(), "model_ready": client.is_model_ready(model),
    "metadata": client.get_model_metadata(model, as_json=True),
    "config": client.get_model_config(model, as_json=True)["config"],
    "index": [one["name"] for one in client.get_model_repository_index(as_json=True)["models"]],
    "logits": list(logits.shape), "best": int(logits.argmax()), "finite": bool(np.isfinite(logits).all()),
    "classes": [text.decode() for text in classes.as_numpy("logits").ravel()], "batch_of_two": batch,
    "inferences": int(statistics["inference_count"]),
}))
"""


def call(*command: str | Path, **environment: str) -> str:
    """Run a command and return its output.

    Raises:
        RuntimeError: it failed.
    """
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment or None)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


def prepare(tools: Path) -> None:
    """Get what is missing in the folder."""
    if not (tools / "venv" / "done").exists():
        call(sys.executable, "-m", "venv", tools / "venv")
        call(tools / "venv/bin/pip", "install", "--quiet", CLIENT)
        (tools / "venv" / "done").touch()
    if not (tools / "wheel").exists():
        call(
            sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--target",
            tools / "wheel", "--platform", "manylinux_2_38_x86_64", ANALYZER,
        )  # fmt: skip
    if not (tools / LIBRARIES).exists():
        _libraries(tools)


def _libraries(tools: Path) -> None:
    """Debian's newer C libraries, unpacked and not installed."""
    folder, debs = (tools / "apt").absolute(), tools / "debs"
    for made in (folder / "lists/partial", folder / "cache/archives/partial", debs):
        made.mkdir(parents=True, exist_ok=True)
    (folder / "status").touch()
    (folder / "sources.list").write_text(SOURCE.format(suite=SUITE))
    (folder / "apt.conf").write_text(APT.format(folder=folder))
    asked = {"APT_CONFIG": str(folder / "apt.conf"), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    call("apt-get", "update", **asked)
    call("sh", "-c", f"cd '{debs}' && apt-get download {' '.join(PACKAGES)}", **asked)
    for file in debs.glob("*.deb"):
        call("dpkg", "-x", file, tools / "newer")


def analyzer(tools: Path) -> list[str]:
    """The command of perf_analyzer, through the newer libraries' own loader."""
    libraries = tools / LIBRARIES
    program = tools / "wheel/perf_analyzer/bin/perf_analyzer"
    return [str(libraries / "ld-linux-x86-64.so.2"), "--library-path", str(libraries), str(program)]


def analyzed(tools: Path, address: str, model: str, payload: bytes, most: int) -> dict[str, Any]:
    """perf_analyzer's report: its text, and its table by the number of requests under way."""
    data, table = tools / "input.json", tools / "report.csv"
    data.write_text(json.dumps({"data": [{"payload": {"b64": base64.b64encode(payload).decode()}}]}))
    text = call(
        *analyzer(tools), "-m", model, "-i", "grpc", "-u", address, "--input-data", data, "--shape",
        f"payload:{len(payload)}", "--concurrency-range", f"1:{most}:1", "--measurement-interval", "3000",
        "--stability-percentage", "50", "--max-trials", "10", "--percentile", "95", "-f", table,
    )  # fmt: skip
    with table.open(newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: int(row["Concurrency"]))
    return {"version": ANALYZER, "rows": rows, "text": text.splitlines()}


def main(argv: Sequence[str] | None = None) -> None:
    """Get the tools, run them, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", type=Path, required=True, help="folder for Triton's tools")
    parser.add_argument("--profile", default="efficientnet_lite0", help="bundled CNN")
    parser.add_argument("--under-way", type=int, default=4, help="most requests under way at once")
    parser.add_argument("--json", type=Path, help="write the reports here")
    options = parser.parse_args(argv)
    tools = options.tools.absolute()
    tools.mkdir(parents=True, exist_ok=True)
    prepare(tools)
    cnn = cached_server(options.profile, False, say)
    payload, model = encode_image(natural_picture(cnn.input_px), "jpeg", 50), f"{cnn.name}-p0"
    (tools / "picture.jpg").write_bytes(payload)
    with served() as (host, port):
        address = f"{host}:{port}"
        client = json.loads(call(tools / "venv/bin/python", "-c", ASK, address, model, tools / "picture.jpg"))
        report = analyzed(tools, address, model, payload, options.under_way)
    print(json.dumps(client, indent=1), *report["text"], sep="\n")
    found = {"tritonclient": {"version": CLIENT, **client}, "perf_analyzer": report, "picture_bytes": len(payload)}
    write_json(options.json, {**found, "machine": machine_facts(1)})


if __name__ == "__main__":
    main()

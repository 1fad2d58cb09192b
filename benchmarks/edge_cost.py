"""What the runtime costs a frame on this machine, without the CNN: python benchmarks/edge_cost.py --bundle OUT

Prints median and 95th percentile, in milliseconds, of the decision (observation, policy, record), of encoding and of
framing. Then it starts the device's process some times and prints the resident memory of interpreter and libraries, and
with every model of the bundle loaded and each point run once, and the time from the start until then. Its last column
leaves out the points that send video, and with them FFmpeg. With --install it also prints the size of the base
installation (pip included) and the time until the device program answers.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tidesplit.agents import bundle as bundles
from tidesplit.agents.bundle import Bundle
from tidesplit.benchmarks.results import percentiles, write_json
from tidesplit.compression.codec.pixels import natural_picture
from tidesplit.profiling.measuring.clock import machine_facts
from tidesplit.runtime.device.engine import Engine, knobs_of, points_of
from tidesplit.runtime.export import for_bundle
from tidesplit.runtime.timing.loop_cost import Decider
from tidesplit.runtime.wire.messages import Request, build_request

STARTS = 5
VIDEO = "--without-video"
PARTS = ("decision", "encoding", "framing")


def time_frames(loaded: Bundle, engine: Engine, frames: int) -> list[tuple[float, float, float]]:
    """Time of each part of PARTS in each frame, milliseconds. The CNN runs beforehand."""
    pixels, decider = natural_picture(engine.cnn.input_px), Decider(loaded.table, loaded.demand, loaded.policy)
    cuts = [point for point in engine.points if point.codec == "feature"]
    values = {point.id: engine.values(point.id, pixels) for point in cuts}
    times = []
    for k, point in zip(range(frames), itertools.cycle(cuts), strict=False):
        decider.hear(k)
        moments = [time.perf_counter()]
        decider.decide(k)
        moments.append(time.perf_counter())
        payload = engine.cnn.codec.encode(*values[point.id], knobs_of(point))
        moments.append(time.perf_counter())
        request = Request(engine.cnn.name, point.partition, engine.cnn.version, str(k), payload, point.id)
        build_request(request).SerializeToString()
        moments.append(time.perf_counter())
        decision, encoding, framing = 1e3 * np.diff(moments)
        times.append((decision, encoding, framing))
    return times


def summary(times_ms: Sequence[Sequence[float]]) -> dict[str, dict[str, float]]:
    """Median and 95th percentile of every part, and of a frame's parts together, from rows of PARTS."""
    columns = {**dict(zip(PARTS, zip(*times_ms, strict=True), strict=True)), "together": tuple(map(sum, times_ms))}
    return {name: percentiles(column, median_ms=50, p95_ms=95) for name, column in columns.items()}


def started(bundle: Path, *options: str) -> dict[str, float]:
    """Resident memory of a device's process, MiB, and the seconds until it is ready: medians of some starts."""
    call = [sys.executable, "-m", "tidesplit.benchmarks.edge_process", "--bundle", str(bundle), *options]
    found: list[dict[str, float]] = []
    for _ in range(STARTS):
        begun = time.perf_counter()
        done = subprocess.run(call, check=True, capture_output=True, text=True)
        found.append({**json.loads(done.stdout), "start_s": time.perf_counter() - begun})
    return {name: float(np.median([one[name] for one in found])) for name in found[0]}


def installed() -> dict[str, float]:
    """Size of the base installation in a fresh virtual environment, and the time that `edge --help` takes there."""
    root = Path(__file__).resolve().parent.parent
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = str(Path(folder) / "bin" / "python")
        subprocess.run([python, "-m", "pip", "install", "--quiet", str(root)], check=True)
        size = sum(f.stat().st_size for f in Path(folder, "lib").rglob("*") if f.is_file())
        took = []
        for _ in range(STARTS):
            begun = time.perf_counter()
            start = [python, "-m", "tidesplit.runtime.edge", "--help"]
            subprocess.run(start, check=True, capture_output=True, cwd=folder)
            took.append(time.perf_counter() - begun)
    return {"installed_mb": size / 1e6, **percentiles(took, start_s=50, slowest_start_s=100)}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, help="folder that tidesplit train wrote")
    parser.add_argument("--frames", type=int, default=1000, help="frames to time")
    parser.add_argument("--threads", type=int, default=1, help="threads of a run in the started processes (default: 1)")
    parser.add_argument("--install", action="store_true", help="also install the base package afresh, and start it")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args(argv)
    loaded = bundles.load(options.bundle)
    engine = Engine(for_bundle(options.bundle), points_of(loaded.profile, loaded.table.ids))
    found = summary(time_frames(loaded, engine, options.frames))
    for name, of in found.items():
        print(f"{name:9} median {of['median_ms']:.3f} ms, 95th percentile {of['p95_ms']:.3f} ms")
    threads = "--threads", str(options.threads)
    memory = {"all": started(options.bundle, *threads), "without_video": started(options.bundle, *threads, VIDEO)}
    print(f"{len(engine.points)} points, {len(engine.cnn.models)} models in {len(engine.cnn.files)} files")
    for name, of in memory.items():
        print("{:14} libraries {libraries:.0f} MiB, with all models {run:.0f} MiB; ready after {start_s:.2f} s "
              "(medians of {n})".format(name.replace("_", " "), n=STARTS, **of))  # fmt: skip
    fresh = installed() if options.install else {}
    if fresh:
        print("base installation {installed_mb:.0f} MB; --help after {start_s:.2f} s (median of {n}, "
              "slowest {slowest_start_s:.2f} s)".format(n=STARTS, **fresh))  # fmt: skip
    facts = {"frames": options.frames, "parts": found, "threads": options.threads, "process_mib": memory, **fresh}
    write_json(options.json, {**facts, "machine": machine_facts(1)})


if __name__ == "__main__":
    main()

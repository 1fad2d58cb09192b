"""What the runtime costs a frame on this machine, without the CNN: python benchmarks/edge_cost.py --bundle OUT

Prints median and 95th percentile, in milliseconds, of the decision (observation, policy, record), of encoding and of
framing; then the resident memory of a device with every model of the bundle loaded, and the time to load them. With
--install it also prints the size of the base installation (pip included) and the time until the device program answers.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
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


def resident_mib() -> float:
    """Memory of this process that is in RAM."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096 / 2**20


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
    parser.add_argument("--install", action="store_true", help="also install the base package afresh, and start it")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args(argv)
    begun = time.perf_counter()
    loaded = bundles.load(options.bundle)
    engine = Engine(for_bundle(options.bundle), points_of(loaded.profile, loaded.table.ids))
    load_s = time.perf_counter() - begun
    for point in loaded.table.ids:  # a session takes its memory when it first runs
        result = engine.head(point, natural_picture(engine.cnn.input_px))
        if result.payload is not None:
            engine.finish(point, result.feature)
    memory = resident_mib()
    found = summary(time_frames(loaded, engine, options.frames))
    for name, of in found.items():
        print(f"{name:9} median {of['median_ms']:.3f} ms, 95th percentile {of['p95_ms']:.3f} ms")
    models = len(engine.cnn.files)
    print(f"{len(engine.points)} points, {models} models: loaded in {load_s:.1f} s, {memory:.0f} MiB resident")
    fresh = installed() if options.install else {}
    if fresh:
        print("base installation {installed_mb:.0f} MB; --help after {start_s:.2f} s (median of {n}, "
              "slowest {slowest_start_s:.2f} s)".format(n=STARTS, **fresh))  # fmt: skip
    facts = {"frames": options.frames, "parts": found, "resident_mib": memory, "load_s": load_s, **fresh}
    write_json(options.json, {**facts, "machine": machine_facts(1)})


if __name__ == "__main__":
    main()

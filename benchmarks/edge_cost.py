"""What the runtime itself costs a frame on this machine, beside the CNN: python benchmarks/edge_cost.py --bundle OUT

Prints median and 95th percentile of decision (observation, policy, record), encoding and framing in milliseconds, the
resident memory of a device with every model of the bundle loaded, and how long loading takes. With --install: the size
of the base installation (pip included) and how long the edge takes to start.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from anywhere, installed or not

from tidesplit.agents import bundle as bundles
from tidesplit.compression.codec.pixels import natural_picture
from tidesplit.envs.world.observation import Situation, observe
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import Demands
from tidesplit.profiling.measuring.clock import machine_facts
from tidesplit.runtime.device.engine import Engine, knobs_of
from tidesplit.runtime.device.record import Record
from tidesplit.runtime.device.source import Picture
from tidesplit.runtime.export import for_bundle
from tidesplit.runtime.wire.estimator import Estimator, Settled
from tidesplit.runtime.wire.messages import Request, build_request

STARTS = 5


def resident_mib() -> float:
    """Memory of this process that is in RAM."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096 / 2**20


def installed() -> dict[str, float]:
    """Size of the base installation in a fresh virtual environment, and how long the edge's `--help` takes there."""
    root = Path(__file__).resolve().parent.parent
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = str(Path(folder) / "bin" / "python")
        subprocess.run([python, "-m", "pip", "install", "--quiet", str(root)], check=True)
        size = sum(f.stat().st_size for f in Path(folder, "lib").rglob("*") if f.is_file())
        took = []
        for _ in range(STARTS):
            begun = time.perf_counter()
            subprocess.run(
                [python, "-m", "tidesplit.runtime.edge", "--help"], check=True, capture_output=True, cwd=folder
            )
            took.append(time.perf_counter() - begun)
    return {
        "installed_mb": size / 1e6,
        "start_s": float(np.median(took)),
        "slowest_start_s": max(took),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, help="folder of train.py")
    parser.add_argument("--frames", type=int, default=1000, help="frames to time")
    parser.add_argument("--install", action="store_true", help="also install the base package anew, and start it")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    begun = time.perf_counter()
    loaded = bundles.load(options.bundle)
    cnn = for_bundle(options.bundle)
    engine = Engine(cnn, tuple(loaded.profile.point(i) for i in loaded.table.ids))
    load_s = time.perf_counter() - begun
    table, world, demand = loaded.table, World(), loaded.demand
    picture = Picture(natural_picture(cnn.input_px), "drawn")
    for point in table.ids:
        result = engine.head(point, picture.pixels)
        if result.payload is not None:
            engine.finish(point, result.feature)
    memory = resident_mib()
    cuts = [point for point in engine.points if point.codec == "feature"]
    values = {p.id: engine.values(p.id, picture.pixels) for p in cuts}
    estimator = Estimator(world.window)
    parts: dict[str, list[float]] = {"decision": [], "encoding": [], "framing": [], "together": []}
    for k in range(options.frames):
        estimator.sent(k, k / 30, Settled(900.0, tail_s=0.008))
        estimator.answered(k, k / 30 + 0.08, 5.0 + k / 30 + 0.03 + 0.001 * (k % 7), 0.001)
        a = time.perf_counter()
        now = np.array([k / 30 + 0.09])
        situation = Situation(now, np.zeros(1), estimator.transfers(), np.ones(1), np.array([k % table.size]))
        observation = observe(
            situation, table, Demands.of(demand), world.usual_rtt_s, world.overhead_bytes, world.guard_s
        )
        row = int(loaded.policy.predict(observation)[0])
        Record.of(k, picture, demand, table, observation, row)
        b = time.perf_counter()
        point = cuts[k % len(cuts)]
        payload = cnn.codec.encode(*values[point.id], knobs_of(point))
        c = time.perf_counter()
        request = Request(cnn.name, point.partition, cnn.version, str(k), payload, point.id)
        build_request(request).SerializeToString()
        d = time.perf_counter()
        for name, took in zip(parts, (b - a, c - b, d - c, d - a), strict=True):
            parts[name].append(1e3 * took)
    found = {n: {"median_ms": float(np.median(v)), "p95_ms": float(np.percentile(v, 95))} for n, v in parts.items()}
    for name, row_ in found.items():
        print(f"{name:9} median {row_['median_ms']:.3f} ms, 95th percentile {row_['p95_ms']:.3f} ms")
    print(f"{len(engine.points)} points, {len(cnn.files)} models: loaded in {load_s:.1f} s, {memory:.0f} MiB resident")
    fresh = installed() if options.install else {}
    if fresh:
        print("base installation {installed_mb:.0f} MB; --help after {start_s:.2f} s".format(**fresh), end="")
        print(f" (median of {STARTS}, slowest {fresh['slowest_start_s']:.2f} s)")
    if options.json:
        told = {"frames": options.frames, "parts": found, "resident_mib": memory, "load_s": load_s, **fresh}
        options.json.write_text(json.dumps({**told, "machine": machine_facts(1)}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

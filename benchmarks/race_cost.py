"""What a race costs each of its halves on this machine: python benchmarks/race_cost.py --cnn FOLDER [--json FILE]

The foreground encodes a picture and sends its bytes, once a period. The worker, a thread of low priority, runs a whole
net back to back on all cores but one. Blocks of the foreground without the worker, of the worker without the foreground
and of both together take turns, so that a disturbance hits all alike. The bytes go to a real server process as probes,
because a tail on the same machine would disturb both.

Prints as JSON the median and the 95th percentile of each time in milliseconds, without and with the other half, and the
ratio of both. FOLDER: `tidesplit export --profile NAME --out FOLDER`.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

from tidesplit.benchmarks.processes import served
from tidesplit.benchmarks.results import percentiles, write_json
from tidesplit.compression.codec.pixels import Pixels, natural_picture
from tidesplit.profiling.measuring.clock import machine_facts
from tidesplit.profiling.points import profile as profiles
from tidesplit.runtime.cnn import load_cnn
from tidesplit.runtime.device import priority
from tidesplit.runtime.device.client import GrpcClient
from tidesplit.runtime.device.engine import Engine
from tidesplit.runtime.device.pacer import wait

ANSWER_LIMIT_S = 2.0
FIRST = 3  # times of a block that warm caches up: not counted
Times = dict[str, list[float]]


def timed(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    begun_s = time.perf_counter()
    work()
    return time.perf_counter() - begun_s


class Background:
    """Runs a net back to back on a thread of low priority while the block lasts. `times_s` are those of its runs."""

    def __init__(self, net: Callable[[], object]) -> None:
        self._net, self._over, self.times_s = net, threading.Event(), list[float]()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Background:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        priority.lower()
        while not self._over.is_set():
            self.times_s.append(timed(self._net))


class Foreground:
    """Encodes a picture and sends it, once a period."""

    def __init__(self, engine: Engine, client: GrpcClient, point: str, pixels: Pixels) -> None:
        self._engine, self._client, self._point, self._pixels = engine, client, point, pixels

    def block(self, frames: int, period_s: float) -> Times:
        """Times of encoding and of sending, in seconds."""
        times: Times = {"encode": [], "send": []}
        begun_s = time.perf_counter()
        for frame in range(frames):
            wait(begun_s + frame * period_s - time.perf_counter())
            times["encode"].append(timed(self._encode))
            times["send"].append(timed(self._send))
        return times

    def _encode(self) -> None:
        self._payload = self._engine.head(self._point, self._pixels).payload or b""

    def _send(self) -> None:
        self._client.probe(len(self._payload), ANSWER_LIMIT_S, lambda _: None)


def measure(foreground: Foreground, net: Callable[[], object], rounds: int, frames: int, period_s: float) -> Times:
    """Times of each half without the other and beside it, from blocks in turn."""
    found: Times = defaultdict(list)
    for _ in range(rounds):
        for runs_net, sends in ((False, True), (True, False), (True, True)):
            background = Background(net)
            with background if runs_net else nullcontext():
                times = foreground.block(frames, period_s) if sends else {}
                if not sends:
                    time.sleep(frames * period_s)
            for name, of in {**times, "net": background.times_s}.items():
                found[f"{name} {'beside' if runs_net and sends else 'without'}"] += of[FIRST:]
    return found


def summary(times: Times) -> dict[str, dict[str, float]]:
    """Figures of each half: milliseconds, and their ratios beside the other half to those without it."""
    rows = {}
    for name in ("encode", "send", "net"):
        one, both = (times[f"{name} {how}"] for how in ("without", "beside"))
        row: dict[str, float] = {"n_without": len(one), "n_beside": len(both)}
        for kind, q in (("median", 50), ("p95", 95)):
            without, beside = (percentiles(of, ms=q)["ms"] * 1e3 for of in (one, both))
            row |= {f"{kind}_without_ms": without, f"{kind}_beside_ms": beside, f"{kind}_ratio": beside / without}
        rows[name] = row
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cnn", type=Path, required=True, help="folder of tidesplit export")
    parser.add_argument("--point", default="p0-jpeg-q10", help="point that sends a picture")
    parser.add_argument("--net", default="device-c0.25", help="point that runs on the device")
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1, help="threads of the device's table")
    parser.add_argument("--fps", type=float, default=30.0, help="pictures a second")
    parser.add_argument("--frames", type=int, default=30, help="pictures of a block")
    parser.add_argument("--rounds", type=int, default=20, help="blocks of each kind")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args(argv)
    cnn = load_cnn(options.cnn)
    profile = profiles.load(cnn.name)
    engine = Engine(cnn, (profile.point(options.point), profile.point(options.net)), options.cores)
    pixels = natural_picture(cnn.input_px)
    with served("--cnn", str(options.cnn)) as (host, port), GrpcClient(f"{host}:{port}", cnn) as client:
        foreground = Foreground(engine, client, options.point, pixels)
        times = measure(
            foreground, lambda: engine.head(options.net, pixels), options.rounds, options.frames, 1.0 / options.fps
        )
    found = {
        "point": options.point, "net": options.net, "nice": priority.NICE, "fps": options.fps, "times": summary(times),
        "machine": machine_facts(max(1, options.cores - 1)),
    }  # fmt: skip
    print(json.dumps(found, indent=1))
    write_json(options.json, found)


if __name__ == "__main__":
    main()

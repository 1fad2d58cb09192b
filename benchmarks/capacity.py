"""What a server on one core serves of a cut, and a bare ONNX Runtime loop of the same tail on the same core.

An echo server, which computes nothing, says what gRPC itself costs in Python. With it and the bare loop's time, no
server that computes one frame after another could serve more than ``reachable`` of the bare loop's rate.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from tidesplit.benchmarks.processes import ServerProcess, cpu_s
from tidesplit.benchmarks.server_throughput import ask
from tidesplit.compression.codec.image_codec import encode_image
from tidesplit.compression.codec.knobs import Knobs
from tidesplit.compression.codec.pixels import natural_picture
from tidesplit.runtime.cnn import Cnn, load_cnn
from tidesplit.runtime.models import tail_name
from tidesplit.runtime.server.tails import Item, Tails
from tidesplit.runtime.wire.messages import Request, build_request

ROUNDS, ROUND_S = 5, 2.0  # of the bare loop and the server
MEASURED = ("bare", "decoding", "server", "echo")
AT_ONCE = 8  # frames under way while the server's throughput is measured


@dataclass(frozen=True)
class Cut:
    """A partition with a payload for it. ``point`` is its operating point, for the server's logs."""

    partition: int
    point: str
    payload: bytes


def cut_of(cnn: Cnn, partition: int) -> Cut:
    """A cut with a payload of drawn values; a picture at partition 0."""
    if partition == 0:
        return Cut(0, "p0-jpeg-q75", encode_image(natural_picture(cnn.input_px), "jpeg", 75))
    cut, knobs, rng = cnn.codec.cuts[partition], Knobs(partition, 1.0, 1.0, 2), np.random.default_rng(0)
    values = rng.normal(size=cut.shape).astype(np.float32)
    return Cut(partition, knobs.id, cnn.codec.encode(values, values[0], knobs))


def bare_loop(cnn: Cnn, cut: Cut) -> Callable[[], object]:
    """One run of the tail by ONNX Runtime, and nothing else."""
    session = cnn.session(tail_name(cut.partition), threads=1)
    shape = session.get_inputs()[0].shape
    feed = {"x": np.random.default_rng(0).normal(size=[1, *shape[1:]]).astype(np.float32)}
    return lambda: session.run(None, feed)


def decoding_loop(cnn: Cnn, cut: Cut) -> Callable[[], object]:
    """One frame as the server computes it: decode, then run."""
    tails, item = Tails(cnn), Item(cut.partition, cut.payload)
    return lambda: tails.run(tail_name(cut.partition), [item])


class Loops:
    """A process on some cores that runs the bare and the decoding loop of a cut."""

    def __init__(self, cnn: Cnn, cut: Cut, cores: Sequence[int]) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        work = multiprocessing.get_context("spawn").Process
        self._process = work(target=_loop, args=(cnn.folder, cut, tuple(cores), theirs), daemon=True)
        self._process.start()
        theirs.close()

    def rate(self, which: int) -> tuple[float, float]:
        """Runs a second, and the processor time of one in milliseconds. 0 is the bare loop, 1 the decoding one."""
        self._pipe.send(which)
        runs, took_s, work_s = self._pipe.recv()
        return runs / took_s, 1e3 * work_s / runs

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()


def _loop(folder: Path, cut: Cut, cores: Sequence[int], pipe: Connection) -> None:
    os.sched_setaffinity(0, cores)
    cnn = load_cnn(folder)
    loops = bare_loop(cnn, cut), decoding_loop(cnn, cut)
    while True:
        run = loops[pipe.recv()]
        run()
        runs, begun_s, work_s = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - begun_s < ROUND_S:
            run()
            runs += 1
        pipe.send((runs, time.perf_counter() - begun_s, time.process_time() - work_s))


def served_rate(server: ServerProcess, message: Any) -> tuple[float, float]:
    """Frames a second of a server that always has AT_ONCE under way, and its processor time for one in milliseconds."""
    work_s = cpu_s(server.pid)
    answers = len(ask("{}:{}".format(*server.address), message, ROUND_S, AT_ONCE))
    return answers / ROUND_S, 1e3 * (cpu_s(server.pid) - work_s) / (answers + AT_ONCE + 1)


def capacity(cnn: Cnn, cut: Cut, server: ServerProcess, cores: Sequence[int]) -> dict[str, float]:
    """Frames a second and processor time of a frame of all in `MEASURED`, the medians of several turns.

    Also the server's share of the bare loop by rate and by processor time. The latter is steadier on a busy machine.
    """
    message = build_request(Request(cnn.name, cut.partition, "", "1", cut.payload))
    loops, rounds = Loops(cnn, cut, cores), []
    echo = ServerProcess(cores=cores, program=("-m", "tidesplit.benchmarks.echo_server"))
    try:
        loops.rate(0)
        served_rate(server, message)
        for _ in range(ROUNDS):
            rounds.append((*loops.rate(0), *loops.rate(1), *served_rate(server, message), *served_rate(echo, message)))
    finally:
        loops.stop()
        echo.stop()
    columns = np.array(rounds).T
    names = [f"{name}_{unit}" for name in MEASURED for unit in ("per_s", "cpu_ms")]
    found = {name: float(np.median(column)) for name, column in zip(names, columns, strict=True)}
    return {
        **found,
        "share": float(np.median(columns[4] / columns[0])),
        "cpu_share": float(np.median(columns[1] / columns[5])),
        "reachable": float(np.median(columns[1] / (columns[1] + columns[7]))),
    }

"""Light devices: each sends payloads encoded beforehand through the runtime's client, over a connection of its own.

Many of them fit one process, because they run no CNN. They send at a steady rate, each from a random moment on.
"""

from __future__ import annotations

import heapq
import multiprocessing
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tidesplit.runtime.cnn import load_cnn
from tidesplit.runtime.core.sending import Failure, Reply
from tidesplit.runtime.device.client import GrpcClient
from tidesplit.runtime.device.loop import ANSWER_LIMIT_S
from tidesplit.runtime.wire.protocol import CLIENT_OPTIONS
from tidesplit.runtime.wire.security import Credentials

ANSWERED = "answered"
READY_S = 30.0  # for the start of a process and its connections


class OwnConnection(Credentials):
    """No credentials. By default, all channels of a process to one address share a connection."""

    def channel(self, library: Any, address: str) -> Any:
        """A channel with a connection of its own."""
        return library.insecure_channel(address, [*CLIENT_OPTIONS, ("grpc.use_local_subchannel_pool", 1)])


class End(NamedTuple):
    """The end of one frame: its device, its number, the moment at which it was due, its latency and how it ended."""

    device: int
    frame: int
    due_s: float
    latency_s: float
    how: str


@dataclass(frozen=True)
class Order:
    """What one process of light devices does: these devices, for ``length_s``, ``fps`` frames a second each."""

    address: str
    cnn: Path
    point: str
    payload: bytes
    devices: tuple[int, ...]
    fps: float
    length_s: float


def send(order: Order, ready: Callable[[], None] = lambda: None) -> tuple[int, list[End]]:
    """Send the frames and wait for their ends. Returns how many were sent. One that ended twice is there twice.

    ``ready`` is called once all connections stand. It returns when the devices shall begin.
    """
    cnn, ends = load_cnn(order.cnn), list[End]()
    clients = {device: GrpcClient(order.address, cnn, OwnConnection()) for device in order.devices}
    connected = {device: threading.Event() for device in clients}
    for device, client in clients.items():
        client.probe(8, READY_S, lambda _, one=connected[device]: one.set())  # type: ignore[misc]
    for one in connected.values():
        one.wait(READY_S)
    ready()
    due = [(phase(device) / order.fps, device, 0) for device in order.devices]
    heapq.heapify(due)
    sent, begun_s = 0, time.perf_counter()
    while due:
        at_s, device, frame = heapq.heappop(due)
        if at_s >= order.length_s:
            continue
        time.sleep(max(0.0, begun_s + at_s - time.perf_counter()))
        heapq.heappush(due, (at_s + 1 / order.fps, device, frame + 1))
        done = partial(_ended, ends, device, frame, at_s, begun_s)
        clients[device].infer(frame, order.point, order.payload, ANSWER_LIMIT_S, done)
        sent += 1
    end_s = time.perf_counter() + 2 * ANSWER_LIMIT_S
    while len(ends) < sent and time.perf_counter() < end_s:
        time.sleep(0.01)
    for client in clients.values():
        client.__exit__()
    return sent, ends


def phase(device: int) -> float:
    """The share of a period after which a device sends its first frame."""
    return float(np.random.default_rng(device).random())


def _ended(ends: list[End], device: int, frame: int, at_s: float, begun_s: float, got: Reply | Failure) -> None:
    how = ANSWERED if isinstance(got, Reply) else got.reason.split(":")[0]
    ends.append(End(device, frame, at_s, time.perf_counter() - begun_s - at_s, how))


class LightDevices:
    """Processes that carry out orders, on these cores. They wait for `begin`. `ends` waits for them."""

    def __init__(self, orders: Sequence[Order], cores: Collection[int] = ()) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes: list[BaseProcess] = []
        for order in orders:
            ours, theirs = multiprocessing.Pipe()
            process = context.Process(target=_work, args=(order, tuple(cores), theirs), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def begin(self) -> None:
        """Wait until all are connected, then let them begin."""
        for pipe in self._pipes:
            pipe.recv()
        for pipe in self._pipes:
            pipe.send(None)

    def ends(self) -> tuple[int, list[End]]:
        """How many frames were sent, and their ends in no order."""
        found = [pipe.recv() for pipe in self._pipes]
        for process in self._processes:
            process.join()
        return sum(sent for sent, _ in found), [end for _, ends in found for end in ends]


def _work(order: Order, cores: tuple[int, ...], pipe: Connection) -> None:
    if cores:
        os.sched_setaffinity(0, cores)

    def ready() -> None:
        pipe.send(None)
        pipe.recv()

    pipe.send(send(order, ready))


def jain(counts: Sequence[float]) -> float:
    """Jain's index of fairness: 1 where all counts are equal, 1 / n where one has everything."""
    values = np.array(counts, dtype=np.float64)
    return float(values.sum() ** 2 / (values.size * np.square(values).sum())) if values.any() else 0.0


def figures(sent: int, ends: Sequence[End], deadline_s: float) -> dict[str, Any]:
    """Figures of a run with ``sent`` frames. ``lost``: frames without an end, or with two."""
    times = Counter((end.device, end.frame) for end in ends)
    answered = [end for end in ends if end.how == ANSWERED]
    by_device = Counter({device: 0 for device, _ in times}) + Counter(end.device for end in answered)
    ms = [1e3 * end.latency_s for end in answered] or [float("nan")]
    p50, p99 = np.percentile(ms, [50, 99])
    return {
        "sent": sent,
        "lost": sent - len(times) + sum(count > 1 for count in times.values()),
        "answered": len(answered),
        "late": sum(end.latency_s > deadline_s for end in answered),
        "refused": dict(Counter(end.how for end in ends if end.how != ANSWERED)),
        "p50_ms": float(p50), "p99_ms": float(p99),
        "jain": jain([by_device[device] for device in {device for device, _ in times}]),
    }  # fmt: skip

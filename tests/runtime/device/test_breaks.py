"""Streams that break, with a real server, link and balancer: one answer a frame, one key a break and stream."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count, cycle, islice
from typing import Any

import grpc
import numpy as np
import pytest

from tests.runtime.deployed import CUT_STREAM, ROWS, VIDEO_STREAM, points_of_streams, server_process, with_memory
from tests.runtime.punctual import on_time
from tests.runtime.servers import LIMIT_S, ServerThread
from tidesplit.envs.traces.trace import Trace
from tidesplit.envs.world.vocabulary import Demand
from tidesplit.runtime.camera.source import drawn
from tidesplit.runtime.cnn import Cnn, load_cnn
from tidesplit.runtime.device.client import GrpcClient
from tidesplit.runtime.device.engine import Engine
from tidesplit.runtime.device.loop import Device
from tidesplit.runtime.emulator.proxy import Link
from tidesplit.runtime.log.record import Record
from tidesplit.runtime.log.writer import Log
from tidesplit.runtime.server.serving import ServerOptions
from tidesplit.runtime.wire.stream_place import DEVICE_METADATA

DEMAND = Demand(fps=30, deadline_s=0.2)
LOCAL = tuple(ROWS)[-1]
WIDE = Trace("wide", np.array([0.0]), 60.0, np.array([10e6]))


@pytest.fixture(scope="module")
def cnn(cnn: Cnn) -> Cnn:
    return with_memory(cnn)


@pytest.fixture(scope="module")
def engine(cnn: Cnn) -> Engine:
    return Engine(cnn, points_of_streams(cnn.partitions)[0].points)


class InTurn:
    """Chooses these rows in turn, each for some frames; while nothing may be sent, the device's own net."""

    name = "in turn"

    def __init__(self, rows: Sequence[int], local: int, frames: int = 3) -> None:
        self.rows, self.local = cycle([row for row in rows for _ in range(frames)]), local

    def predict(self, observation: Any) -> Any:
        row = next(self.rows)
        return np.array([row if observation.mask[0, row] else self.local])


class Watched:
    """A device that runs on a thread, and its records."""

    def __init__(self, engine: Engine, address: str, names: Sequence[str], frames: int) -> None:
        table = points_of_streams(engine.cnn.partitions)[1]
        self.records: list[Record] = []
        self.frames, self.more = frames, threading.Condition()
        self.client, self.log = GrpcClient(address, engine.cnn), Log([self._take])
        controller = InTurn([table.row(name) for name in names], table.row(LOCAL))
        self.device = Device(controller, table, DEMAND, engine, self.client, self.log, guarded=False)
        self.thread = threading.Thread(target=self._go)

    def _take(self, record: Record) -> None:
        with self.more:
            self.records.append(record)
            self.more.notify_all()

    def _go(self) -> None:
        with self.client, self.log:
            self.device.run(islice(drawn(self.device.engine.cnn.input_px), self.frames))

    def __enter__(self) -> Watched:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.thread.join(self.frames * DEMAND.period_s + LIMIT_S)
        self.records.sort(key=lambda r: r.frame)
        if [r.frame for r in self.records] != list(range(self.frames)):
            pytest.fail("each frame has exactly one answer")  # whatever the machine: nothing that `on_time` may excuse

    def wait_for(self, number: int) -> None:
        with self.more:
            assert self.more.wait_for(lambda: len(self.records) >= number, LIMIT_S)

    def keys(self) -> Counter[str]:
        return Counter(r.place.name for r in self.records if r.place is not None and r.place.key)

    def unknown(self) -> list[int]:
        return [r.frame for r in self.records if "reference unknown" in (r.error or "")]


class Balancer(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """Sends each call to the next server, or with `affinity` each device's calls to one server."""

    def __init__(self, addresses: Sequence[str], affinity: bool) -> None:
        self._channels = [grpc.insecure_channel(address) for address in addresses]
        self._affinity, self._calls = affinity, count()

    def service(self, details: Any) -> Any:
        metadata = dict(details.invocation_metadata)
        number = hash(metadata[DEVICE_METADATA]) if self._affinity else next(self._calls)
        call = self._channels[number % len(self._channels)].unary_unary(details.method)

        def forward(data: bytes, context: Any) -> bytes:
            try:
                return bytes(call(data, timeout=context.time_remaining()))
            except grpc.RpcError as error:
                context.abort(error.code(), error.details())
                raise

        return grpc.unary_unary_rpc_method_handler(forward)

    def close(self) -> None:
        for channel in self._channels:
            channel.close()


@contextmanager
def balanced(cnn: Cnn, affinity: bool) -> Iterator[str]:
    """The address of a link to a balancer in front of two servers."""
    with ExitStack() as stack:
        servers = [stack.enter_context(ServerThread(cnn, ServerOptions())) for _ in range(2)]
        handler = Balancer([server.address for server in servers], affinity)
        stack.callback(handler.close)
        pool = stack.enter_context(ThreadPoolExecutor(8))
        balancer = grpc.server(pool, handlers=[handler])
        port = balancer.add_insecure_port("127.0.0.1:0")
        balancer.start()
        stack.callback(lambda: balancer.stop(0).wait())
        link = stack.enter_context(Link(WIDE, ("127.0.0.1", port), rtt_s=0.05))
        yield "{}:{}".format(*link.address)


@on_time
def test_a_server_that_is_killed_and_comes_back_costs_one_key_a_stream(cnn: Cnn) -> None:
    exported = load_cnn(cnn.folder)  # without tables of streams, as the server's process has it
    points = [point for point in points_of_streams(cnn.partitions)[0].points if point.id != CUT_STREAM]
    engine = Engine(exported, tuple(points))
    with (
        server_process(cnn.folder) as (first, port),
        Link(WIDE, ("127.0.0.1", port), rtt_s=0.05) as link,
        Watched(engine, "{}:{}".format(*link.address), (VIDEO_STREAM,), 200) as run,
    ):
        run.wait_for(40)
        first.kill()
        first.wait(10)
        with server_process(cnn.folder, port=port):
            back_s = run.device.now_s()
            run.thread.join(LIMIT_S)
    assert run.keys() == {VIDEO_STREAM: 2}
    assert Counter(r.answered_by for r in run.records)["miss"] <= 4
    late = Counter(r.answered_by for r in run.records if r.arrival_s > back_s + 1.0)
    assert late["server"] >= 0.9 * sum(late.values()) > 20
    relative = [r.sent_bytes for r in run.records if r.place is not None and not r.place.key]
    assert np.mean(relative) < 0.8 * np.mean([r.sent_bytes for r in run.records if r.place and r.place.key])


@on_time
def test_a_balancer_without_affinity_costs_few_frames_and_the_policy_sees_it(cnn: Cnn, engine: Engine) -> None:
    with balanced(cnn, affinity=False) as address, Watched(engine, address, (CUT_STREAM, VIDEO_STREAM), 150) as run:
        pass
    assert 3 <= len(run.unknown()) <= 4 * 4, "four breaks in five seconds, each with the frames under way"
    held = [r for r in run.records if r.place is not None and r.place.key]
    assert len(held) >= 80
    assert all(r.reference_age is None for r in held)
    foreseen = [r.foreseen["reference_age"] for r in held]
    assert foreseen.count(64.0) >= 0.9 * len(held), "which the observation says as 64"
    assert Counter(r.answered_by for r in run.records)["miss"] <= 4
    assert Counter(r.answered_by for r in held)["server"] >= 0.9 * len(held)
    assert run.device.breaker.state == "closed", "the link works"


@on_time
def test_a_balancer_with_affinity_costs_nothing(cnn: Cnn, engine: Engine) -> None:
    with balanced(cnn, affinity=True) as address, Watched(engine, address, (CUT_STREAM, VIDEO_STREAM), 60) as run:
        pass
    assert (run.keys(), run.unknown()) == ({"p1": 1, VIDEO_STREAM: 1}, [])
    ages = [r.reference_age for r in run.records if r.place is not None and not r.place.key]
    assert Counter(ages).most_common(1)[0][0] == 1.0
    assert max(age for age in ages if age is not None) >= 4.0, "the other stream went on for three frames meanwhile"
    assert [r.foreseen["reference_age"] for r in run.records if r.reference_age == 4.0][:1] == [4.0]

"""Races and whole nets on the real device loop: the worker computes in the background, and frames end in time."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.runtime.core.virtual import CUT, CUT_RACE, LOCAL, OFFLOAD, RACE, Cycled
from tests.runtime.deployed import points, server_process
from tests.runtime.device.test_loop import Run
from tests.runtime.punctual import on_time
from tidesplit.agents.judging.replay import STEADY, agreement
from tidesplit.compression.codec.knobs import race_id
from tidesplit.envs.traces.trace import Trace
from tidesplit.envs.world.vocabulary import Demand
from tidesplit.profiling.points.table import PointTable
from tidesplit.profiling.points.tiers import table_of
from tidesplit.runtime.camera.source import drawn
from tidesplit.runtime.cnn import Cnn
from tidesplit.runtime.core.sending import Reply
from tidesplit.runtime.device.engine import Engine, points_of
from tidesplit.runtime.device.loop import Device
from tidesplit.runtime.device.priority import NICE, with_low_priority
from tidesplit.runtime.emulator.proxy import Link
from tidesplit.runtime.log.record import Record
from tidesplit.runtime.wire.answers import ServerTiming

DEMAND = Demand(fps=30, deadline_s=0.1)
LATE_S = 0.010  # lateness that a busy machine's threads may have


def table_of_races(cnn: Cnn, **columns: float) -> PointTable:
    """The three invented points and two races. `columns` replace whole columns."""
    table = table_of(points(cnn.partitions)[0], ("device", "server"), (OFFLOAD, CUT, LOCAL, RACE, CUT_RACE))
    return replace(table, **{name: np.full(table.size, value) for name, value in columns.items()})


@pytest.fixture(scope="module")
def engine(cnn: Cnn) -> Engine:
    return Engine(cnn, points(cnn.partitions)[0].points)


class Fake:
    """A client whose server answers probes, and never a frame."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, float]] = []

    def infer(self, number: int, *_: Any) -> None:
        self.sent.append((number, time.perf_counter()))

    def probe(self, size: int, limit_s: float, done: Any, probe_next: bool = False) -> None:
        done(Reply(None, ServerTiming(time.perf_counter(), 0.0, 0.0)))


def played(
    engine: Any, table: PointTable, rows: str | Sequence[str], client: Fake, frames: int = 30,
    demand: Demand = DEMAND, paced: bool = True,
) -> tuple[list[Record], dict[int, float], Device]:  # fmt: skip
    """The records in order, the moments at which they were logged, and the device."""
    records, logged = [], {}

    def log(record: Record) -> None:
        records.append(record)
        logged[record.frame] = device.now_s()

    chosen = [table.row(row) for row in ([rows] if isinstance(rows, str) else rows)]
    device = Device(Cycled(chosen), table, demand, engine, client, log, paced=paced, guarded=False)
    device.run(islice(drawn(engine.cnn.input_px), frames))
    assert sorted(r.frame for r in records) == list(range(frames)), "each frame has exactly one end"
    return sorted(records, key=lambda r: r.frame), logged, device


def share(records: list[Record], holds: Callable[[Record], bool]) -> float:
    return float(np.mean([holds(r) for r in records]))


@on_time
@pytest.mark.parametrize("point", [RACE, CUT_RACE])
def test_a_race_without_an_answer_is_the_devices_at_the_deadline_exactly(engine: Engine, point: str) -> None:
    records, logged, _ = played(engine, table_of_races(engine.cnn), point, Fake())
    assert {r.answered_by for r in records} == {"device"}
    assert {r.latency_s for r in records} == {DEMAND.deadline_s}
    assert {r.utility for r in records} == {0.60}
    assert all(r.race and r.answer is not None for r in records)
    assert [r.local_s for r in records] == pytest.approx([0.020] * 30)
    late_s = [logged[r.frame] - r.arrival_s - DEMAND.deadline_s for r in records]
    assert max(late_s) < LATE_S


@on_time
def test_a_server_that_is_quicker_than_the_device(cnn: Cnn, engine: Engine, port: int) -> None:
    """A run that has not begun is skipped; one under way goes on and changes nothing."""
    table = table_of_races(cnn, finish_s=0.060)  # longer than a period: runs queue up
    with Run(engine, f"localhost:{port}", table.row(RACE), 60, Demand(fps=20, deadline_s=0.25), table=table) as run:
        pass
    assert run.answered()["server"] >= 57
    assert share(run.records, lambda r: r.local_s is None) > 0.9
    assert share(run.records, lambda r: r.latency_s < 0.03) > 0.9


@on_time
def test_a_server_that_freezes_costs_no_race_its_answer(cnn: Cnn, engine: Engine) -> None:
    table = table_of_races(cnn)
    with server_process(cnn.folder) as (process, port):

        def freeze() -> None:
            process.send_signal(signal.SIGSTOP)

        with Run(engine, f"localhost:{port}", table.row(RACE), 40, DEMAND, table=table, started=freeze) as run:
            pass
    assert run.answered()["device"] >= 39
    assert run.answered()["miss"] == 0


@on_time
def test_encoding_and_sending_never_wait_for_the_worker(engine: Engine) -> None:
    """The worker has twice the work that it can do. Runs that could not end in time do not begin."""
    client = Fake()
    records, _, _ = played(engine, table_of_races(engine.cnn, finish_s=0.066), RACE, client, 60)
    assert [r.waited_s for r in records] == pytest.approx([0.0] * 60, abs=1e-6)
    assert [r.head_s for r in records] == pytest.approx([0.004] * 60)
    gaps_s = np.diff([moment for _, moment in client.sent])
    assert np.percentile(np.abs(gaps_s - DEMAND.period_s), 90) < LATE_S, "a run takes 66 ms"
    assert share(records, lambda r: r.answered_by == "device") == pytest.approx(0.5, abs=0.1)
    assert all((r.local_s is None) == (r.answered_by == "miss") for r in records)


@on_time
def test_whole_nets_run_in_the_background(engine: Engine) -> None:
    records, _, device = played(engine, table_of_races(engine.cnn), LOCAL, Fake())
    assert {r.answered_by for r in records} == {"device"}
    assert [r.latency_s for r in records] == pytest.approx([0.020] * 30, abs=1e-6)
    assert device.core._free_s == 0.0, "the foreground was never busy"


@on_time
def test_a_cut_waits_until_the_worker_is_idle_and_a_picture_does_not(engine: Engine) -> None:
    demand = Demand(fps=100, deadline_s=0.25)
    table = table_of_races(engine.cnn)
    records, _, _ = played(engine, table, (LOCAL, OFFLOAD, CUT), Fake(), 3, demand)
    whole, picture, cut = (r.arrival_s for r in records)
    assert records[0].arrival_s + records[0].latency_s == pytest.approx(whole + 0.020)
    assert picture == pytest.approx(whole + 0.010)
    assert records[1].head_s == pytest.approx(0.004)
    assert records[2].decided_at_s == pytest.approx(cut)
    waiting = played(engine, table, (LOCAL, CUT, OFFLOAD), Fake(), 3, demand)[0]
    assert waiting[2].decided_at_s - waiting[0].arrival_s == pytest.approx(0.032), "after 20 ms of wait and 12 of head"


@on_time
def test_a_run_that_fails_costs_its_frame_alone(engine: Engine) -> None:
    failing = iter([False, True])

    def finish(point: str, feature: np.ndarray) -> Any:
        if next(failing, False):
            raise RuntimeError("out of memory")
        return engine.finish(point, feature)

    stub = SimpleNamespace(cnn=engine.cnn, head=engine.head, finish=finish)
    records, _, _ = played(stub, table_of_races(engine.cnn), RACE, Fake(), 5)
    assert [r.answered_by for r in records] == ["device", "miss", "device", "device", "device"]
    assert records[1].error == "the device could not finish the frame: out of memory"


@on_time
@pytest.mark.parametrize(("point", "finish_s"), [(RACE, 0.020), (RACE, 0.050), (CUT_RACE, 0.020), (LOCAL, 0.020)])
def test_simulated_and_emulated_latencies_agree(
    cnn: Cnn, engine: Engine, port: int, point: str, finish_s: float
) -> None:
    """The deadline is about the time of an answer, and a run of 50 ms is longer than a period."""
    rng = np.random.default_rng(3)
    times = np.arange(0.0, 20.0, 0.5)
    trace = Trace("varied", times, 20.0, 1e6 * np.exp(rng.normal(0.0, 0.6, len(times))))
    table, offset = table_of_races(cnn, finish_s=finish_s), []
    with Link(trace, ("127.0.0.1", port), rtt_s=0.07) as link:
        run = Run(
            engine, "{}:{}".format(*link.address), table.row(point), 150, DEMAND, table=table,
            started=lambda: offset.append(link.now_s()),
        )  # fmt: skip
        with run:
            pass
    lines = sorted((r.as_json() for r in run.records), key=lambda line: line["frame"])
    # The world's cost of a request is that of another machine on another day.
    trips_ms = [line["actual_ms"]["round_trip"] for line in lines if line["actual_ms"]["round_trip"]]
    own_s = max(1e-3 * float(np.median(trips_ms)) - 0.07, 0.0) if trips_ms else STEADY.request_s
    compared = agreement(lines, trace, table, DEMAND, offset[0], replace(STEADY, request_s=own_s))
    assert compared.median < 0.10, compared
    assert compared.p95 < 0.20, compared
    assert compared.real_misses == pytest.approx(compared.simulated_misses, abs=0.1)


def test_the_points_that_a_device_runs(cnn: Cnn) -> None:
    profile = points(cnn.partitions)[0]
    assert [p.id for p in points_of(profile, (RACE, CUT_RACE, OFFLOAD, f"{RACE}>cloud"))] == [OFFLOAD, LOCAL, CUT]


def test_a_race_on_the_device_runs_its_own_net(engine: Engine) -> None:
    pixels = next(drawn(engine.cnn.input_px)).pixels
    sent, raced, cut = (engine.head(point, pixels) for point in (OFFLOAD, RACE, CUT_RACE))
    assert raced.payload == sent.payload
    assert engine.finish(RACE, raced.feature) == pytest.approx(engine.head(LOCAL, pixels).logits, abs=1e-5)
    assert engine.finish(CUT_RACE, cut.feature) == pytest.approx(engine.finish(CUT, cut.feature))
    other = engine.head(race_id(CUT, LOCAL), pixels)
    assert engine.finish(race_id(CUT, LOCAL), other.feature) == pytest.approx(
        engine.head(LOCAL, pixels).logits, abs=1e-5
    )


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux only")
def test_low_priority_is_the_threads_own_and_inherited() -> None:
    def nice() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    def of_a_thread_that_it_starts() -> tuple[int, int]:
        found: list[int] = []
        thread = threading.Thread(target=lambda: found.append(nice()))
        thread.start()
        thread.join()
        return nice(), found[0]

    before = nice()
    expected = max(before, NICE)
    assert with_low_priority(of_a_thread_that_it_starts) == (expected, expected)
    assert nice() == before

"""The edge loop with real models, a real server and a real (emulated) link: every frame has exactly one answer."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest

from tests.runtime.deployed import DEMAND, points, points_of_three, server_process
from tests.runtime.punctual import on_time
from tidesplit.agents.judging.replay import agreement
from tidesplit.agents.rules.controllers import Static
from tidesplit.envs.traces.trace import Trace
from tidesplit.envs.world.belief import UNKNOWN_AGE_S
from tidesplit.envs.world.vocabulary import Demand
from tidesplit.runtime.camera.source import drawn
from tidesplit.runtime.device.client import GrpcClient
from tidesplit.runtime.device.engine import Engine
from tidesplit.runtime.device.loop import Device
from tidesplit.runtime.emulator.proxy import Link
from tidesplit.runtime.log.writer import Log
from tidesplit.runtime.wire import estimator
from tidesplit.runtime.wire.security import Credentials

OFFLOAD, CUT, LOCAL = 0, 1, 2
FIRST, SECOND = ("p0-jpeg-q50", "p1-c0.50-r1.00-b2"), "p2-c1.00-r1.00-b2"


@pytest.fixture(scope="module")
def engine(cnn):
    profile, _ = points(cnn.partitions)
    return Engine(cnn, profile.points)


def steady(mbps, rtt_s=None):
    rtt = None if rtt_s is None else np.array([rtt_s])
    return Trace("steady", np.array([0.0]), 60.0, np.array([mbps * 1e6]), rtt)


@pytest.fixture(scope="module")
def middle(cnn, port):
    """The port of a server that passes frames on over a link of 5 Mbit/s and 30 ms."""
    with (
        Link(steady(5.0), ("127.0.0.1", port), rtt_s=0.03) as second,
        server_process(cnn.folder, "--next", "{}:{}".format(*second.address)) as (_, number),
    ):
        yield number


class Run:
    """A device that runs on a thread, and what it logged."""

    def __init__(
        self, engine, address, row=CUT, frames=40, demand=DEMAND, paced=True, safety=None, started=None, sink=None,
        table=None,
    ):  # fmt: skip
        table = table or points(engine.cnn.partitions)[1]
        self.table, self.records, self.demand = table, [], demand
        self.client = GrpcClient(address, engine.cnn, safety or Credentials())
        self.log = Log([sink or self.records.append])
        self.device = Device(
            Static("static", row), table, demand, engine, self.client, self.log, paced=paced,
            started=started or (lambda: None),
        )  # fmt: skip
        self.frames = frames
        self.thread = threading.Thread(target=self._go)

    def _go(self):
        with self.client, self.log:
            self.device.run(islice(drawn(self.device.engine.cnn.input_px), self.frames))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.thread.join(self.frames * self.demand.period_s + 120)  # only a device that hangs takes so long
        assert not self.thread.is_alive()
        if self.records and sorted(r.frame for r in self.records) != list(range(self.frames)):
            pytest.fail("each frame has exactly one answer")  # whatever the machine: nothing that `on_time` may excuse

    def answered(self):
        return Counter(r.answered_by for r in self.records)

    def wait_for(self, frame):
        while self.thread.is_alive() and not any(r.frame >= frame for r in self.records):
            time.sleep(0.01)


@on_time
def test_on_a_good_link_the_server_answers_and_says_what_the_device_would(cnn, engine, port):
    with Run(engine, f"localhost:{port}", OFFLOAD) as run:
        pass
    assert run.answered()["server"] >= 38
    lines = [r.as_json() for r in run.records]
    assert {line["decision"] for line in lines} <= {"p0-jpeg-q50", "device-c0.25"}
    assert all(line["class"] in cnn.classes for line in lines if line["answered_by"] == "server")
    assert all(line["actual_ms"]["total"] >= line["actual_ms"]["head"] for line in lines)
    assert len({tuple(line) for line in lines}) == 1, "every line has the same keys"


@on_time
def test_without_a_server_the_device_answers_by_itself(engine):
    with Run(engine, "localhost:1", CUT) as run:
        pass
    assert run.answered()["device"] >= 38
    assert run.device.breaker.state != "closed"
    assert any(r.error and "UNAVAILABLE" in r.error for r in run.records) or run.device.breaker.reason


@on_time
def test_another_version_of_the_weights_is_refused_said_and_answered_locally(cnn, engine, tmp_path):
    manifest = (cnn.folder / "cnn.json").read_text().replace("5a5a" * 16, "abcd" * 16)
    other = tmp_path / "other"
    other.mkdir(exist_ok=True)
    for file in cnn.folder.glob("*.onnx"):
        (other / file.name).unlink(missing_ok=True)
        (other / file.name).symlink_to(file)
    (other / "cnn.json").write_text(manifest)
    with server_process(other) as (_, port), Run(engine, f"localhost:{port}", CUT) as run:
        pass
    assert run.answered()["server"] == 0
    assert run.answered()["device"] >= 38
    assert any("FAILED_PRECONDITION" in (r.error or "") for r in run.records)


@on_time
def test_a_wrong_token_is_refused_said_and_answered_locally(cnn, engine, tmp_path):
    token = tmp_path / "token"
    token.write_text("right-and-long-enough-to-be-one")
    options = ("--token-file", str(token))
    with server_process(cnn.folder, *options) as (_, port):
        with Run(engine, f"localhost:{port}", CUT, safety=Credentials(token="wrong")) as run:
            pass
        with Run(engine, f"localhost:{port}", CUT, safety=Credentials(token=token.read_text())) as trusted:
            pass
    assert run.answered()["server"] == 0
    assert run.answered()["device"] >= 38
    assert "UNAUTHENTICATED" in run.device.breaker.reason
    assert trusted.answered()["server"] >= 36


@on_time
@pytest.mark.parametrize("decision", [f"{first}>{then}" for first in FIRST for then in ("cloud", SECOND)])
def test_in_three_tiers_frames_go_on_and_both_hops_are_seen(cnn, engine, middle, decision):
    _, table = points_of_three(cnn.partitions)
    with (
        Link(steady(5.0), ("127.0.0.1", middle), rtt_s=0.06) as first,
        Run(engine, "{}:{}".format(*first.address), table.row(decision), table=table) as run,
    ):
        pass
    assert run.answered()["server"] >= 36
    last = next(r for r in run.records if r.frame == 39)
    assert last.decision == decision
    assert 0.025 < last.state["hop2_rtt_s"] < 0.060
    assert 0.055 < last.state["rtt_s"] < 0.090, "the receipt tells of the first hop alone"
    assert last.hop2_s > 0.03


@on_time
def test_a_second_hop_that_is_gone_is_told_from_the_first(cnn, engine):
    """The middle server answers by itself, and what the device believes of its own link stays well."""
    _, table = points_of_three(cnn.partitions)
    with (
        server_process(cnn.folder, "--next", "localhost:1") as (_, port),
        Run(engine, f"localhost:{port}", table.row(f"{FIRST[1]}>cloud"), table=table) as run,
    ):
        pass
    last = max(run.records, key=lambda r: r.frame)
    assert last.state["hop2_stalled_s"] > 0.3
    assert last.state["stalled_s"] == 0.0
    assert last.breaker == "closed"


@on_time
def test_where_nothing_goes_on_probes_tell_of_the_second_hop(cnn, engine, middle):
    _, table = points_of_three(cnn.partitions)
    with Run(engine, f"localhost:{middle}", table.row("device-c0.25"), table=table, frames=60) as run:
        pass
    last = max(run.records, key=lambda r: r.frame)
    assert 0.025 < last.state["hop2_rtt_s"] < 0.060
    assert last.state["hop2_since_sent_s"] < 1.2


@on_time
def test_a_device_that_stays_local_sees_the_link_by_its_probes(engine, port):
    with (
        Link(steady(1.0), ("127.0.0.1", port), rtt_s=0.04) as link,
        Run(engine, "{}:{}".format(*link.address), LOCAL, 80) as run,
    ):
        pass
    last = run.records[-1].state
    assert run.answered()["device"] >= 76
    assert last["goodput"] == pytest.approx(125_000, rel=0.35)
    assert last["rtt_s"] == pytest.approx(0.04, abs=0.015)


@on_time
def test_a_hiccup_of_this_machine_is_made_good_by_the_pace(engine):
    """A device exactly as busy as its period would carry it along for ever."""
    with Run(engine, "localhost:1", LOCAL, 30, Demand(fps=50, deadline_s=0.25)) as run:
        head, late = run.device.engine.head, iter([False] * 5 + [True] + [False] * 30)

        def sometimes_late(*frame):
            if next(late):
                time.sleep(0.035)
            return head(*frame)

        run.device.engine = SimpleNamespace(cnn=engine.cnn, head=sometimes_late)
    waited = {r.frame: r.waited_s for r in run.records}
    assert [waited[k] for k in range(10, 30)] == pytest.approx([0.0] * 20, abs=1e-6)


@pytest.mark.parametrize("gone_s", [1.0, 24.0])
@on_time
def test_back_to_offloading_within_a_second_of_the_links_return(engine, port, gone_s, monkeypatch):
    """The longer outage lets all beliefs fade. With gRPC's defaults, a connection would be given up after 20 s."""
    monkeypatch.setattr(estimator, "BASE_S", UNKNOWN_AGE_S)  # instead of 30 s
    frames = int((gone_s + 3.0) * DEMAND.fps)
    with Link(steady(10.0), ("127.0.0.1", port), rtt_s=0.02) as link:
        with Run(engine, "{}:{}".format(*link.address), CUT, frames) as run:
            run.wait_for(int(1.0 * DEMAND.fps))
            link.blackhole(True)
            time.sleep(gone_s)
            link.blackhole(False)
            back_s = run.device.now_s()
        first = min(r.arrival_s for r in run.records if r.answered_by == "server" and r.arrival_s > back_s)
    assert first - back_s < 1.0
    missed = run.answered()["miss"]
    assert missed <= 8, f"{missed} of {frames} frames were missed"


@pytest.mark.parametrize("stroke", ["reset", "half_close"])
@on_time
def test_a_connection_that_breaks_mid_message_costs_no_frame_its_answer(engine, port, stroke):
    with Link(steady(0.5), ("127.0.0.1", port), rtt_s=0.02) as link:
        with Run(engine, "{}:{}".format(*link.address), OFFLOAD, 70) as run:
            run.wait_for(20)
            getattr(link, stroke)()
            back_s = run.device.now_s()
        first = min(r.arrival_s for r in run.records if r.answered_by == "server" and r.arrival_s > back_s + 0.06)
    assert first - back_s < 1.5
    assert run.answered()["miss"] <= 4


@on_time
def test_a_server_that_is_frozen_for_seconds(cnn, engine):
    """Far longer than the breaker's and gRPC's longest back-off, and than gRPC takes to give a connection up."""
    with server_process(cnn.folder) as (process, port), Run(engine, f"localhost:{port}", CUT, 7 * 20) as run:
        run.wait_for(20)
        process.send_signal(signal.SIGSTOP)
        time.sleep(4.0)
        process.send_signal(signal.SIGCONT)
        back_s = run.device.now_s()
    first = min(r.arrival_s for r in run.records if r.answered_by == "server" and r.arrival_s > back_s)
    assert first - back_s < 1.0
    assert run.answered()["miss"] <= 8


@on_time
def test_simulated_and_emulated_latencies_agree(engine, port):
    """A short version of benchmarks/emulated.py: the simulator replays what the runtime decided."""
    rng = np.random.default_rng(3)
    times = np.arange(0.0, 20.0, 0.5)
    trace = Trace("varied", times, 20.0, 1e6 * np.exp(rng.normal(0.0, 0.6, len(times))))
    demand = Demand(fps=30, deadline_s=0.25)
    offset = []
    with Link(trace, ("127.0.0.1", port), rtt_s=0.06) as link:
        run = Run(
            engine, "{}:{}".format(*link.address), OFFLOAD, 150, demand, started=lambda: offset.append(link.now_s())
        )  # fmt: skip
        with run:
            pass
    compared = agreement([r.as_json() for r in run.records], trace, run.table, demand, offset[0])
    assert compared.n == 150
    assert compared.median < 0.10, compared
    assert compared.p95 < 0.20, compared

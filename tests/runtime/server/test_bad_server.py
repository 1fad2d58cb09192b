"""A server with wrong answers: none is believed, and each frame still ends once."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

from tests.memory import live_mib
from tests.runtime.deployed import CLASSES, points
from tests.runtime.device.test_loop import CUT, Run
from tests.runtime.punctual import on_time
from tidesplit.envs.world.vocabulary import Demand
from tidesplit.runtime.device.engine import Engine
from tidesplit.runtime.wire.answers import FrameAnswer, ProbeAnswer, ServerTiming, build_answer, build_probe_answer
from tidesplit.runtime.wire.messages import PROBE, read_request
from tidesplit.runtime.wire.protocol import METHODS, SERVICE

GOOD = np.zeros(len(CLASSES), dtype=np.float32)


def nan(message):
    raw = np.full(len(CLASSES), np.nan, dtype="<f4").tobytes()
    message.raw_output_contents[0] = raw


def wrong_shape(message):
    message.outputs[0].shape[1] = len(CLASSES) + 1


def short(message):
    message.raw_output_contents[0] = b"\x00" * 4


def wrong_id(message):
    message.id = "9999"


def wrong_model(message):
    message.model_name = "another-p1"


def no_output(message):
    del message.outputs[:]


def no_time(message):
    message.parameters["received_s"].double_param = float("inf")


def late(_message):
    time.sleep(0.6)


@pytest.fixture
def served(cnn):
    """Starts a server that spoils its answers to frames in a given way, and not those to probes."""
    running = []

    def serve(spoil):
        method = METHODS["ModelInfer"]

        def infer(message, _context):
            if message.model_name == PROBE:
                return build_probe_answer(message.id, ProbeAnswer(time.perf_counter(), 0.0))
            request = read_request(message, cnn.name, cnn.version, cnn.form)
            answer = build_answer(
                request, FrameAnswer(request.frame, GOOD, ServerTiming(time.perf_counter(), 0.0, 0.001)), cnn.form
            )
            spoil(answer)
            return answer

        handler = grpc.unary_unary_rpc_method_handler(
            infer, method.request.FromString, method.response.SerializeToString
        )
        server = grpc.server(ThreadPoolExecutor(8))
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"ModelInfer": handler}),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        running.append(server)
        return f"127.0.0.1:{port}"

    yield serve
    for server in running:
        server.stop(None).wait(5)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (nan, "not finite"),
        (wrong_shape, "shape"),
        (short, "bytes of outputs"),
        (wrong_id, "id"),
        (wrong_model, "model"),
        (no_output, "number of outputs"),
        (no_time, "received_s"),
    ],
)
@on_time
def test_a_wrong_answer_is_not_believed(cnn, served, spoil, words):
    profile, _ = points(cnn.partitions)
    with Run(Engine(cnn, profile.points), served(spoil), CUT, 20) as run:
        pass
    by = Counter(r.answered_by for r in run.records)
    assert by["server"] == 0
    assert by["device"] >= 18
    told = [r.error for r in run.records if r.error]
    assert told
    assert all("cannot be believed" in text and words in text for text in told)


@on_time
def test_answers_that_come_late_are_finished_by_the_device(cnn, served):
    profile, _ = points(cnn.partitions)
    with Run(Engine(cnn, profile.points), served(late), CUT, 30) as run:
        pass
    by = Counter(r.answered_by for r in run.records)
    assert by["server"] == 0
    assert by["device"] >= 28


@on_time
def test_a_fallback_that_breaks_loses_its_frame_and_no_other(cnn, served, monkeypatch):
    """Answers come late and the device's finish fails. Such frames are misses with a reason, and nothing hangs."""
    profile, _ = points(cnn.partitions)
    engine = Engine(cnn, profile.points)

    def fails(_point, _feature):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(engine, "finish", fails)
    with Run(engine, served(late), CUT, 30) as run:
        pass
    broken = [r for r in run.records if r.error and "out of memory" in r.error]
    assert broken
    assert all(r.answered_by == "miss" for r in broken)


def test_memory_does_not_grow_over_thousands_of_frames(cnn, served):
    """Frames of all kinds: answered, refused, and those dropped where the machine is too busy for the rate."""
    if live_mib() is None:
        pytest.skip("this C library does not tell what is allocated")

    def spoil(message):
        if int(message.id) % 7 == 0:
            nan(message)

    sizes, seen, kinds = [], Counter(), Counter()

    def watch(record):
        seen[record.frame] += 1
        kinds["dropped" if record.dropped else record.answered_by] += 1
        if record.frame % 100 == 0:
            sizes.append(live_mib())

    profile, _ = points(cnn.partitions)
    demand = Demand(fps=250, deadline_s=0.2)
    with Run(Engine(cnn, profile.points), served(spoil), CUT, 3_000, demand, paced=False, sink=watch):
        pass
    assert len(seen) == 3_000
    assert set(seen.values()) == {1}
    assert kinds["server"], kinds
    early, last = (statistics.median(some) for some in (sizes[5:10], sizes[-5:]))  # how many are in flight varies
    assert last - early < 4.0, sizes

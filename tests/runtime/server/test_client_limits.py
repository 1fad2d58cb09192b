"""One device cannot starve others: rates and shares as tables, turns in the queue, and a real server."""

from __future__ import annotations

import itertools
import threading
import time
import urllib.request
from collections import Counter
from dataclasses import replace
from typing import Any

import grpc
import pytest

from tests.runtime.servers import LIMIT_S, Client, ServerThread, cut_frame
from tidesplit.compression.codec.knobs import PASSED_ON, Knobs
from tidesplit.runtime.cnn import Cnn
from tidesplit.runtime.core.sending import Failure
from tidesplit.runtime.device.client import GrpcClient
from tidesplit.runtime.server.client_limits import ClientLimits, client_of, device_of
from tidesplit.runtime.server.fair_queue import Job, Queue
from tidesplit.runtime.server.serving import ServerOptions
from tidesplit.runtime.server.tails import Tails
from tidesplit.runtime.wire.messages import build_probe, build_request
from tidesplit.runtime.wire.refusals import PUSHBACK, RefusedError, read_pushback_s
from tidesplit.runtime.wire.stream_place import DEVICE_METADATA

CUT = Knobs(1, 0.5, 1.0, 8)


@pytest.mark.parametrize(
    ("metadata", "peer", "client"),
    [
        ([("a", "b"), (DEVICE_METADATA, "cam-1")], "ipv4:10.0.0.7:5123", "device cam-1"),
        (None, "ipv4:10.0.0.7:5123", "ipv4:10.0.0.7"),
        ([], "ipv6:%5B::1%5D:5123", "ipv6:%5B::1%5D"),
        ([(DEVICE_METADATA, "x" * 5000)], "", "device " + "x" * 64),
    ],
)
def test_a_client_is_a_device_or_an_address(metadata: Any, peer: str, client: str) -> None:
    assert client_of(device_of(metadata), peer) == client


def admitted(limits: ClientLimits, fps: float, seconds: float, start_s: float = 0.0) -> tuple[int, list[float]]:
    """Requests that were admitted, and the pauses that the others were asked for."""
    good, pauses = 0, []
    for k in range(int(fps * seconds)):
        try:
            limits.check_rate("a", start_s + k / fps)
            good += 1
        except RefusedError as error:
            pauses.append(error.pushback_s)
    return good, pauses


# Limit, frames a second, seconds -> requests admitted at least and at most: the burst of two seconds comes on top.
@pytest.mark.parametrize(
    ("rate", "fps", "seconds", "least", "most"),
    [(30.0, 30.0, 20.0, 600, 600), (0.0, 1000.0, 3.0, 3000, 3000), (30.0, 60.0, 20.0, 560, 660),
     (0.5, 10.0, 20.0, 9, 11), (0.05, 1.0, 60.0, 3, 4)],
)  # fmt: skip
def test_rate(rate: float, fps: float, seconds: float, least: int, most: int) -> None:
    good, pauses = admitted(ClientLimits(99, rate), fps, seconds)
    assert least <= good <= most
    assert all(0.0 < pause <= max(2.0, 1.0 / rate) for pause in pauses)
    assert bool(pauses) == (good < fps * seconds)


def test_a_pause_that_is_kept_ends_when_it_said() -> None:
    limits = ClientLimits(99, 30.0)
    _, pauses = admitted(limits, 1000.0, 0.1)
    again, none = admitted(limits, 30.0, 5.0, start_s=0.1 + pauses[-1])
    assert (again, none) == (150, [])


def test_shares_and_what_is_remembered() -> None:
    limits = ClientLimits(2)
    for name in ("a", "a", "b"):
        assert limits.over_share(name, 0.3) is None
        limits.enter(name, 0.0)
    refusal = limits.over_share("a", 0.3)
    assert refusal is not None
    assert str(refusal) == "2 requests of this device are under way, its share here"
    assert (refusal.limit, refusal.metadata) == ("share", ((PUSHBACK, "300"),))
    limits.leave("a")
    assert limits.over_share("a", 0.3) is None
    limits.enter("a", 0.0)
    for name in ("a", "a", "b"):
        limits.leave(name)
    assert len(limits) == 0
    rated = ClientLimits(2, rate=5.0)
    for number in range(100):
        rated.check_rate(f"made up {number}", 0.0)
    rated.check_rate("later", 10.0)
    assert len(rated) == 1


# Clients in the order of arrival -> in the order of being served, one at a time.
TURNS = [
    ("aaaa", "aaaa"),
    ("aaaabb", "ababaa"),
    ("aaabbcc", "abcabca"),
    ("aab", "aba"),
]


@pytest.mark.parametrize(("came", "served"), TURNS)
def test_clients_take_turns(came: str, served: str) -> None:
    queue = Queue(limit=16)
    jobs = [Job("k", n, 0.0, 9.0, client=name) for n, name in enumerate(came)]
    assert all(queue.put(job) for job in jobs)
    order = [job for _ in came for job in queue.take(0.0, lambda _: 1)[0]]
    assert "".join(job.client for job in order) == served
    for name in set(came):
        mine = [job.item for job in order if job.client == name]
        assert mine == sorted(mine), "each client's own order stays"


def test_nobody_saves_up_turns() -> None:
    queue = Queue(limit=64)
    for n in range(20):
        queue.put(Job("k", n, 0.0, 9.0, client="a"))
    for _ in range(10):
        queue.take(0.0, lambda _: 1)
    for n in range(3):
        queue.put(Job("k", n, 0.0, 9.0, client="late"))
    order = "".join(queue.take(0.0, lambda _: 1)[0][0].client[0] for _ in range(6))
    assert Counter(order) == {"a": 3, "l": 3}


def test_a_client_that_was_refused_goes_first_once_and_only_if_none_of_its_jobs_wait() -> None:
    queue = Queue(limit=16)
    for name in "ab":
        queue.put(Job("k", 0, 0.0, 9.0, client=name))
    for name in "ac":
        queue.owe(name)
    assert (len(queue.ahead("a")), len(queue.ahead("c")), len(queue.ahead("d"))) == (2, 0, 2)
    for name in "cc":
        queue.put(Job("k", 0, 0.0, 9.0, client=name))
    assert "".join(queue.take(0.0, lambda _: 1)[0][0].client for _ in range(4)) == "cabc"


def test_the_newest_job_of_whom_has_most_makes_room() -> None:
    queue = Queue(limit=4)
    for n, name in enumerate("aaab"):
        queue.put(Job("k", n, 0.0, 9.0, client=name))
    assert queue.displaced("a") is None
    found = queue.displaced("b")
    assert found is not None
    assert (found.client, found.item) == ("a", 2)
    assert queue.displaced("b") is None, "a has two now, and b would have as many"
    assert queue.put(Job("k", 4, 0.0, 9.0, client="b"))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250", 0.25), ("0", 0.0), ("-1", 0.0), ("x", 0.0), ("", 0.0), ("9" * 9, 60.0), ("9" * 99, 0.0), ("٣", 0.0)],
)
def test_pushbacks_that_could_be_meant(text: str, seconds: float) -> None:
    assert read_pushback_s([("other", "1"), (PUSHBACK, text)]) == seconds
    assert read_pushback_s(None) == 0.0


def test_the_device_gets_reason_and_pause(cnn: Cnn) -> None:
    with ServerThread(cnn, ServerOptions(client_rate=1.0)) as server, GrpcClient(server.address, cnn) as client:
        got: list[Any] = []
        for _ in range(3):
            came = threading.Event()
            client.probe(8, LIMIT_S, lambda answer, came=came: (got.append(answer), came.set()))  # type: ignore[misc]
            assert came.wait(LIMIT_S)
    failure = got[-1]
    assert isinstance(failure, Failure)
    assert failure.reason == "RESOURCE_EXHAUSTED: more than 1 requests a second from this device, the limit here"
    assert 0.5 < failure.pause_s <= 1.0
    assert not failure.lasts


def test_a_flood_of_one_device_costs_another_no_frame(cnn: Cnn) -> None:
    """One device always has more requests under way than there are places. Another one's frames are all answered."""
    frame = cut_frame(cnn, CUT).request
    ended: Counter[str] = Counter()
    over, slots = threading.Event(), threading.Semaphore(100)
    options = ServerOptions(max_concurrent=4, max_batch=1, metrics_port=0)  # few places, so that any machine fills them
    with ServerThread(cnn, options) as server, Client(server.address) as greedy, Client(server.address) as modest:

        def done(call: Any) -> None:
            ended.update([call.code().name])
            slots.release()

        def flood() -> None:
            while not over.is_set() and slots.acquire(timeout=LIMIT_S):
                call = greedy.stub("ModelInfer").future(
                    build_request(frame), timeout=2.0, metadata=((DEVICE_METADATA, "greedy"),)
                )
                call.add_done_callback(done)

        thread = threading.Thread(target=flood)
        thread.start()
        number, end_s = 0, time.monotonic() + LIMIT_S
        while (ended["RESOURCE_EXHAUSTED"] < 20 or number < 20) and time.monotonic() < end_s:
            message = build_request(replace(frame, frame=str(number := number + 1)))
            modest.stub("ModelInfer")(message, timeout=LIMIT_S, metadata=((DEVICE_METADATA, "modest"),))
        over.set()
        thread.join()
        assert ended["RESOURCE_EXHAUSTED"] >= 20, "the flood was never refused"
        with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics", timeout=LIMIT_S) as page:
            text = page.read().decode()
    assert 'tidesplit_limited_total{limit="share"}' in text
    assert "tidesplit_clients " in text


def test_a_full_server_has_room_for_a_device_that_has_none_yet(cnn: Cnn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two greedy devices fill it. A third one's frame displaces one of theirs, and the sender hears why."""
    frame, run = cut_frame(cnn, CUT).request, Tails.run

    def slowly(*given: Any) -> Any:
        time.sleep(0.02)  # a frame that is computed but not yet answered has no place in the queue to give away
        return run(*given)

    monkeypatch.setattr(Tails, "run", slowly)
    options = ServerOptions(max_concurrent=8, max_batch=1, longest_wait_ms=1e4)
    with ServerThread(cnn, options) as server, Client(server.address) as client:
        stub = client.stub("ModelInfer")
        for _ in range(20):
            calls = [
                stub.future(build_request(frame), timeout=LIMIT_S, metadata=((DEVICE_METADATA, name),))
                for name in itertools.chain("ab" * 5, "c")
            ]
            assert calls[-1].code() is grpc.StatusCode.OK
            if refused := [call for call in calls if "most of the frames that wait" in (call.details() or "")]:
                assert 0.1 <= read_pushback_s(refused[0].trailing_metadata()) <= 1.0
                return
    pytest.skip("this machine is too quick to be full")


def test_probes_count_too(cnn: Cnn) -> None:
    with ServerThread(cnn, ServerOptions(client_rate=2.0)) as server, Client(server.address) as client:
        codes = []
        for number in range(6):
            try:
                client.call("ModelInfer", build_probe(str(number), bytes(8)))
                codes.append("OK")
            except grpc.RpcError as error:
                codes.append(error.code().name)  # type: ignore[attr-defined]
    assert codes == ["OK"] * 4 + ["RESOURCE_EXHAUSTED"] * 2


def test_the_middle_server_says_whose_frame_it_sends_on(cnn: Cnn) -> None:
    """The next server's limit of one request in ten seconds holds for each device, and not for all of the middle's."""
    frame = replace(cut_frame(cnn, CUT).request, next_point=PASSED_ON)
    with (
        ServerThread(cnn, ServerOptions(client_rate=0.1)) as last,
        ServerThread(cnn, ServerOptions(next_address=last.address)) as middle,
        Client(middle.address) as client,
    ):

        def fell_back(device: str) -> str:
            answer = client.stub("ModelInfer")(
                build_request(frame), timeout=LIMIT_S, metadata=((DEVICE_METADATA, device),)
            )
            return str(answer.parameters["fell_back"].string_param) if "fell_back" in answer.parameters else ""

        first, again, other = fell_back("a"), fell_back("a"), fell_back("b")
    assert (first, other) == ("", "")
    assert again.startswith("RESOURCE_EXHAUSTED: more than 0.1 requests a second")

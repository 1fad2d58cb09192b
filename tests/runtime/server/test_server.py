"""A real server on loopback with real ONNX sessions: answers, refusals, batches, tiers, drain."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
import shutil
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.compression.codec.test_image_codec import animation, jpeg, lossless, plain
from tests.compression.codec.test_payload import bomb, forged
from tests.memory import forget_peak, memory_mib
from tests.runtime.deployed import server_process
from tests.runtime.servers import LIMIT_S, Client, ServerThread, cut_frame, for_one_frame, picture_frame
from tidesplit.compression.codec.image_codec import decode_image
from tidesplit.compression.codec.knobs import PASSED_ON, Knobs
from tidesplit.compression.codec.pixels import to_input
from tidesplit.envs.world.physics import World
from tidesplit.runtime.cnn import Cnn, load_cnn
from tidesplit.runtime.server import __main__ as server
from tidesplit.runtime.server.serving import ServerOptions
from tidesplit.runtime.server.tails import Item, Tails
from tidesplit.runtime.wire.answers import FrameAnswer, ProbeAnswer, read_answer, read_probe_answer, read_receipt
from tidesplit.runtime.wire.messages import Request, build_probe, build_request, model_name
from tidesplit.runtime.wire.protocol import MAX_MESSAGE_BYTES, MESSAGES, METHODS

EXAMPLES = int(os.environ.get("TIDESPLIT_EXAMPLES", "200"))
CUT = Knobs(1, 0.5, 1.0, 8)
ONWARD = Knobs(2, 1.0, 1.0, 8)


@pytest.fixture(scope="module")
def served(cnn: Cnn) -> Iterator[ServerThread]:
    with ServerThread(cnn, ServerOptions(threads=2, metrics_port=0)) as running:
        yield running


@pytest.fixture
def client(served: ServerThread) -> Iterator[Client]:
    with Client(served.address) as opened:
        yield opened


def stream(client: Client) -> Any:
    """The call as a stream of one message, for which gRPC hands out the initial metadata before the message."""
    method = METHODS["ModelInfer"]
    return client.channel.unary_stream(method.path, method.request.SerializeToString, method.response.FromString)


def ask(client: Client, request: Request, cnn: Cnn) -> FrameAnswer:
    return read_answer(client.call("ModelInfer", build_request(request)), request, cnn.form)


def refusal(client: Client, message: Any) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        client.call("ModelInfer", message)
    return caught.value.code().name, caught.value.details()


def test_picture_gets_the_logits_of_a_local_run(client: Client, cnn: Cnn) -> None:
    frame = picture_frame(cnn)
    answer = ask(client, frame.request, cnn)
    np.testing.assert_allclose(answer.logits, frame.logits, rtol=1e-5, atol=1e-5)
    assert answer.timing.compute_s > 0.0


@pytest.mark.parametrize("knobs", [CUT, ONWARD, Knobs(1, 1.0, 0.5, 1)])
def test_feature_gets_the_logits_of_a_local_run(client: Client, cnn: Cnn, knobs: Knobs) -> None:
    frame = cut_frame(cnn, knobs, number=3)
    np.testing.assert_allclose(ask(client, frame.request, cnn).logits, frame.logits, rtol=1e-5, atol=1e-5)


def test_metadata_and_readiness(client: Client, cnn: Cnn) -> None:
    assert client.call("ServerLive", MESSAGES["ServerLiveRequest"]()).live
    assert client.call("ServerReady", MESSAGES["ServerReadyRequest"]()).ready
    assert client.call("ServerMetadata", MESSAGES["ServerMetadataRequest"]()).name == "tidesplit"
    name = model_name(cnn.name, 1)
    assert client.call("ModelReady", MESSAGES["ModelReadyRequest"](name=name)).ready
    told = client.call("ModelMetadata", MESSAGES["ModelMetadataRequest"](name=name))
    assert (told.name, list(told.versions)) == (name, [cnn.version])
    assert [(t.name, t.datatype, list(t.shape)) for t in (*told.inputs, *told.outputs)] == [
        ("payload", "UINT8", [-1]), ("logits", "FP32", [1, len(cnn.classes)]),
    ]  # fmt: skip
    with pytest.raises(grpc.RpcError, match="no partition 9 here"):
        client.call("ModelReady", MESSAGES["ModelReadyRequest"](name=model_name(cnn.name, 9)))


def test_health(client: Client) -> None:
    stub = health_pb2_grpc.HealthStub(client.channel)
    answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=LIMIT_S)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_probe_is_answered_at_once(client: Client) -> None:
    wait_s = read_probe_answer(client.call("ModelInfer", build_probe("5", bytes(1 << 16))), "5").wait_s
    assert wait_s == 0.0


def test_refusals_have_a_status_and_a_sentence(client: Client, cnn: Cnn) -> None:
    good = cut_frame(cnn, CUT).request
    damaged = bytearray(good.payload)
    damaged[-1] ^= 1
    table = [
        (
            replace(good, version="f" * 16),
            "FAILED_PRECONDITION",
            "weights 'ffffffffffffffff' received, this server has",
        ),
        (replace(good, partition=9), "NOT_FOUND", "no partition 9 here, expected one of (0, 1, 2)"),
        (replace(good, cnn="vgg"), "NOT_FOUND", "no model 'vgg-p1' here"),
        (replace(good, partition=2), "INVALID_ARGUMENT", "payload of partition 1 sent to the model of 2"),
        (replace(good, payload=bytes(damaged)), "INVALID_ARGUMENT", "checksum does not match"),
        (replace(good, payload=b"x"), "INVALID_ARGUMENT", "payload has 1 bytes"),
        (replace(good, partition=0, payload=b"GIF89a"), "INVALID_ARGUMENT", "not a JPEG or WebP picture"),
        (replace(good, payload=bytes(1 << 17)), "INVALID_ARGUMENT", "payload of 131072 bytes, expected 1 to 65536"),
        (replace(good, partition=0, payload=bytes(2 << 20)), "RESOURCE_EXHAUSTED", "larger than max"),
        (replace(good, next_point="p9"), "INVALID_ARGUMENT", "'p9' received, an inner cut such as"),
        (replace(good, next_point="p1-c1.00-r1.00-b2"), "INVALID_ARGUMENT", "an inner cut after 1 is expected"),
    ]
    for request, code, sentence in table:
        found = refusal(client, build_request(request))
        assert found[0] == code
        assert sentence in found[1]


def test_metrics(served: ServerThread, client: Client, cnn: Cnn) -> None:
    ask(client, cut_frame(cnn, CUT).request, cnn)
    refusal(client, build_request(replace(cut_frame(cnn, CUT).request, payload=b"x")))
    with urllib.request.urlopen(f"http://127.0.0.1:{served.metrics_port}/metrics", timeout=LIMIT_S) as page:
        text = page.read().decode()
    for expected in (
        'tidesplit_answers_total{fell_back="false",partition="1"}',
        'tidesplit_refused_total{code="INVALID_ARGUMENT",partition="1"}',
        'tidesplit_seconds_count{part="wait",partition="1"}',
        'tidesplit_batch_size_count{model="tail-p1"}',
        "tidesplit_waiting 0.0",
        "tidesplit_under_way 0.0",
    ):
        assert expected in text


def test_configuration_statistics_and_index_as_triton_has_them(cnn: Cnn) -> None:
    frame = cut_frame(cnn, CUT)
    name = f"{cnn.name}-p1"
    with ServerThread(cnn, ServerOptions()) as running, Client(running.address) as client:
        for _ in range(3):
            ask(client, frame.request, cnn)
        client.call("ModelInfer", build_probe("0", bytes(8)))
        with pytest.raises(grpc.RpcError):
            client.call("ModelInfer", build_request(replace(frame.request, payload=b"x")))
        config = client.call("ModelConfig", MESSAGES["ModelConfigRequest"](name=name)).config
        (one,) = client.call("ModelStatistics", MESSAGES["ModelStatisticsRequest"](name=name)).model_stats
        every = client.call("ModelStatistics", MESSAGES["ModelStatisticsRequest"]()).model_stats
        index = client.call("RepositoryIndex", MESSAGES["RepositoryIndexRequest"]()).models
        for call in ("ModelConfig", "ModelStatistics"):
            with pytest.raises(grpc.RpcError) as caught:
                client.call(call, MESSAGES[f"{call}Request"](name="nobody"))
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert (config.name, config.max_batch_size, list(config.input[0].dims)) == (name, 0, [-1])
    assert list(config.output[0].dims) == [1, len(cnn.classes)]
    times = one.inference_stats
    assert (one.version, one.inference_count, times.success.count, times.fail.count) == ("1", 3, 3, 1)
    assert times.success.ns >= times.compute_infer.ns > 0
    assert 3 <= one.execution_count <= 4, "the refused payload was a batch of its own"
    assert abs(one.last_inference / 1e3 - time.time()) < 60.0
    assert {stats.name: stats.inference_count for stats in every}["probe"] == 1
    assert {(model.name, model.state) for model in index} >= {(name, "READY"), ("probe", "READY")}


def test_classes_listed_numbers_and_a_batch_of_one(cnn: Cnn, client: Client) -> None:
    """As KServe's and Triton's clients send them."""
    frame = cut_frame(cnn, CUT)
    message = build_request(frame.request)
    message.inputs[0].contents.uint_contents.extend(message.raw_input_contents[0])
    with pytest.raises(grpc.RpcError, match="raw_input_contents and contents received"):
        client.call("ModelInfer", message)
    del message.raw_input_contents[:]
    message.inputs[0].shape.insert(0, 1)
    message.outputs.add(name="logits").parameters["classification"].int64_param = 1
    answer = client.call("ModelInfer", message)
    best = int(np.argmax(frame.logits))
    assert answer.outputs[0].datatype == "BYTES"
    assert answer.raw_output_contents[0][4:].decode().split(":")[1:] == [str(best), cnn.classes[best]]


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_bytes_get_an_answer_or_a_typed_status(client: Client, cnn: Cnn, data: st.DataObject) -> None:
    """TIDESPLIT_EXAMPLES=100000 runs more."""
    sound = build_request(Request(cnn.name, data.draw(st.integers(0, 3)), "", "1", data.draw(st.binary(max_size=80))))
    raw = bytearray(sound.SerializeToString())
    for _ in range(data.draw(st.integers(0, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with pytest.raises(grpc.RpcError) as caught:
        client.raw(bytes(raw))
    assert caught.value.code().name in ("INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION")
    assert caught.value.details()


def test_hostile_messages_get_no_memory(cnn: Cnn) -> None:
    """A hundred hostile messages of 1 MB, four at a time: the process grows by 64 MiB at most.

    One message that is obeyed would take 256 MiB or more.
    """
    sound = (picture_frame(cnn).request, cut_frame(cnn, CUT).request)
    bombs = [replace(sound[1], payload=forged(0xAB, 0x10 | second, bomb(1 << 28), 0x5A5A)) for second in range(16)]
    canvases = [replace(sound[0], payload=make(16_383, 16_383)) for make in (animation, plain, lossless, jpeg)]
    noise = [replace(sound[0], payload=np.random.default_rng(k).bytes(MAX_MESSAGE_BYTES - 1000)) for k in range(8)]
    hostile = [build_request(r).SerializeToString() for r in (*bombs, *canvases, *noise)]
    hostile += [b"\x2a\x00" * (MAX_MESSAGE_BYTES // 2 - 8), b"\x32" + b"\xff" * 9 + b"\x01"]
    with server_process(cnn.folder) as (process, port), Client(f"127.0.0.1:{port}") as client:
        for request in sound * 20:
            ask(client, request, cnn)
        forget_peak(process.pid)  # of loading models
        before = memory_mib(process.pid, "VmRSS")

        def refused(data: bytes) -> str:
            with pytest.raises(grpc.RpcError) as caught:
                client.raw(data)
            return str(caught.value.code().name)

        with ThreadPoolExecutor(4) as pool:
            codes = set(pool.map(refused, hostile * 5))
        taken = memory_mib(process.pid, "VmHWM") - before
    assert codes == {"INVALID_ARGUMENT"}
    assert taken < 64.0


@pytest.mark.parametrize("payload", [b"x", bytes(900)])
def test_a_refused_message_is_freed_at_once(cnn: Cnn, client: Client, payload: bytes) -> None:
    """Not only when Python looks for circular garbage, which can be hundreds of messages of 1 MB later."""
    kind = MESSAGES["ModelInferRequest"]
    data = build_request(replace(picture_frame(cnn).request, payload=payload)).SerializeToString()
    gc.collect()
    before = sum(type(o) is kind for o in gc.get_objects())  # of other tests
    gc.disable()
    try:
        for _ in range(3):
            with pytest.raises(grpc.RpcError):
                client.raw(data)
        end_s = time.monotonic() + LIMIT_S
        while (left := sum(type(o) is kind for o in gc.get_objects())) > before and time.monotonic() < end_s:
            time.sleep(0.01)
    finally:
        gc.enable()
    assert left <= before


def test_a_frame_past_its_deadline_is_not_computed(client: Client, cnn: Cnn) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        client.call("ModelInfer", build_request(cut_frame(cnn, CUT).request), limit_s=-1.0)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_frames_of_one_partition_are_computed_together(cnn: Cnn, tmp_path: Path) -> None:
    folder = tmp_path / "cnn"
    shutil.copytree(cnn.folder, folder)
    for_one_frame(folder, "tail-p2")
    changed = hashlib.sha256((folder / "tail-p2.onnx").read_bytes()).hexdigest()
    stacked = replace(load_cnn(folder), files={**cnn.files, "tail-p2.onnx": changed})
    frames = [cut_frame(cnn, CUT, number) for number in range(5)]
    tails = Tails(stacked)
    assert (tails.limit("tail-p1") > 4, tails.limit("tail-p2")) == (True, 1)
    items = [Item(1, frame.request.payload) for frame in frames]
    results = tails.run("tail-p1", [*items[:2], Item(1, b"x"), *items[2:]])
    assert str(results.pop(2)).startswith("payload has 1 bytes")
    np.testing.assert_allclose(np.stack(results), [frame.logits for frame in frames], rtol=1e-4, atol=1e-4)
    options = ServerOptions(metrics_port=0, longest_wait_ms=1e4)
    with ServerThread(stacked, options) as running, Client(running.address) as client:
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda i: ask(client, frames[i % 5].request, cnn), range(60)))
        with urllib.request.urlopen(f"http://127.0.0.1:{running.metrics_port}/metrics", timeout=LIMIT_S) as page:
            text = page.read().decode()
    for i, answer in enumerate(answers):
        np.testing.assert_allclose(answer.logits, frames[i % 5].logits, rtol=1e-4, atol=1e-4)
    count = float(text.split('tidesplit_batch_size_count{model="tail-p1"} ')[1].split()[0])
    assert count < 60.0
    assert 'tidesplit_batch_size_sum{model="tail-p1"} 60.0' in text


def test_three_tiers(cnn: Cnn) -> None:
    frame = cut_frame(cnn, CUT, next_point=ONWARD.id)
    with (
        ServerThread(cnn, ServerOptions()) as last,
        ServerThread(cnn, ServerOptions(next_address=last.address)) as middle,
        Client(middle.address) as client,
    ):
        answer = ask(client, frame.request, cnn)
    assert answer.next_timing is not None
    assert answer.next_timing.total_s >= answer.next_timing.compute_s > 0.0
    assert answer.fell_back == ""
    values, _ = cnn.codec.decode(frame.request.payload)
    _, y, score = cnn.session("middle-p1-p2").run(None, {"x": values[None]})
    again, _ = cnn.codec.decode(cnn.codec.encode(y[0], score[0, 0], ONWARD))
    expected = cnn.session("tail-p2").run(None, {"x": again[None]})[0][0]
    np.testing.assert_allclose(answer.logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("first", ["a picture", "a cut"])
def test_the_middle_server_passes_on_and_cuts_a_picture_too(cnn: Cnn, first: str) -> None:
    """A payload passed on gets the logits of the last server. Either way the middle server confirms it at once."""
    frame = picture_frame(cnn) if first == "a picture" else cut_frame(cnn, CUT)
    with (
        ServerThread(cnn, ServerOptions()) as last,
        ServerThread(cnn, ServerOptions(next_address=last.address)) as middle,
        Client(middle.address) as client,
    ):
        relayed = replace(frame.request, next_point=PASSED_ON)
        call = stream(client)(build_request(relayed), timeout=LIMIT_S)
        took = read_receipt(call.initial_metadata())
        answer = read_answer(next(call), relayed, cnn.form)
        assert took is not None
        assert took.received_s == answer.timing.received_s
        assert answer.next_timing is not None
        assert answer.next_timing.total_s >= answer.next_timing.rtt_s > 0.0
        np.testing.assert_allclose(answer.logits, frame.logits, rtol=1e-5, atol=1e-5)
        if first == "a picture":
            again = ask(client, replace(frame.request, next_point=ONWARD.id), cnn)
            assert again.next_timing is not None
            pixels = decode_image(frame.request.payload, cnn.input_px)
            _, y, score = cnn.session("head-p2-c1.00").run(None, {"x": to_input(pixels)})
            values, _ = cnn.codec.decode(cnn.codec.encode(y[0], score[0, 0], ONWARD))
            expected = cnn.session("tail-p2").run(None, {"x": values[None]})[0][0]
            np.testing.assert_allclose(again.logits, expected, rtol=1e-5, atol=1e-5)


def test_the_middle_server_probes_its_hop_when_asked(cnn: Cnn) -> None:
    """It answers at once; the probe's result comes with a later answer."""
    with (
        ServerThread(cnn, ServerOptions()) as last,
        ServerThread(cnn, ServerOptions(next_address=last.address)) as middle,
        Client(middle.address) as client,
    ):

        def probed(number: str, asks: bool) -> ProbeAnswer:
            return read_probe_answer(client.call("ModelInfer", build_probe(number, bytes(64), asks)), number)

        first, end_s = probed("0", True), time.monotonic() + LIMIT_S
        while (told := probed("1", False)).newest is None and time.monotonic() < end_s:
            time.sleep(0.01)
    assert first.newest is None, "nothing had crossed yet, and greetings do not count"
    assert told.newest is not None
    assert told.newest.rtt_s < LIMIT_S
    assert told.newest.payload == World().probe_bytes


def test_without_a_next_server_the_middle_server_answers_itself(
    cnn: Cnn, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    frame = cut_frame(cnn, CUT, next_point=ONWARD.id)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{closed.getsockname()[1]}"
        with ServerThread(cnn, ServerOptions(next_address=nobody)) as middle, Client(middle.address) as alone:
            answers = [ask(alone, frame.request, cnn) for _ in range(3)]
    answer = answers[-1]
    assert {answer.fell_back for answer in answers} == {"UNAVAILABLE: Connection refused"}
    assert [record.getMessage() for record in caplog.records] == [
        f"next server {nobody}: UNAVAILABLE: Connection refused"
    ]
    np.testing.assert_allclose(answer.logits, frame.logits, rtol=1e-5, atol=1e-5)
    assert ask(client, frame.request, cnn).fell_back == "no next server here"


def test_a_silent_next_server_takes_half_of_the_places(cnn: Cnn) -> None:
    """The middle server answers the other frames itself, with the reason, and still answers probes."""
    frame = cut_frame(cnn, CUT)
    onward = replace(frame.request, next_point=PASSED_ON)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        options = ServerOptions(next_address=f"127.0.0.1:{silent.getsockname()[1]}", max_concurrent=2)
        with ServerThread(cnn, options) as middle, Client(middle.address) as client:
            waiting = stream(client)(build_request(onward), timeout=LIMIT_S)
            assert read_receipt(waiting.initial_metadata()) is not None, "it waits for the next server from here on"
            answer = ask(client, onward, cnn)
            assert answer.fell_back == "1 frames wait for the next server, the limit here"
            np.testing.assert_allclose(answer.logits, frame.logits, rtol=1e-5, atol=1e-5)
            assert read_probe_answer(client.call("ModelInfer", build_probe("0", bytes(64))), "0").newest is None
            waiting.cancel()


def test_too_many_requests_are_refused(cnn: Cnn) -> None:
    frame = cut_frame(cnn, CUT)
    codes: list[str] = []
    with ServerThread(cnn, ServerOptions(max_concurrent=1)) as running, Client(running.address) as client:

        def one(_: int) -> None:
            try:
                ask(client, frame.request, cnn)
                codes.append("OK")
            except grpc.RpcError as error:
                codes.append(error.code().name)  # type: ignore[attr-defined]

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(one, range(100)))
        ask(client, frame.request, cnn)
    assert set(codes) == {"OK", "RESOURCE_EXHAUSTED"}


def test_process_drains_on_sigterm(cnn: Cnn) -> None:
    """A server that drains refuses new requests and answers all that it has accepted."""
    frame = cut_frame(cnn, CUT)
    ended: list[tuple[str, str]] = []

    def keep_asking(client: Client, answered: threading.Event) -> None:
        try:
            while True:
                ask(client, frame.request, cnn)
                answered.set()
        except grpc.RpcError as error:
            ended.append((error.code().name, error.details()))  # type: ignore[attr-defined]

    with contextlib.ExitStack() as stack:
        process, port = stack.enter_context(server_process(cnn.folder))
        clients = [stack.enter_context(Client(f"127.0.0.1:{port}")) for _ in range(6)]
        answered = [threading.Event() for _ in clients]
        asking = [
            threading.Thread(target=keep_asking, args=pair, daemon=True) for pair in zip(clients, answered, strict=True)
        ]
        for thread in asking:
            thread.start()
        assert all(event.wait(LIMIT_S) for event in answered)
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 0
        for thread in asking:
            thread.join(LIMIT_S)
    assert {code for code, _ in ended} == {"UNAVAILABLE"}, ended
    assert len(ended) == len(clients)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0 without TLS would send pictures and tokens in the clear"),
        (["--host", "http://localhost"], "--host http://localhost: a host without port and scheme expected"),
        (["--port", "70000"], "'70000' received, a whole number from 0 to 65535 expected"),
        (["--cnn", "nowhere"], "nowhere holds no CNN: it has no cnn.json"),
        (["--profile", "nobody"], "no trained CNN called 'nobody'"),
        (["--tls-cert", "x"], "--tls-cert and --tls-key belong together"),
        (["--client-ca", "x"], "--client-ca needs --tls-cert and --tls-key"),
        (["--token-file", "nowhere"], "--token-file nowhere: not a readable ASCII file"),
    ],
)
def test_wrong_options_are_one_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with contextlib.suppress(SystemExit):  # raised by argparse
        assert server.main(arguments) == 2
    assert sentence in capsys.readouterr().err


def test_options_that_need_the_models_are_one_sentence(
    cnn: Cnn, served: ServerThread, capsys: pytest.CaptureFixture[str]
) -> None:
    no_pem = str(cnn.folder / "cnn.json")
    taken = served.address.rsplit(":", 1)[1]
    for more, sentence in (
        (["--port", taken], "the port is taken"),
        (["--port", "0", "--metrics-port", str(served.metrics_port)], "cannot listen there"),
        (["--port", "0", "--next", "nowhere"], "--next nowhere: HOST:PORT expected"),
        (["--port", "0", "--next", "192.0.2.1:5"], "in the clear: give --next-ca, or --insecure"),
        (
            ["--port", "0", "--tls-cert", no_pem, "--tls-key", no_pem],
            "no PEM",
        ),
    ):
        assert server.main(["--cnn", str(cnn.folder), *more]) == 2
        assert sentence in capsys.readouterr().err

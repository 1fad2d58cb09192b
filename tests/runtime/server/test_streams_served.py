"""Streams of cuts and of video at a real server: answers, refusals, metrics."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest

from tests.runtime.deployed import with_memory
from tests.runtime.servers import LIMIT_S, Client, ServerThread
from tidesplit.compression.codec import video
from tidesplit.compression.codec.knobs import Knobs
from tidesplit.compression.codec.pixels import Pixels, natural_picture, to_input
from tidesplit.compression.codec.video import VideoDecoder, VideoEncoder
from tidesplit.runtime.cnn import Cnn
from tidesplit.runtime.server.serving import ServerOptions
from tidesplit.runtime.wire.answers import read_answer
from tidesplit.runtime.wire.messages import Request, build_request
from tidesplit.runtime.wire.stream_place import StreamPlace

KNOBS = (Knobs(1, 0.5, 1.0, 2), Knobs(1, 1.0, 1.0, 4), Knobs(1, 0.25, 1.0, 2))
VIDEO = "p0-h264-q30"


@pytest.fixture(scope="module")
def cnn(cnn: Cnn) -> Cnn:
    return with_memory(cnn)


@pytest.fixture(scope="module")
def served(cnn: Cnn) -> Iterator[ServerThread]:
    with ServerThread(cnn, ServerOptions(metrics_port=0, max_concurrent=4)) as running:
        yield running


@pytest.fixture
def client(served: ServerThread) -> Iterator[Client]:
    with Client(served.address) as opened:
        yield opened


def frames(cnn: Cnn, number: int) -> list[Pixels]:
    picture = natural_picture(cnn.input_px)
    return [np.roll(picture, k, axis=1) for k in range(number)]


def request(cnn: Cnn, payload: bytes, name: str, sequence: int, reference: int | None, device: str = "d") -> Request:
    place = StreamPlace(name, sequence, reference, device)
    return Request(cnn.name, int(name[1]), cnn.version, str(sequence), payload, place=place)


def cut_stream(cnn: Cnn, number: int, device: str = "d") -> list[tuple[Request, np.ndarray]]:
    """Requests whose settings change from frame to frame, and the logits expected."""
    made, memory = [], None
    for k, pixels in enumerate(frames(cnn, number)):
        knobs = KNOBS[k % len(KNOBS)]
        _, y, score = cnn.session(f"head-p1-c{knobs.ratio:.2f}").run(None, {"x": to_input(pixels)})
        before = memory
        payload, memory = cnn.codec.encode_next(y[0], score[0, 0], knobs, before)
        values, _, _ = cnn.codec.decode_next(payload, before)
        logits = cnn.session("tail-p1").run(None, {"x": values[None]})[0][0]
        made.append((request(cnn, payload, "p1", k, k - 1 if k else None, device), logits))
    return made


def video_stream(cnn: Cnn, number: int) -> list[tuple[Request, np.ndarray]]:
    encoder, decoder = VideoEncoder("h264", 30, cnn.input_px), VideoDecoder("h264", cnn.input_px)
    made = []
    for k, pixels in enumerate(frames(cnn, number)):
        payload = encoder.encode(pixels, key=k == 0)
        logits = cnn.session("tail-p0").run(None, {"x": to_input(decoder.decode(payload))})[0][0]
        made.append((request(cnn, payload, VIDEO, k, k - 1 if k else None), logits))
    return made


def ask(client: Client, cnn: Cnn, asked: Request) -> np.ndarray:
    return read_answer(client.call("ModelInfer", build_request(asked)), asked, cnn.form).logits


def refusal(client: Client, asked: Request) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        client.call("ModelInfer", build_request(asked))
    return caught.value.code().name, caught.value.details()


@pytest.mark.parametrize("stream", [cut_stream, video_stream])
def test_each_payload_gets_the_logits_of_a_local_run(client: Client, cnn: Cnn, stream: Any) -> None:
    for asked, logits in stream(cnn, 6):
        np.testing.assert_allclose(ask(client, cnn, asked), logits, rtol=1e-5, atol=1e-5)


def test_a_stream_without_its_reference_is_asked_for_a_key(served: ServerThread, client: Client, cnn: Cnn) -> None:
    asked = [one for one, _ in cut_stream(cnn, 4, "lost")]
    told = refusal(client, asked[1])
    assert told == ("ABORTED", "reference unknown: there is no such stream here; a key is expected")
    ask(client, cnn, asked[0])
    assert refusal(client, asked[2])[0] == "ABORTED"
    ask(client, cnn, asked[1])
    lie = replace(asked[3], place=StreamPlace("p1", 3, 1, "lost"))  # its codes are relative to payload 2
    assert refusal(client, lie)[0] == "ABORTED"
    with urllib.request.urlopen(f"http://127.0.0.1:{served.metrics_port}/metrics", timeout=LIMIT_S) as page:
        text = page.read().decode()
    for expected in (
        'tidesplit_stream_payloads_total{kind="key",partition="1"}',
        'tidesplit_stream_payloads_total{kind="unknown",partition="1"}',
        "tidesplit_streams ", "tidesplit_stream_bytes ",
    ):  # fmt: skip
        assert expected in text


def test_damaged_payloads_and_wrong_streams_are_refused(client: Client, cnn: Cnn) -> None:
    (cut, _), (picture, _) = cut_stream(cnn, 1)[0], video_stream(cnn, 1)[0]
    damaged = bytes([*cut.payload[:-1], cut.payload[-1] ^ 1])
    other_side = replace(picture, place=StreamPlace(f"{VIDEO}-160px", 0, None, "d"))
    table = [
        (replace(cut, payload=damaged), "INVALID_ARGUMENT", "checksum does not match"),
        (
            replace(cut, partition=2, place=StreamPlace("p2", 0, None, "d")),
            "INVALID_ARGUMENT",
            "payload of partition 1",
        ),
        (replace(cut, next_point="cloud"), "INVALID_ARGUMENT", "a stream crosses one hop only"),
        (replace(picture, payload=picture.payload[:-2]), "INVALID_ARGUMENT", "key picture was damaged"),
        (replace(picture, payload=b"GIF89a"), "ABORTED", "reference unknown: the picture is relative to one that"),
        (other_side, "INVALID_ARGUMENT", "stream of 160 x 160 pixels, one of (32,) expected"),
    ]
    for asked, code, sentence in table:
        found = refusal(client, asked)
        assert (found[0], sentence in found[1]) == (code, True), found


def test_a_server_without_pyav_says_so(client: Client, cnn: Cnn, monkeypatch: pytest.MonkeyPatch) -> None:
    (asked, _), *_ = video_stream(cnn, 1)

    def missing() -> None:
        raise ModuleNotFoundError("video offload needs PyAV: pip install 'tidesplit[video]'", name="av")

    monkeypatch.setattr(video, "_av", missing)
    told = refusal(client, replace(asked, place=StreamPlace(VIDEO, 0, None, "new")))
    assert told == ("UNIMPLEMENTED", "no video here: video offload needs PyAV: pip install 'tidesplit[video]'")


def test_a_full_server_refuses_frames_but_loses_no_reference(client: Client, cnn: Cnn) -> None:
    """Thirty payloads at once, where the server takes four. The one after them is relative to the last of them."""
    asked = [one for one, _ in cut_stream(cnn, 31, "many")]
    ask(client, cnn, asked[0])
    call = client.stub("ModelInfer")
    futures = [call.future(build_request(one), timeout=LIMIT_S) for one in asked[1:30]]
    codes = {future.code().name for future in futures}
    assert codes == {"OK", "RESOURCE_EXHAUSTED"}
    ask(client, cnn, asked[30])

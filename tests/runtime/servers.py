"""Servers of the small CNN, clients, and frames with their expected logits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx

from tidesplit.compression.codec.image_codec import decode_image, encode_image
from tidesplit.compression.codec.knobs import Knobs
from tidesplit.compression.codec.pixels import natural_picture, to_input
from tidesplit.runtime.cnn import Cnn
from tidesplit.runtime.server.serving import Server, ServerOptions
from tidesplit.runtime.server.stream_decoding import StreamDecoding
from tidesplit.runtime.wire.messages import Request
from tidesplit.runtime.wire.protocol import METHODS
from tidesplit.runtime.wire.security import Credentials

LIMIT_S = 20.0  # limit of a call that should succeed on a busy machine


def for_one_frame(folder: Path, model: str) -> None:
    """Rewrite a model so that it takes one frame at once, as older exports do. The manifest keeps the old hash."""
    path = folder / f"{model}.onnx"
    made = onnx.load(path)
    del made.graph.value_info[:]
    for value in (*made.graph.input, *made.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(made, path)


@dataclass(frozen=True)
class Frame:
    """A request and the logits expected in its answer."""

    request: Request
    logits: np.ndarray


def picture_frame(cnn: Cnn, number: int = 0) -> Frame:
    pixels = natural_picture(cnn.input_px, seed=number)
    payload = encode_image(pixels, "webp", 100)
    logits = cnn.session("tail-p0").run(None, {"x": to_input(decode_image(payload, cnn.input_px))})[0][0]
    return Frame(Request(cnn.name, 0, cnn.version, str(number), payload), logits)


def cut_frame(cnn: Cnn, knobs: Knobs, number: int = 0, next_point: str = "") -> Frame:
    x = to_input(natural_picture(cnn.input_px, seed=number))
    name = f"p{knobs.partition}-c{knobs.ratio:.2f}"
    _, y, score = cnn.session(f"head-{name}").run(None, {"x": x})
    payload = cnn.codec.encode(y[0], score[0, 0], knobs)
    values, _ = cnn.codec.decode(payload)
    logits = cnn.session(f"tail-p{knobs.partition}").run(None, {"x": values[None]})[0][0]
    return Frame(Request(cnn.name, knobs.partition, cnn.version, str(number), payload, knobs.id, next_point), logits)


class Client:
    """Calls by name. `raw` sends unchanged bytes."""

    def __init__(self, address: str, credentials: Credentials | None = None) -> None:
        credentials = credentials or Credentials()
        self.channel, self.metadata = credentials.channel(grpc, address), credentials.metadata

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def stub(self, name: str) -> Any:
        method = METHODS[name]
        return self.channel.unary_unary(
            method.path, request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )  # fmt: skip

    def call(self, name: str, message: Any, limit_s: float = LIMIT_S) -> Any:
        return self.stub(name)(message, timeout=limit_s, metadata=self.metadata)

    def raw(self, data: bytes, limit_s: float = LIMIT_S) -> bytes:
        return self.channel.unary_unary(METHODS["ModelInfer"].path)(data, timeout=limit_s)  # type: ignore[no-any-return]


class ServerThread:
    """A server in a thread with its own event loop: `with ServerThread(cnn, options) as server: server.address`."""

    def __init__(self, cnn: Cnn, options: ServerOptions) -> None:
        self._server, self._loop = Server(cnn, options), asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="server", daemon=True)

    @property
    def address(self) -> str:
        return self._server.address

    @property
    def streams(self) -> StreamDecoding:
        return self._server.streams

    @property
    def metrics_port(self) -> int | None:
        return self._server.metrics_port

    def __enter__(self) -> ServerThread:
        self._thread.start()
        try:
            self._wait(self._server.start())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._wait(self._server.stop(refuse_s=0.0))  # clients in this process need no warning
        self._end()

    def _wait(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=60.0)

    def _end(self) -> None:
        self._wait(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

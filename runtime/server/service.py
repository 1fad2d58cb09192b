"""The calls of the Open Inference Protocol: checks, the queue, the second hop. Every refusal is a typed status."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import grpc
import grpc.aio
import numpy as np

from tidesplit.compression.codec.knobs import PASSED_ON, Knobs
from tidesplit.runtime.models import middle_name, tail_name
from tidesplit.runtime.server.batching import Batcher, Computed
from tidesplit.runtime.server.client_limits import ClientLimits, client_of, device_of
from tidesplit.runtime.server.description import EXTENSIONS, Description
from tidesplit.runtime.server.metrics import Metrics
from tidesplit.runtime.server.next_hop import NextHop, NextHopError
from tidesplit.runtime.server.stream_decoding import Decoded, StreamDecoding
from tidesplit.runtime.server.tails import Item, Tails
from tidesplit.runtime.wire.answers import (
    FrameAnswer,
    HopTimes,
    ProbeAnswer,
    ServerTiming,
    build_answer,
    build_probe_answer,
    receipt,
)
from tidesplit.runtime.wire.messages import (
    PROBE,
    RefusedError,
    Request,
    check_version,
    model_partition,
    read_point,
    read_probe,
    read_request,
)
from tidesplit.runtime.wire.protocol import MESSAGES, METHODS, SERVICE
from tidesplit.runtime.wire.wire_format import parse

Code = grpc.StatusCode
_NONE: tuple[tuple[str, str], ...] = ()
LONGEST_S = 10.0  # a request without a deadline of its own is not computed after this


@dataclass(frozen=True)
class _Call:
    """A request with its times on this server's clock. `confirm` sends initial metadata to the device.

    `client` is who sent it, and `device` its id. `decoded` is there where the payload is one of a stream.
    """

    request: Request
    received_s: float
    deadline_s: float
    confirm: Callable[[tuple[tuple[str, str], ...]], Awaitable[None]]
    client: str
    device: str
    decoded: Decoded | None = None


class InferenceService:
    """Answers for one CNN. While `draining`, it finishes the requests under way and refuses new ones."""

    def __init__(
        self, tails: Tails, batcher: Batcher, streams: StreamDecoding, next_hop: NextHop | None, max_concurrent: int,
        limits: ClientLimits,
    ) -> None:  # fmt: skip
        self._tails, self._cnn, self._batcher, self._next = tails, tails.cnn, batcher, next_hop
        self._streams, self._limits = streams, limits
        self._description = Description(tails.cnn, tails.partitions)
        self._max_concurrent, self.under_way, self._sent_on = max_concurrent, 0, 0
        self._clock = float(secrets.randbelow(2**53))  # names this process's clock; replicas have others
        self._probes: set[asyncio.Task[None]] = set()
        self.draining = False
        self.metrics = Metrics()

    def handler(self) -> Any:
        """The generic handler that gRPC routes calls to."""
        calls: dict[str, Callable[[Any, Any], Awaitable[Any]]] = {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelConfig": self._model_config,
            "ModelStatistics": self._model_statistics,
            "RepositoryIndex": self._repository_index,
            "ModelInfer": self._model_infer,
        }
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {name: grpc.unary_unary_rpc_method_handler(self._typed(name, call)) for name, call in calls.items()},
        )

    def _typed(self, name: str, call: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[bytes, Any], Awaitable[bytes]]:
        """A call from bytes to bytes, which ends every failure with a status and a sentence."""
        kind = METHODS[name].request

        async def handle(data: bytes, context: Any) -> bytes:
            message, metadata = None, _NONE
            try:
                message = parse(kind, data)
                answer: bytes = (await call(message, context)).SerializeToString()
                return answer
            except RefusedError as error:
                code, sentence, metadata = error.code, str(error), error.metadata
                if error.limit:
                    self.metrics.limited(error.limit)
            except Exception:
                logging.getLogger(__name__).exception("%s failed", name)
                code, sentence = Code.INTERNAL, "the server made a mistake; its log has more"
            self.metrics.refused(self._label(message) if name == "ModelInfer" else "", code.name)
            try:
                await context.abort(code, sentence, metadata)
            finally:
                # The context holds the exception, whose traceback would hold the context and the message until Python
                # next looks for such circles: hundreds of messages later, with 1 MB each.
                del context, data, message
            raise AssertionError("abort returns never")

        return handle

    def _label(self, message: Any) -> str:
        """The partition as a label of the metrics, empty without a message. A client's own text never becomes one."""
        if message is None:
            return ""
        try:
            partition = model_partition(message.model_name, self._cnn.name)
        except RefusedError:
            return ""
        return str(partition) if partition in self._tails.partitions else ""

    async def _live(self, _message: Any, _context: Any) -> Any:
        return MESSAGES["ServerLiveResponse"](live=True)

    async def _ready(self, _message: Any, _context: Any) -> Any:
        return MESSAGES["ServerReadyResponse"](ready=not self.draining)

    async def _model_ready(self, message: Any, _context: Any) -> Any:
        self._check_model(message)
        return MESSAGES["ModelReadyResponse"](ready=not self.draining)

    async def _server_metadata(self, _message: Any, _context: Any) -> Any:
        return MESSAGES["ServerMetadataResponse"](name="tidesplit", version=self._cnn.version, extensions=EXTENSIONS)

    async def _model_metadata(self, message: Any, _context: Any) -> Any:
        self._check_model(message)
        return self._description.metadata(message.name)

    async def _model_config(self, message: Any, _context: Any) -> Any:
        self._check_model(message)
        return self._description.config(message.name)

    async def _model_statistics(self, message: Any, _context: Any) -> Any:
        if message.name:
            self._check_model(message)
        return self._description.statistics(message.name, self.metrics)

    async def _repository_index(self, message: Any, _context: Any) -> Any:
        return self._description.index(not self.draining, message.ready)

    def _check_model(self, message: Any) -> None:
        if message.name != PROBE:
            self._check_partition(model_partition(message.name, self._cnn.name))
            check_version(message.version, self._cnn.version)

    def _check_partition(self, partition: int) -> None:
        if partition not in self._tails.partitions:
            raise RefusedError(
                Code.NOT_FOUND, f"no partition {partition} here, expected one of {self._tails.partitions}"
            )

    async def _model_infer(self, message: Any, context: Any) -> Any:
        received_s = time.perf_counter()
        if self.draining:
            raise RefusedError(Code.UNAVAILABLE, "the server is shutting down: ask another, or again later")
        device = device_of(context.invocation_metadata())
        client = client_of(device, "" if device else context.peer())
        self._limits.check_rate(client, received_s)
        if message.model_name == PROBE:
            check_version(message.model_version, self._cnn.version)
            number, probe_next = read_probe(message)
            self._probe_next(probe_next)
            answer = ProbeAnswer(received_s, self._batcher.expected_wait_s(), self._newest(), self._clock)
            self.metrics.probed(time.perf_counter() - received_s)
            return build_probe_answer(number, answer)
        request = read_request(message, self._cnn.name, self._cnn.version, self._cnn.form)
        self._check_partition(request.partition)
        self._probe_next(request.probe_next)
        refusal = self._refusal(client)
        if refusal is not None and request.place is None:
            raise refusal
        self.under_way += 1
        self._limits.enter(client, received_s)
        try:
            deadline_s = received_s + _remaining_s(context)
            decoded = None if request.place is None else await self._streams.decode(request, request.place)
            if refusal is not None:  # the payload had to be decoded, because the next one is relative to it
                raise refusal
            found = await self._answer(
                _Call(request, received_s, deadline_s, context.send_initial_metadata, client, device, decoded)
            )
        finally:
            self.under_way -= 1
            self._limits.leave(client)
        self.metrics.answered(request.partition, found, time.perf_counter() - received_s)
        return build_answer(request, found, self._cnn.form)

    def _refusal(self, client: str) -> RefusedError | None:
        """The refusal of one more request of this client; None where there is a place for it, or one was made."""
        if self.under_way < self._max_concurrent and not self._limits.has_share(client):
            return None
        pushback_s = self._batcher.pushback_s()
        refusal = self._limits.over_share(client, pushback_s)
        if refusal is not None or self._batcher.make_room(client):
            return refusal
        return RefusedError(
            Code.RESOURCE_EXHAUSTED, f"{self._max_concurrent} requests are under way, the limit here",
            limit="full", pushback_s=pushback_s,
        )  # fmt: skip

    def _probe_next(self, asked: bool) -> None:
        if asked and self._next is not None:
            task = asyncio.create_task(self._next.probe())
            self._probes.add(task)  # asyncio itself holds only a weak reference to a running task
            task.add_done_callback(self._probes.discard)

    def _newest(self) -> HopTimes | None:
        return None if self._next is None else self._next.newest

    async def _answer(self, call: _Call) -> FrameAnswer:
        if not call.request.next_point:
            return await self._compute(call, "")
        try:
            return await self._send_on(call)
        except NextHopError as error:
            if time.perf_counter() >= call.deadline_s:
                raise RefusedError(
                    Code.DEADLINE_EXCEEDED, f"the next server gave no answer in time: {error}"
                ) from error
            return await self._compute(call, str(error))

    async def _compute(self, call: _Call, fell_back: str) -> FrameAnswer:
        """Run the tail here. `fell_back` is the reason why the frame is not sent on, empty where none was asked for."""
        request, decoded, asked_s = call.request, call.decoded, time.perf_counter()
        item = Item(request.partition, request.payload, values=None if decoded is None else decoded.values)
        done = await self._batcher.submit(tail_name(request.partition), item, asked_s, call.deadline_s, call.client)
        logits, timing = np.asarray(done.value, dtype=np.float32), self._timing(call.received_s, asked_s, done)
        if decoded is not None:
            waited_s = timing.wait_s + max(0.0, decoded.began_s - call.received_s)
            timing = replace(timing, wait_s=waited_s, compute_s=timing.compute_s + decoded.took_s)
        return FrameAnswer(request.frame, logits, timing, None, fell_back, self._newest())

    async def _send_on(self, call: _Call) -> FrameAnswer:
        """Send the payload on, cut again or unchanged, and confirm it to the device. NextHopError without an answer."""
        request, cut = call.request, self._second_cut(call.request)
        if self._next is None:
            raise NextHopError("no next server here")
        if self._sent_on >= max(1, self._max_concurrent // 2):  # a stalled hop must not take every place
            raise NextHopError(f"{self._sent_on} frames wait for the next server, the limit here")
        onward = replace(request, next_point="", probe_next=False)
        own = ServerTiming(call.received_s, 0.0, 0.0, self._clock)
        confirmed = replace(own, wait_s=self._batcher.expected_wait_s())  # an unchanged payload does not wait itself
        if cut is not None:
            key, item = middle_name(request.partition, cut.partition), Item(request.partition, request.payload, cut)
            if not self._tails.has(key):
                raise NextHopError(f"no model from partition {request.partition} to {cut.partition} here")
            done = await self._batcher.submit(key, item, call.received_s, call.deadline_s, call.client)
            onward = replace(onward, partition=cut.partition, payload=done.value, point=request.next_point)
            own = confirmed = self._timing(call.received_s, call.received_s, done)
        left_s = call.deadline_s - time.perf_counter()
        if left_s <= 0.0:
            raise RefusedError(Code.DEADLINE_EXCEEDED, "the deadline passed in the middle server")
        self._sent_on += 1
        try:
            await call.confirm(receipt(confirmed))
            theirs, timing = await self._next.ask(onward, left_s, call.device)
        finally:
            self._sent_on -= 1
        return FrameAnswer(request.frame, theirs.logits, own, timing, theirs.fell_back)

    def _timing(self, received_s: float, asked_s: float, done: Computed) -> ServerTiming:
        return ServerTiming(received_s, max(0.0, done.began_s - asked_s), done.compute_s, self._clock)

    def _second_cut(self, request: Request) -> Knobs | None:
        """Settings of the second cut; None where the payload is passed on unchanged. RefusedError: no such cut."""
        if request.next_point == PASSED_ON:
            return None
        cut = read_point(request.next_point)
        if not (request.partition < cut.partition and cut.partition in self._cnn.codec.cuts):
            raise RefusedError(
                Code.INVALID_ARGUMENT,
                f"next_point of partition {cut.partition}: an inner cut after {request.partition} is expected, "
                f"of {tuple(self._cnn.codec.cuts)}",
            )
        return cut


def _remaining_s(context: Any) -> float:
    left_s = context.time_remaining()
    return LONGEST_S if left_s is None else min(LONGEST_S, float(left_s))

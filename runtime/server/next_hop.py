"""The middle server's side of the second hop: sends payloads on, reads the answers, and measures the link."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

import grpc
import grpc.aio

from tidesplit.envs.world.physics import World
from tidesplit.runtime.wire.answers import (
    AnswerError,
    FrameAnswer,
    HopTimes,
    NextTiming,
    ServerTiming,
    read_answer,
    read_probe_answer,
)
from tidesplit.runtime.wire.estimator import Estimator, Settled
from tidesplit.runtime.wire.messages import RefusedError, Request, build_probe, build_request
from tidesplit.runtime.wire.output_tensors import AnswerForm
from tidesplit.runtime.wire.protocol import METHODS
from tidesplit.runtime.wire.reasons import reason
from tidesplit.runtime.wire.security import Credentials
from tidesplit.runtime.wire.stream_place import DEVICE_METADATA
from tidesplit.runtime.wire.wire_format import parse

WINDOW = 256  # unanswered messages that are remembered: several times as many as a server takes at once
GREETINGS, GREETING_BYTES = 3, 64
PROBE_LIMIT_S = 1.0
Read = TypeVar("Read")


class NextHopError(Exception):
    """The next server gave no usable answer: its status, or the fault in its answer."""


class NextHop:
    """A channel to the next server."""

    def __init__(self, address: str, form: AnswerForm, credentials: Credentials) -> None:
        self._address, self._form, self._world = address, form, World()
        self._reported = ""  # the last failure's reason, empty after an answer
        self._estimator = Estimator(WINDOW)
        self._asked = self._under_way = 0
        self._greeted = False
        self._newest: tuple[float, float, float, float] | None = None  # when answered, bytes, uplink, round trip
        self._metadata = credentials.metadata
        self._channel = credentials.channel(grpc.aio, address)
        method = METHODS["ModelInfer"]
        self._call = self._channel.unary_unary(method.path, request_serializer=method.request.SerializeToString)
        self._response = method.response

    @property
    def newest(self) -> HopTimes | None:
        """The newest answered message; None before the first."""
        if self._newest is None:
            return None
        at_s, payload, uplink_s, rtt_s = self._newest
        return HopTimes(payload, uplink_s, rtt_s, time.perf_counter() - at_s)

    async def ask(self, request: Request, timeout_s: float, device: str = "") -> tuple[FrameAnswer, NextTiming]:
        """The next server's answer and its timing. `device` is the id of the frame's device, for the limits there.

        Raises:
            NextHopError: there is no answer.
        """
        start_s, size = time.perf_counter(), len(request.payload)
        key = self._sent(size)
        answer = await self._send(
            build_request(request), timeout_s, lambda message: read_answer(message, request, self._form), device
        )
        theirs = answer.timing
        uplink_s, rtt_s = self._answered(key, size, theirs)
        return answer, NextTiming(time.perf_counter() - start_s, theirs.wait_s, theirs.compute_s, uplink_s, rtt_s)

    async def probe(self) -> None:
        """Measure the link with one packet, unless a message that will measure it is under way."""
        if self._under_way:
            return
        try:
            await self.greet()
            await self._ping(int(self._world.probe_bytes - self._world.overhead_bytes))
        except NextHopError:
            return  # the next request finds out as well

    async def greet(self) -> None:
        """Connect once, and learn the delay of the empty link from tiny messages. NextHopError where it is gone.

        The first message is not timed, because it waits for the connection.
        """
        if self._greeted:
            return
        await self._ping(GREETING_BYTES, timed=False, reported=False)
        for _ in range(GREETINGS):
            await self._ping(GREETING_BYTES, reported=False)
        self._greeted = True

    async def _ping(self, size: int, timed: bool = True, reported: bool = True) -> None:
        """Send a probe. It becomes `newest` where it is `timed` and `reported`."""
        number = f"next-{self._asked}"
        key = self._sent(size) if timed else 0
        theirs = await self._send(
            build_probe(number, bytes(size)), PROBE_LIMIT_S, lambda message: read_probe_answer(message, number)
        )
        if timed:
            # The expected wait in a probe's answer is that of frames: the probe itself waited for nothing.
            self._answered(key, size, ServerTiming(theirs.received_s, 0.0, 0.0, theirs.clock), reported)

    async def _send(self, message: Any, timeout_s: float, read: Callable[[Any], Read], device: str = "") -> Read:
        self._under_way += 1
        named = ((DEVICE_METADATA, device),) if device else ()
        try:
            data = await self._call(message, timeout=timeout_s, metadata=(*self._metadata, *named))
            answer = read(parse(self._response, data))
            self._reported = ""
            return answer
        except grpc.aio.AioRpcError as error:
            raise self._failed(reason(error.code().name, error.details())) from error
        except (AnswerError, RefusedError) as error:
            raise self._failed(f"an answer that cannot be believed: {error}") from error
        finally:
            self._under_way -= 1

    def _failed(self, why: str) -> NextHopError:
        """The exception for a reason, which is logged where it is not that of the failure before."""
        if why != self._reported:
            self._reported = why
            logging.getLogger(__name__).warning("next server %s: %s", self._address, why)
        return NextHopError(why)

    def _sent(self, size: int) -> int:
        """The key of a message that leaves now."""
        self._asked += 1
        self._estimator.sent(self._asked, time.perf_counter(), Settled(size + self._world.overhead_bytes))
        return self._asked

    def _answered(self, key: int, size: int, theirs: ServerTiming, reported: bool = True) -> tuple[float, float]:
        """Seconds that the bytes took, and the rest of the way there and back."""
        now_s = time.perf_counter()
        timed = self._estimator.answered(
            key, now_s, theirs.received_s, theirs.wait_s + theirs.compute_s, clock=theirs.clock
        )
        if timed is None:  # `WINDOW` others were sent since
            return 0.0, 0.0
        if reported:
            self._newest = (now_s, size + self._world.overhead_bytes, *timed)
        return timed

    async def close(self) -> None:
        """Close the channel. Calls under way are cancelled."""
        await self._channel.close()

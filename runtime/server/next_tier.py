"""From the middle tier to the one behind it: a payload out, logits back, and what that tells of the link between."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import grpc
import grpc.aio

from tidesplit.envs.world.physics import World
from tidesplit.runtime.wire.answers import (
    Answer,
    AnswerError,
    Crossing,
    NextTiming,
    Timing,
    read_answer,
    read_probe_answer,
)
from tidesplit.runtime.wire.estimator import Estimator, Settled
from tidesplit.runtime.wire.messages import RefusedError, Request, build_probe, build_request
from tidesplit.runtime.wire.protocol import METHODS
from tidesplit.runtime.wire.security import Credentials
from tidesplit.runtime.wire.wire_format import parse

__all__ = ["NextError", "NextTier"]

WINDOW = 256  # messages kept until they are answered: several times what a server takes at once
GREETINGS = 3
GREETING_BYTES, PROBE_LIMIT_S = 64, 1.0


Told = TypeVar("Told")


class NextError(Exception):
    """The tier behind gave no answer: its status, or what was wrong with what it said."""


class NextTier:
    """A channel to the next server. `newest`: what its last answer told of the link, see `Crossing`."""

    def __init__(self, address: str, classes: int, credentials: Credentials) -> None:
        self._classes, self._world = classes, World()
        self._estimator = Estimator(WINDOW)
        self._asked = self._under_way = 0
        self._greeted = False
        self._newest: tuple[float, float, float, float] | None = None  # moment, bytes, uplink, round trip
        self._metadata = credentials.metadata
        self._channel = credentials.channel(grpc.aio, address)
        method = METHODS["ModelInfer"]
        self._call = self._channel.unary_unary(
            method.path, request_serializer=method.request.SerializeToString, response_deserializer=None
        )
        self._response = method.response

    @property
    def newest(self) -> Crossing | None:
        """The newest message that was answered; None if none was."""
        if self._newest is None:
            return None
        at_s, payload, uplink_s, rtt_s = self._newest
        return Crossing(payload, uplink_s, rtt_s, time.perf_counter() - at_s)

    async def ask(self, request: Request, timeout_s: float) -> tuple[Answer, NextTiming]:
        """The answer and what it took. NextError for whatever else happens."""
        start_s, size = time.perf_counter(), len(request.payload)
        key = self._sent(size)
        answer = await self._send(
            build_request(request), timeout_s, lambda message: read_answer(message, request, self._classes)
        )
        theirs = answer.timing
        uplink_s, rtt_s = self._told(key, size, theirs)
        return answer, NextTiming(time.perf_counter() - start_s, theirs.wait_s, theirs.compute_s, uplink_s, rtt_s)

    async def probe(self) -> None:
        """Find out how the link is, unless something is under way there, which will tell as well."""
        if self._under_way:
            return
        try:
            await self.greet()
            await self._ping(int(self._world.probe_bytes - self._world.overhead_bytes))
        except NextError:
            return  # whoever asks next will see that nothing came

    async def greet(self) -> None:
        """Connect, and learn one way of the empty link from messages of next to no bytes. NextError where it is gone.

        What the first one took is not counted: it waits for the connection.
        """
        if self._greeted:
            return
        await self._ping(GREETING_BYTES, counts=False, tells=False)
        for _ in range(GREETINGS):
            await self._ping(GREETING_BYTES, tells=False)
        self._greeted = True

    async def _ping(self, size: int, counts: bool = True, tells: bool = True) -> None:
        """Without `counts` it is not timed, without `tells` it is nobody's outcome."""
        number = f"next-{self._asked}"
        key = self._sent(size) if counts else 0
        told = await self._send(
            build_probe(number, bytes(size)), PROBE_LIMIT_S, lambda message: read_probe_answer(message, number)
        )
        if counts:
            self._told(key, size, Timing(told.received_s, 0.0, 0.0), tells)  # a probe waits for nobody

    async def _send(self, message: Any, timeout_s: float, read: Callable[[Any], Told]) -> Told:
        self._under_way += 1
        try:
            data = await self._call(message, timeout=timeout_s, metadata=self._metadata)
            return read(parse(self._response, data))
        except grpc.aio.AioRpcError as error:
            raise NextError(f"{error.code().name}: {error.details()}") from error
        except (AnswerError, RefusedError) as error:
            raise NextError(f"an answer that cannot be believed: {error}") from error
        finally:
            self._under_way -= 1

    def _sent(self, size: int) -> int:
        self._asked += 1
        self._estimator.sent(self._asked, time.perf_counter(), Settled(size + self._world.overhead_bytes))
        return self._asked

    def _told(self, key: int, size: int, theirs: Timing, tells: bool = True) -> tuple[float, float]:
        """What the bytes took and the rest of the way there and back."""
        now_s = time.perf_counter()
        timed = self._estimator.answered(key, now_s, theirs.received_s, theirs.wait_s + theirs.compute_s)
        if timed is None:  # `WINDOW` others were sent since
            return 0.0, 0.0
        if tells:
            self._newest = (now_s, size + self._world.overhead_bytes, *timed)
        return timed

    async def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        await self._channel.close()

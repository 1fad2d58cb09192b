"""Decodes the payloads of streams in the order in which they came, before the queue of frames.

A payload is decoded even where its frame is too late, the queue is full or the client has gone, because the next one is
relative to it. Decoding runs on threads of its own, so that neither the event loop nor a running tail holds it up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import grpc
import numpy as np
from numpy.typing import NDArray

from tidesplit.compression.codec.errors import PayloadError, ReferenceUnknownError
from tidesplit.runtime.server.held_streams import HeldStream, HeldStreams, Limits
from tidesplit.runtime.wire.messages import Request
from tidesplit.runtime.wire.refusals import RefusedError, reference_unknown
from tidesplit.runtime.wire.stream_place import StreamPlace

__all__ = ["Decode", "Decoded", "Kind", "StreamDecoding"]

Floats = NDArray[np.float32]
MOST_UNDER_WAY = 128  # payloads, 1 MiB each at most: a client that sends and withdraws must not pile them up
Kind = Literal["key", "relative", "unknown"]
# From the request and the state of its stream, None for a key: the tail's input, the next state and its bytes.
Decode = Callable[[Request, Any], tuple[Floats, Any, int]]


@dataclass(frozen=True)
class Decoded:
    """The input of a tail `[C, h, w]`, with the start and the duration of its decoding."""

    values: Floats
    began_s: float
    took_s: float


class StreamDecoding:
    """Holds the streams of all devices. All methods run on the event loop; `decode` itself runs on `threads`.

    Args:
        decode: the codec's work for one payload.
        observe: called for every payload with its partition and kind.
    """

    def __init__(
        self, decode: Decode, threads: int, limits: Limits | None = None,
        observe: Callable[[int, Kind], None] = lambda _partition, _kind: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:  # fmt: skip
        self.held = HeldStreams(limits)
        self._decode, self._observe, self._clock = decode, observe, clock
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._under_way: set[asyncio.Task[Decoded]] = set()

    async def decode(self, request: Request, place: StreamPlace) -> Decoded:
        """The decoded payload. It is decoded also where the caller is cancelled meanwhile.

        Raises:
            RefusedError: ABORTED where its reference is unknown, INVALID_ARGUMENT where it is damaged, and
                RESOURCE_EXHAUSTED where too many wait already. The stream then needs a key.
        """
        if len(self._under_way) >= MOST_UNDER_WAY:
            raise RefusedError(
                grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MOST_UNDER_WAY} payloads of streams wait already, the limit here"
            )
        # The stream is found before any waiting, so that the order is that of arrival.
        find = self.held.open if place.key else self.held.find
        stream = find(place.device, place.name, self._clock())
        if stream is None:
            raise self._unknown(request.partition, "there is no such stream here")
        stream.under_way += 1
        task = asyncio.create_task(self._in_turn(request, place, stream))
        self._under_way.add(task)  # asyncio itself holds only a weak reference to a running task
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Decoded]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # nobody else takes it where the caller has gone, and asyncio would log it

    async def close(self) -> None:
        """Wait for the payloads under way. No more may come."""
        await asyncio.gather(*self._under_way, return_exceptions=True)
        self._pool.shutdown()

    async def _in_turn(self, request: Request, place: StreamPlace, stream: HeldStream) -> Decoded:
        try:
            async with stream.lock:
                if not place.key and place.reference != stream.sequence:
                    raise self._unknown(
                        request.partition, f"payload {place.reference} is, and {stream.sequence} is the last one here"
                    )
                return await self._next(request, place, stream)
        finally:
            stream.under_way -= 1
            if stream.state is None and not stream.under_way:
                self.held.forget(stream)

    async def _next(self, request: Request, place: StreamPlace, stream: HeldStream) -> Decoded:
        """Decode the payload and keep the state behind it. A stream of a damaged payload needs a key."""
        work = asyncio.get_running_loop().run_in_executor(self._pool, self._timed, request, place, stream.state)
        try:
            decoded, state, size = await work
        except BaseException as error:
            self.held.clear(stream)
            if isinstance(error, ReferenceUnknownError):
                raise self._unknown(request.partition, str(error)) from error
            if isinstance(error, PayloadError):
                raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
            raise
        self.held.keep(stream, place.sequence, state, size)
        self._observe(request.partition, "key" if place.key else "relative")
        return decoded

    def _timed(self, request: Request, place: StreamPlace, state: Any) -> tuple[Decoded, Any, int]:
        """Decode, in a thread of the pool."""
        began_s = self._clock()
        values, state, size = self._decode(request, None if place.key else state)
        return Decoded(values, began_s, self._clock() - began_s), state, size

    def _unknown(self, partition: int, sentence: str) -> RefusedError:
        self._observe(partition, "unknown")
        return reference_unknown(f"{sentence}; a key is expected")

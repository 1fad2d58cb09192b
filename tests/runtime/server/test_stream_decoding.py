"""Payloads of streams: their order, references that are unknown, clients that leave. The codec is a toy."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import grpc
import numpy as np
import pytest

from tidesplit.compression.codec.errors import PayloadError, ReferenceUnknownError
from tidesplit.runtime.server.held_streams import OVERHEAD_BYTES, Limits
from tidesplit.runtime.server.stream_decoding import MOST_UNDER_WAY, StreamDecoding
from tidesplit.runtime.wire.messages import Request
from tidesplit.runtime.wire.refusals import RefusedError
from tidesplit.runtime.wire.stream_place import StreamPlace


class Toy:
    """A codec whose payloads are numbers to add to the last value. It can be stopped, and fails at "bad"."""

    def __init__(self) -> None:
        self.go, self.kinds = threading.Event(), Counter[str]()
        self.go.set()
        self.streams = StreamDecoding(self.decode, 2, Limits(forget_s=60.0), lambda _, kind: self.kinds.update([kind]))

    def decode(self, request: Request, state: Any) -> tuple[np.ndarray, Any, int]:
        assert self.go.wait(20.0)
        if request.payload == b"bad":
            raise PayloadError("damaged")
        if request.payload == b"other":
            raise ReferenceUnknownError("made from other codes")
        if request.payload == b"bug":
            raise MemoryError("no memory")
        value = (state or 0.0) + float(request.payload)
        return np.array([value], np.float32), value, 8

    async def ask(self, sequence: int, reference: int | None, payload: bytes = b"1", device: str = "d") -> float:
        place = StreamPlace("p3", sequence, reference, device)
        decoded = await self.streams.decode(Request("lite", 3, "", str(sequence), payload, place=place), place)
        return float(decoded.values[0])

    async def refusal(self, *asked: Any) -> str:
        with pytest.raises(RefusedError) as caught:
            await self.ask(*asked)
        return f"{caught.value.code.name}: {caught.value}"


def run(test: Callable[[Toy], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        toy = Toy()
        await test(toy)
        await toy.streams.close()

    asyncio.run(whole())


def test_each_payload_adds_to_the_one_before() -> None:
    async def test(toy: Toy) -> None:
        assert [await toy.ask(0, None, b"5"), await toy.ask(1, 0), await toy.ask(2, 1)] == [5.0, 6.0, 7.0]
        assert await toy.ask(0, None, device="other") == 1.0
        assert (toy.kinds, len(toy.streams.held)) == ({"key": 2, "relative": 2}, 2)
        assert toy.streams.held.size == 2 * (OVERHEAD_BYTES + 8)

    run(test)


def test_a_payload_with_another_reference_is_refused_and_a_key_begins_anew() -> None:
    async def test(toy: Toy) -> None:
        assert "reference unknown: there is no such stream here; a key is expected" in await toy.refusal(1, 0)
        await toy.ask(1, None, b"5")
        told = await toy.refusal(3, 2)
        assert told == "ABORTED: reference unknown: payload 2 is, and 1 is the last one here; a key is expected"
        assert await toy.ask(2, 1) == 6.0, "a refusal leaves the stream as it is"
        assert "payload 1 is, and 2 is the last" in await toy.refusal(2, 1), "a repeated payload"
        assert await toy.ask(7, None, b"9") == 9.0
        assert await toy.ask(3, None, b"4") == 4.0, "a late key too"
        assert "payload 7 is, and 3 is the last" in await toy.refusal(8, 7)
        assert toy.kinds == {"key": 3, "relative": 1, "unknown": 4}

    run(test)


@pytest.mark.parametrize(
    ("payload", "status"), [(b"bad", "INVALID_ARGUMENT: damaged"), (b"other", "ABORTED: reference unknown: made from")]
)
def test_a_stream_of_a_payload_that_cannot_be_decoded_is_forgotten(payload: bytes, status: str) -> None:
    async def test(toy: Toy) -> None:
        assert status in await toy.refusal(0, None, payload)
        assert len(toy.streams.held) == 0, "a key that fails leaves nothing"
        await toy.ask(0, None)
        assert status in await toy.refusal(1, 0, payload)
        assert "there is no such stream here" in await toy.refusal(2, 1)
        await toy.ask(3, None)
        with pytest.raises(MemoryError):
            await toy.ask(4, 3, b"bug")
        assert len(toy.streams.held) == 0

    run(test)


def test_payloads_are_decoded_in_their_order_also_where_the_clients_have_gone() -> None:
    async def test(toy: Toy) -> None:
        toy.go.clear()
        tasks = [asyncio.create_task(toy.ask(n, n - 1 if n else None)) for n in range(20)]
        await asyncio.sleep(0.01)
        for task in tasks[:10]:
            task.cancel()
        await asyncio.sleep(0.0)
        toy.go.set()
        assert await asyncio.gather(*tasks[10:]) == [11.0 + n for n in range(10)]
        assert all(task.cancelled() for task in tasks[:10])

    run(test)


def test_what_waited_behind_a_damaged_payload_lacks_its_reference() -> None:
    async def test(toy: Toy) -> None:
        toy.go.clear()
        asked = [toy.ask(0, None), toy.ask(1, 0, b"bad"), toy.ask(2, 1), toy.ask(3, None, b"7"), toy.ask(4, 3)]
        tasks = [asyncio.create_task(one) for one in asked]
        await asyncio.sleep(0.01)
        toy.go.set()
        first, damaged, behind, key, after = await asyncio.gather(*tasks, return_exceptions=True)
        assert (first, key, after) == (1.0, 7.0, 8.0)
        assert [error.code for error in (damaged, behind)] == [
            grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.ABORTED,
        ]  # fmt: skip

    run(test)


def test_payloads_of_clients_that_send_and_leave_do_not_pile_up() -> None:
    """They go on being decoded after their calls have ended, so gRPC's own limit of calls does not hold for them."""

    async def test(toy: Toy) -> None:
        toy.go.clear()
        tasks = [asyncio.create_task(toy.ask(n, n - 1 if n else None)) for n in range(MOST_UNDER_WAY)]
        await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.sleep(0.01)
        assert "RESOURCE_EXHAUSTED" in await toy.refusal(MOST_UNDER_WAY, MOST_UNDER_WAY - 1)
        toy.go.set()
        await toy.streams.close()
        assert toy.streams.held.size <= 8 + OVERHEAD_BYTES

    run(test)

"""The streams that a server holds: limits in bytes and time, the least recently used one goes first."""

from __future__ import annotations

import random

from tidesplit.runtime.server.held_streams import OVERHEAD_BYTES, HeldStreams, Limits

LIMITS = Limits(most_bytes=10 * OVERHEAD_BYTES, most_bytes_of_one=4 * OVERHEAD_BYTES, forget_s=60.0)


def add(held: HeldStreams, device: str, name: str, now_s: float, size: int = 0) -> None:
    held.keep(held.open(device, name, now_s), 0, "state", size)


def names(held: HeldStreams, device: str, *of: str, now_s: float = 0.0) -> list[str]:
    return [name for name in of if held.find(device, name, now_s) is not None]


def test_a_stream_is_found_by_device_and_name_until_it_was_silent_for_too_long() -> None:
    held = HeldStreams(LIMITS)
    add(held, "a", "p3", 0.0)
    add(held, "a", "p4", 50.0)
    assert held.find("b", "p3", 50.0) is None
    assert names(held, "a", "p3", "p4", now_s=59.0) == ["p3", "p4"]
    assert names(held, "a", "p4", now_s=118.0) == ["p4"]
    assert names(held, "a", "p3", "p4", now_s=119.0) == ["p4"], "each stream counts its own time"
    assert held.find("b", "p3", 179.0) is None
    assert (len(held), held.size) == (0, 0), "any message lets old ones go"


def test_the_least_recently_used_stream_makes_room() -> None:
    held = HeldStreams(LIMITS)
    for name in ("p1", "p2", "p3", "p4"):
        add(held, "a", name, 0.0)
    held.find("a", "p1", 1.0)
    add(held, "a", "p5", 2.0)
    assert names(held, "a", "p1", "p2", "p3", "p4", "p5") == ["p1", "p3", "p4", "p5"], "one device has its own limit"
    for number in range(8):
        add(held, f"d{number}", "p3", 3.0 + number)
    assert names(held, "a", "p1", "p3", "p4", "p5") == ["p4", "p5"], "the first two were looked for first"
    assert held.size == 10 * OVERHEAD_BYTES


def test_a_stream_that_grows_or_was_forgotten_meanwhile() -> None:
    held = HeldStreams(LIMITS)
    stream = held.open("a", "p3", 0.0)
    held.keep(stream, 7, "codes", 100)
    held.keep(stream, 8, "more", 200)
    assert (held.size, stream.sequence, stream.state) == (OVERHEAD_BYTES + 200, 8, "more")
    held.forget(stream)
    held.forget(stream)
    again = held.open("a", "p3", 0.0)
    held.keep(stream, 9, "late", 300)
    held.forget(stream)
    assert held.find("a", "p3", 0.0) is again
    assert (again.sequence, held.size, len(held)) == (-1, 0, 1)


def test_any_course_of_events_stays_within_the_limits() -> None:
    rng, held, now_s = random.Random(0), HeldStreams(LIMITS), 0.0
    opened = []
    for _ in range(20_000):
        now_s += rng.expovariate(1.0)
        opened.append(held.open(f"d{rng.randrange(30)}", f"p{rng.randrange(9)}", now_s))
        stream = opened.pop(rng.randrange(len(opened))) if len(opened) > 8 else opened[0]
        if rng.random() < 0.2:
            held.forget(stream)
        else:
            held.keep(stream, 0, "state", rng.randrange(3 * OVERHEAD_BYTES))
        assert held.size <= LIMITS.most_bytes
        assert len(held) <= 10 + 9
    held.find("nobody", "p1", now_s + 60.0)
    assert (len(held), held.size) == (0, 0)

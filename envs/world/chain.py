"""One frame's messages on every hop of the chain: sent, booked, and the links' queues afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from tidesplit.envs.world.hop import Crossing, HopQueue, Load, RoundTrip, cross
from tidesplit.envs.world.link import Uplink
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import Bools, Floats, Ints
from tidesplit.profiling.points.table import HopColumns

Value = TypeVar("Value", np.float64, np.int64, np.bool_)


class Picker:
    """Picks each lane's value out of a column of the table, by the row of the lane's point."""

    def __init__(self, points: Ints, lane: Ints) -> None:
        self._points, self._lane = points, lane

    def __call__(self, column: NDArray[Value]) -> NDArray[Value]:
        """Values ``[B]`` of a column ``[A]``, or of a column ``[B, A]`` by lane."""
        return column[self._points] if column.ndim == 1 else column[self._lane, self._points]


class Turn(NamedTuple):
    """A frame's turn, shapes ``[B]``: everything that its messages meet."""

    start_s: Floats  # its beginning
    at: Picker  # picks the chosen points' values
    byte_noise: Floats  # standard normals that spread the payloads
    hops: tuple[HopColumns, ...]  # columns of the table, as many as there are queues, trips and uplinks
    queues: tuple[HopQueue, ...]
    trips: tuple[RoundTrip, ...]
    uplinks: tuple[Uplink, ...]
    world: World
    lane: Ints  # row of the uplinks that each lane uses
    growth: Floats | None  # factor on the first hop's bytes by the age of the reference; None: no streams

    def carry(self, own: Bools, ready_s: Floats, wait_s: Floats) -> tuple[Crossing, ...]:
        """Send the frames, and probes where a link was silent for long, over every hop.

        ``own`` is True where a frame leaves the device. Its bytes, or a probe, are ready for the first hop at
        ``ready_s``, and it waits ``wait_s`` at the first server. All are ``[B]``.
        """
        first = self._cross(0, own, ~own, ready_s)
        return first, *self._carry_further(first, wait_s)

    def _cross(self, hop: int, own: Bools, may_probe: Bools, ready_s: Floats) -> Crossing:
        """Cross one hop. A probe is sent where the link is idle and was silent for long."""
        columns, queue, at = self.hops[hop], self.queues[hop], self.at
        silent = self.start_s - queue.last_sent_s >= self.world.probe_after_s
        probes = may_probe & silent & (queue.free_s <= self.start_s) & np.isfinite(self.world.probe_after_s)
        body = at(columns.bytes_mean) * np.exp(at(columns.bytes_sigma) * self.byte_noise)
        load = Load(own, probes, body if hop or self.growth is None else body * self.growth)
        radio = self.world.radio_of(hop)
        return cross(load, ready_s, queue, self.trips[hop], self.world, radio, self.uplinks[hop], self.lane)

    def _carry_further(self, before: Crossing, wait_s: Floats) -> Iterator[Crossing]:
        """Cross the hops beyond the first.

        A message that ends before a hop asks for the probe of that hop. The device learns a probe's outcome as soon as
        the server before the hop knows it.
        """
        way_s = np.zeros_like(self.start_s)
        for hop, columns in enumerate(self.hops[1:], start=1):
            half_s = 0.5 * self.trips[hop - 1].rtt_s
            here_s, way_s = before.answered_s - way_s - half_s + np.where(before.own, wait_s, 0.0), way_s + half_s
            own = before.own & self.at(columns.sends)
            listed_s, pictures = self.at(columns.compute_s), self.at(self.hops[0].partition) == 0
            compute_s = np.where(own, self.world.serving_s(listed_s, pictures), 0.0)
            crossing = self._cross(hop, own, before.sent & ~own, here_s + compute_s)
            before = crossing._replace(
                compute_s=compute_s,
                detour_s=np.where(own, crossing.answered_s - here_s, 0.0),
                answered_s=crossing.answered_s + way_s,
            )
            yield before
            wait_s = np.zeros_like(wait_s)

    def queues_after(self, crossings: tuple[Crossing, ...]) -> tuple[HopQueue, ...]:
        """The links' queues after these messages, which left the device when they were ready for the first hop."""
        sent_s = crossings[0].ready_s
        return tuple(
            HopQueue(
                free_s=np.where(c.sent, c.left_s, queue.free_s),
                last_sent_s=np.where(c.sent, sent_s, queue.last_sent_s),
                awake_s=np.where(c.sent, c.left_s + self.world.radio_of(hop).tail_s, queue.awake_s),
            )
            for hop, (queue, c) in enumerate(zip(self.queues, crossings, strict=True))
        )


def booked(
    crossings: tuple[Crossing, ...], answered_s: Floats, due_s: Floats, finish_s: Floats, tail_s: Floats
) -> tuple[Crossing, ...]:
    """Book the answer, as the device will know it, on the last hop that each frame crossed.

    On each earlier hop the device knows the receipt of the server behind it, which it gets when that server has the
    next hop's bytes ready.
    """
    books: list[Crossing] = []
    beyond: Bools | np.bool_ = np.False_
    for crossing in reversed(crossings):
        ends = crossing.own & ~beyond
        book = crossing._replace(
            answered_s=np.where(crossing.own, answered_s, crossing.answered_s),
            due_s=np.where(ends, due_s, np.inf),
            finish_s=np.where(ends, finish_s, 0.0),
            tail_s=np.where(ends, tail_s, 0.0),
        )
        books.append(book)
        if len(books) < len(crossings):
            beyond = crossing.own
            answered_s = answered_s - np.where(beyond, crossing.detour_s + book.tail_s, 0.0)
    return tuple(reversed(books))

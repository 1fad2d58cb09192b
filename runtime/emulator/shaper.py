"""One direction of a link as a state machine over values: what is put in, when does it leave, when does it arrive?

No socket and no clock: every call says what time it is. The line is serial, first in first out, at byte granularity,
with a buffer as deep as mobile networks have. A packet leaves when the line has carried its last byte, by the very
arithmetic of the simulated world (`TraceUplink`), and arrives half a round trip later, never before the one
ahead of it. Nothing is ever thrown away, as TCP would send it again: in a blackhole bytes are held, and a lost packet
arrives one round trip late with those behind it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from tidesplit.envs.traces.trace import Trace
from tidesplit.envs.traces.uplink import TraceUplink
from tidesplit.envs.world.link import NEVER_S
from tidesplit.runtime.emulator.faults import Conditions

T = TypeVar("T")
Floats = NDArray[np.float64]
LANE = np.zeros(1, dtype=np.int64)


@dataclass
class Packet(Generic[T]):
    """One packet on its way: ``to_send`` bytes remain to be sent from ``begins_s`` on; the last leaves at ``leaves_s``.

    ``luck`` is a standard normal (its jitter), ``lost`` whether its first sending fails.
    """

    item: T
    size: int
    luck: float
    lost: bool
    to_send: float
    begins_s: float
    leaves_s: float = math.inf
    arrives_s: float = math.inf


class Shaper(Generic[T]):
    """The packets of one direction, in order. ``rtt_s`` tells the round trip of a packet by when it leaves."""

    def __init__(
        self,
        uplink: TraceUplink,
        rtt_s: Callable[[float], float],
        *,
        loss: float = 0.0,
        rng: np.random.Generator,
        conditions: Conditions | None = None,
    ) -> None:
        self._uplink, self._rtt_s, self._loss, self._rng = uplink, rtt_s, loss, rng
        self._now_s = 0.0
        self._free_s = 0.0  # when the last packet popped had left, and arrived
        self._arrived_s = 0.0
        self._packets: deque[Packet[T]] = deque()
        self.conditions = conditions or Conditions()
        self.held_bytes = 0

    def put(self, now_s: float, items: Sequence[T], sizes: Sequence[int]) -> None:
        """Packets of ``sizes`` bytes enter, one an item; times may not run backwards, so an earlier one means now."""
        now_s = self._tick(now_s)
        luck = self._rng.standard_normal(len(items)).tolist()
        lost = (self._rng.random(len(items)) < self._loss).tolist()
        new = [
            Packet(item, size, z, gone, float(size), now_s)
            for item, size, z, gone in zip(items, sizes, luck, lost, strict=True)
        ]
        self._plan(new, self._packets[-1] if self._packets else None)
        self._packets.extend(new)
        self.held_bytes += sum(sizes)

    def take(self, now_s: float) -> list[T]:
        """What has arrived by ``now_s``, in order; it is handed out once."""
        arrived: list[T] = []
        while self._packets and self._packets[0].arrives_s <= now_s:
            packet = self._packets.popleft()
            self._free_s, self._arrived_s = packet.leaves_s, packet.arrives_s
            self.held_bytes -= packet.size
            arrived.append(packet.item)
        return arrived

    def next_s(self) -> float:
        """When the next packet arrives if nothing changes; infinity if none does."""
        return self._packets[0].arrives_s if self._packets else math.inf

    def queued_s(self, now_s: float) -> float:
        """How long a byte entering now would wait for the line; infinity in a blackhole with bytes before it."""
        last_s = self._packets[-1].leaves_s if self._packets else self._free_s
        return max(last_s - now_s, 0.0)

    def change(self, now_s: float, conditions: Conditions) -> None:
        """From now on the link is so. What has left stays as it was, what has not is planned anew."""
        now_s = self._tick(now_s)
        waiting = [packet for packet in self._packets if packet.leaves_s > now_s]
        if waiting:
            first = waiting[0]
            first.to_send -= self._carried(first.begins_s, now_s)
        for packet in waiting:
            packet.begins_s = max(packet.begins_s, now_s)
        self.conditions = conditions
        gone = len(self._packets) - len(waiting)
        self._plan(waiting, self._packets[gone - 1] if gone else None)

    def _tick(self, now_s: float) -> float:
        self._now_s = max(self._now_s, now_s)
        return self._now_s

    def _carried(self, start_s: float, end_s: float) -> float:
        """Bytes that the line has carried under the present conditions."""
        if self.conditions.dark or end_s <= start_s:
            return 0.0
        carried = self._uplink.bytes_between(LANE, np.array([start_s]), np.array([end_s]))
        return float(carried[0]) * self.conditions.bandwidth_factor

    def _plan(self, packets: Sequence[Packet[T]], ahead: Packet[T] | None) -> None:
        """Set when ``packets``, all of which wait already, begin, leave and arrive behind the one ahead of them."""
        if not packets:
            return
        free_s, arrived_s = (self._free_s, self._arrived_s) if ahead is None else (ahead.leaves_s, ahead.arrives_s)
        begins_s = max(free_s, packets[0].begins_s)
        sizes = np.maximum([packet.to_send for packet in packets], 0.0)
        for packet, leaves_s in zip(packets, self._finish_s(begins_s, np.cumsum(sizes)).tolist(), strict=True):
            packet.begins_s = begins_s
            packet.leaves_s = begins_s = leaves_s
            arrived_s = packet.arrives_s = max(arrived_s, leaves_s + self._way_s(packet))

    def _finish_s(self, start_s: float, payload: Floats) -> Floats:
        """When that many bytes have left from ``start_s`` on, shape `[N]`; infinity on a line that carries nothing."""
        factor = self.conditions.bandwidth_factor
        if self.conditions.dark or factor <= 0.0 or start_s >= NEVER_S:
            return np.full(len(payload), math.inf)
        lanes = np.zeros(len(payload), dtype=np.int64)
        finish = self._uplink.finish_s(lanes, np.full(len(payload), start_s), payload / factor)
        return np.where(finish >= NEVER_S, math.inf, finish)

    def _way_s(self, packet: Packet[T]) -> float:
        """From the line's end to the receiver: half a round trip, another whole one if the packet is lost."""
        if packet.leaves_s == math.inf:
            return 0.0
        rtt_s = self._rtt_s(packet.leaves_s) + self.conditions.extra_latency_s
        return max(rtt_s / 2 + self.conditions.jitter_s * packet.luck, 0.0) + (rtt_s if packet.lost else 0.0)


def uplink_of(trace: Trace) -> TraceUplink:
    """The line that plays ``trace`` from its start, over and over."""
    return TraceUplink.of([trace])


def constant(bits_per_s: float) -> Trace:
    """A trace of one bandwidth."""
    return Trace("constant", np.zeros(1), 1.0, np.array([bits_per_s]))


def round_trip(trace: Trace, default_s: float) -> Callable[[float], float]:
    """The trace's round trip over time, seconds; ``default_s`` throughout where it has none."""
    measured_s = trace.rtt_s
    if measured_s is None:
        return lambda _time_s: default_s
    starts_s = trace.time_s

    def at(time_s: float) -> float:
        row = int(np.searchsorted(starts_s, time_s % trace.duration_s, side="right")) - 1
        return float(measured_s[row])

    return at


def slices(data: bytes, packet_bytes: int) -> list[bytes]:
    """``data`` in packets of at most ``packet_bytes``."""
    return [data[at : at + packet_bytes] for at in range(0, len(data), packet_bytes)]

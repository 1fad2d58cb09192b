"""One direction of a link as a state machine over values: when each packet leaves and when it arrives.

There is no socket and no clock; the time is an argument of every call. The line is serial, first in, first out. A
packet leaves when the line has carried its last byte, by the arithmetic of the simulated world (`TraceUplink`). It
arrives half a round trip later, never before the packet ahead of it. No packet is dropped, because TCP would send it
again. In a blackhole bytes are held, and a lost packet arrives one round trip late, with the packets after it.
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
    """One packet. Its remaining ``to_send`` bytes are sent from ``begins_s`` to ``leaves_s``.

    ``luck`` is a standard normal draw for its jitter. ``lost`` is True where its first transmission fails.
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
    """The packets of one direction, in order. ``rtt_s`` maps the time when a packet leaves to its round trip."""

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
        self._free_s = 0.0  # when the last packet that was taken left, and arrived
        self._arrived_s = 0.0
        self._packets: deque[Packet[T]] = deque()
        self.conditions = conditions or Conditions()
        self.held_bytes = 0

    def put(self, now_s: float, items: Sequence[T], sizes: Sequence[int]) -> None:
        """Add packets, one for each item, of ``sizes`` bytes. A time earlier than the last call's counts as that."""
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
        """The items that have arrived by ``now_s``, in order. Each is returned once."""
        arrived: list[T] = []
        while self._packets and self._packets[0].arrives_s <= now_s:
            packet = self._packets.popleft()
            self._free_s, self._arrived_s = packet.leaves_s, packet.arrives_s
            self.held_bytes -= packet.size
            arrived.append(packet.item)
        return arrived

    def next_s(self) -> float:
        """Time of the next arrival under the present conditions; infinity where there is none."""
        return self._packets[0].arrives_s if self._packets else math.inf

    def queued_s(self, now_s: float) -> float:
        """Wait for the line of a byte that enters now; infinity where a blackhole holds bytes ahead of it."""
        last_s = self._packets[-1].leaves_s if self._packets else self._free_s
        return max(last_s - now_s, 0.0)

    def change(self, now_s: float, conditions: Conditions) -> None:
        """Set the conditions from now on. Packets that have not left yet are planned again."""
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
        """Bytes that the line carries in a span under the present conditions."""
        if self.conditions.dark or end_s <= start_s:
            return 0.0
        carried = self._uplink.bytes_between(LANE, np.array([start_s]), np.array([end_s]))
        return float(carried[0]) * self.conditions.bandwidth_factor

    def _plan(self, packets: Sequence[Packet[T]], ahead: Packet[T] | None) -> None:
        """Set the times of waiting ``packets``, which follow the packet ``ahead``."""
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
        """Times at which so many bytes have left since ``start_s``, shape `[N]`; infinity on a stopped line."""
        factor = self.conditions.bandwidth_factor
        if self.conditions.dark or factor <= 0.0 or start_s >= NEVER_S:
            return np.full(len(payload), math.inf)
        lanes = np.zeros(len(payload), dtype=np.int64)
        finish = self._uplink.finish_s(lanes, np.full(len(payload), start_s), payload / factor)
        return np.where(finish >= NEVER_S, math.inf, finish)

    def _way_s(self, packet: Packet[T]) -> float:
        """Delay from the line's end to the receiver: half a round trip, and a whole one more for a lost packet."""
        if packet.leaves_s == math.inf:
            return 0.0
        rtt_s = self._rtt_s(packet.leaves_s) + self.conditions.extra_latency_s
        return max(rtt_s / 2 + self.conditions.jitter_s * packet.luck, 0.0) + (rtt_s if packet.lost else 0.0)


def uplink_of(trace: Trace) -> TraceUplink:
    """A line that plays ``trace`` from its start, over and over."""
    return TraceUplink.of([trace])


def constant(bits_per_s: float) -> Trace:
    """A trace of one bandwidth."""
    return Trace("constant", np.zeros(1), 1.0, np.array([bits_per_s]))


def round_trip(trace: Trace, default_s: float) -> Callable[[float], float]:
    """The trace's round trip as a function of time, seconds; ``default_s`` where the trace has none."""
    measured_s = trace.rtt_s
    if measured_s is None:
        return lambda _time_s: default_s
    starts_s = trace.time_s

    def at(time_s: float) -> float:
        row = int(np.searchsorted(starts_s, time_s % trace.duration_s, side="right")) - 1
        return float(measured_s[row])

    return at


def slices(data: bytes, packet_bytes: int) -> list[bytes]:
    """``data``, cut into packets of at most ``packet_bytes``."""
    return [data[at : at + packet_bytes] for at in range(0, len(data), packet_bytes)]

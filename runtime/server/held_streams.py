"""The streams that a server holds: for each the number of its last payload, and what the next one is relative to.

Values only; the time is passed in. Clients are strangers, so everything has a limit. The least recently used stream is
forgotten first. A device whose stream was forgotten gets "reference unknown", and sends a key.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

__all__ = ["OVERHEAD_BYTES", "HeldStream", "HeldStreams", "Limits"]

OVERHEAD_BYTES = 1 << 10  # of one entry besides its state: names, lock, tables' slots


@dataclass(frozen=True)
class Limits:
    """Limits of all streams, and of those of one device id.

    Args:
        most_bytes: of all. A stream of video takes 1 MiB, one of cuts less than a tenth.
        most_bytes_of_one: of the streams of one device: all cuts, and a dozen settings of video.
        forget_s: time without a message. A device sends a key by itself after half of it.
    """

    most_bytes: int = 128 << 20
    most_bytes_of_one: int = 16 << 20
    forget_s: float = 60.0


@dataclass(eq=False)
class HeldStream:
    """One stream. `state` is what its next payload is relative to; None until its first key has been decoded.

    `lock` gives payloads their turns in the order in which they came; `under_way` is their number.
    """

    device: str
    name: str
    used_s: float
    sequence: int = -1
    state: Any = None
    size: int = 0  # bytes with overhead; 0 until there is a state
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    under_way: int = 0


@dataclass(eq=False)
class _Device:
    """One device's streams by name, least recently used first."""

    used_s: float
    size: int = 0
    streams: OrderedDict[str, HeldStream] = field(default_factory=OrderedDict)


class HeldStreams:
    """All streams. Devices and their streams are in the order of their last use."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._devices: OrderedDict[str, _Device] = OrderedDict()
        self.size = self._count = 0

    def __len__(self) -> int:
        return self._count

    def find(self, device: str, name: str, now_s: float) -> HeldStream | None:
        """The stream of that device and name, marked as used now. None where there is none any more."""
        self._forget_old(device, now_s)
        owner = self._devices.get(device)
        if owner is None or name not in owner.streams:
            return None
        stream = owner.streams[name]
        owner.used_s = stream.used_s = now_s
        self._devices.move_to_end(device)
        owner.streams.move_to_end(name)
        return stream

    def open(self, device: str, name: str, now_s: float) -> HeldStream:
        """The same, or a new one without state, because a key is about to be decoded."""
        found = self.find(device, name, now_s)
        if found is None:
            found = HeldStream(device, name, now_s)
            owner = self._devices.setdefault(device, _Device(now_s))
            owner.used_s, owner.streams[name] = now_s, found
            self._devices.move_to_end(device)
            self._count += 1
        return found

    def keep(self, stream: HeldStream, sequence: int, state: Any, size: int) -> None:
        """Take the state behind a decoded payload, of `size` bytes. Forgets others where there is no room.

        A stream that was forgotten while its payload was being decoded stays forgotten.
        """
        owner = self._owner(stream)
        if owner is None:
            return
        self._resize(stream, owner, size + OVERHEAD_BYTES)
        stream.sequence, stream.state = sequence, state
        while owner.size > self._limits.most_bytes_of_one:
            self.forget(_oldest(owner))
        while self.size > self._limits.most_bytes:
            self.forget(_oldest(next(device for device in self._devices.values() if device.size)))

    def clear(self, stream: HeldStream) -> None:
        """Drop a stream's state, because a payload of it was damaged. Keys may be under way behind that one."""
        owner = self._owner(stream)
        if owner is not None:
            self._resize(stream, owner, 0)
        stream.sequence, stream.state = -1, None

    def forget(self, stream: HeldStream) -> None:
        """Drop a stream, unless another one has its place by now."""
        owner = self._owner(stream)
        if owner is None:
            return
        self._resize(stream, owner, 0)
        del owner.streams[stream.name]
        self._count -= 1
        if not owner.streams:
            del self._devices[stream.device]

    def _owner(self, stream: HeldStream) -> _Device | None:
        """The device that a stream is held for; None where it was forgotten."""
        owner = self._devices.get(stream.device)
        return owner if owner is not None and owner.streams.get(stream.name) is stream else None

    def _forget_old(self, device: str, now_s: float) -> None:
        """Drop all streams of devices that were silent for too long, and such streams of this device."""
        before_s = now_s - self._limits.forget_s
        while self._devices and (owner := next(iter(self._devices.values()))).used_s <= before_s:
            self.forget(next(iter(owner.streams.values())))
        while (own := self._devices.get(device)) and (oldest := next(iter(own.streams.values()))).used_s <= before_s:
            self.forget(oldest)

    def _resize(self, stream: HeldStream, owner: _Device, size: int) -> None:
        self.size += size - stream.size
        owner.size += size - stream.size
        stream.size = size


def _oldest(owner: _Device) -> HeldStream:
    """The stream that was not used for the longest time, of those that hold bytes."""
    return next(stream for stream in owner.streams.values() if stream.size)

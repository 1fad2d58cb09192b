"""The operating points of a profile on a chain of machines, as columns for the world and the controllers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from tidesplit.profiling.points.profile import Power, Profile, ProfileError
from tidesplit.profiling.points.stream_columns import KEY, Streams

USUAL_JITTER = 0.03  # relative spread of a run's time on a machine whose table does not say it; assumed
Seconds = TypeVar("Seconds", float, NDArray[np.float64])


@dataclass(frozen=True, kw_only=True)
class HopColumns:
    """The part of every operating point on one hop, columns ``[A]``, seconds and bytes."""

    partition: NDArray[np.int64]  # cut whose bytes cross the hop; the last partition P where nothing does
    channel_ratio: NDArray[np.float64]
    region_ratio: NDArray[np.float64]
    bits: NDArray[np.int64]  # a value; at partition 0 the quality of the picture
    sends: NDArray[np.bool_]  # True where bytes cross the hop
    relays: NDArray[np.bool_]  # True where the server before the hop passes on unchanged what it got
    compute_s: NDArray[np.float64]  # decode, stretch of the CNN and encode at the server before; 0 on the first hop
    bytes_mean: NDArray[np.float64]  # of a stream with the frame before as reference
    bytes_sigma: NDArray[np.float64]  # relative spread of the bytes


class Machine(NamedTuple):
    """Facts of the device that hold for all operating points."""

    idle_w: float = 0.0  # watts while it does nothing
    busy_w: float = 0.0  # watts while it runs a CNN on all its threads
    threads: int = 1

    @property
    def run_w(self) -> float:
        """Watts that a run adds to those of an idle machine."""
        return self.busy_w - self.idle_w

    @property
    def light_w(self) -> float:
        """The same of work on one thread, such as the encoding of a picture."""
        return self.run_w / self.threads

    def joules(self, seconds: Seconds, busy_s: Seconds, light_s: Seconds) -> Seconds:
        """Energy of some seconds, of which it runs CNNs for ``busy_s`` and works on one thread for ``light_s``."""
        return self.idle_w * seconds + self.run_w * busy_s + self.light_w * light_s


UNKNOWN_MACHINE = Machine()


@dataclass(frozen=True, kw_only=True)
class PointTable:
    """The operating points of a profile on one chain of machines, columns ``[A]``, seconds."""

    ids: tuple[str, ...]
    hops: tuple[HopColumns, ...]  # traffic on each hop, the uplink first
    head_s: NDArray[np.float64]  # the device's loop, head and encode
    server_s: NDArray[np.float64]  # decode and tail at the server that answers; 0 where the device does
    finish_s: NDArray[np.float64]  # time of the device to finish a frame by itself; infinity where it cannot
    accuracy: NDArray[np.float64]
    finish_accuracy: NDArray[np.float64]  # accuracy of the device's own finish; 0 where it cannot finish
    races: NDArray[np.bool_]  # True where the device begins its own finish as soon as the bytes are on their way
    jitter: NDArray[np.float64]  # relative log-normal spread of the device's time for one run
    machine: Machine = UNKNOWN_MACHINE  # the device
    streams: Streams = field(default_factory=lambda: Streams.none(0))  # on the first hop; none unless given

    def __post_init__(self) -> None:
        if not self.streams.count and len(self.streams.of) != self.size:
            object.__setattr__(self, "streams", Streams.none(self.size))

    @property
    def size(self) -> int:
        """Number of operating points, A."""
        return len(self.ids)

    @cached_property
    def local(self) -> NDArray[np.bool_]:
        """True where nothing leaves the device."""
        return ~self.hops[0].sends

    @cached_property
    def light(self) -> NDArray[np.bool_]:
        """True where the device only encodes a picture, on one thread."""
        light: NDArray[np.bool_] = self.hops[0].partition == 0
        return light

    @cached_property
    def images(self) -> NDArray[np.bool_]:
        """True where the server that answers gets the picture as it is."""
        images = self.light
        for hop in self.hops[1:]:
            images = images & (hop.compute_s == 0.0)
        return images

    def take(self, rows: NDArray[np.int64] | list[int]) -> PointTable:
        """The table of these rows, in this order."""
        ids = tuple(self.ids[int(i)] for i in rows)
        return self.with_columns(lambda column: column[rows], ids, self.streams.take(rows))

    def without_pictures(self) -> PointTable:
        """The table of the points at which no picture leaves the device.

        Raises:
            ProfileError: there is none.
        """
        if self.light.all():
            raise ProfileError("every operating point sends pictures")
        return self.take(np.flatnonzero(~self.light))

    def with_columns(
        self, act: Callable[[NDArray[Any]], NDArray[Any]], ids: tuple[str, ...], streams: Streams | None = None
    ) -> PointTable:
        """The table with the points' new ``ids``, and ``act`` applied to every column and to those of the hops.

        ``streams``: of the new points. None: they are as before, and one set of them serves all lanes.
        """

        def changed(part: PointTable | HopColumns) -> dict[str, Any]:
            columns = {f.name: getattr(part, f.name) for f in fields(part)}
            return {name: act(column) for name, column in columns.items() if isinstance(column, np.ndarray)}

        hops = tuple(HopColumns(**changed(hop)) for hop in self.hops)
        return replace(self, ids=ids, hops=hops, streams=streams or self.streams, **changed(self))

    def row(self, point_id: str) -> int:
        """Row of an operating point.

        Raises:
            ProfileError: the table does not have it.
        """
        if point_id not in self.ids:
            raise ProfileError(f"no operating point {point_id!r}; there are {', '.join(self.ids)}")
        return self.ids.index(point_id)


def table_for(profile: Profile, device: str, server: str) -> PointTable:
    """Every operating point of a profile on the chain of ``device`` and ``server``, labels of its machines.

    Raises:
        ProfileError: the profile has no timings of a machine.
    """
    for label in (device, server):
        if label not in profile.devices:
            has = ", ".join(profile.devices)
            raise ProfileError(f"profile {profile.name} has no timings of {label!r}; it has {has}")
    machine, on_server = profile.devices[device], profile.devices[server].timings
    on_device, points = machine.timings, profile.points
    fallbacks = [None if p.fallback is None else profile.point(p.fallback) for p in points]
    sends = np.array([p.codec != "none" for p in points])
    uplink = HopColumns(
        partition=np.array([p.partition for p in points]),
        channel_ratio=_column(p.channel_ratio for p in points),
        region_ratio=_column(p.region_ratio for p in points),
        bits=np.array([p.bits for p in points]),
        sends=sends,
        relays=np.zeros_like(sends),
        compute_s=np.zeros(len(points)),
        bytes_mean=_column(p.bytes_mean for p in points),
        bytes_sigma=_column(p.bytes_std / p.bytes_mean if p.bytes_mean > 0 else 0.0 for p in points),
    )
    return PointTable(
        ids=tuple(p.id for p in points),
        hops=(uplink,),
        head_s=_column(machine.loop_s + on_device[p.id].head_s + on_device[p.id].encode_s for p in points),
        server_s=_column(on_server[p.id].decode_s + on_server[p.id].tail_s for p in points) * sends,
        finish_s=_column(on_device[p.id].finish_s if p.fallback else math.inf for p in points),
        accuracy=_column(p.accuracy for p in points),
        finish_accuracy=_column(0.0 if f is None else f.accuracy for f in fallbacks),
        races=np.zeros_like(sends),
        jitter=_column(machine.jitter.get(p.precision, USUAL_JITTER) for p in points),
        machine=Machine(threads=machine.threads) if machine.power is None else _machine(machine.power, machine.threads),
        streams=Streams.of_points(points),
    )


def _machine(power: Power, threads: int) -> Machine:
    return Machine(power.idle_w, power.busy_w, threads)


def without_streams(table: PointTable, factor: NDArray[np.float64]) -> PointTable:
    """The table whose payloads always have ``factor`` ``[A]`` times the bytes of a steady stream."""
    uplink, *further = table.hops
    uplink = replace(uplink, bytes_mean=uplink.bytes_mean * factor)
    return replace(table, hops=(uplink, *further), streams=Streams.none(table.size))


def as_keys(table: PointTable) -> PointTable:
    """The table in which every payload of a stream is a key."""
    return without_streams(table, table.streams.growth[:, KEY])


def undominated(table: PointTable) -> PointTable:
    """Drop each point that another one beats or equals in all costs.

    The costs are device time, time of all servers together, bytes on each hop, use of each further hop, and lost
    accuracy. A stream has to have no more bytes at any age of its reference, and as a key. Of points that are equal in
    all costs the first stays.
    """
    first, *further = table.hops
    servers_s = sum((hop.compute_s for hop in further), start=table.server_s)
    costs = [
        table.head_s,
        *(first.bytes_mean * growth for growth in table.streams.growth.T),
        servers_s,
        -table.accuracy,
    ]
    for hop in further:
        costs += [hop.sends.astype(np.float64), hop.bytes_mean]
    cost = np.stack(costs, axis=1)
    as_good = (cost[:, None, :] <= cost[None, :, :]).all(axis=2)  # [i, j]: i is as good as j
    equal = as_good & as_good.T
    before = np.triu(np.ones_like(equal), k=1)  # [i, j]: i is listed before j
    beaten = (as_good & (~equal | before)).any(axis=0)
    return table.take(np.flatnonzero(~beaten))


def representative(
    table: PointTable,
    head_step: float = 1.5,
    bytes_step: float = 2.0,
    instead_of_head: NDArray[np.float64] | None = None,
) -> PointTable:
    """Keep each point that is the most accurate within some budget of device time and bytes.

    The budgets form a geometric grid, which turns a choice among hundreds into one among dozens. Ties go to less device
    time, then to fewer bytes. With finer steps of 1.25 and 1.5, searches and policies did worse on training traces,
    because many of the points were equally good.

    ``instead_of_head`` ``[A]`` is a cost in place of device time. The steps are factors between two budgets.
    """
    cost = table.head_s if instead_of_head is None else instead_of_head
    crossing = table.hops[0].bytes_mean
    order = np.lexsort((crossing, cost, -table.accuracy))
    crossing, cost = crossing[order], cost[order]
    fits_head = cost[None, :] <= _grid(cost, head_step)[:, None]  # [H, A]
    fits_bytes = crossing[None, :] <= _grid(crossing, bytes_step)[:, None]  # [Y, A]
    fits = fits_head[:, None, :] & fits_bytes[None, :, :]
    best = np.argmax(fits, axis=2)[fits.any(axis=2)]
    return table.take(np.sort(order[np.unique(best)]))


def _grid(values: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    positive = values[values > 0.0]
    if not positive.size:
        return np.zeros(1)
    count = int(np.ceil(np.log(positive.max() / positive.min()) / np.log(step))) + 1
    return np.append(0.0, positive.min() * step ** np.arange(count + 1))


def above_floor(table: PointTable, min_accuracy: float) -> NDArray[np.bool_]:
    """True for the points at or above an accuracy floor, ``[A]``.

    Raises:
        ProfileError: no point reaches the floor.
    """
    mask: NDArray[np.bool_] = table.accuracy >= min_accuracy
    if not mask.any():
        best = int(np.argmax(table.accuracy))
        raise ProfileError(
            f"an accuracy of {min_accuracy:g} is asked for and no operating point reaches it; "
            f"the best is {table.ids[best]} with {table.accuracy[best]:.4f}"
        )
    return mask


def _column(values: Iterable[float]) -> NDArray[np.float64]:
    return np.array(list(values), dtype=np.float64)

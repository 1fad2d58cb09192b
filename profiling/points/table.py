"""The operating points as one device and one server see them: the columns that the world computes with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidesplit.profiling.points.profile import Profile, ProfileError


@dataclass(frozen=True, kw_only=True)
class HopColumns:
    """The part of every operating point on one hop: columns ``[A]``, seconds and bytes.

    ``partition``, ``channel_ratio``, ``region_ratio``, ``bits``: the cut whose bytes cross; partition P where nothing
    does. ``sends``: True where something crosses. ``relays``: True where the machine before the hop received it so.
    ``compute_s``: decode, stretch of the CNN and encode at the server before the hop; 0 on the first hop, where the
    device's ``head_s`` has it. ``bytes_mean``, ``bytes_sigma``: mean of the bytes and their relative spread.
    """

    partition: NDArray[np.int64]
    channel_ratio: NDArray[np.float64]
    region_ratio: NDArray[np.float64]
    bits: NDArray[np.int64]
    sends: NDArray[np.bool_]
    relays: NDArray[np.bool_]
    compute_s: NDArray[np.float64]
    bytes_mean: NDArray[np.float64]
    bytes_sigma: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class PointTable:
    """A profile seen by one chain of machines: the columns that the world and the controllers compute with.

    Every array has shape ``[A]``; seconds and bytes. ``hops``: one for each link of the chain, the uplink first; two
    tiers have one. ``finish_s`` is infinite and ``finish_accuracy`` 0 where the device cannot finish the frame by
    itself. ``server_s``: decode and tail at the machine that answers; 0 on the device.
    """

    ids: tuple[str, ...]
    hops: tuple[HopColumns, ...]
    head_s: NDArray[np.float64]
    server_s: NDArray[np.float64]
    finish_s: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    finish_accuracy: NDArray[np.float64]

    @property
    def size(self) -> int:
        """Number of operating points, A."""
        return len(self.ids)

    @property
    def local(self) -> NDArray[np.bool_]:
        """True where nothing leaves the device."""
        return ~self.hops[0].sends

    def take(self, rows: NDArray[np.int64] | list[int]) -> PointTable:
        """The table of these rows alone, in this order."""
        return self.with_columns(lambda column: column[rows], tuple(self.ids[int(i)] for i in rows))

    def with_columns(self, act: Callable[[NDArray[Any]], NDArray[Any]], ids: tuple[str, ...]) -> PointTable:
        """The table with ``act`` done to every column, those of the hops too."""

        def done(part: PointTable | HopColumns, *left_out: str) -> dict[str, NDArray[Any]]:
            return {f.name: act(getattr(part, f.name)) for f in fields(part) if f.name not in left_out}

        return PointTable(
            ids=ids, hops=tuple(HopColumns(**done(hop)) for hop in self.hops), **done(self, "ids", "hops")
        )

    def row(self, point_id: str) -> int:
        """Row of that operating point."""
        if point_id not in self.ids:
            raise ProfileError(f"no operating point {point_id!r}; there are {', '.join(self.ids)}")
        return self.ids.index(point_id)


def table_for(profile: Profile, device: str, server: str) -> PointTable:
    """Columns of every operating point, timed on ``device`` (head, encode, finish) and ``server`` (decode, tail)."""
    for label in (device, server):
        if label not in profile.devices:
            has = ", ".join(profile.devices)
            raise ProfileError(f"profile {profile.name} has no timings of {label!r}; it has {has}")
    on_device, on_server = profile.devices[device].timings, profile.devices[server].timings
    points = profile.points
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
        head_s=_column(on_device[p.id].head_s + on_device[p.id].encode_s for p in points),
        server_s=_column(on_server[p.id].decode_s + on_server[p.id].tail_s for p in points) * sends,
        finish_s=_column(on_device[p.id].finish_s if p.fallback else math.inf for p in points),
        accuracy=_column(p.accuracy for p in points),
        finish_accuracy=_column(0.0 if f is None else f.accuracy for f in fallbacks),
    )


def undominated(table: PointTable) -> PointTable:
    """Drop each point that another one beats or equals in every cost at once.

    Costs: device time, time of all servers together, bytes on each hop, use of each further hop, lost accuracy. Among
    points equal in all of these the first stays.
    """
    first, *further = table.hops
    servers_s = sum((hop.compute_s for hop in further), start=table.server_s)
    costs = [table.head_s, first.bytes_mean, servers_s, -table.accuracy]
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
    """Keep the points that are the most accurate within some budget of device time and bytes.

    The budgets form a geometric grid with these steps, so points that differ by less stand for each other and a choice
    among hundreds becomes one among dozens. Ties go to less device time, then to fewer bytes. Finer grids serve nobody:
    with steps of 1.25 and 1.5 searches and policies did worse on training traces, lost among points that are as good.
    ``instead_of_head`` ``[A]``: another cost than device time.
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
    """Mask ``[A]`` of the points at or above an accuracy floor; a floor that no point reaches is the user's error."""
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

"""The forecast: consequences of each operating point if the links stay as believed. The hot loop of the simulator."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tidesplit.envs.world.belief import UNKNOWN_AGE_S
from tidesplit.envs.world.fields import NEEDS_KEY, Column, Foreseen, Seen, fields_of, foreseen
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import Floats, Ints
from tidesplit.profiling.points.motion import in_motion
from tidesplit.profiling.points.stream_columns import column_of
from tidesplit.profiling.points.table import PointTable

Number = TypeVar("Number", np.float32, np.float64, np.bool_)
CACHE_LINE = 16  # float32 values; without this gap, rows of a power-of-two length fall into the same sets of the cache


def foresee(
    now: Seen,
    table: PointTable,
    last_point: Ints,
    world: World,
    reference_age: Floats | None = None,
    motion: Floats | None = None,
) -> NDArray[np.float32]:
    """Forecast every operating point, ``[F, A, B]`` in single precision.

    For speed, the lanes of a point are neighbours in memory, and bounds use `np.clip`: NumPy vectorises it, but not
    `np.maximum` with a scalar.

    ``now`` has columns ``[B]``, ``table`` has ``[A]`` for all lanes or ``[B, A]``. ``last_point`` ``[B]`` is the row of
    the previous frame's point, -1 if there is none. ``reference_age`` and ``motion`` are those of `Situation`.
    """
    fields, lanes = len(fields_of(len(table.hops)).points), len(now.waited_s)
    columns = np.empty((fields, table.size, lanes + CACHE_LINE), dtype=np.float32)[:, :, :lanes]
    out = foreseen(columns)
    uplink, link = table.hops[0], now.hops[0]
    local = _copy_table(out, table, last_point, world)
    crosses = 1.0 - local
    payload = (_single(uplink.bytes_mean) + np.float32(world.overhead_bytes)) * crosses
    out.payload[:] = out.steady_payload[:] = payload
    out.reference_age[:] = 0.0
    if table.streams.count:
        _foresee_streams(out, table, reference_age, motion)
        payload = out.payload
    head = np.multiply(_single(table.head_s), now.slow_down, out=out.head_s)
    heavy = points_first(~table.light)  # an encoder does not wait for the worker
    if now.worker_s.any():
        head += now.worker_s * heavy
    if now.finish_pending_s.any():
        head += now.finish_pending_s * (heavy & (now.finish_due_s < head))
    finish = np.multiply(np.minimum(_single(table.finish_s), UNKNOWN_AGE_S) * crosses, now.slow_down, out=out.finish_s)
    leaves = np.maximum(head, link.queue_s * crosses)
    asleep = now.awake_s <= 0.0
    if asleep.any():
        leaves += crosses * (asleep * np.float32(world.radio.promotion_s))
    leaves += payload * (1.0 / link.goodput)
    away = (link.rtt_s + now.server_wait_s + out.server_s) * crosses
    away += leaves
    later = payload * (1.0 / link.goodput_low - 1.0 / link.goodput)
    later += link.stalled_s * crosses
    _foresee_further(out, now, table, world, leaves, away, later)
    away += now.waited_s
    latency = np.clip(away, 0.0, UNKNOWN_AGE_S, out=out.latency_s)
    slack = np.subtract(now.deadline_s, latency, out=out.slack_s)
    np.clip(slack - later, -UNKNOWN_AGE_S, np.inf, out=out.slack_low_s)
    _foresee_energy(out, now, table, world, leaves)
    busy = np.maximum(head, now.worker_s)
    if table.races.any():
        busy += finish * out.races
    busy += now.waited_s - now.period_s
    np.clip(busy, 0.0, np.inf, out=out.device_queue_s)
    np.copyto(leaves, link.queue_s, where=points_first(~uplink.sends))  # a local point leaves the queue as it is
    leaves -= now.period_s
    np.clip(leaves, 0.0, UNKNOWN_AGE_S, out=out.link_queue_s)
    head_and_finish = head + finish
    np.subtract(now.deadline_s - np.float32(world.guard_s) - now.waited_s, head_and_finish, out=out.finish_slack_s)
    return columns


def _copy_table(out: Foreseen, table: PointTable, last_point: Ints, world: World) -> Column:
    """Fill the columns that do not depend on the state. Returns ``out.local`` as ``[A, 1]`` or ``[A, B]``."""
    out.local[:] = local = _single(~table.hops[0].sends)
    out.accuracy[:] = accuracy = _single(table.accuracy)
    out.server_s[:] = world.serving_s(_single(table.server_s), points_first(table.images))
    out.finish_accuracy[:] = np.where(local, accuracy, _single(table.finish_accuracy))
    out.is_last[:] = 0.0
    lane = np.flatnonzero(last_point >= 0)
    out.is_last[last_point[lane], lane] = 1.0
    out.races[:] = _single(table.races)
    return local


def _foresee_streams(out: Foreseen, table: PointTable, reference_age: Floats | None, motion: Floats | None) -> None:
    """Forecast the payloads of streams. Without a ``reference_age`` every stream needs a key."""
    streams, lanes = table.streams, out.payload.shape[1]
    age = np.full((streams.count, lanes), np.inf) if reference_age is None else reference_age.T
    rows, of = streams.rows, streams.of[streams.rows]
    column, factors = column_of(age)[of], streams.factors.astype(np.float32)
    factor = factors[rows[:, None], column]  # [R, B]
    body = points_first(table.hops[0].bytes_mean).astype(np.float32)[rows]
    if motion is not None:
        lively, cap = motion.T.astype(np.float32)[of], streams.cap.astype(np.float32)[rows, None]
        factor = np.where(column == 0, factor, in_motion(factor, cap, lively))
        out.steady_payload[rows] += body * (in_motion(factors[rows, 1:2], cap, lively) - np.float32(1.0))
    out.payload[rows] += body * (factor - np.float32(1.0))
    out.reference_age[rows] = np.where(np.isfinite(age), np.minimum(age, NEEDS_KEY - 1.0), NEEDS_KEY)[of]


def _foresee_energy(out: Foreseen, now: Seen, table: PointTable, world: World, leaves: Column) -> None:
    """Forecast the energy of each point. After ``leaves`` its bytes have left the device, ``[A, B]``."""
    machine, radio = table.machine, world.radio
    watts = np.where(points_first(table.light), np.float32(machine.light_w), np.float32(machine.run_w))
    joules = np.multiply(_single(table.head_s) * watts, now.slow_down, out=out.joules)
    if table.races.any():
        joules += out.finish_s * _single(table.races * machine.run_w)
    crosses, cost = points_first(table.hops[0].sends), out.cost
    sending = np.float32(radio.sending_w - radio.tail_w) / now.hops[0].goodput + np.float32(radio.joules_per_byte)
    joules += np.multiply(out.payload, sending, out=cost)
    if (asleep := now.awake_s <= 0.0).any():
        joules += crosses * (asleep * np.float32(radio.promotion_s * (radio.promotion_w - radio.tail_w)))
    np.add(joules, crosses * (np.float32(radio.tail_w) * now.period_s), out=cost)
    cost *= now.joule_price
    if now.byte_price.any():
        cost += out.payload * now.byte_price
    longer = np.maximum(out.head_s, now.awake_s)
    np.subtract(leaves, longer, out=longer)
    longer += np.float32(radio.tail_s)
    longer *= crosses * np.float32(radio.tail_w)
    joules += longer


def _foresee_further(
    out: Foreseen, now: Seen, table: PointTable, world: World, leaves: Column, away: Column, later: Column
) -> None:
    """Forecast the traffic on the hops beyond the first, and add its time to ``away`` and ``later``.

    After ``leaves`` the point's bytes have left the device, after ``away`` the answer is there, and ``later`` is the
    extra time at the lowest goodput, all from now and ``[A, B]``. The last two are changed in place.
    """
    wait_s, before = now.server_wait_s, now.hops[0]
    for hop, link, ahead in zip(table.hops[1:], now.hops[1:], out.further, strict=True):
        relays, payload = points_first(hop.relays), ahead.payload
        ahead.sends[:] = sends = points_first(hop.sends).astype(np.float32)
        ahead.compute_s[:] = compute_s = world.serving_s(_single(hop.compute_s), points_first(table.light))
        payload[:] = (_single(hop.bytes_mean) + np.float32(world.overhead_bytes)) * sends
        takes = payload * (1.0 / link.goodput)
        arrives = leaves + (0.5 * before.rtt_s + wait_s * ~relays)
        np.clip((arrives + compute_s) * sends, 0.0, UNKNOWN_AGE_S, out=ahead.ready_s)
        through = np.maximum(compute_s, link.queue_s - arrives) + takes
        leaves = arrives + through
        taken = np.where(points_first(hop.sends), leaves, link.queue_s) - now.period_s
        np.clip(taken, 0.0, UNKNOWN_AGE_S, out=ahead.queue_s)
        through += link.rtt_s
        through -= wait_s * relays
        away += through * sends
        later += payload * (1.0 / link.goodput_low - 1.0 / link.goodput) + link.stalled_s * sends
        before, wait_s = link, np.zeros_like(wait_s)


def _single(column: NDArray[Any]) -> NDArray[np.float32]:
    """A column of the table in single precision, ``[A, 1]`` or ``[A, B]``."""
    return points_first(column.astype(np.float32))


def points_first(column: NDArray[Number]) -> NDArray[Number]:
    """A column of the table, ``[A]`` or ``[B, A]``, as ``[A, 1]`` or ``[A, B]``."""
    return column.T if column.ndim == 2 else column[:, None]

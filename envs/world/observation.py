"""The observation: what a controller is told when a frame's turn comes, and what each point would lead to.

The simulator and the device both build it here, so a policy sees on the device exactly what it saw in training.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from tidesplit.envs.world.belief import UNKNOWN_AGE_S, LinkBelief, believe, with_finishes_of
from tidesplit.envs.world.vocabulary import Bools, Demands, Floats, Ints, Transfers
from tidesplit.profiling.points.table import Onward, PointTable


class Situation(NamedTuple):
    """All that the device knows when a frame's turn comes, shapes ``[B]``.

    ``blocked``: nothing may be sent now, since the device's breaker is open. ``onward``: what went over the second
    link, in three tiers.
    """

    now_s: Floats
    waited_s: Floats
    transfers: Transfers
    slow_down: Floats
    last_point: Ints
    blocked: Bools | None = None
    onward: Transfers | None = None


STATE_FIELDS = (
    "waited_s", "deadline_s", "period_s", "for_latency",
    "goodput", "goodput_last", "goodput_low", "goodput_age_s", "goodput_spread",
    "rtt_s", "server_wait_s", "in_flight", "in_flight_bytes", "stalled_s", "link_queue_s",
    "since_sent_s", "finish_pending_s", "finish_due_s", "slow_down",
)  # fmt: skip
POINT_FIELDS = (
    "local", "accuracy", "head_s", "payload", "server_s", "finish_s", "finish_accuracy",
    "latency_s", "slack_s", "slack_low_s", "device_queue_s", "link_queue_s", "finish_slack_s", "is_last",
)  # fmt: skip
# What three tiers add, each group after the two tiers' own: a name has one place, whatever the number of tiers.
ONWARD_STATE_FIELDS = (
    "onward_goodput", "onward_goodput_last", "onward_goodput_low", "onward_goodput_age_s", "onward_goodput_spread",
    "onward_rtt_s", "onward_in_flight", "onward_in_flight_bytes", "onward_stalled_s", "onward_since_sent_s",
    "onward_queue_s",
)  # fmt: skip
ONWARD_POINT_FIELDS = ("sends_onward", "onward_payload", "middle_s", "onward_at_s", "onward_queue_s")


class Fields(NamedTuple):
    """Names of an observation's columns."""

    state: tuple[str, ...]
    points: tuple[str, ...]

    def width(self, points: int) -> int:
        """Length of a flat observation of so many operating points."""
        return len(self.state) + len(self.points) * points


TWO_TIERS = Fields(STATE_FIELDS, POINT_FIELDS)
THREE_TIERS = Fields(STATE_FIELDS + ONWARD_STATE_FIELDS, POINT_FIELDS + ONWARD_POINT_FIELDS)


def fields_of(tiers: int) -> Fields:
    """The columns that an observation has in so many tiers."""
    return TWO_TIERS if tiers == 2 else THREE_TIERS


Number = TypeVar("Number", np.float32, np.float64, np.bool_)
CACHE_LINE = 16  # float32 values; rows of a power-of-two length would fall into the same few sets of the cache


class Observation(NamedTuple):
    """SI values: ``state`` ``[B, S]`` and ``points`` ``[B, F, A]`` in the order of `fields_of`, ``mask`` ``[B, A]``."""

    state: NDArray[np.float32]
    points: NDArray[np.float32]
    mask: Bools

    def of(self, name: str) -> NDArray[np.float32]:
        """A state column ``[B]``."""
        return self.state[:, THREE_TIERS.state.index(name)]

    def of_points(self, name: str) -> NDArray[np.float32]:
        """A point column ``[B, A]``."""
        return self.points[:, THREE_TIERS.points.index(name)]

    @property
    def tiers(self) -> int:
        """Two, or three with a second link."""
        return 2 if self.state.shape[1] == len(TWO_TIERS.state) else 3

    def take(self, lanes: Ints) -> Observation:
        """The observation of these lanes."""
        return Observation(self.state[lanes], self.points[lanes], self.mask[lanes])

    def flat(self) -> NDArray[np.float32]:
        """One row a lane, ``[B, S + F * A]``: what Gymnasium and SB3 carry."""
        lanes, fields, points = self.points.shape
        told = self.state.shape[1]
        rows = np.empty((lanes, told + fields * points), dtype=np.float32)
        rows[:, :told] = self.state
        rows[:, told:].reshape(lanes, fields, points)[:] = self.points
        return rows


def unflatten(flat: NDArray[np.float32], mask: Bools) -> Observation:
    """The observation in flat rows ``[B, S + F * A]`` beside their masks ``[B, A]``."""
    lanes, points = mask.shape
    fields = TWO_TIERS if flat.shape[1] == TWO_TIERS.width(points) else THREE_TIERS
    split = len(fields.state)
    return Observation(flat[:, :split], flat[:, split:].reshape(lanes, len(fields.points), points), mask)


def observe(
    situation: Situation,
    table: PointTable,
    demands: Demands,
    usual_rtt_s: float,
    overhead: float,
    guard_s: float,
    usual_onward_rtt_s: float = 0.0,
) -> Observation:
    """Build the observation: the situation, the demand, and for each point what choosing it would lead to.

    ``table`` columns may be ``[A]`` for all lanes or ``[B, A]``.
    """
    link = believe(situation.transfers, situation.now_s, usual_rtt_s)
    fields, further = fields_of(table.tiers), {}
    if situation.onward is not None:
        second = believe(situation.onward, situation.now_s, usual_onward_rtt_s)
        link = with_finishes_of(link, second)
        further = _of_second(second, situation.now_s)
    states = {
        **link._asdict(),
        "waited_s": situation.waited_s,
        "deadline_s": demands.deadline_s,
        "period_s": demands.period_s,
        "for_latency": demands.for_latency,
        "link_queue_s": np.clip(link.free_s - situation.now_s, 0.0, UNKNOWN_AGE_S),
        "slow_down": situation.slow_down,
        **further,
    }
    state = np.array([states[name] for name in fields.state], dtype=np.float32)
    points = _foresee(state, table, situation.last_point, np.float32(overhead), np.float32(guard_s))
    return Observation(state.T, points.transpose(2, 0, 1), allowed(situation, table, demands))


def _of_second(link: LinkBelief, now_s: Floats) -> dict[str, Floats]:
    """The state's columns of the second link."""
    told = {f"onward_{name}": values for name, values in link._asdict().items()}
    told["onward_since_sent_s"] = np.maximum(link.since_sent_s, 0.0)  # it may be on its way to the link still
    return {**told, "onward_queue_s": np.clip(link.free_s - now_s, 0.0, UNKNOWN_AGE_S)}


def _foresee(
    state: NDArray[np.float32], table: PointTable, last_point: Ints, overhead: np.float32, guard_s: np.float32
) -> NDArray[np.float32]:
    """What each point would lead to if the link stayed as believed, ``[F, A, B]``; ``state`` is ``[S, B]``.

    This is the hot loop: float32, and lanes side by side in memory.
    """

    def told(name: str) -> NDArray[np.float32]:
        values: NDArray[np.float32] = state[THREE_TIERS.state.index(name)]
        return values

    def listed(name: str) -> NDArray[np.float32]:
        column: NDArray[np.float32] = getattr(table, name).astype(np.float32)
        return _points_first(column)

    size, lanes = table.local.shape[-1], state.shape[1]
    names = fields_of(table.tiers).points
    points = np.empty((len(names), size, lanes + CACHE_LINE), dtype=np.float32)[:, :, :lanes]
    out = dict(zip(names, points, strict=True))
    local = listed("local")
    crosses = 1.0 - local
    slow, waited, queue_s, period_s = told("slow_down"), told("waited_s"), told("link_queue_s"), told("period_s")
    out["local"][:] = local
    out["accuracy"][:] = listed("accuracy")
    out["is_last"][:] = np.arange(size)[:, None] == last_point
    out["payload"][:] = payload = (listed("bytes_mean") + overhead) * crosses
    out["server_s"][:] = server_s = listed("server_s")
    out["finish_accuracy"][:] = np.where(local, listed("accuracy"), listed("finish_accuracy"))
    head = np.multiply(listed("head_s"), slow, out=out["head_s"])
    head += told("finish_pending_s") * (told("finish_due_s") < head)
    finish = np.multiply(np.minimum(listed("finish_s"), UNKNOWN_AGE_S) * crosses, slow, out=out["finish_s"])
    leaves = np.maximum(head, queue_s * crosses)
    leaves += payload * (1.0 / told("goodput"))
    away = (told("rtt_s") + told("server_wait_s") + server_s) * crosses
    away += leaves
    if table.onward is not None:
        away += _foresee_onward(out, table.onward, told, leaves, overhead)
    away += waited
    latency = np.minimum(away, UNKNOWN_AGE_S, out=out["latency_s"])
    slack = np.subtract(told("deadline_s"), latency, out=out["slack_s"])
    later = payload * (1.0 / told("goodput_low") - 1.0 / told("goodput"))
    later += told("stalled_s") * crosses
    if table.onward is not None:
        slower = 1.0 / told("onward_goodput_low") - 1.0 / told("onward_goodput")
        later += out["onward_payload"] * slower + told("onward_stalled_s") * out["sends_onward"]
    np.maximum(slack - later, -UNKNOWN_AGE_S, out=out["slack_low_s"])
    np.maximum(head + (waited - period_s), 0.0, out=out["device_queue_s"])
    onward = np.where(local, queue_s, leaves)
    onward -= period_s
    np.clip(onward, 0.0, UNKNOWN_AGE_S, out=out["link_queue_s"])
    head_and_finish = head + finish
    np.subtract(told("deadline_s") - guard_s - waited, head_and_finish, out=out["finish_slack_s"])
    return points


def _foresee_onward(
    out: dict[str, NDArray[np.float32]],
    onward: Onward,
    told: Callable[[str], NDArray[np.float32]],
    leaves: NDArray[np.float32],
    overhead: np.float32,
) -> NDArray[np.float32]:
    """What going on over the second link adds to the answer if both links stay as believed, ``[A, B]``.

    ``leaves``: when the point's bytes have left the device, from now on.
    """
    sends, relays = out["sends_onward"], _points_first(onward.relays)
    sends[:] = _points_first(onward.sends)
    waits = told("server_wait_s") * ~relays
    out["middle_s"][:] = middle_s = _points_first(onward.middle_s).astype(np.float32)
    out["onward_payload"][:] = payload = (_points_first(onward.bytes_mean).astype(np.float32) + overhead) * sends
    takes = payload * (1.0 / told("onward_goodput"))
    at_edge = leaves + (0.5 * told("rtt_s") + waits)
    np.minimum((at_edge + middle_s) * sends, UNKNOWN_AGE_S, out=out["onward_at_s"])
    through = np.maximum(middle_s, told("onward_queue_s") - at_edge) + takes
    taken = np.where(sends > 0.0, at_edge + through, told("onward_queue_s")) - told("period_s")
    np.clip(taken, 0.0, UNKNOWN_AGE_S, out=out["onward_queue_s"])
    through += told("onward_rtt_s")
    through -= told("server_wait_s") * relays
    detour: NDArray[np.float32] = through * sends
    return detour


def _points_first(column: NDArray[Number]) -> NDArray[Number]:
    """A column ``[A]`` or ``[B, A]`` of the table as ``[A, 1]`` or ``[A, B]``."""
    return column.T if column.ndim == 2 else column[:, None]


def allowed(situation: Situation, table: PointTable, demands: Demands) -> Bools:
    """Mask ``[B, A]``: at or above the accuracy floor, and nothing more over a link with a full window unanswered.

    Where the floor and the full window leave nothing (every point above the floor crosses the link), the floor stands:
    the frame is sent nevertheless, since a less accurate answer is not asked for.
    """
    accurate = np.asarray(_points_first(table.accuracy) >= demands.min_accuracy)  # [A, B]
    unanswered = np.greater(situation.transfers.answered_s.T, situation.now_s)
    full = unanswered.all(axis=0)
    if situation.blocked is not None:
        full |= situation.blocked
    mask = accurate & (_points_first(table.local) | ~full)
    if table.onward is not None and situation.onward is not None:
        full_too = np.greater(situation.onward.answered_s.T, situation.now_s).all(axis=0)
        mask &= ~(_points_first(table.onward.sends) & full_too)
    return np.where(mask.any(axis=0), mask, accurate).T

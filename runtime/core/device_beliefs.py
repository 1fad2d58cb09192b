"""What the device believes of its links, its own speed and its policy, and what a frame cost: fed by every event."""

from __future__ import annotations

import math

import numpy as np

from tidesplit.compression.codec.knobs import stream_of
from tidesplit.envs.budget.account import Account
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import Demand
from tidesplit.profiling.points.motion import believed, faded, videos
from tidesplit.profiling.points.stream_columns import OLDEST
from tidesplit.profiling.points.table import PointTable
from tidesplit.runtime.choosing.device_situation import DeviceSituation
from tidesplit.runtime.choosing.radio_rest import RadioRest
from tidesplit.runtime.choosing.refused_video import RefusedVideo
from tidesplit.runtime.choosing.safeguard import Safeguard
from tidesplit.runtime.choosing.slow_down import SlowDown
from tidesplit.runtime.core.energy import Meter
from tidesplit.runtime.core.knowledge import LinkKnowledge, Probe
from tidesplit.runtime.core.sending import Failure
from tidesplit.runtime.core.sent_streams import SentStreams
from tidesplit.runtime.log.record import Record

__all__ = ["DeviceBeliefs"]


class DeviceBeliefs:
    """All beliefs of one device.

    Args:
        table: of this device.
        rng: spreads the breaker's back-off.
        usual_c: temperature that is believed where none is known.
        learns: False where no run tells the slow-down, because runs take their time in the table.
        first_prices: of a joule and of a byte, at which it begins under budgets.
        rests: under a budget of energy the radio may rest.
    """

    def __init__(
        self, table: PointTable, demand: Demand, world: World, rng: np.random.Generator, usual_c: float, learns: bool,
        first_prices: tuple[float, float], rests: bool = True,
    ) -> None:  # fmt: skip
        self._table, self._world, self._usual_c, self._learns = table, world, usual_c, learns
        self._period_s = demand.period_s
        self.links = LinkKnowledge(world, len(table.hops), rng)
        self.slow_down, self.safeguard = SlowDown(), Safeguard(demand.period_s)
        self.refused_video = RefusedVideo.of(table.ids)
        self._streams = SentStreams(table.streams.names, demand.period_s)
        self._meter = Meter(table.machine, world, 0.0)
        self.account = Account.of(demand, first_prices)
        self.rest = RadioRest.of(table, demand, first_prices[0]) if rests else None
        self._probe_bytes = 0.0  # since the frame before
        self._last_row = -1
        self._videos = videos(table).tolist()
        self._motion = {True: (1.0, 0.0), False: (1.0, 0.0)}  # of video and of cuts, and when a payload told it
        self._motions: list[float] = []  # of each stream, at the newest frame's turn

    @property
    def resting(self) -> bool:
        """True while the radio rests."""
        return self.rest is not None and self.rest.resting

    def greeting(self, now_s: float, timed: bool) -> Probe:
        """The tiny message to send before the first frame."""
        self._meter = Meter(self._table.machine, self._world, now_s)
        return self.links.greeting(now_s, timed)

    def situation(self, arrival_s: float, turn_s: float, busy_s: float, heat_c: float | None) -> DeviceSituation:
        """What is known at a frame's turn. `busy_s` is the time until the worker is idle."""
        now = {video: float(faded(belief, turn_s - at_s)) for video, (belief, at_s) in self._motion.items()}
        self._motions = [now[video] for video in self._videos]
        return DeviceSituation(
            turn_s, turn_s - arrival_s, self.links.messages(), self.slow_down.at(turn_s), self._last_row, busy_s,
            self._usual_c if heat_c is None else heat_c, self.links.breaker.blocked or self.resting,
            self._streams.ages(arrival_s, turn_s), self._motions,
        )  # fmt: skip

    def chosen(self, record: Record) -> None:
        """A frame's point is chosen."""
        if (of := int(self._table.streams.of[record.row])) >= 0:
            record.motion = self._motions[of]
        if record.dropped:
            self.safeguard.dropped()
        else:
            self.safeguard.ran(record.by_rule)
            self._last_row = record.row

    def due_probe(self, now_s: float) -> Probe | None:
        """The probe to send now, if any."""
        if (probe := self.links.due_probe(now_s, self.resting)) is not None:
            self._meter.sent(now_s, 0.0, probe.size)
            self._probe_bytes += probe.size + self._world.overhead_bytes
        return probe

    def place(self, record: Record, now_s: float) -> None:
        """Give the payload that is about to be encoded its place in its stream, if the point sends in one.

        From a failure that becomes known later, the payload cannot be protected any more.
        """
        record.placed_s = now_s
        if stream := stream_of(record.decision):
            age = self._streams.age(stream, record.arrival_s, now_s)
            record.reference_age = age if math.isfinite(age) else None
            record.place = self._streams.send(stream, record.arrival_s, now_s)

    def encoded(self, record: Record) -> None:
        """A frame's payload is known. One in a stream that is no key tells the motion of the scene."""
        if record.reference_age is None or record.motion is None:
            return
        streams, row = self._table.streams, record.row
        usual = self._table.hops[0].bytes_mean[row] * streams.factors[row, min(int(record.reference_age), OLDEST + 1)]
        belief = float(believed(record.motion, float(record.sent_bytes / usual)))
        self._motion[self._videos[int(streams.of[row])]] = belief, record.decided_at_s

    def failed(self, key: int, now_s: float, sent_s: float, failure: Failure) -> None:
        """The message of `sent_s` has no answer."""
        self._streams.failed(sent_s, now_s, failure.reference_unknown)
        if failure.no_video:
            self.refused_video.refused(now_s)
        if failure.reference_unknown or failure.no_video:
            self.links.reference_unknown(key)
        else:
            self.links.failed(key, now_s, failure.reason, failure.pause_s, failure.lasts)

    def ran(self, end_s: float, expected_s: float, took_s: float, *, light: bool = False) -> None:
        """A head or a run has ended that takes `expected_s` in the table."""
        self._meter.ran(took_s, light=light)
        if self._learns:
            self.slow_down.ran(end_s, expected_s, took_s)

    def settled(self, record: Record, at_s: float) -> None:
        """A frame has its end. Its record gets the estimated energy since the frame before, and the account.

        A message without an answer took the time that was believed.
        """
        if record.sent_bytes:
            uplink_s = record.sent_bytes / record.state["goodput"] if record.uplink_s is None else record.uplink_s
            self._meter.sent(record.arrival_s + record.waited_s + record.head_s, uplink_s, record.sent_bytes)
        record.joules = self._meter.take(self._period_s)
        sent = record.sent_bytes + self._world.overhead_bytes if record.sent_bytes else 0.0
        if self.rest is not None and record.joules is not None:
            seen, told = record.state, record.state["awake_s"] > 0.0 and not record.resting
            self.rest.settled(record.utility, record.joules, seen["joule_price"], seen["slow_down"], told)
        if self.account is not None:
            record.spending = self.account.book(record.joules, sent + self._probe_bytes)
        self._probe_bytes = 0.0
        self.safeguard.settled(at_s, record.decided_at_s, record.by_rule, record.answered_by == "miss")

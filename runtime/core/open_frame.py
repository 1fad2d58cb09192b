"""A frame from its turn to its end: what was known at its turn, its record, and the answers in hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tidesplit.envs.world.vocabulary import Demand
from tidesplit.profiling.points.table import PointTable
from tidesplit.runtime.choosing.deciding import Decision
from tidesplit.runtime.choosing.safeguard import undrawn
from tidesplit.runtime.core.events import FrameDue, Logits, PointChosen
from tidesplit.runtime.core.sending import Reply
from tidesplit.runtime.log.record import AnsweredBy, Record
from tidesplit.runtime.wire.output_tensors import AnswerForm

__all__ = ["FrameTurn", "OpenFrame"]


class FrameTurn(NamedTuple):
    """A frame whose point is being chosen: the moment of its turn, and what held of breaker and radio then."""

    due: FrameDue
    at_s: float
    breaker: str  # its state
    error: str | None  # its reason
    resting: bool  # the radio

    def record(self, chosen: PointChosen, demand: Demand, table: PointTable) -> Record:
        """The record of the frame's decision."""
        due, decision = self.due, chosen.decision
        record = Record.of(due.number, due.picture, demand, table, decision.believed, decision.row)
        record.out_of_range = undrawn(decision.believed, decision.given)
        record.by_rule, record.dropped, record.decided_s = decision.by_rule, decision.late, chosen.decided_s
        record.arrival_s, record.decided_at_s, record.waited_s = due.arrival_s, self.at_s, self.at_s - due.arrival_s
        record.picture_age_s = None if due.taken_s is None else self.at_s - due.taken_s
        record.temperature_c, record.breaker, record.error = due.heat_c, self.breaker, self.error
        record.resting = self.resting
        return record


@dataclass
class OpenFrame:
    """A frame whose point is chosen. `x` is the input of the device's own run: pixels, or a feature."""

    record: Record
    decision: Decision
    x: Any
    begin_s: float = 0.0  # of the head
    answers: dict[AnsweredBy, Logits] = field(default_factory=dict)

    def timed(self, times: tuple[float, float] | None) -> None:
        """Take uplink time and round trip of the first hop, where they are news."""
        if times is not None:
            self.record.uplink_s, self.record.rtt_s = times

    def answered(self, reply: Reply, logits: Logits) -> None:
        """Take the server's answer."""
        self.record.server_s = reply.timing.wait_s + reply.timing.compute_s
        self.record.hop2_s = None if reply.next_timing is None else reply.next_timing.total_s
        self.answers["server"] = logits

    def ran(self, took_s: float, logits: Logits | None, error: str | None) -> None:
        """Take the end of the device's own run, with its answer or the reason why there is none."""
        self.record.local_s, self.record.error = took_s, error or self.record.error
        if logits is not None:
            self.answers["device"] = logits

    def settle(self, by: AnsweredBy, at_s: float, table: PointTable, form: AnswerForm) -> None:
        """Take the frame's end. An answer after the deadline is a miss."""
        if by != "miss":
            self.record.conclude(self.answers[by], form)
        self.record.settle(by, at_s, table)

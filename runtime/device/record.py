"""One frame's story, as it is logged: what was known, decided and foreseen, and what then happened."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidesplit.envs.world.fields import fields_of
from tidesplit.envs.world.observation import Observation
from tidesplit.envs.world.vocabulary import Demand, Demands
from tidesplit.profiling.points.table import PointTable
from tidesplit.runtime.device.schedule import AnsweredBy
from tidesplit.runtime.device.source import Picture

__all__ = ["Record", "Settlement"]


@dataclass(frozen=True)
class Settlement:
    """Who answered a frame, and how long after its arrival."""

    answered_by: AnsweredBy
    latency_s: float


@dataclass
class Record:
    """One frame. `foreseen`: features of the chosen point by name, seconds; `mask`: points that might be chosen."""

    frame: int
    picture: str
    label: str | None
    demand: Demand
    decision: str
    row: int
    state: dict[str, float]
    mask: NDArray[np.bool_]
    foreseen: dict[str, float]
    arrival_s: float = 0.0
    waited_s: float = 0.0
    decided_at_s: float = 0.0
    decided_s: float = 0.0
    head_s: float = 0.0
    uplink_s: float | None = None
    rtt_s: float | None = None
    server_s: float | None = None
    onward_s: float | None = None
    finish_s: float | None = None
    sent_bytes: int = 0
    answered_by: AnsweredBy = "miss"
    latency_s: float = math.inf
    utility: float = 0.0
    answer: str | None = None
    breaker: str = "closed"
    error: str | None = None

    @classmethod
    def of(
        cls, number: int, picture: Picture, demand: Demand, table: PointTable, observation: Observation, row: int
    ) -> Record:
        """The record of a decision."""
        fields = fields_of(observation.hops)
        return cls(
            frame=number,
            picture=picture.name,
            label=picture.label,
            demand=demand,
            decision=table.ids[row],
            row=row,
            state=dict(zip(fields.state, observation.state[0].tolist(), strict=True)),
            mask=observation.mask[0],
            foreseen=dict(zip(fields.points, observation.points[0, :, row].tolist(), strict=True)),
        )

    def conclude(self, logits: NDArray[np.float32], classes: tuple[str, ...]) -> None:
        """Take an answer's class."""
        self.answer = classes[int(np.argmax(logits))]

    def settle(self, settlement: Settlement, demand: Demand, table: PointTable) -> None:
        """The frame's end. A miss has no answer, whatever came too late."""
        self.answered_by, self.latency_s = settlement.answered_by, settlement.latency_s
        if self.answered_by == "miss":
            self.answer = None
            return
        accuracy = table.accuracy[self.row]
        if self.answered_by == "device" and self.sent_bytes:
            accuracy = table.finish_accuracy[self.row]
        worth = Demands.of(demand).utility(np.array([accuracy]), np.array([self.latency_s]))
        self.utility = float(worth[0])

    def as_json(self) -> dict[str, Any]:
        """One line of the log; milliseconds, bytes. Keys are always the same."""
        foreseen, state = self.foreseen, self.state
        predicted = {
            "total": foreseen["latency_s"], "waited": state["waited_s"], "head": foreseen["head_s"],
            "beyond_head": foreseen["latency_s"] - state["waited_s"] - foreseen["head_s"],
        }  # fmt: skip
        actual = {
            "total": self.latency_s, "waited": self.waited_s, "head": self.head_s, "uplink": self.uplink_s,
            "round_trip": self.rtt_s, "server": self.server_s, "onward": self.onward_s, "finish": self.finish_s,
            "decision": self.decided_s,
        }  # fmt: skip
        return {
            "frame": self.frame,
            "arrival_s": round(self.arrival_s, 6),
            "decision": self.decision,
            "predicted_ms": {name: _ms(value) for name, value in predicted.items()},
            "actual_ms": {name: _ms(value) for name, value in actual.items()},
            "bytes": self.sent_bytes,
            "answered_by": self.answered_by,
            "class": self.answer,
            "label": self.label,
            "picture": self.picture,
            "utility": round(self.utility, 6),
            "demand": {
                "objective": self.demand.objective, "fps": self.demand.fps,
                "deadline_ms": 1e3 * self.demand.deadline_s, "min_accuracy": self.demand.min_accuracy,
            },
            "observation": {name: float(f"{value:.6g}") for name, value in self.state.items()},
            "mask": self.mask.astype(int).tolist(),
            "breaker": self.breaker,
            "error": self.error,
        }  # fmt: skip


def _ms(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(1e3 * value, 3)

"""The record of one frame: observation, decision, forecast, and what then happened. One line of the log."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tidesplit.envs.budget.account import Spending
from tidesplit.envs.world.fields import fields_of
from tidesplit.envs.world.observation import Observation
from tidesplit.envs.world.vocabulary import Demand, Demands
from tidesplit.profiling.points.table import PointTable
from tidesplit.runtime.camera.picture import Picture
from tidesplit.runtime.wire.output_tensors import AnswerForm
from tidesplit.runtime.wire.stream_place import StreamPlace

AnsweredBy = Literal["server", "device", "miss"]
MOST_WRITTEN = 256  # values of a tensor in a line of the log; larger ones are for `TensorFiles`
ROUNDING_S = 1e-9  # a frame that ends at its deadline is in time, whatever the last digits of its moments


@dataclass(slots=True)
class Record:
    """One frame, in seconds and bytes."""

    frame: int
    picture: str  # name of the picture
    label: str | None  # its class, if known
    demand: Demand
    decision: str  # the chosen point's identifier
    row: int  # its row in the table
    state: dict[str, float]  # the observation's state by name
    mask: NDArray[np.bool_]  # `[A]`
    foreseen: dict[str, float]  # the chosen point's forecast by name
    arrival_s: float = 0.0  # moment on the device's clock
    waited_s: float = 0.0  # time from arrival until the frame's turn
    decided_at_s: float = 0.0  # moment of the decision
    decided_s: float = 0.0  # time that the policy took
    race: bool = False  # True where the point sends and the device runs a net of its own meanwhile
    dropped: bool = False  # True where the frame was dropped before its head, which would have ended too late
    head_s: float = 0.0
    uplink_s: float | None = None  # of the first hop
    rtt_s: float | None = None  # of the first hop
    server_s: float | None = None  # wait and compute of the first server
    hop2_s: float | None = None  # there and back
    local_s: float | None = None  # time of the worker's run: a whole local net, half of a race, or a fallback
    sent_bytes: int = 0  # size of the payload
    placed_s: float = 0.0  # moment before the head from which on the payload's place is fixed
    place: StreamPlace | None = None  # of the payload in its stream; None outside of all streams
    reference_age: float | None = None  # frames since the reference, as the policy saw it; None for a key or no stream
    motion: float | None = (
        None  # of the scene, as believed of the point's stream at the decision; None outside of streams
    )
    picture_age_s: float | None = None  # of a camera's picture at the frame's turn
    pictures_skipped: int = 0  # older ones passed over, because this one had come
    values: NDArray[np.float32] | None = None  # all values of the answer, such as logits `[classes]`; None for a miss
    form: AnswerForm | None = None  # of the answer
    answered_by: AnsweredBy = "miss"
    latency_s: float = math.inf  # time from arrival to the answer, or until the frame was given up
    utility: float = 0.0  # 0 to 1
    answer: str | None = None  # class of the answer; None for a miss, and where the CNN has no classes
    temperature_c: float | None = None  # of the processor at the decision; None where the system does not know it
    joules: float | None = None  # estimated energy of device and radio since the frame before; None: not known
    spending: Spending | None = None  # under budgets: the account after the frame
    breaker: str = "closed"  # state of the breaker at the decision
    error: str | None = None
    by_rule: bool = False  # True where the safeguard decided in the policy's place
    resting: bool = False  # True where the radio rested
    out_of_range: dict[str, float] = field(default_factory=dict)  # believed values that no training drew, by name

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
            race=bool(table.races[row]),
            state=dict(zip(fields.state, observation.state[0].tolist(), strict=True)),
            mask=observation.mask[0],
            foreseen=dict(zip(fields.points, observation.points[0, :, row].tolist(), strict=True)),
            pictures_skipped=picture.skipped,
        )

    def conclude(self, values: NDArray[np.float32], form: AnswerForm) -> None:
        """Take an answer, and its class where there are classes."""
        self.values, self.form = values, form
        if form.classes:
            self.answer = form.classes[int(np.argmax(values))]

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """The most likely classes with their probabilities (softmax), best first. Empty where there is no class."""
        if self.values is None or self.form is None or not self.form.classes:
            return []
        raised = np.exp(self.values.astype(np.float64) - self.values.max())
        best = np.argsort(-raised, kind="stable")[:count]
        return [(self.form.classes[i], float(raised[i] / raised.sum())) for i in best]

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """The answer as tensors by name, such as `heat` `[1, K, H, W]`. Empty for a miss, and where it is a class."""
        if self.values is None or self.form is None or self.form.classes:
            return {}
        return self.form.tensors(self.values)

    def written_tensors(self) -> dict[str, dict[str, Any]]:
        """The same for a line of text: shapes, and the values of small tensors, in the order of their memory."""
        return {
            name: {
                "shape": list(tensor.shape),
                "values": [float(f"{value:.6g}") for value in tensor.flat] if tensor.size <= MOST_WRITTEN else None,
            }
            for name, tensor in self.tensors().items()
        }

    def settle(self, by: AnsweredBy, at_s: float, table: PointTable) -> None:
        """Take the frame's end at `at_s`. After the deadline it is a miss, and a miss has no answer."""
        self.latency_s = at_s - self.arrival_s
        if abs(self.latency_s - self.demand.deadline_s) < ROUNDING_S:
            self.latency_s = self.demand.deadline_s
        self.answered_by = by if self.latency_s <= self.demand.deadline_s else "miss"
        if self.answered_by == "miss":
            self.answer = self.values = None
            return
        finished = self.answered_by == "device" and self.sent_bytes
        accuracy = (table.finish_accuracy if finished else table.accuracy)[self.row]
        worth = Demands.of(self.demand).utility(np.array([accuracy]), np.array([self.latency_s]))
        self.utility = float(worth[0])

    def as_json(self) -> dict[str, Any]:
        """One line of the log in milliseconds and bytes. The keys are always the same."""
        foreseen, state = self.foreseen, self.state
        predicted = {
            "total": foreseen["latency_s"], "waited": state["waited_s"], "head": foreseen["head_s"],
            "beyond_head": foreseen["latency_s"] - state["waited_s"] - foreseen["head_s"],
        }  # fmt: skip
        actual = {
            "total": self.latency_s, "waited": self.waited_s, "head": self.head_s, "uplink": self.uplink_s,
            "round_trip": self.rtt_s, "server": self.server_s, "hop2": self.hop2_s, "local": self.local_s,
            "decision": self.decided_s, "picture_age": self.picture_age_s,
        }  # fmt: skip
        top = [[name, float(f"{share:.4g}")] for name, share in self.top()]
        return {
            "frame": self.frame,
            "arrival_s": round(self.arrival_s, 6),
            "decision": self.decision,
            "predicted_ms": {name: _ms(value) for name, value in predicted.items()},
            "actual_ms": {name: _ms(value) for name, value in actual.items()},
            "bytes": self.sent_bytes,
            "stream": None if self.place is None else self.place.name,
            "sequence": None if self.place is None else self.place.sequence,
            "key": None if self.place is None else self.place.key,
            "reference_age": self.reference_age,
            "motion": None if self.motion is None else float(f"{self.motion:.4g}"),
            "race": self.race,
            "dropped": self.dropped,
            "answered_by": self.answered_by,
            "class": self.answer,
            "confidence": top[0][1] if top else None,
            "top5": top,
            "tensors": self.written_tensors(),
            "pictures_skipped": self.pictures_skipped,
            "label": self.label,
            "picture": self.picture,
            "utility": round(self.utility, 6),
            "demand": {
                "objective": self.demand.objective, "fps": self.demand.fps,
                "deadline_ms": 1e3 * self.demand.deadline_s, "min_accuracy": self.demand.min_accuracy,
                "max_watts": self.demand.max_watts, "max_gb_month": self.demand.max_gb_month,
            },
            "observation": {name: float(f"{value:.6g}") for name, value in self.state.items()},
            "mask": self.mask.astype(int).tolist(),
            "by_rule": self.by_rule,
            "resting": self.resting,
            "out_of_range": {name: float(f"{value:.6g}") for name, value in self.out_of_range.items()},
            "temperature_c": self.temperature_c,
            "joules": None if self.joules is None else round(self.joules, 6),
            "spending": None if self.spending is None else {
                name: None if value is None else float(f"{value:.6g}")
                for name, value in self.spending._asdict().items()
            },
            "breaker": self.breaker,
            "error": self.error,
        }  # fmt: skip


def _ms(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(1e3 * value, 3)

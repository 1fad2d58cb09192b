"""Figures of a run through the runtime: latencies and answers, bytes and keys of streams, and what breaks cost."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tidesplit.agents.judging.evaluation import History
from tidesplit.envs.world.vocabulary import MISS
from tidesplit.profiling.points.stream_columns import column_of
from tidesplit.profiling.points.table import PointTable
from tidesplit.runtime.core.sending import Done, Failure, Receipt, Reply
from tidesplit.runtime.core.sent_streams import FORGOTTEN_S
from tidesplit.runtime.device.client import GrpcClient
from tidesplit.runtime.wire.stream_place import StreamPlace

QUIET_S = 2.0  # failures less than this apart are one break: the probes of a broken link fail 1.6 s apart at most
AFTER_S = 1.0  # frames shall cross again within one second
Line = dict[str, Any]


class Break(NamedTuple):
    """Failed messages shortly after each other: moments of the first and the last failure on the device's clock."""

    first_s: float
    last_s: float


class Failures(NamedTuple):
    """Messages of a run that failed.

    ``at_s``: their moments on the device's clock, those of probes too. ``frames``: frames whose payload failed.
    ``unknown``: those among them whose reference the server lacked.
    """

    at_s: list[float]
    frames: set[int]
    unknown: set[int]


class Witness(GrpcClient):
    """A client that remembers failures."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._seen = Failures([], set(), set())

    def infer(
        self, number: int, point_id: str, payload: bytes, limit_s: float, done: Done,
        receipt: Receipt | None = None, probe_next: bool = False, place: StreamPlace | None = None,
    ) -> None:  # fmt: skip
        """Send a frame's payload."""
        super().infer(number, point_id, payload, limit_s, self._noting(done, number), receipt, probe_next, place)

    def probe(self, size: int, limit_s: float, done: Done, probe_next: bool = False) -> None:
        """Send a probe."""
        super().probe(size, limit_s, self._noting(done), probe_next)

    def _noting(self, done: Done, frame: int | None = None) -> Done:
        def noted(got: Reply | Failure) -> None:
            if isinstance(got, Failure):
                self._seen.at_s.append(time.perf_counter())
                if frame is not None:
                    self._seen.frames.add(frame)
                    self._seen.unknown.update([frame] * got.reference_unknown)
            done(got)

        return noted

    def failures(self, epoch_s: float) -> Failures:
        """The failures so far. ``epoch_s``: moment at which the device's clock began."""
        seen = self._seen
        return Failures(sorted(at_s - epoch_s for at_s in seen.at_s), {*seen.frames}, {*seen.unknown})


def grouped(failed_s: Sequence[float]) -> list[Break]:
    """Breaks, from the moments of failures in their order."""
    found: list[Break] = []
    for at_s in failed_s:
        if found and at_s - found[-1].last_s < QUIET_S:
            found[-1] = found[-1]._replace(last_s=at_s)
        else:
            found.append(Break(at_s, at_s))
    return found


def answered_once(lines: Sequence[Line], frames: int) -> bool:
    """True where the log has exactly one end of each frame: the server's answer, the device's, or a miss."""
    return sorted(line["frame"] for line in lines) == list(range(frames))


def emulated_row(lines: Sequence[Line], limit_ms: float, period_s: float) -> dict[str, float]:
    """Figures of a run's log. ``right``: share of frames whose answer in time was the picture's class.

    ``watts``: of device and radio, as the device estimated them.
    """
    missed = np.array([line["answered_by"] == "miss" for line in lines])
    ms = np.array([limit_ms if m else line["actual_ms"]["total"] for m, line in zip(missed, lines, strict=True)])
    return {
        "mean_ms": float(ms.mean()),
        "p95_ms": float(np.percentile(ms, 95)),
        "misses": float(missed.mean()),
        "utility": float(np.mean([line["utility"] for line in lines])),
        "right": float(np.mean([line["class"] is not None and line["class"] == line["label"] for line in lines])),
        "bytes": float(np.mean([line["bytes"] for line in lines])),
        "watts": float(np.mean([line["joules"] or 0.0 for line in lines])) / period_s,
        "by_device": float(np.mean([line["answered_by"] == "device" for line in lines])),
    }


def simulated_row(played: History, period_s: float) -> dict[str, float]:
    """The same figures of a simulated run, as far as it has them."""
    ms = 1e3 * played.latency_s
    return {
        "mean_ms": float(ms.mean()),
        "p95_ms": float(np.percentile(ms, 95)),
        "misses": float(np.mean(played.answered_by == MISS)),
        "utility": float(played.utility.mean()),
        "watts": float(played.joules.mean()) / period_s,
    }


def sent_row(lines: Sequence[Line], table: PointTable) -> dict[str, float]:
    """Mean bytes of the payloads sent, and those that the table has for the same points and ages of references.

    ``motion`` is the ratio of the two over all payloads in streams that are no keys.
    """
    sent = [line for line in lines if line["bytes"]]
    rows = np.array([table.row(line["decision"]) for line in sent], dtype=np.int64)
    ages = np.array([line["reference_age"] or math.inf for line in sent])
    listed = table.hops[0].bytes_mean[rows] * table.streams.factors[rows, column_of(ages)]
    in_streams = [line for line in sent if line["stream"] is not None]
    moving = np.isfinite(ages)
    return {
        "sent": len(sent),
        "sent_bytes": float(np.mean([line["bytes"] for line in sent])) if sent else 0.0,
        "listed_bytes": float(listed.mean()) if sent else 0.0,
        "motion": float(np.sum([line["bytes"] for line in sent], where=moving) / listed.sum(where=moving))
        if moving.any()
        else 1.0,
        "in_streams": len(in_streams),
        "keys": sum(line["key"] for line in in_streams),
    }


def break_row(lines: Sequence[Line], failures: Failures, placed_s: Mapping[int, float]) -> dict[str, float]:
    """Cost of the breaks. ``keys_a_break``: most keys of one stream from one break, or from the beginning, to the next.

    ``lost_keys`` failed on their way, and do not count there. ``near``: frames that arrived from one deadline before a
    break until a second after it, and the misses among them. ``unknown``: frames whose reference a server lacked, and
    the misses among them. ``placed_s``: moment at which each frame's payload got its place.
    """
    breaks = grouped(failures.at_s)
    near = [line for line in lines if any(_near(line, one) for one in breaks)]
    lost = [line for line in lines if line["key"] and line["frame"] in failures.frames]
    arrived = [line for line in lines if line["frame"] not in failures.frames]
    return {
        "breaks": len(breaks),
        "keys_a_break": keys_a_break(arrived, breaks, placed_s),
        "lost_keys": len(lost),
        "near": len(near),
        "near_misses": _misses(near),
        "unknown": len(failures.unknown),
        "unknown_misses": _misses([line for line in lines if line["frame"] in failures.unknown]),
    }


def _misses(lines: Sequence[Line]) -> int:
    return sum(line["answered_by"] == "miss" for line in lines)


def _near(line: Line, one: Break) -> bool:
    first_s = one.first_s - 1e-3 * float(line["demand"]["deadline_ms"])
    return first_s <= float(line["arrival_s"]) <= one.last_s + AFTER_S


def keys_a_break(lines: Sequence[Line], breaks: Sequence[Break], placed_s: Mapping[int, float]) -> int:
    """Most keys of one stream between two breaks. A silence after which the server forgets the stream is one too."""
    counts: Counter[tuple[str, int, int]] = Counter()
    silences: Counter[str] = Counter()
    last_s: dict[str, float] = {}
    for line in lines:
        if (stream := line["stream"]) is None:
            continue
        at_s = placed_s[line["frame"]]
        silences[stream] += at_s - last_s.get(stream, at_s) > FORGOTTEN_S
        last_s[stream] = at_s
        counts[stream, sum(one.first_s <= at_s for one in breaks), silences[stream]] += line["key"]
    return max(counts.values(), default=0)

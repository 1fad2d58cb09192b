"""Replays a log of the runtime in the simulator: the same link, the same decisions, the same payload sizes.

The world model is then the only difference between the two. Latencies are capped at the deadline, as everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidesplit.envs.simulation.simulation import Scenario, Simulation
from tidesplit.envs.traces.trace import Trace
from tidesplit.envs.world.heat import NO_HEAT
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.pipeline import Frame
from tidesplit.envs.world.radio import LTE
from tidesplit.envs.world.vocabulary import Demand, Floats, Ints
from tidesplit.profiling.points.stream_columns import column_of
from tidesplit.profiling.points.table import PointTable, without_streams

EMULATED = World(
    rtt_jitter=0.0, cooling=NO_HEAT, radio=replace(LTE, promotion_s=0.0), jitter=0.0, calm_wait_s=0.0, busy_wait_s=0.0
)
"""World of the link emulator and a paced device on an idle machine. Only the trace and the request overhead vary."""
STEADY = replace(EMULATED, request_spread=0.0)
"""The same world without chance: the log does not hold the request overhead, so it keeps its usual value."""


@dataclass(frozen=True)
class Agreement:
    """Simulated against real latencies of ``n`` frames.

    ``median`` and ``p95`` (95th percentile) are of the errors relative to the real latency. Times are mean latencies in
    milliseconds. Misses are shares of the frames.
    """

    median: float
    p95: float
    n: int
    simulated_ms: float
    real_ms: float
    simulated_misses: float
    real_misses: float


class _Replay(Simulation):
    """One lane with the payload sizes and the expected latencies of a log.

    Expected latencies matter because the device plans the fallback of a frame by them.

    Attributes:
        noise: byte noise that gives each frame its logged size, ``[N]``.
        expected: logged expected latency of each frame, seconds, ``[N]``.
    """

    noise: Floats
    expected: Floats

    def expected_s(self, points: NDArray[np.int64]) -> Floats:  # noqa: ARG002  # the log has the chosen point only
        """Latency that the device expected of the present frame, seconds, ``[1]``."""
        return self.expected[self.frame]

    def frame_at(self, ahead: int = 0, lanes: NDArray[np.int64] | None = None) -> Frame:
        """The frame, with the byte noise of the log."""
        frame = super().frame_at(ahead, lanes)
        k = min(int(self.frame[0]) + ahead, len(self.noise) - 1)
        return frame._replace(byte_noise=np.full_like(frame.byte_noise, self.noise[k]))


def replayed_ms(
    lines: Sequence[dict[str, Any]],
    trace: Trace,
    table: PointTable,
    demand: Demand,
    offset_s: float = 0.0,
    world: World = STEADY,
) -> NDArray[np.float64]:
    """Simulated latency of each logged frame, capped at the deadline, milliseconds, ``[N]``.

    ``lines``: the log in the order of frames. ``offset_s``: time in the trace at which the first frame arrived.
    """
    rows = np.array([table.row(line["decision"]) for line in lines])
    ratio = _payload_ratios(lines, table, rows)
    table = without_streams(table, np.ones(table.size))  # the ratios have the ages of the references in them
    table = replace(table, hops=(replace(table.hops[0], bytes_sigma=np.ones(table.size)),))
    scenario = Scenario(traces=(trace,), demands=(demand,), table=table, world=world)
    simulation = _Replay(scenario, [np.random.default_rng(0)], trace_of=np.array([0]))
    simulation.links[0].offset_s[:] = offset_s
    simulation.noise = np.log(ratio)
    simulation.expected = np.array([1e-3 * line["predicted_ms"]["total"] for line in lines])
    latencies = []
    for row in rows:
        outcome, _ = simulation.step(np.array([row]))
        latencies.append(1e3 * float(outcome.latency_s[0]))
    return np.array(latencies)


def _payload_ratios(lines: Sequence[dict[str, Any]], table: PointTable, rows: Ints) -> Floats:
    """Bytes of each logged frame relative to those in the table, ``[N]``.

    Where the runtime sent nothing, they are the usual ones by the age of the reference that the log has.
    """
    sizes = np.array([float(line["bytes"]) for line in lines])
    ages = np.array([line.get("reference_age") for line in lines], dtype=np.float64)
    usual = table.streams.factors[rows, column_of(ages)]
    mean = table.hops[0].bytes_mean[rows]
    known = (sizes > 0.0) & (mean > 0.0)
    return np.where(known, sizes / np.where(known, mean, 1.0), usual)


def agreement(
    lines: Sequence[dict[str, Any]],
    trace: Trace,
    table: PointTable,
    demand: Demand,
    offset_s: float = 0.0,
    world: World = STEADY,
) -> Agreement:
    """Compare a log with its replay. The arguments are those of `replayed_ms`, the lines in any order."""
    lines = sorted(lines, key=lambda line: line["frame"])
    limit = 1e3 * demand.deadline_s
    simulated = replayed_ms(lines, trace, table, demand, offset_s, world)
    missed = np.array([line["answered_by"] == "miss" for line in lines])
    real = np.where(missed, limit, [min(line["actual_ms"]["total"] or limit, limit) for line in lines])
    error = np.abs(simulated - real) / real
    return Agreement(
        median=float(np.median(error)),
        p95=float(np.percentile(error, 95)),
        n=len(lines),
        simulated_ms=float(simulated.mean()),
        real_ms=float(real.mean()),
        simulated_misses=float(np.mean(simulated >= limit)),
        real_misses=float(missed.mean()),
    )

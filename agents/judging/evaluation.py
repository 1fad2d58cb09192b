"""Play controllers through whole episodes, and compute metrics from what happened."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tidesplit.envs.simulation.simulation import Scenario, Simulation
from tidesplit.envs.world.observation import Controller
from tidesplit.envs.world.vocabulary import MISS, Bools, Floats, Ints, gb_per_month

Entrant = Controller | Callable[[Simulation], Controller]
"""Takes part in a contest: a controller, or a function that makes one from the simulation that it will play in.

Functions are for controllers that need more than the observation, such as the true bandwidth or single answers.
"""


class History(NamedTuple):
    """All frames of one episode, shapes ``[N]``.

    ``points``: rows chosen. ``sent_bytes``: put on the first hop, probes too. ``goodput_bps``: true bandwidth of the
    first hop when the frame was decided, bits a second. ``joules``: of device and radio. The other columns are those of
    `Outcome`.
    """

    points: Ints
    answered_by: Ints
    utility: Floats
    latency_s: Floats
    accuracy: Floats
    sent_bytes: Floats
    dropped: Bools
    goodput_bps: Floats
    joules: Floats
    radio_j: Floats
    heat_c: Floats


@dataclass(frozen=True, kw_only=True)
class Row:
    """Results of one controller on one trace. Everything is a mean over all frames, unless its name says otherwise.

    A miss has accuracy 0, and the deadline as its latency. ``miss_rate`` includes drops. ``bytes_mean``: on the first
    hop. ``gb_per_month``: of 30 days at this frame rate, 1e9 bytes. ``joules``, ``watts``: of the device and its radio
    from estimated figures; ``radio_watts``: of the radio only. ``hottest_c``: highest temperature of the processor.
    ``switches_per_min``: changes of the chosen point. ``decision_us``: median time of a decision, microseconds.
    ``regret_pct``: utility lost to the clairvoyant, in percent of the clairvoyant's.
    """

    controller: str
    trace: str
    utility: float
    latency_ms_mean: float
    latency_ms_p50: float
    latency_ms_p95: float
    latency_ms_p99: float
    miss_rate: float
    drop_rate: float
    accuracy: float
    bytes_mean: float
    gb_per_month: float
    joules: float
    watts: float
    radio_watts: float
    hottest_c: float
    switches_per_min: float
    decision_us: float
    regret_pct: float


COLUMNS = tuple(f.name for f in fields(Row))


def simulation_of(scenario: Scenario, seed: int | Sequence[int], trace_of: Sequence[int] | None = None) -> Simulation:
    """A simulation with one lane for each seed and trace.

    A lane's course of events depends only on its seed and on its trace's place among the traces.

    Args:
        scenario: what the episodes are drawn from.
        seed: one seed or several. The lanes of the first seed come first.
        trace_of: indices of the traces to play. None: every trace once.
    """
    chosen = list(range(len(scenario.traces))) if trace_of is None else list(trace_of)
    seeds = [seed] if isinstance(seed, int) else list(seed)
    rngs = [np.random.default_rng([number, lane]) for number in seeds for lane in range(len(chosen))]
    return Simulation(scenario, rngs, trace_of=np.array(chosen * len(seeds)))


def controller_of(entrant: Entrant, simulation: Simulation) -> Controller:
    """The entrant itself where it is a controller, otherwise the controller that it makes for this simulation."""
    return entrant(simulation) if callable(entrant) else entrant


def play(
    entrant: Entrant, simulation: Simulation, report: Callable[[int, int], None] = lambda *_: None
) -> list[History]:
    """Let an entrant decide every frame of every lane's episode. Returns one history for each lane.

    ``report`` is called with the frames done and the frames in all, every 50 frames and at the end.
    """
    controller = controller_of(entrant, simulation)
    longest = int(simulation.frames.max())
    lanes = np.arange(simulation.lanes)
    kept: list[History] = []
    for frame in range(longest):
        rate_bps = 8.0 * simulation.uplinks[0].rate_at(lanes, simulation.situation().now_s)
        points = controller.predict(simulation.observation())
        outcome, _ = simulation.step(points)
        kept.append(
            History(
                points,
                outcome.answered_by,
                outcome.utility,
                outcome.latency_s,
                outcome.accuracy,
                outcome.hops[0].sent_bytes,
                outcome.dropped,
                rate_bps,
                outcome.device_j + outcome.radio_j,
                outcome.radio_j,
                outcome.heat_c,
            )
        )
        if frame % 50 == 49:
            report(frame + 1, longest)
    report(longest, longest)
    columns = [np.stack(column, axis=1) for column in zip(*kept, strict=True)]
    return [History(*(c[lane, : simulation.frames[lane]] for c in columns)) for lane in range(simulation.lanes)]


def summarise(
    record: History, *, controller: str, trace: str, period_s: float, decision_us: float, bound: float
) -> Row:
    """The row of one episode. ``bound``: the clairvoyant's mean utility in it. ``period_s``: from frame to frame."""
    latency_ms = record.latency_s * 1e3
    p50, p95, p99 = np.percentile(latency_ms, [50, 95, 99])
    utility = float(record.utility.mean())
    switches = int(np.count_nonzero(np.diff(record.points)))
    sent, joules = float(record.sent_bytes.mean()), float(record.joules.mean())
    return Row(
        controller=controller,
        trace=trace,
        utility=utility,
        latency_ms_mean=float(latency_ms.mean()),
        latency_ms_p50=float(p50),
        latency_ms_p95=float(p95),
        latency_ms_p99=float(p99),
        miss_rate=float(np.mean(record.answered_by == MISS)),
        drop_rate=float(record.dropped.mean()),
        accuracy=float(record.accuracy.mean()),
        bytes_mean=sent,
        gb_per_month=gb_per_month(sent, period_s),
        joules=joules,
        watts=joules / period_s,
        radio_watts=float(record.radio_j.mean()) / period_s,
        hottest_c=float(record.heat_c.max()),
        switches_per_min=switches / (len(record.points) * period_s) * 60.0,
        decision_us=decision_us,
        regret_pct=100.0 * (bound - utility) / bound if bound > 0.0 else 0.0,
    )


def decision_time_us(entrant: Entrant, scenario: Scenario, calls: int = 30) -> float:
    """Median time that this machine needs to decide one frame of one lane, microseconds."""
    simulation = simulation_of(scenario, seed=0, trace_of=[0])
    controller = controller_of(entrant, simulation)
    times: list[float] = []
    for _ in range(calls):
        observation = simulation.observation()
        begin = time.perf_counter()
        points = controller.predict(observation)
        times.append(time.perf_counter() - begin)
        _, ended = simulation.step(points)
        if ended.any():
            simulation.reset(np.array([0]))
    return float(np.median(times)) * 1e6


def mean_row(rows: Sequence[Row]) -> dict[str, float]:
    """Mean of each number over the rows of one controller."""
    numbers = [{k: v for k, v in asdict(row).items() if isinstance(v, float)} for row in rows]
    return {key: float(np.mean([n[key] for n in numbers])) for key in numbers[0]}


def captured(utility: float, static: float, bound: float) -> float:
    """Share of the headroom that a controller captures.

    The headroom is the clairvoyant's utility, ``bound``, less that of the best static point, ``static``.
    """
    return (utility - static) / (bound - static) if bound > static else float("nan")


def interval(values: NDArray[np.float64], rng: np.random.Generator, draws: int = 10_000) -> tuple[float, float]:
    """Bootstrap 95 % interval of the mean of ``values``, ``[N]``, from ``draws`` samples."""
    means = rng.choice(values, size=(draws, len(values)), replace=True).mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)

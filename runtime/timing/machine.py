"""A machine's table in a profile, from the times of the pieces that the points are made of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from tidesplit.profiling.measuring.clock import Measurement, machine_facts, time_interleaved
from tidesplit.profiling.points.profile import DeviceTable, Profile, ProfileError, Provenance, Timing
from tidesplit.runtime.cnn import ENGINES
from tidesplit.runtime.timing.work import Pieces, Turn, pieces_of


def time_turns(
    turns: Sequence[Turn], rounds: int, runs: int, tick: Callable[[], None] = lambda: None
) -> dict[str, Measurement]:
    """Time every piece in every round, so that a disturbance hits all alike. Each turn opens its models again.

    Args:
        turns: the pieces that are opened together.
        rounds: how often each piece has its turn.
        runs: timed runs in a turn.
        tick: called after every turn.

    Raises:
        KeyboardInterrupt: stopped in the first round. Later, the whole rounds before the stop count.
    """
    times: dict[str, tuple[float, ...]] = defaultdict(tuple)
    for number in range(rounds):
        found: dict[str, tuple[float, ...]] = {}
        try:
            for turn in turns:
                found |= {name: m.times_s for name, m in time_interleaved(turn(), 1, runs).items()}
                tick()
        except KeyboardInterrupt:
            if number == 0:
                raise
            break
        for name, values in found.items():
            times[name] += values
    return {name: Measurement(values, runs) for name, values in times.items()}


def table_of_machine(
    profile: Profile, measured: Mapping[str, Measurement], threads: int, engine: str = ENGINES[0]
) -> DeviceTable:
    """The table of this machine, without the cost of its loop.

    Args:
        profile: the points that were timed.
        measured: times of every piece.
        threads: threads of one run.
        engine: what ran the CNN.
    """
    spreads = [m.spread for m in measured.values()]
    provenance = Provenance(
        kind="measured", source="tidesplit profile latency", machine=machine_facts(threads),
        n=min(len(m.times_s) for m in measured.values()),
        spread={
            "kind": "lower quartile over rounds of the fastest run; spread: interquartile range over median of rounds",
            "median": float(np.median(spreads)), "largest": max(spreads),
            "noisy": sum(m.noisy for m in measured.values()), "timed": len(measured),
        },
    )  # fmt: skip
    times = {name: m.quiet_s for name, m in measured.items()}
    timings = {point.id: _timing(pieces_of(point), times) for point in profile.points}
    return DeviceTable(provenance=provenance, timings=timings, engine=engine, threads=threads)


def with_loop(table: DeviceTable, loop_s: float, parts: str) -> DeviceTable:
    """The table with the time that the device's loop takes for a frame, and a note of ``parts``, its content."""
    return replace(
        table, loop_s=loop_s, provenance=replace(table.provenance, spread={**table.provenance.spread, "loop": parts})
    )


def _timing(pieces: Pieces, times: Mapping[str, float]) -> Timing:
    return Timing(**{f"{name}_s": 0.0 if p is None else times[p] for name, p in pieces._asdict().items()})


def only(profile: Profile, ids: Iterable[str]) -> Profile:
    """The profile with these points only, and those that finish their frames.

    Raises:
        ProfileError: it does not have a point.
    """
    asked = [profile.point(point_id) for point_id in ids]
    kept = {point.id for point in asked} | {point.fallback for point in asked if point.fallback}
    if not kept:
        raise ProfileError("no operating point named")
    chains = profile.chains
    if chains is not None:
        pairs = tuple(pair for pair in chains.chains if {pair.first, pair.second} <= kept)
        chains = replace(chains, chains=pairs) if pairs else None
    return replace(profile, points=tuple(p for p in profile.points if p.id in kept), chains=chains)

"""Scenarios from the names of traces, profile and machines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from tidesplit.envs.simulation.simulation import Scenario
from tidesplit.envs.traces.trace import Trace, load_traces
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import Demand, Objective
from tidesplit.profiling.points import profile as profiles
from tidesplit.profiling.points.profile import Profile
from tidesplit.profiling.points.table import above_floor
from tidesplit.profiling.points.tiers import CLOUD, MIDDLE, points_of

DEVICE, SERVER = "raspberry-pi-4", "x86-2core"  # machines of the bundled profiles
SECOND_TRACE = "metro"  # bundled trace of a middle server's access network


class ScenarioOptions(TypedDict, total=False):
    """Keyword arguments of `scenario_from`. The environments take them too."""

    trace: str | Path | Trace | Sequence[Trace]
    profile: str | Path | Profile
    device: str
    server: str | None
    tiers: int
    cloud: str
    second_trace: str | Path | Trace | Sequence[Trace]
    objective: Objective
    fps: float
    deadline_ms: float
    min_accuracy: float
    max_watts: float | None
    max_gb_month: float | None
    demands: Sequence[Demand]
    world: World | None
    episode_s: float | None
    table_spread: float
    trace_spread: float


def scenario_from(
    *,
    trace: str | Path | Trace | Sequence[Trace] = "lte",
    profile: str | Path | Profile = "efficientnet_lite0",
    device: str = DEVICE,
    server: str | None = None,
    tiers: int = 2,
    cloud: str = CLOUD,
    second_trace: str | Path | Trace | Sequence[Trace] = SECOND_TRACE,
    objective: Objective = "accuracy",
    fps: float = 30.0,
    deadline_ms: float = 100.0,
    min_accuracy: float = 0.0,
    max_watts: float | None = None,
    max_gb_month: float | None = None,
    demands: Sequence[Demand] = (),
    world: World | None = None,
    episode_s: float | None = None,
    table_spread: float = 0.0,
    trace_spread: float = 0.0,
) -> Scenario:
    """Make a scenario from the names of its parts.

    Args:
        trace: uplink traces, or the name of a file, a folder or a bundled trace.
        profile: a profile, or the name of a file or of a bundled profile.
        device: label in the profile of the machine that runs heads.
        server: label in the profile of the machine behind the uplink. None: SERVER, or MIDDLE with three tiers.
        tiers: 2, or 3 for a middle server between device and server.
        cloud: label in the profile of the machine behind the second hop.
        second_trace: like ``trace``, of the second hop.
        objective: "accuracy" or "latency", see `Demand`.
        fps: frames a second.
        deadline_ms: milliseconds after its arrival by which a frame must be answered.
        min_accuracy: accuracy floor; points below it are masked.
        max_watts: budget of energy, watts of device and radio in the mean. Under one probes are rare.
        max_gb_month: budget of data, GB in 30 days. Probes take a tenth of it at most.
        demands: if given, each episode draws one of these, and the six arguments above have no effect.
        world: physical numbers; None: the defaults.
        episode_s: seconds of an episode, which begins at a random moment of its trace. None: a whole trace.
        table_spread: log-normal spread of an episode's timings and payloads about the profile.
        trace_spread: log-normal spread of an episode's bandwidth about the trace; trips and jitter have less.

    Raises:
        TraceError: a trace cannot be used.
        ProfileError: the profile cannot be used, or none of its points reaches the accuracy floor.
        DemandError: the demand has a value out of range.
        ValueError: the number of tiers is neither 2 nor 3.
    """
    asked = tuple(demands) or (
        Demand(
            objective=objective,
            fps=fps,
            deadline_s=deadline_ms / 1e3,
            min_accuracy=min_accuracy,
            max_watts=max_watts,
            max_gb_month=max_gb_month,
        ),
    )
    known = profile if isinstance(profile, Profile) else profiles.load(profile)
    table = points_of(known, machines_of(tiers, device, server, cloud))
    for demand in asked:
        above_floor(table, demand.min_accuracy)
    return Scenario(
        traces=_traces(trace),
        demands=asked,
        table=table,
        world=(world or World()).under(*asked),
        episode_s=episode_s,
        table_spread=table_spread,
        trace_spread=trace_spread,
        further=tuple(_traces(second_trace) for _ in table.hops[1:]),
    )


def machines_of(tiers: int, device: str = DEVICE, server: str | None = None, cloud: str = CLOUD) -> tuple[str, ...]:
    """Labels of the chain's machines, device first. See `scenario_from` for the arguments.

    Raises:
        ValueError: the number of tiers is neither 2 nor 3.
    """
    chains = {2: (device, server or SERVER), 3: (device, server or MIDDLE, cloud)}
    if tiers not in chains:
        raise ValueError(f"{tiers} tiers received, 2 or 3 expected")
    return chains[tiers]


def _traces(trace: str | Path | Trace | Sequence[Trace]) -> tuple[Trace, ...]:
    if isinstance(trace, Trace):
        return (trace,)
    return tuple(load_traces(trace) if isinstance(trace, str | Path) else trace)

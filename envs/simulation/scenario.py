"""From names to a scenario: which traces, which profile on which machines, which demand."""

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

DEVICE, SERVER = "raspberry-pi-4", "x86-2core"
SECOND_TRACE = "metro"


class ScenarioOptions(TypedDict, total=False):
    """Keyword arguments of `scenario_from`, which the environments take too."""

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
    demands: Sequence[Demand] = (),
    world: World | None = None,
    episode_s: float | None = None,
    table_spread: float = 0.0,
    trace_spread: float = 0.0,
) -> Scenario:
    """Assemble a scenario from what a user names.

    Args:
        trace: a file, a folder, a bundled trace's name, or traces.
        profile: a file, a bundled profile's name, or a profile.
        device: label of the machine in the profile that runs heads.
        server: label of the machine in the profile behind the uplink. None: SERVER, with three tiers MIDDLE.
        tiers: 2, or 3 for a middle server between device and server.
        cloud: label of the machine in the profile behind the second hop.
        second_trace: like ``trace``, of the second hop.
        objective: "accuracy" or "latency", see `Demand`.
        fps: frames a second.
        deadline_ms: milliseconds after its arrival by which a frame must be answered.
        min_accuracy: points below this accuracy are masked.
        demands: where given, each episode draws one of these, and the four arguments above count for nothing.
        world: physical numbers that differ from the defaults.
        episode_s: seconds an episode lasts, begun at a random moment; None plays a whole trace from its start.
        table_spread: log-normal spread of an episode's timings and payloads about the profile.
        trace_spread: log-normal spread of an episode's bandwidth and round trip about the trace.

    Raises:
        TraceError, ProfileError, DemandError: one sentence about what was received and expected; also where no
            operating point reaches the accuracy that is asked for.
        ValueError: another number of tiers.
    """
    asked = tuple(demands) or (
        Demand(objective=objective, fps=fps, deadline_s=deadline_ms / 1e3, min_accuracy=min_accuracy),
    )
    known = profile if isinstance(profile, Profile) else profiles.load(profile)
    table = points_of(known, machines_of(tiers, device, server, cloud))
    for demand in asked:
        above_floor(table, demand.min_accuracy)
    return Scenario(
        traces=_traces(trace),
        demands=asked,
        table=table,
        world=world or World(),
        episode_s=episode_s,
        table_spread=table_spread,
        trace_spread=trace_spread,
        further=(_traces(second_trace),) if tiers == 3 else (),
    )


def machines_of(tiers: int, device: str = DEVICE, server: str | None = None, cloud: str = CLOUD) -> tuple[str, ...]:
    """The chain of machines, device first. ``server``: the machine behind the uplink; None: SERVER or MIDDLE.

    Raises:
        ValueError: neither two nor three tiers.
    """
    if tiers not in (2, 3):
        raise ValueError(f"{tiers} tiers received, 2 or 3 expected")
    return (device, server or SERVER) if tiers == 2 else (device, server or MIDDLE, cloud)


def _traces(trace: str | Path | Trace | Sequence[Trace]) -> tuple[Trace, ...]:
    if isinstance(trace, Trace):
        return (trace,)
    return tuple(load_traces(trace) if isinstance(trace, str | Path) else trace)

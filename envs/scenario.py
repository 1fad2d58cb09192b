"""From names to a scenario: which traces, which profile on which machines, which demand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from envs.simulation import Scenario
from envs.traces import Trace, load_traces
from envs.vocabulary import Demand, Objective
from envs.world import World
from profiling import profile as profiles
from profiling.profile import Profile
from profiling.table import PointTable, above_floor, representative, table_for, undominated

DEVICE, SERVER = "raspberry-pi-4", "x86-2core"


class ScenarioOptions(TypedDict, total=False):
    """Keyword arguments of `scenario_from`, which the environments take too."""

    trace: str | Path | Trace | Sequence[Trace]
    profile: str | Path | Profile
    device: str
    server: str
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
    server: str = SERVER,
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
        server: label of the machine in the profile that runs tails.
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
    """
    asked = tuple(demands) or (
        Demand(objective=objective, fps=fps, deadline_s=deadline_ms / 1e3, min_accuracy=min_accuracy),
    )
    table = points_of(profile if isinstance(profile, Profile) else profiles.load(profile), device, server)
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
    )


def points_of(profile: Profile, device: str, server: str) -> PointTable:
    """The operating points worth choosing among, as these two machines run them."""
    return representative(undominated(table_for(profile, device, server)))


def _traces(trace: str | Path | Trace | Sequence[Trace]) -> tuple[Trace, ...]:
    if isinstance(trace, Trace):
        return (trace,)
    return tuple(load_traces(trace) if isinstance(trace, str | Path) else trace)

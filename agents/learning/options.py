"""Options of a training, by group. Their docstrings are the help of ``tidesplit train``."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from tidesplit.agents.learning import training
from tidesplit.envs.simulation.scenario import machines_of
from tidesplit.envs.world.vocabulary import Demand, Objective

USUAL_GB = 10.0
"""Default budget a month: a usual mobile plan. At 30 frames a second that is 129 bytes a frame, and a message by itself
takes 150. So there is something to decide on a Pi 4 and smaller devices."""
USUAL_DEADLINE_MS: dict[Objective, float] = {"accuracy": 100.0, "latency": 1000.0}


@dataclass(frozen=True, kw_only=True)
class WorldOptions:
    """Uplink, CNN and machines."""

    trace: str = "lte.csv"
    """Uplink: a file, a folder, or the name of a bundled trace."""
    profile: str = "efficientnet_lite0"
    """Operating points: a profile's file, a folder of tidesplit prepare, or the name of a bundled one."""
    video: bool = True
    """Offer video, for which device and server need PyAV (tidesplit[video], with x264 under the GPL)."""
    privacy: bool = False
    """Offer no point that sends pictures. What a cut sends of them is no picture, but no secret either."""
    device: str = "raspberry-pi-4"
    """Machine in the profile that runs the heads."""
    server: str | None = None
    """Machine that runs the tails. None: x86-2core; with --tiers 3 the middle server, i5-2500."""
    tiers: Literal[2, 3] = 2
    """3: a middle server stands between device and server."""
    cloud: str = "x86-2core"
    """With --tiers 3: machine on the second hop."""
    second_trace: str = "metro.csv"
    """With --tiers 3: link of the second hop, given like --trace."""
    world: str = "as-traced"
    """Physical numbers about the CNN: a JSON file with some of them, or granted: idle links wait for a grant."""

    @property
    def machines(self) -> tuple[str, ...]:
        """The chain of machines, device first."""
        return machines_of(self.tiers, self.device, self.server, self.cloud)


@dataclass(frozen=True, kw_only=True)
class DemandOptions:
    """Demand that the policy is trained for."""

    objective: Objective = "accuracy"
    """accuracy: most right answers within the deadline. latency: fastest answers above --min-accuracy."""
    fps: float = 30.0
    """Frames a second."""
    deadline_ms: float | None = None
    """A frame answered later is lost. None: 100; 1000 for the latency objective."""
    min_accuracy: float = 0.0
    """Operating points below this accuracy are not used."""
    max_watts: float | None = None
    """Budget of energy: mean watts of device and radio. None or inf: no budget."""
    max_gb_month: float | None = None
    """Budget of data: GB sent in 30 days; inf: no budget. None: 10, or no budget where --max-watts is given."""
    utility: str | None = None
    """Worth of answers in time: MODULE:FUNCTION of accuracy, latency_s and deadline_s. None: the objective's."""

    @property
    def demand(self) -> Demand:
        """The demand that these options make."""
        usual_gb = USUAL_GB if self.max_watts is None else np.inf
        watts, gb = self.max_watts, usual_gb if self.max_gb_month is None else self.max_gb_month
        deadline_ms = USUAL_DEADLINE_MS[self.objective] if self.deadline_ms is None else self.deadline_ms
        return Demand(
            objective=self.objective,
            fps=self.fps,
            deadline_s=deadline_ms / 1e3,
            min_accuracy=self.min_accuracy,
            max_watts=None if watts == np.inf else watts,
            max_gb_month=None if gb == np.inf else gb,
        )


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Training, and the time kept back from it."""

    start: str | None = None
    """generalist (the policy that ships), scratch, or a bundle's folder: its policy takes the place of imitation.
    None: generalist, but scratch for what that one never saw: a CNN of your own, a middle server, the latency
    objective, --utility, other than 5 to 30 frames a second or 75 to 250 ms."""
    effort: float = 1.0
    """How many times the usual labels and steps. It takes about as many times as long."""
    steps: int = training.PpoConfig.steps
    """Frames of PPO, the last phase of training, before --effort."""
    table_spread: float = 0.0
    """Log-normal spread of timings and sizes in training. Above 0 the policy serves other devices and CNNs too."""
    trace_spread: float = 1.5
    """Log-normal spread of bandwidth in training, and 0.4 of it for round trip and jitter. Serves other links too."""
    holdout: float = 0.2
    """Share of the time, or of many traces but at most twenty, that is kept back for the table."""
    holdout_s: float = 60.0
    """Longest part of a trace in the table, seconds."""
    seed: int = 0
    """Seed of everything random."""


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """What is written."""

    out: Path | None = None
    """Folder to write. None: out/TRACE, or the first of out/TRACE-2, out/TRACE-3 ... that is free."""
    resume: bool = False
    """Go on from OUT's checkpoint."""
    controller: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """MODULE:FACTORY, a controller of your own for the table; may be given several times."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Every option of a training, by group."""

    world: WorldOptions = field(default_factory=WorldOptions)
    demand: DemandOptions = field(default_factory=DemandOptions)
    training: TrainingOptions = field(default_factory=TrainingOptions)
    output: OutputOptions = field(default_factory=OutputOptions)

    def plain(self) -> dict[str, Any]:
        """All options by name, as JSON values."""
        options = [item for group in asdict(self).values() for item in group.items()]
        return {name: _plain(value) for name, value in options}


def _plain(value: Any) -> Any:
    return " ".join(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value

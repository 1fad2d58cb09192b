"""The Gymnasium environment `tidesplit/SplitInference-v0`: one frame a step, one operating point an action.

    import tidesplit.envs.adapters.split_inference  # registers it
    env = gymnasium.make("tidesplit/SplitInference-v0", trace="lte", fps=30, deadline_ms=100)

Importing this module registers the environment. (Gymnasium 1.0 and later read no entry points of installed packages.)

- Observation: the flat row of `Observation`, SI units, shape `[S + F * A]`. With ``normalise=True`` it is on the fixed
  scales of `normalised`, as SB3's nets need it.
- Action: a row of the table of A operating points.
- Reward: the frame's utility, 0 to 1. Under a budget, less what its energy and bytes cost, see `Demands.cost`.
- End: an episode is truncated, never terminated.
- `action_masks()`: True for the allowed points. It is advice, so any other point runs too. But an answer below the
  accuracy floor is worth 0.
"""

from __future__ import annotations

from typing import Any, Unpack

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import registry
from numpy.typing import NDArray

from tidesplit.envs.adapters.actions import rows_of
from tidesplit.envs.adapters.normalised import LIMIT, FixedScales, column_names
from tidesplit.envs.simulation.scenario import ScenarioOptions, scenario_from
from tidesplit.envs.simulation.simulation import Scenario, Simulation
from tidesplit.envs.world.fields import fields_of
from tidesplit.envs.world.vocabulary import DEVICE, MISS, SERVER, Bools, Outcome, flat_columns
from tidesplit.profiling.points.table import PointTable

ENV_ID = "tidesplit/SplitInference-v0"
LARGEST = 1e9  # bound of all SI values: bytes a second are at most a window of messages a millisecond
SIGNED = ("slack_s", "slack_low_s", "finish_slack_s")  # fields that may be negative
ANSWERED_BY = {SERVER: "server", DEVICE: "device", MISS: "miss"}


class SplitInference(gymnasium.Env[NDArray[Any], np.int64]):
    """One device and its chain of hops, in a ``scenario`` or in one made from the arguments of `scenario_from`.

    ``info`` has the frame's `Outcome` in SI units, the operating point's id as ``point``, and the next frame's
    ``action_mask``. After a reset it has the mask, and the names of the observation's ``columns``.

    Raises:
        TraceError, ProfileError, DemandError: see `scenario_from`.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 30}  # noqa: RUF012  # Gymnasium declares it so

    def __init__(
        self,
        *,
        scenario: Scenario | None = None,
        render_mode: str | None = None,
        normalise: bool = False,
        **options: Unpack[ScenarioOptions],
    ) -> None:
        self.scenario = scenario or scenario_from(**options)
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "render_fps": round(self.scenario.demands[0].fps)}
        self.simulation = Simulation(self.scenario, [self.np_random])
        self.columns = column_names(self.scenario.table)
        self._scales = FixedScales(self.scenario.table) if normalise else None
        self.observation_space = observation_space(self.scenario.table, normalise)
        self.action_space = action_space(self.scenario.table)
        self._line = ""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin an episode. ``options`` has no effect."""
        super().reset(seed=seed, options=options)
        self.simulation.rngs = [self.np_random]
        self.simulation.reset(np.zeros(1, dtype=np.int64))
        self._line = ""
        return self._observation(), {"action_mask": self.action_masks(), "columns": self.columns}

    def step(self, action: np.int64) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Run one frame by the operating point in row ``action``, an integer or an array of one.

        Raises:
            ValueError: no row of the table. The episode is then as it was.
        """
        row = rows_of(action, 1, self.scenario.table.size)
        outcome, done = self.simulation.step(row)
        point = self.scenario.table.ids[row[0]]
        info = {name: values[0].item() for name, values in flat_columns(outcome).items()}
        self._line = _line(int(self.simulation.frame[0]), point, outcome)
        info |= {"point": point, "action_mask": self.action_masks()}
        return self._observation(), float(outcome.utility[0] - outcome.cost[0]), False, bool(done[0]), info

    def action_masks(self) -> Bools:
        """True for the points that the next frame may use, shape ``[A]``."""
        mask: Bools = self.simulation.observation().mask[0]
        return mask

    def render(self) -> str | None:
        """The last frame as one line of text. None in modes other than "ansi"."""
        return self._line if self.render_mode == "ansi" else None

    def _observation(self) -> NDArray[np.float32]:
        rows = self.simulation.observation().flat()
        row: NDArray[np.float32] = (rows if self._scales is None else self._scales(rows))[0]
        return row


def observation_space(table: PointTable, normalise: bool = False) -> spaces.Box:
    """Space of one flat observation in SI units, or normalised, shape ``[S + F * A]``."""
    if normalise:
        return spaces.Box(-LIMIT, LIMIT, (len(column_names(table)),), dtype=np.float32)
    state, points = fields_of(len(table.hops))
    low = [0.0] * len(state) + [-LARGEST if f in SIGNED else 0.0 for f in points for _ in table.ids]
    bounds = np.array(low, dtype=np.float32)
    return spaces.Box(bounds, np.full_like(bounds, LARGEST), dtype=np.float32)


def action_space(table: PointTable) -> spaces.Discrete:
    """Space of one operating point, by its row in the table."""
    return spaces.Discrete(table.size)


def register() -> None:
    """Register the environment with Gymnasium. A second call changes nothing."""
    if ENV_ID not in registry:
        gymnasium.register(
            ENV_ID,
            entry_point="tidesplit.envs.adapters.split_inference:SplitInference",
            vector_entry_point="tidesplit.envs.adapters.vector:SplitInferenceVector",
        )


def _line(frame: int, point: str, outcome: Outcome) -> str:
    by = ANSWERED_BY[int(outcome.answered_by[0])]
    times = f"{outcome.latency_s[0] * 1e3:6.1f} ms (waited {outcome.waited_s[0] * 1e3:.1f})"
    sent = f"{outcome.hops[0].sent_bytes[0]:7.0f} B"
    return f"{frame:6d} {point:<28} {by:<6} {times} {sent}  utility {outcome.utility[0]:.3f}"


register()

"""A Gymnasium vector environment: `gymnasium.make_vec("tidesplit/SplitInference-v0", num_envs=N)`.

Lane i with seed s gives the numbers of the single environment with seed s + i. An episode begins again in the step that
ends the one before it (`AutoresetMode.SAME_STEP`). The last observation is then in `info["final_obs"]`, its info in
`info["final_info"]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from tidesplit.envs.adapters.actions import rows_of
from tidesplit.envs.adapters.normalised import FixedScales, column_names
from tidesplit.envs.adapters.split_inference import action_space, observation_space
from tidesplit.envs.simulation.lanes import Lanes, Stepped
from tidesplit.envs.simulation.scenario import ScenarioOptions, scenario_from
from tidesplit.envs.simulation.simulation import Scenario
from tidesplit.envs.world.vocabulary import Bools, Floats, Ints, flat_columns

Rows = NDArray[np.float32]


class SplitInferenceVector(VectorEnv[Rows, Ints, Any]):
    """``num_envs`` lanes of a ``scenario``, or of one made from the arguments of `scenario_from`.

    ``normalise``: observations on the fixed scales of `normalised` instead of SI units. Their names are in ``columns``.
    """

    metadata: dict[str, Any] = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int = 1,
        *,
        scenario: Scenario | None = None,
        render_mode: str | None = None,
        normalise: bool = False,
        **options: Unpack[ScenarioOptions],
    ) -> None:
        self.scenario = scenario or scenario_from(**options)
        self.num_envs = num_envs
        self.render_mode = render_mode
        self.lanes = Lanes(self.scenario, num_envs)
        self.columns = column_names(self.scenario.table)
        self._scales = FixedScales(self.scenario.table) if normalise else None
        self.single_observation_space = observation_space(self.scenario.table, normalise)
        self.single_action_space = action_space(self.scenario.table)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._ids = np.array(self.scenario.table.ids, dtype=object)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> tuple[Rows, dict[str, Any]]:
        """Begin an episode in every lane. ``options`` has no effect."""
        if seed is None or isinstance(seed, int):
            seed = [None if seed is None else seed + lane for lane in range(self.num_envs)]
        observation = self.lanes.reset(seed)
        return self._shown(observation.flat()), _infos_of(
            {"action_mask": observation.mask}, np.ones(self.num_envs, dtype=bool)
        )

    def step(self, actions: Ints) -> tuple[Rows, Floats, Bools, Bools, dict[str, Any]]:
        """Run one frame a lane. ``actions`` are rows of the table, ``[B]``.

        Raises:
            ValueError: not one row of the table for each lane. The episodes are then as they were.
        """
        rows = rows_of(actions, self.num_envs, self.scenario.table.size)
        stepped = self.lanes.step(rows)
        never = np.zeros(self.num_envs, dtype=bool)
        shown = self._shown(stepped.observation.flat())
        return shown, stepped.outcome.utility - stepped.outcome.cost, never, stepped.done, self._infos(stepped, rows)

    def _shown(self, flat: Rows) -> Rows:
        return flat if self._scales is None else self._scales(flat)

    def action_masks(self) -> Bools:
        """True for the points that the lanes' next frames may use, shape ``[B, A]``."""
        return self.lanes.simulation.observation().mask

    def _infos(self, stepped: Stepped, points: Ints) -> dict[str, Any]:
        frame = {**flat_columns(stepped.outcome), "point": self._ids[points]}
        infos = _infos_of(frame, ~stepped.done)
        infos |= _infos_of({"action_mask": stepped.observation.mask}, np.ones(self.num_envs, dtype=bool))
        if stepped.ended.size:
            rows = np.zeros((self.num_envs, stepped.final.shape[1]), dtype=np.float32)
            mask = np.zeros_like(stepped.observation.mask)
            rows[stepped.ended], mask[stepped.ended] = self._shown(stepped.final), stepped.final_mask
            last = _infos_of({**frame, "action_mask": mask}, stepped.done)
            infos |= _infos_of({"final_obs": rows, "final_info": last}, stepped.done)
        return infos


def _infos_of(values: dict[str, Any], where: Bools) -> dict[str, Any]:
    """Infos in Gymnasium's form: ``_name`` has True in the lanes where ``name`` has a value."""
    return {**values, **{f"_{name}": where for name in values}}

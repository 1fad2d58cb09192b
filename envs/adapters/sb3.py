"""The batched environment as a Stable-Baselines3 `VecEnv`. sb3-contrib's MaskablePPO reads its `action_masks`."""

from __future__ import annotations

from typing import Any, Unpack

import gymnasium
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from tidesplit.envs.adapters.actions import rows_of
from tidesplit.envs.adapters.normalised import FixedScales, column_names
from tidesplit.envs.adapters.split_inference import action_space, observation_space
from tidesplit.envs.simulation.lanes import Lanes, Stepped
from tidesplit.envs.simulation.scenario import ScenarioOptions, scenario_from
from tidesplit.envs.simulation.simulation import Scenario
from tidesplit.envs.world.vocabulary import Bools, Ints


class SplitInferenceVecEnv(VecEnv):
    """``num_envs`` lanes of a ``scenario``, or of one made from the arguments of `scenario_from`.

    ``normalise``: observations on the fixed scales of `normalised` instead of SI units.

    A lane's info is empty, except in the step that ends its episode. That one has ``terminal_observation``,
    ``TimeLimit.truncated``, and Monitor's ``episode`` with return ``r`` and length ``l``.

    Attributes:
        stepped: outcome of every lane's last frame; None before the first step.
        points: rows of the points chosen for it, ``[B]``.
        columns: names of an observation's columns.
    """

    def __init__(
        self,
        num_envs: int,
        *,
        scenario: Scenario | None = None,
        normalise: bool = False,
        **options: Unpack[ScenarioOptions],
    ) -> None:
        self.scenario = scenario or scenario_from(**options)
        self.render_mode = None
        self.lanes = Lanes(self.scenario, num_envs)
        self.stepped: Stepped | None = None
        self.points: Ints = np.full(num_envs, -1, dtype=np.int64)
        self._returns = np.zeros(num_envs)
        self._lengths = np.zeros(num_envs, dtype=np.int64)
        self.columns = column_names(self.scenario.table)
        self._scales = FixedScales(self.scenario.table) if normalise else None
        space = observation_space(self.scenario.table, normalise)
        super().__init__(num_envs, space, action_space(self.scenario.table))

    def _shown(self, flat: NDArray[np.float32]) -> NDArray[np.float32]:
        return flat if self._scales is None else self._scales(flat)

    def reset(self) -> NDArray[np.float32]:
        """Begin an episode in every lane, with the seeds set by ``seed``. Returns flat rows ``[B, S + F * A]``."""
        observation = self.lanes.reset(self._seeds)
        self._returns[:], self._lengths[:] = 0.0, 0
        self._reset_seeds()
        self._reset_options()
        return self._shown(observation.flat())

    def step_async(self, actions: Ints) -> None:
        """Take the chosen points, rows of the table ``[B]``.

        Raises:
            ValueError: not one row of the table for each lane. The episodes are then as they were.
        """
        self.points = rows_of(actions, self.num_envs, self.scenario.table.size)

    def step_wait(self) -> VecEnvStepReturn:
        """Run one frame a lane."""
        stepped = self.stepped = self.lanes.step(self.points)
        worth = stepped.outcome.utility - stepped.outcome.cost
        self._returns += worth
        self._lengths += 1
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for lane, final in zip(stepped.ended, self._shown(stepped.final), strict=True):
            episode = {"r": float(self._returns[lane]), "l": int(self._lengths[lane])}
            infos[lane] = {"terminal_observation": final, "TimeLimit.truncated": True, "episode": episode}
        self._returns[stepped.ended], self._lengths[stepped.ended] = 0.0, 0
        return self._shown(stepped.observation.flat()), worth.astype(np.float32), stepped.done, infos

    def action_masks(self) -> Bools:
        """True for the points that the lanes' next frames may use, shape ``[B, A]``."""
        return self.lanes.simulation.observation().mask

    def env_method(
        self,
        method_name: str,
        *method_args: Any,  # noqa: ARG002  # the base class's signature
        indices: VecEnvIndices = None,
        **method_kwargs: Any,  # noqa: ARG002
    ) -> list[Any]:
        """Call a method of the lanes. There is only ``action_masks``.

        Raises:
            AttributeError: another name.
        """
        if method_name != "action_masks":
            raise AttributeError(f"the method {method_name!r} was asked for, the lanes have only 'action_masks'")
        masks = self.action_masks()
        return list(masks if indices is None else masks[list(self._get_indices(indices))])

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The attribute of this object for each lane. All lanes share it."""
        return [getattr(self, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Raise an error, because the lanes share one simulation.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(f"{attr_name!r} cannot be set for single lanes: they share one simulation")

    def env_is_wrapped(
        self,
        wrapper_class: type[gymnasium.Wrapper[Any, Any, Any, Any]],  # noqa: ARG002  # the base class's signature
        indices: VecEnvIndices = None,
    ) -> list[bool]:
        """False for every lane: none is wrapped."""
        return [False for _ in self._get_indices(indices)]

    def close(self) -> None:
        """Do nothing: there is nothing to close."""

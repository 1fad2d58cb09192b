"""The batched twin as a Stable-Baselines3 `VecEnv`; sb3-contrib's MaskablePPO reads its masks by `action_masks`."""

from __future__ import annotations

from typing import Any, Unpack

import gymnasium
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from tidesplit.envs.adapters.actions import rows_of
from tidesplit.envs.adapters.split_inference import action_space, observation_space
from tidesplit.envs.simulation.lanes import Lanes, Stepped
from tidesplit.envs.simulation.scenario import ScenarioOptions, scenario_from
from tidesplit.envs.simulation.simulation import Scenario
from tidesplit.envs.world.vocabulary import Bools, Ints


class SplitInferenceVecEnv(VecEnv):
    """``num_envs`` lanes. Takes a ready ``scenario``, or the arguments of `scenario_from`.

    Infos are empty but in the step that ends a lane's episode (``terminal_observation``, ``TimeLimit.truncated``, and
    Monitor's ``episode`` with return ``r`` and length ``l``). What happened to every lane's last frame is in
    ``stepped``, arrays ``[B]``, and the points that were chosen in ``points``.
    """

    def __init__(self, num_envs: int, *, scenario: Scenario | None = None, **options: Unpack[ScenarioOptions]) -> None:
        self.scenario = scenario or scenario_from(**options)
        self.render_mode = None
        self.lanes = Lanes(self.scenario, num_envs)
        self.stepped: Stepped | None = None
        self.points: Ints = np.full(num_envs, -1, dtype=np.int64)
        self._returns = np.zeros(num_envs)
        self._lengths = np.zeros(num_envs, dtype=np.int64)
        super().__init__(num_envs, observation_space(self.scenario.table), action_space(self.scenario.table))

    def reset(self) -> NDArray[np.float32]:
        """Begin an episode in every lane, with the seeds set by ``seed`` if any; rows ``[B, S + F * A]``."""
        observation = self.lanes.reset(self._seeds)
        self._returns[:], self._lengths[:] = 0.0, 0
        self._reset_seeds()
        self._reset_options()
        return observation.flat()

    def step_async(self, actions: Ints) -> None:
        """Remember the points, rows of the table ``[B]``.

        Raises:
            ValueError: not one row of the table for each lane. The episodes are then as they were.
        """
        self.points = rows_of(actions, self.num_envs, self.scenario.table.size)

    def step_wait(self) -> VecEnvStepReturn:
        """Answer one frame a lane."""
        stepped = self.stepped = self.lanes.step(self.points)
        self._returns += stepped.outcome.utility
        self._lengths += 1
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for lane, final in zip(stepped.ended, stepped.final, strict=True):
            episode = {"r": float(self._returns[lane]), "l": int(self._lengths[lane])}
            infos[lane] = {"terminal_observation": final, "TimeLimit.truncated": True, "episode": episode}
        self._returns[stepped.ended], self._lengths[stepped.ended] = 0.0, 0
        return stepped.observation.flat(), stepped.outcome.utility.astype(np.float32), stepped.done, infos

    def action_masks(self) -> Bools:
        """Which points the lanes' next frames may use, shape ``[B, A]``."""
        return self.lanes.simulation.observation().mask

    def env_method(
        self,
        method_name: str,
        *method_args: Any,  # noqa: ARG002  # the base class's signature
        indices: VecEnvIndices = None,
        **method_kwargs: Any,  # noqa: ARG002
    ) -> list[Any]:
        """``action_masks`` of the lanes; they have no other method.

        Raises:
            AttributeError: any other name.
        """
        if method_name != "action_masks":
            raise AttributeError(f"the method {method_name!r} was asked for, the lanes have 'action_masks' alone")
        masks = self.action_masks()
        return list(masks if indices is None else masks[list(self._get_indices(indices))])

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The attribute of this object, which every lane shares."""
        return [getattr(self, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Not possible: the lanes share one simulation.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(f"the lanes share one simulation; {attr_name!r} cannot be set for one of them")

    def env_is_wrapped(
        self,
        wrapper_class: type[gymnasium.Wrapper[Any, Any, Any, Any]],  # noqa: ARG002  # the base class's signature
        indices: VecEnvIndices = None,
    ) -> list[bool]:
        """No lane is wrapped."""
        return [False for _ in self._get_indices(indices)]

    def close(self) -> None:
        """Nothing to close."""

"""The policy as SB3 knows it: the shared scorer as actor and a separate critic, for MaskablePPO."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib.common.maskable.distributions import MaskableDistribution
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor

from tidesplit.agents.learning.privileged import columns_of
from tidesplit.agents.learning.scorer import Critic, Features, Scorer
from tidesplit.envs.world.fields import fields_of


class PointPolicy(MaskableActorCriticPolicy):
    """Categorical over the operating points; reads the flat observation ``[B, S + F * A]``.

    Actor and critic share nothing but the normaliser: what the critic learns from an untrained start would otherwise
    wash out what the actor learned by imitation. In training, hindsight columns may follow the observation's own; they
    are for the critic, which reads zeros where there are none.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        hidden: int = 48,
        hops: int = 1,
        **kwargs: Any,
    ) -> None:
        self.hidden, self.hops, self.fields = hidden, hops, fields_of(hops)
        super().__init__(observation_space, action_space, lr_schedule, net_arch=[], ortho_init=False, **kwargs)

    def _build(self, lr_schedule: Schedule) -> None:
        self.features, self.actor = Features(self.fields), Scorer(self.hidden, self.fields)
        self.critic = Critic(2 * self.hidden, columns_of(self.hops), self.fields)
        self.optimizer = torch.optim.Adam(self.parameters(), lr=lr_schedule(1.0), eps=1e-5)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        parameters = super()._get_constructor_parameters()
        del parameters["net_arch"], parameters["ortho_init"]
        return {**parameters, "hidden": self.hidden, "hops": self.hops}

    def read(self, obs: PyTorchObs) -> tuple[Tensor, Tensor]:
        """Normalised state ``[B, S]`` and points ``[B, A, F]`` of flat observations."""
        assert isinstance(obs, Tensor)
        assert isinstance(self.action_space, spaces.Discrete)
        begin, end = len(self.fields.state), self.fields.width(int(self.action_space.n))
        state, rest = obs[:, :begin], obs[:, begin:end]
        normalised: tuple[Tensor, Tensor] = self.features(state, rest.reshape(len(obs), len(self.fields.points), -1))
        return normalised

    def told(self, obs: PyTorchObs) -> Tensor:
        """Hindsight columns ``[B, COLUMNS]`` of flat observations."""
        assert isinstance(obs, Tensor)
        assert isinstance(self.action_space, spaces.Discrete)
        end = self.fields.width(int(self.action_space.n))
        return obs[:, end:] if obs.shape[1] > end else obs.new_zeros(len(obs), columns_of(self.hops))

    def freeze_actor(self, frozen: bool) -> None:
        """Keep the actor as it is while the critic learns."""
        for parameter in self.actor.parameters():
            parameter.requires_grad_(not frozen)

    def forward(
        self, obs: Tensor, deterministic: bool = False, action_masks: np.ndarray | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Actions ``[B]``, values ``[B, 1]`` and log-probabilities ``[B]``."""
        state, points = self.read(obs)
        distribution = self._distribution(state, points, action_masks)
        actions = distribution.get_actions(deterministic=deterministic)
        return actions, self.critic(state, points, self.told(obs)), distribution.log_prob(actions)

    def evaluate_actions(
        self, obs: Tensor, actions: Tensor, action_masks: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Values ``[B, 1]``, log-probabilities ``[B]`` and entropies ``[B]`` of actions taken."""
        state, points = self.read(obs)
        distribution = self._distribution(state, points, action_masks)
        return self.critic(state, points, self.told(obs)), distribution.log_prob(actions), distribution.entropy()

    def get_distribution(self, obs: PyTorchObs, action_masks: np.ndarray | None = None) -> MaskableDistribution:
        """Distribution over the points."""
        return self._distribution(*self.read(obs), action_masks)

    def predict_values(self, obs: PyTorchObs) -> Tensor:
        """Values ``[B, 1]``."""
        values: Tensor = self.critic(*self.read(obs), self.told(obs))
        return values

    def _distribution(self, state: Tensor, points: Tensor, masks: Any) -> MaskableDistribution:
        distribution = self.action_dist.proba_distribution(action_logits=self.actor(state, points))
        if masks is not None:
            distribution.apply_masking(masks)
        return distribution


def greedy(policy: PointPolicy, flat: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Most likely allowed points ``[B]`` of flat observations, as fast as torch allows."""
    with torch.no_grad():
        logits = policy.actor(*policy.read(torch.from_numpy(flat)))
        chosen: np.ndarray = logits.masked_fill(~torch.from_numpy(mask), -torch.inf).argmax(dim=1).numpy()
    return chosen

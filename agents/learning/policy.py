"""The policy in the form that Stable-Baselines3's MaskablePPO trains: the scorer as actor, and a separate critic."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib.common.maskable.distributions import MaskableDistribution
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor

from tidesplit.agents.learning.privileged import column_count
from tidesplit.agents.learning.scorer import Critic, Features, Scorer
from tidesplit.agents.learning.scoring import scores
from tidesplit.envs.world.fields import fields_of


class PointPolicy(MaskableActorCriticPolicy):
    """A categorical distribution over the operating points, from flat observations ``[B, S + F * A]``.

    Actor and critic share only the normaliser. With shared layers, the untrained critic's first updates would destroy
    what the actor learned before. In training, privileged columns follow the observation. Only the critic reads
    them. Where there are none, it reads zeros.

    ``hidden``: width of the actor's hidden layers. The critic's are twice as wide. ``hops``: hops in the observation.
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
        self.width = self.fields.width(int(action_space.n))
        super().__init__(observation_space, action_space, lr_schedule, net_arch=[], ortho_init=False, **kwargs)

    def _build(self, lr_schedule: Schedule) -> None:
        self.features, self.actor = Features(self.fields), Scorer(self.hidden, self.fields)
        self.critic = Critic(2 * self.hidden, column_count(self.hops), self.fields)
        self.optimizer = torch.optim.Adam(self.parameters(), lr=lr_schedule(1.0), eps=1e-5)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        parameters = super()._get_constructor_parameters()
        del parameters["net_arch"], parameters["ortho_init"]
        return {**parameters, "hidden": self.hidden, "hops": self.hops}

    def fit_normaliser(self, flat: Tensor) -> None:
        """Fit the normaliser to a sample of flat observations."""
        self.features.fit(*self._split(flat))

    @property
    def knows_scales(self) -> bool:
        """True once the normaliser was fitted, or taken from another policy."""
        return bool((self.features.state.std != 1.0).any())

    def read(self, obs: PyTorchObs) -> tuple[Tensor, Tensor]:
        """Normalised state ``[B, S]`` and points ``[B, A, F]`` of flat observations."""
        normalised: tuple[Tensor, Tensor] = self.features(*self._split(obs))
        return normalised

    def _split(self, obs: PyTorchObs) -> tuple[Tensor, Tensor]:
        """Raw state ``[B, S]`` and points ``[B, F, A]`` of flat observations."""
        assert isinstance(obs, Tensor)
        begin = len(self.fields.state)
        return obs[:, :begin], obs[:, begin : self.width].reshape(len(obs), len(self.fields.points), -1)

    def privileged(self, obs: PyTorchObs) -> Tensor:
        """Privileged columns ``[B, P]`` that follow flat observations, zeros where there are none."""
        assert isinstance(obs, Tensor)
        given = obs.shape[1] > self.width
        return obs[:, self.width :] if given else obs.new_zeros(len(obs), column_count(self.hops))

    def freeze_actor(self, frozen: bool) -> None:
        """Exclude the actor from training, so that only the critic learns. False: include it again."""
        for parameter in self.actor.parameters():
            parameter.requires_grad_(not frozen)

    def forward(
        self, obs: Tensor, deterministic: bool = False, action_masks: np.ndarray | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Actions ``[B]``, values ``[B, 1]`` and log-probabilities ``[B]``."""
        state, points = self.read(obs)
        distribution = self._distribution(state, points, action_masks)
        actions = distribution.get_actions(deterministic=deterministic)
        return actions, self.critic(state, points, self.privileged(obs)), distribution.log_prob(actions)

    def evaluate_actions(
        self, obs: Tensor, actions: Tensor, action_masks: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Values ``[B, 1]``, log-probabilities ``[B]`` and entropies ``[B]`` of the given actions ``[B]``."""
        state, points = self.read(obs)
        distribution = self._distribution(state, points, action_masks)
        return self.critic(state, points, self.privileged(obs)), distribution.log_prob(actions), distribution.entropy()

    def get_distribution(self, obs: PyTorchObs, action_masks: np.ndarray | None = None) -> MaskableDistribution:
        """Distribution over the points, masked ones left out."""
        return self._distribution(*self.read(obs), action_masks)

    def predict_values(self, obs: PyTorchObs) -> Tensor:
        """Values ``[B, 1]`` of flat observations."""
        values: Tensor = self.critic(*self.read(obs), self.privileged(obs))
        return values

    def _distribution(self, state: Tensor, points: Tensor, masks: Any) -> MaskableDistribution:
        distribution = self.action_dist.proba_distribution(action_logits=scores(self.actor, state, points))
        if masks is not None:
            distribution.apply_masking(masks)
        return distribution


def greedy(policy: PointPolicy, flat: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Rows of the most likely allowed points, ``[B]``, without SB3's overhead.

    ``flat``: flat observations, ``[B, S + F * A]``. ``mask``: allowed points, ``[B, A]``.
    """
    with torch.no_grad():
        logits = scores(policy.actor, *policy.read(torch.from_numpy(flat)))
        chosen: np.ndarray = logits.masked_fill(~torch.from_numpy(mask), -torch.inf).argmax(dim=1).numpy()
    return chosen

"""Masked PPO for `PointPolicy`: Stable-Baselines3's algorithm, with an update that computes nothing twice.

The normaliser does not change any more, so a rollout is normalised once for all epochs. While the actor is frozen, it
is not evaluated. Losses, batches and their order are those of `MaskablePPO`; numbers equal its up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.buffers import MaskableRolloutBuffer
from stable_baselines3.common.utils import explained_variance
from torch import Tensor

from tidesplit.agents.learning.policy import PointPolicy
from tidesplit.agents.learning.scoring import scores

READ = 1024  # frames that are normalised at a time


class Rollout(NamedTuple):
    """N frames to learn from."""

    state: Tensor  # normalised, [N, S]
    points: Tensor  # normalised, [N, A, F]
    summary: Tensor  # what the critic reads, [N, C]
    mask: Tensor  # True for the points that were allowed, [N, A]
    action: Tensor  # [N]
    log_p: Tensor  # of the action, when it was chosen, [N]
    advantage: Tensor  # [N]
    gain: Tensor  # the return, [N]

    @classmethod
    def of(cls, buffer: MaskableRolloutBuffer, policy: PointPolicy) -> Rollout:
        """A full buffer's frames, those of a step next to each other."""
        obs, actions, mask, *columns = (
            torch.from_numpy(values).flatten(0, 1)
            for values in (
                buffer.observations, buffer.actions, buffer.action_masks,
                buffer.log_probs, buffer.advantages, buffer.returns,
            )
        )  # fmt: skip
        read = [(*policy.read(some), policy.privileged(some)) for some in torch.split(obs, READ)]
        summary = torch.cat([policy.critic.summary(*some) for some in read])
        state, points, _ = (torch.cat(parts) for parts in zip(*read, strict=True))
        return cls(state, points, summary, mask > 0.0, actions[:, 0].long(), *columns)

    def batches(self, order: np.ndarray, size: int) -> Iterator[Rollout]:
        """The frames in this order, so many at a time."""
        for rows in torch.split(torch.from_numpy(order), size):
            yield Rollout(*(column[rows] for column in self))


class PointPPO(MaskablePPO):
    """`MaskablePPO` with a quicker update. It knows neither a target of the KL divergence nor clipped values."""

    policy: PointPolicy

    def train(self) -> None:
        """Update the policy from the rollout buffer."""
        policy, buffer = self.policy, self.rollout_buffer
        assert isinstance(buffer, MaskableRolloutBuffer)
        assert self.batch_size is not None
        policy.set_training_mode(True)
        self._update_learning_rate(policy.optimizer)
        clip = self.clip_range(self._current_progress_remaining)  # type: ignore[operator]
        with torch.no_grad():
            rollout = Rollout.of(buffer, policy)
        frames = np.arange(len(rollout.gain)).reshape(buffer.buffer_size, buffer.n_envs)
        figures: list[dict[str, float]] = []
        for _ in range(self.n_epochs):
            for batch in rollout.batches(np.random.permutation(frames.T.ravel()), self.batch_size):  # noqa: NPY002
                loss, found = self._loss(batch, clip)
                policy.optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(policy.parameters(), self.max_grad_norm)
                policy.optimizer.step()
                figures.append({"loss": loss.item(), **found})
            self._n_updates += 1
        for name in figures[0]:
            self.logger.record(f"train/{name}", np.mean([found[name] for found in figures]))
        variance = explained_variance(buffer.values.flatten(), buffer.returns.flatten())
        self.logger.record("train/explained_variance", variance)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/clip_range", clip)

    def _loss(self, batch: Rollout, clip: float) -> tuple[Tensor, dict[str, float]]:
        """The loss of some frames, and figures for the log."""
        missed = torch.nn.functional.mse_loss(batch.gain, self.policy.critic.value(batch.summary)[:, 0])
        loss, figures = self.vf_coef * missed, {"value_loss": missed.item()}
        if not self.policy.actor.score.weight.requires_grad:
            return loss, figures
        log_ps = scores(self.policy.actor, batch.state, batch.points).masked_fill(~batch.mask, -1e8).log_softmax(dim=1)
        entropy = -(log_ps.exp() * log_ps).sum(dim=1).mean()
        change = log_ps.gather(1, batch.action[:, None])[:, 0] - batch.log_p
        ratio, advantage = change.exp(), batch.advantage
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        gained = torch.min(advantage * ratio, advantage * ratio.clamp(1.0 - clip, 1.0 + clip)).mean()
        figures |= {
            "entropy_loss": -entropy.item(),
            "policy_gradient_loss": -gained.item(),
            "approx_kl": (ratio - 1.0 - change).mean().item(),
            "clip_fraction": ((ratio - 1.0).abs() > clip).float().mean().item(),
        }
        return loss - gained - self.ent_coef * entropy, figures

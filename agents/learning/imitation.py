"""Imitation before PPO: learn, on the learner's own states, which point loses least in hindsight.

DAgger (Ross et al., AISTATS 2011) with costs instead of labels: the teacher sees the future and says how much every
point would lose; the learner, who does not, minimises the loss that it has to expect. A mere copy of the teacher's
choice would be blind to risk: the point that is best most often may be the one that fails worst.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tidesplit.agents.learning.policy import PointPolicy, greedy
from tidesplit.agents.learning.teacher import hindsight_regret
from tidesplit.envs.simulation.simulation import Simulation
from tidesplit.envs.world.fields import ONE_HOP, Fields
from tidesplit.envs.world.vocabulary import Bools, Ints

REGRET_CAP = 2.0  # two lost frames are as bad as more: the rest of the horizon is the continuation's to answer for


@dataclass(frozen=True, kw_only=True)
class ImitationConfig:
    """How much is asked of the teacher and how the learner fits it.

    ``hot`` and ``cold`` are what a nat of entropy is worth, in regret, in the first and last round. Begun cold, the
    learner grows sure of what it chose first and has no gradient left to think better of it.
    """

    rounds: int = 8
    labels_per_round: int = 2400
    every: int = 3
    epochs_per_round: int = 12
    last_epochs: int = 30
    batch: int = 512
    rate: float = 2e-3
    explore: float = 0.05
    hot: float = 0.5
    cold: float = 0.004


@dataclass(frozen=True)
class Labels:
    """States, ``flat`` ``[N, S + F * A]``, and what each point would lose there, ``mask`` and ``regret`` ``[N, A]``."""

    flat: Tensor
    mask: Tensor
    regret: Tensor

    def __add__(self, other: Labels) -> Labels:
        return Labels(*(torch.cat([getattr(self, f), getattr(other, f)]) for f in ("flat", "mask", "regret")))


def imitate(
    policy: PointPolicy,
    simulation: Simulation,
    config: ImitationConfig,
    rng: np.random.Generator,
    report: Callable[[int, int, float], None] = lambda *_: None,
) -> None:
    """Train the policy's actor and fit its normaliser. ``report(round, rounds, expected regret)`` after each round."""
    labels: Labels | None = None
    optimizer = torch.optim.Adam(policy.actor.parameters(), lr=config.rate)
    for number in range(config.rounds):
        fresh = collect(None if number == 0 else policy, simulation, config, rng)
        labels = fresh if labels is None else labels + fresh
        if number == 0:
            state, points = split(labels.flat, policy.fields)
            policy.features.fit(state, points)
        last = number == config.rounds - 1
        share = number / max(config.rounds - 1, 1)
        warmth = config.hot * (config.cold / config.hot) ** share
        loss = _fit(
            policy, labels, optimizer, config, config.last_epochs if last else config.epochs_per_round, warmth, rng
        )
        report(number + 1, config.rounds, loss)


def collect(
    policy: PointPolicy | None, simulation: Simulation, config: ImitationConfig, rng: np.random.Generator
) -> Labels:
    """Label the states that the policy gets into (the teacher's own in the first round)."""
    flats, masks, regrets = [], [], []
    count, step = 0, 0
    every_lane = np.arange(simulation.lanes)
    while count < config.labels_per_round:
        observation = simulation.observation()
        flat, mask = observation.flat(), observation.mask
        labelled = every_lane if policy is None else np.flatnonzero(rng.random(simulation.lanes) < 1.0 / config.every)
        regret = hindsight_regret(simulation, labelled)
        flats.append(flat[labelled])
        masks.append(mask[labelled])
        regrets.append(np.minimum(regret, REGRET_CAP).astype(np.float32))
        count, step = count + len(labelled), step + 1
        points = np.argmin(regret, axis=1) if policy is None else greedy(policy, flat, mask)
        _, ended = simulation.step(_explored(points, mask, config.explore, rng))
        if ended.any():
            simulation.reset(np.flatnonzero(ended))
    return Labels(*(torch.from_numpy(np.concatenate(part)) for part in (flats, masks, regrets)))


def split(flat: Tensor, fields: Fields = ONE_HOP) -> tuple[Tensor, Tensor]:
    """Raw state ``[N, S]`` and points ``[N, F, A]`` of flat observations."""
    width = len(fields.state)
    return flat[:, :width], flat[:, width:].reshape(len(flat), len(fields.points), -1)


def _explored(points: Ints, mask: Bools, share: float, rng: np.random.Generator) -> Ints:
    """The points, some of them replaced by a random allowed one."""
    at_random = np.where(mask, rng.random(mask.shape), -1.0).argmax(axis=1)
    return np.where(rng.random(len(points)) < share, at_random, points)


def _fit(
    policy: PointPolicy,
    labels: Labels,
    optimizer: torch.optim.Optimizer,
    config: ImitationConfig,
    epochs: int,
    warmth: float,
    rng: np.random.Generator,
) -> float:
    """Minimise expected regret less ``warmth`` times the entropy; returns the last epoch's expected regret."""
    state, points = policy.features(*split(labels.flat, policy.fields))
    regret = torch.where(labels.mask, labels.regret, torch.zeros(()))
    total = 0.0
    for _ in range(epochs):
        order = torch.from_numpy(rng.permutation(len(regret)))
        total = 0.0
        for rows in torch.split(order, config.batch):
            logits = policy.actor(state[rows], points[rows]).masked_fill(~labels.mask[rows], -1e9)
            log_p = logits.log_softmax(dim=1)
            p = log_p.exp()
            expected = (p * regret[rows]).sum(dim=1).mean()
            entropy = -(p * log_p).sum(dim=1).mean()
            optimizer.zero_grad()
            (expected - warmth * entropy).backward()
            torch.nn.utils.clip_grad_norm_(policy.actor.parameters(), 1.0)
            optimizer.step()
            total += expected.item() * len(rows)
    return total / len(regret)

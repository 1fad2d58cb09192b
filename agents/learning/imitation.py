"""Imitation before PPO: the policy learns which point loses least, from a teacher that knows the future, or a rule.

This is DAgger (Ross et al., AISTATS 2011) with costs instead of labels. On states that the policy visits, the teacher
gives the regret of every point, and the policy minimises the regret that it expects. To copy only the teacher's choice
would ignore risk: the point that is best most often may also be the one with the worst failures. A rule has no such
risk, since it knows no more than the policy, and its choice is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tidesplit.agents.judging.seer import teacher_regret
from tidesplit.agents.learning.policy import PointPolicy, greedy
from tidesplit.agents.learning.scoring import scores
from tidesplit.envs.simulation.simulation import Simulation
from tidesplit.envs.world.observation import Controller
from tidesplit.envs.world.vocabulary import Floats, Ints

Teacher = Callable[[Simulation, Ints], Floats]
"""Gives the regret of each point, ``[N, A]``, at the frame that these lanes of a simulation, ``[N]``, are to decide."""
REGRET_CAP = 2.0  # utility of two frames; larger losses are due to later decisions within the horizon


@dataclass(frozen=True, kw_only=True)
class ImitationConfig:
    """How many labels the teacher gives, and how the policy is fitted to them.

    The policy minimises expected regret less weight times entropy. The weight falls from round to round. If it were
    small from the beginning, the policy would become certain of its first choices, and gradients would vanish.

    Attributes:
        rounds: rounds of labelling and fitting. In the first round the teacher itself plays.
        labels_per_round: labelled states that each round adds, at least.
        every: one in this many states is labelled, except in the first round, which labels all.
        epochs_per_round: passes over all labels in a round.
        last_epochs: passes in the last round.
        batch: labels in a step of the optimiser.
        rate: learning rate of Adam.
        first_entropy: weight of the entropy in the first round, regret for one nat.
        last_entropy: the same in the last round.
    """

    rounds: int = 6
    labels_per_round: int = 6000
    every: int = 3
    epochs_per_round: int = 6
    last_epochs: int = 30
    batch: int = 512
    rate: float = 2e-3
    first_entropy: float = 0.5
    last_entropy: float = 0.004


@dataclass(frozen=True)
class Labels:
    """Labelled states: flat observations ``[N, S + F * A]``, allowed points and the teacher's regret, ``[N, A]``."""

    flat: Tensor
    mask: Tensor
    regret: Tensor

    @classmethod
    def of(cls, parts: Sequence[Labels], fields: int = 0) -> Labels:
        """Some labels together. Where their tables differ in size, the smaller ones get more points, none allowed.

        ``fields``: columns F of a point.
        """
        most = max(part.mask.shape[1] for part in parts)
        same = [part.padded(most - part.mask.shape[1], fields) for part in parts]
        return cls(*(torch.cat([getattr(part, name) for part in same]) for name in ("flat", "mask", "regret")))

    def padded(self, points: int, fields: int) -> Labels:
        """The labels with the last point so many times more, not allowed: the policy's maximum over points stays."""
        if not points:
            return self
        old = self.mask.shape[1]
        begin = self.flat.shape[1] - fields * old
        columns = F.pad(self.flat[:, begin:].reshape(-1, fields, old), (0, points), mode="replicate").flatten(1)
        flat = torch.cat([self.flat[:, :begin], columns], dim=1)
        return Labels(flat, F.pad(self.mask, (0, points)), F.pad(self.regret, (0, points)))


def imitate(
    policy: PointPolicy,
    simulations: Sequence[Simulation],
    config: ImitationConfig,
    rng: np.random.Generator,
    report: Callable[[int, int, float], None] = lambda *_: None,
    teacher: Teacher = teacher_regret,
) -> None:
    """Train the policy's actor. The normaliser of an untrained policy is fitted to the states of the first round.

    The simulations' lanes are played on and labelled, each simulation's equally often. Their tables may differ, the
    policy's is the largest. ``report`` is called after each round with its number, the number of rounds, and the
    expected regret.
    """
    parts: list[Labels] = []
    optimizer = torch.optim.Adam(policy.actor.parameters(), lr=config.rate)
    share = replace(config, labels_per_round=config.labels_per_round // len(simulations))
    for number in range(config.rounds):
        parts += [collect(None if number == 0 else policy, one, share, rng, teacher) for one in simulations]
        labels = Labels.of(parts, len(policy.fields.points))
        parts = [labels]
        if not policy.knows_scales:
            policy.fit_normaliser(labels.flat)
        epochs = config.last_epochs if number == config.rounds - 1 else config.epochs_per_round
        done = number / max(config.rounds - 1, 1)
        weight = config.first_entropy * (config.last_entropy / config.first_entropy) ** done
        loss = fit(policy, labels, optimizer, config.batch, epochs, weight, rng)
        report(number + 1, config.rounds, loss)


def to_copy(rule: Controller) -> Teacher:
    """A rule as a teacher: every point but its own has a regret of 1."""

    def regret(simulation: Simulation, lanes: Ints) -> Floats:
        observation = simulation.observation()
        losses = np.ones((len(lanes), observation.mask.shape[1]))
        np.put_along_axis(losses, rule.predict(observation)[lanes, None], 0.0, axis=1)
        return losses

    return regret


def collect(
    policy: PointPolicy | None,
    simulation: Simulation,
    config: ImitationConfig,
    rng: np.random.Generator,
    teacher: Teacher = teacher_regret,
) -> Labels:
    """Label states that the policy visits. Without a policy: the states that the teacher visits."""
    flats, masks, regrets = [], [], []
    count = 0
    every_lane = np.arange(simulation.lanes)
    while count < config.labels_per_round:
        observation = simulation.observation()
        flat, mask = observation.flat(), observation.mask
        labelled = every_lane if policy is None else np.flatnonzero(rng.random(simulation.lanes) < 1.0 / config.every)
        losses = teacher(simulation, labelled)
        flats.append(flat[labelled])
        masks.append(mask[labelled])
        regrets.append(np.minimum(losses, REGRET_CAP).astype(np.float32))
        count += len(labelled)
        points = np.argmin(losses, axis=1) if policy is None else greedy(policy, flat, mask)
        _, ended = simulation.step(points)
        if ended.any():
            simulation.reset(np.flatnonzero(ended))
    return Labels(*(torch.from_numpy(np.concatenate(part)) for part in (flats, masks, regrets)))


def fit(
    policy: PointPolicy,
    labels: Labels,
    optimizer: torch.optim.Optimizer,
    batch: int,
    epochs: int,
    weight: float,
    rng: np.random.Generator,
) -> float:
    """Minimise expected regret less ``weight`` times the entropy. Returns the expected regret of the last epoch."""
    state, points = (columns.contiguous() for columns in policy.read(labels.flat))
    losses = torch.where(labels.mask, labels.regret, torch.zeros(()))
    total = 0.0
    for _ in range(epochs):
        order = torch.from_numpy(rng.permutation(len(losses)))
        total = 0.0
        for rows in torch.split(order, batch):
            logits = scores(policy.actor, state[rows], points[rows]).masked_fill(~labels.mask[rows], -1e9)
            log_p = logits.log_softmax(dim=1)
            p = log_p.exp()
            expected = (p * losses[rows]).sum(dim=1).mean()
            entropy = -(p * log_p).sum(dim=1).mean()
            optimizer.zero_grad()
            (expected - weight * entropy).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(policy.actor.parameters(), 1.0)
            optimizer.step()
            total += expected.item() * len(rows)
    return total / len(losses)

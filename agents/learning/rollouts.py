"""Policy iteration by rollouts: the policy learns which point pays best if it goes on by itself after it.

The teacher of imitation sees six frames. Its policy stays on the device while nothing is known of the link, as at a
start, because the key frame of a stream pays only later. Here every likely point is tried from the same state against
the same course of events, and the policy plays on. The differences between the points are then due to the points, so
that few states are enough. It is no-regret policy iteration (Ross and Bagnell, arXiv:1406.5979), whose regrets are
fitted like a teacher's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from tidesplit.agents.learning.imitation import Labels, fit
from tidesplit.agents.learning.policy import PointPolicy, greedy
from tidesplit.agents.learning.scoring import scores
from tidesplit.envs.simulation.simulation import Simulation
from tidesplit.envs.world.vocabulary import Bools, Floats, Ints


@dataclass(frozen=True, kw_only=True)
class RolloutConfig:
    """How many states are labelled by rollouts, and how the policy is fitted to them.

    Attributes:
        rounds: rounds of labelling and fitting.
        labels_per_round: labelled states that each round adds, at least.
        every: frames from one labelled state of a lane to the next, in the mean.
        points: points tried in each state, the most likely ones.
        frames: frames played after each of them, itself included.
        untried: regret of the other points beyond the worst that was tried.
        cap: largest regret.
        epochs: passes over all labels in a round.
        batch: labels in a step of the optimiser.
        rate: learning rate of Adam.
        entropy: weight of the entropy, regret for one nat.
    """

    rounds: int = 3
    labels_per_round: int = 2500
    every: int = 30
    points: int = 6
    frames: int = 24
    untried: float = 0.2
    cap: float = 6.0
    epochs: int = 20
    batch: int = 512
    rate: float = 5e-4
    entropy: float = 0.02


def improve(
    policy: PointPolicy,
    simulations: Sequence[Simulation],
    config: RolloutConfig,
    rng: np.random.Generator,
    report: Callable[[int, int, float], None] = lambda *_: None,
) -> None:
    """Train the actor of a policy that was trained before, by imitation or more.

    Each of the simulations is played equally often, as in `imitate`. ``report`` is called after each round with its
    number, the number of rounds, and the expected regret.
    """
    parts: list[Labels] = []
    optimizer = torch.optim.Adam(policy.actor.parameters(), lr=config.rate)
    share = replace(config, labels_per_round=config.labels_per_round // len(simulations))
    for number in range(config.rounds):
        parts += [tried(policy, one, share, rng) for one in simulations]
        labels = Labels.of(parts, len(policy.fields.points))
        parts = [labels]
        loss = fit(policy, labels, optimizer, config.batch, config.epochs, config.entropy, rng)
        report(number + 1, config.rounds, loss)


def tried(policy: PointPolicy, simulation: Simulation, config: RolloutConfig, rng: np.random.Generator) -> Labels:
    """Label states that the policy visits, by trying the likely points. The simulation's lanes are played on."""
    parts: list[Labels] = []
    while sum(len(part.flat) for part in parts) < config.labels_per_round:
        for _ in range(int(rng.integers(1, 2 * config.every))):
            observation = simulation.observation()
            _, ended = simulation.step(greedy(policy, observation.flat(), observation.mask))
            if ended.any():
                simulation.reset(np.flatnonzero(ended))
        ahead = np.minimum(config.frames, simulation.frames // 2)  # short episodes have labels too
        lanes = np.flatnonzero(simulation.frame + ahead <= simulation.frames)
        if len(lanes):
            parts.append(_labelled(policy, simulation, lanes, config))
    return Labels.of(parts)


def _labelled(policy: PointPolicy, simulation: Simulation, lanes: Ints, config: RolloutConfig) -> Labels:
    """Labels of these lanes' present states."""
    observation = simulation.observation()
    flat, mask = torch.from_numpy(observation.flat()[lanes]), observation.mask[lanes]
    points = _likely(policy, flat, mask, config.points)
    worth = played_on(policy, simulation.forked(np.repeat(lanes, points.shape[1])), points.ravel(), config.frames)
    losses = worth.reshape(points.shape)
    losses = losses.max(axis=1, keepdims=True) - losses
    regret = np.repeat(losses.max(axis=1, keepdims=True) + config.untried, mask.shape[1], axis=1)
    np.put_along_axis(regret, points, losses, axis=1)
    regret = np.minimum(regret, config.cap).astype(np.float32)
    return Labels(flat, torch.from_numpy(mask), torch.from_numpy(regret))


@torch.no_grad()
def _likely(policy: PointPolicy, flat: torch.Tensor, mask: Bools, most: int) -> Ints:
    """Rows of the most likely points, ``[N, K]``. Where fewer are allowed, the likeliest stands for the others."""
    logits = scores(policy.actor, *policy.read(flat)).masked_fill(~torch.from_numpy(mask), -torch.inf)
    points: Ints = logits.topk(min(most, mask.shape[1]), dim=1).indices.numpy()
    allowed = np.take_along_axis(mask, points, axis=1)
    return np.where(allowed, points, points[:, :1])


def played_on(policy: PointPolicy, fork: Simulation, first: Ints, frames: int) -> Floats:
    """Utility less cost over so many frames that begin with these points and go on with the policy, ``[B]``."""
    points, total = first, np.zeros(fork.lanes)
    for frame in range(frames):
        if frame:
            observation = fork.observation()
            points = greedy(policy, observation.flat(), observation.mask)
        outcome, _ = fork.step(points)
        total += outcome.utility - outcome.cost
    return total

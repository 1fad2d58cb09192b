"""Policy iteration by rollouts: the policy learns which point pays best if it goes on by itself after it.

The teacher of imitation sees six frames. Its policy stays on the device while nothing is known of the link, as at a
start, because the key frame of a stream pays only later. Here every likely point is tried from the same state against
the same course of events, and the policy plays on. The differences between the points are then due to the points, so
that few states are enough. It is no-regret policy iteration (Ross and Bagnell, arXiv:1406.5979), whose regrets are
fitted like a teacher's.

Where energy has a price, trying a point may not be enough. A radio falls asleep 12 s after its last byte, so what its
sleep saves only shows if nothing is sent for long. `tried_for_long` also holds the policy to points that send nothing.
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
from tidesplit.envs.world.observation import Observation
from tidesplit.envs.world.vocabulary import Bools, Floats, Ints

HELD = (0.5, 0.4, 0.1)
"""Shares of the lanes that are free, held to points that send nothing, and held to points that send."""


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
        long_labels: further states that each round labels by `tried_for_long`, at least, where energy has a budget.
        long_s: time for which the policy is held to one kind of point there; a radio's tail lasts 11.6 s.
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
    long_labels: int = 0
    long_s: float = 15.0


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
    priced = [one for one in simulations if _may_sleep(one)]
    share = replace(
        config,
        labels_per_round=config.labels_per_round // len(simulations),
        long_labels=config.long_labels // max(len(priced), 1),
    )
    for number in range(config.rounds):
        parts += [tried(policy, one, share, rng) for one in simulations]
        parts += [tried_for_long(policy, one, share, rng) for one in priced if share.long_labels]
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


def _may_sleep(simulation: Simulation) -> bool:
    """True where a demand has a budget of energy, and points may send or not."""
    local, demands = simulation.scenario.table.local, simulation.scenario.demands
    return bool(local.any() and not local.all()) and any(demand.max_watts is not None for demand in demands)


def tried_for_long(
    policy: PointPolicy, simulation: Simulation, config: RolloutConfig, rng: np.random.Generator
) -> Labels:
    """Label states by what pays over ``long_s``: to go on with the policy, or to hold it to the other kind of point.

    The kinds are points that send nothing, and those that send. To hold to one is an option (Sutton, Precup and Singh,
    Artificial Intelligence 1999), and the better of both is parallel rollout (Chang, Givan and Chong, Discrete Event
    Dynamic Systems 2004). The simulation's lanes are played on, and half of them are held to a kind meanwhile, because
    a policy that always sends never sees a radio asleep.
    """
    parts: list[Labels] = []
    local = simulation.scenario.table.local
    kinds = np.stack([np.ones_like(local), local, ~local])
    held = np.zeros(simulation.lanes, dtype=np.int64)
    while sum(len(part.flat) for part in parts) < config.long_labels:
        longest = round(config.long_s / simulation.demands.period_s.min())
        for _ in range(int(rng.integers(1, max(longest // 2, 2)))):
            _, ended = simulation.step(_within(policy, simulation.observation(), kinds[held]))
            if ended.any():
                simulation.reset(np.flatnonzero(ended))
        drawn = rng.choice(len(kinds), simulation.lanes, p=HELD)
        held = np.where(rng.random(simulation.lanes) < 0.5, drawn, held)
        ahead = np.minimum(np.round(config.long_s / simulation.demands.period_s), simulation.frames // 2).astype(int)
        lanes = np.flatnonzero(simulation.frame + ahead <= simulation.frames)
        if len(lanes):
            parts.append(_labelled_for_long(policy, simulation, lanes, ahead[lanes], config))
    return Labels.of(parts)


def _labelled_for_long(
    policy: PointPolicy, simulation: Simulation, lanes: Ints, ahead: Ints, config: RolloutConfig
) -> Labels:
    """Labels of these lanes' present states, each over so many frames ``ahead``, ``[N]``."""
    local, observation = simulation.scenario.table.local, simulation.observation().take(lanes)
    other = local != local[greedy(policy, observation.flat(), observation.mask)][:, None]
    short = _labelled(policy, simulation, lanes, config, observation.mask & other)
    fork = simulation.forked(np.concatenate([lanes, lanes]))
    kinds, total = np.concatenate([np.ones_like(other), other]), np.zeros(fork.lanes)
    for frame in range(int(ahead.max())):
        outcome, _ = fork.step(_within(policy, fork.observation(), kinds))
        total += np.where(frame < np.tile(ahead, 2), outcome.utility - outcome.cost, 0.0)
    going_on, holding = total.reshape(2, -1)
    regret = short.regret.numpy().astype(np.float64)
    best = np.where(other & observation.mask, regret, config.cap).min(axis=1, keepdims=True)
    worth = np.where(other, (holding - going_on)[:, None] + best, 0.0) - regret
    losses = np.where(observation.mask, worth, -np.inf).max(axis=1, keepdims=True) - worth
    return replace(short, regret=torch.from_numpy(np.minimum(losses, config.cap).astype(np.float32)))


def _within(policy: PointPolicy, observation: Observation, kinds: Bools) -> Ints:
    """Rows of the likeliest points of these kinds, ``[B]``; of any kind in lanes where none of them is allowed."""
    both = observation.mask & kinds
    return greedy(policy, observation.flat(), np.where(both.any(axis=1, keepdims=True), both, observation.mask))


def _labelled(
    policy: PointPolicy, simulation: Simulation, lanes: Ints, config: RolloutConfig, among: Bools | None = None
) -> Labels:
    """Labels of these lanes' present states. ``among``: the likeliest of these points is tried too, ``[N, A]``."""
    observation = simulation.observation()
    flat, mask = torch.from_numpy(observation.flat()[lanes]), observation.mask[lanes]
    points = _likely(policy, flat, mask, config.points)
    if among is not None:
        likeliest = _likely(policy, flat, among, 1)
        points[:, -1:] = np.where(among.any(axis=1, keepdims=True), likeliest, points[:, -1:])
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

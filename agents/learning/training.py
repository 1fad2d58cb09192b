"""Trains the policy in five phases: a start, rollouts, a rule that is well ahead, only the critic, then PPO.

PPO from scratch ends at "always on the device". A policy that was trained before gives it a good actor to start from,
or else imitation does. Rollouts teach it what pays only later. A policy that is far behind a rule even so learns it,
and goes on from there. The critic then learns while the actor is frozen, because an untrained critic's advantages would
ruin the actor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger

from tidesplit.agents import bundle as bundles
from tidesplit.agents.device_net import arrays_of
from tidesplit.agents.learning.imitation import ImitationConfig, imitate, to_copy
from tidesplit.agents.learning.policy import PointPolicy
from tidesplit.agents.learning.ppo import PointPPO
from tidesplit.agents.learning.privileged import TrainingVecEnv
from tidesplit.agents.learning.rollouts import RolloutConfig, improve
from tidesplit.data.files import GENERALIST, whole
from tidesplit.envs.simulation.simulation import Scenario, Simulation
from tidesplit.envs.world.observation import Controller

KNOWN_FPS, KNOWN_S = (5.0, 30.0), (0.075, 0.250)
KNOWN_CNNS = ("efficientnet_lite0", "cifar_resnet")
"""Frames a second, deadlines and CNNs that the policy that ships was trained for."""
EPISODE_S = 20.0
BEHIND = 0.005
"""Utility less cost by which a rule must be ahead. At fixed prices, as checks have, a policy that was 0.002 behind was
ahead at equal budgets on `lte.csv`: it sends other numbers of bytes."""
BACKLOG_S = 0.1  # a device that falls behind stays so for minutes, unless its policy has learned to drop frames


@dataclass(frozen=True, kw_only=True)
class PpoConfig:
    """Hyperparameters of PPO.

    Attributes:
        steps: frames of PPO, in whole rollouts.
        critic_steps: frames before that in which only the critic learns.
        lanes: episodes played at a time.
        rollout: frames of each lane between updates.
        batch: frames in a step of the optimiser.
        epochs: passes over each rollout.
        rate: learning rate of Adam, which falls linearly to a twentieth.
        gamma: discount per frame.
        gae_lambda: decay of the generalised advantage estimate.
        clip: limit of the change of an action's probability, relative to 1.
        entropy: weight of the entropy in the loss.
        critic_weight: weight of the critic's error in the loss.
        max_gradient: norm to which gradients are clipped.
        hidden: width of the actor's hidden layers.
    """

    steps: int = 100_000
    critic_steps: int = 50_000
    lanes: int = 256
    rollout: int = 64
    batch: int = 1024
    epochs: int = 3
    rate: float = 1.5e-3
    gamma: float = 0.95
    gae_lambda: float = 0.98
    clip: float = 0.2
    entropy: float = 0.001
    critic_weight: float = 0.02
    max_gradient: float = 5.0
    hidden: int = 48

    @property
    def critic_frames(self) -> int:
        """Frames in which only the critic learns, in whole rollouts."""
        rollout = self.lanes * self.rollout
        return -(-self.critic_steps // rollout) * rollout

    @property
    def frames(self) -> int:
        """Frames of both phases, after which nothing is left to train."""
        return self.critic_frames + self.steps


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Hyperparameters of a whole training, and its seed."""

    imitation: ImitationConfig = field(default_factory=ImitationConfig)
    copying: ImitationConfig = field(default_factory=lambda: ImitationConfig(rounds=4))
    rollouts: RolloutConfig = field(default_factory=RolloutConfig)
    ppo: PpoConfig = field(default_factory=PpoConfig)
    seed: int = 0

    def times(self, effort: float) -> Recipe:
        """The recipe with so many times the labels, and the frames of PPO."""
        return replace(
            self,
            imitation=replace(self.imitation, labels_per_round=round(effort * self.imitation.labels_per_round)),
            copying=replace(self.copying, labels_per_round=round(effort * self.copying.labels_per_round)),
            rollouts=replace(self.rollouts, labels_per_round=round(effort * self.rollouts.labels_per_round)),
            ppo=replace(self.ppo, steps=round(effort * self.ppo.steps)),
        )


Progress = Callable[[str, int, int], None]
"""Called with the name of a phase, the steps done, and the steps in all."""


class Keeper:
    """Keeps the policy that was best when it was checked, so that more training never makes it worse.

    ``worth``: gives the mean utility less cost of a policy, always on the same episodes.
    """

    def __init__(self, worth: Callable[[PointPolicy], float]) -> None:
        self._worth = worth
        self.best: tuple[float, dict[str, torch.Tensor]] | None = None
        self.checks: list[float] = []

    def check(self, policy: PointPolicy) -> float:
        """Check a policy, and keep it if it is the best so far. Returns what it is worth."""
        worth = self._worth(policy)
        self.checks.append(worth)
        if self.best is None or worth >= self.best[0]:
            self.best = worth, {name: value.clone() for name, value in policy.state_dict().items()}
        return worth

    def restore(self, policy: PointPolicy) -> None:
        """Give a policy the weights of the best one."""
        if self.best is not None:
            policy.load_state_dict(self.best[1])


def stretches(scenario: Scenario) -> Scenario:
    """The scenario for training: episodes begin at a random moment of a trace, half of them with a busy device."""
    return replace(scenario, episode_s=EPISODE_S, backlog_s=BACKLOG_S)


def new_model(scenario: Scenario, recipe: Recipe, start: Path | None = None) -> MaskablePPO:
    """A PPO model on the scenario's batched environment: untrained, or with the actor of the bundle ``start``.

    Raises:
        BundleError: as `start_from`.
    """
    ppo = recipe.ppo if start is None else replace(recipe.ppo, hidden=hidden_of(start))
    env = TrainingVecEnv(ppo.lanes, scenario=stretches(scenario))
    env.seed(recipe.seed)
    model = PointPPO(
        PointPolicy,
        env,
        learning_rate=lambda left: ppo.rate * max(left, 0.05),
        n_steps=ppo.rollout,
        batch_size=ppo.batch,
        n_epochs=ppo.epochs,
        gamma=ppo.gamma,
        gae_lambda=ppo.gae_lambda,
        clip_range=ppo.clip,
        ent_coef=ppo.entropy,
        vf_coef=ppo.critic_weight,
        max_grad_norm=ppo.max_gradient,
        policy_kwargs={"hidden": ppo.hidden, "hops": len(scenario.links)},
        seed=recipe.seed,
        device="cpu",
    )
    if start is not None:
        start_from(policy_of(model), start)
    return model


Phase = Literal["imitation", "rollouts", "rule"]
"""Phases before PPO, in this order."""


def before_ppo(
    model: MaskablePPO,
    scenario: Scenario,
    recipe: Recipe,
    keeper: Keeper,
    begin: Phase,
    rules: Callable[[], Sequence[tuple[float, Controller]]],
    progress: Progress,
) -> Iterator[tuple[Phase, list[float]]]:
    """Train by the phases before PPO, beginning with this one. PPO begins with the best policy that the keeper checked.

    Yields each phase with its expected regret after each round, once its policy was checked. ``begin``: "rollouts" for
    a model that has a start, which is checked too. ``rules`` is called when their turn comes, see `learn_from_best`.
    """
    policy = policy_of(model)
    if begin == "imitation":
        losses = learn_by_imitation(model, [scenario], recipe, progress)
        keeper.check(policy)
        yield "imitation", losses
    elif begin == "rollouts":
        keeper.check(policy)
    if begin != "rule":
        losses = learn_by_rollouts(model, [scenario], recipe, progress)
        keeper.check(policy)
        yield "rollouts", losses
    yield "rule", learn_from_best(model, scenario, recipe, keeper, rules(), progress)


def learn_from_best(
    model: MaskablePPO,
    scenario: Scenario,
    recipe: Recipe,
    keeper: Keeper,
    rules: Sequence[tuple[float, Controller]],
    progress: Progress,
) -> list[float]:
    """Third phase: if a rule is well ahead of the best policy so far, that policy learns to decide as the rule does.

    The best policy then goes on. ``rules``: each with its worth on the keeper's episodes. Returns the expected regret
    after each round, nothing where no rule is ahead.
    """
    keeper.restore(policy_of(model))
    worth, rule = max(rules, key=lambda one: one[0], default=(-np.inf, None))
    if rule is None or (keeper.best is not None and worth <= keeper.best[0] + BEHIND):
        return []
    rng = np.random.default_rng([recipe.seed, 5])
    played = _played([scenario], recipe.seed, 6)
    losses, report = _reports(f"imitation of the {rule.name}", progress)
    imitate(policy_of(model), played, recipe.copying, rng, report, to_copy(rule))
    keeper.check(policy_of(model))
    keeper.restore(policy_of(model))
    return losses


def learn_by_imitation(
    model: MaskablePPO, scenarios: Sequence[Scenario], recipe: Recipe, progress: Progress
) -> list[float]:
    """A start from scratch: imitation, in one scenario or several. Returns the expected regret after each round.

    Scenarios may differ in their tables: the model is of the one with the most points.
    """
    rng = np.random.default_rng([recipe.seed, 1])
    played = _played(scenarios, recipe.seed, 2)
    losses, report = _reports("imitation", progress)
    imitate(policy_of(model), played, recipe.imitation, rng, report)
    return losses


def learn_by_rollouts(
    model: MaskablePPO, scenarios: Sequence[Scenario], recipe: Recipe, progress: Progress
) -> list[float]:
    """Second phase: rollouts, in one scenario or several. Returns the expected regret after each round."""
    rng = np.random.default_rng([recipe.seed, 3])
    played = _played(scenarios, recipe.seed, 4)
    losses, report = _reports("rollouts", progress)
    improve(policy_of(model), played, recipe.rollouts, rng, report)
    return losses


def _played(scenarios: Sequence[Scenario], seed: int, phase: int) -> list[Simulation]:
    """A simulation of each. Of many each has fewer lanes, so that its episodes get beyond their first seconds."""
    lanes = range(max(32, 128 // len(scenarios)))
    return [Simulation(stretches(one), [np.random.default_rng([seed, phase, i]) for i in lanes]) for one in scenarios]


def _reports(name: str, progress: Progress) -> tuple[list[float], Callable[[int, int, float], None]]:
    """A list of losses, and a function that fills it and reports progress in the phase."""
    losses: list[float] = []

    def report(done: int, total: int, loss: float) -> None:
        losses.append(loss)
        progress(name, done, total)

    return losses, report


def learn_by_ppo(
    model: MaskablePPO, recipe: Recipe, callback: BaseCallback | None, progress: Progress, logger: Logger | None = None
) -> None:
    """Fourth and fifth phase: only the critic, then actor and critic.

    The model continues from its own ``num_timesteps``, so a checkpoint can be resumed. ``callback`` and ``logger`` are
    Stable-Baselines3's. ``progress`` is called after each rollout.
    """
    if logger is not None:
        model.set_logger(logger)
    ppo, policy = recipe.ppo, policy_of(model)
    phases = ((ppo.critic_frames, True, "critic"), (ppo.frames, False, "PPO"))
    for until, frozen, name in phases:
        steps = until - model.num_timesteps
        if steps <= 0:
            continue
        policy.freeze_actor(frozen)
        ticker = Ticker(progress, name, model.num_timesteps, until)
        callbacks: list[BaseCallback] = [ticker] if callback is None else [ticker, callback]
        model.learn(steps, callback=callbacks, reset_num_timesteps=False, log_interval=4)
    policy.freeze_actor(False)


def policy_of(model: MaskablePPO) -> PointPolicy:
    """The model's policy, with its own type."""
    policy = model.policy
    assert isinstance(policy, PointPolicy)
    return policy


class Ticker(BaseCallback):
    """Reports the steps that are done in a phase."""

    def __init__(self, progress: Progress, name: str, begin: int, until: int) -> None:
        super().__init__()
        self._progress, self._name, self._begin, self._until = progress, name, begin, until

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self._progress(self._name, min(self.num_timesteps, self._until) - self._begin, self._until - self._begin)


def save_checkpoint(model: MaskablePPO, path: Path, keeper: Keeper | None = None) -> None:
    """Write weights, optimiser state and step count as safetensors. Reading such a file cannot run code.

    ``keeper``: its best policy is written too.
    """
    from safetensors.torch import save_file

    tensors = {f"policy.{k}": v.contiguous() for k, v in model.policy.state_dict().items()}
    for index, state in model.policy.optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{index}.{k}": v.clone().contiguous() for k, v in state.items()}
    tensors["steps"] = torch.tensor(model.num_timesteps)
    if keeper is not None and keeper.best is not None:
        worth, weights = keeper.best
        tensors["worth"] = torch.tensor(worth, dtype=torch.float64)
        tensors |= {f"best.{name}": value.contiguous() for name, value in weights.items()}
    with whole(path) as part:
        save_file(tensors, str(part))


def hidden_in(path: Path) -> int:
    """Width of the actor's hidden layers in a checkpoint.

    Raises:
        ValueError: the file is no checkpoint.
    """
    from safetensors import safe_open

    try:
        with safe_open(str(path), "pt") as opened:
            return int(opened.get_slice("policy.actor.score.weight").get_shape()[1])
    except Exception as error:
        raise ValueError(f"{path}: no checkpoint of this policy ({error})") from error


def load_checkpoint(model: MaskablePPO, path: Path, keeper: Keeper | None = None) -> None:
    """Set the model, and the keeper if there is one, to the state in a checkpoint.

    Raises:
        ValueError: the file is no checkpoint of this policy.
    """
    from safetensors.torch import load_file

    try:
        tensors = load_file(str(path))
        weights = {k.removeprefix("policy."): v for k, v in tensors.items() if k.startswith("policy.")}
        model.policy.load_state_dict(weights)
    except Exception as error:
        raise ValueError(f"{path}: no checkpoint of this policy ({error})") from error
    if keeper is not None and "worth" in tensors:
        best = {name.removeprefix("best."): value for name, value in tensors.items() if name.startswith("best.")}
        keeper.best = float(tensors["worth"]), best
    states: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        if key.startswith("adam."):
            _, index, name = key.split(".")
            states.setdefault(int(index), {})[name] = value
    optimizer = model.policy.optimizer
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    model.num_timesteps = int(tensors["steps"])


def usual_start(scenario: Scenario, cnn: str) -> Path | None:
    """The bundle that a training for a CNN of this name starts from: the policy that ships.

    None: scratch, for what that one never saw. It saw two CNNs, one hop, the objective "accuracy" and certain paces.
    For another CNN such a start was no better.
    """
    seen = cnn in KNOWN_CNNS and len(scenario.links) == 1 and scenario.world.utility is None
    for demand in scenario.demands:
        paced = KNOWN_FPS[0] <= demand.fps <= KNOWN_FPS[1] and KNOWN_S[0] <= demand.deadline_s <= KNOWN_S[1]
        seen = seen and paced and demand.objective == "accuracy"
    return GENERALIST if seen else None


def hidden_of(folder: Path) -> int:
    """Width of the hidden layers of a bundle's policy.

    Raises:
        BundleError: as `start_from`.
    """
    start = bundles.load(folder)
    try:
        return int(arrays_of(start.policy.arrays)["score.weight"].shape[1])
    except Exception as error:
        raise _no_start(folder, error) from error


def start_from(policy: PointPolicy, first: Path, *others: Path) -> None:
    """Give a policy the actor and the normaliser of a bundle's, or the mean weights of several that had one start.

    Such a mean is often better than each of them (Wortsman et al., Model soups, ICML 2022).

    Raises:
        BundleError: no bundle, or one of an earlier version, or with another number of hops or hidden units, or several
            without the same start.
    """
    actors, normaliser = [], bundles.load(first).manifest.get("normaliser")
    for folder in (first, *others):
        start = bundles.load(folder)
        if start.manifest.get("normaliser") != normaliser:
            raise bundles.BundleError(f"{folder} had another start than {first}: their weights have no mean")
        try:
            net, columns = arrays_of(start.policy.arrays), start.manifest["normaliser"]
            actors.append({name: torch.from_numpy(net[name]) for name in policy.actor.state_dict()})
            policy.actor.load_state_dict(actors[-1])
            for name, group in (("state", policy.features.state), ("points", policy.features.points)):
                group.mean.copy_(torch.tensor(columns[name]["mean"]))
                group.std.copy_(torch.tensor(columns[name]["std"]))
        except Exception as error:  # torch, NumPy and zip files have no common base class
            raise _no_start(folder, error) from error
    policy.actor.load_state_dict({name: torch.stack([a[name] for a in actors]).mean(dim=0) for name in actors[0]})


def _no_start(folder: Path, error: Exception) -> bundles.BundleError:
    return bundles.BundleError(f"{folder}: no policy to start from ({' '.join(str(error).split())})")

"""Logs a training to TensorBoard: how frames fare while the policy explores, and check episodes without exploration."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Figure as LoggedFigure

from tidesplit.agents.judging.evaluation import History, play, simulation_of
from tidesplit.agents.judging.figures import decisions_figure
from tidesplit.agents.learning.policy import PointPolicy, greedy
from tidesplit.envs.adapters.sb3 import SplitInferenceVecEnv
from tidesplit.envs.simulation.simulation import Scenario
from tidesplit.envs.world.observation import Observation
from tidesplit.envs.world.vocabulary import MISS, Ints, Outcome, each, gb_per_month

CHECK_SEED = 77


class Learner:
    """A policy in training as a controller: it always chooses the most likely point."""

    name = "PPO"

    def __init__(self, policy: PointPolicy) -> None:
        self._policy = policy

    def predict(self, observation: Observation) -> Ints:
        """Row of the most likely allowed point, ``[B]``."""
        return np.asarray(greedy(self._policy, observation.flat(), observation.mask), dtype=np.int64)


class Monitor(BaseCallback):
    """Logs the frames of each rollout, and at times the greedy policy on check episodes.

    Args:
        check: scenario of the check episodes, which are whole traces.
        bound: gives the clairvoyant's mean utility in the check episodes, or None while it is not yet known.
        every: number of rollouts from one check to the next.
        on_check: called after each check, for example to save a checkpoint.
    """

    def __init__(
        self,
        check: Scenario,
        bound: Callable[[], float | None],
        every: int = 8,
        on_check: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__()
        self._check, self._bound, self._every, self._on_check = check, bound, every, on_check
        self._outcomes: list[Outcome] = []
        self._points: list[Ints] = []
        self._rollouts = 0

    def _on_step(self) -> bool:
        env = self.training_env
        assert isinstance(env, SplitInferenceVecEnv)
        assert env.stepped is not None
        self._outcomes.append(env.stepped.outcome)
        self._points.append(env.points)
        return True

    def _on_rollout_end(self) -> None:
        outcome = each(lambda *columns: np.concatenate(columns), *self._outcomes)
        self._log_frames(outcome, np.concatenate(self._points))
        self._outcomes, self._points = [], []
        self._rollouts += 1
        if self._rollouts % self._every == 0:
            self.check_now()

    def _log_frames(self, outcome: Outcome, points: Ints) -> None:
        record = self.logger.record
        record("frames/utility", float(outcome.utility.mean()))
        record("frames/accuracy", float(outcome.accuracy.mean()))
        record("frames/latency_ms_mean", float(outcome.latency_s.mean()) * 1e3)
        record("frames/latency_ms_p95", float(np.percentile(outcome.latency_s, 95)) * 1e3)
        record("frames/bytes_mean", float(outcome.hops[0].sent_bytes.mean()))
        joules = float((outcome.device_j + outcome.radio_j).mean())  # simulated, from estimated figures
        record("frames/joules", joules)
        record("frames/watts", joules * self._check.demands[0].fps)
        record("frames/heat_c_max", float(outcome.heat_c.max()))
        record("frames/miss_rate", float(np.mean(outcome.answered_by == MISS)))
        record("frames/drop_rate", float(np.mean(outcome.dropped)))
        record("frames/fallback_rate", float(np.mean(outcome.fell_back)))
        partition = self._check.table.hops[0].partition
        for cut in np.unique(partition):
            record(f"partition_share/{cut}", float(np.mean(partition[points] == cut)))

    def check_now(self) -> None:
        """Play the check episodes without exploration, and log utility, misses, regret and a figure of decisions."""
        policy = self.model.policy
        assert isinstance(policy, PointPolicy)
        records = play(Learner(policy), simulation_of(self._check, CHECK_SEED))
        utility = float(np.mean([r.utility.mean() for r in records]))
        self.logger.record("check/utility", utility)
        self.logger.record("check/miss_rate", float(np.mean([np.mean(r.answered_by == MISS) for r in records])))
        period_s = self._check.demands[0].period_s
        self.logger.record("check/watts", float(np.mean([r.joules.mean() for r in records])) / period_s)
        sent = float(np.mean([r.sent_bytes.mean() for r in records]))
        self.logger.record("check/gb_per_month", gb_per_month(sent, period_s))
        bound = self._bound()
        if bound is not None:
            self.logger.record("check/regret_to_clairvoyant", bound - utility)
        self._log_figure(records[0])
        self.logger.dump(self.num_timesteps)
        self._on_check()

    def _log_figure(self, record: History) -> None:
        period_s = self._check.demands[0].period_s
        title = f"decisions after {self.num_timesteps} steps, {self._check.traces[0].name}"
        figure = decisions_figure(record, self._check.table, period_s, title)
        self.logger.record(
            "check/decisions", LoggedFigure(figure, close=True), exclude=("stdout", "log", "json", "csv")
        )

"""What will happen, for the critic alone and in training alone.

Most of what makes one return differ from another here is the link's doing, not the policy's. A critic that is told the
link's future takes that out of the advantages and leaves them unbiased, because no action changes the future link
(input-dependent baselines, Mao et al., ICLR 2019). The actor never sees these columns, and the deployed policy is the
actor.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from tidesplit.envs.adapters.sb3 import SplitInferenceVecEnv
from tidesplit.envs.simulation.simulation import Simulation
from tidesplit.envs.traces.uplink import TraceUplink
from tidesplit.envs.world.vocabulary import Floats

SPANS_S = (0.03, 0.06, 0.12, 0.25, 0.5, 1.0)
FRAMES_AHEAD = (0, 1, 2, 4, 8)
LINK_COLUMNS = len(SPANS_S) + 1
COLUMNS = LINK_COLUMNS + 3 * len(FRAMES_AHEAD)
FEW_BYTES = 1500.0


def columns_of(hops: int) -> int:
    """Number of privileged columns with so many hops."""
    return COLUMNS + LINK_COLUMNS * (hops - 1)


def hindsight(simulation: Simulation) -> NDArray[np.float32]:
    """The lanes' near future on scales of about one, ``[B, COLUMNS]``.

    The link's mean rate over SPANS_S from now and the time until it has carried one packet more; slow-down, wait at the
    server and round trip of the frames FRAMES_AHEAD; the rates and times of further hops.
    """
    now_s = simulation.situation().now_s
    first, *further = simulation.uplinks
    columns = _of_link(first, now_s)
    for ahead in FRAMES_AHEAD:
        frame = simulation.frame_at(ahead)
        columns += [frame.slow_down - 1.0, frame.server_wait_s * 50.0, frame.hops[0].rtt_s * 10.0]
    for link in further:
        columns += _of_link(link, now_s)
    return np.stack(columns, axis=1).astype(np.float32)


def _of_link(link: TraceUplink, now_s: Floats) -> list[Floats]:
    lanes = np.arange(len(now_s))
    carried = [link.bytes_between(lanes, now_s, now_s + span) / span for span in SPANS_S]
    first_s = np.minimum(link.finish_s(lanes, now_s, np.full(len(lanes), FEW_BYTES)) - now_s, 2.0)
    columns = [np.log10(np.maximum(rate, 0.0) + 1e3) - 5.0 for rate in carried]
    return [*columns, np.log10(first_s + 1e-3) + 2.0]


class TrainingVecEnv(SplitInferenceVecEnv):
    """The batched environment with the hindsight columns after the observation's own."""

    def __init__(self, num_envs: int, **options: Any) -> None:
        super().__init__(num_envs, **options)
        told = columns_of(len(self.scenario.links))
        width = spaces.flatdim(self.observation_space) + told
        self.observation_space = spaces.Box(-np.inf, np.inf, (width,), np.float32)
        self._told = np.zeros((num_envs, told), dtype=np.float32)

    def reset(self) -> NDArray[np.float32]:
        """Begin an episode in every lane."""
        return self._beside(super().reset())

    def step_wait(self) -> VecEnvStepReturn:
        """Answer one frame a lane. An ended lane's last observation is told what the frame before it was told."""
        flat, rewards, done, infos = super().step_wait()
        for lane in np.flatnonzero(done):
            infos[lane]["terminal_observation"] = np.append(infos[lane]["terminal_observation"], self._told[lane])
        return self._beside(np.asarray(flat)), rewards, done, infos

    def _beside(self, flat: NDArray[np.float32]) -> NDArray[np.float32]:
        self._told = hindsight(self.lanes.simulation)
        return np.concatenate([flat, self._told], axis=1)

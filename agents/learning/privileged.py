"""Privileged columns: the near future, for the critic only and in training only.

Returns differ mostly because links differ, not because the policy does. A critic that knows the link's future removes
this noise from the advantages. They stay unbiased, since no action changes the future link (input-dependent baselines,
Mao et al., ICLR 2019). The actor never sees these columns, and only the actor is deployed.
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

SPANS_S = (0.03, 0.06, 0.12, 0.25, 0.5, 1.0)  # spans from now on, over which each link's mean rate is given
FRAMES_AHEAD = (0, 1, 2, 4, 8)  # frames, counted from the present one, whose random numbers are given
LINK_COLUMNS = len(SPANS_S) + 1
COLUMNS = LINK_COLUMNS + 3 * len(FRAMES_AHEAD)
PACKET_BYTES = 1500.0


def column_count(hops: int) -> int:
    """Number of privileged columns with this many hops."""
    return COLUMNS + LINK_COLUMNS * (hops - 1)


def privileged_columns(simulation: Simulation) -> NDArray[np.float32]:
    """The near future of each lane, ``[B, COLUMNS]`` with one hop, on scales of about one.

    A link has the logarithms of its mean rate over each of SPANS_S, and of the time until it has carried one more
    packet. The order is: first link, then compute noise, server wait and round trip for each of FRAMES_AHEAD, then
    further links.
    """
    now_s = simulation.situation().now_s
    first, *further = simulation.uplinks
    columns = _link_columns(first, now_s)
    for ahead in FRAMES_AHEAD:
        frame = simulation.frame_at(ahead)
        columns += [0.3 * frame.compute_noise, frame.server_wait_s * 50.0, frame.hops[0].rtt_s * 10.0]
    for link in further:
        columns += _link_columns(link, now_s)
    return np.stack(columns, axis=1).astype(np.float32)


def _link_columns(link: TraceUplink, now_s: Floats) -> list[Floats]:
    lanes = np.arange(len(now_s))
    before = link.bytes_until(lanes, now_s)
    carried = [(link.bytes_until(lanes, now_s + span) - before) / span for span in SPANS_S]
    first_s = np.minimum(link.finish_s(lanes, now_s, np.full(len(lanes), PACKET_BYTES)) - now_s, 2.0)
    columns = [np.log10(np.maximum(rate, 0.0) + 1e3) - 5.0 for rate in carried]
    return [*columns, np.log10(first_s + 1e-3) + 2.0]


class TrainingVecEnv(SplitInferenceVecEnv):
    """The batched environment, whose observations are followed by the privileged columns."""

    def __init__(self, num_envs: int, **options: Any) -> None:
        super().__init__(num_envs, **options)
        privileged = column_count(len(self.scenario.links))
        width = spaces.flatdim(self.observation_space) + privileged
        self.observation_space = spaces.Box(-np.inf, np.inf, (width,), np.float32)
        self._privileged = np.zeros((num_envs, privileged), dtype=np.float32)

    def reset(self) -> NDArray[np.float32]:
        """Begin an episode in every lane."""
        return self._with_privileged(super().reset())

    def step_wait(self) -> VecEnvStepReturn:
        """Answer one frame in each lane. A terminal observation repeats the previous frame's privileged columns."""
        flat, rewards, done, infos = super().step_wait()
        for lane in np.flatnonzero(done):
            plain = infos[lane]["terminal_observation"]
            infos[lane]["terminal_observation"] = np.append(plain, self._privileged[lane])
        return self._with_privileged(np.asarray(flat)), rewards, done, infos

    def _with_privileged(self, flat: NDArray[np.float32]) -> NDArray[np.float32]:
        self._privileged = privileged_columns(self.lanes.simulation)
        return np.concatenate([flat, self._privileged], axis=1)

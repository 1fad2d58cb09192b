"""LinUCB as the bandit that learns online where to cut: what a message will take, linear in what it carries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidesplit.agents.rules.controllers import best_fitting
from tidesplit.envs.simulation.simulation import Simulation
from tidesplit.envs.world.belief import UNKNOWN_AGE_S
from tidesplit.envs.world.observation import Observation
from tidesplit.envs.world.vocabulary import Bools, Floats, Ints, each

# Features of a message: 1, kilobytes, and hundredths of a second: what its bytes take on the link as it was believed
# when the message was chosen, and what the server computes. Their weights are then of one size.
KILOBYTE, PART_S = 1e3, 0.010
FEATURES = 4
Numbers = NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True)
class LinUcb:
    """Autodidactic Neurosurgeon (Zhang, Chen, Xu, WWW 2021) on LinUCB (Li et al., WWW 2010): an entrant of a contest.

    As in the paper, the device's own times are known, and the delay from sending to answer is not: it is linear in what
    is known of the message, with weights learned by ridge regression from the answers, one regression a lane. Points
    are judged by the lower end of the delay's confidence interval, ``alpha`` wide (seconds, for a feature vector of
    length one). Frames are chosen for one at a time: the paper knows no queue on the device. It minimises latency; here
    the most accurate point within the deadline is taken, where accuracy counts. Its forced samples, without which the
    device alone is a trap, are the world's probes. Not the paper's, so that it is at its best: the believed bandwidth
    is part of the context (``usual_rate``, bytes a second, while nothing was measured for long), the ridge pulls
    towards the tables with ``ridge`` messages' weight, the past fades by ``memory`` an answer, the link's queue is
    counted, and ``margin_s`` shortens the deadline. What lies beyond the edge server, in three tiers, is taken as
    believed: the paper knows one link.
    """

    name: str
    usual_rate: float
    alpha: float = 0.01
    memory: float = 0.9
    margin_s: float = 0.0
    ridge: float = 0.1

    def __call__(self, simulation: Simulation) -> Bandit:
        """The bandit, listening to the answers that this simulation's devices have got by the time it decides."""
        return Bandit(self, simulation)


class Bandit:
    """One regression a lane. Of the simulation it reads what the device knows: now, and messages answered by then."""

    def __init__(self, knobs: LinUcb, simulation: Simulation) -> None:
        self.name = knobs.name
        self._knobs, self._simulation = knobs, simulation
        lanes = simulation.lanes
        rtt_s = simulation.scenario.world.usual_rtt_s()
        self._prior = np.array([rtt_s, 0.0, PART_S, PART_S])
        self._precision = np.zeros((lanes, FEATURES, FEATURES))
        self._moment = np.zeros((lanes, FEATURES))
        self._inverse = np.zeros_like(self._precision)
        self._heard_s = np.full(lanes, -np.inf)
        self._believed = np.full(lanes, knobs.usual_rate)  # bytes a second, at the last decision
        sent = simulation.links[0].transfers.payload
        self._chosen_at = np.full(sent.shape, knobs.usual_rate)  # the same, of each message sent
        self._newest_s = np.full(lanes, -np.inf)
        self._forget(np.ones(lanes, dtype=bool))

    def predict(self, observation: Observation) -> Ints:
        """The best point by optimistic delays, ``[B]``."""
        self._listen()
        seen, foreseen = observation.seen, observation.foreseen
        uplink = seen.hops[0]
        fresh = uplink.goodput_age_s < UNKNOWN_AGE_S
        self._believed = np.where(fresh, uplink.goodput, self._knobs.usual_rate).astype(np.float64)
        server_s, detour_s = foreseen.server_s, np.zeros_like(foreseen.head_s)
        for hop in foreseen.further[:1]:  # a point that goes on has its server's time in the detour
            detour_s = beyond_s(observation) * hop.sends
            server_s = server_s * (1.0 - hop.sends)
        delay, width = self.delays(features(foreseen.payload, self._believed[:, None], server_s))
        away = np.maximum(delay - self._knobs.alpha * width, 0.0)
        leaves = np.maximum(foreseen.head_s, uplink.queue_s[:, None])
        latency = seen.waited_s[:, None] + np.where(foreseen.local > 0.0, foreseen.head_s, leaves + away) + detour_s
        fits = latency + self._knobs.margin_s <= seen.deadline_s[:, None]
        return best_fitting(observation, latency, fits & observation.mask, observation.mask)

    def delays(self, told: Floats) -> tuple[Floats, Floats]:
        """Expected delay and its uncertainty, both ``[B, A]``, seconds and none, of features ``[B, A, FEATURES]``."""
        weights = np.einsum("bij,bj->bi", self._inverse, self._moment)
        squared = np.einsum("bai,bij,baj->ba", told, self._inverse, told)
        return np.einsum("bai,bi->ba", told, weights), np.sqrt(squared)

    def _listen(self) -> None:
        """Count the answers that have come since the last decision."""
        begun = self._simulation.frame == 0
        if begun.any():
            self._forget(begun)
        situation = self._simulation.situation()
        sent, now_s = situation.transfers[0], situation.now_s
        another = sent.sent_s[:, :1] != self._newest_s[:, None]  # at most one is sent between two decisions
        shifted = np.concatenate([self._believed[:, None], self._chosen_at[:, :-1]], axis=1)
        self._chosen_at, self._newest_s = np.where(another, shifted, self._chosen_at), sent.sent_s[:, 0].copy()
        fresh = (sent.answered_s <= now_s[:, None]) & (sent.answered_s > self._heard_s[:, None])  # [B, R]
        self._heard_s = np.maximum(self._heard_s, now_s)
        if not fresh.any():
            return
        told = features(sent.payload, self._chosen_at, sent.tail_s) * fresh[:, :, None]
        delay = np.where(fresh, sent.uplink_s + sent.rtt_s + sent.wait_s + sent.tail_s, 0.0)
        kept = self._knobs.memory ** fresh.sum(axis=1)
        ridge = self._knobs.ridge * (1.0 - kept)  # what fades is replaced by the prior
        self._precision *= kept[:, None, None]
        self._precision += ridge[:, None, None] * np.eye(FEATURES) + np.einsum("bri,brj->bij", told, told)
        self._moment *= kept[:, None]
        self._moment += ridge[:, None] * self._prior + np.einsum("bri,br->bi", told, delay)
        self._inverse[:] = np.linalg.inv(self._precision)

    def _forget(self, lanes: Bools) -> None:
        """Begin anew in these lanes, ``[B]``: the prior, and nothing heard."""
        self._precision[lanes] = self._knobs.ridge * np.eye(FEATURES)
        self._moment[lanes] = self._knobs.ridge * self._prior
        self._inverse[lanes] = np.eye(FEATURES) / self._knobs.ridge
        self._heard_s[lanes] = -np.inf


def beyond_s(observation: Observation) -> Numbers:
    """Part of the latency that lies beyond the first hop, by what the device believes, ``[B, A]``."""
    seen, foreseen = observation.seen, observation.foreseen
    uplink = each(lambda column: column[:, None], seen.hops[0])
    answered = np.maximum(foreseen.head_s, uplink.queue_s) + foreseen.payload / uplink.goodput + uplink.rtt_s
    later = foreseen.latency_s - seen.waited_s[:, None] - (answered + seen.server_wait_s[:, None])
    return np.asarray(later)


def features(payload: Numbers, rate: Numbers, server_s: Numbers) -> Floats:
    """Features ``[..., FEATURES]`` of messages of so many bytes, on a link believed so fast, for so long a tail."""
    told = np.stack([np.ones_like(payload), payload / KILOBYTE, payload / rate / PART_S, server_s / PART_S], axis=-1)
    return told.astype(np.float64)

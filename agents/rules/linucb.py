"""LinUCB: a bandit that learns the delay of messages while it decides, as a linear function of their features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidesplit.agents.rules.controllers import best_fitting, spread_keys
from tidesplit.envs.simulation.simulation import Simulation
from tidesplit.envs.world.belief import UNKNOWN_AGE_S
from tidesplit.envs.world.observation import Observation
from tidesplit.envs.world.vocabulary import Bools, Floats, Ints, each

# Features of a message: 1, its kilobytes, and two times in units of PART_S: on the link, and on the server. The time on
# the link is its bytes by the bandwidth estimated when it was chosen. These units give all weights similar sizes.
KILOBYTE, PART_S = 1e3, 0.010
FEATURES = 4
Numbers = NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True)
class LinUcb:
    """Autodidactic Neurosurgeon (Zhang, Chen, Xu, WWW 2021) on LinUCB (Li et al., WWW 2010).

    As in the paper, the device's own times are known, and the delay from sending to answer is learned. Each lane fits
    one ridge regression to the answers so far. A point's delay is judged by the lower end of its confidence interval.
    The paper knows no queue on the device: frames are decided one at a time. It also knows one link only, so in three
    tiers the part of the latency beyond the first hop is the observation's.

    The paper minimises latency. For the objective accuracy, the most accurate point within the deadline is chosen here.
    The paper forces samples, since a device that sends nothing learns nothing. The world's probes take their place.
    Four additions help the bandit. The estimated bandwidth is a feature, the link's queue is counted, old answers fade,
    and the ridge pulls towards the usual delay: round trip, time on the link, time on the server.

    Attributes:
        usual_rate: bandwidth assumed while the last measurement is too old, bytes a second.
        alpha: width of the confidence interval for a feature vector of length one, seconds.
        memory: factor on the weight of all earlier answers at each new one.
        margin_s: time by which a predicted latency has to be shorter than the deadline, seconds.
        ridge: weight of the usual delay, in answers.
        patience: frames over which the additional bytes of a key are spread, see `spread_keys`.
    """

    name: str
    usual_rate: float
    alpha: float = 0.01
    memory: float = 0.9
    margin_s: float = 0.0
    ridge: float = 0.1
    patience: float = 1.0

    def __call__(self, simulation: Simulation) -> Bandit:
        """The bandit of this simulation: it learns from the answers that the simulated devices receive."""
        return Bandit(self, simulation)


class Bandit:
    """LinUCB in all lanes of a simulation, of which it reads only what the devices know.

    That is the present time and the messages that are answered by then.
    """

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
        self._chosen_at = np.full(sent.shape, knobs.usual_rate)  # the same when each message was chosen
        self._newest_s = np.full(lanes, -np.inf)
        self._reset(np.ones(lanes, dtype=bool))

    def predict(self, observation: Observation) -> Ints:
        """Row of the best point by optimistic delays, ``[B]``."""
        self._learn()
        seen, foreseen = observation.seen, observation.foreseen
        uplink = seen.hops[0]
        fresh = uplink.goodput_age_s < UNKNOWN_AGE_S
        self._believed = np.where(fresh, uplink.goodput, self._knobs.usual_rate).astype(np.float64)
        server_s, detour_s = foreseen.server_s, np.zeros_like(foreseen.head_s)
        for hop in foreseen.further[:1]:  # where a point crosses the second hop, the detour has the server's time
            detour_s = beyond_first_hop_s(observation) * hop.sends
            server_s = server_s * (1.0 - hop.sends)
        _, payload = spread_keys(observation, self._knobs.patience)
        delay, width = self.delays(features(payload, self._believed[:, None], server_s))
        away = np.maximum(delay - self._knobs.alpha * width, 0.0)
        leaves = np.maximum(foreseen.head_s, uplink.queue_s[:, None])
        latency = seen.waited_s[:, None] + np.where(foreseen.local > 0.0, foreseen.head_s, leaves + away) + detour_s
        fits = latency + self._knobs.margin_s <= seen.deadline_s[:, None]
        return best_fitting(observation, latency, fits & observation.mask, observation.mask)

    def delays(self, context: Floats) -> tuple[Floats, Floats]:
        """Expected delay in seconds and its uncertainty without unit, both ``[B, A]``.

        ``context``: features, ``[B, A, FEATURES]``.
        """
        weights = np.einsum("bij,bj->bi", self._inverse, self._moment)
        squared = np.einsum("bai,bij,baj->ba", context, self._inverse, context)
        return np.einsum("bai,bi->ba", context, weights), np.sqrt(squared)

    def _learn(self) -> None:
        """Learn from the answers that have come since the last decision."""
        begun = self._simulation.frame == 0
        if begun.any():
            self._reset(begun)
        situation = self._simulation.situation()
        sent, now_s = situation.transfers[0], situation.now_s
        another = sent.sent_s[:, :1] != self._newest_s[:, None]  # at most one message between two decisions
        shifted = np.concatenate([self._believed[:, None], self._chosen_at[:, :-1]], axis=1)
        self._chosen_at, self._newest_s = np.where(another, shifted, self._chosen_at), sent.sent_s[:, 0].copy()
        fresh = (sent.answered_s <= now_s[:, None]) & (sent.answered_s > self._heard_s[:, None])  # [B, R]
        self._heard_s = np.maximum(self._heard_s, now_s)
        if not fresh.any():
            return
        context = features(sent.payload, self._chosen_at, sent.tail_s) * fresh[:, :, None]
        delay = np.where(fresh, sent.uplink_s + sent.rtt_s + sent.wait_s + sent.tail_s, 0.0)
        kept = self._knobs.memory ** fresh.sum(axis=1)
        ridge = self._knobs.ridge * (1.0 - kept)  # the prior takes the place of the weight that fades
        self._precision *= kept[:, None, None]
        self._precision += ridge[:, None, None] * np.eye(FEATURES) + np.einsum("bri,brj->bij", context, context)
        self._moment *= kept[:, None]
        self._moment += ridge[:, None] * self._prior + np.einsum("bri,br->bi", context, delay)
        self._inverse[:] = np.linalg.inv(self._precision)

    def _reset(self, lanes: Bools) -> None:
        """Return these lanes, ``[B]``, to the prior and to no answers."""
        self._precision[lanes] = self._knobs.ridge * np.eye(FEATURES)
        self._moment[lanes] = self._knobs.ridge * self._prior
        self._inverse[lanes] = np.eye(FEATURES) / self._knobs.ridge
        self._heard_s[lanes] = -np.inf


def beyond_first_hop_s(observation: Observation) -> Numbers:
    """Part of each point's predicted latency that lies beyond the first hop, seconds, ``[B, A]``."""
    seen, foreseen = observation.seen, observation.foreseen
    uplink = each(lambda column: column[:, None], seen.hops[0])
    answered = np.maximum(foreseen.head_s, uplink.queue_s) + foreseen.payload / uplink.goodput + uplink.rtt_s
    later = foreseen.latency_s - seen.waited_s[:, None] - (answered + seen.server_wait_s[:, None])
    return np.asarray(later)


def features(payload: Numbers, rate: Numbers, server_s: Numbers) -> Floats:
    """Features ``[..., FEATURES]`` of messages, from arrays ``[...]``.

    ``payload``: bytes. ``rate``: bandwidth estimated when the message was chosen, bytes a second. ``server_s``: time
    that the server computes, seconds.
    """
    columns = [np.ones_like(payload), payload / KILOBYTE, payload / rate / PART_S, server_s / PART_S]
    return np.stack(columns, axis=-1).astype(np.float64)

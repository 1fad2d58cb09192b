"""The second hop, in three tiers alone: what a message meets between edge server and cloud, as pure functions.

A message that goes on reaches the edge server half a round trip after it left the device. It is passed on as it is, or
waits there and is cut again. Then it takes its turn on the second link, which is serial and drains bytes by a trace of
its own, in the order in which the messages left the device. It reaches the cloud half a round trip of that link later.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from tidesplit.envs.world.link import Uplink
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import Bools, Floats, Ints


class Crossing(NamedTuple):
    """What was put on the second link for a frame, where ``sent``: the feature, the image, or a probe. Shapes ``[B]``.

    ``goes_on``: the frame's own message. ``ready_s``: when the edge server has it ready, ``begun_s`` and ``left_s``:
    when the link is free for it and when its last byte was on it. ``detour_s``: what all this adds to the frame's
    answer. ``answered_s``, ``due_s``, ``finish_s``, ``tail_s``: see `Transfers`.
    """

    sent: Bools
    goes_on: Bools
    ready_s: Floats
    begun_s: Floats
    left_s: Floats
    payload: Floats
    middle_s: Floats
    detour_s: Floats
    answered_s: Floats
    due_s: Floats
    finish_s: Floats
    tail_s: Floats


class Columns(Protocol):
    """Looks up a column of the chosen points, one value a lane."""

    def __call__(self, name: str) -> Floats:
        """Column ``name``, ``[B]``."""
        ...


def cross(
    at: Columns,
    goes_on: Bools,
    probes: Bools,
    at_edge_s: Floats,
    free_s: Floats,
    rtt_s: Floats,
    byte_noise: Floats,
    world: World,
    link: Uplink,
    lane: Ints,
) -> Crossing:
    """Put the frame, or a probe, on the second link behind what is there until ``free_s``.

    ``at`` reads the table's `Onward`. ``at_edge_s``: the message is at the edge server, and its turn has come there.
    """
    sent = goes_on | probes
    middle_s = np.where(goes_on, at("middle_s"), 0.0)
    ready_s = at_edge_s + middle_s
    body = at("bytes_mean") * np.exp(at("bytes_sigma") * byte_noise)
    payload = np.where(goes_on, body + world.overhead_bytes, world.probe_bytes)
    begun_s = np.maximum(ready_s, free_s)
    start_s = begun_s + ramp_s(payload, begun_s - free_s, rtt_s, world)
    left_s = link.finish_s(lane, start_s, np.where(sent, payload, 0.0))
    back_s = left_s + rtt_s
    detour_s = np.where(goes_on, back_s - at_edge_s, 0.0)
    none, never = np.zeros_like(left_s), np.full_like(left_s, np.inf)
    return Crossing(sent, goes_on, ready_s, begun_s, left_s, payload, middle_s, detour_s, back_s, never, none, none)


def ramp_s(payload: Floats, idle_s: Floats, rtt_s: Floats, world: World) -> Floats:
    """What slow start costs: each doubling of the window beyond the first a round trip, after an idle time alone."""
    rounds = np.ceil(np.log2(payload / world.initial_window_bytes + 1.0)) - 1.0
    return np.where(idle_s > world.idle_s, np.maximum(rounds, 0.0) * rtt_s, 0.0)

"""One hop: a link, and the machine behind it. A message takes its turn on the link and drains bytes by a trace.

The machine before the hop makes the bytes ready. The link is serial and takes messages in the order in which they left
the device. The last byte arrives half a round trip after it was put on the link.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tidesplit.envs.world.link import Uplink
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import Bools, Floats, Ints


class HopQueue(NamedTuple):
    """A link is taken until ``free_s``. At ``last_sent_s`` the device last sent what crosses it. Shapes ``[B]``."""

    free_s: Floats
    last_sent_s: Floats


class RoundTrip(NamedTuple):
    """Round trips of a hop: a message's own, and the usual one without the luck of the moment. Seconds."""

    rtt_s: Floats
    base_s: Floats


class Load(NamedTuple):
    """Traffic of one frame on a hop, shapes ``[B]``: its ``own`` message of ``body`` bytes, or a probe."""

    own: Bools
    probes: Bools
    body: Floats


class Crossing(NamedTuple):
    """A message on a hop, where ``sent``: feature, image, or probe. Shapes ``[B]``, seconds and bytes.

    ``own``: it is the frame's message, not a probe. ``ready_s``: the machine before the hop has it ready.
    ``begun_s``: the link is free for it. ``uplink_s``: from ready to the last byte on the link. ``compute_s``: time in
    which a server before the hop made it ready. ``detour_s``: time that a hop beyond the first adds to the frame's
    answer. ``answered_s``, ``due_s``, ``finish_s``, ``tail_s``: see `Transfers`.
    """

    sent: Bools
    own: Bools
    ready_s: Floats
    begun_s: Floats
    uplink_s: Floats
    payload: Floats
    compute_s: Floats
    detour_s: Floats
    answered_s: Floats
    due_s: Floats
    finish_s: Floats
    tail_s: Floats

    @property
    def left_s(self) -> Floats:
        """When the last byte was on the link."""
        return self.ready_s + self.uplink_s


def cross(
    load: Load, ready_s: Floats, queue: HopQueue, trip: RoundTrip, world: World, link: Uplink, lane: Ints
) -> Crossing:
    """Put a frame's message, or a probe, on a link behind the messages that are there.

    ``answered_s`` is when an answer that takes no time is back at the machine before the hop.
    """
    sent = load.own | load.probes
    payload = np.where(load.own, load.body + world.overhead_bytes, world.probe_bytes)
    begun_s = np.maximum(ready_s, queue.free_s)
    start_s = begun_s + ramp_s(payload, begun_s - queue.free_s, trip.rtt_s, world)
    left_s = link.finish_s(lane, start_s, np.where(sent, payload, 0.0))
    never, none = np.full_like(left_s, np.inf), np.zeros_like(left_s)
    back_s = left_s + trip.rtt_s
    return Crossing(sent, load.own, ready_s, begun_s, left_s - ready_s, payload, none, none, back_s, never, none, none)


def ramp_s(payload: Floats, idle_s: Floats, rtt_s: Floats, world: World) -> Floats:
    """Delay by TCP's slow start: a round trip for each doubling of the window. Only after an idle time."""
    rounds = np.ceil(np.log2(payload / world.initial_window_bytes + 1.0)) - 1.0
    return np.where(idle_s > world.idle_s, np.maximum(rounds, 0.0) * rtt_s, 0.0)

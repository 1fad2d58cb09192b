"""One hop: a link and the machine behind it.

The machine before the hop makes a message's bytes ready. The link is serial: it carries messages one after the other,
in the order in which they left the device. The last byte arrives half a round trip after it has left.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tidesplit.envs.world.link import Uplink
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.radio import Radio
from tidesplit.envs.world.vocabulary import Bools, Floats, Ints


class HopQueue(NamedTuple):
    """State of a link, shapes ``[B]``, seconds.

    The link is busy until ``free_s``. The last message for it left the device at ``last_sent_s``. Without more of them
    the radio falls asleep at ``awake_s``.
    """

    free_s: Floats
    last_sent_s: Floats
    awake_s: Floats


class RoundTrip(NamedTuple):
    """Round trip of a message on a hop, and the usual round trip without this message's jitter. Seconds."""

    rtt_s: Floats
    base_s: Floats


class Load(NamedTuple):
    """Traffic of one frame on a hop: its own message of ``body`` bytes, or a probe, or nothing. Shapes ``[B]``."""

    own: Bools
    probes: Bools
    body: Floats


class Crossing(NamedTuple):
    """A message on a hop: a frame's feature or picture, or a probe. Shapes ``[B]``, seconds and bytes."""

    sent: Bools  # True where there is a message; elsewhere payload is 0 and the times mean nothing
    own: Bools  # True where it is the frame's message, not a probe
    ready_s: Floats  # moment at which the machine before the hop has the bytes ready
    begun_s: Floats  # moment at which the link is free for them
    uplink_s: Floats  # time from ready until the last byte has left
    payload: Floats  # bytes with overhead
    radio_j: Floats  # energy that the message costs the radio
    compute_s: Floats  # time that a server before the hop took to make the bytes ready; 0 on the first hop
    detour_s: Floats  # time that a hop beyond the first adds to the frame's answer
    answered_s: Floats  # moment of the answer, see `Transfers`
    due_s: Floats  # see `Transfers`
    finish_s: Floats  # see `Transfers`
    tail_s: Floats  # see `Transfers`

    @property
    def left_s(self) -> Floats:
        """Moment at which the last byte has left."""
        return self.ready_s + self.uplink_s


def cross(
    load: Load, ready_s: Floats, queue: HopQueue, trip: RoundTrip, world: World, radio: Radio, link: Uplink, lane: Ints
) -> Crossing:
    """Send a frame's message or a probe over a link, after the messages that are queued there.

    In the result, ``answered_s`` is the moment at which an immediate answer is back at the machine before the hop.
    ``advance`` fills in the fields that are 0 here.

    The bytes are ready at ``ready_s`` ``[B]``. ``lane`` ``[B]`` is the row of ``link`` that each message uses.
    """
    sent = load.own | load.probes
    payload = np.where(load.own, load.body + world.overhead_bytes, load.probes * world.probe_bytes)
    begun_s = np.maximum(ready_s, queue.free_s)
    start_s = begun_s + ramp_s(payload, begun_s - queue.free_s, trip.rtt_s, world)
    start_s = start_s + radio.promotion_s * radio.asleep(ready_s, queue.awake_s)
    if world.grant_s:
        start_s = start_s + world.grant_s * (begun_s > queue.free_s)
    left_s = link.finish_s(lane, start_s, payload)
    joules = np.where(sent, radio.joules(ready_s, start_s, left_s, payload, queue.awake_s), 0.0)
    none, back_s = np.zeros_like(left_s), left_s + trip.rtt_s
    uplink_s = left_s - ready_s
    return Crossing(sent, load.own, ready_s, begun_s, uplink_s, payload, joules, none, none, back_s, none, none, none)


def ramp_s(payload: Floats, idle_s: Floats, rtt_s: Floats, world: World) -> Floats:
    """Delay by TCP's slow start, ``[B]``: one round trip for each doubling of the window, only after an idle time."""
    rounds = np.ceil(np.log2(payload / world.initial_window_bytes + 1.0)) - 1.0
    return np.where(idle_s > world.idle_s, np.maximum(rounds, 0.0) * rtt_s, 0.0)

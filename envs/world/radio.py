"""The energy of a mobile radio. It stays on for seconds after the last byte, so an isolated message is the dearest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tidesplit.envs.world.vocabulary import Bools, Floats


@dataclass(frozen=True, kw_only=True)
class Radio:
    """States of a radio: asleep, waking, sending, and awake after the last byte (the tail).

    The defaults are LTE's, measured on phones by Huang et al., MobiSys 2012. The tail of a USB modem of 2014 is as long
    but takes half the watts (grunenberger.net, Huawei E3276).
    """

    promotion_s: float = 0.2601  # time from asleep to awake; nothing is sent meanwhile
    promotion_w: float = 1.2107
    tail_s: float = 11.576  # time awake after the last byte
    tail_w: float = 1.060
    sending_w: float = 1.28804  # while it sends, without the part that grows with the rate
    joules_per_byte: float = 0.43839 * 8e-6  # 438.39 mW for each Mbit/s

    def asleep(self, moment_s: Floats, awake_s: Floats) -> Bools:
        """True where a radio that stays awake until ``awake_s`` sleeps at a moment."""
        return moment_s > awake_s

    def joules(self, ready_s: Floats, begun_s: Floats, left_s: Floats, payload: Floats, awake_s: Floats) -> Floats:
        """Energy that a message adds, ``[B]``: its sending, and all the time by which it keeps the radio awake longer.

        So a message after a silence pays for a whole tail, and one of many pays for the time since the last.

        Args:
            ready_s: moment at which the bytes are ready; a radio that sleeps wakes now.
            begun_s: moment at which the first byte leaves.
            left_s: moment at which the last byte has left.
            payload: bytes.
            awake_s: moment until which earlier messages keep the radio awake.
        """
        waking = self.asleep(ready_s, awake_s) * (self.promotion_w - self.tail_w) * self.promotion_s
        longer_s = left_s + self.tail_s - np.maximum(ready_s, awake_s)
        sending_s = left_s - begun_s
        longer = self.tail_w * np.maximum(longer_s, 0.0)
        return waking + longer + (self.sending_w - self.tail_w) * sending_s + self.joules_per_byte * payload


LTE = Radio()
WIRED = Radio(promotion_s=0.0, promotion_w=0.0, tail_s=0.0, tail_w=0.0, sending_w=0.0, joules_per_byte=0.0)
"""A wired link. The device spends nothing on it."""

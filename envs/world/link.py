"""The link as the pipeline sees it, and a link of constant bandwidth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tidesplit.envs.world.vocabulary import Floats, Ints

NEVER_S = 1e9  # end of a transfer on a dead link: finite, so that the difference of two of them is a number


class Uplink(Protocol):
    """A link for each of many lanes."""

    def finish_s(self, lane: Ints, start_s: Floats, payload: Floats) -> Floats:
        """Moment at which the last byte of a message has left, ``[B]``.

        NEVER_S, or ``start_s`` where that is later, on a link that never carries the bytes.

        Args:
            lane: the lane whose link each message uses, ``[B]``.
            start_s: moment from which the link is free, on the lane's clock, ``[B]``.
            payload: bytes, ``[B]``.
        """
        ...


@dataclass(frozen=True)
class ConstantUplink:
    """A link of constant bandwidth: ``rate`` bytes a second, one for each lane, ``[B]``."""

    rate: Floats

    def finish_s(self, lane: Ints, start_s: Floats, payload: Floats) -> Floats:
        """``start_s`` plus the time of the bytes at the constant rate. A link of rate 0 never finishes."""
        rate = self.rate[lane]
        alive = rate > 0.0
        finish = start_s + payload / np.where(alive, rate, 1.0)
        return np.where(alive | (payload <= 0.0), finish, np.maximum(start_s, NEVER_S))

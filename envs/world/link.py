"""What the pipeline asks of a link, and a link that is believed constant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tidesplit.envs.world.vocabulary import Floats, Ints

NEVER_S = 1e9  # "never" of a link that carries nothing: finite, so that differences of two of them stay numbers


class Uplink(Protocol):
    """What the pipeline asks of a link; ``lane`` says whose link, shapes ``[B]``, seconds and bytes."""

    def finish_s(self, lane: Ints, start_s: Floats, payload: Floats) -> Floats:
        """Moment at which the last of ``payload`` bytes has left, given that the first may leave at ``start_s``.

        NEVER_S, or ``start_s`` where that is later, if the link never carries them.
        """
        ...


@dataclass(frozen=True)
class ConstantUplink:
    """An uplink believed constant: ``rate`` bytes a second, shape ``[B]``, by lane."""

    rate: Floats

    def finish_s(self, lane: Ints, start_s: Floats, payload: Floats) -> Floats:
        """``start_s`` plus the bytes at the constant rate; a dead link never finishes."""
        rate = self.rate[lane]
        alive = rate > 0.0
        finish = start_s + payload / np.where(alive, rate, 1.0)
        return np.where(alive | (payload <= 0.0), finish, np.maximum(start_s, NEVER_S))

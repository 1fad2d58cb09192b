"""A family of fixed rules, of which the prices of energy and data choose one: mixtures, and the threshold rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tidesplit.agents.rules.controllers import nearest_allowed
from tidesplit.envs.world.observation import Observation
from tidesplit.envs.world.vocabulary import Floats, Ints


class Setting(NamedTuple):
    """A threshold rule: offload; race where the predicted low slack is short; stay local where it is hopeless.

    With the same row three times it is a static point. Where a frame is raced or stays local, a wider net runs on the
    device if it leaves time to spare. So wide and narrow nets take turns where the wide one by itself is too slow. With
    a point that sends in the place of the narrow net, the device answers while it has time, and the server the others.
    """

    offload: int  # row of the point for good links
    race: int  # row for links that may be too slow
    local: int  # row for links that are too slow
    short_s: float = 0.0  # low slack of ``offload`` below which the frame is raced
    hopeless_s: float = -np.inf  # its slack below which the frame stays local
    wide_race: int = 0  # row in place of ``race``
    wide_local: int = 0  # row in place of ``local``
    spare_s: float = np.inf  # time until the deadline that the wider net must leave


class Spent(NamedTuple):
    """Means of a frame on the training traces, one for each of K settings or points, ``[K]``."""

    utility: Floats
    joules: Floats  # of device and radio
    sent_bytes: Floats


@dataclass(frozen=True, kw_only=True)
class Family:
    """At each frame the setting of the highest utility less its cost at the present prices.

    Prices that move by little make it alternate between two settings. In the mean that is the best mixture of them, the
    optimum of the linear programme "most utility within the budgets".

    Attributes:
        settings: K fixed rules.
        spent: means of each of them.
    """

    name: str
    settings: Sequence[Setting]
    spent: Spent

    def predict(self, observation: Observation) -> Ints:
        """Row of the chosen point, ``[B]``."""
        seen = observation.seen
        cost = np.outer(seen.joule_price, self.spent.joules) + np.outer(seen.byte_price, self.spent.sent_bytes)
        return played(self.settings, (self.spent.utility - cost).argmax(axis=1), observation)


def played(settings: Sequence[Setting], chosen: Ints, observation: Observation) -> Ints:
    """Rows ``[B]`` of the settings number ``chosen``, ``[B]``."""
    columns = [np.array(column)[chosen] for column in zip(*settings, strict=True)]
    offload, race, local, short_s, hopeless_s, wide_race, wide_local, spare_s = columns
    lanes, foreseen = np.arange(len(chosen)), observation.foreseen
    # A race's forecast begins as if the worker were idle. Behind a heavy head the worker's time is counted twice.
    spare = foreseen.finish_slack_s - observation.seen.worker_s[:, None] * foreseen.races
    race, local = (
        np.where(spare[lanes, wide] >= spare_s, wide, narrow)
        for wide, narrow in ((wide_race, race), (wide_local, local))
    )
    rows = np.where(foreseen.slack_low_s[lanes, offload] < short_s, race, offload)
    rows = np.where(foreseen.slack_s[lanes, offload] < hopeless_s, local, rows)
    return nearest_allowed(observation, rows.astype(np.int64))

"""The best strategy for a demand. Every strategy is examined, so the result is exact."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tidesplit.agents.cnnpc.published_tables import Tables
from tidesplit.agents.cnnpc.strategies import NONE, PLACEMENTS, Strategies
from tidesplit.envs.world.vocabulary import Bools, Floats

DECIMALS = 9
SAME = 10.0**-DECIMALS  # numbers that differ by less count as equal, so that rounding breaks no tie and no bound


class Solution(NamedTuple):
    """A strategy in words.

    ``cuts``: blocks after which the CNN is cut. ``rates``: share of the channels removed at each cut. ``tiers``: those
    that compute, in order.
    """

    latency_ms: float
    accuracy: float
    cuts: list[int]
    rates: list[float]
    tiers: list[str]


class Infeasible(Exception):  # noqa: N818  # a result, not an error
    """No strategy meets the demand. ``nearest`` is the nearest demand that can be met, and ``solution`` meets it."""

    def __init__(self, sentence: str, nearest: float, solution: Solution) -> None:
        super().__init__(sentence)
        self.nearest, self.solution = nearest, solution


def fastest(strategies: Strategies, tables: Tables, floor: float) -> Solution:
    """Lowest latency with an accuracy of at least ``floor`` (A0). Ties go to the higher accuracy, then to the first.

    Raises:
        Infeasible: no strategy has this accuracy.
    """
    meets = strategies.offered & (strategies.accuracy >= floor - SAME)
    if meets.any():
        return _solution(strategies, tables, _best(meets, -strategies.latency_ms, strategies.accuracy))
    nearest = round(float(strategies.accuracy[strategies.offered].max()), DECIMALS)
    sentence = f"no strategy reaches an accuracy of {floor:g}; the nearest feasible --A0 is {nearest!r}"
    raise Infeasible(sentence, nearest, fastest(strategies, tables, nearest))


def most_accurate(strategies: Strategies, tables: Tables, bound_ms: float) -> Solution:
    """Highest accuracy within ``bound_ms`` (T0). Ties go to the lower latency, then to the first.

    Raises:
        Infeasible: every strategy takes longer.
    """
    meets = strategies.offered & (strategies.latency_ms <= bound_ms + SAME)
    if meets.any():
        return _solution(strategies, tables, _best(meets, strategies.accuracy, -strategies.latency_ms))
    nearest = round(float(strategies.latency_ms[strategies.offered].min()), DECIMALS)
    sentence = f"no strategy takes {bound_ms:g} ms or less; the nearest feasible --T0 is {nearest!r}"
    raise Infeasible(sentence, nearest, most_accurate(strategies, tables, nearest))


def _best(meets: Bools, worth: Floats, then: Floats) -> int:
    """Row with the highest ``worth`` where ``meets`` is true, all ``[N]``. Ties go to the highest ``then``."""
    top = meets & (worth >= worth[meets].max() - SAME)
    return int(np.argmax(top & (then >= then[top].max() - SAME)))


def _solution(strategies: Strategies, tables: Tables, row: int) -> Solution:
    cuts = [cut for cut in strategies.cut[row].tolist() if cut != NONE]
    removed = strategies.removed[row].tolist()
    return Solution(
        latency_ms=round(float(strategies.latency_ms[row]), DECIMALS),
        accuracy=round(float(strategies.accuracy[row]), DECIMALS),
        cuts=[int(tables.blocks[cut]) for cut in cuts],
        rates=[k / int(tables.channels[cut]) for cut, k in zip(cuts, removed, strict=False)],
        tiers=list(PLACEMENTS[strategies.placement[row]]),
    )

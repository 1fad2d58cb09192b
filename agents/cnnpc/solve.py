"""The best strategy for a demand, exactly: all are looked at, and ties go as said."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tidesplit.agents.cnnpc.published_tables import Tables
from tidesplit.agents.cnnpc.strategies import NONE, PLACEMENTS, Strategies
from tidesplit.envs.world.vocabulary import Bools, Floats

DECIMALS = 9
SAME = 10.0**-DECIMALS  # sums that are nearer are one number: a tie on paper is a tie, a bound met is met


class Answer(NamedTuple):
    """A strategy in words: milliseconds, expected accuracy, blocks cut after, share of channels removed, tiers used."""

    latency_ms: float
    accuracy: float
    cuts: list[int]
    rates: list[float]
    tiers: list[str]


class Infeasible(Exception):  # noqa: N818  # an answer, not an error: nothing went wrong
    """No strategy meets the demand; ``nearest`` is the demand's nearest value that one meets, ``answer`` that one."""

    def __init__(self, sentence: str, nearest: float, answer: Answer) -> None:
        super().__init__(sentence)
        self.nearest, self.answer = nearest, answer


def fastest(strategies: Strategies, tables: Tables, floor: float) -> Answer:
    """Lowest latency at or above an accuracy (A0); ties go to the higher accuracy, then to the first in order.

    Raises:
        Infeasible: no strategy is so accurate.
    """
    meets = strategies.offered & (strategies.accuracy >= floor - SAME)
    if meets.any():
        return _answer(strategies, tables, _best(meets, -strategies.latency_ms, strategies.accuracy))
    nearest = round(float(strategies.accuracy[strategies.offered].max()), DECIMALS)
    sentence = f"no strategy reaches an accuracy of {floor:g}; the nearest feasible --A0 is {nearest!r}"
    raise Infeasible(sentence, nearest, fastest(strategies, tables, nearest))


def most_accurate(strategies: Strategies, tables: Tables, bound_ms: float) -> Answer:
    """Highest accuracy within a latency (T0); ties go to the lower latency, then to the first in order.

    Raises:
        Infeasible: no strategy is so fast.
    """
    meets = strategies.offered & (strategies.latency_ms <= bound_ms + SAME)
    if meets.any():
        return _answer(strategies, tables, _best(meets, strategies.accuracy, -strategies.latency_ms))
    nearest = round(float(strategies.latency_ms[strategies.offered].min()), DECIMALS)
    sentence = f"no strategy takes {bound_ms:g} ms or less; the nearest feasible --T0 is {nearest!r}"
    raise Infeasible(sentence, nearest, most_accurate(strategies, tables, nearest))


def _best(meets: Bools, worth: Floats, then: Floats) -> int:
    """Row of the highest ``worth`` among those that meet the demand, and of the highest ``then`` among such."""
    top = meets & (worth >= worth[meets].max() - SAME)
    return int(np.argmax(top & (then >= then[top].max() - SAME)))


def _answer(strategies: Strategies, tables: Tables, row: int) -> Answer:
    cuts = [cut for cut in strategies.cut[row].tolist() if cut != NONE]
    removed = strategies.removed[row].tolist()
    return Answer(
        latency_ms=round(float(strategies.latency_ms[row]), DECIMALS),
        accuracy=round(float(strategies.accuracy[row]), DECIMALS),
        cuts=[int(tables.blocks[cut]) for cut in cuts],
        rates=[k / int(tables.channels[cut]) for cut, k in zip(cuts, removed, strict=False)],
        tiers=list(PLACEMENTS[strategies.placement[row]]),
    )

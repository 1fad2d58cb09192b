"""Actions as agents give them, checked before anything in an environment changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tidesplit.envs.world.vocabulary import Ints

SHOWN = 80  # characters of a wrong action that its error repeats


def rows_of(actions: Any, lanes: int, size: int) -> Ints:
    """Rows of the table ``[B]``: one for each of ``lanes`` lanes, from 0 to ``size - 1``.

    Raises:
        ValueError: see `whole_numbers`.
    """
    return whole_numbers(actions, [size] * lanes)


def whole_numbers(given: Any, levels: Sequence[int]) -> Ints:
    """The given numbers ``[N]``; number i is one of ``levels[i]`` values counted from 0.

    A single number may be an array of no dimension or of one element, as policies return it.

    Raises:
        ValueError: another count of numbers, a number outside its range, or something that is no integer.
    """
    try:
        numbers = np.asarray(given)
    except (TypeError, ValueError):  # nested lists of different lengths, or a tensor that is not on the CPU
        numbers = np.empty(0)
    if numbers.dtype.kind in "iu" and numbers.size == len(levels):
        flat = numbers.reshape(-1)
        if ((flat >= 0) & (flat < np.array(levels))).all():
            return flat.astype(np.int64)
    raise ValueError(f"action {_short(given)} received, {_expected(levels)} expected")


def _expected(levels: Sequence[int]) -> str:
    if len(levels) == 1:
        return f"a whole number from 0 to {levels[0] - 1}"
    if len(set(levels)) == 1:
        return f"{len(levels)} whole numbers from 0 to {levels[0] - 1}"
    return f"{len(levels)} whole numbers from 0 to at most {', '.join(str(n - 1) for n in levels)}"


def _short(given: Any) -> str:
    text = " ".join(repr(given).split())
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."

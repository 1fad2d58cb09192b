"""What is kept back to judge by."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tidesplit.envs.traces.held_out import held_out
from tidesplit.envs.traces.trace import Trace


def flat(name: str, seconds: float) -> Trace:
    return Trace(name, np.zeros(1), seconds, np.ones(1))


def parts(traces: list[Trace], share: float = 0.2, longest_s: float = 60.0) -> Iterator[list[tuple[str, float]]]:
    """Names and lengths of the traces to train on, then of those held out."""
    for group in held_out(traces, share, longest_s):
        yield [(trace.name, pytest.approx(trace.duration_s)) for trace in group]


def test_the_last_part_of_few_traces_is_held_out() -> None:
    seen, unseen = parts([flat("long", 100.0), flat("longer", 1000.0), flat("short", 20.0)])
    assert seen == [("long", 80.0), ("longer", 800.0), ("short", 20.0)]
    assert unseen == [("long", 20.0), ("longer", 60.0)]


def test_of_many_traces_whole_ones_are_held_out() -> None:
    seen, unseen = parts([flat(str(number), 90.0) for number in range(10)])
    assert unseen == [("4", 60.0), ("9", 60.0)]
    assert [name for name, _ in seen] == ["0", "1", "2", "3", "5", "6", "7", "8"]


def test_of_very_many_traces_some_twenty_are_held_out() -> None:
    seen, unseen = parts([flat(str(number), 90.0) for number in range(542)])
    assert (len(seen), len(unseen)) == (523, 19)


def test_nothing_may_be_held_out() -> None:
    seen, unseen = parts([flat("only", 100.0)], share=0.0)
    assert (seen, unseen) == ([("only", 100.0)], [])

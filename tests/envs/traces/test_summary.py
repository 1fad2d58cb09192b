"""The line about a trace, and the doubts about numbers in other units."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tidesplit.envs.traces.summary import doubts, summed_up
from tidesplit.envs.traces.trace import Trace, load_traces, read_trace


def trace(name: str, mbps: list[float], step_s: float = 1.0) -> Trace:
    return Trace(name, np.arange(len(mbps)) * step_s, len(mbps) * step_s, np.array(mbps) * 1e6)


def test_a_line_for_each_of_a_few() -> None:
    assert summed_up([trace("a", [1, 2, 6]), trace("b", [0.5], 20_000.0)]) == [
        "uplink a: 3 s, mean 3 Mbit/s, at most 6 Mbit/s, steps of 1 s",
        "uplink b: 20000 s, mean 0.5 Mbit/s, at most 0.5 Mbit/s, steps of 20000 s",
    ]
    assert summed_up([trace("metro", [50])], "second hop")[0].startswith("second hop metro: 1 s, mean 50 Mbit/s")
    assert summed_up([]) == []


def test_many_share_a_line() -> None:
    """The mean is over time: 9 s at 1 and 1 s at 11 Mbit/s."""
    traces = [trace(str(i), [1]) for i in range(9)] + [trace("last", [11])]
    assert summed_up(traces) == ["uplink: 10 traces, 10 s together, mean 2 Mbit/s, at most 11 Mbit/s, steps of 1 s"]


def test_bundled_traces_are_plausible() -> None:
    assert doubts([*load_traces("lte"), *load_traces("metro")]) == []


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("0 1523\n1 2412\n2 871\n", ["trace f: a mean of 1642 Mbit/s is implausible"]),
        ("0 1.5\n1000 2.4\n2000 0.9\n", ["trace f: a median step of 1000 s is implausible"]),
        ("0 1523\n1000 2412\n2000 871\n3000 0\n", ["trace f: a mean of 1094", "trace f: a median step of 1000 s"]),
        ("time_s,bandwidth_mbps\n0,2000000\n1,1000000\n", ["trace f: a mean of 1500000 Mbit/s"]),
        ("time_s,bandwidth_mbps\n0,2\n1000,3\n2000,4\n", ["trace f: a median step of 1000 s"]),
        ("time_s,bandwidth_mbps\n0,2\n1,3\n2,4\n90000,4\n", []),
        ("time_s,bandwidth_mbps\n0,1000\n60,1000\n", []),
    ],
    ids=["kbit/s", "ms", "ms and kbit/s", "bit/s", "csv in ms", "one gap", "at the limits"],
)
def test_other_units_are_doubted(text: str, sentences: list[str], tmp_path: Path) -> None:
    (tmp_path / "f.txt").write_text(text)
    found = doubts([read_trace(tmp_path / "f.txt")])
    assert [sentence.startswith(begin) for sentence, begin in zip(found, sentences, strict=True)] == [True] * len(found)


def test_doubts_name_the_first_and_count_the_others() -> None:
    fast = [trace("ok", [5]), trace("x", [2e3]), trace("y", [3e3])]
    assert doubts(fast) == [
        "trace x and 1 more: a mean of 2000 Mbit/s is implausible for a mobile uplink: bandwidth in Mbit/s expected"
    ]

"""Figures of a run, and how benchmarks/emulated.py compares the simulator's order of controllers with the runtime's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tidesplit.agents.judging.evaluation import History
from tidesplit.benchmarks.emulated import order, tell
from tidesplit.benchmarks.run_figures import emulated_row, simulated_row
from tidesplit.envs.world.vocabulary import DEVICE, MISS, SERVER


def line(by: str, ms: float, utility: float, given: str | None, size: int) -> dict[str, Any]:
    return {
        "answered_by": by, "actual_ms": {"total": ms}, "bytes": size,
        "utility": utility, "class": given, "label": "cat",
    }  # fmt: skip


def test_figures_of_a_log() -> None:
    """A miss counts with the deadline, whatever came later. Only the picture's own class is right."""
    lines = [
        line("server", 40.0, 0.9, "cat", 400),
        line("device", 60.0, 0.7, "dog", 0),
        line("miss", 900.0, 0, None, 200),
    ]
    found = emulated_row(lines, limit_ms=100.0)
    assert found == {
        "mean_ms": pytest.approx(200 / 3), "p95_ms": pytest.approx(96.0), "misses": pytest.approx(1 / 3),
        "utility": pytest.approx(1.6 / 3), "right": pytest.approx(1 / 3), "bytes": 200.0,
        "by_device": pytest.approx(1 / 3),
    }  # fmt: skip


def test_figures_of_a_simulated_run() -> None:
    none = np.zeros(3)
    record = History(
        none.astype(int), np.array([SERVER, DEVICE, MISS]), np.array([0.9, 0.7, 0.0]), np.array([0.04, 0.06, 0.1]),
        none, none, none > 0, none, none, none, none,
    )  # fmt: skip
    assert simulated_row(record) == {
        "mean_ms": pytest.approx(200 / 3), "p95_ms": pytest.approx(96.0), "misses": pytest.approx(1 / 3),
        "utility": pytest.approx(1.6 / 3),
    }  # fmt: skip


def test_the_same_order_has_tau_one() -> None:
    found = order({"a": (0.7, 0.8), "b": (0.9, 0.95), "c": (0.1, 0.2)}, 2000)
    assert found == (("b", "a", "c"), ("b", "a", "c"), 1.0, ())


def test_swapped_pairs_come_with_both_differences(capsys: pytest.CaptureFixture[str]) -> None:
    found = order({"a": (0.7, 0.8), "b": (0.6, 0.9), "c": (0.1, 0.2)}, 2000)
    assert found.simulated == ("b", "a", "c")
    assert found.tau == pytest.approx(1 / 3)
    assert found.swapped == (("a", "b", pytest.approx(0.1), pytest.approx(-0.1)),)
    tell("lte", found)
    assert "swapped: a over b by 0.100 emulated, -0.100 simulated" in capsys.readouterr().out


def test_a_tie_is_no_swap() -> None:
    found = order({"a": (0.7, 0.9), "b": (0.6, 0.9)}, 2000)
    assert (found.tau, found.swapped) == (0.0, ())
    assert order({"a": (0.7, 0.9)}, 2000).tau == 1.0


@pytest.mark.parametrize(("frames", "tau"), [(1000, 0.0), (10000, -1.0)])
def test_a_difference_of_one_frame_is_a_tie(frames: int, tau: float) -> None:
    found = order({"a": (0.7300, 0.7304), "b": (0.7280, 0.7309)}, frames)
    assert found.tau == tau
    assert bool(found.swapped) == (tau < 0)

"""How benchmarks/emulated.py compares the simulator's order of controllers with the runtime's."""

from __future__ import annotations

import pytest

from benchmarks.emulated import order, tell


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
def test_what_one_frame_can_make_is_no_difference(frames: int, tau: float) -> None:
    found = order({"a": (0.7300, 0.7304), "b": (0.7280, 0.7309)}, frames)
    assert found.tau == tau
    assert bool(found.swapped) == (tau < 0)

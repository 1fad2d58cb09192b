"""The belief about the slow-down, as tables of runs."""

from __future__ import annotations

import pytest

from tidesplit.runtime.choosing.slow_down import LONGEST_FIXED_S, SlowDown


def after(*ratios: float, expected_s: float = 0.040) -> tuple[SlowDown, float]:
    """The belief after runs of these ratios, and the moment of the last one."""
    belief, now_s = SlowDown(), 0.0
    for ratio in ratios:
        now_s += 0.05
        belief.ran(now_s, expected_s, ratio * expected_s)
    return belief, now_s


@pytest.mark.parametrize(
    ("ratios", "believed"),
    [
        ([], 1.0),
        ([14.0], 1.0),  # a hiccup of the first run
        ([14.0, 14.0], 1.0),
        ([1.5] * 5, 1.5),  # a hot device, as the world draws it
        ([1.5] * 5 + [14.0], 1.5),
        ([1.5] * 5 + [14.0] * 2, 1.5),
        ([1.0] * 8 + [1.5] * 3, 1.5),  # it is noticed after three frames
        ([14.0] * 5, 2.0),
        ([0.01] * 5, 0.7),
        ([4.0] * 30, 4.0),  # slower than its table for long
        ([0.2] * 30, 0.2),
        ([4.0] * 30 + [1.0] * 5, 1.0),
        ([1.0, 4.0] * 20, 2.0),
    ],
)
def test_the_median_of_the_last_runs(ratios: list[float], believed: float) -> None:
    belief, now_s = after(*ratios)
    assert belief.at(now_s) == pytest.approx(believed)


@pytest.mark.parametrize("ratio", [0.01, 1.5, 30.0])
def test_it_fades_towards_the_table(ratio: float) -> None:
    belief, now_s = after(*[ratio] * 40)
    first = belief.at(now_s)
    excess = [abs(belief.at(now_s + age_s) - 1.0) for age_s in (0.0, 1.0, 2.0, 3.0, 60.0)]
    assert excess == pytest.approx([abs(first - 1.0) * share for share in (1.0, 1.0, 0.368, 0.135, 0.0)], abs=0.01)


def test_a_run_of_a_millisecond_says_nothing_of_the_slow_down() -> None:
    belief, now_s = after(*[14.0] * 100, expected_s=0.00103)
    assert belief.at(now_s) == 1.0


def test_the_fixed_cost_is_told_apart() -> None:
    belief, now_s = after(*[3.0] * 5, expected_s=0.002)
    assert belief.fixed_s == pytest.approx(0.004)
    for k in range(5):
        belief.ran(now_s + k, 0.010, 0.004 + 1.5 * 0.010)
    assert belief.at(now_s + 4) == pytest.approx(1.5)


def test_the_fixed_cost_is_robust_and_bounded() -> None:
    assert after(14.0, 14.0, expected_s=0.001)[0].fixed_s == 0.0
    assert after(*[1e4] * 9, expected_s=0.001)[0].fixed_s == LONGEST_FIXED_S
    assert after(*[0.1] * 9, expected_s=0.001)[0].fixed_s == 0.0

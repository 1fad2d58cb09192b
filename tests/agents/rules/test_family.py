"""Rules of which the prices choose one."""

from __future__ import annotations

import numpy as np
import pytest

from tests.agents.small import seen
from tidesplit.agents.rules.family import Family, Setting, Spent

RICH, POOR, LOCAL = 0, 1, 2
SPENT = Spent(np.array([0.9, 0.6]), np.array([0.2, 0.1]), np.array([2000.0, 1000.0]))
PAIR = Family(name="pair", settings=[Setting(row, row, row) for row in (RICH, POOR)], spent=SPENT)
CALM = {"slack_s": [0.05] * 3, "slack_low_s": [0.05] * 3}


@pytest.mark.parametrize(
    ("prices", "row"),
    [
        ({}, RICH),
        ({"joule_price": 2.9}, RICH),
        ({"joule_price": 3.1}, POOR),  # 0.3 of utility for 0.1 J
        ({"byte_price": 2.9e-4}, RICH),
        ({"byte_price": 3.1e-4}, POOR),
        ({"joule_price": 1.6, "byte_price": 1.6e-4}, POOR),
    ],
)
def test_prices_choose_the_setting(prices: dict[str, float], row: int) -> None:
    assert PAIR.predict(seen(CALM, **prices)).tolist() == [row]


@pytest.mark.parametrize(
    ("low_s", "slack_s", "row"), [(0.02, 0.05, RICH), (0.005, 0.05, POOR), (0.005, -0.01, LOCAL), (-9.0, 0.0, POOR)]
)
def test_threshold_rule(low_s: float, slack_s: float, row: int) -> None:
    setting = Setting(offload=RICH, race=POOR, local=LOCAL, short_s=0.01, hopeless_s=0.0)
    rule = Family(name="rule", settings=[setting], spent=Spent(*np.zeros((3, 1))))
    points = {"slack_s": [slack_s, 1.0, 1.0], "slack_low_s": [low_s, 1.0, 1.0]}  # those of the offload point count
    assert rule.predict(seen(points)).tolist() == [row]


def test_a_masked_row_has_a_substitute() -> None:
    assert PAIR.predict(seen(CALM, [False, True, True])).tolist() != [RICH]

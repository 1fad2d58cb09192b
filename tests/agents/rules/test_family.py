"""Rules of which the prices choose one."""

from __future__ import annotations

import numpy as np
import pytest

from tests.agents.small import seen
from tidesplit.agents.rules.family import Family, Setting, Spent

RICH, POOR, LOCAL, WIDE = 0, 1, 2, 3
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


@pytest.mark.parametrize(
    ("spare_s", "races", "row"),
    [
        (0.03, 0.0, WIDE),  # 0.035 s are left
        (0.04, 0.0, LOCAL),
        (0.03, 1.0, LOCAL),  # a race's net still has to wait 0.01 s for the worker
        (0.02, 1.0, WIDE),
        (np.inf, 0.0, LOCAL),
    ],
)
def test_a_wider_net_runs_where_it_leaves_time(spare_s: float, races: float, row: int) -> None:
    setting = Setting(LOCAL, LOCAL, LOCAL, 0.0, np.inf, WIDE, WIDE, spare_s)
    rule = Family(name="rule", settings=[setting], spent=Spent(*np.zeros((3, 1))))
    points = {"finish_slack_s": [0.0, 0.0, 0.05, 0.035], "races": [0.0, 0.0, 0.0, races]}
    assert rule.predict(seen(points, worker_s=0.01)).tolist() == [row]


def test_a_masked_row_has_a_substitute() -> None:
    assert PAIR.predict(seen(CALM, [False, True, True])).tolist() != [RICH]

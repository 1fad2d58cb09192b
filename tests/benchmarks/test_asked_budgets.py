"""Budgets that a benchmark plays in place of those of the training."""

from __future__ import annotations

from argparse import ArgumentParser

import pytest

from tidesplit.benchmarks.asked_budgets import add_budgets, with_budgets
from tidesplit.envs.world.vocabulary import Demand

TRAINED = Demand(fps=10.0, max_watts=4.8)


@pytest.mark.parametrize(
    ("words", "watts", "gb_month"),
    [([], 4.8, None), (["--watts", "5.2"], 5.2, None), (["--gb-month", "10"], 4.8, 10.0)],
)
def test_what_is_not_asked_for_stays(words: list[str], watts: float, gb_month: float | None) -> None:
    parser = ArgumentParser()
    add_budgets(parser)
    demand = with_budgets(TRAINED, parser.parse_args(words))
    assert (demand.max_watts, demand.max_gb_month, demand.fps) == (watts, gb_month, 10.0)


def test_no_budget_below_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    parser = ArgumentParser()
    add_budgets(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(["--watts", "-1"])
    assert "'-1' received, a number from 0.01" in capsys.readouterr().err

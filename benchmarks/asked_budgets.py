"""The options --watts and --gb-month of benchmarks that play a policy at other budgets than those of its training."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import replace

from tidesplit.data.option_types import number
from tidesplit.envs.world.vocabulary import Demand


def add_budgets(parser: ArgumentParser) -> None:
    """Add the two options."""
    parser.add_argument("--watts", type=number(0.01, 1e6), help="budget of energy (default: that of the training)")
    parser.add_argument("--gb-month", type=number(0.001, 1e6), help="budget of data, GB in 30 days (default: likewise)")


def with_budgets(trained_for: Demand, options: Namespace) -> Demand:
    """The demand of the training with the budgets that were asked for."""
    asked = {"max_watts": options.watts, "max_gb_month": options.gb_month}
    return replace(trained_for, **{name: most for name, most in asked.items() if most is not None})

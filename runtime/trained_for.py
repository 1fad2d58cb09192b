"""This machine against the device table that the policy was trained for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tidesplit.envs.world.vocabulary import Demand
from tidesplit.profiling.points.profile import DeviceTable

CONSTANT = 0.02001  # standard deviation, in the policy's scale, of a column that did not vary in training


def threads_for(table: DeviceTable, cores: int, say: Callable[[str], None]) -> int:
    """Threads of one run: the table's, but no more than the machine has cores, where threads would only wait.

    Says so where the two differ, because the machine then is not as fast as the policy expects, or could be faster.
    """
    threads = min(table.threads, cores)
    if table.threads != cores:
        say(
            f"{_count(threads, 'thread')} for each run: the policy was trained for {table.threads}, "
            f"this machine has {_count(cores, 'core')}; --threads changes it"
        )
    return threads


def compare_engines(table: DeviceTable, engine: str, say: Callable[[str], None]) -> None:
    """Say so where the policy was trained for the times of another engine."""
    if table.engine != engine:
        say(f"the policy was trained for the times of {table.engine}, and {engine} runs here; --engine changes it")


def compare_budgets(demand: Demand, manifest: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """Say so where the demand has a budget whose price was always the same in training: the policy may not heed it.

    A bundle says so itself. In those of earlier versions the price's column did not vary.
    """
    spread = manifest.get("normaliser", {}).get("state", {}).get("std", [])
    varied = [name for name, std in zip(manifest["state_fields"], spread, strict=False) if std > CONSTANT]
    met = manifest.get("config", {}).get("priced", [name.removesuffix("_price") for name in varied])
    asked = {"joule": ("max-watts", demand.max_watts), "byte": ("max-gb-month", demand.max_gb_month)}
    for what, (option, most) in asked.items():
        if most is not None and spread and what not in met:
            say(
                f"the policy met no price of a {what} in training and may not keep to its budget: train with --{option}"
            )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"

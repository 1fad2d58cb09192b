"""This machine against the device table that the policy was trained for."""

from __future__ import annotations

from collections.abc import Callable

from tidesplit.profiling.points.profile import DeviceTable


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


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"

"""Threads come from the table that the policy was trained for; another engine than the table's is said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.runtime.deployed import points
from tidesplit.envs.world.vocabulary import Demand
from tidesplit.runtime.trained_for import compare_budgets, compare_engines, threads_for


@pytest.mark.parametrize(
    ("trained_for", "cores", "threads", "said"),
    [
        (4, 4, 4, []),
        (
            1,
            4,
            1,
            ["1 thread for each run: the policy was trained for 1, this machine has 4 cores; --threads changes it"],
        ),
        (
            4,
            1,
            1,
            ["1 thread for each run: the policy was trained for 4, this machine has 1 core; --threads changes it"],
        ),
    ],
)
def test_threads_are_the_tables_and_a_difference_is_said(
    trained_for: int, cores: int, threads: int, said: list[str]
) -> None:
    table = replace(points(3)[0].devices["device"], threads=trained_for)
    heard: list[str] = []
    assert threads_for(table, cores, heard.append) == threads
    assert heard == said


def test_another_engine_than_the_tables_is_said() -> None:
    table = replace(points(3)[0].devices["device"], engine="ncnn")
    heard: list[str] = []
    compare_engines(table, "ncnn", heard.append)
    assert heard == []
    compare_engines(table, "onnxruntime", heard.append)
    assert heard == ["the policy was trained for the times of ncnn, and onnxruntime runs here; --engine changes it"]


@pytest.mark.parametrize("demand", [Demand(), Demand(max_watts=4.0), Demand(max_watts=4.0, max_gb_month=9.0)])
def test_a_budget_whose_price_did_not_vary_in_training_is_said(demand: Demand) -> None:
    stds = {"waited_s": 0.3, "joule_price": 0.7, "byte_price": 0.02}
    earlier = {"state_fields": list(stds), "normaliser": {"state": {"std": list(stds.values())}}}
    heard: list[str] = []
    compare_budgets(demand, earlier, heard.append)
    assert len(heard) == (demand.max_gb_month is not None)
    assert all(said.endswith("train with --max-gb-month") and "price of a byte" in said for said in heard)


def test_a_bundle_that_started_from_another_says_itself_which_prices_it_met() -> None:
    """Its columns vary, because they are scaled as those of its start."""
    stds = {"joule_price": 0.7, "byte_price": 0.9}
    normaliser = {"state": {"std": list(stds.values())}}
    manifest = {"state_fields": list(stds), "normaliser": normaliser, "config": {"priced": ["byte"]}}
    heard: list[str] = []
    compare_budgets(Demand(max_watts=4.0, max_gb_month=9.0), manifest, heard.append)
    assert [said.rpartition(" ")[2] for said in heard] == ["--max-watts"]

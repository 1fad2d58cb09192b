"""CNNPC's strategies: hand-made tables with known answers, and what users get wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tidesplit.agents.cnnpc import pruning, published_tables
from tidesplit.agents.cnnpc.__main__ import main
from tidesplit.agents.cnnpc.published_tables import TableError, Tables
from tidesplit.agents.cnnpc.solve import fastest, most_accurate
from tidesplit.agents.cnnpc.strategies import ALL_TIERS, EDGE_CLOUD, END_CLOUD, END_EDGE, NONE, enumerate_strategies

# Two cuts, after blocks 3 and 8, of 2 and 4 channels.
TINY = Tables(
    blocks=np.array([3, 8]),
    channels=np.array([2, 4]),
    run_ms=np.array([[10.0, 5.0, 1.0], [20.0, 8.0, 2.0], [40.0, 16.0, 4.0]]),
    cross_ms=np.array([[100.0, 300.0], [60.0, 180.0], [8.0, 24.0]]),
)
CSV = """block1,rate1,block2,rate2,top5_accuracy
0,0,0,0,0.9
3,0.5,3,0.5,0.8
8,0.5,8,0.5,0.86
3,0.5,8,0.5,0.1
"""


def written(folder: Path, text: str = CSV) -> Path:
    path = folder / "pruning.csv"
    path.write_text(text)
    return path


def own(folder: Path, blocks: Any = ((3, 8), (2, 4), (7, 7))) -> Path:
    """A folder of one's own: the tiny tables, flat."""
    np.save(folder / "T_R.npy", TINY.run_ms)
    np.save(folder / "T_C.npy", TINY.cross_ms)
    np.save(folder / "partitions.npy", np.array(blocks))
    return folder


@pytest.fixture
def tiny(tmp_path: Path) -> list[str]:
    """Options for the tiny tables."""
    return ["--tables", str(own(tmp_path)), "--accuracy", str(written(tmp_path))]


def test_drops_are_linear_between_measured_rates_and_unknown_above(tmp_path: Path) -> None:
    drops = pruning.load(written(tmp_path), TINY)
    assert drops.base == 0.9
    np.testing.assert_allclose(drops.of_cut[0], [0.0, 0.1])
    np.testing.assert_allclose(drops.of_cut[1], [0.0, 0.02, 0.04, np.nan])


def test_a_rate_is_taken_for_what_it_was_rounded_from(tmp_path: Path) -> None:
    """23 of 24 channels are 0.95833333..., which a file tells as 0.958333: it must still be offered."""
    wide = Tables(blocks=np.array([3]), channels=np.array([24]), run_ms=np.ones((2, 3)), cross_ms=np.ones((2, 2)))
    text = "block1,rate1,block2,rate2,accuracy\n3,0,3,0,0.9\n3,0.958333,3,0.958333,0.7\n"
    drops = pruning.load(written(tmp_path, text), wide).of_cut[0]
    assert drops[23] == pytest.approx(0.2, abs=1e-12)
    between = pruning.load(written(tmp_path, text.replace("0.958333", "0.3")), wide).of_cut[0]
    assert np.isfinite(between).tolist() == [True] * 8 + [False] * 16  # 7 of 24 are 0.29, 8 are 0.33
    assert between[6] == pytest.approx(0.2 * 0.25 / 0.3)


@pytest.mark.parametrize(
    ("cut", "removed", "placement", "latency_ms"),
    [
        ((0, NONE), (0, 0), END_EDGE, 10 + 8 + 16 + 60),
        ((0, NONE), (1, 0), END_EDGE, 10 + 8 + 16 + 30),
        ((1, NONE), (0, 0), END_CLOUD, 10 + 20 + 4 + 8 + 24),
        ((1, NONE), (1, 0), END_CLOUD, 10 + 20 + 4 + 6 + 18),
        ((1, NONE), (1, 0), EDGE_CLOUD, 100 + 5 + 8 + 4 + 18),
        ((0, 1), (1, 2), ALL_TIERS, 10 + 8 + 4 + 30 + 12),
    ],
)
def test_latencies_by_hand(
    cut: tuple[int, int], removed: tuple[int, int], placement: int, latency_ms: float, tmp_path: Path
) -> None:
    found = enumerate_strategies(TINY, pruning.load(written(tmp_path), TINY))
    rows = (found.cut == cut).all(axis=1) & (found.removed == removed).all(axis=1) & (found.placement == placement)
    assert found.latency_ms[rows] == pytest.approx(latency_ms + 1.66, abs=1e-9)


@pytest.mark.parametrize(
    ("demand", "latency_ms", "reached", "rates"),
    [
        ("--A0 0.9", 54.0, 0.9, [0.0]),  # cut after block 8, end|edge: 10 + 20 + 16 + 8
        ("--A0 0.87", 52.0, 0.88, [0.25]),
        ("--A0 0.86", 50.0, 0.86, [0.5]),  # end|cloud takes 50 and has 0.86 too: the first stays
        ("--A0 0", 50.0, 0.86, [0.5]),  # nothing less accurate is faster
        ("--T0 1000", 54.0, 0.9, [0.0]),  # ten strategies have 0.9: the fastest
        ("--T0 55.66", 54.0, 0.9, [0.0]),
        ("--T0 55.659", 52.0, 0.88, [0.25]),
        ("--T0 51.66", 50.0, 0.86, [0.5]),
    ],
)
def test_command_on_ones_own_tables(
    demand: str, latency_ms: float, reached: float, rates: list[float], tiny: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert main([*tiny, *demand.split(), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {
        "latency_ms": pytest.approx(latency_ms + 1.66, abs=1e-9),
        "accuracy": pytest.approx(reached, abs=1e-9),
        "cuts": [8],
        "rates": rates,
        "tiers": ["end", "edge"],
    }


def test_command_in_words(tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*tiny, "--A0", "0.9"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(maxsplit=1) for line in lines] == [
        ["latency_ms", "55.66"], ["accuracy", "0.9"], ["cuts", "8"], ["rates", "0"], ["tiers", "end, edge"],
    ]  # fmt: skip


def test_ties_go_as_said() -> None:
    """Four strategies of one cut; the third's accuracy is not known."""
    made = enumerate_strategies(TINY, pruning.Drops(0.9, (np.zeros(2), np.zeros(4))))
    four = type(made)(*(column[:4] for column in made))._replace(
        latency_ms=np.array([7.0, 5.0, 5.0, 5.0]),
        accuracy=np.array([0.8, 0.7, 0.9, 0.8]),
        offered=np.array([True, True, False, True]),
    )
    assert fastest(four, TINY, 0.6)[:2] == (5.0, 0.8)
    assert most_accurate(four, TINY, 9.0)[:2] == (5.0, 0.8)
    assert most_accurate(four, TINY, 5.0)[:2] == (5.0, 0.8)
    assert fastest(four._replace(accuracy=np.full(4, 0.8)), TINY, 0.8).cuts == [3]


@pytest.mark.parametrize(("demand", "nearest", "latency_ms"), [("--A0 0.95", 0.9, 55.66), ("--T0 51.6", 51.66, 51.66)])
def test_an_infeasible_demand_names_the_nearest(
    demand: str, nearest: float, latency_ms: float, tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    option, value = demand.split()
    assert main([*tiny, option, value, "--json"]) == 3
    told = capsys.readouterr()
    assert re.fullmatch(rf"tidesplit cnnpc: no strategy .*; the nearest feasible {option} is {nearest}\n", told.err)
    document = json.loads(told.out)
    assert document["nearest"] == nearest
    assert document["answer"]["latency_ms"] == latency_ms
    assert main([*tiny, option, repr(document["nearest"])]) == 0  # and it is feasible as it was told


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--A0 1.5", "--A0 1.5 received, an accuracy from 0 to 1 expected"),
        ("--A0 nan", "--A0 nan received"),
        ("--T0 0", "more than 0 ms expected"),
        ("--T0 inf", "more than 0 ms expected"),
        ("--T0 5 --tables nowhere", "nowhere: no such folder"),
        ("--T0 5 --accuracy nowhere.csv", r"nowhere\.csv: cannot be read"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(
    words: str, sentence: str, tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*tiny, *words.split()]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert re.search(sentence, told), told


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "columns .*received"),
        ("block1,rate1\n", "columns block1,rate1 received"),
        ("block1,rate1,block2,rate2,accuracy\n", "one accuracy at rate 0 .* 0 received"),
        (CSV + "8,0,8,0,0.91\n", "2 received"),
        (CSV + "8,0.5,8,0.5,0.87\n", "line 6: another accuracy"),
        (CSV + "7,0.5,7,0.5,0.8\n", "line 6: block 7 is no cut; there are 3, 8"),
        (CSV + "8,1,8,1,0.8\n", "line 6: rates from 0 to below 1"),
        (CSV + "8,0.5,8,0.5,88\n", "line 6: rates .* an accuracy from 0 to 1"),
        (CSV + "8,0.5,8\n", "line 6: five numbers expected, 3 received"),
        (CSV + "8,half,8,half,0.8\n", "line 6: five numbers expected, 8,half"),
    ],
)
def test_bad_accuracies(text: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(TableError, match=sentence):
        pruning.load(written(tmp_path, text), TINY)


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("T_R.npy", np.ones((2, 3)), r"T_R: shape \(2, 3\) received, \(3, 3\) expected"),
        ("T_C.npy", np.ones((3, 3)), r"T_C: shape \(3, 3\) received, \(3, 2\) expected"),
        ("T_C.npy", -np.ones((3, 2)), "T_C: times that are negative"),
        ("T_R.npy", np.array([{}]), r"T_R\.npy: a NumPy array of numbers expected"),  # would need unpickling
        ("partitions.npy", np.ones(3), r"partitions\.npy: shape \(3,\) received"),
        ("partitions.npy", np.array([[8, 3], [2, 4]]), "rising blocks"),
        ("partitions.npy", np.array([[3, 8], [2, 0]]), "at least one channel"),
    ],
)
def test_bad_tables(file: str, content: Any, sentence: str, tmp_path: Path) -> None:
    np.save(own(tmp_path) / file, content)
    with pytest.raises(TableError, match=sentence):
        published_tables.load(tmp_path, None, None)


def test_tables_that_are_not_there(tmp_path: Path) -> None:
    own(tmp_path)
    (tmp_path / "T_R.npy").unlink()
    with pytest.raises(TableError, match=r"--device not given: .* holds neither"):
        published_tables.load(tmp_path, None, None)
    (tmp_path / "TR-MI8").mkdir()
    np.save(tmp_path / "TR-MI8" / "T_R.npy", TINY.run_ms)
    with pytest.raises(TableError, match=r"--device MI9: .* holds those for MI8"):
        published_tables.load(tmp_path, "MI9", None)
    assert published_tables.load(tmp_path, "MI8", None).blocks.tolist() == [3, 8]
    (tmp_path / "partitions.npy").unlink()
    with pytest.raises(TableError, match="none of the published nets"):
        published_tables.load(tmp_path, "MI8", None)

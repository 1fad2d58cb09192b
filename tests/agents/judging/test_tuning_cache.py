"""Results of tunings in the user's cache folder: found again, bounded, never trusted blindly."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.envs.small import TABLE
from tidesplit.agents.judging import ladder, tuning_cache
from tidesplit.agents.judging.evaluation import Entrant
from tidesplit.agents.judging.tuning_cache import cached_rules, file_of, key_of
from tidesplit.envs.simulation.simulation import Scenario
from tidesplit.envs.traces.trace import Trace
from tidesplit.envs.world.physics import USUAL
from tidesplit.envs.world.vocabulary import Demand

TRACE = Trace("steps", np.arange(4.0), 4.0, 1e6 * np.array([0.8, 0.2, 0.0, 1.6]))
SCENARIO = Scenario(traces=(TRACE,), demands=(Demand(fps=10.0),), table=TABLE)
TUNING = ladder.Tuning(lanes=2, episode_s=1.0)
WRONG_SIZES = ('{"means of every point": [[1], [1], [1]]}', '{"means of every point": [1, 2, 3]}')
NAMES = ("best static point", "look-up, tuned")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "tidesplit" / "tuned"


def never(*_: object) -> float:
    raise AssertionError("played again")


def test_the_second_time_nothing_is_played(monkeypatch: pytest.MonkeyPatch) -> None:
    first = cached_rules(SCENARIO, TUNING, NAMES)
    assert first == ladder.tuned_rules(SCENARIO, TUNING, NAMES)
    monkeypatch.setattr(ladder, "_played", never)
    assert cached_rules(SCENARIO, TUNING, NAMES) == first
    assert cached_rules(SCENARIO, TUNING, ["look-up, naive"]).keys() == {"look-up, naive"}
    renamed = replace(SCENARIO, traces=(replace(TRACE, name="moved"),), table_spread=0.3)
    assert cached_rules(renamed, TUNING, NAMES) == first
    with pytest.raises(AssertionError, match="played again"):
        cached_rules(SCENARIO, TUNING, [*NAMES, "JMDC"])


def test_what_another_process_tuned_meanwhile_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = NAMES

    def slow(scenario: Scenario, *rest: Any) -> dict[str, Entrant]:
        monkeypatch.setattr(tuning_cache, "tuned_rules", ladder.tuned_rules)
        cached_rules(scenario, TUNING, [second])  # the other process
        return ladder.tuned_rules(scenario, *rest)

    monkeypatch.setattr(tuning_cache, "tuned_rules", slow)
    cached_rules(SCENARIO, TUNING, [first])
    monkeypatch.setattr(ladder, "_played", never)
    assert cached_rules(SCENARIO, TUNING, NAMES).keys() == set(NAMES)


def test_the_key_has_all_that_a_tuning_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    other = np.array(TRACE.bandwidth_bps)
    other[0] += 1.0
    varied = [
        key_of(SCENARIO, TUNING),
        key_of(SCENARIO, replace(TUNING, thorough=True)),
        key_of(replace(SCENARIO, traces=(replace(TRACE, bandwidth_bps=other),)), TUNING),
        key_of(replace(SCENARIO, demands=(Demand(fps=10.0, min_accuracy=0.1),)), TUNING),
        key_of(replace(SCENARIO, world=replace(USUAL, rtt_s=0.05)), TUNING),
        key_of(replace(SCENARIO, table=replace(TABLE, head_s=TABLE.head_s * 1.001)), TUNING),
    ]
    monkeypatch.setattr(tuning_cache, "code_hash", lambda: "other code")
    varied.append(key_of(SCENARIO, TUNING))
    assert len(set(varied)) == len(varied)


def test_with_a_utility_of_ones_own_nothing_is_kept(cache: Path) -> None:
    own = replace(SCENARIO, world=replace(USUAL, utility=lambda accuracy, latency_s, deadline_s: accuracy))
    cached_rules(own, TUNING, NAMES)
    assert not cache.exists()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "[" * 9_999, '{"JMDC": 1}', '{"JMDC": {"a": null}}', "\0", *WRONG_SIZES]
)
def test_a_damaged_file_is_empty(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    assert tuning_cache.read(tmp_path / "x.json", TABLE.size) == {}
    assert tuning_cache.read(tmp_path / "none.json", TABLE.size) == {}


def test_results_of_other_knobs_are_not_taken() -> None:
    first = cached_rules(SCENARIO, TUNING, NAMES)
    file = file_of(SCENARIO, TUNING)
    sound = json.loads(file.read_text())
    file.write_text('{"look-up, tuned": {"a": 1}}')
    assert cached_rules(SCENARIO, TUNING, NAMES) == first
    assert json.loads(file.read_text()) == sound


def test_the_oldest_go(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning_cache, "MOST", 2)
    for number in range(4):
        file = cache / f"{number}.json"
        tuning_cache.write(file, {"a": [1.0]})
        os.utime(file, (number, number))
    tuning_cache.write(cache / "new.json", {"a": [1.0]})
    assert sorted(path.name for path in cache.iterdir()) == ["3.json", "new.json"]


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert cached_rules(SCENARIO, TUNING, NAMES).keys() == set(NAMES)

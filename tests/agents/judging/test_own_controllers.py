"""Controllers, worlds and utilities of a user's own: one that works, and a sentence for each way to get it wrong."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.envs.small import TABLE
from tidesplit.agents.judging import ladder
from tidesplit.agents.judging.clairvoyant import clairvoyant
from tidesplit.agents.judging.evaluation import play, simulation_of
from tidesplit.agents.judging.own_controllers import ControllerError, OwnController, own_controllers
from tidesplit.data.named import NamedError, named
from tidesplit.envs.simulation.simulation import Scenario
from tidesplit.envs.simulation.worlds import WORLDS, with_utility, world_of
from tidesplit.envs.traces.trace import Trace
from tidesplit.envs.world.heat import Cooling
from tidesplit.envs.world.physics import USUAL, WorldError, changed, changes
from tidesplit.envs.world.vocabulary import Demand

TRACE = Trace("steps", np.arange(4.0), 4.0, 1e6 * np.array([0.8, 0.2, 0.0, 1.6]))
SCENARIO = Scenario(traces=(TRACE,), demands=(Demand(fps=10.0),), table=TABLE)
MINE = """
import numpy as np
import helper_of_nobody_else

class First:
    def __init__(self, scenario):
        self.size = scenario.table.size

    def predict(self, observation):
        return observation.mask.argmax(axis=1)

def renamed(scenario):
    made = First(scenario)
    made.name = "the first"
    return made

class TooFew(First):
    def predict(self, observation):
        return [0]

class TooFar(First):
    def predict(self, observation):
        return np.full(len(observation.mask), self.size)

class Tuple(First):
    def predict(self, observation):
        return super().predict(observation), None

class Late(First):
    def predict(self, observation):
        raise RuntimeError("not\\ntoday")

class NoArguments:
    pass

def nothing(scenario):
    return None

NUMBER = 3

def soft(accuracy, latency_s, deadline_s):
    return accuracy * (1.0 - 0.5 * latency_s / deadline_s)

def one(accuracy, latency_s, deadline_s):
    return 1.0

def large(accuracy, latency_s, deadline_s):
    return 2.0 * accuracy

def patient(accuracy, latency_s, deadline_s):
    return latency_s / deadline_s

def contrary(accuracy, latency_s, deadline_s):
    return 1.0 - accuracy

def wrong(accuracy, latency_s):
    return accuracy
"""


@pytest.fixture(autouse=True)
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Modules of a user's own in the working directory, which is not on Python's path."""
    (tmp_path / "mine_here.py").write_text(MINE.replace("import helper_of_nobody_else\n", ""))
    (tmp_path / "needs_more.py").write_text(MINE)
    (tmp_path / "unfinished.py").write_text("def f(:\n")
    (tmp_path / "failing.py").write_text("\n1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in ("mine_here", "needs_more", "failing"):
        sys.modules.pop(name, None)


def test_an_own_controller_plays_and_is_last_in_the_table() -> None:
    found = own_controllers(["mine_here:First", "mine_here:renamed"], SCENARIO, ladder.EVERY)
    assert list(found) == ["First", "the first"]
    (record,) = play(found["First"], simulation_of(SCENARIO, 0))
    assert set(record.points) == {0, 2}  # the first allowed: the device where the link is full
    rules = ladder.tuned_rules(SCENARIO, ladder.Tuning(lanes=1, episode_s=1.0), ["device only", ladder.TRUE_BANDWIDTH])
    assert list(ladder.in_order({**found, **rules})) == ["device only", ladder.TRUE_BANDWIDTH, "First", "the first"]
    entrant = pickle.loads(pickle.dumps(found["the first"]))  # for another process
    assert entrant(simulation_of(SCENARIO, 0)).name == "the first"


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("mine_here", r"'mine_here' received, module:name expected"),
        ("../mine_here.py:First", r"module:name expected"),
        ("elsewhere:First", r"elsewhere:First: there is no module elsewhere in .* or on Python's path"),
        (
            "needs_more:First",
            r"needs_more:First: ModuleNotFoundError: No module named 'helper_of_nobody_else' \(.*line 3",
        ),
        ("unfinished:f", r"unfinished:f: SyntaxError: .* \(.*unfinished.py, line 1\)"),
        ("failing:f", r"failing:f: ZeroDivisionError: division by zero \(.*failing.py, line 2\)"),
        ("mine_here:Second", r"module mine_here has no Second"),
        ("mine_here:NUMBER", r"mine_here:NUMBER is of type int, a function or a class expected"),
        ("mine_here:NoArguments", r"NoArguments, called with the scenario of the training, failed: TypeError: "),
        ("mine_here:nothing", r"returned an object of type NoneType, one with a method predict expected"),
        ("mine_here:TooFew", r"TooFew: predict returned \[0\] received, 2 whole numbers from 0 to 2 expected"),
        ("mine_here:TooFar", r"predict returned array\(\[3, 3\]\) received, 2 whole numbers from 0 to 2 expected"),
        ("mine_here:Tuple", r"predict returned \(array\(\[0, 0\]\), None\) received"),
        ("mine_here:Late", r"Late: predict failed: RuntimeError: not today \(.*mine_here.py, line \d+\)"),
    ],
)
def test_a_mistake_is_one_sentence(spec: str, sentence: str) -> None:
    with pytest.raises((NamedError, ControllerError), match=sentence) as caught:
        own_controllers([spec], SCENARIO, ladder.EVERY)
    assert "\n" not in str(caught.value)


def test_two_of_one_name_are_refused() -> None:
    with pytest.raises(ControllerError, match="another controller is called 'First'"):
        own_controllers(["mine_here:First", "mine_here:First"], SCENARIO, ladder.EVERY)
    with pytest.raises(ControllerError, match="another controller is called 'the first'"):
        own_controllers(["mine_here:renamed"], SCENARIO, ["the first"])


def test_what_a_controller_returns_is_checked_at_every_frame() -> None:
    entrant = OwnController("mine_here:First", SCENARIO)
    controller = entrant(simulation_of(SCENARIO, 0))
    named("mine_here:First").predict = lambda self, observation: ["a"]  # type: ignore[attr-defined]
    with pytest.raises(ControllerError, match=r"predict returned \['a'\] received"):
        controller.predict(simulation_of(SCENARIO, 0).observation())


@pytest.mark.parametrize(("watts", "rests"), [(None, False), (4.0, True)])
def test_its_radio_may_rest_like_everybodys(watts: float | None, rests: bool) -> None:
    scenario = replace(SCENARIO, demands=(replace(SCENARIO.demands[0], max_watts=watts),))
    simulation = simulation_of(scenario, 0)
    OwnController("mine_here:First", scenario)(simulation)
    assert (simulation.rest is not None) == rests


def test_an_own_utility_is_that_of_every_frame_and_of_the_bound() -> None:
    scenario = replace(SCENARIO, world=with_utility(USUAL, "mine_here:soft"))
    (record,) = play(OwnController("mine_here:First", scenario), simulation_of(scenario, 0))
    in_time = record.accuracy > 0.0
    assert in_time.any()
    expected = np.where(in_time, record.accuracy * (1.0 - 0.5 * record.latency_s / 0.1), 0.0)
    assert record.utility == pytest.approx(expected)
    assert record.utility.mean() <= clairvoyant(simulation_of(scenario, 0)) < clairvoyant(simulation_of(SCENARIO, 0))


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("mine_here:one", r"gave shape \(\) for columns of \(441,\)"),
        ("mine_here:large", r"gave 0 to 2, values from 0 to 1 expected"),
        ("mine_here:patient", r"rises with the latency"),
        ("mine_here:contrary", r"falls where the accuracy rises"),
        ("mine_here:wrong", r"wrong\(accuracy, latency_s, deadline_s\) failed: TypeError"),
    ],
)
def test_a_utility_that_is_none_is_refused(spec: str, sentence: str) -> None:
    with pytest.raises(WorldError, match=sentence):
        with_utility(USUAL, spec)


def test_a_world_of_ones_own(tmp_path: Path) -> None:
    assert world_of("granted") == WORLDS["granted"] == replace(USUAL, grant_s=0.009)
    numbers = {"rtt_s": 0.03, "window": 4, "probe_after_s": float("inf"), "cooling": {"slowest": 2, "soft_c": -5}}
    (tmp_path / "mine.json").write_text(json.dumps(numbers))
    world = world_of("mine.json")
    assert world == replace(
        USUAL, rtt_s=0.03, window=4, probe_after_s=np.inf, cooling=Cooling(slowest=2.0, soft_c=-5.0)
    )
    assert changed(USUAL, changes(world, USUAL)) == world
    assert changes(USUAL, USUAL) == {}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", r"mine.json: no JSON that can be read"),
        ("[1]", r"mine.json: an object of numbers expected"),
        ('{"rtt": 1}', r"mine.json: rtt: no such number, there are rtt_s, request_s, "),
        ('{"utility": 1}', r"mine.json: utility: no such number"),
        ('{"rtt_s": -1}', r"mine.json: rtt_s: -1 received, a number of at least 0 expected"),
        ('{"rtt_s": NaN}', r"rtt_s: nan received"),
        ('{"rtt_s": Infinity}', r"rtt_s: inf received"),
        ('{"rtt_s": true}', r"rtt_s: True received"),
        ('{"window": 1.5}', r"window: 1.5 received, a whole number above 0 expected"),
        ('{"cooling": 1}', r"cooling: 1 received, an object of its numbers expected"),
        ('{"cooling": {"hard_c": 70}}', r"cooling.soft_c: 80 received, a value below hard_c expected"),
        ('{"radio": {"tail": 1}}', r"radio.tail: no such number, there are promotion_s, "),
    ],
)
def test_a_world_that_is_none_is_refused(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(text)
    with pytest.raises(WorldError, match=sentence) as caught:
        world_of("mine.json")
    assert "\n" not in str(caught.value)
    with pytest.raises(WorldError, match=r"world 'none': No such file.*one of as-traced, granted, expected"):
        world_of("none")

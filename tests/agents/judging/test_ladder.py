"""The ladder: every rule, each at its best on the tuning episodes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.agents.small import BUMPY, DEAD, scenario
from tests.profiles import DEVICE, SERVER, stream_profile
from tidesplit.agents.judging.budgeted import EverySetting, statics
from tidesplit.agents.judging.evaluation import COLUMNS, Entrant, Row, controller_of, play, simulation_of
from tidesplit.agents.judging.ladder import (
    POLICY,
    RULES,
    TRUE_BANDWIDTH,
    VIDEO,
    Tuning,
    WithoutProbes,
    WithTrueBandwidth,
    by_knob,
    in_order,
    mean_utility,
    quiet,
    static_utilities,
    tuned_rules,
    verdict,
)
from tidesplit.agents.rules.controllers import Lookup, Mpc, Static
from tidesplit.agents.rules.linucb import LinUcb
from tidesplit.agents.rules.published import Jmdc, mean_rate
from tidesplit.envs.simulation.simulation import Scenario
from tidesplit.envs.world.vocabulary import Demand
from tidesplit.profiling.points.table import table_for

TUNING = Tuning(lanes=2, episode_s=1.0)


@pytest.fixture(scope="module")
def asked() -> Scenario:
    whole = scenario(BUMPY)
    return replace(whole, table=whole.table.take([0, 2, 4, 5, 9]), episode_s=TUNING.episode_s)


@pytest.fixture(scope="module")
def rules(asked: Scenario) -> dict[str, Entrant]:
    return tuned_rules(asked, TUNING)


def test_every_rule_is_there(rules: dict[str, Entrant]) -> None:
    assert set(rules) == {*RULES, TRUE_BANDWIDTH}
    assert isinstance(rules[TRUE_BANDWIDTH], WithTrueBandwidth)
    for name in RULES:
        entrant = rules[name]
        if name == "LinUCB":  # listens to answers, so it is bound to the simulation that they come from
            assert isinstance(entrant, LinUcb)
            assert entrant.name == name
            continue
        controller = entrant.controller if isinstance(entrant, WithoutProbes) else entrant
        assert not callable(controller)  # a controller, which knows its observations only
        assert controller.name == name


def test_only_the_rules_that_are_asked_for_are_tuned(asked: Scenario) -> None:
    found = tuned_rules(asked, TUNING, ["device only", "best static point"])
    assert list(found) == ["best static point", "device only"]


def test_all_points_at_once_are_worth_what_each_is_by_itself(asked: Scenario) -> None:
    by_itself = [mean_utility(Static("", row), asked, TUNING) for row in range(asked.table.size)]
    assert static_utilities(asked, TUNING) == pytest.approx(by_itself, rel=1e-12)


def test_every_setting_plays_as_static_does(asked: Scenario) -> None:
    """Where the point is masked too: after eight unanswered messages there is a substitute."""
    dead = replace(asked, traces=(DEAD,))
    image = 0
    every = EverySetting("", statics(asked.table), np.array([image]))
    (always,), (static,) = (play(entrant, simulation_of(dead, 0)) for entrant in (every, Static("", image)))
    assert len(np.unique(static.points)) > 1
    for one, other in zip(always, static, strict=True):
        np.testing.assert_array_equal(one, other)


def test_tuning_never_loses_on_the_episodes_it_was_done_on(rules: dict[str, Entrant], asked: Scenario) -> None:
    worth = {name: mean_utility(entrant, asked, TUNING) for name, entrant in rules.items()}
    assert worth["look-up, tuned"] >= worth["look-up, naive"]
    statics = static_utilities(asked, TUNING).tolist()
    assert worth["best static point"] == pytest.approx(max(statics), rel=1e-12)
    assert worth["CNNPC"] <= max(statics) + 1e-12
    usual = mean_rate(asked.traces)
    assert worth["LinUCB"] >= mean_utility(LinUcb(name="", usual_rate=usual), asked, TUNING)
    untuned = Jmdc(name="", table=asked.table, world=asked.world, usual_rates=(usual,))
    assert worth["JMDC"] >= mean_utility(untuned, asked, TUNING)
    assert worth["best static point"] >= max(worth["device only"], worth["image offload"]) - 1e-12
    for margin_s in (0.004, 0.008, 0.012, 0.018):
        naive = Mpc(name="", table=asked.table, world=asked.world, margin_s=margin_s)
        assert worth["MPC, tuned"] >= mean_utility(naive, asked, TUNING)
        assert worth[TRUE_BANDWIDTH] >= mean_utility(WithTrueBandwidth(naive), asked, TUNING)


@pytest.mark.parametrize(
    ("demand", "probes"),
    [
        (Demand(), True),
        (Demand(max_watts=4.0), False),
        (Demand(max_gb_month=10.0), True),
        (Demand(max_watts=4.0, max_gb_month=10.0), True),
    ],
)
def test_rules_spare_probes_where_the_only_budget_is_of_energy(asked: Scenario, demand: Demand, probes: bool) -> None:
    rule, listener = quiet(Lookup(name="a rule"), demand), LinUcb(name="", usual_rate=1e5)
    simulation = simulation_of(replace(asked, demands=(demand,)), 0)
    assert controller_of(rule, simulation) == Lookup(name="a rule")
    assert np.isfinite(simulation.scenario.world.probe_after_s) == probes
    assert quiet(listener, demand) is listener, "it makes its controller for a simulation"


def test_static_rules_keep_to_their_kind(rules: dict[str, Entrant], asked: Scenario) -> None:
    device, image = rules["device only"], rules["image offload"]
    assert isinstance(device, WithoutProbes)
    assert isinstance(image, Static)
    assert asked.table.local[device.controller.row]
    assert asked.table.hops[0].partition[image.row] == 0
    assert isinstance(rules["look-up, tuned"], Lookup)


def test_video_is_a_rung_where_there_is_video() -> None:
    """Neither image offload nor partition only sends in a stream."""
    asked = replace(scenario(BUMPY), table=table_for(stream_profile(), DEVICE, SERVER), episode_s=TUNING.episode_s)
    table, names = asked.table, ["image offload", VIDEO, "partition only"]
    rules = tuned_rules(asked, TUNING, names)
    assert list(in_order(rules)) == names
    image, video, cut = (rules[name] for name in names)
    assert isinstance(image, Static)
    assert isinstance(video, Static)
    assert isinstance(cut, Lookup)
    assert table.ids[video.row] == "p0-h264-q34"
    assert table.ids[image.row].startswith("jpeg")
    assert cut.candidates is not None
    assert not (cut.candidates & (table.streams.of >= 0)).any()


@pytest.mark.parametrize(
    ("utility", "sentence"),
    [
        (
            {"image offload": 0.7, POLICY: 0.9, TRUE_BANDWIDTH: 0.95},
            "PPO is 0.2000 ahead of image offload, the best rule",
        ),
        ({"image offload": 0.7, "device only": 0.8, POLICY: 0.75}, "device only is 0.0500 ahead of PPO here."),
    ],
)
def test_verdict(utility: dict[str, float], sentence: str) -> None:
    """The mean over two traces counts."""
    zeros = dict.fromkeys(COLUMNS, 0.0)
    rows = [
        Row(**{**zeros, "controller": name, "trace": str(off), "utility": mean + off})  # type: ignore[arg-type]
        for name, mean in utility.items()
        for off in (-0.01, 0.01)
    ]
    assert verdict(rows, Demand()).startswith(sentence)


def test_the_verdict_says_by_how_much_the_policy_overspends() -> None:
    zeros = dict.fromkeys(COLUMNS, 0.0)
    mean = {"controller": POLICY, "trace": "one", "utility": 0.9, "watts": 4.0, "gb_per_month": 10.5}
    row = Row(**{**zeros, **mean})  # type: ignore[arg-type]
    assert verdict([row], Demand(max_watts=5.0, max_gb_month=10.0)).startswith("PPO overspends by 5 % here.")


def test_order_of_the_table(rules: dict[str, Entrant]) -> None:
    names = list(in_order({POLICY: rules["device only"], **rules}))
    assert names == [*RULES, POLICY, TRUE_BANDWIDTH]


def test_a_knob_is_turned_only_where_it_pays_and_no_setting_is_played_twice() -> None:
    played: list[tuple[float, float]] = []

    def score(lin: LinUcb) -> float:
        played.append((lin.alpha, lin.memory))
        return -((lin.alpha - 0.02) ** 2) - (lin.memory - 0.5) ** 2

    begun = LinUcb(name="", usual_rate=1.0, alpha=0.01, memory=0.9)
    best = by_knob(score, begun, {"alpha": (0.01, 0.02, 0.03), "memory": (0.5, 0.9)})
    assert (best.alpha, best.memory) == (0.02, 0.5)
    assert played == [(0.01, 0.9), (0.02, 0.9), (0.03, 0.9), (0.02, 0.5)]

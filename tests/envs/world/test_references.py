"""Streams in the world: bytes by the age of the reference, keys, dropped and local frames, lost messages."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest

from tests.envs.small import IMAGE, LOCAL, TABLE, WORLD, idle, play, with_uplink
from tests.profiles import stream_profile
from tidesplit.agents.rules.controllers import Lookup
from tidesplit.envs.simulation.scenario import scenario_from
from tidesplit.envs.simulation.simulation import Simulation
from tidesplit.envs.traces.trace import Trace
from tidesplit.envs.world.fields import NEEDS_KEY
from tidesplit.envs.world.hop import Crossing, RoundTrip
from tidesplit.envs.world.link import ConstantUplink
from tidesplit.envs.world.observation import Observation, Situation, observe
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.pipeline import Frame, advance
from tidesplit.envs.world.queues import Queues, References
from tidesplit.envs.world.vocabulary import Demand, Demands, Floats, Ints, Outcome, Transfers
from tidesplit.profiling.points.stream_columns import Streams
from tidesplit.profiling.points.table import PointTable
from tidesplit.runtime.choosing.safeguard import rule

# Rows of the table: a picture, a stream of cuts, a whole CNN, another stream of the same cuts, a video.
WIDE, NARROW, VIDEO = 1, 3, 4
ROWS = [IMAGE, WIDE, LOCAL, WIDE, IMAGE]
CUTS = [1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 3.0]
FIVE = replace(
    TABLE.take(ROWS),
    ids=("image", "wide", "local", "narrow", "video"),
    streams=Streams(
        names=("p1", "video"),
        of=np.array([-1, 0, -1, 0, 1]),
        growth=np.array([[1.0] * 7, CUTS, [1.0] * 7, CUTS, [1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 20.0]]),
    ),
)
SIZES = np.array([3850.0, 800.0, 0.0, 400.0, 100.0])
FIVE = with_uplink(FIVE, bytes_mean=SIZES, bytes_sigma=np.full(5, 0.1))
DEMAND = Demand(fps=10.0, deadline_s=1.0)


class Step(NamedTuple):
    """A frame at 10 a second: its number, its point, the bytes of its payload, and what happens to it."""

    frame: int
    point: int
    size: float
    wait_s: float = 0.0
    slow: float = 1.0
    noise: float = 0.0
    rate: float = 1e6


# A head takes 20 ms, so a message without an answer that frame 0 sends is lost from 2.02 s on.
SCRIPTS: dict[str, list[Step]] = {
    "a key, then steady": [Step(0, WIDE, 2400), Step(1, WIDE, 800), Step(2, WIDE, 800)],
    "points of a stream share the reference": [Step(0, WIDE, 2400), Step(1, NARROW, 400), Step(2, WIDE, 800)],
    "streams do not": [Step(0, WIDE, 2400), Step(1, VIDEO, 2000), Step(2, WIDE, 1000), Step(3, VIDEO, 200)],
    "ages": [
        Step(0, VIDEO, 2000),
        Step(2, VIDEO, 200),
        Step(6, VIDEO, 400),
        Step(14, VIDEO, 600),
        Step(26, VIDEO, 600 + 200 * np.log2(12 / 8)),
        Step(42, VIDEO, 800),
        Step(74, VIDEO, 1000),
        Step(174, VIDEO, 1000),
        Step(175, VIDEO, 100),
    ],
    "frames on the device and pictures age it": [
        Step(0, WIDE, 2400),
        Step(1, LOCAL, 0),
        Step(2, IMAGE, 3850),
        Step(3, LOCAL, 0),
        Step(4, WIDE, 1200),
    ],
    "a dropped frame sends nothing and ages it": [
        Step(0, WIDE, 2400),
        Step(1, WIDE, 0, slow=60.0),  # the head would take 1.2 s
        Step(2, WIDE, 1000),
    ],
    "an answer 1.98 s after the sending is in time": [
        Step(0, WIDE, 2400, wait_s=1.93),
        Step(16, WIDE, 1600),
        Step(17, WIDE, 800),
        Step(27, WIDE, 800 * (1.75 + 0.25 * np.log2(10 / 8))),
    ],
    "a message without an answer breaks the stream after 2 s": [
        Step(0, WIDE, 2400, wait_s=9.0),
        Step(1, WIDE, 800),
        Step(17, WIDE, 1600),
        Step(19, NARROW, 500),
        Step(20, WIDE, 800),  # at 2.0 s the device does not know yet
        Step(21, WIDE, 2400),
        Step(22, WIDE, 800),
    ],
    "it breaks no other stream": [
        Step(0, WIDE, 2400, wait_s=9.0),
        Step(1, VIDEO, 2000),
        Step(17, VIDEO, 800),
        Step(24, VIDEO, 400 + 200 * np.log2(7 / 4)),
        Step(25, WIDE, 2400),
    ],
    "a lost key": [
        Step(0, WIDE, 2400, wait_s=9.0),
        Step(1, WIDE, 800, wait_s=9.0),  # lost from 2.12 s on, which does not matter to the key after it
        Step(21, WIDE, 2400, wait_s=9.0),  # lost from 4.12 s on
        Step(22, WIDE, 800),
        Step(38, WIDE, 1600),
        Step(40, WIDE, 1000),
        Step(42, WIDE, 2400),
    ],
    "a link that carries nothing": [Step(0, WIDE, 2400, rate=0.0), Step(21, WIDE, 2400), Step(22, WIDE, 800)],
    "the noise of the bytes": [
        Step(0, WIDE, 2400 * np.exp(0.2), noise=2.0),
        Step(1, WIDE, 800 * np.exp(-0.1), noise=-1.0),
    ],
}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_bytes_of_a_stream(script: list[Step]) -> None:
    """The frames one after the other. The device foresees the bytes of each, noise and drops apart."""
    queues = idle()._replace(references=References.none(1, 2))
    for step in script:
        now_s, expected = np.array([step.frame / DEMAND.fps]), step.size + 150.0 * (step.size > 0.0)
        age = queues.references.age(now_s, now_s, np.array([1.0 / DEMAND.fps]))
        if step.slow == 1.0 and not step.noise:
            assert told(age).foreseen.payload[0, step.point] == pytest.approx(expected)
        queues, outcome, _ = play(
            step.point, arrival_s=float(now_s[0]), queues=queues, demand=DEMAND, table=FIVE, rate=step.rate,
            wait_s=step.wait_s, slow=step.slow, noise=step.noise,
        )  # fmt: skip
        assert outcome.hops[0].sent_bytes[0] == pytest.approx(expected), step
        (link,) = queues.hops
        queues = queues._replace(hops=(link._replace(free_s=np.minimum(link.free_s, now_s + 0.1)),))  # it recovers


def told(age: Floats | None, table: PointTable = FIVE, motion: Floats | None = None) -> Observation:
    """The observation of a device whose references have these ages, ``[B, S]``."""
    now = Situation(
        now_s=np.zeros(1),
        waited_s=np.zeros(1),
        transfers=(Transfers.none(1, 3),),
        slow_down=np.ones(1),
        last_point=np.array([-1]),
        worker_s=np.zeros(1),
        heat_c=np.zeros(1),
        reference_age=age,
        motion=motion,
    )
    return observe(now, table, Demands.of(DEMAND), WORLD)


# ages of both references -> those observed of the points, and their payloads with 150 bytes of overhead
OBSERVED: dict[str, tuple[list[float] | None, list[float], list[float]]] = {
    "none said": (None, [0, NEEDS_KEY, 0, NEEDS_KEY, NEEDS_KEY], [4000, 2550, 0, 1350, 2150]),
    "none": ([np.inf, np.inf], [0, NEEDS_KEY, 0, NEEDS_KEY, NEEDS_KEY], [4000, 2550, 0, 1350, 2150]),
    "steady": ([1, 1], [0, 1, 0, 1, 1], [4000, 950, 0, 550, 250]),
    "one of them": ([np.inf, 4], [0, NEEDS_KEY, 0, NEEDS_KEY, 4], [4000, 2550, 0, 1350, 550]),
    "an old one": ([500, 1], [0, 63, 0, 63, 1], [4000, 1950, 0, 1050, 250]),
}


@pytest.mark.parametrize("case", OBSERVED.values(), ids=OBSERVED)
def test_observed_ages_and_payloads(case: tuple[list[float] | None, list[float], list[float]]) -> None:
    ages, points, payloads = case
    foreseen = told(None if ages is None else np.array([ages], dtype=float)).foreseen
    assert foreseen.reference_age[0].tolist() == points
    assert foreseen.payload[0] == pytest.approx(payloads)
    assert foreseen.steady_payload[0] == pytest.approx([4000, 950, 0, 550, 250])
    away = told(np.array([[1.0, 1.0]])).foreseen
    later_s = (foreseen.payload - away.payload) / told(None).seen.hops[0].goodput[0]
    assert foreseen.latency_s[0] == pytest.approx(away.latency_s[0] + later_s[0], abs=1e-6)


def test_rules_count_the_bytes_of_a_key() -> None:
    """The best point is a video of 6 kB, whose key of 120 kB takes 0.96 s. Within 1 s a picture is better then."""
    accuracy = np.where(np.arange(5) == VIDEO, 0.95, FIVE.accuracy)
    table = with_uplink(replace(FIVE, accuracy=accuracy), bytes_mean=np.where(accuracy > 0.92, 6_000.0, SIZES))
    chosen = {}
    for age in (1.0, 32.0, np.inf):
        found = told(np.array([[1.0, age]]), table)
        chosen[age] = {rule(found, DEMAND, WORLD.guard_s), int(Lookup(name="look-up").predict(found)[0])}
    assert chosen == {1.0: {VIDEO}, 32.0: {VIDEO}, np.inf: {IMAGE}}


def test_lanes_do_not_mix() -> None:
    """Four lanes, each with its own point, stream and age, as each of them by itself."""
    points, ages = np.array([WIDE, VIDEO, LOCAL, NARROW]), np.array([[2.0, 9.0], [3.0, 1.0], [1.0, 1.0], [np.inf, 4.0]])
    together = queues_of(ages)
    _, outcome, _ = forward(points, together)
    alone = [forward(points[[lane]], together.take(np.array([lane])))[1] for lane in range(4)]
    assert outcome.hops[0].sent_bytes.tolist() == [float(one.hops[0].sent_bytes[0]) for one in alone]


def queues_of(ages: Floats) -> Queues:
    """Queues at frame 0 whose references are so many frames old, ``[B, S]``."""
    queues = Queues.idle(len(ages), streams=ages.shape[1])
    return queues._replace(references=References(-ages / DEMAND.fps, np.full_like(ages, np.inf)))


def forward(points: Ints, queues: Queues) -> tuple[Queues, Outcome, tuple[Crossing, ...]]:
    zero = np.zeros(len(points))
    frame = Frame(zero, zero + 1.0, zero, zero, zero, zero + 20.0, zero + 1.0, (RoundTrip(zero + 0.04, zero + 0.04),))
    return advance(
        queues,
        points,
        frame,
        table=FIVE,
        demands=Demands.of(*[DEMAND] * len(points)),
        world=WORLD,
        uplinks=(ConstantUplink(zero + 1e6),),
        lane=np.arange(len(points)),
    )


def test_simulation_and_observation_agree() -> None:
    """At random points, over breaks and keys: the bytes that the world sends are those that the device foresaw."""
    profile = stream_profile()
    world = replace(World(), answer_limit_s=0.2)
    trace = Trace("on and off", np.arange(8) * 0.5, 4.0, np.array([8.0, 0.0, 3.0, 0.2, 9.0, 0.0, 1.0, 5.0]) * 1e6)
    asked = scenario_from(trace=trace, profile=profile, world=world)
    asked = replace(asked, table=with_uplink(asked.table, bytes_sigma=np.zeros(asked.table.size)))
    simulation = Simulation(asked, [np.random.default_rng(lane) for lane in range(8)])
    rng, lanes, keys = np.random.default_rng(0), np.arange(8), 0
    streams = np.flatnonzero(asked.table.streams.of >= 0)
    for _ in range(100):
        points = np.where(rng.random(8) < 0.7, rng.choice(streams, 8), rng.integers(asked.table.size, size=8))
        foreseen = simulation.observation().foreseen
        outcome, _ = simulation.step(points)
        own = ~outcome.dropped & ~asked.table.local[points]
        sent = outcome.hops[0].sent_bytes
        assert sent[own] == pytest.approx(foreseen.payload[lanes, points][own], rel=1e-5)
        keys += int((foreseen.reference_age[lanes, points] == NEEDS_KEY)[own].sum())
    assert 30 < keys < 300
    simulation.reset(np.array([3]))
    ages = simulation.observation().foreseen.reference_age
    assert (ages[3, streams] == NEEDS_KEY).all()
    assert (ages[:, streams] < NEEDS_KEY).any()

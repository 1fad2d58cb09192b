"""Scenes that move more or less than the profile's: bytes of streams, the device's belief, and who uses it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from tests.envs.small import with_uplink
from tests.envs.world.test_references import FIVE, VIDEO, WIDE, told
from tests.profiles import stream_profile
from tidesplit.agents.rules.controllers import Mpc
from tidesplit.envs.simulation.scenario import scenario_from
from tidesplit.envs.simulation.simulation import Simulation
from tidesplit.envs.traces.trace import Trace
from tidesplit.envs.world.physics import World
from tidesplit.profiling.points.motion import FADE_S, FRESH_S, MOST, RATE, believed, faded, growth_of, videos
from tidesplit.runtime.core.device_beliefs import DeviceBeliefs
from tidesplit.runtime.log.record import Record

LANES = 4
# point, age, motion -> factor on its bytes with the frame before as reference, see `FIVE`
GROWTHS = {
    "the profile's": (VIDEO, 2.0, 1.0, 2.0),
    "still": (VIDEO, 2.0, 0.1, 0.2),
    "lively": (VIDEO, 2.0, 3.0, 6.0),
    "not above a key": (VIDEO, 2.0, 100.0, 20.0),
    "a key when still": (VIDEO, np.inf, 0.1, 20.0),
    "a key when lively": (VIDEO, np.inf, 3.0, 20.0),
    "a cut": (WIDE, 1.0, 2.5, 2.5),
}


@pytest.mark.parametrize("case", GROWTHS.values(), ids=GROWTHS)
def test_bytes_by_motion(case: tuple[int, float, float, float]) -> None:
    point, age, motion, expected = case
    found = growth_of(FIVE, np.array([point]), np.array([age]), np.array([motion]))
    assert found == pytest.approx([expected])


def test_a_belief_forgets_and_is_bounded() -> None:
    belief = np.float64(1.0)
    for _ in range(60):
        belief = believed(belief, np.float64(3.0))
    assert belief == pytest.approx(3.0, rel=0.01)
    assert believed(np.float64(1.0), np.float64(1e6)) == pytest.approx(1.0 + RATE * (MOST - 1.0))


def test_what_is_foreseen_of_a_lively_scene() -> None:
    """Two times the bytes of streams, 150 of overhead as before, pictures and keys as they are."""
    asked = told(np.array([[1.0, np.inf]]), motion=np.array([[2.0, 2.0]])).foreseen
    assert asked.payload[0] == pytest.approx([4000, 1750, 0, 950, 2150])
    assert asked.steady_payload[0] == pytest.approx([4000, 1750, 0, 950, 350])


@pytest.mark.parametrize("motion", [0.3, 1.0, 2.0])
def test_devices_come_to_believe_the_motion(motion: float) -> None:
    """In simulator and runtime, from the bytes sent. The forecast then has the true bytes, and so has the MPC."""
    trace = Trace("fast", np.zeros(1), 10.0, np.array([2e7]))
    asked = scenario_from(trace=trace, profile=stream_profile(), world=World(motion=motion))
    asked = replace(asked, table=with_uplink(asked.table, bytes_sigma=np.zeros(asked.table.size)))
    simulation = Simulation(asked, [np.random.default_rng(lane) for lane in range(LANES)])
    row = int(np.flatnonzero(asked.table.streams.of >= 0)[0])
    for _ in range(80):
        outcome, _ = simulation.step(np.full(LANES, row))
    observation = simulation.observation()
    assert observation.foreseen.payload[:, row] == pytest.approx(outcome.hops[0].sent_bytes, rel=0.01)
    planned = Mpc(name="MPC", table=asked.table, world=asked.world).outlook(observation).frame_ahead(0)
    assert planned.motion[:, asked.table.streams.of[row]] == pytest.approx([motion] * LANES, rel=0.01)
    simulation.reset(np.array([1]))
    situation = simulation.situation()
    assert situation.motion is not None
    assert (situation.motion[1] == 1.0).all()
    assert simulation.forked(np.array([0])).situation().motion == pytest.approx(situation.motion[:1])


def test_local_frames_and_keys_tell_nothing() -> None:
    trace = Trace("fast", np.zeros(1), 10.0, np.array([2e7]))
    asked = scenario_from(trace=trace, profile=stream_profile(), world=World(motion=5.0))
    simulation = Simulation(asked, [np.random.default_rng(0)])
    for row in (int(np.flatnonzero(asked.table.local)[0]), int(np.flatnonzero(asked.table.streams.of >= 0)[0])):
        simulation.step(np.array([row]))
    motion = simulation.situation().motion
    assert motion is not None
    assert (motion == 1.0).all()


@pytest.mark.parametrize("patience", [1.0, 8.0, np.inf])
def test_a_patient_plan_has_the_bytes_of_a_lively_scene(patience: float) -> None:
    """Patience makes keys cheaper, and no other payload."""
    table = Mpc(name="MPC", table=FIVE, world=World(), patience=patience)._planned_with
    assert growth_of(table, np.array([VIDEO]), np.array([2.0]), np.array([3.0])) == pytest.approx([6.0])


def test_a_belief_fades() -> None:
    assert faded(3.0, FRESH_S) == 3.0
    assert faded(3.0, FRESH_S + FADE_S) == pytest.approx(1.0 + 2.0 / np.e)
    assert faded(3.0, 1e3) == pytest.approx(1.0)


def test_video_tells_nothing_of_cuts() -> None:
    assert videos(FIVE).tolist() == [False, True]


def test_the_device_believes_what_it_sent() -> None:
    """The runtime's own belief, of a payload of twice the bytes, then of a key."""
    asked = scenario_from(trace="lte", profile=stream_profile())
    row = int(np.flatnonzero(asked.table.streams.of >= 0)[0])
    of = int(asked.table.streams.of[row])
    beliefs = DeviceBeliefs(
        asked.table, asked.demands[0], asked.world, np.random.default_rng(0), 50.0, True, (0.0, 0.0)
    )
    usual = asked.table.hops[0].bytes_mean[row] * asked.table.streams.factors[row, 1]
    sent = SimpleNamespace(row=row, reference_age=1.0, sent_bytes=round(2.0 * usual), decided_at_s=5.0, motion=1.0)
    beliefs.encoded(cast(Record, sent))
    after = beliefs.situation(5.0, 5.0, 0.0, None).motion
    assert after is not None
    assert after[of] == pytest.approx(1.0 + RATE, rel=0.01)
    sent.reference_age, sent.decided_at_s = None, 6.0
    beliefs.encoded(cast(Record, sent))
    assert beliefs.situation(5.0, 5.0, 0.0, None).motion == after
    later = beliefs.situation(500.0, 500.0, 0.0, None).motion
    assert later == pytest.approx([1.0] * len(after))

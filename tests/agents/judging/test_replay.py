"""A log in the simulator: the same bytes, and so the same latencies, whatever the references were."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.agents.small import steps
from tests.envs.small import with_uplink
from tests.profiles import DEVICE, SERVER, stream_profile
from tidesplit.agents.judging.replay import STEADY, agreement, replayed_ms
from tidesplit.envs.simulation.simulation import Scenario, Simulation
from tidesplit.envs.world.vocabulary import Demand
from tidesplit.profiling.points.table import table_for

TABLE = table_for(stream_profile(), DEVICE, SERVER)
DEMAND = Demand(fps=20.0, deadline_s=0.5)
TRACE = steps("on and off", [4.0, 0.3, 2.0, 1.0], 1.0)


def log(seed: int, breaks: bool = False) -> list[dict[str, Any]]:
    """The log of a simulated device that decides at random. ``breaks``: its streams break now and then."""
    world = replace(STEADY, answer_limit_s=0.15 if breaks else 2.0)
    asked = Scenario(traces=(TRACE,), demands=(DEMAND,), table=TABLE, world=world)
    simulation = Simulation(asked, [np.random.default_rng(0)], trace_of=np.array([0]))
    rng, lines = np.random.default_rng(seed), []
    for number in range(60):
        point = rng.integers(TABLE.size, size=1)
        age = simulation.situation().reference_age
        assert age is not None
        stream = int(TABLE.streams.of[point[0]])
        known = stream >= 0 and np.isfinite(age[0, stream])
        expected_s = float(simulation.expected_s(point)[0])
        outcome, _ = simulation.step(point)
        own = TABLE.hops[0].sends[point[0]] and not outcome.dropped[0]
        lines.append(
            {
                "frame": number,
                "decision": TABLE.ids[point[0]],
                "bytes": (float(outcome.hops[0].sent_bytes[0]) - world.overhead_bytes) * own,
                "reference_age": float(age[0, stream]) if known else None,
                "predicted_ms": {"total": 1e3 * expected_s},
                "actual_ms": {"total": 1e3 * float(outcome.latency_s[0])},
                "answered_by": "server" if outcome.latency_s[0] < DEMAND.deadline_s else "miss",
            }
        )
    return lines


def test_latencies_of_a_log_come_again() -> None:
    """The logs are of the world itself. In the second one streams break where those of the replay would not."""
    whole, broken = (agreement(log(1, breaks), TRACE, TABLE, DEMAND) for breaks in (False, True))
    assert whole.n == broken.n == 60
    assert max(whole.p95, broken.p95) < 1e-6
    assert whole.real_ms < broken.real_ms


def test_what_was_not_sent_has_the_bytes_of_its_reference() -> None:
    """The runtime dropped the frame, the world sends it: as a key, by its age, and from a log without ages."""
    slow = steps("slow", [0.08] * 4, 1.0)
    line = log(0)[0] | {"decision": "p0-h264-q34", "bytes": 0}
    still = with_uplink(TABLE, bytes_sigma=np.zeros(TABLE.size))
    took = [
        replayed_ms([line | age], slow, still, replace(DEMAND, deadline_s=30.0))[0]
        for age in ({"reference_age": None}, {"reference_age": 1.0}, {"reference_age": 4.0})
    ]
    del line["reference_age"]
    took.append(replayed_ms([line], slow, still, replace(DEMAND, deadline_s=30.0))[0])
    assert np.subtract(took, took[1]) == pytest.approx([950.0, 0.0, 150.0, 950.0])  # 9,500 and 1,500 bytes more

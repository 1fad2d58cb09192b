"""The look-ahead search against every plan there is."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from tests.agents.small import BUMPY, scenario
from tests.envs.small import CUT, TABLE, WORLD, with_uplink
from tidesplit.agents.judging.seer import teacher_regret
from tidesplit.agents.rules.lookahead import Outlook, _beam, regret
from tidesplit.envs.simulation.simulation import Simulation
from tidesplit.envs.world.hop import RoundTrip
from tidesplit.envs.world.link import ConstantUplink
from tidesplit.envs.world.pipeline import Frame, advance
from tidesplit.envs.world.queues import Queues, References
from tidesplit.envs.world.vocabulary import Demand, Demands, Floats, each
from tidesplit.profiling.points.stream_columns import Streams

HORIZON, STATES = 3, 4
ALL = 10_000
RATES = np.array([1e5, 2e4, 0.0, 5e5])
BACKLOG_S = np.array([0.0, 0.030, 0.080, 0.010])


def frame_ahead(h: int) -> Frame:
    """Frame h of four states, slower and slower."""
    one = np.ones(STATES)
    trip = RoundTrip(0.040 * one, 0.040 * one)
    return Frame(h * one / 30, (1.0 + 0.1 * h) * one, 0.0 * one, 0.001 * one, 0.0 * one, 20.0 * one, one, (trip,))


def outlook(demand: Demand) -> Outlook:
    idle = Queues.idle(STATES)
    links = (idle.hops[0]._replace(free_s=BACKLOG_S),)
    queues = idle._replace(hops=links, device_free_s=BACKLOG_S[::-1].copy())
    mask = np.array([[True, True, True], [True, True, True], [False, True, True], [True, False, True]])
    return Outlook(
        queues=queues,
        frame_ahead=frame_ahead,
        table=TABLE,
        demands=Demands.of(*[demand] * STATES),
        world=WORLD,
        uplinks=(ConstantUplink(RATES),),
        lane=np.arange(STATES),
        mask=mask,
    )


def by_enumeration(about: Outlook, queue_cost: float) -> Floats:
    """Each first point's best total over every plan, less than the best first point's."""
    best = np.full(about.mask.shape, -np.inf)
    for plan in product(range(TABLE.size), repeat=HORIZON):
        queues, total = about.queues, np.zeros(STATES)
        for h, point in enumerate(plan):
            queues, outcome, _ = advance(
                queues,
                np.full(STATES, point),
                about.frame_ahead(h),
                table=about.table,
                demands=about.demands,
                world=about.world,
                uplinks=about.uplinks,
                lane=about.lane,
            )
            total = total + outcome.utility
        end = HORIZON * about.demands.period_s
        finishing = np.maximum(queues.finish_until_s - np.maximum(queues.finish_from_s, end), 0.0)
        left = np.maximum(queues.device_free_s - end, 0.0) + np.maximum(queues.worker_until_s - end, 0.0) + finishing
        left = left + np.clip(queues.hops[0].free_s - end, 0.0, about.demands.deadline_s)
        total = total - queue_cost * left / about.demands.period_s
        allowed = about.mask[:, list(plan)].all(axis=1)
        best[:, plan[0]] = np.where(allowed, np.maximum(best[:, plan[0]], total), best[:, plan[0]])
    return best.max(axis=1, keepdims=True) - best


@pytest.mark.parametrize("queue_cost", [0.0, 1.0])
@pytest.mark.parametrize(
    "demand",
    [Demand(), Demand(objective="latency", deadline_s=0.5), Demand(min_accuracy=0.65), Demand(deadline_s=0.06)],
)
def test_a_search_that_drops_no_label_is_exhaustive(
    demand: Demand, queue_cost: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidesplit.agents.rules.lookahead._beam", lambda owner, *_: np.arange(len(owner)))
    about = outlook(demand)
    np.testing.assert_allclose(regret(about, HORIZON, ALL, queue_cost), by_enumeration(about, queue_cost), atol=1e-12)


def test_one_label_a_cell_of_queues_stays_and_the_best_of_those() -> None:
    """Five labels of state 0 and one of state 1; the cell is 4 ms wide."""
    queues = Queues.idle(6)._replace(device_free_s=np.array([0.0, 0.001, 0.010, 0.011, 0.050, 0.0]))
    score = np.array([1.0, 2.0, 3.0, 0.5, 2.5, 0.1])
    owner = np.array([0, 0, 0, 0, 0, 1])
    kept = [_beam(owner, score, queues, np.zeros(6), width).tolist() for width in (9, 2, 1)]
    assert kept == [[2, 4, 1, 5], [2, 4, 5], [2, 5]]


@pytest.mark.parametrize("width", [1, 2, 6])
def test_a_narrow_search_ranks_among_the_allowed(width: int) -> None:
    about = outlook(Demand())
    found = regret(about, 5, width)
    assert (found.min(axis=1) == 0.0).all()
    np.testing.assert_array_equal(np.isfinite(found), about.mask)


def test_a_search_over_one_frame_ranks_by_its_utility() -> None:
    about = outlook(Demand())
    _, outcome, _ = advance(
        about.queues.take(np.zeros(3, dtype=np.int64)),
        np.arange(3),
        each(lambda column: column[:1].repeat(3), frame_ahead(0)),
        table=TABLE,
        demands=about.demands.take(np.zeros(3, dtype=np.int64)),
        world=WORLD,
        uplinks=about.uplinks,
        lane=np.zeros(3, dtype=np.int64),
    )
    np.testing.assert_allclose(regret(about, 1, ALL, 0.0)[0], outcome.utility.max() - outcome.utility)


def test_the_search_is_told_what_the_device_will_believe() -> None:
    """A device that believes itself ten times slower drops every frame; later frames are the search's own."""
    about = outlook(Demand())
    doomed = regret(replace(about, slow_belief=np.full(STATES, 10.0)), 1, ALL, 0.0)
    np.testing.assert_array_equal(doomed[0], 0.0)  # all points are worth nothing
    assert regret(about, 1, ALL, 0.0)[0].max() > 0.0


def test_the_teacher_charges_no_regret_to_the_point_that_turns_out_best() -> None:
    simulation = Simulation(scenario(BUMPY, episode_s=1.0), [np.random.default_rng(lane) for lane in range(5)])
    for _ in range(10):
        labels = teacher_regret(simulation, np.arange(5))
        assert (labels.min(axis=1) == 0.0).all()
        assert np.isfinite(labels[simulation.observation().mask]).all()
        simulation.step(np.argmin(labels, axis=1))
    some = teacher_regret(simulation, np.array([3, 1]))
    np.testing.assert_array_equal(some, teacher_regret(simulation, np.arange(5))[[3, 1]])


# Picture and stream of cuts: 40 ms and, as a key, 45 ms of the link; the cut's next payloads take 4 ms.
STREAMING = replace(
    with_uplink(TABLE, bytes_mean=np.array([3850.0, 250.0, 0.0])),
    accuracy=np.array([0.75, 0.8, 0.2]),
    streams=Streams(
        names=("cuts",), of=np.array([-1, 0, -1]), growth=np.array([[1.0] * 7, [1.0] * 6 + [17.4], [1.0] * 7])
    ),
)


def streaming(arrival_s: Floats) -> Outlook:
    """Lanes whose reference came at these moments, on a link of 100 kB/s."""
    queues = Queues.idle(STATES, streams=1)
    references = References(arrival_s[:, None], np.full((STATES, 1), np.inf))
    return replace(
        outlook(Demand(deadline_s=0.15)),
        queues=queues._replace(references=references),
        table=STREAMING,
        mask=np.ones((STATES, 3), dtype=bool),
        uplinks=(ConstantUplink(np.full(STATES, 1e5)),),
    )


def test_a_plan_goes_on_in_its_stream_though_keys_are_dear() -> None:
    """Only the picture is among the best points of the first frame. The key pays in the frames after it."""
    about = streaming(np.full(STATES, -np.inf))
    every, few = (regret(about, 5, ALL, 1.0, later_points) for later_points in (0, 1))
    assert (every.argmin(axis=1) == CUT).all()
    np.testing.assert_allclose(few[:, CUT], every[:, CUT])
    assert (regret(about, 1, ALL, 1.0)[:, CUT] > 0.0).all()


def test_one_plan_a_cell_and_last_stream_stays() -> None:
    """Plans of the same queues that sent last in no stream, in the first one, in the second one, and in it again."""
    sent = np.array([[-np.inf, -np.inf], [0.1, -np.inf], [0.1, 0.2], [-np.inf, 0.1]])
    queues = Queues.idle(4, streams=2)._replace(references=References(sent, np.full((4, 2), np.inf)))
    kept = _beam(np.zeros(4, dtype=np.int64), np.array([3.0, 1.0, 2.0, 4.0]), queues, np.zeros(4), 9)
    assert kept.tolist() == [3, 0, 1]


def test_the_best_plan_of_a_group_is_the_first_of_many() -> None:
    rng = np.random.default_rng(0)
    group, score = np.repeat(np.arange(40), 9), rng.integers(4, size=360) / 4.0  # many are equally good
    queues = Queues.idle(360)._replace(device_free_s=rng.integers(6, size=360) * 0.003)
    alone, many = (_beam(group, score, queues, np.zeros(360), width) for width in (1, 5))
    assert alone.tolist() == many[np.unique(group[many], return_index=True)[1]].tolist()

"""What a table spread draws: other devices and CNNs, each of them one that could be."""

from __future__ import annotations

import numpy as np
import pytest

from tidesplit.envs.simulation.scenario import scenario_from
from tidesplit.envs.simulation.varied import spread_out, vary
from tidesplit.envs.world.vocabulary import Bools, Floats
from tidesplit.profiling.points.table import PointTable

TABLE = scenario_from(profile="efficientnet_lite0").table
CUTS = TABLE.hops[0].sends & ~TABLE.light
SEEDS = range(5)


def drawn(seed: int, spread: float = 0.7) -> PointTable:
    """Lane 1 of two, drawn with this seed; lane 0 stays as the table."""
    out = spread_out(TABLE, 2)
    vary(out, TABLE, 1, spread, np.random.default_rng(seed))
    return out


def factors(column: Floats, base: Floats, of: Bools) -> Floats:
    """How many times as much these points have."""
    return column[1][of] / base[of]


def test_no_spread_no_change() -> None:
    out = drawn(0, 0.0)
    for name in ("head_s", "finish_s", "server_s", "accuracy", "finish_accuracy"):
        np.testing.assert_allclose(getattr(out, name)[1], getattr(TABLE, name), err_msg=name)
    np.testing.assert_allclose(out.hops[0].bytes_mean[1], TABLE.hops[0].bytes_mean)


def test_other_lanes_keep_theirs() -> None:
    out = drawn(0)
    np.testing.assert_array_equal(out.head_s[0], TABLE.head_s)
    np.testing.assert_array_equal(out.accuracy[0], TABLE.accuracy)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_cut_elsewhere_leaves_the_cnn_as_long_as_it_is(seed: int) -> None:
    out = drawn(seed)
    (device,) = np.unique(factors(out.head_s, TABLE.head_s, TABLE.light).round(9))
    both, before = out.head_s[1] + out.finish_s[1], TABLE.head_s + TABLE.finish_s
    np.testing.assert_allclose(both[CUTS], device * before[CUTS])
    assert (out.head_s[1] > 0.0).all()
    assert (out.finish_s[1] > 0.0).all()
    order = np.argsort(TABLE.head_s[CUTS] / before[CUTS])
    assert (np.diff((out.head_s[1] / both)[CUTS][order]) >= 0.0).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_picture_races_the_net_that_the_device_has(seed: int) -> None:
    out = drawn(seed)
    nets = {row: out.head_s[1][row] for row in np.flatnonzero(TABLE.local)}
    for race in np.flatnonzero(TABLE.races & TABLE.light):
        (net,) = np.flatnonzero(TABLE.local & (TABLE.head_s == TABLE.finish_s[race]))
        assert out.finish_s[1][race] == pytest.approx(nets[net])
        assert out.finish_accuracy[1][race] == pytest.approx(out.accuracy[1][net])


@pytest.mark.parametrize("seed", SEEDS)
def test_payloads_have_one_factor_for_pictures_and_one_for_cuts(seed: int) -> None:
    out = drawn(seed)
    sent, base = out.hops[0].bytes_mean, TABLE.hops[0].bytes_mean
    (of_picture,) = np.unique(factors(sent, base, TABLE.light).round(9))
    (of_cut,) = np.unique(factors(sent, base, CUTS).round(9))
    assert of_picture != of_cut
    assert (sent[1][TABLE.local] == 0.0).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_accuracies_keep_their_order_within_a_kind(seed: int) -> None:
    out = drawn(seed)
    assert (out.accuracy[1] >= 0.0).all()
    assert out.accuracy[1].max() <= TABLE.accuracy.max()
    for kind in (TABLE.local, TABLE.light, CUTS):
        order = np.argsort(TABLE.accuracy[kind])
        assert (np.diff(out.accuracy[1][kind][order]) >= 0.0).all()
    assert (out.finish_accuracy[1][~np.isfinite(TABLE.finish_s)] == 0.0).all()

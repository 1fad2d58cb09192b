"""Uncompressed partitions and the multiples of benchmarks/headline.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tidesplit.benchmarks import headline
from tidesplit.benchmarks.headline import POLICY, UNCOMPRESSED, Played
from tidesplit.models.registry import build
from tidesplit.profiling.points import profile as profiles
from tidesplit.profiling.points.table import table_for

# Values at the picture and at each cut: published layer shapes of the two networks.
SHAPES = {
    "efficientnet_lite0": [(3, 224, 224), (24, 56, 56), (40, 28, 28), (80, 14, 14), (112, 14, 14), (192, 7, 7)],
    "cifar_resnet": [(3, 32, 32), (32, 16, 16), (64, 8, 8)],
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_picture_has_a_byte_per_value_and_a_feature_four(name: str) -> None:
    picture, *features = (int(np.prod(shape)) for shape in SHAPES[name])
    net = build(name, 10)
    assert [headline.crossing_bytes(net, p) for p in range(len(net.cuts) + 1)] == [picture, *(4 * f for f in features)]


def test_uncompressed_partitions_of_the_flagship() -> None:
    """All have the uncut net's accuracy and the full-width net's head, without the encoder's time."""
    profile = profiles.load("efficientnet_lite0")
    whole = table_for(profile, headline.DEVICE, headline.SERVER)
    cuts = headline.uncompressed(profile, whole)
    sizes = [4 * float(np.prod(shape)) for shape in SHAPES[profile.name]]
    assert cuts.hops[0].bytes_mean.tolist() == [0.0, sizes[0] / 4, *sizes[1:]]
    assert cuts.hops[0].partition.tolist() == [6, 0, 1, 2, 3, 4, 5]
    assert set(cuts.hops[0].channel_ratio) == {1.0}
    assert set(cuts.accuracy) == {whole.accuracy[whole.row("device-c1.00")]}
    assert np.isinf(cuts.finish_s).all()
    assert (np.diff(cuts.head_s[1:]) > 0.0).all()
    rows = [whole.row(point) for point in cuts.ids]
    assert (cuts.head_s <= whole.head_s[rows]).all()
    assert cuts.server_s.tolist() == whole.server_s[rows].tolist()


def test_multiples_of_ppo() -> None:
    """Twice as slow on one trace, four times on the other: 10/3 in the mean time, 3 by trace, 4 at most."""
    ones = np.ones(2)
    found = {
        POLICY: Played(np.array([0.01, 0.02]), np.array([100.0, 300.0]), 0.9 * ones, 0.0 * ones),
        UNCOMPRESSED: Played(np.array([0.02, 0.08]), np.array([1000.0, 3000.0]), 0.8 * ones, 0.1 * ones),
    }
    line = headline.lines(found, np.random.default_rng(0))[UNCOMPRESSED]
    mean, low, high = line.pop("times_as_slow_by_trace")
    assert (mean, low, high) == (pytest.approx(3.0), pytest.approx(2.0), pytest.approx(4.0))
    assert line == {
        "latency_ms": pytest.approx(50.0), "accuracy": pytest.approx(0.8), "bytes": 2000.0,
        "misses": pytest.approx(0.1),
        "times_as_slow": pytest.approx(10 / 3), "at_most_times_as_slow": pytest.approx(4.0),
        "times_the_bytes": pytest.approx(10.0), "n": 2,
    }  # fmt: skip


def test_a_policy_that_sends_nothing_has_finite_multiples() -> None:
    none = Played(np.ones(1), np.zeros(1), np.ones(1), np.zeros(1))
    some = Played(np.ones(1), np.full(1, 500.0), np.ones(1), np.zeros(1))
    assert (
        headline.lines({POLICY: none, UNCOMPRESSED: some}, np.random.default_rng(0))[UNCOMPRESSED]["times_the_bytes"]
        == 500
    )


def test_the_steady_link_is_cnnpcs(tmp_path: Path) -> None:
    (trace,) = headline.uplinks(tmp_path, "steady")
    assert (trace.bandwidth_bps.tolist(), trace.duration_s) == ([20e6], 60.0)
    assert trace.rtt_s is not None
    assert trace.rtt_s.tolist() == [0.00166]

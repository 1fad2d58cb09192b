import math
from dataclasses import replace

import pytest

from tidesplit.profiling.measuring.claims import (
    cheapest_within,
    frontier,
    image_bytes_at,
    most_ahead,
    plain_feature_bytes,
    plot,
    report,
)
from tidesplit.profiling.points.profile import OperatingPoint, Profile, Provenance


def point(name, partition, codec, accuracy, size, macs=1.0, ratio=1.0):
    return OperatingPoint(
        id=name, partition=partition, channel_ratio=ratio, region_ratio=1.0, bits=1, codec=codec, accuracy=accuracy,
        accuracy_ci95=(accuracy - 0.01, accuracy + 0.01), bytes_mean=size, n=100, head_macs=macs,
    )  # fmt: skip


@pytest.fixture
def profile():
    points = (
        point("p0-jpeg-q10", 0, "jpeg", 0.60, 1000.0),
        point("p0-jpeg-q90", 0, "jpeg", 0.90, 4000.0),
        point("p0-webp-q5", 0, "webp", 0.80, 2000.0),
        point("p1-a", 1, "feature", 0.895, 300.0),
        point("p1-b", 1, "feature", 0.85, 900.0),
        point("p2-a", 2, "feature", 0.70, 100.0),
        *(point(f"p{p}-a", p, "feature", 0.7, 100.0) for p in (3, 4, 5)),
        point("device-c1.00", 6, "none", 0.90, 0.0, macs=4.0),
    )
    measured = Provenance(kind="measured", source="invented")
    return Profile(
        name="efficientnet_lite0", partitions=6, points=points, accuracy_provenance=measured, devices={},
        cnn={"classes": 101, "dataset": "invented"},
    )  # fmt: skip


def test_frontier_drops_what_costs_more_and_gives_less(profile):
    cut = [p for p in profile.points if p.partition == 1]
    assert [p.id for p in frontier(cut)] == ["p1-a"]


@pytest.mark.parametrize(
    ("accuracy", "expected"),
    [(0.5, 1000.0), (0.6, 1000.0), (0.7, math.sqrt(1000 * 2000)), (0.85, math.sqrt(2000 * 4000)), (0.95, math.inf)],
)
def test_image_bytes_follow_the_better_codec(profile, accuracy, expected):
    assert image_bytes_at(profile, accuracy) == pytest.approx(expected)


def test_cheapest_point_that_reaches_an_accuracy(profile):
    assert cheapest_within(profile.points[3:5], 0.84).id == "p1-a"
    assert cheapest_within(profile.points[3:5], 0.99) is None


@pytest.mark.parametrize(("partition", "expected"), [(1, "p1-a"), (2, "p2-a")])
def test_the_point_most_ahead_of_pictures(profile, partition, expected):
    assert most_ahead(profile, partition).id == expected


def test_beyond_the_accuracy_of_pictures_no_point_is_ahead(profile):
    beyond = [point("p3-a", 3, "feature", 0.55, 1.0), point("p3-b", 3, "feature", 0.95, 1.0)]
    assert most_ahead(replace(profile, points=(*profile.points[:3], *beyond)), 3) is None


def test_plain_feature_is_float32(profile):
    assert plain_feature_bytes(profile, 2) == 4 * 40 * 28 * 28


def test_report_names_the_figures(profile, tmp_path):
    text = report(profile)
    assert "90.00 % [89.00, 91.00]" in text
    assert f"{math.exp(math.log(2000) + 0.95 * math.log(2)) / 300:.1f}x fewer bytes than the better of JPEG" in text
    assert "no point within 1.0 points" in text
    plot(replace(profile), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000

"""Points of three tiers, by hand out of a profile of two; which are estimated; which are kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.profiles import CLOUD, DEVICE, INVENTED, SERVER, three_tier_profile
from tidesplit.profiling.devices.scission import common_ratio, read_blocks
from tidesplit.profiling.points import tiers
from tidesplit.profiling.points.profile import (
    Chain,
    ChainTable,
    DeviceTable,
    Profile,
    ProfileError,
    Timing,
    from_json,
    to_json,
)
from tidesplit.profiling.points.table import PointTable, undominated
from tidesplit.profiling.points.tiers import (
    MIDDLE,
    PI,
    PI_OVER_MIDDLE,
    cut_twice,
    estimated,
    names,
    points_of,
    table_of,
    with_middle_server,
    worth_measuring,
)

PAIR = Chain(
    first="jpeg95", second="cut2-w100-b2", accuracy=0.7, accuracy_ci95=(0.6, 0.8), lost=0.05, bytes_mean=200.0,
    bytes_std=20.0, n=100,
)  # fmt: skip


def profile(decode_s: float = 0.0, encode_s: float = 0.0) -> Profile:
    """The tests' own, with the middle server's codec taking its time."""
    made = replace(three_tier_profile(), chains=None)
    timings = made.devices[SERVER].timings
    middle = {name: replace(t, decode_s=decode_s, encode_s=encode_s) for name, t in timings.items()}
    return made.with_device(SERVER, DeviceTable(provenance=INVENTED, timings=middle))


def measured() -> Profile:
    return replace(profile(), chains=ChainTable(provenance=INVENTED, chains=(PAIR,)))


def test_columns_by_hand() -> None:
    ids = ["device-w100", "jpeg95", "jpeg95>cloud", "jpeg95>cut2-w100-b2", "cut1-w50-b4>cut2-w100-b2"]
    table = table_of(profile(decode_s=0.001, encode_s=0.0005), (DEVICE, SERVER, CLOUD), ids)
    uplink, between = table.hops
    assert table.ids == tuple(ids)
    expected = {
        "head_s": [0.110, 0.006, 0.006, 0.006, 0.016],
        # tails of 12 and 6 ms, by 2.5 in the cloud; decoding takes the middle server a millisecond
        "server_s": [0, 0.013, 0.0048, 0.0024, 0.0024],
        "finish_s": [np.inf, np.inf, np.inf, np.inf, 0.030],
        # uncut 0.92; the second cut alone 0.89
        "accuracy": [0.92, 0.92, 0.92, 0.89, 0.84],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(getattr(table, name), values, err_msg=name)
    np.testing.assert_allclose(uplink.bytes_mean, [0, 11_000, 11_000, 11_000, 300])
    beyond = {
        "partition": [3, 3, 0, 2, 2],
        "sends": [False, False, True, True, True],
        "relays": [False, False, True, False, False],
        # decode 1, from the picture (12 ms) or the first cut (9) to the second (6), encode 0.5
        "compute_s": [0, 0, 0, 0.0075, 0.0045],
        "bytes_mean": [0, 0, 11_000, 150, 150],
        "bytes_sigma": [0, 0, 0.1, 0.1, 0.1],
    }
    for name, values in beyond.items():
        np.testing.assert_allclose(getattr(between, name), values, err_msg=name)


def test_names() -> None:
    """Ten points; seven cross, and are passed on; pictures and first cuts before later ones at full ratio."""
    every = names(profile())
    assert len(every) == len(set(every)) == 10 + 7 + 2 * (2 + 1) + 3 * 1
    assert "jpeg50>cut1-w100-b4" in every
    assert "jpeg50>cut1-w50-b4" not in every


def test_measured_pairs_stand_before_the_assumption() -> None:
    """0.92 behind the picture alone, of which 0.05 was lost on the sample; the bytes that were seen."""
    table = table_of(measured(), (DEVICE, SERVER, CLOUD), ["jpeg95>cut2-w100-b2", "jpeg50>cut2-w100-b2"])
    np.testing.assert_allclose(table.accuracy, [0.87, 0.86 - 0.03])
    np.testing.assert_allclose(table.hops[1].bytes_mean, [200, 150])
    np.testing.assert_allclose(table.hops[1].bytes_sigma, [0.1, 0.1])


def test_which_accuracies_are_estimated() -> None:
    ids = ["jpeg95", "jpeg95>cloud", "jpeg95>cut2-w100-b2", "jpeg50>cut2-w100-b2", "device-w50"]
    assert estimated(profile(), ids) == ids[2:4]
    assert estimated(measured(), ["jpeg95+device-w25>cut2-w100-b2"]) == []
    assert estimated(measured(), ids) == [ids[3]]
    assert [name for name in names(measured()) if "cut2" in name.partition(">")[2]] == ["jpeg95>cut2-w100-b2"]


def test_points_worth_choosing() -> None:
    """Every kind; behind a first cut the assumption that drops add up is not trusted, and only measured pairs are."""
    table = points_of(profile(), (DEVICE, SERVER, CLOUD))
    uplink, between = table.hops
    kinds = np.array([between.sends, between.relays, table.local]).sum(axis=1)
    assert (kinds > 0).all()
    assert len(set(table.ids)) == table.size
    single = points_of(profile(), (DEVICE, SERVER, CLOUD), races=False)
    assert single.ids == table.ids[: single.size]
    assert set(undominated(single).ids) == set(single.ids)
    assert table.races.tolist() == ["+" in name for name in table.ids]
    twice = between.sends & ~between.relays
    assert twice.any()
    assert (uplink.partition[twice] == 0).all()
    with_pairs = points_of(three_tier_profile(), (DEVICE, SERVER, CLOUD))
    again = [i for i in with_pairs.ids if ">cut" in i]
    assert [i for i in again if "+" not in i] == ["jpeg95>cut2-w100-b2", "cut1-w100-b4>cut2-w100-b2"]
    assert "jpeg95+device-w25>cut2-w100-b2" in again


@pytest.mark.parametrize("machines", [(DEVICE, SERVER), (DEVICE, SERVER, CLOUD)])
def test_a_chain_of_machines_has_a_hop_for_each_link(machines: tuple[str, ...]) -> None:
    """The columns are the same whether points are chosen or named."""
    chosen = points_of(profile(), machines)
    named = table_of(profile(), machines, chosen.ids)
    assert len(chosen.hops) == len(machines) - 1
    assert named.ids == chosen.ids
    for ours, theirs in zip(columns(named), columns(chosen), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def columns(table: PointTable) -> list[NDArray[Any]]:
    """Every column, those of the hops too."""
    listed: list[NDArray[Any]] = []

    def note(column: NDArray[Any]) -> NDArray[Any]:
        listed.append(column)
        return column

    table.with_columns(note, table.ids)
    return listed


def test_a_middle_server_that_another_point_makes_needless_is_not_offered() -> None:
    """Where the cloud's processor is the middle server's own, cutting again only costs."""
    here = table_of(profile(), (DEVICE, SERVER, SERVER), names(profile()))
    uplink, between = undominated(here).hops
    again = between.sends & ~between.relays
    smaller = between.bytes_mean < uplink.bytes_mean
    assert (smaller | ~again).all()


def test_pairs_to_measure_do_not_depend_on_what_was_measured() -> None:
    assert worth_measuring(measured(), DEVICE, SERVER, CLOUD) == worth_measuring(profile(), DEVICE, SERVER, CLOUD)
    pairs = worth_measuring(profile(), DEVICE, SERVER, CLOUD)
    assert ("jpeg95", "cut2-w100-b2") in pairs
    assert all(not two.startswith("jpeg") for _, two in pairs)


def test_cut_twice_keeps_the_most_accurate_within_budgets_of_both_hops() -> None:
    ids = ["jpeg95>cut2-w100-b2", "jpeg50>cut2-w100-b2", "cut1-w100-b8>cut2-w100-b2", "cut1-w50-b4>cut2-w100-b2"]
    table = table_of(profile(), (DEVICE, SERVER, CLOUD), ids)
    # 11,000, 4,500, 1,200 and 300 bytes before 150; the second is less accurate than the third, and larger
    assert cut_twice(table, 2.0).ids == (ids[0], ids[2], ids[3])
    assert cut_twice(table, 100.0).ids == (ids[0], ids[3])  # budgets of 300 and 30,000 bytes


def test_the_middle_server_is_estimated_from_the_pi() -> None:
    made = with_middle_server(three_tier_profile(), MIDDLE)
    assert made.devices[MIDDLE].provenance.kind == "estimated"
    of_pi, of_middle = (made.devices[label].timings["cut1-w100-b8"] for label in (PI, MIDDLE))
    assert of_middle.head_s == pytest.approx(of_pi.head_s / PI_OVER_MIDDLE)
    assert with_middle_server(made, MIDDLE) is made
    assert with_middle_server(made, SERVER) is made


def test_the_middle_servers_factor_is_scissions(shared: Path) -> None:
    assert common_ratio(read_blocks(shared / "device_latency", "edge-2500")) == pytest.approx(PI_OVER_MIDDLE, abs=0.005)


@pytest.mark.parametrize(
    ("ids", "cloud", "sentence"),
    [
        (["jpeg95>nowhere"], CLOUD, "no operating point 'nowhere'"),
        (["nothing"], CLOUD, "no operating point 'nothing'"),
        (["jpeg95>cloud"], "moon", "no timings of 'moon'"),
    ],
)
def test_what_is_not_there(ids: list[str], cloud: str, sentence: str) -> None:
    with pytest.raises(ProfileError, match=sentence):
        table_of(profile(), (DEVICE, SERVER, cloud), ids)


def test_without_a_pi_the_middle_server_cannot_be_estimated() -> None:
    made = three_tier_profile()
    only = replace(made, devices={SERVER: made.devices[SERVER]})
    with pytest.raises(ProfileError, match=f"no timings of '{PI}' to estimate '{MIDDLE}' from"):
        with_middle_server(only, MIDDLE)


def test_pairs_in_the_profile_file() -> None:
    document = json.loads(json.dumps(to_json(measured())))
    assert from_json(document) == measured()
    assert "chains" not in to_json(profile())


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"second": "cut9"}, "chain 'jpeg95', 'cut9': it names a point that there is not"),
        ({"accuracy": 70.0}, "accuracy 70.0 and 0.05 of it lost received, 0 to 1 expected"),
        ({"bytes_mean": 0.0}, "0.0 bytes received, more than 0 expected"),
    ],
)
def test_pairs_that_make_no_sense(changed: dict[str, object], sentence: str) -> None:
    document = json.loads(json.dumps(to_json(measured())))
    document["chains"]["chains"][0] |= changed
    with pytest.raises(ProfileError, match=sentence):
        from_json(document)


def test_a_middle_is_never_shorter_than_nothing() -> None:
    """Timings are measured: a later tail may seem longer than an earlier one."""
    made = three_tier_profile()
    odd = {name: replace(t, tail_s=0.0) for name, t in made.devices[SERVER].timings.items()}
    odd["cut2-w100-b2"] = Timing(head_s=0.0, encode_s=0.0, decode_s=0.0, tail_s=1.0, finish_s=0.0)
    made = made.with_device(SERVER, DeviceTable(provenance=INVENTED, timings=odd))
    table = table_of(made, (DEVICE, SERVER, CLOUD), ["jpeg95>cut2-w100-b2"])
    assert table.hops[1].compute_s.tolist() == [0.0]
    assert tiers.PASSED_ON == "cloud"

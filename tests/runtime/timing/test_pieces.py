"""The pieces of operating points, their turns, and the table that their times make."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from tests.compression.tables import change_tables_of
from tests.profiles import DEVICE, INVENTED, synthetic_profile, three_tier_profile
from tests.runtime.deployed import points
from tidesplit.compression.codec.knobs import INT8
from tidesplit.profiling.measuring.clock import Measurement
from tidesplit.profiling.points.profile import (
    DeviceTable,
    OperatingPoint,
    Profile,
    ProfileError,
    StreamBytes,
    Timing,
)
from tidesplit.profiling.streams.stream_work import FRAMES
from tidesplit.runtime.cnn import Cnn
from tidesplit.runtime.timing import machine
from tidesplit.runtime.timing.machine import only, table_of_machine, time_turns, with_loop
from tidesplit.runtime.timing.work import Pieces, Work, pieces_of, turns_of


def profile_of_both_precisions() -> Profile:
    """Image offload whole and smaller, a cut and the narrowest net in both precisions, and a wider net."""
    profile, _ = points(3)
    picture, cut, narrow = profile.points
    wide = replace(narrow, id="device-c1.00", channel_ratio=1.0)
    narrow8 = replace(narrow, id="device-c0.25-i8", precision=INT8)
    cut8 = replace(cut, id="p1-c0.50-r1.00-b2-i8", precision=INT8, fallback=narrow8.id)
    small = replace(picture, id="p0-jpeg-q50-24px", resolution=24, fallback=narrow8.id)
    made = (picture, small, cut, cut8, narrow, narrow8, wide)
    timings = dict.fromkeys([p.id for p in made], Timing(head_s=0, encode_s=0, decode_s=0, tail_s=0, finish_s=0))
    server = DeviceTable(provenance=INVENTED, timings=timings)
    return replace(profile, points=made, devices={"server": server})


PROFILE = profile_of_both_precisions()
CODEC = ("encode p1-c0.50-r1.00-b2", "decode p1-c0.50-r1.00-b2")


@pytest.mark.parametrize(
    ("point_id", "pieces"),
    [
        ("device-c0.25", Pieces(head="device-c0.25")),
        ("device-c0.25-i8", Pieces(head="device-c0.25-i8")),
        ("p1-c0.50-r1.00-b2", Pieces("head-p1-c0.50", *CODEC, "tail-p1", "finish-p1-c0.50")),
        ("p1-c0.50-r1.00-b2-i8", Pieces("head-p1-c0.50-i8", *CODEC, "tail-p1", "finish-p1-c0.50-i8")),
        ("p0-jpeg-q50", Pieces(None, "encode p0-jpeg-q50", "decode p0-jpeg-q50", "tail-p0", "device-c0.25")),
        (
            "p0-jpeg-q50-24px",
            Pieces(None, "encode p0-jpeg-q50-24px", "decode p0-jpeg-q50-24px", "tail-p0", "device-c0.25-i8"),
        ),
    ],
)
def test_pieces_of_a_point(point_id: str, pieces: Pieces) -> None:
    assert pieces_of(PROFILE.point(point_id)) == pieces


def test_without_a_fallback_nothing_finishes() -> None:
    cut, picture = (replace(PROFILE.point(i), fallback=None) for i in ("p1-c0.50-r1.00-b2", "p0-jpeg-q50"))
    assert pieces_of(cut).finish is None
    assert pieces_of(picture).finish is None


def test_the_times_of_pieces_make_the_table() -> None:
    names = sorted({piece for point in PROFILE.points for piece in pieces_of(point) if piece})
    measured = {name: Measurement((float(k), k + 0.5), 1) for k, name in enumerate(names, 1)}
    table = with_loop(table_of_machine(PROFILE, measured, 3), 0.002, "all of it")
    at = {name: k + 0.125 for k, name in enumerate(names, 1)}  # the lower quartile of two
    assert table.timings["device-c1.00"] == Timing(
        head_s=at["device-c1.00"], encode_s=0.0, decode_s=0.0, tail_s=0.0, finish_s=0.0
    )
    assert table.timings["p1-c0.50-r1.00-b2-i8"] == Timing(
        head_s=at["head-p1-c0.50-i8"], encode_s=at[CODEC[0]], decode_s=at[CODEC[1]], tail_s=at["tail-p1"],
        finish_s=at["finish-p1-c0.50-i8"],
    )  # fmt: skip
    assert table.timings["p0-jpeg-q50-24px"].head_s == 0.0
    assert table.timings["p0-jpeg-q50-24px"].finish_s == at["device-c0.25-i8"]
    assert (table.engine, table.threads, table.loop_s) == ("onnxruntime", 3, 0.002)
    assert (table.provenance.kind, table.provenance.n) == ("measured", 2)
    assert table.provenance.spread["loop"] == "all of it"
    assert table.provenance.spread["timed"] == len(names)
    assert PROFILE.with_device("mine", table).devices["mine"] == table


def test_every_piece_is_in_one_turn(cnn: Cnn) -> None:
    """The head of 8 bits is left out: the small CNN was exported without it."""
    profile = only(PROFILE, [p.id for p in PROFILE.points if p.precision != INT8 and p.resolution is None])
    turns = [set(turn()) for turn in turns_of(cnn, profile, 1)]
    assert turns == [
        {"device-c0.25"}, {"device-c1.00"}, {"tail-p0"}, {"tail-p1"}, {"head-p1-c0.50", "finish-p1-c0.50", *CODEC},
        {"encode p0-jpeg-q50", "decode p0-jpeg-q50"},
    ]  # fmt: skip


def test_streams_are_timed_on_a_moving_camera(cnn: Cnn) -> None:
    pytest.importorskip("av", reason="the extra `video` is not installed")
    stream = StreamBytes(by_age=(9.0,) * 6, key=90.0)
    cut, picture, whole = (PROFILE.point(i) for i in ("p1-c0.50-r1.00-b2", "p0-jpeg-q50", "device-c0.25"))
    memory = replace(cut, id=f"{cut.id}-s", stream=stream)
    video = replace(picture, id="p0-h264-q30", codec="h264", bits=30, stream=stream)
    assert pieces_of(memory) == Pieces("head-p1-c0.50", *(f"{c}-s" for c in CODEC), "tail-p1", "finish-p1-c0.50")
    tables = {(1, 2): change_tables_of(cnn.codec.cuts[1], 2)}
    cnn = replace(cnn, codec=replace(cnn.codec, changes=tables))
    profile = replace(PROFILE, points=(cut, memory, video, whole), devices={})
    *_, cuts, videos = (turn() for turn in turns_of(cnn, profile, 1))
    assert set(cuts) == {"head-p1-c0.50", "finish-p1-c0.50", *CODEC, *(f"{c}-s" for c in CODEC)}
    assert set(videos) == {"encode p0-h264-q30", "decode p0-h264-q30"}
    work: dict[str, Any] = {**cuts, **videos}
    for _ in range(FRAMES + 2):  # once around the film
        assert 0 < len(work[f"{CODEC[0]}-s"]()) < 1000
        assert 0 < len(work["encode p0-h264-q30"]()) < 1000
        assert work[f"{CODEC[1]}-s"]().shape == (*cnn.codec.low[1].shape[1:], 8, 8)
        assert work["decode p0-h264-q30"]().shape == (1, 3, 32, 32)


def test_turns_alternate_and_are_opened_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))
    seen: list[str] = []

    def turn(name: str) -> Work:
        seen.append(f"open {name}")
        return {name: lambda: seen.append(name)}

    found = time_turns([lambda: turn("a"), lambda: turn("b")], rounds=2, runs=1, tick=lambda: seen.append("tick"))
    one_round = ["open a", *4 * ["a"], "tick", "open b", *4 * ["b"], "tick"]
    assert seen == 2 * one_round
    assert found == {name: Measurement((1.0, 1.0), 1) for name in "ab"}


@pytest.mark.parametrize(("stop", "kept"), [(3, 1), (4, 1), (5, 2), (6, 2), (7, 3)])
def test_a_stop_keeps_whole_rounds(stop: int, kept: int) -> None:
    """Two turns a round; the stop comes in the turn of that number."""
    taken = []

    def turn() -> Work:
        taken.append(1)
        if len(taken) == stop:
            raise KeyboardInterrupt
        return {f"piece {len(taken) % 2}": lambda: None}

    found = time_turns([turn, turn], rounds=3, runs=2)
    assert [len(m.rounds_s) for m in found.values()] == [kept, kept]


def test_a_stop_in_the_first_round_keeps_nothing() -> None:
    def turn() -> Work:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        time_turns([turn], rounds=3, runs=2)


def test_points_keep_what_finishes_them() -> None:
    profile = synthetic_profile()
    assert [p.id for p in only(profile, ["cut1-w50-b4", "jpeg50"]).points] == ["jpeg50", "cut1-w50-b4", "device-w50"]
    assert only(profile, ["jpeg50"]).devices.keys() == profile.devices.keys()
    three = only(three_tier_profile(), ["jpeg95", "cut2-w100-b2"])
    assert three.chains is not None
    assert [(pair.first, pair.second) for pair in three.chains.chains] == [("jpeg95", "cut2-w100-b2")]
    assert only(three_tier_profile(), ["jpeg95"]).chains is None
    with pytest.raises(ProfileError, match="no operating point 'jpeg51'"):
        only(profile, ["jpeg51"])
    assert DEVICE in machine.only(profile, ["jpeg50"]).devices


def test_a_point_is_one_kind() -> None:
    """A whole net sends nothing: its only piece is the net."""
    point: OperatingPoint = PROFILE.point("device-c1.00")
    assert pieces_of(point).models == ("device-c1.00",)

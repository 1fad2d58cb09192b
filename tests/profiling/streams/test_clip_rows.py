"""Streams on clips through the real codecs, on an untrained CNN: bytes by age, comparisons, points of a profile."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.compression.tables import change_tables_of
from tidesplit.compression.codec.knobs import Knobs
from tidesplit.compression.codec.pixels import natural_picture, to_input
from tidesplit.compression.net.system import SplitNet
from tidesplit.data.files import PROFILES
from tidesplit.models.registry import build
from tidesplit.models.weights import save_weights
from tidesplit.profiling.__main__ import main
from tidesplit.profiling.measuring.trained import load_trained
from tidesplit.profiling.points import profile as profiles
from tidesplit.profiling.points.profile import AGES, Provenance
from tidesplit.profiling.streams.clip_counts import COMPARED, ClipCounts, comparable
from tidesplit.profiling.streams.clip_nets import ClipHeads, answers
from tidesplit.profiling.streams.clip_rows import UNCUT, measure_streams, stream_ids
from tidesplit.profiling.streams.clip_source import ClipSource, source_of
from tidesplit.profiling.streams.stream_points import with_streams, with_streams_of

pytest.importorskip("av", reason="the extra `video` is not installed")

NAME, VIDEO, CUT = "cifar_resnet", "p0-h264-q30", "p2-c0.50-r1.00-b2"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    save_weights(path, SplitNet(build(NAME, 2)), {"classes": json.dumps(["ant", "bee"])})
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for label in ("ant", "bee"):
        (folder / label).mkdir()
        for k in range(3):
            Image.fromarray(natural_picture(48, seed=k + 9 * len(label))).save(folder / label / f"{k}.png")
    return folder


def test_a_stream_is_measured_with_what_it_is_compared_with(weights: Path, images: Path, tmp_path: Path) -> None:
    source, kept = source_of("handheld", images, 5), tmp_path / "part.jsonl"
    rows = measure_streams(NAME, source, [VIDEO, CUT], kept, 1, weights=weights)
    assert [row["id"] for row in rows] == [UNCUT, COMPARED, CUT, VIDEO]
    for row in rows:
        assert (row["clips"], row["measure"], row["n_clips"], row["n"]) == ("handheld", "accuracy", 5, 20)
        assert row["share_ci95"][0] <= row["share"] <= row["share_ci95"][1]
    video = rows[-1]
    assert video["against"] == COMPARED
    assert len(video["bytes_by_age"]) == len(AGES)
    assert video["bytes_mean"] == video["bytes_by_age"][0] < video["bytes_by_age"][-1] < video["bytes_key"]
    assert video["lost"] == pytest.approx(rows[1]["share"] - video["share"])
    lines = kept.read_text().count("\n")
    assert measure_streams(NAME, source, [VIDEO, CUT], kept, 1, weights=weights) == rows
    assert kept.read_text().count("\n") == lines  # nothing was measured again


def test_without_fitting_labels_answers_are_compared_with_the_uncut_nets(weights: Path, tmp_path: Path) -> None:
    for k in range(20):
        (tmp_path / "door").mkdir(exist_ok=True)
        Image.fromarray(natural_picture(60)[k : k + 40, k : k + 40]).save(tmp_path / "door" / f"{k}.png")
    rows = measure_streams(NAME, source_of(str(tmp_path), None, 0), [VIDEO], tmp_path / "x.jsonl", 1, weights=weights)
    uncut, _, video = rows
    assert (uncut["measure"], uncut["share"], uncut["n"]) == ("agreement", 1.0, 2)
    assert video["bytes_by_age"][5] is None  # the clip has no frame that is 32 after another
    with pytest.raises(ValueError, match="agreement is no accuracy"):
        with_streams(profiles.load(NAME), rows, {}, Provenance(kind="measured", source="here"))


def test_long_clips_are_measured_in_parts(tmp_path: Path) -> None:
    (tmp_path / "door").mkdir()
    for k in range(150):
        Image.new("RGB", (4, 4), (k, k, k)).save(tmp_path / "door" / f"{k}.png")
    clips = ClipSource(tmp_path).clips(32)
    assert [(clip.name, clip.length) for clip in clips] == [("door@0", 65), ("door@65", 65), ("door@130", 20)]
    assert [int(frame[0, 0, 0]) for frame in clips[1].frames()] == list(range(65, 130))


def test_intervals_count_clips_not_frames() -> None:
    """Forty frames of ten clips, whose answers are all alike within a clip, say as much as ten frames."""
    counts = ClipCounts(
        [[4, 4 * (k % 2), 4, 2] for k in range(10)], {"1": [2.0, 300.0, 50_000.0], "key": [1.0, 900.0, 0.0]}
    )
    row = counts.row(VIDEO, "vehicle", "accuracy")
    assert row["share"] == 0.5
    assert (row["lost"], row["below_uncut"]) == (0.5, 0.0)
    half = 1.96 * 0.5 / np.sqrt(9)
    assert row["lost_ci95"] == pytest.approx([0.5 - half, 0.5 + half])
    assert row["share_ci95"] == pytest.approx([0.5 - half, 0.5 + half])
    assert row["below_uncut_ci95"] == pytest.approx([-half, half])
    assert (row["bytes_mean"], row["bytes_std"], row["bytes_key"]) == (150.0, 50.0, 900.0)
    same = ClipCounts([[4, 4, 4, 4]] * 10, {"1": [1.0, 1.0, 1.0], "key": [1.0, 1.0, 1.0]}).row(
        VIDEO, "vehicle", "accuracy"
    )
    assert same["below_uncut"] == 0.0
    assert same["below_uncut_ci95"] == pytest.approx([-0.278, 0.278], abs=1e-3)  # Wilson's, of none in ten
    assert same["share_ci95"][0] < 0.75  # all right in ten clips: not certain


def test_heads_and_tails_are_the_deployed_ones(weights: Path) -> None:
    system = load_trained(NAME, weights).system.eval()
    frames = [natural_picture(32, seed=k) for k in range(2)]
    knobs = Knobs(2, 0.5, 1.0, 2)
    values = ClipHeads(NAME, weights, frames, [1]).of(knobs, "float32")(1)
    with torch.inference_mode():
        _, y, score = system.head(torch.from_numpy(to_input(frames[1])), 2, 0.5)
        expected = system.offload(torch.from_numpy(to_input(frames[0]))).argmax(1)
    assert np.allclose(values.y, y[0].numpy(), atol=1e-4)
    assert np.allclose(values.score, score[0, 0].numpy(), atol=1e-4)
    assert (answers(NAME, weights, 0, frames[:1]) == expected.numpy()).all()


def test_a_streams_accuracy_is_that_of_stills_less_its_loss() -> None:
    profile = profiles.load(NAME)
    base = profile.point(COMPARED)
    row = {
        "id": VIDEO, "against": COMPARED, "clips": "vehicle", "measure": "accuracy", "n": 800, "lost": 0.02,
        "lost_ci95": [0.01, 0.03], "bytes_by_age": [50.0, 60.0, 70.0, 80.0, 90.0, 95.0], "bytes_key": 400.0,
        "bytes_std": 9.0,
    }  # fmt: skip
    times = {COMPARED: (1e-4, 2e-4), VIDEO: (3e-4, 1e-4)}
    origin = Provenance(kind="measured", source="here", n=800)
    made = with_streams(profile, [{"id": UNCUT}, row], times, origin)
    point = made.point(VIDEO)
    assert (point.codec, point.bits, point.resolution, point.n) == ("h264", 30, None, 800)
    assert point.accuracy == pytest.approx(base.accuracy - 0.02)
    assert point.accuracy - point.accuracy_ci95[0] >= 0.01
    assert (point.bytes_mean, point.stream.key if point.stream else 0) == (50.0, 400.0)
    for table in made.devices.values():
        assert table.timings[VIDEO].encode_s == pytest.approx(3 * table.timings[COMPARED].encode_s)
        assert table.timings[VIDEO].decode_s == pytest.approx(table.timings[COMPARED].decode_s / 2)
        assert table.timings[VIDEO].tail_s == table.timings[COMPARED].tail_s
    assert profiles.from_json(profiles.to_json(made)) == made
    again = with_streams(made, [{**row, "lost": 0.04}], times, origin)
    assert len(again.points) == len(made.points)


def test_points_of_one_stream_share_their_loss_and_never_gain() -> None:
    profile = profiles.load(NAME)
    origin = Provenance(kind="measured", source="here", n=800)
    shape = {
        "clips": "vehicle", "measure": "accuracy", "n": 800, "lost_ci95": [0.0, 0.0], "bytes_by_age": [50.0] * 6,
        "bytes_key": 400.0, "bytes_std": 9.0,
    }  # fmt: skip
    cuts = [f"p{partition}-c{ratio}-r1.00-b2" for partition in (1, 2) for ratio in ("0.50", "1.00")]
    losses = (0.03, -0.01, -0.03, 0.01)  # .01 and -.01 in the mean
    rows = [{**shape, "id": f"{i}-s", "against": i, "lost": lost} for i, lost in zip(cuts, losses, strict=True)]
    times = {i: (1e-4, 1e-4) for cut in cuts for i in (cut, f"{cut}-s")}
    made = with_streams(profile, rows, times, origin)
    lost = [profile.point(i).accuracy - made.point(f"{i}-s").accuracy for i in cuts]
    assert lost == pytest.approx([0.01, 0.01, 0.0, 0.0])


def test_stills_measured_again_keep_the_streams() -> None:
    """The uncut picture is 0.02 better than before, and so is the video that is compared with it."""
    before = profiles.load("efficientnet_lite0")
    stills = tuple(
        replace(p, accuracy=p.accuracy + 0.02) if p.id == COMPARED else p for p in before.points if p.stream is None
    )
    found = with_streams_of(before, replace(before, points=stills, stream_provenance=None))
    assert {p.id for p in found.points} == {p.id for p in before.points}
    assert found.stream_provenance == before.stream_provenance
    assert found.point(VIDEO).accuracy == pytest.approx(before.point(VIDEO).accuracy + 0.02)
    memory = next(p for p in before.points if p.stream is not None and p.partition > 0)
    assert found.point(memory.id) == memory
    fewer = replace(before, points=tuple(p for p in stills if p.id not in (COMPARED, comparable(memory.id))))
    left = {p.id for p in with_streams_of(before, fewer).points}
    assert not left & {VIDEO, memory.id}
    others = replace(before, points=stills, cnn={**before.cnn, "weights_sha256": "other"})
    assert with_streams_of(before, others) is others


def test_what_a_stream_is_compared_with() -> None:
    assert comparable(VIDEO) == COMPARED
    assert comparable(f"{CUT}-i8-s") == f"{CUT}-i8"
    assert comparable(CUT) == CUT
    assert all(comparable(i) != i for i in stream_ids(load_trained(NAME)))


def test_the_command_writes_rows_and_points(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The stills are then measured again, which keeps the stream."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.json").write_bytes((PROFILES / f"{NAME}.json").read_bytes())
    names = sorted(json.loads(json.dumps(load_trained(NAME).classes)))
    for old, new in zip(("ant", "bee"), names, strict=False):
        (tmp_path / "pictures").mkdir(exist_ok=True)
        (tmp_path / "pictures" / new).symlink_to(images / old)
    words = ["accuracy", "--profile", NAME, "--json", "rows.json", "--jobs", "1", "--limit", "2", "--points", VIDEO]
    stream = ["--stream", "static", "--images", "pictures", "--write-profile", "--file", "own.json"]
    assert main([*words, *stream]) == 0
    assert [row["id"] for row in json.loads(Path("rows.json").read_text())] == [UNCUT, COMPARED, VIDEO]
    written = profiles.load("own.json")
    assert written.point(VIDEO).stream is not None
    assert written.stream_provenance is not None
    again = ["--limit", "1", "--points", f"{COMPARED},device-c0.25", "--dataset", "others"]
    assert main([*words, *again, "--images", "pictures", "--write-profile", "--file", "own.json"]) == 0
    assert "1 of the profile's 1 points of streams are kept" in capsys.readouterr().out
    kept = profiles.load("own.json")
    assert (kept.cnn["dataset"], kept.point(VIDEO).stream) == ("others", written.point(VIDEO).stream)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--stream", "static"], "name their folder with --images"),
        (["--stream", "nowhere"], "a folder of clips or one of"),
        (["--stream", "static", "--images", ".", "--points", "p0-h264-q99"], "no operating point 'p0-h264-q99'"),
        ([], "--images DIR expected"),
    ],
)
def test_a_users_mistake_gets_a_sentence(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["accuracy", "--profile", NAME, "--json", "x.json", *words]) == 2
    assert sentence in capsys.readouterr().err


def test_a_cut_with_memory_is_measured_against_the_same_without(
    weights: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = load_trained(NAME, weights).codec.wire
    tables = {(2, 2): change_tables_of(wire.cuts[2], 2)}
    monkeypatch.setattr(load_trained(NAME, weights).codec, "wire", replace(wire, changes=tables))
    assert f"{CUT}-s" in stream_ids(load_trained(NAME, weights))
    source = source_of("static", images, 2)
    _, without, memory = measure_streams(NAME, source, [f"{CUT}-s"], tmp_path / "x.jsonl", 1, weights=weights)
    assert (without["id"], memory["against"]) == (CUT, CUT)
    assert all(0 < size <= memory["bytes_key"] + 8 for size in memory["bytes_by_age"])
    with pytest.raises(ValueError, match="no operating point 'p1-c0"):
        measure_streams(NAME, source, ["p1-c0.50-r1.00-b2-s"], tmp_path / "x.jsonl", 1, weights=weights)

"""The profile file: a round trip keeps everything, and every mistake is answered with one sentence."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.profiles import DEVICE, INVENTED, SERVER, stream_profile, synthetic_profile
from tidesplit.profiling.points import profile as profiles
from tidesplit.profiling.points.profile import (
    DeviceTable,
    ProfileError,
    StreamBytes,
    Timing,
    from_json,
    load,
    save,
    to_json,
)

Document = dict[str, Any]


def document() -> Document:
    return json.loads(json.dumps(to_json(synthetic_profile())))


def test_round_trip_through_a_file(tmp_path: Path) -> None:
    profile, path = synthetic_profile(), tmp_path / "p.json"
    save(profile, path)
    assert load(path) == profile
    assert load(str(path)).sha256() == profile.sha256()
    assert [file.name for file in tmp_path.iterdir()] == ["p.json"]


def test_a_stream_is_read_as_written() -> None:
    changed = document()
    changed["points"][2]["stream"] = dict(STREAM)
    changed["stream_provenance"] = {"kind": "measured", "source": "clips", "n": 8}
    profile = from_json(changed)
    assert profile.points[2].stream == StreamBytes(by_age=tuple(STREAM["by_age"]), key=450.0)
    assert from_json(to_json(profile)) == profile


def test_points_without_video() -> None:
    streams = stream_profile()
    gone = {p.id for p in streams.points} - {p.id for p in streams.without_video().points}
    assert gone == {"p0-h264-q34"}
    assert from_json(to_json(streams.without_video())).points == streams.without_video().points


def test_hash_is_of_the_content_not_of_its_layout() -> None:
    profile = synthetic_profile()
    turned = {**document(), "devices": dict(reversed(document()["devices"].items()))}
    assert list(turned["devices"]) != list(profile.devices)
    assert from_json(turned).sha256() == profile.sha256()
    assert profile.with_device("other", profile.devices[DEVICE]).sha256() != profile.sha256()


def test_bundled_profiles_are_found_by_their_bare_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "PROFILES", tmp_path)
    save(synthetic_profile(), tmp_path / "ours.json")
    assert load("ours") == load("ours.json") == synthetic_profile()
    with pytest.raises(ProfileError, match=r"profile 'theirs' is neither a file nor bundled \(bundled: ours\)"):
        load("theirs")


def test_a_machine_is_added_or_replaced() -> None:
    profile = synthetic_profile()
    second = Timing(head_s=1.0, encode_s=1.0, decode_s=1.0, tail_s=1.0, finish_s=1.0)
    table = DeviceTable(provenance=INVENTED, timings={p.id: second for p in profile.points})
    more = profile.with_device("laptop", table)
    assert set(more.devices) == {DEVICE, SERVER, "laptop"}
    assert set(profile.devices) == {DEVICE, SERVER}
    assert more.with_device(DEVICE, table).devices[DEVICE] == table


def test_point_by_its_id() -> None:
    assert synthetic_profile().point("jpeg50").bits == 50
    with pytest.raises(ProfileError, match="profile synthetic: no operating point 'jpeg51'"):
        synthetic_profile().point("jpeg51")


def of_point(row: int, **change: Any) -> Callable[[Document], None]:
    """Rows: 0 is jpeg95, 2 is cut1-w100-b8, 7 is device-w100."""
    return lambda d: d["points"][row].update(change)


def of_timing(value: float) -> Callable[[Document], None]:
    return lambda d: d["devices"][DEVICE]["timings"]["jpeg50"].update(head_s=value)


STREAM: Document = {"by_age": [100.0, 110.0, 120.0, 140.0, 170.0, 200.0], "key": 450.0}

# mistake -> (how it is made, sentence)
MISTAKES: dict[str, tuple[Callable[[Document], Any], str]] = {
    "format": (lambda d: d.update(format="x"), 'f: expected a JSON object with "format": "tidesplit-profile"'),
    "version": (lambda d: d.update(version=4), r"f: version 4 received, one of \(1, 2, 3\) expected"),
    "missing key": (lambda d: d.pop("points"), "f: the key 'points' is missing"),
    "missing interval": (lambda d: d["points"][0].pop("accuracy_ci95"), "f: the key 'accuracy_ci95' is missing"),
    "missing field": (lambda d: d["points"][0].pop("n"), "f: .*missing 1 required keyword-only argument: 'n'"),
    "unknown field": (of_point(0, colour="red"), "f: .*unexpected keyword argument 'colour'"),
    "devices a list": (lambda d: d.update(devices=[]), "f: 'list' object has no attribute 'items'"),
    "no points": (lambda d: d.update(points=[]), "f: profile synthetic: it has no operating points"),
    "twice": (of_point(1, id="jpeg95"), "f: profile synthetic: operating point 'jpeg95' appears twice"),
    "codec": (of_point(0, codec="gif"), "f: operating point 'jpeg95': codec 'gif' received, one of .* expected"),
    "partition": (of_point(0, partition=4), "'jpeg95': partition 4 received, 0 to 3 expected"),
    "image after a cut": (of_point(0, partition=1), "'jpeg95': image and video codecs belong to partition 0 only"),
    "feature at 0": (of_point(2, partition=0), "'cut1-w100-b8': image and video codecs belong to partition 0 only"),
    "nothing at a cut": (of_point(2, codec="none"), "'cut1-w100-b8': codec 'none' belongs to the last partition only"),
    "no channels": (of_point(2, channel_ratio=0.0), r"channel_ratio 0.0 received, in \(0, 1\] expected"),
    "too many regions": (of_point(2, region_ratio=1.5), r"region_ratio 1.5 received, in \(0, 1\] expected"),
    "percent": (of_point(2, accuracy=91.5), "'cut1-w100-b8': accuracy 91.5 received, 0 to 1 expected"),
    "accuracy not a number": (of_point(2, accuracy=float("nan")), "accuracy nan received"),
    "endless work": (of_point(2, head_macs=float("inf")), "finite bytes and macs expected, none negative"),
    "negative spread": (of_point(2, bytes_std=-1.0), "finite bytes and macs expected, none negative"),
    "no bytes": (of_point(2, bytes_mean=0.0), "0.0 bytes do not fit codec 'feature'"),
    "bytes of nothing": (of_point(7, bytes_mean=1.0), "1.0 bytes do not fit codec 'none'"),
    "fallback": (of_point(2, fallback="x"), "'cut1-w100-b8': its fallback 'x' is no operating point"),
    "video without ages": (of_point(0, codec="h264"), "'jpeg95': no bytes by age received, expected of h264"),
    "stream of pictures": (of_point(0, stream=dict(STREAM)), "'jpeg95': a stream of codec 'jpeg' received"),
    "few ages": (of_point(2, stream={"by_age": [1.0], "key": 9.0}), "bytes for 6 ages and of a key expected"),
    "no key": (of_point(2, stream={**STREAM, "key": 0.0}), "bytes for 6 ages and of a key expected, all above 0"),
    "no timing": (
        lambda d: d["devices"][DEVICE]["timings"].pop("jpeg50"),
        "f: device 'raspberry-pi-4': no timing of operating point 'jpeg50'",
    ),
    "negative timing": (of_timing(-1.0), "'raspberry-pi-4', 'jpeg50': head_s -1.0 received, seconds expected"),
    "endless timing": (of_timing(float("inf")), "head_s inf received, seconds expected"),
    "provenance": (
        lambda d: d["accuracy_provenance"].update(kind="guessed"),
        "f: provenance 'guessed' received, 'measured' or 'estimated' expected",
    ),
    "device's provenance": (
        lambda d: d["devices"][SERVER]["provenance"].update(kind=""),
        "f: provenance '' received, 'measured' or 'estimated' expected",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_every_mistake_is_one_sentence(mistake: tuple[Callable[[Document], Any], str]) -> None:
    make, sentence = mistake
    wrong = copy.deepcopy(document())
    make(wrong)
    with pytest.raises(ProfileError, match=sentence) as caught:
        from_json(wrong, where="f")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", [None, [], "text", {}, {"format": 1}])
def test_what_is_no_profile_at_all(wrong: Any) -> None:
    with pytest.raises(ProfileError, match="profile: expected a JSON object"):
        from_json(wrong)


@pytest.mark.parametrize("raw", [b"not json", b"", b"\xff\xfe{", b'{"a": 1'])
def test_files_that_are_not_json(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "p.json"
    path.write_bytes(raw)
    with pytest.raises(ProfileError, match=r"p\.json: not a JSON file"):
        load(path)

"""The engine: models and encoders have run once before the first frame."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from tests.runtime.deployed import CUT_STREAM, VIDEO_STREAM, points, points_of_streams, with_memory
from tidesplit.compression.codec import video
from tidesplit.compression.codec.pixels import natural_picture
from tidesplit.compression.codec.video import VideoDecoder
from tidesplit.runtime.cnn import Cnn, CnnError
from tidesplit.runtime.device import engine as engines
from tidesplit.runtime.device.engine import Engine


def test_every_model_and_encoder_runs_once_when_it_is_loaded(cnn: Cnn, monkeypatch: pytest.MonkeyPatch) -> None:
    run, encoded, models = Engine._run, [], Counter[str]()
    encode_image = engines.encode_image

    def counted(self: Engine, name: str, x: Any) -> list[Any]:
        models[name] += 1
        return run(self, name, x)

    def noted(pixels: Any, codec: Any, quality: int, px: int | None) -> bytes:
        encoded.append((codec, quality))
        return encode_image(pixels, codec, quality, px)

    monkeypatch.setattr(Engine, "_run", counted)
    monkeypatch.setattr(engines, "encode_image", noted)
    engine = Engine(cnn, points(cnn.partitions)[0].points)
    assert models == dict.fromkeys(engine._sessions, 1)
    assert encoded == [("jpeg", 50)]


def test_a_point_gives_a_payload_or_logits_and_the_input_of_its_finish(cnn: Cnn) -> None:
    engine = Engine(cnn, points(cnn.partitions)[0].points)
    pixels = np.full((cnn.input_px, cnn.input_px, 3), 99, np.uint8)
    offload, cut, local = (engine.head(point.id, pixels) for point in engine.points)
    assert offload.payload
    assert cut.payload
    assert local.payload is None
    assert local.logits is not None
    assert local.logits.shape == (len(cnn.classes),)
    assert engine.finish("p0-jpeg-q50", offload.feature) == pytest.approx(local.logits, abs=1e-5)
    assert engine.finish("p1-c0.50-r1.00-b2", cut.feature).shape == local.logits.shape


def test_payloads_of_streams_are_relative_to_the_last_ones(cnn: Cnn) -> None:
    """A receiver that holds only those decodes them, so nothing of the first runs is left."""
    cnn = with_memory(cnn)
    engine, pixels = Engine(cnn, points_of_streams(cnn.partitions)[0].points), natural_picture(cnn.input_px)
    decoder, memory = VideoDecoder("h264", cnn.input_px), None
    for k in (0, 1, 2, 5):
        shifted = np.roll(pixels, k, axis=1)
        cut, picture = (engine.head(name, shifted, key=k == 0).payload for name in (CUT_STREAM, VIDEO_STREAM))
        assert cut is not None
        assert picture is not None
        _, _, memory = cnn.codec.decode_next(cut, memory)
        assert decoder.decode(picture).shape == pixels.shape
    assert cnn.codec.decode(engine.head(CUT_STREAM, pixels).payload or b"")[1].partition == 1, "by default a key"


def test_a_device_without_pyav_says_so(cnn: Cnn, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ModuleNotFoundError("video offload needs PyAV: pip install 'tidesplit[video]'", name="av")

    monkeypatch.setattr(video, "_av", missing)
    with pytest.raises(CnnError, match=r"p0-h264-q34: video offload needs PyAV: pip install 'tidesplit\[video\]'"):
        Engine(with_memory(cnn), points_of_streams(cnn.partitions)[0].points)

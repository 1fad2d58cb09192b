"""A bigger net on the server answers the pictures, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tests.prepare.small_net import CLASSES, small_net
from tidesplit.compression.codec.image_codec import encode_image, seen_by_server
from tidesplit.compression.codec.pixels import load_square, natural_picture, to_input
from tidesplit.prepare.__main__ import main
from tidesplit.prepare.cut_net import ServerNet
from tidesplit.prepare.result.judged import IMAGE_POINTS
from tidesplit.prepare.source.picture_net import PictureNet
from tidesplit.prepare.source.preprocessing import PRESETS
from tidesplit.profiling.measuring.trained import smaller
from tidesplit.profiling.points import profile as profiles
from tidesplit.runtime.cnn import load_cnn
from tidesplit.runtime.timing.work import check_models

PX, OWN_PX = 32, 48


def bigger() -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(
        nn.Conv2d(3, 48, 3, 2, 1), nn.ReLU(), nn.Conv2d(48, 64, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(64, CLASSES),
    )  # fmt: skip


def with_an_uneven_pool() -> nn.Module:
    """Its pool takes windows of other sizes, which ONNX's do not."""
    torch.manual_seed(8)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d((5, 3)), nn.Flatten(), nn.Linear(120, CLASSES)
    )


def of_other_classes() -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, CLASSES + 1))


def prepare(pictures: Path, out: Path, net: str, *words: str) -> int:
    usual = ["--px", str(PX), "--steps", "2", "--batch", "8", "--rounds", "1", "--threads", "1", "--no-int8"]
    here = ["tests.prepare.small_net:small_net", "--pictures", str(pictures), "--out", str(out)]
    return main([*here, *usual, "--server-net", f"{__name__}:{net}", *words])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(36):
        Image.fromarray(natural_picture(40, seed=i)).save(folder / f"{i}.png")
    return folder


def test_the_server_has_its_net_for_pictures_and_the_device_keeps_its_own(pictures: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.json"
    own.write_text(f'{{"size": {OWN_PX}, "colours": "BGR"}}', encoding="utf-8")
    out = tmp_path / "made"
    assert prepare(pictures, out, "bigger", "--server-preprocess", str(own)) == 0
    cnn, profile = load_cnn(out / "cnn"), profiles.load(out)
    check_models(cnn, profile)
    pixels = load_square(next(pictures.rglob("*.png")), PX)
    x = torch.from_numpy(to_input(pixels))
    device = PictureNet(small_net(), PRESETS["imagenet"]).eval()
    scaled = nn.functional.interpolate(x, (OWN_PX, OWN_PX), mode="bilinear").flip(1)
    with torch.no_grad():
        for model, expected in (("tail-p0", bigger()(scaled)), ("device-c1.00", device(x))):
            found = cnn.session(model).run(None, {"x": x.numpy()})[0]
            np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)
    picture, uncut = profile.point("p0-jpeg-q95"), profile.point("device-c1.00")
    assert picture.tail_macs > uncut.head_macs
    assert profile.cnn["server_net"]["px"] == OWN_PX
    assert (profile.cnn["measure"], picture.accuracy) == ("agreement", 1.0)  # with the server's net
    assert "pictures are answered by" in (out / "card.md").read_text(encoding="utf-8")


def test_its_adaptive_pools_may_be_of_any_size(pictures: Path, tmp_path: Path) -> None:
    assert prepare(pictures, tmp_path / "made", "with_an_uneven_pool", "--judge", "16") == 0
    x, net = torch.rand(3, 3, PX, PX), PictureNet(with_an_uneven_pool(), PRESETS["imagenet"]).eval()
    found = load_cnn(tmp_path / "made" / "cnn").session("tail-p0").run(None, {"x": x.numpy()})[0]
    with torch.no_grad():
        np.testing.assert_allclose(found, net(x).numpy(), atol=1e-4)


def test_other_classes_are_refused(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(pictures, tmp_path / "made", "of_other_classes") == 2
    assert f"answers logits [1, {CLASSES + 1}], logits [1, {CLASSES}] expected as NET does" in capsys.readouterr().err


def test_pictures_of_its_own_size_are_not_scaled() -> None:
    net = ServerNet(nn.Identity(), PX, PX)
    x = torch.rand(1, 3, PX, PX)
    assert torch.equal(net(x), x)


def test_nets_that_are_too_large_are_refused_before_anything_is_trained(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidesplit.prepare.result.models_of_cut_net.LARGEST_BYTES", 60_000)
    assert prepare(pictures, tmp_path / "made", "bigger") == 2
    assert "server.onnx would take 0 MiB, at most 0 expected: the net is too large" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("px", [32, 64, 96, 128, 224, 320])
def test_every_picture_that_is_judged_has_a_side_that_a_server_takes(px: int) -> None:
    pixels = natural_picture(px)
    for point in smaller(IMAGE_POINTS, px):
        assert seen_by_server(encode_image(pixels, point.codec, point.quality, point.px), px).shape == pixels.shape

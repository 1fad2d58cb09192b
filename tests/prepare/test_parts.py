"""Pieces of the preparation as tables: cuts that are chosen, bottlenecks, batches, pictures, features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tests.nets import MobileNetV2, ResNet18
from tests.prepare.small_net import small_net
from tidesplit.compression.codec.pixels import natural_picture
from tidesplit.compression.net.bottleneck import Bottleneck
from tidesplit.prepare.chosen_cuts import choose, share_of, spec_of
from tidesplit.prepare.cut_net import FULL, CutNet
from tidesplit.prepare.feature_cache import LARGEST_BYTES, crops_of
from tidesplit.prepare.source.folder_pictures import read_folder
from tidesplit.prepare.source.picture_net import PictureNet
from tidesplit.prepare.source.preprocessing import PRESETS, PrepareError
from tidesplit.profiling.cuts.legal_cuts import Cut, find_cuts
from tidesplit.profiling.cuts.operations import trace


@pytest.mark.parametrize(
    ("net", "shapes"),
    [
        (ResNet18, [(64, 16), (128, 8), (256, 4), (512, 2)]),
        (MobileNetV2, [(24, 16), (32, 8), (64, 4), (96, 4), (160, 2)]),
    ],
)
def test_narrow_cuts_spread_over_the_compute(net: type[nn.Module], shapes: list[tuple[int, int]]) -> None:
    chosen = choose(find_cuts(trace(net(), torch.zeros(1, 3, 64, 64))), 64)
    assert len(chosen) == 4
    assert {cut.shape[1:3] for cut in chosen} <= set(shapes)
    shares = [share_of(cut) for cut in chosen]
    assert all(abs(share - wanted) <= 0.1 for share, wanted in zip(shares, (0.15, 0.3, 0.5, 0.75), strict=True))


def cut_of(channels: int, side: int) -> Cut:
    return Cut(1, "net", "conv", (1, channels, side, side), "float32", 0, 1, 1, 0, "x")


@pytest.mark.parametrize(
    ("channels", "side", "grid"), [(24, 56, 14), (32, 28, 14), (64, 14, 7), (96, 15, 8), (160, 7, 4), (8, 112, 14)]
)
def test_bottlenecks_give_the_feature_back(channels: int, side: int, grid: int) -> None:
    cut = cut_of(channels, side)
    bottleneck = Bottleneck(1, (channels, side, side), spec_of(cut, 224)).eval()
    assert (bottleneck.cut.height, bottleneck.cut.width) == (grid, grid)
    with torch.no_grad():
        y, score = bottleneck.encode(torch.randn(2, channels, side, side), FULL)
        assert y.shape[2:] == score.shape[2:] == (grid, grid)
        assert bottleneck.decode(y).shape == (2, channels, side, side)


class _MorePerPicture(nn.Module):
    """Runs its layer once for each picture of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.layer, self.last = nn.Conv2d(3, 3, 3, 2), nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        for _ in range(len(x)):
            y = self.layer(y)
        out: Tensor = self.last(y.mean((2, 3)))
        return out


def test_a_net_that_depends_on_the_batch_is_refused() -> None:
    net = PictureNet(_MorePerPicture(), PRESETS["lite"]).eval()
    traced = trace(net, torch.zeros(1, 3, 32, 32))
    cut = CutNet(net, traced, choose(find_cuts(traced), 32), 32)
    with pytest.raises(PrepareError, match="operations for a batch of 3 pictures"):
        cut.in_batches(3)


def test_large_features_are_kept_of_fewer_crops() -> None:
    assert crops_of([(8, 4, 4), (200, 112, 112)], 32, 1000) == [4096, LARGEST_BYTES // (2 * 200 * 112 * 112) // 32 * 32]
    assert crops_of([(8, 4, 4)], 32, 20) == [160]
    assert crops_of([(8, 4, 4)], 8, 1) == [8]
    assert crops_of([(8, 4, 4)], 8, 1000, LARGEST_BYTES // 64) == [16]


def test_a_damaged_picture_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(40):
        Image.fromarray(natural_picture(20, seed=i)).save(tmp_path / f"{i}.png")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    found = read_folder(tmp_path, 5)
    assert (len(found.fit), len(found.held), found.labels) == (24, 16, None)
    assert "1 of 41 pictures cannot be read and are left out: broken.jpg" in capsys.readouterr().err


def test_classes_by_name(tmp_path: Path) -> None:
    for name in ("b", "c"):
        (tmp_path / name).mkdir()
        for i in range(20):
            Image.fromarray(natural_picture(20, seed=i)).save(tmp_path / name / f"{i}.png")
    found = read_folder(tmp_path, 3, ["a", "b", "c"])
    assert found.classes == ("a", "b", "c")
    assert found.labels is not None
    assert [found.classes[i] for i in found.labels] == [path.parent.name for path in found.held]
    assert read_folder(tmp_path, 3).labels is None
    assert read_folder(tmp_path, 2).classes == ("b", "c")
    assert np.unique(found.to_judge(16).labels).tolist() == [1, 2]


def test_the_parts_are_the_net() -> None:
    net = PictureNet(small_net(), PRESETS["imagenet"]).eval()
    traced = trace(net, torch.zeros(1, 3, 32, 32))
    cut, x = CutNet(net, traced, choose(find_cuts(traced), 32), 32), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        feature = cut.parts[0](x)
        torch.testing.assert_close(cut.parts[1](feature), net(x), rtol=0, atol=0)

"""A net's own pre-processing as its first layer, against the arithmetic that its authors give."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tidesplit.compression.codec.pixels import natural_picture, to_input
from tidesplit.prepare.source.picture_net import PictureNet
from tidesplit.prepare.source.preprocessing import PRESETS, PrepareError, Preprocess, read_preprocess


class _Seen(nn.Module):
    """Gives what it is given."""

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("colours", ["RGB", "BGR"])
def test_the_net_sees_what_its_authors_meant(layout: str, colours: str) -> None:
    pixels = natural_picture(16)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = (pixels / 255.0 - mean) / std
    if colours == "BGR":
        expected = expected[..., ::-1]
    if layout == "NCHW":
        expected = expected.transpose(2, 0, 1)
    net = PictureNet(_Seen(), Preprocess(16, mean, std, colours, layout))
    seen = net(torch.from_numpy(to_input(pixels)))[0].numpy()
    np.testing.assert_allclose(seen, expected, atol=1e-5)


def test_lite_needs_no_layer() -> None:
    assert PictureNet(_Seen(), PRESETS["lite"]).plain
    assert not PictureNet(_Seen(), PRESETS["imagenet"]).plain


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"size": 8}, "size 8 received, 16 to 1024 pixels expected"),
        ({"std": (0.0, 1.0, 1.0)}, "values above 0 expected"),
        ({"colours": "GRB"}, "RGB or BGR expected"),
        ({"layout": "CHW"}, "NCHW or NHWC expected"),
        ({"crop": 0.1}, "crop 0.1 received, 0, or 0.3 to 1 expected"),
    ],
)
def test_wrong_values(wrong: dict[str, object], told: str) -> None:
    with pytest.raises(PrepareError, match=told):
        Preprocess(**wrong)  # type: ignore[arg-type]


def test_size_and_crop_of_the_command_line_win() -> None:
    found = read_preprocess("lite", 96, 0.875)
    assert (found.size, found.crop) == (96, 0.875)
    assert read_preprocess("imagenet") == PRESETS["imagenet"]

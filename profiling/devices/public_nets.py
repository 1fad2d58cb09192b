"""The work of public CNNs, counted layer by layer: those of which MLPerf has times on a Raspberry Pi 4.

Sources: Howard et al. 2017 (MobileNetV1), Sandler et al. 2018 (V2), Howard et al. 2019 (V3, tables 1 and 2),
EfficientNet-Lite's README, He et al. 2015 (ResNet-50). A *minimalistic* V3 has neither squeeze-and-excitation nor hard
swish nor 5x5 kernels.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from tidesplit.compression.codec.knobs import FLOAT32, INT8, Precision
from tidesplit.compression.net.cnn_work import CnnWork


class PublicNet(NamedTuple):
    """A CNN with its family, precision and work."""

    family: str
    precision: Precision
    work: CnnWork


def public_net(model: str) -> PublicNet | None:
    """The CNN that a name of MLPerf's rows stands for. None for a detector."""
    if model == "resnet50":
        return PublicNet("ResNet", FLOAT32, _resnet50())
    for pattern, make in _FAMILIES.items():
        if found := re.fullmatch(pattern, model):
            quantized = re.search("(?<!non-)quantized|uint8", model) is not None
            family, work = make(found)
            return PublicNet(family, INT8 if quantized else FLOAT32, work)
    return None


def _rounded(channels: float) -> int:
    """The nearest multiple of 8, and never less than 90 % of the number."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


class _Net:
    """Layers appended one after the other to a picture of `side` pixels."""

    def __init__(self, side: int) -> None:
        self.side, self.channels, self.macs, self.values = side, 3, 0, 0

    def conv(self, outputs: float, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        read, outputs = self.side**2 * self.channels, int(outputs)
        self.side = math.ceil(self.side / stride)
        written = self.side**2 * outputs
        self.macs += written * self.channels // groups * kernel**2
        self.values += read + written
        self.channels = outputs

    def depthwise(self, kernel: int, stride: int) -> None:
        self.conv(self.channels, kernel, stride, self.channels)

    def inverted(self, outputs: int, kernel: int, stride: int, inner: int, squeeze: bool = False) -> None:
        if inner != self.channels:
            self.conv(inner)
        self.depthwise(kernel, stride)
        if squeeze:  # two small layers on the means, then every value is read and written once more
            self.macs += 2 * inner * _rounded(inner / 4)
            self.values += 2 * self.side**2 * inner
        self.conv(outputs)

    def classified(self, *outputs: int) -> CnnWork:
        for number in outputs:
            self.macs += self.channels * number
            self.channels = number
        return CnnWork(self.macs, self.values)


def _mobilenet_v1(found: re.Match[str]) -> tuple[str, CnnWork]:
    width, net = float(found[1]), _Net(int(found[2]))
    net.conv(32 * width, 3, 2)
    for outputs, stride in _V1:
        net.depthwise(3, stride)
        net.conv(outputs * width)
    return "MobileNetV1", net.classified(1001)


def _mobilenet_v2(found: re.Match[str]) -> tuple[str, CnnWork]:
    width, net = float(found[1]), _Net(int(found[2]))
    net.conv(_rounded(32 * width), 3, 2)
    for expansion, outputs, repeats, first in _V2:
        for stride in [first, *[1] * (repeats - 1)]:
            net.inverted(_rounded(outputs * width), 3, stride, net.channels * expansion)
    net.conv(_rounded(1280 * max(1.0, width)))
    return "MobileNetV2", net.classified(1001)


def _mobilenet_v3(found: re.Match[str]) -> tuple[str, CnnWork]:
    rows, last, hidden = (_V3_LARGE, 960, 1280) if found[1] == "large" else (_V3_SMALL, 576, 1024)
    minimal, width, net = bool(found[2]), float(found[3]), _Net(224)
    net.conv(16, 3, 2)
    before = 16  # outputs of the row before at full width: the expansion stays, whatever the width
    for kernel, inner, outputs, squeeze, stride in rows:
        kernel, expanded = 3 if minimal else kernel, _rounded(net.channels * inner / before)
        net.inverted(_rounded(outputs * width), kernel, stride, expanded, squeeze and not minimal)
        before = outputs
    net.conv(_rounded(last * width))
    return "MobileNetV3", net.classified(hidden, 1001)


def _efficientnet_lite(found: re.Match[str]) -> tuple[str, CnnWork]:
    width, depth, side = _LITE[int(found[1])]
    net = _Net(side)
    net.conv(32, 3, 2)
    for row, (repeats, kernel, first, expansion, outputs) in enumerate(_LITE_BLOCKS):
        count = repeats if row in (0, len(_LITE_BLOCKS) - 1) else math.ceil(repeats * depth)
        for stride in [first, *[1] * (count - 1)]:
            net.inverted(_rounded(outputs * width), kernel, stride, net.channels * expansion)
    net.conv(1280)
    return "EfficientNet-Lite", net.classified(1000)


def _resnet50() -> CnnWork:
    net = _Net(224)
    net.conv(64, 7, 2)
    net.side = 56  # a pooling layer
    for inner, repeats, first in [(64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)]:
        shortcut = _Net(net.side)
        shortcut.channels = net.channels
        shortcut.conv(4 * inner, 1, first)
        for stride in [first, *[1] * (repeats - 1)]:
            net.conv(inner)
            net.conv(inner, 3, stride)
            net.conv(4 * inner)
        net.macs, net.values = net.macs + shortcut.macs, net.values + shortcut.values
    return net.classified(1001)


_FAMILIES = {
    r"mobilenet-v1-([\d.]+)-(\d+)-(?:non-)?quantized": _mobilenet_v1,
    r"mobilenet-v2-([\d.]+)-(\d+)-(?:non-)?quantized": _mobilenet_v2,
    r"mobilenet-v3-(large|small)(-minimalistic)?_224_([\d.]+)_(?:float|uint8)": _mobilenet_v3,
    r"efficientnet-lite(\d)-(?:non-)?quantized": _efficientnet_lite,
}
# Outputs, stride.
_V1 = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
# Expansion, outputs, repeats, first stride.
_V2 = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
# Kernel, inner channels, outputs, squeeze-and-excitation, stride.
_V3_LARGE = [
    (3, 16, 16, False, 1), (3, 64, 24, False, 2), (3, 72, 24, False, 1), (5, 72, 40, True, 2), (5, 120, 40, True, 1),
    (5, 120, 40, True, 1), (3, 240, 80, False, 2), (3, 200, 80, False, 1), (3, 184, 80, False, 1),
    (3, 184, 80, False, 1), (3, 480, 112, True, 1), (3, 672, 112, True, 1), (5, 672, 160, True, 2),
    (5, 960, 160, True, 1), (5, 960, 160, True, 1),
]  # fmt: skip
_V3_SMALL = [
    (3, 16, 16, True, 2), (3, 72, 24, False, 2), (3, 88, 24, False, 1), (5, 96, 40, True, 2), (5, 240, 40, True, 1),
    (5, 240, 40, True, 1), (5, 120, 48, True, 1), (5, 144, 48, True, 1), (5, 288, 96, True, 2), (5, 576, 96, True, 1),
    (5, 576, 96, True, 1),
]  # fmt: skip
_LITE = [(1.0, 1.0, 224), (1.0, 1.1, 240), (1.1, 1.2, 260), (1.2, 1.4, 280), (1.4, 1.8, 300)]  # width, depth, side
# Repeats, kernel, first stride, expansion, outputs. The first and the last row are never repeated more often.
_LITE_BLOCKS = [
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
]  # fmt: skip

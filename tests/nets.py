"""Well-known CNNs in their plain published form, compact, with random weights: inputs for tests of the cut finder."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


def conv_bn(
    c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1, act: type[nn.Module] = nn.ReLU
) -> nn.Sequential:
    """Convolution, batch norm, activation; the padding keeps the size at stride 1."""
    conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out), act())


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a skip (He et al., CVPR 2016)."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.relu = nn.ReLU(inplace=True)
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or c_in != c_out:
            self.skip = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        result: Tensor = self.relu(out + self.skip(x))
        return result


class ResNet18(nn.Module):
    """ResNet-18 for 224x224 pictures."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1))
        blocks: list[nn.Module] = []
        for c_in, c_out, stride in ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)):
            blocks += [BasicBlock(c_in, c_out, stride), BasicBlock(c_out, c_out, 1)]
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(torch.flatten(self.pool(self.blocks(self.stem(x))), 1))
        return out


class InvertedResidual(nn.Module):
    """Expand, depthwise, project; a skip where the shape allows (Sandler et al., CVPR 2018)."""

    def __init__(self, c_in: int, c_out: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = c_in * expand
        layers: list[nn.Module] = [] if expand == 1 else [conv_bn(c_in, hidden, 1, act=nn.ReLU6)]
        layers.append(conv_bn(hidden, hidden, 3, stride, groups=hidden, act=nn.ReLU6))
        layers += [nn.Conv2d(hidden, c_out, 1, bias=False), nn.BatchNorm2d(c_out)]
        self.body = nn.Sequential(*layers)
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return x + out if self.residual else out


class MobileNetV2(nn.Module):
    """MobileNetV2, width 1."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        plan = [
            (1, 16, 1, 1),
            (6, 24, 2, 2),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        ]
        layers: list[nn.Module] = [conv_bn(3, 32, 3, 2, act=nn.ReLU6)]
        channels = 32
        for expand, c_out, repeats, stride in plan:
            for index in range(repeats):
                layers.append(InvertedResidual(channels, c_out, stride if index == 0 else 1, expand))
                channels = c_out
        layers.append(conv_bn(channels, 1280, 1, act=nn.ReLU6))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return out


class SqueezeBlock(nn.Module):
    """Expand, depthwise, squeeze-and-excitation where asked for, project (Howard et al., ICCV 2019)."""

    def __init__(
        self, c_in: int, hidden: int, c_out: int, kernel: int, stride: int, squeeze: bool, act: type[nn.Module]
    ) -> None:
        super().__init__()
        expand = [conv_bn(c_in, hidden, 1, act=act)] if hidden != c_in else []
        self.body = nn.Sequential(*expand, conv_bn(hidden, hidden, kernel, stride, groups=hidden, act=act))
        inner = max(8, hidden // 32 * 8)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(hidden, inner, 1), nn.ReLU(inplace=True), nn.Conv2d(inner, hidden, 1),
            nn.Hardsigmoid(),
        ) if squeeze else None  # fmt: skip
        self.project = nn.Sequential(nn.Conv2d(hidden, c_out, 1, bias=False), nn.BatchNorm2d(c_out))
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        if self.gate is not None:
            y = y * self.gate(y)
        out: Tensor = self.project(y)
        return x + out if self.residual else out


class MobileNetV3Small(nn.Module):
    """MobileNetV3-small, width 1: squeeze-and-excitation and hard-swish."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        plan = [  # hidden, out, kernel, stride, squeeze, hard-swish
            (16, 16, 3, 2, True, False), (72, 24, 3, 2, False, False), (88, 24, 3, 1, False, False),
            (96, 40, 5, 2, True, True), (240, 40, 5, 1, True, True), (240, 40, 5, 1, True, True),
            (120, 48, 5, 1, True, True), (144, 48, 5, 1, True, True), (288, 96, 5, 2, True, True),
            (576, 96, 5, 1, True, True), (576, 96, 5, 1, True, True),
        ]  # fmt: skip
        layers: list[nn.Module] = [conv_bn(3, 16, 3, 2, act=nn.Hardswish)]
        channels = 16
        for hidden, c_out, kernel, stride, squeeze, swish in plan:
            act: type[nn.Module] = nn.Hardswish if swish else nn.ReLU
            layers.append(SqueezeBlock(channels, hidden, c_out, kernel, stride, squeeze, act))
            channels = c_out
        layers.append(conv_bn(channels, 576, 1, act=nn.Hardswish))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Linear(576, 1024), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(1024, classes))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return out


def vgg16(classes: int = 1000) -> nn.Sequential:
    """VGG16 without batch norm (Simonyan and Zisserman, ICLR 2015)."""
    layers: list[nn.Module] = []
    channels = 3
    for width, repeats in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(repeats):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        layers.append(nn.MaxPool2d(2))
    dense = _dense((512 * 49, 4096, 4096), classes)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(7), nn.Flatten(), *dense)


def alexnet(classes: int = 1000) -> nn.Sequential:
    """AlexNet in its one-tower form (Krizhevsky, arXiv:1404.5997)."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)]
    layers += [nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)]
    for c_in, c_out in ((192, 384), (384, 256), (256, 256)):
        layers += [nn.Conv2d(c_in, c_out, 3, padding=1), nn.ReLU(inplace=True)]
    layers += [nn.MaxPool2d(3, 2), nn.AdaptiveAvgPool2d(6), nn.Flatten()]
    return nn.Sequential(*layers, *_dense((256 * 36, 4096, 4096), classes))


def _dense(widths: Sequence[int], classes: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for c_in, c_out in pairwise(widths):
        layers += [nn.Linear(c_in, c_out), nn.ReLU(inplace=True), nn.Dropout()]
    return [*layers, nn.Linear(widths[-1], classes)]


class SkipDag(nn.Module):
    """Two skips that overlap: a tensor is alone only at the stem, between the two diamonds, and at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.left = nn.Conv2d(8, 8, 3, padding=1)
        self.right = nn.Conv2d(8, 8, 1)
        self.after = nn.Conv2d(16, 8, 1)
        self.last = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.stem(x))
        left, right = self.left(y), self.right(y)
        z = self.after(torch.cat([left, right + y], 1))
        out: Tensor = self.last(z).relu() * z
        return out


class NoCut(nn.Module):
    """The picture itself is needed until the last operation, so something always crosses beside the feature."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 3, 3, padding=1)
        self.two = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.two(self.one(x)) + x
        return out

"""The work of public CNNs against published multiply-accumulates."""

from __future__ import annotations

import math

import pytest

from tidesplit.compression.net.cnn_work import CnnWork
from tidesplit.models.efficientnet_lite0 import EfficientNetLite0
from tidesplit.profiling.devices.public_nets import public_net
from tidesplit.profiling.devices.raspberry_pi import values_of
from tidesplit.profiling.points.profile import load

# Millions, from the READMEs of tensorflow/models and tensorflow/tpu, and from torchvision (V3 small, ResNet-50).
PUBLISHED = {
    "mobilenet-v1-1.0-224-quantized": 569,
    "mobilenet-v1-0.75-160-non-quantized": 166,
    "mobilenet-v1-0.5-192-quantized": 110,
    "mobilenet-v1-0.25-128-non-quantized": 13.6,
    "mobilenet-v2-1.4-224-quantized": 582,
    "mobilenet-v2-1.0-224-non-quantized": 300,
    "mobilenet-v2-0.75-96-quantized": 39,
    "mobilenet-v2-0.35-128-quantized": 20,
    "mobilenet-v3-large_224_1.0_float": 217,
    "mobilenet-v3-large_224_0.75_float": 155,
    "mobilenet-v3-large-minimalistic_224_1.0_uint8": 209,
    "mobilenet-v3-small_224_1.0_uint8": 56.5,
    "mobilenet-v3-small_224_0.75_float": 44,
    "resnet50": 4089,
}


@pytest.mark.parametrize("model", PUBLISHED)
def test_macs_are_those_published(model: str) -> None:
    net = public_net(model)
    assert net is not None
    assert net.work.macs / 1e6 == pytest.approx(PUBLISHED[model], rel=0.02)


@pytest.mark.parametrize(("model", "published"), [(0, 407), (1, 631), (2, 899), (3, 1440), (4, 2640)])
def test_efficientnet_lite_counts_batch_norms_no_more(model: int, published: float) -> None:
    """Its README counts BatchNorms and activations too, which are 3 to 6 %."""
    net = public_net(f"efficientnet-lite{model}-quantized")
    assert net is not None
    assert 0.94 < net.work.macs / 1e6 / published < 0.97


@pytest.mark.parametrize(
    ("model", "family", "precision"),
    [
        ("efficientnet-lite0-non-quantized", "EfficientNet-Lite", "float32"),
        ("efficientnet-lite0-quantized", "EfficientNet-Lite", "int8"),
        ("mobilenet-v3-small_224_1.0_uint8", "MobileNetV3", "int8"),
        ("mobilenet-v1-0.5-160-quantized", "MobileNetV1", "int8"),
        ("resnet50", "ResNet", "float32"),
    ],
)
def test_names_say_family_and_precision(model: str, family: str, precision: str) -> None:
    net = public_net(model)
    assert net is not None
    assert (net.family, net.precision) == (family, precision)


def test_detectors_are_no_public_net() -> None:
    assert public_net("ssd-mobilenet-v1-edgetpu") is None


def test_our_own_cnn_has_the_work_of_the_public_one() -> None:
    """Two countings of EfficientNet-Lite0: by layers of the paper, and by the nodes of the deployed graph."""
    net = public_net("efficientnet-lite0-non-quantized")
    assert net is not None
    profile = load("efficientnet_lite0")
    values = values_of(profile)
    classes = 1280 * (1000 - EfficientNetLite0(101).classes)
    assert profile.point("device-c1.00").head_macs == net.work.macs - classes
    assert values[1.0] == net.work.values


def test_values_fall_less_with_the_width_than_macs() -> None:
    values = values_of(load("efficientnet_lite0"))
    assert sorted(values) == [0.25, 0.5, 0.75, 1.0]
    assert math.isclose(values[0.5] - values[0.25], values[1.0] - values[0.75])
    assert 0.3 < values[0.25] / values[1.0] < 0.35


def test_work_is_macs_and_values() -> None:
    assert CnnWork(3.0, 2.0) == (3.0, 2.0)

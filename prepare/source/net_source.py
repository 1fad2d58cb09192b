"""The user's net: `module:factory`, with weights from a file if asked for."""

from __future__ import annotations

import hashlib
import importlib
import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from tidesplit.prepare.source.preprocessing import PrepareError

WRAPPED = ("state_dict", "model_state_dict", "model", "net", "weights")
"""Names under which training programs keep the weights in a checkpoint."""


def load_net(name: str, weights: Path | None = None) -> nn.Module:
    """The net that a factory makes, in eval mode on the CPU. Modules of the working directory are found.

    Raises:
        PrepareError: no such factory, it makes no net, or the weights do not fit.
    """
    module, _, factory = name.partition(":")
    if not factory:
        raise PrepareError(f"{name!r} received, module:factory expected, such as nets:resnet18")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        made = getattr(importlib.import_module(module), factory)()
    except (ImportError, AttributeError) as error:
        raise PrepareError(f"{name}: {error}") from error
    except Exception as error:  # the factory is the user's own code
        raise PrepareError(f"{name}: the factory failed with {type(error).__name__}: {_line(error)}") from error
    if not isinstance(made, nn.Module):
        raise PrepareError(f"{name}: {type(made).__name__} received, a torch.nn.Module expected")
    net = made.cpu().eval().requires_grad_(False)
    if weights is not None:
        _fill(net, weights)
    return net


def _fill(net: nn.Module, path: Path) -> None:
    state = read_state(path)
    own = net.state_dict()
    wrong = [name for name, value in state.items() if name in own and own[name].shape != value.shape]
    if wrong:
        first = wrong[0]
        raise PrepareError(
            f"{path}: {first} has shape {tuple(state[first].shape)}, and the net's has {tuple(own[first].shape)}; "
            f"{len(wrong)} of {len(own)} differ (another number of classes?)"
        )
    missing, foreign = net.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or foreign:
        raise PrepareError(
            f"{path} does not fit the net: {len(missing)} of its weights are missing {missing[:2]}, "
            f"and {len(foreign)} are foreign {foreign[:2]}"
        )


def read_state(path: Path) -> dict[str, Tensor]:
    """Weights by name from a safetensors file, or from a torch file without running code from it.

    Raises:
        PrepareError: no such file, or one that is neither.
    """
    if not path.is_file():
        raise PrepareError(f"{path}: no such file, weights expected")
    try:
        found: Any = load_file(str(path)) if path.suffix == ".safetensors" else _torch_file(path)
    except (SafetensorError, RuntimeError, EOFError, OSError) as error:
        raise PrepareError(f"{path}: not a readable file of weights ({_line(error)})") from error
    for name in WRAPPED:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise PrepareError(f"{path}: {type(found).__name__} received, a state dict of tensors expected")
    return {str(name).removeprefix("module."): value for name, value in found.items()}


def _torch_file(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise PrepareError(
            f"{path}: it holds more than weights, and reading that could run its code; save net.state_dict() instead"
        ) from error


def hash_of(net: nn.Module) -> str:
    """SHA-256 of a net's structure and weights, hexadecimal."""
    digest = hashlib.sha256(str(net).encode())
    for name, tensor in sorted(net.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__

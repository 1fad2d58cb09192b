"""Weights in safetensors: float16, but float32 for quantizer levels and the classifier's bias.

Equal tensors are stored once. The entropy stage's tables lie in the same file, as bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tidesplit.data.files import whole

TABLES = "tables."  # starts the names of tensors that are tables, not weights
# Image offload's additions. Weights from before the phase `pictures` have none, and untrained ones add nothing.
FITTED_LATER = re.compile(r"_low\.(up|down)\.p0$")
SAME = "same"  # in the metadata, as JSON: for each tensor not stored, the equal one that is


def _stored(name: str, tensor: Tensor) -> Tensor:
    """The tensor as stored. Quantizer levels are few but sensitive, so they stay float32."""
    precise = "quantizer" in name or (tensor.dim() < 2 and "norm" not in name)
    stored = tensor.detach().cpu().to(torch.float32 if precise else torch.float16).contiguous()
    if not torch.isfinite(stored).all():
        raise ValueError(f"{name} holds {float(tensor.abs().max()):.3g}, a value within float16 expected")
    return stored


def save_weights(path: Path, module: nn.Module, metadata: dict[str, str]) -> None:
    """Write the module's state. Counters of batches are dropped, because only training uses them."""
    state = {k: _stored(k, v) for k, v in module.state_dict().items() if not k.endswith("num_batches_tracked")}
    path.parent.mkdir(parents=True, exist_ok=True)
    first: dict[tuple[torch.dtype, torch.Size, bytes], str] = {}
    stored = {k: first.setdefault((v.dtype, v.shape, v.numpy().tobytes()), k) for k, v in state.items()}
    same = {name: other for name, other in stored.items() if name != other}
    kept = {name: tensor for name, tensor in state.items() if name not in same}
    save_file(kept, str(path), metadata | ({SAME: json.dumps(same)} if same else {}))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A weights file to read. ValueError where it is none."""
    if not path.is_file():
        raise ValueError(f"there is no weights file {path}")
    try:
        with safe_open(str(path), framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(f"{path} is no file of safetensors: {error}") from error


def load_weights(path: Path, module: nn.Module, may_lack: str = "") -> None:
    """Fill the module and put it in eval mode. Additions of image offload keep their value where the file has none.

    Args:
        may_lack: part of the names of tensors that keep their value where the file has none; empty for no tensor.

    Raises:
        ValueError: missing or foreign tensors.
    """
    with _opened(path) as file:
        names = [name for name in file.keys() if not name.startswith(TABLES)]  # noqa: SIM118 (not a mapping)
        state = {name: file.get_tensor(name).float() for name in names}
        same = json.loads((file.metadata() or {}).get(SAME, "{}"))
    state |= {name: state[other] for name, other in same.items() if other in state}
    try:
        missing, unexpected = module.load_state_dict(state, strict=False)
    except RuntimeError as error:  # torch names every tensor of another shape, one a line
        raise ValueError(f"{path} does not fit the network: {str(error).splitlines()[1].strip()}") from error
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    missing = [name for name in missing if not FITTED_LATER.search(name)]
    missing = [name for name in missing if not (may_lack and may_lack in name)]
    if missing or unexpected:
        raise ValueError(f"{path} does not fit the network: missing {missing[:3]}, unexpected {unexpected[:3]}")
    module.eval()


def save_tables(path: Path, tables: Mapping[str, bytes]) -> None:
    """Replace the tables in a weights file. The file is written whole or not at all."""
    with _opened(path) as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        metadata = file.metadata()
    state = {name: tensor for name, tensor in state.items() if not name.startswith(TABLES)}
    new = {TABLES + name: torch.tensor(list(data), dtype=torch.uint8) for name, data in tables.items()}
    with whole(path) as part:
        save_file(state | new, str(part), metadata)
        shutil.copymode(path, part)


def load_tables(path: Path) -> dict[str, bytes]:
    """The tables in a weights file, by name."""
    with _opened(path) as file:
        names = [name for name in file.keys() if name.startswith(TABLES)]  # noqa: SIM118 (not a mapping)
        return {name.removeprefix(TABLES): file.get_tensor(name).numpy().tobytes() for name in names}


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata that `save_weights` was given."""
    with _opened(path) as file:
        return {name: text for name, text in (file.metadata() or {}).items() if name != SAME}


def read_classes(path: Path) -> tuple[str, ...]:
    """Names of the classes that a CNN's weights were trained on.

    Raises:
        ValueError: the file names none, so it is not one of `tidesplit train-cnn`.
    """
    found = read_metadata(path).get("classes")
    if found is None:
        raise ValueError(f"{path} names no classes: weights of tidesplit train-cnn expected")
    return tuple(json.loads(found))


def sha256_of(path: Path) -> str:
    """SHA-256 of the file, hexadecimal. It names a version of the weights."""
    return hashlib.sha256(path.read_bytes()).hexdigest()

"""The codec of the cuts in torch: `forward` (differentiable), `compress` to bytes, `decompress` from bytes.

In eval mode `decompress(compress(y, score, knobs))` equals `forward(y, score, knobs)` exactly.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tidesplit.compression.codec.knobs import BITS, Knobs
from tidesplit.compression.codec.learned_entropy import CodeTables, parse
from tidesplit.compression.codec.memory import ChangeTables
from tidesplit.compression.codec.wire import WireCodec
from tidesplit.compression.net.cuttable import Cuttable
from tidesplit.compression.net.fitted_files import load_fitted, save_fitted
from tidesplit.compression.net.system import SplitNet
from tidesplit.data.files import streams_file
from tidesplit.models.weights import sha256_of


def tag_of(weights: Path) -> int:
    """Two bytes of the weights' hash, by which a decoder refuses payloads of other weights."""
    return int(sha256_of(weights)[:4], 16)


def save_changes(weights: Path, system: SplitNet, changes: Mapping[str, bytes]) -> Path:
    """Write the tables of cuts with memory next to a weights file. Returns their path."""
    texts = {name: base64.b64encode(data).decode() for name, data in changes.items()}
    return save_fitted(streams_file(weights), system, "streams", texts)


def load_changes(weights: Path, system: SplitNet) -> dict[str, bytes]:
    """The tables of cuts with memory next to a weights file; none where there is no such file.

    Raises:
        ValueError: they were fitted to other weights.
    """
    texts = load_fitted(streams_file(weights), system, "streams") or {}
    return {name: base64.b64decode(text, validate=True) for name, text in texts.items()}


class Codec:
    """Codec of every cut of a network.

    Values `y` `[k, h, w]` and attention score `[h, w]` are a head's outputs for one picture. `tables` are those of the
    weights file, from `models.weights.load_tables`, and `changes` those of cuts with memory, from `load_changes`.
    """

    def __init__(
        self,
        system: Cuttable,
        tag: int = 0,
        tables: Mapping[str, bytes] | None = None,
        changes: Mapping[str, bytes] | None = None,
    ) -> None:
        self.system = system
        parts = {p: system.bottleneck(p) for p in range(1, system.partitions)}
        cuts = {p: part.cut for p, part in parts.items()}
        self.wire = WireCodec(
            cuts=cuts,
            low={p: part.quantizer.low.detach().float().cpu().numpy() for p, part in parts.items()},
            step={p: part.quantizer.step().detach().float().cpu().numpy() for p, part in parts.items()},
            tag=tag,
            tables=parse(CodeTables, tables or {}, cuts),
            changes=parse(ChangeTables, changes or {}, cuts),
        )

    def forward(self, y: Tensor, score: Tensor, knobs: Knobs) -> Tensor:
        """Input of the tail `[Kmax, h, w]`. Gradients go straight through the rounding."""
        rows = torch.tensor([BITS.index(knobs.bits)], device=y.device)
        share = torch.tensor([knobs.region], device=y.device)
        squeezed = self.system.bottleneck(knobs.partition).squeeze(y[None], score[None, None], rows, share)
        return squeezed[0]

    def compress(self, y: Tensor, score: Tensor, knobs: Knobs) -> bytes:
        """Payload of one picture's values."""
        return self.wire.encode(_array(y), _array(score), knobs)

    def decompress(self, payload: bytes) -> tuple[Tensor, Knobs]:
        """Input of the tail `[Kmax, h, w]`. Raises PayloadError for foreign bytes."""
        values, knobs = self.wire.decode(payload)
        return torch.from_numpy(values), knobs


def _array(tensor: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return tensor.detach().float().cpu().numpy()

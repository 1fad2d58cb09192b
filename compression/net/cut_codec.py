"""The codec of the cuts in torch: `forward` (differentiable), `compress` to bytes, `decompress` from bytes.

In eval mode `decompress(compress(y, score, knobs))` equals `forward(y, score, knobs)` exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tidesplit.compression.codec.knobs import BITS, Knobs
from tidesplit.compression.codec.learned_entropy import parse
from tidesplit.compression.codec.wire import WireCodec
from tidesplit.compression.net.system import SplitNet
from tidesplit.models.weights import sha256_of


def tag_of(weights: Path) -> int:
    """Two bytes of the weights' hash, by which a decoder refuses payloads of other weights."""
    return int(sha256_of(weights)[:4], 16)


class Codec:
    """Codec of every cut of a network.

    Values `y` `[k, h, w]` and attention score `[h, w]` are a head's outputs for one picture. `tables` are those of the
    weights file, from `models.weights.load_tables`.
    """

    def __init__(self, system: SplitNet, tag: int = 0, tables: Mapping[str, bytes] | None = None) -> None:
        self.system = system
        parts = {p: system.bottleneck(p) for p in range(1, system.net.partitions)}
        cuts = {p: part.cut for p, part in parts.items()}
        self.wire = WireCodec(
            cuts=cuts,
            low={p: part.quantizer.low.detach().float().cpu().numpy() for p, part in parts.items()},
            step={p: part.quantizer.step().detach().float().cpu().numpy() for p, part in parts.items()},
            tag=tag,
            tables=parse(tables or {}, cuts),
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

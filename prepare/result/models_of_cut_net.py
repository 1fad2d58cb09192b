"""The files of a prepared net, and the chain of files that each deployed model is.

    part-0-1.onnx      the net from the picture to the first cut
    part-1-2.onnx      from the first cut to the second, and so on; the last one gives the logits
    encoder-p1.onnx    feature at the first cut to the values to send and the attention score
    decoder-p1.onnx    received values to the rebuilt feature
    server.onnx        the server's own net from the picture, where it has one

A part is in many models, so a device loads it once. With 8-bit integers a part's name ends in `-i8`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

from tidesplit.compression.codec.knobs import FLOAT32, INT8, Precision, device_id
from tidesplit.compression.net.bottleneck import Bottleneck
from tidesplit.prepare.cut_net import FULL, RATIO, CutNet, run
from tidesplit.prepare.result.onnx_parts import alike, onnx_part
from tidesplit.prepare.source.preprocessing import PrepareError
from tidesplit.runtime.cnn import LARGEST_BYTES
from tidesplit.runtime.models import finish_name, head_name, middle_name, tail_name

SERVER_FILE = "server.onnx"
Files = Mapping[str, bytes]
"""ONNX models by file name."""
Chains = Mapping[str, tuple[str, ...]]
"""The files of each deployed model in order."""


class _Half(nn.Module):
    """The encoder or the decoder of a bottleneck."""

    def __init__(self, bottleneck: Bottleneck, run: Callable[[Bottleneck, Tensor], object]) -> None:
        super().__init__()
        self.bottleneck, self._run = bottleneck, run

    def forward(self, x: Tensor) -> object:
        return self._run(self.bottleneck, x)


def part_file(first: int, last: int, precision: Precision = FLOAT32) -> str:
    """File of the net between two partitions."""
    return f"part-{first}-{last}{'-i8' if precision == INT8 else ''}.onnx"


def encoder_file(partition: int) -> str:
    """File of a cut's encoder."""
    return f"encoder-p{partition}.onnx"


def decoder_file(partition: int) -> str:
    """File of a cut's decoder."""
    return f"decoder-p{partition}.onnx"


def check_sizes(net: CutNet) -> None:
    """Refuse a net whose files would be too large, before anything is trained.

    Raises:
        PrepareError: one of its parts is.
    """
    parts: dict[str, nn.Module] = {part_file(p, p + 1): part for p, part in enumerate(net.parts)}
    if net.server is not None:
        parts[SERVER_FILE] = net.server
    for name, part in parts.items():
        size = sum(tensor.numel() * tensor.element_size() for tensor in part.state_dict().values())
        if size > LARGEST_BYTES:
            raise PrepareError(
                f"{name} would take {size / 2**20:.0f} MiB, at most {LARGEST_BYTES // 2**20} expected: "
                "the net is too large"
            )


def float_files(net: CutNet, picture: Tensor, tell: Callable[[str], None] = lambda _: None) -> dict[str, bytes]:
    """All float32 files. `picture` `[1, 3, px, px]` is an example that torch and ONNX are compared on."""
    found: dict[str, bytes] = {}

    def add(name: str, module: nn.Module, example: Tensor, *outputs: str) -> None:
        tell(name)
        found[name] = onnx_part(module, example, name.removesuffix(".onnx"), outputs)

    with torch.no_grad():
        features = [picture]
        for part in net.parts:
            features.append(run([part], features[-1]))
        for p, part in enumerate(net.parts):
            last = p + 1 == net.partitions
            add(part_file(p, p + 1), part, features[p], "logits" if last else "feature")
        for p, bottleneck in net.bottlenecks.items():
            values = torch.randn(1, *bottleneck.cut.shape, generator=torch.Generator().manual_seed(p))
            add(encoder_file(p), _Half(bottleneck, lambda b, x: b.encode(x, FULL)), features[p], "y", "score")
            add(decoder_file(p), _Half(bottleneck, lambda b, x: b.decode(x)), values, "feature")
        if net.server is not None:
            add(SERVER_FILE, net.server, picture, "logits")
    return alike(found)


def chains(partitions: int, precisions: tuple[Precision, ...] = (FLOAT32,), server: bool = False) -> Chains:
    """The chains of a prepared net. ``server``: True where the server has a net of its own."""
    every = range(1, partitions)
    found: dict[str, tuple[str, ...]] = {}
    for precision in precisions:
        parts = tuple(part_file(first, last, precision) for first, last in pairwise(range(partitions + 1)))
        found[device_id(RATIO, precision)] = parts
        for p in every:
            found[head_name(p, RATIO, precision)] = (*parts[:p], encoder_file(p))
            found[finish_name(p, RATIO, precision)] = parts[p:]
    parts = found[device_id(RATIO)]
    found[tail_name(0)] = (SERVER_FILE,) if server else parts
    for first in every:
        found[tail_name(first)] = (decoder_file(first), *parts[first:])
        found[middle_name(0, first)] = (*parts[:first], encoder_file(first))
        for second in range(first + 1, partitions):
            found[middle_name(first, second)] = (decoder_file(first), *parts[first:second], encoder_file(second))
    return found

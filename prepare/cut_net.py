"""A traced net with its chosen cuts: the parts between them, for batches of one size, and a bottleneck at each."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from tidesplit.compression.net.bottleneck import Bottleneck
from tidesplit.compression.net.cnn_work import work_of
from tidesplit.models.slim import set_of_ratio
from tidesplit.prepare.chosen_cuts import spec_of
from tidesplit.prepare.linear_bottleneck import LinearBottleneck, fits
from tidesplit.prepare.source.picture_net import PictureNet
from tidesplit.prepare.source.preprocessing import PrepareError
from tidesplit.profiling.cuts.legal_cuts import Cut, segment
from tidesplit.profiling.cuts.operations import Traced, TraceFailedError, trace

RATIO = 1.0
FULL = set_of_ratio(RATIO)
ADAPTIVE = torch.ops.aten.adaptive_avg_pool2d.default


class Part(nn.Module):
    """The net between two cuts. The last part gives the logits."""

    def __init__(self, traced: Traced, first: Cut | None, last: Cut | None) -> None:
        super().__init__()
        self.body = _for_batches(segment(traced, first, last))

    def forward(self, x: Tensor) -> Tensor:
        """Feature, or at first the picture, to the next feature or the logits."""
        found = self.body(x)
        result = found[0] if isinstance(found, tuple | list) else found
        assert isinstance(result, Tensor)
        return result


def _for_batches(body: fx.GraphModule) -> fx.GraphModule:
    """A segment of the net for one picture, whose views take batches too: their first size follows from the others.

    Its adaptive pools are `pooled`.
    """
    views = (torch.ops.aten.view.default, torch.ops.aten.reshape.default)
    for node in body.graph.nodes:
        if node.target is ADAPTIVE:
            node.target = pooled
        if node.target in views and node.meta["val"].shape[:1] == (1,):
            node.args = (node.args[0], [-1, *node.meta["val"].shape[1:]])
    body.recompile()
    return body


def pooled(x: Tensor, size: Sequence[int]) -> Tensor:
    """Adaptive average pooling `[B, C, H, W]` to `[B, C, *size]`.

    ONNX has none whose windows differ in size. These means are products with constant matrices.
    """
    sides = [int(side) for side in x.shape[-2:]]
    if all(side % goal == 0 for side, goal in zip(sides, size, strict=True)):
        return ADAPTIVE(x, size)  # type: ignore[no-any-return]
    rows, columns = (_windows(side, goal).to(x) for side, goal in zip(sides, size, strict=True))
    return rows @ x @ columns.T


def _windows(side: int, goal: int) -> Tensor:
    """The matrix `[goal, side]` that gives the means of the windows of an adaptive pool."""
    at, i = torch.arange(side), torch.arange(goal)[:, None]
    inside = ((at >= i * side // goal) & (at < -(-(i + 1) * side // goal))).float()
    return inside / inside.sum(1, keepdim=True)


def _uneven(traced: Traced) -> bool:
    """True where a net has an adaptive pool whose windows differ in size."""
    pools = [(node.all_input_nodes[0], node) for node in traced.nodes if node.target is ADAPTIVE]
    pairs = [zip(*(node.meta["val"].shape[-2:] for node in pool), strict=True) for pool in pools]
    return any(side % goal for pair in pairs for side, goal in pair)


class ServerNet(nn.Module):
    """Another net on the server, which answers the pictures of image offload: a bigger one than the device's, mostly.

    `macs`: its multiply-accumulates for one picture.

    Args:
        net: takes pictures `[B, 3, own_px, own_px]` in [-1, 1].
        own_px: side of its pictures. Those that arrive are scaled to it, bilinear.
        px: side of the pictures that arrive.
    """

    def __init__(self, net: nn.Module, own_px: int, px: int) -> None:
        super().__init__()
        self.own_px, self.px = own_px, px
        try:
            traced = trace(net, torch.zeros(1, 3, own_px, own_px))
        except TraceFailedError as error:
            raise PrepareError(f"--server-net: {str(error).partition(': ')[2]}") from error
        self.net = Part(traced, None, None) if _uneven(traced) else net
        self.macs = float(sum(traced.macs.values()))

    def forward(self, picture: Tensor) -> Tensor:
        """Picture `[B, 3, px, px]` in [-1, 1] to logits `[B, classes]`."""
        if self.own_px != self.px:
            picture = F.interpolate(picture, (self.own_px, self.own_px), mode="bilinear", align_corners=False)
        logits: Tensor = self.net(picture)
        return logits


class CutNet:
    """A net of the user as parts. The parts share its weights, which stay as they are.

    Args:
        net: takes pictures in [-1, 1].
        traced: its operations for one picture.
        cuts: in order.
        px: side of the pictures.
    """

    ratios = regions = (RATIO,)

    def __init__(self, net: PictureNet, traced: Traced, cuts: Sequence[Cut], px: int) -> None:
        self.net, self.traced, self.cuts, self.px = net, traced, tuple(cuts), px
        self.server: ServerNet | None = None  # None: this net answers pictures too
        self.parts = self._parts(traced)
        self.bottlenecks = {p: self._bottleneck(p) for p in range(1, self.partitions)}

    @property
    def partitions(self) -> int:
        """Index of the last partition: the whole net on the device."""
        return len(self.cuts) + 1

    def bottleneck(self, partition: int) -> Bottleneck:
        """Bottleneck of an inner partition, counted from 1."""
        return self.bottlenecks[partition]

    def macs(self, partition: int, ratio: float = RATIO) -> tuple[float, float]:
        """Multiply-accumulates of head and tail for one picture. There is one ratio."""
        del ratio
        uncut = float(sum(self.traced.macs.values()))
        if partition == self.partitions:
            return uncut, 0.0
        if partition == 0:
            return 0.0, uncut if self.server is None else self.server.macs
        cut, bottleneck = self.cuts[partition - 1], self.bottlenecks[partition]
        encoder = work_of(bottleneck.encode, torch.zeros(cut.shape), FULL).macs
        decoder = work_of(bottleneck.decode, torch.zeros(1, *bottleneck.cut.shape)).macs
        return float(cut.macs_before + encoder), float(cut.macs_after + decoder)

    def _parts(self, traced: Traced) -> list[Part]:
        return [Part(traced, first, last) for first, last in pairwise((None, *self.cuts, None))]

    def _bottleneck(self, partition: int) -> Bottleneck:
        cut = self.cuts[partition - 1]
        torch.manual_seed(cut.index)
        spec = spec_of(cut, self.px)
        kind = LinearBottleneck if fits(spec) else Bottleneck
        return kind(partition, cut.shape[1:], spec)  # type: ignore[arg-type]

    def in_batches(self, size: int) -> list[Part]:
        """The parts for batches of another size.

        Raises:
            PrepareError: the net does something else for a batch than for one picture.
        """
        traced = trace(self.net, torch.zeros(size, 3, self.px, self.px))
        one, many = ([(n.op, str(n.target)) for n in some.nodes] for some in (self.traced, traced))
        if one != many:
            raise PrepareError(
                f"the net runs {len(many)} operations for a batch of {size} pictures and {len(one)} for one picture, "
                "the same expected"
            )
        return self._parts(traced)


def run(parts: Sequence[nn.Module], x: Tensor) -> Tensor:
    """The parts one after another. A part may work in place on its input, which is therefore copied."""
    for part in parts:
        x = part(x.clone())
    return x

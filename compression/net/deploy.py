"""ONNX models of a split network, as they run on device and server. Each is compared with torch when it is made."""

from __future__ import annotations

import numpy as np
import onnx
import torch

from tidesplit.compression.net.deployed_graphs import (
    device_graph,
    encoder_graph,
    finish_graph,
    head_graph,
    heads_graph,
    middle_graph,
    part_graph,
    tail_graph,
)
from tidesplit.compression.net.system import SplitNet
from tidesplit.compression.session import session
from tidesplit.models.graph import Graph
from tidesplit.models.onnx_graph import FREE, to_onnx

TOLERANCE = 1e-3  # share of the largest output. Other orders of float32 sums differ by about 1e-5.


def head_model(system: SplitNet, partition: int, ratio: float) -> onnx.ModelProto:
    """Image `x` to `feature`, values `y` and attention `score`."""
    name = f"head-p{partition}-c{ratio:.2f}"
    return _checked(head_graph(system, partition, ratio), name, ("feature", "y", "score"))


def heads_model(system: SplitNet, ratio: float) -> onnx.ModelProto:
    """Image `x` to `y1`, `score1`, `y2` and so on: what the heads of all cuts send, in one run."""
    cuts = range(1, system.net.partitions)
    names = tuple(f"{kind}{p}" for p in cuts for kind in ("y", "score"))
    return _checked(heads_graph(system, ratio), f"heads-c{ratio:.2f}", names)


def tail_model(system: SplitNet, partition: int) -> onnx.ModelProto:
    """Wire values `x`, or at partition 0 the image, to `logits`, for any number of frames."""
    return _checked(tail_graph(system, partition), f"tail-p{partition}", ("logits",), FREE)


def middle_model(system: SplitNet, first: int, second: int) -> onnx.ModelProto:
    """Wire values `x` of one partition to `feature`, `y` and `score` of a later one, for any number of frames."""
    name = f"middle-p{first}-p{second}"
    return _checked(middle_graph(system, first, second), name, ("feature", "y", "score"), FREE)


def device_model(system: SplitNet, ratio: float) -> onnx.ModelProto:
    """Image `x` to `logits`, by the whole CNN at a channel ratio."""
    return _checked(device_graph(system, ratio), f"device-c{ratio:.2f}", ("logits",))


def finish_model(system: SplitNet, partition: int, ratio: float) -> onnx.ModelProto:
    """The head's feature `x` to `logits`: the local fallback."""
    return _checked(finish_graph(system, partition, ratio), f"finish-p{partition}-c{ratio:.2f}", ("logits",))


def part_model(system: SplitNet, first: int, last: int, ratio: float) -> onnx.ModelProto:
    """Feature `x` at one partition to `feature` at a later one, at the ends from the image and to `logits`."""
    output = "logits" if last == system.net.partitions else "feature"
    return _checked(part_graph(system, first, last, ratio), f"part-{first}-{last}-c{ratio:.2f}", (output,))


def encoder_model(system: SplitNet, partition: int, ratio: float) -> onnx.ModelProto:
    """Feature `x` of a head to values `y` and attention `score`."""
    return _checked(encoder_graph(system, partition, ratio), f"encoder-p{partition}-c{ratio:.2f}", ("y", "score"))


def _checked(graph: Graph, name: str, outputs: tuple[str, ...], batch: int | str = 1) -> onnx.ModelProto:
    """The ONNX model. Raises RuntimeError where its outputs differ from torch's on a random input."""
    model = to_onnx(graph, name, outputs, batch=batch)
    onnx.checker.check_model(model)
    frames = 2 if batch == FREE else 1
    x = torch.randn(frames, *graph.input_shape, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    with torch.inference_mode():
        expected = [value.numpy() for value in graph.run(x)]
    found = session(model.SerializeToString()).run(None, {"x": x.numpy()})
    for title, ours, theirs in zip(outputs, found, expected, strict=True):
        error = float(np.abs(ours - theirs).max() / (np.abs(theirs).max() + 1e-9))
        if not error < TOLERANCE:
            raise RuntimeError(f"ONNX model {name}, output {title}: differs from torch by {error:.2g} of its range")
    return model

"""Cuts of any `torch.nn.Module`: places where exactly one tensor is alive, and the head and tail on either side.

    tidesplit cuts tests.nets:ResNet18 --shape 1,3,224,224

A tensor is alive at a place if it was computed before (or is the input) and is needed after. Where exactly one is, it
alone has to cross the link. `split` gives two modules that share the net's weights and together run the same operations
in the same order, so in eval mode `tail(head(x))` equals `net(x)` bit for bit. Both are for inputs of the
example's shape; a tail may work in place on the feature given to it, where the net itself does.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from tidesplit.profiling.cuts.operations import Traced, module_path, trace


class NoLegalCutError(ValueError):
    """The net has no place with exactly one live tensor; the message says what is in the way."""


@dataclass(frozen=True)
class Cut:
    """One legal cut, in figures for the example's batch.

    `name`, `operation`: the head's last operation; `shape`, `dtype`, `feature_bytes`: the one tensor that crosses,
    uncompressed; `macs_before`, `macs_after`: multiply-accumulates of head and tail. `position`: index of that
    operation in the traced graph; `feature`: name of the crossing tensor in it.
    """

    index: int
    name: str
    operation: str
    shape: tuple[int, ...]
    dtype: str
    feature_bytes: int
    macs_before: int
    macs_after: int
    position: int
    feature: str


def find_cuts(traced: Traced) -> tuple[Cut, ...]:
    """Every legal cut in order, index from 1; neither the input alone nor the output counts as one.

    Raises:
        NoLegalCutError: there is none.
    """
    nodes = traced.nodes
    costs = [traced.macs[node.name] for node in nodes]
    last = max((position for position, node in enumerate(nodes) if _works(traced, node)), default=0)
    cuts: list[Cut] = []
    for position, node in enumerate(nodes[:last]):
        alive = live_tensors(traced, position) if _works(traced, node) else []
        if len(alive) == 1 and alive[0].op != "placeholder" and isinstance(alive[0].meta["val"], Tensor):
            value: Tensor = alive[0].meta["val"]
            cut = Cut(
                index=len(cuts) + 1,
                name=module_path(node),
                operation=str(node.target).removeprefix("aten.").rsplit(".", 1)[0],
                shape=tuple(value.shape),
                dtype=str(value.dtype).removeprefix("torch."),
                feature_bytes=value.numel() * value.element_size(),
                macs_before=sum(costs[: position + 1]),
                macs_after=sum(costs[position + 1 :]),
                position=position,
                feature=alive[0].name,
            )
            cuts.append(cut)
    if not cuts:
        raise NoLegalCutError(_obstacle(traced, last))
    return tuple(cuts)


def live_tensors(traced: Traced, position: int) -> list[fx.Node]:
    """Values that depend on the input, exist after the node at `position` and are needed later."""
    nodes = traced.nodes
    before = set(nodes[: position + 1])
    return [
        node
        for node in nodes[: position + 1]
        if node.name in traced.computed and any(user not in before for user in node.users)
    ]


def split(traced: Traced, cut: Cut) -> tuple[nn.Module, nn.Module]:
    """Head (input to feature) and tail (feature to the net's own output), in eval mode, sharing the net's weights."""
    nodes = traced.nodes
    feature = next(node for node in nodes if node.name == cut.feature)
    result = next(node for node in nodes if node.op == "output").args[0]
    head, tail = fx.Graph(), fx.Graph()
    in_head = _copy(traced, nodes[: cut.position + 1], head, {})
    head.output(in_head[feature])
    in_tail = _copy(traced, nodes[cut.position + 1 :], tail, {feature: tail.placeholder("feature")})
    tail.output(fx.map_arg(result, lambda source: in_tail[source]))
    return _module(traced, head, "Head"), _Unflatten(_module(traced, tail, "Tail"), traced.out_spec).eval()


def _copy(
    traced: Traced, nodes: Sequence[fx.Node], graph: fx.Graph, copied: dict[fx.Node, fx.Node]
) -> dict[fx.Node, fx.Node]:
    """Appends to `graph` all of `nodes` that depend on the input, in order (some work in place and have no user), and
    whatever they need that comes from weights alone. Adds to `copied` and returns it."""

    def bring(source: fx.Node) -> fx.Node:
        if source not in copied:
            copied[source] = graph.node_copy(source, bring)
        return copied[source]

    for node in nodes:
        if node.name in traced.computed and node.op != "output":
            bring(node)
    return copied


class _Unflatten(nn.Module):
    """Gives the graph's flat tuple of results the form (tensor, tuple, dict) that the net itself returns."""

    def __init__(self, body: nn.Module, out_spec: Any) -> None:
        super().__init__()
        self.body = body
        self.out_spec = out_spec

    def forward(self, feature: Tensor) -> Any:
        """The net's output, from the feature that crossed."""
        return pytree.tree_unflatten(self.body(feature), self.out_spec)


def _module(traced: Traced, graph: fx.Graph, name: str) -> fx.GraphModule:
    graph.lint()
    module = fx.GraphModule(traced.module, graph, name)
    module.training = False  # not .eval(): modules that torch.export makes refuse it
    return module


def _works(traced: Traced, node: fx.Node) -> bool:
    return node.op == "call_function" and node.name in traced.computed


def _obstacle(traced: Traced, last: int) -> str:
    places = [position for position, node in enumerate(traced.nodes[:last]) if _works(traced, node)]
    if not places:
        return "no legal cut: the net has fewer than two operations, so there is nothing to put on either side"
    narrowest = min(places, key=lambda position: len(live_tensors(traced, position)))
    names = [f"'{node.name}'" for node in live_tensors(traced, narrowest)]
    return (
        f"no legal cut: nowhere is exactly one tensor alive; even at the narrowest of {len(places)} places, after "
        f"'{module_path(traced.nodes[narrowest])}', {len(names)} are needed later: {', '.join(names)}"
    )


def table(cuts: Sequence[Cut]) -> str:
    """Text table of cuts; KiB uncompressed, millions of multiply-accumulates."""
    columns = f"{'feature':>18} {'KiB':>9} {'head M':>10} {'tail M':>10} {'head':>6}"
    rows = [f"{'cut':>4} {'after':32} {'operation':20} {columns}"]
    for cut in cuts:
        share = cut.macs_before / max(1, cut.macs_before + cut.macs_after)
        shape = "x".join(map(str, cut.shape))
        rows.append(
            f"{cut.index:4} {cut.name:32} {cut.operation:20} {shape:>18} {cut.feature_bytes / 1024:9.1f} "
            f"{cut.macs_before / 1e6:10.1f} {cut.macs_after / 1e6:10.1f} {share:6.1%}"
        )
    return "\n".join(rows)


def main(argv: Sequence[str] | None = None) -> int:
    """List the cuts of a net named on the command line; 0 on success, 2 where there is none or the net is not found."""
    parser = argparse.ArgumentParser(prog="tidesplit cuts", description="Legal cuts of a torch module.")
    parser.add_argument("net", help="module:factory, a callable without arguments that returns a torch.nn.Module")
    parser.add_argument("--shape", default="1,3,224,224", help="shape of the input (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the cuts as JSON")
    args = parser.parse_args(argv)
    try:
        module, _, factory = args.net.partition(":")
        net = getattr(importlib.import_module(module), factory)()
        if not isinstance(net, nn.Module):
            raise ValueError(f"got {type(net).__name__} from {args.net}, expected a torch.nn.Module")
        cuts = find_cuts(trace(net, torch.zeros([int(size) for size in args.shape.split(",")])))
    except (ImportError, AttributeError, ValueError) as error:
        print(f"error: {args.net}: {error}", file=sys.stderr)
        return 2
    print(json.dumps([asdict(cut) for cut in cuts], indent=1) if args.json else table(cuts))
    return 0


if __name__ == "__main__":
    sys.exit(main())

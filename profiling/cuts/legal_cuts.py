"""Legal cuts of any `torch.nn.Module`, and the head and the tail on either side of one.

    tidesplit cuts tests.nets:ResNet18 --shape 1,3,224,224

A tensor is alive at a place if it was computed before it (or is the input) and is needed after it. A cut is legal where
exactly one tensor is alive, because then only that tensor has to cross the link.

`split` gives two modules that share the net's weights and run the same operations in the same order. So in eval mode
`tail(head(x))` equals `net(x)` bit for bit. Both take inputs of the example's shape only. A tail may change its feature
in place, where the net itself does.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from tidesplit.data.named import NamedError, named
from tidesplit.profiling.cuts.operations import Traced, module_path, trace


class NoLegalCutError(ValueError):
    """The net has no place with exactly one live tensor. The message names the tensors in the way."""


@dataclass(frozen=True)
class Cut:
    """One legal cut. Figures are for the batch of the example.

    Args:
        index: number of the cut, from 1.
        name: where in the net the head's last operation is.
        operation: that operation.
        shape: of the tensor that crosses.
        dtype: of that tensor.
        feature_bytes: its uncompressed size.
        macs_before: multiply-accumulates of the head.
        macs_after: multiply-accumulates of the tail.
        position: index of the head's last operation in the traced graph.
        feature: name of the tensor that crosses, in that graph.
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
    """All legal cuts in order. The places before the first and after the last operation are none.

    Raises:
        NoLegalCutError: there is no legal cut.
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
    """Values that depend on the input, exist after the node at `position`, and are needed later."""
    nodes = traced.nodes
    before = set(nodes[: position + 1])
    return [
        node
        for node in nodes[: position + 1]
        if node.name in traced.computed and any(user not in before for user in node.users)
    ]


def split(traced: Traced, cut: Cut) -> tuple[nn.Module, nn.Module]:
    """Head (input to feature) and tail (feature to the net's output), in eval mode. They share the net's weights."""
    return segment(traced, None, cut), _Unflatten(segment(traced, cut, None), traced.out_spec).eval()


def segment(traced: Traced, first: Cut | None, last: Cut | None) -> fx.GraphModule:
    """The net between two cuts, from feature to feature, in eval mode. It shares the net's weights.

    Args:
        traced: the whole net.
        first: cut that the segment begins behind; None for the net's input.
        last: cut that it ends at; None for the net's flat outputs.
    """
    nodes = traced.nodes
    begin, end = -1 if first is None else first.position, len(nodes) if last is None else last.position
    graph, by_name = fx.Graph(), {node.name: node for node in nodes}
    known = {} if first is None else {by_name[first.feature]: graph.placeholder("feature")}
    copied = _copy(traced, nodes[begin + 1 : end + 1], graph, known)
    result = nodes[-1].args[0] if last is None else by_name[last.feature]
    graph.output(fx.map_arg(result, lambda source: copied[source]))
    return _module(traced, graph, "Segment")


def _copy(
    traced: Traced, nodes: Sequence[fx.Node], graph: fx.Graph, copied: dict[fx.Node, fx.Node]
) -> dict[fx.Node, fx.Node]:
    """Append to `graph` all of `nodes` that depend on the input, and the constants that they need.

    Nodes without a user are among them, since they may work in place. Adds to `copied` and returns it.
    """

    def bring(source: fx.Node) -> fx.Node:
        if source not in copied:
            copied[source] = graph.node_copy(source, bring)
        return copied[source]

    for node in nodes:
        if node.name in traced.computed and node.op != "output":
            bring(node)
    return copied


class _Unflatten(nn.Module):
    """Gives the flat results of a graph the form (tensor, tuple, dict) that the net returns."""

    def __init__(self, body: nn.Module, out_spec: Any) -> None:
        super().__init__()
        self.body = body
        self.out_spec = out_spec

    def forward(self, feature: Tensor) -> Any:
        """The net's output from the feature."""
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
        return "no legal cut: at least two operations expected, one for either side"
    narrowest = min(places, key=lambda position: len(live_tensors(traced, position)))
    names = [f"'{node.name}'" for node in live_tensors(traced, narrowest)]
    return (
        f"no legal cut: exactly one live tensor expected; at the narrowest of {len(places)} places, after "
        f"'{module_path(traced.nodes[narrowest])}', {len(names)} are needed later: {', '.join(names)}"
    )


def table(cuts: Sequence[Cut]) -> str:
    """Table of cuts as text, in uncompressed KiB and millions of multiply-accumulates."""
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
    """Run the command. Returns 0, or 2 where there is no legal cut or for a user's mistake."""
    parser = argparse.ArgumentParser(prog="tidesplit cuts", description="List the legal cuts of a torch module.")
    parser.add_argument("net", help="module:factory, a callable without arguments that returns a torch.nn.Module")
    parser.add_argument("--shape", default="1,3,224,224", help="shape of the input (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the cuts as JSON")
    args = parser.parse_args(argv)
    try:
        net = named(args.net)()
        if not isinstance(net, nn.Module):
            raise ValueError(f"{type(net).__name__} received, a torch.nn.Module expected")
        cuts = find_cuts(trace(net, torch.zeros([int(size) for size in args.shape.split(",")])))
    except ValueError as error:
        place = "" if isinstance(error, NamedError) else f"{args.net}: "
        print(f"tidesplit cuts: error: {place}{error}", file=sys.stderr)
        return 2
    print(json.dumps([asdict(cut) for cut in cuts], indent=1) if args.json else table(cuts))
    return 0


if __name__ == "__main__":
    sys.exit(main())

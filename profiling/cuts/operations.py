"""A torch module as one straight list of operations, with the multiply-accumulates of each.

Traced with `torch.export`: no change to the net's code; Python values (shapes, loop counts, branches on them) become
constants. Counted: what torch's own flop counter knows, i.e. convolutions, matrix products and attention; two flops are
one multiply-accumulate. Not counted: element-wise operations, norms, pooling.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode


class TraceFailedError(ValueError):
    """`torch.export` cannot follow the net: its control flow depends on the values it computes."""


@dataclass(frozen=True)
class Traced:
    """Operations of a net in order. `macs` by node name, for the batch of the example input; `computed` are the nodes
    that depend on the input: the others come from weights alone and are the same on every machine."""

    module: fx.GraphModule
    macs: dict[str, int]
    computed: frozenset[str]
    out_spec: Any

    @property
    def nodes(self) -> list[fx.Node]:
        """All nodes in order of execution, the output node last."""
        return list(self.module.graph.nodes)


def trace(net: nn.Module, *example: Tensor) -> Traced:
    """`net` in eval mode as a list of operations; its weights are shared, not copied, its training flags left as found.

    Raises:
        TraceFailedError: `torch.export` cannot follow it.
    """
    with _evaluating(net), torch.no_grad():
        try:
            program = torch.export.export(net, example)
        except Exception as error:  # torch.export raises many types, several of them private
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise TraceFailedError(f"{type(net).__name__}: torch.export cannot follow this net ({reason})") from error
        module = program.module(check_guards=False)
        if not isinstance(module, fx.GraphModule):
            raise TraceFailedError(f"{type(net).__name__}: torch.export gave {type(module).__name__}, expected a graph")
        counter = _MacCounter(module)
        counter.run(*(tensor.clone() for tensor in example))  # a net may work in place on its input
    return Traced(module, counter.macs, _computed(module.graph), program.call_spec.out_spec)


@contextmanager
def _evaluating(net: nn.Module) -> Iterator[None]:
    training = [module for module in net.modules() if module.training]
    net.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


class _MacCounter(fx.Interpreter):
    """Runs the graph once and notes what each node costs."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.macs: dict[str, int] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run one node under torch's flop counter."""
        with FlopCounterMode(display=False) as counter:
            result = super().run_node(n)
        self.macs[n.name] = counter.get_total_flops() // 2
        return result


def _computed(graph: fx.Graph) -> frozenset[str]:
    found: set[str] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or any(source.name in found for source in node.all_input_nodes):
            found.add(node.name)
    return frozenset(found)


def module_path(node: fx.Node) -> str:
    """Where in the net's own code the node comes from (`blocks.3.conv1`), or its name in the graph."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return str(stack[-1][0]) if stack and stack[-1][0] else node.name

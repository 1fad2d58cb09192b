"""A torch module as one straight list of operations, with the multiply-accumulates of each.

`torch.export` traces the net without a change to its code. Python values (shapes, loop counts, branches on them) become
constants. The operations that torch's flop counter knows are counted: convolutions, matrix products, attention. Two
flops are one multiply-accumulate. Element-wise operations, norms and pooling count as nothing.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode


class TraceFailedError(ValueError):
    """`torch.export` cannot follow the net, because its control flow depends on values that it computes."""


@dataclass(frozen=True)
class Traced:
    """Operations of a net in order.

    Args:
        module: the traced graph.
        macs: multiply-accumulates for the batch of the example, by node name.
        computed: names of the nodes that depend on the input. The others are constants.
        out_spec: form of the net's output.
    """

    module: fx.GraphModule
    macs: dict[str, int]
    computed: frozenset[str]
    out_spec: Any

    @property
    def nodes(self) -> list[fx.Node]:
        """All nodes in order of execution, the output node last."""
        return list(self.module.graph.nodes)


def trace(net: nn.Module, *example: Tensor) -> Traced:
    """The operations of `net` in eval mode. They share its weights, and its training flags stay as they are.

    Raises:
        TraceFailedError: `torch.export` cannot follow the net.
    """
    with _evaluating(net), torch.no_grad():
        try:
            with _silence():
                program = torch.export.export(net, example)
        except Exception as error:  # torch.export raises many types, several of them private
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise TraceFailedError(f"{type(net).__name__}: torch.export cannot follow this net ({reason})") from error
        module = program.module(check_guards=False)
        if not isinstance(module, fx.GraphModule):
            raise TraceFailedError(f"{type(net).__name__}: {type(module).__name__} received, a graph expected")
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


@contextmanager
def _silence() -> Iterator[None]:
    """Keep torch from printing whole graphs and warnings: the error that it raises says why."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


class _MacCounter(fx.Interpreter):
    """Runs the graph once and notes the multiply-accumulates of each node."""

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
    """Path of the submodule that the node comes from (`blocks.3.conv1`), or else its name in the graph."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return str(stack[-1][0]) if stack and stack[-1][0] else node.name

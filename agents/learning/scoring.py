"""The scorer's logits and their gradients in fewer passes over memory than autograd takes.

Training spends most of its time here. The numbers are those of `Scorer` up to rounding. Points come before states in
memory, so that the maximum over the points and the sums over them are additions of whole rows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from tidesplit.agents.learning.scorer import Scorer

ROWS = 128  # states at a time: their encodings stay in the processor's cache


def scores(scorer: Scorer, state: Tensor, points: Tensor) -> Tensor:
    """Logits ``[B, A]`` of normalised features, like ``scorer(state, points)``. Only its weights get gradients."""
    of_state, of_point, own, others, score = (
        scorer.of_state, scorer.of_point, scorer.own, scorer.others, scorer.score
    )  # fmt: skip
    weights = (of_state.weight, of_state.bias, of_point.weight, own.weight, own.bias, others.weight, score.weight)
    parts = zip(torch.split(state, ROWS), torch.split(points, ROWS), strict=True)
    return torch.cat([_Scores.apply(*part, *weights) for part in parts])  # type: ignore[no-untyped-call]


class _Scores(Function):
    """See `Scorer`. Shapes are ``[A, B, H]`` with H hidden units."""

    @staticmethod
    def forward(ctx: Any, state: Tensor, points: Tensor, *weights: Tensor) -> Tensor:
        of_state, state_bias, of_point, own, own_bias, others, score = weights
        rows, count, _ = points.shape
        features = points.transpose(0, 1).reshape(count * rows, -1)
        encoded = torch.mm(features, of_point.t()).view(count, rows, -1)
        encoded.add_(torch.addmm(state_bias, state, of_state.t())).relu_()
        pooled = encoded.amax(dim=0)
        hidden = torch.mm(encoded.flatten(0, 1), own.t()).view_as(encoded)
        hidden.add_(torch.addmm(own_bias, pooled, others.t())).relu_()
        ctx.save_for_backward(state, features, encoded, pooled, hidden, own, others, score)
        return torch.mv(hidden.flatten(0, 1), score[0]).view(count, rows).t()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, logits: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the weights, from that of the logits ``[B, A]``."""
        state, features, encoded, pooled, hidden, own, others, score = ctx.saved_tensors
        logits = logits.t().contiguous()[:, :, None]
        of_score = torch.mm(logits.view(1, -1), hidden.flatten(0, 1))
        inner = _where_positive(logits * score[0], hidden)
        of_inner = inner.sum(dim=0)
        of_own = torch.mm(inner.flatten(0, 1).t(), encoded.flatten(0, 1))
        outer = torch.mm(inner.flatten(0, 1), own).view_as(encoded)
        largest = torch.eq(encoded, pooled, out=inner)  # equal ones share the gradient of the maximum
        outer.addcmul_(largest, torch.mm(of_inner, others) / largest.sum(dim=0))
        of_outer = _where_positive(outer, encoded).sum(dim=0)
        of_features = torch.mm(features.t(), outer.flatten(0, 1)).t()
        of_others = torch.mm(of_inner.t(), pooled)
        of_state = torch.mm(of_outer.t(), state)
        return None, None, of_state, of_outer.sum(dim=0), of_features, of_own, of_inner.sum(dim=0), of_others, of_score


def _where_positive(gradient: Tensor, activation: Tensor) -> Tensor:
    """The gradient before a ReLU, in place: 0 where the activation is."""
    found: Tensor = torch.ops.aten.threshold_backward.grad_input(gradient, activation, 0.0, grad_input=gradient)
    return found

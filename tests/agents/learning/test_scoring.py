"""The quick logits are the scorer's, and so are their gradients."""

import pytest
import torch

from tidesplit.agents.learning.scorer import Scorer
from tidesplit.agents.learning.scoring import ROWS, scores


@pytest.mark.parametrize("rows", [1, ROWS, ROWS + 3])
def test_logits_and_gradients_are_those_of_the_scorer(rows: int) -> None:
    torch.manual_seed(rows)
    scorer = Scorer(hidden=8)
    state = torch.randn(rows, scorer.of_state.in_features)
    points = torch.randn(rows, scorer.of_point.in_features, 5).transpose(1, 2)
    points[:, 4] = points[:, 3]  # equal encodings share the gradient of their maximum
    worth = torch.randn(rows, 5)
    found = {}
    for name, logits in (("plain", scorer(state, points)), ("quick", scores(scorer, state, points))):
        gradients = torch.autograd.grad((logits * worth).sum(), list(scorer.parameters()))
        found[name] = [logits.detach(), *gradients]
    for plain, quick in zip(found["plain"], found["quick"], strict=True):
        torch.testing.assert_close(quick, plain, rtol=1e-4, atol=1e-5)


def test_a_frozen_scorer_gets_no_gradient() -> None:
    scorer = Scorer(hidden=4).requires_grad_(False)
    state, points = torch.randn(2, scorer.of_state.in_features), torch.randn(2, 3, scorer.of_point.in_features)
    assert not scores(scorer, state, points).requires_grad

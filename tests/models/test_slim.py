import pytest
import torch

from tidesplit.models.slim import LowRank


def test_an_addition_starts_at_zero_and_serves_only_its_own_set():
    torch.manual_seed(0)
    low, weight = LowRank(4, 3, {"p1": 2}), torch.randn(4, 3, 1, 1)
    assert low(weight, "r100") is weight
    assert torch.equal(low(weight, "p1"), weight)


def test_an_addition_is_the_product():
    low = LowRank(2, 2, {"p1": 1})
    with torch.no_grad():
        low.up["p1"].copy_(torch.tensor([[1.0], [2.0]]))
        low.down["p1"].copy_(torch.tensor([[3.0, 4.0]]))
    added = low(torch.zeros(2, 2, 1, 1), "p1")[:, :, 0, 0]
    assert added.tolist() == [[3.0, 4.0], [6.0, 8.0]]


@pytest.mark.parametrize("rank", [1, 3])
def test_gradients_reach_the_addition_first_through_its_upper_factor(rank):
    low = LowRank(4, 3, {"p1": rank})
    low(torch.randn(4, 3, 1, 1), "p1").sum().backward()
    assert float(low.up["p1"].grad.abs().sum()) > 0.0
    assert float(low.down["p1"].grad.abs().sum()) == 0.0  # the upper factor is still zero

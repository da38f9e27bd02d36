"""The operations that go with a unit, counted by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import torchlasso as tl
from torchlasso.graph.flops import flops_of_units
from torchlasso.graph.units import find_units


def test_a_linear_layer_counts_for_each_row_with_its_outputs_and_its_inputs() -> None:
    net = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 3))
    units = find_units(net, torch.randn(2, 5, 8))
    found = {family.name: flops_of_units(units.structure).get(family.axis) for family in units.families}
    rows = 2 * 5
    assert found["0.weight:0"] == 2 * rows * (8 + 6)
    assert found["3.weight:0"] == 2 * rows * (16 + 3)


class Attention(nn.Module):
    """One layer of attention: four heads of three dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.ModuleList(nn.Linear(8, 12) for _ in range(3)), nn.Linear(12, 8)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).view(*x.shape[:2], 4, 3).transpose(1, 2) for layer in self.qkv)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def test_a_head_takes_its_part_of_the_attention_too() -> None:
    rows, words = 2, 5
    units = find_units(Attention(), torch.randn(rows, words, 8))
    flops = flops_of_units(units.structure)
    heads = next(family for family in units.removable if family.size == 4)
    layers = 4 * 2 * rows * words * 8 * 12
    products = 2 * (2 * rows * 4 * words * words * 3)  # scores, and values by them
    assert flops[heads.axis] == (layers + products) / 4


def test_a_model_without_matrix_products_cannot_be_penalised_by_operations() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(6))

        def forward(self, x: Tensor) -> Tensor:
            return (x * self.scale).sum(1)

    with pytest.raises(ValueError, match=r"no removable unit|needs operations to count"):
        tl.Units(Scaled(), torch.randn(2, 1), by="flops")

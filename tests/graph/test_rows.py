"""Where all rows of an input are alike, linear layers are followed for one row only, with the same results."""

from __future__ import annotations

import pytest
import torch

from torchlasso.graph.operators import Call, Reach, rule_of
from torchlasso.graph.rules.contractions import Affine

ROWS = {
    "all alike": torch.tensor([[[1.0, 0, 1]] * 4] * 2),
    "the last differs": torch.tensor([[[1.0, 0, 1]] * 4, [[1.0, 0, 1]] * 3 + [[0, 0, 1]]]),
    "one row": torch.tensor([[[0.0, 1, 1]]]),
    "no row": torch.ones(0, 4, 3),
}


@pytest.mark.parametrize("given", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("read", ["all rows", "the first row"])
def test_rows_that_are_alike_give_what_each_gives(given: torch.Tensor, read: str):
    linear, weight = (
        rule_of(torch.ops.aten.linear.default),
        torch.tensor([[2.0, 0, 0], [0, -1, 3], [0, 0, 0], [1, 0, 1]]),
    )
    assert isinstance(linear, Affine)
    found = []
    for reach in (linear.reach, lambda call: Affine.reach(linear, call)):
        depends = given.clone().requires_grad_()
        x, w = Reach(torch.randn(given.shape), depends), Reach(weight, torch.zeros(4, 3))
        out = reach(Call("linear", {"input": x, "weight": w, "bias": None}, None))
        chosen = out if read == "all rows" else out[:, :1]
        found.append((out.detach(), *torch.autograd.grad(chosen.sum(), depends)))
    for ours, wanted in zip(*found, strict=True):
        assert torch.equal(ours, wanted)

"""A forward pass makes tensors in the default type, casts, or keeps tensors in attributes: the units still go."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import torchlasso as tl

HIDDEN, DEAD = 8, 4


class Network(nn.Module):
    """A layer with dead units between functions of the input and of the outputs of layers."""

    def __init__(self, columns: int, before: Callable[..., Tensor], **kept: Any) -> None:
        super().__init__()
        self.first, self.last, self.before = nn.Linear(columns, HIDDEN), nn.Linear(HIDDEN, 2), before
        for name, value in kept.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(self.before(self, x)).relu())


def angles(self: Any, t: Tensor) -> Tensor:
    angle = t[:, None] * torch.exp(torch.arange(4) * (-math.log(1e4) / 3))
    return torch.cat([angle.sin(), angle.cos()], -1)


def causal(self: Any, x: Tensor) -> Tensor:
    mask = torch.ones(x.shape[1], x.shape[1]).tril().bool()
    return F.scaled_dot_product_attention(x, x, x, attn_mask=mask)


def masked(self: Any, x: Tensor) -> Tensor:
    mask = torch.full((x.shape[1], x.shape[1]), float("-inf")).triu(1)
    return (x @ x.mT + mask).softmax(-1) @ x


def recurrent(self: Any, x: Tensor) -> Tensor:
    return self.rnn(x, torch.zeros(1, len(x), 6))[0]


@dataclass
class Constants:
    scale: Tensor


def rows(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


CASES: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "time steps": lambda: (Network(8, angles), torch.tensor([3, 70])),
    "causal mask": lambda: (Network(5, causal), rows(2, 4, 5)),
    "additive mask": lambda: (Network(5, masked), rows(2, 4, 5)),
    "first hidden state": lambda: (Network(6, recurrent, rnn=nn.GRU(5, 6, batch_first=True)), rows(2, 4, 5)),
    "eye": lambda: (Network(5, lambda self, x: x @ torch.eye(5)), rows(2, 5)),
    "a list": lambda: (Network(5, lambda self, x: x * torch.tensor([1.0, 2, 3, 4, 5])), rows(2, 5)),
    "linspace": lambda: (Network(5, lambda self, x: x + torch.linspace(0, 1, 5) @ torch.rand(5, 5)), rows(2, 5)),
    "a type by name": lambda: (Network(5, lambda self, x: x @ torch.ones(5, 5, dtype=torch.float32)), rows(2, 5)),
    "a cast": lambda: (Network(5, lambda self, x: x.half().float() @ torch.ones(5, 5)), rows(2, 5)),
    "one hot": lambda: (Network(5, lambda self, x: F.one_hot(x, 5).float()), torch.tensor([3, 1, 4])),
    "norm in float": lambda: (
        Network(5, lambda self, x: F.layer_norm(x.to(torch.float32), (5,)).type_as(x)),
        rows(2, 5),
    ),
    "an attribute": lambda: (Network(5, lambda self, x: x @ self.basis, basis=rows(5, 5)), rows(2, 5)),
    "a list of tensors": lambda: (Network(5, lambda self, x: x @ self.bases[1], bases=[0, rows(5, 5)]), rows(2, 5)),
    "a tensor in an object": lambda: (
        Network(5, lambda self, x: x @ self.of["a"].scale, of={"a": Constants(rows(5, 5))}),
        rows(2, 5),
    ),
}


def dead(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        model.first.weight[:DEAD], model.first.bias[:DEAD] = 0, 0
    return model.eval()


@pytest.mark.parametrize("name", CASES)
def test_dead_units_are_removed(name: str):
    torch.manual_seed(0)
    model, x = CASES[name]()
    small = tl.compact(dead(model), x)
    assert small.first.out_features == HIDDEN - DEAD
    torch.manual_seed(0)
    wanted = model(x)
    torch.manual_seed(0)
    assert torch.allclose(small(x), wanted, atol=1e-5)
    assert {p.dtype for p in small.parameters()} == {torch.float32}


def test_the_default_type_is_as_it_was():
    for dtype in (torch.float32, torch.float64):
        torch.set_default_dtype(dtype)
        try:
            model, x = CASES["time steps"]()
            tl.compact(dead(model), x)
            with pytest.raises(ValueError, match="cannot be exported"):
                tl.compact(nn.Linear(3, 2), torch.zeros(2, 4))
            assert torch.get_default_dtype() == dtype
        finally:
            torch.set_default_dtype(torch.float32)


def test_attributes_of_the_model_and_the_inputs_are_as_they_were():
    model, x = CASES["a tensor in an object"]()
    kept, before = model.of["a"].scale, x.clone()
    small = tl.compact(dead(model), x)
    assert model.of["a"].scale is kept
    assert small.of["a"].scale.dtype == torch.float32
    assert torch.equal(x, before)


def test_inputs_that_a_model_writes_into_are_as_they_were():
    model, x = Network(5, lambda self, x: x.mul_(2)), rows(3, 5).double()
    before = x.clone()
    small = tl.compact(dead(model.double()), x)
    assert small.first.out_features == HIDDEN - DEAD
    assert torch.equal(x, before)


@torch.library.custom_op("torchlasso_tests::single", mutates_args=())
def single(x: Tensor) -> Tensor:
    if x.dtype != torch.float32:
        raise RuntimeError("only for float32")
    return 2 * x


@single.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def test_a_model_with_an_operator_without_float64_is_read_and_checked_in_float32():
    torch.manual_seed(0)
    model, x = dead(Network(5, lambda self, x: single(x))), rows(3, 5)
    with torch.no_grad():
        model.first.bias[1] = 0.5  # a constant, which is folded in float32
    small = tl.compact(model, x)
    assert small.first.out_features == HIDDEN - DEAD
    assert torch.allclose(small(x), model(x), atol=1e-5)

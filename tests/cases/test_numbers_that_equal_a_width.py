"""An integer that only happens to equal a size stays; a size is changed in every attribute that keeps it."""

from __future__ import annotations

import copy
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import torchlasso as tl

WIDTH, DEAD = 16, 8
LEFT = WIDTH - DEAD


def kill(layer: nn.Module, units: int = DEAD) -> None:
    with torch.no_grad():
        layer.weight[:units], layer.bias[:units] = 0, 0


class Table(nn.Module):
    """A hidden layer with dead units, a function of it, and numbers."""

    def __init__(self, function: Callable[[Any, Tensor], Tensor], **numbers: Any) -> None:
        super().__init__()
        self.function = function
        self.hidden, self.last = nn.Linear(6, WIDTH), nn.Linear(WIDTH, 3)
        kill(self.hidden)
        for name, value in numbers.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self, x))


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def rows(*shape: int) -> Tensor:
    return torch.randn(*shape)


# Integers that are not sizes of the removed units; their effect is visible only for other inputs

Other = tuple[Callable[[Any, Tensor], Tensor], dict[str, Any], Tensor, Tensor]


def hidden(self: Any, x: Tensor) -> Tensor:
    return self.hidden(x).relu()


def recent(self: Any, x: Tensor) -> Tensor:
    return hidden(self, x[:, -self.longest :]).mean(1)


def tiled(self: Any, x: Tensor) -> Tensor:
    return torch.cat([hidden(self, part).cumsum(1) for part in x.split(self.tile, dim=1)], 1)


def windows(self: Any, x: Tensor) -> Tensor:
    padded = F.pad(x, (0, 0, 0, -x.shape[1] % self.window))
    parts = padded.unflatten(1, (-1, min(self.window, padded.shape[1])))
    return hidden(self, parts.softmax(2).flatten(1, 2)[:, : x.shape[1]])


def resized(self: Any, x: Tensor) -> Tensor:
    return hidden(self, F.adaptive_max_pool2d(x[:, None], (self.side, 6))[:, 0]).amax(1)


def classes(self: Any, x: Tensor) -> Tensor:
    return hidden(self, F.one_hot(x.clamp(0, self.classes - 1), 6).float())


def best(self: Any, x: Tensor) -> Tensor:
    return hidden(self, x.topk(min(self.k, x.shape[1]), dim=1).values.mean(1))


def iterated(self: Any, x: Tensor) -> Tensor:
    for _ in range(min(self.steps, 2 + x.shape[1] // 8)):
        x = x / 2 + x.sin()
    return hidden(self, x)


def strided(self: Any, x: Tensor) -> Tensor:
    return hidden(self, F.max_pool1d(x.mT, 1, stride=1, dilation=self.dilation).mT)


def limited(self: Any, x: Tensor) -> Tensor:
    return hidden(self, x if x.shape[1] <= self.most else x[:, :: x.shape[1] // self.most])


OTHERS: dict[str, Other] = {
    "a longest length": (recent, {"longest": 16}, rows(2, 5, 6), rows(2, 14, 6)),
    "a tile": (tiled, {"tile": 16}, rows(2, 5, 6), rows(2, 14, 6)),
    "a window": (windows, {"window": 16}, rows(2, 5, 6), rows(2, 23, 6)),
    "a side": (resized, {"side": 16}, rows(2, 5, 6), rows(2, 31, 6)),
    "top k": (best, {"k": 16}, rows(2, 5, 6), rows(2, 14, 6)),
    "a number of iterations": (iterated, {"steps": 16}, rows(2, 5, 6), rows(2, 90, 6)),
    "a dilation": (strided, {"dilation": 16}, rows(2, 5, 6), rows(2, 14, 6)),
    "a limit": (limited, {"most": 16}, rows(2, 5, 6), rows(2, 40, 6)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_number_that_equals_a_width_stays(name: str):
    function, numbers, x, longer = OTHERS[name]
    model = Table(function, **numbers, num_classes=WIDTH, out={"of": [WIDTH, (WIDTH,)]}).eval()
    small = tl.compact(model, x)
    assert small.hidden.out_features == LEFT
    assert {key: getattr(small, key) for key in numbers} == numbers
    assert (small.num_classes, small.out) == (WIDTH, {"of": [WIDTH, (WIDTH,)]})
    assert torch.allclose(small(longer), model(longer), atol=1e-5)


# Sizes, wherever a module keeps them


@dataclass
class Config:
    heads: int = 4
    longest: int = 4
    nested: dict[str, Any] = field(default_factory=lambda: {"sizes": [7, (4, 4)]})


@dataclass(frozen=True)
class Frozen:
    heads: int = 4
    layers: int = 4


Pair = namedtuple("Pair", "heads groups")

KEPT: dict[str, tuple[Any, Callable[[Any], int], Callable[[Any], Any]]] = {
    "a number": (4, lambda kept: kept, lambda kept: None),
    "a tuple": ((4, 4), lambda kept: kept[1], lambda kept: kept[0]),
    "a list": ([4, 4, 4], lambda kept: kept[1], lambda kept: kept[::2]),
    "a dictionary": ({"heads": 4, "layers": 4}, lambda kept: kept["heads"], lambda kept: kept["layers"]),
    "a dataclass": (Config(), lambda kept: kept.heads, lambda kept: (kept.longest, kept.nested)),
    "deep in a dataclass": (
        Config(),
        lambda kept: kept.nested["sizes"][1][0],
        lambda kept: (kept.heads, kept.longest, kept.nested["sizes"][1][1]),
    ),
    "a frozen dataclass": (Frozen(), lambda kept: kept.heads, lambda kept: kept.layers),
    "a namespace": (SimpleNamespace(a=SimpleNamespace(heads=4), b=4), lambda kept: kept.a.heads, lambda kept: kept.b),
    "a named tuple": (Pair(4, 4), lambda kept: kept.heads, lambda kept: kept.groups),
}


class Attention(nn.Module):
    def __init__(self, kept: Any, heads: Callable[[Any], int]) -> None:
        super().__init__()
        self.kept, self.heads, self.size = kept, heads, 3
        self.qkv, self.out = nn.Linear(6, 36), nn.Linear(12, 5)
        with torch.no_grad():  # two of four heads
            self.out.weight[:, 3:9] = 0

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(x).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (self.heads(self.kept), self.size)).transpose(1, 2) for part in parts)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("name", KEPT)
def test_a_size_is_changed_everywhere_and_its_neighbours_stay(name: str):
    kept, heads, rest = KEPT[name]
    kept = copy.deepcopy(kept)
    model, x = nn.Sequential(nn.Linear(6, 6), Attention(kept, heads), nn.Linear(5, 2)).eval(), rows(2, 5, 6)
    beside = copy.deepcopy(rest(kept))
    small = tl.compact(model, x)
    assert small[1].qkv.out_features == 18
    assert heads(small[1].kept) == 2
    assert type(small[1].kept) is type(kept)
    assert rest(small[1].kept) == beside
    assert small[1].size == 3
    assert heads(model[1].kept) == 4
    longer = rows(3, 9, 6)
    assert torch.allclose(small(longer), model(longer), atol=1e-5)


def test_a_number_that_is_also_used_for_something_else_keeps_the_units():
    class Both(Table):
        def forward(self, x: Tensor) -> Tensor:
            h = hidden(self, x).view(len(x), -1, self.width)
            return self.last(h[:, -self.width :]).mean(1)  # a size, and a number of steps

    model = Both(hidden, width=WIDTH).eval()
    small, report = tl.compact(model, rows(2, 5, 6), return_report=True)
    longer = rows(2, 14, 6)
    assert torch.allclose(small(longer), model(longer), atol=1e-5)
    assert small.hidden.out_features == WIDTH
    assert any("at another size" in why for family in report.families for why in family.why)


def test_two_numbers_change_at_once():
    class Grouped(Table):
        def forward(self, x: Tensor) -> Tensor:
            h = hidden(self, x).reshape(len(x), self.groups, self.size)
            return self.last(h.reshape(len(x), self.groups * self.size))

    model = Grouped(hidden, groups=4, size=4).eval()
    with torch.no_grad():
        order = torch.arange(WIDTH).view(4, 4)
        model.hidden.weight.fill_(1.0), model.hidden.bias.fill_(1.0)
        gone = torch.cat([order[0], order[:, 1]])
        model.hidden.weight[gone], model.hidden.bias[gone] = 0, 0
    small = tl.compact(model, rows(5, 6))
    assert (small.groups, small.size, small.hidden.out_features) == (3, 3, 9)


# Subclasses of torch's modules


class LowRank(nn.Linear):
    """A linear layer with integers in attributes."""

    def __init__(self, columns: int, made: int, rank: int) -> None:
        super().__init__(columns, made)
        self.rank, self.down, self.up = (
            rank,
            nn.Parameter(torch.randn(rank, columns)),
            nn.Parameter(torch.zeros(made, rank)),
        )

    def forward(self, x: Tensor) -> Tensor:
        low = F.linear(x, self.down).view(*x.shape[:-1], self.rank)
        return super().forward(x) + F.linear(low, self.up)


def test_a_linear_layer_with_a_rank_of_its_own():
    for dead_rank in (False, True):
        layer = LowRank(6, WIDTH, WIDTH)
        with torch.no_grad():
            layer.up[DEAD:] = torch.randn(DEAD, WIDTH)
            if dead_rank:
                layer.up[:, :4] = 0
        kill(layer)
        model = nn.Sequential(layer, nn.ReLU(), nn.Linear(WIDTH, 3)).eval()
        x = rows(5, 6)
        small = tl.compact(model, x)
        assert (small[0].in_features, small[0].out_features) == (6, LEFT)
        assert small[0].rank == (WIDTH - 4 if dead_rank else WIDTH)
        assert torch.allclose(small(x), model(x), atol=1e-4)


class Standardised(nn.Conv2d):
    """A convolution whose weight is standardised first; its groups mean something else."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


@pytest.mark.parametrize("groups", [1, 4])
def test_a_convolution_whose_first_operator_is_another(groups: int):
    first, second = nn.Conv2d(2, 16, 1), Standardised(16, 16, 3, padding=1, groups=groups)
    with torch.no_grad():
        for layer in (first, second):
            layer.weight[:8], layer.bias[:8] = 0, 0
    model = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Conv2d(16, 2, 1)).eval()
    x = rows(2, 2, 6, 6)
    small = tl.compact(model, x)
    assert torch.allclose(small(x), model(x), atol=1e-5)
    assert (small[2].in_channels, small[2].out_channels) == (small[0].out_channels, small[2].weight.shape[0])
    assert small[2].in_channels == small[2].groups * small[2].weight.shape[1]


def test_an_attention_of_torch_with_fewer_inputs():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into, self.context = nn.Linear(6, WIDTH), nn.Linear(6, 12)
            self.attention, self.last = nn.MultiheadAttention(WIDTH, 4, kdim=12, vdim=12), nn.Linear(WIDTH, 3)
            kill(self.context, 4)

        def forward(self, x: Tensor) -> Tensor:
            context = self.context(x).relu()
            return self.last(self.attention(self.into(x), context, context, need_weights=False)[0])

    model, x = Net().eval(), rows(5, 2, 6)
    small = tl.compact(model, x)
    assert torch.allclose(small(x), model(x), atol=1e-5)
    assert (small.attention.embed_dim, small.attention.num_heads, small.attention.head_dim) == (WIDTH, 4, 4)
    assert small.attention.kdim == small.attention.k_proj_weight.shape[1] == small.context.out_features

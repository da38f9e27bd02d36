"""Operators that compaction does not understand, and operators with rules of their own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.support.compaction import Function, compacted, images, ready, rows, why, zero
from torchlasso.compaction import compact

pytestmark = pytest.mark.usefixtures("seeded")


class Around(nn.Module):
    """A layer, then something, then two more layers."""

    def __init__(self, inside: Callable[[Tensor], Tensor], width: int) -> None:
        super().__init__()
        self.stem, self.mlp, self.head = nn.Linear(4, 6), nn.Linear(width, 8), nn.Linear(8, 2)
        self.inside = inside

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.mlp(self.inside(self.stem(x)))))


def test_an_unknown_operator_is_named_and_its_units_stay():
    net = ready(Around(lambda x: torch.cdist(x, x.new_ones(4, 6)), 4))
    zero(net.stem.weight, 1)
    zero(net.stem.bias, 1)
    zero(net.mlp.weight, 5)
    small, found = compacted(net, rows(4))
    (name,) = found.unknown
    assert "cdist" in name
    assert why(found, 6) == f"{name} is not understood"
    assert f"not understood: {name} (1×)" in str(found)
    assert found.to_dict()["unknown"] == {name: 1}
    assert (small.stem.out_features, small.mlp.out_features) == (6, 7)


@torch.library.custom_op("torchlasso_tests::doubled", mutates_args=())
def doubled(x: Tensor) -> Tensor:
    return x * 2


@doubled.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def test_a_custom_operator_is_named_and_its_units_stay():
    net = ready(Around(lambda x: doubled(x), 6))
    zero(net.stem.weight, 1)
    zero(net.stem.bias, 1)
    zero(net.mlp.weight, 5)
    small, found = compacted(net, rows(4))
    assert found.unknown == {"torchlasso_tests.doubled": 1}
    assert why(found, 6) == "torchlasso_tests.doubled is not understood"
    assert (small.stem.out_features, small.mlp.out_features) == (6, 7)


def test_a_model_that_cannot_be_exported_is_refused_in_one_line():
    class Choosing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(ValueError, match="Choosing cannot be exported, so its units are unknown: ") as caught:
        compact(Choosing(), torch.randn(2, 3))
    assert "\n" not in str(caught.value)


# Operators with special rules


def test_ranks_of_a_product_of_two_weights_are_removed():
    net = Function(
        lambda self, x: self.head(F.relu(F.linear(x, self.left @ self.right))),
        left=nn.Parameter(torch.zeros(7, 3)), right=nn.Parameter(torch.zeros(3, 4)), head=nn.Linear(7, 2),
    )  # fmt: skip
    net = ready(net)
    zero(net.left, 0, dim=1)  # in one factor only: the matching row of the other factor has no effect
    small, found = compacted(net, rows(4))
    assert found.removed == 1
    assert torch.equal(small.left, net.left[:, 1:])
    assert torch.equal(small.right, net.right[1:])


def test_both_inputs_of_a_bilinear_layer_become_smaller():
    net = Function(
        lambda self, x: self.head(self.pairs(F.relu(self.one(x)), F.relu(self.other(x)))),
        one=nn.Linear(4, 7), other=nn.Linear(4, 6), pairs=nn.Bilinear(7, 6, 5), head=nn.Linear(5, 2),
    )  # fmt: skip
    net = ready(net)
    for layer in (net.one, net.other):
        zero(layer.weight, 1)
        zero(layer.bias, 1)
    zero(net.head.weight, 2, dim=1)
    small, found = compacted(net, rows(4))
    assert found.removed == 3
    assert (small.pairs.in1_features, small.pairs.in2_features, small.pairs.out_features) == (6, 5, 4)


def test_a_norm_can_do_without_zeros():
    net = Function(lambda self, x: self.head(F.normalize(self.stem(x))), stem=nn.Linear(4, 7), head=nn.Linear(7, 2))
    net = ready(net)
    zero(net.stem.weight, 1, 2)
    zero(net.stem.bias, 1)
    _, found = compacted(net, rows(4))
    assert found.removed == 1  # the other is a constant, but not in relation to the length of all


def test_a_state_of_zeros_becomes_smaller_where_its_size_is_an_attribute():
    def forward(self: Any, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), self.size)
        for _ in range(2):
            state = torch.tanh(self.into(x) + self.back(state))
        return self.head(state)

    net = ready(Function(forward, size=7, into=nn.Linear(4, 7), back=nn.Linear(7, 7), head=nn.Linear(7, 2)))
    for tensor in (net.into.weight, net.into.bias, net.back.weight, net.back.bias):
        zero(tensor, 1, 5)
    small, found = compacted(net, rows(4))
    assert found.removed == 2
    assert small.size == 5


def test_queries_of_several_heads_share_one_key():
    def forward(self: Any, x: Tensor) -> Tensor:
        q = self.queries(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        found = F.scaled_dot_product_attention(q, self.keys(x)[:, None], self.values(x)[:, None], scale=0.5)
        return self.out(found.transpose(1, 2).flatten(2))

    layers = {"queries": nn.Linear(6, 12), "keys": nn.Linear(6, 4), "values": nn.Linear(6, 5), "out": nn.Linear(15, 2)}
    net = ready(Function(forward, heads=3, **layers))
    zero(net.out.weight, 5, 6, 7, 8, 9, dim=1)  # a head
    for layer in (net.keys, net.values):
        zero(layer.weight, 1)
        zero(layer.bias, 1)
    small, found = compacted(net, torch.randn(2, 7, 6, dtype=torch.float64))
    assert found.removed == 3
    assert small.heads == 2
    assert [small.get_parameter(f"{name}.weight").shape for name in layers] == [(6, 6), (3, 6), (4, 6), (2, 8)]


def test_the_multiplications_of_an_attention_are_counted():
    qkv = nn.Linear(12, 36)
    net = ready(Function(lambda self, x: F.scaled_dot_product_attention(*self.qkv(x).chunk(3, -1)), qkv=qkv))
    _, found = compact(net, torch.randn(1, 5, 12, dtype=torch.float64), return_report=True)
    assert found.before.flops == 2 * (5 * 12 * 36 + 2 * 5 * 5 * 12)


def test_batch_statistics_in_evaluation_are_understood():
    norm = nn.BatchNorm2d(7, track_running_stats=False)
    net = ready(nn.Sequential(nn.Conv2d(3, 7, 3), norm, nn.ReLU(), nn.Conv2d(7, 2, 3)))
    zero(net[0].weight, 1)  # the norm takes its bias away, and leaves the shift
    small, found = compacted(net, images())
    assert found.removed == 1
    assert found.unknown == {}
    assert small[1].num_features == 6


def test_a_single_image_without_a_batch():
    net = ready(
        nn.Sequential(nn.Conv2d(3, 7, 3), nn.ReLU(), nn.ConvTranspose2d(7, 5, 3), nn.ReLU(), nn.Conv2d(5, 2, 1))
    )
    zero(net[0].weight, 1)
    zero(net[2].weight, 3, dim=1)
    small, found = compacted(net, images()[0])
    assert found.removed == 2
    assert [(small[i].in_channels, small[i].out_channels) for i in (0, 2, 4)] == [(3, 6), (6, 4), (4, 2)]


def test_units_with_random_numbers_stay():
    def forward(self: Any, x: Tensor) -> Tensor:
        mean = self.mean(F.relu(self.stem(x)))
        return self.head(mean + torch.randn_like(mean))

    net = ready(Function(forward, stem=nn.Linear(4, 7), mean=nn.Linear(7, 5), head=nn.Linear(5, 2)))
    zero(net.stem.weight, 1)
    zero(net.mean.weight, 1)
    zero(net.head.weight, 1, dim=1)
    small, found = compact(net, rows(4), return_report=True)
    assert found.removed == 1
    assert small.stem.out_features == 6
    assert why(found, 5) == "randn_like draws a number for each"


def test_dropout_in_evaluation_is_understood():
    net = Function(
        lambda self, x: self.head(F.dropout(F.relu(self.stem(x)), 0.5, training=True)),
        stem=nn.Linear(4, 7), head=nn.Linear(7, 2),
    )  # fmt: skip
    net = ready(net)
    zero(net.stem.weight, 1, 2)
    net.stem.bias.data[[1, 2]] = torch.tensor([-0.5, 0.5], dtype=torch.float64)
    _, found = compact(net, rows(4), return_report=True)
    assert found.removed == 1  # not a constant that is dropped at random
    assert found.unknown == {}


@pytest.mark.parametrize("how", [nn.utils.parametrizations.spectral_norm, nn.utils.parametrizations.weight_norm])
def test_computed_weights_become_smaller_with_their_parameters(how: Callable[[nn.Module], nn.Module]):
    net = ready(nn.Sequential(how(nn.Linear(4, 7)), nn.ReLU(), nn.Linear(7, 2)))
    zero(next(net[0].parametrizations.weight.parameters()), 1)  # the weight, or how long each of its rows is
    before = copy.deepcopy(net.state_dict())
    small, found = compacted(net, rows(4))
    assert found.removed == 1
    assert small[0].out_features == 6
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name])

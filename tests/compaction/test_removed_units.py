"""The units that compaction removes, the sizes in attributes of modules, and the units that have to stay."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.support.compaction import Function, compacted, images, ready, rows, why, zero
from torchlasso.compaction import compact

pytestmark = pytest.mark.usefixtures("seeded")


def test_units_that_nothing_reads_are_removed():
    net = ready(nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 2)))
    zero(net[4].weight, 0, 5, dim=1)
    zero(net[2].weight, 3, dim=1)
    small, found = compacted(net, rows(4))
    assert [family.after for family in found.families if not family.why] == [6, 4]
    assert torch.equal(small[0].weight, net[0].weight[[0, 1, 2, 4, 5, 6]])


def test_units_read_only_by_unread_units_are_removed():
    net = ready(nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 2)))
    zero(net[4].weight, 1, dim=1)
    with torch.no_grad():
        net[2].weight[[0, 2, 3, 4, 5], 3] = 0
    assert compacted(net, rows(4))[1].removed == 2


def test_one_unit_is_left_of_a_layer_that_makes_no_difference():
    net = ready(nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 2)))
    nn.init.zeros_(net[0].weight)
    small, found = compacted(net, rows(4))
    assert small[0].out_features == 1
    assert why(found, 7) == "one unit has to stay"


def test_as_many_are_kept_as_make_a_multiple():
    net = ready(nn.Sequential(nn.Linear(4, 14), nn.ReLU(), nn.Linear(14, 10), nn.ReLU(), nn.Linear(10, 2)))
    zero(net[0].weight, *range(9))
    zero(net[2].weight, 4)
    small, found = compacted(net, rows(4), multiple_of=4)
    assert small[0].out_features == 8
    assert why(found, 14) == "8 make a multiple of 4"
    assert small[2].out_features == 10  # 12 would be more than there are
    assert why(found, 10) == "10 are fewer than the next multiple of 4"
    assert compacted(net, rows(4))[0][0].out_features == 5


@pytest.mark.parametrize("multiple_of", [0, -4])
def test_a_multiple_of_nothing_is_refused(multiple_of: int):
    with pytest.raises(ValueError, match=f"multiple_of must be a whole number of at least 1; got {multiple_of}"):
        compact(nn.Linear(2, 2), torch.randn(1, 2), multiple_of=multiple_of)


# Sizes that are written down in a forward


class Written(nn.Module):
    """A size that only the code knows."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.hidden, self.head = nn.Conv2d(3, 7, 3), nn.Linear(7 * 16, 9), nn.Linear(9, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x)).view(-1, 112)
        return self.head(F.relu(self.hidden(x)))


def test_trial_sizes_cause_no_warnings():
    def forward(self: Any, x: Tensor) -> Tensor:
        x = self.stem(x)
        half = x.shape[1] // 2  # not half of the remaining channels, if the halves keep different numbers
        return self.head(torch.cat([self.norm(x[:, :half]), x[:, half:]], dim=1))

    layers = {"stem": nn.Conv2d(3, 8, 1), "norm": nn.InstanceNorm2d(4), "head": nn.Conv2d(8, 2, 1)}
    net = ready(Function(forward, **layers))
    zero(net.stem.weight, 6)
    zero(net.stem.bias, 6)
    small, found = compacted(net, images())  # a warning would be an error
    assert (found.removed, small.norm.num_features) == (0, 4)
    zero(net.stem.weight, 1)
    zero(net.stem.bias, 1)
    small, found = compacted(net, images())
    assert (found.removed, small.norm.num_features) == (2, 3)


def test_a_size_that_is_written_down_keeps_its_units():
    net = ready(Written())
    zero(net.conv.weight, 2)
    zero(net.conv.bias, 2)
    zero(net.hidden.weight, 4)
    small, found = compacted(net, images())
    assert small.conv.out_channels == 7
    assert "Written could not run without it" in why(found, 7)
    assert small.hidden.out_features == 8


def test_unused_computations_keep_the_units_they_read():
    def forward(self: Any, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        self.unused(x)  # not in the graph, since no output depends on it
        return self.head(F.relu(self.hidden(x)))

    layers = {"stem": nn.Linear(4, 7), "unused": nn.Linear(7, 3), "hidden": nn.Linear(7, 6), "head": nn.Linear(6, 2)}
    net = ready(Function(forward, **layers))
    for layer in (net.stem, net.hidden):
        zero(layer.weight, 1)
        zero(layer.bias, 1)
    small, found = compacted(net, rows(4))
    assert (small.stem.out_features, small.hidden.out_features) == (7, 5)
    (stem,) = [family for family in found.families if family.name == "stem.weight:0"]
    assert "Function could not run without it (mat1 and mat2 shapes cannot be multiplied" in stem.why[0]


class Heads(nn.Module):
    """An attention as many write it: sizes are attributes, and the dimension of a head follows from them."""

    def __init__(self, width: int = 12, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, width // heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.scale = self.head_dim**-0.5

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, self.head_dim).permute(2, 0, 3, 1, 4)
        x = (q @ k.transpose(-1, -2) * self.scale).softmax(dim=-1) @ v
        return self.out(x.transpose(1, 2).reshape(batch, tokens, self.heads * self.head_dim))


def test_the_number_of_heads_is_updated():
    net = ready(nn.Sequential(Heads(), Heads()))
    with torch.no_grad():
        net[0].out.weight[:, 3:6] = 0  # of the first: one head
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    small, found = compacted(net, x)
    assert found.removed == 1
    assert (small[0].heads, small[0].head_dim) == (3, 3)
    assert (small[1].heads, small[1].head_dim) == (4, 3)
    assert small[0].qkv.out_features == 27


def test_heads_of_torch_s_own_attention_stay_with_a_reason():
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.mlp = nn.MultiheadAttention(12, 4, batch_first=True), nn.Linear(12, 7)
            self.head = nn.Linear(7, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = x + self.attention(x, x, x, need_weights=False)[0]
            return self.head(F.relu(self.mlp(x)))

    net = ready(Own())
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    zero(net.attention.out_proj.weight, 3, 4, 5, dim=1)
    zero(net.mlp.weight, 1)
    small, found = compacted(net, x)
    assert small.mlp.out_features == 6
    assert small.attention.in_proj_weight.shape == (36, 12)
    heads = [family for family in found.families if family.before == 4]
    assert any("MultiheadAttention could not run without it" in reason for family in heads for reason in family.why)


def test_a_transformer_s_layer_loses_its_neurons():
    layer = nn.TransformerEncoderLayer(12, 4, 20, batch_first=True, norm_first=True)
    net = ready(nn.Sequential(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(12, 2)))
    zero(net[0].layers[0].linear1.weight, 0, 3, 7)
    small, found = compacted(net, torch.randn(2, 5, 12, dtype=torch.float64), modes=(False,))
    assert found.removed == 3
    assert [each.linear1.out_features for each in small[0].layers] == [17, 20]


def test_pieces_of_equal_size_keep_equally_many():
    class Halves(nn.Module):
        """Two halves, one of which is shuffled later: by then, their sizes must already be tied."""

        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Linear(4, 12), nn.Linear(12, 2)

        def forward(self, x: Tensor) -> Tensor:
            one, other = self.stem(x).chunk(2, dim=1)
            other = other.reshape(len(x), 2, -1).transpose(1, 2).flatten(1)
            return self.head(torch.cat([torch.tanh(one), torch.relu(other)], dim=1))

    net = ready(Halves())
    zero(net.stem.weight, 0, 1, 3, 4, 7)
    zero(net.stem.bias, 0, 1, 3, 4, 7)
    _, found = compacted(net, rows(4))
    assert found.removed == 0
    zero(net.stem.weight, 10)  # with 7, which it goes with, one of three
    zero(net.stem.bias, 10)
    small, found = compacted(net, rows(4))
    assert small.stem.out_features == 8
    assert "keep equally many" in "; ".join(reason for family in found.families for reason in family.why)

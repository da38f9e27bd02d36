"""The units removed from a model, the constants added to biases for them, and the reasons of units that stay."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune

import torchlasso as tl
from tests.support.architectures import ARCHITECTURES
from torchlasso.compaction import CompactionReport, compact
from torchlasso.compaction.pipeline import find_compaction
from torchlasso.compaction.verify import difference

TOLERANCE = 1e-10  # of numbers in float64, relative to the largest


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def images(size: int = 6, channels: int = 3) -> Tensor:
    return torch.randn(3, channels, size, size, dtype=torch.float64)


def rows(columns: int) -> Tensor:
    return torch.randn(5, columns, dtype=torch.float64)


def ready(model: nn.Module) -> nn.Module:
    """In float64 and random, shifts and statistics too."""
    model = model.double()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 2) if "running_var" in name else tensor.normal_()
    return model


def compacted(model: nn.Module, x: Any, modes: tuple[bool, ...] = (False, True), **options: Any):
    """A smaller model that was seen to give the same, and the report."""
    small, found = compact(model, x, return_report=True, **options)
    for training in modes:
        ours, theirs = (copy.deepcopy(each).train(training)(x) for each in (small, model))
        assert (ours - theirs).abs().max() <= TOLERANCE * theirs.abs().max()
    return small, found


def why(found: CompactionReport, size: int) -> str:
    """The reasons for the only family that had so many units."""
    (family,) = [family for family in found.families if family.before == size]
    return "; ".join(family.why)


def zero(tensor: Tensor, *where: int, dim: int = 0) -> None:
    with torch.no_grad():
        tensor.index_fill_(dim, torch.tensor(where), 0.0)


class Function(nn.Module):
    """A function of some layers and an input."""

    def __init__(self, function: Callable[[Any, Tensor], Any], **layers: Any) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


# Constants


def test_a_constant_is_added_to_the_bias_of_the_next_layer():
    net = ready(nn.Sequential(nn.Linear(4, 7), nn.Sigmoid(), nn.Linear(7, 2)))
    zero(net[0].weight, 1, 4)
    small, found = compacted(net, rows(4))
    assert found.removed == 2
    added = net[2].weight[:, [1, 4]] @ torch.sigmoid(net[0].bias[[1, 4]])
    assert torch.allclose(small[2].bias, net[2].bias + added, rtol=0, atol=1e-12)


def test_a_constant_goes_through_all_that_comes_before_the_next_layer():
    layers = [nn.Conv2d(3, 7, 3, padding=1), nn.BatchNorm2d(7), nn.GELU(), nn.MaxPool2d(2), nn.Flatten()]
    net = ready(nn.Sequential(*layers, nn.Linear(63, 2)))
    zero(net[0].weight, 0, 2)
    net[0].bias.data[[0, 2]] = net[1].running_mean[[0, 2]]  # so that it is the same constant in training
    small, found = compacted(net, images())
    assert found.removed == 2
    assert small[0].weight.shape == (5, 3, 3, 3)
    assert small[5].in_features == 45


def test_a_constant_goes_into_a_convolution_that_does_not_pad():
    net = ready(nn.Sequential(nn.Conv2d(3, 7, 3), nn.ReLU(), nn.Conv2d(7, 2, 3)))
    zero(net[0].weight, 1, 3)
    net[0].bias.data[[1, 3]] = torch.tensor([0.7, -0.7], dtype=torch.float64)
    small, found = compacted(net, images())
    assert found.removed == 2
    added = 0.7 * net[2].weight[:, 1].sum((1, 2))
    assert torch.allclose(small[2].bias, net[2].bias + added, rtol=0, atol=1e-12)


def test_a_constant_stays_beside_a_border_of_zeros():
    net = ready(nn.Sequential(nn.Conv2d(3, 7, 3), nn.ReLU(), nn.Conv2d(7, 2, 3, padding=1)))
    zero(net[0].weight, 1, 3)
    net[0].bias.data[[1, 3]] = torch.tensor([0.7, -0.7], dtype=torch.float64)
    _, found = compacted(net, images())
    assert found.removed == 1  # what is zero behind the activation goes in spite of the border
    assert why(found, 7) == "its constant does not have the same effect everywhere in 2"


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_a_constant_goes_where_the_border_is_like_the_rest(mode: str):
    net = ready(nn.Sequential(nn.Conv2d(3, 7, 3), nn.ReLU(), nn.Conv2d(7, 2, 3, padding=1, padding_mode=mode)))
    zero(net[0].weight, 1)
    net[0].bias.data[1] = 0.7
    small, found = compacted(net, images())
    assert found.removed == 1
    assert (small[2].in_channels, small[2].out_channels) == (6, 2)


def test_a_constant_goes_into_the_running_mean_where_a_convolution_has_no_bias():
    net = nn.Sequential(nn.Conv2d(3, 7, 3), nn.ReLU(), nn.Conv2d(7, 5, 3, bias=False), nn.BatchNorm2d(5), nn.ReLU())
    net = ready(nn.Sequential(*net, nn.Flatten(), nn.Linear(20, 2)))
    zero(net[0].weight, 1)
    net[0].bias.data[1] = 0.7
    small, found = compacted(net, images())
    assert found.removed == 1
    added = 0.7 * net[2].weight[:, 1].sum((1, 2))
    assert torch.allclose(small[3].running_mean, net[3].running_mean - added, rtol=0, atol=1e-12)
    assert small[2].bias is None


def test_a_constant_stays_where_there_is_no_bias():
    net = ready(nn.Sequential(nn.Linear(4, 7), nn.Sigmoid(), nn.Linear(7, 2, bias=False)))
    zero(net[0].weight, 1)
    _, found = compacted(net, rows(4))
    assert found.removed == 0
    assert why(found, 7) == "its constant is not zero, and 2 has no bias to add it to"


def test_a_constant_stays_where_a_bias_is_used_twice_for_different_inputs():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other, self.shared = nn.Linear(4, 7), nn.Linear(4, 7), nn.Linear(7, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.shared(torch.sigmoid(self.one(x))) * self.shared(torch.sigmoid(self.other(x)))

    net = ready(Twice())
    zero(net.one.weight, 1)
    zero(net.other.weight, 1)
    _, found = compacted(net, rows(4))
    assert found.removed == 0
    assert "shared.bias, which is used more than once" in why(found, 7)
    net.other.bias.data[1] = net.one.bias.data[1]  # both ask for the same
    _, found = compacted(net, rows(4))
    assert found.removed == 1


def test_a_constant_that_is_summed_stays():
    class Summed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Linear(4, 7)

        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(self.stem(x)).sum(dim=1)

    net = ready(Summed())
    zero(net.stem.weight, 2)
    _, found = compacted(net, rows(4))
    assert found.removed == 0
    assert "adds up its constant" in why(found, 7)


def test_a_constant_of_training_alone_is_not_taken_for_one():
    net = ready(nn.Sequential(nn.Conv2d(3, 7, 3, bias=False), nn.BatchNorm2d(7), nn.Flatten(), nn.Linear(7 * 16, 2)))
    zero(net[0].weight, 1, 2)
    net[1].running_mean[2] = 0
    _, found = compacted(net, images())
    assert found.removed == 1


# Units that nothing reads, and what has to be left


def test_what_nothing_reads_goes():
    net = ready(nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 2)))
    zero(net[4].weight, 0, 5, dim=1)
    zero(net[2].weight, 3, dim=1)
    small, found = compacted(net, rows(4))
    assert [family.after for family in found.families if not family.why] == [6, 4]
    assert torch.equal(small[0].weight, net[0].weight[[0, 1, 2, 4, 5, 6]])


def test_what_is_only_read_by_what_nothing_reads_goes():
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
    assert why(found, 7) == "one has to be left"


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


def test_nobody_is_warned_of_sizes_that_are_only_tried():
    def forward(self: Any, x: Tensor) -> Tensor:
        x = self.stem(x)
        half = x.shape[1] // 2  # not half of what is left, if more is left of one half than of the other
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


def test_what_is_computed_and_not_used_keeps_what_it_reads():
    def forward(self: Any, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        self.unused(x)  # not in what was read, since no output depends on it
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


def test_the_heads_of_an_attention_are_counted_anew():
    net = ready(nn.Sequential(Heads(), Heads()))
    with torch.no_grad():
        net[0].out.weight[:, 3:6] = 0  # of the first: one head
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    small, found = compacted(net, x)
    assert found.removed == 1
    assert (small[0].heads, small[0].head_dim) == (3, 3)
    assert (small[1].heads, small[1].head_dim) == (4, 3)
    assert small[0].qkv.out_features == 27


def test_heads_of_torch_s_own_attention_stay_in_words():
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
        """Two halves, one of which is shuffled later: what ties their sizes has to be known by then."""

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


# What is not understood


class Around(nn.Module):
    """A layer, then something, then two more layers."""

    def __init__(self, inside: Callable[[Tensor], Tensor], width: int) -> None:
        super().__init__()
        self.stem, self.mlp, self.head = nn.Linear(4, 6), nn.Linear(width, 8), nn.Linear(8, 2)
        self.inside = inside

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.mlp(self.inside(self.stem(x)))))


def test_an_operator_that_is_not_understood_is_named_and_what_it_touches_stays():
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


def test_a_custom_operator_is_named_and_what_it_touches_stays():
    net = ready(Around(lambda x: doubled(x), 6))
    zero(net.stem.weight, 1)
    zero(net.stem.bias, 1)
    zero(net.mlp.weight, 5)
    small, found = compacted(net, rows(4))
    assert found.unknown == {"torchlasso_tests.doubled": 1}
    assert why(found, 6) == "torchlasso_tests.doubled is not understood"
    assert (small.stem.out_features, small.mlp.out_features) == (6, 7)


def test_recurrent_layers_stay_in_words():
    model, words = ARCHITECTURES["lstm"]()
    net = ready(model)
    zero(net.lstm.weight_ih_l0, 0, 8, 16, 24)
    zero(net.lstm.weight_hh_l0, 0, 8, 16, 24)
    zero(net.mlp.weight, 3)
    small, found = compacted(net, words)
    assert found.removed == 1
    assert small.mlp.out_features == 8
    (lstm,) = [family for family in found.families if family.name == "lstm.weight_ih_l0:0"]
    assert lstm.why == ("lstm is recurrent, which is not followed",)


def test_a_model_that_cannot_be_exported_is_refused_in_one_line():
    class Choosing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(ValueError, match="Choosing cannot be exported, so its units are unknown: ") as caught:
        compact(Choosing(), torch.randn(2, 3))
    assert "\n" not in str(caught.value)


# Operators of which something special is known


def test_ranks_of_a_product_of_two_weights_go():
    net = Function(
        lambda self, x: self.head(F.relu(F.linear(x, self.left @ self.right))),
        left=nn.Parameter(torch.zeros(7, 3)), right=nn.Parameter(torch.zeros(3, 4)), head=nn.Linear(7, 2),
    )  # fmt: skip
    net = ready(net)
    zero(net.left, 0, dim=1)  # of one factor only: what it is multiplied with makes no difference
    small, found = compacted(net, rows(4))
    assert found.removed == 1
    assert torch.equal(small.left, net.left[:, 1:])
    assert torch.equal(small.right, net.right[1:])


def test_what_reads_two_units_of_a_bilinear_layer():
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


def test_an_image_alone_is_no_batch():
    net = ready(
        nn.Sequential(nn.Conv2d(3, 7, 3), nn.ReLU(), nn.ConvTranspose2d(7, 5, 3), nn.ReLU(), nn.Conv2d(5, 2, 1))
    )
    zero(net[0].weight, 1)
    zero(net[2].weight, 3, dim=1)
    small, found = compacted(net, images()[0])
    assert found.removed == 2
    assert [(small[i].in_channels, small[i].out_channels) for i in (0, 2, 4)] == [(3, 6), (6, 4), (4, 2)]


def test_what_random_numbers_are_drawn_for_stays():
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


def test_what_is_dropped_in_evaluation_too_is_understood():
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
def test_weights_that_are_computed_go_with_what_they_are_computed_from(how: Callable[[nn.Module], nn.Module]):
    net = ready(nn.Sequential(how(nn.Linear(4, 7)), nn.ReLU(), nn.Linear(7, 2)))
    zero(next(net[0].parametrizations.weight.parameters()), 1)  # the weight, or how long each of its rows is
    before = copy.deepcopy(net.state_dict())
    small, found = compacted(net, rows(4))
    assert found.removed == 1
    assert small[0].out_features == 6
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name])


# Training


def test_what_runs_in_training_only_keeps_what_it_reads():
    def forward(self: Any, x: Tensor) -> Any:
        x = F.relu(self.stem(x))
        y = self.head(F.relu(self.hidden(x)))
        return (y, self.second(x)) if self.training else y

    net = ready(
        Function(
            forward, stem=nn.Linear(4, 7), hidden=nn.Linear(7, 6), head=nn.Linear(6, 2), second=nn.Linear(7, 2)
        )
    )  # fmt: skip
    zero(net.stem.weight, 1)
    zero(net.stem.bias, 1)
    zero(net.hidden.weight, 2, 3)
    small, found = compacted(net, rows(4), modes=(False,))
    assert (small.stem.out_features, small.hidden.out_features) == (7, 4)
    assert why(found, 7).startswith("it is needed in training (")
    ours, theirs = (model.train()(torch.ones(3, 4, dtype=torch.float64)) for model in (small, net))
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).abs().max() <= TOLERANCE * b.abs().max()


def test_a_model_that_cannot_be_trained_without_a_target_is_compared_in_evaluation():
    def forward(self: Any, x: Tensor, target: Tensor | None = None) -> Tensor:
        y = self.head(F.relu(self.stem(x)))
        return (y - target).square().mean() if self.training else y  # of None a TypeError

    net = ready(Function(lambda self, x: forward(self, x), stem=nn.Linear(4, 7), head=nn.Linear(7, 2)))
    zero(net.stem.weight, 1)
    assert compacted(net, rows(4), modes=(False,))[1].removed == 1


def test_a_difference_is_seen_whatever_is_not_finite():
    one, nan, inf = (torch.tensor([1.0, x]) for x in (2.0, float("nan"), float("inf")))
    assert difference([one], [one]) == difference([nan], [nan]) == difference([inf], [inf]) == 0
    for ours, theirs in [(one, nan), (nan, one), (inf, one), (one, inf), (nan, inf), (inf, -inf)]:
        assert difference([ours], [theirs]) == float("inf")
    assert difference([one], [one[:1]]) == difference([one], []) == float("inf")
    assert difference([torch.tensor([1, 2])], [torch.tensor([1, 3])]) == float("inf")
    assert difference([torch.tensor([3.0, 8.0])], [torch.tensor([1.0, 8.0])]) == 0.25
    assert difference([torch.tensor([0.25])], [torch.tensor([0.5])]) == 1
    assert difference([torch.tensor([0.25])], [torch.tensor([0.5])], least=[1.0]) == 0.25
    assert difference([torch.zeros(1)], [torch.full((1,), 1e-30)]) == float("inf")


# How a model is


def test_it_is_a_function_of_the_package():
    assert tl.compact is compact


def test_frozen_parameters_stay_frozen():
    net = ready(nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 2)))
    zero(net[0].weight, 1)
    net[0].requires_grad_(False)
    small, found = compacted(net, rows(4))
    assert found.removed == 1
    assert [p.requires_grad for p in small.parameters()] == [False, False, True, True]
    assert all(isinstance(p, nn.Parameter) for p in small.parameters())


def test_what_is_shared_stays_shared():
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.inner = nn.Linear(4, 7), nn.Linear(7, 7)
            self.again, self.head = self.inner, nn.Linear(7, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.relu(self.again(F.relu(self.inner(F.relu(self.stem(x)))))))

    net = ready(Shared())
    for layer in (net.stem, net.inner):
        zero(layer.weight, 2)
        zero(layer.bias, 2)
    zero(net.inner.weight, 2, dim=1)
    small, found = compacted(net, rows(4))
    assert found.removed == 1
    assert small.again is small.inner
    assert small.inner.weight.shape == (6, 6)
    assert list(small.state_dict()) == list(net.state_dict())


def test_a_weight_of_two_modules_stays_one():
    model, x = ARCHITECTURES["tied-embedding"]()
    net = ready(model)
    for tensor, dim in ((net.embedding.weight, 1), (net.into.weight, 1), (net.out.weight, 0), (net.out.bias, 0)):
        zero(tensor, 0, 4, dim=dim)
    small, found = compacted(net, x)
    assert found.removed == 2
    assert small.head.weight is small.embedding.weight
    assert (small.head.in_features, small.embedding.embedding_dim) == (4, 4)


def test_parameters_that_are_cut_are_the_same_objects_with_their_gradients():
    net = ready(nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 2)))
    x = rows(4)
    net(x).square().sum().backward()
    zero(net[0].weight, 1)
    before = copy.deepcopy(net)
    parameters = list(net.parameters())
    grads = [p.grad for p in parameters]
    changed = find_compaction(net, x).apply_(net)
    assert [id(p) for p in net.parameters()] == [id(p) for p in parameters]
    assert [id(p) for p, _ in changed] == [id(p) for p in parameters[:3]]
    kept = [0, 2, 3, 4, 5, 6]
    assert torch.equal(net[0].weight, before[0].weight[kept])
    assert torch.equal(net[0].weight.grad, grads[0][kept])
    assert torch.equal(net[2].weight.grad, grads[2][:, kept])
    assert torch.equal(net[2].bias.grad, grads[3])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_model_keeps_its_precision(dtype: torch.dtype):
    net = ready(nn.Sequential(nn.Conv2d(3, 7, 3), nn.ReLU(), nn.Conv2d(7, 2, 3))).to(dtype)
    zero(net[0].weight, 1)
    net[0].bias.data[1] = 0.75
    small, found = compact(net, images().to(dtype), return_report=True)
    assert found.removed == 1
    assert {p.dtype for p in small.parameters()} == {dtype}
    added = 0.75 * net[2].weight[:, 1].double().sum((1, 2))
    assert torch.equal(small[2].bias, (net[2].bias.double() + added).to(dtype))  # rounded once


@pytest.mark.parametrize("cast", [Tensor.float, lambda x: x.to(torch.float32), lambda x: x.type(torch.float32)])
def test_what_is_computed_less_exactly_than_the_rest_is_compared_exactly(cast: Callable[[Tensor], Tensor]):
    net = Function(
        lambda self, x: F.linear(cast(F.relu(self.stem(x))), cast(self.head.weight), cast(self.head.bias)),
        stem=nn.Linear(4, 60), head=nn.Linear(60, 2),
    )  # fmt: skip
    net = ready(net)
    for tensor in net.stem.parameters():
        zero(tensor, *range(0, 60, 3))
    small, found = compact(net, rows(4), return_report=True)
    assert found.removed == 20
    assert small.head.in_features == 40


def test_tensors_that_are_attributes_are_read_in_the_precision_of_the_rest():
    net = Function(
        lambda self, x: self.head(F.relu(self.stem(x @ self.basis))),
        basis=torch.randn(4, 4), stem=nn.Linear(4, 7), head=nn.Linear(7, 2),
    )  # fmt: skip
    zero(net.stem.weight, 1)
    small, found = compact(net, torch.randn(5, 4), return_report=True)
    assert found.removed == 1
    assert small.basis.dtype == torch.float32


def test_weights_that_cannot_be_copied_are_refused_in_one_line():
    layer = nn.Linear(4, 7)
    prune.random_unstructured(layer, "weight", 0.5)
    with pytest.raises(ValueError, match="Linear cannot be exported, so its units are unknown: Only Tensors") as caught:
        compact(layer, torch.randn(2, 4))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_a_model_keeps_its_layout(layout: torch.memory_format):
    net = ready(nn.Sequential(nn.Conv2d(3, 7, 3), nn.ReLU(), nn.Conv2d(7, 2, 3))).to(memory_format=layout)
    zero(net[0].weight, 1)
    small, found = compacted(net, images().to(memory_format=layout))
    assert found.removed == 1
    for conv in (small[0], small[2]):
        assert conv.weight.is_contiguous(memory_format=layout)
        assert conv.weight.is_contiguous() == (layout is torch.contiguous_format)


@pytest.mark.parametrize("training", [False, True])
def test_a_model_stays_in_its_mode(training: bool):
    net = ready(nn.Sequential(nn.Linear(4, 7), nn.BatchNorm1d(7), nn.Dropout(), nn.Linear(7, 2))).train(training)
    net[1].eval()  # as of a norm that is frozen
    zero(net[3].weight, 1, dim=1)
    small, found = compact(net, rows(4), return_report=True)
    assert found.removed == 1
    for model in (net, small):
        assert [module.training for module in model.modules()] == [training, training, False, training, training]


def test_a_model_is_read_with_arguments_of_any_kind():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right, self.head = nn.Linear(4, 7), nn.Linear(3, 7), nn.Linear(7, 2)

        def forward(self, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
            hidden = self.left(x) if y is None else self.left(x) + self.right(y)
            return {"out": self.head(F.relu(hidden))}

    net = ready(Two())
    zero(net.left.weight, 1)
    zero(net.right.weight, 1, 2)
    both = (rows(4), rows(3))
    assert compact(net, both).left.out_features == 6
    assert compact(net, {"x": both[0], "y": both[1]}).left.out_features == 6
    one = compact(net, both[0])  # the other branch does not run, so that nothing is known of it
    assert (one.left.out_features, one.right.out_features) == (6, 7)

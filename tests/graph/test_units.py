"""Units are found in all tensors that they have slices in, and which of them are idle."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import torchlasso as tl
from tests.support.units import slices_of
from torchlasso.graph import find_units
from torchlasso.graph.structure import structure


class Residual(nn.Module):
    def __init__(self, inside: int = 6, width: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.first = nn.Conv2d(width, inside, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(inside)
        self.second = nn.Conv2d(inside, width, 3, padding=1)
        self.head = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.second(F.relu(self.norm(self.first(x))))
        return self.head(x.mean((2, 3)))


class Attention(nn.Module):
    def __init__(self, width: int = 12, heads: int = 3, scale: float | None = 0.5) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.heads, self.scale = heads, scale

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        x = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return self.out(x.transpose(1, 2).flatten(2))


def places(model: nn.Module, x: Tensor) -> dict[int, set[tuple[str, int]]]:
    """The places of the removable families by their size, where these differ."""
    return {family.size: set(family.places) for family in find_units(model, x).removable}


IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_layers_that_are_added_share_their_units():
    found = places(Residual(), IMAGES)
    inside = {("first.weight", 0), ("second.weight", 1)}
    assert found[6] == inside | {(f"norm.{name}", 0) for name in ("weight", "bias", "running_mean", "running_var")}
    stream = {("stem.weight", 0), ("stem.bias", 0), ("first.weight", 1)}
    assert found[4] == stream | {("second.weight", 0), ("second.bias", 0), ("head.weight", 1)}


def test_flattened_channels_include_all_their_positions():
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Flatten(), nn.Linear(5 * 36, 2))
    units = find_units(net, IMAGES)
    (channels,) = units.removable
    assert channels.size == 5
    (slices,) = [where for name, k, where in slices_of(units, channels, 2) if (name, k) == ("2.weight", 1)]
    assert slices.tolist() == list(range(72, 108))


def test_depthwise_and_grouped_convolutions():
    depthwise = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(6, 2, 1))
    assert places(depthwise, IMAGES)[6] == {
        *((f"{i}.{name}", 0) for i in (0, 1) for name in ("weight", "bias")),
        ("2.weight", 1),
    }
    grouped = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 4, 3, groups=2), nn.Conv2d(4, 2, 1))
    sizes = sorted(family.size for family in find_units(grouped, IMAGES).removable)
    assert sizes == [2, 2, 3]  # groups; channels of a group behind and before it


def test_concatenated_branches_stay_apart():
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(9, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(torch.cat([self.a(x), self.b(x)], dim=1))

    units = find_units(Branches(), IMAGES)
    second = next(family for family in units.removable if family.size == 5)
    (columns,) = [where for name, k, where in slices_of(units, second, 1) if (name, k) == ("c.weight", 1)]
    assert columns.tolist() == [5]


def test_heads_and_their_dimensions():
    x = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0))
    assert sorted(family.size for family in find_units(Attention(), x).removable) == [3, 4, 4]
    default = [family for family in find_units(Attention(scale=None), x).families if family.pins]
    assert any("scaled_dot_product_attention scales by its size" in family.pins for family in default)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.LayerNorm(6), "layer_norm normalises over it"),
        (nn.Softmax(dim=-1), "softmax runs along it"),
    ],
)
def test_operators_that_need_a_whole_dimension_pin_it(layer: nn.Module, reason: str):
    units = find_units(nn.Sequential(nn.Linear(4, 6), layer, nn.Linear(6, 2)), torch.randn(3, 4))
    assert not units.removable
    (hidden,) = [family for family in units.families if family.size == 6]
    assert any(reason in pin for pin in hidden.pins)


class Around(nn.Module):
    """A layer, then something, then two more layers."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.stem, self.inside = nn.Linear(4, 5), inside
        self.mlp, self.head = nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.mlp(self.inside(self.stem(x)))))


class Distances(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.points = nn.Parameter(torch.randn(6, 5))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cdist(x, self.points)


def test_an_unknown_operator_pins_its_dimensions_and_is_named():
    units = find_units(Around(Distances()), torch.randn(3, 4))
    assert [family.size for family in units.removable] == [8]
    (name,) = units.structure.unknown
    assert "cdist" in name
    pinned = {family.size: family.pins for family in units.families if family.pins}
    assert f"{name} is not understood" in pinned[5]
    assert f"{name} is not understood" in pinned[6]


def test_units_without_any_name_the_operators_that_are_not_understood():
    with pytest.raises(ValueError, match=r"no removable unit.*operators that are not understood.*cdist"):
        tl.Units(nn.Sequential(nn.Linear(4, 5), Distances()), torch.randn(3, 4))


@pytest.mark.parametrize(
    ("mix", "reason"),
    [
        (lambda h: h + h.roll(1, -1), r"0\.weight:0 stays whole, since roll"),
        (lambda h: h.cumsum(1), r"0\.weight:0 stays whole, since cumsum runs along it"),
    ],
)
def test_units_without_any_say_why_they_stay(mix: Callable[[Tensor], Tensor], reason: str):
    class Mixing(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return self[1](mix(self[0](x)))

    with pytest.raises(ValueError, match=rf"no removable unit.*there is none: {reason}"):
        tl.Units(Mixing(nn.Linear(4, 6), nn.Linear(6, 2)), torch.randn(3, 4))


def changed(model: nn.Module, x: Tensor) -> None:
    tl.shrink_(model, tl.ProxSGD(tl.param_groups(model, tl.L1(), lam=0.1), lr=0.1), x)


CALLS = [tl.compact, tl.Units, find_units, tl.Inputs, changed, lambda model, x: tl.report(model, example_inputs=x),
         lambda model, x: tl.accelerate(model, x, seconds=0.01)]  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
def test_inputs_without_rows_are_refused(call: Callable[[nn.Module, Tensor], object]):
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"at least one row"):
        call(model, torch.randn(0, 4))
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


def test_inputs_for_which_nothing_is_returned_are_refused():
    class Selected(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))

        def forward(self, x: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
            y = self.body(x) * scale
            return y, y.relu()

    with pytest.raises(ValueError, match=r"Selected returns no numbers .* at least one row.*\(0, 2\), \(0, 2\)"):
        tl.compact(Selected(), (torch.randn(0, 4), torch.ones(1)))


def test_a_model_that_cannot_be_exported_is_refused_with_a_reason():
    class Choosing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(ValueError, match="Choosing cannot be exported"):
        find_units(Choosing(), torch.randn(2, 3))


def test_the_model_is_not_changed():
    model = Residual().train()
    before = copy.deepcopy(model.state_dict())
    find_units(model, IMAGES).idle()
    assert model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


@torch.no_grad()
def test_units_are_idle_where_nothing_comes_in_or_nothing_reads_them():
    torch.manual_seed(0)
    model = Residual()
    for parameter in model.parameters():
        parameter.normal_()
    model.first.weight[1] = 0  # a constant, though not zero: the shift of the norm
    model.norm.running_mean.zero_()
    model.second.weight[:, 4] = 0  # not read
    model.stem.weight[2] = 0
    model.second.weight[2] = 0  # the same in both terms of the sum
    model.second.weight[3] = 0  # in one of them only
    idle = find_units(model, IMAGES).idle()
    found = {name: mask.nonzero().flatten().tolist() for name, mask in idle.items()}
    assert sorted(found.values()) == [[1, 4], [2]]


@torch.no_grad()
def test_units_that_read_only_idle_units_are_idle():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 2))
    net[4].weight[:, 3] = 0  # the third of the second layer is not read
    net[2].weight[:, 1] = 0
    net[2].weight[3, 1] = 1.0  # the only one that reads the first of the first layer
    idle = find_units(net, torch.randn(3, 4)).idle()
    assert [mask.nonzero().flatten().tolist() for mask in idle.values()] == [[1], [3]]


@torch.no_grad()
def test_a_constant_that_is_another_one_in_training_does_not_count():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(256, 2))
    net[0].weight[1] = net[0].weight[2] = 0
    net[1].running_mean[1] = 0.5  # in training the mean is 0
    (mask,) = find_units(net, IMAGES).idle().values()
    assert mask.nonzero().flatten().tolist() == [2]


@pytest.mark.parametrize(
    "turned",
    [
        lambda x: x.permute(0, 2, 3, 1),
        lambda x: x.movedim(1, -1),
        lambda x: x.transpose(1, 3),
        lambda x: x.transpose(1, 2).transpose(-1, -2),
        lambda x: x.flatten(2).mT,
    ],
)
def test_channels_are_followed_through_any_order_of_dimensions(turned: Callable[[Tensor], Tensor]):
    class Turning(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 5, 1), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(turned(self.conv(x)))

    assert places(Turning(), IMAGES)[5] == {("conv.weight", 0), ("conv.bias", 0), ("head.weight", 1)}


def test_pairs_of_units_pin_them():
    class Pairs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Linear(4, 3), nn.Linear(9, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.stem(x)
            return self.head((y[:, :, None] * y[:, None, :]).flatten(1))

    units = find_units(Pairs(), torch.randn(2, 4))
    assert not units.removable
    assert next(family for family in units.families if family.size == 3).pins == ("it is combined with itself",)


class Packed(nn.Module):
    """Several sequences in one row, whose ends are found by differences, as in transformers' masks."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.norm, self.out = nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        starts = torch.diff(positions, prepend=positions[:, :1] - 1, dim=-1) != 1
        kept = (positions > 0) & ~starts  # (batch, length)
        y = self.norm(self.hidden(x).transpose(1, 2)).transpose(1, 2)
        return self.out(nn.functional.dropout(y, training=self.training).relu() * kept[..., None])


def test_a_model_of_known_operators_is_read_as_it_is_exported():
    inputs = torch.randn(2, 4, 3), torch.tensor([[0, 1, 2, 3], [0, 1, 0, 1]])
    read = structure(Packed().eval(), inputs)
    names = {str(node.target) for node in read.trace.nodes}
    assert {"aten.diff.default", "aten.__and__.Tensor", "aten.batch_norm.default"} <= names
    assert not read.unknown
    (hidden,) = find_units(Packed().eval(), inputs).removable
    assert hidden.size == 6


def test_modules_in_training_mode_are_read_in_evaluation():
    class Dropped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.out = nn.Linear(3, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(nn.functional.dropout(self.hidden(x), training=True))

    read = structure(Dropped().eval(), torch.randn(2, 3))
    assert "aten.native_dropout.default" in {str(node.target) for node in read.trace.nodes}

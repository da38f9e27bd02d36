"""The features of a model's inputs as blocks: all the weights that read a feature, and no way around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torchlasso as tl


class Model(nn.Module):
    """A forward pass with parts."""

    def __init__(self, run: Callable[..., Tensor], **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.run(self, *inputs)


def table(rows: int = 3, columns: int = 5) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))


def net(columns: int = 5) -> nn.Sequential:
    return nn.Sequential(nn.Linear(columns, 4), nn.ReLU(), nn.Linear(4, 2))


def matrix(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(1)))


SEQUENCES = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))

# a model, its inputs, the dimension of the features (0: all but the batch), and the parameters that read them
READERS: dict[str, tuple[Callable[[], nn.Module], Tensor, int, set[str]]] = {
    "a linear layer": (net, table(), 1, {"0.weight"}),
    "a skip": (
        lambda: Model(lambda m, x: m.a(x) + m.b(x), a=net(), b=nn.Linear(5, 2)), table(), 1, {"a.0.weight", "b.weight"}
    ),
    "a concatenation": (
        lambda: Model(lambda m, x: m.b(torch.cat([m.a(x), x], 1)), a=net(), b=nn.Linear(7, 2)), table(), 1,
        {"a.0.weight", "b.weight"},
    ),
    "columns": (
        lambda: Model(lambda m, x: m.a(x[:, [4, 0, 2]]) + m.b(x[:, 1:5]), a=nn.Linear(3, 2), b=nn.Linear(4, 2)),
        table(), 1, {"a.weight", "b.weight"},
    ),
    "a scale": (
        lambda: Model(lambda m, x: m.a(x * m.p), a=net(), p=nn.Parameter(torch.ones(5))), table(), 1,
        {"p", "a.0.weight"},
    ),
    "a batch norm": (lambda: nn.Sequential(nn.BatchNorm1d(5), net()), table(), 1, {"0.weight", "1.0.weight"}),
    "a gate": (
        lambda: Model(lambda m, x: m.b(x * m.a(x).sigmoid()), a=nn.Linear(5, 5), b=nn.Linear(5, 2)), table(), 1,
        {"a.weight", "b.weight"},
    ),
    "a matrix product": (lambda: Model(lambda m, x: x @ m.w, w=matrix(5, 2)), table(), 1, {"w"}),
    "einsum": (lambda: Model(lambda m, x: torch.einsum("bi,oi->bo", x, m.w), w=matrix(2, 5)), table(), 1, {"w"}),
    "an lstm": (
        lambda: Model(
            lambda m, x: m.b(m.a(x)[0][:, -1]), a=nn.LSTM(4, 3, 2, batch_first=True, bidirectional=True),
            b=nn.Linear(6, 2),
        ),
        SEQUENCES, 2, {"a.weight_ih_l0", "a.weight_ih_l0_reverse"},
    ),
    "a cell": (
        lambda: Model(lambda m, x: m.b(m.a(x[:, 1], m.a(x[:, 0]))), a=nn.GRUCell(4, 3), b=nn.Linear(3, 2)),
        SEQUENCES, 2, {"a.weight_ih"},
    ),
    "attention": (
        lambda: Model(
            lambda m, x: m.b(m.a(x, x, x)[0].mean(1)), a=nn.MultiheadAttention(4, 2, batch_first=True),
            b=nn.Linear(4, 2),
        ),
        SEQUENCES, 2, {"a.in_proj_weight"},
    ),
    "a convolution": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2)), IMAGES, 1, {"0.weight"}
    ),
    "a depthwise convolution": (
        lambda: nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.Flatten(), nn.Linear(54, 2)), IMAGES, 1, {"0.weight"}
    ),
    "a transposed convolution": (
        lambda: nn.Sequential(nn.ConvTranspose2d(3, 6, 3, groups=3), nn.Flatten(), nn.Linear(294, 2)), IMAGES, 1,
        {"0.weight"},
    ),
    "pixels": (lambda: nn.Sequential(nn.Flatten(), net(75)), IMAGES, 0, {"1.0.weight"}),
}  # fmt: skip


def made(name: str) -> tuple[nn.Module, Tensor, int, set[str]]:
    torch.manual_seed(0)
    build, x, dim, names = READERS[name]
    return build().eval(), x, dim, names


def killed(model: nn.Module, inputs: tl.Inputs, dead: set[int]) -> None:
    """Make the blocks of some features zero, as a prox would."""
    tensors = dict(model.named_parameters())
    params = [tensors[name] for name in inputs.names]
    with torch.no_grad():
        views = inputs.views(params)
        rows = iter([bool(dead.intersection(block)) for block in inputs._order])
        inputs.put_(params, [view.masked_fill(torch.tensor([[next(rows)] for _ in view]), 0.0) for view in views])


@pytest.mark.parametrize("name", READERS)
def test_dead_features_do_not_change_the_outputs_and_live_ones_do(name):
    model, x, dim, names = made(name)
    inputs = tl.Inputs(model, x)
    features = x.shape[dim] if dim else x[0].numel()
    assert (inputs.features, set(inputs.names)) == (features, names)
    assert inputs.blocks == tuple((i,) for i in range(features))
    dead = {1, 3} if features > 3 else {1}
    killed(model, inputs, dead)
    assert (~inputs.live(model)).nonzero()[:, 0].tolist() == sorted(dead)
    wild = torch.randn(x.shape, generator=torch.Generator().manual_seed(2)) * 1e3
    for feature in range(min(features, 6)):
        other = x.clone()
        places = other.flatten(1).T if dim == 0 else other.movedim(dim, 0)
        places[feature] = (wild.flatten(1).T if dim == 0 else wild.movedim(dim, 0))[feature]
        assert torch.equal(model(other), model(x)) == (feature in dead)


def test_words_are_rows_of_the_embedding():
    torch.manual_seed(0)
    model = Model(lambda m, x: m.b(m.a(x).mean(1)), a=nn.Embedding(6, 3), b=nn.Linear(3, 2))
    inputs = tl.Inputs(model, torch.tensor([[0, 1, 2], [3, 4, 5]]), keep=[0])
    assert (inputs.names, inputs.features, inputs.kept) == (("a.weight",), 6, (0,))
    killed(model, inputs, {4, 5})
    assert inputs.live(model).tolist() == [True] * 4 + [False] * 2
    assert torch.equal(model(torch.tensor([[1, 4, 4]])), model(torch.tensor([[1, 5, 4]])))


def test_columns_of_categories_are_whole_tables_and_follow_the_numbers():
    torch.manual_seed(0)
    model = Model(
        lambda m, x, c: m.b(torch.cat([x, m.one(c[:, 0]), m.two(c[:, 1])], 1)),
        one=nn.Embedding(7, 2), two=nn.Embedding(4, 2), b=nn.Linear(6, 1),
    )  # fmt: skip
    x, c = table(3, 2), torch.tensor([[0, 1], [6, 3], [2, 2]])
    inputs = tl.Inputs(model, (x, c))
    assert (inputs.features, set(inputs.names)) == (4, {"one.weight", "two.weight", "b.weight"})
    killed(model, inputs, {2})
    assert not model.one.weight.any()
    assert model.two.weight.all()
    assert torch.equal(model(x, c), model(x, c.clone().index_fill_(1, torch.tensor([0]), 5)))


def test_groups_of_unequal_size_by_number_and_by_name():
    model = net(7)
    inputs = tl.Inputs(model, table(2, 7), groups={"colour": [5, 1, 2], "size": [0, 3]}, keep=["size"])
    assert inputs.blocks == ((1, 2, 5), (4,), (6,))
    assert inputs.block_names == ("colour", "4", "6")
    killed(model, inputs, {2})
    assert inputs.live(model).tolist() == [True, False, False, True, True, False, True]
    assert tl.Inputs(model, table(2, 7), groups=[[1, 2, 5]], keep=range(3, 4)).blocks == ((0,), (1, 2, 5), (4,), (6,))


def test_a_group_may_be_combined_and_kept_features_used_in_any_way():
    model = Model(lambda m, x: m.a(torch.cat([x[:, :3].softmax(1), x[:, 3:]], 1)), a=net())
    inputs = tl.Inputs(model, table(), groups=[[0, 1, 2]])
    assert inputs.blocks == ((0, 1, 2), (3,), (4,))
    model = Model(lambda m, x: m.a(x) + x[:, :1], a=net())
    assert tl.Inputs(model, table(), keep=[0]).blocks == ((1,), (2,), (3,), (4,))


def test_features_that_nothing_reads_have_no_block():
    model = Model(lambda m, x: m.a(x[:, 1:4]), a=net(3))
    inputs = tl.Inputs(model, table())
    assert inputs.blocks == ((1,), (2,), (3,))
    assert inputs.live(model).tolist() == [False, True, True, True, False]


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "a norm over the features": (lambda: nn.Sequential(nn.LayerNorm(5), net()), "layer_norm combines 5 features"),
    "the input as it is": (
        lambda: Model(lambda m, x: x + m.a(x), a=nn.Linear(5, 5)), "feature 0 is in the outputs as it is.*add"
    ),
    "a gate on the input": (
        lambda: Model(lambda m, x: x * m.a(x).sigmoid(), a=nn.Linear(5, 5)), "feature 0 is in the outputs as it is.*mul"
    ),
    "products of features": (
        lambda: Model(lambda m, x: m.a(x[:, :2] * x[:, 2:4]), a=nn.Linear(2, 2)), "mul combines 4 features"
    ),
    "shared weights": (
        lambda: Model(lambda m, x: m.a(x[:, :2]) + m.a(x[:, 2:4]), a=nn.Linear(2, 2)),
        r"linear \(a.weight\) reads feature 0 and feature 2 with the same weights",
    ),
    "computed weights": (
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(5, 3)), "linear multiplies .* else than a trained"
    ),
    "frozen weights": (lambda: net().requires_grad_(False), "linear multiplies .* else than a trained parameter"),
    "an order": (lambda: Model(lambda m, x: m.a(x.topk(2)[0]), a=nn.Linear(2, 1)), "topk combines 5 features"),
    "a zero gate that training opens": (
        lambda: Model(lambda m, x: m.p * x + m.a(x), a=nn.Linear(5, 5), p=nn.Parameter(torch.zeros(1))),
        "feature 0 is in the outputs as it is.*add",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_way_around_the_weights_is_refused_by_the_name_of_its_operator(name):
    torch.manual_seed(0)
    build, message = REFUSED[name]
    with pytest.raises(ValueError, match=f"^Inputs: {message}") as caught:
        tl.Inputs(build(), table())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": [[0, 9]]}, "groups has feature 9, and the model has 5"),
        ({"groups": [[0, 1], [1]]}, "groups must not overlap; feature 1"),
        ({"groups": [[]]}, "group 0 must be a list"),
        ({"groups": [[0, 1.5]]}, "must be a whole number"),
        ({"groups": 3}, "groups must be lists"),
        ({"keep": [7]}, "keep has feature 7"),
        ({"keep": ["colour"]}, "not the name of a group"),
        ({"keep": [0], "groups": [[0, 1]]}, "keep has a part of group '0'"),
        ({"keep": range(5)}, "no trained weights read"),
        ({"weights": [1.0]}, "a number for each of the 5 features; got 1 numbers"),
        ({"weights": [1.0, 2.0, 1.0, 1.0, 1.0], "groups": [[0, 1]]}, "equal within a group"),
        ({"weights": [-1.0] * 5}, "at least 0"),
    ],
)
def test_wrong_options_are_one_clear_error(options: dict[str, Any], message: str):
    with pytest.raises((ValueError, TypeError), match=message):
        tl.Inputs(net(), table(), **options)


def test_the_strength_is_the_root_of_the_size_or_the_given_weight():
    model, x = net(), table()
    w = model[0].weight
    norms = torch.stack([w[:, :2].norm(), w[:, 2].norm(), w[:, 3].norm(), w[:, 4].norm()])

    def value(**options: Any) -> Tensor:
        groups = tl.param_groups(model, tl.L1(over=tl.Inputs(model, x, groups=[[0, 1]], **options)), lam=2.0)
        return tl.penalty(groups)

    torch.testing.assert_close(value(), 2 * (norms * torch.tensor([8.0, 4, 4, 4]).sqrt()).sum())
    factors = torch.tensor([3.0, 1.0, 0.0, 5.0])
    torch.testing.assert_close(value(weights=[3, 3, 1, 0, 5]), 2 * (norms * factors).sum())


@pytest.mark.parametrize("form", ["proximal", "latent"])
def test_weights_of_features_hold_in_every_form_of_a_step(form):
    torch.manual_seed(0)
    x = torch.randn(200, 6)
    y = x.sum(dim=1, keepdim=True)
    model = nn.Sequential(nn.Linear(6, 1))
    inputs = tl.Inputs(model, x[:2], weights=[1.0, 1.0, 1.0, 60.0, 60.0, 0.0])
    optimizer = tl.ProxSGD(tl.param_groups(model, tl.L1(over=inputs), lam=0.05), lr=0.05, form=form)
    for _ in range(200):
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
    assert inputs.live(model).tolist() == [True, True, True, False, False, True]
    assert model[0].weight[0, 5].item() == pytest.approx(1.0, abs=0.05)  # not penalised


def test_blocks_follow_a_model_that_becomes_smaller():
    torch.manual_seed(0)
    model, x = net(), table()
    inputs = tl.Inputs(model, x, weights=[1.0, 2.0, 3.0, 4.0, 5.0])
    w = model[0].weight.detach()
    stays = torch.tensor([0, 2, 3])
    smaller = inputs.sliced([w], [w[:, stays]], lambda tensor, dim: stays if dim == 1 else None)
    (strength,) = smaller.strengths([w[:, stays]], [1.0])
    assert strength.tolist() == [1.0, 3.0, 4.0]
    assert torch.equal(smaller.views([w[:, stays]])[0], w[:, stays].T)

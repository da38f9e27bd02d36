"""The compacted model: its training mode, shared tensors, precision, layout and gradients."""

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
from tests.support.compaction import TOLERANCE, Function, compacted, images, ready, rows, why, zero
from torchlasso.compaction import compact
from torchlasso.compaction.pipeline import find_compaction
from torchlasso.compaction.verify import difference

pytestmark = pytest.mark.usefixtures("seeded")


def test_code_that_runs_only_in_training_keeps_the_units_it_reads():
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


def test_differences_are_seen_beside_numbers_that_are_not_finite():
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


def test_shared_modules_stay_shared():
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
def test_computations_in_a_lower_precision_are_compared_exactly(cast: Callable[[Tensor], Tensor]):
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


@pytest.mark.parametrize("turned", [lambda w: w.T, lambda w: w.mT, lambda w: w.adjoint(), Tensor.t])
def test_turned_weights_are_compared_exactly(turned: Callable[[Tensor], Tensor]):
    net = Function(lambda self, x: F.relu(x @ turned(self.code) + self.shift) @ self.code,
                   code=nn.Parameter(torch.randn(9, 5)), shift=nn.Parameter(torch.zeros(9)))  # fmt: skip
    zero(net.code, 1, 4)
    small, found = compact(net, torch.randn(6, 5), return_report=True)
    assert small.code.shape == (7, 5)
    assert not any("float32" in note for note in str(found).splitlines())


def test_tensors_that_are_attributes_are_read_in_the_precision_of_the_rest():
    net = Function(
        lambda self, x: self.head(F.relu(self.stem(x @ self.basis))),
        basis=torch.randn(4, 4), stem=nn.Linear(4, 7), head=nn.Linear(7, 2),
    )  # fmt: skip
    zero(net.stem.weight, 1)
    small, found = compact(net, torch.randn(5, 4), return_report=True)
    assert found.removed == 1
    assert small.basis.dtype == torch.float32


def test_weights_under_a_pruning_mask_have_a_graph_and_are_compared_all_the_same():
    layer, x = nn.Linear(4, 7), torch.randn(2, 4)
    prune.random_unstructured(layer, "weight", 0.5)
    assert not layer.weight.is_leaf
    torch.testing.assert_close(compact(layer, x)(x), layer(x))


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
    one = compact(net, both[0])  # the other branch does not run, so it is not analysed
    assert (one.left.out_features, one.right.out_features) == (6, 7)


def test_the_inference_mode_of_the_caller_leaves_a_model_that_can_be_trained():
    model, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.ones(2, 3)
    with torch.no_grad():
        model[0].weight[0] = model[0].bias[0] = 0
    with torch.inference_mode():
        for example in (x, torch.ones(2, 3)):
            small = tl.compact(model, example)
            assert small[0].out_features == 3
    small(x).sum().backward()

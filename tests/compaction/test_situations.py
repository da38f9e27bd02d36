"""The situations in which two models are compared: few runs, each with as much information as possible."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import torchlasso as tl
from torchlasso.compaction.reads import numbers_read
from torchlasso.compaction.verify import Reference, others_like
from torchlasso.graph.precision import DOUBLE


class Answering(nn.Module):
    """A model that starts with a function of its inputs."""

    def __init__(self, of: Callable[[Tensor, bool], Tensor]) -> None:
        super().__init__()
        self.of, self.hidden, self.head = of, nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.hidden(self.of(x, self.training)).relu())


def refusing(x: Tensor, training: bool) -> Tensor:
    if not torch.compiler.is_compiling() and (x < 0).any():
        raise ValueError("negative")
    return x


def refusing_in_training(x: Tensor, training: bool) -> Tensor:
    return refusing(x, training) if training else x


@pytest.fixture
def example() -> Tensor:
    return torch.rand(3, 4, generator=torch.Generator().manual_seed(0)) ** 4  # likely ones have negative numbers


def reference(of: Callable[[Tensor, bool], Tensor], x: Tensor) -> Reference:
    torch.manual_seed(0)
    return Reference(DOUBLE.copied(Answering(of).eval()), x, DOUBLE)


def repeats(x: Tensor, of: Tensor) -> bool:
    return x.shape == (4, 4) and torch.equal(x, of[[0, 1, 2, 0]])


def test_inputs_of_other_sizes_and_in_training_are_random(example: Tensor):
    compared, likely = reference(lambda x, training: x, example), others_like(example)
    assert [repeats(s.inputs, likely) for s in compared.beyond(0)] == [True]
    assert compared.likely == []
    assert [(s.training, torch.equal(s.inputs, likely)) for s in compared.trained] == [(True, True)]


def test_a_model_that_refuses_random_inputs_is_compared_on_values_of_the_example(example: Tensor):
    compared = reference(refusing, example)
    assert [repeats(s.inputs, example) for s in compared.beyond(0)] == [True]
    assert compared.likely == []
    assert [torch.equal(s.inputs, example) for s in compared.trained] == [True]
    assert compared.why_not_trained == ""


def test_if_outputs_are_not_finite_the_values_of_the_example_are_compared_as_well(example: Tensor):
    compared, likely = reference(lambda x, training: x.log(), example), others_like(example)
    assert [repeats(s.inputs, example) for s in compared.beyond(0)] == [True]
    assert [torch.equal(s.inputs, likely) for s in compared.likely] == [True]
    assert [torch.equal(s.inputs, likely) for s in compared.trained] == [True, False]
    assert torch.equal(compared.trained[1].inputs, example)
    assert [s.finite for s in compared.trained] == [False, True]


def test_the_reason_is_kept_only_if_the_model_is_not_trained(example: Tensor):
    def targets(x: Tensor, training: bool) -> Tensor:
        if training:
            raise ValueError("no target")
        return x

    for of, why in ((refusing_in_training, ""), (targets, "no target")):
        compared = reference(of, example)
        assert bool(compared.trained) is not bool(why)
        assert why in compared.why_not_trained
        assert bool(compared.why_not_trained) is bool(why)


@pytest.mark.parametrize("guard", [lambda x: x.log(), lambda x: refusing(x, False)], ids=["log", "refusing"])
def test_a_difference_at_another_size_is_found_for_any_random_inputs(
    guard: Callable[[Tensor], Tensor], example: Tensor
):
    """A difference is found if a width also limits the number of rows, so that a smaller width cuts off more."""

    class Limited(Answering):
        def __init__(self) -> None:
            super().__init__(lambda x, training: guard(x))
            self.width = 8

        def forward(self, x: Tensor) -> Tensor:
            h = self.hidden(self.of(x, self.training)).relu()
            return self.head(h.reshape(-1, self.width))[: self.width]

    torch.manual_seed(0)
    net = Limited().eval()
    with torch.no_grad():
        net.hidden.weight[:5], net.hidden.bias[:5] = 0, 0
    small, report = tl.compact(net, example, return_report=True)
    assert report.removed == 0  # 3 are as many as the rows of the example
    many = example.repeat(3, 1)
    assert torch.equal(small(many), net(many))


def test_numbers_are_read_without_values_and_by_code_that_depends_on_values():
    class Heads(nn.Module):
        def __init__(self, looks: bool) -> None:
            super().__init__()
            self.inner, self.looks, self.idle = nn.Linear(4, 6), looks, 6
            self.heads, self.table = 3, [6, 2]

        def forward(self, x: Tensor) -> Tensor:
            if self.looks and bool(x.isnan().any()):
                raise ValueError("not a number")
            return self.inner(x).reshape(len(x), self.heads, self.table[1]) + torch.arange(2)

    torch.manual_seed(0)
    found = [numbers_read(DOUBLE.copied(Heads(looks)), torch.randn(5, 4), DOUBLE) for looks in (False, True)]
    assert found[0] == found[1] == {("", ("heads",)): {""}, ("", ("table", 1)): {""}}

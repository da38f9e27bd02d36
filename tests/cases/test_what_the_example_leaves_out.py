"""The report names the parts that the example inputs did not exercise, and the comparison of the two models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import torchlasso as tl
from torchlasso.compaction import CompactionReport


class Conditional(nn.Module):
    """Optional arguments, a layer behind a flag, and outputs that training alone has."""

    def __init__(self, flag: bool = False) -> None:
        super().__init__()
        self.first, self.last, self.extra = nn.Linear(6, 16), nn.Linear(16, 2), nn.Sequential(nn.Linear(16, 4))
        self.scale, self.flag = nn.Parameter(torch.ones(16)), flag
        with torch.no_grad():
            self.first.weight[:8], self.first.bias[:8] = 0, 0

    def forward(self, x: Tensor, shift: Tensor | None = None, *, scaled: bool = False, target: Any = None) -> Any:
        h = self.first(x)
        h = h.relu() if shift is None else (h + shift[:, None]).relu()
        h = h * self.scale if scaled else h
        if self.training and target is None:
            raise ValueError("training needs a target")
        return (self.last(h), self.extra(h)) if self.flag else self.last(h)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def report_of(model: nn.Module, inputs: Any) -> tuple[nn.Module, CompactionReport]:
    small, report = tl.compact(model.eval(), inputs, return_report=True)
    assert report.to_dict()["checked"]["left_out"] == report.checked.left_out
    assert all(line in str(report) for line in str(report.checked).splitlines())
    return small, report


def test_arguments_that_were_not_given_are_named():
    x, shift = torch.randn(3, 6), torch.randn(3)
    small, report = report_of(Conditional(), x)
    assert small.first.out_features == 8
    assert report.checked.left_out == ("shift", "scaled", "target")
    assert "missing arguments, which count as never given: shift, scaled, target" in str(report)
    small, report = report_of(Conditional(), {"x": x, "shift": shift, "scaled": True})
    assert small.first.out_features == 16  # with the shift they are not the same for all inputs
    assert report.checked.left_out == ("target",)
    assert report_of(Conditional(), (x, None))[1].checked.left_out == ("shift", "scaled", "target")


def test_parameters_that_no_operator_reads_are_named():
    x = torch.randn(3, 6)
    assert report_of(Conditional(), x)[1].checked.unread == ("scale", "extra")
    assert report_of(Conditional(flag=True), {"x": x, "scaled": True})[1].checked.unread == ()


def test_a_model_that_does_not_train_on_the_example_is_named():
    x = torch.randn(3, 6)
    assert report_of(Conditional(), x)[1].checked.training == "training needs a target"
    assert report_of(Conditional(), {"x": x, "target": 1})[1].checked.training == ""


def test_sizes_at_which_the_models_were_compared():
    x = torch.randn(2, 5, 6)
    assert report_of(Conditional(), x)[1].checked.other_sizes
    fixed = nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (2, 5, 6)), Conditional())
    report = report_of(fixed, x)[1]
    assert not report.checked.other_sizes
    assert "at the sizes of the example only" in str(report)


def test_a_complete_comparison_has_no_notes():
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))
    report = report_of(net, torch.randn(3, 6))[1]
    assert str(report.checked) == ""
    assert str(report).splitlines()[-1].startswith("FLOPs")


class Denoised(nn.Module):
    """Noise in training that is drawn for each hidden unit: added, or multiplied with."""

    def __init__(self, added: bool, numpy: bool) -> None:
        super().__init__()
        self.first, self.last, self.added, self.numpy = nn.Linear(6, 16), nn.Linear(16, 2), added, numpy
        with torch.no_grad():
            self.first.weight[:8], self.first.bias[:8] = 0, 0

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.first(x).relu()
        if self.training:
            import numpy

            noise = torch.from_numpy(numpy.random.default_rng().random(h.shape)) if self.numpy else torch.rand_like(h)
            h = h + noise if self.added else h * noise.to(h.dtype)
        return self.last(h), x.sum()


def test_units_multiplied_by_noise_are_removed_and_units_with_added_noise_stay():
    x = torch.randn(3, 6)
    small, report = report_of(Denoised(added=False, numpy=False), x)
    assert small.first.out_features == 8
    assert not report.checked.random  # with one number for all of them they are the same
    small, report = report_of(Denoised(added=True, numpy=False), x)
    assert small.first.out_features == 16
    assert any("needed in training" in why for family in report.families for why in family.why)


def test_outputs_are_left_out_where_random_numbers_cannot_be_the_same():
    small, report = report_of(Denoised(added=False, numpy=True), torch.randn(3, 6))
    assert small.first.out_features == 8
    assert report.checked.random
    assert "not compared in training: outputs that depend on random numbers" in str(report)


# Compiled models


@pytest.mark.parametrize("parts", [False, True])
def test_a_compiled_model_is_compacted_as_it_was_before(parts: bool):
    net = nn.Sequential(Conditional(), nn.Sequential(nn.Linear(2, 3)))
    plain = [name for name, _ in net.named_parameters()]
    if parts:
        net[0], net[1][0] = (torch.compile(part, backend="eager") for part in (net[0], net[1][0]))
        compiled = net
    else:
        net[1].compile(backend="eager")
        compiled = torch.compile(net, backend="eager")
    x = torch.randn(3, 6)
    small, report = tl.compact(compiled.eval(), x, return_report=True)
    assert [type(module) for module in small.modules()] == [
        nn.Sequential, Conditional, nn.Linear, nn.Linear, nn.Sequential, nn.Linear, nn.Sequential, nn.Linear
    ]  # fmt: skip
    assert [name for name, _ in small.named_parameters()] == plain
    assert (small[0].first.out_features, report.removed) == (8, 8)
    assert small[1]._compiled_call_impl is None
    assert not {id(p) for p in compiled.parameters()} & {id(p) for p in small.parameters()}
    first = next(module for module in compiled.modules() if isinstance(module, Conditional)).first
    assert first.out_features == 16


def test_a_compiled_function_inside_a_model_runs_as_it_is_written():
    function = torch.compile(lambda x: F.relu(x) + 1, backend="eager")

    class Inside(Conditional):
        def forward(self, x: Tensor) -> Tensor:
            return self.last(function(self.first(x)))

    model, x = Inside(), torch.randn(3, 6)
    small = tl.compact(model.eval(), x)
    assert small.first.out_features == 8
    wanted = model.last(F.relu(model.first(x)) + 1)
    assert torch.allclose(small.last(F.relu(small.first(x)) + 1), wanted, atol=1e-5)

"""Units whose weights are all zero are removed from every architecture, and only its size changes."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.utils._pytree import tree_leaves, tree_map

import torchlasso
from tests.support.architectures import ARCHITECTURES
from tests.support.units import slices_of
from torchlasso.compaction import CompactionReport, compact
from torchlasso.compaction.numbers import numbers_of
from torchlasso.graph import Family, UnitMap, find_units

pytestmark = pytest.mark.slow

TOLERANCE = 1e-10  # of numbers in float64, relative to the largest

# Families that stay although some of their units are zero: the ends of their names, and the reasons in the report.
STAY: dict[str, dict[str, str]] = {
    "llama-longer-heads": {  # of 8, 4 of q and k are left and 5 of v, and one number says how long they all are
        "q_proj.weight:0.3": "LlamaAttention could not run without it",
        "v_proj.weight:0": "LlamaAttention could not run without it",
    },
}

# The number of layers with attention, the attribute that says how long each head is, of 6, and the weight and dimension
# that they are in. How many there are is not read where they are counted by a -1.
HEADS = {
    "vit": (1, "head_dim", "q_proj.weight", 0),
    "bert": (1, "attention_head_size", "query.weight", 0),
    "gpt2": (2, "head_dim", "c_proj.weight", 0),
}

# Random graphs are compacted twice as well; of the architectures, one for each way in which channels are connected.
TWICE = ["tied-weights", "lstm", "shufflenet-v2", "densenet", "unet", "groupnorm", "vit", "llama"]


@dataclass(frozen=True)
class Run:
    """The outputs and gradients of a model in one run."""

    outputs: list[Tensor]
    grads: dict[str, Tensor | None]
    buffers: dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """A model with some units zero, and the compacted model."""

    name: str
    model: nn.Module
    inputs: Any
    zeroed: dict[Family, list[int]]
    kept: dict[str, list[Tensor]]  # which indices of each dimension of a parameter or buffer have to be kept
    before: dict[str, Tensor]  # the model's state_dict
    small: nn.Module
    report: CompactionReport
    _runs: dict[bool, tuple[Run, Run]] = field(default_factory=dict)

    def sliced(self, name: str, tensor: Tensor) -> Tensor:
        """Return the expected rest of a parameter or buffer."""
        for k, where in enumerate(self.kept.get(name, ())):
            tensor = tensor.index_select(k, where)
        return tensor

    @property
    def runs(self) -> list[tuple[Run, Run]]:
        """Of the model and the smaller one: in evaluation, and in training where nothing is dropped by chance."""
        dropout = any(isinstance(module, _DropoutNd) and module.p > 0 for module in self.model.modules())
        for training in (False,) if dropout else (False, True):
            if training not in self._runs:
                self._runs[training] = tuple(run(model, self.inputs, training) for model in (self.model, self.small))
        return list(self._runs.values())


def outputs_of(model: nn.Module, inputs: Any) -> list[Tensor]:
    found = model(**inputs) if isinstance(inputs, dict) else model(inputs)
    return [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]


def run(model: nn.Module, inputs: Any, training: bool) -> Run:
    model = copy.deepcopy(model).train(training)
    outputs = outputs_of(model, inputs)
    generator = torch.Generator().manual_seed(1)
    sum((x * torch.randn(x.shape, generator=generator, dtype=x.dtype)).sum() for x in outputs).backward()
    return Run(outputs, {name: p.grad for name, p in model.named_parameters()}, dict(model.named_buffers()))


def cannot_go(name: str, family: Family) -> str | None:
    """Why a family cannot become smaller, as the table says."""
    return next((reason for end, reason in STAY.get(name, {}).items() if family.name.endswith(end)), None)


@torch.no_grad()
def randomise(model: nn.Module) -> None:
    """No weight, shift or statistic is zero, and numbers neither grow nor vanish on their way."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.normal_(0, 1.5 / math.sqrt(parameter[0].numel()))
        else:
            parameter.copy_((0.5 + torch.rand_like(parameter)) * torch.randn_like(parameter).sign())
    for module in model.modules():
        if isinstance(module, _BatchNorm | _InstanceNorm) and module.running_mean is not None:
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)


@torch.no_grad()
def zero_units(model: nn.Module, units: UnitMap) -> dict[Family, list[int]]:
    """Zero all parameters of a third of the units of each removable family, rounded up, and say which."""
    parameters = dict(model.named_parameters())
    zeroed = {family: torch.randperm(family.size)[: -(-family.size // 3)].tolist() for family in units.removable}
    for family, chosen in zeroed.items():
        assert len(chosen) < family.size
        for unit in chosen:
            for name, k, where in slices_of(units, family, unit):
                if name in parameters:
                    parameters[name].index_fill_(k, where, 0.0)
    return zeroed


def kept_indices(name: str, units: UnitMap, zeroed: dict[Family, list[int]]) -> dict[str, list[Tensor]]:
    """Return the indices of each dimension of the parameters and buffers that are not in a removed unit."""
    sizes = {where: [dim.size for dim in dims] for where, dims in units.structure.parameters.items()}
    masks = {where: [torch.ones(size, dtype=torch.bool) for size in shape] for where, shape in sizes.items()}
    for family, chosen in zeroed.items():
        for unit in chosen if cannot_go(name, family) is None else []:
            for where, k, indices in slices_of(units, family, unit):
                masks[where][k][indices] = False
    return {where: [mask.nonzero().flatten() for mask in several] for where, several in masks.items()}


def in_double(inputs: Any) -> Any:
    return tree_map(lambda x: x.double() if isinstance(x, Tensor) and x.is_floating_point() else x, inputs)


@pytest.fixture(scope="module", params=list(ARCHITECTURES))
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    name = request.param
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, inputs = ARCHITECTURES[name]()
        model, inputs = model.double(), in_double(inputs)
        randomise(model)
        units = find_units(model, inputs)
        zeroed = zero_units(model, units)
        before = copy.deepcopy(model.state_dict())
        small, report = compact(model, inputs, return_report=True)
        yield Case(name, model, inputs, zeroed, kept_indices(name, units, zeroed), before, small, report)


def test_outputs_are_the_same(case: Case):
    for theirs, ours in case.runs:
        assert len(ours.outputs) == len(theirs.outputs) > 0
        for a, b in zip(ours.outputs, theirs.outputs, strict=True):
            assert a.shape == b.shape
            assert 0 < b.abs().max() < math.inf
            assert (a - b).abs().max() <= TOLERANCE * b.abs().max()


def test_running_statistics_are_the_same(case: Case):
    for theirs, ours in case.runs:
        assert list(ours.buffers) == list(theirs.buffers)
        for name, buffer in ours.buffers.items():
            wanted = case.sliced(name, theirs.buffers[name])
            assert buffer.shape == wanted.shape
            assert torch.allclose(buffer, wanted, rtol=TOLERANCE, atol=TOLERANCE), name


def test_weights_have_the_same_values_and_gradients(case: Case):
    for name, parameter in case.small.named_parameters():
        assert torch.equal(parameter, case.sliced(name, case.before[name])), name
    for theirs, ours in case.runs:
        largest = max(grad.abs().max() for grad in theirs.grads.values() if grad is not None)
        for name, grad in ours.grads.items():
            wanted = theirs.grads[name]
            assert (grad is None) == (wanted is None), name
            if grad is not None:
                assert (grad - case.sliced(name, wanted)).abs().max() <= TOLERANCE * largest, name


def test_exactly_the_zero_units_are_removed(case: Case):
    names = [name for name, _ in case.model.named_parameters()]
    expected = {name: [len(where) for where in case.kept.get(name, case.before[name].shape)] for name in names}
    assert {name: list(parameter.shape) for name, parameter in case.small.named_parameters()} == expected
    count = sum(map(math.prod, expected.values()))
    assert sum(p.numel() for p in case.small.parameters()) == case.report.after.parameters == count
    assert count < sum(p.numel() for p in case.model.parameters())


def test_the_report_has_the_removed_units_and_the_reasons_for_others(case: Case):
    reports = {family.name: family for family in case.report.families}
    assert case.report.unknown == {}
    for family, chosen in case.zeroed.items():
        report, reason = reports[family.name], cannot_go(case.name, family)
        assert report.before == family.size
        assert report.after == family.size - (0 if reason else len(chosen))
        assert [reason in why for why in report.why] == ([True] if reason else [])
    for end in STAY.get(case.name, {}):
        assert any(family.name.endswith(end) for family in case.zeroed)


def test_a_state_dict_has_the_same_names_and_can_be_loaded(case: Case):
    state = case.small.state_dict()
    assert list(state) == list(case.before)
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    other = copy.deepcopy(case.small).eval()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.fill_(math.nan)
    other.load_state_dict(torch.load(file))
    _, ours = case.runs[0]
    for a, b in zip(outputs_of(other, case.inputs), ours.outputs, strict=True):
        assert torch.equal(a, b)


def test_a_file_makes_the_full_model_as_small(case: Case, tmp_path: Path):
    torchlasso.save(case.small, tmp_path / "small.safetensors")
    other = copy.deepcopy(case.model).eval()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.fill_(math.nan)
    torchlasso.load(tmp_path / "small.safetensors", into=other)
    for a, b in zip(outputs_of(other, case.inputs), case.runs[0][1].outputs, strict=True):
        assert torch.equal(a, b)
    kept: list[dict[int, Any]] = [{}, {}]
    for (path, ours), (_, theirs) in zip(other.named_modules(), case.small.named_modules(), strict=True):
        assert numbers_of(ours, kept[0]) == numbers_of(theirs, kept[1]), path


def test_modules_are_of_the_same_classes_and_not_watched_any_more(case: Case):
    for (path, module), (other, original) in zip(case.small.named_modules(), case.model.named_modules(), strict=True):
        assert (path, type(module), module.training) == (other, type(original), original.training)
        assert len(module._forward_hooks) == len(original._forward_hooks)
        assert len(module._forward_pre_hooks) == len(original._forward_pre_hooks)


def test_modules_know_their_sizes(case: Case):
    called: list[tuple[nn.Module, torch.Size, torch.Size]] = []
    model = copy.deepcopy(case.small).eval()
    for module in model.modules():
        if isinstance(module, nn.Linear | _ConvNd | _BatchNorm | _InstanceNorm | nn.GroupNorm):
            module.register_forward_hook(lambda module, x, y: called.append((module, x[0].shape, y.shape)))
    outputs_of(model, case.inputs)
    assert called or case.name == "gpt2"
    for module, given, made in called:
        if isinstance(module, nn.Linear):
            assert (module.out_features, module.in_features) == (made[-1], given[-1]) == module.weight.shape
        elif isinstance(module, _ConvNd):
            into, out, groups = module.in_channels, module.out_channels, module.groups
            assert (into, out) == (given[1], made[1])
            assert module.weight.shape[:2] == ((into, out // groups) if module.transposed else (out, into // groups))
        elif isinstance(module, nn.GroupNorm):
            assert module.num_channels == given[1] == len(module.weight)
        else:
            assert module.num_features == given[1]


def test_attentions_know_how_long_their_heads_are(case: Case):
    count, size, weight, k = HEADS.get(case.name, (0, "", "", 0))
    attentions = [module for module in case.small.modules() if size in vars(module)]
    assert len(attentions) == count
    for module in attentions:
        assert getattr(module, size) == 4
        assert module.get_parameter(weight).shape[k] % 4 == 0


def test_the_original_is_untouched(case: Case):
    state = case.model.state_dict()
    assert list(state) == list(case.before)
    for name, tensor in state.items():
        assert torch.equal(tensor, case.before[name])
    assert all(parameter.grad is None for parameter in case.model.parameters())
    theirs, ours = ({p.data_ptr() for p in model.parameters()} for model in (case.model, case.small))
    assert not theirs & ours


@pytest.mark.parametrize("case", TWICE, indirect=True)
def test_a_compacted_model_stays_the_same(case: Case):
    again, report = compact(case.small, case.inputs, return_report=True)
    assert report.removed == 0
    assert [p.shape for p in again.parameters()] == [p.shape for p in case.small.parameters()]

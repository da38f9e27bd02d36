"""Random networks of all known operators compute the same outputs after their random zeros are removed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.support.random_graphs import SIDE, Network, Writer
from tests.support.units import slices_of
from torchlasso.compaction import compact
from torchlasso.graph import find_units

pytestmark = pytest.mark.slow

TOLERANCE = 1e-10  # of numbers in float64, relative to the largest
IMAGES = 7  # which differs from all numbers of heads and groups


@torch.no_grad()
def randomise(model: nn.Module) -> None:
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 2) if "running_var" in name else tensor.normal_(0, 0.7)


@torch.no_grad()
def zero_some(model: nn.Module, x: Tensor, wholly: bool) -> dict[str, int]:
    """Zero random units, completely or in part, so that some are constant and some unread; return their numbers."""
    units, parameters = find_units(model, x), dict(model.named_parameters())
    chosen = {family: torch.randperm(family.size)[: int(torch.randint(family.size, ()))] for family in units.removable}
    for family, several in chosen.items():
        for unit in several.tolist():
            for name, k, where in slices_of(units, family, unit):
                if name in parameters and (wholly or torch.rand(()) < 0.7):
                    parameters[name].index_fill_(k, where, 0.0)
    return {family.name: len(several) for family, several in chosen.items()}


def check(model: nn.Module, wholly: bool) -> None:
    """Take random zeros out of a model, and see that nothing else has changed."""
    model.double()
    randomise(model)
    x = torch.randn(IMAGES, 3, SIDE, SIDE, dtype=torch.float64)
    zeroed = zero_some(model, x, wholly)
    small, report = compact(model, x, return_report=True)
    for inputs in (x, torch.randn(4, 3, SIDE, SIDE, dtype=torch.float64)):
        for training in (False, True):
            ours, theirs = (copy.deepcopy(each).train(training)(inputs) for each in (small, model))
            assert ours.shape == theirs.shape
            assert (ours - theirs).abs().max() <= TOLERANCE * max(1.0, theirs.abs().max())
    assert report.unknown == {}
    for family in report.families:
        if wholly and not family.why:
            assert family.before - family.after >= zeroed.get(family.name, 0), family
    assert compact(small, x, return_report=True)[1].removed == 0


@st.composite
def networks(draw: Callable[..., Any]) -> Network:
    return Writer(lambda first, last: draw(st.integers(first, last))).write(draw(st.integers(2, 9)))


@given(networks(), st.integers(0, 2**20), st.booleans())
@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_outputs_stay_and_a_compacted_model_stays_the_same(network: Network, seed: int, wholly: bool):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        check(network, wholly)

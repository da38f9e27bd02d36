"""The implementations of a step, and helpers of the tests that run over all of them."""

import copy

import pytest
import torch
from torch import nn

from tests.support.optimizers import CASES, batch, build, network, optim

IMPLEMENTATIONS = {
    "one by one": {"foreach": False, "fused": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
}
EACH = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
OTHER_IMPLEMENTATIONS = [name for name in IMPLEMENTATIONS if name != "one by one"]
# the optimizers that have them all; Adagrad has only torch's own fused step
NAMES = [name for name, (base, _) in CASES.items() if base in (optim.SGD, optim.Adam, optim.AdamW)]
ALL = pytest.mark.parametrize("case", NAMES)
# where the options of the optimizer do not matter
FEW_NAMES = ["SGD momentum", "Adam", "AdamW"]
FEW = pytest.mark.parametrize("case", FEW_NAMES)

STEPS = 16  # of a training run, in which some weights become zero


def wide(seed: int = 0) -> nn.Module:
    """Return the network in float64, so that rounding does not count as a difference."""
    return network(seed).double()


def build_as(implementation: str, case: str, model: nn.Module, **options):
    return build(case, model, **IMPLEMENTATIONS[implementation], **options)


def by_reference(optimizer):
    """Make an optimizer step with the readable reference."""
    optimizer.step = optimizer._reference_step
    return optimizer


def options_of(case: str, implementation: str) -> dict:
    return {**CASES[case][1], **IMPLEMENTATIONS[implementation]}


def loss_of(model: nn.Module, step: int) -> torch.Tensor:
    """The loss of one batch, in the precision of the model."""
    x, y = (t.to(next(model.parameters()).dtype) for t in batch(step))
    return (model(x) - y).square().mean()


def run(model: nn.Module, optimizer, steps=range(STEPS), scheduler=None) -> None:
    for step in steps:
        optimizer.zero_grad()
        loss_of(model, step).backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


def random_gradients(params, seed: int) -> None:
    """New gradients, the same for parameters of the same shapes whatever their precision."""
    generator = torch.Generator().manual_seed(seed)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype)


def assert_alike(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Check in float64: equal up to the order of rounding, with the same zeros."""
    assert ours.dtype == theirs.dtype == torch.float64
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    assert torch.equal(ours == 0, theirs == 0)


def snapshot(optimizer, *tensors: torch.Tensor) -> tuple:
    """All that a step may change."""
    return copy.deepcopy((optimizer.state_dict(), [t.detach() for t in tensors]))


def same(one, other) -> bool:
    """Equal to the last bit, through dictionaries, lists and tensors."""
    if isinstance(one, torch.Tensor):
        if not isinstance(other, torch.Tensor) or (one.dtype, one.shape) != (other.dtype, other.shape):
            return False
        return torch.equal(*(t.detach().reshape(-1).contiguous().view(torch.uint8) for t in (one, other)))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other

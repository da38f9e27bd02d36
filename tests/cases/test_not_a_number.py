"""A NaN stays a NaN and an overflow stays visible, whatever penalty, blocks and optimizer they pass through."""

import pytest
import torch
from torch import nn

import torchlasso as tl
from torchlasso.optim.metrics import known_metrics as optimizers
from torchlasso.penalties import Separable, registry
from torchlasso.penalties.blocks import (
    NM,
    Chunks,
    Columns,
    Elements,
    FanIn,
    Filters,
    Heads,
    InputChannels,
    Rows,
    SingularValues,
)

BLOCKS = [
    Elements(),
    Rows(),
    Columns(),
    Filters(),
    InputChannels(),
    Chunks(n=5),
    Heads(n=2),
    SingularValues(),
    NM(2, 4),
    FanIn(0.3),
]
GROUPS = ["l1", "elastic-net", "mcp", "scad", "sparse-group"]  # those with a prox over groups in Adam's metric


def _pairs():
    for name, penalty in registry().items():
        for over in BLOCKS:
            if issubclass(penalty, Separable) or not isinstance(over, SingularValues | Elements):
                yield pytest.param(penalty(over=over), id=f"{name}-{type(over).__name__}")


PAIRS = list(_pairs())


def weights(value: float, dtype=torch.float32) -> torch.Tensor:
    w = torch.randn(8, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    w[2, 3] = value
    return w


def step_with(make, penalty, value: float, **options) -> torch.Tensor:
    w = nn.Parameter(weights(0.5))
    optimizer = make([w], lr=0.01, penalty=penalty, lam=0.1, **options)
    w.grad = weights(value)
    optimizer.step()
    return w.detach()


@pytest.mark.parametrize("penalty", PAIRS)
def test_the_prox_keeps_nan(penalty):
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        for lam in (0.0, 0.1, 1e20):
            assert penalty.prox(weights(torch.nan, dtype), lam, 0.3)[2, 3].isnan(), (dtype, lam)
            overflowed = penalty.prox(weights(-torch.inf, dtype), min(lam, 0.1), 0.3)[2, 3]
            assert not overflowed.isfinite(), (dtype, lam)


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("over", [Rows(), Columns(), Chunks(n=4), Elements()], ids=str)
def test_the_prox_in_a_metric_keeps_it_too(name, over):
    if name == "sparse-group" and over == Elements():
        return
    step = 10 ** torch.randn(8, 6, generator=torch.Generator().manual_seed(1))
    for value in (torch.nan, torch.inf):
        assert not registry()[name](over=over).prox(weights(value), 0.1, step)[2, 3].isfinite(), value
    assert registry()[name](over=over).prox(weights(torch.nan), 1e10, step)[2, 3].isnan()


@pytest.mark.parametrize("penalty", PAIRS)
def test_sums_and_certificates_say_so(penalty):
    assert penalty.value(weights(torch.nan), 0.1).isnan()
    assert penalty.support(weights(torch.nan)).any()
    assert not penalty.subdiff_distance(weights(0.5), weights(torch.nan), 0.1).isfinite().all()
    assert not penalty.subdiff_distance(weights(torch.nan), weights(0.5), 0.1).isfinite().all()
    largest = penalty.lambda_max(weights(torch.nan))
    # under an infinite slope no gradient is ever too large
    assert largest.isnan() or largest == torch.inf or penalty.lambda_max(weights(0.5)) == 0


@pytest.mark.parametrize("base", optimizers())
@pytest.mark.parametrize("penalty", [registry()[name]() for name in registry()], ids=str)
def test_every_optimizer_shows_a_gradient_that_is_not_a_number(base, penalty):
    for foreach in (False, True):
        assert step_with(tl.proximal(base), penalty, torch.nan, foreach=foreach)[2, 3].isnan(), foreach
        assert not step_with(tl.proximal(base), penalty, torch.inf, foreach=foreach)[2, 3].isfinite(), foreach


def test_blocks_over_several_parameters_keep_it():
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(over=tl.Units(model, torch.ones(1, 4))), lam=0.1), lr=0.01)
    model(torch.ones(3, 4)).sum().backward()
    model[0].weight.grad[2, 1] = torch.nan
    optimizer.step()
    assert model[0].weight[2, 1].isnan()

"""Settings without a sound meaning are refused with a reason; a custom optimizer declares its metric."""

import copy
import math

import pytest
import torch
from torch import nn

import torchlasso as tl
from tests.support.optimizers import (
    optim,
)
from torchlasso.optim import Metric

# --- refusals ---


def weights(*shape: int, **options) -> nn.Parameter:
    return nn.Parameter(torch.ones(*shape, **options))


@pytest.mark.parametrize("base", [optim.LBFGS, optim.Adadelta, optim.ASGD], ids=lambda c: c.__name__)
def test_an_optimizer_without_a_known_metric_is_refused(base):
    with pytest.raises(ValueError, match=rf"^{base.__name__}: its metric is not known.*metric="):
        tl.proximal(base)


def test_a_subclass_of_a_known_optimizer_needs_its_own_metric():
    class Adamantium(optim.Adam):
        pass

    with pytest.raises(ValueError, match="Adamantium: its metric is not known"):
        tl.proximal(Adamantium)


@pytest.mark.parametrize("groups", [lambda: [weights(2)], lambda: [{"params": [weights(2)], "penalty": None}]])
def test_no_penalty_at_all_is_refused(groups):
    with pytest.raises(ValueError, match=r"ProxSGD: no parameter group has a penalty.*param_groups"):
        tl.ProxSGD(groups(), lr=0.1)


@pytest.mark.parametrize("lam", [-1e-3, math.nan, math.inf, "0.1", None, True], ids=repr)
def test_an_invalid_strength_is_refused(lam):
    with pytest.raises(ValueError, match=r"lam must be a finite number of at least 0; got"):
        tl.ProxSGD([weights(2)], lr=0.1, penalty=tl.L1(), lam=lam)
    with pytest.raises(ValueError, match=r"lam must be a finite number of at least 0; got"):
        tl.ProxSGD([{"params": [weights(2)], "penalty": tl.L1(), "lam": lam}], lr=0.1)


# name -> (optimizer class, shape and type of the parameter, group, error, message)
REFUSED = {
    "strength": (tl.ProxSGD, weights(4), {"penalty": tl.L1(), "lam": -1.0}, ValueError, "lam must be a finite number"),
    "name": (tl.ProxSGD, weights(4), {"penalty": "l1", "lam": 0.1}, TypeError, "penalty must be a Penalty.*got 'l1'"),
    "class": (tl.ProxSGD, weights(4), {"penalty": tl.L1, "lam": 0.1}, TypeError, "penalty must be a Penalty"),
    "log-sum over filters": (
        tl.ProxAdam,
        weights(4, 4),
        {"penalty": tl.LogSum(over=tl.Filters()), "lam": 0.1},
        ValueError,
        "LogSum over Filters.* no sound prox under a per-coordinate step.*ProxSGD",
    ),
    "singular values": (
        tl.ProxAdam,
        weights(4, 4),
        {"penalty": tl.L1(over=tl.SingularValues()), "lam": 0.1},
        ValueError,
        "SingularValues.* no prox under a per-coordinate step",
    ),
    "heads": (
        tl.ProxSGD,
        weights(4, 4),
        {"penalty": tl.L1(over=tl.Heads(n=3)), "lam": 0.1},
        ValueError,
        r"Heads.*\(4, 4\) does not divide",
    ),
    "dimensions": (
        tl.ProxSGD,
        weights(4),
        {"penalty": tl.L1(over=tl.Columns()), "lam": 0.1},
        ValueError,
        r"at least 2 dimensions; got \(4,\)",
    ),
    "complex": (
        tl.ProxSGD,
        weights(4, 4, dtype=torch.complex64),
        {"penalty": tl.SparseGroup(), "lam": 0.1},
        TypeError,
        "complex parameters cannot have the penalty SparseGroup",
    ),
    "complex, latent": (
        tl.ProxSGD,
        weights(4, dtype=torch.complex64),
        {"penalty": tl.L1(), "lam": 0.1, "form": "latent"},
        TypeError,
        "complex parameters have no form='latent'",
    ),
    "differentiable": (
        tl.ProxAdam,
        weights(4),
        {"penalty": tl.L1(), "lam": 0.1, "differentiable": True},
        ValueError,
        "differentiable=True is not possible",
    ),
}


@pytest.mark.parametrize("cause", REFUSED)
def test_meaningless_arguments_are_refused(cause):
    cls, w, group, error, message = REFUSED[cause]
    with pytest.raises(error, match=message):
        cls([{"params": [w], **group}], lr=0.1)


@pytest.mark.parametrize("cause", REFUSED)
def test_a_refused_group_leaves_the_optimizer_as_it_was(cause):
    cls, w, group, error, message = REFUSED[cause]
    old = weights(4)
    optimizer = cls([old], lr=0.1, penalty=tl.L1(), lam=0.25)
    old.grad = torch.ones(4)
    optimizer.step()
    groups, state = copy.deepcopy(optimizer.param_groups), len(optimizer.state)
    with pytest.raises(error, match=message):
        optimizer.add_param_group({"params": [w], **group})
    assert optimizer.penalties == [tl.L1()]
    assert len(optimizer.param_groups) == 1
    assert optimizer.param_groups[0]["params"][0] is old
    assert {**optimizer.param_groups[0], "params": 0} == {**groups[0], "params": 0}
    assert len(optimizer.state) == state
    optimizer.add_param_group({"params": [w], "penalty": None})  # a refused parameter can come again, unpenalised
    w.grad = torch.ones_like(w)
    optimizer.step()
    assert optimizer.penalties == [tl.L1(), None]


def test_a_parameter_that_is_there_already_leaves_penalties_and_groups_parallel():
    w = weights(4)
    optimizer = tl.ProxSGD([w], lr=0.1, penalty=tl.L1(), lam=0.25)
    with pytest.raises(ValueError, match="some parameters appear in more than one parameter group"):
        optimizer.add_param_group({"params": [w]})
    assert len(optimizer.penalties) == len(optimizer.param_groups) == 1


# --- a declared metric ---


class Preconditioned(optim.Optimizer):
    """Gradient descent with a fixed scale for each coordinate."""

    def __init__(self, params, lr: float, scale: torch.Tensor):
        super().__init__(params, {"lr": lr, "scale": scale})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p -= group["lr"] * group["scale"] * p.grad


class PreconditionedMetric(Metric):
    def step_size(self, group, state, gain):
        return group["lr"] * group["scale"]


def test_a_declared_metric_gives_the_solution():
    cls = tl.proximal(Preconditioned, metric=PreconditionedMetric())
    assert cls.__name__ == "ProxPreconditioned"
    target = torch.tensor([3.0, -0.4, 0.6, -2.0])
    w = weights(4)
    optimizer = cls([w], lr=0.1, scale=torch.tensor([1.0, 5.0, 0.5, 2.0]), penalty=tl.L1(), lam=0.5)
    for _ in range(1000):
        w.grad = w.detach() - target
        optimizer.step()
    torch.testing.assert_close(w.detach(), torch.tensor([2.5, 0.0, 0.1, -1.5]))
    assert w[1] == 0
    twin_w, twin = copy.deepcopy((w, optimizer))
    assert isinstance(twin, Preconditioned)
    twin_w.grad = -target
    twin.step()
    assert (twin_w != w).any()

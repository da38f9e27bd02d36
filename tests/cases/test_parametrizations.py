"""Weights that are computed from other parameters: the penalised parameters, and no weight becomes NaN."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

import torchlasso as tl


class Symmetric(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.triu() + x.triu(1).T


class LowRank(nn.Module):
    """W + BA, as LoRA adds it, with B zero at the start."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(2, 8)), nn.Parameter(torch.zeros(8, 2))

    def forward(self, w: Tensor) -> Tensor:
        return w + self.b @ self.a


class Product(nn.Module):
    def forward(self, u: Tensor, v: Tensor) -> Tensor:
        return u @ v

    def right_inverse(self, w: Tensor) -> tuple[Tensor, Tensor]:
        return w[:, :2].clone(), w[:2].clone()


class RootOfSquares(nn.Module):
    """A direction whose value at zero is finite, and whose gradient there is not."""

    def forward(self, v: Tensor) -> Tensor:
        return v / (v.square().sum(dim=1, keepdim=True).sqrt() + 1e-6)


def registered(cls: type[nn.Module]) -> Callable[[nn.Module], nn.Module]:
    return lambda layer: parametrize.register_parametrization(layer, "weight", cls(), unsafe=True)


def old(make: Callable[..., nn.Module]) -> Callable[[nn.Module], nn.Module]:
    def quietly(layer: nn.Module) -> nn.Module:
        with warnings.catch_warnings():  # torch calls it deprecated
            warnings.simplefilter("ignore")
            return make(layer)

    return quietly


NEW = "parametrizations.weight."
PENALISED = {  # kind: (how it is made, which of its parameters are penalised)
    "weight_norm": (parametrizations.weight_norm, [f"{NEW}original0"]),
    "old weight_norm": (old(nn.utils.weight_norm), ["weight_g"]),
    "symmetric": (registered(Symmetric), [f"{NEW}original"]),
    "product": (registered(Product), [f"{NEW}original0", f"{NEW}original1"]),
    "pruned": (lambda layer: prune.l1_unstructured(layer, "weight", amount=0.5), ["weight_orig"]),
}
LEFT_OUT = {
    "spectral_norm": parametrizations.spectral_norm,
    "old spectral_norm": old(nn.utils.spectral_norm),
    "orthogonal": parametrizations.orthogonal,
    "one magnitude for all": lambda layer: parametrizations.weight_norm(layer, dim=None),
    "low rank": registered(LowRank),
    "root of squares": registered(RootOfSquares),
}
X = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))


def network(make: Callable[[nn.Module], nn.Module]) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(make(nn.Linear(8, 8)), nn.ReLU(), nn.Linear(8, 1))


def trained(model: nn.Module, groups: list[dict], steps: int = 60) -> tl.Proximal:
    optimizer = tl.ProxAdam(groups, lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        (model(X) - X[:, :1]).square().mean().backward()
        optimizer.step()
    assert all(bool(p.isfinite().all()) for p in model.parameters())
    return optimizer


def penalised(model: nn.Module, groups: list[dict]) -> list[str]:
    names = {p: name for name, p in model.named_parameters()}
    return sorted(names[p] for group in groups if group["penalty"] for p in group["params"])


@pytest.mark.parametrize("kind", PENALISED)
def test_parameters_that_make_the_weight_zero_are_penalised(kind):
    make, names = PENALISED[kind]
    model = network(make)
    groups = tl.param_groups(model, tl.L1(), lam=0.05)
    assert penalised(model, groups) == sorted([*(f"0.{name}" for name in names), "2.weight"])
    before = model.state_dict()
    optimizer = trained(model, groups)
    model(X)  # a hook computes the weight before it runs
    assert (model[0].weight == 0).any()
    assert 0 <= tl.stationarity(optimizer.penalised_groups()).mean < 1
    rows = tl.report(model, optimizer.penalised_groups()).layers
    assert [row.name for row in rows if row.penalised] == [row.name for row in rows]
    assert before.keys() == model.state_dict().keys()


@pytest.mark.parametrize("kind", ["weight_norm", "old weight_norm"])
def test_a_magnitude_of_zero_is_a_row_of_zeros(kind):
    model = network(PENALISED[kind][0])
    trained(model, tl.param_groups(model, tl.L1(), lam=0.1))
    model(X)
    (magnitude,) = (p for name, p in model.named_parameters() if name.endswith(tuple(PENALISED[kind][1])))
    dead = magnitude[:, 0] == 0
    assert 0 < dead.sum() < 8
    assert torch.equal((model[0].weight == 0).all(dim=1), dead)
    (row,) = (row for row in tl.report(model).layers if row.units == 8)
    assert (row.zeros, row.live_units) == (int(dead.sum()), int((~dead).sum()))


@pytest.mark.parametrize("make", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_a_hook_of_the_older_kind_is_followed_after_a_backward_pass(make):
    model = network(old(make))
    model(X).sum().backward()  # the weight that the hook sets has a graph now
    compacted, report = tl.compact(model, X, return_report=True)
    assert report.after.parameters == report.before.parameters
    torch.testing.assert_close(compacted(X), model(X))
    tl.accelerate(model, X)


@pytest.mark.parametrize("kind", LEFT_OUT)
def test_weights_that_cannot_become_zero_are_left_out_by_name(kind):
    model = network(LEFT_OUT[kind])
    with pytest.warns(UserWarning, match=r"param_groups leaves weights out: no parameter that 0\.weight is computed"):
        groups = tl.param_groups(model, tl.L1(), lam=0.05)
    assert penalised(model, groups) == ["2.weight"]
    trained(model, groups)


@pytest.mark.parametrize("kind", [kind for kind in LEFT_OUT if kind != "one magnitude for all"])
def test_where_nothing_else_is_penalised_it_is_refused_by_name(kind):
    rule = tl.Rule(lambda name, *_: name.startswith("0.") and "bias" not in name, tl.L1(), everything=True)
    with pytest.raises(ValueError, match=r"nothing is penalised: no parameter that 0\.weight is computed from"):
        tl.param_groups(network(LEFT_OUT[kind]), rule, lam=0.05)


@pytest.mark.parametrize("kind", LEFT_OUT)
def test_weights_without_a_rule_cause_no_warning(kind):
    model = network(LEFT_OUT[kind])
    groups = tl.param_groups(model, tl.Rule("2.*", tl.L1()), lam=0.05)
    assert penalised(model, groups) == ["2.weight"]


@pytest.mark.parametrize("everything", [False, True])
def test_the_direction_is_penalised_under_no_rule(everything):
    model = network(parametrizations.weight_norm)
    rules = [tl.Rule("*", tl.L1(over=tl.Rows()), everything=everything)]
    assert not any(name.endswith("original1") for name in penalised(model, tl.param_groups(model, rules, lam=0.1)))


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("kind", [*PENALISED, *LEFT_OUT])
def test_to_look_at_a_model_does_not_change_it(kind, mode):
    model = network(PENALISED[kind][0] if kind in PENALISED else LEFT_OUT[kind]).train(mode)
    model(X)
    weight = model[0].weight.detach().clone()
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    tl.report(model)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    if not parametrize.is_parametrized(model[0]):
        assert torch.equal(model[0].weight, weight)


# --- units ---


@pytest.mark.parametrize("kind", ["weight_norm", "low rank", "product"])
def test_units_are_zero_as_a_whole_and_never_nan(kind):
    make = PENALISED[kind][0] if kind in PENALISED else LEFT_OUT[kind]
    model = network(make)
    units = tl.Units(model, X[:2])
    assert not any(name.endswith("weight.original1") for name in units.names) or kind == "product"
    trained(model, tl.param_groups(model, tl.L1(over=units), lam=0.02))
    dead = (model[0].weight == 0).all(dim=1) & (model[0].bias == 0)
    assert dead.any()
    small = tl.compact(model, X[:2])
    torch.testing.assert_close(small(X), model(X), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["spectral_norm", "root of squares"])
def test_units_that_no_zero_makes_zero_are_left_out_by_name(kind):
    with pytest.raises(ValueError, match=r"no removable unit.*no parameter that 0\.weight is computed from"):
        tl.Units(network(LEFT_OUT[kind]), X[:2])
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), network(LEFT_OUT[kind]))
    with pytest.warns(UserWarning, match=r"Units leaves units out: no parameter that 2\.0\.weight is computed from"):
        units = tl.Units(model, X[:2])
    assert units.names == ("0.weight", "0.bias")


# --- save, load, shrink, budgets ---


@pytest.mark.parametrize("kind", [*PENALISED, *LEFT_OUT])
def test_saved_and_loaded_they_compute_the_same(kind, tmp_path):
    make = PENALISED[kind][0] if kind in PENALISED else LEFT_OUT[kind]
    model, other = network(make).eval(), network(make).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1.5)
    tl.save(model, tmp_path / "model")
    tl.load(tmp_path / "model", into=other)
    torch.testing.assert_close(other(X), model(X), rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["weight_norm", "low rank", "product"])
def test_shrunk_in_training_the_outputs_stay(kind):
    make = PENALISED[kind][0] if kind in PENALISED else LEFT_OUT[kind]
    model = network(make)
    optimizer = trained(model, tl.param_groups(model, tl.L1(over=tl.Units(model, X[:2])), lam=0.02))
    before = model(X).detach()
    tl.shrink_(model, optimizer, X[:2])
    torch.testing.assert_close(model(X).detach(), before, rtol=1e-4, atol=1e-5)
    optimizer.zero_grad()
    (model(X) - X[:, :1]).square().mean().backward()
    optimizer.step()
    assert bool(model(X).isfinite().all())


def test_a_budget_says_that_it_does_not_see_the_layer():
    model = network(parametrizations.weight_norm)
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(over=tl.Rows()), lam=0.05))
    with pytest.raises(ValueError, match=r"0\.parametrizations\.weight\.original0 is penalised, but"):
        tl.TargetBudget(optimizer, model, X, flops=0.5, steps=10)

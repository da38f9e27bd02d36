"""Blocks over several parameters: the prox of a unit acts on all its slices together."""

from __future__ import annotations

import copy
import functools
import pickle
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import torchlasso as tl

pytestmark = pytest.mark.slow


class Residual(nn.Module):
    """Two layers that add to one stream, a normalised branch, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.first = nn.Conv2d(4, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.second(F.relu(self.norm(self.first(x))))
        return self.head(x.mean((2, 3)))


X = torch.randn(12, 1, 6, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(12) % 3


def residual() -> Residual:
    torch.manual_seed(0)
    return Residual()


def units(model: nn.Module, **options: object) -> tl.Units:
    return of_residual(**options) if type(model) is Residual else tl.Units(model, X[:2], **options)


@functools.cache
def of_residual(**options: object) -> tl.Units:
    """Read the units once: to read a model takes longer than most tests."""
    return tl.Units(residual(), X[:2], **options)


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, *controls: tl.LambdaController
) -> list[float]:
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(X), Y)
        loss.backward()
        optimizer.step()
        for control in controls:
            control.step()
        losses.append(loss.item())
    return losses


def test_a_unit_has_all_that_makes_it():
    found = units(residual())
    assert found.names == (
        "stem.weight", "stem.bias", "first.weight", "norm.weight", "norm.bias", "second.weight", "second.bias",
    )  # fmt: skip
    sizes = {rows.shape for rows in found.views([dict(residual().named_parameters())[n] for n in found.names])}
    assert sizes == {(4, 9 + 1 + 54 + 1), (6, 36 + 2)}  # the stream: stem and second; the branch: first and its norm


def test_gathering_and_putting_back_are_inverse():
    model = residual()
    over = units(model)
    params = [dict(model.named_parameters())[name] for name in over.names]
    before = [p.detach().clone() for p in params]
    with torch.no_grad():
        rows = over.views(params)
        over.put_(params, [torch.zeros_like(r) for r in rows])
        assert all(not p.any() for p in params)
        over.put_(params, rows)
    assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))


def test_the_parts_of_a_joint_projection_belong_to_the_same_heads():
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.out = nn.Linear(12, 36), nn.Linear(12, 12)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = (t.unflatten(-1, (3, 4)).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=-1))
            x = F.scaled_dot_product_attention(q, k, v)
            return self.out(x.transpose(1, 2).flatten(2))

    model = Attention()
    over = tl.Units(model, torch.randn(2, 5, 12))
    assert over.names == ("qkv.weight", "qkv.bias")
    marks = torch.arange(36.0)[:, None].expand(36, 12)
    (rows,) = over.views([marks, torch.arange(36.0)])
    assert rows[1].unique().tolist() == [4, 5, 6, 7, 16, 17, 18, 19, 28, 29, 30, 31]


@pytest.mark.parametrize("penalty", [tl.L1, tl.MCP, tl.ElasticNet, tl.SparseGroup])
@pytest.mark.parametrize("optimizer", [tl.ProxSGD, tl.ProxAdam, tl.proximal(torch.optim.RMSprop)])
def test_over_one_parameter_it_is_the_penalty_of_its_rows(penalty, optimizer):
    """If a unit consists of one row only, both ways have to take the same steps."""

    def net() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(36, 8, bias=False), nn.ReLU(), nn.Linear(8, 3))

    one, other = net(), net()
    theirs = tl.Rule("1.weight", penalty(over=tl.Rows()))
    mine = tl.Rule("1.weight", penalty(over=units(one)))
    lr = 0.5 if optimizer is tl.ProxSGD else 0.01
    train(one, optimizer(tl.param_groups(one, mine, lam=0.05), lr=lr), 30)
    train(other, optimizer(tl.param_groups(other, theirs, lam=0.05), lr=lr), 30)
    torch.testing.assert_close(one[1].weight, other[1].weight)
    assert (one[1].weight == 0).all(dim=1).any()


def test_the_prox_of_a_unit_is_the_prox_of_all_its_slices():
    """With plain SGD a unit becomes its slices after the step, times (1 − τλ√n/‖u‖)₊ for all of them together."""
    model = residual()
    over, lr, lam = units(model), 0.1, 0.3
    plain = copy.deepcopy(model)
    train(plain, torch.optim.SGD(plain.parameters(), lr=lr), 1)
    train(model, tl.ProxSGD(tl.param_groups(model, tl.L1(over=over), lam=lam), lr=lr), 1)
    names = [("first.weight", (6, -1)), ("norm.weight", (6, 1)), ("norm.bias", (6, 1))]
    before = torch.cat([plain.get_parameter(name).detach().reshape(shape) for name, shape in names], dim=1)
    after = torch.cat([model.get_parameter(name).detach().reshape(shape) for name, shape in names], dim=1)
    factor = (1 - lr * lam * 38**0.5 / before.norm(dim=1, keepdim=True)).clamp_min(0)
    torch.testing.assert_close(after, before * factor)
    assert 0 < factor.min() < 1


@pytest.mark.parametrize(("optimizer", "lr", "lam"), [(tl.ProxSGD, 0.3, 0.012), (tl.ProxAdam, 0.01, 0.006)])
@pytest.mark.parametrize("fused", [None, True])
def test_a_dead_unit_is_zero_in_all_its_tensors_and_removable(optimizer, lr, lam, fused):
    model = residual()
    optimizer = optimizer(tl.param_groups(model, tl.L1(over=units(model)), lam=lam), lr=lr, fused=fused)
    train(model, optimizer, 60)
    dead = ~model.norm.weight.detach().bool()
    assert 0 < dead.sum() < 6
    assert not model.norm.bias[dead].any()
    assert not model.first.weight[dead].any()
    small = tl.compact(model, X[:2])
    assert small.first.out_channels == int((~dead).sum())


def test_it_finds_a_stationary_point():
    model = residual().double()
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(over=units(model)), lam=0.03), lr=0.02)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300)
    for _ in range(300):
        optimizer.zero_grad()
        F.cross_entropy(model(X.double()), Y).backward()
        optimizer.step()
        scheduler.step()
    assert tl.stationarity(optimizer.penalised_groups()).max < 0.02


def test_the_loss_term_is_the_sum_over_units_and_differentiable():
    model = residual()
    groups = tl.param_groups(model, tl.L1(over=units(model, weighted=False)), lam=0.5)
    value = tl.penalty(groups)
    rows = units(model).views(groups[0]["params"])
    torch.testing.assert_close(value, 0.5 * sum(r.norm(dim=1).sum() for r in rows))
    value.backward()
    assert all(p.grad is not None for p in groups[0]["params"])


def test_saving_and_loading_changes_nothing():
    model = residual()
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(over=units(model)), lam=0.02), lr=0.01)
    train(model, optimizer, 5)
    twin = residual()
    twin.load_state_dict(model.state_dict())
    resumed = tl.ProxAdam(tl.param_groups(twin, tl.L1(over=units(twin)), lam=0.5), lr=0.5)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert train(model, optimizer, 5) == train(twin, resumed, 5)
    assert pickle.loads(pickle.dumps(optimizer)).penalties[0].over.names == optimizer.penalties[0].over.names


def test_a_parameter_without_a_gradient_keeps_its_values():
    model = residual()
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(over=units(model)), lam=0.02), lr=0.01)
    before = model.norm.bias.detach().clone()
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(model(X), Y).backward()
        model.norm.bias.grad = None
        optimizer.step()
    assert torch.equal(model.norm.bias, before)


def test_controllers_know_units():
    model = residual()
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(over=units(model)), lam=0.01), lr=0.02)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 120)
    controls = [tl.TargetSparsity(optimizer, 0.5, steps=120), tl.Reweighted(optimizer, theta=0.05)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tl.TargetMissed)  # a unit is 5 % of these weights
        for _ in range(120):
            train(model, optimizer, 1, *controls)
            scheduler.step()
    (weights,) = optimizer.weights.values()
    assert weights.shape == (10,)
    assert weights.max() == 1  # dead blocks have the full λ
    params = optimizer.param_groups[0]["params"]
    assert sum(int((p == 0).sum()) for p in params) / sum(p.numel() for p in params) == pytest.approx(0.5, abs=0.15)


def test_a_budget_is_met_by_units():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip
    optimizer = tl.ProxAdam(tl.param_groups(net, tl.L1(over=units(net)), lam=1e-3), lr=0.01)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)
    control = tl.TargetBudget(optimizer, net, X, flops=0.4, steps=100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tl.TargetMissed)  # a unit is some 6 % of these operations
        for _ in range(100):
            train(net, optimizer, 1, control)
            scheduler.step()
    _, report = tl.compact(net, X[:2], return_report=True)
    assert report.after.flops / report.before.flops == pytest.approx(0.4, abs=0.1)


def test_some_families_alone():
    model = residual()
    assert units(model, only="first.*").names == ("first.weight", "norm.weight", "norm.bias")
    groups = tl.param_groups(
        model, [tl.Rule("*", tl.L1(over=units(model, only="first.*"))), tl.Rule("*", tl.L1())], lam=0.1
    )
    assert [len(group["params"]) for group in groups] == [3, 3, 3]


def test_network_slimming_is_a_rule():
    """L1 on the scales of batch normalisation alone (Liu and others 2017)."""
    model = residual()

    def scales(name: str, module: nn.Module, parameter: nn.Parameter) -> bool:
        return isinstance(module, nn.BatchNorm2d) and name.endswith("weight")

    groups = tl.param_groups(model, tl.Rule(scales, tl.L1(), everything=True), lam=0.1)
    train(model, tl.ProxSGD(groups, lr=0.5), 20)
    gone = ~model.norm.weight.detach().bool()
    assert gone.any()
    with torch.no_grad():
        model.norm.bias[gone] = (
            0  # the remaining bias is a constant, and zero padding would differ from it at the border
        )
    assert tl.compact(model, X[:2]).norm.num_features == int((~gone).sum())


def test_impossible_units_are_refused():
    model = residual()
    with pytest.raises(ValueError, match=r"no removable unit whose family matches 'nowhere\.\*'; stem\.weight:0"):
        units(model, only="nowhere.*")
    with pytest.raises(ValueError, match=r"needs all of its parameters in one group, and norm\.bias is not in it"):
        tl.param_groups(
            model, [tl.Rule("norm.bias", None, everything=True), tl.Rule("*", tl.L1(over=units(model)))], lam=1
        )
    with pytest.raises(ValueError, match="reaches over 7 parameters at once"):
        tl.L1(over=units(model)).value(torch.ones(2), 1.0)
    with pytest.raises(ValueError, match=r"singular|no sound prox|per-coordinate"):
        tl.ProxAdam(tl.param_groups(model, tl.LHalf(over=units(model)), lam=1.0))


def test_expensive_units_are_removed_first_and_the_model_still_shrinks_in_training() -> None:
    net = residual()
    optimizer = tl.ProxAdam(tl.param_groups(net, tl.L1(over=units(net, by="flops")), lam=0.02), lr=0.02)
    train(net, optimizer, 60)
    whole = copy.deepcopy(net)
    before = sum(p.numel() for p in net.parameters())
    tl.shrink_(net, optimizer, X[:2])
    assert sum(p.numel() for p in net.parameters()) < before
    torch.testing.assert_close(net.eval()(X), whole.eval()(X))

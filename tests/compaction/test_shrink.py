"""A model that becomes smaller in training continues to train like the full model."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import torchlasso as tl

pytestmark = pytest.mark.slow

X = torch.randn(24, 1, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.arange(24) % 3
DEAD = {"0": [0, 2, 5], "4": [1]}  # channels and neurons that are dead on both sides, and so stay dead


def network() -> nn.Sequential:
    """A small network with dead channels: their weights are zero on both sides."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 6), nn.Tanh(), nn.Linear(6, 3)
    ).double()
    with torch.no_grad():
        for i in DEAD["0"]:
            for p in (net[0].weight, net[0].bias, net[1].weight, net[1].bias):
                p[i] = 0
            net[4].weight[:, 16 * i : 16 * (i + 1)] = 0
        for i in DEAD["4"]:
            net[4].weight[i] = net[4].bias[i] = 0
            net[6].weight[:, i] = 0
    return net


def step(model: nn.Module, optimizer: torch.optim.Optimizer, *controls: tl.LambdaController) -> float:
    optimizer.zero_grad()
    loss = F.cross_entropy(model(X), Y)
    loss.backward()
    optimizer.step()
    for control in controls:
        control.step()
    return loss.item()


def units(model: nn.Module) -> tl.Units:
    return tl.Units(model, X[:2])


MAKE: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "sgd": lambda m: torch.optim.SGD(m.parameters(), lr=0.05, momentum=0.9),
    "adam": lambda m: torch.optim.Adam(m.parameters(), lr=0.01, amsgrad=True),
    "adamw": lambda m: torch.optim.AdamW(m.parameters(), lr=0.01),
    "adafactor": lambda m: torch.optim.Adafactor(m.parameters(), lr=0.01),
    "prox-sgd": lambda m: tl.ProxSGD(tl.param_groups(m, tl.L1(), lam=1e-4), lr=0.05, momentum=0.9),
    "prox-adam": lambda m: tl.ProxAdam(tl.param_groups(m, tl.L1(), lam=1e-4), lr=0.01),
    "prox-adam fused": lambda m: tl.ProxAdam(tl.param_groups(m, tl.L1(), lam=1e-4), lr=0.01, fused=True),
    "rows": lambda m: tl.ProxAdam(tl.param_groups(m, tl.L1(over=tl.Filters()), lam=1e-4), lr=0.01),
    "units": lambda m: tl.ProxAdam(tl.param_groups(m, tl.L1(over=units(m)), lam=1e-4), lr=0.01),
    "units sgd": lambda m: tl.ProxSGD(tl.param_groups(m, tl.MCP(over=units(m)), lam=1e-3), lr=0.05),
}  # fmt: skip


@pytest.mark.parametrize("name", MAKE)
def test_the_losses_agree_with_the_full_model(name):
    full = network()
    optimizer = MAKE[name](full)
    for _ in range(3):
        step(full, optimizer)
    small = copy.deepcopy(full)
    other = MAKE[name](small)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    kept = list(small.parameters())
    report = tl.shrink_(small, other, X[:2])
    assert report.removed == 4
    assert small[0].out_channels == 5
    assert small[4].in_features == 80
    assert all(a is b for a, b in zip(kept, small.parameters(), strict=True))
    ours, theirs = [step(small, other) for _ in range(6)], [step(full, optimizer) for _ in range(6)]
    if name == "adafactor":  # it scales by the mean over all weights of a tensor, and a smaller tensor has fewer
        assert ours[:1] == pytest.approx(theirs[:1], rel=1e-12)
        assert ours[-1] < ours[0]
    else:
        assert ours == pytest.approx(theirs, rel=1e-10)


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("blocks", [tl.Elements(), tl.Filters(), None])
def test_controllers_and_the_averaging_become_smaller_as_well(reference, blocks):
    """The rate falls, so that gradients are averaged over longer and longer windows; λ is weighted and warmed up."""

    def trained(shrinks: bool) -> list[float]:
        model = network()
        penalty = tl.L1(over=units(model) if blocks is None else blocks)
        optimizer = tl.ProxAdam(tl.param_groups(model, penalty, lam=1e-3), lr=0.01)
        given = {p: p.detach() + 0.1 for p in model.parameters()} if reference else None
        controls = [tl.Reweighted(optimizer, theta=0.1, reference=given), tl.Warmup(optimizer, steps=6)]
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12)
        losses = []
        for i in range(10):
            losses.append(step(model, optimizer, *controls))
            scheduler.step()
            if i == 4 and shrinks:
                assert tl.shrink_(model, optimizer, X[:2], controllers=controls).removed == 4
        return losses

    assert trained(True) == pytest.approx(trained(False), rel=1e-10)


def test_removed_units_count_as_zeros_for_a_target_of_sparsity():
    model = network()
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(), lam=1e-4), lr=0.01)
    control = tl.TargetSparsity(optimizer, 0.9, steps=50)
    for _ in range(5):
        step(model, optimizer, control)
    before = control.left[0]
    went = sum(int(p.count_nonzero()) for p in optimizer.param_groups[0]["params"])
    tl.shrink_(model, optimizer, X[:2], controllers=[control])
    went -= sum(int(p.count_nonzero()) for p in optimizer.param_groups[0]["params"])
    assert went == 0  # the dead units of this network have no weight that is not zero
    assert control.left[0] == before
    step(model, optimizer, control)
    resumed = tl.TargetSparsity(optimizer, 0.9, steps=50)
    resumed.load_state_dict(control.state_dict())
    assert resumed.left == control.left


def test_removed_units_count_as_saved_for_a_budget():
    torch.manual_seed(0)
    model = network().float()
    x = X.float()
    rules = [tl.Rule("6.*", None), tl.Rule("*", tl.L1(over=tl.Filters()))]
    optimizer = tl.ProxAdam(tl.param_groups(model, rules, lam=1e-4), lr=0.01)
    control = tl.TargetBudget(optimizer, model, x, flops=0.3, steps=50)
    before = control.left[0]
    tl.shrink_(model, optimizer, x[:2], controllers=[control])
    assert control.left[0] == pytest.approx(before, rel=1e-6)
    assert control.left[0] < 0.7


@pytest.mark.parametrize(
    "make",
    [
        lambda model, optimizer: tl.TargetSparsity(optimizer, 0.7, steps=40),
        lambda model, optimizer: tl.TargetBudget(optimizer, model, X, flops=0.5, steps=40),
        lambda model, optimizer: tl.TargetCount(optimizer, 6, steps=40),
    ],
)
def test_a_controller_that_was_not_given_says_so(make: Callable[[nn.Module, tl.ProxAdam], tl.LambdaController]):
    model = network()
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(over=units(model)), lam=1e-3), lr=1e-3)
    control = make(model, optimizer)
    step(model, optimizer, control)
    before = control.state_dict()
    assert tl.shrink_(model, optimizer, X[:2]).removed
    with pytest.raises(RuntimeError, match=r"give its controllers as well, as in shrink_\(.*controllers=\[control\]"):
        step(model, optimizer, control)
    fresh = make(model, optimizer)
    with pytest.raises(RuntimeError, match="give its controllers as well"):
        fresh.load_state_dict(before)


def test_an_optimizer_of_another_model_is_refused():
    model = network()
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(), lam=1e-3), lr=1e-3)
    copied = copy.deepcopy(model)
    with pytest.raises(ValueError, match="ProxAdam has no parameter of the model"):
        tl.shrink_(copied, optimizer, X[:2])
    assert [p.shape for p in copied.parameters()] == [p.shape for p in model.parameters()]


def test_several_optimizers_of_one_model():
    """The dead units take no part in any step, so the losses stay the same."""

    def trained(shrinks: bool) -> list[float]:
        model = network()
        optimizers = [
            tl.ProxAdam(tl.param_groups(model[:4], tl.L1(over=tl.Filters()), lam=1e-4), lr=0.01),
            torch.optim.SGD(model[4].parameters(), lr=0.05, momentum=0.9),
            torch.optim.Adam(model[6].parameters(), lr=0.01, amsgrad=True),
        ]
        controls = [tl.Reweighted(optimizers[0], theta=0.1), tl.Warmup(optimizers[0], steps=6)]
        losses = []
        for i in range(8):
            for other in optimizers[1:]:
                other.zero_grad()
            losses.append(step(model, optimizers[0], *controls))
            for other in optimizers[1:]:
                other.step()
            if i == 3 and shrinks:
                assert tl.shrink_(model, optimizers, X[:2], controllers=controls).removed == 4
                assert model[4].weight.shape == (5, 80)
        return losses

    assert trained(True) == pytest.approx(trained(False), rel=1e-10)


@pytest.mark.parametrize("over", [tl.Rows(), tl.Elements()])
def test_a_part_of_a_model_whose_groups_reach_beyond_it(over):
    model = network()
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(over=over), lam=1e-4), lr=0.01)
    step(model, optimizer)
    for i in DEAD["4"]:
        assert not model[4].weight[i].any()
    body = model[:5]
    assert tl.shrink_(body, optimizer, X[:2]).removed == 3  # its outputs stay
    assert model[4].weight.shape == (6, 80)
    step(model, optimizer)


def test_optimizers_are_a_list_of_optimizers():
    model = network()
    with pytest.raises(TypeError, match="shrink_: optimizer must be the optimizer of the model, or a list of several"):
        tl.shrink_(model, [torch.optim.SGD(model.parameters()), "adam"], X[:2])


@pytest.mark.parametrize("blocks", [tl.Heads(n=2), tl.Chunks(n=2), tl.SingularValues()])
def test_blocks_that_would_become_others_are_refused(blocks):
    model = network()
    rules = tl.Rule("4.weight", tl.L1(over=blocks))
    optimizer = tl.ProxSGD(tl.param_groups(model, rules, lam=1e-4), lr=0.01)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="would change in a smaller model; penalise whole units"):
        tl.shrink_(model, optimizer, X[:2])
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))


def test_where_something_holds_on_to_the_parameters_nothing_is_changed():
    import weakref

    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    held = weakref.ref(model[4].weight)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError, match=r"another object holds 4\.weight.*DistributedDataParallel"):
        tl.shrink_(model, optimizer, X[:2])
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))
    assert held() is model[4].weight


def test_gradients_are_cut_too():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    F.cross_entropy(model(X), Y).backward()
    whole: Tensor = model[0].weight.grad
    tl.shrink_(model, optimizer, X[:2])
    alive = [i for i in range(8) if i not in DEAD["0"]]
    assert torch.equal(model[0].weight.grad, whole[alive])


def test_an_output_whose_graph_is_alive_is_named():
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    output = model(X)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError, match=r"an output whose graph is alive holds the parameters.*: delete it, or"):
        tl.shrink_(model, optimizer, X)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))
    del output
    assert tl.shrink_(model, optimizer, X).after.parameters < sum(w.numel() for w in before.values())


class Normed(nn.Module):
    """A recurrent layer with weight norm, which keeps the weights that its last pass computed."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.layer, self.head = nn.Linear(3, 6), nn.LSTM(6, 4, batch_first=True), nn.Linear(4, 2)
        nn.utils.parametrizations.weight_norm(self.layer, "weight_hh_l0")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.layer(self.linear(x))[0])
        return out


def test_a_recurrent_layer_with_weight_norm_after_a_backward_pass():
    torch.manual_seed(0)
    model, x = Normed(), torch.randn(2, 5, 3)
    with torch.no_grad():
        for w in model.linear.parameters():
            w[0] = 0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(x).sum().backward()
    optimizer.zero_grad()
    expected = model(x).detach()
    assert tl.Units(model, x).families
    torch.testing.assert_close(tl.accelerate(model, x, seconds=0.01)(x), expected)
    torch.testing.assert_close(tl.compact(model, x)(x).detach(), expected)
    tl.shrink_(model, optimizer, x)
    assert model.linear.out_features == 5
    torch.testing.assert_close(model(x).detach(), expected)
    model(x).sum().backward()
    optimizer.step()
    tl.shrink_(model, optimizer, x)  # again: nothing is left to remove
    assert model.linear.out_features == 5

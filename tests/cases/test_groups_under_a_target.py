"""Targets and groups: added later, removed, frozen, without gradients, of λ = 0; and weights that only decay."""

from __future__ import annotations

import copy
import math
import warnings

import pytest
import torch
from torch import nn

import torchlasso as tl

STEPS = 300
GOAL = torch.randn(12, 12, generator=torch.Generator().manual_seed(0))


def weight() -> nn.Parameter:
    return nn.Parameter(0.3 * torch.randn(12, 12, generator=torch.Generator().manual_seed(1)))


def group(p: nn.Parameter, name: str, lam: float = 0.02, penalty: tl.Penalty = tl.L1()) -> dict:  # noqa: B008
    return {"params": [p], "names": [name], "penalty": penalty, "lam": lam}


def zeros(*params: torch.Tensor) -> float:
    return sum(int((p == 0).sum()) for p in params) / sum(p.numel() for p in params)


class Training:
    """Weights that are drawn to a goal, at a rate that falls; what happens at which step can be said."""

    def __init__(self, groups: list[dict], make, cls=tl.ProxAdam) -> None:
        self.optimizer = cls(groups, lr=0.05)
        self.control = make(self.optimizer)
        self.done = 0

    def run(self, trained, steps: int = STEPS) -> list[str]:
        """Train some parameters, and return the warnings about idle ones."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(steps):
                for other in self.optimizer.param_groups:
                    other["lr"] = 0.05 * (1 - self.done / STEPS) + 1e-5
                self.optimizer.zero_grad()
                sum((p - GOAL).square().sum() / 2 for p in trained).backward()
                self.optimizer.step()
                self.control.step()
                self.done += 1
        return [str(one.message) for one in caught if "TargetMissed" not in str(one.category)]


def target(share: float = 0.7, **options):
    return lambda optimizer: tl.TargetSparsity(optimizer, share, steps=STEPS, **options)


# --- groups that come and go ---


@pytest.mark.parametrize("scope", ["model", "group"])
@pytest.mark.parametrize("cls", [tl.ProxAdam, tl.ProxSGD])
def test_a_group_that_is_added_later_is_steered_and_counts(scope, cls):
    first, late = weight(), weight()
    training = Training([group(first, "first", lam=0.1)], target(scope=scope), cls)
    training.run([first], STEPS // 3)
    training.optimizer.add_param_group(group(late, "late", lam=0.05))
    assert not training.run([first, late], STEPS - STEPS // 3)
    assert zeros(first, late) == pytest.approx(0.7, abs=0.06)
    lams = training.control.lam
    if scope == "model":
        assert lams[0] == pytest.approx(2 * lams[1])
    else:
        # of 144 weights each: over twelve goals they end 0.04 away in the mean, and 0.15 at most
        assert [zeros(p) for p in (first, late)] == pytest.approx([0.7, 0.7], abs=0.12)
        assert len(training.control.left) == 2


def test_a_group_for_which_there_is_no_target_is_named():
    first, late = weight(), weight()
    training = Training([group(first, "first")], target([0.7], scope="group"))
    training.optimizer.add_param_group(group(late, "late"))
    (said,) = training.run([first, late])
    assert said.startswith("TargetSparsity: late: the group has no target of its own")
    assert zeros(first) == pytest.approx(0.7, abs=0.02)
    assert training.control.lam[1] == 0.02
    assert len(training.control.left) == 1


def test_a_later_group_whose_lam_is_zero_is_named():
    first, late = weight(), weight()
    training = Training([group(first, "first")], target())
    training.optimizer.add_param_group(group(late, "late", lam=0.0))
    (said,) = training.run([first, late])
    assert said.startswith("TargetSparsity: late: λ is 0")
    assert zeros(first) == pytest.approx(0.7, abs=0.02)


def test_a_group_that_is_removed_counts_no_more():
    first, gone = weight(), weight()
    training = Training([group(gone, "gone"), group(first, "first")], target())
    training.run([first, gone], 50)
    del training.optimizer.param_groups[0]
    with pytest.raises(ValueError, match=r"1 groups and 2 penalties; .* delete its entry in optimizer\.penalties"):
        training.control.step()
    del training.optimizer.penalties[0]
    training.run([first], STEPS - 50)
    assert zeros(first) == pytest.approx(0.7, abs=0.02)


def test_a_training_with_a_later_group_resumes_where_it_was():
    def made() -> tuple[list[nn.Parameter], Training]:
        params = [weight(), weight()]
        training = Training([group(params[0], "first")], target())
        return params, training

    params, training = made()
    training.run(params[:1], 60)
    training.optimizer.add_param_group(group(params[1], "late"))
    training.run(params, 60)
    others, resumed = made()
    resumed.optimizer.add_param_group(group(others[1], "late"))
    resumed.done = training.done
    with torch.no_grad():
        for p, other in zip(params, others, strict=True):
            other.copy_(p)
    resumed.optimizer.load_state_dict(copy.deepcopy(training.optimizer.state_dict()))
    resumed.control.load_state_dict(copy.deepcopy(training.control.state_dict()))
    for each, own in ((training, params), (resumed, others)):
        each.run(own, 60)
    assert resumed.control.lam == training.control.lam
    assert all(torch.equal(p, other) for p, other in zip(params, others, strict=True))


@pytest.mark.parametrize("make", [lambda o: tl.Warmup(o, steps=100), lambda o: tl.Reweighted(o, theta=0.1)])
def test_other_controllers_take_a_later_group_in(make):
    first, late = weight(), weight()
    training = Training([group(first, "first")], make)
    training.run([first], 50)
    training.optimizer.add_param_group(group(late, "late"))
    training.run([first, late], 20)
    lams = training.control.lam
    assert lams[0] == lams[1] > 0
    assert (late in training.optimizer.weights) == (first in training.optimizer.weights)


def test_a_reference_weighs_a_later_group_once():
    first, late = weight(), weight()
    reference = {first: torch.ones(12, 12), late: torch.full((12, 12), 0.1)}
    training = Training([group(first, "first")], lambda o: tl.Reweighted(o, theta=0.1, reference=reference))
    training.optimizer.add_param_group(group(late, "late"))
    training.run([first, late], 3)
    torch.testing.assert_close(training.optimizer.weights[late], torch.full((12, 12), 0.5))


def test_a_later_penalty_without_magnitudes_is_refused_by_reweighted():
    first, late = weight(), weight()
    training = Training([group(first, "first")], lambda o: tl.Reweighted(o, theta=0.1))
    training.optimizer.add_param_group(group(late, "late", penalty=tl.SparseGroup()))
    with pytest.raises(ValueError, match=r"Reweighted: SparseGroup\(.* has no magnitudes to take weights from"):
        training.control.step()


# --- parameters without gradients ---


@pytest.mark.parametrize("frozen", [False, True])
def test_a_parameter_without_gradients_is_named_and_does_not_empty_the_others(frozen):
    used, unused = weight(), weight().requires_grad_(not frozen)
    training = Training([group(used, "body.weight"), group(unused, "head.weight")], target())
    (said,) = training.run([used])
    assert said.startswith("TargetSparsity: head.weight: there is no gradient")
    assert zeros(used) == pytest.approx(0.7, abs=0.02)
    assert training.control.left == [pytest.approx(1 - zeros(used))]


def test_it_counts_from_its_first_gradient_on():
    used, late = weight(), weight()
    training = Training([group(used, "used"), group(late, "late")], target())
    assert len(training.run([used], 80)) == 1
    assert not training.run([used, late], STEPS - 80)
    assert zeros(used, late) == pytest.approx(0.7, abs=0.04)


def test_a_parameter_that_is_trained_now_and_then_counts():
    often, seldom = weight(), weight()
    training = Training([group(often, "often"), group(seldom, "seldom")], target())
    said = [training.run([often, seldom] if i % 7 == 0 else [often], 1) for i in range(STEPS)]
    assert not any(said)
    assert zeros(often, seldom) == pytest.approx(0.7, abs=0.06)


def test_where_gradients_are_gone_before_the_controller_is_called_all_count():
    w = weight()
    training = Training([group(w, "w")], target())
    step = training.optimizer.step

    def stepped() -> None:
        step()
        training.optimizer.zero_grad()

    training.optimizer.step = stepped
    assert not training.run([w])
    assert zeros(w) == pytest.approx(0.7, abs=0.02)


def test_where_nothing_penalised_is_trained_nothing_is_steered():
    idle, other = weight(), nn.Parameter(torch.zeros(12, 12))
    training = Training([group(idle, "idle"), {"params": [other], "penalty": None}], target())
    assert len(training.run([other])) == 1
    assert math.isnan(training.control.left[0])
    assert 0.01 < training.control.lam[0] < 0.04


def test_names_come_from_param_groups_and_from_named_parameters():
    model = nn.ModuleDict({"used": nn.Linear(12, 12, bias=False), "unused": nn.Linear(12, 12, bias=False)})
    for groups in (tl.param_groups(model, tl.L1(), lam=0.02), model.named_parameters()):
        optimizer = tl.ProxAdam(groups, penalty=tl.L1(), lam=0.02)
        assert optimizer.name_of(model["unused"].weight) == "unused.weight"
        assert "names" not in optimizer.param_groups[0]
        assert copy.deepcopy(optimizer).names
    assert tl.ProxAdam([weight()], penalty=tl.L1()).name_of(weight()) == "a parameter of shape (12, 12)"


# --- budgets ---


def budget(model: nn.Module, x: torch.Tensor):
    return lambda optimizer: tl.TargetBudget(optimizer, model, x, flops=0.5, steps=STEPS)


def test_a_budget_steers_a_later_group_and_names_idle_parameters():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1))
    x = torch.randn(32, 6)
    rows = tl.L1(over=tl.Rows())
    optimizer = tl.ProxAdam([group(model[0].weight, "0.weight", penalty=rows, lam=1e-3)], lr=0.02)
    control = budget(model, x)(optimizer)
    optimizer.add_param_group(group(model[2].weight, "2.weight", penalty=rows, lam=1e-3))
    model[2].weight.requires_grad_(False)

    def train() -> None:
        for _ in range(20):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
            control.step()

    with pytest.warns(UserWarning, match=r"TargetBudget: 2\.weight: there is no gradient.*the others are steered to"):
        train()
    assert control.lam[0] == control.lam[1]
    stranger = weight()
    optimizer.add_param_group(group(stranger, "stranger"))
    with pytest.raises(ValueError, match=r"TargetBudget: 1 of the optimizer's 3 penalised parameters are not of model"):
        control.step()


# --- what only decays ---


@pytest.mark.parametrize("cls", [tl.ProxAdam, tl.ProxAdamW, tl.ProxSGD])
def test_weights_that_read_dead_units_do_not_count_for_a_penalty_on_rows(cls):
    # half of the columns have no gradient, as behind dead units: they decay with their rows until they underflow
    w = weight()
    read = (torch.arange(12) < 6).float()
    optimizer = cls([group(w, "w", lam=0.02, penalty=tl.L1(over=tl.Rows()))], lr=0.05)
    control = tl.TargetSparsity(optimizer, 0.5, steps=STEPS, tolerance=0.1)
    for done in range(STEPS):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - done / STEPS) + 1e-5
        optimizer.zero_grad()
        ((w - GOAL) * read * torch.linspace(0.3, 2, 12)[:, None]).square().sum().div(2).backward()
        optimizer.step()
        control.step()
    dead = (w == 0).all(dim=1)
    assert dead.float().mean() == pytest.approx(0.5, abs=0.1)
    assert control.left == [pytest.approx(1 - dead.float().mean().item())]


@pytest.mark.parametrize("over", [tl.Rows(), tl.Columns(), tl.Filters(), tl.Heads(n=4), tl.Chunks(n=4)], ids=str)
def test_zeros_in_a_block_that_lives_do_not_count(over):
    w = weight()
    with torch.no_grad():
        w[:, 6:] = 0
        w[0] = 0
    rows, _ = over.rows(w.detach())
    wanted = int((rows != 0).any(dim=1).sum()) * rows.shape[1] / w.numel()
    optimizer = tl.ProxSGD([group(w, "w", penalty=tl.L1(over=over))], lr=0.1)
    assert tl.TargetSparsity(optimizer, 0.1, steps=9).left == [pytest.approx(wanted)]


def test_where_single_weights_are_penalised_each_zero_counts():
    for penalty in (tl.L1(), tl.SparseGroup(), tl.L1(over=tl.NM(2, 4))):
        w = weight()
        with torch.no_grad():
            w[:, 6:] = 0
        optimizer = tl.ProxSGD([group(w, "w", penalty=penalty)], lr=0.1)
        assert tl.TargetSparsity(optimizer, 0.1, steps=9).left == [0.5]


def test_of_units_a_block_is_of_several_parameters():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 1))
    units = tl.Units(model, torch.randn(2, 4))
    with torch.no_grad():
        model[0].weight[:3] = 0
        model[0].bias[:2] = 0
    optimizer = tl.ProxSGD(tl.param_groups(model, tl.L1(over=units), lam=0.1), lr=0.1)
    assert tl.TargetSparsity(optimizer, 0.1, steps=9).left == [pytest.approx(4 / 6)]


def test_a_layer_of_rows_is_not_emptied():
    w = weight()
    training = Training([group(w, "w", penalty=tl.L1(over=tl.Rows()))], target(0.97, tolerance=1.0), tl.ProxSGD)
    training.run([w])
    assert 1 <= int((w != 0).any(dim=1).sum()) <= 5

"""What makes a proximal optimizer a torch optimizer, for every base: schedulers, hooks, copies, files, groups."""

import copy
import io
import json
import math
import pickle

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as schedulers
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

import torchlasso as tl
from torchlasso.optim import Metric
from torchlasso.optim.metrics import registry
from torchlasso.penalties import registry as penalty_registry

optim = torch.optim
# name -> (torch optimizer, options)
CASES = {
    "SGD": (optim.SGD, {"lr": 0.1}),
    "SGD momentum": (optim.SGD, {"lr": 0.05, "momentum": 0.9}),
    "SGD dampening": (optim.SGD, {"lr": 0.1, "momentum": 0.8, "dampening": 0.5}),
    "SGD Nesterov": (optim.SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
    "Adam": (optim.Adam, {"lr": 0.02}),
    "Adam amsgrad": (optim.Adam, {"lr": 0.02, "amsgrad": True}),
    "AdamW": (optim.AdamW, {"lr": 0.02, "weight_decay": 0.1}),
    "NAdam": (optim.NAdam, {"lr": 0.02, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    "RAdam": (optim.RAdam, {"lr": 0.02, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    "Adagrad": (optim.Adagrad, {"lr": 0.1, "lr_decay": 0.01}),
    "RMSprop": (optim.RMSprop, {"lr": 0.02}),
    "RMSprop centred momentum": (optim.RMSprop, {"lr": 0.01, "centered": True, "momentum": 0.8}),
    "Adamax": (optim.Adamax, {"lr": 0.02}),
}
EVERY = pytest.mark.parametrize("case", CASES)
FUSED = ["SGD momentum", "Adam", "AdamW", "Adagrad"]
STEPS = 30
LAM = 0.1


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def build(case: str, model: nn.Module, *, lam: float = LAM, averaging: bool = True, **options):
    base, defaults = CASES[case]
    groups = tl.param_groups(model, tl.L1(), lam=lam)
    return tl.proximal(base)(groups, averaging=averaging, **{**defaults, **options})


def build_plain(case: str, model: nn.Module, **options) -> optim.Optimizer:
    base, defaults = CASES[case]
    params = [{"params": group["params"]} for group in tl.param_groups(model, tl.L1(), lam=0.0)]
    return base(params, **{**defaults, **options})


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step % 3)
    return torch.randn(8, 6, generator=generator), torch.randn(8, 3, generator=generator)


def backward(model: nn.Module, step: int, sign: float = 1.0) -> None:
    x, y = batch(step)
    model.zero_grad()
    (sign * (model(x) - y).square().mean()).backward()


def train(model, optimizer, steps=range(STEPS), scheduler=None, *, sign: float = 1.0, silent=lambda step: ()) -> None:
    for step in steps:
        backward(model, step, sign)
        for p in silent(step):
            p.grad = None
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


def flat(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def identical(one: nn.Module, other: nn.Module) -> bool:
    return torch.equal(flat(one), flat(other))


def cosine(optimizer) -> schedulers.LRScheduler:
    return schedulers.CosineAnnealingLR(optimizer, STEPS)


def test_every_known_optimizer_is_tested():
    assert {base for base, _ in CASES.values()} == set(registry())


# --- λ = 0: the base optimizer, bit for bit ---

VARIANTS = {
    "as it is": {},
    "foreach": {"foreach": True},
    "single": {"foreach": False},
    "weight decay": {"weight_decay": 0.05},
    "maximize": {"maximize": True},
}


@pytest.mark.parametrize("variant", VARIANTS)
@EVERY
def test_without_strength_it_is_the_base_optimizer(case, variant):
    ours, theirs = network(), network()
    proximal = build(case, ours, lam=0.0, averaging=False, **VARIANTS[variant])
    plain = build_plain(case, theirs, **VARIANTS[variant])
    before = flat(ours)
    train(ours, proximal)
    train(theirs, plain)
    assert identical(ours, theirs)
    assert not torch.equal(before, flat(ours))


@EVERY
def test_without_strength_it_is_the_base_optimizer_under_a_scheduler_and_with_gradients_that_come_and_go(case):
    ours, theirs = network(), network()
    proximal, plain = build(case, ours, lam=0.0, averaging=False), build_plain(case, theirs)
    for model, optimizer in ((ours, proximal), (theirs, plain)):
        first, last = model[0].weight, model[2].weight
        missing = lambda step, first=first, last=last: [first] * (step < 7) + [last] * (step % 4 == 1)  # noqa: E731
        train(model, optimizer, scheduler=cosine(optimizer), silent=missing)
    assert identical(ours, theirs)


@EVERY
def test_it_is_an_optimizer_of_the_class_of_its_base(case):
    optimizer = build(case, network())
    assert isinstance(optimizer, optim.Optimizer)
    assert isinstance(optimizer, tl.Proximal)
    assert isinstance(optimizer, CASES[case][0])


# --- schedulers ---

SCHEDULERS = {
    "StepLR": lambda o, lr: schedulers.StepLR(o, 5, 0.1),
    "MultiStepLR": lambda o, lr: schedulers.MultiStepLR(o, [5, 10], 0.1),
    "MultiStepLR to 0": lambda o, lr: schedulers.MultiStepLR(o, [10], 0.0),
    "ExponentialLR": lambda o, lr: schedulers.ExponentialLR(o, 0.5),
    "CosineAnnealingLR to 0": lambda o, lr: schedulers.CosineAnnealingLR(o, 12),
    "CosineAnnealingWarmRestarts": lambda o, lr: schedulers.CosineAnnealingWarmRestarts(o, 6),
    "OneCycleLR": lambda o, lr: schedulers.OneCycleLR(o, lr, total_steps=21, cycle_momentum=cycles(o)),
    "CyclicLR": lambda o, lr: schedulers.CyclicLR(o, lr / 10, lr, step_size_up=4, cycle_momentum=cycles(o)),
    "LinearLR to 0": lambda o, lr: schedulers.LinearLR(o, 1.0, 0.0, total_iters=15),
    "PolynomialLR to 0": lambda o, lr: schedulers.PolynomialLR(o, 15),
    "LambdaLR from 0 to 0": lambda o, lr: schedulers.LambdaLR(o, lambda t: min(t / 5, 1.0) * (t < 15)),
    "ConstantLR": lambda o, lr: schedulers.ConstantLR(o, 0.1, total_iters=5),
    "MultiplicativeLR": lambda o, lr: schedulers.MultiplicativeLR(o, lambda t: 0.9),
    "SequentialLR to 0": lambda o, lr: schedulers.SequentialLR(
        o, [schedulers.LinearLR(o, 0.01, total_iters=5), schedulers.CosineAnnealingLR(o, 10)], [5]
    ),
    "ChainedScheduler": lambda o, lr: schedulers.ChainedScheduler(
        [schedulers.ConstantLR(o, 0.1, total_iters=4), schedulers.ExponentialLR(o, 0.8)]
    ),
    "ReduceLROnPlateau": lambda o, lr: schedulers.ReduceLROnPlateau(o, patience=1, threshold=1e9, eps=0.0),
}


def cycles(optimizer) -> bool:
    return "momentum" in optimizer.defaults or "betas" in optimizer.defaults


@pytest.mark.parametrize("name", SCHEDULERS)
@EVERY
def test_every_scheduler_runs(case, name):
    model = network()
    optimizer = build(case, model)
    scheduler = SCHEDULERS[name](optimizer, CASES[case][1]["lr"])
    rates = set()
    for step in range(20):
        backward(model, step)
        before, lr = flat(model), float(optimizer.param_groups[0]["lr"])
        optimizer.step()
        assert flat(model).isfinite().all()
        if lr == 0:
            assert torch.equal(before, flat(model)), "a rate of zero moves nothing"
        rates.add(lr)
        scheduler.step(*([1.0] if name == "ReduceLROnPlateau" else []))
    assert len(rates) > 1
    assert name.endswith("to 0") == (0 in rates)


@pytest.mark.parametrize("over", [tl.Elements(), tl.Filters()], ids=str)
@pytest.mark.parametrize("name", penalty_registry())
@pytest.mark.parametrize("base", [optim.SGD, optim.AdamW])
def test_a_rate_of_zero_moves_nothing_under_any_penalty(base, name, over):
    if base is optim.AdamW and name in ("log-sum", "l-half") and over == tl.Filters():
        pytest.skip("no sound prox under a per-coordinate step: refused")
    model = network()
    with torch.no_grad():
        model[0].weight[0] = 0.0
    optimizer = tl.proximal(base)(
        tl.param_groups(model, penalty_registry()[name](over=over), lam=0.1), lr=0.0, weight_decay=0.0
    )
    before = flat(model)
    train(model, optimizer, range(3))
    torch.testing.assert_close(flat(model), before)
    assert torch.equal(flat(model) == 0, before == 0)


# --- hooks ---


@EVERY
def test_hooks_run_once_a_step_around_update_and_prox(case):
    base, options = CASES[case]
    plain = base([nn.Parameter(torch.zeros(1))], **options)  # torch wraps the step of the base class here
    plain.step()
    w = nn.Parameter(torch.full((3,), 0.5))
    optimizer = tl.proximal(base)([w], penalty=tl.L1(), lam=1e4, **options)
    seen = []
    handles = [
        optimizer.register_step_pre_hook(lambda o, args, kwargs: seen.append(("before", o, w.tolist()))),
        optimizer.register_step_post_hook(lambda o, args, kwargs: seen.append(("after", o, w.tolist()))),
        register_optimizer_step_pre_hook(lambda o, args, kwargs: seen.append(("all before", o, None))),
        register_optimizer_step_post_hook(lambda o, args, kwargs: seen.append(("all after", o, None))),
    ]
    try:
        for now in (optimizer, copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer)), optimizer):
            with torch.no_grad():
                w.fill_(0.5)
            seen.clear()
            w.grad = torch.ones(3)
            now.step()
            own = [("before", now, [0.5] * 3), ("after", now, [0.0] * 3)] if now is optimizer else []
            assert [entry for entry in seen if entry[2]] == own
            assert [entry for entry in seen if not entry[2]] == [("all before", now, None), ("all after", now, None)]
    finally:
        for handle in handles:
            handle.remove()


def test_a_copy_runs_the_hooks_that_it_is_given_once():
    w = nn.Parameter(torch.ones(2))
    optimizer = tl.ProxAdam([w], penalty=tl.L1(), lam=0.1)
    optimizer.register_step_post_hook(lambda *_: pytest.fail("torch does not copy hooks"))
    twin_w, twin = copy.deepcopy((w, optimizer))
    calls = []
    twin.register_step_post_hook(lambda *_: calls.append("after"))
    twin_w.grad = torch.ones(2)
    twin.step()
    assert calls == ["after"]


# --- copies and files ---

COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda what: pickle.loads(pickle.dumps(what))}


@pytest.mark.parametrize("how", COPIES)
@EVERY
def test_a_copy_made_in_mid_training_continues_alike(case, how):
    model = network()
    optimizer = build(case, model)
    scheduler = cosine(optimizer)
    train(model, optimizer, range(15), scheduler)
    twin, twin_optimizer, twin_scheduler = COPIES[how]((model, optimizer, scheduler))
    at_copy = flat(twin)
    train(model, optimizer, range(15, STEPS), scheduler)
    assert torch.equal(flat(twin), at_copy), "the copy has weights of its own"
    assert not identical(model, twin)
    train(twin, twin_optimizer, range(15, STEPS), twin_scheduler)
    assert twin_optimizer.penalties == optimizer.penalties
    assert identical(model, twin)
    assert (flat(model) == 0).any()


@pytest.mark.parametrize("how", COPIES)
@EVERY
def test_a_copy_is_of_the_same_class(case, how):
    optimizer = build(case, network())
    twin = COPIES[how](optimizer)
    assert isinstance(twin, type(optimizer))
    assert isinstance(twin, CASES[case][0])


class UsersAdam(tl.ProxAdam):
    """A class that a user derives."""


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_of_a_derived_class_is_of_the_same_class(how):
    optimizer = UsersAdam([nn.Parameter(torch.ones(2))], penalty=tl.L1(), lam=0.1)
    assert isinstance(COPIES[how](optimizer), UsersAdam)


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_takes_new_groups_with_the_arguments_of_the_original(how):
    optimizer = tl.ProxSGD([nn.Parameter(torch.ones(2))], lr=1.0, penalty=tl.MCP(), lam=0.25, averaging=False)
    twin = COPIES[how](optimizer)
    twin.add_param_group({"params": [nn.Parameter(torch.ones(3))]})
    assert twin.penalties == [tl.MCP(), tl.MCP()]
    assert twin.param_groups[1]["lam"] == 0.25
    assert twin.param_groups[1]["averaging"] is False
    assert len(optimizer.param_groups) == len(optimizer.penalties) == 1


@EVERY
def test_resuming_from_a_file_is_exact(case):
    model = network()
    optimizer = build(case, model)
    scheduler = cosine(optimizer)
    train(model, optimizer, range(15), scheduler, silent=lambda step: [model[2].weight] if step < 4 else [])
    file = io.BytesIO()
    torch.save({"m": model.state_dict(), "o": optimizer.state_dict(), "s": scheduler.state_dict()}, file)
    train(model, optimizer, range(15, STEPS), scheduler)

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed = network(seed=1)
    resumed.load_state_dict(saved["m"])
    fresh = build(case, resumed, lam=0.5)
    again = cosine(fresh)
    fresh.load_state_dict(saved["o"])
    again.load_state_dict(saved["s"])
    assert fresh.param_groups[0]["lam"] == LAM, "λ is part of the file"
    train(resumed, fresh, range(15, STEPS), again)
    assert identical(model, resumed)


@EVERY
def test_the_options_of_the_groups_survive_json(case):
    model = network()
    optimizer = build(case, model)
    scheduler = cosine(optimizer)
    train(model, optimizer, range(15), scheduler)
    saved = optimizer.state_dict()
    groups = json.loads(json.dumps(saved["param_groups"]))
    for ours, theirs in zip(groups, saved["param_groups"], strict=True):
        assert ours == {key: list(v) if isinstance(v, tuple) else v for key, v in theirs.items()}
    twin = copy.deepcopy(model)
    fresh = build(case, twin)
    fresh.load_state_dict({"state": copy.deepcopy(saved["state"]), "param_groups": groups})
    backward(model, 15)
    backward(twin, 15)
    optimizer.step()
    fresh.step()
    assert identical(model, twin)


@EVERY
def test_training_goes_on_from_the_file_of_the_plain_optimizer(case):
    model = network()
    plain = build_plain(case, model)
    train(model, plain, range(15))
    twin = copy.deepcopy(model)
    optimizer = build(case, twin, lam=0.0, averaging=False)
    optimizer.load_state_dict(copy.deepcopy(plain.state_dict()))
    train(model, plain, range(15, STEPS))
    train(twin, optimizer, range(15, STEPS))
    assert identical(model, twin)


@EVERY
def test_the_file_of_the_plain_optimizer_leaves_lam_and_penalties_as_they_are(case):
    model = network()
    plain = build_plain(case, model)
    train(model, plain, range(5))
    optimizer = build(case, model, lam=0.125, averaging=False)
    optimizer.load_state_dict(copy.deepcopy(plain.state_dict()))
    assert [group["lam"] for group in optimizer.param_groups] == [0.125, 0.0]
    assert [group["averaging"] for group in optimizer.param_groups] == [False, False]
    assert optimizer.penalties == [tl.L1(), None]
    optimizer.param_groups[0]["lam"] = 100.0
    train(model, optimizer, range(5, 15))
    assert not model[0].weight.any()


# --- groups and gradients ---


@EVERY
def test_a_group_that_is_added_later_has_its_own_penalty_and_strength(case):
    base, options = CASES[case]
    old, big, free = (nn.Parameter(torch.full((4,), 0.5)) for _ in range(3))
    optimizer = tl.proximal(base)([old], penalty=tl.L1(), lam=1e-6, **options)
    for step in range(20):
        if step == 10:
            optimizer.add_param_group({"params": [big], "penalty": tl.L1(over=tl.Chunks(n=2)), "lam": 1e4})
            optimizer.add_param_group({"params": [free], "penalty": None, "lr": 1e-4})
            assert (big == 0.5).all()
        for w in (old, big, free):
            w.grad = torch.tensor([1.0, -1.0, 1.0, -1.0])
        optimizer.step()
    assert [group["lam"] for group in optimizer.param_groups] == [1e-6, 1e4, 0.0]
    assert optimizer.penalties == [tl.L1(), tl.L1(over=tl.Chunks(n=2)), None]
    assert not big.any()
    assert old.all()
    assert free.all()
    assert (free != 0.5).all()
    assert [group["penalty"] for group in optimizer.penalised_groups()] == [tl.L1(), tl.L1(over=tl.Chunks(n=2))]


@EVERY
def test_a_parameter_without_gradient_is_left_alone(case):
    base, options = CASES[case]
    used, unused, frozen = (nn.Parameter(torch.full((3,), 0.5)) for _ in range(3))
    frozen.requires_grad_(False)
    optimizer = tl.proximal(base)([used, unused, frozen], penalty=tl.L1(), lam=1e4, **options)
    for _ in range(3):
        optimizer.zero_grad()
        used.square().sum().backward()
        optimizer.step()
    assert not used.any()
    assert (unused == 0.5).all()
    assert (frozen == 0.5).all()
    with torch.no_grad():
        used.fill_(0.5)
    optimizer.zero_grad(set_to_none=True)
    optimizer.step()
    assert (used == 0.5).all(), "gradients were set to None: the prox has nothing to follow"
    used.grad = torch.zeros(3)
    optimizer.step()
    assert not used.any(), "a gradient of zero is one"


@EVERY
def test_closure_is_evaluated_once_at_the_sparse_weights_with_gradients(case):
    base, options = CASES[case]
    w = nn.Parameter(torch.tensor([2.0, 1e-3]))
    optimizer = tl.proximal(base)([w], penalty=tl.L1(), lam=0.05, averaging=True, **options)
    seen = []

    def closure():
        assert torch.is_grad_enabled()
        optimizer.zero_grad()
        loss = (w[0] - 2.0).square() + 1e-3 * w.sum()
        loss.backward()
        seen.append((w.tolist(), loss))
        return loss

    w.grad = torch.tensor([1.0, 1e-3])
    assert optimizer.step() is None
    for _ in range(4):
        before, count = w.tolist(), len(seen)
        with torch.no_grad():
            returned = optimizer.step(closure)
        assert len(seen) == count + 1
        assert seen[-1][0] == before
        assert returned is seen[-1][1]
    assert seen[-1][0][1] == 0.0
    assert w[0] > 0


@EVERY
def test_a_tensor_rate_is_a_rate(case):
    ours, theirs = network(), network()
    rate = 2.0**-6  # exact in float32
    for model, lr in ((ours, torch.tensor(rate)), (theirs, rate)):
        optimizer = build(case, model, lr=lr, foreach=False)
        train(model, optimizer, scheduler=schedulers.ExponentialLR(optimizer, 0.95))
        assert isinstance(optimizer.param_groups[0]["lr"], type(lr))
    assert torch.equal(flat(ours) == 0, flat(theirs) == 0)
    torch.testing.assert_close(flat(ours), flat(theirs), rtol=1e-4, atol=1e-5)
    assert (flat(ours) == 0).any()


@EVERY
def test_zeros_are_exact_and_only_where_the_penalty_is(case):
    penalised, alone = network(), network()
    optimizers = build(case, penalised, lam=100.0), build(case, alone, lam=0.0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        for p, q in zip(penalised.parameters(), alone.parameters(), strict=True):
            p.grad = q.grad = torch.randn(p.shape, generator=generator)
        for optimizer in optimizers:
            optimizer.step()
    for layer, free in ((penalised[0], alone[0]), (penalised[2], alone[2])):
        assert not layer.weight.any()
        assert not torch.signbit(layer.weight).any(), "no −0.0"
        assert free.weight.all()
        assert torch.equal(layer.bias, free.bias)
        assert layer.bias.all()


@EVERY
def test_maximizing_the_negative_is_minimizing(case):
    ours, theirs = network(), network()
    train(ours, build(case, ours, maximize=True), sign=-1.0)
    train(theirs, build(case, theirs))
    assert identical(ours, theirs)
    assert (flat(ours) == 0).any()


@pytest.mark.parametrize("case", FUSED)
def test_fused_is_the_same_update(case):
    ours, theirs = network(), network()
    train(ours, build(case, ours, fused=True))
    train(theirs, build(case, theirs))
    torch.testing.assert_close(flat(ours), flat(theirs), rtol=1e-3, atol=1e-4)
    assert torch.equal(flat(ours) == 0, flat(theirs) == 0)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("case", FUSED)
def test_a_step_that_the_gradient_scaler_skips_changes_nothing(case, fused):
    base, options = CASES[case]
    w = nn.Parameter(torch.full((3,), 0.5))
    optimizer = tl.proximal(base)([w], penalty=tl.L1(), lam=0.1, **options, **({"fused": True} if fused else {}))
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale((w * float("inf")).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert (w == 0.5).all()


@pytest.mark.parametrize("case", FUSED)
def test_a_fused_step_with_scaled_gradients_is_the_step_without(case):
    base, options = CASES[case]
    results = []
    for scale in (None, 1024.0):
        w = nn.Parameter(torch.tensor([0.5, -0.25, 1e-3]))
        optimizer = tl.proximal(base)([w], penalty=tl.L1(), lam=0.1, fused=True, **options)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None)
        for _ in range(5):
            optimizer.zero_grad()
            scaler.scale((w - 0.2).square().sum()).backward()
            scaler.step(optimizer)
            scaler.update()
        results.append(w.detach())
    torch.testing.assert_close(*results)


# --- the unit-gradient rule as a law ---

RATES = {
    "constant": lambda t: 1.0,
    "decaying": lambda t: 0.8**t,
    "rising": lambda t: (t + 1) / 10,
    "up and down": lambda t: 1.0 - abs(t - 4) / 10,
}
GRADIENT = torch.tensor([1.0, 0.25, 3.0, 1e-3], dtype=torch.float64)


class Walk:
    """An optimizer under a constant gradient, far from zero: the prox of L1 subtracts τλ exactly."""

    def __init__(self, case: str, averaging: bool, gradient: torch.Tensor, **options):
        base, defaults = CASES[case]
        self.w = nn.Parameter(torch.full_like(gradient, 1e3))
        self.gradient, self.options = gradient, {**defaults, **options}
        self.optimizer = tl.proximal(base)([self.w], penalty=tl.L1(), lam=0.0, averaging=averaging, **self.options)

    def step(self, factor: float, lam: float = 0.0) -> torch.Tensor:
        """One step, with the displacement that it made."""
        group, before = self.optimizer.param_groups[0], self.w.detach().clone()
        group.update(lam=lam, lr=self.options["lr"] * factor)
        self.w.grad = self.gradient.clone()
        self.optimizer.step()
        return before - self.w.detach()

    def threshold(self, factor: float, lam: float) -> torch.Tensor:
        """How much further one step from here goes with λ than without, on copies."""
        with_lam, without = copy.deepcopy((self.w, self.optimizer)), copy.deepcopy((self.w, self.optimizer))
        moved = []
        for (w, optimizer), strength in ((with_lam, lam), (without, 0.0)):
            optimizer.param_groups[0].update(lam=strength, lr=self.options["lr"] * factor)
            w.grad = self.gradient.clone()
            optimizer.step()
            moved.append(w.detach())
        return moved[1] - moved[0]


def has_history_in_its_denominator(case: str) -> bool:
    # RMSprop's buffer adds up gradients that were each divided by the denominator of their own step
    return CASES[case][0] is optim.RMSprop and CASES[case][1].get("momentum", 0) > 0


@pytest.mark.parametrize("averaging", [True, False], ids=["averaging", "plain"])
@pytest.mark.parametrize("rates", RATES)
@pytest.mark.parametrize("case", [case for case in CASES if not has_history_in_its_denominator(case)])
def test_the_threshold_is_lam_times_the_step_under_a_unit_gradient(case, rates, averaging):
    # the update is linear in the averaged gradient, so a constant gradient c moves a coordinate by c·τ
    decay = {"weight_decay": 0.0} if CASES[case][1].get("weight_decay") else {}
    penalised, undecayed = Walk(case, averaging, GRADIENT), Walk(case, averaging, GRADIENT, **decay)
    lam = 0.5
    for t in range(10):
        factor = RATES[rates](t)
        threshold = penalised.threshold(factor, lam)
        penalised.step(factor)
        displacement = undecayed.step(factor)  # decoupled decay is no part of τ
        torch.testing.assert_close(threshold, lam * displacement / GRADIENT, rtol=1e-7, atol=1e-12)
        assert (threshold > 0).all()


@pytest.mark.parametrize("case", ["SGD", "Adagrad", "RMSprop", "Adam", "Adam amsgrad", "AdamW", "RAdam", "Adamax"])
def test_the_threshold_takes_the_metric_of_the_step_whatever_the_gradients_were(case):
    # gradients that fall: amsgrad's and Adamax's maxima are of the past
    walk = Walk(case, False, GRADIENT, **({"weight_decay": 0.0} if "weight_decay" in CASES[case][1] else {}))
    generator, lam = torch.Generator().manual_seed(0), 0.5
    for t in range(1, 16):
        walk.gradient = torch.randn(4, generator=generator, dtype=torch.float64) * 0.6**t
        threshold, displacement = walk.threshold(1.0, lam), walk.step(1.0)
        state = walk.optimizer.state[walk.w]
        first = walk.optimizer.param_groups[0].get("betas", (0.0,))[0]
        average = state["exp_avg"] / (1 - first**t) if first else walk.gradient
        torch.testing.assert_close(threshold, lam * displacement / average, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("centered", [True, False], ids=["centred", "plain"])
@pytest.mark.parametrize("averaging", [True, False], ids=["averaging", "plain"])
def test_the_threshold_of_rmsprop_with_momentum_takes_the_denominator_of_the_step(centered, averaging):
    walk = Walk("RMSprop centred momentum", averaging, GRADIENT, centered=centered)
    lr, momentum, alpha, lam = 0.01, 0.8, 0.99, 0.5
    for t in range(1, 11):
        share = 1 - alpha**t  # of the constant gradient in both averages
        variance = GRADIENT**2 * (share - share**2 * centered)
        gain = (1 - momentum**t) / (1 - momentum)
        expected = lam * lr * gain / (variance.sqrt() + 1e-8)
        torch.testing.assert_close(walk.threshold(1.0, lam), expected, rtol=1e-7, atol=1e-12)
        walk.step(1.0)


@EVERY
def test_the_threshold_is_right_after_loading_the_file_of_the_plain_optimizer(case):
    # SGD's file does not say how old its buffer is; after 200 steps its gain is at the limit that is assumed
    base, options = CASES[case]
    if options.get("weight_decay"):
        options = {**options, "weight_decay": 0.0}
    w = nn.Parameter(torch.full((2,), 1e3, dtype=torch.float64))
    plain = base([w], **options)
    for _ in range(200):
        w.grad = torch.ones_like(w)
        plain.step()
    moved = []
    for lam in (0.0, 0.5):
        twin = nn.Parameter(w.detach().clone())
        optimizer = tl.proximal(base)([twin], penalty=tl.L1(), lam=lam, **options)
        optimizer.load_state_dict(copy.deepcopy(plain.state_dict()))
        twin.grad = torch.ones_like(twin)
        optimizer.step()
        moved.append(w.detach() - twin.detach())
    tolerance = 0.05 if has_history_in_its_denominator(case) else 1e-7
    torch.testing.assert_close(moved[1], 1.5 * moved[0], rtol=tolerance, atol=0.0)


@pytest.mark.parametrize("momenta", [(0.0, 0.9), (0.9, 0.0, 0.9), (0.9, 0.5)], ids=str)
def test_the_threshold_of_sgd_follows_a_momentum_that_is_changed(momenta):
    walk = Walk("SGD momentum", False, GRADIENT)
    for momentum in momenta:
        walk.optimizer.param_groups[0]["momentum"] = momentum
        for _ in range(5):
            threshold = walk.threshold(1.0, 0.5)
            torch.testing.assert_close(threshold, 0.5 * walk.step(1.0) / GRADIENT, rtol=1e-7, atol=1e-12)


# --- refusals ---


def weights(*shape: int, **options) -> nn.Parameter:
    return nn.Parameter(torch.ones(*shape, **options))


@pytest.mark.parametrize("base", [optim.LBFGS, optim.Adadelta, optim.Rprop, optim.ASGD], ids=lambda c: c.__name__)
def test_an_optimizer_without_a_known_metric_is_refused(base):
    with pytest.raises(ValueError, match=rf"^{base.__name__}: its metric is not known.*metric="):
        tl.proximal(base)


def test_a_subclass_of_a_known_optimizer_is_not_taken_for_it():
    class Adamantium(optim.Adam):
        pass

    with pytest.raises(ValueError, match="Adamantium: its metric is not known"):
        tl.proximal(Adamantium)


@pytest.mark.parametrize("groups", [lambda: [weights(2)], lambda: [{"params": [weights(2)], "penalty": None}]])
def test_no_penalty_at_all_is_refused(groups):
    with pytest.raises(ValueError, match=r"ProxSGD: no parameter group has a penalty.*param_groups"):
        tl.ProxSGD(groups(), lr=0.1)


@pytest.mark.parametrize("lam", [-1e-3, math.nan, math.inf, "0.1", None, True], ids=repr)
def test_a_strength_that_is_none_is_refused(lam):
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
        weights(4, dtype=torch.complex64),
        {"penalty": tl.L1(), "lam": 0.1},
        TypeError,
        "complex parameters cannot be penalised",
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
def test_what_has_no_meaning_is_refused(cause):
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

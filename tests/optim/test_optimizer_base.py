"""Without a penalty's strength it is the base optimizer; schedulers and hooks treat it as one."""

import copy
import itertools
import pickle

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as schedulers
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

import torchlasso as tl
from tests.support.optimizers import (
    CASES,
    EVERY,
    backward,
    build,
    build_plain,
    cosine,
    flat,
    identical,
    network,
    optim,
    train,
)
from tests.support.pairwise import cover
from torchlasso.optim.metrics import known_metrics
from torchlasso.penalties import registry as penalty_registry


def test_every_known_optimizer_is_tested():
    assert {base for base, _ in CASES.values()} == set(known_metrics())


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
def test_without_strength_it_is_the_base_optimizer_under_a_scheduler_and_with_missing_gradients(case):
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


# each optimizer and each scheduler, and the scheduler that moves momenta under every optimizer
@pytest.mark.parametrize(
    ("case", "name"), cover([list(CASES), list(SCHEDULERS)], 1) + [(case, "OneCycleLR") for case in CASES]
)
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


REFUSED = {(optim.AdamW, name, tl.Filters()) for name in ("log-sum", "l-half")}
COMBINATIONS = set(itertools.product([optim.SGD, optim.AdamW], penalty_registry(), [tl.Elements(), tl.Filters()]))


@pytest.mark.parametrize(("base", "name", "over"), sorted(COMBINATIONS - REFUSED, key=str), ids=str)
def test_a_rate_of_zero_moves_nothing_under_any_penalty(base, name, over):
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


def test_it_shows_its_penalties_and_options():
    text = repr(tl.ProxAdam(tl.param_groups(network(), tl.MCP(gamma=2.0), lam=0.1), lr=0.02))
    assert "penalty: MCP(over=Elements(), gamma=2.0)" in text
    assert "penalty: None" in text
    assert "lam: 0.1" in text
    assert "lr: 0.02" in text
    assert "gains" not in text

"""Options of groups: as tensors, different in each group, changed in mid-training, and refused by torch."""

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as schedulers

import torchlasso as tl
from tests.support.implementations import (
    ALL,
    EACH,
    FEW,
    IMPLEMENTATIONS,
    NAMES,
    OTHER_IMPLEMENTATIONS,
    STEPS,
    assert_alike,
    build_as,
    options_of,
    random_gradients,
    run,
    wide,
)
from tests.support.optimizers import CASES, flat
from tests.support.pairwise import pairwise


def weights() -> nn.Parameter:
    return nn.Parameter(torch.linspace(-1, 1, 12, dtype=torch.float64))


def train(optimizer, ws, steps=range(20), before=lambda step: None) -> torch.Tensor:
    for step in steps:
        before(step)
        random_gradients(ws, step)
        optimizer.step()
    return torch.cat([w.detach() for w in ws])


def optimizer_of(case: str, implementation: str, ws, *, lam: float = 0.5, **options) -> tl.Proximal:
    cls = tl.proximal(CASES[case][0])
    return cls(ws, penalty=tl.L1(), lam=lam, **{**options_of(case, implementation), **options})


# --- options in tensors ---

TENSOR_RATES = {
    "no dimensions": lambda lr: torch.tensor(lr),
    "one dimension": lambda lr: torch.tensor([lr]),
    "float64": lambda lr: torch.tensor(lr, dtype=torch.float64),
}


@pairwise(case=NAMES, implementation=IMPLEMENTATIONS, form=TENSOR_RATES)
def test_a_tensor_rate_is_a_rate(case, implementation, form):
    lr, ws = 2.0**-4, ([weights()], [weights()])
    if implementation == "foreach" and "Adam" in case:
        with pytest.raises(ValueError, match="lr as a Tensor is not supported"):
            optimizer_of(case, implementation, ws[0], lr=TENSOR_RATES[form](lr))
        return
    rate = TENSOR_RATES[form](lr)
    ours, theirs = optimizer_of(case, implementation, ws[0], lr=rate), optimizer_of(case, "one by one", ws[1], lr=lr)
    falling = [schedulers.StepLR(o, 5, 0.5) for o in (ours, theirs)]  # exact in float32 too

    results = [
        train(o, params, before=lambda step, s=s: s.step() if step else None)
        for o, params, s in zip((ours, theirs), ws, falling, strict=True)
    ]
    assert ours.param_groups[0]["lr"] is rate, "schedulers write into it"
    tolerance = 1e-9 if rate.dtype == torch.float64 else 1e-5
    torch.testing.assert_close(*results, rtol=tolerance, atol=tolerance)
    assert torch.equal(results[0] == 0, results[1] == 0)
    assert (results[0] == 0).any()


@pytest.mark.parametrize("implementation", ["one by one", "fused"])
@pytest.mark.parametrize("case", ["Adam", "Adam amsgrad", "AdamW"])
def test_tensor_betas_are_betas(case, implementation):
    betas = torch.tensor(0.875), torch.tensor([0.9375])  # exact in float32
    ours, theirs = [weights()], [weights()]
    given = optimizer_of(case, implementation, ours, betas=betas)
    plain = optimizer_of(case, "one by one", theirs, betas=tuple(float(b) for b in betas))
    for optimizer in (given, plain):
        optimizer.param_groups[0]["lr_peak"] = 2 * optimizer.param_groups[0]["lr"]  # a longer window
    torch.testing.assert_close(train(given, ours), train(plain, theirs), rtol=1e-5, atol=1e-6)


@EACH
@FEW
def test_a_tensor_weight_decay_is_a_weight_decay(case, implementation):
    ours, theirs = [weights()], [weights()]
    given = optimizer_of(case, implementation, ours, weight_decay=torch.tensor(0.25, dtype=torch.float64))
    assert_alike(train(given, ours), train(optimizer_of(case, "one by one", theirs, weight_decay=0.25), theirs))


# --- what torch refuses, or allows on some devices only ---


@EACH
@pytest.mark.parametrize("case", ["Adam", "AdamW"])
def test_capturable_means_the_same_as_in_torch(case, implementation):
    ours, theirs = [weights()], [weights()]
    before = ours[0].detach().clone()
    optimizer = optimizer_of(case, implementation, ours, capturable=True)
    if implementation == "fused":
        assert_alike(train(optimizer, ours), train(optimizer_of(case, "one by one", theirs), theirs))
    else:
        with pytest.raises(AssertionError, match="If capturable=True, params and state_steps must be on supported"):
            train(optimizer, ours)
        assert torch.equal(before, ours[0])


@EACH
@ALL
def test_differentiable_is_refused(case, implementation):
    with pytest.raises((ValueError, RuntimeError), match=r"differentiable=True is not possible|not support `differ"):
        optimizer_of(case, implementation, [weights()], differentiable=True)


@FEW
def test_fused_and_foreach_together_are_refused(case):
    with pytest.raises(RuntimeError, match="`fused` and `foreach` cannot be `True` together"):
        optimizer_of(case, "fused", [weights()], foreach=True)


# --- of each group, and changed ---


def groups_of_one_case(case: str) -> list[dict]:
    averaging = {"betas": (0.5, 0.9)} if "Adam" in case else {"momentum": 0.5}
    return [
        {},
        {"lr": 0.2},
        {"lam": 0.1},
        {"weight_decay": 0.25},
        {"penalty": None},
        {"averaging": False},
        {"penalty": tl.MCP(gamma=3.0), "lam": 0.3},
        {"penalty": tl.L1(over=tl.Chunks(n=3))},
        averaging,
    ]


@EACH
@FEW
def test_groups_with_options_of_their_own_are_as_optimizers_of_their_own(case, implementation):
    options = groups_of_one_case(case)
    together, alone = [weights() for _ in options], [weights() for _ in options]
    groups = [{"params": [w], **group} for w, group in zip(together, options, strict=True)]
    optimizer = optimizer_of(case, implementation, groups)
    singles = [
        optimizer_of(case, "one by one", [{"params": [w], **group}, {"params": [weights()]}])
        for w, group in zip(alone, options, strict=True)
    ]
    for step in range(20):
        for i, (ours, single) in enumerate(zip(optimizer.param_groups, singles, strict=True)):
            for group in (ours, single.param_groups[0]):
                group["lr"] *= 0.95 - 0.02 * i  # each has its own averaging window
        random_gradients(together, step)
        for w, twin in zip(together, alone, strict=True):
            twin.grad = w.grad.clone()
        for o in (optimizer, *singles):
            o.step()
    for w, twin in zip(together, alone, strict=True):
        assert_alike(w.detach(), twin.detach())
    assert len({tuple(w.tolist()) for w in together[:4]}) == 4, "the options have an effect"


CHANGES = {
    "lam": lambda case: {"lam": 1.0},
    "lam to 0": lambda case: {"lam": 0.0},
    "lr": lambda case: {"lr": 0.3},
    "lr to 0": lambda case: {"lr": 0.0},
    "weight_decay": lambda case: {"weight_decay": 0.5},
    "maximize": lambda case: {"maximize": True},
    "averaging": lambda case: {"averaging": False},
    "momentum": lambda case: {"betas": (0.5, 0.99)} if "Adam" in case else {"momentum": 0.5, "nesterov": False},
    "no momentum": lambda case: {"betas": (0.0, 0.99)} if "Adam" in case else {"momentum": 0.0, "nesterov": False},
    "eps": lambda case: {"eps": 0.5} if "Adam" in case else {"dampening": 0.3, "nesterov": False},
}


@pairwise(case=NAMES, implementation=OTHER_IMPLEMENTATIONS, change=CHANGES)
def test_an_option_that_is_changed_holds_from_the_next_step_on(case, implementation, change):
    results = {}
    for name in ("one by one", implementation):
        for changes in ({}, CHANGES[change](case)):
            ws = [weights(), weights()]
            optimizer = optimizer_of(case, name, ws, lam=0.3)

            def alter(step, optimizer=optimizer, changes=changes):
                optimizer.param_groups[0]["lr"] *= 0.95
                if step == 7:
                    optimizer.param_groups[0].update(changes)

            results[name, bool(changes)] = train(optimizer, ws, before=alter)
    assert_alike(results["one by one", True], results[implementation, True])
    nothing_to_change = case == "SGD" and change in ("averaging", "no momentum", "eps")
    assert torch.equal(results["one by one", False], results["one by one", True]) is nothing_to_change


@pairwise(case=NAMES, before=IMPLEMENTATIONS, after=IMPLEMENTATIONS)
def test_the_implementation_can_be_changed_in_mid_training(case, before, after):
    changing, reference = wide(), wide()
    optimizer = build_as(before, case, changing)
    run(changing, optimizer, range(STEPS // 2))
    for group in optimizer.param_groups:
        group.update({"foreach": None, "fused": None, **IMPLEMENTATIONS[after]})
    run(changing, optimizer, range(STEPS // 2, STEPS))
    run(reference, build_as("one by one", case, reference), range(STEPS))
    assert_alike(flat(changing), flat(reference))
    assert (flat(changing) == 0).any()


@EACH
@FEW
def test_a_strength_below_zero_is_refused_before_anything_moves(case, implementation):
    w = weights()
    optimizer = optimizer_of(case, implementation, [w])
    before = w.detach().clone()
    optimizer.param_groups[0]["lam"] = -0.1
    random_gradients([w], 0)
    with pytest.raises(ValueError, match="lam must be a finite number of at least 0"):
        optimizer.step()
    assert torch.equal(before, w)

"""Automatic mixed precision: a step that the gradient scaler skips changes nothing, any other is the unscaled step."""

import pytest
import torch

from tests.support.implementations import EACH, FEW, IMPLEMENTATIONS, NAMES, STEPS, build_as, loss_of, same, snapshot
from tests.support.optimizers import cosine, flat, identical, network
from tests.support.pairwise import each_value, pairwise

pytestmark = pytest.mark.slow

CLIP = 0.05


def scaler_for_tests(**options) -> torch.amp.GradScaler:
    return torch.amp.GradScaler("cpu", **{"init_scale": 1024.0, "growth_interval": 10**6, **options})


def backward(model, optimizer, scaler, step: int, overflows: bool = False) -> None:
    optimizer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(model, step)
    scaler.scale(loss).backward()
    if overflows:
        model[0].weight.grad[0, 0] = float("inf")


def run(model, optimizer, scaler, steps, scheduler=None, *, overflows=(), clip: bool = False) -> None:
    """Train; the steps in ``overflows`` are tried twice, and overflow the first time."""
    for step in steps:
        for overflow in [True, False] if step in overflows else [False]:
            backward(model, optimizer, scaler, step, overflow)
            if clip:
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            scaler.step(optimizer)
            scaler.update()
        if scheduler is not None:
            scheduler.step()


@pairwise(case=NAMES, implementation=IMPLEMENTATIONS, done=[0, 1, 12], unscaled_first=[False, True])
def test_a_skipped_step_advances_nothing(case, implementation, done, unscaled_first):
    model = network()
    optimizer, scaler = build_as(implementation, case, model), scaler_for_tests()
    run(model, optimizer, scaler, range(done), cosine(optimizer))
    optimizer.param_groups[0]["lr"] *= 2.0  # would be a new peak
    before = snapshot(optimizer, *model.parameters())
    backward(model, optimizer, scaler, done, overflows=True)
    if unscaled_first:
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)  # makes all gradients NaN
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 512.0, "the overflow was seen"
    assert same(before, snapshot(optimizer, *model.parameters()))
    backward(model, optimizer, scaler, done)
    scaler.step(optimizer)
    assert not same(before, snapshot(optimizer, *model.parameters())), "the next step is one"


@each_value(case=NAMES, implementation=IMPLEMENTATIONS, clip=[False, True])
def test_skipped_steps_leave_no_trace(case, implementation, clip):
    models = network(), network()
    for model, overflows in zip(models, ((0, 3, 4, 11), ()), strict=True):
        optimizer = build_as(implementation, case, model)
        run(model, optimizer, scaler_for_tests(), range(STEPS), cosine(optimizer), overflows=overflows, clip=clip)
    assert identical(*models)
    assert (flat(models[0]) == 0).any()


@pairwise(case=NAMES, implementation=IMPLEMENTATIONS, clip=[False, True])
def test_steps_with_scaled_gradients_are_the_steps_without(case, implementation, clip):
    # scales are powers of two: taking them out again is exact
    results = []
    for options in ({"enabled": False}, {}, {"growth_interval": 3}):
        model = network()
        optimizer, scaler = build_as(implementation, case, model), scaler_for_tests(**options)
        run(model, optimizer, scaler, range(STEPS), cosine(optimizer), clip=clip)
        results.append(flat(model))
    assert scaler.get_scale() > 1024.0
    # a fused step may unscale in another order of rounding
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=1e-4, atol=1e-5)
        assert torch.equal(result == 0, results[0] == 0)
    assert (results[0] == 0).any()


@pytest.mark.parametrize(("case", "options"), [("SGD", {}), ("Adam", {"eps": 0.1})])  # or Adam takes the scale out
@EACH
def test_clipping_after_unscaling_has_an_effect(case, options, implementation):
    models = network(), network()
    for model, clip in zip(models, (False, True), strict=True):
        run(model, build_as(implementation, case, model, **options), scaler_for_tests(), range(3), clip=clip)
    assert not identical(*models)


@EACH
@FEW
def test_of_two_optimizers_only_the_one_that_overflows_is_skipped(case, implementation):
    models = [network(seed) for seed in (0, 1)]
    optimizers = [build_as(implementation, case, model) for model in models]
    scaler = scaler_for_tests()
    for step in range(3):
        for model, optimizer in zip(models, optimizers, strict=True):
            backward(model, optimizer, scaler, step)
            scaler.step(optimizer)
        scaler.update()
    before = [snapshot(o, *m.parameters()) for m, o in zip(models, optimizers, strict=True)]
    for model, optimizer, overflows in zip(models, optimizers, (True, False), strict=True):
        backward(model, optimizer, scaler, 3, overflows)
        scaler.step(optimizer)
    scaler.update()
    after = [snapshot(o, *m.parameters()) for m, o in zip(models, optimizers, strict=True)]
    assert same(before[0], after[0])
    assert not same(before[1], after[1])
    alone = network(1)
    optimizer, own = build_as(implementation, case, alone), scaler_for_tests()
    run(alone, optimizer, own, range(4))
    assert identical(alone, models[1])


@EACH
@FEW
def test_training_under_autocast_ends_near_the_support_of_full_precision(case, implementation):
    results = []
    for dtype in (torch.bfloat16, None):
        model = network()
        optimizer, scaler = build_as(implementation, case, model), scaler_for_tests(enabled=dtype is not None)
        for step in range(40):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype is not None):
                loss = loss_of(model, step)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        assert all(p.dtype == torch.float32 for p in model.parameters())
        results.append(flat(model))
    zeros = [result == 0 for result in results]
    assert zeros[0].any()
    assert (zeros[0] != zeros[1]).sum() <= 3
    assert (results[0] - results[1]).abs().max() < 0.1
